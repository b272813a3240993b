"""A small judge of clips: a network of 3-D convolutions that is fitted to tell how a clip moves, and its label.

It is fitted on the data's own clips, in a minute or two, without labels where they have none: each clip is shown as it
is, or with its frames in another order, and the network names the order (features are learned so by Misra et al. 2016,
1603.08561, of shuffled frames, and by Benaim et al. 2020, 2004.06130, of fast ones). Its features feel motion, and
whether a clip shows one thing from its first frame to its last. Its distances compare with those of the same weights
only, which their SHA-256 names, and never with published ones of other networks.
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
from gan_jax.features import digits_classifier, fitted
from gan_jax.features.digits_classifier import RESOLUTION
from gan_jax.features.networks import CLIPS as NAME
from gan_jax.features.networks import FeatureNet
from gan_jax.features.state import weights_sha256

MOTIONS = ("as it is", "shuffled", "still", "slow", "fast", "spliced")  # what the network is to tell apart
SPLICED = MOTIONS.index("spliced")
FEATURES = 96    # width of the hidden layer that serves as features
STEPS = 600      # of optimisation
BATCH = 32       # clips a step
SHIFT = 2        # largest random translation while fitting, in pixels of the 16x16 input, one for a whole clip
NOISE = 0.3      # largest standard deviation of the noise added while fitting, clips being in [-1, 1]
CPU_BATCH = 64   # clips that a CPU takes at once
MOST, MOST_HELD_OUT = 4096, 512  # clips that it is fitted on, and that its accuracy is of
SEED = 0
RECIPE = (f"{NAME} 2: {RESOLUTION}px, features {FEATURES}, batch {BATCH}, shift {SHIFT}, noise {NOISE}, "
          f"motions {', '.join(MOTIONS)}")  # fmt: skip


class Classifier(nn.Module):
    """Three 3x3x3 convolutions, a hidden layer of each frame, the mean over frames.

    (B, T, 16, 16, C) in [-1, 1] -> features (B, 96), logits of the motions (B, 6), of the label of each frame (B, T,
    classes) or None.
    """

    classes: int  # 0: clips without labels

    @nn.compact
    def __call__(self, x, *, dropout: bool = False):
        he = {"kernel_init": nn.initializers.he_normal(), "precision": "highest"}
        dense = partial(nn.Dense, **he)
        x = 2 * (x - x.mean(axis=(1, 2, 3), keepdims=True))
        for channels in (8, 24, 64):
            b, t, h, w, _ = x.shape
            x = nn.relu(nn.Conv(channels, (3, 3), **he)(_with_neighbours(x)))
            if channels < 64:
                x = nn.avg_pool(x, (2, 2), (2, 2))
            x = x.reshape(b, t, *x.shape[1:])                     # (B, T, 8, 8, 8), (B, T, 4, 4, 24), (B, T, 4, 4, 64)
        what, where = x.max(axis=(2, 3)), nn.relu(dense(32)(x.reshape(b, t, -1)))
        frames = nn.relu(dense(FEATURES)(jnp.concatenate([what, where], axis=-1)))  # (B, T, 96)
        hidden = nn.Dropout(0.1, deterministic=not dropout)(frames)
        labels = dense(self.classes)(hidden) if self.classes else None
        return frames.mean(axis=1), dense(len(MOTIONS))(hidden.mean(axis=1)), labels


def _with_neighbours(x: jax.Array) -> jax.Array:
    """(B, T, H, W, C) -> (B T, H, W, 5 C): the frame before, each frame, the one behind, and both differences.

    A 2-D convolution of these is a 3-D one of three frames, the ends twice, which CPUs are much slower at. Differences
    say nothing new, but motion is learned from them in a third of the steps: frames themselves are much alike.
    """
    b, t, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)), mode="edge")
    before, after = padded[:, :-2], padded[:, 2:]
    return jnp.concatenate([before, x, after, x - before, after - x], axis=-1).reshape(b * t, h, w, 5 * c)


def prepare(clips):
    """uint8 (B, T, H, W, C) -> float32 (B, T, 16, 16, C) in [-1, 1], frames resized as the digits' classifier does."""
    b, t = clips.shape[:2]
    frames = digits_classifier.prepare(clips.reshape(b * t, *clips.shape[2:]))
    return frames.reshape(b, t, *frames.shape[1:])


def fit(train_clips, train_labels, test_clips, test_labels, *, steps: int = 0) -> FeatureNet:
    """Fits the network, or reads it from the cache where the same data and recipe have been fitted before.

    The fit is a function of its arguments alone (fixed seed and order), on the CPU where the process has one.

    Args:
      train_clips: uint8 (N, T, H, W, C), T 2 or more; the network then accepts any T, H, W, and this C.
      train_labels: integers (N,), classes 0 to K - 1; None where clips have none.
      test_clips: uint8 (M, T, H, W, C), held out; only the stored accuracy depends on them.
      test_labels: not used but for the check.
      steps: of optimisation; 0 for `STEPS`.
    Returns:
      The network; its outputs are `features` (B, 96), `motion` (B, 6) and, of labelled clips, `logits` (B, K). Its
      accuracy is the share of held-out clips, each shown in every order of `MOTIONS`, whose order it names.
    Raises:
      UserError: types or shapes are not as above.
      OSError: the cache folder cannot be written.
    """
    clips, held_out, steps = np.asarray(train_clips), np.asarray(test_clips), steps or STEPS
    labels = np.zeros(len(clips), np.int32) if train_labels is None else np.asarray(train_labels, np.int32)
    _check(clips, labels, held_out)
    model = Classifier(classes=0 if train_labels is None else int(labels.max()) + 1)
    recipe = f"{RECIPE}, {model.classes} classes, {steps} steps"
    data = {"train": clips, "labels": labels, "test": held_out, "recipe": np.frombuffer(recipe.encode(), np.uint8)}
    path = cache_dir("judges") / f"{NAME}-{weights_sha256(data)[:24]}.npz"
    clip = jax.ShapeDtypeStruct((1, 2, RESOLUTION, RESOLUTION, clips.shape[-1]), jnp.float32)
    stored = fitted.read(path, jax.eval_shape(model.init, jax.random.key(0), clip))
    if stored is None:
        with jax.default_device(fitted.device()):
            weights = _train(model, clips, labels, steps)
            stored = weights, _accuracy(model, weights, held_out)
        fitted.write(path, *stored)
    return _network(model, clips.shape[-1], *stored)


def _network(model: Classifier, channels: int, weights: dict[str, np.ndarray], accuracy: float) -> FeatureNet:
    outputs = {"features": FEATURES, "motion": len(MOTIONS), **({"logits": model.classes} if model.classes else {})}

    def apply(variables, clips, wanted):
        if clips.shape[-1] != channels:
            raise UserError(f"{NAME} was fitted on {channels} channels and given {clips.shape[-1]}; "
                            "evaluate with a data set of as many channels as the generator's clips have.")
        features, motion, logits = model.apply(variables, prepare(clips))
        values = {"features": features, "motion": motion}
        values |= {} if logits is None else {"logits": logits.mean(axis=1)}
        return {name: values[name] for name in wanted}

    words = f"frames: {digits_classifier.RESIZE}"
    return FeatureNet(
        NAME, weights_sha256(weights), True, words, outputs, fitted.nested(weights), apply, accuracy, CPU_BATCH
    )


def _check(clips: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> None:
    for part, x in (("train", clips), ("test", held_out)):
        if x.dtype != np.uint8 or x.ndim != 5 or not len(x) or x.shape[1] < 2 or x.shape[2:] != clips.shape[2:]:
            raise UserError(f"{NAME}: {part} clips {x.dtype} {x.shape}; expected uint8 (N, T, H, W, C) of one size, N "
                            "at least 1 and T at least 2.")
    if labels.shape != clips.shape[:1] or labels.min() < 0:
        raise UserError(f"{NAME}: labels of the shape {labels.shape}, from {labels.min()} on; expected "
                        f"({len(clips)},), from 0 on.")


def orders(motions: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The frames int (N, T) that clips show, for motions (N,) by their place in `MOTIONS`.

    Of a fast clip every second frame, to the end and back again; of a slow one each twice, from a random one on.
    Frames of `T` and more are those of another clip: the second half of a spliced one.
    """
    time, half = np.arange(frames), frames // 2
    last = frames - 1
    fast = last - np.abs(2 * time % (2 * last) - last)
    spliced = np.where(time < half, time, frames + time)
    rows = []
    for motion in motions:
        start = rng.integers(frames - (last // 2))
        shown = (time, rng.permutation(frames), np.full(frames, rng.integers(frames)), start + time // 2, fast, spliced)
        rows.append(shown[motion])
    return np.stack(rows)


def _shown(clips: jax.Array, order: jax.Array) -> jax.Array:
    """Clips (B, T, ...) in these orders (B, T); frames of T and more are those of the next clip."""
    both = jnp.concatenate([clips, jnp.roll(clips, -1, axis=0)], axis=1)
    return jax.vmap(lambda clip, places: clip[places])(both, order)


def _train(model: Classifier, clips: np.ndarray, labels: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """AdamW with a cosine schedule, random shifts, noise and dropout; returns the weights by their path."""
    tx = optax.adamw(optax.cosine_decay_schedule(4e-3, steps), weight_decay=1e-2)
    params = jax.jit(model.init)(jax.random.key(SEED), prepare(jnp.asarray(clips[:1])))

    @jax.jit
    def step(params, opt, batch, labels, motions, order, key):
        augment_key, drop_key = jax.random.split(key)

        def loss(params):
            shown = _augment(augment_key, _shown(prepare(batch), order))
            _, motion_logits, logits = model.apply(params, shown, dropout=True, rngs={"dropout": drop_key})
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels
            total = cross_entropy(motion_logits, motions).mean()
            if logits is not None:  # of each frame, which is learned in fewer steps; a spliced clip shows two things
                of_frames = cross_entropy(logits, jnp.broadcast_to(labels[:, None], logits.shape[:2])).mean(axis=1)
                total += 2 * (of_frames * (motions != SPLICED)).mean()
            return total

        updates, opt = tx.update(jax.grad(loss)(params), opt, params)
        return optax.apply_updates(params, updates), opt

    opt, rng = tx.init(params), np.random.default_rng(SEED)
    batch = min(BATCH, len(clips))
    for number in range(steps):
        index, motions = rng.permutation(len(clips))[:batch], rng.integers(len(MOTIONS), size=batch)
        order, key = orders(motions, clips.shape[1], rng), jax.random.fold_in(jax.random.key(1), number)
        params, opt = step(params, opt, clips[index], labels[index], motions, order, key)
    return {name: np.asarray(value) for name, value in traverse_util.flatten_dict(params, sep="/").items()}


def _augment(key, x):
    """Moves each clip by up to `SHIFT` pixels each way, repeating its border, and adds more or less noise."""
    shift_key, strength_key, noise_key = jax.random.split(key, 3)
    b, t, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    offsets = jax.random.randint(shift_key, (b, 2), 0, 2 * SHIFT + 1)
    crop = jax.vmap(lambda clip, at: jax.lax.dynamic_slice(clip, (0, at[0], at[1], 0), (t, h, w, c)))
    strength = jax.random.uniform(strength_key, (b, 1, 1, 1, 1), maxval=NOISE)
    return jnp.clip(crop(padded, offsets) + strength * jax.random.normal(noise_key, x.shape), -1.0, 1.0)


def _accuracy(model: Classifier, weights: dict[str, np.ndarray], clips: np.ndarray) -> float:
    """The share of clips, each in every motion, whose motion is named."""
    variables, rng = fitted.nested(weights), np.random.default_rng(SEED)
    answer = jax.jit(lambda shown, order: model.apply(variables, _shown(prepare(shown), order))[1].argmax(axis=1))
    right = []
    for start in range(0, len(clips), CPU_BATCH):
        part = clips[np.minimum(np.arange(start, start + CPU_BATCH), len(clips) - 1)]
        count = min(CPU_BATCH, len(clips) - start)
        for motion in range(len(MOTIONS)):
            order = orders(np.full(CPU_BATCH, motion), clips.shape[1], rng)
            right.append(np.asarray(answer(part, order))[:count] == motion)
    return float(np.concatenate(right).mean())
