"""Whether runs ended with the same bits: python .ci/same_bits.py WORKDIR OTHER [OTHER ...].

Compares every array of the newest checkpoint, its step, and the lines of losses but for their speed.
"""

import pathlib
import sys

import jax
import numpy as np

from gan_jax import folders, logs, parallel, runs


def arrays(workdir: str) -> dict[str, np.ndarray]:
    """Every array of a run's newest checkpoint, by its path in State."""
    config, spec, _ = folders.read_folder(workdir)
    restored = folders.restore(runs.build(config, spec), workdir, parallel.make_mesh(jax.devices()[:1]))
    assert not restored.broken, restored.broken
    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.device_get(restored.state))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def losses(workdir: str) -> list[dict]:
    """The lines of losses, without how fast the machine was."""
    rows = logs.read_lines(pathlib.Path(workdir) / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """The paths whose arrays are not the same bits, or that only one of them has."""
    both = one.keys() & other.keys()
    alike = {path for path in both if one[path].dtype == other[path].dtype and one[path].shape == other[path].shape
             and one[path].tobytes() == other[path].tobytes()}  # fmt: skip
    return sorted((one.keys() | other.keys()) - alike)


def main(reference: str, *others: str) -> int:
    """Prints a line for each of the others; the exit code is 1 where one differs."""
    parallel.silence()
    expected, lines, code = arrays(reference), losses(reference), 0
    assert expected and lines, f"{reference}: nothing to compare with"
    for other in others:
        different = differences(expected, arrays(other))
        if different or losses(other) != lines:
            code = 1
            print(f"{other}: not the bits of {reference}: {', '.join(different[:5]) or 'metrics.jsonl'}")
        else:
            print(f"{pathlib.Path(other).name}: {len(expected)} arrays and {len(lines)} lines of losses, bit for bit")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
