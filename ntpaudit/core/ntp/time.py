"""NTP timestamps as exact integers, and the eras they belong to.

A point in time is an `int` of nanoseconds since 1970-01-01T00:00:00Z (`_ns`), unbounded, so neither 2036 nor a host
that believes it is 1970 needs a special case. A timestamp on the wire is an `int` of 64 bits, in units of 2**-32 s.
"""

from ntpaudit.core.units import NS_PER_S

UNIX_EPOCH_S = 2_208_988_800  # seconds from the NTP epoch (1900-01-01) to the Unix epoch (RFC 5905 §6)
ERA_S = 1 << 32

PIVOT_UNIX_S = 1_761_955_200
"""The earliest time of a timestamp: 2025-11-01, a year before this release, whatever the host's clock shows (W3)."""

PIVOT_NS = PIVOT_UNIX_S * NS_PER_S


def encode(unix_ns: int) -> int:
    """Turn a point in time into a 64-bit NTP timestamp, rounded down, of whatever era it falls in (W1, W3)."""
    seconds, ns = divmod(unix_ns, NS_PER_S)
    return ((seconds + UNIX_EPOCH_S) % ERA_S) << 32 | (ns << 32) // NS_PER_S


def decode(timestamp: int, pivot_unix_s: int = PIVOT_UNIX_S) -> int:
    """Turn a 64-bit NTP timestamp into a point in time in the 136 years after the pivot, rounded to 1 ns (W3)."""
    first = pivot_unix_s + UNIX_EPOCH_S
    seconds = first + ((timestamp >> 32) - first) % ERA_S
    ns = ((timestamp & 0xFFFF_FFFF) * NS_PER_S + (1 << 31)) >> 32
    return (seconds - UNIX_EPOCH_S) * NS_PER_S + ns


def is_before_pivot(decoded_ns: int) -> bool:
    """Whether a decoded time is more likely one era earlier, before the pivot.

    No correct server gives a time before this release. The sign of an offset from it means nothing (W3).
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
