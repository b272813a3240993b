"""Features and images to statistics to distances, in numpy float64 on the host or in JAX on the device."""

from gan_jax.metrics.baselines import (
    Ridge,
    biharmonic,
    mean_of_known,
    noise_samples,
    pixel_gaussian_samples,
    pixel_shuffle_samples,
    ridge_regression,
    shuffled_frames,
    still_frames,
)
from gan_jax.metrics.extrapolation import Extrapolation, Interval, bootstrap_interval, extrapolated_distance
from gan_jax.metrics.frechet import Accumulator, Moments, frechet_distance, load_moments, moments, save_moments
from gan_jax.metrics.kernel import kernel_distance
from gan_jax.metrics.mixture import MixtureQuality, mixture_quality
from gan_jax.metrics.nearest import Nearness, nearest_distances, nearness
from gan_jax.metrics.neighbours import Neighbourhoods, neighbourhoods
from gan_jax.metrics.scores import (
    Spread,
    agreement,
    class_accuracies,
    class_shares,
    confidence,
    entropy,
    inception_score,
    student_interval,
)
from gan_jax.metrics.sharpness import sharpness
from gan_jax.metrics.speed import speed
from gan_jax.metrics.structural_similarity import l1, masked_l1, ms_ssim, psnr, ssim, variation

__all__ = [
    "Accumulator", "Extrapolation", "Interval", "MixtureQuality", "Moments", "Nearness", "Neighbourhoods", "Ridge",
    "Spread", "agreement", "biharmonic", "bootstrap_interval", "class_accuracies", "class_shares", "confidence",
    "entropy", "extrapolated_distance", "frechet_distance", "inception_score", "kernel_distance", "l1", "load_moments",
    "masked_l1", "mean_of_known", "mixture_quality", "moments", "ms_ssim", "nearest_distances", "nearness",
    "neighbourhoods", "noise_samples", "pixel_gaussian_samples", "pixel_shuffle_samples", "psnr",
    "ridge_regression", "save_moments", "sharpness", "shuffled_frames", "speed", "ssim", "still_frames",
    "student_interval", "variation",
]
