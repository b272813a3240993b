"""The public weights of the networks that metrics use: where they lie, what they hash to, how they are fetched.

No weights come with this package and none are fetched that were not asked for. What makes a file the published one is
its SHA-256 and not its name: a value such as FID is comparable only where the network is the very same.
"""

import contextlib
import hashlib
import http.client
import os
import pathlib
import secrets
import sys
import urllib.request
from typing import NamedTuple

import numpy as np

from gan_jax import paths
from gan_jax.cache import cache_dir
from gan_jax.errors import MissingPathError, UserError
from gan_jax.weights import containers, pickles, torchscript
from gan_jax.weights.opcodes import Damaged

VARIABLE = "GAN_JAX_WEIGHTS_DIR"
_DOCS = "docs/metrics_weights.md"
_TIMEOUT = 60  # seconds without a byte


class Known(NamedTuple):
    """A public file of weights.

    Fields:
      name: what `find` and `load` call it.
      files: names that it goes by; a download gets the first.
      sha256: of its bytes, hex. "": no hash of a published file is known; then the user's own file is read, which is
        not published, and nothing is downloaded.
      bytes: its length; 0 without a hash.
      url: https address of the file; without a hash, of what it is converted from.
      what: the network and its training, in words.
      licence: of those who published it.
      trunk: name of the file whose arrays belong to it too, or "".
    """

    name: str
    files: tuple[str, ...]
    sha256: str
    bytes: int
    url: str
    what: str
    licence: str
    trunk: str = ""


class Weights(NamedTuple):
    """What `load` has read.

    Fields:
      state: name in PyTorch -> array.
      sha256: of the file; of two files, see `joint`.
      path: the file; the heads' where there are two.
      published: the file is the catalogue's, bit for bit.
    """

    state: dict[str, np.ndarray]
    sha256: str
    path: pathlib.Path
    published: bool


_TORCHVISION = "torchvision (BSD-3-Clause), trained on ImageNet, whose terms may bind too"
_LPIPS = "lpips 0.1.4 (BSD-2-Clause); the trunk is torchvision's"
_LPIPS_URL = (  # the revision at which the files are those of the package 0.1.4
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963"
    "/lpips/weights/v0.1/"
)


def _torchvision(name: str, file: str, sha256: str, size: int, what: str) -> Known:
    return Known(name, (file,), sha256, size, f"https://download.pytorch.org/models/{file}", what, _TORCHVISION)


def _heads(net: str, trunk: str, sha256: str, size: int) -> Known:
    what = f"LPIPS v0.1: linear weights of {trunk}'s five layers"
    return Known(f"lpips_{net}", (f"lpips_{net}.pth", f"{net}.pth"), sha256, size, f"{_LPIPS_URL}{net}.pth", what,
                 _LPIPS, trunk)


def _dinov2(size: str, sha256: str, length: int) -> Known:
    name, file = f"dinov2_vit{size}14", f"dinov2_vit{size}14_pretrain.pth"
    return Known(name, (file,), sha256, length, f"https://dl.fbaipublicfiles.com/dinov2/{name}/{file}",
                 f"DINOv2 ViT-{size.upper()}/14 without registers, LVD-142M", "Meta, Apache-2.0")


def _clip(name: str, file: str, sha256: str, length: int, what: str) -> Known:
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}"
    return Known(name, (file,), sha256, length, url, f"CLIP {what}, of 400 million captions", "OpenAI, MIT")


KNOWN: dict[str, Known] = {
    entry.name: entry
    for entry in (
        Known(
            "inception",
            ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95_628_359,
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"
            "/pt_inception-2015-12-05-6726825d.pth",
            "Inception of December 2015 (TensorFlow's, ImageNet), as pytorch-fid and torch-fidelity converted it",
            "pytorch-fid and TensorFlow's models (Apache-2.0)",
        ),
        _torchvision("vgg16", "vgg16-397923af.pth", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                     553_433_881, "VGG-16 without BatchNorm, ImageNet"),
        _torchvision("vgg19", "vgg19-dcbb9e9d.pth", "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
                     574_673_361, "VGG-19 without BatchNorm, ImageNet"),
        _torchvision("alexnet", "alexnet-owt-7be5be79.pth",
                     "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                     244_408_911, "AlexNet (one weird trick), ImageNet"),
        _heads("alex", "alexnet", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", 6_009),
        _heads("vgg", "vgg16", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", 7_289),
        _dinov2("s", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9", 88_283_115),
        _dinov2("b", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73", 346_378_731),
        _dinov2("l", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428", 1_217_586_395),
        _clip("clip_vit_b32", "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
              353_976_522, "ViT-B/32"),
        _clip("clip_vit_b16", "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
              350_837_078, "ViT-B/16"),
        _clip("clip_vit_l14", "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
              932_768_134, "ViT-L/14"),
        _clip("clip_vit_l14_336", "ViT-L-14-336px.pt",
              "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02", 934_088_680, "ViT-L/14 at 336 px"),
        Known(
            "i3d", ("i3d.safetensors", "i3d.pt"), "", 0, "https://github.com/google-deepmind/kinetics-i3d",
            "I3D of frames, Kinetics-400, under the names of pytorch-i3d", "DeepMind's kinetics-i3d (Apache-2.0)",
        ),
    )
}  # fmt: skip


def known(name: str) -> Known:
    """The catalogue's entry; raises UserError for a name that is not in it."""
    if name not in KNOWN:
        raise UserError(f"no weights are known as {name!r}; expected one of {', '.join(KNOWN)}; see {_DOCS}")
    return KNOWN[name]


def find(name: str, *, folder: os.PathLike | str = "") -> pathlib.Path:
    """Where the file lies; it is not read.

    Args:
      name: of the catalogue.
      folder: a file, or a folder that holds one by a known name. "": `$GAN_JAX_WEIGHTS_DIR`, then `weights/` in the
        cache folder.
    Raises:
      MissingPathError: it is in none of these; the message says where it would be downloaded from.
      UserError: unknown name.
    """
    entry = known(name)
    if folder:
        path = place(folder)
        if path.is_file():
            return path
        if not path.is_dir():
            raise MissingPathError(f"{path}: no such file or folder, expected the weights {name!r}: give the file, a "
                                   f"folder that holds {' or '.join(entry.files)}, or neither; see {_DOCS}")
        places = [path]
    else:
        variable = os.environ.get(VARIABLE)
        places = [pathlib.Path(paths.expanded(variable, VARIABLE))] if variable else []
        places.append(cache_dir("weights"))
    for where in places:
        for file in entry.files:
            if (where / file).is_file():
                return where / file
    raise MissingPathError(
        f"the weights {name!r} are missing: no {' or '.join(entry.files)} in {' or '.join(map(str, places))}; "
        f"{_way_out(entry, places[0] if folder else None)}"
    )


def load(name: str, *, folder: os.PathLike | str = "", download: bool = False) -> Weights:
    """Finds, checks and reads weights.

    A file with the catalogue's SHA-256 is published, whatever its name. Of other files only safetensors are read, and
    only where `folder` is the file itself: its hash cannot be known, so it is not published. Where the catalogue has no
    hash, safetensors and state dicts that torch has saved are read, from a folder too, and none is published.
    LPIPS takes the trunk's file beside the heads'; a safetensors file holds the arrays of both.

    Args:
      name: of the catalogue.
      folder: as for `find`.
      download: fetch what is missing into the cache folder's `weights/`, which is then looked through as well.
    Raises:
      MissingPathError: a file is missing, and not to be downloaded.
      UserError: another hash than the catalogue's, a file that cannot be read, a download that failed.
    """
    entry = known(name)
    where = place(folder) if folder else None
    path = _obtain(entry, where, download)
    sha256 = digest(path)
    published = sha256 == entry.sha256
    if entry.sha256 and not published and path.suffix != ".safetensors":
        raise UserError(
            f"{path}: not the published weights {name!r}: SHA-256 {sha256} of {path.stat().st_size:,} bytes, expected "
            f"{entry.sha256} of {entry.bytes:,}; fetch it again from {entry.url} (delete this one first); other "
            f"weights are read from a .safetensors file given by its path, and their results named so, see {_DOCS}"
        )
    state = _arrays(path, published, pickled=published or not entry.sha256)
    if entry.trunk and published:
        trunk = load(entry.trunk, folder=path.parent if path == where else folder, download=download)
        state, sha256 = trunk.state | state, joint(trunk.sha256, sha256)
    return Weights(state, sha256, path, published)


def place(path: os.PathLike | str) -> pathlib.Path:
    """A file or folder of weights as the user wrote it; raises UserError as `paths.expanded`."""
    return pathlib.Path(paths.expanded(str(path), "weights"))


def digest(path: os.PathLike | str) -> str:
    """SHA-256 of a file, hex; raises UserError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def joint(trunk: str, heads: str) -> str:
    """The SHA-256 that names LPIPS's two files: of the text of both hex digests, the trunk's first."""
    return hashlib.sha256(f"{trunk}{heads}".encode()).hexdigest()


def fetch(entry: Known, folder: pathlib.Path) -> pathlib.Path:
    """Downloads a file into a folder, where it appears whole and checked or not at all.

    Several processes may fetch it at once: each has a file of its own until it is moved to its place.

    Raises:
      UserError: no connection, an error of the server, other bytes than the catalogue's, no space; one line.
    """
    path = folder / entry.files[0]
    part = folder / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
    print(f"downloading {path}: {entry.bytes:,} bytes from {entry.url}", file=sys.stderr, flush=True)
    try:
        with part.open("xb") as file:
            sha256, count = _receive(entry, file)
        if sha256 != entry.sha256:
            raise UserError(
                f"{entry.url}: SHA-256 {sha256} of {count:,} bytes arrived, expected {entry.sha256} of "
                f"{entry.bytes:,}; nothing was kept: try again, or {_by_hand(entry)}"
            )
        os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise UserError(
            f"{entry.url}: the download failed: {reason:.200}; nothing was kept: try again, or {_by_hand(entry)}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _obtain(entry: Known, folder: pathlib.Path | None, download: bool) -> pathlib.Path:
    try:
        return find(entry.name, folder=folder or "")
    except MissingPathError:
        if not download or not entry.sha256 or (folder and not folder.is_dir()):
            raise  # a path that was mistyped is not mended by a download to somewhere else
    cache = cache_dir("weights")
    try:
        return find(entry.name, folder=cache)
    except MissingPathError:
        return fetch(entry, cache)


def _arrays(path: pathlib.Path, published: bool, pickled: bool) -> dict[str, np.ndarray]:
    """The named arrays of a file; `pickled`: of any kind, else of safetensors alone."""
    contents = containers.read_file(path)
    value = contents.value
    if published and torchscript.is_network(value):
        value = torchscript.tensors(value)
    kinds = np.ndarray | pickles.Tensor if pickled else np.ndarray  # only safetensors hold arrays as such
    if not isinstance(value, dict) or not all(
        isinstance(key, str) and isinstance(tensor, kinds) for key, tensor in value.items()
    ):
        expected = "a dict of names and tensors" if pickled else "the safetensors that its name says"
        raise UserError(f"{path}: expected {expected}; see {_DOCS}")
    numbers = containers.reader(contents.size)
    try:
        return {key: numbers(tensor) for key, tensor in value.items()}
    except Damaged as error:
        raise UserError(f"{path}: the file is damaged: {error}; fetch it again") from error


def _receive(entry: Known, file) -> tuple[str, int]:
    """Writes what the address gives into a file: (SHA-256, bytes); it ends where there is more than there should be."""
    sha256, count = hashlib.sha256(), 0
    request = urllib.request.Request(entry.url, headers={"User-Agent": "gan_jax"})
    with _opener().open(request, timeout=_TIMEOUT) as response:
        while count <= entry.bytes and (block := response.read(2**20)):
            sha256.update(block)
            file.write(block)
            count += len(block)
    return sha256.hexdigest(), count


def _opener() -> urllib.request.OpenerDirector:
    """It speaks https alone, after a redirection too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPSHandler, urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _way_out(entry: Known, folder: pathlib.Path | None) -> str:
    size = f"{entry.bytes:,} bytes"
    by_hand = f"put the file into {folder}, see {_DOCS}" if folder else _by_hand(entry)
    if not entry.sha256:
        return (f"it is not downloaded: convert that of {entry.url}, give the file as --weights (while training, "
                f"config.evaluation.weights), or {by_hand}")
    return f"--download (while training, config.evaluation.download=True) fetches {size} from {entry.url}, or {by_hand}"


def _by_hand(entry: Known) -> str:
    return f"put the file into a folder that ${VARIABLE} names, see {_DOCS}"
