"""Findings of one host: the rules, and when a finding is raised and cleared."""
