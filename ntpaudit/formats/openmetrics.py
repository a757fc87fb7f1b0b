"""A record as metrics, in lines that are OpenMetrics and also the classic text format that node_exporter reads.

Samples carry no timestamp, which node_exporter refuses; what is not known is left out, and is never NaN.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ntpaudit.core.observation import STATUSES
from ntpaudit.core.policy import VERDICTS
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S
from ntpaudit.render.text_safety import one_line

Labels = tuple[tuple[str, str], ...]
Samples = Mapping[Labels, float | int | None]

_LABEL_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})


class _Gauge(NamedTuple):
    """A metric: its name, what it means, and its samples by their labels."""

    name: str
    meaning: str
    samples: Samples


def render(record: Record) -> str:
    """Write the metrics of a record."""
    return "".join(line + "\n" for gauge in _gauges(record) for line in _lines(gauge)) + "# EOF\n"


def _gauges(record: Record) -> Iterator[_Gauge]:
    offset, counts, poll = record.offset, record.agreement, record.coverage
    if offset is not None:
        yield _single("offset_seconds", "True time minus host time, estimated: positive is behind.", offset.estimate_s)
        yield _single(
            "offset_earliest_seconds",
            "Earliest true offset if at most max_falsetickers of the queried servers are wrong.",
            offset.earliest_s,
        )
        yield _single(
            "offset_latest_seconds",
            "Latest true offset if at most max_falsetickers of the queried servers are wrong.",
            offset.latest_s,
        )
        yield _single("bound_seconds", "How wrong the clock can be at most, on the same condition.", offset.bound_s)
    yield _single("severity", "0 ok, 1 warning, 2 unknown, 3 critical.", int(record.severity))
    yield _Gauge(
        "verdict",
        "1 for the verdict on the critical tolerance, 0 for the others.",
        {(("verdict", verdict),): int(verdict == record.verdict) for verdict in VERDICTS},
    )
    yield _Gauge(
        "tolerance_seconds",
        "How wrong the clock may be by the profile.",
        {(("level", "warning"),): record.profile.warning_s, (("level", "critical"),): record.profile.critical_s},
    )
    yield _single("sources", "Sources configured.", poll.sources)
    yield _single("asked", "Servers that count as asked.", counts.asked)
    yield _single("usable", "Sources whose answer took part in the vote.", poll.usable)
    yield _single("agreeing", "Sources that agree.", poll.agreeing)
    if offset is not None:
        yield _single(
            "max_falsetickers", "Queried servers that may be wrong before the bound fails.", counts.max_falsetickers
        )
        yield _single("guaranteed", "0: too few usable replies, so the bound proves nothing.", int(counts.guaranteed))
    yield _Gauge(
        "source_offset_seconds",
        "Offset by one source: positive is behind.",
        {(("source", source.name),): source.offset_s for source in record.sources},
    )
    yield _Gauge(
        "source_delay_seconds",
        "Round trip to one source.",
        {(("source", source.name),): source.delay_s for source in record.sources},
    )
    yield _Gauge(
        "source_status",
        "1 for the status of a source, 0 for the others.",
        {
            (("source", source.name), ("status", status)): int(status == source.status)
            for source in record.sources
            for status in STATUSES
        },
    )
    yield _Gauge(
        "finding",
        "1 for each thing found wrong.",
        {(("id", finding.id), ("level", finding.level)): 1 for finding in record.findings},
    )
    maxerror_s = record.kernel.get("maxerror_s")
    yield _single("kernel_maxerror_seconds", "What the kernel holds to be the clock's greatest error.", maxerror_s)
    yield from _of_agent(record)
    time_s = None if record.utc_ns is None else record.utc_ns / NS_PER_S
    yield _single("time_seconds", "Corrected time of the audit, in seconds since 1970.", time_s)
    yield _Gauge("build_info", "The version of ntpaudit that wrote this.", {(("version", record.version),): 1})


def _of_agent(record: Record) -> Iterator[_Gauge]:
    """Return the metrics that only an agent has: the drift of the clock and the agent's own state."""
    if (health := record.health) is not None:
        yield _single("age_seconds", "Age of the last answers from servers that the offset rests on.", record.age_s)
        yield _single("missed_audits", "Audits of servers that were due and did not come.", health.missed)
        yield _single("backlog_records", "Records not delivered to the database yet.", health.backlog)
        yield _single("backlog_age_seconds", "Age of the oldest record not delivered yet.", health.oldest_s)
        yield _single("delivery_failures", "Attempts to deliver that failed since the last good one.", health.failures)
        yield _single("set_aside_records", "Records that the database refused, kept as dead letters.", health.set_aside)
    if (drift := record.drift) is not None:
        yield _single("frequency_ppm", "Rate of the offset: positive falls further behind.", drift.frequency_ppm)
        yield _single("skew_ppm", "Error of the fit over its own span, no limit for now.", drift.skew_ppm)
        yield _single(
            "breach_pessimistic_seconds",
            "Time until the critical tolerance is reached at the near end of a back-tested 95 % band.",
            None if drift.breach is None else drift.breach.pessimistic_s,
        )
        yield _single(
            "breach_guaranteed_seconds",
            "Time within which the critical tolerance cannot be reached, in the worst case.",
            None if drift.breach is None else drift.breach.guaranteed_s,
        )


def _single(name: str, meaning: str, value: float | int | None) -> _Gauge:
    return _Gauge(name, meaning, {(): value})


def _lines(gauge: _Gauge) -> Iterator[str]:
    """Write a metric, or nothing where it has no value."""
    name = f"ntpaudit_{gauge.name}"
    samples = {_labels(labels): value for labels, value in gauge.samples.items() if value is not None}
    if samples:
        yield f"# HELP {name} {gauge.meaning}"
        yield f"# TYPE {name} gauge"
        if name.endswith("_seconds"):
            yield f"# UNIT {name} seconds"
    for labels, value in samples.items():
        yield f"{name}{labels} {value!r}"


def _labels(labels: Labels) -> str:
    """Write labels. Written alike they are one series, of which a reader takes only one sample."""
    written = ",".join(f'{name}="{one_line(value).translate(_LABEL_ESCAPES)}"' for name, value in labels)
    return f"{{{written}}}" if written else ""
