"""What the comparison over models rests on: a count by hand that is one, bounds that hold, outcomes that last."""

import sys
import time
from pathlib import Path

import pytest
import torch
from models_zoo import zoo
from models_zoo.bounds import OutOfTime, at_most
from models_zoo.examine import examine
from models_zoo.hand_count import training_flops
from models_zoo.kept import Kept, fingerprint
from models_zoo.outcome import Outcome
from models_zoo.page import page, row
from models_zoo.step import loss, train
from models_zoo.sweep import in_a_process, sweep
from models_zoo.targets import verdicts
from torch import Tensor, nn
from torch.nn import functional as F


class Attending(nn.Module):
    """Attention by torch's kernel, by `@` and by einsum, over a sequence of six."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.project = nn.Linear(4, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        match self.kind:
            case "kernel":
                return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])
            case "matmul":
                return (x @ x.transpose(1, 2)).softmax(-1) @ x
            case _:
                scores = torch.einsum("bik,bjk->bij", x, x)
                return torch.einsum("...ij,...jk->...ik", scores.softmax(-1), x)


# Multiply-adds, times the passes that repeat them: the first layer has no inputs to differentiate.
PROJECTED, ATTENDED = 6 * 4 * 8 * 2, 2 * 6 * 6 * 8 * 3


@pytest.mark.parametrize(
    ("model", "shape", "multiply_adds"),
    [
        (nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7)), (3,), 15 * 2 + 35 * 3),
        (nn.Conv2d(4, 6, 3, padding=1), (4, 8, 8), 64 * 6 * 4 * 9 * 2),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4)), (4, 8, 8), 64 * 4 * 9 * 2),
        (nn.ConvTranspose2d(4, 6, 2, 2), (4, 8, 8), 64 * 4 * 6 * 4 * 2),
        (nn.Conv1d(4, 6, 3, dilation=2), (4, 10), 6 * 6 * 4 * 3 * 2),
        (Attending("kernel"), (6, 4), PROJECTED + ATTENDED),
        (Attending("matmul"), (6, 4), PROJECTED + ATTENDED),
        (Attending("einsum"), (6, 4), PROJECTED + ATTENDED),
    ],
)
def test_the_hand_count_is_what_a_hand_counts(
    model: nn.Module, shape: tuple[int, ...], multiply_adds: int
) -> None:
    assert training_flops(model, (torch.randn(1, *shape),)) == 2 * multiply_adds


def test_recurrent_layers_apply_every_matrix_at_every_step() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(3, 5, num_layers=2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0][:, -1]

    reading, others = 4 * 5 * 3, 3 * 4 * 5 * 5
    assert training_flops(Last(), (torch.randn(1, 7, 3),)) == 2 * 7 * (2 * reading + 3 * others)


def test_multi_head_attention_counts_its_projections() -> None:
    class Itself(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    projections = 6 * 8 * 8 * (3 * 2 + 3)
    assert training_flops(Itself(), (torch.randn(1, 6, 8),)) == 2 * (projections + ATTENDED)


def test_what_does_not_grow_with_the_batch_is_no_work_of_an_example() -> None:
    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Linear(3, 9)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.table(torch.ones(50, 3)).mean(0)

    assert training_flops(Offset(), (torch.randn(1, 9),)) == 0


def test_the_loss_is_summed_over_heads_and_spread_over_places() -> None:
    logits = torch.randn(2, zoo.CLASSES)
    places = torch.randn(2, zoo.CLASSES, 3)
    targets = torch.tensor([1, 4])
    both = loss({"out": logits, "aux": places, "features": torch.ones(2, 4)}, targets)
    expected = F.cross_entropy(logits, targets) + F.cross_entropy(places, targets[:, None].expand(2, 3))
    assert torch.allclose(both, expected)


def test_a_step_with_a_loss_that_is_not_finite_does_not_work() -> None:
    model = nn.Linear(2, zoo.CLASSES)
    nn.init.constant_(model.weight, float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        train(model, (torch.ones(1, 2),))


def test_a_stage_ends_with_its_processor_time() -> None:
    began = time.process_time()

    def compute() -> None:
        while time.process_time() < began + 30:
            pass

    with pytest.raises(OutOfTime), at_most(0.05):
        compute()
    assert time.process_time() < began + 20


def test_a_stage_that_fails_is_a_cell_and_the_others_run() -> None:
    class Stubborn(nn.Module):
        """Trains, and refuses everything else."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, zoo.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise RuntimeError("shape | mismatch\nand a second line")
            return self.layer(x)

    said: list[int] = []
    entry = zoo.Entry("torch/stubborn", Stubborn, lambda: (torch.ones(1, 4),))
    outcome = examine(entry, lambda outcome: said.append(len(outcome.failures)))
    assert said == sorted(said)
    assert outcome.failures["torch-pruning"] == "RuntimeError: shape / mismatch"
    assert outcome.flops_ratio == pytest.approx(1)
    assert row(outcome)[3] == "fails"


def test_a_model_is_examined_in_a_process_of_its_own() -> None:
    outcome = in_a_process("torch/gru")
    assert outcome.failures == {}
    assert outcome.numbers["trained"] == 1
    assert outcome.numbers["error"] < 1e-5
    # Half of 128 units: (40 + 64 + 2) * 3 * 64 in the layer, 65 * 11 behind it.
    assert outcome.numbers["half_parameters"] == 106 * 3 * 64 + 65 * zoo.CLASSES


def test_what_a_process_had_found_out_before_it_died_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "dying"
    dying.write_text('#!/bin/sh\necho \'{"name": "a/b", "numbers": {"flops": 3}}\'\necho oh no >&2\nexit 9\n')
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    assert in_a_process("a/b") == Outcome("a/b", {"flops": 3}, {"process": "process ended with 9: oh no"})


def test_outcomes_are_kept_until_what_they_depend_on_changes(tmp_path: Path) -> None:
    source = tmp_path / "code.py"
    source.write_text("a = 1")
    asked: list[str] = []

    def look(name: str) -> Outcome:
        asked.append(name)
        return Outcome(name, {"parameters": len(asked)}, whole={"reason": ["Linear"]})

    kept = Kept(tmp_path / "kept", fingerprint([source], ["torch 2"]))
    first = sweep(["a/b", "a/c"], kept, 1, look)
    assert sweep(["a/c", "a/b"], kept, 1, look) == first[::-1]
    kept.forget(["a/c"])
    sweep(["a/b", "a/c"], kept, 1, look)
    assert asked == ["a/b", "a/c", "a/c"]
    source.write_text("a = 2")
    sweep(["a/b"], Kept(tmp_path / "kept", fingerprint([source], ["torch 2"])), 1, look)
    assert asked[3:] == ["a/b"]


GOOD = {"parameters": 100, "half_parameters": 30, "peer_parameters": 30, "flops": 105, "hand_flops": 100}
GOOD |= {"discovery_s": 3, "groups": 2, "error": 1e-7, "trained": 1}


def missed(**changes: float | None) -> list[bool]:
    """Which targets a model misses that is good but for `changes`; all but the number of models."""
    numbers = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return [not verdict.met for verdict in verdicts([Outcome("m", numbers)])[1:]]


def test_a_number_that_is_missing_or_beyond_its_limit_misses_its_target() -> None:
    assert missed() == [False] * 7
    assert missed(discovery_s=21) == missed(discovery_s=None) == [False, True, *[False] * 5]
    assert missed(flops=89) == missed(flops=None) == [False, False, True, *[False] * 4]
    assert missed(peer_parameters=29) == [*[False] * 3, True, *[False] * 3]
    assert missed(peer_parameters=None) == missed()
    assert missed(half_parameters=36, peer_parameters=40) == [*[False] * 4, True, False, False]
    assert missed(error=1e-3) == [*[False] * 5, True, False]
    assert missed(trained=None) == [*[False] * 6, True]
    assert missed(parameters=31e6, half_parameters=9e6, peer_parameters=9e6, discovery_s=50) == missed()


def test_the_page_has_a_row_for_each_model_and_a_line_for_each_target_and_each_failure() -> None:
    whole = {"it fails: size 3": ["Linear"], "it fails: size 4": ["Linear"], "outputs": ["Conv2d"]}
    outcomes = [
        Outcome("a/b", GOOD, {"its training": "RuntimeError: shapes"}, whole),
        Outcome("a/c", {"parameters": 5e6}, {"discovery": "timeout (100 s)", "FLOPs": "ValueError: x"}),
    ]
    lines = page(outcomes, ["torch 2", "timm 1"]).splitlines()
    assert "| a/b | 0.00 | 30.0% | 30.0% \\* | 1.05e-07 | 1.05x | 3.0 | 2 (3) | 1.0e-07 | works |" in lines
    assert "| a/c | 5.00 | – | fails | ValueError | – | timeout (100 s) | – | – | – |" in lines
    assert "| a/c | discovery | timeout (100 s) |" in lines
    assert "| it fails | 2 | 1 | Linear 2 |" in lines
    assert "| outputs | 1 | 1 | Conv2d 1 |" in lines
    assert sum(line.endswith(("Met.", "**Missed**.")) or " Not by: " in line for line in lines) == 8


def test_a_refusal_is_no_traceback() -> None:
    lines = {"BadInput: model is quantised": True, "timeout (100 s)": True, "ValueError: version": False}
    for line, met in lines.items():
        assert verdicts([Outcome("m", GOOD, {"discovery": line})])[1].met == met
    assert verdicts([Outcome("m", GOOD, {"torch-pruning": "RuntimeError"})])[1].met


def test_names_are_unique_and_many_enough() -> None:
    names = [entry.name for entry in zoo.ENTRIES]
    assert len(set(names)) == len(names) >= 60
    assert zoo.named("mobilenet_v2") is zoo.named("torchvision/mobilenet_v2")
    with pytest.raises(KeyError, match="mobilenet_v9"):
        zoo.named("mobilenet_v9")
