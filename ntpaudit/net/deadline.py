"""What happens unless something ends in time."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Timer


@contextmanager
def after(limit_s: float, act: Callable[[], object]) -> Iterator[None]:
    """Call `act`, in another thread, unless a block ends in time."""
    timer = Timer(limit_s, act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def cut(sock: socket.socket) -> None:
    """End a connection, also one that another thread reads from."""
    with suppress(OSError):  # it may just have ended by itself
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS, whose own would confuse the reader
