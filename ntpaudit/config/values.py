"""How the values of a configuration file are read and written. Each reader raises ValueError with what to write."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, TypeVar, get_args

from ntpaudit.core.checks.host import BY_ID
from ntpaudit.core.clock.readings import MAX_KERNEL_PPM
from ntpaudit.core.ingest import PIPELINES
from ntpaudit.core.ntp.patterns import Pattern, parse_pattern
from ntpaudit.core.ntp.sources import POOL_DOMAIN, Pool, Source, parse_source, split_port
from ntpaudit.core.site_policy import ROLES, Role
from ntpaudit.core.units import DOCS, MAX_DIGITS, brief, format_duration, format_utc, parse_duration
from ntpaudit.errors import nearest

DAY_S = 86_400.0
YEAR_S = 365.25 * DAY_S
MOST_S = 100 * YEAR_S  # the longest duration that a key accepts
MAX_LABEL = 253  # the longest name of a host (RFC 1035)
MAX_SENTENCE = 1000  # a longer text is no reason, and each record would have it

Language = Literal["influxql", "promql"]
LANGUAGES: tuple[Language, ...] = get_args(Language)  # InfluxQL of InfluxDB, PromQL of VictoriaMetrics

RoughtimeAddress = tuple[str, int, bytes]
"""The host, port and long-term public key (Ed25519) of a Roughtime server."""

_KEY_OCTETS = 32
_Read = TypeVar("_Read")


def of_text(read: Callable[[str], _Read]) -> Callable[[Any], _Read]:
    """Return a reader of strings alone."""

    def check(value: Any) -> _Read:
        if not isinstance(value, str):
            raise ValueError(f"write a string in quotes, not {value!r}")
        return read(value)

    return check


def read_flag(value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def read_ppm(value: Any) -> float:
    """Return an oscillator's maximum error: a kernel corrects 500 ppm at most."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_KERNEL_PPM:
        raise ValueError(f"write a number of ppm from 1 to {MAX_KERNEL_PPM:g}, such as 100")
    return float(value)


def read_servers(value: Any) -> tuple[Source, ...]:
    """Return the sources of a list of names."""
    if not (isinstance(value, list) and all(isinstance(server, str) for server in value)):
        raise ValueError('write a list of names, ["ntp1.example.net", "192.0.2.1:1123"]')
    return tuple(map(parse_source, value))


def read_patterns(value: Any) -> tuple[Pattern, ...]:
    """Return the patterns of approved sources."""
    if not (isinstance(value, list) and value and all(isinstance(text, str) for text in value)):
        raise ValueError('write a list of patterns, ["*.example.net", "192.0.2.0/24"], or remove the key')
    return tuple(map(parse_pattern, value))


def parse_role(text: str) -> Role:
    """Return the role of a host."""
    for role in ROLES:
        if text == role:
            return role
    raise ValueError(f"{text!r}: write {' or '.join(ROLES)}")


def read_pipelines(value: Any) -> tuple[str, ...]:
    """Return the names of pipelines, each once."""
    if not (isinstance(value, list) and value and all(isinstance(name, str) for name in value)):
        raise ValueError('write a list of names, ["loki", "elastic"], or remove the key')
    for name in value:
        if name not in PIPELINES:
            raise ValueError(f"{brief(name)}: unknown{nearest(name, PIPELINES)}; known: {', '.join(PIPELINES)}")
    return tuple(dict.fromkeys(value))


def parse_label(text: str) -> str:
    """Return a name of printable characters."""
    if not text.strip() or not text.isprintable():
        raise ValueError("write a name of printable characters")
    if len(text) > MAX_LABEL:
        raise ValueError(f"the name has {len(text)} characters: write at most {MAX_LABEL}")
    return text


def parse_sentence(text: str) -> str:
    """Return a text of one line."""
    if not text.strip() or not text.isprintable():
        raise ValueError("write a text of one line")
    if len(text) > MAX_SENTENCE:
        raise ValueError(f"the text has {len(text)} characters: write at most {MAX_SENTENCE}")
    return text


_IDS = f"the ids are in docs/findings.md (installed in {DOCS})"


def parse_accepted(finding: str) -> str:
    """Return the id of a finding that the configuration of a host may accept (X3)."""
    if finding not in BY_ID:
        raise ValueError(f"{brief(finding)}: unknown{nearest(finding, BY_ID)}; {_IDS}")
    match BY_ID[finding].acceptable:
        case "never":
            raise ValueError(f"{finding} cannot be accepted: set a new end (`until`) or remove the acceptance")
        case "reports":
            raise ValueError(
                f"{finding} cannot be accepted on the host, because it states that the clock is wrong or that nothing "
                "proves it right, and the exit status must show that: accept it where hosts are judged together, with "
                "`ntpaudit fleet --exceptions FILE`"
            )
    return finding


def parse_excepted(finding: str) -> str:
    """Return the id of a finding, of a host or of a fleet, that a report may accept."""
    from ntpaudit.core.fleet import checks  # it would cost an agent memory

    rules = BY_ID | {rule.id: rule for rule in checks.RULES}
    if finding not in rules:
        raise ValueError(f"{brief(finding)}: unknown{nearest(finding, rules)}; {_IDS}")
    if rules[finding].acceptable == "never":
        raise ValueError(f"{finding} cannot be accepted: set a new end (`until`) or remove the acceptance")
    return finding


def parse_host_pattern(text: str) -> str:
    """Return a pattern of names of hosts or sites."""
    if not text.strip() or not text.isprintable():
        raise ValueError("write a name, or a pattern such as ams-*")
    return text


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_utc(value: Any) -> int:
    """Return a time in ns since 1970: a day in UTC, which is its begin, or a time; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if not isinstance(moment, datetime):
        raise ValueError(f"{brief(str(value))}: write a day or a time in UTC, such as 2027-01-31 or 2027-01-31T12:00Z")
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    utc_ns = (utc - _EPOCH) // timedelta(microseconds=1) * 1000
    if not 0 <= utc_ns < 1 << 63:
        raise ValueError(f"{value}: write a time from 1970 to 2262")
    return utc_ns


def write_utc(utc_ns: int) -> str:
    """Write a time so that reading it back gives the same one."""
    day, _, of_day = format_utc(utc_ns).partition("T")
    return day if of_day == "00:00:00.000000000Z" else f"{day}T{of_day.rstrip('Z').rstrip('0').rstrip('.')}Z"


def parse_path(text: str) -> str:
    """Return an absolute path: the working directory of a service is undefined."""
    if not text.startswith("/") or not text.isprintable():
        raise ValueError(f"{text!r} is not an absolute path: begin it with /")
    return text


def parse_language(text: str) -> Language:
    """Return a query language."""
    for language in LANGUAGES:
        if text == language:
            return language
    raise ValueError(f"{text!r}: write {' or '.join(LANGUAGES)}")


def parse_syslog_address(text: str) -> str:
    """Return a syslog address: a path such as /dev/log, or HOST:PORT for UDP."""
    if text.startswith("/"):
        return parse_path(text)
    parse_source(text)
    return text


def from_least(least_s: float, why: str) -> Callable[[str], float]:
    """Return a reader of durations of at least `least_s`."""

    def parse(text: str) -> float:
        seconds = 0.0 if text.strip() == "0" else parse_duration(text)  # the unit is not what is wrong with 0
        if not least_s <= seconds <= MOST_S:
            what = ("too short" if seconds < least_s else "too long") + (f" ({why})" if why else "")
            raise ValueError(f"{text!r} is {what}: write {format_duration(least_s)} to {format_duration(MOST_S)}")
        return seconds

    return parse


def parse_positive_duration(text: str) -> float:
    """Read a duration above 0."""
    if text.strip() == "0" or not 0 < (seconds := parse_duration(text)) <= MOST_S:
        raise ValueError(f"{text!r}: write a duration above 0, at most {format_duration(MOST_S)}")
    return seconds


def parse_milliseconds(text: str) -> float:
    """Read a number of milliseconds; return seconds."""
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and 0 < int(text) <= 600_000):
        raise ValueError(f"{brief(text)} is not a number of milliseconds from 1 to 600000")
    return int(text) / 1000


def parse_url(text: str) -> str:
    """Return a server's URL without a trailing slash. Raises ValueError, also for a URL with a secret."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not text.isprintable():
        raise ValueError("write a URL such as http://127.0.0.1:8086")
    if parts.username is not None or parts.password is not None:
        raise ValueError("put the secret in token_file, not in the URL")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("write the URL without a query; bucket and org are separate keys")
    url = text.rstrip("/")
    for path in _API_PATHS:
        if (base := url.removesuffix(path)) != url:
            raise ValueError(f"write the server's URL without {path}, which ntpaudit adds: {base}")
    return url


_API_PATHS = (
    *("/api/v2/write", "/api/v2/query", "/api/v2", "/api/v1/write", "/api/v1/query", "/api/v1/query_range"),
    *("/api/v1/import", "/api/v1/export", "/api/v1", "/write", "/query", "/federate"),
)
"""API paths of the databases, which a copied URL may end with; longer ones first."""


def read_authorities(value: Any) -> tuple[str, ...]:
    """Return the URLs of time-stamp authorities."""
    if not (isinstance(value, list) and all(isinstance(url, str) for url in value)):
        raise ValueError('write a list of URLs, ["http://tsa.example.net/tsr"]')
    return tuple(map(_parse_authority, value))


def _parse_authority(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise ValueError(f"{text!r} is not a URL: {error}") from error
    if "@" in parts.netloc:
        raise ValueError("write the URL without user and password, which are not supported")
    if not is_valid or not text.isascii() or not text.isprintable() or " " in text or parts.fragment:
        raise ValueError(f"{text!r}: write the URL of a time-stamp authority such as http://tsa.example.net/tsr")
    return text


def read_roughtime(value: Any) -> tuple[RoughtimeAddress, ...]:
    """Return the Roughtime servers of a list of `HOST:PORT KEY`."""
    if not (isinstance(value, list) and all(isinstance(server, str) for server in value)):
        raise ValueError('write a list of servers with their keys, ["roughtime.example.net:5319 KEY"]')
    return tuple(map(_parse_roughtime, value))


def _parse_roughtime(text: str) -> RoughtimeAddress:
    from binascii import Error, a2b_base64

    place, _, key = text.partition(" ")
    host, port = split_port(place)
    if not place.endswith(f":{port}"):
        raise ValueError(f"{text!r}: write the port too, such as {place}:5319")
    try:
        octets = a2b_base64(key.strip(), strict_mode=True)
    except (Error, ValueError):
        octets = b""
    if len(octets) != _KEY_OCTETS:
        raise ValueError(f"{text!r}: write the server's public key after the address, 44 characters of base64")
    return host, port, octets


def write_roughtime(server: RoughtimeAddress) -> str:
    """Write a Roughtime server as it is read."""
    from binascii import b2a_base64

    host, port, key = server
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port} {b2a_base64(key, newline=False).decode()}"


def write_duration(seconds: float) -> str:
    """Write a duration so that reading it back gives the same number."""
    for suffix in ("y", "d", "h", "m", "s", "ms", "us", "ns"):
        count = round(seconds / parse_duration(f"1{suffix}"))
        if 0 < count < 10_000 and parse_duration(text := f"{count}{suffix}") == seconds:
            return text
    from decimal import Decimal

    return f"{Decimal(repr(seconds)):f}s"


def write_size(octets: int) -> str:
    """Write a size in the largest unit that divides it."""
    units = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
    unit, scale = next((entry for entry in units if octets % entry[1] == 0), ("B", 1))
    return f"{octets // scale}{unit}"


def write_source(source: Source) -> str:
    """Return the name of a source."""
    return source.zone if isinstance(source, Pool) else source.name


def write_region(source: Pool) -> str:
    """Return the name of a region."""
    return source.zone.removesuffix(f".{POOL_DOMAIN}")
