"""Events as values: what they are called, and that they can be stored."""

import json

import pytest

from ntpaudit.core.checks.host import RULES
from ntpaudit.core.checks.rule import LEVEL_SEVERITY
from ntpaudit.core.events import Event
from ntpaudit.core.policy import Severity
from ntpaudit.store.serialization import plain, revive
from tests.core.hosts import LivingHost
from tests.core.random_agents import SILENT, Watch
from tests.core.worlds import MS, NOON, S

RAISED = Event("step-back", True, Severity.WARNING, "high", "the clock was set back", NOON, NOON - S, 5 * S)


@pytest.mark.parametrize(("raised", "title"), [(True, "high: step-back"), (False, "cleared: step-back")])
def test_the_title_says_what_began_or_ended(raised: bool, title: str) -> None:
    """A raised finding has its level in the title, an ended one `cleared`."""
    assert RAISED._replace(raised=raised).title == title


def test_an_event_has_what_every_kind_has_and_nothing_more() -> None:
    """Size, remedy and detail belong to each kind; no receiver can change the detail."""
    assert (RAISED.value_s, RAISED.remedy, dict(RAISED.detail)) == (None, "", {})
    with pytest.raises(TypeError):
        RAISED.detail["more"] = 1  # type: ignore[index]


def eventful() -> Watch:
    """Simulate steps, a gap, falsetickers, a clock that stays wrong, a daemon that stops, a reboot."""
    watch = Watch(LivingHost(drift_ppm=3))
    watch.spend(1200)
    watch.host.step(-3600 * S)
    watch.spend(3000)
    watch.host.step(3600 * S + 20 * MS)
    watch.host.run(70)
    watch.host.poll_s = None
    watch.spend(2400, error_ns=[0, 0, 9 * S])
    for _ in range(25):
        watch.host.run(60)
        watch.network(*SILENT)
    watch.host.suspend(7200)
    watch.spend(5400)
    watch.host.daemons = ()
    watch.spend(1800)  # the kernel is content at first
    watch.host.is_synchronised = False
    watch.spend(1800)
    watch.host.reboot(realtime_ns=9 * S)
    watch.restart()
    watch.spend(4000)
    return watch


def test_every_event_of_a_life_is_whole() -> None:
    """Whatever happens, an event has a rule's id, the severity of its level, words and a remedy, and JSON keeps it."""
    events = eventful().events
    assert {event.kind for event in events} >= {
        "step-back", "step-forward", "offset-out", "evidence-gap", "source-quorum", "unreachable-sources",
        "daemon-stale", "unsynced", "daemon-dead",
    }  # fmt: skip
    counts_as = {rule.id: rule.counts_as for rule in RULES}
    for event in events:
        assert event.severity is (counts_as[event.kind] or LEVEL_SEVERITY[event.level])
        assert event.text
        assert event.remedy
        assert type(event.boottime_ns) is int
        stored = json.loads(json.dumps(plain(event) | {"severity": int(event.severity)}, allow_nan=False))
        back = revive(Event, stored | {"severity": event.severity})
        assert back == event


def test_what_is_raised_is_cleared_or_goes_on() -> None:
    """No kind is cleared that was not raised, and it is raised again only with another level."""
    up: dict[str, str] = {}
    for event in eventful().events:
        if event.kind in ("step-back", "step-forward"):
            continue
        assert up.get(event.kind) != event.level if event.raised else event.kind in up
        if event.raised:
            up[event.kind] = event.level
        else:
            assert up.pop(event.kind) == event.level


def test_an_event_stands_at_the_true_time() -> None:
    """While an offset is known an event has the true time of its moment, however wrong the host's clock is."""
    for event in eventful().events:
        assert event.utc_ns is None or abs(event.utc_ns - NOON) < 2 * 86_400 * S
    times_ns = [event.utc_ns for event in eventful().events if event.utc_ns is not None]
    assert times_ns == sorted(times_ns)
