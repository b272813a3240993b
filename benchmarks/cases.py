"""What is timed: networks, losses and batch of each case, as configs of gan_jax and the phases of one cycle."""

import copy
import pathlib
from typing import NamedTuple

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[1] / "experiments"


class Case(NamedTuple):
    """One training step, played over whole cycles of its phases."""

    reference: str  # module of `benchmarks.reference` that plays the same; empty where there is none
    config: dict  # of gan_jax; what it leaves out has gan_jax's defaults
    shape: tuple[int, int, int]  # of the images, (H, W, C)
    steps: int  # of a cycle
    phases: dict[str, int]  # name -> every so many steps, in the order in which they are played
    classes: int = 0  # of the labels
    pictures: dict[str, tuple[int, int, int]] = {}  # fields of a batch, of games that make pictures of pictures

    def spec(self):
        """The fields that the game reads."""
        from gan_jax import games, specs

        if not self.pictures:
            return specs.labelled(self.shape, self.classes)
        names = games.find(self.config["game"]).reads(self.config)
        return {name: specs.Field("image", self.pictures[name]) for name in names}

    def cycle(self) -> list[tuple[str, ...]]:
        """The phases that are due at each step of a cycle."""
        return [tuple(name for name, every in self.phases.items() if step % every == 0) for step in range(self.steps)]


def names() -> tuple[str, ...]:
    """The cases there are."""
    return (*_CASES, *_PUBLISHED)


def find(name: str, smoke: bool = False, batch_size: int = 0) -> Case:
    """A case by name, with `smoke` at 8 px with very narrow players, or with another batch than its own."""
    if name in _PUBLISHED:
        case = _published(*_PUBLISHED[name], smoke)
    else:
        case = _shrink(copy.deepcopy(_CASES[name])) if smoke else copy.deepcopy(_CASES[name])
    if batch_size and not smoke:
        case.config["batch_size"] = batch_size
    return case


def _published(experiment: str, variant: str, resolution: int, smoke: bool) -> Case:
    """A paper's own settings at full resolution, on noise; in smoke form those of its experiment's."""
    from gan_jax import games, runs, specs

    config = runs.load_config(f"{EXPERIMENTS / experiment}.py:{'smoke' if smoke else variant}")
    resolution = config.data.resolution if smoke else resolution
    config.data.name, shape = f"synthetic:{resolution}", (resolution, resolution, 3)
    classes = 10 if config.conditional else 0
    run = runs.build(config, specs.labelled(shape, classes))
    config.batch_size = games.stages(run.game, config, run.spec)[-1].batch_size
    phases = {phase.name: phase.every for phase in run.phases}
    return Case("", config.to_dict(), shape, max(phases.values()), phases, classes)


def _dcgan(resolution: int, steps: int) -> Case:
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-8}
    config = {
        "game": "unconditional",
        "batch_size": 64,  # the default of PyTorch's example
        "data": {"name": f"synthetic:{resolution}"},
        "generator": {"name": "dcgan", "latent_size": 100, "width": 64},
        "discriminator": {"name": "dcgan", "width": 64},
        "loss": {"name": "non_saturating"},
        "optim": {"generator": adam, "discriminator": adam},
        "ema": {"half_life_images": 5_000.0},
    }
    phases = {"discriminator": 1, "generator": 1}
    return Case("dcgan_torch", config, (resolution, resolution, 3), steps, phases)


def _stylegan2(resolution: int, channel_base: int, channel_max: int, batch_size: int) -> Case:
    adam = {"name": "adam", "learning_rate": 2.5e-3, "b1": 0.0, "b2": 0.99, "eps": 1e-8}
    width = {"channel_base": channel_base, "channel_max": channel_max}
    config = {
        "game": "style",
        "batch_size": batch_size,
        "data": {"name": f"synthetic:{resolution}"},
        "generator": {"name": "stylegan2", **width},
        "discriminator": {"name": "stylegan2", **width},
        "loss": {"r1_gamma": 0.0002 * resolution**2 / batch_size},
        "every": {"path_length_steps": 4, "penalty_steps": 16},
        "optim": {"generator": adam, "discriminator": adam},
        "ema": {"half_life_images": 10_000.0},
    }
    phases = {"generator": 1, "path_length": 4, "discriminator": 1, "penalty": 16}
    return Case("stylegan2_torch", config, (resolution, resolution, 3), 16, phases)


def _pix2pix(side: int, width: int, batch_size: int) -> Case:
    depth = side.bit_length() - 1
    plain = {"statistics": "running", "dropout": 0.0}
    settings = {"generator": {"name": "pix2pix", "width": width, "depth": depth, **plain},
                "discriminator": {"name": "pix2pix", "width": width, "layers": 2}}  # fmt: skip
    config = _translating("paired", settings, ("generator", "discriminator"), batch_size)
    config["data"] = {"name": f"synthetic:{side}"}
    shape = (side, side, 3)
    phases = {"discriminator": 1, "generator": 1}
    return Case("pictures_torch", config, shape, 4, phases, pictures={"source": shape, "image": shape})


def _cyclegan(side: int, width: int, blocks: int, batch_size: int) -> Case:
    settings = {"generator": {"name": "cyclegan", "width": width, "blocks": blocks},
                "discriminator": {"name": "cyclegan", "width": width, "layers": 2}, "loss": {"pool": 0}}  # fmt: skip
    config = _translating("translation", settings, ("generators", "discriminators"), batch_size)
    config["data"] = {"parts": {part: {"name": f"synthetic:{side}"} for part in ("a", "b")}}
    shape = (side, side, 3)
    phases = {"generators": 1, "discriminators": 1}
    return Case("pictures_torch", config, shape, 2, phases, pictures={"a": shape, "b": shape})


def _translating(game: str, settings: dict, players: tuple[str, ...], batch_size: int) -> dict:
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "eps": 1e-8}
    optim = {player: dict(adam) for player in players}
    return {"game": game, "batch_size": batch_size, "optim": optim, "ema": {"decay": 0.999}, **settings}


def _esrgan(side: int, width: int, blocks: int, growth: int, batch_size: int) -> Case:
    """Large pictures of `side`, whole; the second stage without its perceptual term."""
    adam = {"name": "adam", "learning_rate": 1e-4, "b1": 0.9, "b2": 0.99, "eps": 1e-8}
    config = {
        "game": "super_resolution",
        "batch_size": batch_size,
        "data": {"name": f"synthetic:{side}"},
        "generator": {"name": "esrgan", "width": width, "blocks": blocks, "growth": growth},
        "discriminator": {"name": "esrgan", "width": width, "halvings": 4},
        "loss": {"name": "relativistic_average", "pixel": 1e-2, "adversarial": 5e-3},
        "optim": {"generator": adam, "discriminator": dict(adam)},
        "ema": {"decay": 0.999},
    }
    pictures = {"image": (side, side, 3), "low_resolution": (side // 4, side // 4, 3)}
    return Case("pictures_torch", config, pictures["image"], 2, {"generator": 1, "discriminator": 1}, pictures=pictures)


def _shrink(case: Case) -> Case:
    if case.pictures:
        return _SMALL[case.config["game"]]._replace(steps=2)
    config, (_, _, channels) = case.config, case.shape
    config["batch_size"], config["data"] = 8, {"name": "synthetic:8"}
    config["generator"]["latent_size"] = 8
    if config["game"] == "style":
        config["generator"] |= {"w_size": 8, "mapping_layers": 2}
        config["every"] = {"path_length_steps": 2, "penalty_steps": 2}
        for net in ("generator", "discriminator"):
            config[net] |= {"channel_base": 64, "channel_max": 8}
    else:
        config["generator"]["width"] = config["discriminator"]["width"] = 8
    phases = {name: min(every, 2) for name, every in case.phases.items()}
    return case._replace(shape=(8, 8, channels), steps=2, phases=phases)


_CASES = {
    "stylegan2_32": _stylegan2(32, channel_base=4096, channel_max=128, batch_size=8),
    "dcgan_32": _dcgan(32, steps=8),
    "dcgan_64": _dcgan(64, steps=4),
    "dcgan_128": _dcgan(128, steps=2),
    "pix2pix_64": _pix2pix(64, width=32, batch_size=4),
    "cyclegan_64": _cyclegan(64, width=16, blocks=6, batch_size=2),
    "esrgan_64": _esrgan(64, width=32, blocks=4, growth=16, batch_size=4),
}
_SMALL = {  # with --smoke
    "paired": _pix2pix(16, width=4, batch_size=2),
    "translation": _cyclegan(16, width=4, blocks=1, batch_size=2),
    "super_resolution": _esrgan(32, width=4, blocks=1, growth=2, batch_size=2),
}
_PUBLISHED = {  # name -> experiment, its variant, pixels
    "progan_128": ("celebahq_progan", "128", 128),
    "stylegan2_128": ("stylegan2_ada", "auto_128_1gpu", 128),
    "stylegan2_256": ("stylegan2_ada", "paper256", 256),
    "stylegan2_512": ("stylegan2_ada", "paper512", 512),
    "stylegan2_1024": ("stylegan2_ada", "paper1024", 1024),
    "stylegan3_t_256": ("stylegan3", "t_256", 256),
    "r3gan_cifar10": ("r3gan", "cifar10", 32),
    "r3gan_ffhq256": ("r3gan", "ffhq256", 256),
}
