"""Run the parts of an exercise on a solution, and award the points."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import WrongAnswer
from .catalogue import Part, exercise
from .own_work import refuse_library
from .report import Item, Report
from .solution import Solution, in_words, read_solution

FIRST_SEED = 0  # of the visible tests; hidden ones name another


def check(
    number: int,
    solution: str | Path | Mapping[str, Any],
    student: str | None = None,
    seed: int = FIRST_SEED,
) -> Report:
    """Check a solution of exercise `number`: points and a hint for each part.

    `solution`: the path of a Python file or a notebook, which is run, or a namespace such as
    `globals()`. `student`: whose it is; by default what it says in STUDENT. `seed`: of the random
    inputs. A solution that does not run gets a report with no points and the reason.
    Raises: ConfigError for a number without an exercise; DataError if the file cannot be read.
    """
    task = exercise(number)
    try:
        read = as_solution(solution, student)
    except WrongAnswer as stop:
        failed = [Item(part.name, 0, part.points, False, str(stop)) for part in task.parts()]
        return Report(number, task.title, tuple(failed), student or "")
    items = [checked(part, read, seed) for part in task.parts()]
    return Report(number, task.title, tuple(items), read.student)


def check_part(number: int, name: str, names: Mapping[str, Any], seed: int = FIRST_SEED) -> None:
    """Check one part, as the test cells of a notebook do: `check_part(3, "forward", globals())`.

    Raises: WrongAnswer with the hint if it is not right; ConfigError if there is no such part.
    """
    part = exercise(number).part(name)
    item = checked(part, Solution(names, os.environ.get("MINITRANSFORMER_STUDENT")), seed)
    if not item.passed:
        raise WrongAnswer(item.hint)
    print(f"{item.name}: right, {item.points:g} point{'s' * (item.points != 1)}")


class Nowhere(io.TextIOBase):
    """Takes what a solution prints while it is checked, and keeps none of it."""

    def write(self, text: str) -> int:
        return len(text)


def checked(part: Part, solution: Solution, seed: int) -> Item:
    """The part's item. Whatever a student's code does, it is a hint and no crash."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(Nowhere()):
            warnings.simplefilter("ignore")  # overflow and the like show in the numbers
            refuse_library(part.library, lambda: part.run(solution, seed))
    except WrongAnswer as wrong:
        return Item(part.name, 0, part.points, False, str(wrong))
    except (Exception, SystemExit) as error:
        return Item(part.name, 0, part.points, False, in_words(error))
    return Item(part.name, part.points, part.points, True)


def as_solution(solution: str | Path | Mapping[str, Any], student: str | None) -> Solution:
    if isinstance(solution, Mapping):
        return Solution(solution, student)
    return read_solution(solution, student)
