"""The appendices of an evidence report as CSV (RFC 4180), one table each."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from ntpaudit.core.evidence.model import HostResult
from ntpaudit.core.evidence.report import EvidenceReport
from ntpaudit.core.excursions import Excursion, describe_logs
from ntpaudit.core.units import NS_PER_S, format_utc
from ntpaudit.render.text_safety import csv_cell, decimal, one_line

_STATES = ("within", "unproven", "beyond", "unmeasured", "absent", "off", "unaccounted")


def render(report: EvidenceReport) -> dict[str, str]:
    """Return every table by the name of its file. Times are UTC, durations and errors in seconds, unknown is empty."""
    hosts = (*report.hosts, *report.unlisted)
    return {
        "hosts.csv": _table(
            (
                *("host", "site", "in_inventory", "result", "period_s", "counted_s"),
                *(f"{state}_s" for state in _STATES),
                *(f"excepted_{state}_s" for state in _STATES if state not in ("within", "off")),
                *("bound_s", "bound_at", "critical_s", "profiles", "two_sources_s", "steps", "raised"),
                *("chain_last", "statements"),
            ),
            map(_host, hosts),
        ),
        "excursions.csv": _table(
            (
                *(
                    "host",
                    "state",
                    "begin",
                    "end",
                    "duration_s",
                    "open",
                    "proved_s",
                    "possible_s",
                    "earliest_s",
                    "latest_s",
                ),
                *("logs", "findings", "cause", "excepted"),
            ),
            ((host.name, *_excursion(one)) for host in hosts for one in host.excursions),
        ),
        "gaps.csv": _table(
            ("host", "from", "to", "state", "seconds"),
            ((host.name, utc(one.begin_s), utc(one.end_s), *one[2:]) for host in hosts for one in host.gaps),
        ),
        "steps.csv": _table(
            ("host", "time", "size_s", "cause"),
            ((host.name, utc(one.utc_s), *one[1:]) for host in hosts for one in host.steps),
        ),
        "sources.csv": _table(
            ("host", "source", "first", "last", "approved"),
            (
                (host.name, one.name, utc(one.first_s), utc(one.last_s), one.is_approved)
                for host in hosts
                for one in host.sources or ()
            ),
        ),
        "changes.csv": _table(
            ("host", "time", "what", "before", "after"),
            ((host.name, utc(one.utc_s), *one[1:]) for host in hosts for one in host.changes),
        ),
        "events.csv": _table(
            ("host", "time", "finding", "severity", "raised", "text"),
            ((host.name, utc(one.utc_s), *one[1:]) for host in hosts for one in host.events),
        ),
    }


def utc(seconds: int) -> str:
    """Write a time as RFC 3339, to the second."""
    return f"{format_utc(seconds * NS_PER_S)[:19]}Z"


def _host(one: HostResult) -> Sequence[Any]:
    balance = one.balance
    return (
        *(one.name, one.site, one.is_listed, one.result, balance.length_s, balance.counted_s),
        *(getattr(balance.spans, state) for state in _STATES),
        *(getattr(balance.excepted, state) for state in _STATES if state not in ("within", "off")),
        *(one.bound_s, None if one.bound_at_s is None else utc(one.bound_at_s)),
        *(" ".join(map(decimal, one.tolerances)), " ".join(one.profiles), one.two_sources_s, one.step_count),
        *(one.raised, one.chain_last, "; ".join(one.statements)),
    )


def _excursion(one: Excursion) -> Sequence[Any]:
    return (
        *(one.state, utc(one.begin_s), utc(one.end_s), one.duration_s, one.is_open, one.proved_s, one.possible_s),
        *(one.earliest_s, one.latest_s, describe_logs(one.earliest_s, one.latest_s)),
        *(" ".join(one.findings), one.cause, one.is_accepted),
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    file = StringIO()
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows([*map(_cell, row)] for row in rows)
    return file.getvalue()


def _cell(value: Any) -> str | int:
    """Write a value so that a spreadsheet does not take a text for a formula; empty for None."""
    if value is None or isinstance(value, str):
        return csv_cell(one_line(value or ""))
    if isinstance(value, float):
        return decimal(value)
    return int(value)
