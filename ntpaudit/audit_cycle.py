"""The agent's audits: observe, store, judge, store, send; and recovery after a restart."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ntpaudit.config.schema import HistoryConfig
from ntpaudit.core.agent import (
    KEPT_SAMPLES,
    AuditResult,
    AuditSettings,
    ClockState,
    KernelUpdate,
    LastAgreement,
    Poll,
    SeenDaemon,
    detect_clock_change,
    evaluate,
    make_sample,
    reset_holdover,
    step_event,
    utc_ns,
    with_poll_interval,
)
from ntpaudit.core.checks.context import DroppedAgreement
from ntpaudit.core.checks.debounce import DebounceState, of_new_boot
from ntpaudit.core.clock.database_clock import DatabaseClock
from ntpaudit.core.clock.drift import fit, parse_back_test
from ntpaudit.core.clock.interval import MAX_STEP_NS
from ntpaudit.core.clock.readings import ClockReading, suspended_ns
from ntpaudit.core.clock.steps import Step, Suspend, find_step
from ntpaudit.core.events import Event
from ntpaudit.core.leap import is_leap_sized
from ntpaudit.core.ntp.time import PIVOT_UNIX_S
from ntpaudit.core.observation import HiddenDaemons, KernelState, Observation, Unavailable
from ntpaudit.core.poll_interval import PollInterval
from ntpaudit.core.record import Health, HostIdentity, Kind, Record
from ntpaudit.core.units import NS_PER_S, format_duration, plural
from ntpaudit.errors import OutputError
from ntpaudit.formats.line_protocol import render, render_events, render_unstamped, stamp_lines, stamp_of
from ntpaudit.log import LazyLogger
from ntpaudit.outputs import Output
from ntpaudit.runtime import HostContext, Runtime
from ntpaudit.store.history import OutboxEntry, PendingObservation
from ntpaudit.store.serialization import plain, revive
from ntpaudit.store.state import AuditRow, StateStore

logger = LazyLogger(__name__)

UNSTAMPED_WAIT_NS = 300 * NS_PER_S
"""How long a record without a true time waits for a measurement; then it gets the host's own time."""

PRUNE_EVERY_S = 3600.0

MAX_NAMED = 5
"""How many damaged audits a message names."""

DROPPED_LISTED_NS = 3600 * NS_PER_S
"""How long dropped records stay a finding."""

HOST_CONTEXT_EVERY_NS = 300 * NS_PER_S
"""How often local audits look for time daemons; at once if a known one has ended."""

TRUSTED_DIFFERENCE_NS = 86_400 * NS_PER_S
"""Age-based pruning stops while host and servers differ by more: one of them may be wrong by years."""


class PersistedState(NamedTuple):
    """The part of `ClockState` that records do not contain; stored with each record.

    The last agreement is stored as it is: a record does not show how it aged, or whether it was dropped (R4, R5).
    """

    boot_id: str | None
    reading: ClockReading
    started_ns: int
    steps: tuple[Step, ...]
    kernel_update: KernelUpdate | None
    measured_ns: int | None
    measured_utc_ns: int | None
    dropped_agreement: DroppedAgreement | None = None
    samples_since_ns: int = 0
    daemon: SeenDaemon | None = None
    poll: Poll | None = None
    poll_interval: PollInterval | None = None
    tai_s: int | None = None
    leapt: int = 0
    agreement: LastAgreement | None = None
    stronger_agreement: LastAgreement | None = None


class DropCounter(NamedTuple):
    """Undelivered records that were dropped: `reported` of `total` in older findings; `since_ns` is an uptime."""

    reported: int = 0
    total: int = 0
    since_ns: int = 0


class ClockChange(NamedTuple):
    """What happened to the clock since the last reading."""

    step: Step | None = None
    suspend: Suspend | None = None


class CycleResult(NamedTuple):
    """The result of an audit for the agent's loop."""

    record: Record
    is_pending: bool


class CycleConfig(NamedTuple):
    """The part of the configuration that audits need: judging, outputs, retention.

    `delivers`: records are put in the outbox. `local_s`: how often the agent makes a record.
    """

    settings: AuditSettings
    outputs: Mapping[str, Output]
    delivers: bool
    limits: HistoryConfig
    host_name: str | None = None
    local_s: float | None = None


class AuditCycle:
    """The agent's audits over one state."""

    def __init__(self, store: StateStore, runtime: Runtime, config: CycleConfig) -> None:
        self._store = store
        self._runtime = runtime
        self._failed_outputs: dict[str, str] = {}  # by name, with the error
        self._dropped = DropCounter()
        self._pending_events: list[Event] = []
        self._has_unstamped = True
        self._stored_debounce: DebounceState | None = None
        self._pruned_ns: int | None = None
        self._context_ns: int | None = None
        self.missed = 0
        self.is_single = False  # the process ends after one audit: only the file carries state to the next
        self.health: Callable[[int], Health] = lambda now_ns: Health()
        self.database_clock: Callable[[], DatabaseClock | None] = lambda: None
        self.last: Record | None = None
        self._config = config

    def begin(self, config: CycleConfig) -> None:
        """Restore the state of the last run: raised findings, samples, and observations that were not judged.

        A clock step since then is detected, unless the host was rebooted (J3).
        """
        self._config = config
        now = self._runtime.clock.read()
        self._refresh_host_context(now)
        self._state = self._restore(self._context.host.boot_id, now)
        self._past_ns = self._known_past_ns
        with suppress(TypeError, ValueError):
            self._dropped = revive(DropCounter, self._store.load("dropping"))
        for pending in self._store.pending_observations():
            self._recover(pending)
        self._state = with_poll_interval(self._state, now.boottime_ns, self.config.settings.interval_s)
        if damaged := self._store.damaged_audits():
            shown = ", ".join(map(str, damaged[:MAX_NAMED])) + (" ..." if len(damaged) > MAX_NAMED else "")
            logger.warning(f"the history has {plural(len(damaged), 'damaged audit')}, kept but not used: {shown}")
        self.detect_clock_change(is_gap=True)

    @property
    def config(self) -> CycleConfig:
        """The configuration in use; replaced as a whole."""
        return self._config

    def replace(self, config: CycleConfig) -> None:
        """Use another configuration from now on."""
        self._config = config
        self._state = with_poll_interval(self._state, self._runtime.now_ns(), config.settings.interval_s)

    @property
    def boot_id(self) -> str | None:
        """The id of this boot."""
        return self._context.host.boot_id

    @property
    def has_estimate(self) -> bool:
        """An offset is known and can be carried forward."""
        return self._state.agreement is not None

    def detect_clock_change(self, *, is_gap: bool = False) -> ClockChange:
        """Detect a step or a suspend; a step is stored and reported at once."""
        return self._record_clock_change(self._runtime.clock.read(), is_gap=is_gap)

    def local(self) -> CycleResult:
        """Run a local audit, with the offset carried forward.

        A crash loses nothing that the next local audit would not see, so one transaction stores everything.
        """
        taken = self._runtime.clock.read()
        self._record_clock_change(taken)
        self._refresh_host_context(taken)
        observation = Observation(self._context.host, taken, (), self._runtime.kernel(), self._context.daemons)
        return self._finish(observation, "local", None)

    def network(self, observation: Observation) -> CycleResult:
        """Store and evaluate the observation of a poll."""
        kept = self._store.keep_observation(observation, "network")
        self._context, self._context_ns = (
            HostContext(observation.host, observation.daemons),
            observation.taken.boottime_ns,
        )
        self._record_clock_change(observation.taken, kernel=observation.kernel)
        return self._finish(observation, "network", kept)

    def prune(self) -> None:
        """Delete what retention no longer keeps, once an hour."""
        now = self._runtime.clock.read()
        if self._pruned_ns is not None and now.boottime_ns - self._pruned_ns < PRUNE_EVERY_S * NS_PER_S:
            return
        self._pruned_ns = now.boottime_ns
        true_ns, limits = utc_ns(self._state, now), self.config.limits
        if true_ns is not None and abs(true_ns - now.realtime_ns) <= TRUSTED_DIFFERENCE_NS:
            self._store.prune_by_age(true_ns, limits.raw_s, limits.rollups_s, limits.findings_s)
        self._store.prune_by_size(limits.max_size)

    def _refresh_host_context(self, now: ClockReading) -> None:
        """Read the host's identity and daemons again if they are old or a daemon has ended."""
        if (
            self._context_ns is None
            or now.boottime_ns - self._context_ns >= HOST_CONTEXT_EVERY_NS
            or self._misses_daemon(self._context)
        ):
            self._context, self._context_ns = self._runtime.host_context(self.config.host_name), now.boottime_ns

    def _misses_daemon(self, facts: HostContext) -> bool:
        """Return whether the time daemon has ended: then each local audit checks whether one runs again (R12)."""
        known = facts.daemons.seen if isinstance(facts.daemons, HiddenDaemons) else facts.daemons
        if not any(daemon.disciplines for daemon in known):
            return self._state.daemon is not None
        return any(self._runtime.has_ended(daemon) for daemon in known)

    def _record_clock_change(
        self, now: ClockReading, *, is_gap: bool = False, kernel: KernelState | Unavailable | None = None
    ) -> ClockChange:
        """Record a step or a suspend since the last reading, before its consequences are judged.

        `kernel` is the kernel's state at that moment; if it is missing and may be needed, it is read here.
        """
        if now.boottime_ns < self._state.reading.boottime_ns:
            return ClockChange()  # an observation older than the last reading
        if kernel is None and is_leap_sized(find_step(self._state.reading, now)):
            kernel = self._runtime.kernel()
        leapt = self._state.leapt
        self._state, step, suspend = detect_clock_change(self._state, now, is_gap=is_gap, kernel=kernel)
        if self._state.leapt != leapt:
            logger.info("the host's clock applied the leap second at the end of this month; this is not a step")
        if suspend is not None:
            logger.info(
                f"the host was suspended for {format_duration(suspend.duration_ns / NS_PER_S)}; measuring again"
            )
        if step is not None:
            event = step_event(self._state, step, now)
            self._has_unstamped = self._has_unstamped or event.utc_ns is None
            entry = self._entry(render_events(self._identity, [event], self.last), event.utc_ns, now)
            self._store.keep_events([event], self._state.boot_id, entry, self._states())
            self._emit([event])
        return ClockChange(step, suspend)

    def _finish(
        self, observation: Observation, kind: Kind, audit_id: int | None, settings: AuditSettings | None = None
    ) -> CycleResult:
        """Judge an observation, store and send the result; `settings` if other settings applied at that time."""
        health, dropped = self._current_health(observation.taken), self._count_dropped(observation.taken)
        settings = self.config.settings if settings is None else settings
        result = evaluate(
            self._state,
            observation,
            kind,
            settings,
            health,
            dropped=dropped,
            database=self.database_clock(),
            can_confirm=not (self.is_single and self._store.stands_in),
        )
        self._state = result.state
        self._keep(audit_id, observation, result)
        self.last = result.record
        self._stamp(observation.taken)
        self._emit(result.events)
        return CycleResult(result.record, result.is_pending)

    def _count_dropped(self, now: ClockReading) -> int:
        """Return how many records were dropped recently: until an hour after the last one."""
        reported, total, since_ns = self._dropped
        if (count := self._store.dropped()) != total:
            self._dropped = DropCounter(reported, count, now.boottime_ns)
        elif reported != total and not 0 <= now.boottime_ns - since_ns <= DROPPED_LISTED_NS:
            self._dropped = DropCounter(total, total, since_ns)
        return self._dropped.total - self._dropped.reported

    def _keep(self, audit_id: int | None, observation: Observation, result: AuditResult) -> None:
        """Store the result of an audit."""
        self._has_unstamped = self._has_unstamped or result.record.utc_ns is None
        states = self._states()
        if result.record.kind == "network":
            states |= {"back_test": self._state.back_test, "alarms": plain(self._state.debounce)}
        entry = self._record_entry(result, observation.taken)
        concluded = AuditRow(observation, result.record, result.events, entry, result.distance_s, states)
        self._store.keep_record(audit_id, concluded)

    def _record_entry(self, result: AuditResult, now: ClockReading) -> OutboxEntry | None:
        """Return the outbox entry of an audit, None without a database."""
        stamp_ns = stamp_of(result.record)
        write = render_unstamped if stamp_ns is None else render
        return self._entry(write(result.record, result.events), stamp_ns, now) if self.config.delivers else None

    def _entry(self, lines: str, stamp_ns: int | None, now: ClockReading) -> OutboxEntry | None:
        """Return an outbox entry for lines; without a true time it has no stamp yet."""
        if not self.config.delivers:
            return None
        return OutboxEntry(0, lines, stamp_ns, self._state.boot_id, now.boottime_ns, now.realtime_ns)

    @property
    def _identity(self) -> HostIdentity:
        """The host's identity, as in records."""
        labels, host = self.config.settings.labels, self._context.host
        return HostIdentity(host.name, labels.site, labels.env, host.machine_id, host.boot_id)

    @property
    def _known_past_ns(self) -> int:
        """The later of the last measured time and this release's time: both are certainly past."""
        return max(self._state.measured_utc_ns or 0, PIVOT_UNIX_S * NS_PER_S)

    def _is_this_boot(self, boot_id: str | None) -> bool:
        """Return whether a boot is this one, so that uptimes compare; an unknown boot never is."""
        return boot_id is not None and boot_id == self._state.boot_id

    def _stamp(self, now: ClockReading) -> None:
        """Stamp stored audits and outbox entries with their true time, once it is known."""
        true_ns = utc_ns(self._state, now)
        if self._has_unstamped and true_ns is not None:
            self._has_unstamped = False
            boot_ns = true_ns - now.boottime_ns
            self._store.stamp_audits(self._state.boot_id, boot_ns)
        self._stamp_entries(now, true_ns)

    def _stamp_entries(self, now: ClockReading, true_ns: int | None) -> None:
        """Stamp outbox entries with the true time, or after `UNSTAMPED_WAIT_NS` with the host's own.

        A host time before a time that is certainly past is wrong: then the entry waits for a measurement.
        """
        stamped, refused = [], []
        for entry in self._store.unstamped():
            is_ours = self._is_this_boot(entry.boot_id)
            known_ns = self._known_past_ns if is_ours else self._past_ns  # as known when another boot wrote it
            ago_ns = now.boottime_ns - entry.boottime_ns
            stamp_ns: int | None = None
            if is_ours and true_ns is not None:
                stamp_ns = true_ns - ago_ns
            elif entry.host_ns > known_ns and not (is_ours and ago_ns < UNSTAMPED_WAIT_NS):
                stamp_ns = entry.host_ns
            if stamp_ns is not None:
                stamped.append(entry._replace(lines=stamp_lines(entry.lines, stamp_ns), stamp_ns=stamp_ns))
            elif not is_ours:
                refused.append(entry)
        if stamped or refused:
            self._store.stamp_entries(stamped, refused, "the host's clock was wrong and the true time is not known")

    def _emit(self, events: Sequence[Event]) -> None:
        """Send the last record and events to every output; log when an output fails and when it works again.

        Events before the first record are sent with it.
        """
        self._pending_events = [*self._pending_events, *events]
        if self.last is None:
            return
        events, self._pending_events = self._pending_events, []
        for name, output in self.config.outputs.items():
            try:
                output.emit(self.last, events)
            except OutputError as error:
                if self._failed_outputs.get(name) != str(error):
                    logger.warning(f"{name}: {error}")
                self._failed_outputs[name] = str(error)
            else:
                if self._failed_outputs.pop(name, None):
                    logger.info(f"{name}: works again")

    def _current_health(self, now: ClockReading) -> Health:
        """Return the agent's own health for the record."""
        true_ns = utc_ns(self._state, now)
        health = self.health(now.realtime_ns if true_ns is None else true_ns)
        return health._replace(missed=self.missed, store=self._store.error, local_s=self.config.local_s)

    def _states(self) -> dict[str, Any]:
        """Return the state that the next start needs, by key."""
        state = self._state
        kept = PersistedState(
            state.boot_id,
            state.reading,
            state.started_ns,
            state.steps,
            state.kernel_update,
            state.measured_ns,
            state.measured_utc_ns,
            state.dropped_agreement,
            state.samples_since_ns,
            state.daemon,
            state.poll,
            state.poll_interval,
            state.tai_s,
            state.leapt,
            state.agreement,
            state.stronger_agreement,
        )
        states = {"mind": plain(kept)}
        if self._dropped != DropCounter():
            states["dropping"] = plain(self._dropped)
        if state.debounce != self._stored_debounce:  # rarely changed, and the larger part
            states["alarms"] = plain(state.debounce)
            self._stored_debounce = state.debounce
        return states

    def _restore(self, boot_id: str | None, now: ClockReading) -> ClockState:
        """Return the state of the last run, as far as it is valid in this boot."""
        state = ClockState(boot_id, now, now.boottime_ns)
        with suppress(ValueError):
            state = state._replace(back_test=parse_back_test(self._store.load("back_test")))
        try:
            kept = revive(PersistedState, self._store.load("mind"))
        except (TypeError, ValueError):
            return state
        state = state._replace(measured_utc_ns=kept.measured_utc_ns)
        with suppress(TypeError, ValueError):
            state = state._replace(debounce=revive(DebounceState, self._store.load("alarms")))
        if boot_id is None or kept.boot_id != boot_id or kept.reading.boottime_ns > now.boottime_ns:
            polls = kept.poll_interval and PollInterval(
                kept.poll_interval.interval_s, now.boottime_ns, before_boot_s=kept.poll_interval.interval_s
            )
            return reset_holdover(state._replace(debounce=of_new_boot(state.debounce), poll_interval=polls))
        audits_before = [
            audit
            for audit in self._store.prior_audits(boot_id, KEPT_SAMPLES)
            if abs(suspended_ns(audit.reading, now)) <= MAX_STEP_NS
        ]
        samples = tuple(
            make_sample(audit.reading, round(audit.record.offset.estimate_s * NS_PER_S), audit.distance_s)
            for audit in audits_before
            if audit.record.offset is not None and audit.reading.boottime_ns >= kept.samples_since_ns
        )
        return state._replace(
            reading=kept.reading,
            started_ns=kept.started_ns,
            steps=kept.steps,
            kernel_update=kept.kernel_update,
            measured_ns=kept.measured_ns,
            samples=samples,
            line=fit(samples),
            agreement=kept.agreement,
            stronger_agreement=kept.stronger_agreement,
            dropped_agreement=kept.dropped_agreement,
            samples_since_ns=kept.samples_since_ns,
            daemon=kept.daemon,
            poll=kept.poll,
            poll_interval=kept.poll_interval,
            tai_s=kept.tai_s,
            leapt=kept.leapt,
            drift=audits_before[-1].record.drift if audits_before else None,
        )

    def _recover(self, pending: PendingObservation) -> None:
        """Process an observation left by a crash; skip it if it crashes the agent again."""
        if self._store.load("taking_up") == pending.id:
            logger.warning(
                f"audit {pending.id} crashed the agent twice and is skipped; its observation stays in the history"
            )
            self._store.give_up(pending.id)
            return
        self._store.save("taking_up", pending.id)
        self._judge_pending(pending)
        self._store.save("taking_up", None)

    @property
    def _settings_then(self) -> AuditSettings:
        """The settings for observations of the last run: its poll interval applied."""
        polls, settings = self._state.poll_interval, self.config.settings
        return settings if polls is None else settings._replace(interval_s=polls.interval_s)

    def _judge_pending(self, pending: PendingObservation) -> None:
        """Judge an observation of this boot in sequence, one of another boot by itself."""
        observation = pending.observation
        if self._is_this_boot(observation.host.boot_id):
            self._record_clock_change(observation.taken, kernel=observation.kernel)
            self._finish(observation, pending.kind, pending.id, self._settings_then)
            return
        other_boot = ClockState(observation.host.boot_id, observation.taken, observation.taken.boottime_ns)
        result = evaluate(other_boot, observation, pending.kind, self._settings_then, Health())
        entry = self._record_entry(result, observation.taken)
        entry = None if entry is None else entry._replace(boot_id=observation.host.boot_id)
        self._store.keep_record(pending.id, AuditRow(observation, result.record, (), entry, result.distance_s))
