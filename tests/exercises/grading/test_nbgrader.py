"""nbgrader's own commands on every exercise: release, submissions, autograde, feedback."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import pytest
from course import (
    ROOT,
    STUB,
    Course,
    Notebook,
    read,
    solution_cells,
    with_mistake,
    with_solutions,
)
from solution_text import PAGES, secret_lines, secrets_in

from exercises.wrong_solutions import WRONG
from minitransformer.exercises import EXERCISES, Exercise
from minitransformer.exercises.checking import FIRST_SEED, checked
from minitransformer.exercises.solution import read_solution
from minitransformer.training.process import cores

pytestmark = pytest.mark.slow
pytest.importorskip("nbgrader")

each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.slug)


# Each takes seconds, and test_wrong_solutions.py has all of them without nbgrader. So every tenth
# goes through nbgrader, and all of them with EVERY_WRONG_SOLUTION=1 in the environment.
STEP = 1 if os.environ.get("EVERY_WRONG_SOLUTION") else 10


@each_exercise
def test_untouched_perfect_and_incomplete_submissions(exercise: Exercise, tmp_path: Path) -> None:
    courses, release, source = released(exercise, tmp_path)
    notebooks = {"untouched": release, "perfect": with_solutions(release, source)}
    for name in solution_cells(source):
        notebooks[name] = with_solutions(release, source, without=name)
    submitted = submit(courses, notebooks)
    lost = lost_parts(exercise, courses)
    assert lost.keys() == submitted.keys()
    assert lost.pop("untouched") == {part.name for part in exercise.parts()}
    assert lost.pop("perfect") == set()
    for student, parts in lost.items():
        assert parts and parts == failing(exercise, submitted[student], student)


@pytest.mark.parametrize(
    "exercise", EXERCISES if STEP == 1 else EXERCISES[:2], ids=lambda exercise: exercise.slug
)
def test_wrong_submissions_lose_the_right_cells(exercise: Exercise, tmp_path: Path) -> None:
    of_exercise = [wrong for wrong in WRONG if wrong.exercise == exercise.number]
    wrong = {f"wrong-{i}": of_exercise[i] for i in range(0, len(of_exercise), STEP)}
    courses, release, source = released(exercise, tmp_path)
    perfect = with_solutions(release, source)
    submitted = submit(courses, {s: with_mistake(perfect, w.old, w.new) for s, w in wrong.items()})
    lost = lost_parts(exercise, courses)
    assert lost.keys() == wrong.keys()
    for student, parts in lost.items():
        assert wrong[student].part in parts, wrong[student].name
        assert parts == failing(exercise, submitted[student], student), wrong[student].name


def released(exercise: Exercise, folder: Path) -> tuple[list[Course], Notebook, Notebook]:
    """A course on each core, the notebook that students get, and its source."""
    courses = [Course(folder / f"course-{i}", exercise.slug) for i in range(cores())]
    with ThreadPoolExecutor() as pool:
        release = read(next(iter(pool.map(Course.release, courses))))
    return courses, release, courses[0].source()


def submit(courses: list[Course], notebooks: Mapping[str, Notebook]) -> dict[str, Path]:
    """Share the students out among the courses; where each notebook is."""
    shares = zip(notebooks.items(), cycle(courses), strict=False)
    return {student: course.submit(student, nb) for (student, nb), course in shares}


def lost_parts(exercise: Exercise, courses: list[Course]) -> dict[str, set[str]]:
    """Autograde what was submitted, and write the feedback: the parts that each student lost."""
    points = {part.name: part.points for part in exercise.parts()}
    lost = {}
    used = [course for course in courses if any(course.folder.glob("submitted/*/*"))]
    with ThreadPoolExecutor() as pool:
        for scores in pool.map(graded, used):
            for student, cells in scores.items():
                for name, most in points.items():
                    assert cells[name] in ((0, most), (most, most)), (student, name)
                lost[student] = {name for name in points if cells[name][0] == 0}
    pages = [page for course in courses for page in course.folder.glob("feedback/*/*/*.html")]
    assert {page.parts[-3] for page in pages} == lost.keys()
    assert all("Score:" in page.read_text("utf-8") for page in pages)
    return lost


def graded(course: Course) -> dict[str, dict[str, tuple[float, float]]]:
    """Autograde all that was submitted, and write the feedback; the points, part by part."""
    course.run("autograde", course.slug, "--create")
    course.run("generate_feedback", course.slug)
    return course.scores()


def failing(exercise: Exercise, path: Path, student: str) -> set[str]:
    """The parts of a submission that are wrong, for the visible inputs or for the hidden ones."""
    page = (PAGES / f"{exercise.slug}.py").read_text("utf-8")
    hidden = dict(re.findall(r'check_part\(\d, "([\w-]+)", globals\(\), seed=(\d+)\)', page))
    solution = read_solution(path, student)
    return {
        part.name
        for part in exercise.parts()
        for seed in {FIRST_SEED, int(hidden.get(part.name, FIRST_SEED))}
        if not checked(part, solution, seed).passed
    }


@each_exercise
def test_the_release_has_no_solution_and_stops_at_the_first_gap(
    exercise: Exercise, tmp_path: Path
) -> None:
    import nbclient
    import nbformat

    course = Course(tmp_path / "course", exercise.slug)
    path = course.release()
    text = "\n".join("".join(cell["source"]) for cell in read(path)["cells"])
    page = (PAGES / f"{exercise.slug}.py").read_text("utf-8")
    secrets = secret_lines(page)
    assert len(secrets) > 5
    assert not secrets_in(text, secrets)
    assert "BEGIN SOLUTION" not in text and "HIDDEN" not in text and STUB in text
    files = {file.name for file in path.parent.rglob("*") if file.is_file()}
    assert files == {path.name}
    client = nbclient.NotebookClient(
        nbformat.read(path, as_version=4), timeout=120, kernel_name="python3"
    )
    with pytest.raises(nbclient.exceptions.CellExecutionError) as stopped:
        client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    message = f"{stopped.value.ename}: {stopped.value.evalue}"
    assert "write this part" in message or "not written yet" in message


def test_zip_collect_and_the_exchange(tmp_path: Path) -> None:
    """The ways in and out: zip files of a learning platform, and nbgrader's exchange folder."""
    exercise = EXERCISES[2]
    course = Course(tmp_path / "course", exercise.slug)
    release, source = read(course.release()), course.source()
    perfect = with_solutions(release, source)
    archive = course.folder / "downloaded" / exercise.slug / "archive"
    for name in (f"ada/{exercise.slug}", f"bob_{exercise.slug}", f"cleo_{exercise.slug}-1"):
        path = archive / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(perfect).replace("your-name", name[:3]), "utf-8")
    course.run("zip_collect", exercise.slug)
    collected = sorted(
        (course.folder / "submitted").glob(f"*/{exercise.slug}/{exercise.slug}.ipynb")
    )
    assert [path.parts[-3] for path in collected] == ["ada", "bob", "cleo"]

    exchange = tmp_path / "exchange"
    exchange.mkdir(mode=0o777)
    exchange.chmod(0o777)
    where = f"--Exchange.root={exchange}", f"--Exchange.cache={tmp_path / 'cache'}"
    course.run("release_assignment", exercise.slug, *where)
    student = replace_folder(course, tmp_path / "home")
    student.run("fetch_assignment", exercise.slug, "--course", "adapters", *where)
    fetched = student.folder / exercise.slug / f"{exercise.slug}.ipynb"
    fetched.write_text(json.dumps(perfect), "utf-8")
    student.run("submit", exercise.slug, "--course", "adapters", *where)
    course.run("collect", exercise.slug, *where)
    assert len(list((course.folder / "submitted").iterdir())) == 4


def replace_folder(course: Course, folder: Path) -> Course:
    """Another person's folder: nbgrader's commands run there, without the course's files."""
    folder.mkdir()
    other = object.__new__(Course)
    other.folder, other.slug = folder, course.slug
    return other


def test_what_harms_nbgrader_is_kept_from_it(tmp_path: Path) -> None:
    """A loop without end loses its cell; 100 MB of output are shortened; a crash is reported."""
    exercise = EXERCISES[2]
    course = Course(tmp_path / "course", exercise.slug)
    perfect = json.dumps(with_solutions(read(course.release()), course.source()))
    for student, end in {
        "ada": "",
        "bob": "\nwhile True: pass",
        "cleo": "\nprint('x' * 100_000_000)",
        "dan": "\nimport os; os.abort()",
    }.items():
        notebook = json.loads(perfect)
        cell = next(c for c in notebook["cells"] if "STUDENT =" in "".join(c["source"]))
        cell["source"] = "".join(cell["source"]) + end
        course.submit(student, notebook)
    run = course.run("autograde", exercise.slug, "--create", "--Execute.timeout=20", check=False)
    assert "for student 'dan'" in run.stderr
    points = {s: sum(score for score, _ in cells.values()) for s, cells in course.scores().items()}
    most = sum(part.points for part in exercise.parts())
    assert points == {"ada": most, "bob": most, "cleo": most, "dan": 0}
    course.run("generate_feedback", exercise.slug)
    pages = list((course.folder / "feedback").rglob("*.html"))
    assert len(pages) == 3 and max(page.stat().st_size for page in pages) < 2_000_000
