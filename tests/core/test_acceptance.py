"""Accepted findings: what they change, what they never change, and when they end."""

import json
from typing import Any

import pytest

from ntpaudit.core.acceptance import Acceptance, Accepted, accepted_at
from ntpaudit.core.checks.context import AuditContext, EarlierState, Gap
from ntpaudit.core.checks.debounce import DebounceState, Decision, judge
from ntpaudit.core.checks.host import RULES, findings_of
from ntpaudit.core.checks.rule import Finding
from ntpaudit.core.clock.steps import Step
from ntpaudit.core.clock_state import ClockState
from ntpaudit.core.evaluation import step_event
from ntpaudit.core.observation import HiddenDaemons, Unavailable
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Labels, Record, conclude
from ntpaudit.core.site_policy import NOTHING_REQUIRED, SitePolicy
from ntpaudit.store.rows import checked_record
from ntpaudit.store.serialization import plain, revive
from tests.core.policies import ACCEPTING_HOSTS, accepting
from tests.core.worlds import DAY, MS, NOON, UNSYNCHRONISED, YEAR, S, answered, case, failed, measurement, reading
from tests.message_examples import HOSTS

HIDDEN = HiddenDaemons("this container has a PID namespace of its own")
CONTAINER = case(kernel=UNSYNCHRONISED, daemons=HIDDEN)
BARE = case(kernel=UNSYNCHRONISED, daemons=())
"""A host where all is visible, and nothing corrects the clock: `daemon-count` is listed under `unsynced`."""

NO_REPLY = case(*map(failed, (1, 2, 3, 4)))
OPS = Accepted("container", "ops, ticket 1234", "2026-10-22T12:00:00.000000000Z")
OF_THE_OFFSET = {"offset-out", "offset-high", "not-demonstrable"}
OF_THE_PROOF = {"source-quorum", "no-usable-source", "evidence-gap", "unmeasured"}


def where(context: AuditContext, policy: SitePolicy) -> AuditContext:
    """Return a case under a site's policy."""
    return context._replace(site_policy=policy)


def found(context: AuditContext) -> dict[str, Finding]:
    """Return the findings of one check by their ids."""
    return {one.id: one for one in findings_of(context)}


def recorded(context: AuditContext) -> Record:
    """Return the record of one check."""
    return conclude(context.observation, context.profile, Labels("0.1"), site_policy=context.site_policy)


def test_a_container_without_a_visible_daemon_is_green_once_it_is_accepted() -> None:
    """The finding stays with its level and message, says who accepts it, and does not count."""
    assert recorded(CONTAINER).severity is Severity.WARNING
    record = recorded(where(CONTAINER, accepting("unsynced")))
    (finding,) = record.findings
    assert record.severity is Severity.OK
    assert (finding.id, finding.level, finding.severity, finding.accepted) == ("unsynced", "medium", Severity.OK, OPS)
    assert finding._replace(accepted=None, severity=Severity.WARNING) == recorded(CONTAINER).findings[0]


@pytest.mark.parametrize(
    ("left_ns", "until_ns", "severity", "ids"),
    [
        (1, NOON + 1, Severity.OK, {"unsynced": True}),
        (0, NOON, Severity.WARNING, {"unsynced": False, "acceptance-expired": False}),
        (-1, NOON - 1, Severity.WARNING, {"unsynced": False, "acceptance-expired": False}),
        (None, None, Severity.WARNING, {"unsynced": False, "acceptance-expired": False}),
    ],
)
def test_it_ends_at_the_very_moment(
    left_ns: int | None, until_ns: int | None, severity: Severity, ids: dict[str, bool]
) -> None:
    """A nanosecond before its end it counts; at its end, after it and without one it counts for nothing."""
    record = recorded(where(CONTAINER, accepting("unsynced", until_ns=until_ns)))
    assert record.severity is severity
    assert {one.id: one.accepted is not None for one in record.findings} == ids


@pytest.mark.parametrize(("offset_ns", "accepts"), [(0, True), (50 * MS, False), (-50 * MS, True)])
def test_the_measured_time_decides(offset_ns: int, accepts: bool) -> None:
    """A host that is 50 ms behind ends an acceptance 50 ms earlier by its own clock; without a measurement its own."""
    sources = tuple(answered(number, measurement(offset_ns)) for number in (1, 2, 3, 4))
    policy = accepting("unsynced", until_ns=NOON + 30 * MS)
    assert (case(*sources)._replace(site_policy=policy).accepted != {}) is accepts
    assert where(NO_REPLY, policy).accepted != {}


def test_an_expired_acceptance_names_finding_person_and_end() -> None:
    """It is raised whether or not the finding is, and says all of it."""
    (ended, endless) = (found(context)["acceptance-expired"] for context in ACCEPTING_HOSTS)
    assert "unsynced" not in found(ACCEPTING_HOSTS[0])
    assert ended.message == (
        "the acceptance of unsynced by ops, ticket 1234 ended at 2026-10-21 12:00 UTC (reason: container)"
    )
    assert endless.message == (
        "the acceptance of unsynced by ops, ticket 1234 has no end, so it counts for nothing (reason: container)"
    )
    assert {one.severity for one in (ended, endless)} == {Severity.WARNING}


def test_what_matches_nothing_is_no_finding() -> None:
    """An acceptance of what is not found is quiet until its end."""
    assert findings_of(where(case(), accepting("unsynced", "step-back"))) == ()


def test_what_is_listed_under_an_accepted_finding_stays_there_and_does_not_count() -> None:
    """Where nothing disciplines the clock, to accept `unsynced` is enough for the `daemon-count` under it."""
    findings = found(where(BARE, accepting("unsynced")))
    assert [(one.id, one.cause, one.severity) for one in findings.values()] == [
        ("unsynced", None, Severity.OK),
        ("daemon-count", "unsynced", Severity.OK),
    ]
    assert findings["daemon-count"].accepted is None


def test_a_primary_counts_though_what_is_listed_under_it_is_accepted() -> None:
    """`daemon-count` is accepted and listed under `unsynced`, which is not accepted."""
    record = recorded(where(BARE, accepting("daemon-count")))
    assert record.severity is Severity.WARNING
    assert [(one.id, one.cause, one.accepted) for one in record.findings] == [
        ("unsynced", None, None),
        ("daemon-count", "unsynced", OPS),
    ]


def test_the_finding_without_the_kernel_is_accepted_by_its_own_id() -> None:
    """Where adjtimex is forbidden and no daemon runs, `daemon-count` stands alone."""
    alone = case(kernel=Unavailable("adjtimex is forbidden here (EPERM)"), daemons=())
    assert recorded(alone).severity is Severity.WARNING
    assert recorded(where(alone, accepting("daemon-count"))).severity is Severity.OK


def test_an_unknown_offset_is_never_hidden() -> None:
    """Accepted silence of all servers covers nothing: `unmeasured` is listed and counts."""
    assert "unmeasured" not in found(NO_REPLY)
    record = recorded(where(NO_REPLY, accepting("unreachable-sources")))
    assert record.severity is Severity.UNKNOWN
    assert {one.id: one.severity for one in record.findings} == {
        "unreachable-sources": Severity.OK,
        "unmeasured": Severity.UNKNOWN,
    }


@pytest.mark.parametrize("context", HOSTS)
def test_no_acceptance_of_a_configuration_makes_the_offset_better(context: AuditContext) -> None:
    """With everything accepted that can be, the offset counts as before, and what counts is listed."""
    ids = [rule.id for rule in RULES if rule.acceptable == "anywhere"]
    accepted = where(context, accepting(*ids, until_ns=NOON + YEAR))
    record = recorded(accepted)
    counted = [one for one in record.findings if one.severity > Severity.OK]
    assert {one.id for one in counted}.isdisjoint(ids)
    assert record.severity is max([accepted.offset_severity, *(one.severity for one in counted)])
    assert bool(counted) is (record.severity > Severity.OK)


def test_what_no_host_can_accept_is_listed_under_no_accepted_finding() -> None:
    """An outage is one finding; once its servers' silence is accepted, the gap stands by itself and counts."""
    gap = NO_REPLY._replace(earlier=EarlierState(gap=Gap(1300.0, 1300.0 / 300.0)))
    assert {one.id: one.cause for one in findings_of(gap)} == {
        "unreachable-sources": None,
        "evidence-gap": "unreachable-sources",
    }
    accepted = findings_of(where(gap, accepting("unreachable-sources")))
    assert {one.id: (one.cause, one.severity) for one in accepted} == {
        "unreachable-sources": (None, Severity.OK),
        "evidence-gap": (None, Severity.WARNING),
    }
    assert recorded(where(NO_REPLY, accepting("unreachable-sources"))).severity is Severity.UNKNOWN


def test_what_says_that_the_clock_is_wrong_or_not_proven_is_for_reports_alone() -> None:
    """These the configuration refuses; `acceptance-expired` cannot be accepted anywhere."""
    assert {rule.id for rule in RULES if rule.acceptable == "reports"} == OF_THE_OFFSET | OF_THE_PROOF
    assert [rule.id for rule in RULES if rule.acceptable == "never"] == ["acceptance-expired"]


def test_of_two_the_first_counts() -> None:
    """`--exceptions` may have several for one host: the first that has not ended."""
    several = [Acceptance("unsynced", name, "ops", end_ns) for name, end_ns in (("a", 5), ("b", 20), ("c", 30))]
    assert [accepted_at(several, now_ns).get("unsynced", OPS).reason for now_ns in (0, 5, 20, 30)] == [
        *("a", "b", "c"), "container",
    ]  # fmt: skip


def test_the_record_has_it_and_reads_it_back() -> None:
    """As JSON, as stored, and as older versions wrote it: without the field."""
    record = recorded(where(BARE, accepting("unsynced")))
    data = json.loads(json.dumps(record.to_dict()))
    assert [one["accepted"] for one in data["findings"]] == [OPS._asdict(), None]
    assert Record.from_dict(data) == record
    assert checked_record(data).accepted == record.findings[:1]
    older = data | {"findings": [{key: one[key] for key in one if key != "accepted"} for one in data["findings"]]}
    assert checked_record(older).accepted == ()


@pytest.mark.parametrize("damaged", [3, "ops", {"by": "ops"}, {"reason": "x", "by": 3, "until": "y"}, [1, 2, 3]])
def test_a_damaged_acceptance_is_refused(damaged: Any) -> None:
    """A stored record whose acceptance has another type is none."""
    data = recorded(CONTAINER).to_dict()
    data["findings"][0]["accepted"] = damaged
    with pytest.raises((ValueError, TypeError, AttributeError)):
        checked_record(data)


# --- an agent -----------------------------------------------------------------------------------------------------


class Agent:
    """The debounce state of a host, each audit ten minutes after the last one."""

    def __init__(self) -> None:
        self.state, self.minutes = DebounceState(), 0

    def audit(self, context: AuditContext, policy: SitePolicy = NOTHING_REQUIRED) -> Decision:
        """Judge a local audit; the state is stored and read back."""
        self.minutes += 10
        taken = reading(NOON, uptime_ns=DAY + self.minutes * 60 * S)
        now = where(context._replace(observation=context.observation._replace(taken=taken)), policy)
        decision = judge(now, self.state, "local", is_sample=False)
        self.state = revive(DebounceState, plain(decision.state, names=False))
        return decision


def test_debouncing_goes_on_and_every_change_says_that_it_is_accepted() -> None:
    """Pending, raised and cleared as ever, with the severity ok."""
    agent, policy = Agent(), accepting("unsynced")
    first = agent.audit(CONTAINER, policy)
    assert [(one.id, one.accepted, one.severity) for one in first.findings] == [("unsynced", OPS, Severity.OK)]
    assert "Pending" in first.findings[0].message
    changes = [change for _ in range(3) for change in agent.audit(CONTAINER, policy).changes]
    cleared = [change for _ in range(3) for change in agent.audit(case(), policy).changes]
    assert [(one.id, one.level, one.severity, one.accepted, raised) for one, raised in (*changes, *cleared)] == [
        ("unsynced", "medium", Severity.OK, OPS, True),
        ("unsynced", "medium", Severity.OK, OPS, False),
    ]


def test_accepting_what_is_raised_and_its_end_are_events() -> None:
    """A fleet reads the last event: it shows that the finding no longer counts, and that it counts again."""
    agent = Agent()
    for _ in range(4):
        assert agent.audit(CONTAINER).severity is Severity.WARNING or not agent.state.of("unsynced").raised
    accepted = agent.audit(CONTAINER, accepting("unsynced"))
    assert accepted.severity is Severity.OK
    assert [(one.severity, one.accepted, raised) for one, raised in accepted.changes] == [(Severity.OK, OPS, True)]
    assert agent.audit(CONTAINER, accepting("unsynced")).changes == ()
    ended = agent.audit(CONTAINER, accepting("unsynced", until_ns=NOON))
    assert ended.severity is Severity.WARNING
    assert [(one.id, one.severity, raised) for one, raised in ended.changes] == [
        ("unsynced", Severity.WARNING, True),
        ("acceptance-expired", Severity.WARNING, True),
    ]
    assert ended.changes[0][0].message.startswith("no longer accepted: the kernel reports")


def test_an_agent_lists_related_findings_as_a_check_does() -> None:
    """Under the accepted primary, without counting and without events of their own."""
    agent, policy = Agent(), accepting("unsynced")
    changes = [one.id for _ in range(4) for one, _ in agent.audit(BARE, policy).changes]
    last = agent.audit(BARE, policy)
    assert last.severity is Severity.OK
    assert [(one.id, one.cause) for one in last.findings] == [("unsynced", None), ("daemon-count", "unsynced")]
    assert changes == ["unsynced"]


def test_an_agent_never_hides_an_unknown_offset() -> None:
    """Once `unreachable-sources` is raised and accepted, `unmeasured` is listed, counts, and is an event."""
    agent, policy = Agent(), accepting("unreachable-sources")
    for _ in range(4):
        taken = reading(NOON, uptime_ns=DAY + agent.minutes * 60 * S)
        context = NO_REPLY._replace(observation=NO_REPLY.observation._replace(taken=taken), site_policy=policy)
        last = judge(context, agent.state, "network", is_sample=False)
        agent.state, agent.minutes = last.state, agent.minutes + 10
    assert last.severity is Severity.UNKNOWN
    assert {one.id: one.severity for one in last.findings} == {
        "unreachable-sources": Severity.OK,
        "unmeasured": Severity.UNKNOWN,
    }


def test_a_state_with_findings_of_another_version_is_read() -> None:
    """What was accepted and raised by a version with other rules is no error."""
    agent = Agent()
    agent.state = DebounceState({"of-the-future": agent.state.of("x")._replace(raised=2)}, None, (), ("of-the-future",))
    assert agent.audit(CONTAINER, accepting("unsynced")).severity is Severity.OK
    assert agent.audit(NO_REPLY, accepting("unsynced")).severity is Severity.UNKNOWN


def test_a_step_that_is_accepted_is_an_event_that_says_so() -> None:
    """Its event does not count, and has who accepts it; one of another finding does."""
    step, state = Step(-S, NOON + S, NOON, is_gap=False, boottime_ns=DAY), ClockState(None, reading(), DAY)
    for ids, severity in ((("step-back",), Severity.OK), (("step-forward",), Severity.WARNING)):
        event = step_event(state, step, reading(), accepting(*ids).accepted)
        assert (event.severity, event.is_accepted, event.level) == (severity, severity is Severity.OK, "high")
