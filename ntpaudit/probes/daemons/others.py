"""Other programs that set the clock: sfptpd, and the time synchronisation of hypervisors."""

from ntpaudit.core.observation import Daemon
from ntpaudit.probes.daemons.files import Files
from ntpaudit.probes.daemons.kind import DaemonKind, Process, Role, always

_TIME_SYNC = "{9527e630-d0ae-497b-adce-e80ab0175caf}"  # the class of Hyper-V's device (drivers/hv, HV_TS_GUID)


def _vboxservice(process: Process, _files: Files) -> Role:
    """It follows the hypervisor's clock unless it is started without (VBoxService --help)."""
    words = process.arguments
    if "--disable-timesync" in words:
        return Role(False, "started with --disable-timesync")
    only = [word for word in words if word.startswith("--only-")]
    return Role(False, f"started with {only[0]}") if only and "--only-timesync" not in only else Role(True)


# whether these two follow the hypervisor's clock is a setting of the virtual machine
_VMTOOLSD = Role(None, "`vmware-toolbox-cmd timesync status` shows whether it follows the hypervisor's clock")
_PRLTOOLSD = Role(None, "whether it follows the hypervisor's clock cannot be seen")

SFPTPD = DaemonKind("sfptpd", ("sfptpd",), ("sfptpd",), always)
VBOXSERVICE = DaemonKind("VBoxService", ("VBoxService",), ("vboxservice", "vboxadd-service"), _vboxservice)
VMTOOLSD = DaemonKind("vmtoolsd", ("vmtoolsd",), ("open-vm-tools", "vmtoolsd"), lambda *_: _VMTOOLSD)
PRLTOOLSD = DaemonKind("prltoolsd", ("prltoolsd",), ("prltoolsd",), lambda *_: _PRLTOOLSD)


def hyper_v(files: Files) -> Daemon | None:
    """Return the kernel's own time synchronisation under Hyper-V, where the host offers it.

    By drivers/hv/hv_util.c it sets the clock when the host asks for it, after a start or a pause; the samples that
    come every 5 s are only offered as a PTP clock.
    """
    for path in files.matching("/sys/bus/vmbus/devices/*/class_id"):
        if files.text(path).strip().lower() == _TIME_SYNC:
            return Daemon("hv_utils", 0, False, "sets the clock only when the virtual machine starts or resumes")
    return None
