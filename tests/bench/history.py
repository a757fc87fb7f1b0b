"""What it costs to read a history of 90 days, beside a bare reader of the same rows."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from ntpaudit.agent_store import AgentStore
from ntpaudit.core.actions import CloseAccounts
from ntpaudit.core.record import HostIdentity
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store import chain
from ntpaudit.store.database import open_database, transaction
from ntpaudit.store.state import StateStore
from tests.bench.process import process_cost
from tests.histories import DAY_MINUTES, World, write
from tests.records import NOW_NS

DAYS = 90
RUNS = 3
COMMANDS = (
    "--since 24h",
    "--since 90d --plot",
    "--since 90d --hourly",
    "--since 90d --daily",
    "--since 90d --excursions",
    "--since 90d --events",
    "--since 90d --format csv",
)
BARE = (
    "import csv, sqlite3, sys; rows = sqlite3.connect(sys.argv[1]).execute('SELECT utc_ns, host_ns, kind, severity, "
    "verdict, offset_ns, earliest_ns, latest_ns, record FROM audits'); "
    "csv.writer(sys.stdout).writerows(row[:-1] for row in rows)"
)


def run() -> Iterator[str]:
    """(i) CPU of the commands that read a long history."""
    yield "## Reading a history of 90 days\n"
    yield f"{DAYS * DAY_MINUTES} audits, the default intervals; CPU of the whole process, median of {RUNS} runs.\n"
    yield "| process | CPU | CPU as a multiple |"
    yield "|---|---:|---:|"
    with TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "history.sqlite3"
        write(file, World(), range(DAY_MINUTES))
        _repeat(file)
        yield f"| beginning its chain, as an upgrade of an older history does | {_begin_chain(file):.0f} ms | |"
        yield f"| closing its hours and days, {_close(file):.1f} ms for each hour | | |"
        bare, _ = process_cost([sys.executable, "-c", BARE, str(file)], RUNS)
        yield f"| the rows by `sqlite3`, written by `csv` as they are | {bare:.0f} ms | 1.00 |"
        command = ["env", f"STATE_DIRECTORY={folder}", str(Path(sys.executable).with_name("ntpaudit")), "history"]
        for words in COMMANDS:
            cpu, _ = process_cost([*command, *words.split()], RUNS)
            yield f"| `ntpaudit history {words}` | {cpu:.0f} ms | {cpu / bare:.2f} |"
        cpu, _ = process_cost([*command[:-1], "evidence", "verify", "--history", str(file)], RUNS)
        yield f"| `ntpaudit evidence verify`, goal 5 s | {cpu:.0f} ms | {cpu / bare:.2f} |"
    yield ""


def _begin_chain(file: Path) -> float:
    """Make the entries of all rows; return the CPU in ms."""
    with closing(open_database(str(file))) as connection, transaction(connection):
        for table in ("chain", "segments", "notes"):
            connection.execute(f"DELETE FROM {table}")
        begin_s = time.process_time()
        chain.begin(connection)
        return 1e3 * (time.process_time() - begin_s)


def _close(file: Path) -> float:
    """Close all hours of a history, as an agent does that starts after a long absence; return the CPU of each in ms."""
    store, host = StateStore(str(file)), HostIdentity("web1", None, None, None, None)
    begin_s = time.process_time()
    AgentStore(store).close_accounts(CloseAccounts(host, NOW_NS), delivers=True, pieces=1 << 30)
    spent_s = time.process_time() - begin_s
    store.close()
    return 1e3 * spent_s / (DAYS * 24)


def _repeat(file: Path) -> None:
    """Repeat the first day of a history until it has all days."""
    with closing(open_database(str(file))) as connection, transaction(connection):
        for day in range(1, DAYS):
            later = {"ns": day * 86_400 * NS_PER_S, "s": day * 86_400, "last": DAY_MINUTES}
            connection.execute(
                "INSERT INTO audits SELECT NULL, host_ns + :ns, observation, record, kind, boot_id, boottime_ns + :ns,"
                " suspended_ns, raw_ns + :ns, utc_ns + :ns, severity, verdict, offset_ns, earliest_ns, latest_ns,"
                " local_s FROM audits WHERE id <= :last ORDER BY id",
                later,
            )
            connection.execute(
                "INSERT OR IGNORE INTO rollups"
                " SELECT hour_s + :s, audits, measured, within, unproven, beyond, severity,"
                " least_offset_ns, most_offset_ns, most_bound_ns FROM rollups ORDER BY hour_s LIMIT 25",
                later,
            )
