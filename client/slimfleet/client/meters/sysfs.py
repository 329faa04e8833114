"""Files of the kernel that hold one value each; one that is missing or has no value now reads as None."""

from __future__ import annotations

from pathlib import Path


def read_word(path: Path) -> str | None:
    """The text of a file, without the line end."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # files are optional, and drivers answer ENODATA while they have no value
        return None


def read_number(path: Path, unit: float) -> float | None:
    """The whole number in a file times `unit`, the size of one in SI units."""
    word = read_word(path)
    try:
        return None if word is None else int(word) * unit
    except ValueError:
        return None
