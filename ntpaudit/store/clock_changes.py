"""The steps and suspends of a history: steps are events, suspends follow from the uptimes of the audits."""

import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from ntpaudit.core.attribution import Moment
from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.clock_changes import ClockChange
from ntpaudit.core.events import Event
from ntpaudit.core.units import NS_PER_S, parse_utc

MIN_SUSPEND_NS = 100_000_000  # a real suspend is longer; a slow reading of two clocks is shorter


class Sleep(NamedTuple):
    """The suspended time of a boot since its uptime `boottime_ns`, and the audits before and after it grew."""

    boot_id: str
    boottime_ns: int
    suspended_ns: int
    utc_ns: int | None
    host_ns: int
    earlier_boottime_ns: int | None
    earlier_suspended_ns: int | None
    earlier_host_ns: int | None


def read_suspends(sleeps: Sequence[Sleep]) -> Iterator[ClockChange]:
    """Yield every suspend, with a moment between the two audits around it."""
    for sleep in sleeps:
        if sleep.earlier_suspended_ns is None or sleep.earlier_boottime_ns is None or sleep.earlier_host_ns is None:
            continue
        size_ns = sleep.suspended_ns - sleep.earlier_suspended_ns
        begin_us = (sleep.earlier_boottime_ns - sleep.earlier_suspended_ns) // 1000
        end_us = (sleep.boottime_ns - sleep.suspended_ns) // 1000
        yield ClockChange(
            "suspend",
            size_ns,
            None,
            sleep.utc_ns,
            sleep.earlier_host_ns,
            sleep.host_ns,
            sleep.boottime_ns,
            Moment(journal_boot(sleep.boot_id), begin_us, end_us, size_ns // 1000),
        )


def read_sleeps(connection: sqlite3.Connection) -> list[Sleep]:
    """Return the first audit of each boot, and each before which the host was suspended."""
    rows = connection.execute(
        "WITH ordered AS (SELECT id, boot_id, boottime_ns, suspended_ns, utc_ns, host_ns, LAG(boottime_ns) OVER boot"
        " AS earlier_ns, LAG(suspended_ns) OVER boot AS earlier_suspended_ns, LAG(host_ns) OVER boot AS earlier_host_ns"
        " FROM audits WHERE kind IN ('network', 'local') AND typeof(boot_id) = 'text' AND typeof(host_ns) = 'integer'"
        " AND typeof(boottime_ns) = 'integer' AND typeof(suspended_ns) = 'integer'"
        " AND typeof(utc_ns) IN ('integer', 'null') WINDOW boot AS (PARTITION BY boot_id ORDER BY boottime_ns, id))"
        " SELECT boot_id, boottime_ns, suspended_ns, utc_ns, host_ns, earlier_ns, earlier_suspended_ns, earlier_host_ns"
        " FROM ordered WHERE earlier_suspended_ns IS NULL OR suspended_ns - earlier_suspended_ns > ? ORDER BY id",
        (MIN_SUSPEND_NS,),
    )
    return [Sleep._make(row) for row in rows]


def read_steps(
    connection: sqlite3.Connection, stored: Iterable[tuple[Event, str | None]], sleeps: Sequence[Sleep]
) -> Iterator[ClockChange]:
    """Yield every step among events; its moment is on CLOCK_MONOTONIC, by the suspends of its boot."""
    by_boot: dict[str | None, list[Sleep]] = defaultdict(list)
    for sleep in sleeps:
        by_boot[sleep.boot_id].append(sleep)
    for event, boot_id in stored:
        if event.kind not in STEP_KINDS or not event.raised or event.value_s is None:
            continue
        size_ns, after_ns = round(event.value_s * NS_PER_S), event.host_ns
        with suppress(ValueError, KeyError, TypeError):
            after_ns = parse_utc(event.detail["after"])
        index = bisect_right(by_boot[boot_id], event.boottime_ns, key=lambda sleep: sleep.boottime_ns)
        suspended_ns = by_boot[boot_id][max(0, index - 1)].suspended_ns if by_boot[boot_id] else 0
        begin_ns = event.boottime_ns
        if event.detail.get("while_down"):
            (earlier_ns,) = connection.execute(
                "SELECT MAX(boottime_ns) FROM audits WHERE boot_id = ? AND boottime_ns < ?", (boot_id, begin_ns)
            ).fetchone()
            begin_ns = earlier_ns if isinstance(earlier_ns, int) else suspended_ns
        moment = Moment(
            journal_boot(boot_id or ""),
            (begin_ns - suspended_ns) // 1000,
            (event.boottime_ns - suspended_ns) // 1000,
            size_ns // 1000,
        )
        yield ClockChange(
            "step", size_ns, event.level, event.utc_ns, after_ns - size_ns, after_ns, event.boottime_ns, moment
        )


def journal_boot(boot_id: str) -> str:
    """Return a boot id as the journal writes it: /proc has hyphens in it."""
    return boot_id.replace("-", "")
