"""SNGAN's networks against a second implementation in numpy, in float64, and the sizes of the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models.sngan import Discriminator, Generator
from tests.numpy_residual import Layers, draw, relu

KEY = jax.random.key(0)
LABELS = np.int32([0, 1, 2, 2, 1, 0])


def _generate(variables, z, base, train, classes=None):
    net = Layers(variables["params"], running=variables["batch_stats"], train=train)
    x = net.dense(z, "stem").reshape(len(z), *base, -1)
    for name in ("block0", "block1"):
        x = net[name].up(x, classes)
    return np.tanh(net.conv(relu(net.norm(x, "norm")), "image"))


def _judge(variables, x, halvings, classes=None):
    net = Layers(variables["params"], variables["spectral"])
    for i in range(3):
        x = net[f"block{i}"].down(x, first=i == 0, halves=i < halvings)
    return net.logits(x, classes)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("train", [True, False])
def test_the_generator_is_that_of_the_paper(train, classes):
    options = {"resolution": (8, 12), "channels": 2, "latent_size": 5, "widths": (4, 3), "num_classes": classes}
    net = Generator(**options, dtype=jnp.float64)
    with jax.enable_x64(True):
        z, label = np.random.default_rng(1).normal(size=(6, 5)), LABELS if classes else None
        variables = draw(jax.eval_shape(lambda: net.init(KEY, z, label, train=True)))
        images, new = net.apply(variables, z, label, train=train, mutable=["batch_stats"])
    expected = _generate(variables, z, (2, 3), train, np.eye(3)[LABELS] if classes else None)
    assert images.shape == (6, 8, 12, 2) and images.dtype == jnp.float32
    np.testing.assert_allclose(images, expected, atol=1e-6)  # of the last rounding to float32
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(variables["batch_stats"]), strict=True)
    moved = [not np.allclose(a, b, rtol=1e-6) for a, b in pairs]
    assert moved == [train] * len(moved)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_discriminator_is_that_of_the_paper(classes):
    """The second block halves and keeps its width, the third changes its width alone."""
    options = {"resolution": (8, 12), "channels": 2, "widths": (4, 4, 3), "halvings": 2, "num_classes": classes}
    net = Discriminator(**options, dtype=jnp.float64)
    with jax.enable_x64(True):
        x, label = np.random.default_rng(1).normal(size=(6, 8, 12, 2)), LABELS if classes else None
        variables = draw(jax.eval_shape(lambda: net.init(KEY, x, label, train=True)))
        logits, new = net.apply(variables, x, label, train=True, mutable=["spectral"])
        one = (x[2:3], label[2:3] if classes else None)
        alone = net.apply(variables, *one, train=True, mutable=["spectral"])[0]
    assert {name for name, block in variables["params"].items() if "skip" in block} == {"block0", "block1", "block2"}
    expected = _judge(variables, x, 2, np.eye(3)[LABELS] if classes else None)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
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


def test_labels_add_tables_of_scales_and_offsets_and_take_those_of_the_norms():
    """Six norms inside blocks have 2 * 10 * 256 numbers for 2 * 256, and the discriminator a vector of each class."""
    inputs = ((Generator, jnp.zeros((1, 128))), (Discriminator, jnp.zeros((1, 32, 32, 3))))
    label, sizes = jnp.zeros((1,), jnp.int32), []
    for net, x in inputs:
        shapes = jax.eval_shape(lambda net=net, x=x: net(num_classes=10).init(KEY, x, label, train=True)["params"])
        sizes.append(sum(x.size for x in jax.tree.leaves(shapes)))
    assert sizes == [4_276_739 + 6 * 9 * 2 * 256, 1_053_825 + 10 * 128]


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
        (lambda: Generator(widths=()), r"widths=\(\): expected one number"),
        (lambda: Generator(latent="gaussian"), "latent 'gaussian' is unknown; expected one of normal, uniform"),
    ],
)
def test_what_cannot_be_built(make, message):
    with pytest.raises(UserError, match=message):
        make()
