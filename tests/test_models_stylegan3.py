"""StyleGAN3's filters, layers, networks and one training iteration against recorded numbers of the official code."""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from gan_jax import models, optim, parallel
from gan_jax import step as steps
from gan_jax.errors import UserError
from gan_jax.games import style
from gan_jax.models.stylegan3 import FourierInput, Generator, style_matrix
from gan_jax.models.stylegan3_design import layer_table, layer_taps
from tests import golden_stylegan2
from tests import golden_stylegan3 as golden

RADIAL = dict(kernel_size=1, radial_filters=True, channel_base=65536, channel_max=1024)
FULL = {"t/res256": {}, "r/res256": RADIAL, "t/res1024": {}}
TINY = dict(resolution=16, num_layers=3, margin=2, channel_base=64, channel_max=6, latent_size=8, w_size=8)
RUNNING = ["w_avg", "magnitude_ema"]


def _close(ours, recorded, tolerance=1e-5):
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= tolerance * np.abs(recorded).max()


def _fill(model, *args):
    """Variables by numpy: compiling JAX's random initialisation takes seconds."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *args, train=True))
    filled = jax.tree.map(lambda leaf: rng.normal(0.2, 1, leaf.shape).astype(leaf.dtype), shapes)
    return {**filled, "magnitude_ema": jax.tree.map(jnp.ones_like, filled["magnitude_ema"])}


def _agrees(layer, recorded):
    x0, x1, y0, y1 = recorded["padding"]
    assert layer.padding == ((y0, y1), (x0, x1))
    names = {"up": "up_factor", "down": "down_factor", "radial": "down_radial", "to_rgb": "is_torgb",
             "critical": "is_critically_sampled", "kernel_size": "conv_kernel"}  # fmt: skip
    names |= {name: name for name in ("name", "in_channels", "out_channels", "up_taps", "down_taps")}
    assert {ours: getattr(layer, ours) for ours in names} == {ours: recorded[name] for ours, name in names.items()}
    assert (layer.in_size, layer.out_size) == (tuple(recorded["in_size"]), tuple(recorded["out_size"]))
    for ours, name in (("in_rate", "in_sampling_rate"), ("out_rate", "out_sampling_rate"), ("in_cutoff",) * 2,
                       ("inner_rate", "tmp_sampling_rate"), ("out_cutoff",) * 2, ("in_half_width",) * 2,
                       ("out_half_width",) * 2):  # fmt: skip
        assert getattr(layer, ours) == pytest.approx(recorded[name], rel=1e-12)


@pytest.mark.parametrize("name", FULL)
def test_recorded_full_size_layers_and_filters(name):
    arrays, meta = golden.load("sg3_filters")
    table = layer_table(int(name.split("res")[1]), **FULL[name])
    for number, (layer, recorded) in enumerate(zip(table, meta["tables"][name]["layers"], strict=True)):
        _agrees(layer, recorded)
        for side, taps in zip(("up", "down"), layer_taps(layer), strict=True):
            expected = arrays.get(f"{name}/L{number}/{side}_filter")
            assert (taps is None) == (expected is None)
            if taps is not None:
                _close(taps, expected, 1e-6)


@pytest.mark.parametrize("name", ["sg3_net_t_uncond", "sg3_net_r_cond", "sg3_net_t_default14"])
def test_recorded_small_layers(name):
    _, meta = golden.load(name)
    kwargs = golden.design(golden.generator(meta["G_kwargs"]))
    for layer, recorded in zip(layer_table(**kwargs), meta["layer_table"]["layers"], strict=True):
        _agrees(layer, recorded)


@pytest.mark.parametrize("name", FULL)
def test_official_parameters(name):
    """Every parameter of the full-size networks has its official name and shape."""
    model = Generator(resolution=int(name.split("res")[1]), **FULL[name])
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 512)), train=True))
    ours = {".".join(key.key for key in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(shapes["params"])}
    with np.load(golden.FOLDER / "counts.npz") as npz:
        config = f"stylegan3-{name}/cbase32768/G"
        table, count = json.loads(str(npz[f"table/{config}"])), int(npz[f"count/{config}/parameters"])
    official = {}
    for entry in table["parameters"] if isinstance(table["parameters"], list) else json.loads(table["parameters"]):
        path = re.sub(r"^(mapping|synthesis)\.", r"\1_network.", entry["name"]).replace("weight", "kernel")
        shape = tuple(entry["shape"])
        official[path] = (*shape[2:], shape[1], shape[0]) if path.endswith("kernel") else shape
    assert ours == official and sum(np.prod(shape, dtype=int) for shape in ours.values()) == count


@pytest.fixture(scope="module", params=["sg3_net_t_uncond", "sg3_net_r_cond", "sg3_net_t_default14"])
def network(request):
    arrays, meta = golden.load(request.param)
    model = golden.generator(meta["G_kwargs"])
    return model, golden.variables(arrays, "params/"), arrays, meta


def test_recorded_network(network):
    """The deepest network's own float32 error is 6e-6 of its largest value."""
    model, variables, arrays, meta = network
    label = np.argmax(arrays["in/c"], 1) if model.num_classes else None
    psi, cutoff = meta["truncation_psi"], meta["truncation_cutoff"]

    @jax.jit
    def styles(variables, z):
        ws = model.apply(variables, z, label, method="mapping")
        cut = model.apply(variables, z, label, psi=psi, cutoff=cutoff, method="mapping")
        return ws, model.apply(variables, z, label, psi=psi, method="mapping"), cut

    draw = jax.jit(partial(model.apply, method="synthesis"))

    def image(ws, transform):
        return draw(variables, ws, transform=transform)

    ws, truncated, cut = styles(variables, arrays["in/z"])
    for ours, name in ((ws, "w"), (truncated, "w_psi0.7"), (cut, "w_psi0.7_cutoff")):
        _close(ours, arrays[f"out/{name}"])
    _close(image(ws, np.eye(3)), golden.nhwc(arrays["out/img"]), 3e-5)
    _close(image(truncated, np.eye(3)), golden.nhwc(arrays["out/img_psi0.7"]), 3e-5)
    table = layer_table(**golden.design(model))
    entry = FourierInput(features=table[0].in_channels, size=table[0].in_size, rate=16.0, bandwidth=2.0)
    own = {name: variables[name]["synthesis_network"]["input"] for name in ("params", "fourier")}
    entered = jax.jit(entry.apply)
    for key in [key for key in arrays if key.startswith("in/transform/")]:
        name = key.removeprefix("in/transform/")
        _close(image(ws, arrays[key]), golden.nhwc(arrays[f"out/img_transform/{name}"]), 3e-5)
        features = golden.nhwc(arrays[f"out/input_features_transform/{name}"])
        _close(entered(own, ws[:1, 0], arrays[key]), features)


def test_recorded_running_means(network):
    model, variables, arrays, _ = network
    label = arrays["in/c"] if model.num_classes else None
    play = jax.jit(partial(model.apply, train=True, mutable=RUNNING))
    images, moved = play(variables, arrays["in/z"], label)
    _close(images, golden.nhwc(arrays["out/img_update_emas"]), 3e-5)
    jax.tree.map(_close, dict(moved), golden.variables(arrays, "buffers_after_update_emas/"))


class Recorder:
    """An optimizer whose state is (the inner one's, the gradients before the last, the last ones)."""

    def __init__(self, inner):
        self.inner = inner

    def init(self, params):
        """No gradients yet."""
        return self.inner.init(params), params, params

    def update(self, grads, state, params, images):
        """The inner one's updates."""
        updates, inner = self.inner.update(grads, state[0], params, images)
        return updates, (inner, state[2], grads)


def _iteration(meta, model, critic):
    """(phases, optimizers, average) of the recorded iteration, played by the game that trains StyleGAN3."""
    config = ConfigDict({
        "loss": {"r1_gamma": meta["r1_gamma"], "path_length_weight": 0.0, "path_length_decay": 0.01,
                 "path_length_shrink": 2, "blur_sigma": meta["blur_init_sigma"],
                 "blur_fade_images": 1000 * meta["blur_fade_kimg"]},
        "every": {"path_length_steps": 4, "penalty_steps": meta["D_reg_interval"]},
        "style": {"mixing": 0.0, "noise": "none"}, "augment": {"name": "none"},
        "data": {"flip": False}, "batch_size": meta["batch"],
    })  # fmt: skip
    phases = style.phases(config, {"generator": model, "discriminator": critic})
    common = dict(batch_size=meta["batch"], total_images=10**6)
    adam = {"name": "adam", "b1": 0.0, "b2": 0.99, "eps": 1e-8}
    optimizers = {
        "generator": optim.optimizer({**adam, "learning_rate": 0.0025}, **common),
        "discriminator": optim.optimizer({**adam, "learning_rate": 0.002}, lazy=meta["D_reg_interval"], **common),
    }
    average = steps.Ema(
        nets=style.EMA_NETS,
        half_life_images=1000 * meta["ema_kimg"],
        rampup=meta["ema_rampup"],
        copied=style.EMA_COPIED,
    )
    return phases, {name: Recorder(value) for name, value in optimizers.items()}, average


def _start(arrays, meta, phases, optimizers):
    of_g, of_d = golden.variables(arrays, "params/G/"), golden_stylegan2.tree(arrays, "params/D/")
    params = {"generator": of_g.pop("params"), "discriminator": of_d["params"]}
    variables = {"generator": of_g, "discriminator": {}}
    averaged = {"generator": {**of_g, **golden.variables(arrays, "params/G_ema/")}}
    opt = steps.init_optimizers(phases, optimizers, params)
    memory = {"pl_mean": jnp.float32(0), "augment": ()}
    return steps.State(jnp.int32(0), jnp.int32(meta["cur_nimg"]), params, variables, opt, averaged, memory)


def test_recorded_training_iteration():
    """The discriminator's bias of the logits has no R1 gradient: officially skipped, here a zero that moves nothing."""
    arrays, meta = golden.load("sg3_train_r")
    model, critic = golden.generator(meta["G_kwargs"]), golden_stylegan2.discriminator(meta["D_kwargs"])
    phases, optimizers, average = _iteration(meta, model, critic)
    state = _start(arrays, meta, phases, optimizers)
    order = golden_stylegan2.regroup(meta["batch"], critic.mbstd_group)
    z = arrays["in/gen_z"][:, order]
    batch = {"image": golden.nhwc(arrays["in/real_img"])[order], "generator/z": z[0], "discriminator/z": z[1]}
    mesh = parallel.make_mesh(jax.devices()[:1])
    play = parallel.data_parallel(steps.make_step(phases, optimizers, seed=0, ema=average), mesh)
    state, metrics = jax.device_get(play(state, parallel.shard_batch(batch, mesh, 1)))

    for name, key in (("generator/loss", "Gboth/G/loss"), ("discriminator/loss", "Dmain/D/loss"),
                      ("penalty/r1", "Dreg/r1_penalty"), ("generator/fake_logit", "Gboth/scores/fake"),
                      ("discriminator/real_logit", "Dmain/scores/real")):  # fmt: skip
        expected = arrays[f"out/{key}"].mean() * (meta["r1_gamma"] / 2 if key.endswith("r1_penalty") else 1)
        assert metrics[name] == pytest.approx(expected, rel=1e-5), name
    of_g, of_d = golden.variables, golden_stylegan2.tree
    grads = {
        "Gboth": (of_g, state.opt["generator"][2]["generator"]),
        "Dmain": (of_d, state.opt["discriminator"][1]["discriminator"]),
        "Dreg": (of_d, state.opt["discriminator"][2]["discriminator"]),
    }
    for phase, (read, ours) in grads.items():
        recorded = read(arrays, f"seq1_grad/{phase}/")["params"]
        if phase == "Dreg":
            assert not recorded["b4"]["out"].get("bias", np.zeros(1)).any() and not ours["b4"]["out"]["bias"].any()
            recorded["b4"]["out"]["bias"] = np.zeros(1, np.float32)
        jax.tree.map(lambda a, b: _close(a, b, 1e-4), ours, recorded)
    jax.tree.map(_close, state.params["generator"], of_g(arrays, "seq1_params/G/")["params"])
    jax.tree.map(_close, state.params["discriminator"], of_d(arrays, "seq1_params/D/")["params"])
    jax.tree.map(_close, state.ema["generator"]["params"], of_g(arrays, "seq1_params/G_ema/")["params"])
    running = of_g(arrays, "seq1_buffers/G/")
    for tree in (state.variables["generator"], state.ema["generator"]):
        jax.tree.map(_close, {name: tree[name] for name in RUNNING}, running)


def test_devices_share_the_magnitudes():
    z = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    model = Generator(**TINY)
    variables = _fill(model, z)

    def play(model):
        def apply(z):
            images, moved = model.apply(variables, z, train=True, mutable=RUNNING)
            return images, dict(moved)["magnitude_ema"]

        return apply

    alone = jax.jit(play(model))(z)
    mesh = parallel.make_mesh(jax.devices()[:4])
    sharded = P(parallel.AXIS)
    own = play(model.clone(axis_name=parallel.AXIS))
    spread = jax.shard_map(own, mesh=mesh, in_specs=sharded, out_specs=(sharded, P()))
    jax.tree.map(_close, jax.jit(spread)(z), alone)


def test_bfloat16():
    z = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    model = Generator(**TINY)
    variables = _fill(model, z)
    wide, low = (jax.jit(partial(net.apply, train=False))(variables, z) for net in (model, model.clone(num_bf16_res=1)))
    assert low.dtype == jnp.float32 and wide.shape == (8, 16, 16, 3)
    assert 0 < np.abs(low - wide).max() < 0.05 * np.abs(wide).max()


def test_fresh_input():
    """It is not transformed, its frequencies fill the disc evenly, and its features have about unit size."""
    entry = FourierInput(features=400, size=(20, 20), rate=16.0, bandwidth=2.0)
    features, variables = jax.jit(entry.init_with_output)(jax.random.key(0), jnp.ones((1, 5)))
    affine, waves = variables["params"]["affine"], variables["fourier"]
    assert not affine["kernel"].any()
    np.testing.assert_array_equal(style_matrix(affine["bias"][None])[0], np.eye(3))
    radius = np.linalg.norm(waves["freqs"], axis=1)
    assert radius.max() <= 2 and np.mean(radius**2) == pytest.approx(2, rel=0.1)
    assert np.abs(waves["phases"]).max() <= 0.5 and waves["phases"].std() == pytest.approx(12**-0.5, rel=0.1)
    assert np.mean(features**2) == pytest.approx(0.5, rel=0.1)


def test_other_sizes_channels_and_labels():
    model = Generator(**{**TINY, "resolution": (32, 16)}, channels=4, num_classes=5)
    z = jnp.zeros((3, 8))
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), z, jnp.zeros((3, 5)), train=False)[0])
    assert shapes.shape == (3, 32, 16, 4)
    assert layer_table(96)[-2].in_rate == 96
    assert layer_table((256, 320))[0].in_size == (36, 40)


def test_a_long_input_continues_the_square_one():
    small, large = (FourierInput(features=6, size=size, rate=16.0, bandwidth=2.0) for size in ((20, 20), (20, 36)))
    draw = np.random.default_rng(0).normal
    w, transform = draw(size=(2, 5)).astype(np.float32), np.array([[0.9, 0.3, 0.1], [-0.3, 0.9, 0.2], [0, 0, 1]])
    affine = {"kernel": draw(size=(5, 4)), "bias": draw(size=4)}
    variables = {"params": {"kernel": draw(size=(6, 6)), "affine": affine}}
    variables["fourier"] = {"freqs": draw(size=(6, 2)), "phases": draw(size=6)}
    variables = jax.tree.map(np.float32, variables)
    long, square = jax.jit(lambda: tuple(entry.apply(variables, w, transform) for entry in (large, small)))()
    _close(long[:, :, 8:-8], square, 2e-5)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("fields", [{}, dict(kernel_size=1, radial_filters=True)], ids=["3x3", "1x1"])
def test_programs_hold_plain_convolutions_only(fields, platform):
    """No dilated, strided or grouped convolution in the generator's gradient, which XLA runs slowly."""
    model = Generator(**TINY, **fields)
    z = np.zeros((2, 8), np.float32)
    variables = _fill(model, z)

    def loss(params):
        return jnp.sum(model.apply({**variables, "params": params}, z, train=False) ** 2)

    lowered = jax.jit(jax.grad(loss)).trace(variables["params"]).lower(lowering_platforms=(platform,))
    convolutions = [line for line in lowered.as_text().splitlines() if "stablehlo.convolution" in line]
    pointwise = fields.get("kernel_size") == 1
    assert bool(convolutions) != (pointwise and platform == "cpu")  # there it is a matrix product
    for line in convolutions:
        assert "feature_group_count = 1" in line and "batch_group_count = 1" in line
        assert not re.search(r"(dilate|stride) = \[(?!1, 1\])", line), line


def test_registered():
    classes = models.classes("stylegan3")
    assert classes["generator"] is Generator
    assert classes["discriminator"] is models.classes("stylegan2")["discriminator"]
    assert Generator().num_ws == 16 and "moving_phases" not in Generator.__dataclass_fields__


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(resolution=80), "power of two"),
        (dict(num_critical=14), "num_critical=14"),
        (dict(num_layers=1, num_critical=0), "two layers or more"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(UserError, match=message):
        Generator(**fields)
