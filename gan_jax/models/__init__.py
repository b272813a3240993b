"""Published architectures, one file each: plain arrays in, plain arrays out."""

import difflib
from types import ModuleType

from gan_jax import modules
from gan_jax.errors import UserError
from gan_jax.models import cyclegan, dcgan, gan, progan, r3gan, sngan, stylegan1, stylegan2, stylegan3

MODELS: dict[str, ModuleType] = {  # config.model -> its file
    "gan": gan,
    "cyclegan": cyclegan,
    "dcgan": dcgan,
    "progan": progan,
    "r3gan": r3gan,
    "sngan": sngan,
    "stylegan1": stylegan1,
    "stylegan2": stylegan2,
    "stylegan3": stylegan3,
}


def pair(name: str) -> tuple[type, type]:
    """(Generator, Discriminator) classes of a model by name, or of the module of a dotted path.

    Raises:
      UserError: an unknown name, or a module that cannot be imported or lacks one of the two.
    """
    if "." in str(name):
        module = modules.import_path(name, "the model")
        if not (hasattr(module, "Generator") and hasattr(module, "Discriminator")):
            raise UserError(f"the model {name!r}: the module has no classes Generator and Discriminator")
        return module.Generator, module.Discriminator
    if name not in MODELS:
        near = difflib.get_close_matches(str(name), MODELS, n=1, cutoff=0.4)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"Unknown model '{name}'; expected one of {', '.join(sorted(MODELS))}.{hint}")
    return MODELS[name].Generator, MODELS[name].Discriminator
