"""The parts of the simulation, each against something known."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.truth import peers
from tests.truth.clocks import PS_PER_S, Clocks
from tests.truth.oscillator import STEP_S, Oscillator, phase_ps
from tests.truth.paths import LAN, POOL, PathState
from tests.truth.servers import Exchange, ServerSpec, ServerState, poll
from tests.truth.statistics import Delays, Errors, Rate, Share

pytestmark = pytest.mark.untraced

BEGIN_NS = 1_798_156_800 * 10**9


def allan_deviation(phase_s: np.ndarray, steps: int) -> float:
    """The overlapping Allan deviation at that many steps (IEEE 1139)."""
    second = phase_s[2 * steps :] - 2 * phase_s[steps:-steps] + phase_s[: -2 * steps]
    return float(np.sqrt(np.mean(second**2) / 2)) / (steps * STEP_S)


@pytest.mark.parametrize(
    ("oscillator", "expected"),
    [
        (Oscillator(white_fm=1e-8), lambda tau: 1e-8 / math.sqrt(tau)),
        (Oscillator(flicker_fm=1e-8), lambda tau: 1e-8),
        (Oscillator(walk_fm=1e-10), lambda tau: 1e-10 * math.sqrt(tau / 3)),
        (Oscillator(white_pm_s=1e-6), lambda tau: math.sqrt(3) * 1e-6 / tau),
    ],
)
def test_noise_has_the_allan_deviation_it_is_named_for(oscillator: Oscillator, expected) -> None:  # type: ignore[no-untyped-def]
    """By its definition, over times from a minute to 17 minutes."""
    phase_s = phase_ps(oscillator, 2_000_000, np.random.default_rng(1)) / PS_PER_S
    for steps in (4, 16, 64):
        assert allan_deviation(phase_s, steps) == pytest.approx(expected(steps * STEP_S), rel=0.15)


def test_the_offset_and_the_ageing_of_an_oscillator() -> None:
    """Phase is the sum of frequency, and ageing its square."""
    phase = phase_ps(Oscillator(20.0, ageing_ppm_per_day=1.0), 2 * 86_400, np.random.default_rng(1))
    days = 86_400 // STEP_S
    assert phase[days] == pytest.approx(86_400 * (20e-6 + 0.5e-6) * PS_PER_S, rel=1e-3)
    assert phase[2 * days] - phase[days] == pytest.approx(86_400 * (20e-6 + 1.5e-6) * PS_PER_S, rel=1e-3)


@given(
    st.lists(st.integers(1, 10**13), min_size=1, max_size=8),
    st.floats(-400, 400),
    st.integers(-(10**9), 10**9),
    st.integers(0, 50),
)
def test_nothing_depends_on_the_portions_in_which_time_passes(
    portions: list[int], frequency_ppm: float, behind_ns: int, seed: int
) -> None:
    """But for a picosecond of rounding in each."""
    phase = phase_ps(Oscillator(30.0, white_fm=1e-8, walk_fm=1e-9), 100, np.random.default_rng(seed))

    def clocks() -> Clocks:
        made = Clocks(phase, BEGIN_NS, behind_ns=behind_ns)
        made.frequency_ppm = frequency_ppm
        made.slew(0.001, 20.0)
        return made

    one, other = clocks(), clocks()
    for portion in portions:
        one.advance(one.now_ps + portion)
    other.advance(one.now_ps)
    assert one.raw_ps == other.raw_ps
    assert abs(one.realtime_ps - other.realtime_ps) <= 3 * len(portions)  # one rounding per portion, in picoseconds
    assert one.offset_ps == one.utc_ps - one.realtime_ps


def test_steps_slews_pauses_and_suspends_move_the_clocks_they_should() -> None:
    """To the picosecond."""
    clocks = Clocks(np.zeros(100_000, np.int64), BEGIN_NS, behind_ns=5)
    before = clocks.read()
    clocks.set_clock(1_000)
    assert clocks.offset_ps == -995_000
    clocks.slew(0.5, 1000.0)
    clocks.advance(2000 * PS_PER_S)
    assert clocks.offset_ps == -995_000 - PS_PER_S // 2
    clocks.pause(60.0)
    assert clocks.raw_ps == (86_400 + 2000) * PS_PER_S
    assert clocks.offset_ps == -995_000 - PS_PER_S // 2 + 60 * PS_PER_S
    clocks.suspend(100.0)
    after = clocks.read()
    assert after.raw_ns - before.raw_ns == 2000 * 10**9
    assert after.boottime_ns - before.boottime_ns == 2100 * 10**9 + 5 * 10**8
    assert after.monotonic_ns - before.monotonic_ns == 2000 * 10**9 + 5 * 10**8
    assert after.realtime_ns - before.realtime_ns == 2100 * 10**9 + 5 * 10**8 + 1_000
    clocks.leap_s += 1
    clocks.make_leap_second()
    assert clocks.offset_ps == -995_000 - PS_PER_S // 2 + 60 * PS_PER_S


def test_an_exchange_bounds_the_true_offset_by_its_delays() -> None:
    """B2, B3: also where a server is wrong by all of its root distance."""
    rand = random.Random(3)
    clocks = Clocks(np.zeros(100_000, np.int64), BEGIN_NS, behind_ns=7_000_000)
    servers = [ServerState(ServerSpec(path, "at-limit"), number, rand) for number, path in enumerate((LAN, POOL), 1)]
    for _ in range(200):
        clocks.advance(clocks.now_ps + 60 * PS_PER_S)
        _, exchanges = poll(clocks, servers)
        for exchange in exchanges:
            low, high = exchange.interval_s
            assert low <= 0.007 <= high


def test_delays_have_a_floor_and_a_tail_and_are_lost_as_often_as_said() -> None:
    """As paths of the pool have them."""
    path = PathState(POOL, random.Random(1))
    delays = [path.delays(60.0 * minute) for minute in range(50_000)]
    lost = sum(one is None for one in delays)
    assert lost / len(delays) == pytest.approx(POOL.loss, rel=0.15)
    there = sorted(one[0] for one in delays if one)
    assert there[0] > POOL.least_s[0] * (1 - POOL.asymmetry / 2)
    assert there[-1] > 5 * there[len(there) // 2]


def exchange(low: float, high: float, number: int = 1) -> Exchange:
    """An exchange whose interval is that, in seconds."""
    return Exchange(number, (low + high) / 2, (high - low) / (1 + 30e-6) - 4 * 2.0**-23, 0.0, 0.0, is_false=False)


def test_the_least_interval_is_that_of_r1() -> None:
    """Four asked; the answers are [-5, 15], [-12, 6] and a falseticker's [4, 5]; the fourth was lost (R1)."""
    found = peers.least_interval([exchange(-5, 15), exchange(-12, 6), exchange(4, 5)], 4)
    assert found is not None
    assert found == pytest.approx((-5, 6), abs=1e-3)
    assert peers.least_interval([exchange(-5, 15)], 4) is None


def test_peers_choose_as_their_documents_say() -> None:
    """S3: the deepest overlap follows a tiny interval, and RFC 5905 does not."""
    replies = [exchange(-30, 30), exchange(-29, 31), exchange(-31, 29), exchange(28.9, 28.91)]
    deepest = peers.deepest_overlap(replies)
    assert deepest is not None
    assert (deepest.low_s, deepest.high_s) == pytest.approx((28.9, 28.91), abs=1e-2)
    selected = peers.rfc5905(replies)
    assert selected is not None
    assert selected.low_s <= 0 <= selected.high_s
    assert peers.deepest_overlap([exchange(0, 1), exchange(5, 6)]) is None
    assert peers.median_of_all(replies) == pytest.approx(0.5, abs=1e-3)


def test_regression_finds_a_slope() -> None:
    """Through noise of 10 us over an hour."""
    rand = random.Random(1)
    samples = [(60.0 * i, 20e-6 * 60 * i + rand.gauss(0, 1e-5), 0.001) for i in range(64)]
    fitted = peers.chrony_regression(samples)
    assert fitted is not None
    assert fitted[0] == pytest.approx(20e-6, rel=0.01)
    assert peers.least_squares(samples) == pytest.approx(20e-6, rel=0.01)


def test_limits_are_those_of_the_tables() -> None:
    """Of published tables."""
    assert Rate(0, 1.0).limits == pytest.approx((0.0, 3.689), abs=1e-3)  # Garwood 1936
    assert Rate(1, 1.0).limits == pytest.approx((0.02532, 5.572), abs=1e-3)
    assert Rate(10, 2.0).limits == pytest.approx((4.795 / 2, 18.39 / 2), abs=1e-2)
    assert Share(0, 100).limits == pytest.approx((0.0, 0.0362), abs=1e-4)  # Clopper and Pearson
    assert Share(95, 100).limits == pytest.approx((0.8882, 0.9785), abs=1e-3)  # Wilson
    assert math.isnan(Share().value)


def test_errors_and_delays_can_be_added() -> None:
    """As if they were counted together."""
    one, other = Errors(), Errors()
    for error in (3.0, -4.0):
        one.add(error)
    other.add(5.0)
    assert (one + other).rms == pytest.approx(math.sqrt(50 / 3))
    assert (one + other).worst == 5.0
    delays = Delays([1.0, 2.0, 3.0]) + Delays([4.0], 1)
    assert delays.quantile(0.5) == 3.0
    assert math.isinf(delays.quantile(0.95))
