"""Whether what a file holds is of the kind that a dataclass says: text, numbers, lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..adapters.config import is_number, is_whole
from ..errors import ConfigError

WORDS = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def check_kinds(record: type, values: Mapping[str, Any]) -> None:
    """Raises: ConfigError for a value of another kind than the field of that name in `record`."""
    hints = get_type_hints(record)
    for name, value in values.items():
        if name in hints and not is_of(value, hints[name]):
            shown = repr(value) if len(repr(value)) < 100 else f"{repr(value)[:100]}..."
            raise ConfigError(f"{name}={shown}: expected {in_words(hints[name])}")


def is_of(value: Any, kind: Any) -> bool:
    """As isinstance, and also for the inside of lists and tables, which JSON does not tell apart.

    A whole number may stand for a float; true and false are no numbers, NaN and infinity neither.
    """
    inside = get_args(kind)
    match get_origin(kind):
        case origin if origin is Union or origin is UnionType:
            return any(is_of(value, one) for one in inside)
        case origin if origin is tuple:
            return isinstance(value, list | tuple) and all(is_of(v, inside[0]) for v in value)
        case origin if origin in (dict, Mapping):
            return isinstance(value, dict) and all(
                is_of(k, inside[0]) and is_of(v, inside[1]) for k, v in value.items()
            )
    if kind is int:
        return is_whole(value) and abs(value) < 2**63
    if kind is float:
        return is_number(value)
    return kind is Any or isinstance(value, kind)


def in_words(kind: Any) -> str:
    """A kind, for an error."""
    inside = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(in_words(one) for one in inside if one is not type(None))
    if get_origin(kind) is tuple:
        return f"a list, each {in_words(inside[0])}"
    if get_origin(kind) in (dict, Mapping):
        return f"a table, each entry {in_words(inside[1])}"
    return WORDS.get(kind, "something else" if kind is Any else kind.__name__)
