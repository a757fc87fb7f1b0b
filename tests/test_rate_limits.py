"""Pools and named servers, asked politely, on an island with real addresses, names and a real chronyd."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.command import ntpaudit
from tests.waiting import until
from tests.world.island import Island, island
from tests.world.packages import REPOSITORY

POOL = {
    "0.pool.ntp.org": ["192.0.2.1", "192.0.2.2", "198.51.100.1"],
    "1.pool.ntp.org": ["192.0.2.2", "203.0.113.1"],
    "2.pool.ntp.org": ["198.51.100.2", "2001:db8::2"],
    "3.pool.ntp.org": ["203.0.113.2"],
}
OTHERS = {
    "ntp1.example.net": ["192.0.2.77"],
    "0.europe.pool.ntp.org": ["198.51.100.7"],
    "1.europe.pool.ntp.org": ["203.0.113.7"],
}

SPACING_S = 2.0
"""The time between two samples of a server that is not on loopback."""


@pytest.fixture(scope="module")
def land() -> Iterator[Island]:
    """An island with the default pool, a named server, and a continent of which countries have no zone."""
    with island(POOL | OTHERS) as made:
        yield made


def test_default_pool_is_asked_once_and_then_left_alone(land: Island, tmp_path: Path) -> None:
    """P1, P2, P4: four servers of pool.ntp.org at most, then none for 30 minutes, except with --force."""
    first = ntpaudit("check", "--format", "json", state=tmp_path, inside=land.command)
    assert first.sources == {f"pool.ntp.org/{slot}": ("agreeing", None) for slot in range(4)}
    assert first.record["verdict"] == "within"
    assert len({source["address"] for source in first.record["sources"]}) == 4

    again = ntpaudit("check", "--format", "json", state=tmp_path, inside=land.command)
    assert again.sources == {"pool.ntp.org": ("skipped", "interval")}
    assert (again.status, again.record["verdict"]) == (3, "unmeasured")
    assert "next query in 30 min" in again.err
    assert "--force" in again.err

    forced = ntpaudit("check", "--force", "--format", "json", state=tmp_path, inside=land.command)
    assert forced.record["verdict"] == "within"


def test_pool_counts_per_client_and_not_per_zone(land: Island, tmp_path: Path) -> None:
    """P2: another zone of the pool is still the pool."""
    assert ntpaudit("check", "--format", "json", state=tmp_path, inside=land.command).record["verdict"] == "within"
    other = ntpaudit("check", "--pool", "europe.pool.ntp.org", "--format", "json", state=tmp_path, inside=land.command)
    assert other.sources == {"europe.pool.ntp.org": ("skipped", "interval")}


def test_a_pool_is_asked_one_sample_only(land: Island, tmp_path: Path) -> None:
    """P4: --samples makes no burst of a pool: it is over long before as many samples could be taken."""
    began = time.monotonic()
    ran = ntpaudit("check", "--samples", "16", "--format", "json", state=tmp_path, inside=land.command)
    assert ran.record["verdict"] == "within"
    assert time.monotonic() - began < 15 * SPACING_S


def test_country_without_a_zone_falls_back_to_its_continent(land: Island, tmp_path: Path) -> None:
    """P7: if a country has no zone, its continent is queried, and a small zone is reported."""
    ran = ntpaudit("check", "--region", "nl", "--format", "json", state=tmp_path, inside=land.command)
    assert {source["address"] for source in ran.record["sources"]} == {"198.51.100.7", "203.0.113.7"}
    assert "trying europe.pool.ntp.org" in ran.err
    assert "only 2 servers" in ran.err


def test_named_server_is_not_asked_twice_in_15_seconds(land: Island, tmp_path: Path) -> None:
    """RFC 4330 §10: one-shot runs of a named server keep 15 s between them."""
    for status in ("agreeing", "skipped"):
        ran = ntpaudit("check", "ntp1.example.net", "--format", "json", state=tmp_path, inside=land.command)
        assert ran.sources["ntp1.example.net"][0] == status


def test_samples_are_two_seconds_apart(land: Island, tmp_path: Path) -> None:
    """Two samples of a server that is not loopback take two seconds, without output if no terminal shows it."""
    began = time.monotonic()
    ran = ntpaudit(
        "check", "--samples", "2", "192.0.2.77", "192.0.2.1", "--format", "json", state=tmp_path, inside=land.command
    )
    assert time.monotonic() - began >= SPACING_S
    assert ran.record["agreement"]["agreeing"] == 2
    assert ran.err == ""


def test_address_without_a_route_says_so(land: Island, tmp_path: Path) -> None:
    """An unreachable network, a refused port, an unknown name and a silent resolver each have a reason of their own."""
    ran = ntpaudit(
        "check", "--format", "json", "10.1.2.3", "192.0.2.1:1", "[fd00::1]:123", state=tmp_path, inside=land.command
    )
    assert ran.sources == {
        "10.1.2.3": ("unreachable", "net-unreachable"),
        "192.0.2.1:1": ("unreachable", "refused"),
        "[fd00::1]:123": ("unreachable", "net-unreachable"),
    }
    assert ran.status == 3


def test_resolver_that_is_not_there_costs_the_timeout_at_most(land: Island, tmp_path: Path) -> None:
    """A name that cannot be resolved is a reason, and holds up no other server for longer than the deadline."""
    ran = ntpaudit(
        "check", "--timeout", "2s", "--format", "json", "unknown.example", "192.0.2.1",
        state=tmp_path, inside=land.command,
    )  # fmt: skip
    assert ran.sources["192.0.2.1"] == ("agreeing", None)
    status, reason = ran.sources["unknown.example"]
    assert status == "unreachable"
    assert reason in ("name-failed", "name-timeout")


def test_ipv6_only_host_finds_the_one_name_with_ipv6_addresses(tmp_path: Path) -> None:
    """P6: of the pool's names only `2.` has IPv6 addresses; a host with nothing else asks those."""
    names = {"2.pool.ntp.org": ["2001:db8:1::1", "2001:db8:2::1"]}
    with island(names) as land:
        ran = ntpaudit("check", "--format", "json", state=tmp_path, inside=land.command)
    assert {source["address"] for source in ran.record["sources"]} == {"2001:db8:1::1", "2001:db8:2::1"}
    assert ran.record["verdict"] == "within"


def test_no_network_at_all_is_a_clear_record(tmp_path: Path) -> None:
    """With no network and no resolver the answer is `unmeasured`, status 3, and a sentence that says why."""
    with island({}) as land:
        ran = ntpaudit("check", "--timeout", "500ms", state=tmp_path, inside=land.command)
    assert ran.status == 3
    assert ran.out.startswith("UNKNOWN  clock was not measured")


def test_several_pools_share_four_servers(land: Island, tmp_path: Path) -> None:
    """P4: however many pools are named, a host asks four of their servers at most; none loses another's addresses."""
    zones = ("nl.pool.ntp.org", "pool.ntp.org", "europe.pool.ntp.org")
    options = [word for zone in zones[1:] for word in ("--pool", zone)]
    ran = ntpaudit(
        "check", "--region", "nl", *options, "ntp1.example.net", "--format", "json", state=tmp_path, inside=land.command
    )
    assert sum(name.partition("/")[0] in zones for name in ran.sources) == 4
    # two of the zones lead to the same servers, which are asked once
    assert {source["address"] for source in ran.record["sources"] if source["status"] == "agreeing"} >= {"192.0.2.77"}
    assert {reason for _, reason in ran.sources.values()} <= {None, "same-server"}
    assert ran.sources["ntp1.example.net"] == ("agreeing", None)


def test_a_run_that_is_killed_was_a_request_all_the_same(land: Island, tmp_path: Path) -> None:
    """That a server is being asked is noted before it is, so that a plugin's time-out does not break the rate limit."""
    words = land.command([sys.executable, "-m", "ntpaudit", "check", "--samples", "2", "192.0.2.77"])
    variables = os.environ | {"STATE_DIRECTORY": str(tmp_path / "state"), "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(words, env=variables, stdout=subprocess.DEVNULL)
    database = tmp_path / "state" / "history.sqlite3"
    until(lambda: database.exists() and asked(database), "the note that it is asked")
    process.kill()
    process.wait()
    again = ntpaudit("check", "192.0.2.77", "--format", "json", state=tmp_path, inside=land.command)
    assert again.sources == {"192.0.2.77": ("skipped", "interval")}


def asked(database: Path) -> list[str]:
    """Return what a history holds of servers; while it is being made, nothing."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            return [memory for (memory,) in connection.execute("SELECT memory FROM servers")]
        except sqlite3.OperationalError:
            return []


def test_what_never_left_the_host_is_no_request(tmp_path: Path) -> None:
    """While a host is offline nothing counts as unanswered: once there is a route its servers are asked at once."""
    with island({}) as offline:
        for _ in range(2):
            ran = ntpaudit("check", "192.0.2.77", "--format", "json", state=tmp_path, inside=offline.command)
            assert ran.sources == {"192.0.2.77": ("unreachable", "net-unreachable")}
    with island({}, ["192.0.2.77"]) as online:
        ran = ntpaudit("check", "192.0.2.77", "--format", "json", state=tmp_path, inside=online.command)
    assert ran.sources == {"192.0.2.77": ("agreeing", None)}


def test_one_server_under_two_names_is_asked_once(land: Island, tmp_path: Path) -> None:
    """A server has one vote, however often and by whatever name it is written."""
    ran = ntpaudit(
        "check", "ntp1.example.net", "192.0.2.77", "ntp1.example.net", "--format", "json",
        state=tmp_path, inside=land.command,
    )  # fmt: skip
    assert ran.sources == {"ntp1.example.net": ("agreeing", None), "192.0.2.77": ("skipped", "same-server")}
    assert len(ran.record["sources"]) == 2


def test_this_hosts_own_addresses_are_no_witnesses(land: Island, tmp_path: Path) -> None:
    """Servers at addresses of this very host compare it with itself: never OK without a finding."""
    servers = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "203.0.113.7"]
    ran = ntpaudit("check", "--format", "json", *servers, state=tmp_path, inside=land.command)
    assert ran.record["severity"] == "warning"
    assert "are this host: their replies count, but only compare the clock with itself" in ran.out


def test_denial_holds_under_every_name(land: Island, tmp_path: Path) -> None:
    """K3: an address that denied us stays denied when another zone of the pool leads to it."""
    shared = {"0.pool.ntp.org": ["192.0.2.1"], "0.europe.pool.ntp.org": ["192.0.2.1"]}
    with island(shared) as made:
        ntpaudit("check", "192.0.2.1", state=tmp_path, inside=made.command)
        with sqlite3.connect(tmp_path / "state" / "history.sqlite3") as connection:
            [(text,)] = connection.execute("SELECT memory FROM servers").fetchall()
            memory = json.loads(text)
            memory |= {"kod": "DENY", "kod_at": memory["queried_at"]}
            connection.execute("UPDATE servers SET memory = ?", (json.dumps(memory),))
        connection.close()
        for zone in ("pool.ntp.org", "europe.pool.ntp.org"):
            ran = ntpaudit("check", "--pool", zone, "--format", "json", state=tmp_path, inside=made.command)
            assert ran.sources == {zone: ("skipped", "kod:DENY")}
            assert "--force" not in ran.err


def test_a_pool_named_twice_has_each_server_once(tmp_path: Path) -> None:
    """A region and its own zone lead to the same servers in the same places: each is asked once, and has one vote."""
    with island({"0.nl.pool.ntp.org": ["192.0.2.1", "198.51.100.1"]}) as made:
        ran = ntpaudit(
            "check", "--region", "nl", "--pool", "nl.pool.ntp.org", "--format", "json",
            state=tmp_path, inside=made.command,
        )  # fmt: skip
    sources = ran.record["sources"]
    asked = [source["address"] for source in sources if source["reason"] is None]
    assert sorted(asked) == ["192.0.2.1", "198.51.100.1"]
    assert [source["reason"] for source in sources].count("same-server") == 2
    assert ran.record["agreement"]["usable"] == 2
