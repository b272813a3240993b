"""StyleGAN2's losses with ADA before the discriminator, against the official code's recorded draws and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import config as configs
from gan_jax import runs
from gan_jax import step as steps
from gan_jax.augment.ada import Ada
from gan_jax.games import style
from tests import golden_ada, settings
from tests import golden_stylegan2 as golden

# Ours -> the official phase, its place among the recorded latents, the draws in the order of the discriminator's calls.
PHASES = {
    "generator": ("Gmain", 0, ("Gmain/fake",)),
    "discriminator": ("Dmain", 1, ("Dmain/fake", "Dmain/real")),
    "penalty": ("Dreg", 2, ("Dreg/real",)),
}


class Recorded:
    """The pipeline with recorded draws, one set a call."""

    def __init__(self, npz, p, draws):
        self.npz, self.p, self.draws = npz, p, list(draws)

    def __call__(self, images, keys, strength):
        """See `augment.Augmentation`."""
        ada = Ada(imgfilter=0.0, noise=0.0, cutout=0.0)
        return ada.apply(images, ada.parameters(golden_ada.draws(self.npz, f"draw/{self.draws.pop(0)}/"), self.p))

    def strength(self, memory, images):
        """The recorded one."""
        return jnp.float32(self.p)

    def observe(self, memory, real_logits, batch_size):
        """Nothing is adapted here."""


@pytest.fixture(scope="module")
def recorded():
    npz, meta = golden.load("sg2_loss_ada")
    config = runs.load_config(f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke")
    for key, value in {"loss.r1_gamma": meta["r1_gamma"], "style.mixing": 0.0, "style.noise": "const"}.items():
        configs.override(config, key, str(value))
    nets = {"generator": golden.generator(meta["G_kwargs"]), "discriminator": golden.discriminator(meta["D_kwargs"])}
    of_g, of_d = golden.tree(npz, "params/G/"), golden.tree(npz, "params/D/")
    params = {"generator": of_g.pop("params"), "discriminator": of_d["params"]}
    variables = {"generator": of_g, "discriminator": {}}
    state = steps.State(0, jnp.int32(0), params, variables, {}, {}, {"augment": (), "pl_mean": jnp.float32(0)})
    return npz, meta, config, nets, state


@pytest.mark.parametrize("name", PHASES)
def test_golden_losses_and_gradients_with_augmentation(recorded, name):
    npz, meta, config, nets, state = recorded
    official, place, draws = PHASES[name]
    augmentation = Recorded(npz, meta["augment_p"], draws)
    rules = style.Rules(nets, config.loss, config.style, augmentation, False, meta["batch"])
    net = "generator" if name == "generator" else "discriminator"
    batch = {"image": golden.images(npz["in/real_img"]), f"{name}/z": npz["in/gen_z"][place]}
    rng = steps.Rng(jax.random.key(0), jax.random.split(jax.random.key(1), meta["batch"]))
    loss_of = partial(getattr(style, f"_{name}_loss"), rules=rules, every=1)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def play(own):
        return loss_of({**state.params, net: own}, state, batch, rng)

    (loss, out), grads = play(state.params[net])
    assert not augmentation.draws  # as many calls of the discriminator as were recorded
    assert loss == pytest.approx(npz[f"out/{official}/loss"].mean(), rel=2e-5)
    if name == "penalty":
        assert out.metrics["r1"] == pytest.approx(npz["out/Dreg/r1_penalty_per_sample"].mean(), rel=2e-5)
    for path, theirs in jax.tree_util.tree_leaves_with_path(golden.tree(npz, f"grad/{official}/")["params"]):
        ours = grads
        for key in path:
            ours = ours[key.key]
        # A noise strength's gradient is one number in which all pixels cancel.
        bound = 1e-3 if path[-1].key == "noise_strength" else 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound * np.abs(theirs).max(), err_msg=str(path))
