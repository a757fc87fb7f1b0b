"""`python -m docs`: write the tables that the code documents (findings, reason codes, keys, ...) into the pages.

A pair of comments marks the place of each block.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from docs.reasons import REASONS
from ntpaudit.config.schema import KEYS, REPEATED_KEYS
from ntpaudit.config.text import literal
from ntpaudit.core.checks import host
from ntpaudit.core.checks.controls import CONTROLS, TECHNIQUES
from ntpaudit.core.checks.explanation import (
    conditions,
    confirmation,
    control_text,
    listed,
    technique_text,
)
from ntpaudit.core.checks.rule import AnyRule
from ntpaudit.core.evidence.clauses import CLAUSES
from ntpaudit.core.fleet import checks
from ntpaudit.core.ingest import PIPELINES, Limit
from ntpaudit.core.observation import SourceObservation, Status
from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Labels, write_record
from ntpaudit.core.selection import ClassifiedSource
from ntpaudit.core.units import format_duration
from ntpaudit.outputs.journal import MESSAGE_IDS
from ntpaudit.reports.explanation import of_file, render
from tests.message_examples import HOSTS, debounce_messages, fleet_messages, host_messages, table

FOLDER = Path(__file__).parent


def host_findings(*, needs_agent: bool) -> Iterator[str]:
    """Yield the lines about the findings of one host: those that a check can raise, or only an agent."""
    for rule in host.RULES:
        if rule.needs_agent is needs_agent:
            yield from _section(rule.id, rule)
            yield f"- Agent: {confirmation(rule)}"
            yield f"- Journal: `MESSAGE_ID={rule.message_id}`"


def fleet_findings() -> Iterator[str]:
    """Yield the lines about the findings of a fleet."""
    for rule in checks.RULES:
        yield from _section(f"{rule.id} (fleet)", rule)


def explanation() -> Iterator[str]:
    """Yield the output of `ntpaudit explain` for a host that is 2 s behind."""
    findings = host.findings_of(HOSTS[0])
    record = write_record(HOSTS[0], Labels("1.0"), findings, Severity.CRITICAL)
    yield from ("```", render(findings[0].id, of_file(record, "record.json")).rstrip(), "```")


def controls() -> Iterator[str]:
    """Yield the list of the controls and techniques that findings name, each with how sure we are of it."""
    yield from (f"- {text}" for text in (*map(control_text, CONTROLS), *map(technique_text, TECHNIQUES)))


def clauses() -> Iterator[str]:
    """Yield the table of the clauses that an evidence report bears on."""
    yield from ("| clause | asks, in short | what a report shows | what it does not show |", "|---|---|---|---|")
    for one in CLAUSES:
        shows, lacks = (text[:1].upper() + text[1:] for text in (one.shows, one.lacks))
        yield f"| {one.name} | {one.asks} | {shows}. | {lacks} |"


def message_ids() -> Iterator[str]:
    """Yield the table of the journal's message ids."""
    yield from ("| kind | message id |", "|---|---|")
    yield from (f"| `{kind}` | `{message_id}` |" for kind, message_id in MESSAGE_IDS.items())


def reasons() -> Iterator[str]:
    """Yield the table of the reason codes of a source."""
    yield from ("| reason | status | meaning | what to do |", "|---|---|---|---|")
    for code, reason in REASONS.items():
        status = " or ".join(f"`{status}`" for status in reason.statuses)
        not_counted = "" if _counts(code, *reason.statuses) else " Does not count as asked."
        yield f"| `{code}` | {status} | {reason.meaning}{not_counted} | {reason.advice} |"


def configuration_example() -> Iterator[str]:
    """Yield a configuration with an example of every key."""
    yield "```toml"
    for number, (section, keys) in enumerate(KEYS.items()):
        yield from ([""] if number else [])
        yield f"[{section}]"
        yield from (f"{name} = {literal(key.example)}" for name, key in keys.items())
    for section, keys in REPEATED_KEYS.items():
        yield from ("", f"[[{section}]]")
        yield from (f"{name} = {literal(key.example)}" for name, key in keys.items())
    yield "```"


def configuration_keys() -> Iterator[str]:
    """Yield the table of the configuration's keys."""
    yield from ("| key | default | meaning |", "|---|---|---|")
    for section, keys in (*KEYS.items(), *REPEATED_KEYS.items()):
        for name, key in keys.items():
            written = key.default if isinstance(key.default, str) else literal(key.default)
            default = key.unset or "none" if key.default is None else f"`{written}`"
            variable = "" if key.variable is None else f" (variable: `{key.variable}`)"
            yield f"| `{section}.{name}` | {default} | {key.meaning}{variable} |"


def pipelines() -> Iterator[str]:
    """Yield the table of the limits of log pipelines."""
    yield from ("| pipeline | a host that is ahead | a host that is behind | limits from |", "|---|---|---|---|")
    for name, pipeline in PIPELINES.items():
        ahead, behind = _limit(pipeline.ahead, "ahead"), _limit(pipeline.behind, "behind")
        if pipeline.rules is not None:
            every, back = (format_duration(seconds) for seconds in pipeline.rules)
            behind = f"prebuilt rules run every {every} over the last {back}"
        source = pipeline.source if pipeline.is_documented else f"assumed; {pipeline.source}"
        yield f"| `{name}` | {ahead} | {behind} | {source} |"


def _limit(limit: Limit | None, where: str) -> str:
    return "" if limit is None else limit.effect.format(f"{format_duration(limit.limit_s)} {where}")


def _counts(code: str, *statuses: Status) -> bool:
    """Return whether a source with this reason counts as asked (R1)."""
    source = SourceObservation("", None, 0, ())
    return all(ClassifiedSource(source, status, code).is_asked for status in statuses)


def _section(title: str, rule: AnyRule) -> Iterator[str]:
    """Yield what both kinds of rule say. The heading is what links to a finding point at."""
    yield from ("", f"### {title}", "", rule.meaning, "", "| level | raised when | formula |", "|---|---|---|")
    yield from (f"| {level} | {when} | `{formula}` |" for level, when, formula in conditions(rule))
    if notes := " ".join(filter(None, (rule.notes, *listed(rule)))):
        yield from ("", *textwrap.wrap(notes, 130, break_on_hyphens=False))
    yield from ("", f"- Fix: {rule.remedy}")
    yield from (f"- Fix if {case}: {remedy}" for case, remedy in rule.case_remedies.items())
    if rule.controls:
        yield f"- Controls: {', '.join(rule.controls)}"
    if rule.techniques:
        yield f"- Techniques: {', '.join(rule.techniques)}"


BLOCKS: Mapping[str, Callable[[], Iterator[str]]] = {
    "findings of a check": lambda: host_findings(needs_agent=False),
    "findings of an agent": lambda: host_findings(needs_agent=True),
    "findings of a fleet": fleet_findings,
    "explanation": explanation,
    "controls": controls,
    "clauses": clauses,
    "message ids": message_ids,
    "reason codes": reasons,
    "configuration example": configuration_example,
    "configuration keys": configuration_keys,
    "pipelines": pipelines,
    "messages of a host": lambda: table(host_messages()),
    "messages of an agent": lambda: table(debounce_messages()),
    "messages of a fleet": lambda: table(fleet_messages()),
}
"""What is written, by the name in the comments around its place."""


def marks(name: str) -> tuple[str, str]:
    """Return the comments around a block."""
    return f"<!-- {name}: written by `make docs` from the rules -->", f"<!-- end of {name} -->"


def fill(text: str) -> str:
    """Return a page with each block rewritten. Raises ValueError if the end of a block is missing."""
    for name, lines in BLOCKS.items():
        begin, end = marks(name)
        if begin in text:
            before, _, rest = text.partition(begin)
            after = rest[rest.index(end) :]
            text = "\n".join((before + begin, *lines(), after))
    return text


def pages() -> dict[Path, str]:
    """Return every page, and its text as it should be."""
    return {path: fill(path.read_text()) for path in sorted(FOLDER.glob("*.md"))}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
