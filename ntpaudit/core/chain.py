"""The chain of a history: what is hashed for each row, and how each hash continues the one before (CH1).

The head of entry n is SHA-256(head of entry n - 1, n, kind, digest of the row), so one head vouches for every row
before it. docs/evidence.md has the rule for authors of a verifier.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from struct import pack
from typing import Any, Literal, NamedTuple

EntryKind = Literal["observation", "record", "event", "hour", "day", "dead-letter", "note"]

HEAD_BITS = 53  # of a head as a number: as many as a double holds exactly, for databases that store nothing else

Range = tuple[int, int]  # the first and the last of consecutive ids


@cache
def _to_json() -> Callable[[Any], str]:
    from json import JSONEncoder  # late: a check, which stores nothing, needs `ChainHead` only

    return JSONEncoder(separators=(",", ":"), default=lambda blob: {"blob": blob.hex()}).encode


class ChainHead(NamedTuple):
    """The number of an entry, from 1, and its hash, which covers all entries up to it."""

    sequence: int
    head: bytes

    @property
    def number(self) -> int:
        """The first 53 bits of the head."""
        return int.from_bytes(self.head[:8]) >> 64 - HEAD_BITS

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it, the hash in hex."""
        return {"sequence": self.sequence, "head": self.head.hex()}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "ChainHead":
        """Read what `plain` made. KeyError, TypeError or ValueError for anything else."""
        return cls(data["sequence"], bytes.fromhex(data["head"]))


BEGIN = ChainHead(0, bytes(32))
"""What the first entry of a new chain continues."""


def canonical(columns: Sequence[Any], text: str) -> bytes:
    """Return the octets that are hashed for a row: its columns as a JSON array, a line feed, and its text unpacked.

    The array is as Python's json.dumps writes it with the separators "," and ":", so it is ASCII. A BLOB, which no
    agent writes into such a column, becomes an object with its hex digits.
    """
    return _to_json()(columns).encode() + b"\n" + text.encode("utf-8", "surrogateescape")


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


class Delivered(NamedTuple):
    """The head of an entry as another system has it, from a point of the time `stamp_ns`.

    `head` is None where that system keeps no texts; then `number` alone is compared.
    """

    sequence: int
    stamp_ns: int
    head: bytes | None
    number: int

    def fits(self, head: bytes) -> bool:
        """Whether this is the head of the entry."""
        here = ChainHead(self.sequence, head)
        return here.number == self.number if self.head is None else head == self.head


class Comparison(NamedTuple):
    """Delivered heads compared with a chain.

    - `fitting`: how many are on the chain, and `last_fitting` the greatest entry that fits.
    - `removed`: how many belong to entries that retention has removed, so that they cannot be compared.
    - `other`: the first that the chain contradicts, and `others` how many do.
    - `beyond`: the first of an entry that the chain does not have yet, and `missing` how many are.
    """

    fitting: int = 0
    last_fitting: int = 0
    removed: int = 0
    other: Delivered | None = None
    others: int = 0
    beyond: Delivered | None = None
    missing: int = 0

    def with_one(self, one: Delivered, head: bytes | None, first: int) -> "Comparison":
        """Count one; `head` is that of the chain, None if it has none, and `first` the first entry that it has."""
        if head is None and one.sequence < first:
            return self._replace(removed=self.removed + 1)
        if head is None:
            earliest = self.beyond if self.beyond and self.beyond.sequence < one.sequence else one
            return self._replace(beyond=earliest, missing=self.missing + 1)
        if not one.fits(head):
            earliest = self.other if self.other and self.other.sequence < one.sequence else one
            return self._replace(other=earliest, others=self.others + 1)
        return self._replace(fitting=self.fitting + 1, last_fitting=max(self.last_fitting, one.sequence))


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
