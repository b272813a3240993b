"""The digits judge: accuracy, determinism, cache, and that it tells good images from bad ones."""

import shutil
from functools import partial

import jax
import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.errors import UserError
from gan_jax.features import digits_classifier


def digits(resolution=32):
    """Train and test images and labels of the bundled digits, every 5th of a class held out."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    size = (resolution, resolution)
    lanczos = Image.Resampling.LANCZOS
    images = np.stack([np.asarray(Image.fromarray(image).resize(size, lanczos)) for image in small])
    held = np.zeros(len(images), bool)
    for label in range(10):
        held[np.flatnonzero(bunch.target == label)[::5]] = True
    return images[~held][..., None], bunch.target[~held], images[held][..., None], bunch.target[held]


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def judge(data, tmp_path_factory):
    """A fit into an empty cache; yields the network and the cache's folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("judge")
        patch.setenv("GAN_JAX_CACHE_DIR", str(folder))
        return digits_classifier.fit(*data), folder / "judges"


@pytest.fixture
def shorter(monkeypatch, tmp_path):
    """A fit of a few steps in a cache of its own, for what does not need a good judge."""
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(digits_classifier, "STEPS", 5)
    return tmp_path / "judges"


@pytest.fixture(scope="module")
def few(data):
    """Some images of every class, for those fits."""
    few = tuple(array[:128] for array in data)
    assert set(few[1]) == set(few[3]) == set(range(10))
    return few


@pytest.fixture(scope="module")
def short(few, tmp_path_factory):
    """One such fit: the network, and the file that its cache holds."""
    folder = tmp_path_factory.mktemp("short")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAN_JAX_CACHE_DIR", str(folder))
        patch.setattr(digits_classifier, "STEPS", 5)
        network = digits_classifier.fit(*few)
    (path,) = (folder / "judges").iterdir()
    return network, path


@partial(jax.jit, static_argnums=0)  # weights are arguments: as constants they take long to compile
def _outputs(apply, variables, images):
    return apply(variables, images, ("features", "logits"))


def apply(judge, images):
    """(features, logits) of images by a fitted network."""
    outputs = _outputs(judge.apply, judge.variables, images)
    return np.asarray(outputs["features"]), np.asarray(outputs["logits"])


def distance(a, b):
    return metrics.frechet_distance(*metrics.moments(a)[:2], *metrics.moments(b)[:2])


def test_accuracy_is_measured_on_the_held_out_images(judge, data):
    network, _ = judge
    _, logits = apply(network, data[2])
    assert network.accuracy == metrics.agreement(logits, data[3])
    assert network.accuracy >= 0.97
    assert network.name == "digits_classifier" and len(network.sha256) == 64


def test_features_and_logits_have_their_shapes(judge, data):
    features, logits = apply(judge[0], data[0][:5])
    assert features.shape == (5, 96) and logits.shape == (5, 10)
    assert features.dtype == logits.dtype == np.float32


def test_batches_do_not_matter(judge, data):
    images = data[2][:7]
    together = apply(judge[0], images)
    alone = [apply(judge[0], image[None]) for image in images]
    singles = [np.concatenate(rows) for rows in zip(*alone, strict=True)]
    for index in (0, 1):  # features, logits
        np.testing.assert_allclose(together[index], singles[index], rtol=1e-5, atol=1e-5)


def test_distances_rank_images_by_quality(judge, data):
    network, _ = judge
    train, labels, test, _ = data
    reals = apply(network, train)[0]
    floor = distance(apply(network, test)[0], reals)
    one_class_lost = distance(reals[labels != 3], reals)
    grain = np.random.default_rng(0).normal(0, 48, train.shape)
    grainy = distance(apply(network, np.clip(train + grain, 0, 255).astype(np.uint8))[0], reals)
    gaussian = distance(apply(network, metrics.pixel_gaussian_samples(train, 1000, seed=0))[0], reals)
    noise = distance(apply(network, metrics.noise_samples(train.shape[1:], 1000, seed=0))[0], reals)
    assert floor < grainy < one_class_lost and 4 * floor < one_class_lost
    assert min(gaussian, noise) > 50 * floor


@pytest.mark.parametrize("resolution", [8, 16, 20, 64])
def test_other_resolutions_are_understood(judge, resolution):
    _, _, images, labels = digits(resolution)
    assert metrics.agreement(apply(judge[0], images)[1], labels) >= 0.95


def test_box_average_at_multiples():
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 32, 1), dtype=np.uint8)
    expected = images.reshape(2, 16, 3, 16, 2, 1).mean(axis=(2, 4)) / 127.5 - 1
    np.testing.assert_allclose(digits_classifier.prepare(images), expected, atol=1e-6)


def test_cache_is_used_and_leaves_no_parts(judge, data, monkeypatch):
    network, folder = judge
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(folder.parent))
    monkeypatch.setattr(digits_classifier, "_train", lambda *_: pytest.fail("fitted again"))
    again = digits_classifier.fit(*data)
    assert again[:5] == network[:5] and again.accuracy == network.accuracy
    images = data[2][:3]
    np.testing.assert_array_equal(apply(again, images)[0], apply(network, images)[0])
    assert [path.suffix for path in folder.iterdir()] == [".npz"]


def test_two_fits_give_the_same_weights(shorter, short, few):
    first, second = short[0], digits_classifier.fit(*few)
    assert first.sha256 == second.sha256 and first.accuracy == second.accuracy


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped", "other"])
def test_damaged_cache_is_rebuilt(damage, shorter, short, few):
    first, path = short[0], shorter / short[1].name
    whole = short[1].read_bytes()
    shorter.mkdir()
    middle = len(whole) // 2
    if damage == "other":
        np.savez(path, sha256="x", accuracy=1.0, weights=np.zeros(3))
    else:
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        damaged = {"cut": whole[:middle], "empty": b"", "text": b"not an archive", "flipped": flipped}
        path.write_bytes(damaged[damage])
    assert digits_classifier.fit(*few).sha256 == first.sha256
    assert list(shorter.iterdir()) == [path]
    with np.load(path) as file:
        assert str(file["sha256"]) == first.sha256


def test_noise_is_met_with_doubt(judge, data):
    real = metrics.confidence(apply(judge[0], data[2])[1])
    noise = metrics.confidence(apply(judge[0], metrics.noise_samples((32, 32, 1), 500, seed=0))[1])
    assert real > 0.95 and noise < 0.7


def test_other_data_and_other_recipes_have_their_own_file(shorter, short, few, monkeypatch):
    shorter.mkdir()
    shutil.copy(short[1], shorter)
    changed = few[0].copy()
    changed[5, 0, 0, 0] += 1
    digits_classifier.fit(changed, *few[1:])
    monkeypatch.setattr(digits_classifier, "RECIPE", "another")
    digits_classifier.fit(*few)
    assert len(list(shorter.iterdir())) == 3


def test_colour_images_have_a_judge_of_their_own(shorter, few):
    train, labels, test, test_labels = few
    colour = [np.repeat(images, 3, axis=-1) for images in (train, test)]
    coloured = digits_classifier.fit(colour[0], labels, colour[1], test_labels)
    assert apply(coloured, colour[1][:2])[0].shape == (2, 96)
    with pytest.raises(UserError, match="fitted on 3 channels and given 1"):
        apply(coloured, test)


def test_wrong_data_is_refused(data):
    train, labels, test, test_labels = data
    with pytest.raises(UserError, match="train images float32"):
        digits_classifier.fit(train.astype(np.float32), labels, test, test_labels)
    with pytest.raises(UserError, match=r"labels \(3,\)"):
        digits_classifier.fit(train, labels, test, test_labels[:3])
    with pytest.raises(UserError, match="1 channels and test images 3"):
        digits_classifier.fit(train, labels, np.repeat(test, 3, -1), test_labels)
    with pytest.raises(UserError, match="0 or more"):
        digits_classifier.fit(train, labels - 1, test, test_labels)
