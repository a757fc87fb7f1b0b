"""The content of an evidence report: each second counts once, no share is too good, and bad input is stated."""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.acceptance import Acceptance, HostAcceptance
from ntpaudit.core.accounting import InForce, Spans
from ntpaudit.core.accounts import Account
from ntpaudit.core.checks.controls import CONTROLS
from ntpaudit.core.evidence.clauses import CLAUSES
from ntpaudit.core.evidence.hosts import COVERED, judge_host
from ntpaudit.core.evidence.method import PUBLISHED
from ntpaudit.core.evidence.model import (
    Check,
    HostRecords,
    Period,
    Times,
)
from ntpaudit.core.evidence.report import Inputs, assemble, bad_share, exact, share
from ntpaudit.core.excursions import Excursion
from ntpaudit.core.policy import PROFILES
from ntpaudit.core.units import NS_PER_S

DAY = 86_400
HOUR = 3600
BEGIN = 1_782_864_000  # 2026-07-01
PROFILE = PROFILES["log-integrity"]
TRUTH = Path(__file__).parents[2] / "docs" / "truth.md"


def in_force(since_s: int = BEGIN, critical_s: float = 1.0, machine_id: str = "m", name: str = "web1") -> InForce:
    """Return the settings of a host."""
    return InForce(since_s, name, "ams", None, machine_id, "1.1", "ab", PROFILE._replace(critical_s=critical_s))


def account(begin_s: int, length_s: int = DAY, bound_s: float | None = 0.02, **spans: int) -> Account:
    """Return an account whose time is within but for `spans`."""
    rest = length_s - sum(spans.values())
    return Account(
        begin_s, length_s, Spans(within=rest, **spans), 10, -0.01, 0.02, bound_s, in_force=(in_force(begin_s),)
    )


def days(count: int, **spans: int) -> tuple[Account, ...]:
    """Return days from the begin on, which are all alike."""
    return tuple(account(BEGIN + number * DAY, **spans) for number in range(count))


def period(count: int) -> Period:
    """Return a period of whole days."""
    return Period(BEGIN, BEGIN + count * DAY)


def host(accounts: Sequence[Account], name: str = "web1", **given_: object) -> HostRecords:
    """Return a host."""
    return HostRecords(name, "ams", tuple(accounts), **given_)  # type: ignore[arg-type]


def excepted(finding: str, until_s: int | None, name: str | None = None, site: str | None = None) -> HostAcceptance:
    """Return an exception."""
    until_ns = None if until_s is None else until_s * NS_PER_S
    return HostAcceptance(Acceptance(finding, "why", "who", until_ns), name, site)


SPANS = st.lists(st.integers(0, DAY), min_size=5, max_size=5).map(
    lambda cuts: Spans(*(b - a for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), DAY], strict=True)))
)
DAYS = st.lists(st.tuples(st.integers(0, 11), SPANS), max_size=14).map(
    lambda rows: tuple(Account(BEGIN + day * DAY, DAY, spans) for day, spans in rows)
)
EXCEPTIONS = st.lists(
    st.builds(
        excepted,
        st.sampled_from([*COVERED, "daemon-count"]),
        st.none() | st.integers(BEGIN - DAY, BEGIN + 14 * DAY),
        st.sampled_from([None, "web1", "web*", "db*"]),
        st.sampled_from([None, "ams", "fra"]),
    ),
    max_size=4,
).map(tuple)


@given(DAYS, EXCEPTIONS, st.sampled_from([None, 0.05, 1.0, 5.0]))
def test_each_second_of_the_period_has_one_state(
    rows: tuple[Account, ...], exceptions: tuple[HostAcceptance, ...], critical_s: float | None
) -> None:
    """The seven states add up to the period for any accounts; exceptions cover no more than bad time, once."""
    result = judge_host(host(rows), period(10), exceptions, critical_s)
    balance = result.balance
    assert balance.length_s == 10 * DAY
    assert min(balance.spans) >= 0
    assert all(0 <= excepted <= spans for excepted, spans in zip(balance.excepted, balance.spans, strict=True))
    assert balance.excepted.within == balance.excepted.off == 0
    assert sum(result.covered_s) == sum(balance.excepted)
    assert (result.result == "within") == (balance.counted_s > 0 == balance.bad_s)


@given(DAYS, EXCEPTIONS, st.integers(1, 9))
def test_the_parts_of_a_period_add_up_to_it(
    rows: tuple[Account, ...], exceptions: tuple[HostAcceptance, ...], cut: int
) -> None:
    """No second is lost or counted twice between two reports."""
    middle_s = BEGIN + cut * DAY
    whole, *parts = (
        judge_host(host(rows), one, exceptions).balance
        for one in (period(10), Period(BEGIN, middle_s), Period(middle_s, BEGIN + 10 * DAY))
    )
    for name in ("spans", "excepted"):
        assert getattr(whole, name) == Times(*map(sum, zip(*(getattr(part, name) for part in parts), strict=True)))


@given(st.integers(0, 10**10), st.integers(1, 10**10))
def test_no_share_is_rounded_to_the_better_side(part: int, whole: int) -> None:
    """Only all of it is 100 %, and each share has its denominator."""
    part = min(part, whole)
    good, bad = share(part, whole), bad_share(part, whole)
    assert good.endswith(f" of {exact(whole)}")
    assert bad.endswith(f" of {exact(whole)}")
    assert Fraction(good.partition(" ")[0]) <= Fraction(100 * part, whole) <= Fraction(bad.partition(" ")[0])
    assert (good.startswith("100 %")) == (part == whole)
    assert (bad.startswith("0 %")) == (part == 0)


def test_a_second_less_than_all_is_not_all() -> None:
    """99.999 % is not 100 %."""
    assert share(90 * DAY - 1, 90 * DAY) == "99.999 % of 90 d 0:00:00"
    assert share(0, 0) == "no share of 0:00:00"


@pytest.mark.parametrize("state", ["unproven", "beyond", "unmeasured", "absent"])
def test_each_bad_state_counts_as_not_within(state: str) -> None:
    """A second without a proof makes a host's result worse (EV3)."""
    report = assemble([host((*days(9), account(BEGIN + 9 * DAY, **{state: 1})))], Inputs(period(10), "a file"))
    assert report.hosts[0].result == ("beyond" if state == "beyond" else "not-shown")
    assert report.exit_status == (2 if state == "beyond" else 1)
    assert "99.999 % of 10 d 0:00:00" in report.answer[1]
    assert "0:00:01" in report.answer[1]


def test_time_off_does_not_count_and_is_shown() -> None:
    """A host that was off part of the time is judged by the rest; one that was always off has no share."""
    report = assemble(
        [host(days(2, off=HOUR)), host(days(2, off=DAY), "spare")],
        Inputs(period(2), "a file"),
    )
    found = {one.name: one for one in report.hosts}
    assert found["web1"].result == "within"
    assert found["web1"].balance.counted_s == 2 * (DAY - HOUR)
    assert found["spare"].result == "off"
    assert report.exit_status == 0
    assert report.answer[0].endswith("; 1 more host had no time that counts.")
    assert report.answer[1].endswith("; not counted: 2 d 2:00:00 off.")
    assert assemble([host(days(2, off=DAY))], Inputs(period(2), "a file")).exit_status == 3


def test_exceptions_cover_their_state_until_their_end() -> None:
    """Covered time does not count; another state, a later day, another host and no end are not covered."""
    records = [host(days(4, beyond=60, unmeasured=30)), host(days(4, beyond=60), "db1")]
    until = excepted("offset-out", BEGIN + 2 * DAY + 5, "web*")
    endless = excepted("offset-out", None, "web*")
    report = assemble(records, Inputs(period(4), "a file", exceptions=(until, endless)))
    found = {one.name: one.balance for one in report.hosts}
    assert found["web1"].excepted == Times(beyond=120)
    assert found["web1"].counted_s == 4 * DAY - 120
    assert found["web1"].counted("unmeasured") == 120
    assert not any(found["db1"].excepted)
    assert [(one.hosts, one.covered_s, one.note) for one in report.exceptions] == [
        (1, 120, ""),
        (1, 0, "it has no end, so it covers nothing"),
    ]


def test_an_excursion_is_excepted_only_as_a_whole() -> None:
    """One that lasts longer than the exception is not."""
    inside = Excursion("beyond", BEGIN + 10, BEGIN + 20, False)
    outside = inside._replace(begin_s=BEGIN + DAY, end_s=BEGIN + DAY + 20)
    rule = excepted("offset-out", BEGIN + DAY + 10)
    result = judge_host(host(days(2), excursions=(inside, outside)), period(2), (rule,))
    assert [one.is_accepted for one in result.excursions] == [True, False]


def test_hours_stand_in_for_a_day_that_is_missing() -> None:
    """Where the day's account exists, its hours do not count again."""
    hours = tuple(account(BEGIN + number * HOUR, HOUR, beyond=1) for number in range(48))
    result = judge_host(host((*hours, account(BEGIN, beyond=24))), Period(BEGIN, BEGIN + 36 * HOUR))
    assert result.balance.spans == Times(within=36 * HOUR - 36, beyond=36)
    assert not result.statements


def only(report_host: HostRecords, count: int = 10, **given_: object) -> tuple[str, ...]:
    """Return what is stated about a host."""
    return assemble([report_host], Inputs(period(count), "a file", **given_)).hosts[0].statements  # type: ignore[arg-type]


def test_bad_input_is_stated() -> None:
    """Each fault of the records has a sentence, and its time is not within."""
    assert only(host(())) == ("nothing is stored about this host in the period",)
    assert "no accounts of time" in only(host((), has_points=True))[0]
    (before,) = only(host(days(10)[3:]))
    assert before == "no account exists before 2026-07-04 00:00:00 UTC: 3 days are unaccounted"
    (after,) = only(host(days(4)))
    assert after == "no account exists after 2026-07-05 00:00:00 UTC: 6 days are unaccounted"
    (between,) = only(host(days(10)[:4] + days(10)[6:]))
    assert between == "no account exists from 2026-07-05 00:00:00 UTC to 2026-07-07 00:00:00 UTC"
    damaged = account(BEGIN)._replace(spans=Spans(within=5))
    assert (
        only(host((damaged, *days(10)[1:])))[0]
        == "1 account does not add up and cannot be used: that time is unaccounted"
    )
    doubled = only(host((*days(10), account(BEGIN, beyond=5))))
    assert doubled == (
        "two machines may use this name: 1 account exists twice with different contents; the one with less time within "
        "is used",
    )
    other = account(BEGIN)._replace(in_force=(in_force(machine_id="other"),))
    assert only(host((other, *days(10)[1:])))[0].startswith("2 machine ids reported under this name")
    renamed = account(BEGIN)._replace(in_force=(in_force(name="old1"),))
    assert only(host((renamed, *days(10)[1:]))) == ("its name was old1 for a part of the period",)
    changed = account(BEGIN)._replace(in_force=(in_force(critical_s=0.05),))
    assert only(host((changed, *days(10)[1:]))) == (
        "its tolerance changed in the period (50 ms and 1 s): each second is judged by that in force then",
    )
    assert only(host(days(10), notes=("3 rows are damaged",))) == ("3 rows are damaged",)


def test_a_period_without_length_is_refused() -> None:
    """Zero seconds have no share."""
    with pytest.raises(ValueError, match="no length"):
        assemble([], Inputs(Period(BEGIN, BEGIN), "a file"))


def test_a_period_in_the_future_is_unaccounted() -> None:
    """Nothing is known of it, so nothing is within."""
    report = assemble([host(days(3))], Inputs(Period(BEGIN + 90 * DAY, BEGIN + 91 * DAY), "a file"))
    assert report.exit_status == 3
    assert report.balance.spans == Times(unaccounted=DAY)
    assert report.answer[1].startswith("The clock was within for 0 % of 1 d 0:00:00")


def test_the_inventory_decides_which_hosts_count() -> None:
    """A listed host without records counts as unaccounted; one that is not listed is shown apart."""
    report = assemble(
        [host(days(2)), host(days(2, beyond=5), "unlisted")],
        Inputs(period(2), "a file", {"web1": "ams", "never": ""}),
    )
    assert [one.name for one in report.hosts] == ["never", "web1"]
    assert [one.name for one in report.unlisted] == ["unlisted"]
    assert report.balance.spans == Times(within=2 * DAY, unaccounted=2 * DAY)
    assert report.scope.missing == ("never",)
    assert report.exit_status == 1
    assert report.answer[0].startswith("1 of 2 hosts were shown to be within 1 s of UTC")


def test_another_tolerance_never_makes_time_good_without_proof() -> None:
    """The largest error of an account decides, and the report says that it was judged again (EV5)."""
    records = [host((account(BEGIN, bound_s=0.2), account(BEGIN + DAY, bound_s=0.04), account(BEGIN + 2 * DAY)))]
    report = assemble(records, Inputs(period(3), "a file", critical_s=0.05))
    assert report.balance.spans == Times(within=2 * DAY, unproven=DAY)
    assert "within 50 ms of UTC" in report.answer[0]
    assert any("judges again by 50 ms" in line for line in report.tolerance)


def test_checks_are_in_the_answer() -> None:
    """A failed check decides the exit status, however good the clocks were; without a check nothing is verified."""
    inputs = Inputs(period(2), "a file")
    assert assemble([host(days(2))], inputs).answer[2].startswith("No check has verified")
    passed, failed = Check("chain", "passed", ""), Check("heads", "failed", "row 7 differs")
    good = assemble([host(days(2))], inputs._replace(checks=(passed,)))
    assert (good.exit_status, good.answer[2]) == (0, "The records passed 1 check: chain.")
    bad = assemble([host(days(2))], inputs._replace(checks=(passed, failed)))
    assert (bad.exit_status, bad.answer[2]) == (2, "The records failed 1 check and cannot be relied on: heads.")


def test_the_published_figures_are_those_of_the_page() -> None:
    """`make truth` writes them; a new run of it changes both places."""
    page = TRUTH.read_text()
    assert f"{PUBLISHED.host_hours:,} host-hours in {PUBLISHED.worlds:,} worlds" in page
    row = re.search(r"missed it in (\S+) of (\S+) statements \(< (\S+ %)\)", page)
    assert row is not None
    assert row.groups() == (f"{PUBLISHED.missed:,}", f"{PUBLISHED.statements:,}", PUBLISHED.limit)


def test_only_verified_clauses_are_printed() -> None:
    """No number or clause is stated that was not verified in the rule's text."""
    assert {one.name for one in CLAUSES if one.name in CONTROLS and CONTROLS[one.name].certainty != "verified"} == set()
    assert len({one.name for one in CLAUSES}) == len(CLAUSES)
    for one in CLAUSES:
        assert all(one), one.name
        assert one.asks.endswith(".")
        assert one.lacks.endswith(".")
