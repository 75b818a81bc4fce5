"""Grades a class: each submission in a process of its own, on all cores.

minitransformer grade submissions --exercise 3 --out points.csv
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

from ...errors import ConfigError
from ...formats.files import csv_line, write_text
from ...training.process import cores
from ..catalogue import exercise
from ..report import Item
from .limits import GRACE, KEPT, Limits, run_limited
from .submissions import EVERYTHING, Submission, find_submissions

HIDDEN_SEED = 1  # of the random inputs; a student's own checks use 0
# What a submission's processes see of the grader's environment: no tokens, no keys.
INHERITED = """PATH HOME USERPROFILE LANG LC_ALL TMP TEMP SYSTEMROOT PYTHONPATH PYTHONUTF8
    XDG_CACHE_HOME LOCALAPPDATA MINITRANSFORMER_CACHE""".split()


@dataclass(frozen=True)
class Graded:
    """What one submission has earned.

    Attributes:
        status: "graded", "stopped" (at a limit, or it crashed), or "missing".
        message: what the grader says beside the items: why it was stopped.
        items: name, points, max_points, passed and hint of each part.
        output: what the submission printed, without the middle if it was long.
        printed: how many bytes it printed.
    """

    student: str
    exercise: int
    file: str
    status: str
    message: str
    items: tuple[dict[str, Any], ...]
    seconds: float = 0.0
    output: str = ""
    printed: int = 0

    @property
    def points(self) -> float:
        return float(sum(item["points"] for item in self.items))

    @property
    def max_points(self) -> float:
        return float(sum(item["max_points"] for item in self.items))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "points": self.points, "max_points": self.max_points}


def grade(
    submissions: str | Path,
    number: int,
    out: str | Path,
    limits: Limits | None = None,
    jobs: int | None = None,
    seed: int = HIDDEN_SEED,
    replace: bool = False,
    progress: bool = False,
    pattern: str = EVERYTHING,
) -> list[Graded]:
    """Grade every submission in a folder; writes a CSV of points, and JSON for each student.

    The JSON files are in a folder beside the CSV that has its name without the ending. They are
    written as soon as a submission is graded; the CSV is written at the end, also after Ctrl-C.
    `pattern`: what of a name is the student's id, see `find_submissions`.
    Raises: ConfigError for a number without an exercise, jobs below 1, if the CSV is there already
    and is not to be replaced, or if `out` lies among the submissions; DataError if there is nothing
    to grade.
    """
    exercise(number)
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs={jobs}: expected at least 1")
    found = find_submissions(Path(submissions), number, pattern)
    table = Path(out)
    if table.suffix != ".csv":
        raise ConfigError(f"out={table}: expected a name that ends in .csv")
    if table.exists() and not replace:
        raise ConfigError(f"{table} is there already: choose another name, or replace it")
    folder = table.with_suffix("")
    if folder.resolve().is_relative_to(Path(submissions).resolve()):
        raise ConfigError(f"out={table}: {folder} would lie among the submissions; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    done: list[Graded] = []
    try:
        for graded in grade_all(found, number, limits or Limits(), jobs or cores(), seed, progress):
            text = json.dumps(graded.to_dict(), indent=2, ensure_ascii=False)
            write_text(folder / f"{graded.student}.json", text + "\n")
            done.append(graded)
    finally:
        done.sort(key=lambda graded: graded.student)
        write_text(table, as_csv(done, number))
    return done


def grade_all(
    found: Sequence[Submission], number: int, limits: Limits, jobs: int, seed: int, progress: bool
) -> Iterator[Graded]:
    """Each submission as it is graded; several at the same time."""
    from tqdm.auto import tqdm

    cancel = Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = [
                pool.submit(grade_one, submission, number, limits, seed, cancel)
                for submission in found
            ]
            with tqdm(total=len(waiting), unit="submission", disable=not progress) as bar:
                for future in as_completed(waiting):
                    bar.update()
                    yield future.result()
        finally:
            cancel.set()  # after Ctrl-C: those that run are stopped, those that wait do not begin
            pool.shutdown(cancel_futures=True)


def grade_one(
    submission: Submission,
    number: int,
    limits: Limits,
    seed: int = HIDDEN_SEED,
    cancel: Event | None = None,
) -> Graded:
    """Grade a submission in a process of its own. Whatever it does, there is a result."""
    if submission.file is None:
        items = complete({}, number, submission.problem)
        return Graded(submission.student, number, "", "missing", submission.problem, items)
    with tempfile.TemporaryDirectory(prefix="points-") as folder:
        points = Path(folder, "items.json")
        job = {
            "exercise": number,
            "file": str(submission.file.resolve()),
            "student": submission.student,
            "seed": seed,
            "out": str(points),
            "limits": asdict(limits),
        }
        ended = run_limited(
            [sys.executable, "-m", f"{__package__}.child", json.dumps(job)],
            limits.seconds + GRACE,
            environment(),
            cancel or Event(),
            steps=points,
        )
        verdicts = read_verdicts(points)
    reason = ended.reason or "ended itself before all was graded"
    status, message = "graded", ""
    if len(verdicts) < len(exercise(number).parts()):
        status, message = "stopped", f"The submission {reason}; parts not reached earn no points."
    if ended.printed > 2 * KEPT:
        note = f"It printed {ended.printed:,} bytes, of which the beginning and the end are kept."
        message = f"{message} {note}".strip()
    items = complete(verdicts, number, f"not reached: the submission {reason}")
    return Graded(
        submission.student, number, str(submission.file), status, message, items,
        round(ended.seconds, 3), ended.output, ended.printed,
    )  # fmt: skip


def read_verdicts(path: Path) -> dict[str, tuple[bool, str]]:
    """For each part that was checked: whether it passed, and the hint.

    The submission could write to this file; so what is no verdict counts for nothing.
    """
    try:
        items = json.loads(path.read_text("utf-8"))
        return {str(i["name"]): (i["passed"] is True, str(i["hint"])) for i in items}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def complete(
    verdicts: Mapping[str, tuple[bool, str]], number: int, missing: str
) -> tuple[dict[str, Any], ...]:
    """The items of all parts; a part without a verdict has no points, and `missing` as hint."""
    items = []
    for part in exercise(number).parts():
        passed, hint = verdicts.get(part.name, (False, missing))
        points = part.points if passed else 0
        items.append(Item(part.name, points, part.points, passed, hint))
    return tuple(asdict(item) for item in items)


def environment() -> dict[str, str]:
    """The environment of a submission: one BLAS thread, and what Python and its cache need."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    package = str(Path(__file__).resolve().parents[3])  # this library, also when not installed
    paths = os.pathsep.join(filter(None, (package, kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def as_csv(graded: Sequence[Graded], number: int) -> str:
    """One row a student: points, the points of each part, how it went."""
    parts = [part.name for part in exercise(number).parts()]
    rows = [["student", "points", "max_points", *parts, "status", "seconds", "message"]]
    for one in graded:
        each = [f"{item['points']:g}" for item in one.items]
        row = [f"{one.points:g}", f"{one.max_points:g}", *each, one.status, f"{one.seconds:.1f}"]
        rows.append([one.student, *row, one.message])
    return "".join(map(csv_line, rows))
