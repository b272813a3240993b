"""Residual networks by numpy alone, in float64: what SNGAN's and BigGAN's are held against."""

import jax
import numpy as np


def draw(shapes):
    """Values of the given shapes, of unit size, so that every parameter matters; variances are positive."""
    rng = np.random.default_rng(0)
    return jax.tree.map_with_path(
        lambda path, x: np.abs(rng.normal(size=x.shape)) + 0.5 if path[-1].key == "var" else rng.normal(size=x.shape),
        shapes,
    )


def sigma(layer, u, train):
    """The estimate from u, Miyato et al. 2018, algorithm 1; in training u moves. 1 where there is no u."""
    if u is None:
        return 1.0
    matrix = layer["kernel"].reshape(-1, layer["kernel"].shape[-1]).T
    v = matrix.T @ u / np.linalg.norm(matrix.T @ u)
    u = matrix @ v / np.linalg.norm(matrix @ v) if train else u
    return u @ matrix @ v


class Layers:
    """Layers of a net or block by name, each divided by its spectral norm where `vectors` has one for it."""

    def __init__(self, params, vectors=None, running=None, train=True):
        self.params, self.vectors, self.running, self.train = params, vectors or {}, running or {}, train

    def __getitem__(self, name):
        return Layers(self.params[name], self.vectors.get(name), self.running.get(name), self.train)

    def _weights(self, name):
        layer = self.params[name]
        return layer["kernel"] / sigma(layer, self.vectors.get(name, {}).get("u"), self.train), layer.get("bias", 0.0)

    def dense(self, x, name):
        kernel, bias = self._weights(name)
        return x @ kernel + bias

    def conv(self, x, name):
        """Correlation of x (B, H, W, I) at its own size with a 3x3 or 1x1 kernel, by summing over shifts."""
        kernel, bias = self._weights(name)
        reach = kernel.shape[0] // 2
        h, w = x.shape[1:3]
        x = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        return sum(x[:, i : i + h, j : j + w] @ kernel[i, j] for i, j in np.ndindex(*kernel.shape[:2])) + bias

    def norm(self, x, name, condition=None):
        layer, running = self.params[name], self.running[name]
        running = running.get("norm", running)
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if self.train else (running["mean"], running["var"])
        x = (x - mean) / np.sqrt(var + 1e-5)
        if condition is None:
            return x * layer["scale"] + layer["bias"]
        scale, offset = (self[name].dense(condition, part)[:, None, None] for part in ("scale", "offset"))
        return x * (1 + scale) + offset

    def up(self, x, condition=None):
        y = self.conv(double(relu(self.norm(x, "norm0", condition))), "conv0")
        y = self.conv(relu(self.norm(y, "norm1", condition)), "conv1")
        return y + self.conv(double(x), "skip")

    def down(self, x, *, first, halves):
        y = self.conv(relu(self.conv(x if first else relu(x), "conv0")), "conv1")
        x = self.conv(x, "skip") if "skip" in self.params else x
        return halve(y) + halve(x) if halves else y + x

    def attend(self, x):
        """Zhang et al. 2018, equations 1 to 3, pixel by pixel."""
        query, key, value = (self.conv(x, name) for name in ("query", "key", "value"))
        key, value = (largest(y).reshape(len(x), -1, y.shape[-1]) for y in (key, value))
        summed = np.empty((*x.shape[:3], value.shape[-1]))
        for b, i, j in np.ndindex(*x.shape[:3]):
            shares = np.exp(key[b] @ query[b, i, j])
            summed[b, i, j] = shares @ value[b] / shares.sum()
        return x + self.params["gamma"] * self.conv(summed, "out")

    def logits(self, x, classes=None):
        h = relu(x).sum((1, 2))
        logits = self.dense(h, "head")[:, 0]
        return logits if classes is None else logits + (self.dense(classes, "embed") * h).sum(-1)


def relu(x):
    return np.maximum(x, 0)


def double(x):
    return x.repeat(2, 1).repeat(2, 2)


def _quarters(x):
    return x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]


def halve(x):
    return sum(_quarters(x)) / 4


def largest(x):
    return np.maximum.reduce(_quarters(x))
