"""Metrics of the coordinator in one table: name, kind, meaning, labels with all their values, buckets.

Base units, `_total` on counters, shares in 0..1. No label ever names a device: ten thousand devices would
be two hundred thousand lines a scrape. A label's values are listed here, so that every series exists, at 0,
before its first event; only device classes and the version are not known beforehand. All metrics carry the
label `federation` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from slimfleet.compression.errors import POLICY_REASONS
from slimfleet.compression.types import PHASES, EnergySource
from slimfleet.compression.wire import REASONS
from slimfleet.coordinator.observing.events import Phase
from slimfleet.coordinator.refusal_status import STATUS

MetricKind = Literal["counter", "gauge", "histogram"]
ClientState = Literal["available", "busy", "ineligible", "offline"]
RoundOutcome = Literal["completed", "failed"]
Direction = Literal["uplink", "downlink"]
Split = Literal["train", "validation", "device"]
CLIENT_STATES: tuple[ClientState, ...] = get_args(ClientState)

OTHER = "other"
"""Label value of a word from outside that is on no list."""

OPEN: tuple[str, ...] = ()
"""Values that are only known at run time; the exporter bounds their number."""

TASK_OUTCOMES = ("ok", "dropout", "timeout", "late", "stale", "refused", "rejected", "error")

CONSTRAINTS = (
    "energy_j",
    "power_w",
    "memory_bytes",
    "deadline_s",
    "uplink_bytes",
    "downlink_bytes",
    "evaluation_j",
    "battery",
    "policy",
    "reputation",
    "planner",
    OTHER,
)
REJECTIONS = (*sorted(REASONS), "message", OTHER)
TELEMETRY_FLAWS = ("nonfinite", "negative", "too_large")

ROUND_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
TASK_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TASK_JOULES = (0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
STALENESS = (0, 1, 2, 3, 5, 10, 20, 50)
RATIOS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `labels` maps each label to all its values."""

    name: str
    kind: MetricKind
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    buckets: tuple[float, ...] = ()
    from_zero: bool = True
    """Whether 0 is true before the first event. It is not for an accuracy."""


METRICS = (
    Metric("slimfleet_build_info", "gauge", "Always 1; the version is a label", {"version": OPEN}),
    Metric("slimfleet_run_active", "gauge", "1 while a run is under way"),
    Metric("slimfleet_round_current", "gauge", "Number of the latest round"),
    Metric(
        "slimfleet_clients_awaited",
        "gauge",
        "Devices that the next round still needs before it can begin; 0 while none is missing",
    ),
    Metric(
        "slimfleet_rounds_total",
        "counter",
        "Rounds that ended, by outcome: failed ones had too few updates and were not applied",
        {"outcome": get_args(RoundOutcome)},
    ),
    Metric(
        "slimfleet_round_updates",
        "gauge",
        "Updates that the open round, or buffer, has so far",
    ),
    Metric(
        "slimfleet_round_updates_wanted",
        "gauge",
        "Updates with which a round, or buffer, is full",
        from_zero=False,
    ),
    Metric(
        "slimfleet_last_progress_timestamp_seconds",
        "gauge",
        "Unix time at which the run last got on",
        from_zero=False,
    ),
    Metric(
        "slimfleet_round_phase_duration_seconds",
        "histogram",
        "Wall-clock time of each phase of a round",
        {"phase": get_args(Phase)},
        ROUND_SECONDS,
    ),
    Metric(
        "slimfleet_clients",
        "gauge",
        "Devices, by class and state",
        {"device_class": OPEN, "state": CLIENT_STATES},
    ),
    Metric(
        "slimfleet_clients_skipped_total",
        "counter",
        "Devices that fitted no plan, by the constraint that bound",
        {"device_class": OPEN, "constraint": CONSTRAINTS},
    ),
    Metric(
        "slimfleet_client_tasks_total",
        "counter",
        "Devices' rounds, by how they ended",
        {"device_class": OPEN, "outcome": TASK_OUTCOMES},
    ),
    Metric(
        "slimfleet_policy_refusals_total",
        "counter",
        "Rounds that devices refused or broke off by their own policy, by reason; they count as refused tasks too",
        {"reason": POLICY_REASONS},
    ),
    Metric(
        "slimfleet_client_task_duration_seconds",
        "histogram",
        "Duration of one device's round, as reported",
        {"device_class": OPEN},
        TASK_SECONDS,
    ),
    Metric(
        "slimfleet_client_energy_joules_total",
        "counter",
        "Energy that devices reported",
        {"device_class": OPEN, "component": ("compute", "radio"), "source": get_args(EnergySource)},
    ),
    Metric(
        "slimfleet_client_phase_joules_total",
        "counter",
        "Energy that devices reported, by phase of the round",
        {"device_class": OPEN, "phase": PHASES},
    ),
    Metric(
        "slimfleet_client_round_energy_joules",
        "histogram",
        "Energy of one device's round, as reported",
        {"device_class": OPEN},
        TASK_JOULES,
    ),
    Metric("slimfleet_run_energy_joules", "gauge", "Energy of the whole run; survives a restart"),
    Metric(
        "slimfleet_budget_violations_total",
        "counter",
        "Budgets that a device's spent cost exceeded",
        {"constraint": CONSTRAINTS},
    ),
    Metric(
        "slimfleet_update_bytes_total",
        "counter",
        "Bytes of models and updates: raw as plain arrays, wire as sent",
        {"device_class": OPEN, "direction": get_args(Direction), "stage": ("raw", "wire")},
    ),
    Metric(
        "slimfleet_update_compression_ratio",
        "histogram",
        "Raw over wire bytes of one payload",
        {"direction": get_args(Direction)},
        RATIOS,
    ),
    Metric(
        "slimfleet_update_size_error_ratio",
        "gauge",
        "Typical relative error of the sizes that the planner predicts for updates",
    ),
    Metric(
        "slimfleet_updates_rejected_total",
        "counter",
        "Updates that were not used, by reason; they count as tasks with outcome rejected too",
        {"reason": REJECTIONS},
    ),
    Metric(
        "slimfleet_update_staleness_steps",
        "histogram",
        "Steps of the server between a device's model and the use of its update",
        buckets=STALENESS,
    ),
    Metric(
        "slimfleet_nonfinite_values_total",
        "counter",
        "NaN or infinity where a number should be",
        {"where": ("update", "loss")},
    ),
    Metric(
        "slimfleet_model_accuracy_ratio",
        "gauge",
        "Accuracy of the global model, 0..1",
        {"split": ("validation", "device")},
        from_zero=False,
    ),
    Metric(
        "slimfleet_device_class_accuracy_ratio",
        "gauge",
        "Accuracy of the model that devices received, on what those of one class hold out, 0..1",
        {"device_class": OPEN},
        from_zero=False,
    ),
    Metric(
        "slimfleet_device_accuracy_ratio",
        "gauge",
        "Accuracy of the model that devices received, with one vote a device: the worst decile is the mean over the "
        "tenth that is served worst, spread the standard deviation",
        {"statistic": ("mean", "worst_decile", "spread")},
        from_zero=False,
    ),
    Metric(
        "slimfleet_model_loss",
        "gauge",
        "Loss of the global model",
        {"split": get_args(Split)},
        from_zero=False,
    ),
    Metric(
        "slimfleet_telemetry_rejected_total",
        "counter",
        "Reported numbers that were left out or cut to the largest plausible one",
        {"reason": TELEMETRY_FLAWS},
    ),
    Metric(
        "slimfleet_gateway_refusals_total",
        "counter",
        "Calls and connections that the gateway did not serve, by reason",
        {"reason": (*STATUS, OTHER)},
    ),
    Metric("slimfleet_checkpoint_bytes", "gauge", "Size of the last checkpoint", from_zero=False),
    Metric(
        "slimfleet_checkpoint_timestamp_seconds", "gauge", "Unix time of the last checkpoint", from_zero=False
    ),
)
