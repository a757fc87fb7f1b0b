"""Files as a sink needs them: replaced whole, and what to do about one that cannot be written."""

import contextlib
import errno
import os


def write_atomically(path: str, text: str) -> None:
    """Replace a file at once, a new one readable by all: no reader ever sees half of it. Raises OSError.

    What is no file but a device or a pipe (/dev/stdout) is written to and never replaced; a link is followed.
    """
    import tempfile

    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "w", encoding="utf-8") as device:
            device.write(text)
        return
    folder, name = os.path.split(path)
    handle, temporary = tempfile.mkstemp(dir=folder or ".", prefix=f".{name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


_REMEDIES = {
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "raise the quota of the user that runs ntpaudit",
    errno.ENOENT: "create its folder",
    errno.ENOTDIR: "name a file in a folder",
    errno.EISDIR: "name a file, not a folder",
    errno.EACCES: "let the user that runs ntpaudit write there",
    errno.EPERM: "let the user that runs ntpaudit write there",
    errno.EROFS: "name its folder in the unit's ReadWritePaths=",  # what ProtectSystem=strict answers
}


def unwritable(path: str, error: OSError) -> str:
    """Say in a sentence why a file cannot be written, and what would mend it."""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"cannot write {path}: {error.strerror or error}" + (f"; {remedy}" if remedy else "")
