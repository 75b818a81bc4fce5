"""Each wrong solution fails the right part with the right hint, and loses no part that is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exercises.wrong_solutions import ALSO_LOST, WRONG, Wrong, solution
from minitransformer.exercises import EXERCISES, check

KINDS = (  # of mistakes that every course sees; the gradients of a module can have all of them
    "batch sum", "transpose", "skip", "mean for sum", "wrong axis", "sign", "scaling", "stale",
    "frozen", "in place", "broadcasting", "float32", "one sentence", "rare entries",
)  # fmt: skip


def check_wrong(wrong: Wrong, folder: Path) -> None:
    path = folder / "wrong.py"
    path.write_text(wrong.source(), "utf-8")
    report = check(wrong.exercise, path, "ada")
    items = {item.name: item for item in report.items}
    assert not items[wrong.part].passed, "the mistake is not noticed"
    assert wrong.hint in items[wrong.part].hint
    for item in items.values():  # beside a student's own line, no hint is the code of an answer
        said = re.sub(r", in line \d+ .*", "", item.hint)
        assert not re.search(r"\.T @|@ \w+\.T|\.sum\(axis|\.mean\(axis", said), said
    lost = {name for name, item in items.items() if not item.passed}
    allowed = {wrong.part, *ALSO_LOST.get((wrong.exercise, wrong.part), "").split()}
    assert lost <= allowed, f"lost {lost - allowed} as well"
    assert report.points == report.max_points - sum(items[name].max_points for name in lost)


@pytest.mark.parametrize(
    ("exercise", "old", "new", "false"),
    [
        (3, "flat(h).T @ flat(dz)", "h[0].T @ dz[0]", "wrong only at columns"),
        (3, "flat(a).T @ flat(df)", "a[0].T @ df[0]", "wrong only at rows"),
        (6, "p.grad**2", "p.grad**4", "the root of v is missing"),
        (6, "m, v = self.m[name], self.v[name]\n", "m, v = self.m[name], self.v[name]\n"
         "            p.grad = p.grad + 0.2 * p.value\n", "arrays of their own"),
        (1, "self.weight.accumulate(flat(x)", "self.weight.grad = (flat(x)", "float32"),
        (2, "@ q, dv", "@ q", "returned None"),
        (3, "dz = (df @", "dz = (self.scaling * df @", "wrong only at positions"),
    ],
)  # fmt: skip
def test_a_false_cause_is_not_named(
    exercise: int, old: str, new: str, false: str, tmp_path: Path
) -> None:
    text = solution(exercise)
    assert old in text
    (tmp_path / "wrong.py").write_text(text.replace(old, new, 1), "utf-8")
    hints = [item.hint for item in check(exercise, tmp_path / "wrong.py", "ada").items]
    assert any(hints) and not any(false in hint for hint in hints)


def one_of_each() -> list[Wrong]:
    """For the quick run: the first of each kind, in turn from all exercises but the slow one."""
    seen: dict[str, Wrong] = {}
    for wrong in sorted(WRONG, key=lambda w: w.exercise == 1):
        if wrong.exercise != 9:
            seen.setdefault(wrong.kind, wrong)
    return list(seen.values())


@pytest.mark.parametrize("wrong", one_of_each(), ids=lambda w: w.name)
def test_one_mistake_of_each_kind(wrong: Wrong, tmp_path: Path) -> None:
    check_wrong(wrong, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.name)
def test_every_mistake(wrong: Wrong, tmp_path: Path) -> None:
    check_wrong(wrong, tmp_path)


def test_the_known_mistakes_are_all_there() -> None:
    assert {wrong.kind for wrong in WRONG} >= set(KINDS)
    kinds_of = {n: {w.kind for w in WRONG if w.exercise == n} for n in range(1, 10)}
    assert kinds_of[3] >= set(KINDS)
    assert kinds_of[7] >= set(KINDS) - {"batch sum", "wrong axis", "broadcasting"}  # it has no bias
    assert kinds_of[1] >= set(KINDS) - {"skip"}
    assert kinds_of[5] >= set(KINDS) - {"skip"}
    assert kinds_of[2] >= set(KINDS) - {"skip", "frozen", "batch sum"}  # functions, no parameters


@pytest.mark.parametrize("number", [e.number for e in EXERCISES if e.number != 9])
def test_the_solution_gets_all_points(number: int, tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(solution(number), "utf-8")
    for seed in (0, 4711):
        report = check(number, tmp_path / "right.py", "ada", seed)
        assert report.passed, str(report)


@pytest.mark.parametrize(
    ("exercise", "old", "new"),
    [
        (2, "return ds @ k, ds.swapaxes(-1, -2) @ q, dv",
         "return [ds @ k, ds.swapaxes(-1, -2) @ q, dv]"),
        (3, "h, a = self.pop_saved(dy)", "h, _ = self.pop_saved(dy)\n"
         "        a = np.maximum(h @ self.w_down.value + self.b_down.value, 0)"),
        (4, '{"zero_up": {"w_down", "b_down"}', '{"zero_up": ("b_down", "w_down")'),
        (5, "return dy @ self.weight.value.T",
         "return (self.weight.value @ flat(dy).T).T.reshape(*dy.shape[:-1], -1)"),
        (6, "            direction = m_hat / (np.sqrt(v_hat) + self.eps) + decay * p.value\n"
         "            p.value -= self.lr * direction",
         "            p.value *= 1 - self.lr * decay\n"
         "            p.value -= self.lr * m_hat / (np.sqrt(v_hat) + self.eps)"),
        (7, "return weight + self.scaling * (self.a.value @ self.b.value), bias",
         "return [weight + self.scaling * (self.a.value @ self.b.value), bias.copy()]"),
    ],
)  # fmt: skip
def test_another_right_solution_gets_all_points(
    exercise: int, old: str, new: str, tmp_path: Path
) -> None:
    text = solution(exercise)
    assert text.count(old) == 1
    (tmp_path / "right.py").write_text(text.replace(old, new), "utf-8")
    report = check(exercise, tmp_path / "right.py", "ada")
    assert report.passed, str(report)


def test_a_share_of_base_and_adapters_together_is_named(tmp_path: Path) -> None:
    text = solution(8, "cy").replace('/ own["base_parameters"]', '/ (own["base_parameters"] + n)')
    (tmp_path / "wrong.py").write_text(text, "utf-8")
    hints = {item.name: item.hint for item in check(8, tmp_path / "wrong.py", "cy").items}
    assert "base and adapters together" in hints["answers"]


@pytest.mark.slow
def test_the_solution_of_the_study_gets_all_points(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(solution(9), "utf-8")
    assert check(9, tmp_path / "right.py", "ada").passed
