"""Rows of values: finished with what all of them tell, printed, read, and held side by side."""

import pathlib
import sys
import time

import jax

from gan_jax import __version__, logs, provenance
from gan_jax.errors import MissingPathError
from gan_jax.evaluate import protocols


def finished(rows: list[dict], began: float, code: str) -> list[dict]:
    """Rows whose `group` and `kind` have become `better`; with version, digest of the code, and seconds since `began`.

    A row's warning is told on the terminal's error output as well, by process 0.
    """
    last = {"version": __version__, "code_sha256": code, "seconds": round(time.monotonic() - began, 1)}
    lines = []
    for row in rows:
        group = row.pop("group")
        kind = row.pop("kind", group)
        row["better"] = protocols.better(row["metric"] if group == "modes" else kind)
        lines.append({**row, **last})
        if "warning" in row and jax.process_index() == 0:
            print(f"warning: {row['metric']}: {row['warning']}", file=sys.stderr, flush=True)
    return lines


def table(rows: list[dict]) -> str:
    """The rows for a terminal: names and values, and what they were measured with below."""
    if not rows:
        return "no metrics are configured"
    width, first = max(len(row["metric"]) for row in rows), rows[0]
    lines = [f"{_of(first)}, {first['samples']} samples, {first['seconds']} s"]
    lines += [_line(row, width, first["samples"]) for row in rows]
    return "\n".join([*lines, *dict.fromkeys(_protocol(row) for row in rows if {"features", "reals"} & row.keys())])


def _of(row: dict) -> str:
    return f"step {row['step']}, {row['images']} images" if "step" in row else row["images_of"]


def _line(row: dict, width: int, samples: int) -> str:
    extra = [row["unit"]] if "unit" in row and row["value"] is not None else []
    extra += [f"({row['low']:.4f} to {row['high']:.4f})"] if "low" in row else []
    extra += [f"+- {row['std']:.4f}"] if "std" in row else []
    extra += [f"(reals {_number(row['value_of_reals'])})"] if "value_of_reals" in row else []
    extra += [f"gain {row['gain']:+.4f} ({row['gain_low']:+.4f} to {row['gain_high']:+.4f})"] if "gain" in row else []
    extra += [f"{row['equal_pairs']} equal pairs left out"] if row.get("equal_pairs") else []
    extra += [f"of {row['samples']}"] if row["samples"] not in (0, samples) else []
    return " ".join([f"  {row['metric']:<{width}}  {_number(row['value'])}", *extra])


def _number(value: float | None) -> str:
    if value is None:
        return "all pairs are equal"
    return f"{value:.4f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"


def _protocol(row: dict) -> str:
    accuracy = row.get("features_accuracy")
    accurate = "" if accuracy is None else f"test accuracy {100 * accuracy:.2f}%, "
    parts = []
    if "features" in row:
        parts += [f"features {row['features']} ({accurate}sha256 {row['features_sha256'][:12]})", row["preprocessing"]]
    if "resized" in row:
        parts.append(f"images resized to {row['resized']}")
    if "reals" in row:
        split = f"/{row['split']}" if "split" in row else ""
        mirrored = " with mirrored copies" if row.get("flip") else ""
        fingerprint = f" ({row['data_fingerprint'][:12]})" if "data_fingerprint" in row else ""
        parts.append(f"{row['reals']} reals of {row['data']}{split}{fingerprint}{mirrored}")
    if "training" in row:
        parts.append(f"beside the {row['training_images']} training images of {row['training']}")
    return f"  {', '.join(parts)}"


def read(path: str) -> list[dict]:
    """The rows of a run's `evaluations.jsonl`, none where it has not been measured, or of a file of rows.

    Raises:
      MissingPathError: there is neither.
    """
    place = pathlib.Path(path)
    if not place.exists():
        raise MissingPathError(f"{path}: neither a run's folder nor a file of rows is there")
    return logs.read_lines(place / "evaluations.jsonl" if place.is_dir() else place)


def comparison(folders: list[str]) -> str:
    """A table of the newest value of each metric of several runs, and of what forbids to compare them.

    A value is compared with the first run's that has the metric; where their protocols differ it is marked
    `not comparable`, with every difference below, and `(other code)` where other sources of this package measured it.
    """
    newest = {folder: {row["metric"]: row for row in read(folder)} for folder in folders}
    names = list(dict.fromkeys(name for rows in newest.values() for name in rows))
    if not names:
        return "none of the runs has been measured"
    lines, notes = [], []
    for name in names:
        having = [(folder, rows[name]) for folder, rows in newest.items() if name in rows]
        lines.append(f"{name} ({having[0][1].get('better', '?')} is better)")
        for folder, row in having:
            unlike = provenance.unlike(row, having[0][1])
            mark = "  not comparable" if unlike else ""
            if row.get("code_sha256") != having[0][1].get("code_sha256"):
                mark += "  (other code)"
            lines.append(f"  {_number(row['value']):>12}  step {row.get('step', '?')}  {folder}{mark}")
            notes += [f"  {folder}, {name}: {'; '.join(unlike)}"] if unlike else []
    return "\n".join([*lines, *(["not comparable:", *notes] if notes else [])])
