"""What a computation costs, without a limit in seconds: a busy or slow machine changes neither of these measures."""

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

LINEAR_GROWTH = 64.0
"""Between what a linear cost and a quadratic one grow where their input grows sixteenfold: 16 times, and 256 times."""


def instructions(run: Callable[[], object]) -> int:
    """Count the bytecode instructions that a call executes in this thread; what C functions do inside counts as one."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()  # coverage's
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def growth(small: Callable[[], object], large: Callable[[], object], times: int = 4) -> float:
    """Return how many times as much CPU time the second call takes as the first, by the best of several runs each."""
    runs = [(_cpu_s(small), _cpu_s(large)) for _ in range(times)]
    return min(after for _, after in runs) / min(before for before, _ in runs)


def _cpu_s(run: Callable[[], object]) -> float:
    begin_s = time.process_time()
    run()
    return time.process_time() - begin_s
