"""What the flags of `sample` mean for a run."""

import difflib
import re
import zlib

import numpy as np

from gan_jax import fill_files, labelled_files, latents, run_data, runs, specs
from gan_jax.errors import UserError
from gan_jax.sample_flags.captions import of_captions
from gan_jax.sample_flags.checks import check_abilities, check_classes, check_drawn, has_styles, truncated
from gan_jax.sample_flags.flags import Flags, Job, Mixing, numbers

COARSE = 7  # layers whose styles are the column's by default


def read(flags: Flags, run: runs.Run, class_names: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> Job:
    """What the flags mean for this run, whose classes may have names, and whose captions are of `words`.

    Raises UserError for a flag that does not fit it.
    """
    check_abilities(flags, run)
    check_classes(flags, run)
    if runs.sources(run):
        return _of_inputs(flags, run)
    if runs.captions(run):
        return of_captions(flags, run, words)
    net, options = runs.generator(run), truncated(flags, run)
    if has_styles(run):
        options["noise"] = flags.noise or "const"
    mark, ws, mixing = "seed", None, None
    if flags.style_mixing:
        rows, columns, layers = _mixing(flags.style_mixing, net.num_ws)
        seeds, mixing = np.concatenate([rows, columns]), Mixing(len(rows), layers)
        labels = np.concatenate([_classes(flags.labels, run, class_names, len(side)) for side in (rows, columns)])
    elif flags.dlatents:
        ws, seeds = latents.load(flags.dlatents, net.num_ws, net.w_size)
        mark, labels = ("dlatent" if seeds is None else "seed"), None
        seeds = np.arange(len(ws)) if seeds is None else seeds
    elif flags.per_class is not None:
        seeds, labels = labelled_files.seeds_and_labels(specs.classes(run.spec), flags.per_class)
    else:
        seeds = numbers("seeds", flags.seeds or "0-63")
        labels = _classes(flags.labels, run, class_names, len(seeds))
    if flags.interpolate and (len(seeds) < 2 or flags.interpolate < 1 or runs.drawn(run).kind != "image"):
        needs = "needs two seeds or more, one frame or more, and a model of images"
        raise UserError(f"--interpolate={flags.interpolate}: {needs}")
    return Job(flags, seeds, labels, options, ws, mark, mixing)


def _of_inputs(flags: Flags, run: runs.Run) -> Job:
    """The pictures of `--inputs`; the key of a sample is that of its pixels, whatever stands beside it.

    They are made to fit as the run's own were. Those that the game makes of its data have no size of the run's.
    """
    from gan_jax import data

    check_drawn(flags, run)
    (name,) = runs.sources(run)
    what = "film" if runs.field(run, name).kind == "video" else "picture"
    if not flags.inputs and not flags.seeds:
        raise UserError(
            f"the game {run.config.game!r} draws from {what}s: give --inputs=PATH, a {what}, a folder or a .zip; or "
            "--seeds=0-7, for held-out examples of the run's data"
        )
    if not flags.inputs:
        examples = numbers("seeds", flags.seeds)
        pictures = runs.held_out(run)(examples)
        return Job(flags, examples, None, {}, None, "", None, pictures, tuple(f"example{i:06}" for i in examples))
    if fill_files.fills(run):  # from Python
        raise UserError(f"inputs={flags.inputs}: the game {run.config.game!r} fills holes, and there is no mask; give "
                        "both as arrays, or take the command `sample`, which reads files of both")
    if runs.captions(run):
        raise UserError(f"--inputs={flags.inputs}: the game {run.config.game!r} draws from captions too; give "
                        "--seeds=0-7, for held-out examples of both")
    section, field = run_data.data_section(run.config, name), runs.field(run, name)
    dataset, files = (
        data.open_film_inputs(flags.inputs, section, field.shape[0]) if field.kind == "video"
        else data.open_inputs(flags.inputs, section, fitted=name in run.spec)
    )
    for note in dataset.notes:
        print(note, flush=True)
    (pictures,) = dataset.examples(np.arange(dataset.size)).values()
    seeds = np.array([zlib.crc32(picture.tobytes()) for picture in pictures])
    return Job(flags, seeds, None, {}, None, "", None, {name: pictures}, _unlike(files))


def _unlike(files: tuple[str, ...]) -> tuple[str, ...]:
    """Names without endings and folders, where they stay apart; else with both. `grid` is the name of the overview."""
    stems = [file.replace("/", "_").rpartition(".")[0] or file.replace("/", "_") for file in files]
    apart = len(set(stems)) == len(stems) and "grid" not in stems
    return tuple(stems if apart else (file.replace("/", "_").replace(".", "_") for file in files))


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
