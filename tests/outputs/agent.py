"""Events and records of an agent for the tests of outputs: typical values, and any others."""

from typing import Any

from hypothesis import strategies as st

from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.events import Event
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Health, Record
from tests.records import CASES, NOW_NS, records

SAME = CASES["ok, behind"]
"""A record without a finding."""

NASTY = (
    "",
    " ",
    "x 12",
    '" 12',
    '" -5i',
    "\\",
    "a\\ 7",
    "]",
    'a="b\\"]',
    "new\nline 3",
    "ü ☃",
    "\ud800",
    "\x1b[2J",
    "\0",
)
"""Texts that a careless writer stumbles over, and a careless reader."""


def event(kind: str = "unsynced", *, raised: bool = True, **others: Any) -> Event:
    """Return an event with typical values, except those that are given."""
    usual = Event(
        kind,
        raised,
        Severity.WARNING,
        "high",
        "the kernel says that its clock is not synchronised",
        NOW_NS + 1_900_123,
        NOW_NS,
        2 * 10**12,
        remedy="let exactly one time daemon run",
    )
    return usual._replace(**others)


def by_agent(record: Record, **others: Any) -> Record:
    """Return a record as an agent would write it, except the values that are given."""
    breach = Breach(3_600.0, 7_200.0, None, 20_000.0, free_running=True, calibrated=False)
    usual = record._replace(
        config_sha256="c" * 64,
        age_s=61.5,
        drift=Drift(12.25, -3.5, 0.75, 20, breach),
        health=Health(missed=2, backlog=7, oldest_s=420.5, failures=3),
    )
    return usual._replace(**others)


texts = st.sampled_from(NASTY) | st.text(max_size=40)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Draw an event with any text in it."""
    values: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | texts
    return event(
        draw(st.sampled_from(["step-back", "unsynced", "of-tomorrow"])),
        raised=draw(st.booleans()),
        severity=draw(st.sampled_from(Severity)),
        text=draw(texts),
        remedy=draw(texts),
        utc_ns=draw(st.none() | st.integers(0, 2 * NOW_NS)),
        value_s=draw(st.none() | st.floats(-1e9, 1e9)),
        detail=draw(st.dictionaries(texts | st.sampled_from(["severity", "Size"]), values, max_size=4)),
    )


@st.composite
def agent_records(draw: st.DrawFn) -> Record:
    """Draw a record of any audit by an agent."""
    counts = st.integers(0, 10**6)
    spans = st.none() | st.floats(0, 1e9)
    breach = Breach(draw(spans), draw(spans), draw(spans), draw(st.floats(0, 1e9)), draw(st.booleans()), False)
    rates = st.none() | st.floats(-500, 500)
    record = draw(records())
    return record._replace(
        kind=draw(st.sampled_from(["network", "local"])),
        config_sha256=draw(st.none() | st.just("c" * 64)),
        age_s=draw(spans),
        drift=draw(st.none() | st.just(Drift(draw(rates), draw(rates), draw(st.floats(0, 2000)), 20, breach))),
        health=draw(st.none() | st.builds(Health, counts, counts, spans, counts)),
    )
