"""Stream of sections: coded on many threads, written in order, with little waiting in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import BinaryIO, NamedTuple

import xxhash

from slimfleet.compression.packing.records import Stored
from slimfleet.compression.packing.sections import Coded


class _Job(NamedTuple):
    future: Future[Coded]
    nbytes: int
    done: Callable[[], None]


class SectionStream:
    """Sections on their way into a file."""

    def __init__(
        self, file: BinaryIO, pool: Executor, most_waiting: int, progress: Callable[[int], None]
    ) -> None:
        self._file, self._pool, self._room, self._progress = file, pool, most_waiting, progress
        self._waiting: deque[_Job] = deque()
        self._held = 0
        self.bytes = 0
        self.sections: list[Stored] = []
        self.following = 0
        """Number of the next section."""

    def submit(self, job: Callable[[], Coded], nbytes: int, done: Callable[[], None] = lambda: None) -> None:
        """Have the next section made, of `nbytes` of tensors; `done` is called when it is written."""
        self._waiting.append(_Job(self._pool.submit(job), nbytes, done))
        self.following += 1
        self._held += nbytes
        while self._held > self._room or (self._waiting and self._waiting[0].future.done()):
            self._write_next()

    def write(self, coded: Coded, nbytes: int) -> None:
        """Write the next section, which is made already, after all that waits."""
        self.flush()
        self.following += 1
        self._put(coded, nbytes)

    def flush(self) -> None:
        """Write all that waits."""
        while self._waiting:
            self._write_next()

    def _write_next(self) -> None:
        job = self._waiting.popleft()
        self._put(job.future.result(), job.nbytes)
        self._held -= job.nbytes
        job.done()

    def _put(self, coded: Coded, nbytes: int) -> None:
        self._file.write(coded.data)
        self.bytes += len(coded.data)
        self.sections.append(Stored(coded.coder, len(coded.data), xxhash.xxh3_64_intdigest(coded.data)))
        self._progress(nbytes)
