"""`make truth`: run the worlds on every core, and write docs/truth.md. Environment: WORLDS and SEED."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.truth import alarms, coverage, frequency
from tests.truth.page import number, percent, rows
from tests.truth.statistics import Results

WORLDS = 120
SEED = 1

Job = tuple[Callable[[Sequence[int], int], Results], list[int]]


def jobs(worlds: int) -> list[Job]:
    """Divide a run into pieces of some seconds. 5,000 worlds are 10^6 host-hours and 3 decades of each healthy kind."""
    pieces: list[Job] = []
    for run, count, size in (
        (alarms.run_healthy, max(2, round(worlds * 0.212)), 2),
        (frequency.run, min(140, max(14, worlds // 8)), 1),
        (alarms.run_troubles, max(1, worlds // 50), 1),
        (coverage.run, worlds, 10),
    ):
        pieces += [(run, list(range(start, min(start + size, count)))) for start in range(0, count, size)]
    return pieces


def measure(worlds: int, seed: int) -> Results:
    """Run all worlds on every core, with progress on standard error."""
    found = Results()
    pieces, began = jobs(worlds), time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running = [pool.submit(run, numbers, seed) for run, numbers in pieces]
        for done, future in enumerate(as_completed(running), 1):
            found += future.result()
            if sys.stderr.isatty() or done == len(pieces):
                print(f"\r{done} of {len(pieces)} in {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def main() -> None:
    """Run, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.truth", description=__doc__)
    parser.add_argument("--worlds", type=int, default=int(os.environ.get("WORLDS") or WORLDS))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or SEED))
    arguments = parser.parse_args()
    found = measure(arguments.worlds, arguments.seed)
    for row in rows(found):
        write = (
            percent
            if row.section.startswith(("coverage", "guaranteed", "peers", "skew", "band", "estimate among"))
            else number
        )
        goal = {None: "", True: "met", False: "NOT MET"}[row.is_met]
        worst = "" if row.worst is None else f" worst {number(row.worst)}"
        print(
            f"{row.section} | {row.name} | {write(row.value)} [{write(row.limits[0])}, {write(row.limits[1])}]{worst}"
            f" | {row.cases} | {goal}"
        )


if __name__ == "__main__":
    main()
