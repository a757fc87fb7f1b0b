"""What is true of every sink: it tells any record, and never tells that all is well when it is not."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from ntpaudit.config.schema import OutputsConfig
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.errors import OutputError
from ntpaudit.formats import FORMATS, load
from ntpaudit.outputs import OUTPUTS, open_outputs
from tests.outputs.agent import SAME, event
from tests.records import CASES, records


@given(records())
def test_any_record_can_be_told(record: Record) -> None:
    """No sink fails on any record; what it writes ends its last line, is UTF-8, and holds neither NaN nor infinity."""
    for name in FORMATS:
        text = load(name)(record)
        assert text.encode().endswith(b"\n")
        unquoted = re.sub(r'"(?:\\.|[^"\\])*"|,(?:source|host|site)=(?:\\.|[^ ,\\])*', "", text)
        if name in ("json", "influx", "openmetrics"):
            assert not re.search(r"\b(nan|inf|infinity)\b", unquoted, re.IGNORECASE)


@given(records())
def test_nothing_is_ok_that_is_not(record: Record) -> None:
    """The first words for people are the record's severity, and `OK` stands nowhere else in them."""
    first = load("text")(record).split(" ")[0]
    second = load("nagios")(record).split(" ")[1]
    assert first == second == record.severity.name
    if record.severity is not Severity.OK:
        sentence = load("nagios")(record).split(" | ")[0]
        assert not re.search(r"\bok\b", sentence, re.IGNORECASE)


@pytest.mark.parametrize("name", FORMATS)
def test_a_sink_decides_nothing(name: str) -> None:
    """A record told twice is told alike."""
    for record in CASES.values():
        assert load(name)(record) == load(name)(Record.from_dict(record.to_dict()))


def test_there_is_no_other_format() -> None:
    """A format that does not exist is refused."""
    with pytest.raises(KeyError):
        load("xml")


@pytest.mark.parametrize("name", FORMATS)
def test_only_the_sink_that_is_used_is_imported(name: str) -> None:
    """Loading one sink imports no other, and neither `json` nor ntplib unless it needs them."""
    program = (
        "import sys; from ntpaudit.formats import FORMATS, load; before = set(sys.modules) - {'json'}; "
        "sys.modules.pop('json', None); "
        f"load({name!r}); print(*sorted((set(sys.modules) - before) & "
        "({'json', 'ntplib'} | {'ntpaudit.formats.' + module for module in FORMATS.values()})))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    wanted = {f"ntpaudit.formats.{FORMATS[name]}"} | ({"json"} if name == "json" else set())
    assert set(run.stdout.split()) == wanted


def test_every_outlet_can_be_configured() -> None:
    """The configuration knows every outlet of the agent by the name under which it is registered."""
    assert set(OUTPUTS) == set(OutputsConfig._fields)


def test_outlets(tmp_path: Path) -> None:
    """Each outlet with a setting is opened, and is told all that comes; one without is not."""
    settings = {name: str(tmp_path / name) for name in OUTPUTS}
    sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    for name, listening in zip(("journal", "syslog"), sockets, strict=True):
        listening.bind(settings[name])
    outputs = open_outputs(settings)
    for output in outputs.values():
        output.emit(SAME, [event()])
        output.close()
    assert list(outputs) == list(OUTPUTS)
    assert all(b"unsynced" in listening.recv(1 << 16) for listening in sockets)
    assert (tmp_path / "jsonl").read_text() == load("json")(SAME)
    assert (tmp_path / "openmetrics").read_text() == load("openmetrics")(SAME)
    for listening in sockets:
        listening.close()
    assert open_outputs(dict.fromkeys(OUTPUTS)) == {}


def test_opening_needs_nothing_to_be_there(tmp_path: Path) -> None:
    """An outlet whose place is missing is opened all the same, and says so each time that it is told something."""
    for output in open_outputs({name: str(tmp_path / "nowhere" / name) for name in OUTPUTS}).values():
        for _ in range(2):
            with pytest.raises(OutputError, match="nowhere"):
                output.emit(SAME, [])
        output.close()


def test_there_is_no_other_outlet() -> None:
    """An outlet that does not exist is refused."""
    with pytest.raises(KeyError):
        open_outputs({"carrier-pigeon": "/coop"})
