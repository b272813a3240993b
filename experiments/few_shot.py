"""A generator from a hundred images at 256 px: StyleGAN2, on from a larger set's networks or afresh.

    python launch.py train --config=few_shot --workdir=runs/cats --config.data.name=folder:datasets/cats \\
        --config.transfer.workdir=runs/imported
    python launch.py train --config=few_shot:diffaugment --workdir=runs/cats --config.data.name=folder:datasets/cats

| FID, 5,000 samples against the hundred images | Obama | grumpy cat | panda |
| --- | --- | --- | --- |
| `diffaugment`: afresh, colour, translation and cutout | 46.87 | 27.08 | 12.06 |
| `baseline`: afresh, not augmented | 80.20 | 48.90 | 34.27 |

The figures are those of DiffAugment's authors (Zhao et al. 2020, arXiv 2006.10738; mit-han-lab/data-efficient-gans), as are
these two variants: configuration F, batches of 16, R1 of weight 10 at every step, no path length, mirrored images, 300,000
images; several hours on four to eight GPUs. Nothing of this size was trained here.

`transfer` (the default) starts from the networks of another run, such as one of FFHQ at 256 px that `import` made
(docs/interop.md): the preset `paper256` of StyleGAN2-ADA with the strength that adapts over 100,000 images, as its authors
have it for transfer, and the first four layers of the discriminator kept still (Mo et al. 2020, FreezeD, arXiv 2002.10964).
No figure was read for it in a source.

The best image is rarely the last one's: a run that is too long memorises. `--config.every.evaluate_images=20000` with
FID (docs/metrics.md) keeps the best checkpoint: `--config.evaluation.metrics="('fid5k',)"`.
"""

from ffhq_stylegan2 import shrink, stylegan2
from ml_collections import ConfigDict
from stylegan2_ada import PRESETS, build


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `transfer` (the default); `diffaugment`; `baseline`; `smoke`, tiny and done in seconds."""
    if variant not in ("", "transfer", "diffaugment", "baseline", "smoke"):
        raise ValueError(f"{variant!r}; expected transfer, diffaugment, baseline or smoke")
    data = "folder:datasets/few_shot"
    if variant in ("diffaugment", "baseline"):
        config = stylegan2(data, resolution=256, channel_base=32768, batch_size=16)
        config.loss.path_length_weight = 0.0
        config.every.penalty_steps = 1
    else:
        config = build(data, 256, PRESETS["paper256"])
        config.transfer = {"workdir": "runs/imported", "freeze_layers": 4}
        config.augment = {"name": "ada", "target": 0.6, "interval_steps": 4, "speed_images": 100_000.0}
    if variant in ("diffaugment", "smoke"):
        config.augment = {"name": "diffaugment", "policy": ("color", "translation", "cutout")}
    config.total_images, config.data.flip = 300_000, True
    config.every.sample_images = config.every.checkpoint_images = 20_000
    if variant == "smoke":
        shrink(config)
        config.transfer = {"freeze_layers": 2}
    return config
