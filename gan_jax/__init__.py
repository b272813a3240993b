"""gan_jax: train, evaluate and use generative adversarial networks in JAX."""

__version__ = "0.2.0"
