"""What fitted judges share: the device that they are fitted on, their files in the cache, weights by their paths."""

import os
import pathlib
import tempfile

import jax
import numpy as np
from flax import traverse_util

from gan_jax.features.networks import FeatureNet
from gan_jax.features.state import weights_sha256


def device():
    """The CPU, where the process has one: on other processors the weights would differ."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # the process was started without a CPU backend
        return jax.local_devices()[0]


def nested(weights: dict[str, np.ndarray]) -> dict:
    """The collections of a Linen module from arrays by their path."""
    return traverse_util.unflatten_dict(weights, sep="/")


def of_weights(variables: dict, net: FeatureNet) -> FeatureNet:
    """A fitted network with other weights of its architecture, as another process has fitted it."""
    weights = traverse_util.flatten_dict(jax.device_get(variables), sep="/")
    return net._replace(variables=variables, sha256=weights_sha256(weights))


def read(path: pathlib.Path, template) -> tuple[dict[str, np.ndarray], float] | None:
    """Weights and accuracy, or None where the file is absent, damaged or of another architecture."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        digest, accuracy = str(arrays.pop("sha256")), float(arrays.pop("accuracy"))
    except Exception:  # whatever a damaged file raises (zip, header, size), the answer is to fit again
        return None
    shapes = {name: value.shape for name, value in traverse_util.flatten_dict(template, sep="/").items()}
    if shapes != {name: value.shape for name, value in arrays.items()} or digest != weights_sha256(arrays):
        return None
    return arrays, accuracy


def write(path: pathlib.Path, weights: dict[str, np.ndarray], accuracy: float) -> None:
    """Keeps weights and accuracy, whole or not at all. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz.part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **weights, sha256=weights_sha256(weights), accuracy=np.float64(accuracy))
        os.replace(temporary, path)  # several processes may fit at once: a reader sees a whole file or none
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
