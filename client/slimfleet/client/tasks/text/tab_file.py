"""Reader of Orange's .tab files with a category and a text in each row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from slimfleet.compression.errors import BadInput

COLUMNS = ("Category", "Text")
HEADER_ROWS = 3
"""Names, types and roles of the columns."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts and what each is about, in the order of the file."""

    texts: tuple[str, ...]
    categories: tuple[str, ...]


@cache
def read_texts(path: Path, remedy: str) -> Texts:
    """The rows of the file. Raises BadInput naming the file and `remedy` where it is damaged."""
    try:
        header, *rows = (line.split("\t") for line in path.read_text(encoding="utf-8").split("\n"))
        rows = [row for row in rows[HEADER_ROWS - 1 :] if row != [""]]
        if tuple(header) != COLUMNS or not rows:
            raise ValueError(f"it has {len(rows)} texts and the columns {', '.join(header)[:80]!r}")
        wrong = next(
            (number for number, row in enumerate(rows) if len(row) != len(COLUMNS) or not row[0]), None
        )
        if wrong is not None:
            raise ValueError(f"text {wrong + 1} is no pair of a category and a text")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is damaged ({error}): run `{remedy}`") from error
    return Texts(tuple(row[1] for row in rows), tuple(row[0] for row in rows))
