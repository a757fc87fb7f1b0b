"""Read the kernel's clock state with adjtimex, called so that it cannot set anything (A1)."""

import ctypes
import errno
import struct

from ntpaudit.core.observation import KernelState, Unavailable
from ntpaudit.probes.helper import ask_helper

TIMEX = struct.Struct("=I4x 4q i4x 3q 2q q 2q i4x 5q i44x")
"""struct timex as LP64 has it, which __kernel_timex of 32-bit systems has too (A7)."""

SERVICE = "/run/ntpaudit-kernel"  # the socket of ntpaudit-kernel.service, which calls adjtimex for a sandboxed agent
STA_NANO = 0x2000  # the status bit that says that the kernel's offset is in nanoseconds, not microseconds (A2, A3)

_REFUSALS = {errno.EPERM: "is forbidden here", errno.EACCES: "is forbidden here", errno.ENOSYS: "does not exist here"}
_CLOCK_ADJTIME64 = 405
_CLOCK_REALTIME = 0
_NOMINAL_TICK_US = 10_000
_ANSWER = struct.Struct(f"ii{TIMEX.size}s")  # state, errno, struct timex
_SERVICE_WITHIN_S = 2.0  # the first connection starts the service
_PPM_PER_TICK_US = 100  # a tick is a hundredth of a second to user space (USER_HZ)


def read_kernel(service: str = SERVICE) -> KernelState | Unavailable:
    """Return the kernel's own account of its clock; needs no privilege, but a container may forbid it (A7).

    Where it is forbidden, `service` is asked: the packaged sandbox forbids its agent every call that could set a clock.
    """
    state, error, timex = _adjtimex()
    if state == -1 and error == errno.EPERM:
        state, error, timex = _ask(service) or (state, error, timex)
    if state == -1:
        name = errno.errorcode.get(error, str(error))
        return Unavailable(f"adjtimex {_REFUSALS.get(error, 'failed')} ({name})")
    return decode_timex(state, timex)


def _adjtimex() -> tuple[int, int, bytes]:
    """Call adjtimex; return the state, errno, and the structure it filled in."""
    libc = ctypes.CDLL(None, use_errno=True)
    timex = ctypes.create_string_buffer(TIMEX.size)
    assert len(timex) == 208
    assert TIMEX.unpack(timex)[0] == 0  # A1: without modes nothing is set
    if ctypes.sizeof(ctypes.c_long) == 8:
        state = libc.adjtimex(timex)
    else:  # A7: the 32-bit libc has a structure of its own
        state = libc.syscall(_CLOCK_ADJTIME64, _CLOCK_REALTIME, timex)
    return state, ctypes.get_errno(), timex.raw


def _ask(service: str) -> tuple[int, int, bytes] | None:
    try:
        answer = ask_helper(service, _SERVICE_WITHIN_S, _ANSWER.size)
    except OSError:
        return None
    return _ANSWER.unpack(answer) if len(answer) == _ANSWER.size else None


def decode_timex(state: int, timex: bytes) -> KernelState:
    """Turn what adjtimex returned and the structure it filled in into seconds and ppm (A2)."""
    _, offset, frequency, maxerror, esterror, status, _, _, _, _, _, tick, *_, tai = TIMEX.unpack(timex)
    return KernelState(
        state=state,
        status=status,
        offset_s=offset / (1e9 if status & STA_NANO else 1e6),
        # chrony puts the bulk of a large correction in the tick, and the rest in the frequency
        frequency_ppm=frequency / 65_536 + (tick - _NOMINAL_TICK_US) * _PPM_PER_TICK_US,
        maxerror_s=maxerror / 1e6,
        esterror_s=esterror / 1e6,
        tai_s=tai,
    )
