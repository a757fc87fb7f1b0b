"""A container's seccomp filter: `python -m tests.world.sandbox COMMAND...` runs where adjtimex is forbidden.

`python -m tests.world.sandbox --unshare COMMAND...` runs where no namespace can be made.
`python -m tests.world.sandbox --pretend COMMAND...` runs where the calls that set the clock succeed, and do nothing.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping

ADJTIMEX_CALLS = {"x86_64": (159, 305), "aarch64": (171, 266)}
"""The numbers of adjtimex and clock_adjtime."""

TIMERFD_CALLS = {"x86_64": (283,), "aarch64": (85,)}
"""The number of timerfd_create."""

UNSHARE_CALLS = {"x86_64": (272,), "aarch64": (97,)}
"""The number of unshare."""

CLOCK_CALLS = {"x86_64": (159, 305, 164, 227), "aarch64": (171, 266, 170, 112)}
"""The numbers of adjtimex, clock_adjtime, settimeofday and clock_settime."""

_CASES: dict[str, tuple[Mapping[str, tuple[int, ...]], int]] = {
    "--unshare": (UNSHARE_CALLS, errno.EPERM),
    "--pretend": (CLOCK_CALLS, 0),
}


def refuse(calls: Mapping[str, tuple[int, ...]], error: int) -> None:
    """Make the kernel answer this thread's calls of some functions with an error, for good; 0 is success."""
    set_no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    load_number, jump_if_equal, answer = 0x20, 0x15, 0x06
    allowed, refused = 0x7FFF0000, 0x00050000 | error
    numbers = calls[platform.machine()]
    jumps = [(jump_if_equal, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    rules = ((load_number, 0, 0, 0), *jumps, (answer, 0, 0, allowed), (answer, 0, 0, refused))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    program = struct.pack("@HP", len(rules), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(set_no_new_privileges, *map(ctypes.c_ulong, (1, 0, 0, 0))) == 0
    assert libc.prctl(set_seccomp, ctypes.c_ulong(mode_filter), program) == 0


if __name__ == "__main__":
    words = sys.argv[1:]
    calls, error = _CASES.get(words[0], (ADJTIMEX_CALLS, errno.EPERM))
    refuse(calls, error)
    words = words[words[0] in _CASES :]
    os.execvp(words[0], words)
