"""Real programs for the tests, unpacked from Debian packages into the project's cache; nothing is ever installed.

`python -m tests.world.packages [PACKAGE]...` fetches ahead of time what `program` otherwise fetches on demand.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.abilities import REQUIRED, need

REPOSITORY = Path(__file__).resolve().parents[2]
"""The root of the checkout."""

PACKAGES = {
    "auditctl": "auditd",
    "check_ntp_time": "monitoring-plugins-basic",
    "chronyd": "chrony",
    "chronyc": "chrony",
    "chromium-headless-shell": "chromium-headless-shell",
    "ntpd": "ntpsec",
    "influxd": "influxdb",
    "ip": "iproute2",
    "libfaketime.so.1": "libfaketime",
    "mandoc": "mandoc",
    "mmdebstrap": "mmdebstrap",
    "nginx": "nginx",
    "openssl": "openssl",
    "prometheus": "prometheus",
    "systemd-journal-remote": "systemd-journal-remote",
    "systemd-timesyncd": "systemd-timesyncd",
    "victoria-metrics": "victoria-metrics",
}
"""Which package brings a program or a library."""

ALONE = ("openntpd",)
"""Packages that have files of the same names as others, and are unpacked each by itself."""

# Debian starts Chromium by a script in usr/bin that looks for it in the machine's own /usr/lib.
_PROGRAM_PLACES = (
    "usr/lib/chromium",
    "usr/sbin",
    "usr/bin",
    "sbin",
    "bin",
    "usr/lib/systemd",
    "lib/systemd",
    "usr/lib/nagios/plugins",
)
_LIBRARY_PLACES = ("usr/lib/*-linux-gnu*", "usr/lib/*-linux-gnu*/systemd", "lib/*-linux-gnu*")


class PackageUnavailableError(Exception):
    """A package could not be fetched; the message is one line that says why and what would help."""


def program(name: str) -> Path:
    """The unpacked program of that name, fetched first when it is not there yet; run it with `environment()`."""
    need(name)
    return _find(name, _PROGRAM_PLACES)


def library(name: str) -> Path:
    """The unpacked shared library of that name, such as `libfaketime.so.1`, to be named in LD_PRELOAD."""
    need(PACKAGES[name])
    return _find(name, (*_LIBRARY_PLACES, *(f"{place}/*" for place in _LIBRARY_PLACES)))


def environment() -> dict[str, str]:
    """The environment of this process, in which unpacked programs also find the libraries unpacked beside them."""
    found = [str(place) for pattern in _LIBRARY_PLACES for place in sorted(_root().glob(pattern))]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {**os.environ, "LD_LIBRARY_PATH": ":".join([*found, inherited] if inherited else found)}


def fetch(package: str) -> None:
    """Unpack a package and those of its dependencies that this machine lacks; costs nothing the second time."""
    stamp = _packages() / f"{package}.unpacked"
    with _locked():
        if stamp.exists():
            return
        try:
            _unpack(package, ())
        except PackageUnavailableError:  # the machine's package lists may be empty, or older than its mirror
            _unpack(package, _fresh_lists())
        stamp.touch()


def alone(package: str) -> Path:
    """The root of a package that is unpacked by itself."""
    root = _packages() / "alone" / package
    stamp = _packages() / f"{package}.unpacked-alone"
    with _locked():
        if not stamp.exists():
            root.mkdir(parents=True, exist_ok=True)
            try:
                _unpack(package, (), root)
            except PackageUnavailableError:
                _unpack(package, _fresh_lists(), root)
            stamp.touch()
    return root


def _find(name: str, places: tuple[str, ...]) -> Path:
    fetch(PACKAGES[name])
    for place in places:
        found = [path for path in sorted(_root().glob(f"{place}/{name}")) if path.exists()]  # no link out of the root
        if found:
            return found[0]
    raise PackageUnavailableError(f"{name} is not in package {PACKAGES[name]}; remove {_packages()} to fetch it again")


def cache_folder() -> Path:
    """Where everything is kept that was fetched for the tests: the project's own, or where $NTPAUDIT_CACHE says."""
    return Path(os.environ.get("NTPAUDIT_CACHE", REPOSITORY / ".cache"))


def _packages() -> Path:
    return cache_folder() / "packages"


def _root() -> Path:
    return _packages() / "root"


@contextmanager
def _locked() -> Iterator[None]:
    """Keep parallel test processes from unpacking the same package at once."""
    _packages().mkdir(parents=True, exist_ok=True)
    with (_packages() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unpack(package: str, options: tuple[str, ...], root: Path | None = None) -> None:
    # One simulation per package, because chrony and ntpsec conflict. A line `Inst NAME [OLD] (NEW ...)` is an
    # upgrade: the machine has the library, and a second libc beside its loader would crash every program.
    plan = _run("apt-get", *options, "-s", "install", "--no-install-recommends", package)
    lines = [line.split() for line in plan.splitlines() if line.startswith("Inst ")]
    lacking = {words[1] for words in lines if not words[2].startswith("[")}
    archives = _packages() / "archives" / package
    archives.mkdir(parents=True, exist_ok=True)
    _run("apt-get", *options, "-o", "APT::Sandbox::User=root", "download", *sorted({package, *lacking}), cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        _run("dpkg", "-x", str(archive), str(root or _root()))


def _fresh_lists() -> tuple[str, ...]:
    """Options that make apt use up-to-date package lists of our own; this needs no privilege."""
    state, cache = _packages() / "apt" / "state", _packages() / "apt" / "cache"
    for folder in (state / "lists" / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    options = (
        "-o",
        f"Dir::State={state}",
        "-o",
        "Dir::State::status=/var/lib/dpkg/status",
        "-o",
        f"Dir::Cache={cache}",
    )
    _run("apt-get", *options, "-o", "APT::Sandbox::User=root", "-o", "APT::Update::Error-Mode=any", "update")
    return options


def _run(*command: str, cwd: Path = REPOSITORY) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PackageUnavailableError(f"{command[0]} not found: these tests need a Debian or Ubuntu machine") from None
    if done.returncode != 0:
        complaint = " ".join(done.stderr.split())[-300:]
        raise PackageUnavailableError(f"{command[0]} failed, is there a network? {complaint}")
    return done.stdout


def fetch_all(packages: Iterable[str]) -> list[str]:
    """Fetch what can be had of these packages, and return a line for each that cannot."""
    failures = []
    for package in packages:
        try:
            (alone if package in ALONE else fetch)(package)
        except PackageUnavailableError as error:
            failures.append(f"{package} is not available, tests that need it will be skipped: {error}")
    return failures


if __name__ == "__main__":
    missing = fetch_all(sys.argv[1:] or sorted({*PACKAGES.values(), *ALONE}))
    print(*missing, sep="\n", end="\n" if missing else "", file=sys.stderr)
    sys.exit(bool(missing and os.environ.get(REQUIRED)))
