"""DF-GAN's networks against the published program's numbers; published sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import initial, penalties
from gan_jax.errors import UserError
from gan_jax.models import dfgan
from tests import golden_dfgan as golden

GENERATOR = dfgan.Generator(resolution=32, latent_size=6, width=4)
DISCRIMINATOR = dfgan.Discriminator(resolution=32, width=4)


@pytest.fixture(scope="module")
def recorded():
    return golden.load("dfgan")


@pytest.fixture(scope="module")
def params(recorded):
    return golden.trees(recorded, "params")


def _hinge(x):
    return jnp.maximum(0, 1 + x).mean()


def _compare(ours, recorded, tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(recorded)
    jax.tree.map(functools.partial(golden.close, tolerance=tolerance), ours, recorded)


def test_recorded_networks_and_gradients(recorded, params):
    """Images, features and logits of all three kinds of pairs; gradients of both losses.

    The discriminator's are recorded with those of the generator's loss added, which came after them; `dfgan_train_step`
    has them alone.
    """
    images, sentence, z = golden.images(recorded["in/images"]), recorded["in/sent_emb"], recorded["in/noise"]

    def judge(of_judge, images, sentence):
        return DISCRIMINATOR.apply({"params": of_judge}, images, sentence, train=True)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def generator(of_painter):
        fake = GENERATOR.apply({"params": of_painter}, z, sentence, train=True)
        return -judge(params["discriminator"], fake, sentence).mean(), fake

    (loss, fake), slopes = generator(params["generator"])
    golden.close(fake, golden.images(recorded["out/fake"]))
    assert loss == pytest.approx(float(recorded["out/errG"]), rel=1e-4)
    _compare(slopes, golden.trees(recorded, "grad/G_loss")["generator"], 1e-3)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def discriminator(of_judge):
        features = DISCRIMINATOR.apply({"params": of_judge}, images, train=True, method="features")
        rolled = jnp.concatenate([features[1:], features[:1]])
        mismatched = DISCRIMINATOR.apply({"params": of_judge}, rolled, sentence, train=True, method="judge")
        penalty, real = penalties.matching_aware(functools.partial(judge, of_judge), images, sentence)
        logits = {"real": real, "mis": mismatched, "fake": judge(of_judge, fake, sentence)}
        loss = _hinge(-real) + (_hinge(logits["fake"]) + _hinge(mismatched)) / 2 + 2 * penalty.mean()
        return loss - logits["fake"].mean(), (features, logits, penalty, loss)

    (_, (features, logits, penalty, loss)), slopes = discriminator(params["discriminator"])
    golden.close(features, golden.images(recorded["out/D_features_real"]))
    for name, value in logits.items():
        golden.close(value, recorded[f"out/pred_{name}"].reshape(-1))
    assert loss == pytest.approx(float(recorded["out/errD"]), rel=1e-4)
    golden.close(penalty, recorded["out/MAGP_input_grad_norm_per_sample"] ** 6, 1e-4)
    _compare(slopes, golden.trees(recorded, "grad/D_loss")["discriminator"], 1e-3)


def test_recorded_penalty_alone(recorded, params):
    images, sentence = golden.images(recorded["in/images"]), recorded["in/sent_emb"]

    @jax.jit
    @jax.value_and_grad
    def penalty(of_judge):
        judge = functools.partial(DISCRIMINATOR.apply, {"params": of_judge}, train=True)
        return 2 * penalties.matching_aware(judge, images, sentence)[0].mean()

    value, slopes = penalty(params["discriminator"])
    assert value == pytest.approx(float(recorded["out/errD_MAGP"]), rel=1e-4)
    recorded_slopes = golden.trees(recorded, "grad/MAGP")["discriminator"]
    for block in ("block0", "block1", "block2"):  # what stands beside what the input meets linearly has none at all
        assert set(slopes[block]) == set(recorded_slopes[block])
    _compare(slopes, recorded_slopes, 1e-3)


def test_parameters_of_the_full_size():
    """Sums over the published layers at 256 px, 32 features, noise of 100 and sentences of 256 entries."""
    widths, condition, counts = (256, 256, 256, 256, 128, 64, 32), 356, {"generator": 100 * 4096 + 4096}
    counts["discriminator"] = 3 * 9 * 32 + 32
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        affine = [4 * (condition * c + c + c * c + c) for c in (a, b)]  # two, each with scale and shift
        counts["generator"] += 9 * a * b + b + 9 * b * b + b + sum(affine) + (a * b + b if a != b else 0)
        counts["discriminator"] += 16 * b * a + 9 * a * a + a * b + a + 1  # from the image on, so b to a
    counts["generator"] += 9 * 32 * 3 + 3
    counts["discriminator"] += 9 * (256 + 256) * 64 + 16 * 64
    nets = {"generator": dfgan.Generator(), "discriminator": dfgan.Discriminator()}
    inputs = {"generator": jnp.zeros((1, 100)), "discriminator": jnp.zeros((1, 256, 256, 3))}
    for name, net in nets.items():
        init = functools.partial(net.init, jax.random.key(0), inputs[name], jnp.zeros((1, 256)), train=True)
        assert sum(x.size for x in jax.tree.leaves(jax.eval_shape(init))) == counts[name]


def test_fresh_blocks_are_plain_and_a_canvas_need_not_be_square():
    """Scales are 1 and shifts 0 at first, so that no sentence shows; the noise does."""
    painter, judge = dfgan.Generator(resolution=(8, 16), width=4), dfgan.Discriminator(resolution=(8, 16), width=4)
    key, z = jax.random.key(0), jax.random.normal(jax.random.key(1), (2, 100))
    one, other = jnp.zeros((2, 6)), jnp.ones((2, 6))
    variables = initial.evaluate(lambda: painter.init(key, z, one, train=True))
    paint = jax.jit(functools.partial(painter.apply, train=True))
    images = paint(variables, z, one)
    assert images.shape == (2, 8, 16, 3) and np.abs(images[0] - images[1]).max() > 1e-3
    np.testing.assert_array_equal(images, paint(variables, z, other))
    variables = initial.evaluate(lambda: judge.init(key, images, one, train=True))
    features = jax.eval_shape(functools.partial(judge.apply, train=True, method="features"), variables, images)
    assert features.shape == (2, 4, 8, 8)
    score = jax.jit(functools.partial(judge.apply, train=True))
    logits = score(variables, images, one)
    assert logits.shape == (2,) and np.abs(logits - score(variables, images, other)).min() > 1e-4


@pytest.mark.parametrize(("fields", "message"), [
    ({"resolution": 2}, "needs sides of 4 or more"), ({"width": 0}, "width=0: expected 1 or more"),
])  # fmt: skip
def test_errors(fields, message):
    for net in (dfgan.Generator, dfgan.Discriminator):
        with pytest.raises(UserError, match=message):
            net(**fields)
    for own, expected in (({"latent": "cauchy"}, "latent 'cauchy' is unknown"),
                          ({"truncation": 1.5}, "truncation=1.5: expected 0 to 1"),
                          ({"truncation": 0.5, "latent": "uniform"}, "truncation=0.5: is of normal latents, not"),
                          ):  # fmt: skip
        with pytest.raises(UserError, match=expected):
            dfgan.Generator(**own)
