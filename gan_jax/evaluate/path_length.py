"""Perceptual path length of a run's generator; see `metrics.path_length` for the definition."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import painter, parallel, specs
from gan_jax.evaluate import collect
from gan_jax.evaluate.protocols import Protocol
from gan_jax.features import lpips
from gan_jax.features.networks import FeatureNet
from gan_jax.layers import random
from gan_jax.metrics import path_length

SECOND, PLACE = 101, 102  # folded into a sample's key: the path's other latent, and where on it the step begins
# Steps of one device to begin with; others 32. So small a difference of images is near rounding, which depends on how
# many of them a program takes: the same number on every device, however many there are.
FIRST_BATCH = {"cpu": 4}


def measurer(run, protocol: Protocol, net: FeatureNet, check: Callable[[], None] = lambda: None):
    """Compiles the protocol: (ema, labels (samples,) or None) -> the trimmed mean; all processes take part.

    Step i, its noise included, is a function of the run's seed and of i. Both of its ends have one noise. `check` is
    called before each batch; what it raises ends the measurement.
    """
    mesh = parallel.make_mesh(jax.local_devices())
    program = parallel.over_samples(_step(run, **protocol.options), mesh)
    variables = jax.device_put(net.variables, parallel.replicated(mesh))
    batch = 0  # that fits, once it was tried

    def measure(ema: dict, labels: np.ndarray | None) -> float:
        here, values = parallel.local_copy(ema, mesh), []
        labels = np.zeros(protocol.samples, np.int32) if labels is None else labels

        def dispatch(places: np.ndarray):
            keys = painter.keys_from(run.config.seed, "path_length", places)
            return program((here, variables), keys, labels[places])

        nonlocal batch
        if not batch:
            first = FIRST_BATCH.get(jax.local_devices()[0].platform, 32) * mesh.size
            batch = collect.largest_batch(lambda b: dispatch(np.zeros(b, np.int64)), first, mesh.size)
        for _, places in collect.chunks(protocol.samples, batch):
            check()
            jax.block_until_ready(values[-2:-1])  # one batch ahead of the devices, so that the question comes in time
            values.append(dispatch(places))
        distances = [parallel.from_all_processes(np.asarray(value)) for value in values]
        return path_length.trimmed_mean(np.concatenate(distances)[: protocol.samples])

    return measure


def _step(run, *, space: str, sampling: str, crop: bool):
    """((ema, variables of LPIPS), keys (B,), labels (B,)) -> (B,), the squared distance over epsilon^2 of each step."""
    game, net = run.game, run.nets["generator"]

    def step(shared, keys, labels):
        ema, variables = shared
        label = labels if specs.classes(run.spec) else None
        twice = None if label is None else jnp.concatenate([label, label])
        pair = jnp.concatenate([game.latents(net, keys), game.latents(net, random.fold(keys, SECOND))])
        place = path_length.positions(random.uniform(random.fold(keys, PLACE), ()), sampling=sampling)
        if space == "w":
            first, second = jnp.split(game.styles(run.nets, ema, pair, twice), 2)
            ws = path_length.ends(first, second, place, space="w")
        else:
            ends = path_length.ends(*jnp.split(pair, 2), place, space="z")
            ws = game.styles(run.nets, ema, ends, twice)
        images = game.paint(run.nets, ema, ws, jnp.concatenate([keys, keys]), noise="random")
        prepared = path_length.prepared(images.astype(jnp.float32), crop=crop)
        return path_length.distances(lpips.embedding(variables, prepared, net="vgg"))

    return step
