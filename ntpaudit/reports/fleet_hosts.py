"""The hosts on the fleet's page: the worst by name, where all clocks stand, the table of all, the worst's courses."""

from collections.abc import Mapping, Sequence

from ntpaudit.core.fleet import STEP_KINDS, Alarm, Bucket, Fleet, FleetFinding, Member, Offset, Terms
from ntpaudit.core.ntptime import NS_PER_S, format_utc
from ntpaudit.core.policy import Severity
from ntpaudit.core.wording import direction, plural, span
from ntpaudit.reports.fleet_figures import (
    CLASSES,
    Course,
    Frame,
    Jump,
    Scale,
    band,
    counted,
    draw_course,
    jumps,
    spread,
)
from ntpaudit.reports.fleet_summary import flagged
from ntpaudit.reports.markup import breakable, many, text

_OLD_S = 2 * 3600.0
"""A measurement older than that is told of: agents ask hourly at the least, and carry the offset on in between."""

_ROWS = 50
"""Of a table's body, as the style sheet and the script count them too."""

_FEW = 60
"""So many hosts without a fault are listed openly."""


MANY = 200
"""From so many hosts on a browser lays out only those in sight; fewer cost it nothing."""

_NAMED = 5
"""So many of the worst hosts are named at the top."""

_PRESENT = frozenset({"offset-out", "not-demonstrable", "tz-or-rtc-fault"})
"""Findings whose size is the offset, which stands in the row as it is now."""

_JUMPS_TOLD = 3


def name_worst(fleet: Fleet) -> str:
    """Name the worst critical hosts, each leading to its row, and in short some whose clock nobody knows."""
    numbered = list(enumerate(fleet.members))
    critical = [entry for entry in numbered if entry[1].severity is Severity.CRITICAL]
    unknown = [entry for entry in numbered if entry[1].severity is Severity.UNKNOWN]
    listed = "".join(_worst(number, one, fleet.now_ns) for number, one in critical[:_NAMED])
    if len(critical) > _NAMED:
        listed += f'<li><a href="#hosts">and {len(critical) - _NAMED:,} more that are critical</a></li>\n'
    names = ", ".join(f"{_link(number, one)} ({_unknown_words(one)})" for number, one in unknown[:_NAMED])
    if len(unknown) > _NAMED:
        names += f", and {len(unknown) - _NAMED:,} more"
    return (f'<ul class="worst" aria-label="Worst hosts">\n{listed}</ul>\n' if listed else "") + (
        f'<p class="dark">Nobody knows the clock{"s" if unknown[1:] else ""} of {names}.</p>\n' if names else ""
    )


def _worst(number: int, one: Member, now_ns: int) -> str:
    offset = one.host.offset if one.host else None
    way = "" if offset is None else f' class="{direction(offset.estimate_s)}"'
    place = f" <small>{text(one.site)}</small>" if one.site else ""
    first = f" {_alarm(one.alarms[0], now_ns)}" if one.alarms else ""
    more = f" <small>and {plural(len(one.alarms) - 1, 'more finding')}</small>" if one.alarms[1:] else ""
    cells = (f"{_link(number, one)}{place}", f" {_offset_words(one)}", f"{first}{more}")
    return f"<li{way}>{''.join(f'<span>{cell}</span>' for cell in cells)}</li>\n"


def _link(number: int, one: Member) -> str:
    return f'<a href="#h{number}"><bdi>{breakable(one.name)}</bdi></a>'


def _unknown_words(one: Member) -> str:
    if one.host is None:
        return "no point"
    return "not measured" if one.silent_s is None else f"silent for {span(one.silent_s)}"


def list_hosts(fleet: Fleet, scale: Scale, terms: Terms, drawn: Mapping[str, int]) -> str:
    """Write the section of all hosts; `drawn` are those whose course the page shows, by the number of its figure."""
    named = _named_in(fleet)
    rows = [
        _row(number, one, fleet.now_ns, scale, drawn, named.get(one.name, {}))
        for number, one in enumerate(fleet.members)
    ]
    worse = len(flagged(fleet.members))  # they come first
    calm, large = len(rows) - worse, " class=many" if len(rows) >= MANY else ""
    rest = ""
    if calm:
        others = "other " if any(one.severity is Severity.OK for one in fleet.members[:worse]) else ""
        title = many(calm, f"{others}host") + (" is ok" if calm == 1 else " are ok")
        rest = (
            f'<details class="rest"{" open" if calm <= _FEW else ""}><summary>{title}</summary>\n'
            f"{_table('Hosts that are ok', rows[worse:])}</details>\n"
        )
    table = _table("Hosts that are not ok, or that the fleet suspects, worst first", rows[:worse])
    low, high = (f"{100 * scale.share(value):.2f}%" for value in (-terms.warning_s, terms.warning_s))
    return (
        f'<section id="hosts"{large} style="--low:{low};--high:{high}">\n<h2>Hosts</h2>\n{_spread(fleet, scale, terms)}'
        '<p class="controls" hidden><label>Show only <input type="search" placeholder="a host, a site, a finding …" '
        f'autocomplete="off" spellcheck="false"></label> <label class="order">Sort by <select>{_orders()}</select>'
        '</label> <output aria-live="polite"></output></p>\n'
        f"{table if worse else '<p class=calm>Every host is ok.</p>'}\n{rest}</section>\n"
    )


def _named_in(fleet: Fleet) -> dict[str, dict[int, FleetFinding]]:
    """Return of each host the findings of the fleet that name it, by their numbers."""
    named: dict[str, dict[int, FleetFinding]] = {}
    for number, finding in enumerate(fleet.findings):
        for host in finding.hosts:
            named.setdefault(host, {})[number] = finding
    return named


def _searched(named: Mapping[int, FleetFinding]) -> str:
    """Write the words by which a host is found though they do not stand in its row."""
    words = dict.fromkeys(word for one in named.values() for word in (one.id, one.source) if word is not None)
    return f' data-f="{text(" ".join(words))}"' if words else ""


def _orders() -> str:
    """Write what hosts can be sorted by: a column's number, and whether its largest come first."""
    return "".join(f'<option value="{order}">{words}</option>' for order, words in _ORDERS)


_ORDERS = (
    ("0", "worst first"),
    ("1", "host"),
    ("2", "site"),
    ("3d", "offset, most behind first"),
    ("3", "offset, most ahead first"),
    ("5d", "never more than, largest first"),
    ("6", "sources, fewest first"),
    ("7d", "last seen, longest ago first"),
    ("8", "findings"),
)


def _spread(fleet: Fleet, scale: Scale, terms: Terms) -> str:
    estimates = [
        one.host.offset.estimate_s for one in fleet.members if one.host and one.host.offset and one.silent_s is None
    ]
    if not estimates:
        return ""
    behind = sum(estimate_s > terms.warning_s for estimate_s in estimates)
    ahead = sum(estimate_s < -terms.warning_s for estimate_s in estimates)
    inside = len(estimates) - behind - ahead
    bins, warning = counted(estimates, scale), span(terms.warning_s)
    words = f"{inside:,} of {len(estimates):,} clocks are estimated within {warning} of the true time"
    return (
        f'<figure class="spread">\n{spread(bins, scale, terms.warning_s)}'
        f"<figcaption>{words}, {behind:,} further behind, {ahead:,} further ahead. The higher a bar, the more "
        f"clocks stand there: {max(bins):,} at the highest. Both scales are logarithmic, to show microseconds beside "
        f"hours and one clock beside thousands. Dashed: the warning tolerance, {warning}.</figcaption>\n</figure>\n"
    )


_COLUMNS = ("State", "Host", "Site", "Offset", "", "Never more than", "Sources", "Last seen", "Findings")


def _table(caption: str, rows: Sequence[str]) -> str:
    """Write a table whose rows stand in bodies of equal length, so that a browser lays out only those in sight."""
    parts = [rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS)]
    bodies = [
        f"<tbody{'' if len(part) == _ROWS else f' style=--rows:{len(part)}'}>{''.join(part)}</tbody>\n"
        for part in parts
    ]
    heads = "".join(
        f'<th scope="col">{title}</th>'
        if title
        else '<th scope="col" class="band"><span>ahead</span> <span>behind</span></th>'
        for title in _COLUMNS
    )
    return (
        f'<table class="hosts">\n<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n'
        f"{''.join(bodies)}</table>\n"
    )


def _row(
    number: int, member: Member, now_ns: int, scale: Scale, drawn: Mapping[str, int], named: Mapping[int, FleetFinding]
) -> str:
    """Write a host's row. A cell carries the number that it is sorted by; a missing one sorts last.

    It is also found by the findings that it is `named` in.
    """
    host, offset = member.host, member.host.offset if member.host else None
    name = breakable(member.name)
    if member.name in drawn:
        name = f'<a href="#c{drawn[member.name]}">{name}</a>'
    cells = [
        f"<td><span class=s>{member.severity.word}</span>{_verdict(member)}",
        f"<th scope=row>{name}",
        f"<td>{_site_words(member)}",
        f"<td{_sorted_by(offset and offset.estimate_s)}>{_offset_words(member)}",
        f"<td class=band>{band(offset, scale) if offset else ''}",
        f"<td{_sorted_by(offset and _bound_s(offset))}>{_bound_words(offset, member)}",
        f"<td{_sorted_by(host and host.usable)}>{_source_words(member)}",
        f"<td{_sorted_by(_seen_s(member, now_ns))}>{_seen_words(member, now_ns)}",
        f"<td>{_alarm_words(member, now_ns, named)}",
    ]
    way = "" if offset is None else f" {direction(offset.estimate_s)}"
    silent = "" if member.silent_s is None else " silent"
    return f'<tr id=h{number} class="{CLASSES[member.severity]}{way}{silent}"{_searched(named)}>{"".join(cells)}</tr>\n'


def _sorted_by(value: float | None) -> str:
    return "" if value is None else f" data-v={value:.4g}"


def _verdict(member: Member) -> str:
    if member.severity is Severity.OK and member.host and member.host.verdict == "within":
        return ""
    if member.silent_s is not None:
        return "<small>silent</small>"
    match member.host.verdict if member.host else "unmeasured":
        case "beyond":
            return "<small>wrong for certain</small>"
        case "unproven":
            return "<small>cannot be proven</small>"
        case "within":
            return "<small>within tolerance</small>"
        case _:
            return "<small>not measured</small>"


def _site_words(member: Member) -> str:
    env = member.host.env if member.host else None
    return (text(member.site) if member.site else "&ndash;") + (f" <small>{text(env)}</small>" if env else "")


def _offset_words(member: Member) -> str:
    offset = member.host.offset if member.host else None
    if offset is None:
        return "&ndash;" if member.silent_s is not None else "not measured"
    way = direction(offset.estimate_s)
    was = "was " if member.silent_s is not None else ""
    return f"{was}<b>{span(offset.estimate_s)}</b> <span class=way>{way}</span>"


def _bound_words(offset: Offset | None, member: Member) -> str:
    was = "was " if member.silent_s is not None else ""
    return "&ndash;" if offset is None else f"{was}{span(_bound_s(offset), rounding='up')}"


def _source_words(member: Member) -> str:
    if member.host is None:
        return "&ndash;"
    false = member.host.falsetickers
    disagreeing = f"<small>{false} false</small>" if false else ""
    return f"{member.host.usable}{disagreeing}"


def _seen_s(member: Member, now_ns: int) -> float | None:
    if member.host is None or member.seen_s is not None:
        return member.seen_s
    return max(0.0, (now_ns - member.host.last_ns) / NS_PER_S)


def _seen_words(member: Member, now_ns: int) -> str:
    seen_s = _seen_s(member, now_ns)
    if seen_s is None or member.host is None:
        return "no point"
    age_s = member.host.age_s
    measured = "" if age_s is None or age_s <= _OLD_S else f"<small>measured {span(age_s)} before</small>"
    return f"{span(seen_s)} ago{measured}" if seen_s >= 1.0 else f"now{measured}"


def _alarm_words(member: Member, now_ns: int, named: Mapping[int, FleetFinding]) -> str:
    """Say what its agent found, and of what the fleet suspects it, with a link to that finding."""
    told = [_alarm(alarm, now_ns) for alarm in member.alarms]
    for kind in member.suspected:
        place = next((f"f{number}" for number, one in named.items() if one.id == kind), "findings")
        told.append(f'<code><a href="#{place}">{text(kind)}</a></code> <small>of the fleet</small>')
    if told:
        return "".join(f"<div>{words}</div>" for words in told)
    listed = member.host.findings if member.host else 0
    return f"{listed} listed" if listed else ""


def _alarm(alarm: Alarm, now_ns: int) -> str:
    """Say what was found and since when; a size is that of the moment of raising, which only a step keeps."""
    passed = span(max(0, now_ns - alarm.since_ns) / NS_PER_S)
    if alarm.kind in STEP_KINDS:
        words = f"{passed} ago" if alarm.value_s is None else f"{span(alarm.value_s)}, {passed} ago"
    elif alarm.value_s is None or alarm.kind in _PRESENT:
        words = f"for {passed}"
    else:
        words = f"{span(alarm.value_s)} when raised, {passed} ago"
    low = "low, " if alarm.severity is Severity.OK else ""
    return f"<code{' class=low' if low else ''}>{text(alarm.kind)}</code> <small>{low}{words}</small>"


def _bound_s(offset: Offset) -> float:
    return max(abs(offset.earliest_s), abs(offset.latest_s))


def draw_courses(
    worst: Sequence[Member],
    total: int,
    courses: Mapping[str, tuple[Bucket, ...]],
    steps: Sequence[Alarm],
    frame: Frame,
    terms: Terms,
) -> str:
    """Write the section of how the worst hosts, of so many in all, fared over the period."""
    if not worst:
        return ""
    jumped: dict[str, list[Jump]] = {one.name: [] for one in worst}
    for step in steps:
        if step.host in jumped:  # set forward, a clock's offset falls
            moved_s = None if step.value_s is None else -step.value_s
            jumped[step.host].append(Jump(step.since_ns, moved_s, True))
    cards = "".join(
        _card(number, one, Course(courses[one.name], jumped[one.name], terms.warning_s), frame)
        for number, one in enumerate(worst)
    )
    which = "all" if len(worst) == total > 1 else "the worst"
    return (
        f'<section id="courses">\n<h2>Courses of {which} {plural(len(worst), "host")}</h2>\n'
        f"<p>The period is divided into spans of {span(frame.span_ns / NS_PER_S)}. The band holds all that the true "
        "offset can have been in a span, blue where that is behind, purple where it is ahead. The line is only the "
        "mean of each span: a peak that is shorter shows in the band. A broken upright line is a jump: the clock was "
        "set. Grey is where nothing was measured, dashed the warning tolerance. The strip below stands the higher the "
        "worse it was, and is empty where there is no record.</p>\n"
        f'<div class="cards">{cards}</div>\n</section>\n'
    )


def _card(number: int, member: Member, known: Course, frame: Frame) -> str:
    words = _course_words(known, frame)
    figure = draw_course(known, frame, f"{member.name}: {words}", f"w{number}")
    return (
        f'<article id="c{number}" class="{CLASSES[member.severity]}">\n<h3><bdi>{text(member.name)}</bdi> '
        f'<span class="s">{member.severity.word}</span></h3>\n{figure}\n<p>{words}</p>\n</article>\n'
    )


def told_step(step: Alarm) -> str:
    """Say which way a clock was set, and how far."""
    way = "set back" if step.kind == "step-back" else "set forward"
    return way if step.value_s is None else f"{way} by {span(step.value_s)}"


def _course_words(course: Course, frame: Frame) -> str:
    """Say in words what the picture of a course shows: first the extremes, which the means would hide."""
    known = [bucket.offset for bucket in course.buckets if bucket.offset is not None]
    if not known:
        return "Nothing was measured."
    least, most = min(o.estimate_s for o in known), max(o.estimate_s for o in known)
    whole = max(len(course.buckets), round((frame.end_ns - frame.begin_ns) / frame.span_ns))
    facts = [
        _extremes(min(o.earliest_s for o in known), max(o.latest_s for o in known)),
        f"means of {span(frame.span_ns / NS_PER_S)} from {span(least)} {direction(least)} to {span(most)} "
        f"{direction(most)}",
    ]
    moved = jumps(course, frame.span_ns)
    facts += [_jump_words(jump, frame) for jump in moved[:_JUMPS_TOLD]]
    facts += [f"{plural(len(moved) - _JUMPS_TOLD, 'more jump')}"] if len(moved) > _JUMPS_TOLD else []
    for lacking, words in (
        (len(course.buckets) - len(known), "not measured"),
        (whole - len(course.buckets), "no point"),
    ):
        facts += [f"{words} for {span(lacking * frame.span_ns / NS_PER_S)}"] if lacking > 0 else []
    return f"{'; '.join(facts)}."


def _extremes(earliest_s: float, latest_s: float) -> str:
    """Say between what the true offset was, each end rounded outwards."""
    if earliest_s > 0:
        return f"Between {span(earliest_s, rounding='down')} and {span(latest_s, rounding='up')} behind at worst"
    if latest_s < 0:
        return f"Between {span(latest_s, rounding='down')} and {span(earliest_s, rounding='up')} ahead at worst"
    return f"Within {span(earliest_s, rounding='up')} ahead and {span(latest_s, rounding='up')} behind at worst"


def _jump_words(jump: Jump, frame: Frame) -> str:
    """Say when a clock was set, which way and how far: set back, its offset grows."""
    stamp = format_utc(jump.time_ns)[5 : 19 if jump.is_told else 16].replace("T", " ")
    at = stamp if frame.is_long() else stamp[6:]
    if jump.moved_s is None:
        return f"set at {at}"
    way = "back" if jump.moved_s > 0 else "forward"
    if jump.is_told:
        return f"set {way} by {span(jump.moved_s)} at {at}"
    return f"set {way} at about {at}, by {span(jump.moved_s, rounding='down')} or more"
