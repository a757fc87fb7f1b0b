"""The axis of plots and figures: linear, or logarithmic beyond a linear middle where sizes differ too much (symlog)."""

from collections.abc import Iterator, Sequence
from math import ceil, copysign, floor, log1p, log10
from statistics import median

from ntpaudit.core.units import DAY_S, format_offset

_YEAR_S = 365.25 * DAY_S
_DECADES_S = (*(10.0**power for power in range(-9, 2)), 60.0, 3600.0, DAY_S, 30 * DAY_S, _YEAR_S, 10 * _YEAR_S)
_STEPS_S = (
    *(digit * 10.0**power for power in range(-9, 2) for digit in (1, 2, 5) if digit * 10.0**power < 60),
    *(60.0 * minutes for minutes in (1, 2, 5, 10, 20, 30)),
    *(3600.0 * hours for hours in (1, 2, 3, 6, 12)),
    *(DAY_S * days for days in (1, 2, 5, 10, 30, 100)),
    *(_YEAR_S * years for years in (1, 2, 5, 10, 20, 50)),
)
_SYMLOG_FROM = 25.0  # from this ratio of the largest to the usual on, a linear axis would show a flat line


class Axis:
    """An axis from `low` to `high` seconds, longer by the share `margin`; logarithmic beyond `linear_s` if given."""

    def __init__(self, low: float, high: float, linear_s: float | None, margin: float = 0.0) -> None:
        self.low, self.high, self.linear_s = low, high, linear_s
        begin, end = self._bent(low), self._bent(high)
        self._begin = begin - margin * (end - begin)
        self._length = (1 + 2 * margin) * (end - begin)

    def share(self, value_s: float) -> float:
        """Return how far along the axis a value lies, from 0 to 1; what lies beyond stands at the end."""
        share = (self._bent(value_s) - self._begin) / self._length
        return 0.0 if share <= 0.0 else 1.0 if share >= 1.0 else share

    def ticks(self, least: float) -> list[tuple[float, str]]:
        """Return shares of round values with their labels, no two nearer than `least`; zero comes first."""
        taken = [(self.share(0.0), "0")]
        for value_s in self._round_values():
            share = self.share(value_s)
            if self.low < value_s < self.high and all(abs(share - other) >= least for other, _ in taken):
                taken.append((share, format_offset(value_s)))
        return taken

    def _bent(self, value_s: float) -> float:
        return value_s if self.linear_s is None else copysign(log1p(abs(value_s) / self.linear_s), value_s)

    def _round_values(self) -> Iterator[float]:
        if self.linear_s is None:
            length_s = self.high - self.low
            long_s = _YEAR_S * 10.0 ** floor(log10(max(10.0, length_s / 4 / _YEAR_S)))
            steps_s = (*_STEPS_S, *(digit * long_s for digit in (1, 2, 5, 10)))
            step = next(step for step in steps_s if length_s / step <= 4)
            yield from (number * step for number in range(ceil(self.low / step), floor(self.high / step) + 1))
        else:
            yield from (sign * size for size in reversed(_DECADES_S) if size > self.linear_s for sign in (1, -1))


def usual_size(sizes: Sequence[float]) -> float | None:
    """Return the median of the sizes if the largest needs a logarithmic axis beyond it; None for a linear axis."""
    usual = max(median(sizes), 1e-9)
    return usual if max(sizes) > _SYMLOG_FROM * usual else None
