"""Adversarial losses: logits in, one value per logit out.

A discriminator's loss is a dict of terms, so that each can be logged; its total is the sum of their means:
the plain sum over real and fake, not the half of it, except where a paper's own equation holds the factor.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gan_jax.errors import UserError


class Adversarial(NamedTuple):
    """The two sides of one adversarial game."""

    discriminator: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]  # (real, fake) logits -> terms
    generator: Callable[[jax.Array | None, jax.Array], jax.Array]  # (real or None, fake) logits -> per logit
    needs_real: bool = False  # whether the generator's loss looks at the real logits


def adversarial(name: str, **options) -> Adversarial:
    """The losses of a published game.

    Args:
      name: one of `NAMES`.
      **options: hyper-parameters of that loss, by name: see the functions below.
    Returns:
      `discriminator(real_logits, fake_logits)`, a dict of terms, and `generator(real_logits, fake_logits)`.
      Logits are (B,) or maps (B, ...); every result has their shape and is float32. `generator` takes None
      for `real_logits` unless `needs_real`.
    Raises:
      UserError: an unknown name or option.
    """
    if name not in _LOSSES:
        expected = ", ".join(NAMES)
        raise UserError(f"unknown adversarial loss {name!r}: expected one of {expected}{_nearest(name, NAMES)}")
    accepted = tuple(inspect.signature(_LOSSES[name]).parameters)
    for option in options:
        if option not in accepted:
            expected = f"expected {', '.join(accepted)}" if accepted else "it has none"
            raise UserError(
                f"adversarial loss {name!r} has no option {option!r}: {expected}{_nearest(option, accepted)}"
            )
    return _LOSSES[name](**options)


def binary_cross_entropy(logits: jax.Array, target: float) -> jax.Array:
    """-t log s(x) - (1 - t) log(1 - s(x)) with the sigmoid s, through softplus: finite for any logit.

    Args:
      logits: (B, ...).
      target: t, the probability of `real`, in [0, 1].
    Returns:
      (B, ...), float32.
    """
    x = _float(logits)
    if target in (0, 1):  # a term of weight 0 would be computed all the same
        return _softplus(-x if target else x)
    return target * _softplus(-x) + (1 - target) * _softplus(x)


@jax.custom_jvp
def _softplus(x: jax.Array) -> jax.Array:
    """log(1 + exp(x)), with the sigmoid as its derivative: a third of the operations of `jax.nn.softplus`."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@_softplus.defjvp
def _softplus_tangent(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return _softplus(x), tangent * lax.logistic(x)


def _saturating(*, real_target: float = 1.0, fake_target: float = 0.0) -> Adversarial:
    """Goodfellow et al. (1406.2661), eq. 1, the minimax game: the generator descends on log(1 - D(G(z)))."""

    def generator(real_logits, fake_logits):
        return -_softplus(_float(fake_logits))  # log(1 - sigmoid(x))

    return Adversarial(_cross_entropy(real_target, fake_target), generator)


def _non_saturating(*, real_target: float = 1.0, fake_target: float = 0.0) -> Adversarial:
    """Goodfellow et al. (1406.2661), section 3: the generator descends on -log D(G(z)).

    Targets other than 1 and 0 smooth the discriminator's labels; `real_target=0.9` alone is the one-sided
    smoothing of Salimans et al. (1606.03498), section 3.4. The generator always aims at 1.
    """

    def generator(real_logits, fake_logits):
        return _softplus(-_float(fake_logits))  # -log(sigmoid(x))

    return Adversarial(_cross_entropy(real_target, fake_target), generator)


def _cross_entropy(real_target: float, fake_target: float) -> Callable:
    def discriminator(real_logits, fake_logits):
        return {
            "real": binary_cross_entropy(real_logits, real_target),
            "fake": binary_cross_entropy(fake_logits, fake_target),
        }

    return discriminator


def _least_squares(
    *,
    real_target: float = 1.0,  # b, what the discriminator should say of a real image
    fake_target: float = 0.0,  # a, and of a generated one
    generator_target: float = 1.0,  # c, what the generator wants to hear
    scale: float = 0.5,  # factor of every term: 1/2 in the paper; 1 for CycleGAN's generator
) -> Adversarial:
    """LSGAN, Mao et al. (1611.04076), eq. 2 and 9.

    The discriminator descends on (D(x) - b)^2 / 2 + (D(G(z)) - a)^2 / 2, the generator on (D(G(z)) - c)^2 /
    2. The factor 1/2 is the paper's own; D(x) is the logit itself, without a sigmoid.
    """

    def discriminator(real_logits, fake_logits):
        return {
            "real": scale * jnp.square(_float(real_logits) - real_target),
            "fake": scale * jnp.square(_float(fake_logits) - fake_target),
        }

    def generator(real_logits, fake_logits):
        return scale * jnp.square(_float(fake_logits) - generator_target)

    return Adversarial(discriminator, generator)


def _hinge() -> Adversarial:
    """Lim and Ye (1705.02894), as in SN-GAN (1802.05957), eq. 16 and 17.

    The discriminator descends on max(0, 1 - D(x)) + max(0, 1 + D(G(z))), the generator on -D(G(z)).
    """

    def discriminator(real_logits, fake_logits):
        return {"real": jax.nn.relu(1 - _float(real_logits)), "fake": jax.nn.relu(1 + _float(fake_logits))}

    return Adversarial(discriminator, _negated)


def _wasserstein() -> Adversarial:
    """Arjovsky et al. (1701.07875): the critic descends on D(G(z)) - D(x), the generator on -D(G(z))."""

    def discriminator(real_logits, fake_logits):
        return {"real": -_float(real_logits), "fake": _float(fake_logits)}

    return Adversarial(discriminator, _negated)


def _negated(real_logits, fake_logits):
    return -_float(fake_logits)


def _relativistic() -> Adversarial:
    """RpGAN, Jolicoeur-Martineau (1807.00734), in the form of R3GAN (2501.05441), eq. 2.

    The discriminator descends on softplus(D(G(z)) - D(x)), the generator on softplus(D(x) - D(G(z))); the
    i-th real image is paired with the i-th generated one.
    """

    def discriminator(real_logits, fake_logits):
        return {"relativistic": _softplus(_difference(fake_logits, real_logits))}

    def generator(real_logits, fake_logits):
        return _softplus(_difference(real_logits, fake_logits))

    return Adversarial(discriminator, generator, needs_real=True)


def relativistic_average(mean: Callable[[jax.Array], jax.Array] = jnp.mean) -> Adversarial:
    """RaGAN, Jolicoeur-Martineau (1807.00734), in the form of ESRGAN (1809.00219), eq. 1 and 2.

    An image is compared with the mean of all images of the other kind; each term is a half of the cross-entropy. What
    the discriminator compares with, and the generator's real logits, are constants to the gradient.

    Args:
      mean: of all logits, those of other devices too: a scalar.
    """

    def terms(real_logits, fake_logits, real_target, real_mean, fake_mean):
        return {
            "real": 0.5 * binary_cross_entropy(_float(real_logits) - fake_mean, real_target),
            "fake": 0.5 * binary_cross_entropy(_float(fake_logits) - real_mean, 1 - real_target),
        }

    def discriminator(real_logits, fake_logits):
        means = (lax.stop_gradient(mean(_float(logits))) for logits in (real_logits, fake_logits))
        return terms(real_logits, fake_logits, 1, *means)

    def generator(real_logits, fake_logits):
        real_logits = lax.stop_gradient(real_logits)
        both = terms(real_logits, fake_logits, 0, mean(_float(real_logits)), mean(_float(fake_logits)))
        return both["real"] + both["fake"]

    return Adversarial(discriminator, generator, needs_real=True)


def _difference(a: jax.Array, b: jax.Array) -> jax.Array:
    assert a.shape == b.shape, (a.shape, b.shape)
    return _float(a) - _float(b)


def _float(x: jax.Array) -> jax.Array:
    """At least float32: losses of bfloat16 logits are computed in float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _nearest(word: str, words: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; nearest: {close[0]}" if close else ""


_LOSSES = {
    "saturating": _saturating,
    "non_saturating": _non_saturating,
    "least_squares": _least_squares,
    "hinge": _hinge,
    "wasserstein": _wasserstein,
    "relativistic": _relativistic,
}
NAMES = tuple(_LOSSES)
