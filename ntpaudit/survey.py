"""Ask the sources: find their addresses, leave alone who must be left alone, ask the rest at once, and remember."""

import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ntpaudit.core.measurement import Measurement
from ntpaudit.core.observation import Failure, SourceObservation
from ntpaudit.core.politeness import (
    MAX_POOL_SERVERS,
    POOL_INTERVAL_S,
    SERVER_INTERVAL_S,
    BackOff,
    Memory,
    Moment,
    after_answer,
    after_kiss,
    after_miss,
    assign_slots,
    back_off,
    choose_pool_servers,
)
from ntpaudit.core.sources import NTP_PORT, POOL_DOMAIN, Pool, Server, Source
from ntpaudit.core.sources import pool as make_pool
from ntpaudit.core.wording import plural, span
from ntpaudit.probes.clock import Clock
from ntpaudit.probes.ntp import Answer, exchange
from ntpaudit.probes.resolve import Endpoint, Resolution, is_routable, own_reference_ids

SAMPLE_SPACING_S = 2.0
"""Between two requests to the same server, as iburst has it; loopback needs none."""

PATIENCE_S = 1.0
"""After so long a wait is explained."""

Memories = dict[str, Memory]
"""What is remembered, by `address port`; the public pool as a whole under its domain (P2 counts per client)."""


class Manner(NamedTuple):
    """How to ask: how often each server, how long to wait, and whether intervals may be ignored this once."""

    samples: int = 1
    timeout_s: float = 2.0
    force: bool = False


DEFAULT_MANNER = Manner()


class Voice(Protocol):
    """Where an audit speaks while it runs."""

    def note(self, text: str) -> None:
        """Tell the operator something to know or to mend."""

    def progress(self, text: str) -> None:
        """Tell whoever watches what is being waited for."""


@dataclass(slots=True)
class _Question:
    """A server about to be asked, and what came of it so far."""

    name: str
    endpoints: tuple[Endpoint, ...]
    samples: int
    zone: str | None = None
    slot: int | None = None
    answers: list[Answer] = field(default_factory=list)

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
        return SourceObservation(self.name, last.endpoint.address, last.endpoint.port, outcome, discarded)


class Survey:
    """One round of questions. Made first, so that names are resolved while the caller looks at other things."""

    def __init__(
        self,
        sources: Sequence[Source],
        manner: Manner,
        memories: Mapping[str, Memory],
        voice: Voice,
    ) -> None:
        self._sources = sources
        self._manner = manner
        self._memories = dict(memories)
        self._voice = voice
        self._resolution = Resolution(_names(sources))
        self.remembered: Memories = {}

    def ask(self, clock: Clock, now: Moment) -> tuple[SourceObservation, ...]:
        """Ask everybody who may be asked and return one observation per source, in the order configured."""
        self._resolve()
        entries: list[_Question | SourceObservation] = []
        shares = _shares(sum(isinstance(source, Pool) for source in self._sources))
        for source in self._sources:
            match source:
                case Server():
                    entries.append(self._server(source, now))
                case Pool():
                    entries += self._pool(source, now, next(shares))
        questions = [entry for entry in entries if isinstance(entry, _Question)]
        self._exchange(questions, clock)
        for question in questions:
            self._remember(question, now)
        return tuple(entry.observation() if isinstance(entry, _Question) else entry for entry in entries)

    def _resolve(self) -> None:
        """Wait for the names."""
        with self._patience("waiting for the resolver"):
            self._resolution.wait(self._manner.timeout_s)

    @contextmanager
    def _patience(self, text: str) -> Iterator[None]:
        """Tell what is being waited for, should it take longer than a second."""
        timer = threading.Timer(PATIENCE_S, self._voice.progress, (text,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _server(self, server: Server, now: Moment) -> _Question | SourceObservation:
        """Decide on one server: whoever denied us is passed over, any other address that must wait holds us back."""
        found = self._resolution.answer(server.host, server.port)
        if isinstance(found, Failure):
            return SourceObservation(server.name, None, server.port, found)
        holds = {endpoint: self._back_off(endpoint, now, _interval_s(endpoint)) for endpoint in found}
        allowed = tuple(endpoint for endpoint, hold in holds.items() if hold is None)
        waiting = [hold for hold in holds.values() if hold is not None]
        if waiting and (not allowed or any(not hold.reason.startswith("kod:") for hold in waiting)):
            longest = max(waiting, key=lambda hold: hold.wait_s)
            return SourceObservation(server.name, found[0].address, server.port, self._held_back(server.name, longest))
        return _Question(server.name, allowed, self._manner.samples)

    def _pool(self, pool: Pool, now: Moment, count: int) -> list[_Question | SourceObservation]:
        """Choose the servers of one pool, or say why none is asked."""
        if not count:
            return [
                SourceObservation(pool.zone, None, NTP_PORT, Failure("backed-off", "pool-limit", "4 pools at most"))
            ]
        hold = self._held(self._memories.get(POOL_DOMAIN, Memory()), now, POOL_INTERVAL_S) if pool.is_public else None
        if hold is not None:
            return [SourceObservation(pool.zone, None, NTP_PORT, self._held_back(pool.zone, hold))]
        offered, failure = self._offered(pool.names)
        if not offered and pool.fallback is not None:
            self._voice.note(f"{pool.zone} gives no server; asking {pool.fallback}")
            names = make_pool(pool.fallback).names
            self._resolution.start((name, NTP_PORT) for name in names)
            self._resolve()
            offered, failure = self._offered(names)
        if not offered:
            return [SourceObservation(pool.zone, None, NTP_PORT, failure)]
        endpoints = {endpoint.address: endpoint for group in offered for endpoint in group}
        if len(endpoints) < MAX_POOL_SERVERS:
            self._voice.note(f"{pool.zone} gives only {plural(len(endpoints), 'server')}; a larger zone is safer")
        known = {
            key.removesuffix(f" {NTP_PORT}"): memory
            for key, memory in self._memories.items()
            if memory.zone == pool.zone
        }
        addresses = choose_pool_servers(
            [[endpoint.address for endpoint in group] for group in offered],
            known,
            now,
            interval_s=0 if self._manner.force else POOL_INTERVAL_S if pool.is_public else SERVER_INTERVAL_S,
            count=count,
        )
        if not addresses:
            hold = BackOff("interval", POOL_INTERVAL_S)
            return [SourceObservation(pool.zone, None, NTP_PORT, self._held_back(pool.zone, hold))]
        if pool.is_public:
            self._keep(POOL_DOMAIN, Memory(asked=now))
        for address in endpoints:
            if (memory := known.get(address)) is not None:
                self._keep(f"{address} {NTP_PORT}", memory._replace(named=now))
        slots = assign_slots(addresses, known)
        samples = 1 if pool.is_public else self._manner.samples  # P4: no burst
        return [
            _Question(
                f"{pool.zone}/{slots[address]}",
                (endpoints.get(address) or _endpoint(address),),
                samples,
                pool.zone,
                slots[address],
            )
            for address in sorted(addresses, key=slots.__getitem__)
        ]

    def _offered(self, names: Iterable[str]) -> tuple[list[list[Endpoint]], Failure]:
        """Return what each name of a pool gives that this host can reach, at most four of each family (DSN 2020)."""
        offered, failure = [], Failure("unreachable", "name-unknown", "no such zone")
        for name in names:
            found = self._resolution.answer(name, NTP_PORT)
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

    def _exchange(self, questions: Sequence[_Question], clock: Clock) -> None:
        """Ask all at once, as many rounds as samples are wanted."""
        own_ids = own_reference_ids([question.endpoints[0] for question in questions])
        for sample in range(max((question.samples for question in questions), default=0)):
            open_now = [question for question in questions if question.is_open()]
            if not open_now:
                return
            if sample and not all(question.endpoints[0].is_loopback for question in open_now):
                self._voice.progress(f"sample {sample + 1} of {self._manner.samples} in {SAMPLE_SPACING_S:.0f} s")
                time.sleep(SAMPLE_SPACING_S)
            targets = [question.endpoints for question in open_now]
            with self._patience("waiting for the servers that have not answered yet"):
                answers = exchange(targets, clock, self._manner.timeout_s, own_ids)
            for question, answer in zip(open_now, answers, strict=True):
                question.answers.append(answer)
                question.endpoints = (answer.endpoint,)  # the samples of one source are of one server

    def _remember(self, question: _Question, now: Moment) -> None:
        """Keep in mind what a server's answer means for the next time. Of loopback only a kiss is worth it."""
        endpoint, outcome = question.answers[-1].endpoint, question.observation().outcome
        key = _key(endpoint)
        memory = self.remembered.get(key) or self._memories.get(key, Memory())
        if question.zone is not None:
            memory = memory._replace(zone=question.zone, slot=question.slot, named=memory.named or now)
        match outcome:
            case Failure(reason=reason) if reason.startswith("kod:"):
                self._keep(key, after_kiss(memory, now, reason.removeprefix("kod:")))
            case _ if endpoint.is_loopback:
                pass
            case Failure():
                self._keep(key, after_miss(memory, now))
            case samples:
                self._keep(key, after_answer(memory, now, min(sample.delay_ns for sample in samples)))

    def _held_back(self, name: str, hold: BackOff) -> Failure:
        """Say that a server is not asked, why, and when it may be."""
        detail = f"may be asked again in {span(hold.wait_s, rounding='up')}"
        if not hold.reason.startswith("kod:"):
            detail += "; --force asks now"
        self._voice.note(f"{name} is not asked ({hold.reason}): {detail}")
        return Failure("backed-off", hold.reason, detail)

    def _keep(self, key: str, memory: Memory) -> None:
        """Note a memory for the caller to store."""
        self.remembered[key] = memory

    def _back_off(self, endpoint: Endpoint, now: Moment, interval_s: float) -> BackOff | None:
        """Say whether an address must be left alone."""
        return self._held(self._memories.get(_key(endpoint), Memory()), now, interval_s)

    def _held(self, memory: Memory, now: Moment, interval_s: float) -> BackOff | None:
        """Say whether to wait; `--force` overrides an interval, never a server's own word (K2, K3)."""
        hold = back_off(memory, now, interval_s)
        return None if hold is not None and self._manner.force and not hold.reason.startswith("kod:") else hold


def _names(sources: Iterable[Source]) -> list[tuple[str, int]]:
    """List the names to resolve."""
    names: list[tuple[str, int]] = []
    for source in sources:
        match source:
            case Server():
                names.append((source.host, source.port))
            case Pool():
                names += [(name, NTP_PORT) for name in source.names]
    return names


def _shares(pools: int) -> Iterator[int]:
    """Share the pool servers that a host may ask among its pools, the first ones first (P4)."""
    whole, rest = divmod(MAX_POOL_SERVERS, max(1, pools))
    return (whole + (number < rest) for number in range(pools))


def _interval_s(endpoint: Endpoint) -> float:
    """Return how long to wait between two rounds with a named server: nothing on loopback."""
    return 0 if endpoint.is_loopback else SERVER_INTERVAL_S


def _endpoint(address: str) -> Endpoint:
    """Return the endpoint of a pool's server that is remembered by its address."""
    return Endpoint(socket.AF_INET6 if ":" in address else socket.AF_INET, address, NTP_PORT)


def _key(endpoint: Endpoint) -> str:
    """Name an endpoint in the store."""
    return f"{endpoint.address} {endpoint.port}"
