"""Recorded random draws of the ADA pipeline (golden/ada_random.npz, sg2_loss_ada.npz) as `Ada.draw` names them."""

from collections.abc import Mapping

import numpy as np


def draws(npz: Mapping[str, np.ndarray], prefix: str) -> dict:
    """name -> (values, gates) of the draws `<prefix><nn>_<distribution>_<name>`."""
    values = {key.split("/")[-1].split("_", 2)[2]: npz[key] for key in npz if key.startswith(prefix)}
    result = {}
    for key, value in values.items():
        b = len(value)
        if key == "noise_image":
            result[key] = value.transpose(0, 2, 3, 1)
        elif key == "cutout_center":
            result["cutout"] = value.reshape(b, 2), values["cutout_gate"].reshape(b)
        elif key == "noise_sigma_value":
            result["noise"] = value.reshape(b), values["noise_gate"].reshape(b)
        elif key.startswith("imgfilter_band0_value"):
            both = [np.stack([values[f"imgfilter_band{i}_{what}"] for i in range(4)], 1) for what in ("value", "gate")]
            result["imgfilter"] = tuple(both)
        elif key.endswith("_value") and not key.startswith("imgfilter"):
            name = key.removesuffix("_value")
            result[name] = (
                value.reshape(b, -1).squeeze(1) if value.size == b else value,
                values[f"{name}_gate"].reshape(b),
            )
    return result
