"""Pushing messages onto a grid, once more where a link was too busy to say that it has them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

PUSHES = 5
"""Attempts at most."""

log = logging.getLogger(__name__)


def push(grid: Grid, messages: Sequence[Message]) -> list[str]:
    """The ids of the messages, which are then on their way. Raises what the grid raises.

    A SuperLink that has not confirmed a part of a message within half a minute is sent that part again by Flower, and
    refuses it as not awaited. A message is known by its content: to push it again adds only what is missing.
    """
    for left in reversed(range(PUSHES)):
        try:
            return list(grid.push_messages(messages))
        except ObjectPushError as error:
            if not left:
                raise
            log.warning("the SuperLink is busy, messages are pushed again: %s", error)
    raise AssertionError("unreachable")
