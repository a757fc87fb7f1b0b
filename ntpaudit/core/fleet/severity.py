"""The severity of a host and the arrival time of its point, from the point's fields, not its reported severity."""

from math import inf

from ntpaudit.core.clock.database_clock import MAX_STAMP_DISPUTE_S
from ntpaudit.core.fleet.model import FleetPolicy, Host, Snapshot, max_error_s
from ntpaudit.core.policy import Severity, Verdict
from ntpaudit.core.units import NS_PER_S

MAX_AGE_S = 86_400.0  # no agent carries an offset forward for longer; an older measurement proves nothing now
_ROUNDING = 1 + 1e-9  # what a database may lose of the digits

# A point stamped further ahead of now than this is disputed. Now may be wrong by half of it (`reader.SKEW_S`), and
# points arrive during the reading.
AHEAD_S = 60.0


def offset_verdict(host: Host, policy: FleetPolicy) -> tuple[Verdict, Severity]:
    """Compare the interval with the tolerances."""
    offset = host.offset
    if offset is None or not (host.age_s is None or 0 <= host.age_s <= MAX_AGE_S):
        return "unmeasured", Severity.UNKNOWN
    warning_s, critical_s = tolerances_s(host, policy)
    bound_s = max_error_s(offset)
    if bound_s <= critical_s * _ROUNDING:
        is_near = (bound_s if host.judged_on_bound else abs(offset.estimate_s)) <= warning_s * _ROUNDING
        return "within", Severity.OK if is_near else Severity.WARNING
    if max(offset.earliest_s, -offset.latest_s) > critical_s:
        return "beyond", Severity.CRITICAL
    return "unproven", Severity.WARNING


def tolerances_s(host: Host, policy: FleetPolicy) -> tuple[float, float]:
    """Return the host's own warning and critical tolerance (no warning: infinite), else those of the fleet."""
    if host.critical_s is None or host.critical_s <= 0:
        return policy.warning_s, policy.critical_s
    return host.warning_s if host.warning_s is not None and host.warning_s > 0 else inf, host.critical_s


def arrival_ns(last_ns: int, disputed_s: float) -> int:
    """Return when a point arrived, by the database's clock, from its timestamp and its `disputed_s`."""
    return last_ns - round(disputed_s * NS_PER_S) if abs(disputed_s) <= MAX_STAMP_DISPUTE_S else last_ns


def latest_arrival_ns(host: Host, snapshot: Snapshot) -> int:
    """Return when the latest point arrived, by the database's clock: its timestamp minus the difference of the clocks.

    If only the past was read, timestamps ahead of the database are not corrected: later points were not read.
    """
    known_s = host.disputed_s if host.disputed_s < 0 or snapshot.looked_ahead else 0.0
    return min(arrival_ns(host.last_ns, known_s), snapshot.now_ns)


def disputed_s(host: Host, now_ns: int) -> float:
    """Return how far a host's timestamps are ahead of the database's clock; 0 if both may be right."""
    ahead_s = (host.last_ns - now_ns) / NS_PER_S
    return host.disputed_s or (ahead_s if ahead_s > AHEAD_S else 0.0)
