"""Classifiers that are fitted on a run's data, and whether samples show all that they were to show."""

from typing import NamedTuple

import jax
import numpy as np

from gan_jax import parallel, run_data, runs, specs
from gan_jax.errors import UserError
from gan_jax.evaluate import protocols
from gan_jax.evaluate import reals as real_side
from gan_jax.features import clips_classifier, digits_classifier, networks
from gan_jax.features import fitted as weight_files
from gan_jax.features.networks import FeatureNet


class Asked(NamedTuple):
    """The labels that samples are to show: those of the examples that they are drawn from."""

    classes: dict[str, int]  # of each label, in the order of a judge's answers
    table: np.ndarray  # int32 (N, labels), of the examples; sample i is of example i % N
    order: np.ndarray  # int64, of the reals: examples, and from N on their mirrored copies

    def of_samples(self, logits: np.ndarray) -> dict[str, float]:
        """How often the first samples show what they were to show, see `shares`."""
        return shares(logits, self.table[np.arange(len(logits)) % len(self.table)], self.classes)

    def of_reals(self, logits: np.ndarray) -> dict[str, float]:
        """How often the judge is right of the first reals."""
        places = self.order[: len(logits)]
        own = places < len(self.table)  # what is left and right is another thing in a mirror
        return shares(logits[own], self.table[places[own]], self.classes)


def names(spec: specs.Spec) -> tuple[str, ...]:
    """The labels among fields."""
    return tuple(name for name, field in spec.items() if field.kind == "label")


def asked(run: runs.Run, field: str) -> Asked:
    """What held-out examples show, all labels of the data.

    Args:
      run: whose samples are drawn from examples.
      field: that they are to be like.
    Raises:
      UserError: samples are drawn from seeds or labels, or the data have no labels.
    """
    if not runs.of_examples(run):
        raise UserError(f"metrics={protocols.OBEYED}: samples of the game {run.config.game!r} are of no examples, "
                        "which say what is to be drawn; list classes, of a run with labels")
    dataset = run_data.open_field(run.config, field, run.config.evaluation.split)
    fields = names(dataset.spec)
    if not fields:
        raise UserError(f"metrics={protocols.OBEYED}: {dataset.name!r} has no labels, by which a judge could be fitted")
    reals = real_side.of(dataset, flip=run.config.evaluation.flip_reals)
    classes = {name: dataset.spec[name].classes for name in fields}
    return Asked(classes, np.stack([reals.labels(name) for name in fields], axis=1), reals.order)


def shares(logits: np.ndarray, labels: np.ndarray, classes: dict[str, int]) -> dict[str, float]:
    """How often all labels (N, F) are what a judge sees, '', and how often each is, by its name.

    Args:
      logits: (N, sum of the classes), of one label after another.
      labels: (N, F).
      classes: of each label.
    """
    right = digits_classifier.answers(logits, tuple(classes.values())) == labels
    return {"": float(right.all(axis=1).mean()), **dict(zip(classes, map(float, right.mean(axis=0)), strict=True))}


def data_of(run: runs.Run, field: str, split: str):
    """The Dataset that the run's classifier is fitted on, prepared as a field's data are."""
    config, name = run.config.copy_and_resolve_references(), run.config.evaluation.judge
    sections = run_data.data_sections(config)
    if run.config.evaluation.features == networks.CLASSIFIER:
        sections["" if "" in sections else field].name = name
    dataset = run_data.open_field(config, field, split)
    if not names(dataset.spec):
        raise UserError(f"config.evaluation.judge={name!r}: these data have no labels; name others")
    return dataset


def fitted(run: runs.Run, field: str, listed: tuple[str, ...], network: str) -> FeatureNet:
    """One of `networks.FITTED`, for the metrics that are listed.

    Process 0's weights, in every process: fitted on other processors they would differ.

    Raises:
      UserError: the data have no labels, or several where the classes of one are asked for.
    """
    def fit():
        if network == networks.CLIPS:
            return clips_classifier.fit(*_clips(run))
        return _of_labels(run, field) if network == networks.OF_LABELS else _judge(run, field, listed)

    net = parallel.together(fit)
    arrays = jax.tree.map(lambda x: parallel.from_first_process(x, x.shape, x.dtype), net.variables)
    return weight_files.of_weights(arrays, net)


def _judge(run: runs.Run, field: str, listed: tuple[str, ...]) -> FeatureNet:
    """The run's classifier, of the label of a field's data or of other data at their resolution; else of all labels.

    It is fitted on the train split, and tried on the test split.
    """
    sets = [data_of(run, field, split) for split in ("train", "test")]
    fields = ("label",) if "label" in sets[0].spec else names(sets[0].spec)
    if "classes" in listed and len(fields) > 1:
        raise UserError(f"metrics=classes: {sets[0].name!r} has the labels {', '.join(fields)}, and the shares of "
                        f"classes are of one; list {protocols.OBEYED}")
    name = run.config.evaluation.features
    noise = digits_classifier.TEXTURE_NOISE if name == networks.CLASSIFIER else digits_classifier.NOISE
    noise = digits_classifier.NOISE_OF_SEVERAL if len(fields) > 1 else noise
    return _fit(sets, fields, noise)._replace(name=name)


def _of_labels(run: runs.Run, field: str) -> FeatureNet:
    """The judge of all labels of a field's data, tried on the split that samples are held against."""
    section = run.config.evaluation
    sets = [run_data.open_field(run.config, field, split) for split in (section.judge_split, section.split)]
    return _fit(sets, names(sets[0].spec), digits_classifier.NOISE_OF_SEVERAL)._replace(name=networks.OF_LABELS)


def _fit(sets: list, fields: tuple[str, ...], noise: float) -> FeatureNet:
    """A classifier of these labels, fitted on the first of two sets and tried on the second."""
    arrays = []
    for dataset in sets:
        examples = dataset.examples(np.arange(dataset.size))
        labels = [examples[name] for name in fields]
        arrays += [examples["image"], labels[0] if len(fields) == 1 else np.stack(labels, axis=1)]
    classes = tuple(sets[0].spec[name].classes for name in fields) if len(fields) > 1 else ()
    return digits_classifier.fit(*arrays, noise=noise, classes=classes)


def _clips(run: runs.Run) -> tuple[np.ndarray, ...]:
    """(clips, labels or None, the same held out) that the run's judge of clips is fitted on, evenly spread.

    Of the split that is trained on; those held out are of `config.evaluation.split`, or, where there is no other, every
    fifth.
    """
    train = real_side.open_drawn(run.config)
    places = _spread(train.size, clips_classifier.MOST)
    if (split := run.config.evaluation.split) in ("", train.split):
        is_held_out = np.arange(len(places)) % 5 == 4
        sets = (train, places[~is_held_out]), (train, places[is_held_out])
    else:
        test = real_side.open_drawn(run.config, split)
        sets = (train, places), (test, _spread(test.size, clips_classifier.MOST_HELD_OUT))
    batches = [dataset.examples(places) for dataset, places in sets]
    return tuple(batch.get(name) for batch in batches for name in (next(iter(train.spec)), "label"))


def _spread(size: int, most: int) -> np.ndarray:
    """Places of a set, at most so many."""
    return np.linspace(0, size - 1, min(size, most)).astype(np.int64)
