"""Findings about what hosts share: a wrong server, a site that moved; and about single clocks that move slowly."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ntpaudit.core.checks.controls import ISO, ISO_GUIDE, PCI, SC45
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.fleet.clock_shift import ClockShift
from ntpaudit.core.fleet.context import FleetContext, at, listed
from ntpaudit.core.fleet.members import by_site
from ntpaudit.core.fleet.model import MIN_HOSTS
from ntpaudit.core.ntp.sources import is_pool_name
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import format_duration, format_offset

SITE_MOVED_SHARE = 0.1  # smallest shift of a site that counts, as a share of the warning tolerance
SLOW_WALK_SHARE = 0.02  # smallest shift of one host that counts, as a share of the warning tolerance
MAX_SLOW_WALKS = 5  # more slow walks than this at one site become one finding

_FIX_MOVED_BACK = "it is over: find what these hosts share and what moved them; correct the logs of that time"


def check_shared_falseticker(context: FleetContext) -> Iterator[Raised]:
    """Several hosts now reject a source as a falseticker, with much the same error: it is wrong itself, or attacked."""
    hosts = {one.name: one.host for one in context.members if one.silent_s is None and one.host is not None}
    offsets: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
    reports = context.snapshot.falseticker_reports
    for report in sorted(reports, key=lambda one: (one[:2], one.offset_s is not None, one.offset_s or 0.0)):
        zone, _, slot = report.source.rpartition("/")
        is_of_pool = (slot.isdecimal() and zone) or is_pool_name(report.source)  # another server on each host
        if report.host in hosts and not is_of_pool:
            offsets[report.source][report.host] = report.offset_s
    for source, by_host in offsets.items():
        known = {name: offset_s for name, offset_s in by_host.items() if offset_s is not None}
        errors_s = [offset_s - own.estimate_s for name, offset_s in known.items() if (own := hosts[name].offset)]
        if len(by_host) >= MIN_HOSTS and _do_agree(errors_s, context.policy.warning_s):
            message = f"{source} is probably wrong: {_rejected(tuple(by_host), errors_s)}"
            value_s = _median(known.values()) if known else None
            yield Raised("high", message, None, source, tuple(by_host), value_s)


def _rejected(names: Sequence[str], errors_s: Sequence[float]) -> str:
    """Describe how a source differs from the others on those hosts; its error is positive where it is ahead."""
    hosts = f"{len(names)} hosts ({listed(names)})"
    if not errors_s:
        return f"{hosts} reject it as a falseticker"
    error_s = _median(errors_s)
    way = "ahead of" if error_s > 0 else "behind"
    return f"on {hosts} it is {format_duration(error_s)} {way} the servers that agree (median)"


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _do_agree(errors_s: Sequence[float], within_s: float) -> bool:
    """Whether more than half of the errors lie within `within_s`. True if none is known: then none contradicts."""
    ordered = sorted(errors_s)
    most = len(ordered) // 2
    return not ordered or any(
        last_s - first_s <= within_s for first_s, last_s in zip(ordered, ordered[most:], strict=False)
    )


SHARED_FALSETICKER = Rule(
    "shared-falseticker",
    check_shared_falseticker,
    "run `sudo ntpaudit status` on some of these hosts; if the reason of this server is `no-majority`, it may be "
    "right: do the fix of source-quorum there; otherwise check whether this server is broken or compromised; until it "
    "is repaired, remove it from the time daemon of each host, and then from `sources.servers` of ntpaudit; `ntpaudit "
    "fleet --format json` names all hosts in `hosts` of this finding",
    (ISO, PCI, SC45),
    raised_when={
        "high": (
            "a server is a falseticker on three or more hosts that report now, and on more than half of them its error "
            "is the same (they differ by at most the warning tolerance)"
        )
    },
    meaning="One server is wrong for many hosts.",
    formula={"high": "hosts_that_reject_it >= 3 and 2 * hosts_with_the_same_error > hosts_with_a_known_error"},
    notes=(
        "The error is the offset by this server minus the host's own estimate; hosts without it do not count here. A "
        "place in a pool (`ZONE/2`, any name of the NTP pool) is a different server on each host and never counts. "
        "`value_s` is the median of the offsets by this server. If no majority agrees on a host, all its servers are "
        "falsetickers there, also those that are right."
    ),
)


def check_site_moved(context: FleetContext) -> Iterator[Raised]:
    """Most hosts of a site moved, and one amount fits all of them: the cause is something that they share."""
    for site, shift in context.site_shifts.items():
        is_back = all(move.is_back for move in shift.moves)
        went = "moved back towards the true time" if is_back else _went(shift.least_s)
        message = (
            f"{len(shift.moves)} of {shift.compared} hosts {at(site)} {went} within "
            f"{format_duration(max(move.span_s for move in shift.moves), rounding='up')}, each by at least "
            f"{format_duration(shift.least_s, rounding='down')}; "
            f"a common shift of at least {format_duration(shift.amount_s, rounding='down')} fits all of them"
        )
        names = tuple(sorted(move.name for move in shift.moves))
        remedy = _FIX_MOVED_BACK if is_back else None
        yield Raised("low" if is_back else "high", message, site, None, names, shift.amount_s, remedy)


SITE_MOVED = Rule(
    "site-moved",
    check_site_moved,
    "check what these hosts share: their servers, their network, the machines that they run on",
    (ISO, PCI, SC45),
    raised_when={
        "high": (
            "more than half of the hosts of a site certainly moved since `--before` (1 h): each by at least a tenth of "
            "the warning tolerance, and one amount fits all"
        ),
        "low": "the same, but each of these hosts is certainly closer to the true time than before",
    },
    meaning="Something that the hosts of a site share has moved their clocks.",
    formula={
        "high": "2 * moved_hosts > compared_hosts and least_shift_s >= 0.1 * warning_tolerance_s",
        "low": "2 * hosts_that_moved_back > compared_hosts and least_shift_s >= 0.1 * warning_tolerance_s",
    },
    case_remedies={"the level is low": _FIX_MOVED_BACK},
    notes=(
        "At least three hosts of the site must have been measured both times; hosts without a site are not compared. "
        "The message has the shift proved for each host, and the smallest amount that fits all. This amount is "
        "`value_s`, positive where the hosts fell behind."
    ),
    is_of_each=True,
)


def check_slow_walk(context: FleetContext) -> Iterator[Raised]:
    """A clock moves away from the true time, too slowly for its own agent to report it."""
    explained = {move.name for shift in context.site_shifts.values() for move in shift.moves}
    walks = [move for move in context.shifts if move.name not in explained and _is_walk(move, context.policy.warning_s)]
    for site, moves in by_site(walks):
        worst_first = sorted(moves, key=lambda move: (-abs(move.least_s), move.name))
        if len(moves) <= MAX_SLOW_WALKS:
            for move in worst_first:
                yield Raised("medium", _walked(move), site, None, (move.name,), move.least_s)
        else:
            message = f"{len(moves)} hosts {at(site)} slowly move away from the true time; {_walked(worst_first[0])}"
            names = tuple(sorted(move.name for move in moves))
            yield Raised("medium", message, site, None, names, worst_first[0].least_s)


def _is_walk(move: ClockShift, warning_s: float) -> bool:
    """Whether a clock certainly moves away and goes on, unnoticed by its own agent, and did not step."""
    least_s, rate_ppm = move.least_s, move.host.frequency_ppm
    if not abs(least_s) >= SLOW_WALK_SHARE * warning_s:  # true of nearly all hosts
        return False
    goes_on = rate_ppm is None or rate_ppm * least_s > 0
    is_hidden = abs(move.now.estimate_s) <= warning_s and move.member.severity <= Severity.WARNING
    return move.is_away and is_hidden and goes_on and not move.stepped


def _walked(move: ClockShift) -> str:
    return (
        f"{move.name} {_went(move.least_s)} by at least {format_duration(move.least_s, rounding='down')} within "
        f"{format_duration(move.span_s, rounding='up')}, away from the true time and without a step; it is now "
        f"{format_offset(move.now.estimate_s)}, and its own agent reports {move.member.severity.word}"
    )


SLOW_WALK = Rule(
    "slow-walk",
    check_slow_walk,
    "compare the host's time daemon and its servers with those of hosts that did not move",
    (ISO, ISO_GUIDE, SC45),
    raised_when={
        "medium": (
            "a host certainly moved away from the true time since `--before`, by at least a fiftieth of the warning "
            "tolerance, and its own agent has not noticed"
        )
    },
    meaning="A clock is slowly led away from the true time, for example by a server that it follows.",
    formula={"medium": "least_shift_s >= 0.02 * warning_tolerance_s"},
    notes=(
        "Its smallest possible error now exceeds its maximum error then. Its estimate is still within the warning "
        "tolerance, and its agent reports ok or warning. Its drift (if known) continues in that direction, it did not"
        " step, and its site did not move. One finding per host, up to five at a site; otherwise one for the site."
    ),
    is_of_each=True,
)


def _went(movement_s: float) -> str:
    return "fell behind" if movement_s > 0 else "ran ahead"


RULES = (SHARED_FALSETICKER, SITE_MOVED, SLOW_WALK)
