"""The finding ordering-risk: timestamps of different hosts cannot order their events."""

from collections.abc import Iterator

from ntpaudit.core.checks.controls import ISO, NIS2
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.fleet.context import MAX_NAMES_SHOWN, FleetContext, at, listed
from ntpaudit.core.fleet.model import Offset, max_error_s
from ntpaudit.core.fleet.ordering import Group, group_of, orderable
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import format_duration, format_offset

_CORRECT_LOGS = "correct logs by each host's recorded offset (behind: add, ahead: subtract) before you order events"


def check_ordering_risk(context: FleetContext) -> Iterator[Raised]:
    """NTPA-10: the timestamps of two hosts cannot order events that are further apart than the limit."""
    limit_s = context.policy.ambiguity_s
    orderable_groups: list[Group] = []
    for site, group in context.groups.items():
        named = frozenset[str]()
        for raised in _ordering(context, group, f"Timestamps {'of hosts ' if site is None else ''}{at(site)}", site):
            named = frozenset(raised.hosts)
            yield raised
        orderable_groups.append(group_of([one for one in group.hosts if one.name not in named]) if named else group)
    rest = group_of([one for group in orderable_groups for one in group.extremes])
    if rest.ambiguity is not None and not rest.ambiguity.within_s <= limit_s:  # though each site alone meets the limit
        everyone = [one for group in orderable_groups for one in group.hosts]
        yield from _ordering(context, rest._replace(hosts=everyone), "Timestamps of hosts at different sites", None)


def _ordering(context: FleetContext, group: Group, subject: str, site: str | None) -> Iterator[Raised]:
    worst, limit_s = group.ambiguity, context.policy.ambiguity_s
    if worst is None or worst.within_s <= limit_s:
        return
    kept = orderable(group.hosts, limit_s)
    rest = group_of([one for one in group.hosts if one.name in kept]).ambiguity
    named = tuple(sorted(one.name for one in group.hosts if one.name not in kept))
    message = (
        f"{subject} cannot order events less than {format_duration(worst.within_s, rounding='up')} apart "
        f"(ordering limit {format_duration(limit_s)}). "
    )
    if rest is not None:
        those = "it" if len(named) == 1 else "them"
        message += f"Cause: {listed(named)}; without {those} {format_duration(rest.within_s, rounding='up')}"
    else:
        offsets = {one.name: one.offset for one in group.hosts if one.name in worst.hosts}
        message += "Cause: " + " and ".join(f"{name} ({_offset_and_error(offsets[name])})" for name in worst.hosts)
    yield Raised("high", message, site, None, named, worst.within_s, _ordering_fix(context, frozenset(named)))


def _offset_and_error(offset: Offset) -> str:
    """Return an offset, or the maximum error where most of it is the interval's width."""
    if max_error_s(offset) > 2 * abs(offset.estimate_s):
        return f"maximum error {format_duration(max_error_s(offset), rounding='up')}"
    return format_offset(offset.estimate_s)


def _ordering_fix(context: FleetContext, named: frozenset[str]) -> str | None:
    """Return the fix where clocks are wrong; None where the intervals are only too wide."""
    wrong = {
        one.name: one
        for one in context.members
        if one.name in named
        and (
            one.severity is Severity.CRITICAL
            or (one.offset is not None and not abs(one.offset.estimate_s) <= context.policy.warning_s)
        )
    }
    if not wrong:
        return None
    kinds = dict.fromkeys(
        alarm.kind for name in sorted(wrong) for alarm in wrong[name].alarms[:1] if alarm.severity > Severity.OK
    )
    why = f" ({', '.join(list(kinds)[:MAX_NAMES_SHOWN])})" if kinds else ""
    clocks = "the clock" if len(wrong) == 1 else "the clocks"
    return f"fix {clocks} of {listed(sorted(wrong))} first{why}; {_CORRECT_LOGS}"


ORDERING_RISK = Rule(
    "ordering-risk",
    check_ordering_risk,
    f"give these hosts the same nearby servers; {_CORRECT_LOGS}",
    (ISO, NIS2),
    raised_when={
        "high": (
            "timestamps of two hosts cannot order events that are `fleet.ambiguity` apart: the latest possible offset "
            "of one host minus the earliest of the other is larger"
        )
    },
    meaning="Events on different hosts cannot be put into their true order by their timestamps.",
    formula={"high": "latest_possible_offset_s - earliest_possible_offset_s > ordering_limit_s"},
    case_remedies={"the clocks of these hosts are wrong": f"fix these clocks first; {_CORRECT_LOGS}"},
    notes=(
        "`value_s` is that difference. One finding per site, and one for hosts at different sites if it holds without"
        " the hosts already named. It names the smallest set of hosts without which the others meet the limit; of "
        "several such sets, the one whose clocks are wrong. Each host's last interval is widened by 50 ppm "
        "(`max_drift_ppm` if larger) of its age; a step since then is not covered."
    ),
)

RULES = (ORDERING_RISK,)
