"""The 1,797 handwritten digits that ship with scikit-learn, as a TFDS builder: real data without a download.

The module imports TFDS at its top, as every builder must; the package loads it only when the set is opened.
"""

import io

import numpy as np
import tensorflow_datasets as tfds

_DESCRIPTION = """Handwritten digits, 8x8 pixels, 17 gray levels: the test part of the UCI set 'Optical
Recognition of Handwritten Digits', as bundled with scikit-learn. The levels 0..16 are spread over 0..255.
Every fifth example of the set sorted by class is in the test split."""

_CITATION = """@misc{alpaydin1998optical, author={Alpaydin, E. and Kaynak, C.}, year={1998},
title={Optical Recognition of Handwritten Digits}, publisher={UCI Machine Learning Repository},
doi={10.24432/C50P49}}"""


def split_indices() -> dict[str, np.ndarray]:
    """Stratified split: of the examples stably sorted by class every fifth is test. Ascending indices into
    `sklearn.datasets.load_digits`: 1,437 for `train`, 360 for `test`."""
    from sklearn.datasets import load_digits

    by_class = np.argsort(load_digits().target, kind="stable")
    test = np.arange(len(by_class)) % 5 == 0
    return {"train": np.sort(by_class[~test]), "test": np.sort(by_class[test])}


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
        return {split: self._generate_examples(indices) for split, indices in split_indices().items()}

    def _generate_examples(self, indices):
        from PIL import Image
        from sklearn.datasets import load_digits

        digits = load_digits()
        for key, index in enumerate(indices):
            levels = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
            png = io.BytesIO()  # encoded here, because TFDS would need TensorFlow to encode an array
            Image.fromarray(levels).save(png, "png")
            png.seek(0)
            yield key, {"image": png, "label": int(digits.target[index])}
