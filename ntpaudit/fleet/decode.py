"""Decodes database replies into the values of a fleet; the type of every value is checked."""

from collections.abc import Collection, Iterable, Mapping
from math import inf
from typing import NamedTuple

from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.clock.database_clock import MAX_STAMP_DISPUTE_S
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.fleet.model import (
    STEP_S,
    Alarm,
    Bounds,
    DuplicateHost,
    FalsetickerReport,
    Host,
    Offset,
    SeverityCounts,
    TimeBucket,
    TimeSpans,
)
from ntpaudit.core.fleet.severity import came_ns
from ntpaudit.core.observation import STATUSES
from ntpaudit.core.policy import VERDICTS, Severity, Verdict
from ntpaudit.render.text_safety import one_line

RawValue = object
"""An unchecked value: a number, a text, None, or anything unexpected."""

BASELINE_S = 900.0
"""A host's offset of some time ago is its last one in a window of this length that ends there."""

EVENTS_S = 90 * 86_400.0
"""How far back events of raised findings, and sources, are read."""

_FALSETICKER = STATUSES.index("falseticker")
_MOST = 1e15  # no valid value of a clock is larger, in any unit
_ROUNDING_S = 1e-6  # what a database may lose of the digits of an offset of years


class ClockRow(NamedTuple):
    """A point of `ntpaudit_clock`."""

    name: RawValue
    site: RawValue
    env: RawValue
    last_ns: int
    severity: RawValue
    verdict: RawValue
    offset_s: RawValue
    earliest_s: RawValue
    latest_s: RawValue
    usable: RawValue = None
    falsetickers: RawValue = None
    frequency_ppm: RawValue = None
    age_s: RawValue = None
    findings: RawValue = None
    critical_s: RawValue = None
    warning_s: RawValue = None
    confirmed: RawValue = None
    judged_on_bound: RawValue = None
    max_drift_ppm: RawValue = None
    disputed_s: RawValue = None


CLOCK_FIELDS = ClockRow._fields[4:]
"""The fields that are read of a point of `ntpaudit_clock`."""

JUDGED_FIELDS = (
    "severity", "offset_s", "earliest_s", "latest_s", "usable", "falsetickers", "age_s", "critical_s",
)  # fmt: skip
"""The fields for the evaluation and the short text; the frequency is read only for clocks that moved."""

FULL_FIELDS = (*JUDGED_FIELDS, "verdict", "frequency_ppm", "findings")
"""The fields for a list of all hosts."""

TOLERANCE_FIELDS = ("warning_s", "confirmed", "judged_on_bound")
"""Those that are read of hosts alone whose severity is in doubt."""

BOUND_FIELDS = ("earliest_s", "latest_s")
"""Those that hold the offset."""

RATE_FIELDS = ("frequency_ppm",)
"""The frequency of a clock."""

DISPUTED_FIELDS = (*TOLERANCE_FIELDS, *RATE_FIELDS, "max_drift_ppm", "disputed_s")
"""Those that are read of hosts alone whose time stamps are in doubt; of others there is no `disputed_s`.

All that may be asked of a host is among them: to ask again by its stamp might find another point.
"""


class EventRow(NamedTuple):
    """A point of `ntpaudit_event`."""

    host: RawValue
    kind: RawValue
    stamp_ns: int
    raised: RawValue
    severity: RawValue
    value_s: RawValue
    disputed_s: RawValue = None


class SourceRow(NamedTuple):
    """A point of `ntpaudit_source`."""

    host: RawValue
    source: RawValue
    stamp_ns: int
    status: RawValue
    offset_s: RawValue


class Sighting(NamedTuple):
    """That a host reported from a place at a moment."""

    name: RawValue
    site: RawValue
    env: RawValue
    stamp_ns: int


class BaselineRow(NamedTuple):
    """What held the offset of a host at an earlier point, and when that was written."""

    bounds: Bounds
    stamp_ns: int


class Counted(NamedTuple):
    """How many points of a host are stamped in a span, how many of them are disputed, and the least `disputed_s`."""

    name: RawValue
    place: int
    points: RawValue
    disputed: RawValue
    least_s: RawValue


def hosts_of(rows: Iterable[ClockRow]) -> dict[str, Host]:
    """Return each host by its latest point, wherever it stood before."""
    return {name: _host(name, row) for name, row in _latest(rows).items()}


def worst_of(
    rows: Iterable[ClockRow], clashing: Collection[str], hosts: Mapping[str, Host] | None = None, since_ns: int = 0
) -> dict[str, Host]:
    """Return the worst of those that report under one name, by the latest point of each place that they report from.

    `hosts` has the point of each name that came last, which may be stamped ahead of those that are read. What came
    before `since_ns` says nothing of now.
    """
    latest: dict[tuple[str, str | None, str | None], ClockRow] = {}
    for row in rows:
        if (name := text(row.name)) is not None and name in clashing and _came_ns(row) >= since_ns:
            key = (name, text(row.site), text(row.env))
            latest[key] = max(latest.get(key, row), row, key=_freshness)
    worst = {name: host for name, host in (hosts or {}).items() if name in clashing}
    for (name, *_), row in latest.items():
        host = _host(name, row)
        worst[name] = max(worst.get(name, host), host, key=_severity_key)
    return worst


def _freshness(row: ClockRow) -> tuple[int, str]:
    """Return by what the latest of several points is chosen: of two at one moment always the same."""
    return _came_ns(row), repr(row)


def _came_ns(row: ClockRow) -> int:
    """Return when a point came, where it says that its stamp is not that moment."""
    disputed_s = None if row.disputed_s is None else number(row.disputed_s)
    return row.last_ns if not disputed_s else came_ns(row.last_ns, disputed_s)


TOGETHER_NS = 150_000_000_000
"""Nearly every agent reports more often than this."""


def current(stamped: Mapping[str, Host], disputed: Mapping[str, Host], ahead: Mapping[str, Host]) -> dict[str, Host]:
    """Return each host by the point that came last, of several that may be it.

    These are the latest by its stamp until about now, the latest of those that its agent knows to be disputed, and
    the latest of those stamped ahead of now. When one of the last came, is known only if its agent knows it; else the
    worse of both severities counts. Of two that came at about one time from two places the worse one counts: they may
    be two machines of one name, and else one of them alone would be judged, by chance.
    """
    hosts = dict(stamped)
    for name, host in disputed.items():
        known = hosts.get(name)
        if known is None or known.last_ns == host.last_ns or known.last_ns <= came_ns(host.last_ns, host.disputed_s):
            hosts[name] = host
        elif _may_be_two(known, host):
            hosts[name] = max(known, host, key=_severity_key)
    for name, host in ahead.items():
        known = hosts.get(name)
        if known is None or (host.disputed_s and _host_came_ns(known) <= _host_came_ns(host)):
            hosts[name] = host
        elif not host.disputed_s:
            hosts[name] = host._replace(severity=max(host.severity, known.severity))
        elif _may_be_two(known, host):
            hosts[name] = max(known, host, key=_severity_key)
    return hosts


def _may_be_two(one: Host, other: Host) -> bool:
    """Whether two points of one name may be of two machines: they came from two places at about one time."""
    is_elsewhere = (one.site, one.env) != (other.site, other.env)
    return is_elsewhere and abs(_host_came_ns(one) - _host_came_ns(other)) <= TOGETHER_NS


def unsettled(hosts: Mapping[str, Host], disputed: Iterable[str], since_ns: int) -> dict[str, Host]:
    """Return those of the hosts with disputed points whose latest known point came before a moment.

    The point that came last may be any other: stamps are not in the order in which points came.
    """
    return {name: hosts[name] for name in disputed if _host_came_ns(hosts[name]) < since_ns}


def spans_of_arrival(
    spans: TimeSpans, counts: Iterable[Counted], hosts: Mapping[str, Host], until_ns: int
) -> dict[str, list[tuple[int, int]]]:
    """Return of each host the spans whose points may have come later than its known one: until when, and the place.

    The last one is the likeliest. An undisputed point came when it is stamped, and none is stamped after `until_ns`:
    when such a one came, its agent does not know.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for name, place, points, disputed, least_s in counts:
        if not isinstance(name, str) or (known := hosts.get(name)) is None:
            continue
        begin_ns, ends = spans.begin_ns + place * spans.width_ns, []
        if count_of(points) > count_of(disputed) and begin_ns <= until_ns:
            ends.append(begin_ns + spans.width_ns)
        if count_of(disputed):
            # one that is disputed by more than a day hides by how much others are
            least = max(number(least_s) or 0.0, -MAX_STAMP_DISPUTE_S)
            ends.append(begin_ns + spans.width_ns - round(min(least, MAX_STAMP_DISPUTE_S) * 1e9))
        if ends and max(ends) > _host_came_ns(known):
            found.setdefault(name, []).append((max(ends), place))
    return {name: sorted(ends) for name, ends in found.items()}


def later(hosts: Mapping[str, Host], rows: Iterable[ClockRow]) -> dict[str, Host]:
    """Return those hosts of which some row came later than the point that is known; of two machines the worse."""
    return {
        name: max(known, found, key=_severity_key) if _may_be_two(known, found) else found
        for name, found in hosts_of(rows).items()
        if (known := hosts.get(name)) is not None and _host_came_ns(known) < _host_came_ns(found)
    }


def with_tolerances(hosts: Mapping[str, Host], rows: Iterable[ClockRow]) -> dict[str, Host]:
    """Return those hosts of which rows have their warning's tolerance, with what decides about a warning."""
    return {
        name: host._replace(
            warning_s=number(row.warning_s),
            is_confirmed=number(row.confirmed) != 0,
            judged_on_bound=number(row.judged_on_bound) == 1,
        )
        for name, row in _latest(rows).items()
        if (host := hosts.get(name)) is not None
    }


def with_drift(hosts: Mapping[str, Host], rows: Iterable[tuple[RawValue, RawValue]]) -> dict[str, Host]:
    """Return those hosts whose oscillators may be off by more than is known of their points: of several the most."""
    found: dict[str, Host] = {}
    for cell, ppm in rows:
        name = text(cell)
        host = None if name is None else found.get(name, hosts.get(name))
        if host is not None and (drift_ppm := drift_ppm_of(ppm)) > host.max_drift_ppm:
            found[host.name] = host._replace(max_drift_ppm=drift_ppm)
    return found


def _host_came_ns(host: Host) -> int:
    """Return when a host's point came, where its agent knows it."""
    return came_ns(host.last_ns, host.disputed_s) if host.disputed_s else host.last_ns


def _severity_key(host: Host) -> tuple[int, float, int, str, str]:
    """Return by what one of several hosts of a name is the worst: how bad, how wrong at most, and how late."""
    offset = host.offset
    worst_s = 0.0 if offset is None else max(-offset.earliest_s, offset.latest_s)
    severity = max(host.severity, Severity.WARNING) if host.disputed_s else host.severity  # as `members` judges it
    return severity, worst_s, host.last_ns, host.site or "", host.env or ""


def offsets_of(rows: Iterable[ClockRow]) -> dict[str, BaselineRow]:
    """Return what holds the offset of each host, by its latest point."""
    known = ((name, row, bounds_of(row.earliest_s, row.latest_s)) for name, row in _latest(rows).items())
    return {name: BaselineRow(bounds, row.last_ns) for name, row, bounds in known if bounds is not None}


def rated(hosts: Mapping[str, Host], rows: Iterable[ClockRow]) -> dict[str, Host]:
    """Return those hosts with their rates of which some rows have the latest point, or one that came since."""
    return {
        name: host._replace(frequency_ppm=number(row.frequency_ppm))
        for name, row in _latest(rows).items()
        if (host := hosts.get(name)) is not None and host.last_ns <= row.last_ns
    }


def _latest(rows: Iterable[ClockRow]) -> dict[str, ClockRow]:
    """Return the latest point of each host, of two at one moment always the same; rows without a name are skipped."""
    latest: dict[str, ClockRow] = {}
    for row in rows:
        name = text(row[0])
        if name is None:
            continue
        other = latest.get(name)
        if other is None:
            latest[name] = row
        elif row[-1] is None and other[-1] is None:  # neither is disputed: their stamps tell
            if other[3] < row[3] or (other[3] == row[3] and repr(other) < repr(row)):
                latest[name] = row
        else:
            latest[name] = max(other, row, key=_freshness)
    return latest


def several_of(signs: Iterable[Sighting]) -> set[str]:
    """Return the names that points came under from more than one place."""
    places: dict[str, tuple[RawValue, RawValue]] = {}
    found = set()
    for sign in signs:
        if (name := text(sign.name)) is not None:
            place = sign.site, sign.env
            if places.setdefault(name, place) != place:
                found.add(name)
    return found


def sites_of(signs: Iterable[Sighting]) -> dict[str, str]:
    """Return the site of each host that was never at another one."""
    sites: dict[str, set[str | None]] = {}
    for sign in signs:
        if (name := text(sign.name)) is not None:
            sites.setdefault(name, set()).add(text(sign.site))
    return {name: site for name, found in sites.items() if len(found) == 1 for site in found if site is not None}


def duplicate_hosts_of(signs: Iterable[Sighting]) -> tuple[DuplicateHost, ...]:
    """Return the names under which several machines report: from one place before and after another's first point.

    A host that moved fell silent at its old place before it was first heard of at the new one.
    """
    spans: dict[str, dict[tuple[str | None, str | None], tuple[int, int]]] = {}
    for sign in signs:
        if (name := text(sign.name)) is not None:
            own, place = spans.setdefault(name, {}), (text(sign.site), text(sign.env))
            first_ns, last_ns = own.get(place, (sign.stamp_ns, sign.stamp_ns))
            own[place] = min(first_ns, sign.stamp_ns), max(last_ns, sign.stamp_ns)
    found = ((name, _overlapping(own)) for name, own in sorted(spans.items()))
    return tuple(DuplicateHost(name, sites) for name, sites in found if sites)


def _overlapping(spans: Mapping[tuple[str | None, str | None], tuple[int, int]]) -> tuple[str | None, ...]:
    """Return the sites of those spans that overlap another one, in order; one without a site comes last."""
    sites = (
        site
        for (site, env), (first_ns, last_ns) in spans.items()
        if any(
            first_ns < other_last_ns and other_first_ns < last_ns
            for place, (other_first_ns, other_last_ns) in spans.items()
            if place != (site, env)
        )
    )
    return tuple(sorted(sites, key=lambda site: (site is None, site or "")))


def _host(name: str, row: ClockRow) -> Host:
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
        number(row.critical_s),
        number(row.warning_s),
        number(row.confirmed) != 0,
        number(row.disputed_s) or 0.0,
        number(row.judged_on_bound) == 1,
        drift_ppm_of(row.max_drift_ppm),
    )


_SEVERITIES: dict[float | None, Severity] = {float(severity): severity for severity in Severity}
_VERDICTS: dict[float | None, Verdict] = {float(place): verdict for place, verdict in enumerate(VERDICTS)}
_UNMEASURED = float(VERDICTS.index("unmeasured"))


def alarms_of(rows: Iterable[EventRow], now_ns: int, before_s: float) -> tuple[Alarm, ...]:
    """Return what is in force: of every host and kind the event that came last, where that is one of raising.

    An event came at its stamp, or at that less `disputed_s` where one of its rows has it (B8).

    It is in force since it came. Steps are kept as long as they can explain why a clock is not where it was before,
    also where they are in force no longer. Of two events at one moment, which do not show the present state, the
    one that raises counts.
    """
    rows = list(rows)
    came = _arrivals(rows)
    latest: dict[tuple[str, str], EventRow] = {}
    for row in rows:
        host, kind = text(row.host), text(row.kind)
        if host is not None and kind is not None:
            other = latest.get((host, kind))
            if other is None or _came(other, host, kind, came) < _came(row, host, kind, came):
                latest[host, kind] = row
    steps_s = max(STEP_S, before_s + BASELINE_S)
    alarms = (
        _alarm(host, kind, row, _came(row, host, kind, came)[0])
        for (host, kind), row in latest.items()
        if number(row.raised) == 1
    )
    return tuple(
        alarm
        for alarm in alarms
        if now_ns - alarm.since_ns <= (steps_s if alarm.kind in STEP_KINDS else EVENTS_S) * 1e9
    )


Arrivals = Mapping[tuple[str, str, int], int]
"""When those events came whose stamp does not tell it, by host, kind and stamp."""


def _arrivals(rows: Iterable[EventRow]) -> Arrivals:
    """Return when the disputed events came. Two that claim one stamp are of two places: the later one counts."""
    came: dict[tuple[str, str, int], int] = {}
    for row in rows:
        disputed_s = None if row.disputed_s is None else number(row.disputed_s)
        if disputed_s and (host := text(row.host)) is not None and (kind := text(row.kind)) is not None:
            event, arrival_ns = (host, kind, row.stamp_ns), came_ns(row.stamp_ns, disputed_s)
            came[event] = max(came.get(event, arrival_ns), arrival_ns)
    return came


def _came(row: EventRow, host: str, kind: str, came: Arrivals) -> tuple[int, tuple[int, bool, float, float]]:
    """Return by what the last event of a host and kind is chosen: when it came, and of two at once by `_recency`."""
    return (came.get((host, kind, row.stamp_ns), row.stamp_ns) if came else row.stamp_ns), _recency(row)


def undecided(rows: Iterable[EventRow], disputed: Iterable[EventRow]) -> dict[tuple[str, str], int]:
    """Return the latest stamp of each host and kind of which another event than the latest may have come last (B8).

    `rows` and `disputed` hold the latest by stamp of all events, and of those that are disputed. A stamp is within
    `MAX_STAMP_DISPUTE_S` of the arrival, so the event that came last is stamped less than twice that before the latest.
    """
    doubted = _last_stamps(disputed)
    if not doubted:
        return {}
    latest = _last_stamps(rows)
    return {
        event: max(stamp_ns, latest.get(event, stamp_ns))
        for event, stamp_ns in doubted.items()
        if latest.get(event, stamp_ns) - stamp_ns <= REORDERED_NS
    }


REORDERED_NS = round(2 * MAX_STAMP_DISPUTE_S * 1e9)
"""Of two events the later one may be stamped earlier by this."""


def _last_stamps(rows: Iterable[EventRow]) -> dict[tuple[str, str], int]:
    """Return the latest stamp of each host and kind."""
    latest: dict[tuple[str, str], int] = {}
    for row in rows:
        if (host := text(row.host)) is not None and (kind := text(row.kind)) is not None:
            latest[host, kind] = max(latest.get((host, kind), row.stamp_ns), row.stamp_ns)
    return latest


def steps_of(rows: Iterable[EventRow]) -> tuple[Alarm, ...]:
    """Return the reported steps, in the order of time; one that was reported from two sites is one."""
    latest: dict[tuple[int, str, str], EventRow] = {}
    for row in rows:
        host, kind = text(row.host), text(row.kind)
        if host is not None and kind in STEP_KINDS and number(row.raised) == 1:
            key = row.stamp_ns, host, kind
            latest[key] = max(latest.get(key, row), row, key=_recency)
    return tuple(_alarm(host, kind, row, row.stamp_ns) for (_, host, kind), row in sorted(latest.items()))


def _alarm(host: str, kind: str, row: EventRow, since_ns: int) -> Alarm:
    """Return a finding as it was raised, and since when."""
    severity = _SEVERITIES.get(number(row.severity), Severity.UNKNOWN)
    return Alarm(host, kind, severity, since_ns, number(row.value_s))


def _recency(row: EventRow) -> tuple[int, bool, float, float]:
    """Return by what the latest of several events is chosen."""
    severity, value_s = number(row.severity), number(row.value_s)
    return (
        row.stamp_ns,
        number(row.raised) == 1,
        -inf if severity is None else severity,
        -inf if value_s is None else value_s,
    )


def falseticker_reports_of(rows: Iterable[SourceRow]) -> tuple[FalsetickerReport, ...]:
    """Return the falsetickers of every host's latest audit: those that it named then, and not what it named before."""
    last: dict[str, int] = {}
    said = [
        (host, source, row)
        for row in rows
        if (host := text(row.host)) is not None and (source := text(row.source)) is not None
    ]
    for host, _, row in said:
        last[host] = max(row.stamp_ns, last.get(host, row.stamp_ns))
    return tuple(
        FalsetickerReport(source, host, number(row.offset_s))
        for host, source, row in said
        if row.stamp_ns == last[host] and number(row.status) == _FALSETICKER
    )


def bucket_of(
    begin_ns: int, severity: RawValue, mean_s: RawValue, earliest_s: RawValue, latest_s: RawValue
) -> TimeBucket:
    """Return what a host's points in a span say."""
    return TimeBucket(
        begin_ns, _SEVERITIES.get(number(severity), Severity.UNKNOWN), offset_of(mean_s, earliest_s, latest_s)
    )


def count_severities(spans: TimeSpans, worst: Iterable[tuple[int, RawValue, int]]) -> tuple[SeverityCounts, ...]:
    """Count hosts by the worst that each was in each span: the span's place, what, and how many.

    Spans with none are left out, and so is what lies in no span.
    """
    counts: dict[int, list[int]] = {}
    for place, severity, hosts in worst:
        if 0 <= place < spans.spans and hosts > 0:
            counts.setdefault(place, [0, 0, 0, 0])[_SEVERITIES.get(number(severity), Severity.UNKNOWN)] += hosts
    return tuple(
        SeverityCounts(spans.begin_ns + place * spans.width_ns, (ok, warning, unknown, critical))
        for place, (ok, warning, unknown, critical) in sorted(counts.items())
    )


def drift_ppm_of(cell: RawValue) -> float:
    """Return by what an oscillator may be off: by MAX_DRIFT_PPM, or by more where its agent says so (R4)."""
    return min(max(MAX_DRIFT_PPM, number(cell) or 0.0), 1e6)


def offset_of(estimate_s: RawValue, earliest_s: RawValue, latest_s: RawValue) -> Offset | None:
    """Return an offset where all of it is known, and the estimate lies in the interval, give or take its rounding."""
    estimate, earliest, latest = number(estimate_s), number(earliest_s), number(latest_s)
    if estimate is None or earliest is None or latest is None or not earliest <= latest:
        return None
    if earliest <= estimate <= latest:
        return Offset(estimate, earliest, latest)
    if not earliest - _ROUNDING_S <= estimate <= latest + _ROUNDING_S:
        return None
    return Offset(min(max(estimate, earliest), latest), earliest, latest)


def bounds_of(earliest_s: RawValue, latest_s: RawValue) -> Bounds | None:
    """Return an interval where both of its ends are known, and in order."""
    earliest, latest = number(earliest_s), number(latest_s)
    return None if earliest is None or latest is None or not earliest <= latest else Bounds(earliest, latest)


def number(cell: RawValue) -> float | None:
    """Return a number that a clock may have, of whatever type it came in; None for anything else, a truth value too."""
    kind = type(cell)
    if kind is not float and kind is not str and kind is not int:
        return None
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    return value if -_MOST <= value <= _MOST else None


def count_of(cell: RawValue) -> int:
    """Return a whole number that is not negative; 0 for anything else."""
    value = number(cell)
    return int(value) if value is not None and value >= 0 else 0


def text(cell: RawValue) -> str | None:
    """Return a text that is not empty, in one line and printable; None for anything else."""
    if not isinstance(cell, str) or not cell:
        return None
    return cell if cell.isprintable() else one_line(cell)  # a name is read some thousand times


def names_of(cells: Iterable[RawValue]) -> set[str]:
    """Return the names among some cells."""
    return {name for cell in cells if (name := text(cell)) is not None}


def mapping(cell: RawValue) -> Mapping[str, RawValue]:
    """Return an object of JSON, an empty one for anything else."""
    return cell if isinstance(cell, dict) else {}
