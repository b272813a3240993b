"""The flags of `sample`: what they mean for a run, and which of them it has no use for."""

import difflib
import math
import re
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax import config as configs
from gan_jax import enlarge, enlarge_files, fill_files, games, images, latents, runs, specs
from gan_jax.errors import UserError
from gan_jax.models.stylegan2 import NOISE

MOST = 1_000_000  # numbers in one range of --seeds
MOST_FPS = {"gif": 50, "mp4": 240}  # faster GIFs are slow in browsers
COARSE = 7  # layers whose styles are the column's by default
GAME_FLAGS = ("direction",)  # that some games have config keys for, see `games`: SAMPLE_KEYS
CONFLICTS = (
    ("style_mixing", "seeds", "it names its own seeds"),
    ("style_mixing", "interpolate", "they are two pictures"),
    ("style_mixing", "dlatents", "it makes its own styles"),
    ("style_mixing", "save_dlatents", "the file is that of --seeds"),
    ("interpolate", "save_dlatents", "the file is that of still images"),
    ("dlatents", "seeds", "the file holds the styles"),
    ("dlatents", "labels", "labels are in its styles already"),
    ("dlatents", "truncation", "its styles are taken as they are"),
)


class Flags(NamedTuple):
    """What to draw."""

    seeds: str = ""  # one image each; 0-63
    labels: str = ""  # classes, by number or name, repeated over the seeds; needs a conditional run
    truncation: str = ""  # PSI or PSI,CUTOFF: of all layers, or of the first ones; for models with styles
    noise: str = ""  # const, random of each seed, none; for models with noise inputs
    interpolate: int = 0  # frames between each two seeds; 0 for still images
    interpolate_in: str = ""  # z, along great circles, or w, linearly
    animation: str = ""  # gif or mp4, of an interpolation
    fps: int | None = None  # its frames in a second; None for `images.FPS`
    style_mixing: str = ""  # ROWS:COLUMNS[:LAYERS], see `latents.mix`
    dlatents: str = ""  # file with styles, see `latents.load`
    save_dlatents: bool = False  # write the styles of the seeds too
    direction: str = ""  # ab or ba, of a game that translates in both; else the config's
    inputs: str = ""  # a picture, or a folder or .zip of such, of a game that draws from pictures
    tile: int | None = None  # of a game that enlarges, see `enlarge.Settings`
    scale: float | None = None
    format: str = ""  # see `enlarge_files.Output`
    quality: int | None = None
    masks: str = ""  # with --inputs, of a game that fills holes: a mask, or a folder or .zip of such, white in the hole


OF_ENLARGING = ("tile", "scale", "format", "quality")  # with --inputs, of games that enlarge
MOST_SCALE = 64


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


def check(flags: Flags) -> None:
    """Raises UserError for what makes no sense for any run."""
    truncation(flags.truncation)
    for one, other, why in CONFLICTS:
        if getattr(flags, one) and getattr(flags, other):
            raise UserError(f"{_shown(flags, one)} with {_shown(flags, other)}: {why}; leave one of them out")
    if flags.noise and flags.noise not in NOISE:
        raise UserError(f"--noise={flags.noise}: expected one of {', '.join(NOISE)}")
    if flags.interpolate_in not in ("", "z", "w"):
        raise UserError(f"--interpolate_in={flags.interpolate_in}: expected z or w")
    for flag in ("interpolate_in", "animation", "fps"):
        if getattr(flags, flag) not in ("", None) and not flags.interpolate:
            raise UserError(f"{_shown(flags, flag)}: needs --interpolate=FRAMES too")
    _check_animation(flags)
    _check_enlarging(flags)
    if flags.interpolate_in == "z" and flags.dlatents:
        raise UserError("--interpolate_in=z: a file of styles has no z; leave the flag out")


def _check_animation(flags: Flags) -> None:
    if flags.animation not in ("", *MOST_FPS):
        raise UserError(f"--animation={flags.animation}: expected {' or '.join(MOST_FPS)}")
    most = MOST_FPS[flags.animation or "gif"]
    if flags.fps is not None and not 1 <= flags.fps <= most:
        other = "" if flags.animation == "mp4" else f"; --animation=mp4 takes up to {MOST_FPS['mp4']}"
        raise UserError(f"--fps={flags.fps}: expected 1 to {most}{other}")
    if flags.animation == "mp4":
        images.find_ffmpeg()


def _check_enlarging(flags: Flags) -> None:
    for flag in OF_ENLARGING:
        if getattr(flags, flag) not in ("", None) and not flags.inputs:
            raise UserError(f"{_shown(flags, flag)}: needs --inputs=PATH too")
    if flags.tile is not None and flags.tile < 0:
        raise UserError(f"--tile={flags.tile}: expected pixels of a side, or 0 for whole pictures")
    if flags.scale is not None and not 0 < flags.scale <= MOST_SCALE:
        raise UserError(f"--scale={flags.scale:g}: expected a number above 0, up to {MOST_SCALE}")
    if flags.quality is not None and not 1 <= flags.quality <= 100:
        raise UserError(f"--quality={flags.quality}: expected 1 to 100")
    if flags.format and flags.format not in enlarge_files.FORMATS:
        raise UserError(f"--format={flags.format}: expected one of {', '.join(enlarge_files.FORMATS)}")


def fills(flags: Flags, run: runs.Run) -> bool:
    """Whether the flags mean pictures of any size, whose holes the run fills. Raises UserError for flags beside them,
    and where pictures or masks are missing."""
    does = fill_files.fills(run)
    if flags.masks and not does:
        raise UserError(f"--masks={flags.masks}: the game {run.config.game!r} fills no holes; leave it out")
    if flags.masks and not flags.inputs:
        raise UserError(f"--masks={flags.masks}: needs --inputs=PATH too, the pictures that have these holes")
    if does and flags.inputs and not flags.masks:
        raise UserError(f"--inputs={flags.inputs}: the game {run.config.game!r} fills holes: give --masks=PATH too, a "
                        "mask of the picture's size, white in the hole; or a folder of such, by the pictures' names")
    if does and flags.inputs:
        check_abilities(flags, run)
        _check_drawn(flags, run)
    return does and bool(flags.inputs)


def enlarges(flags: Flags, run: runs.Run) -> bool:
    """Whether the flags mean pictures of any size, that the run enlarges. Raises UserError for flags beside them."""
    does = bool(flags.inputs) and enlarge.enlarges(run)
    for flag in OF_ENLARGING:
        if getattr(flags, flag) not in ("", None) and not does:
            raise UserError(f"{_shown(flags, flag)}: the game {run.config.game!r} does not enlarge; leave it out")
    if does:
        check_abilities(flags, run)
        _check_drawn(flags, run)
    return does


def check_abilities(flags: Flags, run: runs.Run) -> None:
    """Raises UserError for what this run's generator has no use for."""
    if flags.inputs and not runs.sources(run):
        raise UserError(f"--inputs={flags.inputs}: the game {run.config.game!r} draws from seeds; leave the flag out")
    name, styled = runs.model_name(runs.generator(run)), has_styles(run)
    of_styles = {
        "truncation": truncation(flags.truncation)[0] != 1,
        "style_mixing": flags.style_mixing,
        "dlatents": flags.dlatents,
        "save_dlatents": flags.save_dlatents,
        "interpolate_in": flags.interpolate_in == "w",
    }
    for flag, is_set in of_styles.items():
        if is_set and not styled:
            raise UserError(
                f"{_shown(flags, flag)}: {name!r} has no styles; leave the flag out, or take a run of stylegan1, "
                "stylegan2 or stylegan3"
            )
    if flags.noise and not (styled and "noise" in _averaged(run)):
        raise UserError(f"--noise={flags.noise}: {name!r} has no noise inputs in this run; leave the flag out")


def _averaged(run: runs.Run) -> dict:
    """The averaged collections of the net that is sampled, as shapes."""
    return jax.eval_shape(lambda: runs.init_state(run)).ema[run.game.EMA_NETS[0]]


def has_styles(run: runs.Run) -> bool:
    """Whether the run's generator has styles, and its game the two halves `styles` and `paint`."""
    return hasattr(run.game, "styles") and hasattr(runs.generator(run), "num_ws")


def check_alone(run: runs.Run, seeds: Any, labels: Any) -> None:
    """Raises UserError where pictures are given to a run that draws from seeds, or with seeds or labels beside them."""
    if not (sources := runs.sources(run)) or seeds is not None or labels is not None:
        why = "it draws from inputs alone" if sources else f"the game {run.config.game!r} draws from seeds"
        raise UserError(f"inputs with other arguments: {why}; leave one of them out")


def _check_drawn(flags: Flags, run: runs.Run) -> None:
    """Refuses what a game that draws from pictures has no use for."""
    for flag in ("seeds", "labels", "interpolate") if flags.inputs else ("labels", "interpolate"):
        if getattr(flags, flag):
            raise UserError(f"{_shown(flags, flag)}: the game {run.config.game!r} draws from --inputs; leave it out")


def _of_inputs(flags: Flags, run: runs.Run) -> Job:
    """The pictures of `--inputs`; the key of a sample is that of its pixels, whatever stands beside it.

    They are made to fit as the run's own were. Those that the game makes of its data have no size of the run's.
    """
    from gan_jax import data

    _check_drawn(flags, run)
    (name,) = runs.sources(run)
    if not flags.inputs and not flags.seeds:
        raise UserError(
            f"the game {run.config.game!r} draws from pictures: give --inputs=PATH, a picture, a folder or a .zip; or "
            "--seeds=0-7, for held-out examples of the run's data"
        )
    if not flags.inputs:
        examples = numbers("seeds", flags.seeds)
        pictures = runs.held_out(run)(examples)
        return Job(flags, examples, None, {}, None, "", None, pictures, tuple(f"example{i:06}" for i in examples))
    if fill_files.fills(run):  # from Python
        raise UserError(f"inputs={flags.inputs}: the game {run.config.game!r} fills holes, and there is no mask; give "
                        "both as arrays, or take the command `sample`, which reads files of both")
    section = runs.data_section(run.config, name)
    dataset, files = data.open_inputs(flags.inputs, section, fitted=name in run.spec)
    for note in dataset.notes:
        print(note, flush=True)
    pictures = dataset.examples(np.arange(dataset.size))["image"]
    seeds = np.array([zlib.crc32(picture.tobytes()) for picture in pictures])
    return Job(flags, seeds, None, {}, None, "", None, {name: pictures}, _unlike(files))


def _unlike(files: tuple[str, ...]) -> tuple[str, ...]:
    """Names without endings and folders, where they stay apart; else with both. `grid` is the name of the overview."""
    stems = [file.replace("/", "_").rpartition(".")[0] for file in files]
    apart = len(set(stems)) == len(stems) and "grid" not in stems
    return tuple(stems if apart else (file.replace("/", "_").replace(".", "_") for file in files))


def _shown(flags: Flags, name: str) -> str:
    value = getattr(flags, name)
    return f"--{name}" if value is True else f"--{name}={value}"


def read(flags: Flags, run: runs.Run, class_names: tuple[str, ...] = ()) -> Job:
    """What the flags mean for this run, whose classes may have names. Raises UserError for one that does not fit it."""
    check_abilities(flags, run)
    if runs.sources(run):
        return _of_inputs(flags, run)
    net, options = runs.generator(run), {}
    if has_styles(run):
        psi, cutoff = truncation(flags.truncation)
        options = {"noise": flags.noise or "const", **(run.game.truncate(run.nets, psi, cutoff) if psi != 1 else {})}
    mark, ws, mixing = "seed", None, None
    if flags.style_mixing:
        rows, columns, layers = _mixing(flags.style_mixing, net.num_ws)
        seeds, mixing = np.concatenate([rows, columns]), Mixing(len(rows), layers)
        labels = np.concatenate([_classes(flags.labels, run, class_names, len(side)) for side in (rows, columns)])
    elif flags.dlatents:
        ws, seeds = latents.load(flags.dlatents, net.num_ws, net.w_size)
        mark, labels = ("dlatent" if seeds is None else "seed"), None
        seeds = np.arange(len(ws)) if seeds is None else seeds
    else:
        seeds = numbers("seeds", flags.seeds or "0-63")
        labels = _classes(flags.labels, run, class_names, len(seeds))
    if flags.interpolate and (len(seeds) < 2 or flags.interpolate < 1 or len(run.spec["image"].shape) != 3):
        needs = "needs two seeds or more, one frame or more, and a model of images"
        raise UserError(f"--interpolate={flags.interpolate}: {needs}")
    return Job(flags, seeds, labels, options, ws, mark, mixing)


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


def _classes(labels: str, run: runs.Run, class_names: tuple[str, ...], count: int) -> np.ndarray:
    class_count = specs.classes(run.spec)
    if labels and not class_count:
        raise UserError(f"--labels={labels}: this run is unconditional; leave the flag out")
    if not labels:
        return np.arange(count) % max(class_count, 1)
    classes = numbers("labels", ",".join(_number_of(part, class_names) for part in labels.split(",")))
    if classes.max() >= class_count:
        raise UserError(
            f"--labels={labels}: {classes.max()} is out of range; this run knows the labels 0 to {class_count - 1}"
        )
    return np.resize(classes, count)


def _number_of(label: str, class_names: tuple[str, ...]) -> str:
    """The number, as text, of a class that is named; a number, `#3` too, or a range of such is returned as it is.

    A name comes before a number, so that where classes are called by other numbers than their own, `#` is needed.
    """
    label = label.strip()
    if label.startswith("#"):
        return label[1:]
    if label in class_names:
        return str(class_names.index(label))
    are_other_numbers = any(name.isdecimal() and int(name) != number for number, name in enumerate(class_names))
    if not class_names or (re.fullmatch(r"\d+(-\d+)?", label) and not are_other_numbers):
        return label
    near = difflib.get_close_matches(label, class_names, 1, 0)
    raise UserError(f"--labels={label}: this run's classes are {', '.join(class_names)}; did you mean {near[0]}?")


def _mixing(text: str, num_ws: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads `ROWS:COLUMNS[:LAYERS]`: seeds of the rows and of the columns, and layers."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise UserError(f"--style_mixing={text}: expected ROWS:COLUMNS or ROWS:COLUMNS:LAYERS, such as 0-5:10-14:0-6")
    rows, columns = (numbers("style_mixing", part) for part in parts[:2])
    if len(parts) == 2:
        return rows, columns, np.arange(min(COARSE, num_ws))
    layers = numbers("style_mixing", parts[2])
    if layers.max() >= num_ws:
        raise UserError(
            f"--style_mixing={text}: no layer {layers.max()}; this generator has the layers 0 to {num_ws - 1}"
        )
    return rows, columns, layers


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
