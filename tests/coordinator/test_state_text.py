"""The text of a state, of which only what has changed is written anew, is the text of the whole."""

from __future__ import annotations

import json

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
