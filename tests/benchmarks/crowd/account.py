"""The account of a run: every plan by its number, on both sides."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Account:
    """How often each plan was given, trained, reported, accepted and used; and what trouble there was."""

    given: Counter[int]
    trained: Counter[int]
    reported: Counter[int]
    accepted: Counter[int]
    used: Counter[int]
    trouble: Counter[str]
    closed_at: tuple[float, ...]
    """When each round was closed, in seconds since 1970."""
    other_answers: int
    """Answers that were not accepted, or belong to no plan."""

    def wrong(self) -> list[str]:
        """What is not as it should be: each plan given, trained, accepted and used once, and reported."""
        found = []
        for name in ("given", "trained", "accepted", "used"):
            counts: Counter[int] = getattr(self, name)
            if missing := self.given.keys() - counts.keys():
                found.append(f"{len(missing)} plans were not {name}")
            if foreign := counts.keys() - self.given.keys():
                found.append(f"{len(foreign)} plans were {name} that were never given")
            if twice := sum(count > 1 for count in counts.values()):
                found.append(f"{twice} plans were {name} more than once")
        if self.reported.keys() != self.given.keys():
            found.append(
                f"{len(self.reported.keys() ^ self.given.keys())} reports do not belong to the plans"
            )
        if self.other_answers:
            found.append(f"{self.other_answers} answers were not accepted")
        found += [f"{count} times: {what}" for what, count in self.trouble.items() if "taken" in what]
        return found


def account(server: Iterable[str], devices: Sequence[Iterable[str]]) -> Account:
    """The account from the lines that the server and the processes of devices have written."""
    events: list[dict[str, Any]] = [json.loads(line) for line in server]
    told: list[dict[str, Any]] = [json.loads(line) for lines in devices for line in lines]
    own = ("trained", "reported")
    return Account(
        given=Counter(each["given"] for each in events if "given" in each),
        trained=Counter(each["plan"] for each in told if each["what"] == "trained"),
        reported=Counter(each["plan"] for each in told if each["what"] == "reported"),
        accepted=Counter(each["answer"] for each in events if each.get("verdict") == "accepted"),
        used=Counter(plan for each in events for plan in each.get("used", ())),
        trouble=Counter(each["what"] for each in told if each["what"] not in own),
        closed_at=tuple(each["at"] for each in events if "closed" in each),
        other_answers=sum(each.get("verdict", "accepted") != "accepted" for each in events),
    )


def read(folder: Path) -> Account:
    """The account of the files in a folder."""
    devices = [path.read_text().splitlines() for path in sorted(folder.glob("devices-*.jsonl"))]
    return account((folder / "events.jsonl").read_text().splitlines(), devices)
