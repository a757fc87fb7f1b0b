"""The delivery worker between the real store and real databases: every entry arrives once, whatever fails."""

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from ntpaudit import delivery
from ntpaudit.agent_store import AgentStore
from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.accounts import DAY
from ntpaudit.core.actions import CloseAccounts
from ntpaudit.core.delivery import CONFIRMATIONS_NEEDED, Delivered, Refused
from ntpaudit.core.delivery import DeliveryResult as Outcome
from ntpaudit.core.record import Health, HostIdentity
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.delivery import DeliveryWorker, start_worker
from ntpaudit.errors import ConfigError
from ntpaudit.formats.line_protocol import account_points
from ntpaudit.net.influxdb import InfluxTransport
from ntpaudit.probes.clock import SystemClock
from ntpaudit.store import outbox
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.queries import open_history
from ntpaudit.store.state import StateStore
from tests.histories import World, write
from tests.logs import Messages
from tests.store.audits import in_store
from tests.waiting import WITHIN_S, until
from tests.world.flaky import FORWARD, Answer, Fault, FlakyDatabase, Hang, Octets, Request, Reset, certificate
from tests.world.servers import influxd, victoria_metrics

TOKEN = "s3kret-t0ken-of-the-tests"
START_NS = 1_795_000_000 * 10**9
NEVER_S = 1e6


def entry(number: int, lines: str | None = None) -> OutboxEntry:
    """Return an entry of two lines, its number the value of both; `lines` replaces them."""
    stamp_ns = START_NS + number * 10**9
    tags = "host=web1,site=ams"
    clock = f'ntpaudit_clock,{tags} offset_s={number}.5,text="ü" {stamp_ns}\n'
    return OutboxEntry(
        0, lines or f"{clock}ntpaudit_source,{tags} delay_s=1.0 {stamp_ns}\n", stamp_ns, "boot", number, stamp_ns
    )


def post(store: StateStore, *entries: OutboxEntry) -> None:
    """Put entries into the outbox, in one transaction."""

    def work(connection: Any) -> None:
        for each in entries:
            outbox.enqueue(connection, each, None)

    in_store(store, work)


def until_left(store: StateStore, count: int = 0) -> None:
    """Wait until the outbox has `count` entries, as long as some leave it."""
    until(lambda: store.read(outbox.backlog)[0] == count, progress=lambda: store.read(outbox.backlog))


def dead_letters(store: StateStore) -> list[tuple[str, str]]:
    """Return the dead letters, each with the reason."""
    return in_store(store, lambda connection: connection.execute("SELECT lines, reason FROM set_aside").fetchall())


def query(url: str, text: str) -> dict[str, Any]:
    """Ask InfluxDB, and return its first answer."""
    with urlopen(f"{url}/query?db=ntpaudit&epoch=ns&q={quote(text)}", data=b"", timeout=WITHIN_S) as got:
        result: dict[str, Any] = json.load(got)["results"][0]
    return result


def clock_points(url: str) -> dict[int, float]:
    """Return the offset of every point of the clock in InfluxDB, by its time."""
    result = query(url, "SELECT offset_s FROM ntpaudit_clock")
    return dict(result["series"][0]["values"]) if "series" in result else {}


def expected(numbers: range) -> dict[int, float]:
    """Return the points of entries with these numbers."""
    return {START_NS + number * 10**9: number + 0.5 for number in numbers}


@pytest.fixture(scope="module")
def influxdb() -> Iterator[str]:
    """One InfluxDB for all."""
    with influxd() as url:
        yield url


@pytest.fixture
def database(influxdb: str) -> Iterator[FlakyDatabase]:
    """The InfluxDB, empty, behind a server that can misbehave."""
    query(influxdb, "DROP MEASUREMENT ntpaudit_clock; DROP MEASUREMENT ntpaudit_source")
    with FlakyDatabase(influxdb) as flaky:
        yield flaky


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    """A store of the test's own, without errors."""
    notes = Messages("ntpaudit.store")
    store = StateStore(str(tmp_path / "history.sqlite3"))
    yield store
    store.close()
    assert notes == []


class DeliveryLog(Messages):
    """What the worker logs; none of it may contain the token."""

    def __init__(self) -> None:
        super().__init__("ntpaudit.delivery")

    def append(self, text: str) -> None:
        """Check and keep a message."""
        assert TOKEN not in text
        assert text.isprintable()
        super().append(text)


@pytest.fixture(autouse=True)
def log_without_token() -> Iterator[None]:
    """No worker of a test logs the token."""
    logged = DeliveryLog()
    yield
    assert all(TOKEN not in text for text in logged)


@contextmanager
def worker_for(
    store: StateStore,
    url: str,
    *,
    timeout_s: float = 0.5,
    rand: float | Callable[[], float] | None = 0.0,
    token: str | None = TOKEN,
    **more: Any,
) -> Iterator[DeliveryWorker]:
    """Run a worker that hardly waits between attempts; it must not have crashed, nor take long to stop."""
    chances: dict[str, Any] = {} if rand is None else {"rand": rand if callable(rand) else lambda: rand}

    def transport() -> InfluxTransport:
        return InfluxTransport(InfluxConfig(url, timeout_s=timeout_s, **more), token)

    worker = DeliveryWorker(store, transport, **chances)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(5.0)
        assert worker.crash is None


# --- everything arrives, once, in order ---------------------------------------------------------------------------


FAULTS: dict[str, Fault] = {
    "500": Answer(500, '{"error":"timeout"}'),
    "502 page": Answer(502, "<html><body>Bad Gateway</body></html>"),
    "503": Answer(503),
    "503, at once": Answer(503, "", (("Retry-After", "0"),)),
    "507": Answer(507, "insufficient storage"),
    "disk full": Answer(500, '{"error":"engine: error writing WAL entry: write: no space left on device"}'),
    "429": Answer(429, '{"code":"too many requests","message":"org is over its limit"}'),
    "408": Answer(408),
    "400 of another": Answer(400, "<html>400 Bad Request</html>"),
    "echo": Answer(500, f"Authorization: Token {TOKEN}\x1b[2J\r\n"),
    "reset before": Reset("before"),
    "reset after": Reset("after"),
    "reset in the middle": Reset("middle"),
    "hangs": Hang(),
    "hangs, stored": Hang(stored=True),
    "closes": Octets(b""),
    "drips": Octets(b"HTTP/1.1 204 No Content\r\n\r\n", 0.2),
    "garbage": Octets(bytes(range(256)) * 4),
    "not HTTP": Octets(b"-ERR unknown command\r\n"),
    "cut status": Octets(b"HTTP/1.1 20"),
    "cut good status": Octets(b"HTTP/1.1 204 No Conte"),
    "cut headers": Octets(b"HTTP/1.1 204 No Content\r\nX-Influxdb-Build: O"),
    "bad length": Octets(b"HTTP/1.1 500 No\r\nContent-Length: -7\r\n\r\nno"),
    "bad chunks": Octets(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nno"),
    "long header": Octets(b"HTTP/1.1 500 No\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
    "not UTF-8": Octets(b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\n\xff\xfe"),
    "endless": Octets(b"HTTP/1.1 500 No\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 3_000_000),
    "deep": Answer(500, "[" * 50_000),
}
"""Every misbehaviour that passes by itself."""

WAITED_OUT = ("hangs", "hangs, stored", "drips")
"""Those that only the time-out ends; for all others a busy machine gets time."""


@pytest.mark.parametrize("fault", FAULTS)
def test_every_entry_arrives_once(
    fault: str, store: StateStore, database: FlakyDatabase, influxdb: str, capfd: Any
) -> None:
    """After any misbehaviour each entry is stored once, none was removed before, and no secret was logged."""
    logged, oldest = DeliveryLog(), []

    def choose(request: Request) -> Fault:
        stamps = [int(line.rsplit(" ", 1)[1]) for line in request.lines.splitlines()]
        assert stamps == sorted(stamps)
        waiting = store.read(outbox.waiting, 1)
        oldest.append(bool(waiting) and waiting[0].stamp_ns == stamps[0])
        return FAULTS[fault] if len(oldest) <= 2 else FORWARD

    database.choose = choose
    post(store, *map(entry, range(200)))
    timeout_s = 0.5 if fault in WAITED_OUT else WITHIN_S
    with worker_for(store, database.url, timeout_s=timeout_s) as worker:
        until_left(store)
        until(lambda: worker.health.failures == 0)
        assert worker.delivered == 200
    assert clock_points(influxdb) == expected(range(200))
    assert all(oldest)
    assert dead_letters(store) == []
    assert len(logged) == 2
    assert logged[0].startswith("delivery failed: ")
    assert logged[1].startswith("delivery works again after ")
    assert "200 records waited" in logged[1]
    assert capfd.readouterr() == ("", "")


def test_a_server_that_refuses_connections(store: StateStore, database: FlakyDatabase, influxdb: str) -> None:
    """A database that is away for a while gets everything when it is back, the latest included."""
    logged = DeliveryLog()
    database.refuse()
    post(store, *map(entry, range(2500)))
    with worker_for(store, database.url, rand=0.02) as worker:
        until(lambda: worker.health.failures >= 3)
        assert worker.health.failure == (
            "no connection: Connection refused; start the database, or check influxdb.url and firewalls"
        )
        post(store, entry(2500))
        database.listen()
        until_left(store)
    assert clock_points(influxdb) == expected(range(2501))
    assert len(logged) == 2
    assert "2501 records waited" in logged[1]


def test_a_history_deleted_in_an_outage_loses_nothing(tmp_path: Path, database: FlakyDatabase, influxdb: str) -> None:
    """What waits is carried over into each new file, is in it before the agent can be killed, and arrives once."""
    notes = Messages("ntpaudit.store")
    path = tmp_path / "history.sqlite3"
    store = StateStore(str(path))
    database.refuse()
    with worker_for(store, database.url, rand=0.02) as worker:
        for first in range(0, 200, 50):
            post(store, *map(entry, range(first, first + 50)))
            worker.wake()
            until(lambda: worker.health.failures >= 2)
            for part in path.parent.iterdir():
                part.unlink()
        database.listen()
        until_left(store)
    store.close()
    assert clock_points(influxdb) == expected(range(200))
    assert sum("was removed or replaced" in note for note in notes) == 4


def test_a_backlog_goes_in_its_order_and_in_batches(store: StateStore, database: FlakyDatabase, influxdb: str) -> None:
    """A backlog is delivered oldest first, over one connection, in requests of at most 1000 entries and 1 MiB."""
    large = [entry(number, entry(number).lines.replace("ü", "ü" * 3000)) for number in range(1000)]
    post(store, *large, *map(entry, range(1000, 5000)))
    with worker_for(store, database.url, timeout_s=WITHIN_S):
        until_left(store)
    stamps = [int(line.rsplit(" ", 1)[1]) for request in database.requests for line in request.lines.splitlines()]
    assert stamps == sorted(stamps)
    assert len(stamps) == 10_000
    assert all(request.lines.count("\n") <= 2000 for request in database.requests)
    assert all(len(request.lines) <= 1 << 20 for request in database.requests)
    packed = [request.headers.get("content-encoding") for request in database.requests]
    assert packed == [None, *["gzip"] * (len(packed) - 1)]  # once InfluxDB has shown that it is one
    assert database.connections == 1
    assert clock_points(influxdb) == expected(range(5000))


def test_what_is_new_is_delivered_at_once(
    store: StateStore, database: FlakyDatabase, influxdb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record goes to the database because the worker is woken: here it never checks the outbox unasked.

    No record needs a connection of its own.
    """
    monkeypatch.setattr(delivery, "CHECK_EVERY_S", NEVER_S)
    with worker_for(store, database.url, rand=None) as worker:
        for number in range(5):
            until(lambda: worker.drain(1.0))
            post(store, entry(number))
            worker.wake()
            until_left(store)
    assert clock_points(influxdb) == expected(range(5))
    assert database.connections == 1


def test_an_entry_without_a_time_is_waited_for(store: StateStore, database: FlakyDatabase, influxdb: str) -> None:
    """An entry without a known time delays those behind it, so that the order is kept."""
    post(store, entry(0)._replace(stamp_ns=None), entry(1))
    with worker_for(store, database.url) as worker:
        assert worker.drain(5.0)
        assert database.requests == []
        (undated,) = store.read(outbox.unstamped)
        store.write(outbox.stamp_entries, [undated._replace(stamp_ns=START_NS)], [], "")
        worker.wake()
        until_left(store)
    assert clock_points(influxdb) == expected(range(2))


# --- what only an operator can fix --------------------------------------------------------------------------------


OPERATOR: dict[str, tuple[Answer, str]] = {
    "401": (Answer(401, '{"code":"unauthorized","message":"unauthorized access"}'), "systemctl restart"),
    "403": (Answer(403, '{"code":"forbidden","message":"insufficient permissions"}'), "permission"),
    "404": (Answer(404, "404 page not found"), "influxdb.url"),
    "301": (Answer(301, "", (("Location", "{elsewhere}"),)), "influxdb.url"),
    "307": (Answer(307, "", (("Location", "{elsewhere}"),)), "influxdb.url"),
    "200": (Answer(200, "<html>Welcome to this hotel"), "influxdb.url"),
    "405": (Answer(405, "Method Not Allowed"), "405"),
}


@pytest.mark.parametrize("case", OPERATOR)
def test_what_an_operator_must_fix_loses_nothing(
    case: str, store: StateStore, database: FlakyDatabase, influxdb: str
) -> None:
    """A wrong token, bucket or URL is logged once with the fix and retried seldom; once fixed, everything arrives."""
    answer, fix = OPERATOR[case]
    logged = DeliveryLog()
    post(store, *map(entry, range(20)))
    with FlakyDatabase(influxdb) as elsewhere:
        headers = tuple((name, value.format(elsewhere=f"{elsewhere.url}/x")) for name, value in answer.headers)
        database.choose = lambda request: answer._replace(headers=headers)
        with worker_for(store, database.url) as worker:
            until(lambda: worker.health.failures)
            worker.wake()
            assert not worker.drain(5.0)
            assert len(database.requests) == 1
        assert elsewhere.requests == []  # neither lines nor token follow a redirect
    assert store.read(outbox.backlog)[0] == 20
    assert len(logged) == 1
    assert fix in logged[0]
    database.choose = lambda request: FORWARD
    with worker_for(store, database.url):
        until_left(store)
    assert clock_points(influxdb) == expected(range(20))


def test_a_missing_database_is_reported(store: StateStore, database: FlakyDatabase) -> None:
    """A bucket that is not there, InfluxDB's own 404, is for the operator to create."""
    logged = DeliveryLog()
    post(store, entry(0))
    with worker_for(store, database.url, bucket="nowhere") as worker:
        until(lambda: worker.health.failures)
    assert 'database not found: "nowhere"' in logged[0]
    assert "create the bucket" in logged[0]
    assert store.read(outbox.backlog)[0] == 1


def test_an_influxdb_without_the_write_path_is_recognised(store: StateStore, influxdb: str) -> None:
    """InfluxDB before 1.8 lacks the path, not the database: the message names its version and what to do."""
    logged = DeliveryLog()
    post(store, entry(0))
    with worker_for(store, influxdb) as worker:
        until(lambda: worker.health.failures)
    assert "404 page not found by InfluxDB 1.6" in logged[0]
    assert "upgrade it to InfluxDB 1.8 or later, or put a proxy before it" in logged[0]
    assert "create the bucket" not in logged[0]
    assert store.read(outbox.backlog)[0] == 1


def test_a_token_that_cannot_be_sent_is_not_logged(store: StateStore, database: FlakyDatabase) -> None:
    """A token with a line break is refused without being shown."""
    logged = DeliveryLog()
    post(store, entry(0))
    with worker_for(store, database.url, token=f"{TOKEN}\nX: y") as worker:
        until(lambda: worker.health.failures)
    assert "token" in logged[0]
    with pytest.raises(ConfigError) as refused:
        InfluxTransport(InfluxConfig(database.url), f"{TOKEN}ü")
    assert TOKEN not in str(refused.value)


# --- poison -------------------------------------------------------------------------------------------------------


CONFLICT = f"ntpaudit_clock,host=web1,site=ams offset_s=7i {START_NS}\n"


def any_other() -> Callable[[], float]:
    """Return a chance that picks any entry to compare with, and never waits: a worker takes both in turn."""
    some = random.Random(11)
    chances = (rand for _ in itertools.count() for rand in (some.random(), 0.0))
    return lambda: next(chances)


def test_a_refused_entry_becomes_a_dead_letter_and_blocks_nothing(
    store: StateStore, database: FlakyDatabase, influxdb: str
) -> None:
    """Lines that InfluxDB refuses for ever become dead letters with its reason, and are logged."""
    logged, entries = DeliveryLog(), list(map(entry, range(1000)))
    entries[0] = entry(0)
    entries[17] = entry(17, CONFLICT)
    entries[500] = entry(500, "no line protocol\n")
    entries[501] = entry(501, entry(501).lines + "ntpaudit_clock offset_s=\n")
    entries[999] = entry(999, CONFLICT)
    post(store, entries[0])
    with worker_for(store, database.url, timeout_s=WITHIN_S, rand=any_other()) as worker:
        until_left(store)
        post(store, *entries[1:])
        worker.wake()
        until_left(store, 1)
        assert worker.dead_letters == 3
        until(lambda: worker.health.failures)
        assert worker.health.refusals > 1
        assert worker.dead_letters == 3  # the last one may as well be the database's fault
        post(store, entry(1000))  # which takes another one
        until_left(store)
        assert worker.dead_letters == 4
        assert worker.health.refusals == 0
        assert worker.health.failures == 0
    assert [lines for lines, _ in dead_letters(store)] == [entries[number].lines for number in (17, 500, 501, 999)]
    assert "type conflict" in dead_letters(store)[0][1]
    assert "unable to parse" in dead_letters(store)[1][1]
    stored = expected(range(1001))
    for number in (17, 500, 999):  # of 501 InfluxDB has stored what it could read
        del stored[START_NS + number * 10**9]
    assert clock_points(influxdb) == stored
    assert len(logged) == 3
    assert logged[0].startswith("the database refuses 1 record permanently: 400: ")
    assert logged[0].endswith("; list it with `ntpaudit history dead-letters list`")
    assert logged[1].startswith("delivery failed: 400: ")
    assert logged[2].startswith("delivery works again after ")


def test_where_nothing_waits_no_failure_is_left(
    store: StateStore, database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is over before the last record leaves the outbox: the agent never sees the one without the other."""
    database.choose = lambda request: Answer(503, "") if len(database.requests) < 3 else FORWARD
    seen: list[tuple[int, int, str | None]] = []

    def confirm(entries: Sequence[OutboxEntry]) -> None:
        StateStore.ack(store, entries)
        seen.append((store.read(outbox.backlog)[0], worker.health.failures, worker.health.failure))

    monkeypatch.setattr(store, "ack", confirm)
    post(store, entry(0))
    with worker_for(store, database.url) as worker:
        until(lambda: seen)
    assert seen == [(0, 0, None)]


def test_what_is_too_old_becomes_a_dead_letter_at_once(store: StateStore, influxdb: str) -> None:
    """Entries older than the database keeps are refused as a whole, and become dead letters a batch at a time."""
    query(influxdb, "CREATE DATABASE brief WITH DURATION 1h")
    post(store, *map(entry, range(-40_000_000, -39_999_000)), entry((time.time_ns() - START_NS) // 10**9))
    with (
        FlakyDatabase(influxdb) as database,
        worker_for(store, database.url, timeout_s=WITHIN_S, bucket="brief"),
    ):
        until(lambda: store.read(outbox.backlog) == (0, None, 1000))
        assert (
            len(database.requests) == 2 * CONFIRMATIONS_NEEDED + 3
        )  # the first compressed one that is refused goes uncompressed too
    assert all("retention policy" in reason for _, reason in dead_letters(store))


def test_a_proxy_that_strips_the_encoding_costs_no_record(
    store: StateStore, database: FlakyDatabase, influxdb: str
) -> None:
    """InfluxDB cannot parse compressed lines that are not called so; they are sent as they are from then on."""
    logged = DeliveryLog()
    post(store, entry(0))
    with worker_for(store, database.url, timeout_s=WITHIN_S) as worker:
        until_left(store)
        post(store, entry(1))
        worker.wake()
        until_left(store)
        assert database.requests[-1].headers["content-encoding"] == "gzip"
        database.strips_encoding = True
        post(store, *map(entry, range(2, 75)))
        worker.wake()
        until_left(store)
        assert [request.headers.get("content-encoding") for request in database.requests[-4:]].count("gzip") <= 2
        before = len(database.requests)
        post(store, *map(entry, range(75, 80)))
        worker.wake()
        until_left(store)
        assert [request.headers.get("content-encoding") for request in database.requests[before:]] == [None]
    assert clock_points(influxdb) == expected(range(80))
    assert dead_letters(store) == []
    assert logged == []


def test_a_proxy_that_strips_the_encoding_in_front_of_victoria_metrics(store: StateStore) -> None:
    """It answers 204 to lines that it cannot read, so it never gets any that could be misread."""
    post(store, *map(entry, range(20)))
    with victoria_metrics() as url, FlakyDatabase(url) as database:
        database.strips_encoding = True
        with worker_for(store, database.url, timeout_s=WITHIN_S) as worker:
            until_left(store)
            post(store, *map(entry, range(20, 40)))
            worker.wake()
            until_left(store)
        assert samples(url) == 40


def test_lines_that_a_server_took_without_a_check_are_sent_again(store: StateStore, database: FlakyDatabase) -> None:
    """Where another server answers 204 to compressed lines than the one that was known, it may have misread them."""
    post(store, entry(0))
    with worker_for(store, database.url, timeout_s=WITHIN_S) as worker:
        until_left(store)
        database.choose = lambda request: Answer(204)
        post(store, entry(1))
        worker.wake()
        until_left(store)
    assert [request.headers.get("content-encoding") for request in database.requests] == [None, "gzip", None]


class Chooser:
    """A transport that asks a function what to answer; the Date of its answers is not known."""

    date_s: int | None = None

    def __init__(self, answer: Callable[[str], Outcome]) -> None:
        self._answer = answer

    def write(self, lines: str) -> Outcome:
        """Answer as the function does."""
        return self._answer(lines)

    def close(self) -> None:
        """There is nothing to close."""


def test_failures_of_an_entry_do_not_count_for_the_next(store: StateStore) -> None:
    """If an entry that was refused again and again is gone, the next is no dead letter at its first refusal."""
    post(store, *map(entry, range(1, 5)))
    first = entry(1).lines
    accepted: list[str] = []
    refused_next: list[str] = []

    def answer(lines: str) -> Outcome:
        if first in lines:
            return Refused(400, "unable to parse")
        if len(accepted) == CONFIRMATIONS_NEEDED and not refused_next:
            refused_next.append(lines)
            return Refused(400, "unable to parse")
        accepted.append(lines)
        if len(accepted) == CONFIRMATIONS_NEEDED:
            in_store(store, lambda connection: connection.execute("DELETE FROM outbox WHERE lines = ?", (first,)))
        return Delivered()

    logged = DeliveryLog()
    worker = DeliveryWorker(store, lambda: Chooser(answer), rand=lambda: 0.0)
    worker.start()
    assert worker.drain(WITHIN_S)
    worker.stop(WITHIN_S)
    assert logged == []
    assert refused_next == [entry(2).lines]
    assert dead_letters(store) == []
    assert worker.delivered == 3


def test_a_database_that_refuses_everything_makes_no_dead_letter(store: StateStore, database: FlakyDatabase) -> None:
    """Whatever the error says about the lines, records wait, and the refusals are counted."""
    logged = DeliveryLog()
    database.choose = lambda request: Answer(400, '{"error":"unable to parse: missing fields"}')
    post(store, *map(entry, range(73)))
    with worker_for(store, database.url, timeout_s=WITHIN_S) as worker:
        until(lambda: worker.health.failures >= 3)
        assert worker.health.refusals > 10
    assert store.read(outbox.backlog) == (73, START_NS, 0)
    assert len(logged) == 1
    assert "delivery failed: 400: unable to parse" in logged[0]


POISONED: Fault = Reset("before")


def test_an_entry_that_breaks_the_server_becomes_a_dead_letter(
    store: StateStore, database: FlakyDatabase, influxdb: str
) -> None:
    """An entry on which the connection is reset each time, while others arrive, is not waited for for ever."""
    database.choose = lambda request: POISONED if "poison" in request.lines else FORWARD
    entries = list(map(entry, range(60)))
    entries[30] = entry(30, entry(30).lines.replace("ü", "poison"))
    post(store, *entries)
    chances = iter([0.7, 0.0] * 10_000)  # another entry is sent whenever it may be, without a wait

    def chance() -> float:
        return next(chances)

    worker = DeliveryWorker(store, lambda: InfluxTransport(InfluxConfig(database.url), None), chance)
    worker.start()
    until_left(store)
    worker.stop(1.0)
    assert worker.crash is None
    assert [lines for lines, _ in dead_letters(store)] == [entries[30].lines]
    assert clock_points(influxdb) == {key: value for key, value in expected(range(60)).items() if value != 30.5}


def test_a_request_that_is_too_large_is_split(store: StateStore, database: FlakyDatabase, influxdb: str) -> None:
    """A server with its own limit gets smaller batches; a single larger entry becomes a dead letter."""

    def choose(request: Request) -> Fault:
        return FORWARD if len(request.lines) <= 5000 else Answer(413, "<html>413 Request Entity Too Large</html>")

    database.choose = choose
    entries = list(map(entry, range(500)))
    entries[250] = entry(250, entry(250).lines.replace("ü", "x" * 6000))
    post(store, *entries)
    with worker_for(store, database.url):
        until_left(store)
    assert [lines for lines, _ in dead_letters(store)] == [entries[250].lines]
    assert len(clock_points(influxdb)) == 499


# --- ending, waiting, breaking ------------------------------------------------------------------------------------


def test_a_hanging_request_does_not_hold_the_agent(store: StateStore, database: FlakyDatabase, influxdb: str) -> None:
    """`stop` ends in its time whatever the server does; what it left behind never touches the store again."""
    logged, release = DeliveryLog(), threading.Event()
    released: list[bool] = []

    def choose(request: Request) -> Fault:
        released.append(release.wait(WITHIN_S))
        return FORWARD

    database.choose = choose
    post(store, *map(entry, range(10)))
    worker = DeliveryWorker(store, lambda: InfluxTransport(InfluxConfig(database.url), None))
    worker.start()
    until(lambda: database.requests)
    worker.stop(0.5)
    assert released == []  # the server is still at it
    release.set()
    until(lambda: len(clock_points(influxdb)) == 10)
    time.sleep(0.2)
    assert store.read(outbox.backlog)[0] == 10
    database.choose = lambda request: FORWARD
    with worker_for(store, database.url):
        until_left(store)
    assert clock_points(influxdb) == expected(range(10))
    assert logged == []


def test_stop_ends_a_wait(store: StateStore) -> None:
    """A worker that waits for an operator, or for entries, or that was never started, ends at once."""
    post(store, entry(0))

    def refuse() -> InfluxTransport:
        raise ConfigError("no such luck")

    for transport in (refuse, lambda: InfluxTransport(InfluxConfig("http://127.0.0.1:9"), None)):
        worker = DeliveryWorker(store, transport, lambda: 0.999)
        worker.start()
        until(lambda: worker.health.failures)  # noqa: B023
        began = time.monotonic()
        worker.stop(WITHIN_S)
        assert time.monotonic() - began < WITHIN_S / 2
        assert worker.crash is None
    DeliveryWorker(store, refuse).stop(1.0)


def test_drain_waits_for_the_last_entry(store: StateStore, database: FlakyDatabase, influxdb: str) -> None:
    """`drain` says True once all has arrived, and False without waiting where that cannot be in time."""
    post(store, *map(entry, range(2000)))
    with worker_for(store, database.url) as worker:
        assert worker.drain(WITHIN_S)
        assert store.read(outbox.backlog)[0] == 0
        assert clock_points(influxdb) == expected(range(2000))
        database.choose = lambda request: Answer(401)
        post(store, entry(2000))
        began = time.monotonic()
        assert not worker.drain(WITHIN_S)
        assert time.monotonic() - began < WITHIN_S / 2


def test_a_bug_is_not_silent(store: StateStore) -> None:
    """An unforeseen error ends the worker, and is there for the agent to raise."""

    class Broken:
        date_s: int | None = None

        def write(self, lines: str) -> Outcome:
            raise ZeroDivisionError(len(lines))

        def close(self) -> None:
            """Nothing is open."""

    post(store, entry(0))
    worker = DeliveryWorker(store, Broken)
    worker.start()
    assert not worker.drain(WITHIN_S)
    assert isinstance(worker.crash, ZeroDivisionError)
    assert store.read(outbox.backlog)[0] == 1
    worker.stop(1.0)


def test_what_is_in_memory_only_is_not_called_stored(tmp_path: Path) -> None:
    """Where the state folder cannot be used, nothing is stored, and the message about a failure does not claim it."""
    (tmp_path / "file").write_text("not a folder")
    store = StateStore(str(tmp_path / "file" / "history.sqlite3"))
    post(store, entry(0))
    logged = DeliveryLog()
    with worker_for(store, "http://127.0.0.1:9") as worker:
        until(lambda: worker.health.failures)
    store.close()
    assert logged[0].endswith("; records are in memory only and sent again")


def test_each_kind_of_failure_is_logged_once(store: StateStore, database: FlakyDatabase) -> None:
    """A long outage is a line for each kind of failure and one for its end, not one for each attempt."""
    faults: list[Fault] = [Answer(500), Answer(503), Reset("before")]
    logged, answers = DeliveryLog(), iter(faults * 20)
    database.choose = lambda request: next(answers, FORWARD)
    post(store, entry(0))
    with worker_for(store, database.url):
        until_left(store)
    assert len(logged) == 4
    assert logged[3].endswith("1 record waited")


# --- TLS ----------------------------------------------------------------------------------------------------------


def test_tls_is_verified(store: StateStore, influxdb: str) -> None:
    """A certificate that the authority named has not signed, or of another name, gets neither token nor lines."""
    with (
        certificate() as (server, trusted),
        certificate() as (_, other),
        certificate("DNS:elsewhere.example") as (misnamed, its_own),
        FlakyDatabase(influxdb, tls=server) as good,
        FlakyDatabase(influxdb, tls=misnamed) as wrong,
    ):
        post(store, entry(0))
        authority, name, file = "authority that signed", "another server's", "influxdb.ca_file"
        for url, ca_file, fix in (
            (good.url, None, authority),
            (good.url, str(other), authority),
            (wrong.url, str(its_own), name),
            (good.url, "/none", file),
        ):
            logged = DeliveryLog()
            with worker_for(store, url, ca_file=ca_file) as worker:
                until(lambda: worker.health.failures)
            assert "TLS failed" in logged[0]
            assert fix in logged[0]
        assert "ca_file" in logged[0]
        assert good.requests == wrong.requests == []
        with worker_for(store, good.url, ca_file=str(trusted)):
            until_left(store)
        assert good.requests[0].headers["authorization"] == f"Token {TOKEN}"


def test_a_drip_through_tls_is_cut(store: StateStore, influxdb: str) -> None:
    """A server that answers an octet at a time is given up through TLS as well."""
    with certificate() as (server, trusted), FlakyDatabase(influxdb, tls=server) as database:
        answers: Iterator[Fault] = iter([Octets(b"HTTP/1.1 204 No Content\r\n\r\n", 0.2)] * 2)
        database.choose = lambda request: next(answers, FORWARD)
        post(store, entry(0))
        with worker_for(store, database.url, ca_file=str(trusted)):
            until_left(store)


# --- by configuration, and to VictoriaMetrics ---------------------------------------------------------------------


def test_a_worker_of_a_configuration(store: StateStore, database: FlakyDatabase, influxdb: str) -> None:
    """URL with a path, organisation, bucket and token go where InfluxDB 2 looks for them."""
    post(store, entry(0))
    worker = start_worker(store, InfluxConfig(f"{database.url}/in/flux", org="a & b"), TOKEN)
    worker.start()
    assert worker.drain(WITHIN_S)
    worker.stop(1.0)
    (request,) = database.requests
    assert request.target == "/in/flux/api/v2/write?org=a+%26+b&bucket=ntpaudit&precision=ns"
    assert request.headers["authorization"] == f"Token {TOKEN}"
    assert clock_points(influxdb) == expected(range(1))


def test_the_database_clock_is_read_from_a_write(store: StateStore) -> None:
    """The Date of a real database's answer holds the true offset, which is none: it is on this machine."""
    post(store, entry(0))
    with victoria_metrics() as url:
        worker = start_worker(store, InfluxConfig(url), None, SystemClock().read)
        worker.start()
        assert worker.drain(WITHIN_S)
        worker.stop(1.0)
    learnt = worker.database_clock
    assert learnt is not None
    assert learnt.interval.covers(0)
    assert learnt.interval.half_width_ns >= 10**9


@pytest.mark.parametrize("status", [204, 401, 503])
def test_a_refusal_shows_the_database_clock_too(status: int, store: StateStore) -> None:
    """Every response has a date; one that is invalid, or missing, shows nothing."""
    date = ("Date", format_datetime(datetime.now(UTC) - timedelta(hours=3), usegmt=True))
    post(store, entry(0))
    answers: list[Fault] = [Answer(status, headers=(date,)), Answer(503, headers=(("Date", "soon"),)), Reset("before")]
    with FlakyDatabase(choose=lambda request: answers[0]) as database:
        transport = InfluxTransport(InfluxConfig(database.url), None)
        transport.write("a b=1 1\n")
        assert transport.date_s == pytest.approx(time.time() - 3 * 3600, abs=30)
        for answer in answers[1:]:
            answers[0] = answer
            transport.write("a b=1 1\n")
            assert transport.date_s is None
        transport.close()


def samples(url: str) -> int:
    """Return how many samples of the clock's offset VictoriaMetrics has."""
    with urlopen(f"{url}/internal/force_flush", timeout=WITHIN_S) as _:
        pass
    with urlopen(f"{url}/api/v1/export?match[]=ntpaudit_clock_offset_s", timeout=WITHIN_S) as got:
        return sum(len(json.loads(line)["values"]) for line in got)


@pytest.mark.parametrize(("flags", "copies"), [((), 2), (("-dedup.minScrapeInterval=1ms",), 1)])
def test_victoria_metrics(flags: tuple[str, ...], copies: int, store: StateStore) -> None:
    """VictoriaMetrics gets every entry; one sent again counts twice there, unless it drops duplicates."""
    post(store, *map(entry, range(500)))
    with victoria_metrics(*flags) as url, FlakyDatabase(url) as database:
        with worker_for(store, url):
            until_left(store)
        assert samples(url) == 500
        answers: Iterator[Fault] = iter([Reset("after")])
        database.choose = lambda request: next(answers, FORWARD)
        post(store, *map(entry, range(500, 510)))
        with worker_for(store, database.url):
            until_left(store)
        until(lambda: samples(url) >= 500 + 10 * copies)
        assert samples(url) == 500 + 10 * copies


def test_hours_and_days_in_victoria_metrics(tmp_path: Path) -> None:
    """Each number of each account arrives, with the stamp of its beginning; so do the excursions."""
    path = tmp_path / "history.sqlite3"
    begin_ns = (time.time_ns() // (24 * 3600 * NS_PER_S) - 2) * 24 * 3600 * NS_PER_S
    world = World(begin_ns=begin_ns, health=Health(local_s=300.0), stepped_s=lambda minute: 9.0 * (60 < minute < 200))
    write(path, world, range(0, 26 * 60, 5))
    store, host = StateStore(str(path)), HostIdentity("web1", None, None, None, None)
    closes = CloseAccounts(host, begin_ns)
    AgentStore(store).close_accounts(closes, delivers=True)
    with victoria_metrics() as url:
        with worker_for(store, url):
            until_left(store)
        with urlopen(f"{url}/internal/force_flush", timeout=WITHIN_S) as _:
            pass
        with urlopen(f'{url}/api/v1/export?match[]={{__name__=~"ntpaudit_.*"}}', timeout=WITHIN_S) as got:
            series = [json.loads(line) for line in got]
    arrived: dict[tuple[str, str | None, int], float] = {}
    for one in series:
        for stamp_ms, value in zip(one["timestamps"], one["values"], strict=True):
            key = (one["metric"]["__name__"], one["metric"].get("state"), stamp_ms)
            arrived[key] = max(value, arrived.get(key, value))  # an excursion that went on has one for each hour
    with open_history(str(path)) as history:
        hours = history.accounts(HOUR_S, None, None, begin_ns + 25 * HOUR_S * NS_PER_S)
        days = history.accounts(DAY, None, begin_ns + 1, begin_ns + 25 * HOUR_S * NS_PER_S)
    store.close()
    assert (len(hours), len(days)) == (25, 1)
    points = [point for account in (*hours, *days) for point in account_points(account, host)]
    assert {point.measurement for point in points} == {"ntpaudit_hour", "ntpaudit_day", "ntpaudit_excursion"}
    last = {(point.measurement, point.tags.get("state"), point.stamp_ns): point for point in points}
    for (measurement, state, stamp_ns), point in last.items():
        for name, value in point.fields.items():
            if isinstance(value, int | float) and measurement != "ntpaudit_excursion":
                assert arrived[f"{measurement}_{name}", state, (stamp_ns or 0) // 10**6] == pytest.approx(value), name
    assert max(value for (name, *_), value in arrived.items() if name == "ntpaudit_excursion_duration_s") == max(
        one.duration_s for hour in hours for one in hour.excursions
    )
