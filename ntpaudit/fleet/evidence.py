"""Reads what an evidence report needs of many hosts: accounts of days and hours, excursions, findings and steps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from ntpaudit.core.accounting import InForce, Spans
from ntpaudit.core.accounts import DAY as DAY_S
from ntpaudit.core.accounts import Account
from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.evidence.model import HostEvent, HostRecords, Period, StepOfClock
from ntpaudit.core.excursions import STATES, Excursion
from ntpaudit.core.policy import Profile, Severity
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.fleet.decode import DAY, EVENT, EXCURSION, HOUR, AccountRow, ExcursionRow, RawValue, Table, number, text
from ntpaudit.fleet.reader import MAX_NAMES, Reader, Window

_MAX_EXCURSION_S = 90 * DAY_S  # how long before the period an excursion that reaches into it is searched for
_SPANS = tuple(f"{name}_s" for name in Spans._fields)
_READ = (  # each field of 10,000 hosts costs a second
    *(*_SPANS, "bound_s", "steps", "two_sources_s", "raised", "critical_s", "chain_last"),
    *("profile", "config_sha256", "version"),
)
_INVALID = Spans(within=-1)


def read_hosts(reader: Reader, names: Iterable[str], period: Period, site: str | None = None) -> Iterator[HostRecords]:
    """Yield what the database has of each host in the period, some hundred hosts at a time. ReadError if that fails.

    Days are read as days, the hours at both ends and those after a host's latest day as hours. `names` are hosts that
    the database knows.
    """
    ordered = sorted(names)
    for first in range(0, len(ordered), MAX_NAMES):
        yield from _read(reader, ordered[first : first + MAX_NAMES], period, site)


def _read(reader: Reader, names: Sequence[str], period: Period, site: str | None) -> Iterator[HostRecords]:
    rows: dict[str, list[tuple[Table, AccountRow]]] = {name: [] for name in names}
    parts = list(_parts(period))
    for table, begin_s, end_s in parts:
        _add(rows, reader, table, begin_s, end_s, names)
    for table, begin_s, end_s in parts:
        if table == DAY:
            for since_s, group in _not_closed(rows, begin_s, end_s).items():
                _add(rows, reader, HOUR, since_s, end_s, group)
    excursions: dict[str, list[Excursion]] = {name: [] for name in names}
    for row in reader.every(
        EXCURSION, _window(period.begin_s - _MAX_EXCURSION_S, period.end_s), names, EXCURSION.fields
    ):
        if (name := text(row.host)) in excursions and (found := _excursion(row)) is not None:
            excursions[name].append(found)
    events: dict[str, list[HostEvent]] = {name: [] for name in names}
    steps: dict[str, list[StepOfClock]] = {name: [] for name in names}
    for row in reader.every(EVENT, _window(period.begin_s, period.end_s), names, EVENT.fields):
        name, kind = text(row.host), text(row.kind)
        if name not in events or kind is None:
            continue
        utc_s, is_raised = row.stamp_ns // NS_PER_S, number(row.raised) == 1
        if kind not in STEP_KINDS:
            events[name].append(HostEvent(utc_s, kind, _severity(row.severity), is_raised))
        elif is_raised:
            steps[name].append(StepOfClock(utc_s, number(row.value_s)))
    for name in names:
        rows[name].sort(key=lambda pair: (pair[1].begin_ns, str(pair[1].site), str(pair[1].env)))
        latest = rows[name][-1][1] if rows[name] else None
        yield HostRecords(
            name,
            site if latest is None else text(latest.site),
            tuple(_accounts(rows[name], name)),
            tuple(sorted(excursions[name], key=lambda one: (one.begin_s, repr(one)))),
            tuple(sorted(steps[name], key=repr)),
            None,
            tuple(sorted(events[name])),
            has_points=True,
        )


def _not_closed(rows: Mapping[str, list[tuple[Table, AccountRow]]], begin_s: int, end_s: int) -> dict[int, list[str]]:
    """Return the hosts without an account of the last day, by the end of their latest day.

    A day is closed by the first record after it: until then, and for ever if no record follows, it has hours only.
    """
    found: dict[int, list[str]] = {}
    for name, read in rows.items():
        days = (row.begin_ns // NS_PER_S + DAY_S for table, row in read if table == DAY)
        if (since_s := max(days, default=begin_s)) < end_s:
            found.setdefault(since_s, []).append(name)
    return found


def _add(
    rows: Mapping[str, list[tuple[Table, AccountRow]]],
    reader: Reader,
    table: Table,
    begin_s: int,
    end_s: int,
    names: Sequence[str],
) -> None:
    """Read accounts to the rows of their hosts."""
    for row in reader.every(table, _window(begin_s, end_s), names, _READ):
        if (name := text(row.host)) is not None and name in rows:
            rows[name].append((table, row))


def _parts(period: Period) -> Iterator[tuple[Table, int, int]]:
    """Yield which accounts to read from when to when: hours outside of whole UTC days."""
    first_s, last_s = -(-period.begin_s // DAY_S) * DAY_S, period.end_s // DAY_S * DAY_S
    if first_s >= last_s:
        yield HOUR, period.begin_s, period.end_s
        return
    for table, begin_s, end_s in (
        (HOUR, period.begin_s, first_s),
        (DAY, first_s, last_s),
        (HOUR, last_s, period.end_s),
    ):
        if begin_s < end_s:
            yield table, begin_s, end_s


def _window(begin_s: int, end_s: int) -> Window:
    """Return the window of the points from a time on, until before another."""
    return Window(begin_s * NS_PER_S - 1, end_s * NS_PER_S - 1)


def _accounts(rows: Iterable[tuple[Table, AccountRow]], name: str) -> Iterator[Account]:
    """Yield the accounts of a host. One whose seconds are no whole numbers does not add up, which a report states."""
    written, in_force = None, tuple[InForce, ...]()
    for table, row in rows:
        begin_s = row.begin_ns // NS_PER_S
        settings = (row.site, row.env, row.version, row.config_sha256, row.profile, row.critical_s)
        if settings != written:
            written, in_force = settings, _in_force(row, begin_s, name)
        spans = row[4:10] if {*map(type, row[4:10])} == {int} else [*map(_whole, row[4:10])]
        yield Account(
            begin_s,
            HOUR_S if table.name == HOUR.name else DAY_S,
            _INVALID if None in spans else Spans._make(cast("list[int]", spans)),
            bound_s=number(row.bound_s),
            steps=_whole(row.steps) or 0,
            two_sources_s=_whole(row.two_sources_s) or 0,
            raised=_whole(row.raised) or 0,
            in_force=in_force,
            chain_last=_whole(row.chain_last),
        )


def _in_force(row: AccountRow, begin_s: int, name: str) -> tuple[InForce, ...]:
    critical_s = number(row.critical_s)
    if critical_s is None:
        return ()
    profile = Profile(text(row.profile) or "", critical_s, critical_s, "offset")
    settings = (text(row.version) or "", text(row.config_sha256), profile)
    return (InForce(begin_s, name, text(row.site), text(row.env), None, *settings),)


def _excursion(row: ExcursionRow) -> Excursion | None:
    """Return an excursion, None for a damaged point."""
    state, duration_s = text(row.state), _whole(row.duration_s)
    if state not in STATES or duration_s is None:
        return None
    begin_s = row.begin_ns // NS_PER_S
    return Excursion(
        state,
        begin_s,
        begin_s + duration_s,
        number(row.open) == 1,
        number(row.earliest_s),
        number(row.latest_s),
        proved_s=number(row.proved_s) or 0.0,
        possible_s=number(row.possible_s),
        findings=tuple((text(row.findings) or "").split()),
        cause=text(row.cause),
    )


def _severity(value: RawValue) -> str:
    found = number(value)
    return Severity(int(found)).word if found in (0, 1, 2, 3) else ""


def _whole(value: RawValue) -> int | None:
    if type(value) is int and value >= 0:
        return value
    found = number(value)
    return int(found) if found is not None and found.is_integer() and found >= 0 else None
