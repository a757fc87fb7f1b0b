"""The few exceptions that are meant to be caught, each at one boundary."""


class NtpauditError(Exception):
    """The base of what the operator can mend; its text names the fix."""


class ConfigError(NtpauditError):
    """The configuration is off; the text names the key, and so does `key` (`table.key`): exit status 78."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class StoreError(NtpauditError):
    """The state folder or its database cannot be used; the audit goes on without memory."""


class OutputError(NtpauditError):
    """A sink could not tell what it was given; the text says why. The record is kept all the same."""


class ReadError(NtpauditError):
    """A fleet cannot be read from its database: the `reason`, and the `remedy` that would mend it, apart.

    They stay apart because a reason may hold words of a server, and those may hold anything.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class UnexpectedReplyError(ReadError):
    """What answered may be another kind of database than was asked."""


class BusyError(NtpauditError):
    """Another agent uses the same state: exit status 75."""
