"""Writes cyclegan_gradients.npz: what PyTorch says of CycleGAN's networks, forward and backward, in training.

    python tests/golden/cyclegan_make.py

Run by hand, not by the tests; it needs PyTorch. The networks are stated here with PyTorch's own layers under the names
of pytorch-CycleGAN-and-pix2pix, whose recorded numbers (`cyclegan_resnet6_*`, `patchgan_*`) they must reproduce first:
those files hold no gradients. Each loss is sum(out * weight) over a small network of random parameters.
"""

import json
import pathlib

import numpy as np
import torch
from torch import nn

FOLDER = pathlib.Path(__file__).parent
SMALL = {"generator": (3, 2, 16), "patch": (3, 2, 24), "pixel": (4, 0, 6)}  # width, blocks or layers, side of x


def layer(kind, norm, i, o, *args, **options):
    """A convolution and its norm; the bias is left out in front of a batch norm."""
    norms = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}
    return [kind(i, o, *args, bias=norm != "batch", **options), norms[norm](o)]


class Block(nn.Module):
    """x + conv_block(x)."""

    def __init__(self, width, norm):
        super().__init__()
        first, second = ([nn.ReflectionPad2d(1), *layer(nn.Conv2d, norm, width, width, 3)] for _ in range(2))
        self.conv_block = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x):
        return x + self.conv_block(x)


def generator(width, blocks, norm):
    """Zhu et al. 2017, appendix: c7s1-w, d2w, d4w, blocks, u2w, uw, c7s1-3."""
    layers = [nn.ReflectionPad2d(3), *layer(nn.Conv2d, norm, 3, width, 7), nn.ReLU()]
    for i in (width, 2 * width):
        layers += [*layer(nn.Conv2d, norm, i, 2 * i, 3, stride=2, padding=1), nn.ReLU()]
    layers += [Block(4 * width, norm) for _ in range(blocks)]
    for i in (4 * width, 2 * width):
        up = layer(nn.ConvTranspose2d, norm, i, i // 2, 3, stride=2, padding=1, output_padding=1)
        layers += [*up, nn.ReLU()]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
    return nn.ModuleDict({"model": nn.Sequential(*layers)})


def discriminator(width, layers, norm):
    """Isola et al. 2017, appendix 6.1.2; 0 layers: 1x1 convolutions alone."""
    k, p = (4, 1) if layers else (1, 0)
    stack, i = [nn.Conv2d(3, width, k, 2 if layers else 1, p), nn.LeakyReLU(0.2)], width
    for n in range(1, max(layers, 1) + 1):
        o = width * min(2**n, 8)
        stack += [*layer(nn.Conv2d, norm, i, o, k, 2 if n < layers else 1, p), nn.LeakyReLU(0.2)]
        i = o
    stack.append(nn.Conv2d(i, 1, k, 1, p, bias=layers > 0 or norm != "batch"))
    return nn.ModuleDict({"model" if layers else "net": nn.Sequential(*stack)})


def run(net, x):
    """The output of the only sequence of a network."""
    return next(iter(net.values()))(x)


def check(net, file, params, out):
    """Asserts that a network with recorded parameters has the recorded outputs, in both modes."""
    with np.load(FOLDER / f"{file}.npz") as arrays:
        tensors = {k.removeprefix(params): torch.tensor(arrays[k]) for k in arrays.files if k.startswith(params)}
        net.load_state_dict(tensors)
        for mode in ("eval", "train"):
            y = run(net.train(mode == "train"), torch.tensor(arrays["in/x"]))
            np.testing.assert_allclose(y.detach().numpy(), arrays[f"{out}_{mode}"], atol=1e-5)


def record(net, name, side, rng):
    """Arrays of one small network under its name: parameters, x, weight, out and gradients."""
    with torch.no_grad():
        for key, value in net.named_parameters():
            about = 1.0 if value.ndim == 1 and key.endswith("weight") else 0.0
            value.copy_(torch.tensor(rng.normal(about, 0.3, tuple(value.shape))))
    x = torch.tensor(rng.uniform(-1, 1, (2, 3, side, side)), dtype=torch.float32, requires_grad=True)
    arrays = {f"params/{name}/{k}": v.numpy().copy() for k, v in net.state_dict().items()}
    y = run(net.train(), x)
    weight = torch.tensor(rng.normal(size=tuple(y.shape)), dtype=torch.float32)
    (y * weight).sum().backward()
    arrays |= {f"grad/{name}/{k}": v.grad.numpy() for k, v in net.named_parameters()}
    arrays |= {f"in/{name}/x": x.detach().numpy(), f"in/{name}/weight": weight.numpy()}
    return arrays | {f"out/{name}": y.detach().numpy(), f"grad_x/{name}": x.grad.numpy()}


def main():
    rng = np.random.default_rng(0)
    arrays = {}
    for norm in ("instance", "batch"):
        check(generator(8, 6, norm), f"cyclegan_resnet6_{norm}", "params/", "out/y")
        for name, width, layers in (("patch70", 8, 3), ("patch_n2", 8, 2), ("patch_n4", 4, 4), ("pixel", 8, 0)):
            check(discriminator(width, layers, norm), f"patchgan_{norm}", f"params/{name}/", f"out/{name}")
        for name, (width, depth, side) in SMALL.items():
            net = (generator if name == "generator" else discriminator)(width, depth, norm)
            arrays |= record(net, f"{name}_{norm}", side, rng)
    meta = {"source": f"cyclegan_make.py, torch {torch.__version__}", "width, depth, side": SMALL, "seed": 0}
    np.savez_compressed(FOLDER / "cyclegan_gradients.npz", meta=json.dumps(meta), **arrays)


if __name__ == "__main__":
    main()
