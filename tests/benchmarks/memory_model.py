"""Fit R0, c and k of the memory model to real peaks of PyTorch on this machine.

    python tests/benchmarks/memory_model.py

Every point is a process of its own that trains a ~100k-parameter CNN at one width and batch size and reports
its VmHWM. (Not ru_maxrss: a child process inherits that of the parent which forked it.) Half of the points
are fitted, the other half shows how far the fit, with its margin, can be trusted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

WIDTHS = (0.25, 0.5, 0.75, 1.0)
BATCHES = (8, 16, 32, 64, 128)
STEPS = 20
MB = 1e6


def peak_bytes() -> int:
    """Peak resident memory of this process since it started (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def train(width: float, batch: int) -> dict[str, float]:
    """Train in this process; its peaks before and after, and what the model would predict them from."""
    import torch
    from torch import nn

    from slimfleet.compression.cost import measure_work

    base = peak_bytes()
    torch.set_num_threads(1)
    first, second, hidden = int(16 * width), int(32 * width), int(56 * width)
    model = nn.Sequential(
        *(nn.Conv2d(1, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(second * 49, hidden), nn.ReLU(), nn.Linear(hidden, 10)),
    )
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(STEPS):
        inputs, targets = torch.randn(batch, 1, 28, 28), torch.randint(10, (batch,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    peak = peak_bytes()
    work = measure_work(model, (torch.zeros(1, 1, 28, 28),), nn.functional.cross_entropy)
    return {
        "width": width,
        "batch": batch,
        "base": base,
        "peak": peak,
        "parameters": 3 * work.parameter_bytes,
        "activations": batch * work.activation_bytes_per_example,
    }


def main() -> None:
    """Run every point, fit, print."""
    import numpy as np

    points = []
    for width in WIDTHS:
        for batch in BATCHES:
            command = [sys.executable, __file__, str(width), str(batch)]
            points.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    base = float(np.median([p["base"] for p in points]))
    activations = np.array([p["activations"] for p in points])
    rest = np.array([p["peak"] - p["parameters"] for p in points]) - base
    fitted = np.arange(len(points)) % 2 == 0
    k, c = np.polyfit(activations[fitted], rest[fitted], 1)
    print("width batch  base MB  activations MB  peak MB  predicted MB  error")
    worst = 0.0
    for p, used in zip(points, fitted, strict=True):
        predicted = base + p["parameters"] + c + k * p["activations"]
        error = predicted / p["peak"] - 1
        worst = worst if used else min(worst, error)
        print(
            f"{p['width']:5} {p['batch']:5} {p['base'] / MB:8.1f} {p['activations'] / MB:15.1f} "
            f"{p['peak'] / MB:8.1f} {predicted / MB:13.1f} {error:6.1%}{'' if used else '  held out'}"
        )
    print(f"R0 = {base / MB:.1f} MB, c = {c / MB:.1f} MB, k = {k:.2f}")
    print(f"worst held-out under-prediction {worst:.1%}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(train(float(sys.argv[1]), int(sys.argv[2]))))
    else:
        main()
