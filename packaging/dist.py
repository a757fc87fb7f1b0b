"""Build what is published: `python packaging/dist.py --url https://example.org/ntpaudit [--files URL] [--output dist]`.

The source distribution is the whole checkout. It and the wheel name the project's pages. The README's links lead to
files beside it; here they become links to those pages, because an index shows the README without the files.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
_NOT_SOURCES = shutil.ignore_patterns(
    *(".git", ".venv", ".cache", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", ".coverage*")
)


def main() -> None:
    """Build the source distribution, and the wheel from it, and print where they are."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--url", required=True, help="the page of the project")
    options.add_argument("--files", help="where its files of this version are shown; default: URL/blob/vVERSION")
    options.add_argument("--output", type=Path, default=REPOSITORY / "dist", help="the folder to write to")
    chosen = options.parse_args()
    url = chosen.url.rstrip("/")
    build(url, (chosen.files or f"{url}/blob/v{_version()}").rstrip("/"), chosen.output)


def build(url: str, files: str, output: Path) -> None:
    """Build both in a copy of the sources whose README and metadata name these pages."""
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "ntpaudit"
        shutil.copytree(REPOSITORY, sources, symlinks=True, ignore=_NOT_SOURCES)
        readme, project = sources / "README.md", sources / "pyproject.toml"
        readme.write_text(re.sub(r"\]\((?![#/]|\w+:)", f"]({files}/", readme.read_text()))
        pages = {"Homepage": url, "Documentation": f"{files}/README.md", "Changelog": f"{files}/CHANGELOG.md"}
        lines = [f'{name} = "{page}"' for name, page in pages.items()]
        project.write_text(project.read_text() + "\n".join(["", "[project.urls]", *lines, ""]))
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", output.resolve(), sources]
        subprocess.run(command, check=True)


def _version() -> str:
    return re.findall(r'^__version__ = "(.+)"$', (REPOSITORY / "ntpaudit/__init__.py").read_text(), re.MULTILINE)[0]


if __name__ == "__main__":
    main()
