"""The template repository of GitHub Classroom: its workflow checks each part for its points."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minitransformer.errors import ConfigError
from minitransformer.exercises import EXERCISES, Exercise
from minitransformer.exercises.grading.classroom import SOLUTION, write_template

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.slug)
def test_the_workflow_has_a_step_for_each_part(exercise: Exercise, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    write_template(tmp_path / "template", exercise.number, "git+https://example.com/m")
    text = (tmp_path / "template/.github/workflows/classroom.yml").read_text("utf-8")
    steps = yaml.safe_load(text)["jobs"]["run-autograding-tests"]["steps"]
    graded = {step["id"]: step["with"] for step in steps if "grader@" in step.get("uses", "")}
    parts = exercise.parts()
    assert {name: step["max-score"] for name, step in graded.items()} == {
        part.name: part.points for part in parts
    }
    reporter = steps[-1]
    assert reporter["with"]["runners"].split(",") == list(graded)
    assert set(reporter["env"]) == {f"{name.upper()}_RESULTS" for name in graded}
    assert "pip install git+https://example.com/m pytest" in text


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / SOLUTION).write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        write_template(tmp_path, 3, "minitransformer")
    assert (tmp_path / SOLUTION).read_text() == "mine"


@pytest.mark.slow
def test_the_commands_of_the_workflow_tell_right_from_wrong(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    write_template(tmp_path / "template", 3, "minitransformer")
    text = (tmp_path / "template/.github/workflows/classroom.yml").read_text("utf-8")
    steps = yaml.safe_load(text)["jobs"]["run-autograding-tests"]["steps"]
    commands = {s["id"]: s["with"]["command"] for s in steps if "grader@" in s.get("uses", "")}
    solution = (ROOT / "exercises/solutions/03_bottleneck_adapter.py").read_text("utf-8")
    wrong = solution.replace("your-name", "ada").replace("return dy + dz @", "return dz @")
    (tmp_path / "template" / SOLUTION).write_text(wrong, "utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_minitransformer",
    }
    for name, passes in {"forward": True, "gradients": False, "parameters": True}.items():
        program, *arguments = shlex.split(commands[name])
        run = subprocess.run(
            [sys.executable, "-m", program, *arguments], cwd=tmp_path / "template",
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert (run.returncode == 0) == passes, run.stdout
