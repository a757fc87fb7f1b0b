"""The line protocol says what the record says: to a strict reader, and to InfluxDB itself."""

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.chain import ChainHead
from ntpaudit.core.checks.rule import Finding
from ntpaudit.core.events import Event
from ntpaudit.core.observation import STATUSES
from ntpaudit.core.policy import PROFILES, VERDICTS, Severity
from ntpaudit.core.record import DatabaseOffset, Record
from ntpaudit.formats.line_protocol import points, render, render_events, render_unstamped, stamp_lines
from ntpaudit.render.text_safety import one_line, tag_value
from tests.outputs.agent import NASTY, SAME, agent_records, by_agent, event, events
from tests.records import CASES, NOW_NS, failed, record, records, seen, servers
from tests.world.servers import influxd

TAG = r"[a-z_]+=(?:[^ ,=\\\n]|\\[ ,=])+"
TEXT = r'"(?:[^"\\\n]|\\["\\])*"'
FLOAT = r"-?[0-9]+(?:\.[0-9]+)?(?:e[-+][0-9]+)?"
FIELD = rf"[a-z_][a-z0-9_]*=(?:{TEXT}|-?[0-9]+i|{FLOAT})"
LINE = re.compile(rf"([a-z_]+)((?:,{TAG})*) ({FIELD}(?:,{FIELD})*)(?: (-?[0-9]+))?\n")

INTEGERS = {
    "accepted",
    "confirmed",
    "daemon_synchronised",
    "disputed_severity",
    "judged_on_bound",
    "daemon_unapproved",
    "severity",
    "verdict",
    "stratum",
    "sources",
    "asked",
    "max_falsetickers",
    "guaranteed",
    "usable",
    "agreeing",
    "falsetickers",
    "findings",
    "host_time_ns",
    "status",
    "authenticated",
    "raised",
    "missed",
    "backlog",
    "failures",
}
TEXTS = {
    "version", "config_sha256", "profile", "finding_ids", "daemon", "daemon_follows", "address", "reference_id",
    "reason", "title", "text",
}  # fmt: skip
TAGS = {"host", "site", "env", "source", "kind"}

STRANGE = (
    "plain",
    " ",
    "two words",
    "comma,equals=",
    '"quoted"',
    "'single'",
    "back\\slash",
    "at the end\\",
    "twice\\\\",
    "\\",
    "\\,",
    "=",
    "#comment",
    "new\nline",
    "ü ☃ 時",
    "-1i",
    "$x; DROP",
)


@dataclass(frozen=True)
class Point:
    """One line, read back."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, int | float | str]
    stamp_ns: int | None


def read(text: str) -> list[Point]:
    """Read line protocol strictly: every character must belong to a line, and every name occur once in it."""
    points, at = [], 0
    while at < len(text):
        line = LINE.match(text, at)
        assert line, text[at:]
        at = line.end()
        tags = [tag[1:].split("=", 1) for tag in re.findall(f",{TAG}", line[2])]
        fields = [field.split("=", 1) for field in re.findall(FIELD, line[3])]
        names = [name for name, _ in tags + fields]
        assert len(set(names)) == len(names)
        assert [name for name, _ in tags] == sorted(name for name, _ in tags)
        points.append(
            Point(
                line[1],
                {name: re.sub(r"\\(.)", r"\1", value) for name, value in tags},
                {name: read_value(value) for name, value in fields},
                int(line[4]) if line[4] else None,
            )
        )
    return points


def read_value(text: str) -> int | float | str:
    """Read a field's value by its type."""
    if text.startswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return int(text[:-1]) if text.endswith("i") else float(text)


def as_tag(text: str) -> str:
    """Return what a tag keeps of a text."""
    return one_line(text).replace("\\", "/")


@given(records())
def test_every_record_can_be_read_back(record: Record) -> None:
    """Whatever was seen, a strict reader finds the clock, every source and every finding, with the record's values."""
    clock, *others = read(render(record))
    sources, events = others[: len(record.sources)], others[len(record.sources) :]
    assert clock.measurement == "ntpaudit_clock"
    assert clock.fields["severity"] == record.severity
    assert clock.fields["verdict"] == VERDICTS.index(record.verdict)
    assert clock.fields.get("offset_s") == (record.offset and record.offset.estimate_s)
    assert clock.fields.get("bound_s") == (record.offset and record.offset.bound_s)
    assert ("stratum" in clock.fields) == (record.offset is not None)
    for point, source in zip(sources, record.sources, strict=True):
        assert point.measurement == "ntpaudit_source"
        assert point.tags["source"] == as_tag(source.name)
        assert point.fields["status"] == STATUSES.index(source.status)
        assert point.fields.get("offset_s") == source.offset_s
        assert point.fields.get("reason") == source.reason
    assert [(point.measurement, point.tags["kind"]) for point in events] == [
        ("ntpaudit_event", finding.id) for finding in record.findings
    ]
    for point in (clock, *others):
        assert point.tags["host"] == as_tag(record.host.name) or not one_line(record.host.name).strip()
        assert point.tags.get("site", "") == as_tag(record.host.site or "")
        assert point.stamp_ns == record.utc_ns


@given(records() | agent_records(), st.none() | st.lists(events(), max_size=3))
def test_a_field_has_one_type_for_ever(record: Record, agent_events: list[Event] | None) -> None:
    """Whole numbers are integers, texts texts, and everything else is a float; no name is a field and a tag."""
    for point in read(render(record, agent_events)):
        for name, value in point.fields.items():
            assert type(value) is (int if name in INTEGERS else str if name in TEXTS else float)
            assert name not in TAGS
            assert not isinstance(value, int) or -(2**63) <= value < 2**63
        assert set(point.tags) <= TAGS


@given(records(), st.none() | st.lists(events(), max_size=3))
def test_points_are_what_the_lines_say(record: Record, agent_events: list[Event] | None) -> None:
    """A point has the tags and the numbers that are read back of its line, and nothing is kept of it that is not."""
    for point, line in zip(points(record, agent_events), read(render(record, agent_events)), strict=True):
        assert (point.measurement, point.stamp_ns) == (line.measurement, line.stamp_ns)
        assert {name: tag_value(value) for name, value in point.tags.items() if value} == line.tags
        assert line.fields.keys() <= {name for name, value in point.fields.items() if value is not None}
        for name, value in line.fields.items():
            assert isinstance(value, str) or point.fields[name] == value


@given(agent_records(), st.lists(events(), max_size=3))
def test_an_agent_writes_its_events_and_no_others(record: Record, agent_events: list[Event]) -> None:
    """Each event is a point at its own time; only a network audit writes sources, and no audit writes findings."""
    points = read(render(record, agent_events))
    sources = [point for point in points if point.measurement == "ntpaudit_source"]
    found = [point for point in points if point.measurement == "ntpaudit_event"]
    assert len(sources) == (len(record.sources) if record.kind == "network" else 0)
    assert len(points) == 1 + len(sources) + len(found)
    for point, one in zip(found, agent_events, strict=True):
        assert point.tags["kind"] == one.kind
        assert point.stamp_ns == one.utc_ns
        assert point.fields["raised"] == one.raised
        assert point.fields["severity"] == one.severity
        assert point.fields.get("value_s") == one.value_s
        assert point.fields["title"] == one.title
        assert str(point.fields["text"]).startswith(one_line(one.text))


def test_what_only_an_agent_knows() -> None:
    """The clock's rate and the agent's own state are fields of the clock; what is unknown or infinite is left out."""
    fields = read(render(by_agent(SAME), []))[0].fields
    assert {name: fields[name] for name in sorted(set(fields) - set(read(render(SAME))[0].fields))} == {
        "backlog": 7,
        "config_sha256": "c" * 64,
        "failures": 3,
        "frequency_ppm": 12.25,
        "missed": 2,
        "oldest_undelivered_s": 420.5,
        "skew_ppm": 0.75,
    }
    assert fields["age_s"] == 61.5
    drift = by_agent(SAME).drift
    assert drift is not None
    unknown = by_agent(SAME, age_s=None, drift=drift._replace(frequency_ppm=None))
    line = render(unknown, [event("breach-forecast", value_s=float("inf"))])
    assert "frequency_ppm" not in line
    assert "age_s" not in line
    assert "value_s" not in line


def test_the_clock_has_the_head_of_the_chain() -> None:
    """As a text, and its first 53 bits as a number for databases that store no texts."""
    chained = record(*servers(0.0019))._replace(chain=ChainHead(7, bytes.fromhex("0123456789abcdef" * 4)))
    fields = next(points(chained)).fields
    assert (fields["chain"], fields["chain_head"]) == (7, "0123456789abcdef" * 4)
    assert fields["chain_head_int"] == 0x0123456789ABCDEF >> 11
    assert not next(points(record(*servers(0.0019)))).fields.keys() & {"chain", "chain_head", "chain_head_int"}


@given(agent_records(), st.lists(events(), max_size=3), st.integers(-(2**62), 2**62))
def test_lines_without_a_stamp_get_one_and_no_other(record: Record, agent_events: list[Event], stamp_ns: int) -> None:
    """Whatever a name or a text holds, every line without a stamp gets it, and one that has one keeps its own."""
    unstamped = render_unstamped(record, agent_events)
    assert {point.stamp_ns for point in read(unstamped)} == {None}
    whole = read(render(record, agent_events))
    assert read(stamp_lines(unstamped, stamp_ns)) == [replace(point, stamp_ns=stamp_ns) for point in whole]
    stamps = [stamp_ns if point.stamp_ns is None else point.stamp_ns for point in whole]
    assert [point.stamp_ns for point in read(stamp_lines(render(record, agent_events), stamp_ns))] == stamps
    assert stamp_lines(stamp_lines(unstamped, stamp_ns), 7) == stamp_lines(unstamped, stamp_ns)
    assert stamp_lines("", stamp_ns) == ""


@pytest.mark.parametrize("text", NASTY)
def test_a_text_that_looks_like_a_stamp_is_none(text: str) -> None:
    """Quotes, backslashes, blanks and numbers inside a text never pass for the end of a line."""
    agent_events = [event(text=text, remedy="")]
    named = SAME._replace(host=SAME.host._replace(name=f"web {text} 7"))
    assert [point.stamp_ns for point in read(stamp_lines(render_unstamped(named, agent_events), 5))] == [5] * 6


def test_a_whole_number_of_seconds_is_a_float() -> None:
    """A value that happens to be whole keeps the type of its field, or the database would refuse the next one."""
    kernel = dict(CASES["finding"].kernel) | {"maxerror_s": 16}
    assert ",kernel_maxerror_s=16.0," in render(CASES["finding"]._replace(kernel=kernel))


def test_the_stamp_is_the_true_time() -> None:
    """A host that believes in 1970 has its points where the others have theirs, and says what it believed."""
    for point in read(render(CASES["1970"])):
        assert point.stamp_ns == pytest.approx(NOW_NS, abs=2e9)
    assert read(render(CASES["1970"]))[0].fields["host_time_ns"] == 43_000_000_000


def test_what_is_rare_is_a_field_only_then() -> None:
    """A dispute and a missing confirmation are fields of the points that have them, and cost nothing elsewhere."""
    plain = read(render(by_agent(SAME), []))[0].fields
    assert not {"disputed_s", "disputed_severity", "confirmed", "judged_on_bound"} & plain.keys()
    agrees = by_agent(SAME)._replace(database_clock=DatabaseOffset(-1.0, 1.0, 20.0, 0.0))
    assert not {"disputed_s", "confirmed"} & read(render(agrees, []))[0].fields.keys()
    disputed = agrees._replace(database_clock=DatabaseOffset(-10800.0, -10798.0, 20.0, 10798.0), confirmed=False)
    fields = read(render(disputed, []))[0].fields
    assert (fields["disputed_s"], fields["confirmed"]) == (10798.0, 0)
    assert fields["disputed_severity"] == fields["severity"]


def test_findings_that_count_are_named() -> None:
    """A rule of Grafana finds the hosts with a finding in their last points: those that count, and no field without."""

    def named(record: Record) -> object:
        return next(iter(points(record))).fields["finding_ids"]

    assert named(CASES["findings"]) == "kiss-of-death unsynced"
    assert named(CASES["ok, behind"]) is None
    assert CASES["ok, falseticker"].findings
    assert named(CASES["ok, falseticker"]) is None
    pending = Finding("offset-high", Severity.UNKNOWN, "low", "the clock is 2 s ahead. Pending", "wait")
    assert named(CASES["ok, behind"]._replace(findings=(pending,))) is None


@pytest.mark.parametrize("wrong_s", [-19.6 * 365.25 * 86_400, 3 * 86_400.0])
def test_what_no_database_would_keep_is_stamped_by_its_clock(wrong_s: float) -> None:
    """Servers that are years off, as after a GPS rollover: the points lie where the host is looked for, events too."""
    disputed = by_agent(SAME)._replace(database_clock=DatabaseOffset(-wrong_s, 2 - wrong_s, 20.0, wrong_s))
    assert disputed.utc_ns is not None
    agent_events = [event(utc_ns=disputed.utc_ns)]
    for point in read(render(disputed, agent_events) + render_events(disputed.host, agent_events, disputed)):
        assert point.stamp_ns == disputed.utc_ns - round(wrong_s * 10**9)
    within_a_day = disputed._replace(database_clock=DatabaseOffset(-1.08e4, 2 - 1.08e4, 20.0, 10800.0))
    assert {point.stamp_ns for point in read(render(within_a_day, agent_events))} == {disputed.utc_ns}


def test_every_point_says_that_its_time_is_disputed() -> None:
    """So a reader knows when it came; what is stamped on its arrival, or not contradicted, has no such field."""
    disputed = by_agent(SAME)._replace(database_clock=DatabaseOffset(-1.08e4, 2 - 1.08e4, 20.0, 10800.0))
    agent_events = [event(utc_ns=disputed.utc_ns)]
    read_again = read(render(disputed, agent_events) + render_events(disputed.host, agent_events, disputed))
    assert {point.measurement for point in read_again} == {"ntpaudit_clock", "ntpaudit_source", "ntpaudit_event"}
    assert {point.fields.get("disputed_s") for point in read_again} == {10800.0}
    assert "disputed_s" not in render_events(disputed.host, [event(utc_ns=None)], disputed)
    assert "disputed_s" not in render(by_agent(SAME), agent_events) + render_events(disputed.host, agent_events)


def test_an_unmeasured_clock_has_no_stamp() -> None:
    """If the true time is unknown, no point has a timestamp and no offset is written."""
    clock, *others = read(render(CASES["unmeasured, no reply"]))
    assert clock.fields == {
        "severity": 2,
        "verdict": 3,
        "sources": 4,
        "asked": 4,
        "usable": 0,
        "agreeing": 0,
        "falsetickers": 0,
        "findings": 1,
        "finding_ids": "unreachable-sources",
        "host_time_ns": NOW_NS + 10**9,
        "kernel_maxerror_s": 0.031,
        "version": "0.1.0",
        "profile": "log-integrity",
        "warning_s": 0.1,
        "critical_s": 1.0,
        "daemon": "chronyd",
    }
    assert {point.stamp_ns for point in (clock, *others)} == {None}


@given(st.text(max_size=4), st.none() | st.just("0123456789abcdef0123456789abcdef"), st.lists(events()))
def test_every_point_says_of_which_host(name: str, machine_id: str | None, happened: list[Event]) -> None:
    """An empty host name leaves no point without its `host` tag: such points would be those of no host, or of many."""
    named = CASES["ok, behind"]
    named = named._replace(host=named.host._replace(name=name, machine_id=machine_id))
    expected = as_tag(name) if one_line(name).strip() else "machine-0123456789ab" if machine_id else "unnamed"
    for point in read(render(named, happened) + render_events(named.host, happened)):
        assert point.tags["host"] == expected


def test_the_nearest_source_speaks_for_the_path() -> None:
    """Delay, root distance and stratum are those of the agreeing source that is nearest to the truth."""
    fields = read(render(record(seen("far", 0.0, delay_s=0.3), seen("near", 0.0, delay_s=0.001, stratum=1))))[0].fields
    assert fields["delay_s"] == pytest.approx(0.001)
    assert fields["stratum"] == 1
    assert fields["root_distance_s"] == pytest.approx(0.0024, abs=1e-4)


def test_an_unknown_value_is_not_written() -> None:
    """Neither a kernel that would not say, nor a year beyond 64 bits of nanoseconds, becomes a number."""
    clock = read(render(CASES["ok, kernel not asked"]))[0]
    assert "kernel_maxerror_s" not in clock.fields
    far_ns = 2**63
    assert "host_time_ns" not in read(render(record(*servers(-9e8, host_ns=far_ns), host_ns=far_ns)))[0].fields


class Database:
    """An InfluxDB to write to and to ask."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def write(self, text: str) -> int:
        """Write lines and return the status; anything but success raises HTTPError."""
        question = urllib.parse.urlencode({"db": "ntpaudit", "precision": "ns"})
        with self._opener.open(f"{self._url}/write?{question}", data=text.encode()) as answer:
            status: int = answer.status
            return status

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Ask in InfluxQL and return the rows by column."""
        question = urllib.parse.urlencode({"db": "ntpaudit", "epoch": "ns", "q": query})
        with self._opener.open(f"{self._url}/query?{question}") as answer:
            (result,) = json.load(answer)["results"]
        return [
            dict(zip(series["columns"], values, strict=True))
            for series in result.get("series", [])
            for values in series["values"]
        ]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Run InfluxDB with an empty database."""
    with influxd(database="ntpaudit") as url:
        yield Database(url)


@pytest.mark.parametrize("case", CASES)
def test_influxdb_takes_every_case(database: Database, case: str) -> None:
    """InfluxDB accepts every case into one database, so no type ever conflicts, and gives the values back."""
    record = CASES[case]._replace(host=CASES[case].host._replace(name=case, site=None, env=None))
    before_ns = time.time_ns()
    assert database.write(render(record)) == 204
    for point in read(render(record)):
        tags = " AND ".join(f""""{name}" = '{value}'""" for name, value in point.tags.items())
        (row,) = database.rows(f"SELECT * FROM {point.measurement} WHERE {tags}")
        stored_ns = row.pop("time")
        if point.stamp_ns is None:
            assert before_ns - 10**9 <= stored_ns <= time.time_ns() + 10**9
        else:
            assert stored_ns == point.stamp_ns
        assert {name: value for name, value in row.items() if value is not None} == point.tags | point.fields


def test_influxdb_reads_strange_names_as_we_do(database: Database) -> None:
    """Whatever a tag or a text holds, InfluxDB stores the characters that a strict reader finds."""
    written = record(*(failed(name, "rejected", name) for name in STRANGE), name="strange")
    assert database.write(render(written)) == 204
    rows = database.rows("SELECT reason, source FROM ntpaudit_source WHERE host = 'strange'")
    assert {row["source"]: row["reason"] for row in rows} == {as_tag(name): one_line(name) for name in STRANGE}


def test_influxdb_takes_an_agents_points(database: Database) -> None:
    """InfluxDB stores an agent's figures and events beside a check's, each event once and at its own time."""
    agent = by_agent(SAME._replace(host=SAME.host._replace(name="agent")))
    stored = [event("step-back", value_s=-2.5, utc_ns=NOW_NS - 5), event(raised=False, utc_ns=None, text='of "12')]
    lines = stamp_lines(render(agent, stored), NOW_NS + 7)
    assert database.write(lines) == 204
    assert database.write(lines) == 204
    rows = database.rows("SELECT kind, raised, value_s, text FROM ntpaudit_event WHERE host = 'agent'")
    assert [(row["time"], row["kind"], row["raised"], row["value_s"]) for row in rows] == [
        (NOW_NS - 5, "step-back", 1, -2.5),
        (NOW_NS + 7, "unsynced", 0, None),
    ]
    assert rows[1]["text"] == 'of "12'
    (row,) = database.rows("SELECT backlog, missed, frequency_ppm, age_s FROM ntpaudit_clock WHERE host = 'agent'")
    assert (row["backlog"], row["missed"], row["frequency_ppm"], row["age_s"]) == (7, 2, 12.25, 61.5)


def test_an_interval_that_proves_nothing_is_not_confirmed() -> None:
    """One usable reply of four: a reader that judges points again must not take the interval for proven (R1)."""
    lost = [failed(f"ntp{number}", "unreachable", "timeout", f"192.0.{number}.9") for number in (7, 8, 9)]
    fields = read(render(record(seen("ntp1", 0.0), *lost)))[0].fields
    assert (fields["guaranteed"], fields["max_falsetickers"], fields["asked"], fields["confirmed"]) == (0, 0, 4, 0)
    assert "confirmed" not in read(render(CASES["ok, behind"]))[0].fields


def test_a_point_says_what_its_warning_is_judged_on() -> None:
    """A reader judges the warning again: by the maximum error where the profile does."""
    made = record(*servers(0.0019))
    for name, value in (("ops-strict", 1), ("log-integrity", None)):
        fields = read(render(made._replace(profile=PROFILES[name])))[0].fields
        assert fields.get("judged_on_bound") == value


def test_a_point_says_by_what_its_oscillator_may_be_off_where_that_is_more() -> None:
    """A reader assumes 50 ppm of any: the field is rare, so that to ask for it costs little."""
    made = record(*servers(0.0019))
    assert made.offset is not None
    for drift_ppm, value in ((80.5, 80.5), (50.0, None), (20.0, None)):
        drifting = made._replace(offset=made.offset._replace(max_drift_ppm=drift_ppm))
        assert read(render(drifting))[0].fields.get("max_drift_ppm") == value
