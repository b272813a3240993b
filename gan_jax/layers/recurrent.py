"""Recurrences over the frames of clips: gated recurrent units of vectors and of maps, and the loop that plays them."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.layers.channels import along_channels, varying_axes
from gan_jax.layers.conv import conv
from gan_jax.layers.linear import Weights


def over_frames(
    step: Callable[[jax.Array, jax.Array], jax.Array],  # (state, what enters at a frame) -> the next state
    state: jax.Array,  # (B, ...), before the first frame
    inputs: jax.Array,  # (B, T, ...)
    *,
    unrolled: bool | None = None,  # None: where the platform gains by it
) -> jax.Array:
    """All states of a recurrence, (B, T, ...).

    XLA:CPU computes convolutions inside of a loop many times slower than outside, so there the frames are written out
    one by one. Elsewhere they are a loop, of a small program, whose inner values are computed anew for the derivatives.
    Both have the same values up to rounding, so the platform may be that of the process, not of the program.
    """
    if unrolled is None:
        unrolled = jax.default_backend() == "cpu"
    if unrolled:
        states = []
        for frame in range(inputs.shape[1]):
            state = step(state, inputs[:, frame])
            states.append(state)
        return jnp.stack(states, 1)
    if missing := tuple(varying_axes(inputs) - varying_axes(state)):  # a loop's state has one type in all its rounds
        state = lax.pcast(state, missing, to="varying")

    @jax.checkpoint
    def body(state, entering):
        state = step(state, entering)
        return state, state

    return jnp.moveaxis(lax.scan(body, state, jnp.moveaxis(inputs, 1, 0))[1], 0, 1)


class GRU(nn.Module):
    """Gated recurrent unit (Cho et al. 2014, 1406.1078): state (B, N), inputs (B, T, I) -> all states (B, T, N).

    As PyTorch's GRUCell:
    r, z = s(W x + b + U h + c); n = tanh(W x + b + r (U h + c)); h' = (1 - z) n + z h, each with its own rows of the
    kernels, in the order r, z, n.
    """

    axis_name: str | None = None  # unused: no weight is normalised

    @nn.compact
    def __call__(self, state: jax.Array, inputs: jax.Array, train: bool = False) -> jax.Array:
        size = state.shape[-1]
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(-1, 1) / sqrt(fan in)
        of_input, bias = Weights((inputs.shape[-1], 3 * size), kernel_init=init, name="input")(train)
        of_state, offset = Weights((size, 3 * size), kernel_init=init, name="state")(train)
        entering = inputs @ of_input
        entering = entering + along_channels(bias, entering)

        def step(h, x):
            own = h @ of_state
            own = own + along_channels(offset, own)
            reset, update = jnp.split(nn.sigmoid(x[:, : 2 * size] + own[:, : 2 * size]), 2, -1)
            new = nn.tanh(x[:, 2 * size :] + reset * own[:, 2 * size :])
            return (1 - update) * new + update * h

        return over_frames(step, state, entering)


class ConvGRU(nn.Module):
    """Convolutional gated recurrent unit (Ballas et al. 2016, 1511.06432): state (B, h, w, N) -> all (B, T, h, w, N).

    r, u = s(W * [h, x] + b); c = relu(V * [r h, x] + d); h' = u h + (1 - u) c, as DVD-GAN has it (Clark et al. 2019,
    1907.06571, section 3.1), whose candidate is rectified. Inputs are (B, T, h, w, I), or (B, h, w, I), the same at all
    `frames`: what they add is then computed once.
    """

    frames: int
    spectral_norm: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    axis_name: str | None = None  # mesh axis over which the spectral vectors are kept equal

    @nn.compact
    def __call__(self, state: jax.Array, inputs: jax.Array, train: bool = False) -> jax.Array:
        size, entering = state.shape[-1], inputs.shape[-1]
        options = {"spectral_norm": self.spectral_norm, "kernel_init": self.kernel_init, "axis_name": self.axis_name}
        gates, bias = Weights((3, 3, size + entering, 2 * size), name="gates", **options)(train)
        candidate, offset = Weights((3, 3, size + entering, size), name="candidate", **options)(train)
        around = ((1, 1), (1, 1))
        of_inputs = jnp.concatenate([gates[:, :, size:], candidate[:, :, size:]], -1).astype(inputs.dtype)
        added = jnp.concatenate([bias, offset])
        x = conv(inputs.reshape(-1, *inputs.shape[-3:]), of_inputs, padding=around)
        x = (x + along_channels(added, x)).reshape(*inputs.shape[:-1], -1)
        if inputs.ndim == 4:
            x = jnp.broadcast_to(x[:, None], (x.shape[0], self.frames, *x.shape[1:]))
        gates, candidate = gates[:, :, :size].astype(x.dtype), candidate[:, :, :size].astype(x.dtype)

        def step(h, x):
            both = nn.sigmoid(x[..., : 2 * size] + conv(h, gates, padding=around))
            reset, keep = jnp.split(both, 2, -1)
            new = nn.relu(x[..., 2 * size :] + conv(reset * h, candidate, padding=around))
            return keep * h + (1 - keep) * new

        return over_frames(step, state.astype(x.dtype), x)
