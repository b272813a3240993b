"""Augmentation of what a discriminator sees: real and generated images alike, differentiably.

    augmentation = augment.build(config.augment)                          a `controller.Augmentation`
    memory = augmentation.init()                                          () unless its strength is adapted
    strength = augmentation.strength(memory, images_seen)
    images = augmentation(images, keys, strength)                         (B, H, W, C) in [-1, 1], keys (B,)
    memory = augmentation.observe(memory, real_logits, batch_size)        None where there is nothing to adapt

A penalty on the gradient of the discriminator is taken with respect to the images before augmentation.
"""

import difflib
from typing import Any

from gan_jax import config as configs
from gan_jax.augment.ada import Ada
from gan_jax.augment.controller import Augmentation
from gan_jax.augment.diffaugment import DiffAugment
from gan_jax.errors import UserError

_AUGMENTATIONS = {"none": Augmentation, "diffaugment": DiffAugment, "ada": Ada}
NAMES = tuple(_AUGMENTATIONS)


def constructor(name: str) -> type[Augmentation]:
    """The class whose fields are the schema of a config's `augment` section. Raises UserError for an unknown name."""
    if name not in NAMES:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        raise UserError(f"config.augment.name={name!r}: expected one of {', '.join(NAMES)}{hint}")
    return _AUGMENTATIONS[name]


def chosen(config: Any) -> type[Augmentation]:
    """The class of a config's `augment` section; that of 'none' where the section or its name is missing."""
    return constructor(config.get("augment", {}).get("name", "none"))


def build(section: Any) -> Augmentation:
    """The augmentation of a config section: `name`, and fields of its class.

    Raises:
      UserError: an unknown name or option, or a value out of range.
    """
    return configs.build(constructor(section["name"]), section, "augment")
