"""The registry of models."""

import pytest

from gan_jax.errors import UserError
from gan_jax.models import MODELS, dcgan, pair


def test_pair():
    assert pair("dcgan") == (dcgan.Generator, dcgan.Discriminator)
    assert set(MODELS) >= {"gan", "dcgan"}
    with pytest.raises(UserError, match="Did you mean 'dcgan'"):
        pair("dc_gan")
