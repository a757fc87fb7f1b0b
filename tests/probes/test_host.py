"""The facts about this host, and about hosts whose files are made up."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ntpaudit.probes.host import host_facts
from tests.world.namespaces import unshared
from tests.world.packages import REPOSITORY


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test depends on the time zone or the container that the tests themselves run in."""
    for variable in ("TZ", "container", "NTPAUDIT_BOOT_ID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(variable, raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def _write(root: Path, path: str, text: str | bytes) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_this_host_is_itself() -> None:
    """On this machine the facts are those of its kernel and of this process."""
    facts = host_facts()
    assert facts.name == os.uname().nodename
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.zone_offset_s == time.localtime().tm_gmtoff
    assert facts.timezone


def test_the_operator_may_name_the_host() -> None:
    """A name that is given goes before the host name; an empty one does not."""
    assert host_facts("db-1 in Oslo").name == "db-1 in Oslo"
    assert host_facts("").name == os.uname().nodename


def test_what_the_files_say(tmp_path: Path) -> None:
    """Identity, boot and clock source are what the files say, without the line end."""
    _write(tmp_path, "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    _write(tmp_path, "proc/sys/kernel/random/boot_id", "6a5b0c1e-0000-4000-8000-000000000000\n")
    _write(tmp_path, "sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock\n")
    facts = host_facts(root=str(tmp_path))
    assert facts.machine_id == "0123456789abcdef0123456789abcdef"
    assert facts.boot_id == "6a5b0c1e-0000-4000-8000-000000000000"
    assert facts.clocksource == "kvm-clock"


@pytest.mark.parametrize("text", ["uninitialized\n", "", "\n", "0" * 32, "0123456789abcdef\n", "g" * 32, "\xff" * 32])
def test_what_is_no_machine_id_is_none(text: str, tmp_path: Path) -> None:
    """An image that was never booted says `uninitialized`: that is one id for every clone, and so it is none."""
    _write(tmp_path, "etc/machine-id", text)
    assert host_facts(root=str(tmp_path)).machine_id is None


@pytest.mark.parametrize("name", ["", "(none)", " "])
def test_a_host_without_a_name_has_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called after its machine id, else `unnamed`: never nothing, which no point could carry as a tag."""
    here = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((here.sysname, name, *here[2:])))
    assert host_facts(root=str(tmp_path)).name == "unnamed"
    _write(tmp_path, "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    assert host_facts(root=str(tmp_path)).name == "machine-0123456789ab"


def test_a_kernel_without_a_host_name(tmp_path: Path) -> None:
    """Where the kernel itself has an empty name, a check's points still carry the `host` tag."""
    program = "import sys; from ntpaudit.probes.host import host_facts; print(host_facts(root=sys.argv[1]).name)"
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(
        [*unshared("uts"), "sh", "-c", 'printf "\\n" >/proc/sys/kernel/hostname; exec "$@"', "sh", *command],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout == "unnamed\n"


def test_a_unit_names_the_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a unit gives as %b goes before the file, in the file's own form; what is no id does not."""
    _write(tmp_path, "proc/sys/kernel/random/boot_id", "6a5b0c1e-0000-4000-8000-000000000000\n")
    monkeypatch.setenv("NTPAUDIT_BOOT_ID", "0123456789abcdef0123456789abcdef")
    assert host_facts(root=str(tmp_path)).boot_id == "01234567-89ab-cdef-0123-456789abcdef"
    monkeypatch.setenv("NTPAUDIT_BOOT_ID", "%b")
    assert host_facts(root=str(tmp_path)).boot_id == "6a5b0c1e-0000-4000-8000-000000000000"


@pytest.mark.needs("timens")
def test_a_time_namespace_is_a_boot_of_its_own() -> None:
    """Its uptimes count from elsewhere, so those of outside say nothing of them; without offsets it is no other."""
    program = "from ntpaudit.probes.host import host_facts; print(host_facts().boot_id)"

    def boot_id(*options: str) -> str:
        command = ["unshare", "--time", "--fork", *options, sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.strip()

    outside = host_facts().boot_id
    assert boot_id() == outside
    assert boot_id("--boottime", "86400", "--monotonic", "5") == f"{outside}:5.0:86400.0"


def test_what_is_missing_is_unknown(tmp_path: Path) -> None:
    """On a host with none of the files every fact they hold is None, and the zone is the one libc falls back to."""
    facts = host_facts(root=str(tmp_path))
    unknown = (facts.machine_id, facts.boot_id, facts.rtc_local, facts.clocksource, facts.container)
    assert unknown == (None,) * 5
    assert facts.timezone == time.localtime().tm_zone


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    """Folders, empty files and dangling links in the place of files are None too, and bad bytes do no harm."""
    (tmp_path / "etc/machine-id").mkdir(parents=True)
    (tmp_path / "etc/adjtime").symlink_to("nowhere")
    _write(tmp_path, "etc/timezone", b"Europe/\xff\n")
    _write(tmp_path, "proc", "a file")
    _write(tmp_path, "run/systemd/container", "\n")
    facts = host_facts(root=str(tmp_path))
    assert (facts.machine_id, facts.boot_id, facts.rtc_local, facts.container) == (None,) * 4
    assert facts.timezone == "Europe/\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("adjtime", "rtc_local"),
    [
        ("0.0 0 0.0\n0\nLOCAL\n", True),
        ("0.0 0 0.0\n0\nUTC\n", False),
        ("0.0 0 0.0\n0\nUTC", False),
        ("0.0 0 0.0\n0\n", None),
        ("0.0 0 0.0\n0\nlocal\n", None),
        ("LOCAL\n", None),
        ("", None),
    ],
)
def test_adjtime_shows_how_the_hardware_clock_runs(adjtime: str, rtc_local: bool | None, tmp_path: Path) -> None:
    """The third line of /etc/adjtime says which time the hardware clock keeps; anything else leaves it unknown."""
    _write(tmp_path, "etc/adjtime", adjtime)
    assert host_facts(root=str(tmp_path)).rtc_local is rtc_local


@pytest.mark.parametrize(
    ("link", "name_file", "timezone"),
    [
        ("/usr/share/zoneinfo/Europe/Oslo", "", "Europe/Oslo"),
        ("../usr/share/zoneinfo/Etc/UTC", "", "Etc/UTC"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Europe/Oslo\n", "Asia/Tokyo"),
        ("/opt/somewhere/localtime", "Europe/Oslo\n", "Europe/Oslo"),
        (None, "Europe/Oslo\n", "Europe/Oslo"),
    ],
)
def test_the_zone_is_the_one_libc_obeys(link: str | None, name_file: str, timezone: str, tmp_path: Path) -> None:
    """The link /etc/localtime names the zone; /etc/timezone does only where the link has no name."""
    _write(tmp_path, "etc/timezone", name_file)
    if link:
        (tmp_path / "etc/localtime").symlink_to(link)
    assert host_facts(root=str(tmp_path)).timezone == timezone


@pytest.mark.parametrize(
    ("variable", "timezone", "offset_s"),
    [
        ("IST-5:30", "IST-5:30", 19_800),
        (":NST+3:30", "NST+3:30", None),
        (":/usr/share/zoneinfo/Etc/GMT-2", "Etc/GMT-2", None),
        (":/etc/localtime", "Europe/Oslo", None),
        ("", "Europe/Oslo", None),
    ],
)
def test_tz_goes_before_the_files(
    variable: str, timezone: str, offset_s: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TZ names the zone of this process and gives its offset, east of Greenwich positive, unless it points back."""
    _write(tmp_path, "etc/timezone", "Europe/Oslo\n")
    monkeypatch.setenv("TZ", variable)
    time.tzset()
    facts = host_facts(root=str(tmp_path))
    assert facts.timezone == timezone
    assert facts.zone_offset_s == (time.localtime().tm_gmtoff if offset_s is None else offset_s)


@pytest.mark.parametrize(
    ("path", "text", "container"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", 'engine="podman-4.3.1"\n', "podman"),
        ("run/systemd/container", "lxc\n", "lxc"),
        ("run/systemd/container", "systemd-nspawn\n", "systemd-nspawn"),
        ("run/systemd/system", "", None),
    ],
)
def test_a_container_is_detected_by_its_files(path: str, text: str, container: str | None, tmp_path: Path) -> None:
    """Each container runtime leaves a file that names it."""
    _write(tmp_path, path, text)
    assert host_facts(root=str(tmp_path)).container == container


@pytest.mark.parametrize(
    ("variable", "value", "container"),
    [("container", "oci", "oci"), ("container", "", None), ("KUBERNETES_SERVICE_HOST", "10.0.0.1", "kubernetes")],
)
def test_a_container_is_detected_by_its_environment(
    variable: str, value: str, container: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that leaves no file leaves a variable."""
    monkeypatch.setenv(variable, value)
    assert host_facts(root=str(tmp_path)).container == container
