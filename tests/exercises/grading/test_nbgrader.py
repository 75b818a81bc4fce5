"""nbgrader's own commands on every exercise: release, submissions, autograde, feedback."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from course import ROOT, STUB, Course, read, solution_cells, with_mistake, with_solutions
from solution_text import PAGES, secret_lines, secrets_in

from exercises.wrong_solutions import ALSO_LOST, WRONG
from minitransformer.exercises import EXERCISES, Exercise
from minitransformer.exercises.checking import FIRST_SEED, checked
from minitransformer.exercises.solution import read_solution

pytestmark = pytest.mark.slow
pytest.importorskip("nbgrader")


@pytest.fixture(scope="module", params=EXERCISES, ids=lambda exercise: exercise.slug)
def exercise(request: pytest.FixtureRequest) -> Exercise:
    return request.param


@pytest.fixture(scope="module")
def course(exercise: Exercise, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course of one exercise, which is released."""
    course = Course(tmp_path_factory.mktemp(exercise.slug) / "course", exercise.slug)
    course.release()
    return course


def test_the_release_has_no_solution_and_stops_at_the_first_gap(
    exercise: Exercise, course: Course
) -> None:
    import nbclient
    import nbformat

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


def test_untouched_perfect_incomplete_and_wrong_submissions(
    exercise: Exercise, course: Course
) -> None:
    """One class: no points, all points, and the right cells lost for each gap and each mistake."""
    release, source = read(course.release()), course.source()
    perfect = with_solutions(release, source)
    gaps = {
        f"without-{name}": with_solutions(release, source, without=name)
        for name in solution_cells(source)
    }
    wrong = {f"wrong-{i}": w for i, w in enumerate(WRONG) if w.exercise == exercise.number}
    mistakes = {student: with_mistake(perfect, w.old, w.new) for student, w in wrong.items()}
    class_ = {"untouched": release, "perfect": perfect, **gaps, **mistakes}
    submitted = {student: course.submit(student, notebook) for student, notebook in class_.items()}
    lost = lost_parts(exercise, course)
    assert lost.keys() == submitted.keys()
    assert lost["untouched"] == {part.name for part in exercise.parts()}
    assert not lost["perfect"]
    for student in gaps:
        assert lost[student] and lost[student] == failing(exercise, submitted[student], student)
    for student, w in wrong.items():
        right = {w.part, *ALSO_LOST.get((w.exercise, w.part), "").split()}
        assert w.part in lost[student] <= right, w.name
        hint = course.errors(student)[w.part]
        assert w.hint in hint, w.name
        assert hint in course.feedback(student), w.name


def lost_parts(exercise: Exercise, course: Course) -> dict[str, set[str]]:
    """Autograde what was submitted, and write the feedback: the parts that each student lost."""
    course.run("autograde", course.slug, "--create")
    course.run("generate_feedback", course.slug)
    points = {part.name: part.points for part in exercise.parts()}
    lost = {}
    for student, cells in course.scores().items():
        for name, most in points.items():
            assert cells[name] in ((0, most), (most, most)), (student, name)
        lost[student] = {name for name in points if cells[name][0] == 0}
        assert "Score:" in course.feedback(student)
    return lost


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
    """A loop or a print without end loses its cell, long output is cut, a crash is reported."""
    exercise = EXERCISES[2]
    course = Course(tmp_path / "course", exercise.slug)
    perfect = json.dumps(with_solutions(read(course.release()), course.source()))
    for student, end in {
        "ada": "",
        "bob": "\nwhile True: pass",
        "cleo": "\nprint('x' * 100_000_000)",
        "dan": "\nimport os; os.abort()",
        "eve": "\nwhile True: print('x' * 1_000_000)",
    }.items():
        notebook = json.loads(perfect)
        cell = next(c for c in notebook["cells"] if "STUDENT =" in "".join(c["source"]))
        cell["source"] = "".join(cell["source"]) + end
        course.submit(student, notebook)
    run = course.run("autograde", exercise.slug, "--create", "--Execute.timeout=30", check=False)
    assert "for student 'dan'" in run.stderr
    points = {s: sum(score for score, _ in cells.values()) for s, cells in course.scores().items()}
    most = sum(part.points for part in exercise.parts())
    assert points == {"ada": most, "bob": most, "cleo": most, "dan": 0, "eve": most}
    for student in ("cleo", "eve"):
        path = course.folder / "autograded" / student / exercise.slug / f"{exercise.slug}.ipynb"
        text = path.read_text("utf-8")
        assert "cut off: a cell may print 20,000 characters" in text and len(text) < 200_000
    course.run("generate_feedback", exercise.slug)
    pages = list((course.folder / "feedback").rglob("*.html"))
    assert len(pages) == 4 and max(page.stat().st_size for page in pages) < 2_000_000
