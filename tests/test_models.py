"""The registry of models."""

import re

import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import runs, specs
from gan_jax.errors import UserError
from gan_jax.models import MODELS, dcgan, pair
from tests import settings


def test_pair():
    assert pair("dcgan") == (dcgan.Generator, dcgan.Discriminator)
    assert set(MODELS) >= {"gan", "dcgan"}
    with pytest.raises(UserError, match="Did you mean 'dcgan'"):
        pair("dc_gan")


@pytest.mark.parametrize(("experiment", "name", "message"), [
    ("digits_dcgan", "cyclegan", "config.generator.name='cyclegan' has no resolution"),
    ("digits_dcgan", "stylegan3", "the game 'unconditional' needs latent_size, latent of 'generator'"),
    ("digits_stylegan2", "gan", "config.generator.name='gan' has no resolution"),
    ("digits_cyclegan", "gan", "config.generator.name='gan' has no channels"),
    ("digits_cyclegan", "sngan", "the game 'translation' needs translates of 'generator_ab'"),
])  # fmt: skip
def test_a_game_refuses_nets_that_do_not_offer_what_it_needs(experiment, name, message):
    """One message when the run is built, whatever the two have in common."""
    stated = runs.load_config(f"{settings.EXPERIMENTS / experiment}.py:smoke").to_dict()
    config = configs.complete(ConfigDict({**stated, "generator": {"name": name}}), runs.defaults)
    image = specs.Field("image", (16, 16, 3))
    spec = {"a": image, "b": image} if "parts" in stated["data"] else {"image": image}
    with pytest.raises(UserError, match=re.escape(message)):
        runs.build(config, spec)
