"""What is seen beside a run's own training images: how well a classifier learns generated ones, and how near they lie.

Classification accuracy scores: Ravuri and Vinyals 2019, arXiv 1905.10887. Distances: see `metrics.nearest`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_jax import metrics, parallel
from gan_jax.errors import UserError
from gan_jax.evaluate import reals as real_side
from gan_jax.evaluate.collect import Collected, Needs, Want
from gan_jax.evaluate.protocols import Protocol
from gan_jax.evaluate.reals import Reals
from gan_jax.evaluate.training_set import LEARNED
from gan_jax.features import small_classifier
from gan_jax.metrics import nearest, scores

SEEDS = 5  # classifiers whose accuracies make an interval
READ = 256  # images that are opened at once, to be shrunk
WAITING_BYTES = 1 << 28  # of generated images that are compared with the training images in one go
Rows = tuple[str, float, dict[str, Any]]  # what the name ends in, the value, and what is told beside it


class Training:
    """The images that a run was trained on, and those held out, as classifiers and distances look at them."""

    def __init__(self, dataset, held_out, *, mirrored: bool):
        """Two sets of `data`; `mirrored` where the run has seen mirrored copies too."""
        self.reals, self.held_out = real_side.of(dataset, flip=mirrored), real_side.of(held_out)
        self._mirrored, self._side = mirrored, small_classifier.side_of(dataset.shape)
        self._sets: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._accuracies: dict[str, np.ndarray] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of both sets."""
        return self.reals.dataset.class_names

    def check_classes(self) -> None:
        """Raises UserError where there are no labels, or a class has no image to learn or to be tested on."""
        for reals in (self.reals, self.held_out):
            dataset = reals.dataset
            of = f"{dataset.name}/{dataset.split}"
            if not dataset.class_names or dataset.class_names != self.class_names:
                raise UserError(f"metrics={','.join(LEARNED)}: {of} has not the labels that the run was trained with")
            counts = np.bincount(reals.labels(), minlength=len(self.class_names))
            if not counts.all():
                name = self.class_names[int(np.argmin(counts))]
                raise UserError(f"metrics={','.join(LEARNED)}: the class {name!r} has no image in {of}; name a split "
                                "that has images of all classes")

    def shrunk(self, images: np.ndarray) -> np.ndarray:
        """Images as the classifiers take them."""
        return small_classifier.shrunk(images, self._side)

    def own(self) -> tuple[np.ndarray, np.ndarray]:
        """The training images, shrunk, and their labels (N,)."""
        return self._opened("own", self.reals)

    def predictions(self, images: np.ndarray, labels: np.ndarray, augmented: bool = False) -> np.ndarray:
        """What `SEEDS` classifiers that have learned these images say of the held-out ones, int32 (SEEDS, M).

        Process 0's, in every process: on another processor they would differ.
        """

        def fit():
            if jax.process_index():
                return None
            tests, _ = self._opened("held out", self.held_out)
            options = {"classes": len(self.class_names), "augmented": augmented, "mirrored": self._mirrored}
            learn = partial(small_classifier.predictions, images, labels, tests, **options)
            return np.stack([learn(seed=seed) for seed in range(SEEDS)])

        shape = SEEDS, self.held_out.dataset.size
        return parallel.from_first_process(parallel.together(fit), shape, np.int32)

    def baseline(self, augmented: bool = False) -> np.ndarray:
        """`predictions` of those that have learned the training images; made once."""
        key = f"augmented {augmented}"
        if key not in self._accuracies:
            self._accuracies[key] = self.predictions(*self.own(), augmented)
        return self._accuracies[key]

    def accuracies(self, predicted: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        """(share that each classifier has right (SEEDS,), mean share by class) of `predictions`."""
        labels = self.held_out.labels()
        by_class = metrics.class_accuracies(predicted, labels, len(self.class_names))
        shares = (round(float(share), 6) for share in by_class)
        return (predicted == labels).mean(axis=1), dict(zip(self.class_names, shares, strict=True))

    def protocol(self) -> dict[str, Any]:
        """What a row says of the training images."""
        data = self.reals.dataset.protocol()
        return {"training": f"{data['name']}/{data['split']}", "training_images": data["count"],
                "training_fingerprint": data["fingerprint"]}

    def classifiers(self) -> dict[str, Any]:
        """What a row says of the classifiers."""
        return {"classifier": small_classifier.recipe(self._side), "classifiers": SEEDS,
                "classifier_sha256": small_classifier.digest(self._side), "level": scores.LEVEL}

    def _opened(self, key: str, reals: Reals) -> tuple[np.ndarray, np.ndarray]:
        """All images of a set, shrunk, and labels, in the set's own order."""
        if key not in self._sets:
            dataset = reals.dataset
            parts = [self.shrunk(dataset.examples(np.arange(start, min(start + READ, dataset.size)))["image"])
                     for start in range(0, dataset.size, READ)]
            self._sets[key] = np.concatenate(parts), reals.labels()
        return self._sets[key]


class Learned:
    """Accuracy of classifiers that have learned the images of a pass, alone or with the training images."""

    def __init__(self, protocol: Protocol, training: Training):
        """`protocol` is of a kind of `training_set.LEARNED`."""
        self._protocol, self._training, self._images = protocol, training, []

    def needs(self) -> Needs:
        """Of the pass over generated images."""
        return Needs(consumers=((self._protocol.samples, self._update),))

    def _update(self, images: np.ndarray) -> None:
        self._images.append(self._training.shrunk(images))

    def rows(self, fakes: Collected, labels: np.ndarray) -> list[Rows]:
        """The score; beside that of generated images alone those of the training images, as they are and augmented.

        Args:
          fakes: what was kept of the pass.
          labels: of its images, as many or more.
        """
        training, images = self._training, np.concatenate(self._images)
        labels = labels[: len(images)]
        if self._protocol.kind == "cas":
            sets = {"": training.predictions(images, labels), "/real": training.baseline(),
                    "/real_augmented": training.baseline(augmented=True)}
            return [self._row(suffix, predicted, len(images) if not suffix else 0)
                    for suffix, predicted in sets.items()]
        own, own_labels = training.own()
        both = training.predictions(np.concatenate([own, images]), np.concatenate([own_labels, labels]))
        suffix, value, beside = self._row("", both, len(images))
        alone, _ = training.accuracies(training.baseline())
        gain = metrics.student_interval(training.accuracies(both)[0] - alone)  # of the same seed each
        beside |= {"value_of_reals": float(alone.mean()), "gain": gain.mean, "gain_low": gain.low,
                   "gain_high": gain.high}  # fmt: skip
        return [(suffix, value, beside)]

    def _row(self, suffix: str, predicted: np.ndarray, generated: int) -> Rows:
        each, by_class = self._training.accuracies(predicted)
        spread = metrics.student_interval(each)
        beside = {"low": spread.low, "high": spread.high, "accuracy_by_class": by_class, "samples": generated}
        return suffix, spread.mean, {**beside, **self._training.classifiers(), **self._training.protocol()}


class Nearest:
    """Distances of the images of a pass, and of held-out ones, from the nearest training image."""

    def __init__(self, protocol: Protocol, training: Training, features: Callable[[Reals], np.ndarray]):
        """`features` gives the rows of a set's images that a protocol with a network compares."""
        self._protocol, self._training, self._features = protocol, training, features
        self._waiting, self._distances = [], []

    def needs(self) -> Needs:
        """Of the pass over generated images."""
        if self._protocol.network:
            return Needs(rows=(self._want(),))
        return Needs(consumers=((self._protocol.samples, self._update),))

    def rows(self, fakes: Collected, labels: np.ndarray | None) -> list[Rows]:
        """The mean distance, and the share of those as near as few held-out images are, each with that of held-out
        images. `fakes` is what was kept of the pass."""
        training = self._training
        if self._protocol.network:
            own = self._features(training.reals)
            tile = nearest.tile_rows(own.shape[1])
            tiles = lambda: (own[start : start + tile] for start in range(0, len(own), tile))  # noqa: E731
            generated, held_out = (metrics.nearest_distances(rows, tiles)
                                   for rows in (fakes.rows[self._want()], self._features(training.held_out)))
        else:
            self._flush()
            generated = np.concatenate(self._distances)
            held_out = np.concatenate([self._to_training(part) for part in _pixels(training.held_out, WAITING_BYTES)])
        values = metrics.nearness(generated, held_out)
        return [("", values.generated, {"value_of_reals": values.held_out, **training.protocol()}),
                ("_share", values.generated_share,
                 {"value_of_reals": values.held_out_share, "quantile": nearest.QUANTILE, **training.protocol()})]

    def _want(self) -> Want:
        return Want(self._protocol.network, self._protocol.output, self._protocol.samples)

    def _update(self, images: np.ndarray) -> None:
        self._waiting.append(images.reshape(len(images), -1))
        if sum(rows.nbytes for rows in self._waiting) >= WAITING_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._distances.append(self._to_training(np.concatenate(self._waiting)))
            self._waiting = []

    def _to_training(self, rows: np.ndarray) -> np.ndarray:
        """Distances (N,) of pixels (N, D) of 0 to 255 where black is -1 and white 1."""
        tile = nearest.TILE_BYTES // 8
        return metrics.nearest_distances(rows, lambda: _pixels(self._training.reals, tile)) * (2 / 255)


def _pixels(reals: Reals, most_bytes: int) -> Iterator[np.ndarray]:
    """The pixels of a set, uint8 (n, D) of so many bytes at the most, or of one image."""
    at_once = max(most_bytes // int(np.prod(reals.dataset.shape)), 1)
    for start in range(0, reals.size, at_once):
        images = reals.images(np.arange(start, min(start + at_once, reals.size)))
        yield images.reshape(len(images), -1)


class Source(NamedTuple):
    """What protocols of `training_set.NAMES` are made with."""

    training: Training
    features: Callable[[Protocol, Reals], np.ndarray]  # rows of a set's images, of a protocol's network

    def state(self, protocol: Protocol) -> Learned | Nearest:
        """What takes the images of the protocol's pass."""
        if protocol.kind in LEARNED:
            return Learned(protocol, self.training)
        return Nearest(protocol, self.training, partial(self.features, protocol))
