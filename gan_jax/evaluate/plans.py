"""Protocols made ready: their networks and reals, what they need of a pass over images, and their rows."""

import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from gan_jax import metrics, parallel
from gan_jax.errors import UserError
from gan_jax.evaluate import collect, consumers, judges, learning, pairs, protocols, sizes
from gan_jax.evaluate import reals as real_side
from gan_jax.evaluate.collect import Collected, Needs, Want
from gan_jax.evaluate.protocols import Protocol
from gan_jax.evaluate.reals import Reals
from gan_jax.features import networks
from gan_jax.features.networks import FeatureNet
from gan_jax.metrics import frechet

SUBSET_SEED = 2020  # of KID's subsets, torch-fidelity's default
FEW = 4  # times as many images as features: below, a distance says more of their number than of the images
BIAS_SEED = 0


class Plan(NamedTuple):
    """A protocol and what it meets."""

    protocol: Protocol
    net: FeatureNet | None
    reals: int                             # how many
    from_file: metrics.Moments | None      # of the reals, where a file has them

    @property
    def of_reals(self) -> Want:
        """The output of the reals that it looks at."""
        return Want(self.protocol.network, self.protocol.output, self.reals)


class Value(NamedTuple):
    """A number: what its protocol's name ends in, and what is told beside it."""

    suffix: str
    value: float | None  # None where it is endless
    beside: dict[str, Any]


class Plans(NamedTuple):
    """What all protocols of one call share."""

    plans: tuple[Plan, ...]
    section: ConfigDict  # config.evaluation
    reals: Reals | None  # None where statistics from a file are all that is needed
    nets: dict[str, FeatureNet]
    variables: dict[str, Any]  # by network, on every device of this process
    forward: Callable  # a pass over images of the host, see `reals.passing`
    warnings: dict[tuple, str]  # of Frechet distances, whose bias takes longer to tell than they themselves
    seed: int
    targets: pairs.Targets | None = None  # what the images are to be, of metrics of pairs
    training: learning.Training | None = None  # what the run was trained on, of `protocols.OF_TRAINING`
    asked: judges.Asked | None = None  # what they are to show, of `protocols.OBEYED`
    check: Callable[[], None] = lambda: None  # see `ready`

    @property
    def samples(self) -> int:
        """The most images of a generator that a protocol looks at."""
        return max(plan.protocol.samples for plan in self.plans)

    def measure(
        self, fakes: Callable[[Needs], Collected], path_length: Callable[[Plan], float],
        labels: np.ndarray | None = None,
    ) -> list[dict]:
        """Rows of all protocols, each with its `group`, the protocol as listed, and its `kind`.

        Args:
          fakes: the pass over the images that are measured.
          path_length: the value of a path length's plan.
          labels: (`samples`,) the class that each of the images is to show; None where they were given none.
        """
        states = {plan.protocol.name: self._state(plan) for plan in self.plans}
        of_reals = self._of_reals(states)
        for state in states.values():
            if isinstance(state, consumers.Patches):
                state.turn()
        needs = collect.union(sides(p.protocol, p.reals, states[p.protocol.name])[1] for p in self.plans)
        of_fakes = fakes(needs) if needs.total() else Collected({}, {})
        rows = []
        for plan in self.plans:
            self.check()
            if plan.protocol.kind == "ppl":
                row_values = [Value("", path_length(plan), dict(plan.protocol.options))]
            else:
                state = states[plan.protocol.name]
                row_values = values(plan.protocol, of_reals, of_fakes, plan.reals, state, labels)
            warning = self._warning(plan, of_reals, of_fakes)
            rows += [self._row(plan, value, warning) for value in row_values]
        return rows

    def compare(self, plan: Plan, sets: dict[str, tuple[int, Callable[[Needs], Collected]]]) -> list[dict]:
        """Rows of a Frechet distance for other images: name -> (how many, the pass over them)."""
        real, rows = self._of_reals({plan.protocol.name: None}, (plan,)).moments[plan.of_reals], []
        for name, (count, images) in sets.items():
            want = Want(plan.protocol.network, plan.protocol.output, count)
            moments = images(Needs(moments=(want,))).moments[want]
            distance = frechet.frechet_distance(real.mean, real.covariance, moments.mean, moments.covariance)
            rows.append({**self._row(plan, Value(f"/{name}", distance, {}), ""), "samples": count})
        return rows

    def of_images(self, images: np.ndarray) -> tuple[int, Callable[[Needs], Collected]]:
        """What `compare` takes for images (N, H, W, C) of the host."""
        return len(images), partial(self.forward, images=lambda places: images[places])

    def save_statistics(self, path: str) -> str:
        """Writes the reals' moments of the first Frechet distance as `metrics.save_moments` does; tells what it wrote.

        Raises:
          UserError: there is no such protocol.
        """
        plan = next((plan for plan in self.plans if of_whole_images(plan.protocol)), None)
        if plan is None:
            raise UserError(f"--save_statistics={path}: none of the metrics has moments; list fid50k_full, or such")
        if not pathlib.Path(path).absolute().parent.is_dir() or pathlib.Path(path).is_dir():
            raise UserError(f"--save_statistics={path}: expected a file in a folder that is there")
        moments = self._of_reals({p.protocol.name: consumers.of(p.protocol, self.seed) for p in (plan,)}, (plan,))
        if jax.process_index() == 0:
            metrics.save_moments(path, moments.moments[plan.of_reals])
        return f"wrote {path}: {plan.net.name}/{plan.protocol.output} of {plan.reals} reals, {plan.net.preprocessing}"

    def _state(self, plan: Plan) -> Any:
        if plan.protocol.kind in protocols.PAIRED:
            return pairs.Pairs(plan.protocol.kind, plan.net, self.targets, self.section.border)
        if plan.protocol.name in protocols.OF_TRAINING:
            return learning.Source(self.training, self._rows_of).state(plan.protocol)
        if plan.protocol.kind == protocols.OBEYED:
            return self.asked
        return consumers.of(plan.protocol, self.seed)

    def _rows_of(self, protocol: Protocol, reals: Reals) -> np.ndarray:
        """The output of a protocol's network of all images of a set, float32 (N, D)."""
        want = Want(protocol.network, protocol.output, reals.size)
        return real_side.statistics(reals, Needs(rows=(want,)), self.nets, self.forward).rows[want]

    def _of_reals(self, states: dict, plans: tuple[Plan, ...] | None = None) -> Collected:
        """What protocols need of the reals, those of a file included."""
        plans = self.plans if plans is None else plans
        from_files = {plan.of_reals: plan.from_file for plan in plans if plan.from_file is not None}
        needs = collect.union(sides(p.protocol, p.reals, states[p.protocol.name])[0]
                              for p in plans if p.from_file is None)
        if not needs.total():
            return Collected(from_files, {})
        collected = real_side.statistics(self.reals, needs, self.nets, self.forward)
        return Collected({**collected.moments, **from_files}, collected.rows)

    def _row(self, plan: Plan, value: Value, warning: str) -> dict:
        protocol, net = plan.protocol, plan.net
        row: dict[str, Any] = {
            "group": protocol.name, "kind": protocol.kind, "samples": protocol.samples,
            "value": None if value.value is None else float(value.value),
            "metric": protocols.reported(protocol, net, self.section.preprocessing) + value.suffix,
        }  # fmt: skip
        if net is not None:
            output = f"/{protocol.output}" if protocol.output else ""
            row |= {"features": net.name + output, "features_sha256": net.sha256, "preprocessing": net.preprocessing}
            row |= {} if net.accuracy is None else {"features_accuracy": net.accuracy}
        if plan.from_file is not None:
            file = self.section.statistics
            row |= {"data": f"file:{file}", "reals": plan.from_file.count or "unknown",
                    "data_fingerprint": real_side.file_sha256(file)}
        elif protocol.reals != 0:
            row |= {"reals": plan.reals, **self.reals.protocol()}
        return row | ({"warning": warning} if warning else {}) | value.beside

    def _warning(self, plan: Plan, of_reals: Collected, of_fakes: Collected) -> str:
        protocol, parts = plan.protocol, []
        if plan.from_file is None and protocol.reals == protocol.samples > plan.reals:  # the name has no `_full`
            parts.append(f"{plan.reals} reals, all there are, where the name means {protocol.reals}")
        if protocol.kind == "fd":
            key = plan.of_reals, protocol.samples, plan.from_file is None
            if key not in self.warnings:
                own = of_fakes.moments.get(Want(protocol.network, protocol.output, protocol.samples))
                counted = protocol._replace(samples=own.count) if own else protocol  # patches are more than images
                self.warnings[key] = too_few(counted, plan.net, of_reals.moments[plan.of_reals])
            parts.append(self.warnings[key])
        return "; ".join(filter(None, parts))


def of_whole_images(protocol: Protocol) -> bool:
    """Whether it is a Frechet distance whose reals' moments may lie in a file."""
    return protocol.kind == "fd" and "patch" not in protocol.options


def ready(
    listed: list[Protocol], section: ConfigDict, *, open_reals: Callable, shape: tuple[int, ...], seed: int,
    fit_judge: Callable[[str], FeatureNet] | None = None, targets: pairs.Targets | None = None,
    asked: judges.Asked | None = None, open_training: Callable[[Any], learning.Training] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Plans | None:
    """Loads what protocols need; None where none is listed.

    Args:
      listed: see `protocols.listed_protocols`.
      section: config.evaluation.
      open_reals: () -> Dataset; asked only where reals are looked at.
      shape: (H, W, C) of the images that are measured.
      seed: of what is drawn.
      fit_judge: one of `networks.FITTED` -> that classifier of the data, where they have one.
      targets: of metrics of pairs.
      asked: of `protocols.OBEYED`.
      open_training: the reals' Dataset -> what the run was trained on; asked only where that is looked at.
      check: called between batches and protocols; what it raises ends the measurement.
    Raises:
      MissingPathError, UserError: weights, statistics or data that cannot be read, too few of them, or images of
        another shape than a protocol takes.
    """
    if not listed:
        return None
    for protocol in listed:
        sizes.check_kind(protocol, shape)
    names = dict.fromkeys(protocol.network for protocol in listed if protocol.network)
    if set(names) - set(networks.FITTED):
        networks.check_channels(shape, "the generator or folder")
    nets = {name: fit_judge(name) if name in networks.FITTED else networks.load(name, section) for name in names}
    files = {p.name: real_side.from_file(section.statistics, nets[p.network], p.output)
             for p in listed if of_whole_images(p) and section.statistics}
    reals = None
    if any(p.reals != 0 and p.name not in files for p in listed):
        reals = real_side.of(open_reals(), flip=section.flip_reals)
    plans = []
    for protocol in listed:
        count = real_side.at_most(protocol.reals, reals.size) if reals else 0
        if protocol.name not in files and protocol.reals != 0:
            sizes.check_reals(protocol, count, reals.dataset, shape)
        sizes.check_shape(protocol, shape)
        sizes.check_pairs({protocol.name} & set(protocols.PAIRED), shape, section.border)
        net = nets.get(protocol.network)
        if net is not None and net.outputs and protocol.output not in net.outputs:
            raise UserError(f"metrics={protocol.name}: {net.name} says nothing of labels, as the data have none")
        plans.append(Plan(protocol, net, count if protocol.reals != 0 else 0, files.get(protocol.name)))
    trees = {name: net.variables for name, net in nets.items() if net.outputs}
    mesh = parallel.make_mesh(jax.local_devices())
    variables = jax.device_put(trees, parallel.replicated(mesh))
    forward = real_side.passing(nets, variables, section.batch_size, check)
    is_asked = any(protocol.name in protocols.OF_TRAINING for protocol in listed)
    training = parallel.together(partial(open_training, reals.dataset)) if is_asked else None
    return Plans(tuple(plans), section, reals, nets, variables, forward, {}, seed, targets, training, asked, check)


# What a protocol needs of images, and its values from what was kept of them.


def sides(protocol: Protocol, reals: int, state: Any = None) -> tuple[Needs, Needs]:
    """(needs of the reals, needs of the fakes), for so many reals; `state` is one of `consumers`, or `Pairs`."""
    theirs, own = (Want(protocol.network, protocol.output, count) for count in (reals, protocol.samples))
    if protocol.name in protocols.OF_TRAINING:
        return Needs(), state.needs()
    if protocol.kind == "fd":
        of_fakes = Needs(rows=(own,)) if "estimate" in protocol.options else Needs(moments=(own,))
        return Needs(moments=(theirs,)), of_fakes
    if protocol.kind in ("kd", "pr", "prdc", "style_entropy", protocols.OBEYED):
        return Needs(rows=(theirs,)), Needs(rows=(own,))
    if protocol.kind in ("is", "classes"):
        return Needs(), Needs(rows=(own,))
    if protocol.kind == "swd":
        return Needs(consumers=((reals, state.update),)), Needs(consumers=((protocol.samples, state.update),))
    if protocol.kind in protocols.OF_IMAGES:
        counts = reals, protocol.samples
        return tuple(Needs(consumers=((count, partial(state.update, side)),)) for side, count in enumerate(counts))
    if protocol.kind in protocols.PAIRED:
        return Needs(), Needs(consumers=((min(protocol.samples, state.size), state.update),))
    if protocol.kind == "msssim":
        return Needs(), Needs(consumers=((protocol.samples, state.update),))
    return Needs(), Needs()


def values(
    protocol: Protocol, reals: Collected, fakes: Collected, count: int, state: Any = None,
    labels: np.ndarray | None = None,
) -> list[Value]:
    """The protocol's numbers, the first the one that stands for it.

    Args:
      protocol: any but path lengths.
      reals, fakes: what `sides` asked for was kept.
      count: of the reals, as asked for.
      state: as given to `sides`.
      labels: see `Plans.measure`.
    """
    theirs, own = (Want(protocol.network, protocol.output, n) for n in (count, protocol.samples))
    kind, options = protocol.kind, protocol.options
    if protocol.name in protocols.OF_TRAINING:
        return [Value(*row) for row in state.rows(fakes, labels)]
    if kind == "fd":
        return [_frechet(options.get("estimate"), reals.moments[theirs], fakes, own)]
    if kind == "kd":
        a, b = reals.rows[theirs], fakes.rows[own]
        mean, std = metrics.kernel_distance(a, b, seed=SUBSET_SEED, **options)
        size = min(options["subset_size"], len(a), len(b))
        return [Value("", mean, {"std": std, "subsets": options["subsets"], "subset_size": size})]
    if kind in ("pr", "prdc"):
        return _neighbours(kind, reals.rows[theirs], fakes.rows[own], options["neighbours"])
    if kind == "is":
        mean, std = metrics.inception_score(fakes.rows[own], splits=options["splits"], seed=None)
        return [Value("", mean, {"std": std, "splits": options["splits"]})]
    if kind == "style_entropy":
        beside = {"value_of_reals": metrics.entropy(reals.rows[theirs])}
        return [Value("", metrics.entropy(fakes.rows[own]), beside)]
    if kind == "classes":
        return _classes(fakes.rows[own], labels)
    if kind == protocols.OBEYED:
        right = state.of_reals(reals.rows[theirs])
        return [Value(f"_{name}" if name else "", share, {"value_of_reals": right[name]})
                for name, share in state.of_samples(fakes.rows[own]).items()]
    if kind in (*protocols.PAIRED, *protocols.OF_IMAGES):
        return [Value("", *state.finish())]
    if kind == "swd":
        distances = state.values()
        of_levels = [Value(f"_{level}", distances[level], {}) for level in distances if level != "mean"]
        return [Value("", distances["mean"], {}), *of_levels]
    each = np.concatenate(state.values)
    return [Value("", float(each.mean()), {"pairs": len(each)})]


def _frechet(estimate: str | None, real: metrics.Moments, fakes: Collected, own: Want) -> Value:
    if estimate == "infinity":
        line = metrics.extrapolated_distance(fakes.rows[own], real)
        return Value("", line.value, {"slope": line.slope, "points": len(line.sizes), "least": int(line.sizes[0])})
    if estimate == "interval":
        interval = metrics.bootstrap_interval(fakes.rows[own], real)
        return Value("", interval.value, {"low": interval.low, "high": interval.high, "level": 0.95})
    fake = fakes.moments[own]
    return Value("", frechet.frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance), {})


def _neighbours(kind: str, real: np.ndarray, fake: np.ndarray, k: int) -> list[Value]:
    on_device = jax.local_devices()[0].platform != "cpu"
    shares = metrics.neighbourhoods(real, fake, k=k, inclusive=kind == "pr", device=on_device)
    names = ("precision", "recall") if kind == "pr" else shares._fields
    return [Value(f"_{name}", getattr(shares, name), {"neighbours": k}) for name in names]


def _classes(logits: np.ndarray, labels: np.ndarray | None) -> list[Value]:
    """How sure the classifier is, the shares of the classes, and how often it sees the class that was asked for."""
    shares = metrics.class_shares(logits, logits.shape[1])
    by_name = {"confidence": metrics.confidence(logits), "class_share_min": shares.min()}
    by_name |= {f"class_share/{label}": share for label, share in enumerate(shares)}
    if labels is not None:
        by_name["label_agreement"] = metrics.agreement(logits, labels[: len(logits)])
    return [Value(name, number, {}) for name, number in by_name.items()]


def too_few(protocol: Protocol, net: FeatureNet, real: metrics.Moments) -> str:
    """A warning where a Frechet distance is of too few images for its features, with the bias; else nothing.

    The bias is the distance between so many samples and as many as there are reals, both of a Gaussian of the reals'
    moments. Of few reals these moments vary too little, so that the true bias is larger.
    """
    dim, few = net.outputs[protocol.output], []
    if protocol.samples < FEW * dim:
        few.append(f"{protocol.samples} images")
    if real.count and real.count < FEW * dim:
        few.append(f"{real.count} reals")
    if protocol.kind != "fd" or not few:
        return ""
    bias = _bias(real, protocol.samples)
    singular = "; their covariance is singular" if min(protocol.samples, real.count or dim + 1) <= dim else ""
    least = "at least " if any("reals" in part for part in few) else ""
    return (f"{' and '.join(few)} for {dim} features{singular}: even a perfect generator would score {least}about "
            f"{bias:.4g}; values of other numbers of images do not compare")


def _bias(real: metrics.Moments, count: int) -> float:
    """The distance of two sets of one Gaussian, of `count` samples and of as many as the reals, where known."""
    counts = [n for n in (count, real.count) if n]
    if min(counts) > FEW * len(real.mean):
        return sum(frechet.bias(real.covariance, n) for n in counts)
    root, rng = frechet.factor(real.covariance), np.random.default_rng(BIAS_SEED)
    sets = [_resampled(root, n, rng) for n in counts]
    if not real.count:
        sets.append((np.zeros_like(real.mean), root))
    (mean1, root1), (mean2, root2) = sorted(sets, key=lambda one: one[1].shape[1])
    return frechet.frechet_distance(mean1, root1 @ root1.T, mean2, root2 @ root2.T, root1=root1)


def _resampled(root: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and a root (D, k) of the covariance of `count` samples of a Gaussian around 0.

    `root` (D, r) is one of the Gaussian's own covariance. Drawn by Bartlett's decomposition of a Wishart matrix, not
    sample by sample: its factor is normal below the diagonal, whose squares are chi-squared of one degree less in each
    row.
    """
    dim = root.shape[1]
    rank = min(dim, count - 1)
    factor = np.tril(rng.standard_normal((dim, rank)), -1)
    np.fill_diagonal(factor, np.sqrt(rng.chisquare(count - 1 - np.arange(rank))))
    return root @ rng.standard_normal(dim) / np.sqrt(count), root @ factor / np.sqrt(count - 1)
