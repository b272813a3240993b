"""Makes a run's folder of the weights in a file: `import`."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from gan_jax import checkpoint, folders, initial, run_data, runs, specs
from gan_jax import config as configs
from gan_jax.errors import UserError, plain
from gan_jax.interop import architectures, names, networks, pictures
from gan_jax.interop.networks import LARGEST, UNKNOWN_DATA, Network, Weights
from gan_jax.weights import containers
from gan_jax.weights.pickles import Damaged

FORMAT = "gan_jax 1"  # of our own safetensors files, in their metadata
_ADAM = {"name": "adam", "learning_rate": 0.002, "b1": 0.0, "b2": 0.99, "eps": 1e-8}
_STYLE = {"game": "style", "ema": {"half_life_images": 10_000.0}}
_BASES = {
    "stylegan2": _STYLE,
    "stylegan3": _STYLE,
    "r3gan": {"game": "unconditional", "loss": {"name": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0}},
}


def import_weights(source: str, workdir: str, config: str = "", overrides=()) -> str:
    """Reads networks from a file and makes a run's folder of them, whose only checkpoint is of step 0.

    Args:
      source: a .pkl of stylegan2-ada-pytorch, stylegan3 or R3GAN, a .pth or .safetensors of such networks' tensors, a
        .pt of rosinality's stylegan2-pytorch, a .pth of StudioGAN's StyleGAN2, a .pth of Real-ESRGAN, ESRGAN, pix2pix
        or CycleGAN, or a .safetensors that `export` has written. Several files of one run have commas between.
      workdir: the new run's folder.
      config: experiment for what the file does not tell, such as the data; '' for none.
      overrides: (dotted key, text) pairs.
    Returns:
      A line about what was imported.
    Raises:
      MissingPathError: no such file.
      UserError: a file that is damaged, refused, or of no known network; tensors that do not fit; a folder in use.
    """
    if "://" in str(source):
        raise UserError(f"--from={source}: download it first, and give the path of the file")
    folder = pathlib.Path(workdir)
    if any(path.name.isdigit() for path in (folder / "checkpoints").glob("*")):
        raise UserError(f"--workdir={workdir}: holds a run already; give another folder")
    files = _files(source)
    contents = [containers.read_file(file, "--from=") for file in files]
    with _errors_about(source):
        weights = _read(contents)
        _check_names(weights.config or {}, overrides)
    if weights.config is not None and config:
        raise UserError(f"--config={config}: the file has its own config; leave the flag out, or override its keys")
    experiment = configs.load(config) if config else None
    with _errors_about(source, prefix=False):  # a message may be about a flag
        base = _config_with_fields(experiment, weights) if weights.config is None else weights.config
        complete = configs.resolve(base, overrides, runs.defaults)
        run = runs.build(complete, _data_spec(complete, weights))
    summary = _summary(run) if weights.data is None else weights.data
    with _errors_about(source):
        state = _state(run, weights)
    imported = {"file": ",".join(pathlib.Path(file).name for file in files), "sha256": ",".join(map(_sha256, files))}
    folders.start_folder(folder, run.config, run.spec, {**summary, "imported": imported})
    manager = checkpoint.open_manager(folder / "checkpoints")
    with checkpoint.closing(manager):
        checkpoint.save(manager, state, {"position": 0, "data": summary["fingerprint"], "sums": {}})
    return f"imported {weights.description} into {folder}, as step 0"


def _files(source: os.PathLike | str) -> list[str]:
    """The files that the flag names; a name may hold commas itself."""
    return [str(source)] if os.path.exists(source) else str(source).split(",")


def _read(contents: list[containers.Contents]) -> Weights:
    if len(contents) == 1 and "gan_jax" in contents[0].metadata:
        return _read_export(contents[0])
    weights = pictures.read(contents)
    if weights is None and len(contents) > 1:
        raise UserError("several files are read of networks that make pictures of pictures alone; give one file")
    return weights or _read_official(contents[0])


@contextlib.contextmanager
def _errors_about(source: str, *, prefix: bool = True):
    """Makes one message of whatever goes wrong with what the file says; `prefix`: puts its name before our own ones."""
    try:
        yield
    except (UserError, Damaged) as error:
        if not prefix:
            raise
        raise UserError(f"--from={source}: {plain(error, 1000)}") from error
    except Exception as error:
        message = plain(f"{type(error).__name__}: {error}")
        raise UserError(f"--from={source}: no network can be built of what the file says: {message}") from error


def _check_names(config: Mapping[str, Any], overrides: Collection[tuple[str, str]]) -> None:
    """Refuses a file's config that names modules by a dotted path, whose code would run, unless overrides do so too.

    Raises:
      UserError: such a name that the user has not given.
    """
    for key, value in configs.flatten(config):
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        is_name = key in ("game", "logs") or (key.endswith(".name") and not key.startswith("data."))
        if is_name and "." in text and (key, text) not in overrides:
            flag = plain(f"--config.{key}={text}")
            raise UserError(f"the file names a module whose code would run: add {flag} if it is yours or you trust it")


def _sha256(source: os.PathLike | str) -> str:
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_official(contents: containers.Contents) -> Weights:
    by_role, others = networks.find(contents.value, contents.size)
    generator = by_role.get("G_ema") or by_role.get("G")
    if generator is None:
        raise UserError("the file holds a discriminator alone; expected a generator")
    kind = architectures.family(generator.tensors)
    fields = {"generator": architectures.fields(generator, kind, discriminator=False)}
    if "D" in by_role:
        fields["discriminator"] = architectures.fields(by_role["D"], kind, discriminator=True)
    spec = _spec(fields)
    arrays = {role: _place(network, kind, role == "D") for role, network in by_role.items()}
    params = {"generator": arrays.get("G", arrays.get("G_ema"))}
    if "D" in arrays:
        params["discriminator"] = arrays["D"]
    size = "x".join(map(str, spec["image"].shape))
    classes = f"{specs.classes(spec)} classes" if specs.classes(spec) else "without labels"
    omission = f"; left out: {', '.join(others[:5])}" if others else ""
    description = f"{', '.join(sorted(by_role))} ({kind}, {size}, {classes}{omission})"
    ema = {"generator": arrays.get("G_ema", arrays.get("G"))}
    keys = {"data.resolution": spec["image"].shape[0], "data.channels": spec["image"].shape[2],
            "conditional": bool(specs.classes(spec))}  # fmt: skip
    return Weights(spec, params, ema, description, _base(kind, fields), _sections(kind, fields), keys)


def _sections(kind: str, fields: dict[str, dict]) -> dict[str, dict]:
    """The sections of both nets, as far as the file tells their fields."""
    critic = "stylegan2" if kind == "stylegan3" else kind  # registered with both
    return {
        "generator": {"name": kind, **fields.get("generator", {})},
        "discriminator": {"name": critic, **fields.get("discriminator", {})},
    }


def _base(kind: str, fields: dict[str, dict]) -> dict[str, Any]:
    """What the family needs; a fresh discriminator is as wide as the generator."""
    adam = {"optim": {"generator": dict(_ADAM), "discriminator": dict(_ADAM)}}
    same = ("widths", "blocks", "cardinalities") if kind == "r3gan" else ("channel_base", "channel_max")
    fresh = {} if "discriminator" in fields else {key: fields["generator"][key] for key in same}
    name = _sections(kind, fields)["discriminator"]["name"]
    return {**_BASES[kind], **adam, "data": {"name": UNKNOWN_DATA}, "discriminator": {"name": name, **fresh}}


def _spec(fields: dict[str, dict]) -> specs.Spec:
    """What the networks say of their data, taken out of their fields. Raises UserError where they disagree."""
    shapes = {net: [part.pop(key) for key in ("resolution", "channels", "num_classes")] for net, part in fields.items()}
    side, channels, classes = shapes["generator"]
    if any(other != shapes["generator"] for other in shapes.values()):
        raise UserError(f"generator and discriminator differ in resolution, channels and labels: {shapes}")
    if not (1 <= side <= LARGEST and 1 <= channels <= LARGEST and classes <= 2**20):
        raise UserError(f"images of {side}x{side}x{channels} with {classes} classes are larger than any that are known")
    return specs.labelled((side, side, channels), classes)


def _config_with_fields(experiment: ConfigDict | None, weights: Weights) -> ConfigDict:
    """The experiment, or what the networks need, with the fields of the file's networks."""
    config = ConfigDict(weights.base) if experiment is None else experiment
    with config.unlocked():
        for net, fields in weights.fields.items():
            current = dict(config.get(net, {}))
            section = current if current.get("name") == fields["name"] else {}
            config[net] = ConfigDict({**section, **fields})
        config.update_from_flattened_dict(weights.keys)
    return config


def _names_data(config: ConfigDict) -> bool:
    """Whether the config names data; else they are those of a network that came without an experiment."""
    return any(section.name != UNKNOWN_DATA for section in run_data.data_sections(config).values())


def _data_spec(config: ConfigDict, weights: Weights) -> specs.Spec:
    """The fields that the run's game reads."""
    if not (weights.fits_any and _names_data(config)):
        return weights.spec
    return run_data.data_spec(config, run_data.open_data(config))


def _summary(run: runs.Run) -> dict[str, Any]:
    """What `data.json` tells of the data, with the fingerprint: '' where no experiment names them."""
    if not _names_data(run.config):
        return {"name": UNKNOWN_DATA, "fingerprint": ""}
    dataset = run_data.open_data(run.config)
    data_spec = run_data.data_spec(run.config, dataset)
    if data_spec != run.spec:
        raise UserError(f"{dataset.name}: the networks are for {run.spec}, and these data are {data_spec}")
    return dataset.summary()


def _place(network: Network, kind: str, discriminator: bool) -> dict[str, np.ndarray]:
    """A network's tensors by `<collection>/<path>`, in our names and layouts."""
    arrays = {}
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
        arrays["/".join((collection, *path))] = value
    if len(arrays) != sum(not names.is_constant(name) for name in network.tensors):
        raise UserError("two tensors of the file belong to one place")
    return arrays


def _state(run: runs.Run, weights: Weights):
    """A fresh State with the file's arrays in place; what the file has is not drawn."""
    shapes = jax.eval_shape(lambda: runs.init_state(run))
    if weights.config is not None and weights.params.keys() != shapes.params.keys():
        raise UserError(f"it holds {', '.join(weights.params)}; its config has the networks {', '.join(shapes.params)}")
    arrays: dict[str, dict] = {"params": {}, "variables": {}, "ema": {}}
    for net, tree in weights.params.items():
        if net not in shapes.params:
            raise UserError(f"the game {run.config.game!r} has no net {net!r}; it has {', '.join(shapes.params)}")
        tree = _fitted(net, tree, {"params": shapes.params[net], **shapes.variables[net]})
        arrays["params"][net] = tree.pop("params")
        arrays["variables"][net] = tree
    for net, tree in weights.ema.items():
        arrays["ema"][net] = _fitted(net, tree, shapes.ema[net])

    def init_missing():
        state = runs.init_state(run)
        missing = {
            name: {net: tree for net, tree in getattr(state, name).items() if net not in nets}
            for name, nets in arrays.items()
        }
        return state._replace(**missing)

    state = jax.device_put(initial.evaluate(init_missing))
    full = {name: {**getattr(state, name), **jax.device_put(nets)} for name, nets in arrays.items()}
    order = {name: {net: full[name][net] for net in getattr(shapes, name)} for name in arrays}
    return state._replace(**order)


def _fitted(net: str, arrays: dict[str, np.ndarray], expected: dict) -> dict:
    """The given arrays in a tree like the expected one, and of its types.

    Raises:
      UserError: arrays that are missing, of another shape, without a place, or not finite.
    """
    leaves = traverse_util.flatten_dict(expected, sep="/")
    problems = [f"{name} is missing" for name in leaves if name not in arrays]
    problems += [f"{name} has no place" for name in arrays if name not in leaves]
    problems += [
        f"{name} has the shape {arrays[name].shape}, expected {leaves[name].shape}"
        for name in leaves
        if name in arrays and arrays[name].shape != leaves[name].shape
    ]
    problems += [
        f"{name} holds NaN or infinity" for name, array in arrays.items() if not np.isfinite(array.astype(float)).all()
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"the {net}'s tensors do not fit the network of its config: {'; '.join(problems[:5])}{more}. "
            f"What shapes cannot tell is set by --config.{net}.KEY=VALUE"
        )
    flat = {name: np.asarray(arrays[name], leaf.dtype) for name, leaf in leaves.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def _read_export(contents: containers.Contents) -> Weights:
    """A file that `export` has written: it has its config with it."""
    if contents.metadata["gan_jax"] != FORMAT:
        raise UserError(f"written as {contents.metadata['gan_jax']!r}; this version reads {FORMAT!r}")
    try:
        data = json.loads(contents.metadata["data"])
        spec = data.pop("spec")
        spec = specs.from_json(spec)
        config, averaged = configs.from_json(contents.metadata["config"]), contents.metadata["averaged"].split(",")
        data["fingerprint"] = str(data["fingerprint"])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"its metadata cannot be read: {type(error).__name__}: {error}") from error
    nets: dict[str, dict[str, np.ndarray]] = {}
    for name, value in contents.value.items():
        net, _, place = name.partition("/")
        nets.setdefault(net, {})[place] = value
    ema = {net: arrays for net, arrays in nets.items() if net in averaged}
    return Weights(spec, nets, ema, f"{', '.join(nets)} of the game {config.get('game')!r}", config=config, data=data)
