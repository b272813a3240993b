"""Images from models that know almost nothing: their scores are the scale on which to read a generator's."""

from typing import NamedTuple

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


def shuffled_frames(clips, seed: int) -> np.ndarray:
    """Clips uint8 (N, T, H, W, C) with the frames of each in random order: right frames, no motion."""
    rng = np.random.default_rng(seed)
    return np.stack([clip[rng.permutation(len(clip))] for clip in np.asarray(clips)])


def still_frames(clips) -> np.ndarray:
    """Clips uint8 (N, T, H, W, C) that show their first frame all the time: right frames that stand."""
    clips = np.asarray(clips)
    return np.repeat(clips[:, :1], clips.shape[1], axis=1)


def noise_samples(shape: tuple[int, int, int], count: int, seed: int) -> np.ndarray:
    """Uniform noise, each value 0..255 equally likely; shape (H, W, C) -> uint8 (count, H, W, C)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


class Ridge(NamedTuple):
    """A linear map from all values of an image to all of another one, see `ridge_regression`."""

    weights: np.ndarray  # (values of a source, values of a target)
    means: tuple[np.ndarray, np.ndarray]  # of a source, flat, and of a target
    penalty: float  # factor of the squared weights, where squared errors are summed
    shape: tuple[int, ...]  # (H, W, C) of a target

    def predict(self, sources: np.ndarray) -> np.ndarray:
        """uint8 (B, *shape) for uint8 (B, h, w, c)."""
        values = (_flat(sources) - self.means[0]) @ self.weights + self.means[1]
        return np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(-1, *self.shape)


def ridge_regression(sources, targets) -> Ridge:
    """The least-squares map with a penalty on its weights (Hoerl and Kennard 1970), chosen among 31 by generalised
    cross-validation (Golub, Heath and Wahba 1979, equation 1.4).

    Args:
      sources, targets: uint8 (N, h, w, c) and (N, H, W, C), pair by pair.
    """
    x, y = _flat(_checked(sources)), _flat(_checked(targets))
    means = x.mean(axis=0), y.mean(axis=0)
    x, y = x - means[0], y - means[1]
    eigenvalues, vectors = np.linalg.eigh(x.T @ x)
    eigenvalues = np.maximum(eigenvalues, 0)
    along = vectors.T @ (x.T @ y)
    squares, total = np.square(along).sum(axis=1), np.square(y).sum()

    def score(penalty: float) -> float:
        gains = 1 / (eigenvalues + penalty)
        error = total - np.sum(squares * gains * (2 - eigenvalues * gains))
        return error / (len(x) - 1 - np.sum(eigenvalues * gains)) ** 2  # one is the mean's

    penalty = min(np.geomspace(1e-6, 1, 31) * max(eigenvalues[-1], 1e-6), key=score)
    weights = vectors @ (along / (eigenvalues + penalty)[:, None])
    return Ridge(weights, means, float(penalty), np.shape(targets)[1:])


def biharmonic(images, holes) -> np.ndarray:
    """Holes filled by the solution of the biharmonic equation (Damelin and Hoang 2018), as scikit-image has it.

    Args:
      images: uint8 (N, H, W, C); what is in a hole does not matter.
      holes: bool (N, H, W, 1).
    Returns:
      uint8 (N, H, W, C); grey where nothing is known.
    """
    from skimage import restoration

    filled = np.array(images)
    for image, hole in zip(filled, np.asarray(holes)[..., 0], strict=True):
        if hole.any() and not hole.all():
            solved = restoration.inpaint_biharmonic(image / 255, hole, channel_axis=-1)
            image[hole] = np.clip(np.rint(255 * solved[hole]), 0, 255)
        image[hole & hole.all()] = 128
    return filled


def mean_of_known(images, holes) -> np.ndarray:
    """Holes filled with each picture's mean of what is known, channel by channel; arguments and result as of
    `biharmonic`."""
    filled = np.array(images)
    for image, hole in zip(filled, np.asarray(holes)[..., 0], strict=True):
        image[hole] = 128 if hole.all() else np.rint(image[~hole].mean(axis=0))
    return filled


def _flat(images) -> np.ndarray:
    return np.asarray(images, np.float64).reshape(len(images), -1)


def _checked(images) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise UserError(f"a baseline was given images {images.dtype} {images.shape}; "
                        "expected uint8 (N, H, W, C), N at least 1.")
    return images
