"""What is installed, and how it is told to systemd, without a machine to boot."""

import os
import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

from tests.world.packages import REPOSITORY

UNITS = REPOSITORY / "systemd"


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


def test_make_install_twice_and_uninstall(tmp_path: Path) -> None:
    """It installs below DESTDIR, again over itself, for a place of its own; and takes away what it brought."""
    where = [f"DESTDIR={tmp_path}", "PREFIX=/srv/audit"]
    assert "nothing was started" in make("install", *where)
    assert "nothing was started" in make("install", *where)
    assert os.readlink(tmp_path / "usr/local/bin/ntpaudit") == "/srv/audit/bin/ntpaudit"
    for name in ("ntpaudit", "ntpaudit-kernel"):
        assert (tmp_path / "srv/audit/bin" / name).read_text().startswith("#!/srv/audit/bin/python3")
    unit = (tmp_path / "usr/lib/systemd/system/ntpaudit.service").read_text()
    assert "ExecStart=/srv/audit/bin/ntpaudit agent" in unit
    assert "/opt/" not in unit
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]
    assert "history" in make("uninstall", *where)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == set()
