"""Whether known time daemons still run: cheap enough for every local audit (R12)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ntpaudit.core.observation import Daemon

if TYPE_CHECKING:
    import psutil


class WatchedProcesses:
    """The processes of the daemons that were seen last. A process id that another process has since is an end too."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process | None] = {}

    def update(self, daemons: Iterable[Daemon]) -> None:
        """Watch these daemons, and no others."""
        import psutil  # one-shot checks do without

        self._processes = {}
        for daemon in daemons:
            if daemon.pid > 0:  # 0 is the kernel itself
                try:
                    self._processes[daemon.pid] = psutil.Process(daemon.pid)
                except psutil.NoSuchProcess:
                    self._processes[daemon.pid] = None

    def has_ended(self, daemon: Daemon) -> bool:
        """Return whether the process of a watched daemon has ended; of others nothing is known."""
        if daemon.pid not in self._processes:
            return False
        process = self._processes[daemon.pid]
        return process is None or not process.is_running()
