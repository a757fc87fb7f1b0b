"""One poll: no lock is held while names are resolved, and its messages suit the command."""

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from ntpaudit.core.ntp.rate_limit import Instant, ServerState, ServerStates
from ntpaudit.core.ntp.sources import POOL_DOMAIN, parse_source, region
from ntpaudit.core.observation import SourceFailure, SourceObservation
from ntpaudit.polling import PollRound, QueryOptions
from ntpaudit.probes.clock import SystemClock

DAY_NS = 86_400 * 10**9
NOW = Instant("boot", 100 * DAY_NS, 1_800_000_000 * 10**9)
LOOKUP_S = 0.4


class Store:
    """What is remembered, whether it is held at this moment, and the names that were looked up while it was."""

    def __init__(self, states: ServerStates | None = None) -> None:
        self.memories = states or {}
        self.is_held = False
        self.held_up_by: list[str] = []

    def update(self, change: Callable[[ServerStates], ServerStates]) -> None:
        """Hold the server states while they are changed, as the agent's store does."""
        self.is_held = True
        self.memories |= change(dict(self.memories))
        self.is_held = False


@pytest.fixture
def store() -> Store:
    """An empty memory."""
    return Store()


@pytest.fixture
def lookups(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were looked up, in a world whose resolver is slow and knows none."""
    asked: list[str] = []

    def lookup(host: bytes, *words: Any, **options: Any) -> Any:
        asked.append(host.decode())
        store.held_up_by += [host.decode()] * store.is_held
        time.sleep(LOOKUP_S)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


def test_nothing_blocks_while_a_larger_zone_is_resolved(
    store: Store, lookups: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """P7: a country without a zone leads to its continent, before what is remembered is locked for the decision."""
    [observation] = PollRound([region("nl")], QueryOptions()).poll(SystemClock(), NOW, store.update)
    assert isinstance(observation.outcome, SourceFailure)
    assert observation.outcome.reason == "name-unknown"
    assert "0.europe.pool.ntp.org" in lookups
    assert caplog.messages == ["nl.pool.ntp.org has no address; trying europe.pool.ntp.org"]
    assert store.held_up_by == []


def test_a_zone_that_does_not_answer_in_time_has_no_fallback(
    lookups: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """P7: only where the zone is known to have no server is the larger one asked."""
    store = Store()
    survey = PollRound([region("nl")], QueryOptions(timeout_s=LOOKUP_S / 4))
    [observation] = survey.poll(SystemClock(), NOW, store.update)
    assert isinstance(observation.outcome, SourceFailure)
    assert observation.outcome.reason == "name-timeout"
    assert not any("europe" in name for name in lookups)
    assert caplog.messages == []


def hold_back(options: QueryOptions, caplog: pytest.LogCaptureFixture) -> tuple[SourceObservation, list[str]]:
    """Poll a server that was queried a second ago."""
    caplog.clear()
    caplog.set_level("INFO")
    asked = NOW._replace(boottime_ns=NOW.boottime_ns - 10**9)
    store = Store({"192.0.2.1 123": ServerState(asked)})
    [observation] = PollRound([parse_source("192.0.2.1")], options).poll(SystemClock(), NOW, store.update)
    return observation, caplog.messages


def test_a_hint_is_given_only_where_it_can_be_followed(caplog: pytest.LogCaptureFixture) -> None:
    """An agent has no option that asks at once, so it speaks of none."""
    observation, notes = hold_back(QueryOptions(), caplog)
    assert notes == ["192.0.2.1: queried recently; next query in 14 s"]
    assert observation.outcome == SourceFailure("skipped", "interval", "next query in 14 s")
    assert hold_back(QueryOptions(hint="--force queries now"), caplog)[1] == [f"{notes[0]}; --force queries now"]


def test_who_was_not_asked_for_two_weeks_is_forgotten() -> None:
    """P8: a pool gives new addresses for ever, not to be remembered for ever; recent ones and the pool itself stay."""
    moments = [NOW._replace(boottime_ns=NOW.boottime_ns - days * DAY_NS) for days in (1, 20)]
    recent, old = moments
    store = Store(
        {
            "192.0.2.1 123": ServerState(old, zone="pool.ntp.org", slot=1, last_resolved=old),
            "192.0.2.2 123": ServerState(recent, zone="pool.ntp.org", slot=1, last_resolved=recent),
            "192.0.2.3 123": ServerState(old, kod="DENY", kod_at=recent),
            "192.0.2.4 123": ServerState(old, rate_kods=3, kod="RATE", kod_at=old),
            POOL_DOMAIN: ServerState(old),
        }
    )
    PollRound([], QueryOptions()).poll(SystemClock(), NOW, store.update)
    forgotten = {endpoint for endpoint, memory in store.memories.items() if memory == ServerState()}
    assert forgotten == {"192.0.2.1 123", "192.0.2.4 123"}
