"""Writes cyclegan_gradients.npz and cyclegan_step.npz: what PyTorch says of CycleGAN's networks and of its training.

    python tests/golden/cyclegan_make.py

Run by hand, not by the tests; it needs PyTorch. The networks are stated here with PyTorch's own layers under the names
of pytorch-CycleGAN-and-pix2pix, whose recorded numbers (`cyclegan_resnet6_*`, `patchgan_*`) they must reproduce first:
those files hold no gradients. `cyclegan_gradients` is of small networks of random parameters, each loss
sum(out * weight). `cyclegan_step` is of two steps of Zhu et al. 2017 in double precision, in the order of that program:
both generators, then both discriminators, on the fakes of the generators as they were.
"""

import json
import pathlib

import numpy as np
import torch
from torch import nn

FOLDER = pathlib.Path(__file__).parent
STEP = {"instance": 1, "batch": 2}  # norm of all four networks, batch size
SIDE, WIDTH, BLOCKS, LAYERS = 16, 2, 1, 2  # of the images and networks of these steps
CYCLE_A, CYCLE_B, IDENTITY = 10.0, 8.0, 0.5  # that of B is 10 by default
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


def four(norm, rng):
    """G_A from A to B, G_B back, D_A that judges B, D_B that judges A: weights N(0, 0.02), biases 0, scales N(1, 0.02).

    In double precision; the values are those of single precision.
    """
    nets = {name: generator(WIDTH, BLOCKS, norm) for name in ("G_A", "G_B")}
    nets |= {name: discriminator(WIDTH, LAYERS, norm) for name in ("D_A", "D_B")}
    with torch.no_grad():
        for net in nets.values():
            for key, value in net.named_parameters():
                numbers = rng.normal(1.0 if value.ndim == 1 else 0.0, 0.02, tuple(value.shape)).astype(np.float32)
                value.copy_(torch.tensor(numbers if key.endswith("weight") else np.zeros_like(numbers)))
            net.double().train()
    return nets


def state(nets, prefix):
    """Copies of all parameters and running statistics."""
    return {
        f"{prefix}/{name}/{k}": v.numpy().astype(np.float32)  # another type: a copy
        for name, net in nets.items() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")
    }  # fmt: skip


def gradients(nets, names, prefix):
    """Copies of the gradients of these networks."""
    return {
        f"{prefix}/{name}/{k}": v.grad.numpy().astype(np.float32)
        for name in names for k, v in nets[name].named_parameters()
    }  # fmt: skip


def step(nets, optimizers, real_a, real_b):
    """One step, of which the discriminators see the fakes: the pool is not full. Returns losses, gradients, fakes."""
    g_a, g_b, d_a, d_b = (lambda x, net=net: run(net, x) for net in nets.values())
    mse, l1 = nn.functional.mse_loss, nn.functional.l1_loss

    def gan(logits, target):
        return mse(logits, torch.full_like(logits, target))

    fake_b = g_a(real_a)
    again_a = g_b(fake_b)
    fake_a = g_b(real_b)
    again_b = g_a(fake_a)
    losses = {
        "identity_A": l1(g_a(real_b), real_b), "identity_B": l1(g_b(real_a), real_a),
        "G_A": gan(d_a(fake_b), 1.0), "G_B": gan(d_b(fake_a), 1.0),
        "cycle_A": l1(again_a, real_a), "cycle_B": l1(again_b, real_b),
    }  # fmt: skip
    losses["G"] = losses["G_A"] + losses["G_B"] + CYCLE_A * losses["cycle_A"] + CYCLE_B * losses["cycle_B"]
    losses["G"] = losses["G"] + IDENTITY * (CYCLE_B * losses["identity_A"] + CYCLE_A * losses["identity_B"])
    optimizers["G"].zero_grad()
    losses["G"].backward()
    grads = gradients(nets, ("G_A", "G_B"), "grad")
    optimizers["G"].step()

    optimizers["D"].zero_grad()
    for name, judge, real, fake in (("D_A", d_a, real_b, fake_b), ("D_B", d_b, real_a, fake_a)):
        losses[name] = 0.5 * (gan(judge(real), 1.0) + gan(judge(fake.detach()), 0.0))
        losses[name].backward()
    grads |= gradients(nets, ("D_A", "D_B"), "grad")
    optimizers["D"].step()
    fakes = {"fake_A": fake_a, "fake_B": fake_b}
    return {k: np.float32(v.item()) for k, v in losses.items()}, grads, fakes


def record_steps(norm, batch, rng):
    """Arrays of two steps: before, in1, loss1, grad (of step 1), fake1, after1, in2, loss2, after2."""
    nets = four(norm, rng)
    optimizers = {
        side: torch.optim.Adam([p for n in "AB" for p in nets[f"{side}_{n}"].parameters()], 2e-4, (0.5, 0.999), 1e-8)
        for side in "GD"
    }
    arrays = state(nets, "before")
    for number in (1, 2):
        reals = [rng.integers(0, 256, (batch, 3, SIDE, SIDE), dtype=np.uint8) for _ in "AB"]
        arrays |= {f"in{number}/{name}": real for name, real in zip("AB", reals, strict=True)}
        losses, grads, fakes = step(nets, optimizers, *(torch.tensor(real / 127.5 - 1) for real in reals))
        arrays |= {f"loss{number}/{k}": v for k, v in losses.items()} | state(nets, f"after{number}")
        if number == 1:
            arrays |= grads | {f"fake1/{k[-1]}": v.detach().numpy().astype(np.float32) for k, v in fakes.items()}
    return {f"{norm}/{k}": v for k, v in arrays.items()}


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
    arrays, rng = {}, np.random.default_rng(1)
    for norm, batch in STEP.items():
        arrays |= record_steps(norm, batch, rng)
    meta = {"source": meta["source"], "batch": STEP, "seed": 1}
    meta |= {"side, width, blocks, layers": (SIDE, WIDTH, BLOCKS, LAYERS)}
    meta |= {"cycle_A, cycle_B, identity": (CYCLE_A, CYCLE_B, IDENTITY)}
    meta |= {"adam": "2e-4, (0.5, 0.999), 1e-8", "precision": "double"}
    np.savez_compressed(FOLDER / "cyclegan_step.npz", meta=json.dumps(meta), **arrays)


if __name__ == "__main__":
    main()
