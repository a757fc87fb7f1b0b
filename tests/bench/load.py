"""Generate load: fill a database with the points of a large simulated fleet, by one process per core.

`python -m tests.bench.load URL --hosts 10000 --hours 6`: the agents' own code, as in `ntpaudit demo --no-udp`.
"""

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.core.units import parse_utc
from ntpaudit.demo.fleet import SimulatedFleet
from ntpaudit.demo.network import query_without_udp
from ntpaudit.demo.scenario import build_scenario
from ntpaudit.demo.writers import InfluxWriter

DETAILED_HOSTS = 2000
"""Above this number, hosts run half as many local audits: the simulation shares the machine with the database."""


def main(words: Sequence[str] | None = None) -> None:
    """Fill a database, and print how many points were written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--bucket", default="ntpaudit")
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until", type=parse_utc, default=time.time_ns())
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args(words)
    fleet = (asked.hosts, asked.hours, asked.seed, asked.until)
    influx = InfluxConfig(asked.url, bucket=asked.bucket, timeout_s=30.0)
    with ProcessPoolExecutor(asked.processes, get_context("spawn")) as pool:
        shares = [pool.submit(fill, fleet, influx, first, asked.processes) for first in range(asked.processes)]
        print(sum(share.result() for share in shares), "points")


def fill(fleet: tuple[int, float, int, int], influx: InfluxConfig, first: int, each: int) -> int:
    """Write the points of every n-th host of a fleet, from the first on; return how many."""
    scenario = build_scenario(*fleet)
    if len(scenario.hosts) > DETAILED_HOSTS:
        scenario = scenario._replace(intervals=scenario.intervals._replace(local_s=120.0))
    scenario = scenario._replace(hosts=scenario.hosts[first::each])
    with closing(InfluxWriter(influx, os.environ.get("INFLUXDB_V2_TOKEN"))) as writer:
        share = SimulatedFleet(scenario, query_without_udp, writer)
        share.run(scenario.end_ns)
    return share.points


if __name__ == "__main__":
    main()
