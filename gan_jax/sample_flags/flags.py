"""What the flags of `sample` are, as they were given."""

import math
import re
from typing import Any, NamedTuple

import numpy as np

from gan_jax import config as configs
from gan_jax import games
from gan_jax.errors import UserError

MOST = 1_000_000  # numbers in one range of --seeds
GAME_FLAGS = ("direction",)  # that some games have config keys for, see `games`: SAMPLE_KEYS


class Flags(NamedTuple):
    """What to draw."""

    seeds: str = ""  # one image or clip each; 0-63
    labels: str = ""  # classes, by number or name, repeated over the seeds; needs a conditional run
    truncation: str = ""  # PSI or PSI,CUTOFF: of all layers, or of the first ones; for models with styles
    noise: str = ""  # const, random of each seed, none; for models with noise inputs
    interpolate: int = 0  # frames between each two seeds; 0 for still images
    interpolate_in: str = ""  # z, along great circles, or w, linearly
    animation: str = ""  # gif, apng or mp4, of an interpolation or of clips
    fps: int | None = None  # its frames in a second; None for `images.FPS`, of clips `images.CLIP_FPS`
    style_mixing: str = ""  # ROWS:COLUMNS[:LAYERS], see `latents.mix`
    dlatents: str = ""  # file with styles, see `latents.load`
    save_dlatents: bool = False  # write the styles of the seeds too
    direction: str = ""  # ab or ba, of a game that translates in both; else the config's
    inputs: str = ""  # a picture or film, or a folder or .zip of such, of a game that draws from these
    tile: int | None = None  # of a game that enlarges, see `enlarge.Settings`
    scale: float | None = None
    format: str = ""  # see `enlarge_files.Output`
    quality: int | None = None
    masks: str = ""  # with --inputs, of a game that fills holes: a mask, or a folder or .zip of such, white in the hole


class Mixing(NamedTuple):
    """A table of images with two sources of styles each."""

    rows: int  # so many of the seeds, the rest are the columns
    layers: np.ndarray  # (L,), those whose styles are the column's


class Job(NamedTuple):
    """What `Flags` mean for a run."""

    flags: Flags
    seeds: np.ndarray  # (N,), of latents and noise
    labels: np.ndarray | None  # (N,); None where styles are given
    options: dict[str, Any]  # of `halves`; empty for a generator without styles
    ws: np.ndarray | None  # styles (N, num_ws, w_size) of a file
    mark: str  # that file names begin with
    mixing: Mixing | None
    given: dict[str, np.ndarray] = {}  # field -> (N, ...), of a game that draws from pictures
    names: tuple[str, ...] = ()  # (N,), of the files of its images


def override(flags: Flags, config) -> None:
    """Puts flags that a game has keys for, see `games`, in the place of the config's values.

    Raises:
      UserError: a flag that this game has no key for, or a value that is of another type.
    """
    keys = getattr(games.find(config.game), "SAMPLE_KEYS", {})
    for flag in GAME_FLAGS:
        text = getattr(flags, flag)
        if text and flag not in keys:
            raise UserError(f"--{flag}={text}: the game {config.game!r} has no {flag}; leave it out")
        if text:
            configs.override(config, keys[flag], text)


def overrides(flags: Flags) -> str:
    """The flags that `override` heeds, as they were given, for a message; empty where there are none."""
    return " ".join(f"--{flag}={getattr(flags, flag)}" for flag in GAME_FLAGS if getattr(flags, flag))


def truncation(text: str) -> tuple[float, int | None]:
    """Reads `0.7` or `0.7,8`."""
    text = text or "1"
    psi, comma, cutoff = text.partition(",")
    try:
        psi, cutoff = float(psi), int(cutoff) if comma else None
    except ValueError:
        psi = math.nan
    if not math.isfinite(psi):
        raise UserError(f"--truncation={text}: expected a number, or a number and a count of layers, such as 0.7,8")
    return psi, cutoff


def numbers(flag: str, text: str) -> np.ndarray:
    """Reads `0-63`, `1,5,9` or a mixture of both. Raises UserError otherwise. int64 (N,)."""
    values: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]) or int(match[2] or match[1]) >= 2**32:
            raise UserError(f"--{flag}={text}: expected whole numbers such as 0-63 or 1,5,9")
        if int(match[2] or match[1]) - int(match[1]) >= MOST:
            raise UserError(f"--{flag}={text}: {part} is too long a range; give at most {MOST} at a time")
        values += range(int(match[1]), int(match[2] or match[1]) + 1)
    return np.array(values, np.int64)


def shown(flags: Flags, name: str) -> str:
    """A flag as it was given."""
    value = getattr(flags, name)
    return f"--{name}" if value is True else f"--{name}={value}"
