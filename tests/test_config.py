"""Experiment files, overrides and the comparison of configs."""

import json

import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import runs
from gan_jax.errors import MissingPathError, UserError
from tests import settings

FILE = settings.EXPERIMENTS / "digits_dcgan.py"


def load(*overrides, variant=":smoke"):
    return runs.load_config(f"{FILE}{variant}", overrides)


@pytest.fixture
def experiment(tmp_path):
    """Writes an experiment file: body of get_config -> path."""

    def write(body: str, head: str = "from ml_collections import ConfigDict"):
        path = tmp_path / "mine.py"
        path.write_text(f"{head}\ndef get_config(variant=''):\n    {body}\n")
        return str(path)

    return write


def test_defaults_are_filled_in_and_the_config_is_locked():
    config = load()
    assert config.every.generator_steps == 1 and config.parallel == "shard_map" and config.data.crop == "center"
    assert config.optim.generator.eps == 1e-8 and config.generator.width == 4
    with pytest.raises((KeyError, AttributeError)):
        config.nothing = 1
    assert load(variant="").total_images > 1000


@pytest.mark.parametrize(("key", "text", "value"), [
    ("seed", "7", 7), ("total_images", "1e6", 1_000_000), ("total_images", "12_000", 12_000),
    ("optim.generator.learning_rate", "1e-4", 1e-4), ("optim.generator.learning_rate", "1", 1.0),
    ("data.flip", "True", True), ("data.flip", "0", False), ("data.dir", "", ""), ("data.split", "a[:9%]", "a[:9%]"),
    ("evaluation.metrics", "fd,kd", ("fd", "kd")), ("evaluation.metrics", "()", ()),
    ("evaluation.metrics", "fd", ("fd",)),
    ("data.resolution", "64", 64), ("data.resolution", "(48, 64)", (48, 64)),
    ("game", "unconditional", "unconditional"),
])  # fmt: skip
def test_overrides_are_read_as_the_type_of_the_key(key, text, value):
    override = dict(configs.flatten(load((key, text))))[key]
    assert override == value and type(override) is type(value)


@pytest.mark.parametrize(("key", "text", "message"), [
    ("optim.generator.learning_rat", "1", "did you mean --config.optim.generator.learning_rate"),
    ("learning_rate", "1", "did you mean --config.optim.*learning_rate"),
    ("optim.generator.lr", "1", "did you mean --config.optim.generator.learning_rate"),
    ("genrator.width", "1", "did you mean --config.generator.width"),
    ("seed.x", "1", "no key 'seed.x'"),
    ("optim.generator", "adam", "this is a section; set one of b1, b2"),
    ("seed", "one", "--config.seed=one: expected int"),
    ("seed", "1.5", "expected int"),
    ("optim.generator.b1", "half", "expected float"),
    ("data.flip", "perhaps", "expected True or False"),
    ("game", "uncondtional", "config.game='uncondtional': expected one of"),
    ("generator.name", "dcgann", "dcgan"),
])  # fmt: skip
def test_a_wrong_override_is_told(key, text, message):
    with pytest.raises(UserError, match=message):
        load((key, text))


def test_a_missing_file_names_its_neighbours():
    with pytest.raises(MissingPathError, match="no file .*digits_dgan.py; nearest: .*digits_dcgan.py"):
        runs.load_config(str(settings.EXPERIMENTS / "digits_dgan.py"))
    with pytest.raises(UserError, match="unknown or failing variant.*smok.*expected smoke"):
        load(variant=":smok")


@pytest.mark.parametrize(("body", "message"), [
    ("return {}", "returned dict, expected a ConfigDict"),
    ("return ConfigDict(dict(game='unconditional'))", r"does not set config\.data\.name"),
    ("raise KeyError(variant)", "unknown or failing variant"),
])  # fmt: skip
def test_a_broken_experiment_is_told(experiment, body, message):
    with pytest.raises(UserError, match=message):
        runs.load_config(experiment(body))


def test_files_that_are_no_experiments(experiment, tmp_path):
    with pytest.raises(UserError, match="mine.py: ModuleNotFoundError"):
        runs.load_config(experiment("return None", head="import nothing_of_that_name"))
    (tmp_path / "empty.py").touch()
    with pytest.raises(UserError, match="defines no get_config"):
        runs.load_config(str(tmp_path / "empty.py"))
    (tmp_path / "text.txt").touch()
    with pytest.raises(UserError, match="ending in .py"):
        runs.load_config(str(tmp_path / "text.txt"))


@pytest.mark.parametrize(("key", "near"), [("gird", "grid"), ("every.log_image", "every.log_images"),
                                           ("generator.widht", "generator.width")])  # fmt: skip
def test_a_key_that_nothing_reads_is_refused(experiment, key, near):
    body = (
        "c = ConfigDict(dict(data=dict(name='digits'), generator=dict(name='dcgan'), discriminator=dict(name='dcgan'), "
        f"every=dict())); c.update_from_flattened_dict({{{key!r}: 1}}) if {key!r} in c else None; "
        f"s = c\n    for part in {key.split('.')[:-1]}: s = s[part]\n    s[{key.split('.')[-1]!r}] = 1\n    return c"
    )
    with pytest.raises(UserError, match=f"sets config.{key}, which nothing reads; did you mean config.{near}"):
        runs.load_config(experiment(body))


def test_json_is_an_inverse():
    config = load(("evaluation.metrics", "fd,kd"))
    text = configs.to_json(config)
    again = configs.from_json(text)
    assert configs.to_json(again) == text and configs.flatten(again) == configs.flatten(config)
    assert again.evaluation.metrics == ("fd", "kd") and isinstance(again.optim, ConfigDict)
    assert list(json.loads(text)) == sorted(json.loads(text))
    for garbage in ("", "{", "3", "[]", "null"):
        with pytest.raises(ValueError):
            configs.from_json(garbage)


def test_differences_leave_safe_keys_out():
    old = load()
    assert configs.differences(old, load()) == []
    assert configs.differences(configs.from_json(configs.to_json(old)), old) == []
    safe = [("total_images", "99"), ("grid", "9"), ("evaluation.samples", "5"), ("parallel", "pmap"),
            ("checkpoints.keep", "9")]  # fmt: skip
    safe += [(f"every.{k}_images", "5") for k in ("log", "sample", "checkpoint", "evaluate")]
    assert configs.differences(old, load(*safe)) == []
    changed = configs.differences(old, load(("seed", "1"), ("every.generator_steps", "2"), ("data.flip", "1")))
    assert changed == ["config.data.flip: False -> True", "config.every.generator_steps: 1 -> 2", "config.seed: 0 -> 1"]
    fewer = configs.from_json(configs.to_json(old)).unlock()
    del fewer.generator["width"]
    assert configs.differences(fewer, old) == ["config.generator.width: '(absent)' -> 4"]


@pytest.mark.parametrize("game", ["unconditional", "progressive", "style"])
def test_an_augmentation_without_a_name_is_none(game):
    """Its section may be empty; what only another augmentation reads is refused."""
    name = {"unconditional": "digits_dcgan", "progressive": "digits_progan", "style": "digits_stylegan2"}[game]
    stated = runs.load_config(f"{settings.EXPERIMENTS / name}.py:smoke").copy_and_resolve_references().unlock()
    assert stated.game == game
    stated.augment = ConfigDict()
    assert configs.resolve(stated, (), runs.defaults).augment.name == "none"
    stated.augment = ConfigDict({"policy": "color"})
    with pytest.raises(UserError, match="config.augment.policy, which nothing reads"):
        configs.resolve(stated, (), runs.defaults)


def test_a_section_is_its_constructors_signature():
    def constructor(*, size, depth=2, name="x"):
        return size, depth

    section = ConfigDict({"name": "made", "size": 3})
    assert configs.build(constructor, section, "part") == (3, 2)
    assert configs.build(constructor, ConfigDict({"size": 3}), "part", depth=5) == (3, 5)
    with pytest.raises(UserError, match="config.part.dept is not an option of constructor; did you mean 'depth'"):
        configs.build(constructor, ConfigDict({"size": 1, "dept": 1}), "part")
    assert configs.fields(constructor) == {"depth": 2}


def test_options_take_keys_that_only_their_reader_knows():
    config = settings.digits()
    configs.override(config, "loss.options.real_target", "0.9")
    assert config.loss.options.real_target == 0.9
    settings.build(config)
    configs.override(config, "loss.options.real_tarket", "0.9")
    with pytest.raises(UserError, match="real_target"):
        settings.build(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "-1"),
        ("grid", "0"),
        ("evaluation.samples", "1"),
        ("generator.strides", "(0, 2, 2)"),
        ("generator.dtype", "bf16"),
        ("generator.dtype", "int8"),
    ],
)
def test_values_that_make_no_sense_are_refused_before_anything_is_written(key, value):
    config = settings.digits()
    configs.override(config, key, value)
    with pytest.raises(UserError, match=key.rpartition(".")[2]):
        settings.build(config)


@pytest.mark.parametrize("net", ["generator", "discriminator"])
def test_float16_is_refused_in_favour_of_bfloat16(net):
    config = settings.digits()
    configs.override(config, f"{net}.dtype", "float16")
    with pytest.raises(UserError, match=rf"config.{net}.dtype='float16': .*take bfloat16"):
        settings.build(config)
    configs.override(config, f"{net}.dtype", "bfloat16")
    settings.build(config)
