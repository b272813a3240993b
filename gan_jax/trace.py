"""A trace of some steps for XProf and TensorBoard: `train --profile=DIR`."""

import contextlib
import math
import pathlib
import tempfile
import time
from typing import Any

import jax

from gan_jax.errors import UserError

LEAST_STEPS, MOST_STEPS = 16, 32


class Trace:
    """Traces whole cycles of phases once one has passed without a compilation; what the steps compute is untouched."""

    def __init__(self, folder: str):
        """`folder`: empty for no trace. Raises UserError where it cannot be written."""
        self.folder, self.waiting = pathlib.Path(folder), bool(folder)
        self.quiet = self.left = 0  # steps since the last compilation, and of the trace to come
        if not folder:
            return
        if jax.process_count() > 1:  # those of one machine would write into one file
            self.folder /= f"process_{jax.process_index()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UserError(f"--profile={folder}: cannot be written: {error.strerror}; give another folder") from error

    def step(self, number: int):
        """A context for one step, which names it in the trace."""
        return jax.profiler.StepTraceAnnotation("train", step_num=number) if self.left else contextlib.nullcontext()

    def advance(self, phases: tuple, metrics: Any, compiled: bool, steps: int = 1) -> float:
        """Begins or ends the trace where it is time after so many steps, and returns the seconds that this took."""
        cycle = math.lcm(*(phase.every for phase in phases))
        self.quiet = 0 if compiled else self.quiet + steps
        begins, ends = self.waiting and self.quiet >= cycle, 0 < self.left <= steps
        self.left = max(self.left - steps, 0)
        if not (begins or ends):
            return 0.0
        jax.block_until_ready(metrics)
        began = time.monotonic()
        if ends:
            self._write()
        else:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(self.folder, profiler_options=options)
            self.waiting, self.left = False, min(cycle * math.ceil(LEAST_STEPS / cycle), MOST_STEPS)
        return time.monotonic() - began

    def close(self) -> None:
        """Writes a trace that the run's end cut short."""
        if self.left:
            self.left = 0
            self._write()
        elif self.waiting:
            print(f"--profile={self.folder}: no trace, the run ended while it still compiled", flush=True)

    def _write(self) -> None:
        try:
            jax.profiler.stop_trace()
            print(f"profile: {self.folder}", flush=True)
        except (OSError, RuntimeError) as error:  # the run is worth more
            print(f"--profile={self.folder}: no trace: {error}", flush=True)
