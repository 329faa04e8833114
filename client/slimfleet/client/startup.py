"""Start-up: what a process has spent since it, or its work on a message, began."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slimfleet.client.meters.memory import PROC
from slimfleet.compression.types import Startup

__all__ = ["Began"]


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True, slots=True)
class Began:
    """A moment in the life of this process: by a clock, and by the processor time that it had used by then."""

    clock_s: float
    cpu_s: float
    clock: Callable[[], float] = _since_boot
    cpu: Callable[[], float] = time.process_time

    @classmethod
    def now(cls) -> Began:
        """This moment."""
        return cls(_since_boot(), time.process_time())

    @classmethod
    def of_process(cls, proc: Path = PROC) -> Began:
        """The moment when this process started; without a proc file system, as if it had never waited since."""
        try:
            # The name of the command, in parentheses, may hold anything. The state behind it is field 3, the start 22.
            fields = (proc / "self" / "stat").read_text().rpartition(")")[2].split()
            return cls(int(fields[19]) / os.sysconf("SC_CLK_TCK"), 0.0)
        except (OSError, ValueError, IndexError):
            return cls(_since_boot() - time.process_time(), 0.0)

    def startup(self, train_w: float) -> Startup:
        """What has been spent since: the time, and at training power the part of it that the processor worked."""
        waited = self.clock() - self.clock_s
        return Startup.cut(waited, train_w * min(self.cpu() - self.cpu_s, waited))
