"""Histories as an agent would have written them: a simulated clock, judged by the real core, kept by the real store."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ntpaudit.core.actions import StoreAudit
from ntpaudit.core.agent import handle
from ntpaudit.core.agent_events import Observed, ShellReport
from ntpaudit.core.agent_state import AgentSettings, first_state
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.evaluation import AuditSettings
from ntpaudit.core.events import Event
from ntpaudit.core.ntp.measurement import Measurement, measure
from ntpaudit.core.observation import HostFacts, Observation, SourceObservation
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES
from ntpaudit.core.record import Health, Record
from ntpaudit.core.schedule import Intervals
from ntpaudit.core.units import NS_PER_S
from ntpaudit.store import audits
from ntpaudit.store.database import open_database, transaction
from ntpaudit.store.queries import History
from tests.records import CHRONYD, LABELS, NOW_NS, SYNCHRONISED, failed, servers

BOOT = "b" * 32
DAY_MINUTES = 1440
MINUTE_NS = 60 * NS_PER_S
KERNEL = SYNCHRONISED._replace(frequency_ppm=0.0)
TERMS = AuditSettings(PROFILES[DEFAULT_PROFILE], LABELS, 300.0)
INTERVALS = Intervals(300.0, 3600.0, 60.0)


class World(NamedTuple):
    """A host that is up for `uptime_ns` at the true time `begin_ns`, and how far its clock is behind at each minute.

    Of that `offset_s(minute)` is what it got to by and by, `stepped_s(minute)` what somebody set it by. Every
    `ask_every` minutes servers are asked, which answer unless `answers(minute)` denies it; the agent runs while
    `runs(minute)` says so. `interval_s(minute)` is how often servers are to be asked by the configuration then.
    `slept_s(minute)` is for how long the host was suspended since its boot.
    """

    offset_s: Callable[[int], float] = lambda minute: 0.0019
    stepped_s: Callable[[int], float] = lambda minute: 0.0
    answers: Callable[[int], bool] = lambda minute: True
    runs: Callable[[int], bool] = lambda minute: True
    begin_ns: int = NOW_NS
    uptime_ns: int = 3600 * NS_PER_S
    boot_id: str | None = BOOT
    machine_id: str | None = "4" * 32
    ask_every: int = 5
    interval_s: Callable[[int], float] = lambda minute: 300.0
    health: Health = Health()
    slept_s: Callable[[int], float] = lambda minute: 0.0
    name: str = "web1"


class Kept(NamedTuple):
    """What one look of the agent leaves behind."""

    observation: Observation
    record: Record
    events: tuple[Event, ...]


def stored(connection: sqlite3.Connection) -> History:
    """Return the history of an open file, whose damaged rows are passed over."""
    return History(connection, lambda what: None)


def clocks(world: World, minute: int) -> ClockReading:
    """Return what the host's clocks show at a minute of the world."""
    slept_ns = round(world.slept_s(minute) * NS_PER_S)
    raw_ns = world.uptime_ns + minute * MINUTE_NS - slept_ns
    up_ns = raw_ns + slept_ns - round(world.offset_s(minute) * NS_PER_S)
    realtime_ns = world.begin_ns + up_ns - world.uptime_ns - round(world.stepped_s(minute) * NS_PER_S)
    return ClockReading(realtime_ns, up_ns - slept_ns, raw_ns, up_ns, 80)


def live(world: World, minutes: Iterable[int]) -> Iterator[Kept]:
    """Let an agent look at its host every minute, and yield what it concludes."""
    state = None
    for minute in minutes:
        if not world.runs(minute):
            continue
        asked, asks = clocks(world, minute), minute % world.ask_every == 0
        now = later(asked, NS_PER_S)
        observation = observe(world, minute, now, asks=asks)
        interval_s = world.interval_s(minute)
        intervals = Intervals(interval_s, interval_s, world.health.local_s or INTERVALS.local_s)
        settings = AgentSettings(TERMS._replace(interval_s=interval_s), intervals)
        if state is None:
            state = first_state(settings, observation.context, now, None)
        observed = Observed(observation, "network" if asks else "local", ShellReport(world.health))
        state, done = handle(state._replace(settings=settings), observed)
        yield from (Kept(*one[:3]) for one in done if isinstance(one, StoreAudit))


def observe(world: World, minute: int, now: ClockReading, *, asks: bool) -> Observation:
    """Return what an agent sees at a minute of the world, all of it carried to that reading of the clocks."""
    host = HostFacts(world.name, world.machine_id, world.boot_id, "UTC", 0, False, "tsc", None)
    sources = _answers(world, minute, clocks(world, minute)) if asks else ()
    return Observation(host, now, sources, KERNEL, (CHRONYD,))


def write(path: Path, world: World, minutes: Iterable[int]) -> list[Record]:
    """Write such a history into a file, new or not, and return its records."""
    connection = open_database(str(path))
    records = []
    with transaction(connection):
        for kept in live(world, minutes):
            audit_id = audits.keep_observation(connection, kept.observation, kept.record.kind)
            assert audits.keep_record(connection, audit_id, kept.record)
            audits.roll_up(connection, kept.record)
            audits.keep_events(connection, kept.events, world.boot_id)
            records.append(kept.record)
    connection.close()
    return records


def _answers(world: World, minute: int, asked: ClockReading) -> tuple[SourceObservation, ...]:
    """Return what four servers said that were asked at that reading of the clocks."""
    if not world.answers(minute):
        return tuple(failed(f"ntp{number}.example.net", "unreachable", "timeout") for number in range(1, 5))
    seen = servers(world.offset_s(minute) + world.stepped_s(minute), host_ns=asked.realtime_ns)
    return tuple(source._replace(outcome=tuple(_at(found, asked) for found in source.outcome)) for source in seen)


def _at(found: Measurement | object, asked: ClockReading) -> Measurement:
    """Measure the same exchange again, begun at another reading of the clocks."""
    assert isinstance(found, Measurement)
    elapsed_ns = found.timestamps.after.raw_ns - found.timestamps.before.raw_ns
    stamps = found.timestamps._replace(before=asked, after=later(asked, elapsed_ns))
    moved = measure(found.reply, stamps)
    assert isinstance(moved, Measurement), moved
    return moved


def later(reading: ClockReading, ns: int) -> ClockReading:
    """Return what clocks show later if nothing changes them."""
    realtime, monotonic, raw, boottime, width = reading
    return ClockReading(realtime + ns, monotonic + ns, raw + ns, boottime + ns, width)
