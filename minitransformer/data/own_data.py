"""The user's own data as a task: from a file, from several, or from memory."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, listed
from .datafiles import DataOptions, Row, numbered, read_rows, rows_of, stem_of
from .memory import records_of
from .splits import (
    Example,
    Task,
    as_split,
    need_examples,
    random_split,
    squeezed,
    stratified,
)

log = logging.getLogger(__name__)


def rows_and_where(data: Any, options: DataOptions) -> tuple[str, list[Row], DataOptions]:
    """Where the rows come from, in words, and the rows of one file, of several, or in memory."""
    parts = {"validation": options.validation_file, "test": options.test_file}
    if not isinstance(data, str | Path):
        if any(parts.values()):
            raise ConfigError("validation_file and test_file go with a file, not with data")
        return "data", rows_of("data", "row", records_of(data, options), options), options
    path = Path(data).expanduser()
    rows = read_rows(path, options)
    if any(parts.values()):
        if rows[0].split is not None:
            raise DataError(f"{path} has a column 'split' already: leave the other files out")
        if parts["test"] is None:
            raise ConfigError("a file for validation needs one for test too (test_file)")
        rows = [replace(row, split="train") for row in rows]
        for part, file in parts.items():
            if file is not None:
                found = read_rows(Path(file).expanduser(), options)
                rows += [replace(row, split=part) for row in found]
    return str(path), rows, options


def task_of_rows(
    where: str, rows: list[Row], options: DataOptions, rng: np.random.Generator, all_for_test: bool
) -> Task:
    name = stem_of(where)
    if options.number:
        names: list[str] = [options.label_column]
        examples = [Example(row.text, float(row.label), row.pair) for row in rows]
    else:
        _not_numbers(where, rows, options)
        if not all_for_test:
            rows = _without_rare(where, rows, options.drop_unusable)
        names = sorted({str(row.label) for row in rows}, key=_by_value)
        _warn_of_like_labels(where, names)
        code = {label: k for k, label in enumerate(names)}
        examples = [Example(row.text, code[str(row.label)], row.pair) for row in rows]
    if all_for_test:
        nothing = as_split(examples[:0])
        return Task(name, tuple(names), nothing, nothing, as_split(examples))
    _warn_of_repeats(where, rows)
    if rows[0].split is None:
        return random_split(name, tuple(names), examples, rng)

    parts = {
        part: [example for example, row in zip(examples, rows, strict=True) if row.split == part]
        for part in ("train", "validation", "test")
    }
    if not parts["test"]:
        raise DataError(f"{where}: no row has the split 'test', so nothing could be measured")
    if parts["train"]:
        need_examples(name, names, parts["train"], least=1 if parts["validation"] else 2)
    if parts["train"] and not parts["validation"]:
        held_out, train = stratified(as_split(parts["train"]), (0.1,), rng)
    else:
        held_out, train = as_split(parts["validation"]), as_split(parts["train"])
    return Task(name, tuple(names), train, held_out, as_split(parts["test"]))


def _without_rare(where: str, rows: list[Row], drop: bool) -> list[Row]:
    """All rows, or, if rare labels are to be dropped, those whose label has enough examples.

    Raises: DataError that names all rare labels with their lines.
    """
    least = 3 if rows[0].split is None else 1  # one for each part
    of_label: dict[str | float, list[Row]] = {}
    for row in rows:
        if row.split in (None, "train"):
            of_label.setdefault(row.label, []).append(row)
    rare = {label: own for label, own in of_label.items() if len(set(map(texts_of, own))) < least}
    if not rare or len(of_label) == 1:
        return rows
    if not drop:
        unit = "row" if where == "data" else "line"
        told = [
            f"{label!r} in {numbered(unit, [row.line for row in own])}"
            for label, own in rare.items()
        ]
        more = f"; and {len(told) - 20} more labels" if len(told) > 20 else ""
        raise DataError(
            f"{where}: {len(rare)} of {len(of_label)} labels have fewer than {least} different "
            f"examples, too few to train on and to hold out: {'; '.join(told[:20])}{more}. "
            "Add some, or leave such labels out with --drop-unusable (DataOptions.drop_unusable)"
        )
    names = listed(map(repr, rare))
    what = f"the label {names}" if len(rare) == 1 else f"{len(rare)} labels ({names})"
    log.warning(f"{where}: left out {what}, with fewer than {least} different examples")
    return [row for row in rows if row.label not in rare]


def _not_numbers(where: str, rows: Sequence[Row], options: DataOptions) -> None:
    """Raises: DataError if labels are numbers with decimals, most of them different."""
    labels = {str(row.label) for row in rows}
    if len(labels) < 20 or len(labels) < len(rows) / 10:
        return
    try:
        decimals = any(not float(label).is_integer() for label in labels)
    except (ValueError, OverflowError):
        return
    if decimals:
        raise DataError(
            f"{where}: {options.label_column} holds {len(labels)} different numbers, as "
            f"{rows[0].label}; to predict the number, say --number (DataOptions.number)"
        )


def _warn_of_like_labels(where: str, labels: Sequence[str]) -> None:
    """Say which labels are all but the same: they are different classes, and rarely meant so."""
    first: dict[str, str] = {}
    for label in labels:
        other = first.setdefault(_essence(label), label)
        if other != label:
            invisible = other.casefold() != label.casefold()
            one, two = (ascii(text) if invisible else repr(text) for text in (other, label))
            log.warning(
                f"{where}: the labels {one} and {two} look alike, and are two classes; if they "
                "mean the same, write them in the same way"
            )


def _essence(label: str) -> str:
    """A label without case, marks that nobody sees, and ways to write a number or an accent."""
    seen = (mark for mark in label if unicodedata.category(mark) != "Cf")
    plain = unicodedata.normalize("NFKC", "".join(seen)).casefold()
    try:
        return repr(float(plain))
    except ValueError:
        return squeezed(plain)


def _warn_of_repeats(where: str, rows: Sequence[Row]) -> None:
    """Say which texts stand in a file with two labels, or both in train and in test."""

    first: dict[tuple[str, str], Row] = {}
    repeats = [(first.setdefault(texts_of(row), row), row) for row in rows]
    contradicting = [(one, other) for one, other in repeats if one.label != other.label]
    if contradicting:
        one, other = contradicting[0]
        used = "the first label is used" if one.split is None else "every row is used as it is"
        log.warning(
            f"{where}: {len(contradicting)} rows repeat a text with another label, as line "
            f"{other.line} ({other.label!r}) that of line {one.line} ({one.label!r}): {used}. "
            "Decide on one label for each text"
        )
    trained = {texts_of(row) for row in rows if row.split == "train"}
    leaked = [row for row in rows if row.split == "test" and texts_of(row) in trained]
    if leaked:
        log.warning(
            f"{where}: {len(leaked)} test texts are in train too, as that of line "
            f"{leaked[0].line}: the result will look better than it is. Remove them from one"
        )


def texts_of(row: Row) -> tuple[str, str]:
    """What makes two rows repeat each other."""
    return squeezed(row.text), squeezed(row.pair or "")


def _by_value(label: str) -> tuple[bool, int, str]:
    """Sorts integers by value, before all other labels."""
    try:
        return (False, int(label), label)
    except ValueError:
        return (True, 0, label)
