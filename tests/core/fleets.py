"""Fleets made by hand and drawn, and what is found in them."""

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from ntpaudit.core.fleet.checks import RULES
from ntpaudit.core.fleet.model import (
    Alarm,
    DuplicateHost,
    FalsetickerReport,
    Fleet,
    FleetFinding,
    Host,
    Offset,
    Snapshot,
)
from ntpaudit.core.policy import Severity, Verdict
from ntpaudit.core.units import NS_PER_S

NOW_NS = 1_800_000_000 * NS_PER_S
DAY_S = 86_400.0


def offset(estimate_s: float, half_s: float = 0.005) -> Offset:
    """An offset with as much error to both sides."""
    return Offset(estimate_s, estimate_s - half_s, estimate_s + half_s)


def host(
    name: str,
    estimate_s: float | None = 0.0,
    half_s: float = 0.005,
    *,
    site: str | None = "ams",
    severity: Severity = Severity.OK,
    ago_s: float = 30.0,
    usable: int = 4,
    falsetickers: int = 0,
    frequency_ppm: float | None = None,
) -> Host:
    """A host whose last report is this old."""
    verdict: Verdict = "unmeasured" if estimate_s is None else "within"
    known = None if estimate_s is None else offset(estimate_s, half_s)
    last_ns = NOW_NS - round(ago_s * NS_PER_S)
    return Host(name, site, "prod", last_ns, severity, verdict, known, 12.0, frequency_ppm, usable, falsetickers)


def snapshot(
    *hosts: Host,
    alarms: Sequence[Alarm] = (),
    lies: Sequence[FalsetickerReport] = (),
    before: Mapping[str, Offset] | None = None,
    forgotten: Sequence[str] = (),
    duplicates: Sequence[DuplicateHost] = (),
) -> Snapshot:
    """A fleet as it is read."""
    return Snapshot(
        NOW_NS,
        hosts,
        tuple(alarms),
        tuple(lies),
        before or {},
        expired=tuple(forgotten),
        duplicate_hosts=tuple(duplicates),
    )


def found(fleet: Fleet, kind: str) -> list[FleetFinding]:
    """The findings of one kind, each of a level that its rule documents."""
    findings = [finding for finding in fleet.findings if finding.id == kind]
    documented = {level for rule in RULES if rule.id == kind for key in rule.raised_when for level in key.split(", ")}
    assert {finding.level for finding in findings} <= documented
    return findings


def only(fleet: Fleet, kind: str) -> FleetFinding:
    """The one finding of a kind."""
    [finding] = found(fleet, kind)
    return finding


SPANS = st.integers(-3000, 3000).map(lambda ms: ms / 1000)
WIDTHS = st.integers(0, 1500).map(lambda ms: ms / 1000)


@st.composite
def worlds(draw: st.DrawFn, name: str = "h", most: int = 7) -> list[tuple[Host, float]]:
    """Draw hosts, each with a true offset somewhere in the interval that is known of it."""
    world = []
    for number in range(draw(st.integers(2, most))):
        earliest_s, width_s = draw(SPANS), draw(WIDTHS)
        at, truth = draw(st.floats(0, 1)), draw(st.floats(0, 1))
        known = Offset(earliest_s + at * width_s, earliest_s, earliest_s + width_s)
        site = draw(st.sampled_from(["ams", "fra", None]))
        one = Host(f"{name}{number}", site, None, NOW_NS, Severity.OK, "within", known)
        world.append((one, min(known.latest_s, earliest_s + truth * width_s)))
    return world
