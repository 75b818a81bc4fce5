"""`minitransformer exercise`: check a solution that is a plain file, or begin one."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..exercises.catalogue import EXERCISES
from ..exercises.checking import check
from ..exercises.plain_files import start as write_start
from . import options as opt
from .app import TEACH, app, print_json, say, show

Number = Annotated[int | None, typer.Argument(metavar="NUMBER", help="1 to 9; without: a list.")]
File = Annotated[Path | None, typer.Argument(metavar="FILE", help="A .py file or a notebook.")]
Start = Annotated[
    Path | None, opt.option("Write the file that a solution begins with.", flag="--start")
]
Student = Annotated[str | None, opt.option("Whose it is, if not what STUDENT in it says.")]


@app.command(rich_help_panel=TEACH)
def exercise(
    number: Number = None,
    file: File = None,
    start: Start = None,
    student: Student = None,
    as_json: opt.AsJson = False,
) -> int:
    """Check an exercise: points for each part, and a hint for each that is not right yet.

    Exit status 0 if every part is right, 1 if not.

    Example: `minitransformer exercise 3 --start my_adapter.py`

    Example: `minitransformer exercise 3 my_adapter.py`
    """
    if number is None:
        for task in EXERCISES:
            show(f"{task.number}  {task.title} ({task.minutes} minutes)")
        return 0
    if (file is None) == (start is None):
        raise ConfigError("give either the FILE of a solution, or --start and a name for a new one")
    if start is not None:
        say(f"{write_start(number, start)}: write your solution there, then check it with")
        say(f"    minitransformer exercise {number} {start}")
        return 0
    assert file is not None
    with redirect_stdout(sys.stderr):  # what the solution prints is no part of the report
        report = check(number, file, student)
    if as_json:
        print_json(report.to_dict())
    else:
        show(report)
    return 0 if report.passed else 1
