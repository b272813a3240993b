"""Text to image with CLIP's tokenizer and text tower: a run by the commands, what it draws from, what is refused."""

import json
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

import gan_jax
from gan_jax import cli, runs, specs
from gan_jax import config as configs
from gan_jax.data import bpe, captions, open_dataset
from gan_jax.features import clip_text
from gan_jax.features.state import random_state
from gan_jax.games import players
from gan_jax.layers import pixels
from tests import settings

TABLE = pathlib.Path(__file__).parent / "golden" / "clip_tokenizer.json"
SIZE = clip_text.Size(1, 64, 1, 674, 16, 12)
SEVEN, PAIR = "a dim seven on the left", "Two Bright digits"
EXPERIMENT = """
from digits_captions import get_config as words

def get_config(variant=""):
    config = words("smoke")
    config.text = {{"name": "clip", "weights": {tower!r}}}
    config.data.update({{"tokenizer": {table!r}, "caption_length": 16}})
    config.matching = {{"images": 0}}
    del config.optim["encoders"]
    return config
"""


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """The file of a small tower for the tokens of the recorded table."""
    path = tmp_path_factory.mktemp("tower") / "model.safetensors"
    safetensors.numpy.save_file(random_state(clip_text.shapes(SIZE), 5), path)
    return path


@pytest.fixture(scope="module")
def experiment(tower):
    """The captioned digits' experiment, shrunk, with that tower."""
    path = tower.with_name("clip_digits.py")
    path.write_text(EXPERIMENT.format(tower=str(tower), table=f"clip:{TABLE}"))
    return path


def _config(experiment, **overrides):
    config = runs.load_config(str(experiment))
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _build(config, captions=(1, 16), vocabulary=674):
    spec = {"image": specs.Field("image", (8, 16, 1)), "caption": specs.Field("tokens", captions, vocabulary)}
    return runs.build(config, spec)


@pytest.fixture(scope="module")
def folder(experiment, tmp_path_factory):
    """The folder of a run, by the command."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert cli.main(["train", f"--config={experiment}", f"--workdir={folder}"]) == 0
    return folder


def test_a_run_is_trained_and_its_state_has_no_tower(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [8, 16, 24] and "discriminator/matching_aware" in lines[-1]
    summary = json.loads((folder / "data.json").read_text())
    assert summary["spec"]["caption"] == {"kind": "tokens", "shape": [1, 16], "classes": 674}
    trained = gan_jax.open_run(folder)
    assert set(trained.state.params) == {"generator", "discriminator"} and set(trained.state.ema) == {"generator"}
    assert set(trained.state.opt) == {"generator", "discriminator"}


def test_images_are_drawn_from_the_towers_sentence(experiment, tower, tmp_path):
    """Computed here of the generator, the tower's file and the table alone."""
    rng = np.random.default_rng(0)  # a fresh generator hardly listens

    def shifted(state):
        return state._replace(ema=jax.tree.map(lambda x: x + rng.normal(0, 0.3, x.shape).astype(x.dtype), state.ema))

    run = settings.fresh_folder(_config(experiment), tmp_path / "run", shifted)
    trained, generator = gan_jax.open_run(tmp_path / "run"), run.nets["generator"]
    table, net = bpe.load(str(TABLE)), clip_text.load(str(tower))
    tokens = np.zeros((2, 16), np.int32)
    for row, caption in zip(tokens, (SEVEN, PAIR), strict=True):
        encoded = table.encode(caption)
        row[: len(encoded)] = encoded
    sentences, _ = jax.jit(net.apply)(net.arrays, tokens)
    z = players.latents(generator, jax.vmap(jax.random.key)(np.uint32([4, 4])))
    images = generator.apply(trained.state.ema["generator"], z, sentences, train=False)
    drawn = trained.sample([4], captions=[SEVEN, PAIR]).astype(int)
    assert np.abs(drawn - np.asarray(pixels.quantise(images), int)).max() <= 1
    assert np.abs(drawn[0] - drawn[1]).max() > 8


def test_the_command_draws_captions_and_held_out_ones(folder, tmp_path):
    out = tmp_path / "out"
    command = ["sample", f"--workdir={folder}", f"--out={out}", "--seeds=0,1"]
    assert cli.main([*command, f"--captions={SEVEN}"]) == 0
    assert (out / "seed000001_caption000.png").is_file()
    assert cli.main(command) == 0
    lines = (out / "captions.txt").read_text().splitlines()
    test = open_dataset(name="digits:captions", resolution=(8, 16), split="test", caption_length=16)
    sentences = [captions.Words(test.words).decode(row[0]) for row in test.examples(np.arange(2))["caption"]]
    assert [captions.words_of(line) for line in lines] == [line.split() for line in sentences]


def test_a_caption_that_is_too_long_is_refused(folder, tmp_path, capsys):
    assert cli.main(["sample", f"--workdir={folder}", f"--out={tmp_path}", f"--captions={'seven ' * 19}"]) == 2
    assert "tokens, and this run reads up to 16; make it shorter" in capsys.readouterr().err


def test_one_and_eight_devices_agree(experiment):
    sgd = {f"optim__{player}__{key}": value for player in ("generator", "discriminator")
           for key, value in (("name", "sgd"), ("learning_rate", 0.02))}  # fmt: skip
    run = _build(_config(experiment, **sgd))
    state = runs.fresh_state(run)
    one, measured = settings.play(run, count=1, state=state)
    eight, again = settings.play(run, count=1, devices=8, state=state)
    assert settings.largest_difference(one.params, eight.params, floor=0.01) < 2e-5
    np.testing.assert_allclose(list(measured[0].values()), list(again[0].values()), rtol=2e-4, atol=1e-6)
    assert settings.largest_difference(one.params, state.params) > 1e-5
