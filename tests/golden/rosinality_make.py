"""Writes interop_rosinality.pt and interop_rosinality.npz beside it, with PyTorch 2.13, which no test needs.

    python tests/golden/rosinality_make.py

The file has the names, layouts and entries of a checkpoint of rosinality's stylegan2-pytorch. The networks are written
down here from their formulas (StyleGAN2's equations and that repository's constants), and their numbers are seeded.
`check` holds the formulas against NVIDIA's recorded weights and images, renamed and reshaped.
"""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
from torch.nn import functional as F

FOLDER = pathlib.Path(__file__).parent
SIDE, STYLE, LAYERS, RATE, TAPS = 16, 8, 3, 0.01, (1, 3, 3, 1)
WIDTHS = {4: 8, 8: 8, 16: 6}  # features by resolution
SAMPLES = 100_000  # of the mean of w


def blur_kernel(gain=1):
    taps = torch.tensor(TAPS, dtype=torch.float32)
    kernel = taps[:, None] * taps[None]
    return gain * kernel / kernel.sum()


def filtered(x, kernel, before, after):
    """A true convolution of every feature of x, with zeros around it."""
    kernel = kernel.flip(0, 1)[None, None].repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=x.shape[1])


def activated(x, bias):
    return math.sqrt(2) * F.leaky_relu(x + bias.reshape(1, -1, *[1] * (x.ndim - 2)), 0.2)


def dense(state, name, x, rate=1.0):
    weight = state[f"{name}.weight"]
    return x @ weight.T * (rate / math.sqrt(weight.shape[1])), state[f"{name}.bias"] * rate


def modulated(state, name, x, w, *, up=False, demodulate=True):
    """The kernel of each sample by itself: s_i w_oi / sqrt(fan-in), of norm 1 for each output where demodulated."""
    style, bias = dense(state, f"{name}.modulation", w)
    kernel = state[f"{name}.weight"]
    kernel = kernel * (style + bias)[:, None, :, None, None] / math.sqrt(math.prod(kernel.shape[2:]))
    if demodulate:
        kernel = kernel / torch.sqrt((kernel**2).sum((2, 3, 4), keepdim=True) + 1e-8)
    images = []
    for image, own in zip(x, kernel, strict=True):
        if up:
            images.append(F.conv_transpose2d(image[None], own.transpose(0, 1), stride=2))
        else:
            images.append(F.conv2d(image[None], own, padding=own.shape[-1] // 2))
    x = torch.cat(images)
    return filtered(x, state[f"{name}.blur.kernel"], 1, 1) if up else x


def styled(state, name, x, w, noise, *, up=False):
    x = modulated(state, f"{name}.conv", x, w, up=up) + state[f"{name}.noise.weight"] * noise
    return activated(x, state[f"{name}.activate.bias"])


def to_rgb(state, name, x, w, image):
    rgb = modulated(state, f"{name}.conv", x, w, demodulate=False) + state[f"{name}.bias"]
    if image is None:
        return rgb
    zeros = torch.zeros(*image.shape[:2], 2 * image.shape[2], 2 * image.shape[3])
    zeros[:, :, ::2, ::2] = image
    return rgb + filtered(zeros, state[f"{name}.upsample.kernel"], 2, 1)


def count(state, end):
    return sum(name.endswith(end) for name in state)


def mapping(state, z):
    w = z / torch.sqrt((z**2).mean(1, keepdim=True) + 1e-8)
    for layer in range(sum(name.startswith("style.") for name in state) // 2):
        w = activated(*dense(state, f"style.{layer + 1}", w, RATE))
    return w


def synthesis(state, w):
    """Images of one style for all layers, with the stored noise."""
    levels = count(state, "upsample.kernel")
    noise = [state[f"noises.noise_{n}"] for n in range(2 * levels + 1)]
    x = state["input.input"].repeat(len(w), 1, 1, 1)
    x = styled(state, "conv1", x, w, noise[0])
    image = to_rgb(state, "to_rgb1", x, w, None)
    for level in range(levels):
        x = styled(state, f"convs.{2 * level}", x, w, noise[2 * level + 1], up=True)
        x = styled(state, f"convs.{2 * level + 1}", x, w, noise[2 * level + 2])
        image = to_rgb(state, f"to_rgbs.{level}", x, w, image)
    return image


def conv(state, name, x, **options):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight / math.sqrt(math.prod(weight.shape[1:])), **options)


def discriminator(state, x):
    """Logits of one group of images."""
    x = activated(conv(state, "convs.0.0", x), state["convs.0.1.bias"])
    for block in range(1, count(state, "skip.0.kernel") + 1):
        name = f"convs.{block}"
        y = activated(conv(state, f"{name}.conv1.0", x, padding=1), state[f"{name}.conv1.1.bias"])
        y = conv(state, f"{name}.conv2.1", filtered(y, state[f"{name}.conv2.0.kernel"], 2, 2), stride=2)
        y = activated(y, state[f"{name}.conv2.2.bias"])
        skip = conv(state, f"{name}.skip.1", filtered(x, state[f"{name}.skip.0.kernel"], 1, 1), stride=2)
        x = (y + skip) / math.sqrt(2)
    deviation = torch.sqrt(x.var(0, unbiased=False) + 1e-8).mean()
    x = torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)
    x = activated(conv(state, "final_conv.0", x, padding=1), state["final_conv.1.bias"])
    x = activated(*dense(state, "final_linear.0", x.flatten(1)))
    return sum(dense(state, "final_linear.1", x))[:, 0]


def shapes_g():
    """Shapes of a generator's tensors, in the order of its state dict, filters left out."""
    shapes = {f"style.{n + 1}.{kind}": (STYLE,) * (2 - (kind == "bias")) for n in range(LAYERS)
              for kind in ("weight", "bias")}  # fmt: skip

    def layer(name, inputs, outputs, kernel):
        modulation = {f"{name}.conv.modulation.weight": (inputs, STYLE), f"{name}.conv.modulation.bias": (inputs,)}
        return {f"{name}.conv.weight": (1, outputs, inputs, kernel, kernel)} | modulation

    def styled_layer(name, inputs, outputs):
        return layer(name, inputs, outputs, 3) | {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (outputs,)}

    def rgb(name, inputs):
        return {f"{name}.bias": (1, 3, 1, 1)} | layer(name, inputs, 3, 1)

    widths = list(WIDTHS.values())
    shapes |= {"input.input": (1, widths[0], 4, 4)} | styled_layer("conv1", widths[0], widths[0])
    shapes |= rgb("to_rgb1", widths[0])
    for level, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        shapes |= styled_layer(f"convs.{2 * level}", inputs, outputs)
        shapes |= styled_layer(f"convs.{2 * level + 1}", outputs, outputs) | rgb(f"to_rgbs.{level}", outputs)
    for n in range(2 * len(widths) - 1):
        shapes[f"noises.noise_{n}"] = (1, 1) + (4 * 2 ** ((n + 1) // 2),) * 2
    return shapes


def shapes_d():
    widths = list(WIDTHS.values())[::-1]
    shapes = {"convs.0.0.weight": (widths[0], 3, 1, 1), "convs.0.1.bias": (widths[0],)}
    for block, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True), 1):
        name = f"convs.{block}"
        shapes |= {f"{name}.conv1.0.weight": (inputs, inputs, 3, 3), f"{name}.conv1.1.bias": (inputs,)}
        shapes |= {f"{name}.conv2.1.weight": (outputs, inputs, 3, 3), f"{name}.conv2.2.bias": (outputs,)}
        shapes[f"{name}.skip.1.weight"] = (outputs, inputs, 1, 1)
    last = widths[-1]
    shapes |= {"final_conv.0.weight": (last, last + 1, 3, 3), "final_conv.1.bias": (last,)}
    shapes |= {"final_linear.0.weight": (last, last * 16), "final_linear.0.bias": (last,)}
    return shapes | {"final_linear.1.weight": (1, last), "final_linear.1.bias": (1,)}


def fresh(shapes, filters, seed):
    """Seeded numbers of the size that the formulas expect, and filters."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        scale = 1 / RATE if name.startswith("style.") else 1.0
        scale *= 0.3 if name.endswith(("bias", "noise.weight")) else 1.0
        shift = 1.0 if name.endswith("modulation.bias") else 0.0
        state[name] = shift + scale * torch.randn(shape, generator=generator)
    return state | filters


def check():
    """Prints how far the formulas are from NVIDIA's recorded images and logits, relative to the largest."""
    with np.load(FOLDER / "sg2_net_a_skip_resnet_uncond.npz") as npz:
        arrays = {name: torch.from_numpy(np.array(npz[name])) for name in npz.files if name != "meta"}
    sides = [4, 8, 16, 32]
    g, d = {}, {}

    def take(state, name, source, shape=None):
        value = arrays[f"params/{'G' if state is g else 'D'}/{source}"]
        state[name] = value.reshape(value.shape if shape is None else shape)

    def layer(name, source):
        take(g, f"{name}.conv.weight", f"{source}.weight")
        g[f"{name}.conv.weight"] = g[f"{name}.conv.weight"][None]
        for kind in ("weight", "bias"):
            take(g, f"{name}.conv.modulation.{kind}", f"{source}.affine.{kind}")
        if source.endswith("torgb"):
            return take(g, f"{name}.bias", f"{source}.bias", shape=(1, -1, 1, 1))
        take(g, f"{name}.noise.weight", f"{source}.noise_strength", shape=(1,))
        return take(g, f"{name}.activate.bias", f"{source}.bias")

    for n in range(2):
        for kind in ("weight", "bias"):
            take(g, f"style.{n + 1}.{kind}", f"mapping.fc{n}.{kind}")
            take(d, f"final_linear.{n}.{kind}", f"b4.{('fc', 'out')[n]}.{kind}")
    g["input.input"] = arrays["params/G/synthesis.b4.const"][None]
    layer("conv1", "synthesis.b4.conv1")
    layer("to_rgb1", "synthesis.b4.torgb")
    take(g, "noises.noise_0", "synthesis.b4.conv1.noise_const")
    for n, side in enumerate(sides[1:]):
        layer(f"to_rgbs.{n}", f"synthesis.b{side}.torgb")
        g[f"convs.{2 * n}.conv.blur.kernel"] = g[f"to_rgbs.{n}.upsample.kernel"] = blur_kernel(4)
        for conv_n in range(2):
            layer(f"convs.{2 * n + conv_n}", f"synthesis.b{side}.conv{conv_n}")
            take(g, f"noises.noise_{2 * n + conv_n + 1}", f"synthesis.b{side}.conv{conv_n}.noise_const")
        name = f"convs.{len(sides) - 1 - n}"
        for part, source in (("conv1.0", "conv0"), ("conv2.1", "conv1"), ("skip.1", "skip")):
            take(d, f"{name}.{part}.weight", f"b{side}.{source}.weight")
        take(d, f"{name}.conv1.1.bias", f"b{side}.conv0.bias")
        take(d, f"{name}.conv2.2.bias", f"b{side}.conv1.bias")
        d[f"{name}.conv2.0.kernel"] = d[f"{name}.skip.0.kernel"] = blur_kernel()
    for name, source in (("convs.0", f"b{sides[-1]}.fromrgb"), ("final_conv", "b4.conv")):
        take(d, f"{name}.0.weight", f"{source}.weight")
        take(d, f"{name}.1.bias", f"{source}.bias")
    real = arrays["in/real_img"]
    groups = [real[n :: len(real) // 4] for n in range(len(real) // 4)]  # NVIDIA's groups are interleaved
    logits = torch.stack([discriminator(d, group) for group in groups], 1).reshape(-1)
    images = synthesis(g, mapping(g, arrays["in/z"]))
    for ours, name in ((images, "out/img_const"), (logits, "out/logits_real")):
        recorded = arrays[name].reshape(ours.shape)
        print(f"{name}: {float((ours - recorded).abs().max() / recorded.abs().max()):.1e}")


def main():
    levels = range(len(WIDTHS) - 1)
    filters_g = {f"convs.{2 * n}.conv.blur.kernel": blur_kernel(4) for n in levels}
    filters_g |= {f"to_rgbs.{n}.upsample.kernel": blur_kernel(4) for n in levels}
    filters_d = {f"convs.{n + 1}.{part}.0.kernel": blur_kernel() for n in levels for part in ("conv2", "skip")}
    g, g_ema = (fresh(shapes_g(), filters_g, seed) for seed in (1, 2))
    d = fresh(shapes_d(), filters_d, 3)
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(4, STYLE, generator=generator)
    with torch.no_grad():
        ws = mapping(g_ema, torch.randn(SAMPLES, STYLE, generator=generator))
        average = ws.mean(0)
        w = mapping(g_ema, z)
        images = synthesis(g_ema, w)
        out = {"in/z": z, "out/images": images, "out/images_g": synthesis(g, mapping(g, z)),
               "out/truncated": synthesis(g_ema, average + 0.7 * (w - average)),
               "out/logits": discriminator(d, images), "out/deviation": ws.std(0)}  # fmt: skip
    weight = d["final_linear.1.weight"].clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.002)
    weight.sum().backward()
    optimizer.step()
    value = {"g": g, "d": d, "g_ema": g_ema, "g_optim": optimizer.state_dict(), "d_optim": optimizer.state_dict(),
             "args": argparse.Namespace(size=SIDE, lr=0.002, path="x"), "ada_aug_p": 0.0,
             "latent_avg": average}  # fmt: skip
    torch.save(value, FOLDER / "interop_rosinality.pt")
    meta = {"source": f"formulas of StyleGAN2 by torch {torch.__version__}, names of rosinality/stylegan2-pytorch"}
    np.savez_compressed(FOLDER / "interop_rosinality.npz", meta=json.dumps(meta),
                        **{name: value.numpy() for name, value in out.items()})  # fmt: skip
    print({name: (tuple(value.shape), float(value.abs().max())) for name, value in out.items()})


if __name__ == "__main__":
    main()
    check()
