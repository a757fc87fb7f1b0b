"""The store: all or nothing, whatever ends the process; and never an audit lost, whatever happens to the file."""

import fcntl
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from ntpaudit.core.ntp.rate_limit import Instant, ServerState, ServerStates
from ntpaudit.errors import BusyError
from ntpaudit.store import audits, database, outbox, retention, saved_state
from ntpaudit.store import state as state_module
from ntpaudit.store.database import PAGE_BYTES, open_database
from ntpaudit.store.lock import AgentLock, agent_runs, agent_vouches
from ntpaudit.store.state import StateStore, keep_events_and_state
from ntpaudit.store.unsaved import Unsaved, UnsavedFile
from tests.abilities import ANOTHER_USER
from tests.logs import Messages
from tests.store.audits import audit, deliver, entry, event, find, in_store, keep, number_of, once, stamp_entry
from tests.waiting import is_running, until
from tests.world.another_user import let_others_in
from tests.world.packages import REPOSITORY

KILLS = 60


class Notes(Messages):
    """What the store logs."""

    def __init__(self) -> None:
        super().__init__("ntpaudit.store")


def is_sound(store: StateStore) -> bool:
    """Return whether a store has no error."""
    return store.error is None


def fill(disk: Path) -> None:
    """Take all the space that a disk has left."""
    with (disk / "filler").open("ab", buffering=0) as filler:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue


def python(*words: str, path: Path | None = None) -> "subprocess.Popen[str]":
    """Start a Python process; where a path is given, wait until it says that it is ready."""
    untraced = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}  # it is killed
    child = subprocess.Popen(
        [sys.executable, *words],
        env=untraced | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if path is not None:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    return child


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let another process lock a file so that no other can write."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('ready', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-IS", "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        child.communicate()


@pytest.mark.untraced
def test_an_audit_is_kept_whole_or_not_at_all_when_the_process_is_killed(path: Path, tmp_path: Path) -> None:
    """After each of many kill -9 the file is sound, and every audit has its record, hour, event and entry once."""
    delivered = tmp_path / "delivered"
    rand = random.Random(3)
    pending = kills = last = 0
    starter = python("-m", "tests.store.writer", str(path), str(delivered))
    assert starter.stdin is not None
    assert starter.stdout is not None
    while kills < KILLS or last <= 5 * KILLS or pending == 0:
        longer = 4 ** (kills // KILLS)  # a busy machine needs more kills, and more time between them, to come as far
        kills += 1
        assert kills <= 8 * KILLS
        starter.stdin.write("\n")
        starter.stdin.flush()
        writer = int(starter.stdout.readline())
        time.sleep(longer * rand.uniform(0.0, 0.06))
        os.kill(writer, signal.SIGKILL)
        until(lambda writer=writer: not is_running(writer), "the end of the process")  # type: ignore[misc]
        found = find(path)
        last = found.states.get("clock", 0)
        every = list(range(1, last + 1))
        arrived = {int(line) for line in delivered.read_text().splitlines()} if delivered.exists() else set()
        assert found.audits == every
        assert found.rolled_up == last
        assert found.events == every
        assert sorted(once(found.outbox) | arrived) == every
        assert found.unjudged in ([], [last + 1])
        pending += len(found.unjudged)  # or the test would not show that they are found
    starter.communicate()


def test_a_kill_after_a_confirmation_does_not_undo_it(path: Path) -> None:
    """The commit does not wait for the disk, but the kernel has it: nothing is sent again that had been confirmed."""
    code = (
        "import os, sys; from ntpaudit.store import outbox; from ntpaudit.store.state import StateStore\n"
        "from tests.store.audits import keep\n"
        "store = StateStore(sys.argv[1]); keep(store, 1); keep(store, 2)\n"
        "store.ack(store.read(outbox.waiting, 1)); os.kill(os.getpid(), 9)"
    )
    child = python("-c", code, str(path))
    child.communicate()
    assert child.returncode == -9
    assert find(path).outbox == [2]


def test_an_observation_without_a_record_is_found_and_finished(path: Path) -> None:
    """What an agent saw and had no time to judge is found by the next one, and judged in its place."""
    first = StateStore(str(path))
    keep(first, 1, "network")
    first.write(audits.keep_observation, audit(2, "network").observation, "network")
    first.close()
    second = StateStore(str(path))
    [pending] = second.write(audits.pending_observations)
    assert (pending.kind, pending.observation) == ("network", audit(2, "network").observation)
    second.store_audit(*audit(2, "network"))
    assert second.write(audits.pending_observations) == []
    second.close()
    assert find(path).audits == [1, 2]


STEPS: dict[str, Callable[[StateStore], object]] = {
    "update": lambda store: store.update(lambda _: {"192.0.2.1 123": ServerState(consecutive_timeouts=2)}),
    "keep_observation": lambda store: store.write(
        audits.keep_observation, audit(900, "network").observation, "network"
    ),
    "store_audit": lambda store: store.store_audit(*audit(900, "network")),
    "keep_events": lambda store: store.write(keep_events_and_state, [event(901)], "b" * 32, entry(901), {"steps": 901}),
    "local": lambda store: keep(store, 902),
    "deliver": lambda store: ARRIVED.extend(deliver(store, refused=frozenset({5}))),
    "date": lambda store: _date(store),
    "save": lambda store: store.write(saved_state.save_state, "agent", 905),
}

ARRIVED: list[int] = []


def _date(store: StateStore) -> None:
    for undated in store.read(outbox.unstamped):
        stamp_entry(store, undated._replace(lines=entry(903).lines, stamp_ns=undated.host_ns + 1))


@pytest.mark.parametrize("full_from", STEPS)
def test_a_full_disk_loses_and_doubles_nothing(full_from: str, disk: Path) -> None:
    """Whenever the disk gets full, the store goes on in memory, delivers from there, and moves all into the file."""
    path = disk / "history.sqlite3"
    ARRIVED.clear()
    store = StateStore(str(path), retry_s=0.02)
    for number in range(1, 9):
        keep(store, number, "network" if number % 3 == 0 else "local")
    store.write(keep_events_and_state, [event(903)], "b" * 32, entry(903, is_dated=False), {})
    for name, step in STEPS.items():
        if name == full_from:
            fill(disk)
        step(store)
    number = 1000
    while is_sound(store):  # what the log had room for is used up
        number += 1
        keep(store, number)
        assert number < 3000
    assert "full" in str(store.error)
    for more in range(number + 1, number + 30):
        keep(store, more, "network" if more % 3 == 0 else "local")
    from_memory = list(deliver(store))
    (disk / "filler").unlink()

    def is_sound_once_more_is_written() -> bool:
        store.write(saved_state.save_state, "agent", 905)
        return is_sound(store)

    until(is_sound_once_more_is_written)
    _date(store)
    arrived = set(ARRIVED) | set(from_memory) | set(deliver(store, refused=frozenset({5})))
    states = in_store(store, lambda connection: connection.execute("SELECT endpoint FROM servers").fetchall())
    store.close()
    audits = [*range(1, 9), 900, 902, *range(1001, number + 30)]
    found = find(path)
    assert sorted(once(found.audits)) == audits
    assert found.unjudged == []
    assert found.rolled_up == len(audits)
    assert sorted(once(found.events)) == sorted([*audits, 901, 903])
    assert found.outbox == []
    assert arrived | {5} == {*audits, 901, 903}
    assert (once(found.aside), 5 in arrived) in (({5}, False), ({5}, True), (set(), True))
    assert states == [("192.0.2.1 123",)]
    assert found.states == {"clock": number + 29, "steps": 901, "agent": 905}


def test_a_full_disk_is_reported_once_and_so_is_its_end(disk: Path) -> None:
    """As long as it lasts nothing is said again."""
    notes = Notes()
    store = StateStore(str(disk / "history.sqlite3"), retry_s=0.0)
    keep(store, 1)
    fill(disk)
    number = 1
    while is_sound(store):
        number += 1
        keep(store, number)
    before = len(notes)
    last = number + 300
    for more in range(number + 1, last):
        keep(store, more)
    assert notes.count_of("continuing in memory") - notes.count_of("works again") == 1
    assert len(notes) <= before + 4  # the little that closing the log gave back may be used up once more
    (disk / "filler").unlink()
    keep(store, last)
    assert is_sound(store)
    assert notes.count_of("continuing in memory") == notes.count_of("works again")
    store.close()
    assert once(find(disk / "history.sqlite3").audits) == set(range(1, last + 1))


def test_a_file_system_that_becomes_read_only(disk: Path) -> None:
    """The state is still read, what is kept stays in memory, and goes into the file when that can be written again."""
    path = disk / "history.sqlite3"
    first = StateStore(str(path))
    keep(first, 1)
    first.update(lambda _: {"192.0.2.1 123": ServerState(kod="DENY", kod_at=Instant(None, 1, 2))})
    first.close()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    second = StateStore(str(path), retry_s=0.01)
    AgentLock(str(disk)).release()
    assert second.read(saved_state.load_state, "clock") == 1
    asked: list[ServerStates] = []
    second.update(lambda states: asked.append(states) or states)  # type: ignore[func-returns-value]
    assert asked[0]["192.0.2.1 123"].kod == "DENY"
    keep(second, 2, "network")
    assert not is_sound(second)
    assert list(deliver(second)) == [2]
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    time.sleep(0.2)
    keep(second, 3)
    assert is_sound(second)
    assert list(deliver(second)) == [1, 3]
    second.close()
    assert find(path).audits == [1, 2, 3]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """Where there can be no folder the agent goes on, and at its end says how much is lost."""
    (tmp_path / "file").write_text("in the way")
    notes = Notes()
    store = StateStore(str(tmp_path / "file" / "history.sqlite3"), retry_s=0.0)
    for number in range(1, 4):
        keep(store, number, "network")
    assert list(deliver(store)) == [1, 2, 3]
    store.close()
    assert notes.count_of("continuing in memory") == 1
    assert notes.count_of("3 records could not be written") == 1
    assert notes.count_of("; repair the folder, or set history.path") == 1


def test_a_locked_file_blocks_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent waits for a lock once and shortly, goes on in memory, ends in time, and loses nothing."""
    now_s, waits = [0.0], []

    def open_noting(path: str, wait_s: float) -> sqlite3.Connection:
        waits.append(wait_s)
        return open_database(path, wait_s)

    monkeypatch.setattr(database, "open_database", open_noting)
    monkeypatch.setattr(state_module, "time", SimpleNamespace(monotonic=lambda: now_s[0], sleep=time.sleep))
    notes = Notes()
    store = StateStore(str(path), retry_s=0.3)
    keep(store, 1)
    with locked(path):
        for number in range(2, 20):
            keep(store, number, "network")
        assert not is_sound(store)
        assert store.read(outbox.backlog)[0] == 18  # reading waits for no lock, and what was in the file stays there
        assert waits == [state_module.WAIT_S]  # which was at its first use for the lock: then the file was left alone
        now_s[0] += 0.35
        keep(store, 20)
        keep(store, 21)
        assert waits == [state_module.WAIT_S] * 2
        store.close()
        assert waits == [state_module.WAIT_S, state_module.WAIT_S, state_module.CLOSE_WAIT_S]
    assert notes.count_of("20 records could not be written") == 1
    assert find(path).audits == [1]


def test_a_file_that_was_locked_for_a_while(path: Path) -> None:
    """What was kept meanwhile goes into the file when it can be written again, after what was there."""
    store = StateStore(str(path), retry_s=0.0)
    keep(store, 1)
    with locked(path):
        assert store.read(outbox.waiting, 9) != []  # reading goes on
        keep(store, 2, "network")
        keep(store, 3)
    keep(store, 4)
    assert is_sound(store)
    assert [number_of(entry.lines) for entry in store.read(outbox.waiting, 9)] == [1, 2, 3, 4]
    store.close()
    found = find(path)
    assert (found.audits, found.events, found.rolled_up) == ([1, 2, 3, 4], [1, 2, 3, 4], 4)


def test_a_lock_of_a_second_keeps_records_in_memory_for_a_second_or_two(path: Path) -> None:
    """A lock is no full disk: once it is gone, what was kept meanwhile is soon in the file."""
    store = StateStore(str(path))
    keep(store, 1)
    with locked(path):
        keep(store, 2)
    released_s = time.monotonic()
    while not is_sound(store):
        time.sleep(0.05)
        store.read(saved_state.load_state, "clock")
        assert time.monotonic() - released_s < state_module.RETRY_S / 2  # when a full disk would be tried again
    store.close()
    assert find(path).audits == [1, 2]


def test_a_full_disk_is_not_tried_every_second(disk: Path) -> None:
    """What only an operator can fix is retried after thirty seconds."""
    store = StateStore(str(disk / "history.sqlite3"))
    keep(store, 1)
    fill(disk)
    for number in range(2, 1000):
        keep(store, number)
        if not is_sound(store):
            break
    (disk / "filler").unlink()
    time.sleep(1.2)
    store.read(saved_state.load_state, "clock")
    assert not is_sound(store)
    store.close()
    assert once(find(disk / "history.sqlite3").audits) == set(range(1, number + 1))


def test_an_agent_that_ends_waits_for_a_lock(path: Path) -> None:
    """A lock that ends within a second costs an agent that ends nothing."""
    notes = Notes()
    store = StateStore(str(path))
    keep(store, 1)
    with ExitStack() as lock:
        lock.enter_context(locked(path))
        keep(store, 2)
        release = threading.Timer(0.6, lock.close)
        release.start()
        store.close()
        release.join()
    assert notes.count_of("could not be written") == 0
    assert find(path).audits == [1, 2]


def test_what_is_dropped_is_counted_for_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file and the stand-in had no room for makes one total, which outlives both, and the agent."""
    monkeypatch.setattr(state_module, "MAX_MEMORY_RECORDS", 5)
    store = StateStore(str(path), retry_s=0.0)
    assert store.read(saved_state.dropped) == 0
    for number in range(1, 5):
        keep(store, number)
    store.write(retention.prune_by_size, 0)
    lost = 4
    assert store.read(saved_state.dropped) == lost
    with locked(path):
        for number in range(5, 13):
            keep(store, number)
        assert store.read(saved_state.dropped) == lost + 3
    assert store.read(saved_state.dropped) == lost + 3
    assert is_sound(store)
    store.close()
    again = StateStore(str(path), retry_s=0.0)
    assert again.read(saved_state.dropped) == lost + 3
    path.rename(path.with_name("moved"))  # the new file continues the count too
    keep(again, 13)
    keep(again, 14)
    assert is_sound(again)
    assert again.read(saved_state.dropped) == lost + 3
    again.close()


def test_only_what_was_not_delivered_counts_as_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that memory had no room for are gone from the history; the database has those that it accepted."""
    monkeypatch.setattr(state_module, "MAX_MEMORY_RECORDS", 5)
    notes, store = Notes(), StateStore(str(path), retry_s=0.0)
    with locked(path):
        for number in range(1, 13):
            keep(store, number)
            assert list(deliver(store)) == [number]
        assert store.read(saved_state.dropped) == 0
        assert Path(f"{path}-unsaved").read_text().split() == ["12", "0"]
    assert store.read(saved_state.dropped) == 0
    assert notes.count_of("except 7 records dropped for lack of memory") == 1
    store.close()
    assert find(path).audits == list(range(8, 13))


def test_a_total_that_the_stand_in_did_not_know_is_added_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file could not even be read, its total is not replaced by what the stand-in dropped."""
    monkeypatch.setattr(state_module, "MAX_MEMORY_RECORDS", 5)
    first = StateStore(str(path))
    keep(first, 1)
    first.write(retention.prune_by_size, 0)
    first.close()
    hidden = path.with_name("hidden")
    path.rename(hidden)
    path.mkdir()  # in the way
    store = StateStore(str(path), retry_s=0.0)
    for number in range(2, 10):
        keep(store, number)
    path.rmdir()
    hidden.rename(path)
    assert store.read(saved_state.load_state, "clock") == 9
    assert is_sound(store)
    assert store.read(saved_state.dropped) == 1 + 3
    store.close()


def test_an_observation_in_the_file_and_its_record_in_memory(path: Path) -> None:
    """A file that fails between the two is not left with an observation that is judged a second time."""
    store = StateStore(str(path), retry_s=0.0)
    store.write(audits.keep_observation, audit(1, "network").observation, "network")
    with locked(path):
        store.store_audit(*audit(1, "network"))
    keep(store, 2)
    store.close()
    found = find(path)
    assert (found.audits, found.unjudged, found.rolled_up) == ([1, 2], [], 2)


def test_an_observation_in_memory_and_its_record_in_the_file(path: Path) -> None:
    """A file that works again between the two gets the record for this observation, not for another of the same id."""
    store = StateStore(str(path), retry_s=0.0)
    for number in range(1, 6):
        keep(store, number)
    with locked(path):
        kept = store.write(audits.keep_observation, audit(6, "network").observation, "network")
    assert kept <= 5  # an id that the file knows too
    store.store_audit(*audit(6, "network"))
    assert is_sound(store)
    store.close()
    found = find(path)
    assert (found.audits, found.unjudged, found.rolled_up) == ([1, 2, 3, 4, 5, 6], [], 6)


@pytest.mark.parametrize("act", ["confirm", "set_aside", "stamp_entry"])
def test_an_entry_of_memory_is_never_taken_for_one_of_the_file(act: str, path: Path) -> None:
    """What was read before the state moved does nothing to the entries that have its ids by then."""
    store = StateStore(str(path), retry_s=0.0)
    keep(store, 1)
    keep(store, 2)
    with locked(path):
        keep(store, 3)
        keep(store, 4)
        read = store.read(outbox.waiting, 9)
        assert [number_of(entry.lines) for entry in read] == [3, 4]
        assert {entry.id for entry in read} == {1, 2}
    store.write(saved_state.save_state, "agent", 1)
    assert is_sound(store)
    match act:
        case "confirm":
            store.ack(read)
        case "set_aside":
            store.write(outbox.dead_letter, read[0], "no")
        case _:
            stamp_entry(store, read[0]._replace(lines="wrong", stamp_ns=7))
    assert [number_of(entry.lines) for entry in store.read(outbox.waiting, 9)] == [1, 2, 3, 4]
    store.close()


def _header(data: bytearray) -> None:
    data[:100] = b"\xa5" * 100


def _first_page(data: bytearray) -> None:
    data[100:PAGE_BYTES] = b"\xa5" * (PAGE_BYTES - 100)


def _second_half(data: bytearray) -> None:
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)


def _truncated(data: bytearray) -> None:
    del data[len(data) // 2 :]


def _all_but_the_schema(data: bytearray) -> None:
    data[4096:] = b"\xa5" * (len(data) - 4096)


DAMAGES = (_header, _first_page, _second_half, _truncated, _all_but_the_schema)


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_the_agent_goes_on(
    damage: Callable[[bytearray], None], is_open: bool, path: Path
) -> None:
    """Nothing is deleted, and every audit from the notice on is in the new file once."""
    notes = Notes()
    first = StateStore(str(path))
    for number in range(1, 200):
        keep(first, number, "network" if number % 5 == 0 else "local")
    first.close()
    store = StateStore(str(path), retry_s=0.0)
    if is_open:
        assert store.read(saved_state.load_state, "clock") == 199
    data = bytearray(path.read_bytes())
    damage(data)
    with path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))
    reported_from = 0
    for number in range(200, 300):
        keep(store, number, "network" if number % 5 == 0 else "local")
        store.write(audits.pending_observations)
        store.write(retention.prune_by_size, 1 << 30)
        if not reported_from and notes:
            reported_from = number
    store.close()
    assert is_sound(store)
    copies = [found for found in path.parent.glob("*.damaged-*") if not found.name.endswith(("-wal", "-shm"))]
    if is_open and not notes:  # the page was at hand, and was written out again
        copies, reported_from = [path], 1
    assert [len(copy.read_bytes()) >= len(data) // 2 for copy in copies] == [True]
    assert set(range(reported_from, 300)) <= once(find(path).audits)


def test_damage_that_shows_only_when_an_old_page_is_read(path: Path) -> None:
    """Reading fails, so the file is renamed, and what was read is read from what could be saved."""
    notes = Notes()
    first = StateStore(str(path))
    for number in range(1, 300):
        keep(first, number, "network")
    first.close()
    with closing(sqlite3.connect(path)) as connection:
        pages = connection.execute("SELECT pageno FROM dbstat WHERE name = 'outbox' AND pagetype = 'leaf'").fetchall()
    with path.open("r+b") as file:
        file.seek((pages[0][0] - 1) * PAGE_BYTES)
        file.write(b"\xff" * PAGE_BYTES)
    store = StateStore(str(path), retry_s=0.0)
    keep(store, 300)
    assert notes == []
    assert store.read(outbox.waiting, 10) == []
    assert notes.count_of("malformed") == 1
    assert store.read(saved_state.load_state, "clock") == 300
    keep(store, 301)
    assert is_sound(store)
    assert list(deliver(store)) == [301]
    store.close()
    assert list(path.parent.glob("*.damaged-*"))


def test_a_text_that_is_none_is_damage(path: Path) -> None:
    """Octets that are no text, where a text should be, do not stop delivery for ever."""
    store = StateStore(str(path), retry_s=0.0)
    keep(store, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE outbox SET lines = CAST(x'ff00fe' AS TEXT)")
    assert store.read(outbox.waiting, 9) == []
    keep(store, 2)
    assert list(deliver(store)) == [2]
    store.close()


def test_a_log_of_garbage_costs_no_more_than_what_was_in_it(path: Path) -> None:
    """A write-ahead log that makes no sense is passed over, and the file goes on from before it."""
    first = StateStore(str(path))
    for number in range(1, 50):
        keep(first, number)
    first.close()
    Path(f"{path}-wal").write_bytes(os.urandom(20_000))
    notes = Notes()
    store = StateStore(str(path))
    keep(store, 50)
    store.close()
    assert notes == []
    assert find(path).audits == list(range(1, 51))


def test_a_history_that_is_removed_or_replaced(path: Path) -> None:
    """A new file is begun with the state as it was and with all that still had to be delivered, at once."""
    notes = Notes()
    store = StateStore(str(path))
    keep(store, 1)
    keep(store, 2)
    store.write(outbox.dead_letter, store.read(outbox.waiting, 1)[0], "400: refused")
    for found in path.parent.iterdir():
        found.unlink()
    keep(store, 3)
    assert is_sound(store)
    assert find(path).outbox == [2, 3]  # in the file before the next record: nothing waits for a second use
    keep(store, 4)
    assert notes.count_of("removed or replaced") == 1
    assert notes.count_of("1 undelivered record") == 1
    store.close()
    new = find(path)
    assert (new.audits, new.outbox, new.aside, new.states) == ([3, 4], [2, 3, 4], [1], {"clock": 4})


def test_a_history_that_is_deleted_many_times_leaves_nothing_open(path: Path) -> None:
    """Each file that was deleted is closed, and the log of the file that took its place stays."""
    store = StateStore(str(path))
    keep(store, 0)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 31):
        for found in path.parent.iterdir():
            found.unlink()
        keep(store, number)
        assert Path(f"{path}-wal").stat().st_size > 0
    assert len(os.listdir("/proc/self/fd")) <= before
    assert [number_of(entry.lines) for entry in store.read(outbox.waiting, 99)] == list(range(31))
    store.close()
    assert find(path).outbox == list(range(31))


def test_a_backup_put_in_the_place_of_the_history_gets_what_it_lacks(path: Path) -> None:
    """Entries that the backup has too are there once, what was delivered or kept since is added behind them."""
    backup = path.with_name("backup")
    store = StateStore(str(path))
    keep(store, 1)
    keep(store, 2)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    keep(store, 3)
    backup.rename(path)
    keep(store, 4)
    store.close()
    found = find(path)
    assert (found.audits, found.outbox) == ([1, 2, 4], [1, 2, 3, 4])


def test_a_history_deleted_where_no_other_can_be_made(path: Path) -> None:
    """What had to be delivered waits with the deleted file until there is a new one, or is counted at the end."""
    folder, notes = path.parent / "folder", Notes()
    inner = folder / "history.sqlite3"
    store = StateStore(str(inner), retry_s=0.0)
    for number in range(1, 4):
        keep(store, number)
    for found in folder.iterdir():
        found.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    keep(store, 4)
    assert not is_sound(store)
    folder.unlink()
    keep(store, 5)
    assert is_sound(store)
    assert [number_of(entry.lines) for entry in store.read(outbox.waiting, 9)] == [1, 2, 3, 4, 5]
    for found in folder.iterdir():
        found.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    keep(store, 6)
    store.close()
    assert notes.count_of("6 records could not be written") == 1  # five of the file that was deleted, one of memory


@pytest.mark.parametrize("removed", ["-wal", "-shm"])
def test_a_log_deleted_under_the_agent_costs_nothing(removed: str, path: Path, tmp_path: Path) -> None:
    """SQLite goes on writing to a log without a name; the store detects it, and a power failure later loses nothing."""
    notes, crashed = Notes(), tmp_path / "crashed"
    store = StateStore(str(path))
    keep(store, 1)
    keep(store, 2)
    Path(f"{path}{removed}").unlink()
    keep(store, 3)
    keep(store, 4)
    crashed.mkdir()
    for part in ("", "-wal"):  # as a new boot finds them
        (crashed / f"{path.name}{part}").write_bytes(Path(f"{path}{part}").read_bytes())
    assert find(crashed / path.name).outbox == [1, 2, 3, 4]
    store.close()
    assert find(path).audits == [1, 2, 3, 4]
    assert notes == [f"{path}{removed} was removed or replaced; its content is saved in {path.name}"]


def test_a_killed_agent_leaves_the_count_of_what_was_in_memory_only(disk: Path, tmp_path: Path) -> None:
    """With the disk full and the agent killed, the next one reports how many records are lost, and counts them."""
    path = disk / "history.sqlite3"
    code = (
        "import sys, time; from pathlib import Path; from tests.store.audits import deliver, keep\n"
        "from tests.store.test_state import fill, is_sound; from ntpaudit.store import outbox\n"
        "from ntpaudit.store.state import StateStore\n"
        "path = Path(sys.argv[1])\n"
        "store = StateStore(str(path)); keep(store, 1); fill(path.parent)\n"
        "number = 1\n"
        "while is_sound(store):\n"
        "    number += 1; keep(store, number)\n"
        "keep(store, number + 1); keep(store, number + 2); store.ack(store.read(outbox.waiting, 1))\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    child = python("-c", code, str(path), path=path)
    child.kill()
    child.communicate()
    (disk / "filler").unlink()
    notes = Notes()
    store = StateStore(str(path))
    assert store.read(saved_state.dropped) == 2
    assert notes.count_of("3 records of the last run") == 1
    assert notes.count_of("2 of them were not delivered") == 1
    store.close()
    again = StateStore(str(path))
    assert again.read(saved_state.dropped) == 2  # and is counted once
    again.close()
    assert len(notes) == 1


def test_a_count_that_cannot_be_taken_over_at_once_is_not_lost(path: Path) -> None:
    """A file that is locked when the agent starts knows of the loss when it can be written, and knows it once."""
    notes = Notes()
    first = StateStore(str(path))
    keep(first, 1)
    first.close()
    Path(f"{path}-unsaved").write_text("5 3")
    second = StateStore(str(path), retry_s=0.0)
    with locked(path):
        assert second.read(saved_state.load_state, "clock") == 1
        assert second.read(saved_state.dropped) == 0
        keep(second, 2)
        assert Path(f"{path}-unsaved").read_text().split() == ["6", "4"]
    assert second.read(saved_state.dropped) == 3
    second.close()
    assert notes.count_of("5 records of the last run") == 1
    third = StateStore(str(path))
    assert third.read(saved_state.dropped) == 3
    third.close()
    assert find(path).audits == [1, 2]


@pytest.mark.parametrize("text", ["", "x", "1", "1 2 3", "-1 2", "99999999999999999999 1", "\udcff 2"])
def test_a_count_that_makes_no_sense_is_none(text: str, path: Path) -> None:
    """Whatever stands in the small file, the agent starts."""
    notes = Notes()
    Path(f"{path}-unsaved").write_bytes(text.encode(errors="surrogateescape"))
    store = StateStore(str(path))
    keep(store, 1)
    assert store.read(saved_state.dropped) == 0
    store.close()
    assert notes == []


def test_a_count_never_overwrites_a_file_with_a_second_name(path: Path) -> None:
    """The small file may be another user's hard link to a file that only we may change."""
    precious = path.parent / "precious"
    precious.write_text("old")
    Path(f"{path}-unsaved").hardlink_to(precious)
    store = StateStore(str(path))
    keep(store, 1)
    store.close()
    assert precious.read_text() == "old"


def test_a_newer_history_is_left_alone(path: Path) -> None:
    """The file of a later version is not touched, and the agent goes on in memory."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
        connection.execute("CREATE TABLE unknown (x)")
    before = path.read_bytes()
    notes = Notes()
    store = StateStore(str(path), retry_s=0.0)
    keep(store, 1)
    assert list(deliver(store)) == [1]
    store.close()
    assert notes.count_of("newer ntpaudit") == 1  # when it began: a reason is not repeated
    assert notes.count_of("1 record could not be written") == 1
    assert path.read_bytes() == before


def test_the_stand_in_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has room for a limited number of audits; the oldest are dropped, and their number is reported."""
    monkeypatch.setattr(state_module, "MAX_MEMORY_RECORDS", 20)
    path, notes = tmp_path / "folder" / "history.sqlite3", Notes()
    path.parent.write_text("in the way")
    store = StateStore(str(path), retry_s=0.0)
    for number in range(1, 51):
        keep(store, number, "network" if number % 2 else "local")
    assert store.read(outbox.backlog)[0] == 20
    path.parent.unlink()
    keep(store, 51)
    assert notes.count_of("30 records dropped for lack of memory") == 1
    store.close()
    found = find(path)
    assert (found.audits, found.outbox) == (list(range(31, 52)), list(range(31, 52)))
    assert found.rolled_up == 51  # the hours know of all


def test_a_log_that_only_grows_is_reported_and_cut_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that never ends is reported; when it ends, the log is small again."""
    monkeypatch.setattr(state_module, "MAX_WAL_BYTES", 8 << 20)
    notes, log = Notes(), Path(f"{path}-wal")
    store = StateStore(str(path), retry_s=0.0)
    keep(store, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM audits").fetchone()
        large = random.Random(1).randbytes(1 << 20).hex()
        for number in range(2, 20):
            store.write(saved_state.save_state, "large", f"{number}{large}")
        assert log.stat().st_size > 8 << 20
        assert "-wal keeps growing" in str(store.error)
    for number in range(20, 22):
        store.write(saved_state.save_state, "large", f"{number}{large}")
        keep(store, number)
    assert is_sound(store)
    assert log.stat().st_size <= 5 << 20
    assert len(notes) == 1
    store.close()


def test_a_large_change_does_not_leave_a_large_log(path: Path) -> None:
    """After a transaction of many rows the log is cut back."""
    store = StateStore(str(path))

    def many(connection: sqlite3.Connection) -> None:
        for number in range(40_000):
            outbox.enqueue(connection, entry(number)._replace(lines="x" * 700), None)

    in_store(store, many)
    for number in range(3):
        keep(store, number)
    assert Path(f"{path}-wal").stat().st_size <= 5 << 20
    store.close()


def test_threads_share_a_store(path: Path) -> None:
    """The agent, its polling and its delivery use one store at once, beside one-shot checks: nothing is lost."""
    store = StateStore(str(path))
    arrived: list[int] = []
    failures: list[BaseException] = []
    ended = threading.Event()

    def guarded(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # it is raised in the test
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def survey() -> None:
        for number in range(150):
            known = {f"192.0.2.{number} 123": ServerState(consecutive_timeouts=number + 1)}
            store.update(lambda _, known=known: known)  # type: ignore[misc]

    def delivery() -> None:
        while not ended.is_set() or store.read(outbox.backlog)[0]:
            arrived.extend(deliver(store))

    code = (
        "import sys; from ntpaudit.store.one_shot import OneShotStore; from tests.store.audits import audit\n"
        "for number in range(5000, 5060):\n"
        "    store = OneShotStore(sys.argv[1]); concluded = audit(number, 'network')\n"
        "    kept = store.keep_observation(concluded.observation); assert kept\n"
        "    store.keep_record(kept, concluded.record); store.close()\n"
    )
    with ExitStack() as stack:
        check = stack.enter_context(python("-c", code, str(path)))
        threads = [guarded(survey), guarded(delivery)]
        for number in range(1, 401):
            keep(store, number, "network" if number % 5 == 0 else "local")
        threads[0].join()
        ended.set()
        threads[1].join()
        assert check.wait() == 0
    assert failures == []
    assert is_sound(store)
    assert arrived == list(range(1, 401))
    remembered = in_store(store, lambda connection: connection.execute("SELECT COUNT(*) FROM servers").fetchone())
    assert remembered == (150,)
    store.close()
    found = find(path)
    assert once(found.audits) == set(range(1, 401)) | set(range(5000, 5060))
    assert found.rolled_up == 400


def test_only_one_agent_has_a_folder(tmp_path: Path) -> None:
    """The second is refused at once, and may come when the first was killed."""
    code = (
        "import sys, time; from ntpaudit.store.lock import AgentLock; claim = AgentLock(sys.argv[1]);"
        "print('ready', flush=True); time.sleep(600)"
    )
    child = python("-c", code, str(tmp_path), path=tmp_path)
    with pytest.raises(BusyError, match="another agent"):
        AgentLock(str(tmp_path))
    child.kill()
    child.communicate()
    claim = AgentLock(str(tmp_path))
    claim.release()
    AgentLock(str(tmp_path)).release()


def test_a_look_keeps_no_agent_from_its_folder(tmp_path: Path) -> None:
    """`status` sees by the lock whether an agent runs; one that begins at that very moment waits for it."""
    path = str(tmp_path / "history.sqlite3")
    assert agent_runs(path) is False
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    assert agent_runs(path) is False  # two that look do not take each other for agents
    threading.Timer(0.1, os.close, (handle,)).start()
    claim = AgentLock(str(tmp_path))
    assert (agent_runs(path), agent_vouches(path)) == (True, False)
    claim.mark_as_current()
    claim.mark_as_current()
    assert (agent_runs(path), agent_vouches(path)) == (True, True)
    claim.release()
    assert (agent_runs(path), agent_vouches(path)) == (False, False)
    claim = AgentLock(str(tmp_path))
    assert (agent_runs(path), agent_vouches(path)) == (True, False)
    claim.release()
    assert agent_runs(str(tmp_path / "nowhere" / "history.sqlite3")) is None


def _somebody_holds_it(file: Path) -> int:
    file.touch()
    handle = os.open(file, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def _it_is_a_link(file: Path) -> None:
    (file.parent / "elsewhere").write_text("kept")
    file.symlink_to("elsewhere")


@pytest.mark.parametrize("disturb", [_somebody_holds_it, _it_is_a_link])
def test_an_agent_vouches_whatever_has_the_name_of_its_lock(
    disturb: Callable[[Path], int | None], tmp_path: Path
) -> None:
    """Else `status` would not see the agent for as long as it runs."""
    handle = disturb(tmp_path / "agent.lock")
    claim = AgentLock(str(tmp_path))
    claim.mark_as_current()
    assert agent_vouches(str(tmp_path / "history.sqlite3")) is True
    claim.release()
    if handle is None:
        assert (tmp_path / "elsewhere").read_text() == "kept"
    else:
        os.close(handle)


@pytest.mark.needs("root", "another-user")
def test_an_agent_vouches_after_root_ran_one(tmp_path: Path) -> None:
    """As root by hand with --once, and then the service as its own user: that may not open a file of root's."""
    folder = tmp_path / "state"
    first, unsaved = AgentLock(str(folder)), UnsavedFile(str(folder / "history.sqlite3-unsaved"))
    first.mark_as_current()
    first.release()
    unsaved.open()
    unsaved.close()
    os.chown(folder, ANOTHER_USER, ANOTHER_USER)
    let_others_in(tmp_path)
    os.seteuid(ANOTHER_USER)
    try:
        claim = AgentLock(str(folder))
        claim.mark_as_current()
        unsaved.open()
        unsaved.write(Unsaved(7, 3))  # what a run would lose that is killed now
        unsaved.close()
        assert unsaved.open() == (7, 3)
        unsaved.close()
    finally:
        os.seteuid(0)
    assert agent_vouches(str(folder / "history.sqlite3")) is True
    claim.release()


def test_a_folder_that_cannot_be_opened_cannot_be_locked(tmp_path: Path) -> None:
    """An agent that has no folder at all is not refused: its store has the error."""
    (tmp_path / "file").write_text("")
    AgentLock(str(tmp_path / "file" / "folder")).release()


def test_memories_that_change_meanwhile_are_changed_once(path: Path) -> None:
    """`change` is called once, also where the file fails after it: what it decided is kept in memory, then filed."""
    store = StateStore(str(path), retry_s=0.0)
    store.update(lambda _: {"a 123": ServerState(consecutive_timeouts=1)})
    calls: list[ServerStates] = []

    def change(states: ServerStates) -> ServerStates:
        calls.append(states)
        return {"b 123": ServerState(consecutive_timeouts=2)}

    with locked(path):
        store.update(change)
    assert len(calls) == 1
    assert set(calls[0]) == {"a 123"}
    seen: list[ServerStates] = []
    store.update(lambda states: seen.append(states) or {})  # type: ignore[func-returns-value]
    assert set(seen[0]) == {"a 123", "b 123"}
    store.close()


def test_an_observation_is_not_written_twice(path: Path) -> None:
    """A local audit's record holds all it saw, and a network audit's observation is kept as it was."""
    store = StateStore(str(path))
    keep(store, 1, "network")
    keep(store, 2, "local")
    select = "SELECT observation FROM audits ORDER BY id"
    rows = in_store(store, lambda connection: connection.execute(select).fetchall())
    store.close()
    assert len(rows[0][0]) > 100
    assert rows[1] == ("",)


def test_a_store_needs_little_memory_while_the_file_fails(tmp_path: Path) -> None:
    """A stand-in of two thousand audits takes a few megabytes."""
    (tmp_path / "file").write_text("in the way")
    store = StateStore(str(tmp_path / "file" / "history.sqlite3"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(2000):
        keep(store, number)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
    store.close()
