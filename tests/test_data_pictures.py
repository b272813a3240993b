"""Picture files of every mode to arrays and back: values by hand, what is kept, files that are whole or not there."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, TiffImagePlugin

from gan_jax.data import pictures
from gan_jax.data.fit import CorruptImageError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _read(image, form="PNG", **options):
    return pictures.read(_encoded(image, form, **options), "x")


@pytest.mark.parametrize(("mode", "channels", "has_alpha"), [
    ("1", 1, False), ("L", 1, False), ("LA", 1, True), ("RGB", 3, False), ("RGBA", 3, True), ("P", 3, False),
])  # fmt: skip
def test_modes_are_read_as_grey_or_colour_with_alpha(mode, channels, has_alpha):
    """As Pillow itself converts them."""
    values = RNG.integers(0, 256, (5, 7, 4), np.uint8)
    image = Image.fromarray(values).convert("RGB" if mode == "P" else "RGBA").convert(mode)
    picture = _read(image)
    target = ("L" if channels == 1 else "RGB") + "A" * has_alpha
    expected = np.asarray(image.convert(target)).reshape(5, 7, -1) / 255.0
    np.testing.assert_allclose(picture.pixels, expected[..., :channels], atol=1e-7)
    assert (picture.alpha is not None) == has_alpha and picture.depth == 8
    if has_alpha:
        np.testing.assert_allclose(picture.alpha, expected[..., -1], atol=1e-7)
    assert picture.notes == (("mode P becomes RGB",) if mode == "P" else ())


def test_a_palette_with_a_transparent_colour_has_alpha():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    picture = _read(image, transparency=1)
    np.testing.assert_array_equal(picture.alpha, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(picture.pixels[0, 0], [1, 0, 0])
    assert picture.notes == ("mode P becomes RGBA",)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_pass_through_png_and_back(channels, tmp_path):
    """Our writer; Pillow, which keeps the high bytes, and ours read it."""
    values = RNG.integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    pictures.write(tmp_path / "x.png", values, {"icc_profile": SRGB, "dpi": (300, 300)})
    picture = pictures.read((tmp_path / "x.png").read_bytes(), "x")
    both = picture.pixels if picture.alpha is None else np.concatenate([picture.pixels, picture.alpha[..., None]], -1)
    np.testing.assert_array_equal(np.round(both * 65535), values)
    assert picture.depth == 16 and picture.keep["icc_profile"] == SRGB
    assert picture.keep["dpi"][0] == pytest.approx(300, 1e-3)
    if channels > 2:
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), values >> 8)
    assert pictures.look((tmp_path / "x.png").read_bytes(), "x") == (7, 5, channels in (2, 4), 16)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_pass_through_tiff_and_back(channels, tmp_path):
    """Against tifffile, and compressed by Pillow's own library where it is grey."""
    values = RNG.integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    pictures.write(tmp_path / "x.tif", values, {"icc_profile": SRGB, "dpi": (72, 72)})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "x.tif").reshape(values.shape), values)
    picture = pictures.read((tmp_path / "x.tif").read_bytes(), "x")
    np.testing.assert_array_equal(np.round(picture.pixels * 65535), values[..., : 3 if channels > 1 else 1])
    assert (picture.alpha is not None) == (channels == 4) and picture.keep["icc_profile"] == SRGB


def test_grey_of_sixteen_bits_as_pillow_writes_it():
    values = RNG.integers(0, 65536, (5, 7)).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        picture = _read(Image.fromarray(values), form)
        np.testing.assert_array_equal(np.round(picture.pixels[..., 0] * 65535), values)
        assert picture.depth == 16 and picture.alpha is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation):
    """As Pillow turns them; the tag is gone, others are kept."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[pictures.ORIENTATION], exif[0x010F] = orientation, "a camera"
    data = _encoded(Image.fromarray(RGB), exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    picture = pictures.read(data, "x")
    np.testing.assert_array_equal(np.round(picture.pixels * 255), expected)
    kept = Image.Exif()
    kept.load(picture.keep["exif"])
    assert dict(kept) == {0x010F: "a camera"}
    assert pictures.look(data, "x")[:2] == (expected.shape[1], expected.shape[0])


def test_inks_become_light():
    """Without a profile as Pillow converts them."""
    image = Image.fromarray(RGB).convert("CMYK")
    picture = _read(image, "TIFF")
    np.testing.assert_allclose(picture.pixels, np.asarray(image.convert("RGB")) / 255.0, atol=1e-7)
    assert picture.notes == ("CMYK becomes RGB, without a colour profile",)


def test_a_profile_of_inks_that_cannot_be_used_is_passed_over():
    picture = _read(Image.fromarray(RGB).convert("CMYK"), "TIFF", icc_profile=b"no profile")
    assert picture.notes == ("CMYK becomes RGB, without a colour profile",) and "icc_profile" not in picture.keep


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
def test_what_belongs_to_a_picture_is_written(ending, tmp_path):
    path, keep = tmp_path / f"x.{ending}", {"icc_profile": SRGB, "dpi": (300, 300)}
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], (64, 64, 3))
    pictures.write(path, smooth, keep)
    picture = pictures.read(path.read_bytes(), "x")
    assert np.abs(np.round(picture.pixels * 255) - smooth).max() <= (0 if ending in ("png", "tiff") else 4)
    assert picture.keep["icc_profile"] == SRGB and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("ending", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_resolution_that_is_none_is_left_out(ending, deep, tmp_path):
    """0/0, which is no number; nothing; and what no file can hold."""
    values = np.zeros((8, 8, 3), np.uint16 if deep else np.uint8)
    grey = Image.fromarray(np.zeros((8, 8), np.uint8))
    for number, dpi in enumerate((TiffImagePlugin.IFDRational(0, 0), 0.0, 2e6)):
        file = io.BytesIO()
        grey.save(file, "TIFF", tiffinfo={282: dpi, 283: dpi, 296: 2})
        picture = pictures.read(file.getvalue(), "x")
        assert "dpi" not in picture.keep
        pictures.write(tmp_path / f"{number}.{ending}", values, picture.keep)


def test_what_a_format_cannot_hold(tmp_path):
    path = tmp_path / "x.jpg"
    assert pictures.losses(path, depth=16, has_alpha=True) == (
        "16 bits a channel become 8", "transparency becomes white")  # fmt: skip
    values = np.zeros((8, 8, 4), np.uint16)
    values[:, 4:, 3] = 65535
    pictures.write(path, values, {})
    picture = pictures.read(path.read_bytes(), "x").pixels
    assert picture.shape == (8, 8, 3) and picture[:, :3].min() > 0.95 and picture[:, 5:].max() < 0.05


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"before")
    monkeypatch.setattr(Image.Image, "save", lambda self, path, **_: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pictures.write(tmp_path / "x.png", RGB, {})
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"] and (tmp_path / "x.png").read_bytes() == b"before"


def test_files_that_are_no_pictures(monkeypatch):
    for use in (pictures.look, pictures.read):
        with pytest.raises(CorruptImageError, match="^x cannot be used: not an image that PIL can read .5 bytes"):
            use(b"hello", "x")
    with pytest.raises(CorruptImageError, match="floating-point pixels"):
        _read(Image.fromarray(np.zeros((3, 3), np.float32)), "TIFF")
    with pytest.raises(CorruptImageError, match="cannot be used"):
        pictures.read(_encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)))[:3000], "x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(CorruptImageError, match="^x cannot be used: 7x5 pixels are more than 20"):
        pictures.look(_encoded(Image.fromarray(RGB)), "x")
