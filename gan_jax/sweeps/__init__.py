"""Engines of the command `sweep` beside the plain one of `gan_jax.sweep`: who chooses the runs, and where they run.

`study`: Optuna chooses, and ends what is not worth going on with. `slurm`: a cluster's queue runs every combination.
`population`: runs that copy each other's State and go on with other rates. `choices`: what a config must have.
"""

from collections.abc import Iterable

from gan_jax.errors import UserError

# Flags of each engine, beside those of every one.
ENGINES = {
    "local": ("jobs",),
    "optuna": ("jobs", "trials", "sampler", "pruner", "startup", "warmup", "storage", "study"),
    "slurm": ("jobs", "slurm", "task"),
    "pbt": ("jobs", "population", "rounds"),
}


def check_flags(engine: str, flags: Iterable[str]) -> None:
    """Raises UserError for an unknown engine, or for a flag that another one takes."""
    if engine not in ENGINES:
        raise UserError(f"--engine={engine}: expected one of {', '.join(ENGINES)}")
    for flag in flags:
        takers = [name for name, own in ENGINES.items() if flag in own]
        if takers and engine not in takers:
            raise UserError(f"--{flag} has no meaning with --engine={engine}; it is for {', '.join(takers)}")
