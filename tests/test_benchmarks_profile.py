"""The profile of a step: its smoke form, phases and kinds of a program's text, and how time is shared out."""

import json

import pytest

from benchmarks import instructions, step_profile
from benchmarks.instructions import KINDS, NO_PHASE, Event
from benchmarks.step_profile import InstructionTime

PROGRAM = """
HloModule jit_g__d, is_scheduled=true

%adder (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.9 = f32[] add(%a, %b), metadata={op_name="reduce_sum"}
}

%inner (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %mul.1 = f32[8]{0} multiply(%p, %p), metadata={op_name="jit(g__d)/d/mul"}
}

%moved (p.1: f32[8]) -> f32[8] {
  %p.1 = f32[8]{0} parameter(0)
  %t.1 = f32[8]{0} transpose(%p.1), dimensions={0}, metadata={op_name="jit(g__d)/d/transpose"}
  ROOT %c.1 = f32[8]{0} copy(%t.1)
}

%multiplied (p.2: f32[8,8]) -> f32[8,8] {
  %p.2 = f32[8,8]{1,0} parameter(0)
  %dot.1 = f32[8,8]{1,0} dot(%p.2, %p.2), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %m.2 = f32[8,8]{1,0} multiply(%dot.1, %dot.1), metadata={op_name="jit(g__d)/g/jvp(Net)/mul"}
}

%body (s: (f32[8], s32[])) -> (f32[8], s32[]) {
  %s = (f32[8]{0}, s32[]) parameter(0)
  %item = f32[8]{0} get-tuple-element(%s), index=0
  %negate.1 = f32[8]{0} negate(%item)
  ROOT %pair = (f32[8]{0}, s32[]) tuple(%negate.1, %item)
}

ENTRY %main (x: f32[8], w: f32[8,8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %w = f32[8,8]{1,0} parameter(1)
  %conv.3 = f32[8,8]{1,0} convolution(%w, %w), window={size=1}, dim_labels=b0f_0io->b0f, metadata={op_name="jit(g__d)/g/transpose(g)/jvp(Net)/conv" stack_frame_id=3}
  %fusion.1 = f32[8]{0} fusion(%x), kind=kLoop, calls=%inner
  %fusion.2 = f32[8]{0} fusion(%x), kind=kLoop, calls=%moved, metadata={op_name="jit(g__d)/d/transpose"}
  %fusion.3 = f32[8,8]{1,0} fusion(%conv.3), kind=kOutput, calls=%multiplied, metadata={op_name="jit(g__d)/g/jvp(Net)/mul"}
  %copy.4 = f32[8,8]{1,0} copy(%fusion.3)
  %gemm = (f32[8,8]{1,0}, s8[4]{0}) custom-call(%w, %w), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(g__d)/d/dot_general"}
  %cudnn = (f32[8,8]{1,0}, /*index=1*/u8[0]{0}) custom-call(%w, %w), custom_call_target="__cudnn$convForward", metadata={op_name="jit(g__d)/d/conv"}
  %sum.1 = f32[] reduce(%x, %x), dimensions={0}, to_apply=%adder, metadata={op_name="jit(g__d)/d/reduce_sum"}
  %draw.1 = f32[8]{0} xor(%x, %x), metadata={op_name="jit(g__d)/g/vmap(jit(_normal))/threefry2x32"}
  %all-reduce.7 = (f32[8]{0}, f32[]) all-reduce(%x, %sum.1), to_apply=%adder, metadata={op_name="jit(g__d)/shard_map/(d/psum:g/psum)"}
  %adam = f32[8]{0} sqrt(%x), metadata={op_name="jit(g__d)/d/optimizer_update/sqrt"}
  %ema = f32[8]{0} multiply(%x, %x), metadata={op_name="jit(g__d)/running_average/mul"}
  %loop = (f32[8]{0}, s32[]) while(%pair0), condition=%adder, body=%body, metadata={op_name="jit(g__d)/d/while"}
  ROOT %lonely = f32[8]{0} negate(%nothing)
}
"""  # noqa: E501


def test_phases_and_kinds_are_read_from_a_program():
    by_name = instructions.instructions(PROGRAM, ("g", "d"))
    assert {name: (one.phase, one.kind) for name, one in by_name.items() if name in EXPECTED} == EXPECTED
    assert by_name["conv.3"].path == "jit(g__d)/g/transpose(g)/jvp(Net)/conv"


EXPECTED = {
    "conv.3": ("g", "convolution"),
    "fusion.1": ("d", "elementwise"),  # its phase is that of what it fuses
    "fusion.2": ("d", "copy"),
    "fusion.3": ("g", "matrix product"),
    "copy.4": ("g", "copy"),  # the phase of its operand
    "gemm": ("d", "matrix product"),
    "cudnn": ("d", "convolution"),
    "sum.1": ("d", "reduction"),
    "draw.1": ("g", "random draws"),
    "all-reduce.7": ("d", "collective"),
    "adam": ("d", "optimizer update"),
    "ema": (NO_PHASE, "optimizer update"),
    "loop": ("d", "other"),
    "negate.1": ("d", "elementwise"),  # that of the loop around it
    "lonely": (NO_PHASE, "elementwise"),
}


def test_every_moment_is_shared_by_what_runs_in_it():
    ran = [Event(0, 10, "m", "a.1"), Event(4, 10, "m", "b.1"), Event(12, 20, "m", "while.2"), Event(14, 18, "m", "c"),
           Event(30, 34, "m", "a.1"), Event(30, 34, "other", "a.1")]  # fmt: skip
    seconds = instructions.share_out(ran)
    expected = {("m", "a.1"): 4 + 3 + 2, ("m", "b.1"): 3, ("m", "while.2"): 2 + 2, ("m", "c"): 4, ("other", "a.1"): 2}
    assert seconds == {key: pytest.approx(1e-9 * value) for key, value in expected.items()}


class _Line:
    """An event as `jax.profiler.ProfileData` gives it."""

    def __init__(self, name, start, duration, **stats):
        self.name, self.start_ns, self.duration_ns, self.stats = name, start, duration, list(stats.items())


def test_an_asynchronous_instruction_lasts_until_its_end():
    first = instructions.line_events([
        _Line("conv.1", 10, 2, hlo_op="conv.1", hlo_module="jit_g(7)", _p=5),
        _Line("conv.1", 40, 3, hlo_op="conv.1", hlo_module="jit_g", _p=6),
        _Line("ThunkExecutor::Execute", 0, 99),
    ])  # fmt: skip
    second = instructions.line_events([_Line("end: conv.1", 30, 1, _c=5), _Line("end: conv.1", 42, 0, _c=6)])
    assert instructions._with_ends([*first, *second]) == [Event(10, 30, "jit_g", "conv.1"),
                                                          Event(40, 43, "jit_g", "conv.1")]  # fmt: skip


def test_a_table_sums_up():
    times = [InstructionTime(0.004, "g", "a", "g", "copy", ""), InstructionTime(0.002, "g", "b", "g", "copy", ""),
             InstructionTime(0.001, "g+d", "a", "d", "convolution", "")]  # fmt: skip
    table = step_profile.table(times, ("g", "d"), wall=0.014, steps=2)
    assert table["ms_per_step"]["g"]["copy"] == pytest.approx(3.0)
    assert table["ms_per_step"]["d"]["convolution"] == pytest.approx(0.5)
    assert table["total_ms_per_step"] == pytest.approx(3.5) and table["accounted_share_of_wall"] == pytest.approx(0.5)
    assert [one["instruction"] for one in table["instructions"]] == ["a", "b", "a"]


def test_smoke_accounts_for_the_step(tmp_path, capsys):
    out = tmp_path / "new" / "profile.json"
    assert step_profile.main(["--models=dcgan_32", "--smoke", f"--out={out}"]) == 0
    report = json.loads(out.read_text())
    assert report["benchmark"] == "step_profile" and report["settings"]["smoke"]
    case = report["models"]["dcgan_32"]
    sums = case["ms_per_step"]
    assert list(sums) == ["discriminator", "generator", NO_PHASE] and all(tuple(row) == KINDS for row in sums.values())
    assert sum(value for row in sums.values() for value in row.values()) == pytest.approx(case["total_ms_per_step"])
    wall = case["traced_wall_ms_per_step"]
    assert len(wall["all"]) == 1
    assert case["accounted_share_of_wall"] == pytest.approx(case["total_ms_per_step"] / wall["median"])
    assert 0 < case["accounted_share_of_wall"] <= 1
    for phase in ("discriminator", "generator"):  # both convolve, step and draw
        assert all(sums[phase][kind] > 0 for kind in ("convolution", "optimizer update", "random draws"))
    printed = capsys.readouterr().out
    assert "% of the traced wall time" in printed and f"{case['total_ms_per_step']:.2f}" in printed


@pytest.mark.parametrize("flag", ("--models=dcgan_33", "--repeats=0", "--platform=abacus"))
def test_wrong_flags_are_named(flag, capsys):
    assert step_profile.main([flag, "--out=never.json"]) == 2
    error = capsys.readouterr().err
    assert flag.split("=")[1] in error and error.count("\n") == 1
