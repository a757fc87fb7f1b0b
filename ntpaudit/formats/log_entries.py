"""Log entries for the journal and syslog: one for every event, and one for every change of severity or verdict."""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple, Protocol

from ntpaudit.core.checks.steps import STEP_KINDS
from ntpaudit.core.events import Event
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S, Rounding, format_utc
from ntpaudit.formats.summary import summary

VERDICT_CHANGED = "verdict-changed"  # the kind of an entry for a change of severity or verdict
MOST_KEPT = 256  # the most entries that wait for a log; then the oldest are dropped. The history has all of them.
_LONGEST_NAME = 32
_CLEARED = 5
_PRIORITIES = {Severity.CRITICAL: 2, Severity.WARNING: 4, Severity.UNKNOWN: 4, Severity.OK: 6}
"""Critical, warning, informational, and notice for what is over, in syslog's numbers (RFC 5424 §6.2.1)."""


class LogEntry(NamedTuple):
    """One entry. `kind` is a finding's id or `VERDICT_CHANGED`, `priority` syslog's number, `text` for people.

    `utc_ns` is the corrected time, None if unknown; `host_ns` is the host's clock. `clock_error_s` is the maximum error
    of the host's clock and of a timestamp made from either time, None if unknown.
    `facts` are for machines: names of at most 32 lower-case letters, digits and underscores, and values as text.
    """

    kind: str
    priority: int
    text: str
    utc_ns: int | None
    host_ns: int
    clock_error_s: float | None
    facts: Mapping[str, str]


class Log(Protocol):
    """A log that takes one entry at a time."""

    def encode(self, message: LogEntry, host: str) -> bytes:
        """Encode an entry in the log's own notation."""

    def send(self, entry: bytes) -> None:
        """Send an entry without waiting. Raises OutputError."""

    def close(self) -> None:
        """Close the log."""


class LogOutput:
    """Send entries to a log, in order. Entries that it does not accept are kept and sent first the next time."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last: Record | None = None
        self._entries: deque[bytes] = deque(maxlen=MOST_KEPT)

    def emit(self, record: Record, events: Sequence[Event]) -> None:
        """Send the events, then the verdict if it has changed. Raises OutputError."""
        for message in log_entries(record, events, self._last):
            self._entries.append(self._log.encode(message, record.host.name))
        self._last = record
        while self._entries:
            self._log.send(self._entries[0])
            self._entries.popleft()

    def close(self) -> None:
        """Close the log; entries that it did not accept are dropped."""
        self._log.close()


def log_entries(record: Record, events: Sequence[Event], last: Record | None) -> Iterator[LogEntry]:
    """Yield the entries of a record and of the events since the `last` one."""
    for event in events:
        yield _of_event(event, record)
    if last is None or (last.severity, last.verdict) != (record.severity, record.verdict):
        yield LogEntry(
            VERDICT_CHANGED,
            _PRIORITIES[record.severity],
            status_line(record),
            record.utc_ns,
            record.host_ns,
            _clock_error_s(record),
            {"severity": record.severity.word}
            | _of_clock(record)
            | _times(record.utc_ns, record.host_ns)
            | _of_chain(record),
        )


def status_line(record: Record) -> str:
    """Describe in one line how the clock is judged, and why."""
    return f"{record.severity.name}: {summary(record)}"


def clip(text: str, most: int) -> bytes:
    """Return a text as UTF-8 of at most `most` octets; three dots mark a text that is cut, between characters."""
    data = text.encode("utf-8", "backslashreplace")
    return data if len(data) <= most else data[: most - 3].decode("utf-8", "ignore").encode() + b"..."


def _of_event(event: Event, record: Record) -> LogEntry:
    # a name is as every log takes it
    detail = {
        re.sub("[^a-z0-9]", "_", key.lower())[:_LONGEST_NAME] or "_": text
        for key, value in event.detail.items()
        if (text := _text(value)) is not None
    }
    facts = {
        "finding": event.kind,
        "raised": str(int(event.raised)),
        "level": str(event.level),
        "severity": event.severity.word,
        **_of_clock(record),
        **_times(event.utc_ns, event.host_ns),
        **_of_chain(record),
        **_microseconds(value=(event.value_s, "near")),
    }
    return LogEntry(
        event.kind,
        _PRIORITIES[event.severity] if event.raised else _CLEARED,
        f"{event.title}: {event.text_with_fix}",
        event.utc_ns,
        event.host_ns,
        _clock_error_s(record, event),
        facts | {name: text for name, text in detail.items() if name not in facts},
    )


def _clock_error_s(record: Record, event: Event | None = None) -> float | None:
    """Return the most that the host's clock and the corrected time can be off (I3), with a step after the record."""
    if (offset := record.offset) is None:
        return None
    error_s = max(offset.bound_s, offset.latest_s - offset.estimate_s, offset.estimate_s - offset.earliest_s)
    stepped_s = event.value_s if event is not None and event.kind in STEP_KINDS else None
    return error_s + abs(stepped_s or 0.0)


def _of_clock(record: Record) -> dict[str, str]:
    """Return how the clock is judged, and in whole microseconds how wrong it is; bounds are rounded outwards."""
    verdict = {"verdict": str(record.verdict)}
    if (offset := record.offset) is None:
        return verdict
    return verdict | _microseconds(
        offset=(offset.estimate_s, "near"),
        earliest=(offset.earliest_s, "down"),
        latest=(offset.latest_s, "up"),
        bound=(offset.bound_s, "up"),
    )


def _of_chain(record: Record) -> dict[str, str]:
    """Return the head of the history's chain, as far as it is known: this copy shows if the history is rewritten."""
    return {} if record.chain is None else {"chain": str(record.chain.sequence), "chain_head": record.chain.head.hex()}


def _microseconds(**values: tuple[float | None, Rounding]) -> dict[str, str]:
    """Write spans in microseconds, `up` and `down` the number line; what is no number is left out."""
    return {
        f"{name}_usec": str(to_microseconds(value_s, rounding))
        for name, (value_s, rounding) in values.items()
        if value_s is not None and isfinite(value_s)
    }


def to_microseconds(seconds: float, rounding: Rounding) -> int:
    """Return a span in whole microseconds, `up` and `down` meaning the number line."""
    ns = round(seconds * NS_PER_S)  # an integer, lest 0.0003 s become 301 us when rounded up
    return (ns + {"down": 0, "near": 500, "up": 999}[rounding]) // 1000


def _times(utc_ns: int | None, host_ns: int) -> dict[str, str]:
    true_time = {} if utc_ns is None else {"true_time": format_utc(utc_ns)}
    return true_time | {"host_time": format_utc(host_ns)}


def _text(value: Any) -> str | None:
    """Write a value of an event's detail; None where there is nothing to say."""
    match value:
        case None:
            return None
        case str():
            return value
        case bool() | int():
            return str(int(value))
        case float():
            return str(value) if isfinite(value) else None
    import json

    return json.dumps(value)
