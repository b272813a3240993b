"""Perceptual path length, step by step, against NVIDIA's recorded run of a toy generator; and by closed forms."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.metrics import path_length

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
CASES = ["z_full_crop1", "z_end_crop0", "w_full_crop0", "w_end_crop1"]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "stylegan_metrics.npz") as file:
        return {name: file[name] for name in file.files if name.split("/")[0] in ("ppl", "slerp", "result")}


def toy_mapping(golden, z):
    w = jnp.tanh(z @ golden["ppl/toy/A"])
    return jnp.broadcast_to(w[:, None], (len(w), 4, w.shape[1]))


def toy_synthesis(golden, ws):
    images = jnp.tanh(ws.mean(axis=1) @ golden["ppl/toy/B"])
    return images.reshape(-1, 3, 16, 16).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("case", CASES)
def test_a_run_matches_the_reference(golden, case):
    space, sampling, crop = case.split("_")
    run = {name.split("/")[2]: value for name, value in golden.items() if name.startswith(f"ppl/{case}/")}
    t = path_length.positions(run["draw_t_unit"], sampling=sampling)
    z0, z1 = np.split(run["draw_z0z1"], 2)
    if space == "z":
        z = jax.jit(path_length.ends, static_argnames="space")(z0, z1, t, space="z")
        np.testing.assert_allclose(z, run["z_into_mapping"], rtol=0, atol=1e-6)
        ws = toy_mapping(golden, z)
    else:
        np.testing.assert_array_equal(run["draw_z0z1"], run["z_into_mapping"])
        w0, w1 = jnp.split(toy_mapping(golden, run["draw_z0z1"]), 2)
        ws = path_length.ends(w0, w1, t, space="w")
    np.testing.assert_allclose(ws, run["w_into_synthesis"], rtol=0, atol=2e-6)
    images = toy_synthesis(golden, run["w_into_synthesis"])
    images = path_length.prepared(images, crop=crop == "crop1")
    np.testing.assert_allclose(np.moveaxis(images[:2], 3, 1), run["img_into_lpips"], rtol=0, atol=1e-3)
    distances = path_length.distances(run["lpips_features"])
    np.testing.assert_allclose(distances, run["dist"], rtol=1e-5)


def test_slerp_matches_the_reference(golden):
    a, b, t = (golden[f"slerp/{name}"] for name in "abt")
    np.testing.assert_allclose(path_length.slerp(a, b, t), golden["slerp/out"], rtol=0, atol=1e-6)
    moved = path_length.slerp(a, b, t + 1e-4)
    np.testing.assert_allclose(moved, golden["slerp/out_t_plus_1e-4"], rtol=0, atol=1e-6)


def test_slerp_moves_evenly_along_the_circle():
    a, b = jnp.array([3.0, 0.0]), jnp.array([0.0, 0.1])
    for share in (0.0, 1 / 3, 1.0):
        expected = [np.cos(share * np.pi / 2), np.sin(share * np.pi / 2)]
        np.testing.assert_allclose(path_length.slerp(a, b, jnp.array([share])), expected, atol=1e-6)


def test_trimmed_mean_matches_the_reference(golden):
    value = path_length.trimmed_mean(golden["ppl/trim/dist"])
    np.testing.assert_allclose(value, golden["result/ppl_trimmed_mean"], rtol=1e-6)


def test_trimmed_mean_drops_both_ends():
    values = np.random.default_rng(0).permutation(np.arange(1000.0))
    # ranks 0.01 x 999 = 9.99 and 989.01, rounded outward to 9 and 990
    np.testing.assert_allclose(path_length.trimmed_mean(values), np.arange(9, 991).mean())
    assert path_length.trimmed_mean([3.0]) == 3.0
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(UserError, match="finite"):
            path_length.trimmed_mean(bad)


@pytest.mark.parametrize("count_after_crop, side", [(False, 128), (True, 256)])
def test_large_faces_are_cropped_and_shrunk(count_after_crop, side):
    images = np.zeros((1, 1024, 1024, 1), np.float32)
    images[:, 384:896, 256:768] = np.random.default_rng(1).uniform(-1, 1, (1, 512, 512, 1))
    result = path_length.prepared(jnp.asarray(images), crop=True, count_after_crop=count_after_crop)
    box = 512 // side
    expected = images[0, 384:896, 256:768, 0].reshape(side, box, side, box).mean(axis=(1, 3)) * 127.5 + 127.5
    assert result.shape == (1, side, side, 3)
    for channel in range(3):
        np.testing.assert_allclose(result[0, :, :, channel], expected, atol=1e-3)


def test_small_images_keep_their_size():
    images = jnp.array([-1.0, 0.0, 1.0, 2.0]).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(path_length.prepared(images)[0, :, :, 1], [[0, 127.5], [255, 382.5]])


def test_unknown_choices_are_named():
    x = jnp.ones((2, 4))
    with pytest.raises(UserError, match="sampling 'half'"):
        path_length.positions(x[:, 0], sampling="half")
    with pytest.raises(UserError, match="space 'x'"):
        path_length.ends(x, x, x[:, 0], space="x")
    with pytest.raises(UserError, match="square"):
        path_length.prepared(jnp.zeros((1, 8, 16, 3)))
