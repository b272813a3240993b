"""Writes interop_*.pth and interop_*.pkl beside it, with PyTorch 2.13 (which no test needs) and recorded weights.

    python tests/golden/interop_make.py

The .pkl has the form of NVIDIA's: persistent classes that are pickled as a call of one function with a dict of the
class's source, its name and its attributes. The classes here are stand-ins of that form, without anything of theirs.
"""

import json
import pathlib
import pickle
import sys
import types

import numpy as np
import torch

FOLDER = pathlib.Path(__file__).parent
TEXT = "raise SystemExit('the text of a class is not to be run')\n"


def _module(name: str) -> types.ModuleType:
    sys.modules.setdefault(name.partition(".")[0], types.ModuleType(name.partition(".")[0]))
    return sys.modules.setdefault(name, types.ModuleType(name))


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a stand-in is not called")


class EasyDict(dict):
    """A dict of options."""


for owner, item in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
    item.__module__ = owner
    setattr(_module(owner), item.__name__, item)


class Persistent(torch.nn.Module):
    """A network of named tensors that is pickled as NVIDIA's are."""

    def __init__(self, name: str, tensors: dict, buffers: tuple, kwargs: dict | None = None):
        super().__init__()
        self._name = name
        self._init_args, self._init_kwargs = (), EasyDict(kwargs or {})
        self.in_size, self.gain, self.dtype = np.array([4, 4]), np.float64(0.5), torch.float16
        for key in dict.fromkeys(key.split(".")[0] for key in tensors):
            inner = {name[len(key) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{key}.")}
            if inner:
                setattr(self, key, Persistent(f"Part{key}", inner, buffers))
            elif key in buffers:
                self.register_buffer(key, torch.from_numpy(tensors[key]))
            else:
                setattr(self, key, torch.nn.Parameter(torch.from_numpy(tensors[key])))

    def __reduce__(self):
        state = {key: value for key, value in self.__dict__.items() if key != "_name"}
        meta = EasyDict(type="class", version=6, module_src=TEXT, class_name=self._name, state=state)
        return _reconstruct_persistent_obj, (meta,), None


def _load(name: str) -> tuple[dict, dict]:
    with np.load(FOLDER / f"{name}.npz") as npz:
        arrays = dict(npz)
    return arrays, json.loads(str(arrays.pop("meta")))


def main() -> None:
    """Writes the three files."""
    arrays, _ = _load("sg3_net_t_uncond")
    state = {k.removeprefix("params/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("params/")}
    torch.save(state, FOLDER / "interop_stylegan3.pth")

    arrays, _ = _load("r3gan_uncond")
    state = {k.removeprefix("params/G/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("params/G/")}
    torch.save({"g_ema": state}, FOLDER / "interop_r3gan.pth", _use_new_zipfile_serialization=False)

    arrays, meta = _load("sg3_net_r_cond")
    tensors = {k.removeprefix("params/"): v for k, v in arrays.items() if k.startswith("params/")}
    buffers = ("up_filter", "down_filter", "magnitude_ema", "w_avg", "freqs", "phases", "transform")
    kwargs = {k: EasyDict(v) if isinstance(v, dict) else v for k, v in meta["G_kwargs"].items()}
    network = Persistent("Generator", tensors, buffers, kwargs).eval()
    with open(FOLDER / "interop_stylegan3.pkl", "wb") as file:
        pickle.dump({"G": None, "D": None, "G_ema": network, "training_set_kwargs": EasyDict(path="x")}, file)


if __name__ == "__main__":
    main()
