"""Logs: what a command says on stderr, as lines for people or as JSON objects for other programs.

Results are on stdout and are none of this. A daemon's journal, say, is read line by line: under `--log-json` every
line of stderr is an object, errors and tracebacks included.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from types import TracebackType
from typing import Literal, get_args

__all__ = ["LEVELS", "Level", "finite", "logs_are_json", "say", "start_logs"]

Level = Literal["debug", "info", "warning", "error"]

LEVELS: tuple[str, ...] = get_args(Level)
"""Names of the levels of a log, from the one that shows most."""

_LIBRARIES = logging.WARNING
"""The lowest level of packages that are not ours: below it they speak of themselves."""

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every record has; what else there is, the caller gave as `extra`."""

log = logging.getLogger("slimfleet")


class _Stderr(logging.Handler):
    """Writes to the stderr of the moment, which a progress bar replaces by one that writes above it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


class _JsonLine(logging.Formatter):
    """A record as one line: a JSON object of its fields, time in UTC, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            name: value
            for name, value in vars(record).items()
            # Ray adds a field with an underscore to the records of its processes.
            if name not in _OWN_FIELDS and not name.startswith("_")
        }
        fields |= {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(finite(fields), allow_nan=False, default=str)


_stderr = _Stderr()


def start_logs(level: Level, as_json: bool) -> None:
    """Write what slimfleet logs from `level` on, and other packages' warnings, to stderr."""
    lowest = logging.getLevelNamesMapping()[level.upper()]
    _stderr.setFormatter(_JsonLine() if as_json else logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.addHandler(_stderr)  # which it does once
    root.setLevel(max(lowest, _LIBRARIES))
    log.setLevel(lowest)
    sys.excepthook = _log_defect if as_json else sys.__excepthook__


def logs_are_json() -> bool:
    """Whether stderr is for objects alone, so that bars and remarks have no place on it."""
    return isinstance(_stderr.formatter, _JsonLine)


def say(message: str, level: Level = "info") -> None:
    """Print one line on stderr, whatever the level of the log: an error, or a remark."""
    if logs_are_json():
        number = logging.getLevelNamesMapping()[level.upper()]
        _stderr.handle(log.makeRecord(log.name, number, "", 0, message, (), None))
    else:
        print(f"error: {message}" if level == "error" else message, file=sys.stderr)


def finite(value: object) -> object:
    """`value` as JSON has it: a number that is not finite is None."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _log_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))
