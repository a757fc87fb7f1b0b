"""Whether the agent's last record still describes the clock: its age, boot and machine."""

from collections.abc import Iterable
from typing import NamedTuple

from ntpaudit.core.ntp.rate_limit import Instant, ServerState, earliest_query_s
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.core.units import NS_PER_S, format_duration

LATE_INTERVALS = 3  # a record is stale after this many local intervals
LATE_S = 10.0  # and this, for a busy machine


class RunningAgent(NamedTuple):
    """What an agent stores about itself when it starts: its intervals in seconds, its process and its start.

    `next_poll_boottime_ns` is the uptime of its next poll at the latest.
    `delivers`: a database is configured; None if unknown.
    """

    local_s: float = 60.0
    network_s: float = 300.0
    pool_s: float = 3600.0
    pid: int | None = None
    version: str | None = None
    boot_id: str | None = None
    started_boottime_ns: int | None = None
    next_poll_boottime_ns: int | None = None
    delivers: bool | None = None

    @property
    def stale_after_s(self) -> float:
        """The greatest age at which the last record describes the clock, in seconds."""
        return LATE_INTERVALS * self.local_s + LATE_S


class HostNow(NamedTuple):
    """The host that reads a record: the moment, its machine id, whether the agent of the state runs (None: unknown)."""

    moment: Instant
    machine_id: str | None = None
    agent_runs: bool | None = None


class Wait(NamedTuple):
    """How long an agent has run, and the seconds until its next poll; negative if that is overdue.

    `query_s`: the seconds until one of its servers is queried again, if all of them wait after failed queries.
    """

    up_s: float
    poll_s: float
    query_s: float | None = None


class AgentStatus(NamedTuple):
    """The agent's last record, `age_s` old; it is valid up to `stale_after_s`.

    - `agent_up_s`: how long the agent had run when it made the record; None if another agent made it.
    - `last_network_record`: that of the last network audit.
    - `doubt`: why the record does not describe this clock, whatever its age.
    - `wait`: what a running agent waits for; `agent_runs` is as in `HostNow`.
    """

    record: Record
    age_s: float
    stale_after_s: float
    agent: RunningAgent
    agent_up_s: float | None
    last_network_record: Record | None
    last_network_age_s: float | None
    doubt: str | None = None
    wait: Wait | None = None
    agent_runs: bool | None = None

    @property
    def is_stale(self) -> bool:
        """Whether the record does not describe the present clock: it is too old, or of another clock."""
        return self.doubt is not None or not self.age_s <= self.stale_after_s

    @property
    def severity(self) -> Severity:
        """The severity now: unknown if the record is stale."""
        return Severity.UNKNOWN if self.is_stale else self.record.severity


def agent_status(
    record: Record,
    last_network_record: Record | None,
    agent: RunningAgent,
    here: HostNow,
    stale_after_s: float | None = None,
    servers: Iterable[ServerState] = (),
) -> AgentStatus:
    """Return the status of a record at a moment. `stale_after_s` overrides the limit from the agent's interval.

    `servers` are the states of those in the last network record.
    """
    age_s, up_ns = _age_s(record, agent, here), -1
    if agent.started_boottime_ns is not None and agent.boot_id == record.host.boot_id:
        up_ns = record.boottime_ns - agent.started_boottime_ns
    return AgentStatus(
        record=record,
        age_s=age_s,
        stale_after_s=agent.stale_after_s if stale_after_s is None else stale_after_s,
        agent=agent,
        agent_up_s=up_ns / NS_PER_S if up_ns >= 0 else None,
        last_network_record=last_network_record,
        last_network_age_s=None if last_network_record is None else _age_s(last_network_record, agent, here),
        doubt=_doubt(record, _is_of_this_boot(record, agent, here), age_s, here.machine_id),
        wait=wait_of(agent, here, servers),
        agent_runs=here.agent_runs,
    )


def wait_of(agent: RunningAgent, here: HostNow, servers: Iterable[ServerState] = ()) -> Wait | None:
    """Return what a running agent waits for; None if none runs, or if unknown."""
    started_ns, poll_ns = agent.started_boottime_ns, agent.next_poll_boottime_ns
    if not here.agent_runs or started_ns is None or poll_ns is None:
        return None
    now_ns = here.moment.boottime_ns
    query_s = earliest_query_s(servers, here.moment)
    return Wait((now_ns - started_ns) / NS_PER_S, (poll_ns - now_ns) / NS_PER_S, query_s)


def _age_s(record: Record, agent: RunningAgent, here: HostNow) -> float:
    """Return the age of a record: by uptime within its boot, else by the host's clock, at least this boot's uptime."""
    if _is_of_this_boot(record, agent, here):
        return (here.moment.boottime_ns - record.boottime_ns) / NS_PER_S
    return here.moment.since_s(Instant(record.host.boot_id, record.boottime_ns, record.host_ns))


def _is_of_this_boot(record: Record, agent: RunningAgent, here: HostNow) -> bool | None:
    """Whether a record was made in this boot; None if unknown.

    A running agent is the better witness: a container may show a sandboxed service the host's boot id, and all other
    processes one of their own. Without a boot id only records since the agent's start are certainly of this boot.
    """
    boot_id, started_ns = record.host.boot_id, agent.started_boottime_ns
    is_of_agent = here.agent_runs and started_ns is not None and agent.boot_id == boot_id
    if is_of_agent and (boot_id is not None or record.boottime_ns >= (started_ns or 0)):
        return True
    if boot_id is None or here.moment.boot_id is None:
        return None
    return boot_id == here.moment.boot_id


def _doubt(record: Record, is_of_this_boot: bool | None, age_s: float, machine_id: str | None) -> str | None:
    other_id = record.host.machine_id
    if machine_id is not None and other_id is not None and machine_id != other_id:
        return f"the last record is of another machine (id {other_id[:8]}..., this one is {machine_id[:8]}...)"
    if is_of_this_boot is None:
        return "it is unknown whether the last record is of this boot: there is no boot id"
    if not is_of_this_boot:
        return "the last record is of another boot"
    if age_s < 0:
        return f"the last record is {format_duration(-age_s)} ahead of this host's uptime"
    return None
