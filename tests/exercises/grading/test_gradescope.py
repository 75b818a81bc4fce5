"""Gradescope's autograder: its results file has the documented fields, its scripts run anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from minitransformer.exercises import EXERCISES
from minitransformer.exercises.grading.grade import Graded, complete
from minitransformer.exercises.grading.gradescope import requirements, results, write_autograder
from minitransformer.exercises.plain_files import start

ROOT = Path(__file__).parents[3]
EXERCISE = 3
SLUG = EXERCISES[EXERCISE - 1].slug

# https://gradescope-autograders.readthedocs.io/en/latest/specs/, "Output format"
VISIBILITY = {"enum": ["hidden", "after_due_date", "after_published", "visible"]}
FORMAT = {"enum": ["text", "html", "simple_format", "md", "ansi"]}
TEST = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "score": {"type": "number"},
        "max_score": {"type": "number"},
        "status": {"enum": ["passed", "failed"]},
        "name": {"type": "string"},
        "name_format": FORMAT,
        "number": {"type": "string"},
        "output": {"type": "string"},
        "output_format": FORMAT,
        "tags": {"type": "array", "items": {"type": "string"}},
        "visibility": VISIBILITY,
        "extra_data": {"type": "object"},
    },
}
RESULTS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "score": {"type": "number"},
        "execution_time": {"type": "number"},
        "output": {"type": "string"},
        "output_format": FORMAT,
        "test_output_format": FORMAT,
        "test_name_format": FORMAT,
        "visibility": VISIBILITY,
        "stdout_visibility": VISIBILITY,
        "extra_data": {"type": "object"},
        "tests": {"type": "array", "items": TEST},
        "leaderboard": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "value"],
                "properties": {
                    "name": {"type": "string"},
                    "value": {"type": ["number", "string"]},
                    "order": {"enum": ["asc", "desc"]},
                },
            },
        },
    },
    # "optional, but required if not on each test case below"
    "anyOf": [
        {"required": ["score"]},
        {
            "required": ["tests"],
            "properties": {"tests": {"minItems": 1, "items": {"required": ["score"]}}},
        },
    ],
}


def valid(value: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(RESULTS)
    jsonschema.validate(value, RESULTS)


@pytest.mark.parametrize("verdicts", [{}, {"forward": (True, "")}, {"forward": (False, "why")}])
def test_results_have_the_documented_fields(verdicts: dict[str, tuple[bool, str]]) -> None:
    items = complete(verdicts, EXERCISE, "not reached")
    one = Graded("ada@example.com", EXERCISE, "a.py", "stopped", "The submission hung.", items)
    written = results(one)
    valid(written)
    assert sum(test["score"] for test in written["tests"]) == one.points
    assert sum(test["max_score"] for test in written["tests"]) == one.max_points
    assert written["output"] == "The submission hung."


def test_the_zip_has_its_scripts_at_the_root_and_no_solution(tmp_path: Path) -> None:
    write_autograder(tmp_path / "autograder.zip", EXERCISE)
    with ZipFile(tmp_path / "autograder.zip") as archive:
        names = archive.namelist()
        for script in ("setup.sh", "run_autograder"):
            assert archive.read(script).startswith(b"#!/usr/bin/env bash\n")
            assert archive.getinfo(script).external_attr >> 16 & 0o111, "executable"
    assert "minitransformer/__init__.py" in names and "requirements.txt" in names
    assert not [name for name in names if "solutions" in name or "__pycache__" in name]


def test_requirements_are_those_of_the_library() -> None:
    names = {line.split(">")[0] for line in requirements()}
    assert {"numpy", "tokenizers"} <= names and "pytest" not in names


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Gradescope runs Ubuntu")
def test_it_runs_in_an_empty_folder_with_an_empty_environment(tmp_path: Path) -> None:
    """As Gradescope does it: unzip, setup.sh once, then run_autograder for each submission."""
    autograder = tmp_path / "autograder"
    source = autograder / "source"
    source.mkdir(parents=True)
    (autograder / "results").mkdir()
    write_autograder(tmp_path / "autograder.zip", EXERCISE)
    with ZipFile(tmp_path / "autograder.zip") as archive:
        archive.extractall(source)
    (autograder / "run_autograder").write_bytes((source / "run_autograder").read_bytes())
    for script in (source / "setup.sh", autograder / "run_autograder"):
        script.chmod(0o755)
    # Nothing of ours but where pip fetches packages from.
    pip = os.environ.get("PIP_CONFIG_FILE", str(Path("~/.config/pip/pip.conf").expanduser()))
    folder = str(Path(sys.base_prefix) / "bin")
    clean = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": pip}
    subprocess.run([source / "setup.sh"], env=clean, check=True, cwd=autograder)
    del clean["PIP_CONFIG_FILE"]

    def submit(text: str) -> dict[str, Any]:
        submission = autograder / "submission"
        submission.mkdir(exist_ok=True)
        (submission / "my_adapter.py").write_text(text, "utf-8")
        users = [{"email": "ada@example.com", "id": 1234, "name": "Ada"}]
        (autograder / "submission_metadata.json").write_text(json.dumps({"users": users}))
        subprocess.run([autograder / "run_autograder"], env=clean, check=True, cwd=autograder)
        written = json.loads((autograder / "results" / "results.json").read_text("utf-8"))
        valid(written)
        return dict(written)

    solution = (ROOT / "exercises" / "solutions" / f"{SLUG}.py").read_text("utf-8")
    perfect = submit(solution.replace("your-name", "ada@example.com"))
    assert all(test["score"] == test["max_score"] > 0 for test in perfect["tests"])
    start(EXERCISE, tmp_path / "untouched.py")
    untouched = submit((tmp_path / "untouched.py").read_text("utf-8"))
    assert all(test["score"] == 0 and test["output"] for test in untouched["tests"])
    crashed = submit("import os; os.abort()")
    assert "SIGABRT" in crashed["output"] and {test["score"] for test in crashed["tests"]} == {0}
