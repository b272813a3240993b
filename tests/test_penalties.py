"""Gradient penalties against recorded values, closed forms and finite differences; one device and eight."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from gan_jax import penalties

GOLDEN = pathlib.Path(__file__).parent / "golden"
NAMES = ("w1", "b1", "w2", "b2", "w3")


@pytest.fixture(scope="module")
def mimicry():
    return dict(np.load(GOLDEN / "losses_mimicry.npz"))


@pytest.fixture(scope="module")
def compare_gan():
    return dict(np.load(GOLDEN / "losses_compare_gan_wgangp.npz"))


def critic(params, x):
    """The small critic of the recorded penalties, (B, H, W, C) -> (B,)."""
    x = x.reshape(len(x), -1)
    x = jnp.tanh(x @ params["w1"] + params["b1"])
    x = jnp.tanh(x @ params["w2"] + params["b2"])
    return (x @ params["w3"])[:, 0]


def critic_params(golden):
    return {name: jnp.asarray(golden[f"params/critic/{name}"]) for name in NAMES}


def check_recorded(golden, loss, value_key, grad_key, factor=1.0):
    value, grads = jax.value_and_grad(loss)(critic_params(golden))
    np.testing.assert_allclose(value, golden[value_key], rtol=1e-5)
    for name in NAMES:
        expected = golden[f"{grad_key}/{name}"]
        np.testing.assert_allclose(
            factor * grads[name], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=name
        )


def test_gradient_penalty_matches_mimicry(mimicry):
    def loss(params):
        values = penalties.gradient_penalty(
            partial(critic, params), mimicry["in/x_real"], mimicry["in/x_fake"], mimicry["in/alpha"]
        )
        assert values.shape == (7,)
        return 10 * jnp.mean(values)

    check_recorded(
        mimicry, loss, "out/mimicry_gradient_penalty_x10", "grad/mimicry_gradient_penalty_x10/critic"
    )


def test_gradient_penalty_matches_compare_gan(compare_gan):
    # There the interpolation is real + alpha (fake - real).
    alpha = 1 - compare_gan["in/alpha"]

    def loss(params):
        real, fake = compare_gan["in/x_real"], compare_gan["in/x_fake"]
        values = penalties.gradient_penalty(partial(critic, params), real, fake, alpha, epsilon=1e-4)
        return jnp.mean(values)

    check_recorded(
        compare_gan, loss, "out/compare_gan_wgangp_penalty", "grad/compare_gan_wgangp_penalty/critic"
    )


@pytest.mark.parametrize("variant, weight, flip", [("toy", 0.1, False), ("cifar", 10.0, True)])
def test_wgan_gp_matches_its_authors(compare_gan, variant, weight, flip):
    alpha = 1 - compare_gan["in/alpha"] if flip else compare_gan["in/alpha"]
    real, fake = compare_gan["in/x_real"], compare_gan["in/x_fake"]

    def loss(params):
        penalty = penalties.gradient_penalty(partial(critic, params), real, fake, alpha)
        return jnp.mean(critic(params, fake)) - jnp.mean(critic(params, real)) + weight * jnp.mean(penalty)

    name = f"igul222_{variant}_disc_cost"
    check_recorded(compare_gan, loss, f"out/{name}", f"grad/{name}/critic")


def test_dragan_matches_compare_gan(compare_gan):
    real, noise = compare_gan["in/x_real"], compare_gan["in/dragan_uniform"]
    np.testing.assert_allclose(penalties.batch_std(real), np.std(real.astype(np.float64)), rtol=1e-6)

    def loss(params):
        return jnp.mean(penalties.dragan(partial(critic, params), real, noise, low=0.0, high=1.0))

    check_recorded(
        compare_gan, loss, "out/compare_gan_dragan_penalty", "grad/compare_gan_dragan_penalty/critic"
    )


def test_r1_of_a_linear_critic_is_its_squared_weight():
    weight = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    x = jnp.ones((5, 3, 2))
    logits_fn = partial(jnp.einsum, "ij,bij->b", weight)
    expected = np.full(5, (weight**2).sum())
    np.testing.assert_allclose(penalties.squared_gradient_norm(logits_fn, x), expected, rtol=1e-6)
    np.testing.assert_allclose(penalties.r1(logits_fn, x, gamma=10.0), 5 * expected, rtol=1e-6)
    np.testing.assert_allclose(penalties.r2(logits_fn, x, gamma=jnp.float32(4.0)), 2 * expected, rtol=1e-6)


def test_logit_maps():
    x = jnp.arange(2 * 4 * 4, dtype=jnp.float32).reshape(2, 4, 4) / 10
    values = penalties.r1(jnp.square, x, gamma=2.0)
    np.testing.assert_allclose(values, np.sum((2 * np.asarray(x)) ** 2, axis=(1, 2)), rtol=1e-6)
    values = penalties.gradient_penalty(jnp.square, x, -x, jnp.array([1.0, 0.5]))
    norm = np.sqrt(np.sum((2 * np.asarray(x[0])) ** 2))
    np.testing.assert_allclose(
        values, [(norm - 1) ** 2, 1.0], rtol=1e-6
    )  # the second point is 0, where it is flat


def test_flat_critic_has_finite_gradients():
    def loss(scale):
        x = jnp.ones((4, 3))
        return jnp.mean(penalties.gradient_penalty(lambda x: scale * jnp.sum(x, axis=1), x, x, jnp.ones(4)))

    value, grad = jax.value_and_grad(loss)(0.0)
    assert (float(value), float(grad)) == (1.0, 0.0)


def test_half_precision_critic_is_reduced_in_float32():
    # A sum of 1001 ones is 1000 or 1008 in bfloat16.
    values = penalties.r1(lambda x: jnp.sum(x, axis=1), jnp.ones((2, 1001), jnp.bfloat16), gamma=2.0)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, [1001.0, 1001.0])


def _conv_critic(params, x):
    x = lax.conv_general_dilated(
        x, params["conv"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(x + params["bias"]).reshape(len(x), -1) @ params["dense"]


@pytest.mark.parametrize("kind", ["r1", "gradient_penalty", "dragan"])
def test_double_backward_against_finite_differences(kind):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        params = {
            "conv": jnp.asarray(rng.standard_normal((3, 3, 2, 3))),
            "bias": jnp.asarray(rng.standard_normal(3)),
            "dense": jnp.asarray(rng.standard_normal(12)),
        }
        real, fake, noise = (jnp.asarray(rng.uniform(-1, 1, (3, 4, 4, 2))) for _ in range(3))
        alpha = jnp.asarray(rng.uniform(size=3))

        def loss(params):
            logits_fn = partial(_conv_critic, params)
            if kind == "r1":
                return jnp.sum(penalties.r1(logits_fn, real, gamma=3.0))
            if kind == "dragan":
                return jnp.sum(penalties.dragan(logits_fn, real, noise))
            return jnp.sum(penalties.gradient_penalty(logits_fn, real, fake, alpha))

        def shifted(direction, step):
            return loss(jax.tree.map(lambda p, d: p + step * d, params, direction))

        value, grads = jax.value_and_grad(loss)(params)
        assert value.dtype == jnp.float64
        for _ in range(3):
            direction = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), params)
            slope = sum(
                jnp.vdot(g, d)
                for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
            )
            numeric = (shifted(direction, 1e-5) - shifted(direction, -1e-5)) / 2e-5
            np.testing.assert_allclose(slope, numeric, rtol=1e-7)


@pytest.mark.parametrize("power", [2.0, 3.0, 6.0])
def test_matching_aware_penalty_against_finite_differences(power):
    """By the critic's weights and by images, in float64; and its value by the critic's slopes."""
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        params = {"conv": rng.standard_normal((3, 3, 2, 3)), "bias": rng.standard_normal(3),
                  "dense": rng.standard_normal(12), "joint": rng.standard_normal((12, 5))}  # fmt: skip
        images, sentences = rng.uniform(-1, 1, (3, 4, 4, 2)), rng.uniform(-1, 1, (3, 5))
        point = jax.tree.map(jnp.asarray, (params, images))

        def critic(params, images, sentences):
            features = jnp.tanh(lax.conv_general_dilated(
                images, params["conv"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ) + params["bias"]).reshape(len(images), -1)  # fmt: skip
            return features @ params["dense"] + jnp.einsum("bi,ij,bj->b", features, params["joint"], sentences)

        def loss(point):
            values, logits = penalties.matching_aware(partial(critic, point[0]), point[1], sentences, power=power)
            assert values.shape == logits.shape == (3,)
            return jnp.sum(values)

        def shifted(direction, step):
            return loss(jax.tree.map(lambda p, d: p + step * d, point, direction))

        pair = jnp.asarray(images), jnp.asarray(sentences)
        slopes = jax.grad(lambda *pair: critic(params, *pair).sum(), (0, 1))(*pair)
        norms = np.sqrt(sum(np.square(slope.reshape(3, -1)).sum(1) for slope in map(np.asarray, slopes)))
        assert float(loss(point)) == pytest.approx((norms**power).sum(), rel=1e-12)
        grads = jax.grad(loss)(point)
        for _ in range(3):
            direction = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), point)
            slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True))
            numeric = (shifted(direction, 1e-5) - shifted(direction, -1e-5)) / 2e-5
            np.testing.assert_allclose(slope, numeric, rtol=1e-6)


def test_matching_aware_penalty_of_a_flat_critic_has_finite_gradients():
    def loss(scale):
        judge = lambda images, sentences: scale * (images.sum(1) + sentences.sum(1))  # noqa: E731
        return penalties.matching_aware(judge, jnp.ones((4, 3)), jnp.ones((4, 2)))[0].mean()

    assert tuple(map(float, jax.value_and_grad(loss)(0.0))) == (0.0, 0.0)
    assert float(loss(1.0)) == pytest.approx(5.0**3)  # |(1, 1, 1, 1, 1)|^6


def test_one_and_eight_devices_agree():
    """With batch norm over all devices in the critic, and DRAGAN's deviation of the whole batch."""
    rng = np.random.default_rng(2)
    real, noise = (rng.uniform(-1, 1, (16, 6)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal((6, 5)).astype(np.float32)

    def per_device(weight, real, noise):
        def logits_fn(weight, x):
            x = x @ weight
            mean = lax.pmean(jnp.mean(x, axis=0), "data")
            var = lax.pmean(jnp.mean(jnp.square(x - mean), axis=0), "data")
            return jnp.sum(jnp.tanh((x - mean) * lax.rsqrt(var + 1e-5)) ** 3, axis=1)

        def loss(weight):
            near = penalties.dragan(partial(logits_fn, weight), real, noise, axis_name="data")
            return jnp.mean(penalties.r1(partial(logits_fn, weight), real, gamma=2.0)) + jnp.mean(near)

        value, grad = jax.value_and_grad(loss)(lax.pcast(weight, "data", to="varying"))
        return lax.pmean(value, "data"), lax.pmean(grad, "data")

    results = []
    for count in (1, 8):
        mesh = jax.make_mesh((count,), ("data",), devices=jax.devices()[:count], axis_types=(AxisType.Auto,))
        specs = (PartitionSpec(), PartitionSpec("data"), PartitionSpec("data"))
        step = jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
        results.append(jax.jit(step)(weight, real, noise))
    for one, eight in zip(*results, strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-6)
