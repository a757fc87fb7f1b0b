"""Every message of every rule with typical numbers, for the page docs/messages.md (`make docs`)."""

from collections.abc import Iterator
from typing import Any, Literal

from ntpaudit.core.acceptance import Acceptance, HostAcceptance
from ntpaudit.core.audit_rules import missing_rules
from ntpaudit.core.checks.context import (
    AuditContext,
    Contradiction,
    DatabaseDate,
    DroppedAgreement,
    EarlierState,
    Gap,
    SharedServers,
)
from ntpaudit.core.checks.debounce import DebounceState, judge
from ntpaudit.core.checks.host import RULES
from ntpaudit.core.checks.rule import LEVEL_SEVERITY
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.steps import Step, StepCause
from ntpaudit.core.fleet import checks
from ntpaudit.core.fleet.model import (
    Alarm,
    DaemonClaim,
    DuplicateHost,
    FalsetickerReport,
    FleetPolicy,
    Offset,
    Snapshot,
)
from ntpaudit.core.ntp.time import decode
from ntpaudit.core.observation import (
    Auditing,
    Claim,
    Daemon,
    HiddenDaemons,
    KernelState,
    SourceObservation,
    Unavailable,
)
from ntpaudit.core.policy import PROFILES, Severity
from ntpaudit.core.selection import Selection
from ntpaudit.core.time_config import ACTIVE, ConfigChange
from ntpaudit.core.units import NS_PER_S
from ntpaudit.probes.daemons import timesyncd
from tests.core.fleets import DAY_S, NOW_NS, host, offset, snapshot
from tests.core.policies import ACCEPTING_HOSTS, APPROVAL_HOSTS, INGEST_HOSTS, SMEAR_HOSTS
from tests.core.worlds import (
    CHRONYD,
    DAY,
    FOUR,
    HOST,
    HOUR,
    MS,
    NOON,
    NTPD,
    SYNCHRONISED,
    UNSYNCHRONISED,
    S,
    answered,
    case,
    failed,
    measurement,
    reading,
    reply,
    wire,
)

Example = tuple[str, str, str]
"""The id of a finding, its level and its message."""


SERVING = CHRONYD._replace(disciplines=False, reason="started with -x")


def _behind(offset_ns: int, half_width_ns: int = 10 * MS, profile: str = "log-integrity") -> AuditContext:
    """Return a host whose four servers agree on an offset, and whose kernel states nothing of it."""
    sources = (answered(number, measurement(offset_ns, half_width_ns)) for number in (1, 2, 3, 4))
    return case(*sources, profile=PROFILES[profile], kernel=UNSYNCHRONISED)


def _before_release(*numbers: int, weeks: int = 1024) -> tuple[SourceObservation, ...]:
    """Return servers whose time is some weeks too early."""
    time_ns = decode(wire(NOON - weeks * 7 * DAY))
    sample = measurement(time_ns - NOON)._replace(received_ns=time_ns, transmitted_ns=time_ns)
    return tuple(answered(number, sample) for number in numbers)


def _with(context: AuditContext | None = None, **known: Any) -> AuditContext:
    """Return a host with the earlier state that only an agent has."""
    return (context or case())._replace(earlier=EarlierState(**known))


def _step(
    size_ns: int, *, is_gap: bool = False, boottime_ns: int = DAY, cause: StepCause | None = None
) -> AuditContext:
    return _with(steps=(Step(size_ns, NOON, NOON + size_ns, boottime_ns, is_gap, cause=cause),))


def _drift(rate_ppm: float, *, earliest_s: float | None, central_s: float | None) -> AuditContext:
    return _with(drift=Drift(rate_ppm, rate_ppm, 0.1, 20, Breach(earliest_s, central_s, None, 0.0, False, False)))


def _contradicted() -> AuditContext:
    """Return a host of which two servers contradict a larger, earlier agreement."""
    context = _behind(S)
    sources = tuple(one._replace(status="falseticker", reason="disagrees") for one in context.selection.sources[:2])
    selection = Selection(sources, case().selection.agreement)
    return _with(context._replace(selection=selection), contradiction=Contradiction(4, 1500.0))


def _spans(*ends_ms: tuple[int, int]) -> AuditContext:
    """Return a host whose servers allow these offsets."""
    return case(
        *(
            answered(number, measurement((low + high) // 2 * MS, earliest_ns=low * MS, latest_ns=high * MS))
            for number, (low, high) in enumerate(ends_ms, 1)
        )
    )


def _changed(*changes: tuple[str, str, str | None, str | None], utc_ns: int | None = NOON) -> AuditContext:
    """Return a host on which settings have changed, one a minute: their path, what, before and after."""
    listed = (
        ConfigChange(*change, DAY + minute * 60 * S, NOON + minute * 60 * S, utc_ns and utc_ns + minute * 60 * S)
        for minute, change in enumerate(changes)
    )
    return _with(config_changes=tuple(listed))


def _audited(state: Literal["on", "off"], *missing: str, reason: str | None = None) -> AuditContext:
    """Return a host with auditd, some of whose rules are missing."""
    seen = case()
    auditing = Auditing(state, missing, reason)
    return seen._replace(observation=seen.observation._replace(auditing=auditing))


_CONTENT = ("/etc/chrony/chrony.conf", "content", "ab" * 32, "cd" * 32)
_DROP_IN = "/etc/systemd/system/chrony.service.d/override.conf"


def _claiming(daemon: Daemon = CHRONYD, **stated: Any) -> Daemon:
    """Return a time daemon that states this, and that it follows a server."""
    return daemon._replace(claim=Claim(DAY, **{"is_synchronised": True, "updated_s": 40.0, **stated}))


def _misled(offset_ns: int, *, kernel: KernelState = SYNCHRONISED, **stated: Any) -> AuditContext:
    """Return a host whose time daemon states something else than its four servers."""
    sources = (answered(number, measurement(offset_ns)) for number in (1, 2, 3, 4))
    return case(*sources, kernel=kernel, daemons=(_claiming(follows="ntp9.example.net", **stated),))


_NEIGHBOURS = tuple(answered(number, address=f"192.0.2.{number}") for number in (1, 2, 3, 4))
_FALSETICKER = answered(9, measurement(37 * S))
_LOOP = answered(7, measurement(said=reply(reference_id=b"\x0a\0\0\7", warnings=("sync-loop",))))
_NO_SOURCES = AuditContext(case().observation._replace(sources=()), Selection((), None), PROFILES["log-integrity"])
_HIDDEN = HiddenDaemons("the processes of other users are hidden")

HOSTS = (
    _behind(2 * S),
    _behind(-90 * S),
    _behind(2 * HOUR),
    _behind(40 * MS, 20 * MS, "finra-cat"),
    _behind(250 * MS),
    _behind(990 * MS, 50 * MS),
    _behind(50 * MS, 990 * MS),
    _behind(0, 60 * MS, "ops-strict"),
    _behind(0, 900 * MS)._replace(profile=PROFILES["cluster-crdb"]),
    _NO_SOURCES,
    _with(_NO_SOURCES, gap=Gap(1300.0, 1300.0 / 300.0)),
    case(answered(1), answered(2, measurement(9 * S))),
    case(*(failed(number, "rejected", "unsync") for number in range(1, 7))),
    case(answered(1, measurement(0, 10 * S)), failed(2)),
    case(failed(1, "skipped", "interval"), failed(2, "skipped", "kod:DENY")),
    case(*_before_release(1)),
    case(*_before_release(1, 2, 3, 4)),
    case(*_before_release(1, 2, weeks=300), failed(3)),
    case(*FOUR, *_before_release(6)),
    case(answered(1), answered(2), *_before_release(6, 7, weeks=300)),
    case(FOUR[0]),
    case(FOUR[0], failed(2, "rejected", "unsync")),
    case(FOUR[0], *map(failed, (2, 3, 4))),
    case(*FOUR[:2]),
    case(*FOUR[:2], _FALSETICKER),
    case(*FOUR[:3], _FALSETICKER),
    case(*FOUR, _FALSETICKER, answered(7, measurement(-S))),
    _spans((0, 60), (50, 100), (90, 150)),
    _contradicted(),
    case(*FOUR, answered(8, address="127.0.0.1")),
    case(*FOUR, answered(7)._replace(is_own=True), answered(8)._replace(is_own=True)),
    case(*FOUR, _LOOP),
    case(*_NEIGHBOURS),
    case(kernel=UNSYNCHRONISED, daemons=(NTPD,)),
    case(kernel=UNSYNCHRONISED, daemons=(_claiming(NTPD, is_synchronised=False, leap=3, updated_s=11_000.0),)),
    _misled(200 * MS, offset_s=0.0003, bound_s=0.001),
    _misled(-40 * MS, offset_s=-0.0003, bound_s=0.001),
    _misled(200 * MS, offset_s=-0.0003),
    _misled(200 * MS, kernel=UNSYNCHRONISED, offset_s=0.0003, bound_s=0.001, is_synchronised=None),
    case(kernel=UNSYNCHRONISED, daemons=()),
    _with(case(kernel=UNSYNCHRONISED, daemons=()), vanished="chronyd"),
    case(kernel=UNSYNCHRONISED, daemons=_HIDDEN),
    case(kernel=UNSYNCHRONISED, daemons=(SERVING,)),
    case(
        kernel=UNSYNCHRONISED,
        daemons=HiddenDaemons("daemons outside this container cannot be seen", (SERVING,)),
        host=HOST._replace(container="lxc"),
    ),
    *(
        _with(
            case(
                kernel=UNSYNCHRONISED,
                daemons=(_claiming(NTPD, is_synchronised=False, leap=3),),
            ),
            shared_servers=(SharedServers("ntpd", *counts, NTPD.pid),),
        )
        for counts in ((4, 4), (1, 0))
    ),
    _with(
        case(kernel=UNSYNCHRONISED, daemons=(_claiming(NTPD, is_synchronised=False, leap=3),)),
        shared_servers=(SharedServers("ntpd", 4, 4, NTPD.pid, is_split=True),),
    ),
    _with(case(daemons=()), vanished="chronyd"),
    _with(case(daemons=(SERVING,)), vanished="chronyd"),
    _with(case(kernel=UNSYNCHRONISED, daemons=(SERVING,)), vanished="chronyd"),
    case(daemons=(CHRONYD, timesyncd.KIND.daemon(640))),
    case(daemons=(), kernel=Unavailable("not permitted")),
    _with(case(daemons=()), stale_s=1300.0),
    case(host=HOST._replace(rtc_local=True)),
    case(*FOUR, failed(5)),
    case(*(failed(number, reason="refused") for number in (1, 2, 3, 4))),
    case(failed(1, reason="refused")),
    case(FOUR[0], failed(5), failed(6, reason="name-unknown")),
    case(FOUR[0], failed(5), failed(6, "skipped", "unanswered")),
    case(*FOUR, failed(5, "rejected", "kod:RATE"), failed(6, "skipped", "kod:DENY")),
    case(*FOUR, failed(5, "rejected", "kod:INIT")),
    case(*FOUR, failed(5, "rejected", "kod:STEP")),
    case(*FOUR, failed(5, reason="forbidden")),
    case(*FOUR, failed(5, discarded={"bogus": 40}), failed(6, discarded={"bogus": 2})),
    _step(-S),
    _step(20 * MS),
    _step(-50 * MS, is_gap=True),
    _step(3600 * S),
    _step(3600 * S, boottime_ns=60 * S),
    _step(-3600 * S, boottime_ns=60 * S),
    _step(-3600 * S, cause=StepCause(DAY, None)),
    _step(20 * MS, cause=StepCause(DAY, "/usr/bin/date (login uid 1000)", by_person=True)),
    _step(-S, cause=StepCause(DAY, "chronyd")),
    _step(3600 * S, cause=StepCause(DAY, None, unread="systemd-timesyncd may set the clock and does not log it")),
    _with(gap=Gap(1300.0, 1300.0 / 300.0)),
    _with(gap=Gap(2 * DAY_S, 576.0)),
    _with(gap=Gap(7500.0, 25.0, has_ended=True)),
    _with(gap=Gap(2 * DAY_S, 576.0, has_ended=True)),
    _with(dropped_records=17),
    _with(
        dropped_agreement=DroppedAgreement(Interval(-25 * MS, 25 * MS), Interval(29_950 * MS, 30_050 * MS), 2, 300, DAY)
    ),
    _with(refusals=3),
    _with(refusals=40, failure="400: unable to parse"),
    _with(stale_s=5000.0),
    _with(stale_s=2 * DAY_S),
    _drift(20.0, earliest_s=30_000.0, central_s=50_000.0),
    _drift(-20.0, earliest_s=None, central_s=50_000.0),
    _drift(140.0, earliest_s=None, central_s=None),
    _changed(_CONTENT),
    _changed((ACTIVE, "value", "chrony.service", "ntpsec.service"), ("/etc/ntpsec/ntp.conf", "added", None, "ef" * 32)),
    _changed(_CONTENT, utc_ns=None),
    _changed(("chrony.service", "value", "enabled", "masked"), ("/etc/localtime", "value", "Etc/UTC", "Asia/Tokyo")),
    _changed(("/etc/ntpsec/ntp.conf", "mode", "0644", "0666"), (_DROP_IN, "added", None, "ef" * 32)),
    _changed(*((f"/etc/chrony/conf.d/{number}.conf", "removed", "ab" * 32, None) for number in range(6))),
    _changed(_CONTENT, (*_CONTENT[:2], _CONTENT[3], _CONTENT[2])),
    *APPROVAL_HOSTS,
    *SMEAR_HOSTS,
    *INGEST_HOSTS,
    *ACCEPTING_HOSTS,
    _audited("on", "-w /etc/localtime -p wa -k time-change"),
    _audited("on", *missing_rules((), "x86_64")),
    _audited("off", reason="the kernel does not audit (audit_enabled is 0)"),
    _with(database=DatabaseDate(Interval(-37 * S, -35 * S), 5.0)),
    _with(database=DatabaseDate(Interval(500 * MS, 2500 * MS), 5.0)),
)
"""Hosts on which the rules raise each of their messages."""


def host_messages() -> Iterator[Example]:
    """Yield each message of the rules about one host, in their order."""
    for rule in RULES:
        found = (rule.check(context) for context in HOSTS)
        raised = dict.fromkeys((one.level, one.message) for one in found if one is not None)
        yield from ((rule.id, level, message) for level, message in raised)


def debounce_messages() -> Iterator[Example]:
    """Yield the messages of an agent about a finding that is pending, raised, improving and out of date."""
    bad, good = _behind(2 * S), _behind(0)
    one_server = case(FOUR[0], *map(failed, (2, 3, 4)))
    state = DebounceState()
    for number, context in enumerate((bad, bad, bad, good, one_server), 1):
        taken = reading(uptime_ns=DAY)._replace(boottime_ns=DAY + number * 300 * S)
        now = context._replace(observation=context.observation._replace(taken=taken))
        is_sample = context is not one_server
        decision = judge(now, state, "network", is_sample=is_sample)
        state = decision.state
        yield from ((one.id, one.level, one.message) for one in decision.findings if one.id == "offset-out")
    unstored = judge(bad, DebounceState(), "network", is_sample=True, can_confirm=False)
    yield from ((one.id, one.level, one.message) for one in unstored.findings if one.id == "offset-out")
    unsynced, state = case(kernel=UNSYNCHRONISED, daemons=(NTPD,)), DebounceState()
    for number in range(3):  # enough samples, within 3 minutes
        taken = reading(uptime_ns=DAY)._replace(boottime_ns=DAY + number * 60 * S)
        now = unsynced._replace(observation=unsynced.observation._replace(taken=taken))
        decision = judge(now, state, "local", is_sample=False)
        state = decision.state
        yield from ((one.id, one.level, one.message) for one in decision.findings if one.id == "unsynced")


def _moved(*now_s: float, then_s: float = 0.0, site: str | None = "ams") -> Snapshot:
    """Return hosts of a site as they are now and were an hour ago."""
    hosts = [host(f"ams-web{number}", at_s, 0.002, site=site) for number, at_s in enumerate(now_s, 1)]
    return snapshot(*hosts, before={one.name: offset(then_s, 0.002) for one in hosts})


_THREE = tuple(host(f"ams-web{number}") for number in (1, 2, 3))
_CLAIMS = tuple(FalsetickerReport("gps.fra", one.name, -37.0) for one in _THREE)
_UNAPPROVED = DaemonClaim("chronyd", "time.example.org", is_unapproved=True)
_WALKS = tuple(host(f"ams-web{number}", 0.02 + 0.01 * number, 0.001) for number in range(1, 7))

FLEETS: tuple[tuple[Snapshot, FleetPolicy], ...] = (
    (snapshot(host("ams-log1"), duplicates=[DuplicateHost("ams-log1", ("ams", "fra"))]), FleetPolicy()),
    (snapshot(*_THREE, host("ams-db1", severity=Severity.OK)._replace(disputed_s=37.0)), FleetPolicy()),
    (snapshot(*(one._replace(disputed_s=-0.4) for one in _THREE)), FleetPolicy()),
    (snapshot(*_THREE, host("ams-db1", 37.0)), FleetPolicy()),
    (snapshot(*_THREE, host("ams-db1", 0.25)._replace(verdict="within")), FleetPolicy()),
    (snapshot(host("ams-db1", 37.0), host("ams-db2", 2.0), *_THREE), FleetPolicy()),
    (snapshot(*_THREE, host("ams-db1", None)), FleetPolicy()),
    (snapshot(host("ams-log1", 0.9), host("ams-web1", -0.9), host("ams-web2", -0.89)), FleetPolicy()),
    (snapshot(host("ams-log1", 0, 0.8), host("ams-log2", 0, 0.7)), FleetPolicy()),
    (snapshot(*(host(f"ams-web{number}", 0.9) for number in (1, 2)),
              *(host(f"fra-web{number}", -0.9, site="fra") for number in (1, 2))), FleetPolicy()),
    (snapshot(*_THREE, lies=_CLAIMS), FleetPolicy()),
    (snapshot(*_THREE, lies=[one._replace(offset_s=None) for one in _CLAIMS]), FleetPolicy()),
    (_moved(0.05, 0.051, 0.049, 0.0), FleetPolicy()),
    (_moved(0.0, 0.001, -0.001, then_s=0.06), FleetPolicy()),
    (_moved(0.04, 0.0, 0.0, 0.0), FleetPolicy()),
    (_moved(-0.04, 0.0, 0.0, 0.0), FleetPolicy()),
    (snapshot(*_WALKS, *(host(f"still{number}") for number in range(6)),
              before={one.name: Offset(0.0, -0.001, 0.001) for one in _WALKS}), FleetPolicy()),
    (snapshot(*(one._replace(daemon=_UNAPPROVED) for one in _THREE)), FleetPolicy()),
    (snapshot(*(one._replace(daemon=DaemonClaim(is_unapproved=True)) for one in _THREE)), FleetPolicy()),
    (snapshot(*_THREE, host("sgp-db2", site="sgp", ago_s=900)), FleetPolicy()),
    (snapshot(*_THREE, host("sgp-db1", site="sgp", ago_s=2 * DAY_S), host("sgp-db2", site="sgp", ago_s=3 * DAY_S)),
     FleetPolicy()),
    (snapshot(*_THREE, forgotten=["sgp-db2"]), FleetPolicy()),
    (snapshot(*_THREE, host("ams-new1"), host("AMS-LOG1.example.net")),
     FleetPolicy(inventory=("ams-web1", "ams-web2", "ams-web3", "ams-log1"), sites={"ams-web1": "fra"})),
    (snapshot(*_THREE, alarms=[Alarm("ams-web1", "offset-out", Severity.CRITICAL, NOW_NS - 600 * NS_PER_S)]),
     FleetPolicy()),
    *((snapshot(*_THREE), FleetPolicy(exceptions=(HostAcceptance(
        Acceptance("unsynced", "container", "ops, ticket 1234", end_ns), "ams-*"),))) for end_ns in (NOW_NS, None)),
    (snapshot(*(host(f"h{number}", usable=1 if number < 1 else 3) for number in range(24))), FleetPolicy()),
    (snapshot(*(host(f"h{number}", usable=1 if number < 3 else 3) for number in range(24))), FleetPolicy()),
)  # fmt: skip
"""Fleets on which the rules raise each of their messages."""


def fleet_messages() -> Iterator[Example]:
    """Yield each message of the rules about a fleet, in their order."""
    findings = [one for read, policy in FLEETS for one in checks.judge_fleet(read, policy).findings]
    for rule in checks.RULES:
        raised = dict.fromkeys((one.level, one.message) for one in findings if one.id == rule.id)
        yield from ((rule.id, level, message) for level, message in raised)


def table(examples: Iterator[Example]) -> Iterator[str]:
    """Yield the rows of a Markdown table: per finding the worst level first."""
    yield from ("| finding | level | message |", "|---|---|---|")
    levels: list[str] = list(LEVEL_SEVERITY)
    grouped: dict[str, list[Example]] = {}
    for example in examples:
        grouped.setdefault(example[0], []).append(example)
    for group in grouped.values():
        for kind, level, message in sorted(group, key=lambda example: levels.index(example[1])):
            yield f"| `{kind}` | {level} | {message} |"
