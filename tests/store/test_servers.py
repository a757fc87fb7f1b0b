"""The memory of servers: kept as it is, and forgotten for good."""

from contextlib import closing
from pathlib import Path

from ntpaudit.core.ntp.rate_limit import Memory, Moment
from ntpaudit.store.database import open_database
from ntpaudit.store.servers import load_memories, save_memories
from tests.store.audits import BOOT

ASKED = Moment(BOOT, 7, 1_800_000_000_000_000_000)


def test_an_empty_memory_is_removed(path: Path) -> None:
    """What is kept stays beside what is added, and of what is forgotten no row is left."""
    kept = {"192.0.2.1 123": Memory(ASKED, misses=1), "192.0.2.2 123": Memory(ASKED, kiss="DENY", kissed=ASKED)}
    with closing(open_database(str(path), print)) as connection:
        save_memories(connection, kept)
        empty = {"192.0.2.1 123": Memory(), "192.0.2.3 123": Memory()}
        save_memories(connection, empty | {"192.0.2.4 123": kept["192.0.2.2 123"]})
        assert load_memories(connection) == {
            "192.0.2.2 123": kept["192.0.2.2 123"],
            "192.0.2.4 123": kept["192.0.2.2 123"],
        }
        assert connection.execute("SELECT COUNT(*) FROM servers").fetchone() == (2,)
