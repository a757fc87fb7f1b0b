"""Two ways to query simulated servers: over real UDP on loopback, or without."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.measurement import ExchangeTimestamps, Measurement, measure
from ntpaudit.core.ntp.packet import Reply
from ntpaudit.core.ntp.rate_limit import Instant, ServerStates
from ntpaudit.core.ntp.sources import NTP_PORT, Server
from ntpaudit.core.ntp.time import encode
from ntpaudit.core.observation import SourceFailure, SourceObservation
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.host import SimulatedHost
from ntpaudit.demo.scenario import Source
from ntpaudit.demo.server import Behaviour, NtpServer, to_short
from ntpaudit.demo.simulated_agent import Query
from ntpaudit.polling import PollRound, QueryOptions

_REFUSED = SourceFailure("unreachable", "refused", "no service on that port")
_POLL, _PRECISION = 6, -20
_SERVED_NS = 20_000
_APART_NS = 2 * NS_PER_S


def query_without_udp(host: SimulatedHost, sources: Sequence[Source]) -> tuple[SourceObservation, ...]:
    """Exchange packets with every source over a network that delays at random, without a socket."""
    return tuple(query_directly(host, source) for source in sources)


def query_directly(host: SimulatedHost, source: Source) -> SourceObservation:
    """Exchange packets with one source, without a socket."""
    address = f"10.{source.number}.0.123"
    before = host.read()
    _pass_network(host, source)
    if host.is_cut_off:
        return SourceObservation(source.name, address, NTP_PORT, _REFUSED)
    received_ns = host.utc_ns + source.error_ns(host.utc_ns)
    host.run_until(host.utc_ns + _SERVED_NS)
    _pass_network(host, source)
    after = host.read()
    reply = Reply(
        leap=0,
        stratum=source.stratum,
        poll=_POLL,
        precision=_PRECISION,
        root_delay=to_short(source.root_delay_s),
        root_dispersion=to_short(source.root_dispersion_s),
        reference_id=source.reference_id,
        reference=encode(received_ns),
        received=encode(received_ns),
        transmitted=encode(received_ns + _SERVED_NS),
    )
    outcome = measure(reply, ExchangeTimestamps(before.realtime_ns, after.realtime_ns, before, after, "user"))
    assert isinstance(outcome, Measurement), outcome
    return SourceObservation(source.name, address, NTP_PORT, (outcome,))


def _pass_network(host: SimulatedHost, source: Source) -> None:
    """Let a packet travel one way: at random, half of the mean at least."""
    assert host.rand is not None
    delay_s = (0.5 + 0.5 * host.rand.expovariate(1.0)) * source.network_s / 2
    host.run_until(host.utc_ns + round(delay_s * NS_PER_S))


class RunningClock:
    """The clocks of a simulated host while its time runs with real time."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self._ahead_ns = host.utc_ns - time.monotonic_ns()

    def true_ns(self) -> int:
        """Return the simulated true time."""
        return self._ahead_ns + time.monotonic_ns()

    def read(self) -> ClockReading:
        """Return what the clocks show now."""
        self._host.run_until(self.true_ns())
        return self._host.reading


class _Loopback:
    """NTP servers on loopback. They serve the true time of the host that queries; only one queries at a time."""

    def __init__(self, sources: Sequence[Source], stack: ExitStack) -> None:
        self._true_ns: Callable[[], int] = time.time_ns
        self._ports = {}
        for source in sources:
            behaviour = Behaviour(
                stratum=source.stratum,
                reference_id=source.reference_id,
                root_delay_s=source.root_delay_s,
                root_dispersion_s=source.root_dispersion_s,
            )
            server = stack.enter_context(NtpServer(behaviour, now=partial(self._served_ns, source)))
            self._ports[source.name] = server.port

    def _served_ns(self, source: Source) -> int:
        true_ns = self._true_ns()
        return true_ns + source.error_ns(true_ns)

    def query(self, host: SimulatedHost, sources: Sequence[Source]) -> tuple[SourceObservation, ...]:
        """Query every source as the agent does. A reply that a busy machine loses or delays is computed instead."""
        # The kernel stamps datagrams with the real time. If the host's clock agrees with it to within a second, the
        # program would take these stamps for the host's own.
        if abs(host.reading.realtime_ns - time.time_ns()) < _APART_NS:
            host.run_until(host.utc_ns + 2 * _APART_NS)
        servers = [  # no program listens on the port of `number`, which looks like a firewall that rejects
            Server(source.name, "127.0.0.1", source.number if host.is_cut_off else self._ports[source.name])
            for source in sources
        ]
        clock = RunningClock(host)
        self._true_ns = clock.true_ns
        now = clock.read()
        instant = Instant(host.boot_id, now.boottime_ns, now.realtime_ns)
        replies = PollRound(servers, QueryOptions()).poll(clock, instant, keep_no_state)
        return tuple(
            query_directly(host, source) if isinstance(reply.outcome, SourceFailure) and not host.is_cut_off else reply
            for source, reply in zip(sources, replies, strict=True)
        )


@contextmanager
def loopback(sources: Sequence[Source]) -> Iterator[Query]:
    """Run a server for each source, and yield the function that queries them over UDP."""
    with ExitStack() as stack:
        yield _Loopback(sources, stack).query


def keep_no_state(change: Callable[[ServerStates], ServerStates]) -> None:
    """Keep no state of servers: those on loopback need no rate limits."""
    change({})
