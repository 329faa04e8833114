"""Pushing messages onto a grid, once more where a link was too busy to say that it has them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from slimfleet.compression import SlimfleetError

PUSHES = 3
"""Attempts at most."""

log = logging.getLogger(__name__)


def push(grid: Grid, messages: Sequence[Message]) -> list[str]:
    """The ids of the messages, which are then on their way. Raises what the grid raises, where it does so every time.

    A SuperLink that has not confirmed a part of a message within half a minute is sent that part again by Flower, and
    refuses it as not awaited; Flower then raises. A message is known by its content: to push it again adds only what is
    missing.
    """
    for left in range(PUSHES - 1, 0, -1):
        try:
            return list(grid.push_messages(messages))
        except SlimfleetError:
            raise
        except Exception as error:  # noqa: BLE001 - Flower's errors have no public name; the last attempt raises them
            log.warning("messages are pushed again, up to %d times: %s", left, error)
    return list(grid.push_messages(messages))
