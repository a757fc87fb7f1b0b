"""What a site requires besides tolerances, and accepts: sources, authentication, log pipelines, accepted findings."""

from typing import Literal, NamedTuple, get_args

from ntpaudit.core.acceptance import Acceptance
from ntpaudit.core.ntp.patterns import Pattern

Role = Literal["internal", "designated"]
ROLES: tuple[Role, ...] = get_args(Role)


class SitePolicy(NamedTuple):
    """What a site requires of this host.

    - `approved`: the sources that it may use; empty: not judged.
    - `role`: an `internal` host takes time from the site's own servers only, a `designated` one may use the outside;
      None: not judged (PCI DSS 10.6.2).
    - `require_authentication`: the time daemon must follow authenticated sources only.
    - `pipelines`: the names of the pipelines, of `PIPELINES`, that this host's logs go to.
    - `lag_s`: how long an event takes until a pipeline has it.
    - `rule_interval_s`, `rule_lookback_s`: how often detection rules run, and how far back they search; None: the
      default of the pipeline, if it has one.
    - `accepted`: the findings that somebody accepts.
    """

    approved: tuple[Pattern, ...] = ()
    role: Role | None = None
    require_authentication: bool = False
    pipelines: tuple[str, ...] = ()
    lag_s: float = 0.0
    rule_interval_s: float | None = None
    rule_lookback_s: float | None = None
    accepted: tuple[Acceptance, ...] = ()


NOTHING_REQUIRED = SitePolicy()
