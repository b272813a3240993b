"""Folders and zips of images, made by any program, against others or against a run's data."""

import functools
import pathlib
import time
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from gan_jax import config as configs
from gan_jax import data as data_sets
from gan_jax import folders, logs, provenance, run_data, runs
from gan_jax.data import Dataset
from gan_jax.errors import UserError
from gan_jax.evaluate import pairs, plans, protocols, report, sizes
from gan_jax.evaluate import reals as real_side
from gan_jax.evaluate.protocols import IN_HOLES, OF_FOLDERS, PAIRED
from gan_jax.evaluate.run import listed_names
from gan_jax.features import networks

DEFAULT = "fid"
Opened = tuple[Dataset, tuple[str, ...]]  # images and their names, as `data.of_array` gives them


def compare_folders(
    images: str | Opened, *, reference: str | Opened = "", workdir: str = "", metrics: str = "", out: str = "",
    settings: Mapping[str, str] | None = None, save_statistics: str = "", data: str = "", resize: int | None = None,
) -> list[dict]:
    """Measures the images of a folder or zip against another's, against a run's data, or against statistics of a file.

    Args:
      images: folder or .zip of images of one size, or of any with `resize`; or such images opened.
      reference: another one; with `workdir` and config.evaluation.statistics, one of three.
      workdir: folder of a run, whose data are the reals.
      metrics: names with commas between; empty for `fid`, of all images. Names without a count are of all images.
      out: file that the rows are appended to, a JSON line each; empty for none.
      settings: key of config.evaluation -> text.
      save_statistics: file to write the reals' moments to.
      data: where the run's data lie now, see `run_data.move_data`; empty where they have not moved.
      resize: side of the squares that images of another size are cropped and resized to, those of `reference` too.
    Returns:
      One row a value; see `run.measurer`.
    Raises:
      MissingPathError, UserError: a path, weights or metric that is not there, images that do not fit.
    """
    began = time.monotonic()
    section = _section(settings or {})
    if bool(reference) + bool(workdir) + bool(section.statistics) != 1:
        shown = images if isinstance(images, str) else images[0].name
        raise UserError(f"--images={shown}: compare it with one of --reference=FOLDER, --workdir=RUN and "
                        "--statistics=FILE.npz")
    if "samples" in (settings or {}):
        raise UserError(f"--samples={settings['samples']} has no meaning with --images: all of them are measured, or "
                        "as many as a name says, such as fid5k")
    if section.split and not workdir:
        raise UserError(f"--split={section.split}: only a run's data has splits, give --workdir")
    if out and not pathlib.Path(out).absolute().parent.is_dir():
        raise UserError(f"--out={out}: expected a file in a folder that is there")
    if resize is not None and resize < 1:
        raise UserError(f"--resize={resize}: expected a whole number from 1 on")
    opened = functools.cache(lambda images: _opened(images, resize or 0))
    fakes, names = opened(images)
    section.samples = fakes.size
    listed = _listed(listed_names(metrics) or (DEFAULT,), section, fakes, paired=bool(reference))
    rows = []
    paired = [name for name in listed if name in PAIRED]
    if paired:
        rows += _pairs(paired, (fakes, names), opened(reference), section)
    unpaired = protocols.listed_protocols(section, tuple(name for name in listed if name not in PAIRED))
    planned = plans.ready(
        unpaired, section, shape=fakes.shape, seed=0,
        open_reals=lambda: opened(reference)[0] if reference else _open_reals(workdir, section, data),
    )
    if planned:
        if save_statistics:
            print(planned.save_statistics(save_statistics), flush=True)
        own = real_side.of(fakes)
        rows += planned.measure(lambda needs: planned.forward(needs, own.images), _no_path)
    rows.sort(key=lambda row: listed.index(row["group"]))
    common = {"images_of": fakes.name, "images_fingerprint": fakes.fingerprint,
            "images_resolution": str(list(fakes.shape[:2])), "samples": fakes.size, "seed": 0}
    common |= {"resized": f"{resize} lanczos center"} if resize else {}
    rows = report.finished([{**common, **row} for row in rows], began, provenance.code_sha256())
    try:
        for row in rows if out else ():
            logs.append_line(pathlib.Path(out), row)
    except UserError:
        print(report.table(rows), flush=True)
        raise
    return rows


def _opened(images: str | Opened, size: int) -> Opened:
    """See `data.open_images`; tells what a person should know of them."""
    if not isinstance(images, str):
        return images
    dataset, names = data_sets.open_images(images, size)
    for note in dataset.notes:
        print(note, flush=True)
    return dataset, names


def _no_path(plan) -> float:
    raise AssertionError(plan.protocol.name)  # `_listed` has refused it


def _section(settings: Mapping[str, str]) -> ConfigDict:
    config = ConfigDict({"evaluation": {**runs.DEFAULTS["evaluation"], "features": "inception"}})
    for key, text in settings.items():
        try:
            configs.override(config, f"evaluation.{key}", text)
        except UserError as error:  # there is no config here, and each key is a flag
            raise UserError(str(error).replace("--config.evaluation.", "--")) from error
    networks.check(config.evaluation, "--")
    return config.evaluation


def _listed(names: tuple[str, ...], section: ConfigDict, fakes, *, paired: bool) -> tuple[str, ...]:
    listed = tuple(dict.fromkeys(protocols.meant(name, section) for name in names))
    for name in listed:
        protocol = protocols.parse(name)
        if protocols.judged_of((name,)) and section.features in ("none", *networks.JUDGES):
            raise UserError(f"metrics={name}: of a folder's images, it needs --features such as inception or "
                            f"random_inception, not {section.features!r}")
        if name in IN_HOLES:
            raise UserError(f"metrics={name}: of a run alone, whose holes are known: give --workdir")
        if name in PAIRED:
            if not paired:
                raise UserError(f"metrics={name}: compares two folders, image by image: give --reference=FOLDER")
            continue
        if name not in ("fd", "kd", "prdc", *protocols.OF_IMAGES) and (protocol is None or protocol.kind == "ppl"):
            raise UserError(f"metrics={name!r}: of a folder of images, expected some of fd, kd, prdc, "
                            f"{', '.join((*protocols.OF_IMAGES, *OF_FOLDERS))}, or such as fid10k, fid50k_full, pfid, "
                            "kid50k_full, pr50k3_full, is50k, swd16k, msssim10k")
        if protocol is not None and protocol.samples > fakes.size:
            raise UserError(f"metrics={name}: of {protocol.samples} images, and {fakes.name.partition(':')[2]} has "
                            f"{fakes.size}; list it without a count, such as fid, for all of them")
        protocols.check_count(name)
    return listed


def _open_reals(workdir: str, section: ConfigDict, place: str):
    if not workdir:
        raise UserError(f"--statistics={section.statistics} holds moments, enough for Frechet distances alone, "
                        "such as fid; for the other metrics give --reference or --workdir")
    config, _, _ = folders.read_folder(workdir)
    if place:
        folders.move_data(workdir, config, place)
    dataset = run_data.open_data(config, section.split)
    for note in dataset.notes:
        print(note, flush=True)
    return dataset


def _pairs(names: list[str], fakes: Opened, reals: Opened, section: ConfigDict) -> list[dict]:
    """Means over pairs of images of one name."""
    (ours, own), (theirs, other) = fakes, reals
    if own != other:
        lone = sorted(set(own) ^ set(other))[:3]
        raise UserError(f"metrics={','.join(names)}: the folders hold other names, such as {', '.join(lone)}; images "
                        "are compared with those of their own name")
    if ours.shape != theirs.shape:
        both = f"{ours.shape[:2]} and {theirs.shape[:2]}"
        raise UserError(f"metrics={','.join(names)}: images are {both}; expected one size, which "
                        "--resize=SIZE gives")
    sizes.check_pairs(names, ours.shape, section.border)
    protocol = {"data": theirs.name, "data_fingerprint": theirs.fingerprint, "channels": "RGB"}
    rows = []
    for name in names:
        net = networks.load(name, section) if name.startswith("lpips_") else None
        targets = pairs.Targets(theirs.size, lambda n: theirs.examples(n)["image"], protocol)
        compared = pairs.Pairs(name, net, targets, section.border)
        for start in range(0, ours.size, pairs.AT_ONCE):
            compared.update(ours.examples(np.arange(start, min(start + pairs.AT_ONCE, ours.size)))["image"])
        value, beside = compared.finish()
        if net:
            beside |= {"features": net.name, "features_sha256": net.sha256, "preprocessing": net.preprocessing}
        rows.append({"group": name, "metric": net.name if net else name, "value": value, **beside})
    return rows
