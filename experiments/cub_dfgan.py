"""Text to image with DF-GAN's values (Tao et al. 2020, arXiv 2008.05865), on birds with captions (CUB-200-2011) at 256x256.

    python launch.py train --config=cub_dfgan --workdir=runs/cub_dfgan --config.data.name=folder:PATH
    python launch.py sample --workdir=runs/cub_dfgan --captions="a small yellow bird with a black crown" --out=birds

The folder has images, each with ten captions, see `docs/data.md`; the authors cut CUB's images about the birds first.
TFDS's set has no captions, and another split: `--config.data.name=tfds:caltech_birds2011
--config.data.captions_from=FOLDER --config.data.crop=box` takes them by the images' names, and cuts as the authors do.
The paper reports an FID of 14.81 on CUB, and 12.10 for the later released weights: the authors' figures, with text
encoders that were pretrained on the same captions; nobody has trained this file to its end.

The players' settings are the paper's: Adam (0, 0.9), 1e-4 and 4e-4, batches of 32, k = 2, p = 6, 1301 epochs of 8,855
images. The encoders are trained first, by AttnGAN's loss (arXiv 1711.10485) with its factors 4, 5 and 10, beside an
image encoder that starts from nothing; the optimizer's numbers of that stage were not read in a source.
"""

from ml_collections import ConfigDict

IMAGES, EPOCHS = 8_855, 1_301  # of the training set, and of the players


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    if variant not in ("", "smoke"):
        raise ValueError(f"{variant!r}; expected smoke")
    adam = {"name": "adam", "b1": 0.0, "b2": 0.9}
    matching = 200 * IMAGES
    config = ConfigDict(
        {
            "game": "text_to_image",
            "total_images": matching + EPOCHS * IMAGES,
            "batch_size": 32,
            "grid": 16,
            "data": {
                "name": "folder:cub", "resolution": 256, "channels": 3, "flip": True, "captions": 10,
                "caption_length": 18,
            },
            "generator": {"name": "dfgan", "truncation": 0.88},
            "discriminator": {"name": "dfgan"},
            "text": {"name": "recurrent"},
            "text_to_image": {"jitter": 48},
            "matching": {"images": matching, "batch_size": 48},
            "loss": {"matching_aware": 2.0, "power": 6.0},
            "optim": {
                "generator": {**adam, "learning_rate": 1e-4},
                "discriminator": {**adam, "learning_rate": 4e-4},
                "encoders": {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "clip_norm": 1.0},
            },
            "ema": {"half_life_images": 0.0},
            "every": {"log_images": 3_200, "sample_images": 80_000, "checkpoint_images": 80_000},
            "evaluation": {"features": "inception", "metrics": ("fid30k_full", "is30k"), "samples": 30_000, "split": "test"},
        }
    )
    if variant == "smoke":
        shrink(config)
    return config


def shrink(config: ConfigDict) -> None:
    """Makes a run of three steps of eight small pictures, the first of them the encoders', with narrow players."""
    config.total_images, config.batch_size, config.grid = 24, 8, 4
    config.data = {"name": "digits:captions", "resolution": (8, 16), "channels": 1, "caption_length": 7}
    config.generator = {"name": "dfgan", "width": 4, "latent_size": 8}
    config.discriminator = {"name": "dfgan", "width": 4}
    config.text = {"name": "recurrent", "embedding": 4, "size": 8, "cell": "gru"}
    config.text_to_image.jitter = 2
    config.matching.update({"images": 8, "batch_size": 8, "width": 4})
    config.every = {"log_images": 8, "sample_images": 16, "checkpoint_images": 8}
    config.evaluation.samples = 16
    config.evaluation.features, config.evaluation.metrics = "none", ()
