"""Every rule, one small function each, and the list of them.

A check looks at a finished case and says None, or how bad it is and in which words. Adding one: a function, an entry in
`RULES`, a test, and `make docs`, which writes the finding's documentation from the entry.
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
"""A clock that was just started may still be on its way (INTEGRITY, NTPA-05)."""

SPOOFED_DATAGRAMS = 3
"""So many replies with a foreign origin are an attack and no accident (V5, RFC 8633 §5.3)."""

ZONE_STEP_S = 900
"""Time zones differ by multiples of a quarter of an hour."""

GAP_INTERVALS = 3.3
"""Without a measurement for so many intervals, three and their jitter, there is a gap in the evidence (NTPA-07)."""

MANY_REFUSALS = 3
"""A database that refused this many writes in a row, and accepted none, refuses them all."""

DAY_S = 86_400.0

LEAST_STEP_S = 0.01
"""A smaller step is told, and is no finding (NTPA-02)."""

EARLY_STEP_NS = 300 * NS_PER_S
"""A step so soon after the boot is a time daemon's first correction (NTPA-02)."""

STALE_S = 3600.0
"""A daemon that polls at its slowest, 1024 s, is heard of within this (NTPA-06: 3 polls, and 1 h at least)."""

STALE_TIMESYNCD_S = 3 * 2048.0
"""systemd-timesyncd's slowest poll is 2048 s."""

VANISHED_S = 600.0
"""If the kernel has not been updated for this long, no hidden daemon keeps it synchronised (R12)."""

BAD_OSCILLATOR_PPM = 100.0

_ISO = "ISO/IEC 27001 A.8.17"
_PCI = "PCI DSS 10.6.2"
_PCI_CHANGES = "PCI DSS 10.6.3"
_AU8 = "NIST SP 800-53 AU-8"
_SC45 = "NIST SP 800-53 SC-45"


class Contradiction(NamedTuple):
    """The earlier agreement against which this audit's does not stand: of how many servers, and how long ago."""

    agreeing: int
    age_s: float


class DroppedAgreement(NamedTuple):
    """Two agreements that have no point in common: proof that something moved beside the host's clock (R6).

    `expected` is the earlier one, carried forward for `age_s`, `heard` what `sources` servers or more said instead, at
    the uptime `boottime_ns`. Both are intervals of the offset at that moment.
    """

    expected: Interval
    heard: Interval
    sources: int
    age_s: float
    boottime_ns: int

    @property
    def gap_ns(self) -> int:
        """How far they are apart at least; positive where the clock is further behind than expected."""
        ahead_ns = self.heard.latest_ns - self.expected.earliest_ns
        return ahead_ns if ahead_ns < 0 else self.heard.earliest_ns - self.expected.latest_ns


class DatabaseDate(NamedTuple):
    """Where the offset lies if the database's clock is right, and how old that answer of the database is.

    `is_new` says that no audit before this one has judged it: a Date that is only carried forward is no new sample.
    """

    interval: Interval
    age_s: float
    is_new: bool = True


class History(NamedTuple):
    """What only an agent knows, which was there before this observation.

    `unmeasured_s` is how long ago servers last gave a measurement (None: this one did), `ended_gap_s` how long nothing
    had been measured before this one, `interval_s` how often they are asked; `intervals` is how many intervals either
    lasted, each stretch by the one in force then (None: all of it by `interval_s`). `steps` are those of the last hour.
    `stale_s` is how long the kernel's clock has certainly not been updated by a time daemon. `dropped` counts records
    that had to be given up before they were delivered. `outvoted` tells that what the servers asked now agree on is no
    measurement, because more of them said otherwise. `contradiction` is the one of the last hour, if there was one.
    `database` is what the database's clock says.
    `refusals` counts what the database refused since it accepted anything, `failure` is why delivery failed last.
    `vanished` names the time daemon that has ended without a successor (R12). `raised` holds the ids of the findings
    that were raised before.
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
        """Return how many intervals a gap up to now has lasted."""
        return gap_s / self.interval_s if self.intervals is None else self.intervals


class AuditContext(NamedTuple):
    """All that a check may look at. `votes` are those of the audit that measured, where this one did not.

    `max_drift_ppm` is the worst that the oscillator is assumed to be, by which intervals have grown (R4).
    """

    observation: Observation
    selection: Selection
    profile: Profile
    history: History | None = None
    counts: SourceCounts | None = None
    max_drift_ppm: float = MAX_DRIFT_PPM

    @property
    def verdict(self) -> Verdict:
        """What is proven about the critical tolerance."""
        agreement = self.selection.agreement
        if agreement is None:
            return "unmeasured"
        return self.profile.verdict(agreement.interval, guaranteed=agreement.is_guaranteed)

    @property
    def offset_severity(self) -> Severity:
        """How bad the offset alone is."""
        agreement = self.selection.agreement
        if agreement is None:
            return self.profile.severity(None, 0)
        return self.profile.severity(agreement.interval, agreement.estimate_ns, guaranteed=agreement.is_guaranteed)

    @property
    def is_unguaranteed(self) -> bool:
        """There is an interval, and too few servers gave a usable reply for it to prove anything (R1)."""
        return self.selection.agreement is not None and not self.selection.agreement.is_guaranteed

    @property
    def disputed_ns(self) -> int | None:
        """By how much the servers' time is at least ahead of the database's; None where one of the two is unknown."""
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
        f"the clock is at least {format_duration(wrong_s, rounding='down')} {direction(agreement.estimate_ns)}; "
        f"{format_duration(context.profile.critical_s)} is allowed"
    )
    if wrong_s > 300:
        message += "; beyond 300 s logins by Kerberos and tokens fail too"
    elif wrong_s > 60:
        message += "; beyond 60 s correlation over 5 minutes loses a fifth of its pairs"
    return "critical", message


def check_not_demonstrable(context: AuditContext) -> Raised:
    """NTPA-09: the bound is too wide to prove the tolerance kept, |offset| <= T < |offset| + bound, or broken."""
    agreement = context.selection.agreement
    if agreement is None or context.verdict != "unproven" or context.is_unguaranteed:
        return None  # without a guarantee the width of the interval is not the reason: see source-quorum
    return "medium", (
        f"the clock may be up to {format_duration(max_error_s(agreement.interval), rounding='up')} wrong, so a "
        "tolerance of "
        f"{format_duration(context.profile.critical_s)} is neither kept nor broken for certain"
    )


def check_offset_high(context: AuditContext) -> Raised:
    """The clock is over the warning tolerance, by its estimate or its bound; or its bound is over the critical one."""
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
    """Nothing is known of the offset: no usable measurement, no majority, and none to carry forward."""
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
    """None of the sources can be used, although not all of them are unreachable: each with its reason."""
    sources = context.selection.sources
    if not sources or context.selection.usable or all(classified.status == "unreachable" for classified in sources):
        return None
    done = "was queried" if all(classified.status == "skipped" for classified in sources) else "can be used"
    said, old = f"none of {plural(len(sources), 'source')} {done}", _from_before_release(context)
    if len(old) == len(sources):
        return "medium", f"{said}: {_before_release(context)}"
    shown = ", ".join(f"{classified.source.name} ({_why_unusable(classified)})" for classified in sources[:4])
    more = f" and {len(sources) - 4} more" if len(sources) > 4 else ""
    return "medium", f"{said}: {shown}{more}" + (f"; {_before_release(context)}" if old else "")


def _why_unusable(classified: ClassifiedSource) -> str:
    """Give the reason code, and for a distant source how wide its interval is."""
    if classified.status == "distant" and classified.candidate:
        width_s = classified.candidate.interval.half_width_ns / NS_PER_S
        return f"distant: its own error can be {format_duration(width_s, rounding='up')}"
    return classified.reason or classified.status


def _from_before_release(context: AuditContext) -> list[ClassifiedSource]:
    """Return the sources whose time is before this release."""
    return [classified for classified in context.selection.sources if classified.reason == BEFORE_RELEASE]


def _before_release(context: AuditContext) -> str:
    """Say which time the sources give that is before this release, and what may have made them so wrong (W3)."""
    sources = _from_before_release(context)
    times_ns = [classified.best.received_ns - ERA_S * NS_PER_S for classified in sources if classified.best]
    names = ", ".join(classified.source.name for classified in sources[:4]) + (
        " and others" if len(sources) > 4 else ""
    )
    is_one = len(sources) == 1
    date, release = format_utc(times_ns[0])[:10], format_utc(PIVOT_NS)[:10]
    said = f"{names} {'gives' if is_one else 'give'} {date}, before the earliest time this release accepts ({release})"
    behind_ns = context.observation.taken.realtime_ns - times_ns[0]
    rollover = ", 1024 weeks before this host's time: a GPS week rollover" if _is_rollover(behind_ns) else ""
    suspect = "suspect its clock: it does" if is_one else "suspect their clocks: they do"
    return f"{said}{rollover}; {suspect} not show whether this host is behind or ahead"


def _is_rollover(behind_ns: int) -> bool:
    """Whether a server is behind by the 1024 weeks after which GPS counts weeks from zero again, within a day."""
    return abs(behind_ns - 1024 * 7 * DAY_S * NS_PER_S) < DAY_S * NS_PER_S


def check_source_quorum(context: AuditContext) -> Raised:
    """NTPA-14: too few sources, no majority, a third or more lying, few against more before, or one fate for all."""
    usable = context.selection.usable
    falsetickers = [classified.source.name for classified in usable if classified.status == "falseticker"]
    if usable and all(classified.reason == "no-majority" for classified in usable):
        return "medium", f"{plural(len(usable), 'source')} answered and no majority of them agrees"
    if falsetickers and context.history is not None and context.history.contradiction is not None:
        return "medium", _contradiction(falsetickers, context.history.contradiction)
    if usable and not context.selection.is_sufficient:
        asked = plural(len(context.selection.asked), "server")
        return (
            "medium",
            f"only {len(usable)} of {asked} gave a usable reply, and as many may lie: this proves nothing",
        )
    old = _from_before_release(context)
    if usable and 3 * len(old) >= len(context.selection.asked):
        return "medium", _before_release(context)
    agreement = context.selection.agreement
    verb = "disagrees" if len(falsetickers) == 1 else "disagree"
    disagreeing = f"{len(falsetickers)} of {plural(len(usable), 'source')} {verb}: {', '.join(falsetickers)}"
    contradicted = agreement is not None and agreement.exceeded_assumption
    if falsetickers and (contradicted or 3 * len(falsetickers) >= len(usable)):
        return "medium", disagreeing
    if contradicted:  # more lie than were allowed for, and no overlap is deep enough to say who
        return "medium", f"the {plural(len(usable), 'source')} cannot all be right, and nobody can say which is wrong"
    if own := [classified.source.name for classified in usable if _is_this_host(classified.source)]:
        return "medium", f"{', '.join(own)} is this host itself: it compares the clock with its own daemon"
    if loops := [classified.source.name for classified in usable if classified.reason == "sync-loop"]:
        return "medium", f"{', '.join(loops)} says it follows this host: it would tell the host its own time"
    if len(usable) == 1:
        only = "only one source" if len(context.selection.sources) == 1 else "only one source is usable"
        return "medium", f"{only}: nothing would notice if it were wrong"
    fates = [classified.candidate.failure_domains for classified in usable if classified.candidate]
    if len(usable) > 1 and len(independent_groups(fates)) == 1:
        return "low", "all sources share one network or one upstream server, and so can be wrong together"
    if falsetickers:
        return "low", disagreeing
    if usable and old:
        return "low", _before_release(context)
    if 1 < len(usable) < 4:
        return "low", f"{len(usable)} sources: it takes 4 to outvote one that is wrong (RFC 8633, section 3.2)"
    return None


def check_unsynced(context: AuditContext) -> Raised:
    """NTPA-05: the kernel holds its clock for unsynchronised, and nothing contradicts it (A4, A5)."""
    kernel, daemons = context.observation.kernel, _disciplining(context)
    if isinstance(kernel, Unavailable) or kernel.is_synchronised or _is_booting(context):
        return None
    if any(daemon.name == "chronyd" for daemon in daemons):
        return None  # A5: chronyd clears STA_UNSYNC only when told to steer the RTC
    said = "the kernel says that its clock is not synchronised"
    if not daemons and (unseen := _unseen(context)) is not None:
        return "medium", f"{said}; whether a time daemon disciplines it cannot be seen from here: {unseen}"
    vanished = context.history.vanished if context.history else None
    by = f"and {vanished}, which disciplined it, has ended" if vanished else "and no time daemon disciplines it"
    if daemons:
        by = f"although {', '.join(daemon.name for daemon in daemons)} runs"
    return "high", f"{said}, {by}: at 50 ppm it drifts by 1 s in 5.6 h"


def check_daemon_count(context: AuditContext) -> Raised:
    """NTPA-17: none or more than one time daemon disciplines this clock.

    The kernel counts its clock as synchronised for up to 8.9 h after the daemon died (A4). So a daemon that was seen
    and has ended is missed although the kernel is content, and so is any on a host where all processes can be seen and
    the kernel's maximum error has only grown (R12).
    """
    daemons, kernel = _disciplining(context), context.observation.kernel
    vanished = context.history.vanished if context.history else None
    if not daemons and check_unsynced(context) is not None:
        # One cause, one finding: `unsynced` names it. What was raised before stays until that one is raised.
        raised = context.history.raised if context.history else frozenset()
        if "daemon-count" not in raised or "unsynced" in raised:
            return None
    if not daemons and vanished is not None:
        return "medium", f"{vanished} has ended, and no other time daemon is seen to correct this clock"
    if len(daemons) > 1:
        return "medium", "several programs discipline this clock: " + ", ".join(
            f"{daemon.name} (pid {daemon.pid})" for daemon in daemons
        )
    if daemons or _is_booting(context) or _unseen(context) is not None:
        return None
    if isinstance(kernel, KernelState) and kernel.is_synchronised:
        stale_s = context.history.stale_s if context.history else None
        if stale_s is None or stale_s < VANISHED_S or context.observation.host.container is not None:
            return None  # the daemon lives outside this container: somebody keeps the kernel synchronised
        ago = format_duration(stale_s, rounding="down")
        return "medium", f"no time daemon runs, and none has updated the kernel's clock for {ago}: nothing corrects it"
    return "medium", "no time daemon disciplines this clock: nothing corrects it"


def check_tz_or_rtc_fault(context: AuditContext) -> Raised:
    """NTPA-15: the error is a multiple of a quarter of an hour within 15 s, or the hardware clock keeps local time."""
    agreement = context.selection.agreement
    if agreement is not None and not context.is_unguaranteed:
        wrong_s = abs(agreement.estimate_ns) / NS_PER_S
        zones = round(wrong_s / ZONE_STEP_S)
        if abs(wrong_s - ZONE_STEP_S * zones) < 15 and 885 <= wrong_s <= 14 * 3600 + 15:
            return "high", (
                f"the clock is {_quarters(zones)} {direction(agreement.estimate_ns)} almost exactly: "
                "a wrong time zone or a hardware clock in local time, not drift"
            )
    if context.observation.host.rtc_local:
        return "low", "the hardware clock keeps local time: each boot and each change to summer time may be wrong"
    return None


def check_unreachable_sources(context: AuditContext) -> Raised:
    """Some of the sources did not reply, or could not be queried, because their names have no known address."""
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
    """Name the first sources with their reasons."""
    shown = ", ".join(f"{classified.source.name} ({classified.reason})" for classified in sources[:4])
    return f"{shown} and {len(sources) - 4} more" if len(sources) > 4 else shown


def check_kiss_of_death(context: AuditContext) -> Raised:
    """A server asked us to slow down or to go away (K2, K3), or has no time to give (K4)."""
    kissed = [
        classified
        for classified in context.selection.sources
        if classified.reason and classified.reason.startswith("kod:")
    ]
    if not kissed:
        return None
    names = ", ".join(
        f"{classified.source.name} ({classified.reason.removeprefix('kod:')})"
        for classified in kissed
        if classified.reason
    )
    if any(classified.reason in ("kod:RATE", "kod:DENY", "kod:RSTR") for classified in kissed):
        return "medium", f"told to slow down or to stay away by {names}"
    return "low", f"answered with a kiss-o'-death instead of a time: {names}"


def check_suspected_spoofing(context: AuditContext) -> Raised:
    """Many replies came that answer none of our requests: somebody is guessing (V5, RFC 8633 §5.3)."""
    forged: Counter[str] = Counter()
    for classified in context.selection.sources:
        forged[classified.source.name] += sum(
            classified.source.discarded.get(code, 0) for code in ("bogus", "zero-origin")
        )
    count = forged.total()
    if not count >= SPOOFED_DATAGRAMS:
        return None
    names = ", ".join(name for name, hits in forged.most_common(4) if hits)
    return "high", f"{count} replies answered no request of ours, in the name of {names}"


def check_step_back(context: AuditContext) -> Raised:
    """NTPA-02: the clock was set back, so the log of that time has its stamps twice and out of order."""
    return _step(context, "step-back")


def check_step_forward(context: AuditContext) -> Raised:
    """The clock was set forward: the log has a hole, and timers of the time skipped fire at once."""
    return _step(context, "step-forward")


def check_evidence_gap(context: AuditContext) -> Raised:
    """NTPA-07: nothing was measured for more than three intervals, or what was measured had to be given up."""
    history = context.history
    if history is None:
        return None
    if history.dropped_records:
        was = "was" if history.dropped_records == 1 else "were"
        return "high", (
            f"{plural(history.dropped_records, 'record')} {was} lost undelivered: the history was full, or could not "
            "be written "
            "when the agent was killed"
        )
    if history.ended_gap_s is not None and not history.lasted(history.ended_gap_s) <= GAP_INTERVALS:
        level: Level = "high" if history.ended_gap_s > DAY_S else "medium"
        return level, f"nothing had been measured for {format_duration(history.ended_gap_s)} until now"
    if history.unmeasured_s is None or history.lasted(history.unmeasured_s) <= GAP_INTERVALS:
        return None
    return "high" if history.unmeasured_s > DAY_S else "medium", (
        f"no server has given a measurement for {format_duration(history.unmeasured_s)}; one is wanted every "
        f"{format_duration(history.interval_s)}"
    )


def check_contradicts_earlier(context: AuditContext) -> Raised:
    """R6: what more servers say than may be wrong contradicts what was measured earlier and carried forward."""
    contradiction = context.history.dropped_agreement if context.history else None
    if contradiction is None:
        return None
    expected, heard, age_s = contradiction.expected, contradiction.heard, contradiction.age_s
    verb = "contradicts" if contradiction.sources == 1 else "contradict"
    return "high", (
        f"{plural(contradiction.sources, 'server')} {verb} the measurement from {format_duration(age_s)} before: "
        "that allows an "
        f"offset from {format_offset(expected.earliest_ns / NS_PER_S)} to "
        f"{format_offset(expected.latest_ns / NS_PER_S)}, they "
        f"say {format_offset(heard.earliest_ns / NS_PER_S)} to {format_offset(heard.latest_ns / NS_PER_S)}, "
        f"{format_duration(contradiction.gap_ns / NS_PER_S, rounding='down')} apart; the earlier measurement is dropped"
    )


def check_delivery_refused(context: AuditContext) -> Raised:
    """The database refuses whatever it is sent, so the fleet's view of this host ends: no fault of the records."""
    history = context.history
    if history is None or history.refusals < MANY_REFUSALS:
        return None
    last = f"; last failure: {history.failure}" if history.failure else ""
    return "medium", f"the database refused {history.refusals} writes and accepted none since{last}"


def check_daemon_stale(context: AuditContext) -> Raised:
    """NTPA-06: no time daemon has updated the kernel's clock for long: it was stopped, or lost its servers (A4)."""
    stale_s = context.history.stale_s if context.history else None
    if stale_s is None or stale_s <= _stale_limit_s(context):
        return None
    level: Level = "high" if stale_s > DAY_S else "medium"
    ago = format_duration(
        stale_s, rounding="down"
    )  # VirtualBox's service corrects the clock and leaves the kernel's error as it is
    return level, f"no time daemon has updated the kernel's maximum error for {ago}; it has only grown"


def check_breach_forecast(context: AuditContext) -> Raised:
    """NTPA-16: as it drifts, the clock leaves its tolerance within a day, or its oscillator is bad."""
    drift = context.history.drift if context.history else None
    if drift is None or drift.raw_frequency_ppm is None:
        return None
    breach, rate_ppm = drift.breach, drift.frequency_ppm
    is_near = breach.central_s is not None and 0 < breach.central_s <= DAY_S  # what has happened is no forecast
    is_drift = rate_ppm is not None and abs(rate_ppm) > drift.skew_ppm  # and what may be nothing is none either
    if rate_ppm is not None and breach.central_s is not None and is_near and is_drift and not breach.free_running:
        early_s = breach.pessimistic_s  # None until past forecasts show how wide the band must be (R9)
        early = "" if early_s is None else f" (95 %: not within {format_duration(early_s, rounding='down')})"
        return "medium", (
            f"as it drifts, {format_duration(rate_ppm * DAY_S / 1e6)} a day, the clock is "
            f"{format_duration(context.profile.critical_s)} wrong "
            f"in {format_duration(breach.central_s)}{early}"
        )
    if abs(drift.raw_frequency_ppm) - drift.skew_ppm > BAD_OSCILLATOR_PPM:
        return "low", f"the oscillator is {abs(drift.raw_frequency_ppm):.0f} ppm off: bad hardware, or a bad host below"
    return None


def check_time_disputed(context: AuditContext) -> Raised:
    """The database's clock, which has nothing to do with the servers, contradicts the time that they agree on."""
    disputed = context.disputed_ns
    if not disputed:
        return None
    way = "ahead of" if disputed > 0 else "behind"
    level: Level = "high" if abs(disputed) > context.profile.critical_s * NS_PER_S else "medium"
    return level, (
        f"the servers' time is at least {format_duration(disputed / NS_PER_S, rounding='down')} {way} the clock of "
        "the database: "
        "one of the two is wrong"
    )


Basis = Literal["network", "host", "moment"]


class Rule(NamedTuple):
    """A check with what is always said of it: the finding's id, the remedy, and the rules that it supports.

    `raised_when` says for each level, or for several such as "high, medium", when the finding has it. `message_id` is
    the MESSAGE_ID of its entries in systemd's journal; it never changes, because others match on it. `needs_agent`
    marks what a one-shot check cannot see. docs/findings.md is written from all of these (`make docs`).

    `basis` is what an agent needs to hear it anew: an audit that asked servers, any look at the host, or the moment
    itself, which is told at once. `least_s` is how long it must have held before an agent raises it (INTEGRITY §1.5).

    `covered_by` are rules that say the same and more: while one of them is raised and counts, this finding is not
    listed. `counts_as` is the severity of the finding where it is not that of its level.
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
        "repair or restart the time daemon and check its sources; keep this record to correct the logs affected",
        (_ISO, _PCI, _AU8, "FINRA 4590", "ETSI EN 319 421"),
        raised_when={
            "critical": "the whole interval is outside the critical tolerance: the clock is wrong for certain",
        },
        message_id="1643120d7614412ea6edd9a41b2c652f",
    ),
    Rule(
        "step-back",
        check_step_back,
        "take the log's order in that window for unproven; let the time daemon step only while the host boots",
        (_ISO, _PCI_CHANGES, "Insider Threat Matrix AF032"),
        raised_when={
            "high": (
                "the clock was set back by 1 s or more; the message names the window whose timestamps exist twice. A "
                "leap second that the kernel makes, or that the servers announced, is no step"
            ),
            "medium": "by 10 ms or more, and less than 1 s",
            "low": (
                "by 10 ms or more, within 5 minutes of the boot. A smaller step is an event of this level and not a "
                "finding"
            ),
        },
        message_id="67034e6221f14875bb57585b1894c249",
        basis="moment",
        needs_agent=True,
    ),
    Rule(
        "step-forward",
        check_step_forward,
        "look for what set the clock; let the time daemon step only while the host boots",
        (_ISO, _PCI_CHANGES, "Insider Threat Matrix AF032"),
        raised_when={
            "high": "the clock was set forward by 1 s or more; the message names the window that the logs lack",
            "medium": "by 10 ms or more, and less than 1 s",
            "low": (
                "by 10 ms or more, within 5 minutes of the boot. A smaller step is an event of this level and not a "
                "finding"
            ),
        },
        message_id="94061a08892d408ba9c672acc87c2156",
        basis="moment",
        needs_agent=True,
    ),
    Rule(
        "evidence-gap",
        check_evidence_gap,
        "restore the way to the servers (UDP 123 out), or the agent; the gap itself stays in the record",
        ("NIS2 2024/2690 3.2.6", "PCI DSS 10.7.3", "SOC 2 CC7"),
        raised_when={
            "high": "nothing was measured for more than a day; or records were lost before they were delivered",
            "medium": "nothing was measured for more than three intervals, or such a gap has just ended",
        },
        message_id="5bbeb38870d342bf84ace8ac21775a0d",
        basis="moment",
        needs_agent=True,
    ),
    Rule(
        "contradicts-earlier",
        check_contradicts_earlier,
        "check whether the virtual machine was paused, whether the servers share a wrong source, and whether the "
        "oscillator is worse than host.max_drift_ppm allows",
        (_AU8, _SC45),
        raised_when={
            "high": (
                "the servers contradict what was measured earlier and carried forward, and more of them do than that "
                "measurement allows to be wrong: all servers moved together, CLOCK_MONOTONIC_RAW was disturbed (a "
                "paused virtual machine), or the oscillator is worse than assumed. The message has both intervals and "
                "the gap, which is the event's value; the earlier measurement is dropped at once. Listed for an hour"
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
            "medium": "the database has refused three writes or more, and accepted none, for 10 minutes",
        },
        message_id="0dac82f0e905477c981ca667e607b40f",
        basis="host",
        least_s=600.0,
        needs_agent=True,
    ),
    Rule(
        "daemon-stale",
        check_daemon_stale,
        "see whether the time daemon runs and reaches its servers; let it poll at least every 17 min (maxpoll 10)",
        ("DISA STIG V-257945", "FedRAMP SC-45(1)", "FINRA 4590"),
        raised_when={
            "high": "no time daemon has updated the kernel's clock for a day: the kernel's maximum error only grew",
            "medium": "for an hour (1.7 h where systemd-timesyncd runs)",
        },
        message_id="69d61b2c5c394937a03aab962f6ff9b9",
        basis="host",
        least_s=600.0,
        needs_agent=True,
    ),
    Rule(
        "breach-forecast",
        check_breach_forecast,
        "start the time daemon, or look at the host's clock source, before the tolerance is left",
        (_ISO, "ISO/IEC 27002 8.17"),
        raised_when={
            "medium": "no time daemon disciplines the clock, and its drift takes it out of its tolerance within a day",
            "low": "the oscillator is more than 100 ppm off",
        },
        message_id="e1eed9751290471d80861efa38911f68",
        needs_agent=True,
    ),
    Rule(
        "not-demonstrable",
        check_not_demonstrable,
        "use nearer servers or more samples, or choose a tolerance that these servers can prove",
        ("FINRA 4590(b)", "RTS 25 Art. 4", "ETSI EN 319 421"),
        raised_when={
            "medium": "the verdict is `unproven`: the interval reaches across the critical tolerance",
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
                "the clock is further off than the warning tolerance, by its estimate or, where the profile judges the "
                "bound, by its bound; or the interval reaches across the critical tolerance; not listed while "
                "offset-out or not-demonstrable is raised"
            ),
        },
        message_id="3c17354d88624c51b1f975fafd58d728",
        covered_by=("offset-out", "not-demonstrable"),
    ),
    Rule(
        "unmeasured",
        check_unmeasured,
        "name four servers or more if none is listed; else see the status and reason of each source",
        (_ISO, "NIS2 2024/2690 3.2.6", "SOC 2 CC7"),
        raised_when={
            "medium": (
                "the verdict is unmeasured: nothing is known of the offset; counts as unknown; not listed while "
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
        "check that these servers are synchronised themselves (chronyc tracking, ntpq -p), or configure other ones; "
        "name nearer servers in place of distant ones",
        (_PCI, "CIS Controls 8.4"),
        raised_when={
            "medium": (
                "none of the sources can be used, although not all are unreachable: each is unsynchronised, distant, "
                "rejected, skipped or unreachable; the message has the reason of each"
            ),
        },
        message_id="0ecb7f80ee644c54a183a67e4e0a1b19",
    ),
    Rule(
        "source-quorum",
        check_source_quorum,
        "name at least 4 servers that do not depend on each other, in two places",
        ("CIS Controls 8.4", "NIST SP 800-53 SC-45(2)", "FedRAMP SC-45"),
        raised_when={
            "medium": (
                "sources replied and no majority agrees; a third or more are falsetickers, or must be although none "
                "can be named; a source is this host itself, or says that it follows this host; only one source is "
                "usable, or no more than may lie of those asked; servers contradict what more agreed on within the "
                "last day, and no more of them than may be wrong (agent)"
            ),
            "low": (
                "all usable sources share a /24, a /48 or an upstream server; one of many is a falseticker; fewer "
                "than 4 are usable"
            ),
        },
        message_id="39a766605369401dac99b798314707f1",
    ),
    Rule(
        "time-disputed",
        check_time_disputed,
        "compare these servers with others that do not depend on them, and audit the clock of the database's host",
        (_ISO, _PCI, _SC45),
        raised_when={
            "high": (
                "the database's clock (the Date header of its answer to a write, within 2 s and the duration of the "
                "request) contradicts the interval that the servers agree on, by more than the critical tolerance"
            ),
            "medium": "by less",
        },
        message_id="2d47e4ee908b42278a9305e63c656091",
        basis="host",
        needs_agent=True,
    ),
    Rule(
        "unsynced",
        check_unsynced,
        "let exactly one time daemon run, and let it reach its servers on UDP 123",
        (_ISO, _PCI, _AU8, _SC45),
        raised_when={
            "high": (
                "the kernel says that its clock is not synchronised (STA_UNSYNC, TIME_ERROR or a maximum error of 16 "
                "s), chronyd does not discipline it, and the host has been up for 17 minutes"
            ),
            "medium": "the same, where a time daemon may run that cannot be seen from here",
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
                "more than one time daemon disciplines the clock; or none does and none is hidden, the kernel cannot "
                "be asked (where it says so itself, that is `unsynced`), and the host has been up for 17 minutes. An "
                "agent also raises it 10 minutes after the last time daemon ended, although the kernel still counts "
                "its clock as synchronised; and where it has seen no time daemon and none is hidden, outside "
                "containers, if the kernel's maximum error has only grown for 20 minutes"
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
            "high": "the offset is 15 min to 14 h, and within 15 s of a whole number of quarter hours",
            "low": "the hardware clock keeps local time",
        },
        message_id="770eeae8b2ef45858a1d595acdbcbab6",
    ),
    Rule(
        "unreachable-sources",
        check_unreachable_sources,
        "check the names in DNS, routes and firewalls (UDP 123 out); remove servers that are gone",
        (_PCI, "CIS Controls 8.4"),
        raised_when={
            "medium": "half of the sources or more did not reply, or have no known address",
            "low": "some did not",
        },
        message_id="987b67e99ad8431b98eeb6edf87b3081",
    ),
    Rule(
        "kiss-of-death",
        check_kiss_of_death,
        "ask less often, or use servers that are meant for you; ntpaudit already keeps away from this one",
        (),
        raised_when={
            "medium": "a server replied with the kiss-o'-death RATE, DENY or RSTR",
            "low": "with another one",
        },
        message_id="575fb3bd91da48048b91668c746e8d6b",
    ),
    Rule(
        "suspected-spoofing",
        check_suspected_spoofing,
        "look at UDP port 123 towards this host; use authenticated time (NTS) where it can be had",
        (_PCI, _SC45),
        raised_when={
            "high": "three or more replies answered no request of this host",
        },
        message_id="c48e46b097b14e5eaaf5fcabc470f3f0",
    ),
)


def findings_of(context: AuditContext) -> tuple[Finding, ...]:
    """Run every rule; the worst finding first, equals in the order of the list."""
    found = [(rule, make_finding(rule, raised)) for rule in RULES if (raised := rule.check(context)) is not None]
    counted = {finding.id for _, finding in found if finding.severity > Severity.OK}
    return worst_first(finding for rule, finding in found if counted.isdisjoint(rule.covered_by))


def make_finding(rule: Rule, raised: tuple[Level, str]) -> Finding:
    """Make the finding of what a rule's check returned."""
    level, message = raised
    severity = LEVEL_SEVERITY[level] if rule.counts_as is None else rule.counts_as
    return Finding(rule.id, severity, level, message, rule.remedy, rule.controls)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by level, equals as they come."""
    order = list(LEVEL_SEVERITY)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))


def _disciplining(context: AuditContext) -> tuple[Daemon, ...]:
    """Return the daemons that discipline this clock, for certain."""
    return tuple(daemon for daemon in context.observation.known_daemons if daemon.disciplines)


def _unseen(context: AuditContext) -> str | None:
    """Say why another daemon may discipline this clock; None where all of them can be seen."""
    observation = context.observation
    unsure = [daemon for daemon in observation.known_daemons if daemon.disciplines is None]
    if unsure:
        return f"{unsure[0].name} (pid {unsure[0].pid}): {unsure[0].reason}"
    return observation.daemons_hidden


def _step(context: AuditContext, kind: str) -> Raised:
    """Tell of the worst of the last hour's steps of one direction."""
    steps = [step for step in context.history.steps if step.kind == kind] if context.history else []
    steps = [step for step in steps if abs(step.size_ns) >= LEAST_STEP_S * NS_PER_S]
    worst = max(steps, key=step_severity_key, default=None)
    return None if worst is None else (level_of_step(worst), describe_step(worst))


def level_of_step(step: Step) -> Level:
    """Say how bad a step is (NTPA-02): those of a second or more are high, those while the host boots low."""
    if step.boottime_ns <= EARLY_STEP_NS or abs(step.size_ns) < LEAST_STEP_S * NS_PER_S:
        return "low"
    return "high" if abs(step.size_ns) >= NS_PER_S else "medium"


def step_severity_key(step: Step) -> tuple[bool, int]:
    """Return by what the worst of several steps is known: those while the host boots come last, however large."""
    return level_of_step(step) != "low", abs(step.size_ns)


def describe_step(step: Step) -> str:
    """Say in words what a step did, with the wall times before and after."""
    way, wall = ("back", "show twice") if step.size_ns < 0 else ("forward", "do not show")
    window = f"{format_utc(min(step.before_ns, step.after_ns))} to {format_utc(max(step.before_ns, step.after_ns))}"
    seen = ", while no agent watched" if step.is_gap else ""
    return f"the clock was set {way} by {format_duration(step.size_ns / NS_PER_S)}{seen}; logs {wall} {window}"


def _contradiction(names: list[str], contradiction: Contradiction) -> str:
    """Say whose word does not stand against which agreement."""
    verb = "contradicts" if len(names) == 1 else "contradict"
    agreed = f"the {plural(contradiction.agreeing, 'server')} that agreed {format_duration(contradiction.age_s)} ago"
    return f"{', '.join(names)} {verb} {agreed}"


def _stale_limit_s(context: AuditContext) -> float:
    """Return how long the daemons in sight may be silent."""
    slow = any(daemon.name == "systemd-timesyncd" for daemon in _disciplining(context))
    return STALE_TIMESYNCD_S if slow else STALE_S


def _quarters(count: int) -> str:
    """Write quarters of an hour exactly: 45 min, 12.75 h."""
    return f"{15 * count} min" if count < 8 else f"{count / 4:g} h"


def _is_booting(context: AuditContext) -> bool:
    """The host is up for so short a time that its daemon may still be on its way."""
    return context.observation.taken.boottime_ns < BOOT_GRACE_NS


def _is_this_host(source: SourceObservation) -> bool:
    """The source is this host's own daemon. On loopback only NTP's port is; any other is somebody's test server."""
    address = source.address or ""
    return source.port == NTP_PORT if is_loopback(address) else source.is_own
