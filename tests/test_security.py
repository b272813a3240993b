"""What files of others may not do: run code, take memory without end, steer the terminal, look into other files."""

import ast
import bz2
import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from gan_jax import archives, cli, errors, folders, loggers, logs, metrics
from gan_jax.data import files as data_files
from gan_jax.data import fit, open_dataset, pictures
from gan_jax.errors import UserError
from gan_jax.weights import containers, opcodes, pickles
from tests import test_architecture
from tests.test_data_files import SETTINGS, save

# Calls that run what they are given, or may: name -> the modules that are allowed to.
RUNS_CODE = {
    "eval": (), "exec": (), "compile": (), "__import__": (), "exec_module": ("config",),
    "import_module": ("", "modules", "loggers"),
    "Unpickler": (), "load_module": (), "run_path": (), "run_module": (), "system": (), "popen": (),
}  # fmt: skip
READS_OBJECTS = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch", "yaml")


def _calls():
    """(module, line, name of the receiver or '', name, call) of every call in the package."""
    for module, file in test_architecture.MODULES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                if isinstance(function, ast.Name):
                    yield module, node.lineno, "", function.id, node
                elif isinstance(function, ast.Attribute):
                    receiver = function.value.id if isinstance(function.value, ast.Name) else "?"
                    yield module, node.lineno, receiver, function.attr, node


def test_nothing_in_the_package_runs_what_a_file_says():
    wrong = []
    for module, line, receiver, name, call in _calls():
        place, keywords = f"{module}:{line}: {receiver}.{name}", {word.arg: word.value for word in call.keywords}
        room = module.removeprefix("gan_jax").removeprefix(".")
        if name in RUNS_CODE and receiver in ("", "importlib", "pickle", "loader", "os", "runpy", "builtins", "?"):
            is_method = receiver == "?" and name in ("compile", "eval")  # of a program or a pattern
            wrong += [place] if room not in RUNS_CODE[name] and not is_method else []
        if receiver in READS_OBJECTS and name in ("load", "loads", "open", "Unpickler", "unsafe_load"):
            wrong.append(place)
        if receiver == "np" and name == "load" and "mmap_mode" not in keywords and module != "gan_jax.data.pack":
            allowed = keywords.get("allow_pickle")
            wrong += [place] if not isinstance(allowed, ast.Constant) or allowed.value is not False else []
        if "allow_pickle" in keywords and getattr(keywords["allow_pickle"], "value", True) is not False:
            wrong.append(place)
        if "shell" in keywords:
            wrong.append(place)
    assert not wrong, wrong
    readers = [module for module, file in test_architecture.MODULES.items()
               if "import pickle\n" in file.read_text(encoding="utf-8")]  # fmt: skip
    assert readers == ["gan_jax.weights.pickles"]


def _export(path, config: dict) -> None:
    """A file as `export` writes it, whose config is somebody's."""
    data = {"spec": {"image": {"kind": "image", "shape": [8, 8, 1], "classes": 0}}, "fingerprint": ""}
    metadata = {"gan_jax": "gan_jax 1", "config": json.dumps(config), "data": json.dumps(data), "averaged": ""}
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize("config", [
    {"game": "evil.game"}, {"game": "unconditional", "generator": {"name": "evil.net"}}, {"logs": ["wandb", "evil.Log"]}
])  # fmt: skip
def test_a_file_that_names_a_module_is_refused(tmp_path, monkeypatch, capsys, config):
    """The module lies in the current folder, beside the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil").mkdir()
    for name in ("__init__", "game", "net"):
        (tmp_path / "evil" / f"{name}.py").write_text("open('ran', 'w')\n")
    _export(tmp_path / "x.safetensors", config)
    assert cli.main(["import", "--from=x.safetensors", "--workdir=run"]) == 2
    message = capsys.readouterr().err
    assert "names a module whose code would run: add --config." in message and "evil" in message
    assert not (tmp_path / "ran").exists() and len(message.splitlines()) == 1


def test_a_module_that_the_user_names_too_is_imported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own_game.py").write_text("open('ran', 'w')\n")
    (tmp_path / "my_own").mkdir()
    (tmp_path / "my_own" / "game.py").write_text("open('ran', 'w')\n")
    _export(tmp_path / "x.safetensors", {"game": "my_own.game"})
    assert cli.main(["import", "--from=x.safetensors", "--workdir=run", "--config.game=my_own.game"]) == 2
    assert (tmp_path / "ran").exists()  # it is then no game, of which the message tells


# Zips.


def _lying_zip(size: int, says: int) -> bytes:
    """A member of `size` zeros that says it has `says` bytes, in its own header and in the list."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(size))
    return file.getvalue().replace(struct.pack("<I", size), struct.pack("<I", says))


@pytest.mark.parametrize("says", [0, 10, 2**22])
def test_a_member_that_lies_about_its_size_unpacks_to_no_more(says):
    archive = archives.open_zip(io.BytesIO(_lying_zip(2**26, says)))
    tracemalloc.start()
    try:
        with pytest.raises(archives.Unreadable, match="Bad CRC"):
            archives.read(archive, archive.infolist()[0], 2**30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * says + 2**20


def test_members_within_their_bound_are_read():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"abc", zipfile.ZIP_DEFLATED)
        archive.writestr("b", b"", zipfile.ZIP_STORED)
        archive.writestr("c", bz2.compress(b"abc"), zipfile.ZIP_BZIP2)
    a, b, c = (opened := archives.open_zip(file)).infolist()
    assert archives.read(opened, a, 3) == b"abc" and archives.read(opened, b, 0) == b""
    with pytest.raises(archives.Unreadable, match="unpacks to 3 bytes, and 2 are the most"):
        archives.read(opened, a, 2)
    with pytest.raises(archives.Unreadable, match="another way than deflate"):
        archives.read(opened, c, 1000)


@pytest.mark.parametrize(("name", "reason"), [
    ("a/" * 40 + "0.png", "in up to 32 folders"), ("a" * 2000 + ".png", "up to 1024 characters"),
    ("a\n.png", "none of them for control"), ("\x1b[2J.png", r"\\x1b\[2J"),
])  # fmt: skip
def test_names_in_a_zip_that_no_folder_would_have(tmp_path, name, reason):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(UserError, match=reason) as caught:
        data_files.list_files(str(tmp_path / "set.zip"))
    assert errors.plain(caught.value, 10_000) == str(caught.value)


def test_labels_that_unpack_to_far_more_than_their_pictures_need(tmp_path):
    save(tmp_path / "0.png")
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "0.png", "0.png")
        archive.writestr("dataset.json", b'{"labels": null}' + b" " * (2**20 + 2**15))
    with pytest.raises(UserError, match=r"dataset.json cannot be read: it unpacks to 1.0 MiB, and labels of so many"):
        open_dataset(name=f"folder:{tmp_path / 'set.zip'}", **SETTINGS)


# Arrays.


def _npz(path, text: bytes, body: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)


@pytest.mark.parametrize(("shape", "kind", "size", "reason"), [
    ("(2**60,)", "<f8", 8, "no array"), (f"({2**60},)", "<f8", 8, "8 bytes for an array of shape"),
    (f"({2**40}, 0)", "<f8", 8, "8 bytes for an array of shape"), ("(-1, -1)", "<f8", 8, "8 bytes for an array"),
    (f"({2**62},)", "|V0", 0, "no array"), ("(1,)", "|O", 8, "pickled objects"), ("-" * 5000, "<f8", 8, "no array"),
    (f"({2**20},)", "<f8", 2**23, "unpacks to 8,388,[0-9]+ bytes, and 4,2[0-9,]+ are the most"),
    (f"({2**20},)", "|u1", 2**20, "far larger than itself: w has 1,048,576 numbers"),
])  # fmt: skip
def test_arrays_of_an_npz_file_are_bounded_by_the_file(tmp_path, monkeypatch, shape, kind, size, reason):
    """Numbers count as eight bytes each, as they take once they are read."""
    monkeypatch.setattr(archives, "ROOM", 2**22)
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
    _npz(tmp_path / "x.npz", text, bytes(size))
    with pytest.raises(archives.Unreadable, match=reason):
        archives.arrays(tmp_path / "x.npz", ("w",))


def test_arrays_are_those_that_numpy_wrote(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4, 2))
    kinds = {"f": np.asfortranarray(values), "c": values.astype(">f4"), "i": np.arange(3), "s": np.float16(2)}
    kinds["e"] = values[:0]
    np.savez_compressed(tmp_path / "x.npz", **kinds, other=np.array([{}], object))
    read = archives.arrays(tmp_path / "x.npz", kinds)
    assert read.pop("other") is None and list(read) == list(kinds)
    for name, expected in kinds.items():
        np.testing.assert_array_equal(read[name], expected)
        assert read[name].dtype == expected.dtype


def test_moments_of_numbers_that_unpack_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ROOM", 2**20)
    np.savez_compressed(tmp_path / "x.npz", mu=np.zeros(400), sigma=np.zeros((400, 400)))
    with pytest.raises(UserError, match="x.npz: cannot be read as an .npz file of plain arrays: it unpacks to"):
        metrics.load_moments(tmp_path / "x.npz")


# Pictures.


def test_postscript_called_a_picture_is_not_given_to_an_interpreter(monkeypatch, tmp_path):
    from PIL import EpsImagePlugin

    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(script)).format == "EPS"  # Pillow by itself would take it
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *rest: pytest.fail("started"))
    small = fit.Fit(4, 4, 3, "none", 0, "box")
    for read in (pictures.read, pictures.look, lambda data, name: fit.decode(data, small, name)):
        with pytest.raises(UserError, match="not an image that PIL can read"):
            read(script, "x.png")


@pytest.mark.parametrize(
    "form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "TGA", "PCX", "SGI", "QOI", "ICO", "XBM", "DDS"]
)
def test_pictures_of_the_formats_that_are_named(form):
    mode = "1" if form == "XBM" else "RGBA" if form == "ICO" else "RGB"
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    read = pictures.read(file.getvalue(), "x").pixels
    np.testing.assert_allclose(read, (pixels / 255)[..., : read.shape[2]], atol=0.1)
    assert pictures.look(file.getvalue(), "x")[:2] == (16, 16)


# Weights.


def test_a_file_of_another_kind_is_not_read_whole(tmp_path):
    with open(tmp_path / "x.pth", "wb") as file:
        file.write(b"hello, world")
        file.truncate(2**32)
    with pytest.raises(UserError, match="expected a .pkl, .pth or .safetensors"):
        containers.read_file(tmp_path / "x.pth")


def test_a_file_of_torch_is_in_memory_once_while_it_is_read(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04" + bytes(2**24))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="damaged"):
            containers.read_file(tmp_path / "x.pth")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * 2**24


def test_a_pickle_of_more_steps_than_any_network_has(monkeypatch):
    monkeypatch.setattr(opcodes, "_MOST", 1000)
    assert pickles.read_bytes(b"\x80\x04](" + b"N" * 990 + b"e.") == [None] * 990
    with pytest.raises(pickles.Damaged, match="more than 1,000 steps"):
        pickles.read_bytes(b"\x80\x04](" + b"N" * 1000 + b"e.")


# Words of files.


def test_messages_do_not_steer_the_terminal(monkeypatch, capsys):
    def fail(argv):
        raise UserError("x\x1b[2J\x07\u2028: two\nlines, caf\xe9 \udce9")

    monkeypatch.setattr(cli, "_main", fail)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "error: x\\x1b[2J\\x07\\u2028: two\nlines, caf\xe9 \\udce9\n"
    assert errors.plain("a\n b\x00" + "c" * 400, 10) == "a b\\x00ccc"


NESTED = "[" * 200_000


def test_json_that_is_nested_without_end_is_one_message(tmp_path):
    (tmp_path / "config.json").write_text(f'{{"a": {NESTED}')
    with pytest.raises(UserError, match="config.json: cannot be read as a run's config"):
        folders.read_config(tmp_path / "config.json")
    (tmp_path / loggers.IDS).write_text(NESTED)
    with pytest.raises(UserError, match="has no ids that can be read"):
        loggers._read_ids(tmp_path)
    (tmp_path / loggers.IDS).write_text("[1]")
    with pytest.raises(UserError, match="has no ids that can be read"):
        loggers._read_ids(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(f'{NESTED}\n{{"step": 1}}\n')
    assert logs.read_lines(tmp_path / "metrics.jsonl") == [{"step": 1}]
