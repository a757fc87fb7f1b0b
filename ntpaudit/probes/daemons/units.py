"""The services of systemd that are time daemons: which are installed, and whether a boot starts them.

This reads the files that `systemctl is-enabled` reads; the agent's sandbox cannot call systemctl.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ntpaudit.core.observation import Enablement
from ntpaudit.probes.daemons.files import Files

_CONFIGURED = ("/etc/systemd/system", "/run/systemd/system")  # where `systemctl enable` and `--runtime` make links
_GENERATED = ("/run/systemd/generator.early", "/run/systemd/generator", "/run/systemd/generator.late")
_FOLDERS = (  # by precedence (systemd.unit(5), System Unit Search Path); a transient unit is not installed
    *("/etc/systemd/system.control", "/run/systemd/system.control", _GENERATED[0]),
    *("/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system", "/run/systemd/system.attached"),
    *(_GENERATED[1], "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", _GENERATED[2]),
)
_LINKING = ("WantedBy", "RequiredBy", "UpheldBy", "Alias")  # what `systemctl enable` makes links for


class _Links(NamedTuple):
    """The links of `systemctl enable`: names of units that are started with others, and aliases with their targets."""

    started: frozenset[str]
    aliases: Mapping[str, str]


def unit_states(kinds: Collection[str], units: Collection[str], root: str = "") -> dict[str, Enablement | None]:
    """Return which services are installed, in order, and what `systemctl is-enabled` reports of each.

    `kinds` are names without `.service` and what follows an `@`, `units` are whole names. A service that is enabled or
    masked until the next boot is so. None: in another state, or not readable. Nothing where systemd does not run.
    """
    if not os.path.isdir(f"{root}/run/systemd/system"):  # as sd_booted(3) finds out
        return {}
    links = _links(root)
    instances = {name for name in links.started if "@" in name and name.partition("@")[0] in kinds}
    names = {f"{kind}.service" for kind in kinds} | instances | set(units)
    found = {name: path for name in sorted(names) if (path := _path(name, root)) is not None}
    return {name: _state(name, path, links, root) for name, path in found.items()}


def _links(root: str) -> _Links:
    started, aliases = set[str](), dict[str, str]()
    for folder in _CONFIGURED:
        for name in _names(root + folder):
            path = f"{root}{folder}/{name}"
            if name.endswith((".wants", ".requires", ".upholds")):
                started |= set(_names(path))
            elif target := _target(path):
                aliases.setdefault(name, target)
    return _Links(frozenset(started), aliases)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _target(path: str) -> str | None:
    """Return the name that a symbolic link leads to."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return None


def _path(name: str, root: str) -> str | None:
    """Return the file of a unit, for an instance that of its template; None for an alias, which is no other service."""
    start, is_instance, _ = name.partition("@")
    for one in (name, f"{start}@.service") if is_instance else (name,):
        for folder in _FOLDERS:
            if os.path.lexists(path := f"{root}{folder}/{one}"):
                return path if _target(path) in (None, one, "null") else None
    return None


def _state(name: str, path: str, links: _Links, root: str) -> Enablement | None:
    try:
        if os.stat(path).st_size == 0:  # of /dev/null, too
            return "masked"
    except OSError:
        return None
    if any(path.startswith(f"{root}{folder}/") for folder in _GENERATED):
        return None
    settings = list(_install_settings(Files().lines(path)))
    own_aliases = {word for key, value in settings if key == "Alias" for word in value.split()}
    if name in links.started or any(links.aliases.get(alias) == name for alias in own_aliases):
        return "enabled"
    if any(key in _LINKING and value for key, value in settings):
        return "disabled"
    return None if settings else "static"  # `Also` alone is called `indirect`


def _install_settings(lines: Collection[str]) -> Iterator[tuple[str, str]]:
    section = ""
    for line in lines:
        if line.startswith("["):
            section = line.strip()
        elif section == "[Install]" and "=" in line and not line.lstrip().startswith(("#", ";")):
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()
