"""Where the points of a simulated fleet go: what a database's answers mean, and that nothing is lost or twice."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.network import query_without_udp
from ntpaudit.demo.scenario import build_scenario
from ntpaudit.demo.simulated_agent import SimulatedAgent, SimulatedAudit
from ntpaudit.demo.writers import ATTEMPTS, BATCH_LINES, MOST_WAIT_S, InfluxWriter
from ntpaudit.errors import OutputError
from tests.world.flaky import Answer, Fault, FlakyDatabase, Request, Reset

END_NS = 1_795_000_000 * NS_PER_S
STORED = Answer(204)


@pytest.fixture(scope="module")
def audits() -> list[SimulatedAudit]:
    """All audits of a host that cannot be measured in the end."""
    scenario = build_scenario(24, 6.0, 1, END_NS)
    part = next(part for part in scenario.hosts if part.fault.name == "cut-off")
    return list(SimulatedAgent(part, scenario, query_without_udp).advance(END_NS))


@pytest.fixture
def database() -> Iterator[FlakyDatabase]:
    """A database that stores everything, until it is changed."""
    with FlakyDatabase(choose=lambda request: STORED) as running:
        yield running


def writer(database: FlakyDatabase) -> closing[InfluxWriter]:
    """Open a way to it."""
    return closing(InfluxWriter(InfluxConfig(database.url, timeout_s=5.0), "secret"))


def write_all(writer: InfluxWriter, audits: Sequence[SimulatedAudit]) -> None:
    """Write audits."""
    for audit in audits:
        writer.write(audit)


def after(count: int, fault: Fault, until: int = 1000) -> Callable[[Request], Fault]:
    """Let the first requests succeed, and the later ones fail until another number."""
    seen = []

    def choose(request: Request) -> Fault:
        seen.append(request)
        return fault if count < len(seen) <= until else STORED

    return choose


def test_every_line_is_written_once_and_has_its_time(database: FlakyDatabase, audits: list[SimulatedAudit]) -> None:
    """In batches; what the host does not know the true time of has the world's."""
    with writer(database) as out:
        for _ in range(10):
            write_all(out, audits)
        out.flush()
        out.flush()
    lines = [line for request in database.requests for line in request.lines.splitlines()]
    assert sum(line.startswith("ntpaudit_clock,") for line in lines) == 10 * len(audits)
    assert max(len(request.lines.splitlines()) for request in database.requests) < BATCH_LINES + 20
    assert len(database.requests) == -(-len(lines) // BATCH_LINES)
    stamps = [int(line.rpartition(" ")[2]) for line in lines]
    assert all(END_NS - 7 * 3600 * NS_PER_S < stamp <= END_NS + NS_PER_S for stamp in stamps)
    assert audits[-1].record.utc_ns is None
    assert audits[-1].utc_ns in stamps
    assert audits[-1].utc_ns == audits[-1].record.host_ns + audits[-1].behind_ns
    assert all("env=demo,host=fra-" in line for line in lines)


def test_a_database_that_works_is_waited_for(database: FlakyDatabase, audits: list[SimulatedAudit]) -> None:
    """Once it has stored something, two failures are no reason to give up."""
    with writer(database) as out:
        for fault in (Answer(503), Reset("before")):
            database.choose = after(1, fault, 3)
            write_all(out, audits)
            out.flush()
            write_all(out, audits)
            out.flush()
            assert len(database.requests) == 4
            database.requests.clear()


def test_a_patient_writer_waits_without_end(database: FlakyDatabase, audits: list[SimulatedAudit]) -> None:
    """However often it fails: the wait and its end are reported once each, and each point arrives once."""
    said: list[str] = []
    pauses: list[float] = []
    config = InfluxConfig(database.url, timeout_s=5.0)
    with closing(InfluxWriter(config, None, None, said.append, pauses.append)) as out:
        database.choose = after(1, Answer(503), 1 + 3 * ATTEMPTS)
        write_all(out, audits[:3])
        out.flush()
        write_all(out, audits[3:6])
        out.flush()
    assert len(said) == 2
    assert said[0].startswith(f"cannot write to {database.url}: 503")
    assert said[0].endswith("; waiting for it")
    assert said[1] == "the database accepts points again; continuing"
    assert len(pauses) == 3 * ATTEMPTS
    assert max(pauses) <= MOST_WAIT_S
    first, *failed, last = [request.lines for request in database.requests]
    assert set(failed) == {last}
    assert first != last


def test_an_impatient_writer_gives_up(database: FlakyDatabase, audits: list[SimulatedAudit]) -> None:
    """After a number of attempts the reason is reported."""
    pauses: list[float] = []
    with closing(InfluxWriter(InfluxConfig(database.url), None, 3, pause=pauses.append)) as out:
        database.choose = after(1, Answer(503))
        write_all(out, audits[:1])
        out.flush()
        write_all(out, audits[1:2])
        with pytest.raises(OutputError, match="503"):
            out.flush()
    assert len(pauses) == 2
    assert len(database.requests) == 4


def test_what_is_too_much_at_once_is_halved(database: FlakyDatabase, audits: list[SimulatedAudit]) -> None:
    """A server with a limit of lines gets them all in the end."""
    database.choose = lambda request: Answer(413) if len(request.lines.splitlines()) > 100 else STORED
    with writer(database) as out:
        write_all(out, audits)
        out.flush()
    stored = [request.lines for request in database.requests if len(request.lines.splitlines()) <= 100]
    assert sum(text.count("ntpaudit_clock,") for text in stored) == len(audits)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Answer(404, "database not found"), "404: .*create the bucket"),
        (Answer(404, '{"error":"x"}'), r"404: x; create the bucket .*, or check --influx-url, --org and --bucket$"),
        (
            Answer(404, "404 page not found"),
            "404: .*--influx-url; an InfluxDB before 1.8 .*docs/delivery.md, 'InfluxDB before 1.8'",
        ),
        (
            Answer(501, "<html><title>No\nsuch</title>"),
            "501: a web page, 'No such'; this is not a database, .*: check --influx-url$",
        ),
        (Answer(200, "ok"), "200: ok; this is not the reply of a database: check --influx-url$"),
        (
            Answer(307, "", (("Location", "http://x"),)),
            "307: redirected to http://x; write the final URL in --influx-url$",
        ),
        (Answer(401), "401: .*check the token: INFLUXDB_V2_TOKEN$"),
        (Answer(503), "503"),
        (Reset("before"), "no reply"),
        (Answer(400, '{"error":"partial write: field type conflict dropped=1"}'), "400: partial write"),
    ],
)
def test_a_refusal_is_reported_at_once(
    database: FlakyDatabase, audits: list[SimulatedAudit], fault: Fault, said: str
) -> None:
    """A refusal, or a first attempt that fails, ends the demonstration with the reason and the fix."""
    database.choose = lambda request: fault
    with writer(database) as out:
        write_all(out, audits[:3])
        with pytest.raises(OutputError, match=f"cannot write to {database.url}: {said}"):
            out.flush()
    assert len(database.requests) == 1


def test_a_missing_database_is_reported_with_the_fix(database: FlakyDatabase, audits: list[SimulatedAudit]) -> None:
    """A database that does not run is to be started, or another one named."""
    database.refuse()
    with writer(database) as out:
        write_all(out, audits[:3])
        with pytest.raises(
            OutputError, match="no connection: Connection refused; start the database, or check --influx-url"
        ):
            out.flush()
