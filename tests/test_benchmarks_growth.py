"""The benchmark of growth: its smoke form, the bytes that it counts, its places, and its plots."""

import argparse
import json
import math

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict
from PIL import Image

from benchmarks import growth
from gan_jax import config as configs
from gan_jax import parallel, runs, specs

SMOKE = argparse.Namespace(smoke=True, batches=(8,), devices=(1, 2))
FULL = argparse.Namespace(smoke=False, batches=(4, 8), devices=(1, 2, 4))


def _parameters(case) -> dict[str, int]:
    """Bytes of each net, without JAX having computed anything."""
    config = configs.complete(ConfigDict(case.config), runs.defaults)
    state = jax.eval_shape(lambda: runs.init_state(runs.build(config, specs.labelled(case.shape, 0))))
    return {net: sum(4 * math.prod(x.shape) for x in jax.tree.leaves(tree)) for net, tree in state.params.items()}


def test_smoke_over_devices_sums_all_gradients(tmp_path, capsys):
    out, plots = tmp_path / "new" / "growth.json", tmp_path / "plots"
    flags = ["--smoke", "--families=dcgan", "--parts=devices", f"--out={out}", f"--plots={plots}"]
    assert growth.main(flags) == 0
    report = json.loads(out.read_text())
    assert report["benchmark"] == "growth" and "Not measured" in report["note"] and list(report["parts"]) == ["devices"]
    points = report["parts"]["devices"]["dcgan"]
    assert [(one["devices"], one["batch"], one["resolution"]) for one in points] == [(1, 8, 8), (2, 8, 8)]
    gradient_bytes = sum(_parameters(growth.case_at("dcgan", 8, 8, smoke=True)).values())
    for one in points:
        assert one["ms_per_step"]["all"] == pytest.approx([8 * one["ms_per_image"]["median"]])
        (program,) = one["programs"].values()
        assert program["steps"] == 2 and program["gradient_bytes"] == gradient_bytes
        # Beside the gradients: moments of BatchNorm and metrics.
        assert gradient_bytes < program["all_reduce_bytes"] == one["all_reduce_bytes_per_step"] < 1.05 * gradient_bytes
    assert points[1]["all_reduce_alone_bytes"] == gradient_bytes
    assert [file.name for file in plots.iterdir()] == ["growth_devices.png"]
    printed = capsys.readouterr().out
    assert growth.NOTE in printed and f"{points[1]['ms_per_image']['median']:.3f}" in printed


def test_bytes_of_all_reduces_are_those_that_are_summed():
    mesh, spec = parallel.make_mesh(jax.devices()[:2]), jax.sharding.PartitionSpec()

    def sums(tree):
        return jax.lax.psum(parallel.vary(tree), parallel.AXIS)

    tree = {"a": jnp.ones((3, 5)), "b": jnp.ones(()), "c": jnp.ones((7,), jnp.int32)}
    step = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=(spec,), out_specs=spec))
    number, size = growth.all_reduces(step.lower(tree).compile().as_text())
    assert 1 <= number <= 3 and size == 4 * (15 + 1 + 7)
    text = "%r = (f32[2,3]{1,0:T(8,128)}, /*index=1*/bf16[4]{0}, f32[]) all-reduce-start(%a, %b, %c), to_apply=%add\n"
    assert growth.all_reduces(text + "%d = f32[9]{0} all-reduce-done(%r)\n") == (1, 24 + 8 + 4)


def test_places_change_one_thing_at_a_time():
    for flags in (SMOKE, FULL):
        for family in growth.FAMILIES:
            for part, column in (("resolution", 0), ("batch", 1), ("devices", 2)):
                columns = list(zip(*growth.places(part, family, flags), strict=True))
                assert all(len(set(values)) == 1 for number, values in enumerate(columns) if number != column)
                assert len(set(columns[column])) == len(columns[column])
    assert [place[0] for place in growth.places("resolution", "stylegan2", FULL)] == [16, 32, 64, 128]
    assert [place[2] for place in growth.places("devices", "dcgan", FULL)] == [1, 2, 4]


def test_cases_are_built_at_every_place():
    for family in growth.FAMILIES:
        for resolution, batch, _ in growth.places("resolution", family, FULL):
            case = growth.case_at(family, resolution, batch)
            assert case.shape == (resolution, resolution, 3) and case.config["batch_size"] == batch
            assert all(size > 0 for size in _parameters(case).values())


def test_plots_of_all_parts(tmp_path):
    def point(part, value):
        spread = {"median": 2.0 * value, "low": 1.5 * value, "high": 2.5 * value}
        keys = dict.fromkeys(("ms_per_image", "ms_per_step", "all_reduce_alone_ms_per_step"), spread)
        return {"resolution": 32, "batch": 8, "devices": 1, part: value, **keys}

    parts = {part: {family: [point(part, value) for value in (8, 16, 32)] for family in ("stylegan2", "dcgan")}
             for part in growth.PARTS}  # fmt: skip
    files = growth.plot(parts, tmp_path / "new")
    assert [file.name for file in files] == [f"growth_{part}.png" for part in growth.PARTS]
    for file in files:
        with Image.open(file) as image:
            assert min(image.size) > 400 and len(image.convert("L").getcolors()) > 2


@pytest.mark.parametrize("flag", ("--parts=colour", "--families=vae", "--batches=6", "--devices=3", "--repeats=0"))
def test_wrong_flags_are_named(flag, capsys):
    assert growth.main([flag, "--out=never.json"]) == 2
    error = capsys.readouterr().err
    assert flag.split("=")[1] in error and error.count("\n") == 1
