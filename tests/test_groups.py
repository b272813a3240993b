"""Samples that are seen together stay on one device: where one would hold parts of groups, the batch is refused."""

import jax
import pytest

from gan_jax import config as configs
from gan_jax import games, parallel, runs, specs
from gan_jax.errors import UserError
from gan_jax.train import train
from tests import settings


def _config(name, variant="smoke", **overrides):
    config = runs.load_config(f"{settings.EXPERIMENTS / name}.py:{variant}")
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _check(config, devices):
    """As the loop does, in every stage."""
    side = config.data.resolution
    spec = specs.labelled((side, side, config.data.channels), 10 * config.conditional)
    run = runs.build(config, spec)
    groups = games.groups(run.game, config, run.nets)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    for stage in games.stages(run.game, config, spec):
        parallel.check_batch_size(stage.batch_size, config.accumulate, mesh)
        parallel.check_groups(groups, stage.batch_size, config.accumulate, mesh)


@pytest.mark.parametrize(
    ("groups", "batch", "accumulate", "devices"),
    [
        ({"a": 4}, 8, 1, 2),
        ({"a": 4}, 16, 2, 2),
        ({"a": 4}, 2, 1, 1),  # of a batch that is smaller, all
        ({"a": 0}, 8, 1, 1),
        ({"a": 1, "b": 2}, 16, 1, 8),
        ({}, 8, 1, 8),
    ],
)
def test_whole_groups_pass(groups, batch, accumulate, devices):
    parallel.check_groups(groups, batch, accumulate, parallel.make_mesh(jax.devices()[:devices]))


@pytest.mark.parametrize(
    ("groups", "batch", "accumulate", "devices", "told"),
    [
        ({"a": 4}, 8, 1, 4, "a=4: .* groups of 4 .* has 2 .* 8 over 4 devices, .*accumulate=1.*set config.a=2"),
        ({"a": 4}, 24, 1, 4, "it has 6 .*set config.a=2, or take"),
        ({"a": 4}, 12, 1, 4, r"it has 3 .*\); take a larger batch, or fewer devices"),
        ({"a": 4}, 8, 4, 1, "it has 2 .*8 over 1 devices, config.accumulate=4.*fewer devices or micro-batches"),
        ({"a": 0}, 8, 1, 2, "a=0: .* groups of 8 samples, it has 4.*set config.a=4"),
        ({"a": 4, "b": 8}, 8, 1, 2, "b=8"),
    ],
)
def test_parts_of_groups_are_refused(groups, batch, accumulate, devices, told):
    with pytest.raises(UserError, match=told):
        parallel.check_groups(groups, batch, accumulate, parallel.make_mesh(jax.devices()[:devices]))


def test_the_tuned_cifar_trains_on_two_devices_and_no_more():
    """Its groups are of 32 images in a batch of 64."""
    _check(_config("stylegan2_ada", "cifar"), 2)
    for devices, accumulate in ((4, 1), (8, 1), (1, 4)):
        with pytest.raises(UserError, match="config.discriminator.mbstd_group=32"):
            _check(_config("stylegan2_ada", "cifar", accumulate=accumulate), devices)


def test_the_measured_paths_are_the_same_on_all_devices():
    changes = dict(discriminator__mbstd_channels=0, batch_size=8)
    with pytest.raises(UserError, match="config.loss.path_length_shrink=2"):
        _check(_config("digits_stylegan2", **changes), 8)
    _check(_config("digits_stylegan2", **changes), 4)
    _check(_config("digits_stylegan2", **changes, loss__path_length_weight=0.0), 8)


SHIPPED = [
    *(("stylegan2_ada", f"auto_{side}_{n}gpu", n) for side in (128, 256, 512, 1024) for n in (1, 2, 4, 8)),
    *((name, preset, 8) for name, presets in {
        "stylegan2_ada": ("stylegan2", "paper256", "paper512", "paper1024"),
        "ffhq_stylegan2": ("E", "F", "E_512", "F_256"),
        "ffhq_stylegan": tuple("ABCDEF"),
        "stylegan3": ("t", "r", "t_256"),
    }.items() for preset in presets),
    *(("celebahq_progan", f"1024_{n}gpu", n) for n in (1, 2, 4, 8)),
    *(("lsun_progan", f"cat_{n}gpu", n) for n in (2, 4, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "variant", "devices"), SHIPPED)
def test_published_settings_fit_the_devices_that_they_are_for(name, variant, devices):
    _check(_config(name, variant), devices)


@pytest.mark.parametrize(("name", "key"), [
    ("digits_stylegan2", "mbstd_group"), ("digits_progan", "stddev_group"), ("ffhq_stylegan", "stddev_group"),
])  # fmt: skip
def test_a_run_is_refused_before_its_folder_is_written(name, key, tmp_path):
    with pytest.raises(UserError, match=f"config.discriminator.{key}=4: .* it has 1 "):
        train(_config(name), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
