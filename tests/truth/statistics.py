"""Counts, errors and delays, each with what they say about the next run: 95 % confidence limits."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

_Z = 1.959963985
_ALPHA = 0.025


@dataclass
class Share:
    """How many of some cases have a property. Shares of several runs can be added."""

    hits: int = 0
    total: int = 0

    def count(self, hit: bool) -> None:
        """Count one case."""
        self.hits += hit
        self.total += 1

    def __add__(self, other: "Share") -> "Share":
        return Share(self.hits + other.hits, self.total + other.total)

    @property
    def value(self) -> float:
        """The share; NaN of none."""
        return self.hits / self.total if self.total else math.nan

    @property
    def limits(self) -> tuple[float, float]:
        """The exact limits for none or all, else Wilson's: independent cases are assumed."""
        if not self.total:
            return math.nan, math.nan
        if self.hits == 0:
            return 0.0, 1 - _ALPHA ** (1 / self.total)
        if self.hits == self.total:
            return _ALPHA ** (1 / self.total), 1.0
        share, square = self.value, _Z * _Z
        centre = (share + square / (2 * self.total)) / (1 + square / self.total)
        spread = share * (1 - share) / self.total + square / (4 * self.total**2)
        half = _Z * math.sqrt(spread) / (1 + square / self.total)
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass
class Rate:
    """How many events in how long, as a Poisson process."""

    events: int = 0
    time: float = 0.0

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(self.events + other.events, self.time + other.time)

    @property
    def value(self) -> float:
        """Events in a unit of time."""
        return self.events / self.time if self.time else math.nan

    @property
    def limits(self) -> tuple[float, float]:
        """The exact limits of Garwood."""
        if not self.time:
            return math.nan, math.nan
        low = 0.0 if not self.events else _mean_where(self.events - 1, 1 - _ALPHA)
        return low / self.time, _mean_where(self.events, _ALPHA) / self.time


@dataclass
class Errors:
    """The errors of an estimate: their root mean square, and the worst."""

    count: int = 0
    squares: float = 0.0
    fourths: float = 0.0
    worst: float = 0.0

    def add(self, error: float) -> None:
        """Add one error."""
        square = error * error
        self.count += 1
        self.squares += square
        self.fourths += square * square
        self.worst = max(self.worst, abs(error))

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(
            self.count + other.count,
            self.squares + other.squares,
            self.fourths + other.fourths,
            max(self.worst, other.worst),
        )

    @property
    def rms(self) -> float:
        """The root mean square; NaN of none."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan

    @property
    def limits(self) -> tuple[float, float]:
        """The limits of the root mean square, by the scatter of the squares."""
        if not self.count:
            return math.nan, math.nan
        mean = self.squares / self.count
        half = _Z * math.sqrt(max(0.0, self.fourths / self.count - mean * mean) / self.count)
        return math.sqrt(max(0.0, mean - half)), math.sqrt(mean + half)


@dataclass
class Delays:
    """How long until something was noticed, in seconds; `missed` never was."""

    times_s: list[float] = field(default_factory=list)
    missed: int = 0

    def __add__(self, other: "Delays") -> "Delays":
        return Delays(self.times_s + other.times_s, self.missed + other.missed)

    def quantile(self, share: float) -> float:
        """Return the time within which that share was noticed; infinite if fewer were."""
        ordered = sorted(self.times_s) + [math.inf] * self.missed
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass
class Sums:
    """Two sums, whose quotient is a ratio or a mean."""

    upper: float = 0.0
    lower: float = 0.0

    def add(self, upper: float, lower: float = 1.0) -> None:
        """Add to both."""
        self.upper += upper
        self.lower += lower

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.upper + other.upper, self.lower + other.lower)

    @property
    def ratio(self) -> float:
        """The quotient."""
        return self.upper / self.lower if self.lower else math.nan


Key = tuple[str, ...]
Value = TypeVar("Value", Share, Rate, Errors, Delays, Sums)


class Results:
    """What some worlds showed, by a section and the words that name a figure in it. Results can be added."""

    def __init__(self) -> None:
        self.shares: dict[Key, Share] = {}
        self.rates: dict[Key, Rate] = {}
        self.errors: dict[Key, Errors] = {}
        self.delays: dict[Key, Delays] = {}
        self.sums: dict[Key, Sums] = {}

    def share(self, *key: str) -> Share:
        """Return the share of that name, to count in."""
        return self.shares.setdefault(key, Share())

    def rate(self, *key: str) -> Rate:
        """Return the rate of that name."""
        return self.rates.setdefault(key, Rate())

    def error(self, *key: str) -> Errors:
        """Return the errors of that name."""
        return self.errors.setdefault(key, Errors())

    def delay(self, *key: str) -> Delays:
        """Return the delays of that name."""
        return self.delays.setdefault(key, Delays())

    def sum(self, *key: str) -> Sums:
        """Return the sums of that name."""
        return self.sums.setdefault(key, Sums())

    def __iadd__(self, other: "Results") -> "Results":
        _merge(self.shares, other.shares)
        _merge(self.rates, other.rates)
        _merge(self.errors, other.errors)
        _merge(self.delays, other.delays)
        _merge(self.sums, other.sums)
        return self


def total(parts: Iterable[Results]) -> Results:
    """Add results."""
    found = Results()
    for part in parts:
        found += part
    return found


def _merge(mine: dict[Key, Value], theirs: Mapping[Key, Value]) -> None:
    for key, value in theirs.items():
        mine[key] = mine[key] + value if key in mine else value


def agree(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two limits have a common point."""
    return max(one[0], other[0]) <= min(one[1], other[1])


def _mean_where(events: int, probability: float) -> float:
    """Return the mean at which at most this number of events has that probability."""
    low, high = 0.0, events + 20 * math.sqrt(events + 1) + 20
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(events, middle) > probability else (low, middle)
    return low


def _at_most(events: int, mean: float) -> float:
    terms: Sequence[float] = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(events + 1)]
    return math.fsum(map(math.exp, terms))
