"""All hosts at once: members, severity, order of events, clock shifts, rules."""
