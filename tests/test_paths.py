"""Paths as people write them."""

import pytest

from gan_jax import cli, paths
from gan_jax.errors import UserError


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", "a place")
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)


def test_home_and_variables_are_put_in_place(tmp_path):
    assert paths.expanded("~/x", "--out") == f"{tmp_path}/home/x"
    assert paths.expanded("$PLACE/x", "--out") == "a place/x"
    assert paths.expanded("${PLACE}_2", "--out") == "a place_2"
    assert paths.expanded("", "--out") == "" and paths.expanded("runs/a", "--out") == "runs/a"
    assert paths.expanded("file:///tmp/x%20y", "--out") == "/tmp/x y" == paths.expanded("file://localhost/tmp/x y", "")


def test_a_name_with_a_dollar_is_itself(tmp_path):
    (tmp_path / "$PLACE").mkdir()
    assert paths.expanded("$PLACE", "--out") == "$PLACE"


@pytest.mark.parametrize(("text", "message"), [
    ("$NOWHERE/x", r"--out=\$NOWHERE/x: the variable \$NOWHERE is not set"),
    ("~nobody_of_this_name/x", "no such user's folder"),
    ("gs://bucket/x", r"--out=gs://bucket/x: gs:// is not read or written; mount it"),
    ("file://elsewhere/x", "is another machine"),
    ("s3://bucket/x", "s3:// is not read or written"), ("hdfs://x", "hdfs://"), ("memory://x", "memory://"),
    ("https://a.b/c.pkl", "this is an address; download the file first"),
])  # fmt: skip
def test_what_leads_nowhere_is_one_sentence(text, message):
    with pytest.raises(UserError, match=message):
        paths.expanded(text, "--out")


@pytest.mark.parametrize("name", cli.PATHS)
def test_every_path_of_the_command_line_is_expanded(name, tmp_path):
    command = next(command for command, flags in cli.FLAGS.items() if name in flags)
    flags, _ = cli.parse(command, [f"--{name}=~/x"])
    assert flags[name] == [f"{tmp_path}/home/x"]
    with pytest.raises(UserError, match=f"--{name}=gs://x"):
        cli.parse(command, [f"--{name}=gs://x"])


def test_several_runs_are_expanded_each(tmp_path):
    flags, _ = cli.parse("evaluate", ["--compare=~/a,$PLACE/b"])
    assert flags["compare"] == [f"{tmp_path}/home/a,a place/b"]


def test_paths_of_a_config_are_expanded(tmp_path):
    from gan_jax.data import open_dataset, tfds_source
    from gan_jax.weights import store

    with pytest.raises(UserError, match=f"no folder or .zip at {tmp_path}/home/x"):
        open_dataset(name="folder:~/x")
    with pytest.raises(UserError, match="gs://b is not|gs:// is not"):
        open_dataset(name="folder:gs://b")
    assert str(tfds_source.data_dir("$PLACE/x")) == "a place/x"
    with pytest.raises(UserError, match=f"{tmp_path}/home/w: no such file or folder"):
        store.find("lpips_alex", folder="~/w")


@pytest.mark.parametrize("variable", ["GAN_JAX_DATA_DIR", "TFDS_DATA_DIR"])
def test_paths_of_the_environment_are_expanded(variable, monkeypatch, tmp_path):
    from gan_jax import cache
    from gan_jax.data import tfds_source

    monkeypatch.delenv("GAN_JAX_DATA_DIR", raising=False)
    monkeypatch.setenv(variable, "~/data")
    assert tfds_source.data_dir("") == tmp_path / "home" / "data"
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", "~/cache")
    assert cache.cache_dir("packed") == tmp_path / "home" / "cache" / "packed"
