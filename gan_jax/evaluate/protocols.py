"""Metrics by name: what is computed, of how many images, against how many reals, by which network.

A name is a family, a count, and what is special: `fid50k_full` is the Frechet distance of Inception's 2048 features,
of 50,000 images against all reals. A new protocol is a line of `FAMILIES`.
"""

import inspect
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.evaluate import training_set
from gan_jax.features import i3d, networks

CYCLE = "cycle_l1"  # between a picture and its way into another domain and back
OBEYED = "obeyed"  # whether a sample has all labels of the example that it is drawn from
RETRIEVAL = "r_precision"  # whether an image tells its caption from others
EQUIVARIANCE = {"eqt": "eqt_int", "eqt_frac": "eqt_frac", "eqr": "eqr"}  # name -> of `equivariance.METRICS`
BORDERED = ("psnr", "ssim", "psnr_y", "ssim_y", "pooled_psnr")  # pairs whose border config.evaluation may leave out
OF_FOLDERS = ("l1", *BORDERED, "ms_ssim", "lpips_alex", "lpips_vgg")  # image by image: of two folders, or of a run
IN_HOLES = ("masked_l1",)  # of a run whose samples are given masks
PAIRED = (*OF_FOLDERS, *IN_HOLES)
OF_CLIPS = ("speed",)  # of clips themselves, as a multiple of the reals'
OF_IMAGES = ("sharpness", *OF_CLIPS)  # of the images themselves, with those of the reals beside them
OF_CLASSES = ("classes", "style_entropy")  # what a classifier of the data says
OF_TRAINING = training_set.NAMES  # beside the run's own training images
# Of config.evaluation's samples.
PLAIN = ("fd", "kd", "prdc", *OF_CLASSES, "modes", CYCLE, OBEYED, RETRIEVAL, *OF_IMAGES, *OF_TRAINING, *EQUIVARIANCE)
WITHOUT_FEATURES = ("modes", CYCLE, OBEYED, RETRIEVAL, *OF_IMAGES, *training_set.LEARNED, training_set.NEAREST,
                    *EQUIVARIANCE)  # fmt: skip
ALIASES = {"fid": "fd", "kid": "kd"}  # where the features are not Inception's, for which these names are kept
NEAR = "nearer the reals"
# Kinds of which the least is best.
_LOWER = ("fd", "kd", "mode_kl", "ppl", "swd", "msssim", "l1", "masked_l1", "lpips_alex", "lpips_vgg", CYCLE)


class Protocol(NamedTuple):
    """What a name stands for."""

    name: str
    kind: str            # see `FAMILIES`
    network: str         # as `networks.load` knows it, or one of `networks.FITTED`; empty where none is needed
    output: str          # of the network
    samples: int         # images of the generator
    reals: int | None    # at most so many; None for all, 0 for none
    options: dict[str, Any]


class Family(NamedTuple):
    """The names that begin alike."""

    kind: str
    network: str = ""
    output: str = ""
    most: int | None = None  # reals of `_full`; None for all, 0 where no real is looked at
    options: dict[str, Any] = {}  # noqa: RUF012, never changed


FAMILIES = {
    "fid": Family("fd", "inception", "2048"),
    "kid": Family("kd", "inception", "2048", 1_000_000, {"subsets": 100, "subset_size": 1000}),
    "pr": Family("pr", "vgg16", "fc2_relu", 200_000, {"neighbours": 3}),
    "prdc": Family("prdc", "inception", "2048", None, {"neighbours": 5}),
    "is": Family("is", "inception", "logits_unbiased", 0, {"splits": 10}),
    "fd_dinov2_": Family("fd", "dinov2_vitl14", "cls"),
    "swd": Family("swd"),
    "msssim": Family("msssim", most=0),
}
_FAMILY_OF = {"fd": "fid", "kd": "kid", "prdc": "prdc"}  # names without a count, of any features
_OF_THE_VALUE = ("features", "samples", "preprocessing", "weights", "split", "flip_reals", "statistics")
_NAME = re.compile(rf"({'|'.join(FAMILIES)})(\d+)(?:(k)(\d*))?(_full)?(_infinity|_interval)?")
_PATCHES = re.compile(r"pfid(\d+)(k?)(?:x(\d+))?(_full)?")
PATCH = 64  # pixels of a patch's side
_CLIPS = re.compile(r"fvd(\d+)(k?)_(\d+)f(_full)?")
_PATH = re.compile(r"ppl(2?)_([zw])(full|end)(?:_(\d+)(k?))?")
EXAMPLES = ("fid50k_full, fid10k, fid50k_full_infinity, kid50k_full, pr50k3_full, prdc10k5, is50k, "
            "fd_dinov2_50k_full, pfid10k, fvd2048_16f, ppl2_wend, ppl_zfull, swd16k, msssim10k")


def parse(name: str) -> Protocol | None:
    """The protocol of a name with a count, such as `kid50k_full`; None for any other text.

    Without `_full`, as many reals as images are drawn, without replacement. `_infinity` extrapolates a Frechet
    distance to endlessly many images, `_interval` resamples it. Thousands are 1024 for `swd`, as published; `msssim`
    counts pairs. `ppl2_wend` takes 50,000 steps in W at the path's ends; `ppl_` crops faces first; a last
    number counts the steps. `pfid10k` is a Frechet distance of all patches of 64x64 pixels, `pfid10kx32` of 32x32.
    `fvd2048_16f` is one of clips' first 16 frames.
    """
    if clips := _CLIPS.fullmatch(name):
        count, thousands, frames, full = clips.groups()
        samples, network = int(count) * (1000 if thousands else 1), f"{networks.I3D}{networks.PATCHES}{frames}"
        return Protocol(name, "fd", network, "logits", samples, None if full else samples, {"frames": int(frames)})
    if patches := _PATCHES.fullmatch(name):
        count, thousands, side, full = patches.groups()
        samples, side = int(count) * (1000 if thousands else 1), int(side or PATCH)
        network = f"inception{networks.PATCHES}{side}"
        return Protocol(name, "fd", network, "2048", samples, None if full else samples, {"patch": side})
    path = _PATH.fullmatch(name)
    if path:
        second, space, sampling, count, thousands = path.groups()
        samples = int(count) * (1000 if thousands else 1) if count else 50_000
        options = {"space": space, "sampling": sampling, "crop": not second}
        return Protocol(name, "ppl", "lpips_vgg", "", samples, 0, options)
    match = _NAME.fullmatch(name)
    if not match:
        return None
    start, count, thousands, neighbours, full, extra = match.groups()
    family = FAMILIES[start]
    samples = int(count) * ((1024 if start == "swd" else 1000) if thousands else 1)
    options = dict(family.options)
    misfits = [neighbours and "neighbours" not in options, extra and family.kind != "fd"]
    if any(misfits) or full and start in ("is", "msssim", "swd"):
        return None
    if neighbours:
        options["neighbours"] = int(neighbours)
    if extra:
        options["estimate"] = extra[1:]
    if family.kind == "msssim":
        samples *= 2
    reals = 0 if family.most == 0 else family.most if full else samples
    return Protocol(name, family.kind, family.network, family.output, samples, reals, options)


def wanted(config: ConfigDict, names: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The metrics to compute, each once, `fid` and `kid` under what they stand for.

    Raises:
      UserError: an unknown metric, or one that the run's features, data or generator cannot give.
    """
    section = config.evaluation
    meanings = (meant(name, section) for name in (section.metrics if names is None else names))
    listed = tuple(dict.fromkeys(one for name in meanings for one in training_set.expanded(name, section)))
    has_target = bool(games.target(games.find(config.game), config))
    for name in listed:
        if name in PAIRED and not has_target:
            raise UserError(f"metrics={name}: compares two folders, image by image: give --images and --reference; or "
                            f"samples with what they are to be, and the game {config.game!r} has nothing such")
        if name in IN_HOLES and not games.mask(games.find(config.game)):
            raise UserError(f"metrics={name}: measures inside holes, and samples of the game {config.game!r} have none")
        if name not in (*PLAIN, *(PAIRED if has_target else ())) and parse(name) is None:
            raise UserError(f"metrics={name!r}: expected some of {', '.join(PLAIN)}, or such as {EXAMPLES}")
        check_count(name)
    networks.check(section)
    training_set.check(listed, config)
    _check_features([name for name in listed if parse(name) is None and name not in PAIRED], config)
    data = _drawn_data(config)
    if CYCLE in listed and not hasattr(games.find(config.game), "returns"):
        raise UserError(f"metrics={CYCLE}: the game {config.game!r} draws no way back; leave it out")
    if RETRIEVAL in listed and not games.compares(games.find(config.game), config):
        raise UserError(f"metrics={RETRIEVAL}: the game {config.game!r} has no encoders of captions and images here; "
                        "leave it out")
    if "modes" in listed and not data.startswith("mixture:"):
        raise UserError(f"metrics=modes: only mixtures have known modes, not {data!r}")
    named = [name for name in listed if parse(name)]
    seen = [name for name in listed if name in (*named, OBEYED, *OF_IMAGES, *OF_TRAINING)]
    if seen and data.startswith("mixture:"):
        raise UserError(f"metrics={','.join(seen)}: they look at images, and {data!r} has points")
    generator = games.find(config.game).constructors(config).get("generator")
    moved = [name for name in listed if name in EQUIVARIANCE]
    if moved and (generator is None or "transform" not in inspect.signature(generator.__call__).parameters):
        raise UserError(
            f"metrics={','.join(moved)}: they move the generator's input, and config.generator.name="
            f"{config.generator.name!r} has none that can be moved; take stylegan3, or leave them out"
        )
    paths = [name for name in named if parse(name).kind == "ppl"]
    if paths and not hasattr(generator, "mapping"):
        raise UserError(
            f"metrics={','.join(paths)}: they walk between styles, and config.generator.name="
            f"{config.generator.name!r} has none; take a StyleGAN, or leave them out"
        )
    return listed


def meant(name: str, section) -> str:
    """`fid` and `kid` under what they stand for: of all samples where the features are Inception's, else `fd`, `kd`.

    `pfid` is always of all samples.
    """
    if name == "pfid":
        return f"pfid{count_word(section.samples)}_full"
    if name not in ALIASES:
        return name
    if section.features.removeprefix("random_") != "inception":
        return ALIASES[name]
    return f"{name}{count_word(section.samples)}_full"


def count_word(count: int) -> str:
    """50000 -> 50k, 1437 -> 1437."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)


def check_count(name: str) -> None:
    """Raises UserError where a protocol's count is too small for it."""
    protocol = parse(name)
    if protocol is None:
        return
    least = max(protocol.options.get("splits", 2), protocol.options.get("neighbours", 1) + 1)
    if protocol.samples < least:
        raise UserError(f"metrics={name}: of {protocol.samples} images; expected {least} or more")
    if protocol.options.get("frames", i3d.LEAST) < i3d.LEAST:
        raise UserError(f"metrics={name}: of {protocol.options['frames']} frames; expected {i3d.LEAST} or more, "
                        "which its network needs")


def _drawn_data(config: ConfigDict) -> str:
    """Name of the data that the run's samples are to be like."""
    parts = config.data.get("parts")
    return parts[games.drawn(games.find(config.game), config)].name if parts else config.data.name


def _check_features(plain: list[str], config: ConfigDict) -> None:
    """Raises UserError where metrics of config.evaluation.features cannot be had."""
    features = config.evaluation.features
    judged = judged_of(plain)
    if judged and features == "none":
        raise UserError(
            f"metrics={','.join(judged)}: they need features, and config.evaluation.features is 'none'; "
            "choose features, or measure nothing: '--config.evaluation.metrics=()'"
        )
    data = _drawn_data(config)
    if judged and features == networks.JUDGE and data.partition(":")[0] != "digits":
        raise UserError(
            f"config.evaluation.features={networks.JUDGE!r} judges the data 'digits', not {data!r}; "
            "measure nothing of this data: '--config.evaluation.metrics=()', or by another network"
        )
    if judged and features == networks.CLASSIFIER and not config.evaluation.judge:
        raise UserError(f"config.evaluation.features={features!r}: set config.evaluation.judge to labelled data that "
                        "it is to be fitted on, such as photographs:grass+gravel")
    of_classes = [name for name in judged if name in OF_CLASSES]
    if of_classes and features not in networks.JUDGES:
        raise UserError(f"metrics={','.join(of_classes)}: they need a classifier of the data, "
                        f"{' or '.join(networks.JUDGES)}; not {features!r}")


def judged_of(listed) -> tuple[str, ...]:
    """Those without a count that look at config.evaluation.features."""
    return tuple(name for name in listed if name in PLAIN and name not in WITHOUT_FEATURES)


def listed_protocols(section: ConfigDict, listed: tuple[str, ...]) -> list[Protocol]:
    """The protocols of those metrics that need a network of `networks`, or images alone.

    Those without a count are of config.evaluation's features and samples, against all reals.
    """
    protocols = []
    for name in listed:
        protocol = parse(name)
        if name in _FAMILY_OF:
            network, output = networks.split(section.features)
            family = FAMILIES[_FAMILY_OF[name]]
            protocol = Protocol(name, family.kind, network, output, section.samples, None, dict(family.options))
        elif name in OF_CLASSES:
            most = 0 if name == "classes" else None
            protocol = Protocol(name, name, section.features, "logits", section.samples, most, {})
        elif name == OBEYED:
            protocol = Protocol(name, name, networks.OF_LABELS, "logits", section.samples, None, {})
        elif name in PAIRED:
            network = name if name.startswith("lpips_") else ""
            protocol = Protocol(name, name, network, "", section.samples, 0, {})
        elif name == training_set.NEAREST_FEATURES:
            features = networks.split(section.features)
            protocol = Protocol(name, training_set.NEAREST, *features, section.samples, None, {})
        elif name in (*OF_IMAGES, *OF_TRAINING):
            protocol = Protocol(name, name, "", "", section.samples, None, {})
        if protocol is not None:
            protocols.append(protocol)
    return protocols


def reported(protocol: Protocol, net: "networks.FeatureNet | None", preprocessing: str) -> str:
    """The name of the value: another one than the published where weights or preprocessing are not.

    `fid50k_full` of random weights is `fd50k_full_random_inception`, of clean-fid's resize `fid50k_full_clean`, and
    `fd` of Inception's 64 features `fd_inception_64`. What a classifier says of classes has names without a beginning.
    """
    if protocol.kind in OF_CLASSES:
        return "" if protocol.kind == "classes" else protocol.name
    if protocol.kind in PAIRED and net is not None:
        return net.name
    if net is None or protocol.kind == OBEYED:
        return protocol.name
    plain = parse(protocol.name) is None
    name, tail = protocol.kind if plain else protocol.name, f"_{net.name}" if plain or not net.published else ""
    if plain and protocol.output not in (networks.DEFAULT_OUTPUTS.get(protocol.network), "cls"):
        tail += f"_{protocol.output}"
    if not net.published:
        name = re.sub(r"^(p?f|k)id|^fvd", lambda match: f"{match[1] or 'f'}d", name)
    own = net.name.endswith("inception") and preprocessing != networks.PREPROCESSING[0]
    return name + tail + (f"_{preprocessing}" if own else "")


def better(kind: str) -> str:
    """Whether a kind of value is the better the `lower` or the `higher` it is, or the `nearer the reals`."""
    if kind in (*OF_IMAGES, *training_set.UNRANKED):
        return NEAR
    return "lower" if kind in _LOWER else "higher"


def direction(name: str) -> str:
    """Whether values of this name in a run's files are the better the `lower` or the `higher`; losses are the lower.

    What stands behind a kind in a name says of which features it is, as in `fd_digits_classifier`.
    """
    protocol = parse(name)
    lower = "/" in name.replace("cas/", "") or name.startswith((*_LOWER, *("fid", "kid", "pfid", "fvd")))
    return better(protocol.kind) if protocol else "lower" if lower else better(name)


def unranked(name: str) -> str:
    """Why values of this metric have no order, for a message; empty where they have one."""
    is_unranked = name in OF_IMAGES or name.startswith(training_set.UNRANKED)
    return f"the better the {NEAR}, and neither the least nor the greatest is the best" if is_unranked else ""


def ranking(config: ConfigDict) -> dict:
    """The `metric` by which the best checkpoint is kept, the first of the config's list, and its `lower_is_better`.

    Beside its name stand the settings of its protocol, so that values from before they were changed do not count.

    Raises:
      UserError: the first is one that only its distance from the reals' makes good or bad.
    """
    name = next(iter(wanted(config)), "")
    protocol = parse(name)
    if why := unranked(name):
        raise UserError(f"config.evaluation.metrics: {name} is {why}; list another one first, by which "
                        "checkpoints are ranked")
    lower = not name or better(protocol.kind if protocol else name) == "lower"
    settings = ",".join(f"{key}={config.evaluation[key]}" for key in _OF_THE_VALUE)
    if config.evaluation.border:
        settings += f",border={config.evaluation.border}"
    if config.evaluation.features in networks.JUDGES:
        settings += ",labels=drawn"  # earlier values were of labels in turn
    if config.evaluation.features == networks.CLASSIFIER:
        settings += f",judge={config.evaluation.judge}"
    if name == OBEYED:
        settings += f",judge_split={config.evaluation.judge_split}"
    return {"metric": f"{name} {settings}" if name else "", "lower_is_better": lower}
