"""What a file says of how its network was made is held against what can be built, and told in one message."""

import numpy as np
import pytest

from gan_jax import cli, runs
from gan_jax.errors import UserError
from gan_jax.interop import architectures, arguments, networks
from gan_jax.interop.networks import Network
from tests import golden_stylegan2, golden_stylegan3
from tests import interop_files as files
from tests.test_interop_import import BUFFERS


@pytest.fixture(scope="module")
def stylegan3():
    """A tiny StyleGAN3-R in official names, and what it was made with."""
    arrays, meta = golden_stylegan3.load("sg3_net_r_cond")
    return {k.removeprefix("params/"): v for k, v in arrays.items() if k.startswith("params/")}, meta["G_kwargs"]


@pytest.fixture(scope="module")
def stylegan2():
    """A tiny StyleGAN2 generator in official names, and what it was made with."""
    arrays, meta = golden_stylegan2.load("sg2_loss_uncond")
    prefix = "params/G/"
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}, meta["G_kwargs"]


def _told(network, path, capsys) -> str:
    path.write_bytes(files.pickled({"G_ema": network}))
    assert cli.main(["import", f"--from={path}", f"--workdir={path.with_suffix('')}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --from={path}: ") and len(message.splitlines()) == 1 and len(message) < 500
    return message


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"conv_clamp": "x"}, "conv_clamp is 'x' in the file; expected a number from 0"),
        ({"conv_clamp": 10**400}, "conv_clamp is a number of 1329 bits"),
        ({"conv_clamp": float("nan")}, "conv_clamp is nan"),
        ({"conv_clamp": True}, "conv_clamp is True"),
        ({"conv_clamp": -1.0}, "conv_clamp is -1.0"),
        ({"output_scale": float("nan")}, "output_scale is nan"),
        ({"output_scale": float("inf")}, "output_scale is inf"),
        ({"filter_size": -3}, "filter_size is -3 in the file; expected a whole number from 1"),
        ({"filter_size": 10**6}, "filter_size is 1000000"),
        ({"filter_size": 6.5}, "filter_size is 6.5"),
        ({"filter_size": None}, "filter_size is None"),
        ({"lrelu_upsampling": 10**4}, "lrelu_upsampling is 10000"),
        ({"num_critical": 10**30}, "num_critical is a number of 100 bits"),
        ({"num_critical": 50}, "num_critical=50"),  # more than it has layers
        ({"first_cutoff": 0.0}, "first_cutoff is 0.0"),
        ({"channel_base": [1]}, "channel_base is a list"),
        ({"mapping_kwargs": {"w_avg_beta": 1.5}}, "w_avg_beta is 1.5"),
        ({"mapping_kwargs": [["w_avg_beta", 0.5]]}, "mapping_kwargs is a list"),
        ({"resolution_hash": 2**600}, "resolution_hash=a number of 601 bits, which is not supported"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_built(changed, message, stylegan3, tmp_path, capsys):
    arrays, kwargs = stylegan3
    assert message in _told(files.network("Generator", arrays, kwargs | changed, BUFFERS), tmp_path / "x.pkl", capsys)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"synthesis_kwargs": {"conv_clamp": float("-inf")}}, "conv_clamp is -inf"),
        ({"synthesis_kwargs": {"channel_base": float("nan")}}, "channel_base is nan"),
        ({"synthesis_kwargs": {"channel_base": 10**400}}, "channel_base is a number of"),
        ({"synthesis_kwargs": 7}, "synthesis_kwargs is 7"),
        ({"synthesis_kwargs": {"block_kwargs": "x"}}, "block_kwargs is 'x'"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_built_of_stylegan2(changed, message, stylegan2, tmp_path, capsys):
    arrays, kwargs = stylegan2
    assert message in _told(files.network("Generator", arrays, kwargs | changed, BUFFERS), tmp_path / "x.pkl", capsys)


def test_parts_and_filters_that_cannot_be_built(stylegan2):
    """A clamp that a part tells, and a filter of too many taps."""
    arrays, kwargs = stylegan2
    assert architectures.fields(Network(arrays, kwargs, {"conv_clamp": 256}), "stylegan2", discriminator=False)[
        "conv_clamp"] == 256.0  # fmt: skip
    for value in (10**400, float("nan"), "x"):
        with pytest.raises(UserError, match="conv_clamp is "):
            architectures.fields(Network(arrays, kwargs, {"conv_clamp": value}), "stylegan2", discriminator=False)
    wide = arrays | {"synthesis.b8.resample_filter": np.ones(1000, np.float32)}
    with pytest.raises(UserError, match="at most 64 taps"):
        architectures.fields(Network(wide, kwargs), "stylegan2", discriminator=False)


def test_numbers_are_of_their_fields_type():
    for field, value, expected in (("conv_clamp", 256, 256.0), ("channel_base", 2.0**15, 32768),
                                   ("conv_clamp", None, 0.0), ("mbstd_group", None, 0)):  # fmt: skip
        result = arguments.number(field, value)
        assert result == expected and type(result) is type(expected)


def test_long_names_are_not_written_down():
    """A number of more digits than Python would write, as a key and as a part's name."""
    for value in ({10**5000: 1}, {"G": {10**5000: np.zeros(2)}}):
        with pytest.raises(ValueError, match="a number of 16610 bits"):
            networks.find(value)


@pytest.mark.parametrize(
    "error", [AssertionError("one\ntwo"), MemoryError(), OverflowError("too large"), KeyError("x")]
)
@pytest.mark.parametrize("owner, name", [(architectures, "fields"), (runs, "build"), (runs, "init_state")])
def test_whatever_else_goes_wrong_is_one_message(owner, name, error, stylegan2, tmp_path, capsys, monkeypatch):
    arrays, kwargs = stylegan2

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(owner, name, fail)
    message = _told(files.network("Generator", arrays, kwargs, BUFFERS), tmp_path / "x.pkl", capsys)
    assert f"no network can be built of what the file says: {type(error).__name__}" in message
    assert not (tmp_path / "x").exists()
