"""Whether the audit system records changes of the time: with the real auditctl, and hosts without it."""

import os
import subprocess
from pathlib import Path

import pytest

from ntpaudit.core.audit_rules import missing_rules, read_rules
from ntpaudit.core.observation import Auditing
from ntpaudit.probes import auditd
from ntpaudit.probes.auditd import read_auditing
from tests.core.test_audit_rules import CIS
from tests.world.packages import environment, program

AS_ROOT = "run `sudo ntpaudit check`"


def installed(root: Path) -> Path:
    """Install a program called auditd under a root."""
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/sbin/auditd").touch()
    return root


def script(folder: Path, text: str) -> str:
    """Write a program that stands in for auditctl where the real one cannot give this answer."""
    file = folder / "auditctl"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_a_host_without_auditd_has_no_state(tmp_path: Path) -> None:
    """An ordinary host: nothing is expected, nothing is asked."""
    assert read_auditing(str(tmp_path)) is None


def test_an_ordinary_user_cannot_read_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a value with a remedy; that auditd is enabled and does not run can be seen."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    root = installed(tmp_path)
    unknown = Auditing("unknown", None, "only root can read the audit rules", AS_ROOT)
    assert read_auditing(str(root)) == unknown
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True)
    (wanted / "auditd.service").symlink_to("/usr/lib/systemd/system/auditd.service")
    stopped = read_auditing(str(root))
    assert stopped is not None
    assert (stopped.state, stopped.reason) == ("off", "auditd is enabled and does not run")
    (root / "run").mkdir()
    for pid in ("", "x", str(2**70), "40"):
        (root / "run/auditd.pid").write_text(f"{pid}\n")
        assert read_auditing(str(root)) == stopped
    (root / "proc/40").mkdir(parents=True)
    (root / "proc/40/comm").write_text("auditd\n")
    assert read_auditing(str(root)) == unknown


@pytest.mark.needs("root", "auditctl")
def test_the_kernel_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the real auditctl reports of this kernel, is reported; where it is refused, so is the reason."""
    real = program("auditctl")
    libraries = environment()["LD_LIBRARY_PATH"]
    path = script(tmp_path, f'LD_LIBRARY_PATH="{libraries}" exec {real} "$@"')
    monkeypatch.setattr(auditd, "_AUDITCTL", (path,))
    found = read_auditing(str(installed(tmp_path)))
    assert found is not None
    done = [subprocess.run([path, word], capture_output=True, text=True, check=False) for word in ("-s", "-l")]
    if any(one.returncode for one in done):
        assert (found.state, found.missing) == ("unknown", None)
        assert (found.reason or "").startswith("auditctl does not answer: ")
        return
    status = dict(line.split(maxsplit=1) for line in done[0].stdout.splitlines())
    assert found.state == ("on" if status["enabled"] != "0" and status["pid"] != "0" else "off")
    assert found.missing == missing_rules(read_rules(done[1].stdout.split("\n")), os.uname().machine)


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("enabled 1\npid 512", "on"),
        ("enabled 2\nfailure 1\npid 512", "on"),
        ("enabled 0\npid 512", "off"),
        ("enabled 1\npid 0", "off"),
        ("", "unknown"),
        ("AUDIT_STATUS: enabled=1 flag=1 pid=512", "unknown"),
    ],
)
def test_the_state_of_auditing(status: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on only if the kernel audits and a program records it; an output of another form is not understood."""
    text = f"if [ $1 = -s ]; then printf '%s' '{status}'; else printf '%s' '{CIS}'; fi"
    monkeypatch.setattr(auditd, "_AUDITCTL", (script(tmp_path, text),))
    found = read_auditing(str(installed(tmp_path)))
    assert found is not None
    assert (found.state, found.missing) == (state, ())
    assert (found.reason is None) is (state == "on")


@pytest.mark.needs("root")
@pytest.mark.parametrize("text", ["echo 'You must be root' >&2; exit 4", "exit 1", "exec sleep 60"])
def test_an_auditctl_that_fails_leaves_the_files(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails in a container, for example; the file that a boot loads is then read, if it can be."""
    monkeypatch.setattr(auditd, "_WITHIN_S", 0.2)
    monkeypatch.setattr(auditd, "_AUDITCTL", (script(tmp_path, text),))
    root = installed(tmp_path)
    unknown = read_auditing(str(root))
    assert unknown is not None
    assert (unknown.state, unknown.missing) == ("unknown", None)
    rules = root / "etc/audit/audit.rules"
    rules.parent.mkdir(parents=True)
    rules.write_text(CIS.partition("\n")[2])
    by_file = read_auditing(str(root))
    assert by_file is not None
    assert (by_file.state, len(by_file.missing or ())) == ("unknown", 1)
    assert (by_file.reason or "").endswith("the rules are those of /etc/audit/audit.rules")
