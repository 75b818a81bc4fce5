"""What the rows of a sweep come to: a line for each cell, and the smallest size that is enough."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .study import Cell, Study
from .sweep import best_of, planned
from .table import Row

SIZES = {"bottleneck": "m", "rank": "r", "prefix_length": "P"}  # the size of each kind of method
UNSAID = ("method", "base", "lr")  # not in a cell's description


@dataclass(frozen=True)
class Result:
    """A cell and how it came out.

    Attributes:
        cell: what was run.
        parts: names of the parts that it belongs to.
        method, size: of the cell; size is m, rank or prefix length, None where there is none.
        setting: what else is particular about it, as "houlsby".
        rate: the learning rate that was chosen on the validation split.
        rows: finished runs at this rate, a seed each.
    """

    cell: Cell
    parts: tuple[str, ...]
    method: str
    size: int | None
    setting: str
    rate: float
    rows: tuple[Row, ...] = field(repr=False)

    @property
    def task(self) -> str:
        return self.cell.task.name

    @property
    def label(self) -> str:
        """What it is, in a few words: "adapter houlsby m=8"."""
        letter = next((SIZES[name] for name in SIZES if name in self.cell.values), "size")
        size = f"{letter}={self.size}" if self.size is not None else ""
        return " ".join(word for word in (self.method, self.setting, size) if word)

    @property
    def trained(self) -> int:
        """Parameters that train, the head's among them."""
        return self.rows[0].trained or 0

    @property
    def accuracies(self) -> list[float]:
        """On the test split, a seed each."""
        return [row.test_accuracy for row in self.rows if row.test_accuracy is not None]

    @property
    def accuracy(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None for a single one."""
        return statistics.stdev(self.accuracies) if len(self.rows) > 1 else None

    @property
    def standard_error(self) -> float:
        """Of the mean accuracy p, from n test examples and k seeds: sqrt(p (1 - p) / n + s^2 / k).

        The first term is the chance of the test examples, the same for all seeds; the second that
        of the seeds, with s their standard deviation.
        """
        p, n, k = self.accuracy, self.rows[0].test_examples or 1, len(self.rows)
        return ((p * (1 - p)) / n + (self.deviation or 0.0) ** 2 / k) ** 0.5

    @property
    def seconds(self) -> float:
        """Training time, mean over the seeds, on a machine with other runs to do."""
        return statistics.fmean(row.training_seconds or 0.0 for row in self.rows)


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: runs that have a row, of how many; those that failed; rows of no cell."""

    done: int
    planned: int
    failed: tuple[Row, ...]
    others: int


def results_of(study: Study, rows: Mapping[str, Row]) -> list[Result]:
    """A result for each cell that has a finished run at its chosen rate, in the study's order.

    A cell whose first phase has not ended has no chosen rate yet, and no result.
    """
    varied = varying(study.cells())
    found = []
    for cell in study.cells():
        if any(run.key not in rows for run in cell.first_phase()):
            continue
        best = best_of(cell, rows)
        if best is None:
            continue
        chosen = [best.key, *(run.key for run in cell.second_phase(best.values.get("lr")))]
        finished = tuple(rows[key] for key in chosen if key in rows and rows[key].finished)
        size = next((cell.values[name] for name in SIZES if name in cell.values), None)
        found.append(
            Result(
                cell,
                tuple(part.name for part in study.parts if cell in part.cells),
                cell.values.get("method", "adapter"),
                size,
                setting(cell.values, varied),
                best.options["training"]["lr"],
                finished,
            )
        )
    return found


def progress_of(study: Study, rows: Mapping[str, Row]) -> Progress:
    """How far a sweep is."""
    known = {run.key for cell in study.cells() for run in planned(cell, rows)}
    mine = [rows[key] for key in known if key in rows]
    failed = sorted((row for row in mine if not row.finished), key=lambda row: row.key)
    lost = sum(
        len(cell.seeds) - 1
        for cell in study.cells()
        if all(run.key in rows for run in cell.first_phase()) and best_of(cell, rows) is None
    )  # no rate could be chosen: the other seeds are not run
    return Progress(len(mine), study.run_count() - lost, tuple(failed), len(rows) - len(mine))


def varying(cells: Iterable[Cell]) -> set[str]:
    """The options in which cells of one task and method differ; to have none is to differ, too."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        where = (cell.task.name, cell.values.get("method", "adapter"))
        groups.setdefault(where, []).append(cell.values)
    return {
        name
        for group in groups.values()
        for name in set().union(*group)
        if len({repr(values.get(name)) for values in group}) > 1
    }


def setting(values: Mapping[str, Any], varied: set[str]) -> str:
    """A cell's options in words, without its method, its size, and what is the same everywhere."""
    words = []
    for name, value in values.items():
        if name in SIZES or name in UNSAID or (name not in varied and name != "placement"):
            continue
        if name == "sites":
            words.append(f"at {value}")
        else:
            words.append(str(value) if name == "placement" else f"{name}={value}")
    return " ".join(words)


def series(results: Sequence[Result]) -> list[list[Result]]:
    """Results that differ in size alone, smallest first: a line of the picture each."""
    lines: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        lines.setdefault((result.task, result.method, result.setting), []).append(result)
    return [sorted(line, key=lambda result: result.trained) for line in lines.values()]


def reference(results: Iterable[Result], task: str) -> Result | None:
    """Full fine-tuning on a task."""
    return next((r for r in results if r.task == task and r.method == "full"), None)


def smallest_enough(results: Sequence[Result], task: str) -> dict[str, Result | None]:
    """For each method the smallest result within one standard error of full fine-tuning.

    Smallest by trained parameters; None for a method without such a one. Empty without full
    fine-tuning to compare with.
    """
    full = reference(results, task)
    if full is None:
        return {}
    enough = full.accuracy - full.standard_error
    found: dict[str, Result | None] = {}
    for result in sorted(results, key=lambda result: result.trained):
        if result.task == task and result.method != "full":
            passes = result.accuracy >= enough
            if found.get(result.method) is None:
                found[result.method] = result if passes else None
    return found
