"""The first StyleGAN's networks against recorded numbers of the official code; the paper's configs, growing, noise."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.layers import activation
from gan_jax.layers.rescale import downscale, upscale
from gan_jax.models.stylegan1 import Discriminator, Generator
from tests import golden_growing as golden
from tests import test_models_progan

FILES = ("stylegan1_a", "stylegan1_b", "stylegan1_c")
# File c normalises pixels of two channels, not instances: where both are small, their rounding is enlarged.
TOLERANCE = {"stylegan1_a": 1e-5, "stylegan1_b": 1e-5, "stylegan1_c": 1e-4}


@functools.cache
def recorded(name):
    """(arrays, generator, discriminator, generator's variables, discriminator's parameters, labels or None)."""
    npz, meta = golden.load(name)
    of_g, of_d = meta["G_kwargs"], meta["D_kwargs"]
    fused = {True: "always", False: "never", "auto": "auto"}[of_g["fused_scale"]]
    common = {"fused_scale": fused, "blur": tuple(of_g["blur_filter"] or ()), "grow": of_g.get("structure") != "fixed"}
    generator = Generator(
        **golden.fields(of_g, **common),
        latent_size=of_g["latent_size"],
        w_size=of_g["dlatent_size"],
        mapping_layers=of_g["mapping_layers"],
        mapping_features=of_g["mapping_fmaps"],
        mapping_lr_multiplier=of_g["mapping_lrmul"],
        pixel_norm=of_g.get("use_pixel_norm", False),
        instance_norm=of_g.get("use_instance_norm", True),
    )
    discriminator = Discriminator(
        **golden.fields(of_d, **common),
        stddev_group=of_d.get("mbstd_group_size", 4),
        stddev_channels=of_d.get("mbstd_num_features", 1),
    )
    noise = {f"layer{i}": nhwc(npz[f"params/G/G_synthesis/noise{i}"]) for i in range(generator.num_ws)}
    variables = {
        "params": golden.tree(npz, "params/G/"),
        "w_avg": {"w_avg": npz["params/G/dlatent_avg"]},
        "noise": {"synthesis_network": noise},
    }
    labels = npz["in/labels"] if generator.num_classes else None
    return npz, generator, discriminator, variables, golden.tree(npz, "params/D/"), labels


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


def lods(npz):
    return [lod for lod in (0.0, 0.5, 1.0, 1.25, 2.0) if f"out/images_lod{lod}" in npz]


@pytest.mark.parametrize("name", FILES)
def test_styles_truncation_and_mixing(name):
    npz, generator, _, variables, _, labels = recorded(name)

    def ws(**options):
        return generator.apply(variables, npz["in/latents"], labels, method="mapping", **options)

    golden.assert_close(ws(), npz["out/w_broadcast"], 1e-5)
    golden.assert_close(ws(psi=0.7, cutoff=4), npz["out/w_psi0.7_cutoff4"], 1e-5)
    golden.assert_close(ws(psi=-0.4), npz["out/w_psi-0.4_all"], 1e-5)
    mixed = ws(mixing=(npz["in/mixing_latents"], npz["in/mixing_cutoff"]))
    golden.assert_close(mixed, npz["out/w_mixed_lod0.0"], 1e-5)


@pytest.mark.parametrize("name", FILES)
def test_images_at_every_lod(name):
    npz, generator, _, variables, _, _ = recorded(name)
    draw = jax.jit(lambda ws, lod: generator.apply(variables, ws, lod=lod, method="synthesis"))
    for lod in lods(npz):
        images = draw(npz["out/w_broadcast"], lod)
        golden.assert_close(images, nhwc(npz[f"out/images_lod{lod}"]), TOLERANCE[name], f"lod {lod}")
    for case in ("psi0.7_cutoff4", "psi-0.4_all", "mixed_lod0.0"):
        images = draw(npz[f"out/w_{case}"], 0.0)
        golden.assert_close(images, nhwc(npz[f"out/images_{case}"]), TOLERANCE[name], case)
    if 1.25 in lods(npz):
        images = draw(npz["out/w_mixed_lod1.25"], 1.25)
        golden.assert_close(images, nhwc(npz["out/images_mixed_lod1.25"]), TOLERANCE[name], "mixed at lod 1.25")


@pytest.mark.parametrize("name", FILES)
def test_scores_at_every_lod(name):
    npz, _, discriminator, _, params, labels = recorded(name)
    order = golden.strided_to_neighbours(len(npz["in/reals"]), discriminator.stddev_group)
    images, labels = nhwc(npz["in/reals"])[order], None if labels is None else labels[order]
    judge = jax.jit(lambda lod: discriminator.apply({"params": params}, images, labels, train=True, lod=lod))
    for lod in lods(npz):
        golden.assert_close(judge(lod), npz[f"out/D_scores_lod{lod}"][order, 0], 1e-5, f"lod {lod}")


def test_a_static_level_computes_the_same_at_its_own_size():
    npz, generator, discriminator, variables, params, labels = recorded("stylegan1_b")
    images = generator.apply(variables, npz["in/latents"], labels, train=False, lod=1.25, level=1)
    golden.assert_close(upscale(images), nhwc(npz["out/images_lod1.25"]), 1e-5)
    order = golden.strided_to_neighbours(8, 4)
    small = downscale(nhwc(npz["in/reals"]))[order]
    scores = discriminator.apply({"params": params}, small, labels[order], train=True, lod=1.25, level=1)
    golden.assert_close(scores, npz["out/D_scores_lod1.25"][order, 0], 1e-5)


@pytest.mark.parametrize("name", FILES)
def test_the_running_mean_of_w_moves_in_training_alone(name):
    npz, generator, _, variables, _, labels = recorded(name)
    z = npz["in/G_loss_latents"]
    _, moved = generator.apply(variables, z, labels, train=True, method="mapping", mutable=["w_avg"])
    golden.assert_close(moved["w_avg"]["w_avg"], npz["out/dlatent_avg_after_G_loss_lod0.0"], 1e-6)
    _, still = generator.apply(variables, z, labels, train=False, method="mapping", mutable=["w_avg"])
    np.testing.assert_array_equal(still["w_avg"]["w_avg"], npz["params/G/dlatent_avg"])


def tiny(**options):
    small = {"latent_size": 4, "w_size": 4, "mapping_features": 4, "mapping_layers": 2, "feature_base": 8}
    return Generator(resolution=8, **{**small, **options})


def test_noise_follows_each_samples_key():
    generator, z = tiny(), jax.random.normal(jax.random.key(0), (4, 4))
    variables = jax.jit(lambda: generator.init(jax.random.key(1), z, train=True))()
    strength = jax.tree_util.tree_map_with_path(lambda path, x: x + ("_noise" in path[-1].key), variables["params"])
    variables = {**variables, "params": strength}
    keys = jax.random.split(jax.random.key(2), 4)
    draw = jax.jit(lambda z, keys: generator.apply(variables, z, train=False, keys=keys))
    images, order = draw(z, keys), np.array([2, 0, 3, 1])
    np.testing.assert_allclose(images[order], draw(z[order], keys[order]), atol=1e-5)
    assert np.abs(images - draw(z, None)).max() > 0.1
    same = draw(jnp.stack([z[0]] * 4), None)
    np.testing.assert_allclose(same[1:], same[:-1], atol=1e-6)


BASELINE = {"styles": False, "noise": False, "instance_norm": False, "const_input": False, "pixel_norm": True}


@pytest.mark.parametrize(
    "options",
    (
        {**BASELINE, "mapping_layers": 0},  # B
        {"const_input": False, "noise": False},  # C
        {"noise": False},  # D
    ),
)
def test_the_papers_configs(options):
    generator, z = tiny(**options), jax.random.normal(jax.random.key(0), (2, 4))
    images, variables = jax.jit(lambda: generator.init_with_output(jax.random.key(1), z, train=True))()
    names = {path[-2].key if path[-1].key in ("kernel", "bias") else path[-1].key
             for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])}  # fmt: skip
    assert ("const" in names) == options.get("const_input", True)
    assert not any("noise" in name for name in names) and "noise" not in variables
    assert any(name.endswith("_style") for name in names) == options.get("styles", True)
    assert images.shape == (2, 8, 8, 3) and np.abs(images[0] - images[1]).max() > 1e-3


def test_full_size_parameter_counts_are_the_official_ones():
    counts = json.loads((golden.GOLDEN / "growing_param_counts.json").read_text())
    for size in (1024, 256):
        expected = counts[f"stylegan1_{size}"]
        init = functools.partial(Generator(resolution=size).init, jax.random.key(0), jnp.zeros((2, 512)), train=True)
        variables = jax.eval_shape(init)
        trees = {**variables, **variables["params"]}
        sizes = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in trees.items()}
        assert sizes["mapping_network"] == expected["G_mapping"]
        assert sizes["synthesis_network"] == expected["G_synthesis"]
        assert sizes["noise"] == expected["noise_buffers"]
        init = functools.partial(Discriminator(resolution=size).init, jax.random.key(0), train=True)
        variables = jax.eval_shape(lambda init=init, size=size: init(jnp.zeros((2, size, size, 3))))
        assert sum(x.size for x in jax.tree.leaves(variables)) == expected["D"]
        init = functools.partial(Generator(resolution=size, grow=False).init, jax.random.key(0), train=True)
        fixed = jax.eval_shape(lambda init=init: init(jnp.zeros((2, 512))))
        assert sum(x.size for x in jax.tree.leaves(fixed["params"])) == expected["G_total_without_ToRGB_lod1plus"]


def test_the_highest_resolutions_in_bfloat16():
    small = {"latent_size": 4, "w_size": 4, "mapping_features": 4, "mapping_layers": 2}
    low = {**test_models_progan.LOW, "fused_scale": "always"}
    test_models_progan.check_low_precision(Generator(**low, **small), Discriminator(**low))


def at_random(net, *inputs):
    """Its collections, and every parameter drawn anew, biases and noise strengths too."""
    variables = dict(jax.jit(lambda: net.init(jax.random.key(1), *inputs, train=True))())
    rng = np.random.default_rng(0)
    variables["params"] = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), variables["params"])
    return variables


def test_the_mapping_with_relu_against_numpy():
    """Of StyleGAN's normalised latents, with kernels scaled by sqrt(2) / sqrt(fan-in) and the layers' own rate."""
    generator = tiny(mapping_nonlinearity="relu")
    z = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    variables = at_random(generator, z)
    w = z / np.sqrt(np.mean(np.square(z), 1, keepdims=True) + 1e-8)
    for layer in ("dense0", "dense1"):
        weights = variables["params"]["mapping_network"][layer]
        w = np.maximum(0.01 * (w @ weights["kernel"] * np.sqrt(2 / 4) + weights["bias"]), 0)
    ws = generator.apply(variables, z, method="mapping")
    np.testing.assert_allclose(ws, np.repeat(w[:, None], 4, axis=1), rtol=1e-5, atol=1e-9)
    assert np.any(w == 0) and np.any(w > 0)


def test_relu_of_the_synthesis_is_a_slope_of_zero_there_alone(monkeypatch):
    ws = jax.random.normal(jax.random.key(0), (2, 4, 4))
    leaky, other = tiny(), tiny(nonlinearity="relu")
    variables = at_random(leaky, ws[:, 0])
    images = {name: net.apply(variables, ws, method="synthesis") for name, net in (("lrelu", leaky), ("relu", other))}
    assert np.abs(images["relu"] - images["lrelu"]).max() > 0.01
    styles = [net.apply(variables, ws[:, 0], method="mapping") for net in (leaky, other)]
    np.testing.assert_array_equal(*styles)
    only_mapping = tiny(mapping_nonlinearity="relu").apply(variables, ws, method="synthesis")
    np.testing.assert_array_equal(only_mapping, images["lrelu"])
    monkeypatch.setattr(activation, "_SLOPE", 0.0)
    expected = leaky.apply(variables, ws, method="synthesis")
    np.testing.assert_allclose(images["relu"], expected, rtol=1e-4, atol=1e-5)


def test_relu_of_the_discriminator_is_a_slope_of_zero_everywhere(monkeypatch):
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    leaky, other = (Discriminator(resolution=8, feature_base=8, nonlinearity=name) for name in ("lrelu", "relu"))
    variables = at_random(leaky, images)
    logits, other_logits = (net.apply(variables, images, train=True) for net in (leaky, other))
    assert np.abs(logits - other_logits).max() > 0.01
    monkeypatch.setattr(activation, "_SLOPE", 0.0)
    np.testing.assert_allclose(other_logits, leaky.apply(variables, images, train=True), rtol=1e-5, atol=1e-6)


def test_mistakes_are_told():
    for make in (Discriminator, tiny):
        with pytest.raises(UserError, match="nonlinearity 'elu' is unknown; expected one of lrelu, relu"):
            make(nonlinearity="elu")
    with pytest.raises(UserError, match="mapping_nonlinearity 'elu' is unknown"):
        tiny(mapping_nonlinearity="elu")
    with pytest.raises(UserError, match="fused_scale='sometimes'"):
        Discriminator(fused_scale="sometimes")
    with pytest.raises(UserError, match="set w_size=4"):
        tiny(mapping_layers=0, w_size=8)
