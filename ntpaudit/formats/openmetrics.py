"""A record as metrics, in lines that are OpenMetrics and also the classic text format that node_exporter reads.

Samples carry no timestamp, which node_exporter refuses; what is not known is left out, and is never NaN.
"""

from collections.abc import Iterator, Mapping, Sequence

from ntpaudit.core.observation import STATUSES
from ntpaudit.core.policy import VERDICTS
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S, parse_utc
from ntpaudit.render.text_safety import one_line

Samples = Mapping[tuple[str, ...], float | int | None]
Gauge = tuple[str, str, Samples | float | None]
"""A metric: its name and those of its labels (`name label label`), its meaning, and its value or one for all labels."""

_LABEL_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})


def render(record: Record) -> str:
    """Write the metrics of a record."""
    return "".join(line + "\n" for gauge in _gauges(record) for line in _lines(*gauge)) + "# EOF\n"


def _gauges(record: Record) -> Iterator[Gauge]:
    offset, counts, poll = record.offset, record.agreement, record.coverage
    if offset is not None:
        yield ("offset_seconds", "True time minus host time, estimated: positive is behind.", offset.estimate_s)
        condition = "if at most max_falsetickers of the queried servers are wrong."
        yield ("offset_earliest_seconds", f"Earliest true offset {condition}", offset.earliest_s)
        yield ("offset_latest_seconds", f"Latest true offset {condition}", offset.latest_s)
        yield ("bound_seconds", f"Maximum error of the clock, {condition}", offset.bound_s)
    yield ("severity", "0 ok, 1 warning, 2 unknown, 3 critical.", int(record.severity))
    verdicts: Samples = {(verdict,): int(verdict == record.verdict) for verdict in VERDICTS}
    yield ("verdict verdict", "1 for the verdict on the critical tolerance, 0 for the others.", verdicts)
    tolerances: Samples = {("warning",): record.profile.warning_s, ("critical",): record.profile.critical_s}
    yield ("tolerance_seconds level", "How wrong the clock may be by the profile.", tolerances)
    yield ("sources", "Sources configured.", poll.sources)
    yield ("asked", "Servers that count as asked.", counts.asked)
    yield ("usable", "Sources whose reply took part in the vote.", poll.usable)
    yield ("agreeing", "Sources that agree.", poll.agreeing)
    if offset is not None:
        yield ("max_falsetickers", "Queried servers that may be wrong before the bound fails.", counts.max_falsetickers)
        yield ("guaranteed", "0: too few usable replies, so the bound proves nothing.", int(counts.guaranteed))
    offsets: Samples = {(source.name,): source.offset_s for source in record.sources}
    yield ("source_offset_seconds source", "Offset by one source: positive is behind.", offsets)
    delays: Samples = {(source.name,): source.delay_s for source in record.sources}
    yield ("source_delay_seconds source", "Round trip to one source.", delays)
    statuses: Samples = {(one.name, status): int(status == one.status) for one in record.sources for status in STATUSES}
    yield ("source_status source status", "1 for the status of a source, 0 for the others.", statuses)
    accepted = {finding.id for finding in record.accepted}  # what is listed under one of them does not count either
    findings: Samples = {(one.id, one.level): 1 for one in record.findings if accepted.isdisjoint((one.id, one.cause))}
    yield ("finding id level", "1 for each finding that is not accepted.", findings)
    ends: Samples = {
        (one.id, one.level): parse_utc(one.accepted.until) / NS_PER_S for one in record.accepted if one.accepted
    }
    meaning = "Until when a finding is accepted and does not count, in seconds since 1970."
    yield ("accepted_until_seconds id level", meaning, ends)
    maxerror_s = record.kernel.get("maxerror_s")
    yield ("kernel_maxerror_seconds", "The kernel's own maximum error of the clock.", maxerror_s)
    yield from _of_daemon(record)
    yield from _of_agent(record)
    time_s = None if record.utc_ns is None else record.utc_ns / NS_PER_S
    yield ("time_seconds", "Corrected time of the audit, in seconds since 1970.", time_s)
    yield ("build_info version", "The version of ntpaudit that wrote this.", {(record.version,): 1})


def _of_daemon(record: Record) -> Iterator[Gauge]:
    if (compared := record.cross_check) is not None and compared.daemon is not None:
        claim = record.claim or {}
        follows: Samples = {(compared.daemon, claim.get("follows") or ""): 1}
        yield (
            "daemon_info daemon follows",
            "The time daemon that disciplines the clock, and what it follows.",
            follows,
        )
        is_synchronised = claim.get("is_synchronised")
        synchronised = None if is_synchronised is None else int(is_synchronised)
        yield ("daemon_synchronised", "1 if the time daemon reports that it follows a server.", synchronised)
        yield ("daemon_offset_seconds", "Offset by the time daemon: positive is behind.", compared.daemon_offset_s)
        yield ("daemon_bound_seconds", "Maximum error of that by the time daemon.", compared.daemon_bound_s)
        yield ("daemon_updated_seconds", "Time since the last update of the time daemon.", claim.get("updated_s"))
        meaning = "How far the time daemon's offset and bound are from the measured interval; 0: both can be right."
        yield ("daemon_excess_seconds", meaning, compared.daemon_excess_s)


def _of_agent(record: Record) -> Iterator[Gauge]:
    if (health := record.health) is not None:
        yield ("age_seconds", "Age of the last replies of servers that the offset is based on.", record.age_s)
        yield ("missed_audits", "Network audits that were due and did not take place.", health.missed)
        yield ("backlog_records", "Records not delivered to the database yet.", health.backlog)
        yield ("backlog_age_seconds", "Age of the oldest record not delivered yet.", health.oldest_s)
        yield ("delivery_failures", "Attempts to deliver that failed since the last good one.", health.failures)
        yield ("set_aside_records", "Records that the database refused, kept as dead letters.", health.set_aside)
    if (drift := record.drift) is not None:
        yield ("frequency_ppm", "Rate of the offset: positive falls further behind.", drift.frequency_ppm)
        yield ("skew_ppm", "Error of the fit over its own span; the present rate may differ by more.", drift.skew_ppm)
        pessimistic = "Time until the critical tolerance is reached at the near end of a back-tested 95 % band."
        yield ("breach_pessimistic_seconds", pessimistic, drift.breach.pessimistic_s)
        guaranteed = "Time within which the critical tolerance cannot be reached, in the worst case."
        yield ("breach_guaranteed_seconds", guaranteed, drift.breach.guaranteed_s)


def _lines(name_and_labels: str, meaning: str, values: Samples | float | None) -> Iterator[str]:
    """Write a metric, or nothing where it has no value. Of labels that are written alike, the last sample counts."""
    name, *labels = name_and_labels.split()
    every = values if isinstance(values, Mapping) else {(): values}
    samples = {_written(labels, key): value for key, value in every.items() if value is not None}
    if samples:
        yield f"# HELP ntpaudit_{name} {meaning}"
        yield f"# TYPE ntpaudit_{name} gauge"
        if name.endswith("_seconds"):
            yield f"# UNIT ntpaudit_{name} seconds"
    for written, value in samples.items():
        yield f"ntpaudit_{name}{written} {value!r}"


def _written(labels: Sequence[str], key: Sequence[str]) -> str:
    pairs = zip(labels, key, strict=True)
    written = ",".join(f'{name}="{one_line(value).translate(_LABEL_ESCAPES)}"' for name, value in pairs)
    return f"{{{written}}}" if written else ""
