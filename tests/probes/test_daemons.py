"""Time daemons found among real processes; a script is, to the kernel, a process of the script's name."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ntpaudit.core.observation import Daemon, Unavailable
from ntpaudit.probes.daemons import running_daemons
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY
from tests.world.servers import chronyd

_WAIT = "echo $$; read line"
_WAIT_IN_TWO_PROCESSES = "exec 3<&0; (read line <&3) & echo $$ $!; read line <&3; wait"


def _script(name: str, folder: Path, body: str) -> Path:
    script = folder / name
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return script


@contextmanager
def _process(name: str, folder: Path, *, words: Sequence[str] = (), body: str = _WAIT) -> Iterator[list[int]]:
    """Run a shell script of that name until the block ends, when its standard input ends; yield the pids it prints."""
    command = [str(_script(name, folder, body)), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        # Its name changes only after Popen has returned, but before its first line.
        yield [int(pid) for pid in process.stdout.readline().split()]


def _seen(*pids: int) -> list[Daemon]:
    """The daemons found among these processes; this machine may run others."""
    found = running_daemons()
    assert not isinstance(found, Unavailable)
    assert list(found) == sorted(found, key=lambda daemon: (daemon.name, daemon.pid))
    return [daemon for daemon in found if daemon.pid in pids]


@pytest.mark.parametrize(
    ("process_name", "daemon"),
    [
        ("chronyd", "chronyd"),
        ("ntpd", "ntpd"),
        ("openntpd", "openntpd"),
        ("systemd-timesyncd", "systemd-timesyncd"),
        ("ntp-daemon", "ntpd-rs"),
        ("ntpd-rs", "ntpd-rs"),
    ],
)
def test_a_daemon_is_known_by_its_process(process_name: str, daemon: str, tmp_path: Path) -> None:
    """A process of a time daemon's name is that daemon, and holds the clock as far as its arguments tell."""
    with _process(process_name, tmp_path) as (pid,):
        assert _seen(pid) == [Daemon(daemon, pid, disciplines=True)]


@pytest.mark.parametrize("name", ["chronyc", "ntpdate", "xntpd", "ntpd-exporter", "phc2sys", "chronyd-exporter"])
def test_other_names_are_no_daemons(name: str, tmp_path: Path) -> None:
    """A name that merely resembles a daemon's is not taken for it."""
    with _process(name, tmp_path) as pids:
        assert _seen(*pids) == []


def test_a_real_chronyd_that_only_serves_leaves_the_clock_alone() -> None:
    """A chronyd -x is seen, and not counted among those that discipline the clock."""
    with chronyd() as server:
        assert _seen(server.pid) == [Daemon("chronyd", server.pid, disciplines=False)]


@pytest.mark.parametrize(
    ("arguments", "disciplines"),
    [
        ("", True),
        ("-F 1", True),
        ("-d -s -f /etc/chrony.conf", True),
        ("-x", False),
        ("-xd", False),
        ("-dx -F -1", False),
        ("-F -1 -x", False),
        ("-Q", False),
        ("-t 5 -Q", False),
        ("server.example -x", False),
        ("-q", True),
        ("-f -x", True),
        ("-fx", True),
        ("-u nox", True),
        ("-- -x", True),
        ("--unknown -x", True),
    ],
)
def test_arguments_tell_whether_chronyd_holds_the_clock(arguments: str, disciplines: bool, tmp_path: Path) -> None:
    """Its options are read as chronyd reads them: an x that is another option's value keeps it from nothing."""
    with _process("chronyd", tmp_path, words=arguments.split()) as (pid,):
        assert _seen(pid) == [Daemon("chronyd", pid, disciplines)]


def test_only_chronyd_is_kept_from_the_clock_by_x(tmp_path: Path) -> None:
    """The -x of ntpd is to slew, so an ntpd that has it holds the clock."""
    with _process("ntpd", tmp_path, words=["-x"]) as (pid,):
        assert _seen(pid) == [Daemon("ntpd", pid, disciplines=True)]


def test_a_helper_process_counts_with_its_parent(tmp_path: Path) -> None:
    """A daemon that runs as parent and child, as chronyd and OpenNTPD do, is one daemon with the parent's pid."""
    with _process("ntpd", tmp_path, body=_WAIT_IN_TWO_PROCESSES) as (pid, helper):
        assert Path(f"/proc/{helper}/comm").read_text() == "ntpd\n"
        assert _seen(pid, helper) == [Daemon("ntpd", pid)]


def test_two_daemons_are_two(tmp_path: Path) -> None:
    """Daemons of the same name that are not each other's children are counted each, in the order of their pids."""
    with _process("ntpd", tmp_path) as pids, _process("ntpd", tmp_path) as more_pids:
        assert _seen(*pids, *more_pids) == [Daemon("ntpd", pid) for pid in sorted(pids + more_pids)]


def test_a_zombie_is_no_daemon(tmp_path: Path) -> None:
    """A daemon that has ended and was not yet buried by its parent does not run."""
    with _process("chronyd", tmp_path, body="echo $$") as (pid,):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{pid}/comm").read_text() == "chronyd\n"
        assert _seen(pid) == []


def test_processes_that_come_and_go_do_no_harm(tmp_path: Path) -> None:
    """Daemons that end while they are being looked at are left out, or seen as they were."""
    script = _script("chronyd", tmp_path, ":")
    with subprocess.Popen(["sh", "-c", 'while :; do "$0"; done', script]) as restless:
        try:
            assert all(isinstance(running_daemons(), tuple) for _ in range(100))
        finally:
            restless.terminate()


@pytest.mark.needs("root", "mount", "another-user")
@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        ("mount -t proc -o hidepid=1 proc /proc", "the processes of other users are hidden here"),
        ("mount -t proc -o hidepid=2 proc /proc", "the processes of other users are hidden here"),
        ("mount -t tmpfs -o mode=000 none /proc", "the list of processes cannot be read: Permission denied"),
    ],
)
def test_not_to_see_is_not_to_find_none(mount: str, reason: str) -> None:
    """Where an unprivileged user is not shown the processes of others, the question is unanswered, not answered no."""
    question = (
        "from ntpaudit.probes.daemons import running_daemons; "
        "from tests.world.another_user import become_another_user; "
        "become_another_user(); print(running_daemons())"
    )
    command = [*unshared("mount"), "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", question]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(Unavailable(reason)), done.stderr
