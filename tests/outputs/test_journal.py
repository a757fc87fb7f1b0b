"""Entries arrive in the journal as they were meant: in one that a test plays, and in systemd's own."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.config.schema import JournalConfig
from ntpaudit.core.checks.host import RULES
from ntpaudit.core.events import Event
from ntpaudit.core.record import Record
from ntpaudit.errors import OutputError
from ntpaudit.formats.log_entries import VERDICT_CHANGED
from ntpaudit.outputs.journal import MESSAGE_IDS, open_output
from ntpaudit.render.text_safety import one_line
from tests.outputs.agent import SAME, agent_records, event, events
from tests.records import CASES
from tests.waiting import until
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY

SOCKET = JournalConfig().socket
JOURNALD = Path("/usr/lib/systemd/systemd-journald")
NAME = re.compile(rb"[A-Z][A-Z0-9_]{0,63}")


class Receiver:
    """A socket as journald has it, which keeps what comes until it is read."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def entries(self) -> list[dict[str, str]]:
        """Return all entries that have come."""
        found = []
        while True:
            try:
                found.append(parse(self._socket.recv(1 << 20)))
            except BlockingIOError:
                return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Listen as journald does."""
    with TemporaryDirectory() as folder, Receiver(folder) as listening:
        yield listening


def parse(entry: bytes) -> dict[str, str]:
    """Read an entry as the protocol's description has it; a name that occurs twice is an error here."""
    fields: dict[str, str] = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert NAME.fullmatch(name), name
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


def test_an_event_has_its_fields(receiver: Receiver) -> None:
    """A step has its own message id, priority and size, the clock's figures, and its detail."""
    output = open_output(JournalConfig(socket=receiver.path))
    output.emit(SAME, [event("step-back", value_s=-2.5, detail={"zone": "two\nlines"})])
    step, verdict = receiver.entries()
    assert step == {
        "MESSAGE": "high: step-back: the kernel says that its clock is not synchronised; "
        "fix: let exactly one time daemon run",
        "MESSAGE_ID": "67034e6221f14875bb57585b1894c249",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "ntpaudit",
        "NTPAUDIT_FINDING": "step-back",
        "NTPAUDIT_RAISED": "1",
        "NTPAUDIT_LEVEL": "high",
        "NTPAUDIT_SEVERITY": "warning",
        "NTPAUDIT_VERDICT": "within",
        "NTPAUDIT_OFFSET_USEC": "1917",
        "NTPAUDIT_EARLIEST_USEC": "-2051",
        "NTPAUDIT_LATEST_USEC": "5851",
        "NTPAUDIT_BOUND_USEC": "5851",
        "NTPAUDIT_TRUE_TIME": "2026-11-18T11:06:40.001900123Z",
        "NTPAUDIT_HOST_TIME": "2026-11-18T11:06:40.000000000Z",
        "NTPAUDIT_VALUE_USEC": "-2500000",
        "NTPAUDIT_ZONE": "two\nlines",
    }
    assert verdict["MESSAGE_ID"] == MESSAGE_IDS[VERDICT_CHANGED]
    assert verdict["MESSAGE"] == (
        "OK: clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong (4 of 4 servers agree)"
    )
    assert "NTPAUDIT_FINDING" not in verdict
    output.close()


@given(agent_records(), st.lists(events(), max_size=3))
def test_any_entry_can_be_read(record: Record, sent: list[Event]) -> None:
    """Whatever a text or a name holds, an independent reader finds every field, and the text on one line."""
    with TemporaryDirectory() as folder, Receiver(folder) as receiver:
        output = open_output(JournalConfig(socket=receiver.path))
        output.emit(record, sent)
        *found, verdict = receiver.entries()
        output.close()
    assert verdict["NTPAUDIT_VERDICT"] == record.verdict
    for entry, one in zip(found, sent, strict=True):
        assert entry["NTPAUDIT_FINDING"] == one.kind
        assert entry["MESSAGE"].startswith(one_line(f"{one.title}: {one.text}"))
        assert "\n" not in entry["MESSAGE"]
        assert entry.get("MESSAGE_ID") == MESSAGE_IDS.get(one.kind)
        assert ("NTPAUDIT_TRUE_TIME" in entry) == (one.utc_ns is not None)


def test_the_longest_entry_is_delivered(receiver: Receiver) -> None:
    """However much an event has to say, its entry fits a datagram, and what matters is whole in it."""
    long = event(text="word " * 100_000, detail={f"key{number}": "v" * 10_000 for number in range(100)})
    output = open_output(JournalConfig(socket=receiver.path))
    output.emit(SAME, [long])
    entry, _ = receiver.entries()
    assert 60_000 < sum(map(len, entry.values())) < 66_000
    assert entry["MESSAGE"].endswith("...")
    assert entry["NTPAUDIT_FINDING"] == "unsynced"
    assert entry["NTPAUDIT_KEY0"].endswith("v...")
    output.close()


def test_a_missing_journal_is_an_error(tmp_path: Path) -> None:
    """Without a journal the error gives the reason and the fix; one that starts later gets what was kept."""
    path = f"{tmp_path}/socket"
    output = open_output(JournalConfig(socket=path))
    with pytest.raises(OutputError, match=r"socket: No such file or directory; .*journald.*enabled = false"):
        output.emit(SAME, [event("step-back")])
    with Receiver(str(tmp_path)) as receiver:
        output.emit(SAME, [])
        assert [entry.get("NTPAUDIT_FINDING") for entry in receiver.entries()] == ["step-back", None]
    output.close()


def test_a_journal_that_does_not_read_blocks_nothing(receiver: Receiver) -> None:
    """A journal that is stuck is an error and is not waited for; once it reads, it gets everything."""
    output = open_output(JournalConfig(socket=receiver.path))
    with pytest.raises(OutputError, match="temporarily unavailable"):
        output.emit(SAME, [event(detail={"number": number}) for number in range(200)])
    numbers: list[int] = []
    while len(numbers) < 200:
        numbers += [int(entry["NTPAUDIT_NUMBER"]) for entry in receiver.entries() if "NTPAUDIT_NUMBER" in entry]
        try:
            output.emit(SAME, [])
        except OutputError:
            continue
    assert numbers == list(range(200))
    output.close()


def test_message_ids_are_ids_and_each_is_another() -> None:
    """A message id is 128 random bits (RFC 9562 version 4), and no two kinds share one."""
    for message_id in MESSAGE_IDS.values():
        assert re.fullmatch("[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", message_id)
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)


def test_a_message_id_is_of_a_rule() -> None:
    """Every rule about a host has an id, and so has a change of the verdict: nothing else reaches the journal."""
    assert set(MESSAGE_IDS) == {rule.id for rule in RULES} | {VERDICT_CHANGED}


def test_message_ids_never_change() -> None:
    """Others match on them. A new rule adds a line here, and no line is ever changed or removed."""
    promised = {
        "offset-out": "1643120d7614412ea6edd9a41b2c652f",
        "step-back": "67034e6221f14875bb57585b1894c249",
        "step-forward": "94061a08892d408ba9c672acc87c2156",
        "unattributed-change": "b07ed47f299d46eb801ea96308c24e70",
        "evidence-gap": "5bbeb38870d342bf84ace8ac21775a0d",
        "daemon-stale": "69d61b2c5c394937a03aab962f6ff9b9",
        "breach-forecast": "e1eed9751290471d80861efa38911f68",
        "not-demonstrable": "ee4a9f8bbb184e6da093ada6f7a41fac",
        "source-quorum": "39a766605369401dac99b798314707f1",
        "unapproved-source": "08cf6454ac6e4640a3b5fec7834dd4c0",
        "unauthenticated": "98fc29eb4dcc41b78a6aec83c5195bb5",
        "acceptance-expired": "d9ad1c28cf844ca5ae579d6dc346f28b",
        "ingest-risk": "436adeb8575e4e31874ac740e74bf2b7",
        "leap-smear-mix": "4018d46a6c3947188177a5641a691a70",
        "unsynced": "9a524159e9264fc9b92579cb3a737428",
        "daemon-count": "18c86cc2393243b3aa73dd48222fddc4",
        "tz-or-rtc-fault": "770eeae8b2ef45858a1d595acdbcbab6",
        "unreachable-sources": "987b67e99ad8431b98eeb6edf87b3081",
        "kiss-of-death": "575fb3bd91da48048b91668c746e8d6b",
        "suspected-spoofing": "c48e46b097b14e5eaaf5fcabc470f3f0",
        "verdict-changed": "5326393773d54750becb56d171e32cf2",
        "offset-high": "3c17354d88624c51b1f975fafd58d728",
        "unmeasured": "8e909819441947b8a1da3ea58033ba57",
        "delivery-refused": "0dac82f0e905477c981ca667e607b40f",
        "contradicts-earlier": "a0849a205f2d4597ab6d588afb98bbea",
        "time-disputed": "2d47e4ee908b42278a9305e63c656091",
        "no-usable-source": "0ecb7f80ee644c54a183a67e4e0a1b19",
        "audit-blind": "e7b7eaae57174dfbb6eaded5393d190c",
        "time-config-changed": "57fb9e9c45f647a3960a04fed1ca1f89",
        "daemon-dead": "6371878fa6834094ace1b9ede49d1aa6",
        "daemon-disagrees": "2915bf92a9744fbf8f23ce1c82b04901",
        "daemon-bound-violated": "5e9e9447654a41659772134003a6afbd",
        "kernel-maxerror-violated": "98178284a12641ca9ce4d5174a73cdf5",
        "false-time-quality": "75eee026ef1c424e9723c91b52609985",
    }
    assert promised == MESSAGE_IDS


def run_with_stderr(stderr: int, journal_stream: str | None) -> str:
    """Ask in a process with this standard error whether the journal takes it."""
    program = "import os; from ntpaudit.outputs.journal import *; print(journal_takes_our_output(os.environ))"
    environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
    if journal_stream is not None:
        environment["JOURNAL_STREAM"] = journal_stream
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, env=environment, cwd=REPOSITORY, text=True, check=True
    ).stdout.strip()


def test_the_journal_is_used_where_it_takes_our_output(tmp_path: Path) -> None:
    """JOURNAL_STREAM counts only if it names standard error itself: a child whose output goes elsewhere inherits it."""
    with (tmp_path / "stderr").open("w") as file:
        status = os.fstat(file.fileno())
        ours = f"{status.st_dev}:{status.st_ino}"
        assert run_with_stderr(file.fileno(), ours) == "True"
        assert run_with_stderr(file.fileno(), f"{status.st_dev}:{status.st_ino + 1}") == "False"
        assert run_with_stderr(file.fileno(), "") == "False"
        assert run_with_stderr(file.fileno(), None) == "False"
        assert run_with_stderr(subprocess.DEVNULL, ours) == "False"


def test_a_closed_standard_error_is_no_journal() -> None:
    """A process without standard error asks no journal."""
    program = "from ntpaudit.outputs.journal import *; print(journal_takes_our_output({'JOURNAL_STREAM': '1:2'}))"
    command = f'exec "{sys.executable}" -c "{program}" 2>&-'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == "False\n"


@contextmanager
def journald() -> Iterator[Path]:
    """Run systemd's own journal with a /run of its own, and yield that folder."""
    with TemporaryDirectory() as name:
        run = Path(name)
        (run / "systemd" / "journald.conf.d").mkdir(parents=True)
        (run / "systemd" / "journald.conf.d" / "test.conf").write_text(
            "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToWall=no\n"
        )
        (run / "log" / "journal").mkdir(parents=True)
        command = f'mount --bind "{run}" /run && exec {JOURNALD}'
        with subprocess.Popen(
            [*unshared("mount"), "sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            try:
                until(
                    (run / SOCKET.removeprefix("/run/")).exists,
                    "its socket",
                    alive=lambda: process.poll() is None,
                )
                yield run
            finally:
                process.terminate()


@pytest.mark.needs("journald")
def test_systemds_journal_finds_entries_by_their_fields() -> None:
    """Systemd's journal takes the entries, and journalctl finds them by message id and shows every field."""
    with journald() as run:
        output = open_output(JournalConfig(socket=f"{run}{SOCKET.removeprefix('/run')}"))
        output.emit(SAME, [event("step-back", value_s=-2.5, detail={"note": "two\nlines"})])
        output.emit(CASES["beyond, ahead"], [event("offset-out"), event(text="x" * 100_000)])
        output.close()
        found: list[dict[str, str]] = []

        def arrived() -> bool:
            found[:] = journalctl(run, "SYSLOG_IDENTIFIER=ntpaudit")
            return len(found) >= 5

        until(arrived, "five entries")
        (step,) = journalctl(run, f"MESSAGE_ID={MESSAGE_IDS['step-back']}")
        assert step["NTPAUDIT_VALUE_USEC"] == "-2500000"
        assert step["NTPAUDIT_NOTE"] == "two\nlines"
        assert step["PRIORITY"] == "4"
        assert step["_TRANSPORT"] == "journal"
        verdicts = journalctl(run, f"MESSAGE_ID={MESSAGE_IDS[VERDICT_CHANGED]}")
        assert [entry["NTPAUDIT_VERDICT"] for entry in verdicts] == ["within", "beyond"]
        assert [entry.get("NTPAUDIT_FINDING") for entry in found] == ["step-back", None, "offset-out", "unsynced", None]


def journalctl(run: Path, *matches: str) -> list[dict[str, str]]:
    """Return the entries that match, as journalctl shows them."""
    command = ["journalctl", "--directory", str(run / "log" / "journal"), "--output=json", "--all", *matches]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]
