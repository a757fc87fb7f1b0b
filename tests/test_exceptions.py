"""`ntpaudit fleet --exceptions FILE`: the file, its errors, and what every format shows of it."""

import csv
import json
from contextlib import suppress
from io import StringIO
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.config.exceptions import read_exceptions
from ntpaudit.core.acceptance import Acceptance, HostAcceptance
from ntpaudit.core.units import parse_utc
from ntpaudit.errors import ConfigError
from tests.command import Ran, ntpaudit
from tests.snapshots import write_demonstration

WHOLE = '[[accept]]\nhost = "{}"\nsite = "{}"\nfinding = "{}"\nreason = "replaced"\nby = "ops"\nuntil = "2199-12-31"\n'
START = '[[accept]]\nhost = "web1"\nreason = "x"\nby = "ops"\n'


def write(folder: Path, text: str) -> str:
    """Write a file of exceptions, and return its path."""
    path = folder / "exceptions.toml"
    path.write_text(text)
    return str(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    """Hosts or sites or both, findings of hosts and of a fleet, days and times, and no end."""
    path = write(
        tmp_path,
        '# a comment\n[[accept]]\nhost = "ams-*"\nfinding = "offset-out"\nreason = "r"\nby = "b"\nuntil = 2027-01-31\n'
        '[[accept]]\nsite = "fra"\nfinding = "slow-walk"\nreason = "r"\nby = "b"\n',
    )
    until_ns = parse_utc("2027-01-31T00:00:00.000000000Z")
    assert read_exceptions(path) == (
        HostAcceptance(Acceptance("offset-out", "r", "b", until_ns), "ams-*"),
        HostAcceptance(Acceptance("slow-walk", "r", "b"), None, "fra"),
    )
    assert read_exceptions(write(tmp_path, "")) == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f'{START}finding = "acceptance-expired"', ":5: accept[1].finding: acceptance-expired cannot be accepted: set"),
        (f'{START}finding = "ofset-out"', ":5: accept[1].finding: 'ofset-out': unknown, did you mean 'offset-out'?"),
        (f'{START}finding = "slow-wall"', ":5: accept[1].finding: 'slow-wall': unknown, did you mean 'slow-walk'?"),
        (f'{START}finding = "unsynced"\nuntil = "soon"', ":6: accept[1].until: 'soon': write a day or a time in UTC"),
        (f'{START}\n{START}finding = "unsynced"', ":1: accept[1].finding: missing; [[accept]] needs it, such as "),
        (f'{START}finding = "unsynced"\n{START}finding = 3', ":10: accept[2].finding: write a string in quotes, not 3"),
        ('[[accept]]\nfinding = "unsynced"\nreason = "x"\nby = "ops"', ":1: accept[1]: it names no host: add host or "),
        (f'{START}finding = "unsynced"\nsite = ""', ":6: accept[1].site: write a name, or a pattern such as ams-*"),
        (f'{START}finding = "unsynced"\nhosts = "x"', ":6: accept[1].hosts: unknown, did you mean 'host'?; known here"),
        ("[[accepts]]", ":1: accepts: unknown, did you mean 'accept'?; known here: accept"),
        ("[accept]\n", ":1: accept: write each as a table, [[accept]]"),
        ("host,finding\nweb1,offset-out", ":1: not TOML: "),
        ("[[accept]]\nhost = web1", ":2: not TOML: invalid value: write a text in quotes"),
    ],
)
def test_an_error_names_the_file_the_line_and_the_entry(text: str, error: str, tmp_path: Path) -> None:
    """And what to write instead; the command ends with 64, the plugin with 3."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_exceptions(path)
    assert str(caught.value).startswith(f"{path}{error}")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Absent, a folder, and not text."""
    (tmp_path / "octets").write_bytes(b"\xff\xfe")
    for path, reason in (("absent", "No such file"), (".", "Is a directory"), ("octets", "not TOML")):
        with pytest.raises(ConfigError, match=reason):
            read_exceptions(str(tmp_path / path))


@given(st.binary(max_size=200) | st.text(alphabet='[]accept="\n.,host-*# 1T:Z{}', max_size=200).map(str.encode))
def test_any_file_is_read_or_refused(text: bytes) -> None:
    """No traceback whatever is in it."""
    with NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        with suppress(ConfigError):
            read_exceptions(file.name)


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a demonstration, whose host ams-web1 is wrong for certain."""
    home = tmp_path_factory.mktemp("home")
    (home / "state").mkdir()
    write_demonstration(home / "state" / "demo.sqlite3")
    return home


def fleet(*words: str, state: Path) -> Ran:
    """Run `ntpaudit fleet` on the demonstration."""
    return ntpaudit("fleet", "--demo", *words, state=state, environment={"XDG_CONFIG_HOME": str(state / "etc")})


def test_every_format_shows_what_is_accepted(state: Path, tmp_path: Path) -> None:
    """The worst host is accepted in all that it has: it is ok, and its findings are listed as accepted."""
    before = json.loads(fleet("--format", "json", state=state).out)
    worst = before["hosts"][0]
    ids = [one["id"] for one in worst["alarms"] if one["severity"] != "ok"]
    assert (worst["severity"], "offset-out" in ids) == ("critical", True)
    path = write(tmp_path, "".join(WHOLE.format(worst["host"], "*", one) for one in ids))
    after = json.loads(fleet("--format", "json", "--exceptions", path, state=state).out)
    host = next(one for one in after["hosts"] if one["host"] == worst["host"])
    accepted = {"reason": "replaced", "by": "ops", "until": "2199-12-31T00:00:00.000000000Z"}
    assert (host["severity"], host["verdict"], host["reported"]) == ("ok", "beyond", "critical")
    assert [one["id"] for one in host["alarms"] if one["accepted"] and one["exception"] == accepted] == sorted(ids)
    assert after["counts"]["critical"] == before["counts"]["critical"] - 1
    assert after["summary"].endswith(f"{len(ids)} accepted finding{'s' * (len(ids) > 1)}")
    text = fleet("--exceptions", path, "--limit", "100", state=state).out
    assert f"(accepted) {sorted(ids)[0]}" in text
    rows = csv.DictReader(StringIO(fleet("--exceptions", path, "--format", "csv", state=state).out))
    row = next(one for one in rows if one["host"] == worst["host"])
    assert (row["severity"], row["accepted"], row["low_alarms"]) == ("ok", " ".join(sorted(ids)), "")
    line = fleet("--exceptions", path, "--format", "nagios", state=state).out
    assert f" accepted={len(ids)};;;0;" in line
    page = fleet("--exceptions", path, "--html", "-", state=state).out
    assert "accepted, " in page
    assert "accepted until 2199-12-31 00:00 UTC by ops: replaced" in page


def test_an_expired_exception_is_a_finding_and_counts_for_nothing(state: Path, tmp_path: Path) -> None:
    """Also with `--at`: what held at that time counts then."""
    path = write(tmp_path, WHOLE.format("*", "*", "evidence-gap").replace("2199-12-31", "2020-01-01"))
    fleets = [json.loads(fleet("--format", "json", *words, state=state).out) for words in ((), ("--exceptions", path))]
    ended = [one for one in fleets[1]["findings"] if one["id"] == "acceptance-expired"]
    assert [one["accepted"] for one in ended] == [None]
    assert fleets[0]["counts"] == fleets[1]["counts"]


@pytest.mark.parametrize(("words", "status"), [((), 64), (("--format", "nagios"), 3)])
def test_a_broken_file_ends_the_command(words: tuple[str, ...], status: int, state: Path, tmp_path: Path) -> None:
    """As one of the inventory does: with its line."""
    path = write(tmp_path, f"{START}\nfinding = 'x'")
    ran = fleet("--exceptions", path, *words, state=state)
    assert ran.status == status
    assert f"--exceptions: {path}:6: accept[1].finding: 'x': unknown" in ran.out + ran.err
