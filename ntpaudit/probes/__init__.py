"""Probes: each reads one thing from outside the process; none decides anything."""
