"""What the agent's last record is still worth: how old it is, and whether it may be believed."""

from typing import Any, NamedTuple

from ntpaudit.core.ntptime import NS_PER_S
from ntpaudit.core.policy import Severity
from ntpaudit.core.politeness import Moment
from ntpaudit.core.record import Record

LATE_INTERVALS = 3
"""An agent that has kept no record for so many of its local intervals is late ..."""

LATE_S = 10.0
"""... and so much more, for a busy machine."""


class AgentState(NamedTuple):
    """What an agent says of itself when it starts: its intervals in seconds, its process, and since when it runs."""

    local_s: float = 60.0
    network_s: float = 300.0
    pool_s: float = 3600.0
    pid: int | None = None
    version: str | None = None
    boot_id: str | None = None
    started_boottime_ns: int | None = None

    @property
    def stale_after_s(self) -> float:
        """How old the last record may be before nothing can be said of the clock any more."""
        return LATE_INTERVALS * self.local_s + LATE_S


class Standing(NamedTuple):
    """The agent's last record, so long after: `age_s` of at most `stale_after_s` can be believed.

    `asked` is the last record of an audit that asked servers, `asked_age_s` old; both None where there is none.
    """

    record: Record
    age_s: float
    stale_after_s: float
    agent: AgentState
    agent_up_s: float | None
    asked: Record | None
    asked_age_s: float | None

    @property
    def is_stale(self) -> bool:
        """The record is too old to say anything of the clock as it is now."""
        return not self.age_s <= self.stale_after_s

    @property
    def severity(self) -> Severity:
        """How bad it is: what cannot be known any more is unknown, whatever it was."""
        return Severity.UNKNOWN if self.is_stale else self.record.severity


def judge_standing(
    record: Record, asked: Record | None, agent: AgentState, now: Moment, stale_after_s: float | None = None
) -> Standing:
    """Say what a record is worth at a moment. `stale_after_s` overrides the age that the agent's interval allows."""
    started = agent.started_boottime_ns if agent.boot_id and agent.boot_id == now.boot_id else None
    return Standing(
        record=record,
        age_s=age_s(record, now),
        stale_after_s=agent.stale_after_s if stale_after_s is None else stale_after_s,
        agent=agent,
        agent_up_s=None if started is None else (now.boottime_ns - started) / NS_PER_S,
        asked=asked,
        asked_age_s=None if asked is None else age_s(asked, now),
    )


def age_s(record: Record, now: Moment) -> float:
    """Return how old a record is: by uptime within its boot, which a stepped clock does not fool.

    Of another boot it is by the host's clock, and never less than this boot has lasted.
    """
    return now.since_s(Moment(record.host.boot_id, record.boottime_ns, record.host_ns))


def read_agent_state(data: Any) -> AgentState:
    """Read what an agent said of itself; what makes no sense takes its default."""
    entries = data if isinstance(data, dict) else {}
    default = AgentState()
    return AgentState(
        local_s=_span(entries.get("local_s"), default.local_s),
        network_s=_span(entries.get("network_s"), default.network_s),
        pool_s=_span(entries.get("pool_s"), default.pool_s),
        pid=_of(int, entries.get("pid")),
        version=_of(str, entries.get("version")),
        boot_id=_of(str, entries.get("boot_id")),
        started_boottime_ns=_of(int, entries.get("started_boottime_ns")),
    )


def _span(value: Any, default: float) -> float:
    """Return a positive number of seconds."""
    return float(value) if type(value) in (int, float) and 0 < value < 1e9 else default


def _of(kind: type[Any], value: Any) -> Any:
    """Return a value of that kind, else None."""
    return value if type(value) is kind else None
