"""The recorded R3GAN networks: their weights in our names, their inputs in our layout."""

import json
import pathlib
import re

import numpy as np

from gan_jax.models.r3gan import Discriminator, Generator

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
        levels = len(self.meta[f"{net}_kwargs"]["WidthPerStage"])
        out: dict = {}
        for key in self.npz.files:
            if not key.startswith(f"{prefix}/") or key.endswith("Kernel"):
                continue
            path, value = _place(key.removeprefix(f"{prefix}/Model."), self.npz[key], net, levels)
            node = out
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = value
        return out

    def images(self, key: str) -> np.ndarray:
        """An array of images, channels last."""
        return np.moveaxis(self.npz[key], -3, -1)

    def labels(self, key: str) -> np.ndarray | None:
        """Classes, from one-hot vectors; None where there are none."""
        return self.npz[key].argmax(-1).astype(np.int32) if self.npz[key].shape[-1] else None


def _tables(kwargs, backwards):
    names = {"widths": "WidthPerStage", "blocks": "BlocksPerStage", "cardinalities": "CardinalityPerStage"}
    return {ours: tuple(kwargs[theirs][::-1] if backwards else kwargs[theirs]) for ours, theirs in names.items()}


def _place(name: str, value: np.ndarray, net: str, levels: int) -> tuple[list[str], np.ndarray]:
    """(path in our tree, array in our layout) of an official parameter."""
    top = {"AggregationLayer": "image", "ExtractionLayer": "image", "EmbeddingLayer": "embed"}
    if name.split(".")[0] in top:
        return [top[name.split(".")[0]], "kernel"], value.reshape(value.shape[:2]).T
    stage, layer, rest = re.fullmatch(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(.*)", name).groups()
    stage, layer = int(stage), int(layer)
    level = stage if net == "G" else levels - 1 - stage
    if rest in ("Basis", "Basis.weight"):
        return ["basis"], value.reshape(value.shape[0], *value.shape[-2:]).transpose(1, 2, 0)
    if rest == "LinearLayer.weight":
        return ["project", "kernel"], value.T
    if rest == "LinearLayer.Layer.weight":
        return [f"stage{level}_change", "kernel"], value[:, :, 0, 0].T
    block = f"stage{level}_block{layer - 1 if net == 'G' else layer}"
    if rest == "LinearLayer2.Layer.weight":
        return [block, "kernel"], value.transpose(2, 3, 1, 0)
    if rest.startswith("LinearLayer"):
        return [block, "expand" if "1" in rest.split(".")[0] else "reduce", "kernel"], value[:, :, 0, 0].T
    return [block, "bias" + re.search(r"NonLinearity(\d)", rest)[1]], value
