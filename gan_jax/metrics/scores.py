"""What a classifier says of images: inception score, class shares, confidence, entropy, agreement with labels."""

from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError

LEVEL = 0.95  # of intervals


class Spread(NamedTuple):
    """A mean, and the interval that its true value lies in with probability `LEVEL`."""

    mean: float
    low: float
    high: float


def log_softmax(logits) -> np.ndarray:
    """Log probabilities in float64; (N, K) -> (N, K)."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def inception_score(logits, *, splits: int = 10, seed: int | None = 2020) -> tuple[float, float]:
    """exp(mean KL(p(y|x) || p(y))) over splits: Salimans et al. 2016 (arXiv 1606.03498), section 4.

    Args:
      logits: (N, K).
      splits: parts of equal size (to one row) that are scored apart, in order.
      seed: of the permutation before splitting (RandomState, 2020 as torch-fidelity has it); None for none.
    Returns:
      Mean and population standard deviation over the splits.
    Raises:
      UserError: there are more splits than rows, or no split.
    """
    count = len(logits)
    if not 1 <= splits <= count:
        raise UserError(f"inception score of {count} images in {splits} splits: expected 1 to {count}.")
    logs = log_softmax(logits)
    if seed is not None:
        logs = logs[np.random.RandomState(seed).permutation(count)]
    scores = []
    for part in range(splits):
        rows = logs[part * count // splits:(part + 1) * count // splits]
        p = np.exp(rows)
        marginal = p.mean(axis=0)
        # a class whose probability underflows in every row adds nothing, and log 0 must not be met
        log_marginal = np.log(np.where(marginal > 0, marginal, 1.0))
        scores.append(np.exp(np.sum(p * (rows - log_marginal), axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def class_shares(outputs, num_classes: int) -> np.ndarray:
    """Share of images whose largest output is each class; logits or probabilities (N, K) -> (K,).

    Raises:
      UserError: the outputs are not (N, num_classes), or there are none.
    """
    outputs = np.asarray(outputs)
    if outputs.ndim != 2 or outputs.shape[1] != num_classes or not len(outputs):
        raise UserError(f"class shares of outputs {outputs.shape}: expected (N, {num_classes}), N >= 1.")
    return np.bincount(outputs.argmax(axis=1), minlength=num_classes) / len(outputs)


def confidence(logits) -> float:
    """Mean probability of the likeliest class; logits (N, K) -> between 1 / K and 1."""
    return float(np.exp(log_softmax(logits).max(axis=1)).mean())


def entropy(logits) -> float:
    """Mean entropy of the softmax in nats; logits (N, K) -> between 0, where all are sure, and log K."""
    logs = log_softmax(logits)
    return float(-np.sum(np.exp(logs) * logs, axis=1).mean())


def agreement(logits, labels) -> float:
    """Share of images that get the class they were conditioned on; logits (N, K), labels (N,)."""
    labels = np.asarray(labels)
    assert labels.shape == (len(logits),), (labels.shape, len(logits))
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def class_accuracies(predicted, labels, num_classes: int) -> np.ndarray:
    """Share of each class's images that are classified rightly; (..., N) and (N,) -> (K,), NaN without an image.

    Leading axes, such as seeds of the classifier, are averaged.
    """
    right = (np.asarray(predicted) == np.asarray(labels)).reshape(-1, len(labels)).mean(axis=0)
    counts = np.bincount(labels, minlength=num_classes)
    with np.errstate(invalid="ignore"):
        return np.bincount(labels, right, minlength=num_classes) / counts


def student_interval(values) -> Spread:
    """The mean of independent values (N,), N at least 2, with Student's interval: mean +- t s / sqrt(N).

    t is the quantile of N - 1 degrees of freedom that leaves (1 - LEVEL) / 2 above it, s^2 the unbiased variance.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, np.float64)
    mean, count = values.mean(), len(values)
    reach = stdtrit(count - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(count)
    return Spread(float(mean), float(mean - reach), float(mean + reach))
