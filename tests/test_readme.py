"""What the README shows is what the program prints."""

import re
from pathlib import Path

import pytest

from tests.command import ntpaudit
from tests.world.packages import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
OF_THIS_HOST = ("unsynced", "daemon-count", "tz-or-rtc-fault")
"""Findings about the host that runs the test; the README's was a machine without a time daemon."""


def shape(output: str) -> list[str]:
    """Return an output with its numbers and columns blurred, and without what depends on the host."""
    headline, table, rest = output.split("\n\n", 2)
    sentence = " ".join(headline.split()).partition(" clock")[2].partition(";")[0]
    findings = re.split(r"\n(?=\S)", rest.partition("\n\n")[0])
    kept = [" ".join(finding.split()) for finding in findings if not any(name in finding for name in OF_THIS_HOST)]
    # A busy machine answers late, which moves an offset that is near 0 to its other side.
    blurred = [
        re.sub(r"[0-9][0-9.]*( [mµ]?s)?( behind| ahead)?", "#", line) for line in (sentence, *table.splitlines())
    ]
    return [" ".join(line.split()) for line in blurred] + kept


def test_the_sample_output_is_what_the_demonstration_prints(tmp_path: Path) -> None:
    """The README's first screen is real: the same sentence, table and findings come out today."""
    shown = re.search(r"```\n(.*?)```", README, re.DOTALL)
    assert shown
    found: list[list[str]] = []
    while shape(shown[1]) not in found:  # a server that a busy machine delays may for once stand on the other side of 0
        assert len(found) < 3, found
        found.append(shape(ntpaudit("demo", "--once", state=tmp_path).out))


def test_the_pictures_are_small() -> None:
    """Each picture that `make pictures` makes is shown, with a text for those who cannot see it."""
    shown = re.findall(r"!\[[^\]]{30,}\]\([^)]*docs/pictures/([^)]+)\)", README)
    pictures = sorted((REPOSITORY / "docs" / "pictures").glob("*.png"))
    assert sorted(shown) == [picture.name for picture in pictures]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) <= 400_000


@pytest.mark.parametrize("line", re.findall(r"^    (ntpaudit check .*?)(?:  +#.*)?$", README, re.MULTILINE))
def test_every_command_shown_is_understood(line: str, tmp_path: Path) -> None:
    """Each call of the README is understood by the command line, word for word."""
    words = [word for word in line.split()[1:] if word != "…"]
    assert ntpaudit(*words, "--help", state=tmp_path).status == 0


def test_every_page_linked_is_there() -> None:
    """No link of the README leads nowhere."""
    assert all(
        (REPOSITORY / target).is_file() for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target
    )
