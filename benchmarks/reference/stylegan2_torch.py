"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958) in plain PyTorch: what `gan_jax` is timed against.

Written from the paper for eager execution: skip generator, residual discriminator, activations scaled by the styles
instead of kernels per sample, low-pass filters as depthwise convolutions. `Trainer` plays one step of the game as
`gan_jax/games/style.py` does, phase by phase with fresh latents, with R1, path length and the averaged generator.
"""

import copy
import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = math.sqrt(2)
NETS = ("generator", "discriminator")


class Dense(nn.Module):
    """Linear layer with an equalized learning rate (Karras et al. 2018), optionally with leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, active: bool = False, rate: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.active, self.rate, self.scale = active, rate, rate / math.sqrt(inputs)

    def forward(self, x):
        x = F.linear(x, self.weight * self.scale, self.bias * self.rate)
        return F.leaky_relu(x, 0.2) * ROOT if self.active else x


class Filter(nn.Module):
    """The low-pass filter [1, 3, 3, 1] of both axes: blurs, shrinks to half, or enlarges to twice the size."""

    def __init__(self):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("taps", taps[:, None] * taps, persistent=False)

    def kernel(self, x, gain=1.0):
        return (self.taps * gain).expand(x.shape[1], 1, 4, 4)

    def forward(self, x, padding: int, stride: int = 1, gain: float = 1.0):
        return F.conv2d(x, self.kernel(x, gain), padding=padding, stride=stride, groups=x.shape[1])

    def enlarge(self, x):
        return F.conv_transpose2d(x, self.kernel(x, 4.0), padding=1, stride=2, groups=x.shape[1])


class Conv(nn.Module):
    """Convolution with an equalized learning rate, optionally shrinking, optionally with bias and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, down: bool = False, active: bool = True, gain=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if active else None
        self.scale, self.size, self.down, self.gain = 1 / math.sqrt(inputs * size * size), size, down, gain
        self.filter = Filter() if down else None

    def forward(self, x):
        scale = self.scale if self.bias is not None else self.scale * self.gain
        if self.down and self.size == 1:
            x = F.conv2d(self.filter(x, padding=1, stride=2), self.weight * scale, self.bias)
        elif self.down:
            x = F.conv2d(self.filter(x, padding=2), self.weight * scale, self.bias, stride=2)
        else:
            x = F.conv2d(x, self.weight * scale, self.bias, padding=self.size // 2)
        if self.bias is None:
            return x
        x = F.leaky_relu(x, 0.2)
        gain = ROOT * self.gain
        return x if abs(gain - 1) < 1e-6 else x * gain


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, optionally enlarging, then noise, bias and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style: int, resolution: int, up: bool):
        super().__init__()
        self.affine = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.filter, self.resolution = Filter() if up else None, resolution

    def forward(self, x, w, noise: str):
        style = self.affine(w)
        demodulation = torch.rsqrt(style.square() @ self.weight.square().sum((2, 3)).T + 1e-8)
        x = x * style[:, :, None, None]
        if self.filter is None:
            x = F.conv2d(x, self.weight, padding=1)
        else:
            x = self.filter(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        x = x * demodulation[:, :, None, None]
        if noise == "random":
            noise_image = torch.randn(len(x), 1, self.resolution, self.resolution, device=x.device)
        else:
            noise_image = self.noise_const
        x = x + noise_image * self.noise_strength + self.bias[:, None, None]
        return F.leaky_relu(x, 0.2) * ROOT


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the image, not demodulated."""

    def __init__(self, inputs: int, channels: int, style: int):
        super().__init__()
        self.affine = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x, w):
        return F.conv2d(x * (self.affine(w) * self.scale)[:, :, None, None], self.weight, self.bias)


class SynthesisBlock(nn.Module):
    """One resolution of the generator: (x, image, styles) -> (x, image)."""

    def __init__(self, inputs: int, outputs: int, style: int, resolution: int, channels: int):
        super().__init__()
        if inputs:
            self.conv0 = StyledConv(inputs, outputs, style, resolution, up=True)
            self.filter = Filter()
        else:
            self.const = nn.Parameter(torch.randn(outputs, 4, 4))
        self.conv1 = StyledConv(outputs, outputs, style, resolution, up=False)
        self.torgb = ToRGB(outputs, channels, style)

    def forward(self, x, image, ws, noise: str):
        if x is None:
            x = self.conv1(self.const.expand(len(ws), -1, -1, -1), ws[:, 0], noise)
            return x, self.torgb(x, ws[:, 1])
        x = self.conv1(self.conv0(x, ws[:, 0], noise), ws[:, 1], noise)
        return x, self.filter.enlarge(image) + self.torgb(x, ws[:, 2])


class Mapping(nn.Module):
    """z (B, latent_size) -> w (B, w_size)."""

    def __init__(self, latent_size: int, w_size: int, layers: int, rate: float, w_avg_beta: float):
        super().__init__()
        for i in range(layers):
            setattr(self, f"fc{i}", Dense(latent_size if i == 0 else w_size, w_size, active=True, rate=rate))
        self.layers, self.beta = layers, w_avg_beta
        self.register_buffer("w_avg", torch.zeros(w_size))

    def forward(self, z, moves: bool = False):
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for i in range(self.layers):
            x = getattr(self, f"fc{i}")(x)
        if moves:
            self.w_avg.copy_(x.detach().mean(0).lerp(self.w_avg, self.beta))
        return x


class Synthesis(nn.Module):
    """ws (B, num_ws, w_size) -> images (B, C, H, W)."""

    def __init__(self, resolution: int, channels: int, style: int, base: int, most: int):
        super().__init__()
        self.sizes = [4 * 2**i for i in range(int(math.log2(resolution)) - 1)]
        for size in self.sizes:
            inputs = min(2 * base // size, most) if size > 4 else 0
            setattr(self, f"b{size}", SynthesisBlock(inputs, min(base // size, most), style, size, channels))

    def forward(self, ws, noise: str = "const"):
        x = image = None
        start = 0
        for size in self.sizes:
            x, image = getattr(self, f"b{size}")(x, image, ws[:, start:], noise)
            start += 1 if size == 4 else 2
        return image


class Generator(nn.Module):
    """z (B, latent_size) -> images (B, C, H, W)."""

    def __init__(self, settings: dict, resolution: int, channels: int):
        super().__init__()
        s = settings
        self.num_ws = 2 * int(math.log2(resolution)) - 2
        self.mapping_network = Mapping(
            s["latent_size"], s["w_size"], s["mapping_layers"], s["mapping_lr_multiplier"], s["w_avg_beta"]
        )
        self.synthesis_network = Synthesis(resolution, channels, s["w_size"], s["channel_base"], s["channel_max"])

    def styles(self, z, moves: bool = False):
        return self.mapping_network(z, moves)[:, None].expand(-1, self.num_ws, -1)

    def forward(self, z, noise: str = "const"):
        return self.synthesis_network(self.styles(z), noise)


class DiscriminatorBlock(nn.Module):
    """One resolution of the residual discriminator: half the size."""

    def __init__(self, features: int, outputs: int, channels: int):
        super().__init__()
        if channels:
            self.fromrgb = Conv(channels, features, 1)
        gain = math.sqrt(0.5)
        self.conv0 = Conv(features, features, 3)
        self.conv1 = Conv(features, outputs, 3, down=True, gain=gain)
        self.skip = Conv(features, outputs, 1, down=True, active=False, gain=gain)

    def forward(self, x):
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        return self.skip(x) + self.conv1(self.conv0(x))


class Epilogue(nn.Module):
    """Standard deviation among groups of neighbouring samples, and the logit."""

    def __init__(self, features: int, group: int):
        super().__init__()
        self.group = group
        self.conv = Conv(features + 1, features, 3)
        self.fc = Dense(features * 16, features, active=True)
        self.out = Dense(features, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        group = min(self.group, b)
        groups = x.reshape(b // group, group, c, h, w)
        spread = (groups.var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        spread = spread.repeat_interleave(group)[:, None, None, None].expand(-1, 1, h, w)
        x = self.conv(torch.cat([x, spread], 1))
        return self.out(self.fc(x.flatten(1)))[:, 0]


class Discriminator(nn.Module):
    """Images (B, C, H, W) -> logits (B,)."""

    def __init__(self, settings: dict, resolution: int, channels: int):
        super().__init__()
        base, most = settings["channel_base"], settings["channel_max"]
        self.sizes = [4 * 2**i for i in range(int(math.log2(resolution)) - 2, 0, -1)]
        for size in self.sizes:
            features, outputs = min(base // size, most), min(2 * base // size, most)
            block = DiscriminatorBlock(features, outputs, channels if size == resolution else 0)
            setattr(self, f"b{size}", block)
        self.b4 = Epilogue(min(base // 4, most), settings["mbstd_group"])

    def forward(self, x):
        for size in self.sizes:
            x = getattr(self, f"b{size}")(x)
        return self.b4(x)


def mix(ws, other, share: float):
    """Style mixing: from a random layer on, a share of the samples has other styles."""
    layers = ws.shape[1]
    start = torch.randint(1, layers, (len(ws),), device=ws.device)
    start = torch.where(torch.rand(len(ws), device=ws.device) < share, start, layers)
    return torch.where((torch.arange(layers, device=ws.device) >= start[:, None])[..., None], other, ws)


class Trainer:
    """Both players with their optimizers and the averaged generator."""

    def __init__(self, config: dict, shape: tuple[int, int, int], *, layout=torch.contiguous_format, compiled=False):
        self.config, self.layout, self.images, self.pl_mean = config, layout, 0, torch.zeros(())
        classes = {"generator": Generator, "discriminator": Discriminator}
        for name in NETS:
            setattr(self, name, classes[name](config[name], shape[0], shape[2]).to(memory_format=layout))
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizers = {
            "generator": self._adam("generator", "path_length_steps"),
            "discriminator": self._adam("discriminator", "penalty_steps"),
        }
        # Compiled functions have no second derivatives: the penalties stay eager.
        wrap = functools.partial(torch.compile, dynamic=False) if compiled else lambda module: module
        self.synthesis, self.judge = wrap(self.generator.synthesis_network), wrap(self.discriminator)

    def _adam(self, name: str, period: str) -> torch.optim.Adam:
        settings, every = self.config["optim"][name], self.config["every"][period]
        c = every / (every + 1)  # corrects for the lazy steps of the same optimizer, appendix B
        betas = (settings["b1"] ** c, settings["b2"] ** c)
        rate = settings["learning_rate"] * c
        return torch.optim.Adam(getattr(self, name).parameters(), rate, betas, settings["eps"], fused=True)

    def load(self, weights: dict[str, dict[str, np.ndarray]]) -> None:
        """Takes over gan_jax's arrays, {net: {path: array}}."""
        for name in NETS:
            state = dict(convert(path, value) for path, value in weights[name].items())
            getattr(self, name).load_state_dict(state)
        self.averaged.load_state_dict(self.generator.state_dict())

    def outputs(self, z, images) -> dict[str, torch.Tensor]:
        """Images of the averaged generator, and logits."""
        with torch.no_grad():
            return {"images": self.averaged(z), "logits": self.discriminator(images)}

    def step(self, images, due: tuple[str, ...], draws: dict | None = None) -> dict[str, torch.Tensor]:
        """Plays the phases that are due on real images (B, C, H, W), uint8; the loss and more of each.

        `draws` are the latents `<phase>/z` and the direction `path_length/noise`, without mixing and random noise; the
        norms of gradients are then measured too.
        """
        self.draws, metrics = draws, {}
        real = (images.float() / 127.5 - 1).contiguous(memory_format=self.layout)
        for phase in due:
            player = "generator" if phase in ("generator", "path_length") else "discriminator"
            for name in NETS:
                getattr(self, name).requires_grad_(name == player)
            optimizer = self.optimizers[player]
            optimizer.zero_grad(set_to_none=True)
            loss, measured = getattr(self, f"_{phase}")(real)
            loss.backward()
            if draws is None:
                optimizer.step()
            else:
                measured |= norms_of_step(optimizer)
            metrics |= {f"{phase}/{key}": value.detach() for key, value in {"loss": loss, **measured}.items()}
        self._average(len(images))
        self.images += len(images)
        return metrics

    def _styles(self, phase: str, count: int):
        size = self.config["generator"]["latent_size"]
        if self.draws is not None:
            return self.generator.styles(self.draws[f"{phase}/z"], moves=True)
        ws = self.generator.styles(torch.randn(count, size), moves=True)
        share = self.config["style"]["mixing"]
        return mix(ws, self.generator.styles(torch.randn(count, size)), share) if share else ws

    def _noise(self) -> str:
        return "random" if self.draws is None else "const"

    def _generator(self, real):
        logits = self.judge(self.synthesis(self._styles("generator", len(real)), self._noise()))
        return F.softplus(-logits).mean(), {}

    def _path_length(self, real):
        settings, (b, _, h, w) = self.config["loss"], real.shape
        ws = self._styles("path_length", b // settings["path_length_shrink"])
        images = self.generator.synthesis_network(ws, self._noise())
        noise = torch.randn_like(images) if self.draws is None else self.draws["path_length/noise"]
        total = (images * noise).sum() / math.sqrt(h * w)
        (grads,) = torch.autograd.grad(total, ws, create_graph=True)
        lengths = grads.square().sum(2).mean(1).sqrt()
        target = self.pl_mean.lerp(lengths.mean(), settings["path_length_decay"])
        self.pl_mean = target.detach()
        loss = settings["path_length_weight"] * (lengths - target).square().mean()
        return loss * self.config["every"]["path_length_steps"], {"length": lengths.mean()}

    def _discriminator(self, real):
        with torch.no_grad():
            fake = self.synthesis(self._styles("discriminator", len(real)), self._noise())
        return F.softplus(self.judge(fake)).mean() + F.softplus(-self.judge(real)).mean(), {}

    def _penalty(self, real):
        real = real.detach().requires_grad_(True)
        (grads,) = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
        r1 = 0.5 * self.config["loss"]["r1_gamma"] * grads.square().sum((1, 2, 3)).mean()
        return r1 * self.config["every"]["penalty_steps"], {"r1": r1}

    @torch.no_grad()
    def _average(self, count: int) -> None:
        half_life = self.config["ema"]["half_life_images"]
        decay = 0.5 ** (count / half_life) if half_life else 0.0
        averaged, live = list(self.averaged.parameters()), list(self.generator.parameters())
        torch._foreach_lerp_(averaged, live, 1 - decay)
        self.averaged.mapping_network.w_avg.copy_(self.generator.mapping_network.w_avg)


def norms_of_step(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Takes the optimizer's step: the norms of the gradient and of what it changes."""
    moved = [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]
    before = [p.detach().clone() for p in moved]
    grad_norm = nn.utils.get_total_norm([p.grad for p in moved])
    optimizer.step()
    update = [p.detach() - old for p, old in zip(moved, before, strict=True)]
    return {"grad_norm": grad_norm, "update_norm": nn.utils.get_total_norm(update)}


def convert(path: str, value: np.ndarray) -> tuple[str, torch.Tensor]:
    """One of gan_jax's arrays under this file's name and in its layout."""
    *layers, name = path.split("/")
    if name == "kernel" and value.ndim == 4:
        name, value = "weight", value.transpose(3, 2, 0, 1)
    elif name == "kernel":
        if layers == ["b4", "fc"]:  # flattened features: (H, W, C) there, (C, H, W) here
            value = value.reshape(4, 4, -1, value.shape[1]).transpose(2, 0, 1, 3).reshape(value.shape)
        name, value = "weight", value.T
    elif name == "const":
        value = value.transpose(2, 0, 1)
    return ".".join((*layers, name)), torch.tensor(np.ascontiguousarray(value))
