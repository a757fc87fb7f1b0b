"""What a history has of its host for an evidence report: accounts, steps with their causes, servers, findings."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ntpaudit.core.accounts import DAY, Account
from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.events import Event
from ntpaudit.core.evidence.model import HostEvent, HostRecords, Period, SourceUse, StepOfClock
from ntpaudit.core.excursions import merged
from ntpaudit.core.ntp.patterns import Pattern, parse_pattern
from ntpaudit.core.units import HOUR_S, NS_PER_S, plural
from ntpaudit.store import chain
from ntpaudit.store.rows import ROW_ERRORS, parse_json

if TYPE_CHECKING:
    from ntpaudit.store.queries import History

_HOURS_OF_DAY = DAY // HOUR_S


def read_host(
    stored: "History",
    connection: sqlite3.Connection,
    period: Period,
    now_ns: int,
    critical_s: float | None,
    damaged: Sequence[str],
) -> HostRecords:
    """Return the records of a history, judged by `critical_s` unless that is None.

    `damaged` lists the kinds of the damaged rows that were found until now.
    """
    accounts = _accounts(stored, period, now_ns, critical_s)
    events = [one.event for one in stored.events(period.begin_s * NS_PER_S, period.end_s * NS_PER_S - 1)]
    servers, messages = _hourly(connection, period)
    approved = _approved(connection)
    names = [one for account in accounts for one in account.in_force]
    return HostRecords(
        names[-1].host if names else stored.host_name() or "this host",
        names[-1].site if names else None,
        tuple(accounts),
        merged(one for account in accounts for one in account.excursions),
        tuple(
            StepOfClock(_utc_s(one), one.value_s, _cause(one, messages))
            for one in events
            if one.kind in STEP_KINDS and one.raised
        ),
        tuple(one._replace(is_approved=_is_approved(one.name, approved)) for one in servers),
        tuple(
            HostEvent(_utc_s(one), one.kind, one.severity.word, one.raised, one.text)
            for one in events
            if one.kind not in STEP_KINDS
        ),
        tuple(f"{plural(count, f'damaged {kind}')} cannot be used" for kind, count in Counter(damaged).items()),
        has_points=stored.oldest_ns() is not None,
    )


def _accounts(stored: "History", period: Period, now_ns: int, critical_s: float | None) -> list[Account]:
    """Return the hours of the period, and the days of which hours are not kept any more."""
    since_ns, until_ns = period.begin_s * NS_PER_S, period.end_s * NS_PER_S
    hours = stored.accounts(HOUR_S, since_ns, until_ns, now_ns, critical_s)
    counts = Counter(one.begin_s // DAY for one in hours)
    days = stored.accounts(DAY, since_ns, until_ns, now_ns, critical_s)
    whole = [one for one in days if period.begin_s <= one.begin_s and one.end_s <= period.end_s and one.length_s == DAY]
    left = [one for one in whole if counts[one.begin_s // DAY] < _HOURS_OF_DAY]
    gone = {one.begin_s // DAY for one in left}
    return sorted([*left, *(one for one in hours if one.begin_s // DAY not in gone)], key=lambda one: one.begin_s)


def _hourly(connection: sqlite3.Connection, period: Period) -> tuple[list[SourceUse], set[tuple[str, str]]]:
    """Return the servers of the first network audit of each hour, and what its findings of steps state."""
    rows = connection.execute(
        "SELECT utc_ns, record FROM audits WHERE id IN (SELECT MIN(id) FROM audits WHERE kind = 'network'"
        " AND typeof(utc_ns) = 'integer' AND utc_ns >= ? AND utc_ns < ? GROUP BY utc_ns / ?) AND record IS NOT NULL",
        (period.begin_s * NS_PER_S, period.end_s * NS_PER_S, HOUR_S * NS_PER_S),
    )
    uses: dict[str, SourceUse] = {}
    messages: set[tuple[str, str]] = set()
    for utc_ns, value in rows:
        try:
            record = parse_json(value)
            names = [str(one["name"]) for one in record["sources"] if one["status"] != "skipped"]
            found = [(one["id"], one["message"]) for one in record["findings"]]
        except ROW_ERRORS:
            continue
        messages |= {(kind, message) for kind, message in found if kind in STEP_KINDS}
        for name in names:
            first = uses.get(name, SourceUse(name, utc_ns // NS_PER_S, 0)).first_s
            uses[name] = SourceUse(name, first, utc_ns // NS_PER_S)
    return sorted(uses.values()), messages


def _utc_s(event: Event) -> int:
    """Return when something happened: the true time, else the host's."""
    return (event.host_ns if event.utc_ns is None else event.utc_ns) // NS_PER_S


def _cause(step: Event, messages: set[tuple[str, str]]) -> str | None:
    """Return what set the clock, as far as a log names it: later records have the step's message with the cause."""
    known = [message for kind, message in messages if kind == step.kind and message.startswith(step.text)]
    _, _, cause = max([step.text, *known], key=len).partition("; cause: ")
    return cause or None


def _approved(connection: sqlite3.Connection) -> tuple[Pattern, ...]:
    """Return the approved servers of the newest configuration that the history has; none if it has none."""
    try:
        found = chain.latest_note(connection, "configuration")
        texts = [one["text"] if isinstance(one, dict) else one for one in found["sources"]["approved"]]
        return tuple(map(parse_pattern, texts))
    except (sqlite3.OperationalError, *ROW_ERRORS):  # the file is of an older version, or the note is damaged
        return ()


def _is_approved(name: str, approved: Sequence[Pattern]) -> bool | None:
    return any(one.matches(name) for one in approved) if approved else None
