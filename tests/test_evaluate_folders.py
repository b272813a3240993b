"""Folders and zips of images from any program, against each other or against a run's data."""

import json
import os
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import cli, evaluate, metrics, run_data
from gan_jax.errors import MissingPathError, UserError
from gan_jax.features import networks
from tests import settings, tiny_network


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(networks.KINDS, "inception", tiny_network.KIND)
    monkeypatch.setattr(networks.store, "load", lambda name, **_: tiny_network.weights(published=True))


def pictures(count: int, seed: int, size=(16, 16)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def save(folder, images, names=None) -> str:
    for i, image in enumerate(images):
        path = folder / (names[i] if names else f"{i:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return str(folder)


def frechet(a, b) -> float:
    state = tiny_network.weights(True).state
    a, b = (metrics.moments(tiny_network.features(x, state)) for x in (a, b))
    return metrics.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def test_two_folders(tmp_path):
    """Sub-folders, loose images and grey ones are images; without metrics it is FID of all."""
    ours, theirs = pictures(15, 0), pictures(12, 1)
    names = ["a/1.png", "a/2.png", "b/x.png", *(f"{i:03}.png" for i in range(12))]
    a, b = save(tmp_path / "a", ours, names), save(tmp_path / "b", theirs)
    out = tmp_path / "rows.jsonl"
    rows = evaluate.compare_folders(a, reference=b, out=str(out))
    assert [row["metric"] for row in rows] == ["fid15_full"]
    assert rows[0]["value"] == pytest.approx(frechet(ours, theirs), rel=1e-5)
    row = rows[0]
    assert (row["samples"], row["reals"], row["data"], row["images_of"]) == (15, 12, f"folder:{b}", f"folder:{a}")
    assert len(row["images_fingerprint"]) == 64 and row["images_resolution"] == "[16, 16]" and "step" not in row
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert f"folder:{a}, 15 samples" in evaluate.table(rows)


def test_patches_of_two_folders(tmp_path):
    """Squares side by side, in any order; the rest of a side is left out, and sizes may differ."""
    ours, theirs = pictures(15, 0, (19, 24)), pictures(12, 1, (16, 16))
    a, b = save(tmp_path / "a", ours), save(tmp_path / "b", theirs)
    rows = evaluate.compare_folders(a, reference=b, metrics="pfid15x8_full,pfid10x8")
    corners = [[(y, x) for y in (0, 8) for x in range(0, images.shape[2] - 7, 8)] for images in (ours, theirs)]
    squares = [np.concatenate([images[:, y : y + 8, x : x + 8] for y, x in places])
               for images, places in zip((ours, theirs), corners, strict=True)]
    assert [len(one) for one in squares] == [90, 48]
    assert rows[0]["value"] == pytest.approx(frechet(*squares), rel=1e-5)
    assert rows[0]["preprocessing"].startswith("patches of 8x8, ") and rows[0]["metric"] == "pfid15x8_full"
    assert (rows[0]["samples"], rows[0]["reals"], rows[0]["better"]) == (15, 12, "lower")
    assert (rows[1]["samples"], rows[1]["reals"]) == (10, 10)
    for name, message in (("pfid", "pfid15_full: of patches of 64x64 of images 16x16; .* such as pfid15x8"),
                          ("pfid15x20", "of patches of 20x20"), ("pfid99x8", "of 99 images")):
        with pytest.raises(UserError, match=message):
            evaluate.compare_folders(a, reference=b, metrics=name)


def test_moments_of_a_file_are_not_those_of_patches(tmp_path):
    a = save(tmp_path / "a", pictures(14, 3))
    evaluate.compare_folders(a, reference=a, metrics="pfid14x8_full,fid", save_statistics=str(tmp_path / "s.npz"))
    assert metrics.load_moments(tmp_path / "s.npz").count == 14
    with pytest.raises(UserError, match="holds moments"):
        evaluate.compare_folders(a, settings={"statistics": str(tmp_path / "s.npz")}, metrics="pfid14x8_full")


def test_border_and_sharpness_by_the_command(tmp_path, capsys):
    """One value of a pair of folders is without its border, one beside that of the other folder."""
    ours, theirs = pictures(5, 0, (24, 20)), pictures(5, 1, (24, 20)) // 2
    a, b = save(tmp_path / "a", ours), save(tmp_path / "b", theirs)
    command = ["evaluate", f"--images={a}", f"--reference={b}", "--metrics=pooled_psnr,sharpness", "--border=4"]
    assert cli.main([*command, f"--out={tmp_path}/rows.jsonl"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    squares = np.square(ours.astype(float) - theirs)[:, 4:-4, 4:-4].mean()
    assert rows[0]["value"] == pytest.approx(10 * np.log10(255**2 / squares)) and rows[0]["border"] == 4
    assert rows[1]["value"] == pytest.approx(metrics.sharpness(ours).mean())
    assert rows[1]["value_of_reals"] == pytest.approx(metrics.sharpness(theirs).mean())
    assert "(reals " in capsys.readouterr().out


def test_a_zip_is_as_its_folder(tmp_path):
    a, b = save(tmp_path / "a", pictures(9, 0)), save(tmp_path / "b", pictures(9, 1))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in (tmp_path / "a").iterdir():
            archive.write(file, f"inner/{file.name}")
    found = [evaluate.compare_folders(path, reference=b, metrics="fid,kid,swd9,prdc7")
             for path in (a, str(tmp_path / "a.zip"))]
    assert [row["value"] for row in found[0]] == [row["value"] for row in found[1]]
    assert [row["metric"] for row in found[0]][:3] == ["fid9_full", "kid9_full", "swd9"]


def test_a_folder_against_a_runs_data_and_against_statistics(tmp_path):
    config = settings.digits(data__name="synthetic:20")
    settings.fresh_folder(config, tmp_path / "run")
    dataset = run_data.open_data(config)
    reals = dataset.examples(np.arange(20))["image"]
    ours = pictures(14, 3)
    a = save(tmp_path / "a", ours)
    rows = evaluate.compare_folders(a, workdir=str(tmp_path / "run"), metrics="fid,fid8",
                                    save_statistics=str(tmp_path / "s.npz"))
    assert rows[0]["value"] == pytest.approx(frechet(ours, reals), rel=1e-5)
    assert rows[0]["data"] == "synthetic:20" and (rows[1]["samples"], rows[1]["reals"]) == (8, 8)
    again = evaluate.compare_folders(a, settings={"statistics": str(tmp_path / "s.npz")})
    assert again[0]["value"] == pytest.approx(rows[0]["value"], rel=1e-9) and again[0]["reals"] == 20
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()


def test_pairs_of_images(tmp_path):
    """Means of the metrics of each pair, paired by name whatever the order of writing."""
    ours = pictures(19, 0, (24, 20))
    theirs = np.clip(ours.astype(int) + np.random.default_rng(1).integers(-20, 20, ours.shape), 0, 255).astype(np.uint8)
    names = [f"{i}.png" for i in range(19)]
    a, b = save(tmp_path / "a", ours, names), save(tmp_path / "b", theirs[::-1], names[::-1])
    rows = evaluate.compare_folders(a, reference=b, metrics="ssim,psnr")
    assert [row["metric"] for row in rows] == ["ssim", "psnr"] and [row["better"] for row in rows] == ["higher"] * 2
    assert rows[0]["value"] == pytest.approx(metrics.ssim(ours, theirs).mean(), rel=1e-12)
    assert rows[1]["value"] == pytest.approx(metrics.psnr(ours, theirs).mean(), rel=1e-12)
    assert rows[1]["unit"] == "dB" and rows[1]["pairs"] == 19


def test_lpips_of_pairs(tmp_path):
    """Equal to the distance of each pair; equal images are at distance nought."""
    from gan_jax.features import lpips

    ours, theirs = pictures(3, 0, (48, 48)), pictures(3, 1, (48, 48))
    a, b = save(tmp_path / "a", ours), save(tmp_path / "b", theirs)
    drawn = {"features": "random_inception"}
    row = evaluate.compare_folders(a, reference=b, metrics="lpips_alex", settings=drawn)[0]
    section = settings.digits(evaluation__features="random_inception").evaluation
    variables = networks.perceptual("alex", section).variables
    assert row["value"] == pytest.approx(float(jax.jit(lpips.distance)(variables, ours, theirs).mean()), rel=1e-5)
    assert (row["metric"], row["better"]) == ("random_lpips_alex", "lower") and len(row["features_sha256"]) == 64
    assert evaluate.compare_folders(a, reference=a, metrics="lpips_alex", settings=drawn)[0]["value"] == 0


def squares(images, size: int) -> np.ndarray:
    """Central squares of images of any size, resized by Pillow."""
    resized = []
    for image in images:
        h, w = image.shape[:2]
        side = min(h, w)
        y, x = (h - side) // 2, (w - side) // 2
        square = Image.fromarray(image[y : y + side, x : x + side])
        resized.append(np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)))
    return np.stack(resized)


def test_folders_of_several_sizes_are_resized(tmp_path):
    """Both sides' images become central squares of one size; what has it already is taken as it is."""
    ours, theirs = [*pictures(5, 0, (20, 31)), *pictures(5, 1)], [*pictures(9, 2, (40, 24)), *pictures(1, 3)]
    a, b = save(tmp_path / "a", ours), save(tmp_path / "b", theirs)
    rows = evaluate.compare_folders(a, reference=b, metrics="fid,psnr", resize=16)
    assert rows[0]["value"] == pytest.approx(frechet(squares(ours, 16), squares(theirs, 16)), rel=1e-5)
    assert rows[1]["value"] == pytest.approx(metrics.psnr(squares(ours, 16), squares(theirs, 16)).mean(), rel=1e-12)
    for row in rows:
        assert row["resized"] == "16 lanczos center" and row["images_resolution"] == "[16, 16]"
    plain = save(tmp_path / "plain", pictures(9, 0))
    same = [evaluate.compare_folders(plain, reference=plain, metrics="psnr", **size) for size in ({}, {"resize": 16})]
    assert same[0][0]["data_fingerprint"] == same[1][0]["data_fingerprint"] and "resized" not in same[0][0]


def test_resizing_by_the_command(tmp_path, capsys):
    a, b = save(tmp_path / "a", pictures(9, 0, (20, 16))), save(tmp_path / "b", pictures(9, 1))
    command = ["evaluate", f"--images={a}", f"--reference={b}"]
    assert cli.main([*command, "--metrics=swd9", "--resize=32"]) == 0
    assert "resized to 32 lanczos center" in capsys.readouterr().out
    for text in ("0", "-3", "2.5", "large"):
        assert cli.main([*command, f"--resize={text}"]) == 2
        assert f"--resize={text}: expected a whole number" in capsys.readouterr().err
    assert cli.main(["evaluate", f"--workdir={a}", "--resize=16"]) == 2
    assert "--resize has no meaning with --workdir" in capsys.readouterr().err


def test_what_is_passed_over_is_told_before_the_table(tmp_path, capsys):
    """Of both sides, once each, whatever opens them: pairs and distances, or a run's data."""
    a, b = save(tmp_path / "a", pictures(9, 0)), save(tmp_path / "b", pictures(9, 1, (32, 32)))
    for folder in (a, b):
        for name in ("list.txt", "more.csv"):
            with open(os.path.join(folder, name), "w") as file:
                file.write("no picture")
    settings.fresh_folder(settings.digits(data__name=f"folder:{b}", data__channels=3), tmp_path / "run")
    for other in (f"--reference={b}", f"--workdir={tmp_path / 'run'}"):
        paired = ",psnr" if "reference" in other else ""
        assert cli.main(["evaluate", f"--images={a}", other, f"--metrics=fid{paired}", "--resize=32"]) == 0
        out = capsys.readouterr().out
        for folder in (a, b):
            line = f"{folder}: 2 files passed over, no pictures: .csv 1, .txt 1\n"
            assert out.count(line) == 1 and out.index(line) < out.index("fid9_full"), out


def test_values_that_cannot_be_written_are_printed(tmp_path, capsys):
    (tmp_path / "full").symlink_to("/dev/full")
    a, b = save(tmp_path / "a", pictures(9, 0)), save(tmp_path / "b", pictures(9, 1))
    assert cli.main(["evaluate", f"--images={a}", f"--reference={b}", f"--out={tmp_path / 'full'}"]) == 2
    out, err = capsys.readouterr()
    assert "fid9_full" in out and "full: cannot be written: No space left on device. Make room" in err


def test_mistakes(tmp_path):
    a, b = save(tmp_path / "a", pictures(9, 0)), save(tmp_path / "b", pictures(9, 1))
    several = save(tmp_path / "several", [*pictures(2, 0), *pictures(2, 1, (16, 20))])
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"no image")
    other = save(tmp_path / "other", pictures(9, 1), [f"z{i}.png" for i in range(9)])

    def refused(message, images=a, kind=UserError, **kwargs):
        with pytest.raises(kind, match=message):
            evaluate.compare_folders(images, **kwargs)

    refused(r"2 sizes, such as 16x16 \(000.png\), 20x16 \(002.png\): expected one size.*--resize=SIZE", several,
            reference=b)
    refused("2 sizes", reference=several)
    refused("empty holds no images", str(tmp_path / "empty"), reference=b)
    refused("broken/x.png cannot be used: it is no image that can be read. Mend or remove it.$",
            str(tmp_path / "broken"), reference=b)
    refused("no folder or .zip", str(tmp_path / "nowhere"), MissingPathError, reference=b)
    refused("compare it with one of --reference")
    refused("compare it with one of --reference", reference=b, workdir=str(tmp_path))
    refused("fid10k: of 10000 images, and .*a has 9; list it without a count", reference=b, metrics="fid10k")
    refused("metrics='classes': of a folder of images, expected some of", reference=b, metrics="classes")
    refused("metrics='ppl2_wend': of a folder", reference=b, metrics="ppl2_wend")
    refused("psnr: the folders hold other names, such as", reference=other, metrics="psnr")
    refused("lpips_vgg: compares two folders", workdir=str(tmp_path), metrics="lpips_vgg")
    refused("^--features='vgg': expected one of", reference=b, settings={"features": "vgg"})
    refused("^--batch_size=many: expected int", reference=b, settings={"batch_size": "many"})
    refused("^--preprocessing='cleen': expected one of", reference=b, settings={"preprocessing": "cleen"})
    for features in ("none", "digits_classifier"):
        refused(f"metrics=fd: of a folder's images, it needs --features .* not '{features}'", reference=b, metrics="fd",
                settings={"features": features})
    refused("^--batch_size=-5: expected 0 or more", reference=b, settings={"batch_size": "-5"})
    refused("--samples=10 has no meaning with --images", reference=b, settings={"samples": "10"})
    refused("--split=foo: only a run's data has splits", reference=b, settings={"split": "foo"})
    refused("--out=.*: expected a file in a folder that is there", reference=b, out=str(tmp_path / "no" / "x.jsonl"))
    for path in (tmp_path / "no" / "x.npz", tmp_path):
        refused("--save_statistics=.*: expected a file in a folder", reference=b, save_statistics=str(path))
    small = save(tmp_path / "small", pictures(9, 2, (32, 32)))
    refused(r"swd9: of images \(16, 16, 3\) against reals \(32, 32, 3\)", reference=small, metrics="swd9")
    evaluate.compare_folders(a, reference=b, save_statistics=str(tmp_path / "s.npz"))
    refused("holds moments, enough for Frechet distances alone", metrics="fid,kid",
            settings={"statistics": str(tmp_path / "s.npz")})


@pytest.mark.parametrize(("name", "least"), [("ssim", 11), ("lpips_vgg", 16), ("lpips_alex", 31), ("ms_ssim", 161)])
def test_images_that_are_too_small_for_a_metric(tmp_path, name, least):
    """The error names the metric, the images' size and the least; at the least there is a value."""
    drawn = {"features": "random_inception"}
    small, large = (save(tmp_path / str(side), pictures(2, 0, (side, side + 1))) for side in (least - 1, least))
    message = f"^metrics={name}: of images {least - 1}x{least}; expected {least}x{least} or larger"
    with pytest.raises(UserError, match=message):
        evaluate.compare_folders(small, reference=small, metrics=f"psnr,{name}", settings=drawn)
    assert np.isfinite(evaluate.compare_folders(large, reference=large, metrics=name, settings=drawn)[0]["value"])


def test_an_image_that_is_cut_short_is_to_be_mended(tmp_path):
    """Its header is whole, so that it is seen late; there is no config whose key could help."""
    a = save(tmp_path / "a", pictures(9, 0))
    file = tmp_path / "a" / "004.png"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a/004.png cannot be used: .*\. Mend or remove it\.$"):
        evaluate.compare_folders(a, reference=save(tmp_path / "b", pictures(9, 1)))


def test_reals_of_other_channels_than_networks_take(tmp_path):
    settings.fresh_folder(settings.digits(data__name="synthetic:8", data__channels=4), tmp_path / "run")
    with pytest.raises(UserError, match=r"synthetic:8/train has images of the shape \(32, 32, 4\): feature"):
        evaluate.compare_folders(save(tmp_path / "a", pictures(9, 0)), workdir=str(tmp_path / "run"))


def test_an_overview_of_samples_is_none_of_them(tmp_path):
    """`sample` writes its images and a grid of them into one folder."""
    names = [*map("seed{}.png".format, range(9)), "grid.png"]
    folder = save(tmp_path / "a", [*pictures(9, 0), *pictures(1, 5, (50, 50))], names)
    plain = save(tmp_path / "b", pictures(9, 0))
    (row,) = evaluate.compare_folders(folder, reference=plain)
    assert row["samples"] == 9 and row["value"] < 1e-9


def test_folders_are_told_apart_by_their_content(tmp_path):
    """Names, sizes and times are no content, and a copy elsewhere is the same data."""
    folders = []
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        folders.append(tmp_path / name)
        for i, image in enumerate(pictures(9, seed)):
            folders[-1].mkdir(exist_ok=True)
            Image.fromarray(image).save(folders[-1] / f"{i}.bmp")
            os.utime(folders[-1] / f"{i}.bmp", (0, 0))
    a, b, c = map(str, folders)
    psnr, fid = evaluate.compare_folders(a, reference=b, metrics="psnr,fid")
    assert psnr["value"] < 20 and fid["value"] == pytest.approx(frechet(pictures(9, 0), pictures(9, 1)), rel=1e-5)
    assert fid["images_fingerprint"] != fid["data_fingerprint"]
    same = evaluate.compare_folders(a, reference=c, metrics="fid,psnr")
    assert same[0]["images_fingerprint"] == same[0]["data_fingerprint"] and same[0]["value"] < 1e-9
    assert same[1]["value"] is None and same[1]["equal_pairs"] == 9


def test_the_command(tmp_path, capsys):
    a, b = save(tmp_path / "a", pictures(9, 0)), save(tmp_path / "b", pictures(9, 1))
    assert cli.main(["evaluate", f"--images={a}", f"--reference={b}", "--preprocessing=clean", "--flip_reals"]) == 0
    out = capsys.readouterr().out
    assert "fid9_full_clean" in out and "18 reals of folder:" in out and "Pillow" in out
    assert cli.main(["evaluate", f"--images={a}", f"--reference={b}", "--step=3"]) == 2
    assert "--step has no meaning with --images" in capsys.readouterr().err
    assert cli.main(["evaluate", f"--workdir={a}", f"--reference={b}"]) == 2
    assert "--reference has no meaning with --workdir" in capsys.readouterr().err
    assert cli.main(["evaluate", f"--compare={tmp_path}/nowhere,{b}"]) == 2
    assert "nowhere: neither a run's folder nor a file of rows" in capsys.readouterr().err
    assert cli.main(["evaluate", f"--compare={a},{b}"]) == 0
    assert "none of the runs has been measured" in capsys.readouterr().out
    assert cli.main(["evaluate", f"--compare={a},{b}", "--metrics=fid"]) == 2
