"""What happens unless something ends in time."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Timer


@contextmanager
def after(limit_s: float, act: Callable[[], object]) -> Iterator[None]:
    """Call `act`, in another thread, unless a block ends in time."""
    timer = Timer(limit_s, act)
    timer.daemon = True
    with suppress(RuntimeError):  # no thread is available: then it is never called
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def cut_after(limit_s: float, connected: Callable[[], socket.socket | None]) -> Iterator[None]:
    """End the connection of a block unless the block ends in time; it then raises TimeoutError.

    A server that sends one octet at a time never exceeds a timeout.
    """
    was_cut = Event()

    def cut() -> None:
        if (sock := connected()) is not None:
            was_cut.set()
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS, whose own would confuse the reader
            except OSError:  # it has just ended by itself
                was_cut.clear()

    try:
        with after(limit_s, cut):
            yield
    finally:
        if was_cut.is_set():
            raise TimeoutError
