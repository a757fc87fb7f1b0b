"""Find the time daemons that run on this host, and the servers that they are configured with."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ntpaudit.core.observation import (
    Claim,
    Configuration,
    ConfiguredServer,
    Daemon,
    HiddenDaemons,
    TimeUnit,
    Unavailable,
)
from ntpaudit.probes.daemons import chronyd, linuxptp, ntpd, ntpd_rs, openntpd, others, timesyncd
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import DaemonKind, Process
from ntpaudit.probes.daemons.process import find_process, time_processes
from ntpaudit.probes.daemons.units import unit_states

KINDS = (
    chronyd.KIND,
    ntpd.KIND,
    openntpd.KIND,
    timesyncd.KIND,
    ntpd_rs.KIND,
    linuxptp.PHC2SYS,
    linuxptp.PTP4L,
    linuxptp.TIMEMASTER,
    others.SFPTPD,
    others.VBOXSERVICE,
    others.VMTOOLSD,
    others.PRLTOOLSD,
)
"""Every kind of program that sets clocks. To add one, see docs/contributing.md."""

_LACKS = "cannot set the clock: it lacks CAP_SYS_TIME"
_NOT_ASKED = "neither root nor a service of its own started it"
_MAX_POWERLESS = 64
_UNITS = frozenset(unit for kind in KINDS for unit in kind.units)
_BY_PROCESS = {name: kind for kind in KINDS for name in kind.process_names}


class Running(NamedTuple):
    """A time daemon that runs: what it is, and the process that it is."""

    daemon: Daemon
    kind: DaemonKind
    process: Process

    @property
    def is_trusted(self) -> bool:
        """Root started it, outside of a container that we look into, or systemd as one of its services."""
        return self.process.is_ours and (self.process.is_root or self.kind.owns_unit(self.process.unit))


class Configured(NamedTuple):
    """The servers of the daemons that run, each host and port once, and why some of them may not be known."""

    servers: tuple[ConfiguredServer, ...] = ()
    problems: tuple[str, ...] = ()
    is_known: bool = False
    """Whether a daemon runs at all whose servers could be read."""


def running_daemons() -> tuple[Daemon, ...] | HiddenDaemons:
    """Return the time daemons in sight, by name and pid; one that runs as several processes counts once."""
    running, hidden = _running()
    kernel = others.hyper_v(Files())
    daemons = (*_listed(running), *([kernel] if kernel else []))
    return daemons if hidden is None else HiddenDaemons(hidden, daemons)


def _listed(running: Sequence[Running]) -> Iterator[Daemon]:
    """Yield the daemons for the record. Anybody can start any number of programs that are called ntpd."""
    powerless = [one.daemon for one in running if not one.is_trusted and one.daemon.disciplines is False]
    unlisted = {daemon.pid for daemon in powerless[_MAX_POWERLESS:]}
    for one in running:
        if unlisted and one.daemon is powerless[_MAX_POWERLESS - 1]:
            reason = f"{one.daemon.reason}; {len(unlisted)} more such processes are not listed"
            yield one.daemon._replace(reason=reason)
        elif one.daemon.pid not in unlisted:
            yield one.daemon


def with_units(
    daemons: tuple[Daemon, ...] | HiddenDaemons,
) -> tuple[tuple[Daemon, ...] | HiddenDaemons, tuple[TimeUnit, ...]]:
    """Return these daemons with the state of their services, and the services that are time daemons."""
    seen, absent = (daemons.seen, None) if isinstance(daemons, HiddenDaemons) else (daemons, False)
    running = {daemon.unit for daemon in seen if daemon.unit is not None}
    states = unit_states(_UNITS, running)
    known = tuple(daemon._replace(enabled=states.get(daemon.unit or "")) for daemon in seen)
    units = tuple(TimeUnit(name, state, True if name in running else absent) for name, state in states.items())
    return daemons._replace(seen=known) if isinstance(daemons, HiddenDaemons) else known, units


def with_claims(
    daemons: tuple[Daemon, ...] | HiddenDaemons, *, with_sources: bool
) -> tuple[Daemon, ...] | HiddenDaemons:
    """Return these daemons with what each reports about itself now, and about its servers if asked for.

    An ntpd that was silent is asked again only with its servers: each audit would wait for it.
    """
    seen = daemons.seen if isinstance(daemons, HiddenDaemons) else daemons
    claiming = tuple(_with_claim(daemon, with_sources, _twins(daemon, seen)) for daemon in seen)
    return daemons._replace(seen=claiming) if isinstance(daemons, HiddenDaemons) else claiming


def _twins(daemon: Daemon, seen: Iterable[Daemon]) -> tuple[int, ...]:
    """Return the PIDs of other daemons of the same name; not of what any user can start under that name."""
    others = [one.pid for one in seen if one.name == daemon.name and one.pid != daemon.pid]
    found = [(pid, find_process(pid, _BY_PROCESS)) for pid in others]
    return tuple(pid for pid, one in found if one is not None and _may_be_asked(_BY_PROCESS[one[0]], one[1]))


def _with_claim(daemon: Daemon, with_sources: bool, twins: tuple[int, ...]) -> Daemon:
    before = daemon.claim
    if not with_sources and isinstance(before, Unavailable) and before.reason.startswith(ntpd.SILENT):
        return daemon
    kind = next((kind for kind in KINDS if kind.name == daemon.name), None)
    if kind is None or (kind.claim is None and not (with_sources and kind.servers)):
        return daemon
    found = find_process(daemon.pid, _BY_PROCESS)
    if kind.claim is not None:
        process = None if found is None else found[1]._replace(twins=twins)
        daemon = daemon._replace(claim=_claim(kind, process, with_sources))
    if with_sources and found is not None:
        daemon = daemon._replace(configuration=_configuration(kind, found[1]))
    return daemon


def _claim(kind: DaemonKind, process: Process | None, with_sources: bool) -> Claim | Unavailable | None:
    if kind.claim is None:
        return None
    if process is None:
        return Unavailable("it has ended")
    if not process.is_ours:
        return Unavailable("it runs in a container", "run ntpaudit in that container")
    if not _may_be_asked(kind, process):
        return Unavailable(_NOT_ASKED)
    return kind.claim(process, Files(_root(process)), with_sources)


def _configuration(kind: DaemonKind, process: Process) -> Configuration | None:
    """Return the servers that a daemon was started with; the same as those of `configured_servers`."""
    if kind.servers is None:
        return None
    if process.root is None:
        return Configuration((), ("its files cannot be seen from here",))
    if not _may_be_asked(kind, process):
        return Configuration((), (_NOT_ASKED,))
    files = Files(process.root)
    servers = tuple(kind.servers(process, files))
    return Configuration(servers, tuple(files.problems))


def log_files(daemons: Iterable[Daemon]) -> Iterator[tuple[Daemon, str]]:
    """Yield the daemons that log to a file of their own, and that file."""
    for daemon in daemons:
        kind = next((kind for kind in KINDS if kind.name == daemon.name), None)
        found = find_process(daemon.pid, _BY_PROCESS)
        if kind is not None and found is not None and _may_be_asked(kind, found[1]):
            path = kind.log_file(found[1], Files(_root(found[1])))
            if path is not None:
                yield daemon, path


def _may_be_asked(kind: DaemonKind, process: Process) -> bool:
    """Whether no other user chose what this process is called, and what it makes us read or wait for.

    Anybody can name programs ntpd, and files for them to read; only root can make one that sets the clock.
    """
    is_trusted = process.is_root or kind.owns_unit(process.unit) or process.uid == os.geteuid()
    return is_trusted or process.can_set_clock is not False


def _root(process: Process) -> str:
    return f"/proc/{process.pid}/root" if process.root is None else process.root


def configured_servers() -> Configured:
    """Return the servers that the daemons which run now were started with.

    The file of a daemon that does not run says nothing. Daemons that leave the clock alone count only where none
    disciplines it, and only those that root started: anybody can name a program chronyd, and a file for it to read.
    """
    running, hidden = _running()
    with_servers = [one for one in running if one.kind.servers is not None]
    chosen = [one for one in with_servers if one.daemon.disciplines]
    chosen = chosen or [one for one in with_servers if one.is_trusted]
    return read_servers(chosen) if chosen else Configured(problems=(_why_none(with_servers, hidden),))


def read_servers(running: list[Running]) -> Configured:
    """Return the servers that daemons were started with."""
    servers: dict[tuple[str, int], ConfiguredServer] = {}
    problems = []
    is_known = False
    for daemon, kind, process in running:
        who = f"the servers of {daemon.name} (pid {daemon.pid}) are not known"
        if process.root is None or kind.servers is None:
            problems.append(f"{who}: its files cannot be seen from here")
            continue
        files = Files(process.root)
        for server in kind.servers(process, files):
            servers.setdefault((server.host.lower(), server.port), server)
        problems += [f"{who}: {problem}" for problem in files.problems]
        is_known = is_known or not files.problems
    return Configured(tuple(servers.values()), tuple(problems), is_known)


def read_configuration(daemons: Iterable[Daemon], files: Files) -> None:
    """Read from `files` what each kind of daemon is configured by: as it runs now, and as it is started by default.

    A daemon that is not trusted is left out: it may have been started with any file.
    """
    for kind in KINDS:
        processes = [Process(0, kind.process_names[:1])]
        for daemon in daemons:
            found = find_process(daemon.pid, _BY_PROCESS) if daemon.name == kind.name else None
            if found is not None and Running(daemon, kind, found[1]).is_trusted:
                processes.append(found[1])
        for process in processes:
            kind.role(process, files)
            for _ in kind.servers(process, files) if kind.servers is not None else ():
                pass


def _running() -> tuple[list[Running], str | None]:
    processes, hidden = time_processes(_BY_PROCESS)
    running = []
    for name, process in processes:
        kind = openntpd.KIND if name == "ntpd" and openntpd.is_openntpd(process) else _BY_PROCESS[name]
        running.append(Running(_daemon(kind, process), kind, process))
    running.sort(key=lambda one: (one.daemon.name, one.daemon.pid))
    return _with_sfptpd(running), hidden


def _daemon(kind: DaemonKind, process: Process) -> Daemon:
    if not process.words and process.can_set_clock is False:
        return kind.daemon(process.pid, False, _LACKS, process.unit)
    if not process.words:
        return kind.daemon(process.pid, None, "its command line cannot be seen", process.unit)
    role = kind.role(process, Files(_root(process)))
    if role.disciplines is not False and process.can_set_clock is False:
        return kind.daemon(process.pid, False, _LACKS, process.unit)
    if role.disciplines is not False and process.can_set_clock is None:
        return kind.daemon(process.pid, None, "whether it can set the clock cannot be seen", process.unit)
    return kind.daemon(process.pid, role.disciplines, role.reason, process.unit)


def _with_sfptpd(running: list[Running]) -> list[Running]:
    """Count sfptpd as unknown beside chronyd or ntpd: it leaves the clock to these while it follows NTP."""
    leading = {one.kind.name for one in running if one.daemon.disciplines} & {"chronyd", "ntpd"}
    for index, one in enumerate(running):
        if leading and one.kind.name == "sfptpd" and one.daemon.disciplines:
            reason = f"whether it leaves the clock to {min(leading)} now cannot be seen"
            running[index] = one._replace(daemon=one.daemon._replace(disciplines=None, reason=reason))
    return running


def _why_none(others: list[Running], hidden: str | None) -> str:
    if others:
        who = ", ".join(f"{one.daemon.name} (pid {one.daemon.pid})" for one in others)
        return f"no time daemon of root or systemd runs here; ignored: {who}"
    return "no time daemon runs here" + ("" if hidden is None else f" in sight: {hidden}")
