"""What students get holds no text of a solution or of a hidden test.

The released notebooks are compared in test_nbgrader.py, because nbgrader makes them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from solution_text import PAGES, normal, secret_lines, secrets_in

import minitransformer
from minitransformer.exercises import EXERCISES, Exercise
from minitransformer.exercises.plain_files import start

PACKAGE = Path(minitransformer.__file__).parent

each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.slug)


def secrets(exercise: Exercise) -> set[str]:
    found = secret_lines((PAGES / f"{exercise.slug}.py").read_text("utf-8"))
    assert len(found) > 5
    return found


@each_exercise
def test_plain_files_have_no_solution(exercise: Exercise, tmp_path: Path) -> None:
    text = start(exercise.number, tmp_path / "mine.py").read_text("utf-8")
    assert not secrets_in(text, secrets(exercise))
    assert "write this part" in text and "SOLUTION" not in text and "HIDDEN" not in text
    compile(text, "mine.py", "exec")


@each_exercise
def test_the_checks_have_no_solution(exercise: Exercise) -> None:
    """The library itself has its own Linear, Adapter and AdamW, and what is written as there."""
    library = {
        normal(line)
        for file in PACKAGE.rglob("*.py")
        if "exercises" not in file.parts
        for line in file.read_text("utf-8").splitlines()
    }
    hidden = secrets(exercise) - library
    for file in sorted((PACKAGE / "exercises").rglob("*")):
        if file.suffix in (".py", ".txt"):
            assert not secrets_in(file.read_text("utf-8"), hidden), file


def test_the_package_has_no_notebook_and_no_solution_file() -> None:
    """pyproject.toml packages minitransformer* alone: neither exercises/ nor tests/."""
    files = [file for file in PACKAGE.rglob("*") if file.suffix == ".ipynb"]
    assert not files and not list(PACKAGE.rglob("*solutions*"))


def test_a_line_of_a_solution_is_recognised() -> None:
    page = "# begin with `zero(h)`\na = 1\n### BEGIN SOLUTION\n"
    page += "    out = h + s * f  # (B, T, d)\n    zero(h)\nelse:\n### END SOLUTION"
    secret = secret_lines(page)
    assert (
        secret
        == secrets_in("if x:\n        out  =  h+s*f\nzero(h)\nelse:", secret)
        == {"out=h+s*f"}
    )
