"""What the time daemon and the kernel state, compared with the measured interval: the numbers, and the findings."""

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks.context import AuditContext, EarlierState
from ntpaudit.core.checks.host import findings_of
from ntpaudit.core.checks.rule import Finding
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.cross_check import CrossCheck, distance_s
from ntpaudit.core.observation import (
    Claim,
    Configuration,
    ConfiguredServer,
    Daemon,
    HiddenDaemons,
    KernelState,
    SourceObservation,
    Unavailable,
)
from ntpaudit.core.policy import PROFILES, Severity
from ntpaudit.core.record import Labels, Record, conclude, write_record
from tests.core.worlds import (
    CHRONYD,
    DAY,
    FOUR,
    MS,
    NTPD,
    SYNCHRONISED,
    UNSYNCHRONISED,
    S,
    answered,
    case,
    measurement,
    reading,
)

CLAIM = Claim(DAY, True, "ntp9.example.net", 0.0, 0.001, updated_s=1.0, leap=0)
VAGUE = SYNCHRONISED._replace(maxerror_s=15.9)
OUR_RULES = {"daemon-disagrees", "daemon-bound-violated", "kernel-maxerror-violated", "false-time-quality"}


def stating(claim: Claim | Unavailable | None = CLAIM, daemon: Daemon = CHRONYD, **stated: Any) -> Daemon:
    """Return a time daemon that states this."""
    return daemon._replace(claim=claim._replace(**stated) if isinstance(claim, Claim) else claim)


def host(offset_ns: int, half_width_ns: int = 10 * MS, kernel: KernelState = VAGUE, **stated: Any) -> AuditContext:
    """Return a host of which four servers agree on an offset, with a time daemon that states something."""
    return case(*off(offset_ns, half_width_ns), kernel=kernel, daemons=(stating(**stated),))


def off(offset_ns: int, half_width_ns: int = 10 * MS) -> Any:
    """Return four servers that agree on an offset."""
    return tuple(answered(number, measurement(offset_ns, half_width_ns)) for number in (1, 2, 3, 4))


def raised(context: AuditContext) -> dict[str, Finding]:
    """Return the findings of these rules."""
    return {one.id: one for one in findings_of(context) if one.id in OUR_RULES}


def levels(context: AuditContext) -> dict[str, str]:
    """Return their levels."""
    return {name: one.level for name, one in raised(context).items()}


# --- the numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset_s", "bound_s", "distance"),
    [
        (0.0, 0.001, 0.099),
        (0.0, 0.1, 0.0),
        (0.1, 0.0, 0.0),  # the near end itself
        (0.15, 0.0, 0.0),
        (0.9, 0.001, 0.0),  # the daemon has corrected most of what it stated
        (0.09, 0.005, 0.005),
        (-0.5, 0.001, 0.099),  # what it corrects leads to 0, and no further
        (-0.5, 0.6, 0.0),
        (None, 0.001, None),
        (0.0, None, None),
        (nan, 0.001, None),
        (0.0, inf, None),
    ],
)
def test_the_distance_of_a_statement(offset_s: float | None, bound_s: float | None, distance: float | None) -> None:
    """From an interval of 100 to 200 ms, and its mirror image."""
    found = distance_s(Interval(100 * MS, 200 * MS), offset_s, bound_s)
    assert found == (None if distance is None else pytest.approx(distance))
    mirrored = distance_s(Interval(-200 * MS, -100 * MS), None if offset_s is None else -offset_s, bound_s)
    assert mirrored == (None if distance is None else pytest.approx(distance))


@given(st.floats(), st.floats(), st.integers(-(10**19), 10**19), st.integers(0, 10**18))
def test_any_statement_has_a_distance_or_none(offset_s: float, bound_s: float, earliest_ns: int, width_ns: int) -> None:
    """Nothing that a daemon states is an error here, and no distance is negative."""
    found = distance_s(Interval(earliest_ns, earliest_ns + width_ns), offset_s, abs(bound_s))
    assert found is None or found >= 0


def test_the_three_statements_are_compared() -> None:
    """The daemon, what it states, and how far it and the kernel are from the measured interval."""
    compared = host(200 * MS, kernel=SYNCHRONISED, offset_s=0.003, bound_s=0.002).cross_check
    assert compared[:3] == ("chronyd", 0.003, 0.002)
    assert compared[3:] == pytest.approx((0.185, 0.01, 0.18), abs=1e-4)


@pytest.mark.parametrize(
    ("updated_s", "excess_s"), [(0.0, 0.069), (600.0, 0.039), (1380.0, 0.0), (2048.0, 0.0), (None, 0.069)]
)
def test_a_daemon_is_not_blamed_for_the_drift_since_its_last_update(updated_s: float | None, excess_s: float) -> None:
    """B7: systemd-timesyncd states 1 ms, and the clock is 70 to 90 ms off because it drifts by up to 50 ppm."""
    compared = host(80 * MS, updated_s=updated_s).cross_check
    assert compared.daemon_excess_s == pytest.approx(excess_s, abs=1e-4)


@pytest.mark.parametrize(
    ("context", "compared"),
    [
        (case(daemons=()), CrossCheck(kernel_bound_s=0.01, kernel_excess_s=0.0)),
        (case(), CrossCheck("chronyd", kernel_bound_s=0.01, kernel_excess_s=0.0)),
        (case(kernel=UNSYNCHRONISED), CrossCheck("chronyd")),
        (case(kernel=Unavailable("no")), CrossCheck("chronyd")),
        (case(daemons=(stating(),)), CrossCheck("chronyd", 0.0, 0.001, 0.0, 0.01, 0.0)),
        (case(daemons=HiddenDaemons("", (stating(),))), CrossCheck("chronyd", 0.0, 0.001, 0.0, 0.01, 0.0)),
        (case(daemons=(NTPD, stating())), CrossCheck("chronyd", 0.0, 0.001, 0.0, 0.01, 0.0)),
        (
            case(daemons=(stating(daemon=CHRONYD._replace(disciplines=False)), NTPD)),
            CrossCheck("ntpd", None, None, None, 0.01, 0.0),
        ),
        (
            case(FOUR[0], answered(2, measurement(9 * S)), daemons=(stating(),)),
            CrossCheck("chronyd", 0.0, 0.001, None, 0.01, None),
        ),
        (case(daemons=(stating(boottime_ns=DAY - 11 * S),)), CrossCheck("chronyd", 0.0, 0.001, None, 0.01, 0.0)),
    ],
)
def test_what_is_not_known_is_not_compared(context: AuditContext, compared: CrossCheck) -> None:
    """Without a claim, a guaranteed interval, a synchronised kernel or a claim of this moment there is no number."""
    assert context.cross_check == compared


def test_the_interval_is_carried_to_the_moment_of_the_claim() -> None:
    """By the largest drift: 2 s at 50 ppm are 100 us."""
    now = host(101 * MS, 100 * MS)
    before = host(101 * MS, 100 * MS, boottime_ns=DAY - 2 * S, bound_s=0.0, updated_s=0.0)
    assert now.cross_check.daemon_excess_s == 0.0
    assert before.cross_check.daemon_excess_s == pytest.approx(0.001 - 0.0001)


def test_an_interval_that_proves_nothing_disproves_nothing() -> None:
    """Where so few servers replied that all may be wrong, no claim is refuted (R1)."""
    seen = host(2 * S, kernel=SYNCHRONISED)
    agreement = seen.selection.agreement
    assert agreement is not None
    weak = seen._replace(selection=seen.selection._replace(agreement=agreement._replace(is_guaranteed=False)))
    assert weak.cross_check.daemon_excess_s is None
    assert raised(weak) == {}


def test_a_record_keeps_the_cross_check() -> None:
    """As a value, and as JSON; a record of an earlier version has none."""
    context = host(200 * MS)
    record = write_record(context, Labels("1"), (), Severity.OK)
    assert record.cross_check == context.cross_check
    assert record.claim is not None
    assert record.claim["follows"] == "ntp9.example.net"
    data = record.to_dict()
    assert Record.from_dict(data) == record
    del data["cross_check"]
    assert Record.from_dict(data).cross_check is None
    assert Record.from_dict(data).claim is None
    assert conclude(context.observation, context.profile, Labels("1")).cross_check == context.cross_check


# --- the findings -------------------------------------------------------------------------------------------------

DISAGREES = {"daemon-disagrees": "high", "daemon-bound-violated": "medium"}
LOW = {"daemon-disagrees": "low"}


@pytest.mark.parametrize(
    ("offset_ms", "stated", "found"),
    [
        (0, {}, {}),
        (11, {}, {}),  # 1 ms to 21 ms, and 0 +- 1 ms: the ends touch
        (12, {}, LOW),
        (-12, {}, LOW),
        (110, {}, LOW),  # at least 100 ms: the warning tolerance itself
        (111, {}, DISAGREES),
        (-111, {}, DISAGREES),
        (200, {}, DISAGREES),
        (200, {"bound_s": 0.189}, DISAGREES),
        (200, {"bound_s": 0.19}, {}),
        (200, {"offset_s": 0.2}, {}),
        (200, {"offset_s": 5.0}, {}),  # it is correcting, or has corrected a part
        (200, {"offset_s": 0.05}, DISAGREES),
        (200, {"offset_s": -0.2}, DISAGREES),
        (200, {"bound_s": None}, {"daemon-disagrees": "high"}),
        (110, {"bound_s": None}, {}),  # right within the warning tolerance, as far as is known
        (200, {"offset_s": None}, {}),
        (200, {"is_synchronised": False}, {"daemon-bound-violated": "medium"}),
        (200, {"is_synchronised": None}, {"daemon-bound-violated": "medium"}),
        (12, {"is_synchronised": None}, {}),
        (200, {"is_synchronised": None, "bound_s": None}, {}),
        (200, {"boottime_ns": DAY - 3600 * S}, {}),
        (200, {"claim": None}, {}),
        (200, {"claim": Unavailable("refused", "allow it")}, {}),
        (200, {"daemon": CHRONYD._replace(disciplines=False)}, {}),
    ],
)
def test_daemon_claims(offset_ms: int, stated: dict[str, Any], found: dict[str, str]) -> None:
    """NTPA-04 and B7: only beyond both bounds, only while it claims it, and only what is certain."""
    assert levels(host(offset_ms * MS, **stated)) == found


def test_the_level_is_that_of_the_policy() -> None:
    """20 ms are no matter for logs, and one for a rule that allows 50 ms."""
    sources = off(40 * MS)
    loose, tight = (
        case(*sources, kernel=VAGUE, daemons=(stating(),), profile=PROFILES[name])
        for name in ("log-integrity", "finra-cat")
    )
    assert levels(loose) == LOW
    assert levels(tight) == DISAGREES


def test_what_follows_from_a_wrong_server_is_listed_under_it() -> None:
    """The daemon is the cause; its bound, the kernel's and the quality in log messages follow from that."""
    found = raised(host(200 * MS, kernel=SYNCHRONISED))
    assert {name: one.cause for name, one in found.items()} == {
        "daemon-disagrees": None,
        "daemon-bound-violated": "daemon-disagrees",
        "kernel-maxerror-violated": "daemon-disagrees",
        "false-time-quality": "daemon-disagrees",
    }
    assert [one.id for one in found.values() if one.severity] == ["daemon-disagrees"]
    assert found["daemon-disagrees"].message == (
        "chronyd reports that it follows ntp9.example.net (last update 1 s ago), and that the clock is 0 ns off, with "
        "an error of at most 1 ms; the servers prove that it is at least 190 ms behind"
    )


@pytest.mark.parametrize(
    ("offset_ms", "kernel", "stated", "found"),
    [
        (0, SYNCHRONISED, {}, {}),
        (20, SYNCHRONISED, {}, {}),  # 10 to 30 ms, and 10 ms
        (110, SYNCHRONISED, {}, {}),  # at least 100 ms: the warning tolerance itself
        (200, SYNCHRONISED, {}, {"kernel-maxerror-violated": "medium", "false-time-quality": "medium"}),
        (-200, SYNCHRONISED, {}, {"kernel-maxerror-violated": "medium", "false-time-quality": "medium"}),
        (200, SYNCHRONISED._replace(maxerror_s=0.5), {}, {}),
        (200, UNSYNCHRONISED, {}, {}),
        (200, UNSYNCHRONISED._replace(maxerror_s=0.01), {}, {}),
        (200, Unavailable("no"), {}, {}),
        (200, SYNCHRONISED._replace(offset_s=0.21), {}, {"false-time-quality": "medium"}),  # the kernel corrects it
        (
            200,
            SYNCHRONISED._replace(offset_s=-0.2),
            {},
            {"kernel-maxerror-violated": "medium", "false-time-quality": "medium"},
        ),
        (200, SYNCHRONISED._replace(state=1), {}, {"kernel-maxerror-violated": "medium"}),  # logger: isSynced=0
        (200, SYNCHRONISED, {"offset_s": 0.2}, {"false-time-quality": "medium"}),  # the daemon corrects it
    ],
)
def test_kernel_claims(
    offset_ms: int, kernel: KernelState | Unavailable, stated: dict[str, Any], found: dict[str, str]
) -> None:
    """A6 and RFC 5424: the kernel's maximum error, while it reports a synchronised clock."""
    daemon = stating(**stated) if stated else CHRONYD
    assert levels(case(*off(offset_ms * MS), kernel=kernel, daemons=(daemon,))) == found


def test_a_false_quality_is_listed_under_the_wrong_offset() -> None:
    """Where the daemon itself states the offset, the offset is the cause, and counts."""
    found = raised(host(200 * MS, kernel=SYNCHRONISED, offset_s=0.2))
    assert (found["false-time-quality"].cause, found["false-time-quality"].severity) == ("offset-high", Severity.OK)
    alone = case(*off(2 * S), kernel=SYNCHRONISED)
    assert {one.id: one.cause for one in findings_of(alone)} == {
        "offset-out": None,
        "kernel-maxerror-violated": "offset-out",
        "false-time-quality": "offset-out",
    }


# --- the daemon's own words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({}, "; ntpd reports that it follows ntp9.example.net (last update 1 s ago)"),
        ({"updated_s": None}, "; ntpd reports that it follows ntp9.example.net"),
        ({"follows": None}, "; ntpd reports that it is synchronised (last update 1 s ago)"),
        (
            {"is_synchronised": False, "follows": None, "updated_s": 10_800.0},
            "; ntpd reports that it is not synchronised and follows no server (last update 3 h ago)",
        ),
        (
            {"is_synchronised": False, "updated_s": None},
            "; ntpd reports that it is not synchronised and follows ntp9.example.net",
        ),
        ({"is_synchronised": None, "follows": None}, ""),
        ({"claim": Unavailable("no")}, ""),
        ({"claim": None}, ""),
    ],
)
def test_findings_quote_the_daemon(stated: dict[str, Any], words: str) -> None:
    """`unsynced`, `daemon-stale` and `daemon-count` end with what the time daemon itself reports."""
    daemon = stating(daemon=NTPD, **stated)
    stale = case(daemons=(daemon,))._replace(earlier=EarlierState(stale_s=8000.0))
    several = case(kernel=UNSYNCHRONISED, daemons=(CHRONYD, daemon))
    unsynced = case(kernel=UNSYNCHRONISED, daemons=(daemon,))
    for context, name, before in (
        (unsynced, "unsynced", "although ntpd runs: at 50 ppm it drifts by 1 s in 5.6 h"),
        (stale, "daemon-stale", "or has lost its servers"),
        (several, "daemon-count", "ntpd (pid 812)"),
    ):
        (message,) = [one.message for one in findings_of(context) if one.id == name]
        assert message.endswith(before + words)


@pytest.mark.parametrize(
    ("stated", "fires"),
    [
        ({}, False),
        ({"is_synchronised": False}, False),  # it says nothing of a leap indicator
        ({"is_synchronised": False, "leap": 3}, True),
        ({"is_synchronised": None, "leap": 3}, False),
        ({"claim": Unavailable("no")}, False),
    ],
)
def test_chronyd_without_rtcsync_is_asked_itself(stated: dict[str, Any], fires: bool) -> None:
    """The kernel's flag proves nothing while chronyd runs (A5), unless chronyd reports the same."""
    context = case(kernel=UNSYNCHRONISED, daemons=(stating(**stated),))
    assert ("unsynced" in {one.id for one in findings_of(context)}) == fires


# --- a daemon that has stopped ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "earlier", "found"),
    [
        (case(), EarlierState(vanished="chronyd"), {}),  # another one runs
        (case(daemons=()), EarlierState(vanished="chronyd"), {"daemon-dead": None}),
        (case(daemons=()), EarlierState(stale_s=599.0), {}),
        (case(daemons=()), EarlierState(stale_s=600.0), {"daemon-dead": None}),
        (case(daemons=()), EarlierState(stale_s=4000.0), {"daemon-dead": None, "daemon-stale": "daemon-dead"}),
        (
            case(daemons=(), kernel=UNSYNCHRONISED),
            EarlierState(vanished="ntpd"),
            {"daemon-dead": None, "unsynced": "daemon-dead"},
        ),
        (case(daemons=(), kernel=Unavailable("no")), EarlierState(vanished="ntpd"), {"daemon-dead": None}),
        (case(daemons=(), kernel=Unavailable("no")), EarlierState(), {"daemon-count": None}),
        (case(daemons=HiddenDaemons("hidden")), EarlierState(stale_s=900.0), {}),
        (case(daemons=HiddenDaemons("hidden")), EarlierState(vanished="ntpd"), {"daemon-dead": None}),
        (case(daemons=(), taken=reading(uptime_ns=DAY)._replace(boottime_ns=60 * S)), EarlierState(stale_s=900.0), {}),
    ],
)
def test_daemon_dead(context: AuditContext, earlier: EarlierState, found: dict[str, str | None]) -> None:
    """R12: the cause counts once; that the kernel is not updated any more, or says so, is listed under it."""
    listed = findings_of(context._replace(earlier=earlier))
    assert {one.id: one.cause for one in listed if one.id in found or "daemon" in one.id} == found


SERVING = CHRONYD._replace(disciplines=False, reason="started with -x")


@pytest.mark.parametrize(
    ("daemons", "words", "fix"),
    [
        ((SERVING,), "chronyd no longer disciplines the clock, and no other time daemon does", "without what"),
        ((), "chronyd has stopped, and no other time daemon was found", "systemctl unmask UNIT"),
    ],
)
def test_daemon_that_only_serves_has_not_stopped(daemons: tuple[Daemon, ...], words: str, fix: str) -> None:
    """`chronyd -x` after chronyd: to start it would change nothing."""
    for kernel in (SYNCHRONISED, UNSYNCHRONISED):
        context = case(daemons=daemons, kernel=kernel)._replace(earlier=EarlierState(vanished="chronyd"))
        (found,) = [one for one in findings_of(context) if one.id == "daemon-dead"]
        assert found.message.startswith(words)
        assert ("chronyd (pid 811) runs and does not (started with -x)" in found.message) == bool(daemons)
        assert fix in found.remedy


SPLIT = tuple(answered(number, measurement(number * S)) for number in (1, 2, 3, 4))
KEYED = Configuration(tuple(ConfiguredServer(one.source.name, key=True) for one in case().selection.sources))


@pytest.mark.parametrize(
    ("sources", "servers", "words", "fix"),
    [
        (
            FOUR,
            KEYED,
            "4 of its servers reply to ntpaudit, which queries without authentication; one possible cause",
            "bindacq",
        ),
        (
            FOUR,
            Configuration((ConfiguredServer("ntp1.example.net"),)),
            "1 of its servers replies to ntpaudit",
            "bindacq",
        ),
        (
            SPLIT,
            KEYED,
            "4 of its servers reply to ntpaudit, and no majority of the servers agrees",
            "which server is wrong",
        ),
        (FOUR, Configuration((ConfiguredServer("elsewhere", key=True),)), "follows no server", "UDP 123"),
    ],
)
def test_check_says_why_a_daemon_may_not_be_synchronised(
    sources: tuple[SourceObservation, ...], servers: Configuration, words: str, fix: str
) -> None:
    """As the agent does; keys are no cause where the servers disagree."""
    daemon = stating(Claim(DAY, is_synchronised=False, leap=3), NTPD)._replace(configuration=servers)
    observed = case(*sources, kernel=UNSYNCHRONISED, daemons=(daemon,)).observation
    (found,) = [
        one for one in conclude(observed, PROFILES["log-integrity"], Labels("1")).findings if one.id == "unsynced"
    ]
    assert words in found.message
    assert ("keys" in found.message) == ("possible cause" in words)
    assert fix in found.remedy


def test_daemons_of_one_name_are_named_with_their_pids() -> None:
    """By pid and service; servers that reply are those of one of them. Near miss: daemons of two names."""
    daemons = (
        stating(Claim(DAY, is_synchronised=False, leap=3))._replace(configuration=KEYED, unit="chrony.service"),
        stating(follows="ntp5.example.net", updated_s=None)._replace(pid=272, unit="site-time.service"),
    )
    for several in (True, False):
        observed = case(kernel=UNSYNCHRONISED, daemons=daemons if several else (daemons[0], NTPD)).observation
        findings = conclude(observed, PROFILES["log-integrity"], Labels("1")).findings
        (message,) = [one.message for one in findings if one.id == "daemon-count"]
        first = "; chronyd (pid 811, chrony.service) reports" if several else "; chronyd reports"
        assert f"{first} that it is not synchronised and follows no server, but 4 of its servers reply" in message
        if several:
            assert message.endswith("; chronyd (pid 272, site-time.service) reports that it follows ntp5.example.net")
