"""The servers of `demo --once`: four correct ones, near and far, and one falseticker."""

from ntpaudit.demo.server import Behaviour

BEHIND_S = 0.0019
"""How far this host is behind by the simulated servers."""


def _honest(network_s: float, root_delay_s: float, root_dispersion_s: float, asymmetry: float = 0.5) -> Behaviour:
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
    "near.example": _honest(0.004, 0.001, 0.0006),
    "city.example": _honest(0.011, 0.002, 0.0011, asymmetry=0.55),
    "country.example": _honest(0.023, 0.004, 0.0021, asymmetry=0.45),
    "abroad.example": _honest(0.048, 0.009, 0.0043, asymmetry=0.6),
    "liar.example": Behaviour(
        offset_s=37.0, stratum=1, reference_id=b"GPS", request_delay_s=0.006, reply_delay_s=0.006
    ),
}
"""Name and behaviour of each server, in the order of the table."""
