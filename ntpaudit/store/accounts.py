"""A history's time accounted for: what each of its hours consisted of, second by second (AC1, AC2)."""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from ntpaudit.core.accounting import Moment, Spans, by_hour, stretches
from ntpaudit.core.policy import VERDICTS
from ntpaudit.core.units import HOUR_S, NS_PER_S

DEFAULT_LOCAL_S = 60.0  # the local interval of records that do not say theirs


class _Row(NamedTuple):
    """The columns of an audit that place it in time."""

    utc_ns: int | None
    host_ns: int
    boot_id: str | None
    boottime_ns: int
    suspended_ns: int
    verdict: int
    local_s: float | None


def read_accounts(connection: sqlite3.Connection, until_ns: int) -> dict[int, Spans]:
    """Return the spans of every hour up to a true time, by its beginning in seconds; damaged rows count for nothing."""
    until_s = until_ns // NS_PER_S
    (first_id,) = connection.execute("SELECT MIN(id) FROM audits").fetchone()
    hours = by_hour(stretches(_moments(connection), _steps(connection), until_s), until_s)
    if first_id is not None and first_id > 1 and hours:  # the records of a part of the first hour were deleted
        del hours[min(hours)]
    return hours


def _moments(connection: sqlite3.Connection) -> Iterator[Moment]:
    """Yield every record of the agent at its true time, in order.

    A record without one is placed by its uptime, where any record of its boot has a true time; of a boot that was never
    measured it is placed by the host's clock, if that lies between the records before and after.
    """
    rows = connection.execute(
        "SELECT utc_ns, host_ns, boot_id, boottime_ns, suspended_ns, verdict, local_s FROM audits"
        " WHERE kind IN ('network', 'local') AND typeof(verdict) = 'integer' AND verdict BETWEEN 0 AND 3"
        " AND typeof(host_ns) = 'integer' AND typeof(boottime_ns) = 'integer' AND typeof(suspended_ns) = 'integer'"
        " AND typeof(utc_ns) IN ('integer', 'null') AND typeof(local_s) IN ('real', 'null') ORDER BY id"
    )
    boot: list[_Row] = []
    last_s = 0
    for row in map(_Row._make, rows):
        if boot and row.boot_id != boot[0].boot_id:
            for moment in _of_boot(boot, last_s, row):
                last_s = moment.utc_s
                yield moment
            boot = []
        boot.append(row)
    yield from _of_boot(boot, last_s, None)


def _of_boot(boot: list[_Row], last_s: int, after: _Row | None) -> Iterator[Moment]:
    known = [row.utc_ns - row.boottime_ns for row in boot if row.utc_ns is not None]
    began_ns = known[0] if known else None
    for row in boot:
        if row.utc_ns is not None:
            began_ns = row.utc_ns - row.boottime_ns
        at_ns = row.host_ns if began_ns is None else began_ns + row.boottime_ns
        end_ns = None if after is None else after.utc_ns
        if known or (last_s < at_ns // NS_PER_S and (end_ns is None or at_ns < end_ns)):
            local_s = row.local_s if row.local_s and 0 < row.local_s < HOUR_S * 24 * 366 else DEFAULT_LOCAL_S
            up_s, slept_s = row.boottime_ns / NS_PER_S, row.suspended_ns / NS_PER_S
            yield Moment(at_ns // NS_PER_S, row.boot_id, up_s, slept_s, VERDICTS[row.verdict], local_s)


def _steps(connection: sqlite3.Connection) -> list[int]:
    """Return when the clock was set, in order, without the steps of an unknown moment, while no agent watched."""
    rows = connection.execute(
        "SELECT utc_ns FROM events WHERE kind IN ('step-back', 'step-forward') AND raised = 1"
        " AND typeof(utc_ns) = 'integer'"
        " AND NOT (json_valid(detail) AND IFNULL(json_extract(detail, '$.while_down'), 0)) ORDER BY utc_ns"
    )
    return [utc_ns // NS_PER_S for (utc_ns,) in rows]
