"""One audit from start to finish: probe, select, estimate, judge, record. Read this first.

Probes observe, the core concludes, sinks tell; this is the only file that knows all three.
"""

from typing import NamedTuple, TypeGuard

from ntpaudit.core.clock.readings import MAX_DRIFT_PPM
from ntpaudit.core.ntp.rate_limit import Instant
from ntpaudit.core.ntp.sources import NTP_PORT, Pool, Server, Source, is_pool_name, pool
from ntpaudit.core.observation import Failure, Observation, SourceObservation
from ntpaudit.core.policy import Profile
from ntpaudit.core.record import Labels, Record, conclude
from ntpaudit.log import LazyLogger
from ntpaudit.polling import DEFAULT_OPTIONS, PollRound, QueryOptions, ShowProgress, StateUpdater, show_nothing
from ntpaudit.probes.clock import Clock
from ntpaudit.probes.daemons import Configured, configured_servers, running_daemons
from ntpaudit.probes.host import host_facts
from ntpaudit.probes.kernel import read_kernel
from ntpaudit.probes.timestamping import stamping_enabled
from ntpaudit.render.text_safety import one_line
from ntpaudit.store.notebook import Notebook

logger = LazyLogger(__name__)


class Plan(NamedTuple):
    """What to audit, and against what. `from_host` adds the servers this host's own daemons are configured with.

    `with_pools` False leaves public pools alone this time: they are asked more seldom than servers. The oscillator is
    assumed to be off by `max_drift_ppm` at most, unless the host shows that it is worse (R4).
    """

    sources: tuple[Source, ...]
    profile: Profile
    labels: Labels
    options: QueryOptions = DEFAULT_OPTIONS
    from_local_daemon: bool = False
    host_name: str | None = None
    persist: bool = False
    with_pools: bool = True
    max_drift_ppm: float = MAX_DRIFT_PPM


class HostServers:
    """The servers that this host's own daemons were started with, as last seen.

    While no daemon runs they stay as they were: a host whose daemon has ended is one to watch.
    """

    def __init__(self) -> None:
        self._last = Configured()

    def look(self) -> Configured:
        """Return them, and what is not known of them now."""
        now = configured_servers()
        if now.is_known or now.servers:
            self._last = now
        return self._last._replace(problems=now.problems)


def run(plan: Plan, clock: Clock, notebook: Notebook, show_progress: ShowProgress = show_nothing) -> Record:
    """Audit this host's clock once. What the world does wrong is in the record; what the state does wrong is noted.

    `plan.keep` stores the observation before it is judged, and the record after.
    """
    observation = observe(plan, clock, notebook.update, show_progress)
    kept = notebook.keep_observation(observation) if plan.persist else None
    record = conclude(observation, plan.profile, plan.labels, plan.max_drift_ppm)
    if kept is not None:
        notebook.keep_record(kept, record)
    return record


def observe(
    plan: Plan,
    clock: Clock,
    update: StateUpdater,
    show_progress: ShowProgress = show_nothing,
    own: HostServers | None = None,
) -> Observation:
    """Ask the world and return all that was seen; `update` keeps what is to be remembered of the servers."""
    with stamping_enabled():
        daemons = running_daemons()
        sources, left_out = planned_sources(plan, own or HostServers(), logs=True)
        survey = PollRound(sources, plan.options, show_progress)
        host = host_facts(plan.host_name)  # while names are being resolved
        start = clock.read()
        answered = survey.poll(clock, Instant(host.boot_id, start.boottime_ns, start.realtime_ns), update)
    return Observation(
        host=host,
        taken=clock.read(),
        sources=(*answered, *left_out),
        kernel=read_kernel(),
        daemons=daemons,
    )


def planned_sources(
    plan: Plan, own: HostServers, *, logs: bool = False
) -> tuple[tuple[Source, ...], tuple[SourceObservation, ...]]:
    """Return whom a plan asks, and of whom it knows without asking."""
    sources, left_out = _host_sources(own, logs=logs) if plan.from_local_daemon else ((), ())
    sources = (*plan.sources, *sources)
    if plan.from_local_daemon and logs and not sources and not left_out:
        logger.warning(
            "no server is known from this host's time daemon: name four or more yourself, as in "
            "`ntpaudit check SERVER...`, or as sources.servers in the configuration"
        )
    if plan.with_pools:
        return sources, left_out
    resting = Failure("skipped", "interval", "the pool is asked more seldom")
    pools = tuple(SourceObservation(zone.zone, None, zone.port, resting) for zone in sources if is_public_pool(zone))
    return tuple(source for source in sources if not is_public_pool(source)), (*left_out, *pools)


def _host_sources(own: HostServers, *, logs: bool) -> tuple[tuple[Source, ...], tuple[SourceObservation, ...]]:
    """Return the servers this host is configured with, and those of them that cannot be asked."""
    configured = own.look()
    if logs:
        for problem in configured.problems:
            logger.warning(one_line(problem))
    sources: list[Source] = []
    left_out = []
    for server in configured.servers:
        if server.nts:  # N10: never ask in clear who was to be asked with authentication
            failure = Failure("skipped", "nts", "NTS is not supported by this version")
            left_out.append(SourceObservation(server.host, None, server.port, failure))
        elif server.pool or is_pool_name(server.host):
            sources.append(_host_pool(server.host, server.port))
        else:
            sources.append(_named(server.host, server.port))
    return tuple(sources), tuple(left_out)


def is_public_pool(source: Source) -> TypeGuard[Pool]:
    """Whether a source is a zone of the NTP pool, whose terms hold (P2)."""
    return isinstance(source, Pool) and source.is_public


def _host_pool(host: str, port: int) -> Source:
    """Return a pool that a daemon is configured with; what can be no pool's name is asked as a server."""
    try:
        return pool(host)._replace(port=port)
    except ValueError:
        return _named(host, port)


def _named(host: str, port: int) -> Server:
    """Return a server whose name tells it from others of the same host."""
    plain = f"[{host}]" if ":" in host else host
    return Server(host if port == NTP_PORT else f"{plain}:{port}", host, port)
