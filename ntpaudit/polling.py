"""Poll the sources: resolve names, apply rate limits, query all servers at once, store what the replies mean."""

import socket
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from ntpaudit.core.ntp import rate_limit
from ntpaudit.core.ntp.measurement import Measurement
from ntpaudit.core.ntp.rate_limit import MAX_POOL_SERVERS, POOL_INTERVAL_S, Instant, ServerState, ServerStates
from ntpaudit.core.ntp.sources import POOL_DOMAIN, Pool, Server, Source
from ntpaudit.core.ntp.sources import pool as make_pool
from ntpaudit.core.observation import SourceFailure, SourceObservation
from ntpaudit.core.units import NS_PER_S, format_duration, format_offset, plural
from ntpaudit.log import LazyLogger
from ntpaudit.net import deadline
from ntpaudit.probes.clock import Clock
from ntpaudit.probes.ntp import ExchangeResult, exchange_all
from ntpaudit.probes.resolve import Endpoint, Resolution, is_routable, own_reference_ids

logger = LazyLogger(__name__)

SAMPLE_SPACING_S = 2.0  # between two queries to one server, as with iburst; none on loopback
PROGRESS_AFTER_S = 1.0  # a wait that takes longer is explained to an interactive user

StateUpdater = Callable[[Callable[[ServerStates], ServerStates]], None]
"""Calls a function with the stored server states and stores the states it returns, under an exclusive lock.

A default state is deleted. Other processes wait for the lock, so the function must not block.
"""

ShowProgress = Callable[[str], None]  # shows an interactive user what a command waits for


def show_nothing(text: str) -> None:
    """Show no progress."""


class QueryOptions(NamedTuple):
    """Samples per server, the timeout, whether to ignore minimum intervals, and a `hint` about skipped servers."""

    samples: int = 1
    timeout_s: float = 2.0
    force: bool = False
    hint: str = ""


class Target:
    """A server to query, and its answers so far."""

    def __init__(
        self,
        name: str,
        endpoints: tuple[Endpoint, ...],
        samples: int,
        pool: Pool | None = None,
        slot: int | None = None,
        is_named: bool = False,
    ) -> None:
        self.name = name
        self.endpoints = endpoints
        self.samples = samples
        self.pool = pool
        self.slot = slot
        self.is_named = is_named
        self.answers: list[ExchangeResult] = []
        self.reserved_keys: list[str] = []

    @property
    def is_public(self) -> bool:
        """It is one of the public pool's servers."""
        return self.pool is not None and self.pool.is_public

    @property
    def is_sent(self) -> bool:
        """A request left this host."""
        return any(answer.is_sent for answer in self.answers)

    def mark(self, state: ServerState, now: Instant) -> ServerState:
        """Return the state with the time of this query and the pool of the server."""
        state = state._replace(queried_at=now)
        if self.pool is None:
            return state
        named = now if self.is_named else state.last_resolved
        return state._replace(zone=self.pool.zone, slot=self.slot, last_resolved=named)

    def is_open(self) -> bool:
        """More samples are wanted, and no answer forbids another query."""
        failure = self.answers[-1].outcome if self.answers else None
        is_refused = isinstance(failure, SourceFailure) and failure.reason.startswith(("kod:", "refused"))
        return len(self.answers) < self.samples and not is_refused

    def observation(self) -> SourceObservation:
        """Return the samples, or the failure. A kiss-o'-death outweighs earlier samples."""
        last = self.answers[-1]
        samples = tuple(answer.outcome for answer in self.answers if isinstance(answer.outcome, Measurement))
        is_kod = isinstance(last.outcome, SourceFailure) and last.outcome.reason.startswith("kod:")
        outcome = last.outcome if isinstance(last.outcome, SourceFailure) and (is_kod or not samples) else samples
        discarded = sum((answer.discarded for answer in self.answers), Counter[str]())
        address, port = last.endpoint.address, last.endpoint.port
        return SourceObservation(self.name, address, port, outcome, dict(discarded), last.is_own)


class PollRound:
    """One poll of all sources. Create it early: names are resolved while the caller does other work."""

    def __init__(
        self, sources: Sequence[Source], options: QueryOptions, show_progress: ShowProgress = show_nothing
    ) -> None:
        """Start to resolve the names. `show_progress` is called with what is being waited for, in a thread."""
        self._sources = tuple(dict.fromkeys(sources))
        self._options = options
        self._show_progress = show_progress
        self._resolution = Resolution(
            (name, source.port)
            for source in self._sources
            for name in ((source.host,) if isinstance(source, Server) else source.names)
        )
        self._now = Instant(None, 0, 0)
        self._entries: list[Target | SourceObservation] = []
        self._states_before: ServerStates = {}  # of the servers to query, before this poll reserved them
        self._fallbacks: dict[Pool, tuple[str, ...]] = {}  # of pools without an address: a larger zone's

    def poll(self, clock: Clock, now: Instant, update: StateUpdater) -> tuple[SourceObservation, ...]:
        """Query every source that the rate limits allow. Return one observation per source, in configured order.

        The queries are stored with `update` before they are sent, so a killed or concurrent run keeps the limits too.
        """
        self._now = now
        self._resolve()
        self._resolve_fallbacks()
        update(self._choose_targets)
        self._exchange(self._targets, clock)
        for target in self._targets:
            logger.debug(_describe(target.observation()))
        update(self._new_states)
        self._merge()  # again, because a server can have replied at another of its addresses
        return tuple(entry.observation() if isinstance(entry, Target) else entry for entry in self._entries)

    @property
    def _targets(self) -> list[Target]:
        return [entry for entry in self._entries if isinstance(entry, Target)]

    def _resolve(self) -> None:
        with self._progress("waiting for the resolver"):
            self._resolution.wait(self._options.timeout_s)

    def _resolve_fallbacks(self) -> None:
        for source in self._sources:
            if isinstance(source, Pool) and source.fallback is not None:
                offered, failure = self._offered(source.names, source.port)
                if not offered and failure.reason != "name-timeout":
                    names = self._fallbacks[source] = make_pool(source.fallback).names
                    self._resolution.start((name, source.port) for name in names)
        if self._fallbacks:
            self._resolve()

    def _progress(self, text: str) -> AbstractContextManager[None]:
        return deadline.after(PROGRESS_AFTER_S, lambda: self._show_progress(text))

    def _choose_targets(self, states: ServerStates) -> ServerStates:
        zones = sum(isinstance(source, Pool) and source.is_public for source in self._sources)
        whole, rest = divmod(MAX_POOL_SERVERS, max(1, zones))
        shares = (whole + (number < rest) for number in range(zones))  # P4: the servers of the public pool, divided
        for source in self._sources:
            match source:
                case Server():
                    self._entries.append(self._server(source, states))
                case Pool():
                    self._entries += self._pool(source, states, next(shares) if source.is_public else MAX_POOL_SERVERS)
        self._merge()
        reserved: ServerStates = {}
        for target in self._targets:
            endpoint = target.endpoints[0]
            if not endpoint.is_loopback:
                target.reserved_keys = [_key(endpoint), *([POOL_DOMAIN] if target.is_public else [])]
                reserved[_key(endpoint)] = target.mark(states.get(_key(endpoint), ServerState()), self._now)
                if target.is_public:
                    reserved[POOL_DOMAIN] = ServerState(queried_at=self._now)
        self._states_before = {key: states.get(key, ServerState()) for key in reserved}
        return reserved

    def _merge(self) -> None:
        """Skip every target that is the server of an earlier target: a server with two names counts once."""
        first: dict[Endpoint, Target] = {}
        for index, target in enumerate(self._entries):
            if isinstance(target, Target) and (other := first.setdefault(target.endpoints[0], target)) is not target:
                logger.warning(f"{target.name} is the same server as {other.name} and counts once")
                endpoint = target.endpoints[0]
                failure = SourceFailure("skipped", "same-server", f"the same server as {other.name}")
                self._entries[index] = SourceObservation(target.name, endpoint.address, endpoint.port, failure)

    def _server(self, server: Server, states: ServerStates) -> Target | SourceObservation:
        """Return the target for one server, or why it is skipped.

        An address that sent DENY or RSTR is passed over; any other address that must wait delays the whole server.
        """
        found = self._resolution.answer(server.host, server.port)
        if isinstance(found, SourceFailure):
            return SourceObservation(server.name, None, server.port, found)
        holds = {}
        for one in found:
            interval_s = 0 if one.is_loopback else rate_limit.SERVER_INTERVAL_S
            holds[one] = self._held(states.get(_key(one), ServerState()), interval_s)
        allowed = tuple(endpoint for endpoint, hold in holds.items() if hold is None)
        waiting = [hold for hold in holds.values() if hold is not None]
        if waiting and (not allowed or not all(hold.is_denial for hold in waiting)):
            longest = max(waiting, key=lambda hold: hold.wait_s)
            return SourceObservation(server.name, found[0].address, server.port, self._held_back(server.name, longest))
        return Target(server.name, allowed, self._options.samples)

    def _pool(self, pool: Pool, states: ServerStates, count: int) -> list[Target | SourceObservation]:
        def instead(failure: SourceFailure) -> list[Target | SourceObservation]:
            return [SourceObservation(pool.zone, None, pool.port, failure)]

        if not count:
            detail = f"at most {MAX_POOL_SERVERS} servers of the pool are queried"
            return instead(SourceFailure("skipped", "pool-limit", detail))
        if pool.is_public and (hold := self._held(states.get(POOL_DOMAIN, ServerState()), POOL_INTERVAL_S)):
            return instead(self._held_back(pool.zone, hold))
        names = self._fallbacks.get(pool, pool.names)
        if names is not pool.names:
            logger.warning(f"{pool.zone} has no address; trying {pool.fallback}")
        offered, failure = self._offered(names, pool.port)
        if not offered:
            return instead(failure)
        endpoints = {endpoint.address: endpoint for group in offered for endpoint in group}
        if len(endpoints) < MAX_POOL_SERVERS:
            logger.warning(f"{pool.zone} has only {plural(len(endpoints), 'server')}; use a larger zone")
        known = _known_of(pool, states, endpoints)
        interval_s = POOL_INTERVAL_S if pool.is_public else rate_limit.SERVER_INTERVAL_S
        addresses = rate_limit.choose_pool_servers(
            [[endpoint.address for endpoint in group] for group in offered],
            known,
            self._now,
            interval_s=0 if self._options.force else interval_s,
            count=count,
        )
        if not addresses:
            holds = [hold for state in known.values() if (hold := self._held(state, interval_s))]
            return instead(self._held_back(pool.zone, min(holds, key=lambda hold: hold.wait_s)))
        slots = rate_limit.assign_slots(addresses, known)
        return [
            Target(
                f"{pool.zone}/{slots[address]}",
                (endpoints.get(address) or _endpoint(address, pool.port),),
                1 if pool.is_public else self._options.samples,  # P4: no burst
                pool,
                slots[address],
                is_named=address in endpoints,
            )
            for address in sorted(addresses, key=slots.__getitem__)
        ]

    def _offered(self, names: Iterable[str], port: int) -> tuple[list[list[Endpoint]], SourceFailure]:
        """Return the reachable addresses of each name of a pool, at most four of each family (DSN 2020)."""
        offered, failure = [], SourceFailure("unreachable", "name-unknown", "no such zone")
        for name in names:
            found = self._resolution.answer(name, port)
            if isinstance(found, SourceFailure):
                failure = found
                continue
            group: list[Endpoint] = []
            for family in (socket.AF_INET, socket.AF_INET6):
                group += [endpoint for endpoint in found if endpoint.family == family][:MAX_POOL_SERVERS]
            if routable := [endpoint for endpoint in group if is_routable(endpoint)]:
                offered.append(routable)
            else:
                failure = SourceFailure("unreachable", "net-unreachable", "no route to any of its addresses")
        return offered, failure

    def _exchange(self, queried: Sequence[Target], clock: Clock) -> None:
        own_ids = own_reference_ids([target.endpoints[0] for target in queried])
        for sample in range(max((target.samples for target in queried), default=0)):
            open_now = [target for target in queried if target.is_open()]
            if not open_now:
                return
            if sample and not all(target.endpoints[0].is_loopback for target in open_now):
                self._show_progress(f"sample {sample + 1} of {self._options.samples} in {SAMPLE_SPACING_S:.0f} s")
                time.sleep(SAMPLE_SPACING_S)
            targets = [target.endpoints for target in open_now]
            with self._progress("waiting for the servers that have not replied yet"):
                answers = exchange_all(targets, clock, self._options.timeout_s, own_ids)
            for target, answer in zip(open_now, answers, strict=True):
                target.answers.append(answer)
                target.endpoints = (answer.endpoint,)  # the samples of one source are of one server

    def _new_states(self, states: ServerStates) -> ServerStates:
        changed: ServerStates = {
            key: ServerState()
            for key, state in states.items()
            if key != POOL_DOMAIN and rate_limit.is_stale(state, self._now)
        }
        for target in self._targets:
            key = _key(target.endpoints[0])
            state = target.mark(states.get(key, ServerState()), self._now)
            if (after := self._after(target, state)) is not None:
                changed[key] = after
        sent = {key for target in self._targets if target.is_sent for key in target.reserved_keys}
        for key in self._states_before.keys() - sent:  # no packet left the host, so this was no query
            changed[key] = states.get(key, ServerState())._replace(queried_at=self._states_before[key].queried_at)
        return changed

    def _after(self, target: Target, state: ServerState) -> ServerState | None:
        """Return the state to store for one server. For loopback only a kiss-o'-death is stored."""
        match target.observation().outcome:
            case SourceFailure(reason=reason) if reason.startswith("kod:"):
                return rate_limit.on_kod(state, self._now, reason.removeprefix("kod:"))
            case _ if target.endpoints[0].is_loopback or not target.is_sent:
                return None
            case SourceFailure(reason="local-step"):
                return state  # the server did reply; this host's clock was stepped
            case SourceFailure():
                return rate_limit.on_timeout(state, self._now)
            case samples:
                return rate_limit.on_reply(state, self._now, min(sample.delay_ns for sample in samples))

    def _held_back(self, name: str, hold: rate_limit.BackOff) -> SourceFailure:
        detail = f"next query in {format_duration(hold.wait_s, rounding='up')}"
        if self._options.hint and not hold.reason.startswith("kod:"):
            detail += f"; {self._options.hint}"
        reasons = {"interval": "queried recently", "unanswered": "no reply last time"}
        kod = f"sent kiss-o'-death {hold.reason.removeprefix('kod:')}"
        logger.info(f"{name}: {reasons.get(hold.reason, kod)}; {detail}")
        return SourceFailure("skipped", hold.reason, detail)

    def _held(self, state: ServerState, interval_s: float) -> rate_limit.BackOff | None:
        """Return how long to wait, None if not at all. `force` overrides intervals, never a kiss-o'-death (K2, K3)."""
        hold = rate_limit.back_off(state, self._now, interval_s)
        return None if hold is not None and self._options.force and not hold.reason.startswith("kod:") else hold


def _describe(source: SourceObservation) -> str:
    if isinstance(source.outcome, SourceFailure):
        return f"{source.name} ({source.address}): {source.outcome.status}, {source.outcome.reason}"
    best = min(source.outcome, key=lambda sample: sample.delay_ns)
    return f"{source.name} ({source.address}): offset {format_offset(best.offset_ns / NS_PER_S)}"


def _known_of(pool: Pool, states: ServerStates, offered: Container[str]) -> ServerStates:
    """Return this pool's known states by address, and of other offered addresses the kiss-o'-deaths that they sent."""
    known: ServerStates = {}
    for key, state in states.items():
        address, _, port = key.partition(" ")
        if port == str(pool.port) and state.zone == pool.zone:
            known[address] = state
        elif port == str(pool.port) and address in offered:
            known[address] = state._replace(delay_ns=None, slot=None)
    return known


def _endpoint(address: str, port: int) -> Endpoint:
    return Endpoint(socket.AF_INET6 if ":" in address else socket.AF_INET, address, port)


def _key(endpoint: Endpoint) -> str:
    scope = f"%{endpoint.scope}" if endpoint.scope else ""
    return f"{endpoint.address}{scope} {endpoint.port}"
