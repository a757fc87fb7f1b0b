"""What the time daemon and the kernel state about the host's clock, compared with the measured interval (A6, B7)."""

from math import isfinite
from typing import NamedTuple

from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, growth_ns
from ntpaudit.core.observation import Claim, Daemon, KernelState, Observation
from ntpaudit.core.selection import Agreement
from ntpaudit.core.units import NS_PER_S

_MAX_APART_NS = 10 * NS_PER_S  # a claim that was read this long before or after the interval's moment is not compared


class CrossCheck(NamedTuple):
    """The three statements about the clock. Durations in seconds, offsets positive if the host is behind.

    None is unknown: not stated, or no servers guarantee an interval to compare it with.

    - `daemon`: the time daemon that disciplines the clock, the first one that states something if there are several.
    - `daemon_offset_s`, `daemon_bound_s`: what it states.
    - `daemon_excess_s`: the least distance between the measured interval and the offsets that it allows: 0 if both can
      be right. The bound grows by the largest drift since the daemon's last update.
    - `kernel_bound_s`: the kernel's maximum error, while it reports a synchronised clock.
    - `kernel_excess_s`: the same distance from the offsets that the kernel allows.
    """

    daemon: str | None = None
    daemon_offset_s: float | None = None
    daemon_bound_s: float | None = None
    daemon_excess_s: float | None = None
    kernel_bound_s: float | None = None
    kernel_excess_s: float | None = None


def cross_check(observation: Observation, agreement: Agreement | None, drift_ppm: float = MAX_DRIFT_PPM) -> CrossCheck:
    """Compare the claims of the time daemon and the kernel with the interval that the servers guarantee."""
    kernel, daemon = observation.kernel, claiming_daemon(observation)
    interval = agreement.interval if agreement is not None and agreement.is_guaranteed else None
    compared = CrossCheck()
    if daemon is not None:
        compared = compared._replace(daemon=daemon.name)
    if daemon is not None and isinstance(claim := daemon.claim, Claim):
        known = interval and _at(interval, abs(observation.taken.boottime_ns - claim.boottime_ns), drift_ppm)
        compared = compared._replace(
            daemon_offset_s=_finite(claim.offset_s),
            daemon_bound_s=_finite(claim.bound_s),
            daemon_excess_s=distance_s(known, claim.offset_s, _present_bound_s(claim, drift_ppm)),
        )
    if isinstance(kernel, KernelState) and kernel.is_synchronised:
        # the kernel itself still has to correct its `offset_s`
        excess_s = distance_s(interval, kernel.offset_s, kernel.maxerror_s)
        compared = compared._replace(kernel_bound_s=kernel.maxerror_s, kernel_excess_s=excess_s)
    return compared


def claiming_daemon(observation: Observation) -> Daemon | None:
    """Return the time daemon that disciplines the clock; of several the first one with a claim."""
    claiming = [daemon for daemon in observation.disciplining if isinstance(daemon.claim, Claim)]
    return next(iter((*claiming, *observation.disciplining)), None)


def distance_s(interval: Interval | None, offset_s: float | None, bound_s: float | None) -> float | None:
    """Return the least distance of an interval from the offsets allowed by who states `offset_s` +- `bound_s`.

    A daemon corrects the offset that it states, in steps or slowly, and some state it until their next update. So the
    present offset can lie anywhere from what is stated to 0, and by the bound outside of that.
    """
    offset_s, bound_s = _finite(offset_s), _finite(bound_s)
    if interval is None or offset_s is None or bound_s is None:
        return None
    earliest_s, latest_s = interval.earliest_ns / NS_PER_S, interval.latest_ns / NS_PER_S
    return max(0.0, earliest_s - max(0.0, offset_s) - bound_s, min(0.0, offset_s) - bound_s - latest_s)


def _present_bound_s(claim: Claim, drift_ppm: float) -> float | None:
    """Return the bound with what the oscillator may have drifted since the daemon's last update (B7).

    systemd-timesyncd, for example, states the error of its last exchange, up to 34 min ago.
    """
    return None if claim.bound_s is None else claim.bound_s + drift_ppm / 1e6 * max(0.0, claim.updated_s or 0.0)


def _finite(value_s: float | None) -> float | None:
    return None if value_s is None or not isfinite(value_s) else value_s


def _at(interval: Interval, apart_ns: int, drift_ppm: float) -> Interval | None:
    """Return the interval at the moment of a claim, a few milliseconds away; None if it is too far away.

    The oscillator moves it by at most `drift_ppm`. What the daemon itself corrects in between leads from the offset
    that it states towards 0, and all of that is allowed.
    """
    grown_ns = growth_ns(apart_ns, drift_ppm)
    within = apart_ns <= _MAX_APART_NS
    return Interval(interval.earliest_ns - grown_ns, interval.latest_ns + grown_ns) if within else None
