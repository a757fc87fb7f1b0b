"""The profile that audits are judged by."""

import math

from ntpaudit.core.policy import DEFAULT_PROFILE, PROFILES, Profile
from ntpaudit.errors import ConfigError, nearest


def choose_profile(
    name: str | None, warning_s: float | None, critical_s: float | None, base: Profile = PROFILES[DEFAULT_PROFILE]
) -> Profile:
    """Return the named profile, else `base`, with tolerances overridden. Raises ConfigError for invalid values."""
    if name is not None and name not in PROFILES:
        known = f"unknown profile {name!r}{nearest(name, PROFILES)}; known: {', '.join(PROFILES)}"
        raise ConfigError(f"policy.profile: {known}", "policy.profile")
    profile = PROFILES[name] if name is not None else base
    critical = profile.critical_s if critical_s is None else critical_s
    # a critical tolerance below the profile's warning tolerance lowers the warning tolerance too
    warning = min(profile.warning_s, critical) if warning_s is None else warning_s
    if not 0 < warning <= critical < math.inf:
        written = f"warning is {warning:g} s, critical {critical:g} s (profile {profile.name})"
        fix = "lower warning or raise critical, so that 0 < warning <= critical"
        raise ConfigError(f"policy: {written}: {fix}", "policy.warning" if warning_s is not None else "policy.critical")
    return profile._replace(warning_s=warning, critical_s=critical)
