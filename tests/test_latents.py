"""Paths and mixtures of latents by hand; files of styles, good and bad."""

import re
import zipfile

import numpy as np
import pytest

from gan_jax import latents
from gan_jax.errors import MissingPathError, UserError


def test_slerp_follows_the_great_circle():
    """On the unit circle, a share t of the way from angle 0 to angle w is the angle t w."""
    w = 2.0
    a, b = np.array([1.0, 0.0]), np.array([np.cos(w), np.sin(w)])
    for t in np.linspace(0, 1, 7):
        np.testing.assert_allclose(latents.slerp(a, b, t), [np.cos(t * w), np.sin(t * w)], atol=1e-6)
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    np.testing.assert_allclose(latents.slerp(x, y, 0.0), x, rtol=1e-6)
    np.testing.assert_allclose(latents.slerp(x, y, 1.0), y, rtol=1e-6)
    np.testing.assert_allclose(latents.slerp(x, x, 0.3), x, rtol=1e-6)
    np.testing.assert_allclose(latents.slerp(a, 2 * a, 0.5), 1.5 * a, rtol=1e-6)


def test_a_loop_passes_every_point_and_closes():
    """Linearly through the corners of a square: four equal steps on each side, and the last leads to the first."""
    corners = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    path = latents.loop(corners, 4, latents.lerp)
    assert path.shape == (16, 2) and path.dtype == np.float32
    np.testing.assert_array_equal(path[::4], corners)
    np.testing.assert_allclose(np.abs(np.roll(path, -1, 0) - path).sum(1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(path[13], [0.0, 3.0])


def test_mixing_takes_the_columns_styles_in_the_layers_alone():
    rows, columns = np.zeros((2, 4, 3)), np.ones((5, 4, 3))
    rows[1] = 7
    mixed = latents.mix(rows, columns, np.array([0, 2]))
    assert mixed.shape == (2, 5, 4, 3)
    for row, value in enumerate((0, 7)):
        for column in range(5):
            np.testing.assert_array_equal(mixed[row, column, :, 0], [1, value, 1, value])
    np.testing.assert_array_equal(latents.mix(rows, columns, np.array([], int))[:, 3], rows)
    np.testing.assert_array_equal(latents.mix(rows, columns, np.arange(4))[1], columns)


def test_a_file_of_styles_is_read_back(tmp_path):
    ws = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    latents.save(tmp_path / "a.npz", {"w": ws, "seeds": np.array([5, 2**32 - 1, 0])})
    read, seeds = latents.load(str(tmp_path / "a.npz"), 4, 2)
    np.testing.assert_array_equal(read, ws)
    assert read.dtype == np.float32 and seeds.tolist() == [5, 2**32 - 1, 0]
    np.savez(tmp_path / "b.npz", w=ws[:, 0].astype(np.float64), other=np.array([{}], object))
    read, seeds = latents.load(str(tmp_path / "b.npz"), 4, 2)
    np.testing.assert_array_equal(read, np.stack([ws[:, 0]] * 4, 1))
    assert seeds is None and sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


class _Malice:
    def __reduce__(self):
        return (eval, ("open('written', 'w')",))


def _bad_files():
    good = np.zeros((2, 4, 2), np.float32)
    yield "other", {"ws": good}, "holds ws; expected an array named w"
    yield "empty", {}, "holds nothing; expected an array named w"
    yield "layers", {"w": good[:, :3]}, r"w has the shape \(2, 3, 2\); this generator expected \(N, 4, 2\), or"
    yield "size", {"w": good[:, 0, :1]}, r"w has the shape \(2, 1\)"
    yield "flat", {"w": good[0, 0]}, r"w has the shape \(2,\)"
    yield "none", {"w": good[:0]}, r"w has the shape \(0, 4, 2\)"
    yield "text", {"w": np.array([["a", "b"]])}, "w is of type <U1; expected real numbers"
    yield "nan", {"w": np.where(np.arange(2)[:, None, None] == 1, np.nan, good)}, "not finite, in 1 of 2 entries"
    yield "huge", {"w": np.full((2, 2), 1e300)}, "not finite, in 2 of 2 entries"
    yield "seeds", {"w": good, "seeds": np.array([1])}, "expected 2 whole numbers from 0 to 4294967295"
    yield "negative", {"w": good, "seeds": np.array([1, -1])}, "expected 2 whole numbers"
    yield "object", {"w": np.array([_Malice()], object)}, "cannot be read as an .npz file of plain arrays: .*pickle"


@pytest.mark.parametrize(("name", "arrays", "message"), _bad_files())
def test_a_bad_file_is_one_message(tmp_path, monkeypatch, name, arrays, message):
    monkeypatch.chdir(tmp_path)
    np.savez(f"{name}.npz", **arrays)
    with pytest.raises(UserError, match=f"^--dlatents={name}.npz: .*{message}"):
        latents.load(f"{name}.npz", 4, 2)
    assert not (tmp_path / "written").exists()


def test_what_is_no_npz_file(tmp_path):
    with pytest.raises(MissingPathError, match="no such file; `sample --save_dlatents` writes one"):
        latents.load(str(tmp_path / "none.npz"), 4, 2)
    good = tmp_path / "good.npz"
    np.savez(good, w=np.random.default_rng(0).normal(size=(50, 4, 2)))
    whole = good.read_bytes()
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as file:  # a header that claims 8 TB
        text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4, 2), }".ljust(117) + b"\n"
        file.writestr("w.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    contents = {"text": b"hello", "empty": b"", "half": whole[: len(whole) // 2],
                "flipped": whole[:300] + bytes([whole[300] ^ 255]) + whole[301:]}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    np.save(tmp_path / "single.npy", np.zeros((2, 2)))
    (tmp_path / "folder").mkdir()
    for path in [*(f"{name}.npz" for name in contents), "single.npy", "folder", "huge.npz"]:
        path = str(tmp_path / path)
        with pytest.raises(UserError, match=f"^--dlatents={re.escape(path)}: cannot be read as an .npz"):
            latents.load(path, 4, 2)
