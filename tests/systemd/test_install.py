"""What is installed, and its units for systemd, without a machine to boot."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.world.packages import REPOSITORY

UNITS = REPOSITORY / "systemd"


LOCK = re.findall(r"^([a-z0-9.-]+==\S+)", (REPOSITORY / "packaging/requirements.txt").read_text(), re.MULTILINE)


def make(*words: str) -> str:
    """Run make in the checkout and return what it says."""
    done = subprocess.run(["make", *words], cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_timer_knows_no_hour_of_the_day() -> None:
    """Audits without a daemon are spread over the time since boot, never at fixed times (P3)."""
    timer = ConfigParser(strict=False, interpolation=None)
    timer.optionxform = str  # type: ignore[assignment,method-assign]
    timer.read_string((UNITS / "ntpaudit-check.timer").read_text())
    assert {"OnBootSec", "OnUnitActiveSec", "RandomizedDelaySec"} == set(timer["Timer"])


def test_no_setting_is_written_twice() -> None:
    """Every service takes its sandbox from the one file, and repeats none of it."""
    names = set(re.findall(r"^(\w+)=", (UNITS / "ntpaudit.service.d/10-sandbox.conf").read_text(), re.MULTILINE))
    for unit in UNITS.glob("ntpaudit*.service"):
        assert not names & set(re.findall(r"^(\w+)=", unit.read_text(), re.MULTILINE)), unit.name
    # A link in the checkout, a copy in the source distribution.
    one, other = (UNITS / f"{name}.service.d/10-sandbox.conf" for name in ("ntpaudit", "ntpaudit-"))
    assert one.read_bytes() == other.read_bytes()


def test_each_helper_is_a_program_a_socket_and_a_service() -> None:
    """Installation and removal find the helpers by these names."""
    helpers = {path.stem for path in UNITS.glob("helpers/*.py")}
    assert helpers == {path.stem.removeprefix("ntpaudit-") for path in UNITS.glob("ntpaudit-*.socket")} >= {"kernel"}
    for name in helpers:
        service = (UNITS / f"ntpaudit-{name}.service").read_text()
        assert f"ExecStart=/opt/ntpaudit/bin/ntpaudit-{name}\n" in service


def test_a_build_during_the_installation_takes_no_package_without_a_hash() -> None:
    """Not even where a dependency has no wheel: pip's isolated builds fetch their requirements without a hash."""
    script = (REPOSITORY / "packaging/install.sh").read_text().replace("\\\n", "")
    first, *rest = [line for line in script.splitlines() if "pip install" in line]
    assert "--require-hashes" in first
    assert "build-requirements.txt" in first
    assert all("--no-build-isolation" in line and {"--require-hashes", "--no-index"} & {*line.split()} for line in rest)


@pytest.mark.parametrize(
    ("words", "checked"),
    [
        ([], "config check"),
        (["--config", "/etc/my site.toml"], "config check /etc/my site.toml"),
        (["--config=/etc/my site.toml"], "config check /etc/my site.toml"),
    ],
)
def test_a_reload_checks_the_agent_s_own_file(words: list[str], checked: str, tmp_path: Path) -> None:
    """The file of its command line, however that is written; the agent is signalled whatever the check says."""
    unit = (UNITS / "ntpaudit.service").read_text().replace("\\\n", "")
    (line,) = re.findall("^ExecReload=(.*)$", unit, re.MULTILINE)
    program = tmp_path / "ntpaudit"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/checked\necho $# >{tmp_path}/count\nexit 78\n')
    program.chmod(0o755)
    shell, flag, script = shlex.split(line.replace("/opt/ntpaudit/bin/ntpaudit", str(program)), posix=True)
    script = script.replace("$$", "$").encode().decode("unicode_escape")  # as systemd reads it
    waits = "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, [1]); print(flush=True); print(s.sigwait([1]))"
    command = [sys.executable, "-c", waits, "agent", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        done = subprocess.run(
            [shell, flag, script], env={"MAINPID": str(agent.pid), "PATH": "/usr/bin:/bin"}, check=False
        )
        assert done.returncode == 78
        assert agent.stdout.read().strip().endswith("1")
    assert (tmp_path / "checked").read_text() == f"{checked}\n"
    assert (tmp_path / "count").read_text() == f"{3 if words else 2}\n"


@pytest.mark.untraced
def test_make_install_twice_and_uninstall(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It installs below DESTDIR, again over itself, for a place of its own; and takes away what it brought."""
    where = [f"DESTDIR={tmp_path}", "PREFIX=/srv/audit"]
    for user in ("_chrony", "chrony"):
        monkeypatch.setenv("PATH", f"{_system_with(user, tmp_path_factory.mktemp('bin'))}:{os.environ['PATH']}")
        assert "nothing was started" in make("install", *where)
        helper = (tmp_path / "usr/lib/systemd/system/ntpaudit-chrony.service").read_text()
        assert re.findall("^User=(.*)$", helper, re.MULTILINE) == [user]
    assert os.readlink(tmp_path / "usr/local/bin/ntpaudit") == "/srv/audit/bin/ntpaudit"
    programs = {"ntpaudit", *(f"ntpaudit-{path.stem}" for path in UNITS.glob("helpers/*.py"))}
    assert programs == {path.name for path in (tmp_path / "srv/audit/bin").glob("ntpaudit*")}
    for name in programs:
        assert (tmp_path / "srv/audit/bin" / name).read_text().startswith("#!/srv/audit/bin/python3 -IS\n")
    _run_installed(tmp_path / "srv/audit", tmp_path_factory.mktemp("run"))
    unit = (tmp_path / "usr/lib/systemd/system/ntpaudit.service").read_text()
    assert "ExecStart=/srv/audit/bin/ntpaudit agent" in unit
    assert "/opt/" not in unit
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]
    installed = {path.name.removesuffix(".dist-info") for path in tmp_path.rglob("*.dist-info")}
    pins = {pin.replace("-", "_").replace("==", "-") for pin in LOCK if not pin.startswith("setuptools==")}
    assert {name for name in installed if not name.startswith("ntpaudit-")} == pins
    (program,) = tmp_path.glob("srv/audit/lib/python*/site-packages/ntpaudit")
    assert _data_files(program) == _data_files(REPOSITORY / "ntpaudit") != set()
    assert "history" in make("uninstall", *where)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == set()


def _system_with(user: str, folder: Path) -> Path:
    """A folder with a program that knows just this user."""
    getent = folder / "getent"
    getent.write_text(f'#!/bin/sh\n[ "$1 $2" = "passwd {user}" ]\n')
    getent.chmod(0o755)
    return folder


def _run_installed(root: Path, folder: Path) -> None:
    """The program finds its packages without site, and imports nothing by PYTHONPATH."""
    launcher = folder / "ntpaudit"  # as it will be once its folder is where it is to run
    launcher.write_text((root / "bin/ntpaudit").read_text().replace("/srv/audit", str(root)))
    (folder / "click.py").write_text("raise SystemExit('imported by PYTHONPATH')\n")
    done = subprocess.run(
        [root / "bin/python3", "-IS", launcher, "demo", "--once"],
        env=os.environ | {"PYTHONPATH": str(folder)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert "liar.example" in done.stdout, done.stderr


def _data_files(folder: Path) -> set[str]:
    """The files of the program that are no modules, such as templates."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }


@pytest.mark.untraced
def test_nothing_is_installed_that_is_not_in_the_lock(tmp_path: Path) -> None:
    """A file with another hash ends `make install`, before anything of it runs as root."""
    for name in ("packaging", "ntpaudit", "systemd"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    lock = tmp_path / "packaging/requirements.txt"
    text = lock.read_text()
    pin = text.index("click==")
    digest = text.index("sha256:", pin) + len("sha256:")
    lock.write_text(f"{text[:digest]}{'0' * 64}{text[digest + 64 :]}")
    command = ["sh", str(tmp_path / "packaging/install.sh")]
    done = subprocess.run(
        command, env=os.environ | {"DESTDIR": str(tmp_path / "root")}, check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "HASH" in done.stderr.upper()
    assert not list((tmp_path / "root").rglob("click"))
    assert not list((tmp_path / "root").rglob("bin/ntpaudit"))


@pytest.mark.untraced
def test_the_bill_of_materials_is_the_lock(tmp_path: Path) -> None:
    """Every pinned package is in it with its hashes; what only builds is marked as such; two writings are the same."""
    written = []
    for folder in ("one", "two"):
        command = [sys.executable, str(REPOSITORY / "packaging/sbom.py"), "--output", str(tmp_path / folder)]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1796000000"})
        (path,) = (tmp_path / folder).iterdir()
        assert path.name.endswith(".cdx.json")
        written.append(path.read_text())
    assert written[0] == written[1]
    bom = json.loads(written[0])
    assert (bom["bomFormat"], bom["metadata"]["component"]["name"]) == ("CycloneDX", "ntpaudit")
    assert [f"{part['name']}=={part['version']}" for part in bom["components"]] == LOCK
    hashes = re.findall("sha256:([0-9a-f]{64})", (REPOSITORY / "packaging/requirements.txt").read_text())
    assert sorted(one["content"] for part in bom["components"] for one in part["hashes"]) == sorted(hashes)
    assert [part["name"] for part in bom["components"] if part["scope"] == "excluded"] == ["setuptools"]
    (program,) = (entry for entry in bom["dependencies"] if entry["ref"] == "ntpaudit")
    assert len(program["dependsOn"]) == len(LOCK) - 1


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is set up on the machine that fetches them."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=False, capture_output=True, text=True)
    names = [name for name in tracked.stdout.split("\0") if name] or ["Makefile", "pyproject.toml"]
    hosts = [
        f"{first}.{last}" for first, last in (("pypi", "org"), ("files.pythonhosted", "org"), ("registry.npmjs", "org"))
    ]
    for name in names:
        path = REPOSITORY / name
        if path.is_file():
            text = path.read_bytes()
            assert not [host for host in hosts if host.encode() in text], name
