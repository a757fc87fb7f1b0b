"""A record as text for a terminal: the summary, a table of sources, the findings, the facts behind them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, copysign, log10
from typing import Any

from ntpaudit.core.checks.rule import Finding
from ntpaudit.core.cross_check import CrossCheck
from ntpaudit.core.fleet.model import FleetFinding
from ntpaudit.core.observation import Status
from ntpaudit.core.record import Record, SourceRecord
from ntpaudit.core.units import direction, format_duration, format_offset, plural
from ntpaudit.formats.summary import summary
from ntpaudit.render import terminal
from ntpaudit.render.terminal import Column, Paint

_NS = 1e-9
_UNITS = ((1.0, "s", 9), (1e-3, "ms", 6), (1e-6, "µs", 3), (_NS, "ns", 0))
"""Units of an offset in the table, with the decimals that show a nanosecond; larger units would need more digits."""

_COLOURS: dict[Status, int | None] = {"agreeing": None, "falseticker": terminal.RED}  # all others: yellow


def render(record: Record, *, width: int | None = None, colour: bool = False, explain: bool = False) -> str:
    """Write the record as text in lines of `width` columns, at most 100; `explain`: each finding with its rule."""
    paint, width = terminal.painter(colour), terminal.fitting(width)
    return terminal.page(
        terminal.opening(record.severity, summary(record), paint, width),
        terminal.table(SOURCE_COLUMNS, record.sources, paint, width),
        [line for finding in record.findings for line in _finding(finding, paint, width, explain=explain)],
        [line for label, fact in facts(record) for line in terminal.labelled(label, fact, width)],
    )


def _offset(source: SourceRecord) -> tuple[str, str]:
    """Return offset and error as text; the offset has as many digits as its error leaves sense, or three."""
    if source.offset_s is None or source.earliest_s is None or source.latest_s is None:
        return "", ""
    size, error_s = abs(source.offset_s), (source.latest_s - source.earliest_s) / 2
    scale, unit, most = next((entry for entry in _UNITS if size >= entry[0]), _UNITS[-1])
    finest = max(min(error_s, size / 100), _NS) / scale
    digits = f"{size / scale:.{min(max(0, ceil(-log10(finest))), most)}f}"
    shown_s = copysign(float(digits) * scale, source.offset_s)
    error = format_duration(max(source.latest_s - shown_s, shown_s - source.earliest_s), rounding="up")
    return f"{digits} {unit} {direction(source.offset_s):6}", error


SOURCE_COLUMNS: tuple[Column[SourceRecord], ...] = (
    Column("source", lambda source: terminal.to_ascii(source.name), gives_way=True, is_name=True),
    Column(  # empty if the name contains it
        "address",
        lambda source: "" if not source.address or source.address in source.name else terminal.to_ascii(source.address),
        gives_way=True,
        spare=True,
    ),
    Column("status", lambda source: source.status, colour=lambda source: _COLOURS.get(source.status, terminal.YELLOW)),
    Column("this host is ", lambda source: _offset(source)[0], is_number=True),
    Column("+/-", lambda source: _offset(source)[1], is_number=True),
    Column(
        "delay",
        lambda source: "" if source.delay_s is None else format_duration(source.delay_s),
        is_number=True,
        spare_for_names=True,
    ),
    Column(
        "st", lambda source: "" if source.stratum is None else str(source.stratum), is_number=True, spare_for_names=True
    ),
    Column("reference", lambda source: terminal.to_ascii(source.reference_id or ""), gives_way=True, spare=True),
    Column(  # empty if the status implies it
        "reason",
        lambda source: "" if source.reason in (None, "disagrees", "distant") else terminal.to_ascii(source.reason),
        gives_way=True,
    ),
)


def finding_lines(
    finding: Finding | FleetFinding,
    paint: Paint,
    width: int = terminal.WIDTH,
    write: Callable[[str], str] | None = None,
    *,
    fixed: bool = True,
) -> list[str]:
    """Write a finding and who accepts it or, if `fixed`, its fix; `write` as for `labelled`.

    The level is indented under a primary.
    """
    label = f"  {finding.level}" if isinstance(finding, Finding) and finding.cause else finding.level
    first, *others = terminal.labelled(label, f"{finding.id}: {finding.message}", width, write)
    level = paint(label, terminal.SEVERITY_COLOURS[finding.severity] if finding.severity else None)
    if finding.accepted is not None:
        indent = " " * terminal.LABEL_WIDTH
        fix = terminal.wrap_text(finding.accepted.text, indent, indent, width, write)
    else:
        fix = fix_lines(finding.remedy, terminal.LABEL_WIDTH, width, write) if fixed else []
    return [level + first[len(label) :], *others, *fix]


def _finding(finding: Finding, paint: Paint, width: int, *, explain: bool) -> Iterator[str]:
    yield from finding_lines(finding, paint, width)
    if explain:
        from ntpaudit.core.checks.explanation import short_facts
        from ntpaudit.core.checks.host import BY_ID

        for label, text in short_facts(BY_ID[finding.id], finding):
            yield from _indented(label, text, terminal.LABEL_WIDTH, width)


def fix_lines(remedy: str, indent: int, width: int, write: Callable[[str], str] | None) -> list[str]:
    """Write a fix, indented by `indent` columns; `write` as for `labelled`."""
    return _indented("fix", remedy, indent, width, write)


def _indented(label: str, text: str, indent: int, width: int, write: Callable[[str], str] | None = None) -> list[str]:
    return terminal.wrap_text(f"{label}: {text}", " " * indent, " " * (indent + len(f"{label}: ")), width, write)


def facts(record: Record) -> Iterator[tuple[str, str]]:
    """Return labels and texts of what the verdict rests on besides the sources."""
    yield from _statements(record)
    profile = record.profile
    judged_on = "the estimate" if profile.judged_on == "offset" else "the maximum error"
    warning, critical = format_duration(profile.warning_s), format_duration(profile.critical_s)
    yield "profile", f"{profile.name}: warning if {judged_on} exceeds {warning}, critical if proven beyond {critical}"
    if record.offset is not None and record.offset.max_drift_ppm is not None:
        yield "assumed", f"oscillator error of at most {record.offset.max_drift_ppm:.3g} ppm (host.max_drift_ppm)"
    agreeing = [source for source in record.sources if source.status == "agreeing"]
    if any(source.leap in (1, 2) or source.stratum == 1 for source in agreeing):
        yield from _leaps_and_clocks(agreeing)


def _statements(record: Record) -> Iterator[tuple[str, str]]:
    """Return what the servers, the time daemons and the kernel state about the clock."""
    compared = record.cross_check or CrossCheck()
    if (offset := record.offset) is not None:
        error_s = max(offset.latest_s - offset.estimate_s, offset.estimate_s - offset.earliest_s)
        counts = f"{record.agreement.agreeing} of {plural(record.agreement.sources, 'server')} agreed"
        if record.age_s and record.kind == "network":  # the counts are of this poll, the offset is not
            counts = f"measured {format_duration(record.age_s)} before"
        yield "servers", f"{_offset_and_error(offset.estimate_s, error_s)} ({counts})"
    others = []
    for daemon in record.daemons:
        claim = daemon.get("claim")
        if claim is None or (daemon["disciplines"] is False and not claim["available"]):
            others.append(_daemon(daemon))
            continue
        excess_s = compared.daemon_excess_s if daemon["name"] == compared.daemon else None
        yield "daemon", f"{_daemon(daemon)}: {_claim(claim)}{_contradiction(excess_s)}"
    listed = ", ".join(others) if record.daemons else "none found"
    if texts := [*filter(None, (listed, record.daemons_hidden))]:
        yield "daemons", "; ".join(texts)
    yield "kernel", _kernel(record.kernel) + _contradiction(compared.kernel_excess_s)


def _claim(claim: Mapping[str, Any]) -> str:
    """Describe what a time daemon reports about itself, or why that cannot be read and what would change it."""
    if not claim["available"]:
        remedy = f"; to change that: {claim['remedy']}" if claim.get("remedy") else ""
        return f"its claim cannot be read: {claim['reason']}{remedy}"
    parts = [_offset_and_error(claim.get("offset_s"), claim.get("bound_s"))]
    parts.append("not synchronised" if claim.get("is_synchronised") is False else "")
    parts.append(f"follows {claim['follows']}" if claim.get("follows") else "")
    if claim.get("updated_s") is not None:
        parts.append(f"updated {format_duration(claim['updated_s'], rounding='down')} ago")
    if (authentication := claim.get("authentication")) is not None:
        parts.append({"nts": "authenticated by NTS", "key": "authenticated by a key"}.get(authentication, ""))
    return ", ".join(filter(None, parts)) or "it reports nothing about itself"


def _offset_and_error(offset_s: float | None, error_s: float | None) -> str:
    if offset_s is None:
        return ""
    return format_offset(offset_s) + ("" if error_s is None else f" +/- {format_duration(error_s, rounding='up')}")


def _contradiction(excess_s: float | None) -> str:
    return f"; contradicts the servers by {format_duration(excess_s, rounding='down')}" if excess_s else ""


def _kernel(kernel: Mapping[str, Any]) -> str:
    if not kernel["available"]:
        return f"state not available: {kernel['reason']}"
    state = "synchronised" if kernel["synchronised"] else "not synchronised"
    maxerror = format_duration(kernel["maxerror_s"], rounding="up")
    return f"{state}, maximum error {maxerror}, frequency {kernel['frequency_ppm']:+.3f} ppm"


def _daemon(daemon: Mapping[str, Any]) -> str:
    details = [f"pid {daemon['pid']}"] if daemon["pid"] else []
    if not daemon["disciplines"]:
        details.append(daemon["reason"] or "does not discipline the clock")
    return f"{daemon['name']} ({', '.join(details)})"


def _leaps_and_clocks(agreeing: Sequence[SourceRecord]) -> Iterator[tuple[str, str]]:
    """Describe announced leap seconds and reference clocks in ntplib's words."""
    from ntplib import NTP, leap_to_text

    for leap in (1, 2):
        if count := sum(source.leap == leap for source in agreeing):
            yield "leap", f"{count} of {plural(len(agreeing), 'agreeing server')} announced: {leap_to_text(leap)}"
    clocks = dict.fromkeys(source.reference_id or "" for source in agreeing if source.stratum == 1)
    names = {clock: NTP.REF_ID_TABLE.get(clock.ljust(4, "\0")) for clock in clocks}
    if known := [f"{clock} is {name}" for clock, name in names.items() if name]:
        yield "reference", "; ".join(known)
