"""The finding source-quorum: too few servers, or servers that disagree."""

from ntpaudit.core.checks.context import AuditContext, Contradiction
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.ntp.sources import NTP_PORT, is_loopback
from ntpaudit.core.ntp.time import ERA_S, PIVOT_NS
from ntpaudit.core.observation import SourceObservation
from ntpaudit.core.selection import BEFORE_RELEASE, ClassifiedSource, independent_groups
from ntpaudit.core.units import DAY_S, NS_PER_S, format_duration, format_utc, joined, plural


def check_source_quorum(context: AuditContext) -> Raised | None:
    """NTPA-14: too few sources, no majority, too many falsetickers, or one failure domain for all sources."""
    usable = context.selection.usable
    falsetickers = [classified.source.name for classified in usable if classified.status == "falseticker"]
    if usable and all(classified.reason == "no-majority" for classified in usable):
        return Raised("medium", f"{plural(len(usable), 'source')} replied, and no majority agrees")
    if falsetickers and context.history is not None and context.history.contradiction is not None:
        return Raised("medium", _contradiction(falsetickers, context.history.contradiction))
    if usable and not context.selection.is_sufficient:
        queried = plural(len(context.selection.asked), "server")
        return Raised(
            "medium",
            f"only {len(usable)} of {queried} gave a usable reply: that many may be falsetickers, so nothing is proven",
        )
    old = from_before_release(context)
    if usable and 3 * len(old) >= len(context.selection.asked):
        return Raised("medium", before_release(context))
    agreement = context.selection.agreement
    verb = "disagrees" if len(falsetickers) == 1 else "disagree"
    disagreeing = f"{len(falsetickers)} of {plural(len(usable), 'source')} {verb}: {', '.join(falsetickers)}"
    has_more_falsetickers = agreement is not None and agreement.exceeded_assumption
    if falsetickers and (has_more_falsetickers or 3 * len(falsetickers) >= len(usable)):
        return Raised("medium", disagreeing)
    if has_more_falsetickers:  # than max_falsetickers, and no overlap is deep enough to identify them
        return Raised(
            "medium", f"the {plural(len(usable), 'source')} cannot all be right, and it is unknown which is wrong"
        )
    if own := [classified.source.name for classified in usable if _is_this_host(classified.source)]:
        subject = f"{own[0]} is this host: it" if len(own) == 1 else f"{joined(own)} are this host: they"
        return Raised("medium", f"{subject} would compare the clock with itself")
    if loops := [classified.source.name for classified in usable if classified.reason == "sync-loop"]:
        subject = f"{loops[0]} reports" if len(loops) == 1 else f"{joined(loops)} report"
        return Raised("medium", f"{subject} this host as the reference: the clock would be compared with itself")
    if len(usable) == 1:
        only = "only one source" if len(context.selection.sources) == 1 else "only one source is usable"
        return Raised("medium", f"{only}: if it is wrong, nothing detects it")
    failure_domains = [classified.candidate.failure_domains for classified in usable if classified.candidate]
    if len(usable) > 1 and len(independent_groups(failure_domains)) == 1:
        return Raised("low", "all sources share one network or one upstream server, so they can all be wrong together")
    if falsetickers:
        return Raised("low", disagreeing)
    if usable and old:
        return Raised("low", before_release(context))
    if 1 < len(usable) < 4:
        return Raised(
            "low", f"only {len(usable)} sources: 4 are needed to outvote one falseticker (RFC 8633, section 3.2)"
        )
    return None


def from_before_release(context: AuditContext) -> list[ClassifiedSource]:
    """Return the sources that report a time before this release."""
    return [classified for classified in context.selection.sources if classified.reason == BEFORE_RELEASE]


def before_release(context: AuditContext) -> str:
    """Describe sources that report a time before this release, and the probable cause (W3)."""
    sources = from_before_release(context)
    times_ns = [classified.best.received_ns - ERA_S * NS_PER_S for classified in sources if classified.best]
    names = joined([classified.source.name for classified in sources[:4]] + ["others"] * (len(sources) > 4))
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


def _contradiction(names: list[str], contradiction: Contradiction) -> str:
    verb = "contradicts" if len(names) == 1 else "contradict"
    agreed = f"the {plural(contradiction.agreeing, 'server')} that agreed {format_duration(contradiction.age_s)} ago"
    return f"{joined(names)} {verb} {agreed}"


def _is_this_host(source: SourceObservation) -> bool:
    """Whether the source is this host's own daemon. On loopback only port 123 is; other ports are test servers."""
    address = source.address or ""
    return source.port == NTP_PORT if is_loopback(address) else source.is_own


def _has_sample(context: AuditContext, _: Raised | None) -> bool:
    """Servers that were polled too recently give no sample, unless the others already prove what is raised."""
    selection = context.selection
    is_outvoted = context.history is not None and context.history.contradiction is not None
    is_complete = "interval" not in selection.skip_reasons
    return is_outvoted or (bool(selection.usable) and (is_complete or not selection.is_sufficient))


SOURCE_QUORUM = Rule(
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
    has_sample=_has_sample,
    message_id="39a766605369401dac99b798314707f1",
)

RULES = (SOURCE_QUORUM,)
