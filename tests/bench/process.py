"""What a whole process costs."""

import os
import statistics
import subprocess
import time
from collections.abc import Sequence

PROCESS_RUNS = 25


def process_cost(words: Sequence[str], runs: int = PROCESS_RUNS) -> tuple[float, float]:
    """Return the median CPU and wall time of a process, in milliseconds."""
    cpu, wall = [], []
    for _ in range(runs):
        began = time.monotonic()
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
        wall.append((time.monotonic() - began) * 1e3)
        cpu.append((usage.ru_utime + usage.ru_stime) * 1e3)
    return statistics.median(cpu), statistics.median(wall)
