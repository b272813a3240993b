"""Writes fastcut_gradients.npz: the generator's gradients of the steps that `fastcut_losses_*` record.

    python tests/golden/fastcut_make.py

Run by hand, not by the tests; it needs PyTorch. The networks and losses of Park et al. 2020 are stated here from the
paper, in double precision, and must give the recorded images and losses. PyTorch's instance normalisation on CPUs
misreads a gradient whose channels lie last in memory, as that of features that were sampled by place does: without
`contiguous` below, the gradients are those of the recordings, which finite differences of the loss contradict.
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F

FOLDER = pathlib.Path(__file__).parent
LAYERS = (0, 4, 8, 12, 16)  # places of the maps in the published list of layers
RATE, TEMPERATURE, WEIGHT = 2e-4, 0.07, 10.0
BLUR = torch.tensor(np.outer([1, 2, 1], [1, 2, 1]) / 16.0)


def conv(params, name, x, border=0):
    """A convolution; `border` rows are mirrored on every side."""
    x = F.pad(x, (border,) * 4, mode="reflect") if border else x
    return F.conv2d(x, params[f"{name}.weight"], params[f"{name}.bias"], padding=0 if border else 1)


def down(x):
    """Half the size by a blur."""
    kernel = BLUR[None, None].expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1,) * 4, mode="reflect"), kernel, stride=2, groups=x.shape[1])


def generator(params, x, *, maps=False, contiguous=True):
    """Images of images, or the five maps."""
    x = F.pad(x, (3,) * 4, mode="reflect")
    features = [x]
    x = F.relu(F.instance_norm(F.conv2d(x, params["model.1.weight"], params["model.1.bias"])))
    for name in ("model.4", "model.8"):
        x = conv(params, name, x)
        features.append(x)
        x = down(F.relu(F.instance_norm(x)))
    for number in range(12, 18):
        y = F.relu(F.instance_norm(conv(params, f"model.{number}.conv_block.1", x, 1)))
        x = x + F.instance_norm(conv(params, f"model.{number}.conv_block.5", y, 1))
        if number in LAYERS:
            features.append(x)
            if contiguous and x.requires_grad:
                x.register_hook(lambda gradient: gradient.contiguous())
    if maps:
        return features
    for name in ("model.19", "model.23"):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.relu(F.instance_norm(conv(params, name, x)))
    return torch.tanh(conv(params, "model.27", x, 3))


def discriminator(params, x):
    """Logits of patches."""
    for number in (0, 3, 7, 11):
        x = conv(params, f"model.{number}", x)
        x = F.leaky_relu(F.instance_norm(x) if number else x, 0.2)
        x = down(x) if number < 11 else x
    return conv(params, "model.14", x)


def heads(params, number, x, places):
    """Vectors (places, width) of length 1."""
    x = x.permute(0, 2, 3, 1).flatten(1, 2)[0, places]
    x = F.relu(F.linear(x, params[f"mlp_{number}.0.weight"], params[f"mlp_{number}.0.bias"]))
    x = F.linear(x, params[f"mlp_{number}.2.weight"], params[f"mlp_{number}.2.bias"])
    return x / (x.norm(dim=1, keepdim=True) + 1e-7)


def gradients(case, contiguous=True):
    """Name -> gradient of the generator's loss of a recorded step, after the discriminator's move."""
    arrays = np.load(FOLDER / f"fastcut_losses_{case}.npz")

    def stored(prefix):
        return {key.removeprefix(prefix): torch.tensor(arrays[key], dtype=torch.float64)
                for key in arrays.files if key.startswith(prefix) and not key.endswith(".filt")}  # fmt: skip

    def mirrored(x):
        return x.flip(3) if case == "flipped" else x

    g, f, d = (stored(f"params/{net}/") for net in "GFD")
    for value in g.values():
        value.requires_grad_()
    moves = stored("grad/D/")
    d = {name: value - RATE * moves[name] / (moves[name].abs() + 1e-8) for name, value in d.items()}
    a = torch.tensor(arrays["in/real_A"], dtype=torch.float64)
    fake = generator(g, mirrored(a), contiguous=contiguous)
    assert np.abs(fake.detach().numpy() - arrays["out/fake_B"]).max() < 1e-5
    adversarial, contrast = (discriminator(d, fake) - 1).square().mean(), 0.0
    queries, keys = (generator(g, x, maps=True, contiguous=contiguous) for x in (fake, a))
    for number, layer in enumerate(LAYERS):
        places = torch.tensor(arrays[f"in/step1/patch_ids_A/layer{layer}"]).long()
        query = heads(f, number, mirrored(queries[number]), places)
        similar = query @ heads(f, number, keys[number], places).detach().T
        negatives = similar.masked_fill(torch.eye(len(places), dtype=bool), -10.0)
        logits = torch.cat([similar.diag()[:, None], negatives], 1) / TEMPERATURE
        contrast = contrast + F.cross_entropy(logits, torch.zeros(len(places), dtype=torch.long)) / len(LAYERS)
    for value, name in ((adversarial, "G_GAN"), (WEIGHT * contrast, "NCE")):
        assert abs(value.item() / arrays[f"out/step1/loss_{name}"] - 1) < 1e-5
    (adversarial + WEIGHT * contrast).backward()
    result = {f"grad/G/{name}": value.grad.numpy().astype(np.float32) for name, value in g.items()}
    if not contiguous:
        assert all(np.allclose(result[key], arrays[key], rtol=1e-3, atol=1e-3) for key in result)
    return result


def misread():
    """(autograd's, finite differences') derivative of one value behind an instance normalisation, sampled by place."""
    torch.manual_seed(0)
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(36, 4, dtype=torch.float64)

    def loss(x):
        return (F.instance_norm(x).permute(0, 2, 3, 1).flatten(1, 2)[0] * weights).sum()

    (gradient,) = torch.autograd.grad(loss(x), x)
    step = torch.zeros_like(x)
    step[0, 1, 2, 3] = 1e-6
    return gradient[0, 1, 2, 3].item(), ((loss(x + step) - loss(x - step)) / 2e-6).item()


if __name__ == "__main__":
    print("one derivative by autograd, and by finite differences: {:.3f}, {:.3f}".format(*misread()))
    result = {}
    for case in ("flipped", "unflipped"):
        gradients(case, contiguous=False)
        result |= {f"{case}/{key}": value for key, value in gradients(case).items()}
    np.savez_compressed(FOLDER / "fastcut_gradients.npz", **result)
