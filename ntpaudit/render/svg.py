"""The geometry of the figures on the fleet's page: intervals, distributions, offsets and severities over time.

Only numbers and the data of SVG paths are computed here; the markup is in `templates/figures.html.jinja`. Every figure
stretches to the width that it is given, so it holds no text: its labels are HTML beside it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import log1p
from typing import NamedTuple

from ntpaudit.core.fleet.model import Offset, SeverityCounts, TimeBucket
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import DAY_S, NS_PER_S, format_utc
from ntpaudit.render.axis import Axis, usual_size

CLASSES = {Severity.OK: "o", Severity.WARNING: "w", Severity.UNKNOWN: "u", Severity.CRITICAL: "c"}
"""How the style sheet calls a severity."""

WORST_FIRST = (Severity.CRITICAL, Severity.UNKNOWN, Severity.WARNING, Severity.OK)

_MOST_SLEW = 1000e-6  # clocks that are steered move apart no faster; what moved further between two spans was set
_MOST_TICKS = 5  # the maximum number of round counts beside a figure of counts, besides zero
_LEAST_WIDTH = 1.6  # of an interval on an axis of 200, so that the narrowest can be seen

_STRIP = {Severity.OK: 2, Severity.WARNING: 5, Severity.UNKNOWN: 7, Severity.CRITICAL: 10}
"""The height of a severity in the strip below a series, so that it is distinguished without its colour."""


def common_axis(offsets: Iterable[Offset], tolerance_s: float) -> Axis:
    """Return the axis on which all clocks of the fleet find room, with zero in its middle."""
    reach_s = max([10 * tolerance_s, *(1.25 * max(abs(o.earliest_s), abs(o.latest_s)) for o in offsets)])
    return Axis(-reach_s, reach_s, tolerance_s / 100)


class Path(NamedTuple):
    """The class in the style sheet, and the data, of an SVG path."""

    kind: str
    data: str


def proportions(counts: Sequence[int]) -> list[Path]:
    """Return hosts by severity as one bar of 1000 by 10, worst first; a severity that occurs is wide enough to see."""
    whole = max(1, sum(counts))
    widths = [(severity, max(6.0, 1000 * counts[severity] / whole)) for severity in WORST_FIRST if counts[severity]]
    drawn, place, stretch = [], 0.0, 1000 / sum(width for _, width in widths) if widths else 1.0
    for severity, width in widths:
        drawn.append(Path(CLASSES[severity], f"M{place:.1f} 0h{width * stretch:.1f}v10H{place:.1f}z"))
        place += width * stretch
    return drawn


class Band(NamedTuple):
    """The paths of a host's interval and of its estimate, 200 by 14."""

    interval: str
    estimate: str


def band(offset: Offset, axis: Axis) -> Band:
    """Return the interval as a bar that is wide enough to see, and the estimate as a line in it."""
    low, high = (200 * axis.share(end) for end in (offset.earliest_s, offset.latest_s))
    if high - low < _LEAST_WIDTH:
        low = (low + high - _LEAST_WIDTH) / 2
        high = low + _LEAST_WIDTH
    return Band(f"M{low:.1f} 4H{high:.1f}v6H{low:.1f}z", f"M{200 * axis.share(offset.estimate_s):.1f} 1v12")


def counted(estimates: Iterable[float], axis: Axis) -> list[int]:
    """Count how many clocks stand where: in each of 80 equal parts of the common axis, ahead in the first 40."""
    bins = [0] * 80
    for estimate_s in estimates:
        bins[min(len(bins) - 1, int(axis.share(estimate_s) * len(bins)))] += 1
    return bins


class Spread(NamedTuple):
    """The paths of a distribution, 800 by 100, and the labels of its axis, each with its share of the width."""

    tolerance: str
    bars: list[Path]
    zero: str
    limits: str
    ticks: list[tuple[float, str]]


def spread(bins: Sequence[int], axis: Axis, tolerance_s: float) -> Spread:
    """Return how many clocks stand where on the common axis, with the tolerance; the height is logarithmic."""
    highest = log1p(max([*bins, 1]))
    bars = {"ahead": "", "behind": ""}
    for place, count in enumerate(bins):
        if count:
            height = max(6.0, 92 * log1p(count) / highest)
            bars["behind" if 2 * place >= len(bins) else "ahead"] += f"M{10 * place + 1} 100v-{height:.0f}h8V100z"
    low, zero, high = (f"{800 * axis.share(value):.1f}" for value in (-tolerance_s, 0.0, tolerance_s))
    return Spread(
        f"M{low} 0H{high}v100H{low}z",
        [Path(f"bar {way}", data) for way, data in bars.items()],
        f"M{zero} 0v100",
        f"M{low} 0v100M{high} 0v100",
        axis.ticks(0.07),
    )


class Stack(NamedTuple):
    """The paths of hosts by severity over time, 1000 by 100, and labels, each with its share of the height."""

    layers: list[Path]
    ticks: list[tuple[float, str]]


def over_time(tallies: Sequence[SeverityCounts], hosts: int, frame: "Frame") -> Stack:
    """Return hosts worse than ok over time, stacked worst first, and above them those of `hosts` without a point."""
    layers = [*WORST_FIRST[:-1], None]
    heights = [[*(tally.hosts[s] for s in WORST_FIRST[:-1]), max(0, hosts - sum(tally.hosts))] for tally in tallies]
    top = max([1, *(sum(column) for column in heights)])
    drawn = []
    for number, layer in enumerate(layers):
        path = ""
        for tally, column in zip(tallies, heights, strict=True):
            if column[number]:
                left, right = frame.place(tally.begin_ns), frame.place(tally.begin_ns + frame.span_ns)
                ground, roof = (100 - 100 * sum(column[:end]) / top for end in (number, number + 1))
                path += f"M{left:.1f} {ground:.1f}H{right:.1f}V{roof:.1f}H{left:.1f}z"
        if path:
            drawn.append(Path("n" if layer is None else CLASSES[layer], path))
    steps = (digit * 10**power for power in range(len(str(top))) for digit in (1, 2, 5))
    counts = range(0, top + 1, next(step for step in steps if top <= _MOST_TICKS * step))
    return Stack(drawn, [(count / top, f"{count:,}") for count in counts])


class Frame(NamedTuple):
    """The period of a figure, and the length of each of its intervals."""

    begin_ns: int
    end_ns: int
    span_ns: int

    def place(self, time_ns: int) -> float:
        """Return how far along the figure, of 1000, a moment lies."""
        place = 1000 * (time_ns - self.begin_ns) / max(1, self.end_ns - self.begin_ns)
        return 0.0 if place < 0.0 else min(place, 1000.0)

    def is_long(self) -> bool:
        """Whether the time of day alone does not say when in the period a moment is: midnight (UTC) lies in it."""
        day_ns = round(DAY_S * NS_PER_S)
        return self.begin_ns // day_ns != self.end_ns // day_ns

    def labels(self) -> tuple[str, str, str]:
        """Return when the period begins, has its middle, and ends; with the dates where these differ."""
        begin, middle, end = (
            format_utc(time_ns)[5 if self.is_long() else 11 : 16].replace("T", " ")
            for time_ns in (self.begin_ns, (self.begin_ns + self.end_ns) // 2, self.end_ns)
        )
        return begin, middle, end


class Jump(NamedTuple):
    """A clock that was set: when, and how far its offset went, positive where the clock was set back.

    `is_reported`: its agent reported the step, with the size if it is known. Otherwise the offset moved at least this
    far at about that time, further than steering and the reported steps explain.
    """

    time_ns: int
    moved_s: float | None
    is_reported: bool


class HostSeries(NamedTuple):
    """What a host's figure is made of: its intervals in order, the steps that its agent reported, the tolerance."""

    buckets: Sequence[TimeBucket]
    steps: Sequence[Jump]
    tolerance_s: float


class SeriesFigure(NamedTuple):
    """The paths of a host's offset over time, 1000 by 100, and labels, each with its share of the height.

    `zero` is the share of the height that is above zero. `strip` is how bad it was, 1000 by 10.
    """

    zero: str
    gaps: str
    lines: list[Path]
    hull: str
    mean: str
    jumps: str
    ticks: list[tuple[float, str]]
    strip: list[Path]


def draw_series(series: HostSeries, frame: Frame) -> SeriesFigure:
    """Return the hull of the intervals, the mean in it, jumps as lines, where nothing was measured, and severities."""
    axis = _series_axis([bucket.offset for bucket in series.buckets if bucket.offset is not None])

    def height(value_s: float) -> str:
        return f"{100 - 100 * axis.share(value_s):.1f}"

    hull, mean = "", ""
    runs = _runs(series.buckets, frame)
    for run in runs:
        latest = "".join(f"V{height(bar.offset.latest_s)}H{bar.right:.1f}" for bar in run)
        earliest = "".join(f"V{height(bar.offset.earliest_s)}H{bar.left:.1f}" for bar in reversed(run))
        hull += f"M{run[0].left:.1f} 50{latest}{earliest}z"
        estimates = "".join(f"V{height(bar.offset.estimate_s)}H{bar.right:.1f}" for bar in run)
        mean += f"M{run[0].left:.1f} {height(run[0].offset.estimate_s)}{estimates}"
    levels = (("z", 0.0), ("t", series.tolerance_s), ("t", -series.tolerance_s))
    return SeriesFigure(
        zero=f"{1 - axis.share(0.0):.3f}",
        gaps="".join(_gaps(runs, frame)),
        lines=[
            Path(kind, f"M0 {height(value)}H1000") for kind, value in levels if 0 < axis.share(value) < 1 or kind == "z"
        ],
        hull=hull,
        mean=mean,
        jumps="".join(
            dict.fromkeys(f"M{frame.place(jump.time_ns):.1f} 0v100" for jump in jumps(series, frame.span_ns))
        ),
        ticks=axis.ticks(0.17),
        strip=_strip(series.buckets, frame),
    )


def jumps(series: HostSeries, span_ns: int) -> list[Jump]:
    """Return when a clock was set: where its agent says so, or where it moved further than is explained."""
    return sorted([*series.steps, *_leaps(series, span_ns)], key=lambda jump: jump.time_ns)


def _series_axis(measured: Sequence[Offset]) -> Axis:
    if not measured:
        return Axis(-1.0, 1.0, None)
    low = min([0.0, *(offset.earliest_s for offset in measured)])
    high = max([0.0, *(offset.latest_s for offset in measured)])
    usual = usual_size([max(abs(offset.earliest_s), abs(offset.latest_s)) for offset in measured])
    if usual is not None:
        return Axis(low * 1.5 - usual if low else -usual, high * 1.5 + usual if high else usual, usual)
    margin = 0.06 * (high - low) or 1e-6
    return Axis(low - margin, high + margin, None)


class _Bar(NamedTuple):
    left: float
    right: float
    offset: Offset


def _runs(buckets: Sequence[TimeBucket], frame: Frame) -> list[list[_Bar]]:
    """Return the measured buckets, those that follow one another together."""
    runs: list[list[_Bar]] = []
    last = None
    for begin_ns, _, offset in buckets:
        if offset is not None:
            place = round((begin_ns - frame.begin_ns) / frame.span_ns)
            if place - 1 != last:
                runs.append([])
            runs[-1].append(_Bar(frame.place(begin_ns), frame.place(begin_ns + frame.span_ns), offset))
            last = place
    return runs


def _gaps(runs: Sequence[Sequence[_Bar]], frame: Frame) -> Iterator[str]:
    ends = [(run[0].left, run[-1].right) for run in runs]
    for (_, left), (right, _) in pairwise([(0.0, 0.0), *ends, (1000.0, 1000.0)]):
        if right - left > 0.5 * (frame.place(frame.begin_ns + frame.span_ns)):
            yield f"M{left:.1f} 0H{right:.1f}V100H{left:.1f}z"


def _leaps(series: HostSeries, span_ns: int) -> list[Jump]:
    """Return where a clock moved further than steering and the reported steps explain.

    Its interval then lies apart from that of the span before, or as the hull of both holds it and the next one's.
    """
    known = [(bucket.begin_ns, bucket.offset) for bucket in series.buckets if bucket.offset is not None]
    leaps = {
        after[0]: Jump(after[0], moved_s, False)
        for before, after in pairwise(known)
        if (moved_s := _leapt(before, after, series.steps, span_ns)) is not None
    }
    for before, (begin_ns, _), after in zip(known, known[1:], known[2:], strict=False):
        moved_s = _leapt(before, after, series.steps, span_ns)
        if moved_s is not None and begin_ns not in leaps and after[0] not in leaps:
            leaps[begin_ns] = Jump(begin_ns + span_ns // 2, moved_s, False)
    return list(leaps.values())


def _leapt(before: tuple[int, Offset], after: tuple[int, Offset], steps: Sequence[Jump], span_ns: int) -> float | None:
    """Return how far an offset moved at least besides the reported steps, if further than steering explains.

    A step counts anywhere in the two intervals or between them: it is unknown which of their points it follows.
    """
    (begin_ns, one), (end_ns, other) = before, after
    back_s, forward_s = other.earliest_s - one.latest_s, one.earliest_s - other.latest_s
    most_s = _MOST_SLEW * (end_ns - begin_ns + span_ns) / NS_PER_S
    if max(back_s, forward_s) <= most_s:
        return None
    reported = [step.moved_s for step in steps if begin_ns <= step.time_ns <= end_ns + span_ns]
    if None in reported:
        return None
    back_s -= sum(moved_s for moved_s in reported if moved_s and moved_s > 0)
    forward_s += sum(moved_s for moved_s in reported if moved_s and moved_s < 0)
    if max(back_s, forward_s) <= most_s:
        return None
    return back_s if back_s > forward_s else -forward_s


def _strip(buckets: Sequence[TimeBucket], frame: Frame) -> list[Path]:
    """Return how bad it was, span by span: the worse the higher, and nothing where there is no record."""
    paths = dict.fromkeys(WORST_FIRST, "")
    for begin_ns, severity, _ in buckets:
        left, right = frame.place(begin_ns), frame.place(begin_ns + frame.span_ns)
        paths[severity] += f"M{left:.1f} 10H{right:.1f}v-{_STRIP[severity]}H{left:.1f}z"
    return [Path(CLASSES[severity], data) for severity, data in paths.items() if data]
