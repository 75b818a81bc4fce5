"""From flat values, named as on the command line, to `RunOptions`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ..errors import ConfigError
from ..runs.options import RunOptions
from ..training.trainer import TrainingOptions

LISTS = ("sites", "targets")  # written "attention,ffn"
DECIDED_ELSEWHERE = {
    "threads": "the sweep decides how many threads a run gets",
    "limit": "belongs to a [[task]]",
    "seed": "give the list seeds at the top of the study",
}


def run_options(values: Mapping[str, Any]) -> RunOptions:
    """The options of a run; what is left out has its default.

    Raises: ConfigError for a name that is unknown, or that the method does not have, and for
    whatever cannot be.
    """
    method = values.get("method", RunOptions.method)
    usual = RunOptions(method=method)
    nested = {name for name in names(usual) if is_dataclass(getattr(usual, name))}
    own = getattr(usual, method) if method in nested else None  # the configuration of the method
    parts: dict[str, dict[str, Any]] = {"training": {}, method: {}}
    top: dict[str, Any] = {}
    for name, value in values.items():
        if name in names(usual) and name not in nested:
            top[name] = value
        elif name in names(TrainingOptions()):
            parts["training"][name] = value
        elif own is not None and name in names(own):
            parts[method][name] = parsed(name, value)
        else:
            known = [*names(usual), *names(TrainingOptions()), *(names(own) if own else ())]
            known = [name for name in known if name not in (*nested, *DECIDED_ELSEWHERE)]
            raise ConfigError(
                f"{name}={value!r}: no option of method {method!r}; expected {', '.join(known)}"
            )
    try:
        if own is not None:
            top[method] = type(own)(**parts[method])
        return RunOptions(**top, training=TrainingOptions(**parts["training"]))
    except TypeError as error:  # a comparison of kinds that do not compare
        raise ConfigError(f"{dict(values)}: {error}") from error


def names(options: Any) -> list[str]:
    return [field.name for field in fields(options)]


def parsed(name: str, value: Any) -> Any:
    """ "3-5" -> (3, 4, 5) for layers; "attention,ffn" -> ("attention", "ffn") for sites."""
    if not isinstance(value, str):
        return (value,) if name == "layers" and type(value) is int else value
    if name in LISTS:
        return tuple(value.split(","))
    if name == "layers":
        blocks: list[int] = []
        for part in value.split(","):
            found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
            if found is None:
                raise ConfigError(f"layers={value!r}: expected numbers such as 0,1 or 3-5")
            blocks += range(int(found[1]), int(found[2] or found[1]) + 1)
        return tuple(blocks)
    return value
