"""Metrics by name: what a name stands for, what it is reported as, and which names are refused."""

import pytest
from ml_collections import ConfigDict

from gan_jax import evaluate
from gan_jax.errors import UserError
from gan_jax.evaluate import protocols, sizes
from gan_jax.features import networks
from tests import settings, tiny_network


@pytest.mark.parametrize(("name", "kind", "network", "output", "samples", "reals", "options"), [
    ("fid50k_full", "fd", "inception", "2048", 50_000, None, {}),
    ("fid10k", "fd", "inception", "2048", 10_000, 10_000, {}),
    ("fid1437_full", "fd", "inception", "2048", 1437, None, {}),
    ("fid50k_full_infinity", "fd", "inception", "2048", 50_000, None, {"estimate": "infinity"}),
    ("fid10k_interval", "fd", "inception", "2048", 10_000, 10_000, {"estimate": "interval"}),
    ("kid50k_full", "kd", "inception", "2048", 50_000, 1_000_000, {"subsets": 100, "subset_size": 1000}),
    ("pr50k3_full", "pr", "vgg16", "fc2_relu", 50_000, 200_000, {"neighbours": 3}),
    ("prdc10k5", "prdc", "inception", "2048", 10_000, 10_000, {"neighbours": 5}),
    ("is50k", "is", "inception", "logits_unbiased", 50_000, 0, {"splits": 10}),
    ("fd_dinov2_50k_full", "fd", "dinov2_vitl14", "cls", 50_000, None, {}),
    ("swd16k", "swd", "", "", 16_384, 16_384, {}),
    ("msssim10k", "msssim", "", "", 20_000, 0, {}),
    ("ppl2_wend", "ppl", "lpips_vgg", "", 50_000, 0, {"space": "w", "sampling": "end", "crop": False}),
    ("ppl_zfull", "ppl", "lpips_vgg", "", 50_000, 0, {"space": "z", "sampling": "full", "crop": True}),
    ("ppl2_wend_2k", "ppl", "lpips_vgg", "", 2_000, 0, {"space": "w", "sampling": "end", "crop": False}),
])  # fmt: skip
def test_what_names_stand_for(name, kind, network, output, samples, reals, options):
    protocol = protocols.parse(name)
    assert protocol == (name, kind, network, output, samples, reals, options)


@pytest.mark.parametrize("name", [
    "fid", "fd", "prdc", "fid50k_fully", "fid50k5", "is50k_full", "kid50k_infinity", "swd", "ppl3_wend", "ppl2_w", "",
    "xfid50k", "pr50k3_interval", "swd16k_full",
])  # fmt: skip
def test_names_that_stand_for_nothing(name):
    assert protocols.parse(name) is None


def test_names_are_of_published_weights_and_preprocessing_alone():
    def net(name, published):
        return networks.FeatureNet(name, "", published, "", {}, None, None)

    def of(name, *args):
        return protocols.reported(protocols.parse(name), *args)

    own, drawn, other = net("inception", True), net("random_inception", False), net("unpublished_inception", False)
    assert of("fid50k_full", own, "tf1") == "fid50k_full"
    assert of("fid50k_full", own, "clean") == "fid50k_full_clean"
    assert of("fid50k_full", drawn, "tf1") == "fd50k_full_random_inception"
    assert of("kid10k", other, "pytorch_fid") == "kd10k_unpublished_inception_pytorch_fid"
    assert of("is50k", drawn, "tf1") == "is50k_random_inception"
    assert of("pr50k3_full", net("vgg16", True), "clean") == "pr50k3_full"
    assert of("swd16k", None, "tf1") == "swd16k"
    plain = protocols.Protocol("fd", "fd", "inception", "64", 100, None, {})
    assert protocols.reported(plain, own, "tf1") == "fd_inception_64"
    assert protocols.reported(plain._replace(output="2048"), drawn, "clean") == "fd_random_inception_clean"


@pytest.mark.parametrize(("overrides", "message"), [
    ({"evaluation__metrics": "fid50kfull"}, "metrics='fid50kfull': expected some of fd, kd, prdc, .* fid50k_full"),
    ({"evaluation__metrics": "psnr"}, "metrics=psnr: compares two folders"),
    ({"evaluation__metrics": "fid1"}, "of 1 images; expected 2 or more"),
    ({"evaluation__metrics": "is5"}, "of 5 images; expected 10 or more"),
    ({"evaluation__metrics": "pr3k3", "evaluation__features": "vgg"}, "features='vgg': expected one of"),
    ({"evaluation__metrics": "fid10k", "evaluation__preprocessing": "tf2"}, "preprocessing='tf2': expected one of tf1"),
    ({"evaluation__metrics": "ppl2_wend"}, "walk between styles, and config.generator.name='dcgan' has none"),
    ({"evaluation__metrics": "classes", "evaluation__features": "inception"}, "need a classifier of the data"),
    ({"evaluation__metrics": "style_entropy", "evaluation__features": "inception"}, "metrics=style_entropy: they need"),
    ({"evaluation__metrics": "fd", "evaluation__features": "inception/100"}, "inception has the outputs 64, 192"),
])  # fmt: skip
def test_metrics_that_cannot_be_had(overrides, message):
    overrides = {**overrides, "evaluation__metrics": f"({overrides['evaluation__metrics']!r},)"}
    with pytest.raises(UserError, match=message):
        evaluate.wanted(settings.digits(**overrides))


@pytest.mark.parametrize(("name", "shape", "message"), [
    ("swd16", (8, 8), "images 8x8; expected squares, their side a power of two from 16 on"),
    ("msssim8", (40, 40), "images 40x40; expected sides of multiples of 16"),
    ("ppl2_wend", (8, 8), "images 8x8; expected squares of 16x16 or larger"),
    ("ppl_wend", (16, 16), "images 16x16; expected squares of 32x32 or larger"),
    ("ppl2_wend", (64, 32), "images 64x32; expected squares of 16x16 or larger"),
])  # fmt: skip
def test_images_of_a_size_that_a_metric_does_not_take(name, shape, message):
    with pytest.raises(UserError, match=f"^metrics={name}: of {message}$"):
        sizes.check_shape(protocols.parse(name), (*shape, 3))


def test_points_have_no_images():
    config = settings.digits(evaluation__metrics="('fid10k',)", data__name="mixture:ring8")
    with pytest.raises(UserError, match="fid10k: they look at images, and 'mixture:ring8' has points"):
        evaluate.wanted(config)


def test_fid_without_a_count_is_of_all_samples():
    config = settings.digits(evaluation__metrics="('fid','kid','fd')", evaluation__features="inception",
                             evaluation__samples=20_000)
    assert evaluate.wanted(config) == ("fid20k_full", "kid20k_full", "fd")
    assert evaluate.ranking(config)["metric"].startswith("fid20k_full ") and evaluate.ranking(config)["lower_is_better"]
    protocol = protocols.listed_protocols(config.evaluation, ("fd",))[0]
    assert protocol[1:6] == ("fd", "inception", "2048", 20_000, None)
    config.evaluation.features = "inception/768"
    assert protocols.listed_protocols(config.evaluation, ("fd",))[0].output == "768"


def test_checkpoints_are_not_ranked_by_what_has_no_order():
    config = settings.digits(evaluation__metrics="('sharpness','fd')")
    with pytest.raises(UserError, match="sharpness is the better the nearer the reals, .*; list another one first"):
        evaluate.ranking(config)
    config.evaluation.metrics = ("fd", "sharpness")
    assert evaluate.ranking(config)["lower_is_better"]


def test_values_of_another_judge_do_not_count():
    """A classifier that is fitted on other data is another network."""
    config = settings.digits(evaluation__metrics="('fid12_full','fd')", evaluation__features="classifier",
                             evaluation__judge="digits")
    before = evaluate.ranking(config)["metric"]
    config.evaluation.judge = "photographs:grass+gravel"
    assert before.endswith(",judge=digits") and evaluate.ranking(config)["metric"] != before


@pytest.mark.parametrize(("name", "lower"), [
    ("fid50k_full", True), ("kid50k_full", True), ("swd16k", True), ("ppl2_wend", True), ("msssim10k", True),
    ("pr50k3_full", False), ("is50k", False), ("prdc10k5", False),
])  # fmt: skip
def test_which_way_is_better(name, lower):
    kind = protocols.parse(name).kind
    assert (protocols.better(kind) == "lower") is lower


def test_names_and_dimensions_of_all_networks():
    dims = {"inception": 2048, "vgg16": 4096, "dinov2_vits14": 384, "dinov2_vitb14": 768, "dinov2_vitl14": 1024}
    for name, dim in dims.items():
        network, output = networks.split(f"random_{name}")
        assert network == name and networks.KINDS[network].outputs[output] == dim


def test_random_weights_and_files(monkeypatch):
    section = settings.digits(evaluation__features="random_inception").evaluation
    monkeypatch.setitem(networks.KINDS, "inception", tiny_network.KIND)
    one, two = networks.load("inception", section), networks.load("inception", section)
    assert one.sha256 == two.sha256 and one.name == "random_inception" and not one.published
    monkeypatch.setattr(networks.store, "load", lambda name, **_: tiny_network.weights(published=name == "inception"))
    section.features = "none"
    assert networks.load("inception", section)[:3] == ("inception", "ab" * 32, True)
    monkeypatch.setattr(networks.store, "load", lambda name, **_: tiny_network.weights(published=False))
    assert networks.load("inception", section).name == "unpublished_inception"
    broken = tiny_network.weights(True)._replace(state={"features.weight": broken_array()})
    monkeypatch.setattr(networks.store, "load", lambda name, **_: broken)
    with pytest.raises(UserError, match="inception.pth: 1 of 2 arrays are missing"):
        networks.load("inception", section)


def broken_array():
    """Of the right shape, alone."""
    return tiny_network.weights(True).state["features.weight"]


@pytest.mark.parametrize(("name", "features", "shape", "message"), [
    ("fd", "clips_classifier", (8, 8, 1), "looks at clips by clips_classifier, and these are images"),
    ("speed", "none", (8, 8, 1), "metrics=speed: looks at clips, and these are images; set config.data.frames"),
    ("fd", "digits_classifier", (4, 8, 8, 1), "looks at images by digits_classifier, and these are clips of 4 frames"),
    ("swd16", "none", (4, 16, 16, 1), "metrics=swd16: looks at images, and these are clips"),
    ("fd", "clips_classifier", (4, 8, 8, 1), ""), ("speed", "none", (4, 8, 8, 1), ""),
    ("sharpness", "none", (4, 8, 8, 1), ""), ("psnr", "none", (4, 8, 8, 1), ""), ("psnr", "none", (8, 8, 1), ""),
])  # fmt: skip
def test_images_and_clips_are_told_apart(name, features, shape, message):
    section = ConfigDict({"features": features, "samples": 16})
    (protocol,) = protocols.listed_protocols(section, (name,))
    if not message:
        return sizes.check_kind(protocol, shape)
    with pytest.raises(UserError, match=message):
        sizes.check_kind(protocol, shape)
