"""The servers that configuration files name, read from made-up hosts."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.probes.host_sources import ConfiguredServer, configured_servers
from tests.world.packages import fetch, program

CHRONY = "/etc/chrony/chrony.conf"
NTPD = "/etc/ntpsec/ntp.conf"
TIMESYNCD = "/etc/systemd/timesyncd.conf"
NTPD_RS = "/etc/ntpd-rs/ntp.toml"


def _write(root: Path, files: Mapping[str, str | bytes]) -> None:
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())


def _names(root: Path, *running: str) -> list[str]:
    """The servers in short: `host:port`, with `pool` and `nts` where they are."""
    marks = [(server, [" pool"] * server.pool + [" nts"] * server.nts) for server in _servers(root, *running)]
    return [f"{server.host}:{server.port}{''.join(words)}" for server, words in marks]


def _servers(root: Path, *running: str) -> tuple[ConfiguredServer, ...]:
    return configured_servers(running, root=str(root))


@pytest.mark.parametrize(
    ("path", "text", "server"),
    [
        (CHRONY, "pool a.example iburst\n", ConfiguredServer("a.example", 123, True, "chronyd", CHRONY, False)),
        (NTPD, "server a.example nts\n", ConfiguredServer("a.example", 123, False, "ntpd", NTPD, True)),
        (
            TIMESYNCD,
            "[Time]\nNTP=a.example\n",
            ConfiguredServer("a.example", 123, False, "systemd-timesyncd", TIMESYNCD, False),
        ),
        (
            NTPD_RS,
            '[[source]]\nmode = "server"\naddress = "a.example"\n',
            ConfiguredServer("a.example", 123, False, "ntpd-rs", NTPD_RS, False),
        ),
    ],
)
def test_a_server_tells_where_it_was_found(path: str, text: str, server: ConfiguredServer, tmp_path: Path) -> None:
    """A server comes with its daemon, and with its file as the host itself calls it."""
    _write(tmp_path, {path: text})
    assert _servers(tmp_path) == (server,)


def test_a_bare_host_has_no_servers(tmp_path: Path) -> None:
    """Where there is no configuration there are no servers, whichever daemons run."""
    assert _servers(tmp_path) == _servers(tmp_path, "chronyd", "ntpd") == ()


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
    assert _servers(tmp_path)[3].path == "/usr/lib/systemd/timesyncd.conf.d/10-cloud.conf"


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


def _four(root: Path) -> None:
    files = {
        CHRONY: "server chrony.example\nserver both.example\n",
        NTPD: "server ntpd.example\nserver BOTH.example\n",
        TIMESYNCD: "[Time]\n",
        NTPD_RS: '[[source]]\nmode="server"\naddress="both.example:1123"\n',
    }
    _write(root, files)


def test_all_configurations_count_when_none_runs(tmp_path: Path) -> None:
    """With no daemon running, or only one that has no servers, those of all are returned, each once and in order."""
    _four(tmp_path)
    expected = ["chrony.example:123", "both.example:123", "ntpd.example:123", "both.example:1123"]
    assert _names(tmp_path) == _names(tmp_path, "systemd-timesyncd", "openntpd") == expected


def test_only_the_running_daemons_count(tmp_path: Path) -> None:
    """What is configured for a daemon that does not run is left out as soon as one that runs has servers."""
    _four(tmp_path)
    assert _names(tmp_path, "ntpd") == ["ntpd.example:123", "BOTH.example:123"]
    assert _names(tmp_path, "systemd-timesyncd", "ntpd-rs") == ["both.example:1123"]
    assert _names(tmp_path, "ntpd-rs", "chronyd")[-1] == "both.example:1123"


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
        servers = _servers(Path(name))
    assert {server.daemon for server in servers} == {"chronyd", "ntpd"}
    assert all(server.pool and server.host.endswith(".pool.ntp.org") and server.port == 123 for server in servers)


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
