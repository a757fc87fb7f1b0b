"""Time, signals, clock changes and the polling thread: what an agent waits for."""

import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from typing import NamedTuple

from ntpaudit import audit
from ntpaudit.core.clock.steps import Step, StepCause
from ntpaudit.core.observation import Daemon, HostContext, KernelState, Observation, Unavailable
from ntpaudit.log import LazyLogger
from ntpaudit.polling import StateUpdater
from ntpaudit.probes.clock import Clock, SystemClock
from ntpaudit.probes.daemons.process import WatchedProcesses
from ntpaudit.probes.kernel import read_kernel
from ntpaudit.probes.time_config import TimeConfigWatch
from ntpaudit.probes.timerfd import StepWatch

logger = LazyLogger(__name__)

CLOCK_TRIES = 9  # readings of the clocks; the fastest is used: it has the least noise in the size of a step (J1)
NO_TIMERFD_WAIT_S = 1.0  # how often the clock is checked for a step where timerfd is not available
LONGEST_WAIT_S = 3600.0  # the longest single wait: an operating system limits it to some weeks


class Wakeup(NamedTuple):
    """Why a wait ended: signals by number, a clock that was set (or a resume), the result of a poll."""

    signals: tuple[int, ...] = ()
    clock_set: bool = False
    observation: Observation | None = None


class SystemRuntime:
    """Everything outside the process that the agent's loop depends on, while its `with` block lasts.

    A caller that never waits handles no signals: `handle_signals` is False, and each signal has its default effect.
    """

    def __init__(self, *, handle_signals: bool = True) -> None:
        self.clock: Clock = SystemClock(CLOCK_TRIES)
        self._handles_signals = handle_signals
        self.time_config = TimeConfigWatch()
        self._daemons = WatchedProcesses()

    def __enter__(self) -> "SystemRuntime":
        with ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._signals = stack.enter_context(_Signals(_Signals.HANDLED if self._handles_signals else ()))
            self._selector.register(self._signals, selectors.EVENT_READ)
            self._watch = self._open_watch(stack)
            self._poller = _Poller(self._signals.wake)
            self._host_servers = audit.HostServers()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def host_context(self, name: str | None) -> HostContext:
        """Return the host's identity (named `name`, if given) and its running time daemons."""
        context = audit.host_context(name)
        self._daemons.update(context.known_daemons)
        return context

    def with_claims(self, context: HostContext) -> HostContext:
        """Return the context with what its time daemons claim, and the files that decide its time, as they are now."""
        return audit.with_time_config(audit.with_claims_of(context, with_sources=False), self.time_config)

    def causes_of(self, steps: Sequence[Step], context: HostContext) -> tuple[StepCause, ...]:
        """Return what the logs of this host name as the causes of steps."""
        from ntpaudit.probes.step_causes import causes_of_steps  # rarely needed

        return causes_of_steps(steps, context)

    def has_ended(self, daemon: Daemon) -> bool:
        """Return whether the process of a known time daemon has ended; far cheaper than `host_context`."""
        return self._daemons.has_ended(daemon)

    def kernel(self) -> KernelState | Unavailable:
        """Return the kernel's state of its clock."""
        return read_kernel()

    def now_ns(self) -> int:
        """Return the uptime, including suspends."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wait(self, seconds: float) -> Wakeup:
        """Wait for this time, or until something happens. Raises what the poll raised."""
        self._selector.select(min(seconds, LONGEST_WAIT_S if self._watch is not None else NO_TIMERFD_WAIT_S))
        clock_set = self._watch.happened() if self._watch is not None else True
        return Wakeup(self._signals.take(), clock_set, self._poller.take())

    def poll(self, plan: audit.Plan, update: StateUpdater) -> None:
        """Start a poll in its thread; `wait` returns its result. Only one poll at a time."""
        servers, files = self._host_servers, self.time_config
        self._poller.start(lambda: audit.observe(plan, self.clock, update, host_servers=servers, time_config=files))

    def polling_s(self) -> float | None:
        """Return for how long the current poll has run, None without one."""
        return self._poller.busy_s

    def _open_watch(self, stack: ExitStack) -> StepWatch | None:
        """Open the timerfd that reports clock changes; None where it is not available, then `wait` polls."""
        try:
            watch = stack.enter_context(closing(StepWatch()))
        except OSError as error:
            logger.warning(f"no timerfd ({error.strerror}): clock steps are detected within 1 s instead of at once")
            return None
        self._selector.register(watch, selectors.EVENT_READ)
        return watch


class _Poller:
    """Polls in a thread, so that the agent's loop never waits for servers."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._result: Observation | BaseException | None = None
        self._thread: threading.Thread | None = None
        self._started_s = 0.0

    @property
    def busy_s(self) -> float | None:
        return None if self._thread is None else time.monotonic() - self._started_s

    def start(self, work: Callable[[], Observation]) -> None:
        self._started_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(work,), name="poll", daemon=True)
        self._thread.start()

    def take(self) -> Observation | None:
        result = self._result
        if result is not None:
            self._result = self._thread = None
        if isinstance(result, BaseException):
            raise result
        return result

    def _run(self, work: Callable[[], Observation]) -> None:
        try:
            self._result = work()
        except BaseException as error:  # a bug: raised again in the main thread
            self._result = error
        self._wake()


class _Signals:
    """Signals and wake-ups from threads: a pipe, to which Python writes the number of each signal that it handles."""

    HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        self._numbers = numbers

    def __enter__(self) -> "_Signals":
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, lambda *_: None) for number in self._numbers}
        self._mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, self.HANDLED)  # pending signals are delivered now
        return self

    def __exit__(self, *exception: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)  # blocked again, if the program began so
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            # A program that started with a blocked signal is about to end. A polling thread does not block the signal,
            # so the default action would kill the program.
            signal.signal(number, signal.SIG_IGN if number in self._mask else handler)
        os.close(self._reader)
        self._writer = -1

    def fileno(self) -> int:
        return self._reader

    def wake(self) -> None:
        with suppress(OSError):  # the pipe is full (the loop wakes anyway) or closed
            os.write(self._writer, b"\0")

    def take(self) -> tuple[int, ...]:
        with suppress(BlockingIOError):
            return tuple(filter(None, os.read(self._reader, 4096)))
        return ()
