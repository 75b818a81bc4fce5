"""The student edition of the notebooks: it holds no answer, and runs to its first blank."""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

import nbclient
import nbformat

from scripts import run_notebooks as pages
from scripts.student_notebooks import blanked, student_edition

pytestmark = pytest.mark.notebook

NOTEBOOKS = pages.notebooks()
WITH_BLANKS = [p for p in NOTEBOOKS if any("blanks" in c.metadata for c in pages.read(p).cells)]


def text(notebook: Any) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells)


def outcomes(notebook: Any) -> list[str]:
    """The lines of prose that a page folds away."""
    folded = re.findall(r"<details>(.*?)</details>", text(notebook), re.DOTALL)
    return [line for part in folded for line in part.splitlines() if len(line) > 40]


def answers(cell: Any) -> list[str]:
    """The bodies that a cell leaves to the student, without the first line and the docstring."""
    functions = {n.name: n for n in ast.walk(tree_of(cell)) if isinstance(n, ast.FunctionDef)}
    return [
        "\n".join(map(ast.unparse, functions[name].body))
        for name in cell.metadata.get("blanks", [])
    ]


def tree_of(cell: Any) -> ast.Module:
    """The code of a cell, without IPython's own lines."""
    return ast.parse(re.sub(r"^( *)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_student_edition_holds_no_answer(path: Path) -> None:
    page = pages.read(path)
    before = copy.deepcopy(page)
    edition = student_edition(page)
    assert page == before  # the page itself stays
    nbformat.validate(edition)
    assert outcomes(page)
    given = text(edition)
    assert [line for line in outcomes(page) if line in given] == []
    assert "<details>" not in given
    assert "## Summary" not in given
    code = "\n".join(ast.unparse(tree_of(cell)) for cell in pages.code_cells(edition))
    wanted = [body for cell in pages.code_cells(page) for body in answers(cell)]
    lines = {line.strip() for line in code.splitlines()}
    assert [w for w in wanted if all(line.strip() in lines for line in w.splitlines())] == []
    for cell in pages.code_cells(edition):
        assert cell.outputs == []
        assert cell.execution_count is None


def test_a_student_has_a_place_for_each_thing_that_is_folded_away() -> None:
    folded = "Look.\n\n<details>\n<summary><b>{}</b></summary>\n\nSo it is.\n\n</details>\n\nNext."
    cells = [folded.format(name) for name in ("What it says", "The derivation")]
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(c) for c in cells])
    assert [cell.source.splitlines() for cell in student_edition(page).cells] == [
        ["Look.", "", f"*{asks}* (Write here.)", "", "Next."]
        for asks in ("What do you see, and what did you expect?", "Your derivation:")
    ]


def test_some_pages_have_blanks() -> None:
    assert WITH_BLANKS


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_BLANKS, ids=lambda path: path.stem)
def test_student_edition_runs_to_its_first_blank(path: Path) -> None:
    edition = student_edition(pages.read(path))
    with pytest.raises(nbclient.exceptions.CellExecutionError) as failed:
        pages.execute(edition, path.parent)
    names = [name for cell in pages.read(path).cells for name in cell.metadata.get("blanks", [])]
    assert failed.value.ename == "NotImplementedError"
    assert failed.value.evalue == f"write the body of {names[0]}, then run this cell again"


def test_a_blank_keeps_the_first_line_and_the_docstring() -> None:
    source = 'def f(x):\n    "Twice."\n    y = x + x\n    return y\n\n\nf(1)'
    assert blanked(source, ["f"]) == (
        'def f(x):\n    "Twice."\n    raise NotImplementedError('
        '"write the body of f, then run this cell again")\n\n\nf(1)'
    )
    with pytest.raises(ValueError, match="no function g"):
        blanked(source, ["g"])
