"""Answers that real databases gave, with something in them changed: what comes of them is a fleet, or a ReadError."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntpaudit.fleet import open_reader
from ntpaudit.fleet.reader import DatabaseReader, SnapshotOptions
from tests.fleet.fleets import END_NS, lines
from tests.fleet.test_faults import LANGUAGES, cells, check
from tests.world.flaky import Answer, FlakyDatabase, Octets, Request
from tests.world.servers import influxd, victoria_metrics

Question = tuple[str, ...]
"""The path of a request, and what is asked, but for the present."""

Answers = Mapping[Question, bytes]


class Change(NamedTuple):
    """What is done to an answer: where, by the places on the way there, and what is put there."""

    answer: int
    way: Sequence[int]
    how: str
    cell: object


changes = st.builds(
    Change,
    st.integers(0, 10_000),
    st.lists(st.integers(0, 50), max_size=9),
    st.sampled_from(["put", "put", "put", "drop", "twice", "rename", "cut", "nest"]),
    cells,
)


@pytest.fixture(scope="module")
def answered() -> Iterator[Mapping[str, Answers]]:
    """What real databases answer to all that is asked of them about the fleet."""
    with influxd() as influx, victoria_metrics() as victoria:
        for url in (f"{influx}/write?db=ntpaudit", f"{victoria}/write"):
            urllib.request.urlopen(urllib.request.Request(url, lines().encode()), timeout=30).close()
        urllib.request.urlopen(f"{victoria}/internal/force_flush", timeout=30).close()
        yield {"influxql": listen(influx, "influxql"), "promql": listen(victoria, "promql")}


def listen(upstream: str, language: str) -> Answers:
    """Read all there is through a server that keeps the answers."""
    answers: dict[Question, bytes] = {}

    def choose(request: Request) -> Answer:
        form = {"Content-Type": request.headers["content-type"]} if request.lines else {}
        asked = urllib.request.Request(upstream + request.target, request.lines.encode() or None, form)
        try:
            with urllib.request.urlopen(asked, timeout=30) as got:
                answers[question(request)] = body = got.read()
                return Answer(got.status, body.decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code)

    with FlakyDatabase(choose=choose) as server, closing(open_reader(url=server.url, language=language)) as reader:
        check(reader, END_NS, "fra")
        assert reader.snapshot(END_NS, SnapshotOptions()).hosts
    return answers


def question(request: Request) -> Question:
    """Return what is asked; a list of names is asked for until now, which passes."""
    path, _, words = request.target.partition("?")
    now = {"end"} if path.endswith("/values") else set()
    return (path, *(f"{name}={value}" for name, value in parse_qsl(words or request.lines) if name not in now))


def said(body: bytes) -> Octets | Answer:
    """Return an answer of any octets; after one that is no text the connection ends."""
    with suppress(UnicodeDecodeError):
        return Answer(200, body.decode())
    return Octets(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def changed(body: bytes, change: Change) -> bytes:
    """Change something in an answer, which is a value of JSON in each line, or a sample in the text format."""
    if change.how == "cut":
        return body[: len(body) * change.way[0] // 50] if change.way else b""
    documents: Any = [understood(line) for line in body.decode().splitlines()]
    if change.way and documents:
        holder, key = reach(documents, change.way)
        put(holder, key, change)
    return "".join(written(one) + "\n" for one in documents).encode(errors="replace")


def understood(line: str) -> Any:
    """Return a line's value, of a sample its name, labels, value and stamp."""
    if not line.startswith("ntpaudit_"):
        return json.loads(line)
    labels, value, stamp = line.rsplit(" ", 2)
    named = {label: json.loads(text) for label, text in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*")', labels)}
    return [labels.partition("{")[0], named, value, int(stamp)]


def written(one: Any) -> str:
    """Write a line again, whatever has become of it."""
    match one:
        case [str(name), {**labels}, *rest]:
            named = ",".join(f"{json.dumps(label)[1:-1]}={json.dumps(text)}" for label, text in labels.items())
            return " ".join([f"{name}{{{named}}}", *map(str, rest)])
    return json.dumps(one, separators=(",", ":"))


def reach(value: Any, way: Sequence[int]) -> tuple[Any, Any]:
    """Go down into a value as far as there is anything, and return what holds the last, and by which key."""
    holder, key = value, 0
    for step in way:
        if not isinstance(value, dict | list) or not value:
            break
        holder, key = value, list(value)[step % len(value)] if isinstance(value, dict) else step % len(value)
        value = value[key]
    return holder, key


def put(holder: Any, key: Any, change: Change) -> None:
    """Change what something holds."""
    match change.how, holder:
        case "drop", _:
            del holder[key]
        case "twice", list():
            holder.insert(key, holder[key])
        case "rename", dict():
            holder[str(change.cell)] = holder.pop(key)
        case "nest", _:
            holder[key] = json.loads("[" * 500 + "]" * 500)
        case _:
            holder[key] = change.cell


@pytest.mark.parametrize("language", LANGUAGES)
@given(st.lists(changes, min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_whatever_is_changed_in_an_answer_is_a_fleet_or_an_error(
    answered: Mapping[str, Answers], language: str, made: list[Change]
) -> None:
    """Another type, a field too many or too few, half of it, a huge number: no traceback, and nothing untold."""
    answers = answered[language]
    known = sorted(answers)
    mutated = {**answers}
    for change in made:
        chosen = known[change.answer % len(known)]
        mutated[chosen] = changed(answers[chosen], change)

    def choose(request: Request) -> Octets | Answer:
        asked = question(request)
        if asked in mutated:
            return said(mutated[asked])
        alike = [own for own in known if own[0] == asked[0]]  # a host with another name now is queried by that name
        return said(mutated[alike[made[0].answer % len(alike)]]) if alike else Answer(404)

    with FlakyDatabase(choose=choose) as server, closing(open_reader(url=server.url, language=language)) as reader:
        assert isinstance(reader, DatabaseReader)
        check(reader, END_NS, "fra")
