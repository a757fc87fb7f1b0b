"""The courier: takes what waits in the outbox to the database, in a thread of its own, until it has arrived."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.clock.database_clock import DatabaseClock, read_date
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.delivery import (
    MAX_WAIT_S,
    Ack,
    Answer,
    Attempt,
    DeadLetter,
    Delivered,
    Failure,
    Refused,
    RetryAfter,
    RetryState,
    Unreachable,
    decide,
    describe,
    is_refusal,
)
from ntpaudit.core.units import NS_PER_S, format_duration, plural
from ntpaudit.errors import ConfigError, StoreError
from ntpaudit.log import LazyLogger
from ntpaudit.store.history import OutboxEntry
from ntpaudit.store.state import StateStore

logger = LazyLogger(__name__)

MAX_CHARACTERS = 1 << 20
"""A request holds no more than this, unless a single letter does: it is in memory three times."""

CHECK_EVERY_S = 60.0
"""How often the outbox is looked at when nobody calls."""


_Done = TypeVar("_Done")


class Transport(Protocol):
    """A way to the database."""

    date_s: int | None
    """The Date of the last answer to a write, in seconds since 1970; None where it had none, or there was none."""

    def write(self, lines: str) -> Answer:
        """Send lines of line protocol stamped in nanoseconds, and return what came of it."""

    def close(self) -> None:
        """Let go of the connection."""


class DeliveryStatus(NamedTuple):
    """How delivery fares: attempts that failed since the last good one and why; letters delivered and set aside.

    `refusals` counts the answers that refused what was sent since anything was accepted: they may come many at once,
    while a batch is halved.
    """

    failures: int = 0
    failure: str | None = None
    delivered: int = 0
    dead_letters: int = 0
    refusals: int = 0


def start_worker(
    store: StateStore,
    influxdb: InfluxConfig,
    token: str | None,
    note: Callable[[str], None] = logger.warning,
    read_clock: Callable[[], ClockReading] | None = None,
) -> "DeliveryWorker":
    """Return a courier to the database of a configuration; with `read_clock` it learns what the database's says."""

    def open_transport() -> Transport:
        from ntpaudit.outputs.influxdb import InfluxTransport  # in the courier's thread, so that nothing waits for it

        return InfluxTransport(
            influxdb.url,
            org=influxdb.org,
            bucket=influxdb.bucket,
            token=token,
            ca_file=influxdb.ca_file,
            timeout_s=influxdb.timeout_s,
        )

    return DeliveryWorker(store, open_transport, note, read_clock=read_clock)


class DeliveryWorker:
    """Delivers letters in their order; the cursor moves only when the database has confirmed them."""

    def __init__(
        self,
        store: StateStore,
        open_transport: Callable[[], Transport],
        note: Callable[[str], None] = logger.warning,
        rand: Callable[[], float] = random.random,
        read_clock: Callable[[], ClockReading] | None = None,
    ) -> None:
        """Nothing is delivered yet. `note` is told what changes, in its thread; `chance` spreads the waits.

        Without `read_clock` nothing is learnt of the database's clock.
        """
        self._ledger = store
        self._open_transport = open_transport
        self._chance = rand
        self._read_clock = read_clock
        self._transport: Transport | None = None
        self._news = _DeliveryLog(note)
        self._pace = RetryState()
        self._oldest: OutboxEntry | None = None
        self._turn = threading.Condition()
        self._is_called = self._is_idle = self._is_stopped = False
        self._next_s = 0.0
        self._ledger_is_ours = threading.Lock()
        self._is_left_behind = False
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self.health = DeliveryStatus()
        """How delivery fares, replaced as a whole."""
        self.database_clock: DatabaseClock | None = None
        """What the last answer said of the database's clock, replaced as a whole."""
        self.crash: BaseException | None = None
        """A bug that ended the courier, to be raised where the agent can end of it."""

    def start(self) -> None:
        """Begin to deliver what waits."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something new waits."""
        with self._turn:
            self._is_called, self._is_idle = True, False
            self._turn.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that can be delivered has been; False where that will not be in time."""
        until_s = time.monotonic() + timeout_s
        self.wake()
        with self._turn:
            self._turn.wait_for(lambda: self._is_idle or self.crash or self._next_s > until_s, timeout_s)
            return self._is_idle and self.crash is None

    def stop(self, timeout_s: float) -> None:
        """End within this time. A request that takes longer is left behind, and its letters will be sent again."""
        until_s = time.monotonic() + timeout_s
        with self._turn:
            self._is_stopped = True
            self._turn.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        is_free = self._ledger_is_ours.acquire(timeout=max(0.0, until_s - time.monotonic()))
        self._is_left_behind = True
        if is_free:
            self._ledger_is_ours.release()

    def _run(self) -> None:
        """Deliver until told to stop."""
        try:
            while not self._is_stopped:
                try:
                    self._deliver()
                except StoreError as error:
                    self._fail("state", str(error), MAX_WAIT_S / 10)
            if self._transport is not None:
                self._transport.close()
        except _LeftBehindError:
            return
        except BaseException as error:  # a bug: it is raised again where the agent ends of it
            self.crash = error
            with self._turn:
                self._turn.notify_all()

    def _deliver(self) -> None:
        """Send the oldest letters, and do what the answer asks for."""
        entries = self._use_store(self._waiting)
        if not entries:
            self._idle()
            return
        oldest = entries[0]._replace(lines="")
        if oldest != self._oldest:  # dropped for its age, or in a file that cannot be used
            self._oldest, self._pace = oldest, self._pace.on_another()
        place = self._pace.next_position(len(entries), self._chance())
        sent = entries[place : place + 1] if place else _fitting(entries[: self._pace.size])
        lines = "".join(entry.lines for entry in sent)
        answer = self._send(lines)
        self._count_refusals(answer)
        attempt = Attempt(len(sent), lines.count("\n"), place)
        self._pace, action = decide(self._pace, attempt, answer, self._chance())
        match action:
            case Ack():
                self._use_store(lambda store: self._ack(store, sent))
            case DeadLetter(count, reason):
                self._dead_letter(entries[:count], reason)
            case RetryAfter(wait_s):
                if isinstance(answer, Delivered):  # of another letter than the oldest
                    self._sleep(wait_s)
                else:
                    self._fail(_kind(answer), describe(answer), wait_s)

    def _waiting(self, store: StateStore) -> list[OutboxEntry]:
        """Return the oldest letters, and where one is to be compared with others the newest behind them."""
        entries = store.waiting(self._pace.lookahead)
        if self._pace.compares and len(entries) == self._pace.lookahead:
            newest = store.newest()
            if newest is not None and newest.id > entries[-1].id:
                entries.append(newest)
        return entries

    def _count_refusals(self, answer: Answer) -> None:
        """Count the answers in a row that refused what was sent."""
        refusals = 0 if isinstance(answer, Delivered) else self.health.refusals + is_refusal(answer)
        self.health = self.health._replace(refusals=refusals)

    def _send(self, lines: str) -> Answer:
        """Send lines by a connection that is kept."""
        if self._transport is None:
            try:
                self._transport = self._open_transport()
            except ConfigError as error:
                return Unreachable(str(error), sent=False)
        sent = None if self._read_clock is None else self._read_clock()
        answer = self._transport.write(lines)
        if self._read_clock is not None and sent is not None and (date_s := self._transport.date_s) is not None:
            self.database_clock = read_date(date_s, sent, self._read_clock()) or self.database_clock
        return answer

    def _ack(self, store: StateStore, sent: Sequence[OutboxEntry]) -> None:
        """Move the cursor."""
        waited = store.backlog()[0] if self.health.failures else 0
        self.health = self.health._replace(failures=0, failure=None)  # before the outbox shows it to the agent
        store.ack(sent)
        self.health = self.health._replace(delivered=self.health.delivered + len(sent))
        self._news.delivered(waited)

    def _dead_letter(self, entries: Sequence[OutboxEntry], reason: str) -> None:
        """Take letters out of the way, one by one: each is written to the disk, and the agent may want to end."""
        for entry in entries:
            self._use_store(partial(StateStore.dead_letter, entry=entry, reason=reason))
        before, self.health = self.health, self.health._replace(dead_letters=self.health.dead_letters + len(entries))
        self._news.dead_letter(before.dead_letters, self.health.dead_letters, reason)

    def _fail(self, kind: str, reason: str, wait_s: float) -> None:
        """Count a failure, and wait."""
        self.health = self.health._replace(failures=self.health.failures + 1, failure=reason)
        self._news.failed(kind, reason)
        self._sleep(wait_s)

    def _idle(self) -> None:
        """Wait until there is something to do."""
        with self._turn:
            self._is_idle = not self._is_called
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._is_called or self._is_stopped, CHECK_EVERY_S)
            self._is_called = False

    def _sleep(self, wait_s: float) -> None:
        """Wait, whoever calls."""
        with self._turn:
            self._next_s = time.monotonic() + wait_s
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._is_stopped, wait_s)

    def _use_store(self, work: Callable[[StateStore], _Done]) -> _Done:
        """Use the ledger, unless the agent has gone on without this courier."""
        with self._ledger_is_ours:
            if self._is_left_behind:
                raise _LeftBehindError
            return work(self._ledger)


class _LeftBehindError(Exception):
    """The agent has gone on, and its ledger is no longer this courier's."""


class _DeliveryLog:
    """Tell the operator what changes, and nothing twice."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._told: set[str] = set()
        self._since_ns = 0

    def failed(self, kind: str, reason: str) -> None:
        """Tell the first failure of each kind."""
        if not self._told:
            self._since_ns = _boottime_ns()
        if kind not in self._told:
            self._told.add(kind)
            self._note(f"not delivered: {reason}; records are kept and sent again")

    def delivered(self, waited: int) -> None:
        """Tell that failures are over, and how many records had to wait."""
        if self._told:
            passed_s = (_boottime_ns() - self._since_ns) / NS_PER_S
            self._told.clear()
            self._note(f"delivered again after {format_duration(passed_s)}, {plural(waited, 'record')} waited")

    def dead_letter(self, before: int, after: int, reason: str) -> None:
        """Tell the first letter that was set aside, the tenth, the hundredth and so on."""
        if len(str(before)) < len(str(after)) or not before:
            those = "it" if after == 1 else "them"
            self._note(
                f"the database refuses {plural(after, 'record')} for good: {reason}; list {those} with "
                "`ntpaudit history dead-letters list`"
            )


def _kind(failure: Failure) -> str:
    """Name a failure so that those alike have one name."""
    return str(failure.status) if isinstance(failure, Refused) else failure.reason.partition(":")[0]


def _fitting(entries: Sequence[OutboxEntry]) -> Sequence[OutboxEntry]:
    """Return the first letters, as many as fit in a request: one at least."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.lines)
        if size > MAX_CHARACTERS and count:
            return entries[:count]
    return entries


def _boottime_ns() -> int:
    """Read the clock that counts suspended time too, and that nobody sets."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
