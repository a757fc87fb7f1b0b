"""An evidence report as one HTML page for paper: it loads nothing, and has no script."""

from collections.abc import Iterable, Sequence
from typing import Any

from ntpaudit.core.acceptance import HostAcceptance
from ntpaudit.core.evidence.hosts import end_of, utc
from ntpaudit.core.evidence.model import BAD_STATES, Balance, HostResult, total
from ntpaudit.core.evidence.report import EvidenceReport, exact, share
from ntpaudit.core.excursions import describe_logs
from ntpaudit.core.units import format_duration, joined, plural
from ntpaudit.render.html import environment, verbatim
from ntpaudit.reports.evidence_json import Made, manifest

MOST_ROWS = 500  # of excursions and of gaps; all of them are in the tables as CSV
MOST_NAMES = 20

WORDS = {
    "within": "within",
    "beyond": "beyond",
    "unproven": "unproven",
    "not-shown": "not shown",
    "nothing-known": "nothing known",
    "off": "off",
    "passed": "passed",
    "failed": "failed",
    "not-done": "not done",
}


def render(report: EvidenceReport, made: Made, *, most_hosts: int | None = None) -> str:
    """Return the page. Every text may be hostile: it is escaped. `most_hosts` limits the hosts shown, the worst first.

    The same values give the same page; `made` is in the last line and in the name of its generator.
    """
    hosts = (*report.hosts, *report.unlisted)
    excursions = [(host, one) for host in report.hosts for one in host.excursions]
    excursions.sort(key=lambda pair: (pair[1].state, -pair[1].duration_s))
    gaps = sorted(((host, one) for host in report.hosts for one in host.gaps), key=lambda pair: -pair[1].seconds)
    made_of = environment().overlay()
    made_of.filters = made_of.filters | {
        "capitalised": lambda text: text[:1].upper() + text[1:],
        "end": end_of,
        "error": lambda value: "\N{EN DASH}" if value is None else format_duration(value),
        "exact": exact,
        "largest": lambda value: format_duration(value, rounding="up"),
        "logs": lambda one: describe_logs(one.earliest_s, one.latest_s),
        "moment": utc,
        "of": _apart,
        "percent": lambda part, whole: share(part, whole).partition(" of")[0],
        "stamp": lambda seconds: utc(seconds).removesuffix(" UTC"),
        "who": _who,
    }
    return made_of.get_template("evidence.html.jinja").render(
        report=report,
        made=made,
        title="Evidence of clock accuracy",
        style=verbatim("evidence_page.css"),
        words=WORDS,
        states=[one for one in BAD_STATES if any(host.balance.counted(one) for host in hosts)],
        apart=[one for one in ("off", "excepted") if any(_apart(host.balance, one) for host in hosts)],
        empty=joined(
            [
                *(one for one in BAD_STATES if not any(host.balance.counted(one) for host in hosts)),
                *(one for one in ("off", "excepted") if not any(_apart(host.balance, one) for host in hosts)),
            ],
            "or",
        ),
        worst={0: "within", 2: "beyond"}.get(report.exit_status, "not-shown"),
        sites=_sites(report.hosts),
        shown=report.hosts[:most_hosts],
        details=_details,
        most=MOST_NAMES,
        most_rows=MOST_ROWS,
        excursions=excursions[:MOST_ROWS],
        excursion_count=len(excursions),
        gaps=gaps[:MOST_ROWS],
        gap_count=len(gaps),
        manifest=manifest(report),
    )


def _sites(hosts: Sequence[HostResult]) -> list[tuple[str, int, Balance]]:
    names = sorted({one.site or "" for one in hosts})
    groups = {name: [one.balance for one in hosts if (one.site or "") == name] for name in names}
    return [(name, len(group), total(group)) for name, group in groups.items()]


def _apart(balance: Balance, what: str) -> int:
    """Return the seconds that do not count, of one kind."""
    return balance.spans.off if what == "off" else sum(balance.excepted)


def _who(exception: HostAcceptance) -> str:
    named = (("host", exception.host), ("site", exception.site))
    return ", ".join(f"{word} {pattern}" for word, pattern in named if pattern) or "all hosts"


def _details(host: HostResult) -> str:
    """Return one line of what else is known about a host."""
    return "; ".join(_parts(host)) + "."


def _parts(host: HostResult) -> Iterable[str]:
    yield from host.statements
    if host.result == "nothing-known":
        return
    if (one := host.longest_excursion) is not None:
        yield f"longest excursion {exact(one.duration_s)} ({one.state}) from {utc(one.begin_s)}"
    if (gap := host.longest_gap) is not None:
        yield f"longest gap {exact(gap.seconds)} ({gap.state})"
    yield f"two or more servers usable for {exact(host.two_sources_s)}"
    yield _steps(host)
    if host.sources is not None:
        yield _sources(host)
    yield (
        f"{plural(len(host.changes), 'change')} of configuration or version"
        if host.changes
        else "no change of configuration"
    )
    yield plural(host.raised, "alarm") if host.raised else "no alarm"
    if host.profiles:
        yield f"profile {joined(host.profiles)}"


def _steps(host: HostResult) -> str:
    if not host.step_count and not host.steps:
        return "no step of the clock"
    known = sum(one.cause is not None for one in host.steps)
    largest = max((abs(one.size_s) for one in host.steps if one.size_s is not None), default=None)
    size = "" if largest is None else f", the largest {format_duration(largest)}"
    return f"{plural(max(host.step_count, len(host.steps)), 'step')} of the clock{size}, {known} with a known cause"


def _sources(host: HostResult) -> str:
    sources: Any = host.sources
    names = joined([one.name for one in sources[:MOST_NAMES]])
    wrong = [one.name for one in sources if one.is_approved is False]
    judged = "" if not wrong else f", not approved: {joined(wrong)}"
    if sources and all(one.is_approved is None for one in sources):
        judged = " (no list of approved servers is known)"
    return f"servers {names or 'none'}{judged}"
