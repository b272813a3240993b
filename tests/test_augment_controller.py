"""How the strength of augmentation moves, and the seam through which games augment."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from gan_jax import augment, parallel, runs
from gan_jax.augment import controller
from gan_jax.errors import UserError
from tests import settings

GOLDEN = pathlib.Path(__file__).parent / "golden"


def test_recorded_moves_of_p():
    rows = np.load(GOLDEN / "ada_controller.npz")["out/table"].tolist()
    for before, mean, target, batch, interval, kimg, after in rows:
        rule = {"target": target, "batch_size": batch, "interval_steps": interval, "speed_images": kimg * 1000}
        ours = controller.adapted(jnp.float32(before), jnp.float32(mean), **rule)
        np.testing.assert_allclose(ours, after, rtol=2e-7, atol=1e-10)


def test_the_memory_moves_once_an_interval_by_the_signs_of_all_devices():
    """Three batches of 8 in parts of 4; the logits of two of three samples are positive: 1/3 is below the target."""
    rule = controller.Augmentation(p=0.5, target=0.4, interval_steps=3, speed_images=240.0)
    mesh = parallel.make_mesh(jax.devices()[:2])
    spec = jax.sharding.PartitionSpec
    observe = jax.jit(jax.shard_map(lambda m, x: rule.observe(m, x, 8), mesh=mesh, in_specs=(spec(), spec("data")),
                                    out_specs=spec()))  # fmt: skip
    memory, logits = rule.init(), np.resize([3.0, 0.2, -5.0], 24).astype(np.float32)
    for number in range(6):
        assert float(rule.strength(memory, 0)) == 0.5
        memory = observe(memory, logits[4 * number : 4 * number + 4])
    assert jax.device_get(memory) == (pytest.approx(0.5 - 8 * 3 / 240), 0.0, 0)


def test_scheduled_and_fixed_strength():
    rising = augment.build(ConfigDict({"name": "ada", "target": 0.0, "p": 0.6, "growth_images": 1000.0}))
    assert rising.init() == () and rising.observe((), jnp.ones(3), 8) is None
    for images, expected in ((0, 0.0), (250, 0.3 * (1 - np.sqrt(0.5))), (500, 0.3), (1000, 0.6), (5000, 0.6)):
        assert float(rising.strength((), images)) == pytest.approx(expected, abs=1e-6)
    assert float(augment.build({"name": "diffaugment"}).strength((), 7)) == 1.0


def test_the_seam_names_mistakes():
    for section, message in (
        ({"name": "adda"}, "'adda': expected one of none, diffaugment, ada; nearest: ada"),
        ({"name": "ada", "xflop": 1.0}, "xflop.*xflip"),
        ({"name": "none", "p": -1.0}, "p=-1.0.*0 or more"),
        ({"name": "ada", "growth_images": 10.0}, "adapted or scheduled"),
    ):
        with pytest.raises(UserError, match=message):
            augment.build(ConfigDict(section))
    config = settings.digits(augment__name="diffaugment")
    with pytest.raises(UserError, match=r"'diffaugment': this data has the shape \(2,\)"):
        settings.build(config, (2,))


def test_the_game_plays_with_an_adaptive_pipeline_on_any_number_of_devices():
    """The strength rises as the discriminator is sure of the real images; the sums are those of one device."""
    options = {"augment.name": "ada", "augment.target": -0.9, "augment.p": 0.2, "augment.interval_steps": 2}
    options |= {"generator.norm": "none", "discriminator.norm": "none", "loss.r1_gamma": 0.0}
    options |= {"augment.speed_images": 100}
    overrides = [(key, str(value)) for key, value in options.items()]
    run = settings.build(runs.load_config(f"{settings.EXPERIMENTS / 'digits_dcgan.py'}:smoke", overrides), (16, 16, 1))
    (one, metrics), (two, _) = (settings.play(run, count=2, devices=n) for n in (1, 2))
    assert metrics[0]["discriminator/augment_p"] == pytest.approx(0.2)
    assert float(one.memory.p) == pytest.approx(0.2 + 8 * 2 / 100)
    assert settings.largest_difference(one.memory, two.memory) < 1e-6
