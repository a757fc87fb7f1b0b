"""What the agent asks its shell to do. `handle` returns actions in the order in which they are to be performed."""

from typing import NamedTuple

from ntpaudit.core.clock_state import ClockState
from ntpaudit.core.events import Event
from ntpaudit.core.observation import HostContext, Observation
from ntpaudit.core.record import HostIdentity, Record
from ntpaudit.core.units import NS_PER_S

UNSTAMPED_WAIT_NS = 300 * NS_PER_S  # an outbox entry waits this long for a true time, then gets the host's own time


class StartPoll(NamedTuple):
    """Poll the servers, and the pools `with_pools`; `Observed` follows when the poll has ended."""

    with_pools: bool


class ObserveHost(NamedTuple):
    """Read clocks and kernel; the host too if it is not `known` or a daemon has ended. `Observed` follows at once."""

    known: HostContext | None


class StoreAudit(NamedTuple):
    """Store an audit with its events and the state `clock`, in one transaction, and enqueue its lines."""

    observation: Observation
    record: Record
    events: tuple[Event, ...]
    clock: ClockState


class StoreEvents(NamedTuple):
    """Store events between two audits and the state `clock`, and enqueue their lines. `last`: the record before."""

    host: HostIdentity
    events: tuple[Event, ...]
    last: Record | None
    clock: ClockState


class StampHistory(NamedTuple):
    """Stamp what is stored without a true time: the outbox entries, and the audits and events if `boot_ns` is given.

    - `boot_id`, `boottime_ns`: this boot, and its uptime now.
    - `utc_ns`: the true time now; None if unknown.
    - `past_ns`: a time that is certainly past; `earlier_ns` was so already when this run started.
    - `boot_ns`: the true time of the boot.
    """

    boot_id: str | None
    boottime_ns: int
    utc_ns: int | None
    past_ns: int
    earlier_ns: int
    boot_ns: int | None

    def is_own(self, boot_id: str | None) -> bool:
        """Whether an entry was written in this boot; an entry of an unknown boot never was."""
        return boot_id is not None and boot_id == self.boot_id

    def stamp_ns(self, boot_id: str | None, boottime_ns: int, host_ns: int) -> int | None:
        """Return the stamp of an entry: its true time, or after `UNSTAMPED_WAIT_NS` the host's own; None for neither.

        A host time before a time that is certainly past is wrong. Then the entry waits for a measurement; if it was
        written in another boot, there will be none.
        """
        is_own, ago_ns = self.is_own(boot_id), self.boottime_ns - boottime_ns
        if is_own and self.utc_ns is not None:
            return self.utc_ns - ago_ns
        is_credible = host_ns > (self.past_ns if is_own else self.earlier_ns)
        return host_ns if is_credible and not (is_own and ago_ns < UNSTAMPED_WAIT_NS) else None


class CloseAccounts(NamedTuple):
    """Close the hours and days that are over, in bounded pieces, and enqueue their points. `utc_ns`: the true time."""

    host: HostIdentity
    utc_ns: int


class Emit(NamedTuple):
    """Send a record and events to every output."""

    record: Record
    events: tuple[Event, ...]


class WakeDelivery(NamedTuple):
    """Deliver what waits, without waiting for the next retry."""


class Prune(NamedTuple):
    """Delete what retention no longer keeps; by age only if `utc_ns`, the true time, is given."""

    utc_ns: int | None


class SaveStatus(NamedTuple):
    """Save what `ntpaudit status` shows of the running agent."""

    next_poll_ns: int | None


class Log(NamedTuple):
    """Log a message of level info."""

    message: str


Action = (
    StartPoll
    | ObserveHost
    | StoreAudit
    | StoreEvents
    | StampHistory
    | CloseAccounts
    | Emit
    | WakeDelivery
    | Prune
    | SaveStatus
    | Log
)
