"""A record as InfluxDB line protocol: the clock, its sources and its findings, stamped with the true time.

The schema is fixed: a tag or the type of a field can never change. A field whose value is not known is left out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from math import inf, isfinite
from typing import NamedTuple

from ntpaudit.core.accounts import Account, least, median
from ntpaudit.core.checks.approval import is_followed_against_policy
from ntpaudit.core.checks.rule import Finding
from ntpaudit.core.clock.database_clock import MAX_STAMP_DISPUTE_S
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.events import Event
from ntpaudit.core.excursions import Excursion
from ntpaudit.core.observation import STATUSES, host_label
from ntpaudit.core.policy import VERDICTS
from ntpaudit.core.record import HostIdentity, Record, SourceRecord
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.render.text_safety import one_line

Value = float | int | str | None

_INT64 = range(-(1 << 63), 1 << 63)
_STAMP = re.compile(r" -?[0-9]+$")
_TAG_ESCAPES = str.maketrans({" ": r"\ ", ",": r"\,", "=": r"\=", "\\": "/"})
"""A backslash cannot be escaped in a tag, and at the end of one it would swallow what follows: so it is a slash."""

_TEXT_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})


class Point(NamedTuple):
    """One point of a host, with its true time in ns, if known. A tag or field whose value is None is not written."""

    measurement: str
    tags: Mapping[str, str | None]
    fields: Mapping[str, Value]
    stamp_ns: int | None


def points(record: Record, events: Sequence[Event] | None = None) -> Iterator[Point]:
    """Return the points that `render` writes, in its order."""
    host, stamp_ns, disputed = record.host, stamp_of(record), _disputed(record)
    yield Point("ntpaudit_clock", host_tags(host), _clock(record), stamp_ns)
    if record.kind == "network":
        for source in record.sources:
            fields = _source(source) | disputed
            yield Point("ntpaudit_source", {**host_tags(host), "source": source.name}, fields, stamp_ns)
    if events is not None:
        yield from event_points(host, events, record)
        return
    for finding in record.findings:
        yield Point("ntpaudit_event", {**host_tags(host), "kind": finding.id}, _raised(finding) | disputed, stamp_ns)


def event_points(host: HostIdentity, events: Sequence[Event], record: Record | None = None) -> Iterator[Point]:
    """Return the points of events in their order, disputed as the record is that they came with, or after."""
    shift_ns = 0 if record is None else _stamp_shift_ns(record)
    for event in events:
        stamp_ns = None if event.utc_ns is None else event.utc_ns - shift_ns
        # a point without a stamp gets that of its arrival, which nothing disputes
        disputed = {} if record is None or stamp_ns is None else _disputed(record)
        yield Point("ntpaudit_event", {**host_tags(host), "kind": event.kind}, _event(event) | disputed, stamp_ns)


def account_points(account: Account, host: HostIdentity) -> Iterator[Point]:
    """Return the points of an hour or a day, stamped with its beginning, and of the excursions in an hour.

    They have the names that were in force at the end of the period, else those of `host`.
    """
    names = account.in_force[-1] if account.in_force else None
    if names is not None:
        host = HostIdentity(names.host, names.site, names.env, names.machine_id, None)
    is_hour = account.length_s == HOUR_S
    stamp_ns = account.begin_s * NS_PER_S
    yield Point("ntpaudit_hour" if is_hour else "ntpaudit_day", host_tags(host), _account(account), stamp_ns)
    for one in account.excursions if is_hour else ():
        tags = {**host_tags(host), "state": one.state}
        yield Point("ntpaudit_excursion", tags, _excursion(one), one.begin_s * NS_PER_S)


def stamp_of(record: Record) -> int | None:
    """Return the timestamp of a record's points: the corrected time, None if that is unknown.

    If the database's clock contradicts it by more than a day, use the database's time. No database keeps points that
    are years off, and some drop them without an error: the host would look silent although it delivers.
    """
    return None if record.utc_ns is None else record.utc_ns - _stamp_shift_ns(record)


def _stamp_shift_ns(record: Record) -> int:
    """Return by how much the stamps of a record's points are earlier than the corrected time."""
    disputed_s = _disputed_s(record)
    return round(disputed_s * NS_PER_S) if abs(disputed_s) > MAX_STAMP_DISPUTE_S else 0


def _disputed_s(record: Record) -> float:
    """Return by how much the servers' time is ahead of the database's clock for certain; 0 where both may be right."""
    return (record.database_clock.disputed_s or 0.0) if record.database_clock else 0.0


def _disputed(record: Record) -> dict[str, Value]:
    """Return the field that a point has only if its time is disputed: a field that is rare costs nothing."""
    return {"disputed_s": disputed_s} if (disputed_s := _disputed_s(record)) else {}


def render(record: Record, events: Sequence[Event] | None = None) -> str:
    """Write a line for the clock, one for each source of a network audit, and one for each event.

    Without `events` each finding is an event: a check knows no earlier state. The timestamp is the corrected time; an
    event has its own. For an unmeasured clock it is unknown, and the host's time could place the point where no
    dashboard shows it. Such a point has no timestamp: `stamp_lines` or the database adds one.
    """
    return "".join(map(_line, points(record, events)))


def render_unstamped(record: Record, events: Sequence[Event]) -> str:
    """Write the same lines, every one without a stamp."""
    return "".join(_line(point._replace(stamp_ns=None)) for point in points(record, events))


def render_events(host: HostIdentity, events: Sequence[Event], last: Record | None = None) -> str:
    """Write what happened on a host since its last record; what has no true time has no stamp."""
    return "".join(map(_line, event_points(host, events, last)))


def render_account(account: Account, host: HostIdentity) -> str:
    """Write the lines of an hour or a day, and of the excursions in an hour."""
    return "".join(map(_line, account_points(account, host)))


def stamp_lines(lines: str, stamp_ns: int) -> str:
    """Put a stamp on every line of ours that has none: it ends in `name=value` or `name="text"`."""
    return "".join(f"{line}\n" if _STAMP.search(line) else f"{line} {stamp_ns}\n" for line in lines.split("\n") if line)


def _line(point: Point) -> str:
    """Write a point, the tags sorted; a tag may not be empty, so one without a value is left out."""
    tags = [f"{name}={one_line(value).translate(_TAG_ESCAPES)}" for name, value in sorted(point.tags.items()) if value]
    stamp = "" if point.stamp_ns is None else f" {point.stamp_ns}"
    return f"{','.join([point.measurement, *tags])} {','.join(_fields(point.fields))}{stamp}\n"


def host_tags(host: HostIdentity) -> dict[str, str | None]:
    """Return the tags that every point of a host has; `host` is never empty."""
    return {"host": host_label(one_line(host.name), host.machine_id), "site": host.site, "env": host.env}


def _raised(finding: Finding) -> dict[str, Value]:
    return {
        "severity": int(finding.severity),
        "raised": 1,
        "title": f"{'accepted' if finding.accepted else finding.level}: {finding.id}",
        "text": f"{finding.message}; {finding.accepted.text if finding.accepted else f'fix: {finding.remedy}'}",
        "accepted": int(finding.accepted is not None),
    }


def _event(event: Event) -> dict[str, Value]:
    return {
        "severity": int(event.severity),
        "raised": int(event.raised),
        "value_s": _float(event.value_s),
        "title": event.title,
        "text": event.text_with_fix,
        "accepted": int(event.is_accepted),
    }


def _clock(record: Record) -> dict[str, Value]:
    """Return the fields of the clock, with the path of the nearest agreeing source."""
    agreeing = [source for source in record.sources if source.status == "agreeing"]
    nearest = min(agreeing, key=lambda one: inf if one.root_distance_s is None else one.root_distance_s, default=None)
    maxerror_s, disputed_s = record.kernel.get("maxerror_s"), _disputed_s(record)
    offset, poll = record.offset, record.coverage
    fields: dict[str, Value] = {
        "severity": int(record.severity),
        "verdict": VERDICTS.index(record.verdict),
        "sources": poll.sources,
        "asked": record.agreement.asked,
        "usable": poll.usable,
        "agreeing": poll.agreeing,
        "falsetickers": poll.usable - poll.agreeing,
        "findings": len(record.findings),
        "accepted": len(record.accepted) or None,
        "daemon_unapproved": 1 if any(map(is_followed_against_policy, record.findings)) else None,
        # a pending finding may make the severity unknown, and has no event, which PromQL's alert rules read
        "finding_ids": " ".join(sorted({one.id for one in record.findings if one.severity and one.level != "low"}))
        or None,
        "host_time_ns": record.host_ns,
        "age_s": _float(record.age_s),
        "kernel_maxerror_s": _float(maxerror_s),
        "version": record.version,
        "config_sha256": record.config_sha256,
        "profile": record.profile.name,
        "warning_s": float(record.profile.warning_s),
        "critical_s": float(record.profile.critical_s),
        "judged_on_bound": 1 if record.profile.judged_on == "bound" else None,
        # a field that is rare costs nothing; the severity is repeated to find it without the other points
        "confirmed": 0 if not record.confirmed or (offset and not record.agreement.guaranteed) else None,
        "disputed_s": disputed_s or None,
        "disputed_severity": int(record.severity) if disputed_s else None,
    }
    if record.chain is not None:
        sequence, head = record.chain
        fields |= {"chain": sequence, "chain_head": head.hex(), "chain_head_int": record.chain.number}
    if offset is not None:
        drift_ppm = float(offset.max_drift_ppm or 0)
        fields |= {
            "offset_s": offset.estimate_s,
            "abs_offset_s": abs(offset.estimate_s),
            "earliest_s": offset.earliest_s,
            "latest_s": offset.latest_s,
            "bound_s": offset.bound_s,
            "max_drift_ppm": drift_ppm if drift_ppm > MAX_DRIFT_PPM else None,  # readers assume MAX_DRIFT_PPM
            "max_falsetickers": record.agreement.max_falsetickers,
            "guaranteed": int(record.agreement.guaranteed),
        }
    if (compared := record.cross_check) is not None:
        claim = record.claim or {}
        synchronised = claim.get("is_synchronised")
        fields |= {
            "daemon": compared.daemon,
            "daemon_synchronised": None if synchronised is None else int(synchronised),
            "daemon_follows": claim.get("follows"),
            "daemon_offset_s": _float(compared.daemon_offset_s),
            "daemon_bound_s": _float(compared.daemon_bound_s),
            "daemon_excess_s": _float(compared.daemon_excess_s),
            "daemon_updated_s": _float(claim.get("updated_s")),
        }
    if nearest is not None:
        fields |= {"delay_s": nearest.delay_s, "root_distance_s": nearest.root_distance_s, "stratum": nearest.stratum}
    if (drift := record.drift) is not None:
        fields |= {"frequency_ppm": drift.frequency_ppm, "skew_ppm": float(drift.skew_ppm)}
    if (health := record.health) is not None:
        fields |= {
            "missed": health.missed,
            "backlog": health.backlog,
            "failures": health.failures,
            "oldest_undelivered_s": _float(health.oldest_s),
        }
    return fields


def _account(account: Account) -> dict[str, Value]:
    fields: dict[str, Value] = {f"{name}_s": seconds for name, seconds in account.spans._asdict().items()}
    fields |= {
        "audits": account.audits,
        "earliest_s": account.earliest_s,
        "latest_s": account.latest_s,
        "bound_s": account.bound_s,
        "steps": account.steps,
        "step_s": account.step_s,
        "queried_min": least(account.queried),
        "queried_median": _float(median(account.queried)),
        "usable_min": least(account.usable),
        "usable_median": _float(median(account.usable)),
        "two_sources_s": account.two_sources_s,
        "three_sources_s": account.three_sources_s,
        "raised": account.raised,
        "cleared": account.cleared,
        "changes": max(0, len(account.in_force) - 1),
        "chain_first": account.chain_first,
        "chain_last": account.chain_last,
        "chain_head": account.chain_head,
    }
    if account.in_force:
        last = account.in_force[-1]
        fields |= {
            "profile": last.profile.name,
            "warning_s": float(last.profile.warning_s),
            "critical_s": float(last.profile.critical_s),
            "config_sha256": last.config_sha256,
            "version": last.version,
        }
    return fields


def _excursion(excursion: Excursion) -> dict[str, Value]:
    return {
        "duration_s": excursion.duration_s,
        "open": int(excursion.is_open),
        "proved_s": float(excursion.proved_s),
        "possible_s": _float(excursion.possible_s),
        "earliest_s": _float(excursion.earliest_s),
        "latest_s": _float(excursion.latest_s),
        "accepted": int(excursion.is_accepted),
        "findings": " ".join(excursion.findings) or None,
        "cause": excursion.cause,
    }


def _float(value: float | None) -> float | None:
    """Return a number as the type that its field has, also if it is a whole one."""
    return None if value is None else float(value)


def _source(source: SourceRecord) -> dict[str, Value]:
    return {
        "status": STATUSES.index(source.status),
        "authenticated": int(source.authenticated),
        "offset_s": source.offset_s,
        "earliest_s": source.earliest_s,
        "latest_s": source.latest_s,
        "delay_s": source.delay_s,
        "root_distance_s": source.root_distance_s,
        "stratum": source.stratum,
        "address": source.address,
        "reference_id": source.reference_id,
        "reason": source.reason,
    }


def _fields(fields: Mapping[str, Value]) -> Iterator[str]:
    for name, value in fields.items():
        match value:
            case int() if value in _INT64:  # a host may believe in a year that 64 bits of nanoseconds cannot hold
                yield f"{name}={value}i"
            case float() if isfinite(value):
                yield f"{name}={value!r}"
            case str():
                yield f'{name}="{one_line(value).translate(_TEXT_ESCAPES)}"'
