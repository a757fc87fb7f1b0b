"""A log gets what changed, in order and once, and no entry calls a clock better than it is."""

import itertools
from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.chain import ChainHead
from ntpaudit.core.events import Event
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.errors import OutputError
from ntpaudit.formats.log_entries import (
    MOST_KEPT,
    VERDICT_CHANGED,
    LogEntry,
    LogOutput,
    clip,
    log_entries,
    status_line,
    to_microseconds,
)
from tests.outputs.agent import SAME, agent_records, event, events, texts
from tests.records import CASES, record, servers

OUT = CASES["beyond, ahead"]


class Listing:
    """A log that lists what it is sent, or refuses it."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.refuses = False
        self.is_closed = False

    def encode(self, message: LogEntry, host: str) -> bytes:
        """Write the host, the kind and the text."""
        return f"{host} {message.kind} {message.text}".encode()

    def send(self, entry: bytes) -> None:
        """Take an entry."""
        if self.refuses:
            raise OutputError("no room")
        self.entries.append(entry.decode())

    def close(self) -> None:
        """Take no more."""
        self.is_closed = True


def kinds(entries: list[str]) -> list[str]:
    """Return the kinds of entries."""
    return [entry.split()[1] for entry in entries]


def test_a_verdict_is_logged_once() -> None:
    """The first record is logged, one with the same verdict is not, and one with another verdict is."""
    log = Listing()
    output = LogOutput(log)
    for same_record in (SAME, CASES["ok, ahead"], OUT, OUT, SAME):
        output.emit(same_record, [])
    assert log.entries == [f"web1 {VERDICT_CHANGED} {status_line(same_record)}" for same_record in (SAME, OUT, SAME)]


@pytest.mark.parametrize("change", [{"severity": Severity.WARNING}, {"verdict": "unproven"}])
def test_severity_and_verdict_each_count(change: dict[str, object]) -> None:
    """A change of either is logged."""
    assert [message.kind for message in log_entries(SAME._replace(**change), [], SAME)] == [VERDICT_CHANGED]  # type: ignore[arg-type]
    assert list(log_entries(SAME, [], SAME)) == []


def test_events_are_logged_in_order_and_before_the_verdict() -> None:
    """An event comes before the verdict that it causes; it may come with a record that was logged already."""
    log = Listing()
    output = LogOutput(log)
    output.emit(SAME, [])
    output.emit(OUT, [event("step-back"), event("offset-out")])
    output.emit(OUT, [event("unsynced", raised=False)])
    assert kinds(log.entries) == [VERDICT_CHANGED, "step-back", "offset-out", VERDICT_CHANGED, "unsynced"]
    assert "fix: " in log.entries[1]
    assert log.entries[-1] == "web1 unsynced cleared: unsynced: the kernel says that its clock is not synchronised"


def test_what_a_log_refuses_is_kept_in_order() -> None:
    """Entries that the log refused come first once it accepts them; none is lost or logged twice."""
    log = Listing()
    output = LogOutput(log)
    log.refuses = True
    for kind in ("step-back", "step-forward"):
        with pytest.raises(OutputError, match="no room"):
            output.emit(SAME, [event(kind)])
    log.refuses = False
    output.emit(SAME, [event("unsynced")])
    assert kinds(log.entries) == ["step-back", VERDICT_CHANGED, "step-forward", "unsynced"]
    output.close()
    assert log.is_closed


def test_what_is_kept_is_bounded() -> None:
    """A log that is gone costs no more memory than a fixed number of entries; the newest are kept."""
    log = Listing()
    output = LogOutput(log)
    log.refuses = True
    for number in range(2 * MOST_KEPT):
        with pytest.raises(OutputError):
            output.emit(SAME, [event(f"kind-{number}")])
    log.refuses = False
    output.emit(SAME, [])
    assert kinds(log.entries) == [f"kind-{number}" for number in range(MOST_KEPT, 2 * MOST_KEPT)]


@pytest.mark.parametrize(
    ("severity", "raised", "priority"),
    [
        (Severity.CRITICAL, True, 2),
        (Severity.WARNING, True, 4),
        (Severity.UNKNOWN, True, 4),
        (Severity.OK, True, 6),
        (Severity.CRITICAL, False, 5),
    ],
)
def test_priorities(severity: Severity, raised: bool, priority: int) -> None:
    """What is wrong has a priority by how bad it is; what is over is a notice."""
    (message,) = log_entries(SAME, [event(raised=raised, severity=severity)], SAME)
    assert message.priority == priority


def test_facts_of_an_event() -> None:
    """An event's facts are its own, the clock's, and its detail, which takes the place of none of them."""
    detail = {"Before": "then", "is_gap": True, "unknown": None, "severity": "none", "list": [1, None], "never": nan}
    step = event("step-back", value_s=-3600.000_000_4, severity=Severity.WARNING, detail=detail)
    (message,) = log_entries(record(*servers(0.0019)), [step], SAME)
    assert message.facts == {
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
        "value_usec": "-3600000000",
        "before": "then",
        "is_gap": "1",
        "list": "[1, null]",
    }


def test_an_entry_has_the_head_of_the_chain() -> None:
    """Of the history after the record: an event and a new verdict both."""
    chained = record(*servers(0.0019))._replace(chain=ChainHead(7, bytes([7] * 32)))
    for message in log_entries(chained, [event("step-back")], None):
        assert (message.facts["chain"], message.facts["chain_head"]) == ("7", "07" * 32)


def test_facts_of_an_unmeasured_clock() -> None:
    """If nothing was measured, the offset, the true time and the error of the clock are unknown."""
    silent = CASES["unmeasured, no reply"]
    (message,) = log_entries(silent, [], SAME)
    assert set(message.facts) == {"severity", "verdict", "host_time"}
    assert message.clock_error_s is None
    assert message.utc_ns is None


@given(agent_records(), events())
def test_the_logged_error_holds_for_the_clock_and_for_the_stamp(judged: Record, one: Event) -> None:
    """Neither the host's clock nor the corrected time is off by more than the logged error, step or no step."""
    for message in log_entries(judged, [one, one], None):
        if judged.offset is None:
            assert message.clock_error_s is None
            continue
        assert message.clock_error_s is not None
        for truth, believed in itertools.product(
            (judged.offset.earliest_s, judged.offset.latest_s), (0.0, judged.offset.estimate_s)
        ):
            assert abs(truth - believed) <= message.clock_error_s
        if message.kind == "step-back":
            stepped_s = abs(one.value_s or 0.0)
            assert message.clock_error_s >= judged.offset.bound_s + stepped_s


@given(st.integers(-(10**16), 10**16))
def test_microseconds_are_rounded_outwards(ns: int) -> None:
    """A duration is rounded exactly in the requested direction, although it is a float."""
    exact = Fraction(ns, 1000)
    down, near, up = (to_microseconds(ns / 1e9, way) for way in ("down", "near", "up"))
    slack = Fraction(abs(ns), 2**52 * 1000)  # what the float itself cannot hold
    assert down - slack <= exact <= up + slack
    assert up - down <= 1 + 2 * slack
    assert abs(near - exact) <= Fraction(1, 2) + slack


def test_an_infinite_value_is_not_logged() -> None:
    """An infinite time to a breach is no number of microseconds."""
    (message,) = log_entries(SAME, [event("breach-forecast", value_s=inf)], SAME)
    assert "value_usec" not in message.facts


@given(texts, st.integers(3, 30))
def test_a_clipped_text_is_still_text(text: str, most: int) -> None:
    """A text is cut between characters, never longer than requested, marked where it is cut and whole where it fits."""
    clipped = clip(text, most)
    assert len(clipped) <= most
    whole = text.encode("utf-8", "backslashreplace")
    assert clipped == whole or (clipped.endswith(b"...") and whole.startswith(clipped[:-3]))
    assert clipped.decode() or not text
