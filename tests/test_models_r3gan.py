"""R3GAN's networks against recorded activations, losses and gradients of the official code, and official sizes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses, penalties
from gan_jax.errors import UserError
from gan_jax.layers.fir import downsample2d, normalised, upsample2d
from gan_jax.models.r3gan import Discriminator, Generator
from tests import golden_r3gan

KEY = jax.random.key(0)
GOLDEN = golden_r3gan.GOLDEN


def _close(ours, recorded, tolerance=1e-5):
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= tolerance * np.abs(recorded).max()


@pytest.fixture(scope="module", params=["uncond", "cond"])
def recorded(request):
    return golden_r3gan.Recorded(request.param)


def test_recorded_images_logits_and_activations(recorded):
    net_g, net_d = recorded.generator, recorded.discriminator
    label, real_label = recorded.labels("in/c"), recorded.labels("in/real_c")

    @jax.jit
    def play(params_g, params_d, z, real):
        img, inside_g = net_g.apply({"params": params_g}, z, label, capture_intermediates=True)
        fake, inside_d = net_d.apply({"params": params_d}, img, label, capture_intermediates=True)
        return img, fake, net_d.apply({"params": params_d}, real, real_label), inside_g, inside_d

    params = [recorded.tree(f"params/{net}", net) for net in "GD"]
    shapes = [jax.eval_shape(lambda net=net, x=x: net.init(KEY, x, label))["params"]
              for net, x in ((net_g, recorded.npz["in/z"]), (net_d, recorded.images("in/real_img")))]  # fmt: skip
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)
    img, fake, real, inside_g, inside_d = play(*params, recorded.npz["in/z"], recorded.images("in/real_img"))
    _close(img, recorded.images("out/img"))
    _close(fake, recorded.npz["out/logits_fake"])
    _close(real, recorded.npz["out/logits_real"])
    levels = len(recorded.meta["G_kwargs"]["WidthPerStage"])
    for level in range(levels):
        last = f"stage{level}_block{recorded.meta['G_kwargs']['BlocksPerStage'][level] - 1}"
        _close(inside_g["intermediates"][last]["__call__"][0][:2], recorded.images(f"inter/G/stage{level}"))
    for stage in range(levels - 1):
        name = f"stage{levels - 1 - stage}_change"
        if name in inside_d["intermediates"]:
            _close(inside_d["intermediates"][name]["__call__"][0][:2], recorded.images(f"inter/D/stage{stage}"))


def test_recorded_losses_and_gradients(recorded):
    """R1 and R2 of one backward pass over real and generated images together."""
    net_g, net_d, gamma = recorded.generator, recorded.discriminator, recorded.meta["gamma"]
    game, label = losses.adversarial("relativistic"), recorded.labels("in/real_c")

    def loss_d(params, real, fake):
        def logits(x):
            return net_d.apply({"params": params}, x, None if label is None else jnp.concatenate([label, label]))

        (r1, r2), both = penalties.r1_and_r2(logits, real, fake, r1_gamma=gamma, r2_gamma=gamma)
        terms = game.discriminator(*both)["relativistic"]
        return (terms + r1 + r2).mean(), (terms, r1, r2)

    def loss_g(params, params_d, z, real):
        fake = net_d.apply({"params": params_d}, net_g.apply({"params": params}, z, label), label)
        terms = game.generator(net_d.apply({"params": params_d}, real, label), fake)
        return terms.mean(), terms

    params_g, params_d = (recorded.tree(f"params/{net}", net) for net in "GD")
    z, real = recorded.npz["in/z"], recorded.images("in/real_img")
    fake = jax.jit(net_g.apply)({"params": params_g}, z, label)
    (total, (terms, r1, r2)), grads = jax.jit(jax.value_and_grad(loss_d, has_aux=True))(params_d, real, fake)
    out = recorded.npz
    _close(total, out["out/D/total_loss"])
    _close(terms, out["out/D/adversarial_loss_per_sample"])
    _close(r1, out["out/D/r1_penalty_per_sample"] * gamma / 2)
    _close(r2, out["out/D/r2_penalty_per_sample"] * gamma / 2)
    jax.tree.map(lambda a, b: _close(a, b, 1e-4), grads, recorded.tree("grad/D", "D"))
    (_, terms), grads = jax.jit(jax.value_and_grad(loss_g, has_aux=True))(params_g, params_d, z, real)
    _close(terms, out["out/G/adversarial_loss_per_sample"])
    jax.tree.map(lambda a, b: _close(a, b, 1e-4), grads, recorded.tree("grad/G", "G"))


@pytest.mark.parametrize("name, taps", [("f121", (1, 3, 3, 1)), ("f14641", (1, 5, 10, 10, 5, 1)), ("f11", (1, 2, 1))])
def test_recorded_resampling(name, taps):
    npz = np.load(GOLDEN / "r3gan_ops.npz")
    x = npz[f"resample/{name}/in"].transpose(0, 2, 3, 1)
    _close(upsample2d(x, normalised(taps)), npz[f"resample/{name}/up"].transpose(0, 2, 3, 1))
    _close(downsample2d(x, normalised(taps)), npz[f"resample/{name}/down"].transpose(0, 2, 3, 1))
