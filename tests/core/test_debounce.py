"""Alarms over time: what raises them, what does not, and what ends them."""

import itertools
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ntpaudit.core.checks.context import AuditContext, Contradiction, EarlierState, Gap
from ntpaudit.core.checks.debounce import ConditionState, DebounceState, Decision, _listed, judge, of_new_boot
from ntpaudit.core.checks.host import BY_ID, RULES, findings_of
from ntpaudit.core.checks.rule import LEVEL_SEVERITY
from ntpaudit.core.clock.drift import Breach, Drift
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.observation import Claim, Daemon, SourceObservation, Unavailable
from ntpaudit.core.policy import PROFILES, Profile, Severity
from ntpaudit.core.selection import Selection, select
from ntpaudit.store.serialization import plain, revive
from tests.core.worlds import (
    CHRONYD,
    DAY,
    HOUR,
    MS,
    NOON,
    NTPD,
    SYNCHRONISED,
    UNSYNCHRONISED,
    S,
    answered,
    failed,
    measurement,
    observation,
    reading,
)

PROFILE = PROFILES["log-integrity"]
NOTHING_EARLIER = EarlierState()
VAGUE_KERNEL = SYNCHRONISED._replace(maxerror_s=15.9)  # an offset of less does not contradict it
OK, WARNING, UNKNOWN, CRITICAL = Severity.OK, Severity.WARNING, Severity.UNKNOWN, Severity.CRITICAL

Sources = Callable[[ClockReading], tuple[SourceObservation, ...]]


def all_say(offset_ns: int, half_width_ns: int = 10 * MS, count: int = 4) -> Sources:
    """Let independent servers agree on an offset."""
    return lambda now: tuple(
        answered(number, measurement(offset_ns, half_width_ns, after=now)) for number in range(1, count + 1)
    )


def also(*others: SourceObservation, count: int = 4) -> Sources:
    """Let that many servers agree that all is well, and have others beside them."""
    return lambda now: (*all_say(0, count=count)(now), *others)


def each_says(*errors_ns: int) -> Sources:
    """Let each server report an offset of its own."""
    return lambda now: tuple(
        answered(number, measurement(error_ns, after=now)) for number, error_ns in enumerate(errors_ns, 1)
    )


def no_reply(_: ClockReading) -> tuple[SourceObservation, ...]:
    """Let no server answer."""
    return tuple(failed(number) for number in (1, 2, 3, 4))


GOOD, BAD = all_say(0), all_say(5 * S)


def _backwards(sources: Sources) -> Sources:
    return lambda now: sources(now)[::-1]


class Evaluator:
    """The debounce state of a host, and what each audit changes."""

    def __init__(self, *, uptime_ns: int = DAY, profile: Profile = PROFILE) -> None:
        self.alarms, self.uptime_ns, self.profile = DebounceState(), uptime_ns, profile
        self.last: Decision | None = None
        self.all_changes: list[tuple[str, bool]] = []
        self.in_force: set[str] = set()

    def network(self, sources: Sources, after_s: float = 300, **seen: Any) -> Decision:
        """Evaluate a network audit, `after_s` later."""
        return self._evaluate(sources, after_s, "network", **seen)

    def local(self, sources: Sources = GOOD, after_s: float = 60, **seen: Any) -> Decision:
        """Evaluate a local audit; `sources` are those whose offset is carried forward."""
        return self._evaluate(sources, after_s, "local", **seen)

    def _evaluate(
        self,
        sources: Sources,
        after_s: float,
        kind: Literal["network", "local"],
        *,
        earlier: EarlierState = NOTHING_EARLIER,
        is_correcting: bool = False,
        is_continued: bool = True,
        carried: Sources | None = None,
        can_confirm: bool = True,
        **seen: Any,
    ) -> Decision:
        self.uptime_ns += round(after_s * S)
        now = reading(NOON, uptime_ns=self.uptime_ns)
        asked = sources(now)
        selection = select(asked, now)
        is_sample = kind == "network" and selection.agreement is not None
        if carried is not None:
            selection = selection._replace(agreement=select(carried(now), now).agreement)
        if kind == "local":
            selection = Selection((), selection.agreement)
        seen = {"kernel": VAGUE_KERNEL, **seen}
        context = AuditContext(observation(*asked, taken=now, **seen), selection, self.profile, earlier)
        self.last = judge(
            context,
            self.alarms,
            kind,
            is_sample=is_sample,
            is_correcting=is_correcting,
            is_continued=is_continued,
            can_confirm=can_confirm,
        )
        self.case = context
        self.alarms = self.last.state
        self.all_changes += [(finding.id, raised) for finding, raised in self.last.changes]
        self._compare_events_with_findings(self.last)
        return self.last

    def _compare_events_with_findings(self, judged: Decision) -> None:
        """The events of a finding state what the record states: alert rules read the one or the other."""
        for finding, raised in judged.changes:
            self.in_force.discard(finding.id)
            self.in_force |= {finding.id} if raised and finding.severity else set()
        counted = {one.id for one in judged.findings if one.severity and one.level != "low"}
        assert {name for name in counted if not BY_ID[name].has_own_events} == self.in_force

    def restart(self) -> None:
        """Restore the state from JSON."""
        self.alarms = revive(DebounceState, json.loads(json.dumps(plain(self.alarms), allow_nan=False)))

    def reboot(self, uptime_ns: int = 20 * S) -> None:
        """Restart the uptime."""
        self.restart()
        self.uptime_ns = uptime_ns

    def changes(self, kind: str) -> list[bool]:
        """Return what was raised and cleared of one kind."""
        return [raised for one, raised in self.all_changes if one == kind]


def evaluating(count: int = 5, sources: Sources = GOOD, every_s: float = 300, **named: Any) -> Evaluator:
    """Return an evaluator after some good audits, or others that are given."""
    evaluator = Evaluator(**named)
    for _ in range(count):
        evaluator.network(sources, every_s)
    evaluator.all_changes.clear()
    return evaluator


def levels(judged: Decision) -> dict[str, str]:
    """Return the level of each finding."""
    return {finding.id: finding.level for finding in judged.findings}


# --- one bad sample ----------------------------------------------------------------------------------------------

THREE = all_say(0, count=3)
ONE_BAD_SAMPLE = {
    "behind": (GOOD, BAD),
    "ahead": (GOOD, all_say(-70 * S)),
    "over the warning": (GOOD, all_say(500 * MS)),
    "an hour": (GOOD, all_say(3600 * S)),
    "not demonstrable": (GOOD, all_say(900 * MS, 500 * MS)),
    "one of four is wrong": (GOOD, each_says(0, 0, 0, 9 * S)),
    "two of five are wrong": (GOOD, each_says(0, 0, 0, 9 * S, -9 * S)),
    "one of three is wrong": (THREE, each_says(0, 0, 9 * S)),
    "one of three is silent": (THREE, also(failed(9), failed(8), count=1)),
    "half are silent": (GOOD, also(failed(8), failed(9), count=2)),
    "one was always silent": (also(failed(9)), also(failed(6), failed(7), failed(8), failed(9))),
    "denied": (GOOD, also(failed(9, "rejected", "kod:DENY"))),
    "forged": (GOOD, also(answered(9, discarded={"bogus": 7}))),
}
"""The samples before, and one sample that suddenly differs."""


@pytest.mark.untraced
@pytest.mark.parametrize("every_s", [0.1, 15, 64, 300, 600, 3600, 86_400])
@pytest.mark.parametrize("kind", ONE_BAD_SAMPLE)
def test_one_bad_sample_raises_nothing(kind: str, every_s: float) -> None:
    """Whatever one sample says, at any rate, nothing is raised, cleared or worse; nor by 60 local audits after it."""
    before, bad = ONE_BAD_SAMPLE[kind]
    evaluator = evaluating(6, before)
    known = evaluator.network(before, every_s)
    counted = {finding for finding in known.findings if finding.severity > OK}
    assert known.severity is OK
    judged = [evaluator.network(bad, every_s)]
    judged += [evaluator.local(bad, 60) for _ in range(60)]
    judged += [evaluator.network(before, every_s) for _ in range(6)]
    assert {one.severity for one in judged} == {OK}
    assert all(not counted.symmetric_difference(f for f in one.findings if f.severity > OK) for one in judged)
    assert [finding for finding, _ in evaluator.all_changes if finding in ("offset-out", "tz-or-rtc-fault")] == []
    assert evaluator.all_changes == []


@pytest.mark.parametrize("known", [0, 6])
@pytest.mark.parametrize("kind", ONE_BAD_SAMPLE)
def test_what_no_later_audit_can_confirm_is_unknown(kind: str, known: int) -> None:
    """Where no state is kept, each sample is the first, or follows the same old ones for ever: it is never ok."""
    before, bad = ONE_BAD_SAMPLE[kind]
    evaluator = evaluating(known, before)
    judged = evaluator.network(bad, can_confirm=False)
    counted = {finding.id for finding in findings_of(evaluator.case) if finding.severity > OK}
    assert judged.severity is (UNKNOWN if counted else OK)  # one of four that lies is listed only
    assert {finding.id for finding in judged.findings if finding.severity is UNKNOWN} == counted
    assert evaluator.all_changes == []


def test_what_no_later_audit_can_confirm_and_is_in_order_is_ok() -> None:
    """A single audit that finds nothing wrong says so."""
    assert evaluating(0).network(GOOD, can_confirm=False).severity is OK
    assert evaluating(6).network(GOOD, can_confirm=False).severity is OK


def test_a_look_at_the_host_wants_servers_only_for_a_clock_that_is_out() -> None:
    """A carried offset that is proven to be out makes the servers be queried; a disagreement does not."""
    evaluator = evaluating(6, THREE)
    assert evaluator.network(each_says(0, 0, 9 * S)).wants_poll
    assert not evaluator.local().wants_poll
    assert not evaluator.local(all_say(900 * MS, 500 * MS)).wants_poll  # it grew too wide, and will be measured in turn
    assert evaluator.local(BAD).wants_poll


def test_one_good_sample_ends_nothing() -> None:
    """An alarm is not cleared by the first sample that is in order, nor by 60 local audits that carry it on."""
    evaluator = evaluating(6, BAD)
    for judged in [evaluator.network(GOOD), *(evaluator.local(GOOD) for _ in range(60)), evaluator.network(BAD)]:
        assert judged.severity is CRITICAL
        assert levels(judged)["offset-out"] == "critical"
    assert evaluator.all_changes == []


def test_what_is_not_over_yet_says_that_samples_contradict_it() -> None:
    """A finding that holds stands beside sources in order: it says how many samples were, and its event does not."""
    evaluator = evaluating(6, BAD)
    now = messages(evaluator.network(BAD))["offset-out"]
    said = now.replace(" is ", " was ")
    when = "cleared after 3 samples in a row below 70 % of the tolerance, or 2 in a row 10 min apart"
    first = messages(evaluator.network(GOOD))["offset-out"]
    assert first == f"{said}. Improving: {when} (1 so far)"
    second = messages(evaluator.network(GOOD))["offset-out"]
    assert second == f"{said}. Improving: {when} (2 so far)"
    assert messages(evaluator.network(BAD))["offset-out"] == now
    for _ in range(2):
        evaluator.network(GOOD)
    assert {finding.message for finding, _ in evaluator.network(GOOD).changes} == {f"no longer true: {said}"}


def last_change(evaluator: Evaluator, kind: str) -> str:
    """Return how the event of the last audit that changes a finding begins."""
    assert evaluator.last is not None
    (message,) = (finding.message for finding, raised in evaluator.last.changes if finding.id == kind and not raised)
    return message.partition(": ")[0]


def test_a_finding_that_another_replaces_is_not_said_to_be_over() -> None:
    """Its event names the finding that replaced it, because what it reported is still true, or worse."""
    evaluator = evaluating(6, all_say(250 * MS))
    for _ in range(3):
        evaluator.network(BAD)
    assert last_change(evaluator, "offset-high") == "replaced by offset-out"
    evaluator = evaluating(6, all_say(250 * MS))
    for _ in range(3):
        evaluator.network(GOOD)
    assert last_change(evaluator, "offset-high") == "no longer true"
    wide = tuple((number, 900 * MS, 500 * MS) for number in (1, 2, 3, 4))
    evaluator = evaluating(
        20, lambda now: tuple(answered(one, measurement(at, width, after=now)) for one, at, width in wide)
    )
    assert evaluator.last is not None
    assert levels(evaluator.last)["not-demonstrable"] == "medium"
    for _ in range(3):
        evaluator.network(BAD)
    assert last_change(evaluator, "not-demonstrable") == "replaced by offset-out"
    evaluator = evaluating(6, lambda _: tuple(failed(number, "rejected", "unsync") for number in (1, 2)))
    for _ in range(3):
        evaluator.network(no_reply)
    assert last_change(evaluator, "no-usable-source") == "replaced by unreachable-sources"
    evaluator = evaluating(6, lambda _: tuple(failed(number, "rejected", "unsync") for number in (1, 2)))
    for _ in range(3):
        evaluator.network(GOOD)
    assert last_change(evaluator, "no-usable-source") == "no longer true"


def test_what_is_no_longer_measured_is_in_the_past() -> None:
    """A better sample stands beside the finding, so its message, and that of its end, say what was."""
    evaluator = evaluating(6, all_say(-250 * MS))
    raised, improving = (evaluator.network(one) for one in (all_say(-250 * MS), GOOD))
    assert messages(raised)["offset-high"].startswith("the clock is 250 ms ahead, over")
    assert messages(improving)["offset-high"].startswith("the clock was 250 ms ahead, over")
    for _ in range(2):
        cleared = evaluator.network(GOOD)
    assert [one.message for one, _ in cleared.changes] == [
        "no longer true: the clock was 250 ms ahead, over the warning tolerance of 100 ms"
    ]


def test_a_clock_without_a_daemon_is_listed_under_the_unsynchronised_clock() -> None:
    """One cause is one alert: what was raised is cleared as such, stays listed, and is raised again when it is left."""
    evaluator = evaluating()
    for _ in range(20):
        evaluator.local(daemons=(), kernel=Unavailable("not permitted"))
    assert evaluator.changes("daemon-count") == [True]
    cleared = []
    for _ in range(20):
        judged = evaluator.local(kernel=UNSYNCHRONISED, daemons=())
        cleared += [finding.message.partition(": ")[0] for finding, is_raised in judged.changes if not is_raised]
    assert cleared == ["now listed under unsynced"]
    assert [(one.id, one.cause, one.severity) for one in judged.findings if one.id != "unmeasured"] == [
        ("unsynced", None, Severity.WARNING),
        ("daemon-count", "unsynced", OK),
    ]
    for _ in range(20):
        judged = evaluator.local(daemons=(), kernel=Unavailable("not permitted"))
    assert evaluator.changes("daemon-count") == [True, False, True]
    assert evaluator.changes("unsynced") == [True, False]


def test_a_finding_that_begins_under_another_is_no_second_alert() -> None:
    """Both are raised by the same audit: one event, and one finding that counts."""
    evaluator = evaluating()
    for _ in range(20):
        judged = evaluator.local(kernel=UNSYNCHRONISED, daemons=())
    assert evaluator.changes("unsynced") == [True]
    assert evaluator.changes("daemon-count") == []
    assert [one.id for one in judged.findings if one.severity] == ["unsynced"]


def messages(judged: Decision) -> dict[str, str]:
    """Return what each finding says."""
    return {finding.id: finding.message for finding in judged.findings}


def test_a_worse_level_takes_more_than_one_sample() -> None:
    """A finding that is listed as low counts only when samples enough said so, and one sample in order ends nothing."""
    evaluator = evaluating(6, THREE)
    assert levels(evaluator.network(THREE)) == {"source-quorum": "low"}
    assert levels(evaluator.network(each_says(0, 0, 9 * S))) == {"source-quorum": "low"}
    assert levels(evaluator.network(each_says(0, 0, 9 * S))) == {"source-quorum": "low"}
    third = evaluator.network(each_says(0, 0, 9 * S))
    assert (levels(third), third.severity) == ({"source-quorum": "medium"}, WARNING)
    assert [(finding.level, raised) for finding, raised in third.changes] == [("medium", True)]
    assert levels(evaluator.network(THREE)) == {"source-quorum": "medium"}


def test_a_better_level_is_an_event() -> None:
    """Where three samples in a row say that it is less bad, the finding goes down to what the last of them said."""
    evaluator = evaluating(6, each_says(0, 0, 9 * S))
    evaluator.network(THREE)
    evaluator.network(THREE)
    third = evaluator.network(THREE)
    assert (levels(third), third.severity) == ({"source-quorum": "low"}, OK)
    assert [(finding.level, finding.message[:9], raised) for finding, raised in third.changes] == [
        ("low", "only 3 se", True)
    ]


def test_a_suspicion_is_listed_and_does_not_count() -> None:
    """What is not confirmed is listed as low, which counts for nothing, and says what it would be, and by whom."""
    evaluator = evaluating()
    (suspected,) = evaluator.network(BAD).findings
    assert (suspected.id, suspected.level, suspected.severity) == ("offset-out", "low", OK)
    assert suspected.message == (
        "the clock is at least 4.99 s behind (critical tolerance 1 s). "
        "Pending (1 of 5 samples): raised as critical after 3 such samples of the last 5, or 2 in a row 10 min apart"
    )
    assert evaluator.local(BAD).findings == (suspected,)


def test_a_pending_finding_says_how_long_it_must_still_last() -> None:
    """An unsynchronised kernel is raised after 10 min: samples alone do not suffice."""
    evaluator = evaluating()
    ends = []
    for _ in range(4):
        finding, related = evaluator.local(kernel=UNSYNCHRONISED, daemons=()).findings
        assert related.cause == finding.id == "unsynced"
        ends.append(finding.message.partition(". ")[2])
    assert ends == [
        "Pending (1 of 5 samples): raised as high after 3 such samples of the last 5, "
        "or 2 in a row 10 min apart, and in 10 min at the earliest",
        "Pending (2 of 5 samples): raised as high after 3 such samples of the last 5, "
        "or 2 in a row 10 min apart, and in 9 min at the earliest",
        "Pending (3 of 5 samples): raised as high in 8 min if it persists",
        "Pending (4 of 5 samples): raised as high in 7 min if it persists",
    ]


def test_a_pending_finding_keeps_the_fix_of_its_case() -> None:
    """The fix of a case stays with its finding while it is pending and raised; the next case has its own."""
    evaluator = evaluating()
    disagreeing = each_says(0, 0, 9 * S)
    pending = {finding.remedy for finding in evaluator.network(disagreeing).findings if finding.id == "source-quorum"}
    for _ in range(4):
        last = evaluator.network(disagreeing)
    raised = {finding.remedy for finding in last.findings if finding.id == "source-quorum"}
    assert pending == raised
    assert all(fix.startswith("find out which server is wrong") for fix in raised)
    for _ in range(5):
        last = evaluator.network(all_say(0, count=1))
    assert [f.remedy.startswith("configure at least 4") for f in last.findings if f.id == "source-quorum"] == [True]


def test_a_suspicion_stands_beside_what_is_raised() -> None:
    """A finding whose last sample was worse says both, under its id and the level that holds."""
    evaluator = evaluating(6, THREE)
    (both,) = evaluator.network(each_says(0, 0, 9 * S)).findings
    assert (both.level, both.severity) == ("low", OK)
    assert both.message == (
        "only 3 servers: 4 are needed to outvote one falseticker (RFC 8633, section 3.2); "
        "1 of 3 usable servers disagrees: ntp3.example.net. "
        "Pending (1 of 5 samples): raised as medium after 3 such samples of the last 5, or 2 in a row 10 min apart"
    )
    assert "Pending" not in evaluator.network(THREE).findings[0].message


# --- when it is raised and cleared -------------------------------------------------------------------------------


def expected(history: Sequence[tuple[bool, float]]) -> bool:
    """Say by the whole history, of (bad, seconds since the sample before), whether the alarm is up at its end."""
    raised, at_s = False, 0.0
    past: list[tuple[bool, float]] = []
    for bad, after_s in history:
        at_s += after_s
        past.append((bad, at_s))
        last = [entry[0] for entry in past[-5:]]
        is_far = len(past) > 1 and past[-1][1] - past[-2][1] >= 600
        if not raised:
            raised = bad and (sum(last) >= 3 or (last[-2:] == [True, True] and is_far))
            past = past if raised else past[-5:]
        else:
            raised = not (last[-3:] == [False] * 3 or (last[-2:] == [False, False] and is_far))
    return raised


HISTORIES = st.lists(st.tuples(st.booleans(), st.sampled_from([1.0, 64.0, 300.0, 599.0, 600.0, 3600.0])), max_size=24)


@given(HISTORIES)
@settings(max_examples=400, deadline=None)
def test_three_of_five_or_two_far_apart(history: list[tuple[bool, float]]) -> None:
    """An offset is out when three of the last five say so, or two in a row ten minutes apart; it is over likewise."""
    evaluator = Evaluator()
    for index, (bad, after_s) in enumerate(history, 1):
        judged = evaluator.network(BAD if bad else GOOD, after_s)
        raised = judged.state.conditions["offset-out"].raised > 0
        assert raised == expected(history[:index])
        assert (judged.severity is CRITICAL) == raised


@given(HISTORIES, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_local_audits_and_restarts_change_nothing(history: list[tuple[bool, float]], rand: random.Random) -> None:
    """Local audits between the samples, and agents that end and restart, change no conclusion."""
    plainly, mixed = Evaluator(), Evaluator()
    for bad, after_s in history:
        sources = BAD if bad else GOOD
        judged = plainly.network(sources, after_s)
        other = mixed.network(sources, after_s)
        assert (other.findings, other.severity, other.changes) == (judged.findings, judged.severity, judged.changes)
        if rand.random() < 0.5:
            mixed.restart()
        for _ in range(rand.randrange(3)):
            between = mixed.local(sources, 0.0)
            assert (between.findings, between.severity, between.changes) == (other.findings, other.severity, ())


@pytest.mark.parametrize(("every_s", "wanted"), [(15, 3), (64, 3), (300, 3), (599, 3), (600, 2), (3600, 2)])
@pytest.mark.parametrize("start", range(8))
def test_a_lasting_fault_is_raised_soon(every_s: float, wanted: int, start: int) -> None:
    """A fault that lasts is raised with its third sample, or its second where servers are asked seldom."""
    rand = random.Random(start)
    evaluator = Evaluator()
    for _ in range(start):  # whatever was before, as long as nothing is raised
        evaluator.network(BAD if rand.random() < 0.2 else GOOD, 64)
    evaluator.network(GOOD, every_s)
    judged = [evaluator.network(BAD, every_s).severity for _ in range(3)]
    assert CRITICAL in judged[:wanted]
    assert evaluator.network(GOOD, every_s).severity is CRITICAL


@pytest.mark.untraced
@pytest.mark.parametrize("mean", [0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.3, 1.5])
@pytest.mark.parametrize("tolerance", ["critical", "warning"])
def test_noise_at_the_threshold_does_not_flap(tolerance: str, mean: float) -> None:
    """Around either tolerance, with noise of a twentieth of it, an alarm changes once at most in 500 samples."""
    rand = random.Random(round(mean * 100))
    size_ns = S if tolerance == "critical" else 100 * MS
    evaluator = Evaluator()
    severities = [evaluator.network(all_say(round(size_ns * rand.gauss(mean, 0.05)), MS)).severity for _ in range(500)]
    assert len(evaluator.changes("offset-out")) <= 1
    assert sum(a is not b for a, b in itertools.pairwise(severities[5:])) <= 1


@pytest.mark.untraced
def test_alternating_samples_make_no_alarm_flap() -> None:
    """In no pattern of bad and good samples that repeats within seven does an alarm come up more than once in six."""
    most = 0
    for length in range(1, 8):
        for pattern in itertools.product((False, True), repeat=length):
            history = list(itertools.islice(itertools.cycle(pattern), 36))
            evaluator = Evaluator()
            for bad in history:
                evaluator.network(BAD if bad else GOOD, 64)
            most = max(most, sum(evaluator.changes("offset-out")))
    assert most == 36 // 6


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("10", 1), ("110", 1), ("11010", 1), ("1001", 1), ("100", 0), ("1000", 0), ("10100", 0)],
)
def test_one_falseticker_that_comes_and_goes(pattern: str, expected: int) -> None:
    """One falseticker of three that is wrong at times is reported once if it is wrong in three of five, else never."""
    evaluator = evaluating(6, THREE)
    for is_wrong in itertools.islice(itertools.cycle(pattern), 60):
        evaluator.network(each_says(0, 0, 9 * S) if is_wrong == "1" else THREE)
    assert evaluator.changes("source-quorum") == [True] * expected


@pytest.mark.parametrize("pattern", ["1", "10", "100", "110", "11100"])
def test_one_falseticker_of_five_changes_no_severity(pattern: str) -> None:
    """One falseticker of five, whenever it is wrong and by how much, changes neither severity nor confirmation."""
    evaluator = evaluating(6, each_says(0, 0, 0, 0, 0))
    for number, is_wrong in enumerate(itertools.islice(itertools.cycle(pattern), 60)):
        said_ns = (9 * S, -3600 * S, 30 * MS)[number % 3] if is_wrong == "1" else 0
        judged = evaluator.network(each_says(0, 0, 0, 0, said_ns))
        assert (judged.severity, judged.confirmed, judged.wants_poll) == (OK, True, False)
    assert len(evaluator.all_changes) <= 1


# --- grace, patience, what is known ------------------------------------------------------------------------------


def test_nothing_of_the_offset_is_raised_while_the_host_boots() -> None:
    """In the first ten minutes the offset raises no alarm; thereafter the third sample does, or the second."""
    evaluator = Evaluator(uptime_ns=0)
    judged = [evaluator.network(BAD, 64) for _ in range(9)]
    assert {one.severity for one in judged} == {UNKNOWN}
    assert not any(one.confirmed for one in judged)
    assert all(one.wants_poll for one in judged)
    assert [evaluator.network(BAD, 64).severity for _ in range(3)] == [UNKNOWN, UNKNOWN, CRITICAL]


def test_what_else_is_wrong_is_raised_while_the_host_boots() -> None:
    """The grace is the offset's: that servers contradict each other is raised as at any other time."""
    evaluator = Evaluator(uptime_ns=0)
    for _ in range(3):
        judged = evaluator.network(each_says(0, 0, 9 * S))
    assert levels(judged)["source-quorum"] == "medium"


def test_no_uptime_of_another_boot_counts_as_dwelt() -> None:
    """Two samples far apart suffice within a boot; one of the boot before, at whatever uptime, is no such sample."""
    evaluator = evaluating(4, all_say(0), uptime_ns=0)
    evaluator.network(BAD, 1)  # at 20 min of the old boot
    plainly = evaluator.alarms
    evaluator.restart()
    evaluator.alarms, evaluator.uptime_ns = of_new_boot(evaluator.alarms), 3 * HOUR
    assert evaluator.network(BAD, 1).severity is OK
    assert evaluator.network(BAD, 1).severity is CRITICAL  # the third in all
    evaluator.alarms, evaluator.uptime_ns = plainly, 3 * HOUR
    assert evaluator.network(BAD, 1).severity is CRITICAL


def test_raised_findings_and_samples_are_kept_over_a_boot() -> None:
    """A boot ends no alarm, forgets no sample, and restarts the wait for a clock that is being corrected."""
    evaluator = evaluating(6, BAD)
    evaluator.network(GOOD, is_correcting=True)
    before = evaluator.alarms
    after = of_new_boot(before)
    assert (after.correcting_ns, before.correcting_ns) == (None, evaluator.uptime_ns)
    for name, entry in after.conditions.items():
        old = before.conditions[name]
        assert entry == old._replace(since_ns=(None,) * 4, better_ns=None, sampled_ns=None)
    assert after.conditions["offset-out"].raised > 0
    assert before.conditions["offset-out"].better_ns is not None
    evaluator.alarms = after
    evaluator.reboot(3 * DAY)
    assert evaluator.network(GOOD, 1).severity is CRITICAL  # two that are better, and not known to be far apart
    assert evaluator.network(GOOD, 1).severity is OK


def test_an_alarm_outlasts_the_boot() -> None:
    """A raised finding stays raised through restarts and a boot, without a second event, until samples clear it."""
    evaluator = evaluating(6, BAD)
    evaluator.reboot()
    for _ in range(12):
        assert evaluator.network(BAD, 64).severity is CRITICAL
    assert evaluator.all_changes == []
    evaluator.network(GOOD, 64)
    evaluator.reboot(30 * S)
    evaluator.network(GOOD, 64)
    assert evaluator.network(GOOD, 64).severity is OK
    assert evaluator.all_changes == [("offset-out", False)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_time_never_runs_backwards_over_boots(history: list[tuple[bool, int]]) -> None:
    """However often the host boots, no condition has been held for longer than this boot, and none since the future."""
    evaluator = Evaluator(uptime_ns=HOUR)
    for bad, boots in history:
        for _ in range(boots):
            evaluator.reboot(HOUR - 600 * S * boots)
        judged = evaluator.network(BAD if bad else GOOD)
        for entry in judged.state.conditions.values():
            times = [*entry.since_ns, entry.better_ns]
            assert all(at_ns is None or 0 <= at_ns <= evaluator.uptime_ns for at_ns in times)


def test_a_clock_that_is_being_corrected_raises_nothing() -> None:
    """While the clock comes nearer to the truth nothing is raised of it, and it is not called in order either."""
    evaluator = evaluating()
    judged = [evaluator.network(BAD, 300, is_correcting=True) for _ in range(5)]
    assert [one.severity for one in judged] == [OK, *[UNKNOWN] * 4]
    assert not any(one.confirmed for one in judged)
    assert evaluator.network(GOOD).severity is OK
    assert evaluator.all_changes == []


@pytest.mark.parametrize("bad", [BAD, all_say(500 * MS), all_say(900 * MS, 500 * MS)])
def test_a_clock_that_was_in_order_is_not_ok_through_the_boot(bad: Sources) -> None:
    """In the grace period one bad sample after good ones is awaited; from the second on the severity is unknown."""
    evaluator = evaluating(2, uptime_ns=20 * S, every_s=20)
    judged = [evaluator.network(bad, 64) for _ in range(8)]
    assert [one.severity for one in judged] == [OK, *[UNKNOWN] * 7]
    assert evaluator.all_changes == []
    assert evaluator.local(bad).severity is UNKNOWN
    assert evaluator.local(GOOD).severity is OK  # as when it was set right a moment ago
    assert evaluator.network(GOOD).severity is OK


def test_the_end_of_the_grace_makes_nothing_ok() -> None:
    """Samples in a row leave the clock unknown until they raise an alarm, though the first of them were spared."""
    evaluator = evaluating(2, uptime_ns=0, every_s=100)
    judged = [evaluator.network(BAD, 100).severity for _ in range(6)]  # of which the last three count
    assert judged == [OK, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, CRITICAL]


def test_a_warning_does_not_stand_for_what_is_spared() -> None:
    """Where a warning is raised, one spared sample that says critical is awaited, and two leave the clock unknown."""
    evaluator = evaluating(6, all_say(500 * MS))
    judged = [evaluator.network(BAD, 300, is_correcting=True).severity for _ in range(3)]
    assert judged == [WARNING, UNKNOWN, UNKNOWN]


SPARED = st.lists(
    st.tuples(st.sampled_from([0, 0, 500, 5000]), st.booleans(), st.sampled_from([15.0, 64.0, 300.0])), max_size=20
)


@given(SPARED, st.sampled_from([0, DAY]))
@example([(0, True, 15.0), *[(0, True, 300.0)] * 6, (500, True, 15.0), (500, False, 15.0)], 0)
@settings(max_examples=200, deadline=None)
def test_two_spared_samples_in_a_row_are_never_ok(history: list[tuple[int, bool, float]], uptime_ns: int) -> None:
    """Whatever was before, a row of bad samples of which one was spared is not ok from its second on."""
    evaluator = Evaluator(uptime_ns=uptime_ns)
    row: list[bool] = []
    for offset_ms, is_correcting, after_s in history:
        judged = evaluator.network(all_say(offset_ms * MS), after_s, is_correcting=is_correcting)
        since_ns, now_ns = judged.state.correcting_ns, evaluator.uptime_ns
        is_spared = now_ns < 600 * S or (since_ns is not None and now_ns - since_ns < 1800 * S)
        row = [*row, is_spared] if offset_ms else []
        if len(row) > 1 and any(row):
            assert judged.severity is not OK


@pytest.mark.parametrize(("every_s", "most"), [(15, 123), (64, 32), (300, 9), (3600, 3)])
def test_patience_is_bounded(every_s: float, most: int) -> None:
    """A clock that is forever being corrected and never right is an alarm half an hour later, three samples at most."""
    evaluator = evaluating()
    severities = [evaluator.network(BAD, every_s, is_correcting=True).severity for _ in range(most)]
    assert severities[-1] is CRITICAL


def test_correcting_by_turns_wins_no_silence() -> None:
    """Samples that show no correction count, whatever comes between them."""
    evaluator = evaluating()
    judged = [evaluator.network(BAD, 300, is_correcting=turn % 4 != 3) for turn in range(12)]
    assert judged[-1].severity is CRITICAL


def test_unknown_before_anything_is_known() -> None:
    """Without a measurement the severity is unknown; the first good one makes it ok, a bad one leaves it unknown."""
    evaluator = Evaluator()
    assert evaluator.local(no_reply).severity is UNKNOWN
    assert evaluator.network(no_reply).severity is UNKNOWN
    bad = evaluator.network(BAD)
    assert (bad.severity, bad.confirmed, bad.wants_poll) == (UNKNOWN, False, True)
    assert evaluator.network(GOOD).severity is OK


def test_what_was_in_order_before_it_was_lost_sight_of_is_no_longer() -> None:
    """After a boot or a suspend a bad sample does not make the clock ok: that it was so is of another clock."""
    evaluator = evaluating()
    assert evaluator.network(BAD, is_continued=False).severity is UNKNOWN
    assert evaluator.network(BAD).severity is UNKNOWN
    assert evaluator.network(BAD).severity is CRITICAL


def test_losing_sight_forgets_no_bad_sample() -> None:
    """A host that sleeps between all its samples is raised as soon as any other."""
    evaluator = evaluating()
    judged = [evaluator.network(BAD, is_continued=False) for _ in range(3)]
    assert [one.severity for one in judged] == [UNKNOWN, UNKNOWN, CRITICAL]


def test_an_alarm_stays_while_nothing_is_measured() -> None:
    """Critical stays critical when the servers fall silent; a warning becomes unknown, which is worse."""
    evaluator = evaluating(6, BAD)
    assert {evaluator.network(no_reply).severity for _ in range(300)} == {CRITICAL}
    warned = evaluating(6, all_say(500 * MS))
    assert warned.network(all_say(500 * MS)).severity is WARNING
    assert warned.network(no_reply).severity is UNKNOWN


def test_worse_than_the_warning_is_not_confirmed_by_it() -> None:
    """While a warning is raised and the offset goes critical, the record says that this is not confirmed."""
    evaluator = evaluating(6, all_say(500 * MS))
    first = evaluator.network(BAD)
    assert (first.severity, first.confirmed, first.wants_poll) == (WARNING, False, True)
    evaluator.network(BAD)
    third = evaluator.network(BAD)
    assert (third.severity, third.confirmed, third.wants_poll) == (CRITICAL, True, False)


@given(st.lists(st.tuples(st.sampled_from([0, 90, 500, 1200, 5000]), st.sampled_from([5, 300])), max_size=12))
@settings(max_examples=150, deadline=None)
def test_confirmed_means_that_the_severity_says_it(history: list[tuple[int, int]]) -> None:
    """A confirmed severity is at least that of the offset; an unconfirmed one has a pending sample."""
    evaluator = Evaluator()
    for offset_ms, half_width_ms in history:
        judged = evaluator.network(all_say(offset_ms * MS, half_width_ms * MS))
        now = reading(NOON, uptime_ns=evaluator.uptime_ns)
        agreement = select(all_say(offset_ms * MS, half_width_ms * MS)(now), now).agreement
        assert agreement is not None
        plainly = PROFILE.severity(agreement.interval, agreement.estimate_ns)
        if judged.confirmed:
            assert judged.severity >= plainly
        else:
            assert judged.wants_poll
            assert judged.severity is UNKNOWN or judged.severity < plainly


def test_the_tolerance_in_a_message_is_the_profile_s() -> None:
    """What holds an alarm below its tolerance never says that less was allowed."""
    evaluator = evaluating(6, BAD)
    for offset_ms in (1100, 900, 800, 900):
        judged = evaluator.network(all_say(offset_ms * MS))
        (out,) = [finding for finding in judged.findings if finding.id == "offset-out"]
        assert "(critical tolerance 1 s)" in out.message
        assert judged.severity is CRITICAL


# --- what an audit can confirm -----------------------------------------------------------------------------------


def test_silent_servers_do_not_say_that_they_agree() -> None:
    """If no server replies, a contradiction of the sources is neither confirmed nor over."""
    evaluator = evaluating(6, each_says(0, 9 * S))
    for _ in range(6):
        assert levels(evaluator.network(no_reply))["source-quorum"] == "medium"
    assert evaluator.changes("source-quorum") == []


def test_no_majority_is_reported_while_the_offset_is_carried_forward() -> None:
    """That no majority agrees is said in these words, also while an earlier agreement is carried on."""
    evaluator = evaluating()
    for _ in range(3):
        judged = evaluator.network(each_says(0, 9 * S), carried=GOOD)
    (quorum,) = [finding for finding in judged.findings if finding.id == "source-quorum"]
    assert quorum.message == "2 servers replied, and no majority agrees"


def test_pools_at_rest_are_no_lack_of_sources() -> None:
    """An audit in which the pool was left alone says nothing of how many sources there are."""
    evaluator = evaluating(6)
    alone = also(failed(9, "skipped", "interval", name="pool.ntp.org"), count=1)
    assert {evaluator.network(alone).findings for _ in range(12)} == {()}
    assert levels(evaluator.network(all_say(0, count=1), 3600)) == {"source-quorum": "low"}


def test_a_contradiction_counts_while_pools_are_not_queried() -> None:
    """Servers that contradict a larger agreement of a resting pool count; their silence clears nothing."""
    evaluator = evaluating()
    resting = tuple(failed(number, "skipped", "interval") for number in (7, 8))
    earlier = EarlierState(contradiction=Contradiction(4, 300.0))
    contradicting = also(*each_says(0, 9 * S, 0)(reading(NOON)), *resting, count=0)
    for _ in range(3):
        judged = evaluator.network(contradicting, earlier=earlier, carried=GOOD)
    assert levels(judged)["source-quorum"] == "medium"
    assert evaluator.changes("source-quorum") == [True]
    for _ in range(6):
        assert levels(evaluator.network(also(*resting, count=1)))["source-quorum"] == "medium"


def test_a_server_that_is_spared_because_it_is_silent_is_still_silent() -> None:
    """A dead server is asked ever more seldom (P9); as long as it is not asked, it has not come back."""
    evaluator = evaluating(6, also(failed(8), failed(9), count=2))
    spared = also(failed(8, "skipped", "unanswered"), failed(9, "skipped", "unanswered"), count=2)
    for _ in range(26):
        assert levels(evaluator.network(spared))["unreachable-sources"] == "medium"
    assert evaluator.changes("unreachable-sources") == []
    for _ in range(3):
        judged = evaluator.network(also(answered(8), answered(9), count=2))
    assert "unreachable-sources" not in levels(judged)


@pytest.mark.parametrize("name", ["unsynced", "daemon-count"])
def test_a_finding_about_the_host_takes_ten_minutes(name: str) -> None:
    """An unsynchronised kernel or several daemons are raised ten minutes later, by local audits too, and once."""
    seen: dict[str, Any] = {"kernel": UNSYNCHRONISED, "daemons": () if name == "unsynced" else (CHRONYD, NTPD)}
    evaluator = evaluating()
    judged = [evaluator.local(**seen) for _ in range(11)]
    assert [name in {f.id for f in one.findings if f.severity > OK} for one in judged] == [False] * 10 + [True]
    assert not any(one.wants_poll for one in judged)  # no server could confirm it
    for _ in range(30):
        evaluator.local(**seen)
    for _ in range(3):
        judged.append(evaluator.local())
    assert evaluator.changes(name) == [True, False]
    assert judged[-1].severity is OK


def test_a_daemon_that_is_restarted_raises_nothing() -> None:
    """A few minutes without a daemon, every hour, are no alarm."""
    evaluator = evaluating()
    for _ in range(5):
        for _ in range(8):
            assert evaluator.local(kernel=UNSYNCHRONISED, daemons=()).severity is OK
        for _ in range(52):
            evaluator.local(daemons=(CHRONYD,))
    assert evaluator.all_changes == []


def test_a_fault_that_is_there_most_of_the_time_is_raised() -> None:
    """One look in four that finds all in order does not hide what the others see."""
    evaluator = evaluating()
    for turn in range(40):
        judged = evaluator.local(daemons=(CHRONYD,) if turn % 4 == 3 else (CHRONYD, NTPD))
    assert levels(judged)["daemon-count"] == "medium"
    assert evaluator.changes("daemon-count") == [True]


def test_not_demonstrable_takes_an_hour() -> None:
    """A bound too wide for the tolerance is a warning with the third sample, and a finding after an hour."""
    wide = all_say(900 * MS, 500 * MS)
    evaluator = evaluating()
    judged = [evaluator.network(wide) for _ in range(14)]
    assert [one.severity for one in judged] == [OK, OK, *[WARNING] * 12]
    assert [levels(one)["not-demonstrable"] for one in judged] == ["low"] * 12 + ["medium"] * 2
    assert [one.wants_poll for one in judged] == [True, True, *[False] * 12]  # only time is wanting
    assert evaluator.all_changes == [("offset-high", True), ("not-demonstrable", True), ("offset-high", False)]


@pytest.mark.parametrize(
    ("profile", "sources", "words"),
    [
        ("log-integrity", all_say(250 * MS), "the clock is 250 ms behind, over the warning tolerance of 100 ms"),
        ("ops-strict", all_say(0, 60 * MS), "the clock may be up to 60 ms wrong, over the warning tolerance of 50 ms"),
        ("log-integrity", all_say(50 * MS, 980 * MS), "may be up to 1.03 s wrong, over the critical tolerance of 1 s"),
    ],
)
def test_a_warning_of_the_offset_is_a_finding(profile: str, sources: Sources, words: str) -> None:
    """What is over the warning tolerance is `offset-high`: confirmed, held and cleared like any other (issue 11, 2)."""
    evaluator = evaluating(profile=PROFILES[profile])
    judged = [evaluator.network(sources) for _ in range(4)]
    assert [one.severity for one in judged] == [OK, OK, WARNING, WARNING]
    assert [levels(one)["offset-high"] for one in judged[2:]] == ["medium", "medium"]
    (found,) = [finding for finding in judged[-1].findings if finding.id == "offset-high"]
    assert words in found.message
    assert evaluator.all_changes == [("offset-high", True)]
    assert [evaluator.network(GOOD).severity for _ in range(3)] == [WARNING, WARNING, OK]
    assert evaluator.all_changes == [("offset-high", True), ("offset-high", False)]


def test_a_graver_finding_stands_for_the_warning() -> None:
    """`offset-high` is not listed while `offset-out` is raised; it is while the clock comes nearer, until it is ok."""
    evaluator = evaluating()
    for _ in range(3):
        last = evaluator.network(BAD)
    assert set(levels(last)) == {"offset-out"}
    for _ in range(3):
        last = evaluator.network(all_say(250 * MS))
    assert (set(levels(last)), last.severity) == ({"offset-high"}, WARNING)
    for _ in range(3):
        last = evaluator.network(GOOD)
    assert (last.findings, last.severity) == ((), OK)
    assert evaluator.all_changes == [
        ("offset-out", True),
        ("offset-out", False),
        ("offset-high", True),
        ("offset-high", False),
    ]


def test_a_clock_that_is_not_measured_is_a_finding() -> None:
    """From the first record on, until a finding that says why is confirmed; and again after a suspend."""
    evaluator = Evaluator()
    first = evaluator.network(no_reply)
    (found,) = [finding for finding in first.findings if finding.id == "unmeasured"]
    assert (found.level, found.severity) == ("medium", UNKNOWN)
    for _ in range(2):
        last = evaluator.network(no_reply)
    assert {one.id: one.severity for one in last.findings} == {"unreachable-sources": WARNING}
    assert last.severity is UNKNOWN
    evaluator = evaluating()
    woken = evaluator.local(no_reply, earlier=EarlierState(gap=Gap(60.0, 0.2)))
    assert [(one.id, one.message) for one in woken.findings] == [
        ("unmeasured", "the offset is unknown: no earlier measurement can be carried forward")
    ]
    assert evaluator.network(GOOD).severity is OK
    assert evaluator.all_changes == [("unmeasured", True), ("unmeasured", False)]


OUTAGE_IDS = {"no-usable-source", "unreachable-sources", "evidence-gap", "unmeasured"}
TIMEOUT, UNANSWERED, INTERVAL = ("unreachable", "timeout"), ("skipped", "unanswered"), ("skipped", "interval")
POLLS_OF_AN_OUTAGE = st.lists(
    st.one_of(
        st.sampled_from((TIMEOUT, UNANSWERED, INTERVAL)).map(lambda one: (one,) * 4),  # all alike, as most often
        st.tuples(*[st.sampled_from((TIMEOUT, UNANSWERED, INTERVAL))] * 4),
    ),
    max_size=25,
)


def fail_with(outcomes: Sequence[tuple[str, str]]) -> Sources:
    """Let each server fail in its way."""
    return lambda _: tuple(failed(number, *outcome) for number, outcome in enumerate(outcomes, 1))


@settings(max_examples=200)
@example([(TIMEOUT,) * 4, (TIMEOUT,) * 4, (UNANSWERED,) * 4, (TIMEOUT,) * 4, (UNANSWERED,) * 4] * 3)
@given(POLLS_OF_AN_OUTAGE)
def test_an_outage_of_all_servers_is_one_finding_that_does_not_improve(
    polls: list[tuple[tuple[str, str], ...]],
) -> None:
    """While no server replies, one finding counts, and the third poll that proves it is enough to raise it."""
    evaluator = Evaluator()
    evaluator.network(GOOD)
    proofs: list[bool] = []
    for number, poll in enumerate(polls, 1):
        gap = Gap(60.0 * number, float(number))
        judged = evaluator.network(fail_with(poll), 60, earlier=EarlierState(gap=gap), carried=GOOD)
        about = [one for one in judged.findings if one.id in OUTAGE_IDS]
        assert sum(one.severity is WARNING for one in about) <= 1
        assert not any("Improving" in one.message for one in about)
        if TIMEOUT in poll and sum(one != INTERVAL for one in poll) >= 2:
            proofs.append(True)
        elif TIMEOUT in poll and INTERVAL not in poll:
            proofs.append(False)
        if sum(proofs[-5:]) >= 3:
            (counted,) = (one for one in about if one.severity is WARNING)
            assert counted.id == "unreachable-sources"
            assert {one.cause for one in about if one is not counted} <= {"unreachable-sources"}


def test_servers_that_reply_in_vain_and_then_not_at_all_do_not_improve() -> None:
    """What follows a finding by another of the same fact is no improvement, and both count once."""
    evaluator = evaluating(6, lambda _: UNSYNCHRONISED_SERVERS)
    seen = [evaluator.network(no_reply) for _ in range(4)]
    assert not any("Improving" in one.message for judged in seen for one in judged.findings)
    assert [levels(judged).keys() & OUTAGE_IDS for judged in (seen[0], seen[-1])] == [
        {"no-usable-source", "unreachable-sources"}, {"unreachable-sources"},
    ]  # fmt: skip
    evaluator = evaluating(6, lambda _: (*UNSYNCHRONISED_SERVERS[:2], failed(3), failed(4)))
    assert evaluator.last is not None
    listed = [(one.id, one.cause, one.severity) for one in evaluator.last.findings if one.id in OUTAGE_IDS]
    assert listed == [("unreachable-sources", None, WARNING), ("no-usable-source", "unreachable-sources", OK)]


def test_a_gap_while_servers_disagree_is_listed_under_their_disagreement() -> None:
    """Nothing is wrong with the path to the servers; without a reply it is (near miss)."""
    evaluator = evaluating(6, each_says(0, S, 2 * S, 3 * S))
    for usable, sources, cause, words in (
        (4, each_says(0, S, 2 * S, 3 * S), "source-quorum", "repair what `source-quorum` names"),
        (0, no_reply, "unreachable-sources", "restore the path"),
    ):
        for _ in range(3):
            earlier = EarlierState(gap=Gap(1200.0, 4.0), usable_servers=usable)
            judged = evaluator.network(sources, earlier=earlier)
        (found,) = [one for one in judged.findings if one.id == "evidence-gap"]
        assert (found.cause, found.severity) == (cause, OK)
        assert words in found.remedy
    assert evaluator.changes("evidence-gap") == []


def test_silence_that_was_not_polled_again_is_dated() -> None:
    """Beside a table where two servers reply and two wait, the message is of the earlier poll; not so of a new one."""
    evaluator = evaluating(6, no_reply)
    raised = messages(evaluator.network(no_reply))["unreachable-sources"]
    assert "That was" not in raised
    waiting = tuple(failed(number, *UNANSWERED) for number in (3, 4))
    later = [evaluator.network(also(*waiting, count=2)), evaluator.local(GOOD)]
    for judged in later:
        before, dated, after = messages(judged)["unreachable-sources"].partition(". That was at ")
        assert (before, bool(dated)) == (raised, True)
        assert re.fullmatch(r"\d\d:\d\d:\d\dZ: not all servers were queried since", after)
    assert "That was" not in messages(evaluator.network(no_reply))["unreachable-sources"]


def test_what_is_pending_is_not_said_twice() -> None:
    """Raised as medium and pending as high with one message."""
    raised = ConditionState(samples=(2, 3, 3), raised=2, message="m", pending_message="m")
    worse = raised._replace(pending_message="n")
    context = AuditContext(observation(), select((), reading()), PROFILE)
    same, other = (
        _listed(BY_ID["unapproved-source"], one, context, is_replaced=False, can_confirm=True).message
        for one in (raised, worse)
    )
    assert same.startswith("m. Pending (2 of 3 samples): raised as high")
    assert other.startswith("m; n. Pending (2 of 3 samples): raised as high")


def test_a_gap_with_another_cause_than_silence_counts_by_itself() -> None:
    """Records that were lost, and a gap that has ended, are listed by themselves, and have their events only then."""
    evaluator = evaluating(6, no_reply)
    gap = evaluator.network(no_reply, earlier=EarlierState(gap=Gap(1200.0, 4.0)))
    assert [(one.id, one.cause) for one in gap.findings] == [
        ("unreachable-sources", None), ("evidence-gap", "unreachable-sources"),
    ]  # fmt: skip
    ended = evaluator.network(GOOD, earlier=EarlierState(gap=Gap(1500.0, 5.0, has_ended=True)))
    lost = evaluator.network(no_reply, earlier=EarlierState(dropped_records=3))
    for judged in (ended, lost):
        assert [(one.cause, one.severity) for one in judged.findings if one.id == "evidence-gap"] == [(None, WARNING)]
    assert evaluator.changes("evidence-gap") == [True, True]
    listed = evaluator.network(no_reply, earlier=EarlierState(gap=Gap(1200.0, 4.0)))
    ((finding, is_raised),) = listed.changes
    assert (finding.message[:41], is_raised) == ("no longer true: 3 records were lost befor", False)


def test_a_gap_without_a_known_cause_counts_until_the_servers_are_its_cause() -> None:
    """It has an event when it begins, when it is listed under their silence, and with its duration when it ends."""
    evaluator = evaluating()
    for number in range(4, 9):
        evaluator.network(no_reply, 30, carried=GOOD, earlier=EarlierState(gap=Gap(300.0 * number, float(number))))
    evaluator.restart()
    for has_ended in (True, False):
        gap = Gap(2700.0, 9.0, has_ended=True) if has_ended else None
        evaluator.network(GOOD, earlier=EarlierState(gap=gap))
    assert evaluator.all_changes[:3] == [
        ("evidence-gap", True), ("evidence-gap", False), ("unreachable-sources", True),
    ]  # fmt: skip
    assert evaluator.changes("evidence-gap") == [True, False, True, False]


def test_what_is_spared_is_listed_where_it_makes_the_clock_unknown() -> None:
    """In the grace after a start an offset that is out raises nothing, and is listed as what makes it unknown."""
    evaluator = Evaluator(uptime_ns=20 * S)
    judged = evaluator.network(BAD, 64)
    assert [(one.id, one.level, one.severity) for one in judged.findings] == [("offset-out", "low", UNKNOWN)]
    assert judged.findings[0].message.endswith(
        ". Pending: raised as critical after 3 such samples of the last 5, or 2 in a row 10 min apart"
    )
    assert evaluator.all_changes == []


UNSYNCHRONISED_SERVERS = tuple(failed(number, "rejected", "unsync") for number in (1, 2, 3, 4))


def test_servers_that_reply_and_cannot_be_used_are_a_finding() -> None:
    """It is confirmed like any other, also while an offset is carried on, and over as soon as servers are usable."""
    evaluator = evaluating()
    for _ in range(3):
        last = evaluator.network(lambda _: UNSYNCHRONISED_SERVERS, carried=GOOD)
    assert levels(last) == {"no-usable-source": "medium"}
    evaluator.network(lambda _: tuple(failed(number, "skipped", "interval") for number in (1, 2)), carried=GOOD)
    assert [levels(evaluator.network(GOOD)) for _ in range(3)][-1] == {}
    assert evaluator.all_changes == [("no-usable-source", True), ("no-usable-source", False)]


def test_too_few_replies_say_nothing_of_the_offset() -> None:
    """They neither raise nor clear what is known of it, and are a warning of their own once confirmed (R1)."""
    few: Sources = lambda now: (all_say(0, count=1)(now)[0], *map(failed, (2, 3, 4)))  # noqa: E731
    evaluator = evaluating(6, BAD)
    assert {evaluator.network(few).severity for _ in range(20)} == {CRITICAL}
    assert ("offset-out", False) not in evaluator.all_changes
    fresh = Evaluator()
    assert [fresh.network(few).severity for _ in range(4)] == [UNKNOWN, UNKNOWN, WARNING, WARNING]


def test_a_gap_is_raised_at_once_and_cleared_at_once() -> None:
    """A momentary finding waits for no sample, and has one event each when it begins, gets worse and ends."""
    evaluator = evaluating()
    for unmeasured_s in (600.0, 1000.0, 2000.0, 90_000.0, 95_000.0):
        evaluator.local(earlier=EarlierState(gap=Gap(unmeasured_s, unmeasured_s / 300.0)))
    evaluator.network(GOOD, earlier=EarlierState(gap=Gap(95_300.0, 95_300.0 / 300.0, has_ended=True)))
    evaluator.local()
    assert evaluator.all_changes == [("evidence-gap", True), ("evidence-gap", True), ("evidence-gap", False)]


def test_a_forecast_needs_samples() -> None:
    """That the clock will leave its tolerance takes three samples that say so; local audits do not count."""
    drift = Drift(40.0, 40.0, 0.1, 20, Breach(3000.0, 3600.0, 5000.0, 1000.0, False, False))
    evaluator = evaluating()
    seen = []
    for _ in range(3):
        seen.append(levels(evaluator.network(GOOD, earlier=EarlierState(drift=drift)))["breach-forecast"])
        seen += [levels(evaluator.local(earlier=EarlierState(drift=drift)))["breach-forecast"] for _ in range(4)]
    assert seen == ["low"] * 10 + ["medium"] * 5
    assert evaluator.changes("breach-forecast") == [True]


# --- always ------------------------------------------------------------------------------------------------------

ANYTHING = [
    GOOD,
    BAD,
    THREE,
    all_say(900 * MS, 500 * MS),
    all_say(150 * MS),
    all_say(-900 * S),
    each_says(0, 9 * S),
    each_says(0, 0, 9 * S),
    also(failed(8), failed(9), count=1),
    also(failed(9, "skipped", "interval")),
    also(failed(9, "rejected", "kod:RATE")),
    no_reply,
    lambda _: (),
    lambda now: (all_say(0, count=1)(now)[0], *map(failed, (2, 3, 4))),
    lambda _: tuple(failed(number, "rejected", "unsync") for number in (1, 2, 3, 4)),
    lambda _: tuple(failed(number, "skipped", "interval") for number in (1, 2, 3, 4)),
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(ANYTHING),
            st.sampled_from(["network", "local"]),
            st.sampled_from([1.0, 60.0, 300.0, 3600.0]),
            st.booleans(),
            st.booleans(),
            st.sampled_from([(CHRONYD,), (), (CHRONYD, NTPD)]),
        ),
        max_size=20,
    ),
    st.sampled_from([0, DAY]),
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes(history: list[Any], uptime_ns: int) -> None:
    """Findings have one id each, count by their level, and each change of what is raised has one event."""
    evaluator = Evaluator(uptime_ns=uptime_ns)
    up: dict[str, str] = {}
    for sources, kind, after_s, is_correcting, is_continued, daemons in history:
        judged = (evaluator.network if kind == "network" else evaluator.local)(
            sources, after_s, is_correcting=is_correcting, is_continued=is_continued, daemons=daemons
        )
        ids = [finding.id for finding in judged.findings]
        assert len(ids) == len(set(ids))
        for finding in judged.findings:
            usual = UNKNOWN if finding.id == "unmeasured" else LEVEL_SEVERITY[finding.level]
            usual = OK if finding.cause else usual
            assert finding.severity is usual or (finding.severity is UNKNOWN and not judged.confirmed)
        worst = max((finding.severity for finding in judged.findings), default=OK)
        assert judged.severity >= worst
        assert (judged.severity > OK) == (worst > OK)  # no severity without a finding that counts
        for finding, raised in judged.changes:
            assert up.get(finding.id) != finding.level or not raised
            assert raised or up[finding.id] == finding.level
            up.pop(finding.id, None) if not raised else up.update({finding.id: finding.level})
        counted = {one.id: one.level for one in judged.findings if one.level != "low" and not one.cause}
        assert counted == {name: level for name, level in up.items() if level != "low"}
        evaluator.restart()
        assert evaluator.alarms == judged.state


def test_a_host_in_order_leaves_its_alarms_as_they_are() -> None:
    """Once a host has been in order for some audits, hearing that it still is changes nothing that would be stored."""
    evaluator = evaluating(6)
    for _ in range(6):
        evaluator.local()
    before = evaluator.alarms
    for _ in range(10):
        evaluator.local()
        evaluator.network(GOOD)
    assert evaluator.alarms == before


def test_a_fault_of_the_host_that_stays_raised_leaves_its_alarms_as_they_are() -> None:
    """A local audit that finds the same fault again changes nothing that would be stored."""
    evaluator = evaluating()
    judged = [evaluator.local(kernel=UNSYNCHRONISED, daemons=()) for _ in range(20)]
    assert "unsynced" in levels(judged[-1])
    before = evaluator.alarms
    for _ in range(10):
        evaluator.local(kernel=UNSYNCHRONISED, daemons=())
    assert evaluator.alarms == before


def test_the_order_of_sources_does_not_matter() -> None:
    """The order of the sources does not change what an evaluator concludes."""
    one, other = Evaluator(), Evaluator()
    for turn in range(20):
        sources = each_says(0, 0, 9 * S if turn % 3 else 0, 30 * MS)
        assert one.network(sources).severity is other.network(_backwards(sources)).severity
        assert one.all_changes == other.all_changes


def test_every_rule_is_watched() -> None:
    """No rule is forgotten: after one good audit each has an entry, and nothing else has."""
    assert set(evaluating(1).alarms.conditions) == {rule.id for rule in RULES}


def claiming(offset_s: float, bound_s: float | None = 0.001, **stated: Any) -> Daemon:
    """Return a chronyd that states this now and follows a server."""
    return CHRONYD._replace(claim=Claim(0, True, "ntp9.example.net", offset_s, bound_s, **stated))


def beside(evaluator: "Evaluator", offset_ns: int, daemon: Daemon, **seen: Any) -> Decision:
    """Audit a clock whose time daemon states something at the same moment."""
    claim = daemon.claim
    if isinstance(claim, Claim):
        claim = claim._replace(boottime_ns=evaluator.uptime_ns + 300 * S)
    return evaluator.network(all_say(offset_ns), daemons=(daemon._replace(claim=claim),), **seen)


def test_a_daemon_that_follows_a_wrong_server_is_one_alert_beside_the_offset() -> None:
    """It takes three samples; what follows from it is listed under it, and has no events."""
    evaluator = evaluating()
    judged = [beside(evaluator, 200 * MS, claiming(0.0), kernel=SYNCHRONISED) for _ in range(4)]
    counted = [{one.id for one in decision.findings if one.severity} for decision in judged]
    assert "daemon-disagrees" not in counted[0]
    assert counted[-1] == {"offset-high", "daemon-disagrees"}
    under = {one.id for one in judged[-1].findings if one.cause == "daemon-disagrees"}
    assert under == {"daemon-bound-violated", "kernel-maxerror-violated", "false-time-quality"}
    assert evaluator.all_changes == [("offset-high", True), ("daemon-disagrees", True)]


def test_a_daemon_that_corrects_the_clock_and_says_so_raises_nothing() -> None:
    """While 200 ms are slewed away over 20 minutes, and while the daemon still states its last offset."""
    evaluator = evaluating()
    for left_ms in (200, 200, 150, 100, 50, 0, 0):
        beside(evaluator, left_ms * MS, claiming(left_ms / 1000), kernel=SYNCHRONISED)
        beside(evaluator, left_ms * MS // 2, claiming(left_ms / 1000), kernel=SYNCHRONISED)
    assert evaluator.changes("daemon-disagrees") == []
    assert evaluator.changes("daemon-bound-violated") == []
    assert evaluator.changes("kernel-maxerror-violated") == []


def test_one_wrong_claim_raises_nothing() -> None:
    """One claim of four that is wrong, and one of four that cannot be read, are no alert."""
    evaluator = evaluating()
    unreadable = CHRONYD._replace(claim=Unavailable("refused"))
    for turn in range(40):
        daemon = (claiming(0.0), claiming(0.2), unreadable, claiming(0.2))[turn % 4]
        beside(evaluator, 200 * MS, daemon)
    assert evaluator.changes("daemon-disagrees") == []
