"""One check from start to finish: poll the sources, read the host, conclude. Read this first.

Probes observe, the core concludes. The agent observes by the same `observe`, and concludes by `core/agent.py`.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ntpaudit import __version__
from ntpaudit.core.acceptance import Acceptance
from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.ntp.rate_limit import Instant
from ntpaudit.core.ntp.sources import NTP_PORT, Pool, Server, Source, is_pool_name, pool
from ntpaudit.core.observation import HostContext, Observation, SourceFailure, SourceObservation
from ntpaudit.core.policy import Profile
from ntpaudit.core.record import Labels, Record, conclude
from ntpaudit.core.site_policy import SitePolicy
from ntpaudit.log import LazyLogger
from ntpaudit.polling import PollRound, QueryOptions, ShowProgress, StateUpdater, show_nothing
from ntpaudit.probes.auditd import read_auditing
from ntpaudit.probes.clock import Clock
from ntpaudit.probes.daemons import Configured, configured_servers, running_daemons, with_claims, with_units
from ntpaudit.probes.host import host_facts
from ntpaudit.probes.kernel import read_kernel
from ntpaudit.probes.time_config import TimeConfigWatch
from ntpaudit.probes.timestamping import stamping_enabled
from ntpaudit.render.text_safety import one_line
from ntpaudit.store.one_shot import OneShotStore

if TYPE_CHECKING:
    from ntpaudit.config.schema import Config

logger = LazyLogger(__name__)


class Plan(NamedTuple):
    """What to audit, and by which profile. `from_host` adds the servers of this host's time daemons.

    `with_pools` False skips public pools this time: they are queried less often than servers. `max_drift_ppm` bounds
    the frequency error of the oscillator, unless the host shows a larger one (R4).
    """

    sources: tuple[Source, ...]
    profile: Profile
    labels: Labels
    options: QueryOptions = QueryOptions()
    from_host: bool = False
    host_name: str | None = None
    persist: bool = False
    with_pools: bool = True
    max_drift_ppm: float = MAX_DRIFT_PPM
    site_policy: SitePolicy = SitePolicy()


def plan_of(config: "Config") -> Plan:
    """Return the plan of a configuration: its sources, its profile and its host."""
    return Plan(
        sources=config.sources.named,
        profile=config.profile,
        labels=Labels(__version__, config.sha256, config.host.site, config.host.env),
        from_host=config.sources.from_host,
        host_name=config.host.name,
        max_drift_ppm=config.host.max_drift_ppm,
        site_policy=SitePolicy(
            config.sources.approved,
            config.sources.role,
            config.sources.require_authentication,
            config.ingest.pipelines,
            config.ingest.lag_s or 0.0,
            config.ingest.rule_interval_s,
            config.ingest.rule_lookback_s,
            tuple(Acceptance(*one) for one in config.accept),
        ),
    )


class HostServers:
    """The servers of this host's time daemons; while none runs the last ones, so that the host is still audited."""

    def __init__(self) -> None:
        self._last = Configured()

    def read(self) -> Configured:
        """Return the servers, and the problems in reading them now."""
        now = configured_servers()
        if now.is_known or now.servers:
            self._last = now
        return self._last._replace(problems=now.problems)


def run(plan: Plan, clock: Clock, store: OneShotStore, show_progress: ShowProgress = show_nothing) -> Record:
    """Audit this host's clock once; `plan.persist` stores it. Failures are in the record, those of the state logged."""
    observation = observe(plan, clock, store.update, show_progress)
    kept = store.keep_observation(observation) if plan.persist else None
    record = conclude(observation, plan.profile, plan.labels, plan.max_drift_ppm, plan.site_policy)
    if kept is not None:
        store.keep_record(kept, record)
    return record


def observe(
    plan: Plan,
    clock: Clock,
    update: StateUpdater,
    show_progress: ShowProgress = show_nothing,
    host_servers: HostServers | None = None,
    time_config: TimeConfigWatch | None = None,
) -> Observation:
    """Poll the sources, read the host, and return the observation; `update` stores the server states.

    `time_config` reads what decides the host's time; without it, that is not read: only an agent can compare it.
    """
    with stamping_enabled():
        sources, skipped = _planned_sources(plan, host_servers or HostServers())
        poll_round = PollRound(sources, plan.options, show_progress)
        context = host_context(plan.host_name)  # while names are being resolved
        start = clock.read()
        polled = poll_round.poll(clock, Instant(context.host.boot_id, start.boottime_ns, start.realtime_ns), update)
    context = with_claims_of(context, with_sources=True)
    if time_config is not None:
        context = with_time_config(context, time_config)
    return context.observation(clock.read(), read_kernel(), (*polled, *skipped))


def with_claims_of(context: HostContext, *, with_sources: bool) -> HostContext:
    """Return the context with what its time daemons report about themselves now."""
    return context._replace(daemons=with_claims(context.daemons, with_sources=with_sources))


def with_time_config(context: HostContext, watch: TimeConfigWatch) -> HostContext:
    """Return the context with the files that decide the host's time as they are now."""
    return context._replace(time_config=watch.read(context.known_daemons))


def host_context(name: str | None) -> HostContext:
    """Return the host's identity (named `name`, if given), its running time daemons, and their services."""
    return HostContext(host_facts(name), *with_units(running_daemons()), auditing=read_auditing())


def _planned_sources(plan: Plan, host_servers: HostServers) -> tuple[tuple[Source, ...], tuple[SourceObservation, ...]]:
    """Return the sources to poll, and the observations of those that are skipped. Log problems."""
    sources, skipped = list(plan.sources), []
    if plan.from_host:
        configured = host_servers.read()
        for server in configured.servers:
            if server.nts:  # N10: a server configured with authentication is never queried without
                failure = SourceFailure("skipped", "nts", "NTS is not supported by this version")
                skipped.append(SourceObservation(server.host, None, server.port, failure))
            else:
                sources.append(_host_source(server.host, server.port, is_pool=server.pool))
        problems = [one_line(problem) for problem in configured.problems]
        if not sources and not skipped:
            cause = problems.pop() if problems else "no servers found in the configuration of this host's time daemon"
            fix = "`ntpaudit check SERVER...` or with sources.servers in the configuration"
            problems.append(f"{cause}; name at least four, with {fix}")
        for problem in problems:
            logger.warning(problem)
    if not plan.with_pools:
        not_due = SourceFailure("skipped", "interval", "pools are queried less often than servers")
        pools = [source for source in sources if isinstance(source, Pool) and source.is_public]
        skipped += [SourceObservation(zone.zone, None, zone.port, not_due) for zone in pools]
        sources = [source for source in sources if source not in pools]
    return tuple(sources), tuple(skipped)


def _host_source(host: str, port: int, *, is_pool: bool) -> Source:
    """Return a source of a time daemon. The name of a server includes a port other than 123, so that it is unique."""
    if is_pool or is_pool_name(host):
        with suppress(ValueError):  # a pool by an address
            return pool(host)._replace(port=port)
    plain = f"[{host}]" if ":" in host else host
    return Server(host if port == NTP_PORT else f"{plain}:{port}", host, port)
