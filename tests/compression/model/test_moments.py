"""Second moments: what a weight is multiplied with, and which weights have none."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slimfleet.compression.model.rounding.moments import columns_of, moments_of

LAYERS = [
    nn.Linear(6, 4),
    nn.Conv1d(4, 6, 3, stride=2, padding=1),
    nn.Conv1d(4, 6, 4, padding="same", dilation=2, groups=2),
    nn.Conv2d(4, 8, 3, padding=(1, 0), groups=4, padding_mode="reflect"),
    nn.Conv2d(4, 8, (2, 3), stride=(1, 2), dilation=(2, 1)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_columns_of_a_layer_times_its_weights_are_its_outputs(layer):
    shape = {nn.Linear: (5, 7, 6), nn.Conv1d: (5, 4, 9), nn.Conv2d: (5, 4, 7, 8)}[type(layer)]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    columns = columns_of(layer, (x,))["weight"]
    rows = layer.weight.detach().flatten(1).unflatten(0, (len(columns), -1))
    with torch.no_grad():
        ours = (rows @ columns).flatten(0, 1) + layer.bias[:, None]
        theirs = layer(x).movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_columns_of_a_recurrent_layer_are_its_inputs_and_the_states_before_each_step(
    batch_first, bidirectional
):
    torch.manual_seed(0)
    layer = nn.RNN(3, 4, batch_first=batch_first, bidirectional=bidirectional)
    x = torch.randn(5, 7, 3)
    with torch.no_grad():
        columns = columns_of(layer, (x,))
        states = layer(x)[0].transpose(0, 1) if batch_first else layer(x)[0]
    assert len(columns) == (4 if bidirectional else 2)
    inputs = x.transpose(0, 1) if batch_first else x
    for way, suffix in enumerate(("", "_reverse")[: 1 + bidirectional]):
        h, seen = states[..., 4 * way : 4 * way + 4], inputs
        before, after = (h[1:], h[:-1]) if way else (h[:-1], h[1:])
        seen = seen[:-1] if way else seen[1:]
        w_ih, w_hh, b_ih, b_hh = (
            getattr(layer, f"{name}_l0{suffix}").detach()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        assert torch.allclose(torch.tanh(seen @ w_ih.T + before @ w_hh.T + b_ih + b_hh), after, atol=1e-6)
        states_before = columns[f"weight_hh_l0{suffix}"][0].T
        assert torch.equal(states_before, before.reshape(-1, 4))
        assert len(columns[f"weight_ih_l0{suffix}"][0].T) == inputs.shape[0] * inputs.shape[1]


def test_moments_add_up_over_batches_and_leave_out_what_is_not_called(toy):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.used_inside = nn.Linear(6, 5), nn.Linear(5, 3)
            self.embedding = nn.Embedding(4, 6)

        def forward(self, x):
            return F.linear(self.first(x), self.used_inside.weight)

    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    central = toy(x, targets=torch.zeros(400, dtype=torch.long))
    model = Net()
    names = [name for name, weight in model.named_parameters() if weight.dim() > 1]
    found = moments_of(model, central, names, 10_000)
    assert found.keys() == {"first.weight"}
    assert torch.allclose(found["first.weight"][0], x[:200].T @ x[:200], atol=1e-3)
    assert moments_of(model, central, ["embedding.weight"], 10) == {}
