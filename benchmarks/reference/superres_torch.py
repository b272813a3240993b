"""RRDBNet (1809.00219) and SRVGGNetCompact (2107.10833) in plain PyTorch, with the weights of gan_jax.

Pictures are (B, C, H, W) in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import nn

SLOPE, RESIDUAL = 0.2, 0.2


def _conv(weights: dict) -> nn.Conv2d:
    """A convolution of 3x3 with one row of zeros on every side, of a kernel (3, 3, I, O)."""
    kernel = torch.tensor(weights["kernel"].transpose(3, 2, 0, 1).copy())
    conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
    with torch.no_grad():
        conv.weight.copy_(kernel)
        conv.bias.copy_(torch.tensor(weights["bias"].copy()))
    return conv


class _Dense(nn.Module):
    def __init__(self, weights: dict):
        super().__init__()
        self.convs = nn.ModuleList(_conv(weights[f"conv{i}"]) for i in range(1, 6))

    def forward(self, x):
        seen = [x]
        for conv in self.convs[:4]:
            seen.append(F.leaky_relu(conv(torch.cat(seen, 1)), SLOPE, inplace=True))
        return x + RESIDUAL * self.convs[4](torch.cat(seen, 1))


class _Block(nn.Module):
    def __init__(self, weights: dict):
        super().__init__()
        self.dense = nn.Sequential(*(_Dense(weights[f"dense{i}"]) for i in range(1, 4)))

    def forward(self, x):
        return x + RESIDUAL * self.dense(x)


class RRDBNet(nn.Module):
    """Enlarges by four."""

    def __init__(self, weights: dict):
        super().__init__()
        names = ("stem", "trunk", "up0", "up1", "last", "image")
        self.stem, self.trunk, *up, self.last, self.image = (_conv(weights[name]) for name in names)
        self.up = nn.ModuleList(up)
        count = sum(name.startswith("block") for name in weights)
        self.blocks = nn.Sequential(*(_Block(weights[f"block{i}"]) for i in range(count)))

    def forward(self, x):
        first = self.stem(x)
        x = first + self.trunk(self.blocks(first))
        for conv in self.up:
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), SLOPE, inplace=True)
        return self.image(F.leaky_relu(self.last(x), SLOPE, inplace=True))


class SRVGGNetCompact(nn.Module):
    """Enlarges by four."""

    def __init__(self, weights: dict):
        super().__init__()
        count = sum(name.startswith("conv") and name[4:].isdigit() for name in weights)
        names = ("stem", *(f"conv{i}" for i in range(count)))
        layers = []
        for name in names:
            slopes = torch.tensor(next(iter(weights[f"{name}_prelu"].values())).copy()).reshape(-1)
            prelu = nn.PReLU(len(slopes))
            with torch.no_grad():
                prelu.weight.copy_(slopes)
            layers += [_conv(weights[name]), prelu]
        self.layers = nn.Sequential(*layers, _conv(weights["image"]), nn.PixelShuffle(4))

    def forward(self, x):
        return self.layers(x) + F.interpolate(x, scale_factor=4, mode="nearest")
