"""Sections 4 and 5: how right the measured frequency is, and the forecasts made from it."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ntpaudit.core.clock.drift import FORECAST_LIMIT_S
from ntpaudit.core.schedule import Intervals
from tests.truth.clocks import PS_PER_S
from tests.truth.oscillator import STEP_S, Oscillator
from tests.truth.paths import LAN, POOL
from tests.truth.peers import chrony_regression, least_squares
from tests.truth.servers import ServerSpec
from tests.truth.statistics import Results, total
from tests.truth.world import Audit, Fault, Simulation, World

HOURS = 16 * 24.0
NOISES = {
    "white PM": Oscillator(20.0, white_pm_s=100e-9),
    "white FM": Oscillator(20.0, white_fm=1e-8),
    "flicker FM": Oscillator(20.0, white_fm=1e-9, flicker_fm=1e-8),
    "random walk FM": Oscillator(20.0, white_fm=1e-9, walk_fm=1e-10),
    "daily temperature": Oscillator(20.0, white_fm=1e-9, daily_ppm=1.0),
    "air conditioning": Oscillator(20.0, white_fm=1e-9, cycle_ppm=0.5),
    "ageing": Oscillator(20.0, 0.02, white_fm=1e-9),
    "near the largest drift": Oscillator(49.5, white_fm=1e-9),
}
PROGRAMS = ("ntpaudit", "chrony's regression", "least squares")

_PATHS = {"LAN": (LAN, 300.0, (0.5e-3, 0.2e-3)), "pool": (POOL, 3600.0, (20e-3, 15e-3))}
_EACH = {"LAN": 37, "pool": 3}
"""A forecast is compared with the truth once in this many audits of any kind, because neighbours are alike."""

_SETTLED_S = 6 * 3600.0
_STEPPED_S = 6 * 3600.0
"""The clock is set this often and runs free between: so it stays right, and each forecast has something to say."""


def world_of(number: int, hours: float = HOURS) -> tuple[World, str, str]:
    """Return a world by its number, with the names of its path and noise: each of them in turn."""
    noise = list(NOISES)[number // len(_PATHS) % len(NOISES)]
    path = list(_PATHS)[number % len(_PATHS)]
    kind, interval_s, (root_delay_s, root_dispersion_s) = _PATHS[path]
    servers = tuple(
        ServerSpec(kind, root_delay_s=root_delay_s, root_dispersion_s=root_dispersion_s, wander=0.01) for _ in range(4)
    )
    sign = -1 if number // (len(_PATHS) * len(NOISES)) % 2 else 1
    oscillator = NOISES[noise]._replace(offset_ppm=sign * NOISES[noise].offset_ppm)
    intervals = Intervals(interval_s, interval_s, 2 * interval_s)
    world = World(
        f"frequency {number}",
        hours,
        oscillator,
        servers,
        "step-only",
        _STEPPED_S,
        intervals,
        faults=(Fault(0.9 * hours * 3600, "outage"),),
        extra_hours=FORECAST_LIMIT_S / 3600,
    )
    return world, path, noise


def measure_world(number: int, seed: int, hours: float = HOURS) -> Results:
    """Run a world, and compare frequencies and forecasts with the truth.

    Errors: `frequency` by path, noise and program. Shares: `skew` and `band` by path and noise; `no band` by path;
    `guaranteed` by noise.
    """
    world, path, noise = world_of(number, hours)
    found = Results()
    found.sum("frequency hours").add(hours)
    simulation = Simulation(world, seed)
    phase_s = simulation.phase_ps / PS_PER_S
    samples: list[tuple[float, float, float]] = []
    for count, audit in enumerate(simulation.audits()):
        drift = audit.record.drift
        if drift is None or audit.true.now_s < _SETTLED_S:
            continue
        if count % _EACH[path] == 0:
            _check_forecast(found, audit, phase_s, path, noise)
        if not (audit.is_measured and audit.true.exchanges):
            continue
        best = min(audit.true.exchanges, key=lambda one: one.delay_s)
        level_s = (audit.true.level_ps - simulation.level_ps) / PS_PER_S
        samples = [*samples, (audit.true.raw_ps / PS_PER_S, best.offset_s + level_s, best.distance_s)][-64:]
        true_ppm = _slow_ppm(phase_s, audit.true.now_s)
        if drift.raw_frequency_ppm is not None:
            found.error("frequency", path, noise, "ntpaudit").add(drift.raw_frequency_ppm - true_ppm)
            found.share("skew", path, noise).count(abs(drift.raw_frequency_ppm - true_ppm) <= drift.skew_ppm)
        fitted, plain = chrony_regression(samples), least_squares(samples)
        if fitted is not None and plain is not None:
            found.error("frequency", path, noise, "chrony's regression").add(fitted[0] * 1e6 - true_ppm)
            found.error("frequency", path, noise, "least squares").add(plain * 1e6 - true_ppm)
    return found


def _slow_ppm(phase_s: NDArray[np.float64], now_s: float) -> float:
    """Return how slow the oscillator is now, in its own seconds.

    Over a minute, because a shorter time shows only noise of the phase.
    """
    step = int(now_s / STEP_S)
    gained_s = float(phase_s[step + 4] - phase_s[step])
    return -gained_s / (4 * STEP_S + gained_s) * 1e6


def _check_forecast(found: Results, audit: Audit, phase_s: NDArray[np.float64], path: str, noise: str) -> None:
    """Compare a forecast with what the clock would do from now on if nothing corrected it."""
    drift, limit_s = audit.record.drift, audit.record.profile.critical_s
    assert drift is not None
    breach = drift.breach
    kernel_ppm = float(audit.record.kernel["frequency_ppm"])
    step = math.ceil(audit.true.now_s / STEP_S)
    ahead_s = np.arange(min(int(FORECAST_LIMIT_S / STEP_S), len(phase_s) - step)) * STEP_S + (
        step * STEP_S - audit.true.now_s
    )
    now_phase_s = float(np.interp(audit.true.now_s, (np.arange(2) + step - 1) * STEP_S, phase_s[step - 1 : step + 1]))
    gained_s = np.append(0.0, phase_s[step : step + len(ahead_s)] - now_phase_s)
    ahead_s = np.append(0.0, ahead_s) + gained_s  # in seconds of RAW, as the forecast
    actual_s = _first_beyond_s(ahead_s, audit.true.offset_s - gained_s - kernel_ppm * 1e-6 * ahead_s, limit_s)
    found.share("guaranteed", noise).count(actual_s >= breach.guaranteed_s)
    found.share("no band", path).count(not breach.calibrated)
    if breach.calibrated:
        near_s = math.inf if breach.pessimistic_s is None else breach.pessimistic_s
        far_s = math.inf if breach.optimistic_s is None else breach.optimistic_s
        found.share("band", path, noise).count(near_s <= actual_s <= far_s)


def _first_beyond_s(times_s: NDArray[np.float64], offsets_s: NDArray[np.float64], limit_s: float) -> float:
    """Return when |offset| reaches the limit, on straight lines between these points; infinite if it does not."""
    sizes_s = np.abs(offsets_s)
    beyond = np.flatnonzero(sizes_s >= limit_s)
    if not len(beyond):
        return math.inf
    ends = slice(max(0, int(beyond[0]) - 1), int(beyond[0]) + 1)
    return float(np.interp(limit_s, sizes_s[ends], times_s[ends]))


def run(numbers: Sequence[int], seed: int, hours: float = HOURS) -> Results:
    """Run some worlds."""
    return total(measure_world(number, seed, hours) for number in numbers)
