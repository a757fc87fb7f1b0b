"""The state of an agent: one value, which can be stored, printed and replayed."""

from typing import NamedTuple

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock_state import ClockState, restored, with_poll_interval
from ntpaudit.core.evaluation import AuditSettings
from ntpaudit.core.events import Event
from ntpaudit.core.holdover import utc_ns
from ntpaudit.core.ntp.time import PIVOT_UNIX_S
from ntpaudit.core.observation import HostContext
from ntpaudit.core.record import HostIdentity, Record
from ntpaudit.core.schedule import Intervals, Polls, Schedule, first_schedule
from ntpaudit.core.units import NS_PER_S


class AgentSettings(NamedTuple):
    """The settings of an agent.

    - `has_servers`, `has_pools`: what it polls, by the last poll. `is_loopback`: all servers are on this host.
    - `is_single`: the process ends after one audit, so only a stored state reaches the next one.
    """

    judging: AuditSettings
    intervals: Intervals
    has_servers: bool = True
    has_pools: bool = False
    is_loopback: bool = False
    is_single: bool = False

    def polling(self, *, has_servers: bool, has_pools: bool, is_loopback: bool = False) -> "AgentSettings":
        """Return the settings for these sources; the interval by which audits are judged is that of the schedule."""
        interval_s = self.intervals.network_s if has_servers else self.intervals.pool_s
        judging = self.judging._replace(interval_s=interval_s)
        return self._replace(judging=judging, has_servers=has_servers, has_pools=has_pools, is_loopback=is_loopback)


class AgentState(NamedTuple):
    """The whole state of an agent. Only `clock` survives the process: it is stored with each audit.

    - `context`: the host's identity and time daemons, as read at the uptime `context_ns`.
    - `earlier_ns`: the `past_ns` of when this run started.
    - `record`: the last record of this run; `unsent` are events that wait for the first one.
    - `has_unstamped`: something may be stored without its true time.
    - `pruned_ns`: the uptime of the last pruning.
    """

    clock: ClockState
    settings: AgentSettings
    context: HostContext
    context_ns: int
    earlier_ns: int = 0
    schedule: Schedule = Schedule(None, None, 0)
    polls: Polls = Polls()
    record: Record | None = None
    unsent: tuple[Event, ...] = ()
    has_unstamped: bool = True
    pruned_ns: int | None = None

    @property
    def due_ns(self) -> int:
        """The uptime at which something is due next. Only one poll runs at a time."""
        return self.schedule.local_ns if self.polls.is_running else self.schedule.next_ns

    @property
    def past_ns(self) -> int:
        """The later of the last measured time and the pivot, a year before this release: both are certainly past."""
        return max(self.clock.measured_utc_ns or 0, PIVOT_UNIX_S * NS_PER_S)

    @property
    def identity(self) -> HostIdentity:
        """The host's identity, as in records."""
        host, labels = self.context.host, self.settings.judging.labels
        return HostIdentity(host.name, labels.site, labels.env, host.machine_id, host.boot_id)

    def utc_ns(self, now: ClockReading) -> int | None:
        """Return the true time at a moment of this boot; None if unknown."""
        return utc_ns(self.clock, now)

    def with_settings(self, settings: AgentSettings, now_ns: int) -> "AgentState":
        """Return the state with settings that apply from now on."""
        clock = with_poll_interval(self.clock, now_ns, settings.judging.interval_s)
        return self._replace(settings=settings, clock=clock)

    def scheduled(self, now_ns: int, rand: float) -> "AgentState":
        """Return the state with the first schedule for its settings."""
        schedule = first_schedule(
            now_ns,
            self.settings.intervals,
            has_servers=self.settings.has_servers,
            has_pools=self.settings.has_pools,
            has_estimate=self.clock.agreement is not None,
            rand=rand,
        )
        return self._replace(schedule=schedule)

    def polling_sooner(self, now_ns: int, wait_s: float = 0.0) -> "AgentState":
        """Return the state with a poll after `wait_s`, or as soon as the rate limits allow."""
        is_loopback = self.settings.is_loopback
        return self._replace(schedule=self.schedule.polling_sooner(self.polls, now_ns, wait_s, is_loopback=is_loopback))


def first_state(
    settings: AgentSettings, context: HostContext, now: ClockReading, stored: ClockState | None
) -> AgentState:
    """Return the state of an agent before its first event; `stored` is that of the last run."""
    state = AgentState(restored(stored, context.host.boot_id, now), settings, context, now.boottime_ns)
    return state._replace(earlier_ns=state.past_ns)
