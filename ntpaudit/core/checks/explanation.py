"""What a rule states about its finding, in words: for `ntpaudit explain`, `check --explain` and docs/findings.md."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ntpaudit.core.checks.controls import CERTAINTY, CONTROLS, TECHNIQUES
from ntpaudit.core.checks.debounce import DWELL_S, HYSTERESIS, MAJORITY, SAMPLES
from ntpaudit.core.checks.rule import AnyRule, Finding
from ntpaudit.core.clock.interval import Interval
from ntpaudit.core.cross_check import distance_s
from ntpaudit.core.record import Record
from ntpaudit.core.units import DOCS, NS_PER_S, format_duration, joined

_TERM = re.compile(r"(abs\()?\b([a-z]\w*)\b(?(1)\))")
_NO_SYMBOLS = frozenset({"and", "or", "ms", "s", "min", "h", "ppm"})
_SAMPLES = {"network": "network audits", "host": "network and local audits", "database": "replies of the database"}
"""What gives an agent new samples, by the basis of a rule."""

_TWO_APART = f"2 in a row {format_duration(DWELL_S)} apart"


class Condition(NamedTuple):
    """One of the conditions that raise a finding: its level, in words, and as a formula."""

    level: str
    text: str
    formula: str


def conditions(rule: AnyRule) -> Iterator[Condition]:
    """Yield each condition of a rule, at each of its levels."""
    for levels, given in rule.raised_when.items():
        texts, formulas = ((one,) if isinstance(one, str) else one for one in (given, rule.formula[levels]))
        for text, formula in zip(texts, formulas, strict=True):
            yield from (Condition(level, text, formula) for level in levels.split(", "))


def symbols(formula: str) -> tuple[str, ...]:
    """Return the symbols of a formula, each once."""
    return tuple(dict.fromkeys(term[2] for term in _TERM.finditer(formula) if term[2] not in _NO_SYMBOLS))


def in_words(formula: str, numbers: Mapping[str, float] | None = None) -> str:
    """Write a formula in words, such as `|offset| > warning tolerance`; with `numbers`, each value after its name."""
    shown = {} if numbers is None else quantities(numbers)

    def write(term: re.Match[str]) -> str:
        if term[2] in _NO_SYMBOLS:
            return term[0]
        bar = "|" if term[1] else ""
        value = f" ({shown[term[2]]})" if term[2] in shown else ""
        return f"{bar}{name_of(term[2])}{value}{bar}"

    return _TERM.sub(write, formula)


def formulas_here(rule: AnyRule, level: str, numbers: Mapping[str, float]) -> tuple[str, ...]:
    """Return the formulas that a finding with these numbers rests on: those of its level, else those of others.

    A pending finding is listed as low, whatever its level will be.
    """
    fitting = [one for one in conditions(rule) if numbers and set(symbols(one.formula)) == set(numbers)]
    of_level = [one for one in fitting if one.level == level]
    return tuple(dict.fromkeys(one.formula for one in of_level or fitting))


def name_of(symbol: str) -> str:
    """Write a symbol in words, without its unit."""
    return symbol.removesuffix("_ppm").removesuffix("_s").replace("_", " ")


def quantities(numbers: Mapping[str, float]) -> dict[str, str]:
    """Write values with the units of their symbols; in full where two that differ would look alike."""
    shown = {symbol: _quantity(symbol, value) for symbol, value in numbers.items()}
    if len(set(shown.values())) >= len(set(numbers.values())):
        return shown
    return {symbol: f"{numbers[symbol]:.10g} s" if symbol.endswith("_s") else text for symbol, text in shown.items()}


def _quantity(symbol: str, value: float) -> str:
    if symbol.endswith("_s"):
        return f"{'-' * (value < 0)}{format_duration(value)}" if value else "0 s"
    return f"{value:.4g} ppm" if symbol.endswith("_ppm") else f"{value:.4g}" if value % 1 else f"{value:.0f}"


def confirmation(rule: AnyRule) -> str:
    """Describe when an agent raises the finding of one host."""
    if rule.basis == "moment":
        return "raised at once"
    held = f", after it has held for {format_duration(rule.least_s)}" if rule.least_s else ""
    return f"confirmed by {_SAMPLES[rule.basis]}{held}"


def samples_needed(rule: AnyRule) -> str:
    """Describe how many samples confirm the finding; empty if none is needed."""
    return "" if rule.basis == "moment" else f"{MAJORITY} of the last {SAMPLES} samples, or {_TWO_APART}"


def clearing(rule: AnyRule) -> str:
    """Describe when an agent clears the finding of one host."""
    if rule.basis == "moment":
        return rule.cleared or "when it is no longer true"
    below = f"; better is below {100 * HYSTERESIS:g} % of the tolerance" if rule.has_hysteresis else ""
    return f"after {MAJORITY} better samples in a row, or {_TWO_APART}{below}"


def listed(rule: AnyRule) -> Iterator[str]:
    """Yield where the finding is listed while others are raised."""
    if rule.covered_by:
        yield f"Not listed while {joined(rule.covered_by, 'or')} is raised and counts."
    if rule.caused_by:
        yield f"Listed under {joined(rule.caused_by, 'or')} while that is raised and counts."


def control_text(name: str) -> str:
    """Describe a control: how sure we are of it, and what it states."""
    note = CONTROLS[name].note
    return f"{name}: {_sure(name)}{f'; {note}' if note else ''}"


def _sure(name: str) -> str:
    control = CONTROLS[name]
    return f"{CERTAINTY[control.certainty]}{f'; {control.states}' if control.states else ''}"


def technique_text(name: str) -> str:
    """Describe a technique of attackers, with the version of its catalogue."""
    technique = TECHNIQUES[name]
    return f"{name} {technique.name}, {technique.version}{f'; {technique.note}' if technique.note else ''}"


def bears_on(rule: AnyRule) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the controls of a rule, and its techniques, of which one is also listed among the controls of findings."""
    controls = tuple(name for name in rule.controls if name not in TECHNIQUES)
    return controls, tuple(name for name in (*rule.controls, *rule.techniques) if name in TECHNIQUES)


def is_of_fleet(rule: AnyRule) -> bool:
    """Whether `ntpaudit fleet` raises the finding, not a host."""
    return not rule.message_id


def page_of(rule: AnyRule) -> str:
    """Return the place of a rule in the documentation."""
    return f"docs/findings.md#{rule.id}{'-fleet' if is_of_fleet(rule) else ''} (installed in {DOCS})"


def short_facts(rule: AnyRule, finding: Finding) -> Iterator[tuple[str, str]]:
    """Yield what explains a finding below its fix, each with a label."""
    yield "meaning", rule.meaning
    for formula in formulas_here(rule, finding.level, finding.numbers):
        yield "formula", in_words(formula)
        yield "here", in_words(formula, finding.numbers)
    controls, techniques = bears_on(rule)
    alike: dict[str, list[str]] = {}
    for name in controls:
        alike.setdefault(_sure(name), []).append(name)
    yield from (("controls", f"{', '.join(names)}: {text}") for text, names in alike.items())
    yield from (("ids", technique_text(name)) for name in techniques)
    yield "page", page_of(rule)


def present_numbers(record: Record) -> dict[str, float]:
    """Return the values of a record that formulas compare with a limit, by their symbols."""
    profile, offset, drift, health = record.profile, record.offset, record.drift, record.health
    found: dict[str, float | None] = {
        "warning_tolerance_s": profile.warning_s,
        "critical_tolerance_s": profile.critical_s,
        "hardware_clock_in_local_time": record.host_clock.get("rtc_local"),
    }
    if offset is not None:
        found["offset_s"] = offset.estimate_s
        found["minimum_error_s"] = max(offset.earliest_s, -offset.latest_s, 0.0)
        found["maximum_error_s"] = offset.bound_s
    if record.last_poll is not None:
        found["servers"] = record.last_poll.sources
        found["usable_servers"] = record.last_poll.usable
        found["agreeing_servers"] = record.last_poll.agreeing
    if record.kind == "network":
        unreachable = sum(source.status == "unreachable" for source in record.sources)
        waiting = sum(source.reason == "unanswered" for source in record.sources)
        found["unreachable_servers"] = unreachable and unreachable + waiting
        found["falsetickers"] = sum(source.status == "falseticker" for source in record.sources)
    if record.daemons_hidden is None:
        found["time_daemons"] = sum(bool(daemon.get("disciplines")) for daemon in record.daemons)
    if record.kernel.get("available"):
        found["kernel_synchronised"] = record.kernel.get("synchronised")
    if (stated := record.cross_check) is not None:
        found["kernel_maximum_error_s"], found["daemon_excess_s"] = stated.kernel_bound_s, stated.daemon_excess_s
        if offset is not None:
            interval = Interval(round(offset.earliest_s * NS_PER_S), round(offset.latest_s * NS_PER_S))
            found["daemon_error_s"] = distance_s(interval, stated.daemon_offset_s, 0.0)
    if record.claim is not None:
        found["daemon_synchronised"] = record.claim.get("is_synchronised")
    if record.cross_check is not None:
        found["kernel_maximum_error_s"] = record.cross_check.kernel_bound_s
    if health is not None:
        found["refused_writes"] = health.refusals
    if record.database_clock is not None:
        found["servers_minus_database_s"] = record.database_clock.disputed_s
    if drift is not None:
        found["time_to_critical_tolerance_s"] = drift.breach.central_s
        found["drift_ppm"], found["oscillator_error_ppm"] = drift.frequency_ppm, drift.raw_frequency_ppm
        found["fit_error_ppm"] = drift.skew_ppm
    return {symbol: float(value) for symbol, value in found.items() if isinstance(value, int | float)}


def why_not_raised(rule: AnyRule, record: Record) -> Iterator[str]:
    """Yield why a finding that is not in a record could not be raised or listed there, whatever the numbers are."""
    counted = {one.id for one in record.findings if one.severity}
    if by := [one for one in rule.covered_by if one in counted]:
        yield f"not listed while {joined(by)} is raised"
    if rule.needs_agent and record.health is None:
        yield "only an agent detects it, and this record is not of an agent"
    if not rule.of_daemon or any(daemon.get("disciplines") for daemon in record.daemons):
        return
    if not record.daemons:
        yield f"no time daemon was judged: {record.daemons_hidden or 'none was found'}"
    for daemon in record.daemons:
        yield f"{daemon['name']} was not judged: {daemon.get('reason') or 'it does not discipline the clock'}"


def compared_here(rule: AnyRule, present: Mapping[str, float]) -> dict[str, float]:
    """Return the present values of the conditions of which all are known."""
    known = [names for one in conditions(rule) if (names := symbols(one.formula)) and present.keys() >= set(names)]
    return {symbol: present[symbol] for names in known for symbol in names}
