"""The user's own labelled texts: .csv, .tsv, .jsonl, .ndjson and .parquet files, read strictly.

A file is read whole or refused, with the lines that are to blame: a row dropped in silence would
be a result that nobody can explain.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, printable

log = logging.getLogger(__name__)

Record = tuple[int, dict[str, Any]]  # line number, column -> value

SPLIT = "split"  # a column of this name says which part a row belongs to
SPLITS = {  # as written in a file -> as named here
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test",
}  # fmt: skip
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
AT_ONCE = 1000  # rows of a Parquet file in memory, where they need not be all


@dataclass(frozen=True)
class DataOptions:
    """What is where in the user's own data. Checks itself; ConfigError.

    Attributes:
        text_column, label_column: the names of these columns.
        pair_column: that of the second text, where texts come in pairs.
        number: the label is a number to be predicted, not a class.
        drop_unusable: leave out rows without a text or a label, and labels with too few examples
            to be split, which otherwise are an error.
        validation_file, test_file: files that hold these parts, instead of a random split.
    """

    text_column: str = "text"
    label_column: str = "label"
    pair_column: str | None = None
    number: bool = False
    drop_unusable: bool = False
    validation_file: str | None = None
    test_file: str | None = None

    def __post_init__(self) -> None:
        names = [self.text_column, self.label_column, self.pair_column]
        if not all(name is None or (isinstance(name, str) and name) for name in names):
            raise ConfigError(f"columns {names}: expected names")
        if len(set(names)) < len(names):
            raise ConfigError(f"columns {names}: expected different ones")

    @property
    def texts(self) -> list[str]:
        """The columns with texts."""
        return [self.text_column, *([self.pair_column] if self.pair_column else [])]


@dataclass(frozen=True)
class Row:
    """One labelled text, or pair; `split` is train, validation or test, or None if not given.

    `label` is a word, or of numbers a float.
    """

    line: int
    text: str
    label: str | float
    split: str | None
    pair: str | None = None


def read_rows(path: Path, options: DataOptions | None = None) -> list[Row]:
    """All rows of a file with columns for text and label, and perhaps `split`.

    Labels may be strings, integers or JSON's true and false, or numbers if the options say so. CSV
    and TSV follow the quoting of spreadsheets ("" inside "..."); of another separator than the
    file's name promises the log tells. Text files are UTF-8. Blank lines are passed over.

    Raises: DataError, with the line numbers, for whatever cannot be read as that.
    """
    options = options or DataOptions()
    needed = [*options.texts, options.label_column]
    return rows_of(str(path), "line", read_records(path, needed), options)


def rows_of(
    where: str, unit: str, records: Iterable[Record], options: DataOptions | None = None
) -> list[Row]:
    """The rows of records from anywhere; `where` and `unit` name them in messages."""
    options = options or DataOptions()
    rows: list[Row] = []
    empty: list[int] = []
    for line, record in records:
        if is_empty(record, options):
            empty.append(line)
        else:
            rows.append(_row(f"{where}, {unit} {line}", line, record, options))
    if empty and not options.drop_unusable:
        raise DataError(
            f"{where}: the text or the label is empty in {numbered(unit, empty)}; fill it in, or "
            "leave such rows out with --drop-unusable (DataOptions.drop_unusable)"
        )
    if empty:
        rows_of_them = "1 row" if len(empty) == 1 else f"{len(empty)} rows"
        log.warning(f"{where}: left out {rows_of_them} without a text or a label")
    if not rows:
        raise DataError(f"{where} holds no examples: give it rows with text and label")
    for row in rows:  # of JSON lines each has its own keys
        if (row.split is None) != (rows[0].split is None):
            without, with_it = sorted((row, rows[0]), key=lambda row: row.split is not None)
            raise DataError(
                f"{where}, {unit} {without.line}: no split, but {unit} {with_it.line} has "
                f"{with_it.split!r}; give every row a split, or none"
            )
    return rows


def numbered(unit: str, lines: Sequence[int], most: int = 20) -> str:
    """ "line 3", "lines 3, 7 and 9", "lines 1, 2, ... and 480 more" """
    shown = [str(line) for line in lines[:most]]
    rest = f"{len(lines) - most} more" if len(lines) > most else shown.pop()
    return (
        f"{unit}{'s' if len(lines) > 1 else ''} {', '.join(shown)}{' and ' if shown else ''}{rest}"
    )


def stem_of(path: str | Path) -> str:
    """What the data of a file is called: its name without the ending, as a title can show it."""
    return printable(Path(path).stem, keep="")


def is_empty(record: dict[str, Any], options: DataOptions) -> bool:
    """Whether a text or the label is missing, or nothing but white space."""
    values = [record.get(name) for name in (*options.texts, options.label_column)]
    return any(
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))  # what pandas has for nothing
        for value in values
    )


def _row(where: str, line: int, record: dict[str, Any], options: DataOptions) -> Row:
    texts = [record[name] for name in options.texts]
    for name, text in zip(options.texts, texts, strict=True):
        if not isinstance(text, str):
            raise DataError(f"{where}: {name} is {text!r}, expected a string")
        check_characters(where, name, text)
    split = record.get(SPLIT)
    if SPLIT in record:
        split = SPLITS.get(str(split).strip().lower())
        if split is None:
            raise DataError(
                f"{where}: split is {record[SPLIT]!r}, expected train, validation or test"
            )
    label = _number(where, record, options) if options.number else _class(where, record, options)
    return Row(line, texts[0], label, split, *texts[1:])


def check_characters(where: str, name: str, text: str) -> None:
    """Raises: DataError for half a character, which no file could hold afterwards."""
    half = re.search("[\ud800-\udfff]", text)
    if half is not None:
        raise DataError(
            f"{where}: {name} has half a surrogate pair, {half[0]!a}: it was decoded wrongly"
        )


def _class(where: str, record: dict[str, Any], options: DataOptions) -> str:
    label = record[options.label_column]
    if hasattr(label, "item"):  # a NumPy scalar
        label = label.item()
    if isinstance(label, float) and label.is_integer():  # pandas, where another row has no label
        label = int(label)
    if isinstance(label, bool | int):
        label = json.dumps(label)
    if not isinstance(label, str):
        raise DataError(
            f"{where}: {options.label_column} is {label!r}, expected a word or an integer; if "
            "numbers are to be predicted, say --number (DataOptions.number)"
        )
    check_characters(where, options.label_column, label)
    return label.strip()


def _number(where: str, record: dict[str, Any], options: DataOptions) -> float:
    label = record[options.label_column]
    try:
        number = float(label)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(label, bool):
        raise DataError(f"{where}: {options.label_column} is {label!r}, expected a number")
    return number


# -- records of a file ---------------------------------------------------------------------


def read_records(path: Path, needed: Sequence[str]) -> Iterator[Record]:
    """Line number and columns of each row; `needed` columns must be there, once.

    CSV and JSON lines come from a file that is open meanwhile, so that a file of any size takes
    little memory.
    Raises: DataError, with the line number, while the records are read.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}, expected {', '.join(READERS)}"
        )
    return read(path, needed)


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
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        likely = "UTF-16" if utf16 else "Windows-1252 or Latin-1"
        raise DataError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8, but "
            f"perhaps {likely}; save the file with the encoding UTF-8 (in Excel: CSV UTF-8)"
        ) from error


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file with their ends, which may be \\n, \\r\\n or \\r."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield from lines
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        read_utf8(path)  # says in which line
        raise


def _csv_records(path: Path, needed: Sequence[str]) -> Iterator[Record]:
    lines, start = _lines(path), []
    for content in lines:  # up to the header
        start.append(content)
        if content.strip():
            break
    expected = "\t" if path.suffix.lower() == ".tsv" else ","
    delimiter = _delimiter(path, start[-1] if start else "", expected, needed)
    reader = csv.reader(chain(start, lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for fields in reader:
            if header is None and fields:
                header = [name.strip() for name in fields]
                _need_columns(path, line, header, needed)
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


def _delimiter(path: Path, header: str, expected: str, needed: Sequence[str]) -> str:
    """What separates the columns: what the file's name promises, or what finds the columns."""
    for delimiter in (expected, *DELIMITERS):
        try:
            fields = next(csv.reader(io.StringIO(header), delimiter=delimiter), [])
        except csv.Error:  # said in words when the whole file is read
            continue
        if {name.strip() for name in fields} >= set(needed):
            if delimiter != expected:
                log.info(f"{path}: the columns are separated by {DELIMITERS[delimiter]}")
            return delimiter
    return expected


def _json_records(path: Path, needed: Sequence[str]) -> Iterator[Record]:
    for line, content in enumerate(_lines(path), start=1):
        if not content.strip():
            continue
        try:
            record = json.loads(content, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not JSON ({error})") from error
        if not isinstance(record, _Pairs):
            raise DataError(f'{path}, line {line}: expected {{"text": ..., "label": ...}}')
        _need_columns(path, line, [name for name, _ in record], needed)
        yield line, dict(record)


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of a JSON object, in which a key may occur twice."""


def _parquet_records(path: Path, needed: Sequence[str]) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(f"{path}: to read Parquet files, pip install pyarrow") from error
    try:
        with ParquetFile(path) as file:
            _need_columns(path, 1, file.schema_arrow.names, needed)
            batches = file.iter_batches(AT_ONCE)
            yield from enumerate(chain.from_iterable(b.to_pylist() for b in batches), start=1)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Record]]] = {
    ".csv": _csv_records,
    ".tsv": _csv_records,
    ".jsonl": _json_records,
    ".ndjson": _json_records,
    ".parquet": _parquet_records,
}


def _need_columns(path: Path, line: int, found: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in found:
            raise DataError(
                f"{path}, line {line}: no column {name!r}; found {', '.join(map(repr, found))}; "
                "--text-column, --label-column and --pair-column name other ones"
            )
    for name in (*needed, SPLIT):
        if found.count(name) > 1:
            raise DataError(f"{path}, line {line}: the column {name!r} occurs twice")
