"""Steps and suspends of a journal as text, CSV (RFC 4180) and JSON Lines, the oldest first. Times are the host's."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ntpaudit.core.attribution import Cause
from ntpaudit.core.checks.rule import Level
from ntpaudit.core.journal_steps import JournalChange
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import format_duration, format_utc, joined, plural
from ntpaudit.formats.json_record import json_line
from ntpaudit.render.terminal import SEVERITY_COLOURS, Paint, fitting, labelled, opening, painter, wrap_text
from ntpaudit.render.text_safety import csv_cell, decimal, short_words
from ntpaudit.reports.history_tables import Echo

FORMATS = ("text", "json", "csv")
SCHEMA = "ntpaudit.journal/1"

_LABEL_WIDTH = len("critical")
_US_PER_S = 1e6


class JournalReport(NamedTuple):
    """What was read, and found in it; `range_us` is the smallest and the largest host time."""

    changes: Sequence[JournalChange]
    entries: int
    boots: int
    range_us: tuple[int, int]
    is_own_only: bool
    is_partial: bool

    @property
    def severity(self) -> Severity:
        """The worst severity; at least unknown where not all of the journal could be read."""
        worst = max((change.severity for change in self.changes), default=Severity.OK)
        return max(worst, Severity.UNKNOWN) if self.is_own_only or self.is_partial else worst


def render(report: JournalReport, format_name: str, *, width: int | None = None, colour: bool = False) -> Iterator[str]:
    """Write the report in one of `FORMATS`, text in lines of `width` columns, at most 100."""
    match format_name:
        case "json":
            return (json_line(_data(change)) for change in report.changes)
        case "csv":
            return _csv(report.changes)
    return _text(report, fitting(width), colour=colour)


def describe(change: JournalChange) -> str:
    """Describe what happened: direction and size."""
    size = format_duration(change.jump.size_us / _US_PER_S)
    return {
        "suspend": f"suspended for {size}",
        "step or suspend": f"set forward by {size}, or suspended",
        "step": f"set {'back' if change.jump.size_us < 0 else 'forward'} by {size}",
    }[change.kind]


def consequence(change: JournalChange) -> str:
    """Describe what that does to logs."""
    low, high = (_time(end_us) for end_us in change.jump.window_us)
    high = high[11:] if high[:10] == low[:10] else high
    if change.jump.size_us < 0:
        return (
            f"times from {low} to {high} occur twice; the journal has {_entries(change.entries)} with such a time. "
            "Do not rely on their order, nor on that in other logs"
        )
    others = f", except {_entries(change.entries)} of another time" if change.entries else ""
    if change.kind == "suspend":
        return f"the host logged nothing from {low} to {high}{others}"
    return f"no entry has a time from {low} to {high}{others}; timers of that time ran at once"


def cause(change: JournalChange) -> str:
    """Name the cause of a step, with the line that states it."""
    if change.cause is None:
        return {
            "step": "the journal names none",
            "step or suspend": "not known, because the journal has no kernel messages of this boot",
            "suspend": "suspend, by the messages of the kernel or systemd",
        }[change.kind]
    return describe_cause(change.cause)


def describe_cause(found: Cause) -> str:
    """Name a cause, with the line that states it."""
    return (
        f"{found.name}; {found.line.source} logged at {_time(found.line.realtime_us)}: {short_words(found.line.text)}"
    )


def _entries(count: int) -> str:
    return f"{count} entry" if count == 1 else f"{count} entries"


def _time(host_us: int) -> str:
    return format_utc(host_us * 1000)[:23].replace("T", " ")


def _text(report: JournalReport, width: int, *, colour: bool) -> Iterator[str]:
    paint = painter(colour)
    yield from _lines(opening(report.severity, _summary(report), paint, width))
    begin, end = (_time(end_us)[:16] for end_us in report.range_us)
    read = f"{_entries(report.entries)} of {plural(report.boots, 'boot')}, from {begin} to {end}"
    yield from _lines(["", *labelled("journal", f"{read}; times are the host's own, in UTC", width)])
    for change in report.changes:
        boot = f"{change.jump.boot_id}, {format_duration(change.jump.to_us / _US_PER_S)} after its start"
        facts = (("effect", consequence(change)), ("cause", cause(change)), ("boot", boot))
        yield from block(
            _time(change.jump.after_us)[:19], change.level, change.severity, describe(change), facts, width, paint
        )


def block(
    when: str,
    level: Level | None,
    severity: Severity,
    title: str,
    facts: Iterable[tuple[str, str]],
    width: int,
    paint: Paint,
) -> Iterator[str]:
    """Write a step or a suspend: when, its level, what happened, and below it facts with their names."""
    word = level or "-"
    label = paint(word, SEVERITY_COLOURS[severity] if severity else None)
    yield f"\n{when}  {label}{' ' * (_LABEL_WIDTH - len(word))}  {title}\n"
    for name, text in facts:
        yield from _lines(wrap_text(text, f"    {name:8}", " " * 12, width))


def _lines(lines: Iterable[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)


def _summary(report: JournalReport) -> str:
    counts = [
        (plural(sum(change.kind == "step" and change.jump.size_us < 0 for change in report.changes), "step") + " back"),
        (
            plural(sum(change.kind == "step" and change.jump.size_us > 0 for change in report.changes), "step")
            + " forward"
        ),
        plural(sum(change.kind == "suspend" for change in report.changes), "suspend"),
        plural(sum(change.kind == "step or suspend" for change in report.changes), "change") + " that may be either",
    ]
    found = joined([count for count in counts if not count.startswith("0 ")]) or "no step of the clock and no suspend"
    unnamed = sum(change.kind == "step" and change.cause is None for change in report.changes)
    return f"{found}; the journal names no cause for {plural(unnamed, 'step')}" if unnamed else found


def _csv(changes: Sequence[JournalChange]) -> Iterator[str]:
    writer = csv.DictWriter(Echo(), _FIELDS, extrasaction="ignore")
    yield writer.writeheader()
    for change in changes:
        data = _data(change)
        found = data["cause"] or {"name": "", "text": ""}
        yield writer.writerow(
            data
            | {f"{name}_host_time": data["time"][name] for name in ("before", "after")}
            | {f"window_{name}": data["window"][name] for name in ("from", "to", "effect")}
            | {"size_s": decimal(data["size_s"]), "uptime_s": decimal(data["uptime_s"])}
            | {"cause": found["name"], "cause_text": csv_cell(found["text"])}
        )


def _data(change: JournalChange) -> dict[str, Any]:
    jump, found = change.jump, change.cause
    low, high = (format_utc(end_us * 1000) for end_us in jump.window_us)
    return {
        "schema": SCHEMA,
        "kind": change.kind,
        "time": {"before": format_utc(jump.before_us * 1000), "after": format_utc(jump.after_us * 1000)},
        "boot_id": jump.boot_id,
        "machine_id": jump.machine_id or None,
        "uptime_s": jump.to_us / _US_PER_S,
        "size_s": jump.size_us / _US_PER_S,
        "window": {"from": low, "to": high, "effect": "twice" if jump.size_us < 0 else "missing"},
        "entries": change.entries,
        "level": change.level,
        "severity": change.severity.word,
        "consequence": consequence(change),
        "cause": None if found is None else cause_data(found),
    }


def cause_data(found: Cause) -> dict[str, Any]:
    """Return a cause for JSON; `source` is the program that logged it."""
    line = found.line
    host_time = format_utc(line.realtime_us * 1000)
    return {
        "name": found.name,
        "person": found.by_person,
        "source": line.source,
        "host_time": host_time,
        "text": line.text,
    }


_FIELDS = (
    *("kind", "before_host_time", "after_host_time", "size_s", "level", "severity", "window_from", "window_to"),
    *("window_effect", "entries", "cause", "cause_text", "consequence", "boot_id", "machine_id", "uptime_s"),
)
