"""Lowered programs on disk: what they are named after, and that a second start does not trace again."""

import functools
import os
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import flat, lowered, parallel, programs, runs
from gan_jax import step as steps
from tests import settings

SMALL = dict(data__resolution=8, batch_size=8, loss__r1_gamma=0.5, every__penalty_steps=2)


@pytest.fixture
def module(monkeypatch):
    """A loaded module with a function, a class and a constant."""
    module = types.ModuleType("some_game")
    exec("import functools\nLEVEL = 2\nSIDES = [1, 2]\n"
         "def loss(x, scale=3):\n    return [x * y for y in range(scale)]\n"
         "class Net:\n    width = 4\n    @property\n    def size(self):\n        return self.width\n"
         "TABLE = {'relu': (lambda x: x, 1.0)}\ndef made(k):\n    return lambda x: k * x\n"
         "half, scaled = functools.partial(loss, scale=2), made(3)\n", module.__dict__)  # fmt: skip
    for value in vars(module).values():
        if hasattr(value, "__module__"):
            value.__module__ = "some_game"
    monkeypatch.setitem(sys.modules, "some_game", module)
    return module


def _key(*parts):
    return lowered.key_of(*parts, modules=("some_game",))


def test_the_name_is_that_of_the_code_as_it_is_loaded(module, monkeypatch):
    """Another function, default, constant or attribute of a class is another name; a comment is none."""
    before = _key("part")
    assert _key("part") == before and _key("other") != before and lowered.key_of("part", modules=()) != before
    changes = ((module, "LEVEL", 3), (module.Net, "width", 5), (module, "loss", lambda x, scale=3: x),
               (module.Net, "size", property(lambda self: 1)), (module, "TABLE", {"relu": (lambda x: 2 * x, 1.0)}),
               (module, "SIDES", [1, 3]), (module, "half", functools.partial(module.loss, scale=4)),
               (module, "scaled", module.made(4)))  # fmt: skip
    for owner, name, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert _key("part") != before, name
    module.loss.__defaults__ = (4,)
    assert _key("part") != before
    module.loss.__defaults__ = (3,)
    assert _key("part") == before


def test_a_docstring_is_no_part_of_the_name(module):
    """Of a dataclass without one Python writes it, with the address in memory of a default that has no other words."""
    before = _key("part")
    module.Net.__doc__ = f"Net(parent=<object object at {hex(id(module))}>)"
    assert _key("part") == before


def test_shapes_types_and_names_count():
    x = {"a": jax.ShapeDtypeStruct((2,), jnp.float32)}
    of_two = parallel.replicated(settings.mesh(2))
    there = {"a": jax.ShapeDtypeStruct((2,), jnp.float32, sharding=of_two)}
    keys = {_key(there), _key(x), _key({"b": x["a"]}), _key({"a": jax.ShapeDtypeStruct((3,), jnp.float32)}),
            _key({"a": jax.ShapeDtypeStruct((2,), jnp.int32)})}  # fmt: skip
    assert len(keys) == 5


def test_the_source_of_a_module_counts(tmp_path, monkeypatch):
    """So that nothing is forgotten which no walk through objects finds."""
    file = tmp_path / "some_game.py"
    module = types.ModuleType("some_game")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "some_game", module)
    file.write_text("x = 1\n")
    before = _key("part")
    file.write_text("x = 2\n")
    assert _key("part") != before


@pytest.fixture
def traced():
    """Counts how often a function is traced."""
    calls = []

    def function(state, batch):
        calls.append(1)
        return jax.tree.map(lambda x: x + batch["x"].sum(), state), {"sum": batch["x"].sum()}

    return function, calls


@pytest.mark.parametrize("damage", [None, lambda data: b"", lambda data: b"not a program",
                                    lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]])  # fmt: skip
def test_a_second_start_does_not_trace(traced, damage, tmp_path, monkeypatch):
    """Unless its file is damaged: then it is made anew."""
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))
    function, calls = traced
    mesh = settings.mesh(2)
    state = {"w": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=parallel.replicated(mesh))}
    batch = {"x": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=parallel.replicated(mesh))}
    for start in range(2):
        call = lowered.compile_ahead(jax.jit(function), (state, batch), key="some", donate=1)
        placed = parallel.replicate(({"w": np.ones(3, np.float32)}, {"x": np.ones(4, np.float32)}), mesh)
        moved, metrics = call(*placed)
        np.testing.assert_array_equal(moved["w"], [5, 5, 5])
        assert float(metrics["sum"]) == 4 and placed[0]["w"].is_deleted()
        (file,) = (tmp_path / "programs").iterdir()
        whole = file.read_bytes()
        if damage is not None and not start:
            file.write_bytes(damage(whole))
        jax.clear_caches()
    assert len(whole) > 100 and len(calls) == (1 if damage is None else 2)


def test_what_cannot_be_kept_is_compiled_all_the_same(tmp_path, monkeypatch):
    """A callback to the host."""
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))
    seen = []

    def function(state, batch):
        jax.debug.callback(lambda x: seen.append(float(x)), batch["x"])
        return jax.tree.map(lambda x: x + 1, state), {}

    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=parallel.replicated(settings.mesh(1)))
    call = lowered.compile_ahead(jax.jit(function), ({"w": scalar}, {"x": scalar}), key="some")
    moved, _ = call({"w": jnp.float32(1)}, {"x": jnp.float32(5)})
    jax.effects_barrier()
    assert float(moved["w"]) == 2 and seen == [5.0] and not list(tmp_path.rglob("*.stablehlo"))


def test_the_least_used_files_go(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(lowered, "MOST_FILES", 2)
    for number, name in enumerate(("first", "second", "third")):
        lowered._write(name, b"data")
        os.utime(tmp_path / "programs" / f"{name}.stablehlo", (number, number))
    lowered._write("fourth", b"data")
    assert {path.stem for path in (tmp_path / "programs").iterdir()} == {"third", "fourth"}


def _text(**overrides) -> dict[str, tuple[str, str]]:
    """program -> (its name on disk, its StableHLO), of a run of two phases and a lazy penalty."""
    run = settings.build(settings.digits(**{**SMALL, **overrides}), shape=(8, 8, 1))
    mesh = settings.mesh(2)
    calls = programs.Programs(mesh, {}, {}, phases=True)
    state = runs.packed_shapes(run, runs.abstract_state(run, mesh), mesh)
    texts = {}
    for key in calls.keys(run, 0):
        arguments = (state, calls._batch(run, key, {"image": np.zeros((1, 8, 8, 1), np.uint8)}), calls.numbers(run))
        lower = calls.jitted(run, key).lower(*arguments)
        texts[programs.title(key)] = programs._cache_key(run, key, arguments), lower.as_text()
    return texts


def test_numbers_are_inputs():
    """Another seed, rate, weight or half-life is the same program under the same name; other terms are not."""
    plain = _text()
    numbers = dict(seed=5, optim__generator__learning_rate=3e-3, loss__r1_gamma=0.25, ema__half_life_images=77.0,
                   every__log_images=16, grid=2, transfer__state="runs/a")  # fmt: skip
    assert _text(**numbers) == plain
    assert set(plain) == {"discriminator", "penalty", "generator", "finish"}
    warm = _text(optim__generator__warmup_images=50)
    assert warm["generator"] != plain["generator"] and warm["generator"][0] != plain["generator"][0]


def test_numbers_that_are_inputs_count():
    """A step of the same program under other numbers is that of a program made for them."""
    numbers = dict(seed=5, optim__generator__learning_rate=3e-2, loss__r1_gamma=2.0, ema__half_life_images=7.0)
    plain, other = (
        settings.build(settings.digits(**{**SMALL, **overrides}), shape=(8, 8, 1)) for overrides in ({}, numbers)
    )
    step = steps.make_step(plain.phases, plain.optimizers, seed=0, ema=plain.ema)
    mesh = settings.mesh(1)
    state = parallel.replicate(runs.pack(other, runs.fresh_state(other), mesh), mesh)
    hyper = parallel.replicate(
        steps.hyper(other.phases, other.optimizers, seed=other.config.seed, ema=other.ema), mesh
    )
    batch = parallel.shard_batch(settings.random_batch(other, 0), mesh)
    moved, _ = parallel.data_parallel(step, mesh)(state, batch, hyper)
    expected, _ = settings.play(other, count=1)
    assert settings.largest_difference(flat.unpack(jax.device_get(moved)), expected, floor=1e-3) < 1e-4
