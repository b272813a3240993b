"""What draws a run's samples: its generator, compiled for any number of them, and the keys that they are made of."""

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import games, parallel, runs
from gan_jax.layers import pixels
from gan_jax.sample_flags import Job, has_styles

Draw = Callable[..., np.ndarray]  # (ema, keys (N,), given {field: (N, ...)}) -> images


class Halves(NamedTuple):
    """A generator with styles, compiled; its two halves are the same programs whatever is drawn."""

    styles: Callable  # (z (N, latent_size), labels (N,)) -> ws float32 (N, num_ws, w_size)
    paint: Callable  # (ws, seeds (N,) of the noise) -> uint8 (N, H, W, C)


def sampler(
    run: runs.Run, *, batch_size: int | None = None, from_latents: bool = False, whole: bool = False, **options
) -> Draw:
    """Compiles the run's generator for the devices of this process.

    Args:
      run: from `runs.build`.
      batch_size: samples in one pass; the last pass is filled up and cut. None for 256, fewer of large images.
      from_latents: the function takes latents z (N, latent_size) and labels (N,) instead of keys (N,) and `given`.
      whole: all arrays of the game's `sample`, a tuple in their order, instead of the first one.
      **options: of the game's `sample` and `decode`, such as its `truncate` makes.
    Returns:
      draw(ema, keys, given) -> uint8 (N, H, W, C), clips (N, T, H, W, C), or float32 (N, D) points; sample i depends
      on keys[i] and row i of the arrays of `given` alone.
    """
    function = generator(run, from_latents=from_latents, whole=whole, **options)
    return _in_passes(function, batch_size or _batch_size(run), games.sampled(run.game, run.config))


def generator(run: runs.Run, *, from_latents: bool = False, whole: bool = False, **options) -> Callable:
    """What `sampler` compiles: (ema, keys, given), or (ema, latents, labels), -> uint8 images or points, per sample."""

    def decode(ema, z, labels):
        return pixels.quantise(run.game.decode(run.nets, ema, z, labels, **options))

    def generate(ema, keys, given):
        arrays = tuple(map(pixels.quantise, run.game.sample(run.nets, ema, keys, given, **options).values()))
        return arrays if whole else arrays[0]

    return decode if from_latents else generate


def halves(run: runs.Run, ema: dict, *, noise: str = "const", **truncation) -> Halves:
    """As `sampler`, for a generator with styles; options as of the game's `styles` and `paint`."""
    return Painter(run, ema).halves(noise=noise, **truncation)


class Painter:
    """What a trained run draws; a program is compiled when it is first used, and serves all calls that follow."""

    def __init__(self, run: runs.Run, ema: dict):
        self._run, self._ema, self._programs = run, ema, {}

    def stills(self, job: Job) -> tuple[np.ndarray, np.ndarray | None]:
        """Samples (N, ...) of the job's seeds, and their styles where the generator has such.

        A game that draws from pictures gives all its arrays, a tuple.
        """
        if job.given:
            inputs = asked(self._run, job.given)
            is_of_any_size = any(_has_any_size(self._run, name) for name in inputs)
            draw = self._draw(whole=True, **({"batch_size": 1} if is_of_any_size else {}))
            return draw(self._ema, keys_of(job.seeds), inputs), None
        if not has_styles(self._run):
            draw = self._draw(**job.options)
            return draw(self._ema, keys_of(job.seeds), runs.with_labels(self._run, job.labels)), None
        both = self.halves(**job.options)
        ws = both.styles(latents_of(self._run, job.seeds), job.labels) if job.ws is None else job.ws
        return both.paint(ws, job.seeds), ws

    def decode(self, z: np.ndarray, labels: np.ndarray, **truncation) -> np.ndarray:
        """Samples of latents z (N, latent_size), by a generator without styles."""
        return self._draw(from_latents=True, **truncation)(self._ema, z, labels)

    def halves(self, *, noise: str = "const", **truncation) -> Halves:
        """The two halves of a generator with styles; the second one serves every truncation."""
        game, nets = self._run.game, self._run.nets

        def styles(ema, z, labels):
            return game.styles(nets, ema, z, labels, **truncation)

        def paint(ema, ws, keys):
            return pixels.quantise(game.paint(nets, ema, ws, keys, noise=noise))

        first = self._once(("styles", *sorted(truncation.items())), lambda: in_passes(self._run, styles))
        second = self._once(("paint", noise), lambda: in_passes(self._run, paint))
        return Halves(
            lambda z, labels: first(self._ema, z, labels), lambda ws, seeds: second(self._ema, ws, keys_of(seeds))
        )

    def _draw(self, **options) -> Draw:
        return self._once(("draw", *sorted(options.items())), lambda: sampler(self._run, **options))

    def _once(self, key: tuple, make: Callable) -> Callable:
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]


def asked(run: runs.Run, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of what belongs to samples what the game asks for."""
    return {name: given[name] for name in run.game.asks(run.config)}


def _has_any_size(run: runs.Run, name: str) -> bool:
    """Whether pictures of a field may be of any size, so that one of them may fill the memory."""
    return name not in run.spec and runs.field(run, name).kind != "video"


def in_passes(run: runs.Run, function: Callable) -> Callable:
    """function(ema, *arrays (N, ...)) per sample, for any N, compiled as `sampler` does; the result is numpy's."""
    return _in_passes(function, _batch_size(run), games.sampled(run.game, run.config))


def _batch_size(run: runs.Run) -> int:
    """As many samples as have 2^21 pixels, of all their frames, or such numbers, 1 to 256."""
    shapes = [field.shape for field in run.spec.values()]
    most = max(math.prod(shape[:-1] if len(shape) > 2 else shape) for shape in shapes)
    return min(max(2**21 // most, 1), 256)


def _in_passes(function: Callable, batch_size: int, fixed: dict) -> Callable:
    """function(ema, *arrays (N, ...)), per sample, compiled for one batch size: N may be any, the result is numpy's.

    The fixed networks that samples need are put beside what `ema` has.
    """
    mesh = parallel.make_mesh(jax.local_devices())
    fixed = jax.device_put(fixed, parallel.replicated(mesh))
    batch_size = math.ceil(batch_size / mesh.size) * mesh.size
    program = parallel.over_samples(function, mesh)

    def run(ema, *arrays) -> np.ndarray:
        here, count, parts = {**parallel.local_copy(ema, mesh), **fixed}, len(arrays[0]), []
        for start in range(0, count, batch_size):
            place = np.minimum(np.arange(start, start + batch_size), count - 1)
            parts.append(program(here, *jax.tree.map(lambda array, place=place: array[place], arrays)))
        return jax.tree.map(lambda *rows: np.concatenate(rows)[:count], *jax.device_get(parts))

    return run


def keys_of(seeds: np.ndarray) -> jax.Array:
    """One typed key (N,) for each integer seed (N,)."""
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def keys_from(seed: int, purpose: str, indices: np.ndarray) -> jax.Array:
    """Keys (N,) of the samples `indices` of one purpose ("grid", "evaluation") of a run's seed."""
    base = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.vmap(jax.random.fold_in, (None, 0))(base, jnp.asarray(indices, jnp.uint32))


def latents_of(run: runs.Run, seeds: np.ndarray) -> np.ndarray:
    """Latents (N, latent_size) of seeds (N,)."""
    return np.asarray(run.game.latents(runs.generator(run), keys_of(seeds)))
