"""What a database answers, made into the values of a fleet: nothing that it says is believed to be of its type."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import NamedTuple

from ntpaudit.core.fleet import Alarm, Bucket, Host, Lie, Offset, Tally
from ntpaudit.core.observation import STATUSES
from ntpaudit.core.policy import VERDICTS, Severity, Verdict

Cell = object
"""A value as it came: a number, a text, None, or what should not be there."""

BEFORE_S = 900.0
"""A host's offset of some time ago is its last one in a window of this length that ends there."""

EVENTS_S = 90 * 86_400.0
"""How far back a finding may have begun that is still in force, and a source may be told of."""

PASSING = {"step-back": 3600.0, "step-forward": 3600.0}
"""Findings that nothing clears, and how long each is in force at least: while who moved may have moved by it."""

_FALSETICKER = STATUSES.index("falseticker")
_MS = 1_000_000
_INT64 = 1 << 63


class Clock(NamedTuple):
    """A point of `ntpaudit_clock`."""

    name: Cell
    site: Cell
    env: Cell
    last_ns: int
    severity: Cell
    verdict: Cell
    offset_s: Cell
    earliest_s: Cell
    latest_s: Cell
    age_s: Cell = None
    frequency_ppm: Cell = None
    usable: Cell = None
    falsetickers: Cell = None
    findings: Cell = None


CLOCK_FIELDS = Clock._fields[4:]
"""The fields that are read of a point of `ntpaudit_clock`."""


class Happening(NamedTuple):
    """A point of `ntpaudit_event`."""

    host: Cell
    kind: Cell
    stamp_ns: int
    raised: Cell
    severity: Cell
    value_s: Cell


class Said(NamedTuple):
    """A point of `ntpaudit_source`."""

    host: Cell
    source: Cell
    stamp_ns: int
    status: Cell
    offset_s: Cell


class Spans(NamedTuple):
    """So many spans of equal length, in whole milliseconds: each holds its begin, and not its end."""

    begin_ns: int
    width_ns: int
    spans: int

    @property
    def end_ns(self) -> int:
        """Where the last one ends."""
        return self.begin_ns + self.spans * self.width_ns


def split(begin_ns: int, end_ns: int, count: int) -> Spans:
    """Divide a period; what a millisecond cannot divide makes the spans a little longer."""
    begin_ms = begin_ns // _MS
    length_ms = max(1, -(-end_ns // _MS) - begin_ms)
    return Spans(begin_ms * _MS, -(-length_ms // max(1, count)) * _MS, max(1, count))


def hosts_of(rows: Iterable[Clock]) -> dict[str, Host]:
    """Return each host by its latest point, wherever it stood before."""
    return {name: _host(name, row) for name, row in _latest(rows).items()}


def offsets_of(rows: Iterable[Clock]) -> dict[str, Offset]:
    """Return the offset of each host by its latest point."""
    offsets = ((name, offset_of(row.offset_s, row.earliest_s, row.latest_s)) for name, row in _latest(rows).items())
    return {name: offset for name, offset in offsets if offset is not None}


def _latest(rows: Iterable[Clock]) -> dict[str, Clock]:
    """Return the latest point of each host; what has no name is nobody's."""
    latest: dict[str, Clock] = {}
    for row in rows:
        name = row[0]
        if isinstance(name, str) and name and ((other := latest.get(name)) is None or other[3] < row[3]):
            latest[name] = row
    return latest


def _host(name: str, row: Clock) -> Host:
    """Return a host; one that does not say how it is, is unknown."""
    severity, verdict = number(row.severity), number(row.verdict)
    offset = None if verdict == _UNMEASURED else offset_of(row.offset_s, row.earliest_s, row.latest_s)
    return Host(
        name,
        text(row.site),
        text(row.env),
        row.last_ns,
        _SEVERITIES.get(severity, Severity.UNKNOWN),
        "unmeasured" if offset is None else _VERDICTS.get(verdict, "unproven"),
        offset,
        number(row.age_s),
        number(row.frequency_ppm),
        count_of(row.usable),
        count_of(row.falsetickers),
        count_of(row.findings),
    )


_SEVERITIES: dict[float | None, Severity] = {float(severity): severity for severity in Severity}
_VERDICTS: dict[float | None, Verdict] = {float(place): verdict for place, verdict in enumerate(VERDICTS)}
_UNMEASURED = float(VERDICTS.index("unmeasured"))


def alarms_of(rows: Iterable[Happening], now_ns: int, before_s: float) -> tuple[Alarm, ...]:
    """Return what is in force: of every host and kind the latest event, where that is one of raising.

    Steps since `before_s` are, for they tell why a clock is not where it was then.
    """
    latest: dict[tuple[str, str], Happening] = {}
    for row in rows:
        if isinstance(row.host, str) and isinstance(row.kind, str):
            other = latest.get((row.host, row.kind))
            if other is None or other.stamp_ns < row.stamp_ns:
                latest[row.host, row.kind] = row
    return tuple(
        Alarm(host, kind, _SEVERITIES.get(number(row.severity), Severity.UNKNOWN), row.stamp_ns, number(row.value_s))
        for (host, kind), row in latest.items()
        if number(row.raised) == 1 and now_ns - row.stamp_ns <= max(PASSING.get(kind, EVENTS_S), before_s) * 1e9
    )


def lies_of(rows: Iterable[Said]) -> tuple[Lie, ...]:
    """Return the falsetickers of every host's latest audit: those that it named then, and not what it named before."""
    last: dict[str, int] = {}
    said = [row for row in rows if isinstance(row.host, str) and isinstance(row.source, str)]
    for row in said:
        host = str(row.host)
        last[host] = max(row.stamp_ns, last.get(host, row.stamp_ns))
    return tuple(
        Lie(str(row.source), str(row.host), number(row.offset_s))
        for row in said
        if row.stamp_ns == last[str(row.host)] and number(row.status) == _FALSETICKER
    )


def bucket_of(begin_ns: int, severity: Cell, mean_s: Cell, earliest_s: Cell, latest_s: Cell) -> Bucket:
    """Return what a host's points in a span say."""
    return Bucket(
        begin_ns, _SEVERITIES.get(number(severity), Severity.UNKNOWN), offset_of(mean_s, earliest_s, latest_s)
    )


def tally(spans: Spans, worst: Iterable[tuple[int, Cell]]) -> tuple[Tally, ...]:
    """Count hosts by the worst that each was in each span, told by the span's place; spans with none are left out."""
    counts: dict[int, list[int]] = {}
    for place, severity in worst:
        counts.setdefault(place, [0, 0, 0, 0])[_SEVERITIES.get(number(severity), Severity.UNKNOWN)] += 1
    return tuple(
        Tally(spans.begin_ns + place * spans.width_ns, (ok, warning, unknown, critical))
        for place, (ok, warning, unknown, critical) in sorted(counts.items())
    )


def offset_of(estimate_s: Cell, earliest_s: Cell, latest_s: Cell) -> Offset | None:
    """Return an offset where all of it is known."""
    estimate, earliest, latest = number(estimate_s), number(earliest_s), number(latest_s)
    if estimate is None or earliest is None or latest is None or not earliest <= latest:
        return None
    return Offset(estimate, earliest, latest)


def number(cell: Cell) -> float | None:
    """Return a finite number, of whatever type it came in; None for anything else, a truth value too."""
    kind = type(cell)
    if kind is not float and kind is not str and kind is not int:
        return None
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    return value if isfinite(value) else None


def count_of(cell: Cell) -> int:
    """Return a whole number that is not negative; 0 for anything else."""
    value = number(cell)
    return int(value) if value is not None and 0 <= value < _INT64 else 0


def text(cell: Cell) -> str | None:
    """Return a text that is not empty, None for anything else."""
    return cell if isinstance(cell, str) and cell else None


def mapping(cell: Cell) -> Mapping[str, Cell]:
    """Return an object of JSON, an empty one for anything else."""
    return cell if isinstance(cell, dict) else {}
