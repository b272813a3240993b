"""Checkpoints: what they hold, which of them stay, and what happens when one of them is damaged."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import checkpoint, digests, parallel, runs
from gan_jax.errors import DivergedError, MissingPathError, UserError
from tests import settings


@pytest.fixture(scope="module")
def run():
    return settings.build(settings.digits(batch_size=8, **settings_of_sgd()))


def settings_of_sgd():
    """Adam turns rounding into whole steps; these runs are compared between numbers of devices."""
    players = ("generator", "discriminator")
    return {f"optim__{p}__{k}": v for p in players for k, v in (("name", "sgd"), ("learning_rate", 0.01))}


@pytest.fixture(scope="module")
def state(run):
    return settings.play(run, count=1)[0]


@pytest.fixture(scope="module")
def saved(run, state, tmp_path_factory):
    """A folder with the steps 1, 2 and 3, to be copied by the tests that damage it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    manager = checkpoint.open_manager(folder, keep=3)
    with checkpoint.closing(manager):
        for step in (1, 2, 3):
            save(manager, at(state, step))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def at(state, step: int):
    """The state, put on a device, called that of another step."""
    return jax.device_put(state._replace(step=np.int32(step)), jax.devices()[0])


def save(manager, state, metric=None):
    checkpoint.save(manager, state, {"position": 8 * int(state.step)})
    if metric is not None:
        named_metric = metric if isinstance(metric, tuple) else ("", metric)
        checkpoint.attach(manager, int(state.step), [], named_metric)


def steps_in(folder) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def abstract(run, devices: int = 1):
    return runs.abstract_state(run, parallel.make_mesh(jax.devices()[:devices]))


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


TREES = {
    "float32": np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6),
    "bfloat16": jnp.linspace(-1, 1, 7, dtype=jnp.bfloat16),
    "int32": np.arange(5, dtype=np.int32),
    "uint8": np.arange(9, dtype=np.uint8),
    "bool": np.array([True, False, True, True]),
    "scalar": np.float32(3.0),
}


def sealed(value) -> str:
    return digests.digest({"x": jnp.asarray(value), "y": jnp.zeros(3)})


@pytest.mark.parametrize("name", TREES)
def test_digest_sees_every_flipped_bit(name):
    value = np.atleast_1d(np.asarray(TREES[name]))
    seen = {sealed(value)}
    raw = value.tobytes()
    bits = range(0, 8 * len(raw), 8 if name == "bool" else 1 if len(raw) < 16 else 7)
    for bit in bits:
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        seen.add(sealed(np.frombuffer(bytes(changed), value.dtype).reshape(value.shape)))
    assert len(seen) == 1 + len(bits)


def test_digest_sees_order_place_shape_type_and_companions():
    x = np.array([1.0, -1.0, 2.0, 2.5], np.float32)
    others = [sealed(x[[1, 0, 2, 3]]), sealed(x[[0, 1, 3, 2]]), sealed(x[::-1]), sealed(x.reshape(2, 2))]
    others += [sealed(x.view(np.int32)), sealed(np.zeros(4, np.float32)), sealed(-np.zeros(4, np.float32))]
    others += [digests.digest({"x": jnp.asarray(x), "z": jnp.zeros(3)})]
    others += [digests.digest({"y": jnp.asarray(x), "x": jnp.zeros(3)})]
    assert len({sealed(x), *others}) == 1 + len(others)
    assert sealed(x) == sealed(x.copy())
    tree = {"x": jnp.asarray(x)}
    assert digests.digest(tree, {"a": 1, "b": [0.1, 2]}) == digests.digest(tree, {"b": (0.1, 2), "a": 1})
    assert digests.digest(tree, {"a": 1}) != digests.digest(tree, {"a": 2}) != digests.digest(tree)


def test_digest_does_not_depend_on_the_number_of_devices(state):
    everywhere = jax.device_put(state, parallel.replicated(parallel.make_mesh()))
    assert digests.digest(everywhere) == digests.digest(at(state, int(state.step)))


def test_saved_state_is_that_of_its_step_though_training_donates_it(run, tmp_path):
    """Each save is followed at once by steps that take over the saved buffers."""
    from gan_jax import step as steps

    mesh = parallel.make_mesh(jax.devices()[:2])
    program = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
    state = jax.device_put(jax.jit(lambda: runs.init_state(run))(), parallel.replicated(mesh))
    batches = [parallel.shard_batch(settings.random_batch(run, number), mesh) for number in range(4)]
    manager = checkpoint.open_manager(tmp_path / "checkpoints", keep=10)
    copies = {}
    with checkpoint.closing(manager):
        for number in range(12):
            state, _ = program(state, batches[number % 4])
            if number % 3 == 0:
                copies[number + 1] = jax.tree.map(np.array, state)
                save(manager, state)
    reader = checkpoint.open_manager(tmp_path / "checkpoints", read_only=True)
    assert sorted(copies) == list(reader.all_steps()) == [1, 4, 7, 10]
    for step, copy in copies.items():
        assert_equal(checkpoint.restore(reader, step, abstract(run))[0], copy)


@pytest.mark.parametrize(("lower", "metrics", "kept"), [
    (True, [3.0, 1.0, 2.0, None, 5.0, 4.0], [2, 5, 6]),
    (False, [3.0, 9.0, 2.0, None, 5.0, 4.0], [2, 5, 6]),
    (True, [None, 2.0, float("nan"), 1.0, 7.0, 7.0], [4, 5, 6]),
    (True, [None] * 6, [5, 6]),
])  # fmt: skip
def test_newest_and_best_are_kept_over_a_restart(state, tmp_path, lower, metrics, kept):
    folder = tmp_path / "checkpoints"
    for numbers in ((1, 2, 3), (4, 5, 6)):
        manager = checkpoint.open_manager(folder, keep=2, lower_is_better=lower)
        with checkpoint.closing(manager):
            for number in numbers:
                save(manager, at(state, number), metrics[number - 1])
    assert steps_in(folder) == kept


def test_the_best_is_found_among_what_is_kept(state, tmp_path):
    """Of equals the newest; of values by another name, and of steps that nobody measured, none."""
    manager = checkpoint.open_manager(tmp_path / "checkpoints", keep=6)
    with checkpoint.closing(manager):
        for step, metric in enumerate((4.0, 2.0, ("old", 1.0), 2.0, 8.0, None), 1):
            save(manager, at(state, step), metric)
    reading = checkpoint.open_manager(tmp_path / "checkpoints", read_only=True)
    assert checkpoint.best(reading, "") == (4, 2.0) and checkpoint.best(reading, "", False) == (5, 8.0)
    assert checkpoint.best(reading, "old", False) == (3, 1.0) and checkpoint.best(reading, "new") is None


def test_the_best_by_another_metric_is_not_kept(state, tmp_path):
    """The smallest value is of a metric that the run measured before; only the present one's best counts."""
    for metric, numbers in (("old", (1, 2)), ("new", (3, 4, 5))):
        manager = checkpoint.open_manager(tmp_path / "checkpoints", keep=1, metric=metric)
        with checkpoint.closing(manager):
            for number in numbers:
                save(manager, at(state, number), (metric, float(number)))
    assert steps_in(tmp_path / "checkpoints") == [3, 5]


def test_a_saved_step_is_left_alone_and_an_unfinished_save_is_cleaned_up(folder, state):
    (folder / "9.orbax-checkpoint-tmp").mkdir()
    before = (folder / "3" / "run" / "metadata").stat().st_mtime_ns
    manager = checkpoint.open_manager(folder, keep=4)
    with checkpoint.closing(manager):
        save(manager, at(state, 3))
        save(manager, at(state, 4))
    assert (folder / "3" / "run" / "metadata").stat().st_mtime_ns == before
    assert steps_in(folder) == [1, 2, 3, 4] and not (folder / "9.orbax-checkpoint-tmp").exists()


def _newest_files(folder):
    """The files of the newest checkpoint that hold its contents, by their place in it."""
    inside = folder / "3"
    arrays = max((inside / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    return [arrays, inside / "state" / "manifest.ocdbt", inside / "state" / "_METADATA", inside / "run" / "metadata"]


def _flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "truncated": _truncate,
    "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size)),
    "empty": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("place", range(4))
def test_a_damaged_file_is_reported_and_the_one_before_is_used(run, state, folder, damage, place, capfd):
    DAMAGE[damage](_newest_files(folder)[place])
    restored = checkpoint.restore_newest(checkpoint.open_manager(folder, read_only=True), abstract(run))
    assert restored.step == 2 and restored.run["position"] == 16
    assert_equal(restored.state, at(state, 2))
    assert len(restored.broken) == 1 and f"{folder}/3: this checkpoint cannot be read" in restored.broken[0]
    assert "\n" not in restored.broken[0]
    assert steps_in(folder) == [1, 2, 3], "reading moves nothing"
    assert "Traceback" not in capfd.readouterr().err


def test_a_flipped_byte_in_any_file_never_changes_what_is_restored(run, state, folder):
    """Files that are not read may be damaged unseen; what comes back is a whole checkpoint all the same."""
    outcomes = set()
    for path in sorted(path for path in (folder / "3").rglob("*") if path.is_file() and path.stat().st_size):
        raw = path.read_bytes()
        _flip(path)
        restored = checkpoint.restore_newest(checkpoint.open_manager(folder, read_only=True), abstract(run))
        assert restored.run["position"] == 8 * restored.step
        assert_equal(restored.state, at(state, restored.step))
        outcomes.add((restored.step, len(restored.broken)))
        path.write_bytes(raw)
    assert outcomes == {(2, 1), (3, 0)}


def test_companions_are_sealed_too(run, folder):
    path = folder / "3" / "run" / "metadata"
    path.write_text(path.read_text().replace('"position": 24', '"position": 16'))
    restored = checkpoint.restore_newest(checkpoint.open_manager(folder, read_only=True), abstract(run))
    assert restored.step == 2 and "not what was saved" in restored.broken[0]


def test_broken_ones_are_moved_and_training_goes_on(run, state, folder):
    shutil.rmtree(folder / "3" / "state")
    (folder / "4").mkdir()
    manager = checkpoint.open_manager(folder, keep=3)
    with checkpoint.closing(manager):
        restored = checkpoint.restore_newest(manager, abstract(run))
        assert restored.step == 2 and len(restored.broken) == 2
        checkpoint.set_aside(manager, restored.step)
        assert steps_in(folder) == [1, 2]
        save(manager, at(state, 3))
    aside = folder.parent / "broken_checkpoints"
    assert sorted(path.name for path in aside.iterdir()) == ["3", "4"] and (aside / "3" / "run").is_dir()
    assert steps_in(folder) == [1, 2, 3]
    assert checkpoint.restore_newest(checkpoint.open_manager(folder), abstract(run)).step == 3


def test_a_second_broken_one_of_a_step_does_not_replace_the_first(state, folder):
    for _ in range(3):
        (folder / "7").mkdir(exist_ok=True)
        manager = checkpoint.open_manager(folder, keep=3)
        with checkpoint.closing(manager):
            checkpoint.set_aside(manager, 3)
    assert sorted(path.name for path in (folder.parent / "broken_checkpoints").iterdir()) == ["7", "7.1", "7.2"]


def test_a_damaged_best_one_only_ceases_to_be_the_best(run, state, tmp_path):
    folder = tmp_path / "checkpoints"
    for numbers, metrics in (((1, 2), (1.0, 2.0)), ((3, 4, 5), (3.0, 4.0, 5.0))):
        manager = checkpoint.open_manager(folder, keep=1)
        with checkpoint.closing(manager):
            for number, metric in zip(numbers, metrics, strict=True):
                save(manager, at(state, number), metric)
        if 1 in numbers:
            (folder / "1" / "evaluation.json").write_bytes(b"\xff{")
    assert steps_in(folder) == [2, 5]


def test_metrics_that_were_saved_beside_the_state_still_count(state, tmp_path):
    """Earlier versions measured before they saved."""
    manager = checkpoint.open_manager(tmp_path / "checkpoints", keep=1)
    with checkpoint.closing(manager):
        for step, value in enumerate((1.0, 2.0), 1):
            checkpoint.save(manager, at(state, step), {"position": 8 * step, "metric": ["", value]})
        save(manager, at(state, 3), 3.0)
    assert steps_in(tmp_path / "checkpoints") == [1, 3] and checkpoint.best(manager, "") == (1, 1.0)


def test_what_was_measured_is_there_whole_or_not_at_all(state, folder, run):
    rows = [{"metric": "fd", "value": 2.5, "std": float("nan")}, {"metric": "kd", "value": None}]
    manager = checkpoint.open_manager(folder, keep=4)
    with checkpoint.closing(manager):
        save(manager, at(state, 4))
        checkpoint.attach(manager, 4, rows, None)
        assert checkpoint.evaluation(manager, 3) is None
    reader = checkpoint.open_manager(folder, read_only=True)
    assert json.dumps(checkpoint.evaluation(reader, 4)) == json.dumps(rows) and checkpoint.best(reader, "") is None
    assert checkpoint.restore_newest(reader, abstract(run)).step == 4
    _truncate(folder / "4" / "evaluation.json")
    assert checkpoint.evaluation(reader, 4) is None and checkpoint.restore_newest(reader, abstract(run)).step == 4


def test_nothing_readable_is_an_error_and_nothing_is_deleted(run, folder):
    for step in (1, 2, 3):
        (folder / str(step) / "run" / "metadata").write_bytes(b"\x00garbage")
    manager = checkpoint.open_manager(folder, keep=3)
    with pytest.raises(UserError, match="(?s)/3: this.*/2: this.*/1: this.*No checkpoint of this run can be read"):
        checkpoint.restore_newest(manager, abstract(run))
    assert steps_in(folder) == [1, 2, 3] and not (folder.parent / "broken_checkpoints").exists()


def test_no_checkpoints_and_a_step_that_is_not_there(run, folder, tmp_path):
    with pytest.raises(MissingPathError, match="no checkpoints here; give the --workdir"):
        checkpoint.open_manager(tmp_path / "none" / "checkpoints", read_only=True)
    (tmp_path / "empty").mkdir()
    assert checkpoint.restore_newest(checkpoint.open_manager(tmp_path / "empty", read_only=True), abstract(run)) is None
    with pytest.raises(UserError, match="no checkpoint of step 8; there are 1, 2, 3"):
        checkpoint.restore(checkpoint.open_manager(folder, read_only=True), 8, abstract(run))
    with pytest.raises(UserError, match="config.checkpoints.keep=0"):
        checkpoint.open_manager(folder, keep=0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="checkpoints cannot be kept here"):
        checkpoint.open_manager(tmp_path / "file")


def test_a_state_of_another_shape_is_an_error(folder):
    other = settings.build(settings.digits(generator__width=8))
    with pytest.raises(UserError, match="/3: this checkpoint cannot be read"):
        checkpoint.restore(checkpoint.open_manager(folder, read_only=True), 3, abstract(other))


@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_goes_on_with_another_number_of_devices(run, tmp_path, devices):
    """Saved on eight devices, restored on fewer: the state is equal, and three steps on it agrees with eight's."""
    begun, _ = settings.play(run, count=2, devices=8)
    manager = checkpoint.open_manager(tmp_path / "checkpoints")
    with checkpoint.closing(manager):
        save(manager, jax.device_put(begun, parallel.replicated(parallel.make_mesh())))
    reader = checkpoint.open_manager(tmp_path / "checkpoints", read_only=True)
    restored = checkpoint.restore_newest(reader, abstract(run, devices)).state
    assert_equal(restored, begun)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored)} == {devices}
    batches = [settings.random_batch(run, number) for number in (2, 3, 4)]
    whole, _ = settings.play(run, count=3, devices=8, state=begun, batches=batches)
    other, _ = settings.play(run, count=3, devices=devices, state=restored, batches=batches)
    assert int(other.step) == 5
    assert settings.largest_difference(whole.params, other.params) < 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_poisoned_state_is_never_saved(state, folder, value):
    bad = at(state, 4)
    variables = jax.tree.map(lambda x: x.at[0].set(value), bad.variables)
    manager = checkpoint.open_manager(folder, keep=3)
    with pytest.raises(DivergedError, match=r"step 4: .variables.*is NaN or infinite, and \d+ more"):
        save(manager, bad._replace(variables=variables))
    manager.wait_until_finished()
    assert steps_in(folder) == [1, 2, 3]


def test_a_save_that_fails_names_the_last_complete_checkpoint(state, folder, monkeypatch, capfd):
    """The disk is full while a background thread writes: the next save, or the end, tells."""
    import orbax.checkpoint as ocp

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    manager = checkpoint.open_manager(folder, keep=3)
    handler = ocp.StandardCheckpointHandler
    with monkeypatch.context() as patch, pytest.raises(UserError) as error, checkpoint.closing(manager):
        patch.setattr(handler, "finalize", full)
        save(manager, at(state, 4))
    assert "No space left on device; the checkpoint of step 3 is complete. Make room" in str(error.value)
    assert steps_in(folder) == [1, 2, 3]
    manager = checkpoint.open_manager(folder, keep=3)
    with checkpoint.closing(manager):
        save(manager, at(state, 4))
    assert steps_in(folder) == [2, 3, 4]
    assert "Traceback" not in capfd.readouterr().err


def test_the_step_whose_save_failed_is_named_and_its_watch_is_told(state, folder, monkeypatch):
    """Not the step of the save at which it shows."""
    import orbax.checkpoint as ocp

    def broken(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    errors = []
    manager = checkpoint.open_manager(folder, keep=3)
    checkpoint._tell_of_failures(manager, errors.append)
    monkeypatch.setattr(ocp.StandardCheckpointHandler, "finalize", broken)
    save(manager, at(state, 4))
    with pytest.raises(UserError) as error:
        save(manager, at(state, 5))
    expected = "the checkpoint of step 4 could not be written: [Errno 30] Read-only file system; the checkpoint of step"
    assert expected in str(error.value) and [str(one) for one in errors] == [str(error.value)]


def test_a_save_that_another_process_leaves_is_no_full_disk(state, folder, monkeypatch):
    manager = checkpoint.open_manager(folder, keep=3)

    def left(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("Gloo AllGather failed: Connection reset by peer")

    monkeypatch.setattr(manager, "save", left)
    with pytest.raises(UserError, match="step 4 could not be written.*could not end it together") as error:
        save(manager, at(state, 4))
    assert "Make room" not in str(error.value) and "the checkpoint of step 3 is complete" in str(error.value)


def test_an_error_of_the_block_is_told_and_its_save_completes(state, folder):
    manager = checkpoint.open_manager(folder, keep=4)
    with pytest.raises(KeyError, match="mine"), checkpoint.closing(manager):
        save(manager, at(state, 4))
        raise KeyError("mine")
    assert steps_in(folder) == [1, 2, 3, 4]
