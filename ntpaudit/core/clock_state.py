"""What an agent knows between two audits, and how steps, suspends and the host's own readings change it."""

from collections.abc import Sequence
from typing import NamedTuple

from ntpaudit.core.checks.context import DroppedAgreement, SharedServers
from ntpaudit.core.checks.debounce import DebounceState, of_new_boot
from ntpaudit.core.checks.steps import MIN_STEP_S, level_of_step, step_severity_key
from ntpaudit.core.clock.drift import BackTest, Drift, Fit, Sample, drop_forecasts, is_sound
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM, MAX_KERNEL_PPM, ClockReading, max_drift_ppm
from ntpaudit.core.clock.steps import Step, find_step, find_suspend, without_leap
from ntpaudit.core.leap import leap_of_step
from ntpaudit.core.observation import KernelState, Observation, Unavailable
from ntpaudit.core.selection import Agreement, SourceCounts
from ntpaudit.core.time_config import TimeConfigState
from ntpaudit.core.units import NS_PER_S

STEP_LISTED_NS = 3600 * NS_PER_S  # how long a step stays listed
DROPPED_LISTED_NS = 3600 * NS_PER_S  # how long dropped records stay a finding
_MAXERROR_RATE = 500e-6  # the kernel adds this to its maximum error each second, until a time daemon updates it (A4)
_MAXERROR_TOLERANCE_S = 2 * _MAXERROR_RATE  # readings may differ by 1 s more or less than the time between; doubled
_MAX_STEPS = 64
CAUSE_AFTER_NS = 6 * NS_PER_S  # a line that names the cause of a step may come this much later (NTPA-03)


class LastAgreement(NamedTuple):
    """The last agreement of servers, at the moment of `reading`, and its numbers of sources.

    - `contradicted_by`: the sources whose later replies contradict it and were rejected (R5).
    - `drift_ppm`: the largest possible drift of the oscillator by all kernel corrections since then (R4).
    - `leap`: the leap second that the servers announced for the end of the month, 0 for none (R11).
    """

    reading: ClockReading
    agreement: Agreement
    counts: SourceCounts
    contradicted_by: tuple[str, ...] = ()
    drift_ppm: float = MAX_DRIFT_PPM
    leap: int = 0


class KernelUpdate(NamedTuple):
    """The uptime of the latest reading that may follow an update by a time daemon, and its maximum error (A4)."""

    looked_ns: int
    maxerror_s: float


class SeenDaemon(NamedTuple):
    """The last known time daemon of this boot, and the uptime since which it is gone; None while it runs."""

    name: str
    gone_ns: int | None = None


class Poll(NamedTuple):
    """The latest audit that polled a source: its uptime, its numbers of sources, and the polling interval then.

    `shared`: the servers of time daemons among its sources.
    """

    polled_ns: int
    counts: SourceCounts
    interval_s: float
    shared: tuple[SharedServers, ...] = ()


class PollInterval(NamedTuple):
    """The polling interval since an uptime, and how many intervals had passed without a measurement until then (A.4).

    So a reload that shortens the interval does not change how many polls were due before it. `before_boot_s` is the
    interval at the end of the previous boot, None if no agent ran then.
    """

    interval_s: float
    since_ns: int
    passed: float = 0.0
    before_boot_s: float | None = None

    def passed_at(self, now_ns: int) -> float:
        """Return how many intervals have passed without a measurement in this boot."""
        return self.passed + max(0, now_ns - self.since_ns) / NS_PER_S / self.interval_s

    def before_boot(self, span_s: float) -> float:
        """Return the length of a time before the agent's start in intervals."""
        return span_s / (self.before_boot_s or self.interval_s)

    def measured(self, now_ns: int) -> "PollInterval":
        """Return the state after a measurement."""
        return PollInterval(self.interval_s, now_ns)

    def changed(self, now_ns: int, interval_s: float) -> "PollInterval":
        """Return the state with another interval."""
        changed = self._replace(interval_s=interval_s, since_ns=now_ns, passed=self.passed_at(now_ns))
        return self if interval_s == self.interval_s else changed


class DropCounter(NamedTuple):
    """Undelivered records that were dropped: `reported` of `total` in older findings; `since_ns` is an uptime."""

    reported: int = 0
    total: int = 0
    since_ns: int = 0

    def counted(self, total: int, now_ns: int) -> "DropCounter":
        """Return the state when `total` records were dropped in all; they stay a finding for `DROPPED_LISTED_NS`."""
        if total != self.total:
            return DropCounter(self.reported, total, now_ns)
        if self.reported != total and not 0 <= now_ns - self.since_ns <= DROPPED_LISTED_NS:
            return DropCounter(total, total, self.since_ns)
        return self


class ClockState(NamedTuple):
    """The state between two audits, stored with each and restored at the next start.

    Uptimes belong to the boot of `reading`, with which later readings are compared.

    - `started_ns`: the uptime at which this agent started. It and `measured_ns` move with each later suspend.
    - `measured_ns`, `measured_utc_ns`: when servers last gave a measurement, by uptime and by the true time.
    - `kernel_ppm`: the kernel's correction at the last reading.
    - `drift_ppm`: the largest possible drift by the last correction that was not a slew (R4); None before the first.
    - `dropped_agreement`: the latest contradiction that discarded an agreement.
    - `dated_ns`: the RAW time of the database's reply whose Date was judged last.
    - `tai_s`: the kernel's TAI - UTC at the last reading.
    - `leapt`: the leap second that the host's clock has made since the last agreement (R11).
    - `stronger_agreement`: an earlier agreement that allows for more falsetickers than the present one. It becomes the
      present one again if replies contradict it (R5).
    - `time_config`: what decided how the host's time is set, at the last reading; None before the first.
    """

    boot_id: str | None
    reading: ClockReading
    started_ns: int
    agreement: LastAgreement | None = None
    samples: tuple[Sample, ...] = ()
    line: Fit | None = None
    drift: Drift | None = None
    back_test: BackTest = BackTest()
    steps: tuple[Step, ...] = ()
    kernel_update: KernelUpdate | None = None
    kernel_ppm: float | None = None
    drift_ppm: float | None = None
    debounce: DebounceState = DebounceState()
    measured_ns: int | None = None
    measured_utc_ns: int | None = None
    dropped_agreement: DroppedAgreement | None = None
    daemon: SeenDaemon | None = None
    tai_s: int | None = None
    leapt: int = 0
    dated_ns: int | None = None
    poll: Poll | None = None
    poll_interval: PollInterval | None = None
    stronger_agreement: LastAgreement | None = None
    dropped: DropCounter = DropCounter()
    time_config: TimeConfigState | None = None


def restored(stored: ClockState | None, boot_id: str | None, now: ClockReading) -> ClockState:
    """Return the stored state as far as it is valid in this boot; without a boot id it is of another one."""
    if stored is None:
        return ClockState(boot_id, now, now.boottime_ns)
    if not is_sound(stored.back_test):
        stored = stored._replace(back_test=BackTest())
    if boot_id is not None and stored.boot_id == boot_id and stored.reading.boottime_ns <= now.boottime_ns:
        return stored
    polls = stored.poll_interval
    return ClockState(
        boot_id,
        now,
        now.boottime_ns,
        back_test=drop_forecasts(stored.back_test),
        debounce=of_new_boot(stored.debounce),
        measured_utc_ns=stored.measured_utc_ns,
        poll_interval=polls and PollInterval(polls.interval_s, now.boottime_ns, before_boot_s=polls.interval_s),
        dropped=stored.dropped,
        time_config=stored.time_config and stored.time_config.of_new_boot(now),
    )


def detect_clock_change(
    state: ClockState, now: ClockReading, *, is_gap: bool = False, kernel: KernelState | Unavailable | None = None
) -> tuple[ClockState, Step | None, int | None]:
    """Detect a step of the clock or a suspend (its ns) since the last reading (J1, J3). A leap second is no step (R11).

    Compared with the quickest reading since the last step or suspend: a slow reading could hide a step for good.
    """
    step, slept_ns = find_step(state.reading, now, is_gap=is_gap), find_suspend(state.reading, now)
    leap = leap_of_step(step, state.reading, kernel, state.tai_s, state.agreement.leap if state.agreement else 0)
    if step or slept_ns or now.width_ns < state.reading.width_ns:
        state = state._replace(reading=now)
    if step is not None and leap:
        state = reset_samples(state)._replace(leapt=leap)
        step = without_leap(step, leap, now)
    state = state._replace(steps=_listed_steps(state.steps, step, now))
    return (state if slept_ns is None else _after_suspend(state, slept_ns)), step, slept_ns


def _listed_steps(steps: Sequence[Step], step: Step | None, now: ClockReading) -> tuple[Step, ...]:
    """Return the steps of the last hour: the newest in each direction, and each that is worse than all later ones."""
    recent = [known for known in steps if now.boottime_ns - known.boottime_ns <= STEP_LISTED_NS]
    if step is None or abs(step.size_ns) < MIN_STEP_S * NS_PER_S:
        return tuple(recent)
    worse = [one for one in recent if one.is_back != step.is_back or step_severity_key(one) > step_severity_key(step)]
    return (*worse, step)[:_MAX_STEPS]  # the worst stay


def unexplained_steps(state: ClockState, now_ns: int) -> list[Step]:
    """Return the listed steps whose cause logs may name by now, and were not searched for it."""
    return [
        step
        for step in state.steps
        if step.cause is None
        and step.monotonic_ns is not None
        and level_of_step(step) != "low"
        and now_ns - step.boottime_ns >= CAUSE_AFTER_NS
    ]


def _after_suspend(state: ClockState, slept_ns: int) -> ClockState:
    """Discard what was measured before a suspend. The suspend itself is not a gap: the host wrote no log."""
    polls = state.poll_interval
    return reset_holdover(state)._replace(
        measured_ns=None if state.measured_ns is None else state.measured_ns + slept_ns,
        started_ns=state.started_ns + slept_ns,
        poll_interval=polls and polls._replace(since_ns=polls.since_ns + slept_ns),
    )


def reset_samples(state: ClockState) -> ClockState:
    """Discard the samples of the drift: no line goes through them and later samples."""
    return state._replace(samples=(), line=None, drift=None, back_test=drop_forecasts(state.back_test))


def reset_holdover(state: ClockState) -> ClockState:
    """Discard what was measured with a RAW clock that has stopped or restarted since (B6, F1)."""
    return reset_samples(state)._replace(agreement=None, stronger_agreement=None, leapt=0)


def with_poll_interval(state: ClockState, now_ns: int, interval_s: float) -> ClockState:
    """Store the polling interval valid from now on; earlier time stays judged by the earlier interval."""
    since_ns = state.started_ns if state.measured_ns is None else state.measured_ns
    polls = state.poll_interval or PollInterval(interval_s, since_ns)
    return state._replace(poll_interval=polls.changed(now_ns, interval_s))


def watch_host(state: ClockState, observation: Observation, assumed_ppm: float) -> ClockState:
    """Update what the kernel and the time daemons show. `assumed_ppm` is the largest drift that is assumed (R4)."""
    state = _watch_daemon(_watch_updates(_watch_drift(state, observation, assumed_ppm), observation), observation)
    causes = {cause.boottime_ns: cause for cause in observation.step_causes}
    steps = tuple(step._replace(cause=causes.get(step.boottime_ns, step.cause)) for step in state.steps)
    return state._replace(steps=steps)


def _watch_drift(state: ClockState, observation: Observation, assumed_ppm: float) -> ClockState:
    """Update the largest possible drift by the kernel's correction (R4)."""
    kernel_ppm = observation.kernel_ppm
    if kernel_ppm is None or not abs(kernel_ppm) <= MAX_KERNEL_PPM:  # a slew, which does not show the drift
        return state
    drift_ppm = max_drift_ppm(kernel_ppm, assumed_ppm)
    last, stronger = (
        one and one._replace(drift_ppm=max(one.drift_ppm, drift_ppm))
        for one in (state.agreement, state.stronger_agreement)
    )
    return state._replace(drift_ppm=drift_ppm, agreement=last, stronger_agreement=stronger)


def _watch_updates(state: ClockState, observation: Observation) -> ClockState:
    """Detect whether a time daemon may have updated the kernel: else its maximum error only grew (A4).

    Compared with the reading that last showed an update, not with the previous one, so that no update is too small.
    """
    kernel, now_ns, last = observation.kernel, observation.taken.boottime_ns, state.kernel_update
    if isinstance(kernel, Unavailable):
        return state._replace(kernel_update=None, kernel_ppm=None)
    state = state._replace(kernel_ppm=kernel.frequency_ppm, tai_s=kernel.tai_s)
    if not kernel.is_synchronised:
        return state._replace(kernel_update=None)
    if last is not None and last.looked_ns <= now_ns:
        expected_s = last.maxerror_s + (now_ns - last.looked_ns) / NS_PER_S * _MAXERROR_RATE
        if abs(kernel.maxerror_s - expected_s) <= _MAXERROR_TOLERANCE_S:
            return state
    return state._replace(kernel_update=KernelUpdate(now_ns, kernel.maxerror_s))


def _watch_daemon(state: ClockState, observation: Observation) -> ClockState:
    """Detect that the time daemon has stopped (R12). If the kernel is updated after that, another one runs."""
    if disciplining := observation.disciplining:
        return state._replace(daemon=SeenDaemon(disciplining[0].name))
    if state.daemon is None or any(daemon.disciplines is None for daemon in observation.known_daemons):
        return state
    gone_ns = observation.taken.boottime_ns if state.daemon.gone_ns is None else state.daemon.gone_ns
    is_replaced = state.kernel_update is not None and state.kernel_update.looked_ns > gone_ns
    return state._replace(daemon=None if is_replaced else state.daemon._replace(gone_ns=gone_ns))


def stale_s(state: ClockState, now: ClockReading) -> float | None:
    """Return for how long certainly no time daemon has updated the kernel."""
    return None if state.kernel_update is None else (now.boottime_ns - state.kernel_update.looked_ns) / NS_PER_S
