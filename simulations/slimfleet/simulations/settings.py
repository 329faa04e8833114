"""Settings of a scenario: its task, its fleet and its run, beside the coordinator's own settings tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from slimfleet.client.policy import Policy
from slimfleet.compression.types import Celsius, NotNegative, Positive, Share
from slimfleet.coordinator.settings import CoordinatorSettings, tables_of

__all__ = ["DEFAULT_MIX", "FleetSettings", "RunSettings", "Scenario", "TaskSettings"]

Noise = Annotated[float, Ge(0), Le(2)]
"""Standard deviation of a natural logarithm."""

DEFAULT_MIX: Mapping[str, float] = {
    "phone_entry_2017": 20.0,
    "phone_mid_2019": 30.0,
    "phone_mid_qcs6490": 12.0,
    "phone_high_2019": 12.0,
    "phone_flagship_a18pro": 5.0,
    "phone_lte_only": 6.0,
    "pi_zero_2w": 4.0,
    "pi_3b_plus": 3.0,
    "pi_4b": 4.0,
    "pi_5": 2.0,
    "linux_sbc_qrb2210": 2.0,
}
"""Mostly phones, a few of them on LTE, and some boards. The weights are a choice, not a census."""

_FLAT_LIST = re.compile(r"\[\n((?: {4}[^\[\]{}\n]+,\n)+)\]")
"""A list of plain values as tomli-w lays it out, one value a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """`[task]`: what is learned, and how its examples are spread over the devices."""

    name: Annotated[str, MinLen(1)] = "digits"
    """A built-in task (docs/tasks.md), or the `module:object` of a user's own."""
    import_from: tuple[str, ...] = ()
    """Folders that hold the modules of a user's own task and server policies, relative to the scenario's file. By
    default they are looked for beside that file, then in the current folder."""
    alpha: Positive = 0.5
    """Concentration of the Dirichlet distribution over labels: the smaller, the more devices differ; inf is even."""
    partitions: Annotated[int, Ge(0), Le(10_000_000)] = 0
    """Parts that the examples are cut into; device k holds part k modulo this number. A fleet may then be larger than
    the data. 0 gives each device a part of its own."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """`[fleet]`: which devices there are, and how far they stray from their nominal profiles.

    Noise and spread are standard deviations of a natural logarithm.
    """

    devices: Annotated[int, Ge(1), Le(10_000_000)] = 200
    """Size of the fleet."""
    mix: Mapping[str, Annotated[float, Ge(0), Le(1e9)]] = field(default_factory=lambda: dict(DEFAULT_MIX))
    """Device profile -> relative weight."""
    availability: Annotated[float, Gt(0), Le(1)] = 0.9
    """Mean share of rounds in which a device can be reached; devices differ, evenly spread around it."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.02
    """Probability that a device vanishes within a round."""
    speed_noise: Noise = 0.1
    """Of compute speed, from round to round (other load, heat)."""
    power_noise: Noise = 0.1
    """Of training power, from device to device."""
    network_spread: Noise = 0.4
    """Of network rates, from device to device."""
    network_noise: Noise = 0.25
    """Of network rates, from round to round."""
    start_charge: tuple[Share, Share] = (0.4, 1.0)
    """Range of the batteries' state of charge at the start."""
    capacity: Annotated[str, MinLen(1)] = "profiles"
    """How fast devices and their links really are: `profiles` around their profiles', by the spreads above;
    `fedscale-like` by quantiles of FedScale's devices; else the path of FedScale's file `client_device_capacity`."""
    presence: Annotated[str, MinLen(1)] = "share"
    """When a device can be reached: `share` in as many rounds as `availability` says; `fedscale-like` while it is on
    its charger, in sessions by quantiles of FedScale's devices; else the path of FedScale's file `client_behave_trace`.
    A session that ends within a round ends the round; devices on mains can always be reached."""
    dropout_phase: Literal["training", "any"] = "training"
    """What a device that vanishes has spent: `training` all of its radio and a share of its computing, `any` what its
    download, training and upload had taken by then."""
    heat_s: NotNegative = 0.0
    """Time in which the heat of a device at rest falls to 1/e: phones slow down while they are hot. 0: none does."""
    network_evening: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share by which network rates are lower at nine in the evening than at nine in the morning."""
    faults: Mapping[str, Share] = field(default_factory=dict)
    """Kind of misbehaviour -> share of the devices that show it; `simulations/faults.py` has the kinds."""
    metered: Mapping[str, Share] = field(default_factory=dict)
    """Device class -> share of the rounds in which the link of such a device is metered; unknown for other classes."""
    temperature_c: Mapping[str, tuple[Celsius, Celsius]] = field(default_factory=dict)
    """Device class -> range of its temperature from round to round; unknown for other classes."""
    free_memory: Mapping[str, tuple[Share, Share]] = field(default_factory=dict)
    """Device class -> range of the share of its memory that is free, from round to round; unknown for other classes."""
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """`[run]`: how the simulation itself is run."""

    engine: Literal["loop", "cohort"] = "loop"
    """`cohort` trains devices whose plans share a shape together, in a few messages: faster, and equal to `loop` but
    for rounding, so with other model bytes. Either gives the same bytes for any number of workers."""
    group_size: Annotated[int, Ge(0), Le(1_000)] = 0
    """Devices that the engine `cohort` trains at once. 0 takes 2 to 32, the fewer the larger the model and its
    activations are, and 128 on a GPU."""
    device: Literal["cpu", "auto"] = "cpu"
    """Where the engine `cohort` trains on the local backend: `auto` takes a CUDA GPU where torch finds one. It rounds
    in another way than a processor, so the model bytes are others."""
    workers: Annotated[int, Ge(0)] = 0
    """Processes that train devices on the Ray backend. 0 has one per processor core, also of machines that join an
    existing cluster later."""
    ray_address: str = ""
    """Address `HOST:PORT` of an existing Ray cluster, or `auto` for the one that this machine belongs to; empty starts
    Ray on this machine alone, for this run."""
    attempts: Annotated[int, Ge(1), Le(100)] = 3
    """Workers on the Ray backend that may die over one device's work before it is given up."""
    baseline_rounds: Annotated[int, Ge(1)] = 30
    """Rounds of plain float32 federated averaging that `--baseline` runs for comparison."""
    device_timeout_s: Positive = 120.0
    """Longest real time one device may work on the Ray backend before it is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All that a simulation needs. In a file, the coordinator's tables stand beside `[task]`, `[fleet]` and `[run]`."""

    task: TaskSettings = field(default_factory=TaskSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    run: RunSettings = field(default_factory=RunSettings)
    coordinator: CoordinatorSettings = field(default_factory=CoordinatorSettings)

    @property
    def partitions(self) -> int:
        """Parts that the examples are cut into."""
        return min(self.task.partitions, self.fleet.devices) or self.fleet.devices

    def tables(self) -> dict[str, Any]:
        """The tables of the file that says this scenario, every default written out."""
        own = {"task": asdict(self.task), "fleet": asdict(self.fleet), "run": asdict(self.run)}
        return tables_of(self.coordinator) | own

    def to_toml(self) -> str:
        """That file as text; `load_scenario` reads the same scenario back."""
        import tomli_w  # of an extra: a plain installation still shows its help

        return _FLAT_LIST.sub(_on_one_line, tomli_w.dumps(self.tables()))


def _on_one_line(found: re.Match[str]) -> str:
    return f"[{' '.join(line.strip() for line in found[1].splitlines()).removesuffix(',')}]"
