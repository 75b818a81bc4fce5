"""Run a study: what is due, in which order, and how far it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from ..data.datasets import load_task
from ..data.hub import find_checkpoint
from ..errors import CheckpointError, ConfigError
from ..formats.files import write_text
from .cluster import run_on_cluster
from .local import run_here
from .study import Cell, RunSpec, Study, from_dict, read_study, to_dict
from .table import ROWS, Row, read_rows, row_file

STUDY = "study.json"  # in the folder of a sweep: the study as it was read
BEGUN = r"\.study\.json\.\d+\.tmp"  # a sweep that was killed at its first file

Execute = Callable[[list[RunSpec]], Iterable[Row]]  # the rows as they end, each on disk by then


def sweep(
    study: str | Path | Study,
    out: str | Path | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    retry: bool = False,
    progress: bool = False,
) -> Path:
    """Run a study, or what is left of it: what `minitransformer sweep` does. Returns its folder.

    Each run that ends is a row on disk at once (`table.py`). A sweep that was stopped, or killed,
    goes on when it is called again with the same folder; no run that has a row is run again. A run
    that fails is a row with its error; `retry` runs those again.

    `out`: the folder (default: sweeps/NAME). `jobs`: runs at the same time on this machine, each on
    its share of the cores (default: one for each core). `scheduler`: address of a Dask scheduler,
    as "tcp://10.0.0.1:8786", whose workers then do the runs; this library must be installed there,
    and data files must lie at the same path. `progress`: show a bar with the time that is left.

    Raises: ConfigError for a study, folder, `jobs` or `scheduler` that cannot be, or if the package
    joblib or distributed is missing; DataError, HubError for a task or base that cannot be read;
    TrainingError if a worker process was killed.
    """
    if scheduler is not None and jobs is not None:
        raise ConfigError(
            f"jobs={jobs}: with a scheduler, its workers say how many runs go at once"
        )
    study = study if isinstance(study, Study) else read_study(study)
    folder = Path(out).expanduser() if out is not None else default_folder(study)
    execute = (
        partial(run_on_cluster, folder=folder, address=scheduler)
        if scheduler is not None
        else partial(run_here, folder=folder, jobs=jobs)
    )
    open_folder(folder, study)
    rows = read_rows(folder)
    if retry:
        for row in [row for row in rows.values() if not row.finished]:
            row_file(folder, row.key).unlink()
            del rows[row.key]
    if any(due(part.cells, rows) for part in study.parts):
        if scheduler is None:
            fetch(study)
        run_all(study, rows, execute, progress)
    return folder


def run_all(study: Study, rows: dict[str, Row], execute: Execute, progress: bool) -> None:
    """Part by part, first the learning rates and then the other seeds; fills in `rows`."""
    from tqdm.auto import tqdm

    known = sum(1 for cell in study.cells() for run in planned(cell, rows) if run.key in rows)
    with tqdm(total=study.run_count(), initial=known, unit="run", disable=not progress) as bar:
        for part in study.parts:
            while runs := due(part.cells, rows):
                for row in execute(runs):
                    rows[row.key] = row
                    failed = sum(1 for row in rows.values() if not row.finished)
                    bar.set_postfix_str(f"{row.key}: {outcome(row)}; {failed} failed", False)
                    bar.update()


def outcome(row: Row) -> str:
    return f"{row.test_accuracy:.3f}" if row.test_accuracy is not None else "failed"


# -- what is due ---------------------------------------------------------------------------


def due(cells: Iterable[Cell], rows: Mapping[str, Row]) -> list[RunSpec]:
    """The runs that can be done now: those without a row, each once.

    The second phase of a cell is due when its first one has ended.
    """
    runs = {run.key: run for cell in cells for run in planned(cell, rows)}
    return [run for key, run in runs.items() if key not in rows]


def planned(cell: Cell, rows: Mapping[str, Row]) -> list[RunSpec]:
    """The runs of a cell, as far as they are known: of both phases once the rate is chosen."""
    first = cell.first_phase()
    if any(run.key not in rows for run in first):
        return first
    best = best_of(cell, rows)
    return [*first, *cell.second_phase(best.values.get("lr"))] if best is not None else first


def best_of(cell: Cell, rows: Mapping[str, Row]) -> Row | None:
    """The row of the first phase that is best on validation; None if none has reached its end.

    By accuracy; of equal ones that with the smaller loss.
    """
    ended = [rows[run.key] for run in cell.first_phase() if run.key in rows]
    ended = [row for row in ended if row.finished]
    if not ended:
        return None
    return max(ended, key=lambda row: (row.validation_accuracy, -(row.validation_loss or 0.0)))


# -- the folder ----------------------------------------------------------------------------


def open_folder(folder: Path, study: Study) -> None:
    """Note the study in its folder. It may have grown; one of another name is refused."""
    if (folder / STUDY).exists():
        there = study_of(folder)
        if there.name != study.name:
            raise ConfigError(
                f"{folder} holds the study {there.name!r}, not {study.name!r}: "
                "choose another folder"
            )
    elif folder.exists() and not (
        folder.is_dir() and all(re.fullmatch(BEGUN, path.name) for path in folder.iterdir())
    ):
        raise ConfigError(f"{folder} is there already and holds no sweep: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / STUDY, json.dumps(to_dict(study), indent=1) + "\n")  # first: it says whose
    (folder / ROWS).mkdir(exist_ok=True)


def default_folder(study: Study) -> Path:
    """Where a sweep goes that is not told where."""
    return Path("sweeps") / study.name


def study_of(folder: Path) -> Study:
    """The study in the folder of a sweep. Raises: ConfigError if there is none."""
    try:
        return from_dict(json.loads((folder / STUDY).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} holds no sweep: {STUDY} is missing") from error
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder / STUDY} is damaged: {error}") from error


def fetch(study: Study) -> None:
    """Read every task and find every base once: before any run, in one process."""
    tasks = {cell.task.name: cell.task for cell in study.cells()}
    for task in tasks.values():
        load_task(task.path or task.name, limit=task.limit)
    for base in {cell.values.get("base", "minilm") for cell in study.cells()}:
        find_checkpoint(base)
