"""Steps and suspends of a history with their causes, as text, CSV (RFC 4180) and JSON Lines, the newest last."""

import csv
from collections.abc import Iterator, Sequence
from typing import Any

from ntpaudit.core.clock_changes import ClockChange
from ntpaudit.core.observation import Unavailable
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc
from ntpaudit.formats.json_record import json_line
from ntpaudit.render.terminal import fitting, painter
from ntpaudit.render.text_safety import csv_cell, decimal
from ntpaudit.reports.history_tables import Echo
from ntpaudit.reports.journal_steps import block, cause_data, describe_cause

SCHEMA = "ntpaudit.step/1"


def change_text(
    changes: Sequence[ClockChange], unread: Sequence[Unavailable], width: int | None, *, colour: bool
) -> Iterator[str]:
    """Write each change with its effect and cause; times are true ones, with `?` where only the host's is known."""
    paint, is_first = painter(colour), True
    for change in changes:
        when = f"{_minute(change.known_ns)[:19]}{'?' if change.utc_ns is None else ' '}"
        facts = (("effect", _effect(change)), ("cause", _cause(change, unread)))
        lines = block(when, change.level, change.severity, _title(change), facts, fitting(width), paint)
        yield next(lines).removeprefix("\n") if is_first else next(lines)
        yield from lines
        is_first = False
    if any(change.utc_ns is None for change in changes):
        yield "?: by the host's own clock, because the true time is not known\n"


def change_json(changes: Sequence[ClockChange], unread: Sequence[Unavailable]) -> Iterator[str]:
    """Write changes as JSON Lines; `unread` is what could not be searched for causes, and why."""
    for change in changes:
        yield json_line(_data(change) | {"unread": [one._asdict() for one in unread]})


def change_csv(changes: Sequence[ClockChange], unread: Sequence[Unavailable]) -> Iterator[str]:
    """Write changes under a header; `size_s` is positive for a step forward, and for a suspend."""
    writer = csv.DictWriter(Echo(), _FIELDS, extrasaction="ignore")
    yield writer.writeheader()
    for change in changes:
        data = _data(change)
        found = data["cause"] or {"name": "", "text": "", "host_time": ""}
        yield writer.writerow(
            data
            | {"time": data["time"]["utc"] or "", "before_host_time": data["time"]["before"]}
            | {"after_host_time": data["time"]["after"], "size_s": decimal(data["size_s"])}
            | {"cause": found["name"], "cause_host_time": found["host_time"], "cause_text": csv_cell(found["text"])}
            | {"unread": csv_cell("; ".join(one.reason for one in unread))}
        )


def _title(change: ClockChange) -> str:
    size = format_duration(change.size_ns / NS_PER_S)
    if change.kind == "suspend":
        return f"suspended for {size}"
    return f"set {'back' if change.size_ns < 0 else 'forward'} by {size}"


def _effect(change: ClockChange) -> str:
    low, high = (_minute(time_ns) for time_ns in sorted((change.before_ns, change.after_ns)))
    window = f"from {low} to {high[11:] if high[:10] == low[:10] else high}"
    if change.kind == "suspend":
        return f"the host logged nothing for this time, {window} by its own clock"
    return f"timestamps {'occur twice' if change.size_ns < 0 else 'are missing'} {window}"


def _cause(change: ClockChange, unread: Sequence[Unavailable]) -> str:
    if change.cause is not None:
        return describe_cause(change.cause)
    if not unread:
        return "unattributed: no line of the journal or the audit log names one"
    reasons = "; ".join(f"{one.reason} ({one.remedy})" if one.remedy else one.reason for one in unread)
    return f"unattributed, but not all logs were searched: {reasons}"


def _minute(time_ns: int) -> str:
    return format_utc(time_ns)[:23].replace("T", " ")


def _data(change: ClockChange) -> dict[str, Any]:
    utc = None if change.utc_ns is None else format_utc(change.utc_ns)
    times = {"utc": utc, "before": format_utc(change.before_ns), "after": format_utc(change.after_ns)}
    return {
        "schema": SCHEMA,
        "kind": change.kind,
        "time": times | {"boottime_ns": change.boottime_ns},
        "boot_id": change.moment.boot_id,
        "size_s": change.size_ns / NS_PER_S,
        "level": change.level,
        "severity": change.severity.word,
        "cause": None if change.cause is None else cause_data(change.cause),
    }


_FIELDS = (
    *("time", "before_host_time", "after_host_time", "kind", "size_s", "level", "severity", "cause"),
    *("cause_host_time", "cause_text", "boot_id", "unread"),
)
