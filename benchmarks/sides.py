"""The two sides of a comparison, each in a process of its own: the same case, the same weights, the same data.

Both sides offer `outputs`, `check_steps`, `play` and `peak`. The PyTorch side is built from the JAX side's weights and
complete config.
"""

import importlib
import multiprocessing
import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from benchmarks.cases import Case
from gan_jax.errors import UserError

BATCHES = 4  # different ones, prepared beforehand
# Adam's while steps are compared: its first step is nearly linear in the gradient then, and not the sign of each entry.
CHECK_ADAM = {"eps": 1.0, "learning_rate": 1.0}
PRODUCTS = 4  # of matrices, one after the other, that are timed as one
_SIDE: Any = None  # of this process


class Worker:
    """A side in a process of its own; `call` runs one of its methods there."""

    def __init__(self, side: type, *arguments):
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context)
        self._pool.submit(_make_side, side, arguments).result()

    def call(self, method: str, *arguments) -> Any:
        """What the side's method returns."""
        return self._pool.submit(_call_side, method, arguments).result()

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def _make_side(side: type, arguments: tuple) -> None:
    global _SIDE
    _SIDE = side(*arguments)


def _call_side(method: str, arguments: tuple) -> Any:
    return getattr(_SIDE, method)(*arguments)


def images(case: Case, number: int) -> np.ndarray:
    """Batch `number` of real images: noise, uint8 (B, H, W, C)."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (case.config["batch_size"], *case.shape), dtype=np.uint8)


def batch(case: Case, number: int) -> dict[str, np.ndarray]:
    """Batch `number`, with labels where the case has them, or all its pictures."""
    if case.pictures:
        rng, count = np.random.default_rng(number), case.config["batch_size"]
        return {name: rng.integers(0, 256, (count, *shape), np.uint8) for name, shape in case.pictures.items()}
    arrays = {"image": images(case, number)}
    if case.classes:
        arrays["label"] = np.arange(len(arrays["image"]), dtype=np.int32) % case.classes
    return arrays


def draws(case: Case, config: dict) -> dict[str, np.ndarray]:
    """What a step draws at random, for both sides: latents, and the direction of the path length."""
    if case.pictures:
        return {}
    rng = np.random.default_rng(1)
    size = (case.config["batch_size"], config["generator"]["latent_size"])
    if config["game"] != "style":
        return {"z": rng.standard_normal(size, np.float32)}
    latents = {f"{phase}/z": rng.standard_normal(size, np.float32) for phase in case.phases if phase != "penalty"}
    return latents | {"path_length/noise": rng.standard_normal((size[0], *case.shape), np.float32)}


def checked(case: Case) -> list[tuple[str, ...]]:
    """The steps that are compared, each from the first State."""
    return [tuple(case.phases)] if case.pictures else [(phase,) for phase in case.phases]


def devices_of(platform: str) -> list:
    """JAX's devices. Raises UserError where there is none of this platform."""
    import jax

    try:
        return jax.devices(platform)
    except RuntimeError:
        raise UserError(f"--platform={platform}: no such device here; expected one, or --platform=cpu") from None


def peak_mib() -> float:
    """The most memory that this process has held, MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class JaxSide:
    """gan_jax: the run that `train` would build from the case's config, and its jitted steps."""

    def __init__(self, case: Case, platform: str = "cpu", share: float = 0.9):
        os.environ["JAX_PLATFORMS"] = platform if platform == "cpu" else f"{platform},cpu"  # `flops` needs a CPU
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(share)  # of a GPU, which PyTorch may use beside us
        import jax
        from ml_collections import ConfigDict

        from gan_jax import config as configs
        from gan_jax import games, parallel, programs, runs

        jax.config.update("jax_enable_compilation_cache", False)  # compilation is measured too
        parallel.silence()
        self.devices, self.platform = devices_of(platform), platform
        self.case, self.spec = case, case.spec()
        self.config = configs.complete(ConfigDict(case.config), runs.defaults)
        stages = games.stages(games.find(self.config.game), self.config, self.spec)
        self.run = runs.build(self.config, self.spec, stages[-1])
        self.mesh = parallel.make_mesh(self.devices[:1])
        self.state = parallel.replicate(_without_zeros(runs.fresh_state(self.run)), self.mesh)
        state = runs.pack(self.run, jax.device_get(self.state), self.mesh)
        self.packed = parallel.replicate(state, self.mesh)  # as steps keep it
        self.batches = [parallel.shard_batch(batch(case, n), self.mesh) for n in range(BATCHES)]
        self.calls = programs.Programs(self.mesh, {}, {}, programs.apart(self.run), on_disk=False)

    def settings(self) -> dict:
        """The complete config."""
        return self.config.to_dict()

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        """{net: {path: array}} of parameters and collections."""
        import jax

        weights: dict[str, dict[str, np.ndarray]] = {net: {} for net in self.state.params}
        for net, arrays in weights.items():
            for tree in (self.state.params[net], *self.state.variables[net].values()):
                for path, value in jax.tree_util.tree_leaves_with_path(tree):
                    arrays["/".join(str(key.key) for key in path)] = np.asarray(value)
        return weights

    def outputs(self) -> dict[str, np.ndarray]:
        """Images (B, H, W, C) of the averaged generator for fixed latents, and logits (B,) of fixed images."""
        import jax

        if self.case.pictures:
            return self._outputs_of_pictures(jax)
        z = next(iter(draws(self.case, self.settings()).values()))
        x = images(self.case, 0).astype(np.float32) / 127.5 - 1
        nets, state = self.run.nets, self.state

        def compute(state, z, x):
            variables = {"params": state.params["discriminator"], **state.variables["discriminator"]}
            logits = nets["discriminator"].apply(variables, x, None, train=False)
            return {"images": self.run.game.decode(nets, state.ema, z, None), "logits": logits}

        with jax.default_matmul_precision("highest"):
            return jax.device_get(jax.jit(compute)(state, z, x))

    def _outputs_of_pictures(self, jax) -> dict[str, np.ndarray]:
        """Pictures of a batch, the first ones that the game makes, and logits of its real ones, as nets see them."""
        import jax.numpy as jnp

        run, state, batch_0 = self.run, self.state, batch(self.case, 0)
        keys = jax.random.split(jax.random.key(0), self.case.config["batch_size"])
        given = {name: batch_0[name] for name in run.game.asks(run.config)}
        net = [name for name in run.nets if name.startswith("discriminator")][-1]

        def compute(state, batch):
            x = {name: value.astype(jnp.float32) / 127.5 - 1 for name, value in batch.items()}
            seen = {"paired": lambda: jnp.concatenate([x["source"], x["image"]], -1), "translation": lambda: x["b"],
                    "super_resolution": lambda: (x["image"] + 1) / 2}[run.config.game]()  # fmt: skip
            variables = {"params": state.params[net], **state.variables[net]}
            images = next(iter(run.game.sample(run.nets, state.ema, keys, given).values()))
            return {"images": images, "logits": run.nets[net].apply(variables, seen, train=False)}

        with jax.default_matmul_precision("highest"):
            return jax.device_get(jax.jit(compute)(state, batch_0))

    def check_steps(self) -> dict[str, float]:
        """Metrics of the first step of each phase alone, with given draws, no style mixing and constant noise.

        Games of pictures play their phases one after the other: the second sees what the first has made.
        """
        import jax

        from gan_jax import parallel, runs

        config = self.config.copy_and_resolve_references()
        for settings in config.optim.values():
            settings.update(CHECK_ADAM)
        if config.game == "style":
            config.style = {"mixing": 0.0, "noise": "const"}
        run = runs.build(config, self.spec)
        arrays = batch(self.case, 0) if self.case.pictures else {"image": images(self.case, 0)}
        arrays |= draws(self.case, self.settings())
        metrics = {}
        for due in checked(self.case):
            state = jax.tree.map(lambda x: x.copy(), self.state)  # the step consumes it
            with jax.default_matmul_precision("highest"):
                metrics |= self._program(run, due)(state, parallel.shard_batch(arrays, self.mesh))[1]
        return {name: float(value) for name, value in metrics.items()}

    def _program(self, run, due: tuple[str, ...], mesh=None):
        from gan_jax import parallel
        from gan_jax import step as steps

        phases = tuple(phase for phase in run.phases if phase.name in due)
        assert tuple(phase.name for phase in phases) == due, (phases, due)
        step = steps.make_step(phases, run.optimizers, seed=run.config.seed, ema=run.ema)
        return parallel.data_parallel(step, mesh or self.mesh, run.config.parallel)

    def prepare(self, cycle: list[tuple[str, ...]]) -> float:
        """Compiles the programs of these steps side by side: seconds."""
        import jax

        began = time.perf_counter()
        keys = {key for due in cycle for key in self.calls.keys_of(self.run, (due,))}
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.packed)
        example = {name: np.zeros((1, *x.shape[2:]), x.dtype) for name, x in self.batches[0].items()}
        self.calls.compile_ahead(self.run, keys, shapes, example).wait(lambda line: None)
        return time.perf_counter() - began

    def flops(self, cycle: list[tuple[str, ...]]) -> float:
        """Floating-point operations of these steps, as XLA counts those of the programs before it optimises them.

        It counts on a CPU whatever the programs are for: a GPU's client does not. Convolutions with fewer products
        take the batch whole meanwhile, as XLA counts a loop's body once.
        """
        import jax

        from gan_jax import parallel
        from gan_jax.layers import winograd

        chunk, winograd.CHUNK_BYTES = winograd.CHUNK_BYTES, sys.maxsize
        try:
            return self._count(cycle, jax, parallel)
        finally:
            winograd.CHUNK_BYTES = chunk

    def _count(self, cycle, jax, parallel):

        mesh = parallel.make_mesh(jax.devices("cpu")[:1])
        state = _shapes(self.state, parallel.replicated(mesh))
        batch = _shapes(self.batches[0], parallel.batch_sharding(mesh))
        counted = {}
        for due in dict.fromkeys(cycle):
            lowered = self._program(self.run, due, mesh).trace(state, batch).lower(lowering_platforms=(self.platform,))
            counted[due] = lowered.cost_analysis()["flops"]
        return sum(counted[due] for due in cycle)

    def matrix_rate(self, size: int, dtype: str) -> float:
        """Operations per second of a product of two random matrices of this size, the best of five."""
        import jax
        import jax.numpy as jnp

        product = jax.jit(lambda x: jax.lax.fori_loop(0, PRODUCTS, lambda _, y: x @ y, x))
        x = jax.random.normal(jax.random.key(0), (size, size), jnp.float32) / size**0.5
        times, x = [], x.astype(dtype)
        for _ in range(6):  # the first one compiles
            began = time.perf_counter()
            jax.block_until_ready(product(x))
            times.append(time.perf_counter() - began)
        return PRODUCTS * 2 * size**3 / min(times[1:])

    def play(self, cycle: list[tuple[str, ...]]) -> tuple[float, float]:
        """(seconds, CPU seconds of all threads) of these steps, from the first dispatch to the last result."""
        import jax

        began = _clocks()
        for number, due in enumerate(cycle):
            play = self.calls.playing(self.run, self.calls.keys_of(self.run, (due,)))
            self.packed, metrics = play(self.packed, self.batches[number % BATCHES])
        jax.block_until_ready((self.packed, metrics))
        ended = _clocks()
        assert all(np.isfinite(float(value)) for value in metrics.values()), metrics
        return ended[0] - began[0], ended[1] - began[1]

    def peak(self) -> float:
        """MiB, of the device where it counts its memory, else of the process."""
        most = (self.devices[0].memory_stats() or {}).get("peak_bytes_in_use")
        return peak_mib() if most is None else most / 2**20

    def device(self) -> str:
        """What kind of device it is."""
        return self.devices[0].device_kind


def _shapes(tree, sharding):
    import jax

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _without_zeros(state):
    """The State with small numbers for all that starts at zero, so that a comparison sees biases and noise too."""
    import jax

    rng = np.random.default_rng(0)

    def fill(x):
        return x if np.any(x) else (0.1 * rng.standard_normal(x.shape)).astype(x.dtype)

    params = jax.tree.map(fill, state.params)
    averaged = {net: tree | {"params": jax.tree.map(np.copy, params[net])} for net, tree in state.ema.items()}
    return state._replace(params=params, ema=averaged)


class TorchSide:
    """The reference in PyTorch, from the JAX side's config and weights."""

    def __init__(self, case: Case, config: dict, weights: dict, threads: int, options: dict):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.case, self.config, self.weights, self.options = case, config, weights, dict(options)
        layout = torch.channels_last if self.options.pop("channels_last") else torch.contiguous_format
        self.options["layout"] = layout
        self.device = self.options.get("device", "cpu")
        self.trainer = self._trainer(config)
        self.batches = [self._batch(n) for n in range(BATCHES)]

    def _batch(self, number: int):
        import torch

        arrays = batch(self.case, number)
        planes = {name: torch.from_numpy(_planes(array)).to(self.device) for name, array in arrays.items()}
        return planes if self.case.pictures else planes["image"]

    def _trainer(self, config: dict):
        module = importlib.import_module(f"benchmarks.reference.{self.case.reference}")
        trainer = module.Trainer(config, self.case.pictures or self.case.shape, **self.options)
        trainer.load(self.weights)
        return trainer

    def _draws(self):
        import torch

        arrays = draws(self.case, self.config)
        for name in [name for name in arrays if name.startswith("path_length/")]:
            arrays[name] = arrays[name][:: self.config["loss"]["path_length_shrink"]]
        return {name: torch.from_numpy(_planes(value)).to(self.device) for name, value in arrays.items()}

    def prepare(self, cycle: list[tuple[str, ...]]) -> float:
        """Nothing: it compiles while it plays."""
        return 0.0

    def outputs(self) -> dict[str, np.ndarray]:
        """As `JaxSide.outputs`."""
        self._allow_tf32(False)
        if self.case.pictures:
            result = self.trainer.outputs(self.batches[0])
        else:
            result = self.trainer.outputs(next(iter(self._draws().values())), self.batches[0].float() / 127.5 - 1)
        rows = {name: value.permute(0, 2, 3, 1) if value.ndim == 4 else value for name, value in result.items()}
        return {name: value.cpu().numpy() for name, value in rows.items()}

    def _allow_tf32(self, allowed: bool) -> None:
        import torch

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed

    def check_steps(self) -> dict[str, float]:
        """As `JaxSide.check_steps`."""
        self._allow_tf32(False)
        optim = {player: settings | CHECK_ADAM for player, settings in self.config["optim"].items()}
        metrics = {}
        for due in checked(self.case):
            trainer = self._trainer(self.config | {"optim": optim})
            metrics |= trainer.step(self.batches[0], due, self._draws())
        return {name: float(value) for name, value in metrics.items()}

    def play(self, cycle: list[tuple[str, ...]]) -> tuple[float, float]:
        """As `JaxSide.play`."""
        self._allow_tf32(True)  # as XLA does by default
        self._wait()
        began = _clocks()
        for number, due in enumerate(cycle):
            metrics = self.trainer.step(self.batches[number % BATCHES], due)
        self._wait()
        ended = _clocks()
        assert all(np.isfinite(float(value)) for value in metrics.values()), metrics
        return ended[0] - began[0], ended[1] - began[1]

    def _wait(self) -> None:
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize()

    def peak(self) -> float:
        """As `JaxSide.peak`."""
        import torch

        return peak_mib() if self.device == "cpu" else torch.cuda.max_memory_allocated() / 2**20


def _planes(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(value, -1, 1)) if value.ndim == 4 else value
