"""Folders and zips of images, made by any program, against others or against a run's data."""

import functools
import pathlib
import time
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import folders, logs, provenance, runs
from gan_jax.errors import UserError
from gan_jax.evaluate import pairs, plans, protocols, report
from gan_jax.evaluate import reals as real_side
from gan_jax.evaluate.protocols import PAIRED
from gan_jax.evaluate.run import listed_names
from gan_jax.features import networks

DEFAULT = "fid"


def compare_folders(
    images: str, *, reference: str = "", workdir: str = "", metrics: str = "", out: str = "",
    settings: Mapping[str, str] | None = None, save_statistics: str = "", data: str = "",
) -> list[dict]:
    """Measures the images of a folder or zip against another's, against a run's data, or against statistics of a file.

    Args:
      images: folder or .zip of images of one size.
      reference: another one; with `workdir` and config.evaluation.statistics, one of three.
      workdir: folder of a run, whose data are the reals.
      metrics: names with commas between; empty for `fid`, of all images. Names without a count are of all images.
      out: file that the rows are appended to, a JSON line each; empty for none.
      settings: key of config.evaluation -> text.
      save_statistics: file to write the reals' moments to.
      data: where the run's data lie now, see `runs.move_data`; empty where they have not moved.
    Returns:
      One row a value; see `run.measurer`.
    Raises:
      MissingPathError, UserError: a path, weights or metric that is not there, images that do not fit.
    """
    from gan_jax.data import open_images

    began = time.monotonic()
    section = _section(settings or {})
    if bool(reference) + bool(workdir) + bool(section.statistics) != 1:
        raise UserError(f"--images={images}: compare it with one of --reference=FOLDER, --workdir=RUN and "
                        "--statistics=FILE.npz")
    if "samples" in (settings or {}):
        raise UserError(f"--samples={settings['samples']} has no meaning with --images: all of them are measured, or "
                        "as many as a name says, such as fid5k")
    if section.split and not workdir:
        raise UserError(f"--split={section.split}: only a run's data has splits, give --workdir")
    if out and not pathlib.Path(out).absolute().parent.is_dir():
        raise UserError(f"--out={out}: expected a file in a folder that is there")
    fakes, names = open_images(images)
    section.samples = fakes.size
    listed = _listed(listed_names(metrics) or (DEFAULT,), section, fakes, paired=bool(reference))
    rows = []
    paired = [name for name in listed if name in PAIRED]
    if paired:
        rows += _pairs(paired, (fakes, names), reference, section)
    opened = functools.partial(_open_reals, reference, workdir, section, data)
    unpaired = protocols.listed_protocols(section, tuple(name for name in listed if name not in PAIRED))
    planned = plans.ready(unpaired, section, open_reals=opened, shape=fakes.shape, seed=0)
    if planned:
        if save_statistics:
            print(planned.save_statistics(save_statistics), flush=True)
        own = real_side.of(fakes)
        rows += planned.measure(lambda needs: planned.forward(needs, own.images), _no_path)
    rows.sort(key=lambda row: listed.index(row["group"]))
    common = {"images_of": f"folder:{images}", "images_fingerprint": fakes.fingerprint,
            "images_resolution": str(list(fakes.shape[:2])), "samples": fakes.size, "seed": 0}
    rows = report.finished([{**common, **row} for row in rows], began, provenance.code_sha256())
    if out:
        for row in rows:
            logs.append_line(pathlib.Path(out), row)
    return rows


def _no_path(plan) -> float:
    raise AssertionError(plan.protocol.name)  # `_listed` has refused it


def _section(settings: Mapping[str, str]) -> ConfigDict:
    config = ConfigDict({"evaluation": {**runs.DEFAULTS["evaluation"], "features": "inception"}})
    for key, text in settings.items():
        configs.override(config, f"evaluation.{key}", text)
    networks.check(config.evaluation)
    return config.evaluation


def _listed(names: tuple[str, ...], section: ConfigDict, fakes, *, paired: bool) -> tuple[str, ...]:
    listed = tuple(dict.fromkeys(protocols.meant(name, section) for name in names))
    for name in listed:
        protocol = protocols.parse(name)
        if name in protocols.PLAIN and section.features in ("none", networks.JUDGE):
            raise UserError(f"metrics={name}: of a folder's images, it needs --features such as inception or "
                            f"random_inception, not {section.features!r}")
        if name in PAIRED:
            if not paired:
                raise UserError(f"metrics={name}: compares two folders, image by image: give --reference=FOLDER")
            continue
        if name not in ("fd", "kd", "prdc") and (protocol is None or protocol.kind == "ppl"):
            raise UserError(f"metrics={name!r}: of a folder of images, expected some of fd, kd, prdc, "
                            f"{', '.join(PAIRED)}, or such as fid10k, fid50k_full, kid50k_full, pr50k3_full, is50k, "
                            "swd16k, msssim10k")
        if protocol is not None and protocol.samples > fakes.size:
            raise UserError(f"metrics={name}: of {protocol.samples} images, and {fakes.name.partition(':')[2]} has "
                            f"{fakes.size}; list it without a count, such as fid, for all of them")
        protocols.check_count(name)
    return listed


def _open_reals(reference: str, workdir: str, section: ConfigDict, place: str):
    from gan_jax import data

    if reference:
        return data.open_images(reference)[0]
    if not workdir:
        raise UserError(f"--statistics={section.statistics} holds moments, enough for Frechet distances alone, "
                        "such as fid; for the other metrics give --reference or --workdir")
    config, _, _ = folders.read_folder(workdir)
    if place:
        folders.move_data(workdir, config, place)
    return runs.open_data(config, section.split)


def _pairs(names: list[str], fakes: tuple, reference: str, section: ConfigDict) -> list[dict]:
    """Means over pairs of images of one name."""
    from gan_jax import data

    (ours, own), (theirs, other) = fakes, data.open_images(reference)
    if own != other:
        lone = sorted(set(own) ^ set(other))[:3]
        raise UserError(f"metrics={','.join(names)}: the folders hold other names, such as {', '.join(lone)}; images "
                        "are compared with those of their own name")
    if ours.shape != theirs.shape:
        sizes = f"{ours.shape[:2]} and {theirs.shape[:2]}"
        raise UserError(f"metrics={','.join(names)}: images are {sizes}; expected one size")
    protocol = {"data": theirs.name, "data_fingerprint": theirs.fingerprint, "channels": "RGB"}
    rows = []
    for name in names:
        net = networks.load(name, section) if name.startswith("lpips_") else None
        compared = pairs.Pairs(name, net, pairs.Targets(theirs.size, lambda n: theirs.examples(n)["image"], protocol))
        for start in range(0, ours.size, pairs.AT_ONCE):
            compared.update(ours.examples(np.arange(start, min(start + pairs.AT_ONCE, ours.size)))["image"])
        value, beside = compared.finish()
        if net:
            beside |= {"features": net.name, "features_sha256": net.sha256, "preprocessing": net.preprocessing}
        rows.append({"group": name, "metric": net.name if net else name, "value": value, **beside})
    return rows
