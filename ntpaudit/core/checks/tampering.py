"""Findings about changes of what decides the host's time, and about their traces."""

import re
from collections.abc import Iterable, Sequence

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.controls import (
    ATTACK_IMPAIR,
    CIS_AUDIT,
    ITM_AUDIT_CLOCK,
    ITM_AUDIT_ZONE,
    ITM_TIME_LINUX,
    PCI_CHANGES,
    PCI_REVIEWS,
)
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.time_config import ACTIVE, LISTED_NS, ConfigChange
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc, joined, plural

START_AUDITD = (
    "run `sudo systemctl enable --now auditd`, and `sudo auditctl -e 1` if `sudo auditctl -s` shows that enabled is 0"
)
_FIX_RESTORED = (
    "there is nothing to restore; match the changes to a change ticket; if they were not planned, review who made them "
    "(with auditd: `sudo ausearch -f FILE`)"
)
_FIX_EXCHANGED = (
    "match the change to a change ticket or an installed package; if it was not planned, remove the package of the new "
    "time daemon or stop it, and run `systemctl enable --now UNIT` with the UNIT that was active before (if it is "
    "masked, `systemctl unmask UNIT` first); find out who made it (`journalctl`, the log of the package manager)"
)
_MAX_NAMED = 4  # changes that a message describes,
_MAX_LISTED = 12  # and further ones of which it gives the path
_OF_CONTENT = ("added", "removed", "content", "value")
_LISTED = format_duration(LISTED_NS / NS_PER_S)


def check_time_config_changed(context: AuditContext) -> Raised | None:
    """NTPA-12: a file or a service that decides the host's time has changed."""
    changes = context.earlier.config_changes
    if not changes:
        return None
    numbers = {"changed_settings": len({one.path for one in changes})}
    return Raised("medium", describe_changes(changes), remedy=fix_of_changes(changes), numbers=numbers)


def describe_changes(changes: Sequence[ConfigChange]) -> str:
    """Name each changed file or service, the newest first: what changed, and when that was first seen."""
    by_path = _by_path(changes)
    named, others = [_describe(one) for one in list(by_path.values())[:_MAX_NAMED]], list(by_path)[_MAX_NAMED:]
    more = f"; and {plural(len(others), 'other')}: {', '.join(others[:_MAX_LISTED])}" if others else ""
    if len(others) > _MAX_LISTED:
        more += f" and {len(others) - _MAX_LISTED} more, all in `sudo ntpaudit history --events --format json`"
    return f"the time configuration has changed: {'; '.join(named)}{more}"


def fix_of_changes(changes: Sequence[ConfigChange]) -> str | None:
    """Return the fix if it is not the rule's: where all is restored, or another time daemon is active."""
    standing = [path for path, group in _by_path(changes).items() if _standing(group)]
    if not standing:
        return _FIX_RESTORED
    return _FIX_EXCHANGED if ACTIVE in standing else None


def _by_path(changes: Sequence[ConfigChange]) -> dict[str, list[ConfigChange]]:
    """Group changes by their path, the newest first."""
    by_path: dict[str, list[ConfigChange]] = {}
    for change in reversed(changes):
        by_path.setdefault(change.path, []).append(change)
    return by_path


def _standing(changes: Sequence[ConfigChange]) -> list[ConfigChange]:
    """Return the last change of each aspect of one path that is not undone; they are given newest first."""
    of_aspect: dict[str, list[ConfigChange]] = {}
    for change in changes:
        of_aspect.setdefault("content" if change.what in _OF_CONTENT else change.what, []).append(change)
    return [group[0] for group in of_aspect.values() if len(group) == 1 or group[0].after != group[-1].before]


def _describe(changes: Sequence[ConfigChange]) -> str:
    """Describe the changes of one path, newest first: those that were seen last, together, or that all are undone."""
    standing = _standing(changes)
    path, newest = changes[0].path, max(standing or changes, key=lambda one: one.boottime_ns)
    if not standing:
        return f"{path} (restored to the earlier state; changed {_moment(changes[-1])}, restored {_moment(newest)})"
    now = sorted((one for one in standing if one.boottime_ns == newest.boottime_ns), key=lambda one: one.what)
    seen = f"first seen {_moment(changes[-1])}"
    if changes[-1].boottime_ns != newest.boottime_ns:
        seen += f", last changed {_moment(newest)}"
    return f"{path} ({', '.join(map(_difference, now))}; {seen})"


def _moment(change: ConfigChange) -> str:
    """Return when a change was first seen."""
    when = format_utc(change.host_ns if change.utc_ns is None else change.utc_ns)[:19]
    return f"{when}Z by the host's clock" if change.utc_ns is None else f"{when}Z"


def _difference(change: ConfigChange) -> str:
    match change.what:
        case "added" | "removed" | "content":
            return change.what
        case "value" if change.path == ACTIVE:
            return f"{change.before} was active, {change.after} is"
        case "value":
            return f"was {change.before}, is {change.after}"
    return f"{change.what} was {change.before}, is {change.after}"


TIME_CONFIG_CHANGED = Rule(
    "time-config-changed",
    check_time_config_changed,
    "match the change to a change ticket or a package upgrade; `sudo ntpaudit history --events --format json` has the "
    "SHA-256 before and after; if it was not planned, find out who made it (with auditd: `sudo ausearch -f FILE`), "
    "restore the file (remove one that was added), or the service with `systemctl unmask` and `systemctl enable "
    "--now`, and restart the time daemon",
    (PCI_REVIEWS, CIS_AUDIT),
    raised_when={
        "medium": "a file of a time daemon that runs or is installed (configuration, keys, options, service, drop-ins) "
        "has other content, another mode, owner or group than before, or was added or removed; the time zone of "
        "/etc/localtime has changed, or UTC or LOCAL in /etc/adjtime; the service of a time daemon was enabled, "
        "disabled, masked or unmasked; or the daemon of another service disciplines the clock"
    },
    meaning="The host may follow other servers or none, or log in another time zone: by mistake or by an attacker.",
    formula={"medium": "changed_settings >= 1"},
    techniques=(ITM_TIME_LINUX, ITM_AUDIT_ZONE),
    case_remedies={
        "all is restored to the earlier state": _FIX_RESTORED,
        "the daemon of another service disciplines the clock": _FIX_EXCHANGED,
    },
    notes=(
        "The first audit takes the present state as the reference. Each change is an event, also one that restores the "
        f"earlier state; the finding lists the changes of the last {_LISTED}, so that the next shift sees them, also "
        "of what was restored since: the latest change of each file or service. Files are compared at each audit. "
        "Services are read at each network audit and every 5 minutes: a change of one is detected up to 5 "
        "minutes later, and a shorter one not at all. A "
        "package upgrade that changes a file is a change too. A file that the agent may not read, such as a file of "
        "keys, is compared by size, time of change, mode and owner. Drift files, NTS cookies and the numbers in "
        "/etc/adjtime are not compared: daemons change them. As a service, the agent sees 65534 for every owner and "
        "group but root, so it cannot detect a change from one of these to another."
    ),
    cleared=f"{_LISTED} after the latest change, also where the earlier state is restored",
    message_id="57fb9e9c45f647a3960a04fed1ca1f89",
    basis="moment",
    has_own_events=True,
    needs_agent=True,
)


def check_audit_blind(context: AuditContext) -> Raised | None:
    """NTPA-13: auditd is installed, and a change of the time would leave no audit record."""
    auditing = context.observation.auditing
    if auditing is None or context.observation.host.container is not None:
        return None  # a container has the audit system of its host
    if auditing.state == "off":
        return Raised("medium", f"auditing is off: {auditing.reason}", remedy=START_AUDITD, numbers={"auditing": 0})
    if not auditing.missing:
        return None
    message = f"no audit rule records {_unrecorded(auditing.missing)}"
    return Raised("medium", message, numbers={"missing_rules": len(auditing.missing)})


def _unrecorded(missing: Iterable[str]) -> str:
    """Name what is not recorded, by the missing rules."""
    named = []
    for line in missing:
        calls = re.search(r"-F arch=b(\d\d) -S (\S+)", line)
        named.append(
            f"{joined(calls[2].split(','))} of {calls[1]}-bit programs" if calls else "changes of /etc/localtime"
        )
    return "; ".join(named)


AUDIT_BLIND = Rule(
    "audit-blind",
    check_audit_blind,
    "add the missing rules to /etc/audit/rules.d/50-time-change.rules and run `sudo augenrules --load`; `sudo ntpaudit "
    "check --format json` lists them (`audit.missing`); if a time daemon makes too many records, exclude its user by a "
    "rule with `never`, not the calls",
    (CIS_AUDIT, PCI_CHANGES),
    raised_when={
        "medium": (
            "auditd is installed, and a rule is missing of those of the CIS benchmarks: adjtimex, settimeofday and "
            "clock_settime for programs of 64 and of 32 bits, and changes of /etc/localtime",
            "auditd is installed, and the kernel does not audit or no program records it; or auditd is enabled and "
            "does not run",
        )
    },
    meaning="A changed clock leaves no record of who changed it.",
    formula={"medium": ("missing_rules >= 1", "auditing < 1")},
    techniques=(ITM_AUDIT_CLOCK, ITM_AUDIT_ZONE, ATTACK_IMPAIR),
    notes=(
        "Only root can read the rules, so only `sudo ntpaudit check` finds that one is missing. The agent detects that "
        "auditd is enabled and does not run; its records show why the rest is unknown (`audit`). A host without auditd "
        "has no such finding, nor has a container. A rule with further fields, such as auid>=1000, does not count, "
        "because it records only some changes; `-F a0=0x0` and `-F success=1` exclude no change. A rule with `never` "
        "may have further fields, such as uid=_chrony: these calls are known."
    ),
    case_remedies={"auditing is off": START_AUDITD},
    message_id="e7b7eaae57174dfbb6eaded5393d190c",
    basis="host",
    least_s=600.0,
)

RULES = (TIME_CONFIG_CHANGED, AUDIT_BLIND)
