"""`ntpaudit explain` as a user runs it: with the agent's record, with a file, and with neither."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from docs.__main__ import FOLDER
from ntpaudit.cli.explain import read_record
from ntpaudit.reports.explanation import IDS, Here, render, render_json
from ntpaudit.store.rows import ROW_ERRORS
from tests.command import Ran, ntpaudit
from tests.message_examples import HOSTS
from tests.records import CASES
from tests.reports.test_explanation import recorded
from tests.test_status import keep, recent, said
from tests.world.packages import REPOSITORY

WRONG = recorded(HOSTS[0])
JSON = json.dumps(WRONG.to_dict())


def explain(*words: str, state: Path, **environment: str) -> Ran:
    """Run `ntpaudit explain`."""
    return ntpaudit("explain", *words, state=state, environment=environment)


def test_it_works_without_a_configuration_and_without_a_state(tmp_path: Path) -> None:
    """The rule is explained, and the last line states why there are no numbers."""
    for finding_id in IDS:
        ran = explain(finding_id, state=tmp_path)
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.startswith(f"{finding_id}: a finding of a ")
    assert "record none: no agent has stored a record in" in said(explain("offset-out", state=tmp_path))
    assert explain(state=tmp_path).out.startswith("record    none: no agent")
    assert not list(tmp_path.rglob("*.sqlite3*"))


def test_the_numbers_are_those_of_the_agents_last_record(tmp_path: Path) -> None:
    """No server is queried. The age of the record is shown, and that a stale one describes the past."""
    keep(tmp_path, recent(20.0))
    text = explain("offset-out", state=tmp_path).out
    assert re.search(r"^now       minimum error \(.*\) > critical tolerance \(1 s\)$", text, re.MULTILINE)
    assert re.search(r"^record    the agent's last record on \S+, [2-9]\d s ago$", text, re.MULTILINE)
    data = json.loads(explain("offset-out", "--format", "json", state=tmp_path).out)
    assert data["findings"][0]["raised"] is False
    assert 20 <= data["record"]["age_s"] < 100
    assert data["record"]["stale"] is False


def test_a_stale_record_is_named_as_such(tmp_path: Path) -> None:
    """Its numbers are those of its time."""
    keep(tmp_path, recent(2000.0))
    assert "so the present state is unknown" in said(explain("offset-out", state=tmp_path))


def test_a_record_from_a_file(tmp_path: Path) -> None:
    """As `check` writes it, the last line of several as `history` writes them, and inside that of `status`."""
    file = tmp_path / "record.json"
    ok = json.dumps(CASES["ok, behind"].to_dict())
    for content in (JSON, f"{ok}\n{JSON}\n", json.dumps({"record": WRONG.to_dict(), "age_s": 3}), f"\n{JSON}\n\n"):
        file.write_text(content)
        ran = explain("offset-out", "--record", str(file), state=tmp_path)
        assert ran.status == 0
        assert "here      minimum error (1.99 s) > critical tolerance (1 s)" in ran.out
        assert f"{file}: web1 at 20" in said(ran)


def test_a_record_from_standard_input(tmp_path: Path) -> None:
    """A pipe from `ntpaudit check --format json`."""
    command = [sys.executable, "-m", "ntpaudit", "explain", "offset-out", "--record", "-"]
    ran = subprocess.run(command, input=JSON, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert "here      minimum error (1.99 s) > critical tolerance (1 s)" in ran.stdout
    assert "record    standard input: web1 at 20" in ran.stdout


@pytest.mark.parametrize("content", ["", "x", "[]", "{}", '"a"', '{"record": null}', '{"schema": "ntpaudit.record/1"}'])
def test_a_file_without_a_record_is_refused(content: str, tmp_path: Path) -> None:
    """The message names what writes one."""
    file = tmp_path / "x"
    file.write_text(content)
    ran = explain("--record", str(file), state=tmp_path)
    assert (ran.status, ran.out) == (64, "")
    assert f"--record: {file} has no record of ntpaudit; `ntpaudit check --format json` writes one" in ran.err


@pytest.mark.parametrize("name", ["missing", ".", "no\nsuch"])
def test_a_file_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    """It is missing, or a folder."""
    ran = explain("--record", str(tmp_path / name), state=tmp_path)
    assert ran.status == 64
    assert "cannot be read: " in ran.err


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in paths(one, (*path, key)))]


PLAIN = json.loads(JSON)


@given(st.sampled_from([path for path in paths(PLAIN) if path]), JUNK)
@example(("host_clock", "rtc_local"), float("inf"))
def test_a_damaged_record_is_refused_or_explained(path: tuple[Any, ...], junk: Any) -> None:
    """Whatever stands in place of one of its values."""
    data = json.loads(JSON)
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = junk
    try:
        record = read_record(json.dumps(data).encode())
    except ROW_ERRORS:
        return
    assert render("offset-out", Here(record, ""))
    assert render_json(IDS, Here(record, ""))


@given(st.binary(max_size=40))
def test_a_file_with_anything_else_is_refused(content: bytes) -> None:
    """It is no JSON, or JSON of another kind."""
    with pytest.raises(ROW_ERRORS):
        read_record(content)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("offset", "did you mean 'offset-out'?"),
        ("ofset-hihg", "did you mean 'offset-high'?"),
        ("xyz", "`ntpaudit explain` lists all findings"),
        ("", "`ntpaudit explain` lists all findings"),
    ],
)
def test_an_unknown_finding_is_refused_with_the_nearest_id(word: str, hint: str, tmp_path: Path) -> None:
    """The exit status is that of wrong use."""
    ran = explain(word, state=tmp_path)
    assert (ran.status, ran.out) == (64, "")
    assert f"there is no finding '{word}'" in ran.err
    assert hint in ran.err


def test_a_broken_configuration_ends_with_78(tmp_path: Path) -> None:
    """As with every command that reads the state."""
    file = tmp_path / "ntpaudit.toml"
    file.write_text("[history]\npaht = ''\n")
    assert explain("offset-out", "--config", str(file), state=tmp_path).status == 78


def test_the_shell_completes_the_ids(tmp_path: Path) -> None:
    """As bash asks for it."""
    asked = {"_NTPAUDIT_COMPLETE": "bash_complete", "COMP_WORDS": "ntpaudit explain off", "COMP_CWORD": "2"}
    ran = ntpaudit(state=tmp_path, environment=asked)
    assert ran.out.split() == ["plain,offset-out", "plain,offset-high"] or ran.out.split() == [
        "plain,offset-out",
        "plain,not-demonstrable",
    ]


def test_check_explains_only_in_text(tmp_path: Path) -> None:
    """Other formats are for programs, which read `numbers`; the message names the command that explains in JSON."""
    for format_name in ("json", "nagios", "influx", "openmetrics"):
        ran = ntpaudit("check", "--explain", "--format", format_name, "127.0.0.1:9", state=tmp_path)
        assert (ran.status, ran.out) == (64, "")
        assert "`ntpaudit explain FINDING --record FILE --format json`" in ran.err
    ran = ntpaudit("check", "--explain", "--timeout", "100ms", "127.0.0.1:9", state=tmp_path)
    assert "here: 2 * unreachable servers (1) >= servers (1)" in said(ran)


def test_the_page_shows_what_the_command_prints(tmp_path: Path) -> None:
    """The example of docs/findings.md is the output for this record."""
    (tmp_path / "record.json").write_text(JSON)
    out = explain("offset-out", "--record", str(tmp_path / "record.json"), state=tmp_path).out
    shown = re.search(r"```\n(critical  offset-out.*?)```", (FOLDER / "findings.md").read_text(), re.DOTALL)
    assert shown
    assert said(shown[1]) == said(out.replace(str(tmp_path / "record.json"), "record.json"))
