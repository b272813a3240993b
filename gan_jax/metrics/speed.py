"""How fast what a clip shows moves: the path of its centre of mass, in pixels a frame."""

import numpy as np

from gan_jax.errors import UserError

INK = 64.0  # levels from the background on which a pixel is ink: a quarter of the range


def speed(clips) -> np.ndarray:
    """Mean distance that the centre of mass of a clip's ink moves from one frame to the next, in pixels.

    Ink is what differs from the background, the median colour of the whole clip, by `INK` levels or more, the mean of
    the channels' absolute differences; it weighs as much as it differs. Frames without ink have no centre: the steps to
    and from them are left out. So one thing before an even background is measured, and of several their common centre;
    a moving camera is not.

    Args:
      clips: uint8 (B, T, H, W, C), T 2 or more.
    Returns:
      (B,); 0 of a clip without two neighbouring frames that have ink.
    Raises:
      UserError: other clips than that.
    """
    clips = np.asarray(clips)
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[1] < 2:
        raise UserError(f"speed of clips {clips.dtype} {clips.shape}; expected uint8 (B, T, H, W, C) of two frames or "
                        "more")
    return np.array([_of_clip(clip) for clip in clips])


def _of_clip(clip: np.ndarray) -> float:
    t, h, w, c = clip.shape
    background = np.median(clip.reshape(-1, c), axis=0)
    ink = np.abs(clip.astype(np.float64) - background).mean(axis=-1)
    ink[ink < INK] = 0
    mass = ink.sum(axis=(1, 2))
    y, x = np.arange(h), np.arange(w)
    with np.errstate(invalid="ignore"):
        centres = np.stack([ink.sum(axis=2) @ y, ink.sum(axis=1) @ x], axis=1) / mass[:, None]
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    steps = steps[(mass[:-1] > 0) & (mass[1:] > 0)]
    return float(steps.mean()) if len(steps) else 0.0
