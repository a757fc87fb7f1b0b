"""A bad reply or none is a ReadError with a fix: in one line, without the token."""

import json
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ntpaudit.core.fleet.checks import judge_fleet
from ntpaudit.core.fleet.model import FleetPolicy
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import ReadError
from ntpaudit.fleet import open_reader
from ntpaudit.fleet.decode import CLOCK
from ntpaudit.fleet.reader import Reader, SnapshotOptions
from ntpaudit.net import http
from ntpaudit.reports import fleet_csv, fleet_json, fleet_nagios, fleet_page, fleet_text
from tests.records import NOW_NS
from tests.world.flaky import Answer, Fault, FlakyDatabase, Hang, Octets, Request, certificate
from tests.world.servers import free_port, prometheus

TOKEN = "s3kret-t0ken-of-the-tests"
LANGUAGES = ("influxql", "promql")

Got = TypeVar("Got")

Series = tuple[dict[str, object], object, object]
"""Labels, a stamp and a value."""


@pytest.fixture(scope="module")
def database() -> Iterator[FlakyDatabase]:
    """A server whose replies a test chooses."""
    with FlakyDatabase() as flaky:
        yield flaky


def opened(url: str, language: str, *, timeout_s: float = 5.0, ca_file: str | None = None) -> Reader:
    """Open a reader with a token."""
    return open_reader(url=url, language=language, token=TOKEN, timeout_s=timeout_s, ca_file=ca_file)


def failure(url: str, language: str, *, timeout_s: float = 5.0, ca_file: str | None = None) -> str:
    """Return why a snapshot cannot be read."""
    with (
        closing(opened(url, language, timeout_s=timeout_s, ca_file=ca_file)) as reader,
        pytest.raises(ReadError) as error,
    ):
        reader.snapshot(NOW_NS, SnapshotOptions())
    message = str(error.value)
    assert message == f"{error.value.reason}; {error.value.remedy}"
    assert message.isprintable()
    assert TOKEN not in message
    return message


def packed(body: bytes, *, packing: bytes = b"gzip", cut: int = 0, status: bytes = b"200 OK") -> Octets:
    """Return an answer that is packed, without its last octets; it lasts until the connection ends."""
    whole = zlib.compress(body, wbits=31)
    return Octets(b"HTTP/1.1 " + status + b"\r\nContent-Encoding: " + packing + b"\r\n\r\n" + whole[: len(whole) - cut])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Answer(401, '{"error":"unable to parse authentication credentials"}'), ["401: unable", "fleet.token_file"]),
        (Answer(403, "no", (("X-Why", "no"),)), ["replies 403: no", "fleet.token_file"]),
        (Answer(404, "<html>\n<h1>no</h1>"), ["QL, replies 404: a web page; check fleet.url and fleet.language"]),
        (
            Answer(302, "", (("Location", "https://sso.example/\x1b[2J"),)),
            ["redirects to https://sso.example/", "fleet.url"],
        ),
        (Answer(301), ["redirects to nowhere"]),
        (Answer(400, '{"error":"parse"}'), ["replies 400: parse", "fleet.language"]),
        (Answer(422, '{"status":"error","error":"too many"}'), ["replies 422: too many", "--site"]),
        (Answer(500, ""), ["replies 500: Said", "log of the database"]),
        (packed(b'{"error":"of the gateway"}', status=b"502 Bad"), ["replies 502: of the gateway", "a proxy"]),
        (Answer(503, "later"), ["replies 503: later"]),
        (Answer(204), ["replies 204"]),
        (Answer(200, "<html>Welcome</html>"), ["fleet.url and fleet.language"]),
        (Answer(200, "[" * 100_000), ["fleet.url and fleet.language"]),
        (Answer(200, "null"), ["fleet.url and fleet.language"]),
        (Answer(200, "[1]"), ["fleet.url and fleet.language"]),
        (Answer(200, "{}"), ["fleet.url and fleet.language"]),
        (Answer(200, '{"results":[]}'), ["fleet.url and fleet.language"]),
        (Answer(200, '{"results":[{"error":"of a query"}]}'), ["fleet."]),
        (Answer(200, '{"status":"success","data":{}}'), ["VictoriaMetrics"]),
        (Answer(200, '{"status":"success","data":{"result":[{"metric":7}]}}'), ["VictoriaMetrics"]),
        (packed(b"{" + b" " * 5000, cut=12), ["ends too early", "retry"]),
        (packed(b"{}", packing=b"br"), ["encoded as br", "fleet.url"]),
        (Octets(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n{}"), ["cannot be decompressed"]),
        (
            Octets(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
            ["no reply in HTTP: IncompleteRead", "retry"],
        ),
        (Octets(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), ["no reply in HTTP"]),
        (Octets(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{"), ["fleet."]),
        (Octets(b"SSH-2.0-OpenSSH_9.2\r\n"), ["no reply in HTTP: BadStatusLine", "fleet.url"]),
        (Octets(b""), ["no "]),
    ],
)
def test_a_bad_answer_is_reported(database: FlakyDatabase, language: str, fault: Fault, words: list[str]) -> None:
    """Every answer that is none of a database says what it was, and what to do."""
    database.choose = lambda request: fault
    message = failure(database.url, language)
    assert message.startswith(database.url)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("language", "body", "words"),
    [
        ("influxql", '{"results":[{"statement_id":0,"partial":true}]}', "ends too early"),
        ("influxql", '{"results":[{"statement_id":0,"series":[{"partial":true}],"partial":true}]}', "ends too early"),
        ("influxql", '{"error":"not authorized"}', "not authorized; check fleet.database, and what the token"),
        ("promql", '{"status":"error","error":"cannot"}', "cannot; check fleet.url"),
        ("promql", '{"status":"success","isPartial":true,"data":[]}', "every vmstorage"),
        ("promql", '{"status":"success","data":{"result":[]}}', "not a response of VictoriaMetrics; check"),
    ],
)
def test_half_an_answer_is_none(database: FlakyDatabase, language: str, body: str, words: str) -> None:
    """An answer that lacks a part, or has an error inside, is not taken for the whole."""
    database.choose = lambda request: Answer(200, "" if "/federate" in request.target else body)
    assert words in failure(database.url, language)


NAMED = (
    "this is {}, which cannot be read: it lacks VictoriaMetrics' /api/v1/export; name an InfluxDB or VictoriaMetrics"
)


def test_prometheus_is_named() -> None:
    """A real one has most of the queried paths, but not those of VictoriaMetrics alone: either language names it."""
    with prometheus() as url:
        for language in LANGUAGES:
            assert NAMED.format("Prometheus, Thanos or Mimir") in failure(url, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_kin_of_prometheus_is_named(database: FlakyDatabase, language: str) -> None:
    """A server that reports another product of that kind is called by that name."""
    build = {"application": "Grafana Mimir", "version": "2.14.0", "revision": "1c1c4a1"}

    def choose(request: Request) -> Answer:
        if "/buildinfo" in request.target:
            return Answer(200, json.dumps({"status": "success", "data": build}))
        known = "/api/v1/label" in request.target
        return Answer(200, '{"status":"success","data":[]}') if known else Answer(404, "404 page not found\n")

    database.choose = choose
    message = failure(database.url, language)
    assert NAMED.format("Grafana Mimir") in message
    assert message.endswith(" in fleet.url")


@pytest.mark.parametrize("language", LANGUAGES)
def test_silence_is_reported(database: FlakyDatabase, language: str) -> None:
    """A server that does not answer, or an octet at a time for ever, is given up; so is one that is not there."""
    database.choose = lambda request: Hang()
    asked = "InfluxQL" if language == "influxql" else "PromQL"
    said = f"no reply in 0.1 s, queried in {asked}; check fleet.url and the load"
    assert said in failure(database.url, language, timeout_s=0.1)
    database.choose = lambda request: Octets(b"HTTP/1.1 200 OK\r\n" + b"X-Slow: yes\r\n" * 50, 0.02)
    assert "no reply in 0.1 s" in failure(database.url, language, timeout_s=0.1)
    unused = f"http://127.0.0.1:{free_port('127.0.0.1', socket.SOCK_STREAM)}"
    assert "no connection: Connection refused; start the database" in failure(unused, language)
    assert "name is not known" in failure("http://" + ("a" * 60 + ".") * 6 + "example", language)
    assert "fleet.url" in failure("http://a..b", language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_too_long_an_answer_is_refused(database: FlakyDatabase, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that would fill the memory is not read to its end, packed or not."""
    monkeypatch.setattr(http, "MAX_BYTES", 3 << 20)
    for fault in (packed(bytes(50 << 20)), Answer(200, " " * (5 << 20))):
        database.choose = lambda request, fault=fault: fault  # type: ignore[misc]
        assert "longer than 3 MiB; ask for one site: --site" in failure(database.url, language)


def test_an_answer_in_several_packed_pieces_is_read_whole(database: FlakyDatabase) -> None:
    """What follows the first piece is read too; what is no piece is an error."""
    first, second = (zlib.compress(part, wbits=31) for part in (b"one host\n", b"another\n"))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    server = http.DatabaseServer(database.url)
    database.choose = lambda request: Octets(head + first + second)
    assert server.ask("/", {}) == b"one host\nanother\n"
    for rest, words in ((b"nothing", "cannot be decompressed"), (second[:-9], "ends too early")):
        database.choose = lambda request, rest=rest: Octets(head + first + rest)  # type: ignore[misc]
        with pytest.raises(ReadError, match=words):
            server.ask("/", {})


GZIP_HEAD = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"


PACKER = zlib.compressobj(wbits=31)


@pytest.mark.parametrize(
    "packed_nothing",
    [
        zlib.compress(b"", wbits=31) * 100,
        PACKER.compress(b"x") + PACKER.flush(zlib.Z_FULL_FLUSH) + b"\0\0\0\xff\xff" * 400,
    ],
    ids=["pieces", "blocks"],
)
def test_a_packed_answer_without_content_or_end_is_refused(database: FlakyDatabase, packed_nothing: bytes) -> None:
    """Nothing comes out of empty pieces, or of blocks of no bytes: that fills no memory, and the time limit ends it."""
    database.choose = lambda request: Octets(GZIP_HEAD + packed_nothing, 0.002)
    with (
        closing(http.DatabaseServer(database.url, timeout_s=0.1)) as server,
        pytest.raises(ReadError, match=r"no reply in 0\.1 s"),
    ):
        server.ask("/", {})


def test_answers_that_are_read_at_once_share_a_limit(database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several questions are under way at a time; the answers are limited as a whole, and for each round again."""
    monkeypatch.setattr(http, "MAX_BYTES", 6 << 20)
    both = threading.Barrier(2)
    database.choose = lambda request: Answer(200, " " * (4 << 20))
    with closing(http.DatabaseServer(database.url)) as server:
        assert len(server.ask("/", {})) == 4 << 20
        assert len(server.ask("/", {})) == 4 << 20  # the first one is no longer being read
        monkeypatch.setattr(server, "_parts", lambda answer: _after(both, answer))
        outcomes = [_outcome(wait) for wait in [http.start(lambda: server.ask("/", {})) for _ in range(2)]]
    assert any("longer than 6 MiB" in str(outcome) for outcome in outcomes)


def _after(barrier: threading.Barrier, answer: Any) -> Iterator[bytes]:
    """Yield a body in two parts, the second when all others have the first too."""
    text = answer.read()
    yield text[: 3 << 20]
    barrier.wait(30)
    yield text[3 << 20 :]


def _outcome(wait: Callable[[], bytes]) -> bytes | str:
    """Return what was read, or why nothing was."""
    try:
        return wait()
    except ReadError as error:
        return str(error)


def _long(begin: str, unit: str, mebibytes: int, end: str) -> str:
    """Return an answer of one text over and over."""
    return begin + unit * ((mebibytes << 20) // len(unit)) + end


ROWS = '{"results":[{"statement_id":0,"series":[{"columns":["time"],"values":['
HOSTILE_ANSWERS = {
    "numbers": _long(ROWS, "1.5,", 36, "1]}]}]}"),
    "texts": _long('{"status":"success","data":[', '"abc",', 36, '"x"]}'),
    "lists": _long(ROWS, "[],", 11, "[1]]}]}]}"),
    "objects": _long('{"status":"success","data":[', '{"a":1},', 21, "{}]}"),
    "rows": _long(ROWS, "[1795015000000000000],", 60, "[1]]}]}]}"),
    "wide": _long('{"status":"success","data":["', "x", 70, '\N{GRINNING FACE}"],"results":[]}'),
    "escaped": _long('{"status":"success","data":["', "x", 70, '\\ud83d\\ude00"],"results":[]}'),
}
MEMORY = 1 << 31
"""In which such an answer must be refused, in bytes of addresses: threads that begin take many that they never use."""


def _many_keys() -> str:
    """Return an answer with an object of many keys, each of them once."""
    keys = ",".join([f'"{number:x}":1' for number in range(5_000_000)])
    return ROWS.removesuffix('"values":[') + '"tags":{' + keys + '},"values":[[1]]}]}]}'


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("language", "kind"),
    [
        ("influxql", "numbers"),
        ("promql", "texts"),
        ("influxql", "lists"),
        ("promql", "objects"),
        ("influxql", "rows"),
        ("promql", "wide"),
        ("promql", "escaped"),
        ("influxql", "keys"),
    ],
)
def test_many_values_are_refused_before_they_fill_the_memory(database: FlakyDatabase, language: str, kind: str) -> None:
    """Five of them at once took 3 GiB: a number of four octets takes 32 bytes of memory, and a text 60."""
    hostile = HOSTILE_ANSWERS[kind] if kind != "keys" else _many_keys()
    database.choose = lambda request: Answer(200, hostile)
    words = [sys.executable, "-m", "ntpaudit", "fleet", "--url", database.url, "--language", language]
    limited = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY})); "
    done = subprocess.run(
        [sys.executable, "-c", f"{limited}os.execv(sys.argv[1], sys.argv[1:])", *words, "--format", "nagios"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    refusal = "the replies hold more values than fit into memory; ask for one site: --site"
    assert (
        refusal in done.stdout or "this is not a response of" in done.stdout
    )  # whichever of several is made out first
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.untraced
def test_the_answers_of_ten_thousand_hosts_are_not_refused(database: FlakyDatabase) -> None:
    """Nor are they when they are read over and over; every name and number is as long as those of real hosts."""
    columns = ["time", *CLOCK.fields, "host", "site", "env"]
    rows = [
        [NOW_NS - age_s * NS_PER_S + number, *[0.0012345678901234] * len(CLOCK.fields), host, host[:7], "production"]
        for number in range(10_000)
        for host in [f"site-{number // 200:02}.server-{number:05}.example.net"]
        for age_s in (20, 80, 140)
    ]
    answer = json.dumps({"results": [{"statement_id": 0, "series": [{"columns": columns, "values": rows}]}]})
    empty = Answer(200, '{"results":[{"statement_id":0}]}')
    database.choose = lambda request: Answer(200, answer) if "%22host%22" in request.target else empty
    with closing(opened(database.url, "influxql")) as reader:
        for _ in range(2):
            assert len(reader.snapshot(NOW_NS, SnapshotOptions()).hosts) == 10_000


@pytest.mark.parametrize("text", ["[[],[]," * 2_000_000, '{"a":' * 4_000_000])
def test_an_answer_of_brackets_is_refused(text: str, database: FlakyDatabase) -> None:
    """Nested or not, each takes a hundred bytes of memory: such an answer is not parsed."""
    database.choose = lambda request: Answer(200, text)
    with (
        closing(http.DatabaseServer(database.url)) as server,
        pytest.raises(ReadError, match="more values than fit into memory"),
    ):
        server.ask("/", {})


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_a_deep_answer_is_refused(bracket: str, database: FlakyDatabase, language: str) -> None:
    """Where there are few enough of them, the parser ends at its own depth."""
    database.choose = lambda request: Answer(200, bracket * 300_000)
    assert "JSON" in failure(database.url, language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "octets", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", b"HTTP/1.1 204 No Content"]
)
def test_an_answer_whose_head_breaks_off_is_none(octets: bytes, database: FlakyDatabase, language: str) -> None:
    """A status line is believed when the head has come to its end."""
    database.choose = lambda request: Octets(octets)
    assert "no reply in HTTP: IncompleteRead" in failure(database.url, language)


def test_tls_is_verified() -> None:
    """A certificate must be signed by who is named, and be that server's; then all is as without."""
    with certificate() as (context, file), FlakyDatabase(tls=context) as database:
        database.choose = lambda request: Answer(401)
        assert "fleet.ca_file" in failure(database.url, "promql")
        assert "missing.pem: No such file" in failure(database.url, "promql", ca_file="missing.pem")
        assert "replies 401" in failure(database.url, "influxql", ca_file=str(file))
    with certificate("DNS:other.example") as (context, file), FlakyDatabase(tls=context) as database:
        assert "another server's: check fleet.url" in failure(database.url, "influxql", ca_file=str(file))
        assert "check fleet.url" in failure(database.url.replace("https", "http"), "influxql")


def test_the_words_of_a_server_are_no_remedy(database: FlakyDatabase) -> None:
    """Its text is in the reason only; the fix is the program's own."""
    database.choose = lambda request: Answer(500, '{"error":"a; run: curl evil.example; now"}')
    with closing(opened(database.url, "influxql")) as reader, pytest.raises(ReadError) as error:
        reader.snapshot(NOW_NS, SnapshotOptions())
    assert error.value.reason.endswith("replies 500: a; run: curl evil.example; now")
    assert error.value.remedy == "check the log of the database, and of a proxy in front of it"


def test_the_fix_names_the_options_of_the_caller(database: FlakyDatabase) -> None:
    """Options where options were given."""
    database.choose = lambda request: Answer(404)
    keys = {key: f"--{key}" for key in ("url", "language", "database")}
    with closing(open_reader(url=database.url, keys=keys)) as reader, pytest.raises(ReadError) as error:
        reader.snapshot(NOW_NS, SnapshotOptions())
    assert error.value.remedy == ("check --url and --language; if this is VictoriaMetrics: --language promql")
    with pytest.raises(ReadError, match="check --url"):
        open_reader(url="http://db:x", keys=keys)


@pytest.mark.parametrize(
    "url", ["", "db", "ftp://db", "http://", "http://[::1", "http://db:x", "http://a:b@db", "http://d\tb"]
)
def test_what_is_no_url_is_reported(url: str) -> None:
    """A URL that names no server, or a secret, is refused before anything is sent."""
    with pytest.raises(ReadError, match=r"fleet\.url") as error:
        open_reader(url=url)
    assert "a:b" not in str(error.value)


@pytest.mark.parametrize("token", ["ä", "a\nX-Other: 1", "\x7f"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    """It is named by its key, never by itself."""
    with pytest.raises(ReadError, match=r"fleet\.token_file") as error:
        open_reader(url="http://db", token=token)
    assert token not in str(error.value)


@pytest.mark.parametrize(("language", "header"), [("influxql", f"Token {TOKEN}"), ("promql", f"Bearer {TOKEN}")])
def test_what_is_asked(language: str, header: str) -> None:
    """The token goes in its header alone; long questions are posted; connections are kept; from afar, gzip is taken."""
    body = (
        b'{"results":[{"statement_id":0}]}' if language == "influxql" else b'{"status":"success","data":{"result":[]}}'
    )
    with FlakyDatabase(choose=lambda request: Answer(200, body.decode())) as database:
        with closing(opened(database.url, language)) as reader:
            for hosts in (["web1"], [f"a-host-with-a-long-name-{number}" for number in range(200)]):
                assert reader.host_series(hosts, NOW_NS - NS_PER_S, NOW_NS, 1) == dict.fromkeys(hosts, ())
        asked = list(database.requests)
        database.choose = lambda request: packed(body)
        with closing(opened(database.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"), language)) as reader:
            assert reader.tallies(NOW_NS - NS_PER_S, NOW_NS, 1) == ()
        assert database.requests[-1].headers["accept-encoding"] == "gzip"
    assert database.connections <= (2 if language == "influxql" else 5)
    assert all(request.headers["authorization"] == header for request in asked)
    assert all(TOKEN not in request.target + request.lines for request in asked)
    assert all(request.headers["cache-control"] == "no-cache" for request in asked)  # or `Date` is of old
    assert {bool(request.lines) for request in asked} == {True, False}
    assert all(
        "accept-encoding" not in request.headers or request.headers["accept-encoding"] == "identity"
        for request in asked
    )


def test_several_may_wait_for_one_answer() -> None:
    """Each of them gets it, or why there is none; two that join one thread would trip over each other now and then."""

    def fail() -> None:
        raise ReadError("no answer", "ask again")

    going = http.start(partial(time.sleep, 0.05))
    answers = [http.start(going) for _ in range(20)]
    assert [answer() for answer in answers] == [None] * 20
    refused = http.start(fail)
    for answer in [refused, *(http.start(refused) for _ in range(20))]:
        with pytest.raises(ReadError, match="no answer"):
            answer()


def test_a_connection_that_was_given_up_is_opened_again(database: FlakyDatabase) -> None:
    """That a server ends a connection between two questions is no failure."""
    database.choose = lambda request: Answer(200, '{"results":[{"statement_id":0}]}')
    with closing(opened(database.url, "influxql")) as reader:
        assert reader.tallies(NOW_NS - NS_PER_S, NOW_NS, 1) == ()
        database.refuse()
        database.listen()
        assert reader.tallies(NOW_NS - NS_PER_S, NOW_NS, 1) == ()


cells: st.SearchStrategy[object] = st.sampled_from(
    [None, True, [], {}, "x", "", "NaN", "1e999", -1, 0, 1, 3, 1e308, 10**400, 1e306, "1e306", "2", 0.5, 9e18]
) | st.sampled_from(
    [NOW_NS, NOW_NS - NS_PER_S, NOW_NS // 10**6, NOW_NS / 1e9, 2**63, -(2**63), [[[[]]]], "\x1b[2J", "\ud800", "a\nb"]
)
labels: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("__name__", "host", "site", "env", "kind", "source", "severity"), cells)
)


def attempt(task: Callable[[], Got]) -> Got | None:
    """Return what is read, None where a ReadError says in a line what is wrong."""
    try:
        return task()
    except ReadError as error:
        message = str(error)
    assert message.isprintable()
    return None


def check(reader: Reader, now_ns: int = NOW_NS, site: str = "x") -> None:
    """Read all there is: the result is always a fleet that can be judged and shown."""
    begin_ns = now_ns - 100 * NS_PER_S
    histories = attempt(lambda: reader.host_series(["web1", "x"], begin_ns, now_ns, 3))
    tallies = attempt(lambda: reader.tallies(begin_ns, now_ns, 3))
    steps = attempt(lambda: reader.steps(begin_ns, now_ns)) or ()
    assert all(begin_ns < one.since_ns <= now_ns for one in steps)
    assert all(begin_ns <= one.begin_ns < now_ns for one in tallies or ())
    assert all(begin_ns <= one.begin_ns < now_ns for history in (histories or {}).values() for one in history)
    for reach in (SnapshotOptions(), SnapshotOptions(site)):
        snapshot = attempt(partial(reader.snapshot, now_ns, reach))
        if snapshot is None:
            continue
        judged = judge_fleet(snapshot, FleetPolicy())
        page = fleet_page.render(
            judged,
            histories or {},
            tallies or (),
            steps,
            period_s=100.0,
            spans=3,
            terms=FleetPolicy(),
            source="a",
            version="0",
        )
        for text in (
            fleet_text.render(judged, width=60), fleet_json.render(judged), fleet_csv.render(judged),
            fleet_nagios.render(judged), page,
        ):  # fmt: skip
            assert text.encode()
        for host in snapshot.hosts:
            assert host.name.isprintable()
            assert now_ns - SnapshotOptions().look_back_s * NS_PER_S < host.last_ns <= now_ns
            assert isinstance(host.severity, Severity)
            assert (host.offset is None) == (host.verdict == "unmeasured")
            assert host.offset is None or host.offset.earliest_s <= host.offset.estimate_s <= host.offset.latest_s
            assert all(type(count) is int and count >= 0 for count in (host.usable, host.falsetickers, host.findings))
        for alarm in snapshot.alarms:
            assert (alarm.host + alarm.kind).isprintable()
            assert alarm.since_ns <= now_ns


COLUMNS = ["time", "host", "site", "env", "severity", "verdict", "offset_s", "earliest_s", "latest_s", "age_s"]
COLUMNS += ["frequency_ppm", "usable", "falsetickers", "findings", "kind", "raised", "value_s", "source", "status"]
COLUMNS += ["mean_s", "value"]
rows = st.lists(cells, min_size=len(COLUMNS), max_size=len(COLUMNS))
likely = rows.map(lambda row: [NOW_NS, "web1", *row[2:14], "unsynced", 1, *row[16:20], "web1"])


@given(st.lists(rows | likely | st.lists(cells, max_size=3) | cells, max_size=5), labels | cells)
@example([[NOW_NS, *[None] * 13, [[]], *[None] * 6], [NOW_NS, "web1", *[None] * 12, "unsynced", 1, *[None] * 5]], {})
@settings(max_examples=60, deadline=None)
def test_any_cell_of_influxdb_is_taken_for_what_it_is(
    database: FlakyDatabase, values: list[object], tags: object
) -> None:
    """A value in a row that is no number, name or time is left out of the host."""
    series = {"name": "any", "columns": COLUMNS, "values": values, "tags": tags}
    answer = json.dumps({"results": [{"statement_id": 0, "series": [series]}]})
    database.choose = lambda request: Answer(200, answer)
    with closing(opened(database.url, "influxql")) as reader:
        check(reader)


moments = st.just(NOW_NS // 10**6 - 1) | cells
certain: st.SearchStrategy[list[Series]] = st.lists(
    st.tuples(
        st.fixed_dictionaries({"host": st.sampled_from(["web1", "x", "a\nb", "\ud800"])}, optional={"site": cells}),
        st.integers(NOW_NS // 10**6 - 200, NOW_NS // 10**6 + 100),
        st.sampled_from([0, 1, 3, "2", "NaN", 1e306, None]) | st.floats(),
    ),
    max_size=4,
)
anything: st.SearchStrategy[list[Series]] = st.lists(st.tuples(labels, moments, cells), max_size=4)


@given(
    certain | anything,
    certain | anything,
    st.just(["web1"]) | st.lists(cells, max_size=3) | cells,
    st.lists(labels | cells, max_size=3) | cells,
)
@settings(max_examples=60, deadline=None)
def test_any_cell_of_victoriametrics_is_taken_for_what_it_is(
    database: FlakyDatabase, lines: list[Series], results: list[Series], names: object, found: object
) -> None:
    """A value in a series that is no number, name or time is left out of the host."""
    vector: list[object] = []
    matrix: list[object] = []
    for own, stamp, value in results:
        stamp_s = stamp / 1000 if isinstance(stamp, int) and abs(stamp) < 2**63 else stamp
        named = {"kind": "unsynced", "source": "ntp1", **own}
        vector.append({"metric": named, "value": [stamp_s, stamp_s if type(value) is float else value]})
        matrix.append({"metric": own, "values": [[stamp_s, value]]})

    def answer(request: Request) -> Answer:
        if "/federate" in request.target:
            field = parse_qs(request.target.partition("?")[2])["match[]"][0].partition("{")[0]
            parts = (
                (
                    ",".join(f"{json.dumps(name)[1:-1]}={json.dumps(text)}" for name, text in own.items()),
                    json.dumps(value),
                    json.dumps(stamp),
                )
                for own, stamp, value in lines
            )
            return Answer(200, "".join(f"{field}{{{own}}} {value} {stamp}\n" for own, value, stamp in parts))
        data: object = {"result": matrix if "query_range" in request.target else vector}
        data = names if "/values" in request.target else found if "/series" in request.target else data
        return Answer(200, json.dumps({"status": "success", "data": data}))

    database.choose = answer
    with closing(opened(database.url, "promql")) as reader:
        check(reader)


def test_whatever_fails_in_a_thread_is_raised_where_it_is_waited_for() -> None:
    """An error of the program itself is raised unchanged."""

    def fail() -> None:
        raise ZeroDivisionError("of a thread")

    wait = http.start(fail)
    with pytest.raises(ZeroDivisionError, match="of a thread"):
        wait()


@given(
    st.binary(max_size=200)
    | st.tuples(
        st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 401 " + TOKEN.encode() + b"\r\n", b"HTTP/9 500\n"]),
        st.lists(
            st.sampled_from(
                [
                    b"Content-Length: 5\r\n",
                    b"Content-Length: x\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Content-Encoding: gzip\r\n",
                    b"Location: http://[::1 " + TOKEN.encode() + b"\r\n",
                    b"X-\xff: \xff\r\n",
                    b"no colon\r\n",
                ]
            ),
            max_size=3,
        ).map(b"".join),
        st.sampled_from(
            [b"\r\n", b"", b"\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\n" + TOKEN.encode(), b'\r\n{"error":"\\u001b"}']
        ),
    ).map(b"".join)
)
@settings(max_examples=50)
@pytest.mark.parametrize("language", LANGUAGES)
def test_any_octets_are_reported_in_a_line(database: FlakyDatabase, language: str, octets: bytes) -> None:
    """No octets of a server make anything but a ReadError, in a line that holds no secret."""
    database.choose = lambda request: Octets(octets)
    assert len(failure(database.url, language)) < 700


@pytest.mark.parametrize(
    ("date", "skew_s"),
    [("Wed, 18 Nov 2026 11:06:40 GMT", 0.5), ("Wed, 18 Nov 2026 11:16:40 GMT", 600.5)]
    + [(date, None) for date in (None, "", "soon", "Wed, 32 Nov 2026 11:06:40 GMT", "Wed, 18 Nov 99999 11:06:40 GMT")],
)
def test_a_date_shows_the_databases_clock(date: str | None, skew_s: float | None) -> None:
    """The date of an answer says how far the database's clock is ahead; one that is none says nothing."""
    assert http._skew_s(date, NOW_NS / NS_PER_S) == skew_s
