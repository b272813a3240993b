"""The real side of a metric: which images, and their statistics, kept in the cache or read from a file."""

import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from gan_jax import data as data_sets
from gan_jax import games, metrics, parallel, paths, provenance, run_data
from gan_jax.cache import cache_dir
from gan_jax.data.stream import prefetch
from gan_jax.errors import UserError
from gan_jax.evaluate import collect
from gan_jax.evaluate.collect import Collected, Needs, Want
from gan_jax.features.networks import FeatureNet

ORDER_SEED = 0  # of the order in which reals are taken: the first n are a random choice, the same for everyone
LABELS_AT_ONCE = 1024
OF_CLIPS = ("frames", "frame_step", "field")  # of a data set's protocol, what a row says of clips
CODE = ("features", "metrics/frechet.py")  # whose results are kept
DEVICE_BATCH = 256  # images of one device to begin with
CPU_BATCH = 16  # of a CPU, where no network is asked
CPU_PIXELS = 1 << 21  # of a CPU at once, at the most


class Reals(NamedTuple):
    """A data set as a metric sees it: in one fixed random order, unflipped, or with a mirrored copy of each image."""

    dataset: Any
    flip: bool
    order: np.ndarray  # int64 (size,), indices of the set; from the set's size on, of mirrored copies

    @property
    def size(self) -> int:
        """Images, mirrored copies counted."""
        return len(self.order)

    def images(self, places: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, C), or clips (N, T, H, W, C), of places (N,) in the order."""
        index = self.order[places]
        images = self.dataset.examples(index % self.dataset.size)[next(iter(self.dataset.spec))]
        mirrored = (index >= self.dataset.size).reshape(-1, *(1,) * (images.ndim - 1))
        return np.where(mirrored, images[..., ::-1, :], images) if mirrored.any() else images

    def labels(self, name: str = "label") -> np.ndarray:
        """Labels int32 (size of the set,) of a field, in the set's order; kept in the cache."""
        size = self.dataset.size

        def read():
            parts = [self.dataset.examples(np.arange(start, min(start + LABELS_AT_ONCE, size)))[name]
                     for start in range(0, size, LABELS_AT_ONCE)]
            return {"labels": np.concatenate(parts)}

        field = {} if name == "label" else {"field": name}
        return _cached({"labels of": self.dataset.protocol(), **field}, read)["labels"]

    def protocol(self) -> dict[str, Any]:
        """What a row says of the data."""
        data = self.dataset.protocol()
        return {"data": data["name"], "split": data["split"], "resolution": str(data.get("resolution", "")),
                "filter": data.get("filter", ""), "flip": self.flip, "data_fingerprint": data["fingerprint"],
                **{key: data[key] for key in OF_CLIPS if key in data}}


def open_drawn(config: ConfigDict, split: str = ""):
    """The Dataset of the field that samples are to be like; its examples have it first. Arguments of
    `run_data.open_field`."""
    game = games.find(config.game)
    name = games.drawn(game, config)
    if hasattr(game, "derived"):
        dataset = run_data.open_data(config, split)
        if name in (fields := game.derived(config, dataset.spec)):
            derive = lambda examples: games.asked(game, config, examples, (name,))  # noqa: E731
            return data_sets.of_field(dataset, name, fields[name], derive)
    return run_data.open_field(config, name, split)


def of(dataset, *, flip: bool = False) -> Reals:
    """The reals of a Dataset."""
    size = dataset.size * (2 if flip else 1)
    return Reals(dataset, flip, np.random.RandomState(ORDER_SEED).permutation(size))


def statistics(reals: Reals, needs: Needs, nets: dict[str, FeatureNet], forward: Callable) -> Collected:
    """What is needed of the reals: from the cache, and what is not there by one pass, which is then kept.

    Args:
      reals: see above.
      needs: counts not above `reals.size`.
      nets: by network.
      forward: (needs, images at places) -> Collected, the pass itself; see `passing`.
    """
    moments = {want: _load(reals, "moments", want, nets[want.network]) for want in needs.moments}
    rows = {want: _load(reals, "rows", want, nets[want.network]) for want in needs.rows}
    lacking = Needs(tuple(want for want, value in moments.items() if value is None),
                    tuple(want for want, value in rows.items() if value is None), needs.consumers)
    if lacking.total():
        passed = forward(lacking, reals.images)
        for kind, fresh, values in (("moments", passed.moments, moments), ("rows", passed.rows, rows)):
            for want, value in fresh.items():
                values[want] = value
                arrays = value._asdict() if kind == "moments" else {"rows": value}
                _store(_key(reals, kind, want, nets[want.network]), arrays)
    return Collected(moments, rows)


def passing(
    nets: dict[str, FeatureNet], variables: dict, batch_size: int, check: Callable[[], None] = lambda: None
) -> Callable:
    """The pass over images of the host: (needs, images of places (n,)) -> Collected; `check` as of `collect`."""
    programs: dict[tuple, Callable] = {}

    def forward(needs: Needs, images: Callable[[np.ndarray], np.ndarray]) -> Collected:
        mesh = parallel.make_mesh(jax.local_devices())
        kind = str(needs.outputs()), bool(needs.consumers)  # what a program depends on
        run = programs.setdefault(kind, collect.program(lambda _, x: x, nets, needs, mesh))
        one = parallel.together(lambda: images(np.zeros(1, np.int64)))
        of_needs = [nets[name] for name in needs.outputs()]
        first = first_batch(batch_size, of_needs, one.shape[1:], needs.total())
        batch = collect.largest_batch(lambda count: run((), variables, np.repeat(one, count, 0)), first, mesh.size)
        ahead = prefetch((images(places) for _, places in collect.chunks(needs.total(), batch)), 2)
        try:
            dispatch = lambda _: run((), variables, parallel.together(lambda: next(ahead)))  # noqa: E731
            return collect.collect(needs, dispatch, batch, check)
        finally:
            ahead.close()

    return forward


def first_batch(batch_size: int, nets: list[FeatureNet], shape: tuple[int, ...], total: int) -> int:
    """Images of this process's first try: the given number; or by its devices, the networks, their size and number.

    Args:
      batch_size: config.evaluation.batch_size.
      nets: that look at them.
      shape: of an image or a clip.
      total: images of the pass.
    """
    if batch_size:
        return batch_size
    if jax.local_devices()[0].platform == "cpu":
        by_size = max(CPU_PIXELS // math.prod(shape[:-1]), 1)
        return min([CPU_BATCH if not nets else by_size, total, *(net.cpu_batch for net in nets)])
    return min(DEVICE_BATCH * jax.local_device_count(), total)


def from_file(path: str, net: FeatureNet, output: str) -> metrics.Moments:
    """Moments of reals that another program saved, see `metrics.load_moments`.

    Raises:
      MissingPathError, UserError: no such file, not such a file, or of other features.
    """
    moments = metrics.load_moments(paths.expanded(path, "statistics"))
    if len(moments.mean) != net.outputs[output]:
        raise UserError(f"{path}: has moments of {len(moments.mean)} features, and {net.name}/{output} has "
                        f"{net.outputs[output]}; give a file of these features")
    return moments


def file_sha256(path: str) -> str:
    """SHA-256 of a file's bytes."""
    with open(paths.expanded(path, "statistics"), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(reals: Reals, kind: str, want: Want, net: FeatureNet) -> dict:
    code = [provenance.code_sha256(part) for part in CODE]
    data = {key: value for key, value in reals.dataset.protocol().items() if key not in ("name", "flip")}
    return {"kind": kind, "count": want.count, "output": want.output, "weights": net.sha256, "flip": reals.flip,
            "preprocessing": net.preprocessing, "order": ORDER_SEED, "code": code, "data": data}


def _load(reals: Reals, kind: str, want: Want, net: FeatureNet):
    """Moments or rows (N, D) from the cache of process 0, which alone writes it; None where it does not have them."""
    dim = net.outputs[want.output]
    forms = {"mean": ((dim,), np.float64), "covariance": ((dim, dim), np.float64), "count": ((), np.int64)}
    if kind == "rows":
        forms = {"rows": ((want.count, dim), np.float32)}
    arrays = {} if jax.process_index() else _read(_path(_key(reals, kind, want, net)))
    complete = all(name in arrays and (arrays[name].shape, arrays[name].dtype) == form for name, form in forms.items())
    if not parallel.from_all_processes(np.array([complete]))[0]:
        return None
    arrays = {name: parallel.from_first_process(arrays.get(name), *form) for name, form in forms.items()}
    if kind == "rows":
        return arrays["rows"]
    return metrics.Moments(arrays["mean"], arrays["covariance"], int(arrays["count"]))


def _cached(key: dict, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    arrays = _read(_path(key))
    if not arrays:
        arrays = make()
        _store(key, arrays)
    return arrays


def _path(key: dict) -> pathlib.Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    return cache_dir("statistics") / f"{digest}.npz"


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file of the cache; none where it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception:  # whatever a damaged file makes the reader raise: it is made anew
        return {}


def _store(key: dict, arrays: dict[str, np.ndarray]) -> None:
    if jax.process_index():
        return
    path = _path(key)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    except OSError as error:  # the values are there, and only the next call is slower
        pathlib.Path(part).unlink(missing_ok=True)
        print(f"statistics of the reals are not kept: {error.strerror or error}", flush=True)


def draw_labels(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` labels drawn with replacement from those of the data, as published protocols do; int32 (count,)."""
    drawn = np.random.default_rng([seed, 1]).random(count)
    return labels[np.minimum((drawn * len(labels)).astype(np.int64), len(labels) - 1)]


def at_most(protocol_reals: int | None, size: int) -> int:
    """Reals of a protocol: what it allows, as far as there are so many."""
    return int(min(math.inf if protocol_reals is None else protocol_reals, size))
