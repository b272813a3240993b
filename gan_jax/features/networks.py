"""Fixed networks whose features are compared: their weights, of a file, drawn or fitted, and their preprocessing."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import UserError
from gan_jax.features import i3d, inception, lpips, state, vgg, vit
from gan_jax.weights import store

RANDOM, UNPUBLISHED = "random_", "unpublished_"
JUDGE = "digits_classifier"  # it is fitted, see the file of that name
CLASSIFIER = "classifier"  # the same network, fitted on the labelled data that config.evaluation.judge names
CLIPS = "clips_classifier"  # fitted on the clips of the data, see the file of that name
JUDGES = (JUDGE, CLASSIFIER, CLIPS)
OF_LABELS = "labels_classifier"  # the classifiers' network, fitted on all labels that the run's own data have
FITTED = (*JUDGES, OF_LABELS)
I3D = "i3d"
OF_CLIPS = (CLIPS, I3D)  # networks that look at clips (T, H, W, C); the others look at images
PREPROCESSING = tuple(inception.PREPROCESSING)  # of Inception; the first is the official one
SEED = 0  # of random weights
PATCHES = "@"  # between a network's name and the side of the patches, or the number of frames, that it looks at


class FeatureNet(NamedTuple):
    """A fixed network: what belongs to the protocol of its values, its arrays, and how images become features."""

    name: str                # `inception`; `random_inception`, `unpublished_inception` where its weights are others
    sha256: str              # of the weights' file, or of arrays that are drawn or fitted
    published: bool          # its values go by the published names; so do those of what is fitted, under its own
    preprocessing: str       # in words
    outputs: dict[str, int]  # name -> dimension
    variables: Any           # arrays, float32
    apply: Callable          # (variables, uint8 (B, H, W, C), outputs) -> {output: float32 (B, D)}
    accuracy: float | None = None  # share of held-out images that a classifier of the data classifies rightly
    cpu_batch: int = 16      # images that a CPU takes at once to begin with


class _Kind(NamedTuple):
    shapes: Callable[[], dict]
    from_torch: Callable
    outputs: dict[str, int]
    build: Callable  # outputs -> a Linen module, or a function of prepared images
    prepare: dict[str, Callable]
    words: dict[str, str]
    cpu_batch: int = 16  # see `FeatureNet`


def _vit(size: str) -> _Kind:
    def build(outputs):
        module = vit.VisionTransformer(*vit.SIZES[size])
        return lambda variables, x: {"cls": module.apply(variables, x)}

    shapes, dim = partial(vit.shapes, size), vit.SIZES[size].width
    return _Kind(shapes, vit.from_torch, {"cls": dim}, build, vit.PREPROCESSING, vit.DESCRIPTIONS)


def _linen(constructor) -> Callable:
    return lambda outputs: constructor(outputs=outputs).apply


KINDS = {
    "inception": _Kind(inception.shapes, inception.from_torch, inception.OUTPUTS, _linen(inception.Inception),
                       inception.PREPROCESSING, inception.DESCRIPTIONS),
    "vgg16": _Kind(partial(vgg.shapes, "vgg16", classifier=True), vgg.from_torch, vgg.OUTPUTS, _linen(vgg.VGG16),
                   vgg.PREPROCESSING, vgg.DESCRIPTIONS),
    **{f"dinov2_vit{size}14": _vit(size) for size in vit.SIZES},
    I3D: _Kind(i3d.shapes, i3d.from_torch, i3d.OUTPUTS, _linen(i3d.I3D), i3d.PREPROCESSING, i3d.DESCRIPTIONS,
               cpu_batch=2),
}  # fmt: skip
DEFAULT_OUTPUTS = {"inception": "2048", "vgg16": "fc2_relu", I3D: "logits", **dict.fromkeys(JUDGES, "features")}
NAMES = (*JUDGES, "none", *KINDS, *(RANDOM + name for name in KINDS))


def split(features: str) -> tuple[str, str]:
    """`inception/768` -> network and output; without an output, that of its published distances."""
    name, _, output = features.partition("/")
    network = name.removeprefix(RANDOM)
    return network, output or DEFAULT_OUTPUTS.get(network, "cls")


def is_random(section) -> bool:
    """Whether config.evaluation asks for random weights: then all networks have them."""
    return section.features.startswith(RANDOM)


def check(section, prefix: str = "config.evaluation.") -> None:
    """Raises UserError for features or a preprocessing that config.evaluation names and nobody knows.

    `prefix` is what stands before a key's name where the user writes it.
    """
    name, slash, output = section.features.partition("/")
    if name not in NAMES or slash and name in (*JUDGES, "none"):
        raise UserError(f"{prefix}features={section.features!r}: expected one of {', '.join(NAMES)}")
    if slash and output not in KINDS[name.removeprefix(RANDOM)].outputs:
        expected = ", ".join(KINDS[name.removeprefix(RANDOM)].outputs)
        raise UserError(f"{prefix}features={section.features!r}: {name} has the outputs {expected}")
    if section.batch_size < 0:
        raise UserError(f"{prefix}batch_size={section.batch_size}: expected 0 or more")
    if section.preprocessing not in PREPROCESSING:
        expected = ", ".join(PREPROCESSING)
        raise UserError(f"{prefix}preprocessing={section.preprocessing!r}: expected one of {expected}")


def load(network: str, section) -> FeatureNet:
    """A feature network with the weights that config.evaluation asks for.

    Args:
      network: one of `KINDS`, with `@64` behind it of patches, see `of_patches`, or of frames, see `of_frames`; or
        lpips_alex or lpips_vgg, see `perceptual`.
      section: config.evaluation: `features` (random or not), `preprocessing`, `weights`, `download`.
    Raises:
      MissingPathError, UserError: there is no file, or it is another's; see `weights.store.load`.
    """
    if network.startswith("lpips_"):
        return perceptual(network.removeprefix("lpips_"), section)
    if PATCHES in network:
        base, _, number = network.partition(PATCHES)
        return (of_frames if base == I3D else of_patches)(load(base, section), int(number))
    kind = KINDS[network]
    name, sha256, arrays = _arrays(network, kind.shapes(), section)
    way = section.preprocessing if network == "inception" else next(iter(kind.prepare))
    prepare, built = kind.prepare[way], {}

    def apply(variables, images, outputs):
        if outputs not in built:
            built[outputs] = kind.build(outputs)
        return built[outputs](variables, prepare(rgb(images)))

    return FeatureNet(
        name, sha256, name == network, kind.words[way], dict(kind.outputs), kind.from_torch(arrays), apply,
        cpu_batch=kind.cpu_batch,
    )  # fmt: skip


def of_patches(net: FeatureNet, side: int) -> FeatureNet:
    """The network of squares of `side` pixels of each image, side by side from the upper left, row by row.

    Its `apply` gives the features of all of them, (B * patches, D); what makes up no whole square is left out.
    """

    def apply(variables, images, outputs):
        b, h, w, c = images.shape
        rows, columns = h // side, w // side
        squares = images[:, : rows * side, : columns * side].reshape(b, rows, side, columns, side, c)
        squares = squares.transpose(1, 3, 0, 2, 4, 5).reshape(rows * columns, b, side, side, c)
        features = jax.lax.map(lambda one: net.apply(variables, one, outputs), squares)
        return {name: x.swapaxes(0, 1).reshape(b * rows * columns, -1) for name, x in features.items()}

    return net._replace(apply=apply, preprocessing=f"patches of {side}x{side}, {net.preprocessing}")


def of_frames(net: FeatureNet, frames: int) -> FeatureNet:
    """The network of the first so many frames of each clip."""

    def apply(variables, clips, outputs):
        return net.apply(variables, clips[:, :frames], outputs)

    return net._replace(apply=apply, preprocessing=f"the first {frames} frames, {net.preprocessing}")


def perceptual(net: str, section) -> FeatureNet:
    """LPIPS by `net`, alex or vgg: `apply(variables, a, b)` -> distances (B,), uint8 (B, H, W, 3) each."""
    name, sha256, arrays = _arrays(f"lpips_{net}", lpips.shapes(net), section)
    if name.startswith(RANDOM):  # published heads are not negative, and have roots
        arrays = {key: np.abs(value) if key.startswith("lin") else value for key, value in arrays.items()}
    words = "no resize, 2x/255-1, LPIPS 0.1"

    def apply(variables, a, b):
        return lpips.distance(variables, rgb(a), rgb(b), net=net)

    return FeatureNet(name, sha256, name == f"lpips_{net}", words, {}, lpips.from_torch(arrays), apply)


def trunk(network: str, last: int, section) -> Any:
    """Variables of `vgg.Trunk` up to a layer, for losses.

    Args:
      network: vgg16, vgg19 or alexnet.
      last: index of the last layer that is needed.
      section: a config section with `features` (random or not), `weights`, `download`.
    Raises:
      MissingPathError, UserError: there is no file, or it is another's; see `weights.store.load`.
    """
    shapes = vgg.shapes(network)
    shapes = {name: shape for name, shape in shapes.items() if int(name.split(".")[1]) <= last}
    return vgg.from_torch(_arrays(network, shapes, section)[2])


def _arrays(network: str, shapes: dict, section) -> tuple[str, str, dict[str, np.ndarray]]:
    """(name, SHA-256, arrays) of a network's weights."""
    if is_random(section):
        arrays = state.random_state(shapes, SEED)
        return RANDOM + network, state.weights_sha256(arrays), arrays
    weights = store.load(network, folder=section.weights, download=section.download)
    name = network if weights.published else UNPUBLISHED + network
    return name, weights.sha256, state.check(weights.state, shapes, str(weights.path))


def rgb(images: jax.Array) -> jax.Array:
    """Grey images (B, H, W, 1), or clips (B, T, H, W, 1), with their channel three times; those of RGB as they are."""
    return jnp.broadcast_to(images, (*images.shape[:-1], 3)) if images.shape[-1] == 1 else images


def check_channels(shape: tuple[int, ...], what: str) -> None:
    """Raises UserError where images (H, W, C), or clips of such, are neither grey nor RGB."""
    if len(shape) not in (3, 4) or shape[-1] not in (1, 3):
        raise UserError(f"{what} has images of the shape {tuple(shape)}: feature networks take 1 or 3 channels; "
                        "set config.data.channels=3, or measure without them")
