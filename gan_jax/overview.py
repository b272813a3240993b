"""What a dry run prints of a run: its networks, programs, devices and data."""

import math

import jax

from gan_jax import programs, runs


def describe(run, mesh, dataset, calls: programs.Programs) -> str:
    """Parameters by layer, FLOPs and memory of each program, devices, data; compiles."""
    from clu import parameter_overview

    state = runs.abstract_state(run, mesh)
    lines = [
        parameter_overview.get_parameter_overview({net: p}, include_stats=False) for net, p in state.params.items()
    ]
    packed = runs.packed_shapes(run, state, mesh)
    cycle = math.lcm(*(phase.every for phase in run.phases))
    keys = set().union(*(calls.keys(run, step) for step in range(min(cycle, programs.LOOKED_AHEAD))))
    calls.compile_ahead(run, keys, packed, programs.example(run, dataset)).wait(print)
    for key in sorted(keys, key=programs.title):
        compiled, seconds = calls.built(run, key, packed, programs.example(run, dataset))
        costs = _costs(compiled, run.config.accumulate)
        lines.append(f"{programs.title(key)}: {costs}, compiled in {seconds:.1f} s")
    devices = jax.devices()
    lines.append(
        f"devices: {len(devices)} x {devices[0].device_kind}, {jax.process_count()} process(es), {run.config.parallel}"
    )
    lines.append("data: " + ", ".join(f"{k} {v}" for k, v in dataset.protocol().items()))
    lines += [f"data: {line}" for line in (dataset.contents, *dataset.notes)]
    return "\n".join(lines)


def _costs(compiled, accumulate: int) -> str:
    """XLA counts the body of the loop over micro-batches once, and what is outside of it is small beside it."""
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    flops = accumulate * (cost[0] if isinstance(cost, list) else cost or {}).get("flops", float("nan"))
    if memory is None:
        return f"{flops / 1e9:.2f} GFLOP a device"
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    shared = memory.alias_size_in_bytes
    return f"{flops / 1e9:.2f} GFLOP and {(size - shared) / 2**20:.0f} MiB a device"
