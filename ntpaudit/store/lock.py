"""The locks of an agent on its state folder, and whether they are held."""

import fcntl
import os
import time
from contextlib import suppress

from ntpaudit.errors import BusyError

LOCK_TRIES = 10  # how often a folder's lock is tried before it counts as another agent's
_LOCK_PAUSE_S = 0.05
VOUCHER = "agent.lock"  # locked, beside the history, while the agent runs that has stored its own state there


def agent_runs(path: str) -> bool | None:
    """Return whether an agent with this history runs: it locks the folder. None if that is not visible."""
    return _is_held(os.path.dirname(path) or ".", os.O_DIRECTORY)


def agent_vouches(path: str) -> bool | None:
    """Return whether the stored agent state is that of the running agent (`AgentLock`).

    Call it before the history is read: then the state is of that agent or a later one. None if it is not visible.
    """
    runs = agent_runs(path)
    return runs and (_is_held(os.path.join(os.path.dirname(path), VOUCHER), os.O_NOFOLLOW | os.O_NONBLOCK) or False)


def _is_held(path: str, flags: int) -> bool | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except (OSError, ValueError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # an agent that starts just then retries (`AgentLock`)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


class AgentLock:
    """A lock on the state folder: one agent uses it, until the process ends.

    A second lock, on a file in the folder, is taken by `mark_as_current`: the stored state is the running agent's from
    then on. Before, it is that of an earlier agent, whose uptimes may be of another boot.
    """

    def __init__(self, folder: str) -> None:
        """Take the lock. BusyError if another agent holds it; a folder that cannot be opened is not locked."""
        self._handle: int | None = None
        self._voucher: int | None = None
        self._folder = folder
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock(self._handle)
        except BlockingIOError as error:
            raise BusyError(
                f"another agent uses {folder}, probably the service: see `ntpaudit status`; stop that agent only if it "
                "should not run"
            ) from error
        except OSError:
            return  # the store logs why the folder cannot be used

    def mark_as_current(self) -> None:
        """Show that the stored state is that of this agent. Errors are ignored: then `status` assumes it is not."""
        if self._handle is None or self._voucher is not None:
            return
        path = os.path.join(self._folder, VOUCHER)
        with suppress(OSError):
            with suppress(FileNotFoundError):
                os.unlink(path)  # it may be another user's, after an agent was run by hand as root
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _lock(handle)
            except OSError:
                os.close(handle)  # the next audit tries again
                raise
            self._voucher = handle

    def release(self) -> None:
        """Release the locks; the end of the process does so too."""
        for handle in (self._voucher, self._handle):
            if handle is not None:
                os.close(handle)
        self._handle = self._voucher = None


def _lock(handle: int) -> None:
    """Take an exclusive lock; `status` may hold it for a moment to test it (`_is_held`)."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOCK_PAUSE_S)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
