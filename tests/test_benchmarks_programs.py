"""The benchmark of programs' sizes: its smoke form, and how operations, instructions and kernels are counted."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import operations, programs

COMPILED = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

FileNames
1 "/somewhere/gan_jax/step.py"
2 "/somewhere/gan_jax/layers/fir.py"

FunctionNames
1 "make_step.<locals>.step"
2 "_polyphase"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=2 function_name_id=2 line=1 end_line=1 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}


%add (x.1: f32[], y.1: f32[]) -> f32[] {
  %x.1 = f32[] parameter(0)
  %y.1 = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%x.1, %y.1)
}

%fused (p.1: f32[8]) -> f32[8] {
  %p.1 = f32[8]{0} parameter(0)
  %c.1 = f32[8]{0} cosine(%p.1), metadata={op_name="jit(step)/generator/jvp(G)/cos" stack_frame_id=1}
  ROOT %s.1 = f32[8]{0} multiply(%c.1, %c.1), metadata={op_name="jit(step)/generator/jvp(G)/mul" stack_frame_id=2}
}

%body (t.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t.1 = (s32[], f32[8]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%t.1), index=0
  %v.1 = f32[8]{0} get-tuple-element(%t.1), index=1
  %w.1 = f32[8]{0} fusion(%v.1), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/x/transpose(jvp(G))/mul"}
  ROOT %u.1 = (s32[], f32[8]{0}) tuple(%i.1, %w.1)
}

%condition (t.2: (s32[], f32[8])) -> pred[] {
  %t.2 = (s32[], f32[8]{0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%t.2), index=0
  %n.1 = s32[] constant(3)
  ROOT %l.1 = pred[] compare(%i.2, %n.1), direction=LT
}

ENTRY %main.1 (a.1: f32[8]) -> f32[8] {
  %a.1 = f32[8]{0} parameter(0)
  %z.1 = s32[] constant(0)
  %k.1 = f32[8]{0} copy(%a.1), metadata={op_name="jit(step)/optimizer_update/copy"}
  %r.1 = f32[8]{0} all-reduce-start(%k.1), to_apply=%add
  %r.2 = f32[8]{0} all-reduce-done(%r.1)
  %q.1 = (s32[], f32[8]{0}) tuple(%z.1, %r.2)
  %h.1 = (s32[], f32[8]{0}) while(%q.1), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %g.1 = f32[8]{0} get-tuple-element(%h.1), index=1
  ROOT %o.1 = f32[8]{0} custom-call(%g.1), custom_call_target="__cudnn$convForward", metadata={stack_frame_id=2}
}
"""


def test_smoke_writes_what_was_counted(tmp_path, capsys):
    out = tmp_path / "results" / "programs.json"
    assert programs.main(["--smoke", f"--out={out}"]) == 0
    report = json.loads(out.read_text())
    assert report["benchmark"] == "programs" and report["settings"]["compiled"]
    phases = report["families"]["gan_mlp"]["smoke"]["phases"]
    assert list(phases) == ["discriminator", "generator", "finish"]
    printed = capsys.readouterr().out
    for name, result in phases.items():
        assert name in printed
        for count in programs.COUNTS:
            total = result[count]["all"]
            assert sum(result[count]["scopes"].values()) == sum(result[count]["kinds"].values()) == total > 0
            assert str(total) in printed
        for part in programs.PARTS:
            assert all(result["seconds"][part][clock]["median"] > 0 for clock in ("wall", "cpu"))
        if name == "finish":  # averages alone
            assert {"running average"} <= result["operations"]["scopes"].keys()
            continue
        assert result["operations_with_calls_expanded"] > 0.9 * result["operations"]["all"]  # a call is one operation
        assert {"random draws", "optimizer", "networks backward"} <= result["operations"]["scopes"].keys()
        assert result["kernels"]["all"] <= min(result["instructions"]["all"], result["kernels_started_in_a_call"])
    assert "penalty" in phases["discriminator"]["operations"]["scopes"]  # R1
    assert "penalty" not in phases["generator"]["operations"]["scopes"]


def test_operations_are_counted_as_written_and_with_calls_expanded():
    once = jax.jit(lambda x: jnp.sin(x) * 2)  # sine, constant, broadcast, multiply

    def twice(x):
        return once(once(x)) + jax.lax.reduce(x, 0.0, jax.lax.add, (0,))  # 2 calls, constant, reduce, its add; +: 2

    count, expanded = operations.lowered(jax.jit(twice).lower(jnp.ones(3)).compiler_ir("stablehlo"))
    assert count.kinds == {"add": 2, "constant": 2, "broadcast_in_dim": 2, "func.call": 2, "sine": 1, "multiply": 1,
                           "reduce": 1}  # fmt: skip
    assert count.all == 11 and expanded == 11 - 2 + 4 and count.scopes == {"other": 11}


def test_kernels_are_what_a_call_starts_and_loops_turn_as_often_as_is_known():
    instructions, kernels, started = operations.compiled(COMPILED)
    kinds = "add", "cosine", "multiply", "fusion", "compare", "copy", "while", "custom-call"
    assert instructions.kinds == dict.fromkeys((*kinds, "all-reduce-start", "all-reduce-done"), 1)
    kinds = "kLoop fusion", "compare", "copy", "all-reduce-start", "__cudnn$convForward"
    assert kernels.kinds == dict.fromkeys(kinds, 1)
    assert started == 3 * 2 + 3
    assert kernels.scopes["networks backward"] == 2  # the fusion, and the condition by the loop that holds both
    assert kernels.scopes["resampling"] == 1 and kernels.scopes["optimizer"] == 2
    assert instructions.scopes["networks forward"] == 1 and instructions.scopes["resampling"] == 2


@pytest.mark.parametrize(
    "expected, path, frames",
    (
        ("networks forward", "jit(step)/generator/jvp(Generator)/b8/conv0/mul", ("conv@/x/gan_jax/layers/conv.py",)),
        ("networks backward", "jit(step)/generator/transpose(jvp(Generator))/b8/conv0/mul", ()),
        ("penalty", "jit(step)/penalty/jvp(transpose(jvp(Discriminator)))/b8/mul", ()),
        ("penalty", "jit(step)/penalty/transpose(jvp(vmap(jvp(Discriminator))))/b8/mul", ()),
        ("penalty", "jit(step)/penalty/jvp()/mul", ("r1@/x/gan_jax/penalties.py",)),
        ("resampling", "jit(step)/penalty/jvp(jvp(D))/mul", ("_polyphase@/x/gan_jax/layers/fir.py",)),
        ("resampling", "jit(step)/d/jvp(D)/mul", ("upscale@/x/gan_jax/layers/rescale.py",)),
        ("networks forward", "jit(step)/d/jvp(D)/mul", ("ScaledConv.__call__@/x/gan_jax/layers/rescale.py",)),
        ("fewer products", "jit(step)/d/jvp(D)/fewer_products/jit(_conv)/dot", ("_combined@/x/layers/winograd.py",)),
        ("fewer products", "jit(step)/d/transpose(d)/jvp(D)/fewer_products/while", ("conv@/x/layers/conv.py",)),
        ("networks backward", "jit(step)/d/transpose(d)/jvp(D)/add", ("conv@/x/layers/conv.py",)),
        ("random draws", "jit(step)/generator/jvp(vmap(jit(_normal)))/jit(_uniform)/vmap()/while/body/xor", ()),
        ("optimizer", "jit(step)/generator/optimizer_update/add", ("descend@/x/gan_jax/step.py",)),
        ("norms and checks", "jit(step)/d/optimizer_update/reduce_sum", ("global_norm@/x/gan_jax/optim.py",)),
        ("running average", "jit(step)/running_average/sub", ("ema_update.<locals>.lerp@/x/gan_jax/optim.py",)),
        ("means over devices", "jit(step)/d/div", ("mean.<locals>.average@/x/gan_jax/parallel.py",)),
        ("", "squeeze", ("conv@/x/gan_jax/layers/conv.py", "r1@/x/gan_jax/penalties.py")),  # in a function: its call's
        ("", "jit(step)/add", ("step@/x/gan_jax/step.py",)),
    ),
)
def test_scopes(expected, path, frames):
    assert operations.scope(path, frames) == expected


def test_every_family_has_both_forms():
    for forms in programs.FAMILIES.values():
        assert tuple(forms) == programs.FORMS
        for form in forms.values():
            assert (programs.ROOT / "experiments" / form.experiment.partition(":")[0]).is_file()


@pytest.mark.parametrize("flag", ("--families=vae", "--forms=tiny", "--platform=tpu", "--repeats=0"))
def test_wrong_flags_are_named(flag, capsys):
    assert programs.main([flag, "--out=never.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and flag in error
