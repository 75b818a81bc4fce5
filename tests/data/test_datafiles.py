"""datafiles: the user's own files are read whole, or refused with the line that is to blame."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitransformer.data.datasets import load_task
from minitransformer.data.splits import Task
from minitransformer.errors import DataError

Pairs = Sequence[tuple[str, Any]]


def write_csv(path: Path, pairs: Pairs, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("text", "label"), *pairs])
    return path


def write_tsv(path: Path, pairs: Pairs) -> Path:
    return write_csv(path, pairs, delimiter="\t")


def write_jsonl(path: Path, pairs: Pairs) -> Path:
    lines = [json.dumps({"text": text, "label": label}) for text, label in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def all_pairs(task: Task) -> list[tuple[str, str]]:
    return sorted(
        (text, task.label_names[label])
        for split in (task.train, task.validation, task.test)
        for text, label in zip(split.texts, split.labels, strict=True)
    )


HARD = [
    ('comma, tab\t and "quotes"', "good"),
    ("two\nlines", "good"),
    ("separators \u2028 \x85 \x0b inside", "good"),
    ("ünïcode 漢字", "bad"),
    ("  spaces kept  ", "bad"),
    ("'", "bad"),
]


@pytest.mark.parametrize(
    ("suffix", "writer"),
    [
        (".csv", write_csv),
        (".tsv", write_tsv),
        (".jsonl", write_jsonl),
        (".ndjson", write_jsonl),
        (".CSV", write_csv),
    ],
)
def test_every_kind_of_file_gives_the_texts_back(
    tmp_path: Path, suffix: str, writer: Callable[[Path, Pairs], Path]
) -> None:
    task = load_task(str(writer(tmp_path / f"mine{suffix}", HARD)))
    assert task.name == "mine"
    assert task.label_names == ("bad", "good")
    assert all_pairs(task) == sorted(HARD)
    assert task.train.labels.dtype == np.int64


def test_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    rows = "".join(f'"text {i}",{i % 2}\n\n' for i in range(6))
    path = tmp_path / "mine.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"\ntext,label\n\n{rows}".encode())
    assert len(all_pairs(load_task(path))) == 6


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, -1], ("-1", "9", "10")),
        ([True, False], ("false", "true")),
        (["b", "10", "9", "a"], ("9", "10", "a", "b")),
        ([1, "0", "--1"], ("0", "1", "--1")),
    ],
)
def test_label_names_are_sorted(tmp_path: Path, labels: list[Any], names: tuple[str, ...]) -> None:
    pairs = [(f"{label} {i}", label) for label in labels for i in range(3)]
    assert load_task(write_jsonl(tmp_path / "mine.jsonl", pairs)).label_names == names


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,sentiment\nx,y\n", r"no column 'label'; found 'text', 'sentiment'"),
        ("a.csv", "review;label\nx;y\n", r"no column 'text'; found 'review;label'"),
        ("a.csv", "text,label,text\nx,y,z\n", "column 'text' occurs twice"),
        ("a.csv", "text,label\nx,y\na, b,y\n", "line 3: 3 fields, but the header has 2"),
        ("a.csv", 'text,label\n"x\n\ny",y\nz\n', "line 5: 1 fields"),
        ("a.csv", 'text,label\nx,y\n"open,y\nz,y\n', "line 3: .*must end"),
        ("a.csv", "text,label\nx,y\n  ,y\n", "empty in line 3; fill"),
        ("a.csv", "text,label\nx,\n", "empty in line 2; fill"),
        ("a.csv", "text,label,split\nx,y,training\nx,y,tset\n", "line 3: split is 'tset'"),
        ("a.csv", "text,label\n", "holds no examples"),
        ("a.csv", "", "holds no examples"),
        ("a.jsonl", "\n\n", "holds no examples"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "x"', "line 2: not JSON"),
        ("a.jsonl", '\n["x", 1]', r"line 2: expected \{"),
        (
            "a.jsonl",
            '{"text": "x", "lable": 1}',
            "line 1: no column 'label'; found 'text', 'lable'",
        ),
        ("a.jsonl", '{"text": 7, "label": 1}', "line 1: text is 7, expected a string"),
        ("a.jsonl", '{"text": "x", "label": 0.5}', "line 1: label is 0.5"),
        ("a.jsonl", '{"text": "x", "label": null}', "empty in line 1; fill"),
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n{"text": "y", "label": 0, "split": "test"}',
            "line 1: no split, but line 2 has 'test'",
        ),
        (
            "a.jsonl",
            '{"text": "x", "label": 1, "split": "train"}\n{"text": "y", "label": 0}',
            "line 2: no split, but line 1 has 'train'",
        ),
        ("a.jsonl", '{"text": "x", "label": 1, "label": 0}', "column 'label' occurs twice"),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("a.csv", "text,label,split,split\nx,y,train,test\n", "column 'split' occurs twice"),
        ("a.csv", f'"{"x" * 200_000}",label\nx,y\n', "line 1: a field of more than 131,072"),
        ("a.txt", "good film", r"unknown kind of file '\.txt', expected \.csv, \.tsv"),
    ],
)
def test_bad_file(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_task(write(tmp_path / name, content))
    assert name in str(caught.value)


def test_wrong_encoding_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("text,label\ngood,1\ncafé,0\n".encode("latin-1"))
    likely = r"latin\.csv, line 3: byte 0xe9 is not UTF-8, but perhaps Windows-1252 or Latin"
    with pytest.raises(DataError, match=likely):
        load_task(path)
    path.write_bytes("text,label\ngood,1\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"line 1: byte 0xf[ef] is not UTF-8, but perhaps UTF-16;"):
        load_task(path)


def test_absent_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv cannot be read: No such file"):
        load_task(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv cannot be read"):
        load_task(tmp_path / "folder.csv")
