"""Protocols made ready: their networks loaded, their reals counted; and the rows that come of a pass over images."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from gan_jax import metrics, parallel
from gan_jax.errors import UserError
from gan_jax.evaluate import collect, distances, networks, protocols
from gan_jax.evaluate import reals as real_side
from gan_jax.evaluate.collect import Collected, Needs, Want
from gan_jax.evaluate.networks import FeatureNet
from gan_jax.evaluate.protocols import Protocol
from gan_jax.evaluate.reals import Reals


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

    def measure(self, fakes: Callable[[Needs], Collected], path_length: Callable[[Plan], float]) -> list[dict]:
        """Rows of all protocols, each with its `group`, the protocol as listed, and its `kind`.

        Args:
          fakes: the pass over the images that are measured.
          path_length: the value of a path length's plan.
        """
        states = {plan.protocol.name: _state(plan.protocol, self.seed) for plan in self.plans}
        of_reals = self._of_reals(states)
        for state in states.values():
            if isinstance(state, distances.Patches):
                state.turn()
        needs = collect.union(distances.sides(p.protocol, p.reals, states[p.protocol.name])[1] for p in self.plans)
        of_fakes = fakes(needs) if needs.total() else Collected({}, {})
        rows = []
        for plan in self.plans:
            if plan.protocol.kind == "ppl":
                values = [distances.Value("", path_length(plan), dict(plan.protocol.options))]
            else:
                state = states[plan.protocol.name]
                values = distances.values(plan.protocol, of_reals, of_fakes, plan.reals, state)
            warning = self._warning(plan, of_reals)
            rows += [self._row(plan, value, warning) for value in values]
        return rows

    def save_statistics(self, path: str) -> str:
        """Writes the reals' moments of the first Frechet distance as `metrics.save_moments` does; tells what it wrote.

        Raises:
          UserError: there is no such protocol.
        """
        plan = next((plan for plan in self.plans if plan.protocol.kind == "fd"), None)
        if plan is None:
            raise UserError(f"--save_statistics={path}: none of the metrics has moments; list fid50k_full, or such")
        if not pathlib.Path(path).absolute().parent.is_dir() or pathlib.Path(path).is_dir():
            raise UserError(f"--save_statistics={path}: expected a file in a folder that is there")
        moments = self._of_reals({p.protocol.name: _state(p.protocol, self.seed) for p in (plan,)}, (plan,))
        if jax.process_index() == 0:
            metrics.save_moments(path, moments.moments[plan.of_reals])
        return f"wrote {path}: {plan.net.name}/{plan.protocol.output} of {plan.reals} reals, {plan.net.preprocessing}"

    def _of_reals(self, states: dict, plans: tuple[Plan, ...] | None = None) -> Collected:
        """What protocols need of the reals, those of a file included."""
        plans = self.plans if plans is None else plans
        given = {plan.of_reals: plan.from_file for plan in plans if plan.from_file is not None}
        needs = collect.union(distances.sides(p.protocol, p.reals, states[p.protocol.name])[0]
                              for p in plans if p.from_file is None)
        if not needs.total():
            return Collected(given, {})
        found = real_side.statistics(self.reals, needs, self.nets, self.forward)
        return Collected({**found.moments, **given}, found.rows)

    def _row(self, plan: Plan, value: distances.Value, warning: str) -> dict:
        protocol, net = plan.protocol, plan.net
        name = protocols.reported(protocol, net, self.section.preprocessing) + value.suffix
        told: dict[str, Any] = {"samples": protocol.samples}
        if net is not None:
            output = f"/{protocol.output}" if protocol.output else ""
            told |= {"features": net.name + output, "features_sha256": net.sha256, "preprocessing": net.preprocessing}
        if plan.from_file is not None:
            file = self.section.statistics
            told |= {"data": f"file:{file}", "reals": plan.from_file.count or "unknown",
                     "data_fingerprint": real_side.file_sha256(file)}
        elif protocol.reals != 0:
            told |= {"reals": plan.reals, **self.reals.protocol()}
        if warning:
            told["warning"] = warning
        return {"group": protocol.name, "kind": protocol.kind, "metric": name, "value": float(value.value), **told,
                **value.told}

    def _warning(self, plan: Plan, of_reals: Collected) -> str:
        protocol, said = plan.protocol, []
        if plan.from_file is None and protocol.reals == protocol.samples > plan.reals:  # the name has no `_full`
            said.append(f"{plan.reals} reals, all there are, where the name means {protocol.reals}")
        if protocol.kind == "fd":
            key = plan.of_reals, protocol.samples, plan.from_file is None
            if key not in self.warnings:
                self.warnings[key] = distances.too_few(protocol, plan.net, of_reals.moments[plan.of_reals])
            said.append(self.warnings[key])
        return "; ".join(filter(None, said))


def ready(
    listed: list[Protocol], section: ConfigDict, *, open_reals: Callable, shape: tuple[int, ...], seed: int
) -> Plans | None:
    """Loads what protocols need; None where none is listed.

    Args:
      listed: see `protocols.listed_protocols`.
      section: config.evaluation.
      open_reals: () -> Dataset; asked only where reals are looked at.
      shape: (H, W, C) of the images that are measured.
      seed: of what is drawn.
    Raises:
      MissingPathError, UserError: weights, statistics or data that cannot be read, too few of them, or images of
        another shape than a protocol takes.
    """
    if not listed:
        return None
    named = dict.fromkeys(protocol.network for protocol in listed if protocol.network)
    if named:
        networks.check_channels(shape, "the generator or folder")
    nets = {name: networks.perceptual(name.removeprefix("lpips_"), section) if name.startswith("lpips_")
            else networks.load(name, section) for name in named}
    files = {p.name: real_side.from_file(section.statistics, nets[p.network], p.output)
             for p in listed if p.kind == "fd" and section.statistics}
    reals = None
    if any(p.reals != 0 and p.name not in files for p in listed):
        reals = real_side.of(open_reals(), flip=section.flip_reals)
    plans = []
    for protocol in listed:
        count = real_side.at_most(protocol.reals, reals.size) if reals else 0
        if protocol.name not in files and protocol.reals != 0:
            distances.check_reals(protocol, count, reals.dataset, shape)
        distances.check_shape(protocol, shape)
        net = nets.get(protocol.network)
        plans.append(Plan(protocol, net, count if protocol.reals != 0 else 0, files.get(protocol.name)))
    trees = {name: net.variables for name, net in nets.items() if not name.startswith("lpips_")}
    mesh = parallel.make_mesh(jax.local_devices())
    variables = jax.device_put(trees, parallel.replicated(mesh))
    forward = real_side.passing(nets, variables, section.batch_size)
    return Plans(tuple(plans), section, reals, nets, variables, forward, {}, seed)


def _state(protocol: Protocol, seed: int):
    if protocol.kind == "swd":
        return distances.Patches(seed)
    return distances.Variation() if protocol.kind == "msssim" else None
