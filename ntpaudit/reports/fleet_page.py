"""The fleet as one page for people: an HTML file that asks nobody for anything, and is whole without its script."""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from math import ceil, floor

from ntpaudit.core.clocks import growth_ns
from ntpaudit.core.fleet import Alarm, Ambiguity, Bucket, Fleet, FleetFinding, Site, Tally, Terms
from ntpaudit.core.fleet_rules import share
from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Severity
from ntpaudit.core.wording import span
from ntpaudit.reports.fleet_figures import CLASSES, WORST_FIRST, Frame, common_scale, frame_of, over_time, proportions
from ntpaudit.reports.fleet_hosts import draw_courses, list_hosts, name_worst, told_step
from ntpaudit.reports.fleet_summary import is_wrong
from ntpaudit.reports.markup import breakable, many, moment, text

MOST_COURSES = 50
"""So many hosts have their course drawn: the worst of those whose course was read."""

_NAMED = 12
"""So many hosts of a finding are named at once, the rest on request."""

_MOST_NAMED = 500

_MOST_STEPS = 50
"""So many steps are listed, the latest."""


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
    drawn = {one.name: number for number, one in enumerate(worst)}
    style, script = _part("fleet_page.css"), _part("fleet_page.js")
    return "".join(
        [
            _head(fleet, style, script),
            '<a class="skip" href="#main">Skip to the findings</a>\n',
            _header(fleet, period_s, source),
            '<main id="main" tabindex="-1">\n',
            _findings(fleet),
            _coverage(fleet),
            _order(fleet, terms),
            _history(fleet, tallies, frame, period_s),
            _steps(fleet, steps, period_s),
            list_hosts(fleet, scale, terms, drawn),
            draw_courses(worst, len(fleet.members), courses, steps, frame, terms),
            _method(fleet, terms),
            "</main>\n",
            _footer(fleet, period_s, terms, source, version),
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _part(name: str) -> str:
    return (files("ntpaudit.reports") / name).read_text(encoding="utf-8")


def _head(fleet: Fleet, style: str, script: str) -> str:
    allowed = b64encode(sha256(script.encode()).digest()).decode()
    policy = "; ".join(
        (
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            f"script-src 'sha256-{allowed}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<meta name="generator" content="ntpaudit">\n<title>{text(headline(fleet))}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
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


def _header(fleet: Fleet, period_s: float, source: str) -> str:
    counts = _counts(fleet)
    tiles = "".join(
        f'<li class="{CLASSES[severity]}"><b>{counts[severity]:,}</b> <span class="s">{severity.word}</span>'
        f"<small>{note}</small></li>"
        for severity, note in zip(WORST_FIRST, _notes(fleet), strict=True)
    )
    links = (
        ("findings", "Findings"),
        ("coverage", "Coverage"),
        ("order", "Order of events"),
        ("history", "Period"),
        ("steps", "Steps"),
        ("hosts", "Hosts"),
        ("courses", "Courses"),
        ("method", "Method"),
    )
    listed = " ".join(f'<a href="#{name}">{title}</a>' for name, title in links)
    return (
        f'<header>\n<p class="kicker">Clocks of the fleet</p>\n<h1>{text(headline(fleet))}</h1>\n'
        f'<p class="lead">{many(len(fleet.members), "host")} as of {moment(fleet.now_ns)}, '
        f"with the {span(period_s)} before, from {text(source)}.</p>\n{name_worst(fleet)}"
        f'<ul class="tiles">{tiles}</ul>\n{proportions([counts[severity] for severity in Severity])}\n'
        f'<nav aria-label="On this page">{listed}</nav>\n</header>\n'
    )


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


def _findings(fleet: Fleet) -> str:
    numbers = {one.name: number for number, one in enumerate(fleet.members)}
    listed = "".join(_finding(number, finding, numbers) for number, finding in enumerate(fleet.findings))
    none = '<p class="calm">Nothing is wrong with the fleet as a whole. What single hosts report is listed below.</p>\n'
    return f'<section id="findings">\n<h2>Findings</h2>\n{listed or none}</section>\n'


def _finding(number: int, finding: FleetFinding, numbers: Mapping[str, int]) -> str:
    facts = [
        ("Site", text(finding.site) if finding.site is not None else ""),
        ("Source", text(finding.source) if finding.source is not None else ""),
        ("Hosts", _names(finding.hosts, numbers)),
        ("Bears on", text(", ".join(finding.controls))),
    ]
    listed = "".join(f"<div><dt>{label}</dt><dd>{fact}</dd></div>" for label, fact in facts if fact)
    return (
        f'<article id="f{number}" class="finding {CLASSES[finding.severity]}">\n'
        f'<h3><span class="s">{finding.level}</span> <code>{text(finding.id)}</code></h3>\n'
        f'<p class="said">{text(finding.message)}</p>\n<p><b>Fix:</b> {text(finding.remedy)}</p>\n'
        f"{f'<dl>{listed}</dl>' if listed else ''}\n</article>\n"
    )


def _names(hosts: Sequence[str], numbers: Mapping[str, int]) -> str:
    """List hosts, each leading to its row, and the later ones of many folded away."""
    links = [
        f'<a href="#h{numbers[name]}">{text(name)}</a>' if name in numbers else text(name)
        for name in hosts[:_MOST_NAMED]
    ]
    if len(links) <= _NAMED:
        return ", ".join(links)
    more = f", and {len(hosts) - _MOST_NAMED:,} more" if len(hosts) > _MOST_NAMED else ""
    return (
        f"{', '.join(links[:_NAMED])} <details><summary>and {len(hosts) - _NAMED:,} more</summary>"
        f"{', '.join(links[_NAMED:])}{more}</details>"
    )


def _coverage(fleet: Fleet) -> str:
    known = fleet.coverage
    rows = (
        (known.measured, "measured now", "by one usable source or more"),
        (known.by_two, "by two sources or more", "CIS Controls v8 8.4 asks for at least two, where supported"),
        (known.by_three, "by three sources or more", "CIS Controls v7 6.1 asked for at least three"),
    )
    listed = "".join(
        f"<div><dt>{title}<small>{note}</small></dt><dd><b>{share(count, known.hosts)}</b>"
        f" {count:,} of {known.hosts:,}{_meter(count, known.hosts)}</dd></div>"
        for count, title, note in rows
    )
    unlisted = ""
    if fleet.unlisted:
        verb = "reports and is" if fleet.unlisted == 1 else "report and are"
        unlisted = f" Besides, {many(fleet.unlisted, 'host')} {verb} not in the inventory."
    return (
        '<section id="coverage">\n<h2>Coverage</h2>\n<p>The share of the hosts that should be measured and are, '
        f'by usable synchronized time sources.{unlisted}</p>\n<dl class="meters">{listed}</dl>\n</section>\n'
    )


def _meter(count: int, whole: int) -> str:
    width = 1000 * count / whole if whole else 0.0
    return (
        '<svg class="meter" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="rail" d="M0 0h1000v10H0z"/><path class="fill" d="M0 0h{width:.1f}v10H0z"/></svg>'
    )


_COUNTED = ("Hosts", "Critical", "Unknown", "Warning", "OK", "Order is certain beyond")


def _order(fleet: Fleet, terms: Terms) -> str:
    rows = "".join(_site_row(site, text(site.name or "no site"), terms) for site in fleet.sites)
    heads = "".join(f'<th scope="col" class="n">{title}</th>' for title in _COUNTED)
    return (
        '<section id="order">\n<h2>Order of events</h2>\n'
        f"<p>{_order_words(fleet.whole.ambiguity)} More than {span(terms.ambiguity_s)} is marked as too far.</p>\n"
        '<div class="box" tabindex="0" role="region" aria-label="Sites"><table class="sites">\n'
        "<caption>Per site: hosts by state, and how far apart two events must be to be ordered</caption>\n"
        f'<thead><tr><th scope="col">Site</th>{heads}<th scope="col">Worst pair</th></tr></thead>\n'
        f"<tbody>{rows}{_site_row(fleet.whole, 'Whole fleet', terms)}</tbody>\n</table></div>\n</section>\n"
    )


def _order_words(ambiguity: Ambiguity | None) -> str:
    if ambiguity is None:
        return "There are not two measured hosts whose events could be put in order."
    first, second = ambiguity.hosts
    return (
        f"Across the fleet, two events are in the order of their stamps for certain only when these are more than "
        f"<b>{span(ambiguity.within_s, rounding='up')}</b> apart: so far may <bdi>{text(first)}</bdi> and "
        f"<bdi>{text(second)}</bdi> disagree."
    )


def _site_row(site: Site, name: str, terms: Terms) -> str:
    cells = [
        f"{sum(site.hosts):,}",
        *(f"{site.hosts[severity]:,}" if site.hosts[severity] else "" for severity in WORST_FIRST),
    ]
    within, pair, mark = "", "", ""
    if site.ambiguity is not None:
        within = span(site.ambiguity.within_s, rounding="up")
        pair = " and ".join(f"<bdi>{breakable(host)}</bdi>" for host in site.ambiguity.hosts)
        if not site.ambiguity.within_s <= terms.ambiguity_s:
            mark, within = ' class="w"', f'{within} <span class="s">too far</span>'
    counted = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    counted += f'<td class="n"><span{mark}>{within or "&ndash;"}</span></td>'
    return f'<tr><th scope="row">{name}</th>{counted}<td>{pair}</td></tr>\n'


def _history(fleet: Fleet, tallies: Sequence[Tally], frame: Frame, period_s: float) -> str:
    opening = f'<section id="history">\n<h2>The last {span(period_s)}</h2>\n'
    if not tallies:
        return f"{opening}<p>Nothing was read of the past.</p>\n</section>\n"
    per = span(frame.span_ns / NS_PER_S)
    worst = max(tallies, key=lambda tally: (tally.hosts[Severity.CRITICAL], sum(tally.hosts[1:])))
    most = worst.hosts[Severity.CRITICAL]
    words, title = "No host was critical.", f"Hosts worse than ok over {span(period_s)}, none of them critical"
    if most:
        words = (
            f"The worst such span, from {moment(worst.begin_ns)}, had {most:,} critical, "
            f"{'though perhaps not all at one moment' if most > 1 else 'for a part of it or all'}."
        )
        title = f"Hosts worse than ok over {span(period_s)}, at most {most:,} of them critical within {per}"
    key = "".join(
        f'<li><i class="{name}"></i>{word}</li>'
        for name, word in (("c", "critical"), ("u", "unknown"), ("w", "warning"), ("n", "no point in that span"))
    )
    return (
        f"{opening}<p>How many hosts were worse than ok until {moment(fleet.now_ns)}, each counted at its worst of "
        f"every {per}. {words}</p>\n"
        f'<div class="tallies">{over_time(tallies, len(fleet.members), frame, title)}</div>\n'
        f'<ul class="key">{key}</ul>\n'
        "</section>\n"
    )


def _steps(fleet: Fleet, steps: Sequence[Alarm], period_s: float) -> str:
    """List what clocks were set in the period, the latest first."""
    opening = f'<section id="steps">\n<h2>Steps</h2>\n<p>Clocks that were set in the last {span(period_s)}'
    if not steps:
        return f"{opening}: none that an agent told of.</p>\n</section>\n"
    numbers = {one.name: number for number, one in enumerate(fleet.members)}
    listed = "".join(
        f"<li>{moment(step.since_ns)} {_names([step.host], numbers)}: {text(told_step(step))}</li>\n"
        for step in reversed(steps[-_MOST_STEPS:])
    )
    left = len(steps) - _MOST_STEPS
    more = f"<p>And {many(left, 'earlier step')}.</p>\n" if left > 0 else ""
    words = f"{many(len(steps), 'step')} on {many(len({step.host for step in steps}), 'host')}, the latest first"
    return f'{opening}: {words}.</p>\n<ul class="steps">\n{listed}</ul>\n{more}</section>\n'


def _method(fleet: Fleet, terms: Terms) -> str:
    return _part("fleet_method.html").format(
        silent_after=span(terms.silent_after_s), warning=span(terms.warning_s), example=_example(fleet)
    )


def _example(fleet: Fleet) -> str:
    """Show the arithmetic of order by the worst pair: how late the one can be at most, and how early the other."""
    if fleet.whole.ambiguity is None:
        return ""
    hosts = {one.name: one.host for one in fleet.members}
    behind, ahead = (hosts.get(name) for name in fleet.whole.ambiguity.hosts)
    if behind is None or ahead is None or behind.offset is None or ahead.offset is None:
        return ""
    latest_us = ceil(behind.offset.latest_s * 1e6 + growth_ns(fleet.now_ns - behind.last_ns) / 1000)
    earliest_us = floor(ahead.offset.earliest_s * 1e6 - growth_ns(fleet.now_ns - ahead.last_ns) / 1000)
    return (
        f"Of all hosts it is greatest for A = <bdi>{breakable(behind.name)}</bdi> and B = "
        f"<bdi>{breakable(ahead.name)}</bdi>, whose latest<sub>A</sub> of {_exact(latest_us)} less "
        f"earliest<sub>B</sub> of {_exact(earliest_us)} is {_exact(latest_us - earliest_us)}."
    )


def _exact(microseconds: int) -> str:
    return f"{microseconds / 1e6:,.6f} s".replace("-", "&minus;")


def _footer(fleet: Fleet, period_s: float, terms: Terms, source: str, version: str) -> str:
    inventory = "none: hosts that never reported are not known"
    if terms.inventory is not None:
        inventory = many(len(terms.inventory), "host")
    facts = (
        ("Made by", f"ntpaudit {text(version)}"),
        ("Read from", text(source)),
        ("As of", moment(fleet.now_ns)),
        ("Period", f"{span(period_s)}, from {moment(fleet.now_ns - round(period_s * NS_PER_S))}"),
        ("Silent after", span(terms.silent_after_s)),
        ("Warning tolerance", span(terms.warning_s)),
        ("Order too far beyond", span(terms.ambiguity_s)),
        ("Inventory", inventory),
    )
    listed = "".join(f"<div><dt>{label}</dt><dd>{fact}</dd></div>" for label, fact in facts)
    return f'<footer>\n<h2>How this was made</h2>\n<dl class="facts">{listed}</dl>\n</footer>\n'
