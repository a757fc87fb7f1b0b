"""What this machine allows the tests to do: each ability is tried once per run, when a test first needs it.

Where a run has several processes, the one that comes first tries it for all (`share`).

A test states what it needs, `@pytest.mark.needs("mount", "another-user")`. A helper that uses an ability calls `need`,
so that no test which uses the helper can forget to state it. Where an ability is lacking, the test is skipped with the
reason, and the summary lists the ability with the number of tests it cost. With NTPAUDIT_REQUIRE=all, or a list of
names, a lacking ability is a failure.
"""

import ctypes
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from ntpaudit.config.location import SYSTEM_FILE

REQUIRED = "NTPAUDIT_REQUIRE"
"""The environment variable that names the abilities which must not be lacking, or is `all`."""

UNTESTED = "NTPAUDIT_UNTESTED"
"""The environment variable that names a file to which each run of pytest adds the tests that a lacking ability cost."""

WITHOUT = "NTPAUDIT_WITHOUT"
"""The environment variable that names the abilities which this run shall not use."""

STEPPING = "NTPAUDIT_STEP_CLOCK"
"""The environment variable that permits the tests to step this machine's clock by some milliseconds."""

ANOTHER_USER = 65534
"""The user and the group that tests become: uid and gid 65534, which own nothing and are allowed nothing."""

_WITHIN_S = 60.0
_UPTIME_S = 620.0
_VERSION_FLAGS = {
    "auditctl": "-v",
    "check_ntp_time": None,  # each of its options ends with the exit status 3
    "chromium-headless-shell": None,  # `browser` starts it, with the libraries that it finds in no usual place
    "chronyd": "--version",
    "chronyc": "--version",
    "influxd": "version",
    "ip": "-Version",
    "mandoc": "-Tascii",  # of an empty page: it knows no other harmless call
    "mmdebstrap": "--version",
    "nginx": "-v",
    "ntpd": "--version",
    "openssl": "version",
    "prometheus": "--version",
    "systemd-journal-remote": "--version",
    "systemd-timesyncd": None,  # it knows no options
    "victoria-metrics": "-version",
}


class LackingError(Exception):
    """The machine lacks an ability; the message is one line and says why."""

    def __init__(self, ability: str, reason: str) -> None:
        super().__init__(reason)
        self.ability = ability


_CHECKS: dict[str, Callable[[], object]] = {}
_found: dict[str, str | None] = {}
_under_test: set[str] = set()
_shared: Path | None = None


def share(folder: Path) -> None:
    """Use a folder in which each ability that a process of this run has tried is written down for the others."""
    global _shared
    _shared = folder


def need(*names: str) -> None:
    """Raise LackingError for the first of these abilities that this machine lacks."""
    for name in names:
        reason = lacking(name)
        if reason is not None:
            raise LackingError(name, reason)


def lacking(name: str) -> str | None:
    """Return why this machine lacks an ability, None where it has it; it is tried at the first call."""
    # An ability is tried with the helper that needs it: inside its own trial it counts as present.
    if name in _under_test:
        return None
    if name in _listed(WITHOUT):
        return f"{WITHOUT} leaves it out of this run"
    if name not in _found:
        _under_test.add(name)
        try:
            _found[name] = _reason(_CHECKS[name]) if _shared is None else _found_once(name, _shared / name)
        finally:
            _under_test.remove(name)
    return _found[name]


def names() -> tuple[str, ...]:
    """Return the name of every ability."""
    return tuple(sorted(_CHECKS))


def summary(cost: Mapping[str, Collection[str]], reasons: Mapping[str, str | None]) -> list[str]:
    """Return the lines that list each lacking ability with the number of tests it cost and the reason."""
    if not cost:
        return []
    width = max(map(len, cost))
    lines = [
        f"{name:{width}}  {_tests(len(tests)):>9}  {reasons.get(name)}"
        for name, tests in sorted(cost.items(), key=lambda one: (-len(one[1]), one[0]))
    ]
    return [*lines, f"{_tests(len(set().union(*cost.values())))} skipped: this machine lacks what they need"]


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"


def programs() -> tuple[str, ...]:
    """Return the names of the abilities that are a program or a library from a Debian package."""
    return (*_VERSION_FLAGS, "libfaketime")


def is_required(name: str) -> bool:
    """Return whether NTPAUDIT_REQUIRE forbids that this ability is lacking."""
    return bool({"all", name} & _listed(REQUIRED))


def _listed(variable: str) -> set[str]:
    return set(os.environ.get(variable, "").replace(",", " ").split())


def _reason(check: Callable[[], object]) -> str | None:
    try:
        check()
    except Exception as error:  # whatever stops the trial would stop the test
        return " ".join(str(error).split())[:300] or type(error).__name__
    return None


def _found_once(name: str, path: Path) -> str | None:
    """Return what another process found out, or try it and write that down; who comes meanwhile waits."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not (answer := file.read()):
            answer = json.dumps(_reason(_CHECKS[name]))
            file.write(answer)
    found: str | None = json.loads(answer)
    return found


def _ability(name: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    def register(check: Callable[[], object]) -> Callable[[], object]:
        _CHECKS[name] = check
        return check

    return register


def _run(*words: str) -> str:
    """Run a command that must succeed, and return its output."""
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=_WITHIN_S, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise OSError(done.stderr or done.stdout or f"{words[0]} ended with status {done.returncode}")
    return done.stdout


@_ability("root")
def _root() -> None:
    if os.geteuid() != 0:
        raise PermissionError("these tests run as an ordinary user")


@_ability("timens")
def _timens() -> None:
    need("root")
    _run("unshare", "--time", "--fork", "--boottime", "1", "--", "true")


@_ability("another-user")
def _another_user() -> None:
    """Become another user, in the two ways that tests use: a new process, and this process for a moment."""
    need("root")
    user = str(ANOTHER_USER)
    _run("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", "true")
    os.seteuid(ANOTHER_USER)
    os.seteuid(0)


@_ability("userns")
def _user_namespace() -> None:
    _run("unshare", "--user", "--map-user=1000", "--map-group=1000", "true")


@_ability("mount")
def _mount() -> None:
    """Mount a file system in memory, bind a folder read-only, in a mount namespace."""
    from tests.world.namespaces import unshared

    with tempfile.TemporaryDirectory() as folder:
        mounts = 'mount -t tmpfs -o size=1m none "$0" && mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
        _run(*unshared("mount"), "sh", "-ec", mounts, folder)


@_ability("disk")
def _disk() -> None:
    """Mount a file system in memory in sight of every process, as root can."""
    need("root")
    with tempfile.TemporaryDirectory() as folder:
        _run("mount", "-t", "tmpfs", "-o", "size=1m", "none", folder)
        _run("umount", folder)


@_ability("netns")
def _network_namespace() -> None:
    """Make a network namespace, set up its loopback, give it an address, and enter it from outside."""
    from tests.world.namespaces import entered, unshared
    from tests.world.packages import program

    land = '"$0" link set lo up && "$0" address add 192.0.2.1 dev lo && echo up && read line'
    command = [*unshared("net"), "sh", "-ec", land, str(program("ip"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            if process.stdout.readline() != b"up\n":
                raise OSError(process.stderr.read().decode())
            bind = 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("192.0.2.1", 123))'
            _run(*entered(process.pid, "net"), sys.executable, "-IS", "-c", bind)
        finally:
            process.stdin.close()


@_ability("utsns")
def _host_name_namespace() -> None:
    """Give a process a host name of its own."""
    from tests.world.namespaces import unshared

    _run(*unshared("uts"), "sh", "-ec", "echo another >/proc/sys/kernel/hostname")


@_ability("pidns")
def _pid_namespace() -> None:
    """See only the processes of a PID namespace."""
    from tests.world.namespaces import unshared

    _run(*unshared("mount", "pid"), "sh", "-ec", 'test "$$" = 1; test -e /proc/1')


@_ability("set-clock")
def _set_clock() -> None:
    """Hold CAP_SYS_TIME where it counts, as the daemons have to that discipline the clock. Nothing is set."""
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    if not held & 1 << 25 or Path("/proc/self/uid_map").read_text().split()[2] != "4294967295":
        raise PermissionError("these tests may not set the clock: they lack CAP_SYS_TIME")


@_ability("boot")
def _boot() -> None:
    """Boot the machine of the tests, and set it down again."""
    need("root", "mount", "netns")  # a machine that lacks one of these takes long to fail
    from tests.world.machine import machine

    with machine():
        pass


@_ability("python-3.11")
def _python_of_the_machine() -> None:
    """Run on the Python that the booted machine has too, so that compiled libraries of the tests run there."""
    if sys.version_info[:2] != (3, 11):
        raise OSError(
            f"this is Python {sys.version_info[0]}.{sys.version_info[1]}, and the machine of the tests has 3.11"
        )


@_ability("adjtimex")
def _adjtimex() -> None:
    """Read the state of the kernel's clock."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.create_string_buffer(256)) == -1:
        raise OSError(ctypes.get_errno(), f"adjtimex: {os.strerror(ctypes.get_errno())}")


@_ability("step-clock")
def _step_clock() -> None:
    """Step the clock by nothing, where it is permitted."""
    if STEPPING not in os.environ:
        raise PermissionError(f"the tests may step this machine's clock by 20 ms only with {STEPPING}=1")
    now = time.clock_gettime_ns(time.CLOCK_REALTIME)
    time.clock_settime_ns(time.CLOCK_REALTIME, now)


@_ability("seccomp")
def _seccomp() -> None:
    """Let the kernel refuse adjtimex to a process."""
    ask = "import ctypes, sys; sys.exit(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(256)) != -1)"
    _run(sys.executable, "-m", "tests.world.sandbox", sys.executable, "-IS", "-c", ask)


@_ability("devices")
def _devices() -> None:
    """Make a device file."""
    with tempfile.TemporaryDirectory() as folder:
        os.mknod(f"{folder}/null", 0o644 | 0o020000, os.makedev(1, 3))


@_ability("ipv6")
def _ipv6() -> None:
    """Have IPv6's loopback address."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
        bound.bind(("::1", 0))


@_ability("pango")
def _pango() -> None:
    """Have WeasyPrint's libraries."""
    _run(sys.executable, "-c", "import weasyprint")


@_ability("localhost")
def _localhost() -> None:
    """Resolve the name localhost."""
    socket.getaddrinfo("localhost", 123, family=socket.AF_INET, type=socket.SOCK_DGRAM)


@_ability("journald")
def _journald() -> None:
    """Have the programs of systemd's journal."""
    need("mount")
    if not Path("/usr/lib/systemd/systemd-journald").exists() or not shutil.which("journalctl"):
        raise FileNotFoundError("systemd-journald is not installed")


@_ability("systemctl")
def _systemctl() -> None:
    """Have systemctl, which works on the files of another root without a running systemd."""
    _run("systemctl", "--version")


@_ability("uptime")
def _uptime() -> None:
    """Have run for ten minutes: earlier after a boot nothing is raised about the offset."""
    if time.clock_gettime(time.CLOCK_BOOTTIME) < _UPTIME_S:
        raise OSError("this machine booted less than ten minutes ago")


@_ability("no-system-config")
def _no_system_config() -> None:
    """Have no configuration of all users: a command without --config reads it, and no variable hides it."""
    if os.path.exists(SYSTEM_FILE):
        raise OSError(f"{SYSTEM_FILE} is there, and is read without --config")


@_ability("64-bit")
def _64_bit() -> None:
    if ctypes.sizeof(ctypes.c_long) != 8:
        raise OSError("the C structures of 32-bit systems differ")


@_ability("browser")
def _browser() -> None:
    """Start Chromium and let it compute something in a page."""
    from tests.world.browser import chromium

    with chromium() as running, running.page() as page:
        assert page.evaluate("6 * 7") == 42


@_ability("node")
def _node() -> None:
    """Run the Node that comes as a wheel, with the packages of the dashboards' tests."""
    from tests.world.node import GRAFANA, NODE, modules

    _run(str(NODE), "--version")
    modules(GRAFANA)


@_ability("roughenough")
def _roughenough() -> None:
    """Build a Roughtime server with Rust's cargo, and run it."""
    from tests.world.roughenough import binary

    _run(str(binary()), "--version")


@_ability("openntpd")
def _openntpd() -> None:
    """Let OpenNTPD check a configuration; its program has the name of another one."""
    from tests.world.packages import alone

    _run(str(alone("openntpd") / "usr/sbin/ntpd"), "-n", "-f", "/dev/null")


@_ability("ntpd-rs")
def _ntpd_rs() -> None:
    """Run ntpd-rs of Debian 13."""
    need("root", "mount")
    from tests.world.followers import in_debian_13

    with tempfile.TemporaryDirectory() as folder:
        _run(*in_debian_13(Path(folder), [], ["ntp-daemon", "--version"]))


@_ability("libfaketime")
def _libfaketime() -> None:
    """Show a process another time."""
    from tests.world.packages import library

    show = "import time; print(time.gmtime().tm_year)"
    faked = ["env", f"LD_PRELOAD={library('libfaketime.so.1')}", "FAKETIME=@2001-06-01 00:00:00"]
    if _run(*faked, sys.executable, "-IS", "-c", show).strip() != "2001":
        raise OSError("libfaketime has no effect")


def _program(name: str) -> None:
    """Fetch a program and run it."""
    from tests.world import packages

    found, flag = packages.program(name), _VERSION_FLAGS[name]
    if flag is None:
        return
    done = subprocess.run(
        [found, flag],
        stdin=subprocess.DEVNULL,
        env=packages.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_WITHIN_S,
    )
    if done.returncode != 0:
        raise OSError(f"{name} does not run: {done.stderr or done.stdout}")


for _name in _VERSION_FLAGS:
    _CHECKS[_name] = partial(_program, _name)


def _sum_up(path: Path) -> None:
    """Print what all runs of pytest together did not test, and start again."""
    cost: dict[str, set[str]] = defaultdict(set)
    reasons: dict[str, str | None] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        name, reason, tests = json.loads(line)
        cost[name].update(tests)
        reasons[name] = reason
    path.unlink(missing_ok=True)
    print(*(["not tested here:", *summary(cost, reasons)] if cost else ["everything was tested"]), sep="\n")


if __name__ == "__main__":
    _sum_up(Path(os.environ[UNTESTED]))
