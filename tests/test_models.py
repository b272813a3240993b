"""The registry of models."""

import re

import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import models, runs, specs
from gan_jax.errors import UserError
from gan_jax.models import classes, dcgan, offering
from tests import settings


def test_classes_by_role():
    assert classes("dcgan") == {"generator": dcgan.Generator, "discriminator": dcgan.Discriminator}
    assert offering("generator", ("translates",)) == ("cut", "cyclegan", "pix2pix")
    assert offering("generator", ("translates", "encoder")) == ("cut", "cyclegan")
    assert offering("generator", ("scale",)) == ("enhancenet", "esrgan", "msrgan", "real_esrgan", "srgan")
    assert offering("discriminator", ("levels",)) == ("progan", "stylegan1")
    assert offering("generator", ("fills",)) == ("deepfill", "lama")
    assert offering("generator", ("captioned",)) == offering("discriminator", ("captioned",)) == ("dfgan",)
    assert offering("generator", ("clips",)) == offering("discriminator", ("clips",)) == ("dvdgan", "mocogan")
    assert offering("discriminator", ("heads",)) == ("can", "mocogan", "progan", "stylegan1")
    expected = "biggan can cut cyclegan dcgan deepfill dfgan dvdgan enhancenet esrgan gan lama mocogan msrgan pix2pix"
    expected += " progan r3gan real_esrgan sngan srgan stylegan1 stylegan2 stylegan3"
    assert models.names() == tuple(expected.split())  # and no file that only helps
    with pytest.raises(UserError, match="Did you mean 'dcgan'"):
        classes("dc_gan")


@pytest.mark.parametrize(("experiment", "name", "message"), [
    ("digits_dcgan", "cyclegan", "needs latent_size, latent of 'generator', and 'cyclegan' has no"),
    ("digits_dcgan", "stylegan3", "the game 'unconditional' needs latent_size, latent of 'generator'"),
    ("digits_stylegan2", "gan", "the game 'style' needs"),
    ("digits_cyclegan", "gan", "the game 'translation' needs translates of 'generator_ab', and 'gan' has no"),
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
