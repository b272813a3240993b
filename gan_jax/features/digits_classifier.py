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
BATCH = 64          # images per step
SHIFT = 2           # largest random translation while fitting, in pixels of the 16x16 input
NOISE = 1.0         # largest standard deviation of the noise added while fitting, images being in [-1, 1]
TEXTURE_NOISE = 0.1  # the same for other pictures than digits, whose classes may differ in texture alone
CPU_BATCH = 256     # images that a CPU takes at once
RECIPE = f"{NAME} 1: {RESOLUTION}px, features {FEATURES}, steps {STEPS}x{BATCH}, shift {SHIFT}, noise {NOISE}"
RESIZE = f"box to {RESOLUTION}x{RESOLUTION} where the sides are multiples of it, else antialiased bilinear"


class Classifier(nn.Module):
    """Three 3x3 convolutions, pooling, a hidden layer; (B, 16, 16, C) in [-1, 1] -> (features, logits)."""

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


def prepare(images):
    """uint8 (B, H, W, C) -> float32 (B, 16, 16, C) in [-1, 1], resized as `RESIZE` says."""
    x = jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0
    b, h, w, c = x.shape
    if h % RESOLUTION or w % RESOLUTION:
        return jax.image.resize(x, (b, RESOLUTION, RESOLUTION, c), "linear", antialias=True)
    return x.reshape(b, RESOLUTION, h // RESOLUTION, RESOLUTION, w // RESOLUTION, c).mean(axis=(2, 4))


def fit(train_images, train_labels, test_images, test_labels, *, noise: float = NOISE) -> FeatureNet:
    """Fits the classifier, or reads it from the cache where the same data and recipe have been fitted before.

    The fit is a function of its arguments alone (fixed seed and order), on the CPU where the process has one.

    Args:
      train_images: uint8 (N, H, W, C); the network then accepts any H, W, and this C.
      train_labels: integers (N,), classes 0 to K - 1.
      test_images: uint8 (M, H, W, C), held out; only the stored accuracy depends on them.
      test_labels: integers (M,).
      noise: largest standard deviation of the noise that is added while fitting.
    Returns:
      The network; its outputs are `features` (B, 96), the activations in front of the last layer, and `logits` (B, K).
    Raises:
      UserError: types or shapes are not as above.
      OSError: the cache folder cannot be written.
    """
    data = {"train_images": np.asarray(train_images), "train_labels": np.asarray(train_labels, np.int32),
            "test_images": np.asarray(test_images), "test_labels": np.asarray(test_labels, np.int32)}
    _check(data)
    model = Classifier(classes=int(data["train_labels"].max()) + 1)
    channels = data["train_images"].shape[-1]
    recipe = RECIPE if noise == NOISE else f"{RECIPE}, instead noise {noise}"
    key = weights_sha256(data | {"recipe": np.frombuffer(recipe.encode(), np.uint8)})
    path = cache_dir("judges") / f"{NAME}-{key[:24]}.npz"
    image = jax.ShapeDtypeStruct((1, RESOLUTION, RESOLUTION, channels), jnp.float32)
    stored = fitted.read(path, jax.eval_shape(model.init, jax.random.key(0), image))
    if stored is None:
        with jax.default_device(fitted.device()):
            weights = _train(model, data["train_images"], data["train_labels"], noise)
            logits = jax.jit(partial(_outputs, model))(fitted.nested(weights), data["test_images"])["logits"]
        stored = weights, float(np.mean(np.asarray(logits).argmax(axis=1) == data["test_labels"]))
        fitted.write(path, *stored)
    return _network(model, channels, *stored)


def _network(model: Classifier, channels: int, weights: dict[str, np.ndarray], accuracy: float) -> FeatureNet:
    def apply(variables, images, outputs):
        if images.shape[-1] != channels:
            raise UserError(f"{NAME} was fitted on {channels} channels and given {images.shape[-1]}; "
                            "evaluate with a data set of as many channels as the generator's images have.")
        values = _outputs(model, variables, images)
        return {name: values[name] for name in outputs}

    return FeatureNet(
        NAME, weights_sha256(weights), True, RESIZE, {"features": FEATURES, "logits": model.classes},
        fitted.nested(weights), apply, accuracy, CPU_BATCH,
    )  # fmt: skip


def _outputs(model: Classifier, variables, images) -> dict[str, jax.Array]:
    return dict(zip(("features", "logits"), model.apply(variables, prepare(images)), strict=True))


def _check(data: dict) -> None:
    for part in ("train", "test"):
        images, labels = data[f"{part}_images"], data[f"{part}_labels"]
        whole = images.dtype == np.uint8 and images.ndim == 4 and labels.shape == images.shape[:1]
        if not whole or not len(images):
            raise UserError(f"{NAME}: {part} images {images.dtype} {images.shape}, labels {labels.shape}; "
                            "expected uint8 (N, H, W, C) and integers (N,), N at least 1.")
    channels = [data[f"{part}_images"].shape[-1] for part in ("train", "test")]
    if channels[0] != channels[1]:
        raise UserError(f"{NAME}: train images have {channels[0]} channels and test images {channels[1]}; "
                        "give both the same number.")
    if min(data["train_labels"].min(), data["test_labels"].min()) < 0:
        raise UserError(f"{NAME}: labels must be 0 or more; give a labelled data set.")


def _train(model: Classifier, images: np.ndarray, labels: np.ndarray, noise: float) -> dict[str, np.ndarray]:
    """AdamW with a cosine schedule, random shifts, noise and dropout; returns the weights by their path."""
    x = np.asarray(jax.jit(prepare)(images))
    tx = optax.adamw(optax.cosine_decay_schedule(4e-3, STEPS), weight_decay=1e-2)
    params = jax.jit(model.init)(jax.random.key(0), x[:1])

    @jax.jit
    def step(params, opt, images, labels, key):
        augment_key, drop_key = jax.random.split(key)

        def loss(params):
            augmented = _augment(augment_key, images, noise)
            _, logits = model.apply(params, augmented, dropout=True, rngs={"dropout": drop_key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, opt = tx.update(jax.grad(loss)(params), opt, params)
        return optax.apply_updates(params, updates), opt

    opt = tx.init(params)
    order = np.random.default_rng(0)
    epochs = -(-STEPS * BATCH // len(images))
    indices = np.concatenate([order.permutation(len(images)) for _ in range(epochs)])[:STEPS * BATCH]
    for number, index in enumerate(indices.reshape(STEPS, BATCH)):
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
