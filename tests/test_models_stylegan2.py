"""StyleGAN2's networks, held against the official code's numbers and against closed forms."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import models
from gan_jax.errors import UserError
from gan_jax.interop import names
from gan_jax.models import blocks, mapping, stylegan2
from tests import golden_stylegan2 as golden

NETS = ("a_skip_resnet_uncond", "b_skip_skip_cond", "c_orig_orig_cond", "d_resnet_resnet_clamp")
TINY = dict(resolution=16, channel_base=64, channel_max=8)


@pytest.fixture(scope="module", params=NETS)
def played(request):
    """All that a recorded pair of networks computes, in one program."""
    npz, meta = golden.load(f"sg2_net_{request.param}")
    g, d = golden.generator(meta["G_kwargs"]), golden.discriminator(meta["D_kwargs"])
    of_g, of_d = golden.tree(npz, "params/G/"), golden.tree(npz, "params/D/")
    random = {
        ".".join(key.split(".")[-2:]).replace(".", "/"): value[:, 0]
        for key, value in npz.items()
        if key.startswith("in/noise_random/")
    }
    psi, cutoff = meta["truncation_psi"], meta["truncation_cutoff"]
    groups = golden.regroup(meta["batch"], d.mbstd_group)

    @jax.jit
    def compute(of_g, of_d, z, c, real, real_c, random):
        styles = partial(g.apply, of_g, z, c, method="mapping")
        image = partial(g.apply, of_g, method="synthesis")
        ws, cut = styles(), styles(psi=psi, cutoff=cutoff)
        _, moved = g.apply(of_g, z, c, train=True, mutable=["w_avg"], method="mapping")
        fake = image(ws)
        out = {
            "w": ws,
            "w_psi0.7": styles(psi=psi),
            "w_psi0.7_cutoff": cut,
            "img_const": fake,
            "img_none": image(ws, noise="none"),
            "img_random": image(ws, noise=random),
            "img_psi0.7_cutoff_const": image(cut),
            "w_avg_after_one_train_forward": moved["w_avg"]["mapping_network"]["w_avg"],
            "logits_fake": d.apply(of_d, fake[groups], c[groups]),
            "logits_real": d.apply(of_d, real[groups], real_c[groups]),
        }
        return out

    inputs = npz["in/z"], npz["in/c"], golden.images(npz["in/real_img"]), npz["in/real_c"], random
    ours = jax.device_get(compute(of_g, of_d, *inputs))
    for key in ("logits_fake", "logits_real"):
        npz[f"out/{key}"] = npz[f"out/{key}"][groups, 0]
    return npz, ours


def test_golden_forward(played):
    npz, ours = played
    for key, value in ours.items():
        theirs = npz[f"out/{key}"]
        theirs = golden.images(theirs) if theirs.ndim == 4 else theirs
        np.testing.assert_allclose(value, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max(), err_msg=key)


@pytest.mark.parametrize(
    ("config", "classes"), [("paper256/res256/c0", 0), ("cifar/res32/c10", 10), ("paper1024/res1024/c0", 0)]
)
def test_parameter_counts_and_sizes_are_the_official_ones(config, classes):
    npz, _ = golden.load("counts")
    for letter, build, inputs in (("G", golden.generator, 512), ("D", golden.discriminator, 0)):
        table = json.loads(str(npz[f"table/stylegan2-ada/{config}/{letter}"]))
        net = build({"img_channels": 3, **table["kwargs"]})
        x = jnp.zeros((2, 512)) if inputs else jnp.zeros((2, net.resolution, net.resolution, 3))
        shapes = jax.eval_shape(partial(net.init, train=True), jax.random.key(0), x, jnp.zeros((2,), jnp.int32))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == table["total_parameters"]
        for entry in table["parameters"]:
            dummy = np.broadcast_to(np.float32(0), entry["shape"])
            (_, path), value = names.stylegan(entry["name"], dummy)
            node = shapes["params"]
            for part in path:
                node = node[part]
            assert node.shape == value.shape, entry["name"]


def test_initial_values_have_the_official_deviations():
    """Of the cifar configuration's table, with narrower networks; its discriminator maps labels through 8 layers."""
    npz, _ = golden.load("counts")
    config = {"num_classes": 10, "channel_base": 512, "channel_max": 32, "resolution": 32}
    g = stylegan2.Generator(**config, latent_size=32, w_size=32, mapping_layers=2)
    d = stylegan2.Discriminator(**config, architecture="orig")
    label = jnp.zeros((2,), jnp.int32)
    by_letter = {
        "G": jax.jit(partial(g.init, train=True))(jax.random.key(0), jnp.zeros((2, 32)), label),
        "D": jax.jit(d.init)(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), label),
    }
    assert not np.any(by_letter["G"]["w_avg"]["mapping_network"]["w_avg"])
    for letter, variables in by_letter.items():
        for entry in json.loads(str(npz[f"table/stylegan2-ada/cifar/res32/c10/{letter}"]))["parameters"]:
            (_, path), _ = names.stylegan(entry["name"], np.broadcast_to(np.float32(0), entry["shape"]))
            leaf = variables["params"]
            for part in path:
                leaf = leaf[part]
            if entry["init_std"] == 0:
                np.testing.assert_array_equal(leaf, np.full(leaf.shape, entry["init_mean"]), entry["name"])
            else:
                assert np.std(leaf) == pytest.approx(entry["init_std"], rel=5 / leaf.size**0.5), entry["name"]


def test_images_that_are_not_square_with_labels_of_any_form():
    size = dict(resolution=(16, 24), channels=4, num_classes=3, channel_base=64, channel_max=8, mapping_layers=1)
    g = stylegan2.Generator(**size, latent_size=4, w_size=4)
    d = stylegan2.Discriminator(**size, architecture="skip")
    label = jnp.array([0, 2, 1, 1])

    @jax.jit
    def play(key):
        of_g = g.init(key, jnp.ones((4, 4)), label, train=True)
        x = g.apply(of_g, jax.random.normal(key, (4, 4)), label, train=False)
        of_d = d.init(key, x, label)
        hot = [jax.nn.one_hot(label, 3), jax.nn.one_hot(label, 3).at[0, 1].set(1)]
        return x, [d.apply(of_d, x, c) for c in (label, *hot)], of_g

    x, (logits, same, other), of_g = play(jax.random.key(0))
    assert x.shape == (4, 16, 24, 4) and x.dtype == jnp.float32
    assert set(of_g["params"]["synthesis_network"]) == {"b4x6", "b8x12", "b16x24"}
    np.testing.assert_allclose(logits, same, rtol=1e-6)
    assert not np.isclose(logits[0], other[0]) and np.all(np.isfinite(other))


def test_low_precision_is_close_to_full_and_keeps_float32_where_it_matters():
    options = dict(TINY, conv_clamp=256.0)
    g, d = stylegan2.Generator(**options, latent_size=8, w_size=8), stylegan2.Discriminator(**options)
    low_g, low_d = g.copy(num_bf16_res=4), d.copy(num_bf16_res=4)

    @jax.jit
    def play(key):
        z = jax.random.normal(key, (4, 8))
        of_g, of_d = g.init(key, z, train=True), d.init(key, jnp.zeros((4, 16, 16, 3)))
        x, low = (net.apply(of_g, z, train=False) for net in (g, low_g))
        return x, low, d.apply(of_d, x), low_d.apply(of_d, x)

    x, low, logits, low_logits = play(jax.random.key(1))
    assert low.dtype == low_logits.dtype == jnp.float32
    assert 1e-5 < np.abs(x - low).max() < 0.05 * np.abs(x).max()
    assert 1e-6 < np.abs(logits - low_logits).max() < 0.05 * max(1.0, np.abs(logits).max())


def test_a_sample_does_not_depend_on_its_neighbours():
    g = stylegan2.Generator(**TINY, latent_size=4, w_size=4, mapping_layers=1)
    keys = jax.random.split(jax.random.key(3), 4)

    @jax.jit
    def play(key):
        variables = g.init(key, jnp.ones((2, 4)), train=True)
        strong = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf + 1 if path[-1].key == "noise_strength" else leaf, variables
        )
        ws = g.apply(strong, jax.random.normal(key, (4, 4)), method="mapping")
        draw = partial(g.apply, strong, method="synthesis", noise="random")
        return draw(ws, keys=keys), draw(ws[2:], keys=keys[2:]), draw(ws, keys=keys[::-1])

    every, some, other = play(jax.random.key(0))
    np.testing.assert_allclose(every[2:], some, atol=1e-5)
    assert np.abs(every - other).max() > 0.01


def test_random_noise_is_one_draw_of_each_key_dealt_to_the_layers_from_the_base_on():
    g = stylegan2.Generator(**TINY, latent_size=4, w_size=4, mapping_layers=1)
    keys = jax.random.split(jax.random.key(5), 2)
    variables = jax.tree.map(lambda leaf: leaf + 1, jax.jit(partial(g.init, train=True))(keys[0], jnp.ones((2, 4))))
    ws = jnp.ones((2, g.num_ws, 4))
    layers = [("b4/conv1", 4), ("b8/conv0", 8), ("b8/conv1", 8), ("b16/conv0", 16), ("b16/conv1", 16)]
    layers = [(name, side) for name, side in layers if side <= TINY["resolution"]]
    flat = np.stack([jax.random.normal(key, (sum(side**2 for _, side in layers),)) for key in keys])
    images, start = {}, 0
    for name, side in layers:
        images[name] = flat[:, start : start + side**2].reshape(2, side, side)
        start += side**2
    paint = jax.jit(partial(g.apply, method="synthesis"), static_argnames="noise")
    dealt = jax.jit(lambda images: g.apply(variables, ws, noise=images, method="synthesis"))(images)
    np.testing.assert_allclose(paint(variables, ws, noise="random", keys=keys), dealt, rtol=1e-5)


def test_truncation_by_hand():
    ws, mean = np.arange(24.0).reshape(2, 3, 4), np.ones(4)
    np.testing.assert_allclose(mapping.truncate(ws, mean, 0.25), 1 + 0.25 * (ws - 1))
    cut = mapping.truncate(ws, mean, 0.25, 1)
    np.testing.assert_allclose(cut[:, 0], 1 + 0.25 * (ws[:, 0] - 1))
    np.testing.assert_array_equal(cut[:, 1:], ws[:, 1:])
    np.testing.assert_allclose(mapping.truncate(ws, mean, 0.0), np.ones((2, 3, 4)))


@pytest.mark.parametrize(
    ("resolution", "base", "levels"), [(32, (4, 4), 3), ((36, 48), (9, 12), 2), (1024, (4, 4), 8), ((8, 16), (4, 8), 1)]
)
def test_resolutions_are_halved_down_to_the_base(resolution, base, levels):
    assert blocks.plan(resolution) == (base, levels)


def test_mistakes_are_told():
    for wrong in (dict(resolution=7), dict(resolution=4), dict(architecture="skips")):
        with pytest.raises(UserError, match="resolution|architecture"):
            stylegan2.Generator(**wrong)
    d = stylegan2.Discriminator(**TINY)
    with pytest.raises(UserError, match="mbstd_group=4"):
        jax.eval_shape(d.init, jax.random.key(0), jnp.zeros((6, 16, 16, 3)))
    g = stylegan2.Generator(**TINY)
    with pytest.raises(UserError, match="noise"):
        jax.eval_shape(partial(g.init, noise="loud", method="synthesis"), jax.random.key(0), jnp.zeros((2, 6, 512)))
    assert models.classes("stylegan2") == {
        "generator": stylegan2.Generator, "discriminator": stylegan2.Discriminator,
    }  # fmt: skip
