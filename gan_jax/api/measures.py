"""Images of any program against others: files, or arrays of the host."""

from collections.abc import Sequence
from typing import Any

from gan_jax import data, evaluate, lowered
from gan_jax.api import arguments
from gan_jax.api.arguments import Images, Path


@arguments.spoken()
def measure(
    images: Images,
    reference: Images,
    metrics: str | Sequence[str] = "fid",
    *,
    features: str = "inception",
    weights: Path | None = None,
    **settings: Any,
) -> list[dict]:
    """Measures images against others, as `evaluate --images --reference` does.

    Args:
      images: a folder or .zip of images of one size; or uint8 (N, H, W, 3), or (N, H, W, 1), which becomes grey RGB.
      reference: the real images, likewise.
      metrics: their names, such as `["fid", "kid", "prdc"]`.
      features: of metrics without a count; `random_inception` needs no file of weights.
      weights: file or folder of weights; None for $GAN_JAX_WEIGHTS_DIR, or the cache.
      **settings: other keys of config.evaluation, such as `preprocessing="clean"`.
    Returns:
      A row for each value: `metric`, `value`, and how it was measured.
    Raises:
      MissingPathError, UserError: a path, weights or metric that is not there, or images that do not fit.
    """
    lowered.keep_compiled()
    settings = arguments.settings({"features": features, "weights": weights, **settings})
    opened = [_pictures(one, name) for one, name in ((images, "images"), (reference, "reference"))]
    return evaluate.compare_folders(opened[0], reference=opened[1], metrics=arguments.names(metrics), settings=settings)


def fid(
    images: Images, reference: Images, *, features: str = "inception", weights: Path | None = None, **settings: Any
) -> float:
    """The Frechet distance of all images to all of the reference; the arguments are those of `measure`."""
    return measure(images, reference, "fid", features=features, weights=weights, **settings)[0]["value"]


def _pictures(images: Images, name: str) -> str | tuple:
    return arguments.path(images, name) if isinstance(images, Path) else data.of_array(images, name)
