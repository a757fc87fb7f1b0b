"""`ntpaudit history`: the clock over time."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, dropwhile
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from ntpaudit.cli import output
from ntpaudit.cli.dead_letters import dead_letters
from ntpaudit.cli.parameters import DURATION, TIME, RelativeTime, config_option, given_options, resolve
from ntpaudit.cli.state import history_path, this_host
from ntpaudit.core.units import NS_PER_S, format_duration, format_utc, plural
from ntpaudit.errors import StoreError
from ntpaudit.render.terminal import Paint, painter

if TYPE_CHECKING:
    from ntpaudit.store.queries import History, Hour, Window

_Item = TypeVar("_Item")

FORMATS = ("table", "csv", "json")
PROGRESS_S = 2.0  # interval of progress messages

EPILOG = """\b
Examples:
  ntpaudit history                                the last 24 hours, the newest last
  ntpaudit history --plot --since 7d              a plot of one week
  ntpaudit history --limit 20                     the newest 20 audits, of any age
  ntpaudit history --events --since 90d           findings raised and cleared, and steps of the clock
  ntpaudit history --steps --since 90d            steps and suspends, each with its cause where a log names it
  ntpaudit history --since 2026-11-01 --until 2026-12-01 --format csv > november.csv
  ntpaudit history --hourly --since 400d --format csv
  ntpaudit history --daily --since 90d            what each UTC day consisted of, second by second
  ntpaudit history --excursions --since 90d       when the clock was beyond its tolerance, or not proven within it
  ntpaudit history --since 1h --format json | jq .offset.bound_s
  ntpaudit history dead-letters list              records that the database refused for good

\b
Times are UTC, corrected by the measured offset. Audits older than [history] raw are stored and shown per hour: the
worst severity, the smallest and the largest offset (from, to) and the largest maximum error. Hours do not include
audits of `ntpaudit check --record`. A finding marked (low) is low or pending, and does not count.
Each second of a day is within its tolerance, unproven, beyond it, unmeasured (the agent ran and had no valid
interval), absent (no record shows that the agent ran) or off (the host was down or suspended).
JSON has each record exactly as it was stored (schema ntpaudit.record/1), hours as ntpaudit.hour/1, days as
ntpaudit.day/1, excursions as ntpaudit.excursion/1, events as ntpaudit.event/1, steps as ntpaudit.step/1. Only root
can read the history of an agent that runs as a service: sudo ntpaudit history.

\b
Exit status: 0 ok, 3 nothing to show or not readable, 64 usage, 78 configuration.
"""


class HistoryQuery(NamedTuple):
    """What to show. Times in ns; None means no limit."""

    now_ns: int
    since_ns: int | None
    until_ns: int | None
    limit: int | None
    format_name: str
    hourly: bool
    critical_s: float | None = None


@click.group(epilog=EPILOG, invoke_without_command=True)
@click.pass_context
@click.option(
    "--since", type=TIME, help="Start: an age such as 7d, or a time in UTC.  [default: 24h; none with --limit]"
)
@click.option("--until", type=TIME, help="End: an age, or a time in UTC.  [default: now]")
@output.format_option(FORMATS)
@click.option("--plot", is_flag=True, help="Plot the offset with its maximum error, as wide as the terminal.")
@click.option("--limit", type=click.IntRange(1, 10**12), help="Show only the newest N.", metavar="N")
@click.option("--events", is_flag=True, help="Show events instead: findings raised and cleared, clock steps.")
@click.option("--steps", is_flag=True, help="Show steps and suspends instead, with what caused them, by logs.")
@click.option("--journal", metavar="DIR", help="With --steps: this journal instead of the host's; also a host's root.")
@click.option("--audit-log", metavar="FILE", help="With --steps: this log of auditd instead of the host's.")
@click.option("--hourly", is_flag=True, help="Show hours only, also where single audits are stored.")
@click.option("--daily", is_flag=True, help="Show UTC days: each second of them is in one of six states.")
@click.option("--excursions", is_flag=True, help="Show when the clock was beyond its tolerance, or unproven.")
@click.option(
    "--critical", type=DURATION, help="With --hourly, --daily or --excursions: judge again by this critical tolerance."
)
@config_option
def history(
    context: click.Context,
    since: RelativeTime | int | None,
    until: RelativeTime | int | None,
    format_name: str,
    plot: bool,
    limit: int | None,
    events: bool,
    steps: bool,
    journal: str | None,
    audit_log: str | None,
    hourly: bool,
    daily: bool,
    excursions: bool,
    critical: float | None,
    config_path: str | None,
) -> None:
    """Show this host's clock over time: offset, maximum error, verdict and findings."""
    if context.invoked_subcommand is not None:
        for name in given_options(context).values():
            raise click.UsageError(
                f"{name} before {context.invoked_subcommand} has no effect: move it to the end, or omit it"
            )
        return
    from ntpaudit.store.queries import open_history

    if events and (plot or hourly):
        raise click.UsageError("--events cannot be combined with --plot or --hourly")
    if steps and (events or plot or hourly):
        raise click.UsageError("--steps cannot be combined with --events, --plot or --hourly")
    if (daily or excursions) and (events or steps or plot or hourly or (daily and excursions)):
        name, other = ("--daily", "--excursions") if daily else ("--excursions", "--daily")
        raise click.UsageError(f"{name} cannot be combined with --events, --steps, --plot, --hourly or {other}")
    if not steps and (journal is not None or audit_log is not None):
        raise click.UsageError("--journal and --audit-log need --steps")
    if critical is not None and (plot or not (hourly or daily or excursions)):
        raise click.UsageError("--critical needs --hourly, --daily or --excursions")
    if plot and format_name != "table":
        raise click.UsageError(f"--plot cannot be combined with --format {format_name}")
    path, damaged = history_path(config_path, by_agent=False), list[str]()
    with output.exit_on(StoreError), open_history(path, damaged.append) as stored:
        now_ns = stored.corrected_now(this_host().moment)
        if since is None and limit is None:
            since = RelativeTime(86_400.0)
        since_ns, until_ns = (None if when is None else resolve(when, now_ns) for when in (since, until))
        query = HistoryQuery(now_ns, since_ns, until_ns, limit, format_name, hourly, critical)
        _check_times(query)
        show = partial(_steps, journal, audit_log) if steps else _events if events else _plot if plot else _audits
        show = _days if daily else _excursions if excursions else show
        lines = show(stored, query)
        first = next(lines, None)
        if first is None and damaged:
            raise StoreError(f"nothing can be shown: {path} has damaged rows ({_counted(damaged)})")
        if first is None:
            raise StoreError(_nothing(stored, path, _what(context)))
        output.write_parts(chain([first], lines))
        if critical is not None:
            output.note(_judged_again(critical))
        if damaged:
            output.note(f"not shown, because they are damaged: {_counted(damaged)} of {path}")


history.add_command(dead_letters)


def _check_times(query: HistoryQuery) -> None:
    if query.since_ns is None:
        return
    since = f"{_minute(query.since_ns)} UTC"
    if query.since_ns > query.now_ns:
        now = f"{_minute(query.now_ns)} UTC"
        raise click.UsageError(
            f"--since {since} is in the future (now: {now}): give an earlier time, or an age such as 24h"
        )
    if query.until_ns is not None and query.since_ns > query.until_ns:
        raise click.UsageError(f"--since ({since}) is later than --until ({_minute(query.until_ns)} UTC)")


def _counted(damaged: list[str]) -> str:
    return ", ".join(plural(count, what) for what, count in Counter(damaged).items())


def _nothing(stored: "History", path: str, what: str) -> str:
    newest = stored.newest_ns()
    if newest is None:
        return f"{path} has no audit yet"
    return f"no {what} in this period; the last audit was at {format_utc(newest)[:19]}Z: try --since, or --limit 20"


def _events(stored: "History", query: HistoryQuery) -> Iterator[str]:
    from ntpaudit.reports import history_tables

    events = stored.events(query.since_ns, query.until_ns, query.limit)
    if not events:
        return iter(())
    match query.format_name:
        case "csv":
            return history_tables.event_csv(events)
        case "json":
            return history_tables.event_json(events)
    return history_tables.event_table(events, *_layout())


def _steps(journal: str | None, audit_log: str | None, stored: "History", query: HistoryQuery) -> Iterator[str]:
    from ntpaudit.probes.step_causes import find_causes
    from ntpaudit.reports import clock_changes

    changes = stored.clock_changes(query.since_ns, query.until_ns, query.limit)
    if not changes:
        return iter(())
    changes, unread = find_causes(changes, journal, audit_log)
    match query.format_name:
        case "csv":
            return clock_changes.change_csv(changes, unread)
        case "json":
            return clock_changes.change_json(changes, unread)
    return clock_changes.change_text(changes, unread, output.page_width(), colour=output.wants_colour())


def _days(stored: "History", query: HistoryQuery) -> Iterator[str]:
    from ntpaudit.core.accounts import DAY
    from ntpaudit.reports import accounts

    days = stored.accounts(DAY, query.since_ns, query.until_ns, query.now_ns, query.critical_s)
    days = days if query.limit is None else days[-query.limit :]
    if not days:
        return iter(())
    match query.format_name:
        case "csv":
            return accounts.day_csv(days)
        case "json":
            return accounts.day_json(days, query.critical_s)
    return accounts.day_text(days, *_layout())


def _excursions(stored: "History", query: HistoryQuery) -> Iterator[str]:
    from ntpaudit.reports import accounts

    found = stored.excursions(query.since_ns, query.until_ns, query.now_ns, query.critical_s)
    found = found if query.limit is None else found[-query.limit :]
    if not found:
        return iter(())
    match query.format_name:
        case "csv":
            return accounts.excursion_csv(found)
        case "json":
            return accounts.excursion_json(found, query.critical_s)
    return accounts.excursion_text(found, output.page_width(), painter(output.wants_colour()))


def _judged_again(critical_s: float) -> str:
    return (
        f"judged again by a critical tolerance of {format_duration(critical_s)}, not by the profile in force; where "
        "the records are deleted, only time whose largest maximum error is within it counts as within"
    )


def _what(context: click.Context) -> str:
    """Return what was to be shown, for a message."""
    return next((name for name in ("steps", "events", "excursions") if context.params[name]), "audits")


def _layout() -> tuple[int, Paint]:
    from ntpaudit.reports.history_tables import WIDTH

    return output.page_width() or WIDTH, painter(output.wants_colour())


def _choose(stored: "History", query: HistoryQuery) -> "tuple[list[Hour], Window]":
    """Return hours of the period, and its single audits, which are later."""
    from ntpaudit.core.units import HOUR_S
    from ntpaudit.store.queries import Window

    if query.hourly:
        return stored.hours(query.since_ns, query.until_ns, query.limit), Window(1, 0)
    window = stored.window(query.since_ns, query.until_ns, query.limit)
    left = None if query.limit is None else query.limit - window.size
    if left is not None and left <= 0:
        return [], window
    before_ns, oldest_ns = query.until_ns, stored.oldest_ns()
    if oldest_ns is not None:
        hour_ns = oldest_ns - oldest_ns % (HOUR_S * NS_PER_S)
        before_ns = hour_ns if before_ns is None else min(hour_ns, before_ns)
    return stored.hours(query.since_ns, before_ns, left), window


def _audits(stored: "History", query: HistoryQuery) -> Iterator[str]:
    from ntpaudit.reports import history_tables

    hours, window = _choose(stored, query)
    hours = stored.account(hours, query.now_ns, query.critical_s) if query.hourly else hours
    if query.format_name == "json":
        records = _with_progress((f"{text}\n" for _, text in stored.records(window)), window.size)
        return chain(history_tables.hour_json(hours, query.critical_s), records)
    audits = _with_progress(stored.audits(window), window.size)
    first = next(audits, None)
    if first is None and not hours:
        return iter(())
    audits = iter(()) if first is None else chain([first], audits)
    if query.format_name == "csv":
        return history_tables.audit_csv(hours, audits)
    hour_lines = history_tables.hour_table(hours, *_layout()) if hours else iter(())
    audit_lines = history_tables.audit_table(audits, *_layout()) if first is not None else iter(())
    return chain(hour_lines, ["\n"] if hours and first is not None else [], audit_lines)


def _plot(stored: "History", query: HistoryQuery) -> Iterator[str]:
    from ntpaudit.core.checks.steps import STEP_KINDS
    from ntpaudit.render import plot

    hours, window = _choose(stored, query)
    audits = _with_progress(stored.audits(window, in_full=False), window.size, always=True)
    floor_ns = stored.oldest_ns() or 0  # a clock that was in 1970 must not stretch the plot over 50 years
    placed = (audit for audit in audits if audit.is_dated or floor_ns <= audit.time_ns <= query.now_ns)
    known = dropwhile(lambda hour: not hour.measured, hours)  # such an hour has the host's uncorrected time
    points = chain(map(plot.point_of_hour, known), map(plot.point_of_audit, placed))
    first = next(points, None)
    if first is None:
        return
    columns, rows = output.terminal_size()
    end_ns = query.now_ns if query.until_ns is None else min(query.until_ns, query.now_ns)
    frame = plot.Frame(
        title=f"{stored.host_name() or 'this host'}: offset of the clock from {_minute(first.begin_ns)} to "
        f"{_minute(end_ns)} UTC",
        begin_ns=first.begin_ns,
        end_ns=max(end_ns, first.end_ns + NS_PER_S),
        gap_ns=round(stored.agent_state().stale_after_s * NS_PER_S),
        columns=max(columns, plot.LEAST_WIDTH) - plot.LABEL_WIDTH - 3,
        rows=max(6, min(rows - 9, 24)),
        glyphs=plot.UNICODE if _shows_unicode() else plot.ASCII,
    )
    steps = [
        plot.Step(event.utc_ns or event.host_ns, event.value_s)
        for event, _ in stored.events(first.begin_ns, query.until_ns)
        if event.kind in STEP_KINDS and event.raised and event.value_s
    ]
    yield plot.draw(chain([first], points), steps, frame, painter(output.wants_colour()))


def _with_progress(items: Iterable[_Item], total: int, *, always: bool = False) -> Iterator[_Item]:
    """Yield items, with progress messages, except where the items themselves appear on a terminal."""
    due_s = time.monotonic() + PROGRESS_S
    is_visible = output.is_terminal() and not always
    for number, item in enumerate(items, 1):
        if number % 1024 == 0 and not is_visible and time.monotonic() >= due_s:
            output.show_progress(f"read {number} of about {total} audits")
            due_s = time.monotonic() + PROGRESS_S
        yield item


def _shows_unicode() -> bool:
    """Return whether the terminal shows Unicode. Python writes UTF-8 in the C locale too, where terminals do not."""
    named = [os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if named[:2] == ["", "C.UTF-8"] and named[2]:
        named[1] = ""  # Python sets it in place of C (PEP 538)
    is_plain = next(filter(None, named), "") in ("C", "POSIX")
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    console = os.environ.get("TERM") == "linux"  # its fonts have no Braille
    return encoding == "utf8" and not is_plain and not console


def _minute(time_ns: int) -> str:
    return format_utc(time_ns)[:16].replace("T", " ")
