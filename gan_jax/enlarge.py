"""One picture, enlarged by a run's network: any size, grey or colour, with alpha, to any scale.

Colours are multiplied by alpha before the network sees them and divided by it afterwards, so that what lies under
transparent pixels leaves no fringe; alpha itself is enlarged apart, by a cubic. A grey picture is shown to a network of
colours as three equal channels, whose mean comes back.
"""

import math
import os
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np

from gan_jax import parallel, runs, tiles
from gan_jax.data.pictures import Picture
from gan_jax.errors import UserError
from gan_jax.layers import winograd

SHARE = 0.25  # of the memory, that tiles may take
MOST_BYTES = 4 << 30  # that tiles take by default
MOST_SHAPES = 8  # of whole pictures, that a program each is compiled for
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Settings(NamedTuple):
    """What a user wants."""

    tile: int | None = None  # side of tiles, input pixels, without margins; 0: whole pictures; None: as memory allows
    scale: float | None = None  # of the sides; None for the network's own


def picture_of(levels: np.ndarray) -> Picture:
    """A picture of uint8 (H, W, C), C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA)."""
    values = levels / np.float32(255)
    alpha = values[..., -1] if values.shape[2] in (2, 4) else None
    return Picture(values[..., : 1 if values.shape[2] < 3 else 3], alpha)


def enlarges(run: runs.Run) -> bool:
    """Whether the run's game makes a larger picture of one of any size."""
    return hasattr(run.game, "enlarges")


def at_once(device: jax.Device) -> int:
    """Tiles in the making at a time: of one alone, XLA:CPU's threads wait for one another for half of the time."""
    return min(2, os.cpu_count() or 1) if device.platform == "cpu" else 1


class Enlarger:
    """A run's network for pictures of any size, on one device of this process."""

    def __init__(self, run: runs.Run, ema: dict, settings: Settings):
        self.factor: int = run.game.enlarges(run.config)
        (field,) = runs.sources(run)
        self.channels = run.spec["image"].shape[-1]
        self.settings, self.plan, self.notes = settings, tiles.Plan(), ()
        self._is_odd = settings.scale not in (None, float(self.factor))
        mesh = parallel.make_mesh(jax.local_devices()[:1])
        self._device, self._ema = mesh.devices.flat[0], parallel.local_copy(ema, mesh)
        self._at_once = at_once(self._device)

        def network(ema, x):
            keys = jax.vmap(jax.random.key)(np.zeros(len(x), np.uint32))
            with winograd.without():
                images = run.game.sample(run.nets, ema, keys, {field: 2 * x - 1})
            return (next(iter(images.values())) + 1) / 2

        program = jax.jit(network)
        self._network = lambda x: network(self._ema, x)
        self._program = tiles.compiled_once(lambda x: program(self._ema, x))

    def identity(self) -> dict:
        """What its pictures depend on: the weights, by a checksum, and the settings."""
        checksum = 0
        for leaf in jax.tree.leaves(self._ema):
            checksum = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), checksum)
        return {"weights": checksum, **self.settings._asdict()}

    def prepare(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Decides how pictures of these sizes (H, W) are cut; says so in `notes`.

        Raises:
          UserError: `tile` for a network that sees whole pictures, or sides that it has no form for.
        """
        unit, self._at_once = tiles.unit(self._network, self.channels), at_once(self._device)
        shapes = {tuple(-(-side // unit) * unit for side in size) for size in sizes}
        budget = self.settings.tile
        inner = -(-budget // unit) * unit if budget else None
        most = inner if budget else self._side(unit) if budget is None else 0
        needed = max((max(shape) for shape in shapes), default=0) > most > 0
        is_coarse = len(shapes) > MOST_SHAPES and budget != 0
        self.plan = tiles.Plan(unit)
        if not (needed or is_coarse):
            return
        margin, beyond = tiles.margin(self._network, self.channels, self.factor, unit)
        if math.isinf(beyond):
            if budget:
                why = "what this network makes of a place depends on the whole picture"
                raise UserError(f"--tile={budget}: {why}; leave the flag out, or give --tile=0")
            self.notes = ("this network sees whole pictures: no tiles, and memory for the largest of them",)
            return
        is_coarse = is_coarse and beyond <= tiles.EXACT  # pictures that could be whole change by rounding alone
        if not (needed or is_coarse):
            return
        side = inner + 2 * margin if budget else max(most, 4 * margin + unit)
        self.plan = tiles.Plan(unit, side, margin, is_coarse)
        if side > self._side(unit):  # as the user or the margin has it: two of them may not fit
            self._at_once = 1
        if needed:
            rest = "" if beyond <= tiles.EXACT else f"; beyond it lies {beyond * 255:.2f} of a level of 256 at most"
            self.notes = (f"tiles of {side - 2 * margin} pixels and {margin} more on every side{rest}",)

    def _side(self, unit: int) -> int:
        """Of the largest window that the memory has room for."""
        room = min(SHARE * _memory(self._device), MOST_BYTES) / self._at_once
        side = math.isqrt(int(room / tiles.bytes_per_pixel(self._network, self.channels, unit)))
        return max(side // unit, 1) * unit

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of the enlarged picture."""
        scale = self.settings.scale or self.factor
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def tiles(self, height: int, width: int) -> int:
        """In how many pieces it is made."""
        return tiles.count(height, width, self.plan)

    def __call__(self, picture: Picture, *, done: Callable[[], None] = lambda: None) -> tuple[np.ndarray, tuple]:
        """A picture, enlarged.

        Args:
          picture: of any size.
          done: called after each tile.
        Returns:
          uint8 or uint16 (H, W, C) by the picture's depth, of as many channels as it has; and what is not as in it.
        """
        pixels, alpha, notes = picture.pixels, picture.alpha, ()
        is_grey, sees_alpha = pixels.shape[2] == 1, self.channels in (2, 4)
        if self.channels < 3 and not is_grey:
            pixels, is_grey, notes = (pixels @ LUMA)[..., None], True, ("colours become grey: the run's data are",)
        if self.channels > 2 and is_grey:
            pixels = pixels.repeat(3, 2)
        is_clear = alpha is not None and not sees_alpha and bool((alpha < 1).any())
        if sees_alpha:
            opaque = np.ones(pixels.shape[:2], np.float32) if alpha is None else alpha
            pixels = np.concatenate([pixels, opaque[..., None]], 2)
        elif is_clear:
            pixels = pixels * alpha[..., None]
        colours = 1 if is_grey else 3
        channels = colours + (sees_alpha and alpha is not None)

        def finish(part: np.ndarray) -> np.ndarray:
            if is_grey and self.channels > 2:
                part = np.concatenate([part[..., :3].mean(2, keepdims=True), part[..., 3:]], 2)
            part = part[..., :channels]
            return part if is_clear or self._is_odd else _levels(part, picture.depth)

        values, size = self._play(pixels, channels, finish, done), self.size(*pixels.shape[:2])
        if self._is_odd:
            values = _resampled(np.clip(values, 0, 1), size, "LANCZOS")
        if alpha is not None and not sees_alpha:
            large = np.clip(_resampled(alpha[..., None], size, "BICUBIC"), 0, 1) if is_clear else np.ones((*size, 1))
            if is_clear:
                values = np.where(large > 0.5 / 255, values / np.maximum(large, 1e-6), 0)
            large = _levels(large, picture.depth)
            values = np.concatenate([_levels(values, picture.depth), large], 2)
        return _levels(values, picture.depth), notes

    def _play(self, pixels: np.ndarray, channels: int, finish: Callable, done: Callable) -> np.ndarray:
        result = None
        for rows, columns, part in tiles.tiled(
            self._program, pixels, self.plan, self.factor, at_once=self._at_once
        ):
            part = finish(part)
            if result is None:
                shape = (*(self.factor * side for side in pixels.shape[:2]), channels)
                result = np.empty(shape, part.dtype)
            result[rows, columns] = part
            done()
        return result


def _levels(values: np.ndarray, depth: int) -> np.ndarray:
    """float in [0, 1] to the nearest level; whole numbers pass through."""
    if values.dtype.kind == "u":
        return values
    most = 2**depth - 1
    return np.round(np.clip(values, 0, 1) * most).astype(np.uint8 if depth == 8 else np.uint16)


def _resampled(values: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """values float (H, W, C) at another size (H, W), channel by channel, by one of Pillow's filters."""
    from PIL import Image

    planes = [Image.fromarray(np.ascontiguousarray(values[..., i], np.float32)) for i in range(values.shape[2])]
    return np.stack([np.asarray(plane.resize(size[::-1], Image.Resampling[name])) for plane in planes], 2)


def _memory(device: jax.Device) -> int:
    """Bytes of the device, or of the machine."""
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    if limit:
        return limit
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not on this system
        return 8 << 30
