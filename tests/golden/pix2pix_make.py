"""Writes pix2pix_gradients.npz and pix2pix_step.npz: what PyTorch says of pix2pix's networks and of its training.

    python tests/golden/pix2pix_make.py

Run by hand, not by the tests; it needs PyTorch. The U-Net is stated here with PyTorch's own layers under the names of
pytorch-CycleGAN-and-pix2pix, whose recorded outputs (`pix2pix_unet*`) it must reproduce first; the discriminator is
`cyclegan_make.py`'s. `pix2pix_gradients` is of small networks of random parameters, each loss sum(out * weight).
`pix2pix_step` is of two steps of Isola et al. 2017 in double precision, in the order of that program: the discriminator
on half of its loss, then the generator against the new discriminator. A recording of that program's own two steps has
the parameters of after the second one as those of before, and says nothing for that reason.
"""

import json
import pathlib

import cyclegan_make as shared
import numpy as np
import torch
from torch import nn

FOLDER = pathlib.Path(__file__).parent
RECORDED = {"unet5downs": (8, 5, 3), "unet128": (4, 7, 2)}  # width, depth, channels of the output
STEPS = {"batch": (2, "vanilla"), "instance": (1, "lsgan")}  # norm -> batch size, loss
SIDE, WIDTH, LAYERS, L1 = 16, 2, 1, 100.0  # of the images and networks of these steps, and the weight of the L1 loss


class Block(nn.Module):
    """A halving, what lies inside of it, and a doubling; but for the outermost one stacked behind its input."""

    def __init__(self, outer, width, norm, inner=None, channels=0):
        super().__init__()
        self.is_outermost = channels > 0
        down = shared.layer(nn.Conv2d, norm, outer or 3, width, 4, 2, 1)
        if channels:
            layers = [down[0], inner, nn.ReLU(), nn.ConvTranspose2d(2 * width, channels, 4, 2, 1), nn.Tanh()]
        else:
            up = shared.layer(nn.ConvTranspose2d, norm, width * (2 if inner else 1), outer, 4, 2, 1)
            layers = [nn.LeakyReLU(0.2), *(down if inner else down[:1]), *([inner] if inner else []), nn.ReLU(), *up]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        if self.is_outermost:
            return self.model(x)
        return torch.cat([nn.functional.leaky_relu(x, 0.2), self.model(x)], 1)


def unet(width, depth, channels, norm):
    """Isola et al. 2017, appendix 6.1.1, without dropout."""
    features = [width * min(2**i, 8) for i in range(depth)]
    block = Block(features[-2], features[-1], norm)
    for i in reversed(range(1, depth - 1)):
        block = Block(features[i - 1], features[i], norm, block)
    return nn.ModuleDict({"model": Block(0, features[0], norm, block, channels)})


def discriminator(width, layers, norm, channels):
    """`cyclegan_make.discriminator` of so many channels."""
    net = shared.discriminator(width, layers, norm)
    first = net["model"][0]
    net["model"][0] = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding)
    return net


def pair(norm, rng):
    """Both networks in double precision: weights N(0, 0.02), biases 0, scales N(1, 0.02), as float32 has them."""
    nets = {"G": unet(WIDTH, 4, 3, norm), "D": discriminator(WIDTH, LAYERS, norm, 6)}
    with torch.no_grad():
        for net in nets.values():
            for key, value in net.named_parameters():
                numbers = rng.normal(1.0 if value.ndim == 1 else 0.0, 0.02, tuple(value.shape)).astype(np.float32)
                value.copy_(torch.tensor(numbers if key.endswith("weight") else np.zeros_like(numbers)))
            net.double().train()
    return nets


def step(nets, optimizers, source, image, loss):
    """One step. Returns losses, gradients and fakes."""
    of_logits = {"vanilla": nn.functional.binary_cross_entropy_with_logits, "lsgan": nn.functional.mse_loss}[loss]

    def gan(images, target):
        logits = shared.run(nets["D"], torch.cat([source, images], 1))
        return of_logits(logits, torch.full_like(logits, target))

    fake, losses, grads = shared.run(nets["G"], source), {}, {}
    optimizers["D"].zero_grad()
    losses["D_fake"], losses["D_real"] = gan(fake.detach(), 0.0), gan(image, 1.0)
    (0.5 * (losses["D_fake"] + losses["D_real"])).backward()
    grads |= shared.gradients(nets, ("D",), "grad")
    optimizers["D"].step()
    optimizers["G"].zero_grad()
    losses["G_GAN"], losses["G_L1"] = gan(fake, 1.0), nn.functional.l1_loss(fake, image)
    losses["G"] = losses["G_GAN"] + L1 * losses["G_L1"]
    losses["G"].backward()
    grads |= shared.gradients(nets, ("G",), "grad")
    optimizers["G"].step()
    return {k: np.float32(v.item()) for k, v in losses.items()}, grads, fake


def record_steps(norm, batch, loss, rng):
    """Arrays of two steps: before, in1, loss1, grad (of step 1), fake1, after1, in2, loss2, after2."""
    nets = pair(norm, rng)
    optimizers = {name: torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999), 1e-8) for name, net in nets.items()}
    arrays = shared.state(nets, "before")
    for number in (1, 2):
        pictures = [rng.integers(0, 256, (batch, 3, SIDE, SIDE), dtype=np.uint8) for _ in "AB"]
        arrays |= {f"in{number}/{name}": picture for name, picture in zip("AB", pictures, strict=True)}
        losses, grads, fake = step(nets, optimizers, *(torch.tensor(p / 127.5 - 1) for p in pictures), loss)
        arrays |= {f"loss{number}/{k}": v for k, v in losses.items()} | shared.state(nets, f"after{number}")
        if number == 1:
            arrays |= grads | {"fake1": fake.detach().numpy().astype(np.float32)}
    return {f"{norm}/{k}": v for k, v in arrays.items()}


def main():
    arrays, rng = {}, np.random.default_rng(2)
    for norm in STEPS:
        for name, (width, depth, channels) in RECORDED.items():
            shared.check(unet(width, depth, channels, norm), f"pix2pix_{name}_{norm}", "params/", "out/y")
        arrays |= shared.record(unet(3, 3, 2, norm), f"unet_{norm}", 8, rng)
    meta = {"source": f"pix2pix_make.py, torch {torch.__version__}", "width, depth, channels, side": (3, 3, 2, 8)}
    np.savez_compressed(FOLDER / "pix2pix_gradients.npz", meta=json.dumps({**meta, "seed": 2}), **arrays)
    arrays, rng = {}, np.random.default_rng(3)
    for norm, (batch, loss) in STEPS.items():
        arrays |= record_steps(norm, batch, loss, rng)
    meta = {"source": meta["source"], "batch, loss": STEPS, "seed": 3}
    meta |= {"side, width, layers, l1": (SIDE, WIDTH, LAYERS, L1)}
    meta |= {"adam": "2e-4, (0.5, 0.999), 1e-8", "precision": "double"}
    np.savez_compressed(FOLDER / "pix2pix_step.npz", meta=json.dumps(meta), **arrays)


if __name__ == "__main__":
    main()
