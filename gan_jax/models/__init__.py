"""Published architectures, one file each: plain arrays in, plain arrays out.

A file has the classes `Generator` and `Discriminator`. What a net may offer beside `__call__`, by field or method:

    latent_size, latent     entries of z, and their distribution: normal or uniform
    truncation              of samples' z, which lie within 2 deviations and are times it; 0: they are as in training
    num_classes             of the labels that it takes; 0: it takes none
    mapping                 method: (z, label, psi=, cutoff=) -> styles (B, num_ws, w_size)
    synthesis               method: (styles, keys=, noise=) -> images
    separable               `mapping` and `synthesis` take train=, too, so that the game 'style' trains them one by one
    resolution              (height, width) of its images, or one side
    heads                   of a discriminator: method, (images, train=), for logits and class logits; None where it has
                            no such
    transform               keyword of `__call__`: (B, 3, 3), moves the generator's input, for the equivariance metrics
    num_ws, w_size          how many styles an image has, and the entries of each
    levels                  how many resolutions it grows through
    translates              it takes images (B, H, W, C) instead of latents
    encoder                 names of the maps that its `layers=` gives instead of images, {name: (B, h, w, C)}, in
                            their order
    clips                   it makes, or judges, clips (B, T, H, W, C) instead of images
    predicts                with it: of a generator: keyword of `__call__`: context= (B, K, H, W, C), the frames before
    category                with it, of a generator: method, (z, label), for the category (B,) of each clip, one of its
                            `num_classes`, or without labels of its `categories`
    classes                 with it, of a discriminator: how many class logits its `heads` has
    fills                   it takes images in [0, 1] with holes of 0, and behind their channels the mask, 1 in the hole
    multiple                with it: of which the sides of its images are multiples
    stages                  with it: method for its images and those of its first stage
    maps                    of a discriminator: method for logits and the maps of its layers
    captioned               it takes sentences (B, S), too: a generator beside z, a discriminator beside images
    features, judge         with it, methods of a discriminator: of images to maps; of maps and sentences to logits
    scale                   it takes images in [0, 1] and enlarges their sides so many times
    layers                  method: paths of its layers, the first ones first, that transfer may keep still
    sample_groups           {field: number of neighbours in a batch that belong together; 0: all}
    couples_samples         whether a sample's output depends on its neighbours in the batch; True where it does not say
    moving_phases           phases of the game 'style' in which its collections move; all where it does not say

A game says in `NEEDS` what its nets must offer; that is checked when a run is built.
"""

import difflib

from gan_jax import modules
from gan_jax.errors import UserError


def names() -> tuple[str, ...]:
    """The models: the files of this folder that have both classes."""
    return modules.members(__name__, ("Generator", "Discriminator"))


def lacks(net: type, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names that a net's class does not offer, see above."""
    fields = getattr(net, "__dataclass_fields__", {})  # those without a default are no attributes of the class
    return tuple(name for name in names if name not in fields and not hasattr(net, name))


def offering(role: str, offers: tuple[str, ...]) -> tuple[str, ...]:
    """The models whose class of a role, generator or discriminator, has all of the offers; none of another role."""
    return tuple(model for model in names() if role in classes(model) and not lacks(classes(model)[role], offers))


def classes(name: str) -> dict[str, type]:
    """The classes of a model, {"generator": ..., "discriminator": ...}, by name or by the dotted path of a module.

    Raises:
      UserError: an unknown name, or a module that cannot be imported or lacks one of the two.
    """
    if "." in str(name):
        module = modules.import_path(name, "the model")
        if not (hasattr(module, "Generator") and hasattr(module, "Discriminator")):
            raise UserError(f"the model {name!r}: the module has no classes Generator and Discriminator")
        return {"generator": module.Generator, "discriminator": module.Discriminator}
    module = modules.member(__name__, name, ("Generator", "Discriminator"))
    if module is None:
        near = difflib.get_close_matches(str(name), names(), n=1, cutoff=0.4)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"Unknown model '{name}'; expected one of {', '.join(names())}.{hint}")
    return {"generator": module.Generator, "discriminator": module.Discriminator}
