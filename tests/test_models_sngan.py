"""SNGAN's networks against a second implementation in numpy, in float64, and the sizes of the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models.sngan import Discriminator, Generator

KEY = jax.random.key(0)


def _draw(shapes):
    """Values of the given shapes, of unit size, so that every parameter matters; variances are positive."""
    rng = np.random.default_rng(0)
    return jax.tree.map_with_path(
        lambda path, x: np.abs(rng.normal(size=x.shape)) + 0.5 if path[-1].key == "var" else rng.normal(size=x.shape),
        shapes,
    )


def _conv(x, layer, scale=1.0):
    """Correlation of x (B, H, W, I) at its own size with a 3x3 or 1x1 kernel, by summing over shifts."""
    kernel = layer["kernel"] / scale
    reach = kernel.shape[0] // 2
    h, w = x.shape[1:3]
    x = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    shifted = [x[:, i : i + h, j : j + w] @ kernel[i, j] for i, j in np.ndindex(*kernel.shape[:2])]
    return sum(shifted) + layer["bias"]


def _double(x):
    return x.repeat(2, 1).repeat(2, 2)


def _halve(x):
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def _generate(params, running, z, base, train):
    def norm(x, layer, statistics):
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (statistics["mean"], statistics["var"])
        return np.maximum((x - mean) / np.sqrt(var + 1e-5) * layer["scale"] + layer["bias"], 0)

    x = (z @ params["stem"]["kernel"] + params["stem"]["bias"]).reshape(len(z), *base, -1)
    for name in ("block0", "block1"):
        block, statistics = params[name], running[name]
        y = _conv(_double(norm(x, block["norm0"], statistics["norm0"])), block["conv0"])
        y = _conv(norm(y, block["norm1"], statistics["norm1"]), block["conv1"])
        x = y + _conv(_double(x), block["skip"])
    return np.tanh(_conv(norm(x, params["norm"], running["norm"]), params["image"]))


def _judge(params, vectors, x, halvings):
    def sigma(layer, u):
        """The estimate after one power iteration from u, Miyato et al. 2018, algorithm 1."""
        matrix = layer["kernel"].reshape(-1, layer["kernel"].shape[-1]).T
        v = matrix.T @ u / np.linalg.norm(matrix.T @ u)
        u = matrix @ v / np.linalg.norm(matrix @ v)
        return u @ matrix @ v

    def conv(x, block, name):
        return _conv(x, params[block][name], sigma(params[block][name], vectors[block][name]["u"]))

    for i in range(3):
        name = f"block{i}"
        y = conv(np.maximum(x, 0) if i else x, name, "conv0")
        y = conv(np.maximum(y, 0), name, "conv1")
        y = _halve(y) if i < halvings else y
        if "skip" in params[name]:
            x = conv(x, name, "skip")
        x = y + (_halve(x) if i < halvings else x)
    head, u = params["head"], vectors["head"]["u"]
    return (np.maximum(x, 0).sum((1, 2)) @ head["kernel"] / sigma(head, u) + head["bias"])[:, 0]


@pytest.mark.parametrize("train", [True, False])
def test_the_generator_is_that_of_the_paper(train):
    net = Generator(resolution=(8, 12), channels=2, latent_size=5, widths=(4, 3), dtype=jnp.float64)
    with jax.enable_x64(True):
        z = np.random.default_rng(1).normal(size=(6, 5))
        variables = _draw(jax.eval_shape(lambda: net.init(KEY, z, train=True)))
        images, new = net.apply(variables, z, train=train, mutable=["batch_stats"])
    expected = _generate(variables["params"], variables["batch_stats"], z, (2, 3), train)
    assert images.shape == (6, 8, 12, 2) and images.dtype == jnp.float32
    np.testing.assert_allclose(images, expected, atol=1e-6)  # of the last rounding to float32
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(variables["batch_stats"]), strict=True)
    moved = [not np.allclose(a, b, rtol=1e-6) for a, b in pairs]
    assert moved == [train] * len(moved)


def test_the_discriminator_is_that_of_the_paper():
    """The second block halves and keeps its width, the third changes its width alone."""
    net = Discriminator(resolution=(8, 12), channels=2, widths=(4, 4, 3), halvings=2, dtype=jnp.float64)
    with jax.enable_x64(True):
        x = np.random.default_rng(1).normal(size=(6, 8, 12, 2))
        variables = _draw(jax.eval_shape(lambda: net.init(KEY, x, train=True)))
        logits, new = net.apply(variables, x, train=True, mutable=["spectral"])
        alone = net.apply(variables, x[2:3], train=True, mutable=["spectral"])[0]
    assert {name for name, block in variables["params"].items() if "skip" in block} == {"block0", "block1", "block2"}
    np.testing.assert_allclose(logits, _judge(variables["params"], variables["spectral"], x, 2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(alone, logits[2:3], rtol=1e-6)  # as `couples_samples` says
    assert all(np.linalg.norm(u) == pytest.approx(1) for u in jax.tree.leaves(new))


def test_the_networks_for_cifar10_have_the_published_layers():
    """Sums of kernel * in * out over the paper's table, with a bias each, and scale and offset of each norm."""

    def conv(k, i, o):
        return k * k * i * o + o

    inputs = ((Generator(), jnp.zeros((1, 128))), (Discriminator(), jnp.zeros((1, 32, 32, 3))))
    shapes = [jax.eval_shape(lambda net=net, x=x: net.init(KEY, x, train=True)["params"]) for net, x in inputs]
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in shapes]
    up = 2 * conv(3, 256, 256) + conv(1, 256, 256) + 2 * 2 * 256
    assert sizes[0] == conv(1, 128, 4 * 4 * 256) + 3 * up + 2 * 256 + conv(3, 256, 3) == 4_276_739
    first = conv(3, 3, 128) + conv(3, 128, 128) + conv(1, 3, 128)
    others = 6 * conv(3, 128, 128) + conv(1, 128, 128)
    assert sizes[1] == first + others + conv(1, 128, 1) == 1_053_825
    assert [name for name, block in shapes[1].items() if "skip" in block] == ["block0", "block1"]


def test_initial_weights_are_glorots_and_wider_inside_blocks():
    net = Discriminator(widths=(64, 64), halvings=1)
    params = jax.jit(lambda: net.init(KEY, jnp.zeros((1, 32, 32, 3)), train=True))()["params"]
    inside = params["block1"]["conv0"]["kernel"]
    assert float(jnp.abs(inside).max()) == pytest.approx((2 * 6 / (2 * 9 * 64)) ** 0.5, rel=1e-2)
    skip = params["block0"]["skip"]["kernel"]
    assert float(jnp.abs(skip).max()) == pytest.approx((6 / (3 + 64)) ** 0.5, rel=5e-2)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Generator(resolution=20), "resolution 20: expected multiples of 8"),
        (lambda: Discriminator(resolution=(32, 30)), r"\(32, 30\): expected multiples of 4"),
        (lambda: Discriminator(halvings=5), "halvings=5: expected 0 to 4"),
        (lambda: Generator(num_classes=10), "num_classes=10: the model 'sngan' takes no labels"),
        (lambda: Discriminator(num_classes=10), "takes no labels"),
        (lambda: Generator(widths=()), r"widths=\(\): expected one number"),
        (lambda: Generator(latent="gaussian"), "latent 'gaussian' is unknown; expected one of normal, uniform"),
    ],
)
def test_what_cannot_be_built(make, message):
    with pytest.raises(UserError, match=message):
        make()
