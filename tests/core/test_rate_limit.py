"""When a server may be asked again, and which of a pool's addresses to ask."""

from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.ntp.rate_limit import (
    BackOff,
    Instant,
    ServerState,
    assign_slots,
    back_off,
    choose_pool_servers,
    is_stale,
    on_kod,
    on_reply,
    on_timeout,
)
from tests.core.worlds import DAY, HOUR, MS, NOON, YEAR, S

BOOT = "0f4b7a5e"
POOL_S = 1800.0


def at(uptime_s: float, *, boot: str | None = BOOT, realtime_ns: int | None = None) -> Instant:
    """Return a moment this long after booting; by default the host's clock is right."""
    uptime_ns = round(uptime_s * S)
    return Instant(boot, uptime_ns, NOON + uptime_ns if realtime_ns is None else realtime_ns)


def wait(memory: ServerState, now: Instant, interval_s: float = POOL_S) -> float:
    """Return how long a server must still be left alone; 0 if it may be asked."""
    hold = back_off(memory, now, interval_s)
    return 0.0 if hold is None else hold.wait_s


# --- time that a wrong clock does not change ----------------------------------------------------------------------


@given(st.integers(0, 90 * DAY), st.integers(0, 90 * DAY), st.integers(0, 100 * YEAR), st.integers(0, 100 * YEAR))
@settings(max_examples=150, deadline=None)
def test_within_a_boot_uptime_counts(then: int, passed: int, showed: int, shows: int) -> None:
    """Within one boot the uptime says what passed, whatever was done to the clock (P3)."""
    assert Instant(BOOT, then + passed, shows).since_s(Instant(BOOT, then, showed)) == passed / S


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (Instant("next", 60 * S, NOON + HOUR), 3600.0),
        (Instant("next", 60 * S, NOON), 60.0),
        (Instant("next", 60 * S, NOON - YEAR), 60.0),  # set back: at least this boot's uptime has passed
        (Instant("next", 60 * S, 0), 60.0),
        (Instant("next", 3 * 3600 * S, NOON + HOUR), 10_800.0),
        (Instant(None, 60 * S, NOON + HOUR), 3600.0),
    ],
)
def test_across_boots_the_clock_counts_if_it_can(now: Instant, seconds: float) -> None:
    """Across boots the host's clock says what passed, but never less than it has been up."""
    assert now.since_s(Instant(BOOT, 500 * S, NOON)) == seconds


def test_an_unknown_boot_is_never_the_same() -> None:
    """Where the boot is not known, the shorter of uptime and clock counts, and no time where both run backwards."""
    then = Instant(None, 500 * S, NOON)
    assert Instant(None, 700 * S, NOON + HOUR).since_s(then) == 200.0
    assert Instant(BOOT, 7_000 * S, NOON + HOUR).since_s(then) == 3600.0
    assert Instant(None, 700 * S, NOON + HOUR).since_s(then._replace(boot_id=BOOT)) == 200.0
    assert Instant(None, 400 * S, NOON + HOUR).since_s(then) == 3600.0
    assert Instant(None, 400 * S, NOON - HOUR).since_s(then) == 0.0


@given(st.integers(0, 90 * DAY), st.integers(-YEAR, YEAR), st.integers(0, 10 * DAY))
@settings(max_examples=100, deadline=None)
def test_time_never_runs_backwards(uptime: int, moved: int, before: int) -> None:
    """However a clock was moved across boots, no negative time has passed: no wait is longer than requested."""
    assert Instant("next", uptime, NOON + moved).since_s(Instant(BOOT, before, NOON)) >= uptime / S


# --- intervals ----------------------------------------------------------------------------------------------------


def test_who_was_never_asked_may_be_asked() -> None:
    """Without stored state there is no wait."""
    assert back_off(ServerState(), at(0), POOL_S) is None


@pytest.mark.parametrize(
    ("interval", "passed", "left"),
    [(POOL_S, 0, 1800), (POOL_S, 1799, 1), (POOL_S, 1800, 0), (POOL_S, 1801, 0), (15, 14, 1), (15, 15, 0), (0, 0, 0)],
)
def test_an_interval_is_kept(interval: float, passed: float, left: float) -> None:
    """The pool is asked once in 1800 s, an own server every 15 s, loopback whenever one likes (P2, RFC 4330 §10)."""
    memory = on_reply(ServerState(), at(1000), 20 * MS)
    hold = back_off(memory, at(1000 + passed), interval)
    assert hold == (BackOff("interval", left) if left else None)


@pytest.mark.parametrize(
    ("base", "misses", "interval"),
    [
        (15, 0, 15),
        (15, 1, 30),
        (15, 2, 60),
        (15, 6, 960),
        (15, 7, 1024),
        (15, 400, 1024),
        (1800, 1, 3600),
        (1800, 3, 8192),
        (10_000, 3, 10_000),
        (0, 9, 0),
    ],
)
def test_silence_doubles_the_interval(base: float, misses: int, interval: float) -> None:
    """Each unanswered request doubles the interval, to 8192 s or to the interval itself if that is longer (P9, K2)."""
    memory = ServerState()
    for _ in range(misses):
        memory = on_timeout(memory, at(1000))
    memory = memory._replace(queried_at=at(1000))
    assert wait(memory, at(1000), base) == interval
    assert wait(memory, at(1000 + interval), base) == 0
    if interval:
        hold = back_off(memory, at(1000 + interval - 1), base)
        assert hold == BackOff("unanswered" if misses else "interval", 1)


def test_an_answer_forgives_silence() -> None:
    """After an answer the interval is the plain one again, and the best delay is kept."""
    memory = on_timeout(on_timeout(ServerState(), at(0)), at(100))
    assert memory.consecutive_timeouts == 2
    memory = on_reply(memory, at(200), 30 * MS)
    assert (memory.consecutive_timeouts, memory.queried_at, memory.delay_ns) == (0, at(200), 30 * MS)
    assert wait(memory, at(200), 15) == 15
    assert on_reply(memory, at(300), 40 * MS).delay_ns == 30 * MS
    assert on_reply(memory, at(300), 20 * MS).delay_ns == 20 * MS


# --- kisses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "intervals"), [(15, [30, 60, 120]), (1800, [3600, 7200, 8192]), (0, [30, 60, 120])])
def test_every_rate_halves_our_rate_again(base: float, intervals: list[float]) -> None:
    """Each RATE doubles the interval at once, on loopback from the floor of 15 s; no answer between undoes it (K2)."""
    memory, now = ServerState(), 0.0
    for interval in intervals:
        memory = on_kod(memory, at(now), "RATE")
        assert back_off(memory, at(now), base) == BackOff("kod:RATE", interval)
        now += interval
        assert back_off(memory, at(now), base) is None
        memory = on_reply(memory, at(now), MS)
        assert back_off(memory, at(now), base) == BackOff("kod:RATE", interval)


def test_rate_never_stretches_beyond_its_ceiling() -> None:
    """However often RATE comes the interval is at most 8192 s, for us to learn that it is over (K2, RFC 8633 §5.4)."""
    memory = ServerState()
    for _ in range(500):
        memory = on_kod(memory, at(0), "RATE")
    assert wait(memory, at(0), 15) == 8192
    assert wait(memory, at(0), 20_000) == 20_000


@pytest.mark.parametrize(("passed", "rates"), [(86_399, 1), (86_400, 0)])
def test_rate_is_forgiven_after_a_day_without_one(passed: float, rates: int) -> None:
    """A good answer a day after the last RATE gives the plain interval back, not before (K2)."""
    memory = on_kod(ServerState(), at(0), "RATE")
    assert on_reply(memory, at(passed), MS).rate_kods == rates


@pytest.mark.parametrize(
    ("reason", "denies"), [("kod:DENY", True), ("kod:RSTR", True), ("kod:RATE", False), ("interval", False)]
)
def test_a_denial_differs_from_other_reasons(reason: str, denies: bool) -> None:
    """DENY and RSTR are one address's word; to slow down is an order that another address would not lift (K2, K3)."""
    assert BackOff(reason, 1).is_denial == denies


@pytest.mark.parametrize("code", ["DENY", "RSTR"])
@pytest.mark.parametrize("interval", [0.0, 15.0, POOL_S])
def test_a_denial_holds_for_a_day(code: str, interval: float) -> None:
    """DENY and RSTR end all requests to a server for 24 h, on loopback too (K3)."""
    memory = on_kod(ServerState(), at(0), code)
    assert back_off(memory, at(0), interval) == BackOff(f"kod:{code}", 86_400)
    assert back_off(memory, at(86_399), interval) == BackOff(f"kod:{code}", 1)
    assert back_off(memory, at(86_400), interval) is None


def test_a_denial_outlasts_everything_else() -> None:
    """A server that denied us is left alone for the whole day even if its interval is long over (K3)."""
    memory = on_kod(on_kod(ServerState(), at(0), "RATE"), at(100), "DENY")
    assert back_off(memory, at(50_000), POOL_S) == BackOff("kod:DENY", 36_500)


@pytest.mark.parametrize("code", ["XABC", "INIT", "STEP", "NTSN", "0x00010203", "rate", "deny"])
def test_other_kisses_are_like_silence(code: str) -> None:
    """Any other kiss is no order, but a reason to back off as from silence (K4, RFC 4330 §8)."""
    memory = on_kod(ServerState(rate_kods=1, kod="RATE", kod_at=at(0)), at(9000), code)
    assert memory == ServerState(queried_at=at(9000), consecutive_timeouts=1, rate_kods=1, kod="RATE", kod_at=at(0))


@pytest.mark.parametrize("code", ["RATE", "DENY", "RSTR"])
def test_a_kiss_is_an_answer(code: str) -> None:
    """A server that sends a kiss-o'-death is not silent: timeouts are reset, other state is kept."""
    known = ServerState(consecutive_timeouts=2, delay_ns=5, zone="nl.pool.ntp.org", slot=3, last_resolved=at(0))
    memory = on_kod(known, at(50), code)
    assert (memory.consecutive_timeouts, memory.queried_at, memory.kod, memory.kod_at) == (0, at(50), code, at(50))
    assert (memory.delay_ns, memory.zone, memory.slot, memory.last_resolved) == (5, "nl.pool.ntp.org", 3, at(0))


@pytest.mark.parametrize("moved", [-YEAR, -HOUR, 0, HOUR])
def test_a_denial_survives_a_reboot(moved: int) -> None:
    """After a reboot, minutes later, a denial still holds even where the clock was set back or an hour forward (K3)."""
    memory = on_kod(ServerState(), at(5000), "DENY")
    rebooted = Instant("next", 60 * S, NOON + 5060 * S + moved)
    left = 86_400 - max(60, 60 + moved / S)
    assert back_off(memory, rebooted, 15) == BackOff("kod:DENY", left)
    assert back_off(memory, rebooted._replace(boottime_ns=DAY), 15) is None


def test_an_interval_survives_a_reboot() -> None:
    """A clock that was set back across a boot costs at most the interval again, never for ever (P2)."""
    memory = on_reply(ServerState(), at(5000), MS)
    early = Instant("next", 100 * S, 0)
    assert back_off(memory, early, POOL_S) == BackOff("interval", 1700)
    assert back_off(memory, early._replace(boottime_ns=1800 * S), POOL_S) is None


EVENTS = st.lists(
    st.tuples(st.sampled_from(["answer", "miss", "RATE", "DENY", "RSTR", "XABC"]), st.floats(0, 90_000)), max_size=12
)


@given(EVENTS, st.sampled_from([0.0, 15.0, POOL_S, 86_400.0]), st.floats(0, 200_000))
@settings(max_examples=300, deadline=None)
def test_whatever_happened_a_server_is_left_alone_long_enough(
    events: list[tuple[str, float]], interval: float, later: float
) -> None:
    """An obedient client queries no server within the interval, nor within a day of a denial, and waits no longer."""
    memory, now, denied, asked = ServerState(), 0.0, None, None
    for event, after in events:
        now += after
        if back_off(memory, at(now), interval) is not None:
            continue
        asked, denied = now, None
        match event:
            case "answer":
                memory = on_reply(memory, at(now), MS)
            case "miss":
                memory = on_timeout(memory, at(now))
            case _:
                memory = on_kod(memory, at(now), event)
        if event in ("DENY", "RSTR"):
            denied = now
    now += later
    left = wait(memory, at(now), interval)
    assert 0 <= left <= max(86_400.0, interval)
    if asked is not None:
        assert left >= interval - (now - asked) - 1e-6
    if denied is not None:
        assert left >= 86_400 - (now - denied) - 1e-6


# --- which of a pool's servers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["queried_at", "kod_at", "last_resolved"])
@pytest.mark.parametrize(("days", "stale"), [(0, False), (13.9, False), (14.1, True), (400, True)])
def test_what_is_old_in_every_way_is_of_no_use(field: str, days: float, stale: bool) -> None:
    """State is stale when its last entry is two weeks old, by uptime, whatever the clock shows."""
    old = ServerState(at(0), kod="DENY", kod_at=at(0), zone="pool.ntp.org", last_resolved=at(0))
    last: dict[str, Any] = {field: at(1000 * 86_400 - days * 86_400)}
    memory = old._replace(**last)
    assert is_stale(memory, at(1000 * 86_400)) == stale
    assert is_stale(memory, at(1000 * 86_400, realtime_ns=0)) == stale


@given(st.integers(0, 60 * 86_400), st.sampled_from([15.0, POOL_S]), st.integers(0, 40), st.integers(0, 40))
def test_a_server_that_must_not_be_queried_is_not_forgotten(
    passed: int, interval: float, rates: int, misses: int
) -> None:
    """Whatever happened, a memory that still holds us back is not stale."""
    memory = ServerState(at(0), misses, rates, "DENY", at(0))
    now = at(passed)
    assert not is_stale(memory, now) or back_off(memory, now, interval) is None


NOW = at(20 * 86_400)
NAMES = [["a1", "a2", "a3", "a4"], ["b1", "b2", "b3", "b4"], ["c1", "c2", "c3", "c4"], ["d1", "d2", "d3", "d4"]]


def known(delay_ms: float | None = 10, **changes: Any) -> ServerState:
    """Return the memory of a pool's server that answered an hour ago, but for what is named."""
    hour_ago = at(20 * 86_400 - 3600)
    delay = None if delay_ms is None else round(delay_ms * MS)
    return ServerState(queried_at=hour_ago, delay_ns=delay, zone="pool.ntp.org", last_resolved=hour_ago)._replace(
        **changes
    )


def test_a_new_pool_is_asked_one_of_each_name() -> None:
    """With nothing known, each of the four names is represented by its first address (P6)."""
    assert choose_pool_servers(NAMES, {}, NOW) == ("a1", "b1", "c1", "d1")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], ()),
        ([[]], ()),
        ([["a1"]], ("a1",)),
        ([["a1", "a2", "a3", "a4", "a5"]], ("a1", "a2", "a3", "a4")),
        ([["a1", "a2"], ["b1"]], ("a1", "b1", "a2")),
        ([["a1", "a2", "a3"], ["a1", "b2", "b3"]], ("a1", "a2", "b2", "a3")),
        ([[], ["b1"], ["c1", "c2"]], ("b1", "c1", "c2")),
    ],
)
def test_names_take_turns(offered: list[list[str]], chosen: tuple[str, ...]) -> None:
    """Where some names give little, the places are filled from each in turn, no address twice (P4, P6)."""
    assert choose_pool_servers(offered, {}, NOW) == chosen


def test_the_nearest_are_kept_and_one_is_tried() -> None:
    """Three places stay with the closest servers known, the fourth goes to one never asked (P8)."""
    states = {"k1": known(30), "k2": known(5), "k3": known(10), "k4": known(20), "k5": known(40)}
    assert choose_pool_servers(NAMES, states, NOW) == ("k2", "k3", "k4", "a1")


def test_all_four_are_kept_if_there_is_no_new_address() -> None:
    """Without anybody never asked, the four closest are asked again (P8)."""
    states = {"k1": known(30), "k2": known(5), "k3": known(10), "k4": known(20), "k5": known(40)}
    assert choose_pool_servers([["k1", "k2"], ["k5"]], states, NOW) == ("k2", "k3", "k4", "k1")
    assert choose_pool_servers([], states, NOW) == ("k2", "k3", "k4", "k1")


def test_equally_near_servers_are_kept_in_a_fixed_order() -> None:
    """Of servers with the same delay always the same are kept, however they were remembered."""
    names = ["k5", "k3", "k1", "k4", "k2"]
    assert choose_pool_servers([], {name: known(10) for name in names}, NOW) == ("k1", "k2", "k3", "k4")


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"consecutive_timeouts": 2, "queried_at": at(20 * 86_400 - 7200)}, True),
        ({"consecutive_timeouts": 3, "queried_at": at(20 * 86_400 - 8192)}, False),
        ({"consecutive_timeouts": 1}, True),  # asked an hour ago, and twice half an hour is over
        ({"consecutive_timeouts": 2}, False),
        ({"delay_ns": None}, False),
        ({"last_resolved": None}, False),
        ({"last_resolved": at(6 * 86_400)}, True),
        ({"last_resolved": at(6 * 86_400 - 1)}, False),
        ({"queried_at": at(20 * 86_400 - 1800)}, True),
        ({"queried_at": at(20 * 86_400 - 1799)}, False),
        ({"kod": "DENY", "kod_at": at(20 * 86_400 - 3600)}, False),
        ({"rate_kods": 1, "kod": "RATE", "kod_at": at(20 * 86_400 - 3600)}, True),
        ({"rate_kods": 2, "kod": "RATE", "kod_at": at(20 * 86_400 - 3600)}, False),
    ],
)
def test_who_is_kept(changes: dict[str, Any], kept: bool) -> None:
    """Kept is who answers, was named within 14 days, has missed less than three times and may be asked (P8)."""
    memory = known()._replace(**changes)
    assert choose_pool_servers([], {"k": memory}, NOW) == (("k",) if kept else ())


def test_who_was_asked_before_is_asked_after_the_new() -> None:
    """An address that was queried and is not kept is used again only if no new one is left."""
    gone = known(consecutive_timeouts=3, queried_at=at(10 * 86_400))
    states = {"a1": gone, "b1": gone}
    assert choose_pool_servers([["a1"], ["b1", "b2"], ["c1"]], states, NOW) == ("c1", "b2", "a1", "b1")


def test_fewer_places() -> None:
    """Where several pools share the four places each keeps to its own number (P4)."""
    states = {"k1": known(30), "k2": known(5)}
    assert choose_pool_servers(NAMES, states, NOW, count=2) == ("k2", "a1")
    assert choose_pool_servers([], states, NOW, count=1) == ("k2",)
    assert choose_pool_servers(NAMES, states, NOW, count=1) == ("k2",)  # a place of one's own is not for trying


@pytest.mark.parametrize("interval", [0.0, 15.0, POOL_S])
def test_who_must_be_left_alone_is_passed_over(interval: float) -> None:
    """A server that denied us is not queried, new address or old, whatever the interval (K3)."""
    denied = known(1, kod="DENY", kod_at=at(20 * 86_400 - 10))
    chosen = choose_pool_servers([["a1", "a2"], ["b1"]], {"a1": denied, "k": denied}, NOW, interval_s=interval)
    assert chosen == ("b1", "a2")


ADDRESSES = st.sampled_from([f"192.0.2.{number}" for number in range(14)])
MOMENTS = st.floats(0, 20 * 86_400).map(at)
MEMORIES = st.builds(
    ServerState,
    queried_at=st.none() | MOMENTS,
    consecutive_timeouts=st.integers(0, 4),
    rate_kods=st.integers(0, 3),
    kod=st.sampled_from([None, "RATE", "DENY", "RSTR"]),
    kod_at=st.none() | MOMENTS,
    delay_ns=st.none() | st.integers(0, S),
    zone=st.just("pool.ntp.org"),
    slot=st.none() | st.integers(0, 5),
    last_resolved=st.none() | MOMENTS,
)
OFFERS = st.lists(st.lists(ADDRESSES, max_size=5, unique=True), max_size=4)


@given(
    OFFERS, st.dictionaries(ADDRESSES, MEMORIES, max_size=8), st.integers(1, 4), st.sampled_from([0.0, 15.0, POOL_S])
)
@settings(max_examples=400, deadline=None)
def test_choices_keep_every_rule(
    offered: list[list[str]], states: dict[str, ServerState], count: int, interval: float
) -> None:
    """Whatever is offered and known: at most four, each once, none to be left alone, no place left empty (P4)."""
    chosen = choose_pool_servers(offered, states, NOW, interval_s=interval, count=count)
    everyone = {address for group in offered for address in group}
    assert len(chosen) <= count
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= everyone | set(states)
    for address in chosen:
        memory = states.get(address, ServerState())
        assert wait(memory, NOW, interval) == 0
        if memory.kod_at is not None and memory.kod in ("DENY", "RSTR"):
            assert NOW.since_s(memory.kod_at) >= 86_400
    askable = {address for address in everyone if wait(states.get(address, ServerState()), NOW, interval) == 0}
    assert len(chosen) >= min(count, len(askable))
    untried = {address for address in askable if states.get(address, ServerState()).queried_at is None}
    kept = [address for address in chosen if address not in everyone]
    if untried - {address for address, memory in states.items() if memory.delay_ns is not None}:
        assert len(kept) <= max(1, count - 1)  # one place is for somebody new, where there are two


@given(st.lists(st.integers(1, 10), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_every_name_is_represented(sizes: list[int]) -> None:
    """In a first round each name that gives an address of its own has a place (P6)."""
    offered = [[f"{name}.{number}" for number in range(size)] for name, size in enumerate(sizes)]
    chosen = choose_pool_servers(offered, {}, NOW)
    assert {address.partition(".")[0] for address in chosen} == {str(name) for name in range(len(sizes))}


def test_measured_delay_decides_in_the_end() -> None:
    """Round after round with one place to try, the four closest of sixteen servers are found, and asked (P8)."""
    delays = {address: (7 * number) % 16 + 1 for number, address in enumerate(chain.from_iterable(NAMES))}
    states: dict[str, ServerState] = {}
    best = sorted(delays, key=lambda address: delays[address])[:4]
    for round_ in range(16):
        now = at(1800.0 * (round_ + 1))
        chosen = choose_pool_servers(NAMES, states, now)
        assert len(chosen) == 4
        for address in chosen:
            memory = states.get(address, ServerState())
            states[address] = on_reply(memory, now, delays[address] * MS)._replace(last_resolved=now)
    assert set(choose_pool_servers(NAMES, states, at(1800.0 * 18))) == set(best)


# --- slots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "slots", "expected"),
    [
        ([], {}, {}),
        (["a", "b", "c", "d"], {}, {"a": 0, "b": 1, "c": 2, "d": 3}),
        (["a", "b"], {"b": 0}, {"a": 1, "b": 0}),
        (["a", "b", "c"], {"a": 3, "c": 1}, {"a": 3, "b": 0, "c": 1}),
        (["a", "b"], {"a": 2, "b": 2}, {"a": 2, "b": 0}),
        (["a", "b"], {"a": 4, "b": 3}, {"a": 0, "b": 3}),
        (["a"], {"a": None, "z": 0}, {"a": 0}),
    ],
)
def test_slots_of_known_rounds(addresses: list[str], slots: dict[str, int | None], expected: dict[str, int]) -> None:
    """Who had a place keeps it; the others get the lowest that are free; of two with the same the first keeps it."""
    assert assign_slots(addresses, {address: ServerState(slot=slot) for address, slot in slots.items()}) == expected


@given(st.lists(ADDRESSES, max_size=4, unique=True), st.dictionaries(ADDRESSES, MEMORIES, max_size=8))
@settings(max_examples=200, deadline=None)
def test_slots_are_unique_and_stay(addresses: list[str], states: dict[str, ServerState]) -> None:
    """Each address has one place from 0 to 3 and no two the same; a second round changes nothing."""
    slots = assign_slots(addresses, states)
    assert list(slots) == addresses
    assert len(set(slots.values())) == len(addresses)
    assert set(slots.values()) <= {0, 1, 2, 3}
    had = [states[address].slot for address in addresses if address in states]
    for address in addresses:
        slot = states.get(address, ServerState()).slot
        if slot is not None and slot < 4 and had.count(slot) == 1:
            assert slots[address] == slot
    again = {address: states.get(address, ServerState())._replace(slot=slot) for address, slot in slots.items()}
    assert assign_slots(addresses[::-1], again) == slots
