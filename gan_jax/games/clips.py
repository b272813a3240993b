"""What the games of clips share: a generator against a discriminator of frames and one of clips.

MoCoGAN (Tulyakov et al. 2018, 1707.04993) and DVD-GAN (Clark et al. 2019, 1907.06571) have both: one is shown frames
that are drawn at random from each clip, the other one the clips, whose sides may be smaller. Phases: `discriminator`,
of both together; `penalty`, where a gradient penalty is lazy; `generator` every `config.every.generator_steps` steps.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gan_jax import config as configs
from gan_jax import losses, models, parallel, penalties, specs
from gan_jax.errors import UserError
from gan_jax.games import players
from gan_jax.games.players import InTraining
from gan_jax.layers import random
from gan_jax.layers.rescale import downscale
from gan_jax.specs import Field
from gan_jax.step import Out, Phase, Rng, State

NETS = ("generator", "discriminator_frames", "discriminator_clips")
JUDGES = NETS[1:]
EMA_NETS = ("generator",)
VIDEO = "video"  # the field of the data
DEFAULTS = {
    "conditional": False,  # whether the nets see the labels of the data
    "video": {
        "frames": 0,  # of each clip that the discriminator of frames sees, drawn at random; 0: all
        "shrink": 1,  # the discriminator of clips sees frames whose sides are so many times smaller
    },
    "loss": {
        "name": "hinge",  # or another of `losses.NAMES`
        "options": {},  # of that loss
        "r1_gamma": 0.0,  # of both discriminators
        "classes": 1.0,  # weight of the categories' cross-entropy, of a discriminator of clips that tells them
    },
    "every": {"generator_steps": 1, "penalty_steps": 1},  # n_critic; above 1, the penalty is lazy
}
NEEDS = dict.fromkeys(NETS, ("clips",))
LATENT, FLIP, FRAMES, NOISE_REAL, NOISE_FAKE = range(5)  # independent draws of a sample


class Rules(NamedTuple):
    """What the losses go by."""

    nets: dict[str, nn.Module]
    game: losses.Adversarial
    flip: bool
    frames: int  # that the discriminator of frames sees
    shrink: int
    penalty_steps: int
    context: int = 0  # frames that the generator is given, and does not make


class Clips(NamedTuple):
    """Of a batch."""

    real: jax.Array  # (B, T, H, W, C) in [-1, 1]
    z: jax.Array
    label: jax.Array | None
    draws: dict[int, jax.Array]


def reads(config) -> tuple[str, ...]:
    """The clips, and their labels where `config.conditional`."""
    return (VIDEO, "label") if config.conditional else (VIDEO,)


def constructors(config) -> dict[str, type]:
    """Section -> the class whose fields are its schema; both discriminators are a model's `Discriminator`."""
    return {net: models.classes(config[net].name)[net.partition("_")[0]] for net in NETS}


def nets(config, spec: dict[str, Field], context: int = 0) -> dict[str, nn.Module]:
    """The generator of all frames but the first `context`, and both discriminators.

    Raises:
      UserError: data that are no clips, numbers out of range, or an unknown option.
    """
    field, table, labels = spec[VIDEO], constructors(config), specs.classes(spec)
    if field.kind != "video" or len(field.shape) != 4:
        raise UserError(f"the game {config.game!r} needs clips, not {field.kind} of the shape {field.shape}")
    frames, height, width, channels = field.shape
    seen, shrink = config.video.frames or frames - context, config.video.shrink
    if not 1 <= seen <= frames - context:
        raise UserError(f"config.video.frames={seen}: expected 1 to {frames - context}, the frames that are made")
    if shrink < 1 or height % shrink or width % shrink:
        raise UserError(f"config.video.shrink={shrink}: expected a divisor of {height} and {width}, the frames' sides")
    shapes = (
        (frames - context, height, width, channels), (seen, height, width, channels),
        (frames, height // shrink, width // shrink, channels),
    )  # fmt: skip
    common = {"num_classes": labels, "axis_name": parallel.AXIS}
    return {net: configs.build(table[net], config[net], net, shape=shape, **common)
            for net, shape in zip(NETS, shapes, strict=True)}  # fmt: skip


def init(config, nets: dict, spec: dict[str, Field], key: jax.Array, context: int = 0) -> tuple[dict, dict, None]:
    """Fresh parameters and collections of all three nets."""
    params, variables = {}, {}
    label = jnp.zeros((2,), jnp.int32) if players.labelled(nets) else None
    for number, (name, net) in enumerate(nets.items()):
        shape = (net.latent_size,) if name == "generator" else net.shape
        inputs = {"label": label, "train": True}
        if name == "generator" and context:
            inputs["context"] = jnp.zeros((2, context, *spec[VIDEO].shape[1:]))
        collections = dict(net.init(jax.random.fold_in(key, number), jnp.zeros((2, *shape)), **inputs))
        params[name] = collections.pop("params")
        variables[name] = collections
    return params, variables, None


def moves(config, nets: dict, of_generator: tuple = (), context: int = 0) -> tuple[Phase, ...]:
    """The table of moves for `config.loss`.

    Args:
      of_generator: terms that a game adds, (name, weight), for `distances`.
    Raises:
      UserError: an unknown loss, a period or weight out of range, or categories that the generator does not draw.
    """
    configs.check_range(config, "1 or more", "every.generator_steps", "every.penalty_steps")
    configs.check_range(config, "0 or more", "loss.r1_gamma", "loss.classes")
    loss, every = config.loss, config.every
    rules = Rules(
        nets, losses.adversarial(loss.name, **loss.options.to_dict()), config.data.flip,
        nets["discriminator_frames"].shape[0], config.video.shrink, every.penalty_steps, context,
    )  # fmt: skip
    classes = (("classes", loss.classes),) if loss.classes and _tells_classes(nets) else ()
    penalty = (("r1_gamma", loss.r1_gamma),) if loss.r1_gamma else ()
    lazy = every.penalty_steps > 1 and bool(penalty)

    def phase(name, play, nets, period=1, weights=()) -> Phase:
        return Phase(name, partial(play, rules=rules), nets, nets[0].partition("_")[0], period, "", weights)

    table = [phase("discriminator", _discriminator_loss, JUDGES, 1, classes + (() if lazy else penalty))]
    if lazy:
        table.append(phase("penalty", _lazy_penalty, JUDGES, every.penalty_steps, penalty))
    return (*table, phase("generator", _generator_loss, EMA_NETS, every.generator_steps, classes + of_generator))


def _tells_classes(nets: dict) -> bool:
    """Whether the discriminator of clips tells categories. Raises UserError where the generator has not the same."""
    generator, judge = nets["generator"], nets["discriminator_clips"]
    classes, drawn = getattr(judge, "classes", 0), 0
    if hasattr(generator, "category"):
        drawn = generator.num_classes or generator.categories
    if classes and classes != drawn:
        raise UserError(f"config.discriminator_clips: it tells {classes} categories, and the generator draws clips of "
                        f"{drawn}; give both as many categories, or set config.loss.classes=0")
    return classes > 0


# What the phases have in common.


def begin(params, state: State, batch: dict, rng: Rng, rules: Rules) -> tuple[InTraining, Clips]:
    """The nets of a phase, and what it draws for the batch."""
    generator = rules.nets["generator"]
    draws = random.draw(rng.samples, {
        LATENT: players.latent_draw(generator), FLIP: random.UNIFORM, NOISE_REAL: random.KEY, NOISE_FAKE: random.KEY,
        FRAMES: random.Draw("uniform", (batch[VIDEO].shape[1] - rules.context,)),
    })  # fmt: skip
    real = players.reals(batch, draws[FLIP], rules.flip, VIDEO)
    z = batch.get("z", players.spread(generator, draws[LATENT]))
    return InTraining(rules.nets, params, state), Clips(real, z, players.labels(rules.nets, batch), draws)


def generated(play: InTraining, clips: Clips, rules: Rules) -> jax.Array:
    """Clips (B, T, H, W, C): what the generator makes, behind the context where it is given one."""
    if not rules.context:
        return play.play("generator", clips.z, label=clips.label)
    context = clips.real[:, : rules.context]
    return jnp.concatenate([context, play.play("generator", clips.z, label=clips.label, context=context)], 1)


def views(videos: jax.Array, clips: Clips, rules: Rules) -> dict[str, jax.Array]:
    """What each discriminator is shown of clips (B, T, H, W, C).

    Frames are drawn without replacement, in their order, from those that are made; a sample's are the same ones in all
    of its phase.
    """
    frames = videos[:, rules.context :]
    if rules.frames < frames.shape[1]:
        chosen = jnp.sort(jnp.argsort(clips.draws[FRAMES], -1)[:, : rules.frames], -1)
        frames = jnp.take_along_axis(frames, chosen[:, :, None, None, None], 1)
    small = downscale(videos.reshape(-1, *videos.shape[2:]), rules.shrink)
    return dict(zip(JUDGES, (frames, small.reshape(*videos.shape[:2], *small.shape[1:])), strict=True))


def judged(play: InTraining, judge: str, view: jax.Array, clips: Clips, noise: int) -> tuple[jax.Array, Any]:
    """(logits, class logits or None) of what a discriminator is shown; `noise` is the draw of its keys."""
    options = {"label": clips.label, "keys": random.fold(clips.draws[noise], JUDGES.index(judge))}
    if hasattr(play.nets[judge], "heads"):
        return play.play(judge, view, "heads", **options)
    return play.play(judge, view, **options), None


# The losses.


def _discriminator_loss(params, state, batch, rng, *, rules: Rules, weights: dict | None = None):
    """Real and generated clips pass apart, so that batch normalisation sees them apart; both nets descend together."""
    weights = weights or {}
    play, clips = begin(params, state, batch, rng, rules)
    fake = jax.lax.stop_gradient(generated(play, clips, rules))
    real_views, fake_views = views(clips.real, clips, rules), views(fake, clips, rules)
    terms, metrics = {}, {}
    for judge in JUDGES:
        real, real_classes = judged(play, judge, real_views[judge], clips, NOISE_REAL)
        logits, fake_classes = judged(play, judge, fake_views[judge], clips, NOISE_FAKE)
        name = judge.partition("_")[2]
        for term, value in rules.game.discriminator(real, logits).items():
            terms[f"{name}_{term}"] = value.mean()
        metrics |= {f"{name}_real_logit": real.mean(), f"{name}_fake_logit": logits.mean()}
        if "classes" in weights and real_classes is not None:
            classes = real_classes if clips.label is not None else fake_classes
            metrics["classes"] = _cross_entropy(classes, clips, rules)
    loss = sum(terms.values()) + weights.get("classes", 0.0) * metrics.get("classes", 0.0)
    if "r1_gamma" in weights:
        metrics["r1"] = _r1(params, state, clips, real_views, rules, weights["r1_gamma"])
        loss += metrics["r1"]
    return loss, Out(terms | metrics, {judge: play.variables[judge] for judge in JUDGES})


def _cross_entropy(classes: jax.Array, clips: Clips, rules: Rules) -> jax.Array:
    """Of class logits (B, N) and the clips' labels; or, of generated clips, the categories that were drawn.

    With labels a discriminator learns them from real clips, and the generator's are to be told as theirs (AC-GAN).
    Without them both players seek that the categories are told, a bound of the mutual information (1606.03657).
    """
    category = rules.nets["generator"].category(clips.z, clips.label)
    return optax.softmax_cross_entropy_with_integer_labels(classes, category).mean()


def _r1(params, state: State, clips: Clips, real_views: dict, rules: Rules, gamma) -> jax.Array:
    def logits(x, judge):
        return judged(InTraining(rules.nets, params, state), judge, x, clips, NOISE_REAL)[0]

    return sum(penalties.r1(partial(logits, judge=judge), real_views[judge], gamma=gamma).mean() for judge in JUDGES)


def _lazy_penalty(params, state, batch, rng, *, rules: Rules, weights: dict):
    """The penalty alone, as many times as strong as it is played more seldom (StyleGAN2, appendix B)."""
    _, clips = begin(params, state, batch, rng, rules)
    value = _r1(params, state, clips, views(clips.real, clips, rules), rules, weights["r1_gamma"])
    return rules.penalty_steps * value, Out({"r1": value}, {})


def _generator_loss(params, state, batch, rng, *, rules: Rules, weights: dict | None = None):
    """The adversarial terms of both discriminators, that of the categories, and of prediction the L1 distance."""
    weights = weights or {}
    play, clips = begin(params, state, batch, rng, rules)
    fake = generated(play, clips, rules)
    real_views, fake_views = views(clips.real, clips, rules), views(fake, clips, rules)
    terms = {}
    for judge in JUDGES:
        real = judged(play, judge, real_views[judge], clips, NOISE_REAL)[0] if rules.game.needs_real else None
        logits, classes = judged(play, judge, fake_views[judge], clips, NOISE_FAKE)
        terms[judge.partition("_")[2]] = rules.game.generator(real, logits).mean()
        if "classes" in weights and classes is not None:
            terms["classes"] = _cross_entropy(classes, clips, rules)
    if "l1" in weights:
        terms["l1"] = jnp.abs(fake - clips.real)[:, rules.context :].mean()
    loss = sum(weights.get(name, 1.0) * term for name, term in terms.items())
    return loss, Out(terms, play.variables)
