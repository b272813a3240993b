"""A run's folder and its data: the same content in another place is the same data."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from gan_jax import cli, folders, run_data
from gan_jax.data import pack
from gan_jax.errors import UserError
from tests import settings


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).save(folder / f"{i}.png")
    return folder


def _begin(workdir, images):
    """What `train` does with the folder: (config, dataset) of a run of these images."""
    config = settings.digits(data__name=f"folder:{images}", data__resolution="32", evaluation__metrics="()")
    dataset = run_data.open_data(config)
    spec = run_data.data_spec(config, dataset)
    folders.start_folder(workdir, config, spec, dataset.summary(), dataset)
    return config, dataset


def _copy(images, place, stamp):
    shutil.copytree(images, place)
    for file in place.iterdir():
        os.utime(file, (stamp, stamp))
    return place


def _begun(workdir):
    (workdir / "checkpoints" / "3").mkdir(parents=True)


@pytest.fixture(params=["packed", "decoded while used"])
def kind(request, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT_BYTES", 8 << 30 if request.param == "packed" else 0)
    return request.param


def _wait_for_content(workdir):
    for _ in range(200):
        if json.loads((workdir / "data.json").read_text()).get("content"):
            return
        time.sleep(0.05)
    raise AssertionError("the content was not written")


def test_data_that_were_copied_elsewhere_are_the_same(tmp_path, images, kind, capsys):
    run = tmp_path / "run"
    _, first = _begin(run, images)
    _begun(run)
    if kind != "packed":
        _wait_for_content(run)
    shutil.move(images, tmp_path / "away")
    copy = _copy(tmp_path / "away", tmp_path / "copy", 1_000_000)
    config, dataset = _begin(run, copy)
    assert json.loads((run / "config.json").read_text())["data"]["name"] == f"folder:{copy}"
    if kind == "packed":
        assert dataset.fingerprint == first.fingerprint
    else:
        assert dataset.fingerprint != first.fingerprint and "reading all files" in capsys.readouterr().out
        assert folders.is_same_data(run, first.fingerprint, dataset.fingerprint)
        _begin(run, copy)
        assert "reading all files" not in capsys.readouterr().out  # it is known now


def test_other_data_in_another_place_are_refused_and_nothing_is_written(tmp_path, images, kind):
    run = tmp_path / "run"
    _begin(run, images)
    _begun(run)
    if kind != "packed":
        _wait_for_content(run)
    before = {name: (run / name).read_bytes() for name in ("config.json", "data.json")}
    copy = _copy(images, tmp_path / "copy", 1_000_000)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(copy / "2.png")
    with pytest.raises(UserError, match="the data has changed since this run began"):
        _begin(run, copy)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_another_kind_of_data_is_another_config(tmp_path, images):
    run = tmp_path / "run"
    _begin(run, images)
    _begun(run)
    config = settings.digits(data__name="synthetic:4", evaluation__metrics="()")
    dataset = run_data.open_data(config)
    with pytest.raises(UserError, match="another config:\n.*config.data.name"):
        folders.start_folder(run, config, run_data.data_spec(config, dataset), dataset.summary(), dataset)


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_a_command_takes_the_place_where_data_lie_now(tmp_path, images, command, capsys):
    run = tmp_path / "run"
    settings.fresh_folder(settings.digits(data__name=f"folder:{images}", evaluation__metrics="()"), run)
    shutil.move(images, tmp_path / "moved")
    flags = [command, f"--workdir={run}", *([f"--out={tmp_path / 'out'}", "--seeds=0"] if command == "sample" else [])]
    assert cli.main([*flags, f"--data={tmp_path / 'moved'}"]) == 0
    (tmp_path / "moved" / "0.png").unlink()
    assert cli.main([*flags, f"--data={tmp_path / 'moved'}"]) == 2
    assert "the data has changed since this run began" in capsys.readouterr().err
