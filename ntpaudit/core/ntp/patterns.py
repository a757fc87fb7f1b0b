"""Patterns of sources: names with `*`, addresses, networks, and ids of reference clocks."""

from typing import TYPE_CHECKING, NamedTuple

from ntpaudit.core.ntp.sources import is_loopback, is_pool_name, is_port

if TYPE_CHECKING:  # imported when a pattern or an address needs it: it would cost each check 3 ms
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_OF_NAMES = "-_*()"
"""What names have besides alphanumeric characters; parentheses are those of reference clocks, as in SHM(0)."""


class Pattern(NamedTuple):
    """A pattern as it is written, and the sources that it matches: a network, or names without regard to case."""

    text: str
    network: "IPv4Network | IPv6Network | None"

    def matches(self, host: str) -> bool:
        """Whether it matches a name, an address or a reference clock. A pattern of names matches no address."""
        address = read_address(host)
        if self.network is None or address is None:
            return self.network is None and address is None and matches_name(self.text, host)
        return address in self.network


def parse_pattern(text: str) -> Pattern:
    """Read a pattern. ValueError says what to write instead."""
    if "://" in text:
        raise ValueError(f"{text!r} is a URL: write the server's name or address")
    address = text.strip("[]").partition("%")[0]
    host, _, port = text.rpartition(":")
    if is_port(port) and (host.count(":") == 0 or host.startswith("[")):
        raise ValueError(f"{text!r}: a pattern has no port: write {host.strip('[]') or 'a name or an address'}")
    if "/" in text or ":" in address or _is_of_digits(address):
        return Pattern(text, _network(address))
    labels = text.removesuffix(".").split(".")
    if not all(label and all(one.isalnum() or one in _OF_NAMES for one in label) for label in labels):
        raise ValueError(
            f"{text!r} is no pattern: write a name (ntp1.example.net), names (*.example.net), an address, a network "
            "(192.0.2.0/24), or the id of a reference clock (GPS)"
        )
    return Pattern(text, None)


def read_address(host: str) -> "IPv4Address | IPv6Address | None":
    """Return the address that a text is, also in brackets or with an interface; None for a name."""
    text = host.strip("[]").partition("%")[0]
    if ":" not in text and not _is_of_digits(text):
        return None
    from ipaddress import IPv6Address, ip_address

    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def plain_name(name: str) -> str:
    """Return a name in lower case, without a final dot, other scripts as in DNS (IDNA)."""
    plain = name.removesuffix(".").lower()
    if not plain.isascii():
        try:
            return plain.encode("idna").decode()
        except UnicodeError:
            return plain
    return plain


def is_outside(host: str) -> bool:
    """Whether a source is certainly not of a site's own network: a zone of the public pool, or a public address.

    An address is not public if it is private, shared (100.64.0.0/10), link-local, of this host, or for documentation.
    """
    if is_pool_name(host):
        return True
    address = None if is_loopback(host) else read_address(host)
    return address is not None and address.is_global


def _network(text: str) -> "IPv4Network | IPv6Network":
    from ipaddress import IPv6Network, ip_network

    if "*" in text:
        raise ValueError(f"{text!r}: write addresses as a network, such as 192.0.2.0/24 or 2001:db8::/32")
    try:
        network = ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(f"{text!r} is no network: write {ip_network(text, strict=False)}") from error
        example = "write an address, or a network such as 192.0.2.0/24 or 2001:db8::/32"
        raise ValueError(f"{text!r} is neither an address nor a network: {example}") from error
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None else ip_network((mapped, max(0, network.prefixlen - 96)))


def _is_of_digits(text: str) -> bool:
    """Whether a text can only be an IPv4 address, or is meant as several of them."""
    return bool(text) and set(text) <= set("0123456789.*")


def matches_name(pattern: str, name: str) -> bool:
    """Whether a name consists of the parts of a pattern in their order, with anything in place of each `*`.

    Upper and lower case, and a final dot, do not count.
    """
    pattern, name = plain_name(pattern), plain_name(name)
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, last = rest
    if not name.startswith(first) or not name.endswith(last):
        return False
    place, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return place <= end
