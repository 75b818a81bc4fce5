"""The exercises as students meet them: files, names, hooks, the command and the pytest plug-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from exercises.wrong_solutions import solution
from minitransformer import exercises
from minitransformer.adapters.bottleneck import Adapter
from minitransformer.cli import main
from minitransformer.errors import ConfigError, DataError, WrongAnswer
from minitransformer.exercises.near_identity import SIGMAS, drift_at

ROOT = Path(__file__).parents[2]


@pytest.fixture
def adapter_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_adapter.py"
    path.write_text(solution(3), "utf-8")
    return path


# -- pages ---------------------------------------------------------------------------------


def test_what_is_made_from_the_pages_is_up_to_date() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "exercises" / "build.py", "--check"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("task", exercises.EXERCISES, ids=lambda t: t.slug)
def test_notebooks_are_nbgraders_and_small(task: exercises.Exercise) -> None:
    path = ROOT / "exercises" / "source" / task.slug / f"{task.slug}.ipynb"
    cells = json.loads(path.read_text("utf-8"))["cells"]
    graded = [c["metadata"]["nbgrader"] for c in cells if "nbgrader" in c["metadata"]]
    ids = [meta["grade_id"] for meta in graded]
    assert len(set(ids)) == len(ids)
    tests = {m["grade_id"][3:]: m["points"] for m in graded if m["grade"] and m["locked"]}
    assert tests == {part.name: part.points for part in task.parts()}
    sizes = [len(c["source"]) for c in cells if c["cell_type"] == "code"]
    assert max(sizes) <= 50
    assert sum(size > 25 for size in sizes) <= 3


@pytest.mark.parametrize("task", exercises.EXERCISES, ids=lambda t: t.slug)
def test_an_untouched_file_has_no_points_and_no_solution(
    task: exercises.Exercise, tmp_path: Path
) -> None:
    path = exercises.start(task.number, tmp_path / "start.py")
    report = exercises.check(task.number, path, "ada")
    assert report.points == 0
    assert all(item.hint for item in report.items)
    assert any("not written yet" in item.hint for item in report.items)
    start, full = path.read_text("utf-8"), solution(task.number)
    page = (ROOT / "exercises" / "pages" / f"{task.slug}.py").read_text("utf-8")
    assert "BEGIN" not in start and "HIDDEN" not in start
    solved = [block.split("### END SOLUTION")[0] for block in page.split("### BEGIN SOLUTION")[1:]]
    lines = {line.strip() for block in solved for line in block.splitlines()}
    telling = {line for line in lines if len(line) > 25 and line in full}
    assert telling, "the test knows no solution"
    assert not [line for line in telling if line in start]


def test_start_never_overwrites(tmp_path: Path) -> None:
    path = exercises.start(3, tmp_path / "mine.py")
    path.write_text("mine", "utf-8")
    with pytest.raises(DataError, match="exists already"):
        exercises.start(3, path)
    assert path.read_text("utf-8") == "mine"


# -- checking ------------------------------------------------------------------------------


def test_a_notebook_is_checked_like_a_file(tmp_path: Path) -> None:
    source = ROOT / "exercises/source/03_bottleneck_adapter/03_bottleneck_adapter.ipynb"
    path = tmp_path / "mine.ipynb"
    path.write_text(source.read_text("utf-8").replace("your-name", "ada"), "utf-8")
    report = exercises.check(3, path, "ada")
    assert report.passed
    assert report.to_dict()["points"] == report.to_dict()["max_points"] == 17


def test_copied_numbers_do_not_pass(adapter_file: Path) -> None:
    lost = {
        student: [i for i in exercises.check(3, adapter_file, student).items if not i.passed]
        for student in ("ada", "grace")
    }
    assert lost["ada"] == []
    (item,) = lost["grace"]
    assert item.name == "parameters" and "numbers of 'ada'" in item.hint
    renamed = adapter_file.read_text("utf-8")
    number = 2 * (own := exercises.my_numbers(3, "ada"))["d"] * own["m"] + own["d"] + own["m"]
    renamed = renamed.replace('"ada"', '"grace"') + f"\nPARAMETERS = {number * own['sites']}\n"
    adapter_file.write_text(renamed, "utf-8")
    assert not exercises.check(3, adapter_file, "grace").passed


QUESTIONS = {1: "by-hand", 2: "by-hand", 3: "parameters", 4: "largest-sigma", 5: "products",
             6: "by-hand", 7: "parameters", 8: "answers"}  # fmt: skip


@pytest.mark.parametrize(("number", "part"), QUESTIONS.items())
def test_answers_that_are_copied_do_not_pass(number: int, part: str) -> None:
    """The values of one student under the names of eight others."""
    names: dict[str, object] = {}
    exec(solution(number), names)
    others = [f"student-{i}" for i in range(8)]
    passed = []
    for student in others:
        names["STUDENT"] = student
        items = {i.name: i.passed for i in exercises.check(number, names, student).items}
        passed.append(items.pop(part))
        assert all(items.values())  # the code is as right as it was
    assert sum(passed) == 0 if number not in (4, 5) else sum(passed) <= 4  # few values there


@pytest.mark.slow
def test_how_often_two_students_have_the_same_answer() -> None:
    """As docs/instructors.md says: a pair in four in exercise 4, one in fourteen in exercise 5."""
    sizes = [exercises.my_numbers(4, f"student-{i}") for i in range(200)]
    chains = [exercises.my_numbers(5, f"student-{i}")["trains"] for i in range(200)]
    sigmas = [max(s for s in SIGMAS if drift_at(n["d"], n["m"], s) <= n["bound"]) for n in sizes]
    products = [2 * len(t) + sum(t) - 1 - t.index(True) for t in chains]
    for answers, expected in ((sigmas, 1 / 4), (products, 1 / 14)):
        pairs = [a == b for a, b in combinations(answers, 2)]
        assert np.mean(pairs) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("number", [1, 2, 6])
def test_everybodys_numbers_can_be_answered(number: int) -> None:
    for i in range(20):
        names: dict[str, object] = {}
        exec(solution(number, f"student-{i}"), names)
        part = exercises.EXERCISES[number - 1].part("by-hand")
        part.run(exercises.Solution(names), 0)


def test_a_file_that_stops_keeps_the_points_of_the_rest(adapter_file: Path) -> None:
    text = adapter_file.read_text("utf-8")
    adapter_file.write_text(text.replace("own = exercises", "1 / 0\nown = exerzises"), "utf-8")
    report = exercises.check(3, adapter_file, "ada")
    (lost,) = [item for item in report.items if not item.passed]
    assert lost.name == "parameters"
    assert "ZeroDivisionError" in lost.hint and "1 / 0" in lost.hint


@pytest.mark.parametrize(
    ("old", "new", "part", "words"),
    [
        ("h @ self.w_down.value", "h @ self.w_down", "forward", "its `.value`, in line"),
        ("(y.shape, h,", "(h,", "forward", "first the shape of the output"),
        ("self.save_for_backward(", "print(", "gradients", "forward ends with self.save_for_"),
        ("class MyAdapter", "class Adapter", "forward", "is it defined, under its name"),
    ],
)
def test_stumbling_blocks_are_named(
    adapter_file: Path, old: str, new: str, part: str, words: str
) -> None:
    text = solution(3)
    assert old in text
    adapter_file.write_text(text.replace(old, new), "utf-8")
    hints = {item.name: item.hint for item in exercises.check(3, adapter_file).items}
    assert words in hints[part]


def test_a_warning_in_a_file_is_no_error(adapter_file: Path) -> None:
    text = solution(3).replace('"ada"', '[__import__("warnings").warn("slow"), "ada"][1]')
    adapter_file.write_text(text, "utf-8")
    with pytest.warns(UserWarning, match="slow"):
        assert exercises.check(3, adapter_file).passed


def test_equal_means_leave_the_conclusion_open() -> None:
    """Of two values with the second-best mean, either deviation may have been taken."""
    own = exercises.my_numbers(9, "ada")
    text = solution(9).replace("exercises.run_study(STUDY)", "MADE")
    first, second, third = own["values"]
    accuracies = {first: (0.9, 0.9, 0.9), second: (0.8, 0.8, 0.8), third: (0.7, 0.8, 0.9)}
    made = [
        {own["factor"]: value, "seed": seed, "accuracy": accuracy, "error": ""}
        for value, of_value in accuracies.items()
        for seed, accuracy in enumerate(of_value)
    ]
    names: dict[str, object] = {"MADE": made}
    exec(text, names)
    points = {}
    for best in (first, second):
        for clear in (True, False):
            names["CONCLUSION"] = {"best": best, "clear": clear}
            items = exercises.check(9, names).items
            points[best, clear] = {item.name: item.passed for item in items}["conclusion"]
    assert points == {
        (first, True): True, (first, False): True, (second, True): False, (second, False): False,
    }  # fmt: skip


def test_one_seed_is_no_conclusion() -> None:
    own = exercises.my_numbers(9, "ada")
    text = solution(9).replace("exercises.run_study(STUDY)", "MADE").replace("[0, 1, 2]", "[0]")
    made = [
        {own["factor"]: value, "seed": 0, "accuracy": 0.5, "error": ""} for value in own["values"]
    ]
    names: dict[str, object] = {"MADE": made}
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
        exec(text, names)
    hints = {item.name: item.hint for item in exercises.check(9, names).items}
    assert "are too few" in hints["design"] and "make the part `design`" in hints["conclusion"]


def test_a_file_that_is_not_python(adapter_file: Path) -> None:
    adapter_file.write_text("def f(:\n", "utf-8")
    report = exercises.check(3, adapter_file, "ada")
    assert report.points == 0
    assert "in line 1" in report.items[0].hint
    with pytest.raises(DataError, match="cannot be read"):
        exercises.check(3, adapter_file.with_name("no.py"))
    with pytest.raises(ConfigError, match="from 1 to 9"):
        exercises.check(12, adapter_file)


def test_code_that_exits_or_prints_is_no_crash(adapter_file: Path, capsys: object) -> None:
    text = adapter_file.read_text("utf-8")
    text = text.replace("h, a = self.pop_saved(dy)", "print('x' * 999)\n        raise SystemExit")
    adapter_file.write_text(text, "utf-8")
    report = exercises.check(3, adapter_file, "ada")
    assert {item.name for item in report.items if item.passed} == {"forward", "parameters"}
    assert all("SystemExit" in i.hint for i in report.items if not i.passed)


def test_check_part_raises_the_hint_for_a_test_cell(adapter_file: Path) -> None:
    names: dict[str, object] = {"STUDENT": "ada"}
    with pytest.raises(WrongAnswer, match="there is no `MyAdapter`"):
        exercises.check_part(3, "gradients", names)
    exec(adapter_file.read_text("utf-8"), names)
    exercises.check_part(3, "gradients", names)
    with pytest.raises(ConfigError, match="no part 'backward'; it has forward"):
        exercises.check_part(3, "backward", names)


# -- hooks ---------------------------------------------------------------------------------


def test_use_puts_a_part_into_the_library_and_takes_it_out_again() -> None:
    class Mine(Adapter):
        pass

    with exercises.use(Adapter=Mine):
        model = mt.Transformer.from_pretrained("tiny")
        model.add_adapter("task")
        assert type(model.blocks[0].ffn.adapters["task"]) is Mine
    model.add_adapter("other")
    assert type(model.blocks[0].ffn.adapters["other"]) is Adapter


def test_use_is_undone_after_an_error() -> None:
    from minitransformer.nn import kernels, layers

    before = layers.Linear, kernels.attention, kernels.over_inputs_is_cheaper
    with (
        pytest.raises(ZeroDivisionError),
        exercises.use(Linear=type("L", (layers.Linear,), {}), attention=np.add),
    ):
        1 / 0  # noqa: B018
    assert (layers.Linear, kernels.attention, kernels.over_inputs_is_cheaper) == before


def test_use_says_what_it_can_replace() -> None:
    with (
        pytest.raises(ConfigError, match=r"Softmax.*expected some of Linear"),
        exercises.use(Softmax=object),
    ):
        pass
    with pytest.raises(ConfigError, match="expected a class"), exercises.use(Adapter=print):
        pass


def test_an_attention_that_is_plugged_in_refuses_dropout() -> None:
    from minitransformer.nn.functional import attention

    config = mt.TransformerConfig(9, 8, 1, 2, 8, max_positions=4, attention_dropout=0.5)
    model, ids = mt.Transformer(config).train(), np.ones((1, 3), int)
    with exercises.use(attention=attention), pytest.raises(ConfigError, match="no dropout"):
        model.forward(ids)


# -- the command and the plug-in -----------------------------------------------------------


def test_the_command(adapter_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exercise", "3", str(adapter_file)]) == 0
    assert "17 of 17 points" in capsys.readouterr().out
    assert main(["exercise", "3", str(adapter_file), "--student", "grace", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["points"] == 16
    assert main(["exercise"]) == 0
    assert "9  A small research question" in capsys.readouterr().out
    assert main(["exercise", "3", "--start", str(adapter_file)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["exercise", "3"]) == 2
    assert main(["exercise", "33", str(adapter_file)]) == 2


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_minitransformer", "-v", *arguments],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.slow
def test_the_pytest_plugin(adapter_file: Path) -> None:
    text = adapter_file.read_text("utf-8").replace("return dy + dz @", "return dz @")
    adapter_file.write_text(text, "utf-8")
    run = run_pytest(adapter_file.parent, "--exercise", "3", "--student", "ada", "my_adapter.py")
    assert "::forward PASSED" in run.stdout and "::gradients FAILED" in run.stdout
    assert "the skip connection's gradient is missing" in run.stdout
    assert run.returncode == 1


@pytest.mark.slow
def test_the_plugin_costs_other_users_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "import sys\ndef test_a():\n    assert 'numpy' not in sys.modules\n"
        "    assert 'minitransformer' not in sys.modules\n", "utf-8"
    )  # fmt: skip
    run = run_pytest(tmp_path, "-p", "no:hypothesispytest")
    assert run.returncode == 0, run.stdout
