"""The chain of a history: what is hashed for each row, and how each hash continues the one before (CH1).

The head of entry n is SHA-256(head of entry n - 1, n, kind, digest of the row), so one head vouches for every row
before it. docs/evidence.md has the rule for who writes a verifier.
"""

from collections.abc import Iterable, Iterator, Sequence
from json import JSONEncoder
from struct import pack
from typing import Any, Literal, NamedTuple

EntryKind = Literal["observation", "record", "event", "hour", "day", "dead-letter", "note"]

HEAD_BITS = 53  # of a head as a number: as many as a double holds exactly, for databases that store nothing else

Range = tuple[int, int]  # the first and the last of consecutive ids

_to_json = JSONEncoder(separators=(",", ":")).encode


class ChainHead(NamedTuple):
    """The number of an entry, from 1, and its hash, which covers all entries up to it."""

    sequence: int
    head: bytes

    @property
    def number(self) -> int:
        """The first 53 bits of the head."""
        return int.from_bytes(self.head[:8]) >> 64 - HEAD_BITS


BEGIN = ChainHead(0, bytes(32))
"""What the first entry of a new chain continues."""


def canonical(columns: Sequence[Any], text: str) -> bytes:
    """Return the octets that are hashed for a row: its columns as a JSON array, a line feed, and its text unpacked.

    The array is as Python's json.dumps writes it with the separators "," and ":", so it is ASCII.
    """
    return _to_json(columns).encode() + b"\n" + text.encode("utf-8", "surrogateescape")


def linked(before: bytes, sequence: int, kind: str, digest: bytes) -> bytes:
    """Return the octets whose SHA-256 is the head of an entry; `before` is the head of the entry before it."""
    return before + pack(">Q", sequence) + kind.encode() + digest


def ranges(ids: Iterable[int]) -> list[Range]:
    """Return the ranges that these ids form."""
    found: list[Range] = []
    for number in sorted(ids):
        if found and number <= found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def merged(parts: Iterable[Range]) -> Iterator[Range]:
    """Yield the ranges that these form together, in order, those that touch as one."""
    last: Range | None = None
    for begin, end in sorted(parts):
        if last is not None and begin <= last[1] + 1:
            last = (last[0], max(last[1], end))
        else:
            if last is not None:
                yield last
            last = (begin, end)
    if last is not None:
        yield last
