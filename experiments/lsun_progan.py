"""ProGAN (Karras et al. 2018, arXiv 1710.10196) on LSUN's bedrooms, cats and churches at 256 px.

    python launch.py train --config=lsun_progan:bedroom_8gpu --workdir=runs/lsun_progan

| | FID |
| --- | --- |
| bedroom | 8.34 |
| cat | 37.52 |
| church | 6.42 |

Settings as in `celebahq_progan.py`, without mirroring. The figures are from the tables of later papers, not from runs
here: nothing of this size was trained here. The authors print times for CelebA-HQ at 1024 px alone.

The set must have been prepared with TFDS.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from celebahq_progan import SCHEDULES, progan, shrink
from ml_collections import ConfigDict

CATEGORIES = {"bedroom": "bedroom", "cat": "cat", "church": "church_outdoor"}  # variant -> TFDS


def get_config(variant: str = "") -> ConfigDict:
    """Variants: bedroom (the default), cat, church, each with _2gpu, _4gpu or _8gpu; `smoke`, done in seconds."""
    category, _, devices = variant.partition("_")
    category, devices = category or "bedroom", devices or "1gpu"
    if variant == "smoke":
        category = "bedroom"
    elif category not in CATEGORIES or devices not in [f"{n}gpu" for n in SCHEDULES]:
        raise ValueError(f"{variant!r}; expected one of {', '.join(CATEGORIES)}, with _2gpu, _4gpu, _8gpu, or smoke")
    config = progan(f"tfds:lsun/{CATEGORIES[category]}", resolution=256, devices=int(devices[0]))
    if variant == "smoke":
        shrink(config)
    return config
