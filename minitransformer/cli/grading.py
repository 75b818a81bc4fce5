"""The commands of instructors: grade a class, make an autograder for Gradescope."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from ..exercises.grading.classroom import write_template
from ..exercises.grading.grade import HIDDEN_SEED, Graded
from ..exercises.grading.grade import grade as grade_class
from ..exercises.grading.gradescope import write_autograder
from ..exercises.grading.limits import Limits
from ..exercises.grading.submissions import EVERYTHING
from . import options as opt
from .app import INTERRUPTED, TEACH, app, say, show

Submissions = Annotated[
    Path,
    typer.Argument(metavar="SUBMISSIONS", help="A folder: a .py or .ipynb file or a folder each."),
]
Exercise = Annotated[int, typer.Option("--exercise", help="Its number, 1 to 9.")]
PointsFile = Annotated[Path, opt.option("Where the points go.", "points.csv", flag="--out")]
Jobs = Annotated[int | None, opt.option("Submissions at the same time.", "one for each core")]
Seconds = Annotated[
    float,
    opt.option("Seconds for a submission; after them, 6 for each part.", f"{Limits.seconds:g}"),
]
Memory = Annotated[int, opt.option("Megabytes for each of its processes.", Limits.memory)]
Seed = Annotated[int, opt.option("Of the random inputs of the checks.", HIDDEN_SEED)]
Id = Annotated[
    str,
    opt.option(
        "A regular expression for the names; its group is the student's id.",
        "the whole name",
        flag="--id",
    ),
]
Replace = Annotated[bool, opt.option("Write over the points of an earlier run.", flag="--replace")]
Number = Annotated[int, typer.Argument(metavar="EXERCISE", help="Its number, 1 to 9.")]
Zip = Annotated[Path, opt.option("Where the zip goes.", "autograder.zip", flag="--out")]
Template = Annotated[Path, opt.option("Folder of the template repository.", flag="--out")]
Install = Annotated[
    str, opt.option("What pip installs there, as git+https://...", flag="--install")
]


@app.command(rich_help_panel=TEACH)
def grade(
    submissions: Submissions,
    exercise: Exercise,
    out: PointsFile = Path("points.csv"),
    jobs: Jobs = None,
    seconds: Seconds = Limits.seconds,
    memory: Memory = Limits.memory,
    seed: Seed = HIDDEN_SEED,
    student_id: Id = EVERYTHING,
    replace: Replace = False,
) -> int:
    """Grade a class: each submission in a process of its own, on all cores.

    Writes a CSV of points, and for each student a JSON file with the hints. A submission that
    hangs, crashes or floods its output loses the parts it did not reach, and nobody else's.

    Example: `minitransformer grade submissions --exercise 3 --out points-3.csv`

    Example: `minitransformer grade repositories --exercise 3 --id 'adapters-(.+)'`
    """
    limits = Limits(seconds=seconds, memory=memory)
    try:
        graded = grade_class(
            submissions, exercise, out, limits, jobs, seed, replace, True, student_id
        )
    except KeyboardInterrupt:
        say(f"stopped: {out} has those that were graded; --replace grades all of them anew")
        return INTERRUPTED
    show(summary(graded))
    say(f"points: {out}; hints: {out.with_suffix('')}")
    return 0


def summary(graded: list[Graded]) -> str:
    """How many, how many points on average, and what the grader has to say of whom."""
    average, most = mean(one.points for one in graded), graded[0].max_points
    lines = [f"{len(graded)} submissions, {average:.1f} of {most:g} points on average"]
    lines += [f"{one.student}: {one.message}" for one in graded if one.message]
    return "\n".join(lines)


@app.command(rich_help_panel=TEACH)
def gradescope(exercise: Number, out: Zip = Path("autograder.zip")) -> int:
    """Make the autograder of an exercise for Gradescope: the zip that is uploaded there.

    It holds setup.sh, run_autograder and this version of the library, and no solutions.

    Example: `minitransformer gradescope 3 --out autograder-3.zip`
    """
    write_autograder(out, exercise)
    say(f"wrote {out}")
    return 0


@app.command(rich_help_panel=TEACH)
def classroom(exercise: Number, out: Template, install: Install) -> int:
    """Make the template repository of an exercise for GitHub Classroom.

    It holds the file to complete, and a workflow that checks each part when a student pushes.

    Example: `minitransformer classroom 3 --out template --install git+https://HOST/minitransformer`
    """
    write_template(out, exercise, install)
    say(f"wrote {out}")
    return 0
