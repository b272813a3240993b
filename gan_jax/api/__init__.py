"""The Python interface: train and open runs, draw from them and measure them, in a program or a notebook.

Its names are attributes of the package: `gan_jax.open_run`, `gan_jax.train`. What they take is named as the flags of
the commands are, and they do what these do. Mistakes are `UserError`.
"""

from gan_jax.api.measures import fid, measure
from gan_jax.api.trained import TrainedRun, open_run
from gan_jax.api.training import load_config, train

__all__ = ["TrainedRun", "fid", "load_config", "measure", "open_run", "train"]
