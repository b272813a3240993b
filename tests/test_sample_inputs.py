"""Samples that are drawn from pictures: a user's photo, folder or zip, and held-out examples of the data."""

import json
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import cli, folders, painter, parallel, run_data, runs, sample
from gan_jax.layers import pixels
from tests import settings


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, Run) of a translation before its first step, its networks drawn large enough to be told apart."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_cyclegan.py'}:smoke")
    folder = tmp_path_factory.mktemp("inputs") / "run"

    def louder(state):
        return state._replace(ema=jax.tree.map(lambda x: 3 * x, state.ema))

    return folder, settings.fresh_folder(config, folder, louder)


@pytest.fixture(scope="module")
def translate(made):
    """uint8 (N, 16, 16, 3) of domain a -> the generator's own answer in b, uint8, one picture at a time."""
    folder, run = made
    ema = folders.restore(run, folder, parallel.make_mesh()).state.ema["generator_ab"]

    @jax.jit
    def one(x):
        return pixels.quantise(run.nets["generator_ab"].apply(ema, pixels.normalise(x[None]), train=False))[0]

    return lambda images: np.stack([one(x) for x in images])


@pytest.fixture
def photos(tmp_path):
    """Three pictures of the run's own size, and their pixels."""
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in zip(("a.png", "b.png", "c.bmp"), images, strict=True):
        Image.fromarray(image).save(folder / name)
    return folder, images


def _read(folder, names):
    return np.stack([np.asarray(Image.open(folder / f"{name}.png")) for name in names])


def _close(ours, theirs):
    """Sums may be ordered otherwise in another batch, and turn a level at its edge."""
    return np.abs(ours.astype(int) - theirs).max() <= 1 and (ours != theirs).mean() < 0.01


def test_a_folder_is_translated_picture_by_picture(made, translate, photos, tmp_path):
    folder, images = photos
    files = sample.sample(made[0], tmp_path / "out", inputs=str(folder))
    assert [file.name for file in files] == ["a.png", "b.png", "c.png", "grid.png"]
    ours = _read(tmp_path / "out", "abc")
    assert _close(ours, translate(images)) and np.abs(ours.astype(int) - images).max() > 20
    # The overview has each picture, its translation, and the way back, in this order.
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    np.testing.assert_array_equal(grid[:16, :16], images[0])
    np.testing.assert_array_equal(grid[:16, 18:34], ours[0])


def test_the_other_direction_is_the_other_generator(made, photos, tmp_path):
    folder, images = photos
    sample.sample(made[0], tmp_path / "ab", inputs=str(folder), direction="ab")
    sample.sample(made[0], tmp_path / "ba", inputs=str(folder), direction="ba")
    run, ema = made[1], folders.restore(made[1], made[0], parallel.make_mesh()).state.ema["generator_ba"]
    back = jax.jit(lambda x: run.nets["generator_ba"].apply(ema, pixels.normalise(x), train=False))(images)
    ours = _read(tmp_path / "ba", "abc")
    assert _close(ours, np.asarray(pixels.quantise(back)))
    assert np.abs(ours.astype(int) - _read(tmp_path / "ab", "abc")).max() > 20


def test_a_zip_and_a_single_picture_give_the_same(made, photos, tmp_path):
    folder, _ = photos
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"inner/{file.name}")
    whole = sample.sample(made[0], tmp_path / "zip", inputs=str(tmp_path / "photos.zip"))
    assert [file.name for file in whole] == ["inner_a.png", "inner_b.png", "inner_c.png", "grid.png"]
    one = sample.sample(made[0], tmp_path / "one", inputs=str(folder / "b.png"))
    assert [file.name for file in one] == ["b.png", "grid.png"]
    assert _close(_read(tmp_path / "one", "b"), _read(tmp_path / "zip", ["inner_b"]))


def test_noise_is_the_same_whatever_stands_beside_a_picture(photos, tmp_path):
    """That of the dropout, which stays on in pix2pix."""
    overrides = [("generator.dropout", "0.5"), ("generator.statistics", "picture")]
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_pix2pix.py'}:smoke", overrides)
    settings.fresh_folder(config, tmp_path / "run", lambda state: state._replace(
        ema=jax.tree.map(lambda x: 3 * x, state.ema)))  # fmt: skip
    folder, _ = photos
    sample.sample(tmp_path / "run", tmp_path / "all", inputs=str(folder))
    sample.sample(tmp_path / "run", tmp_path / "one", inputs=str(folder / "b.png"))
    assert _close(_read(tmp_path / "one", "b"), _read(tmp_path / "all", "b"))


def test_pictures_of_any_size_and_mode_are_made_to_fit(made, photos, tmp_path):
    folder, _ = photos
    Image.new("L", (40, 30), 128).save(folder / "a.jpg")  # beside a.png: both keep their endings
    files = sample.sample(made[0], tmp_path / "out", inputs=str(folder))
    assert [file.name for file in files] == ["a_jpg.png", "a_png.png", "b_png.png", "c_bmp.png", "grid.png"]
    assert _read(tmp_path / "out", ["a_jpg"]).shape == (1, 16, 16, 3)


def test_files_that_are_passed_over_are_told(made, photos, tmp_path, capsys):
    folder, _ = photos
    (folder / "notes.txt").write_text("no picture")
    assert cli.main(["sample", f"--workdir={made[0]}", f"--out={tmp_path / 'out'}", f"--inputs={folder}"]) == 0
    assert capsys.readouterr().out.count(f"{folder}: 1 file passed over, no pictures: .txt 1\n") == 1


@pytest.mark.parametrize(("flags", "message"), [
    ([], "draws from pictures: give --inputs=PATH"),
    (["--inputs=nothing"], "--inputs=nothing: there is no picture, folder or .zip"),
    (["--inputs=photos", "--seeds=0-3"], "--seeds=0-3: the game 'translation' draws from --inputs"),
    (["--inputs=photos", "--truncation=0.5"], "--truncation=0.5: 'cyclegan' has no styles"),
    (["--inputs=bad.png"], "bad.png cannot be used: not an image that PIL can read (10 bytes). Mend or remove it.\n"),
    (["--inputs=photos", "--direction=up"], "--direction=up: config.translation.direction='up': expected ab or ba"),
])  # fmt: skip
def test_mistakes_are_one_message(made, photos, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert cli.main(["sample", f"--workdir={made[0]}", "--out=out", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_run_without_sources_has_no_use_for_inputs(photos, tmp_path, capsys):
    settings.fresh_folder(settings.digits(), tmp_path / "run")
    command = ["sample", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", f"--inputs={photos[0]}"]
    assert cli.main(command) == 2
    assert "the game 'unconditional' draws from seeds" in capsys.readouterr().err


def test_grids_and_evaluation_are_of_held_out_pictures(made, translate):
    folder, run = made
    test = run_data.open_field(run.config, "a", "test")
    given = sample.grid_given(run)
    np.testing.assert_array_equal(given["a"], test.examples(np.array([0, 119, 239, 359]))["image"])
    np.testing.assert_array_equal(runs.held_out(run)(np.array([359, 360]))["a"],
                                  test.examples(np.array([359, 0]))["image"])  # fmt: skip
    ema = folders.restore(run, folder, parallel.make_mesh()).state.ema
    drawn = sample.fixed_grid(run, painter.sampler(run, whole=True), ema, given)
    assert len(drawn) == 2 and _close(drawn[0], translate(given["a"]))
    assert sample.grid(run, drawn, given).picture.shape == (34, 106, 3)


def test_seeds_are_held_out_examples(made, translate, tmp_path):
    files = sample.sample(made[0], tmp_path / "out", seeds="2,359")
    assert [file.name for file in files] == ["example000002.png", "example000359.png", "grid.png"]
    held_out = run_data.open_field(made[1].config, "a", "test").examples(np.array([2, 359]))["image"]
    assert _close(_read(tmp_path / "out", ["example000002", "example000359"]), translate(held_out))


def test_data_that_have_moved_are_named(made, tmp_path, capsys, monkeypatch):
    """The digits' folder is gone; another one with the same content is named, with a part each."""
    monkeypatch.setenv("GAN_JAX_DATA_DIR", str(tmp_path / "gone"))
    command = ["sample", f"--workdir={made[0]}", f"--out={tmp_path / 'out'}", "--seeds=0"]
    assert cli.main([*command, f"--data=a={tmp_path / 'x'},b={tmp_path / 'x'}"]) == 0
    assert (tmp_path / "x" / "digits").is_dir() and not (tmp_path / "gone").exists()
    assert cli.main([*command, f"--data={tmp_path / 'x'}"]) == 2
    assert "expected PART=PATH with commas between, of a, b" in capsys.readouterr().err


def test_what_the_folder_says_of_its_data(made):
    summary = json.loads((made[0] / "data.json").read_text())
    image = {"kind": "image", "shape": [16, 16, 3], "classes": 0}
    assert summary["spec"] == {"a": image, "b": image} and summary["parts"].keys() == {"a", "b"}
    config, spec, _ = folders.read_folder(made[0])
    assert spec == made[1].spec and config.data.parts.b.name == "digits:inverted"
