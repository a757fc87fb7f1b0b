"""NTP times as exact integers, and the eras they belong to."""

from datetime import UTC, datetime
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.ntp.time import ERA_S, PIVOT_UNIX_S, UNIX_EPOCH_S, decode, difference_ns, encode, short_to_s
from ntpaudit.core.units import NS_PER_S, format_utc, parse_utc
from tests.core.worlds import ERA_1, YEAR, S, wire

U64 = st.integers(0, 2**64 - 1)
IN_ERA = st.integers(PIVOT_UNIX_S * S, (PIVOT_UNIX_S + 2**32) * S - 1)
EVER = st.integers(-200 * YEAR, 400 * YEAR)


def test_constants_are_those_of_the_rfc() -> None:
    """The epochs are 70 years with 17 leap days apart and an era has 2**32 seconds (RFC 5905 §6)."""
    assert UNIX_EPOCH_S == (70 * 365 + 17) * 86_400
    assert (ERA_S, NS_PER_S) == (2**32, 10**9)


def test_pivot_is_a_date_of_the_build() -> None:
    """The pivot is 2025-11-01T00:00:00Z, a constant of the build (W3)."""
    assert datetime(2025, 11, 1, tzinfo=UTC).timestamp() == PIVOT_UNIX_S


@pytest.mark.parametrize(
    ("unix_ns", "timestamp"),
    [
        (0, 0x83AA_7E80_0000_0000),
        (1, 0x83AA_7E80_0000_0004),
        (S // 2, 0x83AA_7E80_8000_0000),
        (-1, 0x83AA_7E7F_FFFF_FFFB),
        (1_767_225_600 * S, 0xED00_3780_0000_0000),  # 2026-01-01
        (ERA_1 - 1, 0xFFFF_FFFF_FFFF_FFFB),
        (ERA_1, 0),
        (ERA_1 + S, 1 << 32),
    ],
)
def test_encode_writes_known_times(unix_ns: int, timestamp: int) -> None:
    """Known points in time have known timestamps, on both sides of 1970 and of 2036 (W1, W3)."""
    assert encode(unix_ns) == timestamp


@given(EVER)
@settings(max_examples=300, deadline=None)
def test_encode_agrees_with_the_formula(unix_ns: int) -> None:
    """A timestamp is the seconds since 1900 in units of 2**-32 s, rounded down, modulo an era (RFC 5905 §6)."""
    exact = (Fraction(unix_ns, 10**9) + 2_208_988_800) * 2**32
    assert encode(unix_ns) == floor(exact) % 2**64


@given(IN_ERA)
@settings(max_examples=500, deadline=None)
def test_every_time_of_the_era_comes_back(unix_ns: int) -> None:
    """Whatever lies within 136 years from the pivot survives being written and read, to the nanosecond (W3)."""
    assert decode(encode(unix_ns)) == unix_ns


@pytest.mark.parametrize("pivot_s", [0, PIVOT_UNIX_S, ERA_1 // S, -2_208_988_800, 10_000_000_000])
def test_the_era_starts_at_the_pivot(pivot_s: int) -> None:
    """The first and the last nanosecond of a pivot's era come back; their neighbours outside land an era away (W3)."""
    first, last = pivot_s * S, (pivot_s + 2**32) * S - 1
    assert decode(wire(first), pivot_s) == first
    assert decode(wire(last), pivot_s) == last
    assert decode(wire(first - 1), pivot_s) == last
    assert decode(wire(last + 1), pivot_s) == first


@given(U64, st.integers(-(10**10), 10**10))
@settings(max_examples=500, deadline=None)
def test_decode_reads_any_timestamp_to_the_nearest_nanosecond(timestamp: int, pivot_s: int) -> None:
    """A decoded time is the nearest nanosecond to the one moment of the pivot's era that the timestamp names (W3)."""
    exact = Fraction(timestamp, 2**32) - 2_208_988_800
    exact += (-(-(pivot_s - floor(exact)) // 2**32)) * 2**32
    assert pivot_s <= exact < pivot_s + 2**32
    assert abs(decode(timestamp, pivot_s) - exact * 10**9) <= Fraction(1, 2)


@given(U64, U64)
@settings(max_examples=500, deadline=None)
def test_difference_agrees_with_fractions(a: int, b: int) -> None:
    """A difference is taken modulo 2**64 as a signed number, and rounded down to nanoseconds (W2)."""
    units = (a - b) % 2**64
    signed = units - 2**64 if units >= 2**63 else units
    assert difference_ns(a, b) == floor(Fraction(signed * 10**9, 2**32))


@pytest.mark.parametrize(
    ("a", "b", "ns"),
    [
        (0, 0, 0),
        (1 << 32, 0, S),
        (0, 1 << 32, -S),
        (5, 2**64 - 5, 2),  # 10 units of 0.233 ns, across the boundary of an era
        (2**64 - 5, 5, -3),
        (2**63 - 1, 0, 2**31 * S - 1),
        (2**63, 0, -(2**31) * S),
    ],
)
def test_difference_of_known_timestamps(a: int, b: int, ns: int) -> None:
    """Differences have their sign, cross an era, and turn over at 68 years (W2)."""
    assert difference_ns(a, b) == ns


@given(EVER, st.integers(-68 * YEAR, 68 * YEAR))
@settings(max_examples=300, deadline=None)
def test_difference_of_two_moments_within_68_years(moment_ns: int, apart_ns: int) -> None:
    """Two moments up to 68 years apart differ by what lies between them, to 1 ns, in whatever eras they are (W2)."""
    assert abs(difference_ns(wire(moment_ns + apart_ns), wire(moment_ns)) - apart_ns) <= 1


def test_nothing_happens_in_2036() -> None:
    """Around 2036-02-07T06:28:16Z every nanosecond comes back, and differences across it are exact to 1 ns (W2, W3)."""
    near = range(ERA_1 - 60, ERA_1 + 61)
    assert [decode(encode(moment)) for moment in near] == list(near)
    for moment in near:
        for apart in (-10 * S, -S, -61, -1, 0, 1, 61, S, 10 * S):
            other = moment + apart
            assert decode(encode(other)) == other
            assert abs(difference_ns(encode(other), encode(moment)) - apart) <= 1


@pytest.mark.parametrize("step_ns", [1_000_003, 99_999_989])
def test_ten_seconds_on_either_side_of_2036(step_ns: int) -> None:
    """From 10 s before the new era to 10 s after it, time goes forward and comes back as it was (W3)."""
    moments = range(ERA_1 - 10 * S, ERA_1 + 10 * S + 1, step_ns)
    decoded = [decode(encode(moment)) for moment in moments]
    assert decoded == list(moments)


@pytest.mark.parametrize(
    ("value", "seconds"), [(0, 0.0), (1, 2.0**-16), (0x8000, 0.5), (0x0001_0000, 1.0), (2**32 - 1, 65_536 - 2.0**-16)]
)
def test_short_format(value: int, seconds: float) -> None:
    """A root delay or dispersion is 16 bits of seconds and 16 of fraction (RFC 5905 §6)."""
    assert short_to_s(value) == seconds


@pytest.mark.parametrize(
    ("unix_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_792_584_000_000_000_001, "2026-10-21T12:00:00.000000001Z"),
        (ERA_1, "2036-02-07T06:28:16.000000000Z"),
        (951_782_400 * S + 120_000_000, "2000-02-29T00:00:00.120000000Z"),
        (253_402_300_800 * S - 1, "9999-12-31T23:59:59.999999999Z"),
        (-30_641_760_000 * S, "0999-01-01T00:00:00.000000000Z"),
    ],
)
def test_utc_is_written_and_read(unix_ns: int, text: str) -> None:
    """A point in time is written as RFC 3339 with nine decimals and Z, and read back the same."""
    assert format_utc(unix_ns) == text
    assert parse_utc(text) == unix_ns


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)), st.integers(0, 999))
@settings(max_examples=300, deadline=None)
def test_utc_agrees_with_datetime(moment: datetime, ns: int) -> None:
    """What is written is what datetime writes, with three digits more, and it reads back to the nanosecond."""
    text = f"{moment.isoformat(timespec='microseconds')}{ns:03}Z"
    whole = (moment - datetime(1970, 1, 1)) // (datetime(1970, 1, 2) - datetime(1970, 1, 1))
    of_day = (moment.hour * 3600 + moment.minute * 60 + moment.second) * S + moment.microsecond * 1000 + ns
    assert format_utc(whole * 86_400 * S + of_day) == text
    assert parse_utc(text) == whole * 86_400 * S + of_day


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-10-21T12:00:00Z",
        "2026-10-21T12:00:00.000Z",
        "2026-10-21T12:00:00.000000000",
        "2026-10-21T12:00:00.000000000+00:00",
        "2026-10-21T12:00:00.0000000000Z",
        "2026-10-21 12:00:00.000000000Z",
        "2026-10-21T12:00:00,000000000Z",
        "2026-10-21T12:00:00.00000000xZ",
        "2026-10-21T12:00:00.-00000001Z",
        "2026-13-21T12:00:00.000000000Z",
        "2026-02-30T12:00:00.000000000Z",
        "2026-10-21T24:00:00.000000000Z",
        "2026-10-21T12:00:61.000000000Z",
        " 2026-10-21T12:00:00.000000000Z",
        "2026-10-21T12:00:00.000000000Z\n",
        "2026-1-1T1:1:1.000000000Z",
        "now",
    ],
)
def test_anything_else_is_no_utc(text: str) -> None:
    """Whatever `format_utc` does not write is refused."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_utc(text)
