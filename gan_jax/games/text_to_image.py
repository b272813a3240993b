"""Text to image: a generator draws what a caption says (DF-GAN: Tao et al. 2020, arXiv 2008.05865).

The data are images with captions. A run has two stages. In the first, encoders of captions and of images learn what
belongs together (see `matching`); phase: `matching`. Then they rest, and the players see the vectors of sentences:
`discriminator`, then `generator`, on the same fakes, judged by the discriminator that has just learned. The
discriminator is to accept an image with its own caption, and to refuse a generated image, and an image with its
neighbour's caption.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import config as configs
from gan_jax import losses, models, parallel, penalties
from gan_jax.errors import UserError
from gan_jax.games import Stage, fixed_text, matching, players
from gan_jax.games.players import LATENT, NETS
from gan_jax.layers import pixels, random
from gan_jax.models.damsm import ImageEncoder, TextEncoder
from gan_jax.specs import Field
from gan_jax.step import Out, Phase, Rng, State

__all__ = ["NETS"]

CAPTION, TEXT, IMAGES = "caption", "text_encoder", "image_encoder"
ENCODERS = (TEXT, IMAGES)
EMA_NETS = ("generator", *ENCODERS)
EMA_COPIED = ENCODERS  # samples are drawn with the encoder that the players have seen
SAMPLED = (fixed_text.NAME,)
TEXTS = {"recurrent": TextEncoder, "clip": fixed_text.tower}  # config.text.name; the last one never trains
DEFAULTS = {
    "loss": {
        "name": "hinge",  # or another of `losses.NAMES` that treats images one by one
        "matching_aware": 2.0,  # k, the factor of the penalty of the gradient at an image and its caption
        "power": 6.0,  # p, that its length is raised to
    },
    "text_to_image": {
        "jitter": 0,  # pixels by which images are enlarged, and cut at random to their size again
    },
    "text": {"name": "recurrent"},
    "matching": {
        "images": 0,  # of the first stage; 0: the text encoder comes from config.transfer
        "batch_size": 0,  # of the first stage; 0: the run's
        "width": 32,  # of the image encoder
        "region_side": 16,  # shorter side, at most, of the map whose places are regions
        "sentence_weight": 1.0,  # of the terms of the first stage
        "word_weight": 1.0,  # 0: no such term
        **matching.Sharpness()._asdict(),  # attention, words, contrast: gamma 1 to 3
    },
}
NEEDS = {"generator": ("captioned", "latent_size"), "discriminator": ("captioned", "features", "judge")}
FLIP, JITTER, CHOICE, DROPOUT = range(LATENT + 1, LATENT + 5)  # independent draws of a sample beside its latent
MATCHING, PLAY = "matching", "play"  # the stages' tables
DEVIATIONS = 2.0  # that a truncated latent stays within


class Rules(NamedTuple):
    """What the losses need beside their arguments."""

    nets: dict[str, nn.Module]
    flip: bool
    jitter: int
    game: losses.Adversarial | None = None
    power: float = 0.0
    text: tuple = ()  # the size that a file gives the text encoder, which a program's name on disk is to tell
    sharpness: matching.Sharpness = matching.Sharpness()


def reads(config) -> tuple[str, ...]:
    """Images and their captions."""
    return ("image", CAPTION)


def asks(config) -> tuple[str, ...]:
    """Captions, of which the first one is drawn."""
    return (CAPTION,)


def constructors(config) -> dict[str, type]:
    """Section -> the class whose fields are its schema.

    Raises:
      UserError: a text encoder that there is not.
    """
    name = config.get("text", {}).get("name", "recurrent")
    if name not in TEXTS:
        raise UserError(f"config.text.name={name!r}: expected one of {', '.join(TEXTS)}")
    return {net: models.classes(config[net].name)[net] for net in NETS} | {"text": TEXTS[name]}


def nets(config, spec: dict[str, Field]) -> dict[str, nn.Module]:
    """The two players and the two encoders, for images and captions of `spec`.

    Raises:
      UserError: data that are no images, or have no tokens, or an unknown network or option.
    """
    image, caption = spec["image"], spec[CAPTION]
    if image.kind != "image" or caption.kind != "tokens" or len(caption.shape) != 2:
        raise UserError(f"the game 'text_to_image' needs images, and captions of the kind tokens and of the shape "
                        f"(captions, words), not {image.kind} {image.shape} and {caption.kind} {caption.shape}")
    fields, section = {"resolution": image.shape[:2], "channels": image.shape[2]}, config.matching
    classes = constructors(config)
    text = configs.build(classes["text"], config.text, "text", vocabulary=caption.classes)
    built = {net: configs.build(classes[net], config[net], net, **fields) for net in NETS}
    if _is_fixed(config):
        if caption.shape[1] > text.length:
            raise UserError(f"config.data.caption_length={caption.shape[1]}: CLIP's text tower reads up to "
                            f"{text.length} tokens; set it to that, or less")
        return built | {fixed_text.NAME: text}
    of_images = {"width": section.width, "region_side": section.region_side, "size": text.size}
    return built | {TEXT: text, IMAGES: ImageEncoder(**fields, **of_images)}


def _is_fixed(config) -> bool:
    """Whether captions are read by a network that never trains."""
    return config.text.name == "clip"


def fixed(config) -> dict[str, Any]:
    """The text encoder, where it never trains."""
    return {fixed_text.NAME: fixed_text.arrays(config.text)} if _is_fixed(config) else {}


def init(config, nets: dict, spec: dict[str, Field], key: jax.Array) -> tuple[dict, dict, None]:
    """Fresh parameters of all that train, which have no other collections."""
    image, tokens = jnp.zeros((1, *spec["image"].shape)), jnp.zeros((1, spec[CAPTION].shape[1]), jnp.int32)
    sentence = jnp.zeros((1, nets[_text(nets)].size))
    inputs = {
        "generator": (jnp.zeros((1, nets["generator"].latent_size)), sentence), "discriminator": (image, sentence),
        TEXT: (tokens,), IMAGES: (image,),
    }  # fmt: skip
    params = {
        net: nets[net].init(jax.random.fold_in(key, number), *arguments, train=True)["params"]
        for number, (net, arguments) in enumerate(inputs.items()) if net in nets
    }
    return params, {}, None


def stages(config, spec) -> tuple[Stage, ...]:
    """The encoders' stage, and the players'; these alone where the text encoder is fixed.

    Raises:
      UserError: a first stage that lasts as long as the run, or that has nothing to train, or none where nothing else
        gives the encoder.
    """
    configs.check_range(config, "0 or more", "matching.images", "matching.batch_size")
    images, size = config.matching.images, config.matching.batch_size or config.batch_size
    if images >= config.total_images:
        raise UserError(f"config.matching.images={images}: the players have the images from there up to "
                        f"config.total_images={config.total_images}; give fewer")
    if images and _is_fixed(config):
        raise UserError(f"config.matching.images={images}: the text encoder {config.text.name!r} is trained already; "
                        "set it to 0")
    if not (images or _is_fixed(config)) and not (config.transfer.workdir or config.transfer.state):
        raise UserError("config.matching.images=0: then the text encoder stays as it was drawn; give the images of its "
                        "stage, or a run that has trained one as config.transfer.workdir")
    play = Stage(config.batch_size, images, 2**31 - 1, table=PLAY)
    return (Stage(size, 0, images, table=MATCHING), play) if images else (play,)


def phases(config, nets: dict, stage: Stage) -> tuple[Phase, ...]:
    """The stage's table of moves. Raises UserError for an unknown loss, or a number out of range."""
    weights = ("matching.sentence_weight", "matching.word_weight")
    configs.check_range(config, "0 or more", "loss.matching_aware", "text_to_image.jitter", *weights)
    configs.check_range(config, "above 0", *(f"matching.{name}" for name in matching.Sharpness._fields))
    common = {"nets": nets, "flip": config.data.flip, "jitter": config.text_to_image.jitter}
    if _is_fixed(config):
        common["text"] = nets[fixed_text.NAME].numbers
    if stage.table == MATCHING:
        section = config.matching
        sharpness = matching.Sharpness(**{name: section[name] for name in matching.Sharpness._fields})
        weights = tuple((name, section[f"{name}_weight"]) for name in ("sentence", "word") if section[f"{name}_weight"])
        if not weights:
            raise UserError("config.matching has no term: set sentence_weight or word_weight above 0")
        loss = partial(_matching_loss, rules=Rules(**common, sharpness=sharpness))
        return (Phase("matching", loss, ENCODERS, "encoders", weights=weights),)
    game = losses.adversarial(config.loss.name)
    if game.needs_real:
        raise UserError(f"config.loss.name={config.loss.name!r}: compares with other images; take one that treats "
                        "each alone, such as 'hinge'")
    if not config.loss.power >= 2:
        raise UserError(f"config.loss.power={config.loss.power}: expected 2 or more")
    rules = Rules(**common, game=game, power=config.loss.power)
    factor = config.loss.matching_aware
    weights = (("matching_aware", factor),) if factor else ()
    discriminator, generator = partial(_discriminator_loss, rules=rules), partial(_generator_loss, rules=rules)
    return (
        Phase("discriminator", discriminator, ("discriminator",), "discriminator", weights=weights),
        Phase("generator", generator, ("generator",), "generator", draws="discriminator"),
    )


def sample(nets: dict, ema: dict, keys: jax.Array, given: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """`image` (B, H, W, C) in [-1, 1], what the first of each row of captions (B, K, L) says."""
    sentence = _read(nets, ema, given)
    z = sample_latents(nets["generator"], keys)
    return {"image": nets["generator"].apply(ema["generator"], z, sentence, train=False)}


def sample_latents(generator: nn.Module, keys: jax.Array) -> jax.Array:
    """z (B, latent_size) of samples: as in training, or of the generator's `truncation`.

    That is N(0, 1) on condition of at most 2 in size, by the inverse of its distribution, and times the truncation.
    """
    share = getattr(generator, "truncation", 0.0)
    if not share:
        return players.latents(generator, keys)
    draws = random.uniform(random.fold(keys, LATENT), (generator.latent_size,), -1.0, 1.0)
    return share * math.sqrt(2) * jax.lax.erf_inv(draws * math.erf(DEVIATIONS / math.sqrt(2)))


def compares(config) -> bool:
    """Whether there is an encoder of images: beside a fixed one of captions none is trained."""
    return not _is_fixed(config)


def alike(
    nets: dict, ema: dict, images: jax.Array, given: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Vectors (B, S) of images (B, H, W, C), uint8 or in [-1, 1], and of the first of each row of captions (B, K, L).

    Of a run whose encoders are its own, see `compares`.
    """
    vectors, _ = nets[IMAGES].apply(ema[IMAGES], pixels.normalise(images), train=False)
    return vectors, _read(nets, ema, given)


def _text(nets: dict) -> str:
    """The net that reads captions."""
    return TEXT if TEXT in nets else fixed_text.NAME


def _read(nets: dict, ema: dict, given: dict[str, jax.Array]) -> jax.Array:
    """Sentences (B, S) of the first of each row of captions."""
    return nets[_text(nets)].apply(ema[_text(nets)], given[CAPTION][:, 0], train=False)[0]


def chosen(captions: jax.Array, draws: jax.Array) -> jax.Array:
    """One caption (B, L) of each row of captions (B, K, L): of those that have a word, the one that draws (B,) tell."""
    is_there = (captions > 0).any(-1)
    count = jnp.maximum(is_there.sum(1), 1)
    place = jnp.minimum(jnp.floor(draws * count), count - 1)  # among those that are there
    index = jnp.argmax(jnp.cumsum(is_there, 1) > place[:, None], 1)
    return jnp.take_along_axis(captions, index[:, None, None], 1)[:, 0]


def _draws(rules: Rules, rng: Rng) -> dict[int, jax.Array]:
    """What a phase draws for each sample."""
    net = rules.nets["generator"]
    draws = {LATENT: players.latent_draw(net), FLIP: random.UNIFORM, CHOICE: random.UNIFORM, DROPOUT: random.KEY}
    draws |= {JITTER: random.Draw("uniform", (2,))} if rules.jitter else {}
    draws = random.draw(rng.samples, draws)
    return draws | {LATENT: players.spread(net, draws[LATENT])}


def _images(rules: Rules, batch: dict, draws: dict) -> jax.Array:
    """Images in [-1, 1], moved and mirrored."""
    images = pixels.normalise(batch["image"])
    if rules.jitter:
        images = pixels.jittered(images, jnp.floor(draws[JITTER] * (rules.jitter + 1)), rules.jitter)
    return pixels.random_flip(images, draws[FLIP]) if rules.flip else images


def _matching_loss(params, state: State, batch, rng: Rng, *, rules: Rules, weights: dict):
    """The terms of sentences and of words, each in both directions (eq. 13), over all devices' pairs."""
    draws = _draws(rules, rng)
    tokens = chosen(batch[CAPTION], draws[CHOICE])

    def encode(net, x, **options):
        return rules.nets[net].apply({"params": params[net]}, x, train=True, **options)

    vectors, regions = encode(IMAGES, _images(rules, batch, draws))
    sentences, words = map(parallel.gather, encode(TEXT, tokens, keys=draws[DROPOUT]))
    tokens = parallel.gather(tokens)
    scores = {}
    if "sentence" in weights:
        scores["sentence"] = matching.of_sentences(vectors, sentences)
    if "word" in weights:
        scores["word"] = matching.of_words(regions, words, tokens > 0, rules.sharpness)
    loss, metrics = 0.0, {}
    for name, score in scores.items():
        values, is_first = matching.contrast(score, tokens, rules.sharpness)
        metrics |= {name: values.mean(), f"{name}_precision": is_first.mean()}
        loss += weights[name] * metrics[name]
    return loss, Out(metrics, {})


def _sentences(params, batch: dict, draws: dict, rules: Rules) -> jax.Array:
    """Vectors (B, S) of the batch's captions; its own `sentence` where it carries them (parity tests do)."""
    if "sentence" in batch:
        return batch["sentence"]
    tokens = chosen(batch[CAPTION], draws[CHOICE])
    name = _text(rules.nets)
    return rules.nets[name].apply({"params": params[name]}, tokens, train=False)[0]


def _fakes(params, batch: dict, draws: dict, sentences: jax.Array, rules: Rules) -> jax.Array:
    """Images of the sentences, and of the batch's own latents `z` where it carries them (parity tests do)."""
    z = batch.get("z", draws[LATENT])
    return rules.nets["generator"].apply({"params": params["generator"]}, z, sentences, train=True)


def _judge(params, rules: Rules, method: str) -> Any:
    return partial(rules.nets["discriminator"].apply, {"params": params["discriminator"]}, train=True, method=method)


def _discriminator_loss(params, state: State, batch, rng: Rng, *, rules: Rules, weights: dict | None = None):
    """Real, and a half each of generated and mismatched (eq. 1), and the penalty at real images with their captions.

    Mismatched is an image with the sentence of the one before it in the whole batch: as authors do, who move features.
    """
    draws, weights = _draws(rules, rng), weights or {}
    sentences, images = _sentences(params, batch, draws, rules), _images(rules, batch, draws)
    fakes = jax.lax.stop_gradient(_fakes(params, batch, draws, sentences, rules))
    features, judge = _judge(params, rules, "features"), _judge(params, rules, "judge")

    def logits(images, sentences):
        return judge(features(images), sentences)

    terms = {}
    if "matching_aware" in weights:
        penalty, real = penalties.matching_aware(logits, images, sentences, power=rules.power)
        terms["matching_aware"] = weights["matching_aware"] * penalty.mean()
    else:
        real = logits(images, sentences)
    mismatched, fake = judge(features(images), _before(sentences)), logits(fakes, sentences)
    of_fake, of_mismatched = (rules.game.discriminator(real, x) for x in (fake, mismatched))
    terms |= {
        "loss_real": of_fake["real"].mean(), "loss_fake": of_fake["fake"].mean() / 2,
        "loss_mismatched": of_mismatched["fake"].mean() / 2,
    }  # fmt: skip
    logit_means = {"real_logit": real.mean(), "fake_logit": fake.mean(), "mismatched_logit": mismatched.mean()}
    return sum(terms.values()), Out(terms | logit_means, {})


def _before(sentences: jax.Array) -> jax.Array:
    """Of each sample of this device, the row (b, S) of the sample before it in the batch of all devices."""
    return jnp.roll(parallel.gather(sentences), 1, 0)[parallel.sample_index(len(sentences))]


def _generator_loss(params, state: State, batch, rng: Rng, *, rules: Rules):
    """The adversarial term, of an image beside its caption."""
    draws = _draws(rules, rng)
    sentences = _sentences(params, batch, draws, rules)
    fakes = _fakes(params, batch, draws, sentences, rules)
    fake = _judge(params, rules, None)(fakes, sentences)
    return rules.game.generator(None, fake).mean(), Out({"fake_logit": fake.mean()}, {})
