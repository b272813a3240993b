"""Adversarial losses against recorded values and gradients of public implementations, and closed forms."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses
from gan_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def mimicry():
    return dict(np.load(GOLDEN / "losses_mimicry.npz"))


@pytest.fixture(scope="module")
def compare_gan():
    return dict(np.load(GOLDEN / "losses_compare_gan_wgangp.npz"))


def close(actual, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * scale)


def total(game, real, fake):
    return sum(jnp.mean(term) for term in game.discriminator(real, fake).values())


def generator_mean(game, real, fake):
    return jnp.mean(game.generator(real if game.needs_real else None, fake))


def discriminator_result(game, real, fake):
    return jax.value_and_grad(lambda r, f: total(game, r, f), argnums=(0, 1))(real, fake)


@pytest.mark.parametrize(
    "recorded, name, options",
    [
        ("minimax_dis", "non_saturating", {}),
        ("minimax_dis", "saturating", {}),
        ("minimax_dis_smoothed_0.9_0.1", "non_saturating", {"real_target": 0.9, "fake_target": 0.1}),
        ("wasserstein_dis", "wasserstein", {}),
        ("hinge_dis", "hinge", {}),
    ],
)
def test_discriminator_matches_mimicry(mimicry, recorded, name, options):
    game = losses.adversarial(name, **options)
    value, (real, fake) = discriminator_result(game, mimicry["in/real_logits"], mimicry["in/fake_logits"])
    close(value, mimicry[f"out/mimicry_{recorded}"])
    close(real, mimicry[f"grad/mimicry_{recorded}_real"])
    close(fake, mimicry[f"grad/mimicry_{recorded}_fake"])


@pytest.mark.parametrize(
    "recorded, name",
    [
        ("minimax_gen", "non_saturating"),
        ("ns_gen", "non_saturating"),
        ("wasserstein_gen", "wasserstein"),
        ("hinge_gen", "hinge"),
    ],
)
def test_generator_matches_mimicry(mimicry, recorded, name):
    game = losses.adversarial(name)
    value, grad = jax.value_and_grad(lambda f: generator_mean(game, None, f))(mimicry["in/fake_logits"])
    close(value, mimicry[f"out/mimicry_{recorded}"])
    close(grad, mimicry[f"grad/mimicry_{recorded}_fake"])


@pytest.mark.parametrize("name", ["non_saturating", "wasserstein", "hinge", "least_squares"])
def test_matches_compare_gan(compare_gan, name):
    game = losses.adversarial(name)
    squash = jax.nn.sigmoid if name == "least_squares" else lambda x: x
    real, fake = compare_gan["in/real_logits"], compare_gan["in/fake_logits"]
    value, (d_real, d_fake) = jax.value_and_grad(
        lambda r, f: total(game, squash(r), squash(f)), argnums=(0, 1)
    )(real, fake)
    g_value, g_fake = jax.value_and_grad(lambda f: generator_mean(game, None, squash(f)))(fake)
    prefix = f"compare_gan_{name}"
    close(value, compare_gan[f"out/{prefix}_d_loss"])
    close(d_real, compare_gan[f"grad/{prefix}_d_real"])
    close(d_fake, compare_gan[f"grad/{prefix}_d_fake"])
    close(g_value, compare_gan[f"out/{prefix}_g_loss"])
    close(g_fake, compare_gan[f"grad/{prefix}_g_fake"])


@pytest.mark.parametrize(
    "recorded, name, options",
    [
        ("vanilla", "non_saturating", {}),
        ("lsgan", "least_squares", {"scale": 1.0}),
        ("wgangp", "wasserstein", {}),
    ],
)
def test_logit_maps_match_cyclegan(recorded, name, options):
    golden = np.load(GOLDEN / "cyclegan_losses_pool.npz")
    x = golden["in/prediction"]
    game = losses.adversarial(name, **options)
    terms = game.discriminator(x, x)
    for side in ("real", "fake"):
        assert terms[side].shape == x.shape
        close(jnp.mean(terms[side]), golden[f"out/{recorded}_{side}"])
        grad = jax.grad(lambda x, side=side: jnp.mean(game.discriminator(x, x)[side]))(x)
        close(grad, golden[f"grad/{recorded}_{side}"])
    # The generator of CycleGAN asks for the target of a real image.
    close(jnp.mean(game.generator(None, x)), golden[f"out/{recorded}_real"])


def test_relativistic_matches_r3gan():
    golden = np.load(GOLDEN / "r3gan_losses.npz")
    game = losses.adversarial("relativistic")
    assert game.needs_real
    # Recorded D: logits of real minus fake; G: of fake minus real.
    zero = np.zeros_like(golden["out/logits_real"])
    terms = game.discriminator(golden["out/D/relativistic_logits"], zero)
    assert list(terms) == ["relativistic"]
    close(terms["relativistic"], golden["out/D/adversarial_loss_per_sample"])
    close(
        game.generator(zero, golden["out/G/relativistic_logits"]), golden["out/G/adversarial_loss_per_sample"]
    )
    close(total(game, golden["out/D/relativistic_logits"], zero), golden["out/D/adversarial_loss"])


def test_relativistic_sees_only_differences():
    game = losses.adversarial("relativistic")
    real, fake = jnp.array([0.3, -2.0]), jnp.array([1.3, 0.5])
    expected = np.log1p(np.exp([1.0, 2.5]))  # log(1 + exp(fake - real))
    close(game.discriminator(real, fake)["relativistic"], expected)
    close(game.discriminator(real + 7, fake + 7)["relativistic"], expected)
    close(game.generator(real, fake), np.log1p(np.exp([-1.0, -2.5])))


def test_saturating_generator_descends_on_log_one_minus_d():
    game = losses.adversarial("saturating")
    x = np.array([-3.0, 0.0, 2.0], np.float32)
    close(game.generator(None, x), np.log(1 - 1 / (1 + np.exp(-x.astype(np.float64)))))
    slope = jax.grad(lambda x: jnp.sum(game.generator(None, x)))(x)
    close(slope, -1 / (1 + np.exp(-x.astype(np.float64))))  # vanishes where D is sure: the name


def test_least_squares_targets():
    game = losses.adversarial("least_squares", real_target=1.0, fake_target=-1.0, generator_target=0.0)
    terms = game.discriminator(jnp.array([3.0]), jnp.array([2.0]))
    assert (float(terms["real"][0]), float(terms["fake"][0])) == (2.0, 4.5)
    assert float(game.generator(None, jnp.array([2.0]))[0]) == 2.0


@pytest.mark.parametrize("name", losses.NAMES)
def test_extreme_and_half_precision_logits(name):
    game = losses.adversarial(name)
    logits = jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4], jnp.bfloat16)

    def everything(real, fake):
        values = [*game.discriminator(real, fake).values(), game.generator(real, fake)]
        assert all(v.shape == real.shape and v.dtype == jnp.float32 for v in values)
        return sum(jnp.sum(v) for v in values)

    value, grads = jax.jit(jax.value_and_grad(everything, argnums=(0, 1)))(logits, logits[::-1])
    assert np.isfinite(value) and all(np.isfinite(g.astype(np.float32)).all() for g in grads)


def test_unknown_names_and_options():
    with pytest.raises(UserError, match="'hinges'.*nearest: hinge"):
        losses.adversarial("hinges")
    with pytest.raises(UserError, match="'reel_target'.*nearest: real_target"):
        losses.adversarial("non_saturating", reel_target=0.9)
    with pytest.raises(UserError, match="it has none"):
        losses.adversarial("wasserstein", real_target=0.9)
