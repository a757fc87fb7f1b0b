"""The message bus: its real messages, malformed ones, and peers that do not answer as a bus does."""

import base64
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.probes.dbus import TIMESYNCD, BusError, ask, read_properties

REAL = base64.b64decode(
    "bAIBAagCAAARAAAANQAAAAUBdQACAAAABgFzAAUAAAA6MS4yMwAAAAgBZwAFYXtzdn0AAAAAAAAHAXMABAAAADoxLjQAAAAAoAIAAAAAAAAOAA"
    "AATGlua05UUFNlcnZlcnMAAmFzAAAAAAAAAAAAABAAAABTeXN0ZW1OVFBTZXJ2ZXJzAAJhcwAAAAAPAAAACgAAADEyNy4wLjAuMTEAABEAAABS"
    "dW50aW1lTlRQU2VydmVycwACYXMAAAAAAAAAEgAAAEZhbGxiYWNrTlRQU2VydmVycwACYXMAAG4AAAAVAAAAMC5kZWJpYW4ucG9vbC5udHAub3"
    "JnAAAAFQAAADEuZGViaWFuLnBvb2wubnRwLm9yZwAAABUAAAAyLmRlYmlhbi5wb29sLm50cC5vcmcAAAAVAAAAMy5kZWJpYW4ucG9vbC5udHAu"
    "b3JnAAAACgAAAFNlcnZlck5hbWUAAXMAAAAKAAAAMTI3LjAuMC4xMQAAAAAAAA0AAABTZXJ2ZXJBZGRyZXNzAAUoaWF5KQAAAAAAAAAAAgAAAA"
    "QAAAB/AAALAAAAABMAAABSb290RGlzdGFuY2VNYXhVU2VjAAF0AAAAAAAAQEtMAAAAAAATAAAAUG9sbEludGVydmFsTWluVVNlYwABdAAAAAAA"
    "AABI6AEAAAAAEwAAAFBvbGxJbnRlcnZhbE1heFVTZWMAAXQAAAAAAAAAABJ6AAAAABAAAABQb2xsSW50ZXJ2YWxVU2VjAAF0AABAQg8AAAAACg"
    "AAAE5UUE1lc3NhZ2UAEih1dXV1aXR0YXl0dHR0YnR0KQAAAAAAAAAAAAAEAAAABAAAAAMAAADm////AAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAA"
    "f38BAZeCCEGBYQYArIIIQYFhBgAblAhBgWEGADSUCEGBYQYAAAAAAAAAAAACAAAAAAAAAAAAAAAAAAAACQAAAEZyZXF1ZW5jeQABeAAAAAAAAA"
    "AAAAAAAAAAAAA="
)
"""What dbus-daemon 1.14 passed on from systemd-timesyncd 252 (Debian 12)."""

WITHIN_S = 0.5
WELCOME = b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n"


@contextmanager
def bus(answer: bytes, *, closes: bool = True) -> Iterator[str]:
    """Answer each client with these octets."""
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        place = f"{folder}/bus"
        listening.bind(place)
        listening.listen()

        def serve() -> None:
            connected, _ = listening.accept()
            with connected, suppress(ConnectionError):
                connected.sendall(answer)
                while connected.recv(4096) and not closes:
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield place
        thread.join(10)


def test_real_properties() -> None:
    """Numbers, texts, octets, lists and structures are what busctl shows of them."""
    assert read_properties(REAL) == {
        "LinkNTPServers": [],
        "SystemNTPServers": ["127.0.0.11"],
        "RuntimeNTPServers": [],
        "FallbackNTPServers": [f"{number}.debian.pool.ntp.org" for number in range(4)],
        "ServerName": "127.0.0.11",
        "ServerAddress": (2, b"\x7f\0\0\x0b"),
        "RootDistanceMaxUSec": 5_000_000,
        "PollIntervalMinUSec": 32_000_000,
        "PollIntervalMaxUSec": 2_048_000_000,
        "PollIntervalUSec": 256_000_000,
        "NTPMessage": (
            *(0, 4, 4, 3, -26, 0, 0, b"\x7f\x7f\x01\x01"),
            *(1796057630016151, 1796057630016172, 1796057630020635, 1796057630020660, False, 2, 0),
        ),
        "Frequency": 0,
    }


@given(st.integers(0, len(REAL) - 1))
def test_a_truncated_message_is_malformed(length: int) -> None:
    """No part of a message is taken for the whole."""
    with pytest.raises(ValueError):  # noqa: PT011 (any reason)
        read_properties(REAL[:length])


@given(st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_changed_message_gives_a_value_or_an_error(changes: list[tuple[int, int]]) -> None:
    """Whatever octets are wrong, the reader ends, with properties or with an error that says so."""
    message = bytearray(REAL)
    for place, octet in changes:
        message[place] = octet
    with suppress(BusError, ValueError):
        assert isinstance(read_properties(bytes(message)), dict)


@given(st.binary(max_size=400))
def test_octets_are_no_message(octets: bytes) -> None:
    """Any octets end in an error, also after a correct beginning."""
    for message in (octets, REAL[:16] + octets, REAL[:120] + octets):
        with pytest.raises((BusError, ValueError)):
            read_properties(message)


def test_a_structure_without_end_is_malformed() -> None:
    """A type that takes no octets would never fill an array, and one that holds itself would have no end."""
    start = REAL.index(b"\x05(iay)\0")
    for kind in (b"a()", b"()", b"((((", b"aaaa", b"v" * 4, b"{sv", b""):
        message = bytearray(REAL)
        message[start : start + 7] = bytes([len(kind)]) + kind.ljust(5, b"\0")[:5] + b"\0"
        with pytest.raises(ValueError):  # noqa: PT011
            read_properties(bytes(message))


def test_the_reply_is_found_among_other_messages() -> None:
    """The bus sends the reply to the greeting first, and signals."""
    other = bytearray(REAL)
    other[other.index(b"\x05\x01u\0") + 4] = 1
    with bus(WELCOME + bytes(other) + REAL, closes=False) as place:
        assert ask(TIMESYNCD, 10.0, place, os.geteuid()) == REAL


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "refuses"),
        (b"REJECTED EXTERNAL\r\n", "refuses"),
        (b"DATA\r\nREJECTED EXTERNAL\r\n", "refuses"),
        (WELCOME, "refuses|closed"),
        (WELCOME + REAL[:40], "closed"),
        (WELCOME + b"l\2\1\1" + b"\xff" * 12 + bytes(70_000), "too long"),
        (WELCOME + b"l\2\1\1" + bytes(4) + b"\2\0\0\0" + b"\x03\0\0\0" + bytes(40), "malformed"),
    ],
)
def test_why_there_is_no_reply(answer: bytes, reason: str) -> None:
    """A peer that refuses, ends, or sends something else gives a reason."""
    with bus(answer) as place, pytest.raises(BusError, match=f"{reason}|reset|Broken"):
        ask(TIMESYNCD, 10.0, place, os.geteuid())


@given(st.binary(max_size=200))
def test_any_answer_ends(answer: bytes) -> None:
    """No octets of a peer make the question fail in another way."""
    with bus(WELCOME + answer) as place, pytest.raises(BusError):
        ask(TIMESYNCD, 10.0, place, os.geteuid())


def test_a_silent_peer_is_given_up() -> None:
    """It is waited for no longer than stated, as CLOCK_MONOTONIC counts."""
    before = time.monotonic()
    with bus(WELCOME, closes=False) as place, pytest.raises(BusError, match="no reply within"):
        ask(TIMESYNCD, WITHIN_S, place, os.geteuid())
    assert time.monotonic() - before >= WITHIN_S


def test_a_bus_of_another_user_is_not_believed() -> None:
    """Systemd opens the socket of the real one as root."""
    with bus(WELCOME + REAL) as place, pytest.raises(BusError, match="answers on"):
        ask(TIMESYNCD, 10.0, place, os.geteuid() + 1)


def test_no_bus(tmp_path: Path) -> None:
    """Where there is no socket, the reason is the system's."""
    with pytest.raises(BusError, match="No such file"):
        ask(TIMESYNCD, 10.0, str(tmp_path / "none"))
