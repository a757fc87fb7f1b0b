"""Findings about points that contradict each other: names, timestamps, severities, sources."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ntpaudit.core.checks.finding import Level
from ntpaudit.core.checks.rule import AU8, ISO, NIS2, PCI, SC45, Raised, Rule
from ntpaudit.core.fleet.clock_shift import MANY
from ntpaudit.core.fleet.context import FleetContext, at, sorted_names
from ntpaudit.core.fleet.members import by_site
from ntpaudit.core.fleet.model import DuplicateHost, HostStatus, Offset
from ntpaudit.core.ntp.sources import is_pool_name
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import direction, format_duration

_FIX_DATABASE_CLOCK = (
    "check the clock of the database's host first (run `ntpaudit check` there), because most hosts contradict it; then "
    "check the NTP servers"
)


def check_duplicate_host(context: FleetContext) -> Iterator[Raised]:
    """Several machines report under one name."""
    names = frozenset(one.name for one in context.members)
    for duplicate in sorted(context.snapshot.duplicate_hosts, key=lambda duplicate: duplicate.name):
        if duplicate.name in names:
            message = (
                f"several machines report as {duplicate.name}{_from(duplicate)}: its points come from different clocks"
            )
            yield Raised("high", message, None, None, (duplicate.name,))


def _from(duplicate: DuplicateHost) -> str:
    sites = sorted_names({site for site in duplicate.sites if site is not None})
    return f" from {' and '.join(sites)}" if sites else ""


DUPLICATE_HOST = Rule(
    "duplicate-host",
    check_duplicate_host,
    "give each of these machines its own name: host.name in its configuration",
    (ISO, NIS2),
    raised_when={
        "high": (
            "several machines report under one name at the same time. The host gets the worst of their severities, "
            "and its clock is not compared with that of an hour ago"
        ),
    },
    is_of_each=True,
)


def check_time_disputed(context: FleetContext) -> Iterator[Raised]:
    """The timestamps of a host's points and the database's clock contradict each other: one of the two is wrong."""
    disputed = [one for one in context.members if one.disputed_s and one.silent_s is None]
    reporting = sum(one.silent_s is None for one in context.members)
    remedy = _FIX_DATABASE_CLOCK if 2 * len(disputed) > reporting >= MANY else None
    for site, hosts in by_site(disputed):
        for is_ahead in (True, False):
            if group := [one for one in hosts if (one.disputed_s > 0) is is_ahead]:
                worst = max(group, key=lambda one: (abs(one.disputed_s), one.name))
                level: Level = "high" if abs(worst.disputed_s) > context.policy.critical_s else "medium"
                names = sorted_names(one.name for one in group)
                yield Raised(level, _disputed(group, worst, site), site, None, names, worst.disputed_s, remedy)


def _disputed(group: Sequence[HostStatus], worst: HostStatus, site: str | None) -> str:
    way = "ahead of" if worst.disputed_s > 0 else "behind"
    apart = f"{format_duration(worst.disputed_s, rounding='down')} {way} the database's clock"
    if len(group) == 1:
        return f"the timestamps of {worst.name} are {apart}"
    return f"the timestamps of {len(group)} hosts {at(site)} are up to {apart} ({worst.name})"


TIME_DISPUTED = Rule(
    "time-disputed",
    check_time_disputed,
    "check the NTP servers of these hosts: compare them with independent servers",
    (ISO, PCI, SC45),
    raised_when={
        "high": (
            "the timestamps of a host and the database's clock differ by more than the critical tolerance. Either "
            "the host's agent found this in the `Date` of the database's replies, or a point is stamped more than "
            "a minute ahead of now. One finding per site and direction. `value_s` is the largest difference, "
            "positive where the timestamps are ahead. Such a host is at least `warning`, its interval is widened "
            "so that either clock may be right, and it is not compared with an hour ago"
        ),
        "medium": "the same, by at most the critical tolerance",
    },
    is_of_each=True,
)


def check_severity_disputed(context: FleetContext) -> Iterator[Raised]:
    """A point reports a better severity than its own interval, tolerance and age prove."""
    disputed = [one for one in context.members if one.contradicted is not None]
    for site, hosts in by_site(disputed):
        worst = max(hosts, key=lambda one: (one.severity, _max_error_s(one), one.name))
        assert worst.contradicted is not None
        level: Level = "high" if worst.severity is Severity.CRITICAL else "medium"
        message = f"{worst.name} reports {worst.contradicted.word}, but {_proved(worst)}"
        if hosts[1:]:
            message = f"{len(hosts)} hosts {at(site)} report a better severity than their points prove; {message}"
        yield Raised(level, message, site, None, sorted_names(one.name for one in hosts))


def _proved(one: HostStatus) -> str:
    """Describe what the latest point of a host proves, in contrast to its severity."""
    offset = one.host.offset if one.host is not None else None
    if offset is None:
        return "its clock is unknown: its last point has no offset, or one that is more than a day old"
    if one.severity is Severity.CRITICAL:
        return (
            f"its clock is at least {format_duration(_min_error_s(offset), rounding='down')} "
            f"{direction(offset.estimate_s)}"
        )
    return f"its maximum error is {format_duration(_max_error_s(one), rounding='up')}"


def _min_error_s(offset: Offset) -> float:
    return max(offset.earliest_s, -offset.latest_s, 0.0)


def _max_error_s(one: HostStatus) -> float:
    """Return the maximum error of a clock, 0 if it is unknown."""
    offset = one.host.offset if one.host is not None else None
    return 0.0 if offset is None else max(-offset.earliest_s, offset.latest_s)


SEVERITY_DISPUTED = Rule(
    "severity-disputed",
    check_severity_disputed,
    "run `ntpaudit status` on the host; if it agrees with this finding, find out what else writes points for it",
    (ISO, AU8),
    raised_when={
        "high": (
            "the severity in a host's latest point is better than its own interval proves, which is critical by "
            "the point's tolerance (or the fleet's, if the point has none). The host counts as critical. A point "
            "that its agent has not confirmed yet (`confirmed` is 0) is not disputed. One finding per site"
        ),
        "medium": (
            "the same, but the interval proves a warning, or nothing: the point has no offset, or one that is "
            "more than a day old"
        ),
    },
    is_of_each=True,
)


def check_shared_falseticker(context: FleetContext) -> Iterator[Raised]:
    """Several hosts now reject a source as a falseticker, with much the same error: it is wrong itself, or attacked."""
    hosts = {one.name: one.host for one in context.members if one.silent_s is None and one.host is not None}
    offsets: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
    for report in sorted(
        context.snapshot.falseticker_reports,
        key=lambda report: (report[:2], report.offset_s is not None, report.offset_s or 0.0),
    ):
        if report.host in hosts and _is_one_server(report.source):
            offsets[report.source][report.host] = report.offset_s
    for source, by_host in offsets.items():
        known = {name: offset_s for name, offset_s in by_host.items() if offset_s is not None}
        errors_s = [offset_s - own.estimate_s for name, offset_s in known.items() if (own := hosts[name].offset)]
        if len(by_host) >= MANY and _do_agree(errors_s, context.policy.warning_s):
            message = f"{source} is probably wrong: {_rejected(len(by_host), _median(errors_s))}"
            yield Raised("high", message, None, source, tuple(by_host), _median(known.values()))


def _rejected(hosts: int, error_s: float | None) -> str:
    """Describe how a source differs from the others on those hosts; its error is positive where it is ahead."""
    if error_s is None:
        return f"{hosts} hosts reject it as a falseticker"
    way = "ahead of" if error_s > 0 else "behind"
    return f"on {hosts} hosts it is {format_duration(error_s)} {way} the servers that agree (median)"


def _is_one_server(source: str) -> bool:
    """Whether a source is the same server on every host; a place in a pool is not."""
    zone, _, slot = source.rpartition("/")
    return not (slot.isdecimal() and zone) and not is_pool_name(source)


def _do_agree(errors_s: Sequence[float], within_s: float) -> bool:
    """Whether more than half of the errors lie within `within_s`. True if none is known: then none contradicts."""
    ordered = sorted(errors_s)
    most = len(ordered) // 2
    return not ordered or any(
        last_s - first_s <= within_s for first_s, last_s in zip(ordered, ordered[most:], strict=False)
    )


def _median(values: Iterable[float]) -> float | None:
    """Return the median, None if there are no values."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return (ordered[last // 2] + ordered[(last + 1) // 2]) / 2 if ordered else None


SHARED_FALSETICKER = Rule(
    "shared-falseticker",
    check_shared_falseticker,
    "check whether this server is broken or compromised; remove it from the configuration until it is repaired",
    (ISO, PCI, SC45),
    raised_when={
        "high": (
            "a source is a falseticker on three or more hosts that report now, and more than half of them show "
            "the same error of it, within the warning tolerance. The error is the offset by this source minus the "
            "host's own estimate; hosts without it do not count here. A place in a pool (`ZONE/2`, any name of the "
            "NTP pool) is a different server on each host and never counts. `value_s` is the median of the offsets "
            "by this source"
        ),
    },
)
