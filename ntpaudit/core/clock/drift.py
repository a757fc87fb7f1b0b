"""From a history of offsets to the oscillator's frequency, its error, and when a tolerance will be exceeded.

The regression uses UTC - CLOCK_MONOTONIC_RAW, which no slew or step of the host changes (B6, F1). A reboot, a suspend
or a restored snapshot breaks RAW: samples from before it must not be passed in.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from math import ceil, comb, cos, fsum, inf, isfinite, log, pi, sin, sqrt, tan
from typing import NamedTuple

from ntpaudit.core.clock.interval import MAX_DISTANCE_NS
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, MAX_KERNEL_PPM
from ntpaudit.core.units import NS_PER_S

MAX_SAMPLES = 64  # how many of the newest samples a line may use; the runs test uses as many again (F3)
UNKNOWN_SKEW_PPM = 2_000.0  # the skew of an unknown frequency; a line with a larger one is not used (F3)
HORIZONS_S = (900, 3_600, 21_600, 86_400)  # the horizons of the forecasts that are kept for the back-test (F6b)
MIN_BACK_TESTS = 30  # a forecast is calibrated once this many forecasts of its horizon have come due (F6b)
FORECAST_LIMIT_S = 30 * 86_400.0  # the longest forecast of a breach (F7)

_PRECISION_S = 1e-6  # the precision of clock readings in Python: a smaller residual means nothing
_MIN_SAMPLES = 3
_KEPT_RATIOS = 64
_PER_HORIZON = 4  # at most this many forecasts of one horizon overlap: overlapping forecasts are not independent
_MAX_PENDING = 6  # those that are due stay pending until a sample comes
_EXPIRY = 3  # horizons: pools are polled every 30 min, and must also settle the forecasts of 15 min
_SKEW_CONFIDENCE = 0.999  # two-sided, which is the 99.95 % quantile (F3)
_BAND_CONFIDENCE = 0.95
_GRID_S = (0.0, *(60.0 * 2 ** (step / 2) for step in range(31)), FORECAST_LIMIT_S)
_BISECTIONS = 20


class Sample(NamedTuple):
    """One network audit at the instant `raw_ns` of CLOCK_MONOTONIC_RAW.

    `offset_raw_ns` is UTC - RAW, that is realtime + estimate - raw. `distance_s` is half the round trip and the peer
    dispersion of the nearest agreeing source (F2).
    """

    raw_ns: int
    offset_raw_ns: int
    distance_s: float


class Fit(NamedTuple):
    """A line through UTC - RAW by delay-weighted least squares (F2, F3).

    - `frequency_ppm`: its slope; positive: the free oscillator is slow and the host falls behind.
    - `skew_ppm`: the standard error of the slope over `span_s`, times Student's t for 99.9 %. It covers the mean
      frequency over that span if the noise is white. It is no limit for the present frequency: it does not contain
      flicker, random walk and temperature (R8).
    - `centre_raw_ns`, `centre_offset_ns`: a point of the line.
    - `variance_s2`, `weight`, `spread_s2`: s2, W and V of F6: the variance of a sample of weight 1, the sum of the
      weights, and their second moment about the centre.
    - `nearest_s`, `scatter_s`: the distance of a sample of weight 1, and the scale on which more distance lowers it.
    """

    frequency_ppm: float
    skew_ppm: float
    samples: int
    span_s: float
    centre_raw_ns: int
    centre_offset_ns: int
    variance_s2: float
    weight: float
    spread_s2: float
    nearest_s: float
    scatter_s: float


class Breach(NamedTuple):
    """Seconds from now until |offset| reaches the tolerance (F7); None: not within 30 days, or frequency unknown.

    `pessimistic_s` and `optimistic_s` are the ends of a 95 % band; None until enough forecasts have come due to know
    its width, `calibrated` (F6b, R9). `guaranteed_s` is the worst case, without a fit (R3). `free_running`: a time
    daemon disciplines the clock now, so the times are those if it stopped now (F8).
    """

    pessimistic_s: float | None
    central_s: float | None
    optimistic_s: float | None
    guaranteed_s: float
    free_running: bool
    calibrated: bool


class Drift(NamedTuple):
    """The drift of the host's clock, as in the record.

    `frequency_ppm` is the rate of the REALTIME offset with the kernel's present correction; positive: the host falls
    further behind. None if it or the correction is unknown. `raw_frequency_ppm` is the rate of the free oscillator,
    None if unknown. `skew_ppm` is the error of the fit over its `span_s` (see `Fit`), 2000 if nothing is known (F3).
    """

    frequency_ppm: float | None
    raw_frequency_ppm: float | None
    skew_ppm: float
    samples: int
    breach: Breach
    span_s: float = 0.0


class Forecast(NamedTuple):
    """A fit that was made at `made_raw_ns`, kept to be compared with a sample `horizon_s` later."""

    horizon_s: int
    made_raw_ns: int
    fit: Fit


class BackTest(NamedTuple):
    """Forecasts that have not come due, and the errors of those that have (F6b).

    `ratios` has one row for each of `HORIZONS_S`, the newest last: |error| of a forecast / its nominal 95 % band.
    """

    forecasts: tuple[Forecast, ...] = ()
    ratios: tuple[tuple[float, ...], ...] = ((),) * len(HORIZONS_S)


def fit(samples: Sequence[Sample]) -> Fit | None:
    """Fit a line by delay-weighted least squares, dropping the oldest until the runs test passes (F2, F3).

    Order and duplicates of samples do not matter; a sample at a distance at which no source votes (V17) is ignored.
    None while the frequency is unknown: fewer than three samples, or a skew above 2000 ppm.
    """
    history = _newest_first(samples)
    if len(history) < _MIN_SAMPLES:
        return None
    newest, distances = history[0], sorted(sample.distance_s for sample in history[:MAX_SAMPLES])
    nearest_s, middle = distances[0], len(distances) // 2
    median_s = (distances[~middle] + distances[middle]) / 2
    scatter_s = max(_PRECISION_S, min((median_s - nearest_s) / 0.7, nearest_s))
    weights = [1 / _variance_factor(sample.distance_s, nearest_s, scatter_s) for sample in history[:MAX_SAMPLES]]
    points = [  # a float would hold an epoch only to 200 ns
        ((sample.raw_ns - newest.raw_ns) / NS_PER_S, (sample.offset_raw_ns - newest.offset_raw_ns) / NS_PER_S)
        for sample in history
    ]
    sums = _sums(weights, points)
    for count in range(len(weights), _MIN_SAMPLES - 1, -1):
        weight, centre, level, spread, slope = _regress(sums[count - 1])
        # the residuals of as many older samples show a change of frequency early
        if _is_random(points[: 2 * count], level - slope * centre, slope):
            break
    if not spread > 0:
        return None
    squares = fsum(
        w * (y - level - slope * (x - centre)) ** 2 for w, (x, y) in zip(weights[:count], points, strict=False)
    )
    variance = max(squares / (count - 2), _PRECISION_S**2)
    skew_ppm = 1e6 * sqrt(variance / spread) * student_t(_SKEW_CONFIDENCE, count - 2)
    if not skew_ppm <= UNKNOWN_SKEW_PPM:
        return None
    return Fit(
        frequency_ppm=slope * 1e6,
        skew_ppm=skew_ppm,
        samples=count,
        span_s=-points[count - 1][0],
        centre_raw_ns=newest.raw_ns + round(centre * NS_PER_S),
        centre_offset_ns=newest.offset_raw_ns + round(level * NS_PER_S),
        variance_s2=variance,
        weight=weight,
        spread_s2=spread,
        nearest_s=nearest_s,
        scatter_s=scatter_s,
    )


def predict_ns(line: Fit, raw_ns: int) -> int:
    """Return UTC - RAW by the line at an instant of RAW (F6)."""
    return line.centre_offset_ns + round((raw_ns - line.centre_raw_ns) * line.frequency_ppm / 1e6)


def estimate_drift(
    samples: Sequence[Sample],
    *,
    now_raw_ns: int,
    estimate_ns: int,
    bound_s: float,
    kernel_ppm: float | None,
    tolerance_s: float,
    is_disciplined: bool,
    back_test: BackTest,
    line: Fit | None = None,
    drift_ppm: float = MAX_DRIFT_PPM,
    pending_s: float = 0.0,
) -> Drift:
    """Estimate the drift of the clock, and when |offset| will reach the tolerance (F1 to F3, F6 to F8).

    - `estimate_ns`, `bound_s`: the offset at `now_raw_ns`, and its maximum error.
    - `kernel_ppm`: the kernel's correction of REALTIME against RAW, None if unknown; `pending_s` is the offset that it
      still slews.
    - `is_disciplined`: a time daemon disciplines the clock.
    - `line`: the fit of these samples, if known.
    - `drift_ppm`: the largest possible drift of the oscillator (R4).
    """
    line = line or fit(samples)
    if kernel_ppm is not None and not isfinite(kernel_ppm):
        kernel_ppm = None
    rate_ppm = None if line is None or kernel_ppm is None else line.frequency_ppm - kernel_ppm
    # F7, R3: the kernel's correction stays in force after the time daemon has stopped, and may not compensate the drift
    correction_ppm = MAX_KERNEL_PPM if kernel_ppm is None else abs(kernel_ppm)
    worst_ppm, margin_s = max(drift_ppm + correction_ppm, abs(rate_ppm or 0.0)), tolerance_s - bound_s - abs(pending_s)
    least_s = margin_s / (worst_ppm * 1e-6) if 0 < margin_s < inf else 0.0
    near_s = central_s = far_s = None
    calibrated = False
    if line is not None and rate_ppm is not None:
        near_s, central_s, far_s = _times_to_breach(line, rate_ppm, now_raw_ns, estimate_ns, tolerance_s, back_test)
        calibrated = len(back_test.ratios[_row(FORECAST_LIMIT_S if near_s is None else near_s)]) >= MIN_BACK_TESTS
        if not calibrated:
            near_s = far_s = None  # R9
        elif near_s is not None:  # the band of few samples may be so wide that it includes the impossible
            near_s = max(near_s, least_s if central_s is None else min(least_s, central_s))
    breach = Breach(near_s, central_s, far_s, least_s, is_disciplined, calibrated)
    if line is None:
        return Drift(None, None, UNKNOWN_SKEW_PPM, len(_newest_first(samples)), breach)
    return Drift(rate_ppm, line.frequency_ppm, line.skew_ppm, line.samples, breach, line.span_s)


def breach_after(breach: Breach, age_s: float) -> Breach:
    """Return a forecast that was made `age_s` ago, with its times from now (R3)."""
    near_s, central_s, far_s = (None if time_s is None else max(0.0, time_s - age_s) for time_s in breach[:3])
    least_s = max(0.0, breach.guaranteed_s - age_s)
    return Breach(near_s, central_s, far_s, least_s, breach.free_running, breach.calibrated)


def note_forecasts(back_test: BackTest, line: Fit, now_raw_ns: int) -> BackTest:
    """Add a forecast of the line for each horizon whose last forecast is at least a quarter of it old (F6b)."""
    noted = [forecast for forecast in back_test.forecasts if _is_pending(forecast, now_raw_ns)]
    for horizon_s in HORIZONS_S:
        made = [forecast.made_raw_ns for forecast in noted if forecast.horizon_s == horizon_s]
        is_due = not made or now_raw_ns - max(made) >= horizon_s * NS_PER_S // _PER_HORIZON
        if is_due and len(made) < _MAX_PENDING:
            noted.append(Forecast(horizon_s, now_raw_ns, line))
    return back_test._replace(forecasts=tuple(noted))


def settle_forecasts(back_test: BackTest, sample: Sample) -> BackTest:
    """Compare every forecast that has come due with a sample, and keep its error in units of its band (F6b).

    In units of the band and not of sigma, so that fits of few samples and of many can be counted together.
    """
    if not _is_usable(sample):
        return back_test
    pending, ratios = [], dict(zip(HORIZONS_S, back_test.ratios, strict=True))
    for forecast in back_test.forecasts:
        horizon_s, made_raw_ns, line = forecast
        if not _is_pending(forecast, sample.raw_ns):
            continue  # nothing was measured in time, or RAW started again
        if sample.raw_ns - made_raw_ns < horizon_s * NS_PER_S:
            pending.append(forecast)
        else:
            error_s = abs(sample.offset_raw_ns - predict_ns(line, sample.raw_ns)) / NS_PER_S
            factor = _variance_factor(sample.distance_s, line.nearest_s, line.scatter_s)
            ratio = round(error_s / _band_s(line, sample.raw_ns, factor), 3)
            ratios[horizon_s] = (*ratios[horizon_s], ratio)[-_KEPT_RATIOS:]
    return BackTest(tuple(pending), tuple(ratios.values()))


def drop_forecasts(back_test: BackTest) -> BackTest:
    """Drop the pending forecasts: RAW was broken by a boot, a suspend or a snapshot (F1)."""
    return back_test._replace(forecasts=())


def is_sound(back_test: BackTest) -> bool:
    """Whether a stored back-test can be used: it has these horizons, and each number is one that a fit can have."""
    return (
        len(back_test.ratios) == len(HORIZONS_S)
        and all(0 <= ratio < inf for row in back_test.ratios for ratio in row)
        and all(
            horizon_s in HORIZONS_S
            and line.samples in range(_MIN_SAMPLES, MAX_SAMPLES + 1)
            and all(map(isfinite, line))
            and min(line.variance_s2, line.weight, line.spread_s2, line.scatter_s) > 0
            for horizon_s, _, line in back_test.forecasts
        )
    )


@cache
def student_t(confidence: float, freedom: int) -> float:
    """Return t so that |T| <= t with this probability, for Student's T with that many degrees of freedom."""
    low, high = 0.0, pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_probability(middle, freedom) < confidence else (low, middle)
    return sqrt(freedom) * tan(low)


@cache
def fewest_sign_changes(count: int) -> int:
    """Return the fewest sign changes among `count` residuals that chance explains; fewer are less probable than 0.1 %.

    Among independent signs the changes are binomial: each of the `count - 1` neighbours differs with probability 1/2.
    A fit tests up to 62 lengths. With 5 % for each, as in chrony, it would drop good samples (docs/decisions.md).
    """
    cumulated = accumulate(comb(count - 1, changes) for changes in range(count))
    return next(changes for changes, ways in enumerate(cumulated) if 1000 * ways > 1 << (count - 1))


def _student_probability(angle: float, freedom: int) -> float:
    """Return P(|T| <= sqrt(freedom) * tan(angle)), in closed form (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term = total = 0.0 if freedom == 1 else cos(angle) if odd else 1.0
    for k in range(2 + odd, freedom, 2):
        term *= (k - 1) / k * cos(angle) ** 2
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def _is_usable(sample: Sample) -> bool:
    return 0 <= sample.distance_s <= MAX_DISTANCE_NS / NS_PER_S


def _newest_first(samples: Sequence[Sample]) -> list[Sample]:
    return sorted(filter(_is_usable, set(samples)), reverse=True)[: 2 * MAX_SAMPLES]


def _variance_factor(distance_s: float, nearest_s: float, scatter_s: float) -> float:
    """Return the variance of a sample at this distance, in units of that of the nearest sample (F2)."""
    deviations = 1 + max(0.0, distance_s - nearest_s - _PRECISION_S) / scatter_s
    return deviations * deviations


def _sums(weights: Sequence[float], points: Sequence[tuple[float, float]]) -> list[tuple[float, ...]]:
    """Return the sums of w, wx, wy, wx2 and wxy over the first points, for each number of points."""
    terms = [(w, w * x, w * y, w * x * x, w * x * y) for w, (x, y) in zip(weights, points, strict=False)]
    return list(zip(*map(accumulate, zip(*terms, strict=True)), strict=True))


def _regress(sums: Sequence[float]) -> tuple[float, float, float, float, float]:
    """Return weight, centre, level at the centre, spread and slope of the line through the points summed (F2)."""
    weight, wx, wy, wxx, wxy = sums
    centre, level, spread = wx / weight, wy / weight, wxx - wx * wx / weight
    return weight, centre, level, spread, (wxy - wx * level) / spread if spread > 0 else 0.0


def _is_random(points: Sequence[tuple[float, float]], start: float, slope: float) -> bool:
    """Whether chance explains the signs of the residuals, or they are too small to have one (F3)."""
    signs = [y - slope * x > start for x, y in points]
    if sum(map(bool.__ne__, signs, signs[1:])) >= fewest_sign_changes(len(signs)):
        return True
    return all(abs(y - slope * x - start) <= _PRECISION_S for x, y in points)


def _band_s(line: Fit, raw_ns: int, factor: float | None = None) -> float:
    """Return the nominal 95 % band of a forecast for that instant, in either direction (F6).

    It contains the error of the line and of one sample with `factor` times the variance of the nearest; without a
    factor that of a usual sample of the line. So it is wider than the error of the forecast itself, which no sample can
    show.
    """
    lead_s = (raw_ns - line.centre_raw_ns) / NS_PER_S
    factor = line.samples / line.weight if factor is None else factor
    sigma_s = sqrt(line.variance_s2 * (factor + 1 / line.weight + lead_s * lead_s / line.spread_s2))
    return student_t(_BAND_CONFIDENCE, line.samples - 2) * sigma_s


def _is_pending(forecast: Forecast, raw_ns: int) -> bool:
    return 0 <= raw_ns - forecast.made_raw_ns <= _EXPIRY * forecast.horizon_s * NS_PER_S


def _row(ahead_s: float) -> int:
    """Return the row of a forecast: the first horizon that is not shorter, or the last."""
    return min(bisect_left(HORIZONS_S, ahead_s), len(HORIZONS_S) - 1)


def _widening(ratios: Sequence[float]) -> float:
    """Return the factor of the nominal band that contains the next outcome with 95 % (F6b).

    Its rank is that of split conformal prediction, ceil(0.95 (n + 1)), which needs no distribution of the outcomes,
    only that they are exchangeable.
    """
    return sorted(ratios)[min(ceil(0.95 * (len(ratios) + 1)), len(ratios)) - 1] if ratios else 0.0


def _widening_at(widenings: Sequence[float], ahead_s: float) -> float:
    """Return the factor for this time ahead: between two horizons by its logarithm.

    Beyond the last it grows by the square root, as a wandering frequency lets the error grow more than the line's.
    """
    if ahead_s >= HORIZONS_S[-1]:
        return widenings[-1] * sqrt(ahead_s / HORIZONS_S[-1])
    row = _row(ahead_s)
    if row == 0:
        return widenings[0]
    share = log(ahead_s / HORIZONS_S[row - 1]) / log(HORIZONS_S[row] / HORIZONS_S[row - 1])
    return widenings[row - 1] + share * (widenings[row] - widenings[row - 1])


def _times_to_breach(
    line: Fit, rate_ppm: float, now_raw_ns: int, estimate_ns: int, tolerance_s: float, back_test: BackTest
) -> tuple[float | None, float | None, float | None]:
    widenings = [_widening(ratios) for ratios in back_test.ratios]

    def size_s(ahead_s: float) -> float:
        return abs(estimate_ns / NS_PER_S + rate_ppm * 1e-6 * ahead_s)

    @cache  # two times are searched on one grid: it saves 17 % of the instructions of a local audit
    def band_s(ahead_s: float) -> float:
        return _widening_at(widenings, ahead_s) * _band_s(line, now_raw_ns + round(ahead_s * NS_PER_S))

    # written as "not below", so a NaN is a breach now
    return (
        _first_time(lambda ahead_s: not size_s(ahead_s) + band_s(ahead_s) < tolerance_s),
        _first_time(lambda ahead_s: not size_s(ahead_s) < tolerance_s),
        _first_time(lambda ahead_s: not size_s(ahead_s) - band_s(ahead_s) < tolerance_s),
    )


def _first_time(is_reached: Callable[[float], bool]) -> float | None:
    """Return the first time at which the condition holds, on a grid and then by bisection; None within 30 days."""
    index = next((index for index, time_s in enumerate(_GRID_S) if is_reached(time_s)), None)
    if index is None:
        return None
    before, after = _GRID_S[max(0, index - 1)], _GRID_S[index]
    for _ in range(_BISECTIONS):
        middle = (before + after) / 2
        before, after = (before, middle) if is_reached(middle) else (middle, after)
    return after
