"""Our own SGD: torch's numbers, without torch's compiler."""

import os
import subprocess
import sys

import pytest
import torch

from slimfleet.compression.training import Sgd

SHAPES = [(3, 4), (4,), ()]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_takes_the_steps_of_torchs_own_bit_for_bit(momentum: float) -> None:
    """The last parameter gets its first gradient in the second step, and none in the third."""
    rng = torch.Generator().manual_seed(3)
    start = [torch.randn(shape, generator=rng) for shape in SHAPES]
    ours, theirs = ([each.clone().requires_grad_() for each in start] for _ in range(2))
    optimizers = Sgd(ours, 0.1, momentum), torch.optim.SGD(theirs, lr=0.1, momentum=momentum)
    for step in range(4):
        gradients = [torch.randn(shape, generator=rng) for shape in SHAPES]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            assert all(each.grad is None for each in parameters)
            for parameter, gradient in zip(parameters[: 3 if step % 2 else 2], gradients, strict=False):
                parameter.grad = gradient.clone()
            optimizer.step()
        assert all(map(torch.equal, ours, theirs))
    assert not any(map(torch.equal, ours, start))


def test_it_goes_on_where_it_was() -> None:
    rng = torch.Generator().manual_seed(5)
    start = [torch.randn(shape, generator=rng) for shape in SHAPES]
    whole, resumed = ([each.clone() for each in start] for _ in range(2))
    one, other = Sgd(whole, 0.1, 0.9), Sgd(resumed, 0.1, 0.9)
    for step in range(4):
        gradients = [torch.randn(shape, generator=rng) for shape in SHAPES]
        for parameters, optimizer in ((whole, one), (resumed, other)):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        if step == 1:
            kept, other = other.state_dict(), Sgd(resumed, 0.1, 0.9)
            other.load_state_dict(kept)
    assert all(map(torch.equal, whole, resumed))


def test_neither_local_training_nor_the_measure_of_its_work_imports_torchs_compiler() -> None:
    code = (
        "import sys, torch; from line_task import Line, line; from slimfleet.client.training import local_sgd;"
        "from slimfleet.compression import Examples, Plan, Training;"
        "from slimfleet.compression.cost import measure_work;"
        "measure_work(line(2.0), (torch.ones(1, 1),), Line().loss);"
        "plan = Plan(width=1.0, local_steps=2, batch_size=16, nmse=0.1);"
        "batches = iter([Examples(torch.ones(2, 1), torch.ones(2, 1))] * 2);"
        "done = local_sgd(line(2.0), Line(), batches, plan, Training(learning_rate=0.1), lambda: None, print);"
        "print(done.steps, 'torch._dynamo' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == "2 False"
