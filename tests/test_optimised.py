"""The other tests compile in haste. What recorded numbers and resuming rest on holds at XLA's own optimisation too."""

import os
import subprocess
import sys

from tests import settings

CHOSEN = (
    "tests/test_unconditional.py::test_golden_losses_of_three_steps",
    "tests/test_unconditional.py::test_golden_first_gradients",
    "tests/test_unconditional.py::test_golden_parameters_after_three_adam_steps",
    "tests/test_resume.py::test_a_longer_run_is_the_same_run",
)


def test_golden_steps_and_a_resumed_run_at_the_default_optimisation():
    flags = {"XLA_FLAGS": "", "GAN_JAX_TEST_OPTIMISED": "1"}
    own = ("PYTEST_", "GAN_JAX_TEST_DIR", "GAN_JAX_CACHE_DIR", "GAN_JAX_DATA_DIR")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *CHOSEN]
    env = {**environment, **flags}
    done = subprocess.run(command, env=env, cwd=settings.ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout + done.stderr
