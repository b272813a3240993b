"""Files of weights are data: nothing in them runs, and what is damaged is told."""

import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from gan_jax import cli
from gan_jax.errors import MissingPathError, UserError
from gan_jax.weights import containers, pickles
from tests import golden_stylegan2
from tests import interop_files as files
from tests.interop_files import Call, Global

WEIGHTS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.float32([7, 8])}


def _write(path, data: bytes):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("made", [files.legacy_state_dict, files.zipped_state_dict])
def test_a_state_dict(made, tmp_path):
    value = containers.read_file(_write(tmp_path / "x.pth", made(WEIGHTS))).value
    assert list(value) == list(WEIGHTS)
    for name, expected in WEIGHTS.items():
        np.testing.assert_array_equal(containers.array(value[name]), expected)


def test_a_view_of_a_storage(tmp_path):
    """Rows of a transposed matrix, from the second number on."""
    numbers = np.arange(12, dtype=np.float32)
    reference = files._reference(numbers, "0")
    view = Call(Global("torch._utils", "_rebuild_tensor_v2"), (reference, 1, (3, 2), (1, 4), False, {}))
    path = _write(tmp_path / "x.pth", files.zipped({"t": view}, {"0": numbers}))
    np.testing.assert_array_equal(containers.array(containers.read_file(path).value["t"]), [[1, 5], [2, 6], [3, 7]])


def test_an_ordered_dict_of_pairs(tmp_path):
    """Python 2 has pickled it so, as in the published heads of LPIPS."""
    numbers = np.arange(3, dtype=np.float32)
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"),
                  (files._reference(numbers, "0"), 0, (3,), (1,), False, {}))
    call = Call(Global("collections", "OrderedDict"), ([["a", tensor]],))
    value = containers.read_file(_write(tmp_path / "x.pth", files.zipped(call, {"0": numbers}))).value
    np.testing.assert_array_equal(containers.array(value["a"]), numbers)


@pytest.mark.parametrize("pairs", [[["a"]], [[["a"], 1]], ["ab", 1], 7, {"a": 1}])
def test_a_dict_of_something_else_than_pairs(tmp_path, pairs):
    call = Call(Global("collections", "OrderedDict"), (pairs,))
    with pytest.raises(UserError, match="damaged"):
        containers.read_file(_write(tmp_path / "x.pth", files.zipped(call, {})))


def test_copies_without_end_are_refused(tmp_path):
    """A small file that copies one long list again and again."""
    pairs = files.opcodes([[f"k{i}", i] for i in range(2000)])
    again = b"ccollections\nOrderedDict\nh\0\x85R"
    data = b"\x80\x03](" + pairs + b"q\0" + 1000 * again + b"e."
    with pytest.raises(UserError, match="x.pkl"):
        containers.read_file(_write(tmp_path / "x.pkl", data))


def _system(path) -> Call:
    return Call(Global("os", "system"), (f"touch {path}",))


def _evaluated(path) -> Call:
    return Call(Global("builtins", "eval"), (f"open({str(path)!r}, 'w').close()",))


def _through(path) -> Call:
    """A name that is known, with dots that lead out of it."""
    return Call(Global("collections", "OrderedDict.__init__.__globals__"), (str(path),))


def _by_torch(path) -> Call:
    return Call(Global("torch", "load"), (str(path),))


def _partly(path) -> Call:
    return Call(Global("functools", "partial"), (Global("os", "system"), f"touch {path}"))


def _in_storage(path) -> Call:
    """The evil is in the bytes of a storage, which are a pickle themselves."""
    return Call(Global("torch.storage", "_load_from_bytes"), (files.pickled(_system(path)),))


def _in_legacy_storage(path) -> Call:
    return Call(Global("torch.storage", "_load_from_bytes"), (files.legacy(_system(path), {}),))


def _in_zipped_storage(path) -> Call:
    return Call(Global("torch.storage", "_load_from_bytes"), (files.zipped(_system(path), {}),))


def _in_state(path) -> Call:
    """It is an attribute of a network that looks well."""
    network = files.network("Generator", {"w": np.zeros(2, np.float32)}, {})
    network.args[0].items["state"]["hook"] = _system(path)
    return network


EVIL = {
    _system: "os.system", _evaluated: "builtins.eval", _through: "collections.OrderedDict.__init__", _by_torch:
    "torch.load", _partly: "functools.partial", _in_storage: "os.system", _in_legacy_storage: "os.system",
    _in_zipped_storage: "os.system", _in_state: "os.system",
}  # fmt: skip


@pytest.mark.parametrize("evil", EVIL, ids=lambda evil: evil.__name__)
@pytest.mark.parametrize("wrap", ["pkl", "legacy", "zip"])
def test_evil_files_are_refused_and_do_nothing(evil, wrap, tmp_path, capsys):
    target = tmp_path / "written"
    value = {"G_ema": evil(target)}
    writers = {"pkl": files.pickled, "legacy": lambda v: files.legacy(v, {}), "zip": lambda v: files.zipped(v, {})}
    path = _write(tmp_path / "x.pkl", writers[wrap](value))
    assert cli.main(["import", f"--from={path}", f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    expected = EVIL[evil] if wrap == "pkl" or "torch.storage" not in str(evil(target)) else "torch.storage"
    assert err.startswith("error: ") and "refused" in err and expected in err and len(err.splitlines()) == 1
    assert not target.exists() and not (tmp_path / "run").exists()


def test_the_evil_files_are_evil(tmp_path):
    """An unguarded reader does what they say."""
    for evil in (_system, _evaluated):
        target = tmp_path / evil.__name__
        pickle.loads(files.pickled(evil(target)))
        assert target.exists()


def test_stand_ins_cannot_be_changed():
    """A state that is set on a function, on a class, or on a dict of one of them."""
    function = Global("torch._utils", "_rebuild_tensor_v2")
    for target in (function, Global("collections", "OrderedDict"), Global("torch.nn.modules.linear", "Linear")):
        for state in ({"__call__": 1, "__code__": 2}, (None, {"__defaults__": (1,), "__setstate__": 3})):
            with pytest.raises(pickles.Damaged):
                pickles.read_bytes(b"\x80\x03" + files.opcodes(target) + files.opcodes(state) + b"b.")
    call = Call(Global("collections", "OrderedDict"), (), {"items": "shadowed", "__class__": 5}, {"a": 1})
    assert dict(pickles.read_bytes(files.pickled(call)).items()) == {"a": 1}


def test_records_are_names_alone():
    call = Call(Global("torch.nn.modules.linear", "Linear"), (3,), {"bias": None})
    record = pickles.read_bytes(files.pickled(call))
    assert isinstance(record, pickles.Record) and record.origin == "torch.nn.modules.linear Linear"
    assert record.args == (3,) and record.state == {"bias": None}
    with pytest.raises(pickles.Damaged, match="not callable"):
        pickles.read_bytes(files.pickled(Call(call, ())))


def _bomb_of_places() -> bytes:
    return b"\x80\x03]r\xff\xff\xff\x7f."  # remember an empty list as number 2^31 - 1


def _bomb_of_bytes() -> bytes:
    return b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"abc."


def _bomb_of_zeros() -> bytes:
    """A few bytes that unpack to a gigabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))
    return file.getvalue()


def _huge_tensor() -> bytes:
    reference = files._reference(np.zeros(2, np.float32), "0")
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"), (reference, 0, (2**40,), (0,), False, {}))
    return files.zipped({"synthesis.b4.const": tensor}, {"0": np.zeros(2, np.float32)})


def _outside() -> bytes:
    reference = files._reference(np.zeros(2, np.float32), "0")
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"), (reference, 1, (2,), (1,), False, {}))
    return files.zipped({"synthesis.b4.const": tensor}, {"0": np.zeros(2, np.float32)})


def _negative() -> bytes:
    reference = files._reference(np.zeros(2, np.float32), "0")
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"), (reference, 1, (2,), (-1,), False, {}))
    return files.zipped({"synthesis.b4.const": tensor}, {"0": np.zeros(2, np.float32)})


def _short_storage() -> bytes:
    value = {"synthesis.b4.const": files._tensor(np.zeros(9, np.float32), files._reference(np.zeros(9), "0"))}
    return files.zipped(value, {"0": np.zeros(2, np.float32)})


def _self_contained() -> bytes:
    """A dict within itself."""
    return b"\x80\x03}q\x00X\x01\x00\x00\x00ah\x00s."


def _laughs() -> bytes:
    """A list of twice a list of twice a list, whose text would be without end, as a size."""
    doubled = b"]q\x00" + b"".join(b"](h%bh%beq%b" % (bytes([n]), bytes([n]), bytes([n + 1])) for n in range(100))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\n"
    tensor += files.opcodes((files.legacy(files._reference(np.zeros(2), "0", None), {"0": np.zeros(2)}),)) + b"RK\x00"
    return b"\x80\x03" + tensor + doubled + b")" + b"tR."


def _copies() -> bytes:
    """A thousand tensors of one storage."""
    numbers = np.zeros(10_000, np.float32)
    tensor = files._tensor(numbers, files._reference(numbers, "0"))
    return files.zipped({f"G.x{n}": tensor for n in range(1000)}, {"0": numbers})


def _deep() -> bytes:
    return b"\x80\x03" + b"(" * 100_000 + b"t" * 100_000 + b"."


def _deep_key() -> bytes:
    """A tuple in a tuple in a tuple, ..., as a key: hashing it takes a frame of the C stack for each."""
    return b"\x80\x04})" + b"\x85" * 1_000_000 + b"K\x01s."


_TWICE = b")\x94" + b"2\x86\x94" * 100  # a tuple of twice a tuple of twice a tuple, ...


def _twofold_key() -> bytes:
    """Hashing it takes twice as long with every level."""
    return b"\x80\x04}" + _TWICE + b"K\x01s."


def _remembered_key() -> bytes:
    """The same after it was dropped, marked, and fetched from memory, among other keys."""
    return b"\x80\x04}" + _TWICE + b"0((10(X\x01\x00\x00\x00aK\x01h\x64K\x02u."


def _twofold_item() -> bytes:
    return b"\x80\x04\x8f(" + _TWICE + b"\x90."


def _twofold_frozen_item() -> bytes:
    return b"\x80\x04(" + _TWICE + b"\x91."


def _twofold_key_of_a_marked_dict() -> bytes:
    return b"\x80\x04(" + _TWICE + b"K\x01d."


def _twofold_item_of_a_called_set() -> bytes:
    return b"\x80\x04cbuiltins\nset\n(](" + _TWICE + b"etR."


def _twofold_key_of_a_called_dict() -> bytes:
    return b"\x80\x04ccollections\nOrderedDict\n](" + _TWICE + b"K\x01\x86e\x85R."


def _twofold_place() -> bytes:
    """In the list of storages that follows a legacy file's value."""
    system = b"".join(map(files.pickled, (0x1950A86A20F9469CFC6C, 1001, {}, {})))
    return system + b"\x80\x04](" + _TWICE + b"e."


def _twofold_name() -> bytes:
    """Of an argument, in a list of pairs where the arguments within an argument are expected."""
    arrays, kwargs = _small()
    network = files.network("G", arrays, {**kwargs, "synthesis_kwargs": "HERE"})
    data = files.pickled({"G": network})
    here = files.opcodes("HERE")
    assert data.count(here) == 1
    return data.replace(here, b"](" + _TWICE + b"K\x01\x86e")


def _small() -> tuple[dict, dict]:
    arrays, meta = golden_stylegan2.load("sg2_loss_uncond")
    prefix = "params/G/"
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}, meta["G_kwargs"]


def _long_number() -> bytes:
    return b"\x80\x04}" + _digits() + b"K\x01s."


def _long_name() -> bytes:
    """Of a part of a network; it is refused before it would be written down."""
    network = files.network("G", {"w": np.zeros(2, np.float32)}, {})
    network.args[0].items["state"]["_modules"] = {2**600: None}
    return files.pickled({"G": network})


def _digits() -> bytes:
    data = (10**5000).to_bytes(2077, "little")
    return b"\x8b" + struct.pack("<i", len(data)) + data


def _many_copies() -> bytes:
    """One saved storage, loaded a hundred times."""
    load = b"ctorch.storage\n_load_from_bytes\nq\x00" + files.opcodes(_stored(np.zeros(10_000))) + b"\x85q\x01R"
    return b"\x80\x03](" + load + b"h\x00h\x01R" * 100 + b"e."


def _stored(numbers) -> bytes:
    return files.legacy(files._reference(numbers, "0", None), {"0": numbers})


def _empty_tensor() -> bytes:
    """No numbers of any size."""
    reference = files._reference(np.zeros(0, np.float32), "0")
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"), (reference, 0, (0, 2**40), (1, 1), False, {}))
    return files.zipped({"synthesis.b4.const": tensor}, {"0": np.zeros(0, np.float32)})


_KEY = "a key that is neither a name nor a short number"
DAMAGED = {
    _deep_key: _KEY,
    _twofold_key: _KEY,
    _remembered_key: _KEY,
    _twofold_item: _KEY,
    _twofold_frozen_item: _KEY,
    _twofold_key_of_a_marked_dict: _KEY,
    _twofold_item_of_a_called_set: "a set of something else than names",
    _twofold_key_of_a_called_dict: "",
    _twofold_place: "storage a tuple, to which nothing refers",
    _twofold_name: "synthesis_kwargs is a list",
    _long_number: "LONG4",
    _long_name: "a key that",
    _many_copies: "again and again",
    _empty_tensor: "holds no number",
    _bomb_of_places: "place",
    _bomb_of_bytes: "",
    _bomb_of_zeros: "larger than itself",
    _huge_tensor: "beyond",
    _outside: "beyond",
    _negative: "sizes",
    _short_storage: "8 bytes for 9 numbers",
    _laughs: "a list where sizes",
    _self_contained: "without end",
    _deep: "",
    _copies: "many tensors of the same numbers",
}


@pytest.mark.parametrize("made", DAMAGED, ids=lambda made: made.__name__)
def test_bombs_and_lies_are_told(made, tmp_path, capsys):
    path = _write(tmp_path / "x.pkl", made())
    assert cli.main(["import", f"--from={path}", f"--workdir={tmp_path / 'run'}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --from={path}: ") and DAMAGED[made] in message and len(message.splitlines()) == 1


@pytest.mark.parametrize("made", [files.legacy_state_dict, files.zipped_state_dict, lambda w: files.pickled(
    {"G": files.network("Generator", w, {})})])  # fmt: skip
def test_every_cut_and_many_flips_of_a_file(made, tmp_path):
    """Whatever is missing or changed, there is a message of ours or another value, and nothing else."""
    data, path = made(WEIGHTS), tmp_path / "x.pth"
    rng = np.random.default_rng(0)
    broken = [data[:n] for n in range(0, len(data), 7)]
    for place, value in zip(rng.integers(0, len(data), 300), rng.integers(1, 256, 300), strict=True):
        broken.append(data[:place] + bytes([data[place] ^ value]) + data[place + 1 :])
    count = 0
    for one in broken:
        path.write_bytes(one)
        try:
            containers.read_file(path)
        except UserError as error:
            count += str(path) in str(error)
    assert count > len(data) // 7


def test_keys_of_known_files():
    """Names and short numbers, however they were made, are keys and items."""
    value = {"a": 1, 7: {"b": 2}, 2**62: 3, None: 4, True: 5}
    for protocol in range(2, 6):
        assert pickles.read_bytes(pickle.dumps(value, protocol)) == value
        assert pickles.read_bytes(pickle.dumps({"x", 3}, protocol)) == {"x", 3}
    shared = ("a", ("b",))  # tuples are values as deep as they like
    assert pickles.read_bytes(pickle.dumps([shared, shared, {"k": shared}])) == [shared, shared, {"k": shared}]


@pytest.mark.parametrize(
    "step", [b"s", b"u", b"0", b"2", b"t", b"q\x00", b"\x94", b"h\x00", b"R", b"(s", b"(2", b"](0s"]
)
def test_steps_without_their_values(step):
    with pytest.raises(pickles.Damaged):
        pickles.read_bytes(b"\x80\x04" + step + b".")


def test_safetensors_are_read_once(tmp_path):
    """Their numbers are held in memory once, and not beside the file's bytes."""
    numbers = np.arange(2**20, dtype=np.float32)
    safetensors.numpy.save_file({"a": numbers, "b": numbers + 1}, tmp_path / "x.safetensors")
    containers.read_file(tmp_path / "x.safetensors")  # imports
    tracemalloc.start()
    try:
        read = containers.read_file(tmp_path / "x.safetensors")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(read.value["b"], numbers + 1)
    assert read.size == (tmp_path / "x.safetensors").stat().st_size and peak < 1.6 * read.size


def test_other_files(tmp_path):
    with pytest.raises(MissingPathError, match="no such file"):
        containers.read_file(tmp_path / "absent.pkl")
    with pytest.raises(UserError, match="expected a .pkl, .pth or .safetensors"):
        containers.read_file(_write(tmp_path / "x.txt", b"hello, world"))
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="no weights that torch has saved"):
        containers.read_file(tmp_path / "x.npz")
    for length in (2**20, 0x180):  # the second begins as a pickle does
        broken = struct.pack("<Q", length) + b"{" + bytes(range(20))
        with pytest.raises(UserError, match="damaged.*[Hh]eader"):
            containers.read_file(_write(tmp_path / "x.safetensors", broken))
