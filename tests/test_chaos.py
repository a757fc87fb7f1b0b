"""The agent is killed two hundred times while its database comes and goes: nothing is lost, nothing there twice."""

import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

from ntpaudit.core.accounting import Spans
from ntpaudit.core.accounts import DAY, Account
from ntpaudit.core.excursions import merged
from ntpaudit.core.record import Health, HostIdentity, Record
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.demo.server import NtpServer
from ntpaudit.formats.line_protocol import render_account
from ntpaudit.store import accounts, outbox
from ntpaudit.store.compression import unpack_text
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.rows import read_json
from ntpaudit.store.state import StateStore
from tests.command import ntpaudit
from tests.fork_server import Forked
from tests.histories import BOOT, World, write
from tests.waiting import WITHIN_S, until
from tests.world.flaky import FORWARD, Answer, Fault, FlakyDatabase, Hang, Request, Reset
from tests.world.packages import REPOSITORY
from tests.world.servers import influxd

KILLS = 200
HOURS_BEFORE = 60  # how long ago the first record of each history is
HOSTS = 2
"""The number of agents at once, one for each core of a small machine; they share the kills."""

LIFE_S = (-0.25, 0.75)
"""How long an agent lives after it reports ready; negative ones are killed that long after their start, ready or not.

So some die while they start and some while they deliver, however slow the machine is.
"""

FAULTS: dict[str, Fault] = {
    "hangs": Hang(),
    "hangs, stored": Hang(stored=True),
    "reset before": Reset("before"),
    "reset after": Reset("after"),
    "reset in the middle": Reset("middle"),
    "500": Answer(500, '{"error":"timeout"}'),
    "503": Answer(503, "", (("Retry-After", "0"),)),
    "429": Answer(429, '{"message":"too many requests"}', (("Retry-After", "0"),)),
    "disk full": Answer(500, '{"error":"engine: error writing WAL entry: no space left on device"}'),
}
WORLD = random.Random(20261118)


class Mortal(Forked):
    """An agent that runs."""

    has_greeted: Callable[[], bool]
    """Whether it has said that it is up: from then on it listens to signals, which ended it before."""


class Flapping:
    """A database that does something else every few tenths of a second: of its faults what was met least so far."""

    def __init__(self, database: FlakyDatabase) -> None:
        self.database = database
        self.done: Counter[str] = Counter()
        self._mood = "well"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        database.choose = self._choose
        self._thread.start()

    def end(self) -> None:
        """Let it be well from now on."""
        self._ended.set()
        self._thread.join()
        self.database.listen()
        self._mood = "well"

    def has_done_all(self) -> bool:
        """Whether each fault was met by a request, and some met none."""
        return all(self.done[fault] for fault in ("well", "refuses", *FAULTS))

    def _choose(self, request: Request) -> Fault:
        mood = self._mood
        self.done[mood] += 1
        return FAULTS.get(mood, FORWARD)

    def _run(self) -> None:
        moods = random.Random(WORLD.random())
        while not self._ended.wait(moods.uniform(0.05, 0.4)):
            mood = moods.choice(["well", "well", "refuses", *FAULTS])
            self._mood = min(FAULTS, key=self.done.__getitem__) if mood in FAULTS else mood
            if self._mood == "refuses":
                self.done["refuses"] += 1
                self.database.refuse()
            else:
                self.database.listen()
                self._wait_for_a_request(self._mood)

    def _wait_for_a_request(self, mood: str) -> None:
        """Keep a mood until a request met it: on a busy machine the next one may be seconds away."""
        met = self.done[mood]
        while self.done[mood] == met and not self._ended.wait(0.01):
            pass


class Host:
    """One host whose agent is killed again and again."""

    def __init__(self, name: str, folder: Path, servers: Sequence[str], url: str) -> None:
        self.name = name
        self.history = folder / "state" / "history.sqlite3"
        self.said = folder / "said"
        self.changed_by_hand = 0  # the id of an audit
        self._config = folder / "ntpaudit.toml"
        self._config.write_text(
            f'[host]\nname = "{name}"\n[sources]\nservers = {json.dumps(servers)}\n'
            f'[schedule]\nnetwork = "15s"\nlocal = "1s"\n[influxdb]\nurl = "{url}"\ntimeout = "500ms"\n'
        )
        # Who is killed leaves no word of the lines it ran through: to trace them would only make it slow to start.
        others = ("XDG_", "INFLUXDB_", "NOTIFY_", "COVERAGE_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
        self._environment = kept | {"STATE_DIRECTORY": str(folder / "state"), "PYTHONPATH": str(REPOSITORY)}

    @contextmanager
    def agent(self) -> Iterator["Mortal"]:
        """Run the agent, and kill it at the end."""
        with self.said.open("ab") as output:
            so_far = output.tell()
            words = ["agent", "--config", str(self._config)]
            agent = Mortal(words, env=self._environment, stdout=output, stderr=output)
        agent.has_greeted = lambda: b": 3 sources every" in self.said.read_bytes()[so_far:]
        try:
            yield agent
        finally:
            agent.kill()
            agent.wait()

    def live(self, life_s: float, moments: random.Random) -> None:
        """Let an agent live for a while, asked to audit at random moments, and kill it."""
        with self.agent() as agent:
            self.wait_for(lambda: life_s < 0 or agent.has_greeted(), agent)
            ends_s = time.monotonic() + abs(life_s)
            while (left_s := ends_s - time.monotonic()) > 0:
                time.sleep(min(left_s, moments.uniform(0.02, 0.2)))
                if agent.has_greeted():
                    agent.send_signal(signal.SIGUSR1)
            assert agent.poll() is None, self.state()

    def live_before(self) -> None:
        """Write two days of records that no agent has closed the hours of; it did not deliver the records either."""
        begin_ns = time.time_ns() - HOURS_BEFORE * HOUR_S * NS_PER_S
        world = World(
            begin_ns=begin_ns,
            name=self.name,
            health=Health(local_s=300.0),
            runs=lambda minute: minute % 400 > 90,
            stepped_s=lambda minute: 30.0 if 1000 <= minute < 1100 else 0.0,
        )
        write(self.history, world, range(0, (HOURS_BEFORE - 2) * 60, 5))

    def stamp_late(self) -> None:
        """Let a record of a closed hour get its true time only now; its point is then delivered again."""
        host = HostIdentity(self.name, None, None, None, None)
        store = StateStore(str(self.history))
        (audit_id, boot_ns), *_ = self.rows(
            f"SELECT id, utc_ns - boottime_ns FROM audits WHERE boot_id = '{BOOT}' AND id > 200 ORDER BY id"
        )
        with closing(sqlite3.connect(self.history, isolation_level=None)) as connection:
            connection.execute("UPDATE audits SET utc_ns = NULL, verdict = 3 WHERE id = ?", (audit_id,))
        self.changed_by_hand = audit_id
        lines = store.write(outbox.backlog)[0]
        store.write(
            accounts.stamp,
            BOOT,
            boot_ns + NS_PER_S,
            lambda account: OutboxEntry(0, render_account(account, host), time.time_ns(), None, 0, time.time_ns()),
        )
        assert store.write(outbox.backlog)[0] > lines
        store.close()

    def accounts(self, length_s: int) -> dict[int, Account]:
        """Return the accounts of the history by the stamps of their points."""
        rows = self.rows(f"SELECT begin_s, account FROM accounts WHERE length_s = {length_s}")
        return {begin_s * NS_PER_S: read_json(Account, packed) for begin_s, packed in rows}

    def finish(self) -> None:
        """Run the agent until nothing waits, and end it well; again if it kept one more record as it ended.

        New records come every second, so only that of the oldest audit that waits shows whether anything moves.
        """
        for _ in range(10):
            with self.agent() as agent:
                self.wait_for(agent.has_greeted, agent)
                self.wait_for(lambda: not self.waiting(), agent, lambda: self.waiting()[:1])
                agent.terminate()
                assert agent.wait(WITHIN_S) == 0, self.state()
            if not self.waiting():
                return
        raise AssertionError(f"something always waits: {self.state()}")

    def waiting(self) -> list[tuple[Any, ...]]:
        """Return the audits that are not judged, or not delivered, oldest first, with what they lack and their kind."""
        return self.rows(
            "SELECT * FROM (SELECT id, 'a record', kind, utc_ns FROM audits WHERE record IS NULL"
            " UNION ALL SELECT audit_id, 'delivery', NULL, stamp_ns FROM outbox) ORDER BY id IS NULL, id"
        )

    def state(self) -> str:
        """Return what waits, and the last lines that the agents have written."""
        waiting, lines = self.waiting(), self.said.read_text().splitlines()
        others = [line for line in lines if "only 3 servers" not in line]
        return "\n".join([f"{self.name}: {len(waiting)} wait: {waiting[:10]}", *others[-20:]])

    def wait_for(
        self, look: Callable[[], bool], agent: "Mortal", progress: Callable[[], object] = lambda: None
    ) -> None:
        """Wait until something is so, while the agent lives, and as long as it makes progress."""
        until(look, self.state, alive=lambda: agent.poll() is None, progress=progress)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the history."""
        connection = sqlite3.connect(f"file:{self.history}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def records(self) -> dict[int, Record]:
        """Return every record of the history by its corrected time."""
        rows = self.rows(f"SELECT utc_ns, record FROM audits WHERE boot_id <> '{BOOT}' ORDER BY id")
        found = {utc_ns: Record.from_dict(json.loads(unpack_text(text))) for utc_ns, text in rows}
        assert len(found) == len(rows)
        return found


def points(url: str, measurement: str, fields: str, host: str) -> list[list[Any]]:
    """Return the points of a host, each with its time and the fields named."""
    query = f"SELECT {fields} FROM {measurement} WHERE host = '{host}'"
    with urlopen(f"{url}/query?db=ntpaudit&epoch=ns&q={quote(query)}", timeout=30) as got:
        series = json.load(got)["results"][0].get("series", [{"values": []}])
    found: list[list[Any]] = series[0]["values"]
    return found


def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """After 200 kills at random, the points in the database are exactly the records of the history, value by value."""
    with ExitStack() as stack:
        servers = [stack.enter_context(NtpServer()) for _ in range(3)]
        names = [f"{server.address}:{server.port}" for server in servers]
        url = stack.enter_context(influxd())
        database = stack.enter_context(FlakyDatabase(url))
        hosts = []
        for number in range(HOSTS):
            folder = tmp_path / f"web{number}"
            folder.mkdir()
            hosts.append(Host(folder.name, folder, names, database.url))
            hosts[-1].live_before()
        flapping = Flapping(database)
        failed: list[BaseException] = []
        interrupted = threading.Event()

        def kill(host: Host, moments: random.Random) -> None:
            try:
                for _ in range(KILLS // HOSTS):
                    if interrupted.is_set():
                        return
                    host.live(moments.uniform(*LIFE_S), moments)
                for longer in range(60):  # on a machine so busy that agents seldom live to see the database
                    if interrupted.is_set() or flapping.has_done_all():
                        return
                    host.live(LIFE_S[1] + longer * moments.random(), moments)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=kill, args=(host, random.Random(WORLD.random()))) for host in hosts]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            interrupted.set()  # or the threads would go on, and their agents would outlive the test
            for thread in threads:
                thread.join()
            raise
        flapping.end()
        assert failed == []
        for host in hosts:
            host.finish()
            host.stamp_late()
            host.finish()
        sent: Counter[str] = Counter()
        for request in database.requests:
            sent.update(line for line in request.lines.splitlines() if line.startswith("ntpaudit_clock"))
        print(dict(flapping.done), len(sent), sent.total(), [len(host.records()) for host in hosts])
        for host in hosts:
            compare(host, url)
            compare_accounts(host, url)
            words = ("evidence", "verify", "--history", str(host.history), "--against", url)
            verified = ntpaudit(*words, state=tmp_path).out.splitlines()
            (wrong,) = [line for line in verified if line.startswith("FAIL")]
            assert f"record of audit {host.changed_by_hand} " in wrong
            assert "more" not in wrong
            assert any(line.startswith("ok    delivered") for line in verified)
            assert "Traceback" not in host.said.read_text()
            assert "is skipped" not in host.said.read_text()  # an audit: kills are no reason not to judge it
            assert host.rows("SELECT * FROM set_aside") == []
        assert flapping.has_done_all()
        assert sent.total() > len(sent) > KILLS / 2  # much was sent more than once, and is there once


def compare_accounts(host: Host, url: str) -> None:
    """Compare every hour and day of a host, and its excursions, with those of its history."""
    fields = ", ".join([*(f"{name}_s" for name in Spans._fields), "audits", "bound_s", "steps", "two_sources_s"])
    for measurement, length_s in (("ntpaudit_hour", HOUR_S), ("ntpaudit_day", DAY)):
        known = host.accounts(length_s)
        assert len(known) >= (HOURS_BEFORE - 2 if length_s == HOUR_S else 2)
        assert {
            stamp_ns: (*one.spans, one.audits, one.bound_s, one.steps, one.two_sources_s)
            for stamp_ns, one in known.items()
        } == {stamp_ns: tuple(values) for stamp_ns, *values in points(url, measurement, fields, host.name)}
    found = merged(one for hour in sorted(host.accounts(HOUR_S).values()) for one in hour.excursions)
    assert len(found) > 0
    assert {(one.begin_s * NS_PER_S, one.state, one.duration_s, int(one.is_open)) for one in found} == {
        tuple(values) for values in points(url, "ntpaudit_excursion", 'state, duration_s, "open"', host.name)
    }


def compare(host: Host, url: str) -> None:
    """Compare every point of a host with the record it came from."""
    records = host.records()
    fields = "offset_s, bound_s, severity, findings, sources, host_time_ns"
    for time_ns, offset_s, bound_s, severity, findings, sources, host_ns in points(
        url, "ntpaudit_clock", fields, host.name
    ):
        record = records.pop(time_ns)
        offset = record.offset  # None until the first servers answered; dated later all the same
        assert (offset_s, bound_s) == ((offset.estimate_s, offset.bound_s) if offset else (None, None))
        assert (severity, findings, sources) == (int(record.severity), len(record.findings), record.agreement.sources)
        assert host_ns == record.host_ns
    assert records == {}
    expected = Counter((source.name, utc_ns) for utc_ns, record in host.records().items() for source in record.sources)
    stored = Counter(
        (name, time_ns) for time_ns, name, _ in points(url, "ntpaudit_source", "source, status", host.name)
    )
    assert stored == expected
