"""A run that has trained: what it draws, and how good it is."""

import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gan_jax import enlarge, evaluate, folders, games, lowered, parallel, runs, sample_flags
from gan_jax.api import arguments
from gan_jax.api.arguments import Images, Labels, Path, Truncation
from gan_jax.errors import UserError
from gan_jax.sample import Painter, labelled_set, latents_of
from gan_jax.step import State


@arguments.spoken()
def open_run(workdir: Path, step: int | str | None = None, *, data: Path = "") -> "TrainedRun":
    """Opens a run that has trained.

    Args:
      workdir: its folder.
      step: of a checkpoint; None for the newest, "best" for the best by the run's first metric.
      data: where the run's data lie now, if they were moved; `a=PATH,b=PATH` of data with parts.
    Raises:
      MissingPathError: no such run, or one without a checkpoint.
      UserError: no such step, a checkpoint that cannot be read, or other data.
    """
    workdir, data = arguments.path(workdir, "workdir"), arguments.path(data, "data", optional=True)
    lowered.keep_compiled()
    config, spec, summary = folders.read_folder(workdir)
    if data:
        folders.move_data(workdir, config, data)
    if step == "best":
        step = folders.best_step(workdir, **evaluate.ranking(config))
    elif step is not None:
        step = arguments.whole("step", step, "a whole number, or 'best'")
    run = runs.build(config, spec)
    restored = folders.restore(run, workdir, parallel.make_mesh(), step)
    for line in restored.broken:
        print(f"{line}; using step {restored.step}", flush=True)
    return TrainedRun(workdir, run, restored, folders.names(summary), data)


class TrainedRun:
    """A run at one of its checkpoints, from `open_run` or `train`.

    The averaged generator draws, as the command `sample` has it: the same seeds give the same images. A program is
    compiled when it is first used, and serves all calls that follow.

    Attributes:
      workdir: the run's folder.
      config: the complete ConfigDict.
      state: the whole State at that step; its params and averages are named arrays, by net.
      step, images_seen: how far it was trained.
      is_complete: whether that is its whole length; of a run that `train` returns, whether no signal stopped it.
      class_names: of its data; empty where they have none.
      words: of its data's captions, by their tokens; empty where they have none.
    """

    def __init__(self, workdir: str, run: runs.Run, restored: Any, names: tuple, data: str):
        self.workdir, self.config = workdir, run.config
        self.class_names, self.words = names
        self.state: State = restored.state
        self.step: int = restored.step
        self.images_seen: int = restored.run["position"]
        self.is_complete: bool = self.images_seen >= run.config.total_images
        self._run, self._data = run, data
        self._directed = functools.cache(self._build)
        self._enlarger = functools.cache(lambda: enlarge.Enlarger(run, self.state.ema, enlarge.Settings()))

    def __repr__(self) -> str:
        shape = next(iter(self._run.spec.values())).shape
        return (
            f"TrainedRun({self.workdir!r}: step {self.step}, {self.images_seen} images seen, game "
            f"{self.config.game!r}, {runs.model_name(runs.generator(self._run))}, {shape})"
        )

    @arguments.spoken()
    def sample(
        self,
        seeds: Iterable[int] | None = None,
        *,
        labels: Labels | None = None,
        captions: str | Sequence[str] | None = None,
        truncation: Truncation | None = None,
        noise: str = "",
        inputs: Images | None = None,
        masks: np.ndarray | None = None,
        direction: str = "",
    ) -> np.ndarray:
        """Draws one sample for each seed, the same as the command `sample` writes.

        Args:
          seeds: whole numbers such as `range(16)` or `[5]`; None for 0 to 63. One number alone is refused, because it
            could be a seed or a count. Of a run that translates pictures, the numbers of held-out examples.
          labels: of a run with labels: a class for all samples, or classes that are repeated over them; numbers or
            names. None for all classes in turn.
          captions: of a run that draws from captions: one, several, or the path of a `.txt` with one a line. Each is
            drawn with all seeds, by default 0 to 7, one caption after another. None for held-out examples.
          truncation: PSI, or (PSI, CUTOFF): styles are moved towards their mean, in all layers or the first ones. Of
            models without styles, PSI: latents have no entry beyond +-PSI. None for neither.
          noise: const (default), random of each seed, or none; of models with noise inputs.
          inputs: of a run that translates, enlarges or fills pictures: a picture, a folder or .zip; or uint8
            (N, H, W, C) of its size. Those that are enlarged or filled have any size, which is one for all.
          masks: with an array as `inputs`, of a run that fills holes: uint8 (N, H, W, 1), 255 in the hole.
          direction: ab or ba, of a run that translates pictures; default the config's.
        Returns:
          uint8 (N, H, W, C), of a run on clips (N, T, H, W, C), or float32 (N, D) of a run on points.
        """
        painter, run = self._directed(direction)
        if masks is not None and not games.mask(run.game):
            raise UserError(f"masks: the game {run.config.game!r} fills no holes; leave them out")
        if masks is not None and (inputs is None or isinstance(inputs, Path)):
            raise UserError("masks: needs inputs as an array too")
        if inputs is not None:
            flags = self._flags(labels, truncation, noise)._replace(captions=arguments.captions(captions))
            sample_flags.check_abilities(flags, run)
        if inputs is not None and enlarge.enlarges(run):
            return self._enlarged(inputs, seeds, labels)
        if inputs is not None and not isinstance(inputs, Path):
            return painter.stills(self._of_pictures(run, np.asarray(inputs), seeds, labels, masks))[0][0]
        files = "" if inputs is None else arguments.path(inputs, "inputs")
        flags = self._flags(labels, truncation, noise)
        flags = flags._replace(
            seeds=arguments.listed("seeds", seeds), inputs=files, direction=direction,
            captions=arguments.captions(captions),
        )  # fmt: skip
        drawn, _ = painter.stills(self._job(flags, run))
        return drawn[0] if isinstance(drawn, tuple) else drawn

    @arguments.spoken()
    def save_set(
        self, out: Path, per_class: int, *, as_: str = "folder", truncation: Truncation | None = None, noise: str = ""
    ) -> list[pathlib.Path]:
        """Writes a labelled set, as the command `sample --per_class` does; of a run with labels.

        Args:
          out: a folder that is not there yet, or empty.
          per_class: images of each class; image i of class c is that of the seed `per_class` * c + i.
          as_: folder, of class folders; or tfds.
          truncation, noise: as of `sample`.
        Returns:
          The images' files; of tfds the folder of the set, which `tfds.builder_from_directory` opens.
        """
        per_class = arguments.whole("per_class", per_class, "a whole number")
        flags = self._flags(None, truncation, noise)._replace(per_class=per_class, as_=as_)
        sample_flags.check(flags)
        folder = pathlib.Path(arguments.path(out, "out"))
        job, painter = self._job(flags, self._run), self._directed("")[0]
        return labelled_set(self._run, painter, job, folder, self.class_names, self.step)

    @arguments.spoken()
    def latents(self, seeds: Iterable[int]) -> np.ndarray:
        """Latents z float32 (N, latent_size) from which `sample` draws these seeds."""
        self._check_latents()
        numbers = sample_flags.numbers("seeds", arguments.listed("seeds", seeds))
        return np.array(latents_of(self._run, numbers))

    @arguments.spoken()
    def styles(
        self, z: np.ndarray, *, labels: Labels | None = None, truncation: Truncation | None = None
    ) -> np.ndarray:
        """Styles w float32 (N, num_ws, w_size) of latents z (N, latent_size), by a model with styles.

        Args:
          z: such as `latents` gives.
          labels, truncation: as of `sample`.
        """
        z = self._rows("z", z, {"z": self._z_shape()})
        if not sample_flags.has_styles(self._run):
            raise UserError(f"{runs.model_name(runs.generator(self._run))!r} has no styles; decode z instead")
        job = self._job_of(len(z), labels, truncation, "")
        return self._directed("")[0].halves(**job.options).styles(z, job.labels)

    @arguments.spoken()
    def decode(
        self,
        latents: np.ndarray,
        *,
        labels: Labels | None = None,
        truncation: Truncation | None = None,
        noise: str = "",
    ) -> np.ndarray:
        """Draws from latents or styles.

        Args:
          latents: z (N, latent_size); or w (N, num_ws, w_size), of a model with styles.
          labels, truncation: as of `sample`; of z alone, they are in w already.
          noise: const (default) or none; of models with noise inputs.
        Returns:
          As `sample`.
        """
        styled, net = sample_flags.has_styles(self._run), runs.generator(self._run)
        shapes = {"z": self._z_shape()} | ({"w": (net.num_ws, net.w_size)} if styled else {})
        rows = self._rows("latents", latents, shapes)
        if noise == "random":
            raise UserError("noise='random' is of seeds, and latents have none; give const or none, or use `sample`")
        painter = self._directed("")[0]
        if rows.ndim == 3:
            if labels is not None or truncation not in (None, 1):
                raise UserError("labels and truncation are in styles w already; leave them out, or give them with z")
            return painter.halves(**self._job_of(len(rows), None, None, noise).options).paint(rows, np.zeros(len(rows)))
        job = self._job_of(len(rows), labels, truncation, noise)
        if not styled:
            return painter.decode(rows, job.labels, **job.options)
        both = painter.halves(**job.options)
        return both.paint(both.styles(rows, job.labels), job.seeds)

    @arguments.spoken()
    def evaluate(
        self,
        metrics: str | Sequence[str] = (),
        *,
        samples: int | None = None,
        features: str | None = None,
        weights: Path | None = None,
        append: bool = True,
        **settings: Any,
    ) -> list[dict]:
        """Measures the run at this step, as the command `evaluate` does.

        Args:
          metrics: their names, such as `["fid10k", "kid10k"]`; empty for the config's.
          samples, features, weights, **settings: keys of config.evaluation; None for the run's own.
          append: add the rows to the run's `evaluations.jsonl`.
        Returns:
          A row for each value: `metric`, `value`, and how it was measured.
        """
        texts = arguments.settings({"samples": samples, "features": features, "weights": weights, **settings})
        common = {"step": self.step, "data": self._data, "append": append}
        return evaluate.evaluate(self.workdir, metrics=arguments.names(metrics), settings=texts, **common)

    def _build(self, direction: str) -> tuple[Painter, runs.Run]:
        run = self._run
        if direction:
            config = self.config.copy_and_resolve_references()
            sample_flags.override(sample_flags.Flags(direction=direction), config)
            run = runs.build(config, run.spec)
        return Painter(run, self.state.ema), run

    def _flags(self, labels: Labels | None, truncation: Truncation | None, noise: str) -> sample_flags.Flags:
        """The arguments as the command reads them."""
        layers = truncation if isinstance(truncation, tuple | list) else () if truncation is None else (truncation,)
        flags = sample_flags.Flags(
            labels=self._label_text(labels), truncation=",".join(map(str, layers)), noise=str(noise)
        )
        sample_flags.check(flags)
        return flags

    def _label_text(self, labels: Labels | None) -> str:
        if labels is None:
            return ""
        names = [labels] if isinstance(labels, int | str | np.integer) else list(labels)
        return arguments.listed("labels", map(self._label, names))

    def _label(self, label: int | str) -> str:
        """A label as the command has it: a name by its number, and a number that is another one's name marked."""
        if isinstance(label, str) and label in self.class_names:
            return f"#{self.class_names.index(label)}"
        is_another = str(label) in self.class_names and self.class_names.index(str(label)) != label
        return f"#{label}" if is_another and not isinstance(label, str) else str(label)

    def _job(self, flags: sample_flags.Flags, run: runs.Run) -> sample_flags.Job:
        return sample_flags.read(flags, run, self.class_names, self.words)

    def _job_of(
        self, count: int, labels: Labels | None, truncation: Truncation | None, noise: str
    ) -> sample_flags.Job:
        """Of so many latents."""
        return self._job(self._flags(labels, truncation, noise)._replace(seeds=f"0-{count - 1}"), self._run)

    def _enlarged(self, inputs: Images, seeds: Any, labels: Any) -> np.ndarray:
        """Pictures of a path or an array, uint8 (N, H, W, C)."""
        run = self._run
        if isinstance(inputs, Path):
            flags = self._flags(labels, None, "")._replace(
                seeds=arguments.listed("seeds", seeds), inputs=arguments.path(inputs, "inputs")
            )
            (images,) = self._job(flags, run).given.values()
        else:
            images = np.asarray(inputs)
            sample_flags.check_alone(run, seeds, labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 2, 3, 4) or not images.size:
            expected = "uint8 (N, H, W, C) with C from 1 to 4, or the path of pictures"
            raise UserError(f"inputs: an array of {images.dtype} and the shape {images.shape}; expected {expected}")
        enlarger = self._enlarger()
        enlarger.prepare([images.shape[1:3]])
        return np.stack([enlarger(enlarge.picture_of(image))[0] for image in images])

    def _of_pictures(
        self, run: runs.Run, pictures: np.ndarray, seeds: Any, labels: Any, masks: Any
    ) -> sample_flags.Job:
        """The job of pictures that the caller holds."""
        sample_flags.check_alone(run, seeds, labels)
        sources = runs.sources(run)
        shape = {**run.spec, **games.derived(run.game, run.config, run.spec)}[sources[0]].shape
        if sources[0] not in run.spec and len(shape) == 3 and pictures.ndim == 4:  # of any size
            shape = (*pictures.shape[1:3], shape[2])
        if pictures.dtype != np.uint8 or pictures.shape[1:] != shape or not len(pictures):
            expected = f"uint8 (N, {', '.join(map(str, shape))}), or the path of pictures of any size"
            raise UserError(f"inputs: an array of {pictures.dtype} and the shape {pictures.shape}; expected {expected}")
        given = {sources[0]: pictures} | _holes(run, pictures, masks)
        return sample_flags.Job(sample_flags.Flags(), np.arange(len(pictures)), None, {}, None, "", None, given)

    def _check_latents(self) -> None:
        if not hasattr(self._run.game, "latents") or runs.sources(self._run):
            source = "captions" if runs.captions(self._run) else "pictures"
            raise UserError(f"the game {self.config.game!r} draws from {source}, not from latents; take `sample`")

    def _z_shape(self) -> tuple[int, ...]:
        self._check_latents()
        return (runs.generator(self._run).latent_size,)

    def _rows(self, name: str, rows: Any, shapes: dict[str, tuple[int, ...]]) -> np.ndarray:
        """Rows as float32, of one of these shapes."""
        rows = np.asarray(rows)
        if rows.dtype.kind not in "fiu" or rows.shape[1:] not in shapes.values() or not len(rows):
            expected = " or ".join(f"{key} (N, {', '.join(map(str, shape))})" for key, shape in shapes.items())
            raise UserError(f"{name}: an array of {rows.dtype} and the shape {rows.shape}; expected {expected}")
        return rows.astype(np.float32)


def _holes(run: runs.Run, pictures: np.ndarray, masks: Any) -> dict[str, np.ndarray]:
    """The masks, where the run's game has such."""
    field, masks = games.mask(run.game), None if masks is None else np.asarray(masks)
    expected = (*pictures.shape[:3], 1)
    if field and (masks is None or masks.dtype != np.uint8 or masks.shape != expected):
        what = "none" if masks is None else f"an array of {masks.dtype} and the shape {masks.shape}"
        raise UserError(f"masks: {what}; expected uint8 {expected}, 255 in the hole")
    return {field: masks} if field else {}
