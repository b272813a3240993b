"""Masks of holes: recorded strokes and boxes of LaMa's program, the numbers that they are drawn from."""

import jax
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.layers import masks, random
from tests import golden_lama as golden

SIZE = (256, 256)
FREE_FORM = masks.FreeForm(strokes=(1, 6))


@pytest.fixture(scope="module")
def arrays():
    return golden.load("lama_masks")


def _mask(arrays, kind, number):
    return np.unpackbits(arrays[f"out/{kind}/mask{number}_packed"], axis=-1)


def _uniform(number, low, high):
    """In the middle of what becomes this number of a range."""
    return (number - low + 0.5) / (high - low + 1)


def _strokes(recorded, rule):
    """The uniform numbers that become recorded integers: all strokes' counts and begins, then their segments."""
    numbers = iter(recorded.tolist())
    strokes, most, each = next(numbers), rule.strokes[1], rule.segments[1]
    counts, begins, parts = np.zeros(most), np.zeros((most, 2)), np.zeros((most, each, 3))
    for stroke in range(strokes):
        begins[stroke] = [(next(numbers) + 0.5) / 256 for _ in range(2)]
        count = next(numbers) + 1
        counts[stroke] = _uniform(count, *rule.segments)
        for segment in range(count):
            parts[stroke, segment] = [
                _uniform(next(numbers), 0, rule.angles - 1), _uniform(10 + next(numbers), *rule.lengths),
                _uniform(5 + next(numbers), *rule.widths),
            ]  # fmt: skip
    flat = [np.array([_uniform(strokes, *rule.strokes)]), counts, begins.ravel(), parts.ravel()]
    return np.concatenate(flat).astype(np.float32)[None]


@pytest.mark.parametrize("number", range(3))
def test_recorded_strokes(arrays, number):
    """Segments to the pixel; what they cover, by another rasteriser, to a hundredth of the picture."""
    recorded = arrays[f"out/irregular_lama256/lines{number}"]
    uniform = _strokes(arrays[f"in/irregular_lama256/randint{number}"], FREE_FORM)
    ends, widths, drawn = (np.asarray(x)[0] for x in masks.lines(uniform, SIZE, FREE_FORM))
    ours = np.concatenate([ends.reshape(-1, 4), widths[:, None]], 1)[drawn]
    np.testing.assert_array_equal(ours, recorded)
    mask = np.asarray(masks.free_form(uniform, SIZE, FREE_FORM))[0, ..., 0]
    assert (mask != _mask(arrays, "irregular_lama256", number)).mean() < 0.01


@pytest.mark.parametrize(("kind", "number"), [("irregular_default", 0), ("irregular_default", 1), ("mixed_lama256", 0)])
def test_recorded_coverage(arrays, kind, number):
    recorded = arrays[f"out/{kind}/lines{number}"].astype(np.float32)[None]
    drawn = np.ones(recorded.shape[:2], bool)
    mask = masks.segments(recorded[..., :4].reshape(1, -1, 2, 2), recorded[..., 4], drawn, SIZE)[0, ..., 0]
    assert abs(mask.mean() - arrays[f"out/{kind}/coverage{number}"]) < 0.01
    assert (mask != _mask(arrays, kind, number)).mean() < 0.01


@pytest.mark.parametrize("number", range(3))
def test_recorded_boxes(arrays, number):
    rule = masks.Boxes()
    count, *rest = arrays[f"in/box_lama256/randint{number}"].tolist()
    parts = np.zeros((rule.boxes[1], 4))
    for box, (width, height, x, y) in enumerate(np.reshape(rest, (-1, 4))):
        corner = (_uniform(x, 10, 246 - width), _uniform(y, 10, 246 - height))
        parts[box] = (_uniform(width, 30, 150), _uniform(height, 30, 150), *corner)
    uniform = np.append(_uniform(count, *rule.boxes), parts).astype(np.float32)[None]
    np.testing.assert_array_equal(masks.boxes(uniform, SIZE, rule)[0, ..., 0], _mask(arrays, "box_lama256", number))


def test_numbers_are_uniform_between_their_ends():
    """Counts of strokes and segments, widths, and the sides of boxes: means and ends of the discrete distributions."""
    keys = jax.random.split(jax.random.key(0), 2000)
    one_box = masks.Boxes((1, 1), (8, 16), 4)
    wanted = masks.wanted(masks.Rule("mixed", FREE_FORM, one_box))
    drawn = random.draw(keys, {0: wanted["free_form"], 1: wanted["boxes"]})
    ends, widths, shown = jax.jit(lambda u: masks.lines(u, SIZE, FREE_FORM))(drawn[0])
    strokes = np.asarray(shown.reshape(2000, 6, 5)).any(-1).sum(-1)
    assert set(strokes) == set(range(1, 7)) and strokes.mean() == pytest.approx(3.5, abs=0.15)
    assert shown.sum() / strokes.sum() == pytest.approx(3, abs=0.1)  # of one stroke's segments
    assert (widths.min(), widths.max()) == (5, 104) and widths.mean() == pytest.approx(54.5, abs=0.5)
    assert ends.min() == 0 and ends.max() == 256
    covered = masks.boxes(drawn[1], (64, 64), one_box).sum((1, 2, 3))
    assert covered.mean() == pytest.approx(12**2, rel=0.03) and (covered.min(), covered.max()) == (64, 256)


def test_boxes_stay_inside_the_margin():
    """Also where the room is smaller than the largest side."""
    uniform = np.random.default_rng(0).random((500, 9), np.float32)
    rule = masks.Boxes((1, 2), (2, 40), 3)
    mask = np.asarray(masks.boxes(uniform, (16, 12), rule)).max(0)[..., 0]
    expected = np.pad(np.ones((10, 6)), 3)
    np.testing.assert_array_equal(mask, expected)


def test_each_kind_is_what_its_key_says():
    """Of one key the mixed kind has one of the other two, each about half of the time; the centre needs no key."""
    rules = {kind: masks.Rule(kind, boxes=masks.Boxes((1, 4), (4, 16), 2)) for kind in masks.KINDS}
    keys = jax.random.split(jax.random.key(1), 200)
    wanted = masks.wanted(rules["mixed"])
    streams = random.draw(keys, dict(enumerate(wanted.values())))
    drawn = {name: streams[i] for i, name in enumerate(wanted)}
    made = {kind: np.asarray(masks.make(drawn, 200, (32, 32), rule)) for kind, rule in rules.items()}
    is_free = (made["mixed"] == made["free_form"]).all((1, 2, 3))
    is_boxes = (made["mixed"] == made["boxes"]).all((1, 2, 3))
    assert (is_free | is_boxes).all() and 60 < is_free.sum() < 140
    assert masks.wanted(rules["centre"]) == {} and made["centre"][:, 8:24, 8:24].all()
    assert made["centre"].sum() == 200 * 256


def test_the_centre():
    mask = masks.centre((8, 7), (4, 2))[0, ..., 0]
    assert mask.sum() == 8 and mask[2:6, 2:4].all()


@pytest.mark.parametrize("pair", [(0, 2), (3, 2), (1,), (1.5, 2)])
def test_ranges_are_checked(pair):
    with pytest.raises(UserError, match="boxes=.*expected the least and the most, whole numbers from 1 on"):
        masks.check("boxes", pair, 1)
