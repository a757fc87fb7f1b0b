"""Where the agent sends records: one module for each output, imported only when used."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ntpaudit.core.events import Event
    from ntpaudit.core.record import Record

OUTPUTS = {
    "openmetrics": "textfile",
    "jsonl": "jsonl",
    "syslog": "syslog",
    "journal": "journal",
}
"""Every outlet of the agent with its module. A new one is a file with an `open_output`, and an entry here."""


class Output(Protocol):
    """Where the agent tells what it concluded, on this host and as it goes."""

    def emit(self, record: "Record", events: "Sequence[Event]") -> None:
        """Tell the latest record, which may be the last one again, and the events since the last call.

        Raises OutputError, which says what would mend it. Never waits for whoever listens.
        """

    def close(self) -> None:
        """Let go of what is open; nothing is told any more."""


def open_outputs(settings: Mapping[str, str | None]) -> dict[str, Output]:
    """Return a teller for every outlet with a setting: a path, or an address; None is an outlet that is not wanted.

    Nothing need be there yet: what cannot be reached is told by `tell`, and tried again. KeyError for an outlet there
    is none of, OutputError for an address that can be none.
    """
    outputs: dict[str, Output] = {}
    for name, setting in settings.items():
        if setting is not None:
            outputs[name] = import_module(f"{__name__}.{OUTPUTS[name]}").open_output(setting)
    return outputs
