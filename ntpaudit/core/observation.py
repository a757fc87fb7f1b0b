"""Everything seen at one moment, before anything is concluded from it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.ntp.measurement import Measurement

Status = Literal["agreeing", "falseticker", "distant", "rejected", "unreachable", "skipped"]
STATUSES: tuple[Status, ...] = ("agreeing", "falseticker", "distant", "rejected", "unreachable", "skipped")
"""Every source ends with exactly one of these; their order is the number a database gets."""


class Failure(NamedTuple):
    """Why a source gave no measurement: `rejected` it answered unusably, `unreachable` it did not answer,
    `skipped` it was not asked. `detail` is a few words for a human, beside the reason code.
    """

    status: Literal["rejected", "unreachable", "skipped"]
    reason: str
    detail: str = ""


class SourceObservation(NamedTuple):
    """What came of asking one source.

    `discarded` counts, by reason code, the datagrams that were not its answer (forged, stray, duplicate).
    `address` is None where the name could not be resolved; `is_own` where it is one of this host's own.
    """

    name: str
    address: str | None
    port: int
    outcome: tuple[Measurement, ...] | Failure
    discarded: Mapping[str, int] = MappingProxyType({})
    is_own: bool = False


STA_UNSYNC = 0x40
TIME_ERROR = 5
PHASE_LIMIT_S = 16.0
"""Where the kernel gives its clock up: NTP_PHASE_LIMIT of linux/timex.h (A4)."""


class KernelState(NamedTuple):
    """What the kernel believes about its clock: adjtimex, read only (A1, A2).

    `state` is the return value (TIME_OK 0 … TIME_ERROR 5), `status` the STA_ bits (A3), spans in seconds.
    `frequency_ppm`
    is the whole correction applied, tick included; positive makes the clock run faster. `tai_s` 0 means unknown (A5).
    """

    state: int
    status: int
    offset_s: float
    frequency_ppm: float
    maxerror_s: float
    esterror_s: float
    tai_s: int

    @property
    def is_synchronised(self) -> bool:
        """The kernel holds its clock for synchronised: STA_UNSYNC is clear and the error bound below 16 s (A3, A4)."""
        unsync = self.status & STA_UNSYNC or self.state == TIME_ERROR
        return not unsync and self.maxerror_s < PHASE_LIMIT_S


class Unavailable(NamedTuple):
    """A question to the system that it would not answer, and why."""

    reason: str


class Daemon(NamedTuple):
    """A program in sight that sets clocks, or has the name of one that does. `pid` 0 is the kernel itself.

    `disciplines`: it keeps the system clock right. False where it cannot, or where its arguments say it leaves the
    clock alone; None where neither can be seen. `reason` says why it is not True.
    """

    name: str
    pid: int
    disciplines: bool | None = True
    reason: str | None = None


class HiddenDaemons(NamedTuple):
    """Why there may be time daemons that cannot be seen from here, and those that can."""

    reason: str
    seen: tuple[Daemon, ...] = ()


class HostFacts(NamedTuple):
    """Who this host is and what else bears on its clock.

    `zone_offset_s` is local time minus UTC; `rtc_local` None means unknown; `container` names what confines us, if
    anything does.
    """

    name: str
    machine_id: str | None
    boot_id: str | None
    timezone: str | None
    zone_offset_s: int
    rtc_local: bool | None
    clocksource: str | None
    container: str | None


def host_label(name: str, machine_id: str | None) -> str:
    """Return the name of a host, never empty: without one its points would be those of every host that has none.

    Where the system gives no name, part of the machine id stands for it, and where there is no such id, `unnamed`.
    """
    if name.strip() and name != "(none)":  # as Linux calls a host before it has a name
        return name
    return f"machine-{machine_id[:12]}" if machine_id else "unnamed"


class Observation(NamedTuple):
    """What one audit saw. `taken` is the common instant that every interval is carried to (S1)."""

    host: HostFacts
    taken: ClockReading
    sources: tuple[SourceObservation, ...]
    kernel: KernelState | Unavailable
    daemons: tuple[Daemon, ...] | HiddenDaemons

    @property
    def kernel_ppm(self) -> float | None:
        """The correction that the kernel applies, tick included; None where the kernel cannot be read (A2)."""
        return None if isinstance(self.kernel, Unavailable) else self.kernel.frequency_ppm

    @property
    def known_daemons(self) -> tuple[Daemon, ...]:
        """The time daemons in sight."""
        return self.daemons.seen if isinstance(self.daemons, HiddenDaemons) else self.daemons

    @property
    def daemons_hidden(self) -> str | None:
        """Why there may be other time daemons; None where there are none."""
        return self.daemons.reason if isinstance(self.daemons, HiddenDaemons) else None
