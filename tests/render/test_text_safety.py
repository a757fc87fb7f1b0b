"""Text from outside: short enough for people, harmless for spreadsheets."""

from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.render.text_safety import LONGEST, LONGEST_TEXT, csv_cell, short_name, short_words

FORMULAS = ("=", "+", "-", "@")


@given(st.text(max_size=400))
def test_a_name_is_a_short_line(text: str) -> None:
    """A name of an ordinary length is left as it is; both ends of a longer one identify it."""
    said = short_name(text)
    assert len(said) <= LONGEST
    assert said.isprintable()
    if len(text) <= LONGEST and text.isprintable():
        assert said == text


@given(st.lists(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=300), min_size=1, max_size=6))
def test_no_word_of_a_text_is_long(words: list[str]) -> None:
    """So a text can be broken into lines at its blanks; short words are left as they are."""
    said = short_words(" ".join(words)).split(" ")
    assert len(" ".join(said)) <= LONGEST_TEXT
    assert all(len(word) <= LONGEST for word in said)
    assert [word for word in said if "[...]" not in word] == [word for word in words if len(word) <= LONGEST]


@given(st.text(st.sampled_from(" \t\r\n\u00a0\u2003=+-@a1"), max_size=6))
def test_no_cell_is_a_formula(text: str) -> None:
    """Whatever blanks a spreadsheet passes over, what it then finds is text; text stays as it is."""
    cell = csv_cell(text)
    assert not cell.lstrip().startswith(FORMULAS)
    assert cell in (text, f"'{text}")
