"""What labelled images teach: a small classifier that has learned them, from any seed, and what it says of others.

Its network is that of `digits_classifier`. That one is fitted once and kept, for it judges; here the images that it is
fitted on are judged, by how many others it then classifies rightly (Ravuri and Vinyals 2019, arXiv 1905.10887).
"""

import hashlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gan_jax.features.digits_classifier import Classifier, prepare

GREY, COLOURS = 16, 32   # side of its input: the larger for pictures in colour that are as large, such as CIFAR's
BATCH = 64               # images per step
STEPS, MOST = 400, 4000  # of optimisation, at the least and at the most
EPOCHS = 10              # through the set, between these
RATE, DECAY = 4e-3, 1e-2  # AdamW's, the rate falling to 0 by a cosine
SHIFT = 1 / 8            # largest shift of an augmented image each way, as a share of its side
PREDICTED = 256          # images that are classified at once


def recipe(side: int) -> str:
    """What belongs to the protocol of its accuracies, in words."""
    return (f"small_classifier 1: {side}px rounded to bytes, 3x3 convolutions 16-32-64, hidden layer 96, dropout 0.3, "
            f"AdamW {RATE} {DECAY} cosine, batches of {BATCH}, {EPOCHS} epochs, {STEPS} to {MOST} steps")


def digest(side: int) -> str:
    """SHA-256 of the recipe."""
    return hashlib.sha256(recipe(side).encode()).hexdigest()


def side_of(shape: tuple[int, ...]) -> int:
    """The side of its input for images (H, W, C)."""
    return COLOURS if shape[2] >= 3 and min(shape[:2]) >= COLOURS else GREY


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 (N, H, W, C) -> uint8 (N, side, side, C), resized as `digits_classifier.resizing` says and rounded."""
    if images.shape[1:3] == (side, side):
        return images
    resized = np.asarray(_prepared(images, (side, side)), np.float64)
    return np.clip(np.round((resized + 1) * 127.5), 0, 255).astype(np.uint8)


def steps_for(count: int) -> int:
    """Steps of optimisation of a set of so many images."""
    return min(max(-(-EPOCHS * count // BATCH), STEPS), MOST)


def predictions(
    images: np.ndarray, labels: np.ndarray, others: np.ndarray, *,
    classes: int, seed: int, augmented: bool = False, mirrored: bool = False,
) -> np.ndarray:
    """Fits the classifier and classifies other images; a function of the arguments, up to the device's rounding.

    Args:
      images: uint8 (N, S, S, C), as `shrunk` gives them; N at least 1.
      labels: integers (N,), below `classes`.
      others: uint8 (M, S, S, C).
      classes: how many there are.
      seed: of the initial weights, the order of the images, dropout and augmentation.
      augmented: each image is shifted by up to `SHIFT` each way while fitting, its border repeated.
      mirrored: with it, half of them are mirrored too.
    Returns:
      The likeliest class of each of the others, int32 (M,).
    """
    model, side = Classifier(classes=classes), images.shape[1]
    order, key, total = np.random.default_rng([seed, 3]), jax.random.key(seed), steps_for(len(images))
    params = _initial(model, jax.random.fold_in(key, 0), jnp.zeros((1, *images.shape[1:])))
    state = params, _optimizer().init(params)
    places = np.concatenate([order.permutation(len(images)) for _ in range(-(-total * BATCH // len(images)))])
    places = places[: total * BATCH].reshape(total, BATCH)
    rates = np.float32(RATE * 0.5 * (1 + np.cos(np.pi * np.arange(total) / total)))
    shift = np.int32(round(side * SHIFT) if augmented else 0)
    mirrors = np.float32(0.5 if augmented and mirrored else 0)
    labels = np.asarray(labels, np.int32)
    for number, (index, rate) in enumerate(zip(places, rates, strict=True)):
        state = _step(model, state, images[index], labels[index], key, np.int32(number), rate, shift, mirrors)
    return _classified(model, state[0], others)


def _classified(model: Classifier, params, images: np.ndarray) -> np.ndarray:
    parts = []
    for start in range(0, len(images), PREDICTED):
        place = np.minimum(np.arange(start, start + PREDICTED), len(images) - 1)
        parts.append(np.asarray(_predict(model, params, images[place])))
    return np.concatenate(parts)[: len(images)]


def _optimizer() -> optax.GradientTransformation:
    """AdamW but for the rate, which is an input of the program, so that there is one for all lengths."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(DECAY))


_prepared = jax.jit(prepare, static_argnums=1)


@partial(jax.jit, static_argnums=0)
def _initial(model: Classifier, key, images):
    return model.init(key, images)


@partial(jax.jit, static_argnums=0)
def _predict(model: Classifier, params, images):
    return model.apply(params, images.astype(jnp.float32) / 127.5 - 1)[1].argmax(axis=1).astype(jnp.int32)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(model: Classifier, state, images, labels, key, number, rate, shift, mirrors):
    """One step on a batch; a program of its own, as a CPU convolves slowly within a loop."""
    params, moments = state
    augment_key, drop_key = jax.random.split(jax.random.fold_in(key, number + 1))
    x = _augmented(augment_key, images.astype(jnp.float32) / 127.5 - 1, shift, mirrors)

    def loss(params):
        _, logits = model.apply(params, x, dropout=True, rngs={"dropout": drop_key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    updates, moments = _optimizer().update(jax.grad(loss)(params), moments, params)
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), moments


def _augmented(key, x, shift, mirrors):
    """Images (B, S, S, C), each moved by up to `shift` pixels each way, and with probability `mirrors` mirrored."""
    shift_key, mirror_key = jax.random.split(key)
    b, h, w, c = x.shape
    most = round(h * SHIFT)
    padded = jnp.pad(x, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    offsets = jax.random.randint(shift_key, (b, 2), most - shift, most + shift + 1)
    crop = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (h, w, c)))
    shifted = crop(padded, offsets)
    return jnp.where(jax.random.bernoulli(mirror_key, mirrors, (b, 1, 1, 1)), shifted[:, :, ::-1], shifted)
