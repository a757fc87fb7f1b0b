"""The few exceptions that are meant to be caught, each at one boundary."""

from collections.abc import Iterable


class NtpauditError(Exception):
    """The base of errors that an operator can fix. `remedy` is separate: a `reason` can have text from a server."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class ConfigError(NtpauditError):
    """The configuration is invalid; the text and `key` (`table.key`) name the key. Exit status 78."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class StoreError(NtpauditError):
    """The state folder or its database cannot be used. The audit continues without stored state."""


class OutputError(NtpauditError):
    """An output could not send a record; the text says why. The record is stored anyway."""


class ReadError(NtpauditError):
    """A fleet cannot be read from its database."""


class JournalError(NtpauditError):
    """systemd's journal cannot be read."""


class AnchorError(NtpauditError):
    """An anchor cannot be made, or a service that signs the time gave nothing valid."""


class UnexpectedReplyError(ReadError):
    """The reply is not valid for the expected kind of database."""


class BusyError(NtpauditError):
    """Another agent uses the same state folder. Exit status 75."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a question for the nearest known word, such as `, did you mean 'pool'?`; empty if none is near."""
    import difflib  # an error message alone needs it

    near = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else ""
