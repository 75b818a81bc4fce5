"""The report: what it says follows from the rows, and its page needs nothing beside it."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import pytest

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.errors import ConfigError
from minitransformer.sweeps.literature import compare
from minitransformer.sweeps.report import report
from minitransformer.sweeps.results import results_of, series, smallest_enough
from minitransformer.sweeps.study import read_study
from minitransformer.sweeps.sweep import open_folder
from minitransformer.sweeps.table import Row, write_row
from sweeps.studies import RUNS, TINY, write_study

TRAINED = {"head": 130, "full": 132_418, 2: 1_418, 8: 4_514}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep whose rows are made up: m = 8 comes within a standard error of full, m = 2 not."""
    study = read_study(write_study(tmp_path))
    out = tmp_path / "out"
    open_folder(out, study)
    accuracy = {"head": 0.50, "full": 0.80, 2: 0.60, 8: 0.79}
    for cell in study.cells():
        what = cell.values.get("bottleneck", cell.values.get("method"))
        for run in (*cell.first_phase(), *cell.second_phase(cell.rates[-1])):
            lr, seed = run.values.get("lr"), run.values["seed"]
            row = Row(
                run.key,
                "toy-reviews",
                dict(run.values),
                {"training": {"lr": lr if lr is not None else 5e-5}},
                validation_accuracy=0.9 if lr == 1e-2 else 0.4,
                validation_loss=0.5,
                # the rate that is worse on validation is better in the test: it must not be chosen
                test_accuracy=accuracy[what] + 0.01 * seed + (0.2 if lr == 1e-3 else 0.0),
                test_loss=0.5,
                test_examples=100,
                train_examples=64,
                trained=TRAINED[what],
                parameters=132_418,
                training_seconds=1.0,
                epochs=(0.5, 0.9),
            )
            write_row(out, row)
    return out


def test_results_are_means_at_the_rate_of_the_validation_split(folder: Path) -> None:
    made = report(folder)
    found = {result.label: result for result in made.results}
    assert set(found) == {"adapter m=2", "adapter m=8", "head", "full"}
    assert found["adapter m=8"].accuracy == pytest.approx(0.795)
    assert found["adapter m=8"].rate == 1e-2
    assert found["adapter m=8"].deviation == pytest.approx(0.01 / math.sqrt(2))
    error = math.sqrt(0.795 * 0.205 / 100 + 0.01**2 / 2 / 2)
    assert found["adapter m=8"].standard_error == pytest.approx(error)
    assert made.progress.done == made.progress.planned == RUNS


def test_the_smallest_that_is_enough(folder: Path) -> None:
    found = smallest_enough(report(folder).results, "toy-reviews")
    assert found["head"] is None
    assert found["adapter"] is not None
    assert found["adapter"].size == 8
    assert "full" not in found


def test_without_full_fine_tuning_nothing_is_compared(tmp_path: Path) -> None:
    text = TINY.replace('method = ["head", "full"]', 'method = "head"')
    out = mt.sweep(write_study(tmp_path, text), tmp_path / "out", jobs=1)
    made = report(out)
    assert smallest_enough(made.results, "toy-reviews") == {}
    assert "not run" in str(made)
    assert (out / "accuracy.png").stat().st_size > 5000


def test_a_line_of_the_picture_differs_in_size_alone(folder: Path) -> None:
    lines = series(report(folder).results)
    assert sorted([result.size for result in line] for line in lines if len(line) > 1) == [[2, 8]]
    assert len(lines) == 3


def test_files(folder: Path) -> None:
    made = mt.report(folder)
    with (folder / "cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == len(made.results)
    by_size = {(cell["method"], cell["size"]): cell for cell in cells}
    assert float(by_size["adapter", "8"]["test_accuracy"]) == pytest.approx(0.795)
    assert int(by_size["full", ""]["trained"]) == 132_418
    with (folder / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == RUNS
    assert {json.loads(row["values"])["seed"] for row in rows} == {0, 1}
    markdown = (folder / "report.md").read_text("utf-8")
    assert markdown == str(made)
    assert "| adapter |  | 8 | 4,514 | 0.01 | 2 | 79.5 %" in markdown
    assert "86.2 / 85.8 / 85.7" in markdown


def test_the_page_needs_nothing_beside_it(folder: Path) -> None:
    report(folder)
    page = (folder / "report.html").read_text("utf-8")
    sources = re.findall(r"(?:src|href)=\"([^\"]{0,22})", page)
    assert len(sources) == 2
    assert all(source == "data:image/png;base64," for source in sources)
    assert "<script" not in page
    assert "79.5 %" in page


def test_what_a_run_says_is_text_in_the_page(folder: Path) -> None:
    study = read_study(folder.parent / "study.toml")
    run = study.parts[0].cells[0].first_phase()[0]
    write_row(folder, Row(run.key, "toy-reviews", dict(run.values), error="<b>bad</b> | worse"))
    report(folder)
    assert "&lt;b&gt;bad&lt;/b&gt;" in (folder / "report.html").read_text("utf-8")
    assert r"<b>bad</b> \| worse" in (folder / "report.md").read_text("utf-8")


def test_of_an_unfinished_sweep(folder: Path) -> None:
    study = read_study(folder.parent / "study.toml")
    cell = study.parts[0].cells[0]
    for run in cell.first_phase()[1:]:
        (folder / "rows" / f"{run.key}.json").unlink()
    made = report(folder)
    assert [r.label for r in made.results] == ["adapter m=8", "head", "full"]
    assert made.progress.planned == RUNS
    # The second seed of that cell is of no cell until its rate is chosen again.
    assert (made.progress.done, made.progress.others) == (RUNS - 2, 1)
    for path in (folder / "rows").glob("*.json"):
        path.unlink()
    assert report(folder).summary() == f"0 of {RUNS} runs done, 0 failed."


def test_a_cell_that_failed(folder: Path) -> None:
    study = read_study(folder.parent / "study.toml")
    cell = study.parts[0].cells[0]
    for run in (*cell.first_phase(), *cell.second_phase(1e-2)):
        (folder / "rows" / f"{run.key}.json").unlink()
    for run in cell.first_phase():
        write_row(folder, Row(run.key, "toy-reviews", dict(run.values), error="bad"))
    made = report(folder)
    assert made.progress.planned == RUNS - 1
    assert made.progress.done == RUNS - 1
    assert len(made.progress.failed) == 2
    assert "adapter m=2" not in {result.label for result in made.results}


def test_no_sweep_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no sweep"):
        report(tmp_path)


def test_settings_are_named_where_they_vary(tmp_path: Path) -> None:
    text = TINY.replace("bottleneck = [2, 8]", 'bottleneck = 2\nsites = ["attention", "ffn"]')
    text += '\n[[part]]\nname = "upper"\nbottleneck = 2\nsites = "ffn"\nlayers = "1"\n'
    study = read_study(write_study(tmp_path, text))
    rows = {
        run.key: Row(
            run.key, "toy-reviews", dict(run.values), {"training": {"lr": 0.1}},
            validation_accuracy=0.5, validation_loss=0.5, test_accuracy=0.5, test_examples=9,
            trained=1,
        )
        for cell in study.cells()
        for run in cell.first_phase()
    }  # fmt: skip
    labels = [result.label for result in results_of(study, rows)]
    upper = "adapter at ffn layers=1 m=2"  # only one cell has the option
    assert labels == ["adapter at attention m=2", "adapter at ffn m=2", "head", "full", upper]


COMPARED = """
name = "compared"
[run]
base = "tiny"
[[task]]
name = "toy-reviews"
[[part]]
name = "full"
method = "full"
[[part]]
name = "sizes"
placement = "houlsby"
bottleneck = [2, 8]
[[part]]
name = "placements"
placement = ["pfeiffer", "parallel"]
bottleneck = 8
[[part]]
name = "sites"
placement = "houlsby"
sites = ["attention", "ffn"]
bottleneck = 8
"""


def test_what_agrees_with_the_papers(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, COMPARED))
    accuracy = {
        "full": 0.80,
        "adapter houlsby m=2": 0.70,  # the size matters here
        "adapter houlsby m=8": 0.79,  # as good as full
        "adapter pfeiffer m=8": 0.79,  # and so is one adapter a block
        "adapter parallel m=8": 0.85,  # better than sequential, below
        "adapter houlsby at attention m=8": 0.78,  # worse than the next, by less than chance does
        "adapter houlsby at ffn m=8": 0.79,
    }
    rows = {}
    for label, cell in zip(accuracy, study.cells(), strict=True):
        (run,) = cell.first_phase()
        rows[run.key] = Row(
            run.key, "toy-reviews", dict(run.values), {"training": {"lr": 0.1}},
            validation_accuracy=accuracy[label], validation_loss=0.5,
            test_accuracy=accuracy[label], test_examples=2000, trained=1,
        )  # fmt: skip
    results = results_of(study, rows)
    assert [result.label for result in results] == list(accuracy)
    found = compare(results)
    assert [(c.first.label, c.second.label, c.verdict) for c in found] == [
        ("adapter houlsby m=2", "adapter houlsby m=8", "does not agree"),
        ("adapter houlsby m=8", "full", "agrees"),
        ("adapter pfeiffer m=8", "adapter houlsby m=8", "agrees"),
        ("adapter parallel m=8", "adapter houlsby at ffn m=8", "agrees"),
        ("adapter houlsby at ffn m=8", "adapter houlsby at attention m=8", "cannot be told"),
    ]
    assert found[0].difference == pytest.approx(-0.09)
    errors = [accuracy[label] * (1 - accuracy[label]) / 2000 for label in list(accuracy)[1:3]]
    assert found[0].standard_error == pytest.approx(math.sqrt(sum(errors)))


def test_in_another_folder(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "docs" / "study"
    assert main(["report", str(folder), "--to", str(there)]) == 0
    assert not (folder / "report.md").exists()
    assert (there / "report.md").read_text("utf-8") == str(report(folder))
    assert {path.name for path in there.iterdir()} == {
        *("report.md", "report.html", "cells.csv", "rows.csv", "accuracy.png", "parts.png"),
    }


def test_both_forms_show_every_picture_that_is_drawn(folder: Path) -> None:
    made = report(folder)
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn == set(made.pictures()) == {"accuracy", "parts"}
    markdown, page = ((folder / f"report.{kind}").read_text("utf-8") for kind in ("md", "html"))
    for name, shows in made.pictures().items():
        assert f"[![{shows}]({name}.png)]({name}.png)" in markdown
        assert f'<img alt="{shows}"' in page
    assert page.count("<img") == markdown.count("![") == 2


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, out = write_study(tmp_path), tmp_path / "out"
    assert main(["sweep", str(study), "--out", str(out), "--jobs", "1"]) == 0
    printed, bar = capsys.readouterr()
    assert f"{RUNS} of {RUNS} runs done, 0 failed." in printed
    assert f"{RUNS}/{RUNS}" in bar
    assert main(["report", str(out), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["done"], values["planned"], values["failed"]) == (RUNS, RUNS, {})
    assert {cell["method"] for cell in values["cells"]} == {"adapter", "head", "full"}
    assert main(["sweep", str(tmp_path / "none.toml")]) == 2
    assert "cannot read the study" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2


def test_a_sweep_with_failed_runs_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TINY.replace("bottleneck = [2, 8]", "bottleneck = 2\nlayers = 9")
    study = write_study(tmp_path, text)
    assert main(["sweep", str(study), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    assert "2 runs failed" in capsys.readouterr().err
