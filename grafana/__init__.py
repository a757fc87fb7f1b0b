"""Grafana's dashboards and alert rules as code: `python -m grafana` writes the files that are committed."""
