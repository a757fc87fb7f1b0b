"""Ask whether Linux' audit system records changes of the time, where auditd is installed."""

import os

from ntpaudit.core.observation import Auditing

_PROGRAMS = ("usr/sbin/auditd", "sbin/auditd")
_AUDITCTL = ("/usr/sbin/auditctl", "/sbin/auditctl")
_PID_FILE = "run/auditd.pid"
_ENABLED = ("etc/systemd/system/multi-user.target.wants/auditd.service",)
_LOADED_AT_BOOT = "etc/audit/audit.rules"
_WITHIN_S = 2.0
_MAX_RULES = 4 << 20
_AS_ROOT = "run `sudo ntpaudit check`"
_START = "run `sudo systemctl enable --now auditd`"


def read_auditing(root: str = "/") -> Auditing | None:
    """Return the state of the audit system; None where auditd is not installed under `root`."""
    if not any(os.path.exists(os.path.join(root, path)) for path in _PROGRAMS):
        return None
    if os.geteuid() == 0:
        return _as_root(root)
    if not _runs(root) and any(os.path.lexists(os.path.join(root, path)) for path in _ENABLED):
        return Auditing("off", None, "auditd is enabled and does not run", _START)
    return Auditing("unknown", None, "only root can read the audit rules", _AS_ROOT)


def _as_root(root: str) -> Auditing:
    """Ask the kernel, by auditctl; where it does not answer, read which rules a boot loads."""
    from ntpaudit.core.audit_rules import missing_rules, read_rules  # an ordinary check does without

    machine = os.uname().machine
    try:
        status, rules = _auditctl("-s"), _auditctl("-l")
    except OSError as error:
        why = f"auditctl does not answer: {error.strerror or error}"
        try:
            with open(os.path.join(root, _LOADED_AT_BOOT), encoding="utf-8", errors="replace") as file:
                missing = missing_rules(read_rules(file.read(_MAX_RULES).split("\n")), machine)
        except OSError:
            return Auditing("unknown", None, why, _AS_ROOT)
        return Auditing("unknown", missing, f"{why}; the rules are those of /{_LOADED_AT_BOOT}", _AS_ROOT)
    missing = missing_rules(read_rules(rules.split("\n")), machine)
    return _state(status)._replace(missing=missing)


def _state(status: str) -> Auditing:
    """Return whether auditing is on, by the output of `auditctl -s`."""
    fields = dict(words[:2] for line in status.splitlines() if len(words := line.split()) > 1)
    if fields.get("enabled") == "0":
        return Auditing("off", None, "the kernel does not audit (audit_enabled is 0)", _START)
    if fields.get("pid") == "0":
        return Auditing("off", None, "no program records what the kernel audits", _START)
    if fields.get("enabled") not in ("1", "2"):
        return Auditing("unknown", None, "the output of `auditctl -s` is not understood", _AS_ROOT)
    return Auditing("on")


def _auditctl(option: str) -> str:
    """Return the output of auditctl. OSError if it fails, is not there or does not end in time."""
    import subprocess

    program = next((path for path in _AUDITCTL if os.path.exists(path)), _AUDITCTL[0])
    try:
        done = subprocess.run(
            [program, option], capture_output=True, stdin=subprocess.DEVNULL, timeout=_WITHIN_S, check=False, env={}
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"it did not end within {_WITHIN_S:g} s") from error
    if done.returncode:
        raise OSError(done.stderr.decode("utf-8", "replace").strip()[:200] or f"status {done.returncode}")
    return done.stdout[:_MAX_RULES].decode("utf-8", "replace")


def _runs(root: str) -> bool:
    try:
        with open(os.path.join(root, _PID_FILE), encoding="ascii") as file:
            pid = int(file.read(20))
        with open(os.path.join(root, f"proc/{pid}/comm"), encoding="utf-8", errors="replace") as file:
            return file.read() == "auditd\n"
    except (OSError, ValueError):
        return False
