"""The fleet as one HTML page, which loads nothing from anywhere and is complete without its script."""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from math import ceil, floor
from types import SimpleNamespace

from ntpaudit.core.clock.readings import growth_ns
from ntpaudit.core.fleet.members import measured
from ntpaudit.core.fleet.model import Alarm, Fleet, FleetPolicy, SeverityCounts, TimeBucket, split
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S
from ntpaudit.render import svg
from ntpaudit.render.axis import Axis
from ntpaudit.render.html import environment, many, verbatim
from ntpaudit.reports.fleet_hosts import alarm_words, daemon_words, list_cards, list_rows, step_words
from ntpaudit.reports.fleet_summary import flagged, is_wrong

MOST_SERIES = 50  # the maximum number of hosts whose offset over time is drawn, the worst first
MANY = 200  # from this number of hosts, a browser renders only the visible rows


def render(
    fleet: Fleet,
    host_series: Mapping[str, tuple[TimeBucket, ...]],
    tallies: tuple[SeverityCounts, ...],
    steps: tuple[Alarm, ...] = (),
    *,
    period_s: float,
    spans: int,
    terms: FleetPolicy,
    source: str,
    version: str,
) -> str:
    """Return the page: the fleet, its past period and that of its worst hosts, and the method.

    `steps` are the reported steps of the period, in order of time. `spans` is the number of parts of the period.
    `source` describes the database. All text may be hostile: it is escaped, and the page's policy allows only its own
    style and script. The same values give the same page.
    """
    worst = [one for one in fleet.members if host_series.get(one.name)][:MOST_SERIES]
    axis = svg.common_axis((one.offset for one in fleet.members if one.offset), terms.warning_s)
    begin_ns = fleet.now_ns - round(period_s * NS_PER_S)
    frame = svg.Frame(begin_ns, fleet.now_ns, split(begin_ns, fleet.now_ns, spans).width_ns)
    rows = list_rows(fleet, axis, {one.name: number for number, one in enumerate(worst)})
    script = verbatim("fleet_page.js")
    template = environment().get_template("fleet.html.jinja")
    return template.render(
        # what was read, and how it is judged
        fleet=fleet,
        terms=terms,
        steps=steps,
        period_s=period_s,
        begin_ns=begin_ns,
        span_s=frame.span_ns / NS_PER_S,
        source=source,
        version=version,
        # the page
        style=verbatim("fleet_page.css"),
        script=script,
        script_digest=b64encode(sha256(script.encode()).digest()).decode(),
        classes=svg.CLASSES,
        worst_first=svg.WORST_FIRST,
        alarm_words=alarm_words,
        daemon_words=daemon_words,
        step_words=step_words,
        # all hosts together
        headline=headline(fleet),
        notes=dict(zip(svg.WORST_FIRST, _notes(fleet), strict=True)),
        proportions=svg.proportions(fleet.whole.hosts),
        worst_tally=max(tallies, key=lambda one: (one.hosts[Severity.CRITICAL], sum(one.hosts[1:])), default=None),
        stack=svg.over_time(tallies, len(fleet.members), frame),
        moments=frame.labels(),
        estimates=_estimates(fleet, axis, terms),
        example=_example(fleet),
        # each host
        rows=rows,
        numbers={row.one.name: row.number for row in rows},
        critical=[row for row in rows if row.one.severity is Severity.CRITICAL],
        unknown=[row for row in rows if row.one.severity is Severity.UNKNOWN],
        flagged=len(flagged(fleet.members)),  # they come first
        has_suspects=any(one.suspected and one.severity is Severity.OK for one in fleet.members),
        is_large=len(rows) >= MANY,
        tolerance=[100 * axis.share(value) for value in (-terms.warning_s, terms.warning_s)],
        cards=list_cards(worst, host_series, steps, frame, terms),
    )


def headline(fleet: Fleet) -> str:
    """Describe the fleet's clocks in one sentence."""
    whole, unknown = len(fleet.members), fleet.whole.hosts[Severity.UNKNOWN]
    wrong = sum(map(is_wrong, fleet.members))
    if not whole:
        return "No host has reported."
    if wrong:
        return f"{wrong:,} of {many(whole, 'clock')} {'is' if wrong == 1 else 'are'} wrong for certain."
    if unknown:
        return f"No clock is known to be wrong, but {unknown:,} of {many(whole, 'clock')} cannot be verified."
    if fleet.severity is Severity.OK:
        return f"{'All ' if whole > 1 else ''}{many(whole, 'clock')} {'is' if whole == 1 else 'are'} ok."
    return "No clock is wrong for certain, but there are warnings or findings."


def _notes(fleet: Fleet) -> tuple[str, str, str, str]:
    wrong = sum(map(is_wrong, fleet.members))
    silent = [one for one in fleet.members if one.silent_s is not None and one.severity is Severity.UNKNOWN]
    lost = sum(one.host is None for one in silent)
    reporting = [one for one in fleet.members if one.silent_s is None]
    unmeasured = sum(one.severity is Severity.UNKNOWN for one in reporting)
    unproven = sum(one.host is not None and one.host.verdict == "unproven" for one in reporting)
    unknown = [f"{len(silent):,} silent" + (f", {lost:,} without any point" if lost else "")] if silent else []
    unknown += [f"{unmeasured:,} not measured"] if unmeasured else []
    return (
        f"{wrong:,} wrong for certain" if wrong else "none wrong for certain",
        "; ".join(unknown) or "every host reports",
        f"{unproven:,} cannot be proven" if unproven else "",
        "",
    )


def _estimates(fleet: Fleet, axis: Axis, terms: FleetPolicy) -> SimpleNamespace | None:
    """Return how many estimates lie within the warning tolerance, behind and ahead of it, and their distribution."""
    estimates = [one.current_offset.estimate_s for one in fleet.members if one.current_offset]
    if not estimates:
        return None
    behind = sum(estimate_s > terms.warning_s for estimate_s in estimates)
    ahead = sum(estimate_s < -terms.warning_s for estimate_s in estimates)
    bins = svg.counted(estimates, axis)
    return SimpleNamespace(
        inside=len(estimates) - behind - ahead,
        behind=behind,
        ahead=ahead,
        highest=max(bins),
        spread=svg.spread(bins, axis, terms.warning_s),
    )


def _example(fleet: Fleet) -> SimpleNamespace | None:
    """Return the worst pair of hosts, and the ends of their intervals in µs, with what their clocks may drift."""
    if fleet.whole.ambiguity is None:
        return None
    hosts = {one.name: (host, offset) for one, host, offset in measured(fleet.members)}
    (behind, late), (ahead, early) = (hosts[name] for name in fleet.whole.ambiguity.hosts)
    behind_us, ahead_us = (
        growth_ns(fleet.now_ns - host.last_ns, host.max_drift_ppm) / 1000 for host in (behind, ahead)
    )
    return SimpleNamespace(
        behind=behind.name,
        ahead=ahead.name,
        latest_us=ceil(late.latest_s * 1e6 + behind_us),
        earliest_us=floor(early.earliest_s * 1e6 - ahead_us),
    )
