"""Convolutions of clips and recurrences over frames, against XLA's own, numpy, and finite differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from gan_jax import parallel
from gan_jax.layers.conv import conv_3d
from gan_jax.layers.linear import Conv3D
from gan_jax.layers.recurrent import GRU, ConvGRU, over_frames
from tests import settings

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [
    ((4, 4, 4), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
    ((3, 3, 3), (1, 1, 1), ((1, 1), (1, 1), (1, 1))),
    ((2, 1, 3), (2, 1, 2), ((1, 0), (0, 0), (0, 1))),
], ids=str)  # fmt: skip
def test_convolutions_of_clips_and_their_gradients_are_xlas(kernel, stride, padding):
    x = jnp.asarray(RNG.normal(size=(2, 5, 6, 6, 3)))
    w = jnp.asarray(RNG.normal(size=(*kernel, 3, 2)))

    def xla(x, w):
        return lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))

    y, pull = jax.vjp(lambda *both: conv_3d(*both, stride, padding), x, w)
    expected, pulled = jax.vjp(xla, x, w)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    along = jnp.asarray(RNG.normal(size=y.shape))
    for ours, theirs in zip(pull(along), pulled(along), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-4)


def test_second_derivatives_of_convolutions_of_clips():
    """As gradient penalties take them."""
    with jax.enable_x64(True):
        x, w = jnp.asarray(RNG.normal(size=(1, 3, 4, 4, 1))), jnp.asarray(RNG.normal(size=(2, 3, 3, 1, 2)))

        def penalty(w):
            slope = jax.grad(lambda x: jnp.sin(conv_3d(x, w, (1, 2, 2))).sum())(x)
            return jnp.square(slope).sum()

        check_grads(penalty, (w,), order=1, modes=("rev",))


def test_spectral_norm_of_a_kernel_of_clips_is_that_of_its_matrix():
    net = Conv3D(3, (2, 3, 3), use_bias=False, spectral_norm=True)
    x = jnp.zeros((1, 2, 3, 3, 2)).at[0, 1, 2, 0, 1].set(1)  # picks one row of the kernel
    variables = net.init(jax.random.key(0), x)
    for _ in range(50):
        y, vectors = net.apply(variables, x, train=True, mutable=["spectral"])
        variables = {**variables, **vectors}
    kernel = np.asarray(variables["params"]["kernel"])
    largest = np.linalg.svd(kernel.reshape(-1, 3), compute_uv=False)[0]
    np.testing.assert_allclose(y[0, 0, 0, 0], kernel[1, 2, 0, 1] / largest, rtol=1e-4)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_gru_is_pytorchs_cell():
    net, state, inputs = GRU(), RNG.normal(size=(2, 3)), RNG.normal(size=(2, 4, 5))
    params = net.init(jax.random.key(0), state, inputs)["params"]
    params = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), x.dtype), params)
    h, (w, b), (u, c) = state, *((params[k]["kernel"], params[k]["bias"]) for k in ("input", "state"))
    states = net.apply({"params": params}, jnp.asarray(state), jnp.asarray(inputs))
    for frame in range(4):
        gi, gh = np.split(inputs[:, frame] @ w + b, 3, 1), np.split(h @ u + c, 3, 1)
        r, z = _sigmoid(gi[0] + gh[0]), _sigmoid(gi[1] + gh[1])
        h = (1 - z) * np.tanh(gi[2] + r * gh[2]) + z * h
        np.testing.assert_allclose(states[:, frame], h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("same", (False, True), ids=("by frame", "the same"))
def test_convolutional_gru_at_one_pixel_is_a_gru_of_its_channels(same):
    """Of 1x1 maps the middle of each kernel counts alone."""
    net, state = ConvGRU(3), RNG.normal(size=(2, 1, 1, 4))
    inputs = RNG.normal(size=(2, 3, 1, 1, 2)) if not same else RNG.normal(size=(2, 1, 1, 2))
    params = net.init(jax.random.key(0), state, inputs)["params"]
    params = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), x.dtype), params)
    states = net.apply({"params": params}, jnp.asarray(state), jnp.asarray(inputs))
    assert states.shape == (2, 3, 1, 1, 4)
    h = state[:, 0, 0]
    for frame in range(3):
        x = inputs[:, 0, 0] if same else inputs[:, frame, 0, 0]
        (w, b), (v, d) = ((np.asarray(params[k]["kernel"])[1, 1], params[k]["bias"]) for k in ("gates", "candidate"))
        r, u = np.split(_sigmoid(np.concatenate([h, x], 1) @ w + b), 2, 1)
        h = u * h + (1 - u) * np.maximum(np.concatenate([r * h, x], 1) @ v + d, 0)
        np.testing.assert_allclose(states[:, frame, 0, 0], h, rtol=1e-4, atol=1e-5)


def test_a_loop_and_written_out_frames_agree():
    state, inputs = jnp.asarray(RNG.normal(size=(2, 3))), jnp.asarray(RNG.normal(size=(2, 5, 3)))
    scale = jnp.asarray(RNG.normal(size=3))

    def total(scale, state, inputs, unrolled):
        states = over_frames(lambda h, x: jnp.tanh(scale * h + x), state, inputs, unrolled=unrolled)
        return jnp.sum(states * jnp.arange(5)[:, None]), states

    both = [jax.grad(total, (0, 1, 2), has_aux=True)(scale, state, inputs, unrolled) for unrolled in (True, False)]
    assert both[0][1].shape == (2, 5, 3)
    for ours, theirs in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_loop_runs_on_several_devices():
    """Its state, which is equal everywhere, becomes one of each device's own."""
    mesh, spec = settings.mesh(2), jax.sharding.PartitionSpec(parallel.AXIS)

    def states(inputs):
        return over_frames(lambda h, x: 0.5 * h + x, jnp.zeros((1, 3)), inputs, unrolled=False)

    inputs = jnp.asarray(RNG.normal(size=(2, 4, 3)), jnp.float32)
    got = jax.jit(jax.shard_map(states, mesh=mesh, in_specs=spec, out_specs=spec))(inputs)
    expected = np.stack([sum(0.5 ** (t - s) * inputs[:, s] for s in range(t + 1)) for t in range(4)], 1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
