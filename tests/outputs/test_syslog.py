"""Messages are RFC 5424 to a strict reader, and their claim about the clock is the one that was measured."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.config.load import read_table
from ntpaudit.config.schema import SyslogConfig
from ntpaudit.core.events import Event
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.errors import ConfigError, OutputError
from ntpaudit.formats.log_entries import VERDICT_CHANGED
from ntpaudit.outputs.syslog import SD_ID, open_output
from ntpaudit.probes.resolve import Endpoint
from ntpaudit.render.text_safety import one_line
from tests.outputs.agent import NASTY, SAME, agent_records, event, events
from tests.records import CASES, NOW_NS, failed, record

NAME = r"[!#-<>-\\^-~]{1,32}"
PARAMETER = rf' {NAME}="(?:[^"\\\]]|\\["\\\]])*"'
ELEMENT = rf"\[{NAME}(?:{PARAMETER})*\]"
MESSAGE = re.compile(
    r"<(?P<priority>0|[1-9]\d{0,2})>1 (?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) (?P<host>[!-~]{1,255}) "
    rf"(?P<application>[!-~]{{1,48}}) (?P<process>[!-~]{{1,128}}) (?P<kind>[!-~]{{1,32}}) (?P<data>(?:{ELEMENT})+) "
    "\ufeff(?P<text>.*)",
    re.DOTALL | re.ASCII,
)


class Received(NamedTuple):
    """A message, read by the grammar of RFC 5424 §6."""

    facility: int
    severity: int
    stamp: str
    host: str
    application: str
    process: str
    kind: str
    data: dict[str, dict[str, str]]
    text: str


def parse(message: bytes) -> Received:
    """Read a message strictly; every character must belong to it, and every name occur once."""
    found = MESSAGE.fullmatch(message.decode())
    assert found, message
    data: dict[str, dict[str, str]] = {}
    for element in re.findall(ELEMENT, found["data"]):
        name, _, rest = element[1:-1].partition(" ")
        pairs = [parameter[1:-1].split('="', 1) for parameter in re.findall(PARAMETER, f" {rest}")]
        assert name not in data
        data[name] = {key: re.sub(r'\\(["\\\]])', r"\1", value) for key, value in pairs}
        assert len(data[name]) == len(pairs)
    facility, severity = divmod(int(found["priority"]), 8)
    header = found["stamp"], found["host"], found["application"], found["process"], found["kind"]
    return Received(facility, severity, *header, data, found["text"])


class Receiver:
    """A syslog server that keeps what comes until it is read."""

    def __init__(self, family: socket.AddressFamily, address: object) -> None:
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind(address)  # type: ignore[arg-type]
        self._socket.setblocking(False)

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """The UDP port."""
        port: int = self._socket.getsockname()[1]
        return port

    def raw(self) -> list[bytes]:
        """Return all messages that have come, as they came."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(1 << 16))
            except BlockingIOError:
                return found

    def messages(self) -> list[Received]:
        """Return all messages that have come."""
        return [parse(message) for message in self.raw()]


@contextmanager
def local() -> Iterator[tuple[str, Receiver]]:
    """Listen at a path."""
    with TemporaryDirectory() as folder, Receiver(socket.AF_UNIX, f"{folder}/log") as receiver:
        yield f"{folder}/log", receiver


def received(*records: Record, events: tuple[Event, ...] = ()) -> list[Received]:
    """Emit records, the events with the first of them, and return what a local server received."""
    with local() as (path, receiver):
        output = open_output(SyslogConfig(path))
        for number, each in enumerate(records):
            output.emit(each, () if number else events)
        output.close()
        return receiver.messages()


def test_an_event() -> None:
    """A step says when it was, by the corrected time, how wrong the clock can be, and all that a rule may match on."""
    step, verdict = received(SAME, events=(event("step-back", value_s=-0.25, detail={"note": 'a "b" [c] \\d'}),))
    assert step[:7] == (3, 4, "2026-11-18T11:06:40.001900Z", "web1", "ntpaudit", step.process, "step-back")
    assert step.data == {
        "timeQuality": {"tzKnown": "1", "isSynced": "1", "syncAccuracy": "255851"},
        SD_ID: {
            "finding": "step-back",
            "raised": "1",
            "level": "high",
            "severity": "warning",
            "verdict": "within",
            "offset_usec": "1917",
            "earliest_usec": "-2051",
            "latest_usec": "5851",
            "bound_usec": "5851",
            "true_time": "2026-11-18T11:06:40.001900123Z",
            "host_time": "2026-11-18T11:06:40.000000000Z",
            "value_usec": "-250000",
            "note": 'a "b" [c] \\d',
        },
    }
    assert step.text.startswith("high: step-back: the kernel says")
    assert (verdict.severity, verdict.kind) == (6, VERDICT_CHANGED)
    assert verdict.text == (
        "OK: clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong (4 of 4 servers agree)"
    )


def test_time_quality_is_the_measured_bound() -> None:
    """A clock that is 37 s off says so, whatever the kernel reports; one that was not measured claims nothing."""
    wrong, unmeasured = received(CASES["beyond, ahead"], CASES["unmeasured, no reply"])
    offset = CASES["beyond, ahead"].offset
    assert offset is not None
    assert int(wrong.data["timeQuality"]["syncAccuracy"]) == ceil(offset.bound_s * 1e6)
    assert unmeasured.data["timeQuality"] == {"tzKnown": "1", "isSynced": "0"}
    assert unmeasured.stamp == "2026-11-18T11:06:41.000000Z"


def test_a_host_that_believes_in_1970_is_stamped_with_the_true_time() -> None:
    """The time stamp is the corrected one, and what the host believed stands beside it."""
    (message,) = received(CASES["1970"])
    assert message.stamp.startswith("2026-11-18T11:06:4")
    assert message.data[SD_ID]["host_time"].startswith("1970-01-01T00:00:4")


@given(agent_records(), st.lists(events(), max_size=3))
def test_any_message_can_be_read(each: Record, some: list[Event]) -> None:
    """Whatever a name or a text holds, a strict reader finds the same, in a message that every receiver takes."""
    with local() as (path, receiver):
        output = open_output(SyslogConfig(path))
        output.emit(each, some)
        output.close()
        raw = receiver.raw()
    assert all(len(message) <= 2048 for message in raw)
    *found, verdict = map(parse, raw)
    assert verdict.data[SD_ID]["severity"] == each.severity.word
    for message, one in zip(found, some, strict=True):
        assert message.kind == one.kind
        assert message.severity == ({3: 2, 2: 4, 1: 4, 0: 6}[one.severity] if one.raised else 5)
        assert message.text.startswith(one_line(f"{one.title}: {one.text}"))
        assert message.data[SD_ID]["finding"] == one.kind
        if each.offset is not None:
            assert int(message.data["timeQuality"]["syncAccuracy"]) >= each.offset.bound_s * 1e6 * (1 - 1e-15)


@pytest.mark.parametrize("text", NASTY)
def test_a_value_comes_back(text: str) -> None:
    """Quotes, backslashes and brackets come back as they were; what cannot be printed as a blank."""
    message, _ = received(SAME, events=(event(detail={"note": text}),))
    assert message.data[SD_ID]["note"] == one_line(text)


def test_a_long_message_is_cut_at_its_end() -> None:
    """However much an event has to say, the message fits, and what a rule matches on is whole."""
    long = event(text="word " * 10_000, detail={f"key{number}": "]" * 1_000 for number in range(20)})
    with local() as (path, receiver):
        output = open_output(SyslogConfig(path))
        output.emit(SAME, [long])
        output.close()
        raw, _ = receiver.raw()
    assert 2_000 < len(raw) <= 2_048
    message = parse(raw)
    assert message.text.endswith("...")
    assert message.data[SD_ID]["bound_usec"] == "5851"
    assert message.data[SD_ID]["key0"].endswith("]...")


@pytest.mark.parametrize(("name", "shown"), [("", "-"), ("wéb 1\n", "w_b_1_"), ("x" * 300, "x" * 255)])
def test_a_host_name_is_made_fit(name: str, shown: str) -> None:
    """A name that the header cannot hold is shown with what it can."""
    (message,) = received(record(failed("ntp1", "unreachable", "timeout"), name=name))
    assert message.host == shown


@pytest.mark.parametrize(
    ("family", "bound", "address"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"),
        pytest.param(socket.AF_INET, "127.0.0.1", "localhost:{}", marks=pytest.mark.needs("localhost")),
        pytest.param(socket.AF_INET6, "::1", "[::1]:{}", marks=pytest.mark.needs("ipv6")),
    ],
)
def test_udp(family: socket.AddressFamily, bound: str, address: str) -> None:
    """A server is found by its address or its name, and gets one datagram for each message."""
    with Receiver(family, (bound, 0)) as receiver:
        output = open_output(SyslogConfig(address.format(receiver.port)))
        output.emit(SAME, [event("step-back", utc_ns=None, host_ns=NOW_NS - 10**9)])
        output.close()
        step, verdict = receiver.messages()
    assert step.stamp == "2026-11-18T11:06:39.000000Z"
    assert verdict.kind == VERDICT_CHANGED


def test_a_stream_is_taken_where_there_is_no_datagram_socket(tmp_path: Path) -> None:
    """Where /dev/log is a stream, messages end with a NUL, and a restarted server is found again."""
    path = str(tmp_path / "log")
    output = open_output(SyslogConfig(path))
    for kind in ("step-back", "step-forward"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(path)
            listening.listen()
            output.emit(SAME, [event(kind)])
            connection, _ = listening.accept()
            with connection:
                first, *_, rest = connection.recv(1 << 16).split(b"\0")
        assert parse(first).kind == kind
        assert rest == b""
        Path(path).unlink()
    output.close()


def test_a_stream_that_does_not_read_blocks_nothing(tmp_path: Path) -> None:
    """A full stream is an error and is not waited for; once it reads, it gets the rest and one incomplete message."""
    path = str(tmp_path / "log")
    output = open_output(SyslogConfig(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()
        listening.settimeout(0.05)
        with pytest.raises(OutputError, match="takes no message: "):
            output.emit(SAME, [event(text="x" * 3_000, detail={"number": number}) for number in range(250)])
        pieces: list[bytes] = []
        while len(pieces) < 251:
            pieces += [
                message for message in _read_stream(listening) if message.endswith(b"...\0") or b"OK: clock" in message
            ]
            with suppress(OutputError):
                output.emit(SAME, [])
    output.close()
    numbers = [parse(message[:-1]).data[SD_ID].get("number") for message in pieces]
    assert numbers == [*map(str, range(250)), None]


def _read_stream(listening: socket.socket) -> Iterator[bytes]:
    """Return what the next connection brings until it is closed or pauses, each message with its end."""
    with suppress(TimeoutError):
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(0.05)
            text = b""
            with suppress(TimeoutError):
                while piece := connection.recv(1 << 16):
                    text += piece
            yield from re.findall(rb"[^\0]+\0?", text)


def test_a_restarted_server_gets_the_next_message(tmp_path: Path) -> None:
    """A new socket at the old path is found without losing a message; a missing one is an error."""
    path = str(tmp_path / "log")
    output = open_output(SyslogConfig(path))
    with pytest.raises(
        OutputError, match=r"log takes no message: No such file or directory; .* correct syslog.address"
    ):
        output.emit(SAME, [])
    for severity in (Severity.OK, Severity.WARNING):
        with Receiver(socket.AF_UNIX, path) as receiver:
            output.emit(SAME, [event(severity=severity)])
            assert receiver.messages()[-1].data[SD_ID]["severity"] == severity.word
        Path(path).unlink()
    output.close()


def test_a_name_that_does_not_resolve_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without an address is an error."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    output = open_output(SyslogConfig("logs.example"))
    with pytest.raises(OutputError, match=r"^logs.example takes no message: "):
        output.emit(SAME, [])
    output.close()


@pytest.mark.parametrize(
    "address", ["", ":514", "[::1", "[::1]514", "host:", "host:0", "host:65536", "host:syslog", "[]"]
)
def test_an_address_that_can_be_none_is_refused(address: str) -> None:
    """An invalid address is refused when the configuration is read; the error shows how to write one."""
    fix = "write HOST, HOST:PORT|the port is a number from 1 to 65535|neither a name nor an address"
    with pytest.raises(ConfigError, match=rf"^syslog\.address: .*({fix})"):
        read_table("syslog", {"address": address})


@pytest.mark.parametrize("address", ["logs", "logs.example.net:6514", "192.0.2.1", "2001:db8::1", "[2001:db8::1]"])
def test_an_address_is_taken_as_it_is_usually_written(address: str) -> None:
    """Names and addresses of either family are taken, with a port or without; nothing is sent or resolved by that."""
    open_output(SyslogConfig(address)).close()


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver on the second address of a name gets every message, also after it was away; silence is reported."""
    happened = [event("step-back"), event("step-forward")]
    with Receiver(socket.AF_INET, ("127.0.0.1", 0)) as receiver:
        port = receiver.port
        both = (Endpoint(socket.AF_INET6, "::1", port), Endpoint(socket.AF_INET, "127.0.0.1", port))
        monkeypatch.setattr("ntpaudit.outputs.syslog._resolve", lambda host, port: both)
        output = open_output(SyslogConfig(f"logs.example.net:{port}"))
        output.emit(SAME, happened)
        assert [message.kind for message in receiver.messages()] == ["step-back", "step-forward", VERDICT_CHANGED]
    with pytest.raises(OutputError, match="Connection refused"):
        output.emit(SAME, happened)
    with Receiver(socket.AF_INET, ("127.0.0.1", port)) as receiver:
        output.emit(SAME, happened)
        assert {message.kind for message in receiver.messages()} >= {"step-back", "step-forward"}
    output.close()
