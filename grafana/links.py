"""Where links lead outside Grafana: to this project's documentation, and to the logs of a host.

Both are of the place where Grafana runs: `NTPAUDIT_DOCS_URL` and `NTPAUDIT_LOGS_URL`, when `make dashboards` writes the
files, or the two fields at the top of each dashboard.
"""

import os

DOCS_URL = os.environ.get("NTPAUDIT_DOCS_URL", "https://ntpaudit.example.net/docs").rstrip("/")
"""The folder docs/ of this project, as a reader of the dashboards can open it: a forge or a server of your own."""

LOGS_URL = os.environ.get("NTPAUDIT_LOGS_URL", "https://logs.example.net/search?host=")
"""What opens the logs of a host, when the host's name is put behind it."""

FINDINGS = f"{DOCS_URL}/findings.md"
