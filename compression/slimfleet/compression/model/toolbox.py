"""Table of techniques: name -> what it is. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from slimfleet.compression.model.technique import Technique
from slimfleet.compression.model.techniques.adapt import Adapt, adapt
from slimfleet.compression.model.techniques.distil import Distil, distil
from slimfleet.compression.model.techniques.factorise import Factorise, factorise
from slimfleet.compression.model.techniques.fold import Fold, fold
from slimfleet.compression.model.techniques.prune import Prune, prune
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.recalibrate import Recalibrate, recalibrate
from slimfleet.compression.model.techniques.recurrent import Recurrent, recurrent
from slimfleet.compression.model.techniques.round import Round, round_weights
from slimfleet.compression.model.techniques.search import Search, search
from slimfleet.compression.model.techniques.separate import Separate, separate
from slimfleet.compression.model.techniques.share import Share, share
from slimfleet.compression.model.techniques.sparsify import Sparsify, sparsify
from slimfleet.compression.model.techniques.tie import Tie, tie

__all__ = ["TECHNIQUES"]

TECHNIQUES: Mapping[str, Technique] = MappingProxyType(
    {
        "prune": Technique("removes channels, neurons, recurrent units and heads", "structure", Prune, prune),
        "fold": Technique("takes batch normalisations into the layers before them", "anywhere", Fold, fold),
        "separate": Technique("makes convolutions depthwise separable", "structure", Separate, separate),
        "factorise": Technique(
            "makes linear layers and convolutions of low rank", "structure", Factorise, factorise
        ),
        "recurrent": Technique(
            "turns LSTMs into GRUs, and two directions into one", "structure", Recurrent, recurrent
        ),
        "tie": Technique("shares weights among the layers of a stack", "structure", Tie, tie),
        "search": Technique(
            "finds the best width, depth, kernels and bits within a device's limits",
            "structure",
            Search,
            search,
        ),
        "sparsify": Technique(
            "zeroes single weights, anywhere or n of every m", "weights", Sparsify, sparsify
        ),
        "share": Technique("shares a few values among the weights of a tensor", "weights", Share, share),
        "round": Technique("rounds weights to what takes few bytes", "weights", Round, round_weights),
        "quantise": Technique("rounds weights and activations to few bits", "weights", Quantise, quantise),
        "adapt": Technique("zeroes and rounds weights as far as training bears it", "weights", Adapt, adapt),
        "recalibrate": Technique(
            "estimates the statistics of batch normalisations anew", "anywhere", Recalibrate, recalibrate
        ),
        "distil": Technique("trains on what teachers say", "anywhere", Distil, distil),
    }
)
"""In the order in which a recipe may use them."""
