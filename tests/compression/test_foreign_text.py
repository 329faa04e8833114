"""Text from outside cannot write lines of its own, colour a terminal or fill a log."""

from hypothesis import given
from hypothesis import strategies as st

from slimfleet.compression.foreign_text import foreign_text


@given(st.text(), st.integers(8, 100))
def test_it_is_one_short_printable_line(text: str, longest: int) -> None:
    said = foreign_text(text, longest)
    assert said.isprintable()
    assert len(said) <= longest


@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc", "Cf", "Zs"]), max_size=50))
def test_what_prints_stays_as_it_is(text: str) -> None:
    assert foreign_text(text, 50) == text


def test_line_ends_escapes_and_marks_of_direction_are_shown() -> None:
    assert foreign_text("a\nround 9: fine\r\x1b[31m") == r"a\nround 9: fine\r\x1b[31m"
    assert foreign_text("\u202eevil\ud800\0") == r"\u202eevil\ud800\x00"
    assert foreign_text("x" * 20, 10) == "x" * 7 + "..."
