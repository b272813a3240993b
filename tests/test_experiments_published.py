"""The papers' experiments have the papers' numbers: settings, schedules and sizes, each against a table of its own."""

import ast
import json
import pathlib

import jax
import numpy as np
import pytest

from gan_jax import games, runs, specs
from tests import settings

GOLDEN = pathlib.Path(__file__).parent / "golden"

# Figures that a docstring must print.
FIGURES = {
    "celebahq_progan": ("7.30", "7.79", "8.03", "2 weeks", "2 days"),
    "lsun_progan": ("8.34", "37.52", "6.42"),
    "ffhq_stylegan": ("8.04", "4.40", "6 days 14 hours", "41 days"),
    "ffhq_stylegan2": ("3.31", "2.84", "9 days 18 hours", "5 days 6 hours", "4 days 18 hours"),
    "stylegan2_ada": ("2.84", "3.81", "7.40", "18.22", "2.42", "17.55", "4.01", "9.11", "18.56"),
    "stylegan3": ("2.79", "3.07", "4.04", "4.40", "4.62", "4.50", "28.71", "34.12", "18.47", "20.44", "7.40", "6.71"),
    "r3gan": ("1.96", "1.95", "2.75", "1.27", "2.09", "4 days"),
    "cifar10_sngan": ("16.77", "7.97", "10.84", "8.25"),
    "cifar10_biggan": ("9.59", "8.70", "21.58", "14.04", "39.78", "22.40"),
    "few_shot": ("80.20", "46.87", "48.90", "27.08", "34.27", "12.06"),
}
VARIANTS = {
    "celebahq_progan": ("128", "256_2gpu", "512_4gpu", "1024", "1024_8gpu"),
    "lsun_progan": ("bedroom", "cat_2gpu", "church_8gpu"),
    "ffhq_stylegan": ("A", "B", "C", "D", "E", "F"),
    "ffhq_stylegan2": ("E", "F", "E_512", "F_512", "E_256", "F_256"),
    "stylegan2_ada": ("auto", "auto_1024_8gpu", "stylegan2", "paper256", "paper512", "paper1024", "cifar"),
    "stylegan3": ("t", "r", "t_512", "r_512", "t_256", "r_256"),
    "r3gan": ("cifar10", "ffhq64", "ffhq256", "imagenet32", "imagenet64"),
    "cifar10_sngan": ("", "projection"),
    "cifar10_biggan": ("all", "20", "10", "baseline", "baseline_20", "baseline_10"),
    "few_shot": ("transfer", "diffaugment", "baseline"),
}


def _load(name, variant=""):
    path = settings.EXPERIMENTS / f"{name}.py"
    return runs.load_config(f"{path}:{variant}" if variant else str(path))


def _spec(config):
    classes = (1000 if "imagenet" in config.data.name else 10) if config.conditional else 0
    return specs.labelled((config.data.resolution, config.data.resolution, config.data.channels), classes)


def _run(name, variant=""):
    config = _load(name, variant)
    return runs.build(config, _spec(config))


def _sizes(name, variant=""):
    """Trainable parameters of (generator, discriminator)."""
    run = _run(name, variant)
    params = jax.eval_shape(lambda: run.game.init(run.config, run.nets, run.spec, jax.random.key(0))[0])
    return tuple(sum(x.size for x in jax.tree.leaves(params[net])) for net in ("generator", "discriminator"))


@pytest.mark.parametrize("name", FIGURES)
def test_the_docstring_prints_the_published_figures_and_says_that_nothing_was_trained(name):
    text = ast.get_docstring(ast.parse((settings.EXPERIMENTS / f"{name}.py").read_text()))
    assert [figure for figure in FIGURES[name] if figure not in text] == []
    assert "of this size was trained here" in " ".join(text.split()).lower()


@pytest.mark.parametrize("name, variant", [(name, variant) for name, all_ in VARIANTS.items() for variant in all_])
def test_every_variant_builds(name, variant):
    run = _run(name, variant)
    assert run.phases and run.optimizers.keys() == {"generator", "discriminator"}


@pytest.mark.parametrize(
    "name, variant, recorded",
    [
        ("celebahq_progan", "1024", "progan_v2-1gpu-fp32"),
        ("celebahq_progan", "1024_8gpu", "progan_v2-8gpus-fp32"),
        ("ffhq_stylegan", "A", "progan_v2-8gpus-fp32"),
        ("ffhq_stylegan", "F", "stylegan-ffhq-8gpu"),
    ],
)
def test_growth_is_the_recorded_schedule(name, variant, recorded):
    config = _load(name, variant)
    with np.load(GOLDEN / "growth_schedules.npz") as npz:
        seen, rates = npz["in/cur_nimg"], npz[f"out64/{recorded}_G_lrate"]
        sides, batches = npz[f"out64/{recorded}_resolution"], npz[f"out64/{recorded}_minibatch"]
    stages = games.stages(games.find("progressive"), config, _spec(config))
    at = [next(s for s in stages if s.start_images <= n < s.end_images) for n in seen]
    np.testing.assert_array_equal([1024 >> stage.level for stage in at], sides)
    np.testing.assert_array_equal([stage.batch_size for stage in at], batches)
    for player in ("generator", "discriminator"):
        base = config.optim[player].learning_rate
        np.testing.assert_allclose([base * stage.learning_rate for stage in at], rates, rtol=1e-12)


@pytest.mark.parametrize(
    "devices, batches, rates",
    [
        (1, (128, 128, 128, 64, 32, 16, 8, 4, 4), (1, 1, 1, 1, 1, 1, 1, 1, 1.5)),
        (2, (256, 256, 128, 64, 32, 16, 8, 8, 8), (1, 1, 1, 1, 1, 1, 1, 1.5, 2)),
        (4, (512, 256, 128, 64, 32, 16, 16, 16, 16), (1, 1, 1, 1, 1, 1, 1.5, 2, 3)),
        (8, (512, 256, 128, 64, 32, 32, 32, 32, 32), (1, 1, 1, 1, 1, 1.5, 2, 3, 3)),
    ],
)
def test_batches_and_rates_by_resolution_and_devices(devices, batches, rates):
    """From 4 to 1024 px, of preset v2 for 1, 2, 4 and 8 GPUs in the authors' configuration."""
    config = _load("celebahq_progan", f"1024_{devices}gpu")
    stages = games.stages(games.find("progressive"), config, _spec(config))
    settled = {stage.level: stage for stage in stages}
    assert tuple(settled[level].batch_size for level in range(8, -1, -1)) == batches
    assert tuple(settled[level].learning_rate for level in range(8, -1, -1)) == rates


@pytest.mark.parametrize("name", ["celebahq_progan", "lsun_progan"])
def test_progan_is_the_published_recipe(name):
    config = _load(name)
    assert config.total_images == 12_000_000
    growth, loss = config.growth, config.loss
    assert (growth.training_images, growth.transition_images, growth.initial_resolution) == (600_000, 600_000, 4)
    assert (loss.name, loss.gradient_penalty, loss.gradient_target, loss.drift) == ("wasserstein", 10.0, 1.0, 1e-3)
    assert (config.ema.decay, config.ema.half_life_images) == (0.999, 0.0)
    assert (config.generator.epsilon, config.discriminator.stddev_group) == (1e-8, 4)
    assert config.data.flip == (name == "celebahq_progan")
    for player in config.optim.values():
        assert (player.name, player.learning_rate, player.b1, player.b2, player.eps) == ("adam", 1e-3, 0.0, 0.99, 1e-8)


def test_configurations_of_stylegan():
    """Sizes against the recorded ones of A and F; from B to E against what the paper adds and removes."""
    recorded = json.loads((GOLDEN / "growing_param_counts.json").read_text())
    sizes = {letter: _sizes("ffhq_stylegan", letter) for letter in "ABCDEF"}
    discriminator = recorded["stylegan1_1024"]["D"]
    assert {pair[1] for pair in sizes.values()} == {discriminator, recorded["progan_1024_fused1"]["D"]} == {23_087_249}
    generators = {letter: pair[0] for letter, pair in sizes.items()}
    assert generators["A"] == generators["B"] == recorded["progan_1024_fused1"]["G"]
    assert generators["F"] == generators["E"] == recorded["stylegan1_1024"]["G_total"] == 26_219_627
    features = 2 * (4 * 512 + 256 + 128 + 64 + 32 + 16)  # of all layers
    styles = 2 * features * (512 + 1)  # a scale and a shift of each
    assert generators["C"] - generators["B"] == recorded["stylegan1_1024"]["G_mapping"] + styles
    assert generators["C"] - generators["D"] == 512 * 512 * 16 - 512 * 16  # a dense layer, a constant
    assert generators["E"] - generators["D"] == features  # a strength of the noise for each


def test_what_the_configurations_of_stylegan_train_with():
    configs = {letter: _load("ffhq_stylegan", letter) for letter in "ABCDEF"}
    for letter, c in configs.items():
        later = letter != "A"
        assert c.total_images == (25_000_000 if later else 12_000_000)
        assert c.generator.name == c.discriminator.name == ("stylegan1" if later else "progan")
        assert c.loss.name == ("non_saturating" if later else "wasserstein")
        penalties = (c.loss.r1_gamma, c.loss.gradient_penalty, c.loss.drift)
        assert penalties == ((10.0, 0.0, 0.0) if later else (0.0, 10.0, 1e-3))
        assert c.growth.initial_resolution == (8 if later else 4)
        assert (c.ema.half_life_images, c.ema.decay) == ((10_000.0, 0.0) if later else (0.0, 0.999))
        assert (c.data.resolution, c.data.flip) == (1024, True)
        if later:
            assert c.loss.style_mixing == (0.9 if letter == "F" else 0.0)
            g = c.generator
            switches = (g.pixel_norm, g.styles, g.instance_norm, g.mapping_layers, g.const_input, g.noise)
            assert switches == {
                "B": (True, False, False, 0, False, False),
                "C": (False, True, True, 8, False, False),
                "D": (False, True, True, 8, True, False),
            }.get(letter, (False, True, True, 8, True, True))
            assert (g.mapping_lr_multiplier, g.w_avg_beta, g.w_size, tuple(g.blur)) == (0.01, 0.995, 512, (1, 2, 1))


@pytest.mark.parametrize("name, variant, recorded", [("celebahq_progan", "1024", "1024"), ("lsun_progan", "", "256")])
def test_sizes_of_progan(name, variant, recorded):
    counts = json.loads((GOLDEN / "growing_param_counts.json").read_text())[f"progan_{recorded}_fused1"]
    assert _sizes(name, variant) == (counts["G"], counts["D"])


# `cfg_specs` of the authors' code: thousands of images, batch, group of the minibatch stddev, width, learning rate,
# gamma, half-life in thousands of images, its ramp, mapping layers
SPECS = {
    "stylegan2": (25_000, 32, 4, 1, 0.002, 10, 10, 0, 8),
    "paper256": (25_000, 64, 8, 0.5, 0.0025, 1, 20, 0, 8),
    "paper512": (25_000, 64, 8, 1, 0.0025, 0.5, 20, 0, 8),
    "paper1024": (25_000, 32, 4, 1, 0.002, 2, 10, 0, 8),
    "cifar": (100_000, 64, 32, 1, 0.0025, 0.01, 500, 0.05, 2),
}

# What the authors list for the default configuration: batch, gamma, features times resolution, learning rate.
DEFAULTS = {
    (128, 1): (32, 0.1024, 16384, 0.0025),
    (128, 2): (64, 0.0512, 16384, 0.0025),
    (128, 4): (64, 0.0512, 16384, 0.0025),
    (256, 1): (16, 0.8192, 16384, 0.0025),
    (256, 2): (32, 0.4096, 16384, 0.0025),
    (256, 4): (64, 0.2048, 16384, 0.0025),
    (256, 8): (64, 0.2048, 16384, 0.0025),
    (512, 1): (8, 6.5536, 32768, 0.0025),
    (512, 2): (16, 3.2768, 32768, 0.0025),
    (512, 4): (32, 1.6384, 32768, 0.0025),
    (512, 8): (64, 0.8192, 32768, 0.0025),
    (1024, 1): (4, 52.4288, 32768, 0.002),
    (1024, 2): (8, 26.2144, 32768, 0.002),
    (1024, 4): (16, 13.1072, 32768, 0.002),
    (1024, 8): (32, 6.5536, 32768, 0.002),
}


@pytest.mark.parametrize("preset", SPECS)
def test_presets_of_stylegan2_ada(preset):
    config = _load("stylegan2_ada", preset)
    g, d, loss = config.generator, config.discriminator, config.loss
    assert g.channel_base == d.channel_base
    row = (config.total_images / 1000, config.batch_size, d.mbstd_group, g.channel_base / 32768)
    row += (config.optim.discriminator.learning_rate, loss.r1_gamma)
    row += (config.ema.half_life_images / 1000, config.ema.rampup, g.mapping_layers)
    assert row == SPECS[preset]
    tuned = preset == "cifar"
    assert (loss.path_length_weight, config.style.mixing) == ((0.0, 0.0) if tuned else (2.0, 0.9))
    assert (g.architecture, d.architecture) == ("skip", "orig" if tuned else "resnet")
    assert (config.every.path_length_steps, config.every.penalty_steps) == (4, 16)
    assert (g.conv_clamp, d.conv_clamp, g.num_bf16_res, d.num_bf16_res) == (256, 256, 4, 4)
    if preset == "stylegan2":
        assert config.augment.name == "none"
    else:
        ada = config.augment
        assert (ada.name, ada.target, ada.interval_steps, ada.speed_images) == ("ada", 0.6, 4, 500_000)


@pytest.mark.parametrize("resolution, devices", DEFAULTS)
def test_the_automatic_settings_are_those_listed(resolution, devices):
    config = _load("stylegan2_ada", f"auto_{resolution}_{devices}gpu")
    batch, gamma, base, rate = DEFAULTS[resolution, devices]
    assert config.data.resolution == resolution and config.batch_size == batch
    assert config.loss.r1_gamma == pytest.approx(gamma, rel=1e-12)
    assert config.generator.channel_base == config.discriminator.channel_base == base
    assert {player.learning_rate for player in config.optim.values()} == {rate}
    assert config.ema.half_life_images == pytest.approx(batch * 10_000 / 32)
    assert (config.ema.rampup, config.generator.mapping_layers) == (0.05, 2)
    assert config.discriminator.mbstd_group == min(batch // devices, 4)


def test_optimizers_are_corrected_for_lazy_phases():
    """(rate, b2) of the generator times and to the power of 4/5, of the discriminator of 16/17; recorded at 0.0025."""
    meta = json.loads(str(np.load(GOLDEN / "sg2_optimizer.npz")["meta"]))
    assert meta["base_lr"] == 0.0025
    for preset in ("paper512", "cifar"):  # `cifar` too, whose path length has no weight
        run = _run("stylegan2_ada", preset)
        for player, theirs in (("generator", meta["G_adam"]), ("discriminator", meta["D_adam"])):
            assert float(run.optimizers[player].learning_rate(0)) == pytest.approx(theirs["lr"], rel=1e-6)
    assert run.config.optim.generator.b2 == pytest.approx(meta["G_adam"]["betas"][1], rel=1e-12)


@pytest.mark.parametrize("preset, recorded", [
    ("paper256", "paper256/res256/c0"), ("paper1024", "paper1024/res1024/c0"), ("cifar", "cifar/res32/c10"),
])  # fmt: skip
def test_sizes_of_stylegan2(preset, recorded):
    counts = np.load(GOLDEN / "counts.npz")
    expected = tuple(int(counts[f"count/stylegan2-ada/{recorded}/{net}/parameters"]) for net in "GD")
    assert _sizes("stylegan2_ada", preset) == expected


def test_configurations_of_stylegan2():
    counts = np.load(GOLDEN / "counts.npz")
    large = tuple(int(counts[f"count/stylegan2-ada/paper1024/res1024/c0/{net}/parameters"]) for net in "GD")
    assert _sizes("ffhq_stylegan2", "F") == large  # 30.37 and 29.01 million
    rows = (("F", 10.0, 32768), ("E", 100.0, 16384), ("F_256", 10.0, 32768), ("E_512", 100.0, 16384))
    for variant, gamma, base in rows:
        config = _load("ffhq_stylegan2", variant)
        assert (config.loss.r1_gamma, config.generator.channel_base) == (gamma, base)
        assert config.discriminator.channel_base == base
        assert config.data.resolution == int((variant + "_1024").split("_")[1])
        assert (config.total_images, config.batch_size) == (25_000_000, 32)
        assert {player.learning_rate for player in config.optim.values()} == {0.002}
        assert (config.ema.half_life_images, config.ema.rampup, config.discriminator.mbstd_group) == (10_000.0, 0.0, 4)
        loss = config.loss
        assert (loss.path_length_weight, loss.path_length_decay, loss.path_length_shrink) == (2.0, 0.01, 2)
        assert (config.generator.num_bf16_res, config.generator.conv_clamp, config.augment.name) == (0, 0.0, "none")


@pytest.mark.parametrize(
    "variant, resolution, gamma, batch, base, rate",
    [
        ("t", 1024, 32.8, 32, 32768, 0.002),
        ("r", 1024, 32.8, 32, 65536, 0.002),
        ("t_512", 512, 8.2, 32, 32768, 0.002),
        ("r_512", 512, 16.4, 32, 65536, 0.002),
        ("t_256", 256, 1.0, 64, 16384, 0.0025),
        ("r_256", 256, 1.0, 64, 32768, 0.0025),
    ],
)
def test_stylegan3_is_the_published_recipe(variant, resolution, gamma, batch, base, rate):
    config, rotatable = _load("stylegan3", variant), variant.startswith("r")
    g, d = config.generator, config.discriminator
    assert (config.data.resolution, config.loss.r1_gamma, config.batch_size) == (resolution, gamma, batch)
    assert (g.channel_base, g.channel_max) == (base, 1024 if rotatable else 512)
    assert (d.channel_base, d.channel_max, d.mbstd_group) == (base // (1 + rotatable), 512, 4)
    assert (g.kernel_size, g.radial_filters) == ((1, True) if rotatable else (3, False))
    assert config.loss.blur_sigma == (10.0 if rotatable else 0.0)
    assert not rotatable or config.loss.blur_fade_images == 200_000 * batch // 32
    assert g.magnitude_ema_beta == pytest.approx({32: 0.9988915793, 64: 0.9977843871}[batch], rel=1e-9)
    assert (g.num_layers, g.num_critical, g.margin, g.mapping_layers, g.output_scale) == (14, 2, 10, 2, 0.25)
    assert g.last_stopband == pytest.approx(2**0.3)
    assert (config.loss.path_length_weight, config.style.mixing, config.every.penalty_steps) == (0.0, 0.0, 16)
    assert config.ema.half_life_images == batch * 10_000 / 32 and config.ema.rampup == 0.05
    assert config.augment.name == ("ada" if resolution == 512 else "none")
    optimizers = runs.build(config, _spec(config)).optimizers
    assert float(optimizers["generator"].learning_rate(0)) == pytest.approx(0.0025)  # it has no lazy phase
    assert float(optimizers["discriminator"].learning_rate(0)) == pytest.approx(rate * 16 / 17)


def test_sizes_of_stylegan3():
    counts = np.load(GOLDEN / "counts.npz")
    expected = tuple(int(counts[f"count/stylegan3-t/res1024/cbase32768/{net}/parameters"]) for net in "GD")
    assert _sizes("stylegan3", "t") == expected


# batch, first and last gamma, half-life in millions of images, p, images of the schedule, millions of parameters
R3GAN = {
    "cifar10": (512, 0.05, 0.005, 5, 0.55, 2e7, 20.78, 21.28),
    "ffhq64": (256, 2, 0.2, 0.5, 0.3, 2e7, 22.43, 22.38),
    "ffhq256": (256, 150, 15, 0.5, 0.3, 2e7, 23.06, 23.01),
    "imagenet32": (4096, 0.5, 0.05, 50, 0.5, 2e8, 82.91, 86.55),
    "imagenet64": (4096, 1, 0.1, 50, 0.4, 2e8, 103.57, 107.21),
}


@pytest.mark.parametrize("variant", R3GAN)
def test_r3gan_is_the_published_recipe(variant):
    config = _load("r3gan", variant)
    batch, gamma, last, half_life, p, schedule, *millions = R3GAN[variant]
    loss, ada = config.loss, config.augment
    assert config.batch_size == batch and loss.name == "relativistic"
    assert loss.r1_gamma == loss.r2_gamma == gamma
    assert loss.r1_gamma * loss.penalty_final_factor == pytest.approx(last)
    assert (config.ema.half_life_images / 1e6, config.ema.rampup) == (half_life, 0.0)
    assert (ada.name, ada.p, ada.target) == ("ada", p, 0.0)
    assert {loss.penalty_decay_images, config.ema.growth_images, ada.growth_images} == {schedule}
    for name in ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac", "cutout"):
        assert ada[name] == 1, name
    for name in ("brightness", "contrast", "lumaflip", "hue", "saturation"):
        assert ada[name] == 0.5, name
    assert (ada.imgfilter, ada.noise) == (0, 0)
    for adam in config.optim.values():
        assert (adam.name, adam.b1, adam.b2, adam.b2_final, adam.eps) == ("adam", 0.0, 0.9, 0.99, 1e-8)
        assert (adam.learning_rate, adam.learning_rate * adam.final_factor) == (2e-4, 5e-5)
        assert (adam.schedule, adam.decay_images) == ("cosine", schedule)
    assert config.conditional == (not variant.startswith("ffhq"))
    assert (config.generator.latent_size, config.data.flip, config.total_images >= 10 * schedule) == (64, True, True)
    assert [round(size / 1e6, 2) for size in _sizes("r3gan", variant)] == millions


def test_cut_is_the_published_recipe():
    """Table of the authors' options: epochs of 1,334 pictures; weights, layers and patches; FastCUT's others."""
    of_variants = {"": ((200, 200), (0.5, 0.5), False), "fastcut": ((150, 50), (10, 0), True)}
    for variant, (epochs, weights, mirror) in of_variants.items():
        config, field = _load("horse2zebra_cut", variant), specs.Field("image", (256, 256, 3))
        run = runs.build(config, {"a": field, "b": field})
        assert (config.loss.nce_a, config.loss.nce_b) == weights and config.contrastive.mirror == mirror
        own = config.contrastive
        assert (own.patches, own.width, own.temperature, len(own.layers), own.jitter) == (256, 256, 0.07, 5, 30)
        assert config.total_images == 1_334 * sum(epochs) and config.batch_size == 1
        for player in ("generator", "discriminator"):
            assert (config.optim[player].b1, config.optim[player].b2) == (0.5, 0.999)
            turn = 1_334 * epochs[0]
            rates = [float(run.optimizers[player].learning_rate(n)) for n in (0, turn, turn + 667 * epochs[1])]
            assert rates == pytest.approx([2e-4, 2e-4, 1e-4])
        for net in (config.generator, config.discriminator):
            assert (net.name, net.kernels, net.norm, net.width) == ("cut", "xavier", "instance", 64)
        assert (config.generator.antialias_down, config.generator.antialias_up) == (True, True)


def test_paintings_and_seasons_are_horse2zebra_with_epochs_of_their_own():
    """Numbers of pictures of the data; the identity term is half of the cycles' weight."""
    horses = _load("horse2zebra")
    for name, epoch, direction in (("monet2photo", 6_287, "ba"), ("summer2winter", 1_231, "ab")):
        config = _load(name)
        assert config.total_images == 200 * epoch and config.translation.direction == direction
        assert config.loss.to_dict() == {"cycle_a": 10.0, "cycle_b": 10.0, "identity": 0.5, "pool": 50}
        assert config.generator.to_dict() == horses.generator.to_dict()
        assert {part.name for part in config.data.parts.values()} <= {
            "tfds:cycle_gan/monet2photo", "tfds:cycle_gan/summer2winter_yosemite"}  # fmt: skip


@pytest.mark.parametrize("variant", ["", "projection"])
def test_sngan_is_the_published_recipe(variant):
    config = _load("cifar10_sngan", variant)
    assert config.loss.name == "hinge" and config.every.generator_steps == 5
    assert (config.batch_size, config.total_images) == (64, 32_000_000)  # 100,000 updates of the generator
    run = _run("cifar10_sngan", variant)
    for player, adam in config.optim.items():
        assert (adam.name, adam.b1, adam.b2) == ("adam", 0.0, 0.9)
        rates = [float(run.optimizers[player].learning_rate(n)) for n in (0, 16_000_000, 32_000_000)]
        assert rates == pytest.approx([2e-4, 1e-4, 0.0])
    assert all(run.config.discriminator[key] == value for key, value in (("spectral_norm", True), ("halvings", 2)))
    tables = 10 if variant else 0
    generator = 4_276_739 + (6 * 2 * 256 * (tables - 1) if variant else 0)  # for scale and offset of each norm
    assert _sizes("cifar10_sngan", variant) == (generator, 1_053_825 + 128 * tables)
    assert config.conditional == bool(variant)


@pytest.mark.parametrize(("variant", "split", "passes", "images"), [
    ("all", "train", 1_000, 50_000), ("20", "train[:20%]", 5_000, 10_000), ("10", "train[:10%]", 5_000, 5_000),
])  # fmt: skip
def test_biggan_has_the_settings_of_diffaugments_scripts(variant, split, passes, images):
    config = _load("cifar10_biggan", variant)
    baseline = _load("cifar10_biggan", f"baseline_{variant}".removesuffix("_all"))
    assert (config.data.name, config.data.split, config.total_images) == ("tfds:cifar10", split, passes * images)
    assert (config.batch_size, config.every.generator_steps, config.loss.name) == (50, 4, "hinge")
    assert config.data.flip and config.conditional and config.evaluation.split == "test"
    for adam in config.optim.values():
        assert (adam.name, adam.learning_rate, adam.b1, adam.b2, adam.eps) == ("adam", 2e-4, 0.0, 0.999, 1e-8)
        assert adam.schedule == "constant"
    assert (config.augment.name, tuple(config.augment.policy)) == ("diffaugment", ("translation", "cutout"))
    assert baseline.augment.name == "none" and baseline.total_images == config.total_images
    assert 0.5 ** (4 * 50 / config.ema.half_life_images) == pytest.approx(0.9999, rel=1e-8)
    for player in (config.generator, config.discriminator):
        assert (player.initializer, player.width, player.spectral_norm, player.attention) == ("normal", 64, True, 0)
    assert (config.generator.latent_size, config.generator.shared_size, config.generator.skip_z) == (128, 0, False)


def test_few_shot_has_the_settings_of_its_sources():
    for variant in ("diffaugment", "baseline"):
        config = _load("few_shot", variant)
        assert (config.batch_size, config.total_images, config.data.resolution) == (16, 300_000, 256)
        assert (config.loss.r1_gamma, config.every.penalty_steps, config.loss.path_length_weight) == (10.0, 1, 0.0)
        assert config.augment.name == ("none" if variant == "baseline" else variant) and config.data.flip
        assert config.ema.half_life_images == 10_000 and config.optim.generator.learning_rate == 2e-3
        assert config.transfer.workdir == ""
    config, paper = _load("few_shot"), _load("stylegan2_ada", "paper256")
    assert (config.augment.name, config.augment.speed_images, config.augment.target) == ("ada", 100_000.0, 0.6)
    assert config.transfer.workdir and config.transfer.freeze_layers == 4
    for key in ("generator", "discriminator", "optim", "loss", "ema", "style", "batch_size"):
        assert config[key] == paper[key], key
    run = _run("few_shot")
    first = tuple(f"b256/{name}" for name in ("fromrgb", "conv0", "conv1", "skip"))
    assert run.nets["discriminator"].layers()[:4] == first
