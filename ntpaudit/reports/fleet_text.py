"""A fleet as text for a terminal: summary, findings, hosts and sites; and the order of events on two hosts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from ntpaudit.core.fleet.missing import describe_coverage
from ntpaudit.core.fleet.model import Fleet, FleetFinding, HostStatus, Order, Site, max_error_s
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import format_duration, format_offset, format_utc, plural
from ntpaudit.formats.text import finding_lines, fix_lines
from ntpaudit.render.table_fit import fit
from ntpaudit.render.terminal import SEVERITY_COLOURS, Column, Paint, labelled, opening, page, painter, table
from ntpaudit.render.text_safety import short_name, short_words
from ntpaudit.reports.fleet_summary import flagged, sentence

PROSE_WIDTH = 120  # the longest line of prose: longer ones are hard to read
ROWS = 40  # the default number of hosts shown; hosts that are not ok are always shown
FINDINGS = 30  # the number of findings shown, the worst first
_ANY_WIDTH = 1 << 20

_Item = TypeVar("_Item")

# Columns that are dropped on a narrow terminal, in this order; findings stay as long as possible.
_DROPPED = ("daemon", "sources", "last seen", "at most", "site", "findings")
_SITES_DROPPED = ("ok", "hardest to order", "hosts", "warning", "unknown", "ordered beyond")


def render(
    fleet: Fleet,
    shown: Sequence[HostStatus] | None = None,
    *,
    is_flagged: bool = False,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Write a fleet as text, with the hosts `shown`, else the worst; for `width` None no ordinary name is cut."""
    paint, prose = painter(colour), min(width or PROSE_WIDTH, PROSE_WIDTH)
    chosen = first_rows(fleet.members) if shown is None else shown
    return page(
        opening(fleet.severity, sentence(fleet), paint, prose, short_words),
        [line for label, fact in _facts(fleet) for line in labelled(label, fact, prose, short_words)],
        _findings_lines(fleet.findings[:FINDINGS], paint, prose),
        [f"... and {plural(left, 'more finding')} (--format json has all)"]
        if (left := len(fleet.findings[FINDINGS:]))
        else (),
        _table(_HOSTS, chosen, paint, width, _DROPPED) if chosen else (),
        _rest(fleet.members, chosen, is_flagged=is_flagged),
        _table(_SITES, fleet.sites, paint, width, _SITES_DROPPED) if len(fleet.sites) > 1 else (),
    )


def _findings_lines(findings: Sequence[FleetFinding], paint: Paint, prose: int) -> Iterator[str]:
    """Write findings; a fix that several in a row share stands below the last of them."""
    for finding, following in zip_longest(findings, findings[1:]):
        is_last = following is None or following.remedy != finding.remedy
        yield from finding_lines(finding, paint, prose, short_words, fixed=is_last)


def render_absence(reason: str, remedy: str, *, width: int | None = None, colour: bool = False) -> str:
    """Write that the fleet could not be read, why, and the fix."""
    prose = min(width or PROSE_WIDTH, PROSE_WIDTH)
    indent = len(Severity.UNKNOWN.name) + 2
    fix = fix_lines(remedy, indent, prose, short_words) if remedy else []
    return page([*opening(Severity.UNKNOWN, reason, painter(colour), prose, short_words), *fix])


def first_rows(members: Sequence[HostStatus]) -> Sequence[HostStatus]:
    """Return every host that is not ok, and at least `ROWS` hosts."""
    return members[: max(len(flagged(members)), ROWS)]


def render_order(
    order: Order,
    estimates: Sequence[float],
    now_ns: int,
    severity: Severity,
    *,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Write how events on two hosts can be ordered at a time; `estimates` are their offsets in seconds."""
    prose = min(width or PROSE_WIDTH, PROSE_WIDTH)
    first, second = order.hosts
    clocks = (f"{name} is {format_offset(at_s)}" for name, at_s in zip(order.hosts, estimates, strict=True))
    corrected = f"more than {_up(order.corrected_within_s)} apart: correction by these offsets does not help"
    if order.corrected_within_s < order.within_s:
        corrected = (
            "if you add to the timestamps of a clock what it is behind, or subtract what it is ahead, "
            f"{_up(order.corrected_within_s)} is enough"
        )
    facts = [
        ("clocks", ", ".join(clocks)),
        ("stamps", _first_if(first, second, order.first_s)),
        ("", _first_if(second, first, order.second_s)),
        ("corrected", corrected),
        ("as of", _moment(now_ns)),
    ]
    limit = f"timestamps on {first} and {second} can order events more than {_up(order.within_s)} apart"
    return page(
        opening(severity, limit, painter(colour), prose, short_words),
        [line for label, fact in facts for line in labelled(label, fact, prose, short_words)],
    )


def _first_if(one: str, other: str, limit_s: float) -> str:
    if limit_s >= 0:
        return f"the event on {one} came first if the timestamp on {other} is more than {_up(limit_s)} later"
    least = format_duration(limit_s, rounding="down")
    return f"the event on {one} came first, even if the timestamp on {other} is up to {least} earlier"


def _up(seconds: float) -> str:
    return format_duration(seconds, rounding="up")


def _facts(fleet: Fleet) -> Iterator[tuple[str, str]]:
    if fleet.coverage.hosts:
        others = f"; {plural(fleet.unlisted, 'other')} report" if fleet.unlisted else ""
        yield "coverage", describe_coverage(fleet.coverage, is_listed=fleet.unlisted is not None) + others
    if (worst := fleet.whole.ambiguity) is not None:
        pair = f"worst pair: {' and '.join(map(short_name, worst.hosts))}"
        yield "ordering", f"timestamps can order events more than {_up(worst.within_s)} apart ({pair})"
    yield "as of", _moment(fleet.now_ns)


def _moment(now_ns: int) -> str:
    return f"{format_utc(now_ns)[:19].replace('T', ' ')} UTC"


def _rest(members: Sequence[HostStatus], shown: Sequence[HostStatus], *, is_flagged: bool) -> Iterator[str]:
    if len(members) > len(shown):
        counts = Counter(one.severity for one in members)
        counts.subtract(one.severity for one in shown)
        words = [f"{counts[severity]:,} more {severity.word}" for severity in reversed(Severity) if counts[severity]]
        how = f"--limit {len(members)}{' without --flagged' * is_flagged}"
        yield f"... and {', '.join(words)}; to list all {len(members):,}: {how}"


def _table(
    columns: Sequence[Column[_Item]], items: Sequence[_Item], paint: Paint, width: int | None, dropped: Sequence[str]
) -> Iterator[str]:
    if width is None:
        yield from table(columns, items, paint, _ANY_WIDTH)
        return
    fitting, above = fit(columns, items, width, dropped)
    title, *rows = table(fitting, items, paint, width)
    yield title
    for lines, row in zip(above, rows, strict=True):
        yield from lines
        yield row


def _offset(one: HostStatus) -> str:
    if one.current_offset is None:
        return ""
    size, _, word = format_offset(one.current_offset.estimate_s).rpartition(" ")
    return f"{size} {word:6}"


def _sources(one: HostStatus) -> str:
    if one.host is None or one.silent_s is not None:
        return ""
    false = one.host.falsetickers
    return f"{one.host.usable}{f', {false} false' if false else ''}"


def _daemon(one: HostStatus) -> str:
    """Name the time daemon, and what it follows."""
    daemon = one.host.daemon if one.host is not None and one.silent_s is None else None
    if daemon is None:
        return ""
    follows = short_name(daemon.follows or "")
    return ": ".join(filter(None, (short_name(daemon.name or ""), follows)))


def _seen(one: HostStatus) -> str:
    if one.seen_s is None:
        return f"> {format_duration(one.silent_s or 0.0)}" if one.is_expired else "never"
    return format_duration(max(1, round(one.seen_s)))


def _findings(one: HostStatus) -> str:
    """Name the worst finding and count the others: of the agent, of the fleet, then those accepted or of level low."""
    counted = [alarm.kind for alarm in one.alarms if alarm.severity > Severity.OK]
    accepted = [f"(accepted) {alarm.kind}" for alarm in one.alarms if alarm.is_accepted]
    low = [f"(low) {alarm.kind}" for alarm in one.alarms if alarm.severity <= Severity.OK and not alarm.is_accepted]
    names = [*counted, *one.suspected, *accepted, *low]
    return short_name(names[0]) + (f" +{len(names) - 1}" if names[1:] else "") if names else ""


_HOSTS: tuple[Column[HostStatus], ...] = (
    Column("host", lambda one: short_name(one.name)),
    Column("site", lambda one: short_name(one.site or "")),
    Column(
        "state",
        lambda one: one.severity.word if one.silent_s is None else "silent",
        colour=lambda one: SEVERITY_COLOURS[one.severity] if one.severity else None,
    ),
    Column("offset       ", _offset, is_number=True),
    Column("at most", lambda one: _up(max_error_s(one.current_offset)) if one.current_offset else "", is_number=True),
    Column("sources", _sources),
    Column("daemon", _daemon),
    Column("last seen", _seen, is_number=True),
    Column("findings", _findings, gives_way=True),
)


def _count_column(severity: Severity) -> Column[Site]:
    """Count the hosts of a severity; blank for 0, so that the others stand out."""
    return Column(severity.word, lambda site: str(site.hosts[severity] or ""), is_number=True)


_SITES: tuple[Column[Site], ...] = (
    Column("site", lambda site: short_name(site.name) if site.name is not None else "(none)"),
    Column("hosts", lambda site: str(sum(site.hosts)), is_number=True),
    *map(_count_column, (Severity.CRITICAL, Severity.UNKNOWN, Severity.WARNING, Severity.OK)),
    Column(
        "ordered beyond", lambda site: "" if site.ambiguity is None else _up(site.ambiguity.within_s), is_number=True
    ),
    Column(
        "hardest to order",
        lambda site: "" if site.ambiguity is None else " and ".join(map(short_name, site.ambiguity.hosts)),
    ),
)
