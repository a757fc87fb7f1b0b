"""Sources: the syntax of servers, and the zones and rules of the pool (P1 to P7)."""

from typing import NamedTuple

POOL_DOMAIN = "pool.ntp.org"
DEFAULT_ZONE = POOL_DOMAIN  # the source of a one-shot check without configuration; a granted vendor zone goes here (P1)
NTP_PORT = 123

CONTINENTS = {
    "africa": "ao bf bi bj bw cd cf cg ci cm cv dj dz eg eh er et ga gh gm gn gq gw ke km lr ls ly ma mg ml mr "
    "mu mw mz na ne ng re rw sc sd sh sl sn so ss st sz td tg tn tz ug yt za zm zw",
    "asia": "ae af am az bd bh bn bt cn cy ge hk id il in iq ir jo jp kg kh kp kr kw kz la lb lk mm mn mo mv "
    "my np om ph pk ps qa sa sg sy th tj tl tm tr tw uz vn ye",
    "europe": "ad al at ax ba be bg by ch cz de dk ee es fi fo fr gb gg gi gr hr hu ie im is it je li lt lu lv "
    "mc md me mk mt nl no pl pt ro rs ru se si sj sk sm ua uk va xk",
    "north-america": "ag ai an aw bb bl bm bq bs bz ca cr cu cw dm do gd gl gp gt hn ht jm kn ky lc mf mq ms mx ni pa "
    "pm pr sv sx tc tt us vc vg vi",
    "oceania": "as au cc ck cx fj fm gu hm ki mh mp nc nf nr nu nz pf pg pn pw sb tk to tv um vu wf ws",
    "south-america": "ar bo br cl co ec fk gf gs gy pe py sr uy ve",
}
"""The pool's continental zones with the country zones inside them (P7)."""


class Server(NamedTuple):
    """One server, by name or address. `name` is as the operator wrote it, and is used in records."""

    name: str
    host: str
    port: int = NTP_PORT


class Pool(NamedTuple):
    """A name of many servers, of which at most four are queried (P4).

    `names` are the host names to resolve (P6); `fallback` is the continent to use if a country has no zone (P7).
    """

    zone: str
    names: tuple[str, ...]
    fallback: str | None = None
    port: int = NTP_PORT

    @property
    def is_public(self) -> bool:
        """Whether it is a zone of the NTP pool, whose terms limit the queries (P2, P4)."""
        return is_pool_name(self.zone)


Source = Server | Pool


def parse_source(text: str) -> Source:
    """Parse `HOST[:PORT]` or `[IPv6]:PORT`; a name of the NTP pool is a pool. ValueError gives the fix."""
    if text.startswith("nts://"):
        raise ValueError(
            f"{text}: NTS is not supported by this version; write it without nts:// to query it unauthenticated"
        )
    _check_is_one_server(text)
    host, port = split_port(text)
    if is_pool_name(host):
        if port != NTP_PORT:
            raise ValueError(f"{text}: the pool replies on port {NTP_PORT} only")
        return pool(host)
    return Server(text, host, port)


def is_loopback(address: str) -> bool:
    """Whether an address is a loopback address."""
    return address.startswith("127.") or address == "::1"


def is_pool_name(host: str) -> bool:
    """Whether a name belongs to the NTP pool."""
    name = host.rstrip(".").lower()
    return name == POOL_DOMAIN or name.endswith("." + POOL_DOMAIN)


def pool(zone: str) -> Pool:
    """Return the pool of a zone: `0.` to `3.` for one of the NTP pool (P6), one name for a site's own pool."""
    zone = zone.rstrip(".").lower()
    if not _is_host_name(zone) or zone.rpartition(".")[2].isdecimal():  # no top-level domain is a number
        raise ValueError(f"{zone!r} is not the name of a pool zone")
    if not is_pool_name(zone) or zone[:2] in ("0.", "1.", "2.", "3."):
        return Pool(zone, (zone,))
    return Pool(zone, tuple(f"{number}.{zone}" for number in range(4)))


def region(name: str) -> Pool:
    """Return the pool of a continent or of a two-letter country code; ValueError lists what is valid."""
    wanted = name.strip().lower().replace(" ", "-").replace("_", "-")
    if wanted in CONTINENTS:
        return pool(f"{wanted}.{POOL_DOMAIN}")
    for continent, countries in CONTINENTS.items():
        if wanted in countries.split():
            return pool(f"{wanted}.{POOL_DOMAIN}")._replace(fallback=f"{continent}.{POOL_DOMAIN}")
    raise ValueError(f"no pool region {name!r}: use a continent ({', '.join(CONTINENTS)}) or a two-letter country code")


def _check_is_one_server(text: str) -> None:
    """Raise ValueError for a URL, several servers, or nothing, with what to write instead."""
    _, separator, rest = text.partition("://")
    if separator:
        server = rest.partition("/")[0].rpartition("@")[2]
        raise ValueError(f"{text!r} is a URL, not a server: write {server or 'HOST or HOST:PORT'}")
    if len(several := text.replace(",", " ").replace(";", " ").split()) > 1:
        raise ValueError(f"{text!r} is no server but several: write each by itself, {' '.join(several)}")
    if not text.strip():
        raise ValueError(f"{text!r} is no server: write HOST, HOST:PORT or [IPV6]:PORT")


def is_port(text: str) -> bool:
    """Whether a text is a port number. The length is checked because Python refuses numbers of thousands of digits."""
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65_535


def split_port(text: str, default: int = NTP_PORT) -> tuple[str, int]:
    """Split `HOST[:PORT]` or `[IPv6]:PORT`; a missing port is `default`. ValueError gives the fix."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        valid = bool(bracket) and ":" in host and (not rest or (rest[0] == ":" and bool(port)))
    elif text.count(":") > 1:
        # ::1:123 is an address too, of a range that no host has (RFC 4291, 2.5.5.1)
        if (meant := _as_port(text)) is not None and (meant.startswith("[::1]") or not _is_ipv6(text)):
            raise ValueError(f"{text!r} is no address with a port: write {meant}")
        return _checked(text, text), default
    else:
        host, colon, port = text.partition(":")
        valid = not colon or bool(port)
    if not valid:
        raise ValueError(f"{text!r} is no server: write HOST, HOST:PORT or [IPV6]:PORT")
    if port and not is_port(port):
        raise ValueError(f"{text[:80]!r}: the port is a number from 1 to 65535")
    return _checked(host, text), int(port) if port else default


def doubtful_port(name: str) -> str | None:
    """Return what to write if an IPv6 address ends like NTP's port; None for any other name."""
    meant = _as_port(name)
    if meant is None or not meant.endswith(f":{NTP_PORT}") or not _is_ipv6(name):
        return None
    return f"{name} is an address without a port: if :{NTP_PORT} is meant as the port, write {meant}"


def _as_port(text: str) -> str | None:
    """Return `[ADDRESS]:PORT` if a text may be that without brackets, else None."""
    address, _, port = text.rpartition(":")
    return f"[{address}]:{port}" if is_port(port) and _is_ipv6(address) else None


def _is_ipv6(text: str) -> bool:
    from ipaddress import IPv6Address  # few servers are named by an IPv6 address

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _checked(host: str, text: str) -> str:
    if ":" in host:
        address, percent, zone = host.partition("%")
        is_interface = bool(zone) and zone.isprintable() and not any(character.isspace() for character in zone)
        if _is_ipv6(address) and bool(percent) == is_interface:
            return host
    elif _is_host_name(host):
        return host
    raise ValueError(f"{text!r} is no server: {host!r} is neither a name nor an address")


def _is_host_name(host: str) -> bool:
    """Whether a text can be a DNS name or an IPv4 address; the resolver handles other scripts by IDNA."""
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(
        0 < len(label) <= 63 and all(entry.isalnum() or entry in "-_" for entry in label) and label[0] != "-"
        for label in labels
    )
