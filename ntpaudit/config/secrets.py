"""Tokens: where they are found, and what a file with one must be like."""

import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from ntpaudit.config.schema import InfluxConfig
from ntpaudit.errors import ConfigError
from ntpaudit.files import open_regular

TOKEN_CREDENTIAL = "influxdb-token"  # noqa: S105 - the name of a credential, not one


class Token(NamedTuple):
    """The database's token, None if there is none, and its origin."""

    text: str | None
    origin: str


def find_token(influxdb: InfluxConfig, environment: Mapping[str, str]) -> Token:
    """Find the database's token: `token_file`, else systemd's credential, else the default file, else the environment.

    An empty credential or default file has no token: the units pass an empty one if there is no file. A file that this
    user may not read is skipped if there is a credential, which systemd made from it.
    Raises ConfigError if a file is unreadable, has no token, or can be read by others. No message contains the token.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    credential = os.path.join(folder, TOKEN_CREDENTIAL) if folder else ""
    has_credential = not _is_blank(credential)
    named, default = influxdb.token_file, influxdb.default_token_file or ""
    if named is not None and (os.access(named, os.R_OK) or not has_credential):
        return Token(read_secret(named, "influxdb.token_file", guarded=True), named)
    if not _is_blank(default):
        _refuse_readable_by_others(os.stat(default).st_mode, default, "influxdb")
    if has_credential:  # systemd protects it by an ACL
        origin = f"credential {TOKEN_CREDENTIAL}"
        return Token(read_secret(credential, origin, guarded=False), origin)
    if not _is_blank(default) and os.access(default, os.R_OK):
        return Token(read_secret(default, "influxdb", guarded=True), default)
    if (token := environment_token(environment)) is not None:
        return Token(token, "INFLUXDB_V2_TOKEN")
    return Token(None, f"this user may not read {default}" if not _is_blank(default) else "")


def environment_token(environment: Mapping[str, str]) -> str | None:
    """Return the token of the environment, under the same rules as that of a file."""
    token = environment.get("INFLUXDB_V2_TOKEN", "").strip()
    if token and (fault := _fault_of_token(token.encode(errors="surrogateescape"))) is not None:
        raise ConfigError(f"INFLUXDB_V2_TOKEN {fault}")
    return token or None


def _is_blank(path: str) -> bool:
    """Return whether the file does not exist or is empty but for a line end."""
    try:
        found = os.stat(path)
    except OSError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_size <= 1


_LONGEST_TOKEN = 4096
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def read_secret(path: str, key: str, *, guarded: bool) -> str:
    """Read a secret, one line of printable ASCII; if `guarded`, only its owner may have access."""
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            if guarded:
                _refuse_readable_by_others(os.fstat(file.fileno()).st_mode, path, key)
            content = file.read(_LONGEST_TOKEN + 2)
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}", key) from error
    if (fault := _fault_of_token(content)) is not None:
        raise ConfigError(f"{key}: {path} {fault}", key)
    return content.strip().decode("ascii")


def _refuse_readable_by_others(mode: int, path: str, key: str) -> None:
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{key}: {path} can be read by others: chmod 600 {path}", key)


def _fault_of_token(content: bytes) -> str | None:
    token = content.strip()
    if content.startswith(_BYTE_ORDER_MARKS):
        return "begins with a byte order mark: save it as plain ASCII text"
    if not token:
        return "is empty"
    if len(content) > _LONGEST_TOKEN:
        return f"has more than {_LONGEST_TOKEN} bytes: a token is one line"
    if len(lines := token.splitlines()) > 1:
        return f"has {len(lines)} lines: a token is one line"
    if not all(0x20 <= byte <= 0x7E for byte in token):
        return "has a control character or a non-ASCII character: no token has one"
    return None
