"""CLIP's text tower (Radford et al. 2021, arXiv 2103.00020, section 2.4): a caption to a vector, and one a token.

A causal transformer over at most 77 tokens. The sentence's vector is what stands at the end token, which is the largest
token of the vocabulary, projected into the space that CLIP's pictures share. As a token sees those before it alone,
whatever pads a caption behind its end changes neither the sentence nor the tokens up to the end: OpenAI's program pads
with 0, which is the token of "!", transformers with the end token again. The first largest token is the end.

Files: OpenAI's own, which TorchScript has saved (`ViT-B-32.pt`), or a state dict under its names, as OpenCLIP has it;
and `model.safetensors` of transformers, of `CLIPModel` or `CLIPTextModelWithProjection`. A `config.json` beside the
latter tells heads and activation. Other files have 64 dimensions a head and QuickGELU, as OpenAI's models do.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.errors import MissingPathError, UserError, plain
from gan_jax.features import state as states
from gan_jax.features import transformer
from gan_jax.features.transformer import MLP_RATIO, dense_from, norm_from
from gan_jax.weights import containers, store, torchscript
from gan_jax.weights.opcodes import Damaged

EPSILON = 1e-5
HEAD = 64  # dimensions of a head in OpenAI's models
ACTIVATIONS = {"quick_gelu": transformer.quick_gelu, "gelu": transformer.gelu}
NAMES = tuple(name for name in store.KNOWN if name.startswith("clip_"))
_MOST_CONFIG = 1 << 20  # bytes of a config.json
_BLOCKS = "transformer.resblocks.{}.ln_1.weight"  # that every block has
DOCS = "docs/metrics_weights.md"


class Size(NamedTuple):
    """What a tower's arrays, and the file beside them, say of it."""

    depth: int  # blocks
    width: int  # dimensions of a token
    heads: int
    vocabulary: int  # tokens; the last one is that of a text's end
    length: int  # of a caption, at most
    dim: int  # of a sentence
    activation: str = "quick_gelu"  # see ACTIVATIONS


SIZES = {
    "clip_vit_b32": Size(12, 512, 8, 49_408, 77, 512),
    "clip_vit_b16": Size(12, 512, 8, 49_408, 77, 512),
    "clip_vit_l14": Size(12, 768, 12, 49_408, 77, 768),
    "clip_vit_l14_336": Size(12, 768, 12, 49_408, 77, 768),
}


class Tower(NamedTuple):
    """A tower with its arrays: `apply(arrays, tokens (B, L))` -> (sentence (B, dim), words (B, L, width)), float32."""

    arrays: Any
    sha256: str  # of the file
    apply: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]  # see `TextTower`
    size: Size
    name: str  # of the catalogue's file; empty where it is another


class TextTower(nn.Module):
    """Tokens (B, L), L at most `length`, to (sentence (B, dim), words (B, L, width)), float32.

    Words are behind the last norm, and not projected; those behind the end are 0. Nothing is dropped, `train` or not.
    Each size is `TextTower(*size)`.

    Raises:
      UserError: captions that are too long.
    """

    depth: int
    width: int
    heads: int
    vocabulary: int
    length: int
    dim: int
    activation: str = "quick_gelu"
    precision: Any = "highest"

    @property
    def numbers(self) -> Size:
        """The size that it was made of."""
        return Size(*(getattr(self, name) for name in Size._fields))

    @property
    def size(self) -> int:
        """Entries of a sentence's vector."""
        return self.dim

    @nn.compact
    def __call__(self, tokens: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        count = tokens.shape[1]
        if count > self.length:
            raise UserError(f"captions of {count} tokens: CLIP's text tower takes at most {self.length}")
        table = self.param("tokens", nn.initializers.normal(0.02), (self.vocabulary, self.width))
        positions = self.param("positions", nn.initializers.normal(0.01), (self.length, self.width))
        projection = self.param("projection", nn.initializers.normal(self.width**-0.5), (self.width, self.dim))
        x = table[tokens] + positions[:count]
        for i in range(self.depth):
            x = transformer.Block(
                self.heads, self.precision, EPSILON, ACTIVATIONS[self.activation], causal=True, name=f"block_{i}"
            )(x)
        x = transformer.norm("norm", EPSILON)(x)
        end = jnp.argmax(tokens, 1)
        sentence = jnp.take_along_axis(x, end[:, None, None], 1)[:, 0]
        sentence = jnp.matmul(sentence, projection, precision=self.precision)
        return sentence, jnp.where(jnp.arange(count)[:, None] <= end[:, None, None], x, 0)


def load(path: str, *, download: bool = False) -> Tower:
    """The tower of a file, which is read as data alone.

    Args:
      path: the file; a folder that holds `model.safetensors`; or a name of the catalogue, one of `NAMES`, for a file
        that lies where weights do, see `weights.store.find`.
      download: fetch a file of the catalogue that is missing.
    Raises:
      MissingPathError: it is not there.
      UserError: it cannot be read, is damaged, or is of another network.
    """
    if path in NAMES:
        weights = store.load(path, download=download)
        return _tower(weights.state, weights.path, weights.sha256, path)
    file = store.place(path)
    if file.is_dir():
        file = file / "model.safetensors"
    if not file.is_file():
        raise MissingPathError(f"{file}: no such file, expected the weights of CLIP's text tower, or one of the names "
                               f"{', '.join(NAMES)}; see {DOCS}")
    sha256 = store.digest(file)
    name = next((name for name in NAMES if store.KNOWN[name].sha256 == sha256), "")
    return _tower(_read(file), file, sha256, name)


def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of the text tower in a file of any kind, by its names."""
    contents = containers.read_file(file)
    try:
        value = torchscript.tensors(contents.value) if torchscript.is_network(contents.value) else contents.value
        if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
            value = value["state_dict"]
        if not isinstance(value, dict):
            raise UserError(f"{file}: expected named arrays, or a network of TorchScript; see {DOCS}")
        numbers = containers.reader(contents.size)
        return {name: numbers(tensor) for name, tensor in value.items() if _is_tower(name, tensor)}
    except Damaged as error:
        raise UserError(f"{file}: the file is damaged: {error}; fetch it again") from error


def _is_tower(name: Any, value: Any) -> bool:
    return isinstance(name, str) and containers.is_array(value) and name.startswith(
        ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection", "text_model.")
    )  # fmt: skip


def _tower(state: Mapping[str, np.ndarray], file: pathlib.Path, sha256: str, name: str) -> Tower:
    state = openai_names(state)
    size = size_of(state, str(file), _config_beside(file))
    variables = from_torch(states.check(state, shapes(size), str(file)))
    return Tower(variables, sha256, TextTower(*size).apply, size, name)


def _config_beside(file: pathlib.Path) -> dict[str, Any]:
    """What the `config.json` beside a file of transformers says of the text tower; {} where there is none."""
    place = file.with_name("config.json")
    if file.suffix != ".safetensors" or not place.is_file():
        return {}
    try:
        with place.open("rb") as stream:
            value = json.loads(stream.read(_MOST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{place}: cannot be read: {plain(error)}; take it away, or put the right one there") from error
    value = value if isinstance(value, dict) else {}
    return value["text_config"] if isinstance(value.get("text_config"), dict) else value


# Weights

def openai_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state under the names of OpenAI's program, whichever of the two it has; other arrays are passed over."""
    if "text_model.embeddings.token_embedding.weight" not in state:
        return dict(state)
    simple = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight", "text_model.final_layer_norm.bias": "ln_final.bias",
    }  # fmt: skip
    result = {new: state[old] for old, new in simple.items() if old in state}
    if "text_projection.weight" in state:
        result["text_projection"] = state["text_projection.weight"].T
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for i in range(_count(state, "text_model.encoder.layers.{}.layer_norm1.weight")):
        old, new = f"text_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            qkv = [state.get(f"{old}self_attn.{part}_proj.{kind}") for part in "qkv"]
            if all(part is not None for part in qkv):
                result[f"{new}attn.in_proj_{kind}"] = np.concatenate(qkv)
            result |= {f"{new}{name}.{kind}": state[f"{old}{part}.{kind}"]
                       for part, name in parts.items() if f"{old}{part}.{kind}" in state}  # fmt: skip
    return result


def _count(state: Mapping[str, np.ndarray], name: str) -> int:
    """How many blocks there are, from 0 on."""
    return next(i for i in range(len(state) + 1) if name.format(i) not in state)


def size_of(state: Mapping[str, np.ndarray], what: str, config: Mapping[str, Any] | None = None) -> Size:
    """The size that arrays under OpenAI's names have.

    Args:
      state: name -> array.
      what: the file, for messages.
      config: `num_attention_heads`, `hidden_act` and `layer_norm_eps` where they are known.
    Raises:
      UserError: an array that tells it is missing, or the width is no whole number of heads.
    """
    config = config or {}
    two = ("token_embedding.weight", "positional_embedding", "text_projection")
    missing = [name for name in two if np.ndim(state.get(name)) != 2]
    missing += [name for name in (_BLOCKS.format(0),) if name not in state]
    if missing:
        names = ", ".join(f"{plain(name, 60)!r}" for name in list(state)[:3]) or "none of a text tower"
        raise UserError(f"{what}: the array {missing[0]!r} of CLIP's text tower is not in it; it has {names}; "
                        f"see {DOCS}")
    (vocabulary, width), length = state["token_embedding.weight"].shape, len(state["positional_embedding"])
    heads = config.get("num_attention_heads", width // HEAD if width % HEAD == 0 else 0)
    activation = config.get("hidden_act", "quick_gelu")
    if type(heads) is not int or heads < 1 or width % heads:
        raise UserError(f"{what}: {plain(heads, 40)} heads of {width} dimensions; expected a number that divides them: "
                        "of a model of transformers put its config.json beside it")
    if activation not in tuple(ACTIVATIONS) or config.get("layer_norm_eps", EPSILON) != EPSILON:
        raise UserError(f"{what}: hidden_act={plain(activation, 40)!r}, layer_norm_eps="
                        f"{plain(config.get('layer_norm_eps', EPSILON), 40)}; expected {' or '.join(ACTIVATIONS)}, "
                        f"and {EPSILON}")
    depth = _count(state, _BLOCKS)
    return Size(depth, width, heads, vocabulary, length, state["text_projection"].shape[1], activation)


def shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Arrays of a tower under OpenAI's names."""
    d, hidden = size.width, MLP_RATIO * size.width
    block = {
        "ln_1.weight": (d,), "ln_1.bias": (d,), "attn.in_proj_weight": (3 * d, d), "attn.in_proj_bias": (3 * d,),
        "attn.out_proj.weight": (d, d), "attn.out_proj.bias": (d,), "ln_2.weight": (d,), "ln_2.bias": (d,),
        "mlp.c_fc.weight": (hidden, d), "mlp.c_fc.bias": (hidden,),
        "mlp.c_proj.weight": (d, hidden), "mlp.c_proj.bias": (d,),
    }  # fmt: skip
    return {
        "token_embedding.weight": (size.vocabulary, d), "positional_embedding": (size.length, d),
        **{f"transformer.resblocks.{i}.{name}": shape for i in range(size.depth) for name, shape in block.items()},
        "ln_final.weight": (d,), "ln_final.bias": (d,), "text_projection": (d, size.dim),
    }  # fmt: skip


def from_torch(state: Mapping[str, np.ndarray]) -> dict:
    """Variables of `TextTower` from the arrays of `shapes`, float32, checked by `state.check`."""
    params = {
        "tokens": state["token_embedding.weight"], "positions": state["positional_embedding"],
        "projection": state["text_projection"], "norm": norm_from(state, "ln_final"),
    }  # fmt: skip
    for i in range(_count(state, _BLOCKS)):
        path = f"transformer.resblocks.{i}."
        qkv = {"weight": state[path + "attn.in_proj_weight"], "bias": state[path + "attn.in_proj_bias"]}
        params[f"block_{i}"] = {
            "norm1": norm_from(state, path + "ln_1"), "norm2": norm_from(state, path + "ln_2"),
            "qkv": {"kernel": qkv["weight"].T, "bias": qkv["bias"]},
            "proj": dense_from(state, path + "attn.out_proj"),
            "fc1": dense_from(state, path + "mlp.c_fc"), "fc2": dense_from(state, path + "mlp.c_proj"),
        }
    return {"params": jax.tree.map(np.ascontiguousarray, params)}
