"""The chain: what is hashed, and how entries are linked (CH1)."""

import itertools
import json
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.chain import ChainHead, canonical, linked, merged, ranges

CELLS = st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | st.text()
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["record", "event", "note"]), st.binary(min_size=32, max_size=32)), min_size=1
)
PARTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda part: (part[0], sum(part))))


def heads(entries: list[tuple[str, bytes]]) -> list[bytes]:
    """Return the heads of a chain, by the rule of docs/evidence.md."""
    found = [bytes(32)]
    for number, (kind, digest) in enumerate(entries, 1):
        found.append(sha256(found[-1] + number.to_bytes(8) + kind.encode() + digest).digest())
        assert sha256(linked(found[-2], number, kind, digest)).digest() == found[-1]
    return found[1:]


@given(ENTRIES, st.data())
def test_a_change_of_any_entry_changes_every_later_head(entries: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """And none before it."""
    at = data.draw(st.integers(0, len(entries) - 1))
    kind, digest = entries[at]
    other = data.draw(ENTRIES.map(lambda drawn: drawn[0]).filter(lambda drawn: drawn != (kind, digest)))
    before, after = heads(entries), heads([*entries[:at], other, *entries[at + 1 :]])
    assert before[:at] == after[:at]
    assert all(one != two for one, two in zip(before[at:], after[at:], strict=True))


@given(st.lists(CELLS), st.text(), st.lists(CELLS), st.text())
def test_two_rows_have_the_same_octets_only_if_they_are_the_same(
    columns: list[object], text: str, other: list[object], other_text: str
) -> None:
    """The array ends where the line ends, because JSON writes no line feed in a text."""
    array, _, rest = canonical(columns, text).partition(b"\n")
    assert array.isascii()
    assert rest.decode("utf-8", "surrogateescape") == text
    assert json.loads(array) == columns
    if repr((columns, text)) != repr((other, other_text)):
        assert canonical(columns, text) != canonical(other, other_text)


def test_the_number_of_a_head_fits_a_double() -> None:
    """It is what databases without texts compare."""
    head = ChainHead(1, b"\xff" * 32)
    assert head.number == (1 << 53) - 1
    assert int(float(head.number)) == head.number
    assert ChainHead(1, bytes(6) + b"\x08" + bytes(25)).number == 1


@given(st.sets(st.integers(-20, 60)))
def test_ranges_hold_exactly_their_ids(ids: set[int]) -> None:
    """No two of them touch."""
    found = ranges(ids)
    assert {number for begin, end in found for number in range(begin, end + 1)} == ids
    assert all(end + 1 < begin for (_, end), (begin, _) in itertools.pairwise(found))


@given(PARTS)
def test_merged_ranges_hold_exactly_what_the_parts_held(parts: list[tuple[int, int]]) -> None:
    """No two of them touch."""
    found = list(merged(parts))
    held = {number for begin, end in parts for number in range(begin, end + 1)}
    assert {number for begin, end in found for number in range(begin, end + 1)} == held
    assert all(end + 1 < begin for (_, end), (begin, _) in itertools.pairwise(found))
