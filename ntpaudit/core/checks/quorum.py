"""The finding source-quorum: too few servers, or servers that disagree."""

from ntpaudit.core.checks.context import AuditContext, Contradiction
from ntpaudit.core.checks.rule import Raised, Rule
from ntpaudit.core.ntp.sources import NTP_PORT, is_loopback
from ntpaudit.core.ntp.time import ERA_S, PIVOT_NS
from ntpaudit.core.observation import SourceObservation
from ntpaudit.core.selection import BEFORE_RELEASE, ClassifiedSource, independent_groups
from ntpaudit.core.units import DAY_S, NS_PER_S, format_duration, format_utc, joined, plural

_FIX_DISAGREE = "find out which server is wrong, and replace it; 4 independent servers outvote one wrong server"
_FIX_BEFORE_RELEASE = "correct the time of these servers, or replace them; if a GPS receiver is their source, check it"
_FIX_LOOP = "remove this server, and configure servers that do not get their time from this host"


def check_source_quorum(context: AuditContext) -> Raised | None:
    """NTPA-14: too few sources, no majority, too many falsetickers, or one failure domain for all sources."""
    usable = context.selection.usable
    falsetickers = [classified.source.name for classified in usable if classified.status == "falseticker"]
    if usable and all(classified.reason == "no-majority" for classified in usable):
        message = f"{plural(len(usable), 'source')} replied, and no majority agrees"
        return Raised("medium", message, remedy=_FIX_DISAGREE)
    if falsetickers and context.past.contradiction is not None:
        return Raised("medium", _contradiction(falsetickers, context.past.contradiction), remedy=_FIX_DISAGREE)
    if usable and not context.selection.is_sufficient:
        queried = plural(len(context.selection.asked), "server")
        return Raised(
            "medium",
            f"only {len(usable)} of {queried} gave a usable reply: all of these may be wrong, so nothing is proven",
        )
    old = from_before_release(context)
    if usable and 3 * len(old) >= len(context.selection.asked):
        return Raised("medium", before_release(context), remedy=_FIX_BEFORE_RELEASE)
    agreement = context.selection.agreement
    verb = "disagrees" if len(falsetickers) == 1 else "disagree"
    disagreeing = f"{len(falsetickers)} of {plural(len(usable), 'source')} {verb}: {', '.join(falsetickers)}"
    has_more_falsetickers = agreement is not None and agreement.exceeded_assumption
    if falsetickers and (has_more_falsetickers or 3 * len(falsetickers) >= len(usable)):
        return Raised("medium", disagreeing, remedy=_FIX_DISAGREE)
    if has_more_falsetickers:  # than max_falsetickers, and no overlap is deep enough to identify them
        message = f"the {plural(len(usable), 'source')} cannot all be right, and it is unknown which is wrong"
        return Raised("medium", message, remedy=_FIX_DISAGREE)
    if own := [classified.source.name for classified in usable if _is_this_host(classified.source)]:
        subject = f"{own[0]} is this host: it" if len(own) == 1 else f"{joined(own)} are this host: they"
        return Raised("medium", f"{subject} would compare the clock with itself", remedy=_FIX_LOOP)
    if loops := [classified.source.name for classified in usable if classified.reason == "sync-loop"]:
        subject = f"{loops[0]} reports" if len(loops) == 1 else f"{joined(loops)} report"
        message = f"{subject} this host as the reference: the clock would be compared with itself"
        return Raised("medium", message, remedy=_FIX_LOOP)
    if len(usable) == 1:
        only = "only one source" if len(context.selection.sources) == 1 else "only one source is usable"
        return Raised("medium", f"{only}: if it is wrong, nothing detects it")
    failure_domains = [classified.candidate.failure_domains for classified in usable if classified.candidate]
    if len(usable) > 1 and len(independent_groups(failure_domains)) == 1:
        return Raised("low", "all sources share one network or one upstream server, so they can all be wrong together")
    if falsetickers:
        return Raised("low", disagreeing, remedy=_FIX_DISAGREE)
    if usable and old:
        return Raised("low", before_release(context), remedy=_FIX_BEFORE_RELEASE)
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
    is_outvoted = context.past.contradiction is not None
    is_complete = "interval" not in selection.skip_reasons
    return is_outvoted or (bool(selection.usable) and (is_complete or not selection.is_sufficient))


SOURCE_QUORUM = Rule(
    "source-quorum",
    check_source_quorum,
    "configure at least 4 independent servers at two sites",
    ("CIS Controls 8.4", "NIST SP 800-53 SC-45(2)", "FedRAMP SC-45"),
    raised_when={
        "medium": (
            "sources replied, and no majority agrees",
            "at least a third of the sources are falsetickers, or must be, although none can be identified",
            "at least a third of the sources report a time before this release",
            "a source is this host, or follows this host",
            "only one source is usable",
            "no more sources are usable than may be falsetickers among the queried ones",
            "a few servers contradict a larger agreement of the last day (agent)",
        ),
        "low": (
            "all usable sources share a /24, a /48 or an upstream server",
            "fewer than a third of the sources are falsetickers or report a time before this release",
            "fewer than 4 sources are usable",
        ),
    },
    has_sample=_has_sample,
    message_id="39a766605369401dac99b798314707f1",
)

RULES = (SOURCE_QUORUM,)
