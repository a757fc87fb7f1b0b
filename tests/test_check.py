"""`ntpaudit check` as a user runs it: real servers, every format, and whatever the world can do to it."""

import json
import os
import pty
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ntpaudit import __version__
from ntpaudit.demo.server import Behaviour, NtpServer
from ntpaudit.store.compression import unpack_text
from tests.command import Ran, ntpaudit
from tests.waiting import WITHIN_S, until
from tests.world.island import island
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY, environment, library, program
from tests.world.rogue import RogueServer
from tests.world.servers import chronyd, ntpd

EXIT_STATUS = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}


def name(server: NtpServer) -> str:
    """Return a server as the argument that asks it."""
    return f"[{server.address}]:{server.port}" if ":" in server.address else f"{server.address}:{server.port}"


@pytest.fixture(scope="module")
def real_servers() -> Iterator[list[str]]:
    """Four real chronyd that serve this host's own clock, as arguments."""
    with ExitStack() as stack:
        servers = [stack.enter_context(chronyd()) for _ in range(4)]
        yield [f"{server.address}:{server.port}" for server in servers]


def test_real_chronyd_are_believed(real_servers: list[str], tmp_path: Path) -> None:
    """Four real servers agree, the clock is within 1 ms of them, and the exit status is the record's severity."""
    ran = ntpaudit("check", "--format", "json", *real_servers, state=tmp_path)
    record = ran.record
    assert record["verdict"] == "within"
    assert record["agreement"] == {
        "sources": 4,
        "usable": 4,
        "agreeing": 4,
        "max_falsetickers": 1,
        "asked": 4,
        "guaranteed": True,
    }
    assert record["offset"]["earliest_s"] <= 0 <= record["offset"]["latest_s"]
    assert record["offset"]["bound_s"] < 0.001 + ran.longest_exchange_s
    assert ran.status == EXIT_STATUS[record["severity"]]
    assert {source["timestamping"] for source in record["sources"]} == {"kernel"}


def test_real_ntpd_is_believed(tmp_path: Path) -> None:
    """A real ntpd (NTPsec) is measured too; on its own port and address it is this host itself."""
    with ntpd() as server:
        ran = ntpaudit("check", "--format", "json", "127.0.0.1", state=tmp_path, inside=server.command)
    record = ran.record
    assert ran.sources["127.0.0.1"] == ("agreeing", "sync-loop")
    assert record["offset"]["bound_s"] < 0.1 + ran.longest_exchange_s
    assert record["offset"]["earliest_s"] <= 0 <= record["offset"]["latest_s"]
    assert "is this host: its reply counts, but only compares the clock with itself" in json.dumps(record["findings"])


def test_first_line_is_read_in_one_breath(real_servers: list[str], tmp_path: Path) -> None:
    """The text begins with severity, offset in words, bound and votes; no line is wider than 100 columns."""
    ran = ntpaudit("check", *real_servers, state=tmp_path)
    first = " ".join(ran.out.split("\n\n")[0].split())
    assert re.match(
        r"(OK|WARNING) clock is [0-9.]+ [nµm]s (behind|ahead), "
        r"at most [0-9.]+ [µm]s wrong if at most 1 of 4 servers is wrong \(4 of 4 servers agree\)",
        first,
    )
    assert max(map(len, ran.out.splitlines())) <= 100
    assert ran.out.replace("µ", "u").isascii()


def test_a_stream_without_a_micro_sign_shows_us(real_servers: list[str], tmp_path: Path) -> None:
    """Output in ASCII has `us` instead of `µs`."""
    environment = {"PYTHONIOENCODING": "ascii"}
    ran = ntpaudit("check", *real_servers, state=tmp_path, environment=environment)
    assert re.search(r"at most [0-9.]+ us wrong", " ".join(ran.out.split()))
    assert ran.out.isascii()


def test_every_format_is_whole(real_servers: list[str], tmp_path: Path) -> None:
    """Each format is what its readers expect: one nagios line, readable OpenMetrics, stamped line protocol."""
    nagios = ntpaudit("check", "--format", "nagios", *real_servers, state=tmp_path).out
    assert re.fullmatch(r"NTPAUDIT (OK|WARNING) - [^|\n]* \| offset=-?[0-9.]+s;-0\.1:0\.1;-1:1;;[^|\n]*\n", nagios)
    metrics = ntpaudit("check", "--format", "openmetrics", *real_servers, state=tmp_path).out
    parsed = text_string_to_metric_families(metrics)  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    longest_exchange_s = max(sample.value for sample in families["ntpaudit_source_delay_seconds"].samples)
    assert abs(families["ntpaudit_offset_seconds"].samples[0].value) < 0.001 + longest_exchange_s
    lines = ntpaudit("check", "--format", "influx", *real_servers, state=tmp_path).out.splitlines()
    assert [line.partition(",")[0] for line in lines[:5]] == ["ntpaudit_clock"] + ["ntpaudit_source"] * 4
    assert all(abs(int(line.rsplit(" ", 1)[1]) - time.time_ns()) < 60e9 for line in lines)


def test_output_replaces_a_file_at_once(real_servers: list[str], tmp_path: Path) -> None:
    """--output writes the whole file, readable by all, leaves nothing else behind, and prints nothing."""
    target = tmp_path / "out" / "ntpaudit.prom"
    target.parent.mkdir()
    target.write_text("old")
    ran = ntpaudit("check", "--format", "openmetrics", "--output", str(target), *real_servers, state=tmp_path)
    assert ran.out == ""
    assert target.read_text().endswith("# EOF\n")
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(target.parent.iterdir()) == [target]


def test_output_never_replaces_a_device_and_follows_a_link(real_servers: list[str], tmp_path: Path) -> None:
    """--output to a pipe, a device or a link writes there, even as root, and leaves it what it is."""
    pipe, file, link = (tmp_path / part for part in ("pipe", "file", "link"))
    os.mkfifo(pipe)
    link.symlink_to(file)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        ntpaudit("check", "--format", "nagios", "--output", str(pipe), *real_servers, state=tmp_path)
        assert reader.stdout
        assert reader.stdout.read().startswith("NTPAUDIT ")
    assert pipe.is_fifo()
    ntpaudit("check", "--format", "nagios", "--output", str(link), *real_servers, state=tmp_path)
    assert link.is_symlink()
    assert file.read_text().startswith("NTPAUDIT ")


def test_output_that_cannot_be_written_is_unknown(real_servers: list[str], tmp_path: Path) -> None:
    """Who waits for a file that could not be written must not read the exit status as OK."""
    ran = ntpaudit("check", "--output", str(tmp_path / "nowhere" / "file"), *real_servers, state=tmp_path)
    assert ran.status == 3
    assert "cannot write" in ran.err
    assert "create its folder" in ran.err


def test_a_falseticker_is_named_and_outvoted(real_servers: list[str], tmp_path: Path) -> None:
    """One of five is wrong by 37 s: it is the falseticker, and the interval does not move."""
    with NtpServer(Behaviour(offset_s=37.0)) as falseticker:
        ran = ntpaudit("check", "--format", "json", *real_servers, name(falseticker), state=tmp_path)
    assert ran.sources[name(falseticker)] == ("falseticker", "disagrees")
    assert ran.record["offset"]["bound_s"] < 0.001 + ran.longest_exchange_s


def test_colluding_minority_does_not_move_the_bound_past_the_truth(real_servers: list[str], tmp_path: Path) -> None:
    """Two of seven lie together and precisely: the interval still holds the truth (S2, S3)."""
    with ExitStack() as stack:
        others = [stack.enter_context(chronyd()) for _ in range(1)]
        falsetickers = [stack.enter_context(NtpServer(Behaviour(offset_s=0.000_05))) for _ in range(2)]
        names = [*real_servers, *(f"{server.address}:{server.port}" for server in others), *map(name, falsetickers)]
        record = ntpaudit("check", "--format", "json", *names, state=tmp_path).record
    assert record["agreement"]["max_falsetickers"] == 2
    assert record["offset"]["earliest_s"] <= 0 <= record["offset"]["latest_s"]


@pytest.mark.parametrize(("offset_s", "word"), [(5.0, "behind"), (-5.0, "ahead")])
def test_a_wrong_clock_is_critical_and_its_record_bears_the_true_time(
    offset_s: float, word: str, tmp_path: Path
) -> None:
    """Beyond the tolerance is exit status 2, with the sign in words and the record stamped with the corrected time."""
    with ExitStack() as stack:
        servers = [stack.enter_context(NtpServer(Behaviour(offset_s=offset_s))) for _ in range(4)]
        ran = ntpaudit("check", "--format", "json", *map(name, servers), state=tmp_path)
    record = ran.record
    assert (ran.status, record["severity"], record["verdict"]) == (2, "critical", "beyond")
    assert record["offset"]["direction"] == word
    assert record["findings"][0]["id"] == "offset-out"
    ahead_s = stamp(record["time"]["utc"]) - stamp(record["time"]["host"])
    assert abs(ahead_s - offset_s) < 0.01 + ran.longest_exchange_s


@pytest.mark.parametrize("year", [1970, 2040])
def test_a_host_in_another_decade_is_measured_exactly(year: int, real_servers: list[str], tmp_path: Path) -> None:
    """W3: a host that believes it is 1970 or 2040 learns how wrong it is, and what time it is, to a millisecond."""
    faked = {
        "LD_PRELOAD": str(library("libfaketime.so.1")),
        "FAKETIME": f"@{year}-01-02 00:00:00",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "TZ": "UTC",
    }
    ran = ntpaudit("check", "--format", "json", *real_servers, state=tmp_path, environment=faked)
    assert (ran.status, ran.record["verdict"]) == (2, "beyond")
    assert ran.record["time"]["host"].startswith(f"{year}-01-02T00:")
    assert abs(stamp(ran.record["time"]["utc"]) - time.time()) < 60  # of decades; a busy machine may take its time
    assert ran.record["offset"]["direction"] == ("behind" if year == 1970 else "ahead")


def stamp(text: str) -> float:
    """Read a time of the record, in seconds since 1970."""
    return datetime.fromisoformat(text[:26]).replace(tzinfo=UTC).timestamp()


def test_denied_is_remembered_even_against_force(tmp_path: Path) -> None:
    """K3: a server that said DENY is not asked again for a day, in later runs, whatever --force says."""
    with RogueServer("kod_deny") as server:
        first = ntpaudit("check", "--format", "json", name(server), state=tmp_path)
        assert first.sources[name(server)] == ("rejected", "kod:DENY")
        assert "kiss-of-death" in {finding["id"] for finding in first.record["findings"]}
        for words in ((), ("--force",)):
            again = ntpaudit("check", "--format", "json", *words, name(server), state=tmp_path)
            assert again.sources[name(server)] == ("skipped", "kod:DENY")
    assert server.requests == 1


def test_rate_is_remembered(tmp_path: Path) -> None:
    """K2: after RATE the next run waits, on loopback too."""
    with RogueServer("kod_rate") as server:
        ntpaudit("check", name(server), state=tmp_path)
        again = ntpaudit("check", "--format", "json", name(server), state=tmp_path)
    assert again.sources[name(server)] == ("skipped", "kod:RATE")


def test_loopback_has_no_interval_and_needs_no_state(real_servers: list[str], tmp_path: Path) -> None:
    """Loopback servers may be asked at once again; no state is made for them."""
    for _ in range(2):
        assert ntpaudit("check", "--format", "json", *real_servers, state=tmp_path).record["verdict"] == "within"
    assert not (tmp_path / "state").exists()


def test_several_samples_of_loopback_take_no_time(real_servers: list[str], tmp_path: Path) -> None:
    """Samples of loopback servers need no spacing."""
    began = time.monotonic()
    ran = ntpaudit("check", "--samples", "16", "--format", "json", *real_servers, state=tmp_path)
    assert ran.record["offset"]["bound_s"] < 0.001 + ran.longest_exchange_s
    assert time.monotonic() - began < 15 * 2.0  # with the space between samples of other servers


def test_spoofing_is_suspected(real_servers: list[str], tmp_path: Path) -> None:
    """V5: fifty replies to requests that were never sent are a finding, and the true reply among them is still used."""
    with RogueServer("bogus_flood") as server:
        record = ntpaudit("check", "--format", "json", *real_servers, name(server), state=tmp_path).record
    assert record["agreement"]["agreeing"] == 5
    assert "suspected-spoofing" in {finding["id"] for finding in record["findings"]}


def test_no_reply_is_never_ok(tmp_path: Path) -> None:
    """Not having measured is `unmeasured`, severity unknown, status 3, and no offset."""
    with RogueServer("silent") as silent, RogueServer("leap_unsync") as unsynchronised:
        ran = ntpaudit(
            "check", "--timeout", "200ms", "--format", "json", name(silent), name(unsynchronised), state=tmp_path
        )
    assert ran.status == 3
    assert (ran.record["verdict"], ran.record["severity"]) == ("unmeasured", "unknown")
    assert ran.record["offset"] is None
    assert ran.record["time"]["utc"] is None


def test_a_tolerance_the_servers_cannot_prove_is_unproven(tmp_path: Path) -> None:
    """A bound wider than the tolerance is `unproven`, a warning, whatever the estimate says."""
    with ExitStack() as stack:
        servers = [stack.enter_context(NtpServer(Behaviour(root_dispersion_s=0.01))) for _ in range(4)]
        ran = ntpaudit("check", "--profile", "mifid-1ms", "--format", "json", *map(name, servers), state=tmp_path)
    assert (ran.status, ran.record["verdict"]) == (1, "unproven")
    assert "not-demonstrable" in {finding["id"] for finding in ran.record["findings"]}


def test_record_is_kept_with_what_was_seen(real_servers: list[str], tmp_path: Path) -> None:
    """--record stores the observation, with its four timestamps, and the record, as printed."""
    printed = ntpaudit("check", "--record", "--format", "json", *real_servers, state=tmp_path).record
    with sqlite3.connect(tmp_path / "state" / "history.sqlite3") as connection:
        [(observation, record)] = connection.execute("SELECT observation, record FROM audits").fetchall()
    connection.close()
    assert json.loads(unpack_text(record)) == printed
    sample = json.loads(unpack_text(observation))["sources"][0]["outcome"][0]
    assert sample["timestamps"]["sent_ns"] <= sample["received_ns"] + 1_000_000


USAGE = {
    ("check", "--frobnicate"): "--frobnicate",
    ("check", "host:port:port:x"): "neither a name nor an address",
    ("check", "nts://time.example.net"): "NTS is not supported",
    ("check", "host:0"): "1 to 65535",
    ("check", "--warning", "nan"): "100ms",
    ("check", "--critical", "1"): "'1' needs a unit, for example 1s, 1m or 1h",
    ("check", "::1:123"): "'::1:123' is no address with a port: write [::1]:123",
    ("check", "--warning", "2s", "--critical", "1s"): "0 < warning <= critical",
    ("check", "--critical", "0s"): "0 < warning <= critical",
    ("check", "--samples", "0"): "1<=x<=16",
    ("check", "--timeout", "1h"): "1ms to 60s",
    ("check", "--timeout", "0"): "'0' needs a unit, for example 1s, 1m or 1h",
    ("check", "--json"): "No such option '--json'. Write --format json.",
    ("explain", "offset"): "did you mean 'offset-out'?",
    ("status", "--nagios"): "Write --format nagios.",
    ("check", "--region", "atlantis"): "continent",
    ("check", "--pool", "a b"): "pool zone",
    ("check", "--profile", "pcl"): "pci",
    ("chekc",): "Did you mean 'check'?",
}


@pytest.mark.parametrize("words", USAGE)
def test_usage_errors_name_the_fix_and_end_with_64(words: tuple[str, ...], tmp_path: Path) -> None:
    """A typing error gives one line that says what to write, with an exit status that no finding has."""
    ran = ntpaudit(*words, state=tmp_path)
    assert ran.status == 64
    assert USAGE[words] in " ".join(ran.err.split())
    assert ran.out == ""


def test_an_unreachable_address_that_may_be_one_with_a_port_is_explained(tmp_path: Path) -> None:
    """It is asked as it is written, for it may be right; where it does not reply, what else it may mean is said."""
    inside = unshared("net")
    ran = ntpaudit("check", "2001:db8::1:123", state=tmp_path, inside=lambda words: [*inside, *words])
    assert ran.status == 3
    assert "if :123 is meant as the port, write [2001:db8::1]:123" in ran.err
    assert ntpaudit("check", "[2001:db8::1]:123", state=tmp_path, inside=lambda words: [*inside, *words]).err == ""


def test_configuration_says_whom_to_ask_and_how_to_judge(real_servers: list[str], tmp_path: Path) -> None:
    """The file's servers, host, site and tolerances are used; arguments outrank its servers."""
    file = tmp_path / "ntpaudit.toml"
    file.write_text(
        f'[host]\nname = "web1"\nsite = "ams"\nenv = "prod"\n[sources]\nservers = {json.dumps(real_servers)}\n'
        '[policy]\nprofile = "ops-strict"\nwarning = "10ms"\n'
    )
    record = ntpaudit("check", "--config", str(file), "--format", "json", state=tmp_path).record
    assert [source["name"] for source in record["sources"]] == real_servers
    assert [record["host"][key] for key in ("name", "site", "env")] == ["web1", "ams", "prod"]
    assert record["profile"] == {"name": "ops-strict", "warning_s": 0.01, "critical_s": 0.25, "judged_on": "bound"}
    assert len(record["software"]["config_sha256"]) == 64
    fewer = ntpaudit("check", "--config", str(file), "--format", "json", real_servers[0], state=tmp_path).record
    assert [source["name"] for source in fewer["sources"]] == real_servers[:1]


def test_the_servers_that_are_queried_are_judged(tmp_path: Path) -> None:
    """One server of a file is too few, and one on the command line; the servers that are not queried do not count."""
    ports = [f"127.0.0.1:{port}" for port in range(1, 5)]
    one, four = tmp_path / "one.toml", tmp_path / "four.toml"
    one.write_text(f"[sources]\nservers = {json.dumps(ports[:1])}\n")
    four.write_text(f"[sources]\nservers = {json.dumps(ports)}\n")

    def printed(file: Path, servers: list[str]) -> str:
        return ntpaudit("check", "--config", str(file), *servers, state=tmp_path).err

    assert f"ntpaudit: {one}: only 1 server: name at least 4" in printed(one, [])
    assert "only" not in printed(one, ports)
    assert "only" not in printed(four, [])
    assert "ntpaudit: only 1 server: name at least 4" in printed(four, ports[:1])


def test_users_own_configuration_is_found(real_servers: list[str], tmp_path: Path) -> None:
    """Without --config the file in $XDG_CONFIG_HOME is used."""
    file = tmp_path / "config" / "ntpaudit" / "ntpaudit.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f"[sources]\nservers = {json.dumps(real_servers)}\n")
    ran = ntpaudit(
        "check", "--format", "json", state=tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path / "config")}
    )
    assert list(ran.sources) == real_servers


BROKEN = {
    "[sources]\nserver = []": ":2: sources.server: unknown, did you mean 'servers'?",
    "[host]\n\n[source]": ":3: source: unknown, did you mean 'sources'?",
    "sources = 3": ":1: sources: write it as a table",
    "[sources]\nservers = 'ntp1'": ":2: sources.servers: write a list",
    "[sources]\nservers = ['a:b']": ":2: sources.servers: ",
    "[sources]\n# pool = 1\npool = 3": ":3: sources.pool: write a string",
    "[sources]\nfrom_host = 'yes'": ":2: sources.from_host: write true or false",
    "[sources]\nregion = 'xx'": ":2: sources.region: no pool region",
    "[policy]\nprofile = 'pcl'": ":2: policy.profile: unknown profile 'pcl', did you mean 'pci'?",
    "[host]\nname = 'a'\n[policy]\nwarning = '2s'": ":4: policy: warning is 2 s, critical 1 s (profile log-integrity)",
    "[policy]\ncritical = '1 fortnight'": ":2: policy.critical: ",
    "[host]\nname = ''": ":2: host.name: ",
    "nonsense": ": not TOML",
    "\0": ":1: not TOML",
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_configuration_names_file_line_and_key_and_ends_with_78(text: str, tmp_path: Path) -> None:
    """A configuration that cannot be used is refused, naming line, key and what to write, on one line."""
    file = tmp_path / "ntpaudit.toml"
    file.write_text(text)
    ran = ntpaudit("check", "--config", str(file), state=tmp_path)
    assert ran.status == 78
    assert f"{file}{BROKEN[text]}" in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["check", "status", "fleet"])
@pytest.mark.parametrize("text", BROKEN)
def test_a_plugin_reports_a_broken_configuration_in_its_line(text: str, command: str, tmp_path: Path) -> None:
    """A monitoring system reads nothing but standard output; the exit status is that of UNKNOWN."""
    file = tmp_path / "ntpaudit.toml"
    file.write_text(text)
    ran = ntpaudit(command, "--format", "nagios", "--config", str(file), state=tmp_path)
    assert (ran.status, ran.err) == (3, "")
    assert ran.out.startswith(f"NTPAUDIT UNKNOWN - {file}{BROKEN[text]}")
    assert len(ran.out.splitlines()) == 1


def test_a_plugin_reports_a_broken_configuration_in_its_file(tmp_path: Path) -> None:
    """Where --output names one, as it does with a result."""
    ran = ntpaudit(
        *("check", "--format", "nagios", "--config", str(tmp_path / "none.toml"), "--output", str(tmp_path / "line")),
        state=tmp_path,
    )
    assert (ran.status, ran.out) == (3, "")
    assert (tmp_path / "line").read_text().startswith(f"NTPAUDIT UNKNOWN - {tmp_path}/none.toml: No such file")


def test_missing_configuration_file_is_an_error(tmp_path: Path) -> None:
    """A file named and not there is a configuration error."""
    ran = ntpaudit("check", "--config", str(tmp_path / "none.toml"), state=tmp_path)
    assert ran.status == 78
    assert ran.err == (
        f"ntpaudit: {tmp_path}/none.toml: No such file or directory; "
        f"`ntpaudit config init --output {tmp_path}/none.toml` writes one\n"
    )


def test_unwritable_state_is_reported_and_the_audit_goes_on(tmp_path: Path) -> None:
    """Where no state can be kept the audit is done all the same, and the note names the fix."""
    (tmp_path / "state").write_text("a file where the folder should be")
    with RogueServer("kod_deny") as server, NtpServer() as good:
        ran = ntpaudit("check", "--format", "json", name(server), name(good), state=tmp_path)
    assert ran.sources[name(good)] == ("agreeing", None)
    assert "STATE_DIRECTORY" in ran.err


def test_damaged_state_is_set_aside_and_kept(tmp_path: Path) -> None:
    """A state file that is no database is renamed, never deleted, and a new one begun."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "history.sqlite3").write_bytes(b"not a database" * 1000)
    with RogueServer("kod_deny") as server:
        ntpaudit("check", name(server), state=tmp_path)
        again = ntpaudit("check", "--format", "json", name(server), state=tmp_path)
    assert again.sources[name(server)] == ("skipped", "kod:DENY")
    assert [path.read_bytes()[:14] for path in folder.glob("*.damaged-*")] == [b"not a database"]


def test_locked_state_is_reported(tmp_path: Path) -> None:
    """A state file that somebody holds locked does not stop an audit."""
    with RogueServer("kod_deny") as server:
        ntpaudit("check", name(server), state=tmp_path)
        connection = sqlite3.connect(tmp_path / "state" / "history.sqlite3", isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        with RogueServer("kod_rstr") as other:
            ran = ntpaudit("check", "--format", "json", name(other), state=tmp_path)
        connection.close()
    assert ran.sources[name(other)] == ("rejected", "kod:RSTR")
    assert "could not be used" in ran.err


def test_newer_state_is_left_alone(tmp_path: Path) -> None:
    """A state file of a later version is not touched, and the audit goes on without."""
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "history.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with NtpServer() as server:
        ran = ntpaudit("check", "--format", "json", name(server), state=tmp_path)
    assert ran.sources[name(server)] == ("agreeing", None)
    assert "newer ntpaudit" in ran.err


@pytest.mark.needs("seccomp")
def test_container_that_forbids_adjtimex(real_servers: list[str], tmp_path: Path) -> None:
    """Where seccomp refuses adjtimex the record says so, and nothing is concluded from it."""

    def confined(words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "tests.world.sandbox", *words]

    ran = ntpaudit("check", "--format", "json", *real_servers, state=tmp_path, inside=confined)
    assert ran.record["kernel"] == {"available": False, "reason": "adjtimex is forbidden here (EPERM)"}
    assert ran.record["verdict"] == "within"
    assert "unsynced" not in {finding["id"] for finding in ran.record["findings"]}


ACCEPTED = """
[[accept]]
finding = "{}"
reason = "container: the host's own daemon corrects the clock"
by = "ops, ticket 1234"
until = {}
"""


def forbidding_adjtimex(words: Sequence[str]) -> list[str]:
    """Run where seccomp refuses adjtimex, as in a container."""
    return [sys.executable, "-m", "tests.world.sandbox", *words]


def with_own_processes(words: Sequence[str]) -> list[str]:
    """Run in a PID namespace of its own, where no daemon of the host can be seen."""
    return ["unshare", "--pid", "--fork", "--mount-proc", *words]


@pytest.mark.needs("seccomp", "mount", "pidns")
@pytest.mark.parametrize("inside", [forbidding_adjtimex, with_own_processes])
def test_a_container_without_a_visible_daemon_is_green_once_that_is_accepted(
    inside: Callable[[Sequence[str]], list[str]], real_servers: list[str], tmp_path: Path
) -> None:
    """What a container cannot see is accepted until a time: listed, with exit status 0 in each format, then counted."""
    config = tmp_path / "ntpaudit.toml"

    def check(until: str | None, *options: str) -> Ran:
        accepted = (
            "" if until is None else "".join(ACCEPTED.format(name, until) for name in ("unsynced", "daemon-count"))
        )
        config.write_text(f"[sources]\nservers = {json.dumps(real_servers)}\n{accepted}")
        words = ("check", "--config", str(config), "--force", "--quiet", *options)
        return ntpaudit(*words, state=tmp_path, inside=inside)

    bare = check(None, "--format", "json")
    found = [one["id"] for one in bare.record["findings"] if one["severity"] != "ok"]
    assert set(found) <= {"unsynced", "daemon-count"}
    assert bare.status == bool(found)  # green at once where the kernel says that its clock is synchronised
    green = check('"2199-12-31"', "--format", "json")
    accepted = {"reason": "container: the host's own daemon corrects the clock", "by": "ops, ticket 1234",
                "until": "2199-12-31T00:00:00.000000000Z"}  # fmt: skip
    assert (green.status, green.record["severity"]) == (0, "ok")
    assert [one["id"] for one in green.record["findings"] if one["accepted"] == accepted] == found
    text = check('"2199-12-31"')
    assert (text.status, text.out[:4]) == (0, "OK  ")
    assert " ".join(text.out.split()).count(
        "accepted until 2199-12-31 00:00 UTC by ops, ticket 1234: container"
    ) == len(found)
    line = check('"2199-12-31"', "--format", "nagios")
    assert line.status == 0
    assert line.out.endswith(f" findings=0;;;0; accepted={len(found)};;;0;\n")
    for ended in ('"2020-01-01T00:00Z"', "2020-01-01"):
        late = check(ended, "--format", "json")
        assert (late.status, late.record["severity"]) == (1, "warning")
        assert {one["id"] for one in late.record["findings"] if one["severity"] != "ok"} == {
            *found,
            "acceptance-expired",
        }


@pytest.mark.needs("userns", "adjtimex")
def test_an_unprivileged_user_may_check(real_servers: list[str], tmp_path: Path) -> None:
    """A user without any capability and without a home gets a whole record, kernel timestamps included."""

    def unprivileged(words: Sequence[str]) -> list[str]:
        return ["unshare", "--user", "--map-user=65534", "--map-group=65534", *words]

    nowhere = {"STATE_DIRECTORY": "", "HOME": "/nonexistent"}
    ran = ntpaudit("check", "--format", "json", *real_servers, state=tmp_path, environment=nowhere, inside=unprivileged)
    assert ran.record["verdict"] == "within"
    assert ran.record["kernel"]["available"]
    assert {source["timestamping"] for source in ran.record["sources"]} == {"kernel"}


_ALONE = 'mount -t tmpfs none /etc; echo root:x:0:0:::>/etc/passwd; eval "$0"; exec "$@"'
CONTAINER = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", _ALONE]
"""Words before a script and a command that run both where no process is in sight, and no file of /etc."""


QUIET = "cmdport 0\\nbindcmdaddress /etc/run/chronyd\\npidfile /etc/pid\\n"
"""Lines of a chronyd that leaves /run/chrony to the machine; without a server it goes on for its own socket alone."""


def with_chronyd(*options: str) -> str:
    """A script that starts chronyd in the background, which queries the given servers, and sets no clock."""
    libraries = environment()["LD_LIBRARY_PATH"]
    command = [str(program("chronyd")), "-x", "-d", "-U", "-u", "root", *options]
    start = f"LD_LIBRARY_PATH={libraries} {shlex.join(command)} >/dev/null 2>&1 &"
    return f"{start} until grep -qx chronyd /proc/$!/comm; do :; done"


@pytest.mark.needs("chronyd", "netns", "mount", "pidns")
def test_servers_of_the_host_are_found(tmp_path: Path) -> None:
    """--from-host asks whom this host is configured with; authenticated sources are never asked in clear (N10)."""
    script = (
        "echo 192.0.2.7 ntp.site.example >/etc/hosts; mkdir /etc/chrony; "
        "echo server left.over.example >/etc/chrony/chrony.conf; "  # of a daemon that was started with another file
        f"printf '{QUIET}port 0\\npool ntp.site.example\\npool 2001:db8::8\\n' >/etc/site.conf; "
        "printf 'pool time$1.example\\nserver 192.0.2.5 iburst\\nserver 192.0.2.6 port 123\\n' >>/etc/site.conf; "
        "echo server nts.example.net nts >>/etc/site.conf; "
    )
    with island({}, ["192.0.2.5", "192.0.2.6", "192.0.2.7", "2001:db8::8"]) as land:
        ran = ntpaudit(
            "check", "--from-host", "--format", "json", state=tmp_path,
            inside=lambda words: land.command([*CONTAINER, script + with_chronyd("-f", "/etc/site.conf"), *words]),
        )  # fmt: skip
    assert ran.sources == {
        "192.0.2.5": ("agreeing", None),
        "192.0.2.6": ("agreeing", None),
        "ntp.site.example/0": ("agreeing", None),
        "2001:db8::8": ("agreeing", None),
        "time$1.example": ("unreachable", "name-unknown"),
        "nts.example.net": ("skipped", "nts"),
    }
    (daemon,) = ran.record["daemons"]
    assert (daemon["name"], daemon["disciplines"], daemon["reason"]) == ("chronyd", False, "started with -x")
    assert ran.record["daemons_hidden"].startswith("this container has a PID namespace of its own")
    assert "daemon-count" not in {finding["id"] for finding in ran.record["findings"]}
    assert "not known" not in ran.err


@pytest.mark.needs("netns", "mount", "pidns")
def test_host_with_no_daemon_has_no_servers_of_its_own(tmp_path: Path) -> None:
    """--from-host where no daemon runs measures nothing and says so: a file that is left over says nothing."""
    left_over = "mkdir /etc/chrony; echo server 192.0.2.5 >/etc/chrony/chrony.conf"
    with island({}, ["192.0.2.5"]) as land:
        ran = ntpaudit(
            "check", "--from-host", state=tmp_path,
            inside=lambda words: land.command([*CONTAINER, left_over, *words]),
        )  # fmt: skip
    assert ran.status == 3
    assert ran.out.startswith("UNKNOWN")
    assert "no time daemon runs here in sight: this container has a PID namespace of its own" in ran.err


@pytest.mark.needs("chronyd", "netns", "mount", "pidns")
def test_a_daemon_that_names_no_server_is_said_with_what_to_do(tmp_path: Path) -> None:
    """--from-host beside a chronyd that only serves: the fix is to name servers."""
    script = f"printf '{QUIET}local\\n' >/etc/site.conf; "
    script += with_chronyd("-f", "/etc/site.conf") + "; until test -e /etc/pid; do :; done"
    with island({}) as land:
        ran = ntpaudit(
            "check", "--from-host", state=tmp_path,
            inside=lambda words: land.command([*CONTAINER, script, *words]),
        )  # fmt: skip
    assert ran.status == 3
    assert ran.err == (
        "ntpaudit: no servers found in the configuration of this host's time daemon; name at least four, with "
        "`ntpaudit check SERVER...` or with sources.servers in the configuration\n"
    )
    assert "fix: configure at least 4 servers" in " ".join(ran.out.split())


@pytest.mark.needs("chronyd", "netns", "mount", "pidns")
def test_servers_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """Where the file of the daemon that runs is gone, its servers are not known, and that is said."""
    script = f"printf '{QUIET}port 0\\n' >/etc/site.conf; "
    script += with_chronyd("-f", "/etc/site.conf") + "; until test -e /etc/pid; do :; done; rm /etc/site.conf"
    with island({}) as land:
        ran = ntpaudit(
            "check", "--from-host", state=tmp_path,
            inside=lambda words: land.command([*CONTAINER, script, *words]),
        )  # fmt: skip
    assert ran.status == 3
    assert "of chronyd" in ran.err
    assert "are not known: /etc/site.conf cannot be read: No such file or directory" in ran.err


@pytest.mark.needs("no-system-config")
def test_a_check_imports_nothing_it_does_not_use(real_servers: list[str], tmp_path: Path) -> None:
    """No database client, no asyncio, no SQLite, no temporary files: a check pays for what it does."""
    alone = {"PYTHONPROFILEIMPORTTIME": "1", "COVERAGE_PROCESS_CONFIG": ""}  # coverage would bring its own imports
    ran = ntpaudit("check", "--format", "json", *real_servers, state=tmp_path, environment=alone)
    bare = subprocess.run(
        [sys.executable, "-c", ""], env=os.environ | alone, capture_output=True, text=True, check=True
    )
    imported = modules(ran.err) - modules(bare.stderr)  # a virtual environment may import things of its own
    assert "ntpaudit.audit" in imported
    assert "sqlite3" not in modules(bare.stderr)
    unused = (
        "influxdb_client jinja2 psutil urllib3 asyncio sqlite3 tempfile secrets tomllib pathlib ssl http ntpaudit.demo "
        "ntpaudit.config.schema"
    )
    assert imported & set(unused.split()) == set()


def test_the_collector_runs_again_once_modules_are_imported() -> None:
    """It is off while a command is imported, and what was imported is not examined by it afterwards."""
    program = (
        "import gc, sys; sys.argv = ['ntpaudit', 'check', '--help']; from ntpaudit import __main__, cli; "
        "before = gc.get_freeze_count(); within = []; load = cli.importlib.import_module; "
        "cli.importlib.import_module = lambda name: (within.append(gc.isenabled()), load(name))[1]\n"
        "try: __main__.main()\n"
        "except SystemExit: print(within, gc.isenabled(), gc.get_freeze_count() > before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[False] True True"


def modules(errors: str) -> set[str]:
    """Return the modules that Python reported as imported."""
    return {line.rsplit("|", 1)[1].strip() for line in errors.splitlines() if line.startswith("import time:")}


def test_colour_is_for_terminals(real_servers: list[str], tmp_path: Path) -> None:
    """A terminal gets colours, unless NO_COLOR is set; a pipe gets none."""
    assert "\x1b" not in ntpaudit("check", *real_servers, state=tmp_path).out
    assert "\x1b[" in on_a_terminal(["check", *real_servers], tmp_path, {})
    assert "\x1b" not in on_a_terminal(["check", *real_servers], tmp_path, {"NO_COLOR": "1"})


def test_progress_shows_what_is_waited_for(tmp_path: Path) -> None:
    """On a terminal a wait of more than a second is explained."""
    with RogueServer("silent") as silent:
        shown = on_a_terminal(["check", "--timeout", "1500ms", name(silent)], tmp_path, {})
    assert "waiting for the servers that have not replied yet" in shown


def on_a_terminal(words: Sequence[str], state: Path, environment: dict[str, str]) -> str:
    """Run ntpaudit on a pseudo-terminal and return what it shows."""
    ours, theirs = pty.openpty()
    variables = os.environ | {"TERM": "xterm", "STATE_DIRECTORY": str(state / "state")} | environment
    subprocess.run(
        [sys.executable, "-m", "ntpaudit", *words],
        stdout=theirs,
        stderr=theirs,
        env=variables,
        cwd=REPOSITORY,
        timeout=30,
        check=False,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return shown.decode()


def test_a_reader_that_leaves_is_no_traceback(real_servers: list[str], tmp_path: Path) -> None:
    """`ntpaudit check | true` ends quietly."""
    command = f'"{sys.executable}" -m ntpaudit check --format json {" ".join(real_servers)} | true'
    done = subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""


def test_interrupted_is_quiet(tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and without a traceback."""
    with RogueServer("silent") as silent:
        process = subprocess.Popen(
            [sys.executable, "-m", "ntpaudit", "check", "--timeout", "60s", name(silent)],
            cwd=REPOSITORY,
            env=os.environ | {"STATE_DIRECTORY": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: silent.requests, "its first request")
        process.send_signal(2)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_help_version_and_completion(tmp_path: Path) -> None:
    """Help has examples and exit statuses, the version is the package's, and the shell can complete commands."""
    assert ntpaudit("--version", state=tmp_path).out == f"ntpaudit {__version__}\n"
    for words in (("--help",), ("check", "--help"), ("demo", "-h")):
        ran = ntpaudit(*words, state=tmp_path)
        assert ran.status == 0
        assert "Examples:" in ran.out
        assert "Exit status:" in ran.out
    completed = ntpaudit(
        state=tmp_path,
        environment={"_NTPAUDIT_COMPLETE": "bash_complete", "COMP_WORDS": "ntpaudit che", "COMP_CWORD": "1"},
    )
    assert "plain,check" in completed.out


def test_demo_shows_a_falseticker_and_is_labelled(tmp_path: Path) -> None:
    """The demonstration is labelled, finds 1.9 ms and the falseticker, and needs no network and no state."""
    with island({}) as land:
        ran = ntpaudit("demo", "--once", "--format", "json", state=tmp_path, inside=land.command)
    assert "demonstration" in ran.err
    assert ran.sources["liar.example"] == ("falseticker", "disagrees")
    offset = ran.record["offset"]
    assert offset["earliest_s"] <= 0.0019 <= offset["latest_s"]
    assert not (tmp_path / "state").exists()


CRAMPED = {
    "closed output": 'exec "$@" >&-',
    "full output": 'exec "$@" >/dev/full',
    "few files": 'ulimit -n 6; exec "$@"',
    "an ASCII terminal": 'PYTHONIOENCODING=ascii exec "$@" --format json żółw.invalid',
}


@pytest.mark.parametrize("trouble", CRAMPED)
def test_missing_resources_are_no_traceback(trouble: str, real_servers: list[str], tmp_path: Path) -> None:
    """Whatever the shell does to a check, it ends with a status of its own, and never with a traceback."""
    ran = ntpaudit(
        "check", "--timeout", "300ms", *real_servers, state=tmp_path,
        inside=lambda words: ["bash", "-c", CRAMPED[trouble], "bash", *words],
    )  # fmt: skip
    assert ran.status in (0, 1, 3)
    if "output" in trouble:
        assert ran.status == 3


@pytest.mark.parametrize(
    "text", ["[]", "5", '{"asked": 5}', '{"rates": "x"}', '{"other": 1}', "[" * 100_000, "nonsense"]
)
def test_memories_that_make_no_sense_are_forgotten(text: str, tmp_path: Path) -> None:
    """A row of the state that no ntpaudit wrote stops nothing."""
    with RogueServer("kod_deny") as server, NtpServer() as good:
        ntpaudit("check", name(server), state=tmp_path)
        with sqlite3.connect(tmp_path / "state" / "history.sqlite3") as connection:
            connection.execute("UPDATE servers SET memory = ?", (text,))
        connection.close()
        assert ntpaudit("check", "--format", "json", name(good), state=tmp_path).sources[name(good)][0] == "agreeing"


def test_state_damaged_inside_is_set_aside(tmp_path: Path) -> None:
    """Damage behind a sound header is detected when it is read, reported, and repaired for the next run."""
    file = tmp_path / "state" / "history.sqlite3"
    with RogueServer("kod_deny") as server:
        ntpaudit("check", name(server), state=tmp_path)
        with file.open("r+b") as pages:
            pages.seek(4096)
            pages.write(b"\xa5" * (file.stat().st_size - 4096))
        first = ntpaudit("check", "--format", "json", name(server), state=tmp_path)
        ntpaudit("check", name(server), state=tmp_path)
        last = ntpaudit("check", "--format", "json", name(server), state=tmp_path)
    assert "damaged" in first.err
    assert last.sources[name(server)] == ("skipped", "kod:DENY")


def test_kisses_of_runs_side_by_side_are_all_remembered(tmp_path: Path) -> None:
    """Eight checks at once, each denied by a server of its own: not one denial is lost."""
    with ExitStack() as stack:
        servers = [stack.enter_context(RogueServer("kod_deny")) for _ in range(8)]
        environment = os.environ | {"STATE_DIRECTORY": str(tmp_path / "state"), "PYTHONPATH": str(REPOSITORY)}
        words = [sys.executable, "-m", "ntpaudit", "check", "--format", "json"]
        checks = [
            subprocess.Popen([*words, name(server)], env=environment, stdout=subprocess.DEVNULL) for server in servers
        ]
        for check in checks:
            check.wait(WITHIN_S)
        ran = ntpaudit("check", "--format", "json", *map(name, servers), state=tmp_path)
    assert set(ran.sources.values()) == {("skipped", "kod:DENY")}


def test_output_keeps_the_mode_of_a_file_and_takes_a_dash_for_standard_output(
    real_servers: list[str], tmp_path: Path
) -> None:
    """--output leaves a file as private as it was; `-` is standard output, as everywhere."""
    target = tmp_path / "private"
    target.touch(mode=0o600)
    ntpaudit("check", "--format", "json", "--output", str(target), *real_servers, state=tmp_path)
    assert target.stat().st_mode & 0o777 == 0o600
    assert ntpaudit("check", "--format", "json", "--output", "-", *real_servers, state=tmp_path).record
    assert not (REPOSITORY / "-").exists()


def test_a_configuration_without_servers_says_whom_it_asks_instead(tmp_path: Path) -> None:
    """A file that names no servers leaves pool.ntp.org, which is reported; an empty --config is an error, not none."""
    file = tmp_path / "ntpaudit.toml"
    file.write_text('[host]\nsite = "ams"\n')
    with island({}) as land:
        ran = ntpaudit("check", "--timeout", "300ms", "--config", str(file), state=tmp_path, inside=land.command)
    assert "names no servers: querying pool.ntp.org" in ran.err
    assert ntpaudit("check", "--config", "", state=tmp_path).status == 78


def test_help_that_cannot_be_printed_is_no_traceback(tmp_path: Path) -> None:
    """Where nothing can be printed the status is unknown, and never that of a warning."""
    ran = ntpaudit("--help", state=tmp_path, inside=lambda words: ["sh", "-c", 'exec "$@" >/dev/full', "sh", *words])
    assert ran.status == 3
