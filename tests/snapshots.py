"""A fleet made by hand: three sites, and in them one of everything that a fleet can be found guilty of."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ntpaudit.core.fleet.model import Alarm, FalsetickerReport, Host, Offset, Snapshot
from ntpaudit.core.observation import STATUSES
from ntpaudit.core.policy import VERDICTS, Severity, Verdict
from ntpaudit.core.units import NS_PER_S
from ntpaudit.fleet.demo_store import DemoStore
from ntpaudit.formats.line_protocol import Point, Value

NOW_NS = 1_800_000_000 * NS_PER_S
FALSETICKER = "ntp9.example.net"


def host(
    name: str,
    estimate_s: float | None,
    half_s: float = 0.01,
    severity: Severity = Severity.OK,
    verdict: Verdict = "within",
    *,
    ago_s: float = 30.0,
    usable: int = 4,
    falsetickers: int = 0,
    frequency_ppm: float | None = None,
) -> Host:
    """A host of the site that its name begins with."""
    known = None if estimate_s is None else Offset(estimate_s, estimate_s - half_s, estimate_s + half_s)
    site, last_ns = name.partition("-")[0], NOW_NS - round(ago_s * NS_PER_S)
    return Host(
        name, site, "prod", last_ns, severity, verdict, known, 12.0, frequency_ppm, usable, falsetickers, falsetickers
    )


HOSTS = (
    host("ams-web-1", 37.0012, 0.012, Severity.CRITICAL, "beyond", falsetickers=1),
    host("ams-web-2", 0.0019, 0.014, falsetickers=1),
    host("ams-db-1", -0.0004, 0.009, falsetickers=1),
    host("fra-db-2", 0.31, 0.02, Severity.WARNING),
    host("fra-db-3", 0.018, 0.005, frequency_ppm=2.0),
    host("fra-laptop", None, severity=Severity.UNKNOWN, verdict="unmeasured", usable=0),
    host("fra-gw", 0.0, 0.001, ago_s=7800.0),
    *(host(f"sto-node-{number}", -0.06 - number / 10_000, 0.004) for number in range(5)),
)
ALARMS = (
    Alarm("ams-web-1", "offset-out", Severity.CRITICAL, NOW_NS - 1000 * NS_PER_S, 37.0),
    Alarm("ams-web-1", "source-quorum", Severity.WARNING, NOW_NS - 1000 * NS_PER_S),
    Alarm("fra-db-2", "step-back", Severity.WARNING, NOW_NS - 600 * NS_PER_S, -0.4),
)
FALSETICKER_REPORTS = tuple(FalsetickerReport(FALSETICKER, f"ams-{name}", 37.0) for name in ("web-1", "web-2", "db-1"))
BEFORE = {
    **{one.name: one.offset for one in HOSTS if one.offset is not None and not one.name.startswith("sto")},
    **{f"sto-node-{number}": Offset(0.001, -0.002, 0.004) for number in range(5)},
    "fra-db-3": Offset(-0.003, -0.006, -0.002),
}
BEFORE_NS = NOW_NS - 3630 * NS_PER_S
SNAPSHOT = Snapshot(
    NOW_NS,
    HOSTS,
    ALARMS,
    FALSETICKER_REPORTS,
    BEFORE,
    3600.0,
    ("lon-old",),
    baseline_ns=dict.fromkeys(BEFORE, BEFORE_NS),
)


def write_demonstration(path: Path) -> None:
    """Write the fleet as a demonstration is written; the host that is forgotten reported two days ago."""
    with DemoStore(str(path)) as store:
        store.write(_points(), NOW_NS)
        store.finish(NOW_NS)


def _points() -> Iterator[Point]:
    """Return the points that agents would have delivered."""
    for one in HOSTS:
        yield _clock(one, one.offset, one.last_ns)
        if (then := BEFORE.get(one.name)) is not None:
            yield _clock(one, then, BEFORE_NS)
    old = host("lon-old", 0.0)
    yield _clock(old._replace(site=None), old.offset, NOW_NS - 2 * 86_400 * NS_PER_S)
    places = {one.name: _whose(one) for one in HOSTS}
    for report in FALSETICKER_REPORTS:
        fields: dict[str, Value] = {"status": STATUSES.index("falseticker"), "offset_s": report.offset_s}
        yield Point("ntpaudit_source", {**places[report.host], "source": report.source}, fields, NOW_NS - 30 * NS_PER_S)
    for alarm in ALARMS:
        fields = {"severity": int(alarm.severity), "raised": 1, "value_s": alarm.value_s}
        yield Point("ntpaudit_event", {**places[alarm.host], "kind": alarm.kind}, fields, alarm.since_ns)


def _clock(one: Host, known: Offset | None, stamp_ns: int) -> Point:
    """Return the point of a clock."""
    fields: dict[str, Value] = {
        "severity": int(one.severity),
        "verdict": VERDICTS.index(one.verdict),
        "usable": one.usable,
        "falsetickers": one.falsetickers,
        "findings": one.findings,
        "age_s": one.age_s,
        "frequency_ppm": one.frequency_ppm,
    }
    if known is not None:
        fields |= dict(zip(("offset_s", "earliest_s", "latest_s"), known, strict=True))
    return Point("ntpaudit_clock", _whose(one), fields, stamp_ns)


def _whose(one: Host) -> Mapping[str, str | None]:
    """Return the tags of a host."""
    return {"host": one.name, "site": one.site, "env": one.env}
