"""Log messages: what is printed at which level, how the journal gets its priority, and that nothing comes twice."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ntpaudit.cli.output import log_to_stderr
from ntpaudit.demo.server import Behaviour, NtpServer
from ntpaudit.log import LazyLogger
from tests.command import ntpaudit
from tests.world.packages import REPOSITORY

MESSAGES = {"debug": "a detail", "info": "a note", "warning": "a fault"}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the program's logger as it was."""
    logger = logging.getLogger("ntpaudit")
    before = logger.level, logger.handlers[:]
    yield
    logger.level, logger.handlers[:] = before


def log_each(name: str = "ntpaudit.test") -> None:
    """Log one message of each level."""
    logger = LazyLogger(name)
    for level, text in MESSAGES.items():
        getattr(logger, level)(text)


@pytest.mark.parametrize(
    ("verbose", "quiet", "printed"),
    [(False, False, ["info", "warning"]), (True, False, ["debug", "info", "warning"]), (False, True, ["warning"])],
)
def test_options_choose_the_level(
    verbose: bool, quiet: bool, printed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Notes and warnings by default; details with -v; warnings alone with -q."""
    log_to_stderr(verbose=verbose, quiet=quiet)
    log_each()
    assert capsys.readouterr().err.splitlines() == [f"ntpaudit: {MESSAGES[level]}" for level in printed]


def test_verbose_and_quiet_exclude_each_other() -> None:
    """Both at once is a usage error."""
    with pytest.raises(click.UsageError, match="exclude each other"):
        log_to_stderr(verbose=True, quiet=True)


def test_a_second_configuration_prints_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """The handler is replaced, not added."""
    for _ in range(2):
        log_to_stderr(verbose=True)
    log_to_stderr()
    log_each()
    assert capsys.readouterr().err.splitlines() == ["ntpaudit: a note", "ntpaudit: a fault"]


def test_an_agent_drops_what_comes_with_every_poll(capsys: pytest.CaptureFixture[str]) -> None:
    """A message of a poll that differs from a recent one in its figures only is dropped; others are not."""
    log_to_stderr(drop_repetitions=True)
    for seconds in range(3):
        LazyLogger("ntpaudit.polling").info(f"ntp1: next query in {seconds} s")
        LazyLogger("ntpaudit.agent").info("configuration reloaded")
    printed = capsys.readouterr().err.splitlines()
    assert printed.count("ntpaudit: ntp1: next query in 0 s") == 1
    assert printed.count("ntpaudit: configuration reloaded") == 3
    assert len(printed) == 4


def test_a_check_describes_its_queries_only_with_verbose(tmp_path: Path) -> None:
    """-v adds a line for each source, once; the result on standard output is the same."""
    server = "127.0.0.1:1"
    plain, verbose = (ntpaudit("check", server, *words, state=tmp_path) for words in ([], ["-v"]))
    detail = f"ntpaudit: {server} (127.0.0.1): unreachable, refused"
    assert detail not in plain.err
    assert verbose.err.splitlines().count(detail) == 1
    assert (plain.status, verbose.status) == (3, 3)
    assert ntpaudit("check", server, "-v", "-q", state=tmp_path).status == 64


def test_a_warning_is_printed_with_quiet(tmp_path: Path) -> None:
    """A server that is named twice gets one vote: a warning."""
    words = ("check", "127.0.0.1:1", "localhost:1")
    for options in ([], ["-q"]):
        printed = ntpaudit(*words, *options, state=tmp_path).err
        assert printed.count("is the same server as") == 1, printed


def test_an_agent_logs_to_standard_error_once(tmp_path: Path) -> None:
    """One cycle with -v: the query is described once."""
    config = tmp_path / "ntpaudit.toml"
    config.write_text('[sources]\nservers = ["127.0.0.1:1"]\n')
    ran = ntpaudit("agent", "--once", "--config", str(config), "-v", state=tmp_path)
    assert ran.err.count("127.0.0.1:1 (127.0.0.1): unreachable, refused") == 1


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_gets_the_priority_of_each_line(tmp_path: Path, is_journal: bool) -> None:
    """`<N>` begins each line where JOURNAL_STREAM names standard error itself, and nowhere else (sd-daemon(3))."""
    program = (
        "from ntpaudit.cli.output import log_to_stderr; from ntpaudit.log import LazyLogger;"
        "log_to_stderr(verbose=True);"
        "log = LazyLogger('ntpaudit.x'); log.debug('a'); log.info('b'); log.warning('c\\nd')"
    )
    path = tmp_path / "stderr"
    with path.open("w") as stderr:
        stream = os.fstat(stderr.fileno() if is_journal else 0)
        environment = os.environ | {
            "JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}",
            "PYTHONPATH": str(REPOSITORY),
        }
        subprocess.run([sys.executable, "-c", program], stderr=stderr, env=environment, check=True)
    prefixes = ["<7>", "<6>", "<4>", "<4>"] if is_journal else [""] * 4
    texts = ["ntpaudit: a", "ntpaudit: b", "ntpaudit: c", "d"]
    assert path.read_text().splitlines() == [prefix + text for prefix, text in zip(prefixes, texts, strict=True)]


def test_a_check_without_a_message_does_not_import_logging(tmp_path: Path) -> None:
    """`import logging` would be a noticeable part of a check's CPU time."""
    with NtpServer(Behaviour()) as server:
        ran = ntpaudit(
            "check", f"127.0.0.1:{server.port}", state=tmp_path, environment={"PYTHONPROFILEIMPORTTIME": "1"}
        )
    imported = {line.rpartition("|")[2].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert "ntpaudit.polling" in imported
    assert "logging" not in imported
