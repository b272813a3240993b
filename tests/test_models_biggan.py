"""BigGAN's networks against a second implementation in numpy, in float64, and the sizes of the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.layers.self_attention import SelfAttention
from gan_jax.models.biggan import Discriminator, Generator
from tests.numpy_residual import Layers, draw, relu

KEY = jax.random.key(0)
LABELS = np.int32([0, 1, 2, 2, 1, 0])
CIFAR = {"num_classes": 10, "resolution": 32, "width": 64}  # of both players
PLAIN = {"shared_size": 0, "skip_z": False, "latent_size": 128}


def _generate(variables, z, label, train, *, base, skip_z, shared):
    net = Layers(variables["params"], variables["spectral"], variables["batch_stats"], train)
    parts = np.split(z, 3, -1) if skip_z else [z]
    classes = [] if label is None else [np.eye(3)[label]]
    classes = [net.dense(classes[0], "embed")] if shared else classes
    x = net.dense(parts[0], "stem").reshape(len(z), *base, -1)
    for i in range(2):
        vectors = [*classes, *parts[i + 1 : i + 2]]
        x = net[f"block{i}"].up(x, np.concatenate(vectors, -1) if vectors else None)
        x = net["attention"].attend(x) if x.shape[1] == 4 and "attention" in net.params else x
    return np.tanh(net.conv(relu(net.norm(x, "norm")), "image"))


@pytest.mark.parametrize(("options", "classes"), [
    ({"attention": 4, "shared_size": 4}, 3),
    ({"shared_size": 0, "skip_z": False}, 3),
    ({"shared_size": 0, "spectral_norm": False}, 0),
    ({"skip_z": False, "shared_size": 0}, 0),
])  # fmt: skip
@pytest.mark.parametrize("train", [True, False])
def test_the_generator_is_that_of_the_paper(options, classes, train):
    sizes = {"resolution": (8, 16), "channels": 2, "latent_size": 6, "widths": (8, 3), "num_classes": classes}
    net = Generator(**sizes, **options, dtype=jnp.float64)
    with jax.enable_x64(True):
        z, label = np.random.default_rng(1).normal(size=(6, 6)), LABELS if classes else None
        variables = draw(jax.eval_shape(lambda: net.init(KEY, z, label, train=True)))
        variables.setdefault("spectral", {})
        images, _ = net.apply(variables, z, label, train=train, mutable=["batch_stats", "spectral"])
    parts = {"skip_z": options.get("skip_z", True), "shared": options["shared_size"] > 0}
    expected = _generate(variables, z, label, train, base=(2, 4), **parts)
    assert images.shape == (6, 8, 16, 2) and images.dtype == jnp.float32
    np.testing.assert_allclose(images, expected, atol=2e-6)


@pytest.mark.parametrize(("options", "classes"), [({"attention": 8}, 3), ({"spectral_norm": False}, 0)])
def test_the_discriminator_is_that_of_the_paper(options, classes):
    """Its first block halves, the others keep the size; attention stands behind the first of that height alone."""
    sizes = {"resolution": (16, 8), "channels": 2, "widths": (4, 4, 3), "halvings": 1, "num_classes": classes}
    net = Discriminator(**sizes, **options, dtype=jnp.float64)
    with jax.enable_x64(True):
        x, label = np.random.default_rng(1).normal(size=(6, 16, 8, 2)), LABELS if classes else None
        variables = draw(jax.eval_shape(lambda: net.init(KEY, x, label, train=True)))
        logits, new = net.apply(variables, x, label, train=True, mutable=["spectral"])
        one = (x[2:3], label[2:3] if classes else None)
        alone = net.apply(variables, *one, train=True, mutable=["spectral"])[0]
    layers = Layers(variables["params"], variables.get("spectral"))
    assert ("attention" in layers.params) == ("attention" in options)
    for i in range(3):
        x = layers[f"block{i}"].down(x, first=i == 0, halves=i == 0)
        x = layers["attention"].attend(x) if i == 0 and "attention" in options else x
    expected = layers.logits(x, np.eye(3)[LABELS] if classes else None)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alone, logits[2:3], rtol=1e-6)  # as `couples_samples` says
    assert all(np.linalg.norm(u) == pytest.approx(1) for u in jax.tree.leaves(new))
    assert net.layers() == ("block0", "block1", "block2")


@pytest.mark.parametrize(("net", "size"), [
    # tests of google/compare_gan, whose BigGAN is the paper's at 128 px with 1,000 classes
    (Generator(num_classes=1000, attention=64), 70_433_988),
    (Discriminator(num_classes=1000, attention=64), 87_982_370),
    # notes in the authors' release; with both players the 81.5 and 173.5 millions of the paper's table 1
    (Generator(num_classes=1000, attention=64, **PLAIN), 85_556_164),
    (Generator(num_classes=1000, attention=64, **PLAIN, width=64), 42_017_412),
    (Discriminator(num_classes=1000, attention=64, width=64), 39_448_258),
    # sums over the layers: 4.3 millions, as the authors' release counts for CIFAR-10
    (Generator(**CIFAR, **PLAIN), 128 * 4096 + 4096 + 3 * (2 * (9 * 256**2 + 256) + 256**2 + 256 + 4 * 10 * 256)
     + 2 * 256 + 9 * 256 * 3 + 3),
    (Discriminator(**CIFAR), 9 * 3 * 256 + 256 + 3 * 256 + 256 + 7 * (9 * 256**2 + 256) + 256**2 + 256 + 257 + 2560),
])  # fmt: skip
def test_the_networks_have_the_published_numbers_of_parameters(net, size):
    x = jnp.zeros((1, net.latent_size) if isinstance(net, Generator) else (1, net.resolution, net.resolution, 3))
    shapes = jax.eval_shape(lambda: net.init(KEY, x, jnp.zeros((1,), jnp.int32), train=True)["params"])
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == size


def test_the_table_of_64_pixels_doubles_four_times_and_halves_four_times():
    net = Generator(resolution=64, width=1)
    images, made = jax.eval_shape(lambda: net.init_with_output(KEY, jnp.zeros((2, 120)), train=True))
    assert images.shape == (2, 64, 64, 3) and made["params"]["stem"]["kernel"].shape == (24, 4 * 4 * 16)
    net = Discriminator(resolution=64, width=1)
    shapes = jax.eval_shape(lambda: net.init(KEY, jnp.zeros((2, 64, 64, 3)), train=True)["params"])
    assert [shapes[f"block{i}"]["conv1"]["kernel"].shape[-1] for i in range(5)] == [1, 2, 4, 8, 16]
    assert net._levels() == (1, 2, 3, 4, 4)


def test_initial_weights_are_orthogonal_or_normal():
    sizes = {"resolution": 8, "latent_size": 6, "widths": (8, 4), "num_classes": 3}
    arguments = jnp.zeros((2, 6)), jnp.zeros((2,), jnp.int32)
    params = jax.jit(lambda: Generator(**sizes).init(KEY, *arguments, train=True))()["params"]
    matrices = [leaf.reshape(-1, leaf.shape[-1]) for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    assert len(matrices) == 1 + 1 + 2 * (3 + 2 * 2) + 1
    for matrix in matrices:
        tall = matrix if len(matrix) >= matrix.shape[1] else matrix.T
        np.testing.assert_allclose(tall.T @ tall, np.eye(tall.shape[1]), atol=1e-5)
    net = Discriminator(resolution=8, widths=(32, 32), halvings=1, initializer="normal")
    params = jax.jit(lambda: net.init(KEY, jnp.zeros((2, 8, 8, 3)), train=True))()["params"]
    assert float(params["block1"]["conv1"]["kernel"].std()) == pytest.approx(0.02, rel=0.05)


def test_attention_begins_as_the_identity_and_its_gradient_is_finite_differences():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8))
    with jax.enable_x64(True):
        net = SelfAttention(weights={"dtype": jnp.float64})
        fresh = net.init(KEY, x, True)
        np.testing.assert_array_equal(net.apply(fresh, x, True), x)
        arguments = jax.tree.map(jnp.asarray, (draw(jax.eval_shape(lambda: fresh))["params"], x))

        def total(params, x):
            return jnp.sum(jnp.sin(net.apply({"params": params}, x, True)))

        rng = np.random.default_rng(1)
        way = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), arguments)
        slopes = jax.tree.map(jnp.vdot, jax.grad(total, (0, 1))(*arguments), way)
        ends = [total(*jax.tree.map(lambda a, b, h=h: a + h * b, arguments, way)) for h in (1e-6, -1e-6)]
        np.testing.assert_allclose(sum(jax.tree.leaves(slopes)), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Generator(resolution=48), "resolution 48: the model 'biggan' has blocks for sides of 32, 64, 128"),
        (lambda: Discriminator(resolution=(32, 64)), r"\(32, 64\): the model 'biggan' has blocks for sides of"),
        (lambda: Generator(resolution=20, widths=(8, 8, 8), latent_size=8), "20: expected multiples of 8, for 3 halv"),
        (lambda: Discriminator(resolution=6, widths=(8, 8), halvings=2), "resolution 6: expected multiples of 4"),
        (lambda: Discriminator(widths=(8, 8), halvings=3), "halvings=3: expected 0 to 2, the number of widths"),
        (lambda: Generator(latent_size=128), "latent_size=128: expected a multiple of 6, for a part of z for the stem"),
        (lambda: Generator(attention=48), "attention=48: expected 0 or one of this network's even heights, 8, 16"),
        (lambda: Discriminator(attention=128), "attention=128: expected 0 or one of this network's even heights, 4, 8"),
        (lambda: Generator(initializer="zeros"), "initializer 'zeros' is unknown; expected one of orthogonal, normal"),
        (lambda: Generator(widths=(8, 0)), r"widths=\(8, 0\): expected numbers of 1 or more"),
        (lambda: Generator(latent="gaussian"), "latent 'gaussian' is unknown"),
        (lambda: Discriminator(width=0), "width=0: expected 1 or more"),
    ],
)
def test_what_cannot_be_built(make, message):
    with pytest.raises(UserError, match=message):
        make()
