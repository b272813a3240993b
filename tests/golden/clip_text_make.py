"""Writes clip_text.npz and clip_text_jit.pt beside it, with PyTorch 2.13 and transformers 4.57, which no test needs.

    PYTHONPATH=. python tests/golden/clip_text_make.py

The arrays are seeded (`features.state.random_state`), so that the tests draw them again. transformers'
CLIPTextModelWithProjection is run with QuickGELU and 64 dimensions a head, as OpenAI's models are, and with GELU and
narrower heads. The TorchScript file is traced and has the names, half precision and neighbours of OpenAI's files;
its vectors are those of PyTorch's own MultiheadAttention.
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from gan_jax.features.state import random_state

FOLDER = pathlib.Path(__file__).parent
VOCABULARY, LENGTH = 64, 16
CONFIGS = {
    "quick_gelu": {"hidden_size": 128, "num_attention_heads": 2, "projection_dim": 96, "hidden_act": "quick_gelu"},
    "gelu": {"hidden_size": 32, "num_attention_heads": 4, "projection_dim": 24, "hidden_act": "gelu"},
}
SEED, LAYERS = 511, 2
SCALES = {"embedding.weight": 4.0}  # as random_state draws them, tokens would hardly differ


def tokens():
    """Captions of several lengths, padded with 0, with the end, and with tokens at random; one is its end alone."""
    rng = np.random.default_rng(SEED)
    rows = np.zeros((5, LENGTH), np.int64)
    for row, length in zip(rows, (3, 9, 16, 6, 1), strict=True):
        row[: length - 1] = rng.integers(1, VOCABULARY - 2, length - 1)
        row[0], row[length - 1] = VOCABULARY - 2, VOCABULARY - 1
    rows[1, 9:] = VOCABULARY - 1
    rows[3, 6:] = rng.integers(0, VOCABULARY - 1, LENGTH - 6)
    return rows


def seeded(net, seed):
    """Gives a network its arrays; returns it."""
    shapes = {name: tuple(a.shape) for name, a in net.state_dict().items() if a.is_floating_point()}
    state = random_state(shapes, seed)
    for end, scale in SCALES.items():
        state |= {name: array * np.float32(scale) for name, array in state.items() if name.endswith(end)}
    net.load_state_dict({name: torch.tensor(array) for name, array in state.items()}, strict=False)
    return net.eval()


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attn, self.ln_1 = nn.MultiheadAttention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        for name, part in (("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()),
                           ("c_proj", nn.Linear(4 * width, width))):  # fmt: skip
            self.mlp.add_module(name, part)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Stack(nn.Module):
    def __init__(self, width, heads, layers):
        super().__init__()
        self.resblocks = nn.ModuleList([Layer(width, heads) for _ in range(layers)])

    def forward(self, x, mask):
        for layer in self.resblocks:
            x = layer(x, mask)
        return x


class Picture(nn.Module):
    """In place of the tower of pictures: names that are not to be taken for the text tower's."""

    def __init__(self, width):
        super().__init__()
        self.positional_embedding, self.ln_post = nn.Parameter(torch.zeros(2, width)), nn.LayerNorm(width)

    def forward(self, x):
        return self.ln_post(x + self.positional_embedding.sum(0))


class Clip(nn.Module):
    """Names as in OpenAI's files."""

    def __init__(self, width=64, heads=1, layers=1, dim=32, length=8):
        super().__init__()
        self.visual, self.transformer = Picture(8), Stack(width, heads, layers)
        self.token_embedding, self.ln_final = nn.Embedding(VOCABULARY, width), nn.LayerNorm(width)
        self.positional_embedding = nn.Parameter(torch.zeros(length, width))
        self.text_projection = nn.Parameter(torch.zeros(width, dim))
        self.logit_scale = nn.Parameter(torch.ones([]))
        self.register_buffer("context_length", torch.tensor(length))

    def forward(self, image, text):
        length = text.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1).to(self.positional_embedding.dtype)
        x = (self.token_embedding(text) + self.positional_embedding).permute(1, 0, 2)
        x = self.ln_final(self.transformer(x, mask).permute(1, 0, 2))
        sentence = x[torch.arange(x.shape[0]), text.argmax(-1)] @ self.text_projection
        return sentence, x, self.visual(image) * self.logit_scale.exp()


def main():
    rows, out = tokens(), {"in/tokens": tokens().astype(np.int32)}
    for name, config in CONFIGS.items():
        config = CLIPTextConfig(
            vocab_size=VOCABULARY, intermediate_size=4 * config["hidden_size"], num_hidden_layers=LAYERS,
            max_position_embeddings=LENGTH, eos_token_id=VOCABULARY - 1, pad_token_id=0, bos_token_id=VOCABULARY - 2,
            **config,
        )  # fmt: skip
        net = seeded(CLIPTextModelWithProjection(config), SEED)
        with torch.no_grad():
            result = net(input_ids=torch.from_numpy(rows))
        out[f"out/{name}/sentence"] = result.text_embeds.numpy()
        out[f"out/{name}/words"] = result.last_hidden_state.numpy()
        keys = {key: list(a.shape) for key, a in net.state_dict().items()}
        CONFIGS[name]["keys"] = keys
    net = seeded(Clip(), SEED).half()
    text = torch.from_numpy(rows[:, :8].copy())
    text[1:3, 7] = VOCABULARY - 1  # of the long captions, which are cut
    traced = torch.jit.trace(net, (torch.zeros(1, 8).half(), text), check_trace=False)
    torch.jit.save(traced, FOLDER / "clip_text_jit.pt")
    with torch.no_grad():
        sentence, words, _ = net.float()(torch.zeros(1, 8), text)
    out |= {"jit/tokens": text.numpy().astype(np.int32), "jit/sentence": sentence.numpy(), "jit/words": words.numpy()}
    meta = {"source": f"transformers {transformers.__version__}, torch {torch.__version__}", "seed": SEED,
            "scales": SCALES, "vocabulary": VOCABULARY, "length": LENGTH, "layers": LAYERS, "configs": CONFIGS}
    np.savez_compressed(FOLDER / "clip_text.npz", meta=json.dumps(meta), **out)


if __name__ == "__main__":
    main()
