"""Exchanges over real UDP, with servers that behave, misbehave, or are not there."""

import os
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.measurement import Measurement
from ntpaudit.core.observation import SourceFailure
from ntpaudit.demo.server import Behaviour, Header, NtpServer
from ntpaudit.probes.clock import SystemClock
from ntpaudit.probes.ntp import ExchangeResult, exchange_all
from ntpaudit.probes.resolve import Endpoint
from tests.world.clocks import ShiftedClock
from tests.world.rogue import BOGUS_FLOOD, LATE_S, MISBEHAVIOURS, Datagram, RogueServer, extension, late, tail
from tests.world.servers import chronyd, free_port

MEASURED = "measured"

WITHIN_S = 60.0
"""What must not be waited for takes this long: no busy machine takes as long by chance."""

EXPECTED: dict[str, tuple[str, dict[str, int]]] = {
    # V1, W5
    "silent": ("timeout", {}),
    "empty": ("malformed", {"malformed": 1}),
    "short": ("malformed", {"malformed": 1}),
    "unaligned": ("malformed", {}),
    "too_long": (MEASURED, {}),  # a readable extension field, and within our buffer
    # V2 to V5
    "version_3": ("version", {}),
    "version_7": ("version", {}),
    "mode_3": ("mode", {}),
    "mode_5": ("mode", {}),
    "forged_port": (MEASURED, {}),  # V4: the kernel keeps it from a connected socket
    "wrong_origin": ("bogus", {"bogus": 1}),
    "zero_origin": ("zero-origin", {"zero-origin": 1}),
    "bogus_flood": (MEASURED, {"bogus": BOGUS_FLOOD}),
    "bogus_only": ("bogus", {"bogus": BOGUS_FLOOD}),
    # V6, V7
    "duplicate": (MEASURED, {"duplicate": 1}),
    "late": ("timeout", {}),
    # V9 to V13
    "zero_receive": ("zero-ts", {}),
    "zero_transmit": ("zero-ts", {}),
    "leap_unsync": ("unsync", {}),
    "stratum_16": ("unsync", {}),
    "stratum_17_plus": ("unsync", {}),
    "root_distance_17s": ("root-distance-invalid", {}),
    "transmit_before_receive": ("server-interval", {}),
    "slow_server": ("server-interval", {}),
    "negative_delay": ("negative-delay", {}),
    # V15 to V17, V20: kept
    "reftime_future": (MEASURED, {}),
    "sync_loop": (MEASURED, {}),
    "root_distance_2s": (MEASURED, {}),
    "leap_61": (MEASURED, {}),
    "leap_59": (MEASURED, {}),
    # K
    "kod_rate": ("kod:RATE", {}),
    "kod_rate_high_poll": ("kod:RATE", {}),
    "kod_deny": ("kod:DENY", {}),
    "kod_rstr": ("kod:RSTR", {}),
    "kod_unknown": ("kod:XABC", {}),
    "kod_nonprintable": ("kod:0x000102ff", {}),
    "kod_zero_times": ("kod:RATE", {}),
    "kod_bogus": (MEASURED, {"bogus": 1}),
    # E
    "crypto_nak": ("crypto-nak", {}),
    "mac_tail": (MEASURED, {}),
    "leftover": ("malformed", {}),
    "unknown_extension": (MEASURED, {}),
    "extension_truncated": ("malformed", {}),
    "extension_unaligned": ("malformed", {}),
    "extension_short": ("malformed", {}),
    "extension_empty": ("malformed", {}),
}
"""What each misbehaviour comes to: a measurement or a reason, and what was thrown away meanwhile."""


def endpoint(server: NtpServer) -> Endpoint:
    """Return where a server of ours is to be asked."""
    return at(server.address, server.port)


def at(address: str, port: int) -> Endpoint:
    """Return an endpoint by address and port."""
    return Endpoint(socket.AF_INET6 if ":" in address else socket.AF_INET, address, port)


def ask(*endpoints: Endpoint, timeout_s: float = 1.0) -> ExchangeResult:
    """Ask one server, which may have several addresses."""
    return exchange_all([endpoints], SystemClock(), timeout_s)[0]


def reason(answer: ExchangeResult) -> str:
    """Return why there is no measurement, or that there is one."""
    return answer.outcome.reason if isinstance(answer.outcome, SourceFailure) else MEASURED


def test_every_misbehaviour_has_its_reason() -> None:
    """Each named misbehaviour, sent for real and all at once, comes to its own reason code; none is believed."""
    assert EXPECTED.keys() == MISBEHAVIOURS.keys()
    with ExitStack() as stack:
        servers = {name: stack.enter_context(RogueServer(name)) for name in EXPECTED}
        answers = exchange_all([(endpoint(server),) for server in servers.values()], SystemClock(), LATE_S - 0.5)
    came_to = {name: (reason(answer), dict(answer.discarded)) for name, answer in zip(servers, answers, strict=True)}
    assert came_to == EXPECTED
    for name, answer in zip(servers, answers, strict=True):
        if isinstance(answer.outcome, Measurement):
            assert answer.outcome.interval.covers(0), f"{name} moved the clock"


def test_unanswered_is_unreachable_and_bad_answers_are_rejected() -> None:
    """Silence is `unreachable`; an answer that cannot be used is `rejected`."""
    for name, status in (("silent", "unreachable"), ("bogus_only", "rejected"), ("leap_unsync", "rejected")):
        with RogueServer(name) as server:
            outcome = ask(endpoint(server)).outcome
        assert isinstance(outcome, SourceFailure)
        assert outcome.status == status


def test_warnings_name_a_loop_and_a_reference_in_the_future() -> None:
    """V15 and V16 give a warning and reject nothing."""
    for name, warning in (("reftime_future", "reftime-future"), ("sync_loop", "sync-loop")):
        with RogueServer(name) as server:
            answer = exchange_all(
                [(endpoint(server),)], SystemClock(), 1.0, own_ids=frozenset({socket.inet_aton("127.0.0.1")})
            )[0]
        assert isinstance(answer.outcome, Measurement)
        assert answer.outcome.reply.warnings == (warning,)


def test_a_reply_longer_than_any_buffer_is_refused() -> None:
    """W5: a datagram that was cut on reception is refused, however good its beginning."""
    with RogueServer(tail(extension(0xF000, 8000, 8000))) as server:
        assert reason(ask(endpoint(server))) == "malformed"


class HeldUpClock:
    """A clock whose fifth reading takes 0.7 s: the machine is busy elsewhere when the first answer comes."""

    def __init__(self) -> None:
        self._readings = 0

    def read(self) -> ClockReading:
        """Read the system's clocks, the fifth time late."""
        self._readings += 1
        if self._readings == 5:
            time.sleep(0.7)
        return SystemClock().read()


def test_what_counts_is_when_an_answer_came_not_when_it_was_read() -> None:
    """V7: an answer that arrived in time and was read late counts; one that arrived after the deadline is `late`."""
    with NtpServer() as quick, RogueServer(late(0.45)) as slow:
        answers = exchange_all([(endpoint(quick),), (endpoint(slow),)], HeldUpClock(), 0.4)
    assert [reason(answer) for answer in answers] == [MEASURED, "late"]


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.needs("ipv6"))])
def test_honest_offset_is_inside_its_interval(address: str) -> None:
    """An asymmetric network moves the midpoint, never the truth out of the interval (B1)."""
    behaviour = Behaviour(offset_s=-3.25, request_delay_s=0.3, reply_delay_s=0.001)
    with NtpServer(behaviour, address=address) as server:
        outcome = ask(endpoint(server)).outcome
    assert isinstance(outcome, Measurement)
    assert outcome.interval.covers(-3_250_000_000)
    assert abs(outcome.offset_ns + 3_250_000_000) > 10_000_000  # half of the asymmetry is 150 ms
    assert outcome.delay_ns >= 301_000_000


def test_kernel_stamps_are_used() -> None:
    """On Linux departures and arrivals are stamped by the kernel, on a busy machine most of them (T4, T5)."""
    with NtpServer() as server:
        outcomes = [ask(endpoint(server)).outcome for _ in range(10)]
    stampings = [outcome.timestamps.timestamping for outcome in outcomes if isinstance(outcome, Measurement)]
    assert len(stampings) == 10
    assert stampings.count("kernel") >= 5


def test_stamps_that_do_not_fit_the_clock_are_not_believed() -> None:
    """T6: where the audited clock is not the kernel's, its stamps are dropped and our own stand, so theta is right."""
    with NtpServer() as server:
        shifted = ShiftedClock(SystemClock(), -(56 * 365 + 100) * 86_400 * 10**9)
        outcome = exchange_all([(endpoint(server),)], shifted, 1.0)[0].outcome
    assert isinstance(outcome, Measurement)
    assert outcome.timestamps.timestamping == "user"
    assert outcome.interval.covers((56 * 365 + 100) * 86_400 * 10**9)


def test_all_are_asked_at_once() -> None:
    """Servers that reply only once all of them have been asked do reply, and one that is silent holds up none."""
    all_asked = threading.Barrier(7)

    def wait_for_the_others(honest: Header) -> list[Datagram]:
        all_asked.wait(WITHIN_S)
        return [Datagram(honest.encode())]

    with ExitStack() as stack:
        servers = [stack.enter_context(RogueServer(wait_for_the_others)) for _ in range(7)]
        servers.append(stack.enter_context(RogueServer("silent")))
        answers = exchange_all([(endpoint(server),) for server in servers], SystemClock(), 2.0)
    assert [reason(answer) for answer in answers] == [MEASURED] * 7 + ["timeout"]


def test_a_flood_never_extends_the_deadline() -> None:
    """V7: a server that sends bogus replies without end holds us no longer than a silent one."""
    stop = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(WITHIN_S)

        def flood() -> None:
            _, client = server.recvfrom(512)
            until = time.monotonic() + WITHIN_S
            while not stop.is_set() and time.monotonic() < until:
                try:
                    server.sendto(b"\x24\x01" + bytes(22) + os.urandom(8) + bytes(16), client)
                except ConnectionRefusedError:
                    return

        thread = threading.Thread(target=flood)
        thread.start()
        answer = ask(at(*server.getsockname()))
        is_still_flooding = thread.is_alive()
        stop.set()
        thread.join()
    assert reason(answer) == "bogus"
    assert answer.discarded["bogus"] > 10
    assert is_still_flooding


def test_refused_port_is_refused_at_once() -> None:
    """T8: an ICMP error is `refused`, not a time-out, and ends the wait."""
    began = time.monotonic()
    answer = ask(at("127.0.0.1", free_port("127.0.0.1", socket.SOCK_DGRAM)), timeout_s=WITHIN_S)
    assert reason(answer) == "refused"
    assert time.monotonic() - began < WITHIN_S / 2


@pytest.mark.needs("ipv6")
def test_next_address_is_tried_where_one_refuses() -> None:
    """A name with several addresses is not given up because the first of them does not serve."""
    with NtpServer() as server:
        closed = at("::1", free_port("::1", socket.SOCK_DGRAM))
        answer = ask(closed, endpoint(server))
    assert isinstance(answer.outcome, Measurement)
    assert answer.endpoint == endpoint(server)


@pytest.mark.needs("ipv6")
def test_if_all_addresses_refuse_the_last_reason_is_reported() -> None:
    """Where no address serves, the answer is what the last of them said."""
    closed = [at(address, free_port(address, socket.SOCK_DGRAM)) for address in ("::1", "127.0.0.1")]
    assert reason(ask(*closed)) == "refused"


def test_no_route_has_its_own_reason() -> None:
    """An address that the system knows no way to is `net-unreachable`, and nothing is sent."""
    # 0.0.0.0/8 as a source-less multicast to nowhere is refused by the kernel itself, whatever the routes are
    assert reason(ask(at("255.255.255.255", 123))) == "forbidden"


def test_a_request_contains_no_information() -> None:
    """Q1 to Q3: 48 octets, all zero but first octet, precision and a nonce; a new port and nonce for each exchange."""
    seen: list[tuple[bytes, int]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        for _ in range(8):
            ask(at(*server.getsockname()), timeout_s=0.01)
            data, (_, port) = server.recvfrom(512)
            seen.append((data, port))
    for data, _ in seen:
        assert len(data) == 48
        assert data[:40] == b"\x23\x00\x00\x20" + bytes(36)
    assert len({data[40:] for data, _ in seen}) == 8
    assert len({port for _, port in seen}) > 1


def test_real_chronyd_without_a_source_is_unsynchronised() -> None:
    """A real chronyd that has no reference says so by leap 3, stratum 0 and no reference id: that is no kiss."""
    with chronyd(synchronised=False) as server:
        assert reason(ask(at(server.address, server.port))) == "unsync"


def test_real_chronyd_is_measured_within_its_interval() -> None:
    """A real chronyd that serves this host's own clock is at offset 0, by kernel stamps, to 1 ms and its delay."""
    with chronyd() as server:
        for _ in range(3):
            outcome = ask(at(server.address, server.port)).outcome
    assert isinstance(outcome, Measurement)
    assert outcome.interval.covers(0)
    assert abs(outcome.offset_ns) < 1_000_000 + outcome.delay_ns
