"""`sample --inputs --masks`: pictures of any size and mode, whose holes alone change; what is refused, file by file."""

import jax
import numpy as np
import pytest
from PIL import Image

import gan_jax
from gan_jax import cli, fill_files, folders, parallel, runs, sample
from gan_jax.errors import UserError
from tests import settings

RNG = np.random.default_rng(0)


def _louder(x):
    return 3 * x


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run before its first step, its generator loud enough to be seen."""
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_inpaint.py'}:smoke")
    folder = tmp_path_factory.mktemp("fill") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        settings.fresh_folder(config, folder, lambda state: state._replace(ema=jax.tree.map(_louder, state.ema)))
    return folder


def _save(path, values, **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(values).save(path, **options)
    return path


def _mask(height, width):
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 3 : -2] = 255
    return mask


PICTURES = {
    "grey": RNG.integers(0, 256, (13, 21), np.uint8),
    "colour": RNG.integers(0, 256, (16, 9, 3), np.uint8),
    "alpha": RNG.integers(0, 256, (11, 11, 4), np.uint8),
    "deep": RNG.integers(0, 65536, (13, 21)).astype(np.uint16),
}


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_known_comes_back_bit_for_bit(run, tmp_path, name):
    """In every mode and depth, of sides that are no multiples of the network's; the hole is filled, and opaque."""
    values = PICTURES[name]
    mask = _mask(*values.shape[:2])
    picture, holes = _save(tmp_path / "photo.png", values), _save(tmp_path / "mask.png", mask)
    (file,) = sample.sample(str(run), str(tmp_path / "out"), inputs=str(picture), masks=str(holes))
    assert file == tmp_path / "out/photo.png"
    filled = np.asarray(Image.open(file))
    assert filled.shape == values.shape and filled.dtype == values.dtype
    np.testing.assert_array_equal(filled[mask == 0], values[mask == 0])
    assert (filled[mask > 0] != values[mask > 0]).any()
    if name == "alpha":
        assert (filled[mask > 0][:, 3] == 255).all()


def test_what_lies_in_the_hole_does_not_matter(run, tmp_path):
    values, mask = PICTURES["grey"], _mask(13, 21)
    holes = _save(tmp_path / "mask.png", mask)
    outs = []
    for number, picture in enumerate((values, np.where(mask, 0, values), np.where(mask, 255, values))):
        path = _save(tmp_path / f"in{number}/photo.png", picture.astype(np.uint8))
        (file,) = sample.sample(str(run), str(tmp_path / f"out{number}"), inputs=str(path), masks=str(holes))
        outs.append(np.asarray(Image.open(file)))
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], outs[2])


def test_a_folder_goes_on_after_what_fails(run, tmp_path, capsys):
    """Each failure is one message, all but those of reading before any work; exit code 2, and the others are there."""
    grey = PICTURES["grey"]
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for name in ("good.png", "black.png", "small.png", "alone.png", "sub/good.jpg", "twice.png", "twice.jpg"):
        _save(photos / name, grey)
    (photos / "broken.png").write_bytes(b"no picture")
    for name in ("good.png", "sub/good.png", "broken.png", "twice.png"):
        _save(masks / name, _mask(13, 21))
    _save(masks / "black.png", np.zeros((13, 21), np.uint8))
    _save(masks / "small.png", _mask(13, 20))
    out = tmp_path / "out"
    code = cli.main(["sample", f"--workdir={run}", f"--inputs={photos}", f"--masks={masks}", f"--out={out}"])
    errors = capsys.readouterr().err
    assert code == 2
    made = {str(path.relative_to(out)) for path in out.rglob("*.*")}
    assert made == {"good.png", "sub/good.png", "twice_png.png", "twice_jpg.png"}
    for message in (
        "black.png is black all over: there is nothing to fill; paint the hole white",
        "small.png has 20x13 pixels, and", "no mask for alone.png: none is called like it", "broken.png",
        "4 of 8 pictures failed",
    ):  # fmt: skip
        assert errors.count(message) == 1, message


def test_a_folder_of_one_mask_serves_its_picture_alone(run, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        _save(tmp_path / "photos" / name, PICTURES["grey"])
    _save(tmp_path / "masks/a.png", _mask(13, 21))
    with pytest.raises(UserError, match="1 of 2 pictures failed"):
        sample.sample(str(run), str(tmp_path / "out"), inputs=str(tmp_path / "photos"), masks=str(tmp_path / "masks"))
    assert "no mask for b.png: none is called like it" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.png"]
    both = sample.sample(
        str(run), str(tmp_path / "both"), inputs=str(tmp_path / "photos"), masks=str(tmp_path / "masks/a.png")
    )
    assert [file.name for file in both] == ["a.png", "b.png"]


def test_no_two_pictures_are_written_to_one_file(run, tmp_path):
    for name in ("a.png", "a.jpg", "a_jpg.png"):
        _save(tmp_path / "photos" / name, PICTURES["grey"])
    holes = _save(tmp_path / "mask.png", _mask(13, 21))
    files = sample.sample(str(run), str(tmp_path / "out"), inputs=str(tmp_path / "photos"), masks=str(holes))
    assert [file.name for file in files] == ["a_jpg_2.png", "a_png.png", "a_jpg.png"]
    assert all(file.is_file() for file in files)


def test_masks_are_read_by_what_is_white(run, tmp_path):
    """Grey, colour and bits; transparent places are no holes."""
    mask = _mask(8, 8)
    rgba = np.dstack([np.full((8, 8, 3), 255, np.uint8), mask])
    forms = {"L": mask, "RGB": np.dstack([mask] * 3), "RGBA": rgba, "bool": mask > 0, "dark": np.where(mask, 200, 100)}
    for name, values in forms.items():
        values = values if values.dtype == bool else values.astype(np.uint8)
        path = _save(tmp_path / f"{name}.png", values)
        hole = fill_files.read_mask(fill_files.list_inputs(str(path), "--masks"), path.name)
        np.testing.assert_array_equal(hole, mask > 0)


def test_a_network_of_colours_fills_grey_pictures(run):
    """By the mean of three equal channels, as the game itself fills them."""
    config, spec, _ = folders.read_folder(str(run))
    built = runs.build(config, {"image": spec["image"]._replace(shape=(8, 8, 3))})
    ema = parallel.replicate(runs.fresh_state(built).ema, parallel.make_mesh())
    hole = _mask(13, 21) > 0
    picture = fill_files.pictures.Picture((PICTURES["grey"] / np.float32(255))[..., None])
    filled = fill_files.Filler(built, ema)(picture, hole)
    rgb = PICTURES["grey"][None, ..., None].repeat(3, 3)
    given = {"masked": rgb, "mask": np.where(hole, np.uint8(255), np.uint8(0))[None, ..., None]}
    whole = np.asarray(built.game.sample(built.nets, runs.fresh_state(built).ema, None, given)["image"])[0]
    expected = (whole.mean(2) + 1) / 2 * 255
    assert np.abs(filled[..., 0] - expected).max() <= 0.51
    np.testing.assert_array_equal(filled[~hole, 0], PICTURES["grey"][~hole])


@pytest.mark.parametrize(("flags", "message"), [
    ({"inputs": "photo.png"}, "'inpainting' fills holes: give --masks=PATH too"),
    ({"masks": "mask.png"}, "--masks=mask.png: needs --inputs=PATH too"),
    ({"masks": "mask.png", "inputs": "nowhere.png"}, "--inputs=nowhere.png: there is no picture"),
    ({"masks": "mask.png", "inputs": "photo.png", "seeds": "0"}, "--seeds=0: .*draws from --inputs"),
    ({"masks": "mask.png", "inputs": "photo.png", "tile": 8}, "--tile=8: the game 'inpainting' does not enlarge"),
])  # fmt: skip
def test_flags_that_do_not_fit(run, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    _save(tmp_path / "photo.png", PICTURES["grey"])
    _save(tmp_path / "mask.png", _mask(13, 21))
    with pytest.raises(UserError, match=message):
        sample.sample(str(run), "out", **flags)
    assert not (tmp_path / "out").exists()


def test_held_out_pictures_have_masks_of_their_own(run, tmp_path, monkeypatch):
    files = sample.sample(str(run), str(tmp_path / "out"), seeds="0,3")
    assert [file.name for file in files] == ["example000000.png", "example000003.png", "grid.png"]


def test_games_without_holes_take_no_masks(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "cache"))
    settings.fresh_folder(settings.digits(), tmp_path / "run")
    with pytest.raises(UserError, match="--masks=mask.png: the game 'unconditional' fills no holes; leave it out"):
        sample.sample(str(tmp_path / "run"), str(tmp_path / "out"), masks="mask.png")


def test_from_python(run):
    """Arrays of any size with their masks; what does not fit is one message."""
    trained = gan_jax.open_run(str(run))
    images = RNG.integers(0, 256, (2, 13, 21, 1), np.uint8)
    masks = np.stack([_mask(13, 21)] * 2)[..., None]
    filled = trained.sample(inputs=images, masks=masks)
    assert filled.shape == images.shape and filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[masks == 0], images[masks == 0])
    assert (filled[masks > 0] != images[masks > 0]).any()
    with pytest.raises(UserError, match=r"masks: none; expected uint8 \(2, 13, 21, 1\), 255 in the hole"):
        trained.sample(inputs=images)
    with pytest.raises(UserError, match=r"masks: an array of bool and the shape \(2, 13, 21, 1\); expected uint8"):
        trained.sample(inputs=images, masks=masks > 0)
    for arguments in ({}, {"seeds": [0]}, {"inputs": "photo.png"}):
        with pytest.raises(UserError, match="^masks: needs inputs as an array too$"):
            trained.sample(masks=masks, **arguments)
    with pytest.raises(UserError, match="fills holes, and there is no mask; give both as arrays"):
        trained.sample(inputs="photo.png")
