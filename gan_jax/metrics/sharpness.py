"""How sharp images are by themselves: the mean absolute difference of neighbouring pixels."""

import numpy as np

from gan_jax.errors import UserError


def sharpness(images) -> np.ndarray:
    """Mean of |difference| between neighbours along rows and along columns, in levels of 0..255.

    A blurred image has less than a sharp one, and noise adds to it: it says something beside that of real images alone.

    Args:
      images: uint8 (B, H, W, C), of two pixels or more in height and width.
    Returns:
      (B,), the mean of both directions' means, over channels too.
    Raises:
      UserError: other images than that.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or min(images.shape[1:3]) < 2:
        raise UserError(f"sharpness of images {images.dtype} {images.shape}; expected uint8 (B, H, W, C) of two pixels "
                        "or more in height and width.")
    levels = images.astype(np.float64)
    along = [np.abs(np.diff(levels, axis=axis)).mean((1, 2, 3)) for axis in (1, 2)]
    return (along[0] + along[1]) / 2
