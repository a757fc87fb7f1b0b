"""A starting agent judges what the last run observed and did not judge."""

from contextlib import suppress
from pathlib import Path

import pytest

from ntpaudit.agent_store import MAX_ATTEMPTS, AgentStore
from ntpaudit.store import audits
from ntpaudit.store.state import StateStore
from tests.store.audits import audit


class KilledError(BaseException):
    """The end of an agent that was killed: nothing runs after it."""


def recover(path: Path, error: BaseException | None = None) -> list[int]:
    """Start an agent that ends by `error` while it judges the first audit; return the ids of all that it judged."""
    store, judged = StateStore(str(path)), []

    def judge(pending: audits.PendingObservation) -> None:
        if error is not None:
            raise error
        store.store_audit(*audit(pending.id, "network"))
        judged.append(pending.id)

    with suppress(KilledError, ZeroDivisionError):
        AgentStore(store).recover(judge)
    store.close()
    return judged


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A history with two observations that were not judged."""
    store = StateStore(str(tmp_path / "history.sqlite3"))
    for number in (1, 2):
        store.write(audits.keep_observation, audit(number, "network").observation, "network")
    store.close()
    return tmp_path / "history.sqlite3"


def test_an_agent_killed_while_it_judges_again_loses_no_audit(history: Path) -> None:
    """Kills prove nothing about an audit, if they are not very many; each audit is counted for itself."""
    for _ in range(MAX_ATTEMPTS - 1):
        assert recover(history, KilledError()) == []
    assert recover(history) == [1, 2]
    assert recover(history) == []


@pytest.mark.parametrize(("error", "starts"), [(KilledError(), MAX_ATTEMPTS), (ZeroDivisionError(), 1)])
def test_an_audit_that_ends_the_agent_each_time_is_skipped(
    history: Path, caplog: pytest.LogCaptureFixture, error: BaseException, starts: int
) -> None:
    """At once where an exception shows that the audit is the cause; the others are judged all the same."""
    for _ in range(starts):
        assert recover(history, error) == []
        assert caplog.messages == []
    assert recover(history) == [2]
    assert caplog.messages == [
        "audit 1 is skipped: the agent ended each time it judged this audit; its observation stays in the history"
    ]
    assert recover(history) == []
