"""From a history of offsets to the oscillator's frequency, how sure that is, and when a tolerance will be broken.

The regression runs in the RAW domain, on UTC - CLOCK_MONOTONIC_RAW, which no slew or step of the host moves (B6, F1).
A reboot, a suspend or a restored snapshot breaks RAW: samples from before it must not be passed in.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, islice
from math import ceil, comb, cos, fsum, inf, isfinite, pi, sin, sqrt, tan
from typing import NamedTuple

from ntpaudit.core.clock.interval import MAX_DISTANCE_NS
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, MAX_KERNEL_PPM
from ntpaudit.core.units import NS_PER_S

MAX_SAMPLES = 64
"""How many of the newest samples a line may rest on (F3). The runs test looks at as many again."""

UNKNOWN_SKEW_PPM = 2_000.0
"""The skew of a frequency that is not known; a line with more is as good as none (F3)."""

HORIZONS_S = (900, 3_600, 21_600, 86_400)
"""How far ahead the forecasts look that are kept for the back-test (F6b)."""

MIN_BACK_TESTS = 30
"""A forecast counts as calibrated once as many of its horizon have come due (F6b)."""

FORECAST_LIMIT_S = 30 * 86_400.0
"""No breach is looked for beyond this (F7)."""

_PRECISION_S = 1e-6  # what a reading of the clocks from Python is good for: a smaller residual says nothing
_MIN_SAMPLES = 3
_KEPT_RATIOS = 64
_PER_HORIZON = 4  # at most this many forecasts of one horizon overlap: thirty that did would be one, repeated
_MAX_PENDING = 6
_EXPIRY = 3  # horizons: pools are asked every 30 min, and shall settle the forecasts of 15 min too
_SKEW_CONFIDENCE = 0.999  # two-sided, which is the 99.95 % quantile (F3)
_BAND_CONFIDENCE = 0.95
_GRID_S = (0.0, *(60.0 * 2 ** (step / 2) for step in range(31)), FORECAST_LIMIT_S)
_BISECTIONS = 20


class Sample(NamedTuple):
    """One network audit as the regression sees it, at the instant `raw_ns` of CLOCK_MONOTONIC_RAW.

    `offset_raw_ns` is UTC - RAW, that is realtime + estimate - raw. `distance_s` is half the round trip and the peer
    dispersion of the nearest agreeing source (F2).
    """

    raw_ns: int
    offset_raw_ns: int
    distance_s: float


class Fit(NamedTuple):
    """A line through UTC - RAW by delay-weighted least squares, over what the runs test left (F2, F3).

    `frequency_ppm` is its slope: positive means the free oscillator is slow, the host falls behind. `skew_ppm` is the
    standard error of that slope over the fit's own `span_s`, times Student's t for 99.9 %. It covers the oscillator's
    mean frequency over that span if the noise is white, and says nothing of how far the present frequency has moved
    away from it: flicker, random walk and temperature are not in it (R8). The line goes through `centre_offset_ns` at
    `centre_raw_ns`. `variance_s2` is the variance of a sample of weight 1, `weight` the sum of all weights and
    `spread_s2` their second moment about the centre (s2, W and V of F6). A sample at `nearest_s` has weight 1;
    `scatter_s` is the scale on which more distance makes it less.
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

    Pessimistic and optimistic are the ends of a 95 % band. They are None until enough past forecasts have come due to
    know how wide it must be, `calibrated`: before that no probability is claimed (F6b, R9). `guaranteed_s` needs no
    fit: it is the worst case, see `guaranteed_s()`. `free_running`: a daemon steers now, so all this is "if
    synchronisation stopped now" (F8).
    """

    pessimistic_s: float | None
    central_s: float | None
    optimistic_s: float | None
    guaranteed_s: float
    free_running: bool
    calibrated: bool


class Drift(NamedTuple):
    """How the host's clock moves, as the record has it.

    `frequency_ppm` is the rate of the REALTIME offset if nothing but the kernel's present correction steered it;
    positive: the host falls further behind. `raw_frequency_ppm` is that of the free oscillator. Both are None while it
    is unknown, and the former also where the kernel's correction is not known. `skew_ppm` is the error of the fit
    over its own `span_s` and no limit for the frequency now (R8, see `Fit`); it is 2000 while nothing is known (F3).
    """

    frequency_ppm: float | None
    raw_frequency_ppm: float | None
    skew_ppm: float
    samples: int
    breach: Breach
    span_s: float = 0.0


class Forecast(NamedTuple):
    """A fit that was made at `made_raw_ns`, kept until it can be held against what came `horizon_s` later."""

    horizon_s: int
    made_raw_ns: int
    fit: Fit


class BackTest(NamedTuple):
    """Forecasts that wait to come due, and how those that did turned out (F6b); a bounded value that JSON can hold.

    `ratios` has one row for each of `HORIZONS_S`, the newest last: |error| of a forecast / its nominal 95 % band.
    """

    forecasts: tuple[Forecast, ...] = ()
    ratios: tuple[tuple[float, ...], ...] = ((),) * len(HORIZONS_S)


def fit(samples: Sequence[Sample]) -> Fit | None:
    """Fit a line by delay-weighted least squares, dropping the oldest until the runs test passes (F2, F3).

    The order of the samples does not matter, and one given twice counts once; one whose distance no source could have
    that votes (V17) is passed over. None while the frequency is unknown: below three samples, or a skew above 2000 ppm.
    """
    history = _newest_first(samples)
    if len(history) < _MIN_SAMPLES:
        return None
    # relative to the newest while they are still integers: a float holds an epoch only to 200 ns
    newest, weighed = history[0], history[:MAX_SAMPLES]
    instants = [(sample.raw_ns - newest.raw_ns) / NS_PER_S for sample in history]
    offsets = [(sample.offset_raw_ns - newest.offset_raw_ns) / NS_PER_S for sample in history]
    nearest_s, scatter_s = _distance_scale([sample.distance_s for sample in weighed])
    weights = [1 / _variance_factor(sample.distance_s, nearest_s, scatter_s) for sample in weighed]
    points = list(zip(weights, instants, offsets, strict=False))  # those older than 64 have no weight
    count = _count_linear(points, instants, offsets)
    return _regress(points[:count], newest, nearest_s, scatter_s)


def predict_ns(line: Fit, raw_ns: int) -> int:
    """Return the UTC - RAW that the line has at an instant of RAW (F6)."""
    return line.centre_offset_ns + round((raw_ns - line.centre_raw_ns) * line.frequency_ppm / 1e6)


def estimate_drift(
    samples: Sequence[Sample],
    *,
    now_raw_ns: int,
    estimate_ns: int,
    bound_s: float,
    kernel_ppm: float | None,
    tolerance_s: float,
    steered: bool,
    back_test: BackTest,
    line: Fit | None = None,
    drift_ppm: float = MAX_DRIFT_PPM,
    pending_s: float = 0.0,
) -> Drift:
    """Say how the clock moves and when |offset| will reach the tolerance (F1 to F3, F6 to F8).

    `estimate_ns` and `bound_s` are the offset at `now_raw_ns` and the worst case of it. `kernel_ppm` is by how much the
    kernel speeds REALTIME up against RAW, None if it is not known, and `pending_s` the offset that it has yet to slew
    away. `steered`: a daemon is at work. `line` is the fit of these very samples where it is at hand already. The
    oscillator is off by `drift_ppm` at most (R4).
    """
    line = line or fit(samples)
    margin_s = tolerance_s - bound_s - abs(pending_s)
    if line is None:
        breach = Breach(None, None, None, guaranteed_s(margin_s, kernel_ppm, drift_ppm), steered, calibrated=False)
        return Drift(None, None, UNKNOWN_SKEW_PPM, len(_newest_first(samples)), breach)
    if kernel_ppm is None or not isfinite(kernel_ppm):
        breach = Breach(None, None, None, guaranteed_s(margin_s, None, drift_ppm), steered, calibrated=False)
        return Drift(None, line.frequency_ppm, line.skew_ppm, line.samples, breach, line.span_s)
    rate_ppm = line.frequency_ppm - kernel_ppm
    near_s, central_s, far_s = _times_to_breach(line, rate_ppm, now_raw_ns, estimate_ns, tolerance_s, back_test)
    least_s = guaranteed_s(margin_s, kernel_ppm, drift_ppm, rate_ppm)
    calibrated = len(back_test.ratios[_row(FORECAST_LIMIT_S if near_s is None else near_s)]) >= MIN_BACK_TESTS
    if not calibrated:
        near_s = far_s = None  # R9
    elif near_s is not None:  # a band of few samples may reach nearer than what cannot be
        near_s = max(near_s, least_s if central_s is None else min(least_s, central_s))
    breach = Breach(near_s, central_s, far_s, least_s, steered, calibrated)
    return Drift(rate_ppm, line.frequency_ppm, line.skew_ppm, line.samples, breach, line.span_s)


def guaranteed_s(margin_s: float, kernel_ppm: float | None, drift_ppm: float, rate_ppm: float = 0.0) -> float:
    """Return how long the worst case takes to use up a margin, counted from now (F7, R3).

    The offset moves by the oscillator's own error, `drift_ppm` at most, and by the kernel's correction, which stays in
    force where nothing steers the clock any more: it may or may not still make up for the oscillator. Where the
    kernel cannot be read its correction may be the largest that there is. `rate_ppm` is the rate that was measured.
    """
    correction_ppm = abs(kernel_ppm) if kernel_ppm is not None and isfinite(kernel_ppm) else MAX_KERNEL_PPM
    worst_ppm = max(drift_ppm + correction_ppm, abs(rate_ppm))
    return margin_s / (worst_ppm * 1e-6) if 0 < margin_s < inf else 0.0


def breach_after(breach: Breach, age_s: float) -> Breach:
    """Return what a forecast made `age_s` ago says as of now: every moment that it names is that much nearer (R3)."""
    pessimistic_s, central_s, optimistic_s = (
        None if time_s is None else max(0.0, time_s - age_s) for time_s in breach[:3]
    )
    guaranteed_s = max(0.0, breach.guaranteed_s - age_s)
    return Breach(pessimistic_s, central_s, optimistic_s, guaranteed_s, breach.free_running, breach.calibrated)


def note_forecasts(back_test: BackTest, line: Fit, now_raw_ns: int) -> BackTest:
    """Remember what the line forecasts, for each horizon whose last forecast is a quarter of it old (F6b)."""
    noted = [forecast for forecast in back_test.forecasts if _is_pending(forecast, now_raw_ns)]
    for horizon_s in HORIZONS_S:
        made = [forecast.made_raw_ns for forecast in noted if forecast.horizon_s == horizon_s]
        rested = not made or now_raw_ns - max(made) >= horizon_s * NS_PER_S // _PER_HORIZON
        if rested and len(made) < _MAX_PENDING:
            noted.append(Forecast(horizon_s, now_raw_ns, line))
    return back_test._replace(forecasts=tuple(noted))


def settle_forecasts(back_test: BackTest, sample: Sample) -> BackTest:
    """Hold every forecast that has come due against what was measured, and keep by how much it erred (F6b)."""
    if not _is_usable(sample):
        return back_test
    pending, ratios = [], dict(zip(HORIZONS_S, back_test.ratios, strict=True))
    for forecast in back_test.forecasts:
        if not _is_pending(forecast, sample.raw_ns):
            continue  # nothing was measured in time, or RAW started again
        if sample.raw_ns - forecast.made_raw_ns < forecast.horizon_s * NS_PER_S:
            pending.append(forecast)
        else:
            ratio = round(_error_ratio(forecast.fit, sample), 3)
            ratios[forecast.horizon_s] = (*ratios[forecast.horizon_s], ratio)[-_KEPT_RATIOS:]
    return BackTest(tuple(pending), tuple(ratios.values()))


def drop_forecasts(back_test: BackTest) -> BackTest:
    """Forget the forecasts that wait, and keep the ratios: RAW was broken by a boot, a suspend or a snapshot (F1)."""
    return back_test._replace(forecasts=())


def is_sound(back_test: BackTest) -> bool:
    """Return whether a back-test that was stored may be used: it has these horizons, and no impossible number."""
    return (
        len(back_test.ratios) == len(HORIZONS_S)
        and all(0 <= ratio < inf for row in back_test.ratios for ratio in row)
        and all(map(_is_sound, back_test.forecasts))
    )


@cache
def student_t(confidence: float, freedom: int) -> float:
    """Return the t that Student's T of that many degrees of freedom stays within, either way, with that probability."""
    low, high = 0.0, pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_probability(middle, freedom) < confidence else (low, middle)
    return sqrt(freedom) * tan(low)


@cache
def fewest_sign_changes(count: int) -> int:
    """Return the fewest sign changes among `count` residuals that chance explains: fewer have 5 % at most.

    Among independent signs the changes are binomial: each of the `count - 1` neighbours differs with probability 1/2.
    """
    config = accumulate(comb(count - 1, changes) for changes in range(count))
    return next(changes for changes, up_to_here in enumerate(config) if 20 * up_to_here > 1 << (count - 1))


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


def _distance_scale(distances: Sequence[float]) -> tuple[float, float]:
    """Return the least distance, and how far above it a sample begins to count for less (F2)."""
    ordered = sorted(distances)
    nearest, median = ordered[0], (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return nearest, max(_PRECISION_S, min((median - nearest) / 0.7, nearest))


def _variance_factor(distance_s: float, nearest_s: float, scatter_s: float) -> float:
    """Return how many times the variance of the nearest sample one at this distance has (F2)."""
    deviations = 1 + max(0.0, distance_s - nearest_s - _PRECISION_S) / scatter_s
    return deviations * deviations


def _count_linear(
    points: Sequence[tuple[float, float, float]], instants: Sequence[float], offsets: Sequence[float]
) -> int:
    """Return how many of the samples, the newest first, one line explains by the runs test; three at least (F3).

    The residuals of as many older samples again are looked at too, which shows a change of frequency early.
    """
    sums = zip(
        accumulate(w for w, _, _ in points),
        accumulate(w * x for w, x, _ in points),
        accumulate(w * y for w, _, y in points),
        accumulate(w * x * x for w, x, _ in points),
        accumulate(w * x * y for w, x, y in points),
        strict=True,
    )
    for count, (w, wx, wy, wxx, wxy) in reversed(list(enumerate(sums, 1))[_MIN_SAMPLES:]):
        spread = wxx - wx * wx / w
        slope = (wxy - wx * wy / w) / spread if spread > 0 else 0.0
        level = (wy - slope * wx) / w
        seen = islice(zip(instants, offsets, strict=True), 2 * count)
        if _is_random([y - level - slope * x for x, y in seen]):
            return count
    return _MIN_SAMPLES


def _regress(
    points: Sequence[tuple[float, float, float]], newest: Sample, nearest_s: float, scatter_s: float
) -> Fit | None:
    """Fit a line to (weight, instant, offset), the latter two in seconds from the newest sample's (F2)."""
    weight = fsum(w for w, _, _ in points)
    centre = fsum(w * x for w, x, _ in points) / weight
    level = fsum(w * y for w, _, y in points) / weight
    spread = fsum(w * (x - centre) ** 2 for w, x, _ in points)
    if not spread > 0:
        return None
    slope = fsum(w * (x - centre) * (y - level) for w, x, y in points) / spread
    squares = fsum(w * (y - level - slope * (x - centre)) ** 2 for w, x, y in points)
    variance = max(squares / (len(points) - 2), _PRECISION_S**2)
    skew_ppm = 1e6 * sqrt(variance / spread) * student_t(_SKEW_CONFIDENCE, len(points) - 2)
    if not skew_ppm <= UNKNOWN_SKEW_PPM:
        return None
    return Fit(
        frequency_ppm=slope * 1e6,
        skew_ppm=skew_ppm,
        samples=len(points),
        span_s=points[0][1] - points[-1][1],
        centre_raw_ns=newest.raw_ns + round(centre * NS_PER_S),
        centre_offset_ns=newest.offset_raw_ns + round(level * NS_PER_S),
        variance_s2=variance,
        weight=weight,
        spread_s2=spread,
        nearest_s=nearest_s,
        scatter_s=scatter_s,
    )


def _is_random(residuals: Sequence[float]) -> bool:
    """Chance explains the signs of the residuals, or they are too small to have one (F3)."""
    if all(abs(residual) <= _PRECISION_S for residual in residuals):
        return True
    signs = [residual > 0 for residual in residuals]
    return sum(map(bool.__ne__, signs, signs[1:])) >= fewest_sign_changes(len(signs))


def _band_s(line: Fit, raw_ns: int, factor: float = 1.0) -> float:
    """Return the nominal 95 % band of a forecast for that instant, in either direction (F6).

    Beside the line's own error it has that of one sample, `factor` times the variance of the nearest: a forecast starts
    from the present estimate, and is held against a later one.
    """
    lead_s = (raw_ns - line.centre_raw_ns) / NS_PER_S
    sigma_s = sqrt(line.variance_s2 * (factor + 1 / line.weight + lead_s * lead_s / line.spread_s2))
    return student_t(_BAND_CONFIDENCE, line.samples - 2) * sigma_s


def _error_ratio(line: Fit, sample: Sample) -> float:
    """Return the error of what the line foretold of a sample, in units of its nominal 95 % band (F6b).

    In units of the band and not of sigma, so that fits of few samples and of many can be counted together.
    """
    error_s = abs(sample.offset_raw_ns - predict_ns(line, sample.raw_ns)) / NS_PER_S
    factor = _variance_factor(sample.distance_s, line.nearest_s, line.scatter_s)
    return error_s / _band_s(line, sample.raw_ns, factor)


def _is_pending(forecast: Forecast, raw_ns: int) -> bool:
    """The forecast can still be held against something."""
    return 0 <= raw_ns - forecast.made_raw_ns <= _EXPIRY * forecast.horizon_s * NS_PER_S


def _is_sound(forecast: Forecast) -> bool:
    """The numbers could be those of a fit, so that nothing divides by zero or runs for ever."""
    line = forecast.fit
    return (
        forecast.horizon_s in HORIZONS_S
        and line.samples in range(_MIN_SAMPLES, MAX_SAMPLES + 1)
        and all(map(isfinite, line))
        and min(line.variance_s2, line.weight, line.spread_s2, line.scatter_s) > 0
    )


def _row(ahead_s: float) -> int:
    """Return which horizon speaks for a forecast so far ahead: the first that is not shorter, or the last."""
    return next((row for row, horizon_s in enumerate(HORIZONS_S) if ahead_s <= horizon_s), len(HORIZONS_S) - 1)


def _widening(ratios: Sequence[float]) -> float:
    """Return the factor by which the nominal band must grow to have held the next outcome with 95 % (F6b).

    The rank includes the next outcome: this many past outcomes guarantee no more than that.
    """
    if not ratios:
        return 0.0
    return sorted(ratios)[min(ceil(0.95 * (len(ratios) + 1)), len(ratios)) - 1]


def _times_to_breach(
    line: Fit, rate_ppm: float, now_raw_ns: int, estimate_ns: int, tolerance_s: float, back_test: BackTest
) -> tuple[float | None, float | None, float | None]:
    """Return the pessimistic, central and optimistic time until |offset| reaches the tolerance (F7)."""
    widenings = [_widening(ratios) for ratios in back_test.ratios]

    def size_s(ahead_s: float) -> float:
        return abs(estimate_ns / NS_PER_S + rate_ppm * 1e-6 * ahead_s)

    @cache  # two of the times are looked for on one grid
    def band_s(ahead_s: float) -> float:
        # a wandering frequency lets the error outgrow the line's own by sqrt(h): beyond the last horizon, assume it
        growth = sqrt(max(1.0, ahead_s / HORIZONS_S[-1]))
        widening = max(1.0, widenings[_row(ahead_s)] * growth)
        return widening * _band_s(line, now_raw_ns + round(ahead_s * NS_PER_S))

    # each as "not below", so that a NaN is a breach now and not none ever
    return (
        _first_time(lambda ahead_s: not size_s(ahead_s) + band_s(ahead_s) < tolerance_s),
        _first_time(lambda ahead_s: not size_s(ahead_s) < tolerance_s),
        _first_time(lambda ahead_s: not size_s(ahead_s) - band_s(ahead_s) < tolerance_s),
    )


def _first_time(is_reached: Callable[[float], bool]) -> float | None:
    """Return the first time that the condition holds, on a grid that widens, then by bisection; None within 30 days."""
    index = next((index for index, time_s in enumerate(_GRID_S) if is_reached(time_s)), None)
    if index is None:
        return None
    before, after = _GRID_S[max(0, index - 1)], _GRID_S[index]
    for _ in range(_BISECTIONS):
        middle = (before + after) / 2
        before, after = (before, middle) if is_reached(middle) else (middle, after)
    return after
