"""DiffAugment against recorded draws, results and gradients of the authors' code."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.augment.diffaugment import DiffAugment
from gan_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"
POLICIES = ("color", "translation", "cutout", "color+translation", "translation+cutout", "color+translation+cutout")
KEYS = jax.random.split(jax.random.key(3), 64)


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "diffaugment.npz")


def _draws(golden, prefix):
    read = {key.removeprefix(prefix): golden[key] for key in golden.files if key.startswith(prefix)}
    draws = {name: read[name] for name in ("brightness", "saturation", "contrast") if name in read}
    for name, stem in (("translation", "translation"), ("cutout", "cutout_offset")):
        if f"{stem}_h" in read:
            draws[name] = np.stack([read[f"{stem}_h"], read[f"{stem}_w"]], 1).astype(np.int32)
    return draws


@pytest.mark.parametrize("policy", (*POLICIES, "color+cutout"))
@pytest.mark.parametrize("size", ["size0", "size1"])
def test_recorded_results_and_gradients(golden, size, policy):
    def nhwc(key):
        return golden[key].transpose(0, 2, 3, 1)

    augmentation = DiffAugment(policy=tuple(policy.split("+")))
    draws = _draws(golden, f"{size}/{policy}/draw/")
    ours, pull = jax.vjp(lambda x: augmentation.apply(x, draws), nhwc(f"{size}/in/x"))
    np.testing.assert_allclose(ours, nhwc(f"{size}/{policy}/out"), rtol=0, atol=2e-6)
    np.testing.assert_allclose(pull(nhwc(f"{size}/in/dy"))[0], nhwc(f"{size}/{policy}/grad_x"), rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(32, 32, 1), (13, 20, 4)])
def test_draws_fill_their_ranges(shape):
    h, w, _ = shape
    keys = jax.random.split(jax.random.key(0), 4096)
    draws = DiffAugment().draw(keys, shape[:2])
    for name in ("brightness", "saturation", "contrast"):
        assert 0 <= draws[name].min() < 0.01 and 0.99 < draws[name].max() < 1
    for axis, size in enumerate((h, w)):
        far, box = int(size / 8 + 0.5), int(size / 2 + 0.5)
        assert set(np.unique(draws["translation"][:, axis])) == set(range(-far, far + 1))
        assert set(np.unique(draws["cutout"][:, axis])) == set(range(size + 1 - box % 2))


def test_a_sample_depends_on_its_own_key_alone():
    augmentation, images = DiffAugment(), jax.random.normal(jax.random.key(1), (8, 12, 10, 3))
    whole = augmentation(images, KEYS[:8], 1.0)
    part = augmentation(images[5:7], KEYS[5:7], 1.0)
    np.testing.assert_array_equal(whole[5:7], part)


def test_strength_is_the_share_of_images_that_are_changed():
    images = jnp.ones((64, 8, 8, 1))
    augmentation = DiffAugment(policy=("cutout",))
    changed = {p: int(jnp.any(augmentation(images, KEYS, p) != images, (1, 2, 3)).sum()) for p in (0.0, 0.5, 1.0)}
    assert (changed[0.0], changed[1.0]) == (0, 64)
    assert 16 < changed[0.5] < 48


def test_second_derivatives_pass_through():
    """The gradient of |d sum(tanh(T(x))) / dx|^2 against finite differences in float64."""
    with jax.enable_x64(True):
        images = jax.random.normal(jax.random.key(1), (2, 6, 5, 2), jnp.float64)
        draws = jax.tree.map(lambda x: x[:2], DiffAugment().draw(KEYS, (6, 5)))

        def penalty(x):
            return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.tanh(DiffAugment().apply(x, draws))))(x) ** 2)

        direction = jax.random.normal(jax.random.key(2), images.shape, jnp.float64)
        slope = jnp.sum(jax.grad(penalty)(images) * direction)
        step = 1e-5 * direction
        numeric = (penalty(images + step) - penalty(images - step)) / 2e-5
    np.testing.assert_allclose(slope, numeric, rtol=1e-7)


def test_an_unknown_policy_is_named():
    with pytest.raises(UserError, match="colour.*expected any of color, translation, cutout"):
        DiffAugment(policy=("colour",))
