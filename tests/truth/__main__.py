"""`make truth`: run the worlds on every core, and write docs/truth.md and the table of README.md.

Environment: WORLDS, DECADES and SEED. What was run is kept in the cache, so that a run of hours can be interrupted,
until the measured code changes.
"""

import argparse
import math
import os
import pickle
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from hashlib import sha256
from pathlib import Path

from tests.abilities import LackingError
from tests.truth import alarms, coverage, frequency, packets
from tests.truth.page import describe, rows, unmet
from tests.truth.render import render, short
from tests.truth.statistics import Results
from tests.world.packages import REPOSITORY, cache_folder

PAGE, README = REPOSITORY / "docs/truth.md", REPOSITORY / "README.md"

WORLDS = 120
DECADES = 0.1
SEED = 1

Run = Callable[[Sequence[int], int], Results]
Job = tuple[Run, list[int]]


def jobs(worlds: int, decades: float) -> list[Job]:
    """Divide a run into pieces of some seconds. 5,000 worlds are 10^6 host-hours."""
    pieces: list[Job] = []
    for run, count, size in (
        (frequency.run, min(96, max(16, worlds // 8)), 1),
        (alarms.run_troubles, max(1, worlds // 250), 1),
        (coverage.run, worlds, 10),
        (alarms.run_healthy, 2 * math.ceil(decades * alarms.HOURS_PER_DECADE / alarms.HEALTHY_HOURS), 2),
    ):
        pieces += [(run, list(range(start, min(start + size, count)))) for start in range(0, count, size)]
    return pieces


def smoke_jobs() -> list[Job]:
    """Return some seconds of everything."""
    return [
        (partial(alarms.run_healthy, hours=24.0), [0, 1]),
        (partial(frequency.run, hours=24.0), [0, 1]),
        (partial(alarms.run_troubles, names=("step of +1.2 s", "VM pause of 60 s")), [0]),
        (partial(coverage.run, hours=24.0), [0, 1, 2, 3]),
    ]


def kept(folder: Path, run: Run, numbers: list[int], seed: int) -> Results:
    """Return what a piece finds, from the folder if it was run before."""
    path = folder / f"{run.__name__}-{run.__module__}-{seed}-{numbers[0]}-{numbers[-1]}"
    if not path.exists():
        path.with_suffix(".new").write_bytes(pickle.dumps(run(numbers, seed)))
        path.with_suffix(".new").rename(path)
    found: Results = pickle.loads(path.read_bytes())
    return found


def code_digest() -> str:
    """Return a digest of all code that decides what a piece finds: the core, and this folder but what writes."""
    here = [file for file in Path(__file__).parent.glob("[!_t]*.py") if file.name not in ("page.py", "render.py")]
    files = sorted([*(REPOSITORY / "ntpaudit/core").rglob("*.py"), *here])
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def measure(pieces: Sequence[Job], seed: int, folder: Path | None = None) -> Results:
    """Run all worlds on every core, with progress on standard error; keep each piece in the folder."""
    found, began = Results(), time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running = [
            pool.submit(run, numbers, seed) if folder is None else pool.submit(kept, folder, run, numbers, seed)
            for run, numbers in pieces
        ]
        for done, future in enumerate(as_completed(running), 1):
            found += future.result()
            if sys.stderr.isatty() or done == len(pieces):
                print(f"\r{done} of {len(pieces)} in {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def main() -> int:
    """Run, print every figure, and write the page. The status is 1 if a goal is not met."""
    parser = argparse.ArgumentParser(prog="make truth", description=__doc__)
    parser.add_argument("--worlds", type=int, default=int(os.environ.get("WORLDS") or WORLDS), help="how many to run")
    parser.add_argument(
        "--decades",
        type=float,
        default=float(os.environ.get("DECADES") or DECADES),
        help="how long to watch healthy hosts of each kind",
    )
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or SEED))
    parser.add_argument("--smoke", action="store_true", help="a few worlds only, and no page")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to write")
    arguments = parser.parse_args()
    if arguments.smoke:
        found = measure(smoke_jobs(), arguments.seed)
    else:
        folder = cache_folder() / "truth" / code_digest()
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(jobs(arguments.worlds, arguments.decades), arguments.seed, folder)
    try:
        found += packets.run(arguments.seed, 2 if arguments.smoke else packets.RUNS)
    except LackingError as error:
        print(f"no real packets: {error}", file=sys.stderr)
    figures = rows(found)
    for row in figures:
        print(describe(row))
    if not arguments.smoke:
        machine = f"Python {platform.python_version()}, Linux on {platform.machine()}, {os.cpu_count()} cores"
        command = f"make truth WORLDS={arguments.worlds} DECADES={arguments.decades:g} SEED={arguments.seed}"
        page = render(figures, found, command=command, machine=machine)
        arguments.output.write_text(page)
        if arguments.output == PAGE:
            README.write_text(README.read_text().replace(short(README.read_text()), short(page)))
    return 1 if unmet(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
