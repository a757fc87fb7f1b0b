"""What the agent concluded last, told: how old that is comes first, for an old word is no word.

Where there is no agent's word at all, that is told in the same three formats.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ntpaudit.core.clock.drift import FORECAST_LIMIT_S, Breach, Drift, breach_after
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Health
from ntpaudit.core.staleness import AgentState, AgentStatus, Wait
from ntpaudit.core.units import format_duration, format_utc, plural
from ntpaudit.formats.nagios import performance, plugin_line
from ntpaudit.formats.summary import summary
from ntpaudit.formats.text import facts, finding_lines, source_table
from ntpaudit.probes import service
from ntpaudit.render.terminal import fitting, labelled, opening, page, painter

FORMATS = ("text", "json", "nagios")

ANSWERS_WITHIN_S = 10.0
"""From the moment that sources are polled to the record of what they replied: names are resolved meanwhile."""

_DAY_S = 86_400.0


def render(
    status: AgentStatus,
    format_name: str,
    stored: Mapping[str, Any],
    *,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Tell a standing in one of `FORMATS`. `stored` is its record as the history has it, for JSON.

    Text is in lines of `width` columns, if that is less than a page.
    """
    match format_name:
        case "json":
            return _json(status, stored)
        case "nagios":
            return _nagios(status)
    return _text(status, fitting(width), colour=colour)


def render_absence(
    reason: str,
    format_name: str,
    agent: AgentState | None = None,
    *,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Say that there is no record of an agent, and why; `agent` is one that runs and has made none yet."""
    match format_name:
        case "json":
            running = None if agent is None else agent._asdict()
            data = {"record": None, "age_s": None, "stale": True, "agent": running, "reason": reason}
            return json.dumps(data) + "\n"
        case "nagios":
            return plugin_line(Severity.UNKNOWN, reason, ())
    said, _, remedy = reason.partition("; ")
    return page(
        [
            *opening(Severity.UNKNOWN, said, painter(colour), fitting(width)),
            *([_fix(Severity.UNKNOWN, remedy)] if remedy else []),
        ]
    )


def waiting(wait: Wait) -> str:
    """Say that an agent runs and has no measurement yet, and until when it waits.

    Where one is overdue that comes with its fix, behind a semicolon.
    """
    running, due_s = f"the agent has run for {_ago(wait.up_s)}", wait.poll_s + ANSWERS_WITHIN_S
    if due_s >= 0:
        return f"{running} and waits for its first measurement, due in {_ago(due_s)} at most"
    return f"{running} and has recorded nothing, which was due {_ago(-due_s)} ago; {_of_silence()}"


def _of_silence() -> str:
    """Say what to do about an agent that keeps no record."""
    return f"check why the agent is silent: {service.examine()}"


def _fix(severity: Severity, remedy: str) -> str:
    """Write what to do below a sentence, on a line of its own that can be copied."""
    return f"{' ' * len(severity.name)}  fix: {remedy}"


def sentence(status: AgentStatus) -> str:
    """Say in a sentence how wrong the clock is, or that nobody knows any more, without the severity."""
    said = _said(status)
    if not status.is_stale:
        return said
    last = f"its last word was {status.record.severity.name}: {said}"
    if status.doubt is not None:
        return f"{status.doubt}: it says nothing of this clock now; {last}"
    return f"the agent has kept no record for {_ago(status.age_s)}: nothing is known of the clock since; {last}"


def _remedy(status: AgentStatus) -> str:
    """Say what to do about a record that is worth nothing."""
    if status.doubt is None:
        return _of_silence()
    if status.wait is None:
        return f"the next record of an agent replaces it: {service.restart()}"
    return waiting(status.wait) if status.wait.poll_s >= 0 else "wait for the next record of the agent"


def _said(status: AgentStatus) -> str:
    """Return the record's headline; a local audit without an offset knows why from the last that asked servers."""
    record, asked = status.record, status.last_network_record
    if record.offset is not None or record.kind == "network" or asked is None:
        return summary(record, "before this record")
    if asked.offset is None:
        return summary(asked._replace(severity=record.severity, findings=record.findings))
    return f"clock was not measured: what servers replied {_ago(_asked_before_s(status))} before does not hold any more"


def _json(status: AgentStatus, stored: Mapping[str, Any]) -> str:
    """Write all of it as one object on one line."""
    breach = _breach_now(status)
    told = {
        "record": stored,
        "age_s": status.age_s,
        "stale": status.is_stale,
        "stale_after_s": status.stale_after_s,
        "reason": status.doubt,
        "asked_age_s": status.last_network_age_s,
        "breach": None if breach is None else breach._asdict(),
        "agent": status.agent._asdict() | {"up_s": status.agent_up_s},
    }
    return json.dumps(told, allow_nan=False, separators=(",", ":")) + "\n"


def _asked_before_s(status: AgentStatus) -> float | None:
    """Return how long before the record sources were polled: all that is shown refers to the record's moment."""
    return None if status.last_network_age_s is None else status.last_network_age_s - status.age_s


def _nagios(status: AgentStatus) -> str:
    """Write a plugin's line; an old record's numbers would draw a clock that nobody looks at."""
    numbers = [] if status.is_stale else performance(status.record)
    return plugin_line(status.severity, sentence(status), [*numbers, f"age={status.age_s:.0f}s;;;0;"])


def _text(status: AgentStatus, width: int, *, colour: bool) -> str:
    """Write it for a person to read."""
    record, asked, paint = status.record, status.last_network_record, painter(colour)
    first = opening(status.severity, sentence(status), paint, width)
    shown = record if asked is None else record._replace(sources=asked.sources)
    return page(
        [*first, _fix(status.severity, _remedy(status))] if status.is_stale else first,
        [line for label, fact in _ages(status) for line in labelled(label, fact, width)],
        source_table(shown.sources, paint, width),
        [line for finding in record.findings for line in finding_lines(finding, paint, width)],
        [
            line
            for label, fact in (*_prospect(status), *_agent(status), *facts(shown))
            for line in labelled(label, fact, width)
        ],
    )


def _ages(status: AgentStatus) -> Iterator[tuple[str, str]]:
    """Say how old the record is, to whose moment all else refers, and how long before it sources were polled."""
    record = status.record
    when = (
        f"{_minute(record.utc_ns)} UTC" if record.utc_ns is not None else f"{_minute(record.host_ns)} by its own clock"
    )
    age = f"{_ago(status.age_s)} ago, " if status.doubt is None else ""
    yield "recorded", f"{age}at {when}; all that follows is as of then"
    before_s = _asked_before_s(status)
    if status.last_network_record is None or before_s is None:
        yield "polled", "no server yet"
    elif all(source.status == "skipped" for source in status.last_network_record.sources):
        yield "polled", "no server lately: each must first rest for its interval"
    else:
        yield "polled", "then; the replies:" if before_s <= 0 else f"{_ago(before_s)} before; the replies:"


def _breach_now(status: AgentStatus) -> Breach | None:
    """Return the record's forecast counted from now (R3); None where it has none, or its age is not known."""
    drift = status.record.drift
    return None if drift is None or status.doubt is not None else breach_after(drift.breach, status.age_s)


def _prospect(status: AgentStatus) -> Iterator[tuple[str, str]]:
    """Say how the clock moves and where that leads."""
    record, breach = status.record, _breach_now(status)
    if record.drift is None:
        return
    yield "drift", _drift(record.drift)
    if breach is not None and record.verdict in ("within", "unproven"):
        is_known = record.drift.frequency_ppm is not None
        forecast = _forecast(breach, format_duration(record.profile.critical_s), status.age_s, is_known=is_known)
        yield "forecast", f"counted from now: {forecast}"


def _drift(drift: Drift) -> str:
    """Say how fast the host's clock leaves the true time."""
    if drift.frequency_ppm is None:
        return f"not known yet ({plural(drift.samples, 'sample')})"
    way = "behind" if drift.frequency_ppm > 0 else "ahead"
    per_day = format_duration(drift.frequency_ppm * 1e-6 * _DAY_S)
    said = f"as corrected now it {'falls' if way == 'behind' else 'gets'} {per_day} {way} a day"
    fitted = f"{drift.frequency_ppm:+.3f} ppm, fit error {drift.skew_ppm:.2g} ppm over its own"
    return f"{said} ({fitted} {format_duration(drift.span_s)}, {plural(drift.samples, 'sample')})"


def _forecast(breach: Breach, tolerance: str, age_s: float, *, is_known: bool) -> str:
    """Say when the tolerance will be left, and until when it certainly is not; only the latter unless drift `is_known`.

    An early end is named only where past forecasts show how wide the band must be (R9).
    """
    certain = (
        f"guaranteed for {format_duration(breach.guaranteed_s, rounding='down')}"
        if breach.guaranteed_s
        else "no guarantee"
    )
    if not is_known:
        return f"within {tolerance} {certain}; no forecast yet, for the drift is not known"
    premise = "if synchronisation stopped now, " if breach.free_running else ""
    early_s = breach.pessimistic_s
    early = "" if early_s is None else f" (95 %: not within {format_duration(early_s, rounding='down')})"
    if breach.central_s is not None:
        said = f"{premise}{tolerance} wrong in {format_duration(breach.central_s)}{early}"
    else:
        limit = format_duration(max(0.0, FORECAST_LIMIT_S - age_s))
        said = f"{premise}not {tolerance} wrong within {limit}{early}"
    return f"{said}; {certain}{'' if breach.calibrated else '; forecast not yet back-tested'}"


def _agent(status: AgentStatus) -> Iterator[tuple[str, str]]:
    """Say who speaks, and how it fares."""
    agent, health = status.agent, status.record.health or Health()
    up = "" if status.agent_up_s is None else f", for {format_duration(max(1.0, round(status.agent_up_s)))}"
    pid = "" if agent.pid is None or status.agent_up_s is None else f", pid {agent.pid}{up}"
    pools = f"pools every {format_duration(agent.pool_s)}"
    rhythm = (
        f"looks every {format_duration(agent.local_s)}, asks servers every {format_duration(agent.network_s)}, {pools}"
    )
    yield "agent", f"ntpaudit {status.record.version}{pid}; {rhythm}"
    if status.record.offset is None and status.wait is not None:
        poll_s = status.wait.poll_s + status.age_s
        if poll_s > 0:
            yield "next poll", f"{_ago(poll_s)} after this record, at the latest"
    yield "delivery", _delivery(health)
    if health.missed:
        yield "missed", f"{plural(health.missed, 'audit')} of servers came not when due: the host was busy or asleep"
    if health.store:
        yield "store", health.store


def _delivery(health: Health) -> str:
    """Say what has not reached the database."""
    if not health.backlog:
        said = "nothing waits to be delivered"
    else:
        oldest = "" if health.oldest_s is None else f", the oldest for {_ago(health.oldest_s)}"
        said = f"{plural(health.backlog, 'record')} waiting{oldest}"
    if health.failures:
        failed = plural(health.failures, "attempt")
        said += f"; {failed} failed since the last good one: {health.failure or 'no reason told'}"
    if health.set_aside:
        said += f"; {plural(health.set_aside, 'dead letter')}: ntpaudit history dead-letters list"
    return said


def _ago(seconds: float | None) -> str:
    """Write an age in whole seconds at least."""
    return format_duration(max(1.0, round(seconds or 0.0)))


def _minute(time_ns: int) -> str:
    """Write a point in time to the second."""
    return format_utc(time_ns)[:19].replace("T", " ")
