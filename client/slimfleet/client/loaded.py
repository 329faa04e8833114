"""Loaded examples, kept from one round to the next: loading and checking them can take longer than training on them."""

from __future__ import annotations

from collections import OrderedDict

from slimfleet.compression import Examples, Task

__all__ = ["Loaded"]

MOST_BYTES = 2**28
"""A quarter of a gigabyte a process: more than most devices hold, and all that a process of a simulation keeps."""


class Loaded:
    """The examples of the partitions of `task` that were used last, at most `most_bytes` of them besides the newest."""

    def __init__(self, task: Task, most_bytes: int = MOST_BYTES) -> None:
        self._task, self._most_bytes = task, most_bytes
        self._kept: OrderedDict[int, Examples] = OrderedDict()
        self._bytes = 0

    def of(self, partition: int) -> Examples:
        """The examples of a partition. Raises what the task raises."""
        if partition in self._kept:
            self._kept.move_to_end(partition)
            return self._kept[partition]
        examples = self._task.load(partition)
        self._kept[partition] = examples
        self._bytes += _bytes_of(examples)
        while len(self._kept) > 1 and self._bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _bytes_of(oldest)
        return examples


def _bytes_of(examples: Examples) -> int:
    return sum(each.nbytes for each in (*examples.arguments, examples.targets))
