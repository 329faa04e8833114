"""Nodes that never register, and nodes that never end a round, among twenty: what they cost the others."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import inf

import pytest
from hand_grid import Clock, Fleet, TimedGrid

from slimfleet.coordinator import Closed, WallEnvironment
from slimfleet.coordinator.transport.flower import run
from slimfleet.simulations.ledger import SimulatedLedger

MUTE, HANGING = 118, 119
PACED = {"surplus": 3, "deadline": "predicted"}
NARROW = {"widths": [0.25], "local_steps": [1]}
ROUNDS = 6


@pytest.fixture
def fleet(federate, phone, monkeypatch):
    """Twenty devices of uneven speed in a wall-clock time that passes where the coordinator sleeps: a run of some
    rounds gives its grid, its coordinator's state, and when each round ended."""

    def make(
        *bad: int,
        rounds: int = ROUNDS,
        count: int = 20,
        per_round: int = 10,
        timeout_s: float = 20.0,
        **tables,
    ):
        selection = {"per_round": per_round, "policy": "uniform"}
        federation = federate(
            rounds=rounds, evaluate_every=rounds, round_timeout_s=timeout_s, selection=selection, planner=NARROW,
            state=f"devices-{len(bad)}-{len(tables)}", **tables,
        )  # fmt: skip
        clock, ends = Clock(1_000.0), []
        for name in ("post", "run"):
            monkeypatch.setattr(sys.modules[f"slimfleet.coordinator.transport.flower.{name}"], "time", clock)
        federation.state.registry = type(federation.state.registry)()
        federation.coordinator.environment = WallEnvironment(lambda: clock.now_s)
        some = federation.devices[11]
        devices = {}
        for number in range(20 - count, 20):
            profile = replace(phone, name=f"phone {number}", train_flops_per_s=1e6 * 1.05**number)
            devices[100 + number] = replace(
                some, number=number, share=number % 4, profile=profile,
                open_ledger=lambda a, profile=profile: SimulatedLedger(profile, a.budget.power_w, 0.5),
            )  # fmt: skip
        silent = {node: inf for node in bad if node == MUTE}
        grid = TimedGrid(Fleet(devices), clock=clock, mute=set(bad), silent=silent)
        observe = lambda event: ends.append(clock.now_s) if isinstance(event, Closed) else None  # noqa: E731
        run(federation.coordinator, grid, None, [observe])
        return grid, federation.state, [1_000.0, *ends]

    return make


def test_one_mute_and_one_hanging_node_of_twenty_cost_a_tenth_of_the_time_at_most(fleet):
    """The same claim on a real SuperLink: `make bench-silent`. Without pacing they cost far more."""
    took = {
        (bad, bool(pacing)): (ends := fleet(*bad, pacing=pacing)[2])[-1] - ends[0]
        for bad in ((), (MUTE, HANGING))
        for pacing in ({}, PACED)
    }
    assert took[(MUTE, HANGING), True] <= 1.1 * took[(), True]
    assert took[(MUTE, HANGING), False] > 1.1 * took[(), False]


def test_a_hanging_node_costs_no_round_more_than_its_deadline_and_is_asked_less(fleet):
    grid, state, _ = fleet(
        HANGING, rounds=40, count=5, per_round=3, timeout_s=3.0, pacing={"deadline": "predicted"}
    )
    asked = grid.rounds_sent()
    assert 0 < asked[HANGING] < 0.7 * min(asked[node] for node in asked if node != HANGING)
    assert state.totals.failed == {"timeout": state.registry[HANGING].failures}
    assert "silent" in state.registry[HANGING].last_reason
    assert max(row.virtual_time_s for row in state.rows) < 3.0
