"""The servers of `demo --once`: four correct ones, near and far, and one falseticker."""

from collections.abc import Callable
from contextlib import ExitStack

from ntpaudit import __version__, audit
from ntpaudit.core.ntp.sources import Server
from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES
from ntpaudit.core.record import Labels, Record, conclude
from ntpaudit.demo.network import keep_no_state
from ntpaudit.demo.server import Behaviour, NtpServer
from ntpaudit.probes.clock import SystemClock

BEHIND_S = 0.0019  # how far this host is behind by the simulated servers


def _correct(network_s: float, root_delay_s: float, root_dispersion_s: float, asymmetry: float = 0.5) -> Behaviour:
    """Return a correct stratum 2 server with this round-trip time, in unequal shares."""
    return Behaviour(
        offset_s=BEHIND_S,
        stratum=2,
        reference_id=bytes((192, 0, 2, round(network_s * 1000))),
        root_delay_s=root_delay_s,
        root_dispersion_s=root_dispersion_s,
        request_delay_s=network_s * asymmetry,
        reply_delay_s=network_s * (1 - asymmetry),
    )


SCENE = {
    "near.example": _correct(0.004, 0.001, 0.0006),
    "city.example": _correct(0.011, 0.002, 0.0011, asymmetry=0.55),
    "country.example": _correct(0.023, 0.004, 0.0021, asymmetry=0.45),
    "abroad.example": _correct(0.048, 0.009, 0.0043, asymmetry=0.6),
    "liar.example": Behaviour(
        offset_s=37.0, stratum=1, reference_id=b"GPS", request_delay_s=0.006, reply_delay_s=0.006
    ),
}
"""Name and behaviour of each server, in the order of the table."""


def audit_once(progress: Callable[[str], None]) -> Record:
    """Audit this host with the simulated servers: it is 1.9 ms behind four of them; the fifth is wrong."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(NtpServer(behaviour)) for name, behaviour in SCENE.items()}
        plan = audit.Plan(
            sources=tuple(Server(name, server.address, server.port) for name, server in servers.items()),
            profile=PROFILES[DEFAULT_PROFILE],
            labels=Labels(__version__),
        )
        return conclude(audit.observe(plan, SystemClock(), keep_no_state, progress), plan.profile, plan.labels)
