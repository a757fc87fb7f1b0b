"""Findings explained, as text or JSON: the rule, and the numbers of one record."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ntpaudit.core.checks import host
from ntpaudit.core.checks.controls import CONTROLS, TECHNIQUES
from ntpaudit.core.checks.explanation import (
    bears_on,
    clearing,
    compared_here,
    conditions,
    confirmation,
    control_text,
    formulas_here,
    in_words,
    is_of_fleet,
    listed,
    page_of,
    present_numbers,
    samples_needed,
    symbols,
    technique_text,
    why_not_raised,
)
from ntpaudit.core.checks.rule import AnyRule, Finding
from ntpaudit.core.fleet import checks
from ntpaudit.core.record import Record
from ntpaudit.core.units import format_utc
from ntpaudit.formats.json_record import json_line
from ntpaudit.formats.text import finding_lines
from ntpaudit.render.terminal import Paint, fitting, labelled, page, painter, wrap_text

SCHEMA = "ntpaudit.explanation/1"
FORMATS = ("text", "json")
IDS = tuple(dict.fromkeys(rule.id for rule in (*host.RULES, *checks.RULES)))
_ID_WIDTH = 2 + max(map(len, IDS))


class Here(NamedTuple):
    """The record whose numbers are shown, and where it is from; without one, `source` is the reason.

    `is_stale`: it does not describe the present clock. `age_s` is None if it is unknown.
    """

    record: Record | None
    source: str
    age_s: float | None = None
    is_stale: bool = False

    def finding(self, finding_id: str) -> Finding | None:
        """Return what is raised or pending in the record."""
        found = () if self.record is None else self.record.findings
        return next((one for one in found if one.id == finding_id), None)


def of_file(record: Record, name: str) -> Here:
    """Return a record that was read from a file, or from standard input."""
    at = format_utc(record.host_ns)[:19] if record.utc_ns is None else f"{format_utc(record.utc_ns)[:19]}Z"
    return Here(record, f"{name}: {record.host.name} at {at}")


def rules_of(finding_id: str) -> tuple[AnyRule, ...]:
    """Return the rules with this id: that of a host, that of a fleet, or both."""
    return tuple(rule for rule in (*host.RULES, *checks.RULES) if rule.id == finding_id)


def render(finding_id: str, here: Here, *, width: int | None = None, colour: bool = False) -> str:
    """Explain a finding in lines of `width` columns, at most 100."""
    paint, width = painter(colour), fitting(width)
    return "\n".join(page(*_explained(rule, here, paint, width)) for rule in rules_of(finding_id))


def render_list(here: Here, *, width: int | None = None, colour: bool = False) -> str:
    """List what is raised in the record, then all other findings."""
    paint, width = painter(colour), fitting(width)
    raised = () if here.record is None else here.record.findings
    others = [rule for rule in host.RULES if here.finding(rule.id) is None]
    return page(
        labelled("record", here.source, width),
        [line for one in raised for line in finding_lines(one, paint, width, fixed=False)],
        [*wrap_text("findings of a host:", "", "", width), *_meanings(others, width)],
        [*wrap_text("findings of a fleet (ntpaudit fleet):", "", "", width), *_meanings(checks.RULES, width)],
        wrap_text("ntpaudit explain FINDING shows one of them.", "", "", width),
    )


def render_json(finding_ids: Iterable[str], here: Here) -> str:
    """Write the explanations of findings as one JSON object."""
    record = here.record
    origin = None
    if record is not None:
        utc = None if record.utc_ns is None else format_utc(record.utc_ns)
        times = {"utc": utc, "host": format_utc(record.host_ns)}
        origin = {"host": record.host.name, "time": times, "age_s": here.age_s, "stale": here.is_stale}
    data = {
        "schema": SCHEMA,
        "source": here.source,
        "record": origin,
        "findings": [_data(rule, here) for finding_id in finding_ids for rule in rules_of(finding_id)],
    }
    return json_line(data)


def _meanings(rules: Sequence[AnyRule], width: int) -> Iterator[str]:
    for rule in rules:
        yield from wrap_text(rule.meaning, f"  {rule.id.ljust(_ID_WIDTH)}", " " * (_ID_WIDTH + 2), width)


def _explained(rule: AnyRule, here: Here, paint: Paint, width: int) -> Iterator[list[str]]:
    """Yield the blocks of one rule."""
    finding = None if is_of_fleet(rule) else here.finding(rule.id)
    if finding is None:
        yield wrap_text(f"{rule.id}: {_state(rule, here)}", "", "  ", width)
    else:
        yield finding_lines(finding, paint, width)
    blocks = (
        [] if is_of_fleet(rule) else [("record", here.source)],
        [("meaning", rule.meaning)],
        _conditions(rule),
        _here(rule, here, finding),
        _fixes(rule, finding),
        _over_time(rule),
        _bears_on(rule),
        [("page", page_of(rule))],
    )
    yield [line for block in blocks for line in _lines(block, width)]


def _lines(facts: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Write each fact after its label; a label that was just written is left out."""
    last = ""
    for label, text in facts:
        yield from labelled("" if label == last else label, text, width)
        last = label


def _state(rule: AnyRule, here: Here) -> str:
    if is_of_fleet(rule):
        return "a finding of a fleet, which `ntpaudit fleet` lists"
    if here.record is None:
        return "a finding of a host"
    why = "" if any(why_not_raised(rule, here.record)) else ", because no condition is met or was confirmed"
    return f"not raised on {here.record.host.name}{why}"


def _conditions(rule: AnyRule) -> Iterator[tuple[str, str]]:
    for level, text, formula in conditions(rule):
        yield level, text
        yield level, f"formula: {in_words(formula)}"


def _here(rule: AnyRule, here: Here, finding: Finding | None) -> Iterator[tuple[str, str]]:
    if here.record is None or is_of_fleet(rule):
        return
    if finding is None:
        yield from (("why not", reason) for reason in why_not_raised(rule, here.record))
        present = present_numbers(here.record)
        formulas = dict.fromkeys(one.formula for one in conditions(rule))
        yield from (("now", in_words(one, present)) for one in formulas if present.keys() >= set(symbols(one)))
    else:
        for formula in formulas_here(rule, finding.level, finding.numbers):
            yield "here", in_words(formula, finding.numbers)
        if finding.cause is not None:
            yield "listed", f"under {finding.cause}, which has the same cause and counts for both"


def _fixes(rule: AnyRule, finding: Finding | None) -> Iterator[tuple[str, str]]:
    if finding is None:
        yield "fix", rule.remedy
    yield from (("fix if", f"{case}: {remedy}") for case, remedy in rule.case_remedies.items())


def _over_time(rule: AnyRule) -> Iterator[tuple[str, str]]:
    if not is_of_fleet(rule):
        by_check = "" if rule.needs_agent else "a single `ntpaudit check` reports it at once"
        yield "agent", "; ".join(filter(None, (confirmation(rule), samples_needed(rule), by_check)))
        yield "cleared", clearing(rule)
    if notes := " ".join(filter(None, (rule.notes, *listed(rule)))):
        yield "notes", notes


def _bears_on(rule: AnyRule) -> Iterator[tuple[str, str]]:
    controls, techniques = bears_on(rule)
    yield from (("controls", control_text(name)) for name in controls)
    yield from (("ids", technique_text(name)) for name in techniques)


def _data(rule: AnyRule, here: Here) -> dict[str, Any]:
    controls, techniques = bears_on(rule)
    is_of_host = not is_of_fleet(rule)
    finding = here.finding(rule.id) if is_of_host else None
    return {
        "id": rule.id,
        "of": "host" if is_of_host else "fleet",
        "meaning": rule.meaning,
        "conditions": [one._asdict() for one in conditions(rule)],
        "raised": None if here.record is None or not is_of_host else finding is not None,
        "finding": None
        if finding is None
        else {
            "level": finding.level,
            "severity": finding.severity.word,
            "cause": finding.cause,
            "message": finding.message,
            "remedy": finding.remedy,
            "formulas": formulas_here(rule, finding.level, finding.numbers),
            "numbers": dict(finding.numbers),
        },
        "why_not_raised": tuple(why_not_raised(rule, here.record))
        if is_of_host and finding is None and here.record is not None
        else (),
        "present": compared_here(rule, present_numbers(here.record)) if here.record is not None and is_of_host else {},
        "remedy": rule.remedy,
        "case_remedies": dict(rule.case_remedies),
        "agent": None
        if not is_of_host
        else {"raised": confirmation(rule), "samples": samples_needed(rule) or None, "cleared": clearing(rule)},
        "listed_under": rule.caused_by,
        "covered_by": rule.covered_by,
        "notes": rule.notes,
        "controls": [{"name": name} | CONTROLS[name]._asdict() for name in controls],
        "techniques": [{"id": name} | TECHNIQUES[name]._asdict() for name in techniques],
        "page": page_of(rule),
    }
