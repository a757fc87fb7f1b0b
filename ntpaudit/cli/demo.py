"""`ntpaudit demo`: an audit against NTP servers simulated on loopback, where no network is needed."""

from collections.abc import Callable
from contextlib import ExitStack

import click

from ntpaudit import __version__, audit
from ntpaudit.cli.output import StandardError, finish, format_option
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES
from ntpaudit.core.politeness import Memories
from ntpaudit.core.record import Labels, conclude
from ntpaudit.core.sources import Server

EPILOG = """\b
Examples:
  ntpaudit demo --once
  ntpaudit demo --once --format json

\b
Exit status: as `ntpaudit check`.
"""

LABEL = "demonstration: servers simulated on loopback, wrong on purpose; the offset says nothing about this clock"


def forget(change: Callable[[Memories], Memories]) -> None:
    """Remember nothing."""
    change({})


@click.command(epilog=EPILOG)
@click.option("--once", is_flag=True, help="Audit once (all that this version demonstrates).")
@format_option
def demo(once: bool, format_name: str) -> None:
    """Show an audit against NTP servers simulated on loopback; no network needed.

    The code is the same as in `ntpaudit check`, and so is the UDP. Four servers say that this host is 1.9 ms behind,
    over networks of different length; a fifth lies by 37 s.
    """
    from ntpaudit.demo.scene import SCENE
    from ntpaudit.demo.server import NtpServer
    from ntpaudit.probes.clock import SystemClock

    voice = StandardError()
    voice.note(LABEL)
    with ExitStack() as stack:
        servers = [(name, stack.enter_context(NtpServer(behaviour))) for name, behaviour in SCENE.items()]
        plan = audit.Plan(
            sources=tuple(Server(name, server.address, server.port) for name, server in servers),
            profile=PROFILES[DEFAULT_PROFILE],
            labels=Labels(__version__),
        )
        # loopback needs no manners, so nothing is remembered of these servers
        result = conclude(audit.observe(plan, SystemClock(), forget, voice), plan.profile, plan.labels)
    finish(result, format_name)
