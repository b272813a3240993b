"""A run's networks leave it as arrays that come back, and as a program that makes the images of `sample`."""

import jax
import numpy as np
import pytest
import safetensors
from jax import export

from gan_jax import cli, folders, painter, parallel, runs
from gan_jax.errors import UserError
from gan_jax.interop import exporter
from gan_jax.layers import pixels
from tests import settings

STYLEGAN2 = settings.EXPERIMENTS / "digits_stylegan2.py"


def _moved(state):
    """A State whose averages are no copies."""
    moved = {net: jax.tree.map(lambda x: 0.9 * x + 0.01, tree) for net, tree in state.ema.items()}
    return state._replace(ema=moved)


@pytest.fixture(scope="module")
def styled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "styled"
    config = runs.load_config(f"{STYLEGAN2}:smoke", [("conditional", "True")])
    return folder, settings.fresh_folder(config, folder, _moved)


def _state(run, folder):
    return folders.restore(run, folder, parallel.make_mesh(jax.devices()[:1])).state


def test_arrays_come_back(styled, tmp_path, capsys):
    folder, run = styled
    file = tmp_path / "deep" / "networks.safetensors"
    assert cli.main(["export", f"--workdir={folder}", f"--out={file}", "--format=safetensors"]) == 0
    assert str(file) in capsys.readouterr().out and [path.name for path in file.parent.iterdir()] == [file.name]
    with safetensors.safe_open(file, "numpy") as opened:
        names, metadata = set(opened.keys()), opened.metadata()
    assert "generator/params/synthesis_network/b4/const" in names and "generator/w_avg/mapping_network/w_avg" in names
    assert "discriminator/params/b4/out/kernel" in names and metadata["averaged"] == "generator"
    assert cli.main(["import", f"--from={file}", f"--workdir={tmp_path / 'back'}"]) == 0
    before, after = _state(run, folder), _state(run, tmp_path / "back")
    jax.tree.map(np.testing.assert_array_equal, after.ema, before.ema)
    jax.tree.map(np.testing.assert_array_equal, after.params["generator"], before.ema["generator"]["params"])
    jax.tree.map(np.testing.assert_array_equal, after.params["discriminator"], before.params["discriminator"])
    assert (tmp_path / "back" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert jax.tree.structure(after) == jax.tree.structure(before)


def _images(program, batch: int, run, *labels):
    seeds = np.arange(batch)
    z = run.game.latents(run.nets["generator"], painter.keys_of(seeds))
    return pixels.quantise(program.call(z, *labels))


def test_the_program_makes_the_samples(styled, tmp_path):
    folder, run = styled
    file = tmp_path / "generator.stablehlo"
    flags = ["--format=stablehlo", "--truncation=0.5,3"]
    assert cli.main(["export", f"--workdir={folder}", f"--out={file}", *flags]) == 0
    program = export.deserialize(file.read_bytes())
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    assert [str(shape.shape) for shape in program.in_avals] == ["(batch, 8)", "(batch,)"]
    ema = _state(run, folder).ema
    labels = np.int32([3, 1, 4])
    z = run.game.latents(run.nets["generator"], painter.keys_of(np.arange(3)))

    def draw(**options):
        """Images of constant noise."""
        images = jax.jit(lambda z: pixels.quantise(run.game.decode(run.nets, ema, z, labels, **options)))(z)
        return np.asarray(images, int)

    samples = draw(psi=0.5, cutoff=3)
    assert samples.std() > 1
    for batch in (1, 3):
        difference = np.asarray(_images(program, batch, run, labels[:batch]), int) - samples[:batch]
        assert np.abs(difference).max() <= 1, "rounding"
    assert np.abs(draw() - samples).max() > 1


@pytest.mark.parametrize("game", ["digits_dcgan", "digits_r3gan", "digits_progan"])
def test_programs_of_other_games(game, tmp_path):
    """Unconditional: one argument."""
    config = runs.load_config(f"{settings.EXPERIMENTS / game}.py:smoke")
    run = settings.build(config, (config.data.resolution, config.data.resolution, config.data.channels))
    ema = jax.jit(lambda: runs.init_state(run).ema)()
    program = export.deserialize(exporter.program(run, ema).serialize())
    (z,) = program.in_avals
    z = np.random.default_rng(0).normal(size=(3, z.shape[1])).astype(np.float32)
    expected = jax.jit(lambda z: run.game.decode(run.nets, ema, z, None))(z)
    for batch in (1, 3):
        np.testing.assert_allclose(program.call(z[:batch]), expected[:batch], atol=1e-5)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--format=onnx"], "--format=onnx: expected safetensors or stablehlo"),
        (["--format=safetensors", "--truncation=0.5"], "part of programs"),
        (["--format=stablehlo", "--truncation=half"], "--truncation=half"),
        (["--format=stablehlo", "--truncation=0.5,99"], "layers"),
        (["--step=77"], "no checkpoint of step 77"),
    ],
)
def test_mistakes(flags, message, styled, tmp_path, capsys):
    folder, _ = styled
    assert cli.main(["export", f"--workdir={folder}", f"--out={tmp_path / 'x'}", *flags]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("format, name", [("safetensors", "x.pkl"), ("stablehlo", "x.safetensors"), ("", "x.pth")])
def test_a_name_that_says_another_format(format, name, tmp_path, capsys):
    """Refused before the run is looked for."""
    flags = [f"--format={format}"] if format else []
    assert cli.main(["export", f"--workdir={tmp_path / 'none'}", f"--out={tmp_path / name}", *flags]) == 2
    expected = format or "safetensors"
    message = f"error: --out={tmp_path / name}: expected a name that ends in .{expected} for --format={expected}"
    assert capsys.readouterr().err.startswith(message) and not list(tmp_path.iterdir())


def test_nothing_to_write_into(styled, tmp_path):
    folder, _ = styled
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        exporter.export(folder, tmp_path / "file" / "x", format="safetensors")


def test_our_files_are_checked(styled, tmp_path, capsys):
    """Another version's, with tensors that are missing, with a config of its own beside another."""
    folder, _ = styled
    file = exporter.export(folder, tmp_path / "x.safetensors", format="safetensors")
    with safetensors.safe_open(file, "numpy") as opened:
        tensors, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()
    for changed, message in (
        ({"gan_jax": "gan_jax 99"}, "gan_jax 99"),
        ({"config": "{"}, "metadata cannot be read"),
        ({"data": "[]"}, "metadata cannot be read"),
    ):
        safetensors.numpy.save_file(tensors, file, {**metadata, **changed})
        assert cli.main(["import", f"--from={file}", f"--workdir={tmp_path / 'run'}"]) == 2
        assert message in capsys.readouterr().err
    tensors.pop("generator/w_avg/mapping_network/w_avg")
    safetensors.numpy.save_file(tensors, file, metadata)
    assert cli.main(["import", f"--from={file}", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "w_avg/mapping_network/w_avg is missing" in capsys.readouterr().err
    flags = [f"--from={file}", f"--workdir={tmp_path / 'run'}", f"--config={STYLEGAN2}"]
    assert cli.main(["import", *flags]) == 2
    assert "has its own config" in capsys.readouterr().err and not (tmp_path / "run").exists()
