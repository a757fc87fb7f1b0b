"""Files, written so that no other user decides where: every file that ntpaudit writes is opened here.

In a folder that others may write to, a symbolic or hard link can lead to a file that only we may change, and a pipe can
block. So folders are walked by descriptor, only links of root or of the user that runs ntpaudit are followed, only
regular files are written, and in such a folder none with a second name. The kernel's protected_symlinks guards sticky
folders only, and protected_hardlinks is off unless a distribution turns it on.
"""

import errno
import os
import re
import stat
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import BinaryIO, NamedTuple

MAX_LINKS = 40  # a path with more symbolic links is refused, as the kernel does
READER_WITHIN_S = 5.0  # how long a named pipe on the command line may take to get its reader

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


class Place(NamedTuple):
    """Where a path leads: an open folder, and a name in it that is no symbolic link. `path` is for messages."""

    folder: int
    name: str
    path: str


@contextmanager
def find(path: str) -> Iterator[Place]:
    """Walk a path to its end; the file itself need not exist. OSError, ELOOP if a link belongs to another user."""
    if "\0" in path:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if not path:
        raise OSError(errno.ENOENT, "its name is empty")
    parts = _parts(path)
    folder, walked, links = *_begin(path), 0
    try:
        while True:
            name = parts.popleft()
            if name in ("", "."):
                continue
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                if parts:
                    raise
                break
            if stat.S_ISLNK(found.st_mode):
                links += 1
                target = _target(name, folder, found, links)
                parts.extendleft(reversed(target.split("/") if parts else _parts(target)))
                if target.startswith("/"):
                    os.close(folder)
                    folder, walked = _begin(target)
            elif parts:
                following = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder, walked = following, os.path.join(walked, name)
            else:
                break
        yield Place(folder, name, os.path.normpath(os.path.join(walked, name)))
    finally:
        os.close(folder)


def _parts(path: str) -> deque[str]:
    """Return the names along a path to a file. IsADirectoryError if it leads to a folder."""
    parts = deque(path.split("/"))
    if parts[-1] in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return parts


def _begin(path: str) -> tuple[int, str]:
    start = "/" if path.startswith("/") else "."
    return os.open(start, _FOLDER), start if start == "/" else os.getcwd()


def _target(name: str, folder: int, found: os.stat_result, links: int) -> str:
    """Return where a link leads. OSError if it belongs to another user, or if there are too many."""
    if found.st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, f"the symbolic link {name!r} belongs to another user (uid {found.st_uid})")
    if links > MAX_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return os.readlink(name, dir_fd=folder)


def open_regular(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a regular file, and nothing else; never waits. A new file has `mode`, whatever the umask. Raises OSError."""
    with find(path) as (folder, name, _):
        if flags & os.O_CREAT:
            with suppress(FileExistsError):
                handle = os.open(name, flags | os.O_EXCL | _CAREFULLY, 0o600, dir_fd=folder)
                os.fchmod(handle, mode)
                return handle
        _check_regular(os.stat(name, dir_fd=folder, follow_symlinks=False))  # to open a device may do something
        handle = os.open(name, flags & ~os.O_CREAT | _CAREFULLY, dir_fd=folder)
        try:
            found = os.fstat(handle)
            _check_regular(found)
            _refuse_second_name(found, os.stat(folder))
        except OSError:
            os.close(handle)
            raise
        return handle


def _check_regular(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def _refuse_second_name(found: os.stat_result, folder: os.stat_result) -> None:
    """Raise OSError for a file with several names in a folder where another user may have made this one."""
    is_ours = folder.st_uid in (0, os.geteuid()) and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if found.st_nlink > 1 and not is_ours:
        raise OSError(errno.EMLINK, "it has a second name (a hard link), and other users may write to its folder")


def write_atomically(path: str, text: str) -> None:
    """Replace a regular file at once, so no reader sees half of it; a new one is readable by all. Raises OSError."""
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: str, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Write a new file beside a regular one; after the block it takes its place and its mode. Raises OSError."""
    with find(path) as place:
        with suppress(FileNotFoundError):
            found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
            _check_regular(found)
            if found.st_uid in (0, os.geteuid()):  # the mode of another user's file may let that user write to ours
                mode = found.st_mode & 0o777
        temporary = f".ntpaudit-{os.urandom(8).hex()}"  # `secrets` costs a check 20 ms of imports
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY, 0o600, dir_fd=place.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fchmod(handle, mode)
                os.fsync(handle)
            os.replace(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=place.folder)
            raise


def write_output(path: str, text: str) -> None:
    """Write the output of a command to a path: a file is replaced as by `write_atomically`. Raises OSError.

    A device, a pipe with a reader, and a descriptor from a shell (/dev/stdout, /dev/fd/63) are written to directly.
    """
    match = _DESCRIPTOR.fullmatch(path)
    descriptor = int(match[1]) if match else _STANDARD.get(path)
    if descriptor is not None:
        _write_stream(os.dup(descriptor), text)
        return
    with find(path) as place:
        try:
            found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is None or not (stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode)):
            write_atomically(path, text)
        elif found.st_uid not in (0, os.geteuid()):
            raise OSError(0, f"it belongs to another user (uid {found.st_uid}); name one of your own")
        else:
            _write_stream(_open_stream(place), text)


def _open_stream(place: Place) -> int:
    """Open a device or a pipe, whose reader may come a moment later."""
    deadline_s = time.monotonic() + READER_WITHIN_S
    while True:
        try:
            handle = os.open(place.name, os.O_WRONLY | _CAREFULLY, dir_fd=place.folder)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
        else:
            os.set_blocking(handle, True)
            return handle


def _write_stream(handle: int, text: str) -> None:
    with open(handle, "w", encoding="utf-8") as stream:
        stream.write(text)


_REMEDIES = {
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "raise the quota of the user that runs ntpaudit",
    errno.ENOENT: "create its folder",
    errno.ENOTDIR: "name a file in a folder",
    errno.EISDIR: "name a file, not a folder",
    errno.EINVAL: "name a regular file",
    errno.ELOOP: "name the file itself, or let root own the link",
    errno.EMLINK: "remove it, or name a file in a folder of the user that runs ntpaudit",
    errno.ENXIO: "start what reads from this pipe first",
    errno.EACCES: "let the user that runs ntpaudit write there",
    errno.EPERM: "let the user that runs ntpaudit write there",
    errno.EROFS: "name its folder in the unit's ReadWritePaths=",  # what ProtectSystem=strict answers
}


def unwritable(path: str, error: OSError) -> str:
    """Return the message why a file cannot be written, with the fix."""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"cannot write {path}: {error.strerror or error}" + (f"; {remedy}" if remedy else "")


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return sha256(data).hex()


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 of data.

    hashlib loads OpenSSL, 3 MiB of an agent that must stay below 26 MiB; Python's `random` avoids it the same way.
    Where hashlib is loaded anyway, it is faster.
    """
    for name in ("hashlib", "_sha2", "_sha256"):  # the latter two of Python 3.12 and later, and of 3.11
        if name in sys.modules:
            return bytes(sys.modules[name].sha256(data).digest())
    for name in ("_sha2", "_sha256", "hashlib"):
        with suppress(ImportError):
            import_module(name)
            return sha256(data)
    raise AssertionError("hashlib is always there")
