"""The program that asks the message bus for a sandboxed agent; tests/test_booted_daemons.py has a real bus."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.systemd.test_kernel_clock import answering
from tests.world.packages import REPOSITORY

PROGRAM = REPOSITORY / "systemd/helpers/timesync.py"


def asked(place: Path) -> bytes:
    """Return what a caller receives until the connection is closed."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(30)
        asking.connect(str(place))
        received = b""
        while more := asking.recv(65_536):
            received += more
    return received


def test_callers_that_leave_do_not_stop_it(tmp_path: Path) -> None:
    """Without systemd-timesyncd on the bus, callers get an error message of the bus or nothing: no properties."""
    family, program = socket.AF_UNIX, tmp_path / "program"
    program.write_text(PROGRAM.read_text().replace("/opt/ntpaudit/lib", str(REPOSITORY)))  # as the installation does
    with answering(tmp_path / "socket", program=program), socket.socket(family) as hasty, socket.socket(family) as idle:
        hasty.connect(str(tmp_path / "socket"))
        hasty.close()
        idle.connect(str(tmp_path / "socket"))
        for _ in range(2):
            assert b"NTPMessage" not in asked(tmp_path / "socket")


def test_it_imports_little() -> None:
    """It is started for one question: what takes longest to import is not imported."""
    begin = PROGRAM.read_text().replace("/opt/ntpaudit/lib", str(REPOSITORY)).partition("\nIDLE_S")[0]
    code = f"{begin}\nprint({{'collections', 'enum', 're', 'socket', 'typing'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
