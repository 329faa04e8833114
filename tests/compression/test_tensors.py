from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))


def test_tensors_are_copies_in_state_dict_order() -> None:
    model = small()
    tensors = tensors_of(model)
    assert list(tensors) == list(model.state_dict())
    before = model[1].weight.detach().clone()
    tensors["1.weight"] += 1
    assert torch.equal(model[1].weight, before)


def test_schema_tells_weights_buffers_and_counters_apart() -> None:
    model = small()
    model[1].bias.requires_grad_(False)
    kinds = {t.name: (t.kind, t.dtype, t.shape) for t in schema_of(model).tensors}
    assert kinds == {
        "0.weight": ("weight", "float32", (2, 1, 3, 3)),
        "1.weight": ("weight", "float32", (2,)),
        "1.bias": ("frozen", "float32", (2,)),
        "1.running_mean": ("buffer", "float32", (2,)),
        "1.running_var": ("buffer", "float32", (2,)),
        "1.num_batches_tracked": ("integer", "int64", ()),
    }


def everything() -> nn.Module:
    """A tensor of every type that torch has for numbers."""
    model = nn.Module()
    floats = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    integers = (torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int64)
    for dtype in (*floats, torch.complex64, torch.complex128):
        values = torch.tensor([1.5, -2.25, 0.0]).to(dtype)
        model.register_parameter(
            f"p_{dtype}".replace(".", "_"), nn.Parameter(values * (1j if dtype.is_complex else 1))
        )
    for dtype in (*integers, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2):
        model.register_buffer(f"b_{dtype}".replace(".", "_"), torch.tensor([1.0, 2.0, 0.0]).to(dtype))
    model.register_buffer("scalar", torch.tensor(-torch.inf))
    return model


def test_every_type_of_number_comes_back_as_it_was() -> None:
    source, target = everything(), everything()
    for tensor in target.state_dict().values():
        tensor.zero_()
    load_tensors(target, tensors_of(source))
    for name, tensor in source.state_dict().items():
        other = target.state_dict()[name]
        assert other.dtype == tensor.dtype
        assert (
            torch.equal(other.view(torch.uint8), tensor.view(torch.uint8))
            if tensor.dim()
            else other == tensor
        )
    kinds = {t.name: (t.kind, t.dtype, t.shape) for t in schema_of(source).tensors}
    assert kinds["p_torch_complex64"] == ("weight", "float32", (3, 2))
    assert kinds["p_torch_bfloat16"] == ("weight", "float32", (3,))
    assert kinds["b_torch_float8_e5m2"] == ("buffer", "float32", (3,))
    assert kinds["b_torch_uint16"] == ("integer", "uint16", (3,))


def sparse() -> nn.Module:
    model = nn.Module()
    model.register_buffer("odd", torch.eye(3).to_sparse())
    return model


def quantised() -> nn.Module:
    model = nn.Module()
    model.register_buffer("odd", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))
    return model


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.LazyLinear(3), "'weight' has no shape yet: run"),
        (sparse, "'odd' is sparse_coo: give it as a dense tensor"),
        (quantised, r"'odd' is quantised \(qint8\): give the model in floats"),
        (lambda: nn.Linear(2, 2, device="meta"), "'weight' is on the meta device"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_what_cannot_be_carried_is_refused_in_one_line(build: Callable[[], nn.Module], words: str) -> None:
    model = build()
    for read in (schema_of, tensors_of):
        with pytest.raises(BadInput, match=words) as refusal:
            read(model)
        assert "\n" not in str(refusal.value)


class Counting(nn.BatchNorm1d):
    """Keeps something that is no tensor in its state."""

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.restored = state


def test_loading_keeps_the_versions_of_layers_and_what_is_no_tensor() -> None:
    model = Counting(2)
    tensors = tensors_of(model)
    assert "_extra_state" not in tensors
    tensors["num_batches_tracked"] += 7
    load_tensors(model, tensors)
    # Without its version, batch normalisation takes its counter for missing in an old file.
    assert model.num_batches_tracked == 7
    assert model.restored == {"seen": 3}


def test_loading_accepts_read_only_and_reversed_views_and_restores_every_value() -> None:
    source, target = small(), small()
    tensors = {
        name: array[::-1].copy()[::-1] if array.ndim else array for name, array in tensors_of(source).items()
    }
    tensors["1.running_var"] = np.broadcast_to(np.float32(3), (2,))
    load_tensors(target, tensors)
    for name, array in tensors_of(target).items():
        np.testing.assert_array_equal(array, tensors[name])


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "dtype"])
def test_loading_refuses_what_differs_from_the_model_and_changes_nothing(fault: str) -> None:
    model = small()
    before = tensors_of(model)
    tensors = {name: array + 1 for name, array in before.items()}
    if fault == "missing":
        del tensors["1.bias"]
    elif fault == "extra":
        tensors["2.bias"] = np.zeros(2, np.float32)
    elif fault == "shape":
        tensors["1.bias"] = np.zeros(3, np.float32)
    else:
        tensors["1.bias"] = np.zeros(2, np.float64)
    with pytest.raises(PayloadError) as caught:
        load_tensors(model, tensors)
    assert caught.value.reason == "schema"
    for name, array in tensors_of(model).items():
        np.testing.assert_array_equal(array, before[name])
