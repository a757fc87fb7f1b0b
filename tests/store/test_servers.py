"""The memory of servers: kept as it is, and forgotten for good."""

from contextlib import closing
from pathlib import Path

from ntpaudit.core.ntp.rate_limit import Instant, ServerState
from ntpaudit.store.database import open_database
from ntpaudit.store.saved_state import load_server_states, save_server_states
from tests.store.audits import BOOT

ASKED = Instant(BOOT, 7, 1_800_000_000_000_000_000)


def test_an_empty_memory_is_removed(path: Path) -> None:
    """What is kept stays beside what is added, and of what is forgotten no row is left."""
    kept = {
        "192.0.2.1 123": ServerState(ASKED, consecutive_timeouts=1),
        "192.0.2.2 123": ServerState(ASKED, kod="DENY", kod_at=ASKED),
    }
    with closing(open_database(str(path))) as connection:
        save_server_states(connection, kept)
        empty = {"192.0.2.1 123": ServerState(), "192.0.2.3 123": ServerState()}
        save_server_states(connection, empty | {"192.0.2.4 123": kept["192.0.2.2 123"]})
        assert load_server_states(connection) == {
            "192.0.2.2 123": kept["192.0.2.2 123"],
            "192.0.2.4 123": kept["192.0.2.2 123"],
        }
        assert connection.execute("SELECT COUNT(*) FROM servers").fetchone() == (2,)
