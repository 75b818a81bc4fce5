"""Sweeps on this machine: every run once, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from minitransformer.data.batches import Batch
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.sweeps import local
from minitransformer.sweeps import sweep as sweep_module
from minitransformer.sweeps.study import read_study
from minitransformer.sweeps.sweep import best_of, due, sweep
from minitransformer.sweeps.table import Row, read_rows
from minitransformer.training.history import HistoryRow
from minitransformer.training.process import cores
from minitransformer.training.trainer import Trainer
from sweeps.studies import RUNS, TINY, row_files, write_study


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny study has been run, in this process."""
    folder = tmp_path_factory.mktemp("sweep")
    return sweep(write_study(folder), folder / "out", jobs=1)


def test_a_row_for_each_run(finished: Path) -> None:
    rows = read_rows(finished)
    assert len(rows) == RUNS
    assert all(row.finished for row in rows.values())
    for row in rows.values():
        assert row.test_examples == 32
        assert row.train_examples == 64
        assert 0 <= row.test_accuracy <= 1
        assert len(row.epochs) == 2
        assert row.validation_accuracy == max(row.epochs[1:])
    trained = {
        (row.values.get("method"), row.values.get("bottleneck")): row.trained
        for row in rows.values()
    }
    assert trained["head", None] < trained[None, 2] < trained[None, 8] < trained["full", None]


def test_the_other_seeds_are_run_at_the_best_rate(finished: Path) -> None:
    rows = read_rows(finished)
    for cell in read_study(finished.parent / "study.toml").parts[0].cells:
        first = [rows[run.key] for run in cell.first_phase()]
        best = best_of(cell, rows)
        assert best.validation_accuracy == max(row.validation_accuracy for row in first)
        others = {row.key for row in rows.values() if row.values["seed"] == 1}
        assert cell.run(best.values["lr"], 1).key in others
        (worse,) = {1e-3, 1e-2} - {best.values["lr"]}
        assert cell.run(worse, 1).key not in others


def test_a_finished_sweep_runs_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = row_files(finished)
    monkeypatch.setattr(local, "run_into", None)
    sweep(finished.parent / "study.toml", finished, jobs=1)
    assert row_files(finished) == before


def test_several_processes_give_the_same_rows(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    if cores() < 2:
        pytest.skip("one core")
    out = sweep(write_study(tmp_path), tmp_path / "out", jobs=2)
    ours, theirs = read_rows(out), read_rows(finished)
    assert ours.keys() == theirs.keys()
    for key, row in ours.items():
        assert row.test_loss == pytest.approx(theirs[key].test_loss, rel=1e-4)
        assert row.threads == cores() // 2


def test_rates_are_chosen_by_accuracy_then_loss(tmp_path: Path) -> None:
    cell = read_study(write_study(tmp_path)).parts[0].cells[0]
    low, high = (run.key for run in cell.first_phase())

    def row(key: str, accuracy: float, loss: float) -> Row:
        return Row(key, "t", {}, validation_accuracy=accuracy, validation_loss=loss)

    assert best_of(cell, {}) is None
    assert best_of(cell, {low: row(low, 0.6, 0.9), high: row(high, 0.5, 0.1)}).key == low
    assert best_of(cell, {low: row(low, 0.6, 0.9), high: row(high, 0.6, 0.8)}).key == high
    failed = Row(low, "t", {}, error="TrainingError: nan")
    assert best_of(cell, {low: failed, high: row(high, 0.1, 9.0)}).key == high
    assert best_of(cell, {low: failed}) is None


def test_a_cell_without_a_rate_that_works_has_no_second_phase(tmp_path: Path) -> None:
    cell = read_study(write_study(tmp_path)).parts[0].cells[0]
    rows = {run.key: Row(run.key, "t", {}, error="bad") for run in cell.first_phase()}
    assert due([cell], {}) == cell.first_phase()
    assert due([cell], rows) == []


def test_a_failed_run_is_a_row(tmp_path: Path) -> None:
    text = TINY.replace("bottleneck = [2, 8]", "bottleneck = 2\nlayers = [0, 9]")
    out = sweep(write_study(tmp_path, text), tmp_path / "out", jobs=1)
    failed = [row for row in read_rows(out).values() if not row.finished]
    assert len(failed) == 2
    assert {row.values["layers"] for row in failed} == {9}
    assert all("ConfigError" in row.error and "9" in row.error for row in failed)
    before = row_files(out)
    sweep(tmp_path / "study.toml", out, jobs=1)
    assert row_files(out) == before
    sweep(tmp_path / "study.toml", out, jobs=1, retry=True)
    again = row_files(out)
    assert again.keys() == before.keys()
    changed = {name for name in again if again[name] != before[name]}
    assert changed <= {f"{row.key}.json" for row in failed}


@pytest.mark.slow
def test_a_study_may_grow(finished: Path, tmp_path: Path) -> None:
    one_size = TINY.replace("bottleneck = [2, 8]", "bottleneck = 2")
    out = sweep(write_study(tmp_path, one_size), tmp_path / "out", jobs=1)
    before = row_files(out)
    sweep(write_study(tmp_path), out, jobs=1)
    after = row_files(out)
    assert len(after) == RUNS
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_stopped_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the third run: two rows are there, and the sweep goes on with the third."""
    real, started = local.run_into, []

    def stops(folder: Path, run: object, threads: int = 1) -> Row:
        started.append(run)
        if len(started) == 3:
            raise KeyboardInterrupt
        return real(folder, run, threads)

    monkeypatch.setattr(local, "run_into", stops)
    with pytest.raises(KeyboardInterrupt):
        sweep(write_study(tmp_path), tmp_path / "out", jobs=1)
    assert len(row_files(tmp_path / "out")) == 2
    sweep(tmp_path / "study.toml", tmp_path / "out", jobs=1)
    assert len(row_files(tmp_path / "out")) == RUNS
    assert len(started) == RUNS + 1


def test_stopped_in_the_middle_of_a_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on at the step where it was, to the same row."""
    real, steps = Trainer.train_step, []

    def counted(self: Trainer, batch: Batch, epoch: int) -> HistoryRow:
        steps.append(self.step)
        if len(steps) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, epoch)

    monkeypatch.setattr(Trainer, "train_step", counted)
    study = write_study(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep(study, tmp_path / "out", jobs=1)
    assert len(row_files(tmp_path / "out")) == 0
    sweep(study, tmp_path / "out", jobs=1)
    assert steps[:2] == [0, 1]
    rows, others = read_rows(tmp_path / "out"), read_rows(finished)
    assert [rows[key].epochs for key in others] == [row.epochs for row in others.values()]
    assert [rows[key].test_loss for key in others] == [row.test_loss for row in others.values()]
    assert not list((tmp_path / "out" / "states").iterdir())


DRIVER = """
from pathlib import Path
from minitransformer.sweeps import local, runner
from minitransformer.sweeps.sweep import sweep

def note_starts(folder):
    "From now on, each run that this process really begins is noted."
    from minitransformer.sweeps import runner
    real = runner.run_to_row
    def noted(spec, *others):
        with open(folder / "starts.txt", "a") as file:
            file.write(spec.key + "\\n")
        return real(spec, *others)
    if real.__name__ != "noted":
        runner.run_to_row = noted

def counted(folder, run, threads, parent):
    "In a worker."
    from minitransformer.sweeps import local
    note_starts(folder)
    return local.run_in_worker(folder, run, threads, parent)

local.run_in_worker = counted
note_starts(Path("out"))
sweep("study.toml", "out", jobs=2)
"""


@pytest.mark.slow
def test_killed_and_started_again(tmp_path: Path) -> None:
    """SIGKILL for the driver, twice: no row is lost, and no run that has one is begun again."""
    pytest.importorskip("joblib")
    if cores() < 2:
        pytest.skip("one core")
    write_study(tmp_path)
    (tmp_path / "driver.py").write_text(DRIVER)
    out, kept = tmp_path / "out", {}

    def start() -> subprocess.Popen:
        env_path = str(Path(sweep_module.__file__).parents[2])
        return subprocess.Popen(
            [sys.executable, "driver.py"], cwd=tmp_path, env={**os.environ,
            "PYTHONPATH": env_path},
        )  # fmt: skip

    for wanted in (2, 5):
        driver = start()
        deadline = time.monotonic() + 120
        while len(row_files(out)) < wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        driver.kill()
        driver.wait()
        found = row_files(out)
        assert wanted <= len(found) < RUNS
        assert {name: found[name] for name in kept} == kept
        kept = found
    assert start().wait(timeout=120) == 0
    rows = row_files(out)
    assert len(rows) == RUNS
    assert {name: rows[name] for name in kept} == kept
    begun = Counter((out / "starts.txt").read_text().split())
    assert set(begun) == {name.removesuffix(".json") for name in rows}
    assert all(begun[name.removesuffix(".json")] == 1 for name in kept)


@pytest.mark.parametrize("jobs", [0, -1, 1000, 1.5])
def test_never_more_processes_than_cores(tmp_path: Path, jobs: object) -> None:
    with pytest.raises(ConfigError, match=f"jobs={jobs!r}: expected 1 to"):
        sweep(write_study(tmp_path), tmp_path / "out", jobs=jobs)


def test_without_joblib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    monkeypatch.setattr(local, "cores", lambda: 2)
    with pytest.raises(ConfigError, match=r"pip install 'minitransformer\[sweep\]'"):
        sweep(write_study(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("instant", ["before its first file", "in it", "after it"])
def test_stopped_at_its_first_file(
    instant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, study = tmp_path / "sweep", write_study(tmp_path, TINY)
    write_text = sweep_module.write_text

    def stopped(path: Path, text: str) -> None:
        if instant == "after it":
            write_text(path, text)
        if instant == "in it":  # killed: nothing is tidied up
            path.with_name(f".{path.name}.123.tmp").write_text(text[:9])
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_module, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(study, folder, jobs=1)
    monkeypatch.undo()
    monkeypatch.setattr(sweep_module, "run_all", lambda *_: None)
    assert sweep(study, folder, jobs=1) == folder
    assert read_study(study).name == sweep_module.study_of(folder).name


def test_folders_that_do_not_fit(finished: Path, tmp_path: Path) -> None:
    other = write_study(tmp_path, TINY.replace('name = "tiny"', 'name = "other"'))
    with pytest.raises(ConfigError, match="holds the study 'tiny', not 'other'"):
        sweep(other, finished, jobs=1)
    with pytest.raises(ConfigError, match="holds no sweep"):
        sweep(other, tmp_path, jobs=1)


def test_a_damaged_row_is_named(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "x.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"x\.json holds no row"):
        read_rows(tmp_path)
