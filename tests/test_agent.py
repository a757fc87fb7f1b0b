"""`ntpaudit agent` as a process: real servers, signals, the service manager's socket, and whatever the world does."""

import ctypes
import errno
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ntpaudit.config.load import load_config
from ntpaudit.config.warnings import config_warnings
from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import Fleet, FleetPolicy
from ntpaudit.core.policy import Severity
from ntpaudit.demo.server import Behaviour, NtpServer
from ntpaudit.errors import UnexpectedReplyError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.reader import SnapshotOptions
from ntpaudit.probes.kernel import TIMEX
from ntpaudit.store.compression import unpack_text
from tests.command import Ran, ntpaudit
from tests.waiting import WITHIN_S, T, until
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY
from tests.world.sandbox import TIMERFD_CALLS, refuse
from tests.world.servers import chronyd, victoria_metrics

WATCHDOG_S = 1.0
WITHOUT_TIMERFD_S = 1.0
"""What takes longer than this, on any machine, does not come at all."""

ADJ_SETOFFSET, ADJ_NANO = 0x0100, 0x2000

NETWORK = "SELECT record FROM audits WHERE kind = 'network' AND record IS NOT NULL"


class Running:
    """An agent that runs, in a state folder of its own."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, log: Path) -> None:
        self.process, self.folder, self._log = process, folder, log

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask its history, which may not be there yet."""
        try:
            connection = sqlite3.connect(f"file:{self.folder}/state/history.sqlite3?mode=ro", uri=True)
            try:
                return connection.execute(query).fetchall()
            finally:
                connection.close()
        except sqlite3.OperationalError:
            return []

    def count(self, kind: str) -> int:
        """Count its audits of a kind."""
        return len(self.rows(f"SELECT id FROM audits WHERE kind = '{kind}' AND record IS NOT NULL"))

    def until(self, look: Callable[[], T], what: str) -> T:
        """Wait until something is so, while it runs."""
        return until(look, lambda: f"{what}\n{self.said}", alive=lambda: self.process.poll() is None)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        self.process.send_signal(number)
        self.process.wait(WITHIN_S)


def configure(folder: Path, servers: Sequence[str], rest: str = "", *, network: str = "2s", local: str = "1s") -> Path:
    """Write a configuration."""
    file = folder / "ntpaudit.toml"
    schedule = f'[schedule]\nnetwork = "{network}"\nlocal = "{local}"\n'
    file.write_text(f"[sources]\nservers = {json.dumps(list(servers))}\n{schedule}{rest}")
    return file


def variables(folder: Path, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of an agent of the test's own."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("XDG_", "NTPAUDIT_", "INFLUXDB_", "JOURNAL_", "NOTIFY_", "WATCHDOG_"))
    }
    ours = {"HOME": str(folder), "STATE_DIRECTORY": str(folder / "state"), "PYTHONPATH": str(REPOSITORY)}
    return kept | ours | dict(environment or {})


@contextmanager
def agent(
    folder: Path,
    config: Path,
    *,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Iterator[Running]:
    """Run an agent; it has to end well, and without a traceback, if the test did not end it otherwise."""
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ntpaudit", "agent", "--config", str(config)],
            env=variables(folder, environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=before,
        )
    try:
        running = Running(process, folder, log)
        yield running
        if process.poll() is None:
            running.end()
            assert process.returncode == 0, running.said
        assert "Traceback" not in running.said, running.said
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """Four real chronyd that serve this host's own clock."""
    with ExitStack() as stack:
        running = [stack.enter_context(chronyd()) for _ in range(4)]
        yield [f"{server.address}:{server.port}" for server in running]


def test_it_audits_on_and_on(servers: list[str], tmp_path: Path) -> None:
    """Servers are asked again and again, the offset is carried on in between, and every record is whole."""
    with agent(tmp_path, configure(tmp_path, servers)) as running:
        running.until(
            lambda: running.count("network") >= 3 and running.count("local") >= 3, "three audits of each kind"
        )
        assert running.said.startswith(f"ntpaudit: ntpaudit 0.1.0: 4 sources every 2 s, history in {tmp_path}/state/")
        rows = running.rows("SELECT kind, offset_ns, earliest_ns, latest_ns FROM audits ORDER BY id")
    rows = rows[next(index for index, (kind, *_) in enumerate(rows) if kind == "network") :]
    assert all(earliest <= 0 <= latest for _, _, earliest, latest in rows)
    assert all(abs(offset) < 1_000_000 + (latest - earliest) / 2 for _, offset, earliest, latest in rows)


def test_status_is_the_last_record(servers: list[str], tmp_path: Path) -> None:
    """`status` shows what the agent concluded last, without a query."""
    config = configure(tmp_path, servers)
    with agent(tmp_path, config) as running:
        running.until(lambda: running.count("network") >= 1, "an audit")
        ran = ntpaudit("status", "--config", str(config), "--format", "json", state=tmp_path)
        asked = [_record([row]) for row in running.rows(NETWORK)]
    report = json.loads(ran.out)
    assert report["stale"] is False
    longest_exchange_s = max(source["delay_s"] for record in asked for source in record["sources"])
    assert report["record"]["offset"]["bound_s"] < 0.01 + longest_exchange_s
    assert report["record"]["agent"]["missed"] == 0


def test_one_cycle_is_a_check_that_is_kept(servers: list[str], tmp_path: Path) -> None:
    """`agent --once` asks, judges, keeps, and ends with the severity as its status."""
    ran = ntpaudit("agent", "--once", "--config", str(configure(tmp_path, servers)), state=tmp_path)
    assert ran.status in (0, 1), ran.err
    assert "4 of 4 servers agree" in " ".join(ran.out.split())
    with sqlite3.connect(tmp_path / "state" / "history.sqlite3") as connection:
        assert connection.execute("SELECT kind, COUNT(*) FROM audits").fetchall() == [("network", 1)]


def test_one_cycle_says_what_it_does_not_deliver(tmp_path: Path) -> None:
    """A record without a true time waits for a measurement: that is logged, and `status` counts it."""
    silent = configure(tmp_path, ["127.0.0.1:9"])
    silent.write_text(silent.read_text() + '\n[influxdb]\nurl = "http://127.0.0.1:9"\n')
    ran = ntpaudit("agent", "--once", "--config", str(silent), state=tmp_path)
    assert ran.status == 3, ran
    assert "ntpaudit: 1 record not delivered: the true time is not known yet\n" in ran.err
    report = " ".join(ntpaudit("status", state=tmp_path).out.split())
    assert "delivery 1 record waiting, the oldest for " in report
    assert "not running now" in report


def test_a_timer_is_believed_as_long_as_it_takes(servers: list[str], tmp_path: Path) -> None:
    """`agent --once --every` is stale when its timer has missed runs, not after a minute."""
    config = str(configure(tmp_path, servers))
    ran = ntpaudit("agent", "--once", "--every", "35m", "--config", config, state=tmp_path)
    assert ran.status in (0, 1), ran.err
    report = json.loads(ntpaudit("status", "--config", config, "--format", "json", state=tmp_path).out)
    assert report["stale_after_s"] == 3 * 2100 + 10
    assert ntpaudit("agent", "--every", "35m", "--config", config, state=tmp_path).status == 64


def no_folder(folder: Path) -> None:
    """Let no folder be made."""
    folder.parent.chmod(0o555)


def read_only(folder: Path) -> None:
    """Let nothing be written, neither beside an earlier state nor to it."""
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


@pytest.mark.parametrize(("is_first", "forbid"), [(True, no_folder), (True, read_only), (False, read_only)])
def test_one_cycle_without_a_state_is_never_ok(
    is_first: bool, forbid: Callable[[Path], None], servers: list[str], tmp_path: Path
) -> None:
    """Each such run is the first one, so none can confirm a finding: it ends with 3, and says where and what to do."""
    config, folder = str(configure(tmp_path, servers)), tmp_path / "var" / "state"
    folder.parent.mkdir()
    if not is_first:
        ntpaudit("agent", "--once", "--config", config, state=folder.parent)
    forbid(folder)
    for _ in range(2):
        ran = confined("agent", "--once", "--config", config, state=folder.parent)
        assert ran.status == 3, ran
        assert "4 of 4 servers agree" in " ".join(ran.out.split())
        *_, last = ran.err.splitlines()
        assert ran.out.startswith("UNKNOWN")
        assert ran.out.endswith("\nstate     not stored: no finding can be confirmed, so the result is UNKNOWN\n")
        assert last.startswith(f"ntpaudit: no state was stored in {folder}: "), ran.err
        assert ("; fix: create it for that user, or " in last) == (forbid is no_folder), last
        assert "STATE_DIRECTORY" in last


def test_a_wrong_clock_is_not_ok_without_a_state(tmp_path: Path) -> None:
    """What would be critical once confirmed is unknown in each run."""
    state = tmp_path / "var"
    state.mkdir()
    state.chmod(0o555)
    with ExitStack() as stack:
        ahead = Behaviour(offset_s=10.0, stratum=2, reference_id=b"\xc0\x00\x02\x01")
        named = [stack.enter_context(NtpServer(ahead)) for _ in range(4)]
        config = configure(tmp_path, [f"127.0.0.1:{server.port}" for server in named])
        for _ in range(4):
            ran = confined("agent", "--once", "--config", str(config), state=state)
            assert ran.status == 3, ran
            assert ran.out.startswith("UNKNOWN"), ran.out
            assert "Cannot be confirmed, because this run keeps no state; would be critical" in " ".join(
                ran.out.split()
            )


def confined(*words: str, state: Path) -> Ran:
    """Run ntpaudit by the permissions of files, which root's privileges would override."""
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
    return ntpaudit(*words, state=state, inside=lambda command: [*powerless * (os.geteuid() == 0), *command])


@pytest.mark.needs("no-system-config")
def test_an_agent_has_no_default_servers(tmp_path: Path) -> None:
    """Without a configuration, or with one that names no servers, the agent refuses and says what to do (P1)."""
    without = ntpaudit("agent", state=tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path / "none")})
    assert (without.status, "ntpaudit config init" in without.err) == (78, True)
    empty = tmp_path / "ntpaudit.toml"
    empty.write_text('[host]\nsite = "ams"\n')
    ran = ntpaudit("agent", "--config", str(empty), state=tmp_path)
    assert (ran.status, "names no servers" in ran.err) == (78, True)


def test_the_second_agent_refuses(servers: list[str], tmp_path: Path) -> None:
    """Two agents never share a state: the second says so and ends with 75; after the first has ended it may."""
    config = configure(tmp_path, servers)
    with agent(tmp_path, config) as running:
        running.until(lambda: running.count("network") >= 1, "an audit")
        second = ntpaudit("agent", "--config", str(config), state=tmp_path)
        assert second.status == 75
        assert "another agent" in second.err
        assert "probably the service: see `ntpaudit status`; stop that agent only if it should not run" in second.err
        running.end(signal.SIGKILL)
    third = ntpaudit("agent", "--once", "--config", str(config), state=tmp_path)
    assert third.status in (0, 1), third.err


@pytest.mark.parametrize(
    ("rest", "delivery"),
    [
        ("", "none: no database is configured (influxdb.url)"),
        ('[influxdb]\nurl = "http://127.0.0.1:1"\n', "1 record waiting"),
    ],
)
def test_status_knows_whether_the_agent_delivers(servers: list[str], tmp_path: Path, rest: str, delivery: str) -> None:
    """By what the agent has stored: the configuration may have changed since, or be another user's."""
    config = configure(tmp_path, servers, rest)
    ntpaudit("agent", "--once", "--config", str(config), state=tmp_path)
    assert f"delivery  {delivery}" in ntpaudit("status", state=tmp_path).out


def test_the_manager_is_notified(servers: list[str], tmp_path: Path) -> None:
    """Systemd receives READY, the verdict, the loop's WATCHDOG, RELOADING and READY, and STOPPING."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WITHIN_S)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
        with agent(tmp_path, configure(tmp_path, servers), environment=environment) as running:
            received: list[str] = []

            def receives(wanted: str) -> bool:
                received.append(manager.recv(4096).decode())
                return wanted in received[-1]

            running.until(lambda: receives("READY=1"), "ready")
            running.until(lambda: receives("at most"), "the verdict")
            while select.select([manager], [], [], 0)[0]:  # what has come meanwhile
                manager.recv(4096)
            received.clear()
            begun = time.monotonic()
            running.until(
                lambda: receives("WATCHDOG=1") and received.count("WATCHDOG=1") == 6, "the watchdog's notification"
            )
            assert time.monotonic() - begun >= 4 * WATCHDOG_S / 2, received  # due twice in WatchdogSec, and not oftener
            running.process.send_signal(signal.SIGHUP)
            running.until(lambda: receives("RELOADING=1"), "reloading")
            running.until(lambda: receives("READY=1"), "ready again")
            running.end()
            running_on = [manager.recv(4096).decode() for _ in range(1)]
            while "STOPPING=1" not in running_on:
                running_on.append(manager.recv(4096).decode())


def test_reloading_refuses_what_is_broken(servers: list[str], tmp_path: Path) -> None:
    """SIGHUP applies a new configuration; a broken one is refused with its line, and the old one stays."""
    config = configure(tmp_path, servers)
    with agent(tmp_path, config) as running:
        running.until(lambda: running.count("network") >= 1, "an audit")
        config.write_text("[sources]\nservers = 3\n")
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: f"{config}:2: sources.servers" in running.said, "the refusal")
        count = running.count("network")
        running.until(lambda: running.count("network") > count, "an audit by the old one")
        configure(tmp_path, servers[:2], '[host]\nsite = "ams"\n')
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: "configuration reloaded" in running.said, "the reload")
        last = f"{NETWORK} ORDER BY id DESC LIMIT 1"
        running.until(lambda: _record(running.rows(last))["agreement"]["sources"] == 2, "an audit by the new one")
        assert _record(running.rows(last))["host"]["site"] == "ams"
        assert running.said.count(f"{config}: only 2 servers: name at least 4") == 1


ACCEPTED = '[[accept]]\nfinding = "suspected-spoofing"\nreason = "a test"\nby = "ops"\nuntil = {}\n'
EXPIRED = "SELECT raised, text FROM events WHERE kind = 'acceptance-expired' ORDER BY id"


def test_acceptances_are_reloaded_at_once(servers: list[str], tmp_path: Path) -> None:
    """SIGHUP: an acceptance that has ended is a finding with the next audit, and is cleared once it has a new end."""
    with agent(tmp_path, configure(tmp_path, servers)) as running:
        running.until(lambda: running.count("network") >= 1, "an audit")
        configure(tmp_path, servers, ACCEPTED.format("2020-01-01"))
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: len(running.rows(EXPIRED)) == 1, "the finding")
        ran = ntpaudit("status", "--format", "nagios", state=tmp_path)
        assert (ran.status, "acceptance-expired" in ran.out) == (1, True)
        configure(tmp_path, servers, ACCEPTED.format("2199-01-01"))
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: len(running.rows(EXPIRED)) == 2, "its end")
        assert [raised for raised, _ in running.rows(EXPIRED)] == [1, 0]


def test_an_agent_and_a_check_warn_as_config_check_does(servers: list[str], tmp_path: Path) -> None:
    """What is valid and hardly intended is shown at the start of an agent, and by a check."""
    config = configure(tmp_path, servers[:1], "[history]\nraw = '60d'\nrollups = '30d'\n")
    warnings = list(config_warnings(load_config(str(config))))
    assert len(warnings) == 2
    for words in (("agent", "--once"), ("check",)):
        said = ntpaudit(*words, "--config", str(config), state=tmp_path).err
        assert [said.count(f"{config}: {warning}") for warning in warnings] == [1, 1]


def test_usr1_audits_now(servers: list[str], tmp_path: Path) -> None:
    """SIGUSR1 queries at once all servers that may be queried."""
    with agent(tmp_path, configure(tmp_path, servers, network="1h", local="1h")) as running:
        running.until(lambda: running.count("network") == 1, "the first audit")
        running.process.send_signal(signal.SIGUSR1)
        running.until(lambda: running.count("network") == 2, "another")


FIRST_IMPORT = """
import signal, sys
from ntpaudit.__main__ import main

class Importing:
    def find_spec(self, name, *rest):
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        print(name, *sorted(one.name for one in blocked))
        sys.exit()

sys.argv[1:] = ["agent"]
sys.meta_path.insert(0, Importing())
main()
"""


def test_signals_are_blocked_before_anything_else() -> None:
    """The default action of an agent's signals is to kill it, so they wait while its modules are imported."""
    ran = subprocess.run(
        [sys.executable, "-c", FIRST_IMPORT], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["ntpaudit.cli", "SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1"]


def test_signals_kill_no_agent_that_begins_or_ends(servers: list[str], tmp_path: Path) -> None:
    """SIGUSR1 and SIGHUP, again and again from the moment they are blocked: the agent begins, audits, and ends well."""
    with agent(tmp_path, configure(tmp_path, servers, network="1h", local="1h")) as running:
        running.until(lambda: signal.SIGHUP in blocked(running.process.pid), "the block")

        def bother() -> bool:
            running.process.send_signal(signal.SIGUSR1)
            running.process.send_signal(signal.SIGHUP)
            return running.process.poll() is not None

        running.until(lambda: bother() or "configuration reloaded" in running.said, "the first reload")
        running.until(lambda: running.count("network") >= 1, "an audit")
        running.process.terminate()
        while not bother():
            time.sleep(0.001)
        assert running.process.returncode == 0, running.said


def blocked(pid: int) -> set[int]:
    """Return the signals that a process has blocked."""
    (mask,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    return {number for number in range(1, 32) if int(mask.split()[1], 16) >> (number - 1) & 1}


def test_it_survives_servers_that_are_gone(tmp_path: Path) -> None:
    """Without a reply it goes on, unknown; the event reports that nothing is measured."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))  # takes requests and never answers
        with agent(tmp_path, configure(tmp_path, [f"127.0.0.1:{taken.getsockname()[1]}"])) as running:
            running.until(lambda: running.count("network") >= 2, "two audits")
            rows = running.rows("SELECT severity, verdict, offset_ns FROM audits ORDER BY id")
            assert set(rows) == {(2, 3, None)}


def test_it_ends_at_once_on_a_signal(tmp_path: Path) -> None:
    """SIGTERM ends it while a server is being asked: the server never answers, and its deadline is not waited for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.settimeout(WITHIN_S)
        with agent(tmp_path, configure(tmp_path, [f"127.0.0.1:{taken.getsockname()[1]}"])) as running:
            taken.recvfrom(48)
            running.end()
            assert running.process.returncode == 0, running.said
            assert running.count("network") == 0  # at the deadline it would have recorded that nothing answered


@pytest.mark.needs("root", "mount")
def test_a_read_only_state_is_survived(servers: list[str], tmp_path: Path) -> None:
    """Where nothing can be written the agent goes on in memory, says so, and reports it."""
    (tmp_path / "state").mkdir()
    target = tmp_path / "records.jsonl"
    config = configure(tmp_path, servers, f'[jsonl]\npath = "{target}"\n')
    (tmp_path / "state").chmod(0o500)
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    words = [sys.executable, "-m", "ntpaudit", "agent", "--config", str(config)]
    process = subprocess.Popen(
        [*unshared("mount"), "sh", "-ec", script, str(tmp_path / "state"), *words],
        env=variables(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(
            lambda: target.exists() and len(target.read_text().splitlines()) >= 3,
            "three records",
            alive=lambda: process.poll() is None,
        )
    finally:
        process.terminate()
        _, said = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, said
    assert "continuing in memory" in said
    assert "Traceback" not in said
    record = json.loads(target.read_text().splitlines()[-1])
    assert record["offset"] is not None
    assert "cannot store state" in record["agent"]["store"]


@pytest.mark.needs("seccomp")
def test_without_timerfd_steps_are_still_looked_for(servers: list[str], tmp_path: Path) -> None:
    """Where no file can be opened for the step watch the agent says so and goes on."""
    config = configure(tmp_path, servers)
    with agent(tmp_path, config, before=_forbid_timerfd) as running:
        running.until(lambda: running.count("network") >= 1, "an audit")
        assert "no timerfd" in running.said


def _forbid_timerfd() -> None:
    """Let the kernel refuse timerfd_create."""
    refuse(TIMERFD_CALLS, errno.EPERM)


def test_outputs_get_every_record(servers: list[str], tmp_path: Path) -> None:
    """OpenMetrics and JSON lines follow every record; one that cannot be written is noted once."""
    metrics, lines = tmp_path / "ntpaudit.prom", tmp_path / "records.jsonl"
    rest = f'[openmetrics]\npath = "{metrics}"\n[jsonl]\npath = "{lines}"\n'
    with agent(tmp_path, configure(tmp_path, servers, rest)) as running:
        running.until(lambda: running.count("local") >= 2, "two local audits")
        running.until(lambda: len(lines.read_text().splitlines()) >= 3, "three records")
        assert "ntpaudit_age_seconds" in metrics.read_text()
        running.end()
    broken = '[openmetrics]\npath = "/nowhere/at/all.prom"\n'
    with agent(tmp_path, configure(tmp_path, servers, broken)) as running:
        count = running.count("local")
        running.until(lambda: running.count("local") >= count + 3, "three more")
        assert running.said.count("openmetrics: ") == 1


@pytest.mark.needs("uptime")
def test_a_wrong_clock_is_confirmed_and_reported(tmp_path: Path) -> None:
    """Servers that all say the clock is 10 s behind: unknown at the first sample, critical once confirmed."""
    with ExitStack() as stack:
        ahead = Behaviour(offset_s=10.0, stratum=2, reference_id=b"\xc0\x00\x02\x01")
        named = [stack.enter_context(NtpServer(ahead)) for _ in range(4)]
        config = configure(tmp_path, [f"127.0.0.1:{server.port}" for server in named])
        with agent(tmp_path, config) as running:
            running.until(lambda: running.count("network") >= 4, "four audits")
            rows = running.rows("SELECT severity, verdict FROM audits WHERE kind = 'network' ORDER BY id")
            events = running.rows("SELECT kind, raised FROM events WHERE kind = 'offset-out'")
    assert rows[0] == (2, 2)
    assert rows[3] == (3, 2)
    assert events == [("offset-out", 1)]


def test_servers_that_are_hours_ahead_are_disputed_by_the_database(tmp_path: Path) -> None:
    """A real agent, real servers three hours ahead, a real database: the host says so, and the fleet does at once."""
    with ExitStack() as stack:
        ahead = Behaviour(offset_s=10_800.0, stratum=2, reference_id=b"\xc0\x00\x02\x01")
        named = [stack.enter_context(NtpServer(ahead)) for _ in range(4)]
        url = stack.enter_context(victoria_metrics())
        config = configure(tmp_path, [f"127.0.0.1:{server.port}" for server in named], f'[influxdb]\nurl = "{url}"\n')
        reader = stack.enter_context(closing(open_reader(url=url, language="promql")))
        with agent(tmp_path, config) as running:
            query = "SELECT kind, raised FROM events WHERE kind = 'time-disputed'"
            running.until(lambda: running.rows(query), "the finding")

            def judged() -> Fleet | None:
                """Return the fleet once the database shows what has just come to it."""
                try:
                    snapshot = reader.snapshot(reader.now_ns(), SnapshotOptions())
                except UnexpectedReplyError:  # nothing has come to it yet
                    return None
                fleet = judge_fleet(snapshot, FleetPolicy())
                shown = [member for member in fleet.members if member.suspected]
                return fleet if [member.severity for member in shown] == [Severity.CRITICAL] else None

            fleet = running.until(judged, "both findings")
            events = running.rows(query)
    assert events == [("time-disputed", 1)]
    assert fleet
    (member,) = fleet.members
    assert member.silent_s is None
    assert member.severity is Severity.CRITICAL  # it is three hours behind its servers, too
    assert member.disputed_s == pytest.approx(10_800, abs=120)
    assert {"time-disputed"} == set(member.suspected)
    assert "time-disputed" in {finding.id for finding in fleet.findings}
    assert "evidence-gap" not in {finding.id for finding in fleet.findings}


def _record(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(unpack_text(rows[0][0]))
    return record


def _set_offset(ns: int) -> None:
    """Step this machine's clock."""
    time_of_it = divmod(ns, 10**9)
    timex = TIMEX.pack(ADJ_SETOFFSET | ADJ_NANO, *[0] * 8, *time_of_it, *[0] * 10)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.create_string_buffer(timex)) == -1:
        raise OSError(ctypes.get_errno(), "the clock could not be stepped")


STEPS = "SELECT id FROM events WHERE kind LIKE 'step-%'"


@pytest.mark.needs("step-clock")
def test_a_real_step_is_an_event_at_once(servers: list[str], tmp_path: Path) -> None:
    """A step of the machine's clock is in the store at once, of the right size; it is undone at once.

    At once is long before the second within which steps are found where there is no timerfd. The servers serve this
    machine's clock, so they move with it, which is a contradiction and an event of its own.
    """
    with agent(tmp_path, configure(tmp_path, servers, network="1h", local="1h")) as running:
        running.until(lambda: running.count("network") == 1, "the first audit")
        took_s = []
        for size_ns in (20_000_000, -20_000_000) * 4:
            count = len(running.rows(STEPS))
            _set_offset(size_ns)
            begun = time.monotonic()
            running.until(lambda count=count: len(running.rows(STEPS)) > count, "the event")  # type: ignore[misc]
            took_s.append(time.monotonic() - begun)
        rows = running.rows("SELECT kind, value_s, detail FROM events WHERE kind LIKE 'step-%' ORDER BY id")
        _set_offset(3_000_000)
        running.until(lambda: len(running.rows(STEPS)) == 9, "the last")
        running.end()
        _set_offset(-3_000_000)  # while it is down
    # On a busy machine some take longer; without the timer all but the first would take nearly a second.
    assert sorted(took_s)[2] < WITHOUT_TIMERFD_S / 2, took_s
    assert [(kind, round(size_s, 4)) for kind, size_s, _ in rows] == [("step-forward", 0.02), ("step-back", -0.02)] * 4
    with agent(tmp_path, tmp_path / "ntpaudit.toml") as running:
        running.until(lambda: len(running.rows(STEPS)) == 10, "the step found at the start")
        ((size_s, detail),) = running.rows(
            "SELECT value_s, detail FROM events WHERE kind LIKE 'step-%' ORDER BY id DESC LIMIT 1"
        )
    assert round(size_s, 4) == -0.003
    assert json.loads(detail)["while_down"] is True
