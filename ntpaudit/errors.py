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


class TellError(NtpauditError):
    """A sink could not tell what it was given; the text says why. The record is kept all the same."""


class ReadError(NtpauditError):
    """A fleet cannot be read from its database; the text says why, and what would mend it."""


class BusyError(NtpauditError):
    """Another agent uses the same state: exit status 75."""
