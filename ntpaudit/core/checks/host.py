"""The rules about one host: a check function for each, and the list `RULES`.

A check takes an `AuditContext` and returns None, or a level and a message. To add one: write the function, an entry in
`RULES` and a test, and run `make docs`, which generates the finding's documentation from the entry.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from ntpaudit.core.checks.finding import LEVEL_SEVERITY, Finding, Level
from ntpaudit.core.clock.database_clock import disputed_ns
from ntpaudit.core.clock.drift import Drift
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.clock.steps import Step
from ntpaudit.core.ntp.sources import NTP_PORT, is_loopback
from ntpaudit.core.ntp.time import ERA_S, PIVOT_NS
from ntpaudit.core.observation import Daemon, KernelState, Observation, SourceObservation, Unavailable
from ntpaudit.core.policy import Profile, Severity, Verdict, max_error_s, min_error_s
from ntpaudit.core.selection import BEFORE_RELEASE, ClassifiedSource, Selection, SourceCounts, independent_groups
from ntpaudit.core.units import NS_PER_S, direction, format_duration, format_offset, format_utc, plural

BOOT_GRACE_NS = 17 * 60 * NS_PER_S
"""After a boot the time daemon may need this long to synchronise the clock (INTEGRITY, NTPA-05)."""

SPOOFED_DATAGRAMS = 3
"""This many replies with a wrong origin timestamp are an attack, not an accident (V5, RFC 8633 §5.3)."""

ZONE_STEP_S = 900
"""Time zones differ by multiples of 15 minutes."""

GAP_INTERVALS = 3.3
"""A gap is longer than this many polling intervals: three, and their jitter (NTPA-07)."""

MANY_REFUSALS = 3
"""A database that refused this many writes and accepted none is assumed to refuse every write."""

DAY_S = 86_400.0

MIN_STEP_S = 0.01
"""A smaller step is reported as an event, not as a finding (NTPA-02)."""

EARLY_STEP_NS = 300 * NS_PER_S
"""A step within this time after the boot is the time daemon's first correction (NTPA-02)."""

STALE_S = 3600.0
"""A time daemon updates the kernel within this even at its slowest poll, 1024 s (NTPA-06: 3 polls, at least 1 h)."""

STALE_TIMESYNCD_S = 3 * 2048.0
"""The same for systemd-timesyncd, whose slowest poll is 2048 s."""

VANISHED_S = 600.0
"""If the kernel has not been updated for this long, no hidden time daemon disciplines it (R12)."""

BAD_OSCILLATOR_PPM = 100.0

_ISO = "ISO/IEC 27001 A.8.17"
_PCI = "PCI DSS 10.6.2"
_PCI_CHANGES = "PCI DSS 10.6.3"
_AU8 = "NIST SP 800-53 AU-8"
_SC45 = "NIST SP 800-53 SC-45"


class Contradiction(NamedTuple):
    """A larger, earlier agreement that contradicts this audit's: its number of servers, and its age."""

    agreeing: int
    age_s: float


class DroppedAgreement(NamedTuple):
    """Two agreements that do not overlap: proof that more than the host's clock changed (R6).

    `expected` is the earlier one, carried forward for `age_s`. `reported` is what at least `sources` servers report
    instead, at the uptime `boottime_ns`. Both are intervals of the offset at that moment.
    """

    expected: Interval
    reported: Interval
    sources: int
    age_s: float
    boottime_ns: int

    @property
    def gap_ns(self) -> int:
        """The least distance between the two; positive if the clock is further behind than expected."""
        ahead_ns = self.reported.latest_ns - self.expected.earliest_ns
        return ahead_ns if ahead_ns < 0 else self.reported.earliest_ns - self.expected.latest_ns


class DatabaseDate(NamedTuple):
    """The interval of the offset if the database's clock is right, and the age of the database's reply.

    `is_new` is False for a Date that is only carried forward from an earlier audit, which is not a new sample.
    """

    interval: Interval
    age_s: float
    is_new: bool = True


class History(NamedTuple):
    """The state from before this observation, which only an agent has.

    - `interval_s`: the polling interval in seconds.
    - `unmeasured_s`: time since the last measurement; None if this audit measured.
    - `ended_gap_s`: the gap that this audit's measurement ended.
    - `intervals`: either gap in polling intervals, each part by the interval valid then (None: all by `interval_s`).
    - `steps`: the steps of the last hour.
    - `stale_s`: the time for which certainly no time daemon has updated the kernel's clock.
    - `dropped_records`: records that were lost before delivery.
    - `contradiction`: a larger agreement that the present one contradicts, so the present one is not a measurement.
    - `dropped_agreement`: the contradiction of the last hour in which the earlier agreement was discarded.
    - `database`: the offset by the database's clock.
    - `refusals`: writes that the database has refused since it last accepted one.
    - `failure`: why delivery failed last.
    - `vanished`: the time daemon that has stopped without a successor (R12).
    - `raised`: the ids of the findings that were raised before.
    """

    interval_s: float
    unmeasured_s: float | None = None
    ended_gap_s: float | None = None
    steps: tuple[Step, ...] = ()
    stale_s: float | None = None
    drift: Drift | None = None
    dropped_records: int = 0
    contradiction: Contradiction | None = None
    dropped_agreement: DroppedAgreement | None = None
    database: DatabaseDate | None = None
    refusals: int = 0
    failure: str | None = None
    vanished: str | None = None
    intervals: float | None = None
    raised: frozenset[str] = frozenset()

    def lasted(self, gap_s: float) -> float:
        """Return the length of a gap that lasts until now, in polling intervals."""
        return gap_s / self.interval_s if self.intervals is None else self.intervals


class AuditContext(NamedTuple):
    """All inputs of a check. `counts` is of the audit that measured, if this one did not.

    `max_drift_ppm` is the assumed largest drift of the oscillator, by which intervals grow (R4).
    """

    observation: Observation
    selection: Selection
    profile: Profile
    history: History | None = None
    counts: SourceCounts | None = None
    max_drift_ppm: float = MAX_DRIFT_PPM

    @property
    def verdict(self) -> Verdict:
        """The verdict on the critical tolerance."""
        agreement = self.selection.agreement
        if agreement is None:
            return "unmeasured"
        return self.profile.verdict(agreement.interval, guaranteed=agreement.is_guaranteed)

    @property
    def offset_severity(self) -> Severity:
        """The severity of the offset alone."""
        agreement = self.selection.agreement
        if agreement is None:
            return self.profile.severity(None, 0)
        return self.profile.severity(agreement.interval, agreement.estimate_ns, guaranteed=agreement.is_guaranteed)

    @property
    def is_unguaranteed(self) -> bool:
        """Whether there is an interval, but too few servers gave a usable reply for it to prove anything (R1)."""
        return self.selection.agreement is not None and not self.selection.agreement.is_guaranteed

    @property
    def disputed_ns(self) -> int | None:
        """The least difference of the servers' time from the database's, positive if ahead; None if unknown."""
        agreement, database = self.selection.agreement, self.history.database if self.history else None
        return None if agreement is None or database is None else disputed_ns(agreement.interval, database.interval)


Raised = tuple[Level, str] | None


def check_offset_out(context: AuditContext) -> Raised:
    """NTPA-01: the whole interval lies outside the critical tolerance, |offset| - bound > T."""
    agreement = context.selection.agreement
    if agreement is None or context.verdict != "beyond":
        return None
    wrong_s = min_error_s(agreement.interval)
    message = (
        f"the clock is at least {format_duration(wrong_s, rounding='down')} {direction(agreement.estimate_ns)} "
        f"(limit {format_duration(context.profile.critical_s)})"
    )
    if wrong_s > 300:
        message += "; beyond 300 s, Kerberos and token logins also fail"
    elif wrong_s > 60:
        message += "; beyond 60 s, a correlation over 5 minutes loses a fifth of its event pairs"
    return "critical", message


def check_not_demonstrable(context: AuditContext) -> Raised:
    """NTPA-09: the interval is partly inside and partly outside the critical tolerance, so nothing is proven."""
    agreement = context.selection.agreement
    if agreement is None or context.verdict != "unproven" or context.is_unguaranteed:
        return None  # without a guarantee the width of the interval is not the cause: see source-quorum
    return "medium", (
        f"the clock is not proven to be within {format_duration(context.profile.critical_s)}: "
        f"it may be up to {format_duration(max_error_s(agreement.interval), rounding='up')} wrong"
    )


def check_offset_high(context: AuditContext) -> Raised:
    """The estimate or the maximum error exceeds the warning tolerance, or the maximum error the critical one."""
    agreement, profile = context.selection.agreement, context.profile
    if agreement is None or context.is_unguaranteed or context.offset_severity is Severity.OK:
        return None
    warning = f"over the warning tolerance of {format_duration(profile.warning_s)}"
    if profile.judged_on == "offset" and abs(agreement.estimate_ns) / NS_PER_S > profile.warning_s:
        estimate = format_duration(agreement.estimate_ns / NS_PER_S, rounding="up")
        return "medium", f"the clock is {estimate} {direction(agreement.estimate_ns)}, {warning}"
    bound = f"the clock may be up to {format_duration(max_error_s(agreement.interval), rounding='up')} wrong"
    if profile.judged_on == "bound":
        return "medium", f"{bound}, {warning}"
    return "medium", f"{bound}, over the critical tolerance of {format_duration(profile.critical_s)}"


def check_unmeasured(context: AuditContext) -> Raised:
    """The offset is unknown: no usable measurement, no majority, and nothing to carry forward."""
    if context.selection.agreement is not None:
        return None
    if context.selection.usable:
        reason = "no majority of the sources agrees"
    elif context.selection.sources:
        reason = "no source gave a usable measurement"
    elif context.history is None:
        reason = "there is no server to query"
    else:
        reason = "no earlier measurement can be carried forward"
    return "medium", f"the offset is unknown: {reason}"


def check_no_usable_source(context: AuditContext) -> Raised:
    """No source can be used, although not all of them are unreachable."""
    sources = context.selection.sources
    if not sources or context.selection.usable or all(classified.status == "unreachable" for classified in sources):
        return None
    is_skipped = all(classified.status == "skipped" for classified in sources)
    if len(sources) == 1:
        summary = f"the only source {'was not queried' if is_skipped else 'cannot be used'}"
    else:
        summary = f"none of {len(sources)} sources {'was queried' if is_skipped else 'can be used'}"
    old = _from_before_release(context)
    if len(old) == len(sources):
        return "medium", f"{summary}: {_before_release(context)}"
    shown = ", ".join(f"{classified.source.name} ({_why_unusable(classified)})" for classified in sources[:4])
    more = f" and {len(sources) - 4} more" if len(sources) > 4 else ""
    return "medium", f"{summary}: {shown}{more}" + (f"; {_before_release(context)}" if old else "")


def _why_unusable(classified: ClassifiedSource) -> str:
    if classified.status == "distant" and classified.candidate:
        width_s = classified.candidate.interval.half_width_ns / NS_PER_S
        return f"distant: maximum error {format_duration(width_s, rounding='up')}"
    return classified.reason or classified.status


def _from_before_release(context: AuditContext) -> list[ClassifiedSource]:
    return [classified for classified in context.selection.sources if classified.reason == BEFORE_RELEASE]


def _before_release(context: AuditContext) -> str:
    """Describe sources that report a time before this release, and the probable cause (W3)."""
    sources = _from_before_release(context)
    times_ns = [classified.best.received_ns - ERA_S * NS_PER_S for classified in sources if classified.best]
    names = _joined([classified.source.name for classified in sources[:4]] + ["others"] * (len(sources) > 4))
    is_one = len(sources) == 1
    date, release = format_utc(times_ns[0])[:10], format_utc(PIVOT_NS)[:10]
    summary = f"{names} {'reports' if is_one else 'report'} {date}, earlier than this release accepts ({release})"
    behind_ns = context.observation.taken.realtime_ns - times_ns[0]
    rollover = " and 1024 weeks before this host's time: a GPS week rollover" if _is_rollover(behind_ns) else ""
    suspect = "this server is" if is_one else "these servers are"
    return f"{summary}{rollover}; {suspect} probably wrong, so it is unknown whether this host is behind or ahead"


def _is_rollover(behind_ns: int) -> bool:
    """Whether a server is 1024 weeks behind, within a day: GPS counts weeks modulo 1024."""
    return abs(behind_ns - 1024 * 7 * DAY_S * NS_PER_S) < DAY_S * NS_PER_S


def check_source_quorum(context: AuditContext) -> Raised:
    """NTPA-14: too few sources, no majority, too many falsetickers, or one failure domain for all sources."""
    usable = context.selection.usable
    falsetickers = [classified.source.name for classified in usable if classified.status == "falseticker"]
    if usable and all(classified.reason == "no-majority" for classified in usable):
        return "medium", f"{plural(len(usable), 'source')} replied, and no majority agrees"
    if falsetickers and context.history is not None and context.history.contradiction is not None:
        return "medium", _contradiction(falsetickers, context.history.contradiction)
    if usable and not context.selection.is_sufficient:
        queried = plural(len(context.selection.asked), "server")
        return (
            "medium",
            f"only {len(usable)} of {queried} gave a usable reply: that many may be falsetickers, so nothing is proven",
        )
    old = _from_before_release(context)
    if usable and 3 * len(old) >= len(context.selection.asked):
        return "medium", _before_release(context)
    agreement = context.selection.agreement
    verb = "disagrees" if len(falsetickers) == 1 else "disagree"
    disagreeing = f"{len(falsetickers)} of {plural(len(usable), 'source')} {verb}: {', '.join(falsetickers)}"
    has_more_falsetickers = agreement is not None and agreement.exceeded_assumption
    if falsetickers and (has_more_falsetickers or 3 * len(falsetickers) >= len(usable)):
        return "medium", disagreeing
    if has_more_falsetickers:  # than max_falsetickers, and no overlap is deep enough to identify them
        return "medium", f"the {plural(len(usable), 'source')} cannot all be right, and it is unknown which is wrong"
    if own := [classified.source.name for classified in usable if _is_this_host(classified.source)]:
        subject = f"{own[0]} is this host: it" if len(own) == 1 else f"{_joined(own)} are this host: they"
        return "medium", f"{subject} would compare the clock with itself"
    if loops := [classified.source.name for classified in usable if classified.reason == "sync-loop"]:
        subject = f"{loops[0]} reports" if len(loops) == 1 else f"{_joined(loops)} report"
        return "medium", f"{subject} this host as the reference: the clock would be compared with itself"
    if len(usable) == 1:
        only = "only one source" if len(context.selection.sources) == 1 else "only one source is usable"
        return "medium", f"{only}: if it is wrong, nothing detects it"
    failure_domains = [classified.candidate.failure_domains for classified in usable if classified.candidate]
    if len(usable) > 1 and len(independent_groups(failure_domains)) == 1:
        return "low", "all sources share one network or one upstream server, so they can all be wrong together"
    if falsetickers:
        return "low", disagreeing
    if usable and old:
        return "low", _before_release(context)
    if 1 < len(usable) < 4:
        return "low", f"only {len(usable)} sources: 4 are needed to outvote one falseticker (RFC 8633, section 3.2)"
    return None


def check_unsynced(context: AuditContext) -> Raised:
    """NTPA-05: the kernel reports an unsynchronised clock, and nothing contradicts it (A4, A5)."""
    kernel, daemons = context.observation.kernel, _disciplining(context)
    if isinstance(kernel, Unavailable) or kernel.is_synchronised or _is_booting(context):
        return None
    if any(daemon.name == "chronyd" for daemon in daemons):
        return None  # A5: chronyd clears STA_UNSYNC only with `rtcsync`
    summary = "the kernel reports that its clock is not synchronised"
    if not daemons and (hidden := _hidden_daemons(context)) is not None:
        return "medium", f"{summary}; whether a time daemon disciplines it is unknown: {hidden}"
    vanished = context.history.vanished if context.history else None
    cause = f"and {vanished}, which disciplined it, has stopped" if vanished else "and no time daemon disciplines it"
    if daemons:
        verb = "runs" if len(daemons) == 1 else "run"
        cause = f"although {_joined([daemon.name for daemon in daemons])} {verb}"
    return "high", f"{summary}, {cause}: at 50 ppm it drifts by 1 s in 5.6 h"


def check_daemon_count(context: AuditContext) -> Raised:
    """NTPA-17: no time daemon disciplines this clock, or more than one.

    The kernel reports a synchronised clock for up to 8.9 h after the daemon died (A4). So its report does not clear
    this finding if a known daemon has stopped, or if all processes are visible and the kernel's maximum error has only
    grown (R12).
    """
    daemons, kernel = _disciplining(context), context.observation.kernel
    vanished = context.history.vanished if context.history else None
    if not daemons and check_unsynced(context) is not None:
        # One cause, one finding: `unsynced`. A finding raised earlier stays until that one is raised.
        raised = context.history.raised if context.history else frozenset()
        if "daemon-count" not in raised or "unsynced" in raised:
            return None
    if not daemons and vanished is not None:
        return "medium", f"{vanished} has stopped, and no other time daemon was found"
    if len(daemons) > 1:
        return "medium", "several programs discipline this clock: " + ", ".join(
            f"{daemon.name} (pid {daemon.pid})" for daemon in daemons
        )
    if daemons or _is_booting(context) or _hidden_daemons(context) is not None:
        return None
    if isinstance(kernel, KernelState) and kernel.is_synchronised:
        stale_s = context.history.stale_s if context.history else None
        if stale_s is None or stale_s < VANISHED_S or context.observation.host.container is not None:
            return None  # a daemon outside this container may discipline the clock
        ago = format_duration(stale_s, rounding="down")
        return "medium", f"no time daemon runs, and the kernel clock was not updated for {ago}: nothing corrects it"
    return "medium", "no time daemon disciplines this clock: nothing corrects it"


def check_tz_or_rtc_fault(context: AuditContext) -> Raised:
    """NTPA-15: the offset is within 15 s of a multiple of 15 minutes, or the hardware clock keeps local time."""
    agreement = context.selection.agreement
    if agreement is not None and not context.is_unguaranteed:
        wrong_s = abs(agreement.estimate_ns) / NS_PER_S
        zones = round(wrong_s / ZONE_STEP_S)
        if abs(wrong_s - ZONE_STEP_S * zones) < 15 and 885 <= wrong_s <= 14 * 3600 + 15:
            return "high", (
                f"the clock is almost exactly {_quarters(zones)} {direction(agreement.estimate_ns)}: "
                "a wrong time zone or a hardware clock in local time, not drift"
            )
    if context.observation.host.rtc_local:
        return (
            "low",
            "the hardware clock keeps local time: the time may be wrong after a boot or a daylight saving change",
        )
    return None


def check_unreachable_sources(context: AuditContext) -> Raised:
    """Some sources did not reply, or their names have no known address."""
    unreachable = [classified for classified in context.selection.sources if classified.status == "unreachable"]
    if not unreachable:
        return None
    unresolved = [classified for classified in unreachable if (classified.reason or "").startswith("name-")]
    silent = [classified for classified in unreachable if classified not in unresolved]
    count = plural(len(context.selection.sources), "source")
    parts = []
    if silent:
        parts.append(f"{len(silent)} of {count} did not reply: {_listed(silent)}")
    if unresolved:
        have = "has" if len(unresolved) == 1 else "have"
        parts.append(f"{len(unresolved)} of {count} {have} no known address: {_listed(unresolved)}")
    level: Level = "medium" if 2 * len(unreachable) >= len(context.selection.sources) else "low"
    return level, "; ".join(parts)


def _listed(sources: Sequence[ClassifiedSource]) -> str:
    shown = ", ".join(f"{classified.source.name} ({classified.reason})" for classified in sources[:4])
    return f"{shown} and {len(sources) - 4} more" if len(sources) > 4 else shown


def check_kiss_of_death(context: AuditContext) -> Raised:
    """A server limits or refuses our queries (K2, K3), or has no time to give (K4)."""
    kod_sources = [
        classified
        for classified in context.selection.sources
        if classified.reason and classified.reason.startswith("kod:")
    ]
    if not kod_sources:
        return None
    names = ", ".join(
        f"{classified.source.name} ({classified.reason.removeprefix('kod:')})"
        for classified in kod_sources
        if classified.reason
    )
    if any(classified.reason in ("kod:RATE", "kod:DENY", "kod:RSTR") for classified in kod_sources):
        return "medium", f"kiss-o'-death from {names}: the server limits or refuses queries from this host"
    return "low", f"kiss-o'-death instead of a time from {names}"


def check_suspected_spoofing(context: AuditContext) -> Raised:
    """Many replies match no query of ours: an attacker guesses (V5, RFC 8633 §5.3)."""
    forged: Counter[str] = Counter()
    for classified in context.selection.sources:
        forged[classified.source.name] += sum(
            classified.source.discarded.get(code, 0) for code in ("bogus", "zero-origin")
        )
    count = forged.total()
    if not count >= SPOOFED_DATAGRAMS:
        return None
    names = ", ".join(name for name, hits in forged.most_common(4) if hits)
    return "high", f"{count} replies match no query of this host; they claim to come from {names}"


def check_step_back(context: AuditContext) -> Raised:
    """NTPA-02: the clock was set back, so logs have some timestamps twice and out of order."""
    return _step(context, "step-back")


def check_step_forward(context: AuditContext) -> Raised:
    """The clock was set forward: logs have a hole, and timers of the skipped time fire at once."""
    return _step(context, "step-forward")


def check_evidence_gap(context: AuditContext) -> Raised:
    """NTPA-07: no measurement for more than three intervals, or records were lost before delivery."""
    history = context.history
    if history is None:
        return None
    if history.dropped_records:
        was = "was" if history.dropped_records == 1 else "were"
        return "high", (
            f"{plural(history.dropped_records, 'record')} {was} lost before delivery: the history was full, or could "
            "not be written when the agent was killed"
        )
    if history.ended_gap_s is not None and not history.lasted(history.ended_gap_s) <= GAP_INTERVALS:
        level: Level = "high" if history.ended_gap_s > DAY_S else "medium"
        return level, f"no measurement for {format_duration(history.ended_gap_s)} before this one"
    if history.unmeasured_s is None or history.lasted(history.unmeasured_s) <= GAP_INTERVALS:
        return None
    return "high" if history.unmeasured_s > DAY_S else "medium", (
        f"no measurement for {format_duration(history.unmeasured_s)} "
        f"(one is expected every {format_duration(history.interval_s)})"
    )


def check_contradicts_earlier(context: AuditContext) -> Raised:
    """R6: more servers than may be wrong contradict the earlier measurement, carried forward."""
    contradiction = context.history.dropped_agreement if context.history else None
    if contradiction is None:
        return None
    expected, reported, age_s = contradiction.expected, contradiction.reported, contradiction.age_s
    verb = "contradicts" if contradiction.sources == 1 else "contradict"
    return "high", (
        f"{plural(contradiction.sources, 'server')} {verb} the measurement made {format_duration(age_s)} earlier by at "
        f"least {format_duration(contradiction.gap_ns / NS_PER_S, rounding='down')}. Expected offset: "
        f"{format_offset(expected.earliest_ns / NS_PER_S)} to {format_offset(expected.latest_ns / NS_PER_S)}; "
        f"reported: {format_offset(reported.earliest_ns / NS_PER_S)} to "
        f"{format_offset(reported.latest_ns / NS_PER_S)}. The earlier measurement is discarded"
    )


def check_delivery_refused(context: AuditContext) -> Raised:
    """The database refuses every write, so the fleet sees no new data of this host. The records are not the cause."""
    history = context.history
    if history is None or history.refusals < MANY_REFUSALS:
        return None
    last = f"; last error: {history.failure}" if history.failure else ""
    return "medium", f"the database has refused {history.refusals} writes and accepted none{last}"


def check_daemon_stale(context: AuditContext) -> Raised:
    """NTPA-06: no time daemon has updated the kernel's clock for long: it is stopped or lost its servers (A4)."""
    stale_s = context.history.stale_s if context.history else None
    if stale_s is None or stale_s <= _stale_limit_s(context):
        return None
    level: Level = "high" if stale_s > DAY_S else "medium"
    ago = format_duration(stale_s, rounding="down")
    # "maximum error" and not "clock": VirtualBox's service corrects the clock and does not update the error.
    return level, f"no time daemon has updated the kernel's maximum error for {ago}: it has only grown"


def check_breach_forecast(context: AuditContext) -> Raised:
    """NTPA-16: the clock drifts out of its tolerance within a day, or its oscillator is bad."""
    drift = context.history.drift if context.history else None
    if drift is None or drift.raw_frequency_ppm is None:
        return None
    breach, rate_ppm = drift.breach, drift.frequency_ppm
    is_near = breach.central_s is not None and 0 < breach.central_s <= DAY_S  # a breach in the past is not a forecast
    is_drift = rate_ppm is not None and abs(rate_ppm) > drift.skew_ppm  # a drift that may be zero gives no forecast
    if rate_ppm is not None and breach.central_s is not None and is_near and is_drift and not breach.free_running:
        early_s = breach.pessimistic_s  # None until past forecasts give the width of the band (R9)
        early = "" if early_s is None else f" (95 %: not within {format_duration(early_s, rounding='down')})"
        return "medium", (
            f"the clock drifts by {format_duration(rate_ppm * DAY_S / 1e6)} a day and will be "
            f"{format_duration(context.profile.critical_s)} wrong in {format_duration(breach.central_s)}{early}"
        )
    if abs(drift.raw_frequency_ppm) - drift.skew_ppm > BAD_OSCILLATOR_PPM:
        return (
            "low",
            f"the oscillator is {abs(drift.raw_frequency_ppm):.0f} ppm off: faulty hardware or a faulty hypervisor",
        )
    return None


def check_time_disputed(context: AuditContext) -> Raised:
    """The database's clock, which is independent of the servers, contradicts their time."""
    disputed = context.disputed_ns
    if not disputed:
        return None
    way = "ahead of" if disputed > 0 else "behind"
    level: Level = "high" if abs(disputed) > context.profile.critical_s * NS_PER_S else "medium"
    return level, (
        f"the time of the NTP servers is at least {format_duration(disputed / NS_PER_S, rounding='down')} {way} the "
        "database's clock: one of the two is wrong"
    )


Basis = Literal["network", "host", "moment"]


class Rule(NamedTuple):
    """A check and the constant parts of its finding; `make docs` generates docs/findings.md from them.

    - `controls`: the requirements of standards that the finding bears on.
    - `raised_when`: for each level, or for several such as "high, medium", the condition.
    - `message_id`: MESSAGE_ID of its entries in systemd's journal; never changed, because others match on it.
    - `needs_agent`: True if a one-shot check cannot detect it.
    - `basis`: what gives an agent a new sample: a network audit, any audit of the host, or ("moment") none is needed,
      because the finding is raised at once.
    - `least_s`: how long the condition must hold before an agent raises it (INTEGRITY §1.5).
    - `covered_by`: more severe or more exact rules; this finding is not listed while one of them is raised and counts.
    - `counts_as`: the severity, if it is not that of the level.
    """

    id: str
    check: Callable[[AuditContext], Raised]
    remedy: str
    controls: tuple[str, ...]
    raised_when: Mapping[str, str]
    message_id: str
    basis: Basis = "network"
    least_s: float = 0.0
    needs_agent: bool = False
    covered_by: tuple[str, ...] = ()
    counts_as: Severity | None = None


RULES = (
    Rule(
        "offset-out",
        check_offset_out,
        "restart or repair the time daemon and check its sources; keep this record to correct the affected logs",
        (_ISO, _PCI, _AU8, "FINRA 4590", "ETSI EN 319 421"),
        raised_when={
            "critical": "the whole interval is outside the critical tolerance: the clock is certainly wrong",
        },
        message_id="1643120d7614412ea6edd9a41b2c652f",
    ),
    Rule(
        "step-back",
        check_step_back,
        "do not rely on the order of log entries in that window; allow the time daemon to step only during boot",
        (_ISO, _PCI_CHANGES, "Insider Threat Matrix AF032"),
        raised_when={
            "high": (
                "the clock was set back by 1 s or more; the message gives the window whose timestamps occur twice. A "
                "leap second that the kernel inserts, or that the servers announced, is not a step"
            ),
            "medium": "the same, by at least 10 ms and less than 1 s",
            "low": (
                "the same, by 10 ms or more within 5 minutes after the boot. A smaller step is an event of this level, "
                "not a finding"
            ),
        },
        message_id="67034e6221f14875bb57585b1894c249",
        basis="moment",
        needs_agent=True,
    ),
    Rule(
        "step-forward",
        check_step_forward,
        "find out what set the clock; allow the time daemon to step only during boot",
        (_ISO, _PCI_CHANGES, "Insider Threat Matrix AF032"),
        raised_when={
            "high": "the clock was set forward by 1 s or more; the message gives the window missing in the logs",
            "medium": "the same, by at least 10 ms and less than 1 s",
            "low": (
                "the same, by 10 ms or more within 5 minutes after the boot. A smaller step is an event of this level, "
                "not a finding"
            ),
        },
        message_id="94061a08892d408ba9c672acc87c2156",
        basis="moment",
        needs_agent=True,
    ),
    Rule(
        "evidence-gap",
        check_evidence_gap,
        "restore the path to the servers (UDP 123 outbound) or the agent; the gap stays in the record",
        ("NIS2 2024/2690 3.2.6", "PCI DSS 10.7.3", "SOC 2 CC7"),
        raised_when={
            "high": "no measurement for more than a day, or records were lost before delivery",
            "medium": "no measurement for more than three polling intervals, or such a gap has just ended",
        },
        message_id="5bbeb38870d342bf84ace8ac21775a0d",
        basis="moment",
        needs_agent=True,
    ),
    Rule(
        "contradicts-earlier",
        check_contradicts_earlier,
        "check whether the virtual machine was paused, whether the servers share a wrong source, and whether the "
        "oscillator drifts more than host.max_drift_ppm",
        (_AU8, _SC45),
        raised_when={
            "high": (
                "the servers contradict the earlier measurement, carried forward, and more of them do than that "
                "measurement allows to be wrong. Possible causes: all servers changed together, CLOCK_MONOTONIC_RAW "
                "was disturbed (a paused virtual machine), or the oscillator drifts more than assumed. The message "
                "has both intervals and their distance, which is the event's value. The earlier measurement is "
                "discarded at once. Listed for an hour"
            ),
        },
        message_id="a0849a205f2d4597ab6d588afb98bbea",
        basis="moment",
        needs_agent=True,
    ),
    Rule(
        "delivery-refused",
        check_delivery_refused,
        "check influxdb.url, the token and every proxy on the path to the database; all records are kept until then",
        ("NIS2 2024/2690 3.2.6", "PCI DSS 10.7.3"),
        raised_when={
            "medium": "the database has refused at least three writes and accepted none, for 10 minutes",
        },
        message_id="0dac82f0e905477c981ca667e607b40f",
        basis="host",
        least_s=600.0,
        needs_agent=True,
    ),
    Rule(
        "daemon-stale",
        check_daemon_stale,
        "check that the time daemon runs and reaches its servers; it must poll at least every 17 min (maxpoll 10)",
        ("DISA STIG V-257945", "FedRAMP SC-45(1)", "FINRA 4590"),
        raised_when={
            "high": "no time daemon has updated the kernel's clock for a day: its maximum error has only grown",
            "medium": "the same, for an hour (1.7 h if systemd-timesyncd runs)",
        },
        message_id="69d61b2c5c394937a03aab962f6ff9b9",
        basis="host",
        least_s=600.0,
        needs_agent=True,
    ),
    Rule(
        "breach-forecast",
        check_breach_forecast,
        "start the time daemon, or check the host's clock source, before the clock exceeds its tolerance",
        (_ISO, "ISO/IEC 27002 8.17"),
        raised_when={
            "medium": "no time daemon disciplines the clock, and it will drift out of its tolerance within a day",
            "low": "the oscillator is more than 100 ppm off",
        },
        message_id="e1eed9751290471d80861efa38911f68",
        needs_agent=True,
    ),
    Rule(
        "not-demonstrable",
        check_not_demonstrable,
        "use nearer servers or more samples, or a tolerance that these servers can prove",
        ("FINRA 4590(b)", "RTS 25 Art. 4", "ETSI EN 319 421"),
        raised_when={
            "medium": "the verdict is `unproven`: the interval is only partly within the critical tolerance",
        },
        message_id="ee4a9f8bbb184e6da093ada6f7a41fac",
        least_s=3600.0,
    ),
    Rule(
        "offset-high",
        check_offset_high,
        "check the time daemon and its sources before the critical tolerance is reached",
        (_ISO, _AU8, "ISO/IEC 27002 8.17"),
        raised_when={
            "medium": (
                "the offset exceeds the warning tolerance (the maximum error, if the profile judges the bound), or the "
                "interval is partly outside the critical tolerance. Not listed while offset-out or not-demonstrable "
                "is raised"
            ),
        },
        message_id="3c17354d88624c51b1f975fafd58d728",
        covered_by=("offset-out", "not-demonstrable"),
    ),
    Rule(
        "unmeasured",
        check_unmeasured,
        "if no source is listed, configure at least 4 servers; otherwise check the status and reason of each source",
        (_ISO, "NIS2 2024/2690 3.2.6", "SOC 2 CC7"),
        raised_when={
            "medium": (
                "the verdict is `unmeasured`: the offset is unknown. The severity is unknown. Not listed while "
                "source-quorum, no-usable-source, unreachable-sources or evidence-gap is raised and counts"
            ),
        },
        message_id="8e909819441947b8a1da3ea58033ba57",
        basis="moment",
        covered_by=("source-quorum", "no-usable-source", "unreachable-sources", "evidence-gap"),
        counts_as=Severity.UNKNOWN,
    ),
    Rule(
        "no-usable-source",
        check_no_usable_source,
        "check that these servers are synchronised (chronyc tracking, ntpq -p), or configure others; replace distant "
        "servers with nearer ones",
        (_PCI, "CIS Controls 8.4"),
        raised_when={
            "medium": (
                "no source can be used, although not all are unreachable: each is distant, rejected, skipped or "
                "unreachable. The message gives the reason of each"
            ),
        },
        message_id="0ecb7f80ee644c54a183a67e4e0a1b19",
    ),
    Rule(
        "source-quorum",
        check_source_quorum,
        "configure at least 4 independent servers at two sites",
        ("CIS Controls 8.4", "NIST SP 800-53 SC-45(2)", "FedRAMP SC-45"),
        raised_when={
            "medium": (
                "one of these: sources replied and no majority agrees; at least a third are falsetickers, or must be, "
                "although none can be identified; at least a third report a time before this release; a source is this "
                "host, or follows this host; only one source is usable; no more sources are usable than may be "
                "falsetickers among the queried ones; servers contradict a larger agreement of the last day, and no "
                "more of them than may be wrong (agent)"
            ),
            "low": (
                "one of these: all usable sources share a /24, a /48 or an upstream server; fewer than a third are "
                "falsetickers or report a time before this release; fewer than 4 sources are usable"
            ),
        },
        message_id="39a766605369401dac99b798314707f1",
    ),
    Rule(
        "time-disputed",
        check_time_disputed,
        "compare these servers with independent ones, and audit the clock of the database host",
        (_ISO, _PCI, _SC45),
        raised_when={
            "high": (
                "the database's clock contradicts the interval on which the servers agree by more than the critical "
                "tolerance. The database's clock is the Date header of its reply to a write, within 2 s and the "
                "duration of the request"
            ),
            "medium": "the same, by less",
        },
        message_id="2d47e4ee908b42278a9305e63c656091",
        basis="host",
        needs_agent=True,
    ),
    Rule(
        "unsynced",
        check_unsynced,
        "run exactly one time daemon, and check that it reaches its servers on UDP 123",
        (_ISO, _PCI, _AU8, _SC45),
        raised_when={
            "high": (
                "the kernel reports that its clock is not synchronised (STA_UNSYNC, TIME_ERROR or a maximum error of "
                "16 s), chronyd does not discipline it, and the host has been up for 17 minutes"
            ),
            "medium": "the same, if a time daemon may run that ntpaudit cannot see",
        },
        message_id="9a524159e9264fc9b92579cb3a737428",
        basis="host",
        least_s=600.0,
    ),
    Rule(
        "daemon-count",
        check_daemon_count,
        "enable exactly one time daemon and mask the others",
        ("CIS Benchmark 2.3.1.1", "DISA STIG V-270645"),
        raised_when={
            "medium": (
                "more than one time daemon disciplines the clock; or none does, none is hidden, the kernel's state "
                "cannot be read, and the host has been up for 17 minutes (if the kernel reports an unsynchronised "
                "clock, `unsynced` is raised instead). An agent also raises it 10 minutes after the last time daemon "
                "stopped, although the kernel still reports a synchronised clock; and outside containers, if no time "
                "daemon was found, none is hidden, and the kernel's maximum error has only grown for 20 minutes"
            ),
        },
        message_id="18c86cc2393243b3aa73dd48222fddc4",
        basis="host",
        least_s=600.0,
    ),
    Rule(
        "tz-or-rtc-fault",
        check_tz_or_rtc_fault,
        "run 'timedatectl set-local-rtc 0', check the time zone, then correct the clock",
        (_AU8, "OWASP ASVS 16.2.2"),
        raised_when={
            "high": "the offset is 15 min to 14 h, and within 15 s of a multiple of 15 min",
            "low": "the hardware clock keeps local time",
        },
        message_id="770eeae8b2ef45858a1d595acdbcbab6",
    ),
    Rule(
        "unreachable-sources",
        check_unreachable_sources,
        "check DNS names, routes and firewalls (UDP 123 outbound); remove servers that no longer exist",
        (_PCI, "CIS Controls 8.4"),
        raised_when={
            "medium": "at least half of the sources did not reply, or have no known address",
            "low": "the same, fewer sources",
        },
        message_id="987b67e99ad8431b98eeb6edf87b3081",
    ),
    Rule(
        "kiss-of-death",
        check_kiss_of_death,
        "poll less often, or use servers that you may use; ntpaudit does not query this server for now",
        (),
        raised_when={
            "medium": "a server replied with kiss-o'-death RATE, DENY or RSTR",
            "low": "the same, with another code",
        },
        message_id="575fb3bd91da48048b91668c746e8d6b",
    ),
    Rule(
        "suspected-spoofing",
        check_suspected_spoofing,
        "check UDP port 123 traffic to this host for forged packets; use servers with authentication (NTS)",
        (_PCI, _SC45),
        raised_when={
            "high": "at least three replies match no query of this host",
        },
        message_id="c48e46b097b14e5eaaf5fcabc470f3f0",
    ),
)


def findings_of(context: AuditContext) -> tuple[Finding, ...]:
    """Run every rule; return the findings, worst first, and those of one level in the order of `RULES`."""
    found = [(rule, make_finding(rule, raised)) for rule in RULES if (raised := rule.check(context)) is not None]
    counted = {finding.id for _, finding in found if finding.severity > Severity.OK}
    return worst_first(finding for rule, finding in found if counted.isdisjoint(rule.covered_by))


def make_finding(rule: Rule, raised: tuple[Level, str]) -> Finding:
    """Make a finding from the result of a rule's check."""
    level, message = raised
    severity = LEVEL_SEVERITY[level] if rule.counts_as is None else rule.counts_as
    return Finding(rule.id, severity, level, message, rule.remedy, rule.controls)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by level; the sort is stable."""
    order = list(LEVEL_SEVERITY)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))


def _disciplining(context: AuditContext) -> tuple[Daemon, ...]:
    """Return the time daemons that certainly discipline this clock."""
    return tuple(daemon for daemon in context.observation.known_daemons if daemon.disciplines)


def _hidden_daemons(context: AuditContext) -> str | None:
    """Return why an unknown time daemon may discipline this clock; None if all of them are visible."""
    observation = context.observation
    unsure = [daemon for daemon in observation.known_daemons if daemon.disciplines is None]
    if unsure:
        return f"{unsure[0].name} (pid {unsure[0].pid}): {unsure[0].reason}"
    return observation.daemons_hidden


def _step(context: AuditContext, kind: str) -> Raised:
    """Report the worst step of the last hour in one direction."""
    steps = [step for step in context.history.steps if step.kind == kind] if context.history else []
    steps = [step for step in steps if abs(step.size_ns) >= MIN_STEP_S * NS_PER_S]
    worst = max(steps, key=step_severity_key, default=None)
    return None if worst is None else (level_of_step(worst), describe_step(worst))


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
    way, effect = ("back", "occur twice") if step.size_ns < 0 else ("forward", "are missing")
    window = f"{format_utc(min(step.before_ns, step.after_ns))} to {format_utc(max(step.before_ns, step.after_ns))}"
    unwatched = " while no agent was running" if step.is_gap else ""
    size = format_duration(step.size_ns / NS_PER_S)
    return f"the clock was set {way} by {size}{unwatched}; timestamps {effect}: {window}"


def _contradiction(names: list[str], contradiction: Contradiction) -> str:
    verb = "contradicts" if len(names) == 1 else "contradict"
    agreed = f"the {plural(contradiction.agreeing, 'server')} that agreed {format_duration(contradiction.age_s)} ago"
    return f"{_joined(names)} {verb} {agreed}"


def _joined(names: Sequence[str]) -> str:
    """Join names for a sentence: a; a and b; a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _stale_limit_s(context: AuditContext) -> float:
    slow = any(daemon.name == "systemd-timesyncd" for daemon in _disciplining(context))
    return STALE_TIMESYNCD_S if slow else STALE_S


def _quarters(count: int) -> str:
    """Format quarters of an hour exactly, for example 45 min or 12.75 h."""
    return f"{15 * count} min" if count < 8 else f"{count / 4:g} h"


def _is_booting(context: AuditContext) -> bool:
    return context.observation.taken.boottime_ns < BOOT_GRACE_NS


def _is_this_host(source: SourceObservation) -> bool:
    """Whether the source is this host's own daemon. On loopback only port 123 is; other ports are test servers."""
    address = source.address or ""
    return source.port == NTP_PORT if is_loopback(address) else source.is_own
