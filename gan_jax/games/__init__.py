"""Games: one file each, found by `config.game`.

A game is a module with
    NETS                          names of its nets' config sections; nets that are built alike share one
    EMA_NETS                      names of the nets that are averaged, where a config has them; the first one is that
                                  which is sampled
    DEFAULTS                      {section: {key: value}} or {key: value}, what it adds to a config
    NEEDS                         optional: {net: what it must offer, see `models`}; its name begins with its section's
    constructors(config)          -> {section: class whose fields are the schema of config.<section>}
    reads(config)                 -> names of the data's fields that its phases read, see `specs`; `spec` has these
    nets(config, spec)            -> {net: Linen module}
    init(config, nets, spec, key) -> (params, variables, memory), each but memory a dict keyed by net
    phases(config, nets)          -> tuple of step.Phase; numbers that are to be inputs of a program, and not part of
                                  it, are a phase's `weights`
    fixed(config)                 optional: {net: arrays} of networks that never train, such as the `variables` of what
                                  `features.networks.load` gives; losses see them among `params`, State has none of them
    SAMPLED                       optional: names of those that `sample` and `alike` see, too, among `ema`, which has
                                  them as it has nets, {"params": arrays}
    EVERY_CLASS                   optional: whether each class of the labels that it reads must have an example
    asks(config)                  -> names of the fields that `sample` must be given: labels, and what is held out or
                                  the user's own: pictures, films, captions; K captions that `sample` has are the same
    derived(config, spec)         optional: {name: Field} of what it makes of the data's fields and may ask for, such as
                                  the first frames of a clip; `drawn` and `target` may name such a field too
    derive(config, examples)      with it: {name: array} of those, of examples of the data {field: array}
    sample(nets, ema, keys, given) -> {name: array (B, ...)}, images or clips in [-1, 1]; each row is a function of its
                                  own key and of its row of `given`, {field: array as in the data}. The first array is
                                  the one that is looked at and measured
    drawn(config)                 optional: the field that this first array is to be like, image or video; else `image`
    alike(nets, ema, images, given) optional, of games that draw from captions: vectors (B, D) of images, as `sample`
                                  gives them or uint8, and of what they were given; the cosine says how alike they are
    compares(config)              optional, with it: whether a run of that config has such vectors; else each has
    MASK                          optional: the field, of those that it asks for, that is 255 in a hole and 0 elsewhere;
                                  metrics may measure inside of it, and `sample` takes `--masks`
    target(config)                optional: the field that holds what each sample is to become; grids show it, and
                                  metrics of pairs compare with it
    returns(config)               optional: the data's fields that the arrays behind the first one are to be again
    baselines(config, train)      optional, of games with a target: {name: given -> uint8 images or clips}, the
                                  classical methods that `evaluate` sets beside the run; `train` is the Dataset of it
    enlarges(config)              optional, of games that make of one picture of any size a larger one, place by place:
                                  how many times its sides. `sample` is then given floats in [-1, 1], too
    EMA_COPIED                    optional: what the average copies: collections that are averages themselves, and
                                  whole nets
    latents, decode               optional: (generator, keys) -> z (B, latent_size); `sample` from z instead of keys
    SAMPLE_KEYS                   optional: {one of `sample_flags.GAME_FLAGS`: config key that it sets}; safe to change
    truncate(nets, psi, cutoff)   optional, of games with latents: keyword arguments of `sample`, `decode` and `styles`,
                                  for styles nearer to their mean, or latents from within +-psi
    styles, paint                 optional, of games with styles, the halves of `decode`: (nets, ema, z, labels) -> ws
                                  (B, num_ws, w_size); (nets, ema, ws, keys, noise=) -> images
    groups(config)                optional: {config key: neighbours of a batch that belong together}, see `groups`
    stages(config, spec)          optional: tuple of Stage, for games whose batch, networks or moves change on the way;
                                  then `phases` takes the stage as its third argument, and stages of one `table`
                                  have the same players
"""

from types import ModuleType
from typing import NamedTuple

from gan_jax import modules
from gan_jax.errors import UserError

PARTS = ("NETS", "phases")  # that tell a game from the other files of this folder


class Stage(NamedTuple):
    """A stretch of a run with one batch size, from `start_images` up to `end_images`; its optimizers start afresh.

    A step belongs to the stage in which it begins, so that a stage may end by less than a batch too late.
    """

    batch_size: int
    start_images: int
    end_images: int
    level: int = 0  # halvings of the resolution that is trained, below that of the data
    learning_rate: float = 1.0  # factor of every player's
    table: str = ""  # names its table of moves, where others of the run's stages have another


def find(name: str) -> ModuleType:
    """The game of that name, or the module of a dotted path, such as `my_package.my_game`.

    Raises:
      UserError: an unknown name, or a module that cannot be imported.
    """
    if "." in str(name):
        return modules.import_path(name, "config.game")
    game = modules.member(__name__, name, PARTS)
    if game is None:
        games = ", ".join(modules.members(__name__, PARTS))
        raise UserError(f"config.game={name!r}: expected one of {games}, or the dotted path of a module")
    return game


def drawn(game: ModuleType, config) -> str:
    """Name of the data's field that samples of the game are to be like."""
    return game.drawn(config) if hasattr(game, "drawn") else "image"


def derived(game: ModuleType, config, spec) -> dict:
    """The fields that the game makes of the data's, by name."""
    return game.derived(config, spec) if hasattr(game, "derived") else {}


def asked(game: ModuleType, config, examples: dict, names: tuple[str, ...]) -> dict:
    """Of examples of the data, {field: array}, those of these names: fields of the data, and those made of them."""
    if any(name not in examples for name in names):
        examples = {**examples, **game.derive(config, examples)}
    return {name: examples[name] for name in names}


def target(game: ModuleType, config) -> str:
    """Name of the data's field that holds the right answer to each example; empty where there is none."""
    return game.target(config) if hasattr(game, "target") else ""


def mask(game: ModuleType) -> str:
    """Name of the field that says where the holes are; empty where samples have none."""
    return getattr(game, "MASK", "")


def fixed(game: ModuleType, config) -> dict:
    """The arrays of the game's fixed networks, by net."""
    return game.fixed(config) if hasattr(game, "fixed") else {}


def compares(game: ModuleType, config) -> bool:
    """Whether the game can say how alike images are to what they were drawn from."""
    return hasattr(game, "alike") and (not hasattr(game, "compares") or game.compares(config))


def sampled(game: ModuleType, config) -> dict:
    """Those of the game's fixed networks that its samples need, {net: {"params": arrays}}."""
    names = getattr(game, "SAMPLED", ())
    return {net: {"params": arrays} for net, arrays in fixed(game, config).items() if net in names} if names else {}


def stages(game: ModuleType, config, spec) -> tuple[Stage, ...]:
    """The game's stages; one for the whole run where it defines none."""
    if hasattr(game, "stages"):
        return game.stages(config, spec)
    return (Stage(config.batch_size, 0, config.total_images),)


def phases(game: ModuleType, config, nets: dict, stage: Stage) -> tuple:
    """The game's table of moves in a stage, a tuple of step.Phase."""
    return game.phases(config, nets, stage) if hasattr(game, "stages") else game.phases(config, nets)


def groups(game: ModuleType, config, nets: dict) -> dict[str, int]:
    """Config key -> so many neighbours of a batch belong together (0: all), so that no device may hold a part of them.

    Those of nets are their `sample_groups`, field -> number.
    """
    of_net = {net: getattr(module, "sample_groups", {}) for net, module in nets.items()}
    of_nets = {f"{net}.{field}": size for net, fields in of_net.items() for field, size in fields.items()}
    return of_nets | (game.groups(config) if hasattr(game, "groups") else {})


def begins(stages: tuple[Stage, ...]) -> tuple[int, ...]:
    """The images seen when each stage begins: where the one before, which plays whole batches, has ended."""
    images, result = 0, []
    for stage in stages:
        result.append(images)
        images += -(-max(stage.end_images - images, 0) // stage.batch_size) * stage.batch_size
    return tuple(result)
