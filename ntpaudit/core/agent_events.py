"""What happens to an agent, each with the readings and the random number that the decision needs."""

from typing import NamedTuple

from ntpaudit.core.agent_state import AgentSettings
from ntpaudit.core.clock.database_clock import DatabaseClock
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.observation import KernelState, Observation, Unavailable
from ntpaudit.core.record import AuditKind, Health


class ShellReport(NamedTuple):
    """What store and delivery report when an audit is judged.

    - `health`: without `missed`, `oldest_s` and `local_s`, which follow from the state.
    - `oldest_ns`: the stamp of the oldest record that waits for delivery; `dropped`: how many were ever dropped.
    - `database`: the database's clock by its last reply.
    - `is_stored`: the state is stored in a file.
    - `closed_s`: the true time up to which hours are closed; None before the first record with a true time.
    """

    health: Health = Health()
    oldest_ns: int | None = None
    dropped: int = 0
    database: DatabaseClock | None = None
    is_stored: bool = True
    closed_s: int | None = None


class Started(NamedTuple):
    """The agent starts, after `Recovered`. `rand` is here and below a random number from 0 to 1."""

    reading: ClockReading
    kernel: KernelState | Unavailable
    rand: float


class Recovered(NamedTuple):
    """The last run stored an observation and ended before it was judged."""

    observation: Observation
    kind: AuditKind
    report: ShellReport = ShellReport()


class ClockSet(NamedTuple):
    """The clock may have been set, or the host suspended."""

    reading: ClockReading
    kernel: KernelState | Unavailable


class Observed(NamedTuple):
    """A poll has ended, or the host was read for a local audit."""

    observation: Observation
    kind: AuditKind
    report: ShellReport = ShellReport()


class TimePassed(NamedTuple):
    """Something may be due at this uptime."""

    now_ns: int
    rand: float


class AuditRequested(NamedTuple):
    """The operator requests an audit now."""

    now_ns: int


class Reconfigured(NamedTuple):
    """Other settings apply from this uptime on."""

    settings: AgentSettings
    now_ns: int
    rand: float


AgentEvent = Started | Recovered | ClockSet | Observed | TimePassed | AuditRequested | Reconfigured
