"""Times how fast images come: decoded from a folder and a TFDS set, packed, and streamed from the pack.

    python benchmarks/input.py --resolutions=32,64,128,256,512,1024 --repeats=3

Prints a table and writes JSON. The sets are PNGs of noisy drawings, made in a temporary folder and opened as a run
opens them. They are small enough for the system to keep them in memory, so this measures the code and not the disk.

- `folder decoded`, `tfds decoded`: every image is decoded when it is used, as a set is that is too large to pack;
- `folder packing`, `tfds packing`: what the first opening of a set does before training starts;
- `packed`: the stream of batches from the memory map, which every epoch of such a set is read from.

The supply is compared with what the training steps consume that `benchmarks/training_step.py` has measured.
"""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402
from gan_jax import parallel  # noqa: E402
from gan_jax.data import Dataset, open_dataset, pack  # noqa: E402
from gan_jax.data.synthetic import picture  # noqa: E402
from gan_jax.errors import UserError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "input.json"
STEPS = ROOT / "benchmarks" / "results" / "training_step_cpu.json"
SET_BYTES, MOST, FEWEST = 64 << 20, 2000, 64  # of a set once it is decoded, and images in it
NOISE = 16  # levels added to every drawing, so that a PNG has the size of a photograph's, 1/2 to 2/3 of its pixels
WARMING = 2  # batches before the clock starts, and
WARMING_IMAGES = 96  # images, as many as Grain decodes ahead and some more
NEEDED = 2.0  # times what a step consumes, that the pack must supply
WAYS = ("folder decoded", "tfds decoded", "folder packing", "tfds packing", "packed")


class Repeat(NamedTuple):
    """One repeat."""

    images: int
    bytes: int
    seconds: float
    cpu_seconds: float  # of all threads


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, or 2 after a message for what its user can mend."""
    return reports.command(_report, _flags(arguments))


def _report(flags) -> dict:
    _check(flags)
    steps = consumption(flags.steps)
    report = reports.header("input", ("numpy", "pillow", "grain", "array_record", "jax"), _settings(flags))
    report |= {"steps": steps, "sets": {}, "rows": []}
    print(_COLUMNS.format("images", "px", "images/s", "range", "MiB/s", "images/CPU s", "of a step's need"))
    for resolution in flags.resolutions:
        summary, rows = measure(resolution, flags)
        report["sets"][str(resolution)] = summary
        report["rows"] += [row | {"supply": supply(row, steps)} for row in rows]
        print("\n".join(map(line, report["rows"][-len(rows) :])), flush=True)
    report["bar"] = bar(report["rows"])
    print(verdict(report["bar"]))
    return report


def _flags(arguments):
    parser = reports.parser(__doc__, RESULTS, repeats=(3, "of each way, in turn"), smoke="tiny sets, one repeat")
    add = parser.add_argument
    default = (32, 64, 128, 256, 512, 1024)
    add("--resolutions", type=lambda text: tuple(map(int, text.split(","))), default=default, help="pixels, 32,64,...")
    add("--batch", type=int, default=32, help="images")
    add("--seconds", type=float, default=2.0, help="of one repeat, rounded up to whole batches")
    add("--to-device", action="store_true", help="put each batch on the devices, too")
    add("--steps", type=pathlib.Path, help=f"of training_step.py, by default {STEPS.relative_to(ROOT)}")
    return reports.parse(parser, arguments, resolutions=(32, 64), batch=4, seconds=0.01, repeats=1)


def _check(flags) -> None:
    if min(flags.resolutions) < 1:
        raise UserError(f"--resolutions={','.join(map(str, flags.resolutions))}: expected 1 or more each")
    for name in ("batch", "repeats"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name}={getattr(flags, name)}: expected 1 or more")
    if not 0 < flags.seconds < float("inf"):
        raise UserError(f"--seconds={flags.seconds}: expected more than 0")


def _settings(flags) -> dict:
    values = {key: getattr(flags, key) for key in ("batch", "seconds", "repeats", "to_device", "smoke")}
    return {**values, "resolutions": list(flags.resolutions), "threads": min(16, os.cpu_count() or 1)}


def consumption(path: pathlib.Path | None) -> dict[str, dict]:
    """Of each measured training step its resolution and images per second; none where nothing was measured.

    Raises:
      UserError: the file that was asked for cannot be read as results of training_step.py.
    """
    if path is None and not STEPS.exists():
        return {}
    try:
        cases = json.loads((path or STEPS).read_text(encoding="utf-8"))["models"]
        return {
            name: {"resolution": case["shape"][0], "images_per_second": case["jax"]["images_per_second"]["median"]}
            for name, case in cases.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--steps={path or STEPS}: no results of training_step.py: {error}") from error


def measure(resolution: int, flags) -> tuple[dict, list[dict]]:
    """What the sets of one resolution are, and a row for each way. The ways take turns in each repeat."""
    with tempfile.TemporaryDirectory(prefix="gan_jax_input_") as name:
        folder = pathlib.Path(name)
        count = 16 if flags.smoke else int(np.clip(SET_BYTES // (3 * resolution**2), FEWEST, MOST))
        pngs = [png(index, resolution) for index in range(count)]
        sets = {"folder": write_folder(folder, pngs), "tfds": write_tfds(folder, pngs)}
        by_way: dict[str, list[Repeat]] = {way: [] for way in WAYS}
        for _ in range(flags.repeats):
            for way in WAYS:
                kind = "folder" if way == "packed" else way.split()[0]
                section = {**sets[kind], "resolution": resolution, "channels": 3}
                if way.endswith("packing"):
                    by_way[way].append(packing(section, folder))
                else:
                    by_way[way].append(streaming(way, section, folder, flags))
    summary = {"images": count, "png_bytes": sum(map(len, pngs)), "decoded_bytes": 3 * count * resolution**2}
    return summary, [_row(way, resolution, repeats) for way, repeats in by_way.items()]


def png(index: int, resolution: int) -> bytes:
    """Image `index` of every set: RGB, a disc on a gradient under noise, as PNG."""
    from PIL import Image

    drawing, _ = picture(index, (resolution, resolution, 3), 0)
    noise = np.random.default_rng(index).integers(0, NOISE, drawing.shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(drawing - drawing // NOISE + noise).save(file, "png")  # at most 255 - 15 + 15
    return file.getvalue()


def write_folder(folder: pathlib.Path, pngs: list[bytes]) -> dict:
    """A folder of images; the config's data section for it."""
    root = folder / "images"
    root.mkdir()
    for index, data in enumerate(pngs):
        (root / f"{index:05}.png").write_bytes(data)
    return {"name": f"folder:{root}"}


def write_tfds(folder: pathlib.Path, pngs: list[bytes]) -> dict:
    """A prepared TFDS set in the array_record format; the config's data section for it."""
    from gan_jax.data.tfds_source import quiet

    with quiet():
        import tensorflow_datasets as tfds

        class BenchmarkPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            """The PNGs as they are."""

            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png")}
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
                )

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                yield from ((index, {"image": io.BytesIO(data)}) for index, data in enumerate(pngs))

        BenchmarkPictures(data_dir=folder / "tfds", file_format="array_record").download_and_prepare()
    return {"name": "tfds:benchmark_pictures", "dir": str(folder / "tfds")}


def packing(section: dict, folder: pathlib.Path) -> Repeat:
    """Opens a set that is in no cache yet: lists, decodes, fingerprints and writes it."""
    with tempfile.TemporaryDirectory(prefix="cache_", dir=folder) as cache, _cache(cache):
        began = time.perf_counter(), time.process_time()
        dataset = open_dataset(**section)
        ended = time.perf_counter(), time.process_time()
    size = dataset.size * int(np.prod(dataset.shape))
    return Repeat(dataset.size, size, ended[0] - began[0], ended[1] - began[1])


def _cache(folder: pathlib.Path | str):
    return mock.patch.dict(os.environ, {"GAN_JAX_CACHE_DIR": str(folder)})


def streaming(way: str, section: dict, folder: pathlib.Path, flags) -> Repeat:
    """Takes shuffled batches as fast as they come, after some to warm up."""
    limit = pack.LIMIT_BYTES if way == "packed" else 0
    with _cache(folder / "cache"), mock.patch.object(pack, "LIMIT_BYTES", limit):
        dataset = open_dataset(**section)
    to_device = _device_put() if flags.to_device else lambda batch: batch
    stream = dataset.stream(seed=0, start=0, batch_size=flags.batch, rows=np.arange(flags.batch))
    with contextlib.closing(stream):
        for _ in range(0 if flags.smoke else max(WARMING, -(-WARMING_IMAGES // flags.batch))):
            to_device(next(stream))
        return _take(stream, to_device, dataset, flags.seconds)


def _take(stream, to_device, dataset: Dataset, seconds: float) -> Repeat:
    images = delivered = 0
    began = time.perf_counter(), time.process_time()
    while not images or time.perf_counter() - began[0] < seconds:
        batch: dict[str, Any] = to_device(next(stream))
        images += batch["image"].size // int(np.prod(dataset.shape))
        delivered += batch["image"].nbytes
    return Repeat(images, delivered, time.perf_counter() - began[0], time.process_time() - began[1])


def _device_put():
    """batch -> the batch on all devices, once it is there."""
    import jax

    mesh = parallel.make_mesh()
    return lambda batch: jax.block_until_ready(parallel.shard_batch(batch, mesh))


def _row(way: str, resolution: int, repeats: list[Repeat]) -> dict:
    """A row of the table as it stands in the JSON."""
    return {
        "way": way,
        "resolution": resolution,
        "images": [repeat.images for repeat in repeats],
        "bytes": [repeat.bytes for repeat in repeats],
        "seconds": [repeat.seconds for repeat in repeats],
        "images_per_second": reports.spread([repeat.images / repeat.seconds for repeat in repeats]),
        "mib_per_second": reports.spread([repeat.bytes / repeat.seconds / 2**20 for repeat in repeats]),
        "images_per_cpu_second": reports.spread([repeat.images / max(repeat.cpu_seconds, 1e-6) for repeat in repeats]),
    }


def supply(row: dict, steps: dict[str, dict]) -> dict[str, float]:
    """Images supplied over images consumed, for each training step of the same resolution; packing supplies none."""
    if row["way"].endswith("packing"):
        return {}
    speed = row["images_per_second"]["median"]
    like = {name: step for name, step in steps.items() if step["resolution"] == row["resolution"]}
    return {name: speed / step["images_per_second"] for name, step in like.items()}


def bar(rows: list[dict]) -> dict:
    """Whether the pack supplies enough for each step that it could be compared with."""
    ratios = {name: ratio for row in rows if row["way"] == "packed" for name, ratio in row["supply"].items()}
    return {"needed": NEEDED, "supply": ratios, "kept": {name: ratio >= NEEDED for name, ratio in ratios.items()}}


_COLUMNS = "{:15} {:>5} {:>11} {:>23} {:>9} {:>13}  {}"


def line(row: dict) -> str:
    """A line of the table."""
    speed = row["images_per_second"]
    wide = f"{speed['low']:.1f}..{speed['high']:.1f}"
    need = ", ".join(f"{name} x{ratio:.1f}" for name, ratio in row["supply"].items())
    numbers = f"{speed['median']:.1f}", wide, f"{row['mib_per_second']['median']:.1f}"
    return _COLUMNS.format(
        row["way"], row["resolution"], *numbers, f"{row['images_per_cpu_second']['median']:.1f}", need
    ).rstrip()


def verdict(result: dict) -> str:
    """The bar in words."""
    if not result["kept"]:
        return "no training step of these resolutions has been measured: the supply compares with none"
    short = ", ".join(name for name, enough in result["kept"].items() if not enough)
    claim = f"the pack supplies at least {result['needed']:g} times what a step consumes"
    return f"{claim}: NOT for {short}" if short else f"{claim}: kept for {', '.join(result['kept'])}"


if __name__ == "__main__":
    sys.exit(main())
