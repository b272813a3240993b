"""Images from a trained generator: seeds, labels, truncation, style mixing, interpolation; the fixed grid of a run."""

import pathlib
from functools import partial
from typing import Any

import numpy as np

from gan_jax import enlarge, enlarge_files, fill_files, folders, games, images, latents, parallel, run_data, runs, specs
from gan_jax import labelled_files as labelled
from gan_jax.errors import UserError
from gan_jax.painter import Draw, Painter, asked, halves, keys_from, latents_of, sampler
from gan_jax.sample_flags import Flags, Job, check, enlarges, fills, has_styles, override, overrides, read


def grid_given(run: runs.Run) -> dict[str, np.ndarray]:
    """What the samples of the run's grid are given, labels in turn, or held-out examples, evenly spread; with what they
    are to become, where the data have it."""
    count = run.config.grid
    if not runs.of_examples(run):
        return runs.held_out(run)(np.arange(count))
    dataset = run_data.open_data(run.config, run.config.evaluation.split)
    examples = dataset.examples(np.linspace(0, (dataset.size or count) - 1, count).astype(np.int64))
    return games.asked(run.game, run.config, examples, runs.shown(run))


def fixed_grid(run: runs.Run, draw: Draw, ema: dict, given: dict[str, np.ndarray]) -> Any:
    """The run's `config.grid` samples from what stays the same from its first step to its last, see `grid_given`."""
    return draw(ema, keys_from(run.config.seed, "grid", np.arange(run.config.grid)), asked(run, given))


def grid(run: runs.Run, drawn: Any, given: dict[str, np.ndarray]) -> images.Grid:
    """One picture of samples: of a game with sources, which are drawn `whole`, each between its sources and what it is
    to become, where `given` has that. Clips go on from their sources, and what they are to become stands below."""
    if not runs.sources(run):
        return grid_of(drawn)
    sources = [given[name] for name in runs.sources(run)]
    targets = [given[name] for name in runs.shown(run) if name in given and name not in run.game.asks(run.config)]
    if drawn[0].ndim != 5:
        return grid_of(images.beside([*sources, *drawn, *targets]))
    films = [_going_on(sources, clips) for clips in (drawn[0], *targets)]
    rows = [np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:]) for parts in zip(*films, strict=True)]
    cells = [images.beside([film[:, time] for film in map(partial(np.concatenate, axis=1), films)])
             for time in range(sum(part.shape[1] for part in films[0]))]  # fmt: skip
    return images.Grid(images.contact_sheet(rows), images.moving_grid(np.stack(cells, axis=1)))


def _going_on(sources: list[np.ndarray], clips: np.ndarray) -> list[np.ndarray]:
    """Clips (N, T, H, W, C) behind those of their sources, clips or pictures, whose frames are of one size with them;
    """
    films = [source[:, None] if source.ndim == 4 else source for source in sources]
    return [*(film for film in films if film.shape[2:] == clips.shape[2:]), clips]


def reals_of(run: runs.Run, examples: dict[str, np.ndarray]) -> np.ndarray:
    """What samples of the run are to be like, of examples of its data."""
    name = games.drawn(run.game, run.config)
    return games.asked(run.game, run.config, examples, (name,))[name]


def grid_of(samples: np.ndarray) -> images.Grid:
    """A grid of images (N, H, W, C), a sheet of clips (N, T, H, W, C), or a density of points (N, 2)."""
    if samples.ndim == 5:
        return images.Grid(images.contact_sheet([samples]), images.moving_grid(samples))
    if samples.ndim == 4:
        return images.Grid(images.grid(samples))
    extent = max(1.5, 1.2 * float(np.abs(samples).max(initial=0.0)))
    return images.Grid(images.scatter(samples, extent=extent)[0])


def sample(workdir: str, out: str, *, step: int | None = None, data: str = "", **flags) -> list[pathlib.Path]:
    """Restores a run's averaged generator and writes images into `out`.

    Args:
      workdir: the run's folder.
      out: where `seed<seed>.png` and `grid.png` go, or `interpolation.gif` or `.mp4`, or `style_mixing.png` and its
        images, or enlarged pictures by their names; with `captions.txt` where samples are of captions. Clips are
        animations, `seed<seed>.gif` or such, and the grid is a picture and an animation.
      step: checkpoint; None for the newest.
      data: where the run's data lie now, see `run_data.move_data`; empty where they have not moved.
      **flags: the fields of `sample_flags.Flags`.
    Returns:
      The files, in the order of the seeds; the picture of all comes last.
    Raises:
      UserError: a flag that this model has no use for, a label out of range, a checkpoint that cannot be read.
      MissingPathError: no such run.
    """
    flags = Flags(**flags)
    check(flags)
    config, spec, summary = folders.read_folder(workdir)
    override(flags, config)
    if data:
        folders.move_data(workdir, config, data)
    try:
        run = runs.build(config, spec)
    except UserError as error:
        raise UserError(f"{overrides(flags)}: {error}" if overrides(flags) else str(error)) from error
    is_whole = any([fills(flags, run), enlarges(flags, run)])  # pictures of any size; both look at the flags
    class_names, words = folders.names(summary)
    job = None if is_whole else read(flags, run, class_names, words)
    if flags.per_class is not None:
        labelled.check_empty(pathlib.Path(out))
    restored = folders.restore(run, workdir, parallel.make_mesh(), step)
    for line in restored.broken:
        print(f"{line}; using step {restored.step}", flush=True)
    folder = pathlib.Path(out)
    if job is None:
        return _of_any_size(run, restored.state.ema, flags, folder)
    if flags.per_class is not None:
        return labelled_set(run, Painter(run, restored.state.ema), job, folder, class_names, restored.step)
    of_given = _of_captions if job.captions else _of_inputs
    draw = _mixed if job.mixing else _interpolation if flags.interpolate else of_given if job.names else _stills
    fps = flags.fps or (images.CLIP_FPS if runs.drawn(run).kind == "video" else images.FPS)
    writers = {".png": images.save, ".csv": _save_points, ".npz": latents.save, ".txt": _save_lines}
    writers |= dict.fromkeys((".gif", ".apng"), partial(images.save_animation, fps=fps))
    writers[".mp4"] = partial(images.save_video, fps=fps)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {folder / name: content for name, content in draw(run, restored.state.ema, job).items()}
        for file, content in files.items():
            writers[file.suffix](file, content)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror or error}") from error
    return list(files)


def labelled_set(
    run: runs.Run, painter: Painter, job: Job, folder: pathlib.Path, class_names: tuple[str, ...], step: int
) -> list[pathlib.Path]:
    """Writes a labelled set of a job with `per_class`, see `labelled_files.write`. Raises UserError."""
    flags, classes = job.flags, specs.classes(run.spec)
    names = class_names or tuple(f"{label:0{len(str(classes - 1))}}" for label in range(classes))

    def draw(seeds: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return painter.stills(job._replace(seeds=seeds, labels=labels))[0]

    about = (f"{flags.per_class} images of each class, drawn by the step {step} of a run of the game "
             f"{run.config.game!r} on {run.config.data.get('name', 'parts')!r}. Image i of class c is that of the seed "
             f"{flags.per_class} * c + i.")
    shape = run.spec[games.drawn(run.game, run.config)].shape
    try:
        return labelled.write(
            draw, job.seeds, job.labels, folder, form=flags.as_ or labelled.FORMS[0], class_names=names,
            shape=shape, about=about,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"--out={folder}: cannot be written: {error.strerror or error}") from error


def _of_any_size(run: runs.Run, ema: dict, flags: Flags, folder: pathlib.Path) -> list[pathlib.Path]:
    """Pictures of any size, enlarged or with their holes filled, each written when it is made."""
    settings = enlarge.Settings(flags.tile, flags.scale)
    try:
        if flags.masks:
            return fill_files.fill(run, ema, flags.inputs, flags.masks, folder)
        return enlarge_files.enlarge(
            run, ema, flags.inputs, folder, settings, enlarge_files.Output(flags.format, flags.quality)
        )
    except OSError as error:
        raise UserError(f"--out={folder}: cannot be written: {error.strerror or error}") from error


def _of_inputs(run: runs.Run, ema: dict, job: Job) -> dict[str, Any]:
    """One image for each of the user's, named after it, and a grid of both side by side; clips with those before them.
    """
    drawn, _ = Painter(run, ema).stills(job)
    samples, whole = drawn[0], grid(run, drawn, job.given)
    if samples.ndim == 5:
        samples = np.concatenate(_going_on([job.given[name] for name in runs.sources(run)], samples), axis=1)
    return _files(job, dict(zip(job.names, samples, strict=True)), whole)


def _files(job: Job, samples: dict[str, np.ndarray], whole: images.Grid) -> dict[str, np.ndarray]:
    """The files of images or clips by their names, and of the grid."""
    ending = "png" if whole.frames is None else job.flags.animation or "gif"
    files = {f"{name}.{ending}": x for name, x in samples.items()}
    moving = {} if whole.frames is None else {f"grid.{ending}": whole.frames}
    return files | moving | {"grid.png": whole.picture}


def _of_captions(run: runs.Run, ema: dict, job: Job) -> dict[str, Any]:
    """One image for each caption and seed, the captions, and a grid: a row a caption, or held-out ones in turn."""
    drawn, _ = Painter(run, ema).stills(job)
    files = {f"{name}.png": image for name, image in zip(job.names, drawn[0], strict=True)}
    each = len(job.names) // len(job.captions)
    return files | {"captions.txt": job.captions, "grid.png": images.grid(drawn[0], each if each > 1 else 0)}


def _stills(run: runs.Run, ema: dict, job: Job) -> dict[str, Any]:
    """One image or clip a seed and a grid of all, or a table of points and their density; the styles where asked for.
    """
    drawn, ws = Painter(run, ema).stills(job)
    if drawn.ndim == 2:
        return {"points.csv": drawn, "grid.png": grid_of(drawn).picture}
    is_by_label = drawn.ndim == 4 and specs.classes(run.spec) and job.labels is not None
    if is_by_label:
        picture, lines = images.grid_by_label(drawn, job.labels)
        print(f"grid.png, from the top: {', '.join(lines)}", flush=True)
    files = _files(job, dict(zip(_names(run, job), drawn, strict=True)),
                   images.Grid(picture) if is_by_label else grid_of(drawn))  # fmt: skip
    if job.flags.save_dlatents:
        files = {"dlatents.npz": {"w": ws, "seeds": job.seeds}, **files}
    return files


def _interpolation(run: runs.Run, ema: dict, job: Job) -> dict[str, Any]:
    """The seeds in order and back to the first, all with the noise of the first; a label holds up to the next seed."""
    frames, name = job.flags.interpolate, f"interpolation.{job.flags.animation or 'gif'}"
    both = halves(run, ema, **job.options) if has_styles(run) else None
    if both and (job.ws is not None or job.flags.interpolate_in == "w"):
        ws = both.styles(latents_of(run, job.seeds), job.labels) if job.ws is None else job.ws
        path = latents.loop(ws, frames, latents.lerp)
    else:
        z, labels = latents.loop(latents_of(run, job.seeds), frames, latents.slerp), np.repeat(job.labels, frames)
        if not both:
            return {name: sampler(run, from_latents=True, **job.options)(ema, z, labels)}
        path = both.styles(z, labels)
    return {name: both.paint(path, np.full(len(path), job.seeds[0]))}


def _mixed(run: runs.Run, ema: dict, job: Job) -> dict[str, Any]:
    """Images of the rows, of the columns, and of each row with a column's styles in some layers and its own noise."""
    both, n = halves(run, ema, **job.options), job.mixing.rows
    ws = both.styles(latents_of(run, job.seeds), job.labels)
    cells = latents.mix(ws[:n], ws[n:], job.mixing.layers)
    count = len(ws) - n
    drawn = both.paint(
        np.concatenate([ws, cells.reshape(-1, *ws.shape[1:])]), np.append(job.seeds, job.seeds[:n].repeat(count))
    )
    left, top, mixed = np.split(drawn, [n, len(ws)])
    names = _names(run, job)
    rows, columns = ([f"{side}_{name}" for name in part] for side, part in (("row", names[:n]), ("column", names[n:])))
    names = [*rows, *columns, *(f"{row}_{column}" for row in rows for column in columns)]
    files = {f"{name}.png": image for name, image in zip(names, drawn, strict=True)}
    table = images.table(top, left, mixed.reshape(n, count, *mixed.shape[1:]))
    return files | {"style_mixing.png": table}


def _names(run: runs.Run, job: Job) -> list[str]:
    if not specs.classes(run.spec) or job.labels is None:
        return [f"{job.mark}{seed:06}" for seed in job.seeds]
    return [f"{job.mark}{seed:06}_label{label}" for seed, label in zip(job.seeds, job.labels, strict=True)]


def _save_lines(path: pathlib.Path, lines: tuple[str, ...]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _save_points(path: pathlib.Path, points: np.ndarray) -> None:
    np.savetxt(path, points, delimiter=",", header="x,y", comments="")
