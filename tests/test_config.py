"""The configuration: what a file may say, and `ntpaudit config init|check|show` as a user runs them."""

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.config.fleet_database import FleetDatabase, fleet_database
from ntpaudit.config.load import load_config, locate, parse_config, read_config, with_environment
from ntpaudit.config.schema import (
    KEYS,
    REPEATED_KEYS,
    TABLES,
    Config,
    FleetConfig,
    HistoryConfig,
    InfluxConfig,
    Key,
    OutputsConfig,
    ScheduleConfig,
)
from ntpaudit.config.secrets import Token, find_token
from ntpaudit.config.text import show_json, show_toml, tables_of, write_file
from ntpaudit.config.values import LANGUAGES, parse_url, write_duration
from ntpaudit.config.warnings import config_warnings
from ntpaudit.core.checks.host import RULES
from ntpaudit.core.ingest import PIPELINES
from ntpaudit.core.ntp.sources import CONTINENTS, Server, parse_source, pool, region
from ntpaudit.core.policy import PROFILES
from ntpaudit.core.site_policy import ROLES
from ntpaudit.core.units import parse_duration, parse_utc
from ntpaudit.errors import ConfigError
from tests.command import Ran, ntpaudit
from tests.world.packages import REPOSITORY

DOCUMENTED = (REPOSITORY / "docs" / "configuration.md").read_text()
SECRET = "a-token-that-stays-secret"
ROUGHTIME_KEY = "2O3mkkheDExCuhG+ZNIoWmO/IdCdLzADgUn8SnC4hME="
SERVERS = ("ntp1.example.net", "ntp2.example.net", "192.0.2.1:1123", "[2001:db8::1]:123")


def run(*words: str, state: Path, **environment: str) -> Ran:
    """Run `ntpaudit config` with a folder of configurations of the test's own."""
    return ntpaudit("config", *words, state=state, environment={"XDG_CONFIG_HOME": str(state / "etc")} | environment)


def write(path: Path, text: str) -> str:
    """Write a configuration, and return its path."""
    path.write_text(text)
    return str(path)


def spans(least_s: float) -> st.SearchStrategy[str]:
    """Draw spans as an operator writes them."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    fewest = {unit: max(1, ceil(least_s / length_s)) for unit, length_s in units.items()}
    possible = st.sampled_from(sorted(unit for unit, count in fewest.items() if count <= 5000))
    return possible.flatmap(lambda unit: st.integers(fewest[unit], 5000).map(lambda count: f"{count}{unit}"))


_PRINTABLE = st.characters(exclude_categories=("C", "Z"), include_characters=" ")  # as `str.isprintable`
LABELS = st.text(_PRINTABLE, min_size=1, max_size=20).map(lambda text: text if text.strip() else "a b")
PATHS = LABELS.map(lambda text: f"/{text}")
URLS = st.sampled_from(["http://127.0.0.1:8086", "https://influx.example.net/base", "http://[::1]:8086"])
OWN: Mapping[str, st.SearchStrategy[Any]] = {
    "host.max_drift_ppm": st.sampled_from([1, 50, 80.5, 500.0]),
    "sources.servers": st.lists(st.sampled_from([*SERVERS, "pool.ntp.org", "bücher.example"]), max_size=5),
    "sources.pool": st.sampled_from(["nl.pool.ntp.org", "ntp.example.net", "1.europe.pool.ntp.org"]),
    "sources.region": st.sampled_from([*CONTINENTS, "nl", "us"]),
    "sources.approved": st.lists(
        st.sampled_from(["*.example.net", "bücher.example", "GPS", "SHM(0)", "192.0.2.0/24", "2001:db8::1", "[::1]"]),
        min_size=1,
    ),
    "sources.role": st.sampled_from(ROLES),
    "ingest.pipelines": st.lists(st.sampled_from([*PIPELINES]), min_size=1, unique=True),
    "schedule.network": spans(15),
    "policy.profile": st.sampled_from(sorted(PROFILES)),
    "policy.critical": st.sampled_from(["64s", "1.25ms", "7us"]),
    "history.max_size": st.sampled_from(["1GiB", "512MiB", "3000kB", "1048577B"]),
    "syslog.address": st.sampled_from(["/dev/log", "syslog.example.net:514"]),
    "fleet.language": st.sampled_from(LANGUAGES),
    "evidence.tsa": st.lists(st.sampled_from(["http://tsa.example.net/tsr/", "https://[2001:db8::1]:8443/?a=b"])),
    "evidence.roughtime": st.lists(
        st.sampled_from([f"roughtime.example.net:5319 {ROUGHTIME_KEY}", f"[2001:db8::1]:2002 {ROUGHTIME_KEY}"])
    ),
    "fleet.ambiguity": st.sampled_from(["1s", "100us", "90m"]),
}
"""The values of keys that are of no common kind."""


def values_of(key: Key) -> st.SearchStrategy[Any]:
    """Draw values of a key by its example, and durations by the shortest that it takes."""
    if key.measure == "duration":
        return spans(key.least_s)
    kinds = {bool: st.booleans(), str: URLS if key.name == "url" else LABELS}
    is_path = isinstance(key.example, str) and key.example.startswith("/")
    return PATHS if is_path else kinds[type(key.example)]


CHOICES: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
    table: {
        name: OWN[f"{table}.{name}"] if f"{table}.{name}" in OWN else values_of(key)
        for name, key in keys.items()
        if (table, name) != ("policy", "warning")  # it must not exceed the critical tolerance
    }
    for table, keys in KEYS.items()
}
"""What a key may have, from the schema: a new key is drawn without a line here."""


REQUIRED = {
    table: {key.name for key in keys.values() if key.field not in TABLES[table]._field_defaults}
    for table, keys in KEYS.items()
}
"""The keys without which a table is refused."""


@st.composite
def choices(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Draw the tables of a configuration: any keys of any tables, each with a value that it may have."""
    chosen: dict[str, dict[str, Any]] = {}
    for table in draw(st.sets(st.sampled_from(sorted(CHOICES)))):
        keys = draw(st.sets(st.sampled_from(sorted(CHOICES[table]))))
        if keys:
            keys |= REQUIRED[table]
        chosen[table] = {key: draw(CHOICES[table][key]) for key in sorted(keys)}
    return chosen


@given(choices())
def test_a_file_that_is_written_says_what_was_chosen_and_nothing_else(chosen: dict[str, dict[str, Any]]) -> None:
    """`config init`: the file's tables are the choices themselves, so it loads as they do."""
    text = write_file(chosen)
    written = {table: keys for table, keys in tomllib.loads(text).items() if keys}
    assert written == {table: keys for table, keys in chosen.items() if keys}
    assert parse_config(text.encode(), "x") == read_config(chosen)


@given(choices())
def test_every_key_is_in_the_file_once_with_a_line_about_it(chosen: dict[str, dict[str, Any]]) -> None:
    """Chosen or not, a key stands below a comment that explains it, and uncommenting what is not chosen loads too."""
    lines = write_file(chosen, "why these\nsources").split("\n")
    for table, keys in KEYS.items():
        block = lines[lines.index(f"[{table}]") :]
        for key in keys:
            [place] = [
                number for number, line in enumerate(block[: block.index("")]) if re.match(rf"(# )?{key} = ", line)
            ]
            assert re.match(r"# \w.{10,}", block[place - 1])
    assert "# why these\n# sources\n# NTP servers" in "\n".join(lines)
    every = "\n".join(re.sub(r"^# (\w+ = |\[\[)", r"\1", line) for line in lines)
    uncommented = tomllib.loads(every)
    assert {table: list(keys) for table, keys in uncommented.items() if table in KEYS} == {
        table: list(KEYS[table]) for table in KEYS
    }
    assert {table: list(entry) for table in REPEATED_KEYS for entry in uncommented[table]} == {
        table: list(keys) for table, keys in REPEATED_KEYS.items()
    }
    assert read_config(uncommented)


@given(choices())
def test_what_is_shown_is_what_is_in_force(chosen: dict[str, dict[str, Any]]) -> None:
    """`config show` prints a file that loads as the one shown, and JSON of the same values."""
    config = read_config(chosen)
    text = show_toml(config, {}, chosen)
    loaded = parse_config(text.encode(), "x")
    if config.influxdb is not None and loaded.influxdb is not None:  # the printed file sets the defaults too
        config = config._replace(influxdb=config.influxdb._replace(written=loaded.influxdb.written))
    assert loaded == config
    shown = {
        table: {key: value for key, value in (keys or {}).items() if value not in (None, []) and key != "token"}
        for table, keys in json.loads(show_json(config, {})).items()
        if table in KEYS
    }
    written = tomllib.loads(text)
    assert shown == {table: written.get(table, {}) for table in KEYS}


MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2261, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.isoformat()
)
ACCEPTANCES = st.lists(
    st.fixed_dictionaries(
        {"finding": st.sampled_from([rule.id for rule in RULES if rule.acceptable == "anywhere"]),
         "reason": LABELS, "by": LABELS},
        optional={"until": st.dates(date(1970, 1, 1), date(2262, 1, 1)) | MOMENTS},
    ),
    unique_by=lambda one: one["finding"],
)  # fmt: skip


@given(ACCEPTANCES)
def test_acceptances_that_are_shown_load_as_they_are(chosen: list[dict[str, Any]]) -> None:
    """`config show` of any number of acceptances, as a file and as JSON; each value is of the file."""
    config = read_config({"accept": chosen})
    text = show_toml(config, {}, {})
    assert parse_config(text.encode(), "x").accept == config.accept
    shown = json.loads(show_json(config, {}))["accept"]
    assert [{key: value for key, value in one.items() if value is not None} for one in shown] == tomllib.loads(
        text
    ).get("accept", [])
    assert [one["finding"] for one in shown] == [one["finding"] for one in chosen]
    assert sum(warning.startswith("accept: ") for warning in config_warnings(config)) == sum(
        "until" not in one for one in chosen
    )


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("2027-01-31", "2027-01-31T00:00:00.000000000Z"),
        (date(2027, 1, 31), "2027-01-31T00:00:00.000000000Z"),
        ("2027-01-31T12:00Z", "2027-01-31T12:00:00.000000000Z"),
        ("2027-01-31T12:00", "2027-01-31T12:00:00.000000000Z"),
        (datetime(2027, 1, 31, 12), "2027-01-31T12:00:00.000000000Z"),
        ("2027-01-31T12:00:01.5+01:00", "2027-01-31T11:00:01.500000000Z"),
        ("9999-12-31", None),
        ("0001-01-01T00:00+14:00", None),
        ("2027-02-30", None),
        ("soon", None),
        ("", None),
        (2027, None),
        (time(12), None),
        ([], None),
    ],
)
def test_the_end_of_an_acceptance_is_a_day_or_a_time_in_utc(written: Any, wanted: str | None) -> None:
    """A day is its begin, a time without a zone is UTC; all else is refused with an example or the limits."""
    tables = {"accept": [{"finding": "unsynced", "reason": "x", "by": "y", "until": written}]}
    if wanted is None:
        with pytest.raises(ConfigError, match=r"^accept\[1\]\.until: .*write a (day or a )?time"):
            read_config(tables)
    else:
        assert read_config(tables).accept[0].until == parse_utc(wanted)


_FIRST = '[[accept]]\nfinding = "daemon-count"\nby = "ops"\nreason = "a container"\n[[accept]]\n'
_SECOND = f'{_FIRST}by = "y"\nreason = "x"\n'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[accept]\nby = "ops"', "x:1: accept: write each as a table, [[accept]]"),
        ('accept = "unsynced"', "x:1: accept: write each as a table, [[accept]]"),
        ("accept = [3]", "x:1: accept: write each as a table, [[accept]]"),
        (
            f'{_FIRST}reason = "x"\nby = "y"',
            'x:5: accept[2].finding: missing; [[accept]] needs it, such as finding = "unsynced"',
        ),
        (
            f'{_FIRST}finding = "unsynced"\nby = "y"',
            "x:5: accept[2].reason: missing; [[accept]] needs it, such as reason = \"container: the host's chronyd "
            'corrects the clock"',
        ),
        (f'{_FIRST}\nuntill = "x"', "x:7: accept[2].untill: unknown, did you mean 'until'?; known here: finding, "
                                     "reason, by, until"),
        (f'{_SECOND}finding = "unsinced"', "x:8: accept[2].finding: 'unsinced': unknown, did you mean 'unsynced'?"),
        (f'{_SECOND}finding = "offset-out"', "x:8: accept[2].finding: offset-out cannot be accepted on the host, "
                                             "because it states that the clock is wrong or that nothing proves"),
        (f'{_SECOND}finding = "evidence-gap"', "x:8: accept[2].finding: evidence-gap cannot be accepted on the host"),
        (f'{_SECOND}finding = "slow-walk"', "x:8: accept[2].finding: 'slow-walk': unknown"),
        (f'{_SECOND}finding = "acceptance-expired"', "x:8: accept[2].finding: acceptance-expired cannot be accepted: "
                                                    "set a new end (`until`) or remove the acceptance"),
        (f'{_SECOND}finding = "daemon-count"', "x:8: accept[2].finding: accept[1] accepts "
                                                                     "daemon-count too: keep one of them"),
        (f'{_FIRST}finding = "unsynced"\nby = " "\nreason = "x"', "x:7: accept[2].by: write a name of printable"),
        (f'{_FIRST}finding = "unsynced"\nby = 3\nreason = "x"', "x:7: accept[2].by: write a string in quotes, not 3"),
        (f'{_FIRST}finding = "unsynced"\nby = "x"\nreason = ""', "x:8: accept[2].reason: write a text of one line"),
        (f'{_FIRST}finding = "unsynced"\nreason = "a\\nb"\nby = "y"', "x:7: accept[2].reason: write a text of"),
        (f'{_FIRST}reason = "{"x" * 1001}"\nfinding = "unsynced"\nby = "y"', "x:6: accept[2].reason: the text has"),
    ],
)  # fmt: skip
def test_an_acceptance_that_is_refused_is_named_by_number_and_line(text: str, error: str) -> None:
    """What may not be accepted is refused with the reason, and what to do instead."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), "x")
    assert str(caught.value).startswith(error)


@given(st.floats(1e-9, 1e9) | st.integers(1, 10**15).map(lambda ns: ns / 1e9))
def test_a_span_is_written_so_that_it_is_read_back_exactly(seconds: float) -> None:
    """No tolerance changes by being shown."""
    assert parse_duration(write_duration(seconds)) == seconds


def test_defaults() -> None:
    """An empty file means what the documentation says."""
    config = parse_config(b"", "x")
    assert config == Config()
    assert config.schedule == ScheduleConfig(network_s=300.0, pool_s=3600.0, local_s=60.0)
    assert config.history == HistoryConfig(None, 90 * 86_400.0, 400 * 86_400.0, 7 * 365.25 * 86_400, 1 << 30)
    assert config.profile == PROFILES["log-integrity"]
    assert (config.influxdb, config.outputs) == (None, OutputsConfig())


def test_the_documented_example_is_a_configuration() -> None:
    """The example of docs/configuration.md loads, and has every key there is, each with the value it shows."""
    example = re.search(r"```toml\n(.*?)```", DOCUMENTED, re.DOTALL)
    assert example
    tables = tomllib.loads(example[1])
    assert {table: set(keys) for table, keys in tables.items() if table in KEYS} == {
        table: set(keys) for table, keys in KEYS.items()
    }
    assert {table: set(entry) for table in REPEATED_KEYS for entry in tables[table]} == {
        table: set(keys) for table, keys in REPEATED_KEYS.items()
    }
    config = parse_config(example[1].encode(), "docs/configuration.md")
    assert config.sources.servers == tuple(
        map(parse_source, ("ntp1.example.net", "192.0.2.1:1123", "[2001:db8::1]:123"))
    )
    assert config.sources.pools == (pool("nl.pool.ntp.org"), region("nl"))
    database = ("http://127.0.0.1:8086", "soc", "ntpaudit", "/etc/ntpaudit/token", "/etc/ssl/site-ca.pem", 10.0)
    assert config.influxdb == InfluxConfig(*database, written=frozenset(KEYS["influxdb"]))


def test_the_documentation_names_every_default() -> None:
    """Each key has a row in docs/configuration.md, whose default is the program's."""
    defaults = tables_of(Config(influxdb=InfluxConfig("")))
    for table, keys in KEYS.items():
        for key in keys:
            row = re.search(rf"^\| `{table}\.{key}` \| ([^|]*) \|", DOCUMENTED, re.MULTILINE)
            assert row, f"{table}.{key}"
            value = defaults[table][key]
            if isinstance(value, str) and value and (table, key) not in (("policy", "warning"), ("policy", "critical")):
                assert f"`{value}`" in row[1], f"{table}.{key}: {row[1]}"


REFUSED = {
    "[schedule]\nnetwork = '900ms'": "schedule.network: '900ms' is too short",
    "[sources]\nservers = ['a']\n[schedule]\nnetwork = '14s'": "schedule.network: too short: at least 15 s",
    "[schedule]\npool = '29m'": "schedule.pool: '29m' is too short (the pool's terms of service): write 30 min to",
    "[host]\nmax_drift_ppm = 0.5": "host.max_drift_ppm: write a number of ppm from 1 to 500, such as 100",
    "[host]\nmax_drift_ppm = 501": "host.max_drift_ppm: write a number of ppm",
    "[host]\nmax_drift_ppm = nan": "host.max_drift_ppm: write a number of ppm",
    "[host]\nmax_drift_ppm = true": "host.max_drift_ppm: write a number of ppm",
    "[host]\nmax_drift_ppm = '80'": "host.max_drift_ppm: write a number of ppm",
    "[sources]\napproved = []": "sources.approved: write a list of patterns",
    "[sources]\napproved = '*.example.net'": "sources.approved: write a list of patterns",
    "[sources]\napproved = ['192.0.2.1/24']": "sources.approved: '192.0.2.1/24' is no network: write 192.0.2.0/24",
    "[sources]\nrole = 'server'": "sources.role: 'server': write internal or designated",
    "[sources]\nrequire_authentication = 'yes'": "sources.require_authentication: write true or false",
    "[ingest]\npipelines = 'loki'": "ingest.pipelines: write a list of names",
    "[ingest]\npipelines = ['lokki']": "ingest.pipelines: 'lokki': unknown, did you mean 'loki'?; known: loki, ",
    "[ingest]\nlag = 30": 'ingest.lag: write a duration with its unit, in quotes, such as "30s"',
    "[schedule]\nlocal = '0s'": "schedule.local: '0s' is too short",
    "[schedule]\nlocal = 60": 'schedule.local: write a duration with its unit, in quotes, such as "1m"',
    "[schedule]\nnetwork = 5": 'schedule.network: write a duration with its unit, in quotes, such as "5m"',
    "[schedule]\nnetwork = '5'": "schedule.network: '5' needs a unit, for example 5s, 5m or 5h",
    "[history]\nmax_size = 1": 'history.max_size: write a size with its unit, in quotes, such as "1GiB"',
    "[history]\npath = 5": "history.path: write a string in quotes, not 5",
    "[history]\npath = 'history'": "history.path: 'history' is not an absolute path: begin it with /",
    "[history]\nraw = '1m'": "history.raw: '1m' is too short",
    "[history]\nmax_size = '1'": "history.max_size: '1' is not a size",
    "[influxdb]\nbucket = 'b'": "influxdb.url: missing; [influxdb] needs it, such as url = ",
    "[influxdb]\nurl = 'ftp://x'": "influxdb.url: write a URL",
    "[influxdb]\nurl = 'http://user:secret@x'": "influxdb.url: put the secret in token_file",
    "[influxdb]\nurl = 'http://x/?db=y'": "influxdb.url: write the URL without a query",
    "[influxdb]\nurl = 'http://x?'": "influxdb.url: write the URL without a query",
    "[influxdb]\nurl = 'http://x/y#'": "influxdb.url: write the URL without a query",
    "[influxdb]\nurl = 'http://x'\ntoken = 'y'": "influxdb.token: unknown, did you mean 'token_file'?",
    "[influxdb]\nurl = 'http://x'\ntoken_file = 'token'": "influxdb.token_file: ",
    "[syslog]\naddress = 'a b'": "syslog.address: ",
    "[journal]\nenabled = 1": "journal.enabled: write true or false",
    "[fleet]\nlanguage = 'sql'": "fleet.language: 'sql': write influxql or promql",
    "[fleet]\nambiguity = '0s'": "fleet.ambiguity: '0s': write a duration above 0",
    "[fleet]\nambiguity = '0'": "fleet.ambiguity: '0': write a duration above 0",
    "[schedule]\nlocal = '0'": "schedule.local: '0' is too short: write 1 s to",
    "[fleet]\nsilent_after = '10ms'": "fleet.silent_after: '10ms' is too short",
    "[fleet]\ninventory = 'hosts'": "fleet.inventory: 'hosts' is not an absolute path: begin it with /",
    "[evidence]\ntsa = 'http://x'": 'evidence.tsa: write a list of URLs, ["http://tsa.example.net/tsr"]',
    "[evidence]\ntsa = ['tsa.example.net']": "evidence.tsa: 'tsa.example.net': write the URL of a time-stamp authority",
    "[evidence]\ntsa = ['http://x:y']": "evidence.tsa: 'http://x:y' is not a URL: ",
    "[evidence]\ntsa = ['http://user:secret@x']": "evidence.tsa: write the URL without user and password",
    "[evidence]\nroughtime = 'x:5319'": "evidence.roughtime: write a list of servers with their keys",
    f"[evidence]\nroughtime = ['x {ROUGHTIME_KEY}']": "evidence.roughtime: 'x 2O3m",
    "[evidence]\nroughtime = ['x:5319']": "evidence.roughtime: 'x:5319': write the server's public key",
    "[evidence]\nroughtime = ['x:5319 abc=']": "evidence.roughtime: 'x:5319 abc=': write the server's public key",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refusals_name_line_key_and_what_to_write(text: str) -> None:
    """Each refusal points at the line of its key, the last here, or of its table where the key is missing."""
    line = 1 if "missing" in REFUSED[text] else len(text.splitlines())
    with pytest.raises(ConfigError, match=re.escape(f"x:{line}: {REFUSED[text]}")) as raised:
        parse_config(text.encode(), "x")
    assert "secret@" not in str(raised.value)


MEASURES = [f"{table}.{name}" for table, keys in KEYS.items() for name, key in keys.items() if key.measure]


@pytest.mark.parametrize("key", MEASURES)
def test_a_number_is_refused_with_an_example_that_is_accepted(key: str) -> None:
    """What the refusal proposes is no value that the next refusal corrects."""
    table, name = key.split(".")
    needed = " ".join(f"{other} = '{KEYS[table][other].example}'" for other in REQUIRED[table] - {name})
    header = "" if table == "sources" else f"[{table}]"
    text = f"[sources]\nservers = ['a']\n{header}\n{needed}\n{name} = "
    with pytest.raises(ConfigError, match=f'x:5: {key}: .*, such as "[^"]+"$') as refused:
        parse_config(f"{text}5".encode(), "x")
    parse_config(f"{text}{str(refused.value).rpartition('such as ')[2]}".encode(), "x")


def test_line_of_a_key_whose_name_stands_elsewhere_too() -> None:
    """A key of the same name in another table, in a comment or in quotes does not mislead."""
    text = '[jsonl]\npath = "/a" # path = 2\n["openmetrics"]\n"path" = 3\n'
    with pytest.raises(ConfigError, match=r"^x:4: openmetrics\.path: "):
        parse_config(text.encode(), "x")


def test_environment_fills_in_what_the_file_leaves_out() -> None:
    """INFLUXDB_V2_*: the file outranks them, but for what it does not say."""
    variables = {
        "INFLUXDB_V2_URL": "http://other:8086/",
        "INFLUXDB_V2_ORG": "soc",
        "INFLUXDB_V2_BUCKET": "clocks",
        "INFLUXDB_V2_SSL_CA_CERT": "/ca.pem",
        "INFLUXDB_V2_TIMEOUT": "2500",
    }
    alone = with_environment(Config(), variables)
    assert alone.influxdb == InfluxConfig("http://other:8086", "soc", "clocks", None, "/ca.pem", 2.5)
    assert with_environment(Config(), {}) == Config()


@pytest.mark.parametrize(
    ("variable", "text", "key", "written", "value"),
    [
        ("INFLUXDB_V2_ORG", "soc", "org", "mine", "soc"),
        ("INFLUXDB_V2_BUCKET", "clocks", "bucket", "ntpaudit", "clocks"),
        ("INFLUXDB_V2_SSL_CA_CERT", "/ca.pem", "ca_file", "/mine.pem", "/ca.pem"),
        ("INFLUXDB_V2_TIMEOUT", "2500", "timeout", "10s", "2500ms"),
    ],
)
def test_a_variable_counts_where_the_file_does_not_set_its_key(
    variable: str, text: str, key: str, written: str, value: str
) -> None:
    """Beside `url` in the file each variable counts by itself; a key of the file stays, even with its default."""
    variables = {variable: text, "INFLUXDB_V2_URL": "http://other"}

    def shown(**more: str) -> dict[str, Any]:
        config = read_config({"influxdb": {"url": "http://mine", **more}})
        return tables_of(with_environment(config, variables))["influxdb"]

    assert (shown()["url"], shown()[key]) == ("http://mine", value)
    assert shown(**{key: written})[key] == written
    assert {name for name, found in shown().items() if found != shown(**{key: written})[name]} == {key}


@pytest.mark.parametrize(
    "variables",
    [
        {"INFLUXDB_V2_VERIFY_SSL": "false"},
        {"INFLUXDB_V2_URL": "influx"},
        {"INFLUXDB_V2_URL": "http://x", "INFLUXDB_V2_TIMEOUT": "soon"},
    ],
)
def test_environment_that_makes_no_sense_is_refused(variables: dict[str, str]) -> None:
    """What cannot be read is named; certificates are verified, whatever is asked."""
    with pytest.raises(ConfigError, match=list(variables)[-1]):
        with_environment(Config(), variables)


def test_token_of_the_file_the_credential_or_the_environment(tmp_path: Path) -> None:
    """In that order; a file that only root can read is what systemd hands over as the credential."""
    file, folder = tmp_path / "token", tmp_path / "credentials"
    folder.mkdir()
    file.write_text("of-the-file\n")
    file.chmod(0o600)
    (folder / "influxdb-token").write_text("of-systemd")
    environment = {"CREDENTIALS_DIRECTORY": str(folder), "INFLUXDB_V2_TOKEN": "of-the-environment"}
    plain, named = InfluxConfig("http://x"), InfluxConfig("http://x", token_file=str(file))
    assert find_token(named, environment).text == "of-the-file"
    assert find_token(plain, environment).text == "of-systemd"
    assert find_token(plain, {"INFLUXDB_V2_TOKEN": "of-the-environment"}).text == "of-the-environment"
    assert find_token(plain, {}).text is None
    file.unlink()
    assert find_token(named, environment).text == "of-systemd"


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (SECRET, 0o640, "can be read by others: chmod 600"),
        (SECRET, 0o604, "can be read by others: chmod 600"),
        ("", 0o600, "is empty"),
        (" \n\n", 0o600, "is empty"),
        ("two\nlines", 0o600, "has 2 lines: a token is one line"),
        ("two\r\n\nlines\n", 0o600, "has 3 lines: a token is one line"),
        ("\ufeff" + SECRET, 0o600, "begins with a byte order mark"),
        ("ü", 0o600, "non-ASCII character"),
        ("x" * 5000, 0o600, "has more than 4096 bytes"),
        (None, 0o600, "No such file"),
    ],
)
def test_token_file_that_must_not_be_used(content: str | None, mode: int, said: str, tmp_path: Path) -> None:
    """A token that others can read, or that is none, is refused at its key and line, and never shown."""
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
        token.chmod(mode)
    file = write(
        tmp_path / "x.toml", f"[sources]\nservers = ['a']\n[influxdb]\nurl = 'http://x'\ntoken_file = '{token}'\n"
    )
    ran = run("check", file, state=tmp_path)
    assert ran.status == 78
    assert ran.err.startswith(f"ntpaudit: {file}:5: influxdb.token_file: {token}")
    assert said in ran.err
    assert SECRET not in ran.err


def test_a_token_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO without a writer does not hang, and a folder is no token."""
    for make, said in ((os.mkfifo, "not a regular file"), (os.mkdir, "Is a directory")):
        path = tmp_path / make.__name__
        make(path, 0o600)
        with pytest.raises(ConfigError, match=said):
            find_token(InfluxConfig("http://x", token_file=str(path)), {})


def test_the_default_token_file_follows_the_rules_of_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's configuration finds its token without a key, in a service and by hand; others never get it."""
    file, token = write(tmp_path / "x.toml", "[influxdb]\nurl = 'http://x'\n"), tmp_path / "token"
    other = write(tmp_path / "y.toml", "[influxdb]\nurl = 'http://y'\n")
    monkeypatch.setattr("ntpaudit.config.load.SYSTEM_FILE", str(file))
    monkeypatch.setattr("ntpaudit.config.load.SYSTEM_TOKEN_FILE", str(token))
    influxdb = load_config(str(file)).influxdb
    assert influxdb is not None
    assert find_token(influxdb, {}) == Token(None, "")
    token.write_text("\n")
    assert find_token(influxdb, {}) == Token(None, "")  # blank, as the unit's credential without a token
    token.write_text(SECRET)
    token.chmod(0o600)
    assert find_token(influxdb, {"INFLUXDB_V2_TOKEN": "other"}) == Token(SECRET, str(token))
    assert find_token(load_config(str(other)).influxdb or influxdb, {}) == Token(None, "")
    (tmp_path / "influxdb-token").write_text(SECRET)
    service = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find_token(influxdb, service) == Token(SECRET, "credential influxdb-token")
    token.chmod(0o644)
    for environment in ({}, service):
        with pytest.raises(ConfigError, match="can be read by others: chmod 600") as caught:
            find_token(influxdb, environment)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("token", ["two\nlines", "\ufefftoken", "tö"])
def test_a_token_of_the_environment_is_one_line_too(token: str) -> None:
    """What no file may hold the environment may not hold either."""
    with pytest.raises(ConfigError, match="INFLUXDB_V2_TOKEN"):
        find_token(InfluxConfig("http://x"), {"INFLUXDB_V2_TOKEN": token})


@pytest.mark.parametrize(
    "path",
    [
        "/api/v2/write",
        "/api/v2/write/",
        "/write",
        "/api/v2",
        "/query",
        "/api/v1/query",
        "/api/v1/write",
        "/api/v1/write/",
        "/api/v1/import",
        "/api/v1",
    ],
)
@pytest.mark.parametrize("base", ["http://x:8086", "https://x/prefix", "http://vmselect:8481/select/0/prometheus"])
def test_a_url_with_the_path_of_an_interface_is_refused_with_the_right_one(base: str, path: str) -> None:
    """What a manual shows in full is refused, and the message has the URL to write instead."""
    with pytest.raises(ValueError, match=rf"write the server's URL without .*: {re.escape(base)}$"):
        parse_url(base + path)


def test_a_fleet_is_read_where_it_says_else_where_points_are_delivered(tmp_path: Path) -> None:
    """What `[fleet]` leaves out is that of `[influxdb]` where it is the same place, and of no other."""
    file = tmp_path / "token"
    file.write_text("to-read\n")
    file.chmod(0o600)
    delivers = InfluxConfig("http://in", bucket="clocks", ca_file="/ca.pem")
    environment = {"INFLUXDB_V2_TOKEN": "of-the-environment", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    (tmp_path / "influxdb-token").write_text("to-write")
    same = FleetDatabase("http://in", "influxql", "clocks", "to-write", "/ca.pem", 10.0)
    assert fleet_database(Config(influxdb=delivers), environment) == same
    assert fleet_database(Config(influxdb=delivers), environment, "http://in", "promql") == same._replace(
        language="promql"
    )
    elsewhere = Config(influxdb=delivers, fleet=FleetConfig("http://out", "promql", timeout_s=2.0))
    assert fleet_database(elsewhere, environment) == FleetDatabase("http://out", "promql", "ntpaudit", None, None, 2.0)
    assert fleet_database(elsewhere, {}, database="named").database == "named"
    own = elsewhere._replace(fleet=FleetConfig("http://out", database="x", token_file=str(file), ca_file="/own.pem"))
    assert fleet_database(own, environment) == FleetDatabase("http://out", "influxql", "x", "to-read", "/own.pem", 10.0)
    assert fleet_database(own, environment, "http://other").ca_file is None
    assert fleet_database(own, environment, "http://other").token is None
    assert fleet_database(own._replace(fleet=own.fleet._replace(url=None)), environment).token == "to-read"
    assert fleet_database(own._replace(fleet=own.fleet._replace(env="prod")), environment).env == "prod"
    assert fleet_database(own._replace(fleet=own.fleet._replace(env="prod")), environment, env="test").env == "test"
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"fleet\.token_file: .* can be read by others"):
        fleet_database(own, {})
    assert fleet_database(own, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).token == "to-read"


def test_the_environments_token_belongs_to_one_url() -> None:
    """To INFLUXDB_V2_URL, else to what the file names, else to the URL that is named; to no other."""
    environment = {"INFLUXDB_V2_TOKEN": "of-the-environment"}

    def token(config: Config, url: str | None = None, **more: str) -> str | None:
        return fleet_database(config, environment | more, url).token

    delivers, reads = Config(influxdb=InfluxConfig("http://in")), Config(fleet=FleetConfig("http://out"))
    assert token(delivers) == token(reads) == token(Config(), "http://typed") == "of-the-environment"
    assert token(delivers, "http://typed") is None
    assert token(reads, "http://typed") is None
    assert token(Config(), "http://typed", INFLUXDB_V2_URL="http://own/") is None
    assert token(Config(), "http://own", INFLUXDB_V2_URL="http://own/") == "of-the-environment"
    assert token(delivers, INFLUXDB_V2_URL="http://own") is None


def test_a_fleet_without_a_database_is_refused_with_what_to_do() -> None:
    """The message names the keys, the option and the demonstration."""
    with pytest.raises(ConfigError, match=r"fleet\.url: .*\[influxdb\].*--url.*`ntpaudit demo`"):
        fleet_database(Config(), {})


def test_check_says_what_an_agent_would_do(tmp_path: Path) -> None:
    """`config check` sums a sound configuration up in a line, and warns where too few servers are named."""
    token = tmp_path / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    file = write(
        tmp_path / "x.toml",
        "[sources]\nservers = ['a', 'b', 'nl.pool.ntp.org']\nfrom_host = true\n[policy]\nprofile = 'finra-cat'\n"
        f"[influxdb]\nurl = 'http://127.0.0.1:8086'\ntoken_file = '{token}'\n",
    )
    ran = run("check", file, state=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (
        f"ok: {file}: polls 2 servers and the time daemon's servers every 5 min, nl.pool.ntp.org every 60 min, profile "
        "finra-cat (warning 25 ms, critical 50 ms), delivers to http://127.0.0.1:8086, bucket ntpaudit, token set "
        f"(from {token}), journal if systemd runs the agent; servers and outputs were not contacted\n"
    )
    assert run("check", "--config", file, state=tmp_path).out == ran.out
    assert run("show", "--config", file, state=tmp_path).out == run("show", file, state=tmp_path).out
    assert run("show", "--config", file, file, state=tmp_path).status == 64
    few = run("check", write(tmp_path / "y.toml", "[sources]\nservers = ['a', 'b', 'c']\n"), state=tmp_path)
    assert few.status == 0
    assert "only 3 servers" in few.err


def test_check_and_init_warn_of_an_address_that_may_hold_a_port(tmp_path: Path) -> None:
    """The address is asked as it is written; what else it may mean is said."""
    servers = ("2001:db8::1:123", "b", "c", "d")
    ran = run("init", *servers, "--output", str(tmp_path / "x.toml"), state=tmp_path)
    assert (ran.status, ran.err.count("write [2001:db8::1]:123")) == (0, 1)
    ran = run("check", str(tmp_path / "x.toml"), state=tmp_path)
    assert (ran.status, ran.err.count("write [2001:db8::1]:123")) == (0, 1)


def test_check_names_every_output_and_says_that_none_was_tried(tmp_path: Path) -> None:
    """Also where one cannot be written to: only an agent tries them."""
    sources = "[sources]\nservers = ['a', 'b', 'c', 'd']\n"
    outputs = "[openmetrics]\npath = '/nowhere/a'\n[jsonl]\npath = '/nowhere/b'\n[syslog]\naddress = '/nowhere/c'\n"
    said = {
        outputs: "no database, openmetrics /nowhere/a, jsonl /nowhere/b, syslog /nowhere/c, journal if "
        "systemd runs the agent; servers and outputs were not contacted\n",
        "[journal]\nenabled = true\n": "no database, journal; servers and outputs were not contacted\n",
        "[journal]\nenabled = false\n": "no database; servers were not contacted\n",
    }
    for text, words in said.items():
        ran = run("check", write(tmp_path / "x.toml", sources + text), state=tmp_path)
        notes = [
            f"ntpaudit: {name}.path: the folder /nowhere does not exist: create it\n"
            for name in ("openmetrics", "jsonl")
        ]
        assert (ran.status, ran.err) == (0, "".join(notes) if text == outputs else "")
        assert ran.out.endswith(f"(warning 100 ms, critical 1 s), {words}")


_FOUR = "servers = ['a', 'b', 'c', 'd']"
WARNED = {
    "servers = ['a', 'b', 'c', 'a']": "servers named twice: a",
    f"{_FOUR}\n[history]\nraw = '60d'\nrollups = '30d'": "history.rollups is shorter",
    f"{_FOUR}\n[schedule]\nlocal = '1h'": "schedule.local is longer than schedule.network",
    f"{_FOUR}\n[fleet]\ninventory = '/nowhere/list'": "/nowhere/list does not exist",
    f"{_FOUR}\n[evidence]\ntsa = ['http://x']": "without root certificates no time stamp is valid",
    f"{_FOUR}\n[evidence]\ntsa_roots = '/nowhere/roots'": "/nowhere/roots does not exist",
    f"{_FOUR}\n[ingest]\npipelines = ['loki', 'sentinel']": "sentinel is not judged without",
    f"{_FOUR}\n[ingest]\nrule_interval = '5m'": "are used together only: set both",
    f"{_FOUR}\n[ingest]\nrule_interval = '5m'\nrule_lookback = '4m'": "rules never search some events",
}


@pytest.mark.parametrize("text", WARNED)
def test_check_warns_of_what_is_valid_and_hardly_intended(text: str, tmp_path: Path) -> None:
    """A warning does not change the exit status."""
    ran = run("check", write(tmp_path / "x.toml", f"[sources]\n{text}\n"), state=tmp_path)
    assert ran.status == 0
    assert WARNED[text] in ran.err


def test_an_interval_that_is_too_short_names_the_servers() -> None:
    """`localhost` is a name, and may be any address."""
    text = b"[sources]\nservers = ['127.0.0.1', 'localhost:3']\n[schedule]\nnetwork = '2s'"
    with pytest.raises(ConfigError, match="not a loopback address: localhost"):
        parse_config(text, "x.toml")


@pytest.mark.needs("no-system-config")
def test_check_refuses_what_an_agent_could_not_run_with(tmp_path: Path) -> None:
    """No file at all, no servers, invalid certificates: each error states the fix, and ends with 78."""
    nowhere = run("check", state=tmp_path)
    assert nowhere.status == 78
    assert "ntpaudit config init" in nowhere.err
    unnamed = run("check", write(tmp_path / "unnamed.toml", "[host]\nname = 'x'\n"), state=tmp_path)
    assert unnamed.status == 78
    assert "names no servers" in unnamed.err
    text = "[sources]\nservers = ['a']\n[influxdb]\nurl = 'https://x'\nca_file = '{}'\n"
    missing = write(tmp_path / "missing.toml", text.format(tmp_path / "none.pem"))
    assert (
        f"{missing}:5: influxdb.ca_file: {tmp_path}/none.pem: No such file" in run("check", missing, state=tmp_path).err
    )
    empty = write(tmp_path / "empty.toml", text.format("/dev/null"))
    ran = run("check", empty, state=tmp_path)
    assert ran.status == 78
    assert f"{empty}:5: influxdb.ca_file: /dev/null has no certificates" in ran.err


def test_an_error_that_names_its_place_already_is_left_alone(tmp_path: Path) -> None:
    """File and line are said once."""
    file = write(tmp_path / "x.toml", "[influxdb]\nurl = ''\n")
    error = ConfigError(f"{file}: names no servers", "sources")
    assert locate(error, file) is error
    without = ConfigError("no key")
    assert locate(without, file) is without
    assert str(locate(ConfigError("influxdb.url: x", "influxdb.url"), file)) == f"{file}:2: influxdb.url: x"


@pytest.mark.parametrize("format_name", ["toml", "json"])
def test_show_hides_secrets_and_says_where_they_are_from(format_name: str, tmp_path: Path) -> None:
    """`config show` shows whether there is a token and where it is from, and never its text."""
    file = write(tmp_path / "x.toml", "[sources]\nservers = ['a']\n")
    ran = run(
        "show", file, "--format", format_name,
        state=tmp_path, INFLUXDB_V2_URL="http://x:8086", INFLUXDB_V2_TOKEN=SECRET,
    )  # fmt: skip
    assert ran.status == 0
    assert SECRET not in ran.out + ran.err
    assert "set (from INFLUXDB_V2_TOKEN)" in ran.out
    assert "http://x:8086" in ran.out
    if format_name == "json":
        shown = json.loads(ran.out)
        assert shown["influxdb"]["bucket"] == "ntpaudit"
        assert shown["sources"]["servers"] == ["a"]


def test_show_says_where_each_value_is_from(tmp_path: Path) -> None:
    """A value is the file's, the environment's, a profile's or a default; one that is computed is shown as computed."""
    file = write(
        tmp_path / "x.toml",
        "[sources]\nservers = ['a']\nregion = 'europe'\n[policy]\nprofile = 'finra-cat'\ncritical = '20ms'\n"
        "[influxdb]\nurl = 'http://x:8086'\n",
    )
    shown = run("show", file, state=tmp_path, INFLUXDB_V2_ORG="soc", INFLUXDB_V2_BUCKET="clocks").out.splitlines()
    for line in (
        f"# name: {os.uname().nodename} (default: the system's host name)",
        "# site: none",
        'servers = ["a"]  # file',
        "# pool: none",
        'region = "europe"  # file',
        "from_host = false  # default",
        'network = "5m"  # default',
        'profile = "finra-cat"  # file',
        'warning = "20ms"  # as critical',
        'critical = "20ms"  # file',
        f"# path: {tmp_path}/state/history.sqlite3 (default for an agent started by this user)",
        'url = "http://x:8086"  # file',
        'org = "soc"  # environment: INFLUXDB_V2_ORG',
        'bucket = "clocks"  # environment: INFLUXDB_V2_BUCKET',
        'timeout = "10s"  # default',
        "# ca_file: the system's certificates (default)",
        "# url: http://x:8086 (default: that of [influxdb])",
        "# env: every environment (default)",
    ):
        assert line in shown, line
    assert not any("not set" in line for line in shown if "token" not in line)
    alone = run("show", write(tmp_path / "alone.toml", ""), state=tmp_path).out.partition("[fleet]")[2].splitlines()
    trusted = "# ca_file: the system's certificates (default)"
    assert {"# url: none", "# database: ntpaudit (default)", "# token_file: none", trusted} <= set(alone)
    empty, variables = write(tmp_path / "empty.toml", ""), {"INFLUXDB_V2_URL": "http://y:8086"}
    defaults = run("show", empty, state=tmp_path, **variables, INFLUXDB_V2_TIMEOUT="500").out.splitlines()
    for line in (
        'url = "http://y:8086"  # environment: INFLUXDB_V2_URL',
        'timeout = "500ms"  # environment: INFLUXDB_V2_TIMEOUT',
        'warning = "100ms"  # profile log-integrity',
    ):
        assert line in defaults, line


@pytest.mark.needs("no-system-config")
def test_show_without_a_file_shows_the_defaults(tmp_path: Path) -> None:
    """Where there is no configuration the defaults are in force, and that is said."""
    ran = run("show", state=tmp_path)
    assert ran.status == 0
    assert "no file found" in ran.out
    assert parse_config(ran.out.encode(), "x") == Config()


def test_init_writes_a_file_that_says_what_was_asked(tmp_path: Path) -> None:
    """Every option of `config init` reaches its key; the file and its folder are readable by all."""
    target = tmp_path / "etc" / "ntpaudit" / "ntpaudit.toml"
    ran = run(
        "init", *SERVERS, "--pool", "nl.pool.ntp.org", "--region", "europe", "--from-host", "--site", "ams",
        "--env", 'a "b" \\ü', "--profile", "finra-cat", "--influx-url", "http://127.0.0.1:8086/", "--org", "soc",
        "--bucket", "clocks", "--token-file", "/etc/ntpaudit/token", "--output", str(target),
        state=tmp_path,
    )  # fmt: skip
    assert (ran.status, ran.err) == (0, "")
    assert f"wrote {target}" in ran.out
    assert tomllib.loads(target.read_text()) == {table: {} for table in KEYS} | {
        "host": {"site": "ams", "env": 'a "b" \\ü'},
        "sources": {
            "servers": list(SERVERS),
            "pool": "nl.pool.ntp.org",
            "region": "europe",
            "from_host": True,
        },
        "policy": {"profile": "finra-cat"},
        "influxdb": {
            "url": "http://127.0.0.1:8086/",
            "org": "soc",
            "bucket": "clocks",
            "token_file": "/etc/ntpaudit/token",
        },
    }
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o755
    assert os.listdir(target.parent) == ["ntpaudit.toml"]
    config = parse_config(target.read_bytes(), str(target))
    assert config.sources.servers[2] == Server("192.0.2.1:1123", "192.0.2.1", 1123)
    assert config.sources.pools == (pool("nl.pool.ntp.org"), region("europe"))


def test_init_never_replaces_a_file_unasked(tmp_path: Path) -> None:
    """A file that is there stays as it is, until --force is given."""
    target = tmp_path / "x.toml"
    target.write_text("mine")
    refused = run("init", *SERVERS, "--output", str(target), state=tmp_path)
    assert refused.status == 64
    assert "--force" in refused.err
    assert target.read_text() == "mine"
    assert run("init", *SERVERS, "--force", "--output", str(target), state=tmp_path).status == 0
    assert parse_config(target.read_bytes(), "x").sources.servers[0] == Server(SERVERS[0], SERVERS[0])


def test_init_without_servers_proposes_the_pool_and_says_what_that_means(tmp_path: Path) -> None:
    """P1, P2: the pool is asked only because an operator writes so; its terms are shown, in the file too."""
    ran = run("init", "--output", "-", state=tmp_path)
    assert ran.status == 0
    assert parse_config(ran.out.encode(), "x").sources.named == (pool("pool.ntp.org"),)
    for said in (ran.err, ran.out):
        assert "its terms forbid uses where wrong time would harm a business" in said


def test_config_is_an_option_of_every_command_that_has_a_file(tmp_path: Path) -> None:
    """`config init --config` writes the file that the other commands read with the same words."""
    file = str(tmp_path / "x.toml")
    assert run("init", *SERVERS, "--config", file, state=tmp_path).status == 0
    assert run("check", "--config", file, state=tmp_path).out.startswith(f"ok: {file}: polls 4 servers")
    refused = run("init", *SERVERS, "--config", file, "--output", "-", state=tmp_path)
    assert (refused.status, "--output and --config mean the same" in refused.err) == (64, True)


def test_init_warns_of_too_few_servers(tmp_path: Path) -> None:
    """Three servers cannot outvote one that is wrong for certain; a pool, or four servers, can."""
    assert "only 3 servers: name at least 4" in run("init", *SERVERS[:3], "--output", "-", state=tmp_path).err
    for words in (SERVERS, ("--region", "nl"), (SERVERS[0], "--from-host")):
        assert run("init", *words, "--output", "-", state=tmp_path).err == ""


@pytest.mark.needs("userns")
def test_init_places_the_file_where_it_is_found(tmp_path: Path) -> None:
    """A user's file goes where `check` and the agent look for it; its folder is made."""

    def as_somebody(words: Any) -> list[str]:
        return ["unshare", "--user", "--map-user=1000", "--map-group=1000", *words]

    variables = {"XDG_CONFIG_HOME": str(tmp_path / "etc")}
    ran = ntpaudit("config", "init", *SERVERS, state=tmp_path, environment=variables, inside=as_somebody)
    assert ran.status == 0
    assert (tmp_path / "etc" / "ntpaudit" / "ntpaudit.toml").exists()
    assert run("check", state=tmp_path).out.startswith(f"ok: {tmp_path}/etc/ntpaudit/ntpaudit.toml: polls 4 servers")


def test_init_that_cannot_write_says_why(tmp_path: Path) -> None:
    """A path where no file can be gives an error of one line, with status 3."""
    ran = run("init", *SERVERS, "--output", "/proc/nowhere/x.toml", state=tmp_path)
    assert ran.status == 3
    assert "cannot write /proc/nowhere/x.toml" in ran.err


USAGE = {
    ("init", "a:b:c:x"): "neither a name nor an address",
    ("init", "nts://time.example.net"): "NTS is not supported",
    ("init", "--region", "atlantis"): "no pool region",
    ("init", "--profile", "pcl"): "pci",
    ("init", "--bucket", "x", "a"): "--influx-url",
    ("init", "--site", "", "a"): "host.site",
    ("init", "--influx-url", "ftp://x", "a"): "influxdb.url: write a URL",
    ("init", "--influx-url", "http://u:p@x", "a"): "put the secret in token_file",
    ("init", "--influx-url", "http://x", "--token-file", "token", "a"): "influxdb.token_file",
    ("frobnicate",): "frobnicate",
}


@pytest.mark.parametrize("words", USAGE)
def test_usage_errors_name_the_fix_and_end_with_64(words: tuple[str, ...], tmp_path: Path) -> None:
    """What cannot be a configuration is not written."""
    ran = run(*words, state=tmp_path)
    assert ran.status == 64
    assert USAGE[words] in " ".join(ran.err.split())
    assert not (tmp_path / "etc").exists()


def test_help_has_examples_and_exit_statuses(tmp_path: Path) -> None:
    """Each subcommand explains itself, and the shell completes its name."""
    for words in (("--help",), ("init", "-h"), ("check", "-h"), ("show", "-h")):
        ran = run(*words, state=tmp_path)
        assert ran.status == 0
        assert "Examples:" in ran.out
        assert "Exit status:" in ran.out
    completed = ntpaudit(
        state=tmp_path,
        environment={"_NTPAUDIT_COMPLETE": "bash_complete", "COMP_WORDS": "ntpaudit config in", "COMP_CWORD": "2"},
    )
    assert "plain,init" in completed.out


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """A file that an editor began with one is read; another encoding is named."""
    text = "[sources]\nservers = ['a']\nserver = 1\n"
    with pytest.raises(ConfigError, match=r"x\.toml:3: sources\.server: unknown"):
        parse_config(b"\xef\xbb\xbf" + text.encode(), "x.toml")
    with pytest.raises(ConfigError, match=r"x\.toml: not TOML: byte 0 is not UTF-8: save the file as UTF-8"):
        parse_config(text.encode("utf-16"), "x.toml")


def test_a_pool_among_the_servers_is_more_than_one(tmp_path: Path) -> None:
    """A pool stands for four servers: neither `init` nor `check` warns that they are too few."""
    file = str(tmp_path / "x.toml")
    for words in (["init", "pool.ntp.org", "--output", file], ["check", file]):
        ran = run(*words, state=tmp_path)
        assert (ran.status, ran.err) == (0, "")
    assert "only 1 server" in run("init", "ntp1.example.net", "--output", "-", state=tmp_path).err


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f'[influxdb]\nurl = "http://x"\ntimeout = "{DIGITS}s"', "write a number and its unit"),
        (f'[history]\nmax_size = "{DIGITS}GiB"', "write a number and its unit"),
        (f'[sources]\nservers = ["a:{DIGITS}"]', "the port is a number from 1 to 65535"),
        (f'[syslog]\naddress = "a:{DIGITS}"', "the port is a number from 1 to 65535"),
        (f"[schedule]\nnetwork = {DIGITS}", "a number has too many digits"),
        (f'[host]\nname = "{DIGITS}"', "at most 253"),
        (f'[host]\nsite = "{DIGITS}"', "at most 253"),
    ],
)
def test_a_number_of_thousands_of_digits_is_refused_in_our_words(lines: str, said: str, tmp_path: Path) -> None:
    """Python reads no integer of more than 4300 digits, and takes such a float for infinite."""
    ran = run("check", write(tmp_path / "x.toml", lines), state=tmp_path)
    assert ran.status == 78
    assert said in ran.err
    assert "set_int_max_str_digits" not in ran.err


@pytest.mark.parametrize("text", [DIGITS, "0", "600001", "-1", "x"])
def test_a_timeout_of_the_environment_is_a_number(text: str) -> None:
    """INFLUXDB_V2_TIMEOUT is refused in a short line."""
    with pytest.raises(ConfigError, match=r"INFLUXDB_V2_TIMEOUT: .* is not a number of milliseconds") as refused:
        with_environment(Config(), {"INFLUXDB_V2_URL": "http://x", "INFLUXDB_V2_TIMEOUT": text})
    assert len(str(refused.value)) < 200


def test_the_longest_name_is_one_of_the_dns(tmp_path: Path) -> None:
    """253 characters are a name."""
    name = "a" * 253
    assert load_config(str(write(tmp_path / "x.toml", f'[host]\nname = "{name}"'))).host.name == name
