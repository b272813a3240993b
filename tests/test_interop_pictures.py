"""Networks that enlarge, translate and fill pictures: files of the published layouts give the recorded outputs."""

import functools
import json
import re

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from PIL import Image

from gan_jax import cli, folders, images, parallel, runs
from gan_jax import config as configs
from gan_jax.errors import UserError
from gan_jax.interop import importer, pictures
from gan_jax.weights import containers
from tests import golden_cyclegan, golden_lama, golden_superres
from tests import interop_files as files
from tests.test_interop_import import _restored

GOLDEN = golden_cyclegan.GOLDEN
ORDERED = files.Global("collections", "OrderedDict")


def _recorded(name: str, prefix: str = "params/") -> tuple[dict, dict]:
    """(a recording, the state dict in it)."""
    arrays = golden_cyclegan.load(name)
    return arrays, {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _state_dict(arrays: dict, name: str = "") -> files.Call:
    """As torch pickles it; `name` keeps storages of several apart."""
    tensors = {key: files._tensor(value, files._reference(value, name + key)) for key, value in arrays.items()}
    return files.Call(ORDERED, (), None, tensors)


def _imported(folder, arrays, *flags, container="params_ema", **others):
    """The run of a file with these tensors in a dict of one entry, and its State."""
    source = folder / "latest.pth"
    value = {container: _state_dict(arrays), **others} if container else _state_dict(arrays)
    source.write_bytes(files.zipped(value, arrays))
    assert cli.main(["import", f"--from={source}", f"--workdir={folder / 'run'}", *flags]) == 0
    run, state, summary = _restored(folder / "run")
    assert summary["imported"]["file"] == "latest.pth"
    return run, state


def _drawn(run, state, x, net="generator"):
    draw = jax.jit(functools.partial(run.nets[net].apply, train=False))
    return draw(state.ema[net], golden_cyclegan.images(x))


def _as_old(name: str, blocks: int) -> str:
    """The name in the first files of ESRGAN, whose layers are numbered."""
    name = re.sub(r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)", r"model.1.sub.\1.RDB\2.conv\3.0", name)
    places = {"conv_first": "model.0", "trunk_conv": f"model.1.sub.{blocks}", "upconv1": "model.3",
              "upconv2": "model.6", "HRconv": "model.8", "conv_last": "model.10"}  # fmt: skip
    module, _, field = name.rpartition(".")
    return f"{places.get(module, module)}.{field}"


def test_esrgan_of_its_three_namings(tmp_path):
    """Its authors' names give the recorded pictures, its first files' numbers the same arrays."""
    recorded, arrays = _recorded("sr_rrdbnet_esrgan")
    run, state = _imported(tmp_path, arrays, container="")
    assert (run.config.generator.name, run.config.generator.scale, run.config.generator.blocks) == ("esrgan", 4, 2)
    golden_cyclegan.close(_drawn(run, state, recorded["in/x"]), golden_cyclegan.images(recorded["out/y"]), 1e-4)
    old = tmp_path / "old.pth"
    old.write_bytes(files.legacy_state_dict({_as_old(name, 2): value for name, value in arrays.items()}))
    weights = pictures.read([containers.read_file(old)])
    jax.tree.map(np.testing.assert_array_equal, weights.ema, {"generator": _flat(state.ema["generator"])})


def _flat(tree) -> dict:
    return traverse_util.flatten_dict(jax.device_get(tree), sep="/")


@pytest.mark.parametrize(
    "recording, prefix, names, fields",
    [
        ("sr_rrdbnet_x1", "params/", golden_superres.RRDBNET, {"scale": 1, "width": 8, "blocks": 1, "growth": 4}),
        ("sr_rrdbnet_x2", "params/", golden_superres.RRDBNET, {"scale": 2, "width": 8, "blocks": 1, "growth": 4}),
        ("sr_rrdbnet_x4", "params/", golden_superres.RRDBNET, {"scale": 4, "width": 8, "blocks": 1, "growth": 4}),
        ("sr_msrresnet_x3", "params/", golden_superres.MSRRESNET, {"scale": 3, "width": 8, "blocks": 2}),
        ("sr_msrresnet_x4", "params/", golden_superres.MSRRESNET, {"scale": 4, "width": 8, "blocks": 2}),
        ("sr_srvggnetcompact", "params/prelu/", golden_superres.COMPACT, {"scale": 4, "width": 8, "layers": 3}),
        ("pix2pix_unet128_instance", "params/", golden_cyclegan.unet_places(7),
         {"width": 4, "depth": 7, "norm": "instance", "dropout_start": 1, "dropout_layers": 2}),
        ("cyclegan_resnet6_batch", "params/", golden_cyclegan.generator_places(6),
         {"width": 8, "blocks": 6, "norm": "batch"}),
    ],
)  # fmt: skip
def test_arrays_are_those_that_give_the_recorded_outputs(recording, prefix, names, fields):
    """Names and layouts agree with the tests of the models, which compare outputs."""
    arrays, state_dict = _recorded(recording, prefix)
    weights = pictures.read([containers.Contents(state_dict, 2**30)])
    assert weights.fields["generator"] == {"name": weights.fields["generator"]["name"], **fields}
    module = golden_superres if isinstance(names, tuple) else golden_cyclegan
    expected = traverse_util.flatten_dict(module.variables(arrays, prefix, names), sep="/")
    jax.tree.map(np.testing.assert_array_equal, weights.params["generator"], expected)


def test_a_unet_of_pix2pix(tmp_path):
    """Its outputs with running statistics are recorded; a run normalises each picture by its own."""
    recorded, arrays = _recorded("pix2pix_unet5downs_batch")
    run, state = _imported(tmp_path, arrays, "--config.generator.statistics=running", container="")
    assert run.config.game == "paired" and run.config.generator.depth == 5
    golden_cyclegan.close(_drawn(run, state, recorded["in/x"]), golden_cyclegan.images(recorded["out/y_eval"]), 1e-4)


def test_a_cyclegan(tmp_path, capsys):
    """Two generators are both directions, one is a run of its own; old files have statistics that nothing reads."""
    recorded, arrays = _recorded("cyclegan_resnet6_instance")
    old = {f"model.{i}.running_{name}": np.ones(8, np.float32) for i in (2, 5) for name in ("mean", "var")}
    paths = [tmp_path / f"latest_net_G_{letter}.pth" for letter in "AB"]
    paths[0].write_bytes(files.zipped_state_dict(arrays | old))
    paths[1].write_bytes(files.zipped_state_dict({name: value / 2 for name, value in arrays.items()}))
    flags = [f"--from={','.join(map(str, paths))}", f"--workdir={tmp_path / 'both'}", "--config.data.parts.a.flip=True"]
    assert cli.main(["import", *flags]) == 0
    assert "generator (cyclegan, width=8, blocks=6, norm=instance); generator" in capsys.readouterr().out
    run, state, summary = _restored(tmp_path / "both")
    assert run.config.game == "translation" and summary["imported"]["file"] == "latest_net_G_A.pth,latest_net_G_B.pth"
    there = _drawn(run, state, recorded["in/x"], "generator_ab")
    golden_cyclegan.close(there, golden_cyclegan.images(recorded["out/y_eval"]), 1e-4)
    a, b = (_flat(state.ema[f"generator_{direction}"]) for direction in ("ab", "ba"))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x / 2, y), a, b)
    alone = pictures.read([containers.read_file(paths[0])])
    assert alone.base["game"] == "paired"
    jax.tree.map(np.testing.assert_array_equal, alone.ema["generator"], a)
    _, critic = _recorded("patchgan_instance", "params/patch70/")
    critics = [containers.Contents(arrays, 2**30) for arrays in (critic, {k: v + 1 for k, v in critic.items()})]
    weights = pictures.read([*(containers.read_file(path) for path in paths), *critics])
    of_b = weights.params["discriminator_b"]["params/conv0/kernel"]  # the published program calls it D_A
    np.testing.assert_array_equal(of_b, critic["model.0.weight"].transpose(2, 3, 1, 0))
    assert weights.fields["discriminator"] == {"name": "cyclegan", "width": 8, "layers": 3, "norm": "instance"}


@pytest.mark.parametrize("recording, norm, up", [("antialias", "instance", True), ("mixed", "batch", False)])
def test_cut(recording, norm, up):
    """Filters of the file are compared with those of the network, and stand in no array."""
    recorded, arrays = _recorded(f"cut_generator_{recording}")
    content = containers.Contents(arrays, 2**30)
    run, weights = _run([content])
    assert run.config.game == "contrastive" and run.config.generator.norm == norm
    assert run.config.generator.antialias_down and run.config.generator.antialias_up == up
    net = run.nets["generator"].clone(axis_name=None)
    collections = traverse_util.unflatten_dict(weights.params["generator"], sep="/")
    x = golden_cyclegan.images(recorded["in/x"])
    train = norm == "batch"  # the recorded ones

    draw = jax.jit(functools.partial(net.apply, train=train, mutable=["batch_stats"] if train else False))
    out = draw(collections, x)
    golden_cyclegan.close(out[0] if train else out, golden_cyclegan.images(recorded["out/y"]), 1e-4)
    bent = arrays | {"model.7.filt": arrays["model.7.filt"] * 1.1}
    with pytest.raises(UserError, match=r"the filter model\.7\.filt is none of CUT's"):
        pictures.read([containers.Contents(bent, 2**30)])


def _run(contents) -> tuple[runs.Run, pictures.Weights]:
    """The run that an import of these makes, and what it reads."""
    weights = pictures.read(contents)
    config = importer._config_with_fields(None, weights)
    return runs.build(configs.resolve(config, (), runs.defaults), weights.spec), weights


def test_a_checkpoint_of_lama(tmp_path):
    """Lightning's: both networks by prefixes, a loss's network, and objects of classes that are not here."""
    recorded, arrays = _recorded("lama_generator_discriminator", "params/G/")
    _, critic = _recorded("lama_generator_discriminator", "params/D/")
    merged = {f"generator.{name}": value for name, value in arrays.items()}
    merged |= {f"discriminator.{name}": value for name, value in critic.items()}
    merged["loss_resnet_pl.impl.conv1.weight"] = np.ones((2, 2), np.float32)
    metadata = files.Call(files.Global("omegaconf.base", "ContainerMetadata"), (), {"object_type": None})
    config = {"_content": {}, "_metadata": metadata}
    callback = files.Global("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    others = {
        "epoch": 39, "pytorch-lightning_version": "1.2.9",
        "callbacks": {callback: {"monitor": "val_ssim", "best_model_score": 0.9}},
        "hyper_parameters": files.Call(files.Global("omegaconf.dictconfig", "DictConfig"), (), config),
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-3}]}],
    }  # fmt: skip
    run, state = _imported(tmp_path, merged, container="state_dict", **others)
    assert (run.config.game, run.config.generator.share, run.config.generator.blocks) == ("inpainting", 0.75, 2)
    mask = recorded["in/mask"]
    x = np.concatenate([recorded["in/image"] * (1 - mask), mask], 1)
    golden_cyclegan.close(_drawn(run, state, x), golden_cyclegan.images(recorded["out/G_eval"]), 1e-4)
    expected = golden_lama.variables(recorded, "params/D/", golden_lama.discriminator(run.nets["discriminator"].layers))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params["discriminator"]), expected["params"])


def _published(name: str) -> tuple[containers.Contents, dict]:
    """A file of the published names and shapes, whose numbers are zeros without memory, but for filters; the record."""
    record = json.loads((GOLDEN / f"layout_{name}.json").read_text(encoding="utf-8"))
    taps = {3: np.float32([1, 2, 1]) / 4, 4: np.float32([1, 3, 3, 1]) / 4}

    def numbers(key, shape):
        row = taps[shape[-1]] if key.endswith("filt") else np.float32(0)
        return np.broadcast_to(np.outer(row, row) if row.ndim else row, shape)

    return containers.Contents({key: numbers(key, shape) for key, shape in record["keys"].items()}, 2**40), record


@pytest.mark.parametrize(
    "names, game",
    [
        (("RealESRGAN_x4plus",), "super_resolution"),
        (("RealESRGAN_x2plus",), "super_resolution"),
        (("RealESRGAN_x4plus_anime_6B", "RealESRGAN_netD"), "super_resolution"),
        (("realesr-animevideov3",), "super_resolution"),
        (("realesr-general-x4v3",), "super_resolution"),
        (("pix2pix_unet_256", "patchgan_70_batch_6in"), "paired"),
        (("resnet_9blocks_batch_dropout",), "paired"),
        (("cyclegan_resnet_9blocks",), "paired"),
        (("cyclegan_resnet_9blocks",) * 2 + ("patchgan_70_instance_3in",) * 2, "translation"),
        (("cut_resnet_9blocks",), "contrastive"),
        (("lama-fourier_generator",), "inpainting"),
        (("big-lama_generator", "big-lama_discriminator"), "inpainting"),
    ],
)
def test_published_layouts_are_mapped_completely(names, game):
    """Each tensor has one place of its shape, and each place its tensor; the parameters are as many."""
    contents, records = zip(*map(_published, names), strict=True)
    run, weights = _run(list(contents))
    assert run.config.game == game
    params, variables, _ = jax.eval_shape(lambda: run.game.init(run.config, run.nets, run.spec, jax.random.key(0)))
    nets = list(weights.params)
    assert len(nets) == len(names)
    for net in nets:
        expected = traverse_util.flatten_dict({"params": params[net], **variables[net]}, sep="/")
        assert {k: v.shape for k, v in expected.items()} == {k: v.shape for k, v in weights.params[net].items()}
    unread = ("weight_v", "num_batches_tracked", "filt")
    counts = [sum(int(np.prod(s)) for k, s in record["keys"].items() if not k.endswith(unread)) for record in records]
    assert sorted(counts) == sorted(sum(v.size for v in arrays.values()) for arrays in weights.params.values())


@pytest.fixture(scope="module")
def compact():
    """The state dict of a recorded SRVGGNetCompact."""
    return _recorded("sr_srvggnetcompact", "params/prelu/")[1]


def test_two_commands_enlarge_a_picture(compact, tmp_path, capsys):
    """Its arrays are exported and come back; another run starts from them, and an experiment that import is given."""
    run, state = _imported(tmp_path, compact, "--config.checkpoints.keep=1")
    photograph = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    images.save(tmp_path / "photo.png", photograph)
    out = tmp_path / "large"
    flags = [f"--workdir={tmp_path / 'run'}", f"--inputs={tmp_path / 'photo.png'}", f"--out={out}"]
    assert cli.main(["sample", *flags]) == 0
    with Image.open(out / "photo.png") as file:
        large = np.asarray(file)
    expected = _drawn(run, state, np.moveaxis(photograph, -1, 0)[None] / np.float32(255))
    np.testing.assert_allclose(large, np.clip(expected[0] * 255, 0, 255), atol=0.51)
    weights = tmp_path / "weights.safetensors"
    assert cli.main(["export", f"--workdir={tmp_path / 'run'}", f"--out={weights}", "--format=safetensors"]) == 0
    assert cli.main(["import", f"--from={weights}", f"--workdir={tmp_path / 'back'}"]) == 0
    jax.tree.map(np.testing.assert_array_equal, _restored(tmp_path / "back")[1].ema, state.ema)
    mesh = parallel.make_mesh(jax.devices()[:1])
    fresh = jax.device_put(runs.fresh_state(run), parallel.replicated(mesh))
    moved, line = folders.transfer(run, fresh, str(tmp_path / "run"), mesh)
    assert line.startswith("28 of 28 arrays")
    jax.tree.map(np.testing.assert_array_equal, moved.params, state.params)
    with pytest.raises(UserError, match="no such folder|no such path|nowhere"):
        importer.import_weights(tmp_path / "latest.pth", tmp_path / "x", "div2k_esrgan:pixel",
                                [("data.name", "folder:nowhere")])  # fmt: skip
    smoke = [("generator.scale", "4"), ("super_resolution.crop", "16")]
    importer.import_weights(tmp_path / "latest.pth", tmp_path / "tuned", "div2k_esrgan:pixel_smoke", smoke)
    config, spec, summary = folders.read_folder(tmp_path / "tuned")
    assert config.generator.name == "real_esrgan" and config.data.name == "synthetic:16" and summary["fingerprint"]
    assert spec["image"].shape == (16, 16, 3)


def test_containers(compact, tmp_path):
    """The averaged version of two is taken; `module.` is what several GPUs leave; safetensors hold the same."""
    other = {name: value + 1 for name, value in compact.items()}
    parallel_names = {f"module.{name}": value for name, value in compact.items()}
    plain = {f"plain/{name}": value for name, value in other.items()}
    averaged = {f"ema/{name}": value for name, value in compact.items()}
    both = {"params": _state_dict(other, "plain/"), "params_ema": _state_dict(compact, "ema/")}
    (tmp_path / "both.pth").write_bytes(files.zipped(both, plain | averaged))
    (tmp_path / "parallel.pth").write_bytes(files.legacy_state_dict(parallel_names))
    safetensors.numpy.save_file(compact, tmp_path / "x.safetensors")
    expected = pictures.read([containers.Contents(compact, 2**30)])
    for name, omission in (("both.pth", "; left out: 'params'"), ("parallel.pth", ""), ("x.safetensors", "")):
        weights = pictures.read([containers.read_file(tmp_path / name)])
        jax.tree.map(np.testing.assert_array_equal, weights.ema, expected.ema)
        assert weights.description == f"generator (real_esrgan, scale=4, width=8, layers=3){omission}"


def _told(folder, arrays, capsys, *flags, **others) -> str:
    """The one line that refuses a file of these tensors; no folder is left."""
    source = folder / "x.pth"
    value = {"params": _state_dict(arrays), **others}
    source.write_bytes(files.zipped(value, {name: array for name, array in arrays.items()}))
    return _refused(source, capsys, *flags)


def _refused(source, capsys, *flags) -> str:
    workdir = source.parent / "refused"
    assert cli.main(["import", f"--from={source}", f"--workdir={workdir}", *flags]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --") and message.count("\n") == 1 and not workdir.exists()
    return message


def test_tensors_that_do_not_fit(compact, tmp_path, capsys):
    def told(arrays, *flags, **others):
        return _told(tmp_path, arrays, capsys, *flags, **others)

    missing = {name: value for name, value in compact.items() if name != "body.3.weight"}
    assert "params/conv0_prelu/slope is missing" in told(missing)
    assert "params/conv0/extra has no place" in told(compact | {"body.2.extra": np.zeros(3, np.float32)})
    stray = told(compact | {"head.weight": np.zeros(3, np.float32)})
    assert "(scale=4, width=8, layers=3), and these tensors belong to no layer of it: head.weight" in stray
    wrong = told(compact | {"body.4.bias": np.zeros(3, np.float32)})
    assert "params/conv1/bias has the shape (3,), expected (8,)" in wrong
    assert "holds NaN" in told(compact | {"body.4.bias": np.full(8, np.nan, np.float32)})
    far = told(compact | {"body.99999999.weight": np.zeros((3, 3, 3, 3), np.float32)})
    assert "a layer of the number 99999999 among" in far
    grey = told(compact | {"body.0.weight": compact["body.0.weight"][:, :1]})
    assert "channels of 1, which is not supported" in grey
    _, rrdb = _recorded("sr_rrdbnet_x2")
    assert "conv_last.weight is missing" in told({k: v for k, v in rrdb.items() if k != "conv_last.weight"})
    odd = rrdb | {"conv_first.weight": rrdb["conv_first.weight"][:, :5]}
    assert "a network that makes 3 channels of 5, which is not supported" in told(odd)
    deep = {f"model.model.1{'.model.3' * i}.model.1.weight": np.ones((1, 1, 4, 4), np.float32) for i in range(20)}
    ends = {f"model.model.{i}.weight": np.ones((1, 1, 4, 4), np.float32) for i in (0, 3)}
    bias = {"model.model.1.model.1.bias": np.ones(1, np.float32)}
    assert "pictures of 2097152 pixels or channels are larger than any" in told(deep | ends | bias)
    gap = {name.replace("body.0.", "body.1."): value for name, value in rrdb.items()}
    assert "layers [1] where 0, 1, 2 and so on were expected" in told(gap)


def test_slopes_that_no_tensor_tells(tmp_path, capsys):
    """A compact network with ReLUs has no tensor for them: without a flag it is refused."""
    _, arrays = _recorded("sr_srvggnetcompact", "params/relu/")
    assert "slope is missing" in _told(tmp_path, arrays, capsys)
    run, _ = _imported(tmp_path, arrays, "--config.generator.activation=relu")
    assert run.nets["generator"].activation == "relu"


def test_networks_that_make_no_run(compact, tmp_path, capsys):
    _, unet_critic = _recorded("sr_unet_discriminator_sn")
    _, resnet = _recorded("cyclegan_resnet6_instance")
    _, other = _recorded("cyclegan_resnet6_batch")
    unknown = {"fc.w": np.ones(3, np.float32)}
    paths, nets = {}, {"g": compact, "d": unet_critic, "a": resnet, "b": other, "no": unknown}
    for name, arrays in nets.items():
        paths[name] = tmp_path / f"{name}.pth"
        paths[name].write_bytes(files.zipped_state_dict(arrays))

    def told(names):
        source = ",".join(str(paths[name]) for name in names)
        workdir = tmp_path / "refused"
        assert cli.main(["import", f"--from={source}", f"--workdir={workdir}"]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: --from={source}: ") and message.count("\n") == 1 and not workdir.exists()
        return message

    assert "a discriminator of real_esrgan alone; expected a generator too" in told(["d"])
    assert "these are of different games" in told(["g", "a"])
    assert "expected one generator, or a CycleGAN's two" in told(["g", "g"])
    assert "the two generators differ" in told(["a", "b"])
    assert "one of the files holds no network that is known beside the other: 'fc.w'" in told(["g", "no"])
    assert "of no network that is known: fc.w" in told(["no"])
    assert "pictures of pictures alone; give one file" in told(["no", "no"])
    assert cli.main(["import", f"--from={paths['g']},{tmp_path / 'absent.pth'}", f"--workdir={tmp_path / 'x'}"]) == 2
    assert "absent.pth: no such file" in capsys.readouterr().err


def test_broken_and_malicious_files(compact, tmp_path, capsys):
    """Nothing of a file runs, wherever in it the call stands."""
    source, mark = tmp_path / "x.pth", tmp_path / "ran"
    data = files.zipped({"params_ema": _state_dict(compact)}, compact)
    source.write_bytes(data[: len(data) // 2])
    assert "the file is damaged" in _refused(source, capsys)
    for module, name in (("os", "system"), ("posix", "system"), ("builtins", "eval"), ("torch.hub", "load")):
        call = files.Call(files.Global(module, name), (f"touch {mark}",))
        for value in (
            {"params_ema": _state_dict(compact), "note": call},
            {"params": {**_state_dict(compact).items, "x": call}},
            {"state_dict": _state_dict(compact), "callbacks": {files.Global(module, name): {}}},
        ):
            source.write_bytes(files.zipped(value, compact))
            assert f"refused: it asks for {module}.{name}" in _refused(source, capsys)
    inner = {"params": {"params": {"params": {"params": {"params": _state_dict(compact)}}}}}
    source.write_bytes(files.zipped(inner, compact))
    assert "no network that is known" in _refused(source, capsys)
    assert not mark.exists()
