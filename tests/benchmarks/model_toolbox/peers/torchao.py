"""torchao's quantisation after training, and our `quantise` without training, at equal bits and granularity.

torchao's configurations take linear layers alone. Its tensor of 1 to 8 bits, which `IntxWeightOnlyConfig` puts into
them, is therefore made of every weight that ours rounds, kernels as matrices of one row a channel; the values that it
gives back stand in the model. Its scales come from the range of a row ("affine", its default) or from half-quadratic
optimisation ("HQQ"). Weights and activations of 8 bits are its PT2E with the quantiser for x86, calibrated on the
training examples that ours is.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchao.quantization import IntxUnpackedToInt8Tensor, MappingType
from torchao.quantization.pt2e import allow_exported_model_train_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)
from torchao.quantization.quantize_.workflows.intx.intx_choose_qparams_algorithm import (
    IntxChooseQParamsAlgorithm,
)

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.threshold import points_lost
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.techniques.quantise import Quantise, quantise

BITS = (8, 4, 3, 2)
BATCH = 64
ALGORITHMS = {
    "symmetric": (MappingType.SYMMETRIC, IntxChooseQParamsAlgorithm.AFFINE),
    "affine": (MappingType.ASYMMETRIC, IntxChooseQParamsAlgorithm.AFFINE),
    "HQQ": (MappingType.SYMMETRIC, IntxChooseQParamsAlgorithm.HQQ_SCALE_ONLY),
}


@dataclass(frozen=True, slots=True)
class Quantised:
    """A model on grids."""

    method: str
    weights: int
    """Bits."""
    activations: int
    """Bits; 0 where they are floats."""
    test_lost: float
    """Points of accuracy."""


def measured(model: nn.Module, central: CentralTask) -> list[Quantised]:
    """What `model` loses in each way."""
    before = central.tested(model)
    return [
        Quantised(method, bits, activations, points_lost(central.tested(made), before))
        for bits, activations in (*((bits, 0) for bits in BITS), (8, 8))
        for method, made in _made(model, central, bits, activations)
    ]


def _made(
    model: nn.Module, central: CentralTask, bits: int, activations: int
) -> Iterator[tuple[str, nn.Module]]:
    if activations:
        yield "torchao, PT2E", by_pt2e(model, central)
    else:
        for name in ALGORITHMS:
            yield f"torchao, {name}", by_torchao(model, bits, name)
    settings = Quantise(weights=bits, activations=activations)
    yield "quantise", quantise(SlimModel(model), central, settings)[0].model


def by_torchao(model: nn.Module, bits: int, algorithm: str) -> nn.Module:
    """A copy of `model` with the values that torchao's tensors of its weights have."""
    copied = deepcopy(model)
    for weight in weights_of(copied).values():
        weight.data.copy_(_tensor(weight.detach().flatten(1), bits, algorithm).view_as(weight))
    return copied


def by_pt2e(model: nn.Module, central: CentralTask) -> nn.Module:
    """`model` as torchao's export quantisation makes it."""
    inputs = central.training.take(slice(BATCH)).arguments
    batch = torch.export.Dim("batch", min=1, max=100_000)
    exported = torch.export.export(
        deepcopy(model).eval(), inputs, dynamic_shapes=tuple({0: batch} for _ in inputs)
    ).module()
    quantiser = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantiser)
    with torch.no_grad():
        for begin in range(0, Quantise().calibration, BATCH):
            prepared(*central.training.take(slice(begin, begin + BATCH)).arguments)
    quantised: nn.Module = convert_pt2e(prepared)
    return allow_exported_model_train_eval(quantised)


def _tensor(rows: Tensor, bits: int, algorithm: str) -> Tensor:
    mapping, choice = ALGORITHMS[algorithm]
    quantised = IntxUnpackedToInt8Tensor.from_hp(
        rows,
        (1, rows.shape[1]),
        getattr(torch, f"int{bits}"),
        mapping_type=mapping,
        intx_choose_qparams_algorithm=choice,
    )
    values: Tensor = quantised.dequantize()
    return values
