"""ProGAN's networks against recorded numbers of the official code; growing, sizes and labels."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.layers.rescale import downscale, upscale
from gan_jax.models.progan import Discriminator, Generator
from tests import golden_growing as golden

FILES = ("progan_a_fused0", "progan_a_fused1", "progan_b_fused0", "progan_b_fused1")
LODS = (0.0, 0.5, 1.0, 1.25, 2.0, 3.0)


@functools.cache
def recorded(name):
    """(arrays, generator, discriminator, their parameters, labels or None)."""
    npz, meta = golden.load(name)
    fused = meta["G_kwargs"]["fused_scale"]
    generator = Generator(**golden.fields(meta["G_kwargs"], latent_size=meta["latent_dim"], fused_scale=fused))
    discriminator = Discriminator(**golden.fields(meta["D_kwargs"], fused_scale=fused))
    params = golden.tree(npz, "params/G/"), golden.tree(npz, "params/D/")
    if fused:
        params = golden.transposed(params[0]), params[1]
    return npz, generator, discriminator, params, npz["in/labels"] if generator.num_classes else None


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", FILES)
def test_images_at_every_lod(name):
    npz, generator, _, (params, _), labels = recorded(name)
    draw = jax.jit(lambda lod: generator.apply({"params": params}, npz["in/latents"], labels, train=False, lod=lod))
    for lod in LODS:
        golden.assert_close(draw(lod), nhwc(npz[f"out/G_images_lod{lod}"]), 1e-4, f"lod {lod}")


@pytest.mark.parametrize("name", FILES)
def test_scores_and_class_logits_at_every_lod(name):
    npz, _, discriminator, (_, params), labels = recorded(name)
    order = golden.strided_to_neighbours(len(npz["in/reals"]), 4)
    images = nhwc(npz["in/reals"])[order]
    judge = jax.jit(lambda lod: discriminator.apply({"params": params}, images, lod=lod, method="heads"))
    for lod in LODS:
        scores, classes = judge(lod)
        golden.assert_close(scores, npz[f"out/D_scores_lod{lod}"][order, 0], 1e-5, f"lod {lod}")
        assert classes.shape == (len(order), 0 if labels is None else 5)
        if labels is not None:
            golden.assert_close(classes, npz[f"out/D_labels_lod{lod}"][order], 1e-5, f"lod {lod}")


@pytest.mark.parametrize("lod", (1.25, 2.0))
def test_a_static_level_computes_the_same_at_its_own_size(lod):
    npz, generator, discriminator, (of_g, of_d), labels = recorded("progan_b_fused1")
    level = int(lod)
    images = generator.apply({"params": of_g}, npz["in/latents"], labels, train=False, lod=lod, level=level)
    assert images.shape[1:3] == (32 >> level, 32 >> level)
    golden.assert_close(upscale(images, 2**level), nhwc(npz[f"out/G_images_lod{lod}"]), 1e-4)
    small = downscale(nhwc(npz["in/reals"]), 2**level)
    scores = discriminator.apply({"params": of_d}, small, train=True, lod=lod, level=level)
    golden.assert_close(scores, npz[f"out/D_scores_lod{lod}"][:, 0], 1e-5)


@pytest.mark.parametrize("fused", (False, True))
def test_a_fade_begins_exactly_at_the_previous_stage(fused):
    generator = Generator(resolution=16, channels=1, latent_size=3, feature_base=16, feature_max=4, fused_scale=fused)
    discriminator = Discriminator(resolution=16, channels=1, feature_base=16, feature_max=4, fused_scale=fused)
    z, x = jax.random.normal(jax.random.key(0), (4, 3)), jax.random.normal(jax.random.key(1), (4, 16, 16, 1))
    of_g = jax.jit(lambda: generator.init(jax.random.key(2), z, train=True))()
    of_d = jax.jit(lambda: discriminator.init(jax.random.key(3), x, train=True))()
    before = generator.apply(of_g, z, train=True, level=1)
    after = generator.apply(of_g, z, train=True, level=0, lod=jnp.float32(1))
    np.testing.assert_array_equal(after, upscale(before))
    small = downscale(x)
    np.testing.assert_array_equal(
        discriminator.apply(of_d, x, train=True, level=0, lod=jnp.float32(1)),
        discriminator.apply(of_d, small, train=True, level=1),
    )
    np.testing.assert_array_equal(
        generator.apply(of_g, z, train=True, level=0, lod=jnp.float32(0)), generator.apply(of_g, z, train=True, level=0)
    )


@pytest.mark.parametrize("size", (1024, 256))
@pytest.mark.parametrize("fused", (False, True))
def test_full_size_parameter_counts_are_the_official_ones(size, fused):
    counts = json.loads((golden.GOLDEN / "growing_param_counts.json").read_text())[f"progan_{size}_fused{int(fused)}"]
    inputs = {"G": (Generator, (2, 512)), "D": (Discriminator, (2, size, size, 3))}
    for net, (constructor, shape) in inputs.items():
        init = functools.partial(constructor(resolution=size, fused_scale=fused).init, train=True)
        variables = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
        assert sum(x.size for x in jax.tree.leaves(variables)) == counts[net]


@pytest.mark.parametrize("size, channels", (((24, 32), 4), ((8, 16), 1), ((10, 14), 2)))
def test_other_sizes_and_channels(size, channels):
    common = {"resolution": size, "channels": channels, "num_classes": 3, "feature_base": 8, "feature_max": 2}
    generator, discriminator = Generator(**common, latent_size=4), Discriminator(**common)
    z, label, hot = jnp.ones((2, 4)), jnp.array([0, 2]), jnp.array([[1.0, 0, 0], [0, 0, 1]])

    @jax.jit
    def play():
        params = generator.init(jax.random.key(0), z, label, train=True)
        images = generator.apply(params, z, label, train=True), generator.apply(params, z, hot, train=True)
        params = discriminator.init(jax.random.key(1), images[0], train=True)
        heads = discriminator.apply(params, images[0], method="heads")
        return images, heads, discriminator.apply(params, images[0], label, train=True)

    images, (logits, classes), alone = play()
    assert images[0].shape == (2, *size, channels) and np.isfinite(images[0]).all()
    np.testing.assert_allclose(*images, rtol=1e-3, atol=1e-3)  # one program may add up each of its parts differently
    assert logits.shape == (2,) and classes.shape == (2, 3) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, alone, rtol=1e-3, atol=1e-3)


def test_low_precision_keeps_parameters_and_outputs_wide():
    generator = Generator(resolution=8, latent_size=4, feature_base=8, dtype=jnp.bfloat16)
    images, params = jax.eval_shape(lambda: generator.init_with_output(jax.random.key(0), jnp.ones((2, 4)), train=True))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert images.dtype == jnp.float32


LOW = {"resolution": 8, "channels": 1, "feature_base": 64, "feature_max": 8, "num_bf16_res": 1}


def check_low_precision(generator, discriminator):
    """The layers of the highest resolution alone are in bfloat16; images and logits are a little off, and float32.

    For either growing model with the fields of LOW and latents of 4; a resolution's image layer counts to it.
    """
    rng = np.random.default_rng(0)
    for net, inputs in ((generator, rng.normal(size=(4, 4))), (discriminator, rng.normal(size=(4, 8, 8, 1)))):
        inputs = np.float32(inputs)
        _, shapes = jax.eval_shape(lambda net=net, inputs=inputs: net.init_with_output(
            jax.random.key(0), inputs, train=True, capture_intermediates=True, mutable=True))  # fmt: skip
        seen = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes.pop("intermediates")):
            names = [part.key for part in path if hasattr(part, "key") and part.key[:4] in ("base", "4x4_", "8x8_")]
            seen |= {name: leaf.dtype for name in names if not name.endswith("_style")}
        assert {"base_conv", "8x8_conv0", "8x8_conv1"} < seen.keys()
        low = {name for name, dtype in seen.items() if dtype == jnp.bfloat16}
        assert low == {name for name in seen if name.startswith("8x8")}
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes["params"])} == {jnp.dtype("float32")}

        filled = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)
        both = net.copy(num_bf16_res=0), net
        play = jax.jit(lambda v, x, both=both: [one.apply(v, x, train=False, lod=jnp.float32(0.25)) for one in both])
        full, low = play(filled, inputs)
        assert low.dtype == jnp.float32
        assert 1e-6 < np.abs(full - low).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize("fused", (False, True))
def test_the_highest_resolutions_in_bfloat16(fused):
    check_low_precision(Generator(**LOW, latent_size=4, fused_scale=fused), Discriminator(**LOW, fused_scale=fused))


def test_images_below_four_pixels_are_refused():
    with pytest.raises(UserError, match="sides of 4 or more"):
        Generator(resolution=(3, 8))
