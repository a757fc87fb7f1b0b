"""`ntpaudit evidence anchor`, `verify-anchor` and `excerpt`: heads of chains whose time others have signed."""

import glob
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import click

from ntpaudit.cli.output import exit_on, note, put, write_parts
from ntpaudit.cli.parameters import config_option, parsed
from ntpaudit.config.schema import EvidenceConfig
from ntpaudit.config.values import LANGUAGES, Language, parse_url
from ntpaudit.core.observation import host_label
from ntpaudit.core.policy import Severity
from ntpaudit.core.units import DAY_S, NS_PER_S, format_utc, plural
from ntpaudit.errors import AnchorError, ConfigError, OutputError, ReadError, StoreError
from ntpaudit.render.text_safety import one_line

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from ntpaudit.core.anchor import Anchor, Check, Head
    from ntpaudit.core.evidence.model import CheckResult

OWN = ""  # --history without a path
LOOK_BACK_NS = round(DAY_S) * NS_PER_S
_NAMED = 5  # of the hosts without a head, the most that a message names

history_option = click.option(
    "--history",
    "history",
    is_flag=False,
    flag_value=OWN,
    metavar="[PATH]",
    help="This host's history, or that of PATH.",
)

ANCHOR_EPILOG = """\b
Examples:
  ntpaudit evidence anchor --folder /srv/anchors                    all hosts of the database of [fleet]
  sudo ntpaudit evidence anchor --history --folder /srv/anchors     this host alone

\b
One request to each service signs the heads of all hosts. The services are those of [evidence]: tsa (with tsa_roots) and
roughtime. A signature proves that the rows up to each head existed before the signed time. The systemd timer
ntpaudit-anchor.timer makes one anchor a day. The file format and the verification by other programs: docs/anchors.md.

\b
Exit status: 0 every service has signed, 1 only some have, 2 Roughtime servers contradict each other, 3 none has signed
(no file is written) or no head is known, 64 usage, 78 configuration.
"""

VERIFY_EPILOG = """\b
Examples:
  ntpaudit evidence verify-anchor 2026-11-30T200000Z-5df6e0e27613.json
  sudo ntpaudit evidence verify-anchor FILE --history       is this host's anchored head on its chain?

\b
Trusted are the root certificates and the keys of [evidence] alone: name those that you got from the services yourself,
in a configuration of your own (--config). The file needs no network and no other file.

\b
Exit status: 0 everything fits, 2 something does not fit, 3 the file or the history cannot be read, 64 usage,
78 configuration.
"""


@click.command(epilog=ANCHOR_EPILOG, short_help="Let time-stamp services sign the heads of chains.")
@click.option("--folder", required=True, type=click.Path(), help="Where the anchor is written, as a file of its own.")
@history_option
@click.option("--url", type=parsed("URL", parse_url), help="Database with the points.  [default: that of [fleet]]")
@click.option("--language", type=click.Choice(LANGUAGES), help="Query language of the database.  [default: influxql]")
@click.option("--database", metavar="NAME", help="Database or bucket.  [default: ntpaudit]")
@config_option
def anchor(
    folder: str,
    history: str | None,
    url: str | None,
    language: Language | None,
    database: str | None,
    config_path: str | None,
) -> None:
    """Put the newest heads of all hosts into one tree, and let others sign its root."""
    from ntpaudit.core import anchor as anchors
    from ntpaudit.net import anchors as services

    if history is not None and (url or language or database):
        raise click.UsageError("--history reads no database: omit --url, --language and --database")
    settings, roots = _settings(config_path)
    if not settings.tsa and not settings.roughtime:
        raise ConfigError("evidence.tsa: no service is named: set tsa and tsa_roots, or roughtime, under [evidence]")
    with exit_on(StoreError, ReadError, AnchorError, OutputError):
        heads = (
            _fleet_heads(config_path, url, language, database) if history is None else _own_heads(history, config_path)
        )
        new = anchors.new_anchor(heads, f"{format_utc(time.time_ns())[:19]}Z")
        signed, errors = services.sign(new, settings.tsa, roots, settings.roughtime)
        for error in errors:
            note(str(error))
        if not signed.stamps and not signed.roughtime:
            raise AnchorError("no service has signed, and no anchor was written", "retry later")
        checks = list(services.verify(signed, roots, settings.roughtime))
        name = f"{new.made.replace(':', '')}-{new.root.hex()[:12]}.json"
        put(json.dumps(anchors.write(signed)) + "\n", os.path.join(folder, name))
    write_parts([*_lines(checks), f"{os.path.join(folder, name)}\n"])
    does_fit = all(check.problem is None for check in checks)
    severity = Severity.CRITICAL if not does_fit else Severity.WARNING if errors else Severity.OK
    raise click.exceptions.Exit(severity.exit_status)


@click.command(epilog=VERIFY_EPILOG, short_help="Verify the proofs and signatures of an anchor.")
@click.argument("path", metavar="FILE", type=click.Path())
@history_option
@config_option
def verify_anchor(path: str, history: str | None, config_path: str | None) -> None:
    """Check an anchor, or an excerpt of one, and compare it with a history."""
    from ntpaudit.net import anchors as services

    settings, roots = _settings(config_path)
    with exit_on(AnchorError, StoreError):
        found = _read(path)
        checks = list(services.verify(found, roots, settings.roughtime))
        checks += [] if history is None else [_compare(found, history, config_path)]
    write_parts(_lines(checks))
    does_fit = all(check.problem is None for check in checks)
    raise click.exceptions.Exit((Severity.OK if does_fit else Severity.CRITICAL).exit_status)


@click.command(short_help="Write the part of an anchor that proves some hosts' heads.")
@click.argument("path", metavar="FILE", type=click.Path())
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option("--output", type=click.Path(), help="Write to this file.  [default: standard output]")
def excerpt(path: str, hosts: tuple[str, ...], output: str | None) -> None:
    """Write an anchor with the heads of some hosts alone, and a proof of each.

    It can be verified without the heads of the others.
    """
    from ntpaudit.core import anchor as anchors

    with exit_on(AnchorError, OutputError):
        found = anchors.excerpt(_read(path), hosts)
        if missing := {*hosts} - {head.host for head in found.heads}:
            raise AnchorError(
                f"{path}: no head of {', '.join(sorted(missing))}", "write the names as the points have them"
            )
        put(json.dumps(anchors.write(found)) + "\n", output)


def verify_folder(folder: str, history: str | None, config_path: str | None) -> "tuple[CheckResult, str]":
    """Verify all anchors of a folder, as a result for a report; with a history those of its host, and its chain too.

    Without a history no chain is compared, so sound anchors prove nothing about the hosts of the report.
    """
    from ntpaudit.net import anchors as services

    settings, roots = _settings(config_path)
    name = None if history is None else _host_of(history)
    covered, problems = list[tuple[int, float]](), list[str]()
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.json"))):
        try:
            found = _read(path)
        except AnchorError as error:
            problems.append(str(error))
            continue
        if name is not None and name not in {head.host for head in found.heads}:
            continue
        checks = list(services.verify(found, roots, settings.roughtime))
        checks += [] if history is None else [_compare(found, history, config_path)]
        wrong = [f"{os.path.basename(path)}: {check.subject}: {check.problem}" for check in checks if check.problem]
        problems += wrong[:1]
        if not wrong:
            last = max((head.sequence for head in found.heads if head.host == name), default=0)
            covered.append((last, min(check.attested.before_s for check in checks if check.attested)))
    if problems:
        return "failed", one_line(f"{plural(len(problems), 'file')} of {folder} failed, the first: {problems[0]}")
    if not covered:
        return "not-done", f"no anchor in {folder}" + (f" has a head of {name}" if name else "")
    sound = f"{plural(len(covered), 'anchor')} of {folder}"
    if name is None:
        how = "`ntpaudit evidence verify-anchor FILE --history` on each host"
        return "not-done", f"{sound} fit their signatures; the chains of hosts are compared by {how}"
    last, before_s = max(covered, key=lambda one: (one[0], -one[1]))
    return (
        "passed",
        f"{sound}: entries 1 to {last} of the chain existed before {_second(before_s)}; later ones are not covered",
    )


def _settings(config_path: str | None) -> "tuple[EvidenceConfig, Sequence[Certificate]]":
    """Return who is trusted. ConfigError if the certificates cannot be read."""
    from ntpaudit.cli.state import read_config
    from ntpaudit.net.timestamps import read_roots

    settings = read_config(config_path).evidence
    path = settings.tsa_roots
    if path is None:
        if settings.tsa:
            raise ConfigError("evidence.tsa_roots: missing: name the file with the authorities' root certificates")
        return settings, ()
    try:
        with open(path, "rb") as file:
            return settings, read_roots(file.read(), path)
    except OSError as error:
        raise ConfigError(f"evidence.tsa_roots: {path}: {error.strerror or error}") from error
    except AnchorError as error:
        raise ConfigError(f"evidence.tsa_roots: {error}") from error


def _own_heads(history: str, config_path: str | None) -> "list[Head]":
    from ntpaudit.core.anchor import Head, head_digits
    from ntpaudit.store import verification

    path = _history_path(history, config_path)
    host, newest = verification.newest_host(path), verification.newest_head(path)
    if host is None or not newest.sequence:
        raise StoreError(f"{path} has no record yet: run the agent first")
    return [Head(_label(host), host[1], newest.sequence, head_digits(newest.head, newest.number))]


def _fleet_heads(
    config_path: str | None, url: str | None, language: Language | None, database: str | None
) -> "list[Head]":
    from ntpaudit.cli import fleet_reading
    from ntpaudit.core.anchor import Head, head_digits
    from ntpaudit.fleet.heads import newest_heads

    reader, described = fleet_reading.open_named(config_path, url, language, database)
    with closing(reader), fleet_reading.progress(f"reading the heads of {described}"):
        now_ns = reader.now_ns()
        found = newest_heads(reader, now_ns - LOOK_BACK_NS, now_ns)
        without = sorted(reader.names(None) - {host for host, _ in found})
    if not found:
        raise ReadError(
            f"{described}: no point of the last 24 h has a head", "let agents of this version deliver there"
        )
    if without:
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        note(f"not anchored, no head in the last 24 h: {', '.join(without[:_NAMED])}{more}")
    return [Head(host, None, one.sequence, head_digits(one.head, one.number)) for host, one in found]


def _compare(found: "Anchor", history: str, config_path: str | None) -> "Check":
    """Compare the anchored heads of a history's host with its chain."""
    from ntpaudit.core.anchor import Check
    from ntpaudit.store import verification

    path = _history_path(history, config_path)
    name = _host_of(path)
    anchored = [head.delivered for head in found.heads if head.host == name]
    checked = verification.compare(path, [anchored], "anchored")
    if checked is None:
        raise StoreError(f"the anchor has no head of {name}, the host of {path}")
    return Check(
        f"chain of {name}: {checked.text}" if checked.fits else f"chain of {name}",
        None if checked.fits else checked.text,
    )


def _history_path(history: str, config_path: str | None) -> str:
    from ntpaudit.cli.state import history_path

    return history or history_path(config_path, by_agent=True)


def _host_of(path: str) -> str | None:
    """Return the host of a history, as the points have it."""
    from ntpaudit.store.verification import newest_host

    host = newest_host(path)
    return None if host is None else _label(host)


def _label(host: tuple[str, str | None]) -> str:
    return host_label(one_line(host[0]), host[1])


def _read(path: str) -> "Anchor":
    from ntpaudit.core import anchor as anchors

    fix = "name a file that `ntpaudit evidence anchor` wrote"
    try:
        with open(path, "rb") as file:
            found = anchors.read(json.load(file))
    except OSError as error:
        raise AnchorError(f"{path}: {error.strerror or error}", fix) from error
    except (ValueError, RecursionError) as error:
        raise AnchorError(f"{path}: this is not JSON", fix) from error
    if isinstance(found, anchors.InvalidAnchor):
        raise AnchorError(f"{path}: {one_line(found.reason)}", fix)
    return found


def _lines(checks: "Sequence[Check]") -> Iterator[str]:
    for check in checks:
        signed = check.attested
        proof = f": the root existed before {_second(signed.before_s)}, signed by {signed.authority}" if signed else ""
        text = f"{check.subject}: {check.problem}" if check.problem else f"{check.subject}{proof}"
        yield f"{'FAIL' if check.problem else 'ok':<5} {one_line(text)}\n"
    earliest = min((check.attested.before_s for check in checks if check.attested), default=None)
    if earliest is not None and all(check.problem is None for check in checks):
        yield f"The anchored heads existed before {_second(earliest)}.\n"


def _second(time_s: float) -> str:
    """Write a time, rounded up to a second."""
    return f"{format_utc(-int(-time_s // 1) * NS_PER_S)[:19]}Z"
