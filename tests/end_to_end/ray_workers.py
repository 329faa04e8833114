"""The workers of a Ray, as its own tables say."""

from __future__ import annotations

from typing import Any

from ray._private import state


def workers_alive() -> list[int]:
    """Process ids of the actors that live."""
    actors: dict[str, dict[str, Any]] = state.actors()
    return [actor["Pid"] for actor in actors.values() if actor["State"] == "ALIVE"]
