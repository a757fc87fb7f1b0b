"""The oscillator's frequency from noisy offsets, how sure it is, and when a tolerance will be broken."""

import json
from collections.abc import Sequence
from itertools import groupby, pairwise, product
from math import exp, inf, isclose, isfinite, lgamma, log, log1p, nan, pi, sqrt
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.clock.drift import (
    FORECAST_LIMIT_S,
    HORIZONS_S,
    MAX_SAMPLES,
    MIN_BACK_TESTS,
    UNKNOWN_SKEW_PPM,
    BackTest,
    Breach,
    Drift,
    Fit,
    Forecast,
    Sample,
    breach_after,
    drop_forecasts,
    estimate_drift,
    fewest_sign_changes,
    fit,
    is_sound,
    note_forecasts,
    predict_ns,
    settle_forecasts,
    student_t,
)
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, max_drift_ppm
from ntpaudit.store.serialization import revive
from tests.core.worlds import DAY, HOUR, MS, NOON, S
from tests.work import instructions

BOOT = 10**18  # of RAW: far beyond what a float holds to the nanosecond
HALF_HOUR_S = 1_800
MINUTE = 60 * S


class World(NamedTuple):
    """An oscillator and a network with dials: frequency, its random walk per sqrt(s), queueing, delay spikes."""

    frequency_ppm: float = 12.3
    wander: float = 0.0
    queue_s: float = 0.002
    spikes: float = 0.0


class History(NamedTuple):
    """What was measured, and what was true: UTC - RAW at each sample, and the frequency at the last."""

    samples: list[Sample]
    truth_ns: list[int]
    frequency_ppm: float


def observe(world: World, count: int, random: Random, interval_s: int = HALF_HOUR_S) -> History:
    """Run the oscillator, its frequency an exact random walk, and audit it through queues in both directions."""
    phase, frequency = 0.0, world.frequency_ppm * 1e-6
    samples, truth = [], []
    for index in range(count):
        if index:
            walk, bridge = random.gauss(0, 1), random.gauss(0, 1)
            phase += frequency * interval_s + world.wander * interval_s**1.5 * (walk / 2 + bridge / sqrt(12))
            frequency += world.wander * sqrt(interval_s) * walk
        config = [random.expovariate(1 / world.queue_s), random.expovariate(1 / world.queue_s)]
        if random.random() < world.spikes:
            config[random.randrange(2)] += random.uniform(0.01, 0.2)
        truth.append(NOON - BOOT + round(phase * S))
        noise = round((config[0] - config[1]) / 2 * S)
        samples.append(Sample(BOOT + index * interval_s * S, truth[-1] + noise, 0.01 + sum(config) / 2))
    return History(samples, truth, frequency * 1e6)


def line_of(frequency_ppm: float, count: int = 20, level_ns: int = NOON - BOOT) -> list[Sample]:
    """Return samples of a perfect oscillator through a perfect network."""
    ticks = [index * HALF_HOUR_S * S for index in range(count)]
    return [Sample(BOOT + tick, level_ns + round(tick * frequency_ppm / 1e6), 0.01) for tick in ticks]


def fitted(samples: Sequence[Sample]) -> Fit:
    """Return the fit of samples that must have one."""
    line = fit(samples)
    assert line is not None
    return line


def ordinary_ppm(samples: Sequence[Sample]) -> float:
    """Return the slope by ordinary least squares, which takes every sample for as good as any other."""
    x = [(sample.raw_ns - samples[0].raw_ns) / S for sample in samples]
    y = [(sample.offset_raw_ns - samples[0].offset_raw_ns) / S for sample in samples]
    mean = sum(x) / len(x)
    return 1e6 * sum((at - mean) * value for at, value in zip(x, y, strict=True)) / sum((at - mean) ** 2 for at in x)


def rms(values: Sequence[float]) -> float:
    """Return the root of the mean square."""
    return sqrt(sum(value * value for value in values) / len(values))


def drift_of(
    samples: Sequence[Sample],
    *,
    estimate_ns: int = 0,
    bound_s: float = 0.01,
    kernel_ppm: float | None = 0.0,
    tolerance_s: float = 0.1,
    is_disciplined: bool = False,
    back_test: BackTest | None = None,
    drift_ppm: float = MAX_DRIFT_PPM,
    pending_s: float = 0.0,
) -> Drift:
    """Estimate the drift at the newest sample, of a clock that is right now and that no daemon steers unless given."""
    return estimate_drift(
        samples,
        now_raw_ns=max((sample.raw_ns for sample in samples), default=BOOT),
        estimate_ns=estimate_ns,
        bound_s=bound_s,
        kernel_ppm=kernel_ppm,
        tolerance_s=tolerance_s,
        is_disciplined=is_disciplined,
        back_test=back_test or BackTest(),
        drift_ppm=drift_ppm,
        pending_s=pending_s,
    )


NOMINAL = BackTest(ratios=((1.0,) * 64,) * 4)
"""Calibrated by errors as large as the nominal band, which leaves it as wide as the fit makes it, up to a day."""


# --- the regression (F2, F3)


@pytest.mark.parametrize("frequency", [-480.0, -12.3, 0.0, 1e-4, 50.0])
def test_a_perfect_line_is_found_exactly(frequency: float) -> None:
    """Epoch-sized nanoseconds cost no precision: the frequency is right to 1e-6 ppm and the line to a nanosecond."""
    samples = line_of(frequency)
    line = fitted(samples)
    assert abs(line.frequency_ppm - frequency) < 1e-6
    assert (line.samples, line.span_s) == (20, 19 * HALF_HOUR_S)
    assert all(abs(predict_ns(line, sample.raw_ns) - sample.offset_raw_ns) <= 1 for sample in samples)


def test_a_slow_oscillator_is_positive() -> None:
    """UTC gaining on RAW means that the host falls behind: positive, as every offset (F1)."""
    assert fitted(line_of(+20)).frequency_ppm > 0 > fitted(line_of(-20)).frequency_ppm


def test_the_line_goes_on_before_and_after_its_samples() -> None:
    """A prediction far from the samples is the line's, exact as an integer (F6)."""
    line = fitted(line_of(10))
    assert abs(predict_ns(line, BOOT + 10 * DAY) - (NOON - BOOT + 10 * DAY // 100_000)) <= 2
    assert abs(predict_ns(line, BOOT - 10 * DAY) - (NOON - BOOT - 10 * DAY // 100_000)) <= 2


@pytest.mark.parametrize(("spikes", "limit_ppb", "gain"), [(0.0, 6.0, 1.4), (0.1, 7.0, 12.0)])
def test_delay_weights_beat_ordinary_least_squares(spikes: float, limit_ppb: float, gain: float) -> None:
    """48 samples of 30 min with 2 ms of queueing give about 5 ppb, with or without delay spikes (F2)."""
    random = Random(1)
    histories = [observe(World(spikes=spikes), 48, random) for _ in range(200)]
    ours = rms([1e3 * (fitted(history.samples).frequency_ppm - history.frequency_ppm) for history in histories])
    plain = rms([1e3 * (ordinary_ppm(history.samples) - history.frequency_ppm) for history in histories])
    assert ours < limit_ppb
    assert ours * gain < plain


def test_the_skew_of_a_known_scatter() -> None:
    """Four samples 1 ms above, below, below and above a line, 30 min apart: s2 = 2 ms2, V = 5 (30 min)2 (F2, F3)."""
    samples = [
        Sample(at, offset + away * MS, distance)
        for (at, offset, distance), away in zip(line_of(5, count=4), (1, -1, -1, 1), strict=True)
    ]
    line = fitted(samples)
    assert line.frequency_ppm == pytest.approx(5)
    assert line.variance_s2 == pytest.approx(2e-6)
    assert line.spread_s2 == pytest.approx(5 * HALF_HOUR_S**2)
    assert line.skew_ppm == pytest.approx(1e6 * sqrt(2e-6 / 5) / HALF_HOUR_S * 31.599, rel=1e-4)


def test_the_skew_covers_the_truth_at_its_rate() -> None:
    """Under Gaussian noise the skew holds the truth in 99.9 %, and the share of it that means 50 % holds half (F3)."""
    random = Random(3)
    ratios = []
    for _ in range(600):
        noise = [Sample(at, off + round(random.gauss(0, MS)), 0.01) for at, off, _ in line_of(7.0, count=12)]
        line = fitted(noise)
        to_half = student_t(0.5, line.samples - 2) / student_t(0.999, line.samples - 2)
        ratios.append((abs(line.frequency_ppm - 7.0) / line.skew_ppm, to_half))
    assert sum(error <= 1 for error, _ in ratios) >= 597
    assert 0.44 < sum(error <= half for error, half in ratios) / 600 < 0.56


def test_runs_test_keeps_samples_of_one_line() -> None:
    """Where only noise disturbs the line, hardly a sample of the 64 is dropped (F3)."""
    random = Random(4)
    counts = [fitted(observe(World(), 2 * MAX_SAMPLES, random).samples).samples for _ in range(60)]
    assert max(counts) == MAX_SAMPLES
    assert sum(counts) / 60 > 0.95 * MAX_SAMPLES


@pytest.mark.parametrize("since", [20, 30, 40])
def test_runs_test_drops_what_was_before_a_change(since: int) -> None:
    """When the frequency changes by 5 ppm, the fit rests on samples since the change alone, and finds the new one."""
    random = Random(since)
    before = observe(World(frequency_ppm=10), 64, random).samples
    after = observe(World(frequency_ppm=15), since, random).samples
    moved = before[-1].raw_ns + HALF_HOUR_S * S - BOOT
    level = round((before[-1].raw_ns - BOOT) * 10e-6)
    joined = before + [Sample(at + moved, offset + level, distance) for at, offset, distance in after]
    line = fitted(joined)
    assert line.samples <= since + 1
    assert abs(line.frequency_ppm - 15) <= line.skew_ppm < 2
    assert abs(ordinary_ppm(joined) - 15) > 1


def test_a_wandering_oscillator_gets_a_shorter_line() -> None:
    """The more the frequency wanders, the fewer samples one line explains (F3)."""
    random = Random(5)
    means = [
        sum(fitted(observe(World(wander=wander), 128, random).samples).samples for _ in range(20)) / 20
        for wander in (0.0, 1e-9, 1e-8)
    ]
    assert means[0] > 2 * means[1] > 3 * means[2]


@pytest.mark.parametrize(
    "samples",
    [
        [],
        line_of(1, count=1),
        line_of(1, count=2),
        line_of(1, count=2) * 9,
        [Sample(BOOT, 0, 0.01), Sample(BOOT, 1, 0.01), Sample(BOOT, 2, 0.01), Sample(BOOT, 3, 0.01)],
        [sample._replace(distance_s=nan) for sample in line_of(1)],
        [Sample(BOOT, 0, 0.01), Sample(BOOT + S, 2 * MS, 0.01), Sample(BOOT + 2 * S, 0, 0.01)],
    ],
    ids=["none", "one", "two", "two-repeated", "one-instant", "no-distance", "skew-beyond-2000"],
)
def test_unknown_frequency(samples: list[Sample]) -> None:
    """Without three samples at different instants, or with a skew above 2000 ppm, no frequency is known (F3)."""
    assert fit(samples) is None
    drift = drift_of(samples)
    assert (drift.frequency_ppm, drift.raw_frequency_ppm, drift.skew_ppm) == (None, None, UNKNOWN_SKEW_PPM)
    assert drift.breach[:3] == (None, None, None)
    assert drift.breach.guaranteed_s == pytest.approx(1_800)
    assert not drift.breach.calibrated


@pytest.mark.parametrize("distance", [nan, inf, -inf, -1e-9, 1.1, 1e300])
def test_a_distance_that_says_nothing_is_passed_over(distance: float) -> None:
    """A sample whose distance is no number or beyond what may vote is as if it were not there (V17)."""
    samples = line_of(7)
    bad = Sample(samples[-1].raw_ns + S, samples[-1].offset_raw_ns + 50 * S, distance)
    assert fit([*samples, bad]) == fit(samples)
    pending = note_forecasts(BackTest(), fitted(samples), BOOT)
    assert settle_forecasts(pending, bad) == pending


SAMPLES = st.lists(
    st.builds(
        Sample,
        st.integers(BOOT, BOOT + 10 * DAY),
        st.integers(NOON - S, NOON + S),
        st.floats(0, 2) | st.sampled_from([0.0, nan, inf, -1.0]),
    ),
    max_size=24,
)


@given(SAMPLES, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_order_and_repetition_do_not_matter(samples: list[Sample], random: Random) -> None:
    """Any order of the samples, each once or more often, gives the same fit to the last bit."""
    shuffled = samples + samples[:3]
    random.shuffle(shuffled)
    assert fit(shuffled) == fit(samples)


@given(SAMPLES, st.integers(-(10**18), 10**18), st.integers(-(10**19), 10**19))
@settings(max_examples=150, deadline=None)
def test_only_differences_count(samples: list[Sample], later: int, higher: int) -> None:
    """Moving all instants or all offsets moves the line with them and changes nothing else."""
    line = fit(samples)
    moved = fit([Sample(at + later, offset + higher, distance) for at, offset, distance in samples])
    assert (line is None) is (moved is None)
    if line and moved:
        assert moved == line._replace(
            centre_raw_ns=line.centre_raw_ns + later, centre_offset_ns=line.centre_offset_ns + higher
        )


# --- the tables behind it


def test_student_t_of_printed_tables() -> None:
    """The quantiles of Student's T are those that every statistics book prints."""
    printed = {(0.999, 1): 636.619, (0.999, 2): 31.599, (0.999, 5): 6.869, (0.999, 40): 3.551, (0.95, 3): 3.182}
    assert {key: round(student_t(*key), 3) for key in printed} == printed


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 31, 62])
def test_student_t_integrates_to_its_probability(confidence: float, freedom: int) -> None:
    """Between -t and t lies the stated share of the density, integrated by Simpson's rule."""
    t = student_t(confidence, freedom)
    scale = exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / sqrt(freedom * pi)
    steps = 100_000 if freedom == 1 else 20_000
    density = [scale * exp(-(freedom + 1) / 2 * log1p((t * i / steps) ** 2 / freedom)) for i in range(steps + 1)]
    integral = (density[0] + density[-1] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2])) * t / steps / 3
    assert isclose(2 * integral, confidence, abs_tol=1e-7)


@pytest.mark.parametrize("count", range(3, 15))
def test_fewest_sign_changes_by_counting_all_signs(count: int) -> None:
    """Of all sequences of signs 0.1 % at most change less often than allowed; one more change would be too strict."""
    changes = [len(list(groupby(signs))) - 1 for signs in product((False, True), repeat=count)]
    fewest = fewest_sign_changes(count)
    assert sum(change < fewest for change in changes) <= 0.001 * len(changes)
    assert sum(change <= fewest for change in changes) > 0.001 * len(changes)


def test_fewest_sign_changes_by_recursion() -> None:
    """For every count up to 128 the critical value is that of the distribution, built up one residual at a time."""
    shares = [1.0]
    for count in range(2, 2 * MAX_SAMPLES + 1):
        shares = [(stay + change) / 2 for stay, change in zip([*shares, 0.0], [0.0, *shares], strict=True)]
        fewest = fewest_sign_changes(count)
        assert sum(shares[:fewest]) <= 0.001 < sum(shares[: fewest + 1])


# --- time to breach (F6 to F8)


def test_the_kernel_correction_is_taken_off() -> None:
    """An oscillator slow by 12 ppm that the kernel speeds up by 10 leaves a host that falls behind by 2 ppm (F1)."""
    drift = drift_of(line_of(12), kernel_ppm=10.0)
    assert drift.raw_frequency_ppm == pytest.approx(12)
    assert drift.frequency_ppm == pytest.approx(2)
    assert drift.samples == 20


@pytest.mark.parametrize("kernel", [None, nan, inf])
def test_an_unknown_correction_leaves_the_raw_frequency(kernel: float | None) -> None:
    """If the kernel does not report its correction there is no forecast, but the oscillator is known all the same."""
    drift = drift_of(line_of(12), kernel_ppm=kernel)
    assert drift.frequency_ppm is None
    assert drift.raw_frequency_ppm == pytest.approx(12)
    assert drift.breach[:3] == (None, None, None)
    assert drift.breach.guaranteed_s == pytest.approx(0.09 / 550e-6)  # it may be the largest that there is


@pytest.mark.parametrize(
    ("rate", "estimate", "central"),
    [
        (10, 0, 10_000),
        (10, 50 * MS, 5_000),
        (10, -50 * MS, 15_000),
        (-10, 50 * MS, 15_000),
        (-10, -90 * MS, 1_000),
        (10, 100 * MS, 0),
        (10, -101 * MS, 0),
        (0.03, 0, None),
        (0.05, 0, 2_000_000),
    ],
)
def test_the_central_breach_is_where_the_line_meets_the_tolerance(
    rate: float, estimate: int, central: float | None
) -> None:
    """From the present estimate the offset moves at the net rate until it reaches 100 ms, either way (F7)."""
    breach = drift_of(line_of(rate), estimate_ns=estimate).breach
    assert breach.central_s == (None if central is None else pytest.approx(central, rel=1e-5, abs=1e-3))


def test_a_measured_skew_opens_the_band() -> None:
    """Noise sets the pessimistic breach before the central one and the optimistic one after it (F7)."""
    breach = drift_of(observe(World(frequency_ppm=1.0), 12, Random(6)).samples, back_test=NOMINAL).breach
    assert breach.pessimistic_s is not None
    assert breach.central_s is not None
    assert breach.optimistic_s is not None
    assert 0 < breach.pessimistic_s < 0.95 * breach.central_s < 0.9 * breach.optimistic_s


@pytest.mark.parametrize(
    ("bound", "rate", "guaranteed"),
    [(0.0, 0, 2_000), (0.05, 0, 1_000), (0.05, 50, 1_000), (0.05, -100, 500), (0.1, 0, 0), (7, 0, 0), (nan, 0, 0)],
)
def test_the_guaranteed_time(bound: float, rate: float, guaranteed: float) -> None:
    """The worst case reaches 100 ms no sooner than at 50 ppm, or at the measured rate if that is more (F7)."""
    assert drift_of(line_of(rate), bound_s=bound).breach.guaranteed_s == pytest.approx(guaranteed)


@pytest.mark.parametrize("kernel_ppm", [-200.0, 200.0])
@pytest.mark.parametrize(
    ("drift_ppm", "guaranteed"),
    [(0.0, 4_950), (50.0, 0.99 / 250e-6), (max_drift_ppm(-200.0), 0.99 / 415e-6)],
)
def test_the_guaranteed_time_has_the_kernel_s_correction_in_it(
    kernel_ppm: float, drift_ppm: float, guaranteed: float
) -> None:
    """R3: kernel -200 ppm, tolerance 1 s, bound 0.01 s, no fit: 4950 s less the oscillator's share, never 19,800."""
    drift = drift_of([], bound_s=0.01, kernel_ppm=kernel_ppm, tolerance_s=1.0, drift_ppm=drift_ppm)
    assert drift.breach.guaranteed_s == pytest.approx(guaranteed)


def test_what_the_kernel_has_yet_to_slew_is_no_margin() -> None:
    """An offset that the kernel still slews away moves the clock although the daemon that ordered it is dead."""
    whole, part = (drift_of([], tolerance_s=1.0, bound_s=0.1, pending_s=left).breach for left in (0.0, -0.4))
    assert part.guaranteed_s == pytest.approx(whole.guaranteed_s * 5 / 9)
    assert drift_of([], tolerance_s=1.0, bound_s=0.1, pending_s=0.95).breach.guaranteed_s == 0


@given(
    st.floats(-500, 500),
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.floats(1e-3, 5),
    st.floats(0, 1),
    st.floats(0, DAY / S),
)
@settings(max_examples=200, deadline=None)
def test_the_guaranteed_time_is_guaranteed(
    kernel_ppm: float, lean: float, place: float, tolerance_s: float, share: float, age_s: float
) -> None:
    """No oscillator within the assumption leaves the tolerance sooner, whatever the kernel's correction (R3).

    `place` is where in its interval the true offset lies, `lean` which oscillator it is. As of `age_s` later, the
    guarantee that is left ends at the same moment.
    """
    bound_s, drift_ppm = share * tolerance_s, max_drift_ppm(kernel_ppm)
    drift = drift_of([], bound_s=bound_s, kernel_ppm=kernel_ppm, tolerance_s=tolerance_s, drift_ppm=drift_ppm)
    guaranteed_s = drift.breach.guaranteed_s
    worst_s = place * bound_s + (lean * drift_ppm - kernel_ppm) * 1e-6 * guaranteed_s
    assert abs(worst_s) <= tolerance_s * (1 + 1e-9)
    later = breach_after(drift.breach, age_s)
    assert later.guaranteed_s == max(0.0, guaranteed_s - age_s)


def test_a_forecast_ages_with_its_record() -> None:
    """As of now every moment is nearer by the record's age, never below zero; what is not known stays so (R3)."""
    breach = Breach(1_000.0, 2_000.0, None, 500.0, free_running=True, calibrated=True)
    assert breach_after(breach, 0.0) == breach
    assert breach_after(breach, 600.0) == Breach(400.0, 1_400.0, None, 0.0, free_running=True, calibrated=True)
    assert breach_after(breach, 1e9)[:4] == (0.0, 0.0, None, 0.0)


@pytest.mark.parametrize("count", [0, MIN_BACK_TESTS - 1])
def test_no_probability_is_claimed_before_it_is_calibrated(count: int) -> None:
    """Until 30 forecasts have come due there are the central value and the guaranteed time, and no band (R9)."""
    samples = observe(World(frequency_ppm=1.0), 12, Random(6)).samples
    few = drift_of(samples, back_test=BackTest(ratios=((0.2,) * count,) * 4)).breach
    enough = drift_of(samples, back_test=NOMINAL).breach
    assert (few.pessimistic_s, few.optimistic_s, few.calibrated) == (None, None, False)
    assert (few.central_s, few.guaranteed_s) == (enough.central_s, enough.guaranteed_s)
    assert None not in (enough.pessimistic_s, enough.optimistic_s, few.central_s)


@pytest.mark.parametrize("is_disciplined", [True, False])
def test_a_disciplined_clock_is_forecast_as_if_left_alone(is_disciplined: bool) -> None:
    """Whether a daemon steers changes no figure and is recorded beside them (F8)."""
    breach = drift_of(line_of(10), is_disciplined=is_disciplined).breach
    assert breach.free_running is is_disciplined
    assert breach.central_s == pytest.approx(10_000)


def test_a_fit_at_hand_is_not_made_again() -> None:
    """The drift from a fit that was made before is that from its samples."""
    samples = observe(World(), 30, Random(7)).samples
    given_line = estimate_drift(
        [],
        now_raw_ns=samples[-1].raw_ns,
        estimate_ns=0,
        bound_s=0.01,
        kernel_ppm=0.0,
        tolerance_s=0.1,
        is_disciplined=False,
        back_test=BackTest(),
        line=fit(samples),
    )
    assert given_line == drift_of(samples)


RATIOS = st.lists(st.floats(0, 50), max_size=64).map(tuple)
BACK_TESTS = st.tuples(RATIOS, RATIOS, RATIOS, RATIOS).map(lambda ratios: BackTest(ratios=ratios))


@given(
    st.floats(-500, 500),
    st.integers(-S // 5, S // 5),
    st.floats(-500, 500),
    st.floats(1e-4, 60),
    st.integers(0, 9),
    BACK_TESTS,
)
@settings(max_examples=150, deadline=None)
def test_breaches_are_ordered_and_symmetric(
    frequency: float, estimate: int, kernel: float, tolerance: float, seed: int, back_test: BackTest
) -> None:
    """Pessimistic <= central <= optimistic, guaranteed <= central; ahead and behind are mirror images (F7)."""
    samples = observe(World(frequency_ppm=frequency), 8, Random(seed)).samples
    bound = abs(estimate) / S + 0.01
    drift = drift_of(
        samples, estimate_ns=estimate, bound_s=bound, kernel_ppm=kernel, tolerance_s=tolerance, back_test=back_test
    )
    mirrored = drift_of(
        [Sample(at, -offset, distance) for at, offset, distance in samples],
        estimate_ns=-estimate,
        bound_s=bound,
        kernel_ppm=-kernel,
        tolerance_s=tolerance,
        back_test=back_test,
    )
    times = [inf if time is None else time for time in drift.breach[:3]]
    assert drift.breach.guaranteed_s <= times[1] * (1 + 1e-9)
    if drift.breach.calibrated:
        assert times == sorted(times)
    else:
        assert (times[0], times[2]) == (inf, inf)
    assert all(time == inf or 0 <= time <= FORECAST_LIMIT_S for time in times)
    assert mirrored.breach == drift.breach
    assert mirrored.frequency_ppm is not None
    assert mirrored.frequency_ppm + (drift.frequency_ppm or 0.0) == 0


ANY_FLOAT = st.floats(-1e6, 1e6) | st.sampled_from([nan, inf, -inf])


@given(SAMPLES, st.integers(-(10**19), 10**19), ANY_FLOAT, ANY_FLOAT, ANY_FLOAT)
@settings(max_examples=150, deadline=None)
def test_whatever_comes_in_no_nan_comes_out(
    samples: list[Sample], estimate: int, bound: float, kernel: float, tolerance: float
) -> None:
    """The drift is valid JSON for every input, and a tolerance that is no number is broken now, not never."""
    drift = drift_of(samples, estimate_ns=estimate, bound_s=bound, kernel_ppm=kernel, tolerance_s=tolerance)
    json.dumps(drift, allow_nan=False)
    if drift.frequency_ppm is not None and tolerance != tolerance:
        assert drift.breach[:4] == (None, 0.0, None, 0.0)
        lucky = drift_of(samples, estimate_ns=estimate, kernel_ppm=kernel, tolerance_s=tolerance, back_test=NOMINAL)
        assert lucky.breach[:4] == (0.0, 0.0, 0.0, 0.0)


# --- back-testing (F6b)


def replay(history: History, back_test: BackTest | None = None) -> BackTest:
    """Audit, settle, fit and forecast along a history, as an agent does."""
    back_test = back_test or BackTest()
    for index, sample in enumerate(history.samples):
        back_test = settle_forecasts(back_test, sample)
        line = fit(history.samples[max(0, index + 1 - 2 * MAX_SAMPLES) : index + 1])
        if line is not None:
            back_test = note_forecasts(back_test, line, sample.raw_ns)
    return back_test


def test_a_forecast_waits_until_it_is_due() -> None:
    """A forecast is settled by the first sample at or after its horizon, and leaves its ratio behind (F6b)."""
    line = fitted(line_of(10))
    noted = note_forecasts(BackTest(), line, BOOT)
    assert [forecast.horizon_s for forecast in noted.forecasts] == list(HORIZONS_S)
    early = settle_forecasts(noted, Sample(BOOT + 15 * MINUTE - 1, predict_ns(line, BOOT + 15 * MINUTE - 1), 0.01))
    assert early == noted
    due = settle_forecasts(noted, Sample(BOOT + 15 * MINUTE, predict_ns(line, BOOT + 15 * MINUTE), 0.01))
    assert due == BackTest(noted.forecasts[1:], ((0.0,), (), (), ()))


def test_a_ratio_is_the_error_over_the_nominal_band() -> None:
    """A sample that errs by twice the 95 % band of its forecast leaves the ratio 2 (F6b)."""
    history = observe(World(), 20, Random(8))
    line = fitted(history.samples)
    now = history.samples[-1].raw_ns
    later = now + HOUR
    lead_s = (later - line.centre_raw_ns) / S
    sigma = sqrt(line.variance_s2 * (1 + 1 / line.weight + lead_s**2 / line.spread_s2))
    error = round(2 * student_t(0.95, line.samples - 2) * sigma * S)
    for sign in (1, -1):
        sample = Sample(later, predict_ns(line, later) + sign * error, line.nearest_s)
        assert settle_forecasts(BackTest((Forecast(3_600, now, line),)), sample).ratios[1] == (2.0,)


def test_a_delayed_sample_convicts_no_forecast() -> None:
    """An error that the sample's own delay explains counts for as much less as the sample would in a fit (F2)."""
    line = fitted(observe(World(), 20, Random(9)).samples)
    noted = BackTest((Forecast(3_600, BOOT, line),))
    error = predict_ns(line, BOOT + HOUR) + 50 * MS
    near = settle_forecasts(noted, Sample(BOOT + HOUR, error, line.nearest_s)).ratios[1]
    far = settle_forecasts(noted, Sample(BOOT + HOUR, error, line.nearest_s + 0.05)).ratios[1]
    assert near[0] > 5
    assert near[0] > 7 * far[0]


def test_forecasts_of_one_horizon_keep_apart() -> None:
    """A new forecast is noted when a quarter of the horizon is over, so that few overlap (F6b)."""
    line = fitted(line_of(10))
    back_test = BackTest()
    for minute in range(0, 60, 5):
        back_test = note_forecasts(back_test, line, BOOT + minute * MINUTE)
    made = [forecast.made_raw_ns for forecast in back_test.forecasts if forecast.horizon_s == 3_600]
    assert [later - earlier for earlier, later in pairwise(made)] == [15 * MINUTE] * 3


def test_a_pool_settles_the_short_forecasts_too() -> None:
    """Where the next audit comes only after 33 min, it settles the forecast of 15 min, for that very instant."""
    line = fitted(line_of(10))
    later = BOOT + 33 * MINUTE
    settled = settle_forecasts(note_forecasts(BackTest(), line, BOOT), Sample(later, predict_ns(line, later), 0.01))
    assert settled.ratios == ((0.0,), (), (), ())


@pytest.mark.parametrize("raw", [BOOT - 1, BOOT + 4 * DAY])
def test_a_forecast_that_nothing_can_settle_is_dropped(raw: int) -> None:
    """After too long a gap, or when RAW started again, a forecast is dropped and not judged."""
    noted = note_forecasts(BackTest(), fitted(line_of(10)), BOOT)
    assert settle_forecasts(noted, Sample(raw, 0, 0.01)) == BackTest()
    renewed = note_forecasts(noted, fitted(line_of(10)), raw)
    assert {forecast.made_raw_ns for forecast in renewed.forecasts} == {raw}


def test_a_boot_drops_forecasts_and_keeps_ratios() -> None:
    """What RAW meant is lost with a boot, how good the forecasts were is not (F1)."""
    back_test = BackTest(note_forecasts(BackTest(), fitted(line_of(10)), BOOT).forecasts, ((1.5,), (), (0.5,), ()))
    assert drop_forecasts(back_test) == BackTest((), back_test.ratios)


@pytest.mark.parametrize("count", [0, MIN_BACK_TESTS - 1, MIN_BACK_TESTS])
def test_calibrated_from_30_forecasts_on(count: int) -> None:
    """The horizon that speaks for the pessimistic breach must have had 30 forecasts, whatever the others had (F6b)."""
    full, some = (0.5,) * 64, (0.5,) * count
    soon = BackTest(ratios=(full, full, some, full))  # 10 000 s: judged by 6 h
    assert drift_of(line_of(10), back_test=soon).breach.calibrated is (count >= MIN_BACK_TESTS)
    never = BackTest(ratios=(full, full, full, some))
    assert drift_of(line_of(0), tolerance_s=60, back_test=never).breach.calibrated is (count >= MIN_BACK_TESTS)


def test_the_band_is_as_wide_as_past_errors_say() -> None:
    """Ratios below 1 narrow it and those above widen it; the central time does not change (F6b)."""
    samples = observe(World(frequency_ppm=1.0), 12, Random(10)).samples
    breaches = [drift_of(samples, back_test=BackTest(ratios=((ratio,) * 64,) * 4)).breach for ratio in (0.5, 1.0, 1.5)]
    near = [breach.pessimistic_s or inf for breach in breaches]
    far = [breach.optimistic_s or inf for breach in breaches]
    assert near == sorted(near, reverse=True)
    assert far == sorted(far)
    assert len({*near, *far}) == 6
    assert len({breach.central_s for breach in breaches}) == 1


@given(st.floats(60.0, 20 * 86_400.0))
def test_the_factor_of_the_band_between_and_beyond_the_horizons(ahead_s: float) -> None:
    """It goes from horizon to horizon with the logarithm of the time, and grows with its square root beyond (F6)."""
    widths = (0.5, 1.0, 1.5, 4.0)
    samples = observe(World(frequency_ppm=0.0), 30, Random(15)).samples
    line, now = fitted(samples), samples[-1].raw_ns
    lead_s = (now - line.centre_raw_ns) / S + ahead_s
    sigma = sqrt(line.variance_s2 * (line.samples / line.weight + 1 / line.weight + lead_s**2 / line.spread_s2))
    factor = float(np.interp(log(ahead_s), list(map(log, HORIZONS_S)), widths)) * sqrt(max(1.0, ahead_s / 86_400))
    band_s = factor * student_t(0.95, line.samples - 2) * sigma
    breach = estimate_drift(
        samples,
        now_raw_ns=now,
        estimate_ns=0,
        bound_s=0.0,
        kernel_ppm=line.frequency_ppm,  # so the band alone can reach the tolerance
        tolerance_s=band_s,
        is_disciplined=False,
        back_test=BackTest(ratios=tuple((width,) * 64 for width in widths)),
    ).breach
    assert breach.pessimistic_s == pytest.approx(ahead_s, rel=1e-3)


@pytest.mark.untraced
def test_the_calibrated_band_holds_the_truth_of_a_wandering_oscillator() -> None:
    """Where the nominal band of a day's forecast holds the truth in less than half, the calibrated one does in 85 %."""
    history = observe(World(wander=1e-9, spikes=0.1), 40 * 48, Random(11))
    half = len(history.samples) // 2
    back_test = replay(History(history.samples[:half], [], 0.0))
    held = {"nominal": 0, "calibrated": 0}
    starts = range(half, len(history.samples) - 48, 4)
    for index in starts:
        line = fitted(history.samples[index - 127 : index + 1])
        now, later = history.samples[index].raw_ns, index + 48
        error = abs(history.truth_ns[later] - predict_ns(line, history.samples[later].raw_ns)) / S
        for name, known in (("nominal", NOMINAL), ("calibrated", back_test)):
            # with the line's slope corrected away, the error is the tolerance that the band alone must not reach
            breach = estimate_drift(
                [],
                now_raw_ns=now,
                estimate_ns=0,
                bound_s=0.0,
                kernel_ppm=line.frequency_ppm,
                tolerance_s=error,
                is_disciplined=False,
                back_test=known,
                line=line,
            ).breach
            held[name] += breach.pessimistic_s is not None and breach.pessimistic_s <= DAY / S
    assert min(map(len, back_test.ratios[1:])) >= MIN_BACK_TESTS
    assert held["nominal"] < 0.5 * len(starts)
    assert held["calibrated"] > 0.85 * len(starts)


def test_a_back_test_stays_small() -> None:
    """After weeks of audits, and after audits without any that could settle them, its JSON is below 10 kB."""
    weeks = observe(World(wander=1e-9), 14 * 288, Random(12), interval_s=300)
    back_test = BackTest()
    line = fitted(weeks.samples[:20])
    for sample in weeks.samples:
        back_test = note_forecasts(settle_forecasts(back_test, sample), line, sample.raw_ns)
    assert min(map(len, back_test.ratios)) >= 50
    for minute in range(0, 6_000, 5):
        back_test = note_forecasts(back_test, line, weeks.samples[-1].raw_ns + minute * MINUTE)
        assert len(back_test.forecasts) <= 6 * len(HORIZONS_S)
    assert len(json.dumps(back_test)) < 10_000


def test_a_back_test_survives_json() -> None:
    """What JSON made of a back-test is read back to the same value."""
    back_test = replay(observe(World(spikes=0.1), 100, Random(13)))
    assert back_test.forecasts
    for stored in (back_test, BackTest()):
        assert revive(BackTest, json.loads(json.dumps(stored))) == stored
        assert is_sound(stored)


def damaged(**values: object) -> object:
    """Return a back-test as JSON has it, with some numbers of its fit replaced."""
    line = fitted(line_of(10))._asdict() | values
    return [[[900, BOOT, list(line.values())]], [[], [], [], []]]


@pytest.mark.parametrize(
    "data",
    [
        None,
        7,
        [[], []],
        [[], [[], [], []]],
        [[], [[], [], [], [nan]]],
        [[], [[], [], [], ["wide"]]],
        [[], [[], [], [], [-1.0]]],
        [[[900, BOOT, [1, 2]]], [[], [], [], []]],
        [[[901, BOOT, list(fitted(line_of(1)))]], [[], [], [], []]],
        damaged(samples=2),
        damaged(samples=10**9),
        damaged(frequency_ppm=nan),
        damaged(variance_s2=0.0),
        damaged(weight="heavy"),
        damaged(centre_raw_ns=10**400),
    ],
)
def test_anything_else_is_no_back_test(data: object) -> None:
    """A stored value that is not a back-test of these horizons is refused, so that a new one starts."""
    try:
        back_test = revive(BackTest, data)
    except (TypeError, ValueError):
        return
    assert not is_sound(back_test)
    assert isfinite(drift_of([]).breach.guaranteed_s)


# --- cost


@pytest.mark.parametrize("wander", [0.0, 1e-7])
def test_a_fit_and_its_forecast_are_cheap(wander: float) -> None:
    """Fitting 64 samples, dropping most of them or none, and finding the breach takes few instructions (about 1 ms)."""
    samples = observe(World(wander=wander), MAX_SAMPLES, Random(14)).samples
    back_test = BackTest(ratios=((0.7,) * 64,) * 4)
    assert instructions(lambda: drift_of(samples, kernel_ppm=12.3, back_test=back_test)) < 250_000
