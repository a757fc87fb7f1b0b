"""`ntpaudit history dead-letters` beside an agent's open history."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ntpaudit.probes import service
from ntpaudit.store import outbox
from ntpaudit.store.paths import FILE_NAME
from ntpaudit.store.state import StateStore
from tests.command import Ran, ntpaudit
from tests.logs import Messages
from tests.store.audits import deliver, in_store, keep, number_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    """A store in use, with records 1 to 4, of which 2 and 3 are dead letters, and one whose time is not known."""
    notes = Messages("ntpaudit.store")
    store = StateStore(str(tmp_path / "state" / FILE_NAME))
    for number in range(1, 5):
        keep(store, number)
    entries = store.read(outbox.waiting, 9)
    store.ack(entries[:1])
    store.write(outbox.dead_letter, entries[1], "400: field type conflict\non offset_s")
    store.write(outbox.dead_letter, entries[2], "413: too large")
    in_store(
        store,
        lambda connection: connection.execute(
            "INSERT INTO set_aside (stamp_ns, lines, reason) VALUES (NULL, 'ntpaudit_clock number=9i\n', 'no time')"
        ),
    )
    yield store
    store.close()
    assert notes == []


def dead_letters(*words: str, tmp_path: Path) -> Ran:
    """Run the command."""
    return ntpaudit("history", "dead-letters", *words, state=tmp_path)


def test_they_are_listed(store: StateStore, tmp_path: Path) -> None:
    """Each has a line with its ID, its time and the database's reason; JSON has the lines too."""
    ran = dead_letters("list", tmp_path=tmp_path)
    assert ran.status == 0
    head, *rows = ran.out.splitlines()
    assert head.split() == ["id", "time", "reason"]
    assert [row.split(maxsplit=2)[::2] for row in rows] == [
        ["1", "400: field type conflict on offset_s"],
        ["2", "413: too large"],
        ["3", "no time"],
    ]
    assert [row.split()[1][-1:] for row in rows] == ["Z", "Z", "n"]
    listed = [json.loads(line) for line in dead_letters("list", "--format", "json", tmp_path=tmp_path).out.splitlines()]
    assert [entry["schema"] for entry in listed] == ["ntpaudit.dead-letter/1"] * 3
    assert [number_of(entry["lines"]) for entry in listed] == [2, 3, 9]
    assert [entry["utc"] is None for entry in listed] == [False, False, True]


def test_a_narrow_terminal_breaks_the_reason_and_nothing_else(store: StateStore, tmp_path: Path) -> None:
    """Every word of the reason is there, below the others; no line is wider than the terminal."""
    reason = '400: partial write: field type conflict: input field "offset_s" is type float, already exists as integer'
    in_store(store, lambda connection: connection.execute("UPDATE set_aside SET reason = ? WHERE id = 1", (reason,)))
    ran = ntpaudit("history", "dead-letters", "list", state=tmp_path, environment={"COLUMNS": "60"})
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 60
    first = lines[1 : next(place for place, line in enumerate(lines) if line.startswith("       2"))]
    assert " ".join(" ".join(line[32:] for line in first).split()) == reason
    assert not any(line[:32].strip() for line in first[1:])
    assert reason in dead_letters("list", tmp_path=tmp_path).out


def test_they_are_resent(store: StateStore, tmp_path: Path) -> None:
    """What has a time waits behind what waited already, and is delivered once; what has none stays."""
    ran = dead_letters("resend", "1", tmp_path=tmp_path)
    assert (ran.status, ran.out) == (0, "1 record put back into the outbox\n")
    assert list(deliver(store)) == [4, 2]
    ran = dead_letters("resend", "--all", tmp_path=tmp_path)
    assert (ran.status, ran.out) == (0, "1 record put back into the outbox\n")
    assert "1 dead letter cannot be sent: its time is not known" in ran.err
    assert list(deliver(store)) == [3]
    assert store.read(outbox.backlog) == (0, None, 1)


def test_one_that_is_refused_again_is_a_dead_letter_again(store: StateStore, tmp_path: Path) -> None:
    """Nothing is lost where the cause was not repaired."""
    dead_letters("resend", "--all", tmp_path=tmp_path)
    assert list(deliver(store, refused=frozenset({3}))) == [4, 2]
    assert store.read(outbox.backlog)[2] == 2


@pytest.mark.parametrize(
    ("column", "value"), [("stamp_ns", "abc"), ("stamp_ns", 1.5), ("lines", b"\xff"), ("reason", b"\xff")]
)
def test_a_damaged_one_harms_no_other(column: str, value: object, store: StateStore, tmp_path: Path) -> None:
    """It is listed and stays; put into the outbox it would be damage to the whole history."""
    in_store(store, lambda connection: connection.execute(f"UPDATE set_aside SET {column} = ? WHERE id = 1", (value,)))
    for words in ((), ("--format", "json")):
        ran = dead_letters("list", *words, tmp_path=tmp_path)
        assert (ran.status, len(ran.out.splitlines()), ran.out.count("damaged")) == (0, 3 + (not words), 1)
    ran = dead_letters("resend", "--all", tmp_path=tmp_path)
    assert (ran.status, ran.out) == (0, "1 record put back into the outbox\n")
    assert "1 dead letter cannot be sent: damaged in the history" in ran.err
    assert list(deliver(store)) == [4, 3]
    assert dead_letters("drop", "1", tmp_path=tmp_path).out == "1 dead letter deleted\n"


def test_they_are_dropped(store: StateStore, tmp_path: Path) -> None:
    """Those named are deleted, and the count of the others is right although their IDs have holes."""
    assert dead_letters("drop", "2", "2", tmp_path=tmp_path).out == "1 dead letter deleted\n"
    assert store.read(outbox.backlog)[2] == 2
    assert dead_letters("drop", "--all", tmp_path=tmp_path).out == "2 dead letters deleted\n"
    assert dead_letters("list", tmp_path=tmp_path).out == "no dead letters\n"
    assert store.read(outbox.backlog)[0] == 1


def test_what_is_not_said_clearly_changes_nothing(store: StateStore, tmp_path: Path) -> None:
    """Neither IDs nor --all, both, or an ID that there is none of."""
    for words, status, said in (
        (("drop",), 64, "use --all"),
        (("drop", "1", "--all"), 64, "use --all"),
        (("drop", "x"), 64, "'x'"),
        (("drop", "1", "77"), 3, "no dead letter 77"),
        (("resend", "77"), 3, "no dead letter 77"),
    ):
        ran = dead_letters(*words, tmp_path=tmp_path)
        assert ran.status == status
        assert said in ran.err
    assert store.read(outbox.backlog)[2] == 3


@pytest.mark.parametrize("words", [("--config", "/none.toml"), ("--format", "json"), ("--since", "1h"), ("--hourly",)])
def test_no_option_before_the_command_is_ignored(words: tuple[str, ...], store: StateStore, tmp_path: Path) -> None:
    """Or the dead letters of another history would be dropped than the one that was named."""
    ran = ntpaudit("history", *words, "dead-letters", "drop", "--all", state=tmp_path)
    assert (ran.status, f"{words[0]} before dead-letters" in ran.err) == (64, True)
    assert store.read(outbox.backlog)[2] == 3


@pytest.mark.parametrize("command", ["list", "drop", "resend"])
def test_where_there_is_no_history(command: str, tmp_path: Path) -> None:
    """No file is made, and the message says what to do."""
    ran = dead_letters(command, *([] if command == "list" else ["--all"]), tmp_path=tmp_path)
    assert ran.status == 3
    assert f"start one: {service.start()}" in ran.err
    assert not list(tmp_path.glob("state/*"))
