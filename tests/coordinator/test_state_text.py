"""Text of a state: one that was written round after round is that of a state that was written once."""

import json
import math

from pydantic_core import to_json

from slimfleet.compression import Condition
from slimfleet.coordinator.state_text import LASTING, RECORDS, StateText

NOT_ENOUGH, ENOUGH = Condition(battery=0.01, charging=False), Condition(battery=0.9, charging=False)
BATTERIES = [NOT_ENOUGH, ENOUGH, NOT_ENOUGH, ENOUGH, ENOUGH]


def played(federate, name, saves):
    """A federation after rounds in which a device is left out, one lies and one is given up; `saves` does something at
    the end of each."""
    federation = federate(state=name, selection={"battery_floor": 0.2})
    for battery in BATTERIES:
        federation.world.statuses[11] = battery
        first, *others = federation.plan().dispatches
        federation.receive(first, b"no update", "no report")
        for dispatch in others[:-1]:
            federation.work(dispatch)
        federation.step()
        saves(federation)
    federation.state.registry[12].loss = math.nan
    return federation


def text_of(federation):
    return federation.state.text.of(federation.state, federation.world, {"format": 1})


def parsed(text):
    return json.loads(text, parse_constant=str)  # NaN is equal to no NaN


def without_the_clock(text):
    values = json.loads(text)
    for row in values["rows"]:
        row["wall_time_s"] = 0.0
    return json.dumps(values)


def test_a_text_made_in_parts_is_that_made_at_once(federate):
    at_once = text_of(played(federate, "once", lambda federation: None))
    in_parts = text_of(played(federate, "parts", text_of))
    assert without_the_clock(in_parts) == without_the_clock(at_once)


def test_it_is_written_as_the_types_say(federate):
    state = (federation := played(federate, "devices", text_of)).state
    records = RECORDS.dump_python(list(state.registry))
    assert any(record["skips"] for record in records)
    expected = {name: kind.dump_python(getattr(state, name)) for name, kind in LASTING.items()}
    expected |= {"format": 1, "registry": records, "environment": federation.world.to_json()}
    expected |= {"saved_s": federation.world.now_s(), "in_flight": []}
    text = text_of(federation)
    assert parsed(text) == parsed(to_json(expected, inf_nan_mode="constants"))
    assert b"NaN" in text


def test_another_state_has_a_text_of_its_own(federate, tmp_path):
    """What is restored replaces all that was known, devices of the same names too."""
    federation = played(federate, "devices", text_of)
    federation.save(tmp_path / "checkpoint")
    later = text_of(federation)
    federation.run()
    assert text_of(federation) != later
    federation.restore(tmp_path / "checkpoint")
    assert text_of(federation) == later
    assert isinstance(federation.state.text, StateText)
