"""Queries of the history: audits in brief, hours, events; read page by page, whatever its size."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ntpaudit.core.accounting import Spans
from ntpaudit.core.accounts import DAY, Account
from ntpaudit.core.chain import ChainHead
from ntpaudit.core.clock_changes import ClockChange
from ntpaudit.core.excursions import Excursion, merged
from ntpaudit.core.ntp.rate_limit import Instant, ServerState
from ntpaudit.core.policy import VERDICTS, Severity, Verdict
from ntpaudit.core.record import Record
from ntpaudit.core.staleness import AgentStatus, HostNow, RunningAgent, agent_status
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.errors import StoreError
from ntpaudit.probes import service
from ntpaudit.store import chain
from ntpaudit.store.accounts import read_accounts
from ntpaudit.store.audits import EVENT_COLUMNS, StoredEvent, read_event
from ntpaudit.store.clock_changes import read_sleeps, read_steps, read_suspends
from ntpaudit.store.compression import unpack_text
from ntpaudit.store.dead_letters import DeadLetter, read_dead_letters
from ntpaudit.store.outbox import backlog
from ntpaudit.store.readonly import open_readonly
from ntpaudit.store.rows import ROW_ERRORS, Damage, first_at, member, parse_json, read_record, read_rows, whole_number
from ntpaudit.store.saved_state import load_server_states, load_state
from ntpaudit.store.serialization import revive

if TYPE_CHECKING:  # only a report needs it
    from ntpaudit.core.evidence.model import HostRecords, Period

_BY_AGENT = "kind IN ('network', 'local') AND record IS NOT NULL"

MAX_LOOKED_BACK = 100  # how many network audits are searched for one that polled any source
PAGE = 500  # rows per page: a slow reader blocks nothing between two pages
_MARGIN_NS = HOUR_S * NS_PER_S  # corrected times of neighbours may be out of order by their errors

_SEVERITIES = {int(severity): severity for severity in Severity}
_KINDS: dict[str | None, Literal["network", "local", "check"]] = {"network": "network", "local": "local", None: "check"}


class Audit(NamedTuple):
    """One audit of the history, in brief. Offsets in seconds, None when unmeasured; positive is behind.

    `time_ns` is the corrected time; if it is not known (not `is_dated`), the host's time, `host_ns`.
    `kind` is `check` for a one-shot audit. `findings` are their ids, `minor` those that do not count: low or pending.
    """

    id: int
    time_ns: int
    is_dated: bool
    host_ns: int
    kind: Literal["network", "local", "check"]
    severity: Severity
    verdict: Verdict
    offset_s: float | None
    earliest_s: float | None
    latest_s: float | None
    age_s: float | None
    findings: tuple[str, ...]
    minor: frozenset[str] = frozenset()

    @property
    def bound_s(self) -> float | None:
        """How wrong the clock could be at most."""
        if self.earliest_s is None or self.latest_s is None:
            return None
        return max(abs(self.earliest_s), abs(self.latest_s))


class Hour(NamedTuple):
    """All audits of one hour, beginning at `time_ns`: how many, how they ended, and the extremes in seconds."""

    time_ns: int
    audits: int
    measured: int
    within: int
    unproven: int
    beyond: int
    severity: Severity
    least_offset_s: float | None
    most_offset_s: float | None
    bound_s: float | None
    spans: Spans | None = None  # of each of its seconds; None where that is not known any more
    account: Account | None = None


class Window(NamedTuple):
    """The part of a history to read: the audits of ids `first` to `last` in a period. A time of None is no limit."""

    first: int
    last: int
    since_ns: int | None = None
    until_ns: int | None = None

    @property
    def size(self) -> int:
        """About how many audits it has; none is read for that."""
        return max(0, self.last - self.first + 1)


# an audit without a corrected time belongs where its neighbours do
_IN_TIME = "(utc_ns IS NULL OR utc_ns BETWEEN IFNULL(:since_ns, utc_ns) AND IFNULL(:until_ns, utc_ns))"
_INSIDE = f"id >= :first AND id <= :last AND record IS NOT NULL AND {_IN_TIME}"
_COLUMNS = "id, utc_ns, host_ns, kind, severity, verdict, offset_ns, earliest_ns, latest_ns"


@contextmanager
def open_history(path: str, damage: Damage = lambda what: None) -> Iterator["History"]:
    """Open a history for reading; `damage` is called for each damaged row. StoreError, with the fix, if that fails."""
    with open_readonly(path) as connection:
        yield History(connection, damage)


class History:
    """A history open for reading. Rows are read page by page; each damaged one is skipped and reported to `damage`."""

    def __init__(self, connection: sqlite3.Connection, damage: Damage) -> None:
        self._connection = connection
        self._damage = damage

    def status(
        self, read_host: Callable[[], HostNow], stale_after_s: float | None = None
    ) -> tuple[AgentStatus, dict[str, Any]] | None:
        """Return what the agent's last record is worth now, and that record as stored; None without one.

        `read_host` is called after the records were read, so that none is later. StoreError if the last one is damaged.
        """
        row = self._connection.execute(
            f"SELECT id, record FROM audits WHERE {_BY_AGENT} ORDER BY id DESC LIMIT 1"  # noqa: S608
        ).fetchone()
        if row is None:
            return None
        audit_id, value = row
        try:
            stored, record = read_record(value)
        except ValueError as error:
            raise StoreError(
                f"the last record (audit {audit_id}) is damaged, so nothing is known of the clock ({error}); "
                f"wait for the agent's next record, or restart it: {service.restart()}"
            ) from error
        polled = self._last_polled(audit_id)
        agent, here = self.agent_state(), read_host()
        if here.agent_runs is False and record.health is not None:  # nothing is sent now: the outbox is as it stays
            waiting, oldest_ns, _ = backlog(self._connection)
            oldest_s = None if oldest_ns is None else (self.corrected_now(here.moment) - oldest_ns) / NS_PER_S
            record = record._replace(health=record.health._replace(backlog=waiting, oldest_s=oldest_s))
        states = load_server_states(self._connection)
        servers = [states.get(f"{one.address} {one.port}", ServerState()) for one in (polled or record).sources]
        return agent_status(record, polled, agent, here, stale_after_s, servers), stored

    def _last_polled(self, until_id: int) -> Record | None:
        """Return the last record of an audit that polled any source, else of any; a damaged one is skipped."""
        rows = self._connection.execute(
            f"SELECT record FROM audits WHERE {_BY_AGENT} AND kind = 'network' AND id <= ? ORDER BY id DESC LIMIT ?",  # noqa: S608
            (until_id, MAX_LOOKED_BACK),
        )
        latest = None
        for (value,) in rows:
            try:
                _, record = read_record(value)
            except ValueError:
                continue
            if any(source.status != "skipped" for source in record.sources):
                return record
            latest = latest or record
        return latest

    def agent_state(self) -> RunningAgent:
        """Return the state that the agent saved at its start."""
        return read_agent_state(load_state(self._connection, "agent"))

    def host_name(self) -> str | None:
        """Return the host name of the newest record, None without one."""
        row = self._connection.execute(
            "SELECT record FROM audits WHERE record IS NOT NULL ORDER BY id DESC LIMIT 1"
        ).fetchone()
        try:
            return None if row is None else str(parse_json(row[0])["host"]["name"])
        except ROW_ERRORS:
            return None

    def corrected_now(self, now: Instant) -> int:
        """Return the last audit's corrected time plus the uptime since; after a boot the host's, but never earlier."""
        row = self._connection.execute(
            "SELECT utc_ns, boot_id, boottime_ns FROM audits"
            " WHERE typeof(utc_ns) = 'integer' AND typeof(boottime_ns) = 'integer' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return now.realtime_ns
        utc_ns, boot_id, boottime_ns = row
        if boot_id is not None and boot_id == now.boot_id:
            return int(utc_ns + now.boottime_ns - boottime_ns)
        return max(now.realtime_ns, int(utc_ns))

    def oldest_ns(self) -> int | None:
        """Return the corrected time of the oldest audit, else the earliest host time; before it only hours are kept."""
        row: tuple[int | None] = self._connection.execute(
            "SELECT IFNULL((SELECT utc_ns FROM audits WHERE typeof(utc_ns) = 'integer' ORDER BY id LIMIT 1),"
            " (SELECT MIN(host_ns) FROM audits WHERE typeof(host_ns) = 'integer'))"
        ).fetchone()
        return row[0]

    def newest_ns(self) -> int | None:
        """Return the time of the newest audit: the corrected time, else the host's."""
        row = self._connection.execute(
            "SELECT IFNULL(utc_ns, host_ns) AS time_ns FROM audits"
            " WHERE typeof(time_ns) = 'integer' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return None if row is None else int(row[0])

    def window(self, since_ns: int | None = None, until_ns: int | None = None, limit: int | None = None) -> Window:
        """Return the window of the audits between two times, the newest `limit` of them."""
        low, high = self._connection.execute(  # together in one SELECT they would read every row
            "SELECT (SELECT MIN(id) FROM audits), (SELECT MAX(id) FROM audits)"
        ).fetchone()
        if low is None:
            return Window(1, 0)
        first = low if since_ns is None else first_at(self._connection, "audits", low, high + 1, since_ns - _MARGIN_NS)
        last = (
            high if until_ns is None else first_at(self._connection, "audits", low, high + 1, until_ns + _MARGIN_NS) - 1
        )
        window = Window(first, last, since_ns, until_ns)
        if limit is not None:
            row = self._connection.execute(
                f"SELECT id FROM audits WHERE {_INSIDE} ORDER BY id DESC LIMIT 1 OFFSET :skipped",  # noqa: S608
                window._asdict() | {"skipped": limit - 1},
            ).fetchone()
            window = window._replace(first=row[0] if row else first)
        return window

    def audits(self, window: Window, *, in_full: bool = True) -> Iterator[Audit]:
        """Return the audits of a window, the oldest first; if not `in_full`, without age and findings, and faster."""
        columns = f"{_COLUMNS}, {'record' if in_full else 'NULL'}"
        return read_rows(_audit, self._pages(columns, window), self._damage, "audit")

    def records(self, window: Window) -> Iterator[tuple[int, str]]:
        """Return the texts of a window's records as they were stored, each with its audit's id, the oldest first."""
        return read_rows(_record_text, self._pages("id, kind, record", window), self._damage, "audit")

    def _pages(self, columns: str, window: Window) -> Iterator[Any]:
        """Return the rows of a window page by page: no transaction lasts while a reader takes his time."""
        while rows := self._connection.execute(
            f"SELECT {columns} FROM audits WHERE {_INSIDE} ORDER BY id LIMIT {PAGE}",  # noqa: S608
            window._asdict(),
        ).fetchall():
            yield from rows
            window = window._replace(first=rows[-1][0] + 1)

    def hours(self, since_ns: int | None, until_ns: int | None, limit: int | None = None) -> list[Hour]:
        """Return the hours that end after `since` and begin before `until`: the newest `limit`, oldest first."""
        rows = self._connection.execute(
            "SELECT * FROM rollups WHERE hour_s >= ? AND hour_s < ? ORDER BY hour_s DESC LIMIT ?",
            (
                -(1 << 62) if since_ns is None else since_ns // NS_PER_S // HOUR_S * HOUR_S,
                1 << 62 if until_ns is None else -(-until_ns // NS_PER_S),
                -1 if limit is None else limit,
            ),
        ).fetchall()
        return list(read_rows(_hour, reversed(rows), self._damage, "hour"))

    def accounts(
        self,
        length_s: int,
        since_ns: int | None,
        until_ns: int | None,
        now_ns: int,
        critical_s: float | None = None,
    ) -> list[Account]:
        """Return the accounts of the hours or days that overlap a period, the last one up to now.

        `critical_s` judges again by another critical tolerance, without excursions where the records are deleted.
        """
        since_s = 0 if since_ns is None else since_ns // NS_PER_S
        until_s = now_ns // NS_PER_S if until_ns is None else -(-until_ns // NS_PER_S)
        found = read_accounts(
            self._connection, length_s, since_s, until_s, now_ns // NS_PER_S, self._damage, critical_s
        )
        return list(found)

    def excursions(
        self, since_ns: int | None, until_ns: int | None, now_ns: int, critical_s: float | None = None
    ) -> list[Excursion]:
        """Return the excursions of a period, the oldest first: of its hours, and of days whose hours are deleted."""
        hours = self.accounts(HOUR_S, since_ns, until_ns, now_ns, critical_s)
        first_ns = hours[0].begin_s * NS_PER_S if hours else until_ns
        days = self.accounts(DAY, since_ns, first_ns, now_ns, critical_s)
        since_s = 0 if since_ns is None else since_ns // NS_PER_S
        found = merged(one for account in (*days, *hours) for one in account.excursions)
        return sorted((one for one in found if one.end_s > since_s or one.is_open), key=lambda one: one.begin_s)

    def account(self, hours: Sequence[Hour], now_ns: int, critical_s: float | None = None) -> list[Hour]:
        """Return hours with their accounts, and those between them in which there is no audit at all."""
        known = {hour.time_ns // NS_PER_S: hour for hour in hours}
        if not known:
            return []
        empty = Hour(0, 0, 0, 0, 0, 0, Severity.UNKNOWN, None, None, None)
        for account in self.accounts(HOUR_S, min(known) * NS_PER_S, (max(known) + 1) * NS_PER_S, now_ns, critical_s):
            hour = known.get(account.begin_s, empty._replace(time_ns=account.begin_s * NS_PER_S))
            known[account.begin_s] = hour._replace(spans=account.spans, account=account)
        return [known[hour_s] for hour_s in sorted(known)]

    def clock_changes(self, since_ns: int | None, until_ns: int | None, limit: int | None = None) -> list[ClockChange]:
        """Return the steps and suspends between two times, the newest `limit` of them, in the order of time."""
        sleeps = read_sleeps(self._connection)
        steps = read_steps(self._connection, self.events(since_ns, until_ns), sleeps)
        suspends = (
            one
            for one in read_suspends(sleeps)
            if (since_ns is None or since_ns <= one.known_ns) and (until_ns is None or one.known_ns <= until_ns)
        )
        found = sorted([*steps, *suspends], key=lambda one: one.known_ns)
        return found if limit is None else found[-limit:]

    def events(self, since_ns: int | None, until_ns: int | None, limit: int | None = None) -> list[StoredEvent]:
        """Return what happened between two times, the newest `limit` events, in the order they were kept."""
        rows = self._connection.execute(
            f"SELECT {EVENT_COLUMNS} FROM events WHERE {_IN_TIME} ORDER BY id DESC LIMIT :limit",  # noqa: S608
            {"since_ns": since_ns, "until_ns": until_ns, "limit": -1 if limit is None else limit},
        ).fetchall()
        return list(read_rows(read_event, reversed(rows), self._damage, "event"))

    def chain_head(self) -> ChainHead | None:
        """Return the newest head of the chain; None for a history of version 4, or if it is damaged."""
        with suppress(sqlite3.DatabaseError):
            return chain.last_head(self._connection)
        return None

    def evidence(
        self, period: "Period", now_ns: int, critical_s: float | None, damaged: Sequence[str]
    ) -> "HostRecords":
        """Return what an evidence report needs of this host, judged again by `critical_s` unless that is None.

        `damaged` is what `damage` was called with.
        """
        from ntpaudit.store.evidence import read_host

        return read_host(self, self._connection, period, now_ns, critical_s, damaged)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Return every dead letter, the oldest first."""
        return read_dead_letters(self._connection)


def read_agent_state(data: Any) -> RunningAgent:
    """Read what an agent stored about itself; the defaults if it is not valid. Keys of other versions are ignored."""
    known = {key: part for key, part in data.items() if key in RunningAgent._fields} if isinstance(data, dict) else {}
    try:
        agent = revive(RunningAgent, known)
    except (TypeError, ValueError):
        return RunningAgent()
    return agent if all(0 < interval_s < 1e9 for interval_s in agent[:3]) else RunningAgent()


def _record_text(row: tuple[Any, ...]) -> tuple[int, str]:
    audit_id, kind, value = row
    if kind == "damaged":
        raise ValueError("marked as damaged")
    return audit_id, unpack_text(value)


def _audit(row: tuple[Any, ...]) -> Audit:
    audit_id, utc_ns, host_ns, kind, severity, verdict, offset_ns, earliest_ns, latest_ns, value = row
    age_s: float | None = None
    findings: tuple[str, ...] = ()
    minor: frozenset[str] = frozenset()
    if value is not None:
        text = unpack_text(value)
        age_s = member(text, '"age_s":')
        listed = [(str(finding["id"]), finding["severity"]) for finding in member(text, '"findings":')]
        findings = tuple(name for name, _ in listed)
        minor = frozenset(name for name, severity in listed if severity == Severity.OK.word)
    earliest_s, latest_s = _seconds(earliest_ns), _seconds(latest_ns)
    if earliest_s is not None and latest_s is not None and earliest_s > latest_s:
        raise ValueError("the interval ends before it begins")
    return Audit(
        audit_id,
        whole_number(host_ns if utc_ns is None else utc_ns),
        utc_ns is not None,
        whole_number(host_ns),
        _KINDS[kind],
        _SEVERITIES[severity],
        VERDICTS[verdict],
        _seconds(offset_ns),
        earliest_s,
        latest_s,
        None if age_s is None else float(age_s),
        findings,
        minor,
    )


def _hour(row: tuple[Any, ...]) -> Hour:
    hour_s, *counts, severity, least_ns, most_ns, bound_ns = row
    audits, measured, within, unproven, beyond = map(whole_number, counts)
    extremes = (_seconds(least_ns), _seconds(most_ns), _seconds(bound_ns))
    return Hour(hour_s * NS_PER_S, audits, measured, within, unproven, beyond, Severity(severity), *extremes)


def _seconds(value_ns: int | None) -> float | None:
    return None if value_ns is None else whole_number(value_ns) / NS_PER_S
