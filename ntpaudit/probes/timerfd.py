"""Detect at once that the clock was set: a timer that the kernel then cancels (J2)."""

import ctypes
import errno
import os
import struct
import time

_FAR_S = 10 * 365 * 86_400
_ITIMERSPEC = struct.Struct("@4l")  # interval and value, each seconds and nanoseconds
_LAST_S = 2 ** (8 * ctypes.sizeof(ctypes.c_long) - 1) - 1  # where time_t has 32 bits it ends in 2038
TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2


class StepWatch:
    """A file descriptor that becomes readable when CLOCK_REALTIME was set, or the host woke from a suspend.

    Raises OSError where the kernel or a sandbox has no timerfd; then steps are detected by comparing clocks only (J1).
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._call(self._libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            self.arm()
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._handle

    def arm(self) -> None:
        """Wait for the next time. Raises OSError."""
        far_s = min(int(time.clock_gettime(time.CLOCK_REALTIME)) + _FAR_S, _LAST_S)
        # a buffer of libc's own long, which every architecture's time_t of this call is
        value = ctypes.create_string_buffer(_ITIMERSPEC.pack(0, 0, far_s, 0))
        flags = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
        self._call(self._libc.timerfd_settime(self._handle, flags, value, None))

    def happened(self) -> bool:
        """Return whether the clock was set since the last call, and wait for the next time."""
        try:
            os.read(self._handle, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        self.arm()  # also after ten years
        return True

    def close(self) -> None:
        """Stop watching."""
        os.close(self._handle)

    @staticmethod
    def _call(result: int) -> int:
        if result == -1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
