"""One round of the agent after another: observe, keep, conclude, keep, tell; and what it takes up after a restart."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ntpaudit.config.schema import HistoryConfig
from ntpaudit.core.agent import (
    KEPT_SAMPLES,
    Fix,
    Mind,
    Poll,
    Round,
    SeenDaemon,
    Terms,
    Update,
    conclude_round,
    forget_raw,
    in_force,
    look,
    make_sample,
    step_event,
    utc_ns,
)
from ntpaudit.core.checks.debounce import Alarms, of_new_boot
from ntpaudit.core.checks.host import Contradiction
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
from ntpaudit.core.units import NS_PER_S, plural, span
from ntpaudit.errors import TellError
from ntpaudit.formats.line_protocol import date, render, render_events, render_undated, stamp_of
from ntpaudit.outputs import Teller
from ntpaudit.runtime import Facts, Surroundings
from ntpaudit.store import history
from ntpaudit.store.history import Letter
from ntpaudit.store.serialization import plain, revive
from ntpaudit.store.state import Concluded, Ledger

if TYPE_CHECKING:
    import sqlite3

UNDATED_WAIT_NS = 300 * NS_PER_S
"""A record whose true time is not known waits so long for a measurement that tells it; then the host's own counts."""

TRIM_EVERY_S = 3600.0

MAX_NAMED = 5
"""The most damaged audits that a message names."""

DROPPED_LISTED_NS = 3600 * NS_PER_S
"""So long after records were given up that stays a finding."""

FACTS_EVERY_NS = 300 * NS_PER_S
"""Which time daemons run is looked up so often where no network audit does it, and at once where one has ended."""

TRUSTED_DIFFERENCE_NS = 86_400 * NS_PER_S
"""Nothing is removed for its age while host and servers are further apart than this: one of them is wrong by years."""


class Kept(NamedTuple):
    """The part of the mind that the history's records do not hold, as it is stored with each.

    The fix is stored as it is: a record does not say what became of it since, nor whether it was dropped (R4, R5).
    """

    boot_id: str | None
    reading: ClockReading
    started_ns: int
    steps: tuple[Step, ...]
    update: Update | None
    measured_ns: int | None
    measured_utc_ns: int | None
    contradiction: Contradiction | None = None
    samples_since_ns: int = 0
    daemon: SeenDaemon | None = None
    poll: Poll | None = None
    poll_interval: PollInterval | None = None
    tai_s: int | None = None
    leapt: int = 0
    fix: Fix | None = None
    firm: Fix | None = None


class Dropped(NamedTuple):
    """How many undelivered records had ever been given up when that was last in order, and by now, since an uptime."""

    told: int = 0
    total: int = 0
    since_ns: int = 0


class Noticed(NamedTuple):
    """What was done to the clock since the last look."""

    step: Step | None = None
    suspend: Suspend | None = None


class Told(NamedTuple):
    """What a round changed for whoever runs it."""

    record: Record
    is_pending: bool


class Ways(NamedTuple):
    """What a configuration makes of the rounds: by what they are judged, whom they are told, and what is kept.

    `delivers` says that records are put in the outbox, `local_s` how often the agent makes a record.
    """

    terms: Terms
    tellers: Mapping[str, Teller]
    delivers: bool
    limits: HistoryConfig
    host_name: str | None = None
    local_s: float | None = None


class Rounds:
    """The agent's rounds over one state; `note` is told what an operator should know or mend."""

    def __init__(self, ledger: Ledger, around: Surroundings, ways: Ways, note: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._around = around
        self._note = note
        self._silent: dict[str, str] = {}  # outlets that failed, and how
        self._dropped = Dropped()
        self._untold: list[Event] = []
        self._has_undated = True
        self._kept_alarms: Alarms | None = None
        self._trimmed_ns: int | None = None
        self._facts_ns: int | None = None
        self.missed = 0
        self.is_single = False  # the process ends after one round, so another can know of it by the file alone
        self.health: Callable[[int], Health] = lambda now_ns: Health()
        self.database_clock: Callable[[], DatabaseClock | None] = lambda: None
        self.last: Record | None = None
        self._ways = ways

    def begin(self, ways: Ways) -> None:
        """Take up what the last run left: its alarms, its samples, and what it saw and did not come to judge.

        A clock that was set since then is noticed, if the host was not booted meanwhile (J3).
        """
        self._ways = ways
        now = self._around.clock.read()
        self._look_around(now)
        self._mind = self._restore(self._facts.host.boot_id, now)
        self._past_ns = self._known_past_ns
        with suppress(TypeError, ValueError):
            self._dropped = revive(Dropped, self._ledger.load("dropping"))
        for orphan in self._ledger.read(history.unjudged):
            self._take_up(orphan)
        self._mind = in_force(self._mind, now.boottime_ns, self.ways.terms.interval_s)
        if damaged := self._ledger.read(history.damaged):
            shown = ", ".join(map(str, damaged[:MAX_NAMED])) + (" ..." if len(damaged) > MAX_NAMED else "")
            self._note(f"the history has {plural(len(damaged), 'damaged audit')}, set aside and not used: {shown}")
        self.look(is_gap=True)

    @property
    def ways(self) -> Ways:
        """What the configuration makes of the rounds; replaced as a whole when that is."""
        return self._ways

    def replace(self, ways: Ways) -> None:
        """Go on by another configuration, from this moment on."""
        self._ways = ways
        self._mind = in_force(self._mind, self._around.now_ns(), ways.terms.interval_s)

    @property
    def boot_id(self) -> str | None:
        """The id of this boot."""
        return self._facts.host.boot_id

    @property
    def knows(self) -> bool:
        """An offset can be carried on."""
        return self._mind.fix is not None

    def look(self, *, is_gap: bool = False) -> Noticed:
        """Look whether the clock was set or the host slept; a step is kept and told at once."""
        return self._notice(self._around.clock.read(), is_gap=is_gap)

    def local(self) -> Told:
        """Look at this host alone, and carry the offset on.

        Nobody was asked, so nothing is lost that the next look would not see too: one transaction keeps it all.
        """
        taken = self._around.clock.read()
        self._notice(taken)
        self._look_around(taken)
        observation = Observation(self._facts.host, taken, (), self._around.kernel(), self._facts.daemons)
        return self._finish(observation, "local", None)

    def network(self, observation: Observation) -> Told:
        """Take in what servers said."""
        kept = self._ledger.keep_observation(observation, "network")
        self._facts, self._facts_ns = Facts(observation.host, observation.daemons), observation.taken.boottime_ns
        self._notice(observation.taken, kernel=observation.kernel)
        return self._finish(observation, "network", kept)

    def tidy(self) -> None:
        """Remove what need not be kept any longer, once an hour."""
        now = self._around.clock.read()
        if self._trimmed_ns is not None and now.boottime_ns - self._trimmed_ns < TRIM_EVERY_S * NS_PER_S:
            return
        self._trimmed_ns = now.boottime_ns
        true_ns, limits = utc_ns(self._mind, now), self.ways.limits
        if true_ns is not None and abs(true_ns - now.realtime_ns) <= TRUSTED_DIFFERENCE_NS:
            self._ledger.read(
                lambda connection: history.trim_by_age(
                    connection, true_ns, limits.raw_s, limits.rollups_s, limits.findings_s
                )
            )
        self._ledger.read(lambda connection: history.trim_by_size(connection, limits.max_bytes))

    def _look_around(self, now: ClockReading) -> None:
        """See again who this host is and what steers its clock, where that was seen some time ago."""
        if (
            self._facts_ns is None
            or now.boottime_ns - self._facts_ns >= FACTS_EVERY_NS
            or self._misses_daemon(self._facts)
        ):
            self._facts, self._facts_ns = self._around.facts(self.ways.host_name), now.boottime_ns

    def _misses_daemon(self, facts: Facts) -> bool:
        """Whether the time daemon has ended: then each look at the host asks whether one runs again (R12)."""
        known = facts.daemons.seen if isinstance(facts.daemons, HiddenDaemons) else facts.daemons
        if not any(daemon.disciplines for daemon in known):
            return self._mind.daemon is not None
        return any(self._around.has_ended(daemon) for daemon in known)

    def _notice(
        self, now: ClockReading, *, is_gap: bool = False, kernel: KernelState | Unavailable | None = None
    ) -> Noticed:
        """Tell of a step or a suspend since the last reading, before its consequences are judged.

        `kernel` is what was seen of it at that moment; where it is not given and may be needed, it is read here.
        """
        if now.boottime_ns < self._mind.reading.boottime_ns:
            return Noticed()  # an observation that was made before the last look
        if kernel is None and is_leap_sized(find_step(self._mind.reading, now)):
            kernel = self._around.kernel()
        leapt = self._mind.leapt
        self._mind, step, suspend = look(self._mind, now, is_gap=is_gap, kernel=kernel)
        if self._mind.leapt != leapt:
            self._note("the host's clock made the leap second at the end of this month; that is no step")
        if suspend is not None:
            self._note(f"the host was suspended for {span(suspend.duration_ns / NS_PER_S)}; measuring anew")
        if step is not None:
            event = step_event(self._mind, step, now)
            self._has_undated = self._has_undated or event.utc_ns is None
            letter = self._letter(render_events(self._identity, [event], self.last), event.utc_ns, now)
            self._ledger.keep_events([event], self._mind.boot_id, letter, self._states())
            self._tell([event])
        return Noticed(step, suspend)

    def _finish(self, observation: Observation, kind: Kind, audit_id: int | None, terms: Terms | None = None) -> Told:
        """Judge what was seen, keep what follows, and tell it; `terms` are those of its moment, if others hold now."""
        health, dropped = self._current_health(observation.taken), self._count_dropped(observation.taken)
        terms = self.ways.terms if terms is None else terms
        result = conclude_round(
            self._mind,
            observation,
            kind,
            terms,
            health,
            dropped=dropped,
            database=self.database_clock(),
            can_confirm=not (self.is_single and self._ledger.stands_in),
        )
        self._mind = result.mind
        self._keep(audit_id, observation, result)
        self.last = result.record
        self._date(observation.taken)
        self._tell(result.events)
        return Told(result.record, result.is_pending)

    def _count_dropped(self, now: ClockReading) -> int:
        """Return how many records were given up of late; an hour after the last they are told no more."""
        told, total, since_ns = self._dropped
        if (count := self._ledger.dropped()) != total:
            self._dropped = Dropped(told, count, now.boottime_ns)
        elif told != total and not 0 <= now.boottime_ns - since_ns <= DROPPED_LISTED_NS:
            self._dropped = Dropped(total, total, since_ns)
        return self._dropped.total - self._dropped.told

    def _keep(self, audit_id: int | None, observation: Observation, result: Round) -> None:
        """Keep a round."""
        self._has_undated = self._has_undated or result.record.utc_ns is None
        states = self._states()
        if result.record.kind == "network":
            states |= {"back_test": self._mind.back_test, "alarms": plain(self._mind.alarms)}
        letter = self._record_letter(result, observation.taken)
        concluded = Concluded(observation, result.record, result.events, letter, result.distance_s, states)
        self._ledger.keep_record(audit_id, concluded)

    def _record_letter(self, result: Round, now: ClockReading) -> Letter | None:
        """Return what is to be delivered of a round."""
        stamp_ns = stamp_of(result.record)
        write = render_undated if stamp_ns is None else render
        return self._letter(write(result.record, result.events), stamp_ns, now) if self.ways.delivers else None

    def _letter(self, lines: str, stamp_ns: int | None, now: ClockReading) -> Letter | None:
        """Return lines to be delivered; those of a moment whose true time is not known have no stamp yet."""
        if not self.ways.delivers:
            return None
        return Letter(0, lines, stamp_ns, self._mind.boot_id, now.boottime_ns, now.realtime_ns)

    @property
    def _identity(self) -> HostIdentity:
        """Who this host is, as records have it."""
        labels, host = self.ways.terms.labels, self._facts.host
        return HostIdentity(host.name, labels.site, labels.env, host.machine_id, host.boot_id)

    @property
    def _known_past_ns(self) -> int:
        """A time that is known to be past: the last that was measured, and that of this release."""
        return max(self._mind.measured_utc_ns or 0, PIVOT_UNIX_S * NS_PER_S)

    def _is_this_boot(self, boot_id: str | None) -> bool:
        """Whether uptimes of that boot are those of this one; where nobody knows the boot they are not."""
        return boot_id is not None and boot_id == self._mind.boot_id

    def _date(self, now: ClockReading) -> None:
        """Give what was kept without a date the true time of its moment, once that is known."""
        true_ns = utc_ns(self._mind, now)
        if self._has_undated and true_ns is not None:
            self._has_undated = False
            boot_ns = true_ns - now.boottime_ns
            self._ledger.read(lambda connection: history.date_moments(connection, self._mind.boot_id, boot_ns))
        if self._ledger.undated():
            self._ledger.read(lambda connection: self._date_letters(connection, now, true_ns))

    def _date_letters(self, connection: "sqlite3.Connection", now: ClockReading, true_ns: int | None) -> None:
        """Date letters: by the true time, once it is known, or at last by the host's own.

        That must not lie before a time that is known to be past: such a host waits until it is measured.
        """
        for letter in history.undated(connection):
            is_ours = self._is_this_boot(letter.boot_id)
            known_ns = self._known_past_ns if is_ours else self._past_ns  # as it was when another boot wrote it
            ago_ns = now.boottime_ns - letter.boottime_ns
            stamp_ns: int | None = None
            if is_ours and true_ns is not None:
                stamp_ns = true_ns - ago_ns
            elif letter.host_ns > known_ns and not (is_ours and ago_ns < UNDATED_WAIT_NS):
                stamp_ns = letter.host_ns
            if stamp_ns is not None:
                lines = date(letter.lines, stamp_ns)
                history.date_letter(connection, letter._replace(lines=lines, stamp_ns=stamp_ns))
            elif not is_ours:
                reason = "the host's clock was wrong, and the true time is not known"
                history.set_aside(connection, letter, reason)

    def _tell(self, events: Sequence[Event]) -> None:
        """Tell every outlet; one that fails is noted when that begins and when it ends.

        What happens before the first record is told with it.
        """
        self._untold = [*self._untold, *events]
        if self.last is None:
            return
        events, self._untold = self._untold, []
        for name, teller in self.ways.tellers.items():
            try:
                teller.tell(self.last, events)
            except TellError as error:
                if self._silent.get(name) != str(error):
                    self._note(f"{name}: {error}")
                self._silent[name] = str(error)
            else:
                if self._silent.pop(name, None):
                    self._note(f"{name}: works again")

    def _current_health(self, now: ClockReading) -> Health:
        """Say how the agent fares."""
        true_ns = utc_ns(self._mind, now)
        health = self.health(now.realtime_ns if true_ns is None else true_ns)
        return health._replace(missed=self.missed, store=self._ledger.trouble, local_s=self.ways.local_s)

    def _states(self) -> dict[str, Any]:
        """Return what the next start needs."""
        mind = self._mind
        kept = Kept(
            mind.boot_id,
            mind.reading,
            mind.started_ns,
            mind.steps,
            mind.update,
            mind.measured_ns,
            mind.measured_utc_ns,
            mind.contradiction,
            mind.samples_since_ns,
            mind.daemon,
            mind.poll,
            mind.poll_interval,
            mind.tai_s,
            mind.leapt,
            mind.fix,
            mind.firm,
        )
        states = {"mind": plain(kept)}
        if self._dropped != Dropped():
            states["dropping"] = plain(self._dropped)
        if mind.alarms != self._kept_alarms:  # which is seldom, and they are the larger part
            states["alarms"] = plain(mind.alarms)
            self._kept_alarms = mind.alarms
        return states

    def _restore(self, boot_id: str | None, now: ClockReading) -> Mind:
        """Return the mind of the last run, as far as it holds in this boot."""
        mind = Mind(boot_id, now, now.boottime_ns)
        with suppress(ValueError):
            mind = mind._replace(back_test=parse_back_test(self._ledger.load("back_test")))
        try:
            kept = revive(Kept, self._ledger.load("mind"))
        except (TypeError, ValueError):
            return mind
        mind = mind._replace(measured_utc_ns=kept.measured_utc_ns)
        with suppress(TypeError, ValueError):
            mind = mind._replace(alarms=revive(Alarms, self._ledger.load("alarms")))
        if boot_id is None or kept.boot_id != boot_id or kept.reading.boottime_ns > now.boottime_ns:
            polls = kept.poll_interval and PollInterval(
                kept.poll_interval.interval_s, now.boottime_ns, before_boot_s=kept.poll_interval.interval_s
            )
            return forget_raw(mind._replace(alarms=of_new_boot(mind.alarms), poll_interval=polls))
        seen = [
            audit
            for audit in self._ledger.read(lambda connection: history.seen_this_boot(connection, boot_id, KEPT_SAMPLES))
            if abs(suspended_ns(audit.reading, now)) <= MAX_STEP_NS
        ]
        samples = tuple(
            make_sample(audit.reading, round(audit.record.offset.estimate_s * NS_PER_S), audit.distance_s)
            for audit in seen
            if audit.record.offset is not None and audit.reading.boottime_ns >= kept.samples_since_ns
        )
        return mind._replace(
            reading=kept.reading,
            started_ns=kept.started_ns,
            steps=kept.steps,
            update=kept.update,
            measured_ns=kept.measured_ns,
            samples=samples,
            line=fit(samples),
            fix=kept.fix,
            firm=kept.firm,
            contradiction=kept.contradiction,
            samples_since_ns=kept.samples_since_ns,
            daemon=kept.daemon,
            poll=kept.poll,
            poll_interval=kept.poll_interval,
            tai_s=kept.tai_s,
            leapt=kept.leapt,
            drift=seen[-1].record.drift if seen else None,
        )

    def _take_up(self, orphan: history.Unjudged) -> None:
        """Judge what an earlier run saw and had no time to judge, once: what trips us over again is left alone."""
        if self._ledger.load("taking_up") == orphan.id:
            self._note(f"audit {orphan.id} could not be judged, twice; what it saw stays in the history")
            self._ledger.read(lambda connection: history.give_up(connection, orphan.id))
            return
        self._ledger.save("taking_up", orphan.id)
        self._judge_orphan(orphan)
        self._ledger.save("taking_up", None)

    @property
    def _terms_then(self) -> Terms:
        """What the last run's observations are judged by: its poll interval was in force."""
        polls, terms = self._mind.poll_interval, self.ways.terms
        return terms if polls is None else terms._replace(interval_s=polls.interval_s)

    def _judge_orphan(self, orphan: history.Unjudged) -> None:
        """Judge an observation of this boot in its turn, one of another by itself."""
        observation = orphan.observation
        if self._is_this_boot(observation.host.boot_id):
            self._notice(observation.taken, kernel=observation.kernel)
            self._finish(observation, orphan.kind, orphan.id, self._terms_then)
            return
        stranger = Mind(observation.host.boot_id, observation.taken, observation.taken.boottime_ns)
        result = conclude_round(stranger, observation, orphan.kind, self._terms_then, Health())
        letter = self._record_letter(result, observation.taken)
        letter = None if letter is None else letter._replace(boot_id=observation.host.boot_id)
        self._ledger.keep_record(orphan.id, Concluded(observation, result.record, (), letter, result.distance_s))
