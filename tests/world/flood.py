"""A user who fills the queue of a listening Unix socket again and again, and reads no answer."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONNECTIONS = 1000  # more than a queue holds

_FLOOD = """
import socket, sys
waiting, made = [], 0
while True:
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        client.connect(sys.argv[1])
    except BlockingIOError:  # the queue is full
        continue
    waiting = [*waiting[-200:], client]
    made += 1
    if made == int(sys.argv[2]):
        print(flush=True)
"""


@contextmanager
def flooded(place: Path) -> Iterator[None]:
    """Connect to a socket until the block ends; it begins once there were very many connections."""
    command = [sys.executable, "-c", _FLOOD, str(place), str(_CONNECTIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as flood:
        assert flood.stdout
        flood.stdout.readline()
        try:
            yield
        finally:
            flood.kill()
