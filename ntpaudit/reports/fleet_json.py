"""A fleet as one JSON object, for programs; and the order of events on two hosts."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from ntpaudit.core.fleet.model import Fleet, HostStatus, Order, Site, max_error_s
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import direction, format_utc
from ntpaudit.formats.json_record import json_line
from ntpaudit.reports.fleet_summary import sentence

SCHEMA = "ntpaudit.fleet/1"
ORDER_SCHEMA = "ntpaudit.fleet-order/1"


def render(fleet: Fleet, shown: Sequence[HostStatus] | None = None, notes: Sequence[str] = ()) -> str:
    """Write a fleet with the hosts `shown`, else all; `notes` are about the reading of the database."""
    data = {
        "schema": SCHEMA,
        "time": {"utc": format_utc(fleet.now_ns)},
        "severity": fleet.severity.word,
        "summary": sentence(fleet),
        "notes": list(notes),
        "counts": _counts(fleet.whole) | {"silent": sum(one.silent_s is not None for one in fleet.members)},
        "coverage": fleet.coverage,
        "unlisted": fleet.unlisted,
        "ambiguity": fleet.whole.ambiguity,
        "findings": fleet.findings,
        "sites": [{"site": site.name, "counts": _counts(site), "ambiguity": site.ambiguity} for site in fleet.sites],
        "hosts": [host_data(one) for one in (fleet.members if shown is None else shown)],
    }
    return json_line(_plain(data))


def render_absence(reason: str, remedy: str = "", schema: str = SCHEMA) -> str:
    """Write that the fleet could not be read, with the reason and the fix: in the summary, and separately."""
    data = {"schema": schema, "severity": Severity.UNKNOWN.word, "summary": f"{reason}; {remedy}" if remedy else reason}
    return json_line({**data, "reason": reason, "remedy": remedy or None, "hosts": None})


def render_order(order: Order, estimates: Sequence[float], now_ns: int, severity: Severity) -> str:
    """Write how events on two hosts can be ordered at a time; `estimates` are their offsets in seconds."""
    data = {
        "schema": ORDER_SCHEMA,
        "time": {"utc": format_utc(now_ns)},
        "severity": severity.word,
        **order._asdict(),
        "estimates_s": list(estimates),
    }
    return json_line(_plain(data))


def _plain(value: Any) -> Any:
    """Write named tuples as objects, seconds to the nanosecond (further digits are noise), and null for infinity."""
    match value:
        case float():
            return round(value, 9) if isfinite(value) else None
        case Severity():
            return value.word
        case dict():
            return {name: _plain(part) for name, part in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return _plain(value._asdict())
        case list() | tuple():
            return [_plain(part) for part in value]
    return value


def _counts(site: Site) -> dict[str, int]:
    return {"hosts": sum(site.hosts)} | {severity.word: site.hosts[severity] for severity in Severity}


def host_data(one: HostStatus) -> dict[str, Any]:
    """Return what is known of a host; without a point, nothing of it."""
    known: dict[str, Any] = {
        "host": one.name,
        "site": one.site,
        "severity": one.severity.word,
        "silent": one.silent_s is not None,
        "silent_s": one.silent_s,
        "forgotten": one.is_expired,
    }
    if (host := one.host) is not None:
        offset = host.offset
        way = direction(offset.estimate_s) if offset and offset.estimate_s else None
        known |= {
            "env": host.env,
            "last_seen": format_utc(host.last_ns),
            "seen_s": one.seen_s,
            "reported": host.severity.word,
            "disputed_s": one.disputed_s,
            "verdict": host.verdict,
            "offset": None if offset is None else offset._asdict() | {"bound_s": max_error_s(offset), "direction": way},
            "age_s": host.age_s,
            "frequency_ppm": host.frequency_ppm,
            "usable": host.usable,
            "falsetickers": host.falsetickers,
            "findings": host.findings,
            "daemon": None if host.daemon is None else host.daemon._asdict(),
        }
    alarms = [
        {
            "id": alarm.kind,
            "severity": alarm.severity,
            "since": format_utc(alarm.since_ns),
            "value_s": alarm.value_s,
            "accepted": alarm.is_accepted,
            "exception": alarm.exception,
        }
        for alarm in one.alarms
    ]
    return known | {"alarms": alarms, "suspected": list(one.suspected)}
