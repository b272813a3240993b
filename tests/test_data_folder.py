"""Folders and zips of images: labels, splits, cropping, conversion, damage; pixels against PIL itself."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from gan_jax.data import open_dataset, pack
from gan_jax.data.fit import crop_box, make_fit
from gan_jax.errors import MissingPathError, UserError

SETTINGS = dict(resolution=8, channels=3, crop="none", filter="nearest")


def noise(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def save(path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes, one nested deeper, a hidden file, a text file and macOS junk."""
    root = tmp_path / "set"
    save(root / "dog" / "b.png", noise(1))
    save(root / "cat" / "deep" / "a.PNG", noise(0))
    save(root / "dog" / "c.bmp", noise(2))
    save(root / ".hidden" / "x.png", noise(3))
    save(root / "__MACOSX" / "dog" / "y.png", noise(4))
    save(root / "dog" / "._b.png", noise(5))
    (root / "readme.txt").write_text("not an image")
    return root


def make_zip(folder, path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder))


def test_labels_order_and_pixels(folder):
    data = open_dataset(name=f"folder:{folder}", **SETTINGS)
    assert (data.size, data.spec["label"].classes, data.class_names) == (3, 2, ("cat", "dog"))
    batch = data.examples(np.arange(3))
    np.testing.assert_array_equal(batch["image"], np.stack([noise(0), noise(1), noise(2)]))
    np.testing.assert_array_equal(batch["label"], [0, 1, 1])


def test_zip_equals_folder(folder, tmp_path):
    make_zip(folder, tmp_path / "set.zip")
    plain = open_dataset(name=f"folder:{folder}", **SETTINGS)
    zipped = open_dataset(name=f"folder:{tmp_path / 'set.zip'}", **SETTINGS)
    assert zipped.fingerprint == plain.fingerprint and zipped.class_names == plain.class_names
    for key, value in plain.examples(np.arange(3)).items():
        np.testing.assert_array_equal(zipped.examples(np.arange(3))[key], value)


def test_a_zip_is_read_in_memory_and_paths_out_of_it_are_passed_over(folder, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.write(folder / "dog" / "b.png", "b.png")
        for name in ("../../outside.png", "/outside.png", "in/../../../outside.png"):
            archive.writestr(name, b"outside")
    monkeypatch.setattr(pack, "LIMIT_BYTES", 0)
    before = sorted(tmp_path.rglob("*"))
    data = open_dataset(name=f"folder:{tmp_path / 'evil.zip'}", **SETTINGS)
    stream = data.stream(seed=0, start=0, batch_size=2, rows=np.arange(2))
    np.testing.assert_array_equal(next(stream)["image"], np.stack([noise(1)] * 2))
    stream.close()
    assert sorted(tmp_path.rglob("*")) == before and not list(tmp_path.parent.glob("outside*"))


def test_without_subfolders_there_are_no_labels(tmp_path):
    save(tmp_path / "a.png", noise(0))
    save(tmp_path / "b.png", noise(1))
    data = open_dataset(name=f"folder:{tmp_path}", **SETTINGS)
    assert set(data.spec) == set(data.examples([0])) == {"image"}
    stream = data.stream(seed=0, start=0, batch_size=2, rows=np.arange(2))
    assert set(next(stream)) == {"image"}
    stream.close()
    save(tmp_path / "dog" / "c.png", noise(2))
    with pytest.raises(UserError, match=r"2 images, such as 'a.png', lie beside the class sub-folders"):
        open_dataset(name=f"folder:{tmp_path}", **SETTINGS)


def test_splits(tmp_path):
    for place, name in enumerate(("train/cat/a", "train/dog/b", "test/cat/c")):
        save(tmp_path / f"{name}.png", noise(place))
    opened = {
        split: open_dataset(name=f"folder:{tmp_path}", split=split, **SETTINGS)
        for split in ("train", "test", "all")
    }
    assert [data.size for data in opened.values()] == [2, 1, 3]
    assert {data.class_names for data in opened.values()} == {("cat", "dog")}  # a number means the same in each
    assert opened["test"].examples([0])["label"] == 0 and opened["test"].class_counts == (1, 0)
    assert open_dataset(name=f"folder:{tmp_path}/train", split="train", **SETTINGS).size == 2
    with pytest.raises(UserError, match="no sub-folder 'test'.*everything is 'train'"):
        open_dataset(name=f"folder:{tmp_path}/train", split="test", **SETTINGS)
    (tmp_path / "train").rename(tmp_path / "val")
    with pytest.raises(UserError, match="it has test, val"):
        open_dataset(name=f"folder:{tmp_path}", split="train", **SETTINGS)


def test_missing_empty_and_wrong_paths(tmp_path):
    with pytest.raises(MissingPathError, match="there is no folder or .zip at .*/absent"):
        open_dataset(name=f"folder:{tmp_path}/absent")
    with pytest.raises(MissingPathError):
        open_dataset(name="folder:")
    with pytest.raises(UserError, match="holds no images: expected files that end in .png"):
        open_dataset(name=f"folder:{tmp_path}")
    (tmp_path / "file.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be read as a zip"):
        open_dataset(name=f"folder:{tmp_path}/file.zip")


def box(width, height, **settings):
    defaults = dict(resolution=64, channels=3, crop="center", crop_size=0, filter="box")
    return crop_box(width, height, make_fit(**{**defaults, **settings}))


def test_crop_arithmetic():
    assert box(178, 218) == (0, 20, 178, 198)
    assert box(178, 218, crop_size=108) == (35, 55, 143, 163)  # CelebA of DCGAN
    assert box(178, 218, crop_size=140) == (19, 39, 159, 179)
    assert box(100, 50, resolution=(32, 64)) == (0, 0, 100, 50)
    assert box(100, 100, resolution=(32, 64)) == (0, 25, 100, 75)
    assert box(100, 40, resolution=(64, 32)) == (40, 0, 60, 40)
    assert box(7, 300, crop="none") == (0, 0, 7, 300)
    assert box(1000, 1, resolution=(1, 3)) == (498, 0, 501, 1)


@pytest.mark.parametrize("filter", ["box", "bilinear", "lanczos", "bicubic", "nearest"])
def test_crop_and_resize_are_pil_exactly(filter, tmp_path):
    pixels = noise(0, 30, 41)
    save(tmp_path / "a.png", pixels)
    data = open_dataset(name=f"folder:{tmp_path}", resolution=8, channels=3, crop_size=20, filter=filter)
    cut = Image.fromarray(pixels[5:25, 10:30])
    expected = cut.resize((8, 8), getattr(Image.Resampling, filter.upper()))
    np.testing.assert_array_equal(data.examples([0])["image"][0], np.asarray(expected))


def test_box_filter_is_the_mean_of_blocks(tmp_path):
    pixels = noise(1, 16, 32)
    save(tmp_path / "a.png", pixels)
    data = open_dataset(name=f"folder:{tmp_path}", resolution=(4, 8), channels=3, filter="box")
    means = pixels.reshape(4, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(data.examples([0])["image"][0] - means).max() <= 1


def test_gray_alpha_palette_and_sixteen_bits(tmp_path):
    rgba, gray = noise(2, channels=4), noise(3, channels=1)
    save(tmp_path / "rgba.png", rgba)
    save(tmp_path / "gray.png", gray)
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    palette = Image.fromarray(rgba[..., :3]).quantize(16)
    palette.save(tmp_path / "palette.png")
    names = ["deep", "gray", "palette", "rgba"]
    images = {}
    for channels in (1, 2, 3, 4):
        data = open_dataset(name=f"folder:{tmp_path}", **{**SETTINGS, "channels": channels})
        assert data.shape == (8, 8, channels)
        images[channels] = dict(zip(names, data.examples(np.arange(4))["image"], strict=True))
    np.testing.assert_array_equal(images[4]["rgba"], rgba)
    np.testing.assert_array_equal(images[3]["rgba"], rgba[..., :3])
    weights = rgba[..., :3] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(images[1]["rgba"][..., 0] - weights).max() <= 1
    np.testing.assert_array_equal(images[2]["rgba"][..., 1], rgba[..., 3])
    np.testing.assert_array_equal(images[3]["gray"], np.repeat(gray, 3, axis=2))
    np.testing.assert_array_equal(images[4]["gray"][..., 3], 255)
    np.testing.assert_array_equal(images[1]["deep"][..., 0], deep // 256)
    np.testing.assert_array_equal(images[3]["palette"], np.asarray(palette.convert("RGB")))


def test_exif_orientation_is_applied(tmp_path):
    pixels = noise(4, 8, 8)
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    data = open_dataset(name=f"folder:{tmp_path}", **SETTINGS)
    np.testing.assert_array_equal(data.examples([0])["image"][0], pixels[::-1, ::-1])


def damage(folder) -> None:
    (folder / "dog" / "b.png").write_bytes((folder / "dog" / "b.png").read_bytes()[:-100])
    (folder / "dog" / "text.jpg").write_text("not an image")


@pytest.mark.parametrize("limit", [8 << 30, 0])
def test_a_damaged_image_is_an_error_with_its_name_and_reason(folder, limit, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT_BYTES", limit)
    damage(folder)

    def use():
        stream = open_dataset(name=f"folder:{folder}", **SETTINGS).stream(
            seed=0, start=0, batch_size=4, rows=np.arange(4)
        )
        try:
            next(stream)
        finally:
            stream.close()

    with pytest.raises(UserError, match=r"(b\.png|text\.jpg) cannot be used: .*data\.skip_corrupt=True"):
        use()
    (folder / "dog" / "b.png").unlink()
    with pytest.raises(
        UserError, match=r"text\.jpg cannot be used: not an image that PIL can read \(12 bytes\)"
    ):
        use()


@pytest.mark.parametrize("limit", [8 << 30, 0])
def test_skip_corrupt_counts_and_goes_on(folder, limit, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT_BYTES", limit)
    damage(folder)
    for _ in range(2):
        data = open_dataset(name=f"folder:{folder}", skip_corrupt=True, **SETTINGS)
        assert (data.size, data.skipped, data.protocol()["skipped"]) == (2, 2, 2)
        batch = data.examples(np.arange(2))
        np.testing.assert_array_equal(batch["image"], np.stack([noise(0), noise(2)]))
        np.testing.assert_array_equal(batch["label"], [0, 1])
        stream = data.stream(seed=0, start=0, batch_size=4, rows=np.arange(4))
        assert sorted(next(stream)["label"]) == [0, 0, 1, 1]
        stream.close()
    with pytest.raises(UserError, match="cannot be used"):
        bad = open_dataset(name=f"folder:{folder}", **SETTINGS)
        bad.examples(np.arange(4))


def test_nothing_usable(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="None of the 1 images can be used"):
        open_dataset(name=f"folder:{tmp_path}", skip_corrupt=True, **SETTINGS)


def test_damage_inside_a_zip(folder, tmp_path):
    make_zip(folder, tmp_path / "set.zip")
    data = bytearray((tmp_path / "set.zip").read_bytes())
    at = data.find((folder / "dog" / "b.png").read_bytes()[20:60])
    assert at > 0
    data[at + 30] ^= 255
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"set\.zip/dog/b\.png cannot be used: (Bad|Error) CRC-32"):
        open_dataset(name=f"folder:{tmp_path}/set.zip", resolution=7)


def test_an_image_smaller_than_crop_size(folder):
    with pytest.raises(UserError, match=r"8x8 pixels are fewer than data.crop_size=9"):
        open_dataset(name=f"folder:{folder}", resolution=8, channels=3, crop_size=9)


def test_a_changed_file_makes_a_new_pack(folder):
    first = open_dataset(name=f"folder:{folder}", **SETTINGS)
    path = folder / "dog" / "c.bmp"
    size, stamp = path.stat().st_size, path.stat().st_mtime_ns
    save(path, noise(9))
    os.utime(path, ns=(stamp + 1, stamp + 1))
    assert path.stat().st_size == size
    second = open_dataset(name=f"folder:{folder}", **SETTINGS)
    np.testing.assert_array_equal(second.examples([2])["image"][0], noise(9))
    assert first.fingerprint != second.fingerprint
    save(folder / "ant" / "z.png", noise(10))
    assert open_dataset(name=f"folder:{folder}", **SETTINGS).class_names == ("ant", "cat", "dog")
