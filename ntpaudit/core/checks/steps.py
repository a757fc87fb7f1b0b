"""Findings about steps of the host's clock."""

from collections.abc import Mapping

from ntpaudit.core.checks.context import AuditContext, HostRule
from ntpaudit.core.checks.controls import (
    ATTACK_TIMESTOMP,
    AU12,
    ISO,
    ITM_AUDIT_CLOCK,
    ITM_TIME,
    ITM_TIME_LINUX,
    PCI_CHANGES,
    PCI_REVIEWS,
)
from ntpaudit.core.checks.rule import Level, Raised, Rule
from ntpaudit.core.clock.steps import Step, StepCause
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc

MIN_STEP_S = 0.01  # a smaller step is reported as an event, not as a finding (NTPA-02)
EARLY_STEP_NS = 300 * NS_PER_S  # a step this soon after the boot is the time daemon's first correction (NTPA-02)

_LESS = {
    "medium": "the same, by at least 10 ms and less than 1 s",
    "low": "the same, by 10 ms or more within 5 minutes after the boot",
}
_FIND = "find out what set the clock (`sudo journalctl` around that time: time daemon, hypervisor, or a person)"
_LISTED = (
    "The finding is listed for an hour; later, `sudo ntpaudit history --events --since 7d` shows the step. A step of "
    "less than 10 ms is an event of level low, not a finding."
)


def check_unattributed_change(context: AuditContext) -> Raised | None:
    """NTPA-03: the clock was set, and no time daemon reports it; or a person set it."""
    found = [step for step in context.earlier.steps if level_of_step(step) != "low" and _is_unattributed(step)]
    worst = max(found, key=step_severity_key, default=None)
    if worst is None or worst.cause is None:
        return None
    way, size_s = "back" if worst.is_back else "forward", abs(worst.size_ns) / NS_PER_S
    by = "the logs name no cause" if worst.cause.name is None else f"by {worst.cause.name}, which is no time daemon"
    numbers = {"step_s": size_s, "uptime_at_step_s": worst.boottime_ns / NS_PER_S, "time_daemons_that_report_it": 0}
    when = f"{format_utc(worst.after_ns)[:23]}Z"
    what = f"the clock was set {way} by {format_duration(size_s)}, to {when} of its own"
    return Raised("critical", f"{what}: {by}", numbers=numbers)


def _is_unattributed(step: Step) -> bool:
    cause = step.cause
    return cause is not None and (cause.by_person or (cause.name is None and cause.unread is None))


UNATTRIBUTED_CHANGE = Rule(
    "unattributed-change",
    check_unattributed_change,
    "`sudo ntpaudit history --steps --since 1d` shows the step with the line that names a command or a login, and "
    "`sudo ausearch -m TIME_INJOFFSET -i` shows what auditd recorded; match it to a change ticket, else treat it as a "
    "security incident",
    (PCI_REVIEWS, AU12),
    raised_when={
        "critical": "the clock was set by 10 ms or more, later than 5 minutes after the boot, and of the journal and "
        "the audit log no line within 5 s names a time daemon, a hypervisor or the kernel as the cause"
    },
    meaning="A person or an unknown program has set the clock: perhaps to hide when something happened.",
    formula={"critical": "step_s >= 10 ms and uptime_at_step_s > 5 min and time_daemons_that_report_it < 1"},
    techniques=(ITM_TIME_LINUX, ITM_AUDIT_CLOCK, ATTACK_TIMESTOMP),
    notes=(
        "Logs are searched at the first local audit that is 6 s or more after the step. The agent needs the right to "
        "read the whole journal: systemd/README.md has the setting. Without it nothing is raised, nor while a program "
        "runs that sets the clock without a log line (systemd-timesyncd after its first synchronisation, VMware Tools, "
        "hv_utils, the QEMU guest agent) or that logs to a file of its own (`chronyd -l FILE`, `logfile` of ntpd), or "
        "time daemons may be "
        "hidden, or in a container: the finding about the step gives the reason. The finding is listed for an hour."
    ),
    cleared="an hour later",
    message_id="b07ed47f299d46eb801ea96308c24e70",
    basis="moment",
    needs_agent=True,
)


def _worst_step(context: AuditContext, *, is_back: bool) -> Raised | None:
    listed = [step for step in context.earlier.steps if abs(step.size_ns) >= MIN_STEP_S * NS_PER_S]
    worst = max((step for step in listed if step.is_back is is_back), key=step_severity_key, default=None)
    if worst is None:
        return None
    size_s, uptime_s = abs(worst.size_ns) / NS_PER_S, worst.boottime_ns / NS_PER_S
    numbers = {"set_back_s" if is_back else "set_forward_s": size_s, "uptime_at_step_s": uptime_s}
    return Raised(level_of_step(worst), describe_step(worst), numbers=numbers)


def _formula(size: str) -> Mapping[str, str]:
    return {
        "high": f"{size} >= 1 s and uptime_at_step_s > 5 min",
        "medium": f"10 ms <= {size} < 1 s and uptime_at_step_s > 5 min",
        "low": f"{size} >= 10 ms and uptime_at_step_s <= 5 min",
    }


def check_step_back(context: AuditContext) -> Raised | None:
    """NTPA-02: the clock was set back, so logs have some timestamps twice and out of order."""
    return _worst_step(context, is_back=True)


STEP_BACK = Rule(
    "step-back",
    check_step_back,
    f"{_FIND}; do not rely on the order of log entries in that window; allow the time daemon to step only during boot, "
    "or when you restart it on purpose",
    (ISO, PCI_CHANGES, ITM_TIME),
    raised_when={"high": "the clock was set back by 1 s or more", **_LESS},
    meaning="Some timestamps occur twice, so log entries of that time are out of order.",
    formula=_formula("set_back_s"),
    techniques=(ITM_TIME_LINUX, ATTACK_TIMESTOMP),
    notes=(
        "The message gives the time that occurs twice in the logs. A leap second that the kernel inserts, or that "
        f"the servers announced, is not a step. {_LISTED}"
    ),
    cleared="an hour later",
    message_id="67034e6221f14875bb57585b1894c249",
    basis="moment",
    caused_by=(UNATTRIBUTED_CHANGE.id,),
    has_own_events=True,
    needs_agent=True,
)


def check_step_forward(context: AuditContext) -> Raised | None:
    """The clock was set forward: logs have a hole, and timers of the skipped time fire at once."""
    return _worst_step(context, is_back=False)


STEP_FORWARD = Rule(
    "step-forward",
    check_step_forward,
    f"{_FIND}; allow the time daemon to step only during boot, or when you restart it on purpose",
    (ISO, PCI_CHANGES, ITM_TIME),
    raised_when={"high": "the clock was set forward by 1 s or more", **_LESS},
    meaning="Some timestamps are missing from the logs, and timers of that time ran at once.",
    formula=_formula("set_forward_s"),
    techniques=(ITM_TIME_LINUX, ATTACK_TIMESTOMP),
    notes=f"The message gives the time that is missing in the logs. {_LISTED}",
    cleared="an hour later",
    message_id="94061a08892d408ba9c672acc87c2156",
    basis="moment",
    caused_by=(UNATTRIBUTED_CHANGE.id,),
    has_own_events=True,
    needs_agent=True,
)

STEP_KINDS = (STEP_BACK.id, STEP_FORWARD.id)


def rule_of(step: Step) -> HostRule:
    """Return the rule whose finding reports a step."""
    return STEP_BACK if step.is_back else STEP_FORWARD


def level_of_step(step: Step) -> Level:
    """Return the level of a step (NTPA-02): high from 1 s on, low during boot."""
    if step.boottime_ns <= EARLY_STEP_NS or abs(step.size_ns) < MIN_STEP_S * NS_PER_S:
        return "low"
    return "high" if abs(step.size_ns) >= NS_PER_S else "medium"


def step_severity_key(step: Step) -> tuple[bool, int]:
    """Return a sort key: a larger step is worse, and a step during boot is the least severe."""
    return level_of_step(step) != "low", abs(step.size_ns)


def describe_step(step: Step) -> str:
    """Describe a step: its direction, its size, and the window of timestamps that it affects."""
    way, effect = ("back", "occur twice") if step.is_back else ("forward", "are missing")
    window = f"{format_utc(min(step.before_ns, step.after_ns))} to {format_utc(max(step.before_ns, step.after_ns))}"
    unwatched = " while no agent was running" if step.is_gap else ""
    early = " within 5 minutes after the boot" if step.boottime_ns <= EARLY_STEP_NS else ""
    size = format_duration(step.size_ns / NS_PER_S)
    cause = "" if step.cause is None else f"; {_describe_cause(step.cause)}"
    return f"the clock was set {way} by {size}{early}{unwatched}; timestamps {effect}: {window}{cause}"


def _describe_cause(cause: StepCause) -> str:
    if cause.name is not None:
        return f"cause: {cause.name}"
    return "the logs name no cause" if cause.unread is None else f"the cause is not known: {cause.unread}"


RULES = (UNATTRIBUTED_CHANGE, STEP_BACK, STEP_FORWARD)
