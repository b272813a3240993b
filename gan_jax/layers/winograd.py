"""Convolutions of 3x3 at stride 1 and of 4x4 at stride 2 with fewer products, for XLA:CPU.

Winograd's minimal filtering (Lavin and Gray 2016, arXiv 1509.09308): two outputs next to each other, of r taps each,
share n = r + 1 products instead of 2 r,

    y = A [(G w) * (B x)],    x of n inputs, w of r taps, y of 2 outputs

and in two dimensions n^2 instead of 4 r^2. At stride 2 the taps of each parity see inputs of that parity alone, so that
4x4 is four filters of 2x2 whose channels are laid side by side. The products of all tiles are n^2 matrix products.
The maps and their transposes in x and in w are as in `layers.conv`, whose shapes they take. Rounding is that of other
orders of summation: the entries of A, B and G are 0, 1, -1 and 1/2. What lies between the products is read and written
once more, so that few channels or few pixels gain nothing: `pays` knows, as `benchmarks/convolutions.py` measured it.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SCOPE = "fewer_products"  # its name in a profile
TILE = 2  # outputs along an axis
CHUNK_BYTES = 320 << 20  # the most that one side of the products takes; more images go in parts, which costs copies
LEAST_PRODUCTS = 1 << 25  # of the plain convolution
Grid = list[list[jax.Array]]  # n x n arrays
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


class _Filtering(NamedTuple):
    """The matrices of an algorithm."""

    inputs: np.ndarray  # B (n, n)
    taps: np.ndarray  # G (n, r)
    outputs: np.ndarray  # A (2, n)


_TWO_TAPS = _Filtering(
    np.array([[1, -1, 0], [0, 1, 0], [0, 1, -1]]), np.array([[1, 0], [1, 1], [0, 1]]), np.array([[1, 1, 0], [0, 1, -1]])
)
_THREE_TAPS = _Filtering(
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
)
_FILTERINGS = {((3, 3), (1, 1)): _THREE_TAPS, ((4, 4), (2, 2)): _TWO_TAPS}


_is_off = ContextVar("is_off", default=False)


@contextlib.contextmanager
def without() -> Iterator[None]:
    """What is traced within has XLA's own convolutions: large single pictures gain nothing, and compile for minutes."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


def pays(kind: str, x: tuple[int, ...], g: tuple[int, ...], kernel: Pair, stride: Pair) -> bool:
    """Whether a map is faster so than by XLA:CPU's own convolution.

    Args:
      kind: conv, tconv or wgrad.
      x, g: shapes (B, H, W, I) of the convolution's input and (B, h, w, O) of its output.
      kernel, stride: of the convolution.
    """
    if _is_off.get():
        return False
    if not all(isinstance(side, int) for side in (*x, *g)):  # a program that is exported for any batch
        return False
    if (kernel, stride) not in _FILTERINGS or math.prod(g) * math.prod(kernel) * x[3] < LEAST_PRODUCTS:
        return False
    narrow = min(x[3], g[3])
    if kind == "wgrad":
        return narrow >= 16 or stride == (2, 2)
    if stride == (2, 2):
        return narrow >= 16
    return narrow >= 32 and min(g[1:3]) >= (8 if kind == "conv" else 32)


@jax.named_scope(SCOPE)
def conv(x: jax.Array, w: jax.Array, stride: Pair, padding: Padding, size: Pair) -> jax.Array:
    """x (B, H, W, I) with w (kh, kw, I, O) -> (B, *size, O)."""
    parts = _parts(x.shape[0], size, x.shape[3] * math.prod(stride), w.shape[3])
    return _join_batch(lax.map(lambda x: _conv(x, w, stride, padding, size), _split_batch(x, parts)))


@jax.named_scope(SCOPE)
def tconv(g: jax.Array, w: jax.Array, stride: Pair, padding: Padding, size: Pair) -> jax.Array:
    """The transpose in x: g (B, h, w, O) -> (B, *size, I)."""
    if stride == (1, 1):  # a convolution with the kernel turned round
        ends = tuple((k - 1 - low, n - m + low) for k, (low, _), n, m in
                     zip(w.shape[:2], padding, size, g.shape[1:3], strict=True))
        return conv(g, jnp.swapaxes(w[::-1, ::-1], 2, 3), stride, ends, size)
    parts = _parts(g.shape[0], g.shape[1:3], w.shape[2] * math.prod(stride), g.shape[3])
    return _join_batch(lax.map(lambda g: _tconv(g, w, stride, padding, size), _split_batch(g, parts)))


@jax.named_scope(SCOPE)
def wgrad(x: jax.Array, g: jax.Array, stride: Pair, padding: Padding, kernel: Pair) -> jax.Array:
    """The transpose in w: x (B, H, W, I), g (B, h, w, O) -> (kh, kw, I, O)."""
    parts = _parts(g.shape[0], g.shape[1:3], x.shape[3] * math.prod(stride), g.shape[3])
    operands = _split_batch(x, parts), _split_batch(g, parts)
    return jnp.sum(lax.map(lambda pair: _wgrad(*pair, stride, padding, kernel), operands), 0)


def _parts(batch: int, size: Pair, inputs: int, outputs: int) -> int:
    """Into how many parts a batch is dealt: the fewest that `CHUNK_BYTES` holds, and that divide it."""
    size_bytes = batch * math.prod(_tiles(size)) * 4 * 4 * max(inputs, outputs) * 4
    return next(n for n in range(1, batch + 1) if batch % n == 0 and (size_bytes <= n * CHUNK_BYTES or n == batch))


def _split_batch(x: jax.Array, parts: int) -> jax.Array:
    return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])


def _join_batch(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])


# Jitted, so that layers of equal shapes share one function in a program: each is some four hundred operations.
@partial(jax.jit, static_argnames=("stride", "padding", "size"))
def _conv(x: jax.Array, w: jax.Array, stride: Pair, padding: Padding, size: Pair) -> jax.Array:
    f, (s, _) = _FILTERINGS[w.shape[:2], stride], stride
    products = _entrywise(jnp.matmul, _inputs(f, x, s, padding, size), _taps(f, w, s))
    (t, u), y = _tiles(size), _both_axes(f.outputs, products)
    y = [[part.reshape(x.shape[0], t, u, -1) for part in row] for row in y]
    y = jnp.stack([jnp.stack(row, 3) for row in y], 2)  # (B, T, 2, U, 2, O)
    return y.reshape(x.shape[0], TILE * t, TILE * u, -1)[:, : size[0], : size[1]]


@partial(jax.jit, static_argnames=("stride", "padding", "size"))
def _tconv(g: jax.Array, w: jax.Array, stride: Pair, padding: Padding, size: Pair) -> jax.Array:
    f, (s, _) = _FILTERINGS[w.shape[:2], stride], stride
    (t, u), n = _tiles(g.shape[1:3]), len(f.inputs)
    products = _entrywise(lambda a, b: a @ b.T, _cotangents(f, g), _taps(f, w, s))
    parts = [[part.reshape(g.shape[0], t, u, s, s, -1) for part in row] for row in _both_axes(f.inputs.T, products)]

    def block(i: int, j: int) -> jax.Array:
        """Input (i, j) of each tile's own, and what the tile before adds to it: (B, T + 1, s, U + 1, s, I)."""
        total, zero = None, jnp.zeros((), g.dtype)
        for p, a in enumerate(range(i, n, TILE)):
            for q, b in enumerate(range(j, n, TILE)):
                ends = ((0, 0, 0), (p, 1 - p, 0), (q, 1 - q, 0), *3 * ((0, 0, 0),))
                part = lax.pad(parts[a][b], zero, ends)
                total = part if total is None else total + part
        return total.transpose(0, 1, 3, 2, 4, 5)

    x = jnp.stack([jnp.stack([block(i, j) for j in range(TILE)], 4) for i in range(TILE)], 2)
    x = x.reshape(g.shape[0], s * TILE * (t + 1), s * TILE * (u + 1), -1)  # from (B, T + 1, 2, s, U + 1, 2, s, I)
    (top, _), (left, _) = padding
    return x[:, top : top + size[0], left : left + size[1]]


@partial(jax.jit, static_argnames=("stride", "padding", "kernel"))
def _wgrad(x: jax.Array, g: jax.Array, stride: Pair, padding: Padding, kernel: Pair) -> jax.Array:
    f, (s, _) = _FILTERINGS[kernel, stride], stride
    products = _entrywise(lambda a, b: a.T @ b, _inputs(f, x, s, padding, g.shape[1:3]), _cotangents(f, g))
    w = [[part.reshape(s, s, x.shape[3], -1) for part in row] for row in _both_axes(f.taps.T, products)]
    w = jnp.stack([jnp.stack(row, 1) for row in w], 0)  # (r, s, r, s, I, O)
    return w.reshape(*kernel, x.shape[3], -1)


def _tiles(size: Pair) -> Pair:
    """Tiles along both axes that cover so many outputs."""
    return -(-size[0] // TILE), -(-size[1] // TILE)


def _inputs(f: _Filtering, x: jax.Array, s: int, padding: Padding, size: Pair) -> Grid:
    """B x B^T of every tile of x (B, H, W, I): n x n matrices (tiles, s s I)."""
    batch, height, width, channels = x.shape
    (t, u), n = _tiles(size), len(f.inputs)
    ends = [(low, s * TILE * (tiles + 1) - length - low, 0)
            for (low, _), tiles, length in zip(padding, (t, u), (height, width), strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))
    x = x.reshape(batch, t + 1, TILE, s, u + 1, TILE, s, channels)

    def pixel(i: int, j: int) -> jax.Array:
        """Input (i, j) of each tile, all parities: (B, T, s, U, s, I)."""
        (p, i), (q, j) = divmod(i, TILE), divmod(j, TILE)
        return x[:, p : p + t, i, :, q : q + u, j]

    parts = _both_axes(f.inputs, [[pixel(i, j) for j in range(n)] for i in range(n)])
    return [[part.transpose(0, 1, 3, 2, 4, 5).reshape(batch * t * u, -1) for part in row] for row in parts]


def _taps(f: _Filtering, w: jax.Array, s: int) -> Grid:
    """G w G^T of w (kh, kw, I, O): n x n matrices (s s I, O)."""
    r, channels = f.taps.shape[1], w.shape[3]
    w = w.reshape(r, s, r, s, -1, channels)
    parts = _both_axes(f.taps, [[w[a, :, b] for b in range(r)] for a in range(r)])
    return [[part.reshape(-1, channels) for part in row] for row in parts]


def _cotangents(f: _Filtering, g: jax.Array) -> Grid:
    """A^T g A of every tile of g (B, h, w, O): n x n matrices (tiles, O)."""
    batch, height, width, channels = g.shape
    t, u = _tiles((height, width))
    g = lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), (0, TILE * t - height, 0), (0, TILE * u - width, 0), (0, 0, 0)))
    g = g.reshape(batch, t, TILE, u, TILE, channels)
    parts = _both_axes(f.outputs.T, [[g[:, :, i, :, j] for j in range(TILE)] for i in range(TILE)])
    return [[part.reshape(batch * t * u, channels) for part in row] for row in parts]


def _both_axes(matrix: np.ndarray, grid: Grid) -> Grid:
    """matrix grid matrix^T, each entry of the grid an array."""
    rows = [_combinations(matrix, column) for column in zip(*grid, strict=True)]  # of each column, along the first axis
    return [_combinations(matrix, row) for row in zip(*rows, strict=True)]


def _combinations(matrix: np.ndarray, parts) -> list[jax.Array]:
    """Each row of the matrix times the vector of arrays; what is zero is left out."""
    combinations = []
    for row in matrix:
        terms = [part if factor == 1 else -part if factor == -1 else factor * part
                 for factor, part in zip(row.tolist(), parts, strict=True) if factor]
        combinations.append(sum(terms[1:], terms[0]))
    return combinations


def _entrywise(product, a: Grid, b: Grid) -> Grid:
    return [[product(x, y) for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
