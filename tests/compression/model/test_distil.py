"""Teachers: soft labels, several of them, features, and outputs that are no logits."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slimfleet.compression import BadInput
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.techniques.distil import Distil, distil
from slimfleet.compression.model.training.soft_labels import distillation_loss, teacher_weights
from slimfleet.compression.model.training.teachers import Batch, Teachers
from slimfleet.compression.model.training.tuning import Tuning
from slimfleet.compression.task import Examples


def fresh(central, seed=1):
    torch.manual_seed(seed)
    return SlimModel(central.task.build_model())


def all_of(examples):
    return Batch(examples.inputs, examples.targets, examples, torch.arange(len(examples)))


def test_the_loss_is_that_of_hinton_at_its_temperature(toy):
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    x, y = torch.randn(10, 4), torch.randint(0, 3, (10,))
    central = replace(toy(x, targets=y), teachers=Teachers((teacher,)))
    ours = distillation_loss(central, 0.3, 2.0, "equal")(student, all_of(Examples(x, y)))
    p, q = F.softmax(teacher(x) / 2, 1), F.softmax(student(x) / 2, 1)
    soft = (p * (p / q).log()).sum(1).mean() * 4
    assert float(ours.detach()) == pytest.approx(
        float((0.3 * soft + 0.7 * F.cross_entropy(student(x), y)).detach())
    )


def test_a_teacher_that_is_right_counts_more_on_each_example():
    right, wrong = torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([[0.0, 4.0], [4.0, 0.0]])
    weights = teacher_weights([right, wrong], torch.tensor([0, 0]), "dynamic")
    assert torch.allclose(weights.sum(0), torch.ones(2))
    assert weights[0, 0] > 0.95
    assert weights[0, 1] == pytest.approx(0.5)
    assert torch.equal(
        teacher_weights([right, wrong], torch.tensor([0, 0]), "equal"), torch.full((2, 2), 0.5)
    )


def test_a_student_learns_what_its_teacher_says(taught, trained):
    student = fresh(taught)
    tuned, report = distil(
        student, taught, Distil(tuning=Tuning(epochs=2, learning_rate=0.05, soft_labels=1.0))
    )
    x = taught.validation.arguments[0]
    with torch.no_grad():
        told = trained.model(x).argmax(1)
        agreed = [
            (model(x).argmax(1) == told).float().mean() for model in (tuned.model, student.model.eval())
        ]
    assert agreed[0] > 0.8 > agreed[1]
    assert report.changed[0].change == "trained with 1 teacher"


@pytest.mark.parametrize("weighting", ["equal", "dynamic"])
def test_several_teachers_teach_and_stay_as_they_are(taught, trained, weighting):
    other = fresh(taught, 5).model.eval()
    central = replace(taught, teachers=Teachers((trained.model, other)))
    before = [p.detach().clone() for p in other.parameters()]
    _, report = distil(
        fresh(central), central, Distil(tuning=Tuning(epochs=0.2, soft_labels=0.7, weighting=weighting))
    )
    assert report.changed[0].change == "trained with 2 teachers"
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_hints_draw_features_together_and_leave_nothing_behind(taught, trained):
    student = fresh(taught)
    hint, tuning = "norm1=norm1+conv2=conv2", Tuning(epochs=2, learning_rate=0.02)
    settings = Distil(hint=hint, hint_weight=5.0, tuning=tuning)
    hinted, _ = distil(student, taught, settings)
    plain, _ = distil(student, taught, replace(settings, hint_weight=1e-9))
    assert hinted.model.state_dict().keys() == student.model.state_dict().keys()
    layers = [*hinted.model.modules(), *trained.model.modules()]
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)

    def unexplained(model):
        """Share of the teacher's features that the best linear map of the student's does not give."""
        seen = []
        for each in (model, trained.model):
            hook = each.conv2.register_forward_hook(
                lambda _, __, out: seen.append(out.movedim(1, -1).flatten(0, 2))
            )
            with torch.no_grad():
                each(*taught.validation.arguments)
            hook.remove()
        ours = torch.cat([seen[0], torch.ones(len(seen[0]), 1)], 1)
        rest = seen[1] - ours @ torch.linalg.lstsq(ours, seen[1]).solution
        return rest.square().mean() / seen[1].square().mean()

    assert unexplained(hinted.model) < 0.9 * unexplained(plain.model)


class Wide(nn.Module):
    """Another architecture with the same inputs and outputs: other sizes of features, a recurrent layer's tuple."""

    def __init__(self):
        super().__init__()
        self.conv, self.rnn, self.out = (
            nn.Conv2d(1, 5, 3, stride=2),
            nn.GRU(3, 7, batch_first=True),
            nn.Linear(7, 10),
        )

    def forward(self, x):
        return self.out(self.rnn(self.conv(x).mean(1))[0][:, -1])


def test_features_of_other_sizes_are_pooled_and_of_other_kinds_refused(taught):
    student = SlimModel(Wide())
    distil(student, taught, Distil(hint="conv=conv2", tuning=Tuning(epochs=0.1)))
    with pytest.raises(
        BadInput, match=r"^distil: features of 'rnn' \[1, 3, 7\] cannot be drawn to those .*$"
    ):
        distil(student, taught, Distil(hint="rnn=conv2", tuning=Tuning(epochs=0.1)))


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        ("conv2", r"^distil: hint 'conv2' must be layer=teacher_layer, several joined by \+$"),
        ("conv9=conv2", r"^distil: DigitsCnn has no layer 'conv9' for a hint: did you mean 'conv2'\?$"),
    ],
)
def test_hints_that_name_no_layer_are_refused_in_one_line(taught, hint, message):
    with pytest.raises(BadInput, match=message):
        distil(fresh(taught), taught, Distil(hint=hint))


class Pair(nn.Module):
    """A dict with a tuple inside, and an integer that is nobody's business."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x):
        return {"a": self.one(x), "b": (self.two(x), torch.arange(3))}


def test_outputs_that_are_no_logits_are_drawn_together_as_they_are(toy):
    torch.manual_seed(0)
    student, teacher = Pair(), Pair()
    x = torch.randn(60, 4)
    central = toy(x, targets=torch.zeros(60), of=lambda out, y: out["a"].sum() * 0)
    central = replace(central, teachers=Teachers((teacher,)))
    loss = distillation_loss(central, 1.0, 4.0, "dynamic")
    with torch.no_grad():
        ours, theirs = student(x[:30]), teacher(x[:30])
        apart = F.mse_loss(ours["a"], theirs["a"]) + F.mse_loss(ours["b"][0], theirs["b"][0])
        assert float(loss(student, all_of(central.training))) == pytest.approx(float(apart))
    tuned, report = distil(SlimModel(student), central, Distil(tuning=Tuning(epochs=2, soft_labels=0.7)))
    assert tuned.model.state_dict().keys() == student.state_dict().keys()
    assert report.steps == 2


def test_teachers_that_do_not_fit_are_refused_in_one_line(central):
    with pytest.raises(
        BadInput, match=r"^distil has no teacher: give one, such as the model before the recipe$"
    ):
        distil(fresh(central), central, Distil())
    for teacher, message in (
        (nn.Linear(5, 10), r"^teacher 1, a Linear, does not take the inputs of the task: .*$"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 7)),
            r"^outputs of shapes \[\[1, 10\]\] cannot be compared .*$",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            distil(fresh(central), replace(central, teachers=Teachers((teacher,))), Distil())
