"""CLIP's text tower against recordings of transformers' and of a TorchScript file, and what its files may be."""

import io
import json
import math
import pathlib
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy

from gan_jax.errors import MissingPathError, UserError
from gan_jax.features import clip_text
from gan_jax.features.state import random_state
from gan_jax.weights import store
from tests import interop_files as files

GOLDEN = pathlib.Path(__file__).parent / "golden"
RECORDED = np.load(GOLDEN / "clip_text.npz")
META = json.loads(str(RECORDED["meta"]))
JIT = GOLDEN / "clip_text_jit.pt"
TOKENS = RECORDED["in/tokens"]
SMALL = clip_text.Size(1, 64, 1, 64, 8, 32)


def _theirs(name):
    """The arrays of the recorded network, by transformers' names."""
    state = random_state({key: tuple(shape) for key, shape in META["configs"][name]["keys"].items()}, META["seed"])
    for end, scale in META["scales"].items():
        state |= {key: array * np.float32(scale) for key, array in state.items() if key.endswith(end)}
    return state


def _config(name):
    return {key: value for key, value in META["configs"][name].items() if key != "keys"}


def _saved(folder, state, config=None):
    folder.mkdir(exist_ok=True)
    arrays = {key: np.ascontiguousarray(array) for key, array in state.items()}
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


def _up_to_the_end(tokens, words):
    """Words of a recording that do not depend on what pads them: the others are 0."""
    ends = np.array([list(row).index(row.max()) for row in tokens])
    return np.where(np.arange(tokens.shape[1])[None, :, None] <= ends[:, None, None], words, 0)


def _close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape and actual.dtype == np.float32
    assert np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max() < tolerance


# Vectors

@pytest.mark.parametrize(("name", "heads"), [("quick_gelu", 2), ("gelu", 4)])
def test_vectors_match_transformers(tmp_path, name, heads):
    """By the rule of 64 dimensions a head, and by the config.json that transformers puts beside a file."""
    config = None if name == "quick_gelu" else _config(name)
    tower = clip_text.load(str(_saved(tmp_path, _theirs(name), config)))
    assert tower.size.heads == heads and tower.size.activation == name and tower.name == ""
    sentence, words = jax.jit(tower.apply)(tower.arrays, TOKENS)
    _close(sentence, RECORDED[f"out/{name}/sentence"])
    _close(words, _up_to_the_end(TOKENS, RECORDED[f"out/{name}/words"]))


def test_vectors_of_a_torchscript_file_match_torch():
    """Under OpenAI's names, in half precision, beside a tower of pictures and code."""
    tower = clip_text.load(str(JIT))
    assert tower.size == SMALL and tower.sha256 == store.digest(JIT)
    tokens = RECORDED["jit/tokens"]
    sentence, words = jax.jit(tower.apply)(tower.arrays, tokens)
    _close(sentence, RECORDED["jit/sentence"])
    _close(words, _up_to_the_end(tokens, RECORDED["jit/words"]))


def test_padding_and_length_change_nothing():
    tower = clip_text.load(str(JIT))
    apply = jax.jit(tower.apply)
    tokens = np.int32([[62, 5, 9, 63, 0, 0, 0, 0], [62, 5, 9, 63, 63, 63, 63, 63], [62, 5, 9, 63, 1, 62, 7, 2]])
    sentence, words = apply(tower.arrays, tokens)
    assert np.abs(np.diff(sentence, axis=0)).max() < 1e-6 and np.abs(np.diff(words, axis=0)).max() < 1e-6
    np.testing.assert_array_equal(words[:, 4:], 0)
    short, of_short = apply(tower.arrays, tokens[:, :4])
    np.testing.assert_allclose(short, sentence, rtol=0, atol=1e-5)
    np.testing.assert_allclose(of_short, words[:, :4], rtol=0, atol=1e-5)
    other, _ = apply(tower.arrays, np.int32([[62, 9, 5, 63]]))
    assert np.abs(other - sentence[0]).max() > 0.1  # the order of words tells


def test_captions_that_are_too_long_are_refused():
    tower = clip_text.load(str(JIT))
    with pytest.raises(UserError, match="captions of 9 tokens: CLIP's text tower takes at most 8"):
        tower.apply(tower.arrays, np.zeros((1, 9), np.int32))


# Sizes

@pytest.mark.parametrize(("name", "parameters"), [
    # ViT-B/32's tower: 37,828,608 in blocks, 25,296,896 of tokens, 39,424 of positions, 1,024 norm, 262,144 projection
    ("clip_vit_b32", 37_828_608 + 25_296_896 + 39_424 + 1_024 + 262_144),
    ("clip_vit_l14", 123_650_304),  # as transformers counts CLIPTextModelWithProjection of ViT-L/14
])
def test_published_towers_have_their_parameters(name, parameters):
    size = clip_text.SIZES[name]
    assert size.width // 64 == size.heads and size.vocabulary == 49_408 and size.length == 77
    variables = jax.eval_shape(clip_text.TextTower(*size).init, jax.random.key(0),
                               jax.ShapeDtypeStruct((1, 77), np.int32))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
    assert count == parameters == sum(map(math.prod, clip_text.shapes(size).values()))


def test_variables_are_those_of_the_module():
    tower = clip_text.load(str(JIT))
    expected = jax.eval_shape(clip_text.TextTower(*SMALL).init, jax.random.key(0),
                              jax.ShapeDtypeStruct((1, 8), np.int32))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), tower.arrays) == jax.tree.map(
        lambda x: (x.shape, x.dtype), expected
    )


def test_published_sizes_are_those_of_their_arrays():
    for name, size in clip_text.SIZES.items():
        state = {key: np.broadcast_to(np.float32(0), shape) for key, shape in clip_text.shapes(size).items()}
        assert clip_text.size_of(state, name) == size


# Files

def test_all_forms_of_a_file_give_the_same_arrays(tmp_path):
    """A folder of transformers, the whole CLIPModel's config around the tower's, and torch's own state dict."""
    state, config = _theirs("gelu"), _config("gelu")
    one = clip_text.load(str(_saved(tmp_path / "a", state, config)))
    pictures = {"vision_model.embeddings.class_embedding": np.zeros(3, np.float32), "logit_scale": np.float32([2])}
    ids = {"text_model.embeddings.position_ids": np.arange(16)[None]}
    _saved(tmp_path / "b", state | pictures | ids, {"text_config": config, "vision_config": {"hidden_act": "relu"}})
    other = clip_text.load(str(tmp_path / "b"))
    assert other.size == one.size and other.sha256 != one.sha256
    jax.tree.map(np.testing.assert_array_equal, other.arrays, one.arrays)

    plain = clip_text.openai_names(_theirs("quick_gelu"))
    path = tmp_path / "model.pt"
    path.write_bytes(files.zipped_state_dict({key: np.ascontiguousarray(a) for key, a in plain.items()}))
    by_rule = clip_text.load(str(_saved(tmp_path / "c", _theirs("quick_gelu"))))
    jax.tree.map(np.testing.assert_array_equal, clip_text.load(str(path)).arrays, by_rule.arrays)


def test_names_of_the_catalogue_are_looked_for_where_weights_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv(store.VARIABLE, str(tmp_path))
    with pytest.raises(MissingPathError, match="the weights 'clip_vit_b32' are missing: no ViT-B-32.pt in"):
        clip_text.load("clip_vit_b32")
    (tmp_path / "ViT-B-32.pt").write_bytes(JIT.read_bytes())
    with pytest.raises(UserError, match="not the published weights 'clip_vit_b32'"):
        clip_text.load("clip_vit_b32")
    entry = store.KNOWN["clip_vit_b32"]._replace(sha256=store.digest(JIT), bytes=JIT.stat().st_size)
    monkeypatch.setitem(store.KNOWN, "clip_vit_b32", entry)
    by_name, by_path = clip_text.load("clip_vit_b32"), clip_text.load(str(tmp_path / "ViT-B-32.pt"))
    assert by_name.name == by_path.name == "clip_vit_b32" and by_name.size == by_path.size == SMALL
    jax.tree.map(np.testing.assert_array_equal, by_name.arrays, by_path.arrays)


def _without(state, end):
    return {key: array for key, array in state.items() if not key.endswith(end)}


def test_files_of_other_networks_are_refused(tmp_path):
    state = _theirs("quick_gelu")
    refused = {
        r"'text_projection' of CLIP's text tower is not in it": _without(state, "text_projection.weight"),
        r"'token_embedding.weight' of CLIP's text tower is not in it; it has none": {"layer1.weight": np.ones(3)},
        r"'transformer.resblocks.0.ln_1.weight' of CLIP's": {k: a for k, a in state.items() if ".layers." not in k},
        r"missing, such as 'transformer.resblocks.1.attn.in_proj_weight'": _without(state, "1.self_attn.q_proj.weight"),
        r"ln_final.weight has the shape \(3,\), expected \(128,\)": state
        | {"text_model.final_layer_norm.weight": np.ones(3, np.float32)},
    }
    for message, arrays in refused.items():
        with pytest.raises(UserError, match=message):
            clip_text.load(str(_saved(tmp_path, arrays)))
    with pytest.raises(UserError, match=r"0 heads of 32 dimensions; expected a number that divides them"):
        clip_text.load(str(_saved(tmp_path, _theirs("gelu"))))  # without its config.json
    for config, message in (({"num_attention_heads": 5}, "5 heads of 32"), ({"num_attention_heads": "4"}, "4 heads of"),
                            ({"num_attention_heads": 4, "hidden_act": "relu"}, "hidden_act='relu'"),
                            ({"num_attention_heads": 4, "hidden_act": ["gelu"]}, "hidden_act=.*expected quick_gelu or"),
                            ({"num_attention_heads": 4, "layer_norm_eps": 1e-12}, "layer_norm_eps=1e-12")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            clip_text.load(str(_saved(tmp_path, _theirs("gelu"), config)))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        clip_text.load(str(tmp_path))
    with pytest.raises(MissingPathError, match=r"expected the weights of CLIP's text tower, or one of the names clip_"):
        clip_text.load(str(tmp_path / "nothing"))


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(JIT.read_bytes()[:-5000])
    with pytest.raises(UserError, match="model.pt: .*(damaged|refused)"):
        clip_text.load(str(path))


def test_networks_of_torchscript_within_themselves_are_refused(tmp_path):
    # a record whose attribute is itself, as a pickle may say
    loop = b"\x80\x02c__torch__\nNet\n)\x81q\x00}(X\x05\x00\x00\x00innerh\x00ub."
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("net/data.pkl", loop)
    path = tmp_path / "model.pt"
    path.write_bytes(data.getvalue())
    with pytest.raises(UserError, match="networks within networks without end"):
        clip_text.load(str(path))
