"""DCGAN (Radford et al. 2015) in plain PyTorch, the network of PyTorch's examples: what `gan_jax` is timed against."""

import copy
import functools
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.reference.stylegan2_torch import norms_of_step

NETS = ("generator", "discriminator")


def generator(settings: dict, resolution: int, channels: int) -> nn.Sequential:
    """z (B, latent_size, 1, 1) -> images (B, C, H, W)."""
    features = _features(settings["width"], resolution)[::-1]
    layers = [("stem", nn.ConvTranspose2d(settings["latent_size"], features[0], 4, bias=False))]
    layers += _norm("stem", features[0], nn.ReLU(inplace=True))
    for i, (inputs, outputs) in enumerate(zip(features, features[1:], strict=False)):
        layers.append((f"up{i}", nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)))
        layers += _norm(f"up{i}", outputs, nn.ReLU(inplace=True))
    layers.append(("image", nn.ConvTranspose2d(features[-1], channels, 4, 2, 1, bias=False)))
    return nn.Sequential(OrderedDict([*layers, ("tanh", nn.Tanh())]))


def discriminator(settings: dict, resolution: int, channels: int) -> nn.Sequential:
    """Images (B, C, H, W) -> logits (B,)."""
    features = _features(settings["width"], resolution)
    layers = [("down0", nn.Conv2d(channels, features[0], 4, 2, 1, bias=False))]
    layers.append(("down0_act", nn.LeakyReLU(0.2, inplace=True)))
    for i, (inputs, outputs) in enumerate(zip(features, features[1:], strict=False), 1):
        layers.append((f"down{i}", nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)))
        layers += _norm(f"down{i}", outputs, nn.LeakyReLU(0.2, inplace=True))
    layers.append(("head", nn.Conv2d(features[-1], 1, 4, bias=False)))
    return nn.Sequential(OrderedDict([*layers, ("flat", nn.Flatten(0))]))


def _features(width: int, resolution: int) -> list[int]:
    return [width * 2**i for i in range(resolution.bit_length() - 3)]


def _norm(name: str, features: int, activation: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{name}_norm", nn.BatchNorm2d(features)), (f"{name}_act", activation)]


class Trainer:
    """Both players with their optimizers and the averaged generator."""

    def __init__(
        self,
        config: dict,
        shape: tuple[int, int, int],
        *,
        layout=torch.contiguous_format,
        compiled: bool = False,
        device: str = "cpu",
        shared_fakes: bool = False,  # the generator learns from the images that the discriminator has just seen
    ):
        self.config, self.layout, self.shared_fakes, self.fake = config, layout, shared_fakes, None
        self.device = device
        self.generator = generator(config["generator"], shape[0], shape[2]).to(device, memory_format=layout)
        self.discriminator = discriminator(config["discriminator"], shape[0], shape[2]).to(device, memory_format=layout)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.optimizers = {name: self._adam(name) for name in NETS}
        wrap = functools.partial(torch.compile, dynamic=False) if compiled else lambda module: module
        self.paint, self.judge = wrap(self.generator), wrap(self.discriminator)

    def _adam(self, name: str) -> torch.optim.Adam:
        settings = self.config["optim"][name]
        betas = (settings["b1"], settings["b2"])
        rate = settings["learning_rate"]
        return torch.optim.Adam(getattr(self, name).parameters(), rate, betas, settings["eps"], fused=True)

    def load(self, weights: dict[str, dict[str, np.ndarray]]) -> None:
        """Takes over gan_jax's arrays, {net: {path: array}}."""
        for name in NETS:
            state = dict(convert(path, value, name) for path, value in weights[name].items())
            _, unexpected = getattr(self, name).load_state_dict(state, strict=False)
            missing = set(getattr(self, name).state_dict()) - set(state)
            assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing), (missing, unexpected)
        self.averaged.load_state_dict(self.generator.state_dict())

    def outputs(self, z, images) -> dict[str, torch.Tensor]:
        """Images of the averaged generator, and logits, both with the running statistics."""
        with torch.no_grad():
            logits = self.discriminator.eval()(images)
            self.discriminator.train()
            return {"images": self.averaged(z[:, :, None, None]), "logits": logits}

    def step(self, images, due: tuple[str, ...], draws: dict | None = None) -> dict[str, torch.Tensor]:
        """Plays the phases that are due on real images (B, C, H, W), uint8; the loss of each.

        `draws` are the latents `z` of both phases; the norms of gradient and update are then measured.
        """
        self.draws, metrics = draws, {}
        real = (images.float() / 127.5 - 1).contiguous(memory_format=self.layout)
        for phase in due:
            optimizer = self.optimizers[phase]
            self.discriminator.requires_grad_(phase == "discriminator")
            optimizer.zero_grad(set_to_none=True)
            loss = getattr(self, f"_{phase}")(real)
            loss.backward()
            metrics[f"{phase}/loss"] = loss.detach()
            if draws is None:
                optimizer.step()
            else:
                metrics |= {f"{phase}/{name}": value for name, value in norms_of_step(optimizer).items()}
        self._average(len(images))
        return metrics

    def _fakes(self, count: int):
        size = self.config["generator"]["latent_size"]
        z = torch.randn(count, size, device=self.device) if self.draws is None else self.draws["z"]
        return self.paint(z[:, :, None, None])

    def _discriminator(self, real):
        with torch.set_grad_enabled(self.shared_fakes):
            self.fake = self._fakes(len(real))
        real_logits, fake_logits = self.judge(real), self.judge(self.fake.detach())
        ones = torch.ones_like(real_logits)
        return F.binary_cross_entropy_with_logits(real_logits, ones) + F.binary_cross_entropy_with_logits(
            fake_logits, torch.zeros_like(ones)
        )

    def _generator(self, real):
        fake = self.fake if self.shared_fakes and self.draws is None else self._fakes(len(real))
        logits = self.judge(fake)
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    @torch.no_grad()
    def _average(self, count: int) -> None:
        half_life = self.config["ema"]["half_life_images"]
        decay = 0.5 ** (count / half_life) if half_life else 0.0
        averaged, live = self.averaged.state_dict(), self.generator.state_dict()
        names = [name for name, value in live.items() if value.is_floating_point()]
        torch._foreach_lerp_([averaged[n] for n in names], [live[n] for n in names], 1 - decay)


def convert(path: str, value: np.ndarray, net: str) -> tuple[str, torch.Tensor]:
    """One of gan_jax's arrays under this file's name and in its layout."""
    *layers, name = path.split("/")
    if name == "kernel":
        name, value = "weight", value.transpose((2, 3, 0, 1) if net == "generator" else (3, 2, 0, 1))
    name = {"scale": "weight", "mean": "running_mean", "var": "running_var"}.get(name, name)
    return ".".join((*layers, name)), torch.tensor(np.ascontiguousarray(value))
