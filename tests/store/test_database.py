"""The SQLite file: opened with all it holds, also by several processes and after any interruption."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ntpaudit.core.ntp.rate_limit import ServerState
from ntpaudit.errors import StoreError
from ntpaudit.store import audits, saved_state
from ntpaudit.store.database import (
    EVIDENCE_SCHEMA,
    OLDEST_VERSION,
    PAGE_BYTES,
    SCHEMA,
    VERSION,
    is_damage,
    open_database,
    set_aside_damaged,
    store_errors,
    transaction,
    unsynced_transaction,
)
from tests.logs import Messages
from tests.store.audits import audit
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY

OLD_AUDITS = 300


@pytest.fixture
def old(path: Path) -> Path:
    """A history of the oldest version, with SQLite's own settings: larger pages than a new one's, never given back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(f"{SCHEMA}; {EVIDENCE_SCHEMA}")
        connection.execute("BEGIN")
        for number in range(OLD_AUDITS):
            audits.keep_audit(connection, audit(number).observation, audit(number).record)
        saved_state.save_server_states(connection, {"192.0.2.1 123": ServerState(consecutive_timeouts=3)})
        connection.execute("COMMIT")
        for table in ("accounts", "notes", "chain", "segments"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute(f"PRAGMA user_version={OLDEST_VERSION}")
    return path


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return what is in a file that must be sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {
            table: connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()
            for table, columns in (("audits", "id, host_ns, observation, record"), ("servers", "endpoint, memory"))
        }


def schema_of(path: Path) -> list[tuple[str, str]]:
    """Return every table and index of a file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def version_of(path: Path) -> int:
    """Return the version of a file's schema."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_an_existing_file_is_opened_with_what_it_holds(old: Path, tmp_path: Path) -> None:
    """It is upgraded: nothing of it is lost, its states can be read, and the tables are those of a new file."""
    before = contents(old)
    open_database(str(old)).close()
    open_database(str(tmp_path / "new")).close()
    assert contents(old) == before
    assert schema_of(old) == schema_of(tmp_path / "new")
    assert version_of(old) == VERSION
    with closing(open_database(str(old))) as connection:
        assert saved_state.load_server_states(connection) == {"192.0.2.1 123": ServerState(consecutive_timeouts=3)}
        assert audits.pending_observations(connection) == []
        with transaction(connection):
            audits.keep_audit(connection, audit(1).observation, audit(1).record)


@pytest.mark.parametrize("version", [-1, 1, OLDEST_VERSION - 1])
def test_a_version_that_no_release_wrote_is_set_aside(version: int, old: Path) -> None:
    """The file is renamed with all it holds, and a new one begun."""
    before = contents(old)
    with closing(sqlite3.connect(old)) as connection:
        connection.execute(f"PRAGMA user_version={version}")
    open_database(str(old)).close()
    assert version_of(old) == VERSION
    (aside,) = (found for found in old.parent.glob("*.damaged-*") if not found.name.endswith(("-wal", "-shm")))
    assert contents(aside) == before


def test_an_old_file_keeps_its_way_to_free_pages(old: Path, path: Path, tmp_path: Path) -> None:
    """Only a new file can give pages back; to make an old one do so would take as much room again."""
    for file, expected in ((old, 0), (tmp_path / "new", 2)):
        with closing(open_database(str(file))) as connection:
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (expected,)


def test_a_new_file_has_small_pages_and_an_old_one_keeps_its_own(old: Path, tmp_path: Path) -> None:
    """A commit writes whole pages; to change those of an old file would rewrite all of it."""
    with closing(sqlite3.connect(old)) as connection:
        (before,) = connection.execute("PRAGMA page_size").fetchone()
    assert before != PAGE_BYTES
    for file, expected in ((old, before), (tmp_path / "new", PAGE_BYTES)):
        for _ in range(2):  # made, or opened; then opened once more
            with closing(open_database(str(file))) as connection:
                assert connection.execute("PRAGMA page_size").fetchone() == (expected,)


def test_an_unsynced_transaction_is_whole_and_the_next_one_is_synced(path: Path) -> None:
    """It can be seen by others and outlives the process; whatever ends it, later transactions wait for the disk."""

    def synchronous(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    def names(connection: sqlite3.Connection) -> list[str]:
        return [name for (name,) in connection.execute("SELECT key FROM state ORDER BY key")]

    def fail(connection: sqlite3.Connection) -> None:
        saved_state.save_state(connection, "undone", 1)
        raise TypeError

    normal, full = 1, 2
    with closing(open_database(str(path), 0.01)) as connection, closing(sqlite3.connect(path)) as other:
        with unsynced_transaction(connection):
            assert synchronous(connection) == normal
            saved_state.save_state(connection, "kept", 1)
        assert synchronous(connection) == full
        with pytest.raises(TypeError), unsynced_transaction(connection):
            fail(connection)
        assert synchronous(connection) == full
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError), unsynced_transaction(connection):
            fail(connection)
        other.execute("ROLLBACK")
        assert synchronous(connection) == full
        assert names(connection) == names(other) == ["kept"]


OPEN = "import sys; from ntpaudit.store.database import open_database; open_database(sys.argv[1])"

KILLED = """
import os, signal, sqlite3, sys
from ntpaudit.store import database
left = int(sys.argv[2])
class Watched(sqlite3.Connection):
    def execute(self, *words):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*words)
connect = sqlite3.connect
sqlite3.connect = lambda *words, **more: connect(*words, factory=Watched, **more)
database.open_database(sys.argv[1])
"""


def run(code: str, *words: str) -> "subprocess.Popen[bytes]":
    """Start a Python process."""
    untraced = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}  # most are killed
    return subprocess.Popen([sys.executable, "-c", code, *words], env=untraced | {"PYTHONPATH": str(REPOSITORY)})


def test_several_processes_open_a_file_at_once(old: Path) -> None:
    """Of several that open a file at the same moment all succeed, and it stays as it was."""
    before = contents(old)
    openers = [run(OPEN, str(old)) for _ in range(6)]
    assert [opener.wait() for opener in openers] == [0] * 6
    assert contents(old) == before
    assert version_of(old) == VERSION


def test_several_processes_begin_one_new_file(path: Path) -> None:
    """Of several that open a file which is not there all succeed."""
    openers = [run(OPEN, str(path)) for _ in range(6)]
    assert [opener.wait() for opener in openers] == [0] * 6
    assert version_of(path) == VERSION


def test_a_process_killed_half_way_leaves_a_file_that_can_be_finished(path: Path) -> None:
    """Killed before whichever statement, a new file has no table or all of them, and the next process finishes it."""
    versions = []
    for statement in range(100):
        path.write_bytes(b"")
        killed = run(KILLED, str(path), str(statement)).wait()
        versions.append(version_of(path))
        if killed == -signal.SIGKILL:
            assert versions[-1] in (0, VERSION)
        open_database(str(path)).close()
        assert version_of(path) == VERSION
        for rest in path.parent.glob(f"{path.name}-*"):
            rest.unlink()
        if killed == 0:
            break
    assert killed == 0
    assert 0 in versions
    assert len(versions) > 20


@pytest.fixture
def newer(path: Path) -> Path:
    """A history of a later version, with something in its log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE unknown (x)")
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    return path


def test_a_newer_file_is_refused_untouched(newer: Path) -> None:
    """Not an octet of it changes, nor is anything put beside it."""
    before = newer.read_bytes()
    with pytest.raises(StoreError, match="newer ntpaudit") as caught:
        open_database(str(newer))
    assert not is_damage(caught.value)
    assert newer.read_bytes() == before
    assert list(newer.parent.iterdir()) == [newer]


def test_a_newer_version_that_comes_first_is_not_taken_back(path: Path) -> None:
    """Where another process brings the file further than we know while we wait for our turn, it stays there."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        code = OPEN.replace("open_database(sys", "print('began', flush=True); open_database(sys")
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"began\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)  # it has seen version 0 and waits
        connection.execute("PRAGMA user_version=77")
        connection.execute("COMMIT")
    _, said = child.communicate()
    assert b"newer ntpaudit" in said
    assert version_of(path) == 77


def test_the_database_of_another_program_is_not_taken(path: Path) -> None:
    """A file that holds somebody else's tables is refused, not added to."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE addresses (name, street)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's") as caught:
        open_database(str(path))
    assert not is_damage(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("data", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside(data: bytes, path: Path) -> None:
    """It is renamed with its octets as they are, reported, and a new one begun."""
    path.write_bytes(data)
    notes = Messages("ntpaudit.store")
    open_database(str(path)).close()
    assert [aside.read_bytes() for aside in path.parent.glob("*.damaged-*")] == [data]
    assert len(notes) == 1
    assert version_of(path) == VERSION


def test_a_file_set_aside_is_still_read_with_its_journal(path: Path, tmp_path: Path) -> None:
    """What is only in the journal is found when the renamed file is opened."""
    with closing(open_database(str(path))) as connection:
        with transaction(connection):
            connection.execute("INSERT INTO state VALUES ('clock', '7')")
        crashed = tmp_path / "crashed" / path.name
        crashed.parent.mkdir()
        for part in ("", "-wal", "-shm"):
            crashed.with_name(crashed.name + part).write_bytes(path.with_name(path.name + part).read_bytes())
    assert set_aside_damaged(str(crashed))
    [aside] = [found for found in crashed.parent.iterdir() if not found.name.endswith(("-wal", "-shm"))]
    assert len(list(crashed.parent.iterdir())) == 3
    with closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("SELECT value FROM state").fetchall() == [("7",)]


def test_damage_met_while_a_file_is_opened(old: Path) -> None:
    """A file whose tables are gone is renamed although its head is sound."""
    with old.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 3996)
    open_database(str(old)).close()
    assert len(list(old.parent.glob("*.damaged-*"))) == 1
    assert version_of(old) == VERSION


def test_a_damaged_file_that_cannot_be_renamed_is_reported(disk: Path) -> None:
    """If the folder forbids renaming, that is reported, and nothing is claimed to have been done."""
    path, notes = disk / "history.sqlite3", Messages("ntpaudit.store")
    path.write_bytes(b"not a database" * 1000)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert not set_aside_damaged(str(path))
    with pytest.raises(StoreError, match="not a database"):
        open_database(str(path))
    assert [note.partition(" is damaged and ")[2][:17] for note in notes] == ["cannot be renamed"] * 2


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT nonsense",
        "INSERT INTO state VALUES ('key', NULL)",
        "INSERT INTO audits (id, host_ns, observation) VALUES ('x', 1, '')",
    ],
)
def test_what_is_no_damage_is_not_taken_for_it(statement: str, path: Path) -> None:
    """A statement that is wrong, or values that a column does not take, never cost the file its place."""
    with closing(open_database(str(path))) as connection:
        with pytest.raises(StoreError) as caught, transaction(connection):
            connection.execute(statement)
        assert not is_damage(caught.value)
        with pytest.raises(StoreError) as looked, store_errors(connection):
            connection.execute(statement)
        assert not is_damage(looked.value)


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    """What fails half-way, for whatever reason, has not been."""

    def fail(connection: sqlite3.Connection) -> None:
        with transaction(connection):
            saved_state.save_state(connection, "clock", 1)
            raise ValueError("a bug")

    with closing(open_database(str(path))) as connection:
        with pytest.raises(ValueError, match="bug"):
            fail(connection)
        assert saved_state.load_state(connection, "clock") is None
        with transaction(connection):
            saved_state.save_state(connection, "clock", 2)
        assert saved_state.load_state(connection, "clock") == 2


def test_a_committed_change_is_on_the_disk(path: Path) -> None:
    """A commit waits until the disk has the data: a power failure loses none of it."""
    with closing(open_database(str(path))) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


WITHOUT_ROOTS_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("where", "reason", "fix"),
    [
        (
            "locked/x",
            "user root may not write to folder {}/locked (owner 12345, mode 0755)",
            "let that user write there",
        ),
        (
            "locked/new/x",
            "folder {0}/locked/new is missing, and user root may not write to folder {0}/locked "
            "(owner 12345, mode 0755)",
            "create it for that user",
        ),
        ("file", "user root may not write to it (owner 12345, mode 0644)", "give it to that user"),
        ("file/x", "{}/file is not a folder", "remove it"),
        ("folder", "it is a folder", "name a file in it"),
    ],
)
def test_a_place_that_cannot_be_used_is_explained(where: str, reason: str, fix: str, tmp_path: Path) -> None:
    """One line: what is missing or forbidden, to whom it belongs, and what names another place."""
    (tmp_path / "locked").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, mode in (("locked", 0o755), ("file", 0o644)):
        os.chown(tmp_path / name, 12_345, 12_345)
        (tmp_path / name).chmod(mode)
    script = (
        "import sys; from ntpaudit.store.database import open_database\n"
        "try: open_database(sys.argv[1])\nexcept Exception as error: print(error)"
    )
    command = [*WITHOUT_ROOTS_RIGHTS, sys.executable, "-c", script, f"{tmp_path}/{where}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == (
        f"cannot store state in {tmp_path}/{where}: {reason.format(tmp_path)}; {fix}, or choose another path with "
        "history.path\n"
    )


@pytest.mark.needs("root", "mount")
def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    """It is what a unit's sandbox makes of a folder that it does not name."""
    script = (
        "import sys; from ntpaudit.store.database import open_database\n"
        "try: open_database(sys.argv[1], setting='STATE_DIRECTORY')\nexcept Exception as error: print(error)"
    )
    mounted = f'mount -t tmpfs -o ro none {tmp_path}; exec {sys.executable} -c "$0" {tmp_path}/x'
    done = subprocess.run(
        [*unshared("mount"), "sh", "-ec", mounted, script], check=True, capture_output=True, text=True, cwd=REPOSITORY
    )
    assert "read-only here; in a systemd unit see ReadWritePaths=)" in done.stdout
    assert done.stdout.endswith("or choose another path with STATE_DIRECTORY\n")
