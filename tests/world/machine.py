"""A Debian machine that really boots: systemd is its process 1, and it has no network but loopback.

`python -m tests.world.machine` makes its files ahead of time, in the project's cache, which takes half a minute;
booting takes half a second. What a test writes goes to an overlay in memory: every boot begins with the same machine.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from tests.abilities import REQUIRED, need
from tests.world.packages import cache_folder, program
from tests.world.servers import ServerFailedError

INCLUDED = ("chrony", "dbus", "python3", "systemd", "systemd-container", "systemd-sysv")
"""What the machine has beside Debian's essential packages; systemd-container brings the program that boots it."""

TIME_DAEMONS = ("systemd-timesyncd", "openntpd", "linuxptp")
"""Packages that a test installs on a machine: `archives` has their files."""

NTP_DAEMONS = {
    "bookworm": ("ntpsec", "python3-ntp", "libbsd0"),
    "trixie": ("ntpsec", "python3-ntp", "libbsd0", "ntpd-rs"),
}
"""The same, of those that have a test of their own. Debian 12 has no ntpd-rs."""

RELEASES = ("bookworm", "trixie")
"""Debian 12, which most tests boot, and 13."""

TIMEDATED_WITHOUT_CLOCK = "/etc/systemd/system/systemd-timedated.service.d/without-clock.conf"
"""The file by which `timedatectl` cannot move the clock; also a change of the time zone would. Only a test that steps
the clock on purpose removes it."""

READY_WITHIN_S = 180.0
"""A machine that has not finished booting by then is given up."""

_PAUSE_S = 0.05
_GROUP_FREE_WITHIN_S = 60.0
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8")


class Machine(NamedTuple):
    """A booted machine, as long as its block lasts."""

    pid: int
    """Its process 1, as seen from outside."""

    def run(self, words: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root, and return what it said; fail with its complaint unless `check` is false."""
        command = ["nsenter", "--target", str(self.pid), "--all", "env", "--ignore-environment", *_ENVIRONMENT, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise ServerFailedError(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def say(self, *words: str) -> str:
        """Run a command inside that must succeed, and return its output without space around it."""
        return self.run(words).stdout.strip()

    def on_its_network(self, words: Sequence[str]) -> list[str]:
        """The same command, with the files and the users of the test, but on the network of the machine."""
        return ["nsenter", "--target", str(self.pid), "--net", "--", *words]

    def path(self, inside: str) -> Path:
        """Where a file of the machine is found from outside: it can be read and written there."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")


@contextmanager
def machine(release: str = "bookworm") -> Iterator[Machine]:
    """Boot a machine, yield it once it is up, and take it down with everything that runs on it."""
    need("boot")
    root = prepare(release)
    # A whole machine has this capability; without it no process inside could set the clock, sandboxed or not. It is
    # this machine's clock: nothing inside may set it. For that chrony's own service is masked, and systemd-timedated
    # lacks the capability.
    command = [
        *_nspawn(root),
        f"--directory={root}",
        f"--machine=ntpaudit-{token_hex(4)}",
        *("--boot", "--volatile=overlay", "--private-network", "--capability=CAP_SYS_TIME"),
        *("--register=no", "--keep-unit", "--console=pipe", "--link-journal=no", "--quiet"),
    ]
    enter = 'until [ "$1" = -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
    with ExitStack() as stack:
        groups = stack.enter_context(_control_groups())
        outside = ["sh", "-c", enter, "sh", *map(str, groups), "--", *command]
        nothing, output, same = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
        booting = stack.enter_context(subprocess.Popen(outside, stdin=nothing, stdout=output, stderr=same))
        try:
            yield _booted(booting)
        finally:
            _take_down(booting)


def prepare(release: str = "bookworm") -> Path:
    """Return the folder with the files of a machine, made first if it is not there yet; needs root and a network."""
    need("root")
    folder = cache_folder() / "machine"
    folder.mkdir(parents=True, exist_ok=True)
    root, unfinished = folder / release, folder / f"{release}.unfinished"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / f"{release}.{'+'.join(INCLUDED)}"
        if stamp.exists():
            _forbid_timedated(root)
            return root
        for old in (root, *folder.glob(f"{release}.*")):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        _bootstrap(release, unfinished)
        _forbid_timedated(unfinished)
        unfinished.rename(root)
        stamp.touch()
    return root


def archives(release: str, *packages: str) -> list[Path]:
    """Return the files of packages of a release, fetched first if they are not there yet; needs a network."""
    root, folder = prepare(release), cache_folder() / "machine" / f"{release}-packages"
    for needed in ("state/lists/partial", "cache/archives/partial"):
        (folder / needed).mkdir(parents=True, exist_ok=True)
    places = {
        "Dir::Etc::SourceList": root / "etc/apt/sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State": folder / "state",
        "Dir::State::status": root / "var/lib/dpkg/status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    options = [word for name, value in places.items() for word in ("-o", f"{name}={value}")]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing := [name for name in packages if not list(folder.glob(f"{name}_*.deb"))]:
            for words in (["update"], ["download", *missing]):
                done = subprocess.run(
                    ["apt-get", *options, *words], cwd=folder, capture_output=True, text=True, check=False
                )
                if done.returncode != 0:
                    raise ServerFailedError(f"apt-get {words[0]} failed, is there a network? {done.stderr[-2000:]}")
    return [path for name in packages for path in sorted(folder.glob(f"{name}_*.deb"))]


def _bootstrap(release: str, root: Path) -> None:
    options = [
        "--variant=minbase",
        "--mode=root",
        f"--include={','.join(INCLUDED)}",
        '--aptopt=APT::Sandbox::User "root"',
    ]
    command = [str(program("mmdebstrap")), *options, release, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailedError(f"mmdebstrap failed, is there a network? {done.stderr[-2000:]}")
    (root / "etc/systemd/system/chrony.service").symlink_to("/dev/null")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)  # a copy of the one outside, whose servers cannot be reached


def _forbid_timedated(root: Path) -> None:
    """Take the right to set the clock from systemd-timedated; the files may have been made before."""
    file = root / TIMEDATED_WITHOUT_CLOCK.lstrip("/")
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text("[Service]\nCapabilityBoundingSet=~CAP_SYS_TIME\n")


def _nspawn(root: Path) -> list[str]:
    """systemd-nspawn out of the machine itself, with the libraries of the machine: this host may have neither."""
    loader = next(path for folder in ("lib64", "lib") for path in root.glob(f"{folder}/ld-linux-*.so.*"))
    folders = [
        folder for pattern in ("*-linux-gnu", "*-linux-gnu/systemd") for folder in root.glob(f"usr/lib/{pattern}")
    ]
    return [str(loader), "--library-path", ":".join(map(str, folders)), str(root / "usr/bin/systemd-nspawn")]


@contextmanager
def _control_groups() -> Iterator[list[Path]]:
    """Control groups for one machine alone: two systemds in one would take each other's processes for their own."""
    mounts = {"": ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"), "name=systemd": ("/sys/fs/cgroup/systemd",)}
    name = f"ntpaudit-{token_hex(4)}"  # nspawn mirrors the name that one hierarchy has into the other
    groups = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, ours = line.split(":", 2)
        parents = [Path(mount + ours) for mount in mounts.get(controllers, ())]
        groups += [parent / name for parent in parents if (parent / "cgroup.procs").exists()][:1]
    for group in groups:
        group.mkdir()
    try:
        yield groups
    finally:
        for group in groups:
            _remove_group(group)


def _remove_group(group: Path) -> None:
    """Remove a control group with those in it; the kernel may still be busy with the last process that ended there."""
    deadline = time.monotonic() + _GROUP_FREE_WITHIN_S
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(folder)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
            else:
                break


def _booted(booting: "subprocess.Popen[bytes]") -> Machine:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if booting.poll() is not None:
            assert booting.stdout
            raise ServerFailedError(f"the machine did not boot: {booting.stdout.read().decode()}")
        if children := Path(f"/proc/{booting.pid}/task/{booting.pid}/children").read_text().split():
            found = Machine(int(children[0]))
            state = found.run(["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()
            if state in ("running", "degraded"):
                return found
        time.sleep(_PAUSE_S)
    raise ServerFailedError(f"the machine did not boot in {READY_WITHIN_S} s")


def _take_down(booting: "subprocess.Popen[bytes]") -> None:
    booting.terminate()  # which is an orderly shutdown
    try:
        booting.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        booting.kill()
        booting.communicate()


if __name__ == "__main__":
    try:
        for each in RELEASES:
            archives(each, *TIME_DAEMONS, *NTP_DAEMONS[each])
    except Exception as error:
        print(f"no machine can be prepared, tests that boot one will be skipped: {error}", file=sys.stderr)
        sys.exit(bool(os.environ.get(REQUIRED)))
