"""Runs the agents of a simulated fleet, to the end of its history, to the present, and on in real time."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NoReturn

from ntpaudit.core.units import NS_PER_S
from ntpaudit.demo.scenario import Scenario
from ntpaudit.demo.simulated_agent import Query, SimulatedAgent
from ntpaudit.demo.writers import PointWriter

LAG_NS = 3 * NS_PER_S  # the simulation stays this far behind: the kernel cannot stamp a datagram with a future time
FOLLOW_S = 5.0  # the interval at which due audits run while a demo follows the present
SHRINK = 0.75  # each round towards the present must reduce the distance by this factor, or the demo gives up
_DAY_NS = 86_400 * NS_PER_S

Progress = Callable[[], AbstractContextManager[Callable[[], None]]]  # it yields what is called as each host arrives


class SimulatedFleet:
    """The agents of some hosts. Of a host in `written_ns`, only points later than that time are written."""

    def __init__(
        self, scenario: Scenario, query: Query, writer: PointWriter, written_ns: Mapping[str, int] | None = None
    ) -> None:
        self._scenario = scenario
        self._agents = [SimulatedAgent(spec, scenario, query) for spec in scenario.hosts]
        self._writer = writer
        self._written_ns = written_ns or {}
        self.points = 0

    def run(self, until_ns: int, on_host: Callable[[], None] = lambda: None) -> None:
        """Run one agent after the other until that true time; call `on_host` after each."""
        for agent in self._agents:
            for audit in agent.advance(until_ns):
                if audit.utc_ns > self._written_ns.get(audit.record.host.name, -1):
                    self._writer.write(audit)
                    self.points += audit.points
            on_host()
        self._writer.flush()

    def catch_up(self, now_ns: Callable[[], int], progress: Progress) -> tuple[int, bool]:
        """Continue from the end of the scenario until the present is less than half a local interval away.

        Stop earlier if the simulation is hardly faster than real time. Return the time that is reached, and whether it
        is the present.
        """
        reached_ns = self._scenario.end_ns
        before_ns: float = float("inf")
        while (behind_ns := now_ns() - LAG_NS - reached_ns) > self._scenario.intervals.local_s * NS_PER_S / 2:
            if behind_ns > SHRINK * before_ns:
                return reached_ns, False
            with progress() as on_host:
                self.run(reached_ns + behind_ns, on_host)
            reached_ns, before_ns = reached_ns + behind_ns, behind_ns
        return reached_ns, True

    def follow(
        self, now_ns: Callable[[], int], pause: Callable[[float], None], on_reached: Callable[[int, int], None]
    ) -> NoReturn:
        """Continue in real time until `pause` raises; report the number of points and their time to `on_reached`."""
        while True:
            pause(FOLLOW_S)
            until_ns = now_ns() - LAG_NS
            self.run(until_ns)
            on_reached(self.points, until_ns)


def days(scenario: Scenario) -> tuple[int, ...]:
    """Return times of a history, a day apart, with its end as the last one, to report progress."""
    return (*range(scenario.begin_ns + _DAY_NS, scenario.end_ns, _DAY_NS), scenario.end_ns)
