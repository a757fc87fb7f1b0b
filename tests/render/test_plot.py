"""The plot: every point is where it belongs, whatever the size, the span and the terminal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, format_duration
from ntpaudit.render.plot import ASCII, LABEL_WIDTH, UNICODE, Frame, Glyphs, Point, Step, draw, point_of_hour
from ntpaudit.render.terminal import painter
from ntpaudit.store.queries import Hour
from tests.records import NOW_NS

MINUTE_NS = 60 * NS_PER_S
PLAIN = painter(False)
BRAILLE = re.compile("[\u2801-\u28ff]")


def point(minute: float, offset_s: float | None, half_s: float = 0.005, severity: Severity = Severity.OK) -> Point:
    """Return an audit at a minute."""
    time_ns = NOW_NS + round(minute * MINUTE_NS)
    if offset_s is None:
        return Point(time_ns, time_ns, severity, None, None, None, None)
    return Point(time_ns, time_ns, severity, offset_s, offset_s, offset_s - half_s, offset_s + half_s)


def frame(minutes: float, columns: int = 60, rows: int = 12, glyphs: Glyphs = ASCII, gap_s: float = 190.0) -> Frame:
    """Return a frame that begins at minute 0."""
    return Frame("title", NOW_NS, NOW_NS + round(minutes * MINUTE_NS), round(gap_s * NS_PER_S), columns, rows, glyphs)


def picture(text: str) -> list[str]:
    """Return the rows of the picture, without the numbers beside it."""
    lines = text.split("\n")
    floor = next(number for number, line in enumerate(lines) if re.match(rf" {{{LABEL_WIDTH}}} [+└]", line))
    return [line[LABEL_WIDTH + 2 :] for line in lines[2:floor]]


def labels(text: str) -> list[str]:
    """Return the numbers beside the axis, from the top."""
    words = [line[:LABEL_WIDTH].strip() for line in text.split("\n")[2:]]
    return [word for word in words if re.match(r"(0|[0-9.]+ \w+ (behind|ahead))$", word)]


def below(text: str, glyph: str) -> list[int]:
    """Return the columns that have a sign below the floor."""
    lines = text.split("\n")
    floor = next(number for number, line in enumerate(lines) if re.match(rf" {{{LABEL_WIDTH}}} [+└]", line))
    signs = lines[floor + 1][LABEL_WIDTH + 2 :]
    return [column for column, sign in enumerate(signs) if sign == glyph]


def test_behind_is_up_and_ahead_is_down() -> None:
    """Positive offsets stand above zero; the numbers beside the axis say so in words."""
    text = draw([point(minute, 0.01 if minute < 30 else -0.01) for minute in range(61)], [], frame(60), PLAIN)
    rows = picture(text)
    top, bottom = (next(n for n, row in enumerate(rows) if row[column : column + 1] == "*") for column in (5, 55))
    assert top < bottom
    assert labels(text) == sorted(labels(text), key=_value, reverse=True)
    assert any("behind" in label for label in labels(text))
    assert any("ahead" in label for label in labels(text))


def _value(label: str) -> float:
    """Return a label's number."""
    if label == "0":
        return 0.0
    number, unit, way = label.split()
    scale = {
        "years": 365.25 * 86_400,
        "s": 1.0,
        "ms": 1e-3,
        "µs": 1e-6,
        "ns": 1e-9,
        "min": 60.0,
        "h": 3600.0,
        "days": 86_400.0,
    }[unit]
    return float(number) * scale * (1 if way == "behind" else -1)


@given(
    st.lists(st.floats(-1e5, 1e5).filter(lambda value: abs(value) > 1e-8), min_size=1, max_size=50),
    st.sampled_from([ASCII, UNICODE]),
    st.integers(20, 120),
    st.integers(6, 24),
)
def test_any_history_can_be_drawn(offsets: list[float], glyphs: Glyphs, columns: int, rows: int) -> None:
    """Each point's column has a line, inside its band; no row is wider than the frame; zero is where it belongs."""
    points = [point(minute, offset, abs(offset) / 3) for minute, offset in enumerate(offsets)]
    text = draw(points, [], frame(len(points), columns, rows, glyphs), PLAIN)
    shown = picture(text)
    assert len(shown) == rows
    assert all(len(row) <= columns for row in shown)
    for minute in range(len(points)):
        column = minute * columns // len(points)
        cells = [row[column : column + 1] for row in shown]
        assert any(cell == "*" or BRAILLE.match(cell) for cell in cells), minute
    assert glyphs is UNICODE or text.replace("µ", "u").isascii()
    ordered = [_value(label) for label in labels(text)]
    assert ordered == sorted(ordered, reverse=True)


def test_a_wide_range_gets_a_logarithmic_axis() -> None:
    """Milliseconds can still be distinguished where a step of a minute is in the picture, with round numbers beside."""
    offsets = [0.002 if minute % 2 else -0.002 for minute in range(300)]
    offsets[150] = 64.0
    text = draw([point(minute, offset, 0.001) for minute, offset in enumerate(offsets)], [], frame(300, rows=20), PLAIN)
    assert {"1 ms behind", "1 s behind", "10 s behind", "1 ms ahead"} <= set(labels(text))
    rows = [number for number, row in enumerate(picture(text)) if "*" in row[:20]]
    assert rows[-1] - rows[0] >= 2


def test_a_clock_far_off_is_drawn_without_zero() -> None:
    """An offset of two hours that wanders by milliseconds shows the milliseconds."""
    offsets = [7200.0 + (0.002 if minute > 30 else -0.002) for minute in range(61)]
    text = draw([point(minute, offset, 0.0005) for minute, offset in enumerate(offsets)], [], frame(60, rows=18), PLAIN)
    assert text.split("\n")[1].strip() == "0 is  7200 s behind"
    assert [line[:LABEL_WIDTH].strip() for line in text.split("\n") if re.match(r" *[12] ms (more|less) ", line)] == [
        "2 ms more",
        "1 ms more",
        "1 ms less",
        "2 ms less",
    ]
    rows = picture(text)
    assert [row[5:6] for row in rows].index("*") > [row[55:56] for row in rows].index("*")


def test_the_band_is_the_bound() -> None:
    """The band spans the interval: here twice the offset and zero, so the offset stands in its middle."""
    text = draw([point(minute, 0.01, 0.01) for minute in range(61)], [], frame(60, rows=20), PLAIN)
    column = "".join(row[30] for row in picture(text))
    assert re.fullmatch(r" ?:+\*:+[- ]*", column)
    assert abs(column.index("*") - (len(column.rstrip(" -")) - 1) / 2) <= 1


def test_braille_has_four_heights_and_two_columns_in_a_character() -> None:
    """A line that rises by less than a row is seen to rise."""
    text = draw([point(minute, minute * 1e-5, 0.0001) for minute in range(121)], [], frame(120, glyphs=UNICODE), PLAIN)
    shapes = {cell for row in picture(text) for cell in row if BRAILLE.match(cell)}
    assert len(shapes) >= 6


def test_gaps_are_blank_marked_and_counted() -> None:
    """Where no record was kept nothing is drawn; where audits are merely rarer than columns there is no gap."""
    minutes = [*range(20), *range(40, 60)]
    text = draw([point(minute, 0.002) for minute in minutes], [], frame(60, columns=120), PLAIN)
    marked = below(text, "x")
    assert marked
    assert set(marked) <= set(range(38, 81))
    assert set(range(42, 79)) <= set(marked)
    assert all(row[60:61] in ("", " ", "-") for row in picture(text))
    assert "x no record: 1 gap, longest 21 min" in text
    whole = draw([point(minute, 0.002) for minute in range(60)], [], frame(59, columns=120), PLAIN)
    assert "x " not in whole


def test_an_agent_that_is_gone_leaves_the_end_blank() -> None:
    """From the last record to the end of the frame nothing is pretended."""
    text = draw([point(minute, 0.002) for minute in range(30)], [], frame(60), PLAIN)
    assert below(text, "x") == list(range(30, 60))


def test_what_was_not_measured_is_marked() -> None:
    """An audit without an offset is no gap, and has no place on the axis."""
    points = [point(minute, None if 20 <= minute < 40 else 0.002) for minute in range(60)]
    text = draw(points, [], frame(59), PLAIN)
    assert below(text, "?") == list(range(20, 40))
    assert "? nothing measured: 20 points" in text


def test_steps_are_marked_where_they_were() -> None:
    """Forward and back have different signs; the largest is labelled."""
    steps = [Step(NOW_NS + 15 * MINUTE_NS, -2.5), Step(NOW_NS + 45 * MINUTE_NS, 1.0), Step(NOW_NS - 1, 9.0)]
    text = draw([point(minute, 0.002) for minute in range(61)], steps[:2], frame(60), PLAIN)
    assert (below(text, "v"), below(text, "^")) == ([15], [45])
    assert "^ v clock set forward, back: 2 times, largest 2.5 s back" in text
    assert below(draw([point(0, 0.002), point(3, 0.002)], steps[2:], frame(60), PLAIN), "^") == []


def test_points_outside_the_frame_are_not_drawn() -> None:
    """A point of another time moves nothing."""
    inside = [point(minute, 0.002) for minute in range(61)]
    outside = [point(-10, 5.0), point(100, 5.0)]
    assert draw([*outside[:1], *inside, *outside[1:]], [], frame(60), PLAIN) == draw(inside, [], frame(60), PLAIN)


def test_one_point_alone() -> None:
    """A history of a single audit has a picture too."""
    text = draw([point(0, 0.002)], [], frame(1 / 60), PLAIN)
    assert "1 point: 2 ms behind to 2 ms behind, maximum error 7 ms" in text
    assert any("*" in row for row in picture(text))


def test_nothing_measured_at_all() -> None:
    """Where there is nothing to draw there are words."""
    text = draw([point(minute, None) for minute in range(3)], [], frame(60), PLAIN)
    assert text == "title\n\n3 points, none of them measured\n"


def test_an_hour_is_drawn_as_long_as_it_is() -> None:
    """An hour covers all its columns; its band is what the bound leaves beside the offset."""
    hour = Hour(NOW_NS, 60, 60, 60, 0, 0, Severity.OK, -0.001, 0.003, 0.008)
    shown = point_of_hour(hour)
    assert (shown.earliest_s, shown.latest_s) == pytest.approx((-0.006, 0.008))
    text = draw([shown], [], frame(60, columns=30), PLAIN)
    assert all(any(row[column : column + 1] == "*" for row in picture(text)) for column in range(30))
    empty = point_of_hour(hour._replace(least_offset_s=None, most_offset_s=None, bound_s=None))
    assert empty.latest_s is None


@given(st.floats(0.02, 500_000), st.integers(30, 200))
def test_times_below_the_axis_are_round_and_do_not_touch(minutes: float, columns: int) -> None:
    """From seconds to a year, at any width: labels stand apart, and on their ticks."""
    text = draw([point(0, 0.002)], [], frame(minutes, columns), PLAIN)
    lines = text.split("\n")
    [times] = [line[LABEL_WIDTH + 2 :] for line in lines if line.startswith(f"{'UTC':>{LABEL_WIDTH}}")]
    for label in times.split():
        assert re.fullmatch(r"\d\d:\d\d|\d{4}-\d\d-\d\d", label)
    assert len(times) <= columns


def test_colours_move_nothing() -> None:
    """The line bears the colour of how bad it was; without its colours the picture is the same."""
    points = [point(minute, 0.2, severity=Severity.WARNING if minute > 30 else Severity.OK) for minute in range(61)]
    coloured = draw(points, [], frame(60), painter(True))
    assert {"\x1b[32m*", "\x1b[33m*"} <= set(re.findall(r"\x1b\[\d+m\*", coloured))
    assert re.sub(r"\x1b\[\d+m", "", coloured) == draw(points, [], frame(60), PLAIN)


def test_the_summary_is_rounded_outwards() -> None:
    """The words below claim no more than was measured."""
    text = draw([point(0, 0.0012345, 0.1), point(1, 0.0012345, 0.1)], [], frame(1), PLAIN)
    assert f"maximum error {format_duration(0.1012345, rounding='up')}" in text
