"""The judge of clips: its convolutions beside 3-D ones, its orders by hand, what it learns of bouncing digits."""

import jax
import numpy as np
import pytest
from jax import lax

from gan_jax.data.moving import clip
from gan_jax.errors import UserError
from gan_jax.features import clips_classifier, fitted
from gan_jax.features.clips_classifier import MOTIONS, orders


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))


def _clips(split, count, frames=6):
    examples = [clip(split, index, np.arange(frames), (16, 16)) for index in range(count)]
    return np.stack([e["video"] for e in examples]), np.array([e["label"] for e in examples])


def test_neighbours_make_a_2d_convolution_a_3d_one():
    rng = np.random.default_rng(0)
    x, parts = rng.normal(size=(2, 5, 6, 6, 3)), rng.normal(size=(5, 3, 3, 3, 4))  # of x', x, x'', x - x', x'' - x
    x, parts = x.astype(np.float32), parts.astype(np.float32)
    kernel = np.stack([parts[0] - parts[3], parts[1] + parts[3] - parts[4], parts[2] + parts[4]])
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)), mode="edge")
    names = ("NDHWC", "DHWIO", "NDHWC")
    expected = lax.conv_general_dilated(padded, kernel, (1, 1, 1), ((0, 0), (1, 1), (1, 1)), dimension_numbers=names,
                                        precision="highest")  # fmt: skip
    flat = np.concatenate(parts, axis=2)
    ours = lax.conv_general_dilated(clips_classifier._with_neighbours(x), flat, (1, 1), "SAME",
                                    dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest")  # fmt: skip
    np.testing.assert_allclose(ours.reshape(2, 5, 6, 6, 4), expected, atol=1e-4)


def test_orders_are_what_their_names_say():
    shown = {name: orders(np.full(50, number), 6, np.random.default_rng(0)) for number, name in enumerate(MOTIONS)}
    np.testing.assert_array_equal(shown["as it is"], [range(6)] * 50)
    np.testing.assert_array_equal(shown["fast"], [[0, 2, 4, 4, 2, 0]] * 50)
    np.testing.assert_array_equal(shown["spliced"], [[0, 1, 2, 9, 10, 11]] * 50)  # from 6 on another clip's
    np.testing.assert_array_equal(np.sort(shown["shuffled"]), [range(6)] * 50)
    assert len(np.unique(shown["shuffled"], axis=0)) > 40
    assert (np.ptp(shown["still"], axis=1) == 0).all() and set(shown["still"][:, 0]) == set(range(6))
    slow = shown["slow"]
    np.testing.assert_array_equal(slow - slow[:, :1], [[0, 0, 1, 1, 2, 2]] * 50)
    assert slow.min() == 0 and slow.max() == 5


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path_factory.mktemp("judge")))
        return clips_classifier.fit(_clips("train", 400)[0], None, _clips("test", 60)[0], None, steps=100)


def test_it_feels_motion(judge):
    """Far above a sixth; still and shuffled clips lie farther from moving ones than other moving ones do."""
    assert judge.accuracy > 0.5
    (moving, _), (other, _) = _clips("test", 60), _clips("train", 60)
    look = jax.jit(lambda clips: judge.apply(judge.variables, clips, ("features", "motion")))
    values = look(moving)
    assert {name: x.shape for name, x in values.items()} == {"features": (60, 96), "motion": (60, 6)}
    centre = np.asarray(values["features"]).mean(0)
    still, shuffled = np.repeat(moving[:, :1], 6, axis=1), moving[:, [3, 0, 5, 2, 4, 1]]
    distances = [np.linalg.norm(np.asarray(look(x)["features"]).mean(0) - centre) for x in (other, still, shuffled)]
    assert 3 * distances[0] < min(distances[1:])


def test_it_takes_clips_of_any_length_and_size_and_refuses_other_channels(judge):
    clips, _ = _clips("test", 2, frames=9)
    large = clips.repeat(2, 2).repeat(2, 3)
    values = [judge.apply(judge.variables, x, ("features",))["features"] for x in (clips, large)]
    np.testing.assert_allclose(*values, atol=1e-4)  # means of 2x2 equal pixels
    with pytest.raises(UserError, match="fitted on 1 channels and given 3"):
        judge.apply(judge.variables, clips.repeat(3, -1), ("features",))


def test_it_is_kept_and_a_function_of_its_data(tmp_path, monkeypatch):
    (clips, labels), (held_out, _) = _clips("train", 20, 4), _clips("test", 4, 4)
    first = clips_classifier.fit(clips, labels, held_out, None, steps=2)
    monkeypatch.setattr(clips_classifier, "_train", lambda *_: pytest.fail("fitted again"))
    assert clips_classifier.fit(clips, labels, held_out, None, steps=2).sha256 == first.sha256
    monkeypatch.undo()
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "other"))
    assert clips_classifier.fit(clips, labels, held_out, None, steps=2).sha256 == first.sha256
    values = first.apply(first.variables, clips, tuple(first.outputs))
    assert {name: x.shape for name, x in values.items()} == {
        "features": (20, 96), "motion": (20, 6), "logits": (20, labels.max() + 1)
    }
    unlabelled = clips_classifier.fit(clips, None, held_out, None, steps=2)
    assert "logits" not in unlabelled.outputs and unlabelled.sha256 != first.sha256
    moved = fitted.of_weights(jax.tree.map(lambda x: x + 1, first.variables), first)
    assert moved.sha256 != first.sha256


@pytest.mark.parametrize(("change", "message"), [
    (lambda x: x[0], r"train clips uint8 \(4, 16, 16, 1\); expected"),
    (lambda x: x[:, :1], "T at least 2"), (lambda x: x.astype(float), "train clips float64"),
])  # fmt: skip
def test_what_are_no_clips_is_refused(change, message):
    clips, labels = _clips("train", 3, 4)
    with pytest.raises(UserError, match=message):
        clips_classifier.fit(change(clips), labels, clips, labels)
    with pytest.raises(UserError, match=r"labels of the shape \(2,\)"):
        clips_classifier.fit(clips, labels[:2], clips, labels)
