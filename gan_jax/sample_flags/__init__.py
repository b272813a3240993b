"""The flags of `sample`: what they are, which of them a run has no use for, and what they mean for it."""

from gan_jax.sample_flags.checks import check, check_abilities, check_alone, enlarges, fills, has_styles, truncated
from gan_jax.sample_flags.flags import GAME_FLAGS, Flags, Job, Mixing, numbers, override, overrides, truncation
from gan_jax.sample_flags.jobs import read

__all__ = [
    "GAME_FLAGS", "Flags", "Job", "Mixing", "check", "check_abilities", "check_alone", "enlarges", "fills",
    "has_styles", "numbers", "override", "overrides", "read", "truncated", "truncation",
]  # fmt: skip
