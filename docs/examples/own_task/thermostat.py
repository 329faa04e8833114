"""Thermostat task: how warm a room will be in an hour, from its last half day and the weather.

Two inputs, outputs in a dictionary, and numbers to predict in place of classes. The homes are simulated: Newton's law
of cooling, each with walls, a heater and habits of its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimfleet.compression import Evaluation, Examples

HOURS = 12
DAYS = 10
HELD_OUT = 20
"""Homes beyond those of the devices, for the evaluation."""


@dataclass(frozen=True)
class Thermostat:
    """Half days of a home's temperatures, each with the next hour's; slimfleet passes these arguments."""

    partitions: int
    alpha: float = 1.0
    seed: int = 0

    name = "thermostat"

    def build_model(self) -> nn.Module:
        return NextHour()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return torch.zeros(1, HOURS, 1), torch.zeros(1, 2)

    def load(self, partition: int) -> Examples:
        inside, outside = self._home(partition)
        starts = np.arange(len(inside) - HOURS)
        history = inside[starts[:, None] + np.arange(HOURS), None]
        weather = np.stack([outside[starts + HOURS - 1], outside[starts + HOURS]], axis=1)
        return Examples(
            inputs=(torch.from_numpy(history), torch.from_numpy(weather)),
            targets=torch.from_numpy(inside[starts + HOURS]),
        )

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return functional.gaussian_nll_loss(outputs["mean"], targets, outputs["log_variance"].exp())

    def evaluate(self, model: nn.Module) -> Evaluation:
        losses = []
        with torch.inference_mode():
            for home in range(self.partitions, self.partitions + HELD_OUT):
                unseen = self.load(home)
                losses.append(float(self.loss(model(*unseen.arguments), unseen.targets)))
        return Evaluation(loss=float(np.mean(losses)))  # no accuracy: there is no right and wrong

    def _home(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Temperatures inside and outside, hour by hour, in units of 5 °C from 20 °C."""
        rng = np.random.default_rng([self.seed, number])
        leak, heater, comfort = rng.uniform(0.05, 0.2), rng.uniform(1, 3), rng.uniform(18, 22)
        hours = np.arange(24 * DAYS)
        outside = 6 - 4 * np.cos(2 * np.pi * hours / 24) + rng.normal(0, 1, len(hours))
        inside = np.empty(len(hours))
        now = comfort
        for hour in hours:
            heating = now < comfort and 6 <= hour % 24 <= 22
            now += leak * (outside[hour] - now) + heater * heating + rng.normal(0, 0.1)
            inside[hour] = now
        return tuple(((each - 20) / 5).astype(np.float32) for each in (inside, outside))


class NextHour(nn.Module):
    """Temperatures [n, hours, 1] and the weather now and in an hour [n, 2] to a mean and a log variance, both [n]."""

    def __init__(self) -> None:
        super().__init__()
        self.history = nn.GRU(1, 32, batch_first=True)
        self.weather = nn.Linear(2, 16)
        self.both = nn.Linear(48, 32)
        self.output = nn.Linear(32, 2)

    def forward(self, history: Tensor, weather: Tensor) -> dict[str, Tensor]:
        seen, _ = self.history(history)
        features = torch.cat([seen[:, -1], self.weather(weather).relu()], dim=1)
        change, log_variance = self.output(self.both(features).relu()).unbind(dim=1)
        return {"mean": history[:, -1, 0] + change, "log_variance": log_variance}
