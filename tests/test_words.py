"""What a person reads is plain technical English: no archaic phrase, no metaphor that a newcomer must decode."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

BANNED = {
    # verbs and frames of another century
    r"tells?|telling|told": "report, state, show, emit; distinguish",
    r"mend(s|ed|ing)?": "fix, repair",
    r"befalls?|befell|befallen": "happen to, apply",
    r"looks? whether|looked whether|looking whether": "check whether",
    r"(take|takes|taking|took|taken) up": "adopt, resume, read",
    r"(leave|leaves|left) word": "write",
    r"of no use": "useless, not needed",
    r"so (many|soon|much|often|long)(?! as )": "the number; at most N; for that time; that often",
    r"so long as": "while",
    r"whoever|whosoever": "the reader, the caller, anyone who",
    r"nobody": "no host, no server, no one",
    r"of whom": "a relative clause with `that`",
    r"(is|are|as|stamps) of then": "at that time",
    r"some \d[\d,.]*": "about N",
    r"(say|says|said|saying) of": "report about",
    r"heard|hears?": "received, receives; is called with",
    r"anew": "again",
    r"(is|are|was|were) no more(?! than)": "no longer exist",
    r"(not )?to be had": "available",
    r"fares?|fared": "state, condition",
    r"spans? of time": "period, duration",
    r"sets? aside|setting aside": "dead letter",
    # names that were replaced
    r"liars?|lies (by|to)|lied|lying": "falseticker, is wrong by",
    r"courier": "delivery worker",
    r"tellers?": "output",
    r"sinks?": "output",
    r"outlets?": "output, writer",
    r"notebook": "state store",
    r"ledger": "state store",
    r"letters?": "outbox entry",
    r"manners?": "rate limit; query options; in this way",
    r"surroundings": "runtime",
    r"crew": "workers, runner",
    r"voice": "log",
    r"courses?": "history, state, offset over time",
    r"parcels?": "batch",
    r"strangers?": "unlisted",
    r"left_out": "skipped",
    r"gravity": "severity key",
}
"""What must not be written, as regular expressions without regard to case, and what to write instead."""

QUOTED = (
    r"liar\.example",  # a host name in examples
    r"(?i:dead[- _]letters?)",  # the standard term
    r"(two|alphanumeric|lower-case|upper-case|non-ASCII|ASCII|wide) letters|two-letter",  # letters of an alphabet
    r"letter-spacing",  # CSS
    r"=nobody",  # the user
    r"\"heard_s\"",  # a key of JSON
    r"tolerated_liars|d_liars",  # keys of older records, in the preset dictionary of compression.py
    r"\.tell\(\)",  # of Python's files
    r"[oO]f course",
)
"""Words of others that contain one of them."""

OLD_CLASSES = (
    r"Ago|Alone|Ambiguity|Clash|Course|Crew|CutOff|Dropped|FallSilent|Happened|Happening|Judged"
    r"|Judgement|Lie|Life|Manner|Memories|Memory|Mind|Mislead|Noticed|Outlets|Outvoted|Sort|Stamps"
    r"|StrangeAnswerError|Survey|Tally|TellConfig|TellError|Telling|Trimmed|Undated|Unjudged|Voice|Votes"
    r"|Ways|Wish"
)
"""Names of classes that were replaced; as words they are good English."""

CHECKED = (
    ".ci",
    "Makefile",
    "README.md",
    "docs",
    "grafana",
    "ntpaudit",
    "packaging",
    "pyproject.toml",
    "systemd",
    "tests/bench",
    "tests/core",
    "tests/demo",
    "tests/fleet",
    "tests/formats",
    "tests/grafana",
    "tests/outputs",
    "tests/probes",
    "tests/render",
    "tests/reports",
    "tests/store",
    "tests/systemd",
    "tests/world",
    *(f"tests/{path.name}" for path in sorted((REPOSITORY / "tests").glob("*.py"))),
)
"""Every file that a person reads."""

BANNED_TEXT = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(BANNED)})(?![a-z0-9])", re.IGNORECASE)
"""Whole words, also those between the underscores of a name."""

OLD_CLASS = re.compile(rf"^\s*class _?(?:{OLD_CLASSES})\b")
QUOTED_TEXT = re.compile("|".join(QUOTED))


def text_files(name: str) -> Iterator[tuple[Path, str]]:
    """Yield the text files of a folder, or the one file, and what each contains."""
    path = REPOSITORY / name
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file() and not {"__pycache__", "node_modules"} & set(file.parts) and file != Path(__file__):
            with suppress(UnicodeDecodeError):  # a picture
                yield file, file.read_text(encoding="utf-8")


def found(line: str) -> str | None:
    """Return what a line must not contain, and what to write instead."""
    if OLD_CLASS.search(line):
        return f"{line.strip()!r}: this name was replaced"
    if phrase := BANNED_TEXT.search(QUOTED_TEXT.sub("", line)):
        better = next(text for pattern, text in BANNED.items() if re.fullmatch(pattern, phrase[0], re.IGNORECASE))
        return f"{phrase[0]!r}: write {better}"
    return None


@pytest.mark.parametrize("name", CHECKED)
def test_texts_are_plain(name: str) -> None:
    """Code, pages, services, scripts and tests. The messages of all rules are in docs/messages.md."""
    assert [
        f"{file.relative_to(REPOSITORY)}:{number}: {fault}"
        for file, text in text_files(name)
        for number, line in enumerate(text.splitlines(), 1)
        if (fault := found(line))
    ] == []


@pytest.mark.parametrize(
    "line", ["def _told_events():", "so many hosts", "# Nobody knows it", "class Course(NamedTuple):"]
)
def test_a_banned_phrase_is_found(line: str) -> None:
    """Also in a name, and at the beginning of a sentence."""
    assert found(line)


@pytest.mark.parametrize(
    "line", ["dead_letters", "a two-letter code", "no more than two", "untold", "storytelling", "as many as"]
)
def test_a_phrase_that_only_resembles_one_is_not(line: str) -> None:
    """Parts of other words, standard terms, and words of others."""
    assert found(line) is None
