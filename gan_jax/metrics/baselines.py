"""Images from models that know almost nothing: their scores are the scale on which to read a generator's."""

import numpy as np

from gan_jax.errors import UserError


def pixel_gaussian_samples(images, count: int, seed: int) -> np.ndarray:
    """Samples of independent Gaussians, one per pixel and channel, with the images' means and deviations.

    Args:
      images: uint8 (N, H, W, C).
      count: samples to draw.
      seed: of numpy's default generator.
    Returns:
      uint8 (count, H, W, C), rounded and clipped to 0..255.
    """
    images = _checked(images)
    mean, std = images.mean(axis=0, dtype=np.float64), images.std(axis=0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    samples = np.empty((count, *images.shape[1:]), np.uint8)
    for sample in samples:
        sample[...] = np.clip(np.rint(mean + std * rng.standard_normal(mean.shape)), 0, 255)
    return samples


def pixel_shuffle_samples(images, count: int, seed: int) -> np.ndarray:
    """Images whose pixels stand in random order, channels kept together: right histogram, no structure.

    Arguments and result as of `pixel_gaussian_samples`; the images are taken in order, again from the first
    where `count` exceeds them.
    """
    images = _checked(images)
    _, h, w, c = images.shape
    rng = np.random.default_rng(seed)
    samples = np.empty((count, h, w, c), np.uint8)
    for number, sample in enumerate(samples):
        sample[...] = rng.permutation(images[number % len(images)].reshape(h * w, c)).reshape(h, w, c)
    return samples


def noise_samples(shape: tuple[int, int, int], count: int, seed: int) -> np.ndarray:
    """Uniform noise, each value 0..255 equally likely; shape (H, W, C) -> uint8 (count, H, W, C)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def _checked(images) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise UserError(f"a baseline was given images {images.dtype} {images.shape}; "
                        "expected uint8 (N, H, W, C), N at least 1.")
    return images
