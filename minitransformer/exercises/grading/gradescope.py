"""Gradescope: the autograder's zip, and its results file.

Fields and folders as documented at https://gradescope-autograders.readthedocs.io/en/latest/specs/.
Gradescope unpacks the zip to /autograder/source, runs setup.sh once, and for each submission
/autograder/run_autograder, which leaves /autograder/results/results.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from ...formats.files import write_text
from .grade import Graded, grade_one
from .limits import Limits
from .submissions import Submission, from_folder

PACKAGE = Path(__file__).resolve().parents[2]

SETUP = """#!/usr/bin/env bash
# Runs once, when the image is built: Python, and what the library needs.
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)
if ! python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))'; then
  apt-get update
  apt-get install -y --no-install-recommends python3 python3-venv python3-pip
fi
python3 -m venv "$source/venv"
"$source/venv/bin/pip" install --no-cache-dir -r "$source/requirements.txt"
"""

RUN = """#!/usr/bin/env bash
# Runs for each submission: grades exercise {exercise} and writes results/results.json.
set -euo pipefail
autograder=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$autograder/source" OPENBLAS_NUM_THREADS=1
exec "$autograder/source/venv/bin/python" -m minitransformer.exercises.grading.gradescope \\
  {exercise} "$autograder"
"""


def write_autograder(path: Path, exercise: int) -> None:
    """The zip that an instructor uploads: the scripts, and this version of the library."""
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        add(archive, "setup.sh", SETUP, executable=True)
        add(archive, "run_autograder", RUN.format(exercise=exercise), executable=True)
        add(archive, "requirements.txt", "".join(f"{line}\n" for line in requirements()))
        for file in sorted(PACKAGE.rglob("*")):
            inside = file.relative_to(PACKAGE)
            if file.is_file() and "__pycache__" not in inside.parts:
                archive.write(file, Path(PACKAGE.name, inside).as_posix())


def add(archive: ZipFile, name: str, text: str, executable: bool = False) -> None:
    entry = ZipInfo(name, date_time=(2000, 1, 1, 0, 0, 0))
    entry.external_attr = (0o755 if executable else 0o644) << 16
    entry.compress_type = ZIP_DEFLATED
    archive.writestr(entry, text)


def requirements() -> Iterator[str]:
    """What the library needs, without its extras; of a checkout, as pyproject.toml says now."""
    project = PACKAGE.parent / "pyproject.toml"
    if project.exists():
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        yield from tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]
    else:
        yield from (line for line in requires("minitransformer") or [] if "extra ==" not in line)


def results(graded: Graded) -> dict[str, Any]:
    """What Gradescope shows: a test for each item; of a submission that failed, why."""
    shown: dict[str, Any] = {
        "execution_time": round(graded.seconds, 3),
        "output": graded.message,
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "extra_data": {"exercise": graded.exercise, "student": graded.student},
    }
    return {**shown, "tests": [as_test(item) for item in graded.items]}


def as_test(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": item["name"],
        "score": item["points"],
        "max_score": item["max_points"],
        "status": "passed" if item["passed"] else "failed",
        "output": item["hint"],
        "output_format": "text",
    }


def student_in(autograder: Path) -> str:
    """Who has submitted: the e-mail address in Gradescope's submission_metadata.json."""
    try:
        metadata = json.loads((autograder / "submission_metadata.json").read_text("utf-8"))
        return str(metadata["users"][0]["email"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def main(number: int, autograder: Path) -> None:
    """Grade the submission in Gradescope's folder and write its results file."""
    student = student_in(autograder)
    found = from_folder(autograder / "submission", number)
    graded = grade_one(Submission(student, found.file, found.problem), number, Limits())
    text = json.dumps(results(graded), indent=2, ensure_ascii=False)
    write_text(autograder / "results" / "results.json", text + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
