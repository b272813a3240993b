"""One picture of any size and mode to uint8 (H, W, C): crop, convert, resize."""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gan_jax.data.checks import natural, unknown
from gan_jax.errors import UserError, plain

CROPS = ("center", "none", "box")
ROUNDING = 1e-3  # pixels
AROUND = 0.75  # half of the side of the square about a bounding box, in lengths of the box's longer side
FILTERS = ("box", "bilinear", "lanczos", "bicubic", "nearest")
MEND = "Mend or remove it."
SKIP = "Mend or remove it; a run passes over such images with data.skip_corrupt=True."
LOOKED_AT = 8  # pictures of a set whose colours are looked at before it is used
READABLE = (  # formats; no PostScript, for which Pillow would start an interpreter that runs what the file says
    "PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "TGA", "JPEG2000", "DDS", "ICO", "ICNS", "PCX",
    "PSD", "SGI", "QOI", "XBM", "XPM",
)  # fmt: skip
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class CorruptImageError(UserError):
    """A picture that cannot be used: truncated, not an image, smaller than `crop_size`, of a strange mode."""


def unusable(name: str, reason: object, way_out: str) -> CorruptImageError:
    """The error for one picture of a set, with the way out: `SKIP` where a config stands behind it, else `MEND`."""
    return CorruptImageError(f"{name} cannot be used: {plain(reason)}. {way_out}")


class Fit(NamedTuple):
    """What is done to each picture."""

    height: int  # pixels
    width: int  # pixels
    channels: int  # 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA
    crop: str  # 'center': cut to the target's aspect ratio; 'box': the same about a bounding box; 'none': stretch
    crop_size: int  # side of a central square cut first, pixels; 0 for none
    filter: str  # PIL's filter for resizing, with antialiasing

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the pictures that come out."""
        return self.height, self.width, self.channels


def make_fit(*, resolution, channels: int, crop: str, crop_size: int, filter: str) -> Fit:
    """Checks the settings of the data section; `resolution` is an int or (H, W). Raises UserError."""
    if hasattr(resolution, "__len__") and not isinstance(resolution, str):
        if len(resolution) != 2:
            raise UserError(f"data.resolution={resolution!r}: expected one number or (height, width).")
        height, width = resolution
    else:
        height = width = resolution
    if crop not in CROPS:
        raise unknown("data.crop", crop, CROPS)
    if filter not in FILTERS:
        raise unknown("data.filter", filter, FILTERS)
    if natural("data.channels", channels, least=1) not in MODES:
        raise unknown("data.channels", channels, MODES)
    if natural("data.crop_size", crop_size, least=0) and crop == "none":
        raise UserError(
            f"data.crop_size={crop_size} cuts a central square, but data.crop='none' cuts nothing: "
            " set data.crop='center', or data.crop_size=0."
        )
    height, width = (natural("data.resolution", side, least=1) for side in (height, width))
    return Fit(height, width, int(channels), crop, int(crop_size), filter)


def crop_box(width: int, height: int, fit: Fit) -> tuple[int, int, int, int]:
    """The part of a picture that is kept, as PIL's (left, upper, right, lower).

    A central square of `crop_size` first, if set, then the largest central part of the target's aspect ratio.

    Raises:
      CorruptImageError: the picture is smaller than `crop_size`.
    """
    if fit.crop == "none":
        return 0, 0, width, height
    w, h = width, height
    if fit.crop_size:
        if min(w, h) < fit.crop_size:
            raise CorruptImageError(f"{w}x{h} pixels are fewer than data.crop_size={fit.crop_size}")
        w = h = fit.crop_size
    crop_w = min(w, max(1, round(h * fit.width / fit.height)))
    crop_h = min(h, max(1, round(w * fit.height / fit.width)))
    left, upper = (width - crop_w) // 2, (height - crop_h) // 2
    return left, upper, left + crop_w, upper + crop_h


def square_about(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """The square about a bounding box, as far as the picture reaches, as PIL's (left, upper, right, lower).

    It is that of AttnGAN's birds (Xu et al. 2018, 1711.10485), half as large again as the box.

    Args:
      box: (y0, x0, y1, x1) as shares of the picture, as TFDS has them.
      width, height: of the picture, pixels.
    Raises:
      CorruptImageError: nothing of it lies in the picture.
    """
    y0, x0, y1, x1 = (float(share) * side for share, side in zip(box, (height, width) * 2, strict=True))
    numbers = AROUND * max(x1 - x0, y1 - y0), (x0 + x1) / 2, (y0 + y1) / 2
    radius, x, y = (int(number + ROUNDING) for number in numbers)  # of boxes in whole pixels, whose shares are rounded
    square = max(x - radius, 0), max(y - radius, 0), min(x + radius, width), min(y + radius, height)
    if square[0] >= square[2] or square[1] >= square[3]:
        raise CorruptImageError(f"its bounding box {tuple(map(float, box))} has no place in {width}x{height} pixels")
    return square


def _eight_bit(image):
    """A PIL image of 8 bits a channel, without palette; 16-bit gray keeps its high byte (PIL would clip)."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise CorruptImageError(f"mode {image.mode!r} with values outside 0..65535")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise CorruptImageError("floating-point pixels; save it with 8 bits a channel")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    return image


def fit_image(image, fit: Fit) -> np.ndarray:
    """Crops, converts and resizes one picture; alpha is dropped, not blended, where `channels` has none.

    Args:
      image: a PIL image of any size and mode.
      fit: the settings.
    Returns:
      uint8 (H, W, C).
    Raises:
      CorruptImageError: a mode without an 8-bit meaning, or a picture smaller than `crop_size`.
    """
    from PIL import Image

    box = crop_box(*image.size, fit)
    image = _eight_bit(image)
    if box != (0, 0, *image.size):
        image = image.crop(box)
    if image.mode != MODES[fit.channels]:
        image = image.convert(MODES[fit.channels])
    if image.size != (fit.width, fit.height):
        image = image.resize((fit.width, fit.height), getattr(Image.Resampling, fit.filter.upper()))
    return np.asarray(image, np.uint8).reshape(fit.shape)


def colour_notes(load: Callable[[Any], bytes], places: Sequence, fit: Fit) -> tuple[str, ...]:
    """A line for each thing that `fit.channels` takes away from the pictures of a set, as a few of them tell.

    Args:
      load: one of `places` -> the encoded picture; one that cannot be read is passed over.
      places: of all pictures.
      fit: the settings.
    """
    if fit.channels == 4:
        return ()
    is_coloured = is_transparent = False
    for place in places[:: max(len(places) // LOOKED_AT, 1)][:LOOKED_AT]:
        try:
            rgba = decode(load(place), Fit(8, 8, 4, "none", 0, "nearest"), str(place))
        except UserError:
            continue
        is_coloured |= bool(np.ptp(rgba[..., :3].astype(np.int32), axis=-1).max())
        is_transparent |= bool(rgba[..., 3].min() < 255)
    notes = []
    if is_coloured and fit.channels < 3:
        notes.append(f"colour images are read as grey, by config.data.channels={fit.channels}; 3 keeps their colours")
    if is_transparent and fit.channels in (1, 3):
        notes.append(f"transparency is dropped, by config.data.channels={fit.channels}; {fit.channels + 1} keeps it")
    return tuple(notes)


def decode(data: bytes, fit: Fit, name: str, *, upright: bool = False, way_out: str = SKIP) -> np.ndarray:
    """Encoded bytes (PNG, JPEG, WebP, BMP ...) to uint8 (H, W, C), see `opened`."""
    return opened(data, lambda image: fit_image(image, fit), name, upright=upright, way_out=way_out)


def open_image(data: bytes):
    """The PIL image in encoded bytes, of one of `READABLE` formats; its pixels are not decoded. Raises as Pillow does.
    """
    from PIL import Image

    file = io.BytesIO(data)
    Image.preinit()
    try:
        return Image.open(file, formats=[form for form in READABLE if form in Image.OPEN])
    except Image.UnidentifiedImageError:
        Image.init()  # the rarer formats, which take longer to import
        return Image.open(file, formats=[form for form in READABLE if form in Image.OPEN])


def opened(data: bytes, use: Callable, name: str, *, upright: bool = False, way_out: str = SKIP) -> Any:
    """What `use` makes of the PIL image in encoded bytes.

    Args:
      data: the encoded picture.
      use: image -> anything; what it raises is the picture's fault.
      name: what to call it in an error.
      upright: turn it as its EXIF orientation says.
      way_out: see `unusable`.
    Raises:
      CorruptImageError: names the picture and the reason.
    """
    from PIL import ImageOps

    try:
        with open_image(data) as image:
            image.load()
            return use(ImageOps.exif_transpose(image) if upright else image)
    except Exception as error:  # PIL's plugins raise nearly everything on a damaged file
        reason = str(error) if isinstance(error, CorruptImageError) else f"{type(error).__name__}: {error}"
        if "cannot identify image file" in reason:
            reason = f"not an image that PIL can read ({len(data):,} bytes)"
        raise unusable(name, reason, way_out) from error
