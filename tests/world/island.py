"""A network of its own: addresses and names of our choosing, in namespaces that end with the test."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.world.namespaces import entered, unshared
from tests.world.packages import REPOSITORY, program
from tests.world.servers import running


@dataclass(frozen=True, slots=True)
class Island:
    """Where a real chronyd answers on port 123 of every address, and serves the host's own clock: true offset 0."""

    pid: int

    def command(self, words: Sequence[str]) -> list[str]:
        """The same command, run on the island."""
        return [*entered(self.pid, "net", "mount"), *words]


_LAND = """
"$IP" link set lo up
for address in $ADDRESSES; do
    case $address in *:*) "$IP" address add "$address" dev lo nodad ;; *) "$IP" address add "$address" dev lo ;; esac
done
mount --bind "$HOSTS" /etc/hosts
mount --bind "$RESOLVER" /etc/resolv.conf
exec "$@"
"""


@contextmanager
def island(names: Mapping[str, Sequence[str]], addresses: Sequence[str] = ()) -> Iterator[Island]:
    """Make an island whose hosts file gives these names, and which has their addresses, and others, for its own.

    A name that it does not give is asked of a resolver that is not there.
    """
    everyone = {address for given in names.values() for address in given} | set(addresses)
    with TemporaryDirectory(prefix="island-") as name:
        folder = Path(name)
        hosts, resolver, configuration = (folder / part for part in ("hosts", "resolv.conf", "chrony.conf"))
        lines = [f"{address} {host}\n" for host, given in names.items() for address in given]
        hosts.write_text("127.0.0.1 localhost\n" + "".join(lines))
        resolver.write_text("nameserver 192.0.2.254\noptions timeout:1 attempts:1\n")
        configuration.write_text(f"port 123\nlocal stratum 1\nallow\ncmdport 0\npidfile {folder}/pid\n")
        server = [str(program("chronyd")), "-x", "-d", "-U", "-u", "root", "-f", str(configuration)]
        commands = [
            "env",
            f"IP={program('ip')}",
            f"ADDRESSES={' '.join(sorted(everyone))}",
            f"HOSTS={hosts}",
            f"RESOLVER={resolver}",
        ]
        question = [sys.executable, "-m", "tests.world.servers", "127.0.0.1", "123"]

        def is_ready(pid: int) -> bool:
            if Path(f"/proc/{pid}/comm").read_text() != "chronyd\n":
                return False  # not yet in its namespaces
            return subprocess.run(Island(pid).command(question), cwd=REPOSITORY, check=False).returncode == 0

        with running(
            [*unshared("net", "mount"), *commands, "sh", "-ec", _LAND, "sh", *server], folder / "log", is_ready
        ) as pid:
            yield Island(pid)
