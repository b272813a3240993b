"""One picture file of any size and mode to an array, and back to a file with what belongs to the picture.

Beside its pixels a picture has depth, transparency, a colour profile, the notes of a camera and pixels to an inch.
"""

import contextlib
import io
import os
import pathlib
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gan_jax.data.fit import MEND, CorruptImageError, open_image, opened, unusable
from gan_jax.errors import UserError

ORIENTATION = 0x0112  # EXIF's tag
TURNS = {  # its value -> what makes the pixels (H, W, C) upright
    2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1), 6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: lambda x: x[:, ::-1].swapaxes(0, 1),
}  # fmt: skip
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
LONGEST = {"JPEG": 65_500, "WEBP": 16_383}  # pixels of a side, of formats that have less than any picture
DEEP = ("PNG", "TIFF")  # formats of 16 bits a channel
TRANSPARENT = ("PNG", "WEBP", "TIFF")
MOST_DPI = 1e6  # pixels to an inch; what is more is a mistake
QUALITY = 95  # of JPEG and WebP
DEEP_RAW = re.compile(r"(L|RGB|RGBA|RGBX|LA);16([BLN])")  # what Pillow calls the pixels of such files
OTHER_END = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


class Picture(NamedTuple):
    """A picture, upright."""

    pixels: np.ndarray  # float32 (H, W, 1 or 3) in [0, 1], not multiplied by alpha
    alpha: np.ndarray | None = None  # float32 (H, W) in [0, 1]; None of pictures without
    depth: int = 8  # bits of a channel: 8 or 16
    keep: dict[str, Any] = {}  # icc_profile, exif without the orientation, dpi: what `write` takes
    notes: tuple[str, ...] = ()  # what is not as in the file


class Look(NamedTuple):
    """What a file's beginning tells."""

    width: int  # upright
    height: int
    has_alpha: bool
    depth: int


def look(data: bytes, name: str) -> Look:
    """Size and mode of an encoded picture, from its header. Raises CorruptImageError where it is too large or none."""

    def read(image) -> Look:
        from PIL import Image

        if image.width * image.height > (most := 2 * (Image.MAX_IMAGE_PIXELS or sys.maxsize)):
            raise CorruptImageError(f"{image.width}x{image.height} pixels are more than {most:,}")
        depth, is_sideways = 16 if _is_deep(image) else 8, False
        if image.format != "PNG" or "exif" in image.info:  # to look behind a PNG's pixels would decode them
            is_sideways = image.getexif().get(ORIENTATION, 1) >= 5
        return Look(*(image.size[::-1] if is_sideways else image.size), image.has_transparency_data, depth)

    with _without_warnings():
        return _header(data, name, read)


def _header(data: bytes, name: str, use):
    """What `use` makes of a picture whose pixels are not decoded."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # Pillow would refuse it with other words
    try:
        with open_image(data) as image:
            Image.MAX_IMAGE_PIXELS = limit
            return use(image)
    except Exception as error:  # Pillow's plugins raise nearly everything on a damaged file
        reason = str(error) if isinstance(error, CorruptImageError) else f"{type(error).__name__}: {error}"
        if "cannot identify image file" in reason:
            reason = f"not an image that PIL can read ({len(data):,} bytes)"
        raise unusable(name, reason, MEND) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Of Pillow, for pictures that are large or whose notes are damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(data: bytes, name: str) -> Picture:
    """An encoded picture; of an animation the first one.

    Args:
      data: PNG, JPEG, WebP, TIFF or whatever else Pillow reads.
      name: what to call it in an error.
    Raises:
      CorruptImageError: damaged, not an image, or floating-point pixels.
    """
    with _without_warnings():
        return opened(data, lambda image: _picture(image, data), name, way_out=MEND)


def _picture(image, data: bytes) -> Picture:
    notes = ["the first of several pictures"] if getattr(image, "is_animated", False) else []
    keep = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key)}
    if not all(0 < float(n) < MOST_DPI for n in keep.get("dpi", ())):  # 0/0, which is no number, is not either
        del keep["dpi"]
    exif = image.getexif()
    turn = TURNS.get(exif.pop(ORIENTATION, 1), lambda x: x)
    keep |= {"exif": exif.tobytes()} if len(exif) else {}
    values = _deep(image, data)
    if values is None:
        if _is_deep(image):
            notes.append(f"16 bits a channel are read as 8, of {image.format} in this form")
        image = _plain(image, keep, notes)
        values = np.asarray(image).reshape(image.height, image.width, -1)
    values, depth = turn(values), 16 if values.dtype == np.uint16 else 8
    values = np.divide(values, 2**depth - 1, dtype=np.float32)
    alpha = values[..., -1] if values.shape[2] in (2, 4) else None
    return Picture(values[..., : 1 if values.shape[2] < 3 else 3], alpha, depth, keep, tuple(notes))


def _plain(image, keep: dict, notes: list[str]):
    """A PIL image of mode L, LA, RGB or RGBA; adds to `notes` what that changes, and takes from `keep`."""
    if image.mode == "F":
        raise CorruptImageError("floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode == "CMYK":
        return _of_inks(image, keep, notes)
    modes = {"1": "L", "La": "LA", "RGBa": "RGBA", "P": "RGB", "PA": "RGBA", "L": "L", "RGB": "RGB"}
    target = modes.get(image.mode, image.mode if image.mode in ("LA", "RGBA") else "RGB")
    if image.has_transparency_data:
        target = {"L": "LA", "RGB": "RGBA"}.get(target, target)
    if target != image.mode:
        notes.append(f"mode {image.mode} becomes {target}") if image.mode not in ("1", "L", "RGB") else None
        image = image.convert(target)
    return image


def _of_inks(image, keep: dict, notes: list[str]):
    """CMYK to RGB, through the picture's own profile where it has one that can be used."""
    from PIL import ImageCms

    profile = keep.pop("icc_profile", None)
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            notes.append("CMYK becomes sRGB, by its colour profile")
            return converted
    notes.append("CMYK becomes RGB, without a colour profile")
    return image.convert("RGB")


# 16 bits a channel. Pillow has such pixels in grey alone; of others it keeps one byte, and can be had to keep either.


def _raw(tile) -> str:
    return tile.args if isinstance(tile.args, str) else str(tile.args[0]) if tile.args else ""


def _is_deep(image) -> bool:
    """Whether the file of an image, opened or loaded, has 16 bits a channel."""
    return image.mode.startswith("I") or any(DEEP_RAW.fullmatch(_raw(tile)) for tile in getattr(image, "tile", ()))


def _deep(image, data: bytes) -> np.ndarray | None:
    """uint16 (H, W, C) of a loaded image with so many bits; None of others, and where Pillow offers one byte alone."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise CorruptImageError(f"mode {image.mode!r} with values outside 0..65535")
        return _with_key(values.astype(np.uint16)[..., None], image.info.get("transparency"))
    with open_image(data) as first:
        raws = {match.group(0) for tile in first.tile if (match := DEEP_RAW.fullmatch(_raw(tile)))}
    if len(raws) != 1 or image.mode not in ("RGB", "RGBA"):
        return None
    (raw,) = raws
    if raw == "LA;16B":
        return np.frombuffer(_load_as(data, "RGBA").tobytes(), ">u2").reshape(*image.size[::-1], 2).astype(np.uint16)
    if raw.startswith("L"):
        return None
    high, low = (np.asarray(_load_as(data, name), np.uint16) for name in (raw, raw[:-1] + OTHER_END[raw[-1]]))
    return _with_key(high << 8 | low, image.info.get("transparency"))


def _load_as(data: bytes, raw: str):
    """The picture, as if its file said that its pixels are `raw`."""
    image = open_image(data)
    tiles = []
    for tile in image.tile:
        args = raw if isinstance(tile.args, str) else (raw, *tile.args[1:])
        tiles.append(tile._replace(args=args))
    image.tile = tiles
    image.load()
    return image


def _with_key(values: np.ndarray, key: Any) -> np.ndarray:
    """Adds an alpha that is 0 where pixels have the colour `key`, if there is one."""
    if key is None or isinstance(key, bytes):
        return values
    alpha = np.where((values == np.asarray(key)).all(-1, keepdims=True), 0, 65535).astype(np.uint16)
    return np.concatenate([values, alpha], -1)


# Writing.


def writable(path: pathlib.Path, width: int, height: int) -> None:
    """Raises UserError where the format of a file has no pictures of this size."""
    most = LONGEST.get(FORMATS[path.suffix.lower()], sys.maxsize)
    if max(width, height) > most:
        raise UserError(f"{path}: {width}x{height} pixels; the format has sides up to {most}: --format=png has any")


def losses(path: pathlib.Path, *, depth: int, has_alpha: bool) -> tuple[str, ...]:
    """What a file of this ending cannot hold of a picture."""
    form = FORMATS[path.suffix.lower()]
    deep = ("16 bits a channel become 8",) if depth == 16 and form not in DEEP else ()
    return deep + (("transparency becomes white",) if has_alpha and form not in TRANSPARENT else ())


def write(path: pathlib.Path, values: np.ndarray, keep: dict[str, Any], *, quality: int = QUALITY) -> None:
    """Writes one picture, whole or not at all: to another name in the same folder first, which is then renamed.

    Args:
      path: its ending, one of `FORMATS`, says the format.
      values: uint8 or uint16 (H, W, C), C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA); what the format cannot
        hold is lost, see `losses`.
      keep: of `Picture`.
      quality: 1 to 100, of JPEG and WebP.
    Raises:
      OSError: it cannot be written.
    """
    form = FORMATS[path.suffix.lower()]
    if form not in TRANSPARENT and values.shape[2] in (2, 4):
        values = _on_white(values)
    if form not in DEEP and values.dtype == np.uint16:
        values = np.round(values / 257.0).astype(np.uint8)
    part = path.with_name(f".{path.name}.part")
    try:
        if values.dtype == np.uint16:
            (_write_deep_png if form == "PNG" else _write_deep_tiff)(part, values, keep)
        else:
            _write_plain(part, form, values, keep, quality)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _on_white(values: np.ndarray) -> np.ndarray:
    most = np.iinfo(values.dtype).max
    alpha = values[..., -1:].astype(np.float32) / most
    return np.round(values[..., :-1] * alpha + most * (1 - alpha)).astype(values.dtype)


def _write_plain(part: pathlib.Path, form: str, values: np.ndarray, keep: dict, quality: int) -> None:
    from PIL import Image

    values = values[..., 0] if values.shape[2] == 1 else values
    options = {"icc_profile": keep["icc_profile"]} if keep.get("icc_profile") else {}
    options |= {key: keep[key] for key in ("exif", "dpi") if key in keep and (key, form) != ("exif", "TIFF")}
    options |= {"JPEG": {"quality": quality, "subsampling": 0}, "WEBP": {"quality": quality}}.get(form, {})
    options |= {"compression": "tiff_adobe_deflate"} if form == "TIFF" else {}
    Image.fromarray(np.ascontiguousarray(values)).save(part, format=form, **options)


def _write_deep_tiff(part: pathlib.Path, values: np.ndarray, keep: dict) -> None:
    import tifffile  # a dependency of scikit-image

    options = {"iccprofile": keep["icc_profile"]} if keep.get("icc_profile") else {}
    options |= {"resolution": keep["dpi"], "resolutionunit": "INCH"} if "dpi" in keep else {}
    options |= {"extrasamples": ["unassalpha"]} if values.shape[2] in (2, 4) else {}
    values = values[..., 0] if values.shape[2] == 1 else values
    photometric = "rgb" if values.ndim == 3 and values.shape[2] > 2 else "minisblack"
    tifffile.imwrite(part, values, photometric=photometric, planarconfig="contig", metadata=None, **options)


def _write_deep_png(part: pathlib.Path, values: np.ndarray, keep: dict) -> None:
    """By the specification (PNG, ISO 15948): rows as differences from the row above, most significant bytes first."""
    height, width, channels = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, -1)
    lines = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # each begins with the filter's number
    lines[0, 1:], lines[1:, 1:] = rows[0], rows[1:] - rows[:-1]
    with open(part, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
        if keep.get("icc_profile"):
            _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(keep["icc_profile"]))
        if "dpi" in keep:
            _chunk(file, b"pHYs", struct.pack(">IIB", *(round(float(n) / 0.0254) for n in keep["dpi"]), 1))
        if "exif" in keep:
            _chunk(file, b"eXIf", keep["exif"].removeprefix(b"Exif\0\0"))
        _chunk(file, b"IDAT", zlib.compress(lines, 6))
        _chunk(file, b"IEND", b"")


def _chunk(file, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
