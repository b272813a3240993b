"""The sides of the comparison of metrics: gan_jax, torch-fidelity and pytorch-fid, on equal images and weights.

Every side has `offers`, `check`, `play`, `values` and `peak`, and runs in a process of its own. Images are the same
everywhere, and the weights of Inception are `random_state(shapes(), 0)`: nothing is downloaded.
"""

import contextlib
import inspect
import os
import pathlib
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarks.cases import Case
from benchmarks.sides import peak_mib
from gan_jax.features import inception, networks, state

SIZE = inception.SIZE[0]
CHECKED = 4  # images whose features are compared
WAYS = {"torch-fidelity": "tf1", "pytorch-fid": "pytorch_fid"}  # preprocessing of each package


class Work(NamedTuple):
    """What all sides are given."""

    images: int  # of one timed call
    size: int  # of the images before they are resized, pixels
    output: str  # of Inception
    rows: int  # features of each of the two sets whose distance is taken
    dim: int  # of these features
    subsets: int  # of the kernel distance
    subset_size: int
    threads: int
    devices: int  # of the CPU that gan_jax shards over
    generator: Case


class Play(NamedTuple):
    """A stage to be timed."""

    stage: str
    way: str = ""  # preprocessing, one of `inception.PREPROCESSING`; "" where nothing is prepared
    batch: int = 0


def images(count: int, size: int, seed: int) -> np.ndarray:
    """Smooth random images, uint8 (count, size, size, 3): noise of 16x16 pixels, stretched bilinearly."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 17, 17, 3))
    places = np.arange(size) * (16 / size)
    low = places.astype(int)
    share = places - low
    rows = coarse[:, low] * (1 - share)[:, None, None] + coarse[:, low + 1] * share[:, None, None]
    stretched = rows[:, :, low] * (1 - share)[:, None] + rows[:, :, low + 1] * share[:, None]
    return np.rint(stretched).astype(np.uint8)


def features(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of correlated features, float32 (rows, dim), whose variances fall as 1 / i."""
    rng = np.random.default_rng(3)
    mix = rng.standard_normal((work.dim, work.dim)) / np.sqrt(np.arange(1, work.dim + 1))[:, None]
    first, second = (rng.standard_normal((work.rows, work.dim)) @ mix for _ in range(2))
    return first.astype(np.float32), (1.1 * second + 0.2).astype(np.float32)


def weights() -> dict[str, np.ndarray]:
    """Inception's, by their names in PyTorch: those that gan_jax draws for `random_inception`."""
    return state.random_state(inception.shapes(), networks.SEED)


class _Side:
    """What the sides share: their images and features, and the clock."""

    stages: tuple[str, ...] = ()

    def __init__(self, work: Work):
        self.work, self._values = work, {}
        self.images = {"resize": images(work.images, work.size, 0), "features": images(work.images, SIZE, 1)}
        self.images["resize_features"] = self.images["resize"]

    @cached_property
    def sets(self) -> tuple[np.ndarray, np.ndarray]:
        return features(self.work)

    @cached_property
    def moments(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(mean, covariance) of both sets, float64."""
        wide = [one.astype(np.float64) for one in self.sets]
        return [(one.mean(0), np.cov(one, rowvar=False)) for one in wide]

    def offers(self) -> tuple[str, ...]:
        """Stages that this side has."""
        return self.stages

    def play(self, play: Play, count: int) -> tuple[float, float]:
        """(seconds, CPU seconds of all threads) of a stage over `count` images."""
        run = self._prepare(play, count)
        began = time.perf_counter(), time.process_time()
        run()
        return time.perf_counter() - began[0], time.process_time() - began[1]

    def values(self) -> dict[str, float]:
        """Distances of the last calls, by name."""
        return dict(self._values)

    def peak(self) -> float:
        """The most memory that this process has held, MiB."""
        return peak_mib()

    def _prepare(self, play: Play, count: int) -> Callable[[], None]:
        """The stage as a function; the sets and their moments are made before the clock starts."""
        if play.stage == "frechet":
            moments = self.moments
            return lambda: self._values.update(frechet=float(self._frechet(*moments[0], *moments[1])))
        if play.stage == "kid":
            sets = self.sets
            return lambda: self._values.update(zip(("kid_mean", "kid_std"), self._kid(*sets), strict=True))
        return self._forward(play, count)


class GanJax(_Side):
    """gan_jax: the programs that its evaluation compiles, over the devices of this process."""

    stages = ("resize", "features", "resize_features", "generate_resize_features", "frechet", "kid")

    def __init__(self, work: Work):
        super().__init__(work)
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax
        from ml_collections import ConfigDict

        from gan_jax import parallel

        if work.devices > 1:
            jax.config.update("jax_num_cpu_devices", work.devices)
        parallel.silence()
        section = {"features": "random_inception", "weights": "", "download": False}
        self.nets = {way: networks.load("inception", ConfigDict({**section, "preprocessing": way}))
                     for way in WAYS.values()}
        self.mesh = parallel.make_mesh(jax.local_devices()[: work.devices])
        variables = {"inception": next(iter(self.nets.values())).variables}
        self.variables = jax.device_put(variables, parallel.replicated(self.mesh))
        self.programs: dict[tuple[str, str], Callable] = {}

    def check(self, way: str, batch: int) -> dict[str, np.ndarray]:
        """Prepared images (CHECKED, 299, 299, 3) and features (CHECKED, D) of the first images, float32."""
        prepared = self._resized(way)((), self.images["resize"][:batch])
        rows = self._rows(Play("resize_features", way, batch), CHECKED)
        return {"resize": np.asarray(prepared)[:CHECKED], "resize_features": rows}

    def _frechet(self, *moments) -> float:
        from gan_jax import metrics

        return metrics.frechet_distance(*moments)

    def _kid(self, first, second) -> tuple[float, float]:
        from gan_jax import metrics

        return metrics.kernel_distance(first, second, subsets=self.work.subsets, subset_size=self.work.subset_size)

    def _forward(self, play: Play, count: int) -> Callable[[], None]:
        if play.stage == "resize":
            return lambda: self._resize(play, count)
        return lambda: self._rows(play, count)

    def _resize(self, play: Play, count: int) -> None:
        import jax

        run = self._resized(play.way)
        for start in range(0, count, play.batch):
            jax.block_until_ready(run((), self.images["resize"][start : start + play.batch]))

    def _resized(self, way: str) -> Callable:
        from gan_jax import parallel

        key = "resize", way
        if key not in self.programs:
            self.programs[key] = parallel.over_samples(lambda _, x: inception.PREPROCESSING[way](x), self.mesh)
        return self.programs[key]

    def _rows(self, play: Play, count: int) -> np.ndarray:
        """A pass of gan_jax's evaluation that keeps the features: float32 (count, D)."""
        from gan_jax.evaluate import collect

        needs = collect.Needs(rows=(collect.Want("inception", self.work.output, count),))
        generated = play.stage == "generate_resize_features"
        key = "generated" if generated else "given", play.way
        if key not in self.programs:
            source = self._generator[0] if generated else lambda _, x: x
            self.programs[key] = collect.program(source, {"inception": self.nets[play.way]}, needs, self.mesh)
        run = self.programs[key]

        def dispatch(places):
            if not generated:
                return run((), self.variables, self.images[play.stage][places])
            from gan_jax import painter

            keys = painter.keys_from(0, "evaluation", places)
            return run(self._generator[1], self.variables, keys, {})

        return collect.collect(needs, dispatch, play.batch).rows[needs.rows[0]]

    @cached_property
    def _generator(self) -> tuple[Callable, Any]:
        """An untrained generator: (source of images, its arrays on every device)."""
        import jax
        from ml_collections import ConfigDict

        from gan_jax import config, painter, parallel, runs, specs

        case = self.work.generator
        run = runs.build(config.complete(ConfigDict(case.config), runs.defaults), specs.labelled(case.shape, 0))
        ema = jax.jit(lambda: runs.init_state(run).ema)()
        return painter.generator(run), jax.device_put(ema, parallel.replicated(self.mesh))


class _Torch(_Side):
    """A package of PyTorch, eager, on all threads, on uint8 planes (B, 3, H, W) that lie ready in memory."""

    def __init__(self, work: Work):
        super().__init__(work)
        # torchvision asks PyTorch for operators that a build of another source may lack; none of them is used here
        sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
        import torch

        torch.set_num_threads(work.threads)
        torch.set_grad_enabled(False)
        self.planes = {stage: torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
                       for stage, x in self.images.items()}
        self.state = {name: torch.from_numpy(value) for name, value in weights().items()}

    def check(self, way: str, batch: int) -> dict[str, np.ndarray]:
        """As `GanJax.check`."""
        few = self.planes["resize"][:CHECKED]
        return {"resize": np.moveaxis(self.resize(few).numpy(), 1, -1), "resize_features": self.whole(few).numpy()}

    def _forward(self, play: Play, count: int) -> Callable[[], None]:
        import torch

        planes = self.planes[play.stage][:count]
        step = {"resize": self.resize, "features": self.network, "resize_features": self.whole}[play.stage]
        keep = (lambda _: None) if play.stage == "resize" else torch.cat
        return lambda: keep([step(batch) for batch in planes.split(play.batch)])


class TorchFidelity(_Torch):
    """torch-fidelity: its feature extractor and its two distances."""

    stages = ("resize", "features", "resize_features", "frechet", "kid")

    def __init__(self, work: Work):
        super().__init__(work)
        import torch
        from torch_fidelity import feature_extractor_inceptionv3 as module

        self.module = module
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "inception.pth"
            torch.save(self.state, path)
            self.extractor = module.FeatureExtractorInceptionV3(
                "inception", [work.output], feature_extractor_weights_path=str(path)
            )

    def resize(self, x):
        """uint8 (B, 3, H, W) -> (B, 3, 299, 299) float32, as the extractor begins."""
        x = self.module.interpolate_bilinear_2d_like_tensorflow1x(x.float(), size=(SIZE, SIZE), align_corners=False)
        return (x - 128) / 128

    def whole(self, x):
        """uint8 (B, 3, H, W) -> features (B, D) float32."""
        return self.extractor(x)[0]

    def network(self, x):
        """As `whole` of images of 299 px, without the pass of the resize that changes nothing then."""
        with mock.patch.object(self.module, "interpolate_bilinear_2d_like_tensorflow1x", lambda x, **_: x):
            return self.extractor(x)[0]

    def _frechet(self, mean1, covariance1, mean2, covariance2) -> float:
        from torch_fidelity import metric_fid

        one, two = {"mu": mean1, "sigma": covariance1}, {"mu": mean2, "sigma": covariance2}
        return metric_fid.fid_statistics_to_metric(one, two, False)[metric_fid.KEY_METRIC_FID]

    def _kid(self, first, second) -> tuple[float, float]:
        import torch
        from torch_fidelity import metric_kid

        result = metric_kid.kid_features_to_metric(
            torch.from_numpy(first), torch.from_numpy(second), kid_subsets=self.work.subsets,
            kid_subset_size=self.work.subset_size, verbose=False,
        )
        return result[metric_kid.KEY_METRIC_KID_MEAN], result[metric_kid.KEY_METRIC_KID_STD]


class PytorchFid(_Torch):
    """pytorch-fid: its network, with its download replaced by the given weights, and its distance."""

    stages = ("resize", "features", "resize_features", "frechet")

    def __init__(self, work: Work):
        super().__init__(work)
        from pytorch_fid import inception as module
        from scipy import linalg

        if "disp" not in inspect.signature(linalg.sqrtm).parameters:  # which its distance gives
            self.stages = tuple(stage for stage in self.stages if stage != "frechet")
        block = module.InceptionV3.BLOCK_INDEX_BY_DIM[int(work.output)]
        with mock.patch.object(module, "load_state_dict_from_url", lambda *_, **__: self.state):
            self.model = module.InceptionV3([block]).eval()

    def resize(self, x):
        """uint8 (B, 3, H, W) -> (B, 3, 299, 299) float32, as the network begins."""
        import torch

        return 2 * torch.nn.functional.interpolate(x.float() / 255, (SIZE, SIZE), mode="bilinear") - 1

    def whole(self, x):
        """uint8 (B, 3, H, W) -> features (B, D) float32."""
        return self.model(x.float() / 255)[0].mean((2, 3))

    def network(self, x):
        """As `whole`, without the resize."""
        with mock.patch.object(self.model, "resize_input", False):
            return self.whole(x)

    def _frechet(self, *moments) -> float:
        from pytorch_fid import fid_score

        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore", DeprecationWarning)  # of SciPy's `disp`
            return fid_score.calculate_frechet_distance(*moments)


SIDES = {"gan_jax": GanJax, "torch-fidelity": TorchFidelity, "pytorch-fid": PytorchFid}
