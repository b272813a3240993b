"""Trials of a sweep share their programs: rates are inputs of them, and a second process finds them on disk."""

import json
import os
import re
import sys

from gan_jax import sweep
from tests import settings

# Trains, and writes beside the run how often JAX was asked for a program, and how often it found one.
PROGRAM = """
import json, os, pathlib, sys
from jax import monitoring
from gan_jax import cli
counts = {}
monitoring.register_event_listener(lambda name, **_: counts.update({name: counts.get(name, 0) + 1}))
code = cli.main(sys.argv[1:])
folder = next(flag.partition("=")[2] for flag in sys.argv if flag.startswith("--workdir="))
files = len(list((pathlib.Path(os.environ["GAN_JAX_CACHE_DIR"]) / "programs").iterdir()))
start = "/jax/compilation_cache/"
requests, hits = (counts.get(start + name, 0) for name in ("compile_requests_use_cache", "cache_hits"))
row = {"requests": requests, "hits": hits, "files": files}
(pathlib.Path(folder) / "programs.json").write_text(json.dumps(row))
sys.exit(code)
"""
FLAGS = {"generator.features": "(4,)", "generator.strides": "(8,)", "generator.kernel_size": "8",
         "discriminator.features": "(4,4)", "discriminator.strides": "(4,2)", "evaluation.metrics": "()"}  # fmt: skip


def test_the_second_trial_compiles_nothing(tmp_path, monkeypatch):
    """Nor does it trace a phase: no lowered program is added to those that are kept."""
    flags = re.sub(r"device_count=\d+", "device_count=1", os.environ["XLA_FLAGS"])
    for name, value in {"GAN_JAX_CACHE_DIR": tmp_path / "cache", "JAX_COMPILATION_CACHE_DIR": tmp_path / "xla",
                        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0, "XLA_FLAGS": flags,
                        "PYTHONPATH": settings.ROOT}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    (tmp_path / "program.py").write_text(PROGRAM)
    rates = ["config.optim.generator.learning_rate=1e-4,3e-4"]
    smoke = f"{settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke"
    command = [sys.executable, str(tmp_path / "program.py")]
    assert sweep.sweep(smoke, list(FLAGS.items()), rates, tmp_path / "sweep", command=command) == 0
    first, second = (json.loads(file.read_text()) for file in sorted((tmp_path / "sweep").glob("*/programs.json")))
    assert first["hits"] < first["requests"] and first["files"] > 0
    assert second["hits"] == second["requests"] > 0 and second["files"] == first["files"]
