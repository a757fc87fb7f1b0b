"""Ask the sources: find their addresses, leave alone who must be left alone, ask the rest at once, and remember."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from ntpaudit.core.ntp.measurement import Measurement
from ntpaudit.core.ntp.rate_limit import (
    MAX_POOL_SERVERS,
    POOL_INTERVAL_S,
    SERVER_INTERVAL_S,
    BackOff,
    Instant,
    ServerState,
    ServerStates,
    assign_slots,
    back_off,
    choose_pool_servers,
    is_stale,
    on_kod,
    on_reply,
    on_timeout,
)
from ntpaudit.core.ntp.sources import POOL_DOMAIN, Pool, Server, Source
from ntpaudit.core.ntp.sources import pool as make_pool
from ntpaudit.core.observation import Failure, SourceObservation
from ntpaudit.core.units import NS_PER_S, format_duration, format_offset, plural
from ntpaudit.log import LazyLogger
from ntpaudit.probes.clock import Clock
from ntpaudit.probes.ntp import Answer, exchange
from ntpaudit.probes.resolve import Endpoint, Resolution, is_routable, own_reference_ids

logger = LazyLogger(__name__)

SAMPLE_SPACING_S = 2.0
"""Between two requests to the same server, as iburst has it; loopback needs none."""

PROGRESS_AFTER_S = 1.0
"""After so long a wait is explained."""

StateUpdater = Callable[[Callable[[ServerStates], ServerStates]], None]
"""Calls a function with what is remembered and stores what it returns beside it, while nobody else may do so.

An empty memory is removed. Everybody else waits meanwhile, so the function must not wait for anything.
"""


ShowProgress = Callable[[str], None]
"""Shows an interactive user what a command waits for."""


def show_nothing(text: str) -> None:
    """Show no progress: nobody waits."""


class QueryOptions(NamedTuple):
    """How to ask: how often each server, how long to wait, and whether intervals may be ignored this once.

    `hint` is told with a server that is not asked yet: what whoever started this can do about it.
    """

    samples: int = 1
    timeout_s: float = 2.0
    force: bool = False
    hint: str = ""


DEFAULT_OPTIONS = QueryOptions()


@dataclass(slots=True)
class Target:
    """A server about to be asked, and what came of it so far."""

    name: str
    endpoints: tuple[Endpoint, ...]
    samples: int
    pool: Pool | None = None
    slot: int | None = None
    is_named: bool = False
    answers: list[Answer] = field(default_factory=list)
    reserved_keys: list[str] = field(default_factory=list)

    @property
    def is_public(self) -> bool:
        """It is one of the public pool's servers."""
        return self.pool is not None and self.pool.is_public

    @property
    def is_sent(self) -> bool:
        """A request left this host."""
        return any(answer.is_sent for answer in self.answers)

    def mark(self, memory: ServerState, now: Instant) -> ServerState:
        """Note in a memory that the server is being asked, and of which pool it is."""
        memory = memory._replace(queried_at=now)
        if self.pool is None:
            return memory
        named = now if self.is_named else memory.last_resolved
        return memory._replace(zone=self.pool.zone, slot=self.slot, last_resolved=named)

    def is_open(self) -> bool:
        """Another sample is wanted, and nothing that was said forbids to ask for it."""
        failure = self.answers[-1].outcome if self.answers else None
        said_no = isinstance(failure, Failure) and (failure.reason.startswith("kod:") or failure.reason == "refused")
        return len(self.answers) < self.samples and not said_no

    def observation(self) -> SourceObservation:
        """Return what came of asking: the samples, or why there is none. A kiss-o'-death outweighs earlier samples."""
        last = self.answers[-1]
        samples = tuple(answer.outcome for answer in self.answers if isinstance(answer.outcome, Measurement))
        kissed = isinstance(last.outcome, Failure) and last.outcome.reason.startswith("kod:")
        outcome = last.outcome if isinstance(last.outcome, Failure) and (kissed or not samples) else samples
        discarded: dict[str, int] = {}
        for answer in self.answers:
            for code, count in answer.discarded.items():
                discarded[code] = discarded.get(code, 0) + count
        return SourceObservation(self.name, last.endpoint.address, last.endpoint.port, outcome, discarded, last.is_own)


class PollRound:
    """One round of questions. Made first, so that names are resolved while the caller looks at other things."""

    def __init__(
        self,
        sources: Sequence[Source],
        options: QueryOptions,
        show_progress: ShowProgress = show_nothing,
    ) -> None:
        """Start to resolve the names. `show_progress` is called with what is being waited for, in a thread."""
        self._sources = tuple(dict.fromkeys(sources))
        self._manner = options
        self._show_progress = show_progress
        self._resolution = Resolution(_names(self._sources))
        self._now = Instant(None, 0, 0)
        self._entries: list[Target | SourceObservation] = []
        self._before: ServerStates = {}
        """What was remembered, when we decided, of everybody we then laid claim to."""
        self._fallbacks: dict[Pool, tuple[str, ...]] = {}
        """The names asked for instead of those of a pool that gave no server."""

    def poll(self, clock: Clock, now: Instant, update: StateUpdater) -> tuple[SourceObservation, ...]:
        """Ask everybody who may be asked and return one observation per source, in the order configured.

        Before anything is sent, `update` notes that it is: a run that is killed, or another beside it, stays polite.
        """
        self._now = now
        self._resolve()
        self._resolve_fallbacks()
        update(self._decide)
        self._exchange(self._targets, clock)
        for target in self._targets:
            logger.debug(_describe(target.observation()))
        update(self._learn)
        return tuple(self._observations())

    @property
    def _targets(self) -> list[Target]:
        """The servers that are asked."""
        return [entry for entry in self._entries if isinstance(entry, Target)]

    def _resolve(self) -> None:
        """Wait for the names."""
        with self._progress("waiting for the resolver"):
            self._resolution.wait(self._manner.timeout_s)

    def _resolve_fallbacks(self) -> None:
        """Wait for the names of larger zones, where a zone has no server that can be reached (P7)."""
        for source in self._sources:
            if isinstance(source, Pool) and source.fallback is not None:
                offered, failure = self._offered(source.names, source.port)
                if not offered and failure.reason != "name-timeout":
                    names = self._fallbacks[source] = make_pool(source.fallback).names
                    self._resolution.start((name, source.port) for name in names)
        if self._fallbacks:
            self._resolve()

    @contextmanager
    def _progress(self, text: str) -> Iterator[None]:
        """Tell what is being waited for, should it take longer than a second."""
        timer = threading.Timer(PROGRESS_AFTER_S, self._show_progress, (text,))
        timer.daemon = True
        with suppress(RuntimeError):  # no thread to be had: then nothing is told
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _decide(self, states: ServerStates) -> ServerStates:
        """Decide whom to ask, by what is remembered; return that they are being asked."""
        shares = _shares(sum(isinstance(source, Pool) and source.is_public for source in self._sources))
        for source in self._sources:
            match source:
                case Server():
                    self._entries.append(self._server(source, states))
                case Pool():
                    self._entries += self._pool(source, states, next(shares) if source.is_public else MAX_POOL_SERVERS)
        self._merge()
        claims: ServerStates = {}
        for question in self._targets:
            endpoint = question.endpoints[0]
            if not endpoint.is_loopback:
                question.reserved_keys = [_key(endpoint), *([POOL_DOMAIN] if question.is_public else [])]
                claims[_key(endpoint)] = question.mark(states.get(_key(endpoint), ServerState()), self._now)
                if question.is_public:
                    claims[POOL_DOMAIN] = ServerState(queried_at=self._now)
        self._before = {key: states.get(key, ServerState()) for key in claims}
        return claims

    def _merge(self) -> None:
        """Let a server that was named twice be asked once, under the first of its names."""
        first: dict[Endpoint, Target] = {}
        for index, entry in enumerate(self._entries):
            if isinstance(entry, Target) and (other := first.setdefault(entry.endpoints[0], entry)) is not entry:
                self._entries[index] = self._same_server(entry, other.name)

    def _observations(self) -> Iterator[SourceObservation]:
        """Yield what came of each source; where two names led to one server, it speaks once."""
        first: dict[Endpoint, Target] = {}
        for entry in self._entries:
            if isinstance(entry, SourceObservation):
                yield entry
            elif (other := first.setdefault(entry.answers[-1].endpoint, entry)) is not entry:
                yield self._same_server(entry, other.name)
            else:
                yield entry.observation()

    def _same_server(self, question: Target, name: str) -> SourceObservation:
        """Say that a source is another one under a second name."""
        logger.warning(f"{question.name} is the same server as {name}: it has one vote")
        endpoint = question.endpoints[0]
        failure = Failure("skipped", "same-server", f"the same server as {name}")
        return SourceObservation(question.name, endpoint.address, endpoint.port, failure)

    def _server(self, server: Server, states: ServerStates) -> Target | SourceObservation:
        """Decide on one server: an address that denied us is passed over, any other that must wait holds us back."""
        found = self._resolution.answer(server.host, server.port)
        if isinstance(found, Failure):
            return SourceObservation(server.name, None, server.port, found)
        holds = {
            endpoint: self._held(states.get(_key(endpoint), ServerState()), _interval_s(endpoint)) for endpoint in found
        }
        allowed = tuple(endpoint for endpoint, hold in holds.items() if hold is None)
        waiting = [hold for hold in holds.values() if hold is not None]
        if waiting and (not allowed or not all(hold.is_denial for hold in waiting)):
            longest = max(waiting, key=lambda hold: hold.wait_s)
            return SourceObservation(server.name, found[0].address, server.port, self._held_back(server.name, longest))
        return Target(server.name, allowed, self._manner.samples)

    def _pool(self, pool: Pool, states: ServerStates, count: int) -> list[Target | SourceObservation]:
        """Choose the servers of one pool, or say why none is asked."""

        def instead(failure: Failure) -> list[Target | SourceObservation]:
            return [SourceObservation(pool.zone, None, pool.port, failure)]

        if not count:
            return instead(Failure("skipped", "pool-limit", f"{MAX_POOL_SERVERS} servers of the pool at most"))
        if pool.is_public and (hold := self._held(states.get(POOL_DOMAIN, ServerState()), POOL_INTERVAL_S)):
            return instead(self._held_back(pool.zone, hold))
        names = self._fallbacks.get(pool, pool.names)
        if names is not pool.names:
            logger.warning(f"{pool.zone} gives no server; asking {pool.fallback}")
        offered, failure = self._offered(names, pool.port)
        if not offered:
            return instead(failure)
        endpoints = {endpoint.address: endpoint for group in offered for endpoint in group}
        if len(endpoints) < MAX_POOL_SERVERS:
            logger.warning(f"{pool.zone} gives only {plural(len(endpoints), 'server')}; a larger zone is safer")
        known = _known_of(pool, states, endpoints)
        interval_s = POOL_INTERVAL_S if pool.is_public else SERVER_INTERVAL_S
        addresses = choose_pool_servers(
            [[endpoint.address for endpoint in group] for group in offered],
            known,
            self._now,
            interval_s=0 if self._manner.force else interval_s,
            count=count,
        )
        if not addresses:
            holds = [hold for memory in known.values() if (hold := self._held(memory, interval_s))]
            return instead(self._held_back(pool.zone, min(holds, key=lambda hold: hold.wait_s)))
        slots = assign_slots(addresses, known)
        return [
            Target(
                f"{pool.zone}/{slots[address]}",
                (endpoints.get(address) or _endpoint(address, pool.port),),
                1 if pool.is_public else self._manner.samples,  # P4: no burst
                pool,
                slots[address],
                is_named=address in endpoints,
            )
            for address in sorted(addresses, key=slots.__getitem__)
        ]

    def _offered(self, names: Iterable[str], port: int) -> tuple[list[list[Endpoint]], Failure]:
        """Return what each name of a pool gives that this host can reach, at most four of each family (DSN 2020)."""
        offered, failure = [], Failure("unreachable", "name-unknown", "no such zone")
        for name in names:
            found = self._resolution.answer(name, port)
            if isinstance(found, Failure):
                failure = found
                continue
            group: list[Endpoint] = []
            for family in (socket.AF_INET, socket.AF_INET6):
                group += [endpoint for endpoint in found if endpoint.family == family][:MAX_POOL_SERVERS]
            if routable := [endpoint for endpoint in group if is_routable(endpoint)]:
                offered.append(routable)
            else:
                failure = Failure("unreachable", "net-unreachable", "no route to any of its addresses")
        return offered, failure

    def _exchange(self, questions: Sequence[Target], clock: Clock) -> None:
        """Ask all at once, as many rounds as samples are wanted."""
        own_ids = own_reference_ids([question.endpoints[0] for question in questions])
        for sample in range(max((question.samples for question in questions), default=0)):
            open_now = [question for question in questions if question.is_open()]
            if not open_now:
                return
            if sample and not all(question.endpoints[0].is_loopback for question in open_now):
                self._show_progress(f"sample {sample + 1} of {self._manner.samples} in {SAMPLE_SPACING_S:.0f} s")
                time.sleep(SAMPLE_SPACING_S)
            targets = [question.endpoints for question in open_now]
            with self._progress("waiting for the servers that have not answered yet"):
                answers = exchange(targets, clock, self._manner.timeout_s, own_ids)
            for question, answer in zip(open_now, answers, strict=True):
                question.answers.append(answer)
                question.endpoints = (answer.endpoint,)  # the samples of one source are of one server

    def _learn(self, states: ServerStates) -> ServerStates:
        """Return what the answers mean for the next time, applied to what is remembered by now."""
        learnt: ServerStates = {
            key: ServerState() for key, memory in states.items() if key != POOL_DOMAIN and is_stale(memory, self._now)
        }
        for question in self._targets:
            key = _key(question.endpoints[0])
            memory = question.mark(states.get(key, ServerState()), self._now)
            if (after := self._after(question, memory)) is not None:
                learnt[key] = after
        sent = {key for question in self._targets if question.is_sent for key in question.reserved_keys}
        unsent = self._before.keys() - sent
        for key in unsent:  # what never left the host was no request
            learnt[key] = states.get(key, ServerState())._replace(queried_at=self._before[key].queried_at)
        return learnt

    def _after(self, question: Target, memory: ServerState) -> ServerState | None:
        """Return what to remember of one server. Of loopback only a kiss is worth it."""
        outcome = question.observation().outcome
        match outcome:
            case Failure(reason=reason) if reason.startswith("kod:"):
                return on_kod(memory, self._now, reason.removeprefix("kod:"))
            case _ if question.endpoints[0].is_loopback or not question.is_sent:
                return None
            case Failure(reason="local-step"):
                return memory  # the server did answer; it was this host's clock that moved
            case Failure():
                return on_timeout(memory, self._now)
            case samples:
                return on_reply(memory, self._now, min(sample.delay_ns for sample in samples))

    def _held_back(self, name: str, hold: BackOff) -> Failure:
        """Say that a server is not asked, why, and when it may be."""
        detail = f"may be asked again in {format_duration(hold.wait_s, rounding='up')}"
        if self._manner.hint and not hold.reason.startswith("kod:"):
            detail += f"; {self._manner.hint}"
        logger.info(f"{name} is not asked ({hold.reason}): {detail}")
        return Failure("skipped", hold.reason, detail)

    def _held(self, memory: ServerState, interval_s: float) -> BackOff | None:
        """Say whether to wait; `--force` overrides an interval, never a server's own word (K2, K3)."""
        hold = back_off(memory, self._now, interval_s)
        return None if hold is not None and self._manner.force and not hold.reason.startswith("kod:") else hold


def _describe(source: SourceObservation) -> str:
    """Describe the result of a query, for the log."""
    if isinstance(source.outcome, Failure):
        return f"{source.name} ({source.address}): {source.outcome.status}, {source.outcome.reason}"
    best = min(source.outcome, key=lambda sample: sample.delay_ns)
    return f"{source.name} ({source.address}): offset {format_offset(best.offset_ns / NS_PER_S)}"


def _known_of(pool: Pool, states: ServerStates, offered: Iterable[str]) -> ServerStates:
    """Return what is remembered of this pool's servers, by address, and of those offered that other names led to.

    The latter have no place in this pool to keep, but whoever denied us under another name has denied us.
    """
    known: ServerStates = {}
    for address in offered:
        if memory := states.get(f"{address} {pool.port}"):
            known[address] = memory._replace(delay_ns=None, slot=None)
    suffix = f" {pool.port}"
    for key, memory in states.items():
        if memory.zone == pool.zone and key.endswith(suffix):
            known[key.removesuffix(suffix)] = memory
    return known


def _names(sources: Iterable[Source]) -> list[tuple[str, int]]:
    """List the names to resolve."""
    names: list[tuple[str, int]] = []
    for source in sources:
        match source:
            case Server():
                names.append((source.host, source.port))
            case Pool():
                names += [(name, source.port) for name in source.names]
    return names


def _shares(pools: int) -> Iterator[int]:
    """Share the public pool's servers that a host may ask among the zones it names, the first ones first (P4)."""
    whole, rest = divmod(MAX_POOL_SERVERS, max(1, pools))
    return (whole + (number < rest) for number in range(pools))


def _interval_s(endpoint: Endpoint) -> float:
    """Return how long to wait between two rounds with a named server: nothing on loopback."""
    return 0 if endpoint.is_loopback else SERVER_INTERVAL_S


def _endpoint(address: str, port: int) -> Endpoint:
    """Return the endpoint of a pool's server that is remembered by its address."""
    return Endpoint(socket.AF_INET6 if ":" in address else socket.AF_INET, address, port)


def _key(endpoint: Endpoint) -> str:
    """Name an endpoint in the store."""
    scope = f"%{endpoint.scope}" if endpoint.scope else ""
    return f"{endpoint.address}{scope} {endpoint.port}"
