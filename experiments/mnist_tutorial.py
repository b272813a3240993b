"""TensorFlow's DCGAN tutorial: MNIST at 28 px.

    python launch.py train --config=mnist_tutorial --workdir=runs/mnist_tutorial

Settings of tensorflow/docs, site/en/tutorials/generative/dcgan.ipynb, with Keras' defaults: leaky ReLU .3, Adam's epsilon
1e-7, BatchNorm's momentum .99 and epsilon 1e-3, Glorot weights. Trainable parameters: 2,305,472 in the generator, 212,865
in the discriminator. The tutorial gives no number, pictures alone.

The set must have been prepared with TFDS. The classifier of the bundled digits does not judge MNIST.
FID, which needs a file of weights (docs/metrics.md): `--config.evaluation.metrics="('fid50k_full',)"`.
"""

from digits_dcgan import shrink
from ml_collections import ConfigDict

EPOCH_IMAGES = 60_000


def get_config(variant: str = "") -> ConfigDict:
    """Variants: `smoke`, tiny and done in seconds."""
    adam = {"name": "adam", "learning_rate": 1e-4, "b1": 0.9, "b2": 0.999, "eps": 1e-7}
    keras = {"name": "dcgan", "kernel_size": 5, "slope": 0.3, "initializer": "glorot"}
    config = ConfigDict(
        {
            "game": "unconditional",
            "total_images": 50 * EPOCH_IMAGES,
            "batch_size": 256,
            "data": {"name": "tfds:mnist", "resolution": 28, "channels": 1},
            "generator": {
                **keras,
                "latent_size": 100,
                "features": (256, 128, 64),
                "strides": (1, 2, 2),
                "stem": "dense",
                "activation": "leaky_relu",
                "norm_momentum": 0.99,
                "norm_epsilon": 1e-3,
            },
            "discriminator": {**keras, "features": (64, 128), "norm": "none", "dropout": 0.3, "head": "dense"},
            "loss": {"name": "non_saturating"},
            "optim": {"generator": adam, "discriminator": adam},
            "every": {"sample_images": EPOCH_IMAGES, "checkpoint_images": EPOCH_IMAGES},
            "evaluation": {"features": "none", "metrics": ()},
        }
    )
    if variant == "smoke":
        shrink(config, data="synthetic:64")
        config.generator.features, config.discriminator.features = (8, 4, 4), (4, 8)
    elif variant:
        raise ValueError(f"{variant!r}; expected smoke")
    return config
