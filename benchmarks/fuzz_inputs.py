"""Inputs for `fuzz.py`: files of each kind, put together of plausible and hostile parts, and then damaged at random.

All is drawn from one generator of random numbers, so that a seed is an input. What is compared with a checksum is
damaged before the checksum is made, too: else nothing behind it would be reached.
"""

import functools
import io
import json
import random
import re
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tests import interop_files as torch_files
from tests.interop_files import Call, Global, Reference

NUMBERS = (-1, 0, 1, 2, 7, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**64 - 1)
NAMES = (
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor", "torch._utils _rebuild_parameter",
    "torch_utils.persistence _reconstruct_persistent_obj", "copyreg _reconstructor", "builtins set", "torch Size",
    "_codecs encode", "collections OrderedDict", "dnnlib.util EasyDict", "torch.storage _load_from_bytes",
    "torch FloatStorage", "torch HalfStorage", "torch.nn.modules.linear Linear", "numpy dtype", "builtins object",
    "numpy._core.multiarray _reconstruct", "argparse Namespace", "os system", "builtins eval", "builtins getattr",
)  # fmt: skip
WORDS = ("a", "state_dict", "G_ema", "synthesis.b4.const", "params_ema", "weight", "_modules", "_parameters", "state",
         "class_name", "0", "", "x" * 300, "\n\x1b[2J", "conv_first.weight", "generator")  # fmt: skip
PLAIN = b"(.0123NMK\x00\x8c\x01a})]tuesbR\x85\x86\x87\x93\x94qh2Q"  # opcodes that do most
FORMATS = ("JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO", "TGA", "PCX", "SGI", "QOI", "DDS", "JPEG2000", "AVIF")
DAMAGED = {"zip": 0.2, "npz": 0.2, "safetensors": 0.3}  # share of the files, of kinds whose reader ends soon then
MODES = {"JPEG": ("L", "RGB", "CMYK"), "GIF": ("L", "RGB", "P"), "TIFF": ("L", "RGB", "RGBA", "I;16", "1", "CMYK"),
         "PPM": ("L", "RGB", "1"), "PCX": ("L", "RGB", "1"), "BMP": ("L", "RGB", "RGBA", "1", "P"),
         "SGI": ("L", "RGB", "RGBA")}  # fmt: skip


def make(kind: str, rng: random.Random) -> bytes:
    """A file of that kind, more or less."""
    data = KINDS[kind](rng)
    return damaged(data, rng) if rng.random() < DAMAGED.get(kind, 0.5) else data


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes that were changed, moved, left out or added in a few places."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place, length = rng.randrange(len(changed) + 1), rng.choice((1, 2, 4, 8, 50, 1000))
        action = rng.randrange(6)
        if action == 0:
            changed[place : place + 1] = bytes([rng.randrange(256)])
        elif action == 1:
            del changed[place : place + length]
        elif action == 2:
            changed[place:place] = changed[place : place + length] * rng.choice((1, 2, 50))
        elif action == 3:
            order, size = rng.choice("<>"), rng.choice("BHIQ")
            packed = struct.pack(order + size, rng.choice(NUMBERS) % 256 ** struct.calcsize(size))
            changed[place : place + len(packed)] = packed
        elif action == 4 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif action == 5 and rng.random() < 0.2:
            del changed[place:]
    return bytes(changed[: 1 << 18])


# Files of weights.


def _pickle(rng: random.Random) -> bytes:
    numbers = {str(n): np.arange(rng.choice((0, 1, 6, 500)), dtype=np.float32) for n in range(rng.randrange(3))}
    if rng.random() < 0.02:
        return _lying_zip("archive/data.pkl", rng)
    kind = rng.randrange(6)
    if kind == 0:
        return b"\x80\x04" + bytes(rng.choice(PLAIN) for _ in range(rng.choice((5, 20, 80)))) + b"."
    if kind == 1:  # one step again and again
        steps = (b"(", b"]", b"}\x94", b")\x85", b"\x94", b"N", b"N2", b"h\x00", b"](", b"}(K\x01", b"\x8c\x01a")
        return b"\x80\x04" + rng.choice(steps) * rng.choice((10, 5000)) + b"."
    if kind == 2:
        return _state_dict(rng)
    value = _value(rng, 0, list(numbers) or ["0"])
    form = rng.randrange(3)
    return (torch_files.pickled(value) if form == 0 else torch_files.legacy(value, numbers) if form == 1 else
            _patched_zip(torch_files.zipped(value, numbers), rng))  # fmt: skip


def _state_dict(rng: random.Random) -> bytes:
    arrays = {}
    for _ in range(rng.randrange(4)):
        shape = tuple(rng.randrange(4) for _ in range(rng.randrange(5)))
        arrays[".".join(rng.choices(WORDS[:7], k=rng.randrange(1, 4)))] = np.ones(shape, np.float32)
    form = rng.randrange(3)
    if form == 0:
        return torch_files.legacy_state_dict(arrays)
    if form == 1:
        return _patched_zip(torch_files.zipped_state_dict(arrays), rng)
    kwargs = _value(rng, 1, ["0"]) if rng.random() < 0.5 else {"z_dim": 4, "img_resolution": 8}
    network = torch_files.network("Generator", arrays, kwargs, plain=rng.random() < 0.3)
    return torch_files.pickled({rng.choice(("G", "G_ema", "D")): network})


def _value(rng: random.Random, depth: int, keys: list[str]) -> Any:
    """Something that a pickle may say."""
    kind = rng.randrange(12 if depth < 4 else 4)
    inner = [_value(rng, depth + 1, keys) for _ in range(rng.randrange(4))] if kind >= 5 else []
    if kind == 0:
        number = rng.choice(NUMBERS)
        return number if rng.random() < 0.9 else number**9
    if kind in (1, 2):
        return rng.choice((*WORDS, None, None, True, 0.5, b"abc", b"\x80\x04N.", b"PK\x03\x04"))
    if kind == 3:
        return Global(*rng.choice(NAMES).split())
    if kind == 4:
        count = rng.choice((6, *NUMBERS))
        return Reference(("storage", Global("torch", "FloatStorage"), rng.choice(keys), "cpu", count, None))
    if kind in (5, 6):
        return {rng.choice(WORDS[:13]): item for item in inner}
    if kind == 7:
        return inner
    if kind == 8:
        return tuple(inner)
    if kind == 9:
        shape = tuple(abs(rng.choice(NUMBERS[:5])) for _ in range(rng.randrange(4)))
        storage = Reference(("storage", Global("torch", "FloatStorage"), rng.choice(keys), "cpu", 6, None))
        rebuild = Global("torch._utils", "_rebuild_tensor_v2")
        return Call(rebuild, (storage, rng.choice((0, 1, 2**40)), shape, shape, False, {}))
    state = inner[0] if inner and rng.random() < 0.5 else None
    items = {rng.choice(WORDS[:13]): item for item in inner} if rng.random() < 0.3 else None
    return Call(Global(*rng.choice(NAMES).split()), tuple(inner), state, items)


def _safetensors(rng: random.Random) -> bytes:
    header: dict[str, Any] = {}
    place = 0
    for _ in range(rng.choice((0, 1, 2, 5, 300))):
        kind, size = rng.choice((("F32", 4), ("F16", 2), ("BF16", 2), ("I64", 8), ("BOOL", 1), ("F8_E4M3", 1)))
        shape = [rng.randrange(4) for _ in range(rng.randrange(4))]
        end = place + size * int(np.prod(shape))
        name = rng.choice(("", "generator/", "G_ema.")) + rng.choice(WORDS) + str(rng.randrange(1000))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, end]}
        place = end
        if rng.random() < 0.03:
            header[name][rng.choice(list(header[name]))] = _json(rng, 0)
    if rng.random() < 0.3:
        texts = {"gan_jax": "gan_jax 1", "config": json.dumps(_json(rng, 0)), "averaged": "generator",
                 "data": json.dumps({"spec": _json(rng, 0), "fingerprint": ""})}  # fmt: skip
        header["__metadata__"] = {**texts, "version": "\x1b[1m"} if rng.random() < 0.9 else _json(rng, 0)
    text = json.dumps(header).encode()
    length = len(text) if rng.random() < 0.9 else rng.choice(NUMBERS) % 2**64
    return struct.pack("<Q", length) + text + bytes(min(place, 1 << 16))


def _json(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(7 if depth < 4 else 4)
    if kind < 2:
        return rng.choice((*NUMBERS, None, True, 0.5, float("nan"), 10**400))
    if kind < 4:
        return rng.choice((*WORDS, "\ud800"))
    if kind == 6 and rng.random() < 0.1:
        return _nested(rng.choice((100, 800)))
    inner = [_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return inner if kind == 4 else {rng.choice(WORDS): item for item in inner}


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


# Zips.


@functools.cache
def _bomb(mib: int = 100) -> bytes:
    """Zeros, deflated: a kB for each MiB."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)) * mib + b"\3\0"


def _lying_zip(name: str, rng: random.Random) -> bytes:
    """One member that unpacks to 100 MiB, and says something else."""
    body, says = _bomb(), rng.choice((0, 10, 1000, 2**22, 100 << 20))
    numbers = struct.pack("<HHHHHIIIH", 20, 0, 8, 0, 33, 0, len(body), says, len(name))
    local = b"PK\3\4" + numbers + b"\0\0" + name.encode() + body
    entry = b"PK\1\2\x14\0" + numbers + bytes(10) + bytes(4) + bytes(2) + name.encode()
    return local + entry + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)


def _zip(rng: random.Random) -> bytes:
    if rng.random() < 0.02:
        return _lying_zip(rng.choice(("0.png", "dataset.json")), rng)
    file, names = io.BytesIO(), []
    folders = rng.choice((("",), ("cat/", "dog/"), ("train/cat/", "train/dog/"), ("train/", "test/"), ("./", "b\\")))
    with zipfile.ZipFile(file, "w", _method(rng)) as archive:
        for number in range(rng.choice((1, 2, 4, 30))):
            hostile = rng.random() < 0.05
            folder = rng.choice(("../", "/", "a/" * 40, "C:\\", "\x1b/")) if hostile else rng.choice(folders)
            name = f"{folder}{number}{rng.choice(('.png', '.png', '.PNG', '.gif', '.txt'))}"
            content = bytes(1 << 20) if rng.random() < 0.01 else _small(rng)
            archive.writestr(name, content)
            names.append(name)
        if rng.random() < 0.4:
            labels = [[name, rng.choice((0, 1, [0, 1], _json(rng, 1)))] for name in names]
            archive.writestr("dataset.json", json.dumps({"labels": labels} if rng.random() < 0.8 else _json(rng, 0)))
        if rng.random() < 0.05:
            archive.writestr("cat/dataset.json", b"[" * 100_000)
    return _patched_zip(file.getvalue(), rng)


def _method(rng: random.Random) -> int:
    return 12 if rng.random() < 0.02 else rng.choice((0, 8, 8))  # BZIP2, stored, deflated


def _patched_zip(data: bytes, rng: random.Random) -> bytes:
    """With other numbers in a header of a member, in the list of members, or at the end."""
    changed = bytearray(data)
    if rng.random() < 0.5:
        return data
    for _ in range(rng.randrange(1, 4)):
        mark, size = rng.choice(((b"PK\x01\x02", 46), (b"PK\x01\x02", 46), (b"PK\x03\x04", 30), (b"PK\x05\x06", 22)))
        starts = [match.start() for match in re.finditer(re.escape(mark), changed)] or [max(len(changed) - size, 0)]
        place, form = rng.choice(starts) + rng.randrange(4, size, 2), rng.choice(("<H", "<I"))
        packed = struct.pack(form, rng.choice((*NUMBERS, 8, 12, 14, 99)) % 256 ** struct.calcsize(form))
        changed[place : place + len(packed)] = packed
    return bytes(changed)


# Pictures.


def _small(rng: random.Random) -> bytes:
    return _saved(rng, "PNG", rng.choice(("L", "RGB", "RGBA", "P", "1", "LA", "I;16")))


def _saved(rng: random.Random, form: str, mode: str, **options) -> bytes:
    h, w = rng.randrange(4, 9), rng.randrange(4, 9)
    rgba = Image.fromarray(np.frombuffer(rng.randbytes(h * w * 4), np.uint8).reshape(h, w, 4).copy())
    image = rgba.convert("L").convert("I;16") if mode == "I;16" else rgba.convert("RGB").convert(mode) if (
        mode in ("P", "CMYK")) else rgba.convert(mode)  # fmt: skip
    image = image.resize((4, 4)) if options.get("save_all") else image
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _png(rng: random.Random) -> bytes:
    """Chunks of a picture, some of them changed, exchanged, repeated or new, with right checksums."""
    if rng.random() < 0.5:
        chunks = _chunks(_small(rng))
    else:  # of any depth
        depth, colour = rng.choice((1, 2, 4, 8, 16)), rng.choice((0, 2, 3, 4, 6))
        side = rng.choice((1, 3, 8, 300))
        rows = zlib.compress(rng.choice((bytes, rng.randbytes))(side * (1 + side * depth)))
        header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, rng.randrange(2))
        chunks = [(b"IHDR", header), (b"PLTE", rng.randbytes(48)), (b"IDAT", rows), (b"IEND", b"")]
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(chunks))
        kind, content = chunks[place]
        action = rng.randrange(4)
        if action == 0:
            chunks[place] = kind, damaged(content, rng)[: 1 << 16]
        elif action == 1:
            chunks.insert(place, _extra(rng))
        elif action == 2:
            chunks[place] = rng.choice((b"IDAT", b"tRNS", b"fdAT", b"PLTE", b"IHDR")), content
        elif len(chunks) > 1:
            chunks.pop(place)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _extra(rng: random.Random) -> tuple[bytes, bytes]:
    bomb = b"x\xda" + _bomb() if rng.random() < 0.1 else zlib.compress(bytes(10))
    return rng.choice((
        (b"zTXt", b"a\0\0" + bomb), (b"iTXt", b"a\0\1\0\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb),
        (b"eXIf", b"II*\0\x08\0\0\0" + rng.randbytes(40)), (b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"),
        (b"tRNS", rng.randbytes(6)), (b"pHYs", struct.pack(">IIB", 0, rng.choice((0, 2**32 - 1)), 1)),
        (b"acTL", struct.pack(">II", rng.choice((0, 1, 2**32 - 1)), 0)),
        (b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31, 1, 0, 0, 1, 0, 0, 0)), (b"gAMA", rng.randbytes(4)),
        (b"cHRM", rng.randbytes(rng.choice((4, 32)))), (b"IDAT", bomb), (b"sRGB", b"\0"),
    ))  # fmt: skip


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += length + 12
    return chunks


def _picture(rng: random.Random) -> bytes:
    Image.init()
    form = rng.choice([form for form in FORMATS if form in Image.SAVE])
    options: dict[str, Any] = {}
    mode = rng.choice(MODES.get(form, ("RGB", "RGBA")))
    if form in ("GIF", "TIFF", "WEBP") and rng.random() < 0.2:
        options = {"save_all": True, "append_images": [Image.new(mode, (4, 4))]}
    elif form == "TIFF":
        options = {"compression": rng.choice((None, "tiff_lzw", "tiff_adobe_deflate", "packbits"))}
    elif form in ("JPEG", "WEBP") and rng.random() < 0.5:
        options = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0", "quality": 50}
    return damaged(_saved(rng, form, mode, **options), rng)


# Arrays.


def _npz(rng: random.Random) -> bytes:
    if rng.random() < 0.02:
        return _lying_zip(rng.choice(("w.npy", "mu.npy")), rng)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", _method(rng)) as archive:
        names = rng.choice((("mu", "sigma"), ("mu", "sigma", "count"), ("w",), ("w", "seeds"), ("mu", "\x1b", "w")))
        for name in names:
            archive.writestr(f"{name}{rng.choice(('.npy',) * 9 + ('',))}", _npy(name, rng))
    return _patched_zip(file.getvalue(), rng)


def _npy(name: str, rng: random.Random) -> bytes:
    right = {"mu": (3,), "sigma": (3, 3), "count": (), "w": (2, 4, 2), "seeds": (2,)}.get(name, (1,))
    shape: tuple = right if rng.random() < 0.8 else tuple(rng.choice(NUMBERS) for _ in range(rng.randrange(4)))
    kind = rng.choice(("<f4", "<f8", "<f8", ">f4", "<i8", "|u1", "<f2"))
    kind = rng.choice(("|O", "<U4", "|V0", "<c8", "<M8[s]", "|S0")) if rng.random() < 0.1 else kind
    descr: Any = kind if rng.random() < 0.9 else [("a", kind), ("b", "<f4", (2**20, 2**10))]
    text = repr({"descr": descr, "fortran_order": rng.random() < 0.3, "shape": shape})
    if rng.random() < 0.05:
        text = rng.choice(("(" * 5000, "-" * 9000, "{'shape': " + "9" * 5000, "[" * 90 + "]" * 90, "\x1b"))
    size = int(np.dtype(kind).itemsize * np.prod(right)) if rng.random() < 0.9 else rng.choice((0, 1, 1 << 20))
    body = bytes(size) if rng.random() < 0.5 else np.ones(max(size // 8, 1)).tobytes()[:size]
    version, form = rng.choice((*[((1, 0), "<H")] * 9, ((2, 0), "<I"), ((3, 0), "<I")))
    header = text.encode() + b" " * (63 - len(text) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack(form, len(header) % 65536) + header + body


KINDS = {"pickle": _pickle, "safetensors": _safetensors, "zip": _zip, "png": _png, "npz": _npz, "picture": _picture}
