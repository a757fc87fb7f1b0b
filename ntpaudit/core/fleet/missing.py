"""Findings about hosts without current data, and about too few servers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ntpaudit.core.checks.controls import ATTACK_IMPAIR, CIS_THREE, CIS_TWO, NIS2, PCI_FAILURES, SOC2
from ntpaudit.core.checks.rule import Level, Raised, Rule
from ntpaudit.core.fleet.context import MAX_NAMES_SHOWN, FleetContext, at, listed
from ntpaudit.core.fleet.members import by_site, measured, namesake
from ntpaudit.core.fleet.model import Coverage, HostStatus
from ntpaudit.core.units import DAY_S, format_duration, plural

FULL_SHARE = 0.95  # if fewer of the hosts are measured by two sources, `coverage` has level medium

_FIX_SILENT = "check the agent (systemctl status ntpaudit on the host) and the network path to the database"
_FIX_EXPIRED = "check whether the host still exists, then check its agent; --look-back searches further back"
_FIX_NO_POINT = "check the agent there, or install it; or correct the name in the inventory: names are compared exactly"
_FIX_UNLISTED = "add your own hosts to the inventory; find out who runs the others"
_FIX_WRONG_SITE = "correct the site in the inventory, or host.site in the configuration of the host"
_FIX_UNMEASURED = "fix silent and unmeasured hosts by their own findings"


def check_evidence_gap(context: FleetContext) -> Iterator[Raised]:
    """NTPA-07: hosts without current data (silent, expired, or never reported), and hosts that are not listed."""
    has_inventory = context.policy.inventory is not None
    how = "remove it from the inventory" if has_inventory else "use an inventory that does not list it (--inventory)"
    retire = f"; if the host is retired, {how}"
    for is_accepted in (False, True):  # apart, because a finding is accepted for all of its hosts or for none
        hosts = [one for one in context.members if (EVIDENCE_GAP.id in one.exceptions) is is_accepted]
        silent = [one for one in hosts if one.host is not None and one.silent_s is not None]
        for site, group in by_site(silent):
            yield from _silence(group, site, f"{_FIX_SILENT}{retire}")
        without_data = [one for one in hosts if one.host is None]
        for site, group in by_site(without_data):
            if expired := tuple(sorted(one.name for one in group if one.is_expired)):
                yield _expired(expired, site, context.snapshot.look_back_s, f"{_FIX_EXPIRED}{retire}")
            if never := tuple(sorted(one.name for one in group if not one.is_expired)):
                yield _never(never, site, context.unlisted)
    if context.unlisted:
        verb = "reports but is" if len(context.unlisted) == 1 else "report but are"
        message = f"{listed(context.unlisted)} {verb} not in the inventory"
        yield Raised("low", message, hosts=context.unlisted, remedy=_FIX_UNLISTED)
    yield from _misplaced(context)


def _silence(hosts: Sequence[HostStatus], site: str | None, remedy: str) -> Iterator[Raised]:
    """Report the silent hosts of a site; those that are silent for a day in a finding of their own."""
    gaps: defaultdict[Level, list[tuple[float, str]]] = defaultdict(list)
    for one in hosts:
        silent_s = one.silent_s or 0.0
        gaps["high" if silent_s >= DAY_S else "medium"].append((silent_s, one.name))
    for level, group in gaps.items():
        silent_s, longest = max(group)
        message = f"{longest} has been silent for {format_duration(silent_s)}; its clock is unknown since then"
        if len(group) > 1:
            message = (
                f"{len(group)} hosts {at(site)} are silent, {longest} for {format_duration(silent_s)}; their clocks "
                "are unknown since then"
            )
        yield Raised(level, message, site, None, tuple(sorted(name for _, name in group)), silent_s, remedy)


def _expired(names: tuple[str, ...], site: str | None, look_back_s: float, remedy: str) -> Raised:
    """Report hosts that have no point within the look-back."""
    verb = "is in the database but has" if len(names) == 1 else "are in the database but have"
    message = f"{listed(names)} {verb} no point in the last {format_duration(look_back_s)}"
    return Raised("high", message, site, None, names, remedy=remedy)


def _never(names: tuple[str, ...], site: str | None, unlisted: Sequence[str]) -> Raised:
    """Report hosts that never reported, with unlisted hosts of nearly the same name."""
    near = {name: other for name in names if (other := namesake(name, unlisted)) is not None}
    verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
    message = f"{listed(names)} {verb} in the inventory, but the database has no point of {them}"
    if len(names) == 1 and near:
        message += f"; did you mean {near[names[0]]}?"
    elif near:
        few = [f"{other} for {name}" for name, other in near.items()]
        message += f"; did you mean {listed(few)}?"
    return Raised("high", message, site, None, names, remedy=_FIX_NO_POINT)


def _misplaced(context: FleetContext) -> Iterator[Raised]:
    listed = frozenset(context.policy.inventory or ())
    sites = context.policy.sites
    misplaced = {
        one.name: f"{one.name} reports from {one.host.site}, but the inventory lists it at {sites[one.name]}"
        for one in context.members
        if one.host is not None and one.host.site is not None and one.silent_s is None and one.name in listed
        if sites.get(one.name, one.host.site) != one.host.site
    }
    if misplaced:
        names = tuple(sorted(misplaced))
        shown = "; ".join(misplaced[name] for name in names[:MAX_NAMES_SHOWN])
        more = f"; and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
        yield Raised("low", f"{shown}{more}", hosts=names, remedy=_FIX_WRONG_SITE)


EVIDENCE_GAP = Rule(
    "evidence-gap",
    check_evidence_gap,
    _FIX_SILENT,
    (NIS2, PCI_FAILURES, SOC2),
    raised_when={
        "high": (
            "hosts have been silent for a day",
            "hosts are in the database, but have no point within `--look-back`",
            "hosts are in the inventory, but the database has no point of them",
        ),
        "medium": "hosts have been silent for `fleet.silent_after`",
        "low": ("a host that reports is not in the inventory", "the inventory lists it at another site"),
    },
    meaning="Nothing proves how wrong the clocks of these hosts are.",
    formula={
        "high": ("silent_s >= 24 h", "silent_s > look_back_s", "points < 1"),
        "medium": "silent_after_s <= silent_s < 24 h",
        "low": ("hosts_that_are_not_listed > 0", "hosts_at_another_site > 0"),
    },
    techniques=(ATTACK_IMPAIR,),
    notes="The fix ends with what to do if a host is retired: remove it from the inventory; without one, use one.",
    case_remedies={
        "hosts have no point within `--look-back`": _FIX_EXPIRED,
        "the database has no point of hosts in the inventory": _FIX_NO_POINT,
        "a host is not in the inventory": _FIX_UNLISTED,
        "the inventory lists a host at another site": _FIX_WRONG_SITE,
    },
)


def check_coverage(context: FleetContext) -> Iterator[Raised]:
    """Too few hosts are measured by two synchronised sources (CIS Controls 8.4); three are counted too (v7 6.1)."""
    hosts, _, by_two, by_three = context.coverage
    if by_two == hosts:
        return
    agreeing = {one.name: host.agreeing for one, host, _ in measured(context.expected)}
    short = sorted((one for one in context.expected if agreeing.get(one.name, 0) < 2), key=lambda one: one.name)
    states = {one.name: _state(one, agreeing.get(one.name, 0)) for one in short}
    level: Level = "low" if by_two >= FULL_SHARE * hosts else "medium"
    only, expected = ("", "") if level == "low" else ("only ", f", {100 * FULL_SHARE:g} % expected")
    message = (
        f"{only}{by_two} of {plural(hosts, 'host')}{' in the inventory' * (context.policy.inventory is not None)} "
        f"({share(by_two, hosts)}{expected}) {'is' if by_two == 1 else 'are'} measured by two or more servers, "
        f"{by_three} by three or more ({share(by_three, hosts)}); not covered: "
        f"{listed([f'{name} ({state})' for name, state in states.items()])}"
    )
    have_few = [bool(agreeing.get(name)) for name in states]
    remedy = None if all(have_few) else _FIX_UNMEASURED
    if remedy and any(have_few):
        remedy = f"first {remedy}; then {COVERAGE.remedy}"
    yield Raised(level, message, hosts=tuple(states), remedy=remedy)


def _state(one: HostStatus, agreeing: int) -> str:
    if one.host is None or one.silent_s is not None:
        return "silent"
    return plural(agreeing, "server") if agreeing else "not measured"


def describe_coverage(coverage: Coverage, *, is_listed: bool) -> str:
    """Describe how many hosts are measured; `is_listed`: those of an inventory."""
    hosts, measured, by_two, by_three = coverage
    return (
        f"{measured} of {plural(hosts, 'host')}{' in the inventory' * is_listed} {'is' if measured == 1 else 'are'} "
        f"measured ({share(measured, hosts)}); {by_two} by two or more servers ({share(by_two, hosts)}), {by_three} by "
        f"three or more ({share(by_three, hosts)})"
    )


def share(count: int, total: int) -> str:
    """Write a share in per cent, rounded down: only a complete count is 100 %."""
    return f"{1000 * count // total / 10:g} %" if total else "0 %"


COVERAGE = Rule(
    "coverage",
    check_coverage,
    "configure at least two servers, better four, on each host that has fewer",
    (CIS_TWO, CIS_THREE, NIS2),
    raised_when={
        "medium": (
            "less than 95 % of the hosts that should report are measured by two usable servers that agree (CIS "
            "Controls 8.4)"
        ),
        "low": "at least 95 % are, but not all",
    },
    meaning="Too few hosts are measured by servers that check each other.",
    formula={
        "medium": "hosts_with_two_servers < 0.95 * expected_hosts",
        "low": "0.95 * expected_hosts <= hosts_with_two_servers < expected_hosts",
    },
    case_remedies={"hosts are silent or not measured": _FIX_UNMEASURED},
    notes=("The message also counts those with three servers (CIS Controls v7 6.1). Percentages are rounded down."),
)

RULES = (EVIDENCE_GAP, COVERAGE)
