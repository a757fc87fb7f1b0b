"""`ntpaudit history --steps`: each step and suspend of a history, with the cause that a journal or audit log names."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ntpaudit.cli.state import this_host
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.units import format_utc
from ntpaudit.store.paths import FILE_NAME
from tests.command import Ran, ntpaudit
from tests.histories import BOOT, MINUTE_NS, World, clocks, later, write
from tests.world.journals import Entry, write_journal

BACK, FORWARD, SLEPT, TINY = 20, 40, 60, 80
S_NS = 10**9
MINUTES = 100


def stepped_s(minute: int) -> float:
    """Return by how much the clock was set back, in all."""
    return (2.5 if BACK <= minute < FORWARD else 0.0) + (0.5 if minute >= TINY else 0.0)


@pytest.fixture(scope="module")
def world() -> World:
    """A host that was set back by 2.5 s and forth, suspended for 30 s, and set back by 500 ms."""
    now = this_host().moment
    return World(
        stepped_s=stepped_s,
        slept_s=lambda minute: 30.0 if minute >= SLEPT else 0.0,
        begin_ns=now.realtime_ns - MINUTES * MINUTE_NS,
        uptime_ns=7200 * S_NS,
        boot_id="bbbbbbbb-bbbb-bbbb-bbbb-" + "b" * 12,  # as /proc writes it
    )


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its history, its journal and its audit log."""
    path = tmp_path_factory.mktemp("steps")
    write(path / "state" / FILE_NAME, world, range(MINUTES))
    back, slept = seen(world, BACK), seen(world, SLEPT)
    entries = [
        entry(seen(world, 1), "kernel", "PM: nothing"),
        entry(back, "chronyd", "System clock was stepped by -2.500000 seconds", 1),
        entry(slept, "systemd-logind", "The system will suspend now!", -20),
        entry(slept, "kernel", "PM: suspend exit", -10),
    ]
    write_journal(path / "journal", entries)
    tiny = seen(world, TINY)
    stamp = f"audit({tiny.realtime_ns // S_NS + 2}.000:417)"
    exe = 'auid=1000 uid=0 comm="date" exe="/usr/bin/date" key="time-change"'
    (path / "audit.log").write_text(
        f"type=SYSCALL msg={stamp}: arch=c000003e syscall=227 success=yes exit=0 {exe}\n"
        f"type=TIME_INJOFFSET msg={stamp}: sec=-1 nsec=500000000\n"
        f"type=PROCTITLE msg={stamp}: proctitle=64617465\n"
    )
    return path


def seen(world: World, minute: int) -> ClockReading:
    """Return the clocks at the audit that detects a step or a suspend of that minute."""
    return later(clocks(world, minute), S_NS)


def entry(at: ClockReading, source: str, text: str, after_s: int = 0) -> Entry:
    """Return a journal entry that long after a reading."""
    at_us = at.monotonic_ns // 1000 + after_s * 10**6
    return Entry(at_us, (at.realtime_ns - at.monotonic_ns) // 1000, source, text, BOOT)


def history(*words: str, state: Path) -> Ran:
    """Run `ntpaudit history --steps`."""
    return ntpaudit("history", "--steps", *words, state=state)


def logs(folder: Path) -> tuple[str, ...]:
    """Return the options that name the journal and the audit log."""
    return ("--journal", str(folder / "journal"), "--audit-log", str(folder / "audit.log"))


def lines(ran: Ran) -> list[dict[str, Any]]:
    """Read what it printed as JSON Lines."""
    assert (ran.status, ran.err) == (0, "")
    return [json.loads(line) for line in ran.out.splitlines()]


@pytest.mark.needs("systemd-journal-remote")
def test_causes(world: World, folder: Path) -> None:
    """The daemon's line, the suspend's, and the audit record with exe and login; a step without a line has none."""
    found = lines(history(*logs(folder), "--format", "json", state=folder))
    assert [(one["kind"], round(one["size_s"], 3), one["level"]) for one in found] == [
        ("step", -2.5, "high"),
        ("step", 2.5, "high"),
        ("suspend", 30.0, None),
        ("step", -0.5, "medium"),
    ]
    assert [one["cause"] and one["cause"]["name"] for one in found] == [
        "chronyd",
        None,
        "suspend",
        "/usr/bin/date (login uid 1000)",
    ]
    assert [one["cause"] and one["cause"]["person"] for one in found] == [False, None, False, True]
    assert all(one["unread"] == [] and one["schema"] == "ntpaudit.step/1" for one in found)
    assert found[0]["time"]["after"] == format_utc(seen(world, BACK).realtime_ns)


@pytest.mark.needs("systemd-journal-remote")
def test_text_in_80_columns(folder: Path) -> None:
    """Each with effect and cause, and the daemon's own words."""
    ran = ntpaudit("history", "--steps", *logs(folder), state=folder, environment={"COLUMNS": "80"})
    assert max(map(len, ran.out.splitlines())) <= 80
    text = " ".join(ran.out.split())
    assert "high set back by 2.5 s effect timestamps occur twice from" in text
    assert "System clock was stepped by -2.500000 seconds" in text
    assert "cause unattributed: no line of the journal or the audit log names one" in text
    assert "suspended for 30 s" in text


@pytest.mark.needs("systemd-journal-remote")
def test_csv(folder: Path) -> None:
    """The same in rows."""
    ran = history(*logs(folder), "--format", "csv", "--limit", "2", state=folder)
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [(row["kind"], row["cause"]) for row in rows] == [
        ("suspend", "suspend"),
        ("step", "/usr/bin/date (login uid 1000)"),
    ]


@pytest.mark.needs("systemd-journal-remote")
def test_logs_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    """The reason is given, and what would change it; the steps are listed all the same."""
    ran = history("--journal", str(tmp_path / "no"), "--audit-log", str(tmp_path / "no.log"), state=folder)
    text = " ".join(ran.out.split())
    assert ran.status == 0
    assert "unattributed, but not all logs were searched: the journal cannot be read" in text
    assert "no.log (auditd can record each change of the clock: see docs/journal.md)" in text


def test_usage(folder: Path) -> None:
    """What does not go together is a usage error."""
    for words in (["--events"], ["--plot"], ["--hourly"]):
        assert history(*words, state=folder).status == 64
    assert ntpaudit("history", "--journal", "x", state=folder).status == 64


def test_a_history_without_steps(tmp_path: Path) -> None:
    """It says so."""
    begin_ns = this_host().moment.realtime_ns - 10 * MINUTE_NS
    write(tmp_path / "state" / FILE_NAME, World(begin_ns=begin_ns), range(10))
    ran = history(state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert "no steps in this period" in ran.err
