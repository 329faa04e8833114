"""The text of a state, of which only what has changed is written anew, is the text of the whole."""

from __future__ import annotations

import json
import math

from slimfleet.compression import Condition
from slimfleet.coordinator.state import VALUES, files_of
from slimfleet.coordinator.state_text import LASTING, RECORDS


def test_what_is_written_bit_by_bit_is_the_whole_state(federate) -> None:
    """Nothing else looks at the records in between, which would have them written anew."""
    federation = federate(rounds=7, selection={"per_round": 2})
    state, environment = federation.coordinator.state, federation.coordinator.environment
    for _ in range(7):
        federation.round()
        text = files_of(state, environment)[VALUES]()
    written = json.loads(text)
    assert RECORDS.validate_python(written["registry"]) == list(state.registry)
    assert len(written["registry"]) > 2
    for name, kind in LASTING.items():
        assert kind.validate_python(written[name]) == getattr(state, name)
    assert files_of(state, environment)[VALUES]() == text


LOW, ENOUGH = Condition(battery=0.01, charging=False), Condition(battery=0.9, charging=False)


def played(federate, name, at_each_end):
    """Five rounds in which a device is left out now and then, one lies and one is given up."""
    federation = federate(state=name, selection={"battery_floor": 0.2})
    for condition in (LOW, ENOUGH, LOW, ENOUGH, ENOUGH):
        federation.world.statuses[11] = condition
        first, *others = federation.plan().dispatches
        federation.receive(first, b"no update", "no report")
        for dispatch in others[:-1]:
            federation.work(dispatch)
        federation.step()
        at_each_end(federation)
    federation.state.registry[12].loss = math.nan
    return federation


def text_of(federation) -> bytes:
    return files_of(federation.state, federation.world)[VALUES]()


def without_the_clock(text: bytes) -> str:
    values = json.loads(text)
    for row in values["rows"]:
        row["wall_time_s"] = 0.0
    return json.dumps(values)


def test_a_text_made_in_parts_is_that_made_at_once(federate) -> None:
    at_once = text_of(played(federate, "once", lambda federation: None))
    in_parts = text_of(played(federate, "parts", text_of))
    assert without_the_clock(in_parts) == without_the_clock(at_once)
    assert b"NaN" in in_parts


def test_what_is_restored_replaces_all_that_was_known(federate, tmp_path) -> None:
    federation = played(federate, "devices", text_of)
    federation.save(tmp_path / "checkpoint")
    saved = text_of(federation)
    federation.run()
    assert text_of(federation) != saved
    federation.restore(tmp_path / "checkpoint")
    assert text_of(federation) == saved
