"""The kernel of this machine, asked about its clock, and kernels that would not answer."""

import ctypes
import errno
import threading

import pytest

from ntpaudit.core.observation import PHASE_LIMIT_S, TIME_ERROR, KernelState, Unavailable
from ntpaudit.probes.kernel import STA_NANO, TIMEX, decode_timex, read_kernel
from tests.world.sandbox import ADJTIMEX_CALLS, refuse


class _Timex(ctypes.Structure):
    """The structure as the C header of a 64-bit system declares it, with the padding left to the compiler's rules."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "sec", "usec", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def _timex(**fields: int) -> bytes:
    return bytes(_Timex(**{"tick": 10_000, **fields}))


@pytest.mark.needs("adjtimex")
def test_this_kernel_answers_plausibly() -> None:
    """The kernel of this machine reports a state, errors and a correction within its own limits."""
    kernel = read_kernel()
    assert isinstance(kernel, KernelState)
    assert 0 <= kernel.state <= TIME_ERROR
    assert 0 <= kernel.maxerror_s <= PHASE_LIMIT_S
    assert 0 <= kernel.esterror_s <= PHASE_LIMIT_S
    assert abs(kernel.offset_s) <= 0.5
    assert abs(kernel.frequency_ppm) <= 100_500
    assert 0 <= kernel.tai_s <= 100


@pytest.mark.needs("64-bit", "adjtimex")
def test_the_answer_is_what_the_c_structure_holds() -> None:
    """The bytes that this kernel fills in mean what the fields of the C structure say."""
    timex = _Timex()
    assert ctypes.sizeof(timex) == TIMEX.size == 208
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    kernel = decode_timex(state, bytes(timex))
    assert (kernel.state, kernel.status, kernel.tai_s) == (state, timex.status, timex.tai)
    assert kernel.maxerror_s == timex.maxerror / 1e6
    assert kernel.esterror_s == timex.esterror / 1e6
    assert kernel.frequency_ppm == timex.freq / 65_536 + (timex.tick - 10_000) * 100


@pytest.mark.needs("64-bit")
@pytest.mark.parametrize(("status", "offset_s"), [(0, -2.5e-3), (STA_NANO, -2.5e-6)])
def test_the_status_determines_the_unit_of_the_offset(status: int, offset_s: float) -> None:
    """The offset is in nanoseconds with STA_NANO, in microseconds without, and keeps its sign (A2)."""
    kernel = decode_timex(0, _timex(offset=-2_500, status=status, maxerror=7_000, esterror=90, tai=37))
    assert kernel == KernelState(0, status, offset_s, 0.0, 7e-3, 9e-5, 37)


@pytest.mark.needs("64-bit")
@pytest.mark.parametrize(
    ("frequency", "tick", "ppm"), [(-65_536 * 20, 10_000, -20.0), (32_768, 10_001, 100.5), (0, 9_990, -1_000.0)]
)
def test_the_correction_counts_the_tick(frequency: int, tick: int, ppm: float) -> None:
    """The frequency correction is the sum of the fine part and of the tick, of which a microsecond is 100 ppm (A2)."""
    assert decode_timex(0, _timex(freq=frequency, tick=tick)).frequency_ppm == ppm


@pytest.mark.needs("seccomp")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errno.EPERM, "adjtimex is forbidden here (EPERM)"),
        (errno.EACCES, "adjtimex is forbidden here (EACCES)"),
        (errno.ENOSYS, "adjtimex does not exist here (ENOSYS)"),
        (errno.EINVAL, "adjtimex failed (EINVAL)"),
    ],
)
def test_a_refusal_is_unavailable(error: int, reason: str) -> None:
    """Where a seccomp filter refuses adjtimex, as container runtimes do, the reason is the error's name (A7)."""
    answers: list[KernelState | Unavailable] = []

    def ask() -> None:
        refuse(ADJTIMEX_CALLS, error)
        answers.append(read_kernel())

    thread = threading.Thread(target=ask)  # a filter binds the thread that asks for it, and ends with it
    thread.start()
    thread.join()
    assert answers == [Unavailable(reason)]
