"""An accepted finding in every format: listed as such, and not counted."""

import json

import pytest

from ntpaudit.core.checks.rule import LEVEL_SEVERITY
from ntpaudit.core.events import Event
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Labels, Record, conclude
from ntpaudit.formats import FORMATS, json_record, line_protocol, load, nagios, openmetrics
from ntpaudit.formats.log_entries import log_entries
from ntpaudit.formats.summary import summary
from ntpaudit.formats.text import render as render_text
from tests.core.policies import accepting
from tests.core.worlds import NOON, UNSYNCHRONISED, S, case
from tests.formats.test_openmetrics import read, value

BARE = case(kernel=UNSYNCHRONISED, daemons=())


def recorded(*accepted: str) -> Record:
    """Return the record of a host that nothing disciplines: `daemon-count` is listed under `unsynced`."""
    return conclude(BARE.observation, BARE.profile, Labels("0.1"), site_policy=accepting(*accepted))


ACCEPTED, COUNTED = recorded("unsynced"), recorded()


def event(*accepted: str, raised: bool = True) -> Event:
    """Return the event of `unsynced`."""
    finding = recorded(*accepted).findings[0]
    severity = LEVEL_SEVERITY[finding.level]
    event = Event("unsynced", raised, severity, "high", "not synchronised", NOON, NOON, 7, remedy="run one")
    return event.accept(finding.accepted)


def test_the_sentence_names_it() -> None:
    """A line of green names what is accepted, because that is why it is green."""
    assert summary(ACCEPTED).endswith("; accepted: unsynced")
    assert summary(recorded("unsynced", "daemon-count")).endswith("; accepted: unsynced, daemon-count")
    assert "accepted" not in summary(COUNTED)


def test_text_says_until_when_by_whom_and_why_instead_of_the_fix() -> None:
    """And the finding under it stays as it is."""
    text = render_text(ACCEPTED)
    assert text.startswith("OK  clock is ")
    block = text[text.index("high      unsynced") : text.index("  medium  daemon-count")]
    assert "accepted until 2026-10-22 12:00 UTC by ops, ticket 1234: container\n" in block
    assert "fix:" not in block
    assert "fix:" in text[text.index("  medium  daemon-count") :]


def test_nagios_counts_it_apart() -> None:
    """The state is OK, and graphs have the number."""
    line = nagios.render(ACCEPTED)
    assert line.startswith("NTPAUDIT OK - ")
    assert line.endswith(" findings=0;;;0; accepted=1;;;0;\n")
    assert nagios.render(COUNTED).endswith(" findings=1;;;0; accepted=0;;;0;\n")


def test_openmetrics_has_its_end_and_no_finding() -> None:
    """An alert on `ntpaudit_finding` is quiet, also for what is listed under it; another can watch the end."""
    samples = read(openmetrics.render(ACCEPTED))
    assert value(samples, "severity") == 0
    assert [dict(labels)["id"] for name, labels in samples if name == "ntpaudit_finding"] == []
    assert value(samples, "accepted_until_seconds", id="unsynced", level="high") == NOON / S + 86_400
    assert "accepted_until" not in openmetrics.render(COUNTED)
    apart = read(openmetrics.render(recorded("daemon-count")))
    assert [dict(labels)["id"] for name, labels in apart if name == "ntpaudit_finding"] == ["unsynced"]


def test_line_protocol_has_the_number_and_marks_the_event() -> None:
    """The point's severity is that without it, and so are the ids that count; without one there is no field."""
    clock, *_, unsynced, count = line_protocol.render(ACCEPTED).splitlines()
    assert ",accepted=1i," in clock
    assert " severity=0i," in clock
    assert "finding_ids" not in clock
    assert ",kind=unsynced" in unsynced
    assert ' severity=0i,raised=1i,title="accepted: unsynced",text="the kernel' in unsynced
    assert 'accepted until 2026-10-22 12:00 UTC by ops, ticket 1234: container",accepted=1i ' in unsynced
    assert ",accepted=0i " in count
    assert "accepted" not in line_protocol.render(COUNTED).splitlines()[0]
    assert ' severity=1i,raised=1i,title="high: unsynced",' in line_protocol.render(COUNTED)


@pytest.mark.parametrize("raised", [True, False])
def test_an_event_says_that_it_is_accepted(raised: bool) -> None:
    """In line protocol and in the entries of journal and syslog, whose priority is informational."""
    title = "accepted: unsynced" if raised else "cleared: unsynced"
    (line,) = line_protocol.render_events(ACCEPTED.host, [event("unsynced", raised=raised)]).splitlines()
    assert f' severity=0i,raised={int(raised)}i,title="{title}",text="not synchronised; accepted until' in line
    assert ",accepted=1i " in line
    assert "fix:" not in line
    entry = next(log_entries(ACCEPTED, [event("unsynced", raised=raised)], ACCEPTED))
    assert (entry.priority, entry.facts["severity"], entry.facts["level"]) == (6 if raised else 5, "ok", "high")
    assert {name: value for name, value in entry.facts.items() if name.startswith("accepted")} == {
        "accepted_by": "ops, ticket 1234",
        "accepted_reason": "container",
        "accepted_until": "2026-10-22T12:00:00.000000000Z",
    }


def test_an_event_that_is_not_accepted_is_as_before() -> None:
    """Nothing of acceptances is in it."""
    (line,) = line_protocol.render_events(COUNTED.host, [event()]).splitlines()
    assert line.endswith(f'title="high: unsynced",text="not synchronised; fix: run one",accepted=0i {NOON}')
    assert event().accept(None) == event()


def test_json_has_null_or_the_acceptance() -> None:
    """The field is always there."""
    assert [one["accepted"] for one in json.loads(json_record.render(COUNTED))["findings"]] == [None, None]


@pytest.mark.parametrize("name", FORMATS)
def test_a_hostile_reason_breaks_no_format(name: str) -> None:
    """What a reason may have is a printable line; a stored record may have more."""
    hostile = 'a"b\\c|d\n\x1b[31m, severity=3i'
    accepted = ACCEPTED.findings[0].accepted
    assert accepted is not None
    finding = ACCEPTED.findings[0]._replace(accepted=accepted._replace(reason=hostile, by=hostile))
    text = load(name)(ACCEPTED._replace(findings=(finding,)))
    assert "\x1b[31m" not in text
    usual = load(name)(ACCEPTED._replace(findings=ACCEPTED.findings[:1]))
    assert name == "text" or len(text.splitlines()) == len(usual.splitlines())


def test_the_severity_of_accepted_records_is_that_of_the_rest() -> None:
    """As the formats above assume."""
    assert (ACCEPTED.severity, COUNTED.severity) == (Severity.OK, Severity.WARNING)
