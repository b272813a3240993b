"""Samples that are drawn from captions: the user's, of a file, from Python, and held-out ones."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import gan_jax
from gan_jax import cli, run_data, runs, sample_flags
from gan_jax.data import captions, open_dataset
from tests import caption_game, settings

SEVEN, PAIR = "a dim seven on the left", "two bright digits: one left, three right"
TEXT = "--captions=A dim seven, on the LEFT"


def templates() -> np.ndarray:
    """A picture of each digit (11, 8, 8) in [-1, 1]: bits of its number plus 1, two columns each; the last is black."""
    bits = (np.arange(1, 11)[:, None] >> np.arange(4)) & 1
    columns = np.concatenate([np.repeat(bits, 2, axis=1), np.zeros((1, 8), int)])
    return np.broadcast_to(2.0 * columns[:, None] - 1, (11, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that draws what is said."""
    folder = tmp_path_factory.mktemp("captions") / "run"
    config = runs.load_config(caption_game.__file__)

    def learned(state):
        value = jax.tree.map(lambda x: templates() if x.shape == (11, 8, 8) else x, state.ema)
        return state._replace(ema=value)

    settings.fresh_folder(config, folder, learned)
    return folder


def _expected(left, right, level):
    """uint8 (8, 16) of what is said, to the noise of a level or two."""
    picture = np.concatenate([templates()[left], templates()[right]], axis=1)
    return np.round((level * (picture + 1)) * 127.5)


def _is_drawn(image, left, right, level):
    return np.abs(np.asarray(image, np.float64).reshape(8, 16) - _expected(left, right, level)).max() < 3


def test_a_run_is_trained_with_grids_of_held_out_captions(tmp_path):
    assert cli.main(["train", f"--config={caption_game.__file__}", f"--workdir={tmp_path / 'run'}"]) == 0
    grids = sorted((tmp_path / "run" / "samples").glob("fakes_*.png"))
    assert {np.asarray(Image.open(grid)).shape for grid in grids} == {(2 * 10 - 2, 3 * 18 - 2)} and len(grids) >= 2
    summary = json.loads((tmp_path / "run" / "data.json").read_text())
    assert tuple(summary["words"]) == caption_game.WORDS
    assert summary["spec"]["caption"] == {"kind": "tokens", "shape": [2, 8], "classes": 20}


def test_one_caption_is_drawn_with_every_seed(run, tmp_path):
    """Capitals and punctuation are as in the data."""
    out = tmp_path / "out"
    assert cli.main(["sample", f"--workdir={run}", f"--out={out}", TEXT, "--seeds=3,5"]) == 0
    names = ["seed000003_caption000.png", "seed000005_caption000.png"]
    assert sorted(path.name for path in out.iterdir()) == ["captions.txt", "grid.png", *names]
    images = [np.asarray(Image.open(out / name)) for name in names]
    assert all(_is_drawn(image, 7, 10, 0.4) for image in images) and (images[0] != images[1]).any()
    assert (out / "captions.txt").read_text() == "A dim seven, on the LEFT\n"


def test_the_captions_of_a_file_are_the_rows_of_the_grid(run, tmp_path):
    """What is written beside the grid is such a file again."""
    file, out = tmp_path / "two.TXT", tmp_path / "out"
    file.write_bytes(f"\ufeff{SEVEN}\r\n\n{PAIR}\n".encode())
    command = ["sample", f"--workdir={run}", "--seeds=0-2"]
    assert cli.main([*command, f"--out={out}", f"--captions={file}"]) == 0
    grid = np.asarray(Image.open(out / "grid.png"))
    assert grid.shape == (2 * 10 - 2, 3 * 18 - 2)
    for row, meaning in enumerate([(7, 10, 0.4), (1, 3, 1.0)]):
        for column in range(3):
            cell = grid[row * 10 : row * 10 + 8, column * 18 : column * 18 + 16]
            assert _is_drawn(cell, *meaning)
            image = np.asarray(Image.open(out / f"seed{column:06}_caption{row:03}.png"))
            np.testing.assert_array_equal(image, cell)
    assert (out / "captions.txt").read_text() == f"{SEVEN}\n{PAIR}\n"
    assert cli.main([*command, f"--out={tmp_path / 'again'}", f"--captions={out / 'captions.txt'}"]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "again" / "grid.png")), grid)


def test_without_captions_seeds_are_held_out_examples(run, tmp_path):
    assert cli.main(["sample", f"--workdir={run}", f"--out={tmp_path}", "--seeds=2,0,1001"]) == 0
    test = open_dataset(name="digits:captions", resolution=(8, 16), split="test")
    examples = test.examples(np.array([2, 0, 1]))  # which begin anew after the last one
    lines = (tmp_path / "captions.txt").read_text().splitlines()
    assert lines == [captions.Words(test.words).decode(row[0]) for row in examples["caption"]]
    for i, name in enumerate(("example000002", "example000000", "example001001")):
        level = (0.4, 1.0)[examples["brightness"][i]]
        assert _is_drawn(Image.open(tmp_path / f"{name}.png"), examples["left"][i], examples["right"][i], level)


def test_captions_from_python(run, tmp_path):
    trained = gan_jax.open_run(run)
    assert trained.words == caption_game.WORDS
    images = trained.sample([4, 5], captions=[SEVEN, PAIR])
    assert images.shape == (4, 8, 16, 1) and images.dtype == np.uint8
    assert [_is_drawn(image, 7, 10, 0.4) for image in images] == [True, True, False, False]
    assert all(_is_drawn(image, 1, 3, 1.0) for image in images[2:])
    assert trained.sample(captions=SEVEN).shape == (8, 8, 16, 1)
    assert trained.sample(range(3)).shape == (3, 8, 16, 1)
    (tmp_path / "a.txt").write_text(SEVEN)
    np.testing.assert_array_equal(trained.sample([4], captions=str(tmp_path / "a.txt")), images[:1])
    for value in ([], [3], 3):
        with pytest.raises(gan_jax.UserError, match=r"captions=.*: expected a text, or several texts in a list"):
            trained.sample(captions=value)
    with pytest.raises(gan_jax.UserError, match="draws from captions, not from latents; take `sample`"):
        trained.latents([1])
    with pytest.raises(gan_jax.UserError, match=r"^captions: 'a dim cat': .* the word 'cat'; it knows left"):
        trained.sample(captions="a dim cat")


@pytest.mark.parametrize(("flags", "message"), [
    (["--captions=a dim sevn on the left"], "has the word 'sevn'; near it: seven"),
    (["--captions=a tiny puffin on the left"], "has the word 'tiny'; it knows left, right, .*2 unknown in all: tiny"),
    (["--captions=" + "left " * 9], "has 9 tokens, and this run reads up to 8; make it shorter"),
    (["--captions=!?"], "'!.' has no word"),
    (["--captions=FOLDER/none.txt"], "--captions=.*none.txt: there is no file"),
    (["--captions=FOLDER/empty.txt"], "empty.txt: the file is empty; write a caption a line"),
    (["--captions=FOLDER/latin.txt"], r"latin.txt: no UTF-8 \(byte 1\)"),
    (["--captions=FOLDER/large.txt"], "large.txt: larger than 1 MiB"),
    ([TEXT, "--labels=3"], "--labels=3: the game 'tests.caption_game' draws from captions; leave it out"),
    (["--seeds=0-3", "--interpolate=3"], "--interpolate=3: the game 'tests.caption_game' draws from captions"),
    ([TEXT, "--inputs=x.png"], "--inputs=x.png: the game 'tests.caption_game' draws from"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_named(run, tmp_path, capsys, flags, message):
    import re

    for name, content in {"empty": b"\n", "latin": b"M\xe4rz", "large": b"a\n" * (1 << 20)}.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    flags = [flag.replace("FOLDER", str(tmp_path)) for flag in flags]
    assert cli.main(["sample", f"--workdir={run}", f"--out={tmp_path / 'out'}", *flags]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_other_games_draw_from_no_captions():
    run = settings.build(settings.digits())
    with pytest.raises(gan_jax.UserError, match="--captions: the game 'unconditional' draws from seeds; leave the"):
        sample_flags.read(sample_flags.Flags(captions=SEVEN), run)


def test_games_that_ask_for_more_than_captions_draw_held_out_examples(monkeypatch):
    """The user can give no class beside a caption."""
    config = runs.load_config(caption_game.__file__)
    monkeypatch.setattr(caption_game, "reads", lambda config: ("image", "caption", "brightness"))
    monkeypatch.setattr(caption_game, "asks", lambda config: ("caption", "brightness"))
    run = runs.build(config, run_data.data_spec(config, run_data.open_data(config)))
    with pytest.raises(gan_jax.UserError, match="draws from brightness too; give --seeds=0-7 alone"):
        sample_flags.read(sample_flags.Flags(captions=SEVEN), run, (), caption_game.WORDS)
    job = sample_flags.read(sample_flags.Flags(seeds="3,4"), run, (), caption_game.WORDS)
    assert set(job.given) == {"caption", "brightness"} and len(job.captions) == 2


def test_a_folder_whose_words_are_lost_is_named(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "data.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps({**summary, "words": summary["words"][:5]}))
    assert cli.main(["sample", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", TEXT]) == 2
    assert "are of 20 tokens, and 5 are there: bring back its data.json" in capsys.readouterr().err
