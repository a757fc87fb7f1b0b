"""The agent: audit on a schedule, deliver, report to the service manager, react to signals."""

import os
import random
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ntpaudit import __version__, audit
from ntpaudit.audit_cycle import AuditCycle, ClockChange, CycleConfig, CycleResult
from ntpaudit.config.load import load_config, with_environment
from ntpaudit.config.schema import Config, JournalConfig
from ntpaudit.config.secrets import read_token
from ntpaudit.core.agent import AuditSettings
from ntpaudit.core.ntp.rate_limit import POOL_INTERVAL_S, SERVER_INTERVAL_S
from ntpaudit.core.ntp.sources import Server, is_loopback, is_pool_name
from ntpaudit.core.observation import Failure, Observation, SourceObservation
from ntpaudit.core.record import Health, Labels, Record
from ntpaudit.core.schedule import (
    CONFIRM_S,
    FIRST_WITHIN_S,
    Intervals,
    Schedule,
    advance_to,
    after_local,
    after_network,
    after_suspend,
    earliest_allowed,
    first_schedule,
    missed,
    next_poll_ns,
)
from ntpaudit.core.units import MAX_DIGITS, NS_PER_S, format_duration, plural
from ntpaudit.errors import ConfigError, OutputError
from ntpaudit.log import LazyLogger
from ntpaudit.outputs import Output, Settings, open_outputs
from ntpaudit.outputs.journal import journal_takes_our_output
from ntpaudit.outputs.systemd import Notifier
from ntpaudit.polling import QueryOptions
from ntpaudit.runtime import Runtime
from ntpaudit.store.paths import FILE_NAME, state_folder
from ntpaudit.store.state import AgentLock, StateStore

if TYPE_CHECKING:
    from ntpaudit.delivery import DeliveryWorker

logger = LazyLogger(__name__)

POLL_LIMIT_S = 120.0
"""A poll that takes longer counts as hung: the watchdog is no longer fed."""

DRAIN_S = 10.0
"""How long `agent --once` waits for the database."""

STOP_S = 0.5
"""How long a request under way may take when the agent stops."""

TIMEOUT_S = 2.0

PUT_OFF_S = 0.5
"""How long a local audit is postponed at a time while the first poll runs."""

POOL_RETRY_S = 300.0
"""Retry delay for a pool that is still inside its minimum interval."""


OpenOutputs = dict[str, tuple[Settings, Output]]
"""Every open output, with its setting."""


class AgentConfig(NamedTuple):
    """The configuration of a running agent, and the environment it was read in."""

    config: Config
    environment: Mapping[str, str]
    path: str | None
    token: str | None = None

    @property
    def plan(self) -> audit.Plan:
        """The sources to poll, and how."""
        config = self.config
        return audit.Plan(
            sources=config.sources.named,
            profile=config.profile,
            labels=self.labels,
            options=QueryOptions(timeout_s=TIMEOUT_S),
            from_local_daemon=config.sources.from_host,
            host_name=config.host.name,
        )

    @property
    def labels(self) -> Labels:
        """The labels of every record."""
        config = self.config
        return Labels(__version__, config.sha256, config.host.site, config.host.env)

    @property
    def intervals(self) -> Intervals:
        """The intervals of network, pool and local audits."""
        return Intervals(*self.config.schedule)

    @property
    def folder(self) -> str:
        """The state folder."""
        return os.path.dirname(self.file)

    @property
    def file(self) -> str:
        """The history file."""
        return self.config.history.path or os.path.join(state_folder(self.environment), FILE_NAME)


def read_agent_config(path: str | None, environment: Mapping[str, str]) -> AgentConfig:
    """Read the configuration of an agent. ConfigError if it is invalid or names no source (P1)."""
    if path is None:
        raise ConfigError("the agent needs a configuration that names servers; create one with `ntpaudit config init`")
    config = with_environment(load_config(path), environment)
    if not config.sources.named and not config.sources.from_host:
        raise ConfigError(f"{path} names no servers; set sources.servers, pool, region or from_host", "sources")
    token = None if config.influxdb is None else read_token(config.influxdb, environment)
    return AgentConfig(config, environment, path, token)


class Agent:
    """One agent, from its start to its end."""

    def __init__(
        self,
        setting: AgentConfig,
        runtime: Runtime,
        every_s: float | None = None,
    ) -> None:
        """Lock the state folder. BusyError if another agent uses it. `every_s`: the interval between runs of `once`."""
        self._every_s = every_s
        self._runtime = runtime
        self._setting = setting
        self._is_loopback = False
        self._started_ns = 0
        self._schedule = Schedule(None, None, 0)
        self._lock = AgentLock(setting.folder)
        self.store = StateStore(setting.file)
        self._notifier = Notifier(setting.environment.get("NOTIFY_SOCKET"))
        self._outputs = _open_outputs(setting)
        self._delivery = self._start_delivery()
        self.cycle = AuditCycle(self.store, runtime, self._cycle_config())
        self.cycle.health = self._health
        self.cycle.database_clock = lambda: None if self._delivery is None else self._delivery.database_clock
        self._polled_ns = 0
        self._has_polled = False  # in this run, and since the last suspend
        self._pool_polled_ns: int | None = None
        self._watchdog_s = _watchdog_s(setting.environment)
        self._fed_ns = 0
        self.unkept: str | None = None
        """After the end: why nothing of this run was stored, with the fix; None if it was."""

    def once(self) -> Record:
        """Run one audit: poll, judge, store, send, deliver. Return the record; sets `unkept`."""
        self.cycle.is_single = True
        self.begin()
        observation = audit.observe(self._setting.plan, self._runtime.clock, self.store.update)
        result = self.cycle.network(observation)
        self.cycle.prune()
        self.drain(DRAIN_S)
        return result.record

    def drain(self, timeout_s: float) -> bool:
        """Deliver the outbox and stop; return False if time ran out."""
        drained = True
        if self._delivery is not None:
            self._delivery.start()
            drained = self._delivery.drain(timeout_s)
        self._end()
        if self._delivery is not None and self._delivery.crash is not None:
            raise self._delivery.crash
        return drained

    def run(self) -> None:
        """Audit until SIGTERM or SIGINT."""
        self.begin()
        self._announce_ready()
        if self._delivery is not None:
            self._delivery.start()
        while self._turn():
            pass
        self._notifier.stopping()
        self._end()

    def _turn(self) -> bool:
        """Wait until something is due or happens, and handle it; return False to stop."""
        wakeup = self._runtime.wait(self._wait_s())
        if wakeup.clock_set:
            self._detect_clock_change()
        if wakeup.observation is not None:  # before any signal: the replies must not be lost
            self._conclude(wakeup.observation)
        for number in wakeup.signals:
            match number:
                case signal.SIGTERM | signal.SIGINT:
                    return False
                case signal.SIGHUP:
                    self._reload()
                case signal.SIGUSR1:
                    self._audit_now()
        now_ns = self._runtime.now_ns()
        self._poll_if_due(now_ns)
        if self._schedule.local_ns <= now_ns and not self._postpone_local(now_ns):
            self.audit_locally()
        self._feed_watchdog(now_ns)
        return True

    def _wait_s(self) -> float:
        """Return the time until something is due."""
        due_ns = self._schedule.next_ns if self._runtime.polling_s() is None else self._schedule.local_ns
        wait_s = max(0.0, (due_ns - self._runtime.now_ns()) / NS_PER_S)
        return wait_s if self._watchdog_s is None else min(wait_s, self._watchdog_s)

    def _poll_if_due(self, now_ns: int) -> None:
        """Start a poll if one is due and none is running."""
        servers_due = self._schedule.network_ns is not None and self._schedule.network_ns <= now_ns
        pools_due = self._schedule.pool_ns is not None and self._schedule.pool_ns <= now_ns
        if self._runtime.polling_s() is not None or not (servers_due or pools_due):
            return
        self.cycle.missed += missed(self._schedule, now_ns, self._setting.intervals)
        self._polled_ns = now_ns
        if pools_due:
            self._pool_polled_ns = now_ns
        plan = self._setting.plan._replace(with_pools=pools_due)
        self._runtime.poll(plan, self.store.update)
        self._schedule = after_network(self._schedule, now_ns, self._setting.intervals, random.random())

    def _postpone_local(self, now_ns: int) -> bool:
        """Postpone a local audit until the first poll has ended, after a start or a suspend.

        Until then it can only report `unmeasured`. A poll that is not due soon, or that ends without a measurement,
        postpones nothing.
        """
        poll_ns = next_poll_ns(self._schedule)
        is_soon = poll_ns is not None and poll_ns - now_ns <= FIRST_WITHIN_S * NS_PER_S
        is_due = is_soon or self._runtime.polling_s() is not None
        if self._has_polled or self.cycle.has_estimate or not is_due:
            return False
        self._schedule = self._schedule._replace(local_ns=now_ns + round(PUT_OFF_S * NS_PER_S))
        return True

    def audit_locally(self) -> None:
        """Run a local audit, then prune the history."""
        self._detect_clock_change()
        result = self.cycle.local()
        now_ns = self._runtime.now_ns()
        self._schedule = after_local(self._schedule, now_ns, self._setting.intervals, random.random())
        self._publish(result)
        self.cycle.prune()
        self._vouch()

    def _conclude(self, observation: Observation) -> None:
        """Evaluate the result of a poll. A pool still inside its minimum interval is retried after `POOL_RETRY_S`."""
        self._has_polled = True
        self._publish(self.cycle.network(observation))
        pool_sources = [source for source in observation.sources if is_pool_name(source.name.partition("/")[0])]
        if pool_sources and self._schedule.network_ns is None and all(_is_held_back(source) for source in pool_sources):
            retry_ns = self._runtime.now_ns() + round(POOL_RETRY_S * NS_PER_S)
            self._schedule = self._schedule._replace(pool_ns=retry_ns)
            self._save_state()

    def _detect_clock_change(self) -> None:
        """Detect a step or a suspend; after either, poll as soon as the rate limits allow."""
        change = self.cycle.detect_clock_change()
        if change.suspend is not None:
            self._has_polled = False
            self._schedule = after_suspend(self._schedule, self._runtime.now_ns())
        if change != ClockChange():
            self._poll_sooner(0.0)
            self._wake_delivery()

    def _poll_sooner(self, wait_s: float) -> None:
        """Bring the next poll forward as far as the rate limits allow; without servers, the next pool poll."""
        least_s = 0.0 if self._is_loopback else SERVER_INTERVAL_S
        now_ns = self._runtime.now_ns()
        self._schedule = advance_to(self._schedule, self._polled_ns, now_ns, wait_s=wait_s, least_s=least_s)
        if self._schedule.network_ns is None and self._schedule.pool_ns is not None:
            allowed_ns = (
                now_ns if self._pool_polled_ns is None else earliest_allowed(self._pool_polled_ns, POOL_INTERVAL_S)
            )
            due_ns = max(now_ns + round(wait_s * NS_PER_S), allowed_ns)
            self._schedule = self._schedule._replace(pool_ns=min(self._schedule.pool_ns, due_ns))

    def _audit_now(self) -> None:
        """Audit now, as far as the rate limits allow (SIGUSR1)."""
        self._poll_sooner(0.0)
        self._schedule = self._schedule._replace(local_ns=self._runtime.now_ns())

    def _reload(self) -> None:
        """Reload the configuration; keep the old one if the new one is invalid (SIGHUP)."""
        self._notifier.reloading()
        try:
            setting = read_agent_config(self._setting.path, self._setting.environment)
            outputs = _open_outputs(setting, self._outputs)
        except ConfigError as error:
            logger.warning(f"configuration not reloaded, the previous one stays in use: {error}")
            self._notifier.refused(str(error))
        else:
            if setting.file != self._setting.file:
                logger.warning("the new history.path takes effect at the next start")
            self._apply(setting, outputs)
            logger.info(f"configuration reloaded from {setting.path}")
            self._notifier.refused(None)
        self._notifier.ready()

    def _apply(self, setting: AgentConfig, outputs: OpenOutputs) -> None:
        """Switch to another configuration."""
        for name, (_, output) in self._outputs.items():
            if outputs.get(name) != self._outputs[name]:
                output.close()
        self._setting, self._outputs = setting, outputs
        if self._delivery is not None:
            self._delivery.stop(STOP_S)
        self._delivery = self._start_delivery()
        if self._delivery is not None:
            self._delivery.start()
        self._schedule = self._first_schedule(has_estimate=self.cycle.has_estimate)
        self.cycle.replace(self._cycle_config())
        self._poll_sooner(0.0)
        self._save_state()

    def begin(self) -> None:
        """Restore the state of the last run."""
        self._started_ns = self._runtime.now_ns()
        self._schedule = self._first_schedule(has_estimate=False)
        self.cycle.begin(self._cycle_config())  # with the schedule in use, not a default
        if self.cycle.has_estimate:
            self._schedule = self._schedule._replace(local_ns=self._runtime.now_ns())
        self._save_state()

    def _save_state(self) -> None:
        """Save pid, version and intervals for `ntpaudit status`."""
        intervals = self._setting.intervals
        if self._every_s is not None:
            intervals = Intervals(*[self._every_s] * len(intervals))
        self.store.save(
            "agent",
            intervals._asdict()
            | {
                "pid": os.getpid(),
                "version": __version__,
                "boot_id": self.cycle.boot_id,
                "started_boottime_ns": self._started_ns,
                "next_poll_boottime_ns": next_poll_ns(self._schedule),
            },
        )
        self._vouch()

    def _vouch(self) -> None:
        """Show `status` that the stored state is that of this agent, once it is."""
        if not self.store.stands_in:
            self._lock.vouch()

    def _announce_ready(self) -> None:
        """Report to systemd that the agent is ready, and log what it does."""
        config, intervals = self._setting.config, self._setting.intervals
        count = len(config.sources.named)
        sources_text = plural(count, "source") + (
            " and the servers of the time daemon" if config.sources.from_host else ""
        )
        where = f"delivering to {config.influxdb.url}" if config.influxdb else "no database"
        often = intervals.network_s if self._schedule.network_ns is not None else intervals.pool_s
        kept = self._setting.file if self.store.error is None else "memory only"
        logger.info(
            f"ntpaudit {__version__}: {sources_text} every {format_duration(often)}, history in {kept}, {where}"
        )
        self._notifier.ready()
        self._notifier.status("waiting for the first measurement")

    def _end(self) -> None:
        """Stop delivery, close outputs and the store."""
        if self._delivery is not None:
            self._delivery.stop(STOP_S)
        for _, output in self._outputs.values():
            output.close()
        if not self.store.close():
            self.unkept = (
                f"no state was stored in {self._setting.folder}: later runs cannot confirm these findings, and "
                "findings that need a history cannot be raised; fix: make the folder writable for this user, or set "
                "STATE_DIRECTORY or history.path to another folder"
            )
        self._notifier.close()
        self._lock.release()

    def _publish(self, result: CycleResult) -> None:
        """Report a new record to systemd and to delivery; poll again soon if a finding is pending."""
        self._notifier.audited(result.record)
        self._wake_delivery()
        if result.is_pending:
            self._poll_sooner(CONFIRM_S)

    def _wake_delivery(self) -> None:
        if self._delivery is not None:
            self._delivery.wake()

    def _feed_watchdog(self, now_ns: int) -> None:
        """Feed systemd's watchdog, unless a poll hangs. Raises the error of a delivery that crashed."""
        if self._delivery is not None and self._delivery.crash is not None:
            raise self._delivery.crash
        hangs = (self._runtime.polling_s() or 0.0) > POLL_LIMIT_S
        if self._watchdog_s is not None and not hangs and now_ns - self._fed_ns >= self._watchdog_s * NS_PER_S / 2:
            self._notifier.watchdog()
            self._fed_ns = now_ns

    def _first_schedule(self, *, has_estimate: bool) -> Schedule:
        """Return the first schedule for the configured sources; with a known offset, a local audit is due at once."""
        sources, _ = audit.planned_sources(self._setting.plan, audit.HostServers())
        pools = [source for source in sources if audit.is_public_pool(source)]
        servers = [source for source in sources if not audit.is_public_pool(source)]
        self._is_loopback = bool(servers) and all(
            isinstance(source, Server) and is_loopback(source.host) for source in servers
        )
        has_servers = bool(servers) or not pools
        return first_schedule(
            self._runtime.now_ns(),
            self._setting.intervals,
            has_servers=has_servers,
            has_pools=bool(pools),
            has_estimate=has_estimate,
            rand=random.random(),
        )

    def _cycle_config(self) -> CycleConfig:
        """Return the configuration of the audit cycle."""
        config = self._setting.config
        return CycleConfig(
            self._audit_settings(),
            _outputs(self._outputs),
            config.influxdb is not None,
            config.history,
            config.host.name,
            self._every_s or self._setting.intervals.local_s,
        )

    def _audit_settings(self) -> AuditSettings:
        """Return the settings that audits are judged by; the interval is that of the schedule in use."""
        setting, intervals = self._setting, self._setting.intervals
        is_pool_only = self._schedule.network_ns is None and self._schedule.pool_ns is not None
        interval_s = self._every_s or (intervals.pool_s if is_pool_only else intervals.network_s)
        return AuditSettings(setting.config.profile, setting.labels, interval_s, setting.config.host.max_drift_ppm)

    def _health(self, now_ns: int) -> Health:
        """Return the state of delivery; `now_ns` is the true time, as far as it is known."""
        if self._delivery is None:
            return Health()
        waiting, oldest_ns, aside = self.store.backlog()
        delivery = self._delivery.health
        oldest_s = None if oldest_ns is None else max(0.0, (now_ns - oldest_ns) / NS_PER_S)
        return Health(
            backlog=waiting,
            oldest_s=oldest_s,
            failures=delivery.failures,
            failure=delivery.failure,
            set_aside=aside,
            refusals=delivery.refusals,
        )

    def _start_delivery(self) -> "DeliveryWorker | None":
        """Create the delivery worker, if a database is configured."""
        influxdb = self._setting.config.influxdb
        if influxdb is None:
            return None
        from ntpaudit.delivery import start_worker  # imported only if needed, for memory

        return start_worker(self.store, influxdb, self._setting.token, read_clock=self._runtime.clock.read)


def _open_outputs(setting: AgentConfig, known: OpenOutputs | None = None) -> OpenOutputs:
    """Open the configured outputs. One that is open with the same setting stays, with what it still has to send.

    ConfigError if an output cannot be opened.
    """
    configured = setting.config.outputs
    journal = configured.journal or JournalConfig(enabled=journal_takes_our_output(setting.environment))
    settings = configured._asdict() | {"journal": journal if journal.enabled else None}
    outputs: OpenOutputs = {}
    known = known or {}
    for name, value in settings.items():
        if value is not None and name in known and known[name][0] == value:
            outputs[name] = known[name]
        elif value is not None:
            try:
                outputs[name] = (value, open_outputs({name: value})[name])
            except OutputError as error:
                raise ConfigError(f"{name}: {error}", name) from error
    return outputs


def _is_held_back(source: SourceObservation) -> bool:
    """Return whether a source was skipped because of a rate limit."""
    return isinstance(source.outcome, Failure) and source.outcome.status == "skipped"


def _outputs(outputs: OpenOutputs) -> dict[str, Output]:
    """Return the outputs alone."""
    return {name: output for name, (_, output) in outputs.items()}


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return half of systemd's watchdog interval, None without a watchdog."""
    text = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not text.isdecimal() or len(text) > MAX_DIGITS or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 2e6
