"""What is published: a source distribution that its own tests can run from, and metadata whose links lead somewhere."""

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

from tests.world.packages import REPOSITORY

pytestmark = pytest.mark.untraced  # tools build and test a copy of the program

URL = "https://example.org/ntpaudit"
NOT_SOURCES = re.compile(r"(^|/)(\.(?!ci/|gitignore)[^/]*|build|dist|__pycache__|[^/]*\.egg-info)(/|$)|^\.gitignore$")
"""Files of a checkout that are made by its tools, by their paths in it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, f"{REPOSITORY}/packaging/dist.py", "--url", URL, "--output", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    """The source distribution, unpacked."""
    (archive,) = built.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", archive, "-C", built], check=True)
    return built / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    """What an index shows of the wheel."""
    (archive,) = built.glob("*.whl")
    with zipfile.ZipFile(archive) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(opened.read(name).decode())


def files_in(folder: Path) -> set[str]:
    """The paths of the sources in a folder."""
    paths = {
        os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder) for name in names
    }
    return {path for path in paths if not NOT_SOURCES.search(path)}


def test_the_source_distribution_is_the_whole_checkout(unpacked: Path) -> None:
    """Tests, units, documents and dashboards are in it, and nothing else is but what setuptools adds."""
    assert {"tests/conftest.py", "systemd/ntpaudit.service", "docs/findings.md", ".ci/run"} <= files_in(unpacked)
    assert files_in(unpacked) - {"PKG-INFO", "setup.cfg"} == files_in(REPOSITORY)


def test_the_wheel_has_every_file_of_the_program(built: Path) -> None:
    """Templates, the style sheet and the script of the page too."""
    (archive,) = built.glob("*.whl")
    with zipfile.ZipFile(archive) as opened:
        packed = {name.removeprefix("ntpaudit/") for name in opened.namelist() if name.startswith("ntpaudit/")}
    assert "reports/templates/fleet.html.jinja" in packed
    assert packed == files_in(REPOSITORY / "ntpaudit")


def test_its_tests_run_from_the_source_distribution(unpacked: Path) -> None:
    """Those that read documents and units pass where it is unpacked."""
    files = ["tests/test_docs.py", "tests/test_readme.py", "tests/systemd/test_install.py"]
    quick = ["-k", "not make_install and not nothing_is_installed"]  # the installation reads the same files here
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *quick]
    done = subprocess.run(
        [*command, *files],
        cwd=unpacked,
        env=os.environ | {"PYTHONPATH": str(unpacked), "COVERAGE_PROCESS_CONFIG": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_the_metadata_names_the_projects_pages(metadata: Message) -> None:
    """An index shows where the project is, and where its documents are."""
    pages = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert pages["Homepage"] == URL
    assert pages["Documentation"].startswith(f"{URL}/blob/v")
    assert set(pages) == {"Homepage", "Documentation", "Changelog"}


def test_no_link_of_the_description_needs_the_checkout(metadata: Message) -> None:
    """Each link of the README leads to a page, of a file that there is."""
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))
    assert len(links) > 10
    for link in links:
        assert link.startswith((f"{URL}/blob/v", "#", "https://")), link
        if link.startswith(f"{URL}/blob/"):
            path = link.removeprefix(f"{URL}/blob/").partition("/")[2].partition("#")[0]
            assert (REPOSITORY / path).is_file(), link
