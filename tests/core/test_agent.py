"""What an agent knows from one audit to the next, in worlds where the truth is known to the nanosecond."""

import random
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from fractions import Fraction
from math import floor
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ntpaudit.core.clock.drift import Fit, breach_after
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock_state import ClockState, LastAgreement, detect_clock_change
from ntpaudit.core.evaluation import AuditSettings, evaluate
from ntpaudit.core.holdover import MAX_CARRY_S, holdover, utc_ns
from ntpaudit.core.observation import Claim, Configuration, ConfiguredServer, Daemon, HiddenDaemons
from ntpaudit.core.policy import PROFILES, Severity
from ntpaudit.core.record import Health
from ntpaudit.core.selection import Agreement, SourceCounts
from ntpaudit.core.units import format_duration, format_utc
from ntpaudit.demo.host import ZS_PER_S
from ntpaudit.probes.daemons import timesyncd
from tests.core.hosts import LivingHost
from tests.core.random_agents import INTERVAL_S, LABELS, SILENT, Round, Watch
from tests.core.test_steps import STEPS_NS
from tests.core.worlds import DAY, HOUR, MS, NOON, UNSYNCHRONISED, US, YEAR, S, answered, failed, measurement
from tests.work import instructions

OK, WARNING, UNKNOWN, CRITICAL = Severity.OK, Severity.WARNING, Severity.UNKNOWN, Severity.CRITICAL
HALF_NS = 10 * MS
TIMESYNCD = timesyncd.KIND.daemon(655)


def agree_with_the_truth(watch: Watch, now: ClockReading | None = None) -> Agreement | None:
    """Check that what is carried on holds the truth, and return it."""
    now = now or watch.host.read()
    agreement = holdover(watch.clock_state, now)
    if agreement is not None:
        truth = watch.host.utc - now.realtime_ns
        assert agreement.interval.earliest_ns <= truth <= agreement.interval.latest_ns
        assert agreement.interval.covers(agreement.estimate_ns)
        true_ns = utc_ns(watch.clock_state, now)
        assert true_ns is not None
        assert abs(true_ns - watch.host.utc) <= 2 * agreement.interval.half_width_ns
    return agreement


def error_s(watch: Watch) -> float:
    """Return by how much the estimate that is carried on is wrong."""
    now = watch.host.read()
    agreement = holdover(watch.clock_state, now)
    assert agreement is not None
    return abs(float(watch.host.utc - now.realtime_ns - agreement.estimate_ns)) / S


def measured(**named: Any) -> Watch:
    """Return an agent that has just measured a host."""
    watch = Watch(LivingHost(**named))
    watch.network()
    return watch


# --- carried on ---------------------------------------------------------------------------------------------------

DEEDS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 4000), st.integers(-50, 50), st.integers(-100_000, 100_000)),
    st.tuples(st.just("step"), st.sampled_from(STEPS_NS) | st.integers(-HOUR, HOUR)),
    st.tuples(st.just("suspend"), st.floats(0.01, 1e5)),
    st.tuples(st.just("ask"), st.lists(st.integers(-HALF_NS + 1, HALF_NS - 1), min_size=1, max_size=5)),
    st.tuples(st.just("look"), st.integers(0, 200 * US), st.floats(-1, 1)),
)


@given(st.lists(DEEDS, max_size=25), st.integers(-HOUR, HOUR))
@settings(max_examples=250, deadline=None)
def test_the_truth_is_inside_whatever_is_done_to_the_clock(life: list[Any], offset_ns: int) -> None:
    """However the clock is stepped and slewed, by an oscillator within 50 ppm the true offset lies in the interval.

    So does the one that the record has; its corrected time is wrong by less than the interval is wide.
    """
    watch = Watch(LivingHost(offset_ns=offset_ns))
    host = watch.host
    is_lost = True
    for deed in life:
        match deed:
            case "run", seconds, drift_ppm, slew_ppm:
                host.run(seconds, drift_ppm=drift_ppm, slew_ppm=slew_ppm)
            case "step", size_ns:
                if NOON - 57 * YEAR < host.realtime + size_ns < NOON + 400 * YEAR:
                    host.step(size_ns)
            case "suspend", seconds:
                host.suspend(seconds)
                is_lost = True
            case "ask", errors_ns:
                record = watch.network(*host.sources(error_ns=errors_ns)).record
                assert record.offset is not None
                assert record.age_s == 0.0
                is_lost = False
            case "look", width_ns, lean:
                now = host.read(width_ns=width_ns, lean=lean)
                watch.clock_state, _, _ = detect_clock_change(watch.clock_state, now)
                agreement = agree_with_the_truth(watch, now)
                assert agreement is None or not is_lost
        record = watch.local().record
        if record.offset is not None:
            assert not is_lost
            true_s = host.offset / S
            least_s = Fraction(1, 10**8) + abs(true_s) / 2**50
            assert record.offset.earliest_s - least_s <= true_s <= record.offset.latest_s + least_s
            width_s = record.offset.latest_s - record.offset.earliest_s
            assert record.utc_ns is not None
            assert abs(record.utc_ns - host.utc) / S <= width_s + least_s
        else:
            assert record.utc_ns is None
            assert record.severity in (UNKNOWN, CRITICAL)


@pytest.mark.parametrize("drift_ppm", [-50, 50])
@pytest.mark.parametrize("slew_ppm", [-100_000, -500, 0, 500, 83_333, 100_000])
def test_the_worst_oscillator_and_the_fastest_slew(slew_ppm: int, drift_ppm: int) -> None:
    """For a whole day the truth stays inside, at the very edge of what an oscillator may do."""
    watch = Watch(LivingHost(drift_ppm=drift_ppm))
    watch.network(*watch.host.sources(error_ns=[0, HALF_NS * (1 if drift_ppm > 0 else -1)]))
    watch.host.poll_s = None
    for _ in range(23):
        watch.host.run(3600, slew_ppm=slew_ppm)
        assert agree_with_the_truth(watch) is not None


def test_the_interval_grows_with_the_oscillator_alone() -> None:
    """A slew moves the interval and makes it no wider than 50 ppm of the time passed and the readings do (B5, B6)."""
    watch = measured()
    fix = watch.clock_state.agreement
    assert fix is not None
    before = fix.agreement.interval
    watch.host.run(1000, slew_ppm=100_000)
    after = agree_with_the_truth(watch)
    assert after is not None
    grown_ns = after.interval.half_width_ns - before.half_width_ns
    assert grown_ns == 1000 * 50 * US + 120
    middle_ns = (after.interval.earliest_ns + after.interval.latest_ns) // 2
    assert abs(middle_ns - (before.earliest_ns + before.latest_ns) // 2 + 100 * S) <= 1


@pytest.mark.parametrize("seconds", [0.002, 1, 3600, 30 * 86_400])
def test_nothing_is_carried_over_a_suspend(seconds: float) -> None:
    """RAW stood still while the host slept: whether anybody looked meanwhile or not, the clock is unmeasured."""
    watch = measured()
    watch.host.run(60)
    watch.host.suspend(seconds)
    assert holdover(watch.clock_state, watch.host.read()) is None
    watch.host.run(60)
    assert holdover(watch.clock_state, watch.host.read()) is None
    record = watch.local().record
    assert (record.verdict, record.severity, record.offset, record.age_s) == ("unmeasured", UNKNOWN, None, None)
    assert watch.clock_state.samples == ()
    assert watch.network().record.severity is OK


@pytest.mark.parametrize("uptime_s", [1, 5, DAY / S - 1, DAY / S + 1, 2 * DAY / S])
def test_nothing_is_carried_over_a_boot(uptime_s: float) -> None:
    """After a boot the clock is unmeasured, whatever the new uptime is: nothing based on RAW is kept."""
    watch = measured()
    watch.host.reboot()
    watch.host.run(uptime_s)
    watch.restart()
    assert holdover(watch.clock_state, watch.host.read()) is None
    assert watch.local().record.severity is UNKNOWN


@pytest.mark.parametrize("jump_s", [-3600, -61, 61, 3600, 10**7])
def test_nothing_is_carried_where_raw_jumped(jump_s: int) -> None:
    """A RAW clock that leaves MONOTONIC behind by more than any slew does is not believed (B6)."""
    watch = measured()
    watch.host.run(60)
    watch.host.raw_zs += jump_s * ZS_PER_S
    assert holdover(watch.clock_state, watch.host.read()) is None
    assert watch.local().record.severity is UNKNOWN


def test_a_day_later_the_clock_is_unmeasured() -> None:
    """The offset is carried on for a day; thereafter the record has none, and the severity is unknown."""
    watch = measured()
    watch.spend(MAX_CARRY_S, every_s=3600, network_every_s=1e9)
    assert watch.rounds[-1].record.offset is not None
    assert watch.rounds[-1].record.age_s == pytest.approx(86_400)
    last = watch.local().record
    assert last.severity is not UNKNOWN
    watch.host.run(1)
    after = watch.local().record
    assert (after.severity, after.verdict, after.age_s, after.utc_ns) == (UNKNOWN, "unmeasured", None, None)
    assert after.drift is None


@pytest.mark.parametrize(("drift_ppm", "slew_ppm"), [(40, 0), (-40, 0), (30, -200), (5, 5)])
def test_a_known_frequency_makes_the_estimate_good(drift_ppm: int, slew_ppm: int) -> None:
    """Once the oscillator's frequency is measured, the estimate is right within 0.1 ms for an hour, however slewed."""
    watch = Watch(LivingHost(drift_ppm=drift_ppm))
    rand = random.Random(1)
    for _ in range(20):
        errors_ns = [round(rand.gauss(0, 20_000)) for _ in range(4)]
        watch.network(*watch.host.sources(error_ns=errors_ns))
        watch.host.run(INTERVAL_S)
    watch.network()
    watch.host.poll_s = None
    for _ in range(60):
        watch.host.run(60, slew_ppm=slew_ppm)
        assert error_s(watch) < 1e-4


def test_without_a_frequency_the_estimate_follows_the_kernel_s() -> None:
    """Before the frequency is measured, the correction that a daemon has found is taken for right."""
    watch = measured(drift_ppm=45, slew_ppm=45)
    watch.host.run(3600)
    watch.local()
    assert error_s(watch) < 1e-6


@pytest.mark.parametrize("slew_ppm", [-100_000, 400, 83_333])
def test_a_slew_is_not_taken_for_a_frequency(slew_ppm: int) -> None:
    """A correction that no oscillator needs is a slew: the estimate then supposes that the oscillator is right."""
    watch = measured()
    watch.host.poll_s = None
    for _ in range(60):
        watch.host.run(60, slew_ppm=slew_ppm)
        watch.local()
    assert error_s(watch) < 1e-6


def test_without_a_kernel_the_oscillator_is_supposed_to_be_right() -> None:
    """Where the kernel does not answer, the estimate is wrong by the oscillator's drift, and inside the interval."""
    watch = Watch(LivingHost(drift_ppm=45, slew_ppm=45))
    watch.host.kernel_answers = False
    watch.network()
    watch.host.run(3600)
    watch.local()
    assert error_s(watch) == pytest.approx(3600 * 45e-6, rel=0.01)
    assert agree_with_the_truth(watch) is not None


@pytest.mark.parametrize("drift_ppm", [-400, -120, 90, 200, 450])
def test_an_oscillator_that_is_worse_widens_the_interval(drift_ppm: int) -> None:
    """Once a worse oscillator is measured as such, the interval grows by what was measured, and holds the truth."""
    watch = Watch(LivingHost(drift_ppm=drift_ppm))
    watch.host.poll_s = None
    for _ in range(8):
        watch.network()
        watch.host.run(INTERVAL_S, slew_ppm=drift_ppm)
    watch.network()
    for _ in range(60):
        watch.host.run(60)
        agreement = agree_with_the_truth(watch)
    assert agreement is not None
    assert agreement.interval.half_width_ns < HALF_NS + 3600 * 500 * US


@pytest.mark.parametrize("frequency_ppm", [0.0, 20.0, -49.0, 60.0])
def test_a_frequency_that_is_not_sure_widens_nothing(frequency_ppm: float) -> None:
    """As long as the oscillator may be within 50 ppm, that is what the interval grows by."""
    watch = measured()
    line = Fit(frequency_ppm, 40.0, 3, 1.0, 0, 0, 1.0, 1.0, 1.0, 0.0, 1.0)
    watch.clock_state = watch.clock_state._replace(line=line)
    watch.host.run(1000)
    after = holdover(watch.clock_state, watch.host.read())
    assert after is not None
    assert after.interval.half_width_ns == HALF_NS + 2 * 60 * 1 + 1000 * 50 * US + 120


def test_a_frequency_that_is_no_oscillator_s_widens_no_further() -> None:
    """A frequency that falsetickers caused widens the interval by 500 ppm at most."""
    watch = measured()
    watch.clock_state = watch.clock_state._replace(line=Fit(1e6, 1.0, 9, 1.0, 0, 0, 1.0, 1.0, 1.0, 0.0, 1.0))
    watch.host.run(1000)
    after = holdover(watch.clock_state, watch.host.read())
    assert after is not None
    assert after.interval.half_width_ns <= HALF_NS + 1000 * 500 * US + 500


DISCIPLINED = st.lists(
    st.tuples(st.sampled_from(["run", "suspend", "ask", "restart"]), st.integers(1, 4000), st.floats(-1, 1)),
    min_size=3,
    max_size=12,
)


@given(st.integers(-485, 485), st.sampled_from([-1, 1]), DISCIPLINED)
@settings(max_examples=100, deadline=None)
def test_the_truth_is_inside_on_a_disciplined_host_with_a_bad_oscillator(
    kernel_ppm: int, edge: int, life: list[tuple[str, int, float]]
) -> None:
    """As long as the kernel's correction is within 15 ppm of what the oscillator needs, the interval holds (R4).

    Also after a suspend, which leaves no sample to learn the frequency from, and after the daemon took its correction
    back.
    """
    watch = Watch(LivingHost(slew_ppm=kernel_ppm))
    host = watch.host
    watch.network(*host.sources(error_ns=[edge * HALF_NS]))
    for deed, seconds, lean in life:
        match deed:
            case "suspend":
                host.suspend(seconds)
                watch.network(*host.sources(error_ns=[round(lean * (HALF_NS - 1))]))
            case "ask":
                watch.network(*host.sources(error_ns=[round(lean * (HALF_NS - 1))]))
            case "restart":
                watch.restart()
            case "run":
                host.run(seconds, drift_ppm=kernel_ppm + 15 * edge, slew_ppm=kernel_ppm)
        watch.local()
        assert agree_with_the_truth(watch) is not None
    host.run(3000, slew_ppm=0)
    agree_with_the_truth(watch)


@pytest.mark.parametrize("drift_ppm", [60, -80, 100, 400])
def test_after_a_suspend_a_bad_oscillator_is_still_known_as_such(drift_ppm: int) -> None:
    """A daemon that corrects 60, 80 or 100 ppm shows how bad the oscillator is, before there is any line (R4)."""
    watch = measured(drift_ppm=drift_ppm, slew_ppm=drift_ppm)
    watch.host.suspend(3600)
    watch.network(*watch.host.sources(error_ns=[HALF_NS if drift_ppm > 0 else -HALF_NS]))
    watch.host.poll_s = None
    for _ in range(5):
        watch.host.run(60, slew_ppm=0)  # the daemon ends, and takes its correction with it
        agreement = agree_with_the_truth(watch)
        record = watch.local().record
    assert agreement is not None
    assert record.offset is not None
    assert record.offset.max_drift_ppm == abs(drift_ppm) + 15
    assert agreement.interval.half_width_ns == HALF_NS + 300 * (abs(drift_ppm) + 15) * US + 2 * 120


def test_a_slew_is_no_bad_oscillator() -> None:
    """While a daemon slews faster than any kernel's frequency goes, what was known of the oscillator stays (R4)."""
    watch = measured(drift_ppm=80, slew_ppm=80)
    for slew_ppm in (83_333, -10_000, 501):
        watch.host.run(10, slew_ppm=slew_ppm)
        record = watch.local().record
        assert record.offset is not None
        assert record.offset.max_drift_ppm == 95
    watch.host.kernel_answers = False
    record = watch.local().record
    assert record.offset is not None
    assert record.offset.max_drift_ppm == 95


def test_the_assumption_can_be_set() -> None:
    """An operator who knows that the oscillator is worse says so, and the interval grows by that (R4)."""
    watch = Watch(LivingHost(drift_ppm=180))
    watch.terms = watch.terms._replace(max_drift_ppm=200.0)
    watch.host.poll_s = None
    record = watch.network(*watch.host.sources(error_ns=[HALF_NS])).record
    for _ in range(60):
        watch.host.run(60)
        agree_with_the_truth(watch)
    assert record.offset is not None
    assert record.offset.max_drift_ppm == 200
    assert watch.local().record.verdict == "within"


@given(
    st.integers(-500, 500),
    st.floats(-1, 1),
    st.sampled_from([-1, 1]),
    st.lists(st.integers(1, 30_000), min_size=1, max_size=8),
    st.floats(0, 1),
)
@settings(max_examples=100, deadline=None)
def test_no_worst_case_breaks_a_guarantee(
    kernel_ppm: int, lean: float, side: int, waits_s: list[int], share: float
) -> None:
    """For records up to a day old, the tolerance is not left while it is guaranteed, counted from any moment (R3).

    Servers at the edge of their intervals, the worst oscillator that is assumed, and a daemon that is dead but for its
    correction. The guarantee is recomputed from the interval as it has grown, and ages with its record.
    """
    drift_ppm = lean * max(50, abs(kernel_ppm) + 15)
    watch = Watch(LivingHost(drift_ppm=drift_ppm, slew_ppm=kernel_ppm))
    host = watch.host
    host.poll_s = None
    watch.network(*host.sources(error_ns=[side * (HALF_NS - 1)] * 4))
    limit_ns = watch.terms.profile.critical_s * S
    for wait_s in waits_s:
        if sum(waits_s) > 86_300:
            break
        drift = watch.clock_state.drift
        assert drift is not None
        guaranteed_s = drift.breach.guaranteed_s
        later = breach_after(drift.breach, share * guaranteed_s)
        assert later.guaranteed_s == pytest.approx((1 - share) * guaranteed_s, abs=1e-6)
        end = deepcopy(host)
        end.run(guaranteed_s)
        assert guaranteed_s == 0 or abs(end.offset) <= limit_ns + 1
        host.run(wait_s)
        watch.local()


def test_each_local_audit_makes_a_new_forecast() -> None:
    """Seven hours after the last measurement the guarantee is what is left of it, not what it was (R3)."""
    watch = measured(drift_ppm=20, slew_ppm=20)
    watch.spend(3600)
    watch.host.poll_s, watch.host.daemons = None, ()
    for wait_s in (0, 3 * 3600):
        watch.spend(wait_s, network_every_s=1e9)
        record = watch.local().record
        assert record.drift is not None
        assert record.offset is not None
        assert record.drift.breach.guaranteed_s == pytest.approx((1 - record.offset.bound_s) / 70e-6)
    watch.spend(4 * 3600, network_every_s=1e9)
    last = watch.rounds[-1].record
    assert (last.verdict, last.drift and last.drift.breach.guaranteed_s) == ("unproven", 0)


# --- steps and suspends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_ns", STEPS_NS)
def test_a_step_is_reported_at_the_true_time(size_ns: int) -> None:
    """However far the clock is set, the event has its size, both wall times and the true time of the moment."""
    watch = measured(offset_ns=2 * MS)
    watch.host.run(60)
    before = watch.host.read()
    watch.host.step(size_ns)
    watch.look()
    (event,) = watch.events
    assert event.kind == ("step-back" if size_ns < 0 else "step-forward")
    assert event.value_s == size_ns / S
    assert event.detail["before"] == format_utc(before.realtime_ns)
    assert event.detail["after"] == format_utc(before.realtime_ns + size_ns)
    assert event.detail["while_down"] is False
    assert event.utc_ns is not None
    assert abs(event.utc_ns - watch.host.utc) <= 2 * HALF_NS
    assert (event.host_ns, event.boottime_ns) == (before.realtime_ns + size_ns, before.boottime_ns)
    assert event.remedy
    assert not watch.look()


def test_a_step_of_a_clock_that_was_never_measured_has_no_true_time() -> None:
    """Where the true time is not known, the event says so, and has the host's own."""
    watch = Watch(LivingHost())
    watch.host.step(S)
    watch.look()
    assert watch.events[0].utc_ns is None
    assert watch.events[0].host_ns == floor(watch.host.realtime)


def test_the_offset_follows_a_step_at_once() -> None:
    """The next local audit has the clock where the step put it, without a packet, and says that it is not confirmed."""
    watch = measured()
    watch.host.run(60)
    watch.host.step(-3600 * S)
    done = watch.local()
    assert done.record.offset is not None
    assert done.record.offset.estimate_s == pytest.approx(3600, abs=0.01)
    assert (done.record.verdict, done.record.severity, done.record.confirmed) == ("beyond", WARNING, False)
    assert done.is_pending
    assert "step-back" in {finding.id for finding in done.record.findings if finding.severity is WARNING}


def test_a_step_while_the_agent_was_down_is_found() -> None:
    """The stored clock level shows a step since the last run, at the true time, as one while no agent ran (J3)."""
    watch = measured()
    watch.host.run(1000)
    watch.look()
    watch.host.run(50_000, slew_ppm=-300)
    watch.host.step(-2_500 * MS)
    watch.host.run(100)
    watch.restart()
    (event,) = watch.events
    assert (event.kind, event.value_s, event.detail["while_down"]) == ("step-back", -2.5, True)
    assert "while no agent was running" in event.text
    assert event.utc_ns is not None
    assert abs(event.utc_ns - watch.host.utc) < 10 * S
    assert watch.local().record.severity is WARNING
    watch.restart()
    assert watch.changes("step-back") == [True]


def test_a_boot_is_no_step() -> None:
    """A clock that was in 1970 in this boot and right in the last was not set while anybody could see it."""
    watch = measured()
    watch.host.reboot(realtime_ns=12 * S)
    watch.restart()
    assert watch.noticed == []


def test_a_slow_reading_hides_no_step() -> None:
    """A reading that took long can hide a step; the next quick one finds it."""
    watch = measured()
    watch.host.run(60)
    watch.host.step(20 * MS)
    assert not watch.look(width_ns=50 * MS)
    watch.host.run(60)
    assert watch.look()
    assert watch.events[-1].value_s == 0.02
    assert not watch.look()


def test_many_small_steps_are_not_lost() -> None:
    """Steps too small to be seen one by one are seen when their sum is."""
    watch = measured()
    for _ in range(100):
        watch.host.step(-4 * US)
        watch.look(width_ns=0)
    assert sum(event.value_s or 0 for event in watch.events) == pytest.approx(-400e-6, abs=13e-6)


@pytest.mark.parametrize("has_measured", [True, False])
@pytest.mark.parametrize("is_down", [True, False])
def test_a_suspend_is_no_gap(is_down: bool, has_measured: bool) -> None:
    """While the host slept it wrote no log that would need evidence: only its waking time counts."""
    watch = measured() if has_measured else Watch(LivingHost())
    for _ in range(5):
        watch.host.run(80)
        watch.host.suspend(28_800)
        if is_down:
            watch.restart()
        watch.local()
    assert watch.changes("evidence-gap") == []
    watch.host.run(600)
    watch.local()
    assert watch.changes("evidence-gap") == [True]
    watch.network()
    watch.local()
    assert watch.changes("evidence-gap") == [True, False]
    gaps = [event for event in watch.events if event.kind == "evidence-gap"]
    assert gaps[0].value_s == pytest.approx(1000)


YEAR_END = 1_798_761_600 * S
"""2026-12-31T24:00:00Z."""


def leaping(leap: int, kernel_leap: int, announced: int, *, offset_ns: int = 0, before_s: float = 700) -> Watch:
    """Return an agent that measures a host shortly before a leap second."""
    host = LivingHost(offset_ns=offset_ns, utc_ns=YEAR_END - round(before_s * S))
    host.leap_at = YEAR_END
    host.leap, host.kernel_leap, host.indicator = leap, kernel_leap, {1: 1, -1: 2, 0: 0}[announced]
    watch = Watch(host)
    watch.network()
    return watch


def check_the_truth(watch: Watch) -> None:
    """Look at the host alone, and check that its record holds the truth."""
    offset = watch.local().record.offset
    assert offset is not None
    assert offset.earliest_s - 1e-6 <= float(watch.host.offset) / S <= offset.latest_s + 1e-6


@given(
    st.sampled_from([1, -1]),
    st.sampled_from(["both", "kernel only", "servers only", "a false kernel"]),
    st.integers(-5 * S, 5 * S),
    st.floats(1, 900),
    st.lists(st.sampled_from([0.2, 0.9, 1.3, 7.0, 61.0]), min_size=30, max_size=60),
    st.booleans(),
)
@example(1, "both", -S, 1.0, [0.2] * 30, False)  # a reading just when the month ends, and the kernel's tick after it
@example(1, "kernel only", -S, 1.0, [0.2] * 30, False)
@example(1, "both", -11 * S // 10, 1.0, [0.2] * 30, False)
@example(1, "kernel only", -11 * S // 10, 1.0, [0.2] * 30, False)
@settings(max_examples=80, deadline=None)
def test_the_interval_is_right_across_a_leap_second(
    leap: int, who: str, offset_ns: int, before_s: float, waits_s: list[float], restarts: bool
) -> None:
    """Whichever servers announce the leap second, and whenever the clock applies it: the truth stays inside (R11).

    The kernel's own is never a step. A kernel that makes one that UTC does not make is no longer right, and the
    interval says that this may be so.
    """
    kernel_leap = 0 if who == "servers only" else leap
    announced = leap if who in ("both", "servers only") else 0
    true_leap = 0 if who == "a false kernel" else leap
    # The world begins before the month ends by the host's clock: a kernel makes its leap second within a tick of that.
    before_s = max(before_s, -offset_ns / S)
    watch = leaping(true_leap, kernel_leap, announced, offset_ns=offset_ns, before_s=before_s)
    if who == "kernel only":  # before the host's clock makes it nothing here can know of it
        watch.host.run(max(0.0, before_s + max(0.0, offset_ns / S) - 0.5))
    for wait_s in waits_s:
        watch.host.run(wait_s)
        if restarts:
            watch.restart()
        if who == "kernel only" and watch.host.kernel_leap != (0 if not watch.host.leap else leap):
            continue  # UTC is past it and the host is not yet
        check_the_truth(watch)
    assert watch.changes("step-back") == watch.changes("step-forward") == []
    assert watch.clock_state.steps == ()


@pytest.mark.parametrize("leap", [1, -1])
@pytest.mark.parametrize("restarts", [False, True])
def test_an_inserted_leap_second_is_not_reported(leap: int, restarts: bool) -> None:
    """A host whose kernel and servers make it together is within its tolerance before, during and after it (R11)."""
    watch = leaping(leap, leap, leap, before_s=350)
    verdicts = []
    for _ in range(80):
        watch.host.run(7)
        if restarts:
            watch.restart()
        check_the_truth(watch)
        verdicts.append(watch.rounds[-1].record.verdict)
        if watch.host.realtime > YEAR_END + 60 * S:
            watch.host.indicator = watch.host.state = 0
    assert set(verdicts[:49] + verdicts[52:]) == {"within"}
    for _ in range(8):
        watch.host.run(300)
        assert watch.network().record.severity is OK
        watch.host.run(60)
        check_the_truth(watch)
    assert watch.events == []
    assert watch.clock_state.line is not None
    assert watch.clock_state.line.frequency_ppm == pytest.approx(0, abs=1e-3)
    assert watch.clock_state.leapt == 0


def test_a_leap_second_while_no_agent_ran_is_known_by_tai() -> None:
    """If the daemon cleared the kernel's state before the next reading, TAI - UTC still shows it (R11)."""
    watch = leaping(1, 1, 0)
    watch.local()
    watch.host.run(3000)
    watch.host.state = 0
    watch.restart()
    assert (watch.events, watch.clock_state.leapt) == ([], 1)
    check_the_truth(watch)


@pytest.mark.parametrize(("state", "tai"), [(0, 37), (1, 37), (5, 37), (0, 36), (0, 39)])
def test_a_step_of_a_second_at_the_end_of_a_month_is_a_step(state: int, tai: int) -> None:
    """Without the kernel's word or the servers', a second is set back like any other."""
    watch = leaping(0, 0, 0, before_s=10)
    watch.local()
    watch.host.run(11)
    watch.host.set_clock(-S)
    watch.host.state, watch.host.tai_s = state, tai
    watch.look()
    assert watch.changes("step-back") == [True]


def test_a_step_of_a_second_on_another_day_is_a_step() -> None:
    """A kernel that still waits after its last leap second excuses nothing in the middle of a month."""
    watch = measured()
    watch.host.state, watch.host.indicator = 4, 1
    watch.network()
    watch.host.run(60)
    watch.host.step(-S)
    watch.local()
    assert watch.changes("step-back") == [True]


def test_a_step_beside_the_leap_second_is_reported() -> None:
    """Of a step that is a leap second and 30 ms more, the 30 ms are reported."""
    watch = leaping(1, 1, 1, before_s=10)
    watch.host.run(12)
    watch.host.set_clock(-30 * MS)
    watch.look()
    assert [event.value_s for event in watch.events] == [-0.03]
    check_the_truth(watch)


def test_a_suspend_is_noticed_once() -> None:
    """A suspend is reported with its length, once, and is no step."""
    watch = measured()
    started_ns = watch.clock_state.started_ns
    watch.host.suspend(28_800)
    watch.look()
    watch.look()
    assert watch.clock_state.started_ns == started_ns + 28_800 * S
    assert watch.noticed == ["the host was suspended for 8 h; measuring again"]
    assert watch.events == []


@pytest.mark.parametrize("order", [1, -1])
def test_however_many_steps_little_is_remembered(order: int) -> None:
    """Of ten thousand steps only those are kept that a finding may report, and the worst of each direction."""
    watch = measured()
    sizes_ns = sorted((random.Random(3).randrange(-S, S) for _ in range(3000)), key=abs, reverse=order > 0)
    for size_ns in sizes_ns:
        watch.host.step(size_ns)
        watch.host.run(0.1)
        watch.clock_state, _, _ = detect_clock_change(watch.clock_state, watch.host.read())
    assert len(watch.clock_state.steps) <= 64
    kept = [step.size_ns for step in watch.clock_state.steps]
    assert (min(kept), max(kept)) == (min(sizes_ns), max(sizes_ns))


@given(st.lists(st.tuples(st.integers(-3000, 3000), st.integers(1, 1200)), max_size=12), st.sampled_from([10, 86_400]))
@settings(max_examples=150, deadline=None)
def test_the_worst_step_of_the_last_hour_is_listed(life: list[tuple[int, int]], uptime_s: int) -> None:
    """The finding reports the worst of all steps of its direction in the last hour, early ones last."""
    watch = Watch(LivingHost(uptime_ns=uptime_s * S))
    steps = []
    for size_ms, seconds in life:
        size_ns = size_ms * MS
        watch.host.step(size_ns)
        if abs(size_ns) >= 10 * MS:
            steps.append((watch.host.boottime_ns > 300 * S, abs(size_ns), size_ns > 0, watch.host.boottime_ns))
        watch.look()
        watch.host.run(seconds)
    record = watch.local().record
    for kind, is_forward in (("step-back", False), ("step-forward", True)):
        recent = [step for step in steps if step[2] is is_forward and watch.host.boottime_ns - step[3] <= HOUR]
        found = [finding for finding in record.findings if finding.id == kind]
        assert bool(found) == bool(recent)
        if recent:
            is_late, size_ns, _, _ = max(recent)
            assert found[0].level == (("high" if size_ns >= S else "medium") if is_late else "low")


def test_a_step_is_listed_for_an_hour() -> None:
    """A step is in every record of the hour after it, and in none later; it is one event."""
    watch = measured()
    watch.host.step(-2 * S)
    watch.look()
    watch.spend(3660)
    listed = [any(f.id == "step-back" for f in done.record.findings) for done in watch.rounds[1:]]
    assert listed == [True] * (len(listed) - 1) + [False]
    assert watch.changes("step-back") == [True]


# --- measured, and not --------------------------------------------------------------------------------------------


def test_an_audit_without_a_measurement_is_judged_by_what_is_carried_on() -> None:
    """Servers that fall silent leave the offset that was measured, with its age; the votes are this audit's."""
    watch = measured()
    watch.host.run(300)
    record = watch.network(*SILENT).record
    assert (record.kind, record.verdict, record.severity, record.confirmed) == ("network", "within", OK, True)
    assert record.age_s == pytest.approx(300)
    assert record.agreement == SourceCounts(4, 0, 0, 1, asked=4, guaranteed=True)  # of the interval carried on
    assert len(record.sources) == 4


def test_a_local_audit_has_the_votes_of_the_measurement() -> None:
    """A local audit queried no server: it has no sources, and the counts of the audit that it carries forward."""
    watch = measured()
    watch.host.run(60)
    record = watch.local().record
    assert (record.kind, record.sources, record.agreement) == ("local", (), SourceCounts(4, 4, 4, 1, asked=4))
    assert record.age_s == pytest.approx(60)
    assert record.drift is not None
    assert Watch(LivingHost()).local().record.agreement == SourceCounts(0, 0, 0, 0, guaranteed=False)


# --- too few replies to prove anything (R1) -----------------------------------------------------------------------

THREE_LOST = tuple(failed(number) for number in (2, 3, 4))


def ask_one(watch: Watch, error_ns: int = 0, after_s: float = 300) -> Round:
    """Let time pass and ask four servers of which one replies."""
    watch.host.run(after_s)
    return watch.network(*watch.host.sources(error_ns=(error_ns,)), *THREE_LOST)


def test_what_proves_nothing_does_not_replace_what_was_proven() -> None:
    """One reply of four leaves the last agreement's interval in force; it is no sample, a finding, and no gap."""
    watch = measured()
    fix, samples = watch.clock_state.agreement, watch.clock_state.samples
    for _ in range(12):
        done = ask_one(watch, 5 * MS)
        assert (done.record.verdict, watch.clock_state.samples) == ("within", samples)
        assert done.record.agreement == SourceCounts(4, 1, 1, 1, asked=4, guaranteed=True)
        agree_with_the_truth(watch)
    assert (watch.clock_state.agreement, watch.clock_state.samples) == (fix, samples)
    assert done.record.age_s == pytest.approx(3600)
    assert [(one.id, one.level) for one in done.record.findings if one.level != "low"] == [
        ("source-quorum", "medium"),
        ("unreachable-sources", "medium"),
    ]
    assert watch.changes("evidence-gap") == []


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        (
            (ConfiguredServer("ntp1.example.net", key=True), ConfiguredServer("192.0.2.1", nts=True)),
            ", but 2 of its servers reply to ntpaudit, which queries without authentication; one possible cause: "
            "wrong keys or certificates",
        ),
        (
            (ConfiguredServer("ntp1.example.net"), ConfiguredServer("elsewhere")),
            ", but 1 of its servers replies to ntpaudit",
        ),
        ((ConfiguredServer("elsewhere", key=True),), ""),
    ],
)
def test_a_daemon_whose_servers_reply_to_us_has_another_fault(
    servers: tuple[ConfiguredServer, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words stay until the next poll; a daemon that is synchronised, or servers that do not reply, have none."""
    watch = measured()
    configured, host = Configuration(servers), watch.host
    claim = Claim(0, is_synchronised=False, leap=3)
    monkeypatch.setattr(host, "read_kernel", lambda: UNSYNCHRONISED)
    said = []
    for claimed, sources in (
        (claim, host.sources()),
        (claim, ()),
        (claim._replace(is_synchronised=True), ()),
        (claim, SILENT),
    ):
        host.daemons = (Daemon("ntpd", 812, claim=claimed, configuration=configured),)
        host.run(300)
        done = watch.network(*sources) if sources else watch.local()
        (message,) = [one.message for one in done.record.findings if one.id == "unsynced"]
        said.append(message.partition("; ntpd reports that it ")[2].partition(". Pending")[0])
    unsynchronised = "is not synchronised and follows no server"
    assert said == [unsynchronised + words, unsynchronised + words, "is synchronised", unsynchronised]


LAST_MEASURED = r"\. Last measured (.+): the replies since then prove no offset, so this stays raised$"


@pytest.mark.parametrize("replies", ["one", "none", "two falsetickers"])
def test_a_repair_that_nothing_proves_ends_nothing_and_is_said(replies: str) -> None:
    """A step sets a wrong clock right while too few servers reply: offset-out stays, as what was proven last."""
    watch = measured()
    watch.host.step(-10 * S)
    watch.spend(1800)
    assert watch.rounds[-1].record.severity is CRITICAL
    proven = watch.clock_state.agreement
    assert proven is not None
    watch.host.step(10 * S)
    for _ in range(6):
        watch.host.run(300)
        replies_of = {
            "one": (*watch.host.sources(error_ns=(5 * MS,)), *THREE_LOST),
            "none": SILENT,
            "two falsetickers": (*watch.host.sources(error_ns=(S, -S)), *THREE_LOST[:2]),
        }[replies]
        records = [watch.network(*replies_of).record]
        watch.host.run(60)
        records.append(watch.local().record)
        for record in records:
            assert (record.verdict, record.severity) == ("within", CRITICAL)
            message = next(one.message for one in record.findings if one.id == "offset-out")
            found = re.search(LAST_MEASURED, message)
            assert found, message
            assert found[1] == f"{format_duration(record.age_s or 0)} ago"
    for turn in range(3):
        watch.host.run(300)
        record = watch.network().record
        assert "Last measured" not in str(record.findings)
        assert ("offset-out" in {one.id for one in record.findings}) == (turn < 2)


@pytest.mark.parametrize("better", [1, 2])
def test_what_was_disproven_last_does_not_count_as_proven(better: int) -> None:
    """After samples that were better nothing says that the finding itself was proven at the last of them."""
    watch = measured()
    watch.host.step(-10 * S)
    watch.spend(1800)
    watch.host.step(10 * S)
    for _ in range(better):
        watch.host.run(120)
        assert watch.network().record.severity is CRITICAL
    message = next(one.message for one in ask_one(watch).record.findings if one.id == "offset-out")
    assert "Improving: cleared after 3 samples in a row below 70 % of the tolerance" in message
    assert ". Last measured 5 min ago: the replies since then prove no offset, so this stays raised" in message


def test_what_was_proven_before_a_boot_says_so() -> None:
    """Uptimes of that boot say nothing of how long ago it was."""
    watch = measured()
    watch.host.step(-10 * S)
    watch.spend(1800)
    watch.host.reboot()
    watch.restart()
    watch.host.run(1200)
    record = ask_one(watch).record
    message = next(one.message for one in record.findings if one.id == "offset-out")
    found = re.search(LAST_MEASURED, message)
    assert found, message
    assert found[1] == "before this boot"


def test_between_two_polls_nothing_is_overdue() -> None:
    """A local audit carries forward what was proven, as it should: there is no message about it."""
    watch = measured()
    watch.host.step(-10 * S)
    watch.spend(3600)
    findings = [one for done in watch.rounds for one in done.record.findings if one.id == "offset-out"]
    assert len(findings) > 40
    assert "Last measured" not in str(findings)


@pytest.mark.parametrize("error_ns", [0, 2 * S, HOUR])
def test_one_reply_of_four_is_never_within_nor_beyond(error_ns: int) -> None:
    """Where nothing is known from before it is shown and judged unproven: in local audits and after a restart too."""
    watch = Watch(LivingHost())
    for turn in range(6):
        done = ask_one(watch, error_ns)
        assert (done.record.verdict, done.record.agreement) == (
            "unproven",
            SourceCounts(4, 1, 1, 0, asked=4, guaranteed=False),
        )
        assert done.record.severity is (UNKNOWN if turn < 2 else WARNING)
        assert done.record.confirmed == (turn >= 2)
        assert (done.record.agreement.guaranteed, watch.clock_state.samples) == (False, ())
        watch.host.run(60)
        assert watch.local().record.verdict == "unproven"
    assert watch.clock_state.samples == ()
    assert {one.id for one in done.record.findings} == {"source-quorum", "unreachable-sources"}
    fix = watch.clock_state.agreement
    assert fix is not None
    assert not fix.agreement.is_guaranteed
    assert watch.network().record.verdict == "within"


# --- outvoted -----------------------------------------------------------------------------------------------------


def ask(watch: Watch, *errors_ns: int, after_s: float = 300) -> Round:
    """Let time pass and ask as many servers as there are errors."""
    watch.host.run(after_s)
    return watch.network(*watch.host.sources(error_ns=errors_ns))


def test_a_server_that_was_outvoted_is_not_believed_when_it_is_asked_alone() -> None:
    """One wrong by 2 s, and four of an hourly pool: never an alarm of the offset, nor a gap; it is reported."""
    watch = measured()
    for turn in range(48):
        done = ask(watch, 2 * S) if turn % 12 else ask(watch, 2 * S, 0, 0, 0, 0)
        assert done.record.verdict == "within"
        assert abs(error_s(watch)) < 0.01
        watch.host.run(60)
        watch.local()
    assert {kind for kind in _kinds(watch.events) if watch.changes(kind)} == {"source-quorum"}
    (_, medium) = [event for event in watch.events if event.kind == "source-quorum"]
    assert (medium.level, medium.detail) == ("medium", {})
    assert watch.rounds[-2].record.severity is WARNING


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("honest_first", [1, 3])
def test_a_falseticker_that_agrees_first_is_not_believed_afterwards(honest_first: int, restarts: bool) -> None:
    """A clock that four servers prove to be 30 s behind stays so, whatever the one says that is asked alone (R5)."""
    watch = Watch(LivingHost(offset_ns=30 * S))
    for _ in range(3):
        watch.host.run(300)
        watch.network()
    for turn in range(24):
        done = ask(watch, 0 if turn < honest_first else -30 * S)
        assert done.record.verdict == "beyond"
        if restarts:
            watch.restart()
    assert watch.changes("contradicts-earlier") == []
    assert done.record.severity is CRITICAL
    assert ask(watch, -30 * S, 0, 0, 0).record.agreement == SourceCounts(4, 4, 3, 1, asked=4)
    assert watch.clock_state.stronger_agreement is None


def test_a_source_that_contradicts_fewer_is_held_against_them_alone() -> None:
    """Of two that were asked alone one must be wrong; the four of before, which allow both, stay what they are."""
    watch = measured()
    firm = watch.clock_state.agreement
    ask(watch, 15 * MS)
    done = ask(watch, -15 * MS)
    assert (done.record.verdict, done.record.age_s) == ("within", 0)
    assert watch.clock_state.stronger_agreement == firm
    assert ask(watch, 2 * S).record.verdict == "within"
    assert done.record.agreement.max_falsetickers == 0


def test_the_finding_says_who_contradicts_whom() -> None:
    """An outvoted audit reports it, calls its servers falsetickers, is no sample, and leaves the agreement alone."""
    watch = measured()
    fix, samples = watch.clock_state.agreement, watch.clock_state.samples
    done = ask(watch, 2 * S)
    (found,) = [finding for finding in done.record.findings if finding.id == "source-quorum"]
    assert found.message.startswith("ntp1.example.net contradicts the 4 servers that agreed 5 min ago")
    assert (found.level, done.is_pending) == ("low", True)  # not confirmed yet
    assert [(one.status, one.reason) for one in done.record.sources] == [("falseticker", "disagrees")]
    assert done.record.agreement == SourceCounts(1, 1, 0, 1, asked=1)
    assert fix is not None
    assert watch.clock_state.agreement == fix._replace(contradicted_by=("ntp1.example.net 192.0.1.1",))
    assert watch.clock_state.samples == samples
    assert done.record.age_s == pytest.approx(300)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_more_than_can_be_wrong_are_believed(count: int) -> None:
    """A fault of the clock that RAW does not show is found if more servers report it than can be wrong."""
    watch = Watch(LivingHost())
    ask(watch, *[0] * min(count, 4))
    severities = [ask(watch, *[2 * S] * count).record.severity for _ in range(3)]
    assert severities[-1] is CRITICAL
    assert watch.changes("offset-out") == [True]


CHANGES_S = st.floats(1, 1e6) | st.floats(-1e6, -1)


@given(st.integers(1, 9), st.integers(1, 9), CHANGES_S, st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_agreement_stands_only_against_as_many_as_may_lie(
    before: int, after: int, change_s: float, restarts: bool
) -> None:
    """After a pause that no clock counts, the record holds the truth as soon as more answer than can be wrong (R5, R6).

    Two servers that contradict an agreement of four cannot both lie. A single one can: it is rejected.
    """
    watch = Watch(LivingHost())
    ask(watch, *[0] * before)
    watch.host.run(300)
    watch.host.pause(change_s)
    if restarts:
        watch.restart()
    record = watch.network(*watch.host.sources(error_ns=[0] * after)).record
    assert record.offset is not None
    true_s, found = float(watch.host.offset) / S, {finding.id: finding for finding in record.findings}
    if after <= (before - 1) // 3:
        assert {source.status for source in record.sources} == {"falseticker"}
        assert "contradicts-earlier" not in found
        return
    assert record.offset.earliest_s <= true_s <= record.offset.latest_s
    assert record.age_s == 0
    assert found["contradicts-earlier"].level == "high"
    (event,) = [event for event in watch.events if event.kind == "contradicts-earlier"]
    expected_s, reported_s = event.detail["expected_s"], event.detail["heard_s"]
    assert reported_s == [record.offset.earliest_s, record.offset.latest_s]
    assert expected_s[0] <= 0 <= expected_s[1]
    gap_s = reported_s[0] - expected_s[1] if change_s > 0 else reported_s[1] - expected_s[0]
    assert event.value_s == pytest.approx(gap_s)


def test_a_paused_virtual_machine_with_two_of_four_servers_cut_off() -> None:
    """A pause of 30 s is found at the first replies, although only two servers can be reached, one event (R7)."""
    watch = measured()
    watch.spend(3600)
    assert watch.local().record.verdict == "within"
    watch.host.pause(30)
    for _ in range(3):
        watch.host.run(300)
        honest = watch.host.sources(error_ns=[MS, -MS])
        record = watch.network(*honest, failed(3), failed(4)).record
        assert record.verdict == "beyond"
        (found,) = [finding for finding in record.findings if finding.id == "contradicts-earlier"]
        assert found.message == (
            "2 servers contradict the measurement made 5 min before: the difference is at least 29.9 s. Expected "
            "offset: 25 ms ahead to 25 ms behind; reported: about 30 s behind. The earlier measurement is discarded"
        )
    assert record.severity is CRITICAL
    assert watch.changes("contradicts-earlier") == [True]
    assert watch.changes("offset-out") == [True]
    watch.spend(3700)
    assert watch.changes("contradicts-earlier") == [True, False]


def test_a_pause_after_which_the_time_daemon_corrects_the_clock_is_found_too() -> None:
    """What a daemon did to the clock is known: after its step the clock is right, and the record says so at once."""
    watch = measured()
    watch.host.run(200)
    watch.host.pause(30)
    watch.host.run(20)
    watch.host.step(30 * S)
    assert watch.local().record.verdict == "beyond"  # R7: until a server answers, the pause cannot be seen
    watch.host.run(80)
    record = watch.network(*watch.host.sources(error_ns=[0, 0])).record
    assert (record.verdict, watch.changes("contradicts-earlier")) == ("within", [True])


def test_servers_that_contradict_one_after_the_other_are_counted_together() -> None:
    """One of four may lie; a second one that contradicts them, asked later and alone, proves that they moved (R5)."""
    watch = measured()
    watch.host.pause(30)
    first, second = (watch.host.sources()[number] for number in (0, 1))
    for _ in range(3):
        watch.host.run(300)
        first = watch.host.sources()[0]
        assert watch.network(first).record.verdict == "within"
    watch.restart()
    watch.host.run(300)
    second = watch.host.sources()[1]
    assert watch.network(second).record.verdict == "beyond"
    assert watch.changes("contradicts-earlier") == [True]


def test_what_proves_nothing_contradicts_nothing() -> None:
    """One usable answer of four guarantees nothing (R1): that four say otherwise later is no proof of a movement."""
    watch = Watch(LivingHost())
    watch.network(watch.host.sources(error_ns=[2 * S])[0], failed(2), failed(3), failed(4))
    assert not watch.rounds[-1].record.agreement.guaranteed
    record = ask(watch, 0, 0, 0, 0).record
    assert record.verdict == "within"
    assert watch.changes("contradicts-earlier") == []


def test_an_answer_that_is_too_wide_to_contradict_is_not_counted() -> None:
    """Of two servers only one contradicts the four: it may lie, and the other allows what they said."""
    watch = measured()
    watch.host.run(300)
    wide = answered(1, measurement(0, 900 * MS, after=watch.host.read()))
    falseticker = answered(2, measurement(800 * MS, 10 * MS, after=watch.host.read()))
    record = watch.network(wide, falseticker).record
    assert [source.status for source in record.sources] == ["agreeing", "falseticker"]
    assert (record.verdict, watch.changes("contradicts-earlier")) == ("within", [])


@pytest.mark.parametrize("drift_ppm", [-400, 90, 120, 450])
def test_a_bad_oscillator_is_learnt_although_its_answers_contradict(drift_ppm: int) -> None:
    """An oscillator that is worse than assumed looks like a disturbed RAW, until its frequency is known."""
    watch = Watch(LivingHost(drift_ppm=drift_ppm))
    watch.host.poll_s, watch.host.daemons, watch.host.is_synchronised = None, (), False
    for _ in range(24):
        watch.host.run(300)
        watch.network(*watch.host.sources(error_ns=[0] * 4, half_width_ns=MS))
    assert watch.changes("contradicts-earlier") == [True, False]
    assert watch.clock_state.line is not None
    assert watch.clock_state.line.frequency_ppm == pytest.approx(drift_ppm)


def test_samples_from_before_a_pause_belong_to_no_line() -> None:
    """After a contradiction that no oscillator explains, the frequency is measured again, also after a restart."""
    watch = measured()
    watch.spend(3600)
    before = watch.clock_state
    watch.host.pause(30)
    watch.host.run(300)
    watch.network()
    assert (len(before.samples), before.line is None) == (13, False)
    assert (len(watch.clock_state.samples), watch.clock_state.line is None) == (1, True)
    assert watch.clock_state.samples[0].raw_ns == watch.host.read().raw_ns


def test_fewer_that_agree_with_what_is_carried_on_are_a_sample() -> None:
    """One server asked alone measures like any other, as long as it does not contradict what more have said."""
    watch = measured()
    done = ask(watch, 5 * MS)
    assert (done.record.age_s, done.record.agreement) == (0.0, SourceCounts(1, 1, 1, 0, asked=1))
    assert watch.clock_state.measured_ns == done.record.boottime_ns


def test_no_agreement_is_held_for_longer_than_it_can_be_carried_on() -> None:
    """What more servers said stands for a day against fewer, and not over a suspend: then these are all there is."""
    watch = measured()
    for _ in range(287):
        assert ask(watch, 9 * S).record.verdict != "beyond"
    assert [ask(watch, 9 * S).record.verdict for _ in range(3)][-1] == "beyond"
    watch = measured()
    watch.host.suspend(100)
    assert ask(watch, 9 * S).record.verdict == "beyond"


def test_an_outvoted_reply_is_no_gap_and_ends_a_raised_one() -> None:
    """Servers that contradict more of them did reply; the finding has the time without a reply, as ever."""
    watch = measured()
    for _ in range(20):
        ask(watch, 2 * S)
    assert watch.changes("evidence-gap") == []
    watch.host.run(7200)
    done = ask(watch, 2 * S)
    (gap,) = [finding for finding in done.record.findings if finding.id == "evidence-gap"]
    assert gap.message == "no measurement for 2.08 h before this one"


@pytest.mark.untraced
def test_a_gap_is_raised_after_three_intervals_and_is_high_after_a_day() -> None:
    """From three intervals on it is listed under the silence of the servers; at its end it counts with its duration."""
    watch = measured()
    seen: list[tuple[float, str | None]] = []
    for minute in range(1, 25 * 60):
        watch.host.run(60)
        record = (watch.network(*SILENT) if minute % 5 == 0 else watch.local()).record
        levels = [finding.level for finding in record.findings if finding.id == "evidence-gap"]
        seen.append((minute, levels[0] if levels else None))
        assert record.severity >= (WARNING if minute > 16 else OK)
    assert [level for _, level in seen] == [None] * 16 + ["medium"] * (24 * 60 - 16) + ["high"] * 59
    watch.network()
    watch.local()
    raised = [(event.raised, event.level) for event in watch.events if event.kind == "evidence-gap"]
    assert raised == [(True, "high"), (False, "high")]
    texts = [event.text for event in watch.events if event.kind == "evidence-gap"]
    assert [text.startswith("no longer true: ") for text in texts] == [False, True]
    values = [event.value_s for event in watch.events if event.kind == "evidence-gap"]
    assert values[0] == pytest.approx((25 * 60 - 1) * 60)


def test_an_agent_that_has_never_measured_waits_three_intervals() -> None:
    """From its very first start an agent reports the gap after three intervals, as there was nothing before."""
    watch = Watch(LivingHost())
    watch.spend(17 * 60, every_s=60, network_every_s=1e9)
    assert watch.changes("evidence-gap") == [True]
    assert watch.rounds[15].events == ()


@pytest.mark.parametrize(("down_s", "expected"), [(600, []), (1000, [True, False]), (90_000, [True, False])])
@pytest.mark.parametrize("boots", [False, True])
def test_a_gap_over_a_restart_is_reported_once(down_s: float, expected: list[bool], boots: bool) -> None:
    """The time without a measurement is known after a restart by uptime, after a boot by the true time; one event."""
    watch = measured()
    watch.host.poll_s = None
    if boots:
        watch.host.reboot(off_s=down_s, realtime_ns=12 * S)
    else:
        watch.host.run(down_s)
    watch.restart()
    watch.host.run(3)
    first = watch.network()
    watch.host.run(60)
    watch.local()
    watch.host.run(240)
    watch.network()
    watch.local()
    assert watch.changes("evidence-gap") == expected
    if expected:
        (gap,) = [event for event in first.events if event.kind == "evidence-gap"]
        assert gap.value_s == pytest.approx(down_s + 3, rel=1e-3)
        assert gap.level == ("high" if down_s > 86_400 else "medium")


def test_a_gap_that_began_before_a_boot_goes_on_after_it() -> None:
    """An agent that starts late in a boot and reaches no server reports at once that nothing was measured in it."""
    watch = measured()
    watch.host.reboot()
    watch.host.run(90_000)
    watch.restart()
    (gap,) = watch.local().events
    assert (gap.kind, gap.level) == ("evidence-gap", "high")
    watch.host.run(60)
    watch.network()
    watch.local()
    assert watch.changes("evidence-gap") == [True, False]


def test_records_that_were_given_up_are_a_gap_of_the_moment() -> None:
    """Records dropped undelivered are reported in the next audit, as high, and cleared in the one after; no length."""
    watch = measured()
    watch.host.run(60)
    (gap,) = watch.local(dropped=17).events
    assert (gap.kind, gap.raised, gap.level, gap.value_s) == ("evidence-gap", True, "high", None)
    assert gap.text.startswith("17 records were lost before delivery")
    watch.local()
    assert watch.changes("evidence-gap") == [True, False]


def test_two_lost_audits_are_no_gap() -> None:
    """Two audits of three that fail, for a day, with the jitter of the schedule, are no gap yet."""
    watch = measured()
    rand = random.Random(5)
    for turn in range(288):
        watch.host.run(INTERVAL_S * rand.uniform(0.95, 1.05))
        watch.network(*(watch.host.sources() if turn % 3 == 0 else SILENT))
    assert watch.changes("evidence-gap") == []


# --- the time daemon ----------------------------------------------------------------------------------------------


def stale(watch: Watch) -> bool:
    """Whether a stopped daemon is raised just now."""
    return watch.clock_state.debounce.conditions["daemon-stale"].raised > 0


@pytest.mark.untraced
@pytest.mark.parametrize("every_s", [1.0, 7.3, 60.0, 61.7, 299.0, 1800.0])
@pytest.mark.parametrize(("poll_s", "phase_s"), [(64, 0.0), (64, 0.4), (64, 33.3), (64, 63.0), (2, 0.4)])
def test_a_stopped_daemon_is_found_after_its_limit(every_s: float, poll_s: float, phase_s: float) -> None:
    """Whenever the audits are, a daemon that stopped is reported after 1 h, 20 min more at most, not sooner."""
    watch = measured()
    watch.host.poll_s = poll_s
    watch.host.run(phase_s)
    for _ in range(50):
        watch.local()
        watch.host.run(every_s)
    stopped_zs = watch.host.updated_zs
    watch.host.poll_s = None
    while not stale(watch):
        watch.host.run(every_s)
        watch.local()
        silent_s = (watch.host.raw_zs - stopped_zs) / ZS_PER_S
        assert silent_s <= 3600 + 64 + 1200 + 4 * every_s
    assert silent_s > 3600
    (raised_event,) = [event for event in watch.events if event.kind == "daemon-stale"]
    assert (raised_event.level, raised_event.raised) == ("medium", True)
    assert raised_event.value_s is not None
    assert raised_event.value_s <= silent_s + 4  # for this time the maximum error may grow within its tolerance


@pytest.mark.untraced
@pytest.mark.parametrize("every_s", [1.0, 13.0, 60.0, 64.0, 600.0])
@pytest.mark.parametrize("poll_s", [0.5, 1, 2, 16, 64, 256, 1024])
def test_a_daemon_at_work_is_never_stale(poll_s: float, every_s: float) -> None:
    """A daemon that updates the kernel at any of chrony's intervals, to about the same error, is never reported."""
    watch = Watch(LivingHost(drift_ppm=20, slew_ppm=20))
    watch.host.poll_s = poll_s
    rand = random.Random(7)
    for _ in range(round(15_000 / every_s) if every_s > 1 else 5000):
        watch.host.daemon_error_s = 0.0002 + rand.random() * 0.0005
        watch.host.run(every_s)
        watch.local()
    assert watch.changes("daemon-stale") == []


@pytest.mark.parametrize(("daemons", "expected"), [((TIMESYNCD,), []), ((Daemon("ntpd", 1),), [True, False] * 2)])
def test_timesyncd_may_be_slower(daemons: tuple[Daemon, ...], expected: list[bool]) -> None:
    """systemd-timesyncd polls every 2048 s at its slowest; after three polls it is stale, another daemon after 1 h."""
    watch = Watch(LivingHost())
    watch.host.poll_s, watch.host.daemon_error_s, watch.host.daemons = 2048, 0.0, daemons
    watch.spend(12 * 2048, network_every_s=1e9)
    assert watch.changes("daemon-stale") == []
    watch.host.poll_s = 5400
    watch.spend(3 * 5400, network_every_s=1e9)
    assert watch.changes("daemon-stale")[: len(expected)] == expected
    assert bool(watch.changes("daemon-stale")) == bool(expected)


KILLED = st.tuples(
    st.sampled_from([2, 16, 64, 256, 1024]), st.floats(0, 1100), st.floats(20, 90), st.booleans(), st.booleans()
)


def kill(watch: Watch) -> None:
    """Kill the time daemon: no process, no update, and a kernel that believes in its clock for 8.9 h."""
    watch.host.poll_s, watch.host.daemons = None, ()


@given(KILLED)
@settings(max_examples=60, deadline=None)
def test_a_daemon_that_is_killed_is_missed_within_minutes(life: tuple[float, float, float, bool, bool]) -> None:
    """Whatever it polled and whenever it died, medium is raised after 10 minutes, and by the third look after (R12).

    It is as true after a restart of the agent, and where processes are hidden once the daemon is gone.
    """
    poll_s, phase_s, every_s, restarts, hides = life
    watch = measured(drift_ppm=20, slew_ppm=20)
    watch.host.poll_s = poll_s
    watch.host.run(phase_s)
    for _ in range(5):
        watch.local()
        watch.host.run(every_s)
    kill(watch)
    if hides:
        watch.host.daemons = HiddenDaemons("the processes of other users are hidden here")
    killed_ns = watch.host.boottime_ns
    while not watch.changes("daemon-dead"):
        watch.host.run(every_s)
        if restarts:
            watch.restart()
        record = watch.local().record
        assert (watch.host.boottime_ns - killed_ns) / S <= 600 + 3 * every_s
    assert (watch.host.boottime_ns - killed_ns) / S >= 600
    assert record.kernel["synchronised"]
    (found,) = [finding for finding in record.findings if finding.id == "daemon-dead"]
    assert (found.level, record.severity) == ("medium", WARNING)
    assert found.message == "chronyd has stopped, and no other time daemon was found"
    assert record.drift is not None
    assert not record.drift.breach.free_running
    watch.host.poll_s, watch.host.daemons = 64, (TIMESYNCD,)
    for _ in range(3):
        watch.host.run(every_s)
        watch.local()
    assert watch.changes("daemon-dead") == [True, False]


def test_a_daemon_that_is_restarted_is_not_missed() -> None:
    """A daemon that is away for some minutes, again and again, is none that has ended."""
    watch = measured()
    for _ in range(20):
        watch.host.daemons, watch.host.poll_s = (), None
        watch.spend(420, network_every_s=1e9)
        watch.host.daemons, watch.host.poll_s = (TIMESYNCD,), 64
        watch.spend(240, network_every_s=1e9)
    assert watch.changes("daemon-dead") == []


@pytest.mark.parametrize("poll_s", [64, 1024])
def test_a_daemon_outside_of_the_container_takes_over(poll_s: int) -> None:
    """Where something unseen updates the kernel, nothing is missing, also after a daemon of our own has ended."""
    watch = measured()
    watch.host.poll_s, watch.host.daemons = poll_s, ()
    watch.spend(4 * 3600, network_every_s=1e9)
    assert watch.changes("daemon-dead") in ([], [True, False])  # it takes an update to detect
    assert poll_s > 600 or watch.changes("daemon-dead") == []


@pytest.mark.parametrize(("container", "expected"), [(None, [True]), ("docker", [])])
def test_a_daemon_that_was_dead_before_the_agent_came_is_missed(container: str | None, expected: list[bool]) -> None:
    """Outside containers no process and no update for 10 minutes, for 10 minutes, says as much (R12)."""
    watch = Watch(LivingHost())
    kill(watch)
    watch.host.container = container
    watch.spend(1140, network_every_s=1e9)
    assert watch.changes("daemon-dead") == []
    watch.spend(180, network_every_s=1e9)
    assert watch.changes("daemon-dead") == expected
    for finding in watch.rounds[-1].record.findings:
        if finding.id == "daemon-dead":
            assert finding.message.startswith("no time daemon runs, and the kernel clock was not updated for 2")


def test_a_daemon_that_comes_back_ends_it() -> None:
    """Where a daemon updates the kernel again, three looks later nothing is stale any more."""
    watch = measured()
    watch.host.poll_s = None
    watch.spend(3 * 3600)
    watch.host.poll_s = 64
    watch.spend(400)
    assert watch.changes("daemon-stale") == [True, False]


def test_a_daemon_that_is_stopped_for_a_day_is_high() -> None:
    """A medium finding becomes high when it has lasted a day; at 8.9 h the kernel itself gives up."""
    watch = measured()
    watch.host.poll_s = None
    watch.spend(31_000, every_s=300, network_every_s=1e9)
    assert stale(watch)
    watch.spend(3000, every_s=300, network_every_s=1e9)
    assert not watch.host.is_synchronised
    assert not stale(watch)


def test_a_boot_restarts_the_count() -> None:
    """Uptimes of another boot say nothing of when the kernel was updated in this one."""
    watch = measured()
    watch.host.poll_s = None
    watch.spend(3000)
    watch.host.reboot()
    watch.host.is_synchronised, watch.host.maxerror_us = True, 1_510_000
    watch.restart()
    watch.spend(3000)
    assert watch.changes("daemon-stale") == []


@pytest.mark.parametrize("is_synchronised", [False, True])
def test_what_the_kernel_does_not_say_is_not_stale(is_synchronised: bool) -> None:
    """If the kernel does not reply, or calls its clock unsynchronised, the updates are unknown."""
    watch = measured()
    watch.host.poll_s = None
    watch.host.is_synchronised, watch.host.kernel_answers = is_synchronised, not is_synchronised
    watch.spend(2 * 3600)
    assert watch.changes("daemon-stale") == []


# --- forecasts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_steered", "expected"), [(False, [True]), (True, [])])
def test_a_breach_is_forecast_where_nothing_steers(is_steered: bool, expected: list[bool]) -> None:
    """A clock that drifts freely to its tolerance within a day is reported once; one that is steered is not."""
    watch = Watch(LivingHost(drift_ppm=20))
    watch.host.poll_s = None
    if not is_steered:
        watch.host.daemons, watch.host.is_synchronised = (), False
    watch.spend(3 * 3600)
    assert watch.changes("breach-forecast") == expected
    assert watch.rounds[-1].record.drift is not None
    if expected:
        (event,) = [event for event in watch.events if event.kind == "breach-forecast"]
        assert event.value_s == pytest.approx((1 - 20e-6 * event.boottime_ns / S + 20e-6 * 86_400) / 20e-6, rel=0.02)


def test_a_forecast_ends_when_the_breach_has_come() -> None:
    """What has happened is no forecast: it is an offset out of its tolerance."""
    watch = Watch(LivingHost(drift_ppm=45, offset_ns=700 * MS))
    watch.host.poll_s, watch.host.daemons, watch.host.is_synchronised = None, (), False
    watch.spend(4 * 3600)
    assert watch.changes("breach-forecast") == [True, False]
    assert watch.changes("offset-out") == [True]


def test_a_slow_drift_is_no_forecast() -> None:
    """At 2 ppm a clock takes 5.8 days to its tolerance, which is not reported."""
    watch = Watch(LivingHost(drift_ppm=2))
    watch.host.poll_s, watch.host.daemons, watch.host.is_synchronised = None, (), False
    watch.spend(3 * 3600)
    assert watch.changes("breach-forecast") == []


def test_noise_about_a_day_does_not_flap() -> None:
    """A drift that takes just about a day to the tolerance, measured with noise, is reported once or twice in a day."""
    watch = Watch(LivingHost(drift_ppm=11.6))
    watch.host.poll_s, watch.host.daemons, watch.host.is_synchronised = None, (), False
    rand = random.Random(2)
    for _ in range(288):
        watch.host.realtime_zs = watch.host.utc_zs  # the offset stays, the rate is what is looked at
        watch.host.run(INTERVAL_S)
        watch.look()
        errors_ns = [round(rand.gauss(0, 500_000)) for _ in range(4)]
        watch.conclude(watch.host.observe(*watch.host.sources(error_ns=errors_ns)), "network")
    assert len(watch.changes("breach-forecast")) <= 4


# --- correcting ---------------------------------------------------------------------------------------------------


def life_with_a_slewing_daemon(offset_ns: int, slew_ppm: int) -> Watch:
    """Let a daemon slew an offset away, as fast as it does."""
    watch = measured()
    watch.host.run(60)
    watch.host.set_clock(-offset_ns)  # as if it had always been so: an unseen slew
    watch.clock_state = watch.clock_state._replace(reading=watch.host.read(), agreement=None)
    for _ in range(120):
        sign = 1 if watch.host.offset > 0 else -1
        is_wrong = abs(watch.host.offset) > 40 * MS
        watch.host.run(64, slew_ppm=sign * slew_ppm if is_wrong else 0)
        watch.network()
    return watch


@pytest.mark.parametrize(
    ("offset_s", "slew_ppm", "expected"), [(1.5, 500, False), (3.0, 10_000, False), (20.0, 500, True)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_daemon_at_its_work_is_given_half_an_hour(offset_s: float, slew_ppm: int, expected: bool, sign: int) -> None:
    """An offset that a daemon slews away in time raises nothing; one that would take it hours is reported."""
    watch = life_with_a_slewing_daemon(round(sign * offset_s * S), slew_ppm)
    assert bool(watch.changes("offset-out")) is expected


def test_a_clock_that_runs_away_is_not_being_corrected() -> None:
    """A slew that leads away from the truth is no correction: the third sample raises it."""
    watch = measured()
    watch.host.poll_s = None
    severities = []
    for _ in range(8):
        watch.host.run(300, slew_ppm=1000)
        severities.append(watch.network().record.severity)
    assert severities == [OK, OK, WARNING, WARNING, WARNING, *[CRITICAL] * 3]


def severities_of(watch: Watch, said_ns: Sequence[int], **runs: float) -> list[Severity]:
    """Query servers that are all this much ahead of the truth, every five minutes."""
    severities = []
    for error_ns in said_ns:
        watch.host.run(300, **runs)
        severities.append(watch.network(*watch.host.sources(error_ns=[error_ns] * 4)).record.severity)
    return severities


def test_a_frequency_is_no_correction() -> None:
    """A kernel that makes up for a bad oscillator moves the clock all the time, and corrects no offset by that."""
    watch = measured()
    assert severities_of(watch, [5 * S] * 3, drift_ppm=80, slew_ppm=80) == [UNKNOWN, UNKNOWN, CRITICAL]


def test_what_comes_nearer_while_the_clock_moves_away_is_no_correction() -> None:
    """Servers whose word comes nearer to a clock that moves the other way are not a daemon at work."""
    watch = measured()
    said_ns = [5000 * MS, 4000 * MS, 3000 * MS]
    assert severities_of(watch, said_ns, slew_ppm=-1000) == [UNKNOWN, UNKNOWN, CRITICAL]


@pytest.mark.parametrize("deed", ["suspend", "boot"])
def test_a_bad_sample_after_the_clock_was_lost_sight_of_is_unknown(deed: str) -> None:
    """After a suspend or a boot the first sample says that the clock is wrong: that is not ok, and not proven yet."""
    watch = measured()
    watch.spend(1800)
    if deed == "suspend":
        watch.host.suspend(100)
    else:
        watch.host.reboot()
        watch.host.run(700)
        watch.restart()
    assert severities_of(watch, [5 * S] * 3) == [UNKNOWN, UNKNOWN, CRITICAL]


# --- over restarts, and always ------------------------------------------------------------------------------------


@pytest.mark.untraced
def test_an_agent_that_is_restarted_concludes_the_same() -> None:
    """An agent that ends and restarts after each audit raises and clears what one does that keeps running."""

    def live(restarts: bool) -> list[tuple[str, bool, str]]:
        watch = Watch(LivingHost(drift_ppm=12, slew_ppm=12))
        for turn in range(400):
            watch.host.run(60)
            if turn == 100:
                watch.host.step(-5 * S)
            if turn == 200:
                watch.host.step(5 * S)
            if turn == 250:
                watch.host.poll_s = None
            quiet = 300 < turn < 340
            if turn % 5:
                watch.local()
            else:
                watch.network(*(SILENT if quiet else watch.host.sources()))
            if restarts:
                watch.restart()
        return [(event.kind, event.raised, event.level) for event in watch.events]

    assert live(True) == live(False)
    assert [entry[0] for entry in live(False)] == [
        "step-back",
        "offset-out",
        "step-forward",
        "offset-out",
        "unreachable-sources",
        "daemon-stale",
        "evidence-gap",
        "evidence-gap",
        "unreachable-sources",
    ]


def test_the_order_of_the_servers_does_not_matter() -> None:
    """The servers in another order lead to the same record, but for the order in which it lists them."""
    one, other = measured(offset_ns=3 * MS), measured(offset_ns=3 * MS)
    sources = one.host.sources(error_ns=[0, 2 * MS, -4 * MS, 9 * MS, 9 * S])
    first, second = one.network(*sources).record, other.network(*sources[::-1]).record
    assert first == second._replace(sources=second.sources[::-1])


DEAF = (
    lambda watch: watch.network(*SILENT),
    lambda watch: watch.network(*watch.host.sources()),
    lambda watch: watch.network(*watch.host.sources(error_ns=[0, 9 * S])),
    lambda watch: watch.network(*watch.host.sources(error_ns=[7 * S] * 4)),
    lambda watch: watch.local(),
    lambda watch: watch.local(dropped=3),
)
LIFE = st.lists(
    st.tuples(
        st.sampled_from(DEAF),
        st.sampled_from(["run", "run", "suspend", "reboot", "step", "restart", "deaf"]),
        st.sampled_from([1, 60, 400, 4000, 100_000]),
    ),
    max_size=15,
)


@given(LIFE, st.sampled_from(["log-integrity", "mifid-100us", "auth"]))
@settings(max_examples=200, deadline=None)
def test_whatever_comes(life: list[tuple[Callable[[Watch], Round], str, int]], profile: str) -> None:
    """An unmeasured clock is never ok, a record is JSON, and a mind that was stored is the mind that it was."""
    watch = Watch(LivingHost(drift_ppm=30), profile=PROFILES[profile])
    for audit, deed, seconds in life:
        match deed:
            case "suspend":
                watch.host.suspend(seconds)
            case "reboot":
                watch.host.reboot(realtime_ns=12 * S if seconds == 60 else None)
                watch.restart()
            case "step":
                watch.host.step(seconds * S)
            case "restart":
                before = watch.clock_state
                watch.restart()
                assert watch.clock_state.debounce == before.debounce
            case "deaf":
                watch.host.kernel_answers = not watch.host.kernel_answers
                watch.host.daemons = HiddenDaemons("no /proc")
        watch.host.poll_s = 64 if seconds < 5000 else None
        watch.host.run(seconds)
        record = audit(watch).record
        assert record.offset is not None or record.severity >= UNKNOWN
        assert (record.offset is None) == (record.utc_ns is None) == (record.verdict == "unmeasured")
        assert record.age_s is None or record.age_s >= 0
        assert type(record).from_dict(record.to_dict()) == record
        assert len(watch.clock_state.samples) <= 128


@pytest.mark.parametrize("kind", ["network", "local"])
def test_an_observation_that_is_older_than_the_mind_is_taken(kind: Any) -> None:
    """An audit that was made before a later look, and comes in after it, breaks nothing and claims nothing."""
    watch = measured()
    late = watch.host.observe(*watch.host.sources())
    watch.host.run(100)
    watch.network()
    record = watch.conclude(late, kind).record
    assert kind == "network" or record.offset is None


def _mind(agreement: Agreement, reading: ClockReading) -> ClockState:
    return ClockState("b", reading, 0, LastAgreement(reading, agreement, SourceCounts(4, 4, 4, 1)))


def test_nothing_divides_by_zero_at_the_moment_of_the_fix() -> None:
    """Carried on by no time at all, an agreement is what it was, but for the width of the readings."""
    reading = ClockReading(NOON, DAY, DAY, DAY, 0)
    agreement = Agreement(Interval(-5, 5), 1, (), 1, False)
    assert holdover(_mind(agreement, reading), reading) == agreement
    assert holdover(ClockState("b", reading, 0), reading) is None


def test_concluding_is_cheap() -> None:
    """A local audit is concluded in few instructions (well below 0.1 ms)."""
    watch = Watch(LivingHost(drift_ppm=12, slew_ppm=12))
    watch.spend(4 * 3600, every_s=300)
    observation, terms = watch.host.observe(), AuditSettings(PROFILES["log-integrity"], LABELS, 300.0)

    assert instructions(lambda: evaluate(watch.clock_state, observation, "local", terms, Health())) < 20_000


def _kinds(events: Sequence[Any]) -> set[str]:
    return {event.kind for event in events}


@pytest.mark.untraced
def test_a_month_in_order_reports_nothing() -> None:
    """Thirty days of a host in order, with noise as the internet has it, raise and clear nothing at all."""
    watch = Watch(LivingHost(drift_ppm=17, slew_ppm=17), interval_s=1800)
    rand = random.Random(11)
    for turn in range(30 * 48):
        watch.host.run(1800 * rand.uniform(0.95, 1.05), slew_ppm=17 + rand.gauss(0, 0.3))
        errors_ns = [round(rand.gauss(0, 2_000_000)) for _ in range(4)]
        if rand.random() < 0.02:
            errors_ns[turn % 4] += 9 * S
        watch.look()
        seen = watch.host.observe(*watch.host.sources(error_ns=errors_ns))
        assert watch.conclude(seen, "network").record.severity is OK
        watch.host.run(30)
        assert watch.local().record.severity is OK
    assert _kinds(watch.events) <= {"source-quorum"}
    assert all(event.severity is OK for event in watch.events)
