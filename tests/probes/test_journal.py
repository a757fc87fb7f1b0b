"""The journal as it is read: real journal files, a real journald, and texts that try to be something else."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.attribution import TIME_CHANGE_ID
from ntpaudit.core.journal_steps import JournalTimes, NearLines, changes
from ntpaudit.errors import JournalError
from ntpaudit.probes.journal import Journal, JournalSource, parse_line
from tests.abilities import ANOTHER_USER
from tests.world.another_user import let_others_in
from tests.world.journals import BEGIN_US, MACHINE_ID, WEB_BOOT, Entry, S, write_journal
from tests.world.machine import machine

PLAIN = {"_BOOT_ID": WEB_BOOT, "__REALTIME_TIMESTAMP": "2000000", "__MONOTONIC_TIMESTAMP": "1000000"}


def read(journal: Journal) -> JournalTimes:
    """Read all times."""
    times = JournalTimes()
    for rows in journal.times():
        times.add(rows)
    return times


@pytest.mark.needs("systemd-journal-remote")
def test_times_in_the_order_of_the_journal(tmp_path: Path) -> None:
    """The order is that of the entries, not of their realtime, and each has its boot and its machine."""
    stamps = [(1 * S, BEGIN_US), (2 * S, BEGIN_US - 10 * S), (3 * S, BEGIN_US)]
    write_journal(tmp_path, [Entry(*stamp) for stamp in stamps])
    rows = [row for rows in Journal(JournalSource(str(tmp_path))).times() for row in rows]
    assert rows == [(b"%d" % (at + d), b"%d" % at, WEB_BOOT.encode(), MACHINE_ID.encode()) for at, d in stamps]


@pytest.mark.needs("systemd-journal-remote")
def test_a_message_cannot_be_an_entry(tmp_path: Path) -> None:
    """A text with line breaks that looks like another entry stays a text, in both outputs of journalctl."""
    fake = Entry(9 * S, BEGIN_US + 10**12, "chronyd", "System clock was stepped by 1000000.0 seconds")
    text = f"first\n\n{fake.export(7).decode()}\n"
    write_journal(tmp_path, [Entry(S), Entry(2 * S, source="chronyd", text=text, fields={"_COMM": text}), Entry(3 * S)])
    journal = Journal(JournalSource(str(tmp_path)))
    assert read(journal).entries == 3
    (line,) = journal.lines([WEB_BOOT])
    assert (line.text, line.monotonic_us) == (text, 2 * S)


@pytest.mark.needs("systemd-journal-remote")
def test_lines_that_can_name_a_cause(tmp_path: Path) -> None:
    """Of the programs that set clocks, the kernel and audit; and by message id. Others are not read."""
    entries = [
        Entry(1 * S, source="cron"),
        Entry(2 * S, source="chronyd", text="one", fields={"_UID": "101", "_EXE": "/usr/sbin/chronyd"}),
        Entry(3 * S, source="kernel", text="two"),
        Entry(4 * S, source="audit", text="sec=1", fields={"_AUDIT_TYPE_NAME": "TIME_INJOFFSET"}),
        Entry(5 * S, source="systemd", text="three", fields={"MESSAGE_ID": TIME_CHANGE_ID}),
        Entry(6 * S, source="chronyd", text="other boot", boot_id="d" * 32),
    ]
    write_journal(tmp_path, entries)
    journal = Journal(JournalSource(str(tmp_path)))
    lines = list(journal.lines([WEB_BOOT]))
    assert [(line.source, line.text) for line in lines] == [
        ("chronyd", "one"),
        ("kernel", "two"),
        ("audit", "TIME_INJOFFSET sec=1"),
        ("systemd", "three"),
    ]
    assert (lines[0].uid, lines[0].exe, lines[3].message_id) == (101, "/usr/sbin/chronyd", TIME_CHANGE_ID)
    assert journal.kernel_boots == {WEB_BOOT}
    many = [WEB_BOOT, *(f"{number:032x}" for number in range(100))]
    assert "other boot" in [line.text for line in journal.lines(many)]  # too many boots to name them in the query


@pytest.mark.needs("systemd-journal-remote")
def test_the_root_of_a_host(tmp_path: Path) -> None:
    """A folder that has var/log/journal is a host's root."""
    write_journal(tmp_path / "var/log/journal" / MACHINE_ID, [Entry(S)])
    assert read(Journal(JournalSource(str(tmp_path)))).entries == 1


@pytest.mark.needs("systemd-journal-remote")
def test_files_since_and_boot(tmp_path: Path) -> None:
    """Journalctl's own options select files, the time of the host's clock, and the boot."""
    one = write_journal(tmp_path, [Entry(number * S) for number in range(1, 6)])
    write_journal(tmp_path, [Entry(9 * S, boot_id="d" * 32)], "other")
    assert read(Journal(JournalSource(files=(str(one),)))).entries == 5
    assert read(Journal(JournalSource(str(tmp_path), since_s=BEGIN_US // S + 4))).entries == 3
    assert read(Journal(JournalSource(str(tmp_path), boot="d" * 32))).entries == 1


@pytest.mark.needs("systemd-journal-remote")
def test_damaged_files(tmp_path: Path) -> None:
    """What remains is read, and journalctl's complaint is kept; a file that is no journal gives an error."""
    whole = write_journal(tmp_path, [Entry(S)])
    (tmp_path / "cut.journal").write_bytes(whole.read_bytes()[:1000])
    journal = Journal(JournalSource(str(tmp_path)))
    assert read(journal).entries == 1
    assert any("cut.journal" in note for note in journal.notes)
    with pytest.raises(JournalError, match="cannot be read"):
        read(Journal(JournalSource(files=(str(tmp_path / "cut.journal"),))))


@pytest.mark.needs("systemd-journal-remote")
def test_overwritten_bytes(tmp_path: Path) -> None:
    """Damage in the middle of a file: no exception but JournalError."""
    whole = write_journal(tmp_path, [Entry(number * S, text=f"message {number}") for number in range(1, 400)])
    data = bytearray(whole.read_bytes())
    for begin in range(300, len(data), 50_000):
        data[begin : begin + 700] = b"\xff" * 700
    whole.write_bytes(data)
    journal = Journal(JournalSource(str(tmp_path)))
    with suppress(JournalError):
        assert read(journal).entries < 400
        assert len(list(journal.lines([]))) < 400


@pytest.mark.needs("systemd-journal-remote", "another-user")
def test_without_rights(tmp_path: Path) -> None:
    """The error names the group."""
    let_others_in(tmp_path)
    write_journal(tmp_path, [Entry(S)]).chmod(0o600)
    os.seteuid(ANOTHER_USER)
    try:
        with pytest.raises(JournalError, match="systemd-journal"):
            read(Journal(JournalSource(files=(str(tmp_path / "system.journal"),))))
    finally:
        os.seteuid(0)


@pytest.mark.needs("systemd-journal-remote", "another-user")
def test_own_messages_only(tmp_path: Path) -> None:
    """An ordinary user reads the own file; another that cannot be read is noticed; journalctl may be silent."""
    let_others_in(tmp_path)
    write_journal(tmp_path, [Entry(S)]).chmod(0o600)
    write_journal(tmp_path, [Entry(2 * S), Entry(3 * S)], "user-1000").chmod(0o644)
    as_root, as_user = Journal(JournalSource(str(tmp_path))), Journal(JournalSource(str(tmp_path)))
    assert (read(as_root).entries, as_root.is_own_only) == (3, False)
    os.seteuid(ANOTHER_USER)
    try:
        assert (read(as_user).entries, as_user.is_own_only) == (2, True)
    finally:
        os.seteuid(0)


def test_without_journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JournalError, match="install systemd"):
        read(Journal(JournalSource(str(tmp_path))))


@given(st.binary())
def test_any_bytes(text: bytes) -> None:
    """What is no entry is none."""
    assert parse_line(text) is None


@given(
    st.dictionaries(
        st.sampled_from(["MESSAGE", "MESSAGE_ID", "SYSLOG_IDENTIFIER", "_COMM", "_EXE", "_TRANSPORT", "_UID", *PLAIN]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
            max_leaves=5,
        ),
    )
)
def test_any_values(fields: dict[str, Any]) -> None:
    """Whatever JSON the fields have, a line has texts and numbers."""
    line = parse_line(json.dumps(PLAIN | fields).encode())
    if line is not None:
        assert isinstance(line.text, str)
        assert isinstance(line.monotonic_us, int)


def test_values_of_several_bytes() -> None:
    """Journalctl writes bytes that are no text as a list of numbers, and a field with several values as a list."""
    line = parse_line(json.dumps(PLAIN | {"MESSAGE": [104, 105, 255], "_UID": ["7", "8"], "_COMM": "x"}).encode())
    assert line is not None
    assert (line.text, line.uid, line.source) == ("hi\ufffd", 7, "x")


@pytest.mark.needs("boot", "step-clock")
def test_a_real_step() -> None:
    """The journald of a booted machine records a step of 20 ms back and one forth, and entries around them."""
    with machine() as booted:
        log = ["sh", "-c", 'for n in 1 2 3 4 5; do echo "$1" | systemd-cat; sleep 0.05; done', "sh"]
        for size_ns in (-20_000_000, 20_000_000):
            booted.run([*log, "before"])
            time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME) + size_ns)
        booted.run([*log, "after"])
        booted.run(["journalctl", "--sync"])
        journal = Journal(JournalSource(str(booted.path("/"))))
        times = read(journal)
        jumps = times.jumps()
        lines = list(journal.lines(NearLines(jumps).boot_ids))
    assert [round(jump.size_us / 1000) for jump in jumps] == [-20, 20]
    found = changes(times, jumps, lines, journal.kernel_boots)
    assert found[0].kind == "step"
    assert found[0].cause is None
