"""Data sets as uint8 arrays: TFDS sets, image folders and zips, the bundled digits, mixtures, synthetic."""

from gan_jax.data.dataset import Dataset, of_array, open_dataset, open_images, open_inputs
from gan_jax.data.joined import Joined

__all__ = ["Dataset", "Joined", "of_array", "open_dataset", "open_images", "open_inputs"]
