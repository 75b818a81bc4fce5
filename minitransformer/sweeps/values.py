"""From flat values, named as on the command line, to `RunOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..errors import ConfigError
from ..runs.options import RunOptions, parse_whole_numbers
from ..training.trainer import TrainingOptions

LISTS = ("sites", "targets")  # written "attention,ffn"
RENAMED = {  # our name -> the field of the method's configuration
    "adapter": {"adapter_dropout": "dropout"},
    "lora": {"lora_dropout": "dropout"},
    "prefix": {"prefix_length": "length"},
}
DECIDED_ELSEWHERE = {
    "threads": "the sweep decides how many threads a run gets",
    "limit": "belongs to a [[task]]",
    "seed": "give the list seeds at the top of the study",
    "data": "a sweep reads the columns text and label of a file: name them so there",
}


def run_options(values: Mapping[str, Any]) -> RunOptions:
    """The options of a run; what is left out has its default.

    Raises: ConfigError for a name that is unknown, or that the method does not have, and for
    whatever cannot be.
    """
    method = values.get("method", RunOptions.method)
    usual = RunOptions(method=method)
    config = usual.config  # what the method inserts, if anything
    top = [name for name in names(usual) if name not in ("adapter", "training")]
    of_training = names(TrainingOptions())
    fields_of = {} if config is None else {name: name for name in names(config)}
    for ours, theirs in RENAMED.get(method, {}).items():
        fields_of[ours] = fields_of.pop(theirs)
    options: dict[str, Any] = {}
    training: dict[str, Any] = {}
    inserted: dict[str, Any] = {}
    for name, value in values.items():
        if name in top:
            options[name] = value
        elif name in of_training:
            training[name] = value
        elif name in fields_of:
            inserted[fields_of[name]] = parsed(name, value)
        else:
            known = [n for n in (*top, *of_training, *fields_of) if n not in DECIDED_ELSEWHERE]
            raise ConfigError(
                f"{name}={value!r}: no option of method {method!r}; expected {', '.join(known)}"
            )
    try:
        if config is not None and inserted:
            options["adapter"] = type(config)(**inserted)
        return RunOptions(**options, training=TrainingOptions(**training))
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
    return parse_whole_numbers(value, f"layers={value!r}") if name == "layers" else value
