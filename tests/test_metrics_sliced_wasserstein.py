"""Sliced Wasserstein distance against values recorded from ProGAN's code, brute force and a closed form."""

import pathlib

import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.metrics import sliced_wasserstein as sw

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
RESOLUTIONS = (64, 32, 16)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "progan_swd_msssim.npz") as file:
        return {name: file[name] for name in file.files}


def images(golden, which):
    return np.moveaxis(golden[f"in/images_{which}"], 1, 3)


def test_the_published_settings_match_the_reference(golden):
    real, fake = (np.split(images(golden, which), 4) for which in ("real", "fake"))
    values = sw.sliced_wasserstein(real, fake, seed=1234)
    assert list(values) == ["64", "32", "16", "mean"]
    np.testing.assert_allclose(list(values.values()), golden["out64/swd_full_reals_vs_fakes"], rtol=1e-6)


def test_few_directions_match_the_reference(golden):
    real, fake = images(golden, "real")[:16], images(golden, "fake")[:16]
    values = sw.sliced_wasserstein([real], iter([fake]), seed=1235, per_image=8, repeats=2, directions=16)
    np.testing.assert_allclose(list(values.values()), golden["out64/swd_small_fakes"], rtol=1e-6)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_each_step_matches_the_reference(golden, level):
    descriptors = {}
    for which in ("real", "fake"):
        layer = sw.laplacian_pyramid(images(golden, which)[:16], 3)[level]
        x, y = (golden[f"in/small_{which}s_level{level}_{axis}_center"] for axis in "xy")
        raw = sw.neighbourhoods(layer, x, y)
        if which == "real":
            recorded = golden[f"out/laplacian_level{level}_image0"][0]
            np.testing.assert_allclose(np.moveaxis(layer[0], 2, 0), recorded, rtol=0, atol=1e-4)
        else:
            recorded = golden[f"out/small_fakes_level{level}_raw_descriptors_first4"]
            np.testing.assert_allclose(raw[:4], recorded, rtol=0, atol=1e-4)
        descriptors[which] = sw.normalised(raw)
    # recorded after they were normalised, whatever their name
    directions = [golden[f"in/small_fakes_level{level}_dirs_unnormalised_rep{repeat}"] for repeat in (0, 1)]
    value = np.mean([sw.projected_distance(*descriptors.values(), one) for one in directions])
    np.testing.assert_allclose(1000 * value, golden["out64/swd_small_fakes"][level], rtol=1e-6)


def test_a_set_is_at_no_distance_from_itself(golden):
    descriptors = sw.Descriptors(np.random.RandomState(0), per_image=4)
    descriptors.update(images(golden, "real")[:4])
    finished = descriptors.finish()
    assert {level: array.shape for level, array in finished.items()} == dict.fromkeys(RESOLUTIONS, (16, 147))
    values = sw.distances(finished, finished, np.random.RandomState(1))
    np.testing.assert_array_equal(list(values.values()), golden["out64/swd_full_reals_vs_reals"])


def test_pyramid_is_the_direct_filter_with_mirrored_borders():
    x = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), dtype=np.uint8)
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256

    def blurred(plane):
        padded = np.pad(plane, 2, mode="reflect")
        return np.array([[np.sum(kernel * padded[i:i + 5, j:j + 5]) for j in range(plane.shape[1])]
                         for i in range(plane.shape[0])])

    plane = x[0, :, :, 0].astype(np.float64)
    small = blurred(plane)[::2, ::2]
    spread = np.zeros((16, 16))
    spread[::2, ::2] = small
    fine, coarse = sw.laplacian_pyramid(x, 2)
    np.testing.assert_allclose(coarse[0, :, :, 0], small, rtol=1e-6)
    np.testing.assert_allclose(fine[0, :, :, 0], plane - 4 * blurred(spread), rtol=0, atol=1e-4)


@pytest.mark.parametrize("held", [1, 60, 2**26])
def test_projected_distance_of_shifted_and_scaled_sets(held, monkeypatch):
    monkeypatch.setattr(sw, "_PROJECTIONS", held)
    a = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    shift = np.array([1.0, -2.0, 0.5])
    directions = sw.draw_directions(np.random.RandomState(0), 3, 7)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1)
    b = np.random.default_rng(2).permutation(a + shift.astype(np.float32))  # every order statistic moves alike
    np.testing.assert_allclose(sw.projected_distance(a, b, directions), np.abs(shift @ directions).mean(), rtol=1e-5)


def test_one_channel_and_normalised_descriptors():
    rng = np.random.default_rng(3)
    descriptors = sw.Descriptors(np.random.RandomState(0), per_image=16)
    for size in (3, 5):
        descriptors.update(rng.integers(0, 256, (size, 32, 32, 1), dtype=np.uint8))
    finished = descriptors.finish()
    assert {level: array.shape for level, array in finished.items()} == {32: (128, 49), 16: (128, 49)}
    for array in finished.values():
        assert array.dtype == np.float32
        np.testing.assert_allclose([array.mean(), array.std()], [0, 1], atol=1e-4)


def test_other_images_are_refused():
    descriptors = sw.Descriptors(np.random.RandomState(0))
    with pytest.raises(UserError, match="no images"):
        descriptors.finish()
    for shape, dtype in (((2, 24, 24, 3), np.uint8), ((2, 8, 8, 3), np.uint8), ((2, 16, 32, 3), np.uint8),
                         ((0, 16, 16, 3), np.uint8), ((2, 16, 16, 3), np.float32)):
        with pytest.raises(UserError, match="power of two"):
            descriptors.update(np.zeros(shape, dtype))
    descriptors.update(np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="one shape"):
        descriptors.update(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="constant"):
        descriptors.finish()
    noise = np.random.default_rng(4).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    with pytest.raises(UserError, match="equally many"):
        sw.sliced_wasserstein([noise], [noise, noise], seed=0, per_image=2)
