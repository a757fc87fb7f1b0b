"""JSON is the record itself, one object on one line."""

import json

from hypothesis import given

from ntpaudit.core.record import Record
from ntpaudit.formats.json_record import render
from tests.records import records


@given(records())
def test_json_is_the_record(record: Record) -> None:
    """What is read back from the line is equal to what was written, whatever was seen."""
    line = render(record)
    assert line.isascii()
    assert line.index("\n") == len(line) - 1
    assert json.loads(line) == record.to_dict()
    assert Record.from_dict(json.loads(line)) == record
