"""The finding about leap smears, and the model of a smear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.host import findings_of
from ntpaudit.core.checks.smear import LEAP_SMEAR_MIX
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.smear import provider_of, separated, smear_ns
from tests.core.policies import following, near_leap, silent
from tests.core.worlds import FOUR, HOUR, MS, SYNCHRONISED, answered, case, measurement, reply

SMOOTHED = answered(4, measurement(said=reply(reference_id=b"\x7f\x7f\x01\xff")))
NTPD_ID = measurement(said=reply(reference_id=b"\xfe\0\0\1"))
ALL, SOME = (1, 1, 1, 1), (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("hours", "size_ms"), [(-12, 0), (-6, 250), (-3, 375), (0, 500), (6, 250), (12, 0), (-12.1, None), (13, None)]
)
def test_a_smear_is_half_a_second_at_most(hours: float, size_ms: float | None) -> None:
    """J5: linear from noon to noon; worked out by hand, to a millisecond."""
    size_ns = smear_ns(round(hours * HOUR))
    assert (size_ns is None) is (size_ms is None)
    assert size_ns is None or size_ms is None or abs(size_ns - size_ms * MS) < MS


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 30)), max_size=6))
def test_two_groups_are_separated_only_if_they_are(ends: list[tuple[int, int]]) -> None:
    """The groups have a common point each, and their least distance is that of these points."""
    intervals = [Interval(start, start + width) for start, width in ends]
    found = separated(intervals)
    if found is not None:
        distance, count = found
        ordered = sorted(intervals)
        assert 0 < distance.earliest_ns <= distance.latest_ns
        groups = [range(-100, 101), range(-100, 101)]
        points = [
            [point for point in points if all(one.covers(point) for one in group)]
            for points, group in zip(groups, (ordered[:count], ordered[count:]), strict=True)
        ]
        assert distance == Interval(min(points[1]) - max(points[0]), max(points[1]) - min(points[0]))


INSERTING, INSERTED = SYNCHRONISED._replace(state=1), SYNCHRONISED._replace(state=4)  # TIME_INS, TIME_WAIT
MIXED = silent("Time2.Google.com.", "169.254.169.123", "ntp1")


@pytest.mark.parametrize(
    ("context", "level", "words"),
    [
        (near_leap(-6 * HOUR, 0, 0, 0, -250 * MS, leaps=SOME), "high", "they differ by about 250 ms"),
        (near_leap(-6 * HOUR, 0, 0, -250 * MS, -251 * MS, leaps=(1, 1, 0, 0), kernel=INSERTING), "high", "against"),
        (near_leap(3 * HOUR, 0, 0, 0, 375 * MS, kernel=INSERTED), "high", "about 375 ms"),
        (near_leap(-20 * HOUR, 0, 0, 0, 0, leaps=SOME), "high", "announce a leap second"),
        (near_leap(-6 * HOUR, 0, 0, 0, 0, leaps=(1, 0, 0, 0)), "low", "ntp1.example.net announces a leap second"),
        (near_leap(-20 * 24 * HOUR, 0, 0, 0, 0, leaps=SOME), "low", "1 usable server does not"),
        (case(*FOUR[:3], SMOOTHED), "low", "ntp4.example.net smears leap seconds"),
        (case(daemons=(silent("time.google.com", "ntp1.example.net"),)), "low", "chronyd: time.google.com smears"),
        (case(daemons=(MIXED,)), "low", "smear leap seconds, and ntp1"),
        (case(daemons=(silent("time.google.com", "time.facebook.com"),)), "low", "in different ways"),
        (case(*FOUR[:3], answered(4, name="time.aws.com")), "low", "ntpaudit: time.aws.com smears"),
        (case(*FOUR[:3], answered(4, address="216.239.35.4")), "low", "ntp4.example.net smears"),
    ],
)  # fmt: skip
def test_servers_of_two_kinds(context: AuditContext, level: str, words: str) -> None:
    """High near a leap second that is announced; else only a warning for the day of one."""
    found = LEAP_SMEAR_MIX.check(context)
    assert found is not None
    assert (found.level, words in found.message) == (level, True), found.message


@pytest.mark.parametrize(
    "context",
    [
        case(),
        near_leap(-6 * HOUR, 0, 0, 0, 0, leaps=ALL),
        near_leap(-6 * HOUR, 0, 0, 0, -250 * MS),
        near_leap(0, 0, 0, 0, 0, kernel=INSERTED),
        near_leap(3 * HOUR, 0, 0, 0, 500 * MS, kernel=INSERTED),
        case(*FOUR[:3], answered(4, NTPD_ID)),
        case(*(answered(number, measurement(said=reply(reference_id=b"\x7f\x7f\x01\xff"))) for number in (1, 2, 3))),
        case(daemons=(silent("time.google.com", "time1.google.com", "169.254.169.123"),)),
        case(daemons=(silent("time.google.com"), following("ntp1.example.net"))),
        case(daemons=(silent("time.google.com.evil.example", "ntp1.example.net"),)),
        case(daemons=(silent("time.google.com", "ntp1.example.net")._replace(disciplines=False),)),
    ],
)
def test_servers_of_one_kind(context: AuditContext) -> None:
    """All smear alike or none is known to; a distance that is no smear's; the id of ntpd's smear on another day."""
    assert LEAP_SMEAR_MIX.check(context) is None, LEAP_SMEAR_MIX.check(context)


def test_the_id_of_ntpd_counts_at_the_end_of_a_month() -> None:
    """254.x may be the start of a hash: it counts only while ntpd can smear."""
    context = near_leap(-HOUR, 0, 0, 0, 0)
    sources = list(context.selection.sources)
    assert sources[3].best
    smearing = sources[3].best._replace(reply=reply(reference_id=b"\xfe\0\0\1"))
    sources[3] = sources[3]._replace(best=smearing)
    found = LEAP_SMEAR_MIX.check(context._replace(selection=context.selection._replace(sources=tuple(sources))))
    assert found
    assert "ntp4.example.net smears" in found.message


def test_providers_are_known_by_each_name_and_address() -> None:
    """Any of the names and addresses of a server is enough."""
    assert provider_of(("ntp1.example.net",)) is None
    assert provider_of(("ntp1.example.net", "216.239.35.0")) == provider_of(("TIME.google.com.",))


def test_a_month_without_a_calendar_is_no_leap() -> None:
    """Before the year 1 there is no month; the clock may show such a time."""
    context = case(*FOUR[:3], SMOOTHED)
    taken = context.observation.taken._replace(realtime_ns=-(2**62) * 20)
    assert LEAP_SMEAR_MIX.check(context._replace(observation=context.observation._replace(taken=taken)))


def test_the_quorum_is_listed_under_a_smear() -> None:
    """One cause, one finding: servers that smear are no falsetickers."""
    found = findings_of(near_leap(-6 * HOUR, 0, 0, -250 * MS, -250 * MS, leaps=SOME))
    causes = {one.id: one.cause for one in found}
    assert (causes["leap-smear-mix"], causes["source-quorum"]) == (None, "leap-smear-mix")
