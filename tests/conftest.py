"""Eight virtual CPU devices, a shared compilation cache and private data folders, set before JAX starts."""

import gc
import importlib.metadata
import os
import pathlib
import sys
import tempfile

_FLAGS = ["--xla_force_host_platform_device_count=8"]
if "GAN_JAX_TEST_OPTIMISED" not in os.environ:  # programs here run a few steps: a third of the time to compile them
    _FLAGS += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    _FLAGS += ["--xla_cpu_parallel_codegen_split_count=1"]  # to split a program costs a fifth, and all cores are busy
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):  # later ones know no other way
        _FLAGS += ["--xla_cpu_use_fusion_emitters=false"]
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *_FLAGS))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_SESSION = pathlib.Path(os.environ.setdefault("GAN_JAX_TEST_DIR", tempfile.mkdtemp(prefix="gan_jax_tests_")))
os.environ["GAN_JAX_CACHE_DIR"] = str(_SESSION / "cache")
os.environ["GAN_JAX_DATA_DIR"] = str(_SESSION / "data")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_SESSION / "xla")
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # where an operation was written costs time, and nobody reads it
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
gc.set_threshold(100_000, 20, 100)  # tracing makes so many objects that looking for garbage was a tenth of it
