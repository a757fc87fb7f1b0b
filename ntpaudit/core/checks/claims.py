"""Findings about the claims of the time daemon and the kernel, which the measured interval disproves (A6, B7).

All compare with an interval that the servers guarantee. A claim that cannot be read raises nothing.
"""

from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.controls import AU8, ETSI, FINRA_ERRORS, ISO, ISO_GUIDE, PCI, SC45
from ntpaudit.core.checks.daemons import own_words
from ntpaudit.core.checks.offset import NOT_DEMONSTRABLE, OFFSET_HIGH, OFFSET_OUT
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.cross_check import claiming_daemon, distance_s
from ntpaudit.core.observation import Claim, KernelState
from ntpaudit.core.policy import min_error_s
from ntpaudit.core.units import direction, format_duration, format_offset

_WRONG_OFFSET = (OFFSET_OUT.id, NOT_DEMONSTRABLE.id, OFFSET_HIGH.id)
_FIX_SERVER = (
    "`ntpaudit check` lists what the time daemon follows: compare that server with at least 4 independent ones "
    "(`ntpaudit check SERVER...` with all of them shows wrong ones as falsetickers); remove a wrong one from the "
    "daemon's configuration, and use NTS where the servers offer it"
)
_FIX_BOUND = (
    "do not rely on the error that the time daemon states until it follows correct servers (`ntpaudit check SERVER...` "
    "compares them)"
)
_FIX_CLOCK = "the claim becomes true when the clock is right: check the time daemon and its servers"
_FIX_LOGS = (
    "do not rely on the accuracy that log messages of this host state; correct their timestamps with the offsets in "
    "`sudo ntpaudit history --since 90d --format json`"
)


def check_daemon_disagrees(context: AuditContext) -> Raised | None:
    """NTPA-04: the time daemon states to be synchronised, and an offset beyond both its bound and the measured one."""
    daemon, interval = claiming_daemon(context.observation), _guaranteed(context)
    if daemon is None or interval is None or not isinstance(claim := daemon.claim, Claim):
        return None
    excess_s, error_s = context.cross_check.daemon_excess_s, distance_s(interval, claim.offset_s, 0.0)
    warning_s = context.profile.warning_s
    if claim.bound_s is None:  # it is taken to be right within the warning tolerance
        excess_s = error_s if error_s is not None and error_s > warning_s else None
    if not claim.is_synchronised or not excess_s or error_s is None or claim.offset_s is None:
        return None
    stated = f"and that the clock is {format_offset(claim.offset_s)}{_bound(claim)}"
    message = f"{own_words(daemon, context.observation)}, {stated}"
    numbers = {"daemon_synchronised": 1, **_numbers(context, excess_s, error_s)}
    return Raised("high" if error_s > warning_s else "low", f"{message}; {_proven(interval)}", numbers=numbers)


DAEMON_DISAGREES = Rule(
    "daemon-disagrees",
    check_daemon_disagrees,
    _FIX_SERVER,
    (ISO, PCI, ETSI),
    raised_when={
        "high": (
            "the time daemon reports a synchronised clock, and its offset differs from the measured one by more than "
            "both bounds, and certainly by more than the warning tolerance"
        ),
        "low": "the same, and its offset is not certainly wrong by more than the warning tolerance",
    },
    meaning="The time daemon follows a server that is wrong, and what it reports about the clock is wrong too.",
    formula={
        "high": "daemon_synchronised > 0 and daemon_excess_s > 0 s and daemon_error_s > warning_tolerance_s",
        "low": "daemon_synchronised > 0 and daemon_excess_s > 0 s and daemon_error_s <= warning_tolerance_s",
    },
    notes=(
        "Both bounds are the interval that the servers guarantee and the bound that the daemon states. A daemon that "
        "states none is taken to be right within the warning tolerance. An offset that the daemon states itself is one "
        "that it corrects, so every offset from that to 0 agrees with it. Only the daemon that disciplines the clock "
        "is compared, not one that only serves (`chronyd -x`)."
    ),
    of_daemon=True,
    message_id="2915bf92a9744fbf8f23ce1c82b04901",
    is_of_offset=True,
    value_s=lambda context: context.cross_check.daemon_excess_s,
)


def check_daemon_bound_violated(context: AuditContext) -> Raised | None:
    """B7: the offset and bound that the time daemon states exclude the interval that the servers guarantee."""
    daemon, interval = claiming_daemon(context.observation), _guaranteed(context)
    if daemon is None or interval is None or not isinstance(claim := daemon.claim, Claim):
        return None
    excess_s, error_s = context.cross_check.daemon_excess_s, distance_s(interval, claim.offset_s, 0.0)
    if not excess_s or error_s is None or error_s <= context.profile.warning_s or claim.bound_s is None:
        return None
    message = (
        f"{daemon.name} states that its offset is at most {format_duration(claim.bound_s, rounding='up')} wrong; it is "
        f"at least {format_duration(error_s, rounding='down')} wrong"
    )
    return Raised("medium", message, numbers=_numbers(context, excess_s, error_s))


DAEMON_BOUND_VIOLATED = Rule(
    "daemon-bound-violated",
    check_daemon_bound_violated,
    _FIX_BOUND,
    (ISO, FINRA_ERRORS, ETSI),
    raised_when={
        "medium": (
            "the measured interval contains no offset that the time daemon's offset and bound allow, and its offset is "
            "certainly wrong by more than the warning tolerance"
        )
    },
    meaning="The error bound that the time daemon reports is wrong, and so is all that is computed with it.",
    formula={"medium": "daemon_excess_s > 0 s and daemon_error_s > warning_tolerance_s"},
    notes="The daemon's bound is half its root delay plus its root dispersion.",
    caused_by=(DAEMON_DISAGREES.id,),
    of_daemon=True,
    message_id="5e9e9447654a41659772134003a6afbd",
    is_of_offset=True,
    value_s=lambda context: context.cross_check.daemon_excess_s,
)


def check_kernel_maxerror_violated(context: AuditContext) -> Raised | None:
    """A6: the kernel reports a synchronised clock, and a maximum error that the clock certainly exceeds."""
    interval = _guaranteed(context)
    if interval is None or min_error_s(interval) <= context.profile.warning_s:
        return None
    bound_s, excess_s = context.cross_check.kernel_bound_s, context.cross_check.kernel_excess_s
    if bound_s is None or not excess_s or _states_the_offset(context, bound_s):
        return None
    message = f"the kernel states a maximum error of {format_duration(bound_s, rounding='up')}; {_proven(interval)}"
    return Raised("medium", message, numbers=_of_kernel(context, interval, bound_s))


KERNEL_MAXERROR_VIOLATED = Rule(
    "kernel-maxerror-violated",
    check_kernel_maxerror_violated,
    _FIX_CLOCK,
    (ISO, AU8, SC45),
    raised_when={
        "medium": (
            "the kernel reports a synchronised clock, and the clock is certainly more wrong than the kernel's maximum "
            "error and than the warning tolerance"
        )
    },
    meaning="Programs that ask the kernel how wrong the clock can be get a wrong answer.",
    formula={"medium": "minimum_error_s > kernel_maximum_error_s and minimum_error_s > warning_tolerance_s"},
    notes="Not raised while the time daemon itself states that offset, because it is correcting it.",
    caused_by=(DAEMON_DISAGREES.id, DAEMON_BOUND_VIOLATED.id, *_WRONG_OFFSET),
    message_id="98178284a12641ca9ce4d5174a73cdf5",
    is_of_offset=True,
    value_s=lambda context: context.cross_check.kernel_excess_s,
)


def check_false_time_quality(context: AuditContext) -> Raised | None:
    """RFC 5424 §7.1: `logger` takes isSynced and syncAccuracy from the kernel, and the measured interval refutes it."""
    kernel, interval = context.observation.kernel, _guaranteed(context)
    if interval is None or not isinstance(kernel, KernelState) or kernel.state != 0 or not kernel.is_synchronised:
        return None
    bound_s = kernel.maxerror_s
    if min_error_s(interval) <= max(bound_s, context.profile.warning_s):
        return None
    message = (
        "log messages with the time quality of RFC 5424 state that the clock is synchronised within "
        f"{format_duration(bound_s, rounding='up')}; {_proven(interval)}"
    )
    return Raised("medium", message, numbers=_of_kernel(context, interval, bound_s))


FALSE_TIME_QUALITY = Rule(
    "false-time-quality",
    check_false_time_quality,
    _FIX_LOGS,
    (ISO_GUIDE, AU8),
    raised_when={
        "medium": (
            "the kernel reports a synchronised clock without a leap second, and the clock is certainly more wrong than "
            "the kernel's maximum error and than the warning tolerance"
        )
    },
    meaning="Log messages of this host state an accuracy of their timestamps that is false.",
    formula={"medium": "minimum_error_s > kernel_maximum_error_s and minimum_error_s > warning_tolerance_s"},
    notes=(
        "Programs such as `logger --rfc5424` write the kernel's statement into their messages (`isSynced`, "
        "`syncAccuracy`). Unlike `kernel-maxerror-violated` it is also raised while the time daemon is correcting the "
        "offset."
    ),
    caused_by=(KERNEL_MAXERROR_VIOLATED.id, *KERNEL_MAXERROR_VIOLATED.caused_by),
    message_id="75eee026ef1c424e9723c91b52609985",
    is_of_offset=True,
)


def _guaranteed(context: AuditContext) -> Interval | None:
    agreement = context.selection.agreement
    return None if agreement is None or not agreement.is_guaranteed else agreement.interval


def _states_the_offset(context: AuditContext, bound_s: float) -> bool:
    """Whether the time daemon states an offset beyond the kernel's maximum error, and the servers agree with it."""
    compared = context.cross_check
    return compared.daemon_excess_s == 0 and abs(compared.daemon_offset_s or 0.0) > bound_s


def _proven(interval: Interval) -> str:
    least = format_duration(min_error_s(interval), rounding="down")
    return f"the servers prove that it is at least {least} {direction(interval.earliest_ns)}"


def _bound(claim: Claim) -> str:
    return (
        "" if claim.bound_s is None else f", with an error of at most {format_duration(claim.bound_s, rounding='up')}"
    )


def _numbers(context: AuditContext, excess_s: float, error_s: float) -> dict[str, float]:
    warning_s = context.profile.warning_s
    return {"daemon_excess_s": excess_s, "daemon_error_s": error_s, "warning_tolerance_s": warning_s}


def _of_kernel(context: AuditContext, interval: Interval, bound_s: float) -> dict[str, float]:
    return {
        "minimum_error_s": min_error_s(interval),
        "kernel_maximum_error_s": bound_s,
        "warning_tolerance_s": context.profile.warning_s,
    }


RULES = (DAEMON_DISAGREES, DAEMON_BOUND_VIOLATED, KERNEL_MAXERROR_VIOLATED, FALSE_TIME_QUALITY)
