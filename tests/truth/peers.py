"""What other programs would state from the same exchanges, written from their documents and not from ours."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tests.truth.servers import Exchange

Bounds = tuple[float, float]


class Statement(NamedTuple):
    """An offset and the bounds that a program gives for it, in seconds, and how fast it lets the bounds grow."""

    estimate_s: float
    low_s: float
    high_s: float
    growth_ppm: float


def rfc5905(exchanges: Sequence[Exchange]) -> Statement | None:
    """RFC 5905 §11.2.1: the intersection algorithm; the bounds are those it finds, grown by PHI."""
    count = len(exchanges)
    tuples = sorted(
        (value, kind)
        for exchange in exchanges
        for value, kind in (
            (exchange.interval_s[0], -1),
            (exchange.offset_s, 0),
            (exchange.interval_s[1], 1),
        )
    )
    for falsetickers in range((count + 1) // 2):
        mids, low, depth = 0, math.inf, 0
        for value, kind in tuples:
            depth -= kind
            if depth >= count - falsetickers:
                low = value
                break
            mids += kind == 0
        high, depth = -math.inf, 0
        for value, kind in reversed(tuples):
            depth += kind
            if depth >= count - falsetickers:
                high = value
                break
            mids += kind == 0
        if mids <= falsetickers and low < high:
            inside = [exchange for exchange in exchanges if low <= exchange.offset_s <= high] or list(exchanges)
            return Statement(_weighted(inside), low, high, 15.0)
    return None


def deepest_overlap(exchanges: Sequence[Exchange]) -> Statement | None:
    """Marzullo's deepest overlap, by which chrony selects (S5), taken as bounds."""
    found = _deepest(exchanges)
    if found is None:
        return None
    low, high, truechimers = found
    return Statement(_weighted(truechimers), low, high, 15.0)


def ntpd_root_distance(exchanges: Sequence[Exchange]) -> Statement | None:
    """ntpd: the offset of the system peer, the nearest of the selected servers, and its root distance (RFC 5905)."""
    selected = rfc5905(exchanges)
    if selected is None:
        return None
    inside = [one for one in exchanges if selected.low_s <= one.offset_s <= selected.high_s] or list(exchanges)
    peer = min(inside, key=lambda one: one.distance_s)
    return Statement(_weighted(inside), *peer.interval_s, 15.0)


def clock_bound(exchanges: Sequence[Exchange]) -> Statement | None:
    """AWS ClockBound: chronyd's |offset|, root dispersion and half its root delay, grown by 50 ppm (B7)."""
    found = _deepest(exchanges)
    if found is None:
        return None
    best = min(found[2], key=lambda one: one.distance_s)
    return Statement(best.offset_s, *best.interval_s, 50.0)


def chrony(exchanges: Sequence[Exchange]) -> Statement | None:
    """chronyd: the combined offset, with the root distance of the selected source, grown by 1 ppm (maxclockerror)."""
    found = _deepest(exchanges)
    if found is None:
        return None
    best = min(found[2], key=lambda one: one.distance_s)
    estimate_s = _weighted(found[2])
    return Statement(estimate_s, estimate_s - best.distance_s, estimate_s + best.distance_s, 1.0)


BOUNDS: Mapping[str, Callable[[Sequence[Exchange]], Statement | None]] = {
    "RFC 5905 selection": rfc5905,
    "deepest overlap": deepest_overlap,
    "ntpd root distance": ntpd_root_distance,
    "ClockBound style": clock_bound,
    "chrony style": chrony,
}


def median_of_all(exchanges: Sequence[Exchange]) -> float:
    """The median of all offsets."""
    ordered = sorted(one.offset_s for one in exchanges)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def best_single(exchanges: Sequence[Exchange]) -> float:
    """The offset of the server with the shortest delay."""
    return min(exchanges, key=lambda one: one.delay_s).offset_s


def ntplib_first(exchanges: Sequence[Exchange]) -> float:
    """Ntplib asks one server, as its examples do: the first that replies."""
    return min(exchanges, key=lambda one: one.number).offset_s


def chrony_combination(exchanges: Sequence[Exchange]) -> float | None:
    """Chronyd's combination of its selected sources (S5); None where it selects none."""
    statement = chrony(exchanges)
    return None if statement is None else statement.estimate_s


ESTIMATES: Mapping[str, Callable[[Sequence[Exchange]], float | None]] = {
    "median of all": median_of_all,
    "chrony's combination": chrony_combination,
    "best single server": best_single,
    "ntplib, first server": ntplib_first,
}


def least_interval(exchanges: Sequence[Exchange], asked: int) -> Bounds | None:
    """Return the least interval that holds whenever at most f = (asked - 1) // 3 of those asked are false.

    It is the hull of the points that all but f of the replies allow; None if nothing is bounded.
    """
    needed = len(exchanges) - (asked - 1) // 3
    if needed < 1:
        return None
    ends = [end for one in exchanges for end in one.interval_s]
    covered = [end for end in ends if sum(one.interval_s[0] <= end <= one.interval_s[1] for one in exchanges) >= needed]
    return (min(covered), max(covered)) if covered else None


def chrony_regression(samples: Sequence[tuple[float, float, float]]) -> tuple[float, float, int] | None:
    """Return slope, its standard error and how many samples were used, as chronyd does (F2, F3).

    `samples` are time, offset and distance in seconds, oldest first.
    """
    kept = list(samples[-64:])
    if len(kept) < 3:
        return None
    distances = sorted(distance for _, _, distance in kept)
    least, median = distances[0], distances[len(distances) // 2]
    scale = max(1e-6, min((median - least) / 0.7, least))
    while True:
        weights = [1 / (1 + max(0.0, distance - least - 1e-6) / scale) ** 2 for _, _, distance in kept]
        slope, error, residuals = weighted_line(kept, weights)
        signs = [residual > 0 for residual in residuals]
        runs = 1 + sum(one != other for one, other in pairwise(signs))
        # a run is shorter than chance explains at 5 %: the mean and deviation of a fair coin
        if len(kept) <= 3 or runs > 1 + (len(kept) - 1) / 2 - 1.645 * math.sqrt((len(kept) - 1) / 4):
            return slope, error, len(kept)
        kept.pop(0)


def least_squares(samples: Sequence[tuple[float, float, float]]) -> float | None:
    """Return the slope of a plain line through the last 64 samples."""
    kept = samples[-64:]
    return None if len(kept) < 3 else weighted_line(kept, [1.0] * len(kept))[0]


def weighted_line(
    samples: Sequence[tuple[float, float, float]], weights: Sequence[float]
) -> tuple[float, float, list[float]]:
    """Return slope, its standard error, and the residuals."""
    start, total = samples[-1][0], math.fsum(weights)
    times = [time - start for time, _, _ in samples]
    centre = math.fsum(w * x for w, x in zip(weights, times, strict=True)) / total
    level = math.fsum(w * sample[1] for w, sample in zip(weights, samples, strict=True)) / total
    spread = math.fsum(w * (x - centre) ** 2 for w, x in zip(weights, times, strict=True))
    slope = (
        math.fsum(w * (x - centre) * (one[1] - level) for w, x, one in zip(weights, times, samples, strict=True))
        / spread
    )
    residuals = [one[1] - level - slope * (x - centre) for x, one in zip(times, samples, strict=True)]
    squares = math.fsum(w * r * r for w, r in zip(weights, residuals, strict=True))
    return slope, math.sqrt(squares / max(1, len(samples) - 2) / spread), residuals


def _deepest(exchanges: Sequence[Exchange]) -> tuple[float, float, list[Exchange]] | None:
    """Return the deepest overlap and the sources that contain it; None without a majority."""
    if not exchanges:
        return None
    lows = [one.interval_s[0] for one in exchanges]
    depths = [sum(one.interval_s[0] <= low <= one.interval_s[1] for one in exchanges) for low in lows]
    depth = max(depths)
    if not 2 * depth > len(exchanges):
        return None
    low = lows[depths.index(depth)]
    members = [one for one in exchanges if one.interval_s[0] <= low <= one.interval_s[1]]
    return low, min(one.interval_s[1] for one in members), members


def _weighted(exchanges: Sequence[Exchange]) -> float:
    """Return the mean of the offsets, weighted by 1 / root distance."""
    weights = [1 / max(1e-9, one.distance_s) for one in exchanges]
    return math.fsum(w * one.offset_s for w, one in zip(weights, exchanges, strict=True)) / math.fsum(weights)
