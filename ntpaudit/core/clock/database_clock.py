"""The database's clock as an independent reference: the Date header of its reply to a write."""

from typing import NamedTuple

from ntpaudit.core.clock.interval import MAX_STEP_NS, Interval, carry
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, ClockReading, suspended_ns
from ntpaudit.core.units import NS_PER_S

DATE_ERROR_NS = 2 * NS_PER_S  # a Date has whole seconds (RFC 9110, 5.6.7); many servers update it once a second
MAX_AGE_NS = 86_400 * NS_PER_S  # a Date is carried forward for as long as an agreement (`holdover.MAX_CARRY_S`)

MAX_STAMP_DISPUTE_S = 86_400.0
"""Points that are disputed by more than this carry the database's time.

VictoriaMetrics drops samples that are two days ahead, and any database those beyond its retention.
"""


class DatabaseClock(NamedTuple):
    """The interval of the true offset (reference - host) at `reading` if the database's clock is right."""

    reading: ClockReading
    interval: Interval


def read_date(date_s: int, sent: ClockReading, received: ClockReading) -> DatabaseClock | None:
    """Return the database's clock by the Date of a reply (seconds since 1970) and the readings around the request.

    The server read its clock between the two, and at most `DATE_ERROR_NS` after the time in the header. RAW measures
    the exchange, so a step does no harm. None if the host was suspended during it, because RAW stops then.
    """
    if abs(suspended_ns(sent, received)) > MAX_STEP_NS:
        return None
    exchange_ns = max(0, received.raw_ns - sent.raw_ns) + sent.width_ns + received.width_ns
    earliest_ns = date_s * NS_PER_S - received.realtime_ns
    return DatabaseClock(received, Interval(earliest_ns, earliest_ns + DATE_ERROR_NS + exchange_ns))


def carry_date(clock: DatabaseClock, now: ClockReading, drift_ppm: float = MAX_DRIFT_PPM) -> Interval | None:
    """Carry the interval to another moment of this boot; None after a suspend, or if it is too old."""
    elapsed_ns = now.raw_ns - clock.reading.raw_ns
    if not 0 <= elapsed_ns <= MAX_AGE_NS or abs(suspended_ns(clock.reading, now)) > MAX_STEP_NS:
        return None
    return carry(clock.interval, clock.reading, now, drift_ppm)


def disputed_ns(agreed: Interval, database: Interval) -> int:
    """Return the least difference of the servers' time from the database's: positive ahead, 0 if they may agree."""
    return max(0, agreed.earliest_ns - database.latest_ns) + min(0, agreed.latest_ns - database.earliest_ns)
