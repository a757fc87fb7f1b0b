"""Findings about changes of what decides the host's time, and about their traces."""

from collections.abc import Sequence

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.controls import CIS_AUDIT, ITM_AUDIT_ZONE, ITM_TIME_LINUX, PCI_REVIEWS
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.time_config import LISTED_NS, ConfigChange
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc, plural

_MAX_NAMED = 4
_LISTED = format_duration(LISTED_NS / NS_PER_S)


def check_time_config_changed(context: AuditContext) -> Raised | None:
    """NTPA-12: a file or a service that decides the host's time has changed."""
    changes = context.earlier.config_changes
    if not changes:
        return None
    return Raised("medium", describe_changes(changes), numbers={"changed_settings": len({one.path for one in changes})})


def describe_changes(changes: Sequence[ConfigChange]) -> str:
    """Name each changed file or service, the newest first: what changed, and when that was first seen."""
    by_path: dict[str, list[ConfigChange]] = {}
    for change in reversed(changes):
        by_path.setdefault(change.path, []).append(change)
    named = [_describe(one) for one in list(by_path.values())[:_MAX_NAMED]]
    others = len(by_path) - len(named)
    more = f"; and {plural(others, 'other')}" if others else ""
    return f"the time configuration has changed: {'; '.join(named)}{more}"


def _describe(changes: Sequence[ConfigChange]) -> str:
    """Describe the changes of one path that were seen last, together."""
    newest = changes[0]
    now = sorted((one for one in changes if one.boottime_ns == newest.boottime_ns), key=lambda one: one.what)
    what = ", ".join(_difference(one) for one in now)
    when = format_utc(newest.host_ns if newest.utc_ns is None else newest.utc_ns)[:19]
    clock = "Z by the host's clock" if newest.utc_ns is None else "Z"
    return f"{newest.path} ({what}; first seen {when}{clock})"


def _difference(change: ConfigChange) -> str:
    match change.what:
        case "added" | "removed" | "content":
            return change.what
        case "value":
            return f"was {change.before}, is {change.after}"
    return f"{change.what} was {change.before}, is {change.after}"


TIME_CONFIG_CHANGED = Rule(
    "time-config-changed",
    check_time_config_changed,
    "match the change to a change ticket or a package upgrade; `sudo ntpaudit history --events --format json` has the "
    "SHA-256 before and after; if it was not planned, find out who made it (`sudo ausearch -f FILE`), restore the "
    "file, and restart the time daemon",
    (PCI_REVIEWS, CIS_AUDIT),
    raised_when={
        "medium": "a file of a time daemon that runs or is installed (configuration, keys, options, service, drop-ins) "
        "has other content, another mode, owner or group than before, or was added or removed; the time zone of "
        "/etc/localtime has changed, or UTC or LOCAL in /etc/adjtime; or the service of a time daemon was enabled, "
        "disabled, masked or unmasked"
    },
    meaning="The host may follow other servers or none, or log in another time zone: by mistake or by an attacker.",
    formula={"medium": "changed_settings >= 1"},
    techniques=(ITM_TIME_LINUX, ITM_AUDIT_ZONE),
    notes=(
        "The first audit takes the present state as the reference. Each change is an event, also one that restores the "
        f"earlier state; the finding lists the changes of the last {_LISTED}, so that the next shift sees them. A "
        "package upgrade that changes a file is a change too. A file that the agent may not read, such as a file of "
        "keys, is compared by size, time of change, mode and owner. Drift files, NTS cookies and the numbers in "
        "/etc/adjtime are not compared: daemons change them. As a service, the agent sees 65534 for every owner and "
        "group but root, so it cannot detect a change from one of these to another."
    ),
    message_id="57fb9e9c45f647a3960a04fed1ca1f89",
    basis="moment",
    has_own_events=True,
    needs_agent=True,
)

RULES = (TIME_CONFIG_CHANGED,)
