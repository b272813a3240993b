"""The ADA pipeline against the official code's recorded draws and fixed percentiles, and its derivatives."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfinv

from gan_jax.augment import warp
from gan_jax.augment.ada import Ada, filter_bank

GOLDEN = pathlib.Path(__file__).parent / "golden"
OFF = dict.fromkeys(("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "brightness", "contrast",
                     "lumaflip", "hue", "saturation", "imgfilter", "noise", "cutout"), 0.0)  # fmt: skip
RANDOM = np.load(GOLDEN / "ada_random.npz")
CASES = json.loads(str(RANDOM["meta"]))["cases"]
PERCENTILE = np.load(GOLDEN / "ada_percentile.npz")
KWARGS = json.loads(str(PERCENTILE["meta"]))["kwargs_per_key"]
KEYS = jax.random.split(jax.random.key(5), 64)


def _nhwc(x):
    return x.transpose(0, 2, 3, 1)


def _recorded(case):
    """The case's draws as `Ada.draw` names them."""
    values, gates = {}, {}
    for key in RANDOM.files:
        if key.startswith(f"draw/{case}/"):
            name = key.split("/")[-1].split("_", 2)[2]
            values[name] = RANDOM[key]
    draws = {}
    for key, value in values.items():
        b = len(value)
        if key == "noise_image":
            draws[key] = _nhwc(value)
        elif key == "cutout_center":
            draws["cutout"] = value.reshape(b, 2), values["cutout_gate"].reshape(b)
        elif key == "noise_sigma_value":
            draws["noise"] = value.reshape(b), values["noise_gate"].reshape(b)
        elif key.startswith("imgfilter_band0_value"):
            both = [np.stack([values[f"imgfilter_band{i}_{what}"] for i in range(4)], 1) for what in ("value", "gate")]
            draws["imgfilter"] = tuple(both)
        elif key.endswith("_value") and not key.startswith("imgfilter"):
            name, gates = key.removesuffix("_value"), values[key.removesuffix("_value") + "_gate"]
            draws[name] = value.reshape(b, -1).squeeze(1) if value.size == b else value, gates.reshape(b)
    return draws


@pytest.mark.parametrize("case", CASES)
def test_recorded_random_draws(case):
    ada = Ada(**OFF | CASES[case]["kwargs"])
    images = _nhwc(RANDOM[CASES[case]["images"]])
    draws = _recorded(case)
    assert jax.tree.map(jnp.shape, draws) == jax.tree.map(jnp.shape, ada.draw(KEYS[: len(images)], images.shape[1:]))
    ours = jax.jit(lambda x, d, p: ada.apply(x, ada.parameters(d, p)))(images, draws, CASES[case]["p"])
    np.testing.assert_allclose(ours, _nhwc(RANDOM[f"out/{case}"]), rtol=0, atol=2e-5)


@pytest.mark.parametrize("group", sorted({key.split("@")[0] for key in KWARGS}))
def test_recorded_percentiles(group):
    images = _nhwc(PERCENTILE["in/images"])
    play = jax.jit(_apply)
    for key in KWARGS:
        if key.split("@")[0] != group:
            continue
        noise = f"in/noise_image/{key}"
        noise = _nhwc(PERCENTILE[noise]) if noise in PERCENTILE.files else None
        with np.errstate(all="ignore"):
            parameters = _percentile_parameters(KWARGS[key], float(key.split("@")[1]), len(images), noise)
        np.testing.assert_allclose(play(images, parameters), _nhwc(PERCENTILE[f"out/{key}"]), rtol=0, atol=2e-5, err_msg=key)


def _apply(images, parameters):
    return Ada().apply(images, parameters)


def _percentile_parameters(kwargs, q, b, noise):
    normal, share = erfinv(2 * q - 1), 2 * q - 1
    table = {
        "xflip": math.floor(2 * q), "rotate90": math.floor(4 * q), "xint": (share * 0.125,) * 2,
        "scale": 2 ** (normal * 0.2), "rotate": share * math.pi, "aniso": 2 ** (normal * 0.2),
        "xfrac": (normal * 0.125,) * 2, "brightness": normal * 0.2, "contrast": 2 ** (normal * 0.5),
        "lumaflip": math.floor(2 * q), "hue": share * math.pi, "saturation": 2**normal,
        "imgfilter": (2**normal,) * 4, "noise": erfinv(q) * 0.1, "cutout": (q, q, 0.5),
    }  # fmt: skip
    parameters = {"rotate_pre" if k == "rotate" else k: np.array([table[k]] * b, np.float32) for k in kwargs}
    return parameters | ({"noise_image": noise} if noise is not None else {})
