"""The scenario of a simulated fleet: which host has which fault, chosen by a seed, and the expected findings."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ntpaudit.core.checks.daemons import DAEMON_DEAD, TZ_OR_RTC_FAULT, UNSYNCED
from ntpaudit.core.checks.offset import OFFSET_OUT
from ntpaudit.core.checks.sources import SOURCE_QUORUM, UNREACHABLE_SOURCES
from ntpaudit.core.checks.steps import STEP_BACK
from ntpaudit.core.fleet.shifts import SLOW_WALK
from ntpaudit.core.policy import Severity
from ntpaudit.core.schedule import Intervals
from ntpaudit.core.units import NS_PER_S

MIN_HOSTS = 3
MIN_HOURS = 6.0  # a shorter history would begin in the middle of the faults
SCALED_HOSTS = 24  # a fleet of this size has every fault once; a smaller one has only the first faults
SHARE = 0.005  # the share of hosts with each fault in a much larger fleet
SITE_HOSTS = 200  # hosts per site in a large fleet
ENV = "demo"

_CITIES = ("ams", "fra", "sgp", "iad", "nrt", "gru", "jnb", "syd", "dub", "del", "sfo", "scl")
_KINDS = ("web", "db", "app", "web", "mail", "db", "log", "app")
_DAEMONS = ("chronyd",) * 7 + ("ntpd",) * 2 + ("systemd-timesyncd",)

MOVED_SITE, FALSETICKER_SITE, WALKED_SITE = "sgp", "fra", "ams"


class SetClock(NamedTuple):
    """The clock is set, forward if positive."""

    size_s: float


class Suspend(NamedTuple):
    """The host is suspended for `for_s`; its hardware clock continues."""

    for_s: float


class Reboot(NamedTuple):
    """The host reboots, which takes `off_ns`. `clock_ns` is what its clock shows then, None if it continues."""

    off_ns: int = 40 * NS_PER_S
    clock_ns: int | None = None


class StopDaemon(NamedTuple):
    """The time daemon ends and is not restarted."""


class StartDaemon(NamedTuple):
    """A time daemon starts and steps the clock by `size_s`."""

    size_s: float


class BlockNtp(NamedTuple):
    """A firewall rejects NTP of the host and its time daemon from now on."""


class ServerFault(NamedTuple):
    """The server of the time daemon, which the agent does not query, is wrong from now on.

    It jumps by `jump_s`, ahead if positive, and drifts by `walk_ppm` until the drift has added `most_s`.
    """

    jump_s: float = 0.0
    walk_ppm: float = 0.0
    most_s: float = 0.0


class StopAgent(NamedTuple):
    """The agent ends and is not restarted."""


What = SetClock | Suspend | Reboot | StopDaemon | StartDaemon | BlockNtp | ServerFault | StopAgent


class ScenarioEvent(NamedTuple):
    """An event, and how long before the end of the history it happens."""

    ago_s: float
    what: What


class Fault(NamedTuple):
    """A fault of a host, and its result at the end: the severity and the findings that count for it.

    `home` is the site of the first host with it. `free_ppm` is the rate of an oscillator without a time daemon, None
    with one. `daemon` None is any.
    """

    name: str
    severity: Severity
    findings: frozenset[str] = frozenset()
    home: str = ""
    events: tuple[ScenarioEvent, ...] = ()
    daemon: str | None = None
    free_ppm: float | None = None
    sources: int | None = None
    kind: str | None = None


_H = 3600.0
HEALTHY = Fault("healthy", Severity.OK)

FAULTS = (
    Fault("undisciplined", Severity.CRITICAL, frozenset({OFFSET_OUT.id, UNSYNCED.id}), "ams", free_ppm=41.0),
    Fault(
        "time-zone",  # somebody set the local time as if it were UTC, and ntpd gave up, as it does beyond 1000 s
        Severity.CRITICAL,
        frozenset({OFFSET_OUT.id, TZ_OR_RTC_FAULT.id, DAEMON_DEAD.id}),
        "fra",
        (ScenarioEvent(5.2 * _H, SetClock(3600.0)), ScenarioEvent(5.2 * _H, StopDaemon())),
        daemon="ntpd",
    ),
    Fault("silent", Severity.UNKNOWN, frozenset(), "sgp", (ScenarioEvent(2 * _H, StopAgent()),)),
    Fault(
        "repaired-step",
        Severity.OK,
        frozenset(),
        "ams",
        (
            ScenarioEvent(4 * _H, StopDaemon()),
            ScenarioEvent(3.99 * _H, SetClock(-2.5)),
            ScenarioEvent(3.6 * _H, StartDaemon(2.5)),
        ),
    ),
    Fault(
        "recent-step", Severity.WARNING, frozenset({STEP_BACK.id}), "fra", (ScenarioEvent(0.35 * _H, SetClock(-0.12)),)
    ),
    Fault(
        "cut-off",
        Severity.UNKNOWN,
        frozenset({UNREACHABLE_SOURCES.id, UNSYNCED.id}),
        "fra",
        (ScenarioEvent(3 * _H, BlockNtp()), ScenarioEvent(2.99 * _H, Reboot())),
        daemon="chronyd",
    ),
    Fault(
        SLOW_WALK.id, Severity.OK, frozenset(), WALKED_SITE, (ScenarioEvent(1.75 * _H, ServerFault(0.0, 12.0, 0.09)),)
    ),
    Fault("suspended", Severity.OK, frozenset(), "sgp", (ScenarioEvent(5 * _H, Suspend(3 * _H)),), kind="laptop"),
    Fault("one-source", Severity.WARNING, frozenset({SOURCE_QUORUM.id}), "ams", sources=1),
)

SITE_MOVE = ScenarioEvent(0.6 * _H, ServerFault(0.06))  # of the server that the daemons of a whole site follow
FALSETICKER_ERROR_S = 37.0  # the error of a GPS receiver that serves TAI instead of UTC
FALSETICKER_AGO_S = 5.5 * _H


class Source(NamedTuple):
    """A server that the agent queries: its error, positive is ahead, and what it reports of itself.

    From `fault_ns` on its error is larger by `fault_s`. `number` is unique.
    """

    name: str
    number: int
    error_s: float
    root_delay_s: float
    root_dispersion_s: float
    stratum: int = 2
    reference_id: bytes = b"GPS\0"
    network_s: float = 0.001
    fault_s: float = 0.0
    fault_ns: int = 0

    def error_ns(self, utc_ns: int) -> int:
        """Return how far the server's clock is ahead at a true time."""
        fault_s = self.fault_s if self.fault_s and utc_ns >= self.fault_ns else 0.0
        return round((self.error_s + fault_s) * NS_PER_S)


CORRECT_SOURCES = (
    Source("ntp1.example.net", 1, 0.0002, 0.0008, 0.0006, reference_id=bytes((192, 0, 2, 11))),
    Source("ntp2.example.net", 2, -0.0003, 0.0014, 0.0008, reference_id=bytes((192, 0, 2, 12))),
    Source("ntp3.example.net", 3, 0.0004, 0.0022, 0.0009, reference_id=bytes((198, 51, 100, 13))),
    Source("ntp4.example.net", 4, -0.0002, 0.0030, 0.0012, reference_id=bytes((203, 0, 113, 14))),
)
"""The error of each is below its root distance, as for any correct server."""


class HostSpec(NamedTuple):
    """One host of the scenario. `behind_s` is how far its clock is behind when the history begins."""

    name: str
    site: str
    fault: Fault
    daemon: str | None
    oscillator_ppm: float
    behind_s: float
    sources: tuple[Source, ...]
    events: tuple[ScenarioEvent, ...]


class Scenario(NamedTuple):
    """A fleet with its events. The hosts depend on the seed and their number, not on the time."""

    seed: int
    begin_ns: int
    end_ns: int
    intervals: Intervals
    hosts: tuple[HostSpec, ...]
    sources: tuple[Source, ...]


def build_scenario(hosts: int, hours: float, seed: int, end_ns: int) -> Scenario:
    """Return the scenario of a fleet. ValueError for fewer than MIN_HOSTS or MIN_HOURS."""
    if hosts < MIN_HOSTS or not hours >= MIN_HOURS:
        raise ValueError(f"a scenario needs {MIN_HOSTS} hosts and {MIN_HOURS:g} h")
    begin_ns = end_ns - round(hours * _H * NS_PER_S)
    name, fault_ns = f"gps.{FALSETICKER_SITE}.example.net", end_ns - round(FALSETICKER_AGO_S * NS_PER_S)
    falseticker = Source(name, 5, 0.0, 0.0, 0.0001, stratum=1, fault_s=FALSETICKER_ERROR_S, fault_ns=fault_ns)
    count = max(3, hosts // SITE_HOSTS)
    turns = range(1, -(-count // len(_CITIES)) + 1)
    sites = [f"{city}{turn if turn > 1 else ''}" for turn in turns for city in _CITIES][:count]
    places = [(sites[number % len(sites)], number // len(sites)) for number in range(hosts)]
    faults = _assign(places, random.Random(f"faults {seed} {hosts}"))
    counts: Counter[str] = Counter()
    specs = []
    for site, number in places:
        fault = faults.get((site, number), HEALTHY)
        kind = f"{site}-{fault.kind or _KINDS[number % len(_KINDS)]}"
        counts[kind] += 1
        specs.append(_host_spec(f"{kind}{counts[kind]}", site, fault, hours, seed, falseticker))
    return Scenario(
        seed, begin_ns, end_ns, Intervals(300.0, 3600.0, 60.0), tuple(specs), (*CORRECT_SOURCES, falseticker)
    )


def _assign(places: Sequence[tuple[str, int]], rand: random.Random) -> dict[tuple[str, int], Fault]:
    """Assign every fault to its share of the hosts, first at its home, then at sites with few faults."""
    free: dict[str, list[int]] = {}
    for site, number in places:
        free.setdefault(site, []).append(number)
    for numbers in free.values():
        rand.shuffle(numbers)
    assigned = {}
    used = len(FAULTS) if len(places) >= SCALED_HOSTS else max(1, len(FAULTS) * len(places) // SCALED_HOSTS)
    for fault in FAULTS[:used]:
        is_rare = fault.name == SLOW_WALK.id  # an attack on few hosts of one site
        for turn in range(max(1, round(len(places) * (SHARE / 10 if is_rare else SHARE)))):
            most = max(map(len, free.values()))
            others = [site for site, numbers in free.items() if 2 * len(numbers) > most]
            site = fault.home if turn == 0 or is_rare else rand.choice(others)
            assigned[site, free[site].pop()] = fault
    return assigned


def _host_spec(name: str, site: str, fault: Fault, hours: float, seed: int, falseticker: Source) -> HostSpec:
    rand = random.Random(f"part {seed} {name}")
    oscillator_ppm, daemon = rand.uniform(-30.0, 30.0), rand.choice(_DAEMONS)
    behind_s = rand.gauss(0.0, 0.0003)
    if fault.free_ppm is not None:  # beyond its tolerance of 1 s after half of the history, or earlier
        oscillator_ppm, daemon = fault.free_ppm, ""
        behind_s = max(behind_s, 1.0 - fault.free_ppm * 1e-6 * hours * _H / 2)
    sources = (*CORRECT_SOURCES, falseticker) if site == FALSETICKER_SITE else CORRECT_SOURCES
    events = (*fault.events, SITE_MOVE) if site == MOVED_SITE else fault.events
    events = tuple(sorted(events, key=lambda event: -event.ago_s))
    daemon = fault.daemon or daemon
    return HostSpec(name, site, fault, daemon or None, oscillator_ppm, behind_s, sources[: fault.sources], events)
