"""The accounts of a history: an hour and a UTC day is closed once it is over, and again if late stamps change it.

An account follows from the rows of its time alone, so the agent that closes an hour and a command that reads a history
without accounts get the same one.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice, pairwise
from typing import Any

from ntpaudit.core.accounting import Unplaced, dated, first_s, judged_again, settled
from ntpaudit.core.accounts import DAY, Account, account_of, day_of, ended_hours, judge_again, timeline
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.store import chain, outbox
from ntpaudit.store.account_rows import Row, first_id_at, first_stamped_s, last_stamped_id, read_events, read_page
from ntpaudit.store.audits import stamp_audits
from ntpaudit.store.compression import pack_text
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.rows import Damage, read_json, read_rows
from ntpaudit.store.serialization import plain, to_json

PAGE = 500  # how many records are read at once
MAX_HOURS = 1000  # how many hours are closed at once: an absence may have lasted for years
_NEVER = 1 << 62
_END_S = 1 << 37  # the year 6325: no time of an account is later

EntryOf = Callable[[Account], OutboxEntry] | None
"""Makes the outbox entry of an account; None if nothing is delivered."""


def closed_s(connection: sqlite3.Connection) -> int | None:
    """Return the end of the last hour that is closed; before the first one, the hour of the first true time, if any."""
    newest = next(_hours_back(connection), None)
    if newest is not None:
        return newest.end_s
    stamped_s = first_stamped_s(connection)
    return None if stamped_s is None else _floor(stamped_s, HOUR_S)


def close_hours(connection: sqlite3.Connection, entry_of: EntryOf) -> bool:
    """Close the next hours that are over, and the days that end with them; return whether there were any."""
    before = next(_hours_back(connection), None)
    return _close(connection, islice(_ended(connection, before), MAX_HOURS), before, entry_of) is not before


def stamp(connection: sqlite3.Connection, boot_id: str | None, boot_ns: int, entry_of: EntryOf) -> None:
    """Stamp the latest audits and events of a boot, and close the hours again that this changes."""
    changed = stamp_audits(connection, boot_id, boot_ns)
    if changed is None or (end_s := closed_s(connection)) is None:
        return
    first_id, first_ns = changed
    hours = _hours_back(connection)
    before = next((one for one in hours if one.end_s * NS_PER_S <= first_ns and _last_id(one) < first_id), None)
    while before is None or before.end_s < end_s:
        hours_again = [account for account in _ended(connection, before) if account.end_s <= end_s]
        if not hours_again:
            return  # the records are deleted
        before = _close(connection, hours_again, before, entry_of)


def _close(
    connection: sqlite3.Connection, accounts: Iterable[Account], before: Account | None, entry_of: EntryOf
) -> Account | None:
    """Store the accounts of hours, and those of the days that end with them; return the last one."""
    for account in accounts:
        before = _chained(connection, account, before)
        _keep(connection, before, entry_of)
        if before.end_s % DAY == 0:
            for day in _days(_stored(connection, HOUR_S, before.end_s - DAY, before.end_s)):
                _keep(connection, day, entry_of)
    return before


def _keep(connection: sqlite3.Connection, account: Account, entry_of: EntryOf) -> None:
    """Store an account, add it to the chain and enqueue its points, unless it is stored already."""
    key, packed = (account.length_s, account.begin_s), pack_text(to_json(plain(account)))
    stored = connection.execute("SELECT account FROM accounts WHERE length_s = ? AND begin_s = ?", key).fetchone()
    if stored == (packed,):
        return
    connection.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", (*key, packed))
    chain.append(connection, "hour" if account.length_s == HOUR_S else "day", account.begin_s)
    if entry_of is not None:
        outbox.enqueue(connection, entry_of(account), None)


def _hours_back(connection: sqlite3.Connection, until_s: int = _NEVER) -> Iterator[Account]:
    """Yield the accounts of hours that end by then, the newest first; a damaged one is omitted."""
    begin_s = until_s - HOUR_S + 1
    while row := connection.execute(
        "SELECT begin_s, length_s, account FROM accounts WHERE length_s = ? AND begin_s < ?"
        " ORDER BY begin_s DESC LIMIT 1",
        (HOUR_S, begin_s),
    ).fetchone():
        begin_s = row[0]
        yield from read_rows(_account, [row], _ignore, "account")


def _ended(
    connection: sqlite3.Connection,
    before: Account | None,
    since_s: int | None = None,
    critical_s: float | None = None,
) -> Iterator[Account]:
    """Yield the next hours that are over: those that end in the next page of records that ends any.

    They follow an account; without one they begin at `since_s`, else with the history. `critical_s` judges again.
    """
    ids, read = list[int](), list[Unplaced]()
    next_id, begin_s, began_ns = _begin(connection, before, since_s)
    while page := _page(connection, next_id, PAGE, critical_s):
        ids += [audit_id for audit_id, _ in page]
        read += [row for _, row in page]
        known_ns = began_ns if before is not None and ids[0] == _next_id(before) else None
        rows = list(dated(settled(read, known_ns), known_ns))
        next_id = ids[-1] + 1
        known = [row.utc_ns // NS_PER_S for row in rows if row.utc_ns is not None]
        begin_s = _first_hour(ids[0], rows) if begin_s is None else begin_s
        if known and begin_s is not None and max(known) >= begin_s + HOUR_S:
            yield from ended_hours(rows, ids, read_events(connection, min(known), max(known)), begin_s, before)
            return


def _first_hour(first_id: int, rows: Sequence[Unplaced]) -> int | None:
    """Return the first hour of a history that can be accounted for: not one of which records were deleted."""
    begin_s = first_s(rows)
    return None if begin_s is None else _floor(begin_s, HOUR_S) + HOUR_S * (first_id > 1)


def _page(connection: sqlite3.Connection, first_id: int, count: int, critical_s: float | None) -> list[Row]:
    page = read_page(connection, first_id, count)
    if critical_s is None:
        return page
    return [(audit_id, row._replace(moment=judged_again(row.moment, critical_s))) for audit_id, row in page]


def _begin(
    connection: sqlite3.Connection, before: Account | None, since_s: int | None
) -> tuple[int, int | None, int | None]:
    """Return the id of the first record that the next hour needs, and when that hour and the record's boot began.

    The times are None where they are not known.
    """
    if before is not None:
        return _next_id(before), before.end_s, before.rows[3] if before.rows is not None and before.rows[3:] else None
    if since_s is not None:
        begin_s = _floor(since_s, HOUR_S)
        first_id = last_stamped_id(connection, first_id_at(connection, "audits", begin_s * NS_PER_S))
        if first_id is not None:
            return first_id, begin_s, None
    return 0, None, None


def _last_id(account: Account) -> int:
    return 0 if account.rows is None else account.rows[1]


def _next_id(account: Account) -> int:
    return 0 if account.rows is None else account.rows[2]


def _chained(connection: sqlite3.Connection, account: Account, before: Account | None) -> Account:
    """Return an account with the numbers of the first and the last entry of the chain that its time has."""
    if not account.audits or account.rows is None:
        return account
    entry = "SELECT sequence FROM chain WHERE sequence > ? AND kind = 'record' AND row >= ? ORDER BY sequence LIMIT 1"
    after = 0 if before is None or before.chain_last is None else before.chain_last
    first = connection.execute(entry, (after, account.rows[0] + (before is not None))).fetchone()
    end = first and connection.execute(entry, (first[0], account.rows[1])).fetchone()
    if not end:
        return account
    head = connection.execute("SELECT hex(head) FROM chain WHERE sequence = ?", (end[0] - 1,)).fetchone()
    return account._replace(
        chain_first=first[0], chain_last=end[0] - 1, chain_head=None if head is None else str(head[0]).lower()
    )


def read_accounts(
    connection: sqlite3.Connection,
    length_s: int,
    since_s: int,
    until_s: int,
    now_s: int,
    damage: Damage = lambda what: None,
    critical_s: float | None = None,
) -> Iterator[Account]:
    """Yield the accounts of the hours or days that overlap a period; of the last one what is over `now_s`.

    Those that are closed are read; the others follow from the records. Time of which nothing is known is omitted.
    `critical_s` judges again by another tolerance: from the records, and without excursions where these are deleted.
    """
    until_s = min(until_s, now_s)
    if critical_s is not None:
        yield from _judged_again(connection, length_s, (since_s, until_s, now_s), critical_s, damage)
        return
    if length_s == HOUR_S:
        yield from _hours(connection, since_s, until_s, now_s, damage)
        return
    open_s = _floor(since_s, DAY)
    for day in _stored(connection, DAY, since_s, until_s, damage):
        if open_s < day.begin_s:
            yield from _days(_hours(connection, open_s, day.begin_s, now_s, damage))
        yield day
        open_s = day.end_s
    if open_s < until_s:
        yield from _days(_hours(connection, open_s, min(_floor(until_s - 1, DAY) + DAY, now_s), now_s, damage))


def _judged_again(
    connection: sqlite3.Connection, length_s: int, times: tuple[int, int, int], critical_s: float, damage: Damage
) -> Iterator[Account]:
    since_s, until_s, now_s = times
    begin_s, end_s = _floor(since_s, length_s), min(_floor(until_s - 1, length_s) + length_s, now_s)
    hours = list(_hours_by_records(connection, begin_s, end_s, now_s, critical_s))
    known_s = hours[0].begin_s if hours else end_s
    old = [_judge_again(hour, critical_s) for hour in _stored(connection, HOUR_S, begin_s, known_s, damage)]
    if length_s == HOUR_S:
        yield from (*old, *hours)
        return
    days = {day.begin_s: day for day in _days((*old, *hours))}
    for day in _stored(connection, DAY, begin_s, end_s, damage):
        days.setdefault(day.begin_s, _judge_again(day, critical_s))
    yield from (days[day_s] for day_s in sorted(days))


def _judge_again(account: Account, critical_s: float) -> Account:
    return account._replace(spans=judge_again(account, critical_s), excursions=())


def _days(hours: Iterable[Account]) -> Iterator[Account]:
    """Yield the sums of days; without those of which an hour is missing, unless it precedes the whole history."""
    for begin_s, group in groupby(hours, key=lambda hour: _floor(hour.begin_s, DAY)):
        found = list(group)
        follow = all(one.end_s == other.begin_s for one, other in pairwise(found))
        is_first = found[0].rows is not None and found[0].rows[0] == 1
        if follow and (found[0].begin_s == begin_s or is_first):
            yield day_of(begin_s, found)


def _hours(connection: sqlite3.Connection, since_s: int, until_s: int, now_s: int, damage: Damage) -> Iterator[Account]:
    before = None
    for before in _stored(connection, HOUR_S, since_s, until_s, damage):
        yield before
    if before is None and _has_accounts(connection):
        before = next((one for one in _hours_back(connection, until_s) if one.end_s > since_s - HOUR_S), None)
    yield from _hours_by_records(connection, since_s, until_s, now_s, None, before)


def _hours_by_records(
    connection: sqlite3.Connection,
    since_s: int,
    until_s: int,
    now_s: int,
    critical_s: float | None,
    before: Account | None = None,
) -> Iterator[Account]:
    """Yield the accounts of hours after an account, or since a time, by their records."""
    while found := list(_ended(connection, before, since_s, critical_s)):
        for before in found:
            if since_s - HOUR_S < before.begin_s < until_s:
                yield before
        if found[-1].end_s >= until_s:
            return
    yield from _open_hours(connection, before, since_s, until_s, now_s, critical_s)


def _open_hours(
    connection: sqlite3.Connection,
    before: Account | None,
    since_s: int,
    until_s: int,
    now_s: int,
    critical_s: float | None,
) -> Iterator[Account]:
    """Yield the accounts of the time since the last hour that is over, the last one up to `now_s`."""
    first_id, begin_s, began_ns = _begin(connection, before, since_s)
    page = _page(connection, first_id, -1, critical_s)
    rows = list(dated((row for _, row in page), began_ns if page and page[0][0] == first_id else None))
    known = [row.utc_ns // NS_PER_S for row in rows if row.utc_ns is not None]
    if not known:
        return
    around = timeline(rows, read_events(connection, min(known), max(now_s, *known)), now_s)
    begin_s = _first_hour(page[0][0], rows) if begin_s is None else begin_s
    for hour_s in range(until_s if begin_s is None else begin_s, until_s, HOUR_S):
        before = account_of(around, hour_s, min(hour_s + HOUR_S, now_s), before)._replace(
            rows=(page[0][0], page[-1][0], 0)
        )
        if before.end_s > since_s:
            yield before


def _stored(
    connection: sqlite3.Connection, length_s: int, since_s: int, until_s: int, damage: Damage = lambda what: None
) -> Iterator[Account]:
    if _has_accounts(connection):
        rows = connection.execute(
            "SELECT begin_s, length_s, account FROM accounts WHERE length_s = ? AND begin_s > ? AND begin_s < ?"
            " ORDER BY begin_s",
            (length_s, since_s - length_s, until_s),
        ).fetchall()
        yield from read_rows(_account, rows, damage, "account")


def _has_accounts(connection: sqlite3.Connection) -> bool:
    """Whether the file has accounts; one of an older version has none."""
    return connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'accounts'").fetchone() is not None


def _account(row: Sequence[Any]) -> Account:
    account = read_json(Account, row[2])
    if (account.begin_s, account.length_s) != tuple(row[:2]) or not 0 <= account.begin_s < _END_S:
        raise ValueError("the account is of another period")
    if sum(account.spans) != account.length_s or min(account.spans) < 0:
        raise ValueError("the parts of the account do not add up")
    if not all(0 <= one.begin_s <= one.end_s <= account.end_s for one in account.excursions):
        raise ValueError("an excursion is not in the period")
    if account.rows is not None and len(account.rows) not in (3, 4):
        raise ValueError("the account does not name its rows")
    numbers = (*(account.rows or ())[:3], account.chain_first or 0, account.chain_last or 0)
    if not all(0 <= number < _NEVER for number in numbers) or any(
        not 0 <= one.since_s < _END_S for one in account.in_force
    ):
        raise ValueError("a number of the account is too large")
    return account


def _ignore(what: str) -> None:
    """Take no notice of a damaged row: the hours after it are closed again."""


def _floor(time_s: int, length_s: int) -> int:
    return time_s // length_s * length_s
