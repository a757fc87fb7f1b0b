"""The history opened for reading: whatever its state, something useful is read or reported in a line."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ntpaudit.errors import StoreError
from ntpaudit.probes import service
from ntpaudit.store.database import VERSION, open_database
from ntpaudit.store.lock import AgentLock
from ntpaudit.store.paths import FILE_NAME
from ntpaudit.store.queries import open_history
from ntpaudit.store.readonly import open_readonly
from ntpaudit.store.saved_state import save_state
from tests.histories import World, write
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A history of ten minutes, closed."""
    path = tmp_path / "state" / FILE_NAME
    write(path, World(), range(10))
    return path


def count(path: Path) -> int:
    """Return how many audits a history has, read as commands read it."""
    with open_history(str(path)) as history:
        return history.window().size


def trouble(path: Path) -> str:
    """Return the error of a history that cannot be read; it is one line."""
    with pytest.raises(StoreError) as raised, open_readonly(str(path)) as connection:
        connection.execute("SELECT COUNT(record) FROM audits").fetchone()
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_reading_changes_nothing(file: Path) -> None:
    """The file is byte for byte the same, and cannot be written through what is opened."""
    before = file.read_bytes()
    assert count(file) == 10
    with pytest.raises(StoreError), open_readonly(str(file)) as connection:
        connection.execute("DELETE FROM audits")
    assert file.read_bytes() == before


def test_an_agent_that_may_not_write_its_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an agent runs and its state folder cannot be written, the message names the folder and why."""
    lock = AgentLock(str(tmp_path))
    try:
        assert "may not write" not in trouble(tmp_path / FILE_NAME)
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        reported = trouble(tmp_path / FILE_NAME)
    finally:
        lock.release()
    assert f"an agent runs but has stored nothing in {tmp_path / FILE_NAME} (user " in reported
    assert f"may not write to folder {tmp_path} (owner " in reported


@pytest.mark.needs("root")
def test_files_made_for_root_belong_to_the_owner_of_the_history(file: Path) -> None:
    """What SQLite makes beside it when root reads can be used by the agent, which is somebody else."""
    for path in (file.parent, file):
        os.chown(path, 1234, 1234)
    assert count(file) == 10
    assert {path.stat().st_uid for path in file.parent.iterdir()} == {1234}


def test_while_an_agent_writes(file: Path) -> None:
    """Neither waits for the other: what is committed is seen, what is under way is not."""
    agent = open_database(str(file))
    agent.execute("BEGIN IMMEDIATE")
    save_state(agent, "agent", {})
    agent.execute("DELETE FROM audits WHERE id > 5")
    assert count(file) == 10
    agent.execute("COMMIT")
    assert count(file) == 5
    agent.close()


def test_in_a_turn_that_an_agent_ends_nothing_is_held(file: Path) -> None:
    """A history that is open for reading does not keep an agent from writing and tidying up."""
    agent = open_database(str(file))
    with open_history(str(file)) as history:
        assert history.window().size == 10
        agent.execute("DELETE FROM audits")
        assert agent.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    agent.close()


MISSING: dict[str, Callable[[Path], object]] = {
    "no file": lambda path: path.unlink(),
    "no folder": lambda path: shutil.rmtree(path.parent),
    "an empty file": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("what", MISSING)
def test_nothing_there_says_what_to_do(what: str, file: Path) -> None:
    """Where no agent ever kept anything, its start is what helps."""
    MISSING[what](file)
    fix = f"if one runs already, read its log, else start one: {service.start()}"
    assert trouble(file) == f"no agent has stored a record in {file}; {fix}"


def _version(path: Path, version: int) -> None:
    """Say that a file is of another schema."""
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={version}")
    connection.close()


def test_histories_of_other_versions_are_distinguished(file: Path) -> None:
    """One of a later version is left alone, one that no release wrote is renamed by an agent."""
    _version(file, VERSION + 1)
    assert "newer ntpaudit" in trouble(file)
    assert "upgrade this one" in trouble(file)
    _version(file, 1)
    assert "is damaged (no schema has version 1)" in trouble(file)
    _version(file, 0)
    assert "another program's database" in trouble(file)


def test_damage_is_reported_in_a_line(file: Path) -> None:
    """No database at all, or one that is damaged inside: the error states what will happen to it."""
    torn = file.read_bytes()
    file.write_bytes(torn[:4096] + b"\xa5" * (len(torn) - 4096))
    assert "is damaged" in trouble(file)
    file.write_bytes(b"no database, but long enough to be one " * 100)
    assert "is damaged" in trouble(file)
    assert service.restart() in trouble(file)


def test_where_nothing_can_be_stored_the_reason_is_given(disk: Path) -> None:
    """To start an agent helps only if that user can write there."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    found = trouble(disk / FILE_NAME)
    assert f"may write there (user root may not write to folder {disk} (its file system is read-only" in found


def test_a_folder_or_a_device_is_no_history(tmp_path: Path) -> None:
    """What is no file gives the error of the system, and a pipe without a writer is not waited for."""
    assert "cannot be read: Is a directory" in trouble(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "no agent has stored a record" in trouble(tmp_path / "pipe")


ALONE = os.environ | {"COVERAGE_PROCESS_CONFIG": ""}
"""Somebody else may not write where coverage does."""

IMPORT = (
    "import sys; from pathlib import Path; from tests.store.test_readonly import count; "
    "from ntpaudit.store.readonly import find_history; from tests.world.another_user import become_another_user; "
)


def run(path: Path, *inside: str, before: str = "pass") -> tuple[str, str]:
    """Count in another process, that is confined somehow; return what it printed and the last line of its errors."""
    words = [*inside, sys.executable, "-c", f"{IMPORT}{before}; print(count(Path(sys.argv[1])))", str(path)]
    done = subprocess.run(words, cwd=REPOSITORY, env=ALONE, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip(), (done.stderr.splitlines() or [""])[-1]


@pytest.fixture
def frozen(file: Path) -> list[str]:
    """Words that run a command where the history's file system is read-only."""
    return [*unshared("mount"), "sh", "-ec", f'mount --bind -r "{file.parent}" "{file.parent}"; exec "$@"', "sh"]


def test_a_history_on_a_read_only_file_system(file: Path, frozen: list[str]) -> None:
    """One that was closed is read, though no lock file can be made beside it."""
    assert sorted(os.listdir(file.parent)) == [FILE_NAME]
    assert run(file, *frozen) == ("10", "")


def test_a_history_that_was_not_closed_on_a_read_only_file_system(file: Path, frozen: list[str]) -> None:
    """What is still in the write-ahead log is read with it, or an error says why not: half is never all."""
    agent = open_database(str(file))
    agent.execute("DELETE FROM audits WHERE id > 7")
    for part in ("", "-wal", "-shm"):
        shutil.copy(f"{file}{part}", f"{file.parent}/copy{part}")
    agent.close()
    assert run(file.parent / "copy", *frozen) == ("7", "")
    os.unlink(f"{file.parent}/copy-shm")
    printed, error = run(file.parent / "copy", *frozen)
    assert printed == ""
    assert "was not closed, and its folder cannot be written; copy it with its -wal file" in error


@pytest.mark.needs("another-user")
def test_another_user_is_advised_to_use_sudo(file: Path) -> None:
    """The state of a service is root's to read."""
    os.chmod(file.parent, stat.S_IRWXU)
    os.chmod(file, 0o644)
    printed, error = run(file, before="become_another_user()")
    assert printed == ""
    assert error.endswith(f"StoreError: only root may read {file}; run the command with sudo")


SYSTEM = """
mount -t tmpfs -o mode=755 none /var/lib
mkdir -m 700 /var/lib/private
mkdir /var/lib/private/ntpaudit
ln -s private/ntpaudit /var/lib/ntpaudit
mkdir -p /var/lib/home/ntpaudit
if [ -e "$1" ]; then cp "$1" /var/lib/home/ntpaudit/; fi
chown -R 65534:65534 /var/lib/home
shift
exec "$@"
"""
"""A system whose agent keeps its history as a service does, and a user with a history of his own, if one is named."""

FIND = IMPORT + "become_another_user(); print(find_history({}, by_agent=bool({})))"


@pytest.mark.needs("another-user")
@pytest.mark.parametrize("by_agent", [True, False])
def test_our_own_history_comes_first_if_it_holds_any(by_agent: bool, file: Path) -> None:
    """A user who keeps records reads his own; one who keeps none reads the system's, where there is a system's."""

    def found(own: str, environment: dict[str, str]) -> str:
        words = [*unshared("mount"), "sh", "-ec", SYSTEM, "sh", own, sys.executable, "-c"]
        script = FIND.format(environment, int(by_agent))
        return subprocess.run(
            [*words, script], cwd=REPOSITORY, env=ALONE, capture_output=True, text=True, check=True
        ).stdout.strip()

    user = {"XDG_STATE_HOME": "/var/lib/home"}
    mine, system = f"/var/lib/home/ntpaudit/{FILE_NAME}", f"/var/lib/ntpaudit/{FILE_NAME}"
    assert found("", user) == system
    assert found("", user | {"STATE_DIRECTORY": "/elsewhere"}) == f"/elsewhere/{FILE_NAME}"
    assert found(str(file), user) == mine
    connection = open_database(str(file))
    connection.execute("UPDATE audits SET kind = NULL")
    connection.close()
    assert found(str(file), user) == (system if by_agent else mine)
