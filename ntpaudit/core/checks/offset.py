"""Findings about the offset: how wrong the clock is, or will be."""

from ntpaudit.core.checks.context import AuditContext, estimate_s
from ntpaudit.core.checks.controls import AU8, ETSI, FINRA, FINRA_ERRORS, ISO, ISO_GUIDE, PCI, RTS25
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.policy import Severity, max_error_s, min_error_s
from ntpaudit.core.units import DAY_S, NS_PER_S, direction, format_duration, format_offset

BAD_OSCILLATOR_PPM = 100.0

_FIX_WRONG_CLOCK = "the clock is probably wrong: check the time daemon and its servers; do not change the tolerance"
_FIX_OSCILLATOR = "check the kernel's clocksource and the hypervisor; if neither is the cause, replace the hardware"
STOP_FIRST = (
    "if the clock is ahead, first stop applications that cannot bear repeated timestamps (databases, schedulers), "
    "because the repair sets it back"
)


def check_offset_out(context: AuditContext) -> Raised | None:
    """NTPA-01: the whole interval lies outside the critical tolerance: `min_error_s` exceeds it."""
    agreement = context.selection.agreement
    if agreement is None or context.verdict != "beyond":
        return None
    wrong_s = min_error_s(agreement.interval)
    message = (
        f"the clock is at least {format_duration(wrong_s, rounding='down')} {direction(agreement.estimate_ns)} "
        f"(critical tolerance {format_duration(context.profile.critical_s)})"
    )
    if wrong_s > 300:
        message += "; beyond 300 s, Kerberos and token logins also fail"
    elif wrong_s > 60:
        message += "; beyond 60 s, SIEM rules that join events within 5 minutes miss 20 % of the matches or more"
    numbers = {"minimum_error_s": wrong_s, "critical_tolerance_s": context.profile.critical_s}
    return Raised("critical", message, numbers=numbers)


OFFSET_OUT = Rule(
    "offset-out",
    check_offset_out,
    "if an agent runs here, save the output of `sudo ntpaudit history --since 90d --format json`, because its records "
    f"correct the affected logs; {STOP_FIRST}; then check the servers of the time daemon, and restart it",
    (ISO, PCI, AU8, FINRA, ETSI),
    raised_when={"critical": "the whole interval is outside the critical tolerance: the clock is certainly wrong"},
    meaning="The clock is certainly wrong, so its log entries cannot be ordered with those of other hosts.",
    formula={"critical": "minimum_error_s > critical_tolerance_s"},
    message_id="1643120d7614412ea6edd9a41b2c652f",
    is_of_offset=True,
    has_hysteresis=True,
    value_s=estimate_s,
    acceptable="reports",
)


def _offset_out_if_beyond(context: AuditContext) -> tuple[str, ...]:
    return (OFFSET_OUT.id,) if context.verdict == "beyond" else ()


def check_not_demonstrable(context: AuditContext) -> Raised | None:
    """NTPA-09: the interval is partly inside and partly outside the critical tolerance, so nothing is proven."""
    agreement = context.selection.agreement
    if agreement is None or context.verdict != "unproven" or context.is_unguaranteed:
        return None  # without a guarantee the width of the interval is not the cause: see source-quorum
    estimate_s = agreement.estimate_ns / NS_PER_S
    is_wrong = abs(estimate_s) > context.profile.warning_s and min_error_s(agreement.interval) > 0
    return Raised(
        "medium",
        f"the verdict is unproven: the clock is not proven to be within {format_duration(context.profile.critical_s)}, "
        f"and may be up to {format_duration(max_error_s(agreement.interval), rounding='up')} wrong "
        f"(estimate: {format_offset(estimate_s) if estimate_s else 'exact'})",
        remedy=_FIX_WRONG_CLOCK if is_wrong else None,
        numbers={
            "minimum_error_s": min_error_s(agreement.interval),
            "critical_tolerance_s": context.profile.critical_s,
            "maximum_error_s": max_error_s(agreement.interval),
        },
    )


NOT_DEMONSTRABLE = Rule(
    "not-demonstrable",
    check_not_demonstrable,
    "use nearer servers (for `ntpaudit check` also --samples), or choose a tolerance that these servers can prove "
    "(policy.critical)",
    (FINRA_ERRORS, RTS25, ETSI),
    raised_when={"medium": "the verdict is `unproven`: the interval is only partly within the critical tolerance"},
    meaning="The clock may be right, but the measurement is too wide to prove it to an auditor.",
    formula={"medium": "minimum_error_s <= critical_tolerance_s < maximum_error_s"},
    case_remedies={"the offset exceeds the warning tolerance, and the interval does not contain 0": _FIX_WRONG_CLOCK},
    message_id="ee4a9f8bbb184e6da093ada6f7a41fac",
    replaced_by=_offset_out_if_beyond,
    least_s=3600.0,
    is_of_offset=True,
    has_hysteresis=True,
    value_s=estimate_s,
    acceptable="reports",
)


def check_offset_high(context: AuditContext) -> Raised | None:
    """The estimate or the maximum error exceeds the warning tolerance, or the maximum error the critical one."""
    agreement, profile = context.selection.agreement, context.profile
    if agreement is None or context.is_unguaranteed or context.offset_severity is Severity.OK:
        return None
    warning = f"over the warning tolerance of {format_duration(profile.warning_s)}"
    offset_s, error_s = agreement.estimate_ns / NS_PER_S, max_error_s(agreement.interval)
    if profile.judged_on == "offset" and abs(offset_s) > profile.warning_s:
        message = f"the clock is {format_duration(offset_s, rounding='up')} {direction(offset_s)}, {warning}"
        return Raised("medium", message, numbers={"offset_s": offset_s, "warning_tolerance_s": profile.warning_s})
    bound = f"the clock may be up to {format_duration(error_s, rounding='up')} wrong"
    if profile.judged_on == "bound":
        numbers = {"maximum_error_s": error_s, "warning_tolerance_s": profile.warning_s}
        return Raised("medium", f"{bound}, {warning}", numbers=numbers)
    return Raised(
        "medium",
        f"{bound}, over the critical tolerance of {format_duration(profile.critical_s)}",
        numbers={"maximum_error_s": error_s, "critical_tolerance_s": profile.critical_s},
    )


OFFSET_HIGH = Rule(
    "offset-high",
    check_offset_high,
    "check the time daemon and its servers before the critical tolerance is reached",
    (ISO, AU8, ISO_GUIDE),
    raised_when={
        "medium": (
            "the offset exceeds the warning tolerance",
            "the maximum error exceeds the warning tolerance, if the profile judges on it",
            "the interval is partly outside the critical tolerance",
        )
    },
    meaning="The clock is near its tolerance, or may be; it is not certainly wrong yet.",
    formula={
        "medium": (
            "abs(offset_s) > warning_tolerance_s",
            "maximum_error_s > warning_tolerance_s",
            "maximum_error_s > critical_tolerance_s",
        )
    },
    message_id="3c17354d88624c51b1f975fafd58d728",
    covered_by=(OFFSET_OUT.id, NOT_DEMONSTRABLE.id),
    is_of_offset=True,
    has_hysteresis=True,
    acceptable="reports",
)


def check_breach_forecast(context: AuditContext) -> Raised | None:
    """NTPA-16: the clock drifts out of its tolerance within a day, or its oscillator is bad."""
    drift = context.earlier.drift
    if drift is None or drift.raw_frequency_ppm is None:
        return None
    breach, central_s, rate_ppm = drift.breach, drift.breach.central_s, drift.frequency_ppm
    is_near = central_s is not None and 0 < central_s <= DAY_S  # a breach in the past is not a forecast
    is_drift = rate_ppm is not None and abs(rate_ppm) > drift.skew_ppm  # a drift that may be zero gives no forecast
    if rate_ppm is not None and central_s is not None and is_near and is_drift and not breach.free_running:
        early = ""
        if breach.pessimistic_s is not None:  # past forecasts give the width of the band (R9)
            early = f"; with 95 % probability not before {format_duration(breach.pessimistic_s, rounding='down')}"
        return Raised(
            "medium",
            f"the clock drifts by {format_duration(rate_ppm * DAY_S / 1e6)} a day and will be "
            f"{format_duration(context.profile.critical_s)} wrong in about {format_duration(central_s)}{early}",
            numbers={
                "time_to_critical_tolerance_s": central_s,
                "drift_ppm": rate_ppm,
                "fit_error_ppm": drift.skew_ppm,
            },
        )
    if abs(drift.raw_frequency_ppm) - drift.skew_ppm > BAD_OSCILLATOR_PPM:
        return Raised(
            "low",
            f"the oscillator is {abs(drift.raw_frequency_ppm):.0f} ppm off: faulty hardware or a faulty hypervisor",
            remedy=_FIX_OSCILLATOR,
            numbers={"oscillator_error_ppm": drift.raw_frequency_ppm, "fit_error_ppm": drift.skew_ppm},
        )
    return None


BREACH_FORECAST = Rule(
    "breach-forecast",
    check_breach_forecast,
    "start the time daemon, or check the host's clock source, before the clock exceeds its tolerance",
    (ISO, ISO_GUIDE),
    raised_when={
        "medium": "no time daemon disciplines the clock, and it will drift out of its tolerance within a day",
        "low": "the oscillator is more than 100 ppm off",
    },
    meaning="The clock is still right, and will not be for long, because nothing corrects its drift.",
    formula={
        "medium": "0 s < time_to_critical_tolerance_s <= 24 h and abs(drift_ppm) > fit_error_ppm",
        "low": "abs(oscillator_error_ppm) - fit_error_ppm > 100 ppm",
    },
    case_remedies={"the oscillator is more than 100 ppm off": _FIX_OSCILLATOR},
    replaced_by=_offset_out_if_beyond,
    message_id="e1eed9751290471d80861efa38911f68",
    needs_agent=True,
    is_of_offset=True,
    explains_shift=True,
    value_s=lambda context: (
        context.earlier.drift.breach.central_s if context.earlier.drift and context.selection.agreement else None
    ),
)

RULES = (OFFSET_OUT, NOT_DEMONSTRABLE, OFFSET_HIGH, BREACH_FORECAST)
