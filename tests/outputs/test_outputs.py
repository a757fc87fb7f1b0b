"""What is true of every format and output: it takes any record, and never reports a wrong clock as good."""

import re
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import pytest
from hypothesis import given

from ntpaudit.config import load as load_module
from ntpaudit.config.load import read_table
from ntpaudit.config.schema import OUTPUTS, Key, OutputsConfig, keys_of
from ntpaudit.config.values import of_text, parse_path, parse_url
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.errors import ConfigError, OutputError
from ntpaudit.formats import FORMATS, load
from ntpaudit.outputs import OutputConfig, open_output
from tests.outputs.agent import SAME, event
from tests.records import CASES, records


@given(records())
def test_any_record_can_be_rendered(record: Record) -> None:
    """No format fails on any record. Its text ends with a newline, is UTF-8, and has neither NaN nor infinity."""
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
def test_a_format_decides_nothing(name: str) -> None:
    """A record is rendered the same way twice."""
    for record in CASES.values():
        assert load(name)(record) == load(name)(Record.from_dict(record.to_dict()))


def test_there_is_no_other_format() -> None:
    """A format that does not exist is refused."""
    with pytest.raises(KeyError):
        load("xml")


@pytest.mark.parametrize("name", FORMATS)
def test_only_the_format_that_is_used_is_imported(name: str) -> None:
    """Loading one format imports no other, and neither `json` nor ntplib unless it needs them."""
    program = (
        "import sys; from ntpaudit.formats import FORMATS, load; before = set(sys.modules) - {'json'}; "
        "sys.modules.pop('json', None); "
        f"load({name!r}); print(*sorted((set(sys.modules) - before) & "
        "({'json', 'ntplib'} | {'ntpaudit.formats.' + module for module in FORMATS.values()})))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    wanted = {f"ntpaudit.formats.{FORMATS[name]}"} | ({"json"} if name == "json" else set())
    assert set(run.stdout.split()) == wanted


@pytest.mark.parametrize("name", OutputsConfig._fields)
def test_every_output_takes_the_settings_of_its_table(name: str) -> None:
    """Each output of the configuration has a module of its name, which takes the NamedTuple of its table alone."""
    open_output = import_module(f"ntpaudit.outputs.{name}").open_output
    (settings,) = [taken for parameter, taken in get_type_hints(open_output).items() if parameter != "return"]
    assert get_type_hints(OutputsConfig)[name] == settings | None


class WebhookConfig(NamedTuple):
    """Settings of an output that needs more than a path."""

    url: Annotated[str, Key("deliver to this URL", of_text(parse_url), example="https://x.example")]
    token_file: Annotated[str | None, Key("file with the token", of_text(parse_path), example="/etc/token")] = None


def test_settings_of_several_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with a token fits into a table; a key without default must be there."""
    monkeypatch.setattr(load_module, "OUTPUTS", {"webhook": WebhookConfig})
    monkeypatch.setattr(load_module, "TABLES", {"webhook": WebhookConfig})
    monkeypatch.setattr(load_module, "KEYS", {"webhook": keys_of(WebhookConfig)})
    table = {"url": "https://x.example", "token_file": "/etc/token"}
    assert read_table("webhook", table) == WebhookConfig("https://x.example", "/etc/token")
    assert read_table("webhook", {"url": "https://x.example"}).token_file is None
    assert read_table("webhook", {}) is None
    with pytest.raises(ConfigError, match=r'^webhook.url: missing; \[webhook\] needs it, such as url = "https://x'):
        read_table("webhook", {"token_file": "/etc/token"})


NOWHERE = "http://127.0.0.1:9"


def settings_in(folder: Path) -> dict[str, OutputConfig]:
    """Return settings of every output from the examples of its keys: paths are its name in a folder, no URL replies."""

    def place(name: str, value: Any) -> Any:
        is_url = isinstance(value, str) and "://" in value
        return NOWHERE if is_url else str(folder / name) if str(value).startswith("/") else value

    return {
        name: settings(
            **{field: place(name, value) for field, value in settings._field_defaults.items()}
            | {key.field: place(name, key.example) for key in keys_of(settings).values()}
        )
        for name, settings in OUTPUTS.items()
    }


def test_outputs(tmp_path: Path) -> None:
    """Each output with settings is opened and gets all records; one without settings is not opened.

    An output without a URL has a file if its settings have a `path`, else a socket.
    """
    settings = {name: one for name, one in settings_in(tmp_path).items() if NOWHERE not in one}
    sockets = {name: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for name in settings}
    for name, listening in sockets.items():
        if "path" not in OUTPUTS[name]._fields:
            listening.bind(str(tmp_path / name))
    outputs = {name: open_output(name, one) for name, one in settings.items()}
    for name, output in outputs.items():
        output.emit(SAME, [event()])
        output.close()
        if "path" in OUTPUTS[name]._fields:
            assert (tmp_path / name).stat().st_size
        else:
            assert b"unsynced" in sockets[name].recv(1 << 16)
        sockets[name].close()
    assert tuple(outputs) == tuple(settings)
    assert {"openmetrics", "jsonl", "syslog", "journal"} <= outputs.keys()
    assert (tmp_path / "jsonl").read_text() == load("json")(SAME)
    assert (tmp_path / "openmetrics").read_text() == load("openmetrics")(SAME)
    assert set(OutputsConfig()) == {None}


def test_opening_needs_nothing_to_be_there(tmp_path: Path) -> None:
    """An output whose destination is missing is opened all the same, and names it with each record."""
    settings = settings_in(tmp_path / "nowhere")
    outputs = {name: open_output(name, one) for name, one in settings.items()}
    assert tuple(outputs) == OutputsConfig._fields
    for name, output in outputs.items():
        for _ in range(2):
            with pytest.raises(OutputError) as raised:
                output.emit(SAME, [])
            assert any(str(value) in str(raised.value) for value in settings[name])
        output.close()


def test_there_is_no_other_output() -> None:
    """An output that does not exist is refused."""
    with pytest.raises(ModuleNotFoundError):
        open_output("carrier-pigeon", ("/coop",))
