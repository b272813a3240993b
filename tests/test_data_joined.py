"""Sets joined at one stream position, and the digits' second look."""

import numpy as np
import pytest

from gan_jax.data import Joined, open_dataset
from gan_jax.data.inverted import INK, NOISE, PAPER, inverted
from gan_jax.errors import UserError
from gan_jax.specs import Field

LOOK = {"resolution": 8, "channels": 3}


@pytest.fixture(scope="module")
def parts():
    return {
        "a": open_dataset(name="digits", split="train[:50%]", **LOOK),
        "b": open_dataset(name="digits:inverted", split="train[50%:]", **LOOK),
    }


def test_fields_are_named_after_their_parts(parts):
    image, label = Field("image", (8, 8, 3)), Field("label", (), 10)
    assert Joined(parts).spec == {"a": image, "a_label": label, "b": image, "b_label": label}
    batch = Joined(parts).examples(np.array([0, 718, 719]))
    for name, part in parts.items():
        own = part.examples(np.array([0, 718, 719]) % part.size)
        np.testing.assert_array_equal(batch[name], own["image"])
        np.testing.assert_array_equal(batch[f"{name}_label"], own["label"])


def _take(stream, count):
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


def test_each_part_has_its_own_order_and_a_position_decides_the_example(parts):
    joined, rows = Joined(parts), np.arange(8)
    where = dict(seed=3, batch_size=8, rows=rows)
    batches = _take(joined.stream(start=0, **where), 3)
    later = _take(joined.stream(start=16, **where), 1)[0]
    for name in ("a", "b", "a_label"):
        np.testing.assert_array_equal(batches[2][name], later[name])
    half = _take(joined.stream(start=0, seed=3, batch_size=8, rows=rows[4:]), 1)[0]
    np.testing.assert_array_equal(half["b"], batches[0]["b"][4:])
    same = Joined({"a": parts["a"], "b": parts["a"]})
    one = _take(same.stream(start=0, **where), 1)[0]
    assert not np.array_equal(one["a"], one["b"])  # else every picture would meet itself


def test_the_fingerprint_is_that_of_all_parts(parts):
    joined = Joined(parts)
    other = Joined({"a": parts["a"], "b": parts["a"]})
    assert len(joined.fingerprint) == 64 and joined.fingerprint != other.fingerprint
    protocol = joined.protocol()
    assert protocol["fingerprint"] == joined.fingerprint and protocol["parts"]["b"]["name"] == "digits:inverted"
    assert joined.packed() is None


def test_inverted_digits_are_ink_on_paper(parts):
    """The same strokes, and the same labels, as those of the grey set."""
    grey = open_dataset(name="digits", split="train[50%:]", resolution=8, channels=1)
    places = np.arange(0, grey.size, 50)
    plain, ours = grey.examples(places), parts["b"].examples(places)
    share = plain["image"] / 255
    np.testing.assert_allclose(ours["image"], share * INK + (1 - share) * PAPER, atol=0.5001)
    np.testing.assert_array_equal(ours["label"], plain["label"])


def test_noise_is_normal_and_a_function_of_the_index():
    std, image = NOISE["inverted_noise"], np.full((64, 64, 1), 128, np.uint8)
    one = inverted(image, std, 5)
    np.testing.assert_array_equal(one, inverted(image, std, 5))
    assert not np.array_equal(one, inverted(image, std, 6))
    noise = one.astype(float) - inverted(image, 0.0, 5)
    assert abs(noise.mean()) < 0.5 and noise.std() == pytest.approx(std, rel=0.03)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(("name", "channels", "message"), [
    ("digits:inverse", 3, "Did you mean 'digits:inverted'"),
    ("digits:inverted", 1, "in colour: set data.channels=3, not 1"),
])  # fmt: skip
def test_mistakes(name, channels, message):
    with pytest.raises(UserError, match=message):
        open_dataset(name=name, resolution=8, channels=channels)
