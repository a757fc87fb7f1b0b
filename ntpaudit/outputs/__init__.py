"""Where the agent sends records: one module for each output, imported only when used."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ntpaudit.core.events import Event
    from ntpaudit.core.record import Record

TELLERS = {
    "openmetrics": "textfile",
    "jsonl": "jsonl",
    "syslog": "syslog",
    "journal": "journal",
}
"""Every outlet of the agent with its module. A new one is a file with an `open_teller`, and an entry here."""


class Teller(Protocol):
    """Where the agent tells what it concluded, on this host and as it goes."""

    def tell(self, record: "Record", events: "Sequence[Event]") -> None:
        """Tell the latest record, which may be the last one again, and the events since the last call.

        Raises TellError, which says what would mend it. Never waits for whoever listens.
        """

    def close(self) -> None:
        """Let go of what is open; nothing is told any more."""


def open_tellers(settings: Mapping[str, str | None]) -> dict[str, Teller]:
    """Return a teller for every outlet with a setting: a path, or an address; None is an outlet that is not wanted.

    Nothing need be there yet: what cannot be reached is told by `tell`, and tried again. KeyError for an outlet there
    is none of, TellError for an address that can be none.
    """
    tellers: dict[str, Teller] = {}
    for name, setting in settings.items():
        if setting is not None:
            tellers[name] = import_module(f"{__name__}.{TELLERS[name]}").open_teller(setting)
    return tellers
