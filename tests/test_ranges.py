"""Numbers out of range are refused before anything of a run is written, each with its key and what was expected."""

import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import runs, specs
from gan_jax.errors import UserError
from tests import settings

STYLE, GROWING, PLAIN = "digits_stylegan2", "digits_progan", "digits_dcgan"
EVERY = (STYLE, GROWING, PLAIN)

CASES = [
    *((name, key, value, expected) for name in EVERY for key, value, expected in (
        ("ema.half_life_images", "-1", "0 or more"),
        ("ema.half_life_images", "inf", "a finite number"),
        ("ema.rampup", "-0.1", "0 or more"),
        ("ema.decay", "1.0", "0 or more and below 1"),
        ("ema.decay", "-0.1", "0 or more and below 1"),
        ("generator.latent_size", "0", "1 or more"),
        ("loss.r1_gamma", "-5", "0 or more"),
        ("loss.r1_gamma", "nan", "a finite number"),
        *((f"every.{what}_images", "-1", "0 or more") for what in ("log", "sample", "checkpoint", "evaluate")),
        ("checkpoints.keep", "0", "1 or more"),
    )),
    (STYLE, "generator.w_avg_beta", "1.5", "0 to 1"),
    (STYLE, "discriminator.mbstd_group", "-2", "0 or more"),
    (STYLE, "loss.path_length_weight", "-1", "0 or more"),
    (STYLE, "loss.path_length_decay", "-5", "0 to 1"),
    (STYLE, "loss.path_length_decay", "5", "0 to 1"),
    (STYLE, "loss.path_length_shrink", "0", "1 or more"),
    (STYLE, "loss.blur_sigma", "-1", "0 or more"),
    (STYLE, "loss.blur_fade_images", "-1", "0 or more"),
    (STYLE, "every.penalty_steps", "0", "1 or more"),
    (STYLE, "style.mixing", "1.5", "0 to 1"),
    (STYLE, "style.noise", "radom", "const, random, none"),
    (GROWING, "loss.class_weight", "-5", "0 or more"),
    (GROWING, "loss.gradient_penalty", "-5", "0 or more"),
    (GROWING, "loss.gradient_target", "0", "above 0"),
    (GROWING, "loss.drift", "-1", "0 or more"),
    (GROWING, "loss.style_mixing", "1.5", "0 to 1"),
    (GROWING, "growth.devices", "0", "1 or more"),
    (GROWING, "growth.batch_sizes", "(8,)", "pairs.* 1 or more, such as"),
    (GROWING, "growth.batch_sizes", "((8, 0),)", "pairs.* 1 or more, such as"),
    (GROWING, "growth.batch_sizes", "((8, 1.5),)", "whole number"),
    (GROWING, "growth.batch_sizes", "((8, 16, 2),)", "pairs"),
    (GROWING, "growth.device_batch_limits", "(8, 16)", "pairs.* 1 or more, such as"),
    (GROWING, "growth.learning_rates", "((8, -1.0),)", "pairs.* 0 or more, such as"),
    (PLAIN, "loss.dragan", "-1", "0 or more"),
    (PLAIN, "loss.penalty_decay_images", "-1", "0 or more"),
    (PLAIN, "every.generator_steps", "0", "1 or more"),
]  # fmt: skip


def _build(name, **changes):
    config = runs.load_config(f"{settings.EXPERIMENTS / name}.py:smoke")
    for key, value in changes.items():
        configs.override(config, key, value)
    return runs.build(config, specs.labelled((config.data.resolution,) * 2 + (1,), 0))


@pytest.mark.parametrize(("name", "key", "value", "expected"), CASES)
def test_a_number_out_of_range_is_refused(name, key, value, expected):
    with pytest.raises(UserError, match=rf"^config\.{key}=.*: expected .*{expected}"):
        _build(name, **{key: value})


def test_zero_images_between_two_logs_are_allowed():
    _build(PLAIN, **{f"every.{what}_images": "0" for what in ("log", "sample", "checkpoint", "evaluate")})


def test_a_blur_needs_images_over_which_it_fades():
    with pytest.raises(UserError, match="blur_fade_images=0: expected a finite number, above 0"):
        _build(STYLE, **{"loss.blur_sigma": "2", "loss.blur_fade_images": "0"})
    _build(STYLE, **{"loss.blur_sigma": "0", "loss.blur_fade_images": "0"})


@pytest.mark.parametrize(("expected", "inside", "outside"), [
    ("0 or more", (0, 0.5, 1e9), (-1e-9, float("nan"), float("inf"), "1")),
    ("above 0", (1e-9, 3), (0, -1)),
    ("1 or more", (1, 5), (0, 0.5)),
    ("0 to 1", (0, 1, 0.5), (-0.1, 1.1)),
    ("0 or more and below 1", (0, 0.999), (1, -0.1)),
])  # fmt: skip
def test_the_ends_of_ranges(expected, inside, outside):
    for value in inside:
        configs.check_range(ConfigDict({"a": {"b": value}, "c": -7}), expected, "a.b", "a.missing")
    for value in outside:
        with pytest.raises(UserError, match="config.a.b="):
            configs.check_range(ConfigDict({"a": {"b": value}}), expected, "a.b")
