"""Clips of a fixed number of frames, cut out of films: which frames, and what a film that is too short is told."""

from typing import NamedTuple

import numpy as np

from gan_jax.data.checks import natural
from gan_jax.data.fit import CorruptImageError
from gan_jax.errors import UserError


class Windows(NamedTuple):
    """How films are cut into clips, none of whose frames another one has."""

    frames: int  # of a clip
    step: int = 1  # every so many frames of the film is one of a clip

    @property
    def span(self) -> int:
        """Frames of a film that a clip reaches over."""
        return (self.frames - 1) * self.step + 1

    def starts(self, count: int) -> range:
        """The first frames of the clips of a film of so many frames; empty where it is too short."""
        return range(0, count - self.span + 1, self.frames * self.step)

    def places(self, start: int) -> np.ndarray:
        """The frames int64 (frames,) of the clip that begins there."""
        return start + self.step * np.arange(self.frames)

    def too_short(self, name: str, count: int, way_out: str) -> CorruptImageError:
        """The error for a film of too few frames."""
        every = f" with data.frame_step={self.step}" if self.step > 1 else ""
        return CorruptImageError(
            f"{name} cannot be used: it has {count} frames, and clips of data.frames={self.frames}{every} reach over "
            f"{self.span}. {way_out}"
        )


def make_windows(frames: int, step: int) -> Windows | None:
    """Checks `data.frames` and `data.frame_step`; None where frames is 0, which means pictures. Raises UserError."""
    frames, step = natural("data.frames", frames, least=0), natural("data.frame_step", step, least=1)
    if frames == 1:
        raise UserError("data.frames=1: a clip has two frames or more; 0 reads pictures.")
    if not frames and step != 1:
        raise UserError(f"data.frame_step={step}: is of clips; set data.frames to how many frames one has.")
    return Windows(frames, step) if frames else None
