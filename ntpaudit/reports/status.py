"""The agent's last record, or why there is none, as text, JSON or a plugin's line. The age of a record comes first."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ntpaudit.core.chain import ChainHead
from ntpaudit.core.clock.drift import FORECAST_LIMIT_S, Breach, Drift, breach_after
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Health
from ntpaudit.core.staleness import AgentStatus, RunningAgent, Wait
from ntpaudit.core.units import DAY_S, format_duration, format_utc, plural
from ntpaudit.formats.json_record import json_line
from ntpaudit.formats.nagios import performance, plugin_line
from ntpaudit.formats.summary import summary
from ntpaudit.formats.text import SOURCE_COLUMNS, facts, finding_lines
from ntpaudit.probes import service
from ntpaudit.render.terminal import fitting, labelled, opening, page, painter, table

FORMATS = ("text", "json", "nagios")
ANSWERS_WITHIN_S = 10.0  # the time from the start of a poll to its record, with the resolution of names


def render(
    status: AgentStatus,
    format_name: str,
    stored: Mapping[str, Any],
    head: ChainHead | None = None,
    *,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Write the status in one of `FORMATS`, text in lines of `width` columns, at most 100.

    `stored` (the record) and `head` (the newest of the history's chain) are for JSON.
    """
    match format_name:
        case "json":
            return _json(status, stored, head)
        case "nagios":
            numbers = [] if status.is_stale else performance(status.record)  # graphs would show them as current
            return plugin_line(status.severity, sentence(status), [*numbers, f"age={status.age_s:.0f}s;;;0;"])
    return _text(status, fitting(width), colour=colour)


def render_absence(
    reason: str, format_name: str, agent: RunningAgent | None = None, *, width: int | None = None, colour: bool = False
) -> str:
    """Write that there is no record of an agent, and why; `agent` is one that runs and has stored none yet."""
    match format_name:
        case "json":
            running = None if agent is None else agent._asdict()
            data = {"record": None, "age_s": None, "stale": True, "agent": running, "reason": reason}
            return json.dumps(data) + "\n"
        case "nagios":
            return plugin_line(Severity.UNKNOWN, reason, ())
    fault, _, remedy = reason.partition("; ")
    lines = opening(Severity.UNKNOWN, fault, painter(colour), fitting(width))
    return page([*lines, _fix(Severity.UNKNOWN, remedy)] if remedy else lines)


def waiting(wait: Wait) -> str:
    """Describe an agent that runs and has no measurement yet; if that is overdue, the fix follows a semicolon."""
    start, due_s = f"the agent started {_age(wait.up_s)} ago", wait.poll_s + ANSWERS_WITHIN_S
    if due_s >= 0:
        return f"{start} and waits for its first measurement (due within {_age(due_s)})"
    return f"{start} and has stored no record (due {_age(-due_s)} ago); check the agent: {service.examine()}"


def _fix(severity: Severity, remedy: str) -> str:
    """Write a fix on a line of its own, so that it can be copied."""
    return f"{' ' * len(severity.name)}  fix: {remedy}"


def sentence(status: AgentStatus) -> str:
    """Describe the clock's error in one sentence, or say that the record is stale; without the severity."""
    text = _summary(status)
    if not status.is_stale:
        return text
    last = f"last status {status.record.severity.name}: {text}"
    why = status.doubt or f"the agent has stored no record for {_age(status.age_s)}"
    return f"{why}, so the current offset is unknown; {last}"


def _remedy(status: AgentStatus) -> str:
    if status.doubt is None:
        return f"check the agent: {service.examine()}"
    if status.wait is None:
        return f"start the agent, its next record replaces this one: {service.restart()}"
    return waiting(status.wait) if status.wait.poll_s >= 0 else "wait for the next record of the agent"


def _summary(status: AgentStatus) -> str:
    """Return the record's summary; the last network audit explains why a local audit has no offset."""
    record, polled = status.record, status.last_network_record
    if record.offset is not None or record.kind == "network" or polled is None:
        return summary(record, "before this record")
    if polled.offset is None:
        return summary(polled._replace(severity=record.severity, findings=record.findings))
    return f"clock was not measured: the replies of {_age(_polled_before_s(status))} earlier are no longer valid"


def _json(status: AgentStatus, stored: Mapping[str, Any], head: ChainHead | None) -> str:
    breach = _breach_now(status)
    data = {
        "record": stored,
        "age_s": status.age_s,
        "stale": status.is_stale,
        "stale_after_s": status.stale_after_s,
        "reason": status.doubt,
        "asked_age_s": status.last_network_age_s,
        "breach": None if breach is None else breach._asdict(),
        "agent": status.agent._asdict() | {"up_s": status.agent_up_s},
        "chain": None if head is None else head.plain(),
    }
    return json_line(data)


def _polled_before_s(status: AgentStatus) -> float | None:
    """Return the time from the last poll to the record: all that is shown is as of the record."""
    return None if status.last_network_age_s is None else status.last_network_age_s - status.age_s


def _text(status: AgentStatus, width: int, *, colour: bool) -> str:
    record, polled, paint = status.record, status.last_network_record, painter(colour)
    first = opening(status.severity, sentence(status), paint, width)
    shown = record if polled is None else record._replace(sources=polled.sources)
    last = (*_drift_and_forecast(status), *_agent(status), *facts(shown))
    return page(
        [*first, _fix(status.severity, _remedy(status))] if status.is_stale else first,
        [line for label, fact in _ages(status) for line in labelled(label, fact, width)],
        table(SOURCE_COLUMNS, shown.sources, paint, width),
        [line for finding in record.findings for line in finding_lines(finding, paint, width)],
        [line for label, fact in last for line in labelled(label, fact, width)],
    )


def _ages(status: AgentStatus) -> Iterator[tuple[str, str]]:
    utc_ns, host_ns = status.record.utc_ns, status.record.host_ns
    when = f"{_second(host_ns)} by the host's clock" if utc_ns is None else f"{_second(utc_ns)} UTC"
    age = f"{_age(status.age_s)} ago, " if status.doubt is None else ""
    yield "recorded", f"{age}at {when}; all values below are from that time"
    before_s = _polled_before_s(status)
    if status.last_network_record is None or before_s is None:
        yield "polled", "no server yet"
    elif all(source.status == "skipped" for source in status.last_network_record.sources):
        yield "polled", "no server: all were skipped"
    else:
        yield "polled", "at the same time; results:" if before_s <= 0 else f"{_age(before_s)} earlier; last results:"


def _breach_now(status: AgentStatus) -> Breach | None:
    """Return the record's forecast counted from now (R3); None if it has none, or if its age is not known."""
    drift = status.record.drift
    return None if drift is None or status.doubt is not None else breach_after(drift.breach, status.age_s)


def _drift_and_forecast(status: AgentStatus) -> Iterator[tuple[str, str]]:
    record, breach = status.record, _breach_now(status)
    if record.drift is None:
        return
    yield "drift", _drift(record.drift)
    if breach is not None and record.verdict in ("within", "unproven"):
        is_known = _is_rate_known(record.drift, breach, record.profile.critical_s)
        forecast = _forecast(breach, format_duration(record.profile.critical_s), status.age_s, is_known=is_known)
        yield "forecast", f"from now: {forecast}"


def _is_rate_known(drift: Drift, breach: Breach, tolerance_s: float) -> bool:
    """Whether the rate behind a forecast exceeds its error, or is so low that its error never reaches the tolerance."""
    rate_ppm = drift.raw_frequency_ppm if breach.free_running else drift.frequency_ppm
    if drift.frequency_ppm is None or rate_ppm is None:
        return False
    most_s = (abs(rate_ppm) + drift.skew_ppm) * 1e-6 * FORECAST_LIMIT_S
    return abs(rate_ppm) > drift.skew_ppm or (breach.central_s is None and most_s <= tolerance_s)


def _drift(drift: Drift) -> str:
    if drift.frequency_ppm is None:
        return f"not known yet ({plural(drift.samples, 'sample')})"
    verb = "loses" if drift.frequency_ppm > 0 else "gains"
    error_ppm = float(f"{drift.skew_ppm:.2g}")  # written without an exponent
    per_day = format_duration(drift.frequency_ppm * 1e-6 * DAY_S)
    fit = f"{drift.frequency_ppm:+.3f} ppm, fit error {error_ppm:g} ppm over {format_duration(drift.span_s)}"
    fit += f", {plural(drift.samples, 'sample')}"
    most_ppm = abs(drift.frequency_ppm) + drift.skew_ppm
    if abs(drift.frequency_ppm) > drift.skew_ppm:
        return f"with its present correction the clock {verb} {per_day} per day ({fit})"
    if most_ppm > MAX_DRIFT_PPM:
        return f"not known yet ({fit})"
    most = format_duration(most_ppm * 1e-6 * DAY_S, rounding="up")
    return f"with its present correction the clock gains or loses at most {most} per day ({fit})"


def _forecast(breach: Breach, tolerance: str, age_s: float, *, is_known: bool) -> str:
    certain = "no guarantee"
    if breach.guaranteed_s:
        certain = f"guaranteed within {tolerance} for {format_duration(breach.guaranteed_s, rounding='down')}"
    if not is_known:
        return f"none yet, because the drift is not known ({certain})"
    premise = "if synchronisation stopped now, " if breach.free_running else ""
    early_s = breach.pessimistic_s
    # past forecasts prove the 95 % limit (R9)
    limits = [] if early_s is None else [f"95 %: not within {format_duration(early_s, rounding='down')}"]
    limits += [certain, *([] if breach.calibrated else ["forecast not yet verified"])]
    if breach.central_s is not None:
        text = f"{premise}expected to exceed {tolerance} in {format_duration(breach.central_s)}"
    else:
        limit = format_duration(max(0.0, FORECAST_LIMIT_S - age_s))
        text = f"{premise}expected to stay within {tolerance} for {limit}"
    return f"{text} ({'; '.join(limits)})"


def _agent(status: AgentStatus) -> Iterator[tuple[str, str]]:
    agent, health = status.agent, status.record.health or Health()
    process = ""
    if status.agent_runs is False:
        process = ", not running now"
    elif agent.pid is not None and status.agent_up_s is not None:
        process = f", pid {agent.pid}, running for {_age(status.agent_up_s)}"
    polls = f"polls servers every {format_duration(agent.network_s)}, pools every {format_duration(agent.pool_s)}"
    schedule = f"local audits every {format_duration(agent.local_s)}, {polls}"
    yield "agent", f"ntpaudit {status.record.version}{process}; {schedule}"
    if status.wait is not None and status.wait.poll_s > -ANSWERS_WITHIN_S:
        yield "next poll", _next_poll(status.wait)
    yield "delivery", _delivery(health, agent.delivers, is_dated=status.record.utc_ns is not None)
    if health.missed:
        yield ("missed", f"{plural(health.missed, 'scheduled audit')} (host busy or suspended)")
    if health.store:
        yield "store", health.store


def _next_poll(wait: Wait) -> str:
    """Say when servers are polled next, and when they are queried if all of them wait longer (P9)."""
    poll = f"within {_age(wait.poll_s)} from now" if wait.poll_s > 0 else "now"
    if wait.query_s is None or wait.query_s <= wait.poll_s:
        return poll
    return (
        f"no server is queried for {_age(wait.query_s)} from now, because none gave a usable reply last time "
        "(`sudo ntpaudit check --force` queries them now)"
    )


_UNDATED = (
    ": the true time is not known; sent when a server replies, or after 5 min with the host's own time "
    "unless that is certainly wrong"
)
_IDLE = {True: "up to date", False: "none: no database is configured (influxdb.url)", None: "no record is waiting"}


def _delivery(health: Health, delivers: bool | None, *, is_dated: bool) -> str:
    text = _IDLE[delivers]
    if health.backlog:
        oldest = "" if health.oldest_s is None else f", the oldest for {_age(health.oldest_s)}"
        waits = f"{plural(health.backlog, 'record')} waiting{oldest}{'' if is_dated else _UNDATED}"
        text = f"{text}; {waits}" if delivers is False else waits
    if health.failures:
        failed = plural(health.failures, "attempt")
        text += f"; {failed} failed since the last success: {health.failure or 'reason unknown'}"
    if health.set_aside:
        text += f"; {plural(health.set_aside, 'dead letter')}: ntpaudit history dead-letters list"
    return text


def _age(seconds: float | None) -> str:
    return format_duration(max(1.0, round(seconds or 0.0)))


def _second(time_ns: int) -> str:
    return format_utc(time_ns)[:19].replace("T", " ")
