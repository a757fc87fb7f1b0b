"""What is true of every sink: it tells any record, and never tells that all is well when it is not."""

import re
import subprocess
import sys

import pytest
from hypothesis import given

from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.sinks import FORMATS, load
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
        "import sys; from ntpaudit.sinks import FORMATS, load; before = set(sys.modules) - {'json'}; "
        "sys.modules.pop('json', None); "
        f"load({name!r}); print(*sorted((set(sys.modules) - before) & "
        "({'json', 'ntplib'} | {'ntpaudit.sinks.' + module for module in FORMATS.values()})))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    wanted = {f"ntpaudit.sinks.{FORMATS[name]}"} | ({"json"} if name == "json" else set())
    assert set(run.stdout.split()) == wanted
