"""DCGAN as published (Radford et al. 2015, arXiv 1511.06434), on the faces of CelebA at 64 px.

    python launch.py train --config=celeba_dcgan --workdir=runs/celeba_dcgan

Settings are those of the authors' script for faces (Newmu/dcgan_code, faces/train_uncond_dcgan.py). Their own set of
faces was never released and they print no distance for it. Another recipe's figure for CelebA at 64 px, from
mmgeneration's tables and not comparable as it stands: sliced Wasserstein distance 23.26 on average, MS-SSIM .290.

Their script plays one player per batch, in turn; here both play on every batch, and an epoch of CelebA is about half
of theirs, so that the 25 epochs hold nearly as many steps of each player as theirs did: 31,792 against 34,180.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
The players have 36 million parameters: meant for one GPU.
"""

from digits_dcgan import shrink
from ml_collections import ConfigDict

EPOCH_IMAGES = 162_770  # CelebA's split `train`


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "l2": 1e-5}
    config = ConfigDict(
        {
            "game": "unconditional",
            "total_images": 25 * EPOCH_IMAGES,
            "batch_size": 128,
            "data": {
                "name": "tfds:celeb_a",
                "split": "train",
                "resolution": 64,
                "channels": 3,
                "crop": "center",  # the central 178x178 of 178x218
            },
            "generator": {
                "name": "dcgan",
                "latent_size": 100,
                "latent": "uniform",
                "width": 128,  # 1024, 512, 256, 128 from the stem on
                "kernel_size": 5,
                "stem": "dense",
            },
            "discriminator": {"name": "dcgan", "width": 128, "kernel_size": 5, "head": "dense"},
            "loss": {"name": "non_saturating"},
            "optim": {"generator": adam, "discriminator": adam},
            "every": {"sample_images": EPOCH_IMAGES, "checkpoint_images": EPOCH_IMAGES},
            "evaluation": {"features": "none", "metrics": ()},
        }
    )
    if variant == "smoke":
        shrink(config, data="synthetic:64")
        config.data.resolution = 16
    elif variant:
        raise ValueError(f"{variant!r}; expected smoke")
    return config
