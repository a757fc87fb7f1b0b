"""Four timestamps to an interval that holds the true offset."""

from fractions import Fraction
from math import ceil, floor
from random import Random

import ntplib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.clock.interval import MAX_DISTANCE_NS, Interval, carry
from ntpaudit.core.ntp.measurement import ExchangeTimestamps, Measurement, carry_measurement, measure, root_distance_ns
from ntpaudit.core.ntp.packet import Reply, UnusableReply, read_reply
from tests.core.hosts import LivingHost
from tests.core.worlds import (
    DAY,
    ERA_1,
    HOUR,
    MS,
    NOON,
    US,
    YEAR,
    S,
    packet,
    reading,
    reply,
    stamps,
    wire,
)

WORLDS = 3000
OFFSETS = st.integers(-70 * YEAR, 70 * YEAR)


def measured(said: Reply, stamped: ExchangeTimestamps) -> Measurement:
    """Measure an exchange that is in order."""
    result = measure(said, stamped)
    assert isinstance(result, Measurement), result
    return result


def exact_error_ns(said: Reply, elapsed_ns: int, width_ns: int, slewed_ns: int = 0) -> Fraction:
    """Return the bound's error term by B2, B3 and B5, exactly."""
    server = Fraction(said.root_delay, 2 * 65_536) + Fraction(said.root_dispersion, 65_536)
    rounding = Fraction(3, 2 * 65_536)
    growth = Fraction(50, 10**6) * elapsed_ns
    return (server + Fraction(2) ** said.precision + rounding) * 10**9 + width_ns + growth + abs(slewed_ns)


# --- intervals ----------------------------------------------------------------------------------------------------


def test_an_interval_covers_its_ends() -> None:
    """Both ends belong to an interval, and their neighbours do not."""
    interval = Interval(-3, 5)
    assert [interval.covers(offset) for offset in (-4, -3, 0, 5, 6)] == [False, True, True, True, False]


@pytest.mark.parametrize(("ends", "half"), [((0, 0), 0), ((0, 1), 1), ((0, 2), 1), ((-3, 2), 3), ((-10, 10), 10)])
def test_half_width_is_rounded_up(ends: tuple[int, int], half: int) -> None:
    """The stated error of the midpoint is never too small."""
    assert Interval(*ends).half_width_ns == half


def test_clamp_keeps_what_is_inside() -> None:
    """An offset outside becomes the nearer end, one inside stays."""
    assert [Interval(-3, 5).clamp(offset) for offset in (-9, -3, 1, 5, 9)] == [-3, -3, 1, 5, 5]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [((0, 9), (5, 20), (5, 9)), ((0, 9), (2, 3), (2, 3)), ((0, 9), (9, 20), (9, 9)), ((0, 9), (10, 20), None)],
)
def test_intersection(one: tuple[int, int], other: tuple[int, int], both: tuple[int, int] | None) -> None:
    """Two intervals have in common what both cover, a single point too, whichever comes first."""
    expected = None if both is None else Interval(*both)
    assert Interval(*one).intersect(Interval(*other)) == expected
    assert Interval(*other).intersect(Interval(*one)) == expected


# --- one exchange, by hand ----------------------------------------------------------------------------------------


def test_a_host_that_is_behind_has_a_positive_offset() -> None:
    """A host 1 s slow, asking over 10 ms each way, is measured as 1 s behind, give or take 10 ms (B1)."""
    said = reply(received=wire(NOON + S + 10 * MS), transmitted=wire(NOON + S + 10 * MS))
    result = measured(said, stamps(NOON, NOON + 20 * MS))
    assert result.offset_ns == pytest.approx(S, abs=2)
    assert result.delay_ns == pytest.approx(20 * MS, abs=2)
    assert result.interval.earliest_ns == pytest.approx(S - 10 * MS, abs=50 * US)
    assert result.interval.latest_ns == pytest.approx(S + 10 * MS, abs=50 * US)
    assert (result.received_ns, result.transmitted_ns) == (NOON + S + 10 * MS, NOON + S + 10 * MS)
    assert result.reply is said


def test_a_host_that_is_ahead_has_a_negative_offset() -> None:
    """A host 1 h fast is measured as -1 h, and an asymmetric delay stays inside the interval (B1)."""
    # True time: sent NOON, received 90 ms later, answered after 5 ms, back after 10 ms; the host shows 1 h more.
    said = reply(received=wire(NOON + 90 * MS), transmitted=wire(NOON + 95 * MS))
    result = measured(said, stamps(NOON + HOUR, NOON + HOUR + 105 * MS))
    assert result.offset_ns == pytest.approx(-HOUR + 40 * MS, abs=2)
    assert result.delay_ns == pytest.approx(100 * MS, abs=2)
    assert result.interval.earliest_ns == pytest.approx(-HOUR - 10 * MS, abs=50 * US)
    assert result.interval.latest_ns == pytest.approx(-HOUR + 90 * MS, abs=50 * US)


@given(
    offset=OFFSETS,
    forward=st.integers(0, S),
    held=st.integers(0, 4 * S - 2),
    back=st.integers(0, S),
    precision=st.integers(-30, -6),
    root_delay=st.integers(0, 2**16),
    root_dispersion=st.integers(0, 2**16),
    widths=st.tuples(st.integers(0, MS), st.integers(0, MS)),
    slewed=st.integers(-US, US),
)
@settings(max_examples=400, deadline=None)
def test_interval_agrees_with_the_formula(
    offset: int,
    forward: int,
    held: int,
    back: int,
    precision: int,
    root_delay: int,
    root_dispersion: int,
    widths: tuple[int, int],
    slewed: int,
) -> None:
    """The ends are T3 - T4 - e and T2 - T1 + e with e of B3, never tighter, wider by nanoseconds only (B1 to B5)."""
    said = reply(
        received=wire(NOON + forward),
        transmitted=wire(NOON + forward + held),
        precision=precision,
        root_delay=root_delay,
        root_dispersion=root_dispersion,
    )
    elapsed = forward + held + back
    sent, arrived = NOON - offset, NOON - offset + elapsed
    result = measured(said, stamps(sent, arrived, slewed_ns=slewed, widths_ns=widths))
    error = exact_error_ns(said, elapsed - slewed, max(1, *widths), slewed)
    assert -1 <= result.interval.latest_ns - (offset + forward + error) <= 6
    assert -1 <= (offset - back - error) - result.interval.earliest_ns <= 6
    assert abs(result.offset_ns - (offset + Fraction(forward - back, 2))) <= 2
    assert abs(result.delay_ns - max(forward + back, max(1, *widths))) <= 2


@pytest.mark.parametrize(
    ("root_delay", "root_dispersion", "distance"),
    [(0, 0, 0), (65_536, 0, S // 2), (0, 65_536, S), (1, 0, 7_630), (0, 1, 15_259), (0x0200, 0x0100, 7_812_500)],
)
def test_root_distance_is_half_the_delay_and_the_dispersion(
    root_delay: int, root_dispersion: int, distance: int
) -> None:
    """A server's own error is root delay / 2 + root dispersion, rounded up (B2, CVE-2016-7433)."""
    assert root_distance_ns(reply(root_delay=root_delay, root_dispersion=root_dispersion)) == distance


@pytest.mark.parametrize(("precision", "ns"), [(-30, 1), (-29, 2), (-20, 954), (-7, 7_812_500), (0, S), (3, 8 * S)])
def test_precision_is_a_power_of_two_rounded_up(precision: int, ns: int) -> None:
    """A server's precision widens both ends by 2**precision seconds, rounded up (B3)."""
    fine = measured(reply(precision=-128), stamps(NOON, NOON + MS)).interval  # 2**-128 s, rounded up: 1 ns
    coarse = measured(reply(precision=precision), stamps(NOON, NOON + MS)).interval
    assert fine.earliest_ns - coarse.earliest_ns == ns - 1
    assert coarse.latest_ns - fine.latest_ns == ns - 1


@pytest.mark.parametrize("widths", [(5_000, 70), (70, 5_000), (5_000, 5_000)])
def test_the_worse_of_two_clock_readings_counts(widths: tuple[int, int]) -> None:
    """The host's own precision is the width of its worse reading, and at least 1 ns (B4)."""
    exact = measured(reply(), stamps(NOON, NOON + MS, widths_ns=(0, 0))).interval
    rough = measured(reply(), stamps(NOON, NOON + MS, widths_ns=widths)).interval
    assert exact == measured(reply(), stamps(NOON, NOON + MS, widths_ns=(1, 1))).interval
    assert rough.latest_ns - exact.latest_ns == exact.earliest_ns - rough.earliest_ns == 4_999


@pytest.mark.parametrize("slewed", [-400, 400])
def test_a_slew_during_the_exchange_widens_the_interval(slewed: int) -> None:
    """What the host's clock was moved while the reply was under way widens both ends by as much (B3)."""
    still = measured(reply(), stamps(NOON, NOON + MS)).interval
    moved = measured(reply(), stamps(NOON, NOON + MS, slewed_ns=slewed)).interval
    assert moved.latest_ns - still.latest_ns == pytest.approx(400, abs=1)
    assert still.earliest_ns - moved.earliest_ns == pytest.approx(400, abs=1)


# --- the oracle ---------------------------------------------------------------------------------------------------


@given(
    sent=st.integers(NOON - 300 * DAY, ERA_1 - HOUR),
    forward=st.integers(0, S),
    held=st.integers(0, S),
    back=st.integers(0, S),
    offset=st.integers(-10 * YEAR, 10 * YEAR),
)
@settings(max_examples=300, deadline=None)
def test_theta_agrees_with_ntplib(sent: int, forward: int, held: int, back: int, offset: int) -> None:
    """On honest packets offset and delay are ntplib's, to the 2 us that its floats cost."""
    arrived = sent + forward + held + back
    received = max(NOON - 300 * DAY, min(sent + offset, ERA_1 - HOUR)) + forward  # ntplib knows no other era
    octets = packet(origin=wire(sent), received=wire(received), transmitted=wire(received + held))
    theirs = ntplib.NTPStats()
    theirs.from_data(octets)
    theirs.dest_timestamp = arrived / 10**9 + 2_208_988_800
    ours = read_reply(octets, wire(sent))
    assert isinstance(ours, Reply)
    result = measured(ours, stamps(sent, arrived))
    assert abs(Fraction(result.offset_ns, 10**9) - Fraction(theirs.offset)) < Fraction(2, 10**6)
    assert abs(Fraction(result.delay_ns, 10**9) - Fraction(theirs.delay)) < Fraction(2, 10**6)


# --- eras ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(0, id="1970"),
        pytest.param(1, id="1970 and a nanosecond"),
        pytest.param(-S, id="1969"),
        pytest.param(2_208_988_800 * S, id="2040"),
        pytest.param(ERA_1, id="2036"),
        pytest.param(4_102_444_800 * S, id="2100"),
    ],
)
@pytest.mark.parametrize("utc", [NOON, ERA_1 - 5 * MS, ERA_1 + DAY], ids=["now", "as the era ends", "next era"])
def test_a_host_in_another_age_is_measured_exactly(host: int, utc: int) -> None:
    """A host that believes it is 1970 or 2040 is measured to the nanosecond, before and after 2036 (W3)."""
    said = reply(received=wire(utc + 5 * MS), transmitted=wire(utc + 6 * MS))
    result = measured(said, stamps(host, host + 11 * MS))
    assert result.offset_ns == pytest.approx(utc - host, abs=2)
    assert result.interval.covers(utc - host)
    assert result.interval.half_width_ns < 6 * MS


@pytest.mark.parametrize("shift", [*range(-12, 13), -10 * S, -S, -MS, MS, S, 10 * S])
def test_an_exchange_across_2036(shift: int) -> None:
    """An exchange with the new era beginning before, between or after any of its times is like any other (W2, W3)."""
    utc = ERA_1 + shift
    said = reply(received=wire(utc - 5), transmitted=wire(utc + 5))
    result = measured(said, stamps(utc - 10 - 3 * S, utc + 10 - 3 * S))
    assert result.offset_ns == pytest.approx(3 * S, abs=2)
    assert result.interval.covers(3 * S)
    assert abs(result.received_ns - (utc - 5)) <= 1
    assert abs(result.transmitted_ns - (utc + 5)) <= 2


def test_a_reply_that_spans_the_pivot() -> None:
    """Where the era of decoding ends between T2 and T3, the second is still just after the first (W3)."""
    last = (1_761_955_200 + 2**32) * S
    said = reply(received=wire(last - MS), transmitted=wire(last + MS))
    result = measured(said, stamps(last - 2 * MS, last + 2 * MS))
    assert result.offset_ns == pytest.approx(0, abs=2)
    assert result.interval.half_width_ns < 2 * MS


# --- V12, V13, V14 ------------------------------------------------------------------------------------------------


def held(units: int) -> Reply:
    """Make a reply whose T3 - T2 is a number of units of 2**-32 s."""
    return reply(received=wire(NOON), transmitted=wire(NOON) + units)


@pytest.mark.parametrize(
    ("units", "refused"), [(0, False), (1, False), (4 << 32, False), (-1, True), ((4 << 32) + 5, True), (5 << 32, True)]
)
def test_a_server_may_hold_a_request_for_4_s(units: int, refused: bool) -> None:
    """T3 - T2 from 0 to 4 s is taken and anything outside refused (V12)."""
    result = measure(held(units), stamps(NOON, NOON + 10 * S))
    assert result == UnusableReply("server-interval", ours=True) if refused else isinstance(result, Measurement)


@pytest.mark.parametrize("width", [1, 1_000])
@pytest.mark.parametrize(("elapsed", "allowed_ppm_ns"), [(MS, 500), (2 * S, MS)])
def test_a_delay_may_be_negative_by_the_clocks_own_errors(width: int, elapsed: int, allowed_ppm_ns: int) -> None:
    """A delay below zero by 2**precision + the host's precision + 500 ppm is taken, more is refused (V13)."""
    allowed = 953 + width + allowed_ppm_ns  # of 2**-20 s the whole nanoseconds
    stamped = stamps(NOON, NOON + elapsed, widths_ns=(width, width))
    taken = measure(held(ceil(Fraction((elapsed + allowed) * 2**32, 10**9))), stamped)
    assert isinstance(taken, Measurement)
    assert taken.delay_ns == width  # clamped to the host's precision
    assert taken.interval.earliest_ns < taken.interval.latest_ns
    refused = measure(held(ceil(Fraction((elapsed + allowed + 2) * 2**32, 10**9))), stamped)
    assert refused == UnusableReply("negative-delay", ours=True)


@pytest.mark.parametrize("step", [MS, -MS])
def test_a_step_of_a_millisecond_is_taken(step: int) -> None:
    """A host's clock that was stepped by 1 ms meanwhile widens the interval, by 1 ns more it spoils it (V14)."""
    calm = measured(held(0), stamps(NOON, NOON + 100 * MS))
    stepped = measured(held(0), stamps(NOON, NOON + 100 * MS, stepped_ns=step))
    assert stepped.interval.latest_ns - calm.interval.latest_ns == pytest.approx(MS, abs=100)
    assert calm.interval.earliest_ns - stepped.interval.earliest_ns == pytest.approx(MS, abs=100)
    more = step + (1 if step > 0 else -1)
    result = measure(held(0), stamps(NOON, NOON + 100 * MS, stepped_ns=more))
    assert result == UnusableReply("local-step", ours=True)


def test_a_step_is_reported_before_its_consequences() -> None:
    """A step back makes the delay negative and is reported as a step; an absurd server interval comes first."""
    back = stamps(NOON, NOON - 50 * MS, stepped_ns=-100 * MS)
    assert measure(held(0), back) == UnusableReply("local-step", ours=True)
    assert measure(held(5 << 32), back) == UnusableReply("local-step", ours=True)
    assert measure(held(5 << 32), stamps(NOON, NOON + MS)) == UnusableReply("server-interval", ours=True)
    assert measure(held(1 << 32), stamps(NOON, NOON + MS)) == UnusableReply("negative-delay", ours=True)


def test_distance_limit_is_the_rfcs() -> None:
    """RFC 5905's MAXDIST is one second (V17)."""
    assert MAX_DISTANCE_NS == S


# --- simulated worlds ---------------------------------------------------------------------------------------------


def some(random: Random, low: float, high: float) -> Fraction:
    """Draw a number between two, and often one of the two: what is wrong shows at the ends."""
    choice = random.random()
    if choice < 0.3:
        return Fraction(low)
    if choice < 0.6:
        return Fraction(high)
    return Fraction(random.uniform(low, high))


def spread(random: Random, most: int) -> int:
    """Draw a span of any order of magnitude up to `most`, often 0."""
    return floor(min(most, 10 ** random.uniform(0, 11))) if random.random() < 0.7 else 0


def exchange(random: Random, late_ns: int) -> tuple[Reply, ExchangeTimestamps, Fraction]:
    """Simulate an exchange; return what was seen of it, and the true offset when the clocks were read after it.

    The kernel's timestamps are made up to `late_ns` before the reading; 0 has the readings be the stamps.
    """
    precision = random.randint(-29, -10)
    tick = Fraction(2) ** precision * S
    root_delay, root_dispersion = Fraction(spread(random, S)), Fraction(spread(random, S))
    worst = root_delay / 2 + root_dispersion
    drift, slew = float(some(random, -50, 50)), float(some(random, -500, 500))
    host = LivingHost(
        utc_ns=NOON + random.randrange(-300 * DAY, 60 * YEAR),
        offset_ns=random.choice((-1, 1)) * random.randrange(70 * YEAR),
        drift_ppm=drift,
        slew_ppm=slew,
    )
    host.poll_s = None

    def pass_time(ns: int) -> None:
        host.run(ns / S)

    def serve() -> int:
        """The server's clock is wrong by up to what it says, and its stamp by up to its precision."""
        shown = host.utc + worst * some(random, -1, 1) + tick * some(random, -1, 1)
        return floor((shown + UNIX_TO_NTP_NS) * 2**32 / 10**9) % 2**64

    before = host.read(width_ns=(width := random.choice((20, 400, 20_000))), lean=float(some(random, -1, 1)))
    if late_ns:
        pass_time(spread(random, MS))
    sent = host.read().realtime_ns
    pass_time(spread(random, 3 * S))
    received = serve()
    pass_time(spread(random, 3 * S))
    transmitted = serve()
    pass_time(spread(random, 3 * S))
    arrived = host.read().realtime_ns
    if late_ns:
        pass_time(spread(random, late_ns))
    after = host.read(width_ns=width, lean=float(some(random, -1, 1)))
    said = reply(
        received=received,
        transmitted=transmitted,
        precision=precision,
        root_delay=floor(root_delay * 65_536 / 10**9),
        root_dispersion=floor(root_dispersion * 65_536 / 10**9),
    )
    return said, ExchangeTimestamps(sent, arrived, before, after, "kernel" if late_ns else "user"), host.offset


UNIX_TO_NTP_NS = 2_208_988_800 * S


def check_worlds(late_ns: int) -> None:
    """Hold the intervals of many worlds against the truth; most exchanges must be usable, and most bounds useful."""
    used = 0
    for seed in range(WORLDS):
        said, stamped, truth = exchange(Random(seed), late_ns)
        result = measure(said, stamped)
        if isinstance(result, UnusableReply):  # the server's error went the wrong way between T2 and T3
            assert result.reason in ("server-interval", "negative-delay"), seed
            continue
        used += 1
        outside = max(result.interval.earliest_ns - truth, truth - result.interval.latest_ns)
        assert outside <= 0, f"world {seed}: the truth is outside by {float(outside):.0f} ns"
        assert result.interval.covers(result.offset_ns), seed
    assert used > WORLDS // 3


def test_the_truth_is_in_the_interval_of_every_world() -> None:
    """The true offset when the exchange ends lies inside, whatever delays, drift, slew and honest errors (B1 to B5)."""
    check_worlds(0)


def test_the_truth_is_in_the_interval_when_the_reply_is_read_late() -> None:
    """So it does where the kernel stamped the reply up to a second before the clocks were read (B5, T6)."""
    check_worlds(S)


@pytest.mark.parametrize("drift_ppm", [50, -50, 95, 480])
def test_a_reply_that_waits_to_be_read(drift_ppm: int) -> None:
    """An oscillator 50 ppm slow loses 50 us while a stamped reply waits 1 s for us, and the interval holds that (B5).

    So it does of one that is known to be worse (R4). The host agrees with its server, and the reply takes no time; what
    it states refers to the moment of the reading.
    """
    host = LivingHost(drift_ppm=drift_ppm)
    before = host.read()
    said = reply(received=wire(NOON), transmitted=wire(NOON), precision=-30)
    host.run(1)
    after = host.read()
    interval = carry_measurement(
        measured(said, ExchangeTimestamps(NOON, NOON, before, after, "kernel")), after, abs(drift_ppm)
    )
    assert host.offset == pytest.approx(drift_ppm * US, rel=1e-3)
    assert interval.earliest_ns <= host.offset <= interval.latest_ns
    host.run(100)
    later = carry_measurement(
        measured(said, ExchangeTimestamps(NOON, NOON, before, after, "kernel")), host.read(), abs(drift_ppm)
    )
    assert later.earliest_ns <= host.offset <= later.latest_ns


def test_the_interval_is_not_wider_than_the_delay_makes_it() -> None:
    """With a perfect server and a steady host the half-width is half the delay and 24 us at most: bounds are useful."""
    said = reply(received=wire(NOON + 10 * MS), transmitted=wire(NOON + 10 * MS), precision=-30)
    assert 10 * MS < measured(said, stamps(NOON, NOON + 20 * MS)).interval.half_width_ns <= 10 * MS + 24 * US


# --- carrying -----------------------------------------------------------------------------------------------------


def test_carry_over_known_spans() -> None:
    """An hour later the bound has grown by 180 ms, and by the widths of both readings (B5)."""
    taken, now = reading(NOON, uptime_ns=DAY, width_ns=30), reading(NOON + HOUR, uptime_ns=DAY + HOUR, width_ns=12)
    assert carry(Interval(-5, 7), taken, now) == Interval(-5 - 180 * MS - 42, 7 + 180 * MS + 42)


def test_carry_over_no_time_changes_nothing() -> None:
    """Carried to the very reading that it was taken at, an interval stays as it is but for the reading's width."""
    assert carry(Interval(-5, 7), reading(), reading()) == Interval(-5, 7)
    rough = reading(width_ns=100)
    assert carry(Interval(-5, 7), rough, rough) == Interval(-205, 207)


@pytest.mark.parametrize("step", [-90 * YEAR, -HOUR, -1, 1, S, 70 * YEAR])
def test_carry_moves_exactly_by_a_step(step: int) -> None:
    """A clock set forward has that much less offset, and the interval moves without widening (B6)."""
    now = reading(NOON + step)
    assert carry(Interval(-5, 7), reading(NOON), now) == Interval(-5 - step, 7 - step)


def test_carry_moves_exactly_by_a_slew() -> None:
    """A clock slewed forward by 3 ms has 3 ms less offset (B6)."""
    now = reading(NOON + S + 3 * MS, uptime_ns=DAY + S, corrected_ns=3 * MS)
    assert carry(Interval(0, 0), reading(NOON), now) == Interval(-3 * MS - 50_000, -3 * MS + 50_000)


@given(st.integers(-30 * DAY, 30 * DAY), st.integers(-YEAR, YEAR), st.integers(0, MS))
@settings(max_examples=200, deadline=None)
def test_carry_back_and_forth_never_tightens(span: int, moved: int, width: int) -> None:
    """Carried to another moment and back, an interval covers at least what it covered (B5, B6)."""
    here = reading(NOON, uptime_ns=90 * DAY, width_ns=width)
    there = reading(NOON + span + moved, uptime_ns=90 * DAY + span, width_ns=width)
    again = carry(carry(Interval(-5, 7), here, there), there, here)
    assert again.earliest_ns <= -5
    assert again.latest_ns >= 7


def test_the_truth_stays_inside_while_it_is_carried() -> None:
    """Steps of any size, slews up to 10 %, an oscillator that wanders up to 50 ppm: the truth stays inside (B6)."""
    for seed in range(WORLDS):
        random = Random(seed)
        host = LivingHost(offset_ns=random.randrange(-70 * YEAR, 70 * YEAR))
        host.poll_s = None
        taken = host.read(width_ns=random.choice((20, 5_000)), lean=float(some(random, -1, 1)))
        width = random.choice((0, US, S))
        lean = random.choice((0, 0.5, 1))  # the truth may lie at either end
        at = floor(host.offset)
        interval = Interval(at - floor(width * lean), at + 1 + floor(width * (1 - lean)))
        direction = random.choice((-50, 50, None))
        for _ in range(random.randint(0, 4)):
            host.run(
                spread(random, 30 * DAY) / S,
                drift_ppm=float(some(random, -50, 50)) if direction is None else direction,
                slew_ppm=float(some(random, -100_000, 100_000)),
            )
            if random.random() < 0.5:
                host.step(random.choice((1, -1)) * random.choice((spread(random, S), random.randrange(70 * YEAR))))
        now = host.read(width_ns=random.choice((20, 5_000)), lean=float(some(random, -1, 1)))
        carried = carry(interval, taken, now)
        assert carried.earliest_ns <= host.offset <= carried.latest_ns, f"world {seed}"
