"""Files that lie about in folders and zips: links, pipes, other endings, archives of other kinds, files too large."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from gan_jax.data import files, open_dataset, open_images, open_inputs, pack
from gan_jax.errors import UserError

SETTINGS = dict(resolution=4, channels=3, crop="none", filter="nearest")


def save(path, seed: int = 0, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        save(tmp_path / "set" / f"{i}.png", i)
    return tmp_path / "set"


def opened(path, **settings):
    return open_dataset(name=f"folder:{path}", **SETTINGS, **settings)


def dead_link(path):
    path.symlink_to("/nowhere/x.png")


def to_a_device(path):
    path.symlink_to("/dev/null")


def too_large(path):
    with open(path, "wb") as file:
        file.truncate(files.MOST_BYTES + 1)


@pytest.mark.parametrize(("make", "reason"), [
    (dead_link, r"link to nothing \(/nowhere/x\.png\)"), (os.mkfifo, "it is a pipe, not a file"),
    (to_a_device, "it is a device, not a file"), (os.mkdir, "it is a folder, not a file"),
    (too_large, "unpacks to 0.5 GiB, and no picture takes more"),
])  # fmt: skip
def test_what_is_no_file_is_named_and_may_be_skipped(folder, make, reason):
    make(folder / "x.png")
    with pytest.raises(UserError, match=rf"set/x\.png cannot be used: .*{reason}.*skip_corrupt"):
        opened(folder)
    data = opened(folder, skip_corrupt=True)
    assert (data.size, data.skipped) == (3, 1)
    with pytest.raises(UserError, match=r"x\.png cannot be used"):
        open_images(str(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(folder):
    (folder / "1.png").chmod(0)
    with pytest.raises(UserError, match=r"1\.png cannot be used: .*Permission denied"):
        opened(folder)


def test_a_folder_that_cannot_be_read_is_an_error(folder, monkeypatch):
    """As where it is another user's; root may read everything, so that the system's answer is given here."""
    (folder / "locked").mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match="set/locked: this folder cannot be read: Permission denied"):
        opened(folder)


def test_links_to_folders_lead_to_each_image_once(folder, tmp_path):
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "dog").mkdir()
    save(folder / "dog" / "a.png", 5)
    (folder / "a_dog").symlink_to(folder / "dog", target_is_directory=True)
    save(tmp_path / "elsewhere" / "b.png", 6)
    (folder / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "out_again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    listed = files.list_files(str(folder))
    assert sorted(listed.pictures) == ["0.png", "1.png", "2.png", "dog/a.png", "out/b.png"]
    assert listed.notes == (f"{folder}: 3 link(s) to folders that are read already, passed over",)


def test_links_into_hidden_folders_are_followed_and_those_that_lead_up_are_not(folder, tmp_path):
    save(folder / ".store" / "dog" / "a.png", 5)
    (folder / "dog").symlink_to(".store/dog", target_is_directory=True)
    save(tmp_path / "beside" / "b.png", 6)
    (folder / "up").symlink_to("..", target_is_directory=True)
    listed = files.list_files(str(folder))
    assert sorted(listed.pictures) == ["0.png", "1.png", "2.png", "dog/a.png"]
    assert listed.notes == (f"{folder}: 1 link(s) to folders that are read already, passed over",)


def test_names_in_other_encodings(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT_BYTES", 0)
    for name in ("cat", os.fsdecode(b"caf\xe9")):
        save(tmp_path / name / "a.png")
    data = opened(tmp_path)
    assert data.size == 2 and len(data.content()) == 64


def test_a_file_that_is_none_has_one_content_wherever_it_lies(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT_BYTES", 0)
    (folder / "x.png").symlink_to("/nowhere")
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    os.utime(tmp_path / "copy" / "0.png", (1, 1))
    assert opened(folder).content() == opened(tmp_path / "copy").content()


def test_a_link_back_does_not_multiply_classes(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / "set" / name / "a.png")
    (tmp_path / "set" / "cat" / "again").symlink_to(tmp_path / "set", target_is_directory=True)
    data = opened(tmp_path / "set")
    assert data.size == 2 and data.class_counts == (1, 1)


@pytest.mark.parametrize("ending", ["jfif", "JPG", "tga", "jp2", "ppm", "pcx", "ico", "dds", "tiff", "webp"])
def test_whatever_pillow_reads_is_read(tmp_path, ending):
    options = {"format": "JPEG"} if ending == "jfif" else {}
    save(tmp_path / f"a.{ending}", 1, **options)
    data = opened(tmp_path)
    assert data.size == 1 and data.examples([0])["image"].shape == (1, 4, 4, 3)


def test_other_files_are_counted_aloud(folder):
    for name in ("a.txt", "b.TXT", "labels.csv", "README", ".hidden"):
        (folder / name).write_text("x")
    assert opened(folder).notes == (f"{folder}: 4 files passed over, no pictures: .txt 2, .csv 1, without ending 1",)
    dataset, _ = open_images(str(folder))
    assert dataset.notes == opened(folder).notes


def test_a_folder_of_other_files_says_what_it_has(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds no images: expected files that end in \.png.*it has \.heic 1"):
        opened(tmp_path)


def test_an_entry_that_unpacks_to_too_much_is_not_unpacked(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "0.png", "0.png")
        archive.writestr("bomb.png", bytes(2 << 20))
    assert (tmp_path / "bomb.zip").stat().st_size < 1 << 14
    with pytest.raises(UserError, match=r"bomb\.zip/bomb\.png cannot be used: it unpacks to"):
        opened(tmp_path / "bomb.zip")
    assert opened(tmp_path / "bomb.zip", skip_corrupt=True).skipped == 1


def test_a_tar_that_is_cut_short_is_one_message_too(tmp_path, folder):
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        archive.add(folder, "set")
    data = (tmp_path / "set.tar.gz").read_bytes()
    (tmp_path / "set.tar.gz").write_bytes(data[: len(data) // 4])
    with pytest.raises(UserError, match="cannot be read as a zip|is a tar archive"):
        opened(tmp_path / "set.tar.gz")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_gets_one_sentence(tmp_path, folder, mode):
    with tarfile.open(tmp_path / "set.tar", mode) as archive:
        archive.add(folder, "set")
    with pytest.raises(UserError, match=r"is a tar archive.*unpack it \(tar -xf set\.tar\) and give the folder"):
        opened(tmp_path / "set.tar")


def test_a_single_picture_is_no_set_but_an_input(folder):
    with pytest.raises(UserError, match=r"0\.png is one picture: expected a folder or a \.zip"):
        opened(folder / "0.png")
    section = dict(resolution=4, channels=3, crop="none", crop_size=0, filter="nearest")
    dataset, names = open_inputs(str(folder / "0.png"), section)
    assert dataset.size == 1 and names == ("0.png",)


def test_a_pipe_as_a_path_is_an_error_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code = f"from gan_jax.data import open_dataset; open_dataset(name='folder:{tmp_path}/pipe')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "is neither a folder nor a file" in done.stderr
