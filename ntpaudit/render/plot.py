"""Offsets over time as a picture of characters: the estimate as a line, its bound as a band about it."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce
from itertools import groupby
from math import ceil, floor, log10
from typing import NamedTuple

from ntpaudit.core.policy import Severity
from ntpaudit.core.units import HOUR_S, NS_PER_S, UNITS, direction, format_duration, format_offset, format_utc, plural
from ntpaudit.render.axis import Axis, usual_size
from ntpaudit.render.terminal import SEVERITY_COLOURS, Paint
from ntpaudit.render.text_safety import decimal
from ntpaudit.store.queries import Audit, Hour

LEAST_WIDTH = 40
LABEL_WIDTH = 16  # of the numbers beside the axis, such as `12.5 days behind`
_GREY = 90
_BINS = 2
_DOTS = 4  # a Braille character has two columns of four dots
_BRAILLE = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_TIME_STEPS_S = (
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3600 * hours for hours in (1, 2, 3, 6, 12)),
    *(86_400 * days for days in (1, 2, 7, 14, 28, 56, 112, 364)),
)


class Glyphs(NamedTuple):
    """The characters to draw with. `line` is None where the estimate is drawn in Braille dots."""

    line: str | None
    band: str
    zero: str
    axis: str
    tick: str
    corner: str
    floor: str
    mark: str
    forward: str
    back: str


UNICODE = Glyphs(None, "░", "┈", "│", "┤", "└", "─", "┴", "▲", "▼")
ASCII = Glyphs("*", ":", "-", "|", "+", "+", "-", "+", "^", "v")


class Point(NamedTuple):
    """The clock from `begin_ns` to `end_ns`: extremes of estimate and interval in seconds, None if not measured."""

    begin_ns: int
    end_ns: int
    severity: Severity
    least_s: float | None
    most_s: float | None
    earliest_s: float | None
    latest_s: float | None


class Step(NamedTuple):
    """The clock was set at `time_ns` by `size_s`; positive is forward."""

    time_ns: int
    size_s: float


class Frame(NamedTuple):
    """What to draw: a period, columns and rows, and the time without a point that is a gap."""

    title: str
    begin_ns: int
    end_ns: int
    gap_ns: int
    columns: int
    rows: int
    glyphs: Glyphs


def point_of_audit(audit: Audit) -> Point:
    """Return an audit as a point."""
    return Point(
        audit.time_ns, audit.time_ns, audit.severity, audit.offset_s, audit.offset_s, audit.earliest_s, audit.latest_s
    )


def point_of_hour(hour: Hour) -> Point:
    """Return an hour as a point: its band is as wide as the largest bound leaves beside the largest estimate."""
    end_ns = hour.time_ns + HOUR_S * NS_PER_S
    least_s, most_s, bound_s = hour.least_offset_s, hour.most_offset_s, hour.bound_s
    if least_s is None or most_s is None or bound_s is None:
        return Point(hour.time_ns, end_ns, hour.severity, None, None, None, None)
    half_s = max(0.0, bound_s - max(abs(least_s), abs(most_s)))
    return Point(hour.time_ns, end_ns, hour.severity, least_s, most_s, least_s - half_s, most_s + half_s)


class Summary(NamedTuple):
    """All points together, and the gaps between them."""

    points: int = 0
    unmeasured: int = 0
    gaps: int = 0
    longest_gap_ns: int = 0
    all: Point | None = None


def draw(points: Iterable[Point], steps: Sequence[Step], frame: Frame, paint: Paint) -> str:
    """Draw points that come in the order of time; of a point outside the frame's span nothing is drawn."""
    bins, summary = _collect(points, frame)
    lines = [frame.title, ""]
    if measured := [point for point in bins if point is not None and point.most_s is not None]:
        scale = _choose_scale(measured, frame.rows)
        if scale.base_s:
            lines[-1] = f"{'0 is':>{LABEL_WIDTH}}  {decimal(abs(scale.base_s))} s {direction(scale.base_s)}"
        lines += _picture(bins, scale, frame, paint)
        ticks = _time_ticks(frame)
        lines += _marks(bins, steps, frame, ticks.keys())
        times = ""
        for column, label in ticks.items():
            times = times.ljust(column) + label
        lines += [f"{'UTC':>{LABEL_WIDTH}}  {times}", ""]
    lines += _words(summary, steps, frame)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _collect(points: Iterable[Point], frame: Frame) -> tuple[list[Point | None], Summary]:
    """Merge the points of each bin, two to a column, and bridge what is too short for a gap."""
    count = frame.columns * _BINS
    span_ns = max(1, frame.end_ns - frame.begin_ns)
    bins: list[Point | None] = [None] * count
    drawn, unmeasured, gaps_ns, last = 0, 0, [0], None
    for point in points:
        if point.end_ns < frame.begin_ns or point.begin_ns > frame.end_ns:
            continue
        drawn += 1
        unmeasured += point.most_s is None
        first = min(max(0, (point.begin_ns - frame.begin_ns) * count // span_ns), count - 1)
        final = min(((point.end_ns - frame.begin_ns) * count - 1) // span_ns, count - 1)
        for index in range(first, max(first, final) + 1):
            bins[index] = _merge(bins[index], point)
        if last is not None and (pause_ns := point.begin_ns - last.end_ns) > frame.gap_ns:
            gaps_ns.append(pause_ns)
        elif last is not None and pause_ns >= 0:
            _bridge(bins, first, last)
        last = point
    if last is not None and frame.end_ns - last.end_ns <= frame.gap_ns:
        _bridge(bins, count, last)
    return bins, Summary(drawn, unmeasured, len(gaps_ns) - 1, max(gaps_ns), reduce(_merge, filter(None, bins), None))


def _bridge(bins: list[Point | None], before: int, last: Point) -> None:
    """Fill the empty bins just before one with the point that came last: no gap, but a picture finer than the data."""
    index = min(before, len(bins)) - 1
    while index >= 0 and bins[index] is None:
        bins[index] = last
        index -= 1


def _merge(one: Point | None, other: Point) -> Point:
    if one is None:
        return other
    return Point(
        min(one.begin_ns, other.begin_ns),
        max(one.end_ns, other.end_ns),
        max(one.severity, other.severity),
        _least(one.least_s, other.least_s),
        _most(one.most_s, other.most_s),
        _least(one.earliest_s, other.earliest_s),
        _most(one.latest_s, other.latest_s),
    )


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _most(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


class _Scale(NamedTuple):
    """An axis with the labels of its values, zero first, which count from `base_s`."""

    axis: Axis
    rows: int
    ticks: list[tuple[float, str]]
    base_s: float = 0.0

    def dot(self, value_s: float) -> int:
        """Return the dot of a value, counted from the top."""
        dots = self.rows * _DOTS
        return min(dots - 1, floor((1 - self.axis.share(value_s)) * dots))

    def dots(self, low_s: float | None, high_s: float | None) -> range:
        """Return the dots of a range of values; none where nothing was measured."""
        return range(0) if low_s is None or high_s is None else range(self.dot(high_s), self.dot(low_s) + 1)


def _choose_scale(points: Sequence[Point], rows: int) -> _Scale:
    """Choose an axis on which the smallest and the largest of the points differ visibly from zero."""
    low = min(point.earliest_s or 0.0 for point in points)
    high = max(point.latest_s or 0.0 for point in points)
    usual = usual_size([max(abs(point.earliest_s or 0.0), abs(point.latest_s or 0.0)) for point in points])
    return _linear(low, high, rows) if usual is None else _symlog(low, high, 10.0 ** floor(log10(usual)), rows)


def _linear(low: float, high: float, rows: int) -> _Scale:
    """Return a linear axis, with zero on it unless that is far away: then its numbers count from something nearer."""
    reach = max(high - low, 1e-9)
    base_s = 0.0
    if -2 * reach <= low and high <= 2 * reach:
        low, high = min(low, 0.0), max(high, 0.0)
    else:
        power = 10.0 ** floor(log10(reach / 2))
        base_s = round((low + high) / 2 / power) * power
    margin = 0.04 * max(high - low, 1e-9)
    low, high = low - margin, high + margin
    largest = max(abs(low - base_s), abs(high - base_s))
    scale, unit = next((entry for entry in UNITS if largest >= 2 * entry[0]), UNITS[-1])
    rough = (high - low) / scale / max(2, rows // 3)
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.9)
    decimals = max(0, -floor(log10(step) + 1e-9))
    ticks = []
    for number in range(ceil((low - base_s) / scale / step), floor((high - base_s) / scale / step) + 1):
        size = f"{abs(number) * step:.{decimals}f} {unit}"
        way = direction(number) if base_s == 0 else "more" if number * base_s > 0 else "less"
        ticks.append((base_s + number * step * scale, _label(size, way) if number else "0"))
    return _Scale(Axis(low, high, None), rows, ticks, base_s)


def _label(size: str, way: str) -> str:
    text = f"{size} {way}"
    return text if len(text) <= LABEL_WIDTH else f"{'-' if way in ('ahead', 'less') else '+'}{size}"


def _symlog(low: float, high: float, linear_s: float, rows: int) -> _Scale:
    axis = Axis(min(low, 0.0), max(high, 0.0), linear_s, margin=0.04)
    ticks = [(0.0, "0")]
    for decade in range(ceil(log10(max(abs(low), abs(high)) / linear_s)) + 1):
        for value_s in (linear_s * 10.0**decade, -linear_s * 10.0**decade):
            if 0 < axis.share(value_s) < 1:
                ticks.append((value_s, _label(format_duration(value_s), direction(value_s))))
    return _Scale(axis, rows, ticks)


def _picture(bins: Sequence[Point | None], scale: _Scale, frame: Frame, paint: Paint) -> Iterator[str]:
    labels: dict[int, str] = {}
    for value_s, label in scale.ticks:  # none where another stands
        labels.setdefault(scale.dot(value_s) // _DOTS, label)
    glyphs, zero = frame.glyphs, None if scale.base_s else scale.dot(0.0) // _DOTS
    lines = [scale.dots(point.least_s, point.most_s) if point else range(0) for point in bins]
    bands = [scale.dots(point.earliest_s, point.latest_s) if point else range(0) for point in bins]
    for row in range(frame.rows):
        cells: list[tuple[str, int | None]] = []
        for column in range(frame.columns):
            pair = slice(column * _BINS, (column + 1) * _BINS)
            cell = _cell(row, lines[pair], glyphs)
            if cell is not None:
                worst = max((point.severity for point in bins[pair] if point is not None), default=Severity.OK)
                cells.append((cell, SEVERITY_COLOURS[worst]))
            elif any(_part(band, row) for band in bands[pair]):
                cells.append((glyphs.band, _GREY))
            else:
                cells.append((glyphs.zero, _GREY) if row == zero else (" ", None))
        drawn = (
            paint("".join(cell for cell, _ in run), colour) for colour, run in groupby(cells, lambda cell: cell[1])
        )
        label = labels.get(row, "")
        yield f"{label:>{LABEL_WIDTH}} {glyphs.tick if label else glyphs.axis}{''.join(drawn)}"


def _part(dots: range, row: int) -> range:
    """Return the dots that are in a row."""
    return range(max(dots.start, row * _DOTS), min(dots.stop, (row + 1) * _DOTS))


def _cell(row: int, lines: Sequence[range], glyphs: Glyphs) -> str | None:
    """Return the character of the line in a cell; None where it does not pass."""
    pattern = sum(_BRAILLE[side][dot % _DOTS] for side, line in enumerate(lines) for dot in _part(line, row))
    if not pattern:
        return None
    return chr(0x2800 + pattern) if glyphs.line is None else glyphs.line


def _marks(bins: Sequence[Point | None], steps: Sequence[Step], frame: Frame, ticks: Collection[int]) -> Iterator[str]:
    """Draw the floor, and below it where the clock was set, where nothing was measured, and where nothing was kept."""
    glyphs = frame.glyphs
    signs = [" "] * frame.columns
    for column in range(frame.columns):
        pair = bins[column * _BINS : (column + 1) * _BINS]
        if all(point is None for point in pair):
            signs[column] = "x"
        elif all(point is None or point.most_s is None for point in pair):
            signs[column] = "?"
    for step in steps:
        if (place := _column(step.time_ns, frame)) is not None:
            signs[place] = glyphs.forward if step.size_s > 0 else glyphs.back
    ground = "".join(glyphs.mark if column in ticks else glyphs.floor for column in range(frame.columns))
    yield f"{'':{LABEL_WIDTH}} {glyphs.corner}{ground}"
    if any(sign != " " for sign in signs):
        yield f"{'':{LABEL_WIDTH}}  {''.join(signs)}"


def _column(time_ns: int, frame: Frame) -> int | None:
    column = (time_ns - frame.begin_ns) * frame.columns // max(1, frame.end_ns - frame.begin_ns)
    return min(column, frame.columns - 1) if 0 <= column <= frame.columns else None


def _time_ticks(frame: Frame) -> dict[int, str]:
    span_s = (frame.end_ns - frame.begin_ns) / NS_PER_S
    most = max(1, frame.columns // 12)
    step_ns = next((step for step in _TIME_STEPS_S if span_s / step <= most), _TIME_STEPS_S[-1]) * NS_PER_S
    ticks: dict[int, str] = {}
    free = 0
    for time_ns in range(-(-frame.begin_ns // step_ns) * step_ns, frame.end_ns + 1, step_ns):
        column = _column(time_ns, frame)
        stamp = format_utc(time_ns)
        label = stamp[:10] if time_ns % (86_400 * NS_PER_S) == 0 else stamp[11:16]
        if column is not None and column >= free and column + len(label) <= frame.columns:
            ticks[column] = label
            free = column + len(label) + 2
    return ticks


def _words(summary: Summary, steps: Sequence[Step], frame: Frame) -> Iterator[str]:
    whole, glyphs = summary.all, frame.glyphs
    if whole is None or whole.least_s is None or whole.most_s is None:
        yield f"{plural(summary.points, 'point')}, none of them measured"
        return
    bound_s = max(abs(whole.earliest_s or 0.0), abs(whole.latest_s or 0.0))
    reach = f"{format_offset(whole.least_s)} to {format_offset(whole.most_s)}"
    most = format_duration(bound_s, rounding="up")
    yield f"{plural(summary.points, 'point')}: {reach}, maximum error {most}"
    line = "dots" if glyphs.line is None else glyphs.line
    yield f"{line}: estimate   {glyphs.band}: interval"
    if steps:
        largest = max(steps, key=lambda step: abs(step.size_s))
        way = "forward" if largest.size_s > 0 else "back"
        size = f"largest {format_duration(largest.size_s)} {way}"
        yield f"{glyphs.forward} {glyphs.back} clock set forward, back: {plural(len(steps), 'time')}, {size}"
    if summary.unmeasured:
        yield f"? nothing measured: {plural(summary.unmeasured, 'point')}"
    if summary.gaps:
        longest = format_duration(summary.longest_gap_ns / NS_PER_S)
        yield f"x no record: {plural(summary.gaps, 'gap')}, longest {longest}"
