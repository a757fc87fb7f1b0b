"""A record as InfluxDB line protocol: the clock, its sources and its findings, stamped with the true time.

The schema is fixed: a tag or the type of a field can never change. A field whose value is not known is left out.
"""

from collections.abc import Iterator, Mapping

from ntpaudit.core.observation import STATUSES
from ntpaudit.core.policy import VERDICTS
from ntpaudit.core.record import Record, SourceRecord
from ntpaudit.sinks.plain import one_line

Value = float | int | str | None

_INT64 = range(-(1 << 63), 1 << 63)
_TAG_ESCAPES = str.maketrans({" ": r"\ ", ",": r"\,", "=": r"\=", "\\": "/"})
"""A backslash cannot be escaped in a tag, and at the end of one it would swallow what follows: so it is a slash."""

_TEXT_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})


def render(record: Record) -> str:
    """Write a line for the clock, one for each source and one for each finding.

    The stamp is the corrected time. Of an unmeasured clock nobody knows it, and the host's own would put the point
    where no dashboard looks: so it has none, and the database stamps it.
    """
    host = {"host": record.host.name, "site": record.host.site, "env": record.host.env}
    stamp = "" if record.utc_ns is None else f" {record.utc_ns}"
    return "".join(
        f"{_key(measurement, host | tags)} {','.join(_fields(fields))}{stamp}\n"
        for measurement, tags, fields in _points(record)
    )


def _points(record: Record) -> Iterator[tuple[str, dict[str, str | None], dict[str, Value]]]:
    """Return every point as its measurement, its own tags and its fields."""
    yield "ntpaudit_clock", {}, _clock(record)
    for source in record.sources:
        yield "ntpaudit_source", {"source": source.name}, _source(source)
    for finding in record.findings:
        yield (
            "ntpaudit_event",
            {"kind": finding.id},
            {
                "severity": int(finding.severity),
                "raised": 1,
                "title": f"{finding.level}: {finding.id}",
                "text": f"{finding.message}; fix: {finding.remedy}",
            },
        )


def _clock(record: Record) -> dict[str, Value]:
    """Return what was concluded of the clock; the nearest source that agrees says how far the truth was."""
    agreeing = [source for source in record.sources if source.status == "agreeing"]
    nearest = min(agreeing, key=_root_distance_s, default=None)
    maxerror_s = record.kernel.get("maxerror_s")
    fields: dict[str, Value] = {
        "severity": int(record.severity),
        "verdict": VERDICTS.index(record.verdict),
        "sources": record.agreement.sources,
        "usable": record.agreement.usable,
        "agreeing": record.agreement.agreeing,
        "falsetickers": sum(source.status == "falseticker" for source in record.sources),
        "findings": len(record.findings),
        "host_time_ns": record.host_ns,
        "kernel_maxerror_s": None if maxerror_s is None else float(maxerror_s),
        "version": record.version,
        "profile": record.profile.name,
    }
    if record.offset is not None:
        fields |= {
            "offset_s": record.offset.estimate_s,
            "abs_offset_s": abs(record.offset.estimate_s),
            "earliest_s": record.offset.earliest_s,
            "latest_s": record.offset.latest_s,
            "bound_s": record.offset.bound_s,
        }
    if nearest is not None:
        fields |= {
            "delay_s": nearest.delay_s,
            "root_distance_s": nearest.root_distance_s,
            "stratum": nearest.stratum,
        }
    return fields


def _source(source: SourceRecord) -> dict[str, Value]:
    """Return what one source said."""
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


def _root_distance_s(source: SourceRecord) -> float:
    """Order sources by how far the truth is from them; the silent come last."""
    return float("inf") if source.root_distance_s is None else source.root_distance_s


def _key(measurement: str, tags: Mapping[str, str | None]) -> str:
    """Write a measurement and its tags, sorted; a tag without a value is left out, for it may not be empty."""
    written = ((name, one_line(value).translate(_TAG_ESCAPES)) for name, value in sorted(tags.items()) if value)
    return ",".join([measurement, *(f"{name}={value}" for name, value in written)])


def _fields(fields: Mapping[str, Value]) -> Iterator[str]:
    """Write the fields that have a value."""
    for name, value in fields.items():
        match value:
            case int() if value in _INT64:  # a host may believe in a year that 64 bits of nanoseconds cannot hold
                yield f"{name}={value}i"
            case float():
                yield f"{name}={value!r}"
            case str():
                yield f'{name}="{one_line(value).translate(_TEXT_ESCAPES)}"'
