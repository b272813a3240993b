"""Data sets as uint8 arrays: TFDS sets, folders of images or films, the bundled digits, mixtures, synthetic."""

from gan_jax.data.dataset import Dataset, of_field, open_dataset
from gan_jax.data.inputs import of_array, open_film_inputs, open_images, open_inputs
from gan_jax.data.joined import Joined

__all__ = [
    "Dataset", "Joined", "of_array", "of_field", "open_dataset", "open_film_inputs", "open_images", "open_inputs",
]  # fmt: skip
