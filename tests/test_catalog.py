"""Experiments by their names: from any folder, from a checkout and from a wheel."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from gan_jax import catalog, cli, provenance, runs
from gan_jax import config as configs
from gan_jax.errors import MissingPathError
from tests import settings

NAMES = sorted(path.stem for path in settings.EXPERIMENTS.glob("*.py"))
# What decides the contents of a wheel.
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "gan_jax", "experiments")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)


def test_a_name_is_its_file_from_any_folder():
    for variant in ("", ":smoke"):
        by_name, by_path = (runs.load_config(f"{path}{variant}") for path in
                            ("digits_dcgan_conditional", settings.EXPERIMENTS / "digits_dcgan_conditional.py"))
        assert configs.to_json(by_name) == configs.to_json(by_path) and by_name.conditional
    pathlib.Path("digits_dcgan").mkdir()  # what lies in the current folder has no say
    assert catalog.find("digits_dcgan") == settings.EXPERIMENTS / "digits_dcgan.py"
    assert cli.DEFAULT_CONFIG in NAMES and cli.default_workdir("mixture_gan:smoke") == "runs/mixture_gan_smoke"


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    listed = ", ".join(NAMES)
    with pytest.raises(MissingPathError, match=f"--config=digits_dgan:smoke: no experiment digits_dgan; did you mean "
                                               rf"digits_dcgan\? There are {listed}\.$"):
        configs.load("digits_dgan:smoke")
    with pytest.raises(MissingPathError, match=r"no experiment xyzzy\. There are "):
        configs.load("xyzzy")
    pathlib.Path("own.py").touch()
    with pytest.raises(MissingPathError, match=r"A file of your own is own\.py\.$"):
        configs.load("own")


def test_a_wrong_path_is_answered_with_files_and_names():
    pathlib.Path("digits_dcgan_mine.py").touch()
    with pytest.raises(MissingPathError, match="no file digits_dcgan_my.py; nearest: digits_dcgan_mine.py, digits_d"):
        configs.load("digits_dcgan_my.py")
    with pytest.raises(MissingPathError, match=r"no file experiments/r3gan\.py; nearest: r3gan, which --config"):
        configs.load("experiments/r3gan.py:cifar10")


def test_a_copy_still_finds_its_neighbours(capsys):
    assert cli.main(["config", "digits_dcgan_conditional"]) == 0
    text = capsys.readouterr().out
    assert text == (settings.EXPERIMENTS / "digits_dcgan_conditional.py").read_text()
    before = list(sys.path)
    pathlib.Path("mine.py").write_text(text.replace("conditional = True", "conditional, config.seed = True, 7"))
    assert runs.load_config("mine.py:smoke").seed == 7 and sys.path == before


def test_the_list_has_every_experiments_first_line(capsys):
    assert cli.main(["config"]) == 0
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == NAMES
    for name, line in lines.items():
        assert (settings.EXPERIMENTS / f"{name}.py").read_text().startswith((f'"""{line}\n', f'"""{line}"""')), name


@pytest.mark.parametrize("argv", [["digits_dcgan", "r3gan"], ["--config=r3gan"]])
def test_the_command_takes_one_name(capsys, argv):
    assert cli.main(["config", *argv]) == 2
    assert "expected the name of one experiment" in capsys.readouterr().err


def test_a_wheel_carries_the_experiments_along(tmp_path):
    """Built from a copy of the sources; what is in it is run from another folder, the checkout out of sight."""
    source, built = tmp_path / "source", tmp_path / "built"
    source.mkdir()
    built.mkdir()
    for name in SOURCES:
        path = settings.ROOT / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, source / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if path.is_dir() else {}))
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(built)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "installed")
    ours = {path.relative_to(source).as_posix() for path in (source / "gan_jax").rglob("*.py")}
    assert files == ours | {f"gan_jax/experiments/{name}.py" for name in NAMES}

    code = """
import sys
from gan_jax import catalog, cli
assert cli.main(["config", "r3gan"]) == 0
assert not {"jax", "numpy", "ml_collections"} & sys.modules.keys()
from gan_jax import config, provenance
print(catalog.folder(), config.load("digits_dcgan_conditional:smoke").conditional, provenance.code_sha256())
"""
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    text, _, last = done.stdout.rstrip().rpartition("\n")
    assert text.rstrip() == (settings.EXPERIMENTS / "r3gan.py").read_text().rstrip()
    assert last == f"{tmp_path / 'installed' / 'gan_jax' / 'experiments'} True {provenance.code_sha256()}"
