"""Findings about the time daemon, the kernel's clock, and the hardware clock."""

from ntpaudit.core.checks.context import AuditContext, SharedServers, estimate_s
from ntpaudit.core.checks.controls import (
    ASVS,
    AU8,
    CIS_DAEMON,
    FEDRAMP_COMPARE,
    FINRA,
    ISO,
    PCI,
    SC45,
    STIG_COMPARE,
    STIG_TIMESYNCD,
)
from ntpaudit.core.checks.offset import STOP_FIRST
from ntpaudit.core.checks.rule import Level, Raised, Rule
from ntpaudit.core.checks.sources import FIX_SPLIT
from ntpaudit.core.observation import Claim, Daemon, KernelState, Observation, Unavailable
from ntpaudit.core.units import DAY_S, NS_PER_S, direction, format_duration, joined

ZONE_STEP_S = 900  # time zones differ by multiples of 15 minutes
SYNC_GRACE_NS = 17 * 60 * NS_PER_S  # after a boot the time daemon may need this long to synchronise the clock (NTPA-05)
STALE_S = 3600.0  # a time daemon updates the kernel within an hour,
STALE_POLLS = 3  # or within this many of its longest polling intervals (NTPA-06)
VANISHED_S = 600.0  # where all processes are visible, nothing disciplines a kernel not updated for this long (R12)

_FIX_NO_DAEMON = (
    "start the time daemon that this host uses (`systemctl enable --now UNIT`; if UNIT is masked, `systemctl unmask "
    "UNIT` first), and find out why it does not run (`systemctl status UNIT`, `journalctl -u UNIT`; UNIT is chrony or "
    "chronyd, ntpsec or ntpd, or systemd-timesyncd)"
)
_FIX_HIDDEN_DAEMON = (
    "check as root whether a time daemon already runs (in the list of `ps -e`: chronyd, ntpd, ntp-daemon, "
    "systemd-timesyn, ptp4l or phc2sys); start one only if none runs"
)
_FIX_SERVES = (
    "let one time daemon discipline the clock: restart the one that runs without what the message names "
    "(`systemctl cat UNIT` shows its options), or start another one"
)
_FIX_UNUSED_REPLIES = (
    "find out why the time daemon does not use the replies of its servers (`journalctl -u UNIT`); check its keys or "
    "certificates, its source address (`bindacqaddress` in chrony.conf), what its service may do (`systemctl cat "
    "UNIT`), and firewall rules for its user or port"
)
_FIX_CONTAINER = (
    "the clock is that of this container's host: check there that a time daemon runs and is synchronised (`chronyc "
    "tracking`, `timedatectl timesync-status`); one in the container that does not discipline the clock needs no "
    "repair; if the host is in order, an [[accept]] table in the container's ntpaudit.toml accepts this finding until "
    "a time"
)
_FIX_RTC = "run `timedatectl set-local-rtc 0`"
_LEAP_UNSYNCHRONISED = 3  # the leap indicator of a daemon that is not synchronised (RFC 5905 §7.3)


def check_daemon_dead(context: AuditContext) -> Raised | None:
    """R12: the time daemon has stopped, and nothing else disciplines the clock.

    The kernel reports a synchronised clock for up to 8.9 h after that (A4). So the known daemon is gone, or all
    processes are visible and the kernel's maximum error, which a daemon had set, has only grown.
    """
    kernel, vanished, stale_s = context.observation.kernel, context.earlier.vanished, context.earlier.stale_s
    if context.observation.disciplining:
        return None
    if vanished is not None:
        message, serving = f"{vanished} has stopped, and no other time daemon was found", _not_disciplining(context)
        if serving:
            message = f"{vanished} no longer disciplines the clock, and no other time daemon does{serving}"
        remedy = _FIX_SERVES if serving else None
        numbers: dict[str, float] = {"time_daemons": 0, "stopped_time_daemons": 1}
        if isinstance(kernel, KernelState) and not kernel.is_synchronised:
            message += "; the kernel reports that its clock is not synchronised"
            return Raised("high", message, remedy=remedy, numbers={**numbers, "kernel_synchronised": 0})
        return Raised("medium", message, remedy=remedy, numbers=numbers)
    if _is_booting(context) or _hidden_daemons(context) is not None or context.observation.host.container is not None:
        return None  # a daemon outside this container may discipline the clock
    if isinstance(kernel, Unavailable) or not kernel.is_synchronised or stale_s is None or stale_s < VANISHED_S:
        return None
    ago = format_duration(stale_s, rounding="down")
    message = f"no time daemon runs, and the kernel clock was not updated for {ago}: nothing corrects it"
    return Raised("medium", message, numbers={"time_daemons": 0, "time_since_kernel_update_s": stale_s})


DAEMON_DEAD = Rule(
    "daemon-dead",
    check_daemon_dead,
    _FIX_NO_DAEMON,
    (ISO, PCI, AU8),
    raised_when={
        "high": "the last time daemon has stopped or only serves, and the kernel reports an unsynchronised clock "
        "(agent)",
        "medium": (
            "the last time daemon has stopped or only serves, although the kernel still reports a synchronised clock "
            "(agent)",
            "no time daemon was found (all processes are visible, the host is no container), and the kernel's maximum "
            "error has only grown for 20 minutes (agent)",
        ),
    },
    meaning="The clock was corrected until now, and drifts away from the true time.",
    formula={
        "high": "time_daemons < 1 and stopped_time_daemons > 0 and kernel_synchronised < 1",
        "medium": (
            "time_daemons < 1 and stopped_time_daemons > 0",
            "time_daemons < 1 and time_since_kernel_update_s >= 10 min",
        ),
    },
    case_remedies={"a time daemon runs and does not discipline the clock": _FIX_SERVES},
    message_id="6371878fa6834094ace1b9ede49d1aa6",
    basis="host",
    least_s=600.0,
    explains_shift=True,
    needs_agent=True,
)


def check_unsynced(context: AuditContext) -> Raised | None:
    """NTPA-05: the kernel reports an unsynchronised clock, and nothing contradicts it (A4, A5)."""
    kernel, daemons = context.observation.kernel, context.observation.disciplining
    if isinstance(kernel, Unavailable) or kernel.is_synchronised or _is_booting(context):
        return None
    if not all(daemon.clears_unsync or _is_unsynchronised(daemon) for daemon in daemons):
        return None  # A5
    summary = "the kernel reports that its clock is not synchronised"
    numbers = {"kernel_synchronised": 0}
    if not daemons and (hidden := _hidden_daemons(context)) is not None:
        message = f"{summary}; whether a time daemon disciplines it is unknown: {hidden}{_not_disciplining(context)}"
        remedy = _FIX_HIDDEN_DAEMON if context.observation.host.container is None else _FIX_CONTAINER
        return Raised("medium", message, remedy=remedy, numbers={**numbers, "all_daemons_visible": 0})
    vanished = context.earlier.vanished
    serving = "" if daemons else _not_disciplining(context)
    has_ended = "no longer does" if serving else "has stopped"
    cause = f"and {vanished}, which disciplined it, {has_ended}" if vanished else "and no time daemon disciplines it"
    if daemons:
        verb = "runs" if len(daemons) == 1 else "run"
        cause = f"although {joined([daemon.name for daemon in daemons])} {verb}"
    message = f"{summary}, {cause}{serving}: at 50 ppm it drifts by 1 s in 5.6 h{_reports(context)}"
    fix = _FIX_SERVES if serving else _fix_unused_replies(context)
    return Raised("high", message, remedy=fix, numbers=numbers)


UNSYNCED = Rule(
    "unsynced",
    check_unsynced,
    "run exactly one time daemon, and check that it reaches its servers on UDP 123",
    (ISO, PCI, AU8, SC45),
    raised_when={
        "high": (
            "the kernel reports that its clock is not synchronised (STA_UNSYNC, TIME_ERROR or a kernel maximum error "
            "of 16 s), chronyd does not discipline it or reports the same, and the host has been up for 17 minutes"
        ),
        "medium": "the same, if a time daemon may run that ntpaudit cannot see",
    },
    meaning="Nothing keeps the clock right, so it drifts away from the true time.",
    formula={
        "high": "kernel_synchronised < 1",
        "medium": "kernel_synchronised < 1 and all_daemons_visible < 1",
    },
    case_remedies={
        "the level is medium": _FIX_HIDDEN_DAEMON,
        "the level is medium, and this is a container": _FIX_CONTAINER,
        "a time daemon runs and does not discipline the clock": _FIX_SERVES,
        "servers of the time daemon reply to ntpaudit": _FIX_UNUSED_REPLIES,
        "servers of the time daemon reply to ntpaudit, and no majority agrees": FIX_SPLIT,
    },
    caused_by=(DAEMON_DEAD.id,),
    message_id="9a524159e9264fc9b92579cb3a737428",
    basis="host",
    least_s=600.0,
    explains_shift=True,
)


def check_daemon_count(context: AuditContext) -> Raised | None:
    """NTPA-17: no time daemon is set up for this clock, or several discipline it."""
    daemons, kernel = context.observation.disciplining, context.observation.kernel
    if len(daemons) > 1:
        names = ", ".join(daemon.label for daemon in daemons)
        message = f"several programs discipline this clock: {names}{_reports(context)}"
        return Raised("medium", message, numbers={"time_daemons": len(daemons)})
    if daemons or context.earlier.vanished or _is_booting(context) or _hidden_daemons(context) is not None:
        return None  # one that has stopped is `daemon-dead`
    if isinstance(kernel, KernelState) and kernel.is_synchronised:
        return None
    message = "no time daemon disciplines this clock: nothing corrects it"
    numbers = {"time_daemons": 0, "kernel_synchronised": 0}
    return Raised("medium", message, remedy=_FIX_NO_DAEMON, numbers=numbers)


DAEMON_COUNT = Rule(
    "daemon-count",
    check_daemon_count,
    "enable exactly one time daemon and mask the others",
    (CIS_DAEMON, STIG_TIMESYNCD),
    raised_when={
        "medium": (
            "more than one time daemon disciplines the clock",
            "no time daemon disciplines the clock (all processes are visible), the kernel reports no "
            "synchronised clock or cannot be read, and the host has been up for 17 minutes",
        )
    },
    meaning="No program is set up to correct the clock, or several work against each other.",
    formula={
        "medium": (
            "time_daemons > 1",
            "time_daemons < 1 and kernel_synchronised < 1",
        )
    },
    case_remedies={"no time daemon runs": _FIX_NO_DAEMON},
    caused_by=(UNSYNCED.id,),
    message_id="18c86cc2393243b3aa73dd48222fddc4",
    basis="host",
    least_s=600.0,
    explains_shift=True,
)


def check_daemon_stale(context: AuditContext) -> Raised | None:
    """NTPA-06: no time daemon has updated the kernel's clock for long: it is stopped or lost its servers (A4)."""
    stale_s, daemons = context.earlier.stale_s, context.observation.disciplining
    limit_s = max([STALE_S, *(STALE_POLLS * daemon.max_poll_s for daemon in daemons)])
    if stale_s is None or stale_s <= limit_s:
        return None
    level: Level = "high" if stale_s > DAY_S else "medium"
    ago = format_duration(stale_s, rounding="down")
    # "maximum error" and not "clock": VirtualBox's service corrects the clock and does not update the error.
    cause = "the time daemon is stopped or has lost its servers"
    message = f"no time daemon has updated the kernel's maximum error for {ago}: {cause}{_reports(context)}"
    return Raised(level, message, numbers={"time_since_kernel_update_s": stale_s, "update_limit_s": limit_s})


DAEMON_STALE = Rule(
    "daemon-stale",
    check_daemon_stale,
    "check that the time daemon runs and reaches its servers; chronyd and ntpd must poll at least every 17 min "
    "(maxpoll 10), systemd-timesyncd every 34 min (its default)",
    (STIG_COMPARE, FEDRAMP_COMPARE, FINRA),
    raised_when={
        "high": "no time daemon has updated the kernel's clock for a day: its maximum error has only grown",
        "medium": "the same, for an hour (1.7 h if systemd-timesyncd runs)",
    },
    meaning="The clock may still be right, but nothing corrects it.",
    formula={
        "high": "time_since_kernel_update_s > update_limit_s and time_since_kernel_update_s > 24 h",
        "medium": "update_limit_s < time_since_kernel_update_s <= 24 h",
    },
    caused_by=(DAEMON_DEAD.id,),
    message_id="69d61b2c5c394937a03aab962f6ff9b9",
    basis="host",
    least_s=600.0,
    explains_shift=True,
    needs_agent=True,
    value_s=lambda context: context.earlier.stale_s,
)


def check_tz_or_rtc_fault(context: AuditContext) -> Raised | None:
    """NTPA-15: the offset is within 15 s of a multiple of 15 minutes, or the hardware clock keeps local time."""
    agreement = context.selection.agreement
    if agreement is not None and not context.is_unguaranteed:
        wrong_s = abs(agreement.estimate_ns) / NS_PER_S
        zones = round(wrong_s / ZONE_STEP_S)
        beside_s = abs(wrong_s - ZONE_STEP_S * zones)
        if beside_s < 15 and 885 <= wrong_s <= 14 * 3600 + 15:
            exactly = f"{15 * zones} min" if zones < 8 else f"{zones / 4:g} h"
            return Raised(
                "high",
                f"the clock is almost exactly {exactly} {direction(agreement.estimate_ns)}: probably a wrong time zone "
                "or a hardware clock in local time",
                numbers={
                    "offset_s": agreement.estimate_ns / NS_PER_S,
                    "distance_to_a_multiple_of_15_min_s": beside_s,
                },
            )
    if context.observation.host.rtc_local:
        return Raised(
            "low",
            "the hardware clock keeps local time: the time may be wrong after a boot or a daylight saving change",
            remedy=_FIX_RTC,
            numbers={"hardware_clock_in_local_time": 1},
        )
    return None


TZ_OR_RTC_FAULT = Rule(
    "tz-or-rtc-fault",
    check_tz_or_rtc_fault,
    f"{STOP_FIRST}; then correct the time zone (`timedatectl` shows it), and restart the time daemon, so that it steps "
    "the clock. When the clock is right: if `timedatectl` shows `RTC in local TZ: yes`, run `timedatectl set-local-rtc "
    "0`, which also sets the hardware clock",
    (AU8, ASVS),
    raised_when={
        "high": "the offset is 15 min to 14 h, and within 15 s of a multiple of 15 min",
        "low": "the hardware clock keeps local time",
    },
    meaning="The clock is wrong by whole time zones, or can be after the next boot or change to daylight saving time.",
    formula={
        "high": "885 s <= abs(offset_s) <= 50415 s and distance_to_a_multiple_of_15_min_s < 15 s",
        "low": "hardware_clock_in_local_time > 0",
    },
    case_remedies={"the level is low": _FIX_RTC},
    message_id="770eeae8b2ef45858a1d595acdbcbab6",
    is_of_offset=True,
    value_s=estimate_s,
)


def own_words(daemon: Daemon, observation: Observation) -> str:
    """Return what a time daemon reports about its source, as a clause; empty where it reports nothing."""
    claim = daemon.claim
    if not isinstance(claim, Claim) or (claim.is_synchronised is None and claim.follows is None):
        return ""
    state = f"follows {claim.follows}" if claim.follows else "is synchronised"
    if claim.is_synchronised is False:
        state = f"is not synchronised and follows {claim.follows or 'no server'}"
    ago = "" if claim.updated_s is None else f" (last update {format_duration(claim.updated_s, rounding='down')} ago)"
    return f"{observation.name_of(daemon)} reports that it {state}{ago}"


def _reports(context: AuditContext) -> str:
    """Return what each daemon that disciplines the clock reports, after a semicolon, with what contradicts it."""
    observation = context.observation
    said = [(one, own_words(one, observation)) for one in observation.disciplining]
    return "".join(f"; {words}{_replies(context, one)}" for one, words in said if words)


def _replies(context: AuditContext, daemon: Daemon) -> str:
    """Say that a daemon's servers reply to us, if it is not synchronised: so the network is not the cause."""
    if (shared := _unused_replies(context, daemon)) is None:
        return ""
    reply = f", but {shared.replying} of its servers {'replies' if shared.replying == 1 else 'reply'} to ntpaudit"
    if shared.is_split:
        return f"{reply}, and no majority of the servers agrees"
    if not shared.authenticated:
        return reply
    return f"{reply}, which queries without authentication; one possible cause: wrong keys or certificates"


def _unused_replies(context: AuditContext, daemon: Daemon) -> SharedServers | None:
    """Return the servers of a daemon that reply to us, if it is not synchronised."""
    if not isinstance(daemon.claim, Claim) or daemon.claim.is_synchronised is not False:
        return None
    who = daemon.name, daemon.pid
    return next((one for one in context.earlier.shared_servers if (one.daemon, one.pid) == who), None)


def _fix_unused_replies(context: AuditContext) -> str | None:
    """Return the fix where the servers of a daemon reply to us, None where they do not."""
    for daemon in context.observation.disciplining:
        if (shared := _unused_replies(context, daemon)) is not None:
            return FIX_SPLIT if shared.is_split else _FIX_UNUSED_REPLIES
    return None


def _not_disciplining(context: AuditContext) -> str:
    """Name the visible daemons that do not discipline the clock, and why, each after a semicolon."""
    seen = [one for one in context.observation.known_daemons if one.disciplines is False]
    return "".join(f"; {one.name} (pid {one.pid}) runs and does not ({one.reason})" for one in seen if one.reason)


def _is_unsynchronised(daemon: Daemon) -> bool:
    """Whether a time daemon itself reports that it is not synchronised."""
    claim = daemon.claim
    return isinstance(claim, Claim) and claim.is_synchronised is False and claim.leap == _LEAP_UNSYNCHRONISED


def _hidden_daemons(context: AuditContext) -> str | None:
    """Return why an unknown time daemon may discipline this clock; None if all of them are visible."""
    observation = context.observation
    unsure = [daemon for daemon in observation.known_daemons if daemon.disciplines is None]
    if unsure:
        return f"{unsure[0].name} (pid {unsure[0].pid}): {unsure[0].reason}"
    return observation.daemons_hidden


def _is_booting(context: AuditContext) -> bool:
    return context.observation.taken.boottime_ns < SYNC_GRACE_NS


RULES = (DAEMON_DEAD, DAEMON_STALE, UNSYNCED, DAEMON_COUNT, TZ_OR_RTC_FAULT)
