"""A container's seccomp filter that forbids adjtimex: `python -m tests.world.sandbox COMMAND...` runs inside it."""

import ctypes
import errno
import os
import platform
import struct
import sys

ADJTIMEX_CALLS = {"x86_64": (159, 305), "aarch64": (171, 266)}
"""The numbers of adjtimex and clock_adjtime."""


def refuse_adjtimex(error: int) -> None:
    """Make the kernel answer this thread's calls of adjtimex with an error, for good."""
    set_no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    load_number, jump_if_equal, answer = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | error
    first, second = ADJTIMEX_CALLS[platform.machine()]
    rules = (
        (load_number, 0, 0, 0),
        (jump_if_equal, 2, 0, first),
        (jump_if_equal, 1, 0, second),
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    program = struct.pack("@HP", len(rules), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(set_no_new_privileges, *map(ctypes.c_ulong, (1, 0, 0, 0))) == 0
    assert libc.prctl(set_seccomp, ctypes.c_ulong(mode_filter), program) == 0


if __name__ == "__main__":
    refuse_adjtimex(errno.EPERM)
    os.execvp(sys.argv[1], sys.argv[1:])
