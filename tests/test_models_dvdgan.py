"""DVD-GAN's networks against a second implementation in numpy, in float64; what does not fit them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models.dvdgan import Discriminator, Generator
from tests.numpy_residual import Layers, double, draw, halve, relu

KEY = jax.random.key(0)
LABELS = np.int32([2, 0])


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _recurrence(net, h, inputs):
    """All states of r, u = s(W * [h, x] + b), c = relu(V * [r h, x] + d), h' = u h + (1 - u) c; inputs (B, T, ...)."""
    states = []
    for x in np.moveaxis(inputs, 1, 0):
        r, u = np.split(_sigmoid(net.conv(np.concatenate([h, x], -1), "gates")), 2, -1)
        h = u * h + (1 - u) * relu(net.conv(np.concatenate([r * h, x], -1), "candidate"))
        states.append(h)
    return np.stack(states, 1)


def _block(net, x, condition, up):
    sized = double if up else lambda x: x
    y = net.conv(sized(relu(net.norm(x, "norm0", condition))), "conv0")
    y = net.conv(relu(net.norm(y, "norm1", condition)), "conv1")
    return y + sized(net.conv(x, "skip") if "skip" in net.params else x)


def _generate(variables, z, label, context, train, *, widths, still, blocks, frames, base, shared=0):
    net = Layers(variables["params"], variables["spectral"], variables["batch_stats"], train)
    condition = np.concatenate([z, np.eye(3)[label] @ net.params["embed"]["kernel"]], -1) if label is not None else z
    doubled, states = len(widths) - still, {}
    if context is not None:
        maps = [context[:, t] for t in range(context.shape[1])]
        for i in reversed(range(shared, len(widths))):
            maps = [net[f"context{i}"].down(x, first=i == len(widths) - 1, halves=i < doubled) for x in maps]
            states[i] = relu(net.conv(relu(np.concatenate(maps, -1)), f"state{i}"))
    x = net.dense(condition, "stem").reshape(len(z), *base, -1)
    for i, width in enumerate(widths):
        if i == shared:
            begin = relu(net.conv(relu(x), "begin")) if shared and not states else np.zeros((*x.shape[:3], width))
            x, condition = x[:, None].repeat(frames, 1), condition.repeat(frames, 0)
        elif i > shared:
            x = x.reshape(-1, frames, *x.shape[1:])
            begin = np.zeros((len(z), *x.shape[2:4], width))
        if i >= shared:
            x = _recurrence(net[f"recurrence{i}"], states.get(i, begin), x)
            x = x.reshape(-1, *x.shape[2:])
        for j in range(blocks):
            x = _block(net[f"block{i}_{j}"], x, condition, j == blocks - 1 and i < doubled)
    x = net.conv(relu(net.norm(x, "norm")), "image")
    return np.tanh(x).reshape(len(z), frames, *x.shape[1:])


@pytest.mark.parametrize(("options", "labelled", "given", "train"), [
    (dict(widths=(4, 3), still=0, blocks=2), True, 0, True),
    (dict(widths=(3, 2), still=1, blocks=1), False, 2, True),
    (dict(widths=(3, 2), still=1, blocks=1), True, 3, False),
    (dict(widths=(3, 2), still=1, shared=1, blocks=1), False, 0, True),
    (dict(widths=(3, 2), still=1, shared=1, blocks=1), False, 2, True),
])  # fmt: skip
def test_the_generator_is_that_of_the_paper(options, labelled, given, train):
    sizes = {"shape": (3, 8, 4, 2), "latent_size": 3, "embed_size": 2, "num_classes": 3 * labelled}
    net = Generator(**sizes, **options, dtype=jnp.float64)
    rng, label = np.random.default_rng(1), LABELS if labelled else None
    z, context = rng.normal(size=(2, 3)), rng.normal(size=(2, given, 8, 4, 2)) if given else None
    with jax.enable_x64(True):
        variables = draw(jax.eval_shape(lambda: net.init(KEY, z, label, context=context, train=True)))
        clips, _ = net.apply(variables, z, label, context=context, train=train, mutable=["batch_stats", "spectral"])
    halvings = 2 - options["still"]
    expected = _generate(variables, z, label, context, train, frames=3, base=(8 >> halvings, 4 >> halvings), **options)
    assert clips.shape == (2, 3, 8, 4, 2) and clips.dtype == jnp.float32
    np.testing.assert_allclose(clips, expected, atol=2e-6)


def _volume(net, x, *, first, halves):
    def conv(x, name):
        kernel, bias = net._weights(name)
        reach, (t, h, w) = kernel.shape[0] // 2, x.shape[1:4]
        x = np.pad(x, ((0, 0), *((reach, reach),) * 3, (0, 0)))
        shifts = np.ndindex(*kernel.shape[:3])
        return sum(x[:, i : i + t, j : j + h, k : k + w] @ kernel[i, j, k] for i, j, k in shifts) + bias

    def halved(x):
        x = np.stack([halve(frame) for frame in np.moveaxis(x, 1, 0)], 1)
        return (x[:, ::2] + x[:, 1::2]) / 2 if x.shape[1] % 2 == 0 else x

    y = conv(relu(conv(x if first else relu(x), "conv0")), "conv1")
    x = conv(x, "skip") if "skip" in net.params else x
    return halved(y) + halved(x) if halves else y + x


@pytest.mark.parametrize(("frames", "volumes", "classes"), [(3, 0, 3), (4, 2, 3), (3, 1, 0)])
def test_the_discriminator_sums_over_frames(frames, volumes, classes):
    """Without volumes over as many as there are; each halving of a volume halves an even number of them."""
    widths = (3, 3, 2)
    net = Discriminator(
        shape=(frames, 8, 4, 2), widths=widths, halvings=2, volumes=volumes, num_classes=classes, dtype=jnp.float64
    )
    x, label = np.random.default_rng(1).normal(size=(2, frames, 8, 4, 2)), LABELS if classes else None
    with jax.enable_x64(True):
        variables = draw(jax.eval_shape(lambda: net.init(KEY, x, label, train=True)))
        logits, _ = net.apply(variables, x, label, train=True, mutable=["spectral"])
    layers = Layers(variables["params"], variables["spectral"])
    for i in range(volumes):
        x = _volume(layers[f"block{i}"], x, first=i == 0, halves=i < 2)
    total = 0
    for frame in np.moveaxis(x, 1, 0):
        for i in range(volumes, len(widths)):
            frame = layers[f"block{i}"].down(frame, first=i == 0, halves=i < 2)
        total = total + layers.logits(frame, np.eye(3)[label] if classes else None)
    assert logits.shape == (2,) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("net", "fields", "message"), [
    (Generator, dict(shape=(8, 12, 16, 1), widths=(4, 4, 4)), "12x16 pixels: expected multiples of 8"),
    (Generator, dict(widths=()), "expected one number of 1 or more for each scale"),
    (Generator, dict(still=6), "still=6"),
    (Generator, dict(shared=5), "shared=5: expected 0 to 4"),
    (Generator, dict(shape=(16, 16, 1)), "'dvdgan' makes clips"),
    (Discriminator, dict(shape=(8, 20, 16, 1), widths=(4, 4, 4), halvings=3), "20x16 pixels: expected multiples of 8"),
    (Discriminator, dict(widths=(4, 4), halvings=0, volumes=3), "volumes=3: expected 0 to 2"),
    (Discriminator, dict(widths=(4, 0), halvings=0), "expected one number of 1 or more for each block"),
])  # fmt: skip
def test_what_does_not_fit_is_named(net, fields, message):
    with pytest.raises(UserError, match=message):
        net(**fields)
