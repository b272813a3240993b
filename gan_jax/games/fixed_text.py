"""CLIP's text tower in place of an encoder of captions that a run trains itself."""

import functools
from typing import Any

import jax

from gan_jax.errors import UserError
from gan_jax.features import clip_text

NAME = "clip_text"  # of the net, whose arrays are in no State


class ClipText:
    """Tokens (B, L) of CLIP's tokenizer -> (sentence (B, size), words (B, L, width)), float32, as a net's `apply`.

    Raises:
      UserError: captions that were read by another tokenizer.
      UserError, MissingPathError: weights that are not there or cannot be read, see `clip_text.load`.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 0,  # of the captions
        weights: str = "clip_vit_b32",  # a name of the catalogue, or a file of the user's
        download: bool = False,  # fetch weights that are not there
    ):
        tower = _load(weights, download)
        if tower.size.vocabulary != vocabulary:
            raise UserError(f"config.text.name='clip' knows {tower.size.vocabulary} tokens, and the captions have "
                            f"{vocabulary}: set config.data.tokenizer='clip:PATH', CLIP's own")
        self.size, self._apply = tower.size.dim, tower.apply

    def apply(
        self, variables: Any, tokens: jax.Array, *, train: bool, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Of {"params": what `arrays` gives}; the tower has no dropout."""
        return self._apply(variables["params"], tokens)


def arrays(section: Any) -> Any:
    """Those of the tower that the section `text` names. Raises as `ClipText`."""
    return _load(section.weights, section.download).arrays


@functools.lru_cache(maxsize=1)  # a run is built several times, and its file is of hundreds of megabytes
def _load(weights: str, download: bool) -> clip_text.Tower:
    return clip_text.load(weights, download=download)
