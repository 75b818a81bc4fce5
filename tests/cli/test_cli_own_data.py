"""One's own data at the command line: columns, files, whole files measured and labelled."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from test_cli import Said, call

QUICK = ["--base", "tiny", "--epochs", "1", "--max-length", "16"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def own_file(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["review", "stars"])
        writer.writerows([(f"film {i}", "up" if i % 25 == 0 else "down") for i in range(150)])
    return path


COLUMNS = ["--text-column", "review", "--label-column", "stars"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Said]:
    """A run folder, the file that it was trained on, and what `train` said."""
    folder = tmp_path_factory.mktemp("own")
    file = own_file(folder / "own.csv")
    said = call("train", file, *COLUMNS, *QUICK, "--out", folder / "run")
    assert said.status == 0, said.err
    return folder / "run", file, said


def test_a_run_no_better_than_the_majority_is_a_warning(trained: tuple[Path, Path, Said]) -> None:
    _, _, said = trained
    assert "separated by semicolons" in said.err
    assert "warning: no better than always answering 'down'" in said.err
    for words in ("95 % interval", "macro-F1", "bag of words", "always 'down': 0.96", "report.txt"):
        assert words in said.out


def test_quiet_says_nothing_but_warnings(tmp_path: Path) -> None:
    file = own_file(tmp_path / "own.csv")
    said = call("train", file, *COLUMNS, *QUICK, "--out", "run", "--quiet")
    assert said.status == 0 and said.out == ""
    assert "step" not in said.err


def test_a_bar_in_a_log_is_a_few_lines(trained: tuple[Path, Path, Said]) -> None:
    _, _, said = trained
    assert "\r" not in said.err
    assert sum(" steps in " in line for line in said.err.split("\n")) <= 3


def test_all_rows_are_measured_if_asked_for(trained: tuple[Path, Path, Said]) -> None:
    run, file, _ = trained
    said = call("evaluate", run, file, *COLUMNS)
    assert "30 of 150 rows of" in said.err and "--all measures all" in said.err
    assert "the most confident errors" in said.out and "recall  f1-score" in said.out
    found = json.loads(call("evaluate", run, file, *COLUMNS, "--all", "--json").out)
    assert found["examples"] == 150 and found["classes"]["up"]["support"] == 6


def test_a_run_finds_its_own_file_and_notices_another_one(trained: tuple[Path, Path, Said]) -> None:
    run, file, _ = trained
    metrics = json.loads((run / "metrics.json").read_text())
    found = json.loads(call("evaluate", run, "--json").out)
    assert found["examples"] == metrics["test_examples"] == 30
    assert found["accuracy"] == pytest.approx(metrics["test_accuracy"], abs=1e-6)
    rows = file.read_text().splitlines(keepends=True)
    try:
        file.write_text("".join(rows[:-20]))
        said = call("evaluate", run)
        assert said.status == 1 and "has changed" in said.err
        assert call("evaluate", run, file, *COLUMNS).status == 0  # said, so it is measured
        file.unlink()
        said = call("evaluate", run)
        assert said.status == 1 and "say where the data lies" in said.err
    finally:
        file.write_text("".join(rows))


def test_a_file_with_one_label_alone_is_measured(trained: tuple[Path, Path, Said]) -> None:
    run, _, _ = trained
    Path("downs.csv").write_text("text;label\nfilm 1;down\nfilm 2;down\n")
    found = json.loads(call("evaluate", run, "downs.csv", "--all", "--json").out)
    assert found["examples"] == 2 and found["majority_label"] == "down"


def test_a_file_is_labelled(trained: tuple[Path, Path, Said]) -> None:
    run, file, _ = trained
    said = call("predict", run, "--file", file, "--out", "out.csv", "--text-column", "review")
    assert said.status == 0 and said.out == "" and "150 rows are in out.csv" in said.err
    with Path("out.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["review", "stars", "predicted", "p(down)", "p(up)"]
    assert len(rows) == 150


def test_the_name_of_a_file_is_not_a_text(trained: tuple[Path, Path, Said]) -> None:
    run, file, _ = trained
    said = call("predict", run, file)
    assert said.status == 2 and said.out == ""
    assert f"{file} is a file: --file {file}" in said.err
    assert call("predict", run, "--file", file).status == 2


def test_two_runs_are_compared(trained: tuple[Path, Path, Said]) -> None:
    run, file, _ = trained
    said = call("compare", run, run)
    assert "McNemar's exact test: p = 1" in said.out and "no more than chance" in said.out
    assert json.loads(call("compare", run, run, "--json").out)["wins"] == [0, 0]
    said = call("compare", run, file.parent)
    assert said.status == 1 and "has no predictions.csv" in said.err


def test_resume_knows_the_columns(trained: tuple[Path, Path, Said]) -> None:
    run, file, _ = trained
    options = json.loads((run / "options.json").read_text())
    assert options["data"]["text_column"] == "review"
    assert call("train", file, "--class-weights", "x,y", *QUICK).status == 2
