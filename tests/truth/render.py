"""docs/truth.md, from the rows of a run."""

import math
from collections.abc import Iterable, Iterator, Sequence

from tests.truth.alarms import HEALTHY_HOURS, KINDS, TROUBLES
from tests.truth.coverage import AGES_S, ASKED, HOURS
from tests.truth.frequency import NOISES, PROGRAMS
from tests.truth.packets import CLIENTS, LINES
from tests.truth.page import FREQUENCY_PATHS, GROUPS, MOMENTS, PATHS, Row, describe, number, percent, unmet
from tests.truth.peers import BOUNDS, ESTIMATES
from tests.truth.statistics import Results, Share

Table = Sequence[Sequence[str]]

_FEWEST = 20  # runs that show a quantile of 95 %
_SHORT = ("question", "measured", "conditions")
_SHORT_HEAD = f"| {' | '.join(_SHORT)} |\n"


class Page:
    """Rows by section and name."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self._by_name = {(row.section, row.name): row for row in rows}

    def __call__(self, section: str, name: str) -> Row | None:
        """Return a row, if it was measured."""
        return self._by_name.get((section, name))


def render(rows: Sequence[Row], found: Results, *, command: str, machine: str) -> str:
    """Return the page."""
    page = Page(rows)
    parts = [
        _head(page, found, command, machine),
        f"## In short\n\n{summary(page)}",
        _coverage(page),
        _width(page),
        _estimate(page),
        _frequency(page),
        _forecasts(page),
        _alarms(page),
        _packets(page),
        _LIMITS,
    ]
    return "\n".join(parts)


def short(text: str) -> str:
    """Return the table of the five figures in a page, README.md or docs/truth.md."""
    begin = text.index(_SHORT_HEAD)
    return text[begin : text.index("\n\n", begin)]


def summary(page: Page) -> str:
    """Return the table of five figures, each with its conditions."""
    missed = _total(row for row in page.rows if row.section == "coverage, within")
    widths = [row.value for row in page.rows if row.section == "width"]
    rivals = [row for row in page.rows if row.section == "peers, falsetickers, within f" and row.name != "ntpaudit"]
    bands = [page("band", f"{path}, all") for path in FREQUENCY_PATHS]
    held = _total(row for row in page.rows if row.section == "guaranteed time")
    alarms = [page("false alarms per host-decade", kind) for kind in KINDS]
    steps = [
        page("delay, alarm, s", f"{trouble}, {kind}") for trouble in TROUBLES if "1.2" in trouble for kind in KINDS
    ]
    ends = [page("delay, alarm, s", f"the daemon ends, {kind}") for kind in KINDS]
    return _table(
        [
            _SHORT,
            [
                "Does the interval hold the true time?",
                f"it missed it in {missed.hits:,} of {missed.total:,} statements (< {percent(missed.limits[1])})",
                "at most f of the servers asked are wrong, replies are lost, ages up to 24 h; other programs' bounds, "
                f"at the moment of the same replies, missed it in {percent(min(r.value for r in rivals))} to "
                f"{percent(max(r.value for r in rivals))}",
            ],
            [
                "Is it wider than it must be?",
                f"{min(widths):.2f} to {max(widths):.2f} times the least width of that guarantee",
                "LAN, WAN, pool and mobile paths, just after an audit and just before the next",
            ],
            [
                "Do forecasts hold?",
                f"the 95 % band: {_value(bands[0])} on a LAN, {_value(bands[1])} with a pool; the guaranteed time: "
                f"{percent(held.value)} of {held.total:,}",
                "clocks that run free, eight kinds of noise; a band is only stated once it is calibrated",
            ],
            [
                "How often is an alarm false?",
                "; ".join(f"{kind}: {_rate(row)} in a host-decade" for kind, row in zip(KINDS, alarms, strict=True)),
                "hosts with a daemon and four honest servers, polled each 5 min (LAN) or hour (pool); findings of "
                "medium or worse",
            ],
            [
                "How late is a true alarm?",
                f"a step of 1.2 s: {_slowest(steps, 0)}; a time daemon that ended: {_slowest(ends, 0)} (median), "
                f"{_slowest(ends, 1)} (95 %)",
                "the same hosts, the slower of LAN and pool; local audits each minute, as by default",
            ],
        ]
    )


def _total(rows: Iterable[Row]) -> Share:
    found = Share()
    for row in rows:
        cases = int(row.cases.replace(",", ""))
        found += Share(round(row.value * cases), cases)
    return found


def _value(row: Row | None) -> str:
    return "-" if row is None else percent(row.value)


def _slowest(rows: Iterable[Row | None], which: int) -> str:
    found = [row.limits[which] for row in rows if row is not None and (which == 0 or int(row.cases) >= _FEWEST)]
    return _delay(max(found)) if found else "-"


def _head(page: Page, found: Results, command: str, machine: str) -> str:
    failed = unmet(page.rows)
    goals = sum(row.is_met is not None for row in page.rows)
    hours, other_hours = found.sum("hours"), found.sum("frequency hours")
    missing = "".join(f"\n- {describe(row)}" for row in failed)
    return f"""# How often is ntpaudit right?

Written by `make truth`; do not edit. `{command}` repeats this run.

Simulated hosts have clocks, oscillators, time daemons, servers and networks whose true time is known. The real agent
(`ntpaudit/core`) judges each of them, and each of its statements is compared with the truth. The simulation shares no
code with it but its inputs. Other programs are modelled from their documents, and get the same replies of servers.

This run: {hours.upper:,.0f} host-hours in {hours.lower:,.0f} worlds for coverage, width and estimate,
{other_hours.upper:,.0f} for frequency and forecasts. {machine}.

Brackets hold limits of 95 % confidence: exact for 0 %, 100 % and counts of events, else Wilson's. They take the cases
as independent. Statements about one host are not, so the true limits are wider.

{goals - len(failed)} of {goals} goals, which each section states, are met.{" Not met:" if failed else ""}{missing}
"""


def _coverage(page: Page) -> str:
    within = [["servers asked", *AGES_S]]
    beyond = [["servers asked", *AGES_S]]
    for table, assumed in ((within, "within"), (beyond, "beyond")):
        for asked in ASKED:
            cells = [_misses(page(f"coverage, {assumed}", f"{asked} asked, {age}")) for age in AGES_S]
            if any(cell != "-" for cell in cells):
                table.append([str(asked), *cells])
    groups = GROUPS
    peers = [["program", *groups, "before the next audit", "half width"]]
    for program in ("ntpaudit", *BOUNDS):
        width = page("half width, ms", program)
        peers.append(
            [
                program,
                *(_misses(page(f"peers, {group}", program)) for group in groups),
                _misses(page("peers, before the next audit", program)),
                "-" if width is None else f"{number(width.value)} ms",
            ]
        )
    return f"""## Does the interval hold the truth?

f = (servers asked - 1) / 3, rounded down, is how many of them may be wrong (falsetickers). Falsetickers jump, drift
away, or agree with each other on the worst time that the honest servers do not exclude. Honest servers are wrong by up
to their whole root distance. Attackers delay or drop their replies. Between 0.1 and 10 % of the exchanges are lost.
Clocks are disciplined as chronyd does it, only stepped, or free. Hosts are also suspended and cut off. The columns are
the age of the last measurement.

Statements that excluded the truth, where at most f servers are wrong (goal: none):

{_table(within)}
Where more than f are wrong nothing is promised:

{_table(beyond)}
Other programs at the moment of an audit, and just before the next one on disciplined hosts (one hour later):

{_table(peers)}
A program states nothing where it finds no majority, and ntpaudit is counted where it claims a guarantee: so the totals
differ. Where more than f are wrong, the true time is not among what all but f servers allow, which is ntpaudit's
interval; RFC 5905 follows a majority, which may still be right. *Deepest overlap* is what most servers allow
(Marzullo), by which chronyd selects. *ClockBound style* is the root distance of chronyd's nearest selected server, as
ClockBound states it. Before the next audit, ntpaudit's interval is in the first table.
"""


def _width(page: Page) -> str:
    table = [["path", *MOMENTS]]
    for path in PATHS:
        found = [page("width", f"{path}, {moment}") for moment in table[0][1:]]
        if any(found):
            table.append([path, *("-" if row is None else f"{row.value:.2f}" for row in found)])
    return f"""## How wide is it?

The interval's width as a multiple of the least that gives the same guarantee: what all but f of the servers allow now,
within what they allowed at every earlier audit (goal: at most 1.5).

{_table(table)}
"""


def _estimate(page: Page) -> str:
    parts = []
    for group in GROUPS:
        table = [["program", *PATHS]]
        for program in ("ntpaudit", *ESTIMATES):
            cells = [_errors(page(f"estimate, ms, {group}", f"{path}, {program}")) for path in PATHS]
            table.append([program, *cells])
        parts.append(f"{group[0].upper()}{group[1:]}:\n\n{_table(table)}")
    return "## How far is the estimate off?\n\nRoot mean square and worst error, in milliseconds.\n\n" + "\n".join(
        parts
    )


def _frequency(page: Page) -> str:
    parts = []
    for path in FREQUENCY_PATHS:
        table = [["noise", *PROGRAMS, "`skew_ppm` covers"]]
        for noise in NOISES:
            cells = [_errors(page("frequency, ppm", f"{path}, {noise}, {program}")) for program in PROGRAMS]
            table.append([noise, *cells, _share(page("skew covers", f"{path}, {noise}"))])
        parts.append(f"{path}:\n\n{_table(table)}")
    text = """## How right is the frequency?

Root mean square and worst error of the oscillator's present frequency, in ppm, on hosts whose clock is set every 6 h.
`skew_ppm` is the standard error of the fit over its own span, times Student's t. It is no limit for the present
frequency (R8); the last column shows how often it covers that.

"""
    return text + "\n".join(parts)


def _forecasts(page: Page) -> str:
    table = [["noise", "LAN: band", "pool: band", "guaranteed time"]]
    for noise in NOISES:
        bands = [_share(page("band", f"{path}, {noise}")) for path in FREQUENCY_PATHS]
        table.append([noise, *bands, _share(page("guaranteed time", noise))])
    table.append(["all", *(_share(page("band", f"{path}, all")) for path in FREQUENCY_PATHS), ""])
    table.append(["no band yet", *(_share(page("band", f"{path}, no band yet")) for path in FREQUENCY_PATHS), ""])
    return f"""## Do forecasts hold?

How often the clock reached 1 s inside the range of times (band) that a calibrated forecast states (goal for the row
*all*: 93 to 97 %), and how often it was right for all of the guaranteed time (goal: always). What would have happened
is computed from the oscillator's true phase and the kernel's correction. *No band yet*: the share of forecasts without
a band, because fewer than 30 forecasts of that horizon have come due.

{_table(table)}
"""


def _alarms(page: Page) -> str:
    healthy = [["healthy hosts", "false alarms per host-decade", "severity changes per host-day", "watched"]]
    for kind in KINDS:
        alarms, changes = page("false alarms per host-decade", kind), page("severity changes per host-day", kind)
        healthy.append([kind, _rate(alarms), _rate(changes), alarms.cases if alarms else "-"])
    troubles = [["what happens", *(f"{kind}: {what}" for kind in KINDS for what in ("median", "95 %", "listed"))]]
    for trouble in TROUBLES:
        cells = []
        for kind in KINDS:
            delay, listed = (
                page("delay, alarm, s", f"{trouble}, {kind}"),
                page("delay, listed, s", f"{trouble}, {kind}"),
            )
            cells += [_delay(delay.limits[0]) if delay else "-", _slowest([delay], 1)]
            cells.append("-" if listed is None else _delay(listed.limits[0]))
        troubles.append([trouble, *cells])
    cases = [row.cases for row in page.rows if row.section == "delay, alarm, s"]
    runs = f"{cases[0]} runs of each kind" if cases and cases[0] != "1" else "one run of each kind"
    return f"""## How often is an alarm false, and how late is a true one?

A healthy host is disciplined as chronyd does it, and asks four honest servers. An alarm is a finding of medium or worse
(goal: less than one in a host-decade; a run of fewer than 3.7 host-decades cannot show that). A host was watched for
{HEALTHY_HOURS:.0f} h from its first audit; to save time, its local audits came each hour (LAN) or 15 min (pool), and
not each minute, as by default.

{_table(healthy)}
The time until a finding of medium or worse, and (median) until any finding is listed, of {runs}, with
the default local audit each minute. *Never* is not within 24 h: with four servers one wrong server is outvoted and only
listed, and after a suspend nothing is wrong.

{_table(troubles)}
"""


def _packets(page: Page) -> str:
    table = [["line", *CLIENTS, "ntpaudit's interval held"]]
    for line in LINES:
        cells = [_errors(page("packets, ms", f"{line}, {client}")) for client in CLIENTS]
        table.append([line, *cells, _share(page("packets, interval", line))])
    if not any(row.section.startswith("packets") for row in page.rows):
        return ""
    return f"""## What real packets show

Each client asks a real chronyd, which serves this machine's own clock, through a relay that delays each datagram. So
any offset is error. Root mean square and worst error, in milliseconds. No client can see that a line is not symmetric;
ntpaudit's interval allows for it. The other three state no bound.

{_table(table)}
"""


_LIMITS = f"""## What this does not show

- Worlds are drawn from the ranges above; a world outside of them may be worse. A world of coverage lasts {HOURS:.0f} h.
- A virtual machine's pause while no server replies cannot be noticed by any host, and is not in the coverage.
- Models of other programs are not these programs: they have no state over time but what a section says.
"""


def _misses(row: Row | None) -> str:
    """Write how many statements were wrong, of how many."""
    if row is None:
        return "-"
    if row.value == 0:
        return f"0 of {row.cases} (< {percent(row.limits[1])})"
    return f"{percent(row.value)} of {row.cases}"


def _share(row: Row | None) -> str:
    return "-" if row is None else f"{percent(row.value)} [{percent(row.limits[0])}, {percent(row.limits[1])}]"


def _errors(row: Row | None) -> str:
    return "-" if row is None else f"{number(row.value)} / {number(row.worst or 0.0)}"


def _rate(row: Row | None) -> str:
    return "-" if row is None else f"{number(row.value)} [{number(row.limits[0])}, {number(row.limits[1])}]"


def _delay(seconds: float) -> str:
    if math.isinf(seconds):
        return "never"
    if seconds < 1:
        return "at once"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _table(lines: Iterable[Sequence[str]]) -> str:
    return "".join(_lines(lines))


def _lines(lines: Iterable[Sequence[str]]) -> Iterator[str]:
    for index, cells in enumerate(lines):
        yield "| " + " | ".join(cells) + " |\n"
        if index == 0:
            yield "|---" * len(cells) + "|\n"
