"""Findings about points that contradict each other: names, timestamps, severities, sources."""

from collections.abc import Iterator

from ntpaudit.core.checks.controls import AU8, ISO, NIS2, PCI, SC45
from ntpaudit.core.checks.rule import Level, Raised, Rule
from ntpaudit.core.fleet.context import FleetContext, at
from ntpaudit.core.fleet.members import by_site
from ntpaudit.core.fleet.model import MIN_HOSTS, FleetPolicy, HostStatus, max_error_s, min_error_s
from ntpaudit.core.fleet.severity import tolerances_s
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import direction, format_duration, format_offset

_FIX_DATABASE_CLOCK = (
    "check the clock of the database's host first (run `ntpaudit check` there), because most hosts contradict it; then "
    "check the NTP servers"
)


def check_duplicate_host(context: FleetContext) -> Iterator[Raised]:
    """Several machines report under one name."""
    names = frozenset(one.name for one in context.members)
    for duplicate in sorted(context.snapshot.duplicate_hosts, key=lambda duplicate: duplicate.name):
        if duplicate.name in names:
            sites = " and ".join(sorted({site for site in duplicate.sites if site is not None}))
            machines = f"several machines report under the name {duplicate.name}{f' from {sites}' if sites else ''}"
            message = f"{machines}: its points come from different clocks"
            yield Raised("high", message, None, None, (duplicate.name,))


DUPLICATE_HOST = Rule(
    "duplicate-host",
    check_duplicate_host,
    "give each of these machines its own name: host.name in its configuration",
    (ISO, NIS2),
    raised_when={"high": "several machines report under one name at the same time"},
    meaning="Points of different clocks are stored as those of one host.",
    formula={"high": "machines_of_one_name > 1"},
    notes=("The host gets the worst of their severities, and its clock is not compared with that of an hour ago."),
    is_of_each=True,
)


def check_time_disputed(context: FleetContext) -> Iterator[Raised]:
    """The timestamps of a host's points and the database's clock contradict each other: one of the two is wrong."""
    disputed = [one for one in context.members if one.disputed_s and one.silent_s is None]
    reporting = sum(one.silent_s is None for one in context.members)
    remedy = _FIX_DATABASE_CLOCK if 2 * len(disputed) > reporting >= MIN_HOSTS else None
    for site, hosts in by_site(disputed):
        ahead, behind = [one for one in hosts if one.disputed_s > 0], [one for one in hosts if one.disputed_s < 0]
        for way, group in (("ahead of", ahead), ("behind", behind)):
            if not group:
                continue
            worst = max(group, key=lambda one: (abs(one.disputed_s), one.name))
            names = tuple(sorted(one.name for one in group))
            apart = f"{format_duration(worst.disputed_s, rounding='down')} {way} the database's clock"
            message = f"the timestamps of {worst.name} are {apart}"
            if group[1:]:
                message = f"the timestamps of {len(group)} hosts {at(site)} are up to {apart} (most: {worst.name})"
            is_critical = abs(worst.disputed_s) > context.policy.critical_s
            yield Raised("high" if is_critical else "medium", message, site, None, names, worst.disputed_s, remedy)


TIME_DISPUTED = Rule(
    "time-disputed",
    check_time_disputed,
    "one of the two clocks is wrong: compare the NTP servers of these hosts with independent servers, and check "
    "the clock of the database, or of the proxy that they deliver through",
    (ISO, PCI, SC45),
    raised_when={
        "high": ("the timestamps of a host and the database's clock differ by more than the critical tolerance"),
        "medium": "the same, by at most the critical tolerance",
    },
    meaning="The clock of the host or that of the database is wrong.",
    formula={
        "high": "abs(timestamps_minus_database_s) > critical_tolerance_s",
        "medium": "0 s < abs(timestamps_minus_database_s) <= critical_tolerance_s",
    },
    case_remedies={"this holds for more than half of the hosts that report": _FIX_DATABASE_CLOCK},
    notes=(
        "Either the host's agent found this in the `Date` of the database's replies, or a point is stamped more than "
        "a minute ahead of now. One finding per site and direction; `value_s` is the largest difference, positive "
        "where the timestamps are ahead. Such a host is at least `warning`. Its interval is widened so that either "
        "clock may be right, and it is not compared with an hour ago."
    ),
    is_of_each=True,
)


def check_severity_disputed(context: FleetContext) -> Iterator[Raised]:
    """A point reports a better severity than its own interval, tolerance and age prove."""
    disputed = [one for one in context.members if one.contradicted is not None]
    for site, hosts in by_site(disputed):
        worst = max(hosts, key=lambda one: (one.severity, max_error_s(one.offset) if one.offset else 0.0, one.name))
        assert worst.contradicted is not None
        message = f"{worst.name} reports {worst.contradicted.word}, but {_proved(worst, context.policy)}"
        if hosts[1:]:
            message = f"{len(hosts)} hosts {at(site)} report a better severity than their points prove; {message}"
        level: Level = "high" if worst.severity is Severity.CRITICAL else "medium"
        yield Raised(level, message, site, None, tuple(sorted(one.name for one in hosts)))


def _proved(one: HostStatus, policy: FleetPolicy) -> str:
    """Describe what the latest point of a host proves, in contrast to its severity."""
    if one.host is None or one.offset is None:
        return "its clock is unknown: its last point has no offset, or one that is more than a day old"
    warning_s, critical_s = tolerances_s(one.host, policy)
    if one.severity is Severity.CRITICAL:
        least = format_duration(min_error_s(one.offset), rounding="down")
        wrong = f"its clock is at least {least} {direction(one.offset.estimate_s)}"
        return f"{wrong} (critical tolerance {format_duration(critical_s)})"
    is_within = one.host.verdict == "within"
    limit = (
        f"{'warning' if is_within else 'critical'} tolerance {format_duration(warning_s if is_within else critical_s)}"
    )
    if is_within and not one.host.judged_on_bound:
        return f"its clock is {format_offset(one.offset.estimate_s)} ({limit})"
    return f"its clock may be up to {format_duration(max_error_s(one.offset), rounding='up')} wrong ({limit})"


SEVERITY_DISPUTED = Rule(
    "severity-disputed",
    check_severity_disputed,
    "run `sudo ntpaudit status` on the host; if it shows the worse severity, something else writes points under "
    "this name: find it; if it shows the better one, the agent judges wrongly: check its version, and run `ntpaudit "
    "check SERVER...` with other servers",
    (ISO, AU8),
    raised_when={
        "high": (
            "the severity in a host's latest point is better than the interval of that point, which proves critical"
        ),
        "medium": "the same, but the interval proves only a warning, or the point has no offset of the last day",
    },
    meaning="A host reports a better state than its own numbers prove.",
    formula={
        "high": "reported_severity < proved_severity and minimum_error_s > critical_tolerance_s",
        "medium": "reported_severity < proved_severity and minimum_error_s <= critical_tolerance_s",
    },
    notes=(
        "The interval is compared with the point's tolerance, or the fleet's if it has none. The host counts with the"
        " severity that is proved. A point that its agent has not confirmed yet (`confirmed` is 0) is not disputed. "
        "One finding per site."
    ),
    is_of_each=True,
)

RULES = (DUPLICATE_HOST, TIME_DISPUTED, SEVERITY_DISPUTED)
