"""The clocks of a simulated host: what they show follows from the truth and from what was done to them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.clock.readings import correction_ns, step_ns, suspended_ns
from ntpaudit.core.clock.steps import find_step, find_suspend
from ntpaudit.core.observation import PHASE_LIMIT_S, Claim, HiddenDaemons
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.host import READ_NS, SimulatedHost, build_host
from ntpaudit.demo.scenario import (
    BlockNtp,
    HostSpec,
    Reboot,
    ServerFault,
    SetClock,
    StartDaemon,
    StopDaemon,
    Suspend,
    What,
    build_scenario,
)

START_NS = 1_795_000_000 * NS_PER_S
PART = build_scenario(24, 6.0, 1, START_NS).hosts[0]
CHRONY = PART._replace(daemon="chronyd", oscillator_ppm=20.0, behind_s=0.0)
NTPD = CHRONY._replace(daemon="ntpd")
ALONE = PART._replace(daemon=None, oscillator_ppm=20.0, behind_s=0.25)

spans_s = st.floats(0.001, 3000.0)
events = st.one_of(
    st.builds(SetClock, st.floats(-4000, 4000)),
    st.builds(Suspend, st.floats(0.01, 10_000)),
    st.sampled_from([StopDaemon(), BlockNtp(), ServerFault(0.06), ServerFault(0.0, 12.0, 0.09)]),
)


def make(part: HostSpec, seed: int = 1) -> SimulatedHost:
    """Return a host at the beginning of its history."""
    return build_host(part, START_NS, random.Random(seed))


def live(host: SimulatedHost, *steps: float | What) -> None:
    """Let time pass and things happen."""
    for step in steps:
        if isinstance(step, float):
            host.run_until(host.utc_ns + round(step * NS_PER_S))
        else:
            host.apply_event(step)


def names(host: SimulatedHost) -> list[str]:
    """Name the time daemons that run."""
    assert not isinstance(host.daemons, HiddenDaemons)
    return [daemon.name for daemon in host.daemons]


@given(st.sampled_from([CHRONY, NTPD, ALONE]), st.lists(st.one_of(spans_s, events), max_size=12))
def test_a_step_and_a_suspend_are_seen_as_what_they_are(part: HostSpec, changes: list[float | What]) -> None:
    """Slews move REALTIME and MONOTONIC alike; only setting the clock is a step, only sleeping a suspend, to the ns."""
    host = make(part)
    before = host.read()
    live(host, *changes)
    after = host.read()
    set_ns = sum(round(one.size_s * NS_PER_S) for one in changes if isinstance(one, SetClock))
    slept_ns = sum(round(one.for_s * NS_PER_S) for one in changes if isinstance(one, Suspend))
    assert suspended_ns(before, after) == slept_ns
    assert step_ns(before, after) == set_ns + slept_ns
    assert (find_step(before, after) is not None) == (abs(set_ns) > 10_000 + 2 * READ_NS)
    assert (find_suspend(before, after) is not None) == (slept_ns > 1_000_000 + 2 * READ_NS)


MOST_SLEW = {"chronyd": 0.0834}
"""The fastest that a daemon slews: chronyd by its `maxslewrate`, others by the kernel's 500 ppm and their frequency."""


@given(st.sampled_from([CHRONY, NTPD, ALONE]), st.lists(st.one_of(spans_s, events), max_size=12))
def test_the_free_oscillator_is_within_what_bounds_assume(part: HostSpec, changes: list[float | What]) -> None:
    """RAW runs within 50 ppm of the true time that the host was awake, whatever else was done."""
    host = make(part)
    before, begin_ns = host.read(), host.utc_ns
    live(host, *changes)
    after = host.read()
    awake_ns = host.utc_ns - begin_ns - suspended_ns(before, after)
    assert abs(after.raw_ns - before.raw_ns - awake_ns) <= 50e-6 * awake_ns + len(changes) + 50
    assert after.monotonic_ns >= before.monotonic_ns
    assert (
        abs(correction_ns(before, after) - step_ns(before, after))
        <= MOST_SLEW.get(part.daemon or "", 600e-6) * awake_ns + 50
    )


def test_a_daemon_keeps_its_clock_right_and_none_lets_it_drift() -> None:
    """Under a daemon the clock stays within a millisecond; alone it drifts at its oscillator's rate."""
    steered, free = make(CHRONY), make(ALONE)
    live(steered, 7200.0)
    live(free, 7200.0)
    assert abs(steered.behind_ns) < 1_000_000
    assert steered.kernel.is_synchronised
    assert free.behind_ns / NS_PER_S == pytest.approx(0.25 + 7200 * 20e-6, abs=0.005)
    assert not free.kernel.is_synchronised
    assert names(free) == []


def test_ntpd_slews_a_step_away() -> None:
    """A clock set back by 120 ms is right again within a quarter of an hour, never faster than 500 ppm.

    The kernel slews it: its offset says what is left, and its frequency stays what the oscillator needs.
    """
    host = make(NTPD)
    live(host, 600.0, SetClock(-0.12))
    assert host.behind_ns / NS_PER_S == pytest.approx(0.12, abs=0.001)
    before, left_s = host.read(), []
    for _ in range(15):
        since = host.read()
        live(host, 60.0)
        assert abs(correction_ns(since, host.read())) <= (500e-6 + 30e-6) * 60e9
        assert host.kernel.frequency_ppm == pytest.approx(20, abs=1)
        left_s.append(host.kernel.offset_s)
    assert max(left_s) == pytest.approx(0.12, abs=0.05)
    assert abs(left_s[-1]) < 0.001
    assert abs(host.behind_ns) < 1_000_000
    assert abs(correction_ns(before, host.read())) <= 0.12e9 + 900e9 * 30e-6


def test_chronyd_slews_a_step_away() -> None:
    """It does so within seconds once it has seen it, by a frequency that no oscillator needs."""
    host = make(CHRONY)
    live(host, 600.0, SetClock(-0.12))
    before, seen_ppm = host.read(), []
    for _ in range(75):
        live(host, 1.0)
        seen_ppm.append(host.kernel.frequency_ppm)
    assert max(seen_ppm) == pytest.approx(83_333 + 20, abs=1)
    assert sum(abs(ppm - 20) > 5 for ppm in seen_ppm) <= 2
    assert abs(host.behind_ns) < 1_000_000
    assert abs(correction_ns(before, host.read())) <= 0.12e9 + 75e9 * 30e-6


def test_a_daemon_follows_a_server_that_went_wrong() -> None:
    """By a jump of 60 ms forward, or at a walk of 12 ppm as far as that goes."""
    jumped, walked = make(CHRONY), make(CHRONY)
    live(jumped, 600.0, ServerFault(0.06), 1800.0)
    assert jumped.behind_ns / NS_PER_S == pytest.approx(-0.06, abs=0.001)
    live(walked, 600.0, ServerFault(0.0, 12.0, 0.09), 3600.0)
    assert walked.behind_ns / NS_PER_S == pytest.approx(-0.0432, abs=0.003)
    live(walked, 7200.0)
    assert walked.behind_ns / NS_PER_S == pytest.approx(-0.09, abs=0.001)


def test_a_cut_off_daemon_and_a_stopped_one_change_nothing_more() -> None:
    """The kernel's error grows by 500 ppm until it gives the clock up; a daemon that starts sets it right at once."""
    host = make(CHRONY)
    live(host, 600.0, StopDaemon(), SetClock(-2.5), 1800.0)
    assert names(host) == []
    assert 0.5 < host.kernel.maxerror_s < 1.2
    live(host, StartDaemon(2.5))
    assert host.behind_ns == 0
    assert names(host) == ["chronyd"]
    live(host, BlockNtp(), 36_000.0)
    assert host.kernel.maxerror_s == PHASE_LIMIT_S


def test_a_boot_restarts_uptime() -> None:
    """All uptimes begin again, the boot has another id, and the time goes on by the hardware clock."""
    host = make(CHRONY)
    live(host, 600.0)
    boot, behind_ns = host.boot_id, host.behind_ns
    live(host, Reboot())
    assert host.boot_id != boot
    assert host.read().boottime_ns < 6 * NS_PER_S
    assert host.behind_ns == pytest.approx(behind_ns, abs=100)
    assert not host.kernel.is_synchronised
    live(host, 200.0)
    assert host.kernel.is_synchronised


def claim_of(host: SimulatedHost) -> Claim:
    """Return what the only time daemon of a host states."""
    (daemon,) = host.context.known_daemons
    assert isinstance(daemon.claim, Claim)
    return daemon.claim


@pytest.mark.parametrize("part", [CHRONY, NTPD])
def test_a_daemon_states_what_it_knows(part: HostSpec) -> None:
    """Its statement contains the true offset while its server is right, also while it slews; else it does not."""
    host = make(part)
    live(host, 3600.0, SetClock(-0.2), 70.0)
    for _ in range(60):
        live(host, 7.0)
        claim = claim_of(host)
        assert (claim.is_synchronised, claim.leap, claim.boottime_ns) == (True, 0, host.boottime_ns)
        assert claim.offset_s is not None
        assert claim.bound_s is not None
        assert claim.updated_s is not None
        assert 0 <= claim.updated_s <= 65
        assert abs(host.behind_ns / NS_PER_S - claim.offset_s) <= claim.bound_s < 0.0021
    live(host, ServerFault(0.06), 1800.0)
    claim = claim_of(host)
    assert abs(claim.offset_s or 0.0) < 0.001
    assert host.behind_ns / NS_PER_S < -0.05


def test_a_daemon_without_servers_states_no_offset_after_a_boot() -> None:
    """What it knew before the boot is gone."""
    host = make(CHRONY)
    live(host, 600.0, BlockNtp(), 3600.0)
    assert claim_of(host).updated_s == pytest.approx(3600, abs=70)
    live(host, Reboot(), 60.0)
    assert claim_of(host)[1:5] == (False, None, None, None)
    assert make(ALONE).context.known_daemons == ()
