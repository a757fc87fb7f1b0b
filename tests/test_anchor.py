"""`ntpaudit evidence anchor`: heads from histories and databases, signed by real services; forgeries do not fit."""

import json
import shutil
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ntpaudit.cli.anchor import verify_folder
from ntpaudit.core import anchor as anchors
from ntpaudit.core.anchor import Head
from tests.command import Ran, ntpaudit
from tests.test_evidence import BEGIN_NS, Stored, change, copied, cut, delivered, live, rewrite
from tests.world.flaky import Answer, Fault, FlakyDatabase, Octets, Request
from tests.world.host import S
from tests.world.packages import REPOSITORY
from tests.world.roughenough import roughenough
from tests.world.roughtime_server import honest, new_signer, serving
from tests.world.time_stamps import Authority, authority, openssl_verifies

__all__ = ["delivered"]  # a fixture

pytestmark = pytest.mark.needs("openssl")


class Services(NamedTuple):
    """A time-stamp authority, a Roughtime server, and the configuration that trusts both."""

    issuer: Authority
    tsa: FlakyDatabase
    config: Path


def replies(issuer: Authority) -> Callable[[Request], Fault]:
    """Let an authority answer over HTTP."""

    def choose(request: Request) -> Fault:
        reply = issuer.reply(request.lines.encode(errors="surrogateescape"))
        return Octets(f"HTTP/1.1 200 OK\r\nContent-Length: {len(reply)}\r\n\r\n".encode() + reply)

    return choose


def configured(path: Path, tsa: str, roots: Path, address: str, key: bytes) -> Path:
    """Write a configuration with one service of each kind."""
    server = f"{address} {b64encode(key).decode()}"
    path.write_text(f'[evidence]\ntsa = ["{tsa}"]\ntsa_roots = "{roots}"\nroughtime = ["{server}"]\n')
    return path


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Both services; the Roughtime server is that of the tests, so that any machine has it."""
    folder = tmp_path_factory.mktemp("services")
    issuer, signer = authority(folder / "authority"), new_signer()
    with FlakyDatabase(choose=replies(issuer)) as tsa, serving(honest(signer)) as (address, _):
        yield Services(issuer, tsa, configured(folder / "ntpaudit.toml", tsa.url, issuer.roots, address, signer.key))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of an hour."""
    return live(tmp_path_factory.mktemp("history"), 1.0)


def run(services: Services, *words: str, state: Path) -> Ran:
    """Run a command of `evidence` with the configuration of the services."""
    return ntpaudit("evidence", words[0], "--config", str(services.config), *words[1:], state=state)


def made(services: Services, *words: str, folder: Path, status: int = 0) -> Path:
    """Make an anchor and return its file."""
    ran = run(services, "anchor", "--folder", str(folder), *words, state=folder)
    assert (ran.status, ran.err if status == 0 else "") == (status, ""), ran
    path = Path(ran.out.splitlines()[-1])
    assert path.parent == folder
    return path


@pytest.fixture(scope="module")
def anchored(services: Services, history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The anchor of one history."""
    return made(services, "--history", str(history), folder=tmp_path_factory.mktemp("anchor"))


def test_an_anchor_of_one_host(services: Services, anchored: Path, history: Path, tmp_path: Path) -> None:
    """It fits the history that it was made of, and states before when the rows existed."""
    ran = run(services, "verify-anchor", str(anchored), "--history", str(history), state=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "ok    tree of 1 head"
    assert lines[1].startswith(f"ok    time stamp of {services.tsa.url}: the root existed before 2")
    assert lines[1].endswith(", signed by CN=Test time stamps")
    assert lines[2].startswith("ok    Roughtime of 127.0.0.1:")
    assert lines[3].startswith("ok    chain of web1: 1 anchored head on this chain, up to entry ")
    assert lines[4].startswith("The anchored heads existed before 2")


def test_openssl_verifies_the_time_stamp(services: Services, anchored: Path) -> None:
    """As docs/anchors.md says: the data is the root."""
    document = json.loads(anchored.read_text())
    reply = b64decode(document["time_stamps"][0]["reply"])
    assert openssl_verifies(reply, bytes.fromhex(document["root"]), services.issuer.roots)


def test_the_verifier_of_the_documentation(services: Services, anchored: Path, tmp_path: Path) -> None:
    """It needs Python alone, and prepares the files for OpenSSL; it finds what was changed."""

    def outcome(path: Path) -> tuple[int, str]:
        command = [sys.executable, "-IS", str(REPOSITORY / "docs" / "verify_anchor.py"), str(path), str(tmp_path)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout

    server = json.loads(anchored.read_text())["roughtime"][0]["server"]
    assert outcome(anchored) == (0, f"ok   1 heads\nok   nonce of request 1, to {server}\n")
    root, stamp = (tmp_path / name for name in ("root.bin", "stamp-1.tsr"))
    assert openssl_verifies(stamp.read_bytes(), root.read_bytes(), services.issuer.roots)
    heads = [Head(f"wéb{number}", None, number, f"{number:064x}") for number in range(11)]
    anchor = anchors.new_anchor(heads, "now")
    part = anchors.excerpt(anchor, {"wéb3", "wéb10"})
    for one in (anchor, part, part._replace(size=12)):
        (tmp_path / "x").write_text(json.dumps(anchors.write(one)))
        status, said = outcome(tmp_path / "x")
        assert (status, "FAIL" in said) == ((0, False) if one.size == 11 else (1, True))


@pytest.mark.parametrize("forged", ["rewritten", "cut"])
def test_a_history_that_was_changed_later(
    forged: str, services: Services, anchored: Path, history: Path, tmp_path: Path
) -> None:
    """Also where the whole chain was computed again: what was anchored cannot be changed."""
    copy = copied(history, tmp_path / "copy")
    if forged == "rewritten":
        change(copy, "UPDATE audits SET verdict = (verdict + 1) % 4 WHERE id = 5")
        rewrite(copy)
    else:
        cut(copy, 5)
    ran = run(services, "verify-anchor", str(anchored), "--history", str(copy), state=tmp_path)
    assert ran.status == 2
    said = {"rewritten": "1 anchored head not those of this chain, the first of entry", "cut": "its end was cut"}
    assert ran.out.splitlines()[3].startswith("FAIL  chain of web1: 1 anchored head ")
    assert said[forged] in ran.out


def test_nothing_is_trusted_by_default(anchored: Path, tmp_path: Path) -> None:
    """Each line says what to name in the configuration."""
    (tmp_path / "c.toml").write_text("")
    ran = ntpaudit("evidence", "verify-anchor", "--config", str(tmp_path / "c.toml"), str(anchored), state=tmp_path)
    assert ran.status == 2
    assert "no root certificate is trusted; name the authority's in evidence.tsa_roots\n" in ran.out
    assert "its key is not one that you trust: compare it with the server's own, " in ran.out


def test_a_report_has_the_result(services: Services, anchored: Path, history: Path, tmp_path: Path) -> None:
    """Of all anchors of a folder that have a head of the host, and of the chain against them."""
    begin = BEGIN_NS // S // 86_400 * 86_400
    days = [time.strftime("%Y-%m-%d", time.gmtime(begin + day * 86_400)) for day in (0, 1)]

    def verified(path: Path, folder: Path) -> tuple[str, str]:
        words = ("--from", days[0], "--to", days[1], "--history", str(path), "--anchors", str(folder))
        ran = run(services, "report", *words, "--format", "json", state=tmp_path)
        (check,) = (one for one in json.loads(ran.out)["content"]["verification"] if one["name"] == "anchored")
        return check["result"], check["detail"]

    folder = tmp_path / "anchors"
    folder.mkdir()
    assert verified(history, folder) == ("not-done", f"no anchor in {folder} has a head of web1")
    anchor = anchors.excerpt(anchors.new_anchor([Head("db1", None, 1, "0" * 64)], "now"), {"db1"})
    (folder / "a.json").write_text(json.dumps(anchors.write(anchor)))
    shutil.copy(anchored, folder)
    result, detail = verified(history, folder)
    (head,) = json.loads(anchored.read_text())["heads"]
    covered = f"1 anchor of {folder}: entries 1 to {head['sequence']} of the chain existed before 2"
    assert (result, detail[: len(covered)]) == ("passed", covered)
    copy = copied(history, tmp_path / "copy")
    change(copy, "UPDATE audits SET verdict = (verdict + 1) % 4 WHERE id = 5")
    rewrite(copy)
    result, detail = verified(copy, folder)
    assert result == "failed"
    assert f"1 file of {folder} failed, the first: {anchored.name}: chain of web1: 1 anchored head not those" in detail
    (folder / "b.json").write_text("")
    assert verified(history, folder)[0] == "failed"


def test_anchors_of_a_folder_alone_prove_nothing_about_hosts(
    services: Services, anchored: Path, tmp_path: Path
) -> None:
    """Without a history, sound anchors are no check that has passed."""
    shutil.copy(anchored, tmp_path)
    result, detail = verify_folder(str(tmp_path), None, str(services.config))
    assert result == "not-done"
    assert "the chains of hosts are compared by" in detail


def altered(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy an anchor and change its document."""
    document = json.loads(path.read_text())
    change(document)
    target.write_text(json.dumps(document))
    return target


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda document: document["heads"][0].update(sequence=3), "FAIL  tree of 1 head: its heads do not lead to"),
        (lambda document: document.update(root="ab" * 32), "FAIL  tree of 1 head: its heads do not lead to its root"),
        (lambda document: document.update(time_stamps=[], roughtime=[]), "FAIL  signatures: the root has no signature"),
        (lambda document: document["roughtime"][0].update(salt=""), "FAIL  Roughtime of 127.0.0.1:"),
    ],
)
def test_an_anchor_that_was_changed(
    change: Callable[[dict[str, Any]], None], line: str, services: Services, anchored: Path, tmp_path: Path
) -> None:
    """Each line that does not fit says why."""
    ran = run(services, "verify-anchor", str(altered(anchored, tmp_path / "x", change)), state=tmp_path)
    assert ran.status == 2
    assert line in ran.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "this is not JSON"),
        ("[" * 100_000, "this is not JSON"),
        ("{}", "its schema is not ntpaudit.anchor/1"),
        ('{"schema": "ntpaudit.anchor/1", "made": "x", "heads": 5}', "heads is missing, or not a list"),
    ],
)
def test_a_file_that_is_no_anchor(text: str, said: str, services: Services, tmp_path: Path) -> None:
    """The error names the fix."""
    (tmp_path / "x").write_text(text)
    for ran in (
        run(services, "verify-anchor", str(tmp_path / "x"), state=tmp_path),
        ntpaudit("evidence", "excerpt", str(tmp_path / "x"), "web1", state=tmp_path),
    ):
        assert (ran.status, ran.out) == (3, "")
        assert f"{tmp_path}/x: {said}; name a file that" in ran.err


@pytest.mark.needs("roughenough")
def test_a_fleet_in_a_real_database(services: Services, delivered: Stored, tmp_path: Path) -> None:
    """One request each signs all heads; an excerpt proves that of one host, and a forged history does not fit."""
    _, url, _, language = delivered.words
    with roughenough() as server:
        config = configured(
            tmp_path / "c.toml", services.tsa.url, services.issuer.roots, f"127.0.0.1:{server.port}", server.key
        )
        real = services._replace(config=config)
        path = made(real, "--url", url, "--language", language, folder=tmp_path)
    part = tmp_path / "excerpt.json"
    assert ntpaudit("evidence", "excerpt", str(path), "web1", "--output", str(part), state=tmp_path).status == 0
    head = json.loads(part.read_text())["heads"][0]
    assert head["host"] == "web1"
    assert len(head["head"]) == (64 if language == "influxql" else 14)
    ran = run(real, "verify-anchor", str(part), "--history", str(delivered.path), state=tmp_path)
    assert ran.status == 0, ran
    copy = copied(delivered.path, tmp_path / "copy")
    change(copy, "UPDATE audits SET verdict = (verdict + 1) % 4 WHERE id = 60")
    rewrite(copy)
    assert run(real, "verify-anchor", str(part), "--history", str(copy), state=tmp_path).status == 2


def test_a_service_that_fails(services: Services, history: Path, tmp_path: Path) -> None:
    """The anchor has the other signature; without any, no file is written."""
    services.tsa.choose = lambda request: Answer(503)
    try:
        ran = run(services, "anchor", "--folder", str(tmp_path), "--history", str(history), state=tmp_path)
        assert ran.status == 1
        assert f"ntpaudit: {services.tsa.url}: replies 503" in ran.err
        assert [one["server"][:9] for one in json.loads(Path(ran.out.splitlines()[-1]).read_text())["roughtime"]]
        alone = tmp_path / "alone.toml"
        alone.write_text(services.config.read_text().partition("roughtime")[0])
        folder = tmp_path / "empty"
        folder.mkdir()
        ran = ntpaudit(
            *("evidence", "anchor", "--config", str(alone), "--folder", str(folder), "--history", str(history)),
            state=tmp_path,
        )
        assert (ran.status, ran.out) == (3, "")
        assert ran.err.endswith("ntpaudit: no service has signed, and no anchor was written; retry later\n")
        assert list(folder.iterdir()) == []
    finally:
        services.tsa.choose = replies(services.issuer)


@pytest.mark.parametrize(
    ("settings", "words", "status", "said"),
    [
        ("", ["anchor", "--folder", "x", "--history"], 78, "evidence.tsa: no service is named: set tsa and tsa_roots"),
        ("tsa = ['http://x']", ["anchor", "--folder", "x"], 78, "evidence.tsa_roots: missing: name the file with"),
        ("tsa_roots = '/nowhere'", ["verify-anchor", "x"], 78, "evidence.tsa_roots: /nowhere: No such file"),
        ("tsa_roots = '/dev/null'", ["verify-anchor", "x"], 78, "/dev/null: no certificate can be read; name a PEM"),
        ("", ["verify-anchor", "nowhere"], 3, "nowhere: No such file or directory; name a file that"),
        ("", ["anchor"], 64, "Missing option '--folder'"),
        ("", ["anchor", "--folder", "x", "--history", "--url", "http://x"], 64, "--history reads no database"),
    ],
)
def test_what_cannot_be_done_is_explained(
    settings: str, words: list[str], status: int, said: str, tmp_path: Path
) -> None:
    """With the fix."""
    (tmp_path / "c.toml").write_text(f"[evidence]\n{settings}\n")
    ran = ntpaudit("evidence", words[0], "--config", str(tmp_path / "c.toml"), *words[1:], state=tmp_path)
    assert ran.status == status
    assert said in ran.err


def test_folders_and_histories_that_are_missing(services: Services, history: Path, tmp_path: Path) -> None:
    """Each error is one line."""
    ran = run(services, "anchor", "--folder", str(tmp_path / "none"), "--history", str(history), state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert "create its folder" in ran.err
    ran = run(services, "anchor", "--folder", str(tmp_path), "--history", str(tmp_path / "none"), state=tmp_path)
    assert (ran.status, ran.out) == (3, "")
