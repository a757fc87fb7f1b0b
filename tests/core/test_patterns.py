"""Patterns of sources: what they match, by fnmatch and ipaddress as oracles, and what is refused."""

import fnmatch
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.ntp.patterns import is_outside, parse_pattern, plain_name, read_address

_PART = st.text("ab.-*", min_size=1, max_size=8)
_LABEL = st.text("abAB-", min_size=1, max_size=4)
NAMES = st.lists(_LABEL, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.ip_addresses().map(str)


def is_pattern(text: str) -> bool:
    """Return whether a text is accepted as a pattern."""
    try:
        parse_pattern(text)
    except ValueError:
        return False
    return True


def mapped_address(text: str) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address inside of an IPv6 address."""
    address = ipaddress.ip_address(text)
    return address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None


@given(_PART.filter(is_pattern), NAMES)
def test_a_pattern_of_names_matches_as_fnmatch(pattern: str, name: str) -> None:
    """`*` stands for any characters, dots too; case does not count."""
    expected = fnmatch.fnmatchcase(name.lower(), pattern.lower().removesuffix("."))
    assert parse_pattern(pattern).matches(name) is expected


@given(NAMES, st.data())
def test_a_name_with_some_of_it_replaced_matches(name: str, data: st.DataObject) -> None:
    """Any part of a name can be replaced by `*`."""
    start = data.draw(st.integers(0, len(name)))
    end = data.draw(st.integers(start, len(name)))
    pattern = f"{name[:start]}*{name[end:]}"
    assert not is_pattern(pattern) or parse_pattern(pattern).matches(f"{name.upper()}.")


@given(ADDRESSES, st.integers(0, 32), ADDRESSES)
def test_a_network_contains_what_ipaddress_says(of: str, length: int, address: str) -> None:
    """Networks of both families; the other family never matches."""
    network = ipaddress.ip_network(f"{of}/{length}", strict=False)
    pattern, found = parse_pattern(str(network)), ipaddress.ip_address(address)
    plain = mapped_address(address) or found
    if not mapped_address(str(network.network_address)):
        assert pattern.matches(address) is (plain.version == network.version and plain in network)
    assert pattern.matches(of) or mapped_address(of)
    assert not pattern.matches("ntp1.example.net")


@given(ADDRESSES)
def test_an_address_matches_itself_however_it_is_written(address: str) -> None:
    """Brackets and the interface of a link-local address do not count, nor does the short form."""
    pattern = parse_pattern(address)
    assert pattern.matches(address)
    assert pattern.matches(ipaddress.ip_address(address).exploded)
    if ":" in address:
        assert parse_pattern(f"[{address}]").matches(f"[{address}]")
        assert pattern.matches(f"{address}%eth0")


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_pattern_or_refused_with_a_reason(pattern: str, host: str) -> None:
    """Nothing else happens, whatever is written and whatever a daemon reports."""
    plain_name(host)
    read_address(host)
    is_outside(host)
    if is_pattern(pattern):
        parse_pattern(pattern).matches(host)
    else:
        with pytest.raises(ValueError, match="write"):
            parse_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("*.example.net", "NTP1.Example.NET."),
        ("ntp1.example.net.", "ntp1.example.net"),
        ("GPS", "GPS"),
        ("gps", "GPS"),
        ("SHM(*)", "SHM(0)"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("*.bücher.example", "NTP.BÜCHER.example"),
        ("192.0.2.0/24", "::ffff:192.0.2.7"),
        ("::ffff:192.0.2.0/120", "192.0.2.7"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("fe80::/10", "fe80::1%eth0"),
        ("*.pool.ntp.org", "0.nl.pool.ntp.org"),
    ],
)
def test_what_matches(pattern: str, host: str) -> None:
    """Case, the final dot, IDNA, mapped addresses and interfaces do not count."""
    assert parse_pattern(pattern).matches(host)


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("*.example.net", "example.net"),
        ("*.example.net", "ntp1.example.net.evil.example"),
        ("*.example.net", "ntp1-example.net"),
        ("example.net", "ntp1.example.net"),
        ("ntp*", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.1.example.net"),
        ("192.0.2.0/24", "192.0.3.1"),
        ("2001:db8::/32", "192.0.2.1"),
        ("a*a", "a"),
        ("GPS", "PPS"),
    ],
)
def test_what_does_not_match(pattern: str, host: str) -> None:
    """A pattern of names matches no address, a network no name, and no name is matched in part."""
    assert not parse_pattern(pattern).matches(host)


@pytest.mark.parametrize(
    ("pattern", "fix"),
    [
        ("", r"\*\.example\.net"),
        ("*", "192.0.2.0/24"),
        ("192.0.2.*", "192.0.2.0/24"),
        ("192.0.2.5/24", "write 192.0.2.0/24"),
        ("192.0.2.256", "such as 192.0.2.0/24"),
        ("2001:db8:*", "2001:db8::/32"),
        ("ntp1.example.net:123", "write ntp1.example.net"),
        ("[2001:db8::1]:123", "write 2001:db8::1"),
        ("nts://ntp1.example.net", "name or address"),
        (".example.net", r"\*\.example\.net"),
        ("ntp1 ntp2", "write a name"),
        ("!ntp1.example.net", "write a name"),
    ],
)
def test_what_is_refused_says_what_to_write(pattern: str, fix: str) -> None:
    """An invalid pattern would approve nothing, or everything."""
    with pytest.raises(ValueError, match=fix):
        parse_pattern(pattern)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "2001:4860:4806::", "pool.ntp.org", "0.NL.pool.ntp.org.", "::ffff:8.8.8.8"]
)
def test_what_is_outside(host: str) -> None:
    """Public addresses and the public pool."""
    assert is_outside(host)


@pytest.mark.parametrize(
    "host",
    [
        *("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.123", "127.0.0.1", "::1", "[fd00::1]"),
        *("fe80::1%eth0", "fd00:ec2::123", "ntp1.example.net", "GPS", "pool.ntp.org.example"),
    ],
)
def test_what_is_not_certainly_outside(host: str) -> None:
    """Private, shared, link-local and own addresses; a name without a known address."""
    assert not is_outside(host)
