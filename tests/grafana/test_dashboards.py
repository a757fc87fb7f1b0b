"""The committed dashboards are those that the source makes, and are what Grafana takes."""

import enum
import json
import re
import typing
import warnings
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.__main__ import BOARDS, FOLDER, boards, files
from grafana.alerts import RULES
from grafana.integrity import TOLERANCES
from grafana.panels import (
    AHEAD,
    BEHIND,
    COLUMNS,
    DIRECTIONS,
    FAR_AHEAD,
    FAR_BEHIND,
    NEAR_AHEAD,
    NEAR_BEHIND,
    NOTHING,
    OFFSET_STEPS,
    SCHEMA_VERSION,
    SILENT,
    STATE_COLOURS,
    STATUS_COLOURS,
    VERDICT_COLOURS,
    uid,
)
from grafana.queries import LANGUAGES, SOURCE_NAMES, SOURCES, Language
from ntpaudit.core.policy import PROFILES
from tests.grafana.replay import Json, panels, targets

with warnings.catch_warnings():  # the models call the classic dashboard, which every Grafana takes, deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.models import dashboard as model

EVERY = [(language, name) for language in LANGUAGES for name in BOARDS]
REFUSED = re.compile(
    r"\b(SLIMIT|SOFFSET|INTEGRAL|SAMPLE|HOLT_WINTERS|INTO)\b|SHOW\s+(SERIES|DATABASES)|CARDINALITY|\|>|from\(bucket",
    re.IGNORECASE,
)
"""What a 3.x server refuses in InfluxQL, and Flux, which it does not speak."""

OWN_KEYS = {
    ("annotations", "list", "target"): {
        "query",
        "rawQuery",
        "fromAnnotations",
        "textEditor",
        "titleColumn",
        "textColumn",
        "tagsColumn",
    },
    ("panels", "targets"): {"query", "rawQuery", "resultFormat", "alias"},
}
"""What belongs to the InfluxDB data source, of which the models know nothing."""


def committed(language: Language, name: str) -> Json:
    """Return a dashboard as it is committed."""
    text = (FOLDER / "dashboards" / language / f"{name}.json").read_text()
    made: Json = json.loads(text)
    return made


def test_what_is_committed_is_what_the_source_makes() -> None:
    """After a change of the source `make dashboards` must be run; and no file is left of what it no longer makes."""
    made = files()
    for path, text in made.items():
        assert path.read_text() == text, f"{path} is not what the source makes: make dashboards"
    assert set((FOLDER / "dashboards").rglob("*.json")) == {path for path in made if path.suffix == ".json"}


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_grafana_knows_every_key(language: Language, name: str) -> None:
    """Read into Grafana's own models and written again, nothing is lost: no key is misspelt or out of place."""
    plugins.register_default_plugins()
    board = committed(language, name)
    again = json.loads(json.dumps(model.Dashboard.from_json(board), cls=JSONEncoder))
    assert list(lost(board, again)) == []


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_every_value_has_its_type(language: Language, name: str) -> None:
    """Each value is of the type that Grafana's models give it, and of an enumeration one of its words."""
    plugins.register_default_plugins()
    board = model.Dashboard.from_json(committed(language, name))
    assert list(mistyped(board, type(board), "")) == []


def test_the_check_of_keys_finds_what_is_wrong() -> None:
    """A key that Grafana does not know, in the dashboard, in a panel's options and in those of a field."""
    plugins.register_default_plugins()
    board = committed("influxql", "fleet")
    stat = next(panel for panel, _ in panels(board) if panel["type"] == "stat")
    graph = next(panel for panel, _ in panels(board) if panel["type"] == "timeseries")
    for place in (board, stat["options"], stat["fieldConfig"]["defaults"], graph["fieldConfig"]["defaults"]["custom"]):
        place["unheard"] = 1
    again = json.loads(json.dumps(model.Dashboard.from_json(board), cls=JSONEncoder))
    assert sorted(found.count(".") for found in lost(board, again)) == [0, 2, 3, 4]


def test_the_check_of_types_finds_what_is_wrong() -> None:
    """A number for a text, a word that no enumeration has, in the dashboard and in a panel's own options."""
    plugins.register_default_plugins()
    board = committed("influxql", "fleet")
    board["title"] = 7
    board["graphTooltip"] = "crosshair"
    stat = next(panel for panel, _ in panels(board) if panel["type"] == "stat")
    stat["options"]["colorMode"] = "loud"
    graph = next(panel for panel, _ in panels(board) if panel["type"] == "timeseries")
    graph["fieldConfig"]["defaults"]["custom"]["lineWidth"] = "thick"
    read = model.Dashboard.from_json(board)
    found = "\n".join(mistyped(read, type(read), ""))
    for name in ("title", "graph_tooltip", "color_mode", "line_width"):
        assert f".{name}:" in found


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_panels_tile_the_grid(language: Language, name: str) -> None:
    """On every height all columns are taken, once: no hole, no overlap, in folded rows too."""
    board = committed(language, name)
    for shown in (board["panels"], *(row["panels"] for row in board["panels"] if row.get("panels"))):
        places = [panel["gridPos"] for panel in shown]
        taken = sorted(
            (x, y)
            for place in places
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
        top, bottom = min(y for _, y in taken), max(y for _, y in taken)
        assert taken == [(x, y) for x in range(COLUMNS) for y in range(top, bottom + 1)]


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_every_panel_says_what_it_is(language: Language, name: str) -> None:
    """It has a title, a description and, unless it is words, something that it asks of the chosen data source."""
    board = committed(language, name)
    numbers = [panel["id"] for panel in board["panels"]] + [
        inner["id"] for row in board["panels"] for inner in row.get("panels", ())
    ]
    assert len(set(numbers)) == len(numbers)
    for panel, folded in panels(board):
        assert panel["title"]
        assert panel["description"].endswith((".", "FILE."))
        assert panel["type"] == "text" or panel["targets"]
        assert folded == ("(long range)" in panel["title"])
    for place in uids(board):
        assert place == "${datasource}"


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_variables_are_defined_and_used(language: Language, name: str) -> None:
    """Nothing asks for a variable that a dashboard lacks, and none is offered that changes nothing."""
    board = committed(language, name)
    offered = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([A-Za-z_]+)", json.dumps(board)))
    assert {one for one in used if not one.startswith(("__", "tag_"))} - {"timeFilter", "col"} == offered


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_all_sites_are_chosen_at_first(language: Language, name: str) -> None:
    """Where All may be chosen it is; and every choice has a `current`, without which some Grafanas fail."""
    for one in committed(language, name)["templating"]["list"]:
        match one["type"]:
            case "datasource":
                assert (one["current"]["value"], one["current"]["text"]) == (SOURCES[language], SOURCE_NAMES[language])
            case "textbox":
                assert one["current"]["value"] == one["query"]
            case _:
                assert one["current"].get("value") == (["$__all"] if one["includeAll"] else None)


def test_variables_say_how_they_are_put_in() -> None:
    """In InfluxQL each names its format, for where Grafana guesses, a number can be escaped as a pattern is."""
    chosen = {one["name"] for name in BOARDS for one in committed("influxql", name)["templating"]["list"]}
    seen = set()
    for name, board in boards("influxql").items():
        queries = [asked.target["query"] for asked in targets(board, name)]
        queries += [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]
        for query in queries:
            for variable, form in re.findall(r"\$\{?([A-Za-z_]+)(:[a-z]+)?", query):
                if variable in chosen:
                    seen.add(variable)
                    assert form == (":raw" if variable == "every" else ":regex"), query
    assert seen == {"site", "env", "host", "hosts", "every"}


def settings(panel: Json) -> Iterator[tuple[str, str, Any]]:
    """Yield every setting of a panel's fields: whose it is, what it is, and its value."""
    for key, value in panel.get("fieldConfig", {}).get("defaults", {}).items():
        yield "", key, value
    for override in panel.get("fieldConfig", {}).get("overrides", ()):
        for one in override["properties"]:
            yield override["matcher"]["options"], one["id"], one["value"]


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_mappings_are_shown(language: Language, name: str) -> None:
    """A range has two ends, for null has been taken for 0; and no timeline merges by thresholds, which hides words."""
    for panel, _ in panels(committed(language, name)):
        found = list(settings(panel))
        for mappings in (value for _, key, value in found if key == "mappings"):
            for mapping in mappings:
                if mapping["type"] == "range":
                    assert mapping["options"]["from"] < mapping["options"]["to"]
        if panel["type"] == "state-timeline":
            assert panel["options"]["mergeValues"]
            modes = [value["mode"] for _, key, value in found if key == "color"]
            assert modes
            assert "thresholds" not in modes


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_an_empty_cell_does_not_say_that_all_is_well(language: Language, name: str) -> None:
    """What an empty table says is not what a cell without a value says, as of the offset of an unmeasured clock."""
    for panel, _ in panels(committed(language, name)):
        if panel["type"] == "table":
            said = {whose: value for whose, key, value in settings(panel) if key == "noValue"}
            assert said.pop("/.*/") == NOTHING
            assert set(said) == {""}
            assert said[""] != NOTHING


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_what_is_shown_of_a_field_has_that_field(language: Language, name: str) -> None:
    """A band goes down to a line that the panel asks for; a table's numbers have the names that Prometheus gives."""
    for panel, _ in panels(committed(language, name)):
        asked = panel.get("targets", ())
        names = {one.get("legendFormat") for one in asked}
        names |= set(re.findall(r'AS "([^"]*)"', " ".join(one.get("query", "") for one in asked)))
        bands = {(whose, value) for whose, key, value in settings(panel) if key == "custom.fillBelowTo"}
        assert {one for band in bands for one in band} <= names
        if language == "promql" and panel["type"] == "table":
            values = {f"Value #{one['refId']}" for one in asked} if len(asked) > 1 else {"Value"}
            (organize,) = (one for one in panel["transformations"] if one["id"] == "organize")
            renamed = organize["options"]["renameByName"]
            assert {one for one in renamed if one.startswith("Value")} == values


def test_marks_have_their_titles() -> None:
    """Grafana sees `ntpaudit_event.title` and takes the first column that it does not know for the title: it is."""
    for name in BOARDS:
        (note,) = committed("influxql", name)["annotations"]["list"]
        target = note["target"]
        assert target["query"].startswith(f'SELECT "{target["titleColumn"]}", "{target["textColumn"]}", ')
        assert all(f'"{tag}"' in target["query"] for tag in target["tagsColumn"].split(","))


@pytest.mark.parametrize(("language", "name"), EVERY)
def test_links_lead_somewhere(language: Language, name: str) -> None:
    """A link names a dashboard of its own language, the variables of that one, and the time that is shown."""
    urls = re.findall(r'"url": "(/d/[^"]*)"', (FOLDER / "dashboards" / language / f"{name}.json").read_text())
    targets_of = {uid(other, language): board for other, board in boards(language).items()}
    assert bool(urls) == (name != "host")
    for url in urls:
        path, _, query = url.partition("?")
        known = {one["name"] for one in targets_of[path.removeprefix("/d/")]["templating"]["list"]}
        assert set(re.findall(r"var-([a-z]+)=", query)) <= known
        assert query.endswith("${__url_time_range}")
        kept = {"datasource", "site", "env"} & {one["name"] for one in committed(language, name)["templating"]["list"]}
        assert all(f"${{{one}:queryparam}}" in query for one in kept)
    siblings = committed(language, name)["links"][0]
    assert (siblings["includeVars"], siblings["keepTime"]) == (True, True)


def test_queries_are_short_enough() -> None:
    """VictoriaMetrics refuses a query of more than 16 KiB: half of it is left for the names that are chosen."""
    for name, board in boards("promql").items():
        for asked in targets(board, name):
            assert len(asked.target["expr"]) < 8192, (asked.panel, asked.ref)


def test_names_never_change() -> None:
    """Bookmarks and alerts go by these; each has the 8 to 40 characters that Grafana allows."""
    found = {committed(language, name)["uid"] for language, name in EVERY}
    assert found == {
        "ntpaudit-fleet",
        "ntpaudit-host",
        "ntpaudit-integrity",
        "ntpaudit-fleet-promql",
        "ntpaudit-host-promql",
        "ntpaudit-integrity-promql",
    }
    assert all(8 <= len(name) <= 40 for name in found)
    assert {committed(language, name)["schemaVersion"] for language, name in EVERY} == {SCHEMA_VERSION}


def test_both_languages_show_the_same() -> None:
    """The panels are the same in the same places, whatever the database speaks."""
    for name in BOARDS:
        shown = [[(panel["title"], panel["gridPos"]) for panel, _ in panels(committed(one, name))] for one in LANGUAGES]
        assert shown[0] == shown[1]


def _hue(colour: str) -> str:
    """Return a colour without its shade."""
    return colour.rpartition("-")[2]


def test_a_direction_is_no_severity() -> None:
    """Behind is blue and ahead is purple, in every shade; nothing that has no direction has either colour."""
    assert {_hue(colour) for colour in (BEHIND, FAR_BEHIND, NEAR_BEHIND)} == {"blue"}
    assert {_hue(colour) for colour in (AHEAD, FAR_AHEAD, NEAR_AHEAD)} == {"purple"}
    others = [*STATE_COLOURS.values(), *VERDICT_COLOURS.values(), *STATUS_COLOURS.values(), SILENT]
    assert {"blue", "purple"}.isdisjoint(map(_hue, others))
    assert [one["color"] for one in OFFSET_STEPS if one["value"] is None or one["value"] < 0] == [
        FAR_AHEAD,
        AHEAD,
        NEAR_AHEAD,
    ]
    for direction in DIRECTIONS[:2]:
        result = direction["options"]["result"]
        assert result["color"] == {"ahead": AHEAD, "behind": BEHIND}[result["text"]]


def test_no_query_is_refused_by_a_3x_server() -> None:
    """No statement that InfluxDB 3 lacks stands in a dashboard or a rule; and offsets are never asked without sign."""
    queries = [rule.influxql.query for rule in RULES]
    for name, board in boards("influxql").items():
        queries += [asked.target["query"] for asked in targets(board, name)]
        queries += [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    assert len(queries) > 80
    for query in queries:
        assert not REFUSED.search(query), query
        assert "abs_offset_s" not in query
    assert REFUSED.search("SHOW SERIES CARDINALITY")


def test_tolerances_are_those_of_the_profiles() -> None:
    """The numbers come from the program's own profiles: each critical tolerance once, and no other."""
    assert sorted(TOLERANCES.values()) == sorted({profile.critical_s for profile in PROFILES.values()})


def lost(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield every key that is not there again."""
    if isinstance(before, dict):
        for key, value in before.items():
            if key in OWN_KEYS.get(path, ()) or value is None:
                continue
            if not isinstance(after, dict) or key not in after:
                yield f"{'.'.join((*path, key))}"
            else:
                deeper = (*path, key) if path[-2:] != ("panels", "panels") else (*path[:-1], key)
                yield from lost(value, after[key], deeper)
    elif isinstance(before, list):
        for one, other in zip(before, after, strict=True):
            yield from lost(one, other, path)


def mistyped(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Yield what is not of the type that the models give it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (typing.Union, type(int | str)):
        meant = [one for one in inner if one is type(value)] or [one for one in inner if one is not type(None)]
        if value is None and type(None) in inner:
            return
        if not any(not list(mistyped(value, one, path)) for one in meant):
            yield from mistyped(value, meant[0], path)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
        else:
            for place, one in enumerate(value):
                yield from mistyped(one, inner[0], f"{path}[{place}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no object"
        else:
            for key, one in value.items():
                yield from mistyped(one, inner[1], f"{path}.{key}")
    elif origin is typing.Literal:
        if value not in inner:
            yield f"{path}: {value!r} is none of {inner}"
    elif hint in (object, Any):
        yield from _of_object(value, path)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in {one.value for one in hint}:
            yield f"{path}: {value!r} is none of {[one.value for one in hint]}"
    elif hint is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            yield f"{path}: {value!r} is no number"
    elif hint in (int, str, bool, type(None)):
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            yield f"{path}: {value!r} is no {hint.__name__}"
    else:
        yield from _of_object(value, path)


def _of_object(value: Any, path: str) -> Iterator[str]:
    """Yield what is wrong inside a value of a model, whichever it is."""
    if type(value).__module__.startswith("grafana_foundation_sdk"):
        if isinstance(value, enum.Enum):
            return
        hints = get_type_hints(type(value))
        for key, hint in hints.items():
            if hasattr(value, key):
                yield from mistyped(getattr(value, key), hint, f"{path}.{key}")


def uids(value: Any) -> Iterator[str]:
    """Yield the uid of every data source that is named."""
    if isinstance(value, dict):
        if isinstance(value.get("datasource"), dict):
            yield value["datasource"]["uid"]
        for inner in value.values():
            yield from uids(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from uids(inner)
