"""The exceptions of a report: a file of findings that are accepted for some hosts, until a time (X1)."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from ntpaudit.config import values
from ntpaudit.config.load import read_tables, read_toml, refuse_unknown
from ntpaudit.config.schema import AcceptedBy, End, Key, Reason, keys_of
from ntpaudit.core.acceptance import Acceptance, HostAcceptance
from ntpaudit.core.checks.offset import OFFSET_OUT
from ntpaudit.errors import ConfigError

_TABLE = "accept"


class _Entry(NamedTuple):
    """A table `[[accept]]` of the file: as that of a host's configuration, with the hosts that it is for."""

    finding: Annotated[str, Key("id of a finding", values.of_text(values.parse_excepted), example=OFFSET_OUT.id)]
    reason: Reason
    by: AcceptedBy
    until: End = None
    host: Annotated[str | None, Key("name of a host, or a pattern", values.of_text(values.parse_host_pattern))] = None
    site: Annotated[str | None, Key("name of a site, or a pattern", values.of_text(values.parse_host_pattern))] = None


_KEYS = keys_of(_Entry)


def read_exceptions(path: str) -> tuple[HostAcceptance, ...]:
    """Read a file with `[[accept]]` tables; `-` is standard input. Raises ConfigError with file, line and key.

    A table has `finding`, `reason`, `by`, `until`, and `host` or `site` or both: names, with `*` for any characters.
    """
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return read_toml(text, path, _read)


def _read(tables: Mapping[str, Any]) -> tuple[HostAcceptance, ...]:
    refuse_unknown(tables, {_TABLE: _KEYS}, "")
    entries = read_tables(_TABLE, tables.get(_TABLE, []), _Entry, _KEYS)
    for number, one in enumerate(entries, 1):
        if one.host is None and one.site is None:
            key = f"{_TABLE}[{number}]"
            raise ConfigError(f'{key}: it names no host: add host or site, such as host = "web1" or site = "ams"', key)
    return tuple(HostAcceptance(Acceptance(*one[:4]), one.host, one.site) for one in entries)
