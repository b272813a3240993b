"""A game, its networks and an experiment of the user's own, in a folder of the user's own, through the commands."""

import json
import sys

import numpy as np
import pytest

from gan_jax import cli

GAME = '''
"""A generator that is told the mean of the data, and a critic: moment matching as a game."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import config as configs
from gan_jax.layers import random
from gan_jax.step import Out, Phase
from own_gan import networks

NETS = ("painter", "critic")
EMA_NETS = ("painter",)
DEFAULTS = {"loss": {"sharpness": 1.0}}
NEEDS = {"painter": ("width",)}


def constructors(config):
    return {"painter": networks.Painter, "critic": networks.Critic}


def reads(config):
    return ("image",)


def asks(config):
    return ()


def fixed(config):
    return {"teacher": {"centre": np.float32([3.0, 4.0])}}


def nets(config, spec):
    made = constructors(config)
    return {net: configs.build(made[net], config[net], net, shape=spec["image"].shape) for net in NETS}


def init(config, nets, spec, key):
    first, second = jax.random.split(key)
    params = {"painter": nets["painter"].init(first, jnp.zeros((1, 2)))["params"],
              "critic": nets["critic"].init(second, jnp.zeros((1, *spec["image"].shape)))["params"]}
    return params, {}, ()


def phases(config, nets):
    def fakes(params, rng):
        return nets["painter"].apply({"params": params["painter"]}, random.normal(rng.samples, (2,)))

    def critic(params, state, batch, rng):
        judge = lambda x: nets["critic"].apply({"params": params["critic"]}, x)
        gap = judge(fakes(params, rng)).mean() - judge(batch["image"]).mean()
        return gap + config.loss.sharpness * jnp.square(gap), Out(
            {"gap": gap, "from_centre": jnp.linalg.norm(params["teacher"]["centre"])}, {})

    def painter(params, state, batch, rng):
        return -nets["critic"].apply({"params": params["critic"]}, fakes(params, rng)).mean(), Out({}, {})

    return (Phase("critic", critic, ("critic",), "critic"), Phase("painter", painter, ("painter",), "painter"))


def sample(nets, ema, keys, given):
    return {"image": nets["painter"].apply(ema["painter"], random.normal(keys, (2,)))}
'''

NETWORKS = '''
import flax.linen as nn


class Painter(nn.Module):
    shape: tuple
    width: int = 8

    @nn.compact
    def __call__(self, z):
        return nn.Dense(self.shape[0])(nn.relu(nn.Dense(self.width)(z)))


class Critic(nn.Module):
    shape: tuple
    width: int = 8

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.Dense(self.width)(x)))[:, 0]
'''

EXPERIMENT = '''
from ml_collections import ConfigDict


def get_config(variant=""):
    adam = {"name": "adam", "learning_rate": 1e-3}
    return ConfigDict({
        "game": "own_gan.game", "total_images": 24, "batch_size": 8, "grid": 4,
        "data": {"name": "mixture:ring8"},
        "painter": {"name": "dense"}, "critic": {"name": "dense", "width": 16},
        "optim": {"painter": dict(adam), "critic": dict(adam)},
        "every": {"log_images": 8, "sample_images": 16, "checkpoint_images": 8},
        "evaluation": {"metrics": ("modes",), "samples": 64},
    })
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder in which the user works, with the package `own_gan`."""
    (tmp_path / "own_gan").mkdir()
    (tmp_path / "own_gan" / "__init__.py").write_text("")
    (tmp_path / "own_gan" / "game.py").write_text(GAME)
    (tmp_path / "own_gan" / "networks.py").write_text(NETWORKS)
    (tmp_path / "experiment.py").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_gan"]:
        del sys.modules[name]


def test_it_is_trained_resumed_sampled_and_evaluated_by_the_commands(own, capsys):
    train = ["train", "--config=experiment.py", "--workdir=run"]
    assert cli.main(train) == 0
    assert cli.main([*train, "--config.total_images=32"]) == 0
    assert "resumed at 24 images, step 3: own_gan.game on mixture:ring8" in capsys.readouterr().out
    rows = [json.loads(line) for line in (own / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(np.isfinite(row["critic/gap"]) for row in rows)
    assert all(row["critic/from_centre"] == 5.0 for row in rows)  # of `fixed`, which no checkpoint holds
    saved = (own / "run" / "checkpoints" / "4" / "state" / "_METADATA").read_text()
    assert "painter" in saved and "teacher" not in saved

    assert cli.main(["sample", "--workdir=run", "--seeds=0-4", "--out=out"]) == 0
    assert np.loadtxt(own / "out" / "points.csv", delimiter=",", skiprows=1).shape == (5, 2)
    assert cli.main(["evaluate", "--workdir=run"]) == 0
    assert "modes_covered" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "message"), [
    ("own_gan.nothing", "config.game='own_gan.nothing': ModuleNotFoundError: No module named 'own_gan.nothing'"),
    ("painting", "expected one of contrastive, creative, inpainting, paired, progressive, style, super_resolution, "
                 "text_to_image, translation, unconditional, video, video_prediction, or the "),
])  # fmt: skip
def test_a_game_that_is_not_there_is_named(own, capsys, name, message):
    assert cli.main(["train", "--config=experiment.py", "--workdir=run", f"--config.game={name}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (own / "run").exists()


def test_a_network_that_lacks_what_the_game_needs_is_named(own, capsys):
    """Of a section that none of our models is for."""
    file = own / "own_gan" / "game.py"
    file.write_text(file.read_text().replace('("width",)', '("width", "brush")'))
    assert cli.main(["train", "--config=experiment.py", "--workdir=run"]) == 2
    error = capsys.readouterr().err
    assert "needs width, brush of 'painter', and 'dense' has no brush; take another model, or game" in error


def test_a_fixed_network_that_is_called_as_a_trained_one_is_refused(own, capsys):
    file = own / "own_gan" / "game.py"
    file.write_text(file.read_text().replace('{"teacher": {"centre"', '{"critic": {"centre"'))
    assert cli.main(["train", "--config=experiment.py", "--workdir=run"]) == 2
    assert "calls a fixed network as one that it trains: critic; give it another name" in capsys.readouterr().err


def test_networks_of_a_module_take_the_place_of_ours(own, capsys):
    """`config.<net>.name` may be a dotted path too."""
    (own / "own_gan" / "mine.py").write_text(
        "from gan_jax.models.gan import Discriminator\nfrom gan_jax.models import gan\n\n\n"
        "class Generator(gan.Generator):\n    own: int = 3\n"
    )
    (own / "mine.py").write_text(
        "from experiments_of import get_config as base\n\n\ndef get_config(variant=''):\n    config = base('smoke')\n"
        "    config.generator.name = 'own_gan.mine'\n    return config\n"
    )
    from tests import settings

    (own / "experiments_of.py").write_text((settings.EXPERIMENTS / "mixture_gan.py").read_text())
    command = ["train", "--config=mine.py", "--workdir=run", "--config.generator.own=4"]
    assert cli.main(command) == 0
    assert json.loads((own / "run" / "config.json").read_text())["generator"]["own"] == 4
