"""The plain loop, one process and one thread, and how fast the same convolutions run by themselves:
`plain_loop.py MODEL COHORTS FOLDER`."""

import json
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn import functional
from work import BATCH, EXAMPLES, LEARNING_RATE, Cohorts, finish, first

torch.set_num_threads(1)
STEPS = EXAMPLES // BATCH


def loop(model: str, cohorts: Cohorts, folder: Path) -> None:
    net = first(model)
    weights = {name: each.detach().clone() for name, each in net.named_parameters()}
    ends_s = []
    for number in range(len(cohorts.devices)):
        total = {name: torch.zeros_like(each, dtype=torch.float64) for name, each in weights.items()}
        for place in range(cohorts.devices.shape[1]):
            inputs, labels = cohorts.data(model, number, place)
            net.load_state_dict(weights)
            optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
            for begin in range(0, EXAMPLES, BATCH):
                optimizer.zero_grad()
                taken = slice(begin, begin + BATCH)
                functional.cross_entropy(net(inputs[taken]), labels[taken]).backward()
                optimizer.step()
            for name, each in net.named_parameters():
                total[name] += each.detach()
        weights = {name: (each / cohorts.devices.shape[1]).float() for name, each in total.items()}
        ends_s.append(time.perf_counter())
    finish("plain", model, ends_s, weights, folder)


def raw(folder: Path) -> None:
    """Seconds that a device's convolutions alone take, forwards and backwards, in the layout that is fastest."""
    fastest = float("inf")
    for layout in (torch.contiguous_format, torch.channels_last):
        seconds = 0.0
        for channels, filters, side in ((1, 16, 28), (16, 32, 14)):
            layer = nn.Conv2d(channels, filters, 3, padding=1).to(memory_format=layout)
            inputs = torch.randn(BATCH, channels, side, side).contiguous(memory_format=layout)
            inputs.requires_grad_(channels > 1)
            gradient = torch.randn(BATCH, filters, side, side).contiguous(memory_format=layout)
            taken = []
            for _ in range(60):
                began = time.perf_counter()
                layer(inputs).backward(gradient)
                taken.append(time.perf_counter() - began)
            seconds += STEPS * median(taken)
        fastest = min(fastest, seconds)
    (folder / "raw.json").write_text(json.dumps(fastest))


loop(sys.argv[1], Cohorts.read(Path(sys.argv[2])), Path(sys.argv[3]))
if sys.argv[1] == "cnn":
    raw(Path(sys.argv[3]))
