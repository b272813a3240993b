"""A stand-in for Inception in tests of the passes: linear features of an image's means over 4x4 boxes."""

import jax.numpy as jnp
import numpy as np

from gan_jax.features import inception, networks
from gan_jax.weights.store import Weights

DIM, CLASSES = 6, 5


def shapes() -> dict[str, tuple[int, ...]]:
    """Arrays of the stand-in."""
    return {"features.weight": (DIM, 48), "logits.weight": (CLASSES, 48)}


def prepare(images):
    """uint8 (B, H, W, 3) -> (B, 48)"""
    b, h, w, c = images.shape
    x = jnp.asarray(images, jnp.float32).reshape(b, 4, h // 4, 4, w // 4, c) / 255
    return x.mean((2, 4)).reshape(b, -1)


def _build(outputs):
    def apply(variables, x):
        by_name = {"2048": x @ variables["features.weight"].T, "logits_unbiased": x @ variables["logits.weight"].T}
        return {name: by_name[name] for name in outputs}

    return apply


KIND = networks._Kind(
    shapes, lambda state: dict(state), {"2048": DIM, "logits_unbiased": CLASSES}, _build,
    dict.fromkeys(inception.PREPROCESSING, prepare), inception.DESCRIPTIONS,
)


def features(images: np.ndarray, state: dict, name: str = "features") -> np.ndarray:
    """The same in numpy's float64; grey images count three times."""
    x = np.asarray(images, np.float64)
    x = np.repeat(x, 3, axis=3) if x.shape[3] == 1 else x
    b, h, w, c = x.shape
    x = x.reshape(b, 4, h // 4, 4, w // 4, c).mean((2, 4)).reshape(b, -1) / 255
    return x @ np.asarray(state[f"{name}.weight"], np.float64).T


def weights(published: bool) -> Weights:
    """What the store gives for it."""
    rng = np.random.default_rng(5)
    state = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes().items()}
    return Weights(state, "ab" * 32, "inception.pth", published)
