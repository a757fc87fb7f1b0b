"""A record for a person at a terminal: the headline, the sources as a table, the findings, the facts behind them.

Plain ASCII, and never wider than 100 columns. Colour, where wanted, is put on last and moves nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import ceil, log10
from textwrap import wrap
from typing import Any, Generic, NamedTuple, TypeVar

from ntpaudit.core.findings import Finding
from ntpaudit.core.fleet import FleetFinding
from ntpaudit.core.observation import Status
from ntpaudit.core.policy import Profile, Severity
from ntpaudit.core.record import Record, SourceRecord
from ntpaudit.core.wording import direction, plural, span
from ntpaudit.sinks.headline import headline
from ntpaudit.sinks.plain import short_words

_Item = TypeVar("_Item")

WIDTH, LEAST_WIDTH = 100, 40
_GAP = "  "
_LABEL_WIDTH = 10
_CUT = "~"

_NS = 1e-9
_UNITS = ((1.0, "s", 9), (1e-3, "ms", 6), (1e-6, "us", 3), (_NS, "ns", 0))
"""Units of an offset in the table, with the decimals that make a nanosecond. Larger ones would need too many digits."""

_RED, _GREEN, _YELLOW, _MAGENTA = 31, 32, 33, 35
SEVERITY_COLOURS = {
    Severity.OK: _GREEN,
    Severity.WARNING: _YELLOW,
    Severity.UNKNOWN: _MAGENTA,
    Severity.CRITICAL: _RED,
}
_STATUS_COLOURS: dict[Status, int] = {
    "falseticker": _RED,
    "distant": _YELLOW,
    "rejected": _YELLOW,
    "unreachable": _YELLOW,
    "backed-off": _YELLOW,
}

Paint = Callable[[str, int | None], str]
"""Colour a text, or leave it as it is."""


def render(record: Record, *, width: int | None = None, colour: bool = False) -> str:
    """Write the record for a person to read, in lines of `width` columns, if that is less than a page."""
    paint, width = painter(colour), fitting(width)
    return page(
        opening(record.severity, headline(record), paint, width),
        source_table(record.sources, paint, width),
        [line for finding in record.findings for line in finding_lines(finding, paint, width)],
        [line for label, fact in facts(record) for line in labelled(label, fact, width)],
    )


def fitting(width: int | None) -> int:
    """Return how wide a page is where there is that much room, None for any: LEAST_WIDTH to WIDTH columns."""
    return WIDTH if width is None else max(LEAST_WIDTH, min(width, WIDTH))


def page(*blocks: Iterable[str]) -> str:
    """Put blocks of lines one below the other, an empty line between them; an empty block leaves no trace."""
    return "\n\n".join(filter(None, ("\n".join(block) for block in blocks))) + "\n"


def painter(colour: bool) -> Paint:
    """Return what colours a text, or leaves it as it is."""
    return _painted if colour else _unpainted


def opening(
    severity: Severity, sentence: str, paint: Paint, width: int = WIDTH, write: Callable[[str], str] | None = None
) -> list[str]:
    """Write how bad it is, and beside it a sentence; `write` as for `labelled`."""
    word = severity.name
    first, *others = _wrapped(sentence, word + _GAP, " " * len(word + _GAP), width, write)
    return [paint(word, SEVERITY_COLOURS[severity]) + first[len(word) :], *others]


class Column(NamedTuple, Generic[_Item]):
    """A column of a table. Where lines are too long, `spare` ones are left out and then those cut that give way.

    One that `is_name` is cut last, in the middle, and never so far that two things look alike; before it is cut to less
    than `_ENOUGH`, the columns that are `spare_for_names` are left out.
    """

    title: str
    cell: Callable[[_Item], str]
    is_number: bool = False
    gives_way: bool = False
    spare: bool = False
    colour: Callable[[_Item], int | None] | None = None
    is_name: bool = False
    spare_for_names: bool = False


_ENOUGH = 24
"""Characters of a name that most servers have, with their port."""


def table(columns: Sequence[Column[_Item]], items: Sequence[_Item], paint: Paint, width: int = WIDTH) -> Iterator[str]:
    """Lay things out in columns that each say something, none of it wider than the page, if that can be."""
    filled = [(column, [column.cell(item) for item in items]) for column in columns]
    filled = [(column, cells) for column, cells in filled if any(cells)]
    widths = [max(len(column.title), *map(len, cells)) for column, cells in filled]
    for index in reversed([index for index, (column, _) in enumerate(filled) if column.spare]):
        if line_width(widths) > width:
            del filled[index], widths[index]
    for index in reversed([index for index, (column, _) in enumerate(filled) if column.spare_for_names]):
        least = [
            min(_ENOUGH, size) if column.is_name else min(_LEAST, size) if column.gives_way else size
            for size, (column, _) in zip(widths, filled, strict=True)
        ]
        if line_width(least) > width:
            del filled[index], widths[index]
    floors = [_least_width(column, cells) for column, cells in filled]
    for names in (False, True):
        chosen = [index for index, (column, _) in enumerate(filled) if column.gives_way and column.is_name == names]
        while line_width(widths) > width and (open_ := [index for index in chosen if widths[index] > floors[index]]):
            widths[max(open_, key=lambda index: widths[index])] -= 1
    laid = [_lay(column, cells, items, paint, room) for (column, cells), room in zip(filled, widths, strict=True)]
    return (_GAP.join(row).rstrip() for row in zip(*laid, strict=True))


_LEAST = 12
"""Characters of a reason that most have."""


def _least_width(column: Column[_Item], cells: Sequence[str]) -> int:
    """Return how far a column that gives way can be cut: names only as long as they stay apart."""
    if not column.is_name:
        return 1
    size = max(len(column.title), *map(len, cells))
    while size > len(column.title) and len({_cut_middle(cell, size - 1) for cell in cells}) == len(set(cells)):
        size -= 1
    return size


def _cut_end(text: str, width: int) -> str:
    """Leave the begin of a text."""
    return text if len(text) <= width else text[: width - len(_CUT)] + _CUT


def _cut_middle(name: str, width: int) -> str:
    """Leave the begin and the end of a name, which may be its port."""
    tail = (width - len(_CUT)) // 2
    return name if len(name) <= width else name[: width - tail - len(_CUT)] + _CUT + name[len(name) - tail :]


def _lay(
    column: Column[_Item], cells: Sequence[str], items: Sequence[_Item], paint: Paint, width: int
) -> Sequence[str]:
    """Pad or cut a column's title and its cells to its width, and colour these; numbers stand to the right."""
    cut = _cut_middle if column.is_name else _cut_end
    texts = [cut(text, width) for text in (column.title, *cells)]
    title, *fitted = (
        [text.rjust(width) for text in texts] if column.is_number else [text.ljust(width) for text in texts]
    )
    if (colour := column.colour) is not None:
        fitted = [paint(text, colour(item)) for text, item in zip(fitted, items, strict=True)]
    return [title, *fitted]


def source_table(sources: Sequence[SourceRecord], paint: Paint, width: int = WIDTH) -> Iterator[str]:
    """Lay the sources out."""
    return table(_COLUMNS, sources, paint, width)


def line_width(widths: Sequence[int]) -> int:
    """Return how wide a line of such columns is."""
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _address(source: SourceRecord) -> str:
    """Show which address was asked, where the name does not say it."""
    return "" if source.address is None or source.address in source.name else _ascii(source.address)


def _shown(source: SourceRecord) -> tuple[float, str] | None:
    """Return the offset as the table shows it: the value in seconds, and its text.

    It has three digits, or as many more as its error leaves sense: `37.2 s +/- 3 ms` would hide 40 ms.
    """
    if source.offset_s is None or source.earliest_s is None or source.latest_s is None:
        return None
    size, error_s = abs(source.offset_s), (source.latest_s - source.earliest_s) / 2
    scale, unit, most = next((entry for entry in _UNITS if size >= entry[0]), _UNITS[-1])
    finest = max(min(error_s, size / 100), _NS) / scale
    digits = f"{size / scale:.{min(max(0, ceil(-log10(finest))), most)}f}"
    shown_s = float(digits) * scale
    word = direction(source.offset_s)
    return (shown_s if source.offset_s > 0 else -shown_s), f"{digits} {unit} {word:6}"


def _offset(source: SourceRecord) -> str:
    """Show the offset, in words as everywhere."""
    shown = _shown(source)
    return "" if shown is None else shown[1]


def _error(source: SourceRecord) -> str:
    """Show how far the true offset can be from the one that is shown, whichever way is farther."""
    shown = _shown(source)
    if shown is None or source.earliest_s is None or source.latest_s is None:
        return ""
    return span(max(source.latest_s - shown[0], shown[0] - source.earliest_s), rounding="up")


def _reason(source: SourceRecord) -> str:
    """Show the reason where the status does not say as much."""
    return _ascii(source.reason) if source.reason and source.reason not in ("disagrees", "distant") else ""


_COLUMNS: tuple[Column[SourceRecord], ...] = (
    Column("source", lambda source: _ascii(source.name), gives_way=True, is_name=True),
    Column("address", _address, gives_way=True, spare=True),
    Column("status", lambda source: source.status, colour=lambda source: _STATUS_COLOURS.get(source.status)),
    Column("offset       ", _offset, is_number=True),
    Column("+/-", _error, is_number=True),
    Column(
        "delay",
        lambda source: "" if source.delay_s is None else span(source.delay_s),
        is_number=True,
        spare_for_names=True,
    ),
    Column(
        "st",
        lambda source: "" if source.stratum is None else str(source.stratum),
        is_number=True,
        spare_for_names=True,
    ),
    Column("reference", lambda source: _ascii(source.reference_id or ""), gives_way=True, spare=True),
    Column("reason", _reason, gives_way=True),
)


def finding_lines(
    finding: Finding | FleetFinding,
    paint: Paint,
    width: int = WIDTH,
    write: Callable[[str], str] | None = None,
    *,
    fixed: bool = True,
) -> list[str]:
    """Write a finding and, if `fixed`, how to mend it; `write` as for `labelled`."""
    first, *others = labelled(finding.level, f"{finding.id}: {finding.message}", width, write)
    level = paint(finding.level, SEVERITY_COLOURS[finding.severity] if finding.severity else None)
    fix = fix_lines(finding.remedy, _LABEL_WIDTH, width, write) if fixed else ()
    return [level + first[len(finding.level) :], *others, *fix]


def fix_lines(remedy: str, indent: int, width: int = WIDTH, write: Callable[[str], str] | None = None) -> list[str]:
    """Write what would mend something, so far to the right; `write` as for `labelled`."""
    return _wrapped(f"fix: {remedy}", " " * indent, " " * (indent + len("fix: ")), width, write)


def facts(record: Record) -> Iterator[tuple[str, str]]:
    """Say what else bears on the verdict."""
    yield "kernel", _kernel(record.kernel)
    yield "daemons", _daemons(record)
    yield "profile", _profile(record.profile)
    if record.offset is not None and record.offset.max_drift_ppm is not None:
        yield "assumed", f"the oscillator is off by at most {record.offset.max_drift_ppm:.3g} ppm (host.max_drift_ppm)"
    agreeing = [source for source in record.sources if source.status == "agreeing"]
    if any(source.leap in (1, 2) or source.stratum == 1 for source in agreeing):
        yield from _explained(agreeing)


def _kernel(kernel: Mapping[str, Any]) -> str:
    """Say what the kernel believes of its clock."""
    if not kernel["available"]:
        return f"could not be asked: {kernel['reason']}"
    state = "synchronised" if kernel["synchronised"] else "not synchronised"
    maxerror = span(kernel["maxerror_s"], rounding="up")
    return f"{state}, maximum error {maxerror}, frequency {kernel['frequency_ppm']:+.3f} ppm"


def _daemons(record: Record) -> str:
    """Name the time daemons, and say why there may be others."""
    seen = ", ".join(map(_daemon, record.daemons)) or "none seen"
    return seen if record.daemons_hidden is None else f"{seen}; {record.daemons_hidden}"


def _daemon(daemon: Mapping[str, Any]) -> str:
    """Name a time daemon, and say whether it disciplines the clock; records of earlier versions give no reason."""
    about = [f"pid {daemon['pid']}"] if daemon["pid"] else []
    if not daemon["disciplines"]:
        about.append(daemon.get("reason") or "leaves the clock alone")
    return f"{daemon['name']} ({', '.join(about)})"


def _profile(profile: Profile) -> str:
    """Say what the clock is held against, and how."""
    judged_on = "by estimate" if profile.judged_on == "offset" else "in the worst case"
    warning, critical = span(profile.warning_s), span(profile.critical_s)
    return f"{profile.name}: warning above {warning} {judged_on}, critical above {critical} for certain"


def _explained(agreeing: Sequence[SourceRecord]) -> Iterator[tuple[str, str]]:
    """Explain announced leap seconds and the names of reference clocks, in ntplib's words."""
    from ntplib import NTP, leap_to_text

    for leap in (1, 2):
        if count := sum(source.leap == leap for source in agreeing):
            yield "leap", f"{count} of {plural(len(agreeing), 'agreeing server')} announced: {leap_to_text(leap)}"
    clocks = dict.fromkeys(source.reference_id or "" for source in agreeing if source.stratum == 1)
    names = {clock: NTP.REF_ID_TABLE.get(clock.ljust(4, "\0")) for clock in clocks}
    if known := [f"{clock} is {name}" for clock, name in names.items() if name]:
        yield "reference", "; ".join(known)


def labelled(label: str, text: str, width: int = WIDTH, write: Callable[[str], str] | None = None) -> list[str]:
    """Write a label, and beside it a text in as many lines as it takes; `write` makes it fit for a line: ASCII."""
    return _wrapped(text, label.ljust(_LABEL_WIDTH), " " * _LABEL_WIDTH, width, write)


def _wrapped(
    text: str, first: str, then: str, width: int = WIDTH, write: Callable[[str], str] | None = None
) -> list[str]:
    """Break a text into lines of the page's width that begin as told."""
    written = (write or _ascii)(text)
    return wrap(written, width, initial_indent=first, subsequent_indent=then, break_on_hyphens=False)


def _ascii(text: str) -> str:
    """Write what is not ASCII as escapes: a terminal may be set to anything."""
    return short_words(text).encode("ascii", "backslashreplace").decode("ascii")


def _painted(text: str, colour: int | None) -> str:
    """Colour a text; one without a colour stays as it is."""
    return text if colour is None else f"\x1b[{colour}m{text}\x1b[0m"


def _unpainted(text: str, colour: int | None) -> str:
    """Leave a text as it is."""
    return text
