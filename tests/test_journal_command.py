"""`ntpaudit journal` as a user runs it, on real journal files."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import Ran, ntpaudit
from tests.world.journals import BEGIN_US, MACHINE_ID, WEB_BOOT, Entry, S, write_journal

OTHER_BOOT = "d" * 32
HOUR = 3600 * S


def entries() -> Iterator[Entry]:
    """Two boots: a step back that chronyd reports, a suspend, a step forward without a cause; a first correction."""
    d_us = BEGIN_US
    for number in range(100):
        at = HOUR + number * S
        if number == 30:
            d_us -= 2_500_000
            yield Entry(at, d_us, "chronyd", "System clock was stepped by -2.500000 seconds")
        if number == 60:
            d_us += HOUR
            yield Entry(at, d_us, "kernel", "PM: suspend exit")
        if number == 80:
            d_us += 10 * S
        yield Entry(at + 1000, d_us)
    d_us += 86_400 * S
    for number in range(20):
        stepped = 500 * 86_400 * S if number >= 10 else 0
        yield Entry((number + 5) * S, d_us - 500 * 86_400 * S + stepped, "kernel", boot_id=OTHER_BOOT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a host."""
    path = tmp_path_factory.mktemp("journal")
    write_journal(path, entries())
    return path


def journal(*words: str, state: Path, **environment: str) -> Ran:
    """Run `ntpaudit journal`."""
    return ntpaudit("journal", *words, state=state, environment=environment)


def lines(ran: Ran) -> list[dict[str, Any]]:
    """Read what it printed as JSON Lines."""
    return [json.loads(line) for line in ran.out.splitlines()]


@pytest.mark.needs("systemd-journal-remote")
def test_json(folder: Path, tmp_path: Path) -> None:
    """Each step and suspend with its kind, size, level, window, entries and cause."""
    ran = journal("--directory", str(folder), "--format", "json", state=tmp_path)
    assert (ran.status, ran.err) == (2, "")
    found = lines(ran)
    assert [(one["kind"], one["size_s"], one["level"]) for one in found] == [
        ("step", -2.5, "high"),
        ("suspend", 3600.0, None),
        ("step", 10.0, "critical"),
        ("step", 500 * 86_400.0, "low"),
    ]
    back = found[0]
    assert back["cause"]["name"] == "chronyd"
    assert back["cause"]["text"] == "System clock was stepped by -2.500000 seconds"
    assert (back["boot_id"], back["machine_id"], back["severity"]) == (WEB_BOOT, MACHINE_ID, "warning")
    assert back["window"]["effect"] == "twice"
    assert (back["time"]["before"], back["time"]["after"]) == (
        "2026-09-21T15:13:49.001000000Z",
        "2026-09-21T15:13:47.500000000Z",
    )
    assert (back["window"]["from"], back["window"]["to"]) == (
        "2026-09-21T15:13:46.501000000Z",
        "2026-09-21T15:13:50.000000000Z",
    )
    assert back["entries"] == 3 + 4
    assert [one["entries"] for one in found[1:]] == [0, 0, 102]
    assert all(one["schema"] == "ntpaudit.journal/1" for one in found)


@pytest.mark.needs("systemd-journal-remote")
def test_text_in_80_columns(folder: Path, tmp_path: Path) -> None:
    """The worst first word, then each change with effect, cause and boot, the oldest first."""
    ran = journal("--directory", str(folder), state=tmp_path, COLUMNS="80")
    assert ran.out.startswith("CRITICAL  1 step back, 2 steps forward and 1 suspend; the journal names no cause\n")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "\n2026-09-21 15:13:47  high      set back by 2.5 s\n    effect  times from 2026-09-21 15:13:46.501 to" in (
        ran.out
    )
    assert f"    boot    {WEB_BOOT}, 60.5 min after its start" in ran.out
    assert ran.out.index("set back by 2.5 s") < ran.out.index("suspended for 60 min") < ran.out.index("500 days")


@pytest.mark.needs("systemd-journal-remote")
def test_csv(folder: Path, tmp_path: Path) -> None:
    """The same fields, one row each."""
    ran = journal("--directory", str(folder), "--format", "csv", state=tmp_path)
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["size_s"] for row in rows] == ["-2.5", "3600", "10", "43200000"]
    assert rows[0]["cause"] == "chronyd"
    assert rows[0]["window_to"] == "2026-09-21T15:13:50.000000000Z"
    assert not any(None in row or None in row.values() for row in rows)


@pytest.mark.needs("systemd-journal-remote")
@pytest.mark.parametrize(
    ("options", "sizes", "status"),
    [
        (["--boot", OTHER_BOOT], [500 * 86_400.0], 0),
        (["--until", "2026-09-21T15:14:00"], [-2.5, 500 * 86_400.0], 1),
        (["--since", "2026-09-21T16:00"], [10.0, 500 * 86_400.0], 2),
    ],
)
def test_a_part(folder: Path, tmp_path: Path, options: list[str], sizes: list[float], status: int) -> None:
    """One boot, or a period by the host's clock; the exit status is that of the worst."""
    ran = journal("--directory", str(folder), *options, "--format", "json", state=tmp_path)
    assert [one["size_s"] for one in lines(ran)] == sizes
    assert ran.status == status


@pytest.mark.needs("systemd-journal-remote")
def test_no_step(tmp_path: Path) -> None:
    """Nothing found is ok, and is said."""
    write_journal(tmp_path / "journal", [Entry(number * S) for number in range(1, 50)])
    ran = journal("--directory", str(tmp_path / "journal"), state=tmp_path)
    assert ran.status == 0
    assert ran.out.startswith("OK  no step of the clock and no suspend\n\njournal   49 entries of 1 boot, from ")
    assert journal("--directory", str(tmp_path / "journal"), "--format", "json", state=tmp_path).out == ""


@pytest.mark.needs("systemd-journal-remote")
def test_a_damaged_file_is_no_ok(tmp_path: Path) -> None:
    """What could not be read is named, and the status is unknown."""
    whole = write_journal(tmp_path / "journal", [Entry(number * S) for number in range(1, 50)])
    (tmp_path / "journal/cut.journal").write_bytes(whole.read_bytes()[:1000])
    ran = journal("--directory", str(tmp_path / "journal"), state=tmp_path)
    assert ran.status == 3
    assert "cut.journal" in ran.err
    assert ran.out.startswith("UNKNOWN  no step")


@pytest.mark.needs("journald")
def test_errors(tmp_path: Path) -> None:
    """No journal is unknown, with the reason; a wrong option is a usage error."""
    (tmp_path / "empty").mkdir()
    for options, status, text in (
        (["--directory", str(tmp_path / "absent")], 3, "No such file or directory"),
        (["--directory", str(tmp_path / "empty")], 3, "no entries"),
        (["--file", __file__], 3, "cannot be read"),
        (["--directory", ".", "--file", __file__], 64, "--directory cannot be combined with --file"),
        (["--boot", "yesterday"], 64, "32 hex digits"),
        (["--since", "1h", "--until", "2h"], 64, "--since is later than --until"),
        (["--format", "xml"], 64, "xml"),
    ):
        ran = journal(*options, state=tmp_path)
        assert (ran.status, ran.out) == (status, ""), options
        assert text in ran.err
