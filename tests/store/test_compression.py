"""Stored texts: small, exact, and readable for as long as the history is kept."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.store import compression
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.serialization import plain, to_json
from tests.records import CASES, observation, servers

STORED = {
    "58a450b958dd23508b92d1a406e567c3da5a00793f1ebd": (
        '{"schema":"ntpaudit.record/1","cross_check":{"daemon":"chronyd","daemon_offset_s":0.001}}'
    ),
    "58a4f04f6059030000000001": "",
    "58a4f04f6059c35b8bd60200a6cf0aa2": '{"schema":"ntpaudit.record/1"}',
}
"""What the first agent made of texts."""


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text: str) -> None:
    """Compressed or, as the first version stored them, plain."""
    assert unpack_text(pack_text(text)) == text
    assert unpack_text(text) == text


def test_records_and_observations_become_small() -> None:
    """A record takes at most a third of its text, and an observation at most a third."""
    for record in CASES.values():
        text = to_json(record.to_dict())
        assert len(pack_text(text)) < len(text) / 3
    text = to_json(plain(observation(*servers(0.0019))))
    assert len(pack_text(text)) < len(text) / 3


@given(st.binary(max_size=60) | st.sampled_from([pack_text("x" * 100)[:-1], zlib.compress(b"x"), b""]))
def test_octets_that_are_no_text_are_refused(value: bytes) -> None:
    """ValueError, whatever they are."""
    with pytest.raises(ValueError, match=r"no text of the history|codec"):
        unpack_text(value)


@given(st.data())
def test_a_changed_octet_is_noticed(data: st.DataObject) -> None:
    """The checksum detects a text that the disk has changed."""
    text = to_json(CASES["findings"].to_dict())
    packed = bytearray(pack_text(text))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    try:
        assert unpack_text(bytes(packed)) == text
    except ValueError:
        return


@pytest.mark.parametrize("stored", STORED)
def test_what_was_stored_stays_readable(stored: str) -> None:
    """What is stored today is read by every later version: the dictionary it was made by never changes."""
    assert unpack_text(bytes.fromhex(stored)) == STORED[stored]
    known = [(zlib.adler32(one), len(one)) for one in compression._DICTIONARIES]
    assert known == [(0xF04F6059, 2632), (0x50B958DD, 3356)]
