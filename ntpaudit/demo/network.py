"""Two ways to ask the servers of a simulated world: over real UDP on loopback, or without, for large fleets."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import ceil

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.measurement import ExchangeTimestamps, Measurement, measure
from ntpaudit.core.ntp.packet import Reply
from ntpaudit.core.ntp.rate_limit import Instant, ServerStates
from ntpaudit.core.ntp.sources import NTP_PORT, Server
from ntpaudit.core.ntp.time import encode
from ntpaudit.core.observation import Failure, SourceObservation
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.host import SimulatedHost
from ntpaudit.demo.scenario import Source
from ntpaudit.demo.server import Behaviour, NtpServer
from ntpaudit.demo.simulated_agent import Ask
from ntpaudit.polling import PollRound, QueryOptions

_REFUSED = Failure("unreachable", "refused", "no service on that port")
_POLL, _PRECISION = 6, -20
_SERVED_NS = 20_000
_APART_NS = 2 * NS_PER_S


def ask_directly(host: SimulatedHost, sources: Sequence[Source]) -> tuple[SourceObservation, ...]:
    """Exchange packets with every source over a network that delays at random, without any socket."""
    return tuple(exchange_directly(host, source) for source in sources)


def exchange_directly(host: SimulatedHost, source: Source) -> SourceObservation:
    """Exchange packets with one source."""
    address = f"10.{source.number}.0.123"
    if host.is_cut_off:
        host.run_until(host.utc_ns + _delay_ns(host, source))
        return SourceObservation(source.name, address, NTP_PORT, _REFUSED)
    before = host.read()
    host.run_until(host.utc_ns + _delay_ns(host, source))
    received_ns = host.utc_ns + source.error_ns(host.utc_ns)
    host.run_until(host.utc_ns + _SERVED_NS + _delay_ns(host, source))
    after = host.read()
    reply = Reply(
        0,
        source.stratum,
        _POLL,
        _PRECISION,
        _short(source.root_delay_s),
        _short(source.root_dispersion_s),
        source.reference_id,
        encode(received_ns),
        encode(received_ns),
        encode(received_ns + _SERVED_NS),
    )
    outcome = measure(reply, ExchangeTimestamps(before.realtime_ns, after.realtime_ns, before, after, "user"))
    assert isinstance(outcome, Measurement), outcome
    return SourceObservation(source.name, address, NTP_PORT, (outcome,))


def _delay_ns(host: SimulatedHost, source: Source) -> int:
    """Return a random delay of a packet, at least half of the mean."""
    assert host.rand is not None
    return round((0.5 + 0.5 * host.rand.expovariate(1.0)) * source.network_s / 2 * NS_PER_S)


def _short(span_s: float) -> int:
    """Return a span in units of 2**-16 s, rounded up."""
    return ceil(span_s * 65536)


class RunningClock:
    """The clocks of a simulated host while real time passes in its world.

    MONOTONIC goes on from the real one, by which a probe counts its deadline; `own` takes that back.
    """

    def __init__(self, host: SimulatedHost) -> None:
        now_ns = time.monotonic_ns()
        self._host = host
        self._true_ns = host.utc_ns - now_ns
        self._shift_ns = now_ns - host.reading.monotonic_ns

    def true_ns(self) -> int:
        """Return the true time of that world."""
        return self._true_ns + time.monotonic_ns()

    def read(self) -> ClockReading:
        """Return what the clocks show now."""
        self._host.run_until(self.true_ns())
        return _shifted(self._host.reading, self._shift_ns)

    def own(self, source: SourceObservation) -> SourceObservation:
        """Return an observation as the host itself would have stamped it."""
        if isinstance(source.outcome, Failure):
            return source
        return source._replace(outcome=tuple(self._own(sample) for sample in source.outcome))

    def _own(self, sample: Measurement) -> Measurement:
        """Return a sample stamped by the host's own MONOTONIC."""
        before, after = (_shifted(one, -self._shift_ns) for one in (sample.timestamps.before, sample.timestamps.after))
        return sample._replace(timestamps=sample.timestamps._replace(before=before, after=after))


def _shifted(reading: ClockReading, shift_ns: int) -> ClockReading:
    """Return a reading with another MONOTONIC."""
    return reading._replace(monotonic_ns=reading.monotonic_ns + shift_ns)


class _Network:
    """NTP servers on loopback. They tell the time of the world that asks, and only one world asks at a time."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._true_ns: Callable[[], int] = time.time_ns

    def serve(self, stack: ExitStack, source: Source) -> None:
        """Start a server."""
        behaviour = Behaviour(
            stratum=source.stratum,
            reference_id=source.reference_id,
            root_delay_s=source.root_delay_s,
            root_dispersion_s=source.root_dispersion_s,
        )
        server = stack.enter_context(NtpServer(behaviour, now=partial(self._served_ns, source)))
        self.ports[source.name] = server.port

    def _served_ns(self, source: Source) -> int:
        """Return what time a server has."""
        true_ns = self._true_ns()
        return true_ns + source.error_ns(true_ns)

    def ask(self, host: SimulatedHost, sources: Sequence[Source]) -> tuple[SourceObservation, ...]:
        """Query every source as the agent does. A reply that a busy machine loses or delays is computed instead."""
        _keep_apart(host)
        servers = [
            Server(source.name, "127.0.0.1", _closed_port(source) if host.is_cut_off else self.ports[source.name])
            for source in sources
        ]
        clock = RunningClock(host)
        self._true_ns = clock.true_ns
        now = clock.read()
        instant = Instant(host.boot_id, now.boottime_ns, now.realtime_ns)
        replies = PollRound(servers, QueryOptions()).poll(clock, instant, keep_no_state)
        return tuple(
            exchange_directly(host, source)
            if isinstance(reply.outcome, Failure) and not host.is_cut_off
            else clock.own(reply)
            for source, reply in zip(sources, replies, strict=True)
        )


@contextmanager
def loopback(sources: Sequence[Source]) -> Iterator[Ask]:
    """Run a server for each source, and yield the way to ask them over UDP."""
    network = _Network()
    with ExitStack() as stack:
        for source in sources:
            network.serve(stack, source)
        yield network.ask


def _closed_port(source: Source) -> int:
    """Return a port where nobody listens: what a firewall refuses is answered in the same way."""
    return source.number


def _keep_apart(host: SimulatedHost) -> None:
    """Wait until this host's clock shows another time than the real one.

    The kernel stamps datagrams by the real one. Where both agree to within a second, its stamps would be taken for this
    host's own.
    """
    if abs(host.reading.realtime_ns - time.time_ns()) < _APART_NS:
        host.run_until(host.utc_ns + 2 * _APART_NS)


def keep_no_state(change: Callable[[ServerStates], ServerStates]) -> None:
    """Keep no state of servers: those on loopback need no rate limits."""
    change({})
