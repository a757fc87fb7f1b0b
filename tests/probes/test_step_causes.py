"""The cause of a step by the logs that an agent can read: real journal files and audit logs, and none."""

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ntpaudit.core.clock.steps import Step, StepCause
from ntpaudit.core.observation import Daemon, HiddenDaemons, HostContext
from ntpaudit.probes import step_causes
from ntpaudit.probes.audit_log import read_audit_log
from ntpaudit.probes.journal import JournalSource
from ntpaudit.probes.step_causes import causes_of_steps
from tests.abilities import ANOTHER_USER
from tests.core.worlds import CHRONYD, HOST
from tests.waiting import until
from tests.world.another_user import let_others_in
from tests.world.followers import POWERLESS
from tests.world.journals import BEGIN_US, WEB_BOOT, Entry, S, write_journal

AT_US = 5000 * S
SIZE_US = -2_500_000
UPTIME_NS = 9_000_000_000_000  # suspended for more than an hour before
STEP = Step(
    SIZE_US * 1000,
    (BEGIN_US + AT_US) * 1000,
    (BEGIN_US + AT_US + SIZE_US) * 1000,
    UPTIME_NS,
    since_ns=AT_US * 1000,
    monotonic_ns=AT_US * 1000,
)
CONTEXT = HostContext(HOST._replace(boot_id="-".join(("a" * 8, "a" * 4, "a" * 4, "a" * 4, "a" * 12))), (CHRONYD,))
STEPPED = Entry(AT_US + S, BEGIN_US + SIZE_US, "chronyd", "System clock was stepped by -2.500000 seconds")
HV_UTILS = Daemon("hv_utils", 0, disciplines=False, reason="sets the clock only when the virtual machine resumes")
KERNEL = Entry(AT_US - S, BEGIN_US, "kernel", "a message")
DATE = 'arch=c000003e syscall=227 success=yes auid=1000 uid=0 exe="/usr/bin/date"'


def causes(folder: Path, context: HostContext = CONTEXT, step: Step = STEP) -> StepCause:
    """Return the cause by the journal and the audit log of a folder."""
    (cause,) = causes_of_steps([step], context, JournalSource(str(folder)), str(folder / "audit.log"))
    assert cause.boottime_ns == UPTIME_NS
    return cause


@pytest.mark.needs("systemd-journal-remote")
def test_a_daemon_reports_its_step(tmp_path: Path) -> None:
    """Its line is found by the boot's own clock, although the host's time was set back before it."""
    write_journal(tmp_path, [KERNEL, STEPPED])
    assert causes(tmp_path) == StepCause(UPTIME_NS, "chronyd")


@pytest.mark.needs("systemd-journal-remote")
def test_no_line(tmp_path: Path) -> None:
    """A journal that can be read, with a daemon that logs its steps: a line of a later step, and a sign only."""
    unstable = KERNEL._replace(text="clocksource: Marking clocksource 'tsc' as unstable")
    write_journal(tmp_path, [unstable, STEPPED._replace(monotonic_us=AT_US + 20 * S)])
    assert causes(tmp_path) == StepCause(UPTIME_NS, None)


@pytest.mark.needs("systemd-journal-remote")
def test_a_person(tmp_path: Path) -> None:
    """The audit log has the program and the login."""
    write_journal(tmp_path, [KERNEL])
    stamp = f"audit({(BEGIN_US + AT_US) // S}.000:7)"
    (tmp_path / "audit.log").write_text(f"type=SYSCALL msg={stamp}: {DATE}\n")
    assert causes(tmp_path) == StepCause(UPTIME_NS, "/usr/bin/date (login uid 1000)", by_person=True)


@pytest.mark.needs("systemd-journal-remote")
def test_while_no_agent_ran(tmp_path: Path) -> None:
    """The step was at an unknown moment since the last reading: the whole time is searched."""
    write_journal(tmp_path, [KERNEL, STEPPED._replace(monotonic_us=AT_US - 3000 * S)])
    gap = STEP._replace(is_gap=True, since_ns=(AT_US - 4000 * S) * 1000)
    assert causes(tmp_path, step=gap).name == "chronyd"
    assert causes(tmp_path).name is None


@pytest.mark.needs("systemd-journal-remote")
def test_a_journal_that_is_deleted_in_part(tmp_path: Path) -> None:
    """What a daemon logged while no agent ran is gone: only a journal of all of that time proves that there is none."""
    gap = STEP._replace(is_gap=True, since_ns=(AT_US - 4000 * S) * 1000)
    write_journal(tmp_path / "part", [KERNEL])
    assert "not complete" in (causes(tmp_path / "part", step=gap).unread or "")
    write_journal(tmp_path / "whole", [KERNEL._replace(monotonic_us=AT_US - 4001 * S), KERNEL])
    assert causes(tmp_path / "whole", step=gap) == StepCause(UPTIME_NS, None)


@pytest.mark.needs("systemd-journal-remote")
@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (CONTEXT._replace(host=CONTEXT.host._replace(container="lxc")), "the host of this container sets the clock"),
        (CONTEXT._replace(daemons=HiddenDaemons("hidepid")), "time daemons may be hidden (hidepid)"),
        (
            CONTEXT._replace(daemons=(CHRONYD, Daemon("vmtoolsd", 7, None))),
            "vmtoolsd may set the clock and does not log it",
        ),
        (CONTEXT._replace(daemons=(CHRONYD, HV_UTILS)), "hv_utils may set the clock and does not log it"),
    ],
)
def test_what_sets_a_clock_without_a_line(tmp_path: Path, context: HostContext, reason: str) -> None:
    """Then a missing line proves nothing; a line that is there counts."""
    write_journal(tmp_path / "silent", [KERNEL])
    assert causes(tmp_path / "silent", context) == StepCause(UPTIME_NS, None, unread=reason)
    write_journal(tmp_path / "named", [KERNEL, STEPPED])
    assert causes(tmp_path / "named", context) == StepCause(UPTIME_NS, "chronyd")


@pytest.mark.needs("systemd-journal-remote")
def test_a_program_that_cannot_set_the_clock(tmp_path: Path) -> None:
    """Anybody can start one called vmtoolsd: it excuses no step."""
    write_journal(tmp_path, [KERNEL])
    context = CONTEXT._replace(daemons=(CHRONYD, Daemon("vmtoolsd", 7, False, "cannot set the clock")))
    assert causes(tmp_path, context) == StepCause(UPTIME_NS, None)


def name_is(comm: Path, name: str) -> bool:
    """Whether a process has its name: setpriv starts under its own."""
    return comm.read_text() == name


@pytest.mark.needs("systemd-journal-remote", "set-clock")
def test_the_qemu_guest_agent(tmp_path: Path) -> None:
    """It sets the clock for the hypervisor without a line: a process of root, and not one that lacks CAP_SYS_TIME."""
    write_journal(tmp_path, [KERNEL])
    agent = tmp_path / "qemu-ga"
    shutil.copy("/bin/sleep", agent)
    for before, unread in (((), "qemu-ga may set the clock and does not log it"), (POWERLESS, None)):
        with subprocess.Popen([*before, str(agent), "60"]) as process:
            until(partial(name_is, Path(f"/proc/{process.pid}/comm"), "qemu-ga\n"))
            assert causes(tmp_path) == StepCause(UPTIME_NS, None, unread=unread)
            process.kill()


@pytest.mark.needs("systemd-journal-remote", "another-user")
def test_without_rights(tmp_path: Path) -> None:
    """The reason names the setting of the unit."""
    let_others_in(tmp_path)
    write_journal(tmp_path, [KERNEL, STEPPED]).chmod(0o600)
    os.seteuid(ANOTHER_USER)
    try:
        found = causes(tmp_path)
    finally:
        os.seteuid(0)
    assert found.name is None
    assert "SupplementaryGroups=systemd-journal" in (found.unread or "")


def test_without_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a journal nor journalctl: the reason is given."""
    assert "No such file" in (causes(tmp_path / "no").unread or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "journalctl" in (causes(tmp_path).unread or "")


def test_a_journal_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journalctl that writes nothing and does not end, as on a slow disk, does not stop the agent."""
    (tmp_path / "journalctl").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(step_causes, "_WITHIN_S", 0.2)
    assert causes(tmp_path).unread == "reading the journal took more than 0 s"


@pytest.mark.needs("systemd-journal-remote")
def test_an_audit_log_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause may stand where it was not read; what the journal names counts."""
    (tmp_path / "audit.log").write_text("type=LOGIN msg=audit(1.000:1): pid=1\n")
    monkeypatch.setattr(step_causes, "read_audit_log", lambda path, since_s, _: read_audit_log(path, since_s, 0.0))
    write_journal(tmp_path, [KERNEL])
    assert causes(tmp_path).unread == f"reading {tmp_path}/audit.log took more than 5 s"
    write_journal(tmp_path / "named", [KERNEL, STEPPED])
    shutil.copy(tmp_path / "audit.log", tmp_path / "named")
    assert causes(tmp_path / "named").name == "chronyd"


def test_the_same_boot_only() -> None:
    """The boot id of /proc is that of the journal, without hyphens."""
    assert (CONTEXT.host.boot_id or "").replace("-", "") == WEB_BOOT
