"""The 1,797 handwritten digits that ship with scikit-learn, as a TFDS builder: real data without a download.

The module imports TFDS at its top, as every builder must; the package loads it only when the set is opened.
"""

import io

import tensorflow_datasets as tfds

from gan_jax.data import scikit_digits

_DESCRIPTION = """Handwritten digits, 8x8 pixels, 17 gray levels: the test part of the UCI set 'Optical
Recognition of Handwritten Digits', as bundled with scikit-learn. The levels 0..16 are spread over 0..255.
Every fifth example of the set sorted by class is in the test split."""

_CITATION = """@misc{alpaydin1998optical, author={Alpaydin, E. and Kaynak, C.}, year={1998},
title={Optical Recognition of Handwritten Digits}, publisher={UCI Machine Learning Repository},
doi={10.24432/C50P49}}"""


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder of `digits`: `image` uint8 (8, 8, 1), `label` 0..9, in the order of scikit-learn."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=_CITATION,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in scikit_digits.split_indices()}

    def _generate_examples(self, split):
        from PIL import Image

        for key, (image, label) in enumerate(zip(*scikit_digits.digits(split), strict=True)):
            png = io.BytesIO()  # encoded here, because TFDS would need TensorFlow to encode an array
            Image.fromarray(image).save(png, "png")
            png.seek(0)
            yield key, {"image": png, "label": int(label)}
