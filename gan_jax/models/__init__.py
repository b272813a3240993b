"""Published architectures, one file each: plain arrays in, plain arrays out."""

import difflib
from types import ModuleType

from gan_jax.errors import UserError
from gan_jax.models import dcgan, gan

MODELS: dict[str, ModuleType] = {"gan": gan, "dcgan": dcgan}  # config.model -> its file


def pair(name: str) -> tuple[type, type]:
    """(Generator, Discriminator) classes of a model by name; an unknown name is a `UserError`."""
    if name not in MODELS:
        near = difflib.get_close_matches(str(name), MODELS, n=1, cutoff=0.4)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"Unknown model '{name}'; expected one of {', '.join(sorted(MODELS))}.{hint}")
    return MODELS[name].Generator, MODELS[name].Discriminator
