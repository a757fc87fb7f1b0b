"""What `make truth` measures, and that it would show a core that is wrong."""

import math
import subprocess
import sys
from collections.abc import Sequence

import pytest

from ntpaudit.core import clock_state, evaluation, holdover, selection
from ntpaudit.core.clock import drift
from tests.truth import alarms, coverage, frequency, packets
from tests.truth.__main__ import PAGE, README
from tests.truth.oscillator import Oscillator
from tests.truth.page import rows, unmet
from tests.truth.paths import WAN
from tests.truth.render import render, short
from tests.truth.servers import Behaviour, ServerSpec
from tests.truth.statistics import Results, agree
from tests.truth.world import World

pytestmark = pytest.mark.untraced

FREE = Oscillator(10.0, white_fm=1e-9)
SECTIONS = [
    "## In short",
    "## Does the interval hold the truth?",
    "## How wide is it?",
    "## How far is the estimate off?",
    "## How right is the frequency?",
    "## Do forecasts hold?",
    "## How often is an alarm false, and how late is a true one?",
    "## What real packets show",
    "## What this does not show",
]
NEAR_LIMIT = 2 * list(frequency.NOISES).index("near the largest drift")
"""The number of a world of this noise on a LAN."""


def world(behaviour: Behaviour, *, loss: float, asked: int = 4, hours: float = 60.0) -> World:
    """A host without a daemon, whose last server is wrong."""
    honest = ServerSpec(WAN._replace(loss=loss))
    servers = (honest,) * (asked - 1) + (honest._replace(behaviour=behaviour),)
    return World(f"{behaviour} {loss}", hours, FREE, servers)


def found(*worlds: World, seed: int = 1) -> Results:
    """What some worlds show of coverage, width and estimate."""
    total = Results()
    for one in worlds:
        total += coverage.measure_world(one, seed)
    return total


def failed(measured: Results) -> set[str]:
    """The sections with a goal that is not met."""
    return {row.section for row in unmet(rows(measured))}


def test_the_interval_holds_where_no_more_than_f_servers_are_wrong() -> None:
    """S2, R1, R2: whatever one of four says, and however many replies are lost."""
    measured = found(*(world(lie, loss=0.1) for lie in ("inside", "outside", "middle", "jump", "walk")))
    assert failed(measured) == set()
    assert measured.share("inside", "WAN").total > 100
    assert measured.share("missed", "within", "4 asked", "just asked").total > 100


def test_f_from_the_answers_turns_coverage_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """R1: a lost honest reply would remove the protection against a wrong server."""
    right = selection.expected_falsetickers
    monkeypatch.setattr(selection, "expected_falsetickers", lambda usable, silent=(): right(usable))
    assert "coverage, within" in failed(found(world("inside", loss=0.1)))


def test_a_drift_of_50_ppm_for_an_oscillator_of_100_turns_coverage_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: a daemon shows that the oscillator is that far off."""
    steered = World("fast", 60.0, Oscillator(100.0, white_fm=1e-9), (ServerSpec(WAN),) * 4, "chrony")
    assert failed(found(steered)) == set()
    monkeypatch.setattr(clock_state, "max_drift_ppm", lambda kernel_ppm, assumed_ppm: assumed_ppm)
    monkeypatch.setattr(evaluation, "drift_bound_ppm", lambda line, drift_ppm: drift_ppm)
    monkeypatch.setattr(holdover, "drift_bound_ppm", lambda line, drift_ppm: drift_ppm)
    assert "coverage, within" in failed(found(steered))


def test_unbounded_weights_turn_the_estimate_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: a server that claims a tiny error would decide alone."""

    def weighted(candidates: Sequence[selection.Candidate], *_: object) -> int:
        weights = [1 / max(1, one.interval.half_width_ns) for one in candidates]
        return round(math.fsum(w * one.offset_ns for w, one in zip(weights, candidates, strict=True)) / sum(weights))

    monkeypatch.setattr(selection, "_estimate", weighted)
    assert "estimate among the honest" in failed(found(world("inside", loss=0.0)))


def test_the_guaranteed_time_holds_near_the_largest_drift() -> None:
    """R3: 49.5 of the 50 ppm that are assumed."""
    measured = frequency.measure_world(NEAR_LIMIT, 1, 96.0)
    assert failed(measured) == set()
    assert measured.share("guaranteed", "near the largest drift").total > 20


def test_a_forecast_that_does_not_age_turns_the_guaranteed_time_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: a guarantee from the last measurement on, and not from now."""
    right = drift.estimate_drift

    def first(*arguments: object, bound_s: float, **options: object) -> object:
        return right(*arguments, bound_s=0.0, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "estimate_drift", first)
    assert "guaranteed time" in failed(frequency.measure_world(NEAR_LIMIT, 1, 96.0))


def test_two_seeds_agree_within_their_limits() -> None:
    """Other random numbers give other figures, but not by more than their limits say."""
    one, other = (rows(measure(seed)) for seed in (1, 2))
    others = {(row.section, row.name): row for row in other}
    both = [(row, others[row.section, row.name]) for row in one if (row.section, row.name) in others]
    compared = [(row, twin) for row, twin in both if row.section.startswith(("coverage", "peers", "guaranteed time"))]
    assert len(compared) > 10
    differing = [row.name for row, twin in compared if not agree(row.limits, twin.limits)]
    assert len(differing) <= len(compared) // 10  # of hundred pairs of limits, some differ by chance


def measure(seed: int) -> Results:
    """A small run."""
    total = found(*(world(lie, loss=0.03, hours=30.0) for lie in ("honest", "inside", "jump")), seed=seed)
    total += frequency.measure_world(NEAR_LIMIT, seed, 48.0)
    return total


def test_a_trouble_is_noticed_and_a_healthy_host_is_left_alone() -> None:
    """A step is noticed at once; a suspend is nothing."""
    total = alarms.watch_trouble("step of +1.2 s", "LAN", 0, 1)
    total += alarms.watch_trouble("suspend of 1 h", "LAN", 0, 1)
    total += alarms.watch_healthy(0, 1, 24.0)
    assert total.delay("alarm", "step of +1.2 s", "LAN").quantile(1.0) < 1.0  # of simulated time
    assert total.share("first", "step of +1.2 s", "LAN", "step-forward").hits == 1
    assert math.isinf(total.delay("alarm", "suspend of 1 h", "LAN").quantile(0.5))
    assert total.rate("false", "LAN").events == 0


def test_the_page_has_every_section() -> None:
    """A short run of the command writes a page without a gap, and its status says whether the goals are met."""
    found = measure(1)
    for more in (
        alarms.watch_healthy(0, 1, 24.0),
        alarms.watch_trouble("step of +1.2 s", "pool", 0, 1),
        packets.run(1, 1),
    ):
        found += more
    text = render(rows(found), found, command="make truth", machine="a test")
    assert [line for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert "at once" in text
    assert "nan" not in text.lower()
    assert short(text).count("\n") == 6


def test_the_readme_shows_the_figures_of_the_published_run() -> None:
    """The table of five figures with their conditions is the one of docs/truth.md, word for word."""
    assert short(README.read_text()) == short(PAGE.read_text())


def test_a_short_run_of_the_command_meets_every_goal_that_it_can_show() -> None:
    """`make truth` on every core, for some seconds; it does not touch the published page."""
    before = PAGE.read_bytes()
    done = subprocess.run([sys.executable, "-m", "tests.truth", "--smoke"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "coverage, within" in done.stdout
    assert "guaranteed time" in done.stdout
    assert PAGE.read_bytes() == before
