"""Markup: the few pieces of HTML that a report is built from. All text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape

__all__ = ["details", "escape", "figure", "table", "tile"]


def tile(number: str, words: str, kind: str = "") -> str:
    """A big number over what it is; `kind` is a class of the style sheet."""
    return f'<div class="tile {escape(kind)}"><b>{escape(number)}</b><span>{escape(words)}</span></div>'


def figure(title: str, svg: str, caption: str) -> str:
    """A plot under its title; `svg` is trusted markup."""
    return (
        f'<figure aria-label="{escape(title)}"><h3>{escape(title)}</h3>'
        f"{svg}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def details(title: str, markup: str) -> str:
    """Markup that opens on demand."""
    return f'<details class="note"><summary>{escape(title)}</summary>{markup}</details>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = ()) -> str:
    """A table of numbers, its first column names; the columns `words` hold text too."""

    def cells(kind: str, values: Sequence[str]) -> str:
        return "".join(
            f'<{kind} class="words">{escape(value)}</{kind}>'
            if index in words
            else f"<{kind}>{escape(value)}</{kind}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", heads)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
