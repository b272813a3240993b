"""pix2pix, CycleGAN and ESRGAN in plain PyTorch: what `gan_jax` is timed against where pictures come of pictures.

Written from the papers, with the order of passes of their authors' programs: the fake of a step is made once. Without
dropout, image pools and perceptual terms, which cost both sides the same or nothing.
"""

import copy
import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.reference.stylegan2_torch import norms_of_step


class _Net(nn.Module):
    """Layers by the names that gan_jax gives them; a path's parts are modules in one another."""

    def __init__(self, layers: dict[str, nn.Module]):
        super().__init__()
        for path, layer in layers.items():
            *outer, name = path.split("/")
            parent = self
            for part in outer:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = getattr(parent, part)
            parent.add_module(name, layer)
        self.layers = layers  # the same ones, by their paths

    def apply_to(self, path: str, x: torch.Tensor) -> torch.Tensor:
        """A layer's output; its norm is that of `<path>_norm`, where there is one."""
        x = self.layers[path](x)
        norm = self.layers.get(f"{path}_norm")
        return x if norm is None else norm(x)


def _norm(kind: str, features: int) -> nn.Module:
    return nn.BatchNorm2d(features) if kind == "batch" else nn.InstanceNorm2d(features)


class Unet(_Net):
    """pix2pix's generator: x (B, C, H, W) -> the same of `channels`, by as many halvings as `depth`."""

    def __init__(self, settings: dict, inputs: int, channels: int):
        width, self.depth, kind = settings["width"], settings["depth"], settings["norm"]
        features = [width * min(2**i, 8) for i in range(self.depth)]
        layers: dict[str, nn.Module] = {}
        for i, outputs in enumerate(features):
            layers[f"down{i}"] = nn.Conv2d(features[i - 1] if i else inputs, outputs, 4, 2, 1, bias=kind != "batch")
            if 0 < i < self.depth - 1:
                layers[f"down{i}_norm"] = _norm(kind, outputs)
        for i in reversed(range(self.depth)):
            sees = features[i] * (1 if i == self.depth - 1 else 2)
            outputs = features[i - 1] if i else channels
            layers[f"up{i}"] = nn.ConvTranspose2d(sees, outputs, 4, 2, 1, bias=kind != "batch" or not i)
            if i:
                layers[f"up{i}_norm"] = _norm(kind, outputs)
        super().__init__(layers)

    def forward(self, x):
        """The picture of a source."""
        skips = []
        for i in range(self.depth):
            if i:
                skips.append(x)
                x = F.leaky_relu(x, 0.2)
            x = self.apply_to(f"down{i}", x)
        for i in reversed(range(1, self.depth)):
            x = torch.cat([skips.pop(), self.apply_to(f"up{i}", F.relu(x))], 1)
        return torch.tanh(self.layers["up0"](F.relu(x)))


class ResNet(_Net):
    """CycleGAN's generator: two halvings, residual blocks, two doublings, reflected borders."""

    def __init__(self, settings: dict, inputs: int, channels: int):
        width, self.blocks, kind = settings["width"], settings["blocks"], settings["norm"]
        bias = kind != "batch"
        layers: dict[str, nn.Module] = {"stem": nn.Conv2d(inputs, width, 7, bias=bias)}
        layers |= {f"down{i}": nn.Conv2d(width * 2**i, width * 2 ** (i + 1), 3, 2, 1, bias=bias) for i in range(2)}
        halves = [(f"block{i}/conv{j}", f"block{i}/norm{j}") for i in range(self.blocks) for j in range(2)]
        for conv, norm in halves:
            layers |= {conv: nn.Conv2d(4 * width, 4 * width, 3, bias=bias), norm: _norm(kind, 4 * width)}
        for i, features in enumerate((2 * width, width)):
            layers[f"up{i}"] = nn.ConvTranspose2d(2 * features, features, 3, 2, 1, 1, bias=bias)
        for name, features in (("stem", width), ("down0", 2 * width), ("down1", 4 * width), ("up0", 2 * width),
                               ("up1", width)):  # fmt: skip
            layers[f"{name}_norm"] = _norm(kind, features)
        super().__init__(layers | {"image": nn.Conv2d(width, channels, 7)})

    def forward(self, x):
        """The picture in the other domain."""
        x = F.relu(self.apply_to("stem", F.pad(x, (3,) * 4, "reflect")))
        for i in range(2):
            x = F.relu(self.apply_to(f"down{i}", x))
        for i in range(self.blocks):
            y = x
            for j in range(2):
                y = self.layers[f"block{i}/norm{j}"](self.layers[f"block{i}/conv{j}"](F.pad(y, (1,) * 4, "reflect")))
                y = y if j else F.relu(y)
            x = x + y
        for i in range(2):
            x = F.relu(self.apply_to(f"up{i}", x))
        return torch.tanh(self.layers["image"](F.pad(x, (3,) * 4, "reflect")))


class Patches(_Net):
    """The patch discriminator of both."""

    def __init__(self, settings: dict, inputs: int):
        width, self.count, kind = settings["width"], settings["layers"], settings["norm"]
        layers: dict[str, nn.Module] = {}
        for i in range(self.count + 1):
            outputs = width * min(2**i, 8)
            layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, 4, 2 if i < self.count else 1, 1,
                                           bias=kind != "batch" or not i)  # fmt: skip
            layers |= {f"conv{i}_norm": _norm(kind, outputs)} if i else {}
            inputs = outputs
        super().__init__(layers | {"head": nn.Conv2d(inputs, 1, 4, 1, 1)})

    def forward(self, x):
        """Logits of patches."""
        for i in range(self.count + 1):
            x = F.leaky_relu(self.apply_to(f"conv{i}", x), 0.2)
        return self.layers["head"](x)


class Rrdb(_Net):
    """ESRGAN's generator, which enlarges by four."""

    def __init__(self, settings: dict, channels: int):
        width, growth, self.blocks = settings["width"], settings["growth"], settings["blocks"]

        def conv(inputs, outputs):
            return nn.Conv2d(inputs, outputs, 3, 1, 1)

        layers: dict[str, nn.Module] = {"stem": conv(channels, width)}
        for i in range(self.blocks):
            for j in range(1, 4):
                sizes = [(width + k * growth, growth if k < 4 else width) for k in range(5)]
                layers |= {f"block{i}/dense{j}/conv{k + 1}": conv(*size) for k, size in enumerate(sizes)}
        layers |= {name: conv(width, width) for name in ("trunk", "up0", "up1", "last")}
        super().__init__(layers | {"image": conv(width, channels)})

    def _dense(self, path: str, x):
        seen = [x]
        for k in range(1, 5):
            seen.append(F.leaky_relu(self.layers[f"{path}/conv{k}"](torch.cat(seen, 1)), 0.2))
        return x + 0.2 * self.layers[f"{path}/conv5"](torch.cat(seen, 1))

    def forward(self, x):
        """The large picture."""
        first = y = self.layers["stem"](x)
        for i in range(self.blocks):
            z = y
            for j in range(1, 4):
                z = self._dense(f"block{i}/dense{j}", z)
            y = y + 0.2 * z
        x = first + self.layers["trunk"](y)
        for i in range(2):
            x = F.leaky_relu(self.layers[f"up{i}"](F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.layers["image"](F.leaky_relu(self.layers["last"](x), 0.2))


class Vgg(_Net):
    """ESRGAN's discriminator of pictures of one size."""

    def __init__(self, settings: dict, side: int, channels: int):
        self.halvings, layers, inputs = settings["halvings"], {}, channels
        for i in range(self.halvings):
            outputs = settings["width"] * min(2**i, 8)
            for name, kernel, stride in ((f"conv{i}_0", 3, 1), (f"conv{i}_1", 4, 2)):
                is_first = name == "conv0_0"
                layers[name] = nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=is_first)
                layers |= {} if is_first else {f"{name}_norm": nn.BatchNorm2d(outputs)}
                inputs = outputs
        last = inputs * (side // 2**self.halvings) ** 2
        super().__init__(
            layers | {"hidden": nn.Linear(last, settings["hidden"]), "head": nn.Linear(settings["hidden"], 1)}
        )

    def forward(self, x):
        """Logits (B,)."""
        for i in range(self.halvings):
            for j in range(2):
                x = F.leaky_relu(self.apply_to(f"conv{i}_{j}", x), 0.2)
        return self.layers["head"](F.leaky_relu(self.layers["hidden"](x.flatten(1)), 0.2))[:, 0]


class _Trainer:
    """What the three share: nets with weights of gan_jax, optimizers, averages, and a step's phases in order."""

    averaged_nets: tuple[str, ...] = ("generator",)

    def __init__(self, config: dict, shapes: dict, *, layout=torch.contiguous_format, compiled: bool = False):
        self.config, self.layout = config, layout
        self.nets = {name: net.to(memory_format=layout) for name, net in self.build(shapes).items()}
        self.averages = {n: copy.deepcopy(self.nets[n]).requires_grad_(False).eval() for n in self.averaged_nets}
        wrap = functools.partial(torch.compile, dynamic=False) if compiled else lambda net: net
        self.play = {name: wrap(net) for name, net in self.nets.items()}
        self.optimizers = {player: self._adam(player) for player in config["optim"]}

    def _of(self, player: str) -> list[nn.Module]:
        return [net for name, net in self.nets.items() if name.startswith(player.removesuffix("s"))]

    def _adam(self, player: str) -> torch.optim.Adam:
        settings = self.config["optim"][player]
        betas, rate = (settings["b1"], settings["b2"]), settings["learning_rate"]
        parameters = [p for net in self._of(player) for p in net.parameters()]
        return torch.optim.Adam(parameters, rate, betas, settings["eps"], fused=True)

    def load(self, weights: dict[str, dict[str, np.ndarray]]) -> None:
        """Takes over gan_jax's arrays, {net: {path: array}}."""
        for name, arrays in weights.items():
            net = self.nets[name]
            state = dict(_convert(path, value, net) for path, value in arrays.items())
            missing, unexpected = net.load_state_dict(state, strict=False)
            assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing), (missing, unexpected)
        for name, net in self.averages.items():
            net.load_state_dict(self.nets[name].state_dict())

    def outputs(self, batch: dict) -> dict[str, torch.Tensor]:
        """Pictures of the averaged generator, and logits, both with running statistics."""
        with torch.no_grad():
            x = self.prepared(batch)
            for net in self.nets.values():
                net.eval()
            result = self.shown(x)
            for net in self.nets.values():
                net.train()
            return result

    def step(self, batch: dict, due: tuple[str, ...], draws: dict | None = None) -> dict[str, torch.Tensor]:
        """Plays the phases; the loss of each, and the norms of gradient and update where `draws` are given."""
        x, metrics = self.prepared(batch), {}
        for phase in due:
            optimizer = self.optimizers[phase]
            for player in self.optimizers:
                for net in self._of(player):
                    net.requires_grad_(player == phase)
            optimizer.zero_grad(set_to_none=True)
            loss = getattr(self, f"_{phase}")(x)
            loss.backward()
            metrics[f"{phase}/loss"] = loss.detach()
            if draws is None:
                optimizer.step()
            else:
                metrics |= {f"{phase}/{name}": value for name, value in norms_of_step(optimizer).items()}
        self._average()
        return metrics

    @torch.no_grad()
    def _average(self) -> None:
        for name, net in self.averages.items():
            live, averaged = self.nets[name].state_dict(), net.state_dict()
            keys = [key for key, value in live.items() if value.is_floating_point()]
            torch._foreach_lerp_([averaged[k] for k in keys], [live[k] for k in keys], 1 - self.config["ema"]["decay"])

    def prepared(self, batch: dict) -> dict[str, torch.Tensor]:
        """Pictures as the nets take them."""
        return {name: (x.float() / 127.5 - 1).contiguous(memory_format=self.layout) for name, x in batch.items()}


class Paired(_Trainer):
    """pix2pix: the discriminator first, of source and picture."""

    def build(self, shapes: dict) -> dict[str, nn.Module]:
        """Both nets."""
        (_, _, inputs), (_, _, channels) = shapes["source"], shapes["image"]
        return {
            "generator": Unet(self.config["generator"], inputs, channels),
            "discriminator": Patches(self.config["discriminator"], inputs + channels),
        }

    def shown(self, x):
        """See `outputs`."""
        logits = self.nets["discriminator"](torch.cat([x["source"], x["image"]], 1))
        return {"images": self.averages["generator"](x["source"]), "logits": logits}

    def step(self, batch, due, draws=None):
        """See `_Trainer.step`; the generator plays once, with its gradient."""
        self.fake = None
        return super().step(batch, due, draws)

    def _fake(self, x):
        self.nets["generator"].requires_grad_(True)
        if self.fake is None:
            self.fake = self.play["generator"](x["source"])
        return self.fake

    def _discriminator(self, x):
        fake = self.play["discriminator"](torch.cat([x["source"], self._fake(x).detach()], 1))
        real = self.play["discriminator"](torch.cat([x["source"], x["image"]], 1))
        return self.config["loss"]["discriminator"] * (F.softplus(-real).mean() + F.softplus(fake).mean())

    def _generator(self, x):
        fake = self._fake(x)
        logits = self.play["discriminator"](torch.cat([x["source"], fake], 1))
        return F.softplus(-logits).mean() + self.config["loss"]["l1"] * F.l1_loss(fake, x["image"])


class Translation(_Trainer):
    """CycleGAN: both generators, then both discriminators on the same fakes."""

    averaged_nets = ("generator_ab", "generator_ba")

    def build(self, shapes: dict) -> dict[str, nn.Module]:
        """The four nets."""
        channels = shapes["a"][2]
        generators = {name: ResNet(self.config["generator"], channels, channels) for name in self.averaged_nets}
        return generators | {f"discriminator_{d}": Patches(self.config["discriminator"], channels) for d in "ab"}

    def shown(self, x):
        """See `outputs`."""
        return {"images": self.averages["generator_ab"](x["a"]), "logits": self.nets["discriminator_b"](x["b"])}

    def _generators(self, x):
        loss, settings, self.fakes = 0.0, self.config["loss"], {}
        for domain, other in ("ab", "ba"):
            there, back = self.play[f"generator_{domain}{other}"], self.play[f"generator_{other}{domain}"]
            self.fakes[other] = there(x[domain])
            weight = settings[f"cycle_{domain}"]
            loss = loss + weight * F.l1_loss(back(self.fakes[other]), x[domain])
            loss = loss + weight * settings["identity"] * F.l1_loss(back(x[domain]), x[domain])
        for domain, fake in self.fakes.items():
            loss = loss + (self.play[f"discriminator_{domain}"](fake) - 1).square().mean()
        return loss

    def _discriminators(self, x):
        loss = 0.0
        for domain, fake in self.fakes.items():
            judge = self.play[f"discriminator_{domain}"]
            loss = loss + 0.5 * ((judge(x[domain]) - 1).square().mean() + judge(fake.detach()).square().mean())
        return loss


class SuperResolution(_Trainer):
    """ESRGAN: the generator first; the discriminator then sees what it made before its update."""

    def build(self, shapes: dict) -> dict[str, nn.Module]:
        """Both nets."""
        side, _, channels = shapes["image"]
        return {
            "generator": Rrdb(self.config["generator"], channels),
            "discriminator": Vgg(self.config["discriminator"], side, channels),
        }

    def prepared(self, batch):
        """Pictures in [0, 1]."""
        return {name: (x.float() / 255).contiguous(memory_format=self.layout) for name, x in batch.items()}

    def shown(self, x):
        """See `outputs`."""
        images = 2 * self.averages["generator"](x["low_resolution"]) - 1
        return {"images": images, "logits": self.nets["discriminator"](x["image"])}

    def _generator(self, x):
        settings, judge = self.config["loss"], self.play["discriminator"]
        self.fake = self.play["generator"](x["low_resolution"])
        real, fake = judge(x["image"]).detach(), judge(self.fake)
        adversarial = 0.5 * (F.softplus(real - fake.mean()).mean() + F.softplus(real.mean() - fake).mean())
        return settings["pixel"] * F.l1_loss(self.fake, x["image"]) + settings["adversarial"] * adversarial

    def _discriminator(self, x):
        judge, fake = self.play["discriminator"], self.fake.detach()
        with torch.no_grad():
            mean = judge(fake).mean()
        real, fake = judge(x["image"]), judge(fake)
        return 0.5 * (F.softplus(mean - real).mean() + F.softplus(fake - real.mean().detach()).mean())


TRAINERS = {"paired": Paired, "translation": Translation, "super_resolution": SuperResolution}


def Trainer(config: dict, shapes: dict, **options) -> _Trainer:  # noqa: N802, as the other references call it
    """The trainer of the config's game."""
    return TRAINERS[config["game"]](config, shapes, **options)


def _convert(path: str, value: np.ndarray, net: _Net) -> tuple[str, torch.Tensor]:
    """One of gan_jax's arrays under PyTorch's name and in its layout."""
    layer, _, name = path.rpartition("/")
    if name == "kernel" and value.ndim == 4:
        is_transposed = isinstance(net.layers[layer], nn.ConvTranspose2d)
        name, value = "weight", value.transpose((2, 3, 0, 1) if is_transposed else (3, 2, 0, 1))
    elif name == "kernel":
        name, value = "weight", value.T
    name = {"scale": "weight", "mean": "running_mean", "var": "running_var"}.get(name, name)
    return f"{layer.replace('/', '.')}.{name}", torch.tensor(np.ascontiguousarray(value))
