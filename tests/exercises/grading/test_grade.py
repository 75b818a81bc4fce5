"""A class graded in one command: points for everyone, whatever a submission does."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minitransformer.errors import ConfigError, DataError
from minitransformer.exercises import EXERCISES
from minitransformer.exercises.grading import limits
from minitransformer.exercises.grading.grade import Graded, environment, grade, grade_one
from minitransformer.exercises.grading.limits import Limits
from minitransformer.exercises.grading.submissions import Submission, find_submissions
from minitransformer.exercises.plain_files import start

ROOT = Path(__file__).parents[3]
SOLUTIONS = ROOT / "exercises" / "solutions"
EXERCISE = 3
SLUG = EXERCISES[EXERCISE - 1].slug
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
ENDLESS = """
while True:
    try:
        while True:
            pass
    except Exception:
        pass
"""  # also catches what would stop it from inside its process


def solution(student: str, slug: str = SLUG) -> str:
    return (SOLUTIONS / f"{slug}.py").read_text("utf-8").replace("your-name", student)


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


# -- which file is whose ----------------------------------------------------------------------


def test_students_are_files_or_folders(tmp_path: Path) -> None:
    for name in (
        "ada.py",
        "bob/solution.ipynb",
        "cleo/03_bottleneck_adapter/anything.py",
        "cleo/04_near_identity/anything.py",
        "dan/exercise-3.py",
        "dan/helpers.py",
        "dan/.ipynb_checkpoints/exercise-3.py",
        "notes.txt",
    ):
        put(tmp_path, name, "")
    found = {s.student: s.file for s in find_submissions(tmp_path, 3)}
    assert found == {
        "ada": tmp_path / "ada.py",
        "bob": tmp_path / "bob/solution.ipynb",
        "cleo": tmp_path / "cleo/03_bottleneck_adapter/anything.py",
        "dan": tmp_path / "dan/exercise-3.py",
    }


def test_a_folder_that_cannot_be_told_says_why(tmp_path: Path) -> None:
    put(tmp_path, "ada/one.py", "")
    put(tmp_path, "ada/two.py", "")
    put(tmp_path, "bob/essay.pdf", "")
    put(tmp_path, "cleo/13_other.py", "")
    put(tmp_path, "cleo/30_other.py", "")
    ada, bob, cleo = find_submissions(tmp_path, 3)
    assert ada.file is None and "one.py, two.py" in ada.problem
    assert bob.file is None and bob.problem == "no .py or .ipynb file"
    assert cleo.file is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no submission"),
        (("notes.txt",), "holds no submission"),
        (("ada.py", "ada/solution.py"), "several submissions of ada"),
    ],
)
def test_a_folder_with_nothing_to_grade(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for name in names:
        put(tmp_path, name, "")
    with pytest.raises(DataError, match=message):
        find_submissions(tmp_path, 3)


def test_a_pattern_finds_the_id_in_what_platforms_make_of_it(tmp_path: Path) -> None:
    put(tmp_path, "Ada Byron_123_assignsubmission_file/my_adapter.py", "")
    put(tmp_path, "bob_77_my_adapter.py", "")
    found = find_submissions(tmp_path, 3, r"([^_]+)_\d+_.*")
    assert [s.student for s in found] == ["Ada Byron", "bob"]
    with pytest.raises(DataError, match="'Ada Byron_123_assignsubmission_file' does not fit"):
        find_submissions(tmp_path, 3, "(.+)_my_adapter")
    with pytest.raises(DataError, match="several submissions of"):
        find_submissions(tmp_path, 3, ".*(_).*")
    for pattern, message in ((".+", "has 0 groups"), ("(.+", "no regular expression")):
        with pytest.raises(ConfigError, match=message):
            find_submissions(tmp_path, 3, pattern)


# -- one submission ---------------------------------------------------------------------------


def graded(path: Path, student: str = "ada", **limits: float) -> Graded:
    return grade_one(Submission(student, path), EXERCISE, Limits(**limits))  # type: ignore[arg-type]


def test_the_solution_gets_all_points_and_copied_numbers_do_not(tmp_path: Path) -> None:
    path = put(tmp_path, "ada.py", solution("ada"))
    one = graded(path)
    assert one.status == "graded" and one.points == one.max_points > 0
    copied = graded(path, student="bob")
    lost = [item for item in copied.items if not item["passed"]]
    assert [item["name"] for item in lost] == ["parameters"]
    assert "these are the numbers of 'ada'" in lost[0]["hint"]
    capital = graded(path, student="Ada ")
    assert capital.points == capital.max_points


@pytest.mark.slow
@POSIX
def test_a_part_that_hangs_loses_itself_alone(tmp_path: Path) -> None:
    text = (
        solution("ada")
        + """
class Endless:
    def __array__(self, *_, **__):
        while True:
            pass

PARAMETERS = Endless()
"""
    )
    one = graded(put(tmp_path, "ada.py", text), seconds=15)
    by_name = {item["name"]: item for item in one.items}
    assert not by_name["parameters"]["passed"]
    assert "TimeoutError: stopped after" in by_name["parameters"]["hint"]
    assert one.points == one.max_points - by_name["parameters"]["max_points"]


@pytest.mark.slow
@POSIX
def test_a_loop_that_many_parts_run_costs_its_time_once(tmp_path: Path) -> None:
    text = solution("ada").replace("        z = h @", "        while True: pass\n        z = h @")
    one = graded(put(tmp_path, "ada.py", text), seconds=15)
    assert [item["name"] for item in one.items if item["passed"]] == ["parameters"]
    hints = " ".join(item["hint"] for item in one.items)
    first, *later = map(int, re.findall(r"stopped after (\d+) s", hints))
    assert 6 <= first <= 15 and later == [6, 6, 6, 6]


@pytest.mark.slow
@POSIX
def test_an_endless_print_loses_itself_alone(tmp_path: Path) -> None:
    """In a cell of its own, and inside of what is checked."""
    endless = "while True: print('x' * 100_000)"
    path = put(tmp_path, "ada.py", solution("ada") + endless)
    one = graded(path, seconds=15)
    assert one.points == one.max_points and "beginning and the end are kept" in one.message
    assert "bytes left out" in one.output and len(one.output) < 100_000
    text = solution("ada").replace("        h, a = self", f"        {endless}\n        h, a = self")
    path.write_text(text, "utf-8")
    one = grade_one(Submission("ada", path), EXERCISE, Limits(seconds=15, memory=1_500))
    assert {item["name"] for item in one.items if item["passed"]} == {"forward", "parameters"}
    assert "stopped after" in one.items[1]["hint"] and "MemoryError" not in str(one.items)


@pytest.mark.slow
@POSIX
def test_a_submission_that_seems_to_go_on_is_stopped_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It touches the file by which the grader sees that the next part has begun."""
    monkeypatch.setattr(limits, "STEPS", 1)
    text = (
        solution("ada")
        + """
def go_on():
    import json, os, signal, sys, time
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        os.utime(json.loads(sys.argv[1])["out"])
        time.sleep(0.2)

go_on()
"""
    )
    one = graded(put(tmp_path, "ada.py", text), seconds=2)
    assert one.status == "stopped" and "stopped after" in one.message
    assert 2 + limits.LATE + limits.GRACE <= one.seconds < 30


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        pytest.param("import os; os.abort()", "SIGABRT", marks=POSIX),
        ("import os; os._exit(0)", "ended itself before all was graded"),
        ("import os; os._exit(7)", "exit status 7"),
    ],
)
def test_a_crash_is_a_result(tmp_path: Path, end: str, reason: str) -> None:
    one = graded(put(tmp_path, "ada.py", f"print('so far')\nprint(flush=True)\n{end}\n"))
    assert one.status == "stopped" and one.points == 0 and one.max_points > 0
    assert reason in one.message and reason in one.items[0]["hint"]
    assert "so far" in one.output


def test_what_is_no_verdict_counts_for_nothing(tmp_path: Path) -> None:
    """Nonsense where the verdicts go earns no points, and does not break the grader."""
    text = "import json, os, sys\njob = json.loads(sys.argv[1])\n"
    text += "open(job['out'], 'w').write('[{\"name\": 3}, 7]')\nos._exit(0)\n"
    one = graded(put(tmp_path, "ada.py", text))
    assert one.points == 0 and one.status == "stopped"


def test_the_graders_environment_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADES_PASSWORD", "hunter2")
    assert "hunter2" not in environment().values()


# -- a class ----------------------------------------------------------------------------------


def test_points_are_not_written_over(tmp_path: Path) -> None:
    submissions = tmp_path / "submissions"
    (submissions / "ada").mkdir(parents=True)
    out = put(tmp_path, "points.csv", "typed by hand")
    with pytest.raises(ConfigError, match=r"points\.csv is there already"):
        grade(submissions, EXERCISE, out)
    assert out.read_text("utf-8") == "typed by hand"
    grade(submissions, EXERCISE, out, replace=True)
    assert out.read_text("utf-8").splitlines()[1].startswith("ada,0,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": "points.txt"}, "ends in .csv"),
        ({"out": "week1.csv"}, "would lie among the submissions"),
        ({"out": "week1/points.csv"}, "would lie among the submissions"),
        ({"jobs": 0}, "jobs=0"),
        ({"number": 99}, "99"),
    ],
)
def test_bad_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, object],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "week1/ada.py", "")
    call = {"submissions": "week1", "number": 3, "out": "points.csv", **arguments}
    with pytest.raises(ConfigError, match=message):
        grade(**call)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.rglob("*")] == ["week1", "ada.py"]


@pytest.mark.slow
def test_a_class_of_sixty(tmp_path: Path) -> None:
    """One hangs, one crashes, one prints 100 MB, one is untouched, one is wrong: 60 rows."""
    folder = tmp_path / "submissions"
    for i in range(60):
        put(folder, f"s{i:02}/solution.py", solution(f"s{i:02}"))
    put(folder, "s07/solution.py", solution("s07") + ENDLESS)
    put(folder, "s17/solution.py", solution("s17") + "\nimport os; os.abort()\n")
    put(folder, "s27/solution.py", solution("s27") + "\nfor _ in range(100): print('x' * 10**6)\n")
    (folder / "s37/solution.py").unlink()
    start(EXERCISE, folder / "s37/solution.py")
    put(folder, "s47/solution.py", solution("s47").replace("return dy + dz @", "return dz @"))
    command = [sys.executable, "-m", "minitransformer", "grade", str(folder), "--exercise", "3"]
    run = subprocess.run(
        [*command, "--out", "points.csv"], cwd=tmp_path, text=True,
        capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with (tmp_path / "points.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert list(rows) == [f"s{i:02}" for i in range(60)]
    full = rows["s00"]["max_points"]
    points = {student: row["points"] for student, row in rows.items() if row["points"] != full}
    assert points.keys() == {"s07", "s17", "s37", "s47"}
    assert points["s07"] == points["s17"] == points["s37"] == "0"
    assert rows["s47"]["forward"] == rows["s00"]["forward"] and rows["s47"]["gradients"] == "0"
    assert rows["s07"]["status"] == "stopped" and "stopped after" in rows["s07"]["message"]
    assert rows["s17"]["status"] == "stopped" and "SIGABRT" in rows["s17"]["message"]
    flood = json.loads((tmp_path / "points" / "s27.json").read_text("utf-8"))
    assert rows["s27"]["message"].startswith("It printed 100,")
    assert flood["printed"] > 100_000_000 and len(flood["output"]) < 100_000
    assert "60 submissions" in run.stdout and "60/60" in run.stderr
