"""Shelf: records that several messages hold, put into Ray's store once, and only a few of them at a time."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import ray

__all__ = ["Shelf"]


class Shelf:
    """Keeps the `room` records that were asked for last in Ray's store.

    One that is asked for again after it has gone is put there again. Ray keeps what work still in flight was given.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        """id of a record -> the record, whose id nothing else has while it is held, and its reference."""

    def reference(self, record: Any) -> Any:
        """Ray's reference to a record."""
        kept = self._kept.pop(id(record), None) or (record, ray.put(record))
        self._kept[id(record)] = kept
        if len(self._kept) > self._room:
            self._kept.popitem(last=False)
        return kept[1]

    def clear(self) -> None:
        """Let go of all records."""
        self._kept.clear()
