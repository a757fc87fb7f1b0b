"""The tests with the Python of another Debian: `python -m tests.world.debian trixie [PYTEST-ARGUMENT]...`.

Needs root and a network. The release's files and the packages from PyPI are made once, in the project's cache.
"""

import fcntl
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.abilities import LackingError, need, programs
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY, cache_folder, program

QUICK = (
    "tests/core/test_packet.py",
    "tests/core/test_record.py",
    "tests/store",
    "tests/formats",
    "tests/outputs",
    "tests/render",
    "tests/probes",
    "tests/test_agent.py",
    "tests/test_check.py",
)
"""The part that is run where no test is named: what depends most on the Python that runs it."""

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
"""The Python of each release."""

_NOT_IMPORTED = ("build", "coverage", "mypy", "nodejs", "ruff", "setuptools", "types-")
"""Tools of developers that no test imports."""

_CHECKOUT = "/srv/ntpaudit"
_INSIDE = f"""
mount --bind "$CHECKOUT" "$ROOT{_CHECKOUT}"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/tmp"
exec chroot "$ROOT" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    PYTHONPYCACHEPREFIX=/tmp/pycache PYTHONPATH={_CHECKOUT} NTPAUDIT_WITHOUT="$WITHOUT" \\
    sh -ec 'cd {_CHECKOUT}; exec python3 -m pytest -p no:cacheprovider "$@"' sh "$@"
"""


def prepare(release: str) -> Path:
    """Return the folder with the files of a release and the tests' packages, made first where it is not there yet."""
    need("root", "mount")
    folder = cache_folder() / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    root, unfinished = folder / release, folder / f"{release}.unfinished"
    wanted = _requirements()
    stamp = folder / f"{release}.requirements"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            options = [
                "--variant=minbase",
                "--mode=root",
                "--include=python3,iproute2",
                '--aptopt=APT::Sandbox::User "root"',
            ]
            _run(str(program("mmdebstrap")), *options, release, str(unfinished))
            unfinished.rename(root)
        if not stamp.exists() or stamp.read_text().splitlines() != wanted:
            packages = root / f"usr/local/lib/python{PYTHONS[release]}/dist-packages"  # where Debian's Python looks
            shutil.rmtree(packages, ignore_errors=True)
            foreign = ["--python-version", PYTHONS[release], "--implementation", "cp", "--only-binary=:all:"]
            _run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), *foreign, *wanted)
            stamp.write_text("\n".join(wanted))
    return root


def run(release: str, arguments: list[str]) -> int:
    """Run pytest there and return its exit status; without arguments the quick part, with few examples each."""
    root = prepare(release)
    (root / _CHECKOUT.lstrip("/")).mkdir(parents=True, exist_ok=True)
    # The programs of this machine do not run there, and those of the release would have to be fetched.
    without = ",".join(("boot", "browser", "node", "roughenough", *programs()))
    environment = {
        "ROOT": str(root),
        "CHECKOUT": str(REPOSITORY),
        "WITHOUT": without,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    words = arguments or ["-q", "--hypothesis-profile=quick", *QUICK]
    return subprocess.run(
        [*unshared("mount"), "sh", "-ec", _INSIDE, "sh", *words], env=environment, check=False
    ).returncode


def _requirements() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted: list[str] = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [one for one in wanted if not one.startswith(_NOT_IMPORTED)]


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    try:
        status = run(sys.argv[1], sys.argv[2:])
    except (LackingError, subprocess.CalledProcessError) as error:
        sys.exit(f"the tests cannot be run with the Python of {sys.argv[1]}: {error}")
    sys.exit(status)
