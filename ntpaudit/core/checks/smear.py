"""The finding about servers that make a leap second in different ways."""

from collections.abc import Iterator, Sequence

from ntpaudit.core.checks.approval import configured_hosts, hosts_of
from ntpaudit.core.checks.context import AuditContext
from ntpaudit.core.checks.controls import ETSI, ISO_GUIDE
from ntpaudit.core.checks.rule import Level, Raised, Rule
from ntpaudit.core.leap import month_end_ns
from ntpaudit.core.observation import KernelState
from ntpaudit.core.selection import ClassifiedSource
from ntpaudit.core.smear import SMEARING_ID, SMOOTHING_ID, provider_of, separated, smear_ns
from ntpaudit.core.units import DAY_S, NS_PER_S, format_duration, joined, plural

SHOWN = 4
_DAY_NS = round(DAY_S * NS_PER_S)


def check_leap_smear_mix(context: AuditContext) -> Raised | None:
    """NTPA-18: some servers smear a leap second, or announce it, and others do not (J6, RFC 8633 §3.7.1)."""
    since_ns = _since_month_end_ns(context)
    is_near = since_ns is not None and abs(since_ns) <= _DAY_NS
    level: Level = "high" if is_near and _is_announced(context) else "low"
    if level == "high" and since_ns is not None and (divided := _divided(context, since_ns)) is not None:
        return divided
    for who, smears in _smears(context, is_near=is_near):
        if (kinds := len(set(smears.values()))) > 1:
            return Raised(level, f"{who}: {_mixed(smears)}", numbers={"kinds_of_servers": kinds})
    usable = context.selection.usable
    announcing = [one.source.name for one in usable if one.best and one.best.reply.leap in (1, 2)]
    if announcing and len(announcing) < len(usable):
        verb = "announces" if len(announcing) == 1 else "announce"
        others = plural(len(usable) - len(announcing), "usable server")
        message = f"{_few(announcing)} {verb} a leap second, and {others} {'do' if others[0] != '1' else 'does'} not"
        numbers = {"announcing_servers": len(announcing), "usable_servers": len(usable)}
        return Raised(level, f"{message}: some smear it, or announce a false one", numbers=numbers)
    return None


def _since_month_end_ns(context: AuditContext) -> int | None:
    """Return the time since the end of a month, negative before it; None in a year that has no calendar."""
    agreement = context.selection.agreement
    now_ns = context.observation.taken.realtime_ns + (agreement.estimate_ns if agreement else 0)
    end_ns = month_end_ns(now_ns - _DAY_NS)
    return None if end_ns is None else now_ns - end_ns


def _is_announced(context: AuditContext) -> bool:
    """Whether more than half of the usable servers announce a leap second, or the kernel makes one (A1)."""
    usable, kernel = context.selection.usable, context.observation.kernel
    announcing = [one for one in usable if one.best and one.best.reply.leap in (1, 2)]
    is_kernel = isinstance(kernel, KernelState) and 1 <= kernel.state <= 4  # TIME_INS, TIME_DEL, TIME_OOP, TIME_WAIT
    return is_kernel or 2 * len(announcing) > len(usable)


def _divided(context: AuditContext, since_ns: int) -> Raised | None:
    """Describe two groups of servers that are as far apart as a smear is from UTC now (J5)."""
    voting = sorted((one.candidate.interval, one.source.name) for one in context.selection.usable if one.candidate)
    distance_ns, found = smear_ns(since_ns), separated([interval for interval, _ in voting])
    if found is None or distance_ns is None or not found[0].covers(distance_ns):
        return None
    names = [name for _, name in voting]
    apart = format_duration(distance_ns / NS_PER_S)
    groups = f"{_few(names[: found[1]])} against {_few(names[found[1] :])}"
    message = f"{groups}: they differ by about {apart}, as servers that smear a leap second differ now from others"
    least_s, greatest_s = (end_ns / NS_PER_S for end_ns in found[0])
    numbers = {"least_distance_s": least_s, "smear_s": distance_ns / NS_PER_S, "greatest_distance_s": greatest_s}
    return Raised("high", message, numbers=numbers)


def _smears(context: AuditContext, *, is_near: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each group of servers that are used together, and how each smears; "" if it is not known to smear."""
    for daemon in context.observation.disciplining:
        yield daemon.name, {hosts[0]: _known_smear(hosts) for hosts in configured_hosts(daemon)}
    own = [(one, hosts_of(one.source)) for one in context.selection.sources]
    yield "ntpaudit", {hosts[0]: _hinted(one, is_near) or _known_smear(hosts) for one, hosts in own}


def _known_smear(hosts: Sequence[str]) -> str:
    provider = provider_of(hosts)
    return "" if provider is None else provider.scheme


def _hinted(classified: ClassifiedSource, is_near: bool) -> str:
    """Return how a server smears by its reference id; the one of ntpd counts only while it can smear (J6)."""
    if classified.best is None or classified.best.reply.stratum < 2:
        return ""
    reference_id = classified.best.reply.reference_id
    if reference_id == SMOOTHING_ID:
        return "chronyd's smoothing"
    return "ntpd's smear" if is_near and reference_id[0] == SMEARING_ID else ""


def _mixed(smears: dict[str, str]) -> str:
    by_scheme: dict[str, list[str]] = {}
    for name, scheme in smears.items():
        by_scheme.setdefault(scheme, []).append(name)
    plain = by_scheme.pop("", [])
    smearing = [name for names in by_scheme.values() for name in names]
    message = f"{_few(smearing)} {'smears' if len(smearing) == 1 else 'smear'} leap seconds"
    if not plain:
        return f"{message} in different ways"
    return f"{message}, and {_few(plain)} probably {'does' if len(plain) == 1 else 'do'} not"


def _few(names: Sequence[str]) -> str:
    return joined([*names[:SHOWN], f"{len(names) - SHOWN} more"] if len(names) > SHOWN else names)


LEAP_SMEAR_MIX = Rule(
    "leap-smear-mix",
    check_leap_smear_mix,
    "use servers of one kind only: either all smear leap seconds in the same way, or none does (RFC 8633, section "
    "3.7.1); on the day of a leap second the two kinds differ by up to 1 s",
    (ETSI, ISO_GUIDE),
    raised_when={
        "high": (
            "within a day of a leap second that more than half of the usable servers announce, or that the kernel "
            "makes, two groups of servers differ by as much as a linear smear of 24 h differs from UTC now",
            "within such a day, servers are used together that smear differently, or of which some do not smear",
            "within such a day, some usable servers announce the leap second and others do not",
        ),
        "low": (
            "a time daemon, or ntpaudit itself, has servers that are known to smear leap seconds together with others "
            "(those of Google, Amazon and Meta; chronyd with `smoothtime`; ntpd during its smear, by its reference id)",
            "some usable servers announce a leap second and others do not",
        ),
    },
    meaning="Around a leap second these servers disagree, so the clock or its measurement is wrong by up to 1 s.",
    formula={
        "high": (
            "least_distance_s <= smear_s <= greatest_distance_s",
            "kinds_of_servers > 1",
            "0 < announcing_servers < usable_servers",
        ),
        "low": ("kinds_of_servers > 1", "0 < announcing_servers < usable_servers"),
    },
    notes="A server cannot be asked whether it smears. One that is not known to smear counts as one that does not.",
    message_id="4018d46a6c3947188177a5641a691a70",
)

RULES = (LEAP_SMEAR_MIX,)
