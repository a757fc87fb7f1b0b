"""Build the Debian package: `python packaging/deb.py [--arch amd64] [--output dist]`.

The package contains its dependencies, pinned in requirements.txt, and installs without a network. From Debian it needs
only python3 and libc6. Two builds of the same commit are identical.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_string
from email.utils import format_datetime
from pathlib import Path

from man import pages

PACKAGING = Path(__file__).resolve().parent
REPOSITORY = PACKAGING.parent
DEBIAN = PACKAGING / "debian"
REQUIREMENTS = PACKAGING / "requirements.txt"
HELPERS = REPOSITORY / "systemd/helpers"

SHEBANG = "#!/usr/bin/python3 -IS\n"
"""Without site, environment and the user's packages: only files of the package can be imported."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""The architectures of packages, by Debian's names, with their names in wheels."""

PREFIX = "opt/ntpaudit"
"""The folder of the package, the same as that of `make install`, so that both use the same units."""


def main() -> None:
    """Build the package and print where it is."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--arch", choices=MACHINES, help="the architecture; default: this machine's")
    options.add_argument("--output", type=Path, default=REPOSITORY / "dist", help="the folder to write to")
    chosen = options.parse_args()
    print(build(chosen.arch or _output("dpkg", "--print-architecture"), chosen.output))


def build(arch: str, output: Path) -> Path:
    """Build the package for an architecture, write it into a folder, and return its path."""
    version, epoch = package_version(), source_epoch()
    package = output / f"ntpaudit_{version}_{arch}.deb"
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob(f"ntpaudit_*_{arch}.deb"):  # so that ntpaudit_*.deb is the one that was built last
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _add_program(root, arch)
        _add_units(root)
        _add_documents(root, version, epoch)
        _add_control(root, arch, version)
        _settle(root, epoch)
        _run(
            *("dpkg-deb", "--root-owner-group", "--uniform-compression", "-Zxz", "--build", str(root), str(package)),
            environment={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        )
    return package


def dependencies() -> list[str]:
    """Return the dependencies of the program from pyproject.toml."""
    wanted: list[str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    return wanted


def build_requirements() -> list[str]:
    """Return the build requirements of the program from pyproject.toml."""
    wanted: list[str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    return wanted


def pip(command: str, machine: str, *words: str) -> list[str]:
    """A pip command that takes only wheels that run on Debian 12 on that machine, whatever machine this is."""
    tags = [f"--platform=manylinux{tag}_{machine}" for tag in ("2014", "_2_17", "_2_28")]
    python = ["--python-version=3.11", "--implementation=cp", "--abi=abi3", "--abi=cp311", "--abi=none"]
    return [sys.executable, "-m", "pip", command, "--quiet", "--only-binary=:all:", *python, *tags, *words]


def _add_program(root: Path, arch: str) -> None:
    prefix = root / PREFIX
    with tempfile.TemporaryDirectory() as wheels:
        _run(*pip("download", MACHINES[arch], "--require-hashes", f"--requirement={REQUIREMENTS}", "--dest", wheels))
        # Resolved again from pyproject.toml, from these wheels alone: this fails where the pins no longer satisfy it.
        offline = ["--isolated", "--no-index", f"--find-links={wheels}", "--no-compile", f"--target={prefix / 'lib'}"]
        _run(*pip("install", MACHINES[arch], *offline, *dependencies()))
    _thin_out(prefix / "lib")
    shutil.copytree(REPOSITORY / "ntpaudit", prefix / "lib/ntpaudit", ignore=shutil.ignore_patterns("__pycache__"))
    programs = {f"ntpaudit-{path.stem}": path for path in HELPERS.glob("*.py")}
    for name, source in {"ntpaudit": PACKAGING / "launcher.py", **programs}.items():
        _write(prefix / "bin" / name, SHEBANG + source.read_text(), 0o755)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/ntpaudit").symlink_to(f"/{PREFIX}/bin/ntpaudit")


def _thin_out(lib: Path) -> None:
    """Remove tests of dependencies, their commands, and files that depend on the build machine."""
    for pattern in ("bin", "*/tests", "*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/REQUESTED"):
        for path in lib.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _add_units(root: Path) -> None:
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for path in sorted((REPOSITORY / "systemd").glob("ntpaudit*")):
        _run("cp", "--no-dereference", "--recursive", str(path), str(units))
    (root / "etc/ntpaudit").mkdir(parents=True)
    # Debian runs this when the default Python changes, for instance in an upgrade of the distribution.
    _write(root / "usr/share/python3/runtime.d/ntpaudit.rtupdate", (DEBIAN / "rtupdate").read_text(), 0o755)


def _add_documents(root: Path, version: str, epoch: int) -> None:
    folder = root / "usr/share/doc/ntpaudit"
    date = format_datetime(datetime.fromtimestamp(epoch, UTC))
    entry = (DEBIAN / "changelog").read_text().format(version=version, date=date, maintainer=_maintainer())
    _write_gzip(folder / "changelog.gz", entry)
    _write(folder / "copyright", _licences(root / PREFIX / "lib"))
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "systemd/README.md"):
        _write(folder / name, (REPOSITORY / name).read_text())
    for name in ("docs", "grafana"):  # with the folders that the README links to
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in pages(datetime.fromtimestamp(epoch, UTC).date().isoformat()):
        _write_gzip(root / "usr/share/man/man1" / f"{name}.gz", text)
    (root / PREFIX / "share/doc").mkdir(parents=True)
    (root / PREFIX / "share/doc/ntpaudit").symlink_to("/usr/share/doc/ntpaudit")  # where `make install` has them
    _write(root / "usr/share/lintian/overrides/ntpaudit", (DEBIAN / "lintian-overrides").read_text())


def _licences(lib: Path) -> str:
    """Return the licences of everything in the package, and where their texts are."""
    ours = f"ntpaudit, and everything that is not named below:\n\n{(REPOSITORY / 'LICENSE').read_text()}"
    apache = "The Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0 too."
    return "\n".join([ours, *(_licence(path, lib) for path in sorted(lib.glob("*.dist-info/METADATA"))), apache, ""])


def _licence(metadata: Path, lib: Path) -> str:
    """Return the licence that a dependency declares, and its licence files."""
    fields = message_from_string(metadata.read_text())
    classes = [words for words in fields.get_all("Classifier", []) if words.startswith("License ::")]
    name = fields["License-Expression"] or fields["License"] or classes[0].rpartition(":: ")[2]
    files = [path.relative_to(lib) for path in sorted(metadata.parent.rglob("LICEN*")) if path.is_file()]
    if not files:
        raise SystemExit(f"{fields['Name']} comes without its licence")
    places = "".join(f"    /{PREFIX}/lib/{file}\n" for file in files)
    return f"{fields['Name']} {fields['Version']}, {name}:\n{places}"


def _add_control(root: Path, arch: str, version: str) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    size_kib = sum(-(-path.stat().st_size // 1024) for path in files)
    sums = "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files)  # noqa: S324
    control = (DEBIAN / "control").read_text().format(version=version, arch=arch, size_kib=size_kib)
    _write(root / "DEBIAN/control", control)
    _write(root / "DEBIAN/md5sums", sums)
    _write(root / "DEBIAN/triggers", (DEBIAN / "triggers").read_text())
    for script in ("postinst", "prerm", "postrm"):
        _write(root / "DEBIAN" / script, (DEBIAN / script).read_text(), 0o755)


def _settle(root: Path, epoch: int) -> None:
    """Give everything the permissions and the time that do not depend on who built it, and when."""
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or (path.stat().st_mode & stat.S_IXUSR and path.suffix != ".so")
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def package_version() -> str:
    """The program's version; between releases also the time and the name of the commit, so that each is an upgrade."""
    line = next(line for line in _lines(REPOSITORY / "ntpaudit/__init__.py") if line.startswith("__version__"))
    version = line.split('"')[1]
    try:
        if f"v{version}" in _git("tag", "--points-at", "HEAD").split():
            return version
        commit = _git("rev-parse", "--short=8", "HEAD")
        stamp = datetime.fromtimestamp(int(_git("log", "-1", "--format=%ct")), UTC)
    except (OSError, subprocess.CalledProcessError):  # sources without their history are a release
        return version
    return f"{version}+git{stamp:%Y%m%d%H%M%S}.{commit}"


def _git(*words: str) -> str:
    return _output("git", "-C", str(REPOSITORY), *words)


def _maintainer() -> str:
    return next(line for line in _lines(DEBIAN / "control") if line.startswith("Maintainer:")).partition(": ")[2]


def _lines(path: Path) -> Iterator[str]:
    yield from path.read_text().splitlines()


def source_epoch() -> int:
    """When the sources were last changed, as seconds since 1970: SOURCE_DATE_EPOCH, else the last commit, else now."""
    if stated := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(stated)
    try:
        return int(_git("log", "-1", "--format=%ct"))
    except (OSError, subprocess.CalledProcessError):  # sources without their history
        return int(datetime.now(UTC).timestamp())


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _write_gzip(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
