"""The days and the excursions of a history, as text, CSV (RFC 4180) and JSON Lines."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from ntpaudit.core.accounting import Spans
from ntpaudit.core.accounts import Account, least, median
from ntpaudit.core.checks.rule import Level
from ntpaudit.core.excursions import Excursion, describe_logs
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import Rounding, format_duration
from ntpaudit.formats.accounts import account_data, again, excursion_data, utc
from ntpaudit.formats.json_record import json_line
from ntpaudit.render.terminal import Paint, fitting
from ntpaudit.render.text_safety import csv_cell, decimal
from ntpaudit.reports.history_tables import LEGEND, Column, Echo, table
from ntpaudit.reports.journal_steps import block

DAY_SCHEMA = "ntpaudit.day/1"
EXCURSION_SCHEMA = "ntpaudit.excursion/1"

_LEVELS: dict[str, tuple[Level, Severity]] = {
    "beyond": ("critical", Severity.CRITICAL),
    "unproven": ("medium", Severity.WARNING),
}


def day_text(days: Iterable[Account], width: int, paint: Paint) -> Iterator[str]:
    """Write days as a table of at most `width` columns. No time within the tolerance is rounded up."""
    yield from table(_COLUMNS, days, width, paint, LEGEND, severity=lambda day: Severity.OK)


def day_json(days: Iterable[Account], critical_s: float | None = None) -> Iterator[str]:
    """Write days as JSON Lines of a schema of their own; `seconds` add up to `length_s`.

    `critical_s` is the tolerance by which they were judged again.
    """
    for day in days:
        period = {"schema": DAY_SCHEMA, "time": {"utc": utc(day.begin_s)}, "length_s": day.length_s}
        yield json_line(period | again(critical_s) | {"seconds": day.spans._asdict()} | account_data(day))


def day_csv(days: Iterable[Account]) -> Iterator[str]:
    """Write days under a header; `profile` and `config_sha256` are those at the end, `changes` their changes."""
    writer = csv.DictWriter(Echo(), _DAY_FIELDS, restval="", extrasaction="ignore")
    yield writer.writeheader()
    for day in days:
        last = day.in_force[-1]._asdict() | day.in_force[-1].profile._asdict() if day.in_force else {}
        row = {
            **day._asdict(),
            **{f"{name}_s": seconds for name, seconds in day.spans._asdict().items()},
            "queried_min": least(day.queried),
            "queried_median": median(day.queried),
            "usable_min": least(day.usable),
            "usable_median": median(day.usable),
            "changes": max(0, len(day.in_force) - 1),
            "time": utc(day.begin_s),
            "excursions": len(day.excursions),
            **last,
            "host": csv_cell(last.get("host", "")),
            "profile": csv_cell(last.get("name", "")),
        }
        yield writer.writerow(_written(row))


def excursion_text(excursions: Iterable[Excursion], width: int | None, paint: Paint) -> Iterator[str]:
    """Write each excursion with its size, what the logs of that time are worth, its findings and its cause."""
    is_first = True
    for one in excursions:
        level, severity = _LEVELS[one.state]
        lasted = format_duration(float(one.duration_s)) if one.duration_s else "less than 1 s"
        title = f"{one.state} for {lasted}{' (accepted)' if one.is_accepted else ''}"
        facts = (
            ("until", "not over" if one.is_open else _minute(one.end_s)),
            ("error", _error(one)),
            ("logs", describe_logs(one.earliest_s, one.latest_s)),
            ("finding", ", ".join(one.findings) or "none"),
            ("cause", one.cause or "not known: no step of the clock explains it"),
        )
        lines = block(_minute(one.begin_s), level, severity, title, facts, fitting(width), paint)
        yield next(lines).removeprefix("\n") if is_first else next(lines)
        yield from lines
        is_first = False


def excursion_json(excursions: Iterable[Excursion], critical_s: float | None = None) -> Iterator[str]:
    """Write excursions as JSON Lines of a schema of their own."""
    schema = {"schema": EXCURSION_SCHEMA} | again(critical_s)
    yield from (json_line(schema | excursion_data(one)) for one in excursions)


def excursion_csv(excursions: Iterable[Excursion]) -> Iterator[str]:
    """Write excursions under a header."""
    writer = csv.DictWriter(Echo(), _EXCURSION_FIELDS)
    yield writer.writeheader()
    for one in excursions:
        texts = {"findings": " ".join(one.findings), "cause": csv_cell(one.cause or "")}
        yield writer.writerow(_written(excursion_data(one) | texts))


def _error(one: Excursion) -> str:
    if one.possible_s is None:
        return "not known: no measurement"
    proved = f"{format_duration(one.proved_s, rounding='down')} at least" if one.proved_s else "none proved"
    return f"{proved}, {format_duration(one.possible_s, rounding='up')} at most"


def _written(row: dict[str, Any]) -> dict[str, Any]:
    flags = {name: int(value) for name, value in row.items() if isinstance(value, bool)}
    return row | flags | {name: decimal(value) for name, value in row.items() if isinstance(value, float)}


def _minute(time_s: int) -> str:
    return utc(time_s)[:19].replace("T", " ")


def _lasted(name: str) -> Column:
    """Return the column of a state: time within the tolerance is rounded down, any other up (R3)."""
    rounding: Rounding = "down" if name == "within" else "up"

    def cell(day: Account) -> str:
        seconds = getattr(day.spans, name)
        return format_duration(float(seconds), rounding=rounding) if seconds else ""

    return Column(name, max(8, len(name)), cell, is_number=True)


_COLUMNS = (
    Column("day (UTC)", 10, lambda day: utc(day.begin_s)[:10]),
    *map(_lasted, Spans._fields),
    Column(
        "bound",
        8,
        lambda day: "" if day.bound_s is None else format_duration(day.bound_s, rounding="up"),
        is_number=True,
        page=86,
    ),
    Column("steps", 5, lambda day: str(day.steps or ""), is_number=True, page=93),
    Column(
        "sources", 7, lambda day: "" if least(day.usable) is None else str(least(day.usable)), is_number=True, page=102
    ),
    Column("profile", 16, lambda day: day.in_force[-1].profile.name if day.in_force else "", page=120),
)
_DAY_FIELDS = (
    *("time", "length_s", *(f"{name}_s" for name in Spans._fields), "audits", "earliest_s", "latest_s", "bound_s"),
    *("steps", "step_s", "queried_min", "queried_median", "usable_min", "usable_median", "two_sources_s"),
    *(
        "three_sources_s",
        "raised",
        "cleared",
        "excursions",
        "host",
        "machine_id",
        "version",
        "config_sha256",
        "profile",
    ),
    *("warning_s", "critical_s", "changes", "chain_first", "chain_last", "chain_head"),
)
_EXCURSION_FIELDS = (
    *("state", "begin", "end", "open", "duration_s", "proved_s", "possible_s", "earliest_s", "latest_s", "logs"),
    *("findings", "cause", "accepted"),
)
