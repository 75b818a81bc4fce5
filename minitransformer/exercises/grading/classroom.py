"""GitHub Classroom: the template repository of an exercise, graded when a student pushes.

The workflow uses GitHub Classroom's own actions, one step for each part of the exercise.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError
from ...formats.files import write_text
from ..catalogue import Part, exercise
from ..plain_files import start

SOLUTION = "solution.py"

WORKFLOW = """name: Autograding Tests
on: [push, workflow_dispatch, repository_dispatch]
permissions:
  checks: write
  actions: read
  contents: read
jobs:
  run-autograding-tests:
    runs-on: ubuntu-latest
    if: github.actor != 'github-classroom[bot]'
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: pip install {install} pytest
{steps}      - name: Autograding Reporter
        uses: classroom-resources/autograding-grading-reporter@v1
        env:
{results}        with:
          runners: {runners}
"""

STEP = """      - name: {name}
        id: {name}
        uses: classroom-resources/autograding-command-grader@v1
        with:
          test-name: {name}
          command: pytest --exercise {exercise} {file}::{name}
          timeout: 5
          max-score: {points}
"""

RESULT = '          {variable}_RESULTS: "${{{{steps.{name}.outputs.result}}}}"\n'


def write_template(folder: Path, number: int, install: str) -> None:
    """The file that students complete and the workflow that grades it; `install`: what pip gets.

    Raises: ConfigError for a number without an exercise, or if the folder is not empty.
    """
    parts = exercise(number).parts()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; choose another name")
    workflows = folder / ".github" / "workflows"
    workflows.mkdir(parents=True)
    start(number, folder / SOLUTION)
    write_text(workflows / "classroom.yml", workflow(parts, number, install))


def workflow(parts: tuple[Part, ...], number: int, install: str) -> str:
    names = [part.name for part in parts]
    return WORKFLOW.format(
        install=install,
        steps="".join(
            STEP.format(name=part.name, exercise=number, file=SOLUTION, points=part.points)
            for part in parts
        ),
        results="".join(RESULT.format(variable=name.upper(), name=name) for name in names),
        runners=",".join(names),
    )
