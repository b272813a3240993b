"""The steps of R3GAN and StyleGAN3 as they are compiled for eight devices; other games have this beside their tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import parallel, runs
from gan_jax import step as steps
from tests import hlo, settings

R3GAN = {f"{net}.cardinalities": "(2, 1)" for net in ("generator", "discriminator")}
CASES = {"r3gan": (R3GAN, 8), "stylegan3": ({}, 16)}  # experiment: (changes, side of its images)


@pytest.mark.parametrize("name", CASES)
def test_a_step_only_sums_over_devices_and_has_small_windows(name):
    """All phases at once, on one image a device; R3GAN's convolutions are grouped by design."""
    changes, side = CASES[name]
    config = runs.load_config(f"{settings.EXPERIMENTS / name}.py:smoke", [*changes.items()])
    run = settings.build(config, (side, side, 3), 4 if config.conditional else 0)
    mesh = parallel.make_mesh(jax.devices()[:8])
    step = parallel.data_parallel(steps.make_step(run.phases, run.optimizers, seed=0, ema=run.ema), mesh)
    sharding = parallel.batch_sharding(mesh)
    batch = {key: jax.ShapeDtypeStruct((1, *value.shape), value.dtype, sharding=sharding)
             for key, value in settings.random_batch(run, 0).items()}  # fmt: skip
    text = step.lower(runs.abstract_state(run, mesh), batch).compile().as_text()
    hlo.check(text, groups=name == "r3gan")


def test_the_guard_refuses_what_it_should():
    """JAX's own derivative of a strided convolution, a large dilated window, groups, and a gather over devices."""
    mesh = parallel.make_mesh(jax.devices()[:2])
    spec = jax.sharding.PartitionSpec

    def conv(x, w, stride=1, **options):
        layout, pads = ("NHWC", "HWIO", "NHWC"), ((1, 1), (1, 1))
        return jax.lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=layout, **options)

    def penalty(w, x):
        return jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.square(conv(x, w, 2))))(x)))

    def program(fn, *shapes):
        summed = jax.shard_map(lambda *a: jax.lax.psum(fn(*a), "data"), mesh=mesh, in_specs=spec(), out_specs=spec(),
                               check_vma=False)  # fmt: skip
        return jax.jit(summed).lower(*(jax.ShapeDtypeStruct(s, np.float32) for s in shapes)).compile().as_text()

    x, w = (2, 16, 16, 4), (3, 3, 4, 4)
    hlo.check(program(conv, x, w))
    for refused, shapes in (
        (jax.grad(penalty), (w, x)),
        (lambda x, w: conv(x, w, lhs_dilation=(2, 2)), (x, (8, 8, 4, 4))),
        (lambda x, w: conv(x, w, feature_group_count=2), (x, (3, 3, 2, 4))),
        (lambda x, w: jax.lax.all_gather(conv(x, w), "data"), (x, w)),
    ):
        text = program(refused, *shapes)
        with pytest.raises(AssertionError):
            hlo.check(text)
