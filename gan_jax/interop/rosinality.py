"""Names of rosinality's stylegan2-pytorch, and the official ones of the same tensors.

Its networks are StyleGAN2's: G of architecture 'skip', D of architecture 'resnet', with the official kernels, flips and
gains. Only names and sizes of 1 differ, what its filters sum up to, and that the mean of w lies beside the networks.
"""

import re

import numpy as np

from gan_jax.errors import UserError

AVERAGE = "latent_avg"  # of w, beside the networks or in them
_LATENTS = 4096  # whose mean of w stands in for one that a file lacks, as in the repository's own samples
_RATE = 0.01  # learning rate of the mapping network's layers, relative to others
_STYLED = {"conv.weight": "weight", "conv.modulation.weight": "affine.weight", "conv.modulation.bias": "affine.bias",
           "conv.blur.kernel": "resample_filter", "noise.weight": "noise_strength", "activate.bias": "bias",
           "upsample.kernel": "resample_filter", "bias": "bias"}  # fmt: skip
_BLOCK = {"conv1.0.weight": "conv0.weight", "conv1.1.bias": "conv0.bias", "conv2.0.kernel": "conv1.resample_filter",
          "conv2.1.weight": "conv1.weight", "conv2.2.bias": "conv1.bias", "skip.0.kernel": "skip.resample_filter",
          "skip.1.weight": "skip.weight"}  # fmt: skip
_LAST = {"final_conv.0.weight": "b4.conv.weight", "final_conv.1.bias": "b4.conv.bias",
         "final_linear.0.weight": "b4.fc.weight", "final_linear.0.bias": "b4.fc.bias",
         "final_linear.1.weight": "b4.out.weight", "final_linear.1.bias": "b4.out.bias"}  # fmt: skip


def official(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors by NVIDIA's names and in its shapes, or as they are where they have no names of rosinality's.

    Raises:
      UserError: filters of another sum, tensors of another shape, two of one name.
    """
    if "input.input" in tensors and "style.1.weight" in tensors:
        name_of, gain = _generator, 4  # of filters that enlarge
        if AVERAGE not in tensors:
            tensors = tensors | {AVERAGE: _mean_style(tensors)}
    elif "convs.0.0.weight" in tensors and "final_linear.1.weight" in tensors:
        blocks = len({match[1] for name in tensors if (match := re.match(r"convs\.(\d{1,2})\.conv1\.", name))})
        name_of, gain = (lambda name: _discriminator(name, blocks)), 1
    else:
        return tensors
    renamed = {}
    for name, value in tensors.items():
        if name.endswith(".kernel"):
            if not np.isclose(value.sum(), gain, rtol=1e-4):
                raise UserError(f"the filter {name} sums up to {value.sum():g}; expected {gain}")
            value = value / gain
        renamed[name_of(name)] = _squeezed(name, value)
    if len(renamed) != len(tensors):
        raise UserError("two tensors of the file have one name")
    return renamed


def _generator(name: str) -> str:
    """The official name of a generator's tensor; one that it does not have stays as it is."""
    if name in (AVERAGE, "input.input"):
        return "mapping.w_avg" if name == AVERAGE else "synthesis.b4.const"
    if match := re.fullmatch(r"style\.(\d{1,2})\.(weight|bias)", name):
        return f"mapping.fc{int(match[1]) - 1}.{match[2]}"  # the first part of `style` has no tensors
    if match := re.fullmatch(r"noises\.noise_(\d{1,2})", name):
        level, conv = divmod(int(match[1]) + 1, 2)
        return f"synthesis.b{4 * 2**level}.conv{conv}.noise_const"
    match = re.fullmatch(r"(conv|to_rgb)(?:1|s\.(\d{1,2}))\.(.*)", name)
    if not match or match[3] not in _STYLED:
        return name
    level, layer = 0, "conv1" if match[1] == "conv" else "torgb"
    if match[2] and match[1] == "conv":
        level, conv = divmod(int(match[2]) + 2, 2)
        layer = f"conv{conv}"
    elif match[2]:
        level = int(match[2]) + 1
    return f"synthesis.b{4 * 2**level}.{layer}.{_STYLED[match[3]]}"


def _discriminator(name: str, blocks: int) -> str:
    """The official name of a tensor of a discriminator with so many blocks."""
    if name in ("convs.0.0.weight", "convs.0.1.bias"):
        return f"b{4 * 2**blocks}.fromrgb.{name.rpartition('.')[2]}"
    match = re.fullmatch(r"convs\.(\d{1,2})\.(.*)", name)
    if match and match[2] in _BLOCK and 0 < int(match[1]) <= blocks:
        return f"b{4 * 2 ** (blocks + 1 - int(match[1]))}.{_BLOCK[match[2]]}"
    return _LAST.get(name, name)


def _squeezed(name: str, value: np.ndarray) -> np.ndarray:
    """Without the sizes of 1 that the official tensor lacks."""
    if name == AVERAGE or re.fullmatch(r"to_rgb(1|s\.\d+)\.bias", name):
        return value.reshape(-1)
    if name.endswith(".noise.weight"):
        axes = 1
    else:
        axes = 2 if name.startswith("noises.") else int(name == "input.input" or value.ndim == 5)
    if value.shape[:axes] != (1,) * axes:
        raise UserError(f"{name} has the shape {value.shape}; expected {axes} leading 1")
    return value.reshape(value.shape[axes:])


def _mean_style(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """The mean of w over seeded latents."""
    size = len(tensors["style.1.weight"])
    x = np.random.default_rng(0).normal(size=(_LATENTS, size)).astype(np.float32)
    x /= np.sqrt(np.mean(x**2, 1, keepdims=True) + 1e-8)
    for layer in range(1, 100):
        weight, bias = tensors.get(f"style.{layer}.weight"), tensors.get(f"style.{layer}.bias")
        if weight is None:
            break
        if weight.shape != (size, size) or bias is None or bias.shape != (size,):
            raise UserError(f"style.{layer} is no layer from {size} to {size} features")
        with np.errstate(all="ignore"):  # what is not finite is told where all arrays are checked
            x = x @ (weight.T * np.float32(_RATE / size**0.5)) + bias * np.float32(_RATE)
            x = np.maximum(x, 0.2 * x) * np.float32(2**0.5)
    return x.mean(0)
