"""The recorded R3GAN networks: their weights in our names, their inputs in our layout."""

import json
import pathlib

import numpy as np

from gan_jax.interop import names
from gan_jax.models.r3gan import Discriminator, Generator
from tests.golden_stylegan2 import nested

GOLDEN = pathlib.Path(__file__).parent / "golden"


class Recorded:
    """One golden file: `generator`, `discriminator`, and readers of its arrays."""

    def __init__(self, name: str):
        self.npz = np.load(GOLDEN / f"r3gan_{name}.npz")
        self.meta = json.loads(str(self.npz["meta"]))
        g, d = self.meta["G_kwargs"], self.meta["D_kwargs"]
        common = {"resolution": g["img_resolution"], "num_classes": g["c_dim"], "expansion": g["ExpansionFactor"]}
        self.generator = Generator(**common, **_tables(g, False), latent_size=g["NoiseDimension"],
                                   embed_size=g.get("ConditionEmbeddingDimension", 0))  # fmt: skip
        self.discriminator = Discriminator(**common, **_tables(d, True),
                                           embed_size=d.get("ConditionEmbeddingDimension", 0))  # fmt: skip

    def tree(self, prefix: str, net: str) -> dict:
        """Parameters or gradients under `<prefix><net>/`, as a tree of ours."""
        stages = len(self.meta[f"{net}_kwargs"]["WidthPerStage"])
        arrays = {
            key.removeprefix(f"{prefix}/"): self.npz[key] for key in self.npz.files if key.startswith(f"{prefix}/")
        }
        return nested(
            names.r3gan(name, value, discriminator=net == "D", stages=stages)
            for name, value in arrays.items()
            if not names.is_constant(name)
        )["params"]

    def images(self, key: str) -> np.ndarray:
        """An array of images, channels last."""
        return np.moveaxis(self.npz[key], -3, -1)

    def labels(self, key: str) -> np.ndarray | None:
        """Classes, from one-hot vectors; None where there are none."""
        return self.npz[key].argmax(-1).astype(np.int32) if self.npz[key].shape[-1] else None


def _tables(kwargs, backwards):
    names = {"widths": "WidthPerStage", "blocks": "BlocksPerStage", "cardinalities": "CardinalityPerStage"}
    return {ours: tuple(kwargs[theirs][::-1] if backwards else kwargs[theirs]) for ours, theirs in names.items()}
