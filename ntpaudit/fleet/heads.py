"""The heads of a host's chain, as a database has them from its points (CH3)."""

from collections.abc import Iterator
from typing import NamedTuple

from ntpaudit.core.chain import Delivered
from ntpaudit.core.units import DAY_S, NS_PER_S
from ntpaudit.fleet.decode import RawValue, Table, text
from ntpaudit.fleet.reader import Reader, Window

_PART_NS = round(7 * DAY_S) * NS_PER_S  # read at once: about 12,000 points


class HeadRow(NamedTuple):
    """A point of `ntpaudit_clock` with the head that it carries. What is missing is None."""

    name: RawValue
    last_ns: int
    chain: RawValue
    chain_head_int: RawValue
    chain_head: RawValue


HEADS = Table("ntpaudit_clock", ("host",), HeadRow._fields[2:], HeadRow)


def read_heads(reader: Reader, host: str, begin_ns: int, end_ns: int) -> Iterator[list[Delivered]]:
    """Yield the heads that a host delivered in a period, in batches by time. ReadError as every reader's method."""
    for from_ns in range(begin_ns, end_ns, _PART_NS):
        window = Window(from_ns, min(from_ns + _PART_NS, end_ns))
        rows = reader.every(HEADS, window, [host], HEADS.fields)
        yield [one for one in map(_delivered, rows) if one is not None]


def newest_heads(reader: Reader, begin_ns: int, end_ns: int) -> list[tuple[str, Delivered]]:
    """Read the newest head of each host, and of each place where a host was, that has a point in a period."""
    rows = reader.last(HEADS, Window(begin_ns, end_ns), None, HEADS.fields)
    found = ((text(row.name), _delivered(row)) for row in rows)
    return [(host, head) for host, head in found if host is not None and head is not None]


def _delivered(row: HeadRow) -> Delivered | None:
    sequence, number = _whole(row.chain), _whole(row.chain_head_int)
    if sequence is None or number is None or not 0 < sequence < 1 << 63:
        return None
    try:
        head = bytes.fromhex(row.chain_head) if isinstance(row.chain_head, str) else None
    except ValueError:
        head = b""  # no head of any chain
    return Delivered(sequence, row.last_ns, head, number)


def _whole(cell: RawValue) -> int | None:
    """Return a whole number of a cell, whose type depends on the database; None for anything else."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        value = float(cell)
        return int(cell if isinstance(cell, int) else value) if value.is_integer() else None
    except (ValueError, OverflowError):
        return None
