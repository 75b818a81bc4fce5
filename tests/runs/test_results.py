"""What a run reports: beside what costs nothing, with a warning where it is no better."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.datafiles import DataOptions
from minitransformer.errors import CheckpointError, ConfigError, DataError
from minitransformer.runs.classification import Run, train
from minitransformer.runs.predict_file import predict_file
from minitransformer.runs.results import compare

FAST = mt.TrainingOptions(epochs=1, batch_size=16)


def options(**changes) -> mt.RunOptions:
    return mt.RunOptions(**{"base": "tiny", "limit": 96, "training": FAST, **changes})


def rare(n: int = 200) -> list[tuple[str, str]]:
    return [(f"the film number {i}", "yes" if i % 20 == 0 else "no") for i in range(n)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return train(rare(), options(), tmp_path_factory.mktemp("runs") / "rare")


def test_a_run_that_learnt_nothing_is_told_so(run) -> None:
    metrics = run.metrics
    assert metrics["test_accuracy"] == metrics["test_majority_share"] == 0.95
    assert metrics["test_macro_f1"] == pytest.approx(0.4872, abs=1e-4)
    assert metrics["test_classes"]["yes"] == {
        "precision": 0, "recall": 0, "f1": 0, "support": 2
    }  # fmt: skip
    low, high = metrics["test_accuracy_interval"]
    assert 0.8 < low < 0.95 < high < 1
    assert any("no better than always answering 'no'" in text for text in metrics["warnings"])


def test_report_and_predictions_and_figure_are_in_the_folder(run) -> None:
    report = (run.folder / "report.txt").read_text()
    for words in ("precision    recall  f1-score   support", "no  38", "the most confident errors"):
        assert words in report
    assert (run.folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    with (run.folder / "predictions.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = run.predict([row["text"] for row in rows])
    assert [p.label for p in found] == [row["prediction"] for row in rows]
    assert dict(rare())[rows[0]["text"]] == rows[0]["label"]


def test_class_weights_find_the_rare_class(tmp_path) -> None:
    data = [(f"{'good' if i % 20 == 0 else 'bad'} film {i}", str(i % 20 == 0)) for i in range(400)]
    training = mt.TrainingOptions(epochs=6, batch_size=16, lr=5e-3, class_weights="balanced")
    better = train(
        data, options(limit=None, select_by="macro-f1", training=training), tmp_path / "weighted"
    )
    assert better.metrics["test_macro_f1"] == 1
    assert not [w for w in better.metrics["warnings"] if "always" in w]
    best = better.history.best("macro-f1")
    assert better.metrics["best_epoch"] == best.epoch


def test_training_stops_early(tmp_path) -> None:
    training = mt.TrainingOptions(epochs=30, batch_size=16, lr=1e-9, patience=2)
    metrics = train(
        rare(), options(training=training, select_by="macro-f1"), tmp_path / "a"
    ).metrics
    assert metrics["finished"]
    assert metrics["steps"] == 30 * 6 or metrics["steps"] < 30 * 6


def test_two_runs_are_compared_on_the_same_examples(run, tmp_path) -> None:
    same = compare(run.folder, run.folder)
    assert same.wins == (0, 0) and same.p == 1 and same.score[0] == same.score[1]
    rows = (run.folder / "predictions.csv").read_text()
    other = tmp_path / "other"
    other.mkdir()
    (other / "predictions.csv").write_text(rows.replace(",yes,no,", ",yes,yes,"))
    found = compare(run.folder, other)
    assert found.wins == (0, 2) and found.p == 0.5
    assert found.macro_f1[1] == 1
    (other / "predictions.csv").write_text("\n".join(rows.split("\n")[:-2]) + "\n")
    with pytest.raises(DataError, match="different examples"):
        compare(run.folder, other)
    with pytest.raises(CheckpointError, match=r"has no predictions\.csv"):
        compare(run.folder, tmp_path)


# -- pairs and numbers ---------------------------------------------------------------------


def test_a_run_on_pairs(tmp_path) -> None:
    words = ["film", "plot", "actor", "song"]
    data = [
        {"text": f"the {a}", "other": f"a {b} {i}", "label": "same" if a == b else "different"}
        for i in range(12)
        for a in words
        for b in words
    ]
    of_pairs = options(data=DataOptions(pair_column="other"))
    trained = mt.load_run(train(data, of_pairs, tmp_path / "pairs").folder)
    found = trained.predict(["the film"], ["a film"])[0]
    assert (found.text, found.pair) == ("the film", "a film")
    swapped = trained.predict(["a film"], ["the film"])[0]
    assert found.probabilities != swapped.probabilities
    with pytest.raises(DataError, match="was trained on pairs of texts, not on single ones"):
        trained.predict(["the film"])
    with pytest.raises(DataError, match="not on single ones"):
        trained.evaluate(
            [(f"{label} {i}", label) for i in range(5) for label in ("same", "different")]
        )


@pytest.fixture(scope="module")
def number_run(tmp_path_factory) -> Run:
    rng = np.random.default_rng(0)
    words = {"bad": 20.0, "dull": 30.0, "good": 70.0, "great": 90.0}
    chosen = rng.choice(list(words), 300)
    data = [(f"a {word} film {i}", words[word] + rng.normal()) for i, word in enumerate(chosen)]
    training = mt.TrainingOptions(epochs=6, batch_size=16, lr=5e-3)
    options = mt.RunOptions(
        base="tiny", data=DataOptions(number=True), training=training, pooling="mean"
    )
    return train(data, options, tmp_path_factory.mktemp("runs") / "number")


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 1e9), (1e-40, 0.0), (1e37, 0.0)])
def test_numbers_that_float32_cannot_tell_apart_are_an_error(
    tmp_path: Path, factor: float, offset: float
) -> None:
    data = [(f"text {i}", offset + factor * (i % 7)) for i in range(40)]
    with pytest.raises(ConfigError, match="float32 cannot tell such numbers apart"):
        train(data, options(data=DataOptions(number=True)), tmp_path / "run")


@pytest.mark.parametrize("factor", [0.0, 1e-300])
def test_numbers_that_are_all_the_same_are_an_error(tmp_path: Path, factor: float) -> None:
    data = [(f"text {i}", factor * (1 + i % 7)) for i in range(40)]
    with pytest.raises(DataError, match="there is nothing to learn"):
        train(data, options(data=DataOptions(number=True)), tmp_path / "run")


def test_metrics_are_json_where_there_is_no_correlation(tmp_path: Path) -> None:
    data, rows = tmp_path / "numbers.jsonl", []
    for i in range(40):
        split = ("train", "validation", "test", "train")[i % 4]
        label = 5.0 if split == "test" else float(i)
        rows.append(json.dumps({"text": f"text {i}", "label": label, "split": split}))
    data.write_text("\n".join(rows))
    folder = train(data, options(data=DataOptions(number=True)), tmp_path / "run").folder

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    metrics = json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)
    assert metrics["test_pearson"] is None
    assert metrics["test_loss"] > 0


def test_a_number_beyond_all_floats_is_an_error(tmp_path: Path) -> None:
    data = [("a", 10**400), ("b", 1)]
    with pytest.raises(DataError, match=r"row 0: label is 1000.*, expected a number"):
        train(data, options(data=DataOptions(number=True)), tmp_path / "run")


def test_a_run_on_a_number(number_run) -> None:
    metrics = number_run.metrics
    assert metrics["test_pearson"] > 0.95 and metrics["test_spearman"] > 0.8
    assert metrics["test_loss"] < 0.1 * metrics["test_mean_loss"]
    assert "test_accuracy" not in metrics
    loaded = mt.load_run(number_run.folder)
    low, high = loaded.predict(["a bad film", "a great film"])
    assert low.number < 40 < 60 < high.number
    found = compare(number_run.folder, number_run.folder)
    assert found.score[0] == pytest.approx(metrics["test_loss"], rel=1e-4)
    with pytest.raises(ConfigError, match="evaluate_numbers"):
        loaded.evaluate("toy-reviews")
    data = mt.load_task(
        [("a bad film", 20.0), ("a great film", 90.0)], options=DataOptions(number=True),
        all_for_test=True,
    )  # fmt: skip
    assert loaded.evaluate_numbers(data).pearson == pytest.approx(1)


def test_a_number_is_no_class(tmp_path, number_run, run) -> None:
    data = [(f"text {i}", float(i)) for i in range(40)]
    number = DataOptions(number=True)
    with pytest.raises(ConfigError, match="select_by='accuracy' is for classes"):
        train(data, options(data=number, select_by="accuracy"), tmp_path / "a")
    weights = mt.TrainingOptions(class_weights="balanced")
    with pytest.raises(ConfigError, match="class_weights and label_smoothing are for classes"):
        train(data, options(data=number, training=weights), tmp_path / "b")
    with pytest.raises(DataError, match="predicts a number, but toy-reviews has a label"):
        number_run.evaluate_numbers("toy-reviews")
    with pytest.raises(ConfigError, match="predicts labels"):
        run.evaluate_numbers("toy-reviews")


def test_a_run_on_a_number_is_neither_shared_nor_exported(number_run, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="is a run on a number: load it alone"):
        mt.load_runs([number_run.folder])
    with pytest.raises(CheckpointError, match="predicts a number: only heads for classes"):
        mt.export_adapterhub(number_run, tmp_path / "hub")


# -- a file of texts -----------------------------------------------------------------------


def test_every_row_of_a_file_gets_its_answer(run, tmp_path) -> None:
    rows = [{"id": i, "text": f'film, "{i}"\nnew line'} for i in range(150)]
    with (tmp_path / "in.csv").open("w", newline="") as lines:
        writer = csv.DictWriter(lines, ["id", "text"], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    assert predict_file(run, tmp_path / "in.csv", tmp_path / "out.csv") == 150
    with (tmp_path / "out.csv").open(newline="") as lines:
        found = list(csv.DictReader(lines))
    expected = run.predict([row["text"] for row in rows])
    assert [(int(row["id"]), row["text"]) for row in found] == [(r["id"], r["text"]) for r in rows]
    assert [row["predicted"] for row in found] == [p.label for p in expected]
    for row, p in zip(found, expected, strict=True):
        assert float(row["p(yes)"]) == pytest.approx(p.probabilities["yes"], abs=2e-6)

    predict_file(run, tmp_path / "in.csv", tmp_path / "top.jsonl", top_k=2)
    first = json.loads((tmp_path / "top.jsonl").read_text().split("\n")[0])
    assert set(first) == {"id", "text", "predicted", "p", "predicted_2", "p_2"}
    assert first["p"] >= first["p_2"]


@pytest.mark.parametrize(
    ("content", "out", "top_k", "message"),
    [
        ("review\na\n", "o.csv", None, "no column 'text'"),
        ("text\n", "o.csv", None, "has no rows"),
        ("text,predicted\na,b\n", "o.csv", None, "has a column 'predicted' already"),
        ('text\na\n"b\n', "o.csv", None, "line 3.*must end"),
        ("text\na\n", "no/o.csv", None, "there is no folder .*no; make it"),
        ("text\na\n", "o.xlsx", None, r"ends in \.csv"),
        ("text\na\n", "o.csv", 3, "top_k=3: this run has 2 labels"),
    ],
)
def test_a_file_that_cannot_be_labelled_leaves_nothing(
    run, tmp_path: Path, content: str, out: str, top_k: int | None, message: str
) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises((ConfigError, DataError), match=message):
        predict_file(run, tmp_path / "in.csv", tmp_path / out, top_k=top_k)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_half_a_character_in_another_column_cannot_be_written(run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "\ud800", "text": "a"}))
    with pytest.raises(DataError, match=r"in\.jsonl holds half a surrogate pair"):
        predict_file(run, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_disk_that_is_full_is_an_error_that_names_the_file(run, tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, with another number."""
    resource = pytest.importorskip("resource")
    (tmp_path / "in.csv").write_text("text\n" + "a film\n" * 1000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*out.csv: File too large"):
            predict_file(run, tmp_path / "in.csv", tmp_path / "out.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_an_output_is_never_overwritten(run, tmp_path) -> None:
    for name in ("in.csv", "out.csv"):
        (tmp_path / name).write_text("text\na\n")
    with pytest.raises(ConfigError, match="exists already"):
        predict_file(run, tmp_path / "in.csv", tmp_path / "out.csv")


def test_memory_is_flat(run, tmp_path, monkeypatch) -> None:
    """Twice the rows, the same memory: read, answered and written a few at a time."""
    monkeypatch.setattr("minitransformer.runs.predict_file.AT_ONCE", 64)
    monkeypatch.setattr(type(run), "probabilities", lambda self, texts: np.ones((len(texts), 2)))
    peaks = []
    for n in (2_000, 8_000):
        file, out = tmp_path / f"{n}.csv", tmp_path / f"{n}-out.csv"
        file.write_text("text\n" + f"{'a film ' * 20}\n" * n)
        tracemalloc.start()
        assert predict_file(run, file, out) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
