"""A small judge for the embedded digits: a classifier whose last hidden layer gives features.

It is fitted in seconds where no pretrained network is at hand. Its distances compare with those of the same
weights only, which their SHA-256 names, never with published FIDs.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from gan_jax.cache import cache_dir
from gan_jax.errors import UserError
from gan_jax.features import fitted
from gan_jax.features.networks import JUDGE as NAME
from gan_jax.features.networks import FeatureNet
from gan_jax.features.state import weights_sha256

RESOLUTION = 16     # the network's own input size
FEATURES = 96       # width of the hidden layer that serves as features
STEPS = 400         # of optimisation
STEPS_OF_SEVERAL = 1_200  # of several labels of each image
BATCH = 64          # images per step
SHIFT = 2           # largest random translation while fitting, in pixels of the 16x16 input
NOISE = 1.0         # largest standard deviation of the noise added while fitting, images being in [-1, 1]
NOISE_OF_SEVERAL = 0.3  # the same where images have several labels
TEXTURE_NOISE = 0.1  # the same for other pictures than digits, whose classes may differ in texture alone
CPU_BATCH = 256     # images that a CPU takes at once
RECIPE = f"{NAME} 1: {RESOLUTION}px, features {FEATURES}, steps {STEPS}x{BATCH}, shift {SHIFT}, noise {NOISE}"


class Classifier(nn.Module):
    """Three 3x3 convolutions, pooling, a hidden layer; (B, *`own_size`, C) in [-1, 1] -> (features, logits).

    Other sides that are multiples of four will do, each with weights of its own.
    """

    classes: int

    @nn.compact
    def __call__(self, x, *, dropout: bool = False):
        conv = partial(nn.Conv, kernel_size=(3, 3), precision="highest")
        dense = partial(nn.Dense, precision="highest")
        x = nn.relu(conv(16)(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))                     # (B, 8, 8, 16)
        x = nn.relu(conv(32)(x))
        x = nn.avg_pool(nn.relu(conv(64)(x)), (2, 2), (2, 2))  # (B, 4, 4, 64)
        features = nn.relu(dense(FEATURES)(x.reshape(x.shape[0], -1)))
        logits = dense(self.classes)(nn.Dropout(0.3, deterministic=not dropout)(features))
        return features, logits


def prepare(images, size: tuple[int, int] | None = None):
    """uint8 (B, H, W, C) -> float32 (B, *size, C) in [-1, 1], by means or bilinear; `own_size` where none is asked."""
    x = jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0
    (b, h, w, c), (height, width) = x.shape, size or own_size(*x.shape[1:3])
    if h % height or w % width:
        return jax.image.resize(x, (b, height, width, c), "linear", antialias=True)
    return x.reshape(b, height, h // height, width, w // width, c).mean(axis=(2, 4))


def resizing(height: int, width: int) -> str:
    """What `prepare` does to images, in words."""
    return f"box to {height}x{width} where the sides are multiples of it, else antialiased bilinear"


def own_size(height: int, width: int) -> tuple[int, int]:
    """What images become: 16x16, or twice, three times and so on as wide or high where they are so themselves."""
    least = min(height, width)
    return tuple(RESOLUTION * max(side // least, 1) for side in (height, width))


def fit(
    train_images, train_labels, test_images, test_labels, *, noise: float = NOISE, classes: tuple[int, ...] = ()
) -> FeatureNet:
    """Fits the classifier, or reads it from the cache where the same data and recipe have been fitted before.

    The fit is a function of its arguments alone (fixed seed and order), on the CPU where the process has one.

    Args:
      train_images: uint8 (N, H, W, C); the network then accepts this C, and any H, W of this shape.
      train_labels: integers (N,), classes 0 to K - 1; or (N, F), F labels of each image.
      test_images: uint8 (M, H, W, C), held out; only the stored accuracy depends on them.
      test_labels: integers (M,) or (M, F).
      noise: largest standard deviation of the noise that is added while fitting.
      classes: K of each of the F labels; empty for those of the training set.
    Returns:
      The network; its outputs are `features` (B, 96), the activations in front of the last layer, and `logits` (B, K),
      of several labels one behind the other. Its accuracy is the share of test images whose labels are all right.
    Raises:
      UserError: types or shapes are not as above.
      OSError: the cache folder cannot be written.
    """
    data = {"train_images": np.asarray(train_images), "train_labels": np.asarray(train_labels, np.int32),
            "test_images": np.asarray(test_images), "test_labels": np.asarray(test_labels, np.int32)}
    _check(data)
    heads = tuple(classes) or tuple(int(labels.max()) + 1 for labels in columns(data["train_labels"]).T)
    model = Classifier(classes=sum(heads))
    channels = data["train_images"].shape[-1]
    recipe = RECIPE if noise == NOISE else f"{RECIPE}, instead noise {noise}"
    keyed, is_tried_anew = data, len(heads) > 1  # on one split after another
    if is_tried_anew:
        recipe += f", labels of {heads}, steps {STEPS_OF_SEVERAL}"
        keyed = {name: array for name, array in data.items() if name.startswith("train")}
    key = weights_sha256(keyed | {"recipe": np.frombuffer(recipe.encode(), np.uint8)})
    path = cache_dir("judges") / f"{NAME}-{key[:24]}.npz"
    image = jax.ShapeDtypeStruct((1, *own_size(*data["train_images"].shape[1:3]), channels), jnp.float32)
    stored = fitted.read(path, jax.eval_shape(model.init, jax.random.key(0), image))
    if stored is None or is_tried_anew:
        with jax.default_device(fitted.device()):
            weights = stored[0] if stored else _train(model, heads, data["train_images"], data["train_labels"], noise)
            logits = jax.jit(partial(_outputs, model))(fitted.nested(weights), data["test_images"])["logits"]
        accuracy = float((answers(logits, heads) == columns(data["test_labels"])).all(axis=1).mean())
        if stored is None:
            fitted.write(path, weights, accuracy)
        stored = weights, accuracy
    return _network(model, data["train_images"].shape[1:], *stored)


def columns(labels: np.ndarray) -> np.ndarray:
    """Labels (N,) or (N, F) as (N, F)."""
    return np.reshape(labels, (len(labels), -1))


def answers(logits: np.ndarray, heads: tuple[int, ...]) -> np.ndarray:
    """The most likely class of each label (N, F), of the logits (N, sum of the classes `heads`) of several."""
    parts = np.split(np.asarray(logits), np.cumsum(heads)[:-1], axis=1)
    return np.stack([part.argmax(axis=1) for part in parts], axis=1)


def _network(
    model: Classifier, shape: tuple[int, ...], weights: dict[str, np.ndarray], accuracy: float
) -> FeatureNet:
    (height, width), channels = own_size(*shape[:2]), shape[2]

    def apply(variables, images, outputs):
        if images.shape[-1] != channels:
            raise UserError(f"{NAME} was fitted on {channels} channels and given {images.shape[-1]}; "
                            "evaluate with a data set of as many channels as the generator's images have.")
        values = _outputs(model, variables, images)
        return {name: values[name] for name in outputs}

    return FeatureNet(
        NAME, weights_sha256(weights), True, resizing(height, width), {"features": FEATURES, "logits": model.classes},
        fitted.nested(weights), apply, accuracy, CPU_BATCH,
    )  # fmt: skip


def _outputs(model: Classifier, variables, images) -> dict[str, jax.Array]:
    return dict(zip(("features", "logits"), model.apply(variables, prepare(images)), strict=True))


def _check(data: dict) -> None:
    for part in ("train", "test"):
        images, labels = data[f"{part}_images"], data[f"{part}_labels"]
        whole = images.dtype == np.uint8 and images.ndim == 4 and labels.shape[:1] == images.shape[:1]
        whole &= labels.ndim in (1, 2)
        if not whole or not len(images):
            raise UserError(f"{NAME}: {part} images {images.dtype} {images.shape}, labels {labels.shape}; "
                            "expected uint8 (N, H, W, C) and integers (N,) or (N, F), N at least 1.")
    channels = [data[f"{part}_images"].shape[-1] for part in ("train", "test")]
    if channels[0] != channels[1]:
        raise UserError(f"{NAME}: train images have {channels[0]} channels and test images {channels[1]}; "
                        "give both the same number.")
    if min(data["train_labels"].min(), data["test_labels"].min()) < 0:
        raise UserError(f"{NAME}: labels must be 0 or more; give a labelled data set.")


def _train(
    model: Classifier, heads: tuple[int, ...], images: np.ndarray, labels: np.ndarray, noise: float
) -> dict[str, np.ndarray]:
    """AdamW with a cosine schedule, random shifts, noise and dropout; returns the weights by their path."""
    x = np.asarray(jax.jit(prepare)(images))
    steps = STEPS if len(heads) == 1 else STEPS_OF_SEVERAL
    tx = optax.adamw(optax.cosine_decay_schedule(4e-3, steps), weight_decay=1e-2)
    params = jax.jit(model.init)(jax.random.key(0), x[:1])

    @jax.jit
    def step(params, opt, images, labels, key):
        augment_key, drop_key = jax.random.split(key)

        def loss(params):
            augmented = _augment(augment_key, images, noise)
            _, logits = model.apply(params, augmented, dropout=True, rngs={"dropout": drop_key})
            parts = jnp.split(logits, np.cumsum(heads)[:-1], axis=1)
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels
            return sum(cross_entropy(part, labels[:, i]).mean() for i, part in enumerate(parts))

        updates, opt = tx.update(jax.grad(loss)(params), opt, params)
        return optax.apply_updates(params, updates), opt

    opt = tx.init(params)
    order = np.random.default_rng(0)
    epochs = -(-steps * BATCH // len(images))
    indices = np.concatenate([order.permutation(len(images)) for _ in range(epochs)])[:steps * BATCH]
    labels = columns(labels)
    for number, index in enumerate(indices.reshape(steps, BATCH)):
        key = jax.random.fold_in(jax.random.key(1), number)
        params, opt = step(params, opt, x[index], labels[index], key)
    return {name: np.asarray(value) for name, value in traverse_util.flatten_dict(params, sep="/").items()}


def _augment(key, x, noise: float):
    """Moves each image by up to `SHIFT` pixels each way, repeating its border, and adds more or less noise.

    Without that noise the classifier is nearly as sure of its answer for noise as for digits.
    """
    shift_key, strength_key, noise_key = jax.random.split(key, 3)
    b, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    offsets = jax.random.randint(shift_key, (b, 2), 0, 2 * SHIFT + 1)
    crop = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (h, w, c)))
    strength = jax.random.uniform(strength_key, (b, 1, 1, 1), maxval=noise)
    return jnp.clip(crop(padded, offsets) + strength * jax.random.normal(noise_key, x.shape), -1.0, 1.0)
