"""Time daemons found among real processes; a script is, to the kernel, a process of the script's name."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest

from ntpaudit.core.checks.daemons import STALE_POLLS, STALE_S
from ntpaudit.core.evaluation import UNSEEN_DAEMON_S
from ntpaudit.core.observation import Configuration, Daemon, HiddenDaemons, Unavailable
from ntpaudit.probes import daemons as probes_daemons
from ntpaudit.probes.daemons import KINDS, ntpd, running_daemons, sockets, with_claims
from ntpaudit.probes.daemons.chronyd import KIND as CHRONYD
from ntpaudit.probes.daemons.kind import Process
from ntpaudit.probes.daemons.process import service_of, time_processes
from tests import abilities
from tests.abilities import ANOTHER_USER
from tests.waiting import until
from tests.world.another_user import let_others_in
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY
from tests.world.servers import chronyd

_WAIT = "echo $$; read line"
_WAIT_IN_TWO_PROCESSES = "exec 3<&0; (read line <&3) & echo $$ $!; read line <&3; wait"

NOT_ASKED = "neither root nor a service of its own started it"
LACKS = "cannot set the clock: it lacks CAP_SYS_TIME"
HIDDEN = "the processes of other users are hidden here"
OWN_NAMESPACE = "this container has a PID namespace of its own, and daemons outside it cannot be seen"


def _script(name: str, folder: Path, body: str) -> Path:
    script = folder / name
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return script


@contextmanager
def _process(
    name: str, folder: Path, *, words: Sequence[str] = (), body: str = _WAIT, before: Sequence[str] = ()
) -> Iterator[list[int]]:
    """Run a shell script of that name until the block ends, when its standard input ends; yield the pids it prints."""
    command = [*before, str(_script(name, folder, body)), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        # Its name changes only after Popen has returned, but before its first line.
        yield [int(pid) for pid in process.stdout.readline().split()]


def _found() -> tuple[Daemon, ...]:
    """The daemons in sight: whether there may be more depends on where the tests run."""
    found = running_daemons()
    seen = found.seen if isinstance(found, HiddenDaemons) else found
    assert list(seen) == sorted(seen, key=lambda daemon: (daemon.name, daemon.pid))
    return seen


def _seen(*pids: int) -> list[Daemon]:
    """The daemons found among these processes; this machine may run others."""
    return [daemon for daemon in _found() if daemon.pid in pids]


def _holding(name: str, pid: int) -> Daemon:
    """What a process of that name is that would discipline the clock, as far as the tests may set it."""
    may_set_clock = abilities.lacking("set-clock") is None
    kind = next(kind for kind in KINDS if kind.name == name)
    return kind.daemon(pid) if may_set_clock else kind.daemon(pid, disciplines=False, reason=LACKS)


@pytest.mark.parametrize(
    ("process_name", "daemon"),
    [
        ("chronyd", "chronyd"),
        ("ntpd", "ntpd"),
        ("openntpd", "openntpd"),
        ("systemd-timesyncd", "systemd-timesyncd"),
        ("ntp-daemon", "ntpd-rs"),
        ("ntpd-rs", "ntpd-rs"),
        ("phc2sys", "phc2sys"),
        ("sfptpd", "sfptpd"),
        ("VBoxService", "VBoxService"),
    ],
)
def test_a_daemon_is_known_by_its_process(process_name: str, daemon: str, tmp_path: Path) -> None:
    """A process of a time daemon's name is that daemon, and holds the clock if it may set it at all."""
    with _process(process_name, tmp_path) as (pid,):
        found = _found()
    (own,) = (one for one in found if one.pid == pid)
    if daemon == "sfptpd" and any(one.disciplines and one.name in ("chronyd", "ntpd") for one in found):
        assert own.disciplines is None  # another test's daemon runs, and sfptpd may leave the clock to it
    else:
        assert own == _holding(daemon, pid)


def test_none_polls_more_rarely_than_the_checks_assume() -> None:
    """A daemon of any kind that is not seen has updated the kernel before it counts as stopped, or as stale."""
    slowest = max(KINDS, key=lambda kind: kind.max_poll_s)
    assert slowest.max_poll_s * STALE_POLLS <= UNSEEN_DAEMON_S, f"raise UNSEEN_DAEMON_S for {slowest.name}"
    assert slowest.max_poll_s < STALE_S, f"raise STALE_S for {slowest.name}"


@pytest.mark.parametrize("name", ["chronyc", "ntpdate", "xntpd", "ntpd-exporter", "phc2sysx", "chronyd-exporter"])
def test_other_names_are_no_daemons(name: str, tmp_path: Path) -> None:
    """A name that merely resembles a daemon's is not taken for it."""
    with _process(name, tmp_path) as pids:
        assert _seen(*pids) == []


def test_a_real_chronyd_that_only_serves_leaves_the_clock_alone() -> None:
    """A chronyd -x is seen, and not counted among those that discipline the clock."""
    with chronyd() as server:
        assert _seen(server.pid) == [CHRONYD.daemon(server.pid, disciplines=False, reason="started with -x")]


# --- who may set the clock ----------------------------------------------------------------------------------------

POWERLESS = ["setpriv", "--bounding-set=-sys_time", "--inh-caps=-sys_time"]
AS_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
OWN_USERS = ["unshare", "--user", "--map-root-user"]


NO_DAEMON = [
    *([pytest.param([], id="an ordinary user")] if os.geteuid() else []),
    pytest.param(POWERLESS, id="root without the capability", marks=pytest.mark.needs("root")),
    pytest.param(AS_USER, id="another user", marks=pytest.mark.needs("another-user")),
    pytest.param(OWN_USERS, id="a user namespace of its own", marks=pytest.mark.needs("userns")),
    pytest.param([*AS_USER, *OWN_USERS], id="another user's", marks=pytest.mark.needs("another-user", "userns")),
]


@pytest.mark.parametrize("name", ["chronyd", "ntpd", "phc2sys", "vmtoolsd"])
@pytest.mark.parametrize("before", NO_DAEMON)
def test_a_name_is_no_daemon(name: str, before: list[str], tmp_path: Path) -> None:
    """`cp /bin/sleep chronyd; ./chronyd 15` disciplines nothing: without CAP_SYS_TIME a process sets no clock.

    In a user namespace of his own every user has every capability, and none that counts here.
    """
    shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / name)
    let_others_in(tmp_path)
    with subprocess.Popen([*before, str(tmp_path / name), "60"]) as process:
        try:
            daemons = _eventually(process.pid, name)
        finally:
            process.terminate()
    assert daemons == [_holding(name, process.pid)._replace(disciplines=False, reason=LACKS)]


def test_a_program_without_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can start one: it is no daemon that may discipline the clock unseen."""
    processes = [("ntpd", Process(one, (), can_set_clock=able)) for one, able in ((1, False), (2, True), (3, None))]
    monkeypatch.setattr(probes_daemons, "time_processes", lambda _names: (processes, None))
    unseen = "its command line cannot be seen"
    assert [(one.disciplines, one.reason) for one in _found()] == [(False, LACKS), (None, unseen), (None, unseen)]


def _eventually(pid: int, name: str) -> list[Daemon]:
    """What a process is once it has its name and, a moment later, its command line."""
    process = Path(f"/proc/{pid}")
    until(lambda: (process / "comm").read_text().strip() == name and (process / "cmdline").read_bytes(), name)
    return _seen(pid)


@pytest.mark.needs("another-user")
@pytest.mark.parametrize("name", ["chronyd", "ntpd", "ntp-daemon"])
def test_another_users_program_is_not_asked(name: str, tmp_path: Path) -> None:
    """Anybody can start a hundred of them: each would make an audit read its files, and wait for a reply."""
    shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / name)
    let_others_in(tmp_path)
    with subprocess.Popen([*AS_USER, str(tmp_path / name), "60"]) as process:
        try:
            (daemon,) = with_claims(tuple(_eventually(process.pid, name)), with_sources=True)  # type: ignore[misc]
        finally:
            process.terminate()
    assert daemon.claim == Unavailable(NOT_ASKED)
    assert daemon.configuration == Configuration((), (NOT_ASKED,))


@pytest.mark.needs("set-clock", "another-user")
def test_another_user_that_may_set_the_clock_is_believed(tmp_path: Path) -> None:
    """Daemons that gave up root and kept the capability discipline the clock."""
    keeps = [*AS_USER, "--inh-caps=+sys_time", "--ambient-caps=+sys_time"]
    let_others_in(tmp_path)
    with _process("chronyd", tmp_path, before=keeps) as (pid,):
        assert _seen(pid) == [CHRONYD.daemon(pid)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("", None),
        ("-F 1", None),
        ("-d -s -f /etc/chrony.conf", None),
        ("-x", "started with -x"),
        ("-xd", "started with -x"),
        ("-dx -F -1", "started with -x"),
        ("-F -1 -x", "started with -x"),
        ("-Q", "started with -Q"),
        ("-t 5 -Q", "started with -Q"),
        ("server.example -x", "started with -x"),
        ("-q", None),
        ("-f -x", None),
        ("-fx", None),
        ("-u nox", None),
        ("-- -x", None),
        ("--unknown -x", None),
    ],
)
def test_arguments_show_whether_chronyd_disciplines_the_clock(
    arguments: str, reason: str | None, tmp_path: Path
) -> None:
    """Its options are read as chronyd reads them: an x that is another option's value keeps it from nothing."""
    with _process("chronyd", tmp_path, words=arguments.split()) as (pid,):
        wanted = _holding("chronyd", pid) if reason is None else CHRONYD.daemon(pid, disciplines=False, reason=reason)
        assert _seen(pid) == [wanted]


def test_only_chronyd_is_kept_from_the_clock_by_x(tmp_path: Path) -> None:
    """The -x of ntpd is to slew, so an ntpd that has it holds the clock."""
    with _process("ntpd", tmp_path, words=["-x"]) as (pid,):
        assert _seen(pid) == [_holding("ntpd", pid)]


@pytest.mark.needs("set-clock")
def test_sfptpd_leaves_the_clock_to_chronyd_or_not(tmp_path: Path) -> None:
    """It follows NTP by leaving the clock to chronyd: beside a chronyd that disciplines it, this cannot be seen."""
    other = tmp_path / "other"
    other.mkdir()
    with _process("sfptpd", tmp_path) as (pid,), _process("chronyd", other) as (chrony,):
        reason = "whether it leaves the clock to chronyd now cannot be seen"
        assert _seen(pid, chrony) == [CHRONYD.daemon(chrony), Daemon("sfptpd", pid, None, reason)]


# --- processes ----------------------------------------------------------------------------------------------------


@pytest.mark.needs("pidns")
def test_a_process_in_a_container_is_not_ours(tmp_path: Path) -> None:
    """What runs in a PID namespace inside of ours is seen, and known for what it is."""
    with _process("ntpd", tmp_path, before=unshared("mount", "pid"), body="echo; read line") as _:
        found = [process for _, process in time_processes(["ntpd"])[0]]
        (contained,) = [one for one in found if str(tmp_path / "ntpd") in one.words]
        assert not contained.is_ours
    with _process("ntpd", tmp_path) as (pid,):
        (own,) = [process for _, process in time_processes(["ntpd"])[0] if process.pid == pid]
        assert own.is_ours


def test_a_helper_process_counts_with_its_parent(tmp_path: Path) -> None:
    """A daemon that runs as parent and child, as chronyd and OpenNTPD do, is one daemon with the parent's pid."""
    with _process("ntpd", tmp_path, body=_WAIT_IN_TWO_PROCESSES) as (pid, helper):
        assert Path(f"/proc/{helper}/comm").read_text() == "ntpd\n"
        assert _seen(pid, helper) == [_holding("ntpd", pid)]
        (process,) = [process for _, process in time_processes(["ntpd"])[0] if process.pid == pid]
        assert process.helpers == (process.words,)


@pytest.mark.parametrize("words", [(), ("",), ("-f", "", "a b"), ("-x", "")])
def test_user_and_command_line_are_what_psutil_reads(words: tuple[str, ...], tmp_path: Path) -> None:
    """They equal what psutil reads, also for arguments that are empty or hold spaces."""
    with _process("ntpd", tmp_path, words=words) as (pid,):
        (process,) = [process for _, process in time_processes(["ntpd"])[0] if process.pid == pid]
        oracle = psutil.Process(pid)
        assert process.words == tuple(oracle.cmdline())
        assert process.is_root == (oracle.uids().real == 0)


def test_a_title_is_split_into_words(tmp_path: Path) -> None:
    """A process that wrote a title over its command line has one text there, as OpenNTPD's engine does."""
    shutil.copy("/bin/cat", tmp_path / "ntpd")
    with subprocess.Popen(["ntpd: ntp engine"], executable=tmp_path / "ntpd", stdin=subprocess.PIPE) as engine:
        _eventually(engine.pid, "ntpd")
        (process,) = [process for _, process in time_processes(["ntpd"])[0] if process.pid == engine.pid]
        assert process.words == ("ntpd:", "ntp", "engine") == tuple(psutil.Process(engine.pid).cmdline())


def test_two_daemons_are_two(tmp_path: Path) -> None:
    """Daemons of the same name that are not each other's children are counted each, in the order of their pids."""
    with _process("ntpd", tmp_path) as pids, _process("ntpd", tmp_path) as more_pids:
        assert _seen(*pids, *more_pids) == [_holding("ntpd", pid) for pid in sorted(pids + more_pids)]


def test_a_zombie_is_no_daemon(tmp_path: Path) -> None:
    """A daemon that has ended and was not yet buried by its parent does not run."""
    with _process("chronyd", tmp_path, body="echo $$") as (pid,):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{pid}/comm").read_text() == "chronyd\n"
        assert _seen(pid) == []


@pytest.mark.needs("another-user")
def test_a_crowd_of_false_daemons_is_not_listed(tmp_path: Path) -> None:
    """64 of those that cannot set the clock, and how many more there are; beside them each one that root started."""
    let_others_in(tmp_path)
    shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "chronyd")
    as_another = ["setpriv", f"--reuid={ANOTHER_USER}", f"--regid={ANOTHER_USER}", "--clear-groups"]
    command = [*as_another, "sh", "-c", 'for i in $(seq 70); do "$0" 60 & done; wait', str(tmp_path / "chronyd")]
    with chronyd() as real, subprocess.Popen(command, start_new_session=True) as crowd:
        try:
            assert until(lambda: len(time_processes(["chronyd"])[0]) > 70)
            found = [daemon for daemon in _found() if daemon.name == "chronyd"]
            powerless = [daemon for daemon in found if os.stat(f"/proc/{daemon.pid}").st_uid == ANOTHER_USER]
        finally:
            os.killpg(crowd.pid, signal.SIGKILL)
    assert real.pid in [daemon.pid for daemon in found]
    assert 0 < len(powerless) <= 64
    (reason,) = {daemon.reason for daemon in powerless} - {LACKS}
    assert re.fullmatch(rf"{LACKS}; \d+ more such processes are not listed", reason or "")


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/chrony.service\n", "chrony.service"),
        ("0::/time.slice/time-ntp.slice/chrony.service\n", "chrony.service"),
        ("0::/chrony.service/payload\n", "chrony.service"),
        ("2:cpu:/other\n1:name=systemd:/time.slice/chrony.service\n", "chrony.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/chrony.service\n", None),
        ("0::/user.slice/chrony.service\n", None),
        ("0::/machine.slice/libpod-1.scope/system.slice/chrony.service\n", None),
        ("0::/machine.slice/nspawn@web.service/payload/system.slice/chrony.service\n", "nspawn@web.service"),
        ("0::/\n", None),
    ],
)
def test_the_service_of_a_process(cgroups: str, unit: str | None) -> None:
    """In any slice of the system; not one of a user's own manager, nor one of a container."""
    assert service_of(cgroups) == unit


def test_a_silent_ntpd_is_asked_again_with_its_servers() -> None:
    """Each audit would wait for it in vain; another reason may have gone."""
    for reason, again in ((f"{ntpd.SILENT} from 127.0.0.1", False), ("it cannot be queried", True)):
        before = (Daemon("ntpd", 1 << 22, claim=Unavailable(reason)),)
        asked = (Daemon("ntpd", 1 << 22, claim=Unavailable("it has ended")),)
        assert with_claims(before, with_sources=False) == (asked if again else before)
        assert with_claims(before, with_sources=True) == asked


def test_tables_of_sockets_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may have very many sockets: two addresses of a daemon are looked up in the same table."""
    opened: list[str] = []

    def counting(path: str, *, encoding: str) -> IO[str]:
        opened.append(path)
        return open(path, encoding=encoding)

    monkeypatch.setattr(sockets, "open", counting, raising=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving, ExitStack() as stack:
        serving.bind(("127.0.0.1", 0))
        place = serving.getsockname()
        port = sockets.UdpPort(Process(os.getpid(), ("ntpd",), uid=os.geteuid()), place[1])
        first, other = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
        first.connect(place)
        other.connect(("127.0.0.2", place[1]))
        assert port.why_not_believed(first) is None
        assert port.why_not_believed(other) == Unavailable(f"no program has UDP port {place[1]} of 127.0.0.2")
    assert [path for path in opened if "/net/udp" in path] == [
        f"/proc/{os.getpid()}/net/{one}" for one in ("udp", "udp6")
    ]


def test_processes_that_come_and_go_do_no_harm(tmp_path: Path) -> None:
    """Daemons that end while they are being looked at are left out, or seen as they were."""
    script = _script("chronyd", tmp_path, ":")
    with subprocess.Popen(["sh", "-c", 'while :; do "$0"; done', script]) as restless:
        try:
            assert all(isinstance(_found(), tuple) for _ in range(100))
        finally:
            restless.terminate()


# --- what cannot be seen ------------------------------------------------------------------------------------------


def _asked(question: Sequence[str], before: Sequence[str]) -> str:
    """What a process says that is started so."""
    command = [*before, sys.executable, "-c", "\n".join(question)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_AS_ANOTHER_USER = [
    "from ntpaudit.probes.daemons import running_daemons",
    "from tests.world.another_user import become_another_user",
    "become_another_user(); print(running_daemons())",
]


@pytest.mark.needs("root", "mount", "another-user")
@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        ("mount -t proc -o hidepid=1 proc /proc", HIDDEN),
        ("mount -t proc -o hidepid=2 proc /proc", HIDDEN),
        ("mount -t tmpfs -o mode=000 none /proc", "the list of processes cannot be read: Permission denied"),
    ],
)
def test_not_to_see_is_not_to_find_none(mount: str, reason: str) -> None:
    """Where an unprivileged user is not shown the processes of others, the question is unanswered, not answered no."""
    said = _asked(_AS_ANOTHER_USER, [*unshared("mount"), "sh", "-c", f'{mount} && exec "$@"', "sh"])
    assert said == str(HiddenDaemons(reason))


@pytest.mark.needs("pidns")
def test_a_pid_namespace_of_its_own_hides_the_daemons_outside() -> None:
    """In a container with a PID namespace of its own, no daemon in sight is not no daemon."""
    question = ["import ntpaudit.probes.daemons as daemons", "print(daemons.running_daemons())"]
    with chronyd():  # outside, and not in sight
        assert _asked(question, unshared("mount", "pid")) == str(HiddenDaemons(OWN_NAMESPACE))


@pytest.mark.needs("pidns")
def test_what_is_in_sight_does_not_stand_for_what_is_hidden(tmp_path: Path) -> None:
    """A process that is called chronyd and sets no clock answers nothing about daemons that are hidden."""
    shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "chronyd")
    question = [
        "import subprocess, ntpaudit.probes.daemons as daemons",
        f"fake = subprocess.Popen([{str(tmp_path / 'chronyd')!r}, '60'])",
        "while open(f'/proc/{fake.pid}/comm').read() != 'chronyd\\n': pass",  # Popen returns before it has its name
        "found = daemons.running_daemons()",
        "print(found.reason, *found.seen, fake.pid, sep='|')",
        "fake.kill(); fake.wait()",
    ]
    before = [*unshared("mount", "pid"), *([] if os.geteuid() else POWERLESS)]
    reason, seen, pid = _asked(question, before).split("|")
    assert reason == OWN_NAMESPACE
    assert seen == str(CHRONYD.daemon(int(pid), disciplines=False, reason=LACKS))


REUSED = """
import subprocess, time
from ntpaudit.core.observation import Daemon
from ntpaudit.probes.daemons.process import WatchedProcesses

first = subprocess.Popen(["sleep", "60"])
seen, unwatched = Daemon("chronyd", first.pid, True), Daemon("ntpd", 1 << 22, True)
watched = WatchedProcesses()
watched.update([seen, Daemon("kernel", 0, True)])
print(watched.has_ended(seen), watched.has_ended(unwatched))
first.kill(), first.wait()
print(watched.has_ended(seen))
time.sleep(0.1)  # the start of a process is known to a hundredth of a second
with open("/proc/sys/kernel/ns_last_pid", "w") as last:
    last.write(str(first.pid - 1))
second = subprocess.Popen(["sleep", "60"])
print(second.pid == first.pid, watched.has_ended(seen))
watched.update([seen])
print(watched.has_ended(seen))
second.kill(), second.wait()
watched.update([seen])
print(watched.has_ended(seen))
"""


@pytest.mark.needs("pidns")
def test_a_process_id_that_was_given_away_is_an_end() -> None:
    """A daemon has ended although a process has its id again, which started later."""
    command = [*unshared("pid", "mount"), sys.executable, "-c", REUSED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False", "True", "True True", "False", "True"]
