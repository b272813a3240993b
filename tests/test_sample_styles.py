"""Images of models with styles: mixed, interpolated in w, saved and read back, with each kind of noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from gan_jax import folders, images, painter, parallel, runs, sample, sample_flags, specs
from gan_jax.errors import UserError
from gan_jax.games import style
from gan_jax.layers import random
from tests import settings

LAYERS = 4  # of 8 px


def lively(state):
    """A generator whose biases, noise strengths and mean style are not the zeros of their start, as one trained."""
    leaves, structure = jax.tree.flatten(state.ema["generator"]["params"])
    leaves = [x + 0.4 * jnp.cos(1.7 * jnp.arange(x.size) ** 2 + i).reshape(x.shape) for i, x in enumerate(leaves)]
    w_avg = jax.tree.map(lambda x: x + 0.5, state.ema["generator"]["w_avg"])
    return state._replace(ema={"generator": {**state.ema["generator"], "params": jax.tree.unflatten(structure, leaves),
                                             "w_avg": w_avg}})  # fmt: skip


def style_config():
    overrides = {"data.resolution": "8", "conditional": "True"}
    return runs.load_config(f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke", list(overrides.items()))


def growing_config():
    own = {"w_size": 6, "mapping_layers": 2, "mapping_features": 6}
    return runs.load_config(f"{settings.EXPERIMENTS / 'digits_progan.py'}:smoke", [
        ("generator.name", "stylegan1"), ("discriminator.name", "stylegan1"),
        *((f"generator.{key}", str(value)) for key, value in own.items()),
        ("data.resolution", "8"), ("growth.initial_resolution", "4"),
    ])  # fmt: skip


class Drawn:
    """A run's folder, the flags given to `sample` so far and what it wrote, and the networks by themselves."""

    def __init__(self, config, folder):
        self.folder, self.run = folder, settings.fresh_folder(config, folder / "run", lively)
        restored = folders.restore(self.run, folder / "run", parallel.make_mesh(jax.devices()[:1]))
        self.ema = restored.state.ema["generator"]
        self.own = {name: value for name, value in self.ema.items() if name != "growth"}
        self.net, self.count = self.run.nets["generator"], 0
        self.mapping = jax.jit(partial(self.net.apply, method="mapping"))
        self.synthesis = jax.jit(partial(self.net.apply, method="synthesis"), static_argnames="noise")

    def __call__(self, **flags):
        """{file name: image} of one call."""
        self.count += 1
        files = sample.sample(self.folder / "run", self.folder / str(self.count), **flags)
        return {file.name: read(file) for file in files if file.suffix == ".png"}

    def styles(self, seeds, labels) -> np.ndarray:
        """Of the generator's mapping, not truncated: (N, LAYERS, w_size)."""
        z = random.normal(random.fold(jax.vmap(jax.random.key)(filled(seeds)), 0), (self.net.latent_size,))
        labels = filled(labels) if specs.classes(self.run.spec) else None
        return np.asarray(self.mapping(self.own, z, labels))[: len(seeds)]

    def image(self, ws, own=None, **options) -> np.ndarray:
        """Of the generator's synthesis: float (N, 8, 8) in 0 to 255."""
        painted = np.asarray(self.synthesis(own or self.own, filled(ws), **options), np.float64)[: len(ws)]
        return np.clip((painted[..., 0] + 1) * 127.5, 0, 255)


def filled(rows) -> np.ndarray:
    """Eight rows, so that one program serves all tests."""
    return np.resize(np.asarray(rows), (8, *np.shape(rows)[1:]))


def with_noise_of(seeds) -> dict:
    """Arguments of the synthesis."""
    return {"noise": "random", "keys": random.fold(jax.vmap(jax.random.key)(filled(seeds)), style.NOISE)}


def read(path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def frames_of(path) -> list[np.ndarray]:
    with Image.open(path) as animation:
        return [np.asarray(frame.convert("L"), float) for frame in ImageSequence.Iterator(animation)]


def same(found, expected) -> bool:
    """Whether uint8 images are the expected floats, rounded."""
    return np.abs(np.asarray(found, float) - expected).max() < 0.51


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return Drawn(style_config(), tmp_path_factory.mktemp("styles"))


@pytest.fixture(scope="module")
def stills(drawn):
    """The images and the folder of one call that also saves its styles."""
    return drawn(seeds="0,1,10,11,12", labels="0", truncation="0.7,3", save_dlatents=True), drawn.folder / "1"


def test_styles_saved_are_the_truncated_ones_and_paint_the_same_images(drawn, stills):
    found, folder = stills
    with np.load(folder / "dlatents.npz") as file:
        ws, seeds = file["w"], file["seeds"]
    assert seeds.tolist() == [0, 1, 10, 11, 12] and ws.shape == (5, LAYERS, 8) and ws.dtype == np.float32
    plain, mean = drawn.styles(seeds, [0] * 5), np.asarray(drawn.ema["w_avg"]["mapping_network"]["w_avg"])
    expected = np.concatenate([mean + 0.7 * (plain - mean), plain], 1)[:, [0, 1, 2, LAYERS + 3]]
    np.testing.assert_allclose(ws, expected, atol=1e-5)
    assert np.abs(ws - plain)[:, :3].max() > 0.05 and (np.ptp(drawn.image(ws), axis=0) > 20).any()
    for seed, image in zip(seeds, drawn.image(ws), strict=True):
        assert same(found[f"seed{seed:06}_label0.png"], image)
    again = drawn(dlatents=str(folder / "dlatents.npz"))
    assert list(again) == [*(f"seed{seed:06}.png" for seed in seeds), "grid.png"]
    for seed in seeds:
        np.testing.assert_array_equal(again[f"seed{seed:06}.png"], found[f"seed{seed:06}_label0.png"])


def test_one_style_of_all_layers_is_taken_too_and_animated(drawn, tmp_path):
    w = drawn.styles([4, 5], [2, 2])[:, 0]
    np.savez(tmp_path / "w.npz", w=w)
    found = drawn(dlatents=str(tmp_path / "w.npz"))
    for number, image in enumerate(drawn.image(np.repeat(w[:, None], LAYERS, 1))):
        assert same(found[f"dlatent00000{number}.png"], image)
    (file,) = sample.sample(drawn.folder / "run", tmp_path, dlatents=str(tmp_path / "w.npz"), interpolate=1)
    for frame, number in zip(frames_of(file), range(2), strict=True):
        np.testing.assert_array_equal(frame, found[f"dlatent00000{number}.png"])


def test_a_cell_has_its_rows_styles_but_in_the_columns_layers(drawn):
    """And the row's noise."""
    found = drawn(style_mixing="0-1:10-12:1-2", labels="3,5", noise="random")
    seeds, labels = [0, 1, 10, 11, 12], [3, 5, 3, 5, 3]
    ws = drawn.styles(seeds, labels)
    names = [f"seed{seed:06}_label{label}" for seed, label in zip(seeds, labels, strict=True)]
    pairs = [(row, column) for row in (0, 1) for column in (2, 3, 4)]
    mixed = np.stack([np.stack([ws[i, 0], ws[j, 1], ws[j, 2], ws[i, 3]]) for i, j in pairs])
    sources = np.stack([found[f"row_{name}.png"] for name in names[:2]]
                       + [found[f"column_{name}.png"] for name in names[2:]])  # fmt: skip
    cells = np.stack([found[f"row_{names[i]}_column_{names[j]}.png"] for i, j in pairs])
    assert same(sources, drawn.image(ws, **with_noise_of(seeds)))
    assert same(cells, drawn.image(mixed, **with_noise_of([seeds[i] for i, _ in pairs])))
    assert len({image.tobytes() for image in (*sources, *cells)}) == 11 and len(found) == 12
    table = images.table(sources[2:, ..., None], sources[:2, ..., None], cells.reshape(2, 3, 8, 8, 1))
    np.testing.assert_array_equal(found["style_mixing.png"], table[..., 0])


def test_with_all_layers_of_the_column_a_cell_is_the_columns_image(drawn):
    """The default, 0-6, are all there are at 8 px."""
    found = drawn(style_mixing="0:10,11", labels="0")
    for seed in (10, 11):
        column = found[f"column_seed{seed:06}_label0.png"]
        np.testing.assert_array_equal(found[f"row_seed000000_label0_column_seed{seed:06}_label0.png"], column)


def test_half_way_in_w_is_the_image_of_the_mean_style(drawn):
    (file,) = sample.sample(drawn.folder / "run", drawn.folder / "w", seeds="7,9,8", labels="1,2",
                            interpolate=2, interpolate_in="w")  # fmt: skip
    ws = drawn.styles([7, 9, 8], [1, 2, 1])
    path = np.stack([ws[0], (ws[0] + ws[1]) / 2, ws[1], (ws[1] + ws[2]) / 2, ws[2], (ws[2] + ws[0]) / 2])
    assert same(np.stack(frames_of(file)), drawn.image(path))


def test_noise_is_constant_none_or_of_the_seed(drawn, stills):
    with np.load(stills[1] / "dlatents.npz") as file:
        ws = file["w"][2:4]
    none = drawn(seeds="10,11", labels="0", truncation="0.7,3", noise="none")
    none = np.stack([none[f"seed0000{seed}_label0.png"] for seed in (10, 11)])
    constant = np.stack([stills[0][f"seed0000{seed}_label0.png"] for seed in (10, 11)])
    assert same(none, drawn.image(ws, noise="none"))
    paint = painter.halves(drawn.run, {"generator": drawn.ema}, noise="random").paint
    seeded = paint(ws, np.array([10, 11]))[..., 0]
    np.testing.assert_array_equal(paint(ws[1:], np.array([11]))[0, ..., 0], seeded[1])
    assert (none != constant).any() and (none != seeded).any() and (constant != seeded).any()
    other = paint(ws, np.array([11, 10]))[..., 0]
    assert all((x != y).any() for x, y in zip(seeded, other, strict=True)), "each seed has its own"


def test_a_growing_generator_mixes_and_has_noise_too(tmp_path_factory):
    """At the lod that it has reached, here 1: its images are squares of equal pixels."""
    drawn = Drawn(growing_config(), tmp_path_factory.mktemp("growing"))
    lod, ws = drawn.ema["growth"]["lod"], drawn.styles([0, 1], None)
    assert float(lod) == 1
    found = drawn(style_mixing="0:1:1", noise="none")["row_seed000000_column_seed000001.png"]
    cell = np.stack([ws[0, 0], ws[1, 1], *ws[0, 2:]])[None]
    silent = {**drawn.own, "noise": jax.tree.map(np.zeros_like, drawn.own["noise"])}
    assert same(found, drawn.image(cell, silent, lod=lod)[0])
    constant = drawn(style_mixing="0:1:1")["row_seed000000_column_seed000001.png"]
    assert same(constant, drawn.image(cell, lod=lod)[0]) and (constant != found).any()
    np.testing.assert_array_equal(found, found[::2, ::2].repeat(2, 0).repeat(2, 1))
    paint = painter.halves(drawn.run, {"generator": drawn.ema}, noise="random").paint
    one, two, again = paint(cell.repeat(3, 0), np.array([3, 4, 3]))
    assert (one != two).any() and (one == again).all() and (one[..., 0] != constant).any()


@pytest.mark.parametrize(("flags", "message"), [
    ({"style_mixing": "0-3"}, "--style_mixing=0-3: expected ROWS:COLUMNS or ROWS:COLUMNS:LAYERS"),
    ({"style_mixing": "0:1:4"}, "--style_mixing=0:1:4: no layer 4; this generator has the layers 0 to 3"),
    ({"style_mixing": "0:a"}, "--style_mixing=a: expected whole numbers"),
    ({"style_mixing": "0:1", "labels": "10"}, "--labels=10: 10 is out of range"),
    ({"truncation": "0.5,5"}, "this generator has 4 layers; give a cutoff of 0 to 4"),
    ({"dlatents": "none.npz"}, "--dlatents=none.npz: no such file"),
])  # fmt: skip
def test_mistakes_are_told(flags, message):
    run = settings.build(style_config(), (8, 8, 1), 10)
    with pytest.raises(UserError, match=message):
        sample_flags.read(sample_flags.Flags(**flags), run)


def test_a_generator_without_noise_inputs_refuses_the_flag():
    names = {"generator.name": "stylegan3", "generator.num_layers": "3", "generator.num_critical": "1"}
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke", list(names.items()))
    run = settings.build(config, (8, 8, 1))
    with pytest.raises(UserError, match="--noise=const: 'stylegan3' has no noise inputs in this run"):
        sample_flags.read(sample_flags.Flags(noise="const"), run)
    job = sample_flags.read(sample_flags.Flags(style_mixing="0:3"), run)
    assert job.mixing.layers.tolist() == [0, 1, 2, 3, 4], "of input, three layers and RGB layer"


def test_what_is_measured_has_random_noise_of_each_sample():
    """As the official metrics have it: not the constant noise of single pictures, and no other sample's."""
    run = settings.build(style_config(), (8, 8, 1), 10)
    ema = jax.jit(lambda: lively(runs.init_state(run)))().ema
    keys, labels = painter.keys_of(np.arange(3)), jnp.arange(3)
    drawn = jax.jit(lambda keys: style.sample(run.nets, ema, keys, {"label": labels})["image"])(keys)

    @jax.jit
    def painted(keys):
        ws = style.styles(run.nets, ema, style.latents(run.nets["generator"], keys), labels)
        return style.paint(run.nets, ema, ws, keys, noise="random"), style.paint(run.nets, ema, ws)

    noisy, plain = painted(keys)
    np.testing.assert_allclose(drawn, noisy, rtol=1e-4, atol=1e-4)
    assert np.abs(drawn - plain).max() > 0.01
