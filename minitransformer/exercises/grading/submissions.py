"""Finds in a folder of submissions what each student has handed in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import ConfigError, DataError

KINDS = (".py", ".ipynb")
EVERYTHING = "(.+)"  # the whole name is the student's id


@dataclass(frozen=True)
class Submission:
    """What a student has handed in.

    Attributes:
        student: the id: the name of the folder, or of the file without its ending, or what a
            pattern finds in that.
        file: what is graded; None if it cannot be told.
        problem: why there is no file.
    """

    student: str
    file: Path | None
    problem: str = ""


def find_submissions(folder: Path, exercise: int, pattern: str = EVERYTHING) -> list[Submission]:
    """The submissions in a folder, in the order of the students' names.

    Each student is a file (`ada.py`, `ada.ipynb`) or a folder (`ada/...`), as nbgrader, GitHub
    Classroom and the downloads of learning platforms have it. Of several files in a student's
    folder, the one whose name or folder begins with the exercise's number counts.

    `pattern`: a regular expression for the whole name, whose one group is the student's id.
    Raises: DataError if there is no such folder, nothing in it, a name that does not fit the
        pattern, or one student twice; ConfigError if it is no pattern with one group.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder: expected one that holds a file or a folder a student"
        )
    name_of = ids(pattern)
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__")))
    found = [
        from_folder(entry, exercise) if entry.is_dir() else Submission(entry.stem, entry)
        for entry in entries
        if entry.is_dir() or entry.suffix in KINDS
    ]
    found = [replace(submission, student=name_of(submission.student)) for submission in found]
    if not found:
        raise DataError(f"{folder} holds no submission: expected .py or .ipynb files, or folders")
    names = [submission.student for submission in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{folder} holds several submissions of {', '.join(twice)}: keep one")
    return sorted(found, key=lambda submission: submission.student)


def ids(pattern: str) -> Callable[[str], str]:
    """The function that finds a student's id in the name of what they have handed in."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"id={pattern!r} is no regular expression: {error}") from error
    if compiled.groups != 1:
        raise ConfigError(
            f"id={pattern!r} has {compiled.groups} groups; expected one, the id, as 'adapters-(.+)'"
        )

    def find(name: str) -> str:
        match = compiled.fullmatch(name)
        if match is None or not match[1]:
            raise DataError(f"{name!r} does not fit id={pattern!r}: rename it, or change the id")
        return match[1]

    return find


def from_folder(folder: Path, exercise: int) -> Submission:
    """The one file in a student's folder that answers an exercise."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in KINDS and path.is_file() and not hidden(path.relative_to(folder))
    ]
    named = [path for path in files if is_of(path.relative_to(folder), exercise)]
    chosen = named or (files if len(files) == 1 else [])
    if len(chosen) == 1:
        return Submission(folder.name, chosen[0])
    if not files:
        return Submission(folder.name, None, "no .py or .ipynb file")
    names = ", ".join(str(path.relative_to(folder)) for path in chosen or files)
    problem = f"several files, keep the one of exercise {exercise}: {names}"
    return Submission(folder.name, None, problem)


def hidden(path: Path) -> bool:
    """Whether a tool has put it there: checkpoints of notebooks, caches, git's own files."""
    return any(part.startswith((".", "__")) for part in path.parts)


def is_of(path: Path, exercise: int) -> bool:
    """Whether a file, or a folder that it lies in, is named after an exercise."""
    pattern = re.compile(rf"(exercise[-_ ]?)?0*{exercise}(?!\d)", re.IGNORECASE)
    return any(pattern.match(part) for part in path.parts)
