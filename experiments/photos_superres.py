"""Super-resolution of photographs, four times, in two stages; they ship with scikit-image and scikit-learn.

    python launch.py train --config=photos_superres:pixel --workdir=runs/photos_pixel
    python launch.py train --config=photos_superres --workdir=runs/photos --config.transfer.workdir=runs/photos_pixel
    python launch.py evaluate --workdir=runs/photos
    python launch.py sample --workdir=runs/photos --inputs=PATH --out=enlarged

Squares of 48 pixels of six photographs; the lowest fifth of each one's rows is held out, and small pictures are made by
MATLAB's cubic. The networks and the losses of the stages are those of `faces_superres.py`. The PSNR of `pooled_psnr` is
taken of the squared differences of all squares, for the mean of each one's own is that of the blurred backgrounds. The
second stage's adversarial term has the weight that Real-ESRGAN's has, its discriminator twice the rate of the faces', and
both stages are longer. `docs/reproduction.md` has the figures.

Variants: `pixel`, the first stage; `smoke` and `pixel_smoke`, tiny and done in seconds.
"""

from faces_superres import get_config as faces
from faces_superres import shrink
from ml_collections import ConfigDict

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "china", "flower")


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `pixel`; `smoke`, `pixel_smoke`."""
    config = faces(variant.removesuffix("smoke").removesuffix("_") if variant.endswith("smoke") else variant)
    config.total_images, config.grid = 16_000 if config.loss.adversarial else 32_000, 24
    if config.loss.adversarial:
        config.loss.adversarial, config.optim.discriminator.learning_rate = 0.1, 2e-3
    config.data = {"name": f"photographs:{'+'.join(PHOTOGRAPHS)}", "resolution": 48, "channels": 3, "flip": True}
    config.evaluation = {
        "metrics": ("pooled_psnr", "psnr_y", "ssim_y", "sharpness"), "samples": 80, "split": "test", "border": 4,
    }  # fmt: skip
    if variant.endswith("smoke"):
        shrink(config)
        del config.data.crop_size
        config.evaluation.update({"samples": 16, "metrics": (), "split": "train"})
    return config
