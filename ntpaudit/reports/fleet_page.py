"""The fleet as one page for people: an HTML file that asks nobody for anything, and is whole without its script."""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from math import ceil, floor
from typing import NamedTuple

from ntpaudit.core.clocks import growth_ns
from ntpaudit.core.fleet import Alarm, Bucket, Fleet, Tally, Terms
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Severity
from ntpaudit.reports.fleet_figures import (
    CLASSES,
    WORST_FIRST,
    Scale,
    Spread,
    common_scale,
    counted,
    frame_of,
    over_time,
    proportions,
    spread,
)
from ntpaudit.reports.fleet_hosts import alarm_words, list_cards, list_rows, told_step
from ntpaudit.reports.fleet_summary import flagged, is_wrong
from ntpaudit.reports.markup import environment, many, verbatim

MOST_COURSES = 50
"""So many hosts have their course drawn: the worst of those whose course was read."""

MANY = 200
"""From so many hosts on a browser lays out only those in sight; fewer cost it nothing."""


def render(
    fleet: Fleet,
    courses: Mapping[str, tuple[Bucket, ...]],
    tallies: tuple[Tally, ...],
    steps: tuple[Alarm, ...] = (),
    *,
    period_s: float,
    spans: int,
    terms: Terms,
    source: str,
    version: str,
) -> str:
    """Write the page: the fleet as judged, how it and its worst hosts fared over the period, and how that is known.

    `steps` are those of the period that hosts told of, in the order of time.

    `spans` is into how many the readers divided the period. `source` says in words which database was read. Every text
    may be hostile: it is escaped, and the page's own policy forbids all but its own style and script. The same values
    give the same page.
    """
    begin_ns = fleet.now_ns - round(period_s * NS_PER_S)
    worst = [one for one in fleet.members if courses.get(one.name)][:MOST_COURSES]
    scale = common_scale((one.host.offset for one in fleet.members if one.host and one.host.offset), terms.warning_s)
    frame = frame_of(begin_ns, fleet.now_ns, spans)
    counts = _counts(fleet)
    rows = list_rows(fleet, scale, {one.name: number for number, one in enumerate(worst)})
    script = verbatim("fleet_page.js")
    return (
        environment()
        .get_template("fleet.html.jinja")
        .render(
            fleet=fleet,
            terms=terms,
            period_s=period_s,
            begin_ns=begin_ns,
            source=source,
            version=version,
            headline=headline(fleet),
            style=verbatim("fleet_page.css"),
            script=script,
            script_digest=b64encode(sha256(script.encode()).digest()).decode(),
            classes=CLASSES,
            worst_first=WORST_FIRST,
            tiles=[
                (severity, counts[severity], note) for severity, note in zip(WORST_FIRST, _notes(fleet), strict=True)
            ],
            proportions=proportions([counts[severity] for severity in Severity]),
            numbers={one.name: number for number, one in enumerate(fleet.members)},
            rows=rows,
            critical=[row for row in rows if row.one.severity is Severity.CRITICAL],
            unknown=[row for row in rows if row.one.severity is Severity.UNKNOWN],
            alarm_words=alarm_words,
            is_large=len(fleet.members) >= MANY,
            flagged=len(flagged(fleet.members)),  # they come first
            has_suspects=any(one.suspected and one.severity is Severity.OK for one in fleet.members),
            tolerance=[100 * scale.share(value) for value in (-terms.warning_s, terms.warning_s)],
            estimates=_estimates(fleet, scale, terms),
            moments=frame.labels(),
            span_s=frame.span_ns / NS_PER_S,
            worst_tally=max(tallies, key=lambda one: (one.hosts[Severity.CRITICAL], sum(one.hosts[1:])), default=None),
            stack=over_time(tallies, len(fleet.members), frame),
            steps=steps,
            told_step=told_step,
            cards=list_cards(worst, courses, steps, frame, terms),
            example=_example(fleet),
        )
    )


def headline(fleet: Fleet) -> str:
    """Say in one sentence how the fleet's clocks stand."""
    whole, wrong, unknown = len(fleet.members), _wrong(fleet), _counts(fleet)[Severity.UNKNOWN]
    if not whole:
        return "No host has reported."
    if wrong:
        return f"{wrong:,} of {many(whole, 'clock')} {'is' if wrong == 1 else 'are'} wrong for certain."
    if unknown:
        return f"No clock is known to be wrong, but {unknown:,} of {many(whole, 'clock')} cannot be vouched for."
    if fleet.severity is Severity.OK:
        return f"{'All ' if whole > 1 else ''}{many(whole, 'clock')} {'is' if whole == 1 else 'are'} in order."
    return "No clock is wrong for certain, but not everything is in order."


def _wrong(fleet: Fleet) -> int:
    return sum(is_wrong(one) for one in fleet.members)


def _counts(fleet: Fleet) -> Counter[Severity]:
    return Counter(one.severity for one in fleet.members)


def _notes(fleet: Fleet) -> tuple[str, str, str, str]:
    """Say what stands behind each count, worst first."""
    wrong = _wrong(fleet)
    silent = [one for one in fleet.members if one.silent_s is not None]
    lost = sum(one.host is None for one in silent)
    unmeasured = sum(one.severity is Severity.UNKNOWN and one.silent_s is None for one in fleet.members)
    heard = [one.host for one in fleet.members if one.host and one.silent_s is None]
    unproven = sum(host.verdict == "unproven" for host in heard)
    unknown = [f"{len(silent):,} silent" + (f", {lost:,} without any point" if lost else "")] if silent else []
    unknown += [f"{unmeasured:,} not measured"] if unmeasured else []
    return (
        f"{wrong:,} wrong for certain" if wrong else "none wrong for certain",
        "; ".join(unknown) or "every host reports",
        f"{unproven:,} cannot be proven" if unproven else "",
        "",
    )


class Estimates(NamedTuple):
    """How many estimates lie within the warning tolerance, behind and ahead of it, and their distribution."""

    inside: int
    behind: int
    ahead: int
    highest: int
    spread: Spread


def _estimates(fleet: Fleet, scale: Scale, terms: Terms) -> Estimates | None:
    estimates = [
        one.host.offset.estimate_s for one in fleet.members if one.host and one.host.offset and one.silent_s is None
    ]
    if not estimates:
        return None
    behind = sum(estimate_s > terms.warning_s for estimate_s in estimates)
    ahead = sum(estimate_s < -terms.warning_s for estimate_s in estimates)
    bins = counted(estimates, scale)
    figure = spread(bins, scale, terms.warning_s)
    return Estimates(len(estimates) - behind - ahead, behind, ahead, max(bins), figure)


class Example(NamedTuple):
    """The worst pair of hosts, and the ends of their intervals in microseconds, with what their clocks may drift."""

    behind: str
    ahead: str
    latest_us: int
    earliest_us: int


def _example(fleet: Fleet) -> Example | None:
    """Return the arithmetic of order for the worst pair: how late the one can be at most, and how early the other."""
    if fleet.whole.ambiguity is None:
        return None
    hosts = {one.name: one.host for one in fleet.members}
    behind, ahead = (hosts.get(name) for name in fleet.whole.ambiguity.hosts)
    if behind is None or ahead is None or behind.offset is None or ahead.offset is None:
        return None
    latest_us = ceil(behind.offset.latest_s * 1e6 + growth_ns(fleet.now_ns - behind.last_ns) / 1000)
    earliest_us = floor(ahead.offset.earliest_s * 1e6 - growth_ns(fleet.now_ns - ahead.last_ns) / 1000)
    return Example(behind.name, ahead.name, latest_us, earliest_us)
