"""The hosts of a fleet as CSV (RFC 4180), one per line."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from math import isfinite

from ntpaudit.core.fleet.model import Fleet, HostStatus
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import format_utc
from ntpaudit.render.text_safety import csv_cell, decimal

_FIELDS = (
    *("host", "site", "env", "severity", "verdict", "silent", "silent_s", "last_seen", "offset_s"),
    *("earliest_s", "latest_s", "bound_s", "age_s", "frequency_ppm", "usable", "falsetickers", "findings"),
    *("alarms", "low_alarms", "suspected", "reported", "disputed_s"),
)


def render(fleet: Fleet, shown: Sequence[HostStatus] | None = None) -> str:
    """Write the hosts `shown`, else all, under a header; durations in seconds, unknown values empty."""
    file = StringIO()
    writer = csv.writer(file)
    writer.writerow(_FIELDS)
    writer.writerows(list(_values(one)) for one in (fleet.members if shown is None else shown))
    return file.getvalue()


def _values(one: HostStatus) -> Iterator[str | int]:
    host = one.host
    yield from (_name(one.name), _name(one.site), _name(host.env if host else None), one.severity.word)
    yield from (host.verdict if host else "", int(one.silent_s is not None), _number(one.silent_s))
    if host is None:
        yield from [""] * (len(_FIELDS) - 12)
    else:
        yield format_utc(host.last_ns)
        if host.offset is None:
            yield from [""] * 4
        else:
            yield from map(_number, host.offset)
            yield _number(max(-host.offset.earliest_s, host.offset.latest_s))
        yield from (_number(host.age_s), _number(host.frequency_ppm), host.usable, host.falsetickers, host.findings)
    yield _name(" ".join(alarm.kind for alarm in one.alarms))
    yield _name(" ".join(alarm.kind for alarm in one.alarms if alarm.severity <= Severity.OK))
    yield _name(" ".join(one.suspected))
    yield host.severity.word if host else ""
    yield _number(one.disputed_s) if host else ""


def _name(text: str | None) -> str:
    """Write a name so that a spreadsheet does not take it for a formula; empty for None."""
    return "" if text is None else csv_cell(text)


def _number(value: float | None) -> str:
    return decimal(value) if value is not None and isfinite(value) else ""
