"""The user's own labelled texts: .csv, .tsv, .jsonl and .ndjson files, read strictly.

A file is read whole or refused, with the line that is to blame: a row dropped in silence would be
a result that nobody can explain.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError

Record = tuple[int, dict[str, Any]]  # line number, column -> value

SPLITS = {  # as written in a file -> as named here
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One labelled text; `split` is train, validation or test, or None without such a column."""

    line: int
    text: str
    label: str
    split: str | None


def read_rows(path: Path) -> list[Row]:
    """All rows of a file with columns `text`, `label` and perhaps `split`.

    Labels may be strings, integers or JSON's true and false. CSV and TSV follow the quoting of
    spreadsheets ("" inside "..."); every file is UTF-8. Blank lines are passed over.

    Raises: DataError, with the line number, for whatever cannot be read as that.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}, expected {', '.join(READERS)}"
        )
    rows = [_row(path, line, record) for line, record in read(path, read_utf8(path))]
    if not rows:
        raise DataError(f"{path} holds no examples: give it rows with text and label")
    for row in rows:  # of JSON lines each has its own keys
        if (row.split is None) != (rows[0].split is None):
            without, with_it = sorted((row, rows[0]), key=lambda row: row.split is not None)
            raise DataError(
                f"{path}, line {without.line}: no split, but line {with_it.line} has "
                f"{with_it.split!r}; give every row a split, or none"
            )
    return rows


def read_utf8(path: Path) -> str:
    """A file's text. Raises: DataError, with the line number, if it is not UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")  # spreadsheets like to write a byte order mark
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8; "
            "save the file with the encoding UTF-8"
        ) from error


def _csv_records(path: Path, text: str, delimiter: str = ",") -> Iterator[Record]:
    # Lines keep their ends (newline=""), so that a quoted field may run over several of them.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for fields in reader:
            if header is None and fields:
                header = [name.strip() for name in fields]
                _need_columns(path, line, header)
            elif header is not None and fields:
                if len(fields) != len(header):
                    raise DataError(
                        f"{path}, line {line}: {len(fields)} fields, but the header has "
                        f'{len(header)}; put text that holds the separator into "quotes"'
                    )
                yield line, dict(zip(header, fields, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        if "limit" in str(error):
            raise DataError(
                f"{path}, line {line}: a field of more than {csv.field_size_limit():,} characters; "
                "is a quotation mark, a separator or a line's end missing there?"
            ) from error
        raise DataError(
            f"{path}, line {line}: {error}; a field that starts with a quotation mark must end "
            'with one, and those inside it are doubled ("")'
        ) from error


def _tsv_records(path: Path, text: str) -> Iterator[Record]:
    return _csv_records(path, text, delimiter="\t")


def _json_records(path: Path, text: str) -> Iterator[Record]:
    for line, content in enumerate(text.split("\n"), start=1):  # JSON may hold other line breaks
        if not content.strip():
            continue
        try:
            record = json.loads(content, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not JSON ({error})") from error
        if not isinstance(record, _Pairs):
            raise DataError(f'{path}, line {line}: expected {{"text": ..., "label": ...}}')
        _need_columns(path, line, [name for name, _ in record])
        yield line, dict(record)


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of a JSON object, in which a key may occur twice."""


READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {
    ".csv": _csv_records,
    ".tsv": _tsv_records,
    ".jsonl": _json_records,
    ".ndjson": _json_records,
}


def _need_columns(path: Path, line: int, found: list[str]) -> None:
    for name in ("text", "label"):
        if name not in found:
            raise DataError(
                f"{path}, line {line}: no column {name!r}; found {', '.join(map(repr, found))}"
            )
    for name in ("text", "label", "split"):
        if found.count(name) > 1:
            raise DataError(f"{path}, line {line}: the column {name!r} occurs twice")


def _row(path: Path, line: int, record: dict[str, Any]) -> Row:
    text, label, split = record["text"], record["label"], record.get("split")
    if not isinstance(text, str):
        raise DataError(f"{path}, line {line}: text is {text!r}, expected a string")
    if not text.strip():
        raise DataError(f"{path}, line {line}: the text is empty; fill it in or remove the row")
    if isinstance(label, bool | int):
        label = json.dumps(label)
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"{path}, line {line}: label is {label!r}, expected a word or an integer")
    if "split" in record:
        split = SPLITS.get(str(split).strip().lower())
        if split is None:
            raise DataError(
                f"{path}, line {line}: split is {record['split']!r}, "
                "expected train, validation or test"
            )
    return Row(line, text, label.strip(), split)
