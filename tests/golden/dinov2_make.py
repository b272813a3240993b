"""Writes dinov2_small.npz beside it, with timm 1.0.31, PyTorch 2.13 and Pillow 13, which no test needs but Pillow.

    PYTHONPATH=. python tests/golden/dinov2_make.py

The network is timm's VisionTransformer in DINOv2's form (patches of 14, LayerScale, epsilon 1e-6) with two narrow
blocks, whose numbers are seeded. timm interpolates positions in another way, so it is given those of 16x16, made as
Meta's code does it: `interpolate(scale_factor=16.1 / 37, mode="bicubic")`.
"""

import json
import pathlib
import sys
import types

import numpy as np
import PIL
import torch
from PIL import Image

# torchvision, which timm imports, may have been built for another PyTorch: none of its operators is needed
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
import timm  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

from gan_jax.features.state import random_state  # noqa: E402

FOLDER = pathlib.Path(__file__).parent
DEPTH, WIDTH, HEADS, SEED = 2, 32, 2, 401
# As random_state draws them, positions and LayerScale would hardly show in the features.
SCALES = {"pos_embed": 100.0, "gamma": 10.0}
# Embeddings a * x + b: small ones show the norms' epsilon, those far from zero how a variance is taken.
TOKENS = {"faint": (1e-3, 0.0), "far": (1.0, 100.0)}
PUBLISHED = {"s": "vit_small_patch14_dinov2", "b": "vit_base_patch14_dinov2", "l": "vit_large_patch14_dinov2"}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def network(depth=DEPTH, width=WIDTH, heads=HEADS, side=224):
    """timm's network; of 518 pixels it has the checkpoints' 37x37 positions."""
    return VisionTransformer(img_size=side, patch_size=14, embed_dim=width, depth=depth, num_heads=heads,
                             init_values=1e-5, num_classes=0).eval()


def interpolated(pos_embed):
    """(1, 1 + 37 * 37, D) -> (1, 1 + 16 * 16, D)."""
    grid = pos_embed[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, scale_factor=((16 + 0.1) / 37,) * 2, mode="bicubic")
    return torch.cat([pos_embed[:, :1], grid.permute(0, 2, 3, 1).reshape(1, 256, -1)], dim=1)


def load(net, state):
    """Gives a network of 224 pixels the arrays of a checkpoint; returns it."""
    state = {name: torch.from_numpy(array) for name, array in state.items()}
    net.load_state_dict(state | {"pos_embed": interpolated(state["pos_embed"])})
    return net


def prepare(images):
    """uint8 (B, H, W, 3) -> float32 (B, 3, 224, 224)."""
    resized = [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) for image in images]
    return ((torch.from_numpy(np.stack(resized)).float() / 255 - MEAN) / STD).permute(0, 3, 1, 2).contiguous()


def images():
    """Noise of 20x28, which grows; waves of 256x240, which shrink."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[:256, :240]
    waves = [np.sin(x / 3) * np.cos(y / 5), np.sign(np.sin((x + y) / 7)), np.sin(x * y / 900)]
    return {"20x28": rng.integers(0, 256, (2, 20, 28, 3), dtype=np.uint8),
            "256x240": np.uint8(np.round(127.5 + 127.5 * np.stack(waves, axis=-1)))[None]}


def moved(state, a, b):
    """A state whose embeddings are a * embeddings, positions + b."""
    state = state | {name: array * np.float32(a) for name, array in state.items()
                     if not name.startswith(("blocks.", "norm."))}
    return state | {"pos_embed": state["pos_embed"] + np.float32(b)}


def main():
    with torch.device("meta"):
        published = {size: timm.create_model(name, pretrained=False) for size, name in PUBLISHED.items()}
    keys = {size: {name: list(a.shape) for name, a in net.state_dict().items()} for size, net in published.items()}
    state = random_state({name: tuple(a.shape) for name, a in network(side=518).state_dict().items()}, SEED)
    for end, scale in SCALES.items():
        state |= {name: array * np.float32(scale) for name, array in state.items() if name.endswith(end)}
    net, out = load(network(), state), {}
    weights = np.random.default_rng(SEED + 1).normal(size=WIDTH).astype(np.float32)
    for name, batch in images().items():
        x = prepare(batch).requires_grad_()
        features = net(x)
        (gradient,) = torch.autograd.grad((features * torch.from_numpy(weights)).sum(), x)
        out |= {f"in/images_u8_{name}": batch, f"out/features_{name}": features.detach().numpy(),
                f"grad/corner_{name}": gradient[:, :, :20, :20].permute(0, 2, 3, 1).numpy()}
    for name, (a, b) in TOKENS.items():
        exact = load(network(), moved(state, a, b)).double()
        with torch.no_grad():
            out[f"out/features_{name}"] = exact(prepare(images()["20x28"]).double()).float().numpy()
    meta = {
        "source": f"timm {timm.__version__} VisionTransformer, torch {torch.__version__}, Pillow {PIL.__version__}; "
                  "positions by torch interpolate(scale_factor=16.1/37, mode='bicubic')",
        "seed": SEED, "scales": SCALES, "depth": DEPTH, "width": WIDTH, "heads": HEADS, "keys": keys, "tokens": TOKENS,
        "faint, far": "features of the set 20x28 in float64 where embeddings are a * embeddings, positions + b",
        "grad": "of sum(features * in/weights) by the prepared image, the top left 20x20 pixels, NHWC",
    }
    positions = interpolated(torch.from_numpy(state["pos_embed"]))[0, 1:, :4].numpy()
    np.savez_compressed(FOLDER / "dinov2_small.npz", meta=json.dumps(meta), **{"in/weights": weights},
                        **{"out/positions": positions}, **out)


if __name__ == "__main__":
    main()
