"""Inpainting with DeepFillv2's values (Yu et al. 2019, arXiv 1806.03589), on Places at 256x256.

    python launch.py train --config=places_deepfill --workdir=runs/places_deepfill

Two stages of gated convolutions with contextual attention, SN-PatchGAN, L1 of both stages and the hinge loss, each with the
weight 1; nothing here needs a pretrained network. Holes are strokes and a box of half the side. The strokes are LaMa's, as
thick as the paper's; the optimizers' numbers were not read in a source. Any folder of pictures does in place of TFDS's
`places365_small`: `--config.data.name=folder:PATH`.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "learning_rate": 1e-4, "b1": 0.5, "b2": 0.999}
    config = ConfigDict(
        {
            "game": "inpainting",
            "total_images": 16_000_000,
            "batch_size": 16,
            "grid": 8,
            "data": {"name": "places365_small", "resolution": 256, "flip": True},
            "generator": {"name": "deepfill"},
            "discriminator": {"name": "deepfill"},
            "inpainting": {
                "masks": "mixed", "strokes": (1, 4), "segments": (4, 12), "lengths": (10, 80), "widths": (12, 40),
                "boxes": (1, 1), "box_sides": (128, 128), "margin": 0, "composite": True, "shows_mask": True,
            },
            "loss": {
                "name": "hinge", "known": 1.0, "missing": 1.0, "coarse": 1.0, "adversarial": 1.0, "matching": 0.0,
                "r1": 0.0, "fake_in_hole": False,
            },
            "optim": {"generator": dict(adam), "discriminator": dict(adam)},
            "ema": {"half_life_images": 0.0},
            "every": {"log_images": 3_200, "sample_images": 80_000, "checkpoint_images": 80_000},
            "evaluation": {
                "features": "inception", "metrics": ("masked_l1", "l1", "psnr", "ssim"), "samples": 2_000,
                "split": "validation",
            },
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight photographs with narrow players and small holes."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.data = {"name": "photographs:chelsea+coffee", "resolution": 32, "flip": True}
    config.generator = {"name": "deepfill", "width": 8, "dilations": (2,)}
    config.discriminator = {"name": "deepfill", "width": 4, "layers": 3}
    config.inpainting.update({
        "segments": (1, 3), "lengths": (2, 20), "widths": (1, 8), "box_sides": (12, 12),
    })
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples, config.evaluation.split = 16, "test"
    config.evaluation.features, config.evaluation.metrics = "none", ("masked_l1", "l1")
