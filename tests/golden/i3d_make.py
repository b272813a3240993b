"""Writes i3d.npz beside it, with PyTorch 2.13.

    PYTHONPATH=. python tests/golden/i3d_make.py

The network is written here in PyTorch from the table of the paper, with the names of pytorch-i3d; its numbers are
drawn as `features.state.random_state` says, by the names and shapes of PyTorch's own state dict.
"""

import json
import math
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent
SEED = 7
FRAMES = 10  # 5, 3 and 2 behind the halvings: each pads another way
CHANNELS = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32), "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64), "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64), "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128), "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


def clip(height, width):
    """A seeded clip, uint8 (1, T, H, W, 3): noise whose brightness rises to the right and with time."""
    rng = np.random.default_rng(SEED)
    noise = rng.integers(0, 128, (1, FRAMES, height, width, 3))
    ramps = np.linspace(0, 90, width)[:, None] + np.linspace(0, 30, FRAMES)[:, None, None, None]
    return (noise + ramps).astype(np.uint8)


def recorded_by_torch(images):
    """(logits (1, 400), features (1, 1024), shapes) of the seeded network, of images in [-1, 1]."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    def padded(x, kernel, stride, value):
        pads = []
        for n, k, s in zip(x.shape[2:], kernel, stride, strict=True):
            total = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
            pads.append((total // 2, total - total // 2))
        return F.pad(x, [side for pair in reversed(pads) for side in pair], value=value)

    def pool(x, kernel, stride):
        return F.max_pool3d(padded(x, kernel, stride, -math.inf), kernel, stride)

    class Unit(nn.Module):
        def __init__(self, ins, outs, kernel=1, stride=1):
            super().__init__()
            self.conv3d = nn.Conv3d(ins, outs, kernel, stride, bias=False)
            self.bn = nn.BatchNorm3d(outs, eps=1e-3)

        def forward(self, x):
            x = padded(x, self.conv3d.kernel_size, self.conv3d.stride, 0.0)
            return torch.relu(self.bn(self.conv3d(x)))

    class Mixed(nn.Module):
        def __init__(self, ins, b0, b1a, b1b, b2a, b2b, b3b):
            super().__init__()
            self.b0, self.b1a, self.b1b = Unit(ins, b0), Unit(ins, b1a), Unit(b1a, b1b, 3)
            self.b2a, self.b2b, self.b3b = Unit(ins, b2a), Unit(b2a, b2b, 3), Unit(ins, b3b)

        def forward(self, x):
            third = self.b3b(pool(x, (3, 3, 3), (1, 1, 1)))
            return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), third], 1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
            self.Conv3d_2b_1x1, self.Conv3d_2c_3x3 = Unit(64, 64), Unit(64, 192, 3)
            for name, channels in CHANNELS.items():
                setattr(self, name, Mixed(*channels))
            self.logits = nn.Module()
            self.logits.conv3d = nn.Conv3d(1024, 400, 1)

        def forward(self, x):
            x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
            x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
            for name in CHANNELS:
                x = pool(x, (3, 3, 3), (2, 2, 2)) if name == "Mixed_4b" else x
                x = pool(x, (2, 2, 2), (2, 2, 2)) if name == "Mixed_5b" else x
                x = getattr(self, name)(x)
            x = F.avg_pool3d(x, (2, *x.shape[3:]), 1)
            return self.logits.conv3d(x).mean((2, 3, 4)), x.mean((2, 3, 4))

    network = Network().eval()
    shapes = {name: tuple(x.shape) for name, x in network.state_dict().items() if not name.endswith("tracked")}
    network.load_state_dict({k: torch.from_numpy(v) for k, v in draw(shapes).items()}, strict=False)
    with torch.no_grad():
        logits, features = network(torch.from_numpy(images.transpose(0, 4, 1, 2, 3)))
    return logits.numpy(), features.numpy(), shapes


def draw(shapes):
    """Arrays by the rule that `features.state.random_state` states."""
    rng, arrays = np.random.default_rng(SEED), {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("running_var"):
            array = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("weight") and len(shape) >= 2:
            array = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith("weight"):
            array = 1 + 0.1 * rng.standard_normal(shape)
        else:
            array = 0.1 * rng.standard_normal(shape)
        arrays[name] = array.astype(np.float32)
    return arrays


def main():
    small = clip(40, 56)
    logits, features, shapes = recorded_by_torch(small.astype(np.float32) / np.float32(127.5) - 1)
    meta = np.array(json.dumps({"seed": SEED, "shapes": shapes}))
    np.savez_compressed(FOLDER / "i3d.npz", **{"in/clip": small, "out/logits": logits, "out/1024": features}, meta=meta)


if __name__ == "__main__":
    main()
