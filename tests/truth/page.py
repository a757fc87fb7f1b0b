"""What was found as rows: a figure, its limits, the goal, and whether that is met; and docs/truth.md from them."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.truth.alarms import KINDS, TROUBLES, Alarms
from tests.truth.coverage import AGES_S, ASKED, Coverage
from tests.truth.frequency import NOISES, PROGRAMS, Frequency
from tests.truth.peers import BOUNDS, ESTIMATES
from tests.truth.statistics import Rate, Share

PATHS = ("LAN", "WAN", "pool", "mobile")

_MOST_WIDTH = 1.5
_BAND = (0.93, 0.97)
_MOST_FALSE = 1.0


class Row(NamedTuple):
    """One figure. `is_met` is None without a goal; `limits` are those of 95 % confidence; `cases` is the sample size."""

    section: str
    name: str
    value: float
    limits: tuple[float, float]
    cases: str
    is_met: bool | None = None
    worst: float | None = None


class Found(NamedTuple):
    """All that a run of `make truth` measured."""

    coverage: Coverage
    frequency: Frequency
    alarms: Alarms


def rows(found: Found) -> list[Row]:
    """Return every figure."""
    return [
        *_coverage_rows(found.coverage),
        *_width_rows(found.coverage),
        *_estimate_rows(found.coverage),
        *_frequency_rows(found.frequency),
        *_forecast_rows(found.frequency),
        *_alarm_rows(found.alarms),
    ]


def _share(section: str, name: str, share: Share, goal: bool | None = None) -> Row:
    return Row(section, name, share.value, share.limits, f"{share.total:,}", goal)


def _coverage_rows(found: Coverage) -> Iterator[Row]:
    for assumed in ("within", "beyond"):
        for asked in ASKED:
            for age in AGES_S:
                share = found.missed.get((assumed, f"{asked} asked", age))
                if share is not None:
                    goal = share.hits == 0 if assumed == "within" else None
                    yield _share(f"coverage, {assumed}", f"{asked} asked, {age}", share, goal)
    for asked in ASKED:
        if share := found.proven.get(f"{asked} asked"):
            yield _share("guaranteed", f"{asked} asked", share)
    for row in ("no liar", "liars, within f", "liars, beyond f"):
        for program in ("ntpaudit", *BOUNDS):
            if share := found.peers.get((row, program)):
                goal = share.hits == 0 if program == "ntpaudit" and row != "liars, beyond f" else None
                yield _share(f"peers, {row}", program, share, goal)
    for program in BOUNDS:
        if share := found.before_next.get(program):
            yield _share("peers, before the next audit", program, share)


def _width_rows(found: Coverage) -> Iterator[Row]:
    for path in PATHS:
        for moment in ("just after an audit", "just before the next audit"):
            if sums := found.widths.get((path, moment)):
                ratio = sums[0] / sums[1]
                yield Row("width", f"{path}, {moment}", ratio, (ratio, ratio), "", ratio <= _MOST_WIDTH)
    for program in ("ntpaudit", *BOUNDS):
        if sums := found.peer_widths.get(program):
            width_ms = 1e3 * sums[0] / sums[1]
            yield Row("half width, ms", program, width_ms, (width_ms, width_ms), f"{sums[1]:,.0f}")


def _estimate_rows(found: Coverage) -> Iterator[Row]:
    for liars in ("no liar", "liars, within f", "liars, beyond f"):
        for path in PATHS:
            for program in ("ntpaudit", *ESTIMATES):
                if errors := found.errors.get((path, liars, program)):
                    low, high = errors.limits
                    yield Row(
                        f"estimate, ms, {liars}",
                        f"{path}, {program}",
                        errors.rms * 1e3,
                        (low * 1e3, high * 1e3),
                        f"{errors.count:,}",
                        worst=errors.worst * 1e3,
                    )


def _frequency_rows(found: Frequency) -> Iterator[Row]:
    for path in ("LAN", "pool"):
        for noise in NOISES:
            for program in PROGRAMS:
                if errors := found.errors.get((path, noise, program)):
                    name = f"{path}, {noise}, {program}"
                    yield Row(
                        "frequency, ppm", name, errors.rms, errors.limits, f"{errors.count:,}", worst=errors.worst
                    )
    for path in ("LAN", "pool"):
        for noise in NOISES:
            if share := found.skew.get((path, noise)):
                yield _share("skew covers", f"{path}, {noise}", share)


def _forecast_rows(found: Frequency) -> Iterator[Row]:
    for noise in NOISES:
        if share := found.guaranteed.get(noise):
            yield _share("guaranteed time", noise, share, share.hits == share.total)
    for path in ("LAN", "pool"):
        total = Share()
        for noise in NOISES:
            if share := found.band.get((path, noise)):
                total += share
                yield _share("band", f"{path}, {noise}", share)
        if total.total:
            low, high = total.limits
            yield _share("band", f"{path}, all", total, low <= _BAND[1] and high >= _BAND[0])
        if share := found.uncalibrated.get(path):
            yield _share("band", f"{path}, no band yet", share)


def _alarm_rows(found: Alarms) -> Iterator[Row]:
    for kind in KINDS:
        if rate := found.false.get(kind):
            yield _rate("false alarms per host-decade", kind, rate, rate.value < _MOST_FALSE, "host-decades")
    for kind in KINDS:
        if rate := found.changes.get(kind):
            yield _rate("severity changes per host-day", kind, rate, None, "host-days")
    for trouble in TROUBLES:
        for kind in KINDS:
            if delays := found.delays.get((trouble, kind)):
                cases = str(len(delays.times_s) + delays.missed)
                limits = delays.quantile(0.5), delays.quantile(0.95)
                yield Row("delay, s", f"{trouble}, {kind}", limits[0], limits, cases, worst=delays.quantile(1.0))
            if delays := found.listed.get((trouble, kind)):
                limits = delays.quantile(0.5), delays.quantile(0.95)
                yield Row("delay until listed, s", f"{trouble}, {kind}", limits[0], limits, cases)


def _rate(section: str, name: str, rate: Rate, goal: bool | None, unit: str) -> Row:
    return Row(section, name, rate.value, rate.limits, f"{rate.time:,.1f} {unit}", goal)


def unmet(found: Sequence[Row]) -> list[Row]:
    """Return the rows whose goal is not met."""
    return [row for row in found if row.is_met is False]


def number(value: float) -> str:
    """Write a figure with three digits."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """Write a share, with enough digits to tell it from 0 and 1."""
    if math.isnan(share):
        return "-"
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    rest = min(share, 1 - share)
    digits = max(1, 1 - math.floor(math.log10(rest * 100))) if rest > 0 else 1
    return f"{share * 100:.{min(digits, 6)}f} %"
