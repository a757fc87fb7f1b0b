"""Section 6: alarms that nothing justifies, and how late what is wrong is noticed."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ntpaudit.core.schedule import Intervals
from tests.truth.oscillator import Oscillator
from tests.truth.paths import LAN, POOL, Path
from tests.truth.servers import ServerSpec
from tests.truth.statistics import Delays, Rate, Results, Share, total
from tests.truth.world import LEAP_AT_S, Fault, Simulation, World

HOURS_PER_DECADE = 10 * 365.25 * 24
HEALTHY_HOURS = 500.0

_COUNTED = ("medium", "high", "critical")
_WARM_UP_S = 12 * 3600.0
_WATCHED_S = 24 * 3600.0


class HostKind(NamedTuple):
    """A kind of host: the path to its servers, their claims, and how often daemon and agent ask them."""

    path: Path
    root_delay_s: float
    root_dispersion_s: float
    update_s: float
    intervals: Intervals


KINDS: Mapping[str, HostKind] = {
    "LAN": HostKind(LAN, 0.5e-3, 0.2e-3, 256.0, Intervals(300.0, 3600.0, 3600.0)),
    "pool": HostKind(POOL, 20e-3, 15e-3, 1024.0, Intervals(3600.0, 3600.0, 900.0)),
}
"""Of healthy hosts: local audits come more rarely than each minute, as by default, to save time."""

DEFAULT_LOCAL_S = 60.0


class Trouble(NamedTuple):
    """Something that goes wrong at one moment: a fault of the host, a server's behaviour, or the daemon's servers."""

    fault: Fault | None = None
    wrong: ServerSpec | None = None
    all_servers: bool = False
    daemon_only: bool = False
    is_leap: bool = False


def _server(behaviour: str, size_s: float) -> ServerSpec:
    return ServerSpec(LAN, behaviour, size_s)  # type: ignore[arg-type]


TROUBLES: Mapping[str, Trouble] = {
    "step of +1.2 s": Trouble(Fault(0, "step", 1.2)),
    "step of -1.2 s": Trouble(Fault(0, "step", -1.2)),
    "step of +200 ms": Trouble(Fault(0, "step", 0.2)),
    "step of -200 ms": Trouble(Fault(0, "step", -0.2)),
    "step of +20 ms": Trouble(Fault(0, "step", 0.02)),
    "step of -20 ms": Trouble(Fault(0, "step", -0.02)),
    "the daemon's servers walk away at 10 ppm": Trouble(wrong=_server("walk", 10e-6), daemon_only=True),
    "the daemon ends": Trouble(Fault(0, "dead-daemon")),
    "one server wrong by 60 ms": Trouble(wrong=_server("jump", 0.06)),
    "one server wrong by 500 ms": Trouble(wrong=_server("jump", 0.5)),
    "all servers move by 150 ms, the daemon follows": Trouble(wrong=_server("all-move", 0.15), all_servers=True),
    "no server replies": Trouble(Fault(0, "outage")),
    "VM pause of 60 s": Trouble(Fault(0, "pause", 60.0)),
    "suspend of 1 h": Trouble(Fault(0, "suspend", 3600.0)),
    "leap second, made by the host": Trouble(Fault(0, "leap", 1.0), is_leap=True),
    "leap second, not made by the host": Trouble(Fault(0, "missed-leap", 1.0), is_leap=True),
}


def _oscillator(rand: random.Random) -> Oscillator:
    return Oscillator(
        rand.uniform(-40, 40),
        rand.uniform(-0.001, 0.001),
        white_fm=1e-9,
        flicker_fm=rand.uniform(1e-9, 1e-8),
        walk_fm=rand.uniform(1e-12, 1e-11),
        daily_ppm=rand.uniform(0, 1),
        cycle_ppm=rand.choice((0.0, 0.3)),
    )


def _world(name: str, kind: HostKind, hours: float, rand: random.Random) -> World:
    servers = tuple(
        ServerSpec(kind.path, root_delay_s=kind.root_delay_s, root_dispersion_s=kind.root_dispersion_s)
        for _ in range(4)
    )
    return World(name, hours, _oscillator(rand), servers, "chrony", kind.update_s, kind.intervals)


def watch_healthy(number: int, seed: int, hours: float = HEALTHY_HOURS) -> Results:
    """Run a healthy host, and count what it raises.

    Rates by kind of host: `false`, raised findings of medium or worse, in host-decades; `changes` of the severity, in
    host-days; `false of` with a finding's id.
    """
    name = list(KINDS)[number % len(KINDS)]
    found, severity = Results(), None
    world = _world(f"healthy {name} {number}", KINDS[name], hours, random.Random(f"healthy {seed} {number}"))
    changes, raised = 0, list[str]()
    for audit in Simulation(world, seed).audits():
        changes += severity is not None and audit.record.severity != severity
        severity = audit.record.severity
        raised += [event.kind for event in audit.events if event.raised and event.level in _COUNTED]
    found.rates["false", name] = Rate(len(raised), hours / HOURS_PER_DECADE)
    found.rates["changes", name] = Rate(changes, hours / 24)
    for finding in set(raised):
        found.rates["false of", name, finding] = Rate(raised.count(finding), hours / HOURS_PER_DECADE)
    return found


def watch_trouble(name: str, kind_name: str, number: int, seed: int) -> Results:
    """Run a host on which one thing goes wrong, and see when a finding of medium or worse is raised first.

    Delays by trouble and kind of host: `alarm`; `listed`, until a record lists a finding that it did not list before.
    Shares: `first` with an id, how often that finding was the first alarm.
    """
    trouble, kind = TROUBLES[name], KINDS[kind_name]
    rand = random.Random(f"trouble {seed} {name} {kind_name} {number}")
    at_s = LEAP_AT_S if trouble.is_leap else _WARM_UP_S + rand.uniform(0, 3600)
    kind = kind._replace(intervals=kind.intervals._replace(local_s=DEFAULT_LOCAL_S))
    world = _world(f"{name} {kind_name} {number}", kind, (at_s + _WATCHED_S) / 3600, rand)
    if trouble.fault is not None:
        world = world._replace(faults=(trouble.fault._replace(at_s=at_s),))
    if trouble.wrong is not None:
        spec = trouble.wrong
        wrong = world.servers[0]._replace(behaviour=spec.behaviour, size_s=spec.size_s, from_s=at_s)
        if trouble.daemon_only:
            world = world._replace(daemon_servers=(wrong,) * len(world.servers))
        else:
            others = (wrong,) * (len(world.servers) - 1) if trouble.all_servers else world.servers[1:]
            world = world._replace(servers=(wrong, *others))
    found, usual = Results(), set[str]()
    first_s = listed_s = None
    for audit in Simulation(world, seed).audits():
        ids = {finding.id for finding in audit.record.findings}
        if audit.true.now_s <= at_s:
            usual |= ids
            continue
        raised = [event for event in audit.events if event.raised and event.level in _COUNTED]
        if listed_s is None and (raised or ids - usual):
            listed_s = audit.true.now_s - at_s
        if raised:
            first_s = audit.true.now_s - at_s
            worst = max(raised, key=lambda event: _COUNTED.index(event.level))
            found.shares["first", name, kind_name, worst.kind] = Share(1, 1)
            break
    for what, delay_s in (("alarm", first_s), ("listed", listed_s)):
        found.delays[what, name, kind_name] = Delays([], 1) if delay_s is None else Delays([delay_s])
    return found


def run_healthy(numbers: Sequence[int], seed: int, hours: float = HEALTHY_HOURS) -> Results:
    """Run some healthy hosts."""
    return total(watch_healthy(number, seed, hours) for number in numbers)


def run_troubles(numbers: Sequence[int], seed: int, names: Sequence[str] = tuple(TROUBLES)) -> Results:
    """Run each trouble on each kind of host, once for each number."""
    return total(watch_trouble(name, kind, number, seed) for number in numbers for name in names for kind in KINDS)
