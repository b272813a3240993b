"""R-precision (AttnGAN: Xu et al. 2018, 1711.10485, section 4): whether an image tells its caption from others."""

from collections.abc import Callable

import numpy as np

from gan_jax import games, painter, run_data, runs, sample
from gan_jax.errors import UserError
from gan_jax.evaluate.protocols import RETRIEVAL

OTHERS = 99  # captions beside an image's own
AT_ONCE = 1024  # examples in memory


def measurer(run: runs.Run) -> Callable[[dict], list[dict]]:
    """Of a game with `alike`: ema -> rows, of config.evaluation.samples images of held-out captions in their order.

    An image counts where its own caption is more like it than 99 others, drawn by the run's seed from the captions that
    say something else; from all such where there are fewer. Beside it `/real`, of the held-out images themselves, which
    says what the encoders are worth, and `/shuffled`, of generated images with captions that others were made of.

    Raises:
      UserError: all held-out captions say the same.
    """
    (name,), split = runs.captions(run), run.config.evaluation.split
    dataset, count = run_data.open_data(run.config, split), run.config.evaluation.samples
    numbers = np.arange(count) % dataset.size if dataset.size else np.arange(count)
    parts = np.split(numbers, np.arange(AT_ONCE, count, AT_ONCE))
    asked = [games.asked(run.game, run.config, dataset.examples(part), run.game.asks(run.config)) for part in parts]
    inputs = {field: np.concatenate([arrays[field] for arrays in asked]) for field in asked[0]}
    distinct, own = np.unique(inputs[name][:, 0], axis=0, return_inverse=True)
    if len(distinct) < 2:
        raise UserError(f"metrics={RETRIEVAL}: all captions of the split {split!r} say the same; give another split")
    choices = candidates(own.reshape(-1), len(distinct), run.config.seed)
    protocol = {
        "group": RETRIEVAL, "candidates": choices.shape[1], "encoders": "the run's own", "data": dataset.name,
        "split": dataset.split,
    }  # fmt: skip

    def of_samples(ema, keys, given):
        images, *_ = run.game.sample(run.nets, ema, keys, given).values()
        return run.game.alike(run.nets, ema, images, given)

    def of_reals(ema, images, given):
        return run.game.alike(run.nets, ema, images, given)

    programs = [painter.in_passes(run, function) for function in (of_samples, of_reals)]

    def rows(ema: dict) -> list[dict]:
        keys = painter.keys_from(run.config.seed, "evaluation", np.arange(count))
        images, texts = programs[0](ema, keys, inputs)
        reals = np.concatenate([
            programs[1](ema, sample.reals_of(run, dataset.examples(part)), arrays)[0]
            for part, arrays in zip(parts, asked, strict=True)
        ])  # fmt: skip
        shuffled = np.roll(images, 1, 0)
        _, first = np.unique(own, return_index=True)
        pairs = {"": images, "/real": reals, "/shuffled": shuffled}
        return [{**protocol, "metric": f"{RETRIEVAL}{suffix}", "value": precision(vectors, texts[first], choices)}
                for suffix, vectors in pairs.items()]  # fmt: skip

    return rows


def candidates(own: np.ndarray, captions: int, seed: int) -> np.ndarray:
    """Captions that each image is compared with, its own first: int (N, R + 1), R the lesser of 99 and all others.

    Args:
      own: (N,) places of the images' own captions, in [0, captions).
    """
    rng, count = np.random.default_rng(seed), min(OTHERS, captions - 1)
    rows = [np.append(place, _others(rng, place, captions, count)) for place in own]
    return np.array(rows).reshape(len(own), count + 1)


def _others(rng: np.random.Generator, own: int, captions: int, count: int) -> np.ndarray:
    picked = rng.choice(captions - 1, count, replace=False)
    return picked + (picked >= own)


def precision(images: np.ndarray, captions: np.ndarray, choices: np.ndarray) -> float:
    """Share of images (N, D) whose nearest, by the cosine, of their choices (N, R) of captions (C, D) is the first."""
    images, captions = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (images, captions))
    scores = np.concatenate([
        np.einsum("nd,nrd->nr", images[start : start + AT_ONCE], captions[choices[start : start + AT_ONCE]])
        for start in range(0, len(images), AT_ONCE)
    ])  # fmt: skip
    return float((scores[:, 0] > scores[:, 1:].max(1)).mean())
