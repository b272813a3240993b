"""CLIP's text tower in place of an encoder of captions that a run trains itself."""

import functools
import re
from typing import Any

from gan_jax.errors import MissingPathError, UserError
from gan_jax.features import clip_text

NAME = "clip_text"  # of the net, whose arrays are in no State


def tower(
    *,
    vocabulary: int = 0,  # of the captions
    weights: str = "clip_vit_b32",  # a name of the catalogue, or a file or folder of the user's
    download: bool = False,  # fetch weights that are not there
) -> clip_text.TextTower:
    """The net, of the size that the file has.

    Raises:
      UserError: captions that were read by another tokenizer.
      UserError, MissingPathError: weights that are not there or cannot be read, see `clip_text.load`.
    """
    size = _load(weights, download).size
    if size.vocabulary != vocabulary:
        raise UserError(f"config.text.weights={weights!r} is of {size.vocabulary:,} tokens, and the captions are of "
                        f"{vocabulary:,}: set config.data.tokenizer='clip:PATH', CLIP's own; see {clip_text.DOCS}")
    return clip_text.TextTower(*size)


def arrays(section: Any) -> Any:
    """Parameters of the tower that the section `text` names. Raises as `tower`."""
    return _load(section.weights, section.download).arrays["params"]


@functools.lru_cache(maxsize=1)  # a run is built several times, and its file is of hundreds of megabytes
def _load(weights: str, download: bool) -> clip_text.Tower:
    try:
        return clip_text.load(weights, download=download)
    except MissingPathError as error:  # whose own words name the keys of metrics
        text = re.sub(r"--download \([^)]*\)", "config.text.download=True", str(error))
        raise MissingPathError(f"config.text.weights={weights!r}: {text}") from error
