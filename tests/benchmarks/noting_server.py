"""`slimfleet-coordinator serve`, with a line of JSON for every plan that is given, every answer, and every round.

python -m noting_server federation.toml events.jsonl
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TextIO

from slimfleet.compression.edge.logs import start_logs
from slimfleet.coordinator import Answer, Closed, Event, Planned
from slimfleet.coordinator.gateway import read_served, serve


def noting(file: TextIO):
    """An observer that writes events down."""

    def note(event: Event) -> None:
        match event:
            case Planned():
                lines = [{"given": each.plan_id} for each in event.dispatches]
            case Answer():
                lines = [
                    {"answer": each.plan_id if (each := event.dispatch) else None, "verdict": event.verdict}
                ]
            case Closed():
                used = [
                    each.dispatch.plan_id
                    for each in event.answers
                    if each.verdict == "accepted" and each.dispatch is not None
                ]
                lines = [{"closed": event.row.round, "used": used}]
            case _:
                lines = []
        file.writelines(json.dumps({**line, "at": time.time()}) + "\n" for line in lines)
        file.flush()

    return note


def main() -> None:
    """Serve."""
    start_logs("info", as_json=False)
    with Path(sys.argv[2]).open("a") as file:
        serve(read_served(Path(sys.argv[1])), [noting(file)])


if __name__ == "__main__":
    main()
