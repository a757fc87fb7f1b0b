"""The hosts on the fleet's page: their rows in the table, and the period of the worst ones."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ntpaudit.core.checks.context import estimate_s
from ntpaudit.core.checks.host import RULES
from ntpaudit.core.checks.steps import STEP_BACK, STEP_KINDS
from ntpaudit.core.fleet.model import (
    Alarm,
    Fleet,
    FleetFinding,
    FleetPolicy,
    Host,
    HostStatus,
    TimeBucket,
    max_error_s,
)
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, direction, format_duration, format_offset, format_utc, plural
from ntpaudit.render.axis import Axis
from ntpaudit.render.svg import CLASSES, Band, Frame, HostSeries, Jump, SeriesFigure, band, draw_series, jumps

_PRESENT = frozenset(rule.id for rule in RULES if rule.value_s is estimate_s)
"""Findings whose size is the offset, which stands in the row as it is now."""

_JUMPS_NAMED = 3
_VERDICTS = {"beyond": "wrong for certain", "unproven": "cannot be proven", "within": "within tolerance"}


class Row(NamedTuple):
    """The row of a host on the page.

    `number` is its place in the fleet, by which links lead to it, and `figure` that of its offset over time, None
    without one. `kind` holds its classes in the style sheet. `way` is `behind` or `ahead`, empty without an offset. A
    search finds it by `found_by` too, which its row does not show. `suspected` are findings of the fleet, each with the
    id of its article.
    """

    number: int
    one: HostStatus
    kind: str
    silent: bool
    verdict: str
    way: str
    band: Band | None
    bound_s: float | None
    figure: int | None
    found_by: str
    suspected: list[tuple[str, str]]


def list_rows(fleet: Fleet, axis: Axis, figures: Mapping[str, int]) -> list[Row]:
    """Return a row for each host, in the fleet's order; `figures` are those hosts whose offset over time is drawn."""
    named: defaultdict[str, list[tuple[str, FleetFinding]]] = defaultdict(list)
    for number, finding in enumerate(fleet.findings):
        for host in finding.hosts:
            named[host].append((f"f{number}", finding))
    return [_row(number, one, axis, figures.get(one.name), named[one.name]) for number, one in enumerate(fleet.members)]


def _row(
    number: int, one: HostStatus, axis: Axis, figure: int | None, named: Sequence[tuple[str, FleetFinding]]
) -> Row:
    offset, silent = one.offset, one.silent_s is not None
    way = direction(offset.estimate_s) if offset else ""
    articles = {found.id: article for article, found in reversed(named)}
    return Row(
        number=number,
        one=one,
        kind=" ".join(filter(None, (CLASSES[one.severity], way, "silent" if silent else ""))),
        silent=silent,
        verdict=_verdict(one),
        way=way,
        band=band(offset, axis) if offset else None,
        bound_s=max_error_s(offset) if offset else None,
        figure=figure,
        found_by=" ".join(dict.fromkeys(word for _, found in named for word in (found.id, found.source) if word)),
        suspected=[(kind, articles.get(kind, "findings")) for kind in one.suspected],
    )


def _verdict(one: HostStatus) -> str:
    verdict = one.host.verdict if one.host else "unmeasured"
    if one.severity is Severity.OK and verdict == "within":
        return ""
    return "silent" if one.silent_s is not None else _VERDICTS.get(verdict, "not measured")


def alarm_words(alarm: Alarm, now_ns: int) -> str:
    """Return the size and age of what was found; a size is that of the moment of raising, which only a step keeps.

    An exception of the report follows with its end, its person and its reason.
    """
    words = _size_and_age(alarm, now_ns)
    return f"{words}; {alarm.exception.text}" if alarm.exception else words


def _size_and_age(alarm: Alarm, now_ns: int) -> str:
    passed = format_duration(max(0, now_ns - alarm.since_ns) / NS_PER_S)
    if alarm.kind in STEP_KINDS:
        return f"{passed} ago" if alarm.value_s is None else f"{format_duration(alarm.value_s)}, {passed} ago"
    if alarm.value_s is None or alarm.kind in _PRESENT:
        return f"for {passed}"
    return f"{format_duration(alarm.value_s)} when raised, {passed} ago"


def daemon_words(host: Host) -> str:
    """Describe the time daemon of a host: what it follows, and what it claims beside what is measured."""
    if (daemon := host.daemon) is None:
        return ""
    name = daemon.name or "time daemon"
    follows = name if daemon.follows is None else f"{name} follows {daemon.follows}"
    words = [f"{follows}, which is not approved" if daemon.is_unapproved and daemon.follows else follows]
    words += ["its source is not approved"] if daemon.is_unapproved and not daemon.follows else []
    words += ["not synchronised"] if daemon.is_synchronised is False else []
    words += [] if daemon.offset_s is None else [f"claims {format_offset(daemon.offset_s)}"]
    words += [f"{format_duration(daemon.excess_s, rounding='down')} from what is measured"] if daemon.excess_s else []
    return "; ".join(words)


def list_cards(
    worst: Sequence[HostStatus],
    host_series: Mapping[str, tuple[TimeBucket, ...]],
    steps: Sequence[Alarm],
    frame: Frame,
    terms: FleetPolicy,
) -> list[tuple[HostStatus, SeriesFigure, str]]:
    """Return the worst hosts, each with its offset over the period, as a figure and in words."""
    jumped: dict[str, list[Jump]] = {one.name: [] for one in worst}
    for step in steps:
        if step.host in jumped:  # set forward, a clock's offset falls
            moved_s = None if step.value_s is None else -step.value_s
            jumped[step.host].append(Jump(step.since_ns, moved_s, True))
    cards = []
    for one in worst:
        series = HostSeries(host_series[one.name], jumped[one.name], terms.warning_s)
        cards.append((one, draw_series(series, frame), _series_words(series, frame)))
    return cards


def step_words(step: Alarm) -> str:
    """Return the direction and size of a step."""
    way = "set back" if step.kind == STEP_BACK.id else "set forward"
    return way if step.value_s is None else f"{way} by {format_duration(step.value_s)}"


def _series_words(series: HostSeries, frame: Frame) -> str:
    """Describe the figure of an offset over time; the extremes first, which the means would hide."""
    known = [bucket.offset for bucket in series.buckets if bucket.offset is not None]
    if not known:
        return "Nothing was measured."
    least, most = min(o.estimate_s for o in known), max(o.estimate_s for o in known)
    whole = max(len(series.buckets), round((frame.end_ns - frame.begin_ns) / frame.span_ns))
    span_s = frame.span_ns / NS_PER_S
    facts = [
        _extremes(min(o.earliest_s for o in known), max(o.latest_s for o in known)),
        f"{format_duration(span_s)} means from {format_duration(least)} {direction(least)} to "
        f"{format_duration(most)} {direction(most)}",
    ]
    moved = jumps(series, frame.span_ns)
    facts += [_jump_words(jump, frame) for jump in moved[:_JUMPS_NAMED]]
    if len(moved) > _JUMPS_NAMED:
        facts.append(plural(len(moved) - _JUMPS_NAMED, "more jump"))
    unmeasured, absent = len(series.buckets) - len(known), whole - len(series.buckets)
    facts += [f"not measured for {format_duration(unmeasured * span_s)}"] if unmeasured else []
    facts += [f"no point for {format_duration(absent * span_s)}"] if absent else []
    return f"{'; '.join(facts)}."


def _extremes(earliest_s: float, latest_s: float) -> str:
    """Return the range of the true offset, each end rounded outwards."""
    most_ahead, most_behind = format_duration(earliest_s, rounding="up"), format_duration(latest_s, rounding="up")
    if earliest_s > 0:
        return f"Between {format_duration(earliest_s, rounding='down')} and {most_behind} behind"
    if latest_s < 0:
        return f"Between {format_duration(latest_s, rounding='down')} and {most_ahead} ahead"
    return f"Between {most_ahead} ahead and {most_behind} behind"


def _jump_words(jump: Jump, frame: Frame) -> str:
    stamp = format_utc(jump.time_ns)[5 : 19 if jump.is_reported else 16].replace("T", " ")
    at = stamp if frame.is_long() else stamp[6:]
    if jump.moved_s is None:
        return f"set at {at}"
    way = "back" if jump.moved_s > 0 else "forward"
    if jump.is_reported:
        return f"set {way} by {format_duration(jump.moved_s)} at {at}"
    return f"set {way} at about {at}, by {format_duration(jump.moved_s, rounding='down')} or more"
