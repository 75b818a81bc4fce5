"""The report on a sweep: tables in Markdown and CSV, pictures, and one page in HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import printable
from ..formats.files import csv_line, write_text
from ..plots import plot_parts, plot_study, write_png
from .literature import LITERATURE, Comparison, compare
from .page import html_page
from .results import (
    Progress,
    Result,
    progress_of,
    reference,
    results_of,
    series,
    smallest_enough,
)
from .study import Study
from .sweep import study_of
from .table import Row, read_rows

Table = tuple[list[str], list[list[str]]]  # header, rows


@dataclass(frozen=True)
class Report:
    """What a sweep came to. Made by `report`.

    Attributes:
        folder: where the report is.
        study, rows, results: what was run and how each cell came out.
        progress: how far the sweep is.
    """

    folder: Path
    study: Study
    rows: Mapping[str, Row]
    results: Sequence[Result]
    progress: Progress

    def __str__(self) -> str:
        return self.markdown()

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(result.task for result in self.results))

    def sections(self) -> list[tuple[str, str, Table | None]]:
        """The report in order: heading, text, table."""
        cells = [("The smallest size that is enough", SMALLEST, smallest_table(self))]
        for task in self.tasks:
            of_task = [result for result in self.results if result.task == task]
            cells.append((f"{task}", task_text(of_task), result_table(of_task)))
        cells.append(("In the literature", PAPERS, literature_table()))
        if comparisons := compare(self.results):
            cells.append(("What agrees with it", AGREEMENT, agreement_table(comparisons)))
        if self.progress.failed:
            cells.append(("Runs that failed", "", failed_table(self.progress)))
        return list(cells)

    def pictures(self) -> dict[str, str]:
        """What each picture beside the report shows, by the name of its file without .png."""
        found = {}
        if self.results:
            found["accuracy"] = "Test accuracy against trained parameters"
        if compared(self):
            found["parts"] = "What each part compares"
        return found

    def summary(self) -> str:
        """How far the sweep is, in a sentence or two."""
        progress = self.progress
        text = f"{progress.done} of {progress.planned} runs done, {len(progress.failed)} failed"
        if progress.others:
            text += f"; {progress.others} rows belong to no cell of the study as it is now"
        return text + "."

    def as_dict(self) -> dict[str, Any]:
        """Plain values: how far it is, the cells, and the smallest sizes, by task and method."""
        header, lines = cells_csv(self.results)
        enough = {task: smallest_enough(self.results, task) for task in self.tasks}
        return {
            "study": self.study.name,
            "folder": str(self.folder),
            "done": self.progress.done,
            "planned": self.progress.planned,
            "failed": {row.key: row.error for row in self.progress.failed},
            "cells": [dict(zip(header, line, strict=True)) for line in lines],
            "smallest_enough": {
                task: {method: found and found.label for method, found in of_task.items()}
                for task, of_task in enough.items()
            },
        }

    def markdown(self) -> str:
        """All tables as Markdown."""
        parts = [f"# Study: {self.study.name}", self.summary()]
        for name, title in self.pictures().items():  # as links: they are wider than a phone
            parts.append(f"[![{title}]({name}.png)]({name}.png)")
        for heading, text, table in self.sections():
            parts += [f"## {heading}", text, markdown_table(table) if table else ""]
        return "\n\n".join(part for part in parts if part) + "\n"


SMALLEST = (
    "For each task and method, the fewest trained parameters whose mean test accuracy is within "
    "one standard error of full fine-tuning. The standard error of a mean accuracy p is "
    "sqrt(p (1 - p) / n + s²/k), from n test examples and k seeds with standard deviation s."
)
PAPERS = "Figures of the papers; other bases and other tasks, so only the pattern can be compared."

AGREEMENT = (
    "A difference of up to two standard errors may be chance. So two that are said to be the same "
    "agree within it, and which of two is better cannot be told."
)


def report(folder: str | Path, to: str | Path | None = None) -> Report:
    """Read the rows of a sweep and write the report beside them; what is there is replaced.

    `to`: another folder for it, for one that is shown without the sweep.

    `report.md`, `report.html` (self-contained), `cells.csv` (a line for each cell), `rows.csv` (a
    line for each run), `accuracy.png` and, where parts compare settings, `parts.png`. An unfinished
    sweep gives a report on what there is.

    Raises: ConfigError if the folder holds no sweep; CheckpointError for a damaged row.
    """
    folder = Path(folder).expanduser()
    study = study_of(folder)
    rows = read_rows(folder)
    results = results_of(study, rows)
    folder = Path(to).expanduser() if to is not None else folder
    folder.mkdir(parents=True, exist_ok=True)
    made = Report(folder, study, rows, results, progress_of(study, rows))
    pictures = []
    for name, title in made.pictures().items():
        write_png(DRAWN[name](made), folder / f"{name}.png")
        pictures.append((title, (folder / f"{name}.png").read_bytes()))
    write_text(folder / "report.md", printable(made.markdown()))
    page = html_page(f"Study: {study.name}", made.summary(), pictures, made.sections())
    write_text(folder / "report.html", page)
    write_text(folder / "cells.csv", csv_text(*cells_csv(results)))
    write_text(folder / "rows.csv", csv_text(*rows_csv(rows)))
    return made


# -- pictures ------------------------------------------------------------------------------


def accuracy_figure(made: Report) -> Any:
    """A panel for each task: a line for each method, full fine-tuning as the reference."""
    panels = {}
    for task in made.tasks:
        lines = series([result for result in made.results if result.task == task])
        lines.sort(key=len, reverse=True)  # the longest of each method becomes its line
        full = reference(made.results, task)
        panels[task] = (
            [(line[0].method, [point(result) for result in line]) for line in lines],
            (full.accuracy, full.standard_error) if full is not None else None,
        )
    return plot_study(panels)


def parts_figure(made: Report) -> Any:
    """A panel for each task and part that compares settings."""
    return plot_parts(compared(made), len(made.tasks))


DRAWN = {"accuracy": accuracy_figure, "parts": parts_figure}  # by the name of the file


def point(result: Result) -> tuple[int, list[float]]:
    return result.trained, result.accuracies


def compared(made: Report) -> dict[str, list[tuple[str, list[float]]]]:
    """For each task and part with several cells that differ in more than size: its results."""
    found = {}
    for part in made.study.parts:
        for task in made.tasks:
            results = [r for r in made.results if r.task == task and part.name in r.parts]
            if len({(result.method, result.setting) for result in results}) > 1:
                found[f"{task}: {part.name}"] = [(r.label, r.accuracies) for r in results]
    return found


# -- tables --------------------------------------------------------------------------------


def smallest_table(made: Report) -> Table:
    header = ["task", "full fine-tuning", "method", "smallest within one standard error"]
    header += ["trained", "share", "test accuracy"]
    lines = []
    for task in made.tasks:
        full = reference(made.results, task)
        if full is None:
            lines.append([task, "not run", "", "", "", "", ""])
            continue
        named = f"{percent(full.accuracy)} ± {percent(full.standard_error)}"
        for method, result in smallest_enough(made.results, task).items():
            if result is None:
                lines.append([task, named, method, "none", "", "", ""])
            else:
                share = f"{100 * result.trained / (full.trained or 1):.3f} %"
                accuracy = percent(result.accuracy)
                trained = f"{result.trained:,}"
                lines.append([task, named, method, result.label, trained, share, accuracy])
    return header, lines


def task_text(results: Sequence[Result]) -> str:
    row = results[0].rows[0]
    return (
        f"{row.train_examples:,} training and {row.test_examples:,} test examples. The learning "
        "rate of each line was chosen on the validation split, with the first seed. The trained "
        "parameters include the classification head."
    )


def result_table(results: Sequence[Result]) -> Table:
    header = ["method", "setting", "size", "trained", "learning rate", "seeds", "test accuracy"]
    header += ["± over seeds", "standard error", "training s"]
    lines = [
        [
            result.method,
            result.setting,
            str(result.size) if result.size is not None else "",
            f"{result.trained:,}",
            f"{result.rate:g}",
            str(len(result.rows)),
            percent(result.accuracy),
            percent(result.deviation) if result.deviation is not None else "",
            percent(result.standard_error),
            f"{result.seconds:.0f}",
        ]
        for result in results
    ]
    return header, lines


def literature_table() -> Table:
    return (
        ["paper", "finding", "where"],
        [[f"{f.paper} (arXiv {f.arxiv})", f.statement, f.where] for f in LITERATURE],
    )


def agreement_table(comparisons: Sequence[Comparison]) -> Table:
    header = ["paper", "task", "first", "test accuracy", "second", "test accuracy"]
    header += ["difference", "± standard error", "verdict"]
    return header, [
        [
            f"{c.finding.paper}, {c.finding.where}",
            c.first.task,
            c.first.label,
            percent(c.first.accuracy),
            c.second.label,
            percent(c.second.accuracy),
            f"{100 * c.difference:+.1f}",
            f"{100 * c.standard_error:.1f}",
            c.verdict,
        ]
        for c in comparisons
    ]


def failed_table(progress: Progress) -> Table:
    return ["run", "error"], [[row.key, row.error or ""] for row in progress.failed]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def markdown_table(table: Table) -> str:
    """A table in Markdown; a bar inside a cell is escaped."""
    header, rows = table

    def line(cells: Sequence[str]) -> str:
        clean = (" ".join(cell.split()).replace("|", r"\|") for cell in cells)
        return f"| {' | '.join(clean)} |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])


# -- CSV -----------------------------------------------------------------------------------


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return "".join(map(csv_line, [header, *rows]))


def cells_csv(results: Sequence[Result]) -> tuple[list[str], list[list[Any]]]:
    """A line for each cell, numbers in full."""
    header = "task method setting size parts lr seeds trained parameters test_accuracy".split()
    header += "deviation standard_error validation_accuracy training_seconds".split()
    lines = [
        [
            result.task,
            result.method,
            result.setting,
            result.size,
            " ".join(result.parts),
            result.rate,
            len(result.rows),
            result.trained,
            result.rows[0].parameters,
            result.accuracy,
            result.deviation,
            result.standard_error,
            result.rows[0].validation_accuracy,
            result.seconds,
        ]
        for result in results
    ]
    return header, lines


def rows_csv(rows: Mapping[str, Row]) -> tuple[list[str], list[list[Any]]]:
    """A line for each run; what is no number or text is JSON."""
    header = [field.name for field in fields(Row)]

    def cell(value: Any) -> Any:
        return json.dumps(value) if isinstance(value, dict | tuple | list) else value

    return header, [[cell(value) for value in asdict(row).values()] for row in rows.values()]
