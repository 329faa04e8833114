"""Local engine: devices in this process, one after the other, without start-up or copies."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from slimfleet.simulations.grids.flower import answer, context_of

__all__ = ["LocalEngine"]


class LocalEngine:
    """Runs a client app on the calling thread, one message at each look. A device that hangs, hangs the run."""

    def __init__(self, app: ClientApp) -> None:
        self._app = app
        self._contexts: dict[int, Context] = {}
        self._waiting: deque[Message] = deque()

    def submit(self, messages: Sequence[Message]) -> None:
        """Put messages in line."""
        self._waiting.extend(messages)

    def collect(self, timeout_s: float) -> list[Message]:
        """Do the next message in line."""
        if not self._waiting:
            return []
        message = self._waiting.popleft()
        node = message.metadata.dst_node_id
        context = self._contexts.setdefault(node, context_of(node, {"partition-id": node - 1}))
        return [answer(self._app, message, context)]

    def close(self) -> None:
        """Nothing is held."""
