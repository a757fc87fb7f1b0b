"""A process that has imported the program, and forks itself for each command: a new interpreter would import it again.

A command that it runs is a process of its own, with its own arguments, environment, folder, files, signals and exit
status. Only the start of the interpreter and the imports are shared.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import IO, Any, NoReturn

import ntpaudit.__main__
from tests.world.packages import REPOSITORY

LONGEST_REQUEST = 1 << 17
"""Octets of the arguments and the environment of a command."""

READ_AT_START = ("PYTHON", "COVERAGE_", "LD_", "LC_", "LANG", "MALLOC_", "FAKETIME")
"""What an interpreter and its libraries read before the program runs, so that it must be what the server began with."""


class Forked:
    """A process that runs ntpaudit, with the methods of `subprocess.Popen`; its parent is the server."""

    def __init__(self, words: Sequence[str], *, env: Mapping[str, str], stdout: IO[Any], stderr: IO[Any]) -> None:
        self.args = list(words)
        self.returncode: int | None = None
        self._replies, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = _server(tuple((key, env[key]) for key in sorted(env) if key.startswith(READ_AT_START)))
        request = json.dumps([self.args, dict(env), os.getcwd()]).encode()
        with theirs, open(os.devnull) as stdin:
            files = [file.fileno() for file in (theirs, stdin, stdout, stderr)]
            socket.send_fds(server, [request], files)
        self.pid = int(self._replies.recv(16))

    def poll(self) -> int | None:
        """Return the exit status, None while the process runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, minus the signal that killed it. Raises TimeoutExpired."""
        if self.returncode is None:
            self._replies.settimeout(timeout)
            try:
                reply = self._replies.recv(16)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self._replies.close()
            self.returncode = int(reply)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


@cache
def _server(start: tuple[tuple[str, str], ...]) -> socket.socket:
    """Start a server whose interpreter begins with these variables, and return where it takes requests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
            cwd=REPOSITORY,
            env={key: value for key, value in os.environ.items() if not key.startswith(READ_AT_START)} | dict(start),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _next_command(requests: socket.socket) -> tuple[list[str], dict[str, str], str] | None:
    """Fork for each request and report each exit status. Return the request in the fork, None at the end."""
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for key, _ in selector.select():
            if key.fd in running:
                selector.unregister(key.fd)
                pid, replies = running.pop(key.fd)
                os.close(key.fd)
                with replies, contextlib.suppress(BrokenPipeError):  # where nothing waits for it any more
                    replies.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                continue
            request, files, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 4)
            if not request:
                return None
            replies = socket.socket(fileno=files.pop(0))
            if not (pid := os.fork()):
                for waiting in (replies, *(waiting for _, waiting in running.values())):
                    waiting.close()
                requests.close()
                selector.close()
                for number, file in enumerate(files):
                    os.dup2(file, number)
                for file in (*files, *running):
                    os.close(file)
                command: tuple[list[str], dict[str, str], str] = json.loads(request)
                return command
            for file in files:
                os.close(file)
            ended = os.pidfd_open(pid)
            running[ended] = pid, replies
            selector.register(ended, selectors.EVENT_READ)
            replies.send(b"%d" % pid)


def main() -> None:
    """Import the whole program, and run each command that is asked for in a fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, to end the tests: they end the server
    for module in pkgutil.walk_packages(ntpaudit.__path__, "ntpaudit."):
        with contextlib.suppress(ImportError):  # what it needs is optional: the command that imports it says so
            importlib.import_module(module.name)
    if coverage := sys.modules.get("coverage"):
        coverage.Coverage.current().save()  # or each command would save again which lines the imports ran
    gc.collect()
    gc.freeze()
    command = _next_command(socket.socket(fileno=int(sys.argv[1])))
    if command is None:
        return
    words, environment, folder = command
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    sys.argv[1:] = words
    for name in ("stdin", "stdout", "stderr"):  # Python asks a file once whether it is a terminal or a pipe
        stream = _reopened(getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    try:
        ntpaudit.__main__.main()
    except SystemExit as end:
        _end(end.code)


def _reopened(stream: io.TextIOWrapper) -> IO[Any]:
    number, mode = stream.fileno(), stream.mode
    return open(number, mode, encoding=stream.encoding, errors=stream.errors, newline="\n", closefd=False)


def _end(status: Any) -> NoReturn:
    """End as Python does, without giving back object by object the memory shared with the server: it takes 25 ms."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
