"""A record as the line of a monitoring plugin: state, summary, and performance data after a bar."""

from collections.abc import Sequence

from ntpaudit.core.policy import Severity
from ntpaudit.core.record import Record
from ntpaudit.formats.summary import summary
from ntpaudit.render.text_safety import decimal, short_words


def render(record: Record) -> str:
    """Write the line. Each tolerance is a threshold of the value that it limits; an unknown value is `U`."""
    return plugin_line(record.severity, summary(record), performance(record))


def plugin_line(severity: Severity, sentence: str, values: Sequence[str]) -> str:
    """Write the line of a state, a sentence and performance data."""
    text = short_words(sentence).replace("|", "/")
    return f"NTPAUDIT {severity.name} - {text}{' | ' if values else ''}{' '.join(values)}\n"


def performance(record: Record) -> list[str]:
    """List values as `label=value[unit];[warning];[critical];[min];[max]`; a signed value has ranges as thresholds."""
    profile, poll = record.profile, record.coverage
    estimate_s, bound_s = (record.offset.estimate_s, record.offset.bound_s) if record.offset else (None, None)
    warning, critical = decimal(profile.warning_s), decimal(profile.critical_s)
    by_offset = profile.judged_on == "offset"
    return [
        f"offset={_seconds(estimate_s)};{f'-{warning}:{warning}' if by_offset else ''};-{critical}:{critical};;",
        f"bound={_seconds(bound_s)};{'' if by_offset else warning};{critical};0;",
        f"sources={poll.sources};;;0;",
        f"usable={poll.usable};;;0;",
        f"agreeing={poll.agreeing};;;0;",
        f"findings={sum(finding.severity > Severity.OK for finding in record.findings)};;;0;",
        f"accepted={len(record.accepted)};;;0;",
    ]


def _seconds(value: float | None) -> str:
    return "U" if value is None else f"{decimal(value)}s"
