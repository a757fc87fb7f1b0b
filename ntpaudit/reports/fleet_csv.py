"""The hosts of a fleet as CSV (RFC 4180), one per line."""

import csv
from collections.abc import Sequence
from io import StringIO
from math import isfinite
from typing import Any

from ntpaudit.core.fleet.model import Fleet, HostStatus
from ntpaudit.core.policy import Severity
from ntpaudit.render.text_safety import csv_cell, decimal
from ntpaudit.reports.fleet_json import host_data

_FIELDS = (
    *("host", "site", "env", "severity", "verdict", "silent", "silent_s", "last_seen", "offset_s"),
    *("earliest_s", "latest_s", "bound_s", "age_s", "frequency_ppm", "usable", "falsetickers", "findings"),
    *("alarms", "low_alarms", "suspected", "reported", "disputed_s"),
    *("daemon", "daemon_follows", "daemon_synchronised", "daemon_offset_s", "daemon_bound_s", "daemon_unapproved"),
    *("daemon_excess_s", "accepted"),
)


def render(fleet: Fleet, shown: Sequence[HostStatus] | None = None) -> str:
    """Write the hosts `shown`, else all, under a header; durations in seconds, unknown values empty."""
    file = StringIO()
    writer = csv.writer(file)
    writer.writerow(_FIELDS)
    for one in fleet.members if shown is None else shown:
        data = host_data(one)
        if offset := data.get("offset"):
            data |= offset | {"offset_s": offset["estimate_s"]}
        daemon = data.pop("daemon", None) or {}
        data |= {f"daemon_{name.removeprefix('is_')}": value for name, value in daemon.items()}
        data |= {
            "daemon": daemon.get("name"),
            "alarms": " ".join(alarm.kind for alarm in one.alarms),
            "low_alarms": " ".join(
                alarm.kind for alarm in one.alarms if alarm.severity <= Severity.OK and not alarm.is_accepted
            ),
            "accepted": " ".join(alarm.kind for alarm in one.alarms if alarm.is_accepted),
            "suspected": " ".join(one.suspected),
        }
        writer.writerow([_cell(data.get(field)) for field in _FIELDS])
    return file.getvalue()


def _cell(value: Any) -> str | int:
    """Write a value so that a spreadsheet does not take a name for a formula; empty for None."""
    if value is None or isinstance(value, str):
        return csv_cell(value or "")
    if isinstance(value, float):
        return decimal(value) if isfinite(value) else ""
    return int(value)
