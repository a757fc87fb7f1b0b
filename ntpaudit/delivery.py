"""The delivery worker: sends the outbox to the database, in a thread, until every record is acknowledged."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core import delivery
from ntpaudit.core.clock.database_clock import DatabaseClock, read_date
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.record import Health
from ntpaudit.core.units import format_duration, plural
from ntpaudit.errors import ConfigError, StoreError
from ntpaudit.log import LazyLogger
from ntpaudit.store import outbox
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.state import StateStore

logger = LazyLogger(__name__)

MAX_CHARACTERS = 1 << 20  # the largest request, unless a single entry is larger: it is in memory three times
CHECK_EVERY_S = 60.0  # how often the outbox is checked without a wake-up


class Transport(Protocol):
    """A connection to the database."""

    date_s: int | None
    """The Date of the last reply to a write, in seconds since 1970; None where it had none, or there was none."""

    def write(self, lines: str) -> delivery.DeliveryResult:
        """Send line protocol stamped in nanoseconds, and return the reply."""

    def close(self) -> None:
        """Close the connection."""


def start_worker(
    store: StateStore, influxdb: InfluxConfig, token: str | None, read_clock: Callable[[], ClockReading] | None = None
) -> "DeliveryWorker":
    """Return a worker for the configured database; with `read_clock` it also measures the database's clock."""

    def open_transport() -> Transport:
        from ntpaudit.net.influxdb import InfluxTransport  # a slow import, so done in the worker's thread

        return InfluxTransport(influxdb, token)

    return DeliveryWorker(store, open_transport, read_clock=read_clock)


class DeliveryWorker:
    """Delivers outbox entries in order. An entry leaves the outbox only when the database has acknowledged it."""

    def __init__(
        self,
        store: StateStore,
        open_transport: Callable[[], Transport],
        rand: Callable[[], float] = random.random,
        read_clock: Callable[[], ClockReading] | None = None,
    ) -> None:
        """`rand` spreads the waits. Without `read_clock` the database's clock is not measured."""
        self._store = store
        self._open_transport = open_transport
        self._rand = rand
        self._read_clock = read_clock
        self._transport: Transport | None = None
        self._log = _DeliveryLog()
        self._retry = delivery.RetryState()
        self._oldest: OutboxEntry | None = None
        self._turn = threading.Condition()
        self._is_woken = self._is_idle = self._is_stopped = False
        self._next_s = 0.0
        self._store_lock = threading.Lock()
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self.delivered = self.dead_letters = 0
        self.health = Health()  # `failures`, `failure` and `refusals` of the delivery, replaced as a whole
        self.database_clock: DatabaseClock | None = None  # by the last reply, replaced as a whole
        self.crash: BaseException | None = None  # the error that ended the worker, to be raised in the main thread

    def start(self) -> None:
        """Start to deliver the outbox."""
        self._thread.start()

    def wake(self) -> None:
        """Wake the worker: there is a new entry."""
        with self._turn:
            self._is_woken, self._is_idle = True, False
            self._turn.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until the outbox is delivered; return False if that is not possible in time."""
        until_s = time.monotonic() + timeout_s
        self.wake()
        with self._turn:
            self._turn.wait_for(lambda: self._is_idle or self.crash or self._next_s > until_s, timeout_s)
            return self._is_idle and self.crash is None

    def stop(self, timeout_s: float) -> None:
        """Stop within this time. A request that takes longer is abandoned; its entries are sent again later."""
        until_s = time.monotonic() + timeout_s
        with self._turn:
            self._is_stopped = True
            self._turn.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        is_free = self._store_lock.acquire(timeout=max(0.0, until_s - time.monotonic()))
        self._is_abandoned = True
        if is_free:
            self._store_lock.release()

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                try:
                    self._deliver()
                except StoreError as error:
                    self._fail("state", str(error), delivery.MAX_WAIT_S / 10)
            if self._transport is not None:
                self._transport.close()
        except _AbandonedError:
            return
        except BaseException as error:  # a bug: raised again in the main thread
            self.crash = error
            with self._turn:
                self._turn.notify_all()

    def _deliver(self) -> None:
        with self._using_store() as store:
            entries = self._waiting(store)
        if not entries:
            self._idle()
            return
        oldest = entries[0]._replace(lines="")
        if oldest != self._oldest:  # the oldest was dropped for its age, or the store moved
            self._oldest, self._retry = oldest, self._retry.on_new_oldest()
        position = self._retry.next_position(len(entries), self._rand())
        sent = entries[position : position + 1] if position else _fitting(entries[: self._retry.size])
        lines = "".join(entry.lines for entry in sent)
        reply = self._send(lines)
        refusals = 0 if isinstance(reply, delivery.Delivered) else self.health.refusals + delivery.is_refusal(reply)
        self.health = self.health._replace(refusals=refusals)
        attempt = delivery.Attempt(len(sent), lines.count("\n"), position)
        self._retry, action = delivery.decide(self._retry, attempt, reply, self._rand())
        match action:
            case delivery.Ack():
                with self._using_store() as store:
                    self._ack(store, sent)
            case delivery.MoveToDeadLetters(count, reason):
                self._dead_letter(entries[:count], reason)
            case delivery.RetryAfter(wait_s):
                match reply:
                    case delivery.Delivered():  # of an entry other than the oldest
                        self._sleep(wait_s)
                    case delivery.Refused(status):
                        self._fail(str(status), delivery.describe(reply), wait_s)
                    case delivery.Unreachable(reason):
                        self._fail(reason.partition(":")[0], delivery.describe(reply), wait_s)

    def _waiting(self, store: StateStore) -> list[OutboxEntry]:
        """Return the oldest entries; while an entry is compared with others, also the newest."""
        entries = store.read(outbox.waiting, self._retry.lookahead)
        if self._retry.compares and len(entries) == self._retry.lookahead:
            newest = store.read(outbox.newest)
            if newest is not None and newest.id > entries[-1].id:
                entries.append(newest)
        return entries

    def _send(self, lines: str) -> delivery.DeliveryResult:
        if self._transport is None:
            try:
                self._transport = self._open_transport()
            except ConfigError as error:
                return delivery.Unreachable(str(error), sent=False)
        sent = None if self._read_clock is None else self._read_clock()
        reply = self._transport.write(lines)
        if self._read_clock is not None and sent is not None and (date_s := self._transport.date_s) is not None:
            self.database_clock = read_date(date_s, sent, self._read_clock()) or self.database_clock
        return reply

    def _ack(self, store: StateStore, sent: Sequence[OutboxEntry]) -> None:
        waited = store.read(outbox.backlog)[0] if self.health.failures else 0
        self.health = self.health._replace(failures=0, failure=None)  # before the agent sees the empty outbox
        store.ack(sent)
        self.delivered += len(sent)
        self._log.delivered(waited)

    def _dead_letter(self, entries: Sequence[OutboxEntry], reason: str) -> None:
        """Move entries to the dead letters, one by one: each is a disk write, and the agent may stop in between."""
        for entry in entries:
            with self._using_store() as store:
                store.write(outbox.dead_letter, entry, reason)
        before, self.dead_letters = self.dead_letters, self.dead_letters + len(entries)
        self._log.dead_letter(before, self.dead_letters, reason)

    def _fail(self, kind: str, reason: str, wait_s: float) -> None:
        self.health = self.health._replace(failures=self.health.failures + 1, failure=reason)
        self._log.failed(kind, reason, is_stored=not self._store.is_in_memory)
        self._sleep(wait_s)

    def _idle(self) -> None:
        with self._turn:
            self._is_idle = not self._is_woken
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._is_woken or self._is_stopped, CHECK_EVERY_S)
            self._is_woken = False

    def _sleep(self, wait_s: float) -> None:
        with self._turn:
            self._next_s = time.monotonic() + wait_s
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._is_stopped, wait_s)

    @contextmanager
    def _using_store(self) -> Iterator[StateStore]:
        with self._store_lock:
            if self._is_abandoned:
                raise _AbandonedError
            yield self._store


class _AbandonedError(Exception):
    """The agent has abandoned this worker, which must not use the store any more."""


class _DeliveryLog:
    """Logs changes of delivery, each once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._since_s = 0.0  # an uptime, suspends included

    def failed(self, kind: str, reason: str, *, is_stored: bool) -> None:
        if not self._logged:
            self._since_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        if kind not in self._logged:
            self._logged.add(kind)
            kept = "stored" if is_stored else "in memory only"
            logger.warning(f"delivery failed: {reason}; records are {kept} and sent again")

    def delivered(self, waited: int) -> None:
        if self._logged:
            passed_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._since_s
            self._logged.clear()
            logger.warning(f"delivery works again after {format_duration(passed_s)}; {plural(waited, 'record')} waited")

    def dead_letter(self, before: int, after: int, reason: str) -> None:
        """Log the first dead letter, the tenth, the hundredth and so on."""
        if len(str(before)) < len(str(after)) or not before:
            those = "it" if after == 1 else "them"
            logger.warning(
                f"the database refuses {plural(after, 'record')} permanently: {reason}; list {those} with "
                "`ntpaudit history dead-letters list`"
            )


def _fitting(entries: Sequence[OutboxEntry]) -> Sequence[OutboxEntry]:
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.lines)
        if size > MAX_CHARACTERS and count:
            return entries[:count]
    return entries
