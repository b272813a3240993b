"""The game of one generator and one discriminator with BigGAN's networks: labels, augmentation, singular vectors."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import runs
from tests import settings

ADA = ("rotate90", "scale", "rotate", "aniso", "xfrac", "brightness", "contrast", "lumaflip", "hue", "saturation")


@pytest.fixture(scope="module")
def run():
    """Ten classes at 8 px, attention, and an adaptive augmentation that mirrors and shifts."""
    stated = runs.load_config(f"{settings.EXPERIMENTS / 'digits_scarce.py'}:smoke").to_dict()
    stated["generator"] |= {"attention": 8, "latent_size": 6}
    stated["augment"] = {"name": "ada", "p": 0.5, **dict.fromkeys(ADA, 0.0)}
    for player in stated["optim"].values():  # Adam would make a step of the noise in gradients that are 0
        player |= {"name": "sgd", "learning_rate": 0.01}
    return settings.build(configs.complete(ConfigDict(stated), runs.defaults), (8, 8, 1), 10)


@pytest.fixture(scope="module")
def played(run):
    """Two steps on one device, and on eight."""
    return [settings.play(run, count=2, devices=devices) for devices in (1, 8)]


def test_one_device_and_eight_agree(played):
    (one, measured), (many, others) = played
    for a, b in zip(measured, others, strict=True):
        assert a.keys() == b.keys() and a["discriminator/augment_p"] > 0
        assert all(a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-5) for name in a)
    assert settings.largest_difference(one.variables, many.variables, 1e-3) < 1e-4
    assert settings.largest_difference(one.params, many.params, 1e-2) < 1e-3


def test_the_average_has_the_singular_vectors_of_the_net_itself(played):
    """Their mean would be shorter than 1; statistics and parameters are averaged."""
    (state, _), _ = played
    net, average = state.variables["generator"], state.ema["generator"]
    vectors = jax.tree.leaves(average["spectral"])
    assert vectors and all(np.linalg.norm(u) == pytest.approx(1, abs=1e-5) for u in vectors)
    jax.tree.map(np.testing.assert_array_equal, average["spectral"], net["spectral"])
    means = [tree["block0"]["norm0"]["norm"]["mean"] for tree in (average["batch_stats"], net["batch_stats"])]
    assert np.abs(means[0] - means[1]).max() > 0


def test_both_players_see_the_labels(run, played):
    """Images and logits of one latent and one image under two labels differ."""
    (state, _), _ = played
    z, labels = np.ones((1, 6), np.float32), (np.int32([0]), np.int32([7]))
    drawn = [np.asarray(run.game.decode(run.nets, state.ema, z, label)) for label in labels]
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-4
    variables = {"params": state.params["discriminator"], **state.variables["discriminator"]}
    x = np.ones((1, 8, 8, 1), np.float32)
    logits = [float(run.nets["discriminator"].apply(variables, x, label, train=False)[0]) for label in labels]
    assert abs(logits[0] - logits[1]) > 1e-4
