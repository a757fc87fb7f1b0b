"""The transport to the InfluxDB family: what it understands of any answer, and what it costs."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.delivery import Delivered, Refused, Unreachable
from ntpaudit.net.answers import MAX_REASON, reason_of, tls_fix
from ntpaudit.net.influxdb import InfluxTransport, retry_after_s
from tests.world.flaky import Answer, FlakyDatabase, Octets
from tests.world.packages import REPOSITORY

TOKEN = "s3kret-t0ken-of-the-tests"
LINES = "ntpaudit_clock,host=web1 offset_s=0.5 1795000000000000000\n"


@pytest.fixture(scope="module")
def database() -> Iterator[FlakyDatabase]:
    """A server whose answers a test chooses."""
    with FlakyDatabase() as flaky:
        yield flaky


@pytest.fixture(scope="module")
def transport(database: FlakyDatabase) -> Iterator[InfluxTransport]:
    """A transport to it."""
    transport = InfluxTransport(InfluxConfig(database.url, timeout_s=1.0), TOKEN)
    yield transport
    transport.close()


@pytest.fixture
def fresh(database: FlakyDatabase) -> Iterator[InfluxTransport]:
    """A transport that has sent nothing yet, to a server that has been asked nothing."""
    database.requests.clear()
    transport = InfluxTransport(InfluxConfig(database.url, timeout_s=1.0), TOKEN)
    yield transport
    transport.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"error":"partial write: points beyond retention policy dropped=3"}', "partial write: points beyond"),
        ('{"code":"invalid","message":"unable to parse \'x\': missing fields"}', "unable to parse 'x'"),
        (
            '{"error":"partial write of line protocol occurred","data":[{"original_line":"x","line_number":1,'
            '"error_message":"invalid field value"}]}',
            "partial write of line protocol occurred: invalid field value",
        ),
        ('{"code":"invalid"}', '{"code":"invalid"}'),
        ('{"message":7}', '{"message":7}'),
        ('{"error":"so","data":[7]}', "so"),
        ("[1]", "[1]"),
        ("<html>", "a web page"),
        (
            "\n<!DOCTYPE HTML>\n<html lang=en><head>\n<TITLE>Not&nbsp;Found\n  &lt;1&gt; </TITLE>",
            "a web page, 'Not Found <1>'",
        ),
        ("<html><title>" + "x" * 9000, "a web page, 'xxx"),
        ("<title>x</title>", "<title>x"),
        ("", ""),
    ],
)
def test_the_reason_is_found(body: str, reason: str) -> None:
    """InfluxDB 1.x, 2.x and 3.x each say in their own way why lines were refused; others say what they like."""
    assert reason_of(body).startswith(reason)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "9" * 400}, 999_999_999.0),
        ({"Retry-After": "Wed, 18 Nov 2026 11:06:40 GMT", "Date": "Wed, 18 Nov 2026 11:05:40 GMT"}, 60.0),
        ({"Retry-After": "Wed, 18 Nov 2026 11:06:40 GMT", "Date": "Thu, 19 Nov 2026 11:05:40 GMT"}, 0.0),
        ({"Retry-After": "Wed, 18 Nov 2026 11:06:40 GMT"}, None),
        ({"Retry-After": "Wed, 18 Nov 2026 11:06:40 GMT", "Date": "Wed, 18 Nov 2026 11:06:40 -0000"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "²"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds and dates are understood, dates by the server's own clock, since ours is in doubt."""
    assert retry_after_s(headers) == seconds


def test_only_204_is_delivered(database: FlakyDatabase, transport: InfluxTransport) -> None:
    """What the database says it stored is delivered; a good status of a captive portal is not, even without a page."""
    for answer, outcome in (
        (Answer(204), Delivered()),
        (Answer(200), Refused(200, "")),
        (Answer(201), Refused(201, "")),
        (Answer(200, "Welcome"), Refused(200, "Welcome")),
        (Answer(202, "{}"), Refused(202, "{}")),
    ):
        database.choose = lambda request, answer=answer: answer  # type: ignore[misc]
        assert transport.write(LINES) == outcome


def test_what_is_sent(database: FlakyDatabase, fresh: InfluxTransport) -> None:
    """Lines go in nanoseconds, with the token in its header and nowhere else; to InfluxDB they go compressed."""
    database.choose = lambda request: Answer(204, "", (("X-Influxdb-Build", "OSS"),))
    fresh.write(LINES)
    fresh.write(LINES)
    first, request = database.requests[-2:]
    assert first.lines == request.lines == LINES
    assert request.target == "/api/v2/write?org=&bucket=ntpaudit&precision=ns"
    assert "content-encoding" not in first.headers
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["authorization"] == f"Token {TOKEN}"


VICTORIA = (("X-Influxdb-Version", "1.8.0"), ("X-Influxdb-Build", "OSS"), ("X-Server-Hostname", "vm1"))


@pytest.mark.parametrize("headers", [VICTORIA, VICTORIA[:1], ()])
def test_another_server_gets_nothing_compressed(
    headers: tuple[tuple[str, str], ...], database: FlakyDatabase, fresh: InfluxTransport
) -> None:
    """One that answers 204 to anything, whatever it calls itself, gets nothing that could be misread."""
    database.choose = lambda request: Answer(204, "", headers)
    for _ in range(3):
        assert fresh.write(LINES) == Delivered()
    assert all("content-encoding" not in request.headers for request in database.requests)


@pytest.mark.parametrize("status", [400, 415, 422])
def test_compressed_lines_that_are_refused_go_uncompressed(
    status: int, database: FlakyDatabase, fresh: InfluxTransport
) -> None:
    """Whatever words it is refused with, the server shows by what it accepts next what it did not understand."""
    good = Answer(204, "", (("X-Influxdb-Build", "OSS"),))
    database.choose = lambda request: Answer(status, "?") if "content-encoding" in request.headers else good
    for _ in range(4):
        assert fresh.write(LINES) == Delivered()
    packed = [request.headers.get("content-encoding") for request in database.requests]
    assert packed == [None, "gzip", None, None, None]


def test_lines_that_are_refused_either_way_do_not_end_compression(
    database: FlakyDatabase, fresh: InfluxTransport
) -> None:
    """Where the lines themselves are wrong, later ones are compressed as before."""
    good = Answer(204, "", (("X-Influxdb-Build", "OSS"),))
    database.choose = lambda request: Answer(400, "no") if "bad" in request.lines else good
    assert fresh.write(LINES) == Delivered()
    assert fresh.write("bad") == Refused(400, "no")
    assert fresh.write(LINES) == Delivered()
    assert fresh.write("bad") == Refused(400, "no")
    packed = [request.headers.get("content-encoding") for request in database.requests]
    assert packed == [None, "gzip", None, "gzip", "gzip"]


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 204",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 204 No Content\r\nDate: Sun, 29 Nov",
        b"HTTP/1.1 204 No Content\r\nDate: Sun, 29 Nov 2026 22:00:00 GMT\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_none(octets: bytes, database: FlakyDatabase, transport: InfluxTransport) -> None:
    """What stands in a status line is believed when the answer's head has come to its end, and not before."""
    database.choose = lambda request: Octets(octets)
    answer = transport.write(LINES)
    assert isinstance(answer, Unreachable)
    assert answer.sent
    database.choose = lambda request: Octets(octets + b"\r\n\r\n")
    assert transport.write(LINES) == Delivered()


@given(
    st.one_of(
        st.binary(max_size=400),
        st.tuples(
            st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/9 "]),
            st.sampled_from([b"100", b"103", b"204", b"301", b"400", b"500", b"999", b"1000", b"-1", b"x"]),
            st.sampled_from([b" Said\r\n", b"\r\n", b"\n", b" " + TOKEN.encode() + b"\r\n"]),
            st.lists(
                st.sampled_from(
                    [
                        b"Content-Length: 5\r\n",
                        b"Content-Length: 1e9\r\n",
                        b"Content-Length: 5\r\nContent-Length: 6\r\n",
                        b"Transfer-Encoding: chunked\r\n",
                        b"Content-Encoding: gzip\r\n",
                        b"Content-Encoding: deflate, br, zstd\r\n",
                        b"Retry-After: \xff\r\n",
                        b"Location: //\x1b[2J\r\n",
                        b"Location: http://[::1\r\n",
                        b": no name\r\n",
                        b"no colon\r\n",
                        b"X-Echo: Token " + TOKEN.encode() + b"\r\n",
                    ]
                ),
                max_size=4,
            ).map(b"".join),
            st.sampled_from([b"\r\n", b"", b"\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\n" + TOKEN.encode()]),
            st.binary(max_size=50),
        ).map(b"".join),
    )
)
@settings(max_examples=300)
def test_any_octets_are_an_answer(database: FlakyDatabase, transport: InfluxTransport, octets: bytes) -> None:
    """Whatever a server sends is understood or called what it is, in a line that holds no secret; nothing is raised."""
    database.choose = lambda request: Octets(octets)
    answer = transport.write(LINES)
    if not isinstance(answer, Delivered):
        assert isinstance(answer, Refused | Unreachable)
        assert answer.reason.isprintable()
        assert len(answer.reason) <= MAX_REASON + 100
        assert TOKEN not in answer.reason
    else:
        assert octets.startswith((b"HTTP/1.1 204", b"HTTP/1.0 204", b"HTTP/9 204"))
        assert b"\n\n" in octets or b"\n\r\n" in octets


def test_the_client_is_imported_as_it_is(database: FlakyDatabase) -> None:
    """No module of influxdb-client is replaced or left out, no import hook stays, and nothing warns."""
    database.choose = lambda request: Answer(204)
    program = (
        "import sys; hooks = list(sys.meta_path)\n"
        "from ntpaudit.config.schema import InfluxConfig; from ntpaudit.net.influxdb import InfluxTransport\n"
        f'print(InfluxTransport(InfluxConfig({database.url!r}, bucket="b"), {TOKEN!r}).write({LINES!r}))\n'
        "modules = [module for name, module in sys.modules.items() if name.partition('.')[0] == 'influxdb_client']\n"
        "print(sum(bool(getattr(module, '__file__', None)) for module in modules) - len(modules))\n"
        "print('influxdb_client.domain.dashboard' in sys.modules, hooks == sys.meta_path)"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split("\n") == ["Delivered()", "0", "True True", ""]


def test_a_refusal_does_not_make_messages_come_twice(database: FlakyDatabase) -> None:
    """The client calls `logging.debug` for an answer without a message, which gives a bare root logger a handler."""
    database.choose = lambda request: Answer(401, '{"error": "unauthorized access"}')
    program = (
        "from ntpaudit.cli.output import log_to_stderr; from ntpaudit.log import LazyLogger\n"
        "from ntpaudit.config.schema import InfluxConfig; from ntpaudit.net.influxdb import InfluxTransport\n"
        f'transport = InfluxTransport(InfluxConfig({database.url!r}, bucket="b"), {TOKEN!r})\n'
        f"log_to_stderr(); print(transport.write({LINES!r}).reason)\n"
        "LazyLogger('ntpaudit.x').warning('delivery failed')"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout == "unauthorized access\n"
    assert ran.stderr == "ntpaudit: delivery failed\n"


@pytest.mark.parametrize("reason", ["certificate has expired", "certificate is not yet valid"])
def test_a_certificate_of_another_time_points_at_the_clock(reason: str) -> None:
    """Dates of certificates are judged by the clock that is in doubt here: so it is what the operator is sent to."""
    assert "by this host's clock" in tls_fix(f"certificate verify failed: {reason} (_ssl.c:992)")
