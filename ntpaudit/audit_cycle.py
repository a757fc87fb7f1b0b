"""One round of the agent after another: observe, keep, conclude, keep, tell; and what it takes up after a restart."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

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
from ntpaudit.core.checks.debounce import DebounceState, of_new_boot
from ntpaudit.core.checks.host import DroppedAgreement
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
from ntpaudit.store import history
from ntpaudit.store.history import OutboxEntry
from ntpaudit.store.serialization import plain, revive
from ntpaudit.store.state import AuditRow, StateStore

if TYPE_CHECKING:
    import sqlite3

logger = LazyLogger(__name__)

UNSTAMPED_WAIT_NS = 300 * NS_PER_S
"""A record whose true time is not known waits so long for a measurement that tells it; then the host's own counts."""

PRUNE_EVERY_S = 3600.0

MAX_NAMED = 5
"""The most damaged audits that a message names."""

DROPPED_LISTED_NS = 3600 * NS_PER_S
"""So long after records were given up that stays a finding."""

HOST_CONTEXT_EVERY_NS = 300 * NS_PER_S
"""Which time daemons run is looked up so often where no network audit does it, and at once where one has ended."""

TRUSTED_DIFFERENCE_NS = 86_400 * NS_PER_S
"""Nothing is removed for its age while host and servers are further apart than this: one of them is wrong by years."""


class PersistedState(NamedTuple):
    """The part of the mind that the history's records do not hold, as it is stored with each.

    The fix is stored as it is: a record does not say what became of it since, nor whether it was dropped (R4, R5).
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
    """How many undelivered records had ever been given up when that was last in order, and by now, since an uptime."""

    reported: int = 0
    total: int = 0
    since_ns: int = 0


class ClockChange(NamedTuple):
    """What was done to the clock since the last look."""

    step: Step | None = None
    suspend: Suspend | None = None


class CycleResult(NamedTuple):
    """What a round changed for whoever runs it."""

    record: Record
    is_pending: bool


class CycleConfig(NamedTuple):
    """What a configuration makes of the rounds: by what they are judged, whom they are told, and what is kept.

    `delivers` says that records are put in the outbox, `local_s` how often the agent makes a record.
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
        self._failed_outputs: dict[str, str] = {}  # outlets that failed, and how
        self._dropped = DropCounter()
        self._pending_events: list[Event] = []
        self._has_unstamped = True
        self._stored_debounce: DebounceState | None = None
        self._pruned_ns: int | None = None
        self._facts_ns: int | None = None
        self.missed = 0
        self.is_single = False  # the process ends after one round, so another can know of it by the file alone
        self.health: Callable[[int], Health] = lambda now_ns: Health()
        self.database_clock: Callable[[], DatabaseClock | None] = lambda: None
        self.last: Record | None = None
        self._config = config

    def begin(self, config: CycleConfig) -> None:
        """Take up what the last run left: its alarms, its samples, and what it saw and did not come to judge.

        A clock that was set since then is noticed, if the host was not booted meanwhile (J3).
        """
        self._config = config
        now = self._runtime.clock.read()
        self._refresh_host_context(now)
        self._state = self._restore(self._facts.host.boot_id, now)
        self._past_ns = self._known_past_ns
        with suppress(TypeError, ValueError):
            self._dropped = revive(DropCounter, self._store.load("dropping"))
        for pending in self._store.read(history.pending_observations):
            self._recover(pending)
        self._state = with_poll_interval(self._state, now.boottime_ns, self.config.settings.interval_s)
        if damaged := self._store.read(history.damaged):
            shown = ", ".join(map(str, damaged[:MAX_NAMED])) + (" ..." if len(damaged) > MAX_NAMED else "")
            logger.warning(f"the history has {plural(len(damaged), 'damaged audit')}, set aside and not used: {shown}")
        self.detect_clock_change(is_gap=True)

    @property
    def config(self) -> CycleConfig:
        """What the configuration makes of the rounds; replaced as a whole when that is."""
        return self._config

    def replace(self, config: CycleConfig) -> None:
        """Go on by another configuration, from this moment on."""
        self._config = config
        self._state = with_poll_interval(self._state, self._runtime.now_ns(), config.settings.interval_s)

    @property
    def boot_id(self) -> str | None:
        """The id of this boot."""
        return self._facts.host.boot_id

    @property
    def has_estimate(self) -> bool:
        """An offset can be carried on."""
        return self._state.agreement is not None

    def detect_clock_change(self, *, is_gap: bool = False) -> ClockChange:
        """Look whether the clock was set or the host slept; a step is kept and told at once."""
        return self._record_clock_change(self._runtime.clock.read(), is_gap=is_gap)

    def local(self) -> CycleResult:
        """Look at this host alone, and carry the offset on.

        Nobody was asked, so nothing is lost that the next look would not see too: one transaction keeps it all.
        """
        taken = self._runtime.clock.read()
        self._record_clock_change(taken)
        self._refresh_host_context(taken)
        observation = Observation(self._facts.host, taken, (), self._runtime.kernel(), self._facts.daemons)
        return self._finish(observation, "local", None)

    def network(self, observation: Observation) -> CycleResult:
        """Take in what servers said."""
        kept = self._store.keep_observation(observation, "network")
        self._facts, self._facts_ns = HostContext(observation.host, observation.daemons), observation.taken.boottime_ns
        self._record_clock_change(observation.taken, kernel=observation.kernel)
        return self._finish(observation, "network", kept)

    def prune(self) -> None:
        """Remove what need not be kept any longer, once an hour."""
        now = self._runtime.clock.read()
        if self._pruned_ns is not None and now.boottime_ns - self._pruned_ns < PRUNE_EVERY_S * NS_PER_S:
            return
        self._pruned_ns = now.boottime_ns
        true_ns, limits = utc_ns(self._state, now), self.config.limits
        if true_ns is not None and abs(true_ns - now.realtime_ns) <= TRUSTED_DIFFERENCE_NS:
            self._store.read(
                lambda connection: history.prune_by_age(
                    connection, true_ns, limits.raw_s, limits.rollups_s, limits.findings_s
                )
            )
        self._store.read(lambda connection: history.prune_by_size(connection, limits.max_bytes))

    def _refresh_host_context(self, now: ClockReading) -> None:
        """See again who this host is and what steers its clock, where that was seen some time ago."""
        if (
            self._facts_ns is None
            or now.boottime_ns - self._facts_ns >= HOST_CONTEXT_EVERY_NS
            or self._misses_daemon(self._facts)
        ):
            self._facts, self._facts_ns = self._runtime.host_context(self.config.host_name), now.boottime_ns

    def _misses_daemon(self, facts: HostContext) -> bool:
        """Whether the time daemon has ended: then each look at the host asks whether one runs again (R12)."""
        known = facts.daemons.seen if isinstance(facts.daemons, HiddenDaemons) else facts.daemons
        if not any(daemon.disciplines for daemon in known):
            return self._state.daemon is not None
        return any(self._runtime.has_ended(daemon) for daemon in known)

    def _record_clock_change(
        self, now: ClockReading, *, is_gap: bool = False, kernel: KernelState | Unavailable | None = None
    ) -> ClockChange:
        """Tell of a step or a suspend since the last reading, before its consequences are judged.

        `kernel` is what was seen of it at that moment; where it is not given and may be needed, it is read here.
        """
        if now.boottime_ns < self._state.reading.boottime_ns:
            return ClockChange()  # an observation that was made before the last look
        if kernel is None and is_leap_sized(find_step(self._state.reading, now)):
            kernel = self._runtime.kernel()
        leapt = self._state.leapt
        self._state, step, suspend = detect_clock_change(self._state, now, is_gap=is_gap, kernel=kernel)
        if self._state.leapt != leapt:
            logger.info("the host's clock made the leap second at the end of this month; that is no step")
        if suspend is not None:
            logger.info(f"the host was suspended for {format_duration(suspend.duration_ns / NS_PER_S)}; measuring anew")
        if step is not None:
            event = step_event(self._state, step, now)
            self._has_unstamped = self._has_unstamped or event.utc_ns is None
            entry = self._entry(render_events(self._identity, [event], self.last), event.utc_ns, now)
            self._store.keep_events([event], self._state.boot_id, entry, self._states())
            self._emit([event])
        return ClockChange(step, suspend)

    def _finish(
        self, observation: Observation, kind: Kind, audit_id: int | None, terms: AuditSettings | None = None
    ) -> CycleResult:
        """Judge what was seen, keep what follows, and tell it; `terms` are those of its moment, if others hold now."""
        health, dropped = self._current_health(observation.taken), self._count_dropped(observation.taken)
        terms = self.config.settings if terms is None else terms
        result = evaluate(
            self._state,
            observation,
            kind,
            terms,
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
        """Return how many records were given up of late; an hour after the last they are told no more."""
        told, total, since_ns = self._dropped
        if (count := self._store.dropped()) != total:
            self._dropped = DropCounter(told, count, now.boottime_ns)
        elif told != total and not 0 <= now.boottime_ns - since_ns <= DROPPED_LISTED_NS:
            self._dropped = DropCounter(total, total, since_ns)
        return self._dropped.total - self._dropped.reported

    def _keep(self, audit_id: int | None, observation: Observation, result: AuditResult) -> None:
        """Keep a round."""
        self._has_unstamped = self._has_unstamped or result.record.utc_ns is None
        states = self._states()
        if result.record.kind == "network":
            states |= {"back_test": self._state.back_test, "alarms": plain(self._state.debounce)}
        entry = self._record_entry(result, observation.taken)
        concluded = AuditRow(observation, result.record, result.events, entry, result.distance_s, states)
        self._store.keep_record(audit_id, concluded)

    def _record_entry(self, result: AuditResult, now: ClockReading) -> OutboxEntry | None:
        """Return what is to be delivered of a round."""
        stamp_ns = stamp_of(result.record)
        write = render_unstamped if stamp_ns is None else render
        return self._entry(write(result.record, result.events), stamp_ns, now) if self.config.delivers else None

    def _entry(self, lines: str, stamp_ns: int | None, now: ClockReading) -> OutboxEntry | None:
        """Return lines to be delivered; those of a moment whose true time is not known have no stamp yet."""
        if not self.config.delivers:
            return None
        return OutboxEntry(0, lines, stamp_ns, self._state.boot_id, now.boottime_ns, now.realtime_ns)

    @property
    def _identity(self) -> HostIdentity:
        """Who this host is, as records have it."""
        labels, host = self.config.settings.labels, self._facts.host
        return HostIdentity(host.name, labels.site, labels.env, host.machine_id, host.boot_id)

    @property
    def _known_past_ns(self) -> int:
        """A time that is known to be past: the last that was measured, and that of this release."""
        return max(self._state.measured_utc_ns or 0, PIVOT_UNIX_S * NS_PER_S)

    def _is_this_boot(self, boot_id: str | None) -> bool:
        """Whether uptimes of that boot are those of this one; where nobody knows the boot they are not."""
        return boot_id is not None and boot_id == self._state.boot_id

    def _stamp(self, now: ClockReading) -> None:
        """Give what was kept without a date the true time of its moment, once that is known."""
        true_ns = utc_ns(self._state, now)
        if self._has_unstamped and true_ns is not None:
            self._has_unstamped = False
            boot_ns = true_ns - now.boottime_ns
            self._store.read(lambda connection: history.stamp_audits(connection, self._state.boot_id, boot_ns))
        if self._store.unstamped():
            self._store.read(lambda connection: self._stamp_entries(connection, now, true_ns))

    def _stamp_entries(self, connection: "sqlite3.Connection", now: ClockReading, true_ns: int | None) -> None:
        """Date letters: by the true time, once it is known, or at last by the host's own.

        That must not lie before a time that is known to be past: such a host waits until it is measured.
        """
        for entry in history.unstamped(connection):
            is_ours = self._is_this_boot(entry.boot_id)
            known_ns = self._known_past_ns if is_ours else self._past_ns  # as it was when another boot wrote it
            ago_ns = now.boottime_ns - entry.boottime_ns
            stamp_ns: int | None = None
            if is_ours and true_ns is not None:
                stamp_ns = true_ns - ago_ns
            elif entry.host_ns > known_ns and not (is_ours and ago_ns < UNSTAMPED_WAIT_NS):
                stamp_ns = entry.host_ns
            if stamp_ns is not None:
                lines = stamp_lines(entry.lines, stamp_ns)
                history.stamp_entry(connection, entry._replace(lines=lines, stamp_ns=stamp_ns))
            elif not is_ours:
                reason = "the host's clock was wrong, and the true time is not known"
                history.dead_letter(connection, entry, reason)

    def _emit(self, events: Sequence[Event]) -> None:
        """Tell every outlet; one that fails is noted when that begins and when it ends.

        What happens before the first record is told with it.
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
        """Say how the agent fares."""
        true_ns = utc_ns(self._state, now)
        health = self.health(now.realtime_ns if true_ns is None else true_ns)
        return health._replace(missed=self.missed, store=self._store.error, local_s=self.config.local_s)

    def _states(self) -> dict[str, Any]:
        """Return what the next start needs."""
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
        if state.debounce != self._stored_debounce:  # which is seldom, and they are the larger part
            states["alarms"] = plain(state.debounce)
            self._stored_debounce = state.debounce
        return states

    def _restore(self, boot_id: str | None, now: ClockReading) -> ClockState:
        """Return the mind of the last run, as far as it holds in this boot."""
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
        seen = [
            audit
            for audit in self._store.read(lambda connection: history.prior_audits(connection, boot_id, KEPT_SAMPLES))
            if abs(suspended_ns(audit.reading, now)) <= MAX_STEP_NS
        ]
        samples = tuple(
            make_sample(audit.reading, round(audit.record.offset.estimate_s * NS_PER_S), audit.distance_s)
            for audit in seen
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
            drift=seen[-1].record.drift if seen else None,
        )

    def _recover(self, pending: history.PendingObservation) -> None:
        """Judge what an earlier run saw and had no time to judge, once: what trips us over again is left alone."""
        if self._store.load("taking_up") == pending.id:
            logger.warning(f"audit {pending.id} could not be judged, twice; what it saw stays in the history")
            self._store.read(lambda connection: history.give_up(connection, pending.id))
            return
        self._store.save("taking_up", pending.id)
        self._judge_pending(pending)
        self._store.save("taking_up", None)

    @property
    def _settings_then(self) -> AuditSettings:
        """What the last run's observations are judged by: its poll interval was in force."""
        polls, terms = self._state.poll_interval, self.config.settings
        return terms if polls is None else terms._replace(interval_s=polls.interval_s)

    def _judge_pending(self, pending: history.PendingObservation) -> None:
        """Judge an observation of this boot in its turn, one of another by itself."""
        observation = pending.observation
        if self._is_this_boot(observation.host.boot_id):
            self._record_clock_change(observation.taken, kernel=observation.kernel)
            self._finish(observation, pending.kind, pending.id, self._settings_then)
            return
        stranger = ClockState(observation.host.boot_id, observation.taken, observation.taken.boottime_ns)
        result = evaluate(stranger, observation, pending.kind, self._settings_then, Health())
        entry = self._record_entry(result, observation.taken)
        entry = None if entry is None else entry._replace(boot_id=observation.host.boot_id)
        self._store.keep_record(pending.id, AuditRow(observation, result.record, (), entry, result.distance_s))
