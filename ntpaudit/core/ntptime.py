"""NTP timestamps as exact integers, and the eras they belong to.

A point in time is an `int` of nanoseconds since 1970-01-01T00:00:00Z (`_ns`), unbounded, so neither 2036 nor a host
that believes it is 1970 needs a special case. A timestamp on the wire is an `int` of 64 bits, in units of 2**-32 s.
"""

from datetime import datetime, timedelta

UNIX_EPOCH_S = 2_208_988_800
"""Seconds from the NTP epoch (1900-01-01) to the Unix epoch (RFC 5905 §6)."""

NS_PER_S = 1_000_000_000

ERA_S = 1 << 32

PIVOT_UNIX_S = 1_761_955_200
"""The earliest time a decoded timestamp can mean: 2025-11-01, one year before this release was made (W3).

The pivot is a property of the build, never of the clock that is being audited."""

PIVOT_NS = PIVOT_UNIX_S * NS_PER_S

_UNIX_EPOCH = datetime(1970, 1, 1)  # naive on purpose: only ever used as arithmetic on UTC


def encode(unix_ns: int) -> int:
    """Turn a point in time into a 64-bit NTP timestamp, rounded down, of whatever era it falls in (W1, W3)."""
    seconds, ns = divmod(unix_ns, NS_PER_S)
    return ((seconds + UNIX_EPOCH_S) % ERA_S) << 32 | (ns << 32) // NS_PER_S


def decode(timestamp: int, pivot_unix_s: int = PIVOT_UNIX_S) -> int:
    """Turn a 64-bit NTP timestamp into a point in time within one era of 136 years from the pivot (W3).

    Rounded to the nearest nanosecond, so that `decode(encode(t)) == t` inside that era.
    """
    first = pivot_unix_s + UNIX_EPOCH_S
    seconds = first + ((timestamp >> 32) - first) % ERA_S
    ns = ((timestamp & 0xFFFF_FFFF) * NS_PER_S + (1 << 31)) >> 32
    return (seconds - UNIX_EPOCH_S) * NS_PER_S + ns


def is_before_pivot(decoded_ns: int) -> bool:
    """Whether a decoded time is nearer to the pivot from below than from above, one era earlier than it was decoded.

    No correct server gives a time before this release, so its clock is wrong, and the era of what it says is open: the
    sign of an offset from it means nothing (W3).
    """
    return decoded_ns - PIVOT_NS >= ERA_S * NS_PER_S // 2


def difference_ns(a: int, b: int) -> int:
    """Return `a - b` of two 64-bit timestamps, in nanoseconds, right while they are within 68 years (W2)."""
    units = (a - b) & (1 << 64) - 1
    if units >> 63:
        units -= 1 << 64
    return (units * NS_PER_S) >> 32


def short_to_s(value: int) -> float:
    """Turn a 32-bit short-format span (root delay, root dispersion) into seconds (RFC 5905 §6)."""
    return value / 65536


def format_utc(unix_ns: int) -> str:
    """Write a point in time as RFC 3339 with nine decimals and `Z`; the years 1 to 9999."""
    seconds, ns = divmod(unix_ns, NS_PER_S)
    return f"{(_UNIX_EPOCH + timedelta(seconds=seconds)).isoformat()}.{ns:09d}Z"


def parse_utc(text: str) -> int:
    """Read what `format_utc` wrote; ValueError for anything else."""
    since = datetime.fromisoformat(text[:19]) - _UNIX_EPOCH
    unix_ns = (since.days * 86_400 + since.seconds) * NS_PER_S + int(text[20:29])
    if format_utc(unix_ns) != text:
        raise ValueError(f"not a UTC time with nine decimals: {text!r}")
    return unix_ns
