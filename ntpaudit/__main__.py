"""Run the command line: as `python -m ntpaudit`, and as the program that is installed."""

import gc
import signal
import sys

HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""The signals of an agent. Before it has handlers, the default of each would kill it."""


def main() -> None:
    """Run the command line and end the process.

    The signals of an agent are blocked until `SystemRuntime` handles them. Garbage is not collected while modules are
    imported, because there is none; `LazyGroup` enables the collector again.
    """
    gc.disable()
    if sys.argv[1:2] == ["agent"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    from ntpaudit.cli import main as run  # click alone takes longer than Python itself

    run()


if __name__ == "__main__":
    main()
