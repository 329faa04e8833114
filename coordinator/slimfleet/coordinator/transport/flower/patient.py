"""Patience: what a run asks of a Flower grid, and a grid that is asked again while its SuperLink is too busy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from flwr.app import Message

__all__ = ["MessageGrid", "PatientGrid"]

PAUSES_S = (0.5, 2.0, 8.0, 30.0)
"""Before each further attempt."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class MessageGrid(Protocol):
    """Carries messages to nodes and back. Flower's `Grid` is one."""

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are connected."""
        ...

    def push_messages(self, messages: Sequence[Message]) -> Iterable[str]:
        """Send messages; their ids."""
        ...

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """What has come in answer to the messages of these ids."""
        ...


class PatientGrid:
    """A SuperLink's grid that is asked again where it raises; the last attempt raises what the grid does.

    A SuperLink whose database is locked by too many others answers that it has failed, and Flower raises. One that has
    not confirmed a part of a message within half a minute is sent that part again by Flower, and refuses it as not
    awaited. A message is known by its content: to push it again adds only what is missing.
    """

    def __init__(self, grid: MessageGrid, pause: Callable[[float], None] = time.sleep) -> None:
        self._grid, self._pause = grid, pause

    def get_node_ids(self) -> list[int]:
        """The nodes that are connected."""
        return self._asked("the list of nodes", lambda: list(self._grid.get_node_ids()))

    def push_messages(self, messages: Sequence[Message]) -> list[str]:
        """Send messages; their ids."""
        return self._asked("messages sent", lambda: list(self._grid.push_messages(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """What has come in answer to the messages of these ids."""
        asked = list(message_ids)
        return self._asked("answers", lambda: list(self._grid.pull_messages(asked)))

    def _asked(self, what: str, ask: Callable[[], T]) -> T:
        for pause_s in PAUSES_S:
            try:
                return ask()
            except Exception as error:  # noqa: BLE001 - Flower's errors have no public name; the last attempt raises them
                log.warning("%s: the SuperLink is asked again in %g s: %s", what, pause_s, error)
                self._pause(pause_s)
        return ask()
