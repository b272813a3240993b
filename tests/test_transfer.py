"""Runs that start from another run's parameters, with layers of the discriminator frozen."""

import json
import shutil
import zlib

import jax
import numpy as np
import pytest

from gan_jax import config as configs
from gan_jax import folders, optim, parallel, runs
from gan_jax.errors import MissingPathError, UserError
from gan_jax.models import stylegan2
from gan_jax.train import train
from tests import settings

SHAPE = (8, 8, 1)  # of the smoke run's images


def _config(**overrides):
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke")
    overrides = {"evaluation__metrics": "()", "loss__path_length_weight": 0.0, "total_images": 16, **overrides}
    for key, value in overrides.items():
        configs.override(config, key.replace("__", "."), str(value))
    return config


def _moved(state):
    """Every array of its own: averages are not the parameters, the mean of w is not nought."""
    parts = {field: jax.tree_util.tree_map_with_path(
        lambda path, x: x + 0.01 * (1 + zlib.crc32(jax.tree_util.keystr(path).encode()) % 97), getattr(state, field))
        for field in ("params", "variables", "ema")}  # fmt: skip
    return state._replace(**parts)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    make_mesh = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run's folder, which stands for one that has been trained."""
    folder = tmp_path_factory.mktemp("transfer") / "source"
    return folder, settings.fresh_folder(_config(seed=7), folder, _moved)


def _state(folder):
    config, spec, _ = folders.read_folder(folder)
    return folders.restore(runs.build(config, spec), folder, parallel.make_mesh(jax.devices()[:1])).state


def test_a_new_run_starts_from_the_other_one_and_frozen_layers_stay(source, tmp_path, capsys):
    folder, _ = source
    config = _config(transfer__workdir=str(folder), transfer__freeze_layers=3)
    assert train(config, str(tmp_path / "run"))
    count = len(jax.tree.leaves([getattr(_state(folder), field) for field in ("params", "variables", "ema")]))
    assert f"{count} of {count} arrays from {folder}, step 0" in capsys.readouterr().out
    before, after = _state(folder).params["discriminator"], _state(tmp_path / "run").params["discriminator"]
    for path, old in jax.tree_util.tree_leaves_with_path(before):
        new = after
        for key in path:
            new = new[key.key]
        frozen = path[0].key == "b8" and path[1].key in ("fromrgb", "conv0", "conv1")
        assert (np.asarray(old) == np.asarray(new)).all() == frozen, path


def test_every_array_is_taken_over(source):
    folder, _ = source
    run = settings.build(_config(), SHAPE)
    fresh = jax.jit(lambda: runs.init_state(run))()
    state, message = folders.transfer(run, fresh, str(folder), parallel.make_mesh(jax.devices()[:1]))
    theirs = _state(folder)
    for field in ("params", "variables", "ema"):
        pairs = zip(jax.tree_util.tree_leaves_with_path(getattr(state, field)),
                    jax.tree_util.tree_leaves_with_path(getattr(theirs, field)), strict=True)  # fmt: skip
        for (path, ours), (other, copy) in pairs:
            assert path == other and np.array_equal(np.asarray(ours), np.asarray(copy)), (field, path)
    assert "fresh" not in message and int(state.step) == 0


def test_what_does_not_fit_is_fresh_and_told(source):
    folder, _ = source
    config = _config(generator__w_size=6)
    run = settings.build(config, SHAPE)
    mesh = parallel.make_mesh(jax.devices()[:1])
    fresh = jax.jit(lambda: runs.init_state(run))()
    state, message = folders.transfer(run, fresh, str(folder), mesh)
    assert "fresh: generator/mapping_network/fc0/bias, " in message
    other = _state(folder)
    same = lambda a, b: np.array_equal(np.asarray(a), np.asarray(b))  # noqa: E731
    assert all(jax.tree.leaves(jax.tree.map(same, state.params["discriminator"], other.params["discriminator"])))
    size = state.variables["generator"]["w_avg"]["mapping_network"]["w_avg"].shape
    assert size == (6,)


def test_mistakes(source, tmp_path):
    folder, _ = source
    with pytest.raises(MissingPathError, match="give the folder of a run that has trained"):
        train(_config(transfer__workdir=str(tmp_path / "none")), str(tmp_path / "run"))
    with pytest.raises(UserError, match="freeze_layers=99: expected 0 to 4"):
        settings.build(_config(transfer__freeze_layers=99), SHAPE)
    with pytest.raises(UserError, match="freeze_layers=1: 'dcgan' does not name its layers in order"):
        settings.build(settings.digits(transfer__freeze_layers=1))
    with pytest.raises(UserError, match="frozen='b99': no such parameters; there are b4"):
        run = settings.build(_config(optim__discriminator__frozen="b99"), SHAPE)
        jax.eval_shape(lambda: runs.init_state(run))


def _small(**overrides):
    """Few layers; batches of 8."""
    shallow = dict(generator__features="(4,)", generator__strides="(8,)", generator__kernel_size=8,
                   discriminator__features="(4,4)", discriminator__strides="(4,2)", evaluation__metrics="()",
                   total_images=32, every__log_images=24, checkpoints__keep=9)  # fmt: skip
    return settings.digits(**{**shallow, **overrides})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("state") / "source"
    with pytest.MonkeyPatch.context() as patch:
        make_mesh = parallel.make_mesh
        patch.setattr(parallel, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
        train(_small(total_images=16), str(folder))
    return folder


def _whole(folder, step=None):
    config, spec, _ = folders.read_folder(folder)
    restored = folders.restore(runs.build(config, spec), folder, parallel.make_mesh(jax.devices()[:1]), step)
    return jax.tree.map(np.asarray, restored.state)


def _lines(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


def test_a_new_run_goes_on_from_a_whole_state(trained, tmp_path, capsys):
    """By the same settings it is bit for bit the run that was never cut, with its last line."""
    assert train(_small(), str(tmp_path / "uncut"))
    assert train(_small(transfer__state=str(trained)), str(tmp_path / "new"))
    assert f"whole State of {trained}, step 2" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, _whole(tmp_path / "new", 2), _whole(trained))
    ours, uncut = _whole(tmp_path / "new"), _whole(tmp_path / "uncut")
    jax.tree.map(np.testing.assert_array_equal, ours, uncut)
    assert (int(ours.step), int(ours.images)) == (4, 32)
    assert _lines(tmp_path / "new")[-1] == _lines(tmp_path / "uncut")[-1]  # the first tells of steps since the cut
    shutil.rmtree(tmp_path / "new" / "checkpoints" / "4")  # stopped before its end: it needs the other run no more
    shutil.rmtree(tmp_path / "new" / "checkpoints" / "3")
    assert train(_small(transfer__state=str(trained)), str(tmp_path / "new"))
    jax.tree.map(np.testing.assert_array_equal, _whole(tmp_path / "new"), uncut)
    assert "whole State" not in capsys.readouterr().out


@pytest.mark.parametrize(("overrides", "message"), [
    ({"generator__features": "(6,)"}, "arrays of that State are not as this run's; params/generator/"),
    ({"optim__generator__name": "sgd"}, "opt/generator/.* is int32.*, not missing"),
    ({"total_images": 16}, "stands at 16 images, and config.total_images=16 counts them; give more"),
    ({"transfer__workdir": "x"}, "config.transfer.state and config.transfer.workdir are both set"),
])  # fmt: skip
def test_a_state_that_does_not_fit(trained, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(_small(transfer__state=str(trained), **overrides), str(tmp_path / "run"))


def test_the_order_of_the_discriminators_layers():
    """Freeze-D counts from the image on: 1 + 3 layers of the highest resolution, then 3 of each of the next."""
    net = stylegan2.Discriminator(resolution=16)
    assert net.layers() == ("b16/fromrgb", "b16/conv0", "b16/conv1", "b16/skip", "b8/conv0", "b8/conv1", "b8/skip")
    skip = stylegan2.Discriminator(resolution=8, architecture="skip")
    assert skip.layers() == ("b8/fromrgb", "b8/conv0", "b8/conv1")
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), np.zeros((4, 16, 16, 3)), None, train=True))["params"]
    for path in net.layers():
        block, layer = path.split("/")
        assert layer in params[block]


def test_frozen_parameters_stay_under_decay_and_moments():
    """Adam with L2 and decoupled decay: what is frozen stays to the bit, the rest moves as if it were alone."""
    import jax.numpy as jnp

    section = {"name": "adam", "learning_rate": 0.1, "weight_decay": 0.1, "l2": 0.1}
    params = {"net": {"a": {"kernel": jnp.ones(2)}, "b": {"kernel": jnp.asarray([1.0, 2.0])}}}
    alone = {"net": {"b": params["net"]["b"]}}
    ends = []
    for tree, frozen in ((params, ("a",)), (alone, ())):
        player = optim.optimizer({**section, "frozen": frozen}, batch_size=1, total_images=10)
        state = player.init(tree)
        for step in range(3):
            grads = jax.tree.map(lambda x, step=step: x * (step - 0.5), tree)
            updates, state = player.update(grads, state, tree, jnp.int32(step))
            tree = jax.tree.map(jnp.add, tree, updates)
        ends.append(tree["net"])
    np.testing.assert_array_equal(ends[0]["a"]["kernel"], 1.0)
    np.testing.assert_array_equal(ends[0]["b"]["kernel"], ends[1]["b"]["kernel"])
    assert not np.array_equal(ends[1]["b"]["kernel"], [1.0, 2.0])
    with pytest.raises(UserError, match="frozen='b32': expected a tuple of paths"):
        optim.optimizer({**section, "frozen": "b32"}, batch_size=1, total_images=10)


def test_frozen_parameters_do_not_count_in_the_clipped_norm():
    """Adam of the free one alone: as if the frozen one were not there."""
    import jax.numpy as jnp

    section = {"name": "sgd", "learning_rate": 1.0, "clip_norm": 1.0}
    params = {"net": {"a": {"kernel": jnp.ones(2)}, "ab": {"kernel": jnp.ones(2)}}}
    grads = {"net": {"a": {"kernel": jnp.full(2, 50.0)}, "ab": {"kernel": jnp.asarray([3.0, 4.0])}}}
    player = optim.optimizer({**section, "frozen": ("a",)}, batch_size=1, total_images=10)
    updates, _ = player.update(grads, player.init(params), params, jnp.int32(0))
    np.testing.assert_array_equal(updates["net"]["a"]["kernel"], 0.0)
    np.testing.assert_allclose(updates["net"]["ab"]["kernel"], [-0.6, -0.8], rtol=1e-6)
