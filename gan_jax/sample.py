"""Images from a trained generator: seeds, labels, truncation, interpolation; the fixed grid of a run."""

import math
import pathlib
import re
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import images, parallel, runs
from gan_jax.errors import UserError
from gan_jax.layers import pixels

MOST = 1_000_000  # numbers in one range of --seeds
Draw = Callable[..., np.ndarray]  # (ema, keys or latents (N, ...), labels (N,)) -> images


def sampler(run: runs.Run, *, batch_size: int = 256, from_latents: bool = False, **options) -> Draw:
    """Compiles the run's generator for the devices of this process.

    Args:
      run: from `runs.build`.
      batch_size: samples in one pass; the last pass is filled up and cut.
      from_latents: the function takes latents z (N, latent_size) instead of keys (N,).
      **options: of the game's `sample` and `decode`, such as its `truncate` makes.
    Returns:
      draw(ema, keys, labels) -> uint8 (N, H, W, C), or float32 (N, D) points; sample i depends on keys[i] and
      labels[i] alone.
    """
    mesh = parallel.make_mesh(jax.local_devices())
    batch_size = math.ceil(batch_size / mesh.size) * mesh.size
    game = run.game.decode if from_latents else run.game.sample
    generate = parallel.over_samples(
        lambda ema, inputs, labels: pixels.quantise(game(run.nets, ema, inputs, labels, **options)), mesh
    )

    def draw(ema, inputs, labels) -> np.ndarray:
        here = parallel.local_copy(ema, mesh)
        parts = []
        for start in range(0, len(labels), batch_size):
            place = np.minimum(np.arange(start, start + batch_size), len(labels) - 1)
            parts.append(generate(here, inputs[place], jnp.asarray(labels)[place]))
        return np.concatenate(jax.device_get(parts))[: len(labels)]

    return draw


def keys_of(seeds: np.ndarray) -> jax.Array:
    """One typed key (N,) for each integer seed (N,)."""
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def keys_from(seed: int, purpose: str, indices: np.ndarray) -> jax.Array:
    """Keys (N,) of the samples `indices` of one purpose ("grid", "evaluation") of a run's seed."""
    base = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.vmap(jax.random.fold_in, (None, 0))(base, jnp.asarray(indices, jnp.uint32))


def fixed_grid(run: runs.Run, draw: Draw, ema: dict) -> np.ndarray:
    """The run's `config.grid` samples from latents that stay the same from its first step to its last."""
    indices = np.arange(run.config.grid)
    return draw(ema, keys_from(run.config.seed, "grid", indices), indices % max(run.spec.num_classes, 1))


def picture(samples: np.ndarray) -> np.ndarray:
    """One uint8 picture (H, W, C): a grid of images (N, H, W, C), or a density of points (N, 2)."""
    if samples.ndim == 4:
        return images.grid(samples)
    return images.scatter(samples, extent=max(1.5, 1.2 * float(np.abs(samples).max(initial=0.0))))[0]


def numbers(flag: str, text: str) -> np.ndarray:
    """Reads `0-63`, `1,5,9` or a mixture of both. Raises UserError otherwise. int64 (N,)."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]) or int(match[2] or match[1]) >= 2**32:
            raise UserError(f"--{flag}={text}: expected whole numbers such as 0-63 or 1,5,9")
        if int(match[2] or match[1]) - int(match[1]) >= MOST:
            raise UserError(f"--{flag}={text}: {part} is too long a range; give at most {MOST} at a time")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return np.array(found, np.int64)


def sample(
    workdir: str,
    out: str,
    *,
    seeds: str = "0-63",  # one image each
    labels: str = "",  # classes, repeated over the seeds; needs a conditional run
    truncation: str = "1",  # PSI or PSI,CUTOFF: of all layers, or of the first ones; for models with styles
    interpolate: int = 0,  # frames between each two seeds; 0 for still images
    step: int | None = None,  # checkpoint; None for the newest
) -> list[pathlib.Path]:
    """Restores a run's averaged generator and writes `seed<seed>.png`, `grid.png`, or `interpolation.gif` into `out`.

    Returns:
      The files, in the order of the seeds, then the grid.
    Raises:
      UserError: a flag that this model has no use for, a label out of range, a checkpoint that cannot be read.
      MissingPathError: no such run.
    """
    psi, cutoff = _truncation(str(truncation))
    config, spec, _ = runs.read_folder(workdir)
    run = runs.build(config, spec)
    wanted = numbers("seeds", seeds)
    classes = _classes(labels, run, len(wanted))
    if psi != 1 and not hasattr(run.game, "truncate"):
        flag = f"--truncation={truncation}"
        raise UserError(f"{flag}: {config.generator.name!r} has no styles; leave the flag out")
    options = run.game.truncate(run.nets, psi, cutoff) if psi != 1 else {}
    restored = runs.restore(run, workdir, parallel.make_mesh(), step)
    for line in restored.broken:
        print(f"{line}; using step {restored.step}", flush=True)
    folder = pathlib.Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if interpolate:
            return [_write_interpolation(folder, run, restored.state.ema, wanted, classes, interpolate, options)]
        return _write_stills(folder, run, restored.state.ema, wanted, classes, options)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror or error}") from error


def _truncation(text: str) -> tuple[float, int | None]:
    """Reads `0.7` or `0.7,8`."""
    psi, comma, cutoff = text.partition(",")
    try:
        psi, cutoff = float(psi), int(cutoff) if comma else None
    except ValueError:
        psi = math.nan
    if not math.isfinite(psi):
        raise UserError(f"--truncation={text}: expected a number, or a number and a count of layers, such as 0.7,8")
    return psi, cutoff


def _classes(labels: str, run: runs.Run, count: int) -> np.ndarray:
    known = run.spec.num_classes
    if labels and not known:
        raise UserError(f"--labels={labels}: this run is unconditional; leave the flag out")
    if not labels:
        return np.arange(count) % max(known, 1)
    classes = numbers("labels", labels)
    if classes.max() >= known:
        raise UserError(
            f"--labels={labels}: {classes.max()} is out of range; this run knows the labels 0 to {known - 1}"
        )
    return np.resize(classes, count)


def _write_stills(
    folder: pathlib.Path, run, ema, seeds: np.ndarray, classes: np.ndarray, options: dict
) -> list[pathlib.Path]:
    drawn = sampler(run, **options)(ema, keys_of(seeds), classes)
    files = []
    if drawn.ndim == 4:
        for seed, label, image in zip(seeds, classes, drawn, strict=True):
            mark = f"_label{label}" if run.spec.num_classes else ""
            files.append(folder / f"seed{seed:06}{mark}.png")
            images.save(files[-1], image)
    else:
        files.append(folder / "points.csv")
        np.savetxt(files[-1], drawn, delimiter=",", header="x,y", comments="")
    files.append(folder / "grid.png")
    images.save(files[-1], picture(drawn))
    return files


def _write_interpolation(folder, run, ema, seeds, classes, frames: int, options: dict) -> pathlib.Path:
    """Great circles through the latents of the seeds, in order and back to the first."""
    if len(seeds) < 2 or frames < 1 or len(run.spec.shape) != 3:
        raise UserError(f"--interpolate={frames}: needs two seeds or more, one frame or more, and a model of images")
    z = np.asarray(run.game.latents(run.nets["generator"], keys_of(seeds)))
    path, labels = [], []
    for number in range(len(seeds)):
        following = z[(number + 1) % len(seeds)]
        path += [slerp(z[number], following, t) for t in np.arange(frames) / frames]
        labels += [classes[number]] * frames
    drawn = sampler(run, from_latents=True, **options)(ema, jnp.asarray(np.stack(path)), np.array(labels))
    images.save_animation(folder / "interpolation.gif", drawn)
    return folder / "interpolation.gif"


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Spherical interpolation from a (D,) at t = 0 to b (D,) at t = 1 (Shoemake 1985); linear where parallel."""
    cosine = np.clip(np.dot(a, b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12), -1.0, 1.0)
    angle = math.acos(cosine)
    if math.sin(angle) < 1e-6:
        return ((1 - t) * a + t * b).astype(np.float32)
    return ((math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)).astype(np.float32)
