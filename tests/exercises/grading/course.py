"""A nbgrader course in a folder, worked by nbgrader's own commands."""

from __future__ import annotations

import copy
import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
EXERCISES = ROOT / "exercises"
STUB = 'raise NotImplementedError("write this part")'
Notebook = dict[str, Any]

SCORES = """
import json, sys, warnings
warnings.simplefilter("ignore")
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db", "adapters") as book:
    print(json.dumps({
        submission.student.id: {
            grade.name.partition("-")[2]: [grade.score, grade.max_score]
            for notebook in submission.notebooks for grade in notebook.grades
        }
        for submission in book.assignment_submissions(sys.argv[1])
    }))
"""


class Course:
    """The course folder: exercises/ with one assignment in source/."""

    def __init__(self, folder: Path, slug: str) -> None:
        self.folder, self.slug = folder, slug
        folder.mkdir(parents=True)
        shutil.copy(EXERCISES / "nbgrader_config.py", folder)
        shutil.copytree(EXERCISES / "source" / slug, folder / "source" / slug)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of nbgrader, in the course folder."""
        return self.python("-m", "nbgrader", *arguments, check=check)

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        scripts = str(Path(sys.executable).parent)  # nbgrader calls `alembic` by its name
        path = os.pathsep.join((scripts, os.environ["PATH"]))
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        environment.pop("MPLBACKEND", None)
        run = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, text=True,
            capture_output=True,
        )  # fmt: skip
        assert run.returncode == 0 or not check, run.stderr[-3000:]
        return run

    def source(self) -> Notebook:
        return read(self.folder / "source" / self.slug / f"{self.slug}.ipynb")

    def release(self) -> Path:
        """What students get; made by `nbgrader generate_assignment`."""
        path = self.folder / "release" / self.slug / f"{self.slug}.ipynb"
        if not path.exists():
            self.run("generate_assignment", self.slug, "--create")
        return path

    def submit(self, student: str, notebook: Notebook) -> Path:
        """Put a notebook where `nbgrader collect` would, with the student's name in it."""
        path = self.folder / "submitted" / student / self.slug / f"{self.slug}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook).replace("your-name", student), "utf-8")
        return path

    def scores(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Student -> part -> points and most points, from the gradebook."""
        found = json.loads(self.python("-c", SCORES, self.slug).stdout)
        return {
            student: {part: (score, most) for part, (score, most) in parts.items()}
            for student, parts in found.items()
        }

    def errors(self, student: str) -> dict[str, str]:
        """Part -> what its cell said when the submission was graded, for the cells that failed."""
        notebook = read(self.folder / "autograded" / student / self.slug / f"{self.slug}.ipynb")
        return {
            cell["metadata"]["nbgrader"]["grade_id"].partition("-")[2]: output["evalue"]
            for cell in notebook["cells"]
            for output in cell.get("outputs", [])
            if output["output_type"] == "error" and "nbgrader" in cell["metadata"]
        }

    def feedback(self, student: str) -> str:
        """The text of the page that a student gets back."""
        page = self.folder / "feedback" / student / self.slug / f"{self.slug}.html"
        return html.unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8")))


def read(path: Path) -> Notebook:
    return dict(json.loads(path.read_text("utf-8")))


def is_solution(cell: dict[str, Any]) -> bool:
    return bool(cell["metadata"].get("nbgrader", {}).get("solution"))


def with_solutions(release: Notebook, source: Notebook, without: str = "") -> Notebook:
    """A released notebook with the solutions of the source filled in, all but one of them."""
    solved = {
        cell["metadata"]["nbgrader"]["grade_id"]: without_marks("".join(cell["source"]))
        for cell in source["cells"]
        if is_solution(cell)
    }
    notebook = copy.deepcopy(release)
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if is_solution(cell) and name != without:
            cell["source"] = solved[name]
    return notebook


def without_marks(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith("### "))


def with_mistake(perfect: Notebook, old: str, new: str) -> Notebook:
    """A notebook in which something stands in place of the first `old`."""
    notebook = copy.deepcopy(perfect)
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and old in text:
            cell["source"] = text.replace(old, new, 1)
            return notebook
    raise AssertionError(f"{old!r} is not in the solution")


def solution_cells(source: Notebook) -> list[str]:
    """The names of the code cells that a student completes."""
    return [
        cell["metadata"]["nbgrader"]["grade_id"]
        for cell in source["cells"]
        if is_solution(cell) and cell["cell_type"] == "code"
    ]
