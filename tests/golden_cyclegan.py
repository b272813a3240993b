"""Recorded numbers of pytorch-CycleGAN-and-pix2pix in this project's names and layouts.

`cyclegan_resnet6_*` are generators of 6 blocks, `pix2pix_unet*` U-Nets, `patchgan_*` four discriminators each;
`cyclegan_gradients` and `pix2pix_gradients` hold small networks with their gradients under the same names,
`cyclegan_step` and `pix2pix_step` two steps of training; `layout_*.json` list every tensor of full-size networks.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "golden"
Place = tuple[str, ...]  # module names from the network down
# torch field -> collection and name of ours; a kernel is told from a scale by its dimensions
_FIELDS = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def load(name: str) -> dict[str, np.ndarray]:
    """Every array of a recording under its own name."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def layout(name: str) -> dict[str, np.ndarray]:
    """Zeros, without memory, for every tensor of a full-size network."""
    record = json.loads((GOLDEN / f"layout_{name}.json").read_text(encoding="utf-8"))
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in record["keys"].items()}


def generator_places(blocks: int, dropout: bool = False) -> dict[str, Place]:
    """torch module -> place of ours, for a ResNet generator; dropout moves the second half of a block by one."""
    up = 10 + blocks
    convs = {1: "stem", 4: "down0", 7: "down1", up: "up0", up + 3: "up1", up + 7: "image"}
    places = {f"model.{n}": (name,) for n, name in convs.items()}
    places |= {f"model.{n + 1}": (f"{name}_norm",) for n, name in convs.items() if name != "image"}
    second = 6 if dropout else 5
    for i in range(blocks):
        for n, name in ((1, "conv0"), (2, "norm0"), (second, "conv1"), (second + 1, "norm1")):
            places[f"model.{10 + i}.conv_block.{n}"] = (f"block{i}", name)
    return places


def unet_places(depth: int) -> dict[str, Place]:
    """torch module -> place of ours, for a U-Net of so many halvings, whose modules lie in one another."""
    places = {"model.model.0": ("down0",), "model.model.3": ("up0",)}
    for i in range(1, depth):
        inner, is_last = "model.model.1" + ".model.3" * (i - 1) + ".model", i == depth - 1
        up = 3 if is_last else 5
        places |= {f"{inner}.1": (f"down{i}",), f"{inner}.{up}": (f"up{i}",), f"{inner}.{up + 1}": (f"up{i}_norm",)}
        places |= {} if is_last else {f"{inner}.2": (f"down{i}_norm",)}
    return places


def discriminator_places(layers: int) -> dict[str, Place]:
    """torch module -> place of ours, for a patch discriminator; 0 layers are the 1x1 network."""
    net, last = ("model", layers) if layers else ("net", 1)
    places = {f"{net}.0": ("conv0",), f"{net}.{3 * last + 2}": ("head",)}
    for i in range(1, last + 1):
        places |= {f"{net}.{3 * i - 1}": (f"conv{i}",), f"{net}.{3 * i}": (f"conv{i}_norm",)}
    return places


def variables(arrays: Mapping[str, np.ndarray], prefix: str, places: Mapping[str, Place]) -> dict[str, Any]:
    """Collections of a network from the arrays under `prefix`: 'params' (or gradients) and 'batch_stats'.

    Args:
      arrays: a recording, or a layout.
      prefix: of the network's own names, as 'params/' or 'grad/G_A/'.
      places: of `generator_places`, `unet_places` or `discriminator_places`.
    """
    collections: dict[str, Any] = {}
    for key, value in arrays.items():
        if not key.startswith(prefix) or key.endswith("num_batches_tracked"):
            continue
        module, _, torch_field = key.removeprefix(prefix).rpartition(".")
        place = places[module]
        collection, field = _FIELDS[torch_field]
        if value.ndim == 4:  # OIHW -> HWIO; transposed convolutions [in, out, kh, kw] -> (kh, kw, in, out)
            field, value = "kernel", value.transpose((2, 3, 0, 1) if place[0].startswith("up") else (2, 3, 1, 0))
        branch = collections.setdefault(collection, {})
        for name in place:
            branch = branch.setdefault(name, {})
        branch[field] = value
    return collections


def images(array: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (B, H, W, C)."""
    return np.moveaxis(array, 1, -1)


def shapes(model, *shape):
    """Variables of a network for images of this shape, as shapes."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=True))


def close(ours, recorded, tolerance=1e-5):
    """Asserts one shape, and differences below `tolerance` of the largest recorded number."""
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= tolerance * np.abs(recorded).max()


def compare(model, arrays, places, params, out):
    """Both modes of a network, and the running statistics after its pass in training, against a recording."""
    collections = variables(arrays, params, places)
    x = images(arrays["in/x"])
    assert jax.tree.map(jnp.shape, shapes(model, *x.shape)) == jax.tree.map(jnp.shape, collections)

    @jax.jit
    def play(collections, x):
        trained, state = model.apply(collections, x, train=True, mutable=["batch_stats"])
        return model.apply(collections, x, train=False), trained, state

    evaluated, trained, state = play(collections, x)
    close(evaluated, images(arrays[f"{out}_eval"]), 3e-5)
    close(trained, images(arrays[f"{out}_train"]), 3e-5)
    after = variables(arrays, f"{out}_after_train/", places)
    assert ("batch_stats" in after) == (model.norm == "batch")
    assert jax.tree.structure(state) == jax.tree.structure(after)
    jax.tree.map(close, state, after)


def compare_gradients(model, collections, x, weight, out, recorded):
    """Of sum(out * weight) in training, of parameters and of x, as PyTorch has them."""

    def loss(params, x):
        y, _ = model.apply({**collections, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(y * weight), y

    gradients, y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(collections["params"], x)
    close(y, out)
    assert jax.tree.structure(gradients) == jax.tree.structure(recorded)
    largest = max(np.abs(value).max() for value in jax.tree.leaves(recorded))

    def near(ours, theirs):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max() + 1e-6 * largest

    jax.tree.map(near, gradients, recorded)
