"""How alike two images are, pixel by pixel: L1, PSNR, SSIM, MS-SSIM, in the conventions of published results.

SSIM: Wang et al. 2004, equation 13. MS-SSIM: Wang et al. 2003, equation 7. The window is a Gaussian of 11 pixels and
deviation 1.5 that stays inside the image; images are uint8, range 255. All in float64 on the host: a variance as the
difference of two squares would lose float32's digits.
"""

import numpy as np

from gan_jax.errors import UserError

WINDOW, SIGMA = 11, 1.5
PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])  # of the scales, the finest first
LUMA = np.array([65.481, 128.553, 24.966]) / 255  # of R, G, B in BT.601's Y, which reaches from 16 to 235
ODD = ("zeros", "mirror")
LEAST = {"l1": 1, "masked_l1": 1, "psnr": 1, "ssim": WINDOW, "ms_ssim": (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1,
         "psnr_y": 1, "ssim_y": WINDOW, "pooled_psnr": 1}  # pixels of a side  # fmt: skip


def psnr(a, b, *, crop_border: int = 0, luma: bool = False) -> np.ndarray:
    """10 log10(255^2 / mean squared difference) of each pair, in decibels; infinite for equal images.

    Published super-resolution results use `crop_border` = the factor, and the luma channel.

    Args:
      a, b: uint8 (B, H, W, C).
      crop_border: pixels left out on every side.
      luma: of BT.601's Y in 16..235, not rounded, instead of RGB; the peak stays 255.
    Returns:
      (B,).
    Raises:
      UserError: other images than that, or nothing left of them.
    """
    return decibels(squared_error(a, b, crop_border=crop_border, luma=luma))


def squared_error(a, b, *, crop_border: int = 0, luma: bool = False) -> np.ndarray:
    """Mean squared difference of each pair, in levels; arguments and errors as of `psnr`."""
    a, b = _pair("PSNR", a, b, crop_border, luma, least=LEAST["psnr"])
    return np.array([np.mean((x - y) ** 2) for x, y in _each(a, b, luma)])


def decibels(squared_errors) -> np.ndarray:
    """10 log10(255^2 / mean squared difference), infinite where that is 0."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / np.asarray(squared_errors, np.float64))


def l1(a, b) -> np.ndarray:
    """Mean absolute difference of each pair, where black is -1 and white 1; uint8 (B, H, W, C) each -> (B,).

    Raises:
      UserError: other images than that.
    """
    a, b = _pair("L1", a, b, 0, False, least=LEAST["l1"])
    return np.array([np.abs(x - y).mean() / (PEAK / 2) for x, y in _each(a, b, False)])


def masked_l1(a, b, masks) -> np.ndarray:
    """`l1` of the pixels in each pair's hole alone; masks (B, H, W, 1), above 127 there. 0 where there is no hole."""
    a, b = _pair("masked L1", a, b, 0, False, least=LEAST["masked_l1"])
    holes = np.broadcast_to(np.asarray(masks) > 127, np.shape(a))
    return np.array([
        np.abs(x - y)[hole].sum() / max(hole.sum(), 1) / (PEAK / 2)
        for (x, y), hole in zip(_each(a, b, False), holes, strict=True)
    ])


def ssim(a, b, *, crop_border: int = 0, luma: bool = False) -> np.ndarray:
    """Structural similarity of each pair, the mean over pixels and channels; arguments and errors as of `psnr`.

    As pytorch_msssim, tf.image, BasicSR, and scikit-image with Wang's settings have it; images of at least 11
    pixels, after the crop, in height and width.
    """
    a, b = _pair("SSIM", a, b, crop_border, luma, least=LEAST["ssim"])
    window = gaussian(WINDOW, SIGMA)
    return np.array([similarity(x, y, window)[0].mean() for x, y in _each(a, b, luma)])


def ms_ssim(a, b, *, odd: str = "zeros") -> np.ndarray:
    """SSIM over five scales of each pair: for every channel the product over scales, then the mean over channels.

    Args:
      a, b: uint8 (B, H, W, C), more than 160 pixels in height and width.
      odd: what makes up a side of odd length before it is halved: 'zeros' in front, as in pytorch_msssim, or the
        last row or column once more ('mirror'), as in tf.image. Sides of a multiple of 16 never need it.
    Returns:
      (B,), at least 0.
    Raises:
      UserError: other images than that, or an unknown `odd`.
    """
    if odd not in ODD:
        raise UserError(f"MS-SSIM with odd={odd!r}; expected one of {', '.join(ODD)}")
    a, b = _pair("MS-SSIM", a, b, 0, False, least=LEAST["ms_ssim"])
    window = gaussian(WINDOW, SIGMA)
    values = []
    for x, y in _each(a, b, False):
        factors = [similarity(*scale, window) for scale in _scales(x, y, odd)]
        values.append(_product(factors).mean())
    return np.array(values)


def progan_ms_ssim(a, b) -> np.ndarray:
    """MS-SSIM of each pair as Karras et al. 2018 (arXiv 1710.10196) and Odena et al. 2017 measure variation by it.

    Unlike `ms_ssim` it averages over channels before the product, and shrinks the window, in pixels and in
    deviation, where a scale is smaller than it; so it takes images of 16 pixels and more.

    Args:
      a, b: uint8 (B, H, W, C), H and W multiples of 16.
    Returns:
      (B,), at least 0.
    Raises:
      UserError: other images than that.
    """
    a, b = _pair("MS-SSIM", a, b, 0, False, least=16)
    if a.shape[1] % 16 or a.shape[2] % 16:
        raise UserError(f"MS-SSIM of images {a.shape}; expected a height and width of multiples of 16.")
    values = []
    for x, y in _each(a, b, False):
        factors = []
        for scale in _scales(x, y, ODD[0]):
            size = min(WINDOW, *scale[0].shape[:2])
            means = similarity(*scale, gaussian(size, SIGMA * size / WINDOW))
            factors.append(tuple(mean.mean(keepdims=True) for mean in means))
        values.append(_product(factors).item())
    return np.array(values)


def variation(images) -> np.ndarray:
    """`progan_ms_ssim` of image 2 i with image 2 i + 1; uint8 (2 P, H, W, C) -> (P,). Its mean is the published figure.

    Low for varied images. Raises UserError for an odd number of images, and as `progan_ms_ssim` does.
    """
    images = np.asarray(images)
    if len(images) % 2:
        raise UserError(f"MS-SSIM between pairs of {len(images)} images; expected an even number.")
    return progan_ms_ssim(images[0::2], images[1::2])


def gaussian(size: int, sigma: float) -> np.ndarray:
    """Weights (size,) that sum to 1, symmetric about the middle, which lies between two pixels for an even size."""
    offsets = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return weights / weights.sum()


def similarity(x: np.ndarray, y: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and its factor of contrast and structure, means over pixels; x, y (H, W, C) -> (C,), (C,)."""
    mean_x, mean_y = _blurred(x, window), _blurred(y, window)
    square_x, square_y, cross = mean_x**2, mean_y**2, mean_x * mean_y
    variances = _blurred(x * x, window) - square_x + _blurred(y * y, window) - square_y
    structure = (2 * (_blurred(x * y, window) - cross) + C2) / (variances + C2)
    full = (2 * cross + C1) / (square_x + square_y + C1) * structure
    return full.mean(axis=(0, 1)), structure.mean(axis=(0, 1))


def _product(factors: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Wang's product of the scales' (SSIM, structure): the last scale's SSIM, the others' structure alone."""
    scale_values = np.array([structure for _, structure in factors[:-1]] + [factors[-1][0]])
    return np.prod(np.maximum(scale_values, 0) ** WEIGHTS[:, None], axis=0)  # a root of a negative number is none


def _blurred(x: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Filtered along both axes, where the window lies inside; (H, W, C) -> (H - n + 1, W - n + 1, C)."""
    from scipy import ndimage  # half a second that only these metrics take

    size = len(window)
    for axis in (0, 1):
        valid = slice(size // 2, size // 2 + x.shape[axis] - size + 1)
        x = ndimage.correlate1d(x, window, axis=axis, mode="constant")
        x = x[valid] if axis == 0 else x[:, valid]
    return x


def _scales(x: np.ndarray, y: np.ndarray, odd: str):
    """The pair at each scale, the finest first."""
    yield x, y
    for _ in WEIGHTS[1:]:
        x, y = _halved(x, odd), _halved(y, odd)
        yield x, y


def _halved(x: np.ndarray, odd: str) -> np.ndarray:
    """Means of 2x2 pixels; (H, W, C) -> (ceil(H / 2), ceil(W / 2), C)."""
    h, w, c = x.shape
    if odd == "zeros":
        x = np.pad(x, [(h % 2, 0), (w % 2, 0), (0, 0)])
    else:
        x = np.pad(x, [(0, h % 2), (0, w % 2), (0, 0)], mode="symmetric")
    return x.reshape((h + 1) // 2, 2, (w + 1) // 2, 2, c).mean(axis=(1, 3))


def _each(a: np.ndarray, b: np.ndarray, luma: bool):
    """Pairs of images in float64, one at a time, as RGB or as luma."""
    for x, y in zip(a, b, strict=True):
        pair = x.astype(np.float64), y.astype(np.float64)
        yield tuple(one @ LUMA[:, None] + 16 for one in pair) if luma else pair


def _pair(name: str, a, b, crop_border: int, luma: bool, *, least: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    for x in (a, b):
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape != a.shape or (luma and x.shape[3] != 3):
            raise UserError(f"{name} of images {a.dtype} {a.shape} and {b.dtype} {b.shape}; expected uint8 "
                            "(B, H, W, C) of one shape, with three channels where luma is asked for.")
    _, h, w, _ = a.shape
    if crop_border < 0 or min(h, w) - 2 * crop_border < least:
        raise UserError(f"{name} of images of {h}x{w} pixels, {crop_border} cut from each border; expected "
                        f"at least {least}x{least} to be left.")
    rows, columns = slice(crop_border, h - crop_border), slice(crop_border, w - crop_border)
    return a[:, rows, columns], b[:, rows, columns]
