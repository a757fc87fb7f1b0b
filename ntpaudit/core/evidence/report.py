"""The content of an evidence report, in the order in which it is written (EV2)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ntpaudit.core.acceptance import HostAcceptance
from ntpaudit.core.evidence.clauses import CLAUSES, Clause
from ntpaudit.core.evidence.hosts import end_of, judge_host, utc
from ntpaudit.core.evidence.method import ASSUMPTIONS, LIMITS, METHOD, uncertainty
from ntpaudit.core.evidence.model import (
    BAD_STATES,
    Balance,
    Check,
    HostRecords,
    HostResult,
    Period,
    State,
    total,
)
from ntpaudit.core.units import format_duration, joined, plural

WORDS: Mapping[State, str] = {
    "within": "within",
    "beyond": "beyond for certain",
    "unproven": "unproven",
    "unmeasured": "unmeasured",
    "absent": "without the agent",
    "unaccounted": "unaccounted",
    "off": "off",
}
"""How a sentence names a state."""


class Inputs(NamedTuple):
    """What a report is made of, besides the hosts' records.

    `listed` are the hosts of the inventory with their sites, None without one. `critical_s` judges again by another
    tolerance; `is_judged`: the records already are, by their intervals. `source` describes where the records were read.
    `hashes` are SHA-256 of the files that were read, by what they are; `previous` is that of the previous report.
    """

    period: Period
    source: str
    listed: Mapping[str, str] | None = None
    exceptions: tuple[HostAcceptance, ...] = ()
    critical_s: float | None = None
    is_judged: bool = False
    checks: tuple[Check, ...] = ()
    hashes: Mapping[str, str] = {}
    previous: str | None = None


class Scope(NamedTuple):
    """Which hosts the report is about. `missing` are listed hosts without any account, `unlisted` are not listed."""

    has_inventory: bool
    hosts: int
    accounted: int
    missing: tuple[str, ...]
    unlisted: tuple[str, ...]
    statements: tuple[str, ...]


class ExceptionResult(NamedTuple):
    """An exception, the number of hosts that it applies to, the seconds it covers, and why it covers none, if so."""

    exception: HostAcceptance
    hosts: int
    covered_s: int
    note: str


class EvidenceReport(NamedTuple):
    """A report, part by part in its order. `unlisted` are shown and do not count."""

    period: Period
    source: str
    answer: tuple[str, str, str]
    scope: Scope
    method: tuple[str, ...]
    assumptions: tuple[str, ...]
    uncertainty: str
    tolerance: tuple[str, ...]
    balance: Balance
    hosts: tuple[HostResult, ...]
    unlisted: tuple[HostResult, ...]
    exceptions: tuple[ExceptionResult, ...]
    clauses: tuple[Clause, ...]
    checks: tuple[Check, ...]
    limits: tuple[str, ...]
    hashes: Mapping[str, str]
    previous: str | None

    @property
    def exit_status(self) -> int:
        """0 all counted time is within, 1 some was not shown to be, 2 some was beyond for certain, 3 nothing is known.

        A failed check is 2: the records cannot be relied on. Without any time that counts nothing is shown, so it is 3.
        """
        results = {one.result for one in self.hosts}
        if "beyond" in results or any(one.result == "failed" for one in self.checks):
            return 2
        if results <= {"nothing-known", "off"}:
            return 3
        return 0 if results <= {"within", "off"} else 1


def assemble(records: Iterable[HostRecords], inputs: Inputs) -> EvidenceReport:
    """Return the report about hosts, the worst first; records are read once. ValueError for a period without a length.

    A host of the inventory without records is unaccounted.
    """
    if inputs.period.length_s <= 0:
        raise ValueError("the period has no length")
    left = dict(inputs.listed or {})
    critical_s = None if inputs.is_judged else inputs.critical_s
    results = []
    for one in records:
        is_listed = inputs.listed is None or one.name in inputs.listed
        left.pop(one.name, None)
        results.append(judge_host(one, inputs.period, inputs.exceptions, critical_s, is_listed=is_listed))
    for name, site in left.items():
        results.append(judge_host(HostRecords(name, site or None), inputs.period, inputs.exceptions))
    results.sort(key=_worst_first)
    hosts = tuple(one for one in results if one.is_listed)
    unlisted = tuple(one for one in results if not one.is_listed)
    balance = total(one.balance for one in hosts)
    return EvidenceReport(
        inputs.period,
        inputs.source,
        (_first(hosts, inputs), _second(balance, len(hosts)), _third(inputs.checks)),
        _scope(hosts, unlisted, inputs),
        METHOD,
        ASSUMPTIONS,
        uncertainty(),
        tuple(_tolerance(hosts, inputs)),
        balance,
        hosts,
        unlisted,
        tuple(_exceptions(hosts, inputs.exceptions)),
        CLAUSES,
        inputs.checks,
        LIMITS,
        inputs.hashes,
        inputs.previous,
    )


def share(part: int, whole: int) -> str:
    """Write a share of time within, rounded down to 0.001 %, with its denominator: only all of it is 100 % (EV3)."""
    return f"{_thousandths(100_000 * part // whole)} % of {exact(whole)}" if whole else f"no share of {exact(whole)}"


def bad_share(part: int, whole: int) -> str:
    """Write a share of other time, rounded up to 0.001 %, with its denominator."""
    return (
        f"{_thousandths(-(-100_000 * part // whole))} % of {exact(whole)}" if whole else f"no share of {exact(whole)}"
    )


def _thousandths(number: int) -> str:
    return f"{number // 1000}.{number % 1000:03}" if number % 1000 else str(number // 1000)


def exact(seconds: int) -> str:
    """Write a time to the second, for example `89 d 23:59:01` or `0:10:00`."""
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days:,} d {clock}" if days else clock


def _worst_first(one: HostResult) -> tuple[int, int, str]:
    order = ("beyond", "not-shown", "nothing-known", "within", "off")
    return order.index(one.result), -one.balance.bad_s, one.name


def _first(hosts: Sequence[HostResult], inputs: Inputs) -> str:
    period = f"from {utc(inputs.period.begin_s)} to {utc(inputs.period.end_s)}"
    counted = [one for one in hosts if one.result != "off"]
    if not counted:
        return f"No host has time that counts, {period}."
    good = [one for one in counted if one.result == "within"]
    covered = sum(any(one.balance.excepted) for one in good)
    subject = f"{len(good):,} of {len(counted):,} hosts were"
    if len(counted) == 1:
        subject = f"{counted[0].name} was" if good else f"{counted[0].name} was not"
    more = f", {covered:,} of them with time that exceptions cover" if covered else ""
    more += (
        f"; {plural(len(hosts) - len(counted), 'more host')} had no time that counts"
        if len(hosts) > len(counted)
        else ""
    )
    return f"{subject} shown to be within {_limit(hosts, inputs)} of UTC for all time that counts, {period}{more}."


def _limit(hosts: Sequence[HostResult], inputs: Inputs) -> str:
    if inputs.critical_s is not None:
        return format_duration(inputs.critical_s)
    found = sorted({tolerance for one in hosts for tolerance in one.tolerances})
    if len(found) == 1:
        return format_duration(found[0])
    return f"their tolerances ({joined([*map(format_duration, found)])})" if found else "an unknown tolerance"


def _second(balance: Balance, hosts: int) -> str:
    if not balance.counted_s:
        return "No time counts: the hosts were off, or exceptions cover all of it."
    bad = [
        f"{exact(seconds)} {WORDS[state]} ({bad_share(seconds, balance.counted_s).partition(' of')[0]})"
        for state in BAD_STATES
        if (seconds := balance.counted(state))
    ]
    rest = f"; the rest was {joined(bad)}" if bad else ""
    apart = {"off": balance.spans.off, "excepted": sum(balance.excepted)}
    left = [f"{exact(seconds)} {what}" for what, seconds in apart.items() if seconds]
    rest += f"; not counted: {joined(left)}" if left else ""
    whose = "all hosts together" if hosts > 1 else "the host"
    share_text = share(balance.spans.within, balance.counted_s)
    clocks = "clocks were" if hosts > 1 else "clock was"
    return f"The {clocks} within for {share_text}, the time of {whose} that counts{rest}."


def _third(checks: Sequence[Check]) -> str:
    failed = [one.name for one in checks if one.result == "failed"]
    passed = [one.name for one in checks if one.result == "passed"]
    skipped = [one.name for one in checks if one.result == "not-done"]
    if failed:
        return f"The records failed {plural(len(failed), 'check')} and cannot be relied on: {joined(failed)}."
    if not passed:
        return "No check has verified that the records were not changed later."
    left = f"; not done: {joined(skipped)}" if skipped else ""
    return f"The records passed {plural(len(passed), 'check')}: {joined(passed)}{left}."


def _scope(hosts: Sequence[HostResult], unlisted: Sequence[HostResult], inputs: Inputs) -> Scope:
    missing = tuple(one.name for one in hosts if one.result == "nothing-known")
    statements = []
    if inputs.listed is None:
        statements.append("No inventory was given: hosts that never reported are not in this report.")
    if unlisted:
        verb = "reports" if len(unlisted) == 1 else "report"
        statements.append(
            f"{plural(len(unlisted), 'host')} {verb} but {'is' if len(unlisted) == 1 else 'are'} not in the "
            "inventory: shown apart, not counted."
        )
    return Scope(
        inputs.listed is not None,
        len(hosts),
        len(hosts) - len(missing),
        missing,
        tuple(one.name for one in unlisted),
        tuple(statements),
    )


def _tolerance(hosts: Sequence[HostResult], inputs: Inputs) -> list[str]:
    counts: dict[str, int] = {}
    for one in hosts:
        for tolerance in one.tolerances:
            counts[format_duration(tolerance)] = counts.get(format_duration(tolerance), 0) + 1
    lines = [f"Critical tolerance {limit}: {plural(number, 'host')}" for limit, number in counts.items()]
    lines += [f"Profile {name}" for name in sorted({profile for one in hosts for profile in one.profiles})]
    lines.append(
        "The organisation that configured the agents set these tolerances, by choosing a profile or by its own values. "
        "They come from no rule, unless a clause below states a number."
    )
    if inputs.critical_s is not None:
        how = (
            "The stored intervals decide; where they are deleted, the largest possible error of an hour or day does."
            if inputs.is_judged
            else "The largest possible error of each hour or day decides: its time is within only if that error was at "
            "most this tolerance. Excursions are listed by the tolerance that was in force."
        )
        limit = format_duration(inputs.critical_s)
        lines.append(f"This report judges again by {limit}, as its maker asked (--critical). {how}")
    return lines


def _exceptions(hosts: Sequence[HostResult], exceptions: Sequence[HostAcceptance]) -> list[ExceptionResult]:
    found = []
    for number, one in enumerate(exceptions):
        covered = sum(host.covered_s[number] for host in hosts)
        matching = sum(one.is_of(host.name, host.site) for host in hosts)
        note = ""
        if end_of(one) is None:
            note = "it has no end, so it covers nothing"
        elif not matching:
            note = "no host of this report matches"
        elif not covered:
            note = "it covers no time of this period"
        found.append(ExceptionResult(one, matching, covered, note))
    return found
