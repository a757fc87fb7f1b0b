"""Values of the core to JSON and back: every one comes back as it was, and whatever else is refused."""

import json
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntpaudit.core.checks.debounce import DebounceState
from ntpaudit.core.clock.readings import ClockReading
from ntpaudit.core.clock_state import ClockState
from ntpaudit.core.ntp.rate_limit import ServerState
from ntpaudit.core.observation import Observation, SourceFailure, SourceObservation
from ntpaudit.store.compression import pack_text, unpack_text
from ntpaudit.store.serialization import plain, revive, to_json
from tests.records import CASES, observation, servers

STORED: tuple[type[Any], ...] = (Observation, ServerState, ClockState, DebounceState, ClockReading)

_TEXTS = st.text(max_size=8) | st.sampled_from(["\udcff", "\0", "é", '"', "9" * 30])
_INTEGERS = st.integers(-(1 << 64), 1 << 64) | st.sampled_from([0, 1, -1, (1 << 64) - 1])
_FLOATS = st.floats(-1e18, 1e18) | st.sampled_from([0.0, 1.0, -1.0, 5e-324, 0.1 + 0.2, 1 / 3])


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Draw any value of an annotation that the core uses."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return st.one_of(*map(values, parts))
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is tuple:
        return st.lists(values(parts[0]), max_size=2).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(_TEXTS, values(parts[1]), max_size=2).map(MappingProxyType)
    if hasattr(kind, "_fields"):
        return st.builds(kind, **{name: values(hint) for name, hint in get_type_hints(kind).items()})
    return _ATOMS[kind]


_ATOMS: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: _INTEGERS,
    float: _FLOATS,
    str: _TEXTS,
    bytes: st.binary(max_size=8),
    NoneType: st.none(),
}

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _TEXTS
    | st.sampled_from([10**400, -(10**400), math.nan, math.inf]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=12,
)


def kinds_in(value: Any) -> Any:
    """Return a value with the type of each part beside it, for 1 == True == 1.0."""
    if isinstance(value, tuple):
        return type(value).__name__, [kinds_in(part) for part in value]
    if isinstance(value, Mapping):
        return "mapping", {key: kinds_in(part) for key, part in value.items()}
    return type(value).__name__, value


@pytest.mark.parametrize(("kind", "names"), [*((kind, True) for kind in STORED), (ClockState, False)])
@given(st.data())
def test_every_value_comes_back(kind: type[Any], names: bool, data: st.DataObject) -> None:
    """Through the file and back nothing changes: no last digit of a number, no type, no character."""
    value = data.draw(values(kind))
    back = revive(kind, json.loads(unpack_text(pack_text(to_json(plain(value, names=names))))))
    assert back == value
    assert kinds_in(back) == kinds_in(value)


@pytest.mark.parametrize("kind", STORED)
@given(st.data())
def test_what_is_changed_is_a_value_or_is_refused(kind: type[Any], data: st.DataObject) -> None:
    """A part of a stored value replaced by anything at all gives a value of the kind, or a TypeError or ValueError."""
    stored = json.loads(to_json(plain(data.draw(values(kind)))))
    place: Any = stored
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(ANY_JSON)
    try:
        value = revive(kind, stored)
    except (TypeError, ValueError):
        return
    assert revive(kind, json.loads(to_json(plain(value)))) == value


@pytest.mark.parametrize("kind", STORED)
@given(ANY_JSON)
def test_any_json_is_a_value_or_is_refused(kind: type[Any], data: Any) -> None:
    """What was never a value of ours raises nothing else than TypeError and ValueError."""
    try:
        value = revive(kind, data)
    except (TypeError, ValueError):
        return
    assert type(value) is kind


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_not_is_refused(value: float) -> None:
    """Neither a NaN nor an infinity is written or read."""
    observed = observation(*servers(0.1))
    kernel = observed.kernel._replace(maxerror_s=value)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="JSON"):
        to_json(plain(observed._replace(kernel=kernel)))
    text = json.dumps(plain(observed._replace(kernel=kernel)))
    with pytest.raises(TypeError):
        revive(Observation, json.loads(text))


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.pop(name)


def _with(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        _without("taken"),
        _with("other", 1),
        _with("sources", {}),
        _with("sources", [{"name": "x"}]),
        _with("daemons", [{"name": "chronyd", "pid": True}]),
        _with("daemons", [{"name": "chronyd", "pid": 7.0}]),
        _with("daemons", [{"name": "chronyd", "pid": 7, "disciplines": 1}]),
        _with("kernel", {"reason": 5}),
        _with("host", None),
    ],
)
def test_what_is_none_of_the_kind_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """A part that is missing, unknown or of another type makes no value."""
    data = json.loads(to_json(plain(observation(*servers(0.1)))))
    assert revive(Observation, data) == observation(*servers(0.1))
    change(data)
    with pytest.raises((TypeError, ValueError)):
        revive(Observation, data)


def test_a_union_is_read_as_what_was_written() -> None:
    """An outcome is a failure or measurements, and never one taken for the other."""
    for outcome in ((), SourceFailure("rejected", "unsync"), servers(0.1)[0].outcome):
        source = SourceObservation("ntp1", None, 123, outcome)
        back = revive(SourceObservation, json.loads(to_json(plain(source))))
        assert (back, type(back.outcome)) == (source, type(outcome))


def test_what_has_a_default_may_be_missing() -> None:
    """What an earlier version stored, before a field was there, is read with the field's default."""
    assert revive(ServerState, {"consecutive_timeouts": 2}) == ServerState(consecutive_timeouts=2)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    """A reader of JSON knows RecursionError; a value of ours is never that deep."""
    with pytest.raises((TypeError, ValueError, RecursionError)):
        revive(ClockState, json.loads("[" * depth + "]" * depth))


def test_every_record_of_the_tests_is_written() -> None:
    """No outcome has a value that JSON lacks."""
    for record in CASES.values():
        assert json.loads(to_json(record.to_dict())) == json.loads(json.dumps(record.to_dict()))
