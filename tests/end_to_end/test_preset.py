"""The codec preset of a scenario is the one that payloads travel in, to the devices and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from flwr.app import Message

from slimfleet.compression.codec.entropy.fields import Reader, read_grid
from slimfleet.compression.wire import Coder, PayloadKind, Sections, unseal
from slimfleet.coordinator import Coordinator
from slimfleet.coordinator.transport.flower import run
from slimfleet.simulations import Scenario, build_fleet, load_scenario
from slimfleet.simulations.grids.flower import EngineGrid, fleet_app
from slimfleet.simulations.grids.local import LocalEngine
from slimfleet.simulations.scenario import build_task_of
from slimfleet.simulations.world import VirtualWorld, node_of

TINY = {
    "rounds": "2",
    "fleet.devices": "20",
    "selection.per_round": "8",
    "fleet.dropout": "0.0",
    "codec.downlink_bits": "3",  # with more, a whole model may be smaller under tables, and then goes so
}
MIXED = 0x01
"""The bit of the contexts section that says `small` (docs/wire-format.md)."""


class Overhears(LocalEngine):
    """Devices in this process, and every payload that goes out or comes back."""

    def __init__(self, scenario: Scenario, state: Path) -> None:
        super().__init__(fleet_app(scenario, state))
        self.payloads: list[bytes] = []

    def submit(self, messages: Sequence[Message]) -> None:
        self.payloads += payloads_in(messages, "model")
        super().submit(messages)

    def collect(self, timeout_s: float) -> list[Message]:
        answers = super().collect(timeout_s)
        self.payloads += payloads_in(answers, "update")
        return answers


def payloads_in(messages: Sequence[Message], record: str) -> list[bytes]:
    records = [m.content.array_records for m in messages if m.has_content()]
    return [found[record]["payload"].data for found in records if record in found]


def coding_of(payload: bytes) -> tuple[PayloadKind, Coder, bool]:
    """PayloadKind, coder, and whether contexts are mixed. The digits' model has nothing but weights."""
    header, body = unseal(payload)
    assert header.sections == Sections.WEIGHTS
    if header.coder is not Coder.CONTEXTS:
        return header.kind, header.coder, False
    reader = Reader(body)
    read_grid(reader, header.tensors)
    return header.kind, header.coder, bool(reader.byte() & MIXED)


@pytest.fixture(scope="module")
def travelled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[bytes]]:
    """Every payload of a run of two rounds in a preset; each is run once."""
    return cache(lambda preset: payloads_of_a_run(tmp_path_factory.mktemp(preset), preset))


def payloads_of_a_run(state: Path, preset: str) -> list[bytes]:
    scenario = load_scenario("digits", TINY | {"codec.preset": preset})
    engine = Overhears(scenario, state)
    fleet = build_fleet(scenario.fleet, scenario.coordinator.seed)
    coordinator = Coordinator(build_task_of(scenario), scenario.coordinator, VirtualWorld(fleet))
    grid = EngineGrid([node_of(device.number) for device in fleet], engine)
    run(coordinator, grid, None, everyone=True)
    assert coordinator.state.totals.rejected == coordinator.state.totals.failed == {}
    assert sum(row.completed for row in coordinator.state.rows) == 16
    return engine.payloads


@pytest.mark.parametrize(
    ("preset", "coder", "mixed"),
    [("small", Coder.CONTEXTS, True), ("fast", Coder.CONTEXTS, False), ("portable", Coder.TABLES, False)],
)
def test_every_payload_both_ways_is_in_the_preset_of_the_scenario(
    travelled: Callable[[str], list[bytes]], preset: str, coder: Coder, mixed: bool
) -> None:
    codings = set(map(coding_of, travelled(preset)))
    assert {coding[1:] for coding in codings} == {(coder, mixed)}
    assert {kind for kind, *_ in codings} >= {PayloadKind.UPDATE, PayloadKind.MODEL}


def test_small_takes_fewer_bytes_than_fast_for_the_same_first_models(
    travelled: Callable[[str], list[bytes]],
) -> None:
    """Round one sends both fleets the same model, to the same devices."""
    first = {p: travelled(p)[:8] for p in ("small", "fast")}
    assert {coding_of(payload)[0] for payloads in first.values() for payload in payloads} == {
        PayloadKind.MODEL
    }
    assert not set(first["small"]) & set(first["fast"])
    small, fast = (sum(map(len, first[preset])) for preset in ("small", "fast"))
    assert small < fast
