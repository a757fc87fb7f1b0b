"""The inventory: a file with the hosts that must report."""

from collections.abc import Mapping
from typing import NamedTuple

from ntpaudit.core.units import brief
from ntpaudit.errors import ConfigError


class Inventory(NamedTuple):
    """The hosts that must report, in order, and their sites as far as given."""

    names: tuple[str, ...]
    sites: Mapping[str, str]


def read_inventory(path: str) -> Inventory:
    """Read a file with the hosts that must report; `-` is standard input. Raises ConfigError.

    One host per line: a name, or a name, a comma and its site. Blank lines, text after # and a byte order mark are
    ignored. A name may be repeated, but not with another site.
    """
    try:
        with open(0 if path == "-" else path, encoding="utf-8-sig", closefd=path != "-") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise _error(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _error(f"{path} is not UTF-8 text") from error
    sites: dict[str, str] = {}
    placed: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if written := line.partition("#")[0].strip():
            name, *places = (word.strip() for word in written.split(","))
            if not name or not written.isprintable() or len(places) > 1:
                raise _error(f"{path}:{number}: write a host's name, or its name, a comma and its site")
            if (fault := _other_format(name, is_first=not sites)) is not None:
                raise _error(f"{path}:{number}: {fault}")
            place = places[0] if places else ""
            if place and sites.get(name, "") not in ("", place):
                text = f"{name} has site {place} here and {sites[name]} in line {placed[name]}: keep one of them"
                raise _error(f"{path}:{number}: {text}")
            if place:
                placed.setdefault(name, number)
            sites[name] = place or sites.get(name, "")
    if not sites:
        raise _error(f"{path} names no host")
    return Inventory(tuple(sites), {name: site for name, site in sites.items() if site})


def _error(text: str) -> ConfigError:
    return ConfigError(f"fleet.inventory: {text}", "fleet.inventory")


_HEADERS = ("fqdn", "host", "host.name", "host_name", "hostname", "name")


def _other_format(name: str, *, is_first: bool) -> str | None:
    """Return the fault and fix of a line in another format, None for the name of a host."""
    if any(character in name for character in "[]="):
        return (
            "a line of an Ansible inventory, not a host's name: list its hosts with "
            "`ansible all --list-hosts | tail -n +2 | tr -d ' '`"
        )
    if ";" in name:
        return "a semicolon instead of a comma between a host and its site: fix it with `tr ';' ','`"
    if len(words := name.split()) > 1:
        return f"{brief(name)} has white space: write one host per line, and a comma before its site: {words[0]}, ams"
    if is_first and name.lower() in _HEADERS:
        return f"{name!r} is a table's header: remove it (`tail -n +2`), or move a host of that name to a later line"
    return None
