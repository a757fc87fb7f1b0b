"""`python -m grafana`: write the dashboards and alert rules where Grafana looks for them, and the runbook."""

import json
from pathlib import Path

import yaml

from grafana.alerts import Json, rules, runbook
from grafana.fleet import fleet
from grafana.host import host
from grafana.integrity import integrity
from grafana.queries import LANGUAGES, Language

FOLDER = Path(__file__).parent
BOARDS = {"fleet": fleet, "host": host, "integrity": integrity}
"""Each dashboard, by the name of its file."""

_HEAD = "# Written by `make dashboards` from grafana/alerts.py: change that.\n"


def boards(language: Language) -> dict[str, Json]:
    """Return every dashboard, by its name."""
    return {name: make(language) for name, make in BOARDS.items()}


def files() -> dict[Path, str]:
    """Return every file that is written, and its text."""
    texts = {}
    for language in LANGUAGES:
        made = boards(language)
        for name, board in made.items():
            path = FOLDER / "dashboards" / language / f"{name}.json"
            texts[path] = json.dumps(board, indent=2, ensure_ascii=False) + "\n"

        def panel_id(board: str, title: str, made: dict[str, Json] = made) -> int:
            (number,) = (panel["id"] for panel in made[board]["panels"] if panel["title"] == title)
            return int(number)

        path = FOLDER / "provisioning" / language / "alerting" / "rules.yaml"
        text = yaml.safe_dump(rules(language, panel_id), sort_keys=False, width=118, allow_unicode=True)
        texts[path] = _HEAD + text
    texts[FOLDER.parent / "docs" / "runbook.md"] = runbook()
    return texts


def write() -> None:
    """Write every file."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    write()
