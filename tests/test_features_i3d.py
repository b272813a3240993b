"""The network of FVD against PyTorch; padding, clips, the user's own weights, its protocol."""

import json
import math
import pathlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import evaluate, metrics, painter, parallel, run_data, runs
from gan_jax.errors import MissingPathError, UserError
from gan_jax.evaluate import protocols, sizes
from gan_jax.features import i3d, networks, resize
from gan_jax.features.state import check, random_state
from gan_jax.weights import store
from tests import interop_files as files
from tests import settings

RECORDED = np.load(pathlib.Path(__file__).parent / "golden" / "i3d.npz")
META = json.loads(str(RECORDED["meta"]))


def test_shapes_are_those_of_the_pytorch_port():
    shapes = {name: tuple(shape) for name, shape in META["shapes"].items()}
    assert i3d.shapes() == shapes and len(shapes) == 57 * 5 + 2
    kernels = sum(math.prod(shape) for name, shape in shapes.items() if name.endswith("conv3d.weight"))
    norms = sum(shape[0] for name, shape in shapes.items() if name.endswith("bn.bias"))
    assert (kernels, norms) == (12_682_304, 7_280)


def test_features_and_logits_are_pytorchs():
    """57 convolutions with seeded weights, of a clip of 10 frames of 40x56: odd and even sizes on the way down."""
    variables = i3d.from_torch(check(random_state(i3d.shapes(), META["seed"]), i3d.shapes(), "random weights"))
    clip = RECORDED["in/clip"].astype(np.float32) / 127.5 - 1
    outputs = jax.jit(i3d.I3D().apply)(variables, clip)
    for name, value in outputs.items():
        expected = RECORDED[f"out/{name}"]
        assert value.shape == expected.shape == (1, i3d.OUTPUTS[name])
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("size", "window", "stride", "expected"), [
    (224, 7, 2, (2, 3)), (16, 7, 2, (2, 3)), (9, 7, 2, (3, 3)), (112, 3, 2, (0, 1)), (7, 3, 1, (1, 1)),
    (7, 2, 2, (0, 1)), (8, 2, 2, (0, 0)), (5, 1, 1, (0, 0)),
])  # fmt: skip
def test_padding_is_tensorflows(size, window, stride, expected):
    """Its documentation's formula: of n by s a window more than needed is never taken, the odd pixel lies behind."""
    assert i3d.same_padding((size,), (window,), (stride,)) == (expected,)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_pools_and_convolutions_by_loops(stride):
    """Each window by itself, in numpy: what lies outside is no candidate of a pool, and nought for a convolution."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 5, 6, 4, 2)).astype(np.float32), rng.normal(size=(3, 3, 3, 2, 3)).astype(np.float32)
    sizes = [-(-n // s) for n, s in zip(x.shape[1:4], stride, strict=True)]
    before = [max((out - 1) * s + 3 - n, 0) // 2 for out, s, n in zip(sizes, stride, x.shape[1:4], strict=True)]
    pooled, convolved = np.zeros((1, *sizes, 2)), np.zeros((1, *sizes, 3))
    for place in np.ndindex(*sizes):
        begin = [p * s - b for p, s, b in zip(place, stride, before, strict=True)]
        ranges = [slice(max(b, 0), min(b + 3, n)) for b, n in zip(begin, x.shape[1:4], strict=True)]
        inside = x[0][tuple(ranges)]
        part = kernel[tuple(slice(r.start - b, r.stop - b) for r, b in zip(ranges, begin, strict=True))]
        pooled[0][place] = inside.max((0, 1, 2))
        convolved[0][place] = np.einsum("thwi,thwio->o", inside, part)
    np.testing.assert_array_equal(i3d.max_pool(x, (3, 3, 3), stride), pooled)
    np.testing.assert_allclose(i3d.convolve(x, kernel, stride), convolved, atol=1e-5)


def test_frames_are_resized_one_by_one():
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 30, 3), dtype=np.uint8)
    prepared = np.asarray(i3d.PREPROCESSING["tf1"](clips))
    assert prepared.shape == (2, 3, 224, 224, 3)
    frame = np.asarray(resize.tf1_bilinear(clips[1, 2:].astype(np.float32), (224, 224)))
    np.testing.assert_allclose(prepared[1, 2], frame[0] / 127.5 - 1, atol=1e-6)


def test_the_users_own_file_is_read_and_its_values_named_so(tmp_path):
    """Counters of BatchNorm, which pytorch-i3d's files have besides, are passed over."""
    state = random_state(i3d.shapes(), 3)
    path = tmp_path / "any name"
    path.write_bytes(files.zipped_state_dict(state | {"Conv3d_1a_7x7.bn.num_batches_tracked": np.array(7)}))
    section = SimpleNamespace(features="none", preprocessing="tf1", weights=str(path), download=False)
    net = networks.load("i3d@16", section)
    assert (net.name, net.published, net.sha256) == ("unpublished_i3d", False, store.digest(path))
    assert net.preprocessing.startswith("the first 16 frames, frames bilinear")
    jax.tree.map(np.testing.assert_array_equal, net.variables, i3d.from_torch(state))
    assert protocols.reported(protocols.parse("fvd2048_16f"), net, "tf1") == "fd2048_16f_unpublished_i3d"


def test_a_file_of_other_names_is_refused(tmp_path):
    path = tmp_path / "i3d.pt"
    path.write_bytes(files.zipped_state_dict({"conv3d_1a_7x7.weight": np.zeros((1, 1), np.float32)}))
    section = SimpleNamespace(features="none", preprocessing="tf1", weights=str(tmp_path), download=False)
    with pytest.raises(UserError, match="287 of 287 arrays are missing, such as 'Conv3d_1a_7x7.conv3d.weight'"):
        networks.load("i3d", section)


# The protocol.


def test_what_fvd_stands_for():
    protocol = protocols.parse("fvd2048_16f")
    assert protocol == ("fvd2048_16f", "fd", "i3d@16", "logits", 2048, 2048, {"frames": 16})
    assert protocols.parse("fvd2k_9f_full")[2:] == ("i3d@9", "logits", 2000, None, {"frames": 9})
    assert protocols.parse("fvd2048") is None and protocols.direction("fvd2048_16f") == "lower"
    net = networks.FeatureNet("random_i3d", "", False, "", {}, {}, None)
    assert protocols.reported(protocol, net, "tf1") == "fd2048_16f_random_i3d"
    assert protocols.reported(protocol, net._replace(name="i3d", published=True), "tf1") == "fvd2048_16f"


@pytest.mark.parametrize(("name", "shape", "message"), [
    ("fvd64_16f", (32, 32, 3), "metrics=fvd64_16f: looks at clips by i3d, and these are images"),
    ("fvd64_16f", (12, 32, 32, 3), "of 16 frames, and these clips have 12; expected as many or more"),
    ("fid10k", (16, 32, 32, 3), "looks at images by inception, and these are clips of 16 frames; .* fvd2048_16f"),
])  # fmt: skip
def test_clips_that_do_not_fit_are_refused(name, shape, message):
    with pytest.raises(UserError, match=message):
        sizes.check_shape(protocols.parse(name), shape)


def test_too_few_frames_for_the_network():
    with pytest.raises(UserError, match="metrics=fvd64_8f: of 8 frames; expected 9 or more, which its network needs"):
        protocols.check_count("fvd64_8f")
    with pytest.raises(UserError, match=r"takes clips .* of 9 frames or more, not \(8, 32, 32, 3\)"):
        i3d.check_clips((8, 32, 32, 3))


def test_without_the_file_one_message_says_where_the_original_lies(tmp_path, monkeypatch):
    monkeypatch.setenv(store.VARIABLE, str(tmp_path))
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "cache"))
    for download in (False, True):
        with pytest.raises(MissingPathError) as error:
            store.load("i3d", download=download)
        for part in ("no i3d.safetensors or i3d.pt in", "https://github.com/google-deepmind/kinetics-i3d",
                     "docs/metrics_weights.md"):  # fmt: skip
            assert part in str(error.value)


def _means(clips):
    """A stand-in for the network: means of the whole clip's four quarters and three frames, (B, 12)."""
    b, t, h, w, c = clips.shape
    quarters = jnp.asarray(clips, jnp.float32).reshape(b, t, 2, h // 2, 2, w // 2, c).mean((3, 5, 6))  # (B, T, 2, 2)
    return quarters[:, jnp.array([0, t // 2, t - 1])].reshape(b, 12)


def test_a_run_of_clips_is_measured(tmp_path, monkeypatch):
    """The distance of means of the first nine frames, of the first reals in their order and the samples of the seed."""
    build = lambda outputs: lambda _, x: {"logits": _means(x)}  # noqa: E731
    kind = networks._Kind(dict, dict, {"logits": 12}, build, {"tf1": lambda x: x}, i3d.DESCRIPTIONS)
    monkeypatch.setitem(networks.KINDS, "i3d", kind)
    monkeypatch.setattr(networks.store, "load", lambda name, **_: store.Weights({}, "ab" * 32, tmp_path, False))
    config = configs.complete(ConfigDict({
        "game": "tests.film_game", "data": {"name": "digits:moving", "resolution": 16, "frames": 10},
        "generator": {"name": "tiny"}, "optim": {"generator": {"name": "sgd"}},
    }), runs.defaults)  # fmt: skip
    run = settings.fresh_folder(config, tmp_path / "run")
    nine, ten = evaluate.evaluate(tmp_path / "run", metrics="fvd40_9f,fvd40_10f", append=False)
    assert (nine["metric"], nine["features"]) == ("fd40_9f_unpublished_i3d", "unpublished_i3d/logits")
    assert (nine["samples"], nine["reals"]) == (40, 40)
    assert nine["preprocessing"] == "the first 9 frames, frames bilinear 224x224 as TensorFlow 1, 2x/255-1"
    assert nine["data"] == "digits:moving" and nine["better"] == "lower"

    dataset = run_data.open_data(config)
    reals = dataset.examples(np.random.RandomState(0).permutation(dataset.size)[:40])["video"]
    state = parallel.replicate(runs.fresh_state(run), parallel.make_mesh())
    fakes = painter.sampler(run)(state.ema, painter.keys_from(0, "evaluation", np.arange(40)), {})
    for row, frames in ((nine, 9), (ten, 10)):
        a, b = (metrics.moments(np.asarray(_means(clips[:, :frames]))) for clips in (reals, fakes))
        distance = metrics.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
        assert row["value"] == pytest.approx(distance, rel=1e-3)
    assert nine["value"] != ten["value"]
