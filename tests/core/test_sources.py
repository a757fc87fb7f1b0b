"""How servers and pools are written."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.core.ntp.sources import (
    CONTINENTS,
    DEFAULT_ZONE,
    NTP_PORT,
    POOL_DOMAIN,
    Pool,
    Server,
    doubtful_port,
    is_pool_name,
    parse_source,
    pool,
    region,
)


def numbered(zone: str) -> tuple[str, ...]:
    """Return the four names of a zone (P6)."""
    return (f"0.{zone}", f"1.{zone}", f"2.{zone}", f"3.{zone}")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ntp1.example.net", "ntp1.example.net", 123),
        ("ntp1.example.net:1123", "ntp1.example.net", 1123),
        ("localhost", "localhost", 123),
        ("ntp1.example.net.", "ntp1.example.net.", 123),
        ("ntp_1:1", "ntp_1", 1),
        ("192.0.2.1", "192.0.2.1", 123),
        ("192.0.2.1:65535", "192.0.2.1", 65_535),
        ("2001:db8::1", "2001:db8::1", 123),
        ("::1", "::1", 123),
        ("fe80::1%eth0", "fe80::1%eth0", 123),
        ("[2001:db8::1]", "2001:db8::1", 123),
        ("[2001:db8::1]:1123", "2001:db8::1", 1123),
        ("[fe80::1%eth0]:123", "fe80::1%eth0", 123),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", 123),
        ("zeit.münchen.example", "zeit.münchen.example", 123),
        ("a" * 63 + ".example", "a" * 63 + ".example", 123),
    ],
)
def test_servers_are_read(text: str, host: str, port: int) -> None:
    """A name, an IPv4 and an IPv6 address, each with or without its port, is a server that is called as written."""
    source = parse_source(text)
    assert isinstance(source, Server)
    assert source == Server(text, host, port)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":", ":123", "ntp1:", "ntp1:0", "ntp1:65536", "ntp1:-1", "ntp1:+1", "ntp1:1 ", "ntp1:ntp", "ntp1:٣",
        "ntp1:12:3", "[2001:db8::1", "2001:db8::1]", "[2001:db8::1]x", "[2001:db8::1]1123", "[2001:db8::1]:0",
        "[2001:db8::1]:70000", "[192.0.2.1]", "[ntp1.example]", "[]", "[]:123", "ntp 1", "ntp1,ntp2",
        "ntp1/24", "http://ntp1", "-x", "a..b", ".example", "example..", "a" * 64 + ".example",
        ("a" * 60 + ".") * 5 + "net", "ntp\n1", "ntp1;reboot", "ntp1\0",
        "2001:db8::g", "2001:db8::1:ntp", "user@ntp1",
    ],
)  # fmt: skip
def test_what_is_no_server_is_refused(text: str) -> None:
    """Anything else is refused, and the refusal shows what was written."""
    with pytest.raises(ValueError, match=r"is no server|not a server|port") as refusal:
        parse_source(text)
    assert repr(text) in str(refusal.value)


def test_an_empty_port_is_refused() -> None:
    """A colon without a port is a slip of the pen, in brackets as elsewhere."""
    for text in ("192.0.2.1:", "[2001:db8::1]:"):
        with pytest.raises(ValueError, match="is no server"):
            parse_source(text)


@pytest.mark.parametrize("text", ["fe80::1%eth 0", "fe80::1%", "::1%\0", "[fe80::1%lo\nOK]:123"])
def test_the_zone_of_an_address_is_a_word(text: str) -> None:
    """What follows the percent sign of an IPv6 address names an interface: no space, no line break, not nothing."""
    with pytest.raises(ValueError, match="is no server"):
        parse_source(text)


@pytest.mark.parametrize(("last", "fits"), [(61, True), (62, False)])
def test_a_name_fits_in_dns(last: int, fits: bool) -> None:
    """A name has at most 253 characters."""
    name = ".".join(["a" * 63] * 3 + ["a" * last])
    assert len(name) == 192 + last
    if fits:
        assert parse_source(name) == Server(name, name)
    else:
        with pytest.raises(ValueError, match="is no server"):
            parse_source(name)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("::1:123", "[::1]:123"),
        ("::1:1123", "[::1]:1123"),
        ("2001:db8:1:2:3:4:5:6:123", "[2001:db8:1:2:3:4:5:6]:123"),
    ],
)
def test_a_port_after_an_address_without_brackets_is_refused_with_the_right_way(text: str, meant: str) -> None:
    """No host has the address that the text is otherwise, if it is any."""
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is no address with a port: write {meant}")):
        parse_source(text)
    assert isinstance(parse_source(meant), Server)


def test_an_address_that_ends_as_with_a_port_is_an_address_and_doubtful() -> None:
    """It may be one, so it is asked; what else it may mean can be said."""
    assert parse_source("2001:db8::1:123") == Server("2001:db8::1:123", "2001:db8::1:123", 123)
    assert str(doubtful_port("2001:db8::1:123")).endswith("write [2001:db8::1]:123")
    for name in ("2001:db8::123", "2001:db8::1:1", "[2001:db8::1]:123", "ntp1:123", "fe80::1%eth0", "::1", "1:2:3:123"):
        assert doubtful_port(name) is None


def test_what_has_colons_and_is_no_address_is_refused() -> None:
    """And not looked up in DNS."""
    for text in ("1:2:3", ":::", "2001:db8::1::2", "[1:2:3]", "1:2:3:4:5:6:7:8:9:10"):
        with pytest.raises(ValueError, match=r"is no server|no address"):
            parse_source(text)


def test_nts_is_refused_and_not_asked_in_clear() -> None:
    """A server that is to be asked with authentication is never quietly asked without (N10)."""
    with pytest.raises(ValueError, match="NTS is not supported"):
        parse_source("nts://time.example.net")


@given(st.text(max_size=40) | st.text("ab.:[]01%-_", max_size=20))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_source_or_refused(text: str) -> None:
    """Whatever is written is a source with a port that can be, and a host that fits on a line, or refused."""
    try:
        source = parse_source(text)
    except ValueError:
        return
    assert isinstance(source, Server | Pool)
    if isinstance(source, Server):
        assert source.name == text
        assert source.host in text
        assert 1 <= source.port <= 65_535
        assert source.host
        assert not set(source.host.partition("%")[0]) & set(" \t\n\0/,;[]@")


@pytest.mark.parametrize(
    ("name", "is_pool"),
    [
        ("pool.ntp.org", True),
        ("POOL.NTP.ORG.", True),
        ("nl.pool.ntp.org", True),
        ("0.debian.pool.ntp.org", True),
        ("notpool.ntp.org", False),
        ("pool.ntp.org.example", False),
        ("ntp.org", False),
        ("pool.example.net", False),
    ],
)
def test_the_pool_is_known_by_its_name(name: str, is_pool: bool) -> None:
    """Names in the pool's domain are the pool's, whatever their case, and their rules then hold (P2)."""
    assert is_pool_name(name) == is_pool
    source = parse_source(name)
    assert isinstance(source, Pool) == is_pool
    if isinstance(source, Pool):
        assert source.is_public


def test_the_pool_is_asked_through_its_four_names() -> None:
    """A zone stands for its names 0 to 3, one of which alone has IPv6; a numbered name for itself (P6)."""
    assert parse_source("pool.ntp.org") == Pool("pool.ntp.org", numbered("pool.ntp.org"))
    assert parse_source("NL.pool.ntp.org.:123") == Pool("nl.pool.ntp.org", numbered("nl.pool.ntp.org"))
    for number in "0123":
        name = f"{number}.nl.pool.ntp.org"
        assert parse_source(name) == Pool(name, (name,))


def test_the_pool_has_one_port() -> None:
    """Another port than 123 makes no sense in the pool."""
    with pytest.raises(ValueError, match="port 123 only"):
        parse_source("pool.ntp.org:1123")


def test_a_sites_own_pool_has_one_name() -> None:
    """A zone outside the public pool is asked by its own name, and the pool's rules do not hold."""
    own = pool("Time.Example.NET.")
    assert own == Pool("time.example.net", ("time.example.net",))
    assert not own.is_public


@pytest.mark.parametrize(
    "zone", ["", "a b", "a..b", "127.0.0.1", "192.0.2.1.", "-nl.pool.ntp.org", "nl/pool", "2001:db8::1", "x" * 64]
)
def test_what_is_no_zone_is_refused(zone: str) -> None:
    """A pool is named by a host name."""
    with pytest.raises(ValueError, match="is not the name of a pool zone"):
        pool(zone)


@pytest.mark.parametrize(
    ("name", "zone", "fallback"),
    [
        ("europe", "europe.pool.ntp.org", None),
        ("North America", "north-america.pool.ntp.org", None),
        ("south_america", "south-america.pool.ntp.org", None),
        ("nl", "nl.pool.ntp.org", "europe.pool.ntp.org"),
        (" NL ", "nl.pool.ntp.org", "europe.pool.ntp.org"),
        ("uk", "uk.pool.ntp.org", "europe.pool.ntp.org"),
        ("jp", "jp.pool.ntp.org", "asia.pool.ntp.org"),
        ("us", "us.pool.ntp.org", "north-america.pool.ntp.org"),
        ("br", "br.pool.ntp.org", "south-america.pool.ntp.org"),
        ("nz", "nz.pool.ntp.org", "oceania.pool.ntp.org"),
        ("za", "za.pool.ntp.org", "africa.pool.ntp.org"),
    ],
)
def test_regions(name: str, zone: str, fallback: str | None) -> None:
    """A continent or a country names its zone; where a country has none its continent is asked (P7)."""
    assert region(name) == Pool(zone, numbered(zone), fallback)


@pytest.mark.parametrize("name", ["", "n", "nll", "nl be", "xx", "atlantis", "europe.pool.ntp.org", "nl\n.example"])
def test_what_is_no_region_is_refused(name: str) -> None:
    """Anything else is refused, and the refusal names the continents."""
    with pytest.raises(ValueError, match="europe, north-america") as refusal:
        region(name)
    assert repr(name) in str(refusal.value)


def test_each_country_lies_in_one_continent() -> None:
    """Every country is two letters and is listed once."""
    countries = [country for listed in CONTINENTS.values() for country in listed.split()]
    assert all(len(country) == 2 and country.isascii() and country.islower() for country in countries)
    assert len(countries) == len(set(countries))
    assert len(countries) > 200


def test_constants() -> None:
    """NTP's port is 123, and one constant names the zone that a one-shot check asks (P1)."""
    assert (NTP_PORT, POOL_DOMAIN, DEFAULT_ZONE) == (123, "pool.ntp.org", "pool.ntp.org")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://ntp1", "is a URL, not a server: write ntp1$"),
        ("https://user@ntp1.example.net:4460/x", ": write ntp1.example.net:4460$"),
        ("ntp://[2001:db8::1]:123", r": write \[2001:db8::1\]:123$"),
        ("://", "is a URL, not a server: write HOST or HOST:PORT$"),
        ("a,b", "is no server but several: write each by itself, a b$"),
        ("ntp1; ntp2:1123", "is no server but several: write each by itself, ntp1 ntp2:1123$"),
        ("a b", "write each by itself, a b$"),
        ("", "is no server: write HOST, HOST:PORT"),
        (" ", "is no server: write HOST, HOST:PORT"),
    ],
)
def test_what_is_no_server_is_refused_with_what_to_write(text: str, said: str) -> None:
    """A URL, a list and nothing at all are named as what they are."""
    with pytest.raises(ValueError, match=said):
        parse_source(text)
