"""One vector for the many arrays of a network, so that what treats them all alike is one operation.

Optimizer, running average, norms and the sum over devices work on each parameter by itself. Written out for the sixty
arrays of a StyleGAN2 they were 45% of a phase's operations. `Flat` is a pytree of one leaf that stands in for a tree:
`jax.tree.map` over trees of it works as over the trees themselves.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Layout(NamedTuple):
    """Where the arrays of a tree lie in its vector: one after another, each in row-major order."""

    structure: Any  # jax.tree_util.PyTreeDef
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Elements of each array."""
        return tuple(math.prod(shape) for shape in self.shapes)


@partial(jax.tree_util.register_dataclass, data_fields=("vector",), meta_fields=("layout",))
@dataclass(frozen=True)
class Flat:
    """The arrays of a tree in one float32 vector (N,)."""

    vector: jax.Array
    layout: Layout


def is_flat(tree: Any) -> bool:
    """Whether it is a `Flat`, for `jax.tree` functions that take an `is_leaf`."""
    return isinstance(tree, Flat)


def fits(tree: Any) -> bool:
    """Whether a tree can be one vector: it has arrays, and all of them are float32."""
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(jnp.result_type(leaf) == jnp.float32 for leaf in leaves)


def pack(tree: Any) -> Flat:
    """The tree's arrays as one vector; the tree must `fits`."""
    leaves = jax.tree.leaves(tree)
    on_host = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    vector = (np if on_host else jnp).concatenate([leaf.reshape(-1) for leaf in leaves])
    return Flat(vector, layout_of(tree))


def unpack(tree: Any) -> Any:
    """The tree with every `Flat` in it replaced by the named arrays that it stands for."""
    return jax.tree.map(lambda node: _arrays(node) if is_flat(node) else node, tree, is_leaf=is_flat)


def _arrays(flat: Flat) -> Any:
    ends, begin = [], 0
    for size in flat.layout.sizes:
        ends.append((begin, begin := begin + size))
    places = zip(ends, flat.layout.shapes, strict=True)
    leaves = [flat.vector[first:last].reshape(shape) for (first, last), shape in places]
    return jax.tree.unflatten(flat.layout.structure, leaves)


def pack_like(tree: Any, layouts: dict[str, Layout]) -> Any:
    """The tree with every dict entry of a net in `layouts`, where its arrays are that net's, replaced by a `Flat`.

    An optimizer's moments are such entries: `{net: tree}` somewhere within its state.
    """

    def is_nets(node):
        return isinstance(node, dict) and any(_is_layout(node.get(net), layout) for net, layout in layouts.items())

    def packed(node):
        if not is_nets(node):
            return node
        fitting = {net for net, part in node.items() if net in layouts and _is_layout(part, layouts[net])}
        return {net: pack(part) if net in fitting else part for net, part in node.items()}

    return jax.tree.map(packed, tree, is_leaf=is_nets)


def layout_of(tree: Any) -> Layout:
    """Where the arrays of a tree would lie; of arrays or of shapes."""
    leaves, structure = jax.tree.flatten(tree)
    return Layout(structure, tuple(tuple(leaf.shape) for leaf in leaves))


def _is_layout(tree: Any, layout: Layout) -> bool:
    return tree is not None and fits(tree) and layout_of(tree) == layout


def segments(flat: Flat) -> list[tuple[tuple, int]]:
    """(path within the tree, elements) of each array, in the vector's order."""
    places = jax.tree.unflatten(flat.layout.structure, range(len(flat.layout.shapes)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(places)]
    return list(zip(paths, flat.layout.sizes, strict=True))
