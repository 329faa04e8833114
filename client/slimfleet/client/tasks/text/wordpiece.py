"""WordPiece: texts to the tokens of BERT (Devlin et al. 2018, arXiv 1810.04805), uncased.

Small enough to have here: the library for it asks for the client of a model hub.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from slimfleet.client.tasks.text.vocabulary import Encode
from slimfleet.compression.errors import BadInput

LONGEST_WORD = 100
"""A longer one is unknown, as in BERT's own tokeniser."""

PIECES = 30_522

_IDEOGRAPHS = re.compile("([㐀-䶿一-鿿豈-﫿\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f])")

_BLANKS = re.compile(r"[^\S\x0b\x0c\x1c-\x1f\x85]+")
"""Blanks, of which those that are control characters vanish instead."""


@cache
def word_pieces(path: Path) -> Encode:
    """Encoder by the vocabulary file of BERT at `path`, a piece a line: [CLS], the pieces of the text, [SEP].

    A text that is cut keeps its [SEP]. Raises BadInput naming the file where it is no such vocabulary.
    """
    try:
        pieces = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    numbers = {piece: number for number, piece in enumerate(pieces)}
    missing = [piece for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if piece not in numbers]
    if missing or len(numbers) != PIECES:
        lacks = f" and lacks {', '.join(missing)}" if missing else ""
        raise BadInput(
            f"{path} is damaged: it has {len(numbers)} pieces{lacks}, BERT's uncased vocabulary has {PIECES}"
        )
    known: dict[str, list[int]] = {}

    def encode(text: str, most: int) -> list[int]:
        found = [numbers["[CLS]"]]
        for chunk in filter(None, _BLANKS.split(text)):
            if len(found) >= most - 1:
                break
            if chunk not in known:
                known[chunk] = [piece for word in words_of(chunk) for piece in _pieces(word, numbers)]
            found += known[chunk]
        return [*found[: most - 1], numbers["[SEP]"]]

    return encode


def words_of(text: str) -> list[str]:
    """Lower-case words without accents; each punctuation mark and ideograph is one of its own."""
    cleaned = "".join(mark for mark in text if mark in "\t\n\r" or not _is_control(mark))
    plain = unicodedata.normalize("NFD", _IDEOGRAPHS.sub(r" \1 ", cleaned))
    plain = "".join(mark for mark in plain if unicodedata.category(mark) != "Mn").lower()
    return "".join(f" {mark} " if _is_punctuation(mark) else mark for mark in plain).split()


def _is_control(mark: str) -> bool:
    """Control, format and unassigned characters, and the one that stands for what could not be decoded."""
    return unicodedata.category(mark)[0] == "C" or mark == "\N{REPLACEMENT CHARACTER}"


def _is_punctuation(mark: str) -> bool:
    """Punctuation of Unicode, and every sign of ASCII that is neither letter nor digit nor blank."""
    return unicodedata.category(mark)[0] == "P" or ("!" <= mark <= "~" and not mark.isalnum())


def _pieces(word: str, numbers: Mapping[str, int]) -> list[int]:
    """The longest piece that the word begins with, then the longest that goes on, and so on to its end."""
    found: list[int] = []
    start = 0
    while start < len(word) <= LONGEST_WORD:
        begun = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if begun + word[start:end] in numbers), None)
        if end is None:
            break
        found.append(numbers[begun + word[start:end]])
        start = end
    return found if start == len(word) else [numbers["[UNK]"]]
