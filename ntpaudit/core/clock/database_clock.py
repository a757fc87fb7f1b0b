"""The database's clock as an independent witness: what the Date header of an answer to a write says of this host."""

from typing import NamedTuple

from ntpaudit.core.clock.interval import MAX_STEP_NS, Interval, carry
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, ClockReading, suspended_ns
from ntpaudit.core.units import NS_PER_S

DATE_ERROR_NS = 2 * NS_PER_S
"""A Date is cut to whole seconds (RFC 9110, 5.6.7), and many servers renew the text only once a second."""

MAX_AGE_NS = 86_400 * NS_PER_S
"""A Date is carried forward for as long as an agreement of servers is (`agent.MAX_CARRY_S`)."""

MAX_STAMP_DISPUTE_S = 86_400.0
"""Points that are disputed by more than this carry the database's time.

VictoriaMetrics drops samples that are two days ahead, and any database those beyond its retention: such a host would
look silent although it delivers.
"""


class DatabaseClock(NamedTuple):
    """Where the true offset (reference - host) lies at `reading` if the database's clock is right."""

    reading: ClockReading
    interval: Interval


def read_date(date_s: int, sent: ClockReading, received: ClockReading) -> DatabaseClock | None:
    """Return what the Date of an answer says, in seconds since 1970, given the clocks before the request and after.

    The server read its clock somewhere between the two, and at most `DATE_ERROR_NS` after the time that it wrote. The
    RAW clock spans the exchange, so a step of the host's clock meanwhile does no harm. None if the host was suspended
    meanwhile, for RAW stood still then.
    """
    if abs(suspended_ns(sent, received)) > MAX_STEP_NS:
        return None
    exchange_ns = max(0, received.raw_ns - sent.raw_ns) + sent.width_ns + received.width_ns
    earliest_ns = date_s * NS_PER_S - received.realtime_ns
    return DatabaseClock(received, Interval(earliest_ns, earliest_ns + DATE_ERROR_NS + exchange_ns))


def carry_date(clock: DatabaseClock, now: ClockReading, drift_ppm: float = MAX_DRIFT_PPM) -> Interval | None:
    """Carry the interval to another moment of this boot; None after a suspend, or where it is too old."""
    elapsed_ns = now.raw_ns - clock.reading.raw_ns
    if not 0 <= elapsed_ns <= MAX_AGE_NS or abs(suspended_ns(clock.reading, now)) > MAX_STEP_NS:
        return None
    return carry(clock.interval, clock.reading, now, drift_ppm)


def disputed_ns(agreed: Interval, database: Interval) -> int:
    """Return by how much the servers' time is at least ahead of the database's; negative behind, 0 if they may agree.

    Both intervals hold the offset of one host at one moment, each under the assumption that its clock is right.
    """
    return max(0, agreed.earliest_ns - database.latest_ns) + min(0, agreed.latest_ns - database.earliest_ns)
