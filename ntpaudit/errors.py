"""The few exceptions that are meant to be caught, each at one boundary."""


class NtpauditError(Exception):
    """The base of what the operator can mend; its text names the fix."""


class ConfigError(NtpauditError):
    """The configuration is off; the text names the key: exit status 78."""


class StoreError(NtpauditError):
    """The state folder or its database cannot be used; the audit goes on without memory."""
