"""Times checkpoints of StyleGAN2 at 256 px: how long training stands still, until they are written, and to restore.

    python benchmarks/checkpoints.py --repeats=5 --images_per_second=20

Prints a table and writes JSON. The State is that of `experiments/stylegan2_ada.py:paper256` with random numbers in
place of what training finds. It is saved as `train` saves it: a `stall` ends when the loop may go on, `written` when
the background has finished. The stall's share is of 1,000 steps at the images per second that training_step.py has
measured for `stylegan2_256`, or that are given.
"""

import contextlib
import json
import pathlib
import shutil
import sys
import tempfile
import time

import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402
from benchmarks.sides import peak_mib  # noqa: E402
from gan_jax import checkpoint, parallel, runs, specs  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "checkpoints.json"
STEPS = ROOT / "benchmarks" / "results" / "training_step_cpu_stylegan2_256.json"
EXPERIMENT, SMOKE = "experiments/stylegan2_ada.py:paper256", "experiments/ffhq_stylegan2.py:smoke"
CASE = "stylegan2_256"  # of training_step.py
INTERVAL_STEPS, BAR = 1000, 0.02  # of a save interval, that a stall may take
COPIES = 4  # of the State, for which memory and disk must have room: those that are kept, written and restored
PARTS = ("stall", "written", "cpu", "restore")


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _report(flags) -> dict:
    _check(flags)
    speed = images_per_second(flags.images_per_second)
    run, mesh = build(SMOKE if flags.smoke else EXPERIMENT)
    report = reports.header("checkpoints", ("jax", "jaxlib", "orbax-checkpoint", "numpy"), _settings(flags, run))
    with tempfile.TemporaryDirectory(prefix="gan_jax_checkpoints_", dir=flags.folder) as folder:
        report |= measure(run, mesh, pathlib.Path(folder), flags.repeats)
    report |= {"peak_rss_mib": peak_mib(), "share": share(report["seconds"]["stall"], run.config.batch_size, speed)}
    print("\n".join(rows(report)))
    return report


def _flags(arguments):
    repeats = 5, "saves and restores timed, after a first one"
    parser = reports.parser(__doc__, RESULTS, repeats=repeats, smoke="tiny players, once")
    add = parser.add_argument
    add("--images_per_second", type=float, help=f"of training; by default those measured for {CASE}, where they are")
    add("--folder", type=pathlib.Path, help="on the disk to be measured; by default the system's for temporary files")
    return reports.parse(parser, arguments, repeats=1)


def _check(flags) -> None:
    if flags.repeats < 1:
        raise UserError(f"--repeats={flags.repeats}: expected 1 or more")
    if flags.images_per_second is not None and not 0 < flags.images_per_second < float("inf"):
        raise UserError(f"--images_per_second={flags.images_per_second}: expected more than 0")
    if flags.folder is not None and not flags.folder.is_dir():
        raise UserError(f"--folder={flags.folder}: no such folder")


def _settings(flags, run: runs.Run) -> dict:
    device = jax.devices()[0]
    return {
        "device": f"{jax.device_count()} x {device.platform} {device.device_kind}",
        "repeats": flags.repeats,
        "smoke": flags.smoke,
        "folder": str(flags.folder or "the system's, for temporary files"),
        "resolution": run.spec["image"].shape[0],
        "config": run.config.to_dict(),
    }


def images_per_second(flag: float | None) -> float | None:
    """Of training StyleGAN2 at 256 px: what is given, or what was measured; None where neither is."""
    if flag is not None or not STEPS.exists():
        return flag
    case = json.loads(STEPS.read_text(encoding="utf-8"))["models"].get(CASE)
    return case["jax"]["images_per_second"]["median"] if case else None


def build(experiment: str) -> tuple[runs.Run, jax.sharding.Mesh]:
    """The run that `train` would build on images of the config's size, and its devices."""
    parallel.silence()
    config = runs.load_config(str(ROOT / experiment))
    side = config.data.resolution
    return runs.build(config, specs.labelled((side, side, config.data.channels), 0)), parallel.make_mesh()


def fill(abstract, mesh):
    """A State of these shapes on all devices: normal numbers, which no disk can compress, and zeros for counters."""
    rng = np.random.default_rng(0)

    def make(leaf):
        values = rng.standard_normal(leaf.shape, np.float32) if leaf.dtype == np.float32 else np.zeros(leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), parallel.replicated(mesh))

    return jax.tree.map(make, abstract)


def measure(run: runs.Run, mesh, folder: pathlib.Path, repeats: int) -> dict:
    """Saves and restores the State, each of `repeats` times in turn, after a first time that compiles the digest.

    Raises:
      UserError: memory or disk have no room for it.
    """
    abstract = runs.abstract_state(run, mesh)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))
    _check_room(folder, size)
    state = jax.block_until_ready(fill(abstract, mesh))
    manager = checkpoint.open_manager(folder / "checkpoints", keep=run.config.checkpoints.keep)
    times = []
    with checkpoint.closing(manager):
        for step in range(1, repeats + 2):
            state = state._replace(step=jax.device_put(np.int32(step), parallel.replicated(mesh)))
            times.append(once(manager, state, step, abstract))
    checkpoint_folder = folder / "checkpoints" / str(step)
    first, *later = times
    return {
        "state_bytes": size,
        "arrays": len(jax.tree.leaves(abstract)),
        "disk_bytes": sum(path.stat().st_size for path in checkpoint_folder.rglob("*") if path.is_file()),
        "first_seconds": first,
        "seconds": {part: reports.spread([one[part] for one in later]) for part in PARTS},
    }


def _check_room(folder: pathlib.Path, size: int) -> None:
    free = {f"the disk of {folder}": shutil.disk_usage(folder).free}
    with contextlib.suppress(OSError):  # other systems do not tell
        meminfo = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
        free["memory"] = 1024 * int(meminfo["MemAvailable"].split()[0])
    for place, room in free.items():
        if room < COPIES * size:
            have, need = room >> 20, COPIES * size >> 20
            raise UserError(f"{place} has {have} MiB free, {need} MiB are needed; make room, or try --smoke")


def once(manager, state, step: int, abstract) -> dict[str, float]:
    """Seconds of one save and one restore; `written` counts from its start, `cpu` all threads until then."""
    began, cpu = time.perf_counter(), time.process_time()
    checkpoint.save(manager, state, {"position": step, "data": "", "sums": {}})
    stalled = time.perf_counter()
    manager.wait_until_finished()
    written, cpu = time.perf_counter(), time.process_time() - cpu
    restored, _ = checkpoint.restore(manager, step, abstract)
    jax.block_until_ready(restored)
    ended = time.perf_counter()
    return {"stall": stalled - began, "written": written - began, "cpu": cpu, "restore": ended - written}


def share(stall: dict, batch_size: int, speed: float | None) -> dict:
    """The stall over a save interval, and whether the bar is kept; empty where training's speed is not known."""
    if speed is None:
        return {}
    interval = INTERVAL_STEPS * batch_size / speed
    settings = {"images_per_second": speed, "batch_size": batch_size, "interval_seconds": interval, "bar": BAR}
    return {**settings, "stall": stall["median"] / interval, "kept": stall["median"] / interval < BAR}


def rows(report: dict) -> list[str]:
    """Lines of the table."""
    size, disk = report["state_bytes"] / 2**20, report["disk_bytes"] / 2**20
    lines = [f"State of {size:.1f} MiB in {report['arrays']} arrays; {disk:.1f} MiB on disk"]
    lines.append("{:8} {:>8} {:>16} {:>10}".format("seconds", "", "range", "first"))
    for part, spread in report["seconds"].items():
        wide = f"{spread['low']:.3f}..{spread['high']:.3f}"
        lines.append(f"{part:8} {spread['median']:8.3f} {wide:>16} {report['first_seconds'][part]:10.3f}")
    result = report["share"]
    if not result:
        return [*lines, f"share of {INTERVAL_STEPS} steps: not known, give --images_per_second"]
    setting = f"at {result['images_per_second']:g} images/s, batch {result['batch_size']}"
    verdict = "kept" if result["kept"] else "NOT kept"
    return [*lines, f"share of {INTERVAL_STEPS} steps {setting}: {result['stall']:.3%}; below {BAR:.0%}: {verdict}"]


if __name__ == "__main__":
    sys.exit(main())
