"""The arguments and files of programs other than chronyd show which clock they discipline."""

from pathlib import Path

import pytest

from ntpaudit.core.observation import Daemon
from ntpaudit.probes.daemons import KINDS, openntpd
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import Process, Role
from ntpaudit.probes.daemons.others import hyper_v

DISCIPLINES = Role(True)
CARD = Role(False, "disciplines the clock of a network card")
SHARED_MEMORY = Role(False, "hands its time to another daemon by shared memory (ntpshm)")

PTP4L = "/etc/linuxptp/ptp4l.conf"


def role(command: str, files: Files | None = None) -> Role:
    """Return what the command line shows about the clock."""
    name = command.partition(" ")[0]
    (kind,) = [kind for kind in KINDS if kind.name == name]
    return kind.role(Process(1, tuple(command.split())), files or Files("/nowhere"))


def with_file(root: Path, path: str, text: str) -> Files:
    """The files of a host that has this one."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return Files(str(root))


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("phc2sys -w -s eth0", DISCIPLINES),  # Debian's unit
        ("phc2sys -s eth0 -c CLOCK_REALTIME -O -37", DISCIPLINES),
        ("phc2sys -c CLOCK_REALTIME -s CLOCK_REALTIME", DISCIPLINES),
        ("phc2sys -d /dev/pps0", DISCIPLINES),
        ("phc2sys -s CLOCK_REALTIME -c eth0 -w", CARD),
        ("phc2sys -seth0 -ceth1", CARD),
        ("phc2sys -a", CARD),
        ("phc2sys -a -r", DISCIPLINES),
        ("phc2sys -arr -l 7", DISCIPLINES),
        ("phc2sys -am -z -r", CARD),  # -z takes a value
        ("phc2sys -a -r -E ntpshm -M 2", SHARED_MEMORY),
        ("phc2sys -a -r --clock_servo=ntpshm", SHARED_MEMORY),
        ("phc2sys -a -r --clock_servo ntpshm", SHARED_MEMORY),
        ("phc2sys -s eth0 -E linreg", DISCIPLINES),
        ("ntpd -p /run/ntpd.pid -c /etc/ntpsec/ntp.conf -g -N -u ntpsec:ntpsec", DISCIPLINES),  # Debian's unit
        ("ntpd -g -w 30", DISCIPLINES),
        ("ntpd -n -N -p pool.example", DISCIPLINES),
        ("ntpd -w -p pool.example", Role(False, "started with -w")),  # BusyBox's: only query peers
        ("ntpd -nw", Role(False, "started with -w")),
        ("timemaster -f /etc/linuxptp/timemaster.conf", Role(False, "leaves the clock to the daemons that it starts")),
        ("ptp4l -i eth0", CARD),
        ("ptp4l -H -i eth0", CARD),
        ("ptp4l -S -i eth0 -s", DISCIPLINES),
        ("ptp4l -mS -i eth0", DISCIPLINES),
        ("ptp4l -L -i eth0", DISCIPLINES),
        ("ptp4l --time_stamping=software -i eth0", DISCIPLINES),
        ("ptp4l -S --free_running=1 -i eth0", Role(False, "configured with free_running 1")),
        ("ptp4l -S --clock_servo=ntpshm -i eth0", SHARED_MEMORY),
        ("ptp4l -i -S", CARD),  # a card of that name
        ("VBoxService", DISCIPLINES),
        ("VBoxService --foreground", DISCIPLINES),
        ("VBoxService --disable-timesync", Role(False, "started with --disable-timesync")),
        ("VBoxService --only-automount", Role(False, "started with --only-automount")),
        ("VBoxService --only-timesync", DISCIPLINES),
        ("sfptpd -f /etc/sfptpd.conf", DISCIPLINES),
    ],
)
def test_arguments_say_which_clock_is_disciplined(command: str, wanted: Role) -> None:
    """As phc2sys(8), ptp4l(8) and VBoxService --help have them."""
    assert role(command) == wanted


@pytest.mark.parametrize("name", ["vmtoolsd", "prltoolsd"])
def test_what_the_hypervisor_decides_cannot_be_seen(name: str) -> None:
    """VMware's and Parallels' tools synchronise the clock or not: a setting of the virtual machine."""
    assert role(name).disciplines is None
    assert role(name).reason


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ("[global]\ntime_stamping hardware\n", CARD),
        ("[global]\n# time_stamping software\n", CARD),
        ("[eth0]\ntime_stamping software\n", CARD),
        ("[global]\ntime_stamping\t\tsoftware\n", DISCIPLINES),
        ("[global]\ntime_stamping legacy\n", DISCIPLINES),
        ("[global]\ntime_stamping software\nclock_servo ntpshm\n", SHARED_MEMORY),
        ("[global]\ntime_stamping software\nserverOnly 1\n", Role(False, "configured with serverOnly 1")),
        ("[global]\ntime_stamping software\nmasterOnly 0\n", DISCIPLINES),
        ("[global]\ntime_stamping software\nfree_running 1\n", Role(False, "configured with free_running 1")),
    ],
)
def test_the_file_of_ptp4l_counts(settings: str, wanted: Role, tmp_path: Path) -> None:
    """What [global] says is in force, as long as no option says otherwise."""
    files = with_file(tmp_path, PTP4L, settings)
    assert role(f"ptp4l -f {PTP4L} -i eth0", files) == wanted
    assert role(f"ptp4l -f {PTP4L} -H -i eth0", files) == CARD


def test_the_file_of_phc2sys_counts(tmp_path: Path) -> None:
    """With timemaster, both leave the clock to chronyd by shared memory."""
    files = with_file(tmp_path, PTP4L, "[global]\nclock_servo ntpshm\n")
    assert role(f"phc2sys -a -r -f {PTP4L}", files) == SHARED_MEMORY
    assert role(f"phc2sys -a -r -f {PTP4L} -E pi", files) == DISCIPLINES


@pytest.mark.parametrize("command", [f"ptp4l -f {PTP4L}", f"ptp4l -S -f {PTP4L}", f"phc2sys -a -r -f {PTP4L}"])
def test_a_file_that_cannot_be_read_leaves_it_open(command: str) -> None:
    """Without the file it is not known what such a program disciplines."""
    assert role(command) == Role(None, f"{PTP4L} cannot be read: No such file or directory")


def test_a_file_that_decides_nothing_need_not_be_read() -> None:
    """With -H it is the network card's clock, whatever the file says."""
    assert role(f"ptp4l -H -f {PTP4L}") == CARD


def test_the_devices_of_hyper_v(tmp_path: Path) -> None:
    """The kernel synchronises the clock where the host offers the device of that class; it is never a daemon."""
    assert hyper_v(Files(str(tmp_path))) is None
    files = with_file(tmp_path, "/sys/bus/vmbus/devices/a/class_id", "{57164f39-9115-4e78-ab55-382f3bd5422d}\n")
    assert hyper_v(files) is None
    with_file(tmp_path, "/sys/bus/vmbus/devices/b/class_id", "{9527E630-D0AE-497B-ADCE-E80AB0175CAF}\n")
    reason = "sets the clock only when the virtual machine starts or resumes"
    assert hyper_v(files) == Daemon("hv_utils", 0, disciplines=False, reason=reason)


@pytest.mark.parametrize(
    ("process", "wanted"),
    [
        (Process(1, ("/usr/sbin/ntpd", "-c", "/etc/ntpsec/ntp.conf"), unit="ntpsec.service"), False),
        (Process(1, ("/usr/sbin/ntpd", "-f", "/x"), unit="openntpd.service"), True),
        (Process(1, ("/usr/sbin/openntpd",)), True),
        (Process(1, ("/usr/sbin/ntpd",), helpers=(("ntpd: ntp engine", "", ""),)), True),
        (Process(1, ("/usr/sbin/ntpd",), helpers=(("ntpd:", "ntp", "engine"),)), True),  # a title, split
        (Process(1, ("/usr/sbin/ntpd",), helpers=(("/usr/sbin/ntpd",),)), False),
        (Process(1, ()), False),
    ],
)
def test_the_program_behind_the_name_ntpd(process: Process, wanted: bool) -> None:
    """OpenNTPD is known by its unit, by its name, or by what its helper calls itself."""
    assert openntpd.is_openntpd(process) is wanted
