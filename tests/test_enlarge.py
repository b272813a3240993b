"""Pictures of the user's, enlarged by networks that are known filters: colours, alpha, depth, scale, tiles, files."""

import json
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_jax import cli, enlarge_files, picture_files, runs, sample, specs
from gan_jax.data import pictures
from gan_jax.enlarge import Enlarger, Settings
from gan_jax.errors import UserError
from gan_jax.layers.conv import conv
from gan_jax.layers.rescale import upscale
from tests import settings

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (9, 12, 3), np.uint8)


def _run(network, channels=3, scale=2):
    """A run whose network is a function of pictures in [0, 1]."""
    def sample(nets, ema, keys, given):
        return {"image": 2 * network((given["low_resolution"] + 1) / 2) - 1}

    fields = {"low_resolution": specs.Field("image", (4, 4, channels))}
    game = types.SimpleNamespace(asks=lambda config: ("low_resolution",), enlarges=lambda config: scale, sample=sample,
                                 derived=lambda config, spec: fields)  # fmt: skip
    spec = {"image": specs.Field("image", (4 * scale, 4 * scale, channels))}
    return types.SimpleNamespace(game=game, spec=spec, config=None, nets={})


def _repeat(x):
    return upscale(x, 2)


def _blur(x):
    """Means of three by three, with zeros beyond, and then repeated."""
    kernel = jnp.eye(x.shape[3])[None, None] * jnp.ones((3, 3, 1, 1)) / 9
    return upscale(conv(x, kernel, 1, ((1, 1), (1, 1))), 2)


def _enlarge(network, picture, channels=3, **options):
    enlarger = Enlarger(_run(network, channels), {}, Settings(**options))
    enlarger.prepare([picture.pixels.shape[:2]])
    return enlarger(picture)[0]


def _picture(values, depth=8):
    values = values / np.float32(2**depth - 1)
    colours = 1 if values.shape[2] < 3 else 3
    return pictures.Picture(values[..., :colours], values[..., -1] if values.shape[2] in (2, 4) else None, depth)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
def test_pictures_come_back_as_they_are(channels, depth):
    """Every mode and depth, opaque where it has alpha, through a network that repeats pixels."""
    values = RNG.integers(0, 2**depth, (5, 7, channels)).astype(np.uint16 if depth == 16 else np.uint8)
    if channels in (2, 4):
        values[..., -1] = 2**depth - 1
    ours = _enlarge(_repeat, _picture(values, depth))
    assert ours.dtype == values.dtype
    np.testing.assert_array_equal(ours, values.repeat(2, 0).repeat(2, 1))


def test_what_is_transparent_leaves_no_fringe():
    """Blue beside red that is not seen: a blur that knew nothing of alpha would mix them."""
    values = np.zeros((8, 8, 4), np.uint8)
    values[:, :4], values[:, 4:] = (0, 0, 255, 255), (255, 0, 0, 0)
    ours = _enlarge(_blur, _picture(values))
    assert ours[:, :7, :2].max() == 0 and ours[:, 9:, :3].max() <= 1
    assert (ours[:, :6, 3] == 255).all() and (ours[:, 10:, 3] == 0).all()
    edge = np.asarray(Image.fromarray(values[..., 3].astype(np.float32)).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(ours[..., 3], np.clip(edge, 0, 255), atol=0.51)


def test_a_grey_picture_stays_grey_in_a_network_that_colours():
    """Its mean comes back: of 1, 2 and 3 thirds of the brightness, two thirds."""
    values = RNG.integers(0, 256, (5, 7, 1)).astype(np.uint8)
    ours = _enlarge(lambda x: _repeat(x) * jnp.array([1, 2, 3]) / 3, _picture(values))
    np.testing.assert_allclose(ours, values.repeat(2, 0).repeat(2, 1) * (2 / 3), atol=0.51)


def test_runs_of_grey_and_of_alpha():
    """A grey network makes grey of colours; one of four channels sees alpha itself."""
    ours = _enlarge(_repeat, _picture(RGB), 1)
    grey = np.asarray(Image.fromarray(RGB).convert("L"))
    assert ours.shape == (18, 24, 1) and np.abs(ours[::2, ::2, 0].astype(int) - grey).max() <= 1
    values = RNG.integers(0, 256, (5, 7, 4)).astype(np.uint8)
    np.testing.assert_array_equal(_enlarge(_repeat, _picture(values), 4)[::2, ::2], values)
    np.testing.assert_array_equal(_enlarge(_repeat, _picture(RGB), 4)[::2, ::2], RGB)


@pytest.mark.parametrize(("scale", "size"), [(2.5, (22, 30)), (3, (27, 36)), (0.5, (4, 6))])
def test_other_scales_are_resampled_afterwards(scale, size):
    """By Lanczos' filter, from the network's own scale; Pillow in 8 bits is the witness."""
    soft = RGB // 4 + 96  # 8 bits are clipped between rows and columns
    ours = _enlarge(_repeat, _picture(soft), scale=scale)
    large = Image.fromarray(soft.repeat(2, 0).repeat(2, 1))
    expected = np.asarray(large.resize(size[::-1], Image.Resampling.LANCZOS))
    assert ours.shape == (*size, 3) and np.abs(ours.astype(int) - expected).max() <= 1


def test_tiles_do_not_show():
    values = RNG.integers(0, 256, (40, 70, 4)).astype(np.uint8)
    whole, tiled = (_enlarge(_blur, _picture(values), tile=tile) for tile in (0, 9))
    np.testing.assert_array_equal(whole, tiled)
    enlarger = Enlarger(_run(_blur), {}, Settings(tile=9))
    enlarger.prepare([(40, 70), (3, 3)])
    assert enlarger.plan == (1, 11, 1, False) and enlarger.tiles(40, 70) == 5 * 8 and enlarger.tiles(3, 3) == 1
    assert enlarger.notes == ("tiles of 9 pixels and 1 more on every side",)


def test_a_network_of_whole_pictures_is_not_cut():
    def network(x):
        return upscale(x / x.mean((1, 2, 3), keepdims=True), 2) / 4

    with pytest.raises(UserError, match="--tile=9: what this network makes of a place depends on the whole picture"):
        _enlarge(network, _picture(RGB), tile=9)
    assert _enlarge(network, _picture(RGB)).shape == (18, 24, 3)


def test_sides_that_the_network_does_not_have_are_filled_up():
    def network(x):
        if any(side % 4 for side in x.shape[1:3]):
            raise UserError("multiples of 4")
        return upscale(x, 2)

    np.testing.assert_array_equal(_enlarge(network, _picture(RGB[:, :11])), RGB[:, :11].repeat(2, 0).repeat(2, 1))


def test_many_sizes_have_few_programs():
    enlarger = Enlarger(_run(_blur), {}, Settings())
    sizes = [(60 + 7 * i, 90 + 5 * i) for i in range(12)]
    enlarger.prepare(sizes)
    shapes = set()
    program = enlarger._program
    enlarger._program = lambda x: shapes.add(x.shape) or program(x)
    for height, width in sizes:
        values = RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
        ours = enlarger(_picture(values))[0]
        expected = np.asarray(_blur(values[None] / np.float32(255)))[0] * 255
        assert np.abs(ours - expected).max() <= 0.51
    assert len(shapes) < 8


def test_pictures_of_many_sizes_stay_whole_where_a_cut_would_change_them():
    """By more than rounding: a trace of what lies far away."""
    enlarger = Enlarger(_run(lambda x: _blur(x) + _blur(x)[:, :, ::-1] * 2.0**-13), {}, Settings())
    enlarger.prepare([(60 + 7 * i, 90 + 5 * i) for i in range(12)])
    assert enlarger.plan == (1, 0, 0, False) and not enlarger.notes


def _files(path, out, *, network=_repeat, form="", quality=None, **options):
    return enlarge_files.enlarge(_run(network), {}, str(path), out, Settings(**options),
                                 enlarge_files.Output(form, quality))  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """Pictures of several kinds in two folders."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    Image.fromarray(RGB).save(folder / "a.jpg", quality=95, exif=exif, dpi=(300, 300))
    Image.fromarray(RGB).convert("P").save(folder / "a.gif")
    Image.fromarray(RGB[..., 0]).save(folder / "inner" / "b.TIF")
    Image.fromarray(RGB[..., 1].astype(np.uint16) * 257).save(folder / "inner" / "c.png")
    return folder


def test_a_folder_keeps_its_names_and_its_order(photos, tmp_path, capsys):
    files = _files(photos, tmp_path / "out")
    names = ["a.png", "a.jpg", "inner/b.tif", "inner/c.png"]
    assert [str(file.relative_to(tmp_path / "out")) for file in files] == names
    opened = [Image.open(file) for file in files]
    assert [(image.mode, image.size) for image in opened] == [
        ("RGB", (24, 18)), ("RGB", (18, 24)), ("L", (24, 18)), ("I;16", (24, 18))]  # fmt: skip
    np.testing.assert_array_equal(np.asarray(opened[3])[::2, ::2], RGB[..., 1].astype(np.uint16) * 257)
    assert opened[1].info["dpi"] == (300, 300) and not dict(opened[1].getexif()).get(pictures.ORIENTATION)
    assert "a.gif: mode P becomes RGB\n" in capsys.readouterr().out


def test_names_that_clash_keep_their_endings(photos, tmp_path, capsys):
    files = _files(photos, tmp_path / "out", form="webp", quality=80)
    names = ["a_gif.webp", "a_jpg.webp", "inner/b.webp", "inner/c.webp"]
    assert [str(file.relative_to(tmp_path / "out")) for file in files] == names
    assert "inner/c.png: 16 bits a channel become 8\n" in capsys.readouterr().out


@pytest.mark.parametrize(("names", "files"), [
    (["a.bmp", "a.png", "a_bmp.png"], ["a_bmp_2.png", "a_png.png", "a_bmp.png"]),
    (["a.bmp", "a.png", "a_bmp.png", "a_bmp_2.PNG"], ["a_bmp_3.png", "a_png.png", "a_bmp.png", "a_bmp_2.png"]),
    (["a.bmp", "A.BMP", "a.gif", "b/a.gif"], ["a_bmp.png", "A_BMP_2.png", "a_gif.png", "b/a.png"]),
    (["grid.gif", "grid_gif.jpg", "plain"], ["grid_gif.png", "grid_gif.jpg", "plain.png"]),
])  # fmt: skip
def test_no_two_pictures_are_written_to_one_file(names, files, tmp_path):
    targets = enlarge_files._targets(names, tmp_path, "")
    assert [str(target.relative_to(tmp_path)) for target in targets.values()] == files


def test_a_picture_called_as_the_overview_is_passed_over_with_a_line(photos, tmp_path, capsys):
    Image.fromarray(RGB).save(photos / "grid.png")
    assert len(_files(photos, tmp_path / "out")) == 4
    assert f"{photos / 'grid.png'}: passed over, as the overview" in capsys.readouterr().out


def test_a_zip_and_one_picture(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(photos / "a.jpg", "inner/a.jpg")
    (ours, grid) = _files(tmp_path / "photos.zip", tmp_path / "out")
    assert ours == tmp_path / "out" / "inner" / "a.jpg" and grid.name == "grid.png"
    (one, _) = _files(photos / "a.jpg", tmp_path / "one")
    np.testing.assert_array_equal(Image.open(ours), Image.open(one))
    grid = np.asarray(Image.open(grid))  # the picture, as tall as what was made of it, and that
    assert grid.shape == (24, 18 + 2 + 18, 3)


def test_what_fails_is_told_and_the_rest_is_made(photos, tmp_path, capsys, monkeypatch):
    """Before any work: damaged beginnings, too many pixels, a target that is the picture itself."""
    (photos / "bad.png").write_bytes(b"no picture")
    (photos / "half.png").write_bytes((photos / "inner" / "c.png").read_bytes()[:90])
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(photos / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"^3 of 7 pictures failed, see above; the other 4 are in .*/out$"):
        _files(photos, tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith(f"error: {photos}/") for line in lines)
    assert "bad.png cannot be used: not an image" in lines[0] and "60x60 pixels are more than 2,000" in lines[1]
    assert "half.png cannot be used" in lines[2]
    assert sorted(file.name for file in (tmp_path / "out").rglob("*") if file.is_file()) == [
        "a.jpg", "a.png", "b.tif", "c.png"]  # fmt: skip


def test_a_picture_never_takes_its_own_place(photos):
    before = (photos / "inner" / "c.png").read_bytes()
    with pytest.raises(UserError, match="c.png: what is made of it would take its place; give another folder"):
        _files(photos / "inner" / "c.png", photos / "inner")
    assert (photos / "inner" / "c.png").read_bytes() == before


def test_sides_that_a_format_does_not_have_are_told_before(tmp_path):
    Image.new("L", (9000, 2)).save(tmp_path / "long.png")
    with pytest.raises(UserError, match="long.webp: 18000x4 pixels; the format has sides up to 16383: --format=png"):
        _files(tmp_path / "long.png", tmp_path / "out", form="webp")


def test_memory_that_does_not_suffice_is_one_message(photos, tmp_path, monkeypatch):
    def fail(self, picture, done):
        raise MemoryError

    monkeypatch.setattr(Enlarger, "__call__", fail)
    with pytest.raises(UserError, match="a.jpg: the memory does not hold it, 9x12 pixels; make tiles smaller"):
        _files(photos / "a.jpg", tmp_path / "out")


def test_the_time_left_is_that_of_the_pieces_to_come(monkeypatch):
    """Ten seconds each, but for the first one, which waits for its program."""
    lines, clock = [], iter((0, 100, 110, 120))
    monkeypatch.setattr(picture_files.output, "update", lines.append)
    monkeypatch.setattr(picture_files.time, "monotonic", lambda: next(clock))
    progress = picture_files.Progress(8)
    progress.begin("a.png")
    for _ in range(3):
        progress.advance(2)
    assert lines == ["a.png: 0% of all is done", "a.png: 25% of all is done", "a.png: 50% of all is done, 0:20 left",
                     "a.png: 75% of all is done, 0:10 left"]  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), [
    (["--tile=8"], "--tile=8: needs --inputs=PATH too"),
    (["--inputs=x.png", "--tile=-1"], "--tile=-1: expected pixels of a side"),
    (["--inputs=x.png", "--scale=0"], "--scale=0: expected a number above 0"),
    (["--inputs=x.png", "--quality=0"], "--quality=0: expected 1 to 100"),
    (["--inputs=x.png", "--format=bmp"], "--format=bmp: expected one of png, jpg"),
    (["--inputs=x.png", "--scale=2"], "--scale=2.0: the game 'translation' does not enlarge; leave it out"),
])  # fmt: skip
def test_mistaken_flags_are_one_message(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.setattr(sample.folders, "read_folder", lambda workdir: _translation())
    assert cli.main(["sample", f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def _translation():
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_cyclegan.py'}:smoke")
    field = specs.Field("image", (16, 16, 3))
    return config, {"a": field, "b": field}, json.loads("{}")
