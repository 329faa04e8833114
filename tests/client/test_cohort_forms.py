"""What the stacked form does otherwise than the model that it was made of, piece by piece."""

import pytest
import torch
from torch import nn

from slimfleet.client.cohort.layers import LAYERS
from slimfleet.client.cohort.layouts import Value
from slimfleet.client.cohort.losses import CrossEntropy, loss_of_several
from slimfleet.client.cohort.reordering import relus_moved_back


def of_pictures(pictures: torch.Tensor, model: nn.Module) -> list[torch.Tensor]:
    """What a model gives, and its gradients."""
    pictures = pictures.clone().requires_grad_()
    outputs = model(pictures)
    weights = torch.arange(outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    return [
        outputs.detach(),
        *torch.autograd.grad((outputs * weights).sum(), [pictures, *model.parameters()]),
    ]


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=1),
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d(3, ceil_mode=True),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_a_relu_behind_its_pooling_gives_the_same_bits(pool, in_place):
    """Ties above, at and below zero among them: few values, and a bias that is large."""
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(in_place), pool, nn.Flatten(), nn.LazyLinear(3)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.randint(-1, 2, model[0].weight.shape))
    pictures = torch.randint(-1, 2, (5, 1, 9, 9)).float()
    expected = of_pictures(pictures, model)
    moved = torch.fx.symbolic_trace(model)
    relus_moved_back(moved)
    order = [str(node.target) for node in moved.graph.nodes if node.op.startswith("call")]
    assert [each for each in order if not each.startswith("<")] == ["0", "2", "3", "4"]
    assert "relu" in order[3]
    assert all(map(torch.equal, of_pictures(pictures, moved), expected))


def test_a_relu_stays_where_something_else_needs_what_it_gives():
    class Both(nn.Module):
        def forward(self, pictures):
            hidden = torch.relu(pictures)
            pooled = nn.functional.max_pool2d(hidden, 2)
            return pooled, hidden

    moved = torch.fx.symbolic_trace(Both())
    before = str(moved.graph)
    relus_moved_back(moved)
    assert str(moved.graph) == before


class Kept:
    """Losses as tasks have them."""

    def __init__(self, loss) -> None:
        self.its = loss

    def loss(self, outputs, targets):
        return self.its(outputs, targets)


@pytest.mark.parametrize(
    ("loss", "plain"),
    [
        (nn.functional.cross_entropy, True),
        (Kept(nn.CrossEntropyLoss()).loss, True),
        (Kept(nn.CrossEntropyLoss(label_smoothing=0.1)).loss, False),
        (Kept(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))).loss, False),
        (lambda outputs, targets: 2 * nn.functional.cross_entropy(outputs, targets), False),
        (lambda outputs, targets: nn.functional.cross_entropy(outputs.double(), targets), False),
        (lambda outputs, targets: nn.functional.cross_entropy(outputs, targets, reduction="sum"), False),
    ],
)
def test_losses_of_several_devices_are_those_of_each(loss, plain, monkeypatch):
    rng = torch.Generator().manual_seed(1)
    outputs = torch.randn(4, 6, 3, generator=rng).requires_grad_()
    targets = torch.randint(3, (4, 6), generator=rng)
    targets[1, :4] = -100
    together = loss_of_several(loss)
    assert isinstance(together, CrossEntropy) == plain
    found = together(outputs, targets)
    expected = torch.stack([loss(*each) for each in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(found, expected)
    (mine,), (reference,) = (torch.autograd.grad(each.sum(), [outputs]) for each in (found, expected))
    torch.testing.assert_close(mine, reference)


def test_cross_entropy_of_probabilities_is_that_of_each_device():
    outputs, targets = torch.randn(4, 6, 3), torch.softmax(torch.randn(4, 6, 3), 2)
    together = loss_of_several(nn.functional.cross_entropy)
    expected = [nn.functional.cross_entropy(*each) for each in zip(outputs, targets, strict=True)]
    torch.testing.assert_close(together(outputs, targets), torch.stack(expected))


def test_products_have_the_gradients_of_a_linear_layer():
    layer, devices = nn.Linear(7, 5).double(), 3
    state = {
        name: torch.stack([each.detach()] * devices).requires_grad_()
        for name, each in layer.named_parameters()
    }
    inputs = torch.randn(devices, 4, 7, dtype=torch.float64, requires_grad=True)
    compute = LAYERS[nn.Linear].compute
    assert torch.autograd.gradcheck(
        lambda i, w, b: compute(layer, {"weight": w, "bias": b}, i, devices), (inputs, *state.values())
    )
    assert torch.autograd.gradcheck(
        lambda i, w: compute(layer, {"weight": w}, i, devices), (inputs, state["weight"])
    )


@pytest.mark.parametrize("places", [(), (3,), (3, 2)])
def test_both_layouts_hold_the_same(places):
    deep = torch.randn(3, 4, 2, *places, dtype=torch.float64, requires_grad=True)
    wide = Value(deep, False, 3).as_wide()
    assert torch.equal(wide.view(4, 3, 2, *places).transpose(0, 1), deep)
    assert torch.equal(Value(wide, True, 3).as_deep(), deep)
    assert torch.autograd.gradcheck(lambda each: Value(each, False, 3).as_wide(), (deep,))
    assert torch.autograd.gradcheck(
        lambda each: Value(each, True, 3).as_deep(), (wide.detach().requires_grad_(),)
    )
