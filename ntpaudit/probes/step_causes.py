"""The causes of steps and suspends, by the logs that this user can read: the journal and the log of auditd."""

from collections.abc import Sequence

from ntpaudit.core.attribution import LogLine
from ntpaudit.core.clock_changes import ClockChange, explain
from ntpaudit.core.journal_steps import NearLines
from ntpaudit.core.observation import Unavailable
from ntpaudit.errors import JournalError
from ntpaudit.probes.audit_log import AUDIT_LOG, read_audit_log
from ntpaudit.probes.journal import OWN_ONLY_REMEDY, Journal, JournalSource


def find_causes(
    changes: Sequence[ClockChange], journal: str | None = None, audit_log: str | None = None
) -> tuple[list[ClockChange], list[Unavailable]]:
    """Return the changes with their causes, and the logs that could not be searched. None: the host's own logs."""
    unread: list[Unavailable] = []
    lines = _journal_lines(changes, JournalSource(journal), unread)
    audits = read_audit_log(audit_log or AUDIT_LOG)
    if isinstance(audits, Unavailable):
        unread.append(audits)
        audits = []
    return explain(changes, lines, audits), unread


def _journal_lines(changes: Sequence[ClockChange], source: JournalSource, unread: list[Unavailable]) -> list[LogLine]:
    near, reader, lines = NearLines(change.moment for change in changes), Journal(source), list[LogLine]()
    try:
        lines = [line for line in reader.lines(near.boot_ids) if near.has(line.boot_id, line.monotonic_us)]
    except JournalError as error:
        unread.append(Unavailable(error.reason, error.remedy or None))
    if reader.is_own_only:
        unread.append(Unavailable("only your own messages of the journal can be read", OWN_ONLY_REMEDY))
    unread += [Unavailable(f"journalctl: {note}") for note in reader.notes]
    return lines
