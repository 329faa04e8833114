"""Foreign text: what another program, device or file says, made safe for a log or a terminal where it enters."""

from __future__ import annotations

LONGEST = 500
"""Characters of a foreign text that are kept."""


def foreign_text(value: object, longest: int = LONGEST) -> str:
    """`value` as one line of at most `longest` printable characters.

    Line ends, escape sequences, marks that turn the writing direction and halves of characters become backslash
    escapes: the text cannot start a line of its own, move the cursor or look like another one.
    """
    text = str(value)
    kept = "".join(c if c.isprintable() else _escaped(c) for c in text[:longest])
    return kept if len(text) <= longest and len(kept) <= longest else kept[: longest - 3] + "..."


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
