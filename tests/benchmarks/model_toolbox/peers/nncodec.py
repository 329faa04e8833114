"""NNCodec 2.1.3 (ISO/IEC 15938-17) on trained weights, and ours, all without training, at equal loss of accuracy.

Batch normalisations are folded for all: NNCodec needs a third more bytes without. It has dependent quantisation,
parameter optimisation and row skipping on, 16 steps an octave, biases at a quarter of the weights' step, and the best
weight of the rate in its trellis. Its inference-optimised quantisation, which moves the step of each tensor by the
accuracy on training data, is tried on models of few tensors. Ours are packing, which sees weights alone, and `round`,
which looks at inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from nncodec_stubs import import_nncodec
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.rounding.rate_aware import RateAware, rate_aware
from slimfleet.compression.model.saving.file import packed_bytes
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.techniques.fold import Fold, fold
from slimfleet.compression.model.techniques.round import Round
from slimfleet.compression.packing import Entry, SlimFile, ToError, write_slim
from slimfleet.compression.validation_split import evaluate_on

from .ladder import OCTAVE, Codec, Coded, Ladder

LOSS = 0.5
LAMBDAS = (0.0, 0.5, 1.0, 1.5)
PRICES = (0.05, 0.1, 0.2)
NMSE, DIVERGENCE = 0.003, 2e-4
"""At the rung that a search begins with."""
EXAMPLES = 1024
"""Training examples that NNCodec's inference-optimised quantisation evaluates on."""
OPTIMISED = "NNCodec, inference-optimised"
MOST = 5
"""Tensors up to which that is tried: it evaluates the model twice for each."""


def measured(model: nn.Module, central: CentralTask) -> list[Coded]:
    """The fewest bytes of each that lose at most `LOSS` points of validation accuracy."""
    ladder = Ladder(model, central, LOSS)
    return [ladder.fewest(method, codecs()) for method, codecs in methods(model, central).items()]


def methods(model: nn.Module, central: CentralTask) -> Mapping[str, Callable[[], Mapping[str, Codec]]]:
    """Name -> what makes its settings."""
    slim = SlimModel(model)
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        slim, _ = fold(slim, central, Fold())
    found: dict[str, Callable[[], Mapping[str, Codec]]] = {
        "NNCodec": lambda: {
            f"lambda {scale:g}": partial(_nncodec, slim.model, scale, None) for scale in LAMBDAS
        },
        "pack": lambda: {"to an error": partial(_packed, slim.model)},
        "round": lambda: _rounding(slim, central),
    }
    if len(weights_of(slim.model)) <= MOST:
        found[OPTIMISED] = lambda: {"lambda 0.5": partial(_nncodec, slim.model, 0.5, central)}
    return found


def _nncodec(model: nn.Module, scale: float, central: CentralTask | None, rung: int) -> tuple[int, nn.Module]:
    compress, decompress = import_nncodec()
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    rms = float(np.concatenate([array.ravel() for array in arrays.values() if array.ndim > 1]).std())
    bitstream = compress(
        arrays,
        bitstream_path=None,
        return_bitstream=True,
        qp=round(OCTAVE * np.log2(rms * (12 * NMSE) ** 0.5)) + rung,
        qp_density=4,
        nonweight_qp=None,
        lambda_scale=scale,
        use_dq=True,
        row_skipping=True,
        ioq=central is not None,
        model_executer=central and _executer(model, central),
    )
    return len(bitstream), _with(model, decompress(bitstream))


def _executer(model: nn.Module, central: CentralTask) -> Any:
    """What NNCodec evaluates models with."""
    from nncodec.nnc_core.nnr_model import ModelExecute

    examples = central.training.take(slice(EXAMPLES))

    class Executer(ModelExecute):  # type: ignore[misc]
        def eval_model(self, parameters: Mapping[str, Any], verbose: bool = False) -> dict[str, float]:
            accuracy = evaluate_on(central.task, _with(model, parameters), examples).accuracy
            return {"accuracy": 100 * (accuracy or 0.0)}

        def has_eval(self) -> bool:
            return True

        def has_test(self) -> bool:
            return False

        has_tune_ft = has_tune_lsa = has_test

    return Executer()


def _with(model: nn.Module, arrays: Mapping[str, Any]) -> nn.Module:
    copied = deepcopy(model)
    copied.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return copied.eval()


def _packed(model: nn.Module, rung: int) -> tuple[int, nn.Module]:
    """As `slimfleet-compress pack` does."""
    coding = ToError(NMSE * 2 ** (2 * rung / OCTAVE))
    entries = [Entry(name, tensor.numpy(), coding) for name, tensor in model.state_dict().items()]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "packed.slim"
        nbytes = write_slim(path, entries).bytes
        with SlimFile.open(path) as file:
            return nbytes, _with(model, {name: file.tensor(name) for name in file.names})


def _rounding(slim: SlimModel, central: CentralTask) -> Mapping[str, Codec]:
    usual, names = Round(), list(weights_of(slim.model))
    rounding = rate_aware(slim, central, names, usual.price, usual.mantissa, usual.calibration)
    return {
        f"price {price:g}": partial(_rounded, replace(rounding, price=price), central) for price in PRICES
    }


def _rounded(rounding: RateAware, central: CentralTask, rung: int) -> tuple[int, nn.Module]:
    rounded = rounding.at(DIVERGENCE * 2 ** (2 * rung / OCTAVE))
    return packed_bytes(rounded, central.task), rounded.model
