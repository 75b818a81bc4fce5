"""A file of texts in, a file of answers out, a few thousand rows at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..data.datafiles import DataOptions, Record, read_records
from ..errors import ConfigError, DataError
from ..formats.files import csv_line
from ..nn.module import Array
from ..training.progress import progress_bar
from .classification import Run

AT_ONCE = 4096  # rows in memory
WRITERS = (".csv", ".tsv", ".jsonl", ".ndjson")


def predict_file(
    run: Run,
    file: str | Path,
    out: str | Path,
    columns: DataOptions | None = None,
    top_k: int | None = None,
    progress: bool = False,
) -> int:
    """Write every row of a file with what a run predicts for it. Returns how many there were.

    `out` (.csv, .tsv or .jsonl) has the columns of the file, then `predicted` and the probability
    of each label, `p(LABEL)`; with `top_k`, `predicted`, `p`, `predicted_2`, `p_2`, ... instead. Of
    a number it has `predicted` alone. It appears when it is complete. A missing text is an error.

    Raises: ConfigError for an `out` that exists or cannot be; DataError for a row that cannot be
    read, with its line.
    """
    file, out, columns = Path(file).expanduser(), Path(out).expanduser(), columns or DataOptions()
    names = run.record.label_names
    if out.suffix.lower() not in WRITERS:
        raise ConfigError(f"out={str(out)!r}: expected a name that ends in {', '.join(WRITERS)}")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}; make it, or choose another")
    if out.exists():
        raise ConfigError(f"{out} exists already: choose another name, or remove it")
    if top_k is not None and not (1 <= top_k <= len(names) and not run.is_number):
        raise ConfigError(f"top_k={top_k}: this run has {len(names)} labels, expected 1 to that")
    run.check_pairs(columns.pair_column is not None)
    records = read_records(file, columns.texts)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    rows = 0
    try:
        with (
            temporary.open("w", encoding="utf-8", newline="") as lines,
            progress_bar(line_count(file), "line", progress) as bar,
        ):
            write: Callable[[dict[str, Any]], None] | None = None
            while some := list(islice(records, AT_ONCE)):
                for record in answered(run, file, some, columns, top_k):
                    write = write or writer(lines, out, list(record))
                    write(record)
                rows += len(some)
                bar.update(len(some))
        if rows == 0:
            raise DataError(f"{file} has no rows")
        os.replace(temporary, out)
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(f"{file} holds half a surrogate pair, {half!a}: {out} cannot") from error
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def answered(
    run: Run, file: Path, some: list[Record], columns: DataOptions, top_k: int | None
) -> Iterator[dict[str, Any]]:
    """The records, each with its answer."""
    texts: list[list[str]] = [[] for _ in columns.texts]
    for line, record in some:
        for column, name in zip(texts, columns.texts, strict=True):
            text = record[name]
            if not isinstance(text, str):
                raise DataError(f"{file}, line {line}: {name} is {text!r}, expected a string")
            column.append(text)
    p = run.probabilities(*texts)
    names = run.record.label_names
    order = np.argsort(-p, axis=1, kind="stable")[:, : top_k or 1]
    for (_, record), row, best in zip(some, p, order, strict=True):
        if run.is_number:
            answer: dict[str, Any] = {"predicted": float(f"{row[0]:.6g}")}
        elif top_k is None:
            answer = {"predicted": names[best[0]]}
            answer |= {f"p({name})": rounded(x) for name, x in zip(names, row, strict=True)}
        else:
            answer = {}
            for rank, k in enumerate(best, start=1):
                mark = f"_{rank}" if rank > 1 else ""
                answer |= {f"predicted{mark}": names[k], f"p{mark}": rounded(row[k])}
        taken = answer.keys() & record.keys()
        if taken:
            raise DataError(f"{file} has a column {min(taken)!r} already: rename it")
        yield {**record, **answer}


def rounded(probability: Array) -> float:
    return round(float(probability), 6)


def writer(lines: TextIO, out: Path, header: list[str]) -> Callable[[dict[str, Any]], None]:
    """What writes a record as a line of the file `out`."""
    if out.suffix.lower() in (".jsonl", ".ndjson"):
        return lambda record: print(json.dumps(record, ensure_ascii=False), file=lines)
    delimiter = "\t" if out.suffix.lower() == ".tsv" else ","
    lines.write(csv_line(header, delimiter))

    def write(record: dict[str, Any]) -> None:
        if list(record) != header:
            raise DataError(f"rows with different columns do not fit into {out.name}: try .jsonl")
        lines.write(csv_line(record.values(), delimiter))

    return write


def line_count(file: Path) -> int | None:
    """How many lines a text file has, for a progress bar; None of another kind of file."""
    if file.suffix.lower() == ".parquet" or not file.is_file():
        return None
    with file.open("rb") as content:
        return sum(block.count(b"\n") for block in iter(lambda: content.read(1 << 16), b""))
