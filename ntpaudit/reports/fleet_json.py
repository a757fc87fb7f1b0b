"""A fleet as one JSON object, for programs; and the order of events on two hosts."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from ntpaudit.core.fleet.model import Fleet, HostStatus, Offset, Order, OrderingUncertainty, Site, max_error_s
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import direction, format_utc
from ntpaudit.reports.fleet_summary import sentence

SCHEMA = "ntpaudit.fleet/1"
ORDER_SCHEMA = "ntpaudit.fleet-order/1"

_DECIMALS = 9  # a nanosecond


def render(fleet: Fleet, shown: Sequence[HostStatus] | None = None, notes: Sequence[str] = ()) -> str:
    """Write a fleet with the hosts `shown`, else all; unknown and infinite values are null.

    `notes` are about the reading of the database.
    """
    return _line(
        {
            "schema": SCHEMA,
            "time": {"utc": format_utc(fleet.now_ns)},
            "severity": fleet.severity.word,
            "summary": sentence(fleet),
            "notes": list(notes),
            "counts": _counts(fleet.whole) | {"silent": sum(one.silent_s is not None for one in fleet.members)},
            "coverage": fleet.coverage._asdict(),
            "unlisted": fleet.unlisted,
            "ambiguity": _ambiguity(fleet.whole.ambiguity),
            "findings": [
                one._asdict() | {"severity": one.severity.word, "value_s": _finite(one.value_s)}
                for one in fleet.findings
            ],
            "sites": [
                {"site": site.name, "counts": _counts(site), "ambiguity": _ambiguity(site.ambiguity)}
                for site in fleet.sites
            ],
            "hosts": [host_data(one) for one in (fleet.members if shown is None else shown)],
        }
    )


def render_absence(reason: str, remedy: str = "", schema: str = SCHEMA) -> str:
    """Write that the fleet could not be read, with the reason and the fix: in the summary, and separately."""
    summary = f"{reason}; {remedy}" if remedy else reason
    data = {"schema": schema, "severity": Severity.UNKNOWN.word, "summary": summary}
    return _line({**data, "reason": reason, "remedy": remedy or None, "hosts": None})


def render_order(order: Order, estimates: Sequence[float], now_ns: int, severity: Severity) -> str:
    """Write how events on two hosts can be ordered at a time; `estimates` are their offsets in seconds."""
    return _line(
        {
            "schema": ORDER_SCHEMA,
            "time": {"utc": format_utc(now_ns)},
            "severity": severity.word,
            **_rounded(order._asdict() | {"within_s": order.within_s, "corrected_within_s": order.corrected_within_s}),
            "estimates_s": [round(estimate_s, _DECIMALS) for estimate_s in estimates],
        }
    )


def _line(data: Any) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n"


def _counts(site: Site) -> dict[str, int]:
    return {"hosts": sum(site.hosts)} | {severity.word: site.hosts[severity] for severity in Severity}


def _ambiguity(ambiguity: OrderingUncertainty | None) -> dict[str, Any] | None:
    return None if ambiguity is None else _rounded(ambiguity._asdict())


def host_data(one: HostStatus) -> dict[str, Any]:
    """Return what is known of a host; without a point, nothing of it."""
    known: dict[str, Any] = {
        "host": one.name,
        "site": one.site,
        "severity": one.severity.word,
        "silent": one.silent_s is not None,
        "silent_s": _finite(one.silent_s),
        "forgotten": one.is_expired,
    }
    if (host := one.host) is not None:
        known |= {
            "env": host.env,
            "last_seen": format_utc(host.last_ns),
            "seen_s": _finite(one.seen_s),
            "reported": host.severity.word,
            "disputed_s": _finite(one.disputed_s),
            "verdict": host.verdict,
            "offset": None if host.offset is None else _offset(host.offset),
            "age_s": _finite(host.age_s),
            "frequency_ppm": _finite(host.frequency_ppm),
            "usable": host.usable,
            "falsetickers": host.falsetickers,
            "findings": host.findings,
        }
    alarms = [
        {
            "id": alarm.kind,
            "severity": alarm.severity.word,
            "since": format_utc(alarm.since_ns),
            "value_s": _finite(alarm.value_s),
        }
        for alarm in one.alarms
    ]
    return known | {"alarms": alarms, "suspected": list(one.suspected)}


def _offset(offset: Offset) -> dict[str, Any]:
    way = direction(offset.estimate_s) if offset.estimate_s else None
    return _rounded(offset._asdict() | {"bound_s": max_error_s(offset), "direction": way})


def _finite(value: float | None) -> float | None:
    return round(value, _DECIMALS) if value is not None and isfinite(value) else None


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Round seconds to the nanosecond: further digits of a sum are noise."""
    return {name: round(value, _DECIMALS) if isinstance(value, float) else value for name, value in values.items()}
