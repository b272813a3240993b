"""Unpaired translation on scikit-learn's digits by contrast: grey ones to dark blue ones on cream paper.

    python launch.py train --config=digits_cut --workdir=runs/digits_cut
    python launch.py sample --workdir=runs/digits_cut --inputs=PATH --out=translated

CUT (Park et al. 2020, arXiv 2007.15651) at 16 px, on the data and with the measures of `digits_cyclegan`: one half of the
digits grey, the other half in colours, no digit in both forms; held-out digits are translated and judged. There is one
generator and no way back: what is to keep the digit is that each patch of the translation can be told from the others of
its picture. The generator is that of `digits_cyclegan`, with batch normalisation and no halvings, and the heads look at
its first layer, normalised, and at both blocks.

Light strokes on dark become dark ones on light here, and the contrast knows light from dark: with weights of 0.1 and more
what is light stays light, and the digits are lost. So the weights are a fiftieth of the paper's, that of
`fastcut` a five-hundredth. `docs/reproduction.md` has the figures.

Variants: `fastcut`, whose contrast has twice the weight and no identity term.
"""

from digits_cyclegan import get_config as digits_cyclegan
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `fastcut`; `smoke`, tiny and done in seconds."""
    if variant not in ("", "fastcut", "smoke"):
        raise ValueError(f"{variant!r}; expected fastcut or smoke")
    settings = digits_cyclegan().to_dict()
    adam = settings["optim"]["generators"] | {"decay_begin_images": 12_000}
    settings["optim"] = {"discriminator": dict(adam), "generator": dict(adam)}
    settings["loss"] = {"nce_a": 0.01, "nce_b": 0.01}
    layers = ("stem_norm", "block0", "block1")
    settings["contrastive"] = {"layers": layers, "patches": 64, "width": 64}
    config = ConfigDict({**settings, "game": "contrastive", "total_images": 24_000})
    if variant == "fastcut":
        config.loss.nce_a, config.loss.nce_b = 0.02, 0.0
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight images with narrow players, normalised and halved as the paper's."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    for player in (config.generator, config.discriminator):
        player.name, player.width, player.norm = "cut", 4, "instance"
    config.generator.halvings, config.generator.blocks = 1, 1
    config.contrastive.layers, config.contrastive.patches, config.contrastive.width = ("input", "down0", "block0"), 8, 8
    for player in config.optim.values():
        player.schedule = "constant"
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 64
