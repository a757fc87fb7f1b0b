"""Sections 1 to 3: whether the interval holds the truth, how wide it is, and how far the estimate is off."""

import random
from collections.abc import Mapping, Sequence

from ntpaudit.core.schedule import Intervals
from tests.truth.clocks import PS_PER_S
from tests.truth.oscillator import Oscillator
from tests.truth.paths import LAN, MOBILE, POOL, WAN, Path
from tests.truth.peers import BOUNDS, ESTIMATES, Bounds, Statement, least_interval
from tests.truth.servers import FALSE_BEHAVIOURS, Behaviour, ServerSpec
from tests.truth.statistics import Results, total
from tests.truth.world import Audit, DisciplineName, Fault, Moment, Simulation, World

HOURS = 200.0
ASKED = (1, 3, 4, 5, 7)
AGES_S = {"just asked": 0.0, "up to 10 min": 600.0, "up to 1 h": 3600.0, "up to 6 h": 21_600.0, "up to 24 h": 86_400.0}

_FALSE: tuple[tuple[Behaviour, float], ...] = (
    ("jump", 0.06),
    ("jump", -0.5),
    ("walk", 1e-7),
    ("inside", 0.0),
    ("outside", 0.0),
    ("middle", 0.0),
)
_HONEST: tuple[tuple[Behaviour, float], ...] = (
    *((("honest", 0.0),) * 6),
    ("at-limit", 0.0),
    ("delayed", 0.1),
)
_OSCILLATORS = (
    Oscillator(3.0, white_pm_s=50e-9, white_fm=1e-9),
    Oscillator(-20.0, 0.005, white_fm=1e-9, flicker_fm=3e-9),
    Oscillator(12.0, white_fm=1e-9, flicker_fm=1e-9, walk_fm=3e-11),
    Oscillator(-8.0, white_fm=1e-9, daily_ppm=1.0),
    Oscillator(30.0, white_fm=1e-9, cycle_ppm=0.5),
    Oscillator(44.0, white_fm=3e-9, flicker_fm=1e-8, daily_ppm=2.0, cycle_ppm=1.0),
)
_STEERED = (*_OSCILLATORS, Oscillator(82.0, white_fm=1e-9, daily_ppm=1.0), Oscillator(-140.0, white_fm=1e-9))
"""A daemon shows how far these are off, which the bound follows (R4)."""

_ROUNDING_S = 1e-6
"""Clock readings are whole nanoseconds, and an offset is half the sum of two differences."""

_CLAIMS = {"LAN": (0.5e-3, 0.5e-3), "WAN": (10e-3, 5e-3), "pool": (20e-3, 15e-3), "mobile": (20e-3, 15e-3)}


def draw_world(number: int, seed: int, hours: float = HOURS) -> World:
    """Draw a world by its number: path, servers, falsetickers, loss, oscillator, daemon and faults."""
    rand = random.Random(f"coverage {seed} {number}")
    path = rand.choice((LAN, WAN, POOL, MOBILE))
    path = path._replace(loss=rand.choice((path.loss, 0.01, 0.03, 0.1)))
    asked = rand.choice(ASKED)
    tolerated = (asked - 1) // 3
    falsetickers = rand.choice((0, *range(tolerated + 2))) if asked > 1 else 0
    discipline: DisciplineName = rand.choice(("chrony", "chrony", "step-only", "none"))
    oscillator = rand.choice(_STEERED if discipline == "chrony" else _OSCILLATORS)
    faults: list[Fault] = []
    if rand.random() < 0.3:
        faults.append(Fault(rand.uniform(0.2, 0.4) * hours * 3600, "suspend", rand.uniform(60, 20_000)))
    if rand.random() < 0.3:
        faults.append(Fault(rand.uniform(0.5, 0.7) * hours * 3600, "step", rand.choice((1.2, -0.2, 0.02))))
    if rand.random() < 0.2:
        faults.append(Fault(rand.uniform(0.75, 0.8) * hours * 3600, "outage"))
    return World(
        f"coverage {number}",
        hours,
        oscillator,
        _servers(path, asked, falsetickers, rand),
        discipline,
        intervals=Intervals(3600.0, 3600.0, 1800.0),
        faults=tuple(faults),
    )


def _servers(path: Path, asked: int, falsetickers: int, rand: random.Random) -> tuple[ServerSpec, ...]:
    root_delay_s, root_dispersion_s = _CLAIMS[path.name]
    lie, size_s = rand.choice(_FALSE)
    honest: list[ServerSpec] = []
    for _ in range(asked - falsetickers):
        behaviour, amount_s = rand.choice(_HONEST)
        honest.append(ServerSpec(path, behaviour, amount_s, 0.0, root_delay_s, root_dispersion_s))
    if len(honest) > 1 and rand.random() < 0.1:
        honest[0] = honest[0]._replace(behaviour="silent", from_s=rand.uniform(0, 300_000))
    wrong = [ServerSpec(path, lie, size_s, 0.0, root_delay_s, root_dispersion_s) for _ in range(falsetickers)]
    servers = honest + wrong
    rand.shuffle(servers)
    return tuple(servers)


def measure_world(world: World, seed: int) -> Results:
    """Run a world, and compare every statement with the truth.

    Shares: `missed` by what was assumed, servers asked, and age; `proven` by servers asked; `peers` by falsetickers and
    program; `before next` by program; `inside` by path. Sums: `width` by path and moment; `half width` by program.
    Errors: `estimate` by falsetickers, path and program.
    """
    found = Results()
    found.sum("hours").add(world.hours)
    asked, path = len(world.servers), world.servers[0].path.name
    falsetickers = sum(server.behaviour in FALSE_BEHAVIOURS for server in world.servers)
    assumed = "within" if falsetickers <= (asked - 1) // 3 else "beyond"
    is_smooth = world.discipline == "chrony" and not world.faults and not falsetickers
    least = LeastInterval(asked)
    stated: dict[str, Statement] = {}
    last: Audit | None = None
    for audit in Simulation(world, seed).audits():
        offset = audit.record.offset
        if audit.true.kind == "network":
            if is_smooth and last is not None:
                _check_before_next(found, stated, last.true, audit.true)
            if assumed == "within":
                _compare_widths(found, least, last, audit, path)
            found.share("proven", f"{asked} asked").count(offset is not None and audit.record.agreement.guaranteed)
            stated, last = _peers(found, audit, falsetickers, assumed), audit
            if audit.is_measured:
                _estimates(found, audit, path, "no falseticker" if not falsetickers else f"falsetickers, {assumed} f")
        if offset is not None and audit.record.agreement.guaranteed:
            age = next(name for name, limit_s in AGES_S.items() if audit.age_s <= limit_s + 1)
            found.share("missed", assumed, f"{asked} asked", age).count(_is_missed(audit))
    return found


def _is_missed(audit: Audit) -> bool:
    offset = audit.record.offset
    return offset is not None and not offset.earliest_s <= audit.true.offset_s <= offset.latest_s


class LeastInterval:
    """The least interval that is possible with the same replies and the same assumptions.

    That is what all but f of the servers allow now, within what they allowed before, carried here by the host's exact
    corrections and the drift that the agent must allow for.
    """

    def __init__(self, asked: int) -> None:
        self._asked = asked
        self._bounds: Bounds | None = None
        self._at: Moment | None = None

    def carried(self, now: Moment, rate: float) -> Bounds | None:
        """Return what was possible before, carried to now, where the oscillator drifts by `rate` at most."""
        if self._bounds is None or self._at is None:
            return None
        grown_s = (now.raw_ps - self._at.raw_ps) / PS_PER_S * rate
        moved_s = (now.level_ps - self._at.level_ps) / PS_PER_S
        return self._bounds[0] - moved_s - grown_s, self._bounds[1] - moved_s + grown_s

    def update(self, now: Moment, rate: float) -> Bounds | None:
        """Return what is possible now; None if nothing is bounded."""
        bounds, before = least_interval(now.exchanges, self._asked), self.carried(now, rate)
        if bounds is None:
            bounds = before
        elif before is not None and max(bounds[0], before[0]) < min(bounds[1], before[1]):
            bounds = max(bounds[0], before[0]), min(bounds[1], before[1])
        self._bounds, self._at = bounds, now
        return bounds


def _half_width_s(audit: Audit) -> float:
    offset = audit.record.offset
    assert offset is not None
    return (offset.latest_s - offset.earliest_s) / 2


def _compare_widths(found: Results, least: LeastInterval, last: Audit | None, audit: Audit, path: str) -> None:
    """Compare what the agent states before this audit, and after it, with the least possible."""
    offset = audit.record.offset
    if offset is None or offset.max_drift_ppm is None:
        return
    rate = offset.max_drift_ppm * 1e-6
    before = least.carried(audit.true, rate)
    if before is not None and last is not None and last.is_measured:
        ours_s = _half_width_s(last) + (audit.true.raw_ps - last.true.raw_ps) / PS_PER_S * rate
        found.sum("width", path, "just before the next audit").add(ours_s, (before[1] - before[0]) / 2)
    now = least.update(audit.true, rate)
    if now is not None and audit.is_measured:
        found.sum("width", path, "just after an audit").add(_half_width_s(audit), (now[1] - now[0]) / 2)


def _peers(found: Results, audit: Audit, falsetickers: int, assumed: str) -> dict[str, Statement]:
    """Compare what the agent and other programs state from the same replies with the truth."""
    row = "no falseticker" if not falsetickers else f"falsetickers, {assumed} f"
    stated = {}
    for name, state in BOUNDS.items():
        statement = state(audit.true.exchanges)
        if statement is not None:
            stated[name] = statement
            found.share("peers", row, name).count(not statement.low_s <= audit.true.offset_s <= statement.high_s)
            found.sum("half width", name).add((statement.high_s - statement.low_s) / 2)
    if audit.is_measured and audit.record.agreement.guaranteed:
        found.share("peers", row, "ntpaudit").count(_is_missed(audit))
        found.sum("half width", "ntpaudit").add(_half_width_s(audit))
    return stated


def _check_before_next(found: Results, stated: Mapping[str, Statement], then: Moment, now: Moment) -> None:
    """Compare what was stated at the last audit with the truth now, grown as each program lets it grow.

    A program knows what its own slews did, and takes its frequency for right.
    """
    corrected_s = (now.corrected_ps - then.corrected_ps) / PS_PER_S
    for name, statement in stated.items():
        grown_s = (now.now_s - then.now_s) * statement.growth_ppm * 1e-6
        offset_s = now.offset_s + corrected_s
        found.share("before next", name).count(not statement.low_s - grown_s <= offset_s <= statement.high_s + grown_s)


def _estimates(found: Results, audit: Audit, path: str, row: str) -> None:
    offset = audit.record.offset
    assert offset is not None
    found.error("estimate", row, path, "ntpaudit").add(offset.estimate_s - audit.true.offset_s)
    for name, estimate in ESTIMATES.items():
        value = estimate(audit.true.exchanges)
        if value is not None:
            found.error("estimate", row, path, name).add(value - audit.true.offset_s)
    level_ps, tolerated = audit.true.level_ps, (len(audit.record.sources) - 1) // 3
    honest = [one.offset_s - (level_ps - one.level_ps) / PS_PER_S for one in audit.true.exchanges if not one.is_false]
    # R2 promises that where more than 2 f servers vote: one that is too distant does not
    if row == "falsetickers, within f" and audit.record.agreement.usable > 2 * tolerated:
        found.share("inside", path).count(min(honest) - _ROUNDING_S <= offset.estimate_s <= max(honest) + _ROUNDING_S)


def run(numbers: Sequence[int], seed: int, hours: float = HOURS) -> Results:
    """Run some worlds."""
    return total(measure_world(draw_world(number, seed, hours), seed) for number in numbers)
