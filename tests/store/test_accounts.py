"""The hours of a history, accounted for to the second."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ntpaudit.core.acceptance import Accepted
from ntpaudit.core.accounting import Spans, facts_of
from ntpaudit.core.accounts import DAY, Account, day_of
from ntpaudit.core.policy import VERDICTS
from ntpaudit.core.record import Health, HostIdentity
from ntpaudit.core.units import HOUR_S, NS_PER_S
from ntpaudit.formats.line_protocol import render_account
from ntpaudit.store import accounts as accounts_store
from ntpaudit.store.account_rows import read_page
from ntpaudit.store.accounts import read_accounts
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.database import open_database
from ntpaudit.store.outbox import OutboxEntry
from ntpaudit.store.readonly import open_readonly
from ntpaudit.store.retention import prune_by_age
from ntpaudit.store.rows import read_json
from ntpaudit.store.serialization import plain, to_json
from ntpaudit.store.state import StateStore
from tests.histories import BOOT, MINUTE_NS, World, live, write
from tests.records import NOW_NS
from tests.waiting import until

BEGIN_NS = NOW_NS // (HOUR_S * NS_PER_S) * HOUR_S * NS_PER_S
"""The true time of the first minute: a full hour."""


def accounts(path: Path, *parts: tuple[World, range], until_minute: int) -> list[Spans]:
    """Keep histories one after the other, and account for the hours until a minute."""
    for world, minutes in parts:
        write(path, world, minutes)
    with closing(open_database(str(path))) as connection:
        return list(hours_of(connection, until_minute * MINUTE_NS + NS_PER_S).values())


def hours_of(connection: sqlite3.Connection, until_ns: int) -> dict[int, Spans]:
    """Return the spans of every hour of a history, until a time since the first minute."""
    now_s = (BEGIN_NS + until_ns) // NS_PER_S
    hours = list(read_accounts(connection, HOUR_S, 0, now_s, now_s))
    assert all(hour.length_s == HOUR_S for hour in hours[:-1])
    assert all(sum(hour.spans) == hour.length_s for hour in hours)
    return {hour.begin_s: hour.spans for hour in hours}


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
        hours = hours_of(connection, 149 * MINUTE_NS)
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
        (hour,) = hours_of(connection, 30 * MINUTE_NS + NS_PER_S).values()
    assert hour == Spans(within=29 * 60 + within, beyond=60 - within, absent=1)


def agent_store(path: Path) -> StateStore:
    """Open the store of an agent."""
    return StateStore(str(path))


def catch_up(path: Path, *, delivers: bool = True) -> int:
    """Close every hour that is over, as an agent does; return in how many pieces."""
    store, pieces = agent_store(path), 1
    entry_of = (lambda account: entry(account)) if delivers else None
    while store.write(accounts_store.close_hours, entry_of):
        pieces += 1
    store.close()
    return pieces


def entry(account: Account) -> OutboxEntry:
    """Return the outbox entry of an account."""
    host = HostIdentity("other", None, None, None, None)
    return OutboxEntry(0, render_account(account, host), 1, None, 0, 1)


def all_accounts(path: Path, length_s: int = HOUR_S) -> list[Account]:
    """Return every account that is stored."""
    with closing(open_database(str(path))) as connection:
        rows = connection.execute("SELECT account FROM accounts WHERE length_s = ? ORDER BY begin_s", (length_s,))
        return [read_json(Account, packed) for (packed,) in rows.fetchall()]


def unchained(accounts: list[Account]) -> list[Account]:
    """Return accounts without what the chain has of them: it also depends on when they were made."""
    return [account._replace(chain_first=None, chain_last=None, chain_head=None) for account in accounts]


def outbox_lines(path: Path) -> list[str]:
    """Return the lines that wait for delivery."""
    with closing(open_database(str(path))) as connection:
        return "".join(lines for (lines,) in connection.execute("SELECT lines FROM outbox ORDER BY id")).splitlines()


def test_a_history_is_closed_as_it_is_read(tmp_path: Path) -> None:
    """What an agent closes hour by hour, what it closes after months, and what is read without accounts is the same."""
    world = World(
        begin_ns=BEGIN_NS,
        runs=lambda minute: not 100 <= minute < 180,
        answers=lambda minute: not 200 <= minute < 300,
        stepped_s=lambda minute: 0.0 if minute < 320 else 30.0,
    )
    for minutes in (range(150), range(150, 190), range(190, 420)):
        write(tmp_path / "hourly", world, minutes)
        catch_up(tmp_path / "hourly")
    for minutes in (range(150), range(150, 190), range(190, 420)):
        write(tmp_path / "late", world, minutes)
    with closing(open_database(str(tmp_path / "late"))) as connection:
        now_s = BEGIN_NS // NS_PER_S + 420 * 60
        read = [hour for hour in read_accounts(connection, HOUR_S, 0, now_s, now_s) if hour.length_s == HOUR_S]
    catch_up(tmp_path / "late")
    hours = all_accounts(tmp_path / "hourly")
    assert unchained(hours) == unchained(all_accounts(tmp_path / "late")) == unchained(read[:6])
    assert [hour.begin_s for hour in hours] == [BEGIN_NS // NS_PER_S + number * HOUR_S for number in range(6)]
    chained = [(hour.chain_first, hour.chain_last) for hour in hours if hour.audits]
    assert all(first is not None and last is not None and first < last for first, last in chained)
    (profile,) = {one.profile.name for hour in hours for one in hour.in_force}
    assert profile == "log-integrity"
    assert sum(hour.steps for hour in hours) == 1
    assert any(one.state == "beyond" and one.cause for one in hours[-1].excursions)


def test_each_account_is_enqueued_once(tmp_path: Path) -> None:
    """Each hour and each day is one point, stamped with its beginning; closed again without a change it is not sent."""
    world = World(begin_ns=BEGIN_NS - 11 * HOUR_S * NS_PER_S)
    write(tmp_path / "a", world, range(0, 30 * 60, 5))
    catch_up(tmp_path / "a")
    lines = [line for line in outbox_lines(tmp_path / "a") if not line.startswith("ntpaudit_excursion")]
    days = all_accounts(tmp_path / "a", DAY)
    hours = all_accounts(tmp_path / "a")
    assert (len(days), len(hours)) == (1, 29)
    assert len(lines) == len(hours) + len(days)
    assert days == [day_of(days[0].begin_s, [hour for hour in hours if hour.begin_s < days[0].end_s])]
    assert {line.split(" ")[-1] for line in lines} == {str(one.begin_s * NS_PER_S) for one in hours + days}
    assert all(line.startswith(("ntpaudit_hour,host=web1 ", "ntpaudit_day,host=web1 ")) for line in lines)
    catch_up(tmp_path / "a")
    assert len(all_accounts(tmp_path / "a")) == len(hours)
    assert len(outbox_lines(tmp_path / "a")) == len(lines)


def test_after_months_of_absence(tmp_path: Path) -> None:
    """Each hour that the host was off is accounted for, in pieces; days too, and the newest hour is never deleted."""
    later_ns = BEGIN_NS + 100 * 24 * HOUR_S * NS_PER_S
    write(tmp_path / "a", World(begin_ns=BEGIN_NS), range(150))
    catch_up(tmp_path / "a")
    write(tmp_path / "a", World(begin_ns=later_ns, boot_id="another", uptime_ns=10 * MINUTE_NS), range(150))
    catch_up(tmp_path / "a")
    hours, days = all_accounts(tmp_path / "a"), all_accounts(tmp_path / "a", DAY)
    assert len(hours) == 100 * 24 + 2
    assert sum(hour.spans.off for hour in hours) == 100 * 24 * HOUR_S - 149 * 60 - 10 * 60 - 1  # rounded
    assert len(days) in (100, 101)
    assert days[50].spans == Spans(off=DAY)
    with closing(open_database(str(tmp_path / "a"))) as connection:
        for _ in range(150):
            prune_by_age(connection, later_ns + 10**18, 1e9, 3600.0, 7200.0)
    assert [account.begin_s for account in all_accounts(tmp_path / "a")] == [hours[-1].begin_s]
    assert [account.begin_s for account in all_accounts(tmp_path / "a", DAY)] == [days[-1].begin_s]


def test_late_stamps_change_an_hour(tmp_path: Path) -> None:
    """An hour is closed again when records in it get their true time later, and sent again as the same point."""
    path = tmp_path / "a"
    write(path, World(begin_ns=BEGIN_NS), range(130))
    catch_up(path)
    first, before = all_accounts(path), outbox_lines(path)
    with closing(open_database(str(path))) as connection:
        rows = "id BETWEEN 70 AND 80"
        boot_ns = connection.execute(f"SELECT utc_ns - boottime_ns FROM audits WHERE {rows}").fetchone()[0]
        connection.execute(f"UPDATE audits SET utc_ns = NULL, verdict = 3 WHERE {rows}")
    store = agent_store(path)
    store.write(accounts_store.stamp, BOOT, boot_ns + 20 * NS_PER_S, entry)
    store.close()
    after = all_accounts(path)
    assert after[0] == first[0]
    assert after[1].spans.unmeasured == 12 * 60
    (again,) = outbox_lines(path)[len(before) :]
    assert again.split(" ")[0] == before[1].split(" ")[0]
    assert again.split(" ")[-1] == before[1].split(" ")[-1]


def test_a_host_that_is_cut_off_for_days(tmp_path: Path) -> None:
    """While nothing is measured, hours are closed by the uptime since the last measurement, as unmeasured."""
    path = tmp_path / "a"
    world = World(begin_ns=BEGIN_NS, answers=lambda minute: minute < 30, health=Health(local_s=300.0))
    write(path, world, range(0, 4 * 24 * 60 + 1, 5))
    catch_up(path)
    hours = all_accounts(path)
    assert [hour.spans for hour in hours[26:]] == [Spans(unmeasured=HOUR_S)] * (4 * 24 - 26)
    assert hours[20].spans.unmeasured == 0
    assert max(hour.rows[1] - hour.rows[0] for hour in hours if hour.rows) == 13  # no more than an hour is read for one
    with closing(open_database(str(path))) as connection:
        now_s = hours[-1].end_s
        assert unchained(hours) == unchained(list(read_accounts(connection, HOUR_S, 0, now_s, now_s)))
        (unknown,) = connection.execute("SELECT MIN(id) FROM audits WHERE utc_ns IS NULL").fetchone()
        (boot_ns,) = connection.execute("SELECT utc_ns - boottime_ns FROM audits WHERE id = 1").fetchone()
    store = agent_store(path)
    store.write(accounts_store.stamp, BOOT, boot_ns + 10 * NS_PER_S, entry)
    store.close()
    again = all_accounts(path)
    assert [hour.spans for hour in again] == [hour.spans for hour in hours]
    assert unknown > 1


def test_a_host_that_got_another_name_and_profile(tmp_path: Path) -> None:
    """Points have the name at the end of the hour; the account has each of both, with its time."""
    path = tmp_path / "a"
    write(path, World(begin_ns=BEGIN_NS), range(130))
    with closing(open_database(str(path))) as connection:
        for audit_id, packed in connection.execute("SELECT id, record FROM audits WHERE id > 90").fetchall():
            text = unpack_text(packed).replace('"name":"web1"', '"name":"web2"').replace("4" * 32, "5" * 32)
            text = text.replace('"name":"log-integrity"', '"name":"own"').replace(
                '"critical_s":1.0', '"critical_s":2.0'
            )
            connection.execute("UPDATE audits SET record = ? WHERE id = ?", (pack_text(text), audit_id))
    catch_up(path)
    first, second = all_accounts(path)
    assert [one.host for one in first.in_force] == ["web1"]
    assert [(one.host, one.profile.name, one.profile.critical_s) for one in second.in_force] == [
        ("web1", "log-integrity", 1.0),
        ("web2", "own", 2.0),
    ]
    hourly = [line for line in outbox_lines(path) if line.startswith("ntpaudit_hour")]
    assert ["host=web1 " in line for line in hourly] == [True, False]
    assert 'profile="own"' in hourly[1]
    assert "changes=1i" in hourly[1]


def test_damaged_rows_prove_nothing(tmp_path: Path) -> None:
    """A record that cannot be read, an account that does not add up, and one that is missing are no good time."""
    path = tmp_path / "a"
    write(path, World(begin_ns=BEGIN_NS), range(250))
    with closing(open_database(str(path))) as connection:
        connection.execute("UPDATE audits SET record = x'00' WHERE id BETWEEN 10 AND 20")
    catch_up(path)
    hours = all_accounts(path)
    assert hours[0].two_sources_s == HOUR_S - 12 * 60 - 1
    packed = pack_text(to_json(plain(hours[1]._replace(spans=Spans(within=7200)))))
    with closing(open_database(str(path))) as connection:
        connection.execute("UPDATE accounts SET account = ? WHERE begin_s = ?", (packed, hours[1].begin_s))
        damaged: list[str] = []
        now_s = BEGIN_NS // NS_PER_S + 250 * 60
        found = list(read_accounts(connection, HOUR_S, 0, now_s, now_s, damaged.append))
        days = list(read_accounts(connection, DAY, 0, now_s, now_s, damaged.append))
    assert [hour.begin_s for hour in found[:2]] == [hours[0].begin_s, hours[2].begin_s]
    assert damaged == ["account", "account"]
    assert days == []


def test_records_that_were_deleted_before_they_were_closed(tmp_path: Path) -> None:
    """Nothing is known of them: the time is absent, and what follows is accounted for."""
    path = tmp_path / "a"
    write(path, World(begin_ns=BEGIN_NS), range(70))
    catch_up(path)
    write(path, World(begin_ns=BEGIN_NS), range(70, 330))
    with closing(open_database(str(path))) as connection:
        connection.execute("DELETE FROM audits WHERE id <= 200")
    catch_up(path)
    hours = all_accounts(path)
    assert [hour.spans.absent for hour in hours] == [1, HOUR_S, HOUR_S, 20 * 60 + 1, 0]
    assert all(sum(hour.spans) == HOUR_S for hour in hours)


def test_a_history_of_version_4(tmp_path: Path) -> None:
    """A file of an older agent has no accounts: hours and days follow from its records."""
    path = tmp_path / "a"
    write(path, World(begin_ns=BEGIN_NS), range(250))
    with closing(open_database(str(path))) as connection:
        connection.executescript("DROP TABLE accounts; DROP TABLE chain; DROP TABLE segments; DROP TABLE notes")
        connection.execute("PRAGMA user_version=4")
    now_s = BEGIN_NS // NS_PER_S + 250 * 60
    with open_readonly(str(path)) as old:
        hours = list(read_accounts(old, HOUR_S, 0, now_s, now_s))
        (day,) = read_accounts(old, DAY, 0, now_s, now_s)
        (last,) = read_accounts(old, HOUR_S, now_s - 60, now_s, now_s)
    assert [hour.spans.within for hour in hours] == [HOUR_S - 1, HOUR_S, HOUR_S, HOUR_S, 600]
    assert sum(day.spans) == day.length_s == now_s - day.begin_s
    assert last.spans == hours[-1].spans


def test_hours_while_the_file_is_locked(tmp_path: Path) -> None:
    """Hours are closed in memory too; once the file works again, they are closed again from all of the records."""
    path, world = tmp_path / "a", World(begin_ns=BEGIN_NS)
    write(path, world, range(90))
    store = StateStore(str(path), retry_s=0.01)
    while store.write(accounts_store.close_hours, entry):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN EXCLUSIVE")
        for kept in live(world, range(90, 250)):
            store.store_audit(kept.observation, kept.record, kept.events, None, {})
        assert store.is_in_memory
        store.write(accounts_store.close_hours, entry)
        assert store.read(accounts_store.closed_s) == BEGIN_NS // NS_PER_S + 4 * HOUR_S
        blocker.execute("ROLLBACK")
    until(lambda: store.write(accounts_store.closed_s) is not None and not store.is_in_memory)
    while store.write(accounts_store.close_hours, entry):
        pass
    assert store.close()
    hours = all_accounts(path)
    assert [hour.spans.within for hour in hours] == [HOUR_S - 1, HOUR_S, HOUR_S, HOUR_S]
    sent = Counter((line.split(" ")[0], line.split(" ")[-1]) for line in outbox_lines(path))
    assert max(sent.values()) == 2  # the same points


def test_judged_again_where_records_are_deleted(tmp_path: Path) -> None:
    """From the records as far as they exist; of older hours and days only what their largest error proves."""
    path = tmp_path / "a"
    begin_ns = BEGIN_NS // (DAY * NS_PER_S) * DAY * NS_PER_S
    write(path, World(begin_ns=begin_ns, health=Health(local_s=300.0)), range(0, 50 * 60, 5))
    catch_up(path)
    days, now_s = all_accounts(path, DAY), all_accounts(path)[-1].end_s
    worst_s = max(day.bound_s or 0.0 for day in days)
    with closing(open_database(str(path))) as connection:
        for is_old in (False, True):
            for critical_s, is_within in ((worst_s / 2, False), (worst_s * 2, True), (100.0, True)):
                found = list(read_accounts(connection, DAY, 0, now_s, now_s, critical_s=critical_s))
                assert len(found) == 3
                assert all(sum(one.spans) == one.length_s for one in found)
                for one, day in zip(found, days, strict=False):
                    assert one.spans[3:] == day.spans[3:]
                    assert (one.spans.within == day.spans.within) is is_within or is_old is False
            connection.execute("DELETE FROM audits WHERE id < (SELECT MAX(id) - 60 FROM audits)")


def test_a_boot_in_1970_is_no_beginning(tmp_path: Path) -> None:
    """A host without a battery, which was never measured in its first boot: accounts begin with the second one."""
    path = tmp_path / "a"
    write(path, World(begin_ns=3600 * NS_PER_S, boot_id="first", answers=lambda minute: False), range(30))
    write(path, World(begin_ns=BEGIN_NS), range(150))
    catch_up(path)
    hours = all_accounts(path)
    assert [hour.begin_s for hour in hours] == [BEGIN_NS // NS_PER_S + HOUR_S * number for number in range(2)]
    assert hours[1].spans == Spans(within=HOUR_S)
    with closing(open_database(str(path))) as connection:
        assert len(hours_of(connection, 150 * MINUTE_NS)) == 3


def test_facts_are_those_of_the_record(tmp_path: Path) -> None:
    """What is read from a part of a stored text is what the whole record shows."""
    world = World(
        begin_ns=BEGIN_NS,
        answers=lambda minute: minute < 100,
        stepped_s=lambda minute: 5.0 if 40 <= minute < 60 else 0.0,
    )
    records = write(tmp_path / "a", world, range(1700))
    accepted = Accepted("known", "me", "2027-01-01T00:00:00.000000000Z")
    with closing(open_database(str(tmp_path / "a"))) as connection:
        records[49] = records[49]._replace(findings=tuple(one.accept(accepted) for one in records[49].findings))
        packed = pack_text(to_json(records[49].to_dict()))
        connection.execute("UPDATE audits SET record = ? WHERE id = 50", (packed,))
        rows = read_page(connection, 0, -1)
    assert [row.moment.facts for _, row in rows] == [facts_of(record) for record in records]
    assert {row.moment.facts.is_accepted for _, row in rows} == {False, True}
    assert {row.moment.verdict for _, row in rows} == set(VERDICTS)
