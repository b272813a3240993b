"""Checkpoints of rosinality's stylegan2-pytorch make the recorded images, see golden/rosinality_make.py."""

import jax
import numpy as np
import pytest

from gan_jax import cli
from gan_jax.errors import UserError
from gan_jax.interop import networks, rosinality
from gan_jax.weights import containers
from tests import interop_files as files
from tests.test_interop_import import GOLDEN, _close, _images, _restored

SOURCE = GOLDEN / "interop_rosinality.pt"


@pytest.fixture(scope="module")
def recorded():
    """Latents, images and logits, NHWC."""
    with np.load(GOLDEN / "interop_rosinality.npz") as npz:
        arrays = {name: npz[name] for name in npz.files if name != "meta"}
    return {name: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value for name, value in arrays.items()}


@pytest.fixture(scope="module")
def tensors():
    """The file's tensors by network; the mean of w is among the averaged generator's."""
    value = containers.read_file(SOURCE).value
    arrays = {net: {name: containers.array(item) for name, item in value[net].items()} for net in ("g_ema", "d")}
    arrays["g_ema"]["latent_avg"] = containers.array(value["latent_avg"])
    return arrays


def test_a_checkpoint(recorded, tmp_path, capsys):
    """Generator with and without truncation, both averaged and not, and discriminator."""
    assert cli.main(["import", f"--from={SOURCE}", f"--workdir={tmp_path / 'run'}"]) == 0
    expected = "D, G, G_ema (stylegan2, 16x16x3, without labels; left out: 'g_optim', 'd_optim', 'args', 'ada_aug_p')"
    assert expected in capsys.readouterr().out
    run, state, _ = _restored(tmp_path / "run")
    z = recorded["in/z"]
    decode = jax.jit(lambda z, psi: run.game.decode(run.nets, state.ema, z, None, psi=psi))
    assert np.abs(recorded["out/truncated"] - recorded["out/images"]).max() > 0.1
    _close(decode(z, 1.0), recorded["out/images"])
    _close(decode(z, 0.7), recorded["out/truncated"])
    ema = {"generator": {"params": state.params["generator"], **state.variables["generator"]}}
    _close(_images(run, state._replace(ema=ema), z), recorded["out/images_g"])
    critic = {"params": state.params["discriminator"], **state.variables["discriminator"]}
    logits = jax.jit(lambda x: run.nets["discriminator"].apply(critic, x))(recorded["out/images"])
    _close(logits, recorded["out/logits"])


@pytest.mark.parametrize("net, role", [("g_ema", "G_ema"), ("d", "D")])
def test_a_network_alone(net, role, tensors, tmp_path):
    """A state dict without the dict around it."""
    (tmp_path / "x.pt").write_bytes(files.zipped_state_dict(tensors[net]))
    alone, others = networks.find(containers.read_file(tmp_path / "x.pt").value)
    together, _ = networks.find(containers.read_file(SOURCE).value)
    assert list(alone) == [role] and not others
    jax.tree.map(np.testing.assert_array_equal, alone[role].tensors, together[role].tensors)


def test_the_mean_of_w_that_a_file_lacks(tensors, recorded):
    """The mean over 4096 latents is within five standard errors of that over 100000."""
    without = {name: value for name, value in tensors["g_ema"].items() if name != "latent_avg"}
    w_avg = networks.find({"g_ema": without})[0]["G_ema"].tensors["mapping.w_avg"]
    error = np.abs(w_avg - tensors["g_ema"]["latent_avg"]) / (recorded["out/deviation"] / 4096**0.5)
    assert w_avg.shape == (8,) and error.max() < 5


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("convs.0.conv.blur.kernel", lambda x: x / 4, "the filter convs.0.conv.blur.kernel sums up to 1; expected 4"),
        ("conv1.conv.weight", lambda x: np.repeat(x, 2, 0), r"conv1.conv.weight has the shape \(2, 8, 8, 3, 3\)"),
        ("noises.noise_0", lambda x: x[0, 0], r"noises.noise_0 has the shape \(4, 4\); expected 2 leading 1"),
        ("conv1.noise.weight", lambda x: x[0], r"conv1.noise.weight has the shape \(\)"),
    ],
)
def test_other_shapes_and_filters(name, change, message, tensors):
    arrays = tensors["g_ema"]
    with pytest.raises(UserError, match=message):
        rosinality.official(arrays | {name: np.asarray(change(arrays[name]))})


def test_a_mapping_network_of_other_widths(tensors):
    """It is not applied, however large the file says that it is."""
    arrays = {name: value for name, value in tensors["g_ema"].items() if name != "latent_avg"}
    with pytest.raises(UserError, match="style.2 is no layer from 8 to 8 features"):
        rosinality.official(arrays | {"style.2.weight": np.zeros((100_000, 8), np.float32)})


def test_names_that_it_does_not_have(tensors, tmp_path, capsys):
    """They stay, and are told; two spellings of one name are an error."""
    arrays = tensors["g_ema"] | {"conv1.extra.weight": np.zeros((2, 2), np.float32)}
    (tmp_path / "x.pt").write_bytes(files.zipped_state_dict(arrays))
    assert cli.main(["import", f"--from={tmp_path / 'x.pt'}", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "conv1/extra/kernel has no place" in capsys.readouterr().err
    with pytest.raises(UserError, match="two tensors of the file have one name"):
        rosinality.official(tensors["g_ema"] | {"style.01.bias": np.zeros(8, np.float32)})


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_not_finite(tensors, tmp_path, capsys):
    """One message, although the mean of w is computed of them."""
    arrays = {name: value for name, value in tensors["g_ema"].items() if name != "latent_avg"}
    arrays["style.1.weight"] = np.full((8, 8), np.inf, np.float32)
    (tmp_path / "x.pt").write_bytes(files.zipped_state_dict(arrays))
    assert cli.main(["import", f"--from={tmp_path / 'x.pt'}", f"--workdir={tmp_path / 'run'}"]) == 2
    message = capsys.readouterr().err
    assert "mapping_network/fc0/kernel holds NaN or infinity" in message and len(message.splitlines()) == 1
