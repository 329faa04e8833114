import numpy as np
import pytest
import torch
from torch import nn

from slimfleet.compression.errors import PayloadError
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
        "1.bias": ("buffer", "float32", (2,)),
        "1.running_mean": ("buffer", "float32", (2,)),
        "1.running_var": ("buffer", "float32", (2,)),
        "1.num_batches_tracked": ("integer", "int64", ()),
    }


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
