"""An agent's store as a process of its own, to be killed at any moment: it goes on from what it finds, without an end.

`python -m tests.store.writer FILE DELIVERED` starts one, a fork, for each line of its input. The process prints its id
when it is ready, and writes the number of every entry to DELIVERED before it confirms it.
"""

import os
import signal
import sys
from typing import NoReturn

from ntpaudit.store import audits, retention, saved_state
from ntpaudit.store.state import StateStore
from tests.store.audits import audit, deliver, keep


def main(path: str, delivered: str) -> None:
    """Start a process for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets those that were killed
    for _ in sys.stdin:
        if not os.fork():
            keep_audits(path, delivered)


def keep_audits(path: str, delivered: str) -> NoReturn:
    """Keep one audit after another."""
    store = StateStore(path)
    arrived = os.open(delivered, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for pending in store.write(audits.pending_observations):
        store.store_audit(*audit((store.read(saved_state.load_state, "clock") or 0) + 1, pending.kind))
    number = (store.read(saved_state.load_state, "clock") or 0) + 1
    print(os.getpid(), flush=True)
    while True:
        keep(store, number, "network" if number % 2 else "local")
        if number % 5 == 0:
            for done in deliver(store):
                os.write(arrived, b"%d\n" % done)
        if number % 50 == 0:
            store.write(retention.prune_by_size, 1 << 30)
        number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
