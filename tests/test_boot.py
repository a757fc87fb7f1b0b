"""The Debian package on a machine that really boots: systemd runs it, watches it, confines it, and dpkg removes it."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest

from ntpaudit import __version__
from ntpaudit.cli import cli
from ntpaudit.store.compression import unpack_text
from tests.waiting import until
from tests.world.machine import Machine, machine
from tests.world.packages import REPOSITORY, program
from tests.world.servers import running

pytestmark = [pytest.mark.needs("boot"), pytest.mark.untraced]  # the machine has a Python of its own

DATABASE = "127.0.0.1:8428"
SERVERS = {"127.0.0.1:11121": 1, "127.0.0.1:11122": 1, "127.0.0.1:11123": 2, "127.0.0.1:11124": 2}
"""NTP servers on the machine, with their strata: each serves the machine's own clock, so that its true offset is 0."""

CHOICES = {"network": "15s", "local": "5s", "url": f"http://{DATABASE}", "org": "soc", "bucket": "ntpaudit"}
"""What is changed of the configuration that `config init` writes."""

HASTE = """
[Service]
WatchdogSec=6s
RestartSec=1s
"""
SERVICES = (
    "ntpaudit.service",
    "ntpaudit-check.service",
    "ntpaudit-anchor.service",
    "ntpaudit-kernel.service",
    "ntpaudit-chrony.service",
    "ntpaudit-timesync.service",
)
MAX_EXPOSURE = 1.3

READ_CLOCK = """
import ctypes, errno, json, struct

libc = ctypes.CDLL(None, use_errno=True)

class timespec(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]

def outcome(result):
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

def adjtimex(modes):
    timex = ctypes.create_string_buffer(208)
    struct.pack_into("I", timex, 0, modes)
    return libc.adjtimex(timex)

monotonic, tick = 1, 0x4000  # a clock that cannot be set, and a length of the tick, 0, that no kernel takes
print(json.dumps({
    "settimeofday": outcome(libc.settimeofday(None, ctypes.byref((ctypes.c_int * 2)(99_999, 0)))),
    "clock_settime": outcome(libc.clock_settime(monotonic, ctypes.byref(timespec(0, 0)))),
    "clock_adjtime": outcome(libc.clock_adjtime(monotonic, ctypes.create_string_buffer(208))),
    "adjtimex": outcome(adjtimex(tick)),
}))
"""
"""The results of the calls that set clocks, each in a form that always fails."""

ANCHORING = "/root/anchoring.toml"  # names a service: the libraries to use it are not in the package
EVERY_COMMAND = {
    "demo": [["demo", "--once"], ["demo", "--hours", "6", "--hosts", "8"]],
    "check": [["check", *SERVERS], ["check", "--config", "/etc/ntpaudit/ntpaudit.toml", "--format", "json"]],
    "agent": [["agent", "--once", "--every", "1h"]],
    "status": [["status"], ["status", "--format", "json"]],
    "explain": [["explain"], ["explain", "offset-out"], ["explain", "offset-out", "--format", "json"]],
    "history": [["history", "--since", "1h"], ["history", "--events"], ["history", "--plot"], ["history", "--hourly"]],
    "history dead-letters list": [["history", "dead-letters", "list"]],
    "history dead-letters resend": [["history", "dead-letters", "resend", "--all"]],
    "history dead-letters drop": [["history", "dead-letters", "drop", "--all"]],
    "journal": [["journal", "--since", "1h"], ["journal", "--format", "csv"]],
    "fleet": [
        ["fleet", "--demo", "--flagged"],
        ["fleet", "--demo", "--html", "/tmp/fleet.html"],
        ["fleet", "--demo", "--format", "csv"],
        ["fleet", "--url", f"http://{DATABASE}", "--language", "promql"],
    ],
    "evidence verify": [["evidence", "verify"]],
    "evidence report": [["evidence", "report", "--period", "2025", "--format", "json"]],
    "evidence anchor": [["evidence", "anchor", "--history", "--folder", "/tmp", "--config", ANCHORING]],
    "evidence verify-anchor": [["evidence", "verify-anchor", "missing"]],
    "evidence excerpt": [["evidence", "excerpt", "missing", "web1"]],
    "fleet order": [["fleet", "order", "--demo", "ams-web1", "fra-db1"]],
    "config init": [["config", "init", *SERVERS, "--output", "-"]],
    "config check": [["config", "check"]],
    "config show": [["config", "show"], ["config", "show", "--format", "json"]],
}
"""Each command of the package with ways to call it, in an order in which each finds what the earlier ones left."""


def commands(group: click.Group, prefix: str = "") -> Iterator[str]:
    """Every command that can be called, also those below another one."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield prefix + name
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


def shown(host: Machine, unit: str, name: str) -> str:
    """A property of a unit."""
    return host.say("systemctl", "show", unit, f"--property={name}", "--value")


def entries(host: Machine, *matches: str) -> list[dict[str, Any]]:
    """What the machine's journal holds of that kind."""
    return [json.loads(line) for line in host.say("journalctl", "--output=json", "--all", *matches).splitlines()]


def records(host: Machine) -> list[dict[str, Any]]:
    """What the history holds, oldest first."""
    query = "import sqlite3,sys; [print(r[0].hex()) for r in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])]"
    words = [
        "python3",
        "-c",
        query,
        "/var/lib/ntpaudit/history.sqlite3",
        "SELECT record FROM audits WHERE record IS NOT NULL ORDER BY id",
    ]
    return [json.loads(unpack_text(bytes.fromhex(line))) for line in host.say(*words).splitlines()]


def measured(host: Machine) -> list[dict[str, Any]]:
    """The records that know the offset: before the first answer of a server there may be some that do not."""
    return [record for record in records(host) if record["offset"]]


def confined(host: Machine, code: str) -> Any:
    """Run Python inside the sandbox of the services, as a user of its own, and return the JSON that it prints."""
    words = [
        "systemd-run",
        "--quiet",
        "--pipe",
        "--wait",
        "--collect",
        "--unit=ntpaudit-probe",
        "--property=DynamicUser=yes",
    ]
    return json.loads(host.say(*words, "--", "python3", "-c", code))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, built from these sources."""
    return build_package(tmp_path_factory.mktemp("package"))


def build_package(folder: Path) -> Path:
    """Build the Debian package from these sources, into an empty folder."""
    subprocess.run([sys.executable, REPOSITORY / "packaging/deb.py", "--output", folder], check=True)
    (built,) = folder.iterdir()
    return built


@contextmanager
def installed(package: Path, release: str = "bookworm") -> Iterator[Machine]:
    """A machine with the package, and nothing done to it since."""
    with machine(release) as host:
        shutil.copy(package, host.path("/root/ntpaudit.deb"))
        host.say("dpkg", "--install", "/root/ntpaudit.deb")
        yield host


@contextmanager
def configured(package: Path, release: str = "bookworm") -> Iterator[Machine]:
    """A machine with the package, a configuration that `config init` wrote, servers to query and a database."""
    with installed(package, release) as host, ExitStack() as stack:
        for address, stratum in SERVERS.items():
            serve(host, address, stratum)
        stack.enter_context(database(host))
        host.say("ntpaudit", "config", "init", *SERVERS, "--output", "/etc/ntpaudit/ntpaudit.toml")
        choose(host.path("/etc/ntpaudit/ntpaudit.toml"))
        token = host.path("/etc/ntpaudit/token")
        token.touch(0o600)
        token.write_text("a-token-of-no-consequence\n")
        write(host, "/etc/systemd/system/ntpaudit.service.d/haste.conf", HASTE)
        host.say("systemctl", "daemon-reload")
        yield host


def choose(configuration: Path) -> None:
    """Make our choices in the file, as an operator does: by writing over the first example of each in its comments."""
    text = configuration.read_text()
    for key, value in CHOICES.items():
        text, changed = re.subn(rf"^# {key} = .*$", f'{key} = "{value}"', text, count=1, flags=re.MULTILINE)
        assert changed == 1, key
    configuration.write_text(text)


def serve(host: Machine, address: str, stratum: int) -> None:
    """Let chronyd serve the machine's own clock there, as Debian's user for it, without steering that clock."""
    ip, _, port = address.partition(":")
    place = f"/root/chrony-{ip}-{port}"
    serving = f"port {port}\nbindaddress {ip}\nlocal stratum {stratum}\nallow\n"
    write(host, f"{place}.conf", f"{serving}cmdport 0\nbindcmdaddress /\npidfile {place}.pid\n")
    host.say(
        "systemd-run",
        "--quiet",
        f"--unit=time-{ip}-{port}",
        "--",
        "/usr/sbin/chronyd",
        "-x",
        "-d",
        "-f",
        f"{place}.conf",
    )


@contextmanager
def database(host: Machine) -> Iterator[None]:
    """Run VictoriaMetrics on the machine's network, which takes points as InfluxDB 2 does."""
    place = host.path("/root").parent  # its files end with the machine
    options = [f"-httpListenAddr={DATABASE}", f"-storageDataPath={place}/root/points", "-retentionPeriod=1"]
    options += ["-loggerLevel=WARN", "-influxMeasurementFieldSeparator=_", "-search.latencyOffset=0s"]
    command = host.on_its_network([str(program("victoria-metrics")), *options])
    with running(command, place / "root/points.log", lambda _: fetch(host, "/health") == "OK"):
        yield


def fetch(host: Machine, path: str, **query: str) -> str | None:
    """What the database answers, None where it does not."""
    code = "import sys,urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())"
    url = f"http://{DATABASE}{path}?{urllib.parse.urlencode(query)}"
    done = host.run(["python3", "-c", code, url], check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def points(host: Machine, measurement: str, field: str) -> list[float]:
    """Every value of a field that the database holds, in the order of time."""
    answer = fetch(host, "/api/v1/export", **{"match[]": f"{measurement}_{field}"}) or ""
    series = [json.loads(line) for line in answer.splitlines()]
    return [
        value
        for _, value in sorted(pair for one in series for pair in zip(one["timestamps"], one["values"], strict=True))
    ]


def write(host: Machine, path: str, text: str) -> None:
    """Write a file on the machine."""
    file = host.path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture(scope="module")
def bare(package: Path) -> Iterator[Machine]:
    """A machine with the package, for the tests of an unconfigured one."""
    with installed(package) as host:
        yield host


@pytest.fixture(scope="module")
def spare(package: Path) -> Iterator[Machine]:
    """A machine with a configuration whose agent was not started yet, for the tests that come and go on it."""
    with configured(package) as host:
        yield host


@pytest.fixture(scope="module")
def host(package: Path) -> Iterator[Machine]:
    """A machine whose agent runs, and has audited."""
    with configured(package) as host:
        host.say("systemctl", "enable", "--now", "ntpaudit")
        until(lambda: audit_now(host) and len(measured(host)) >= 3)
        yield host


def audit_now(host: Machine) -> bool:
    """Make the agent audit now."""
    host.say("systemctl", "kill", "--signal=USR1", "ntpaudit")
    return True


def test_package_is_the_same_when_built_again(package: Path, tmp_path: Path) -> None:
    """Two builds of the same sources are the same, byte for byte."""
    subprocess.run([sys.executable, REPOSITORY / "packaging/deb.py", "--output", tmp_path], check=True)
    digests = {hashlib.sha256(built.read_bytes()).hexdigest() for built in (package, tmp_path / package.name)}
    assert len(digests) == 1


def test_package_installs_without_network_and_starts_nothing(bare: Machine) -> None:
    """It takes dpkg alone, and no network; then the command works, and no unit is enabled or runs."""
    assert bare.path("/proc/1/net/dev").read_text().count(":") == 1  # loopback
    assert bare.say("dpkg-query", "--show", "--showformat=${Status}", "ntpaudit") == "install ok installed"
    assert bare.say("ntpaudit", "--version") == f"ntpaudit {__version__}"
    assert bare.say("systemctl", "list-units", "--all", "--no-legend", "ntpaudit*") == ""
    assert bare.run(["systemctl", "is-enabled", "ntpaudit.service"], check=False).stdout.strip() == "disabled"
    assert bare.say("dpkg", "--verify", "ntpaudit") == ""
    compiled = bare.path("/opt/ntpaudit/lib/ntpaudit/__pycache__")
    assert list(compiled.glob("*.pyc"))  # the services could not keep them


def test_links_of_the_packaged_documents_resolve(bare: Machine) -> None:
    """Each link from one document to another leads to a file of the package, and so do the units' references."""
    folder = bare.path("/usr/share/doc/ntpaudit")
    broken = [
        f"{page.relative_to(folder)}: {target}"
        for page in folder.rglob("*.md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
    for unit in bare.path("/usr/lib/systemd/system").glob("ntpaudit*.service"):
        (page,) = re.findall(r"^Documentation=man:ntpaudit\(1\) file://(\S+)$", unit.read_text(), re.MULTILINE)
        bare.say("test", "-s", page)


def test_each_command_has_a_manual_page(bare: Machine) -> None:
    """There is a page for the program and for each command, which troff renders without a warning."""
    folder = bare.path("/usr/share/man/man1")
    called = [["ntpaudit", *name.split()] for name in commands(cli)]
    expected = {"-".join(words[:count]) for words in called for count in range(1, len(words) + 1)}  # groups too
    assert {path.name.removesuffix(".1.gz") for path in folder.glob("ntpaudit*")} == expected
    for path in folder.glob("ntpaudit*"):
        lint = [str(program("mandoc")), "-T", "lint", "-W", "warning", str(path)]
        assert subprocess.run(lint, capture_output=True, text=True, check=False).stdout == "", path.name


def test_version_grows_with_each_commit(package: Path) -> None:
    """The package of a later commit is an upgrade; a release comes after the one before and all that led to it."""
    version = package.name.split("_")[1]
    assert re.fullmatch(rf"{re.escape(__version__)}(\+git\d{{14}}\.[0-9a-f]{{8,}})?", version)
    order = [__version__, f"{__version__}+git20260101000000.ffffffff", f"{__version__}+git20260101000001.00000000"]
    for earlier, later in pairwise(order):
        subprocess.run(["dpkg", "--compare-versions", earlier, "lt", later], check=True)


def test_broken_configuration_is_reported_once_and_not_tried_again(bare: Machine) -> None:
    """Without a configuration the start fails with status 78, says what to do, and is not repeated."""
    assert bare.run(["systemctl", "start", "ntpaudit"], check=False).returncode != 0
    assert shown(bare, "ntpaudit", "ExecMainStatus") == "78"
    assert shown(bare, "ntpaudit", "ActiveState") == "failed"
    assert "ntpaudit config init" in bare.say("journalctl", "--unit=ntpaudit", "--output=cat")


def test_agent_is_active_once_it_says_so_and_shows_its_verdict(host: Machine) -> None:
    """The manager waited for the agent's own word (Type=notify), and its status line is the agent's conclusion."""
    assert shown(host, "ntpaudit", "Type") == "notify"
    assert shown(host, "ntpaudit", "ActiveState") == "active"
    assert "at most" in until(lambda: shown(host, "ntpaudit", "StatusText"))
    done = host.run(["systemctl", "status", "ntpaudit"], check=False)
    assert done.returncode == 0
    assert "4 of 4 servers agree" in done.stdout


def test_watchdog_is_fed(host: Machine) -> None:
    """The agent reports to systemd regularly that its loop runs."""
    before = shown(host, "ntpaudit", "WatchdogTimestampMonotonic")
    until(lambda: shown(host, "ntpaudit", "WatchdogTimestampMonotonic") != before)
    assert shown(host, "ntpaudit", "NRestarts") == "0"


def test_records_are_kept_and_root_can_read_them(host: Machine) -> None:
    """The history fills, with records within the truth, and `ntpaudit status` shows the last of them."""
    for record in measured(host):
        assert record["offset"]["earliest_s"] <= 0.0 <= record["offset"]["latest_s"]
    status = host.run(["ntpaudit", "status", "--format", "json"], check=False)
    report = json.loads(status.stdout)
    assert (report["record"]["verdict"], report["stale"], report["reason"]) == ("within", False, None)
    assert status.returncode in (0, 1)


def test_service_and_shell_call_the_boot_the_same(host: Machine) -> None:
    """In a container the shell sees its boot id, and the sandbox, whose /proc is its own, the kernel's: they agree."""
    path = "/proc/sys/kernel/random/boot_id"
    seen = host.say("cat", path)
    inside = confined(host, f"import json; print(json.dumps(open('{path}').read().strip()))")
    assert inside != seen, "no container hides anything here, so that nothing is tested"
    assert {record["host"]["boot_id"] for record in records(host)} == {seen}
    assert "--" not in host.run(["ntpaudit", "history", "--format", "json"], check=False).stderr


def test_kernel_is_asked_through_its_service(host: Machine) -> None:
    """The agent, to which adjtimex is forbidden, still knows the state of the kernel's clock."""
    kernel = records(host)[-1]["kernel"]
    assert kernel["available"] is True, kernel
    assert shown(host, "ntpaudit-kernel.service", "ActiveState") == "active"


def test_points_reach_a_real_database(host: Machine) -> None:
    """Every record is a point in the database, once, and the token came to the agent as a credential."""
    in_order = sorted(measured(host), key=lambda record: record["time"]["utc"])  # by which two may change places
    kept = [record["offset"]["bound_s"] for record in in_order]
    delivered = until(lambda: (found := points(host, "ntpaudit_clock", "bound_s"))[len(kept) - 1 :] and found)
    assert delivered[: len(kept)] == pytest.approx(kept)


def test_journal_has_native_fields(host: Machine) -> None:
    """A verdict is an entry of its own kind in the journal, with numbers in fields, from the unit."""
    (found, *_) = entries(host, "_SYSTEMD_UNIT=ntpaudit.service", "NTPAUDIT_VERDICT=within")
    assert int(found["NTPAUDIT_EARLIEST_USEC"]) <= 0 <= int(found["NTPAUDIT_LATEST_USEC"])
    assert len(found["MESSAGE_ID"]) == 32
    assert found in entries(host, f"MESSAGE_ID={found['MESSAGE_ID']}")
    assert found["_CAP_EFFECTIVE"] == "0"


def test_daemons_of_other_users_are_seen_from_inside(host: Machine) -> None:
    """The time daemons, which run as another user, are in the record with their pids and what they are started with."""
    pids = {int(shown(host, f"time-{address.replace(':', '-')}", "MainPID")) for address in SERVERS}
    owners = {host.path(f"/proc/{pid}").stat().st_uid for pid in pids}
    assert owners != {0}
    assert owners != {host.path(f"/proc/{shown(host, 'ntpaudit', 'MainPID')}").stat().st_uid}
    daemons = records(host)[-1]["daemons"]
    assert {(daemon["name"], daemon["pid"], daemon["disciplines"]) for daemon in daemons} == {
        ("chronyd", pid, False) for pid in pids
    }


LOOK_FOR_DAEMONS = """
import json, sys
sys.path.insert(0, "/opt/ntpaudit/lib")
from ntpaudit.probes.daemons import configured_servers, running_daemons
seen = [(one.name, one.pid, one.disciplines, one.reason) for one in running_daemons().seen]
print(json.dumps([seen, [server.host for server in configured_servers().servers]]))
"""


def test_who_may_set_the_clock_is_seen_from_inside(host: Machine) -> None:
    """The sandbox sees by its capability which process is a time daemon, and reads the file that it was started with.

    Only `tail -f` runs here, by the name of chronyd: once as a daemon does that gave up root, once as anybody can.
    """
    shutil.copy(host.path("/usr/bin/tail"), host.path("/usr/local/sbin/chronyd"))
    for name in ("site", "evil"):
        write(host, f"/etc/{name}.conf", f"server {name}.example\n")
    start = ["systemd-run", "--quiet", "--collect", "--property=User=nobody", "--property=Group=nogroup"]
    chronyd = ["/usr/local/sbin/chronyd", "-f"]
    host.say(*start, "--unit=time-daemon", "--property=AmbientCapabilities=CAP_SYS_TIME", *chronyd, "/etc/site.conf")
    host.say(*start, "--unit=fake", "unshare", "--user", "--map-root-user", *chronyd, "/etc/evil.conf")
    try:
        daemon, fake = (int(shown(host, unit, "MainPID")) for unit in ("time-daemon", "fake"))
        until(lambda: host.say("cat", f"/proc/{fake}/comm") == host.say("cat", f"/proc/{daemon}/comm") == "chronyd")
        seen, servers = confined(host, LOOK_FOR_DAEMONS)
    finally:
        host.say("systemctl", "stop", "time-daemon", "fake")
    lacks = "cannot set the clock: it lacks CAP_SYS_TIME"
    found = {pid: what for _, pid, *what in seen}
    assert (found[daemon], found[fake]) == ([True, None], [False, lacks])
    assert servers == ["site.example"]


@pytest.mark.parametrize("unit", SERVICES)
def test_exposure_is_low(host: Machine, unit: str) -> None:
    """The manager's own assessment of what a service is exposed to stays at or below the limit."""
    table = host.say("systemd-analyze", "security", "--no-pager", unit)
    exposure = float(table.rpartition("exposure level for")[2].split()[1])
    assert exposure <= MAX_EXPOSURE, table
    offline = ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}"]
    assert host.run([*offline, f"/usr/lib/systemd/system/{unit}"], check=False).returncode == 0


def test_units_are_sound(host: Machine) -> None:
    """The manager has nothing to say against the units."""
    units = [
        path
        for path in host.say("sh", "-c", "echo /usr/lib/systemd/system/ntpaudit*").split()
        if not path.endswith(".d")
    ]
    # Without --man=no it asks `man`, which this machine lacks, for the pages; another test finds them in the package.
    done = host.run(["systemd-analyze", "verify", "--man=no", *units], check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_sandbox_is_one_for_all(host: Machine) -> None:
    """The sandbox that the tests look at from inside is the one of the agent and of every other service."""
    for unit in SERVICES:
        places = shown(host, unit, "DropInPaths").split()
        real = {host.say("readlink", "--canonicalize", place) for place in places if place.endswith("10-sandbox.conf")}
        assert real == {"/usr/lib/systemd/system/ntpaudit.service.d/10-sandbox.conf"}, unit


def test_no_clock_can_be_set_from_inside(host: Machine) -> None:
    """No call that sets a clock reaches the kernel; outside, root's calls do, and fail for what they say alone."""
    outside = json.loads(host.say("python3", "-c", READ_CLOCK))
    assert not {"EPERM", "done"} & set(outside.values()), outside
    assert set(confined(host, READ_CLOCK).values()) == {"EPERM"}


def test_what_can_be_written_cannot_be_run(host: Machine) -> None:
    """The agent can write its state, its run-time folder and temporary files, nothing else, and run none of it."""
    pid, user = shown(host, "ntpaudit", "MainPID"), shown(host, "ntpaudit", "UID")
    code = (
        "import os\n"
        "for base, folders, _ in os.walk('/'):\n"
        "    if base in ('/proc', '/sys'):\n"
        "        folders.clear()\n"
        "    elif os.access(base, os.W_OK):\n"
        "        print(base, bool(os.statvfs(base).f_flag & os.ST_NOEXEC))\n"
    )
    inside = ["nsenter", f"--target={pid}", "--mount", "setpriv", f"--reuid={user}", "--regid=65534", "--clear-groups"]
    places = dict(line.split() for line in host.say(*inside, "python3", "-c", code).splitlines())
    assert {place for place in places if not place.startswith(("/tmp/", "/var/tmp/"))} == {
        "/run/ntpaudit",
        "/tmp",
        "/var/lib/private/ntpaudit",
        "/var/tmp",
    }
    assert set(places.values()) == {"True"}


def test_nothing_listens(host: Machine) -> None:
    """The agent has no socket that others can reach: none that listens, and none of UDP without a peer."""
    user = shown(host, "ntpaudit", "UID")
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in host.path(f"/proc/1/net/{protocol}").read_text().splitlines()[1:]:
            (
                _,
                _,
                peer,
                state,
                *_,
            ) = line.split()
            if line.split()[7] == user:
                assert state != "0A", line
                assert peer.rpartition(":")[2] != "0000", line


def test_configuration_is_reloaded(host: Machine) -> None:
    """`systemctl reload` applies a configuration; a broken one makes it fail, and the agent goes on and shows why."""
    pid = shown(host, "ntpaudit", "MainPID")
    host.say("systemctl", "reload", "ntpaudit")
    until(lambda: "configuration reloaded" in host.say("journalctl", "--unit=ntpaudit", "--output=cat"))
    file = host.path("/etc/ntpaudit/ntpaudit.toml")
    sound = file.read_text()
    file.write_text("[sources]\nserver = 1\n")
    assert host.run(["systemctl", "reload", "ntpaudit"], check=False).returncode != 0
    until(lambda: "configuration not reloaded" in host.say("journalctl", "--unit=ntpaudit", "--output=cat"))
    reason = "reload refused, the earlier configuration stays in force: /etc/ntpaudit/ntpaudit.toml:2: sources.server"
    until(lambda: reason in shown(host, "ntpaudit", "StatusText"))
    until(lambda: audit_now(host) and "at most" in shown(host, "ntpaudit", "StatusText"))
    assert reason in shown(host, "ntpaudit", "StatusText")
    file.write_text(sound)
    host.say("systemctl", "reload", "ntpaudit")
    until(lambda: "reload refused" not in shown(host, "ntpaudit", "StatusText"))
    assert shown(host, "ntpaudit", "MainPID") == pid
    assert shown(host, "ntpaudit", "ActiveState") == "active"


def test_a_reload_checks_the_file_that_the_agent_runs_by(host: Machine) -> None:
    """Where a drop-in names another file, that one decides whether `systemctl reload` succeeds."""
    sound = host.path("/etc/ntpaudit/ntpaudit.toml").read_text()
    write(host, "/etc/ntpaudit/site.toml", sound)
    drop_in = "/etc/systemd/system/ntpaudit.service.d/file.conf"
    command = "/opt/ntpaudit/bin/ntpaudit agent --config /etc/ntpaudit/site.toml"
    write(host, drop_in, f"[Service]\nExecStart=\nExecStart={command}\n")
    host.say("systemctl", "daemon-reload")
    host.say("systemctl", "restart", "ntpaudit")
    write(host, "/etc/ntpaudit/ntpaudit.toml", "[sources]\nserver = 1\n")
    host.say("systemctl", "reload", "ntpaudit")
    write(host, "/etc/ntpaudit/ntpaudit.toml", sound)
    write(host, "/etc/ntpaudit/site.toml", "[sources]\nserver = 1\n")
    assert host.run(["systemctl", "reload", "ntpaudit"], check=False).returncode != 0
    host.path(drop_in).unlink()
    host.say("systemctl", "daemon-reload")
    host.say("systemctl", "restart", "ntpaudit")


def test_frozen_agent_is_restarted(host: Machine) -> None:
    """An agent that no longer turns is ended by the watchdog and started again, and audits on."""
    pid = shown(host, "ntpaudit", "MainPID")
    host.say("systemctl", "kill", "--signal=STOP", "ntpaudit")
    until(lambda: shown(host, "ntpaudit", "MainPID") not in (pid, "0"))
    until(lambda: shown(host, "ntpaudit", "ActiveState") == "active")
    assert shown(host, "ntpaudit", "NRestarts") == "1"
    assert "Watchdog timeout" in host.say("journalctl", "--unit=ntpaudit", "--output=cat")
    count = len(records(host))
    until(lambda: len(records(host)) > count)


def test_agent_ends_at_once_with_everything_stored(host: Machine) -> None:
    """`systemctl stop` ends it before systemd would kill it, its history whole; the kernel's service ends as well."""
    host.say("systemctl", "start", "ntpaudit")
    host.say("systemctl", "stop", "ntpaudit")
    assert shown(host, "ntpaudit", "Result") == "success"
    check = (
        "import sqlite3; print(*sqlite3.connect('/var/lib/ntpaudit/history.sqlite3').execute('PRAGMA integrity_check'))"
    )
    assert host.say("python3", "-c", check) == "('ok',)"
    until(lambda: shown(host, "ntpaudit-kernel.service", "ActiveState") == "inactive")
    assert not host.path("/run/ntpaudit-kernel").exists()


def test_timer_audits_without_the_agent(host: Machine) -> None:
    """The timer's service keeps one more record in the same history, and the agent can take it up again."""
    host.say("systemctl", "stop", "ntpaudit")
    host.say("ntpaudit", "status", "--stale", "1d")  # root's look leaves nothing that the service could not write
    count = len(records(host))
    write(
        host,
        "/etc/systemd/system/ntpaudit-check.timer.d/haste.conf",
        "[Timer]\nOnActiveSec=0\nRandomizedDelaySec=0\nAccuracySec=0\n",
    )
    host.say("systemctl", "daemon-reload")
    host.say("systemctl", "start", "ntpaudit-check.timer")
    until(lambda: len(records(host)) > count)
    until(lambda: shown(host, "ntpaudit-check", "ActiveState") == "inactive")
    assert shown(host, "ntpaudit-check", "Result") == "success"
    report = json.loads(host.run(["ntpaudit", "status", "--format", "json"], check=False).stdout)
    assert (report["stale"], report["reason"]) == (False, None)
    host.say("systemctl", "start", "ntpaudit")
    until(lambda: len(records(host)) > count + 1)


def test_timer_audits_nothing_while_the_agent_runs(host: Machine) -> None:
    """Agent and timer may both be enabled: the timer's service is skipped while the agent runs."""
    pid = shown(host, "ntpaudit", "MainPID")
    host.path("/etc/systemd/system/ntpaudit-check.timer.d/haste.conf").unlink(missing_ok=True)
    host.say("systemctl", "daemon-reload")
    host.say("systemctl", "enable", "--now", "ntpaudit-check.timer")
    before = shown(host, "ntpaudit-check.service", "InactiveExitTimestampMonotonic")
    host.say("systemctl", "start", "ntpaudit-check.service")
    assert shown(host, "ntpaudit-check.service", "Result") == "exec-condition"
    assert shown(host, "ntpaudit-check.timer", "ActiveState") == "active"
    # A skipped run counts, or the timer would never elapse again once it is restarted, as an upgrade does.
    assert shown(host, "ntpaudit-check.service", "InactiveExitTimestampMonotonic") != before
    host.say("systemctl", "restart", "ntpaudit-check.timer")
    until(lambda: shown(host, "ntpaudit-check.timer", "NextElapseUSecMonotonic") != "infinity")
    assert (shown(host, "ntpaudit", "MainPID"), shown(host, "ntpaudit", "ActiveState")) == (pid, "active")
    host.say("systemctl", "disable", "--now", "ntpaudit-check.timer")


def test_reinstalling_complains_of_nothing(host: Machine) -> None:
    """The package installed again over a running agent prints no error, and the agent runs on with the new files."""
    until(lambda: shown(host, "ntpaudit-kernel.service", "ActiveState") == "active")
    pid = shown(host, "ntpaudit", "MainPID")
    done = host.run(["dpkg", "--install", "/root/ntpaudit.deb"])
    assert "refused" not in done.stdout + done.stderr
    assert "rror" not in done.stdout + done.stderr
    assert done.stderr == ""
    until(lambda: shown(host, "ntpaudit", "MainPID") not in ("0", pid))
    assert shown(host, "ntpaudit", "ActiveState") == "active"


def test_history_of_a_run_by_hand_is_taken_over(spare: Machine) -> None:
    """What root's own audit kept before the service was ever started belongs to the service afterwards."""
    spare.run(["ntpaudit", "check", *SERVERS, "--record"], check=False)
    assert len(records(spare)) == 1
    spare.say("systemctl", "start", "ntpaudit")
    until(lambda: len(records(spare)) >= 2)
    spare.say("systemctl", "stop", "ntpaudit")


def test_quick_start_of_the_readme_works_as_it_is_pasted(package: Path) -> None:
    """Its last command says what the agent waits for, and until when; then it says how the clock is."""
    text = (REPOSITORY / "README.md").read_text().partition("## Run it as a service\n\n")[2].partition("\n\n")[0]
    with installed(package) as host:
        for number in range(1, 5):
            serve(host, f"127.0.0.{number}:123", 2)
        names = "".join(f"127.0.0.{number} ntp{number}.example.net\n" for number in range(1, 5))
        write(host, "/etc/hosts", f"127.0.0.1 localhost\n{names}")
        write(host, "/root/quick-start", text.replace("sudo ", ""))
        pasted = host.run(["sh", "-x", "/root/quick-start"], check=False)
        said = " ".join(pasted.stdout.split())
        assert pasted.returncode in (0, 1) or "waits for its first measurement (due within" in said, pasted
        until(lambda: host.run(["ntpaudit", "status"], check=False).returncode in (0, 1))


def test_every_command_of_the_package_works(spare: Machine) -> None:
    """Each command does its work where the package is installed: no traceback, and an exit status about a clock."""
    assert set(EVERY_COMMAND) == set(commands(cli))
    write(spare, ANCHORING, f'[evidence]\nroughtime = ["127.0.0.1:5319 {"A" * 43}="]\n')
    for words in (words for config in EVERY_COMMAND.values() for words in config):
        done = spare.run(["ntpaudit", *words], check=False)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert done.returncode in range(4), (words, done.returncode, done.stdout, done.stderr)
        assert done.stdout or done.stderr, words


def test_one_rule_holds_for_the_token_in_a_service_and_by_hand(spare: Machine) -> None:
    """`config check` finds the token that the service gets; others may not read its file, in either case."""
    assert "token set (from /etc/ntpaudit/token)" in spare.say("ntpaudit", "config", "check")
    spare.say("chmod", "644", "/etc/ntpaudit/token")
    done = spare.run(["ntpaudit", "config", "check"], check=False)
    assert (done.returncode, "chmod 600 /etc/ntpaudit/token" in done.stderr) == (78, True)
    assert spare.run(["systemctl", "start", "ntpaudit"], check=False).returncode != 0
    assert shown(spare, "ntpaudit", "ExecMainStatus") == "78"
    spare.say("chmod", "600", "/etc/ntpaudit/token")
    spare.say("systemctl", "start", "ntpaudit")
    spare.say("systemctl", "stop", "ntpaudit")


def test_agent_runs_without_a_token(spare: Machine) -> None:
    """Where there is no token file the service starts, and delivers to a database that asks for none."""
    fetch(spare, "/internal/force_flush")
    before = len(points(spare, "ntpaudit_clock", "severity"))
    spare.path("/etc/ntpaudit/token").rename(spare.path("/root/token"))
    spare.say("systemctl", "start", "ntpaudit")
    until(lambda: audit_now(spare) and len(points(spare, "ntpaudit_clock", "severity")) > before)
    spare.say("systemctl", "stop", "ntpaudit")
    spare.path("/root/token").rename(spare.path("/etc/ntpaudit/token"))


def test_purge_leaves_nothing_but_the_history(spare: Machine) -> None:
    """Removal ends the service; after a purge files, configuration and links are gone, and the history is there."""
    shutil.rmtree(spare.path("/etc/systemd/system/ntpaudit.service.d"))  # ours, not the package's
    places = ["find", "/etc", "/opt", "/usr", "/var", "/run", "-xdev", "-name", "*ntpaudit*"]
    assert spare.say(*places)
    count = len(records(spare)) if spare.path("/var/lib/ntpaudit/history.sqlite3").exists() else 0
    spare.say("systemctl", "daemon-reload")
    spare.say("systemctl", "enable", "--now", "ntpaudit")
    spare.say("systemctl", "enable", "ntpaudit-check.timer")
    until(lambda: spare.path("/var/lib/private/ntpaudit").exists() and len(records(spare)) > count)
    spare.say("dpkg", "--remove", "ntpaudit")
    assert shown(spare, "ntpaudit", "ActiveState") == "inactive"
    assert spare.path("/etc/ntpaudit/ntpaudit.toml").exists()
    assert "/var/lib/private/ntpaudit" in spare.say("dpkg", "--purge", "ntpaudit")
    assert set(spare.say(*places).splitlines()) == {"/var/lib/ntpaudit", "/var/lib/private/ntpaudit"}
    assert not spare.path("/opt/ntpaudit").exists()
    assert spare.say("systemctl", "list-units", "--all", "--no-legend", "ntpaudit*") == ""
    assert records(spare)
