"""Writes a run's networks for other programs: `export`."""

import contextlib
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from gan_jax import __version__, folders, parallel, runs, sample_flags, specs
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.interop.importer import FORMAT

FORMATS = ("safetensors", "stablehlo")
PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    workdir: str,
    out: str,
    *,
    format: str,  # one of FORMATS
    truncation: str = "",  # PSI or PSI,CUTOFF, of a program, see `sample_flags.Flags`
    step: int | None = None,  # checkpoint; None for the newest
) -> pathlib.Path:
    """Restores a run and writes its averaged generator, at once or not at all.

    'safetensors' has all networks' arrays, the averaged ones where a network is averaged, named
    `<net>/<collection>/<path>`, and the config and the data's summary as metadata; `import` reads it. 'stablehlo' is a
    program by itself, see `program`.

    Raises:
      UserError: an unknown format, the ending of another, a truncation that the model cannot have, a file
        that cannot be written.
      MissingPathError: no such run.
    """
    if format not in FORMATS:
        raise UserError(f"--format={format}: expected {' or '.join(FORMATS)}")
    path = pathlib.Path(out)
    if path.suffix not in ("", f".{format}"):
        names = [f".{name} for --format={name}" for name in sorted(FORMATS, key=lambda name: name != format)]
        raise UserError(f"--out={out}: expected a name that ends in {' or '.join(names)}")
    sample_flags.truncation(truncation)
    if truncation and format != "stablehlo":
        raise UserError(f"--truncation={truncation}: is a part of programs; leave it out, or take --format=stablehlo")
    config, spec, summary = folders.read_folder(workdir)
    run = runs.build(config, spec)
    options = sample_flags.truncated(sample_flags.Flags(truncation=truncation), run)
    restored = folders.restore(run, workdir, parallel.make_mesh(jax.local_devices()[:1]), step)
    for line in restored.broken:
        print(f"{line}; using step {restored.step}", flush=True)
    state = jax.device_get(restored.state)
    if format == "safetensors":
        data = _safetensors(run, state, summary)
    else:
        data = program(run, state.ema, **options).serialize()
    return _write(path, data)


def _safetensors(run: runs.Run, state, summary: dict[str, Any]) -> bytes:
    import safetensors.numpy

    trees = {net: {"params": params, **state.variables.get(net, {})} for net, params in state.params.items()}
    flat = traverse_util.flatten_dict(trees | state.ema, sep="/")
    metadata = {
        "gan_jax": FORMAT,
        "version": __version__,
        "config": configs.to_json(run.config),
        "data": json.dumps({**summary, "spec": specs.to_json(run.spec)}),
        "averaged": ",".join(state.ema),
        "step": str(int(state.step)),
        "images": str(int(state.images)),
    }
    arrays = {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in flat.items()}
    return safetensors.numpy.save(arrays, metadata)


def program(run: runs.Run, ema: dict, **options) -> jax.export.Exported:
    """The averaged generator as a program for any batch size, on CPU, CUDA and TPU, its weights within.

    Its arguments are z float32 (B, latent_size) and, of a conditional run, labels int32 (B,); it returns images float32
    (B, H, W, C), nominally in [-1, 1]. Options are those of the game's `decode`.

    Raises:
      UserError: a game without latents.
    """
    from jax import export as exports

    if not hasattr(run.game, "decode"):
        raise UserError(f"the game {run.config.game!r} makes no images of latents; export it as safetensors")
    (batch,) = exports.symbolic_shape("batch")
    arguments = [jax.ShapeDtypeStruct((batch, run.nets["generator"].latent_size), jnp.float32)]
    if specs.classes(run.spec):
        arguments.append(jax.ShapeDtypeStruct((batch,), jnp.int32))

    def generate(z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        return run.game.decode(run.nets, ema, z, labels, **options)

    return exports.export(jax.jit(generate), platforms=PLATFORMS)(*arguments)


def _write(path: pathlib.Path, data: bytes) -> pathlib.Path:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise UserError(f"--out={path}: cannot be written: {error.strerror or error}") from error
    return path
