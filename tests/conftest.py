"""Eight virtual CPU devices, a shared compilation cache and private data folders, set before JAX starts.

GAN_JAX_TEST_CACHE_DIR names a folder in which compiled programs are kept from one run of the tests to the next.
"""

import contextlib
import gc
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import sys
import tempfile


def _kept() -> str:
    """The folder of programs for this compiler, its flags and this processor; empty where none is to be kept."""
    folder, jaxlib = os.environ.get("GAN_JAX_TEST_CACHE_DIR"), importlib.metadata.version("jaxlib")
    if not folder:
        return ""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    abilities = [line for line in lines if line.startswith(("flags", "Features", "model name"))] or lines
    key = hashlib.sha256("\n".join((jaxlib, os.environ["XLA_FLAGS"], *sorted(set(abilities)))).encode()).hexdigest()
    return str(pathlib.Path(folder) / f"jaxlib-{jaxlib}-{key[:16]}")


def _share(target: pathlib.Path, place: pathlib.Path) -> None:
    """Lets the lowered programs of earlier runs stand where this run's go; they are named after the code."""
    target.mkdir(parents=True, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another worker was first
        place.symlink_to(target, target_is_directory=True)


_FLAGS = ["--xla_force_host_platform_device_count=8"]
if "GAN_JAX_TEST_OPTIMISED" not in os.environ:  # programs here run a few steps: a third of the time to compile them
    _FLAGS += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):  # later ones may not know these
        _FLAGS += ["--xla_cpu_use_fusion_emitters=false"]
        _FLAGS += ["--xla_cpu_parallel_codegen_split_count=1"]  # to split costs a fifth, and all cores are busy
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *_FLAGS))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_SESSION = pathlib.Path(os.environ.setdefault("GAN_JAX_TEST_DIR", tempfile.mkdtemp(prefix="gan_jax_tests_")))
os.environ["GAN_JAX_CACHE_DIR"] = str(_SESSION / "cache")
os.environ["GAN_JAX_DATA_DIR"] = str(_SESSION / "data")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _kept() or str(_SESSION / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"  # a resumed run compiles what the run before did
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # where an operation was written costs time, and nobody reads it
if _kept():
    _share(pathlib.Path(_kept()) / "programs", _SESSION / "cache" / "programs")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
gc.set_threshold(100_000, 20, 100)  # tracing makes so many objects that looking for garbage was a tenth of it


def pytest_configure(config):
    """Workers take whole files, in their order, so that what the tests of a file share is made once."""
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist, config.option.loadscopereorder = "loadfile", False
