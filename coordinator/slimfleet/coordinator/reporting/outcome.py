"""Outcome of a run: one record that the reports, tables and plots all read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slimfleet.compression.task import central_evaluation
from slimfleet.coordinator.learning.best import Best
from slimfleet.coordinator.learning.device_evaluation import table_of
from slimfleet.coordinator.learning.row import PhaseTotal, RoundRow
from slimfleet.coordinator.receiving.answer import OUTCOMES
from slimfleet.coordinator.settings import Budgets

if TYPE_CHECKING:
    from slimfleet.coordinator.coordinator import Coordinator
    from slimfleet.coordinator.environment import Environment
    from slimfleet.coordinator.registry import Registry

__all__ = ["DeviceRow", "RunRecord", "named", "record_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device over the whole run; sums are over its rounds, spent costs throughout."""

    device: int
    """Number of the device in the fleet."""
    name: str
    """Of its profile."""
    device_class: str
    participations: int
    """Rounds whose update was used."""
    skips: int
    rejections: int
    failures: int
    energy_j: float
    """As far as it is known, of rounds without a report too."""
    uplink_bytes: int
    downlink_bytes: int
    time_s: float
    """Spent at work, in the environment's time, by its reports."""
    mean_width: float | None
    """Over its participations; None without any."""
    battery_start: float | None
    """State of charge at the start, 0..1; None on mains or not known."""
    battery_left: float | None
    """State of charge at the end, likewise."""
    violations: int
    last_reason: str = ""
    """Why it last got its plan, or none; empty when it was never considered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run: round by round, device by device, and what went wrong, counted."""

    scenario: str
    seed: int
    backend: str
    devices: int
    rows: tuple[RoundRow, ...]
    device_rows: tuple[DeviceRow, ...]
    budgets: Budgets = field(default_factory=Budgets)
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Constraint that no plan could keep -> number of times."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Reason an update was refused -> number of times."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Why no usable answer came -> number of times."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """How a device's part of a round ended -> number of times."""
    violations: Mapping[str, int] = field(default_factory=dict)
    """Budget constraint broken, judged by spent cost -> number of times."""
    phases: Mapping[str, PhaseTotal] = field(default_factory=dict)
    """Phase of a round -> what devices report of it."""
    best: Best | None = None
    """The best model; None where none was evaluated."""
    evaluation: Mapping[str, Any] | None = None
    """What devices made of the model, on examples that they hold out; None where they evaluated nothing."""
    has_test_data: bool = True
    """Whether the coordinator evaluated on data of its own."""
    energy_source: str = "simulated"
    """An `EnergySource`, or several that are named as mixed."""


LISTED = 20_000
"""Devices of a fleet that is listed in full; of a larger one, those that were considered for work."""


def record_of(coordinator: Coordinator, scenario: str, backend: str, first_node: int = 0) -> RunRecord:
    """What a run has come to so far. Devices are numbered from 0, nodes from `first_node`."""
    state, settings = coordinator.state, coordinator.settings
    totals = state.totals
    return RunRecord(
        scenario=scenario,
        seed=settings.seed,
        backend=backend,
        devices=len(state.registry),
        rows=tuple(state.rows),
        device_rows=_device_rows(state.registry, coordinator.environment, first_node),
        budgets=settings.budget,
        skipped=dict(totals.skipped),
        rejected=dict(totals.rejected),
        failed=dict(totals.failed),
        outcomes={outcome: totals.outcomes.get(outcome, 0) for outcome in OUTCOMES},
        violations=dict(totals.violations),
        phases=dict(totals.phases),
        best=state.best,
        evaluation=table_of(state.registry, len(state.rows)),
        has_test_data=central_evaluation(coordinator.task) is not None,
        energy_source=named(totals.energy_sources) or ("unknown" if backend == "deployed" else "simulated"),
    )


def named(sources: Mapping[str, int]) -> str:
    """The sources of joules in words; empty where there are none."""
    names = sorted(sources)
    return f"mixed: {' and '.join(names)}" if len(names) > 1 else "".join(names)


def _device_rows(registry: Registry, environment: Environment, first_node: int) -> tuple[DeviceRow, ...]:
    rows = []
    # The others of a large fleet have spent nothing, and a row each is more than anybody reads.
    is_small = len(registry) <= LISTED
    records = (registry[node] for node in registry.columns.node.tolist()) if is_small else iter(registry)
    for record in records:
        start, left = environment.charge(record.node)
        rows.append(
            DeviceRow(
                device=record.node - first_node,
                name=record.profile.name,
                device_class=record.profile.device_class,
                participations=record.participations,
                skips=record.skips,
                rejections=record.rejections,
                failures=record.failures,
                energy_j=record.energy_j,
                uplink_bytes=record.uplink_bytes,
                downlink_bytes=record.downlink_bytes,
                time_s=record.time_s,
                mean_width=record.width_sum / record.participations if record.participations else None,
                battery_start=start,
                battery_left=left,
                violations=record.violations,
                last_reason=record.last_reason,
            )
        )
    return tuple(rows)
