"""Waiting for what another thread, process or server does: by looking again and again, and never for ever."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")

WITHIN_S = 60.0
"""What takes longer than this does not come at all, on any machine."""

STEPS = 10
"""How often the time may start again."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.02


def until(
    look: Callable[[], T],
    what: str | Callable[[], str] = "it",
    *,
    alive: Callable[[], object] = lambda: True,
    within_s: float = WITHIN_S,
    progress: Callable[[], object] = lambda: None,
) -> T:
    """Return the first true value of `look`; fail after `within_s`, or once `alive` is false: it can come no more.

    `what` names it in the failure; a function can add what a program has printed by then. Each time the value
    of `progress` changes, the time starts again, up to STEPS times as much in all: a slow machine needs longer for all
    steps, but not for one.
    """
    deadline_s, pause_s, reached = time.monotonic() + within_s, _FIRST_PAUSE_S, progress()
    end_s = deadline_s + (STEPS - 1) * within_s
    while True:
        if (now := progress()) != reached:
            deadline_s, reached = min(time.monotonic() + within_s, end_s), now
        is_over = time.monotonic() > deadline_s or not alive()
        if found := look():  # after that: it may have come just before the end
            return found
        if is_over:
            reason = f"within {within_s:g} s" if alive() else "before what it depends on ended"
            raise AssertionError(f"{what if isinstance(what, str) else what()}: did not come {reason}")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def is_running(pid: int) -> bool:
    """Return whether a process still runs, whichever process is its parent."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
