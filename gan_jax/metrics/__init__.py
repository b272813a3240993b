"""Features to statistics to distances, in numpy float64; `digits_classifier` and `equivariance` alone need JAX."""

from gan_jax.metrics.baselines import noise_samples, pixel_gaussian_samples, pixel_shuffle_samples
from gan_jax.metrics.extractor import Extractor
from gan_jax.metrics.frechet import Accumulator, Moments, frechet_distance, moments
from gan_jax.metrics.kernel import kernel_distance
from gan_jax.metrics.mixture import MixtureQuality, mixture_quality
from gan_jax.metrics.neighbours import Neighbourhoods, neighbourhoods
from gan_jax.metrics.scores import agreement, class_shares, confidence, inception_score

__all__ = [
    "Accumulator", "Extractor", "MixtureQuality", "Moments", "Neighbourhoods", "agreement", "class_shares",
    "confidence", "frechet_distance", "inception_score", "kernel_distance", "mixture_quality", "moments",
    "neighbourhoods", "noise_samples", "pixel_gaussian_samples", "pixel_shuffle_samples",
]
