"""Weights are those of the catalogue by their SHA-256, or say that they are not; nothing is fetched unasked."""

import email.message
import hashlib
import io
import pathlib
import re
import urllib.error

import numpy as np
import pytest
import safetensors.numpy

from gan_jax.errors import MissingPathError, UserError
from gan_jax.weights import store
from tests import interop_files as files

NET = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.float32([7, 8])}
HEADS = {"lin0.model.1.weight": np.full((1, 2, 1, 1), 0.5, np.float32)}
DATA, HEADS_DATA = files.zipped_state_dict(NET), files.legacy_state_dict(HEADS)
OTHER = files.zipped_state_dict({"a.weight": np.zeros((2, 3), np.float32)})
URL = "https://weights.example/net.pth"
GOLDEN_JIT = pathlib.Path(__file__).parent / "golden" / "clip_text_jit.pt"


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def catalogue(monkeypatch, tmp_path):
    """Two small files instead of the public ones, an empty cache, and no network. Returns the cache's folder."""
    net = store.Known("net", ("net.pth", "net-again.pth"), _sha(DATA), len(DATA), URL, "a net", "none")
    heads = store.Known("lpips_net", ("lpips_net.pth",), _sha(HEADS_DATA), len(HEADS_DATA), URL, "heads", "none", "net")
    monkeypatch.setattr(store, "KNOWN", {"net": net, "lpips_net": heads})
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(store.VARIABLE, raising=False)
    monkeypatch.setattr(store, "_opener", _NoNetwork)
    return tmp_path / "cache" / "weights"


class _NoNetwork:
    def open(self, request, timeout):
        raise AssertionError(f"{request.full_url} was asked for")


class _Server:
    """Answers each request with the next of `answers`: bytes, an error, or what makes bytes."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self):
        return self

    def open(self, request, timeout):
        self.asked.append(request.full_url)
        answer = self.answers.pop(0)
        answer = answer() if callable(answer) else answer
        if isinstance(answer, BaseException):
            raise answer
        return io.BytesIO(answer)


def _serve(monkeypatch, *answers) -> _Server:
    server = _Server(*answers)
    monkeypatch.setattr(store, "_opener", server)
    return server


def _same(state, expected) -> None:
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array)


def _put(path, data: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# The catalogue


def test_names_of_the_catalogue():
    assert set(store.KNOWN) == {
        "inception", "vgg16", "vgg19", "alexnet", "lpips_alex", "lpips_vgg", "dinov2_vits14", "dinov2_vitb14",
        "dinov2_vitl14", "i3d", "clip_vit_b32", "clip_vit_b16", "clip_vit_l14", "clip_vit_l14_336",
    }  # fmt: skip
    assert {name: entry.trunk for name, entry in store.KNOWN.items() if entry.trunk} == {
        "lpips_alex": "alexnet", "lpips_vgg": "vgg16"
    }  # fmt: skip


@pytest.mark.parametrize("name", store.KNOWN)
def test_entries_agree_with_themselves(name):
    """Publishers who hash their files put the first digits of the SHA-256 into the names."""
    entry = store.KNOWN[name]
    assert entry.name == name and entry.url.startswith("https://") and entry.what
    if name == "i3d":  # nobody's file is known by its hash
        assert (entry.sha256, entry.bytes) == ("", 0)
        return
    assert re.fullmatch("[0-9a-f]{64}", entry.sha256) and entry.bytes > 6000
    assert entry.url.rpartition("/")[2] in entry.files
    digits = [match[1] for file in entry.files if (match := re.search(r"-([0-9a-f]{8})\.pth$", file))]
    assert all(entry.sha256.startswith(prefix) for prefix in digits)
    assert bool(digits) == (name in ("inception", "vgg16", "vgg19", "alexnet"))


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "alexnet", "inception"])
def test_lengths_hold_the_parameters(name):
    """Four bytes a parameter, counted from the published layers, and little else."""
    convs = {"vgg16": 14_714_688, "vgg19": 20_024_384, "alexnet": 2_469_696, "inception": 21_785_568 + 1008 * 2049}
    dense = 4096 * 4097 + 1000 * 4097 + {"vgg16": 25_088, "vgg19": 25_088, "alexnet": 9_216}.get(name, 0) * 4096 + 4096
    parameters = convs[name] + (dense if name != "inception" else 0)
    assert 0 <= store.KNOWN[name].bytes - 4 * parameters < 400_000


def test_every_entry_is_in_the_docs():
    text = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "metrics_weights.md").read_text(encoding="utf-8")
    for entry in store.KNOWN.values():
        assert all(part in text for part in (entry.name, entry.sha256, f"{entry.bytes:,}", entry.url, *entry.files))
        if entry.trunk:
            assert store.joint(store.KNOWN[entry.trunk].sha256, entry.sha256) in text


# Finding


def test_a_file_is_found_where_it_is_given(catalogue, tmp_path, monkeypatch):
    inside = _put(tmp_path / "given" / "net-again.pth", DATA)
    assert store.find("net", folder=inside) == inside == store.find("net", folder=str(inside.parent))
    cached = _put(catalogue / "net.pth", DATA)
    assert store.find("net") == cached
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "variable"))
    assert store.find("net") == cached  # where the variable's folder has none
    path = _put(tmp_path / "variable" / "net.pth", DATA)
    assert store.find("net") == path
    with pytest.raises(MissingPathError):  # a folder that was given is the only one
        store.find("net", folder=tmp_path / "cache")


def test_what_is_missing_is_told(catalogue, tmp_path, monkeypatch):
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "variable"))
    with pytest.raises(MissingPathError) as error:
        store.load("net")
    message = str(error.value)
    for part in ("net.pth or net-again.pth", str(tmp_path / "variable"), str(catalogue), URL, f"{len(DATA):,} bytes",
                 "--download", "config.evaluation.download=True", "docs/metrics_weights.md"):  # fmt: skip
        assert part in message
    assert "\n" not in message
    for download in (False, True):  # a path that is mistyped starts no download
        with pytest.raises(MissingPathError, match="absent.pth: no such file or folder"):
            store.load("net", folder=tmp_path / "absent.pth", download=download)
    with pytest.raises(UserError, match="'inceptoin'; expected one of net, lpips_net"):
        store.find("inceptoin")


# Loading


def test_a_published_file(catalogue, tmp_path):
    path = _put(tmp_path / "renamed.bin", DATA)
    weights = store.load("net", folder=path)
    _same(weights.state, NET)
    assert weights[1:] == (_sha(DATA), path, True)


@pytest.mark.parametrize("data", [OTHER, DATA[:-9], b"", b"no weights at all"])
def test_another_hash_is_refused_unread(data, catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr(store.containers, "read_file", lambda path: pytest.fail("it was read"))
    path = _put(tmp_path / "net.pth", data)
    for folder in (path, tmp_path):
        with pytest.raises(UserError) as error:
            store.load("net", folder=folder, download=True)
        message = str(error.value)
        assert all(part in message for part in (str(path), _sha(data), _sha(DATA), URL)) and "\n" not in message


def test_safetensors_are_read_but_not_as_published(catalogue, tmp_path):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(NET, path)
    weights = store.load("net", folder=path)
    _same(weights.state, NET)
    assert weights[1:] == (_sha(path.read_bytes()), path, False)
    with pytest.raises(MissingPathError):  # only where the file itself is given
        store.load("net", folder=tmp_path)
    with pytest.raises(UserError, match="expected the safetensors"):  # a pickle by another name
        store.load("net", folder=_put(tmp_path / "other.safetensors", OTHER))
    with pytest.raises(UserError, match="damaged"):
        store.load("net", folder=_put(tmp_path / "cut.safetensors", path.read_bytes()[:-5]))


@pytest.fixture
def hashless(catalogue, monkeypatch):
    """An entry without a hash beside the two. Returns the cache's folder."""
    entry = store.Known("own", ("own.safetensors", "own.pt"), "", 0, URL, "a net", "none")
    monkeypatch.setitem(store.KNOWN, "own", entry)
    return catalogue


@pytest.mark.parametrize("data", [DATA, files.legacy_state_dict(NET), safetensors.numpy.save(NET)])
def test_without_a_hash_the_users_own_file_is_read_and_never_published(data, hashless, tmp_path, monkeypatch):
    path = _put(tmp_path / "any name", data)
    weights = store.load("own", folder=path)
    _same(weights.state, NET)
    assert weights[1:] == (_sha(data), path, False)
    named = _put(tmp_path / "folder" / "own.pt", data)
    assert store.load("own", folder=named.parent)[1:] == (_sha(data), named, False)
    monkeypatch.setenv(store.VARIABLE, str(named.parent))
    assert store.load("own").path == named


def test_without_a_hash_what_is_missing_is_told_and_not_fetched(hashless, tmp_path):
    for folder, place in (("", f"a folder that ${store.VARIABLE} names"), (tmp_path, str(tmp_path))):
        with pytest.raises(MissingPathError) as error:
            store.load("own", folder=folder, download=True)
        message = str(error.value)
        for part in ("'own' are missing: no own.safetensors or own.pt in", "it is not downloaded", URL, "--weights",
                     "config.evaluation.weights", f"put the file into {place}", "docs/metrics_weights.md"):  # fmt: skip
            assert part in message
        assert "\n" not in message and "bytes" not in message


@pytest.mark.parametrize(("data", "message"), [
    (GOLDEN_JIT.read_bytes(), "expected a dict of names and tensors"),  # a program of TorchScript
    (files.zipped({"a": 3}, {}), "expected a dict of names and tensors"),
    (files.pickled(files.Call(files.Global("os", "system"), ("true",))), "it asks for (os|posix).system"),
    (DATA[:-9], "damaged"),
    (files.zipped_state_dict({"a": np.zeros((0, 2**40), np.float32)}), "damaged: a tensor .* holds no number"),
    (b"no weights at all", "expected a .pkl, .pth or .safetensors file"),
])  # fmt: skip
def test_without_a_hash_what_is_no_state_dict_is_refused(data, message, hashless, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        store.load("own", folder=_put(tmp_path / "own.pt", data))
    assert str(tmp_path / "own.pt") in str(error.value) and "\n" not in str(error.value)


def test_without_a_hash_many_tensors_of_the_same_numbers_are_refused(hashless, tmp_path):
    """A small file may not ask for much memory."""
    array = np.zeros(10_000, np.float32)
    shared = files._tensor(array, files._reference(array, "x"))
    path = _put(tmp_path / "own.pt", files.zipped({f"a{i}": shared for i in range(100)}, {"x": array}))
    with pytest.raises(UserError, match="many tensors of the same numbers"):
        store.load("own", folder=path)


def test_a_published_file_of_another_kind(catalogue, tmp_path, monkeypatch):
    """It cannot be, but an entry may be wrong."""
    data = files.zipped({"a": 3}, {})
    monkeypatch.setitem(store.KNOWN, "net", store.KNOWN["net"]._replace(sha256=_sha(data)))
    with pytest.raises(UserError, match="expected a dict of names and tensors"):
        store.load("net", folder=_put(tmp_path / "net.pth", data))


def test_lpips_has_two_files(catalogue, tmp_path):
    heads = _put(tmp_path / "lpips_net.pth", HEADS_DATA)
    with pytest.raises(MissingPathError, match="the weights 'net' are missing"):
        store.load("lpips_net", folder=tmp_path)
    _put(tmp_path / "net.pth", DATA)
    expected = _sha((_sha(DATA) + _sha(HEADS_DATA)).encode())  # the trunk's digits, then the heads'
    for folder in (tmp_path, heads):
        weights = store.load("lpips_net", folder=folder)
        _same(weights.state, NET | HEADS)
        assert weights[1:] == (expected, heads, True)
    _put(tmp_path / "net.pth", OTHER)
    with pytest.raises(UserError, match="not the published weights 'net'"):
        store.load("lpips_net", folder=tmp_path)


def test_lpips_of_one_safetensors_file(catalogue, tmp_path):
    path = tmp_path / "both.safetensors"
    safetensors.numpy.save_file(NET | HEADS, path)
    weights = store.load("lpips_net", folder=path)
    _same(weights.state, NET | HEADS)
    assert weights.sha256 == _sha(path.read_bytes()) and not weights.published


def test_what_cannot_be_opened(catalogue, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cannot be read"):
        store.digest(tmp_path)
    _put(tmp_path / "file", b"")
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(MissingPathError, match="'net' are missing"):  # the cache is done without
        store.find("net")


# Downloads


def test_a_download_is_asked_for(catalogue, tmp_path, monkeypatch, capsys):
    with pytest.raises(MissingPathError):
        store.load("net")
    server = _serve(monkeypatch, DATA)
    (tmp_path / "given").mkdir()
    for folder in ("", "", tmp_path / "given"):  # the second and third find it in the cache
        weights = store.load("net", folder=folder, download=True)
        _same(weights.state, NET)
        assert weights.path == catalogue / "net.pth" and weights.published
    assert server.asked == [URL] and [path.name for path in catalogue.iterdir()] == ["net.pth"]
    output = capsys.readouterr()
    assert output.out == "" and output.err == f"downloading {catalogue / 'net.pth'}: {len(DATA):,} bytes from {URL}\n"


def test_both_files_of_lpips_are_downloaded(catalogue, monkeypatch):
    server = _serve(monkeypatch, HEADS_DATA, DATA)
    _same(store.load("lpips_net", download=True).state, NET | HEADS)
    assert len(server.asked) == 2 and sorted(path.name for path in catalogue.iterdir()) == ["lpips_net.pth", "net.pth"]


BROKEN = {
    "other bytes": (OTHER, _sha(OTHER)),
    "cut": (DATA[:-1], f"{len(DATA) - 1:,} bytes arrived"),
    "no connection": (urllib.error.URLError("Name or service\nnot known"), "Name or service"),
    "missing": (urllib.error.HTTPError(URL, 404, "Not Found", None, None), "404"),
    "slow": (TimeoutError("timed out"), "timed out"),
    "nameless": (ConnectionResetError(), "ConnectionResetError"),
}


@pytest.mark.parametrize("answer, part", BROKEN.values(), ids=BROKEN)
def test_a_download_that_fails_leaves_nothing(answer, part, catalogue, monkeypatch):
    _serve(monkeypatch, answer)
    with pytest.raises(UserError) as error:
        store.load("net", download=True)
    message = str(error.value)
    assert part in message and URL in message and "\n" not in message and list(catalogue.iterdir()) == []


def test_a_download_without_end_is_cut(catalogue, monkeypatch):
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size):
            Endless.taken += size
            return b"x" * size

    monkeypatch.setattr(io, "BytesIO", lambda answer: answer)
    _serve(monkeypatch, Endless())
    with pytest.raises(UserError, match="arrived"):
        store.load("net", download=True)
    assert Endless.taken < 2**22 and list(catalogue.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(catalogue, monkeypatch):
    _serve(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        store.load("net", download=True)
    assert list(catalogue.iterdir()) == []


def test_two_downloads_at_once(catalogue, monkeypatch):
    """While one waits for its bytes another process fetches the same file, whole or broken."""

    def meanwhile():
        _same(store.load("net", download=True).state, NET)
        with pytest.raises(UserError):
            store.fetch(store.KNOWN["net"], catalogue)
        return DATA

    _serve(monkeypatch, meanwhile, DATA, OTHER)
    _same(store.load("net", download=True).state, NET)
    assert [path.read_bytes() for path in catalogue.iterdir()] == [DATA]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "file:///etc/hostname", "ftp://127.0.0.1:1/x", "data:,x"])
def test_only_https_is_spoken(url):
    opener = store._opener()
    with pytest.raises(urllib.error.URLError, match="unknown url type"):
        opener.open(url)
    headers = email.message.Message()
    headers["location"] = url
    request = store.urllib.request.Request(URL)
    request.timeout = 1
    with pytest.raises(urllib.error.URLError):  # a redirection
        opener.error("https", request, io.BytesIO(), 302, "Found", headers)
