"""What the classifier of the bundled digits says of a generator: distances by its features, classes, and baselines."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import metrics, runs, specs
from gan_jax.metrics import frechet

NEIGHBOURS = 5


class Judge(NamedTuple):
    """The classifier and the run's reals."""

    extractor: metrics.Extractor
    reals: dict[str, np.ndarray]  # image, label
    others: np.ndarray  # images of the split that the reals are not of: held out of train, or train
    features: np.ndarray  # of the reals
    protocol: dict[str, Any]


def judge(run, field: str = "image") -> Judge:
    """The classifier, fitted on the train split of a field's digits at the run's resolution, and the run's reals."""
    from gan_jax.metrics import digits_classifier

    section, splits = runs.data_section(run.config, field), runs.splits(run.config, run.config.evaluation.split)
    split = splits.get(field) or splits[""]
    sets = {name: runs.open_field(run.config, field, name) for name in dict.fromkeys(("train", "test", split))}
    parts = {name: dataset.examples(np.arange(dataset.size)) for name, dataset in sets.items()}
    extractor = digits_classifier.fit(
        parts["train"]["image"], parts["train"]["label"], parts["test"]["image"], parts["test"]["label"]
    )
    protocol = {
        "features": extractor.name,
        "features_sha256": extractor.sha256,
        "features_accuracy": extractor.accuracy,
        "preprocessing": extractor.resize,
        "data": section.name,
        "split": split,
        "resolution": str(section.resolution),
        "filter": section.filter,
        "flip": section.flip,
        "reals": len(parts[split]["image"]),
        "data_fingerprint": sets[split].fingerprint,
    }
    reals, others = parts[split], parts["train" if split == "test" else "test"]["image"]
    return Judge(extractor, reals, others, extractor.apply(reals["image"])[0], protocol)


def rows(
    run, reference: Judge, fakes: np.ndarray, names: tuple[str, ...], generate: Callable | None = None
) -> list[dict]:
    """Rows of the metrics `names`, each with its `group`.

    Args:
      run: from `runs.build`.
      reference: see `judge`.
      fakes: uint8 (N, H, W, C), of the labels in turn.
      names: among fd, kd, prdc, classes.
      generate: ema -> other fakes; given where the values that tell what a distance means are asked for.
    """
    features, logits = reference.extractor.apply(fakes)
    suffix = reference.extractor.name
    found = []

    def add(group: str, values: dict[str, float], **protocol: Any) -> None:
        for metric, value in values.items():
            found.append({"group": group, "metric": metric, "value": float(value), **reference.protocol, **protocol})

    if "fd" in names:
        add("fd", {f"fd_{suffix}": _frechet(reference.features, features)})
        if generate is not None:
            known = _baselines(run, generate, reference, len(fakes))
            add("fd", {f"fd_{suffix}/{name}": value for name, value in known.items()})
    if "kd" in names:
        mean, std = metrics.kernel_distance(reference.features, features)
        size = min(1000, len(features), len(reference.features))
        add("kd", {f"kd_{suffix}": mean}, std=std, subsets=100, subset_size=size)
    if "prdc" in names:
        found_neighbours = metrics.neighbourhoods(reference.features, features, k=NEIGHBOURS)
        add("prdc", found_neighbours._asdict(), neighbours=NEIGHBOURS)
    if "classes" in names:
        shares = metrics.class_shares(logits, logits.shape[1])
        values = {"confidence": metrics.confidence(logits), "class_share_min": shares.min()}
        values |= {f"class_share/{label}": share for label, share in enumerate(shares)}
        labels = _labels(run, len(fakes))
        if labels is not None:
            values["label_agreement"] = metrics.agreement(logits, labels)
        add("classes", values)
    return found


def _labels(run, count: int) -> np.ndarray | None:
    """The classes that `sample.held_out` gives, or those of the sources that it gave; None where there are none."""
    if specs.classes(run.spec):
        return np.arange(count) % specs.classes(run.spec)
    return _sources(run, count).get("label")


def _sources(run, count: int) -> dict[str, np.ndarray]:
    """`image` and `label` of the held-out examples that the first so many samples are drawn from; else nothing."""
    for name in runs.sources(run):
        dataset = runs.open_field(run.config, name, run.config.evaluation.split)
        return dataset.examples(np.arange(count) % dataset.size)
    return {}


def _frechet(real: np.ndarray, fake: np.ndarray) -> float:
    a, b = metrics.moments(real), metrics.moments(fake)
    return frechet.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def _baselines(run, generate: Callable, reference: Judge, count: int) -> dict[str, float]:
    """What the distance is worth: reals held out, a Gaussian of each pixel, the generator before training."""
    fresh = jax.tree.map(jnp.asarray, runs.fresh_state(run).ema)
    sources = _sources(run, count)
    sets: dict[str, Callable[[], np.ndarray]] = {
        "floor_train_vs_held_out": lambda: reference.others,
        "pixel_gaussian": lambda: metrics.pixel_gaussian_samples(reference.reals["image"], count, run.config.seed),
        "untrained_generator": lambda: generate(fresh),
    } | ({"untranslated_input": lambda: sources["image"]} if sources else {})
    return {name: _frechet(reference.features, reference.extractor.apply(make())[0]) for name, make in sets.items()}
