"""What an agent waits for: time, signals, a clock that is set, servers that answer."""

import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import NamedTuple, Protocol

from ntpaudit import audit
from ntpaudit.core.observation import Daemon, HiddenDaemons, HostFacts, KernelState, Observation, Unavailable
from ntpaudit.log import LazyLogger
from ntpaudit.polling import StateUpdater
from ntpaudit.probes.clock import Clock, SystemClock
from ntpaudit.probes.daemons import running_daemons
from ntpaudit.probes.daemons.watch import WatchedProcesses
from ntpaudit.probes.host import host_facts
from ntpaudit.probes.kernel import read_kernel
from ntpaudit.probes.timerfd import StepWatch

logger = LazyLogger(__name__)

CLOCK_TRIES = 9
"""Of so many readings the quickest is taken: the least noise in a step's size (J1)."""

NO_TIMERFD_WAIT_S = 1.0
"""Where nobody tells that the clock was set, one looks so often."""


LONGEST_WAIT_S = 3600.0
"""An operating system waits no longer than some weeks at once."""


class Wakeup(NamedTuple):
    """What came while the agent waited: signals by number, the clock being set (or resumed), servers' answers."""

    signals: tuple[int, ...] = ()
    clock_set: bool = False
    observation: Observation | None = None


class HostContext(NamedTuple):
    """Who a host is, and what steers its clock."""

    host: HostFacts
    daemons: tuple[Daemon, ...] | HiddenDaemons


class Runtime(Protocol):
    """All of the outside that the agent's loop depends on."""

    @property
    def clock(self) -> Clock:
        """The host's clocks."""

    def host_context(self, name: str | None) -> HostContext:
        """Return who this host is, as `name` if that is given, and which time daemons run."""

    def has_ended(self, daemon: Daemon) -> bool:
        """Whether the process of a time daemon that was seen exists no more; costs far less than `facts`."""

    def kernel(self) -> KernelState | Unavailable:
        """Return what the kernel believes of its clock."""

    def now_ns(self) -> int:
        """Return the uptime, suspends included."""

    def wait(self, seconds: float) -> Wakeup:
        """Wait so long, or until something happens."""

    def poll(self, plan: audit.Plan, update: StateUpdater) -> None:
        """Begin to ask servers; what they say comes from `wait`. Not while they are being asked."""

    def polling_s(self) -> float | None:
        """Return for how long servers have been asked by now, None where they are not."""


class SystemRuntime:
    """The host itself, while its `with` block lasts.

    A caller that never waits handles no signals: `handle_signals` is False, and each signal has its default effect.
    """

    def __init__(self, *, handle_signals: bool = True) -> None:
        self.clock: Clock = SystemClock(CLOCK_TRIES)
        self._hears = handle_signals
        self._watched = WatchedProcesses()

    def __enter__(self) -> "SystemRuntime":
        with ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._signals = stack.enter_context(_Signals(_Signals.HEARD if self._hears else ()))
            self._selector.register(self._signals, selectors.EVENT_READ)
            self._watch = self._open_watch(stack)
            self._surveyor = _Poller(self._signals.wake)
            self._host_servers = audit.HostServers()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def host_context(self, name: str | None) -> HostContext:
        """Return who this host is, and which time daemons run."""
        daemons = running_daemons()
        self._watched.update(daemons.seen if isinstance(daemons, HiddenDaemons) else daemons)
        return HostContext(host_facts(name), daemons)

    def has_ended(self, daemon: Daemon) -> bool:
        """Whether the process of a time daemon that was seen exists no more."""
        return self._watched.has_ended(daemon)

    def kernel(self) -> KernelState | Unavailable:
        """Return what the kernel believes of its clock."""
        return read_kernel()

    def now_ns(self) -> int:
        """Return the uptime, suspends included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wait(self, seconds: float) -> Wakeup:
        """Wait so long, or until something happens. What goes wrong in a survey goes wrong here."""
        self._selector.select(min(seconds, LONGEST_WAIT_S if self._watch is not None else NO_TIMERFD_WAIT_S))
        clock_set = self._watch.happened() if self._watch is not None else True
        return Wakeup(self._signals.take(), clock_set, self._surveyor.take())

    def poll(self, plan: audit.Plan, update: StateUpdater) -> None:
        """Begin to ask servers."""
        self._surveyor.start(lambda: audit.observe(plan, self.clock, update, own=self._host_servers))

    def polling_s(self) -> float | None:
        """Return for how long servers have been asked by now."""
        return self._surveyor.busy_s

    def _open_watch(self, stack: ExitStack) -> StepWatch | None:
        """Watch for the clock being set; where that is not to be had, it is looked for again and again."""
        try:
            watch = stack.enter_context(StepWatch())
        except OSError as error:
            logger.warning(f"steps of the clock are found within 1 s, not at once: no timerfd ({error.strerror})")
            return None
        self._selector.register(watch, selectors.EVENT_READ)
        return watch


class _Poller:
    """Ask servers in a thread of its own, so that nothing waits for them; one survey at a time."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._result: Observation | BaseException | None = None
        self._thread: threading.Thread | None = None
        self._started_s = 0.0

    @property
    def busy_s(self) -> float | None:
        """For how long a survey has been under way, None where there is none."""
        return None if self._thread is None else time.monotonic() - self._started_s

    def start(self, work: Callable[[], Observation]) -> None:
        """Begin."""
        self._started_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(work,), name="survey", daemon=True)
        self._thread.start()

    def take(self) -> Observation | None:
        """Return what came of it, None while it lasts; what went wrong in it goes wrong here."""
        result = self._result
        if result is None:
            return None
        self._result = self._thread = None
        if isinstance(result, BaseException):
            raise result
        return result

    def _run(self, work: Callable[[], Observation]) -> None:
        try:
            self._result = work()
        except BaseException as error:  # a bug: it is raised again where the agent ends of it
            self._result = error
        self._wake()


class _Signals:
    """Signals, and threads that want to be heard, as something that a selector can wait for."""

    HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self, heard: tuple[signal.Signals, ...]) -> None:
        self._heard = heard

    def __enter__(self) -> "_Signals":
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._taken: deque[int] = deque()
        self._before = {number: signal.signal(number, self._hear) for number in self._heard}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, self.HEARD)  # what came meanwhile comes now
        return self

    def __exit__(self, *exception: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)  # blocked again, if the program began so
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            # A program that began with it blocked is about to end: a thread that is still asking servers does not
            # block it, and the default would kill the program.
            signal.signal(number, signal.SIG_IGN if number in self._mask else handler)
        os.close(self._reader)
        self._writer = -1

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader

    def wake(self) -> None:
        """Wake the loop from another thread."""
        with suppress(OSError):  # it is awake already, or has ended
            os.write(self._writer, b"\0")

    def take(self) -> tuple[int, ...]:
        """Return the signals that came."""
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        taken = []
        while self._taken:  # one may come at any moment, and none may be lost
            taken.append(self._taken.popleft())
        return tuple(taken)

    def _hear(self, number: int, _: object) -> None:
        self._taken.append(number)
