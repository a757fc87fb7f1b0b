"""The fingerprint of what decides the host's time: files of made-up hosts under a root of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntpaudit.core.observation import TimeSetting
from ntpaudit.files import sha256_hex
from ntpaudit.probes import time_config
from ntpaudit.probes.daemons import chronyd
from ntpaudit.probes.time_config import TimeConfigWatch, read_setting
from tests.waiting import until
from tests.world.another_user import let_others_in

CHRONY = "/etc/chrony/chrony.conf"
HOST = {
    CHRONY: "confdir /etc/chrony/conf.d\nsourcedir /run/chrony-dhcp\nsourcedir /etc/chrony/sources.d\n"
    "keyfile /etc/chrony/chrony.keys\nntstrustedcerts 1 /etc/ssl/ntp-ca.pem\ndriftfile /var/lib/chrony/chrony.drift\n"
    "include /etc/chrony/site.conf\n",
    "/etc/chrony/conf.d/site.conf": "makestep 1 3\n",
    "/etc/chrony/site.conf": "maxslewrate 100\n",
    "/etc/chrony/sources.d/own.sources": "server ntp1.example iburst\n",
    "/etc/chrony/chrony.keys": "1 MD5 secret\n",
    "/etc/default/chrony": 'DAEMON_OPTS="-F 1"\n',
    "/etc/ssl/ntp-ca.pem": "certificate\n",
    "/run/chrony-dhcp/eth0.sources": "server 192.0.2.1 iburst\n",
    "/var/lib/chrony/chrony.drift": "-3.1 0.02\n",
    "/etc/ntpsec/ntp.conf": "server ntp2.example\nkeys /etc/ntpsec/ntp.keys\n",
    "/etc/ntpsec/ntp.keys": "1 AES secret\n",
    "/etc/ntpsec/ntp.d/site.conf": "tinker step 0\n",
    "/etc/ntpd-rs/ntp.toml": '[[source]]\nmode = "nts"\naddress = "ntp3.example"\n'
    'certificate-authority = "/etc/ntpd-rs/ca.pem"\n',
    "/etc/ntpd-rs/ca.pem": "certificate\n",
    "/etc/openntpd/ntpd.conf": "servers ntp4.example\n",
    "/etc/linuxptp/ptp4l.conf": "[global]\nsa_file /etc/linuxptp/sa.conf\n",
    "/etc/systemd/timesyncd.conf": "[Time]\nNTP=ntp5.example\n",
    "/run/systemd/timesyncd.conf.d/dhcp.conf": "[Time]\nFallbackNTP=ntp6.example\n",
    "/run/systemd/netif/state": "OPER_STATE=routable\nNTP=192.0.2.9\n",
    "/usr/lib/systemd/system/chrony.service": "[Service]\n",
    "/etc/systemd/system/chrony.service.d/override.conf": "[Service]\nNice=-10\n",
    "/etc/adjtime": "0.0 0 0.0\n0\nLOCAL\n",
}
STATE = {"/var/lib/chrony/chrony.drift"}
"""What a daemon changes by itself."""


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write files under a root, with the time zone."""
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    link = root / "etc/localtime"
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("/usr/share/zoneinfo/Europe/Amsterdam")


def by_path(watch: TimeConfigWatch) -> dict[str, TimeSetting]:
    """Read, and return the settings by path."""
    found = watch.read(())
    assert list(found) == sorted(found, key=lambda one: one.path)
    return {one.path: one for one in found}


def test_the_files_of_all_daemons_are_found(tmp_path: Path) -> None:
    """Every file that a daemon is configured by, with its includes and keys, and none that is state."""
    write(tmp_path, HOST)
    found = by_path(TimeConfigWatch(str(tmp_path)))
    assert found.keys() == HOST.keys() - STATE | {"/etc/localtime"}
    plain = found.keys() - {"/etc/adjtime", "/etc/localtime", "/run/systemd/netif/state"}
    assert {found[path].sha256 for path in plain} == {sha256_hex(HOST[path].encode()) for path in plain}
    assert found["/etc/adjtime"].value == "LOCAL"
    assert found["/etc/localtime"] == TimeSetting("/etc/localtime", "Europe/Amsterdam")
    assert found["/run/systemd/netif/state"] == TimeSetting("/run/systemd/netif/state", "192.0.2.9")


def test_a_host_without_any_file(tmp_path: Path) -> None:
    """The hardware clock keeps UTC if nothing says otherwise (hwclock(8))."""
    assert TimeConfigWatch(str(tmp_path)).read(()) == (TimeSetting("/etc/adjtime", "UTC"),)


@pytest.mark.parametrize("path", sorted(HOST.keys() - STATE))
def test_each_change_of_a_file_is_read(path: str, tmp_path: Path) -> None:
    """Content, mode, removal and return of each file, one reading after the other."""
    write(tmp_path, HOST)
    watch = TimeConfigWatch(str(tmp_path))
    file, text = tmp_path / path.lstrip("/"), HOST[path]
    before = by_path(watch)
    assert by_path(watch) == before
    changed = {"/etc/adjtime": "1.5 9 0.0\n9\nUTC\n", "/run/systemd/netif/state": "NTP=192.0.2.8\n"}
    file.write_text(changed.get(path, text + "# changed\n"))
    after = by_path(watch)
    assert [one for one in after if after[one] != before[one]] == [path]
    file.write_text(text)
    assert by_path(watch) == before
    if (mode := before[path].mode) is not None:
        file.chmod(0o606)
        assert by_path(watch)[path] == before[path]._replace(mode=0o606)
        file.chmod(mode)
    file.unlink()
    assert by_path(watch).get(path) == (TimeSetting(path, "UTC") if path == "/etc/adjtime" else None)
    write(tmp_path, HOST)
    assert by_path(watch) == before


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/var/lib/chrony/chrony.drift", "-3.2 0.01\n"),
        ("/etc/adjtime", "-7.2 1792584000 0.0\n1792584000\nLOCAL\n"),
        ("/run/systemd/netif/state", "OPER_STATE=degraded\nNTP=192.0.2.9\n"),
        ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
    ],
)
def test_state_is_no_setting(path: str, text: str, tmp_path: Path) -> None:
    """The near misses: what daemons and hwclock write by themselves."""
    write(tmp_path, HOST)
    watch = TimeConfigWatch(str(tmp_path))
    before = watch.read(())
    write(tmp_path, {path: text})
    assert watch.read(()) == before


@pytest.mark.parametrize(
    "path",
    [
        "/etc/chrony/conf.d/new.conf",
        "/etc/chrony/sources.d/new.sources",
        "/run/chrony-dhcp/eth1.sources",
        "/etc/systemd/timesyncd.conf.d/new.conf",
        "/usr/local/lib/systemd/timesyncd.conf.d/new.conf",
        "/etc/ntpsec/ntp.d/new.conf",
        "/etc/linuxptp/phc2sys.conf",
        "/etc/sysconfig/chronyd",
        "/run/systemd/system/systemd-timesyncd.service.d/new.conf",
        "/etc/systemd/system/ntpsec.service",
        "/usr/lib/systemd/system/ptp4l@.service",
        "/etc/systemd/system/site-time.service.d/new.conf",
        "/etc/ntp.conf",
    ],
)
def test_a_new_file_is_found(path: str, tmp_path: Path) -> None:
    """A reading that compares folders and files with the last one misses no new file."""
    write(tmp_path, HOST)
    if path == "/etc/ntp.conf":  # only without /etc/ntpsec
        shutil.rmtree(tmp_path / "etc/ntpsec")
    watch, daemon = TimeConfigWatch(str(tmp_path)), chronyd.KIND.daemon(2**30, unit="site-time.service")
    before = {one.path for one in watch.read((daemon,))}
    write(tmp_path, {path: "# new\n"})
    assert {one.path for one in watch.read((daemon,))} == before | {path}


def test_a_file_stays_watched_while_it_exists(tmp_path: Path) -> None:
    """One that no daemon names any more, or whose daemon is stopped now, is not removed."""
    write(tmp_path, HOST | {"/srv/own.conf": "server ntp1.example\n"})
    watch = TimeConfigWatch(str(tmp_path))
    watch.expect(
        [TimeSetting("/srv/own.conf"), TimeSetting("/srv/gone.conf"), TimeSetting("chrony.service", "enabled")]
    )
    assert "/srv/own.conf" in by_path(watch)
    write(tmp_path, {CHRONY: "# empty\n"})
    assert {"/srv/own.conf", "/etc/chrony/site.conf"} <= by_path(watch).keys()
    (tmp_path / "srv/own.conf").unlink()
    assert "/srv/own.conf" not in by_path(watch)


def test_what_cannot_be_read_is_a_value(tmp_path: Path) -> None:
    """Pipes, devices, folders, loose links, huge files: a reason, size and time, and never a wait."""
    write(tmp_path, HOST)
    folder = tmp_path / "etc/chrony/conf.d"
    os.mkfifo(folder / "pipe.conf")
    (folder / "folder.conf").mkdir()
    (folder / "loose.conf").symlink_to("/nowhere/at-all")
    (folder / "null.conf").symlink_to("/dev/null")
    (folder / "huge.conf").write_bytes(b"#" * (time_config.MAX_SIZE + 1))
    (folder / "n\n\udcff.conf").write_text("#\n")
    found = by_path(TimeConfigWatch(str(tmp_path)))
    reasons = {path.rpartition("/")[2]: one.reason for path, one in found.items() if one.reason}
    assert reasons == {
        "pipe.conf": "not a regular file",
        "folder.conf": "not a regular file",
        "loose.conf": "a link that leads nowhere",
        "null.conf": "not a regular file",
        "huge.conf": "larger than 1 MiB",
    }
    assert "/etc/chrony/conf.d/n\\n\\udcff.conf" in found
    assert found["/etc/chrony/conf.d/huge.conf"].size == time_config.MAX_SIZE + 1


@pytest.mark.needs("root")
def test_keys_of_another_user_are_compared_by_what_is_visible(tmp_path: Path) -> None:
    """A file of keys that may not be read has a reason, and what shows that it changed."""
    write(tmp_path, HOST)
    keys = tmp_path / "etc/chrony/chrony.keys"
    keys.chmod(0o640)
    let_others_in(tmp_path)
    keys.chmod(0o640)
    program = (
        f"from ntpaudit.probes.time_config import *; print(read_setting('/etc/chrony/chrony.keys', {str(tmp_path)!r}))"
    )
    words = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", sys.executable, "-c", program]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "reason='cannot be read: Permission denied', mode=416, owner=0, group=0, size=13, mtime_ns=" in printed
    assert "sha256=None" in printed


def test_there_are_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More files than are read are counted."""
    monkeypatch.setattr(time_config, "MAX_FILES", 20)
    write(tmp_path, {f"/etc/chrony/conf.d/{number:04}.conf": "#\n" for number in range(50)} | {CHRONY: HOST[CHRONY]})
    found = TimeConfigWatch(str(tmp_path)).read(())
    assert len(found) == 21
    assert found[-1] == TimeSetting("more files", reason="33 more files are not read: 20 at most")


@pytest.mark.needs("root")
@pytest.mark.parametrize("user", [0, 65533])
def test_a_daemon_is_read_with_its_own_file(user: int, tmp_path: Path) -> None:
    """The file of a running daemon is found, unless an ordinary user started it: that could be any file."""
    own, program = tmp_path / "own.conf", tmp_path / "chronyd"
    own.write_text("read line\n")  # a shell runs it
    shutil.copy("/bin/sh", program)
    let_others_in(tmp_path)
    with subprocess.Popen([program, "-f", own], stdin=subprocess.PIPE, user=user) as process:
        assert process.stdin
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "chronyd\n")
        found = TimeConfigWatch().read((chronyd.KIND.daemon(process.pid),))
        process.stdin.close()
    assert (str(own) in {one.path for one in found}) is (user == 0)


def test_an_unchanged_host_costs_no_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reading opens no file, and searches for none."""
    write(tmp_path, HOST)
    watch = TimeConfigWatch(str(tmp_path))
    before = watch.read(())
    monkeypatch.setattr(time_config, "read_setting", lambda *_: pytest.fail("it reads"))
    monkeypatch.setattr(time_config, "read_configuration", lambda *_: pytest.fail("it searches"))
    assert watch.read(()) is before


@given(st.dictionaries(st.sampled_from(sorted(HOST)), st.binary(max_size=200), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_gives_a_value(tmp_path: Path, contents: dict[str, bytes]) -> None:
    """Whatever the files hold, a reading gives printable values, and the same ones when nothing changes."""
    for path, data in contents.items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    found = TimeConfigWatch(str(tmp_path)).read(())
    assert found == TimeConfigWatch(str(tmp_path)).read(())
    assert all(one.path.isprintable() and (one.value or "").isprintable() for one in found)


def test_a_path_that_cannot_be_is_a_value() -> None:
    """A path from a file may be anything."""
    assert read_setting("/etc/" + "x" * 5000) == TimeSetting(
        "/etc/" + "x" * 5000, reason="cannot be read: File name too long"
    )
    assert read_setting("/etc/a\0b") == TimeSetting("/etc/a\\x00b", reason="cannot be read: not a path")
