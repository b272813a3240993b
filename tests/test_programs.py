"""Several steps in one program, and sets that lie on the devices: the numbers of one step from the host."""

from concurrent import futures

import jax
import numpy as np
import pytest

from gan_jax import cli, logs, parallel, programs, runs
from gan_jax import step as steps
from gan_jax.data import open_dataset
from gan_jax.errors import UserError
from gan_jax.train import train
from tests import settings
from tests.test_step import SGD

LAZY = dict(loss__r1_gamma=0.5, every__penalty_steps=2)
# Few layers, BatchNorm in both players: half the time to compile.
SHALLOW = dict(generator__features="(4,)", generator__strides="(8,)", generator__kernel_size="8",
               discriminator__features="(4, 4)", discriminator__strides="(4, 2)")  # fmt: skip


@pytest.fixture(scope="module")
def single():
    """Seven steps with BatchNorm, labels and an R1 penalty every other step, one at a time."""
    run = settings.build(settings.digits(**SGD, **LAZY, **SHALLOW, batch_size=16, conditional=True), num_classes=10)
    return run, *settings.play(run, count=7)


@pytest.mark.parametrize(("devices", "mode"), [(1, "shard_map"), (2, "shard_map"), (2, "pmap")])
def test_several_steps_in_a_program_are_those_steps(single, devices, mode):
    """One step, then two, of another set of phases each, then four: twice such a pair."""
    run, expected, measured = single
    mesh = parallel.make_mesh(jax.devices()[:devices])
    calls = programs.Programs(mesh, {}, {})
    state = jax.device_put(jax.jit(lambda: runs.init_state(run))(), parallel.replicated(mesh))
    run.config.parallel = mode
    batches = [settings.random_batch(run, number) for number in range(7)]
    averages = logs.Averages()
    for begin, end in ((0, 1), (1, 3), (3, 7)):
        batch = calls.put(run, batches[begin:end])
        state, metrics = calls.of(run, begin, end - begin)(state, batch)
        averages.add(begin + 1, metrics)
    assert int(state.step) == 7 and int(state.images) == 112
    for part in ("params", "variables", "ema"):
        assert settings.largest_difference(getattr(state, part), getattr(expected, part)) < 2e-5, part
    averages.settle()
    for name, (total, count) in averages.sums().items():
        values = [step[name] for step in measured if name in step]
        assert count == len(values) and total == pytest.approx(sum(values), rel=1e-4, abs=1e-6), name
    assert {name for step in measured for name in step} == set(averages.sums())


@pytest.mark.parametrize(("every", "count", "shapes"), [(8, 10, [(1, 1), (1, 7), (1, 1), (1, 1)]),
                                                        (2, 6, [(3, 1), (3, 1)]), (1, 6, [(6, 1)])])  # fmt: skip
def test_neighbours_with_equal_phases_are_one_loop(every, count, shapes):
    """Ten steps of which every eighth has the lazy phase too: the program holds four loops, not ten copies."""
    run = settings.build(settings.digits(loss__r1_gamma=0.5, every__penalty_steps=every, batch_size=8))
    dues = tuple(steps.due(run.phases, step) for step in range(count))
    several = steps.make_steps(dues, run.optimizers, seed=0, ema=run.ema)
    state = jax.eval_shape(lambda: runs.init_state(run))
    mesh = parallel.make_mesh(jax.devices()[:1])
    batch = {"image": jax.ShapeDtypeStruct((count, 1, 8, 32, 32, 1), np.uint8)}
    _, metrics = jax.eval_shape(parallel.data_parallel(several, mesh, several=True), state, batch)
    assert [next(iter(stretch.values())).shape for stretch in metrics] == shapes


def _run(**overrides) -> runs.Run:
    quiet = {f"every__{name}_images": 0 for name in ("sample", "evaluate")}
    every = {"every__log_images": 800, "every__checkpoint_images": 1600}
    return settings.build(settings.digits(batch_size=8, **{**quiet, **every, **overrides}))


def _lengths(run, end: int, step: int = 0) -> list[int]:
    """The lengths of all calls from a step to a number of images."""
    lengths = []
    while step * 8 < end:
        lengths.append(programs.length(run, step, step * 8, end))
        step += lengths[-1]
    assert step * 8 == end
    return lengths


def test_a_call_ends_where_a_step_is_to_be_looked_at():
    """Lines every 100 steps: a call of 8 may end on one, and none hides one in its middle."""
    run = _run(steps_per_call=8)
    lengths = _lengths(run, 8 * 200)
    ends = np.cumsum(lengths)
    assert 100 in ends and 200 in ends and set(lengths) == {1, 8}
    assert lengths.count(8) >= 22


def test_one_step_per_call_and_a_stage_that_ends():
    assert _lengths(_run(), 8 * 5) == [1] * 5
    assert _lengths(_run(steps_per_call=4), 8 * 7) == [4, 1, 1, 1]
    assert _lengths(_run(steps_per_call=4), 8 * 9, step=1) == [4, 4]
    lazy = _run(steps_per_call=4, loss__r1_gamma=1.0, every__penalty_steps=4)
    assert _lengths(lazy, 8 * 9, step=1) == [1, 1, 1, 4, 1]  # resumed off the beat of its phases


@pytest.mark.parametrize(("every", "count", "programs_of_it"), [(4, 8, 1), (8, 4, 2), (6, 4, 3)])
def test_lazy_phases_keep_the_programs_few(every, count, programs_of_it):
    """Calls begin at multiples of gcd(count, cycle), so that few sequences of phases occur."""
    run = _run(steps_per_call=count, loss__r1_gamma=1.0, every__penalty_steps=every, every__log_images=8 * 10**6,
               every__checkpoint_images=8 * 10**6)  # fmt: skip
    begin, seen = 0, set()
    for length in _lengths(run, 8 * 96):
        names = tuple(tuple(phase.name for phase in steps.due(run.phases, begin + i)) for i in range(length))
        seen.add(names)
        begin += length
    assert len({names for names in seen if len(names) > 1}) == programs_of_it


FAST = {"evaluation.metrics": "()", "every.log_images": "32", "every.checkpoint_images": "64",
        "every.sample_images": "0", "every.penalty_steps": "2", "total_images": "160",
        "optim.generator.name": "sgd", "optim.discriminator.name": "sgd"}  # fmt: skip


def _rows(folder, **overrides) -> list[dict]:
    overrides = {**FAST, **{key.replace("__", "."): value for key, value in {**SHALLOW, **overrides}.items()}}
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke", list(overrides.items()))
    assert train(config, str(folder))
    rows = logs.read_lines(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of 20 steps with neither."""
    return _rows(tmp_path_factory.mktemp("programs") / "plain")


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_a_set_on_the_devices_gives_the_same_run(plain, tmp_path, mode):
    for row, expected in zip(_rows(tmp_path / "run", resident_data="True", parallel=mode), plain, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_run_of_several_steps_a_call_is_logged_like_one_and_resumes_with_another_number(plain, tmp_path):
    """Stopped at 96 of 160 images with four steps a call, then on with two, from a set on the devices."""
    folder = tmp_path / "run"
    _rows(folder, steps_per_call="4", total_images="96")
    rows = _rows(folder, steps_per_call="2", resident_data="True")
    assert [row["step"] for row in rows] == [row["step"] for row in plain] == [4, 8, 12, 16, 20]
    for row, expected in zip(rows, plain, strict=True):
        assert row == pytest.approx(expected, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("mode", ["phases", "steps"])
def test_phases_and_steps_are_the_same_run_and_each_goes_on_bit_for_bit(plain, tmp_path, mode):
    """Rounding apart; stopped after 12 of 20 steps and resumed, the last State is that of a run without a break."""
    rows = {}
    for name, ends in (("whole", ("160",)), ("parts", ("96", "160"))):
        for end in ends:
            rows[name] = _rows(tmp_path / name, programs=mode, total_images=end)
    assert rows["whole"] == rows["parts"]
    for row, expected in zip(rows["whole"], plain, strict=True):
        assert row == pytest.approx(expected, rel=2e-3, abs=1e-5)
    digests = [(tmp_path / name / "checkpoints" / "20" / "run" / "metadata").read_text() for name in rows]
    assert digests[0] == digests[1] and "digest" in digests[0]


def test_which_programs_a_run_needs():
    """Phases apart where some are lazy, with the end of a step as a program; else a step for each set that is due."""
    lazy = dict(loss__r1_gamma=1.0, every__penalty_steps=4)
    names = {}
    for name, overrides in {
        "apart": lazy,
        "eager": {},
        "steps": {**lazy, "programs": "steps"},
        "several": {**lazy, "steps_per_call": 4},
        "phases": {"programs": "phases"},
    }.items():
        run = _run(**overrides, every__log_images=10**6, every__checkpoint_images=10**6)
        calls = programs.prepare(run, None, settings.mesh(1))
        names[name] = {programs.title(key) for key in programs.ahead(calls, run, 0, 0, 8 * 40)}
    assert names["apart"] == {"discriminator", "penalty", "generator", "finish"}
    assert names["eager"] == {"a step of discriminator + generator"}
    assert names["steps"] == {"a step of discriminator + penalty + generator", "a step of discriminator + generator"}
    assert names["several"] == {"4 steps"}
    assert names["phases"] == {"discriminator", "generator", "finish"}
    short = _run(**lazy, programs="steps")
    calls = programs.prepare(short, None, settings.mesh(1))
    needed = programs.ahead(calls, short, 1, 8, 24)  # ends before the penalty is due again
    assert {programs.title(key) for key in needed} == {"a step of discriminator + generator"}


def test_programs_are_told_while_they_take_long(monkeypatch):
    """A line when nothing was ready for a while, and one for each that is ready before the others."""
    monkeypatch.setattr(programs, "NEWS_SECONDS", 0.05)
    one, other = futures.Future(), futures.Future()
    compiled, lines = {}, []
    waiting = programs.Compiling(compiled, {one: ("stage", "generator"), other: ("stage", "penalty")})

    def say(line):
        lines.append(line)
        future = one if not one.done() else other
        if not future.done():
            future.set_result(future)

    assert waiting.wait(say) >= 0.05
    assert compiled == {("stage", "generator"): one, ("stage", "penalty"): other}
    first, last = lines[0], lines[-1]
    assert "0 of 2 programs are ready, generator, penalty to come" in first
    assert "1 of 2 programs are ready, penalty to come" in last


@pytest.mark.parametrize("rows", [np.arange(8), np.array([1, 5])])
def test_the_order_holds_the_places_of_the_stream(rows):
    data = open_dataset(name="digits")
    arguments = dict(seed=3, start=1_790, batch_size=8, rows=rows)  # across the end of an epoch
    whole, stream, order = data.packed(), data.stream(**arguments), data.order(**arguments)
    for _ in range(3):
        batch, index = next(stream), next(order)["index"]
        assert index.shape == rows.shape and index.dtype == np.int32
        assert set(batch) == set(whole)
        for name in batch:
            np.testing.assert_array_equal(whole[name][index], batch[name])
    stream.close()
    order.close()


@pytest.mark.parametrize(("flag", "told"), [
    ("steps_per_call=0", "config.steps_per_call=0: expected 1 or more"),
    ("programs=phase", "config.programs='phase': expected one of auto, phases, steps"),
    ("resident_data=True", "config.resident_data=True: mixture:ring8 is no packed set"),
])  # fmt: skip
def test_what_cannot_be_is_told_before_the_run_begins(tmp_path, capfd, flag, told):
    config = f"--config={settings.EXPERIMENTS / 'mixture_gan.py'}"
    assert cli.main(["train", config, f"--workdir={tmp_path / 'run'}", f"--config.{flag}"]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"error: {told}") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_phases_and_several_steps_exclude_each_other():
    run = settings.build(settings.digits(programs="phases", steps_per_call=2))
    with pytest.raises(UserError, match="config.programs='phases' with config.steps_per_call=2"):
        programs.prepare(run, None, settings.mesh(1))


def test_a_set_larger_than_half_of_a_device_is_refused(monkeypatch):
    class Small:
        def memory_stats(self):
            return {"bytes_limit": 2 << 20}

    run = settings.build(settings.digits(resident_data=True))
    data = open_dataset(name="digits")
    monkeypatch.setattr(jax, "local_devices", lambda: [Small()])
    with pytest.raises(UserError, match=r"digits takes 1 MiB on each device, which has 2 MiB; leave it False"):
        programs.prepare(run, data, parallel.make_mesh(jax.devices()[:1]))
