"""Makes a run's folder of the weights in a file: `import`."""

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from gan_jax import checkpoint, folders, runs, specs
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.interop import architectures, names, networks
from gan_jax.interop.networks import Network
from gan_jax.weights import containers
from gan_jax.weights.pickles import Damaged

UNKNOWN_DATA = "folder:its-training-images"  # of a network that comes without an experiment
FORMAT = "gan_jax 1"  # of our own safetensors files, in their metadata
_LARGEST = 2**14  # side of images, and their channels
_ADAM = {"name": "adam", "learning_rate": 0.002, "b1": 0.0, "b2": 0.99, "eps": 1e-8}
_STYLE = {"game": "style", "ema": {"half_life_images": 10_000.0}}
_BASES = {
    "stylegan2": _STYLE,
    "stylegan3": _STYLE,
    "r3gan": {"game": "unconditional", "loss": {"name": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0}},
}


class Found(NamedTuple):
    """What a file holds: arrays to put in place of fresh ones, and what it says of the run that they are for."""

    spec: specs.Spec
    params: dict[str, dict[str, np.ndarray]]  # net -> arrays by `<collection>/<path>`
    ema: dict[str, dict[str, np.ndarray]]
    told: str  # for the terminal
    kind: str = ""  # family of official networks
    fields: dict[str, dict] = {}  # net -> those of its model; of official networks
    config: ConfigDict | None = None  # of our own files
    data: dict[str, Any] | None = None  # summary of theirs


def import_weights(source: str, workdir: str, config: str = "", overrides=()) -> str:
    """Reads networks from a file and makes a run's folder of them, whose only checkpoint is of step 0.

    Args:
      source: a .pkl of stylegan2-ada-pytorch, stylegan3 or R3GAN, a .pth or .safetensors of such networks' tensors, or
        a .safetensors that `export` has written.
      workdir: the new run's folder.
      config: experiment for what the file does not tell, such as the data; '' for none.
      overrides: (dotted key, text) pairs.
    Returns:
      A line about what was imported.
    Raises:
      MissingPathError: no such file.
      UserError: a file that is damaged, refused, or of no known network; tensors that do not fit; a folder in use.
    """
    folder = pathlib.Path(workdir)
    if any(path.name.isdigit() for path in (folder / "checkpoints").glob("*")):
        raise UserError(f"--workdir={workdir}: holds a run already; give another folder")
    contents = containers.read_file(source, "--from=")
    with _about(source):
        found = _own(contents) if "gan_jax" in contents.metadata else _official(contents)
    if found.config is not None and config:
        raise UserError(f"--config={config}: the file has its own config; leave the flag out, or override its keys")
    experiment = configs.load(config) if config else None
    with _about(source, named=False):  # a message may be about a flag
        stated = _stated(experiment, found) if found.config is None else found.config
        run = runs.build(configs.resolve(stated, overrides, runs.defaults), found.spec)
    summary = _summary(run) if found.data is None else found.data
    with _about(source):
        state = _state(run, found)
    imported = {"file": pathlib.Path(source).name, "sha256": _sha256(source)}
    folders.start_folder(folder, run.config, run.spec, {**summary, "imported": imported})
    manager = checkpoint.open_manager(folder / "checkpoints")
    with checkpoint.closing(manager):
        checkpoint.save(manager, state, {"position": 0, "data": summary["fingerprint"], "sums": {}})
    return f"imported {found.told} into {folder}, as step 0"


@contextlib.contextmanager
def _about(source: str, *, named: bool = True):
    """Makes one message of whatever goes wrong with what the file says; `named`: puts its name before our own ones."""
    try:
        yield
    except (UserError, Damaged) as error:
        if not named:
            raise
        raise UserError(f"--from={source}: {error}") from error
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"--from={source}: no network can be built of what the file says: {told:.300}") from error


def _sha256(source: os.PathLike | str) -> str:
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _official(contents: containers.Contents) -> Found:
    found, rest = networks.find(contents.value, contents.size)
    generator = found.get("G_ema") or found.get("G")
    if generator is None:
        raise UserError("the file holds a discriminator alone; expected a generator")
    kind = architectures.family(generator.tensors)
    fields = {"generator": architectures.fields(generator, kind, discriminator=False)}
    if "D" in found:
        fields["discriminator"] = architectures.fields(found["D"], kind, discriminator=True)
    spec = _spec(fields)
    placed = {role: _place(network, kind, role == "D") for role, network in found.items()}
    params = {"generator": placed.get("G", placed.get("G_ema"))}
    if "D" in placed:
        params["discriminator"] = placed["D"]
    size = "x".join(map(str, spec["image"].shape))
    classes = f"{specs.classes(spec)} classes" if specs.classes(spec) else "without labels"
    left = f"; left out: {', '.join(rest[:5])}" if rest else ""
    told = f"{', '.join(sorted(found))} ({kind}, {size}, {classes}{left})"
    return Found(spec, params, {"generator": placed.get("G_ema", placed.get("G"))}, told, kind, fields)


def _spec(fields: dict[str, dict]) -> specs.Spec:
    """What the networks say of their data, taken out of their fields. Raises UserError where they disagree."""
    said = {net: [part.pop(key) for key in ("resolution", "channels", "num_classes")] for net, part in fields.items()}
    side, channels, classes = said["generator"]
    if any(other != said["generator"] for other in said.values()):
        raise UserError(f"generator and discriminator differ in resolution, channels and labels: {said}")
    if not (1 <= side <= _LARGEST and 1 <= channels <= _LARGEST and classes <= 2**20):
        raise UserError(f"images of {side}x{side}x{channels} with {classes} classes are larger than any that are known")
    return specs.labelled((side, side, channels), classes)


def _stated(experiment: ConfigDict | None, found: Found) -> ConfigDict:
    """The experiment, or what the family needs, with the fields of the file's networks."""
    adam = {"optim": {"generator": dict(_ADAM), "discriminator": dict(_ADAM)}}
    config = experiment
    if config is None:
        config = ConfigDict({**_BASES[found.kind], **adam, "data": {"name": UNKNOWN_DATA}})
    critic = "stylegan2" if found.kind == "stylegan3" else found.kind  # registered with both
    with config.unlocked():
        for net, name in (("generator", found.kind), ("discriminator", critic)):
            stated = dict(config.get(net, {}))
            section = stated if stated.get("name") == name else {"name": name}
            if net not in found.fields and experiment is None:  # a fresh discriminator, as wide as the generator
                same = ("widths", "blocks", "cardinalities") if name == "r3gan" else ("channel_base", "channel_max")
                section |= {key: found.fields["generator"][key] for key in same}
            config[net] = ConfigDict({**section, **found.fields.get(net, {})})
        config.data.resolution, config.data.channels = found.spec["image"].shape[0], found.spec["image"].shape[2]
        config.conditional = bool(specs.classes(found.spec))
    return config


def _summary(run: runs.Run) -> dict[str, Any]:
    """What `data.json` tells of the data, with the fingerprint: '' where no experiment names them."""
    name = run.config.data.name
    if name == UNKNOWN_DATA:
        return {"name": name, "fingerprint": ""}
    dataset = runs.open_data(run.config)
    seen = runs.data_spec(run.config, dataset)
    if seen != run.spec:
        raise UserError(f"config.data.name={name!r}: the networks are for {run.spec}, and these data are {seen}")
    return dataset.protocol()


def _place(network: Network, kind: str, discriminator: bool) -> dict[str, np.ndarray]:
    """A network's tensors by `<collection>/<path>`, in our names and layouts."""
    placed = {}
    stages = len({name.split("MainLayers.")[1].split(".")[0] for name in network.tensors if "MainLayers." in name})
    for name, value in network.tensors.items():
        if names.is_constant(name):  # compared with the architecture when that was read
            continue
        try:
            if kind == "r3gan":
                (collection, path), value = names.r3gan(name, value, discriminator=discriminator, stages=stages)
            else:
                (collection, path), value = names.stylegan(name, value)
        except (ValueError, IndexError) as error:
            raise UserError(f"{name} has the shape {value.shape}, which does not fit its name") from error
        placed["/".join((collection, *path))] = value
    if len(placed) != sum(not names.is_constant(name) for name in network.tensors):
        raise UserError("two tensors of the file belong to one place")
    return placed


def _state(run: runs.Run, found: Found):
    """A fresh State with the file's arrays in place; what the file has is not drawn."""
    shapes = jax.eval_shape(lambda: runs.init_state(run))
    if found.config is not None and found.params.keys() != shapes.params.keys():
        raise UserError(f"it holds {', '.join(found.params)}; its config has the networks {', '.join(shapes.params)}")
    given: dict[str, dict] = {"params": {}, "variables": {}, "ema": {}}
    for net, tree in found.params.items():
        if net not in shapes.params:
            raise UserError(f"the game {run.config.game!r} has no net {net!r}; it has {', '.join(shapes.params)}")
        tree = _fitted(net, tree, {"params": shapes.params[net], **shapes.variables[net]})
        given["params"][net] = tree.pop("params")
        given["variables"][net] = tree
    for net, tree in found.ema.items():
        given["ema"][net] = _fitted(net, tree, shapes.ema[net])

    def rest():
        state = runs.init_state(run)
        left = {name: {k: v for k, v in getattr(state, name).items() if k not in nets} for name, nets in given.items()}
        return state._replace(**left)

    state = jax.jit(rest)()
    put = {name: {**getattr(state, name), **jax.device_put(nets)} for name, nets in given.items()}
    order = {name: {net: put[name][net] for net in getattr(shapes, name)} for name in given}
    return state._replace(**order)


def _fitted(net: str, theirs: dict[str, np.ndarray], expected: dict) -> dict:
    """The given arrays in a tree like the expected one, and of its types.

    Raises:
      UserError: arrays that are missing, of another shape, without a place, or not finite.
    """
    ours = traverse_util.flatten_dict(expected, sep="/")
    wrong = [f"{name} is missing" for name in ours if name not in theirs]
    wrong += [f"{name} has no place" for name in theirs if name not in ours]
    wrong += [
        f"{name} has the shape {theirs[name].shape}, expected {ours[name].shape}"
        for name in ours
        if name in theirs and theirs[name].shape != ours[name].shape
    ]
    wrong += [f"{name} holds NaN or infinity" for name in theirs if not np.isfinite(theirs[name].astype(float)).all()]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(
            f"the {net}'s tensors do not fit the network of its config: {'; '.join(wrong[:5])}{more}. "
            f"What shapes cannot tell is set by --config.{net}.KEY=VALUE"
        )
    kept = {name: np.asarray(theirs[name], leaf.dtype) for name, leaf in ours.items()}
    return traverse_util.unflatten_dict(kept, sep="/")


def _own(contents: containers.Contents) -> Found:
    """A file that `export` has written: it has its config with it."""
    if contents.metadata["gan_jax"] != FORMAT:
        raise UserError(f"written as {contents.metadata['gan_jax']!r}; this version reads {FORMAT!r}")
    try:
        data = json.loads(contents.metadata["data"])
        spec = data.pop("spec")
        spec = specs.from_json(spec)
        config, averaged = configs.from_json(contents.metadata["config"]), contents.metadata["averaged"].split(",")
        data["fingerprint"] = str(data["fingerprint"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"its metadata cannot be read: {type(error).__name__}: {error}") from error
    nets: dict[str, dict[str, np.ndarray]] = {}
    for name, value in contents.value.items():
        net, _, place = name.partition("/")
        nets.setdefault(net, {})[place] = value
    ema = {net: arrays for net, arrays in nets.items() if net in averaged}
    return Found(spec, nets, ema, f"{', '.join(nets)} of the game {config.get('game')!r}", config=config, data=data)
