"""Lists of a history: for people in lines that fit, for programs with every digit."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ntpaudit.core.accounting import Spans
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S, format_utc
from ntpaudit.render.terminal import painter
from ntpaudit.reports.history_tables import (
    audit_csv,
    audit_table,
    event_csv,
    event_json,
    event_table,
    hour_json,
    hour_table,
)
from ntpaudit.store.audits import StoredEvent
from ntpaudit.store.database import open_database
from ntpaudit.store.queries import Audit, Hour
from tests.histories import World, stored, write
from tests.records import NOW_NS

PLAIN = painter(False)
WORLD = World(stepped_s=lambda minute: 2.5 if minute >= 40 else 0.0, answers=lambda minute: not 10 <= minute < 35)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Audit], list[Hour], list[StoredEvent]]:
    """Audits, hours and events of an hour in which much goes wrong."""
    path = tmp_path_factory.mktemp("listing") / "history.sqlite3"
    write(path, WORLD, range(60))
    connection = open_database(str(path))
    audits = list(stored(connection).audits(stored(connection).window()))
    return audits, stored(connection).hours(None, None), stored(connection).events(None, None)


def audit(**changes: Any) -> Audit:
    """Return an audit."""
    plain = Audit(1, NOW_NS, True, NOW_NS, "local", Severity.OK, "within", 0.0019, -0.002, 0.005, 60.0, ())
    return plain._replace(**changes)


@pytest.mark.parametrize("width", [60, 76, 80, 90, 100, 120, 140])
def test_no_line_is_wider_than_the_page(width: int, past: tuple[list[Audit], list[Hour], list[StoredEvent]]) -> None:
    """At every width each audit has its line, in ASCII; a narrow one leaves columns out, never rows."""
    findings = ("unsynced", "daemon-count", "not-demonstrable", "breach-forecast", "source-quorum")
    widest = audit(findings=findings, offset_s=1.7e9, earliest_s=1.7e9, latest_s=1.7e9, verdict="unmeasured")
    lines = list(audit_table([*past[0], widest], width, PLAIN))
    assert len(lines) == len(past[0]) + 2
    assert "53.9 years behind" in lines[-1]
    assert all(len(line) <= width + 1 for line in lines)
    assert "".join(lines).replace("µ", "u").isascii()
    assert ("verdict" in lines[0]) == (width >= 100)
    assert re.search(r"unsyn\S* ?.*\+\d$|unsynced ", lines[-1])


def test_a_line_says_what_the_audit_said() -> None:
    """Time to the second, offset in words, the bound rounded up, how old the servers' word was, findings."""
    listed = audit(findings=("unsynced", "daemon-count"), minor=frozenset({"daemon-count"}), severity=Severity.WARNING)
    line = list(audit_table([listed], 140, PLAIN))[1]
    words = "2026-11-18 11:06:40 local warning within 1.9 ms behind 5 ms 60 s ago unsynced (low) daemon-count"
    assert " ".join(line.split()) == words
    unmeasured = audit(
        is_dated=False, offset_s=None, earliest_s=None, latest_s=None, age_s=None, verdict="unmeasured", kind="network"
    )
    line = list(audit_table([unmeasured], 100, PLAIN))[1]
    assert line.split() == ["2026-11-18", "11:06:40?", "ok", "unmeasured", "0", "s"]


@pytest.mark.parametrize(
    ("kind", "age_s", "polled"),
    [
        ("network", 0.0, "0 s"), ("check", 0.0, "0 s"), ("check", None, "0 s"), ("local", 0.0, "1 s ago"),
        ("local", 0.4, "1 s ago"), ("local", 59.6, "60 s ago"), ("local", None, ""),
    ],
)  # fmt: skip
def test_a_line_shows_when_servers_were_polled(kind: str, age_s: float | None, polled: str) -> None:
    """An audit that polled them itself shows 0 s, also that of `check --record`; a local one is always later."""
    line = list(audit_table([audit(kind=kind, age_s=age_s)], 140, PLAIN))[1]
    assert line.rpartition("5 ms")[2].strip() == polled


def test_colours_move_nothing(past: tuple[list[Audit], list[Hour], list[StoredEvent]]) -> None:
    """Severities are coloured, and nothing else changes."""
    colourful = painter(True)
    for coloured, plain in (
        (audit_table(past[0], 100, colourful), audit_table(past[0], 100, PLAIN)),
        (hour_table(past[1], 120, colourful), hour_table(past[1], 120, PLAIN)),
        (event_table(past[2], 100, colourful), event_table(past[2], 100, PLAIN)),
    ):
        text = "".join(coloured)
        assert re.search(r"\x1b\[3[1-5]m", text)
        assert re.sub(r"\x1b\[\d+m", "", text) == "".join(plain)


def test_csv_is_rfc_4180_with_every_digit(past: tuple[list[Audit], list[Hour], list[StoredEvent]]) -> None:
    """One header, CRLF, a row for each hour and audit; numbers come back to the nanosecond, times too."""
    audits, hours, _ = past
    text = "".join(audit_csv(hours, audits))
    assert text.count("\r\n") == text.count("\n") == len(audits) + len(hours) + 1
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for row, hour in zip(rows, hours, strict=False):
        assert (row["time"], row["kind"], row["audits"]) == (format_utc(hour.time_ns), "hour", str(hour.audits))
        assert float(row["most_offset_s"]) == hour.most_offset_s
    for row, audit in zip(rows[len(hours) :], audits, strict=True):
        assert (row["time"], row["host_time"]) == (format_utc(audit.time_ns), format_utc(audit.host_ns))
        assert [row[key] for key in ("kind", "severity", "verdict")] == [audit.kind, audit.severity.word, audit.verdict]
        for key in ("offset_s", "earliest_s", "latest_s", "bound_s"):
            assert float(row[key]) == getattr(audit, key)
        assert tuple(row["findings"].split()) == audit.findings
    assert {row["severity"] for row in rows} > {"ok"}


def test_csv_of_what_is_not_known_is_empty() -> None:
    """An audit without a known time has only the host's time, and no number where nothing was measured."""
    unmeasured = audit(is_dated=False, offset_s=None, earliest_s=None, latest_s=None, age_s=None)
    [row] = csv.DictReader(io.StringIO("".join(audit_csv([], [unmeasured]))))
    assert (row["time"], row["host_time"], row["offset_s"], row["bound_s"], row["age_s"]) == (
        "", format_utc(NOW_NS), "", "", "",
    )  # fmt: skip


def test_hours_in_lines(past: tuple[list[Audit], list[Hour], list[StoredEvent]]) -> None:
    """An hour's line has its counts and extremes; its JSON has a schema of its own."""
    spans = Spans(within=2000, beyond=180, unmeasured=720, absent=640, off=60)
    hour = Hour(NOW_NS, 60, 58, 50, 5, 3, Severity.CRITICAL, -0.001, 2.5, 2.51, spans)
    _, line, *legend = hour_table([hour], 140, PLAIN)
    assert legend == [
        "absent: no record shows that the agent ran, and the host may have run\n",
        "off: the host was down or suspended\n",
    ]
    assert line.split() == [
        "2026-11-18", "11:06", "60", "3", "min", "12", "min", "10.7", "min", "60", "s", "critical",
        "1", "ms", "ahead", "2.5", "s", "behind", "2.51", "s",
    ]  # fmt: skip
    assert list(hour_table([hour._replace(spans=None)], 140, PLAIN))[1].split()[2:8] == ["60", *"?????"]
    unknown = list(hour_table([hour._replace(spans=None)], 140, PLAIN))
    assert unknown[2:] == ["?: not known, because some records of the hour are deleted\n"]
    assert len(list(hour_table([hour._replace(spans=Spans(3600, 0, 0, 0, 0))], 140, PLAIN))) == 2
    data = json.loads("".join(hour_json([hour])))
    assert data == {
        "schema": "ntpaudit.hour/1",
        "account": None,
        "time": {"utc": format_utc(NOW_NS)},
        "audits": 60, "measured": 58, "within": 50, "unproven": 5, "beyond": 3, "severity": "critical",
        "least_offset_s": -0.001, "most_offset_s": 2.5, "bound_s": 2.51, "seconds": spans._asdict(),
    }  # fmt: skip
    for width in (60, 76, 80, 92, 100, 110, 120, 130, 140):
        assert all(len(line) <= width + 1 for line in hour_table([*past[1], hour], width, PLAIN))


def test_events_in_lines(past: tuple[list[Audit], list[Hour], list[StoredEvent]]) -> None:
    """What was raised has its level, what was cleared says so; long texts go on below their beginning."""
    text = "".join(event_table(past[2], 80, PLAIN))
    assert re.search(r"^2026-11-18 11:\d\d:\d\d   medium    evidence-gap: no measurement for", text, re.MULTILINE)
    assert re.search(r"^2026-11-18 11:\d\d:\d\d   cleared   evidence-gap: ", text, re.MULTILINE)
    assert "step-back: the clock was set back by 2.5 s" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    undated = past[2][0]._replace(event=past[2][0].event._replace(utc_ns=None))
    *_, last = event_table([undated], 80, PLAIN)
    assert last == "?: by the host's own clock, because the true time is not known\n"
    assert not any(line.startswith("?") for line in event_table(past[2], 80, PLAIN))
    assert re.match(r"[0-9-]{10} [0-9:]{8}\?  ", "".join(event_table([undated], 80, PLAIN)))


def test_events_for_programs(past: tuple[list[Audit], list[Hour], list[StoredEvent]]) -> None:
    """CSV and JSON have each event with its size, its boot and its detail."""
    rows = list(csv.DictReader(io.StringIO("".join(event_csv(past[2])), newline="")))
    objects = [json.loads(line) for line in event_json(past[2])]
    assert len(rows) == len(objects) == len(past[2])
    for row, data, (event, boot_id) in zip(rows, objects, past[2], strict=True):
        assert (row["event"], data["event"], data["schema"]) == (event.kind, event.kind, "ntpaudit.event/1")
        assert (row["raised"], data["raised"]) == (str(int(event.raised)), event.raised)
        assert (row["boot_id"], data["boot_id"]) == (boot_id, boot_id)
        assert data["detail"] == dict(event.detail)
        assert data["value_s"] == event.value_s
    [step] = [data for data in objects if data["event"] == "step-back"]
    assert step["value_s"] == pytest.approx(-2.5)
    assert step["time"]["boottime_ns"] > NS_PER_S


def test_text_from_outside_stays_in_its_line(
    past: tuple[list[Audit], list[Hour], list[StoredEvent]], tmp_path: Path
) -> None:
    """A line break or a terminal's control in an event's text breaks neither table nor CSV."""
    nasty = past[2][0]._replace(event=past[2][0].event._replace(text='new\nline\x1b[2J, "quoted"', kind="a\tb"))
    shown = "".join(event_table([nasty], 100, PLAIN))
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 1
    [row] = csv.DictReader(io.StringIO("".join(event_csv([nasty])), newline=""))
    assert row["text"] == 'new\nline\x1b[2J, "quoted"'
