"""Tolerances, and what an interval held against them comes to."""

from dataclasses import dataclass
from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.policy import (
    DEFAULT_PROFILE,
    PROFILES,
    VERDICTS,
    JudgedOn,
    Profile,
    Severity,
    Verdict,
    max_error_s,
    min_error_s,
)
from tests.core.worlds import HOUR, MS, US, S

STRICT = Profile("strict", 0.025, 0.05, "bound")
LOOSE = Profile("loose", 0.1, 1.0, "offset")

ENDS = st.integers(-3 * S, 3 * S)
INTERVALS = st.tuples(ENDS, ENDS).map(lambda ends: Interval(*sorted(ends)))
TOLERANCES = st.floats(0, 3) | st.just(nan) | st.just(inf)


@dataclass(frozen=True)
class Row:
    """A profile as requirement I1 has it."""

    warning_s: Fraction
    critical_s: Fraction
    judged_on: JudgedOn


SHIPPED = {
    "log-integrity": Row(Fraction(1, 10), Fraction(1), "offset"),
    "ops-strict": Row(Fraction(50, 1000), Fraction(250, 1000), "bound"),
    "pci": Row(Fraction(1, 10), Fraction(1), "offset"),
    "iso27001": Row(Fraction(1, 10), Fraction(1), "offset"),
    "nis2": Row(Fraction(1, 10), Fraction(1), "offset"),
    "dora": Row(Fraction(1, 10), Fraction(1), "offset"),
    "fedramp": Row(Fraction(1, 10), Fraction(1), "offset"),
    "stig": Row(Fraction(250, 1000), Fraction(1), "offset"),
    "finra-cat": Row(Fraction(25, 1000), Fraction(50, 1000), "bound"),
    "mifid-1ms": Row(Fraction(500, 10**6), Fraction(1000, 10**6), "bound"),
    "mifid-100us": Row(Fraction(50, 10**6), Fraction(100, 10**6), "bound"),
    "tsa-etsi": Row(Fraction(500, 1000), Fraction(1), "bound"),
    "cluster-ceph": Row(Fraction(25, 1000), Fraction(50, 1000), "bound"),
    "cluster-crdb": Row(Fraction(200, 1000), Fraction(400, 1000), "bound"),
    "cluster-etcd": Row(Fraction(250, 1000), Fraction(1), "bound"),
    "auth": Row(Fraction(60), Fraction(240), "offset"),
}


def test_profiles_are_those_of_the_design() -> None:
    """Each profile has the numbers of requirement I1 under its name, and the default is log-integrity."""
    assert set(PROFILES) == set(SHIPPED)
    for name, row in SHIPPED.items():
        profile = PROFILES[name]
        assert profile.name == name
        assert (profile.warning_s, profile.critical_s) == (float(row.warning_s), float(row.critical_s)), name
        assert profile.judged_on == row.judged_on, name
    assert DEFAULT_PROFILE == "log-integrity"


def test_severities_count_in_this_order() -> None:
    """Ok < warning < unknown < critical, with the monitoring plugins' exit statuses 0, 1, 3, 2 and words."""
    assert Severity.OK < Severity.WARNING < Severity.UNKNOWN < Severity.CRITICAL
    assert [severity.exit_status for severity in Severity] == [0, 1, 3, 2]
    assert [severity.word for severity in Severity] == ["ok", "warning", "unknown", "critical"]
    assert VERDICTS == ("within", "unproven", "beyond", "unmeasured")


@pytest.mark.parametrize(
    ("interval", "bound", "least"),
    [
        (Interval(0, 0), 0.0, 0.0),
        (Interval(-3 * S, 2 * S), 3.0, 0.0),
        (Interval(-2 * S, 3 * S), 3.0, 0.0),
        (Interval(2 * S, 3 * S), 3.0, 2.0),
        (Interval(-3 * S, -2 * S), 3.0, 2.0),
        (Interval(0, S), 1.0, 0.0),
        (Interval(1, 1), 1e-9, 1e-9),
    ],
)
def test_bound_and_least(interval: Interval, bound: float, least: float) -> None:
    """W is the far end and B the near end, 0 where the clock may be right, on either side."""
    assert (max_error_s(interval), min_error_s(interval)) == (bound, least)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (None, "unmeasured"),
        (Interval(-S, S), "within"),
        (Interval(S, S), "within"),
        (Interval(-S, S + 1), "unproven"),
        (Interval(-S - 1, S), "unproven"),
        (Interval(-S - 1, -S), "unproven"),
        (Interval(S, 2 * S), "unproven"),
        (Interval(-2 * S, -S), "unproven"),
        (Interval(-HOUR, HOUR), "unproven"),
        (Interval(S + 1, 2 * S), "beyond"),
        (Interval(-2 * S, -S - 1), "beyond"),
        (Interval(S + 1, S + 1), "beyond"),
        (Interval(HOUR, 2 * HOUR), "beyond"),
    ],
)
def test_verdict_at_its_edges(interval: Interval | None, verdict: Verdict) -> None:
    """Within while the worst is at most T, beyond when the least is more than T, to the nanosecond (B8)."""
    assert LOOSE.verdict(interval) == verdict


@pytest.mark.parametrize("name", SHIPPED)
def test_every_tolerance_is_exact(name: str) -> None:
    """At each profile's critical tolerance itself a clock is within, a nanosecond more is not: floats cost nothing."""
    edge = int(SHIPPED[name].critical_s * S)
    profile = PROFILES[name]
    for sign in (1, -1):
        assert profile.verdict(Interval(edge * sign, edge * sign)) == "within"
        assert profile.verdict(Interval((edge + 1) * sign, (edge + 1) * sign)) == "beyond"
        assert profile.verdict(Interval(*sorted((0, (edge + 1) * sign)))) == "unproven"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_warning_is_exact(name: str) -> None:
    """At each profile's warning tolerance itself all is well, a nanosecond more is a warning."""
    edge = int(SHIPPED[name].warning_s * S)
    profile = PROFILES[name]
    for sign in (1, -1):
        assert profile.severity(Interval(edge * sign, edge * sign), edge * sign) == Severity.OK
        assert profile.severity(Interval((edge + 1) * sign, (edge + 1) * sign), (edge + 1) * sign) == Severity.WARNING


@pytest.mark.parametrize(
    ("profile", "interval", "estimate", "severity"),
    [
        (LOOSE, None, 0, Severity.UNKNOWN),
        (LOOSE, Interval(-900 * MS, 900 * MS), 100 * MS, Severity.OK),
        (LOOSE, Interval(-900 * MS, 900 * MS), -100 * MS, Severity.OK),
        (LOOSE, Interval(-900 * MS, 900 * MS), 101 * MS, Severity.WARNING),
        (LOOSE, Interval(-900 * MS, 900 * MS), -101 * MS, Severity.WARNING),
        (STRICT, Interval(-25 * MS, 25 * MS), 0, Severity.OK),
        (STRICT, Interval(-26 * MS, 20 * MS), 0, Severity.WARNING),
        (STRICT, Interval(-20 * MS, 26 * MS), 0, Severity.WARNING),
        (STRICT, Interval(-20 * MS, 51 * MS), 0, Severity.WARNING),
        (LOOSE, Interval(-2 * S, 2 * S), 0, Severity.WARNING),
        (LOOSE, Interval(2 * S, 3 * S), 2 * S, Severity.CRITICAL),
        (LOOSE, Interval(-3 * S, -2 * S), -2 * S, Severity.CRITICAL),
    ],
)
def test_severity_of_an_offset(profile: Profile, interval: Interval | None, estimate: int, severity: Severity) -> None:
    """The warning is judged on |estimate| or on the bound as the profile says; unproven is a warning, never fine."""
    assert profile.severity(interval, estimate) == severity


@given(
    INTERVALS | st.none(),
    st.floats(0, 1),
    TOLERANCES,
    TOLERANCES,
    st.sampled_from(["offset", "bound"]),
)
@settings(max_examples=600, deadline=None)
def test_only_what_is_proven_is_ok(
    interval: Interval | None, part: float, warning: float, critical: float, judged_on: JudgedOn
) -> None:
    """No tolerance, not even NaN, makes an unproven, a wrong or an unmeasured clock ok, nor a bad estimate (B8)."""
    profile = Profile("any", warning, critical, judged_on)
    estimate = 0 if interval is None else interval[0] + int((interval[1] - interval[0]) * part)
    verdict, severity = profile.verdict(interval), profile.severity(interval, estimate)
    worst = None if interval is None else Fraction(max(abs(interval[0]), abs(interval[1])), S)
    if verdict == "within":
        assert worst is not None
        assert worst <= critical or float(worst) == critical
    if severity is Severity.OK:
        assert verdict == "within"
        assert worst is not None
        judged = worst if judged_on == "bound" else Fraction(abs(estimate), S)
        assert judged <= warning or float(judged) == warning
    assert (verdict == "unmeasured") == (interval is None)
    assert (severity is Severity.UNKNOWN) == (interval is None)
    assert (severity is Severity.CRITICAL) == (verdict == "beyond")
    if interval is not None and verdict == "beyond":
        assert all(abs(x) > Fraction(critical) * S for x in (interval[0], interval[1]))
        assert not interval[0] <= 0 <= interval[1]


@pytest.mark.parametrize("interval", [Interval(0, 0), Interval(US, 2 * US), Interval(-HOUR, -HOUR)])
def test_nan_is_never_good_enough(interval: Interval) -> None:
    """A tolerance that is not a number accepts nothing: neither within nor beyond, and no ok."""
    assert Profile("nan", 0.1, nan, "offset").verdict(interval) == "unproven"
    assert Profile("nan", 0.1, nan, "bound").severity(interval, 0) == Severity.WARNING
    assert Profile("nan", nan, inf, "bound").severity(interval, 0) == Severity.WARNING
    assert Profile("nan", nan, inf, "offset").severity(interval, 0) == Severity.WARNING
