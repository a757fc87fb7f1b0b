"""The agent's shell: it waits, reads the clocks, and performs the actions that `core/agent.py` decides."""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ntpaudit import __version__, audit
from ntpaudit.agent_store import AgentStore
from ntpaudit.config.load import load_config, with_environment
from ntpaudit.config.schema import Config, JournalConfig
from ntpaudit.config.secrets import find_token
from ntpaudit.config.text import tables_of
from ntpaudit.config.warnings import config_warnings
from ntpaudit.core import actions, agent_events
from ntpaudit.core import agent as core_agent
from ntpaudit.core.agent_state import AgentSettings, AgentState, first_state
from ntpaudit.core.clock_state import unexplained_steps
from ntpaudit.core.evaluation import AuditSettings
from ntpaudit.core.events import Event
from ntpaudit.core.ntp.sources import Pool
from ntpaudit.core.observation import HostContext, Observation
from ntpaudit.core.record import Health, Record
from ntpaudit.core.schedule import Intervals
from ntpaudit.core.units import MAX_DIGITS, NS_PER_S, format_duration, plural
from ntpaudit.errors import ConfigError, OutputError
from ntpaudit.formats.log_entries import status_line
from ntpaudit.log import LazyLogger
from ntpaudit.outputs import Output, OutputConfig, open_output
from ntpaudit.outputs.journal import journal_takes_our_output
from ntpaudit.outputs.systemd import Notifier
from ntpaudit.runtime import SystemRuntime
from ntpaudit.store import audits, chain, outbox, paths, saved_state
from ntpaudit.store.lock import AgentLock
from ntpaudit.store.state import StateStore

if TYPE_CHECKING:
    from ntpaudit.delivery import DeliveryWorker

logger = LazyLogger(__name__)

POLL_LIMIT_S = 120.0  # a poll that takes longer counts as hung: the watchdog is no longer fed
DRAIN_S = 10.0  # how long `agent --once` waits for the database
STOP_S = 0.5  # how long a request under way may take when the agent stops
OpenOutputs = dict[str, tuple[OutputConfig, Output]]  # every open output, with its configuration


class AgentSetup(NamedTuple):
    """The configuration of a running agent, and the environment it was read in."""

    config: Config
    environment: Mapping[str, str]
    path: str | None
    token: str | None = None

    @property
    def history_file(self) -> str:
        """The history file."""
        return self.config.history.path or os.path.join(paths.state_folder(self.environment), paths.FILE_NAME)


def read_setup(path: str | None, environment: Mapping[str, str]) -> AgentSetup:
    """Read the configuration of an agent. ConfigError if it is invalid or names no source (P1)."""
    if path is None:
        raise ConfigError("the agent needs a configuration that names servers; create one with `ntpaudit config init`")
    config = with_environment(load_config(path), environment)
    if not config.sources.named and not config.sources.from_host:
        raise ConfigError(f"{path}: names no servers; set sources.servers, pool, region or from_host", "sources")
    token = None if config.influxdb is None else find_token(config.influxdb, environment).text
    return AgentSetup(config, environment, path, token)


def log_warnings(setup: AgentSetup) -> None:
    """Log what is probably wrong in a configuration."""
    for warning in config_warnings(setup.config):
        logger.warning(f"{setup.path}: {warning}")


def _random() -> float:
    """Return a random number from 0 to below 1. The module `random` would take 160 KiB of memory."""
    return int.from_bytes(os.urandom(6)) / (1 << 48)


class Agent:
    """One agent, from its start to its end. It decides nothing; `state` is a value of `core/agent.py`."""

    state: AgentState

    def __init__(self, setup: AgentSetup, runtime: SystemRuntime, every_s: float | None = None) -> None:
        """Lock the state folder. BusyError if another agent uses it. `every_s`: the interval between runs of `once`."""
        self._every_s = every_s
        self._runtime = runtime
        self._setup = setup
        self._started_ns = 0
        self._lock = AgentLock(os.path.dirname(setup.history_file))
        self.store = StateStore(setup.history_file)
        self._agent_store = AgentStore(self.store)
        self._notifier = Notifier(setup.environment.get("NOTIFY_SOCKET"))
        self._outputs = _open_outputs(setup)
        self._failed_outputs: dict[str, str] = {}  # by name, with the error
        self._delivery = self._start_delivery()
        self._feed_every_s = _feed_every_s(setup.environment)
        self._fed_ns = 0
        self.not_stored: str | None = None  # after the end: why nothing was stored, with the fix; None if it was

    def once(self) -> Record:
        """Run one audit: poll, judge, store, send, deliver. Return the record; sets `not_stored`."""
        self.begin(is_single=True)
        plan, runtime = audit.plan_of(self._setup.config), self._runtime
        observed = audit.observe(plan, runtime.clock, self.store.update, time_config=runtime.time_config)
        self.take_observation(observed)
        self.drain(DRAIN_S)
        assert self.state.record is not None
        return self.state.record

    def drain(self, timeout_s: float) -> None:
        """Deliver the outbox, as far as the time allows, and stop. Raises the error of a delivery that crashed."""
        if self._delivery is not None:
            self._delivery.start()
            self._delivery.drain(timeout_s)
            if (count := len(self.store.read(outbox.unstamped))) and not self.store.is_in_memory:
                logger.warning(f"{plural(count, 'record')} not delivered: the true time is not known yet")
        self.close()
        if self._delivery is not None and self._delivery.crash is not None:
            raise self._delivery.crash

    def run(self) -> None:
        """Audit until SIGTERM or SIGINT."""
        self.begin()
        self._announce_ready()
        if self._delivery is not None:
            self._delivery.start()
        while self._turn():
            pass
        self._notifier.stopping()
        self.close()

    def begin(self, *, is_single: bool = False) -> None:
        """Restore the state of the last run, and judge what it observed and did not judge."""
        self._started_ns = self._runtime.now_ns()
        reading, context = self._runtime.clock.read(), self._runtime.host_context(self._setup.config.host.name)
        settings = self._agent_settings()._replace(is_single=is_single)
        self.state = first_state(settings, context, reading, self._agent_store.load())
        if self.state.clock.time_config is not None:
            self._runtime.time_config.expect(self.state.clock.time_config.settings)
        self._note_start(context)
        self._agent_store.recover(
            lambda pending: self.handle(agent_events.Recovered(pending.observation, pending.kind, self._report()))
        )
        self._agent_store.log_damaged(context.host.boot_id)
        self.handle(agent_events.Started(self._runtime.clock.read(), self._runtime.kernel(), _random()))

    def _note_start(self, context: HostContext) -> None:
        config, host = self._setup.config, context.host
        self.store.write(
            chain.note,
            "start",
            {
                "version": __version__,
                "pid": os.getpid(),
                "boot_id": host.boot_id,
                "boottime_ns": self._started_ns,
                "config_sha256": config.sha256,
                "machine_id": host.machine_id,
                "host": host.name,
            },
        )
        self._note_configuration()

    def _note_configuration(self) -> None:
        """Store the configuration in force, as the tables of its file, if it is another than before."""
        self.store.write(chain.note_if_changed, "configuration", tables_of(self._setup.config))

    def _turn(self) -> bool:
        """Wait until something is due or happens, and handle it; return False to stop."""
        wait_s = max(0.0, (self.state.due_ns - self._runtime.now_ns()) / NS_PER_S)
        wakeup = self._runtime.wait(wait_s if self._feed_every_s is None else min(wait_s, self._feed_every_s))
        if wakeup.clock_set:
            self.handle(agent_events.ClockSet(self._runtime.clock.read(), self._runtime.kernel()))
        if wakeup.observation is not None:  # before any signal: the replies must not be lost
            self.take_observation(wakeup.observation)
        for number in wakeup.signals:
            match number:
                case signal.SIGTERM | signal.SIGINT:
                    return False
                case signal.SIGHUP:
                    self._reload()
                case signal.SIGUSR1:
                    self.handle(agent_events.AuditRequested(self._runtime.now_ns()))
        now_ns = self._runtime.now_ns()
        self.handle(agent_events.TimePassed(now_ns, _random()))
        self._feed_watchdog(now_ns)
        return True

    def take_observation(self, observation: Observation) -> None:
        """Store the observation of a poll, then judge it."""
        self.store.write(audits.keep_observation, observation, "network")
        self.handle(agent_events.Observed(observation, "network", self._report()))

    def handle(self, event: agent_events.AgentEvent) -> None:
        """Let the core decide about an event, and perform its actions."""
        self.state, to_do = core_agent.handle(self.state, event)
        for action in to_do:
            self._perform(action)

    def _perform(self, action: actions.Action) -> None:
        match action:
            case actions.StartPoll(with_pools):
                plan = audit.plan_of(self._setup.config)._replace(with_pools=with_pools)
                self._runtime.poll(plan, self.store.update)
            case actions.ObserveHost(known):  # always the last action, because it calls `handle` again
                self.handle(agent_events.Observed(self.observe_host(known), "local", self._report()))
                self._mark_as_current()  # it fails while the state is in memory or the lock is in use: try each minute
            case actions.StoreAudit():
                self._agent_store.store_audit(action, delivers=self._delivery is not None)
            case actions.StoreEvents():
                self._agent_store.store_events(action, delivers=self._delivery is not None)
            case actions.StampHistory():
                self._agent_store.stamp(action, self.state.identity, delivers=self._delivery is not None)
            case actions.CloseAccounts():
                self._agent_store.close_accounts(action, delivers=self._delivery is not None)
            case actions.Prune():
                self._agent_store.prune(action, self._setup.config.history)
            case actions.Emit(record, events):
                self._emit(record, events)
            case actions.WakeDelivery():
                if self._delivery is not None:
                    self._delivery.wake()
            case actions.SaveStatus(next_poll_ns):
                self._save_status(next_poll_ns)
            case actions.Log(message):
                logger.info(message)

    def observe_host(self, known: HostContext | None) -> Observation:
        """Read the clocks and the kernel; read the host's context again if it is not known or a daemon has ended."""
        taken = self._runtime.clock.read()
        if known is None or any(self._runtime.has_ended(daemon) for daemon in known.known_daemons):
            known = self._runtime.host_context(self._setup.config.host.name)
        observation = self._runtime.with_claims(known).observation(taken, self._runtime.kernel())
        if steps := unexplained_steps(self.state.clock, taken.boottime_ns):
            return observation._replace(step_causes=self._runtime.causes_of(steps, known))
        return observation

    def _emit(self, record: Record, events: Sequence[Event]) -> None:
        """Send a record and events to every output; log when an output fails and when it works again."""
        self._notifier.status(status_line(record))
        record = record._replace(chain=self._agent_store.head)
        for name, (_, output) in self._outputs.items():
            try:
                output.emit(record, events)
            except OutputError as error:
                if self._failed_outputs.get(name) != str(error):
                    logger.warning(f"{name}: {error}")
                self._failed_outputs[name] = str(error)
            else:
                if self._failed_outputs.pop(name, None):
                    logger.info(f"{name}: works again")

    def _reload(self) -> None:
        """Reload the configuration; keep the old one if the new one is invalid (SIGHUP)."""
        self._notifier.reloading()
        try:
            setup = read_setup(self._setup.path, self._setup.environment)
            outputs = _open_outputs(setup, self._outputs)
        except ConfigError as error:
            logger.warning(f"configuration not reloaded, the previous one stays in use: {error}")
            self._notifier.refused(str(error))
        else:
            if setup.history_file != self._setup.history_file:
                logger.warning("the new history.path takes effect at the next start")
            self._apply(setup, outputs)
            logger.info(f"configuration reloaded from {setup.path}")
            log_warnings(setup)
            self._notifier.refused(None)
        self._notifier.ready()

    def _apply(self, setup: AgentSetup, outputs: OpenOutputs) -> None:
        for name, known in self._outputs.items():
            if outputs.get(name) != known:
                known[1].close()
        self._setup, self._outputs = setup, outputs
        self._note_configuration()
        if self._delivery is not None:
            self._delivery.stop(STOP_S)
        self._delivery = self._start_delivery()
        if self._delivery is not None:
            self._delivery.start()
        self.handle(agent_events.Reconfigured(self._agent_settings(), self._runtime.now_ns(), _random()))

    def _save_status(self, next_poll_ns: int | None) -> None:
        intervals = self.state.settings.intervals
        status = {
            "network_s": intervals.network_s,
            "pool_s": intervals.pool_s,
            "local_s": intervals.local_s,
            "pid": os.getpid(),
            "version": __version__,
            "boot_id": self.state.clock.boot_id,
            "started_boottime_ns": self._started_ns,
            "next_poll_boottime_ns": next_poll_ns,
            "delivers": self._delivery is not None,
        }
        self.store.write(saved_state.save_state, "agent", status)
        self._mark_as_current()

    def _mark_as_current(self) -> None:
        """Show `status` that the stored state is that of this agent, once it is."""
        if not self.store.is_in_memory:
            self._lock.mark_as_current()

    def _announce_ready(self) -> None:
        config, intervals = self._setup.config, self.state.settings.intervals
        sources = plural(len(config.sources.named), "source")
        if config.sources.from_host:
            sources += " and the servers of the time daemon"
        often = format_duration(intervals.network_s if self.state.settings.has_servers else intervals.pool_s)
        kept = self._setup.history_file if self.store.error is None else "memory only"
        where = f"delivering to {config.influxdb.url}" if config.influxdb else "no database"
        logger.info(f"ntpaudit {__version__}: {sources} every {often}, history in {kept}, {where}")
        self._notifier.ready()
        self._notifier.status("waiting for the first measurement")

    def close(self) -> None:
        """Stop delivery, close outputs and the store."""
        if self._delivery is not None:
            self._delivery.stop(STOP_S)
        for _, output in self._outputs.values():
            output.close()
        if not self.store.close():
            folder = os.path.dirname(self._setup.history_file)
            fix = self.store.remedy or "choose another path with history.path"
            self.not_stored = (
                f"no state was stored in {folder}: later runs cannot confirm these findings, and "
                f"findings that need a history cannot be raised; fix: {fix} or STATE_DIRECTORY"
            )
        self._notifier.close()
        self._lock.release()

    def _feed_watchdog(self, now_ns: int) -> None:
        """Feed systemd's watchdog, not at each turn, unless a poll hangs. Raises the error of a crashed delivery."""
        if self._delivery is not None and self._delivery.crash is not None:
            raise self._delivery.crash
        hangs = (self._runtime.polling_s() or 0.0) > POLL_LIMIT_S
        if self._feed_every_s is not None and not hangs and now_ns - self._fed_ns >= self._feed_every_s * NS_PER_S / 2:
            self._notifier.watchdog()
            self._fed_ns = now_ns

    def _agent_settings(self) -> AgentSettings:
        """Return the settings for the core. The servers of the time daemon are known only after a poll."""
        plan, every_s, schedule = audit.plan_of(self._setup.config), self._every_s, self._setup.config.schedule
        intervals = Intervals(schedule.network_s, schedule.pool_s, schedule.local_s)
        if every_s is not None:
            intervals = Intervals(every_s, every_s, every_s)
        are_public = [isinstance(source, Pool) and source.is_public for source in plan.sources]
        judging = AuditSettings(plan.profile, plan.labels, intervals.network_s, plan.max_drift_ppm, plan.site_policy)
        has_servers = plan.from_host or not all(are_public)
        return AgentSettings(judging, intervals).polling(has_servers=has_servers, has_pools=any(are_public))

    def _report(self) -> agent_events.ShellReport:
        """Return what store and delivery report now."""
        dropped, closed_s = self.store.read(saved_state.dropped), self._agent_store.closed_s
        store_error, is_stored = self.store.error, not self.store.is_in_memory
        if self._delivery is None:
            return agent_events.ShellReport(Health(store=store_error), None, dropped, None, is_stored, closed_s)
        backlog, oldest_ns, dead_letters = self.store.read(outbox.backlog)
        health = self._delivery.health._replace(backlog=backlog, set_aside=dead_letters, store=store_error)
        return agent_events.ShellReport(health, oldest_ns, dropped, self._delivery.database_clock, is_stored, closed_s)

    def _start_delivery(self) -> "DeliveryWorker | None":
        influxdb = self._setup.config.influxdb
        if influxdb is None:
            return None
        from ntpaudit.delivery import start_worker  # imported only if needed, for memory

        return start_worker(self.store, influxdb, self._setup.token, read_clock=self._runtime.clock.read)


def _open_outputs(setup: AgentSetup, known: OpenOutputs | None = None) -> OpenOutputs:
    """Open the configured outputs; one that is open with the same configuration stays, with what is still to send."""
    configured, known = setup.config.outputs, known or {}
    journal = configured.journal or JournalConfig(enabled=journal_takes_our_output(setup.environment))
    configs = configured._asdict() | {"journal": journal if journal.enabled else None}
    return {
        name: known[name] if name in known and known[name][0] == config else (config, open_output(name, config))
        for name, config in configs.items()
        if config is not None
    }


def _feed_every_s(environment: Mapping[str, str]) -> float | None:
    """Return the longest time between two feeds: half of systemd's WATCHDOG_USEC; None without a watchdog."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdecimal() or len(text) > MAX_DIGITS or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 2e6
