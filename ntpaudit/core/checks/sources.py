"""Findings about the servers: too few, in disagreement, without a usable reply, or forged."""

from collections import Counter
from collections.abc import Sequence

from ntpaudit.core.checks.context import AuditContext, Contradiction
from ntpaudit.core.checks.controls import CIS_TWO, FEDRAMP, PCI, SC45, SC45_REGIONS
from ntpaudit.core.checks.rule import Level, Raised, Rule
from ntpaudit.core.checks.smear import LEAP_SMEAR_MIX
from ntpaudit.core.ntp.sources import NTP_PORT, is_loopback
from ntpaudit.core.ntp.time import ERA_S, PIVOT_NS
from ntpaudit.core.selection import BEFORE_RELEASE, ClassifiedSource, independent_groups
from ntpaudit.core.units import DAY_S, DOCS, NS_PER_S, format_duration, format_utc, joined, plural

SPOOFED_DATAGRAMS = 3  # this many replies with a wrong origin timestamp are an attack (V5, RFC 8633 §5.3)
REASONS_PAGE = f"docs/record.md (installed in {DOCS})"

_FIX_DISAGREE = "find out which server is wrong, and replace it; 4 independent servers outvote one wrong server"
FIX_SPLIT = (
    "find out which server is wrong (`ntpaudit check SERVER...` with these servers and at least 5 independent ones "
    "shows wrong ones as falsetickers); replace it, also in the time daemon"
)
_FIX_BEFORE_RELEASE = "correct the time of these servers, or replace them; if a GPS receiver is their source, check it"
_FIX_FEW_REPLIES = f"find out why the others gave none: {REASONS_PAGE} explains each reason; do not add servers first"
_FIX_UNREACHABLE = (
    "check that these servers run, and routes and firewalls (UDP 123 in both directions); remove servers that no "
    "longer exist"
)
_FIX_NAME = (
    "check the spelling of the name and the resolver of this host (`getent ahosts NAME`; DNS is port 53); remove the "
    "server only if its name is gone for good"
)
_FIX_REFUSES = "remove the server, or ask its operator for access"
_FIX_RATE = "check whether several programs or hosts behind one address query this server; use your own servers"

_FIX_OF_REASON = {
    "unanswered": _FIX_UNREACHABLE,
    "timeout": _FIX_UNREACHABLE,
    "refused": (
        "check that an NTP server runs there and serves clients (chrony: allow); then check firewalls that reject UDP "
        "123"
    ),
    "forbidden": "allow outbound UDP 123 on this host: check its firewall (under systemd also IPAddressAllow=)",
    "net-unreachable": "check the routes of this host, for IPv4 and IPv6",
    "name-unknown": _FIX_NAME,
    "name-failed": _FIX_NAME,
    "name-timeout": _FIX_NAME,
    "interval": "wait: these servers were queried recently, and are queried again when the interval is over",
    "kod:RATE": _FIX_RATE,
    "kod:DENY": _FIX_REFUSES,
    "kod:RSTR": _FIX_REFUSES,
    "kod:INIT": "the server has no time yet: check it if this persists",
    "unsync": "check that these servers are synchronised (chronyc tracking, ntpq -p)",
    "distant": "replace these servers with nearer or better synchronised ones",
    BEFORE_RELEASE: _FIX_BEFORE_RELEASE,
}

_FIX_LOOP = (
    "use servers on other hosts that do not get their time from this host, instead of those that the message names"
)


def check_source_quorum(context: AuditContext) -> Raised | None:
    """NTPA-14: too few sources, no majority, too many falsetickers, or one failure domain for all sources."""
    usable = context.selection.usable
    falsetickers = [classified.source.name for classified in usable if classified.status == "falseticker"]
    if usable and all(classified.reason == "no-majority" for classified in usable):
        message = f"{plural(len(usable), 'server')} replied, and no majority agrees"
        numbers = {"usable_servers": len(usable), "agreeing_servers": 0}
        return Raised("medium", message, remedy=FIX_SPLIT, numbers=numbers)
    if falsetickers and context.earlier.contradiction is not None:
        message = _contradiction(falsetickers, context.earlier.contradiction)
        earlier = context.earlier.contradiction.agreeing
        numbers = {"contradicting_servers": len(falsetickers), "servers_that_agreed_before": earlier}
        return Raised("medium", message, remedy=FIX_SPLIT, numbers=numbers)
    if usable and not context.selection.is_sufficient:
        queried = plural(len(context.selection.asked), "server")
        return Raised(
            "medium",
            f"only {len(usable)} of {queried} gave a usable reply: too few to outvote a wrong server, so nothing is "
            "proven",
            remedy=_FIX_FEW_REPLIES,
            numbers={
                "usable_servers": len(usable),
                "possible_falsetickers": context.selection.possible_falsetickers,
            },
        )
    old = _from_before_release(context)
    old_numbers = {"too_early_servers": len(old), "servers_asked": len(context.selection.asked)}
    if usable and 3 * len(old) >= len(context.selection.asked):
        return Raised("medium", _before_release(context), remedy=_FIX_BEFORE_RELEASE, numbers=old_numbers)
    agreement = context.selection.agreement
    verb = "disagrees" if len(falsetickers) == 1 else "disagree"
    disagreeing = f"{len(falsetickers)} of {plural(len(usable), 'usable server')} {verb}: {', '.join(falsetickers)}"
    false_numbers = {"falsetickers": len(falsetickers), "usable_servers": len(usable)}
    if 3 * len(falsetickers) >= len(usable) > 0:
        return Raised("medium", disagreeing, remedy=_FIX_DISAGREE, numbers=false_numbers)
    if agreement is not None and agreement.exceeded_assumption:
        numbers = {
            "certain_falsetickers": agreement.max_falsetickers,
            "possible_falsetickers": context.selection.possible_falsetickers,
        }
        if falsetickers:
            return Raised("medium", disagreeing, remedy=_FIX_DISAGREE, numbers=numbers)
        # no overlap is deep enough to identify them
        message = f"the {plural(len(usable), 'server')} cannot all be right, and it is unknown which is wrong"
        return Raised("medium", message, remedy=FIX_SPLIT, numbers=numbers)
    if own := [classified.source.name for classified in usable if _is_this_host(classified)]:
        replies = (
            f"{own[0]} is this host: its reply counts, but only compares"
            if len(own) == 1
            else f"{joined(own)} are this host: their replies count, but only compare"
        )
        message = f"{replies} the clock with itself"
        return Raised("medium", message, remedy=_FIX_LOOP, numbers={"servers_that_depend_on_this_host": len(own)})
    if loops := [classified.source.name for classified in usable if classified.reason == "sync-loop"]:
        subject = f"{loops[0]} reports" if len(loops) == 1 else f"{joined(loops)} report"
        message = f"{subject} this host as the reference: the clock is compared with itself"
        return Raised("medium", message, remedy=_FIX_LOOP, numbers={"servers_that_depend_on_this_host": len(loops)})
    few_replies = _FIX_FEW_REPLIES if len(context.selection.sources) >= 4 else None
    if len(usable) == 1:
        only = "only one server" if len(context.selection.sources) == 1 else "only one server is usable"
        message = f"{only}: if it is wrong, nothing detects it"
        return Raised("medium", message, remedy=few_replies, numbers={"usable_servers": 1})
    failure_domains = [classified.candidate.failure_domains for classified in usable if classified.candidate]
    if len(usable) > 1 and len(independent_groups(failure_domains)) == 1:
        message = "all servers share one network or one upstream server, so they can all be wrong together"
        return Raised("low", message, numbers={"usable_servers": len(usable), "independent_servers": 1})
    if falsetickers:
        return Raised("low", disagreeing, remedy=_FIX_DISAGREE, numbers=false_numbers)
    if usable and old:
        return Raised("low", _before_release(context), remedy=_FIX_BEFORE_RELEASE, numbers=old_numbers)
    if 1 < len(usable) < 4:
        message = f"only {len(usable)} servers: 4 are needed to outvote one falseticker (RFC 8633, section 3.2)"
        return Raised("low", message, remedy=few_replies, numbers={"usable_servers": len(usable)})
    return None


def _from_before_release(context: AuditContext) -> list[ClassifiedSource]:
    return [classified for classified in context.selection.sources if classified.reason == BEFORE_RELEASE]


def _before_release(context: AuditContext) -> str:
    """Describe sources that report a time before this release, and the probable cause (W3)."""
    sources = _from_before_release(context)
    times_ns = [classified.best.received_ns - ERA_S * NS_PER_S for classified in sources if classified.best]
    names = joined([classified.source.name for classified in sources[:4]] + ["others"] * (len(sources) > 4))
    is_one = len(sources) == 1
    date, release = format_utc(times_ns[0])[:10], format_utc(PIVOT_NS)[:10]
    summary = (
        f"{names} {'reports' if is_one else 'report'} {date}, earlier than this version of ntpaudit accepts ({release})"
    )
    behind_s = (context.observation.taken.realtime_ns - times_ns[0]) / NS_PER_S
    is_rollover = abs(behind_s - 1024 * 7 * DAY_S) < DAY_S  # GPS counts weeks modulo 1024
    rollover = " and 1024 weeks before this host's time: a GPS week rollover" if is_rollover else ""
    suspect = "this server is" if is_one else "these servers are"
    return f"{summary}{rollover}; {suspect} probably wrong, so it is unknown whether this host is behind or ahead"


def _contradiction(names: list[str], contradiction: Contradiction) -> str:
    verb = "contradicts" if len(names) == 1 else "contradict"
    agreed = f"the {plural(contradiction.agreeing, 'server')} that agreed {format_duration(contradiction.age_s)} ago"
    return f"{joined(names)} {verb} {agreed}"


def _is_this_host(classified: ClassifiedSource) -> bool:
    """Whether the source is this host's own daemon. On loopback only port 123 is; other ports are test servers."""
    source = classified.source
    return source.port == NTP_PORT if is_loopback(source.address or "") else source.is_own


def _has_sample(context: AuditContext, _: Raised | None) -> bool:
    """Servers that were polled too recently give no sample, unless the others already prove what is raised."""
    if context.earlier.contradiction is not None:
        return True
    selection = context.selection
    return bool(selection.usable) and ("interval" not in selection.skip_reasons or not selection.is_sufficient)


SOURCE_QUORUM = Rule(
    "source-quorum",
    check_source_quorum,
    "configure at least 4 independent servers at two sites",
    (CIS_TWO, SC45_REGIONS, FEDRAMP),
    raised_when={
        "medium": (
            "servers replied, and no majority agrees",
            "at least a third of the usable servers are falsetickers",
            "more servers are falsetickers than may be, also if it is unknown which",
            "at least a third of the servers asked report a time earlier than this version of ntpaudit accepts",
            "a server is this host, or follows this host",
            "only one server is usable",
            "so few servers gave a usable reply that all of them may be wrong",
            "a few servers contradict a larger agreement of the last day (agent)",
        ),
        "low": (
            "all usable servers share a /24, a /48 or an upstream server",
            "fewer than a third of the usable servers are falsetickers",
            "fewer than a third of the servers asked report a time earlier than this version of ntpaudit accepts",
            "fewer than 4 servers are usable",
        ),
    },
    meaning="A wrong server, or a few, can make the measurement wrong without being detected.",
    formula={
        "medium": (
            "usable_servers > 0 and agreeing_servers < 1",
            "3 * falsetickers >= usable_servers",
            "certain_falsetickers > possible_falsetickers",
            "3 * too_early_servers >= servers_asked",
            "servers_that_depend_on_this_host > 0",
            "usable_servers < 2",
            "usable_servers <= possible_falsetickers",
            "0 < contradicting_servers < servers_that_agreed_before",
        ),
        "low": (
            "independent_servers < 2 <= usable_servers",
            "0 < 3 * falsetickers < usable_servers",
            "0 < 3 * too_early_servers < servers_asked",
            "usable_servers < 4",
        ),
    },
    case_remedies={
        "4 or more servers are configured, but too few gave a usable reply": _FIX_FEW_REPLIES,
        "no majority agrees, it is unknown which server is wrong, or servers contradict earlier ones": FIX_SPLIT,
        "servers disagree with a majority": _FIX_DISAGREE,
        "servers report a time that is too early": _FIX_BEFORE_RELEASE,
        "a server is this host, or follows this host": _FIX_LOOP,
    },
    has_sample=_has_sample,
    caused_by=(LEAP_SMEAR_MIX.id,),
    message_id="39a766605369401dac99b798314707f1",
    acceptable="reports",
)


def _by_reason(*reasons: str) -> dict[str, str]:
    """Return each fix of these reasons, by the reasons that have it."""
    named: dict[str, list[str]] = {}
    for reason in reasons:
        named.setdefault(_FIX_OF_REASON[reason], []).append(f"`{reason}`")
    return {f"the reason is {' or '.join(names)}": fix for fix, names in named.items()}


def _fix_by_reason(sources: Sequence[ClassifiedSource], other: str) -> str:
    """Return the fix of each reason, after its name if there are several; `other` is that of the other reasons."""
    reasons = dict.fromkeys(classified.reason or classified.status for classified in sources)
    fixes = {reason: _FIX_OF_REASON[reason] for reason in reasons if reason in _FIX_OF_REASON}
    if len(fixes) < len(reasons):
        fixes["other reasons"] = other
    if len(set(fixes.values())) == 1:
        return next(iter(fixes.values()))
    return "; ".join(f"{reason}: {fix}" for reason, fix in fixes.items())


def _listed(sources: Sequence[ClassifiedSource]) -> str:
    """List a few sources with the reason of each, and count the others."""
    shown = ", ".join(f"{classified.source.name} ({_why_unusable(classified)})" for classified in sources[:4])
    return f"{shown} and {len(sources) - 4} more" if len(sources) > 4 else shown


def _why_unusable(classified: ClassifiedSource) -> str:
    if classified.status == "distant" and classified.candidate:
        width_s = classified.candidate.interval.half_width_ns / NS_PER_S
        return f"distant: maximum error {format_duration(width_s, rounding='up')}"
    return classified.reason or classified.status


def check_unreachable_sources(context: AuditContext) -> Raised | None:
    """Some sources did not reply, refused the query or could not be queried, or their names have no known address.

    Beside them count those that wait: in one outage, not every server is queried by each poll.
    """
    sources = context.selection.sources
    without_reply = _without_reply(sources)
    if not without_reply:
        return None
    waiting = [classified for classified in sources if _is_waiting(classified)]
    unreachable = [classified for classified in without_reply if classified not in waiting]
    unresolved = [classified for classified in unreachable if (classified.reason or "").startswith("name-")]
    refused = [classified for classified in unreachable if classified.reason == "refused"]
    unsent = [classified for classified in unreachable if classified.reason in ("forbidden", "net-unreachable")]
    silent = [classified for classified in unreachable if classified not in (*unresolved, *refused, *unsent)]
    total = len(sources)
    parts = [
        f"{_of_all(len(group), total)} {one if len(group) == 1 else several}: {_listed(group)}"
        for group, one, several in (
            (silent, "did not reply", "did not reply"),
            (refused, "refuses the query", "refuse the query"),
            (unsent, "could not be queried", "could not be queried"),
            (unresolved, "has no known address", "have no known address"),
            (waiting, "gave no usable reply last time", "gave no usable reply last time"),
        )
        if group
    ]
    level: Level = "medium" if 2 * len(without_reply) >= total else "low"
    remedy = _fix_by_reason(without_reply, UNREACHABLE_SOURCES.remedy)
    numbers = {"unreachable_servers": len(without_reply), "servers": total}
    return Raised(level, "; ".join(parts), remedy=remedy, numbers=numbers)


def _without_reply(sources: Sequence[ClassifiedSource]) -> list[ClassifiedSource]:
    """Return the unreachable sources and, beside them, those that wait."""
    is_any = any(classified.status == "unreachable" for classified in sources)
    return [one for one in sources if is_any and (one.status == "unreachable" or _is_waiting(one))]


def _is_waiting(classified: ClassifiedSource) -> bool:
    """Whether a source is not queried now because its last query had no usable reply (P9)."""
    return classified.status == "skipped" and classified.reason == "unanswered"


def _is_sample_of_silence(context: AuditContext, raised: Raised | None) -> bool:
    """Whether a poll shows more or less silence than before: servers that it did not query prove no improvement."""
    skipped = context.selection.skip_reasons
    if raised is None:
        return skipped.isdisjoint(("interval", "unanswered"))
    return raised.level == "medium" or "interval" not in skipped


def _of_all(count: int, total: int) -> str:
    return "the only server" if total == 1 else f"{count} of {total} servers"


UNREACHABLE_SOURCES = Rule(
    "unreachable-sources",
    check_unreachable_sources,
    _FIX_UNREACHABLE,
    (PCI, CIS_TWO),
    raised_when={
        "medium": "at least half of the servers did not reply, refused the query, could not be queried, or have no "
        "known address",
        "low": "the same, fewer servers",
    },
    meaning="The measurement rests on fewer servers than configured, or on none.",
    formula={
        "medium": "2 * unreachable_servers >= servers",
        "low": "0 < 2 * unreachable_servers < servers",
    },
    case_remedies=_by_reason("refused", "forbidden", "net-unreachable", "name-unknown", "name-failed", "name-timeout"),
    notes="A server that is not queried now, because its last query had no usable reply, counts beside these.",
    has_sample=_is_sample_of_silence,
    message_id="987b67e99ad8431b98eeb6edf87b3081",
)


def check_no_usable_source(context: AuditContext) -> Raised | None:
    """No source can be used, although not all of them are unreachable."""
    sources = context.selection.sources
    if not sources or context.selection.usable or _are_all_unreachable(context):
        return None
    is_skipped = all(classified.status == "skipped" for classified in sources)
    if len(sources) == 1:
        summary = f"the only server {'was not queried' if is_skipped else 'cannot be used'}"
    else:
        summary = f"none of {len(sources)} servers {'was queried' if is_skipped else 'can be used'}"
    old = _from_before_release(context)
    causes = [] if len(old) == len(sources) else [_listed(sources)]
    if old:
        causes.append(_before_release(context))
    return Raised(
        "medium",
        f"{summary}: {'; '.join(causes)}",
        remedy=_fix_by_reason(sources, NO_USABLE_SOURCE.remedy),
        numbers={"usable_servers": 0, "unreachable_servers": len(_without_reply(sources)), "servers": len(sources)},
    )


def _are_all_unreachable(context: AuditContext) -> bool:
    """Whether `unreachable-sources` names all sources."""
    sources = context.selection.sources
    return bool(sources) and len(_without_reply(sources)) == len(sources)


def _is_sample_of_use(context: AuditContext, _: Raised | None) -> bool:
    """Whether a poll shows if servers can be used: not where it queried none, or passed over those that replied."""
    asked = [classified for classified in context.selection.asked if not _is_waiting(classified)]
    return bool(asked) and "interval" not in context.selection.skip_reasons


def _replaced_by_unreachable(context: AuditContext) -> tuple[str, ...]:
    return (UNREACHABLE_SOURCES.id,) if _are_all_unreachable(context) else ()


NO_USABLE_SOURCE = Rule(
    "no-usable-source",
    check_no_usable_source,
    f"check these servers, and replace them if the fault persists; {REASONS_PAGE} explains each reason",
    (PCI, CIS_TWO),
    raised_when={
        "medium": "no server can be used, although not all are unreachable: each is distant, rejected, skipped or "
        "unreachable"
    },
    meaning="The clock cannot be measured now.",
    formula={"medium": "usable_servers < 1 and unreachable_servers < servers"},
    notes="The message gives the reason of each, and with several reasons the fix of each.",
    case_remedies=_by_reason(*_FIX_OF_REASON),
    caused_by=(UNREACHABLE_SOURCES.id,),
    replaced_by=_replaced_by_unreachable,
    has_sample=_is_sample_of_use,
    message_id="0ecb7f80ee644c54a183a67e4e0a1b19",
    acceptable="reports",
)


def check_kiss_of_death(context: AuditContext) -> Raised | None:
    """A server limits or refuses our queries (K2, K3), or has no time to give (K4)."""
    sources = [one for one in context.selection.sources if (one.reason or "").startswith("kod:")]
    if not sources:
        return None
    kods = [(one.source.name, (one.reason or "").removeprefix("kod:")) for one in sources]
    names, remedy = ", ".join(f"{name} ({code})" for name, code in kods), _fix_by_reason(sources, KISS_OF_DEATH.remedy)
    if refusals := sum(code in ("RATE", "DENY", "RSTR") for _, code in kods):
        message = f"kiss-o'-death from {names}: the server limits or refuses queries from this host"
        return Raised("medium", message, remedy=remedy, numbers={"servers_that_limit_or_refuse": refusals})
    message = f"kiss-o'-death instead of a time from {names}"
    return Raised("low", message, remedy=remedy, numbers={"servers_without_a_time": len(kods)})


KISS_OF_DEATH = Rule(
    "kiss-of-death",
    check_kiss_of_death,
    "check this server; replace it if the fault persists",
    (),
    raised_when={
        "medium": "a server replied with kiss-o'-death RATE, DENY or RSTR",
        "low": "the same, with another code",
    },
    meaning="A server asks for fewer queries or for none, or has no time to give.",
    formula={"medium": "servers_that_limit_or_refuse > 0", "low": "servers_without_a_time > 0"},
    notes="After RATE, ntpaudit queries the server less often; after DENY or RSTR, not for a day.",
    case_remedies=_by_reason("kod:RATE", "kod:DENY", "kod:RSTR", "kod:INIT"),
    message_id="575fb3bd91da48048b91668c746e8d6b",
)


def check_suspected_spoofing(context: AuditContext) -> Raised | None:
    """Many replies match no query of ours: an attacker guesses (V5, RFC 8633 §5.3)."""
    forged: Counter[str] = Counter()
    for source, *_ in context.selection.sources:
        forged[source.name] += source.discarded.get("bogus", 0) + source.discarded.get("zero-origin", 0)
    count = forged.total()
    if count < SPOOFED_DATAGRAMS:
        return None
    names = ", ".join(name for name, hits in forged.most_common(4) if hits)
    message = f"{count} replies match no query of this host; they claim to come from {names}"
    return Raised("high", message, numbers={"forged_replies": count})


SUSPECTED_SPOOFING = Rule(
    "suspected-spoofing",
    check_suspected_spoofing,
    "run `sudo tcpdump -e -n -v udp port 123`: a forged reply has an originator timestamp that is not the transmit "
    "timestamp of a query of this host, and its MAC address shows which neighbour or router sent it; inform your "
    "security team; protect the time daemon with NTS (ntpaudit has no NTS and skips such servers: configure 4 others "
    "for it)",
    (PCI, SC45),
    raised_when={"high": "at least three replies match no query of this host"},
    meaning="Someone may try to give this host a wrong time.",
    formula={"high": "forged_replies >= 3"},
    message_id="c48e46b097b14e5eaaf5fcabc470f3f0",
)

RULES = (SOURCE_QUORUM, NO_USABLE_SOURCE, UNREACHABLE_SOURCES, KISS_OF_DEATH, SUSPECTED_SPOOFING)
