"""The causes of steps and suspends, by the logs that this user can read: the journal and the log of auditd."""

import os
from collections.abc import Iterable, Sequence

from ntpaudit.core.attribution import CLOCKSOURCE, LogLine, Moment
from ntpaudit.core.clock.steps import Step, StepCause
from ntpaudit.core.clock_changes import ClockChange, explain, step_cause
from ntpaudit.core.journal_steps import NearLines
from ntpaudit.core.observation import HiddenDaemons, HostContext, Unavailable
from ntpaudit.core.units import NS_PER_S
from ntpaudit.errors import JournalError
from ntpaudit.probes.audit_log import AUDIT_LOG, read_audit_log
from ntpaudit.probes.daemons import log_files
from ntpaudit.probes.daemons.process import time_processes
from ntpaudit.probes.journal import OWN_ONLY_REMEDY, Journal, JournalSource

_LOGGING = ("chronyd", "ntpd", "ntpd-rs", "openntpd", "phc2sys", "ptp4l", "timemaster", "VBoxService")
"""Time daemons that log each step, or start one that does."""

_GUEST_AGENTS = ("qemu-ga",)
"""They set the clock when the hypervisor asks for it, and are no time daemons (qmp_guest_set_time of QEMU)."""

_OWN = JournalSource()
_SYNCHRONIZED = "/run/systemd/timesync/synchronized"
_WITHIN_S = 5.0  # for the journal, and for the log of auditd: the agent waits for both; its watchdog allows more
_BEFORE_S = 60  # the journal is read from this long before a step


def find_causes(
    changes: Sequence[ClockChange], journal: str | None = None, audit_log: str | None = None
) -> tuple[list[ClockChange], list[Unavailable]]:
    """Return the changes with their causes, and the logs that could not be searched. None: the host's own logs."""
    unread: list[Unavailable] = []
    lines = _journal_lines([change.moment for change in changes], Journal(JournalSource(journal)), unread)
    audits = read_audit_log(audit_log or AUDIT_LOG)
    if isinstance(audits, Unavailable):
        unread.append(audits)
        audits = []
    return explain(changes, lines, audits), unread


def causes_of_steps(
    steps: Sequence[Step], context: HostContext, journal: JournalSource = _OWN, audit_log: str = AUDIT_LOG
) -> tuple[StepCause, ...]:
    """Return what the logs that the agent can read name as the causes of steps, and why they may name none."""
    boot_id = (context.host.boot_id or "").replace("-", "")
    moments = [
        Moment(boot_id, (step.since_ns or 0) // 1000, (step.monotonic_ns or 0) // 1000, step.size_ns // 1000)
        for step in steps
    ]
    since_s = 0
    if not any(step.is_gap for step in steps):
        since_s = max(0, min(min(step.before_ns, step.after_ns) for step in steps) // NS_PER_S - _BEFORE_S)
        journal = journal._replace(since_s=since_s)
    unreadable: list[Unavailable] = []
    reader = Journal(journal, _WITHIN_S)
    lines = _journal_lines(moments, reader, unreadable)
    try:
        audits = read_audit_log(audit_log, since_s, _WITHIN_S)
    except TimeoutError:
        unreadable.append(Unavailable(f"reading {audit_log} took more than {_WITHIN_S:.0f} s"))
        audits = []
    host_lines = [*([] if isinstance(audits, Unavailable) else audits), *_timesyncd()]
    unread_of_all = _reason(unreadable) or _unlogged(context)
    found = []
    for step, moment in zip(steps, moments, strict=True):
        unread = unread_of_all or _deleted(step, moment, reader)
        cause = step_cause(moment, step.before_ns, step.after_ns, lines, host_lines)
        found.append(
            StepCause(step.boottime_ns, cause.name, cause.by_person)
            if cause is not None and cause.name != CLOCKSOURCE
            else StepCause(step.boottime_ns, None, unread=unread)
        )
    return tuple(found)


def _unlogged(context: HostContext) -> str | None:
    """Return why something may set this host's clock without a line in a log of this host."""
    if context.host.container is not None:
        return "the host of this container sets the clock"
    if isinstance(context.daemons, HiddenDaemons):
        return f"time daemons may be hidden ({context.daemons.reason})"
    # pid 0 is the kernel: hv_utils disciplines nothing, and sets the clock when the machine resumes
    able = [daemon for daemon in context.known_daemons if daemon.disciplines is not False or daemon.pid == 0]
    silent = [daemon.name for daemon in able if daemon.name not in _LOGGING]
    silent += [name for name, process in time_processes(_GUEST_AGENTS)[0] if process.can_set_clock is not False]
    if silent:
        return f"{silent[0]} may set the clock and does not log it"
    return next((f"{daemon.name} logs to {path}" for daemon, path in log_files(able)), None)


def _reason(unreadable: Sequence[Unavailable]) -> str | None:
    if not unreadable:
        return None
    if unreadable[0].remedy == OWN_ONLY_REMEDY:
        return "the agent may not read the journal: add SupplementaryGroups=systemd-journal to its unit"
    return unreadable[0].reason


def _timesyncd() -> list[LogLine]:
    """Return when systemd-timesyncd last set or adjusted the clock, by the file that it touches then."""
    try:
        changed_us = os.stat(_SYNCHRONIZED).st_mtime_ns // 1000
    except OSError:
        return []
    return [LogLine("", 0, changed_us, "systemd-timesyncd", "synchronized")]


def _deleted(step: Step, moment: Moment, reader: Journal) -> str | None:
    """Return why the journal may have had a line about a step while no agent was running: its first ones are gone."""
    begins_us = reader.begins_us.get(moment.boot_id)
    is_whole = not step.is_gap or (begins_us is not None and begins_us <= moment.from_us)
    return None if is_whole else "the journal of the time without an agent is not complete"


def _journal_lines(moments: Iterable[Moment], reader: Journal, unread: list[Unavailable]) -> list[LogLine]:
    near, lines = NearLines(moments), list[LogLine]()
    try:
        for line in reader.lines(near.boot_ids):
            if near.has(line.boot_id, line.monotonic_us):
                lines.append(line)
    except JournalError as error:
        unread.append(Unavailable(error.reason, error.remedy or None))
    if reader.is_own_only:
        unread.append(Unavailable("only your own messages of the journal can be read", OWN_ONLY_REMEDY))
    unread += [Unavailable(f"journalctl: {note}") for note in reader.notes]
    return lines
