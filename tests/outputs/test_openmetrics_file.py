"""The metrics file is always whole and always the latest."""

from pathlib import Path

import pytest

from ntpaudit.config.schema import OpenMetricsConfig
from ntpaudit.errors import OutputError
from ntpaudit.formats.openmetrics import render
from ntpaudit.outputs.openmetrics import open_output
from tests.outputs.agent import SAME, by_agent, event
from tests.records import CASES


def test_the_file_is_the_latest_record(tmp_path: Path) -> None:
    """Every record replaces the file, readable by all, and nothing else lies beside it."""
    path = tmp_path / "ntpaudit.prom"
    output = open_output(OpenMetricsConfig(str(path)))
    for record in (SAME, by_agent(CASES["beyond, ahead"])):
        output.emit(record, [event()])
        assert path.read_text() == render(record)
    output.close()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["ntpaudit.prom"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """A file that cannot be written is reported with the fix; after the fix, it is written."""
    path = tmp_path / "collector" / "ntpaudit.prom"
    output = open_output(OpenMetricsConfig(str(path)))
    with pytest.raises(OutputError, match=rf"cannot write {path}: No such file or directory; create its folder"):
        output.emit(SAME, [])
    path.parent.mkdir()
    output.emit(SAME, [])
    assert path.read_text() == render(SAME)
