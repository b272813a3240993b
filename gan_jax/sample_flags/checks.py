"""Which flags of `sample` make no sense together, or for a run."""

from typing import Any

import jax

from gan_jax import enlarge, enlarge_files, ffmpeg, fill_files, runs
from gan_jax.errors import UserError
from gan_jax.models.stylegan2 import NOISE
from gan_jax.sample_flags.flags import Flags, shown, truncation

MOST_FPS = {"gif": 50, "apng": 50, "mp4": 240}  # faster GIFs are slow in browsers
OF_ANIMATIONS = ("animation", "fps")
OF_ENLARGING = ("tile", "scale", "format", "quality")  # with --inputs, of games that enlarge
MOST_SCALE = 64
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


def check(flags: Flags) -> None:
    """Raises UserError for what makes no sense for any run."""
    truncation(flags.truncation)
    for one, other, why in CONFLICTS:
        if getattr(flags, one) and getattr(flags, other):
            raise UserError(f"{shown(flags, one)} with {shown(flags, other)}: {why}; leave one of them out")
    if flags.noise and flags.noise not in NOISE:
        raise UserError(f"--noise={flags.noise}: expected one of {', '.join(NOISE)}")
    if flags.interpolate_in not in ("", "z", "w"):
        raise UserError(f"--interpolate_in={flags.interpolate_in}: expected z or w")
    if flags.interpolate_in and not flags.interpolate:
        raise UserError(f"{shown(flags, 'interpolate_in')}: needs --interpolate=FRAMES too")
    _check_animation(flags)
    _check_enlarging(flags)
    if flags.interpolate_in == "z" and flags.dlatents:
        raise UserError("--interpolate_in=z: a file of styles has no z; leave the flag out")


def _check_animation(flags: Flags) -> None:
    if flags.animation not in ("", *MOST_FPS):
        raise UserError(f"--animation={flags.animation}: expected one of {', '.join(MOST_FPS)}")
    most = MOST_FPS[flags.animation or "gif"]
    if flags.fps is not None and not 1 <= flags.fps <= most:
        other = "" if flags.animation == "mp4" else f"; --animation=mp4 takes up to {MOST_FPS['mp4']}"
        raise UserError(f"--fps={flags.fps}: expected 1 to {most}{other}")
    if flags.animation == "mp4":
        ffmpeg.find()


def _check_enlarging(flags: Flags) -> None:
    for flag in OF_ENLARGING:
        if getattr(flags, flag) not in ("", None) and not flags.inputs:
            raise UserError(f"{shown(flags, flag)}: needs --inputs=PATH too")
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
        check_drawn(flags, run)
    return does and bool(flags.inputs)


def enlarges(flags: Flags, run: runs.Run) -> bool:
    """Whether the flags mean pictures of any size, that the run enlarges. Raises UserError for flags beside them."""
    does = bool(flags.inputs) and enlarge.enlarges(run)
    for flag in OF_ENLARGING:
        if getattr(flags, flag) not in ("", None) and not does:
            raise UserError(f"{shown(flags, flag)}: the game {run.config.game!r} does not enlarge; leave it out")
    if does:
        check_abilities(flags, run)
        check_drawn(flags, run)
    return does


def check_abilities(flags: Flags, run: runs.Run) -> None:
    """Raises UserError for what this run's generator has no use for."""
    if flags.inputs and not runs.sources(run):
        raise UserError(f"--inputs={flags.inputs}: the game {run.config.game!r} draws from seeds; leave the flag out")
    for flag in OF_ANIMATIONS:
        if getattr(flags, flag) not in ("", None) and not flags.interpolate and runs.drawn(run).kind != "video":
            raise UserError(f"{shown(flags, flag)}: needs --interpolate=FRAMES too")
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
                f"{shown(flags, flag)}: {name!r} has no styles; leave the flag out, or take a run of stylegan1, "
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


def check_drawn(flags: Flags, run: runs.Run) -> None:
    """Refuses what a game that draws from pictures has no use for."""
    for flag in ("seeds", "labels", "interpolate") if flags.inputs else ("labels", "interpolate"):
        if getattr(flags, flag):
            raise UserError(f"{shown(flags, flag)}: the game {run.config.game!r} draws from --inputs; leave it out")
