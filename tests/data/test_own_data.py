"""Columns, separators, Parquet, data in memory, several files, numbers, pairs, rare labels."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitransformer.data.datafiles import DataOptions, numbered
from minitransformer.data.datasets import load_task
from minitransformer.data.splits import Task
from minitransformer.errors import ConfigError, DataError


def many(n: int = 30) -> list[tuple[str, str]]:
    return [(f"text {i}", "good" if i % 2 else "bad") for i in range(n)]


def write(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], mark: str = ","
) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=mark).writerows([header, *rows])
    return path


def texts(task: Task) -> list[str]:
    parts = (task.train, task.validation, task.test)
    return sorted(text for part in parts for text in part.texts)


def test_other_columns(tmp_path: Path) -> None:
    rows = [(i, text, label) for i, (text, label) in enumerate(many())]
    path = write(tmp_path / "a.csv", ["id", "review", "stars"], rows)
    options = DataOptions(text_column="review", label_column="stars")
    assert texts(load_task(path, options=options)) == sorted(text for text, _ in many())
    with pytest.raises(DataError, match=r"no column 'text'; found 'id', .*--text-column"):
        load_task(path)


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_recognized_and_said(
    tmp_path: Path, mark: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(f"{text}, with a comma", label) for text, label in many()]
    path = write(tmp_path / "a.csv", ["text", "label"], rows, mark)
    with caplog.at_level(logging.INFO):
        assert texts(load_task(path)) == sorted(text for text, _ in rows)
    assert f"separated by {word}" in caplog.text


def test_the_separator_of_the_name_is_not_worth_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        load_task(write(tmp_path / "a.csv", ["text", "label"], many()))
        load_task(write(tmp_path / "a.tsv", ["text", "label"], many(), "\t"))
    assert not caplog.text


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"text": [t for t, _ in many(3000)], "label": [i % 2 for i in range(3000)]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    task = load_task(tmp_path / "a.parquet")
    assert task.label_names == ("0", "1")
    assert texts(task) == sorted(columns["text"])
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"b\.parquet cannot be read"):
        load_task(tmp_path / "b.parquet")


def test_data_in_memory_is_the_same_task_as_a_file(tmp_path: Path) -> None:
    expected = load_task(write(tmp_path / "a.csv", ["text", "label"], many()))
    columns = {
        name: list(values)
        for name, values in zip(("text", "label"), zip(*many(), strict=True), strict=True)
    }
    kinds = [many(), [list(row) for row in many()], columns]
    kinds.append([dict(zip(("text", "label"), row, strict=True)) for row in many()])
    for data in kinds:
        found = load_task(data)
        assert found.train.texts == expected.train.texts
        assert (found.test.labels == expected.test.labels).all()
    assert load_task(expected) is expected


def test_a_data_frame(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": [t for t, _ in many()], "label": np.arange(30) % 3})
    assert load_task(frame).label_names == ("0", "1", "2")
    frame.loc[4, "text"] = None
    with pytest.raises(DataError, match="empty in row 4"):
        load_task(frame)
    frame.loc[5, "label"] = None  # pandas makes 0.0 of 0 then
    options = DataOptions(drop_unusable=True)
    assert load_task(frame, options=options).label_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (7, ConfigError, "expected the name of a task, a file, a list"),
        ([("a", "b", "c")], DataError, "row 0: 3 values, expected"),
        ([("a", "b"), "text"], DataError, "row 1: 'text' is neither"),
        ([{"text": "a"}], DataError, "row 0: no column 'label'; found 'text'"),
        ({"text": ["a", "b"], "label": ["c"]}, DataError, "differ in length"),
        ([], DataError, "holds no examples"),
    ],
)
def test_other_data_is_refused(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_task(data)


def test_files_for_validation_and_test(tmp_path: Path) -> None:
    header = ["text", "label"]
    train = write(tmp_path / "train.csv", header, many())
    test = write(tmp_path / "test.csv", header, [("new", "good"), ("newer", "bad")])
    valid = write(tmp_path / "valid.csv", header, [("other", "good")])
    task = load_task(train, options=DataOptions(test_file=str(test)))
    assert task.test.texts == ["new", "newer"]
    assert len(task.train) + len(task.validation) == 30
    both = DataOptions(validation_file=str(valid), test_file=str(test))
    task = load_task(train, options=both)
    assert (len(task.train), task.validation.texts, len(task.test)) == (30, ["other"], 2)
    with pytest.raises(ConfigError, match="needs one for test"):
        load_task(train, options=DataOptions(validation_file=str(valid)))


def test_all_rows_for_the_test(tmp_path: Path) -> None:
    rows = [("same", "good"), ("same", "good"), ("lonely", "bad")]
    task = load_task(write(tmp_path / "a.csv", ["text", "label"], rows), all_for_test=True)
    assert task.test.texts == ["same", "same", "lonely"]
    assert len(task.train) == 0


def test_rare_labels_are_named_at_once_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*many(), ("x", "rare"), ("y", "rarer"), ("z", "rare"), ("", "good"), ("q", "")]
    path = write(tmp_path / "a.csv", ["text", "label"], rows)
    with pytest.raises(DataError, match="empty in lines 35 and 36"):
        load_task(path)
    path = write(tmp_path / "a.csv", ["text", "label"], rows[:-2])
    with pytest.raises(
        DataError, match=r"2 of 4 labels .*: 'rare' in lines 32 and 34; 'rarer' in line 33\. Add"
    ):
        load_task(path)
    path = write(tmp_path / "a.csv", ["text", "label"], rows)
    task = load_task(path, options=DataOptions(drop_unusable=True))
    assert task.label_names == ("bad", "good")
    assert len(texts(task)) == 30
    assert "left out 2 rows" in caplog.text
    assert "left out 2 labels ('rare', 'rarer'), with fewer than 3" in caplog.text
    one = [*many(), ("x", "rare"), ("", "good")]
    load_task(write(path, ["text", "label"], one), options=DataOptions(drop_unusable=True))
    assert "left out 1 row without" in caplog.text
    assert "left out the label 'rare', with fewer than 3 different examples" in caplog.text


def test_lists_of_lines() -> None:
    assert numbered("line", [3]) == "line 3"
    assert numbered("line", [3, 7, 9]) == "lines 3, 7 and 9"
    assert numbered("line", list(range(500)), most=2) == "lines 0, 1 and 498 more"


def test_a_number(tmp_path: Path) -> None:
    rows = [(f"text {i}", i / 8) for i in range(80)]
    path = write(tmp_path / "a.csv", ["text", "score"], rows)
    options = DataOptions(label_column="score", number=True)
    task = load_task(path, options=options, limit=20)
    assert task.is_number and task.label_names == ("score",)
    assert task.train.labels.dtype == np.float64 and len(task.train) == 20
    assert dict(rows)[task.test.texts[0]] == task.test.labels[0]
    with pytest.raises(DataError, match=r"holds 80 different numbers.*say --number"):
        load_task(path, options=DataOptions(label_column="score"))
    path.write_text("text,score\nx,1\ny,many\n")
    with pytest.raises(DataError, match="line 3: score is 'many', expected a number"):
        load_task(path, options=options)


def test_pairs(tmp_path: Path) -> None:
    rows = [(f"text {i % 20}", f"second {i}", "yes" if i % 2 else "no") for i in range(40)]
    path = tmp_path / "a.jsonl"
    keys = ("text", "other", "label")
    path.write_text("\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows))
    task = load_task(path, options=DataOptions(pair_column="other"))
    assert task.train.pairs is not None
    for first, second, label in zip(
        task.train.texts, task.train.pairs, task.train.labels, strict=True
    ):
        assert (first, second, task.label_names[label]) in rows
    assert len(texts(task)) == 40  # a text may come twice, with another second one


@pytest.mark.parametrize(
    "columns", [{"text_column": ""}, {"text_column": "label"}, {"pair_column": "text"}]
)
def test_columns_that_cannot_be(columns: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="columns"):
        DataOptions(**columns)


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("Good", "good", "'Good' and 'good' look alike"),
        ("caf\u00e9", "cafe\u0301", r"'cafe\u0301' and 'caf\xe9' look alike"),
        ("good\u200b", "good", r"'good' and 'good\u200b' look alike"),
        ("1", "1.0", "'1' and '1.0' look alike"),
    ],
)
def test_labels_that_look_alike_are_said(
    one: str, other: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["bad", one, "bad", other] * 5
    load_task([(f"text {i}", label) for i, label in enumerate(labels)])
    assert shown in caplog.text
    caplog.clear()
    load_task([(f"text {i}", ("bad", "good", "1", "2")[i % 4]) for i in range(20)])
    assert not caplog.text


@pytest.mark.parametrize("half", [{"text": "a \ud800"}, {"label": "good\udc00"}])
def test_half_characters_are_named_by_their_line(tmp_path: Path, half: dict[str, str]) -> None:
    rows = [{"text": text, "label": label} for text, label in many()]
    rows[3] |= half
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=rf"line 4: {next(iter(half))} has half a surrogate pair"):
        load_task(tmp_path / "a.jsonl")


def test_a_name_that_cannot_be_shown_is_written_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a\nb.csv", ["text", "label"], many())
    assert load_task(path).name == r"a\nb"
