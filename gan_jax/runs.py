"""A run: the players, phases, State and data that its config describes."""

import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import games, initial, models, optim, parallel, run_data, specs
from gan_jax import step as steps
from gan_jax.errors import UserError

# The keys that the loop reads, with their defaults. An experiment states what matters to it.
DEFAULTS = {
    "game": "unconditional",
    "seed": 0,
    "total_images": 1_000_000,
    "batch_size": 64,  # over all devices and processes
    "accumulate": 1,  # micro-batches in a step
    "parallel": "shard_map",  # or pmap
    "programs": "auto",  # what is compiled as one: 'phases' each, whole 'steps', or 'auto': phases where they are large
    "steps_per_call": 1,  # so many steps are one program, for small networks
    "resident_data": False,  # the whole packed set lies on every device
    "grid": 64,  # images in `samples/`
    "logs": (),  # beside files and TensorBoard: wandb, mlflow, or the dotted path of a class, see `loggers`
    # Images from one to the next; 0: never before the end.
    "every": {"log_images": 6_400, "sample_images": 64_000, "checkpoint_images": 64_000, "evaluate_images": 0},
    "evaluation": {
        "metrics": (),  # such as ("fid50k_full", "kid50k_full"); the best checkpoint by the first one is kept
        "features": "none",  # of metrics without a count; one that begins with random_ makes all networks random
        "judge": "",  # labelled data that the features `classifier` are fitted on, such as photographs:grass+gravel
        "judge_split": "",  # that the judge of `obeyed` is fitted on; empty: the one that is trained on
        "samples": 10_000,  # of metrics without a count
        "preprocessing": "tf1",  # of Inception: tf1 (official), pytorch_fid or clean
        "weights": "",  # file or folder of weights; empty: $GAN_JAX_WEIGHTS_DIR, or the cache
        "download": False,  # fetch weights that are not there
        "split": "",  # of the reals; empty: the one that is trained on
        "flip_reals": False,  # a mirrored copy of each real beside it
        "border": 0,  # pixels of each side that psnr, ssim and their like leave out; papers take the scale
        "statistics": "",  # .npz of the reals' moments, instead of the data
        "batch_size": 0,  # images of a process at once; 0: the most that fit
    },
    "checkpoints": {"keep": 2},
    "transfer": {
        "workdir": "",  # run whose parameters a new run starts from, where names and shapes agree
        "state": "",  # run whose newest whole State a new run goes on from, optimizers, averages and counts too
        "freeze_layers": 0,  # first layers of the discriminator that do not move
    },
}
# Arrays of a net, on average, above which its parameters stay named on a CPU: cutting such a vector into its arrays
# costs more there than the optimizer's operations on each.
MEAN_SIZE_ON_CPU = 100_000
# Collections that the average copies whatever the game: the mean of unit vectors is shorter, and with it the singular
# value would be measured as smaller.
SINGULAR = ("spectral",)
_RANGES = {  # numbers that any game may have, `net` being any net's section; a game checks its own
    "0 or more": ("ema.half_life_images", "ema.rampup", "ema.growth_images", "{net}.mbstd_group", "every.log_images",
                  "every.sample_images", "every.checkpoint_images", "every.evaluate_images"),
    "0 or more and below 1": ("ema.decay",),
    "0 to 1": ("{net}.w_avg_beta", "{net}.magnitude_ema_beta"),
    "1 or more": ("{net}.latent_size", "checkpoints.keep"),
}  # fmt: skip
_OF_THE_DATA = (  # model fields that are no settings
    "shape", "resolution", "channels", "num_classes", "vocabulary", "axis_name",
)  # fmt: skip


class Run(NamedTuple):
    """Everything of a run but its State and its files."""

    config: ConfigDict
    spec: specs.Spec  # of the fields that the game reads
    game: ModuleType
    nets: dict[str, Any]
    stage: games.Stage
    phases: tuple[steps.Phase, ...]  # of the stage
    optimizers: dict[str, optim.Optimizer]  # of all players, with the stage's rates
    ema: steps.Ema
    all_phases: tuple[steps.Phase, ...] = ()  # of all stages' tables: State has the optimizers of their players


def load_config(path: str, overrides=()) -> ConfigDict:
    """An experiment's complete config: see `config.load`. Raises UserError, MissingPathError."""
    return configs.load(path, overrides, defaults)


def defaults(config: ConfigDict) -> dict:
    """Every key that something reads for this game, its models, optimizers and data, with its default.

    Raises:
      UserError: the config lacks a section or a name that chooses one, or names something unknown.
    """
    from gan_jax import data

    keys = {key: dict(value) if isinstance(value, dict) else value for key, value in DEFAULTS.items()}
    game = games.find(config.get("game", DEFAULTS["game"]))
    parts = config.get("data", {}).get("parts", {})
    for section in (*(f"data.parts.{part}" for part in parts), *(() if parts else ("data",)), *game.NETS):
        if "name" not in configs.section(config, section):
            raise UserError(f"the experiment does not set config.{section}.name")
    for section, values in game.DEFAULTS.items():
        keys[section] = keys.get(section, {}) | values if isinstance(values, dict) else values
    for section, constructor in game.constructors(config).items():
        name = config.get(section, {}).get("name", keys.get(section, {}).get("name"))
        keys[section] = {"name": name, **configs.fields(constructor, without=_OF_THE_DATA)}
    of_one = configs.fields(data.open_dataset)
    keys["data"] = (
        {"parts": {part: {"name": section.name, **of_one} for part, section in parts.items()}}
        if parts
        else {"name": config.data.name, **of_one}
    )
    keys["optim"] = {player: dict(optim.Settings._field_defaults) for player in config.get("optim", {})}
    keys["ema"] = configs.fields(steps.Ema, without=("nets", "copied"))
    return keys


def generator(run: Run):
    """The net that is sampled: the game's first averaged one."""
    return run.nets[run.game.EMA_NETS[0]]


def model_name(net) -> str:
    """The name of a net's model, as `config.<net>.name` has it."""
    return type(net).__module__.removeprefix("gan_jax.models.")


def of_examples(run: Run) -> tuple[str, ...]:
    """What the run's game asks for that an example of the data, or the user, must give: all but labels."""
    fields = _asked(run)
    return tuple(name for name in fields if fields[name].kind != "label")


def sources(run: Run) -> tuple[str, ...]:
    """The pictures and films among `of_examples`."""
    fields = _asked(run)
    return tuple(name for name in fields if fields[name].kind in ("image", "video"))


def captions(run: Run) -> tuple[str, ...]:
    """The texts among `of_examples`."""
    fields = _asked(run)
    return tuple(name for name in fields if fields[name].kind == "tokens")


def _asked(run: Run) -> specs.Spec:
    """What the run's game must be given to draw a sample."""
    fields = {**run.spec, **games.derived(run.game, run.config, run.spec)}
    return {name: fields[name] for name in run.game.asks(run.config)}


def shown(run: Run) -> tuple[str, ...]:
    """The fields of the data that belong to a sample: what the game asks for, and what the sample is to become."""
    target = games.target(run.game, run.config)
    return (*run.game.asks(run.config), *((target,) if target else ()))


def with_labels(run: Run, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What a game that needs no examples is given: labels (N,), where it asks for them."""
    return {"label": labels} if "label" in run.game.asks(run.config) else {}


def held_out(run: Run) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What the run's game is given for samples of these numbers: labels in turn, or held-out examples of the data.

    Those are of `config.evaluation.split`, opened here, with what the samples are to become; a number beyond the set's
    last example begins anew.
    """
    names = shown(run)
    if not of_examples(run):
        return lambda numbers: with_labels(run, numbers % max(specs.classes(run.spec), 1))
    dataset = run_data.open_data(run.config, run.config.evaluation.split)

    def examples(numbers: np.ndarray) -> dict[str, np.ndarray]:
        arrays = dataset.examples(numbers % dataset.size if dataset.size else numbers)
        return games.asked(run.game, run.config, arrays, names)

    return examples


def build(config: ConfigDict, spec: specs.Spec, stage: games.Stage | None = None) -> Run:
    """Makes the players and their table of moves in a stage, the first by default. State fits all stages alike.

    Raises:
      UserError: an option that its constructor does not know, or a value that makes no sense.
    """
    if not 0 < config.total_images < 2**31:
        raise UserError(f"config.total_images={config.total_images}: expected 1 to {2**31 - 1}")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"config.seed={config.seed}: expected 0 to {2**32 - 1}")
    parallel.check_mode(config.parallel)
    for key, least in (("grid", 1), ("evaluation.samples", 16)):
        value = dict(configs.flatten(config))[key]
        if value < least:
            raise UserError(f"config.{key}={value}: expected {least} or more")
    game = games.find(config.game)
    for expected, keys in _RANGES.items():
        configs.check_range(config, expected, *(k.format(net=net) for k in keys for net in game.NETS))
    _check_offers(config, game)
    nets = game.nets(config, spec)
    stages = games.stages(game, config, spec)
    stage = stage or stages[0]
    differing = {one.table: one for one in (*stages, stage)}
    tables = {name: games.phases(game, config, nets, one) for name, one in differing.items()}
    phases, all_phases = tables[stage.table], tuple(itertools.chain(*tables.values()))
    optimizers = {player: _optimizer(config, nets, player, all_phases, stage) for player in steps.players(all_phases)}
    averaged = tuple(net for net in game.EMA_NETS if net in nets)
    copied = (*getattr(game, "EMA_COPIED", ()), *SINGULAR)
    ema = configs.build(steps.Ema, config.ema, "ema", nets=averaged, copied=copied)
    return Run(config, spec, game, nets, stage, phases, optimizers, ema, all_phases)


def _check_offers(config: ConfigDict, game: ModuleType) -> None:
    """Raises UserError where a net does not offer what the game needs of it, see `models`."""
    classes = game.constructors(config)
    for net, names in getattr(game, "NEEDS", {}).items():
        section = max((name for name in game.NETS if net.startswith(name)), key=len)
        if missing := models.lacks(classes[section], names):
            others = ", ".join(models.offering(section, names))
            advice = f"take a model that has: {others}; or another game" if others else "take another model, or game"
            raise UserError(
                f"the game {config.game!r} needs {', '.join(names)} of {net!r}, and {config[section].name!r} has no "
                f"{', '.join(missing)}; {advice}"
            )


def _first_layers(config: ConfigDict, nets: dict, player: str) -> tuple[str, ...]:
    """Paths of the layers of a discriminator that `transfer.freeze_layers` keeps still; none of another player."""
    count = config.transfer.freeze_layers
    if not count or not player.startswith("discriminator"):
        return ()
    net = nets.get(player)
    layers = net.layers() if hasattr(net, "layers") else ()
    if not layers:
        what = f"config.transfer.freeze_layers={count}: {model_name(net)!r} does not name its layers in order"
        raise UserError(f"{what}; give their paths as config.optim.{player}.frozen")
    if not 0 <= count <= len(layers):
        raise UserError(f"config.transfer.freeze_layers={count}: expected 0 to {len(layers)} with this discriminator")
    return layers[:count]


def _optimizer(config: ConfigDict, nets: dict, player: str, phases, stage: games.Stage) -> optim.Optimizer:
    """The player's optimizer, corrected where it also takes a lazy step beside its main one."""
    own = [phase.every for phase in phases if phase.player == player]
    lazy = max(own) / min(own) if len(own) > 1 else 0
    section = config.optim.get(player)
    if section is None:
        raise UserError(f"config.optim has no section {player!r}, which the game {config.game!r} needs")
    settings = section.to_dict()
    settings["frozen"] = (*settings["frozen"], *_first_layers(config, nets, player))
    try:
        optimizer = optim.optimizer(
            settings, batch_size=stage.batch_size, total_images=config.total_images, lazy=lazy
        )
    except UserError as error:
        raise UserError(f"config.optim.{player}: {error}") from error
    return optimizer.at_rates({**optimizer.rates, "peak": stage.learning_rate * optimizer.rates["peak"]})


def init_state(run: Run) -> steps.State:
    """A fresh State; the same for any number of devices. Under `jax.eval_shape` it costs nothing.

    `jax.jit` of it takes the compiler long, see `initial`: `fresh_state` is the way to the values.
    """
    key = jax.random.key(run.config.seed)
    params, variables, memory = run.game.init(run.config, run.nets, run.spec, jax.random.fold_in(key, 0))
    return steps.State(
        step=jnp.int32(0),
        images=jnp.int32(0),
        params=params,
        variables=variables,
        opt=steps.init_optimizers(run.all_phases, run.optimizers, params),
        ema=steps.init_ema(run.ema.nets, params, variables),
        memory=memory,
    )


def fresh_state(run: Run) -> steps.State:
    """The values of `init_state`, up to rounding, as numpy arrays; nothing is compiled."""
    return initial.evaluate(lambda: init_state(run))


def abstract_state(run: Run, mesh) -> steps.State:
    """Shapes, types and shardings of the run's State, to restore a checkpoint into."""
    return _placed(jax.eval_shape(lambda: init_state(run)), mesh)


def packed_shapes(run: Run, abstract: steps.State, mesh) -> steps.State:
    """What `abstract_state` is between the loop's steps."""
    return _placed(jax.eval_shape(lambda state: pack(run, state, mesh), abstract), mesh)


def _placed(shapes, mesh):
    sharding = parallel.replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def pack(run: Run, state: steps.State, mesh) -> steps.State:
    """The State as the loop keeps it on the mesh's devices, see `step.packed`."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return steps.packed(state, run.all_phases, run.optimizers, mean_size=MEAN_SIZE_ON_CPU if on_cpu else math.inf)


def field(run: Run, name: str) -> specs.Field:
    """A field of the run's data, or one that its game makes of them."""
    return {**run.spec, **games.derived(run.game, run.config, run.spec)}[name]


def drawn(run: Run) -> specs.Field:
    """The field that samples of the run are to be like, see `games`."""
    return field(run, games.drawn(run.game, run.config))
