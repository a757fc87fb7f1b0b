"""What is true of a scenario at its end, by its own numbers: the findings of a fleet are compared with it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ntpaudit.core.fleet.shifts import SLOW_WALK
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.scenario import (
    MOVED_SITE,
    SITE_MOVE,
    HostSpec,
    Scenario,
    ServerFault,
    SetClock,
    StartDaemon,
    StopAgent,
)


class Stepped(NamedTuple):
    """A clock that was set, when, and by how much; positive is forward."""

    host: str
    utc_ns: int
    size_s: float


class ExpectedFindings(NamedTuple):
    """What is true of a story at its end, by its own numbers: what a fleet's findings are held against.

    A host is in one of the first five. `findings` holds those of a reporting host's own agent that count for it.
    `stepped` has every step of the history. `sites_moved`: by how many seconds clocks moved forward in the last hour.
    `shared_falsetickers`: which hosts a server misled, and in how many seconds. `risky_sites`: where two events that
    are a second apart may be stamped in the wrong order.
    """

    critical: frozenset[str]
    warning: frozenset[str]
    silent: frozenset[str]
    unmeasured: frozenset[str]
    ok: frozenset[str]
    findings: Mapping[str, frozenset[str]]
    stepped: tuple[Stepped, ...]
    sites_moved: Mapping[str, float]
    shared_falsetickers: Mapping[str, frozenset[str]]
    slow_walkers: frozenset[str]
    risky_sites: frozenset[str]


def expected_findings(scenario: Scenario) -> ExpectedFindings:
    """Return what must be found at the end of the history."""
    at: dict[str, set[str]] = {"critical": set(), "warning": set(), "silent": set(), "unmeasured": set(), "ok": set()}
    for part in scenario.hosts:
        at[_standing(part)].add(part.name)
    reporting = [part for part in scenario.hosts if part.name not in at["silent"]]
    measured = [part for part in reporting if part.name not in at["unmeasured"]]
    deceived = {
        source.name: frozenset(part.name for part in measured if source in part.sources)
        for source in scenario.sources
        if source.fault_s
    }
    return ExpectedFindings(
        **{status: frozenset(names) for status, names in at.items()},
        findings={part.name: part.fault.findings for part in reporting},
        stepped=tuple(step for part in scenario.hosts for step in _steps(part, scenario.end_ns)),
        sites_moved={MOVED_SITE: SITE_MOVE.what.jump_s} if isinstance(SITE_MOVE.what, ServerFault) else {},
        shared_falsetickers=deceived,
        slow_walkers=frozenset(part.name for part in measured if part.fault.name == SLOW_WALK.id),
        risky_sites=frozenset(
            site
            for site in {part.site for part in measured if part.name in at["critical"]}
            if sum(part.site == site for part in measured) > 1
        ),
    )


def _standing(part: HostSpec) -> str:
    """Return the state of a host at the end."""
    if part.fault.severity is Severity.UNKNOWN:
        return "silent" if any(isinstance(event.what, StopAgent) for event in part.events) else "unmeasured"
    return part.fault.severity.word


def _steps(part: HostSpec, end_ns: int) -> Iterator[Stepped]:
    """Yield the steps of a host's clock."""
    for event in part.events:
        if isinstance(event.what, SetClock | StartDaemon):
            yield Stepped(part.name, end_ns - round(event.ago_s * NS_PER_S), event.what.size_s)
