"""Labelled texts that are in memory: lists, columns, a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import ConfigError, DataError
from .datafiles import DataOptions, Record

KINDS = (
    "the name of a task, a file, a list of (text, label), a list of dictionaries, a dictionary of "
    "columns, a DataFrame, or a Task"
)


def records_of(data: Any, options: DataOptions) -> Iterator[Record]:
    """Row number, from 0, and columns of each row. Raises: ConfigError; DataError for a bad row."""
    if hasattr(data, "columns") and hasattr(data, "to_dict"):  # pandas
        data = data.to_dict("list")
    if isinstance(data, Mapping):
        lengths = {name: len(column) for name, column in data.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the columns differ in length: {lengths}")
        rows: Iterable[Any] = (
            dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)
        )
    elif isinstance(data, list):
        rows = data
    else:
        raise ConfigError(f"data={data!r:.80}: expected {KINDS}")
    names = [*options.texts, options.label_column]
    for row, record in enumerate(rows):
        if isinstance(record, tuple | list):
            if len(record) != len(names):
                raise DataError(f"data, row {row}: {len(record)} values, expected {names}")
            record = dict(zip(names, record, strict=True))
        if not isinstance(record, Mapping):
            raise DataError(f"data, row {row}: {record!r:.80} is neither (text, label) nor a dict")
        missing = [name for name in names if name not in record]
        if missing:
            raise DataError(
                f"data, row {row}: no column {missing[0]!r}; found "
                f"{', '.join(map(repr, record))}; DataOptions names other ones"
            )
        yield row, dict(record)
