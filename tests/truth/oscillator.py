"""The frequency of an oscillator over time, by its kinds of noise."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STEP_S = 16
"""The frequency is constant for this long."""

PS_PER_S = 10**12

_DAY_S = 86_400.0


class Oscillator(NamedTuple):
    """How far the frequency of an oscillator is off; positive is fast.

    - `offset_ppm`, `ageing_ppm_per_day`: its mean, and how that changes.
    - `white_pm_s`: independent errors of the phase, standard deviation.
    - `white_fm`: independent errors of the frequency, Allan deviation at 1 s.
    - `flicker_fm`: the floor of the Allan deviation.
    - `walk_fm`: steps of the frequency, standard deviation after 1 s.
    - `daily_ppm`, `cycle_ppm`: amplitudes of a daily temperature, and of an air conditioning that switches on each
      `cycle_s`.
    """

    offset_ppm: float = 0.0
    ageing_ppm_per_day: float = 0.0
    white_pm_s: float = 0.0
    white_fm: float = 0.0
    flicker_fm: float = 0.0
    walk_fm: float = 0.0
    daily_ppm: float = 0.0
    cycle_ppm: float = 0.0
    cycle_s: float = 1_500.0


def phase_ps(oscillator: Oscillator, duration_s: float, rand: np.random.Generator) -> NDArray[np.int64]:
    """Return how far a clock of this oscillator is ahead of true time, in picoseconds, at each `STEP_S`."""
    count = int(duration_s / STEP_S) + 2
    time_s = np.arange(count) * float(STEP_S)
    rate = np.full(count, oscillator.offset_ppm * 1e-6)
    rate += oscillator.ageing_ppm_per_day * 1e-6 * time_s / _DAY_S
    if oscillator.white_fm:
        rate += rand.normal(0.0, oscillator.white_fm / np.sqrt(STEP_S), count)
    if oscillator.flicker_fm:
        rate += _flicker(oscillator.flicker_fm, count, rand)
    if oscillator.walk_fm:
        rate += np.cumsum(rand.normal(0.0, oscillator.walk_fm * np.sqrt(STEP_S), count))
    if oscillator.daily_ppm:
        rate += oscillator.daily_ppm * 1e-6 * np.sin(2 * np.pi * (time_s / _DAY_S + rand.random()))
    if oscillator.cycle_ppm:
        turn = (time_s / oscillator.cycle_s + rand.random()) % 1.0
        rate += oscillator.cycle_ppm * 1e-6 * (4 * np.abs(turn - 0.5) - 1)
    phase_s = np.concatenate(([0.0], np.cumsum(rate[:-1]) * STEP_S))
    if oscillator.white_pm_s:
        phase_s += rand.normal(0.0, oscillator.white_pm_s, count)
    return np.asarray(np.rint(phase_s * PS_PER_S), np.int64)


def _flicker(floor: float, count: int, rand: np.random.Generator) -> NDArray[np.float64]:
    """Return noise whose spectral density is h / f, where the Allan variance is 2 ln 2 h (IEEE 1139)."""
    frequency = np.fft.rfftfreq(count, STEP_S)
    frequency[0] = np.inf  # the mean is the oscillator's offset
    level = floor**2 / (2 * np.log(2))
    spectrum = np.fft.rfft(rand.normal(0.0, 1.0, count))
    noise: NDArray[np.float64] = np.fft.irfft(spectrum * np.sqrt(level / frequency / (2 * STEP_S)), count)
    return noise
