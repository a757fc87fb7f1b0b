"""Read which servers this host's own time daemons are configured with, so that they need not be named again."""

import glob
import os.path
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ntpaudit.core.sources import NTP_PORT

_CHRONY = ("/etc/chrony/chrony.conf", "/etc/chrony.conf")
_NTPD = ("/etc/ntpsec/ntp.conf", "/etc/ntp.conf")
_NTPD_RS = "/etc/ntpd-rs/ntp.toml"
_SYSTEMD = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_MAX_DEPTH = 10  # chrony's own limit; ntpd stops at five


class ConfiguredServer(NamedTuple):
    """A server that a daemon's configuration names.

    `pool`: the name stands for several servers. `daemon` is the daemon's name as `running_daemons` gives it, `path`
    the file that says so. `nts`: the daemon asks it with NTS; `port` is NTP's all the same, never the key exchange's.
    """

    host: str
    port: int
    pool: bool
    daemon: str
    path: str
    nts: bool


def configured_servers(running: Collection[str] = (), root: str = "/") -> tuple[ConfiguredServer, ...]:
    """Return the servers that the configuration files under `root` name, each host and port once, in their order.

    Where one of the `running` daemons has servers, those of daemons that do not run are left out. A file that is
    missing, unreadable or broken names no servers.
    """
    tree = _Tree(root.rstrip("/"))
    found = {daemon: list(read(tree)) for daemon, read in _READERS.items()}
    counting = [daemon for daemon in found if daemon in running and found[daemon]] or list(found)
    servers: dict[tuple[str, int], ConfiguredServer] = {}
    for daemon in counting:
        for server in found[daemon]:
            servers.setdefault((server.host.lower(), server.port), server)
    return tuple(servers.values())


class _Tree(NamedTuple):
    """The files under a root, by the absolute paths they have on the host that it is the root of."""

    root: str

    def lines(self, path: str) -> list[str]:
        """Return the lines of a regular file, as those of anything else may never end; none if it cannot be read."""
        try:
            real = Path(self.root + path)
            text = real.read_text(encoding="utf-8", errors="replace") if real.is_file() else ""
        except OSError:
            return []
        return text.replace("\0", "").split("\n")  # a path with a NUL in it would be refused with a ValueError

    def first(self, paths: Collection[str]) -> str | None:
        """Return the first of the paths at which there is something."""
        return next((path for path in paths if os.path.lexists(self.root + path)), None)

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that match a shell pattern, sorted; a daemon's working folder is the root."""
        pattern = f"{glob.escape(self.root)}/{pattern.lstrip('/')}"
        found = glob.glob(pattern)
        return sorted(path[len(self.root) :] for path in found)

    def fragments(self, folders: Collection[str], suffix: str) -> list[str]:
        """Return the files of several folders by name; of those with the same name, the first folder's counts."""
        by_name: dict[str, str] = {}
        for folder in folders:
            for path in self.matching(f"{glob.escape(folder)}/*{suffix}"):
                by_name.setdefault(os.path.basename(path), path)
        return [by_name[name] for name in sorted(by_name)]


def _chrony(tree: _Tree) -> Iterator[ConfiguredServer]:
    if path := tree.first(_CHRONY):
        yield from _chrony_file(tree, path, set())


def _chrony_file(tree: _Tree, path: str, seen: set[str], depth: int = 0) -> Iterator[ConfiguredServer]:
    if path in seen or depth > _MAX_DEPTH:
        return
    seen.add(path)  # a second reading would name the same servers, and a loop would name them for ever
    for line in tree.lines(path):
        included: list[str] = []
        match line.split():
            case [word, *_] if word[0] in "!;#%":
                continue
            case [word, host, *options] if (kind := word.lower()) in ("server", "pool", "peer"):
                options = [option.lower() for option in options]
                port = _port(options[options.index("port") + 1 :][:1]) if "port" in options else NTP_PORT
                if port:
                    yield ConfiguredServer(host, port, kind == "pool", "chronyd", path, "nts" in options)
            case [word, pattern] if word.lower() == "include":
                included = tree.matching(pattern)
            case [word, *folders] if word.lower() == "confdir":
                included = tree.fragments(folders, ".conf")
            case [word, *folders] if word.lower() == "sourcedir":
                included = tree.fragments(folders, ".sources")
        for inner in included:
            yield from _chrony_file(tree, inner, seen, depth + 1)


def _ntpd(tree: _Tree) -> Iterator[ConfiguredServer]:
    seen: set[str] = set()
    if path := tree.first(_NTPD):
        yield from _ntpd_file(tree, path, seen)
        for fragment in tree.matching(f"{os.path.dirname(path)}/ntp.d/*.conf"):
            yield from _ntpd_file(tree, fragment, seen)


def _ntpd_file(tree: _Tree, path: str, seen: set[str], depth: int = 0) -> Iterator[ConfiguredServer]:
    if path in seen or depth > _MAX_DEPTH:
        return
    seen.add(path)
    for line in tree.lines(path):
        words = [word.strip('"') for word in line.partition("#")[0].split()]
        match [word for word in words if word not in ("-4", "-6")]:
            case ["server" | "pool" | "peer" as kind, host, *options]:
                host = _split_port(host)[0] if "nts" in options else host  # the port is that of the key exchange
                if host and not host.startswith("127.127."):  # a reference clock in the guise of an address
                    yield ConfiguredServer(host, NTP_PORT, kind == "pool", "ntpd", path, "nts" in options)
            case ["includefile", name]:
                target = os.path.normpath(os.path.join(os.path.dirname(path), name))
                for inner in [target, *tree.matching(f"{glob.escape(target)}/*.conf")]:
                    yield from _ntpd_file(tree, inner, seen, depth + 1)


def _timesyncd(tree: _Tree) -> Iterator[ConfiguredServer]:
    """Merge the main file and its fragments: lists grow from file to file, and an empty assignment clears them."""
    main = tree.first([f"{folder}/timesyncd.conf" for folder in _SYSTEMD])
    fragments = tree.fragments([f"{folder}/timesyncd.conf.d" for folder in _SYSTEMD], ".conf")
    lists: dict[str, list[tuple[str, str]]] = {"NTP": [], "FallbackNTP": []}
    for path in [main, *fragments] if main else fragments:
        section = ""
        unfolded = "\n".join(tree.lines(path)).replace("\\\n", " ").split("\n")
        for line in map(str.strip, unfolded):
            key, assigns, value = (part.strip() for part in line.partition("="))
            if line.startswith("["):
                section = line
            elif section == "[Time]" and assigns and key in lists:
                lists[key] = lists[key] + [(host, path) for host in value.split()] if value else []
    # With neither, it asks servers that were compiled into it, which no file tells.
    for host, path in lists["NTP"] or lists["FallbackNTP"]:
        yield ConfiguredServer(host, NTP_PORT, False, "systemd-timesyncd", path, False)


def _ntpd_rs(tree: _Tree) -> Iterator[ConfiguredServer]:
    lines = tree.lines(_NTPD_RS)
    if not any(lines):
        return
    import tomllib  # only where there is something to read with it

    try:
        sources = tomllib.loads("\n".join(lines)).get("source")
    except (ValueError, RecursionError):  # not TOML, or nested too deep for it
        return
    for source in sources if isinstance(sources, list) else ():
        match source:
            case {"mode": "server" | "pool" as mode, "address": str(address)}:
                host, port = _split_port(address)
                if host and port:
                    yield ConfiguredServer(host, port, mode == "pool", "ntpd-rs", _NTPD_RS, False)
            case {"mode": "nts" | "nts-pool" as mode, "address": str(address)}:
                host, _ = _split_port(address)  # the port is that of the key exchange
                if host:
                    yield ConfiguredServer(host, NTP_PORT, mode == "nts-pool", "ntpd-rs", _NTPD_RS, True)


def _split_port(text: str) -> tuple[str, int | None]:
    """Split `HOST[:PORT]` or `[V6]:PORT`; a bare IPv6 address has no port. None is a port that cannot be."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, _port([port]) if port else NTP_PORT


def _port(words: list[str]) -> int | None:
    """Read a port number; None if it is missing or cannot be one."""
    match words:
        case [word] if word.isascii() and word.isdecimal() and len(word) <= 5 and 1 <= int(word) <= 65_535:
            return int(word)
    return None


_READERS: dict[str, Callable[[_Tree], Iterator[ConfiguredServer]]] = {
    "chronyd": _chrony,
    "ntpd": _ntpd,
    "systemd-timesyncd": _timesyncd,
    "ntpd-rs": _ntpd_rs,
}
