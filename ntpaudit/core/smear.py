"""Leap smears: servers that spread a leap second over hours, so that they differ from the others meanwhile (J5, J6)."""

from collections.abc import Iterable
from typing import NamedTuple

from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.units import NS_PER_S

SMOOTHING_ID = b"\x7f\x7f\x01\xff"  # 127.127.1.255: chronyd with smoothtime (J6)
SMEARING_ID = 254  # the first octet while ntpd smears (J6); it can be one of a hash, too
HALF_DAY_NS = 43_200 * NS_PER_S


class Provider(NamedTuple):
    """Public servers that smear leap seconds, all by the same `scheme`; `source` says where that is documented."""

    title: str
    scheme: str
    hosts: frozenset[str]
    source: str


_LINEAR = "24 h, linear, from noon to noon UTC"
PROVIDERS = (
    Provider(
        "Google",
        _LINEAR,
        frozenset(
            (
                *("time.google.com", *(f"time{number}.google.com" for number in range(1, 5)), "time.android.com"),
                *("216.239.35.0", "216.239.35.4", "216.239.35.8", "216.239.35.12"),
                *("2001:4860:4806::", "2001:4860:4806:4::", "2001:4860:4806:8::", "2001:4860:4806:c::"),
            )
        ),
        "developers.google.com/time/smear",
    ),
    Provider(
        "Amazon",
        _LINEAR,
        frozenset(("169.254.169.123", "fd00:ec2::123", "time.aws.com")),
        "Amazon EC2 User Guide, Amazon Time Sync Service",
    ),
    Provider(
        "Meta",
        "about 17 h, quadratic, from the leap second on",
        frozenset(("time.facebook.com", *(f"time{number}.facebook.com" for number in range(1, 6)))),
        "engineering.fb.com, 2020-03-18",
    ),
)


def provider_of(hosts: Iterable[str]) -> Provider | None:
    """Return the known provider of a server by its names and addresses; None if none is known."""
    plain = {host.lower().removesuffix(".") for host in hosts}
    return next((provider for provider in PROVIDERS if not provider.hosts.isdisjoint(plain)), None)


def smear_ns(since_ns: int) -> int | None:
    """Return how far a linear smear of 24 h is from UTC at a time after (negative: before) a leap second, as a size.

    None outside of the smear. The day of a leap second that is inserted has 86,401 seconds (J5).
    """
    if abs(since_ns) > HALF_DAY_NS:
        return None
    return (HALF_DAY_NS - abs(since_ns)) // 86_401


def separated(intervals: list[Interval]) -> tuple[Interval, int] | None:
    """Divide offsets into two groups, each with a common point, that exclude each other.

    Return the least and the greatest distance of the groups, and how many of the intervals, in order of their ends,
    belong to the lower one. None if there is no such division.
    """
    ordered = sorted(intervals)
    for count in range(1, len(ordered)):
        low, high = _common(ordered[:count]), _common(ordered[count:])
        if low is not None and high is not None and low.latest_ns < high.earliest_ns:
            return Interval(high.earliest_ns - low.latest_ns, high.latest_ns - low.earliest_ns), count
    return None


def _common(intervals: list[Interval]) -> Interval | None:
    earliest_ns = max(one.earliest_ns for one in intervals)
    latest_ns = min(one.latest_ns for one in intervals)
    return Interval(earliest_ns, latest_ns) if earliest_ns <= latest_ns else None
