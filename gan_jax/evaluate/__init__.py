"""Measures runs and folders of images: features, statistics, distances, each value with its protocol beside it."""

from gan_jax.evaluate.folders import compare_folders
from gan_jax.evaluate.protocols import ranking, wanted
from gan_jax.evaluate.report import comparison, read, table
from gan_jax.evaluate.run import Measure, evaluate, measurer

__all__ = [
    "Measure", "compare_folders", "comparison", "evaluate", "measurer", "ranking", "read", "table", "wanted",
]
