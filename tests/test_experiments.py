"""Every file of `experiments/`: its smoke run trains and draws, or resumes; its settings are as published."""

import ast
import json
import math

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import config as configs
from gan_jax import folders, games, parallel, runs, specs
from gan_jax import step as steps
from gan_jax.errors import UserError
from gan_jax.layers.conv import as_pair
from gan_jax.sample import sample
from gan_jax.train import train
from tests import settings

FILES = sorted(path.stem for path in settings.EXPERIMENTS.glob("*.py"))

# One file of each game, and those whose State holds more: growth, a strength of augmentation, magnitudes, a schedule.
RESUMED = (
    "mixture_gan", "celebahq_progan", "ffhq_stylegan", "stylegan2_ada", "stylegan3", "r3gan", "digits_cyclegan",
    "digits_cut", "digits_pix2pix", "faces_superres", "digits_inpaint", "digits_captions",
)  # fmt: skip

# The authors' NIPS 2017 poster: learning rates of D and G, updates; then the same of the baseline.
POSTER = {
    "celeba_dcgan_ttur": ((1e-5, 5e-4, 225_000, 12.5), (5e-4, 5e-4, 70_000, 21.4)),
    "cifar10_dcgan_ttur": ((1e-4, 5e-4, 75_000, 36.9), (1e-4, 1e-4, 100_000, 37.7)),
    "svhn_dcgan_ttur": ((1e-5, 1e-4, 165_000, 12.5), (5e-5, 5e-5, 185_000, 21.4)),
    "lsun_dcgan_ttur": ((1e-5, 1e-4, 340_000, 57.5), (5e-5, 5e-5, 70_000, 70.4)),
}

# Trainable parameters (generator, discriminator): sums of kernel * in * out over the published layers, scale
# and offset of each BatchNorm, biases where there is none. MNIST's are the tutorial's own totals, less the
# running statistics.
COUNTS = {
    "celeba_dcgan": (18_885_760, 17_232_768),
    "celeba_dcgan_ttur": (5_142_080, 4_315_584),
    "lsun_dcgan_ttur": (5_142_080, 4_315_584),
    "cifar10_dcgan_ttur": (4_515_392, 4_309_440),
    "svhn_dcgan_ttur": (4_515_392, 4_309_440),
    "mnist_tutorial": (2_305_472, 212_865),
    **dict.fromkeys(("horse2zebra", "horse2zebra_cut", "monet2photo", "summer2winter"), (11_378_179, 2_764_737)),
    **dict.fromkeys(("facades_pix2pix", "maps_pix2pix", "edges2shoes_pix2pix"), (54_413_955, 2_768_705)),  # the same
}


@pytest.fixture
def one_device(monkeypatch):
    make_mesh = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))


def _load(name, variant="", **overrides):
    path = settings.EXPERIMENTS / f"{name}.py"
    return runs.load_config(f"{path}:{variant}" if variant else str(path), list(overrides.items()))


def _spec(config):
    """What the players see of the data of a full config, without opening it."""
    if "parts" in config.data:
        parts = config.data.parts.items()
        return {part: specs.Field("image", (look.resolution, look.resolution, look.channels)) for part, look in parts}
    size = as_pair(config.data.resolution)
    shape = (2,) if config.data.name.startswith("mixture:") else (*size, config.data.channels)
    reads = games.find(config.game).reads(config)
    if "source" in reads:
        return specs.paired(shape, shape)
    if "caption" in reads:
        words = specs.Field("tokens", (max(config.data.captions, 1), config.data.caption_length), 20)
        return specs.labelled(shape) | {"caption": words}
    return specs.labelled(shape, 10 if config.get("conditional") else 0)


def _smoke(name, workdir, total_images, measured=False):
    config = _load(name, "smoke")
    configs.override(config, "total_images", str(total_images))
    if config.evaluation.features != "none" or not measured:
        configs.override(config, "evaluation.metrics", "()")
    assert train(config, str(workdir))
    return config


def _lines(workdir, file="metrics.jsonl"):
    return [json.loads(line) for line in (workdir / file).read_text().splitlines()]


def _distinct(names):
    """The first name of each smoke run: those of some files are one, but for learning rates and their decay."""
    first = {}
    for name in names:
        pairs, rates = configs.flatten(_load(name, "smoke")), ("learning_rate", "decay_begin_images")
        first.setdefault(str([(key, value) for key, value in pairs if not key.endswith(rates)]), name)
    return list(first.values())


def _photographs(folder):
    """Three pictures of 20x24 pixels, as options of `sample`."""
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (20, 24), (80 * number, 40, 200)).save(folder / f"{number}.png")
    return {"inputs": str(folder)}


@pytest.mark.parametrize("name", _distinct(FILES))
def test_smoke_trains_three_steps_and_samples(name, tmp_path, one_device):
    workdir = tmp_path / "run"
    config = _smoke(name, workdir, 24, measured=True)
    lines = _lines(workdir)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert (workdir / "samples" / "reals.png").is_file()

    game = games.find(config.game)
    shape = _spec(config)[games.drawn(game, config)].shape
    draws = "parts" in config.data or "source" in game.reads(config)  # from pictures of that size
    options = _photographs(tmp_path / "in") if draws else {"seeds": "0-2"}
    files = sample(str(workdir), str(tmp_path / "out"), **options)
    if len(shape) == 3:
        assert len(files) == 4 + ("caption" in game.reads(config))
        for file in files[:3]:
            assert np.asarray(Image.open(file)).reshape(*shape[:2], -1).shape == shape
    else:
        points = np.loadtxt(files[0], delimiter=",", skiprows=1)
        assert points.shape == (3, 2)
        measured = {row["metric"] for row in _lines(workdir, "evaluations.jsonl")}
        assert measured == {"modes_covered", "high_quality_share", "mode_kl"}


def test_smoke_runs_that_are_others_are_known():
    """Their full runs differ in rates, lengths and data."""
    others = {"lsun_progan", "maps_pix2pix", "summer2winter", "lsun_dcgan_ttur", "svhn_dcgan_ttur", "cub_dfgan"}
    assert {*FILES} - {*_distinct(FILES)} == others


def test_a_smoke_run_of_each_game_is_resumed():
    assert {_load(name).game for name in RESUMED} == {_load(name).game for name in FILES}


@pytest.mark.parametrize("name", RESUMED)
def test_a_smoke_run_resumes(name, tmp_path, one_device, capsys):
    for images in (16, 32):
        _smoke(name, tmp_path, images, measured=name == "mixture_gan")
    assert "resumed at 16 images, step 2" in capsys.readouterr().out
    assert [line["step"] for line in _lines(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ("digits_dcgan_conditional", "digits_cyclegan", "digits_captions"))
def test_a_resumed_smoke_run_ends_in_the_same_state_as_an_uninterrupted_one(name, tmp_path, one_device):
    for images in (16, 32):
        _smoke(name, tmp_path / "resumed", images)
    config = _smoke(name, tmp_path / "whole", 32)
    run = runs.build(config, _spec(config))
    mesh = parallel.make_mesh()
    ends = [folders.restore(run, tmp_path / folder, mesh).state for folder in ("resumed", "whole")]
    resumed, whole = (jax.tree.leaves(jax.device_get(state)) for state in ends)
    assert int(ends[0].step) == 4
    for a, b in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", FILES)
def test_the_full_config_builds_and_has_the_published_size(name):
    config = _load(name)
    run = runs.build(config, _spec(config))
    params = jax.eval_shape(lambda: runs.init_state(run)).params
    sizes = {net: sum(x.size for x in jax.tree.leaves(tree)) for net, tree in params.items()}
    if name in COUNTS:
        first = [next(size for net, size in sizes.items() if net.startswith(role)) for role in ("generator", "disc")]
        assert tuple(first) == COUNTS[name]
    assert min(sizes.values()) > 10_000


@pytest.mark.parametrize("name", FILES)
def test_a_stage_compiles_at_most_four_variants_of_its_step(name):
    """One for each set of phases that is due together, over all steps until they repeat."""
    config = _load(name)
    run = runs.build(config, _spec(config))
    for stage in games.stages(run.game, config, run.spec):
        phases = games.phases(run.game, config, run.nets, stage)
        repeat = math.lcm(*(phase.every for phase in phases))
        assert len({steps.due(phases, step) for step in range(repeat)}) <= 4


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_short_says_its_command_and_imports_only_neighbours(name):
    path = settings.EXPERIMENTS / f"{name}.py"
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 120
    assert f"--config={name}" in ast.get_docstring(tree)
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"ml_collections", *FILES}


@pytest.mark.parametrize("name", FILES)
def test_an_unknown_variant_names_the_known_ones(name):
    with pytest.raises(UserError, match=r"'smok'; expected .*smoke"):
        _load(name, "smok")


@pytest.mark.parametrize("name", FILES)
def test_values_are_overridden_from_text(name):
    player, other, *_ = _load(name).optim
    before = _load(name).optim[other].learning_rate
    config = _load(name, **{f"optim.{player}.learning_rate": "3e-3", "every.log_images": "5"})
    assert config.optim[player].learning_rate == 3e-3
    assert config.optim[other].learning_rate == before
    assert config.every.log_images == 5


@pytest.mark.parametrize("name", POSTER)
def test_ttur_rates_are_those_of_the_poster_and_of_the_docstring(name):
    described = ast.get_docstring(ast.parse((settings.EXPERIMENTS / f"{name}.py").read_text()))
    rows = [line.strip("|").split("|") for line in described.splitlines() if line.startswith("|")][2:]
    for variant, row, published in zip(("", "single"), rows, POSTER[name], strict=True):
        config = _load(name, variant)
        rates = (config.optim.discriminator.learning_rate, config.optim.generator.learning_rate)
        assert (*rates, config.total_images / 64) == published[:3]
        assert tuple(float(cell.replace(",", "")) for cell in row[1:]) == published
        assert config.batch_size == 64
        assert config.optim.discriminator.b1 == config.optim.generator.b1 == 0.5
        assert config.optim.generator.schedule == "constant"
        assert (config.generator.latent, config.generator.latent_size) == ("uniform", 100)
    assert config.data.resolution == (32 if name.startswith(("cifar10", "svhn")) else 64)


def test_celeba_dcgan_is_the_published_recipe():
    config = _load("celeba_dcgan")
    assert config.total_images == 25 * 162_770
    assert config.batch_size == 128
    for player in ("generator", "discriminator"):
        adam = config.optim[player]
        assert (adam.name, adam.learning_rate, adam.b1, adam.b2, adam.l2) == ("adam", 2e-4, 0.5, 0.999, 1e-5)
        assert config[player].kernel_size == 5
    assert (config.generator.latent, config.generator.latent_size) == ("uniform", 100)


def test_mnist_tutorial_is_the_published_recipe():
    config = _load("mnist_tutorial")
    assert (config.total_images, config.batch_size) == (50 * 60_000, 256)
    for player in ("generator", "discriminator"):
        adam = config.optim[player]
        assert (adam.name, adam.learning_rate, adam.b1, adam.b2, adam.eps) == ("adam", 1e-4, 0.9, 0.999, 1e-7)
    assert (config.generator.latent, config.discriminator.dropout) == ("normal", 0.3)


def test_the_conditional_experiment_differs_from_the_default_one_by_its_labels_alone():
    ours, theirs = (configs.flatten(_load(name)) for name in ("digits_dcgan_conditional", "digits_dcgan"))
    assert [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b] == [
        (("conditional", True), ("conditional", False))
    ]


@pytest.mark.parametrize("variant, name", [("", "mixture:ring8"), ("grid25", "mixture:grid25")])
def test_mixture_variants(variant, name):
    config = _load("mixture_gan", variant)
    assert config.data.name == name
    assert tuple(config.evaluation.metrics) == ("modes",)


@pytest.mark.parametrize(("name", "images", "batch_size", "direction", "moves"), [
    ("facades_pix2pix", 200 * 400, 1, "ba", True),
    ("maps_pix2pix", 200 * 1_096, 1, "ba", True),
    ("edges2shoes_pix2pix", 15 * 49_825, 4, "ab", False),
])  # fmt: skip
def test_pix2pix_experiments_have_the_values_of_the_papers_appendix(name, images, batch_size, direction, moves):
    config = _load(name)
    assert (config.total_images, config.batch_size, config.data.direction) == (images, batch_size, direction)
    assert (config.paired.jitter, config.data.flip) == (30 * moves, moves)  # 286 pixels, cut to 256
    assert (config.data.resolution, config.data.pair) == (256, "side_by_side")
    loss = config.loss
    assert (loss.name, loss.l1, loss.discriminator) == ("non_saturating", 100.0, 0.5)
    for adam in config.optim.values():
        assert (adam.name, adam.schedule) == ("adam", "constant")
        assert (adam.learning_rate, adam.b1, adam.b2) == (2e-4, 0.5, 0.999)
    generator = config.generator
    assert (generator.norm, generator.statistics, generator.dropout, generator.dropout_layers) == (
        "batch", "picture", 0.5, 3)  # fmt: skip


@pytest.mark.parametrize(("name", "images", "epochs", "captions"), [
    ("cub_dfgan", 8_855, 1_301, 10), ("coco_dfgan", 82_783, 301, 5),
])  # fmt: skip
def test_dfgan_experiments_have_the_papers_values(name, images, epochs, captions):
    """The players' share of the run, after that of the encoders."""
    config = _load(name)
    assert config.total_images - config.matching.images == images * epochs
    assert (config.batch_size, config.data.captions, config.data.resolution) == (32, captions, 256)
    assert (config.data.flip, config.text_to_image.jitter) == (True, 48)  # 304 pixels, cut to 256
    assert (config.loss.name, config.loss.matching_aware, config.loss.power) == ("hinge", 2.0, 6.0)
    for player, rate in (("generator", 1e-4), ("discriminator", 4e-4)):
        adam = config.optim[player]
        assert (adam.name, adam.schedule, adam.learning_rate, adam.b1, adam.b2) == ("adam", "constant", rate, 0.0, 0.9)
        assert config[player].width == 32
    assert (config.generator.latent_size, config.generator.truncation, config.text.size) == (100, 0.88, 256)


def test_a_map_may_be_drawn_from_a_photograph():
    assert _load("maps_pix2pix", "aerial2map").data.direction == "ab"
