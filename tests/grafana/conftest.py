"""What the tests of the dashboards share: databases that are filled once, and one Node process."""

from collections.abc import Iterator

import pytest

from grafana.queries import Language
from tests.grafana.library import Library, library
from tests.grafana.worlds import Filled, Odd, databases, demonstration, disputed_hosts, odd_hosts


@pytest.fixture(scope="session")
def filled() -> Iterator[Filled]:
    """The demonstration's fleet in both databases."""
    with demonstration() as found:
        yield found


@pytest.fixture(scope="session")
def odd() -> Iterator[Odd]:
    """Odd hosts in both databases."""
    with odd_hosts() as found:
        yield found


@pytest.fixture(scope="session")
def disputed() -> Iterator[Odd]:
    """Hosts that are not to be believed, in both databases."""
    with disputed_hosts() as found:
        yield found


@pytest.fixture(scope="session")
def empty() -> Iterator[dict[Language, str]]:
    """Both databases, without a point."""
    with databases(()) as urls:
        yield urls


@pytest.fixture(scope="session")
def grafana() -> Iterator[Library]:
    """Grafana's own library."""
    with library() as running:
        yield running
