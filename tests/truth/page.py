"""What was found as rows: a figure, its limits, the goal, and whether that is met; and docs/truth.md from them."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.truth.alarms import KINDS, TROUBLES
from tests.truth.coverage import AGES_S, ASKED
from tests.truth.frequency import NOISES, PROGRAMS
from tests.truth.packets import CLIENTS, LINES
from tests.truth.peers import BOUNDS, ESTIMATES
from tests.truth.statistics import Errors, Rate, Results, Share

PATHS = ("LAN", "WAN", "pool", "mobile")
FREQUENCY_PATHS = ("LAN", "pool")
GROUPS = ("no falseticker", "falsetickers, within f", "falsetickers, beyond f")
MOMENTS = ("just after an audit", "just before the next audit")

_MOST_WIDTH = 1.5
_BAND = (0.93, 0.97)
_MOST_FALSE = 1.0


_SHARES = ("coverage", "guaranteed", "peers", "skew", "band", "estimate among", "packets")


class Row(NamedTuple):
    """One figure with its limits of 95 % confidence. `is_met` is None without a goal; `cases` is the sample size."""

    section: str
    name: str
    value: float
    limits: tuple[float, float]
    cases: str
    is_met: bool | None = None
    worst: float | None = None


def rows(found: Results) -> list[Row]:
    """Return every figure."""
    return [
        *_coverage_rows(found),
        *_width_rows(found),
        *_estimate_rows(found),
        *_frequency_rows(found),
        *_forecast_rows(found),
        *_alarm_rows(found),
        *_packet_rows(found),
    ]


def _share(section: str, name: str, share: Share, goal: bool | None = None) -> Row:
    return Row(section, name, share.value, share.limits, f"{share.total:,}", goal)


def _coverage_rows(found: Results) -> Iterator[Row]:
    for assumed in ("within", "beyond"):
        for asked in ASKED:
            for age in AGES_S:
                if share := found.shares.get(("missed", assumed, f"{asked} asked", age)):
                    goal = share.hits == 0 if assumed == "within" else None
                    yield _share(f"coverage, {assumed}", f"{asked} asked, {age}", share, goal)
    for asked in ASKED:
        if share := found.shares.get(("proven", f"{asked} asked")):
            yield _share("guaranteed", f"{asked} asked", share)
    for row in GROUPS:
        for program in ("ntpaudit", *BOUNDS):
            if share := found.shares.get(("peers", row, program)):
                goal = share.hits == 0 if program == "ntpaudit" and row != "falsetickers, beyond f" else None
                yield _share(f"peers, {row}", program, share, goal)
    for program in BOUNDS:
        if share := found.shares.get(("before next", program)):
            yield _share("peers, before the next audit", program, share)


def _width_rows(found: Results) -> Iterator[Row]:
    for path in PATHS:
        for moment in MOMENTS:
            if sums := found.sums.get(("width", path, moment)):
                yield Row("width", f"{path}, {moment}", sums.ratio, (sums.ratio,) * 2, "", sums.ratio <= _MOST_WIDTH)
    for program in ("ntpaudit", *BOUNDS):
        if sums := found.sums.get(("half width", program)):
            yield Row("half width, ms", program, 1e3 * sums.ratio, (1e3 * sums.ratio,) * 2, f"{sums.lower:,.0f}")


def _estimate_rows(found: Results) -> Iterator[Row]:
    for falsetickers in GROUPS:
        for path in PATHS:
            for program in ("ntpaudit", *ESTIMATES):
                if errors := found.errors.get(("estimate", falsetickers, path, program)):
                    yield _errors(f"estimate, ms, {falsetickers}", f"{path}, {program}", errors, 1e3)
    for path in PATHS:
        if share := found.shares.get(("inside", path)):
            yield _share("estimate among the honest", path, share, share.hits == share.total)


def _errors(section: str, name: str, errors: Errors, scale: float = 1.0) -> Row:
    low, high = errors.limits
    limits = low * scale, high * scale
    return Row(section, name, errors.rms * scale, limits, f"{errors.count:,}", worst=errors.worst * scale)


def _frequency_rows(found: Results) -> Iterator[Row]:
    for path in FREQUENCY_PATHS:
        for noise in NOISES:
            for program in PROGRAMS:
                if errors := found.errors.get(("frequency", path, noise, program)):
                    yield _errors("frequency, ppm", f"{path}, {noise}, {program}", errors)
            if share := found.shares.get(("skew", path, noise)):
                yield _share("skew covers", f"{path}, {noise}", share)


def _forecast_rows(found: Results) -> Iterator[Row]:
    for noise in NOISES:
        if share := found.shares.get(("guaranteed", noise)):
            yield _share("guaranteed time", noise, share, share.hits == share.total)
    for path in FREQUENCY_PATHS:
        total = Share()
        for noise in NOISES:
            if share := found.shares.get(("band", path, noise)):
                total += share
                yield _share("band", f"{path}, {noise}", share)
        if total.total:
            low, high = total.limits
            yield _share("band", f"{path}, all", total, low <= _BAND[1] and high >= _BAND[0])
        if share := found.shares.get(("no band", path)):
            yield _share("band", f"{path}, no band yet", share)


def _alarm_rows(found: Results) -> Iterator[Row]:
    for kind in KINDS:
        if rate := found.rates.get(("false", kind)):
            yield _rate("false alarms per host-decade", kind, rate, _is_below(rate, _MOST_FALSE), "host-decades")
        if rate := found.rates.get(("changes", kind)):
            yield _rate("severity changes per host-day", kind, rate, None, "host-days")
    for trouble in TROUBLES:
        for kind in KINDS:
            for what in ("alarm", "listed"):
                if delays := found.delays.get((what, trouble, kind)):
                    cases = str(len(delays.times_s) + delays.missed)
                    limits = delays.quantile(0.5), delays.quantile(0.95)
                    worst = delays.quantile(1.0)
                    yield Row(f"delay, {what}, s", f"{trouble}, {kind}", limits[0], limits, cases, worst=worst)


def _is_below(rate: Rate, most: float) -> bool | None:
    """Whether a rate is below a goal; None if the time that was watched cannot show it."""
    low, high = rate.limits
    return True if high < most else False if low > most else None


def _packet_rows(found: Results) -> Iterator[Row]:
    for line in LINES:
        for client in CLIENTS:
            if errors := found.errors.get(("packets", line, client)):
                yield _errors("packets, ms", f"{line}, {client}", errors, 1e3)
        if share := found.shares.get(("packets held", line)):
            yield _share("packets, interval", line, share, share.hits == share.total)


def _rate(section: str, name: str, rate: Rate, goal: bool | None, unit: str) -> Row:
    return Row(section, name, rate.value, rate.limits, f"{rate.time:,.2f} {unit}", goal)


def unmet(found: Sequence[Row]) -> list[Row]:
    """Return the rows whose goal is not met."""
    return [row for row in found if row.is_met is False]


def describe(row: Row) -> str:
    """Write a row on one line: the figure, its limits, the sample, and whether the goal is met."""
    is_share = row.section.startswith(_SHARES) and row.section != "packets, ms"
    write = percent if is_share else number
    worst = "" if row.worst is None else f", worst {number(row.worst)}"
    goal = {None: "", True: ", met", False: ", NOT MET"}[row.is_met]
    limits = f"[{write(row.limits[0])}, {write(row.limits[1])}]"
    return f"{row.section}: {row.name}: {write(row.value)} {limits}{worst} ({row.cases}){goal}"


def number(value: float) -> str:
    """Write a figure with three digits."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """Write a share, with enough digits to differ from 0 and 1."""
    if math.isnan(share):
        return "-"
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    rest = min(share, 1 - share)
    digits = max(1, 1 - math.floor(math.log10(rest * 100))) if rest > 0 else 1
    return f"{share * 100:.{min(digits, 6)}f} %"
