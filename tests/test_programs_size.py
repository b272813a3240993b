"""How large the programs of a step may be: operations that XLA is given, by family and phase."""

import jax
import pytest

from benchmarks import operations, programs
from gan_jax import parallel

# StableHLO operations of the smoke form on a CPU, as `benchmarks/programs.py` counts them: what they are, and 5% for
# what versions of JAX and the order of tests (which shares traced functions) change. What grows with the number of
# arrays or layers shows at once; who adds a feature that needs more raises them knowingly.
MOST = {
    "dcgan": {"discriminator": 1431, "generator": 1285, "finish": 52},
    "stylegan2": {"generator": 1690, "path_length": 1915, "discriminator": 1878, "penalty": 1048, "finish": 30},
    "r3gan": {"discriminator": 1718, "generator": 2022, "finish": 38},
}


@pytest.mark.parametrize("family", MOST)
def test_programs_are_no_larger_than_they_were(family):
    run = programs.build(programs.FAMILIES[family]["smoke"])
    mesh = parallel.make_mesh(jax.devices()[:1])
    assert programs.names(run) == tuple(MOST[family])
    counts = {}
    for name in programs.names(run):
        program, arguments = programs.program(run, name, mesh)
        count, _ = operations.lowered(program.lower(*arguments).compiler_ir("stablehlo"))
        counts[name] = count.all
    assert all(counts[name] <= most for name, most in MOST[family].items()), (counts, MOST[family])
