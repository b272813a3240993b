"""Official weights become runs: their generators make the recorded images, in files of every kind that is known."""

import json
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy

from gan_jax import cli, evaluate, folders, parallel, runs
from gan_jax.errors import UserError
from gan_jax.features import digits_classifier
from gan_jax.interop import architectures, importer, networks
from gan_jax.interop.networks import Network
from gan_jax.weights import containers
from tests import golden_r3gan, golden_stylegan2, golden_stylegan3, settings
from tests import interop_files as files

GOLDEN = golden_stylegan2.FOLDER
BUFFERS = ("resample_filter", "noise_const", "w_avg", "up_filter", "down_filter", "magnitude_ema", "freqs", "phases",
           "transform", "Kernel")  # fmt: skip
TOLERANCE = 1e-4


def _under(arrays: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _restored(folder):
    config, spec, summary = folders.read_folder(folder)
    run = runs.build(config, spec)
    return run, folders.restore(run, folder, parallel.make_mesh(jax.devices()[:1])).state, summary


def _images(run, state, z, labels=None):
    return jax.jit(lambda ema, z: run.game.decode(run.nets, ema, z, labels))(state.ema, z)


def _close(ours, recorded, tolerance=TOLERANCE):
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= tolerance * np.abs(recorded).max()


def _stylegan2_pickle(name: str, **others) -> tuple[bytes, dict, dict]:
    arrays, meta = golden_stylegan2.load(name)
    nets = {
        letter: files.network(names, _under(arrays, f"params/{letter}/"), meta[f"{letter}_kwargs"], BUFFERS)
        for letter, names in (("G", "Generator"), ("D", "Discriminator"))
    }
    value = {"G": nets["G"], "D": nets["D"], "G_ema": nets["G"], **others}
    return files.pickled(value), arrays, meta


@pytest.fixture(scope="module")
def stylegan2(tmp_path_factory):
    """The folder of recorded networks, with its arrays: StyleGAN2-ADA's pickle with labels."""
    folder = tmp_path_factory.mktemp("stylegan2")
    data, arrays, meta = _stylegan2_pickle("sg2_net_b_skip_skip_cond", augment_pipe=None, training_set_kwargs={"a": 1})
    (folder / "network.pkl").write_bytes(data)
    argv = ["import", f"--from={folder / 'network.pkl'}", f"--workdir={folder / 'run'}"]
    assert cli.main(argv) == 0
    return folder / "run", arrays, meta


def test_stylegan2(stylegan2):
    folder, arrays, meta = stylegan2
    run, state, summary = _restored(folder)
    assert summary["imported"]["file"] == "network.pkl" and run.config.conditional
    labels = arrays["in/c"].argmax(1).astype(np.int32)
    _close(_images(run, state, arrays["in/z"], labels), golden_stylegan2.images(arrays["out/img_const"]))
    generator, critic = golden_stylegan2.generator(meta["G_kwargs"]), golden_stylegan2.discriminator(meta["D_kwargs"])
    assert run.nets["discriminator"] == critic.clone(resolution=(32, 32))
    assert run.nets["generator"] == generator.clone(resolution=(32, 32))
    order = golden_stylegan2.regroup(meta["batch"], critic.mbstd_group)
    real = golden_stylegan2.images(arrays["in/real_img"])[order]
    variables = {"params": state.params["discriminator"], **state.variables["discriminator"]}
    logits = jax.jit(run.nets["discriminator"].apply)(variables, real, arrays["in/real_c"][order])
    _close(logits, arrays["out/logits_real"].reshape(-1)[order])
    assert int(state.step) == int(state.images) == 0
    assert jax.tree.structure(state) == jax.tree.structure(jax.eval_shape(lambda: runs.init_state(run)))


def test_an_imported_run_is_sampled_and_evaluated(stylegan2, tmp_path, capsys):
    folder, _, _ = stylegan2
    assert cli.main(["sample", f"--workdir={folder}", f"--out={tmp_path}", "--seeds=0-1", "--truncation=0.7"]) == 0
    assert len(list(tmp_path.glob("seed*.png"))) == 2
    assert cli.main(["evaluate", f"--workdir={folder}"]) == 0
    assert "measuring nothing" in capsys.readouterr().out


def test_a_folder_in_use_is_left_alone(stylegan2, capsys):
    folder, _, _ = stylegan2
    before = (folder / "config.json").read_bytes()
    source = GOLDEN / "interop_r3gan.pth"
    assert cli.main(["import", f"--from={source}", f"--workdir={folder}"]) == 2
    assert "holds a run already" in capsys.readouterr().err and (folder / "config.json").read_bytes() == before


def _read(source: str) -> tuple[str, Network, dict]:
    """The one network of a file: role, tensors, fields of the generator."""
    by_role, _ = networks.find(containers.read_file(GOLDEN / source).value)
    ((role, network),) = by_role.items()
    kind = architectures.family(network.tensors)
    return role, network, architectures.fields(network, kind, discriminator=False)


def test_stylegan3_pickled_by_torch(tmp_path):
    """A pickle of a conditional StyleGAN3-R by torch 2.13."""
    arrays, meta = golden_stylegan3.load("sg3_net_r_cond")
    message = importer.import_weights(GOLDEN / "interop_stylegan3.pkl", tmp_path / "run")
    assert "G_ema (stylegan3, 32x32x3, 5 classes; left out: 'training_set_kwargs')" in message
    run, state, _ = _restored(tmp_path / "run")
    expected = golden_stylegan3.generator(meta["G_kwargs"], resolution=(32, 32), axis_name=parallel.AXIS)
    assert run.nets["generator"] == expected
    labels = arrays["in/c"].argmax(1).astype(np.int32)
    _close(_images(run, state, arrays["in/z"], labels), golden_stylegan3.nhwc(arrays["out/img"]))
    assert run.config.discriminator.channel_max == 24


def test_tensors_saved_by_torch():
    """Its zip format, with StyleGAN3-T's tensors, and its legacy one, with R3GAN's, by torch 2.13."""
    arrays, meta = golden_stylegan3.load("sg3_net_t_uncond")
    role, network, fields = _read("interop_stylegan3.pth")
    expected = golden_stylegan3.generator(meta["G_kwargs"], magnitude_ema_beta=0.999)  # which is in no tensor
    assert role == "G_ema" and type(expected)(**fields) == expected
    recorded = golden_r3gan.Recorded("uncond")
    role, other, fields = _read("interop_r3gan.pth")
    assert role == "G_ema" and type(recorded.generator)(**fields) == recorded.generator.clone(embed_size=64)
    for actual, expected in ((network, _under(arrays, "params/")), (other, _under(recorded.npz, "params/G/"))):
        assert actual.tensors.keys() == expected.keys()
        jax.tree.map(np.testing.assert_array_equal, actual.tensors, expected)


def test_r3gan(tmp_path):
    """Both players, as a wrapper of NVIDIA's kind around plain networks of torch."""
    recorded = golden_r3gan.Recorded("uncond")
    nets = {}
    for letter, name in (("G", "Generator"), ("D", "Discriminator")):
        arrays, kwargs = _under(recorded.npz, f"params/{letter}/"), recorded.meta[f"{letter}_kwargs"]
        nets[letter] = files.network(name, arrays, kwargs, BUFFERS, plain=True)
    (tmp_path / "both.pkl").write_bytes(files.pickled({"G": nets["G"], "D": nets["D"], "G_ema": nets["G"]}))
    importer.import_weights(tmp_path / "both.pkl", tmp_path / "run")
    run, state, _ = _restored(tmp_path / "run")
    images = _images(run, state, recorded.npz["in/z"])
    _close(images, recorded.images("out/img"))
    logits = jax.jit(run.nets["discriminator"].apply)({"params": state.params["discriminator"]}, images)
    _close(logits, recorded.npz["out/logits_fake"].reshape(-1))


@pytest.fixture(scope="module")
def small():
    """A tiny StyleGAN2 generator in official names, and what it was made with."""
    arrays, meta = golden_stylegan2.load("sg2_loss_uncond")
    return _under(arrays, "params/G/"), meta["G_kwargs"]


def _told(value, path, capsys, *flags) -> str:
    path.write_bytes(files.pickled(value))
    assert cli.main(["import", f"--from={path}", f"--workdir={path.with_suffix('')}", *flags]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --from={path}: ") and len(message.splitlines()) == 1
    assert not path.with_suffix("").exists()
    return message


def test_every_tensor_must_fit(small, tmp_path, capsys):
    arrays, kwargs = small

    def told(arrays):
        value = {"G_ema": files.network("Generator", arrays, kwargs, BUFFERS)}
        return _told(value, tmp_path / "x.pkl", capsys)

    name = "synthesis.b8.conv1.affine.bias"
    assert "synthesis_network/b8/conv1/affine/bias is missing" in told({k: v for k, v in arrays.items() if k != name})
    assert "synthesis_network/b8/extra has no place" in told(arrays | {"synthesis.b8.extra": np.zeros(3, np.float32)})
    wrong = told(arrays | {name: np.zeros(3, np.float32)})
    assert "has the shape (3,), expected (16,)" in wrong
    assert "holds NaN" in told(arrays | {name: np.full(16, np.nan, np.float32)})
    taps = np.float32([1, 3, 3, 1]) / 8
    filters = {f"synthesis.b{n}.resample_filter": np.outer(taps, taps) for n in (4, 8)}
    filters["synthesis.b8.resample_filter"] = filters["synthesis.b8.resample_filter"] ** 2
    assert "resampling filters" in told(arrays | filters)
    many = told({k: v for k, v in arrays.items() if "affine" not in k})
    assert "and 11 more" in many, many


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"synthesis_kwargs": {"use_noise": False}}, "use_noise=False"),
        ({"synthesis_kwargs": {"resolution_hash": 3}}, "resolution_hash=3, which is not supported"),
        ({"mapping_kwargs": {"activation": "relu"}}, "activation='relu'"),
        ({"mapping_kwargs": {"num_layers": 5}}, "num_layers=5"),
        ({"synthesis_kwargs": {"channel_max": 4}}, "do not follow a base and a maximum"),
    ],
)
def test_other_architectures_are_told(changed, message, small, tmp_path, capsys):
    arrays, kwargs = small
    value = {"G_ema": files.network("Generator", arrays, kwargs | changed, BUFFERS)}
    assert message in _told(value, tmp_path / "x.pkl", capsys)


def test_nothing_known(small, tmp_path, capsys):
    arrays, kwargs = small
    path = tmp_path / "x.pkl"
    assert "no generator or discriminator" in _told({"optimizer": {"lr": 1.0}}, path, capsys)
    assert "holds a list" in _told([1, 2], path, capsys)
    assert "no network that is known: fc.weight" in _told(
        {"fc.weight": files.tensor(np.zeros((2, 2), "f4"))}, path, capsys
    )
    assert "not supported" in _told({"G_ema": files.network("G", {**arrays}, {**kwargs, "block": 1})}, path, capsys)


def test_options_come_from_overrides_and_experiments(small, tmp_path):
    """Tensors alone do not tell a clamp; an experiment tells data, losses and options, the file the architecture."""
    arrays, _ = small
    source = tmp_path / "g.safetensors"
    tensors = {f"G_ema.{name}": np.array(value, order="C") for name, value in arrays.items()}
    safetensors.numpy.save_file(tensors, source)
    digits = f"{settings.EXPERIMENTS / 'digits_stylegan2.py'}:smoke"
    overrides = [("data.channels", "3"), ("loss.r1_gamma", "5"), ("generator.conv_clamp", "256")]
    importer.import_weights(source, tmp_path / "digits", digits, overrides)
    config, _, summary = folders.read_folder(tmp_path / "digits")
    assert (config.data.name, config.data.resolution, config.data.channels) == ("digits", 16, 3)
    assert config.loss.r1_gamma == 5 and config.generator.conv_clamp == 256 and config.generator.latent_size == 16
    assert config.discriminator.channel_max == 8 and len(summary["fingerprint"]) == 64
    noise = _restored(tmp_path / "digits")[1].ema["generator"]["noise"]["synthesis_network"]
    np.testing.assert_array_equal(noise["b16"]["conv1"]["noise_const"], arrays["synthesis.b16.conv1.noise_const"])
    with pytest.raises(UserError, match="the generator's tensors do not fit .* expected"):
        importer.import_weights(source, tmp_path / "x", overrides=[("generator.w_size", "8")])


def test_an_import_with_an_experiment_is_evaluated(tmp_path, capsys, monkeypatch):
    """A StyleGAN2 of 32x32 grey images, the first channel of the recorded one's, beside the digits.

    The judge is fitted briefly, in a cache of its own.
    """
    monkeypatch.setenv("GAN_JAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(digits_classifier, "STEPS", 20)
    arrays, meta = golden_stylegan2.load("sg2_net_a_skip_resnet_uncond")
    nets = {}
    for letter in ("G", "D"):
        tensors = _under(arrays, f"params/{letter}/")
        for name in [name for name in tensors if ".torgb." in name and "affine" not in name]:
            tensors[name] = tensors[name][:1]
        for name in [name for name in tensors if name.endswith("fromrgb.weight")]:
            tensors[name] = tensors[name][:, :1]
        kwargs = {**meta[f"{letter}_kwargs"], "img_channels": 1}
        nets[letter] = files.network(letter, tensors, kwargs, BUFFERS)
    (tmp_path / "x.pkl").write_bytes(files.pickled({"G": nets["G"], "D": nets["D"], "G_ema": nets["G"]}))
    experiment = f"--config={settings.EXPERIMENTS / 'digits_stylegan2.py'}"
    flags = [f"--workdir={tmp_path / 'run'}", experiment, "--config.evaluation.samples=50"]
    assert cli.main(["import", f"--from={tmp_path / 'x.pkl'}", *flags]) == 0
    assert cli.main(["evaluate", f"--workdir={tmp_path / 'run'}", "--metrics=kd"]) == 0
    (row,) = evaluate.read(tmp_path / "run")
    assert (row["metric"], row["data"], row["reals"]) == ("kd_digits_classifier", "digits", 1437)
    assert (row["step"], row["samples"]) == (0, 50) and np.isfinite(row["value"]) and row["value"] > 0
    assert row["data_fingerprint"] == folders.read_folder(tmp_path / "run")[2]["fingerprint"]
    assert "kd_digits_classifier" in capsys.readouterr().out


def test_an_experiment_that_is_not_there(tmp_path, capsys):
    flags = [f"--from={GOLDEN / 'interop_r3gan.pth'}", f"--workdir={tmp_path / 'run'}"]
    assert cli.main(["import", *flags, f"--config={tmp_path / 'absent.py'}"]) == 2
    assert capsys.readouterr().err.startswith("error: --config=")
    larger = [
        f"--config.{net}.{key}"
        for net in ("generator", "discriminator")
        for key in ("widths=(128,64,32,16)", "blocks=(1,1,1,1)")
    ]  # the file's images have 32 pixels
    config = [f"--config={settings.EXPERIMENTS / 'digits_r3gan.py'}", *larger, "--config.data.name=folder:nowhere"]
    assert cli.main(["import", *flags, *config]) == 2
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "run").exists()


def _studiogan(arrays: dict) -> bytes:
    """A checkpoint in StudioGAN's form, with Adam's moments of one tensor."""
    moments = {name: np.ones(3, np.float32) for name in ("exp_avg", "exp_avg_sq")}

    def tensors(arrays):
        return {name: files._tensor(array, files._reference(array, name)) for name, array in arrays.items()}

    state_dict = files.Call(files.Global("collections", "OrderedDict"), (), None, tensors(arrays))
    groups = [{"lr": 0.002, "betas": (0.0, 0.99), "params": [0]}]
    optimizer = {"state": {0: {"step": 7, **tensors(moments)}}, "param_groups": groups}
    return files.zipped({"state_dict": state_dict, "optimizer": optimizer}, arrays | moments)


def test_studiogan(stylegan2, tmp_path, capsys):
    """The recorded StyleGAN2, whose pickle makes the recorded images, becomes the same run out of StudioGAN's file."""
    folder, arrays, _ = stylegan2
    path = tmp_path / "model=G-best-weights-step=99.pth"
    path.write_bytes(_studiogan(_under(arrays, "params/G/")))
    assert cli.main(["import", f"--from={path}", f"--workdir={tmp_path / 'run'}"]) == 0
    assert "G_ema (stylegan2, 32x32x3, 10 classes; left out: 'optimizer')" in capsys.readouterr().out
    (run, state, _), (expected_run, expected, _) = _restored(tmp_path / "run"), _restored(folder)
    assert run.nets["generator"] == expected_run.nets["generator"]
    jax.tree.map(np.testing.assert_array_equal, state.ema, expected.ema)


@pytest.mark.parametrize(
    "names",
    [
        ("linear0.weight", "blocks.0.0.deconv0.weight", "blocks.0.0.bn0.weight", "conv4.weight"),
        ("linear0.weight_orig", "blocks.0.0.bn1.embed0.weight_orig", "blocks.0.0.conv2d1.weight_orig"),
        ("blocks.0.0.conv0.weight", "conv.weight", "linear1.weight"),
    ],
)
def test_other_networks_of_studiogan(names, tmp_path, capsys):
    path = tmp_path / "model=G_ema-best-weights-step=99.pth"
    path.write_bytes(_studiogan({name: np.zeros((2, 2), np.float32) for name in names}))
    assert cli.main(["import", f"--from={path}", f"--workdir={tmp_path / 'run'}"]) == 2
    message = "a network of StudioGAN's whose layers no model here has; of StudioGAN only StyleGAN2 is imported"
    assert capsys.readouterr().err == f"error: --from={path}: {message}\n" and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "source", ["https://example.org/network.pkl", "http://example.org/a b.pt", "gs://bucket/x.pth"]
)
def test_an_address_is_no_file(source, tmp_path, capsys):
    assert cli.main(["import", f"--from={source}", f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    reason = "download the file first, and give its path" if "http" in source else "copy from and to a folder"
    assert error.startswith(f"error: --from={source}: ") and error.endswith(f"{reason}\n") and error.count("\n") == 1
    with pytest.raises(UserError, match="download it first, and give the path of the file"):
        importer.import_weights(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_half_precision(small, tmp_path):
    arrays, _ = small
    source = tmp_path / "g.safetensors"
    safetensors.numpy.save_file({name: np.array(v, np.float16, order="C") for name, v in arrays.items()}, source)
    importer.import_weights(source, tmp_path / "run")
    run, state, summary = _restored(tmp_path / "run")
    assert summary["fingerprint"] == "" and run.config.discriminator.channel_max == 16
    assert run.spec["image"].shape == (16, 16, 3)
    const = state.ema["generator"]["params"]["synthesis_network"]["b4"]["const"]
    np.testing.assert_array_equal(const, arrays["synthesis.b4.const"].astype(np.float16).transpose(1, 2, 0))


def test_names_of_state_dicts(small):
    """Prefixes and nested dicts say which network a tensor belongs to."""
    arrays = {name: value for name, value in list(small[0].items())[:3]}
    for value in (
        {f"generator.{name}": v for name, v in arrays.items()},
        {"state_dict": {"G": {f"module.{name}": v for name, v in arrays.items()}}},
        {"g": arrays, "step": 3},
    ):
        by_role, _ = networks.find(value)
        assert list(by_role) == ["G"] and sorted(by_role["G"].tensors) == sorted(arrays)
    with pytest.raises(UserError, match="belong to no network"):
        networks.find({"G": arrays, "optimizer": {"m": np.zeros(2)}})
    with pytest.raises(UserError, match="twice"):
        networks.find({"G": arrays, "generator": arrays})


@pytest.mark.parametrize("config", ["stylegan3-t/res256", "stylegan3-r/res256", "stylegan3-t/res1024"])
def test_full_size_stylegan3_is_read_from_shapes(config):
    """Names, shapes and defaults tell the fields of the published networks."""
    with np.load(GOLDEN / "counts.npz") as npz:
        table = json.loads(str(npz[f"table/{config}/cbase32768/G"]))
    zeros = {e["name"]: np.broadcast_to(np.float32(0), e["shape"]) for e in (*table["parameters"], *table["buffers"])
             if "filter" not in e["name"] and e["name"] != "synthesis.input.transform"}  # fmt: skip
    fields = architectures.fields(Network(zeros), "stylegan3", discriminator=False)
    wide = "-r/" in config
    read = [fields[name] for name in ("channel_base", "channel_max", "kernel_size", "radial_filters")]
    assert read == ([65536, 1024, 1, True] if wide else [32768, 512, 3, False])
    assert fields["margin"] == 10 and fields["num_layers"] == 14


@pytest.mark.parametrize("config", ["paper256/res256/c0", "cifar/res32/c10", "paper1024/res1024/c0"])
def test_full_size_stylegan2_is_read_from_shapes(config):
    with np.load(GOLDEN / "counts.npz") as npz:
        for letter, model in (("G", golden_stylegan2.generator), ("D", golden_stylegan2.discriminator)):
            table = json.loads(str(npz[f"table/stylegan2-ada/{config}/{letter}"]))
            zeros = {e["name"]: np.broadcast_to(np.float32(0), e["shape"])
                     for e in (*table["parameters"], *table["buffers"]) if "filter" not in e["name"]}  # fmt: skip
            fields = architectures.fields(Network(zeros, table["kwargs"]), "stylegan2", discriminator=letter == "D")
            expected = model({"img_channels": 3, **table["kwargs"]})
            assert type(expected)(**fields) == expected


def test_bfloat16(tmp_path):
    """bfloat16 in torch's files, which numpy does not know by itself."""
    numbers = np.float32([1.5, -2.0])
    half = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    reference = files.Reference(("storage", files.Global("torch", "BFloat16Storage"), "0", "cpu", 2))
    data = files.zipped({"t": files._tensor(numbers, reference)}, {})
    with open(tmp_path / "x.pth", "wb") as file:
        file.write(data)
    with zipfile.ZipFile(tmp_path / "x.pth", "a") as archive:
        archive.writestr("archive/data/0", half.tobytes())
    value = containers.array(containers.read_file(tmp_path / "x.pth").value["t"])
    np.testing.assert_array_equal(value.astype(np.float32), numbers)
