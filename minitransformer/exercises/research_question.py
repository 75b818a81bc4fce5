"""Exercise 9: a small research question: design, run, report."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, WrongAnswer
from ..sweeps.study import Study, parse_study, parse_toml
from ..sweeps.sweep import sweep
from ..sweeps.table import read_rows
from .catalogue import Part
from .judging import call, rng_for
from .solution import Solution, variant

CHOICES: dict[str, tuple[Any, ...]] = {
    "bottleneck": (1, 2, 4, 8, 16, 32, 64),
    "scaling": (0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
    "placement": ("after_norm", "houlsby", "pfeiffer", "parallel"),
}
SEEDS, VALUES = 3, 3
MOST_RUNS = 18


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """The factor that this student varies, and the values of it."""
    factor = list(CHOICES)[int(rng.integers(len(CHOICES)))]
    chosen = np.sort(rng.choice(len(CHOICES[factor]), VALUES, replace=False))
    return {"factor": factor, "values": [CHOICES[factor][i] for i in chosen]}


def read(text: Any) -> Study:
    """Raises: WrongAnswer with what is wrong in the study."""
    if text is ... or not isinstance(text, str):
        raise WrongAnswer("`STUDY` is not written yet: it is the text of a study")
    try:
        return parse_study(parse_toml(text))
    except ConfigError as error:
        raise WrongAnswer(f"STUDY: {error}") from error


def run_study(text: Any, progress: bool = True) -> list[dict[str, Any]]:
    """Run a study here, one run at a time: for each run its options and the test accuracy.

    A STUDY that is not written yet gives no rows.
    """
    if text is ...:
        return []
    study = read(text)
    if study.run_count() > MOST_RUNS:
        raise WrongAnswer(f"this study has {study.run_count()} runs; at most {MOST_RUNS}, please")
    with tempfile.TemporaryDirectory() as folder:
        rows = read_rows(sweep(study, Path(folder) / "study", jobs=1, progress=progress))
    return [
        {**row.values, "task": row.task, "accuracy": row.test_accuracy, "error": row.error}
        for row in rows.values()
    ]


def design(solution: Solution, seed: int) -> None:
    own = numbers(variant(solution.named_student(), 9))
    factor, values = own["factor"], own["values"]
    cells = list(read(solution.get("STUDY")).cells())
    found = list(dict.fromkeys(cell.values.get(factor) for cell in cells))
    if sorted(map(str, found)) != sorted(map(str, values)):
        raise WrongAnswer(
            f"your factor is {factor!r} with the values {values}, but the study has {found}"
        )
    varied = {
        name
        for name in {n for cell in cells for n in cell.values}
        if name != factor and len({repr(cell.values.get(name)) for cell in cells}) > 1
    }
    if varied or len({cell.task.name for cell in cells}) > 1:
        raise WrongAnswer(
            f"{', '.join(sorted(varied)) or 'the task'} varies as well: then nobody can tell which "
            "of the two made the difference"
        )
    if any(len(cell.seeds) < SEEDS for cell in cells):
        raise WrongAnswer(
            f"the seeds {list(cells[0].seeds)} are too few to tell a difference from chance: take "
            f"at least {SEEDS}"
        )
    if any(len(cell.rates) > 1 for cell in cells):
        raise WrongAnswer("one learning rate, please: a choice of rates takes more runs")


def runs(solution: Solution, seed: int) -> None:
    rows = checked_rows(solution)
    planned = read(solution.get("STUDY")).run_count()
    if len(rows) != planned:
        raise WrongAnswer(f"ROWS has {len(rows)} runs, but the study has {planned}: run it again")
    failed = [row for row in rows if row["error"]]
    if failed:
        raise WrongAnswer(f"{len(failed)} runs failed: {failed[0]['error']}")
    factor = numbers(variant(solution.named_student(), 9))["factor"]
    cells = read(solution.get("STUDY")).cells()
    expected = {(str(cell.values.get(factor)), s) for cell in cells for s in cell.seeds}
    if {(str(row.get(factor)), row["seed"]) for row in rows} != expected:
        raise WrongAnswer("ROWS are those of another study: run the cell again")


def checked_rows(solution: Solution) -> list[dict[str, Any]]:
    rows = solution.get("ROWS")
    if not rows:
        raise WrongAnswer("ROWS is empty: write STUDY, and run it")
    return list(rows)


def statistics(rows: Sequence[Any], factor: str) -> dict[Any, tuple[float, float]]:
    """Mean and sample standard deviation of the accuracy for each value of the factor."""
    by_value: dict[Any, list[float]] = {}
    for row in rows:
        by_value.setdefault(row[factor], []).append(row["accuracy"])
    return {v: (float(np.mean(a)), float(np.std(a, ddof=1))) for v, a in by_value.items()}


def summary(solution: Solution, seed: int) -> None:
    rng = rng_for(seed, 9)
    rows = [
        {"bottleneck": m, "seed": s, "accuracy": float(rng.uniform(0.6, 0.9)), "task": "t"}
        for s in range(4)
        for m in (2, 8, 32)
    ]
    got = call("summary", solution.get("summary"), rows, "bottleneck")
    expected = statistics(rows, "bottleneck")
    if not isinstance(got, dict) or got.keys() != expected.keys():
        raise WrongAnswer(
            "summary(rows, factor) returns a dictionary: for each value of the factor "
            "(mean, standard deviation)"
        )
    for value, (mean, std) in expected.items():
        try:
            their_mean, their_std = map(float, got[value])
        except (TypeError, ValueError) as error:
            raise WrongAnswer(f"summary: for {value} expected (mean, deviation)") from error
        everything = [float(row["accuracy"]) for row in rows]
        accuracies = [float(row["accuracy"]) for row in rows if row["bottleneck"] == value]
        if abs(their_mean - mean) > 1e-9:
            known = {
                float(np.median(accuracies)): "that is the median",
                float(np.sum(accuracies)): "that is the sum: divide by the number of seeds",
                float(np.max(accuracies)): "that is the best seed",
                float(np.mean(everything)): "that is the mean of all rows",
            }
            raise WrongAnswer(f"summary: the mean for {value} is wrong{said(known, their_mean)}")
        if abs(their_std - std) > 1e-9:
            known = {
                float(np.std(accuracies)): "it divides by n; of a sample it is n - 1, ddof=1",
                std**2: "that is the variance: take the root",
                std / len(accuracies) ** 0.5: "that is the standard error of the mean",
                float(np.std(everything, ddof=1)): "that is of all rows",
            }
            raise WrongAnswer(
                f"summary: the standard deviation for {value} is wrong{said(known, their_std)}"
            )


def said(known: dict[float, str], got: float) -> str:
    for value, sentence in known.items():
        if abs(got - value) < 1e-9:
            return f": {sentence}"
    return ", in no pattern known here"


def conclusion(solution: Solution, seed: int) -> None:
    runs(solution, seed)
    factor = numbers(variant(solution.named_student(), 9))["factor"]
    rows = checked_rows(solution)
    values = {row.get(factor) for row in rows}
    if not 2 <= len(values) <= len(rows) / 2:
        raise WrongAnswer(
            "two values, and two seeds for each, are the least that can be compared: first make "
            "the part `design` right"
        )
    found = statistics(rows, factor)
    answer = solution.get("CONCLUSION")
    if not isinstance(answer, dict) or not {"best", "clear"} <= answer.keys():
        raise WrongAnswer('CONCLUSION is a dictionary with "best" and "clear"')
    ranked = sorted(found, key=lambda v: -found[v][0])
    if answer["best"] not in as_good_as(ranked[0], found):
        raise WrongAnswer(f"CONCLUSION['best']={answer['best']!r} has not the highest mean")
    (m1, s1), (m2, s2) = found[ranked[0]], found[ranked[1]]
    # With equal means, any of their deviations may have been taken.
    clear = {m1 - m2 > s1 + found[v][1] for v in as_good_as(ranked[1], found) if v != ranked[0]}
    if bool(answer["clear"]) not in clear:
        raise WrongAnswer(
            f"CONCLUSION['clear']={answer['clear']!r}: the best two means differ by "
            f"{m1 - m2:.4f}, their standard deviations are {s1:.4f} and {s2:.4f}"
        )


def as_good_as(value: Any, found: dict[Any, tuple[float, float]]) -> list[Any]:
    """The values that have the mean of `value`, itself included."""
    return [v for v, (mean, _) in found.items() if abs(mean - found[value][0]) < 1e-12]


LIBRARY = ()
PARTS = (
    Part("design", 4, design),
    Part("runs", 2, runs),
    Part("summary", 4, summary),
    Part("conclusion", 3, conclusion),
)
