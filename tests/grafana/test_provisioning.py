"""What Grafana and Docker read at their start fits together: whatever is named exists, under that name."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from grafana.__main__ import FOLDER, boards
from grafana.alerts import OWN_RULE, RULES, TEAM
from grafana.links import DOCS_URL, FINDINGS
from grafana.panels import uid
from grafana.queries import LANGUAGES, SOURCES, Language
from ntpaudit.cli import cli
from ntpaudit.core.checks.host import RULES as CHECKS
from tests.grafana.replay import panels

ROOT = FOLDER.parent
Json = dict[str, Any]


@cache
def read(path: Path) -> Json:
    """Return what a YAML file says."""
    found: Json = yaml.safe_load(path.read_text())
    return found


def provisioned(language: Language, kind: str) -> Json:
    """Return the only file of a kind."""
    (path,) = (FOLDER / "provisioning" / language / kind).iterdir()
    return read(path)


@pytest.fixture
def compose() -> Json:
    """Return what Docker is configured with."""
    return read(FOLDER / "compose.yaml")


@pytest.mark.parametrize("language", LANGUAGES)
def test_rules_are_what_grafana_takes(language: Language) -> None:
    """Each has a name of its own, steps that build on one another, and a data source that is provisioned."""
    groups = provisioned(language, "alerting")["groups"]
    (source,) = provisioned(language, "datasources")["datasources"]
    assert source["uid"] == SOURCES[language]
    assert source["type"] == boards(language)["fleet"]["panels"][1]["datasource"]["type"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {group["interval"] for group in groups} == {"1m", "5m"}
    assert len({group["folder"] for group in groups}) == 1
    assert len({rule["uid"] for rule in rules}) == len({rule["title"] for rule in rules}) == len(RULES)
    for rule in rules:
        assert re.fullmatch(r"[a-z0-9-]{1,40}", rule["uid"])
        asked, reduced, held = rule["data"]
        assert [step["refId"] for step in rule["data"]] == ["A", "B", "C"]
        assert [step["model"]["refId"] for step in rule["data"]] == ["A", "B", "C"]
        assert asked["datasourceUid"] == asked["model"]["datasource"]["uid"] == SOURCES[language]
        assert reduced["model"]["expression"] == "A"
        assert held["model"]["expression"] == "B"
        assert rule["condition"] == "C"
        assert rule["execErrState"] in {"Alerting", "KeepLast"}
        assert rule["noDataState"] in {"OK", "Alerting", "KeepLast"}
        assert rule["for"] in {"0s", "10m"}
        assert set(rule["labels"]) == {"severity", "team"}
        assert all(rule["annotations"][name].strip() for name in ("summary", "description", "runbook", "runbook_url"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_in_a_rule_is_taken_for_a_variable(language: Language) -> None:
    """Provisioning puts the environment's variables in wherever it finds a dollar: there is none."""
    (path,) = (FOLDER / "provisioning" / language / "alerting").iterdir()
    assert "$" not in path.read_text()


@pytest.mark.parametrize("language", LANGUAGES)
def test_rules_lead_to_their_panels(language: Language) -> None:
    """The panel of that number on that dashboard shows more of what the rule is about."""
    rules = [rule for group in provisioned(language, "alerting")["groups"] for rule in group["rules"]]
    made = {uid(name, language): board for name, board in boards(language).items()}
    for rule, source in zip(rules, RULES, strict=True):
        titles = {panel["id"]: panel["title"] for panel, _ in panels(made[rule["dashboardUid"]])}
        assert titles[rule["panelId"]] == source.panel
        assert rule["annotations"]["__dashboardUid__"] == rule["dashboardUid"]
        assert rule["annotations"]["__panelId__"] == str(rule["panelId"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_rules_ask_for_what_an_expression_takes(language: Language) -> None:
    """A table is no wide series, and a range no number: InfluxQL asks for time series, PromQL for one moment."""
    for rule in (rule for group in provisioned(language, "alerting")["groups"] for rule in group["rules"]):
        asked, _, held = (step["model"] for step in rule["data"])
        if language == "influxql":
            assert (asked["rawQuery"], asked["resultFormat"]) == (True, "time_series")
            assert "now()" in asked["query"]
        else:
            assert (asked["instant"], asked["range"]) == (True, False)
        (condition,) = held["conditions"]
        assert condition["evaluator"]["type"] in {"gt", "lt"}
        if rule["noDataState"] == "Alerting":  # then there is no number to say
            assert ".Values" not in re.sub(r"\{\{ with .*?\{\{ end \}\}", "", rule["annotations"]["summary"])


def test_silence_is_an_alarm() -> None:
    """Where nothing comes the rules about silence fire; one does where the database is down; the others keep still."""
    states = {rule.name: rule.no_data for rule in RULES}
    assert {name for name, state in states.items() if state == "Alerting"} == {"silent", "no-data"}
    assert states["critical"] == "KeepLast"
    assert [rule.name for rule in RULES if rule.failure == "Alerting"] == ["no-data"]


def test_commands_of_the_runbook_exist() -> None:
    """What a rule advises to call is a command of this version, with these options."""
    for rule in RULES:
        program, name, *words = rule.command.split()
        assert program == "ntpaudit"
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_docker_finds_what_the_file_names(compose: Json) -> None:
    """Folders that are mounted exist for each language, and every service that is waited for says when it is ready."""
    services = compose["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":", 1)[0] if not volume.startswith("./") else volume.rsplit(":/", 1)[0]
            if source.startswith("./"):
                for language in LANGUAGES:
                    assert (FOLDER / source.replace("${NTPAUDIT_LANGUAGE:-influxql}", language)).is_dir()
            else:
                assert source in compose["volumes"]
        for other in service.get("depends_on", ()):
            assert "healthcheck" in services[other]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert re.search(r":[\w.]+$", service.get("image", ":built")), "a version is named"
    influxdb = services["influxdb"]["environment"]
    assert influxdb["DOCKER_INFLUXDB_INIT_BUCKET"] == "ntpaudit"
    assert influxdb["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"] == services["demo"]["environment"]["INFLUXDB_V2_TOKEN"]
    passwords = (
        influxdb["DOCKER_INFLUXDB_INIT_PASSWORD"],
        services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"],
    )
    assert all("INFLUXDB_V2_TOKEN" not in password for password in passwords), "a token is too long for a password"
    assert "-influxMeasurementFieldSeparator=_" in services["victoriametrics"]["command"]


def test_grafana_finds_the_dashboards(compose: Json) -> None:
    """The provider of each language looks where the compose file mounts them; its data source has what it needs."""
    environment = compose["services"]["grafana"]["environment"]
    (mount,) = (one for one in compose["services"]["grafana"]["volumes"] if one.startswith("./dashboards:"))
    inside = mount.split(":")[1]
    for language in LANGUAGES:
        (provider,) = provisioned(language, "dashboards")["providers"]
        assert provider["options"]["path"] == f"{inside}/{language}"
        assert provider["folder"] == provisioned(language, "alerting")["groups"][0]["folder"]
        assert "folderUid" not in provider, "the rules come first, and make that folder under another uid"
        text = "".join(path.read_text() for path in (FOLDER / "provisioning" / language / "datasources").iterdir())
        assert set(re.findall(r"\$\{(\w+)\}", text)) <= set(environment)
        (source,) = provisioned(language, "datasources")["datasources"]
        assert "isDefault" not in source, "with a second default one Grafana does not start"
    (source,) = provisioned("influxql", "datasources")["datasources"]
    assert source["jsonData"]["dbName"] == compose["services"]["influxdb"]["environment"]["DOCKER_INFLUXDB_INIT_BUCKET"]
    assert source["jsonData"]["version"] == "InfluxQL"


def test_what_is_copied_by_hand_lands_where_grafana_looks() -> None:
    """The folder is made before anything is copied into it, and is the provider's."""
    text = (FOLDER / "README.md").read_text()
    commands = [line.split() for line in text.splitlines() if line.startswith("    ")]
    made = next(words[-1] for words in commands if words[0] == "mkdir")
    (copied,) = (words for words in commands if words[:3] == ["cp", "-r", "grafana/dashboards/influxql"])
    assert commands.index(["mkdir", "-p", made]) < commands.index(copied)
    assert copied[-1] == f"{made}/"
    (provider,) = provisioned("influxql", "dashboards")["providers"]
    assert provider["options"]["path"] == f"{made}/influxql"
    for language in LANGUAGES:
        source = (FOLDER / "provisioning" / language / "datasources" / "ntpaudit.yaml").read_text()
        assert all(f"{name}=" in text for name in re.findall(r"\$\{(\w+)\}", source))


def test_the_demonstration_gets_options_that_it_knows(compose: Json) -> None:
    """The container runs a command of this version; what its image is built of is in the checkout."""
    demo = compose["services"]["demo"]
    name, *words = demo["command"]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words} <= known
    recipe = ROOT / demo["build"]["dockerfile"]
    assert (FOLDER / demo["build"]["context"]).resolve() == ROOT
    for line in re.findall(r"^COPY (.*) \S+$", recipe.read_text(), re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split())


def anchors(path: Path) -> set[str]:
    """Return what a link into a Markdown file may name: its headings, as forges and renderers make anchors of them."""
    headings = re.findall(r"^#{1,6} (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_runbooks_are_in_the_documentation() -> None:
    """What `runbook_url` names is a section of a file in docs/, for every rule; and the section says what to do."""
    for language in LANGUAGES:
        for group in provisioned(language, "alerting")["groups"]:
            for rule in group["rules"]:
                url = rule["annotations"]["runbook_url"]
                assert url.startswith(f"{DOCS_URL}/")
                name, _, anchor = url.removeprefix(f"{DOCS_URL}/").partition("#")
                assert anchor in anchors(ROOT / "docs" / name), url
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    for rule in RULES:
        if rule.documented == "runbook.md":
            assert rule.action in runbook.partition(f"## {rule.name}\n")[2].partition("\n## ")[0]


def test_findings_are_in_the_documentation() -> None:
    """The dashboards link from each finding to its section; every finding that a host can have is there."""
    assert FINDINGS.startswith(f"{DOCS_URL}/")
    found = anchors(ROOT / "docs" / FINDINGS.removeprefix(f"{DOCS_URL}/"))
    assert {check.id for check in CHECKS} <= found


def test_every_finding_has_a_rule() -> None:
    """Each that can be of medium level or more has a rule of its own, or one that is about it."""
    named = {rule.name for rule in RULES}
    for check in CHECKS:
        levels = set(re.findall(r"\w+", " ".join(check.raised_when)))
        assert check.id in named or check.id in OWN_RULE or levels == {"low"}, check.id


def test_the_example_of_notifications_fits_the_rules() -> None:
    """Every name is defined; alerts of each severity have a route, grouped by what the rules distinguish."""
    example = read(FOLDER / "examples" / "notifications.yaml")
    points = {point["name"] for point in example["contactPoints"]}
    mutes = {one["name"] for one in example["muteTimes"]}
    (policy,) = example["policies"]
    routes = policy["routes"]
    assert {policy["receiver"], *(route["receiver"] for route in routes)} <= points
    assert {name for route in routes for name in route.get("mute_time_intervals", ())} <= mutes
    routed = {tuple(sorted(f"{key}{sign}{value}" for key, sign, value in route["object_matchers"])) for route in routes}
    assert routed == {(f"severity={one}", f"team={TEAM}") for one in {rule.severity for rule in RULES}}
    assert all({"alertname", "site", "source"} <= set(route["group_by"]) for route in routes)
    critical = next(route for route in routes if ["severity", "=", "critical"] in route["object_matchers"])
    assert "mute_time_intervals" not in critical, "a clock that is wrong for certain is never muted"
    assert not any((FOLDER / "provisioning").rglob("notifications.yaml")), "an example is not in force by itself"


def test_rules_notify_of_each_new_case() -> None:
    """A case at another site, of another finding or server is another alert; `no-data` alone is about the fleet."""
    for rule in RULES:
        by = {"no-data": "", "shared-falseticker": "source"}.get(rule.name, "site")
        if by:
            assert rule.influxql.query.endswith(f'GROUP BY "{by}"'), rule.name
            assert f"by ({by}) (" in rule.promql.query, rule.name
            assert f".Labels.{by}" in rule.summary, rule.name
        else:
            assert "by (" not in rule.promql.query.replace("by (host)", "")
