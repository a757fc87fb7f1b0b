"""Which clocks certainly moved since an earlier time: single hosts, and sites whose hosts moved by one amount."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ntpaudit.core.checks.host import RULES
from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.fleet.members import by_site, measured
from ntpaudit.core.fleet.model import MIN_HOSTS, Bounded, Host, HostStatus, Offset, Snapshot, max_error_s, min_error_s
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S

_EXPLAINING = frozenset(rule.id for rule in RULES if rule.explains_shift)


class ClockShift(NamedTuple):
    """A clock's movement within `span_s`, positive if it fell behind. `stepped`: its agent reported a step in it."""

    member: HostStatus
    host: Host
    span_s: float
    then: Bounded
    now: Offset
    stepped: bool = False

    @property
    def name(self) -> str:
        """The host's name."""
        return self.member.name

    @property
    def site(self) -> str | None:
        """The host's site."""
        return self.member.site

    @property
    def earliest_s(self) -> float:
        """The lower end of the interval that certainly contains the shift."""
        return self.now.earliest_s - self.then.latest_s

    @property
    def latest_s(self) -> float:
        """The upper end of that interval."""
        return self.now.latest_s - self.then.earliest_s

    @property
    def least_s(self) -> float:
        """The proved shift: the value of the interval closest to 0; 0 if the clock may not have moved."""
        return max(self.earliest_s, 0.0) + min(self.latest_s, 0.0)

    @property
    def is_away(self) -> bool:
        """Whether the clock is certainly further from the true time than before."""
        return min_error_s(self.now) > max_error_s(self.then)

    @property
    def is_back(self) -> bool:
        """Whether the clock is certainly closer to the true time than before."""
        return max_error_s(self.now) < min_error_s(self.then)


class SiteShift(NamedTuple):
    """The hosts of a site that moved, the number compared, and the least amount that fits them; positive: behind."""

    moves: tuple[ClockShift, ...]
    compared: int
    amount_s: float

    @property
    def least_s(self) -> float:
        """How far each of them moved at least."""
        return min((move.least_s for move in self.moves), key=abs)


def compare(snapshot: Snapshot, members: Iterable[HostStatus]) -> list[ClockShift]:
    """Compare disciplined clocks with the baseline, except duplicate hosts and those with disputed time."""
    duplicates = {duplicate.name for duplicate in snapshot.duplicate_hosts}
    stepped_ns: dict[str, int] = {}
    for alarm in snapshot.alarms:
        if alarm.kind in STEP_KINDS:
            stepped_ns[alarm.host] = max(alarm.since_ns, stepped_ns.get(alarm.host, alarm.since_ns))
    compared, baseline_ns = [], round(snapshot.baseline_s * NS_PER_S)
    for status, host, now in measured(members):
        then = snapshot.baseline.get(status.name)
        is_explained = any(alarm.kind in _EXPLAINING and alarm.severity > Severity.OK for alarm in status.alarms)
        if then is None or status.name in duplicates or status.disputed_s or is_explained:
            continue
        # without the time of the baseline point, it is as old as the baseline
        since_ns = snapshot.baseline_ns.get(status.name, host.last_ns - baseline_ns)
        stepped = status.name in stepped_ns and stepped_ns[status.name] >= since_ns
        compared.append(ClockShift(status, host, (host.last_ns - since_ns) / NS_PER_S, then, now, stepped))
    return compared


def moved_sites(shifts: Iterable[ClockShift], least_s: float) -> Iterator[tuple[str, SiteShift]]:
    """Yield the sites where most hosts certainly moved by at least `least_s`, and one amount fits all of them."""
    for site, compared in by_site(shifts):
        moves, amount_s = max_overlap([move for move in compared if move.least_s and abs(move.least_s) >= least_s])
        if site is not None and len(compared) >= MIN_HOSTS and 2 * len(moves) > len(compared):
            yield site, SiteShift(moves, len(compared), amount_s)


def max_overlap(moves: Sequence[ClockShift]) -> tuple[tuple[ClockShift, ...], float]:
    """Return the most shifts whose intervals share a point (Marzullo), and the shared point that is closest to zero."""
    ends = sorted([(move.earliest_s, False) for move in moves] + [(move.latest_s, True) for move in moves])
    depth, begin_s, best = 0, 0.0, (0, 0.0, 0.0)
    for end_s, closes in ends:
        if closes:
            nearest_s = max(begin_s, 0.0) + min(end_s, 0.0)
            best = min(best, (-depth, abs(nearest_s), nearest_s))
            depth -= 1
        else:
            depth, begin_s = depth + 1, end_s
    return tuple(move for move in moves if move.earliest_s <= best[2] <= move.latest_s), best[2]
