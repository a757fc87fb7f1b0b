"""Spans and directions in words."""

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.units import Rounding, direction, format_duration, parse_duration, parse_size, plural

UNITS = {
    "ns": Fraction(1, 10**9),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "days": Fraction(86_400),
    "years": Fraction(31_557_600),
}
NANOSECONDS = st.integers(0, 10**19) | st.integers(0, 10**12) | st.integers(0, 10**6)
SECONDS = NANOSECONDS.map(lambda ns: ns / 10**9) | st.floats(1e-9, 1e11)


def read_back(text: str) -> Fraction:
    """Return the seconds that a written span says, exactly."""
    written = re.fullmatch(r"(\d+(?:\.\d*[1-9])?) ([a-zµ]+)", text)
    assert written, text
    assert len(written[1].replace(".", "").strip("0")) <= 3, text
    return Fraction(written[1]) * UNITS[written[2]]


@pytest.mark.parametrize(
    ("seconds", "near", "up", "down"),
    [
        (0.0, "0 ns", "0 ns", "0 ns"),
        (1e-9, "1 ns", "1 ns", "1 ns"),
        (1.5e-9, "1.5 ns", "1.5 ns", "1.5 ns"),
        (999e-9, "999 ns", "999 ns", "999 ns"),
        (1e-6, "1 µs", "1 µs", "1 µs"),
        (1.234e-6, "1.23 µs", "1.24 µs", "1.23 µs"),
        (1.236e-6, "1.24 µs", "1.24 µs", "1.23 µs"),
        (0.0001, "100 µs", "100 µs", "100 µs"),
        (0.001, "1 ms", "1 ms", "1 ms"),
        (0.0125, "12.5 ms", "12.5 ms", "12.5 ms"),
        (0.1, "100 ms", "100 ms", "100 ms"),
        (0.123456, "123 ms", "124 ms", "123 ms"),
        (0.250, "250 ms", "250 ms", "250 ms"),
        (0.9999, "1000 ms", "1000 ms", "999 ms"),
        (1.0, "1 s", "1 s", "1 s"),
        (1.0049, "1 s", "1.01 s", "1 s"),
        (59.94, "59.9 s", "60 s", "59.9 s"),
        (60.0, "60 s", "60 s", "60 s"),
        (119.9, "120 s", "120 s", "119 s"),
        (120.0, "2 min", "2 min", "2 min"),
        (240.0, "4 min", "4 min", "4 min"),
        (900.0, "15 min", "15 min", "15 min"),
        (7199.0, "120 min", "120 min", "119 min"),
        (7200.0, "2 h", "2 h", "2 h"),
        (172_799.0, "48 h", "48 h", "47.9 h"),
        (172_800.0, "2 days", "2 days", "2 days"),
        (63_115_199.0, "730 days", "731 days", "730 days"),
        (63_115_200.0, "2 years", "2 years", "2 years"),
        (56 * 31_557_600.0 + 1e7, "56.3 years", "56.4 years", "56.3 years"),
        (70_000 * 31_557_600.0, "70000 years", "70000 years", "70000 years"),
    ],
)
def test_span_of_known_sizes(seconds: float, near: str, up: str, down: str) -> None:
    """A span is written in the unit that suits it, with at most three digits that count, rounded as asked."""
    assert (
        format_duration(seconds),
        format_duration(seconds, rounding="up"),
        format_duration(seconds, rounding="down"),
    ) == (near, up, down)
    assert format_duration(-seconds) == near
    assert format_duration(-seconds, rounding="up") == up


@given(SECONDS)
@settings(max_examples=600, deadline=None)
def test_a_bound_is_never_written_smaller(seconds: float) -> None:
    """What is rounded up never says less than was measured, nor 1 % more (but for the last digits of a float)."""
    exact, said = Fraction(seconds), read_back(format_duration(seconds, rounding="up"))
    assert exact * (1 - Fraction(1, 10**10)) <= said <= exact * Fraction(10_101, 10_000)


@given(SECONDS)
@settings(max_examples=600, deadline=None)
def test_a_least_error_is_never_written_larger(seconds: float) -> None:
    """What is rounded down never says more than was measured, nor 1 % less (but for the last digits of a float)."""
    exact, said = Fraction(seconds), read_back(format_duration(seconds, rounding="down"))
    assert exact * Fraction(9899, 10_000) <= said <= exact * (1 + Fraction(1, 10**10))


@given(SECONDS, st.sampled_from(["near", "up", "down"]))
@settings(max_examples=400, deadline=None)
def test_a_span_is_near(seconds: float, rounding: Rounding) -> None:
    """What is not asked to be a bound is right to half of its third digit, and a sign changes nothing."""
    exact, said = Fraction(seconds), read_back(format_duration(seconds))
    assert abs(said - exact) <= exact * Fraction(51, 10_000)
    assert format_duration(-seconds, rounding=rounding) == format_duration(seconds, rounding=rounding)


@given(st.integers(1, 999), st.sampled_from(["ns", "µs", "ms"]))
@settings(max_examples=200, deadline=None)
def test_three_digits_need_no_rounding(number: int, unit: str) -> None:
    """A whole number of a small unit is written as it is, however it is rounded: no float shows."""
    for rounding in ("near", "up", "down"):
        assert format_duration(float(number * UNITS[unit]), rounding=rounding) == f"{number} {unit}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1ns", 1e-9),
        ("100us", 1e-4),
        ("100µs", 1e-4),
        ("100ms", 0.1),
        ("64s", 64.0),
        ("30m", 1800.0),
        ("12h", 43_200.0),
        ("90d", 7_776_000.0),
        ("7y", 7 * 31_557_600.0),
        ("0s", 0.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("0.25ms", 0.00025),
        (" 10 s ", 10.0),
        ("007s", 7.0),
    ],
)
def test_spans_are_read(text: str, seconds: float) -> None:
    """A number and one of the units ns, us or µs, ms, s, m, h, d and y are a span."""
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "s", "ms", "5", "5.5", "-5s", "+5s", "1e3s", "5S", "5 Min", "5min", "5sec", "5 minutes", "5 years",
        "5w", "1h30m", "1:30", "1,5s", "1.5.5s", ".s", "nan", "nans", "inf", "infs", "5s s", "5 5s", "0x5s", "1_000s",
        "٣s", "²s", "½s", "5µ", "5s\0",
    ],
)  # fmt: skip
def test_nothing_else_is_a_span(text: str) -> None:
    """Signs, exponents, other units, other scripts and no unit at all are refused, and the refusal shows the text."""
    said = "needs a unit, for example" if text in ("5", "5.5") else "is not a duration: write a number and its unit"
    with pytest.raises(ValueError, match=said) as refusal:
        parse_duration(text)
    assert repr(text) in str(refusal.value)


@given(st.text(max_size=12) | st.text("0123456789. smhdynu", max_size=8))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_span_or_refused(text: str) -> None:
    """Whatever is written is a finite span of zero or more, or refused as such."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017
    else:
        assert 0 <= seconds < 1e30


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1MiB", 2**20),
        ("512MiB", 2**29),
        ("1 GiB", 2**30),
        (" 2GiB ", 2**31),
        ("1024KiB", 2**20),
        ("1048576B", 2**20),
        ("1049kB", 1_049_000),
        ("2MB", 2 * 10**6),
        ("8GB", 8 * 10**9),
        ("0001MiB", 2**20),
    ],
)
def test_sizes_are_read(text: str, octets: int) -> None:
    """A whole number and one of the units B, KiB, MiB, GiB, kB, MB and GB are a size."""
    assert parse_size(text) == octets


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "MiB", "512", "0MiB", "1048575B", "1023KiB", "1048kB", "1kB", "-1GiB", "+1GiB", "1.5GiB", "1e3GiB",
        "1gib", "1mb", "1G", "1M", "1TiB", "1 G iB", "1GiBGiB", "1_000MiB", "1,000MiB", "inf", "nan", "٣GiB", "1GiB\0",
        "0x1GiB", "1kiB", "1KB",
    ],
)  # fmt: skip
def test_nothing_else_is_a_size(text: str) -> None:
    """Less than 1 MiB, fractions, other units and other scripts are refused, and the refusal shows the text."""
    with pytest.raises(ValueError, match="is not a size: write a number and its unit") as refusal:
        parse_size(text)
    assert repr(text) in str(refusal.value)


@given(st.text(max_size=12) | st.text("0123456789 BKMGik", max_size=12))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_size_or_refused(text: str) -> None:
    """Whatever is written is a size of 1 MiB at least, or refused as such."""
    try:
        octets = parse_size(text)
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017
    else:
        assert octets >= 2**20


@pytest.mark.parametrize(("offset", "word"), [(1, "behind"), (1e-9, "behind"), (0, "ahead"), (-1e-9, "ahead")])
def test_positive_is_behind(offset: float, word: str) -> None:
    """A positive offset means that the host is behind."""
    assert direction(offset) == word


def test_plurals() -> None:
    """One is one, and any other count is many."""
    assert [plural(count, "source") for count in (0, 1, 2)] == ["0 sources", "1 source", "2 sources"]
