"""From four timestamps to an interval that contains the true offset (sign: see `core/clock/interval.py`)."""

from math import ceil
from typing import Literal, NamedTuple

from ntpaudit.core.clock.interval import MAX_STEP_NS, Interval, carry
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, ClockReading, correction_ns, growth_ns, step_ns
from ntpaudit.core.ntp.packet import Reply, UnusableReply
from ntpaudit.core.ntp.time import decode, difference_ns
from ntpaudit.core.units import NS_PER_S

MAX_SERVER_INTERVAL_NS = 4 * NS_PER_S  # the longest a server may hold a request, chrony's test A (V12)

_DELAY_TOLERANCE_PPM = 500
_SHORT_ROUNDING_NS = 3 * NS_PER_S // (2 * 65536) + 1  # W4: half a unit for root delay / 2, one for root dispersion

Timestamping = Literal["kernel", "user"]


class ExchangeTimestamps(NamedTuple):
    """The host's time of the request (T1) and of the reply (T4), and clock readings before and after.

    T1 is not after the true departure, and T4 not before the true arrival: latency only widens the interval.
    """

    sent_ns: int
    arrived_ns: int
    before: ClockReading
    after: ClockReading
    timestamping: Timestamping


class Measurement(NamedTuple):
    """The offset of the host's clock by one exchange with a server, at the moment `timestamps.after`."""

    reply: Reply
    timestamps: ExchangeTimestamps
    received_ns: int
    transmitted_ns: int
    offset_ns: int
    delay_ns: int
    interval: Interval


def measure(reply: Reply, timestamps: ExchangeTimestamps) -> Measurement | UnusableReply:
    """Return the interval of the true offset by one exchange, for any delay (B1 to B4), or a code of V12 to V14."""
    served_ns = difference_ns(reply.transmitted, reply.received)
    elapsed_ns = timestamps.arrived_ns - timestamps.sent_ns
    delay_ns = elapsed_ns - served_ns
    precision_ns = ceil(NS_PER_S * 2.0**reply.precision)  # a float holds it exactly
    host_precision_ns = max(1, timestamps.before.width_ns, timestamps.after.width_ns)  # B4
    if not abs(step_ns(timestamps.before, timestamps.after)) <= MAX_STEP_NS:
        return UnusableReply("local-step", ours=True)  # V14, before V13: a step would look like a negative delay
    if not 0 <= served_ns <= MAX_SERVER_INTERVAL_NS:
        return UnusableReply("server-interval", ours=True)  # V12
    tolerance_ns = precision_ns + host_precision_ns + elapsed_ns * _DELAY_TOLERANCE_PPM // 1_000_000
    if not delay_ns >= -tolerance_ns:
        return UnusableReply("negative-delay", ours=True)  # V13

    received_ns = decode(reply.received)
    transmitted_ns = received_ns + served_ns  # not decoded separately: the pivot may be between T2 and T3
    forward_ns = received_ns - timestamps.sent_ns
    backward_ns = transmitted_ns - timestamps.arrived_ns
    error_ns = (
        root_distance_ns(reply)  # B2
        + precision_ns
        + host_precision_ns
        # B3 requires PHI; a maximum error uses the rate of B5 and the slew, until the reading, which may be much later
        + growth_ns(timestamps.after.raw_ns - timestamps.before.raw_ns)
        + abs(correction_ns(timestamps.before, timestamps.after))
        + _SHORT_ROUNDING_NS
    )
    # min and max: a delay just below zero, which V13 accepts, swaps the ends
    interval = Interval(min(backward_ns, forward_ns) - error_ns, max(backward_ns, forward_ns) + error_ns)
    offset_ns, delay_ns = (forward_ns + backward_ns) // 2, max(delay_ns, host_precision_ns)
    return Measurement(reply, timestamps, received_ns, transmitted_ns, offset_ns, delay_ns, interval)


def root_distance_ns(reply: Reply) -> int:
    """Return the server's own root distance: root delay / 2 + root dispersion, rounded up (B2)."""
    return -(-(reply.root_delay + 2 * reply.root_dispersion) * NS_PER_S // 131_072)


def carry_measurement(sample: Measurement, now: ClockReading, drift_ppm: float = MAX_DRIFT_PPM) -> Interval:
    """Carry the interval of one exchange to another moment, widened if `drift_ppm` exceeds `MAX_DRIFT_PPM` (R4)."""
    before, after = sample.timestamps.before, sample.timestamps.after
    elapsed_ns = after.raw_ns - before.raw_ns
    excess_ns = max(0, growth_ns(elapsed_ns, drift_ppm) - growth_ns(elapsed_ns))
    interval = Interval(sample.interval.earliest_ns - excess_ns, sample.interval.latest_ns + excess_ns)
    return carry(interval, after, now, drift_ppm)
