"""The monitoring plugin's line keeps to the guidelines of the Monitoring Plugins project."""

import re
from dataclasses import dataclass

import pytest
from hypothesis import given

from ntpaudit.core.record import Record
from ntpaudit.formats.nagios import render
from ntpaudit.formats.summary import summary
from tests.records import CASES, records

NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
RANGE = rf"@?(?:(?:~|{NUMBER})?:)?(?:{NUMBER})?"
DATUM = re.compile(
    rf"(?P<label>[a-z_]+)=(?P<value>{NUMBER}|U)(?P<unit>s|%|[KMGT]?B|c)?"
    rf";(?P<warning>{RANGE});(?P<critical>{RANGE});(?P<least>{NUMBER})?;(?P<most>{NUMBER})?"
)


@dataclass(frozen=True)
class Datum:
    """One value of the performance data."""

    value: float | None
    unit: str | None
    warning: str
    critical: str


def read(line: str) -> tuple[str, str, dict[str, Datum]]:
    """Read a plugin's output strictly: the state, the text, and the performance data by label."""
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    text, performance = line[:-1].split(" | ")  # exactly one bar
    assert "|" not in text + performance
    name, state, dash, said = text.split(" ", 3)
    assert (name, dash) == ("NTPAUDIT", "-")
    data = {}
    for written in performance.split(" "):
        match = DATUM.fullmatch(written)
        assert match, written
        assert match["label"] not in data
        value = None if match["value"] == "U" else float(match["value"])
        assert match["unit"] is None or value is not None
        data[match["label"]] = Datum(value, match["unit"], match["warning"], match["critical"])
    return state, said, data


@given(records())
def test_every_record_keeps_to_the_grammar(record: Record) -> None:
    """Whatever was seen: one line, one bar, the state, and values that are the record's to the nanosecond."""
    state, said, data = read(render(record))
    assert state == record.severity.name
    assert said == summary(record).replace("|", "/")
    assert data["sources"] == Datum(len(record.sources), None, "", "")
    assert data["agreeing"].value == record.agreement.agreeing
    if record.offset is None:
        assert data["offset"].value is data["bound"].value is None
    else:
        assert data["offset"].value == pytest.approx(record.offset.estimate_s, abs=1e-9)
        assert data["bound"].value == pytest.approx(record.offset.bound_s, abs=1e-9)
        assert data["offset"].unit == data["bound"].unit == "s"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (
            "ok, behind",
            "NTPAUDIT OK - clock is 1.92 ms behind, at most 5.86 ms wrong if at most 1 of 4 servers is wrong "
            "(4 of 4 servers agree) | "
            "offset=0.001916838s;-0.1:0.1;-1:1;; bound=0.005850021s;;1;0; "
            "sources=4;;;0; usable=4;;;0; agreeing=4;;;0; findings=0;;;0; accepted=0;;;0;\n",
        ),
        (
            "mifid, unproven",
            "NTPAUDIT WARNING - clock is 6.84 µs behind (estimate), at most 3.97 ms wrong: "
            "not proven to be within 100 µs (4 of 4 servers agree) | "
            "offset=0.000006839s;;-0.0001:0.0001;; bound=0.003960021s;0.00005;0.0001;0; "
            "sources=4;;;0; usable=4;;;0; agreeing=4;;;0; findings=1;;;0; accepted=0;;;0;\n",
        ),
        (
            "unmeasured, no reply",
            "NTPAUDIT UNKNOWN - clock was not measured: none of 4 servers replied (timeout) | "
            "offset=U;-0.1:0.1;-1:1;; bound=U;;1;0; "
            "sources=4;;;0; usable=0;;;0; agreeing=0;;;0; findings=1;;;0; accepted=0;;;0;\n",
        ),
    ],
)
def test_whole_line(case: str, expected: str) -> None:
    """The warning stands at what the profile judges it on, and what was not measured is `U`."""
    assert render(CASES[case]) == expected
