"""A history as tables, CSV (RFC 4180) and JSON Lines, written line by line; so columns have a fixed width."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from ntpaudit.core.events import Event
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import direction, format_duration, format_utc
from ntpaudit.formats.accounts import account_data, again
from ntpaudit.formats.json_record import json_line
from ntpaudit.render.terminal import SEVERITY_COLOURS, Paint
from ntpaudit.render.text_safety import csv_cell, decimal, one_line
from ntpaudit.store.audits import StoredEvent
from ntpaudit.store.queries import Audit, Hour

HOUR_SCHEMA = "ntpaudit.hour/1"
EVENT_SCHEMA = "ntpaudit.event/1"

WIDTH = 120  # the width that all columns of audits need; narrower tables omit some

_GAP = "  "
_CUT = "~"
_FINDINGS_WIDTH = 8
_LEAST_WIDTH = 60
_LABEL_WIDTH = len("critical")


class Column(NamedTuple):
    """A column of a table, omitted if the width is less than `page`."""

    title: str
    width: int
    cell: Callable[[Any], str]
    is_number: bool = False
    page: int = 0


def audit_table(audits: Iterable[Audit], width: int, paint: Paint) -> Iterator[str]:
    """Write audits as a table of at most `width` columns."""
    return table(_AUDIT, audits, width, paint, {"?": _HOST_TIME}, _findings)


def hour_table(hours: Iterable[Hour], width: int, paint: Paint) -> Iterator[str]:
    """Write hours as a table of at most `width` columns."""
    return table(_HOUR, hours, width, paint, LEGEND)


def table(
    columns: Sequence[Column],
    rows: Iterable[Any],
    width: int,
    paint: Paint,
    legend: Mapping[str, str],
    findings: Callable[[Any], Sequence[str]] | None = None,
    severity: Callable[[Any], Severity] = lambda row: row.severity,
) -> Iterator[str]:
    """Write rows, and below them what is in the `legend` of the titles and marks that occur."""
    columns = [column for column in columns if width >= column.page]
    room = max(_FINDINGS_WIDTH, width - sum(column.width + len(_GAP) for column in columns))
    yield _line(columns, [column.title for column in columns], "findings" if findings else "")
    used = set()
    for row in rows:
        cells = [column.cell(row) for column in columns]
        used |= {
            "?" if cell.endswith("?") else column.title for column, cell in zip(columns, cells, strict=True) if cell
        }
        yield _line(columns, cells, _shortened(findings(row), room) if findings else "", paint, severity(row))
    yield from (f"{word}: {meaning}\n" for word, meaning in legend.items() if word in used)


def event_table(events: Iterable[StoredEvent], width: int, paint: Paint) -> Iterator[str]:
    """Write events as a list, each with its text."""
    is_dated = True
    for event, _ in events:
        is_dated = is_dated and event.utc_ns is not None
        when, label = _when(event.utc_ns, event.host_ns), event.level if event.raised else "cleared"
        margin = len(f"{when}  {label:{_LABEL_WIDTH}}  ")
        first, *others = wrap(
            one_line(f"{event.kind}: {event.text}"), max(width, _LEAST_WIDTH) - margin, break_on_hyphens=False
        )
        colour = SEVERITY_COLOURS[event.severity] if event.raised and event.severity else None
        yield f"{when}  {paint(label, colour)}{' ' * (_LABEL_WIDTH - len(label))}  {first}\n"
        yield from (f"{' ' * margin}{line}\n" for line in others)
    if not is_dated:
        yield f"?: {_HOST_TIME}\n"


def audit_csv(hours: Iterable[Hour], audits: Iterable[Audit]) -> Iterator[str]:
    """Write hours, then audits, under one header; corrected times, durations in seconds to the nanosecond."""
    writer = csv.DictWriter(Echo(), _AUDIT_FIELDS, restval="", extrasaction="ignore")
    yield writer.writeheader()
    for hour in hours:
        seconds = {} if hour.spans is None else {f"{name}_s": part for name, part in hour.spans._asdict().items()}
        names = {"time": format_utc(hour.time_ns), "kind": "hour", "severity": hour.severity.word}
        yield writer.writerow(_numbers(hour._asdict() | seconds) | names)
    for audit in audits:
        names = {
            "time": format_utc(audit.time_ns) if audit.is_dated else "",
            "host_time": format_utc(audit.host_ns),
            "severity": audit.severity.word,
            "findings": " ".join(audit.findings),
        }
        yield writer.writerow(_numbers(audit._asdict() | {"bound_s": audit.bound_s}) | names)


def hour_json(hours: Iterable[Hour], critical_s: float | None = None) -> Iterator[str]:
    """Write hours as JSON Lines of a schema of their own; `critical_s` is as in `day_json`."""
    for hour in hours:
        data = hour._asdict() | {"severity": hour.severity.word}
        data["seconds"] = None if hour.spans is None else hour.spans._asdict()
        data["account"] = None if hour.account is None else account_data(hour.account)
        del data["time_ns"], data["spans"]
        yield json_line({"schema": HOUR_SCHEMA, "time": {"utc": format_utc(hour.time_ns)}} | again(critical_s) | data)


def event_csv(events: Iterable[StoredEvent]) -> Iterator[str]:
    """Write events under a header; `value_s` is the size of a step (positive is forward), or of a finding."""
    writer = csv.DictWriter(Echo(), _EVENT_FIELDS, extrasaction="ignore")
    yield writer.writeheader()
    for event, boot_id in events:
        times = {
            "time": "" if event.utc_ns is None else format_utc(event.utc_ns),
            "host_time": format_utc(event.host_ns),
        }
        yield writer.writerow(
            _numbers(_event_data(event, boot_id)) | times | {"raised": int(event.raised), "text": csv_cell(event.text)}
        )


def event_json(events: Iterable[StoredEvent]) -> Iterator[str]:
    """Write events as JSON Lines of a schema of their own."""
    for event, boot_id in events:
        utc = None if event.utc_ns is None else format_utc(event.utc_ns)
        time = {"utc": utc, "host": format_utc(event.host_ns), "boottime_ns": event.boottime_ns}
        yield json_line({"schema": EVENT_SCHEMA, "time": time} | _event_data(event, boot_id))


def _event_data(event: Event, boot_id: str | None) -> dict[str, Any]:
    return {
        "boot_id": boot_id,
        "event": event.kind,
        "raised": event.raised,
        "severity": event.severity.word,
        "level": event.level,
        "value_s": event.value_s,
        "text": event.text,
        "detail": dict(event.detail),
    }


class Echo:
    """A file that gives back what is written to it."""

    def write(self, text: str) -> str:
        """Return the text."""
        return text


def _numbers(data: Mapping[str, Any]) -> dict[str, Any]:
    """Write the numbers of a row in fixed notation."""
    return {name: decimal(value) if isinstance(value, float) else value for name, value in data.items()}


def _line(
    columns: Sequence[Column],
    cells: Sequence[str],
    last: str = "",
    paint: Paint | None = None,
    severity: Severity = Severity.OK,
) -> str:
    fitted = [_fit(column, cell) for column, cell in zip(columns, cells, strict=True)]
    if paint is not None and severity:
        place = next(index for index, column in enumerate(columns) if column.title in ("severity", "worst"))
        fitted[place] = paint(fitted[place], SEVERITY_COLOURS[severity])
    return _GAP.join([*fitted, last]).rstrip() + "\n"


def _fit(column: Column, text: str) -> str:
    if len(text) > column.width:
        text = text[: column.width - len(_CUT)] + _CUT
    return text.rjust(column.width) if column.is_number else text.ljust(column.width)


def _shortened(findings: Sequence[str], room: int) -> str:
    for shown in range(len(findings), 0, -1):
        rest = len(findings) - shown
        text = " ".join(findings[:shown]) + (f" +{rest}" if rest else "")
        if len(text) <= room:
            return text
    others = f" +{len(findings) - 1}" if len(findings) > 1 else ""
    return _fit(Column("", room - len(others), str), findings[0]).rstrip() + others if findings else ""


def _findings(audit: Audit) -> list[str]:
    return [f"(low) {finding}" if finding in audit.minor else finding for finding in audit.findings]


def _when(utc_ns: int | None, host_ns: int) -> str:
    text = format_utc(host_ns if utc_ns is None else utc_ns)[:19].replace("T", " ")
    return f"{text}{'?' if utc_ns is None else ' '}"


def _offset(value_s: float | None) -> str:
    return "" if value_s is None else f"{format_duration(value_s)} {direction(value_s):6}"


def _bound(value_s: float | None) -> str:
    return "" if value_s is None else format_duration(value_s, rounding="up")


def _polled(audit: Audit) -> str:
    if audit.kind != "local" and not audit.age_s:
        return "0 s"
    return "" if audit.age_s is None else f"{format_duration(max(1.0, round(audit.age_s)))} ago"


def _lasted(hour: Hour, state: str) -> str:
    if hour.spans is None:
        return "?"
    seconds = getattr(hour.spans, state)
    return format_duration(float(seconds), rounding="up") if seconds else ""


_AUDIT = (
    Column("time (UTC)", 20, lambda audit: _when(audit.time_ns if audit.is_dated else None, audit.host_ns)),
    Column("kind", 7, lambda audit: audit.kind, page=110),
    Column("severity", 8, lambda audit: audit.severity.word),
    Column("verdict", 10, lambda audit: audit.verdict, page=100),
    Column("offset", 17, lambda audit: _offset(audit.offset_s), is_number=True),
    Column("bound", 10, lambda audit: _bound(audit.bound_s), is_number=True, page=76),
    Column("polled", 11, _polled, is_number=True, page=90),
)
_HOUR = (
    Column("hour (UTC)", 16, lambda hour: format_utc(hour.time_ns)[:16].replace("T", " ")),
    Column("audits", 6, lambda hour: str(hour.audits), is_number=True, page=136),
    Column("beyond", 8, lambda hour: _lasted(hour, "beyond"), is_number=True, page=90),
    Column("unmeasured", 10, lambda hour: _lasted(hour, "unmeasured"), is_number=True, page=98),
    Column("absent", 8, lambda hour: _lasted(hour, "absent"), is_number=True, page=108),
    Column("off", 8, lambda hour: _lasted(hour, "off"), is_number=True, page=118),
    Column("unproven", 8, lambda hour: _lasted(hour, "unproven"), is_number=True, page=128),
    Column("worst", 8, lambda hour: hour.severity.word),
    Column("offset from", 17, lambda hour: _offset(hour.least_offset_s), is_number=True, page=76),
    Column("offset to", 17, lambda hour: _offset(hour.most_offset_s), is_number=True, page=76),
    Column("bound", 10, lambda hour: _bound(hour.bound_s), is_number=True),
)
_HOST_TIME = "by the host's own clock, because the true time is not known"
LEGEND = {
    "absent": "no record shows that the agent ran, and the host may have run",
    "off": "the host was down or suspended",
    "?": "not known, because some records of the hour are deleted",
}
"""Words of the table of hours, explained below it where they are used."""

_AUDIT_FIELDS = (
    *("time", "host_time", "kind", "severity", "verdict", "offset_s", "earliest_s", "latest_s", "bound_s"),
    *("age_s", "findings", "audits", "measured", "within", "unproven", "beyond", "least_offset_s"),
    *("most_offset_s", "within_s", "unproven_s", "beyond_s", "unmeasured_s", "absent_s", "off_s"),
)
_EVENT_FIELDS = ("time", "host_time", "event", "raised", "severity", "level", "value_s", "text", "boot_id")
