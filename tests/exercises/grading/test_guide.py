"""docs/instructors.md says what is so: exercises, points, commands, folders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from minitransformer.cli import app
from minitransformer.exercises import EXERCISES
from minitransformer.exercises.grading.submissions import ids

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "instructors.md").read_text("utf-8")


def test_the_table_has_the_exercises_with_their_minutes_and_points() -> None:
    rows = re.findall(r"^\| (\d) \| ([^|]+) \| (\d+) \| (\d+)( \+ 3)? \|", GUIDE, re.MULTILINE)
    said = [(int(n), int(minutes), int(points)) for n, _, minutes, points, _ in rows]
    assert said == [(e.number, e.minutes, sum(p.points for p in e.parts())) for e in EXERCISES]
    for row, exercise in zip(rows, EXERCISES, strict=True):
        assert exercise.title.startswith(row[1]), row[1]


def test_its_commands_and_folders_are_there() -> None:
    ours = set(re.findall(r"minitransformer (\w+)", GUIDE)) - {"Adapter"}
    assert {"grade", "gradescope", "classroom", "exercise"} <= ours
    assert ours <= set(get_command(app).commands)  # type: ignore[attr-defined]
    for folder in re.findall(r"`((?:exercises|tests)/[\w/.]+)`", GUIDE):
        assert (ROOT / folder).exists(), folder


def test_its_patterns_find_the_ids_in_its_names() -> None:
    rows = re.findall(r"^\| [^|]+ \| `([^`]+)` \| `'([^`]+)'` \|$", GUIDE, re.MULTILINE)
    names = [name.removesuffix("/").removesuffix(".py") for name, _ in rows]
    found = [ids(pattern)(name) for name, (_, pattern) in zip(names, rows, strict=True)]
    assert found == ["ada", "Ada Byron", "byronada"]


def test_its_commands_of_nbgrader_are_there() -> None:
    apps = pytest.importorskip("nbgrader.apps.nbgraderapp")
    named = set(re.findall(r"(?:^|`|\n)nbgrader ([a-z_]+)", GUIDE))
    assert {"autograde", "zip_collect", "export"} <= named
    assert named <= set(apps.NbGraderApp.subcommands)
