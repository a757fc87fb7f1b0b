"""The hours of a history, accounted for to the second."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ntpaudit.core.accounting import Spans
from ntpaudit.core.record import Health
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.store.accounts import read_accounts
from ntpaudit.store.database import open_database
from tests.histories import MINUTE_NS, World, write
from tests.records import NOW_NS

BEGIN_NS = NOW_NS // (HOUR_S * NS_PER_S) * HOUR_S * NS_PER_S
"""The true time of the first minute: a full hour."""


def accounts(path: Path, *parts: tuple[World, range], until_minute: int) -> list[Spans]:
    """Keep histories one after the other, and account for the hours until a minute."""
    for world, minutes in parts:
        write(path, world, minutes)
    with closing(open_database(str(path))) as connection:
        hours = read_accounts(connection, BEGIN_NS + until_minute * MINUTE_NS + NS_PER_S)
    assert all(sum(spans) == HOUR_S for spans in list(hours.values())[:-1])
    return list(hours.values())


def test_an_hour_with_unmeasured_and_absent_time(tmp_path: Path) -> None:
    """12 minutes without a measurement and 25 without an agent are what they were, and no more."""
    world = World(begin_ns=BEGIN_NS, runs=lambda minute: not 20 <= minute < 45)
    first, second = accounts(tmp_path / "a", (world, range(90)), until_minute=90)
    assert first.absent == 1 + 26 * 60  # one second before the first record; from minute 19 to minute 45
    assert first.within == HOUR_S - first.absent
    assert second == Spans(within=30 * 60 + 1)


def test_servers_that_stop_leave_unmeasured_time(tmp_path: Path) -> None:
    """After a suspend nothing is carried on: until servers answer again, all that is known is that nothing is."""
    world = World(begin_ns=BEGIN_NS, answers=lambda minute: minute >= 12)
    (first,) = accounts(tmp_path / "a", (world, range(60)), until_minute=59)
    assert (first.unmeasured, first.absent) == (15 * 60, 1)  # the first poll that is answered is at minute 15
    assert first.within == 44 * 60


def test_a_reboot_is_off_and_then_absent(tmp_path: Path) -> None:
    """From the last record of a boot to the start of the next the host was off; then no agent ran yet."""
    before = World(begin_ns=BEGIN_NS)
    after = World(begin_ns=BEGIN_NS + 40 * MINUTE_NS, uptime_ns=5 * MINUTE_NS, boot_id="another")
    (first,) = accounts(tmp_path / "a", (before, range(30)), (after, range(20)), until_minute=59)
    assert (first.off, first.absent) == (6 * 60 - 1, 5 * 60 + 1 + 1)
    assert first.within == 29 * 60 + 19 * 60


@pytest.mark.parametrize(("local_s", "absent"), [(60.0, 26 * 60), (600.0, 0)])
def test_a_stretch_is_judged_by_the_schedule_of_its_time(local_s: float, absent: int, tmp_path: Path) -> None:
    """26 minutes without a record are absence at one a minute, and within the grace of one in 10 minutes."""
    runs: Callable[[int], bool] = lambda minute: not 20 <= minute < 45  # noqa: E731
    world = World(begin_ns=BEGIN_NS, runs=runs, health=Health(local_s=local_s))
    (first,) = accounts(tmp_path / "a", (world, range(60)), until_minute=59)
    assert first.absent == 1 + absent


def test_what_was_removed_is_not_known(tmp_path: Path) -> None:
    """The hour of the oldest record that is left has no account: what came before is gone, and was not absence."""
    write(tmp_path / "a", World(begin_ns=BEGIN_NS), range(150))
    with closing(open_database(str(tmp_path / "a"))) as connection:
        connection.execute("DELETE FROM audits WHERE id <= 20")
        hours = read_accounts(connection, BEGIN_NS + 149 * MINUTE_NS)
    assert sorted(hours) == [BEGIN_NS // NS_PER_S + HOUR_S * number for number in (1, 2)]
    assert hours[BEGIN_NS // NS_PER_S + HOUR_S] == Spans(within=HOUR_S)


@pytest.mark.parametrize(("is_gap", "within"), [(False, 30), (True, 0)])
def test_a_step_while_no_agent_ran_parts_nothing(is_gap: bool, within: int, tmp_path: Path) -> None:
    """A clock set while the agent was down, at an unknown moment, may have been wrong since the record before."""
    world = World(begin_ns=BEGIN_NS, stepped_s=lambda minute: 0.0 if minute < 30 else 3600.0)
    write(tmp_path / "a", world, range(31))
    with closing(open_database(str(tmp_path / "a"))) as connection:
        detail = '{"while_down":true}' if is_gap else '{"while_down":false}'
        at_ns = BEGIN_NS + 30 * MINUTE_NS - 29 * NS_PER_S
        connection.execute("UPDATE events SET utc_ns = ?, detail = ? WHERE kind LIKE 'step-%'", (at_ns, detail))
        (hour,) = read_accounts(connection, BEGIN_NS + 30 * MINUTE_NS + NS_PER_S).values()
    assert hour == Spans(within=29 * 60 + within, beyond=60 - within, absent=1)
