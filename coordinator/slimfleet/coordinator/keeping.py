"""Keeping: a run on disk, as a checkpoint after every step and a journal of what has happened since.

The journal is a file in the folder of its checkpoint. An entry is written before it happens, or, as plans are, before
any device is told. So a coordinator that is killed at any moment comes back to the state that it had: devices that had
answered are not asked again, and those at work are sent the same work again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from slimfleet.compression import PayloadError
from slimfleet.coordinator.checkpoint import checkpoints, restore_checkpoint, save_checkpoint
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.entries import Entry, Paused, apply, given, packed, unpacked
from slimfleet.coordinator.environment import Instant
from slimfleet.coordinator.journal import START, Journal, Record, records
from slimfleet.coordinator.observing.events import Planned, Saved
from slimfleet.coordinator.receiving.answer import Answer

JOURNAL = "journal.bin"
"""Name of the file, in the folder of a checkpoint."""

log = logging.getLogger(__name__)


class Keeper:
    """Keeps a run under `root`; None keeps nothing.

    With `durable` every entry reaches the disk before it counts, so that a power cut is as a kill. Without, a power
    cut costs what has happened since the last step, or a part of it; a kill costs nothing either way.
    """

    def __init__(self, coordinator: Coordinator, root: Path | None, durable: bool = True) -> None:
        self._coordinator, self._root, self._durable = coordinator, root, durable
        self._journal: Journal | None = None

    def begin(self) -> None:
        """Take up what is kept; where there is nothing, keep the beginning.

        Raises BadInput where it belongs to another run, and DiskError where the disk refuses.
        """
        if self._root is None:
            return
        if not checkpoints(self._root):
            self.save()
            return
        coordinator = self._coordinator
        folder, saved_s = restore_checkpoint(self._root, coordinator.state, coordinator.environment)
        last, then = self._replay(folder / JOURNAL, Instant(now_s=saved_s, at=coordinator.instant().at))
        self._journal = Journal(folder / JOURNAL, self._durable, after=last)
        now = coordinator.instant()
        self.take(Paused(later_s=now.now_s - then.now_s, later_at=now.at - then.at))

    def take(self, entry: Entry) -> Sequence[Answer]:
        """Write an entry down and let it happen; returns the answers that it brings."""
        now = self._coordinator.instant()
        self._write(entry, now)
        with self._coordinator.at(now):
            return apply(self._coordinator, entry)

    def note(self, planned: Planned) -> None:
        """Write a plan down; its devices are not to be told before."""
        self._write(*given(planned))

    def save(self) -> Saved | None:
        """Write a checkpoint, and begin the journal anew. Raises DiskError where the disk refuses."""
        if self._root is None:
            return None
        saved = save_checkpoint(self._root, self._coordinator.state, self._coordinator.environment)
        self._journal = Journal(saved.folder / JOURNAL, self._durable)
        return saved

    def _write(self, entry: Entry, instant: Instant) -> None:
        if self._journal is not None:
            self._journal.add(*packed(entry, instant, self._coordinator.state))

    def _replay(self, path: Path, then: Instant) -> tuple[Record | None, Instant]:
        """Let the entries of a journal happen again; returns the last that did, and when it first had."""
        coordinator, last, answers, problem = self._coordinator, None, 0, "it is torn or damaged"
        for record in records(path):
            try:
                entry, instant = unpacked(record.text, record.body)
                coordinator.environment.reach(instant.now_s, more_may_come=False)
                with coordinator.at(instant):
                    answers += len(apply(coordinator, entry))
            except (ValueError, KeyError, PayloadError, RecursionError) as error:
                problem = " ".join(str(error).split())
                break
            last, then = record, instant
        lost_bytes = path.stat().st_size - (last or START).end if path.is_file() else 0
        if lost_bytes > 0:
            log.warning("%s: the last %d bytes are left out (%s)", path, lost_bytes, problem)
        if answers or coordinator.state.in_flight:
            log.info(
                "round %d goes on: %d answers were kept, %d devices are sent their work again",
                coordinator.state.next_round,
                answers,
                len(coordinator.state.in_flight),
            )
        return last, then
