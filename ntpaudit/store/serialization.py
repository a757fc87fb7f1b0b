"""Values as JSON has them, and back."""

from collections.abc import Mapping
from functools import cache
from json import JSONEncoder
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_Value = TypeVar("_Value")

_ATOMS = frozenset({int, float, str, bool, NoneType})
_LARGEST = 1 << 64  # no number of ours is larger: times in nanoseconds, NTP times
_hints = cache(get_type_hints)

to_json = JSONEncoder(allow_nan=False, separators=(",", ":")).encode
"""Write what `plain` made, in as few characters as JSON needs. ValueError for a NaN or an infinity."""


def plain(value: Any, *, names: bool = True) -> Any:
    """Turn a value of the core into dicts, lists, texts and numbers: octets in hex, named tuples by name or in order.

    A set becomes a sorted list. `names` False takes half the space. A field that is added later must then be the last
    one, with a default.
    """
    if type(value) in _ATOMS:
        return value
    match value:
        case bytes():
            return value.hex()
        case tuple() if names and hasattr(value, "_asdict"):
            return {key: plain(part) for key, part in value._asdict().items()}
        case tuple():
            return [part if type(part) in _ATOMS else plain(part, names=names) for part in value]
        case frozenset():
            return sorted(plain(part, names=names) for part in value)
        case Mapping():
            return {key: plain(part, names=names) for key, part in value.items()}
    return value


def revive(kind: type[_Value], data: Any) -> _Value:
    """Make a value of the core of what `plain` made of it. TypeError or ValueError where it is none of that kind."""
    value: _Value = _revive(kind, data)
    return value


@cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(kind), get_args(kind)


def _revive(kind: Any, data: Any) -> Any:
    origin, parts = _form(kind)
    if origin in (Union, UnionType):
        for part in parts:
            try:
                return _revive(part, data)
            except (TypeError, ValueError):
                continue
        raise TypeError(f"{data!r} fits none of {parts}")
    if origin is Literal:
        return _checked(data in parts, kind, data)
    if origin is tuple:
        _checked(isinstance(data, list), kind, data)
        return tuple(_revive(parts[0], part) for part in data)
    if origin is not None and issubclass(origin, Mapping):
        _checked(isinstance(data, dict), kind, data)
        return MappingProxyType({key: _revive(parts[1], part) for key, part in data.items()})
    if kind is Any:
        return data
    if kind is bytes:
        return bytes.fromhex(_checked(isinstance(data, str), kind, data))
    if hasattr(kind, "_fields"):
        return _named(kind, data)
    _checked(type(data) is kind or (kind is float and type(data) is int), kind, data)
    if kind in (int, float):
        _checked(-_LARGEST <= data <= _LARGEST, kind, data)  # nor is a NaN within
    return float(data) if kind is float else data


def _named(kind: Any, data: Any) -> Any:
    """Make a named tuple of its parts, by name or in order; a missing one takes its default, a surplus is refused."""
    hints = _hints(kind)
    if isinstance(data, list):
        data = dict(zip(hints, _checked(len(data) <= len(hints), kind, data), strict=False))
    _checked(isinstance(data, dict) and data.keys() <= hints.keys(), kind, data)
    return kind(**{name: _revive(hints[name], part) for name, part in data.items()})


def _checked(fits: bool, kind: Any, data: Any) -> Any:
    if not fits:
        raise TypeError(f"{data!r} is no {kind}")
    return data
