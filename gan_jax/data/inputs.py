"""Pictures and films that a user gives, beside a run's own data, as Datasets: by path, or arrays of the host."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gan_jax.data.dataset import FIT, Dataset, of_source
from gan_jax.data.fit import Fit, make_fit
from gan_jax.data.readers import Packed
from gan_jax.data.source import Source
from gan_jax.data.windows import Windows
from gan_jax.errors import UserError
from gan_jax.specs import labelled


def open_images(path: str, size: int = 0) -> tuple[Dataset, tuple[str, ...]]:
    """All images of a folder or .zip, RGB and of their own size, and their names in the Dataset's order.

    With `size` those of another size are cropped to their central square and resized to it, by Lanczos' filter.

    Raises:
      MissingPathError, UserError: no such path, no images, or images of several sizes.
    """
    from gan_jax.data import folder

    source, fit, names = folder.open_images(path, size)
    common = {"name": f"folder:{path}", "split": "all", "flip": False}
    return of_source(source, fit, common, skip_corrupt=False, packed=False), names


def of_array(images: np.ndarray, name: str) -> tuple[Dataset, tuple[str, ...]]:
    """Images of the host as `open_images` has those of a folder: RGB, in their order, and their numbers as names.

    Args:
      images: uint8 (N, H, W, 3), or (N, H, W, 1), whose channel is then repeated.
      name: of the argument, for messages and rows.
    Raises:
      UserError: another type or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise UserError(f"{name}: an array of {images.dtype} and the shape {images.shape}; expected uint8, 0 to 255, "
                        "and (N, H, W, 3) or (N, H, W, 1), one image or more; or the path of a folder or .zip")
    images = np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))
    count, height, width, _ = images.shape
    fit = Fit(height, width, 3, "none", 0, "lanczos")
    identity = {"kind": "array", "sha256": hashlib.sha256(images).hexdigest(), **fit._asdict()}
    source = Source(identity, count, labelled(fit.shape), (), lambda index: {"image": images[index]})
    common = {"name": f"array:{name}", "split": "all", "flip": False}
    dataset = of_source(source, fit, common, skip_corrupt=False, packed=False)
    reader = Packed({"image": images}, count)
    return dataclasses.replace(dataset, reader=reader), tuple(f"{index:06}" for index in range(count))


def open_inputs(
    path: str, section: Mapping[str, Any], *, fitted: bool = True
) -> tuple[Dataset, tuple[str, ...]]:
    """A picture, or all of a folder or .zip, made to fit as a run's own data were; and their names in that order.

    Args:
      path: of the user.
      section: `data`, or one of its parts: the settings of the run.
      fitted: without, pictures keep their size, which must be one for all; their channels are the run's.
    Raises:
      MissingPathError, UserError: no such path, no pictures, or one that cannot be read, or several sizes.
    """
    from gan_jax.data import folder

    fit = make_fit(**{key: section[key] for key in FIT})
    source, names, fit = folder.open_inputs(path, fit, fitted=fitted)
    common = {"name": path, "split": "all", "flip": False}
    return of_source(source, fit, common, skip_corrupt=False, packed=False), names


def open_film_inputs(path: str, section: Mapping[str, Any], frames: int) -> tuple[Dataset, tuple[str, ...]]:
    """The first clip of each film of a user, its frames made to fit as a run's own were; and the films' names.

    Args:
      path: a folder of frames, or of films, a .zip of such, or one film.
      section: `data`: the settings of the run.
      frames: of a clip, one of every `section.frame_step` of a film.
    Raises:
      MissingPathError, UserError: no such path, no films, or one that cannot be read or is too short.
    """
    from gan_jax.data import folder_films

    fit = make_fit(**{key: section[key] for key in FIT})
    source, names = folder_films.open_inputs(path, fit, Windows(frames, section["frame_step"]))
    common = {"name": path, "split": "all", "flip": False}
    return of_source(source, fit, common, skip_corrupt=False, packed=False), names
