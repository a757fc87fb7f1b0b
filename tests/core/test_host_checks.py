"""Every rule: when it fires, when it does not, and what it says."""

import re
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest

from ntpaudit.core import checks
from ntpaudit.core.checks.context import (
    AuditContext,
    Contradiction,
    DroppedAgreement,
    EarlierState,
    Gap,
    HostRule,
)
from ntpaudit.core.checks.host import RULES, findings_of
from ntpaudit.core.checks.records import UNMEASURED
from ntpaudit.core.checks.rule import LEVEL_SEVERITY, Finding, Raised, make_finding, worst_first
from ntpaudit.core.checks.steps import describe_step, level_of_step, step_severity_key
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.steps import Step, StepCause
from ntpaudit.core.ntp.time import PIVOT_NS, decode
from ntpaudit.core.observation import Daemon, HiddenDaemons, SourceFailure, SourceObservation, Unavailable
from ntpaudit.core.policy import PROFILES, Profile, Severity
from ntpaudit.core.selection import ClassifiedSource, Selection
from ntpaudit.core.units import DAY_S
from ntpaudit.probes.daemons import chronyd, timesyncd
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
    YEAR,
    S,
    answered,
    case,
    failed,
    measurement,
    reading,
    reply,
    wire,
)
from tests.message_examples import HOSTS


def documented_levels(wanted: str) -> set[str]:
    """Return the levels of which a rule says when its finding has them."""
    return {level for rule in RULES if rule.id == wanted for key in rule.raised_when for level in key.split(", ")}


def worst_severity(rule: HostRule) -> Severity:
    """Return the severity of the worst level that a rule documents."""
    return max(severity for level, severity in LEVEL_SEVERITY.items() if level in documented_levels(rule.id))


def found(seen: AuditContext, wanted: str) -> Finding | None:
    """Return the finding of one rule, if it fired; its level is one that the rule documents."""
    fired = [finding for finding in findings_of(seen) if finding.id == wanted]
    assert len(fired) <= 1
    assert {finding.level for finding in fired} <= documented_levels(wanted)
    return fired[0] if fired else None


def level(seen: AuditContext, wanted: str) -> str | None:
    """Return the level at which a rule fired, None where it did not."""
    finding = found(seen, wanted)
    return finding and finding.level


def said(seen: AuditContext, wanted: str) -> str:
    """Return what a rule that fired says."""
    finding = found(seen, wanted)
    assert finding is not None
    return finding.message


def off(offset_ns: int, half_width_ns: int = 10 * MS) -> tuple[SourceObservation, ...]:
    """Make four independent sources that agree on an offset."""
    return tuple(answered(number, measurement(offset_ns, half_width_ns)) for number in (1, 2, 3, 4))


def up(seconds: int) -> dict[str, Any]:
    """Say how long the host is up, for `case`."""
    return {"taken": reading(uptime_ns=DAY)._replace(boottime_ns=seconds * S)}


# --- the list -----------------------------------------------------------------------------------------------------


def test_a_host_in_order_has_no_findings() -> None:
    """Where four sources agree, one daemon runs and the kernel is synchronised, nothing is found."""
    assert findings_of(case()) == ()


def test_ids_are_unique_words() -> None:
    """Every id is in kebab-case, and no two rules share one; the list of message ids has each of them."""
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", one) for one in ids)


def test_each_rule_has_its_check_and_its_remedy() -> None:
    """The check of `offset-out` is `check_offset_out`, and so on; each has a remedy, a docstring and its controls."""
    for rule in RULES:
        assert rule.check.__name__ == "check_" + rule.id.replace("-", "_")
        assert rule.check.__doc__
        assert rule.remedy
        assert rule.remedy[-1] != "."
        assert all(control.strip() for control in rule.controls)
    listed = {rule.check for rule in RULES}
    modules = [import_module(f"ntpaudit.core.checks.{module.name}") for module in iter_modules(checks.__path__)]
    written = {value for module in modules for name, value in vars(module).items() if name.startswith("check_")}
    assert listed == written


def test_levels_count_as_the_design_says() -> None:
    """Critical is critical, high and medium are a warning, low is listed and not counted."""
    assert LEVEL_SEVERITY == {
        "critical": Severity.CRITICAL,
        "high": Severity.WARNING,
        "medium": Severity.WARNING,
        "low": Severity.OK,
    }


def coursing(seen: AuditContext | None = None, **known: Any) -> AuditContext:
    """Return a case with what an agent knows beside it."""
    return (seen or case())._replace(earlier=EarlierState(**known))


def gap(span_s: float, *, interval_s: float = 300.0, has_ended: bool = False) -> Gap:
    """Return a time without a measurement under one polling interval."""
    return Gap(span_s, span_s / interval_s, has_ended)


def drifting(
    rate_ppm: float | None = 20.0,
    *,
    raw_ppm: float | None = 20.0,
    skew_ppm: float = 0.1,
    pessimistic_s: float | None = 30_000.0,
    central_s: float | None = 50_000.0,
    free_running: bool = False,
) -> AuditContext:
    """Return the case of a clock that drifts."""
    breach = Breach(pessimistic_s, central_s, None, 0.0, free_running, False)
    return coursing(drift=Drift(rate_ppm, raw_ppm, skew_ppm, 20, breach))


def set_by(size_ns: int, *, boottime_ns: int = DAY, is_gap: bool = False) -> Step:
    """Set the clock from noon by an offset."""
    return Step(size_ns, NOON, NOON + size_ns, boottime_ns, is_gap)


RAISED = {rule.id: [context for context in HOSTS if rule.check(context) is not None] for rule in RULES}
"""For each rule the hosts of the page of messages on which it raises its finding."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_finding_says_all_that_is_needed(rule: HostRule) -> None:
    """Whatever is found has its rule's id, remedy and controls, a message, and the severity of its level."""
    listed = [(finding, rule.check(seen)) for seen in RAISED[rule.id] if (finding := found(seen, rule.id)) is not None]
    assert listed, f"add a host that raises {rule.id} to tests/message_examples.py"
    for finding, raised in listed:
        assert raised is not None
        assert (finding.id, finding.controls) == (rule.id, rule.controls)
        assert finding.remedy == (raised.remedy or rule.remedy)
        assert finding.message
        counts_as = LEVEL_SEVERITY[finding.level] if rule.counts_as is None else rule.counts_as
        assert finding.severity == (Severity.OK if finding.cause else counts_as)


def test_the_worst_finding_comes_first() -> None:
    """Findings are ordered by level, critical, high, medium, low, and within a level as the list has them."""
    seen = case(
        *(answered(number, measurement(HOUR)) for number in (1, 2, 3)),
        failed(4, discarded={"bogus": 5}),
        failed(5, "rejected", "kod:RATE"),
        kernel=UNSYNCHRONISED,
        daemons=(NTPD, Daemon("openntpd", 7)),
    )
    assert [(finding.id, finding.level) for finding in findings_of(seen)] == [
        ("offset-out", "critical"),
        ("unsynced", "high"),
        ("daemon-count", "medium"),  # after the finding that it is listed under
        ("tz-or-rtc-fault", "high"),
        ("suspected-spoofing", "high"),
        ("kiss-of-death", "medium"),
        ("source-quorum", "low"),
        ("unreachable-sources", "low"),
    ]


# --- the offset ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "half_width", "fires"),
    [
        (0, 10 * MS, False),
        (S - 10 * MS, 10 * MS, False),  # within, just
        (S + 10 * MS, 10 * MS, False),  # the near end is the tolerance itself
        (S + 10 * MS + 1, 10 * MS, True),
        (-S - 10 * MS, 10 * MS, False),
        (-S - 10 * MS - 1, 10 * MS, True),
        (S, 900 * MS, False),
        (HOUR, 10 * MS, True),
    ],
)
def test_offset_out(offset: int, half_width: int, fires: bool) -> None:
    """NTPA-01 fires when even the near end of the interval is beyond the critical tolerance, on either side."""
    assert level(case(*off(offset, half_width)), "offset-out") == ("critical" if fires else None)


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (2 * S, r"at least 1.99 s behind \(critical tolerance 1 s\)$"),
        (-2 * S, r"at least 1.99 s ahead \(critical tolerance 1 s\)$"),
        (60 * S + 10 * MS, r"at least 60 s behind \(critical tolerance 1 s\)$"),
        (60 * S + 11 * MS, "SIEM rules that join events within 5 minutes"),
        (300 * S + 10 * MS, "SIEM rules that join events within 5 minutes"),
        (300 * S + 11 * MS, "Kerberos"),
        (-301 * S, "Kerberos"),
    ],
)
def test_offset_out_says_how_far_and_which_way(offset: int, words: str) -> None:
    """The message has the least error, rounded down, its direction, and what fails beyond 60 s and 300 s (§1.5)."""
    message = said(case(*off(offset)), "offset-out")
    assert re.search(words, message), message
    assert ("Kerberos" in message) + ("SIEM" in message) <= 1


@pytest.mark.parametrize(
    ("offset", "half_width", "fires"),
    [
        (0, 50 * MS, False),
        (0, 50 * MS + 1, True),
        (40 * MS, 10 * MS, False),
        (40 * MS, 10 * MS + 1, True),
        (60 * MS, 10 * MS, True),
        (60 * MS + 1, 10 * MS, False),  # beyond, and so offset-out
    ],
)
def test_not_demonstrable(offset: int, half_width: int, fires: bool) -> None:
    """NTPA-09 fires when the interval lies partly inside the tolerance and partly outside."""
    seen = case(*off(offset, half_width), profile=PROFILES["finra-cat"])
    assert level(seen, "not-demonstrable") == ("medium" if fires else None)


def test_not_demonstrable_has_the_maximum_error() -> None:
    """The message has the maximum error, rounded up, and the tolerance."""
    message = said(case(*off(40 * MS, 20_500_000), profile=PROFILES["finra-cat"]), "not-demonstrable")
    assert "up to 60.5 ms wrong" in message
    assert "not proven to be within 50 ms" in message
    assert message.endswith("(estimate: 40 ms behind)")


@pytest.mark.parametrize(
    ("offset", "half_width", "fix"),
    [
        (990 * MS, 50 * MS, "the clock is probably wrong"),
        (-150 * MS, 900 * MS, "use nearer servers"),  # the interval contains 0
        (60 * MS, 950 * MS, "use nearer servers"),
    ],
)
def test_an_unproven_clock_that_is_wrong_is_not_the_fault_of_its_servers(
    offset: int, half_width: int, fix: str
) -> None:
    """Where the offset exceeds the warning tolerance and the interval excludes 0, the fix is not a larger tolerance."""
    assert remedy_of(case(*off(offset, half_width)), "not-demonstrable").startswith(fix)


# --- the sources --------------------------------------------------------------------------------------------------

NEIGHBOURS = tuple(answered(number, address=f"192.0.2.{number}") for number in (1, 2, 3, 4))
WRONG = answered(9, measurement(S))
HERE = answered(8, address="127.0.0.1")
REFUSED_HERE = HERE._replace(outcome=SourceFailure("unreachable", "refused"))
WRONG_NEIGHBOURS = tuple(answered(number, measurement(S), address=f"198.51.100.{number}") for number in (7, 8))
LOOP = answered(7, measurement(said=reply(reference_id=b"\x0a\0\0\7", warnings=("sync-loop",))))

QUORUM: list[tuple[str, tuple[SourceObservation, ...], str | None, str]] = [
    ("four", FOUR, None, ""),
    ("five", (*FOUR, answered(5)), None, ""),
    ("no reply", (failed(1),), None, ""),
    ("only a distant one", (answered(1, measurement(0, 2 * S)),), None, ""),
    ("one", FOUR[:1], "medium", "only one server: if it is wrong"),
    ("one and failures", (*FOUR[:1], failed(2), failed(3, "rejected", "unsync")), "medium", "one server is usable"),
    ("one of four asked", (*FOUR[:1], *map(failed, (2, 3, 4))), "medium", "^only 1 of 4 servers gave a usable"),
    ("two of seven asked", (*FOUR[:2], *map(failed, (3, 4, 5, 6, 7))), "medium", "^only 2 of 7 servers gave"),
    ("two of four asked", (*FOUR[:2], failed(3), failed(4)), "low", "^only 2 servers: 4 are needed"),
    ("two", FOUR[:2], "low", "^only 2 servers: 4 are needed"),
    ("three", FOUR[:3], "low", "^only 3 servers: 4 are needed"),
    ("two that disagree", (*FOUR[:1], WRONG), "medium", "^2 servers replied, and no majority"),
    ("two against two", (*FOUR[:2], WRONG, answered(7, measurement(S))), "medium", "^4 servers replied, and no maj"),
    ("one of three is wrong", (*FOUR[:2], WRONG), "medium", r"^1 of 3 usable servers disagrees: ntp9\.example\.net$"),
    ("one of four is wrong", (*FOUR[:3], WRONG), "low", r"^1 of 4 usable servers disagrees: ntp9\.example\.net$"),
    ("two of six", (*FOUR, WRONG, answered(7, measurement(-S))), "medium", "^2 of 6 usable servers.*: ntp9.*ntp7"),
    ("two of seven", (*FOUR, answered(5), WRONG, answered(7, measurement(-S))), "low", "^2 of 7 usable servers disag"),
    ("two neighbours of five are wrong", (*FOUR[:3], *WRONG_NEIGHBOURS), "medium", "^2 of 5 usable servers disagree"),
    ("two neighbours of six are wrong", (*FOUR, *WRONG_NEIGHBOURS), "medium", "^2 of 6 usable servers disagree"),
    ("two neighbours of seven are wrong", (*FOUR, answered(5), *WRONG_NEIGHBOURS), "low", "^2 of 7 usable servers dis"),
    ("a server that follows us", (*FOUR, LOOP), "medium", "^ntp7.example.net reports this host as"),
    ("an address of this host", (*FOUR, answered(8)._replace(is_own=True)), "medium", "^ntp8.example.net is this host"),
    ("neighbours", NEIGHBOURS, "low", "share one network or one upstream"),
    ("two neighbours", NEIGHBOURS[:2], "low", "share one network or one upstream"),
    ("neighbours and another", (*NEIGHBOURS, answered(9)), None, ""),
    ("this host's own daemon", (*FOUR, HERE), "medium", "^ntp8.example.net is this host"),
    ("this host's own daemon by IPv6", (*FOUR, answered(8, address="::1")), "medium", "is this host: its reply counts"),
    ("another port of this host", (*FOUR, answered(8, address="127.0.0.1", port=1123)), None, ""),
    ("this host's own daemon alone", (HERE,), "medium", "is this host: its reply counts, but"),
    ("a failing daemon of this host", (*FOUR, REFUSED_HERE), None, ""),
]  # fmt: skip


@pytest.mark.parametrize(("sources", "wanted", "words"), [row[1:] for row in QUORUM], ids=[row[0] for row in QUORUM])
def test_source_quorum(sources: tuple[SourceObservation, ...], wanted: str | None, words: str) -> None:
    """NTPA-14: too few sources, no majority, a third wrong, one failure domain for all, or only this host itself."""
    seen = case(*sources)
    assert level(seen, "source-quorum") == wanted
    if wanted:
        assert re.search(words, said(seen, "source-quorum"))


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ((answered(1),), "configure at least 4"),
        ((*FOUR, answered(9, measurement(9 * S))), "find out which server is wrong, and replace it"),
        ((answered(1), answered(2, measurement(9 * S))), "find out which server is wrong (`ntpaudit check SERVER...`"),
        ((*FOUR, HERE), "use servers on other hosts"),
        ((*FOUR, LOOP), "use servers on other hosts"),
        (NEIGHBOURS, "configure at least 4"),
    ],
)
def test_each_case_of_source_quorum_has_its_fix(sources: tuple[SourceObservation, ...], words: str) -> None:
    """More servers help where they are too few, not where one is wrong or follows this host."""
    finding = found(case(*sources), "source-quorum")
    assert finding is not None
    assert finding.remedy.startswith(words)


def spans(*ends_ms: tuple[int, int]) -> tuple[SourceObservation, ...]:
    """Make independent sources that allow these offsets, in milliseconds."""
    return tuple(
        answered(number, measurement((low + high) // 2 * MS, earliest_ns=low * MS, latest_ns=high * MS))
        for number, (low, high) in enumerate(ends_ms, 1)
    )


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param(
            spans((0, 100), (0, 100), (0, 100), (0, 10), (90, 100), (500, 501), (900, 901)), id="two far away"
        ),
        pytest.param(spans((0, 100), (0, 100), (0, 10), (40, 50), (90, 100)), id="unknown which is wrong"),
        pytest.param(spans((0, 60), (50, 100), (90, 150)), id="a chain of three"),
    ],
)
def test_more_are_wrong_than_assumed(sources: tuple[SourceObservation, ...]) -> None:
    """Where a third or more must lie for what was said, it is a warning, whether or not they can be named (NTPA-14)."""
    seen = case(*sources)
    assert seen.selection.agreement is not None
    assert seen.selection.agreement.exceeded_assumption
    assert level(seen, "source-quorum") == "medium"


def test_one_upstream_is_one_fate() -> None:
    """Servers far apart that all follow the same third one can be wrong together (S8)."""
    same = measurement(said=reply(reference_id=b"\x0a\x09\x09\x09"))
    seen = case(*(answered(number, same) for number in (1, 2, 3, 4)))
    assert level(seen, "source-quorum") == "low"
    assert "one upstream server" in said(seen, "source-quorum")


@pytest.mark.parametrize(
    ("silent", "others", "wanted"),
    [(0, 4, None), (1, 4, "low"), (1, 2, "low"), (1, 1, "medium"), (2, 1, "medium"), (3, 4, "low")],
)
def test_unreachable_sources(silent: int, others: int, wanted: str | None) -> None:
    """Silence is reported, and is a warning once it is half of the sources."""
    sources = (*FOUR[:others], *(failed(number) for number in range(11, 11 + silent)))
    assert level(case(*sources), "unreachable-sources") == wanted


@pytest.mark.parametrize("status", ["rejected", "skipped"])
def test_a_source_that_replied_or_was_not_queried_is_not_silent(status: str) -> None:
    """A bad answer is no silence, nor is a question that was not asked."""
    assert level(case(*FOUR, failed(5, status, "bogus")), "unreachable-sources") is None


def test_the_silent_are_named_with_their_reasons() -> None:
    """The first four silent sources are named with their reasons, and the rest counted."""
    few = said(case(*FOUR, failed(7, reason="refused"), failed(8)), "unreachable-sources")
    assert few == (
        "1 of 6 servers did not reply: ntp8.example.net (timeout); 1 of 6 servers refuses the query: "
        "ntp7.example.net (refused)"
    )
    unsent = (failed(7, reason="forbidden"), failed(8, reason="net-unreachable"))
    assert said(case(*FOUR, *unsent), "unreachable-sources") == (
        "2 of 6 servers could not be queried: ntp7.example.net (forbidden), ntp8.example.net (net-unreachable)"
    )
    four = said(case(*(failed(number) for number in range(4))), "unreachable-sources")
    assert four.endswith("ntp3.example.net (timeout)")
    five = said(case(*(failed(number) for number in range(5))), "unreachable-sources")
    assert five.endswith("ntp3.example.net (timeout) and 1 more")
    many = said(case(*(failed(number) for number in range(6))), "unreachable-sources")
    assert many.startswith("6 of 6 servers did not reply: ntp0")
    assert many.endswith("ntp3.example.net (timeout) and 2 more")


@pytest.mark.parametrize(
    ("status", "reason", "wanted"),
    [
        ("rejected", "kod:RATE", "medium"),
        ("rejected", "kod:DENY", "medium"),
        ("rejected", "kod:RSTR", "medium"),
        ("skipped", "kod:DENY", "medium"),
        ("skipped", "kod:RATE", "medium"),
        ("rejected", "kod:INIT", "low"),
        ("rejected", "kod:0x00010203", "low"),
        ("skipped", "interval", None),
        ("rejected", "bogus", None),
        ("unreachable", "timeout", None),
    ],
)
def test_kiss_of_death(status: str, reason: str, wanted: str | None) -> None:
    """A kiss-o'-death is reported, now or while it still applies; one that orders nothing is listed only (K2 to K4)."""
    seen = case(*FOUR, failed(5, status, reason))
    assert level(seen, "kiss-of-death") == wanted
    if wanted:
        assert f"ntp5.example.net ({reason[4:]})" in said(seen, "kiss-of-death")


@pytest.mark.parametrize(
    ("discarded", "fires"),
    [
        ({}, False),
        ({"bogus": 2}, False),
        ({"bogus": 3}, True),
        ({"zero-origin": 3}, True),
        ({"bogus": 2, "zero-origin": 1}, True),
        ({"duplicate": 99, "malformed": 99, "wrong-source": 99, "bogus": 2}, False),
    ],
)
def test_suspected_spoofing(discarded: dict[str, int], fires: bool) -> None:
    """Three replies with a foreign origin are an attack; duplicates and garbage are none (V5, RFC 8633 §5.3)."""
    seen = case(*FOUR[:3], answered(4, discarded=discarded))
    assert level(seen, "suspected-spoofing") == ("high" if fires else None)


def test_four_forged_servers_are_named() -> None:
    """Of many servers in whose name was forged the four most used are named."""
    message = said(case(*(failed(n, discarded={"bogus": n}) for n in range(7))), "suspected-spoofing")
    assert message.endswith("come from ntp6.example.net, ntp5.example.net, ntp4.example.net, ntp3.example.net")


def test_an_order_among_other_kisses_counts() -> None:
    """Where one of several kisses is an order the whole finding counts (K2, K3)."""
    seen = case(*FOUR, failed(5, "rejected", "kod:INIT"), failed(6, "rejected", "kod:DENY"))
    assert level(seen, "kiss-of-death") == "medium"


def test_spoofing_is_counted_over_all_sources() -> None:
    """Single forgeries in the name of several servers add up, and the most forged are named first."""
    seen = case(*FOUR, failed(5, discarded={"bogus": 2}), failed(6, discarded={"bogus": 40}))
    assert said(seen, "suspected-spoofing") == (
        "42 replies match no query of this host; they claim to come from ntp6.example.net, ntp5.example.net"
    )


# --- the host -----------------------------------------------------------------------------------------------------

NO_KERNEL = Unavailable("not permitted")
NO_DAEMONS = HiddenDaemons("the processes of other users are hidden here")
SERVES_ONLY = chronyd.KIND.daemon(811, disciplines=False, reason="started with -x")
FAKE = chronyd.KIND.daemon(4711, disciplines=False, reason="cannot set the clock: it lacks CAP_SYS_TIME")
OWN_NAMESPACE = HiddenDaemons("this container hides them", (SERVES_ONLY,))
GUEST_TOOLS = Daemon("vmtoolsd", 600, disciplines=None, reason="the hypervisor decides")
HV_UTILS = Daemon("hv_utils", 0, disciplines=False, reason="sets the clock when the machine starts")
KERNEL_AT_LIMIT = SYNCHRONISED._replace(maxerror_s=16.0)

HOST_CASES: list[tuple[str, dict[str, Any], str | None, str | None]] = [
    # what, how the host is, unsynced, daemon-count
    ("in order", {}, None, None),
    ("ntpd in order", {"daemons": (NTPD,)}, None, None),
    ("chronyd without rtcsync (A5)", {"kernel": UNSYNCHRONISED}, None, None),
    ("ntpd not synchronised", {"kernel": UNSYNCHRONISED, "daemons": (NTPD,)}, "high", None),
    ("UNSYNC alone", {"kernel": SYNCHRONISED._replace(status=0x40), "daemons": (NTPD,)}, "high", None),
    ("TIME_ERROR alone", {"kernel": SYNCHRONISED._replace(state=5), "daemons": (NTPD,)}, "high", None),
    ("error bound at its limit", {"kernel": KERNEL_AT_LIMIT, "daemons": (NTPD,)}, "high", None),
    ("error bound below it", {"kernel": SYNCHRONISED._replace(maxerror_s=15.9), "daemons": (NTPD,)}, None, None),
    ("leap second ahead", {"kernel": SYNCHRONISED._replace(state=1, status=0x11), "daemons": (NTPD,)}, None, None),
    ("no daemon at all", {"kernel": UNSYNCHRONISED, "daemons": ()}, "high", None),
    ("chronyd -x and no other", {"kernel": UNSYNCHRONISED, "daemons": (SERVES_ONLY,)}, "high", None),
    ("chronyd -x beside ntpd", {"daemons": (SERVES_ONLY, NTPD)}, None, None),
    ("chronyd -x beside a failing ntpd", {"kernel": UNSYNCHRONISED, "daemons": (SERVES_ONLY, NTPD)}, "high", None),
    ("container, daemon outside", {"daemons": ()}, None, None),
    ("container, none outside", {"daemons": (), "kernel": UNSYNCHRONISED}, "high", None),
    ("container that may not ask", {"daemons": (), "kernel": NO_KERNEL}, None, "medium"),
    ("two that fight", {"daemons": (CHRONYD, NTPD)}, None, "medium"),
    ("two that fight, one chronyd", {"daemons": (CHRONYD, NTPD), "kernel": UNSYNCHRONISED}, None, "medium"),
    ("two of one kind", {"daemons": (CHRONYD, chronyd.KIND.daemon(900))}, None, "medium"),
    ("kernel not asked", {"kernel": NO_KERNEL}, None, None),
    ("daemons not seen", {"daemons": NO_DAEMONS}, None, None),
    ("daemons not seen, none outside", {"daemons": NO_DAEMONS, "kernel": UNSYNCHRONISED}, "medium", None),
    ("chronyd -x beside hidden ones", {"daemons": OWN_NAMESPACE, "kernel": UNSYNCHRONISED}, "medium", None),
    ("chronyd beside hidden ones", {"daemons": HiddenDaemons("", (CHRONYD,)), "kernel": UNSYNCHRONISED}, None, None),
    ("ntpd fails beside hidden ones", {"daemons": HiddenDaemons("", (NTPD,)), "kernel": UNSYNCHRONISED}, "high", None),
    ("two beside hidden ones", {"daemons": HiddenDaemons("", (CHRONYD, NTPD))}, None, "medium"),
    ("a chronyd that is none", {"daemons": (FAKE,), "kernel": UNSYNCHRONISED}, "high", None),
    ("a chronyd that is none beside ntpd", {"daemons": (FAKE, NTPD)}, None, None),
    ("guest tools", {"daemons": (GUEST_TOOLS,), "kernel": UNSYNCHRONISED}, "medium", None),
    ("guest tools beside ntpd", {"daemons": (GUEST_TOOLS, NTPD)}, None, None),
    ("Hyper-V and no other", {"daemons": (HV_UTILS,), "kernel": UNSYNCHRONISED}, "high", None),
    ("just booted, none", {"kernel": UNSYNCHRONISED, "daemons": ()} | up(1019), None, None),
    ("grace is over, none", {"kernel": UNSYNCHRONISED, "daemons": ()} | up(1020), "high", None),
    ("just booted, ntpd", {"kernel": UNSYNCHRONISED, "daemons": (NTPD,)} | up(60), None, None),
    ("just booted, two", {"daemons": (CHRONYD, NTPD)} | up(60), None, "medium"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "unsynced", "daemon_count"), [row[1:] for row in HOST_CASES], ids=[row[0] for row in HOST_CASES]
)
def test_who_keeps_the_clock(how: dict[str, Any], unsynced: str | None, daemon_count: str | None) -> None:
    """NTPA-05 and NTPA-17: with 17 minutes of grace, and never on STA_UNSYNC alone where chronyd runs (A4, A5)."""
    assert level(case(**how), "unsynced") == unsynced
    alone = found(case(**how), "daemon-count")
    assert (alone.level if alone and not alone.cause else None) == daemon_count


def test_the_daemons_are_named() -> None:
    """Who fights is named with its pid, and who fails to synchronise with its name."""
    assert said(case(daemons=(CHRONYD, NTPD)), "daemon-count").endswith("chronyd (pid 811), ntpd (pid 812)")
    assert "although ntpd runs" in said(case(kernel=UNSYNCHRONISED, daemons=(NTPD,)), "unsynced")
    assert "no time daemon disciplines it" in said(case(kernel=UNSYNCHRONISED, daemons=()), "unsynced")


def test_a_lack_of_daemons_is_one_finding() -> None:
    """Where the kernel says so too, `unsynced` counts, and the daemons are listed under it."""
    alone = case(kernel=UNSYNCHRONISED, daemons=())
    unsynced, count = findings_of(alone)
    assert (unsynced.id, unsynced.cause, unsynced.severity) == ("unsynced", None, Severity.WARNING)
    assert (count.id, count.cause, count.level, count.severity) == ("daemon-count", "unsynced", "medium", Severity.OK)
    two = case(kernel=UNSYNCHRONISED, daemons=(NTPD, Daemon("ntpd", 901)))
    assert [(one.id, one.cause) for one in findings_of(two)] == [("unsynced", None), ("daemon-count", "unsynced")]
    (alone_now,) = findings_of(case(daemons=(NTPD, Daemon("ntpd", 901))))
    assert (alone_now.id, alone_now.cause, alone_now.severity) == ("daemon-count", None, Severity.WARNING)


def test_a_related_finding_cannot_raise_the_severity() -> None:
    """No rule is listed under one that may be less severe, nor under one that can itself disappear from the list."""
    rules = {rule.id: rule for rule in RULES}
    for rule in RULES:
        for primary in map(rules.__getitem__, rule.caused_by):
            assert set(primary.covered_by) <= set(rule.caused_by[: rule.caused_by.index(primary.id)])
            assert rule.basis in (primary.basis, "moment")  # each audit judges one of a moment
            assert worst_severity(rule) <= worst_severity(primary)
            assert rule.id not in primary.caused_by  # nor is there a circle, or `cause_of` would not end


def test_what_could_not_be_seen_is_not_claimed() -> None:
    """If processes are hidden, no daemon is not claimed: chronyd without rtcsync may run (A5)."""
    message = said(case(kernel=UNSYNCHRONISED, daemons=NO_DAEMONS), "unsynced")
    assert message.endswith(
        "whether a time daemon disciplines it is unknown: the processes of other users are hidden here"
    )
    assert "no time daemon" not in message
    message = said(case(kernel=UNSYNCHRONISED, daemons=(GUEST_TOOLS,)), "unsynced")
    assert message.endswith(
        "whether a time daemon disciplines it is unknown: vmtoolsd (pid 600): the hypervisor decides"
    )


@pytest.mark.parametrize(
    ("seconds", "fires"),
    [
        (0, False),
        (1, False),
        (14, False),
        (450, False),
        (884, False),
        (885, False),
        (885.001, True),
        (900, True),
        (914.999, True),
        (915, False),
        (1350, False),
        (1785.001, True),
        (1785, False),
        (3600, True),
        (3585, False),
        (3615, False),
        (20_700, True),  # Nepal, 5:45
        (32_400.28, True),  # Japan, 9:00
        (50_400, True),  # 14:00
        (50_414.9, True),
        (51_300, False),  # 14:15: no zone is so far from UTC
        (86_400, False),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_tz_fault(seconds: float, fires: bool, sign: int) -> None:
    """NTPA-15: |offset| within 15 s of a multiple of a quarter of an hour, from 885 s to 14 h."""
    offset = sign * round(seconds * S)
    assert level(case(*off(offset)), "tz-or-rtc-fault") == ("high" if fires else None)


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (HOUR, "60 min behind"),
        (-HOUR, "60 min ahead"),
        (-9 * HOUR - 280 * MS, "9 h ahead"),
        (20_700 * S, "5.75 h behind"),
        (900 * S, "15 min behind"),
        (6300 * S, "105 min behind"),
        (7200 * S, "2 h behind"),
    ],
)
def test_tz_fault_names_the_zone(offset: int, words: str) -> None:
    """Whole quarters of an hour are named, with their direction."""
    assert f"the clock is almost exactly {words}: " in said(case(*off(offset)), "tz-or-rtc-fault")


@pytest.mark.parametrize("zone_s", [900 * quarters for quarters in range(1, 57)])
def test_tz_fault_names_every_zone_exactly(zone_s: int) -> None:
    """A zone that is called almost exact is exact: 12:45 h, the Chatham Islands', is not 12.8 h."""
    named = re.search(r"almost exactly ([\d.]+) (min|h) ", said(case(*off(zone_s * S)), "tz-or-rtc-fault"))
    assert named
    assert float(named[1]) * {"min": 60, "h": 3600}[named[2]] == zone_s


@pytest.mark.parametrize(("rtc_local", "wanted"), [(True, "low"), (False, None), (None, None)])
def test_rtc_in_local_time(rtc_local: bool | None, wanted: str | None) -> None:
    """A hardware clock in local time is reported where it is known, even while the clock is right."""
    assert level(case(host=HOST._replace(rtc_local=rtc_local)), "tz-or-rtc-fault") == wanted
    unmeasured = case(failed(1), host=HOST._replace(rtc_local=rtc_local))
    assert level(unmeasured, "tz-or-rtc-fault") == wanted


def test_a_clock_in_local_time_now_is_the_worse_fault() -> None:
    """Where the offset shows the fault already it is high, whatever the hardware clock is set to keep."""
    assert level(case(*off(HOUR), host=HOST._replace(rtc_local=True)), "tz-or-rtc-fault") == "high"


# --- what only an agent knows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_ns", "boottime_ns", "wanted"),
    [
        (S, DAY, "high"),
        (S - 1, DAY, "medium"),
        (10 * MS, DAY, "medium"),
        (10 * MS - 1, DAY, None),
        (11_000, DAY, None),
        (3600 * S, 300 * S, "low"),
        (3600 * S, 300 * S + 1, "high"),
        (50 * MS, 20 * S, "low"),
        (9 * MS, 20 * S, None),
        (150 * 366 * DAY, DAY, "high"),
    ],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_steps(size_ns: int, boottime_ns: int, wanted: str | None, sign: int) -> None:
    """NTPA-02: a step is high from 1 s on, medium from 10 ms on, low within 5 min of the boot, and else no finding."""
    seen = coursing(steps=(set_by(sign * size_ns, boottime_ns=boottime_ns),))
    kinds = ("step-forward", "step-back") if sign > 0 else ("step-back", "step-forward")
    assert [level(seen, kind) for kind in kinds] == [wanted, None]
    assert level_of_step(set_by(sign * size_ns, boottime_ns=boottime_ns)) == (wanted or "low")


def test_the_worst_of_several_steps_is_reported() -> None:
    """The largest step of a direction is reported; one while the host booted hides none that came later."""
    early, later = set_by(-3600 * S, boottime_ns=60 * S), set_by(-5 * S)
    for steps in ((early, later, set_by(-S), set_by(9 * S)), (set_by(9 * S), set_by(-S), later, early)):
        seen = coursing(steps=steps)
        assert (level(seen, "step-back"), said(seen, "step-back")) == ("high", describe_step(later))
        assert said(seen, "step-forward") == describe_step(set_by(9 * S))
    assert max((early, later), key=step_severity_key) is later


@pytest.mark.parametrize(
    ("cause", "wanted", "words"),
    [
        (StepCause(DAY, None), "critical", "the logs name no cause"),
        (StepCause(DAY, "a command", by_person=True), "critical", "by a command, which is no time daemon"),
        (StepCause(DAY, "chronyd"), None, "cause: chronyd"),
        (StepCause(DAY, None, unread="no journal"), None, "the cause is not known: no journal"),
        (None, None, "occur twice"),
    ],
)
def test_an_unattributed_change(cause: StepCause | None, wanted: str | None, words: str) -> None:
    """NTPA-03: critical if readable logs name no daemon, or a person; the finding about the step has what is known."""
    seen = coursing(steps=(set_by(-20 * MS)._replace(cause=cause),))
    assert level(seen, "unattributed-change") == wanted
    assert words in (said(seen, "unattributed-change" if wanted else "step-back") or "")
    (back,) = (finding for finding in findings_of(seen) if finding.id == "step-back")
    assert back.cause == (wanted and "unattributed-change")
    early = set_by(-3600 * S, boottime_ns=300 * S)._replace(cause=cause)
    assert level(coursing(steps=(early,)), "unattributed-change") is None


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            set_by(-3600 * S),
            "the clock was set back by 60 min; timestamps occur twice: "
            "2026-10-21T11:00:00.000000000Z to 2026-10-21T12:00:00.000000000Z",
        ),
        (
            set_by(20 * MS),
            "the clock was set forward by 20 ms; timestamps are missing: "
            "2026-10-21T12:00:00.000000000Z to 2026-10-21T12:00:00.020000000Z",
        ),
        (
            set_by(-S, is_gap=True),
            "the clock was set back by 1 s while no agent was running; timestamps occur twice: "
            "2026-10-21T11:59:59.000000000Z to 2026-10-21T12:00:00.000000000Z",
        ),
    ],
)
def test_a_step_says_which_logs_it_spoilt(step: Step, words: str) -> None:
    """The text of a step has its size, its direction and the window, earlier end first."""
    assert describe_step(step) == words


@pytest.mark.parametrize(
    ("known", "wanted", "words"),
    [
        ({"gap": gap(990.0)}, None, ""),
        (
            {"gap": gap(991.0)},
            "medium",
            "no measurement for 16.5 min (3.3 polling intervals)",
        ),
        ({"gap": gap(DAY_S)}, "medium", "for 24 h"),
        ({"gap": gap(DAY_S + 1)}, "high", "for 24 h"),
        ({"gap": gap(4000.0, interval_s=3600.0)}, None, ""),
        ({"gap": gap(11_881.0, interval_s=3600.0)}, "medium", "(3.3 polling intervals)"),
        ({"gap": gap(990.0, has_ended=True)}, None, ""),
        ({"gap": gap(991.0, has_ended=True)}, "medium", "no measurement for 16.5 min before this one"),
        ({"gap": gap(2 * DAY_S, has_ended=True)}, "high", "for 2 days before this one"),
        ({"dropped_records": 1}, "high", "1 record was lost before delivery: the history was full"),
        ({"dropped_records": 20, "gap": gap(2000.0)}, "high", "20 records"),
        ({}, None, ""),
    ],
)
def test_evidence_gap(known: dict[str, Any], wanted: str | None, words: str) -> None:
    """NTPA-07: more than three intervals, and their jitter, without a measurement are a gap; a day is high."""
    seen = coursing(**known)
    assert level(seen, "evidence-gap") == wanted
    assert wanted is None or words in said(seen, "evidence-gap")


@pytest.mark.parametrize(
    ("refusals", "failure", "wanted"),
    [
        (0, None, None),
        (2, "400: unable to parse", None),
        (3, "400: unable to parse", "has refused 3 writes and accepted none; last error: 400: unable to parse"),
        (40, None, "has refused 40 writes and accepted none"),
    ],
)
def test_delivery_refused(refusals: int, failure: str | None, wanted: str | None) -> None:
    """Many refusals in a row are a failure of delivery, which counts, and no fault of the records."""
    seen = coursing(refusals=refusals, failure=failure)
    assert level(seen, "delivery-refused") == (None if wanted is None else "medium")
    assert wanted is None or said(seen, "delivery-refused").endswith(wanted)


MAXIMUM_ERROR_GREW = (
    "no time daemon has updated the kernel's maximum error for 60 min: the time daemon is "
    "stopped or has lost its servers"
)


@pytest.mark.parametrize(
    ("stale_s", "daemons", "wanted"),
    [
        (None, (CHRONYD,), None),
        (3600.0, (CHRONYD,), None),
        (3601.0, (CHRONYD,), "medium"),
        (3601.0, (), "medium"),
        (3601.0, NO_DAEMONS, "medium"),
        (6144.0, (timesyncd.KIND.daemon(1),), None),
        (6145.0, (timesyncd.KIND.daemon(1),), "medium"),
        (3601.0, (timesyncd.KIND.daemon(1, disciplines=False),), "medium"),
        (DAY_S, (CHRONYD,), "medium"),
        (DAY_S + 1, (CHRONYD,), "high"),
    ],
)
def test_daemon_stale(stale_s: float | None, daemons: Any, wanted: str | None) -> None:
    """NTPA-06: an hour without an update of the kernel is medium, or three polls of timesyncd; a day is high."""
    seen = coursing(case(daemons=daemons), stale_s=stale_s)
    assert level(seen, "daemon-stale") == wanted
    if wanted and stale_s == 3601.0:
        assert said(seen, "daemon-stale") == MAXIMUM_ERROR_GREW


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (drifting(), "medium"),
        (drifting(central_s=DAY_S), "medium"),
        (drifting(central_s=DAY_S + 1), None),
        (drifting(central_s=None), None),
        (drifting(central_s=0.0), None),  # it has happened
        (drifting(free_running=True), None),  # a daemon steers: only if it stopped (F8)
        (drifting(None), None),
        (drifting(raw_ppm=None), None),
        (drifting(pessimistic_s=None), "medium"),
        (drifting(0.0), None),  # what may be nothing is no drift
        (drifting(skew_ppm=1e3), None),
        (drifting(free_running=True, raw_ppm=100.2), "low"),
        (drifting(free_running=True, raw_ppm=-100.2), "low"),
        (drifting(free_running=True, raw_ppm=100.0), None),
        (drifting(free_running=True, raw_ppm=150.0, skew_ppm=60.0), None),  # not for certain
        (drifting(None, raw_ppm=200.0), "low"),
        (drifting(raw_ppm=200.0), "medium"),
        (drifting(float("nan"), raw_ppm=float("nan"), central_s=float("nan")), None),
        (drifting(raw_ppm=200.0, skew_ppm=float("nan"), central_s=None), None),
    ],
)
def test_breach_forecast(seen: AuditContext, wanted: str | None) -> None:
    """NTPA-16: a free clock that will leave its tolerance within a day is medium, a bad oscillator for certain low."""
    assert level(seen, "breach-forecast") == wanted


def test_a_forecast_says_when() -> None:
    """The rate, the tolerance, the likely and the earliest time are stated, and for a bad oscillator its frequency."""
    assert said(drifting(), "breach-forecast") == (
        "the clock drifts by 1.73 s a day and will be 1 s wrong in about 13.9 h; with 95 % probability not "
        "before 8.33 h"
    )
    assert said(drifting(pessimistic_s=None), "breach-forecast").endswith("wrong in about 13.9 h")
    assert said(drifting(free_running=True, raw_ppm=-250.0), "breach-forecast").startswith(
        "the oscillator is 250 ppm off"
    )


AGENT_IDS = [rule.id for rule in RULES if rule.needs_agent]


@pytest.mark.parametrize("wanted", [rule.id for rule in RULES if not rule.needs_agent])
def test_what_needs_no_agent_is_found_without_one(wanted: str) -> None:
    """A rule that a one-shot check can raise fires without a history: the documentation says so."""
    assert any(level(seen._replace(earlier=EarlierState()), wanted) for seen in RAISED[wanted])


@pytest.mark.parametrize("wanted", AGENT_IDS)
def test_a_check_without_an_agent_has_no_history(wanted: str) -> None:
    """A one-shot check has no history, and an agent's empty history raises nothing."""
    assert level(case(), wanted) is None
    assert level(coursing(), wanted) is None


def test_rules_of_the_offset_and_of_what_moves_it() -> None:
    """A finding of the offset needs a known one, and what explains a shift spares the host a comparison."""
    of_offset = {rule.id for rule in RULES if rule.is_of_offset}
    assert of_offset >= {"offset-out", "not-demonstrable", "offset-high", "tz-or-rtc-fault", "breach-forecast"}
    assert all(seen.selection.agreement is not None for wanted in of_offset for seen in RAISED[wanted])
    explaining = [rule for rule in RULES if rule.explains_shift]
    assert {rule.id for rule in explaining} >= {"unsynced", "daemon-count", "daemon-stale", "breach-forecast"}
    assert all(rule.basis == "host" or rule.is_of_offset for rule in explaining)
    with_own_events = [rule for rule in RULES if rule.has_own_events]
    assert {rule.id for rule in with_own_events} >= {"step-back", "step-forward"}
    assert all(rule.basis == "moment" and rule.needs_agent for rule in with_own_events)


def test_findings_of_one_level_stay_as_they_come() -> None:
    """Sorting is by level alone."""
    findings = [make_finding(rule, Raised("low" if index % 2 else "high", "")) for index, rule in enumerate(RULES)]
    ordered = worst_first(findings)
    assert list(ordered) == findings[::2] + findings[1::2]


@pytest.mark.parametrize("carried", [False, True])
def test_no_majority_is_reported_whether_or_not_an_offset_is_known(carried: bool) -> None:
    """A missing majority has the same text while an earlier agreement is carried forward."""
    seen = case(answered(1), answered(2, measurement(9 * S)))
    if carried:
        seen = seen._replace(selection=seen.selection._replace(agreement=case().selection.agreement))
    assert said(seen, "source-quorum") == "2 servers replied, and no majority agrees"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1,), "ntp1.example.net contradicts the 4 servers that agreed 25 min ago"),
        ((1, 2), "ntp1.example.net and ntp2.example.net contradict the 4 servers that agreed 25 min ago"),
    ],
)
def test_an_outvoted_audit_says_by_how_many(numbers: tuple[int, ...], words: str) -> None:
    """Servers that contradict a larger agreement that is carried on are named, with its size and its age."""
    seen = case(*map(answered, numbers))
    falsetickers = tuple(one._replace(status="falseticker", reason="disagrees") for one in seen.selection.sources)
    selection = Selection(falsetickers, case().selection.agreement)
    earlier = EarlierState(contradiction=Contradiction(4, 1500.0))
    seen = seen._replace(selection=selection, earlier=earlier)
    assert (level(seen, "source-quorum"), said(seen, "source-quorum")) == ("medium", words)


NEAR, FAR = (-S, S), (9 * S, 11 * S)


@pytest.mark.parametrize(
    ("expected", "reported", "sources", "words"),
    [
        (NEAR, (9 * S, 9 * S), 2, "1 s ahead to 1 s behind; reported: about 9 s behind"),
        (NEAR, FAR, 2, "1 s ahead to 1 s behind; reported: 9 s behind to 11 s behind"),
        (FAR, NEAR, 1, "9 s behind to 11 s behind; reported: 1 s ahead to 1 s behind"),
    ],
)
def test_a_contradiction_has_both_intervals(
    expected: tuple[int, int], reported: tuple[int, int], sources: int, words: str
) -> None:
    """The message has the expected and the reported interval, and their least distance (R6)."""
    contradiction = DroppedAgreement(Interval(*expected), Interval(*reported), sources, 300.0, DAY)
    seen = coursing(dropped_agreement=contradiction)
    assert level(seen, "contradicts-earlier") == "high"
    who = "1 server contradicts" if sources == 1 else "2 servers contradict"
    first = f"{who} the measurement made 5 min before: the difference is at least 8 s"
    assert (
        said(seen, "contradicts-earlier") == f"{first}. Expected offset: {words}. The earlier measurement is discarded"
    )
    assert contradiction.gap_ns == (8 * S if reported > expected else -8 * S)
    assert level(coursing(), "contradicts-earlier") is None


# --- the warning tolerance, and what cannot be used ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "half_width", "profile", "words"),
    [
        (250 * MS, 10 * MS, "log-integrity", "the clock is 250 ms behind, over the warning tolerance of 100 ms"),
        (-250 * MS, 10 * MS, "log-integrity", "the clock is 250 ms ahead, over the warning tolerance of 100 ms"),
        (100 * MS + 1, 10 * MS, "log-integrity", "the clock is 101 ms behind, over the warning tolerance of 100 ms"),
        (0, 60 * MS, "ops-strict", "the clock may be up to 60 ms wrong, over the warning tolerance of 50 ms"),
        (100 * MS, 10 * MS, "log-integrity", None),
        (0, 50 * MS, "ops-strict", None),
        (2 * S, 10 * MS, "log-integrity", None),  # offset-out says it
        (900 * MS, 500 * MS, "log-integrity", None),  # not-demonstrable says it
    ],
)
def test_offset_high(offset: int, half_width: int, profile: str, words: str | None) -> None:
    """Over the warning tolerance is a finding of its own, where none that is graver says so."""
    seen = case(*off(offset, half_width), profile=PROFILES[profile])
    assert level(seen, "offset-high") == (words and "medium")
    if words:
        assert said(seen, "offset-high") == words


WIDE = measurement(0, 10 * S)


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (
            [failed(number, "rejected", "unsync") for number in (1, 2, 3, 4, 5)],
            "none of 5 servers can be used: ntp1.example.net (unsync), ntp2.example.net (unsync), "
            "ntp3.example.net (unsync), ntp4.example.net (unsync) and 1 more",
        ),
        (
            [answered(1, WIDE), failed(2)],
            "none of 2 servers can be used: ntp1.example.net (distant: maximum error 10 s), ntp2.example.net (timeout)",
        ),
        (
            [failed(1, "skipped", "interval"), failed(2, "skipped", "kod:DENY")],
            "none of 2 servers was queried: ntp1.example.net (interval), ntp2.example.net (kod:DENY)",
        ),
        ([failed(1), failed(2)], None),
        ([*FOUR, failed(5, "rejected", "unsync")], None),
    ],
)
def test_no_usable_source(sources: list[SourceObservation], words: str | None) -> None:
    """Where servers replied and none can be used the finding has the reason of each (issue 11, 3)."""
    seen = case(*sources)
    assert level(seen, "no-usable-source") == (words and "medium")
    if words:
        assert said(seen, "no-usable-source") == words
        assert level(seen, "unmeasured") is None


@pytest.mark.parametrize(
    ("sources", "rule", "fixes"),
    [
        ([failed(1, "skipped", "unanswered")], "no-usable-source", ("check that these servers run",)),
        (
            [*FOUR[:2], failed(3), failed(4, "skipped", "unanswered")],
            "unreachable-sources",
            ("check that these servers",),
        ),
        ([failed(1, "skipped", "interval")], "no-usable-source", ("wait: ",)),
        ([failed(1, "skipped", "kod:DENY")], "no-usable-source", ("remove the server, or ask its operator",)),
        (
            [answered(1, WIDE), failed(2)],
            "no-usable-source",
            ("distant: replace", "timeout: check that these servers run"),
        ),
        ([failed(1, "rejected", "bogus"), failed(2)], "no-usable-source", ("other reasons: check these servers",)),
        ([failed(1, reason="refused")], "unreachable-sources", ("check that an NTP server runs there",)),
        ([failed(1, reason="forbidden")], "unreachable-sources", ("allow outbound UDP 123",)),
        ([failed(1, reason="net-unreachable")], "unreachable-sources", ("check the routes",)),
        ([failed(1, reason="name-timeout")], "unreachable-sources", ("check the spelling of the name",)),
        ([*FOUR, failed(5, "rejected", "kod:INIT")], "kiss-of-death", ("the server has no time yet",)),
        ([*FOUR, failed(5, "rejected", "kod:RATE")], "kiss-of-death", ("check whether several programs",)),
        ([*FOUR, failed(5, "rejected", "kod:RSTR")], "kiss-of-death", ("remove the server, or ask its operator",)),
        ([*FOUR, failed(5, "rejected", "kod:STEP")], "kiss-of-death", ("check this server",)),
        ([*FOUR[:2], failed(3), failed(4)], "source-quorum", ("do not add servers first",)),
        ([*FOUR[:2]], "source-quorum", ("configure at least 4 independent servers",)),
    ],
)
def test_each_reason_of_a_source_has_its_fix(
    sources: list[SourceObservation], rule: str, fixes: tuple[str, ...]
) -> None:
    """The fix follows from the reason of each source, and names the reason if there are several."""
    remedy = remedy_of(case(*sources), rule)
    assert all(fix in remedy for fix in fixes)


def remedy_of(seen: AuditContext, rule: str) -> str:
    """Return the fix of a finding."""
    (remedy,) = (finding.remedy for finding in findings_of(seen) if finding.id == rule)
    return remedy


def test_each_fault_has_its_fix() -> None:
    """A rule with several causes has a fix for each."""
    assert "set-local-rtc 0" in remedy_of(case(host=HOST._replace(rtc_local=True)), "tz-or-rtc-fault")
    assert "correct the time zone" in remedy_of(case(*off(HOUR)), "tz-or-rtc-fault")
    assert "clocksource" in remedy_of(drifting(free_running=True, raw_ppm=-250.0), "breach-forecast")
    assert "history.max_size" in remedy_of(coursing(dropped_records=17), "evidence-gap")
    assert "configure at least 4 servers" in remedy_of(
        case(failed(1))._replace(selection=Selection((), None)), "unmeasured"
    )


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ((answered(1), answered(2, measurement(S))), None),
        ((failed(1), failed(2)), None),
        ((failed(1, "rejected", "unsync"),), None),
        ((failed(1), failed(2, "skipped", "interval"), failed(3, "skipped", "interval")), None),
    ],
)
def test_what_says_why_nothing_was_measured_stands_for_it(
    sources: tuple[SourceObservation, ...], words: str | None
) -> None:
    """`unmeasured` is listed only where no other finding that counts says why."""
    seen = case(*sources)
    assert level(seen, "unmeasured") is words
    assert any(finding.severity > Severity.OK for finding in findings_of(seen))


ROLLOVER_NS = 619_315_200 * S
IN_1986 = 508_000_000 * S


def wrong_by_years(time_ns: int, *numbers: int) -> tuple[SourceObservation, ...]:
    """Make servers whose clocks show such a time, read by the wire's 32 bits of seconds."""
    decoded = decode(wire(time_ns))
    return tuple(
        answered(number, measurement(decoded - NOON)._replace(received_ns=decoded, transmitted_ns=decoded))
        for number in numbers
    )


@pytest.mark.parametrize(
    ("time_ns", "words"),
    [
        (
            NOON - ROLLOVER_NS,
            "2007-03-07, earlier than this version of ntpaudit accepts (2025-11-01) and 1024 weeks before",
        ),
        (
            IN_1986,
            "1986-02-05, earlier than this version of ntpaudit accepts (2025-11-01); these servers are probably wrong",
        ),
        (0, "1970-01-01, earlier than this"),
        (PIVOT_NS - S, "2025-10-31, earlier than this"),
    ],
)
def test_servers_that_agree_on_a_time_before_this_release(time_ns: int, words: str) -> None:
    """They are suspected, not this host: no offset, no direction, and the time that they give (issue 11, 6)."""
    seen = case(*wrong_by_years(time_ns, 1, 2, 3, 4))
    assert seen.selection.agreement is None
    assert {(judged.status, judged.reason) for judged in seen.selection.sources} == {("rejected", "before-release")}
    assert [finding.id for finding in findings_of(seen)] == ["no-usable-source"]
    text = said(seen, "no-usable-source")
    assert words in text
    assert text.endswith("so it is unknown whether this host is behind or ahead")


@pytest.mark.parametrize(("old", "wanted"), [(1, "low"), (2, "medium"), (3, "medium")])
def test_some_servers_before_this_release(old: int, wanted: str) -> None:
    """They are no voters, count as asked, and are named; a third of them or more is a warning."""
    right = tuple(answered(number) for number in range(1, 6 - old))
    seen = case(*right, *wrong_by_years(NOON - ROLLOVER_NS, *range(6 - old, 6)))
    assert seen.selection.agreement is not None
    assert seen.selection.agreement.interval == Interval(-10 * MS, 10 * MS)
    assert len(seen.selection.asked) == 5
    assert level(seen, "source-quorum") == wanted
    assert "earlier than this version of ntpaudit accepts" in said(seen, "source-quorum")


def test_a_server_after_the_pivot_is_measured() -> None:
    """From this release on times are what they say, 67 years ahead as well, and the direction is known."""
    for time_ns in (PIVOT_NS, PIVOT_NS + 67 * YEAR):
        seen = case(*wrong_by_years(time_ns, 1, 2, 3, 4))
        assert seen.selection.agreement is not None
        assert abs(seen.selection.agreement.estimate_ns - (time_ns - NOON)) < 10


# --- without an answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["offset-out", "not-demonstrable", "tz-or-rtc-fault"])
def test_without_an_offset_nothing_is_said_of_it(wanted: str) -> None:
    """If nothing was measured, or no sources agree, no rule about the offset fires."""
    for sources in ((failed(1),), (answered(1, measurement(HOUR)), answered(2, measurement(2 * HOUR)))):
        assert level(case(*sources), wanted) is None


@pytest.mark.parametrize("check", [rule.check for rule in RULES], ids=[rule.id for rule in RULES])
def test_every_check_takes_a_case_without_sources(check: Callable[[AuditContext], object]) -> None:
    """An audit that queried no server, of a host without readable facts, only reports that nothing was measured."""
    seen = case(kernel=NO_KERNEL, daemons=NO_DAEMONS)
    raised = check(AuditContext(seen.observation._replace(sources=()), Selection((), None), seen.profile))
    assert (raised is None) == (check is not UNMEASURED.check)


def test_every_rule_looks_at_the_profile_it_is_given() -> None:
    """The same offset is critical under one profile, unproven under another, and fine under a third."""
    sources = off(60 * MS, 30 * MS)
    verdicts = {
        name: [one.id for one in findings_of(case(*sources, profile=Profile(name, t, t, "bound"))) if one.severity]
        for name, t in (("tight", 0.02), ("middle", 0.05), ("loose", 0.5))
    }
    assert verdicts == {"tight": ["offset-out"], "middle": ["not-demonstrable"], "loose": []}


def test_a_source_that_could_not_vote_is_in_no_message() -> None:
    """A judged source without a candidate, such as an inconsistent one, makes no rule stumble."""
    inconsistent = ClassifiedSource(answered(5), "rejected", "inconsistent")
    seen = case()
    selection = Selection((*seen.selection.sources, inconsistent), seen.selection.agreement)
    assert findings_of(AuditContext(seen.observation, selection, seen.profile)) == ()


def test_names_without_an_address_differ_from_silence() -> None:
    """A server whose name is not found was never queried, so it did not fail to reply."""
    unresolved = failed(9, reason="name-unknown")
    alone = said(case(*FOUR, unresolved), "unreachable-sources")
    assert alone == "1 of 5 servers has no known address: ntp9.example.net (name-unknown)"
    both = said(case(*FOUR, failed(8), unresolved, failed(7, reason="name-failed")), "unreachable-sources")
    assert both == (
        "1 of 7 servers did not reply: ntp8.example.net (timeout); 2 of 7 servers have no known address: "
        "ntp9.example.net (name-unknown), ntp7.example.net (name-failed)"
    )
