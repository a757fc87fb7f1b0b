"""The servers that daemons are configured with: files of made-up hosts, and real daemons as oracles."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.audit import HostServers
from ntpaudit.core.observation import Daemon, HiddenDaemons
from ntpaudit.probes import daemons
from ntpaudit.probes.daemons import (
    KINDS,
    Configured,
    Running,
    chronyd,
    configured_servers,
    read_servers,
    running_daemons,
)
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import ConfiguredServer, Process
from tests.world.another_user import let_others_in
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY, alone, environment, fetch, program
from tests.world.timesyncd import servers_of_timesyncd

CHRONY = "/etc/chrony/chrony.conf"
NTPD = "/etc/ntpsec/ntp.conf"
TIMESYNCD = "/etc/systemd/timesyncd.conf"
NTPD_RS = "/etc/ntpd-rs/ntp.toml"


def _write(root: Path, files: Mapping[str, str | bytes]) -> None:
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())


def _read(root: Path, command: str = "", *, folder: str | None = "/") -> Configured:
    """What a daemon that was started with a command is configured with; without one, each kind of daemon."""
    kinds = [kind for kind in KINDS if kind.servers is not None and command.partition(" ")[0] in ("", kind.name)]
    words = tuple(shlex.split(command)) or ("started",)
    process = Process(1, words, root=str(root), folder=folder)
    return read_servers([Running(Daemon(kind.name, 1), kind, process) for kind in kinds])


def _servers(root: Path, command: str = "") -> tuple[ConfiguredServer, ...]:
    return _read(root, command).servers


def _names(root: Path, command: str = "") -> list[str]:
    """The servers in short: `host:port`, with `pool` and `nts` where they are."""
    marks = [(server, [" pool"] * server.pool + [" nts"] * server.nts) for server in _servers(root, command)]
    return [f"{server.host}:{server.port}{''.join(words)}" for server, words in marks]


@pytest.mark.parametrize(
    ("path", "text", "server"),
    [
        (CHRONY, "pool a.example iburst\n", ConfiguredServer("a.example", 123, True, False)),
        (NTPD, "server a.example nts\n", ConfiguredServer("a.example", 123, False, True)),
        (TIMESYNCD, "[Time]\nNTP=a.example\n", ConfiguredServer("a.example", 123, False, False)),
        (
            NTPD_RS,
            '[[source]]\nmode = "server"\naddress = "a.example"\n',
            ConfiguredServer("a.example", 123, False, False),
        ),
    ],
)
def test_each_file_names_a_server(path: str, text: str, server: ConfiguredServer, tmp_path: Path) -> None:
    """A server comes with its port, and whether it is a pool and asked with NTS."""
    _write(tmp_path, {path: text})
    assert _servers(tmp_path) == (server,)


def test_a_bare_host_has_no_servers(tmp_path: Path) -> None:
    """Where there is no configuration there are no servers, whichever daemons run; that it is missing is said."""
    assert _servers(tmp_path) == ()
    missing = "the servers of chronyd (pid 1) are not known: /etc/chrony/chrony.conf cannot be read"
    assert _read(tmp_path, "chronyd").problems == (f"{missing}: No such file or directory",)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("server 192.0.2.1", ["192.0.2.1:123"]),
        ("  Server\tA.example  iburst", ["A.example:123"]),
        ("server 2001:db8::1 port 1123", ["2001:db8::1:1123"]),
        ("server a.example minpoll 4 PORT 11123 key 1", ["a.example:11123"]),
        ("POOL 2.debian.pool.ntp.org iburst", ["2.debian.pool.ntp.org:123 pool"]),
        ("peer b.example", ["b.example:123"]),
        ("server a.example nts ntsport 4460", ["a.example:123 nts"]),
        ("pool a.example NTS port 124", ["a.example:124 pool nts"]),
        ("server a.example port", []),
        ("server a.example port 0", []),
        ("server a.example port 65536", []),
        ("server a.example port ntp", []),
        ("server a.example port \N{SUPERSCRIPT TWO}", []),
        ("server", []),
        ("serverstats a.example", []),
        ("#server a.example", []),
        (" ! server a.example", []),
        ("; server a.example", []),
        ("%server a.example", []),
        ("refclock PPS /dev/pps0", []),
    ],
)
def test_lines_of_chrony(line: str, names: list[str], tmp_path: Path) -> None:
    """A line of chrony.conf is read as chronyd reads it; one that chronyd would refuse names no server."""
    _write(tmp_path, {CHRONY: line})
    assert _names(tmp_path) == names


def test_chrony_of_other_distributions(tmp_path: Path) -> None:
    """Where there is no /etc/chrony/chrony.conf, /etc/chrony.conf counts; where there is, it does not."""
    _write(tmp_path, {"etc/chrony.conf": "server fedora.example\n"})
    assert _names(tmp_path) == ["fedora.example:123"]
    _write(tmp_path, {CHRONY: "server debian.example\n"})
    assert _names(tmp_path) == ["debian.example:123"]


def test_chrony_reads_other_files_in_place(tmp_path: Path) -> None:
    """Fragments are read where they are named, sorted by name, and the first folder's of two of the same name."""
    _write(
        tmp_path,
        {
            CHRONY: "confdir /etc/chrony/conf.d /usr/share/chrony.d\nserver main\n"
            "sourcedir /run/chrony-dhcp\nInclude /etc/chrony.d/*.inc\ninclude srv/last\n",
            "etc/chrony/conf.d/20.conf": "server twenty\n",
            "etc/chrony/conf.d/10.conf": "server ten\n",
            "etc/chrony/conf.d/10.sources": "server not-a-conf\n",
            "usr/share/chrony.d/15.conf": "server fifteen\n",
            "usr/share/chrony.d/20.conf": "server replaced\n",
            "run/chrony-dhcp/eth0.sources": "server dhcp iburst\n",
            "run/chrony-dhcp/eth0.conf": "server not-a-source\n",
            "etc/chrony.d/b.inc": "server b\n",
            "etc/chrony.d/a.inc": "server a\ninclude /etc/chrony.d/deeper\n",
            "etc/chrony.d/deeper": "server deeper\n",
            "srv/last": "server last\n",
        },
    )
    expected = ["ten", "fifteen", "twenty", "main", "dhcp", "a", "deeper", "b", "last"]
    assert [server.host for server in _servers(tmp_path)] == expected


def test_loops_of_files_end(tmp_path: Path) -> None:
    """Files that include each other are read once, and a chain of them is followed ten deep, as chronyd does."""
    _write(
        tmp_path,
        {
            CHRONY: "include /etc/chrony/*.conf\nserver a\ninclude /chain/0\n",
            "etc/chrony/b.conf": f"server b\ninclude {CHRONY}\n",
            **{f"chain/{n}": f"server chain-{n}\ninclude /chain/{n + 1}\n" for n in range(20)},
            NTPD: "includefile ntp.conf\nincludefile ../../chain/ntpd\n",
            "chain/ntpd": f"server c\nincludefile {NTPD}\n",
        },
    )
    expected = ["b", "a", *(f"chain-{n}" for n in range(10)), "c"]
    assert [server.host for server in _servers(tmp_path)] == expected


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("server a.example iburst", ["a.example:123"]),
        ("server -4 a.example", ["a.example:123"]),
        ("pool -6 2.ntpsec.pool.ntp.org iburst # the default", ["2.ntpsec.pool.ntp.org:123 pool"]),
        ('peer "a.example"', ["a.example:123"]),
        ("server 2001:db8::1", ["2001:db8::1:123"]),
        ("server time.example:4460 nts", ["time.example:123 nts"]),
        ("server [2001:db8::1]:4460 nts", ["2001:db8::1:123 nts"]),
        ("server 2001:db8::1 nts", ["2001:db8::1:123 nts"]),
        ("server 127.127.20.0 mode 16", []),
        ("server 127.0.0.1", ["127.0.0.1:123"]),
        ("refclock nmea unit 0", []),
        ("restrict default nomodify", []),
        ("# server a.example", []),
        ("server", []),
        ('server ""', []),
        ("server -4", []),
    ],
)
def test_lines_of_ntpd(line: str, names: list[str], tmp_path: Path) -> None:
    """A line of ntp.conf is read as ntpd reads it; a reference clock in the guise of an address is no server."""
    _write(tmp_path, {NTPD: line})
    assert _names(tmp_path) == names


def test_ntpd_reads_other_files(tmp_path: Path) -> None:
    """An include is relative to the file that names it, a folder means its .conf files, and ntp.d comes last."""
    _write(
        tmp_path,
        {
            "etc/ntp.conf": "includefile more/first.inc\nincludefile /srv/all\nserver main\n",
            "etc/more/first.inc": "server first\nincludefile second.inc\n",
            "etc/more/second.inc": "server second\n",
            "srv/all/b.conf": "server b\n",
            "srv/all/a.conf": "server a\n",
            "srv/all/c.txt": "server c\n",
            "etc/ntp.d/last.conf": "server last\n",
        },
    )
    assert [server.host for server in _servers(tmp_path)] == ["first", "second", "a", "b", "main", "last"]


def test_timesyncd_merges_its_files(tmp_path: Path) -> None:
    """Lists grow over the main file and the fragments by name; the first folder's of two of a name counts."""
    _write(
        tmp_path,
        {
            TIMESYNCD: "[Time]\n#NTP=comment\nNTP = one two \\\n  three\nFallbackNTP=unused\n[Other]\nNTP=other\n",
            "usr/lib/systemd/timesyncd.conf": "[Time]\nNTP=vendor-main\n",
            "usr/lib/systemd/timesyncd.conf.d/10-cloud.conf": "[Time]\nNTP=four\n",
            "usr/lib/systemd/timesyncd.conf.d/20.conf": "[Time]\nNTP=masked\n",
            "run/systemd/timesyncd.conf.d/20.conf": "[Time]\nNTP=five\n",
            "etc/systemd/timesyncd.conf.d/30.conf": "NTP=outside\n[Time]\nPollIntervalMaxSec=64\nNTP=six\n",
        },
    )
    assert [server.host for server in _servers(tmp_path)] == ["one", "two", "three", "four", "five", "six"]


@pytest.mark.parametrize(
    ("main", "fragment", "hosts"),
    [
        ("[Time]\nNTP=\nFallbackNTP=a b\n", "", ["a", "b"]),
        ("[Time]\nNTP=a\n", "[Time]\nNTP=\n", []),
        ("[Time]\nNTP=a\n", "[Time]\nNTP=\nNTP=b\n", ["b"]),
        ("[Time]\nNTP=a\nFallbackNTP=c\n", "[Time]\nNTP=\n", ["c"]),
        ("[Time]\n; NTP=a\nNTP\n", "", []),
    ],
)
def test_timesyncd_clears_and_falls_back(main: str, fragment: str, hosts: list[str], tmp_path: Path) -> None:
    """An empty assignment clears the list so far, and the fallback counts only where there is nothing else."""
    _write(tmp_path, {TIMESYNCD: main, "etc/systemd/timesyncd.conf.d/fragment.conf": fragment})
    assert [server.host for server in _servers(tmp_path)] == hosts


NETWORK = "/run/systemd/netif/state"
"""Where systemd-networkd writes the servers of all links, which it has of DHCP for example."""

PROGRAM = "/usr/lib/systemd/systemd-timesyncd"
FRAGMENT = "/etc/systemd/timesyncd.conf.d/x.conf"

AS_SYSTEMD_READS: dict[str, dict[str, str | bytes]] = {
    "an alias": {TIMESYNCD: "[Time]\nServers=a\nNTP=b\nServers=c\n"},
    "cleared by its alias": {TIMESYNCD: "[Time]\nNTP=a\nServers=\nNTP=b\n"},
    "a comment in a continuation": {TIMESYNCD: "[Time]\nNTP=a \\\n# NTP=x \\\n  ; y\n b\nFallbackNTP=f\n"},
    "a comment that ends in a backslash": {TIMESYNCD: "[Time]\n# NTP=x \\\nNTP=a\n"},
    "a byte order mark": {TIMESYNCD: b"\xef\xbb\xbf[Time]\nNTP=a\n"},
    "a byte order mark before a comment": {TIMESYNCD: b"\xef\xbb\xbf# x\n[Time]\nNTP=a\n"},
    "two byte order marks": {TIMESYNCD: b"\xef\xbb\xbf[Time]\n\xef\xbb\xbfNTP=a\nNTP=b\n"},
    "two backslashes": {TIMESYNCD: "[Time]\nRootDistanceMaxSec=5\\\\\nNTP=a\n"},
    "a continuation at the end": {TIMESYNCD: "[Time]\nNTP=a \\"},
    "an empty line in a continuation": {TIMESYNCD: "[Time]\nNTP=a \\\n\nNTP=b\n"},
    "a broken section header": {TIMESYNCD: "[Time]\nNTP=a\n[Other\nNTP=b\n", FRAGMENT: "[Time]\nNTP=c\n"},
    "sections come again": {TIMESYNCD: "[Time]\nNTP=a\n[Other]\nNTP=x\n [Time] \n NTP = b \n"},
    "another case": {TIMESYNCD: "[time]\nNTP=x\n[Time]\nntp=y\nNTP=a\n"},
    "outside of a section": {TIMESYNCD: "NTP=x\n[Time]\nNTP=a\n"},
    "no assignment": {TIMESYNCD: "[Time]\nNTP\nNTP=a\n"},
    "repeated": {TIMESYNCD: "[Time]\nNTP=a b a\nNTP=b\n"},
    "an equals sign in the value": {TIMESYNCD: "[Time]\nNTP=a=b c\n"},
    "carriage returns": {TIMESYNCD: "[Time]\r\nNTP=a\r\n"},
    "invalid names": {TIMESYNCD: "[Time]\nNTP=-x_ a..b 192.0.2.1 2001:db8::1 a\n"},
    "quotes and escapes": {TIMESYNCD: '[Time]\nNTP="a b" c\\d \\e\n'},
    "not UTF-8": {TIMESYNCD: b"[Time]\n# \xff\nNTP=a\nNTP=\xff\nNTP=b\n"},
    "only a fallback": {TIMESYNCD: "[Time]\nFallbackNTP=f g\n"},
    "an empty fallback": {TIMESYNCD: "[Time]\nFallbackNTP=\n"},
    "a fallback that is cleared": {TIMESYNCD: "[Time]\nFallbackNTP=f\nFallbackNTP=\n"},
    "a fallback that cannot be": {TIMESYNCD: "[Time]\nFallbackNTP=a..b\n"},
    "other line ends": {TIMESYNCD: b"[Time]\rNTP=a\0NTP=b\n\rNTP=c"},
    "a file that is not UTF-8, then another": {TIMESYNCD: b"[Time]\nNTP=a \xff\n", FRAGMENT: "[Time]\nNTP=b\n"},
    "long names": {TIMESYNCD: f"[Time]\nNTP={'a' * 63} {'b' * 64} {'c.' * 126}d {'c.' * 127} e.\n"},
    "neither": {TIMESYNCD: "[Time]\n#NTP=\n"},
    "no file": {},
    "links": {TIMESYNCD: "[Time]\nFallbackNTP=f\n", NETWORK: "OPER_STATE=routable\nNTP=192.0.2.7 a\n"},
    "links and its own": {TIMESYNCD: "[Time]\nNTP=a b\n", NETWORK: "NTP=a l\n"},
    "links in quotes": {NETWORK: 'NTP="a b"\nDNS=c\n'},
    "a file of one link": {TIMESYNCD: "[Time]\nFallbackNTP=f\n", "/run/systemd/netif/links/2": "NTP=192.0.2.8\n"},
    "fragments": {
        "/etc/systemd/timesyncd.conf.d/20.conf": "[Time]\nNTP=b\n",
        "/run/systemd/timesyncd.conf.d/10.conf": "[Time]\nNTP=a\n",
        "/run/systemd/timesyncd.conf.d/20.conf": "[Time]\nNTP=masked\n",
    },
}


@pytest.mark.needs("root", "mount", "netns", "another-user", "systemd-timesyncd")
@pytest.mark.parametrize("files", AS_SYSTEMD_READS.values(), ids=AS_SYSTEMD_READS)
def test_timesyncd_says_what_we_read(files: Mapping[str, str | bytes], tmp_path: Path) -> None:
    """The oracle is systemd-timesyncd itself: which servers it adds to its lists, by its log."""
    theirs = servers_of_timesyncd(files, tmp_path / "theirs")
    ours = tmp_path / "ours"
    _write(ours, {PROGRAM: program("systemd-timesyncd").read_bytes(), **files})
    found = _read(ours, "systemd-timesyncd")
    asked = list(dict.fromkeys(theirs["system"] + theirs["link"])) or theirs["fallback"]
    assert [server.host for server in found.servers] == asked
    assert found.problems == ()


@pytest.mark.parametrize(
    ("texts", "comment", "hosts"),
    [
        (["libc.so.6", "0.a.example 1.a.example", "timesyncd.conf"], "", ["0.a.example", "1.a.example"]),
        (["libc.so.6", "ntp.a.example", "timesyncd.conf"], "#FallbackNTP=ntp.a.example\n", ["ntp.a.example"]),
        (["libc.so.6", "ntp.a.example"], "#FallbackNTP=ntp.b.example\n", None),
        (["libc.so.6", "ntp.a.example"], "", None),
        (["0.a.example 1.a.example", "0.b.example 1.b.example"], "", None),
        ([], "#FallbackNTP=ntp.a.example\n", None),
    ],
)
def test_the_fallback_that_is_compiled_in(
    texts: list[str], comment: str, hosts: list[str] | None, tmp_path: Path
) -> None:
    """It is the list of hosts in the program, or the one host that the file as shipped shows; else it is not known."""
    _write(tmp_path, {PROGRAM: b"\x7fELF\0" + b"\0".join(text.encode() for text in texts) + b"\0", TIMESYNCD: comment})
    found = _read(tmp_path, "systemd-timesyncd")
    assert [server.host for server in found.servers] == (hosts or [])
    assert bool(found.problems) == (hosts is None)


def test_timesyncd_needs_no_main_file(tmp_path: Path) -> None:
    """Fragments count without a main file, and one that is linked to nowhere masks the vendor's of its name."""
    folder = "usr/lib/systemd/timesyncd.conf.d"
    _write(tmp_path, {f"{folder}/a.conf": "[Time]\nNTP=a\n", f"{folder}/b.conf": "[Time]\nNTP=b\n"})
    _write(tmp_path, {"etc/systemd/timesyncd.conf.d/c.conf": "[Time]\nNTP=c\n"})
    (tmp_path / "etc/systemd/timesyncd.conf.d/a.conf").symlink_to("/dev/null")
    assert [server.host for server in _servers(tmp_path)] == ["b", "c"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('[[source]]\nmode="pool"\naddress="ntpd-rs.pool.ntp.org"\ncount=4\n', ["ntpd-rs.pool.ntp.org:123 pool"]),
        ('[[source]]\nmode="server"\naddress="a.example:1123"\n', ["a.example:1123"]),
        ('[[source]]\nmode="server"\naddress="[2001:db8::1]:1123"\n', ["2001:db8::1:1123"]),
        ('[[source]]\nmode="server"\naddress="[2001:db8::1]"\n', ["2001:db8::1:123"]),
        ('[[source]]\nmode="server"\naddress="2001:db8::1"\n', ["2001:db8::1:123"]),
        ('[[source]]\nmode="nts"\naddress="a.example:4460"\n', ["a.example:123 nts"]),
        ('[[source]]\nmode="nts-pool"\naddress="a.example"\n', ["a.example:123 pool nts"]),
        ('[[source]]\nmode="pps"\npath="/dev/pps0"\n[[source]]\nmode="server"\naddress="a"\n', ["a:123"]),
        ('[[source]]\nmode="server"\naddress="a.example:0"\n', []),
        ('[[source]]\nmode="server"\naddress=":123"\n', []),
        ('[[source]]\nmode="nts"\naddress=""\n', []),
        ('[[source]]\nmode="server"\naddress=1\n', []),
        ('[[source]]\nmode="server"\n', []),
        ('source="a.example"\n', []),
        ("source=[1, [2]]\n", []),
        ('[[source]]\nmode="server"\naddress="a.example"\n[[source\n', []),
        ("[" * 5_000, []),
        ("a=" + "[" * 5_000, []),
    ],
)
def test_sources_of_ntpd_rs(text: str, names: list[str], tmp_path: Path) -> None:
    """A source of ntp.toml is a server by its mode; a file that is no TOML, or not of this shape, names none."""
    _write(tmp_path, {NTPD_RS: text})
    assert _names(tmp_path) == names


def test_each_server_counts_once(tmp_path: Path) -> None:
    """Where several daemons run, each host and port is returned once, as it stands first."""
    files = {
        CHRONY: "server chrony.example\nserver both.example\n",
        NTPD: "server ntpd.example\nserver BOTH.example\n",
        TIMESYNCD: "[Time]\n",
        NTPD_RS: '[[source]]\nmode="server"\naddress="both.example:1123"\n',
    }
    _write(tmp_path, files)
    assert _names(tmp_path) == ["chrony.example:123", "both.example:123", "ntpd.example:123", "both.example:1123"]
    assert _names(tmp_path, "ntpd") == ["ntpd.example:123", "BOTH.example:123"]


# --- what a daemon was started with -------------------------------------------------------------------------------

ELSEWHERE = "/srv/time.conf"


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("chronyd", ["default:123"]),
        ("chronyd -F 1", ["default:123"]),
        ("chronyd -4 -F -1", ["default:123"]),
        (f"chronyd -f {ELSEWHERE}", ["elsewhere:123"]),
        (f"chronyd -d -x -f{ELSEWHERE} -L 0", ["elsewhere:123"]),
        (f"chronyd -f /nowhere -f {ELSEWHERE}", ["elsewhere:123"]),
        ("chronyd -n 'server a iburst' 'pool b maxsources 2' 'makestep 1 -1'", ["a:123", "b:123 pool"]),
        (f"chronyd -Q -f {ELSEWHERE} 'server a port 1123'", ["a:1123"]),  # directives stand instead of a file
        (f"chronyd 'include {ELSEWHERE}'", ["elsewhere:123"]),
        # As /proc has it: chronyd takes its arguments apart where they stand.
        ("chronyd -n server a iburst pool b nts maxsources 2 makestep 1 -1", ["a:123", "b:123 pool nts"]),
        ("chronyd -x cmdport 0 port 0 server 192.0.2.1 minpoll -2 iburst rtcsync", ["192.0.2.1:123"]),
        ("chronyd server a iburst port 0 server b port 123 nts", ["a:123", "b:123 nts"]),
        (f"chronyd include {ELSEWHERE} makestep 1 3", ["elsewhere:123"]),
        ("chronyd server a port 1123", []),  # its port, or that of chronyd
        ("chronyd -f srv/time.conf", ["elsewhere:123"]),
        ("chronyd -f /nowhere", []),
        ("chronyd --strange -f /srv/time.conf", []),
        ("ntpd", ["default:123"]),
        ("ntpd -p /run/ntpd.pid -c /etc/ntpsec/ntp.conf -g -N -u ntpsec:ntpsec", ["default:123"]),  # Debian's
        (f"ntpd -p /run/ntpd.pid -c {ELSEWHERE} -u ntpsec:ntpsec", ["elsewhere:123"]),  # its own after DHCP
        (f"ntpd -c /etc/ntpsec/ntp.conf -c {ELSEWHERE}", ["elsewhere:123"]),
        (f"ntpd --configfile={ELSEWHERE}", ["elsewhere:123"]),
        (f"ntpd --configfile {ELSEWHERE} -g", ["elsewhere:123"]),
        (f"ntpd -gc {ELSEWHERE} 192.0.2.9 b", ["192.0.2.9:123", "b:123", "elsewhere:123"]),
        ("ntpd -P 10 -c /nowhere", []),
        ("ntpd -N -p a.example -p keyno:1:b.example", ["a.example:123", "b.example:123"]),  # BusyBox's
        ("ntpd -n -l -S /usr/sbin/hook -p 2001:db8::1", ["2001:db8::1:123"]),
        ("ntpd -n -N", ["default:123"]),
        ("ntpd -g -p ntpd.pid", ["default:123"]),
        ("ntpd -E", []),
        ("openntpd", ["a:123", "b:123 pool"]),
        ("openntpd -f /etc/openntpd/ntpd.conf", ["a:123", "b:123 pool"]),
        ("openntpd -s -d -f /srv/openntpd.conf", ["c:123"]),
        ("openntpd -c /srv/openntpd.conf", []),  # no option of its
        ("ntpd-rs", ["rs:123"]),
        ("ntpd-rs --config /srv/ntp.toml", ["other:123"]),
        ("ntpd-rs --config=/srv/ntp.toml -l debug", ["other:123"]),
        ("ntpd-rs -c /srv/ntp.toml", ["other:123"]),
    ],
)
def test_the_command_line_counts(command: str, names: list[str], tmp_path: Path) -> None:
    """What a daemon was started with is what it asks, and never a file that it was not given."""
    source = '[[source]]\nmode="server"\naddress="{}"\n'
    _write(
        tmp_path,
        {
            CHRONY: "server default\n",
            NTPD: "server default\n",
            ELSEWHERE: "server elsewhere\n",
            "etc/openntpd/ntpd.conf": "# server no\nserver a weight 2 # the best\nlisten on *\nservers b\nsensor *\n",
            "srv/openntpd.conf": 'constraints from "https://9.9.9.9"\nserver \\\n"c"\n',
            NTPD_RS: source.format("rs"),
            "srv/ntp.toml": source.format("other"),
        },
    )
    assert _names(tmp_path, command) == names
    assert bool(names) != bool(_read(tmp_path, command).problems)


def test_a_folder_that_cannot_be_seen_leaves_a_relative_path_open(tmp_path: Path) -> None:
    """A path that begins nowhere names no file; that the servers are not known is said."""
    _write(tmp_path, {"srv/time.conf": "server a\n", CHRONY: "server leftover\n"})
    assert [one.host for one in _read(tmp_path, "chronyd -f time.conf", folder="/srv").servers] == ["a"]
    found = _read(tmp_path, "chronyd -f time.conf", folder=None)
    assert found.servers == ()
    assert found.problems == (
        "the servers of chronyd (pid 1) are not known: "
        "time.conf cannot be found: the folder it was started in cannot be seen",
    )


def test_files_of_another_container_are_not_ours(tmp_path: Path) -> None:
    """A daemon whose files are out of reach has servers that we cannot know; the path is another file here."""
    process = Process(7, ("chronyd",), root=None)
    (kind,) = [kind for kind in KINDS if kind.name == "chronyd"]
    found = read_servers([Running(Daemon("chronyd", 7), kind, process)])
    problem = "the servers of chronyd (pid 7) are not known: its files cannot be seen from here"
    assert found == Configured((), (problem,), is_known=False)


def test_what_chronyd_reads_is_what_we_read(tmp_path: Path) -> None:
    """`chronyd -p` prints the lines that it reads, included files in their places (those of a sourcedir come later)."""
    _write(
        tmp_path,
        {
            "chrony.conf": f"""
                ! server no.1
                pool 2.debian.example iburst maxsources 3
                confdir {tmp_path}/conf.d {tmp_path}/more.d
                include {tmp_path}/inc/*.conf
                Server last.example port 1123 key 5
                # server no.2
                peer peer.example
            """,
            "conf.d/20-b.conf": "server b.example\n",
            "conf.d/10-a.conf": "server a.example nts\n",
            "more.d/10-a.conf": "server masked.example\n",
            "more.d/30-c.conf": "server 2001:db8::3\n",
            "inc/z.conf": f"server z.example\ninclude {tmp_path}/inc/deep\n",
            "inc/deep": "pool deep.example\n",
        },
    )
    command = [str(program("chronyd")), "-U", "-p", "-f", str(tmp_path / "chrony.conf")]
    printed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
    _write(tmp_path / "flat", {CHRONY: printed})
    ours = _read(Path("/"), f"chronyd -f {tmp_path}/chrony.conf")
    asked = [line.split()[1] for line in printed.splitlines() if line.split()[:1] and line.split()[0].lower() in KEYS]
    assert [server.host for server in ours.servers] == asked
    assert len(asked) == 8
    assert ours.servers == _servers(tmp_path / "flat", "chronyd")
    assert not ours.problems


KEYS = ("server", "pool", "peer")


# --- real daemons, and what only looks like one -------------------------------------------------------------------

_CONTAINER = """
mount -t tmpfs none /etc; mount -t tmpfs none /run; mount -t tmpfs none /var/lib
mkdir -p /etc/chrony /etc/ntpsec /etc/openntpd /var/lib/openntpd/run /var/lib/openntpd/db /run/openntpd
printf 'root:x:0:0:::\\nntpd:x:999:999::/run/openntpd:\\n' >/etc/passwd
echo ntpd:x:999: >/etc/group; echo ntp 123/udp >/etc/services
for file in chrony/chrony.conf ntpsec/ntp.conf openntpd/ntpd.conf; do echo server left.over >/etc/$file; done
eval "$0" >/run/log 2>&1 &
exec "$@"
"""
"""A host with the files of three daemons, none of which the daemon of the script was started with."""

_LOOK = """
import time
from ntpaudit.probes.daemons import configured_servers, running_daemons
for _ in range(200):
    found = configured_servers()
    if any(server.host != "left.over" for server in found.servers):
        break
    time.sleep(0.05)
names = [daemon.name for daemon in running_daemons().seen]  # of this PID namespace, so others may be hidden
print(*(f"{' '.join(names)} {server.host}" for server in found.servers), *found.problems, sep="\\n")
print(open("/run/log").read() if not found.servers else "", end="")
"""

_POWERLESS = "setpriv --bounding-set=-sys_time --inh-caps=-all"


def _started(script: str) -> list[str]:
    """What is found on a host where a script starts a daemon: daemon and server of each, then what is wrong."""
    command = [*unshared("net", "mount", "pid"), "sh", "-ec", _CONTAINER, script, sys.executable, "-c", _LOOK]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.needs("chronyd", "netns", "mount", "pidns")
def test_a_real_chronyd_is_asked_what_it_was_started_with() -> None:
    """Chronyd -f FILE, and directives as arguments."""
    quiet = "'cmdport 0' 'port 0' 'pidfile /run/pid'"
    chrony = f"{shlex.quote(str(program('chronyd')))} -x -d -U -u root"
    assert _started(f"echo server a >/run/x.conf; {chrony} -f /run/x.conf") == ["chronyd a"]
    assert _started(f"{chrony} {quiet} 'server 192.0.2.1 iburst'") == ["chronyd 192.0.2.1"]


@pytest.mark.needs("ntpd", "netns", "mount", "pidns")
def test_a_real_ntpd_is_asked_what_it_was_started_with() -> None:
    """As Debian starts it after DHCP: ntpd -c /run/ntpsec/ntp.conf.dhcp."""
    ntpd = f"{_POWERLESS} {shlex.quote(str(program('ntpd')))} -n -p /run/ntpd.pid"
    script = "mkdir /run/ntpsec; echo server 192.0.2.1 >/run/ntpsec/ntp.conf.dhcp; "
    assert _started(f"{script} {ntpd} -c /etc/ntpsec/ntp.conf -c /run/ntpsec/ntp.conf.dhcp") == ["ntpd 192.0.2.1"]


@pytest.mark.needs("openntpd", "root", "netns", "mount", "pidns")
def test_a_real_openntpd_is_known_behind_its_name() -> None:
    """Debian's OpenNTPD runs as ntpd: by its helper it is known, and its own file is read."""
    ntpd = shlex.quote(str(alone("openntpd") / "usr/sbin/ntpd"))
    script = f"echo servers 192.0.2.1 >/etc/openntpd/ntpd.conf; {_POWERLESS} {ntpd} -d"
    assert _started(script) == ["openntpd 192.0.2.1"]


@pytest.mark.needs("netns", "mount", "pidns", "another-user")
def test_a_program_of_another_user_names_no_servers(tmp_path: Path) -> None:
    """Anybody can call a program chronyd and give it a file: who would be asked then is not theirs to say."""
    shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "chronyd")
    let_others_in(tmp_path)
    script = f"echo server evil >/run/evil.conf; setpriv --reuid=65534 --clear-groups {tmp_path}/chronyd 60"
    quick = _LOOK.replace("range(200)", "range(10)")
    command = [*unshared("net", "mount", "pid"), "sh", "-ec", _CONTAINER, script, sys.executable, "-c", quick]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (problem,) = done.stdout.splitlines()
    assert problem.startswith("no time daemon of root or systemd runs here; ignored: ")


def _chosen(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, Process]) -> list[str]:
    """Whose servers are asked where these processes run: chronyd's, each of whose files names a server of its own."""
    monkeypatch.setattr(daemons, "time_processes", lambda _names: (found, None))
    return [server.host for server in configured_servers().servers]


def test_whose_servers_are_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of daemons that discipline the clock; where there is none, of those that root or their unit started."""

    def chronyd(number: int, *options: str, **how: Any) -> tuple[str, Process]:
        path = tmp_path / f"{number}.conf"
        path.write_text(f"server s{number}\n")
        return "chronyd", Process(number, ("chronyd", "-f", str(path), *options), **how)

    disciplines = chronyd(1)
    serves = chronyd(2, "-x")
    powerless = chronyd(3, can_set_clock=False)
    strange = chronyd(4, can_set_clock=False, is_root=False)
    by_unit = chronyd(5, can_set_clock=False, is_root=False, unit="chrony.service")
    by_other_unit = chronyd(6, can_set_clock=False, is_root=False, unit="app.service")
    unseen = chronyd(7, can_set_clock=None, is_root=False)
    contained = chronyd(8, can_set_clock=False, is_ours=False)
    everything = (disciplines, serves, powerless, strange, by_unit, by_other_unit, unseen, contained)
    assert _chosen(monkeypatch, *everything) == ["s1"]
    assert _chosen(monkeypatch, *everything[1:]) == ["s2", "s3", "s5"]
    assert _chosen(monkeypatch, strange, by_other_unit, unseen, contained) == []
    assert (
        configured_servers().problems[0].endswith("chronyd (pid 4), chronyd (pid 6), chronyd (pid 7), chronyd (pid 8)")
    )
    assert _chosen(monkeypatch) == []
    assert configured_servers().problems == ("no time daemon runs here",)


def test_a_command_line_that_cannot_be_seen_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither whether it holds the clock nor whom it asks: the default file may not be its own."""
    monkeypatch.setattr(daemons, "time_processes", lambda _names: ([("chronyd", Process(7, ()))], None))
    found = running_daemons()
    assert not isinstance(found, HiddenDaemons)
    assert [one for one in found if one.pid == 7] == [chronyd.KIND.daemon(7, None, "its command line cannot be seen")]
    assert configured_servers().servers == ()
    assert "chronyd (pid 7)" in configured_servers().problems[0]


def test_servers_stay_while_no_daemon_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An agent goes on asking the servers of a daemon that has ended; a daemon that runs with others replaces them."""
    path = tmp_path / "chrony.conf"
    path.write_text("server a\n")
    found = [("chronyd", Process(1, ("chronyd", "-f", str(path))))]
    monkeypatch.setattr(daemons, "time_processes", lambda _names: (found, None))
    own = HostServers()
    assert [server.host for server in own.read().servers] == ["a"]
    ended = found.pop()
    after = own.read()
    assert ([server.host for server in after.servers], after.problems) == (["a"], ("no time daemon runs here",))
    path.unlink()
    found.append(ended)
    assert [server.host for server in own.read().servers] == ["a"]
    path.write_text("server b\n")
    assert [server.host for server in own.read().servers] == ["b"]
    path.write_text("# none any more\n")
    assert own.read() == Configured((), (), is_known=True)
    assert HostServers().read().servers == ()


def test_where_a_daemon_logs(tmp_path: Path) -> None:
    """By an option of chronyd and ntpd, or the configuration of ntpd; the others, and these by default, to syslog."""
    _write(tmp_path, {NTPD: "logfile /var/log/ntp.log\n", "/etc/other.conf": "server a\n# logfile /tmp/no\n"})
    files = Files(str(tmp_path))
    assert chronyd.KIND.log_file(Process(1, ("chronyd", "-l", "/var/log/chrony.log")), files) == "/var/log/chrony.log"
    assert chronyd.KIND.log_file(Process(1, ("chronyd", "-F", "1")), files) is None
    ntpd = next(kind for kind in KINDS if kind.name == "ntpd")
    for words, expected in {"": "/var/log/ntp.log", "-l /run/x": "/run/x", "-c /etc/other.conf": None}.items():
        assert ntpd.log_file(Process(1, ("ntpd", "-g", *words.split())), Files(str(tmp_path))) == expected
    bare = Files(str(tmp_path / "bare"))
    assert [kind.name for kind in KINDS if kind.log_file(Process(1, (kind.name,)), bare)] == []


def test_a_pipe_in_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner puts it there after we have looked: reading does not wait for a writer."""
    (tmp_path / "file").write_text("server a.example")
    seen = os.stat(tmp_path / "file")
    (tmp_path / "file").unlink()
    os.mkfifo(tmp_path / "file")
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda _: seen)
        assert Files(str(tmp_path)).octets("/file") == b""


def test_what_cannot_be_read_names_nothing(tmp_path: Path) -> None:
    """A folder, a loop of links, a name too long and bytes that are no text stop nothing but themselves."""
    (tmp_path / "etc/chrony/chrony.conf").mkdir(parents=True)
    _write(tmp_path, {"etc/chrony.conf": "server shadowed\n", "etc/systemd": "a file\n"})
    (tmp_path / "etc/ntpd-rs").mkdir()
    (tmp_path / "etc/ntpd-rs/ntp.toml").symlink_to("ntp.toml")
    _write(
        tmp_path, {NTPD: b"includefile " + b"x" * 300 + b"\n# \xff\xfe\0\nserver \xe9\0.example\nserver a.example\n"}
    )
    assert [server.host for server in _servers(tmp_path)] == ["\N{REPLACEMENT CHARACTER}.example", "a.example"]


@pytest.mark.needs("ntpd")
def test_the_packaged_configurations_are_read() -> None:
    """The files as Debian's chrony and NTPsec install them name the pools they ask, Debian's own."""
    fetch("ntpsec")
    packaged = program("chronyd").parents[2]
    chrony = (packaged / "usr/share/chrony/chrony.conf").read_bytes()
    ntpsec = (packaged / "etc/ntpsec/ntp.conf").read_bytes()
    with TemporaryDirectory() as name:
        _write(Path(name), {CHRONY: chrony, NTPD: ntpsec})
        for command in ("chronyd", "ntpd"):
            servers = _servers(Path(name), command)
            assert servers
            assert all(
                server.pool and server.host.endswith(".pool.ntp.org") and server.port == 123 for server in servers
            )


_WORDS = st.sampled_from(
    [
        *("server", "pool", "peer", "include", "includefile", "confdir", "sourcedir", "[Time]", "[[source]]", "mode"),
        *("port", "nts", "-4", "127.127.1.0", "a.example", "[::1]:99", ":", "0", "NTP=", "FallbackNTP=", "=", '"'),
        *("/", "*", "**", "/etc/*/*", "../*", "[", "[!", "\\", "\n", "\r", " ", "\t", "\0", "#", "ntp.conf", CHRONY),
    ]
)
_CONFIGURATIONS = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode(errors="replace")),
    st.lists(_WORDS | st.text(max_size=3)).map(lambda words: " ".join(words).encode(errors="replace")),
)


@given(text=_CONFIGURATIONS)
def test_any_text_is_read(text: bytes) -> None:
    """Whatever the files hold, reading them raises nothing, and every server has a name and a port that can be."""
    with TemporaryDirectory() as name:
        _write(Path(name), dict.fromkeys((CHRONY, NTPD, TIMESYNCD, NTPD_RS), text))
        for server in _servers(Path(name)):
            assert server.host.split() == [server.host]
            assert 1 <= server.port <= 65_535
