"""Control messages of ntpd: replies as they were captured, in pieces, and forged."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.observation import Claim, ClaimedSource, Unavailable
from ntpaudit.probes.daemons import mode6
from ntpaudit.probes.daemons.ntpd import read_claim
from tests.work import LINEAR_GROWTH, growth

Fragments = mode6.Fragments
QUERY = (mode6.READ_VARIABLES, 1, 0)

NTPSEC = {
    0: b"leap=0, stratum=2, precision=-23, rootdelay=0.035, rootdisp=1.030,\r\nrootdist=1.000, refid=10.9.1.1, "
    b"reftime=0xeeb71212.d299b191, tc=3,\r\npeer=17767, offset=-0.002724, frequency=0.000, sys_jitter=0.000790,\r\n"
    b'clk_jitter=0.011820, clock=0xeeb71215.9d785f1a, processor="x86_64",\r\nsystem="Linux", release="6.18", '
    b'version="ntpd ntpsec-1.2.3",\r\nclk_wander=0.000000, tai=0,\r\nexpire=1970-01-01T00:00Z, mintc=0\r\n',
    17767: b"srcadr=10.9.1.1, srcport=123, dstadr=10.9.22.2, dstport=123, leap=0,\r\nhmode=3, stratum=1, ppoll=99, "
    b"hpoll=3, precision=-25, rootdelay=0.000,\r\nrootdisp=0.000, refid=...., reftime=0xeeb71210.f7dc975e,\r\n"
    b"rec=0xeeb71212.d299b191, xmt=0xeeb71212.d29932c2, reach=0xff, unreach=0,\r\ndelay=0.034611, offset=0.009747, "
    b"jitter=0.002374, dispersion=0.116399,\r\nkeyid=0, filtdelay= 0.03 0.04 0.04 0.05, pmode=4,\r\nflash=0x0, "
    b"headway=3,\r\nntscookies=-1\r\n",
}
"""What NTPsec 1.2.3 reported of itself and of its system peer."""

CLASSIC = {
    0: b'version="ntpd 4.2.8p15@1.3728-o Wed Sep 23 11:46:38 UTC 2020 (1)",\r\nprocessor="x86_64", '
    b'system="Linux/6.18", leap=0, stratum=2,\r\nprecision=-24, rootdelay=0.137, rootdisp=200.321, refid=10.9.1.1,\r\n'
    b"reftime=0xeeb82852.37f9f803, clock=0xeeb8285b.c7d5604f, peer=56725,\r\ntc=3, mintc=3, offset=200.081124, "
    b"frequency=0.000, sys_jitter=0.002535,\r\nclk_jitter=50.662, clk_wander=0.000\r\n",
    56725: b"srcadr=10.9.1.1, srcport=123, dstadr=10.9.1.9, dstport=123, leap=0,\r\nstratum=1, precision=-20, "
    b"rootdelay=0.000, rootdisp=0.000, refid=GPS,\r\nreftime=0xeeb82851.6b2a56cd, rec=0xeeb82852.37f9f803, reach=0x1f,"
    b"\r\nunreach=0, hmode=3, pmode=4, hpoll=3, ppoll=3, headway=7, flash=0x0,\r\nkeyid=0, offset=200.050, "
    b"delay=0.137, dispersion=0.135, jitter=0.022,\r\nxleave=0.053, filtdelay= 0.14 0.13,\r\nfiltdisp= 0.00 0.60\r\n",
}
"""What ntpd 4.2.8p15 reported while it followed a server that was 200 ms ahead."""


def datagram(
    data: bytes = b"",
    offset: int = 0,
    *,
    more: bool = False,
    error: bool = False,
    query: tuple[int, int, int] = QUERY,
    status: int = 0x0614,
    response: bool = True,
) -> bytes:
    """One fragment of a reply, padded as ntpd pads it."""
    operation, sequence, association = query
    second = response << 7 | error << 6 | more << 5 | operation
    header = struct.pack("!BBHHHHH", 0x16, second, sequence, status, association, offset, len(data))
    return header + data + bytes(-len(data) % 4)


def fragments(data: bytes, cuts: list[int], query: tuple[int, int, int] = QUERY, status: int = 0x0614) -> list[bytes]:
    """A reply in fragments that end at these places."""
    ends = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    return [
        datagram(data[start:end], start, more=end < len(data), query=query, status=status)
        for start, end in pairwise(ends)
    ]


@given(st.binary(min_size=1, max_size=4000), st.lists(st.integers(1, 4000), max_size=12), st.randoms())
def test_fragments_are_joined_in_any_order(data: bytes, cuts: list[int], rand: Random) -> None:
    """Fragments that come in another order, or twice, give the reply once the last of them is there."""
    parts = fragments(data, cuts)
    again = [*parts, *parts[: len(parts) // 2]]
    rand.shuffle(again)
    reading = Fragments(*QUERY)
    found = [reading.add(part) for part in again]
    complete = next(index for index in range(len(again)) if set(parts) <= set(again[: index + 1]))
    assert found[:complete] == [None] * complete
    assert found[complete] == mode6.Reply(0x0614, data)


@pytest.mark.parametrize(
    "stray",
    [
        b"",
        bytes(11),
        datagram(query=(mode6.READ_STATUS, 1, 0)),
        datagram(query=(mode6.READ_VARIABLES, 2, 0)),
        datagram(query=(mode6.READ_VARIABLES, 1, 7)),
        datagram(response=False),
        b"\x1c" + datagram()[1:],
    ],
)
def test_a_datagram_of_another_query_is_ignored(stray: bytes) -> None:
    """Operation, sequence, association, mode and direction must be those of the query."""
    reading = Fragments(*QUERY)
    assert reading.add(stray) is None
    assert reading.add(datagram(b"a=1")) == mode6.Reply(0x0614, b"a=1")


def test_an_error_ends_the_wait() -> None:
    """The code is in the upper octet of the status, also in the midst of a reply."""
    reading = Fragments(*QUERY)
    assert reading.add(datagram(b"a=1", more=True)) is None
    assert reading.add(datagram(error=True, status=0x0500)) == mode6.Failure("it refuses control messages: error 5")


@pytest.mark.parametrize(
    "parts",
    [
        [datagram(b"abcd", more=True), datagram(b"xxef", 2)],  # they overlap
        [datagram(b"abcd", more=True), datagram(b"abcx", more=True)],  # the same place, another text
        [datagram(b"abcd"), datagram(b"abcdef")],  # two different ends
        [datagram(b"abcd", more=True), datagram(b"ef", 4), datagram(b"gh", 6, more=True)],  # beyond the end
        [datagram(b"abcd")[:14]],  # cut off
        [datagram(b"", more=True)],  # nothing, for ever
        [datagram(b"abcd", 0xFFF0, more=True)],  # too long
    ],
)
def test_fragments_that_do_not_fit_are_malformed(parts: list[bytes]) -> None:
    """A reply whose fragments contradict each other is not read."""
    reading = Fragments(*QUERY)
    assert mode6.MALFORMED in [reading.add(part) for part in parts] + [reading.add(parts[0])]


@given(
    st.lists(
        st.binary(max_size=40)
        | st.builds(datagram, st.binary(max_size=20), st.integers(0, 0xFFFF), more=st.booleans(), error=st.booleans()),
        max_size=20,
    )
)
def test_any_datagrams_give_a_value(parts: list[bytes]) -> None:
    """Whatever comes is ignored, refused or joined."""
    reading = Fragments(*QUERY)
    for part in parts:
        assert isinstance(reading.add(part), mode6.Reply | mode6.Failure | None)


def test_variables_are_read_as_ntpq_reads_them() -> None:
    """Text in quotes may hold commas; other text is cut at its comma, and may hold spaces or be empty."""
    text = b' a=1, b="x, y=2",\r\nc= 0.1 0.2 ,d=,e,  f="", g = 5 , a=7,h="" x" ,i=6\r\n'
    read = {"a": "1", "b": "x, y=2", "c": "0.1 0.2", "d": "", "e": "", "f": "", "g": "5", "h": '"" x"', "i": "6"}
    assert mode6.read_variables(text) == read


@given(st.binary(max_size=400) | st.text(' \t\r\n,="a1', max_size=400).map(str.encode))
def test_any_text_gives_variables(data: bytes) -> None:
    """No text is refused."""
    assert all(name and isinstance(value, str) for name, value in mode6.read_variables(data).items())


@pytest.mark.parametrize("piece", [b" ", b"a", b"=", b'"', b",", b"a ", b'a="', b"a= ", b'="', b' "', b"a=b "])
def test_long_texts_are_read_in_linear_time(piece: bytes) -> None:
    """No text makes it try again and again."""
    small, large = (piece * (length // len(piece)) + b'"' for length in (1024, 16_384))
    assert growth(lambda: mode6.read_variables(small), lambda: mode6.read_variables(large)) < LINEAR_GROWTH


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.035", 0.035), ("-0.5", -0.5), ("+1", 1.0), ("1e3", 1000.0), ("00", 0.0)]
    + [(text, None) for text in ("", "nan", "inf", "1e999", "1_0", "0x1", "1 2", "9" * 400, "--1", "1.", "\u0661")],
)
def test_numbers_are_decimal_and_finite(text: str, value: float | None) -> None:
    """What Python would take for a number beside that is none."""
    assert mode6.read_float({"x": text}, "x") == value
    assert mode6.read_int({"x": text}, "x", 999) == (int(value) if value in (0, 1) else None)
    assert mode6.read_float({}, "x") is None


def test_timestamps_are_hexadecimal() -> None:
    """Zero means never."""
    assert mode6.read_timestamp({"x": "0xeeb71212.d299b191"}, "x") == 0xEEB71212_D299B191
    for text in ("0x00000000.00000000", "0xeeb71212", "eeb71212.d299b191", "0xeeb71212.d299b191 ", ""):
        assert mode6.read_timestamp({"x": text}, "x") is None


# --- claims -------------------------------------------------------------------------------------------------------


class Daemon:
    """What replies like an ntpd: `variables` by association, `statuses` of the associations."""

    def __init__(self, variables: dict[int, bytes], statuses: dict[int, int]) -> None:
        self.variables = variables
        self.statuses = statuses

    def reply(self, query: bytes) -> list[bytes]:
        """The datagrams that it sends."""
        _, operation, sequence, _, association, _, _ = struct.unpack("!BBHHHHH", query[:12])
        asked = (operation, sequence, association)
        if operation == mode6.READ_STATUS:
            listed = b"".join(struct.pack("!HH", *one) for one in self.statuses.items())
            return fragments(listed or b"\0", [], asked)
        data = self.variables.get(association)
        if data is None:
            return [datagram(error=True, query=asked, status=0x0400)]
        return fragments(data, [468], asked, self.statuses.get(association, 0x0614))


@contextmanager
def conversation(daemon: Daemon, within_s: float = 5.0) -> Iterator[mode6.Conversation]:
    """A conversation with a daemon over a pair of sockets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def serve() -> None:
        while query := theirs.recv(2048):
            for part in daemon.reply(query):
                theirs.send(part)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield mode6.Conversation(ours, time.monotonic() + within_s)
    finally:
        ours.send(b"")
        thread.join()
        ours.close()
        theirs.close()


def claim(daemon: Daemon, *, with_sources: bool = True) -> Claim:
    """What the daemon claims."""
    with conversation(daemon) as asking:
        found = read_claim(asking, with_sources=with_sources)
    assert isinstance(found, Claim)
    return found


def test_claim_of_ntpsec() -> None:
    """Milliseconds become seconds, and the system peer is the source that it follows."""
    found = claim(Daemon(NTPSEC, {17767: 0xB61A}))
    assert found.is_synchronised
    assert (found.follows, found.poll_s, found.stratum, found.leap) == ("10.9.1.1", 8.0, 2, 0)
    assert found.offset_s == pytest.approx(-2.724e-6)
    assert found.bound_s == pytest.approx(0.035e-3 / 2 + 1.030e-3)
    assert found.updated_s == pytest.approx(2.792, abs=1e-3)
    assert found.authentication == "none"
    (source,) = found.sources
    assert source._replace(offset_s=0.0) == ClaimedSource("10.9.1.1", "10.9.1.1", True, "none", 1, 0.0, 8.0)
    assert source.offset_s == pytest.approx(9.747e-6)
    assert claim(Daemon(NTPSEC, {17767: 0xB61A}), with_sources=False)._replace(boottime_ns=0) == found._replace(
        boottime_ns=0, sources=()
    )


def test_claim_of_the_reference_implementation() -> None:
    """A server that is ahead gives a positive offset: the host is behind."""
    found = claim(Daemon(CLASSIC, {56725: 0x961A}))
    assert (found.is_synchronised, found.follows, found.poll_s) == (True, "10.9.1.1", 8.0)
    assert found.offset_s == pytest.approx(0.200081124)
    assert found.bound_s == pytest.approx(0.0000685 + 0.200321)
    assert found.sources[0].offset_s == pytest.approx(0.200050)


def changed(variables: dict[int, bytes], association: int, old: bytes, new: bytes) -> dict[int, bytes]:
    """The same replies with a change."""
    assert old in variables[association]
    return variables | {association: variables[association].replace(old, new)}


def test_an_unsynchronised_daemon_claims_no_offset() -> None:
    """Before the first update its offset, delay and dispersion are zeros, which mean nothing."""
    system = (
        b"leap=3, stratum=16, rootdelay=0.000, rootdisp=0.105, refid=INIT,\r\nreftime=0x00000000.00000000, peer=0, "
    )
    found = claim(Daemon({0: system + b"offset=0.000, clock=0xeeb71215.9d785f1a"}, {}))
    assert found._replace(boottime_ns=0) == Claim(0, is_synchronised=False, stratum=16, leap=3)


def test_a_daemon_without_a_system_peer_is_not_synchronised() -> None:
    """One that lost its servers keeps its leap indicator and its last offset, and follows none of them."""
    found = claim(Daemon(changed(NTPSEC, 0, b"peer=17767", b"peer=0"), {17767: 0x8014}))
    assert (found.is_synchronised, found.follows, found.poll_s, found.authentication) == (False, None, None, None)
    assert found.offset_s == pytest.approx(-2.724e-6)
    assert [source.is_followed for source in found.sources] == [False]


def test_what_a_source_does_not_report_is_none() -> None:
    """The template of a pool is no source; a server that never replied has no offset; a clock has no address."""
    template = b'srcadr=0.0.0.0, srchost="0.debian.pool.ntp.org", refid=POOL, stratum=16'
    silent = b'srcadr=192.0.2.1, srchost="ntp1.example.net", stratum=16, hpoll=6, ppoll=10, offset=0.000, rec=0x0.0'
    clock = b"srcadr=127.127.28.0, refid=GPS, stratum=0, hpoll=4, ppoll=4, offset=1.5, rec=0xeeb71212.d299b191"
    strange = b'srcadr=192.0.2.2, srchost="a b", keyid=9, hpoll=99, offset=nan, ntscookies=0'
    variables = NTPSEC | {1: template, 2: silent, 3: clock, 4: strange}
    statuses = {1: 0x8000, 2: 0xC000, 3: 0x9714, 4: 0x8300, 5: 0}
    found = {source.name: source for source in claim(Daemon(variables, statuses)).sources}
    assert set(found) == {"10.9.1.1", "ntp1.example.net", "GPS", "192.0.2.2"}
    assert found["ntp1.example.net"] == ClaimedSource("ntp1.example.net", "192.0.2.1", False, "key", 16, poll_s=64.0)
    assert found["GPS"] == ClaimedSource("GPS", None, True, "none", 0, 0.0015, 16.0)
    assert found["192.0.2.2"] == ClaimedSource("192.0.2.2", "192.0.2.2", False, "nts")


def test_a_refusal_is_a_reason() -> None:
    """An error instead of the variables says which."""
    with conversation(Daemon({}, {})) as asking:
        assert read_claim(asking, with_sources=True) == Unavailable("it refuses control messages: error 4")


class Flood(Daemon):
    """It sends fragments for ever, and never the last."""

    def reply(self, query: bytes) -> list[bytes]:
        """Many fragments of the reply."""
        _, operation, sequence, _, association, _, _ = struct.unpack("!BBHHHHH", query[:12])
        part = datagram(b"a=1,", more=True, query=(operation, sequence, association))
        return [part] * 8


def test_an_endless_reply_ends_at_the_deadline() -> None:
    """A reply that never ends, or never comes, is a timeout."""
    for daemon in (Flood({}, {}), Daemon(NTPSEC | {0: b""}, {})):
        begin = time.monotonic()
        with conversation(daemon, within_s=0.1) as asking, pytest.raises(TimeoutError):
            read_claim(asking, with_sources=False)
        assert time.monotonic() - begin >= 0.1


@given(st.binary(max_size=300), st.binary(max_size=100), st.integers(0, 0xFFFF) | st.integers())
def test_any_variables_give_a_claim(system: bytes, source: bytes, peer: int) -> None:
    """Whatever the variables are, the claim is a value; also with a system peer that can be no association."""
    text, association = b"peer=%d,leap=0,reftime=0xeeb71212.d299b191," % peer + system, peer & 0xFFFF or 1
    assert isinstance(claim(Daemon({0: text, association: source or b"a"}, {association: 0})), Claim)
